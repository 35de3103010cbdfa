/* Who waits for whom under rendezvous, and what runs when everything that can run has run.
 *
 * The model is that of docs/promises.md. A rank has one compute queue and one transfer queue per peer,
 * each in file order. Transfers of one queue with no compute action of the rank between them form a
 * group, with a start and an end node. The edges, from a node to those that wait for it:
 *
 *   compute c   → the next in its queue
 *               → the start of the group that sends its result
 *   start of g  → the end of g; the end of every group that holds the other end of one of g's
 *                 transfers (a transfer happens when both its groups have started)
 *   end of g    → the start of the next group in its queue
 *               → the compute actions that need what g received
 *
 * Blocking: a rank has a single queue of everything and each transfer is a group of its own.
 * Without transfers, compute actions wait for those of other ranks directly. What a rank's own
 * order settles (pp_units_order) needs no edge.
 *
 * The edges are enumerated from five arrays, never stored; running the graph is Kahn's algorithm in
 * rounds. Every node runs if and only if there is no cycle, and that is independent of timing: an
 * edge only says "not before", so any execution that gets stuck is stuck in a cycle. */
#include "core/schedule_internal.h"

#include <string.h>

/* ---- finding compute actions --------------------------------------------------------------- */

static uint32_t *new_indices(pp_arena *arena, size_t count) {
    uint32_t *indices = PP_NEW(arena, uint32_t, count);
    if (indices) memset(indices, 0xff, count * sizeof *indices); /* PP_NOWHERE */
    return indices;
}

static void index_compute(pp_wait_graph *graph) {
    const pp_schedule *schedule = graph->schedule;
    for (size_t i = 0; i < graph->action_count; i++) {
        pp_action action = schedule->actions[i];
        if (action.kind == PP_FORWARD)
            graph->forward[pp_unit_of(graph->units, schedule, action)] = (uint32_t)i;
        else if (pp_is_backward(action))
            graph->backward[pp_unit_of(graph->units, schedule, action)] = (uint32_t)i;
    }
}

/* The same microbatch's F (or backward) of another stage of the chain, if on another rank. */
static uint32_t compute_across(const pp_wait_graph *graph, pp_action action, int stage) {
    if (!pp_crosses(graph->schedule, action.stage, stage)) return PP_NOWHERE;
    size_t unit = pp_unit_of(graph->units, graph->schedule, action) -
                  graph->units->base[action.stage] + graph->units->base[stage];
    return action.kind == PP_FORWARD ? graph->forward[unit] : graph->backward[unit];
}

static bool is_forward_or_backward(pp_action action) {
    return action.kind == PP_FORWARD || pp_is_backward(action);
}

uint32_t pp_compute_after(const pp_wait_graph *graph, uint32_t action) {
    pp_action what = graph->schedule->actions[action];
    if (!is_forward_or_backward(what)) return PP_NOWHERE;
    return compute_across(graph, what, pp_other_stage(graph->units, what));
}

uint32_t pp_compute_before(const pp_wait_graph *graph, uint32_t action) {
    pp_action what = graph->schedule->actions[action];
    if (!is_forward_or_backward(what)) return PP_NOWHERE;
    bool forward = what.kind == PP_FORWARD;
    return compute_across(
        graph, what, forward ? graph->units->previous[what.stage] : graph->units->next[what.stage]);
}

/* ---- transfer queues ----------------------------------------------------------------------- */

/* Numbers the queues rank by rank. Scratch: stages of each rank in a row, and per peer the last
 * rank that had a queue with it. */
typedef struct queue_numbering {
    int *first;  /* [ranks + 1] into stages */
    int *stages; /* [stages] */
    int *owner;  /* [ranks] */
    int *number; /* [ranks] */
} queue_numbering;

static void sort_stages(const pp_schedule *schedule, queue_numbering *work) {
    for (int s = 0; s < schedule->stages; s++) work->first[schedule->placement[s] + 1]++;
    for (int p = 0; p < schedule->ranks; p++) work->first[p + 1] += work->first[p];
    for (int s = schedule->stages - 1; s >= 0; s--) {
        int p = schedule->placement[s];
        work->stages[work->first[p + 1] - 1 - work->owner[p]++] = s;
    }
    for (int p = 0; p < schedule->ranks; p++) work->owner[p] = -1;
}

static int queue_with(pp_wait_graph *graph, queue_numbering *work, int p, int stage, int other) {
    if (!pp_crosses(graph->schedule, stage, other)) return -1;
    int peer = graph->schedule->placement[other];
    if (work->owner[peer] != p) {
        work->owner[peer] = p;
        work->number[peer] = graph->queue_count;
        graph->queue_rank[graph->queue_count++] = p;
    }
    return work->number[peer];
}

