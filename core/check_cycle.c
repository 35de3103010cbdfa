/* Why a schedule hangs, in words.
 *
 * When everything that can run has run, each unfinished queue (a rank's compute queue, its transfer
 * queue with one peer, or when blocking its only queue) has a head that waits for something in
 * another queue, at that queue's head or behind it. Those queues and waits are a graph of a few
 * nodes per rank, in which every node has a way out: it has a cycle, and a shortest one is what a
 * person needs to see:
 *
 *     rank 0 waits in 0SEND_F1 for rank 1 to reach 1RECV_F1; rank 1 waits in 1SEND_B0 for …
 *
 * A shortest cycle is found by breadth-first search from every queue, never deeper than the best so
 * far. For graphs of hundreds of thousands of queues that is bounded by a number of steps, after
 * which the best found stands. */
#include "core/schedule_internal.h"

#include <string.h>

enum { STEPS_MOST = 1 << 26, CLAUSES_MOST = 20 };

/* One wait: `waiting` (an action of the line's head) for `wanted` in line `line`. */
typedef struct wait {
    uint32_t waiting, wanted;
    int line;
} wait;

/* Lines are the queues: compute queues by rank, then transfer queues. */
typedef struct stuck {
    const pp_wait_graph *graph;
    int line_count;
    uint32_t *head; /* [lines] node that the line cannot get past, PP_NOWHERE if finished */
    int *parent;    /* [lines] search: where from */
    int *depth;     /* [lines] search: waits from the start */
    int *seen;      /* [lines] search that reached it last, plus 1 */
    int *queue;     /* [lines] */
    int *best;      /* [lines] the best cycle */
    int best_length;
    int64_t steps;
} stuck;

/* ---- heads --------------------------------------------------------------------------------- */

static int line_of_rank(const stuck *state, uint32_t action) {
    const pp_schedule *schedule = state->graph->schedule;
    return schedule->placement[schedule->actions[action].stage];
}

static int line_of_transfer(const stuck *state, uint32_t transfer) {
    const pp_wait_graph *graph = state->graph;
    if (graph->blocking) return line_of_rank(state, transfer);
    return graph->schedule->ranks + pp_transfer_queue(graph, graph->schedule->actions[transfer]);
}

/* The first node of a group that has not had its turn, or PP_NOWHERE. */
static uint32_t undone_of_group(const pp_wait_graph *graph, uint32_t group) {
    if (graph->waiting[pp_group_start(graph, group)] > 0) return pp_group_start(graph, group);
    if (graph->waiting[pp_group_end(graph, group)] > 0) return pp_group_end(graph, group);
    return PP_NOWHERE;
}

static uint32_t undone_of_action(const pp_wait_graph *graph, uint32_t action) {
    if (pp_action_is_transfer(graph->schedule->actions[action]))
        return undone_of_group(graph, graph->group[action]);
    return graph->waiting[action] > 0 ? action : PP_NOWHERE;
}

/* The first undone node of every line. Every action or group belongs to one line, and they are
 * walked in the order of their lines. */
static void find_heads(stuck *state) {
    const pp_wait_graph *graph = state->graph;
    for (uint32_t i = 0; i < graph->action_count; i++) {
        bool transfer = pp_action_is_transfer(graph->schedule->actions[i]);
        if ((transfer && !graph->blocking) || pp_is_second(graph->schedule, i)) continue;
        uint32_t *head = &state->head[line_of_rank(state, i)];
        if (*head == PP_NOWHERE) *head = undone_of_action(graph, i);
    }
    for (uint32_t g = 0; g < graph->group_count && !graph->blocking; g++) {
        uint32_t first = graph->transfers[graph->group_first[g]];
        uint32_t *head = &state->head[line_of_transfer(state, first)];
        if (*head == PP_NOWHERE) *head = undone_of_group(graph, g);
    }
}

/* ---- waits --------------------------------------------------------------------------------- */

