/* List scheduling along an order that is given: its F and I keep their sequence while they are
 * ready; where the next one is not, one from behind takes its place, or a W.
 *
 * A pattern that repeats (schedule/v_half.c) has no bubble in the long run, but a long way in and
 * out, and waits where F, I and W differ. Taking actions from behind shortens both, and where
 * nothing waits the pattern stays as it is. Event by event, rank by rank: at `now` an idle rank
 * starts
 *
 *   the next F or I of its row, if its input is there and an F finds room;
 *   else the first behind it that could start and, if the next one is under way, ends no later than
 *   `overrun` after that arrives; an F only if all before it still find room;
 *   else the oldest W: if it ends before the next one arrives, or the rank is full, or more than
 *   `backlog` W wait.
 *
 * With keeps_weights the W have their places in the row like the others. Room is counted in chunks,
 * from the start of F to the end of W. */
#include "sim/guided_internal.h"

#include <math.h>
#include <string.h>

/* So many F and I of a row, times K, are looked at. */
enum { LOOK_AHEAD_PER_RANK = 2 };

typedef struct guided_rank {
    size_t first, end; /* actions of the row that may be left */
    size_t made;       /* where its next action goes */
    size_t owed, due;  /* waiting[owed … due-1]: I that have no W yet */
    double wake_s;     /* when it looks again */
    double free_s;     /* end of its last action */
    int held;          /* chunks */
} guided_rank;

typedef struct guided {
    const pp_sim_input *input; /* the guide is its schedule */
    const pp_guided_rule *rule;
    guided_rank *rank;
    bool *taken;      /* [actions] of the guide */
    double *end_s[2]; /* [stages·M] of F and of I; INFINITY: not started */
    size_t *waiting;  /* [actions] the I of each rank in the order in which they ran */
    pp_schedule *made;
} guided;

static double *end_of(const guided *g, bool forward, int s, uint32_t m) {
    return &g->end_s[!forward][(size_t)s * (size_t)g->made->microbatches + m];
}

static double transfer_s(const guided *g, int border, bool forward) {
    const pp_border_cost *b = g->input->border ? &g->input->border[border] : NULL;
    if (!b || g->made->placement[border] == g->made->placement[border + 1]) return 0;
    return b->latency_s + (forward ? b->forward_occupancy_s : b->backward_occupancy_s);
}

/* When the input of an action is there; INFINITY: nobody knows yet. */
static double ready_s(const guided *g, pp_action a) {
    int s = a.stage;
    bool forward = a.kind == PP_FORWARD;
    if (a.kind == PP_WEIGHT) return *end_of(g, false, s, a.microbatch);
    if (forward && s == 0) return 0;
    if (forward) return *end_of(g, true, s - 1, a.microbatch) + transfer_s(g, s - 1, true);
    if (s == g->made->stages - 1) return *end_of(g, true, s, a.microbatch);
    return *end_of(g, false, s + 1, a.microbatch) + transfer_s(g, s, false);
}

static double duration_s(const guided *g, pp_action a) {
    const pp_stage_cost *cost = &g->input->stage[a.stage];
    if (a.kind == PP_FORWARD) return cost->forward_s;
    return a.kind == PP_INPUT ? cost->input_s : cost->weight_s;
}

/* The oldest W that the rank owes. */
static pp_action oldest_weight(const guided *g, const guided_rank *r) {
    pp_action a = g->input->schedule->actions[g->waiting[r->owed]];
    a.kind = PP_WEIGHT;
    return a;
}

/* ---- starting an action -----------------------------------------------------------------------
 */

/* The rank that waits for its output looks when that arrives. */
static void wake_consumer(guided *g, pp_action a, double end_s) {
    bool forward = a.kind == PP_FORWARD;
    int next = forward ? a.stage + 1 : a.stage - 1;
    if (next < 0 || next >= g->made->stages) return;
    guided_rank *r = &g->rank[g->made->placement[next]];
    double arrival_s = end_s + transfer_s(g, forward ? a.stage : next, forward);
    r->wake_s = fmin(r->wake_s, fmax(arrival_s, r->free_s));
}

static void start(guided *g, guided_rank *r, pp_action a, double now_s) {
    double end_s = now_s + duration_s(g, a);
    g->made->actions[r->made++] = a;
    r->free_s = r->wake_s = end_s;
    if (a.kind == PP_WEIGHT) {
        r->held--;
        return;
    }
    if (a.kind == PP_FORWARD) r->held++;
    *end_of(g, a.kind == PP_FORWARD, a.stage, a.microbatch) = end_s;
    wake_consumer(g, a, end_s);
}

static void start_visit(guided *g, guided_rank *r, size_t i, double now_s) {
    pp_action a = g->input->schedule->actions[i];
    g->taken[i] = true;
    if (a.kind == PP_INPUT && !g->rule->keeps_weights) g->waiting[r->due++] = i;
    start(g, r, a, now_s);
}

static void start_weight(guided *g, guided_rank *r, double now_s) {
    pp_action a = oldest_weight(g, r);
    r->owed++;
    start(g, r, a, now_s);
}

static bool is_left(const guided *g, size_t i) {
    bool placed_anew = g->input->schedule->actions[i].kind == PP_WEIGHT && !g->rule->keeps_weights;
    return !g->taken[i] && !placed_anew;
}

/* ---- which ------------------------------------------------------------------------------------
 */