static pp_status number_queues(pp_wait_graph *graph, pp_error *error) {
    const pp_schedule *schedule = graph->schedule;
    const pp_units *units = graph->units;
    pp_arena *arena = &graph->arena;
    queue_numbering work = {
        PP_NEW(arena, int, schedule->ranks + 1), PP_NEW(arena, int, schedule->stages),
        PP_NEW(arena, int, schedule->ranks), PP_NEW(arena, int, schedule->ranks)};
    graph->queue_to_next = PP_NEW(arena, int, schedule->stages);
    graph->queue_to_previous = PP_NEW(arena, int, schedule->stages);
    graph->queue_rank = PP_NEW(arena, int, 2 * (size_t)schedule->stages);
    if (arena->failed) return pp_fail_memory(error);
    sort_stages(schedule, &work);
    for (int p = 0; p < schedule->ranks; p++) {
        for (int i = work.first[p]; i < work.first[p + 1]; i++) {
            int s = work.stages[i];
            graph->queue_to_next[s] = queue_with(graph, &work, p, s, units->next[s]);
            graph->queue_to_previous[s] = queue_with(graph, &work, p, s, units->previous[s]);
        }
    }
    return PP_OK;
}

/* ---- groups -------------------------------------------------------------------------------- */

/* Running counts per queue, while the actions are walked in file order. */
typedef struct queue_count {
    uint32_t transfers, groups; /* pass A: how many; pass B: where the next goes */
    uint32_t last;              /* compute actions of the file before the latest transfer, plus 1 */
} queue_count;

/* Steps over one action; true if it is a transfer, and then *opens says whether a group begins. */
static bool step(const pp_wait_graph *graph, pp_action action, uint32_t *ordinal,
                 queue_count *queues, queue_count **queue, bool *opens) {
    *ordinal += pp_action_is_compute(action);
    if (!pp_action_is_transfer(action)) return false;
    *queue = &queues[pp_transfer_queue(graph, action)];
    *opens = graph->blocking || (*queue)->last != *ordinal + 1;
    (*queue)->last = *ordinal + 1;
    return true;
}

/* Pass A: sizes; turns them into where each queue's transfers and groups begin. */
static void count_groups(pp_wait_graph *graph, queue_count *queues) {
    uint32_t ordinal = 0;
    queue_count *queue;
    bool opens;
    for (size_t i = 0; i < graph->action_count; i++) {
        if (!step(graph, graph->schedule->actions[i], &ordinal, queues, &queue, &opens)) continue;
        queue->transfers++;
        queue->groups += opens;
    }
    uint32_t transfers = 0, groups = 0;
    for (int q = 0; q < graph->queue_count; q++) {
        queue_count size = queues[q];
        queues[q] = (queue_count){transfers, groups, 0};
        transfers += size.transfers;
        groups += size.groups;
    }
    graph->transfer_count = transfers;
    graph->group_count = groups;
}

/* Pass B: fills transfers, group_first, and the transfers' half of group. */
static void fill_groups(pp_wait_graph *graph, queue_count *queues) {
    uint32_t ordinal = 0;
    queue_count *queue;
    bool opens;
    for (size_t i = 0; i < graph->action_count; i++) {
        if (!step(graph, graph->schedule->actions[i], &ordinal, queues, &queue, &opens)) continue;
        if (opens) graph->group_first[queue->groups++] = queue->transfers;
        graph->group[i] = queue->groups - 1;
        graph->transfers[queue->transfers++] = (uint32_t)i;
    }
    graph->group_first[graph->group_count] = (uint32_t)graph->transfer_count;
}

static pp_status make_groups(pp_wait_graph *graph, pp_error *error) {
    pp_arena *arena = &graph->arena;
    queue_count *queues = PP_NEW(arena, queue_count, graph->queue_count);
    if (arena->failed) return pp_fail_memory(error);
    count_groups(graph, queues);
    graph->partner = new_indices(arena, graph->action_count);
    graph->group = new_indices(arena, graph->action_count);
    graph->transfers = PP_NEW(arena, uint32_t, graph->transfer_count);
    graph->group_first = PP_NEW(arena, uint32_t, graph->group_count + 1);
    if (arena->failed) return pp_fail_memory(error);
    fill_groups(graph, queues);
    for (size_t i = 0; i < graph->transfer_count; i++) {
        uint32_t transfer = graph->transfers[i];
        uint32_t compute = pp_transfer_compute(graph, transfer);
        bool send = pp_is_send(graph->schedule->actions[transfer]);
        (send ? graph->partner : graph->group)[compute] = transfer;
    }
    return PP_OK;
}

/* ---- matching both ends -------------------------------------------------------------------- */