/* What one action of a line's head waits for outside its line's order; false: nothing. */
static bool wait_of_compute(const stuck *state, uint32_t action, wait *found) {
    const pp_wait_graph *graph = state->graph;
    uint32_t wanted = graph->group ? graph->group[action] : pp_compute_before(graph, action);
    if (wanted == PP_NOWHERE) return false;
    bool received = graph->group != NULL;
    uint32_t node =
        received ? pp_group_end(graph, graph->group[wanted]) : pp_compute_node(graph, wanted);
    int line = received ? line_of_transfer(state, wanted) : line_of_rank(state, wanted);
    *found = (wait){action, wanted, line};
    return graph->waiting[node] > 0;
}

static bool wait_of_transfer(const stuck *state, uint32_t transfer, bool started, wait *found) {
    const pp_wait_graph *graph = state->graph;
    if (started) {
        uint32_t other = graph->partner[transfer];
        *found = (wait){transfer, other, line_of_transfer(state, other)};
        return graph->waiting[pp_group_start(graph, graph->group[other])] > 0;
    }
    if (!pp_is_send(graph->schedule->actions[transfer])) return false;
    uint32_t producer = pp_transfer_compute(graph, transfer);
    *found = (wait){transfer, producer, line_of_rank(state, producer)};
    return graph->waiting[pp_compute_node(graph, producer)] > 0;
}

/* Calls for each wait of a line's head until `take` returns true; true if it did. */
typedef bool take_fn(stuck *state, void *context, wait found);

static bool each_wait(stuck *state, int line, take_fn *take, void *context) {
    const pp_wait_graph *graph = state->graph;
    uint32_t node = state->head[line];
    wait found;
    if (node < graph->action_count) {
        for (size_t i = node; i < node + pp_node_size(graph->schedule, node); i++)
            if (wait_of_compute(state, (uint32_t)i, &found) && take(state, context, found))
                return true;
        return false;
    }
    uint32_t group = (uint32_t)((node - graph->action_count) / 2);
    bool started = node == pp_group_end(graph, group);
    for (uint32_t i = graph->group_first[group]; i < graph->group_first[group + 1]; i++)
        if (wait_of_transfer(state, graph->transfers[i], started, &found) &&
            take(state, context, found))
            return true;
    return false;
}

/* ---- the shortest cycle -------------------------------------------------------------------- */

typedef struct search {
    int start, at;
    int tail; /* of state->queue */
} search;

/* Reaches found.line from search->at; true if that closes the cycle. */
static bool reach(stuck *state, void *context, wait found) {
    search *now = context;
    state->steps++;
    if (found.line == now->start) return true;
    if (state->seen[found.line] == now->start + 1) return false;
    state->seen[found.line] = now->start + 1;
    state->parent[found.line] = now->at;
    state->depth[found.line] = state->depth[now->at] + 1;
    state->queue[now->tail++] = found.line;
    return false;
}

static void keep_cycle(stuck *state, int start, int last) {
    state->best_length = state->depth[last] + 1;
    for (int i = state->depth[last], line = last; i >= 0; i--) {
        state->best[i] = line;
        line = line == start ? start : state->parent[line];
    }
}

static void search_from(stuck *state, int start) {
    search now = {.start = start, .at = start};
    state->seen[start] = start + 1;
    state->depth[start] = 0;
    state->queue[now.tail++] = start;
    for (int front = 0; front < now.tail; front++) {
        now.at = state->queue[front];
        if (state->best_length > 0 && state->depth[now.at] + 1 >= state->best_length) return;
        if (!each_wait(state, now.at, reach, &now)) continue;
        keep_cycle(state, start, now.at);
        return;
    }
}

static int rank_of_line(const stuck *state, int line) {
    int ranks = state->graph->schedule->ranks;
    return line < ranks ? line : state->graph->queue_rank[line - ranks];
}

/* Where the telling begins: the smallest rank, there the smallest line. */
static int first_told(const stuck *state) {
    int chosen = 0;
    for (int i = 1; i < state->best_length; i++) {
        int rank = rank_of_line(state, state->best[i]);
        int other = rank_of_line(state, state->best[chosen]);
        if (rank < other || (rank == other && state->best[i] < state->best[chosen])) chosen = i;
    }
    return chosen;
}