/* The first behind r->first that may start; SIZE_MAX: none. *soonest_s: when one might. */
static size_t from_behind(const guided *g, const guided_rank *r, double now_s, double next_s,
                          double *soonest_s) {
    int held = r->held, most = held, looks = LOOK_AHEAD_PER_RANK * g->made->ranks;
    for (size_t i = r->first; i < r->end && looks > 0; i++) {
        pp_action a = g->input->schedule->actions[i];
        if (!is_left(g, i)) continue;
        bool forward = a.kind == PP_FORWARD, fits = !forward || most < g->rule->limit;
        double input_s = ready_s(g, a), end_s = now_s + duration_s(g, a);
        if (i > r->first && fits && input_s <= now_s && end_s <= next_s + g->rule->overrun_s)
            return i;
        if (input_s > now_s) *soonest_s = fmin(*soonest_s, input_s);
        if (forward)
            held++;
        else if (a.kind == PP_WEIGHT || !g->rule->keeps_weights)
            held--; /* a W placed anew follows its I before the room is needed */
        if (held > most) most = held;
        looks--;
    }
    return SIZE_MAX;
}

static void act(guided *g, guided_rank *r, double now_s) {
    const pp_action *actions = g->input->schedule->actions;
    while (r->first < r->end && !is_left(g, r->first)) r->first++;
    bool left = r->first < r->end, full = r->held >= g->rule->limit;
    bool overdue = r->due - r->owed > (size_t)g->rule->backlog;
    bool forward = left && actions[r->first].kind == PP_FORWARD;
    double next_s = left ? ready_s(g, actions[r->first]) : INFINITY, soonest_s = INFINITY;
    bool arrived = left && next_s <= now_s;
    if (arrived && (!forward || (!full && !overdue))) {
        start_visit(g, r, r->first, now_s);
        return;
    }
    bool owes = r->owed < r->due;
    size_t i = SIZE_MAX;
    if (!arrived || !owes) i = from_behind(g, r, now_s, arrived ? INFINITY : next_s, &soonest_s);
    if (i != SIZE_MAX)
        start_visit(g, r, i, now_s);
    else if (owes &&
             (full || overdue || !left || now_s + duration_s(g, oldest_weight(g, r)) <= next_s))
        start_weight(g, r, now_s);
    else
        r->wake_s = soonest_s;
}

/* ---- all of it --------------------------------------------------------------------------------
 */

/* The rank that looks first; the lowest of equals. */
static guided_rank *next_rank(const guided *g) {
    guided_rank *first = g->rank;
    for (int p = 1; p < g->made->ranks; p++)
        if (g->rank[p].wake_s < first->wake_s) first = &g->rank[p];
    return first;
}

/* False: all ranks wait. */
static bool run(guided *g) {
    const pp_schedule *guide = g->input->schedule;
    for (guided_rank *r; (r = next_rank(g))->wake_s < INFINITY;) act(g, r, r->wake_s);
    for (int p = 0; p < guide->ranks; p++)
        if (g->rank[p].made < guide->first_action[p + 1]) return false;
    return true;
}

/* Placement and sizes of the guide; its actions will be others. */
static pp_status new_like(const pp_schedule *guide, pp_schedule **made, pp_error *error) {
    size_t ranks = (size_t)guide->ranks;
    PP_TRY(pp_schedule_new(guide->ranks, guide->stages, guide->microbatches,
                           guide->first_action[ranks], made, error));
    memcpy((*made)->name, guide->name, sizeof guide->name);
    (*made)->virtual_stages = guide->virtual_stages;
    memcpy((*made)->placement, guide->placement, (size_t)guide->stages * sizeof *guide->placement);
    memcpy((*made)->first_action, guide->first_action, (ranks + 1) * sizeof *guide->first_action);
    return PP_OK;
}

static pp_status prepare(guided *g, pp_arena *work, pp_error *error) {
    const pp_schedule *guide = g->input->schedule;
    size_t actions = guide->first_action[guide->ranks];
    size_t visits = (size_t)guide->stages * (size_t)guide->microbatches;
    g->rank = PP_NEW(work, guided_rank, guide->ranks);
    g->taken = PP_NEW(work, bool, actions);
    g->waiting = PP_NEW(work, size_t, actions);
    for (int i = 0; i < 2; i++) g->end_s[i] = PP_NEW(work, double, visits);
    if (work->failed) return pp_fail_memory(error);
    for (size_t i = 0; i < visits; i++) g->end_s[0][i] = g->end_s[1][i] = INFINITY;
    for (int p = 0; p < guide->ranks; p++) {
        size_t first = guide->first_action[p];
        g->rank[p] = (guided_rank){first, guide->first_action[p + 1], first, first, first, 0, 0, 0};
    }
    return PP_OK;
}

pp_status pp_guided_schedule(const pp_sim_input *input, const pp_guided_rule *rule,
                             pp_schedule **made, pp_error *error) {
    pp_arena work;
    guided g = {.input = input, .rule = rule};
    *made = NULL;
    PP_TRY(new_like(input->schedule, &g.made, error));
    pp_arena_init(&work);
    pp_status status = prepare(&g, &work, error);
    if (status == PP_OK && run(&g))
        *made = g.made;
    else
        pp_schedule_free(g.made);
    pp_arena_deinit(&work);
    return status;
}