/* The RECV that belongs to a SEND. */
static pp_action counterpart(const pp_wait_graph *graph, pp_action send) {
    pp_action receive = send;
    receive.kind = send.kind == PP_SEND_F ? PP_RECV_F : PP_RECV_B;
    receive.stage = (uint16_t)pp_other_stage(graph->units, send);
    return receive;
}

static bool same_action(pp_action a, pp_action b) {
    return a.kind == b.kind && a.stage == b.stage && a.microbatch == b.microbatch &&
           a.slice == b.slice;
}

static pp_status fail_match(const pp_wait_graph *graph, uint32_t send, uint32_t receive,
                            size_t position, pp_error *error) {
    const pp_schedule *schedule = graph->schedule;
    char sent[32], received[32];
    pp_action from = schedule->actions[send], to = schedule->actions[receive];
    return pp_fail(error, PP_E_INPUT, schedule->name,
                   "message %zu from rank %d to rank %d is sent as %s but received as %s; messages "
                   "carry no tag, so both ranks must list them in the same order",
                   position, schedule->placement[from.stage], schedule->placement[to.stage],
                   pp_action_text(from, sent), pp_action_text(to, received));
}

/* Pairs the i-th SEND of a queue with the i-th RECV of the peer's queue. As the schedule is
 * complete, there are as many. */
static pp_status match_queue(pp_wait_graph *graph, size_t begin, size_t end,
                             const uint32_t *queue_first, pp_error *error) {
    const pp_schedule *schedule = graph->schedule;
    size_t other = SIZE_MAX, position = 0;
    for (size_t i = begin; i < end; i++) {
        uint32_t send = graph->transfers[i];
        if (!pp_is_send(schedule->actions[send])) continue;
        pp_action wanted = counterpart(graph, schedule->actions[send]);
        if (other == SIZE_MAX) other = queue_first[pp_transfer_queue(graph, wanted)];
        while (pp_is_send(schedule->actions[graph->transfers[other]])) other++;
        uint32_t receive = graph->transfers[other++];
        if (!same_action(schedule->actions[receive], wanted))
            return fail_match(graph, send, receive, position, error);
        graph->partner[send] = receive;
        graph->partner[receive] = send;
        position++;
    }
    return PP_OK;
}

static pp_status match_transfers(pp_wait_graph *graph, pp_error *error) {
    const pp_schedule *schedule = graph->schedule;
    uint32_t *first = PP_NEW(&graph->arena, uint32_t, graph->queue_count + 1);
    if (!first) return pp_fail_memory(error);
    for (size_t i = 0; i < graph->transfer_count; i++)
        first[pp_transfer_queue(graph, schedule->actions[graph->transfers[i]]) + 1]++;
    for (int q = 0; q < graph->queue_count; q++) first[q + 1] += first[q];
    for (int q = 0; q < graph->queue_count; q++)
        PP_TRY(match_queue(graph, first[q], first[q + 1], first, error));
    return PP_OK;
}

/* ---- edges --------------------------------------------------------------------------------- */

typedef void visit_fn(pp_wait_graph *graph, uint32_t node);

/* The node that follows in a queue of compute actions, or of everything when blocking. */
static inline void visit_next_action(pp_wait_graph *graph, size_t from, int rank, visit_fn *visit) {
    const pp_schedule *schedule = graph->schedule;
    size_t end = schedule->first_action[rank + 1];
    for (size_t i = from; i < end; i++) {
        bool transfer = pp_action_is_transfer(schedule->actions[i]);
        if (transfer && !graph->blocking) continue;
        visit(graph, transfer ? pp_group_start(graph, graph->group[i]) : (uint32_t)i);
        return;
    }
}

static inline void visit_after_compute(pp_wait_graph *graph, uint32_t node, visit_fn *visit) {
    const pp_schedule *schedule = graph->schedule;
    size_t end = node + pp_node_size(schedule, node);
    visit_next_action(graph, end, schedule->placement[schedule->actions[node].stage], visit);
    for (uint32_t i = node; i < end; i++) {
        if (graph->partner) {
            if (graph->partner[i] != PP_NOWHERE)
                visit(graph, pp_group_start(graph, graph->group[graph->partner[i]]));
        } else {
            uint32_t after = pp_compute_after(graph, i);
            if (after != PP_NOWHERE) visit(graph, pp_compute_node(graph, after));
        }
    }
}

static inline void visit_after_start(pp_wait_graph *graph, uint32_t g, visit_fn *visit) {
    visit(graph, pp_group_end(graph, g));
    for (uint32_t i = graph->group_first[g]; i < graph->group_first[g + 1]; i++) {
        uint32_t other = graph->partner[graph->transfers[i]];
        visit(graph, pp_group_end(graph, graph->group[other]));
    }
}