/* ---- words --------------------------------------------------------------------------------- */

typedef struct choice {
    int line;
    wait found;
} choice;

static bool choose(stuck *state, void *context, wait found) {
    choice *wanted = context;
    (void)state;
    if (found.line != wanted->line) return false;
    wanted->found = found;
    return true;
}

/* The wait of one line of the cycle for the next. */
static wait wait_between(stuck *state, int line, int next) {
    choice wanted = {.line = next};
    each_wait(state, line, choose, &wanted);
    return wanted.found;
}

static bool in_one_group(const pp_wait_graph *graph, uint32_t a, uint32_t b) {
    const pp_action *actions = graph->schedule->actions;
    return a != b && pp_action_is_transfer(actions[a]) && pp_action_is_transfer(actions[b]) &&
           graph->group[a] == graph->group[b];
}

/* One clause. asked: what the clause before wanted of this line. */
static void tell(const stuck *state, wait found, uint32_t asked, pp_text *text) {
    const pp_wait_graph *graph = state->graph;
    const pp_action *actions = graph->schedule->actions;
    char waiting[32], wanted[32], also[32];
    int rank = line_of_rank(state, found.waiting), other = line_of_rank(state, found.wanted);
    pp_action_text(actions[found.waiting], waiting);
    pp_action_text(actions[found.wanted], wanted);
    pp_text_printf(text, "rank %d waits in %s", rank, waiting);
    if (in_one_group(graph, found.waiting, asked))
        pp_text_printf(text, " (one group with %s)", pp_action_text(actions[asked], also));
    if (rank != other)
        pp_text_printf(text, " for rank %d to reach %s", other, wanted);
    else
        pp_text_printf(text, " for its own %s", wanted);
    if (rank == other && graph->blocking) pp_text_string(text, ", which stands behind it");
}

static void tell_cycle(stuck *state, pp_text *text) {
    int length = state->best_length, first = first_told(state);
    const int *cycle = state->best;
    wait before = wait_between(state, cycle[(first + length - 1) % length], cycle[first]);
    pp_text_string(text, "the schedule hangs: ");
    for (int i = 0; i < length && i < CLAUSES_MOST; i++) {
        wait found =
            wait_between(state, cycle[(first + i) % length], cycle[(first + i + 1) % length]);
        if (i > 0) pp_text_string(text, "; ");
        tell(state, found, before.wanted, text);
        before = found;
    }
    if (length > CLAUSES_MOST)
        pp_text_printf(text, "; and so on, %d waits in all, back to the first", length);
}

static pp_status find_and_tell(stuck *state, pp_error *error) {
    find_heads(state);
    for (int line = 0; line < state->line_count; line++)
        if (state->head[line] != PP_NOWHERE &&
            (state->steps < STEPS_MOST || state->best_length == 0))
            search_from(state, line);
    pp_text text = {0};
    tell_cycle(state, &text);
    pp_status status =
        text.failed ? pp_fail_memory(error)
                    : pp_fail(error, PP_E_DEADLOCK, state->graph->schedule->name, "%s", text.bytes);
    pp_text_deinit(&text);
    return status;
}

pp_status pp_wait_cycle_fail(const pp_wait_graph *graph, pp_error *error) {
    pp_arena arena;
    pp_arena_init(&arena);
    stuck state = {.graph = graph, .line_count = graph->schedule->ranks + graph->queue_count};
    state.head = PP_NEW(&arena, uint32_t, state.line_count);
    state.parent = PP_NEW(&arena, int, state.line_count);
    state.depth = PP_NEW(&arena, int, state.line_count);
    state.seen = PP_NEW(&arena, int, state.line_count);
    state.queue = PP_NEW(&arena, int, state.line_count);
    state.best = PP_NEW(&arena, int, state.line_count);
    pp_status status;
    if (arena.failed) {
        status = pp_fail_memory(error);
    } else {
        memset(state.head, 0xff, (size_t)state.line_count * sizeof *state.head); /* PP_NOWHERE */
        status = find_and_tell(&state, error);
    }
    pp_arena_deinit(&arena);
    return status;
}