static inline void visit_after_end(pp_wait_graph *graph, uint32_t g, visit_fn *visit) {
    const pp_schedule *schedule = graph->schedule;
    uint32_t last = graph->transfers[graph->group_first[g + 1] - 1];
    pp_action action = schedule->actions[last];
    if (graph->blocking) {
        visit_next_action(graph, last + 1, schedule->placement[action.stage], visit);
    } else if (g + 1 < graph->group_count) {
        pp_action next = schedule->actions[graph->transfers[graph->group_first[g + 1]]];
        if (pp_transfer_queue(graph, next) == pp_transfer_queue(graph, action))
            visit(graph, pp_group_start(graph, g + 1));
    }
    for (uint32_t i = graph->group_first[g]; i < graph->group_first[g + 1]; i++) {
        uint32_t transfer = graph->transfers[i];
        if (pp_is_send(schedule->actions[transfer])) continue;
        visit(graph, pp_compute_node(graph, pp_transfer_compute(graph, transfer)));
    }
}

static inline void visit_after(pp_wait_graph *graph, uint32_t node, visit_fn *visit) {
    if (node < graph->action_count) {
        visit_after_compute(graph, node, visit);
        return;
    }
    uint32_t group = (uint32_t)((node - graph->action_count) / 2);
    if (node == pp_group_start(graph, group))
        visit_after_start(graph, group, visit);
    else
        visit_after_end(graph, group, visit);
}

/* ---- running ------------------------------------------------------------------------------- */

static void count_waiting(pp_wait_graph *graph, uint32_t node) {
    graph->waiting[node]++;
}

static void release(pp_wait_graph *graph, uint32_t node) {
    if (--graph->waiting[node] == 0) graph->order[graph->done_count++] = node;
}

static bool is_compute_node(const pp_wait_graph *graph, size_t i) {
    return !pp_action_is_transfer(graph->schedule->actions[i]) && !pp_is_second(graph->schedule, i);
}

/* Counts what each node waits for, then queues those that wait for nothing. */
static void prepare(pp_wait_graph *graph) {
    size_t end = graph->action_count + 2 * graph->group_count;
    for (size_t node = 0; node < end; node++) {
        if (node < graph->action_count && !is_compute_node(graph, node)) continue;
        visit_after(graph, (uint32_t)node, count_waiting);
        graph->node_count++;
    }
    for (size_t node = 0; node < end; node++) {
        if (node < graph->action_count && !is_compute_node(graph, node)) continue;
        if (graph->waiting[node] == 0) graph->order[graph->done_count++] = (uint32_t)node;
    }
}

bool pp_wait_graph_run(pp_wait_graph *graph, pp_round_fn *on_round, void *context) {
    for (size_t begin = 0, end; begin < graph->done_count; begin = end) {
        end = graph->done_count;
        if (on_round) on_round(context, graph->order + begin, end - begin);
        for (size_t i = begin; i < end; i++) visit_after(graph, graph->order[i], release);
    }
    return graph->done_count == graph->node_count;
}

/* ---- building ------------------------------------------------------------------------------ */

static pp_status graph_build(pp_wait_graph *graph, pp_error *error) {
    size_t unit_count = graph->units->base[graph->schedule->stages];
    graph->forward = new_indices(&graph->arena, unit_count);
    graph->backward = new_indices(&graph->arena, unit_count);
    if (graph->arena.failed) return pp_fail_memory(error);
    index_compute(graph);
    if (graph->units->has_transfers) {
        PP_TRY(number_queues(graph, error));
        PP_TRY(make_groups(graph, error));
        PP_TRY(match_transfers(graph, error));
    }
    size_t node_end = graph->action_count + 2 * graph->group_count;
    graph->waiting = PP_NEW(&graph->arena, uint32_t, node_end);
    graph->order = PP_NEW(&graph->arena, uint32_t, node_end);
    if (graph->arena.failed) return pp_fail_memory(error);
    prepare(graph);
    return PP_OK;
}

pp_status pp_wait_graph_init(pp_wait_graph *graph, const pp_schedule *schedule,
                             const pp_units *units, bool blocking, pp_error *error) {
    *graph = (pp_wait_graph){.schedule = schedule,
                             .units = units,
                             .blocking = blocking,
                             .action_count = schedule->first_action[schedule->ranks]};
    pp_arena_init(&graph->arena);
    pp_status status = graph_build(graph, error);
    if (status != PP_OK) pp_wait_graph_deinit(graph);
    return status;
}

void pp_wait_graph_deinit(pp_wait_graph *graph) {
    pp_arena_deinit(&graph->arena);
}
