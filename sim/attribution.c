/* Why a measured step differs from the predicted one, action by action.
 *
 * Both steps ran the same actions in the same order, so both are longest paths of one graph:
 *
 *     start(a) = max(end(action before on the rank) + gap(a), end(what it needs) + transfer(a))
 *     end(a)   = start(a) + duration(a)                T = max over ranks of the last end + tail
 *
 * "What it needs" are actions of other ranks: the producer of its input, or, for a reduction, all
 * stages that reduce with it. Durations are read off the traces. Of the two waits before an action
 * only one can be seen, since the later one counts:
 *   predicted: it is a transfer if the rank was free before its action started, else there is none,
 *              and the transfer that nobody waited for took what its link says, at most until then;
 *   measured:  a transfer that takes as long as predicted is held against the end of the action
 *              before. Would it have come later, the rank waited for it, and transfer(a) is what it
 *              waited; else gap(a) is.
 * The other wait keeps its predicted value, so each set of numbers gives back its own trace
 * exactly.
 *
 * Let x be all these numbers, and go from the predicted x0 to the measured x1 in a straight line,
 * x(t) = x0 + t·(x1 − x0). T is the maximum over paths of sums of elements of x, so T(x(t)) is
 * convex and piecewise linear in t, and between two of its bends one path P is the critical one:
 *
 *     T(t2) − T(t1) = (t2 − t1) · Σ over i in P of (x1_i − x0_i)
 *
 * Summed over all pieces the left sides telescope to T(1) − T(0), the whole difference, and the
 * right sides give each number i the part w_i·(x1_i − x0_i), w_i being the share of the way on
 * which it is critical. That is the Aumann–Shapley value (Aumann and Shapley, Values of Non-Atomic
 * Games, 1974) of the difference: it adds up, depends on no order in which causes are taken, and
 * gives nothing to what was never critical. A duration's part is divided further, by what its
 * stage's actions of the kind took on average, since it is linear in the difference.
 *
 * The bends are found from outside to inside: the lines of the paths at both ends of an interval
 * meet in it below T or on it; on it, the bend is found, else the point divides the interval.
 * Should there be too many bends, an interval is shared by the paths at its ends: convexity puts
 * its slope between theirs, so some mixture of them adds up exactly. */
#include "sim/engine_internal.h"

#include <math.h>
#include <string.h>

#define EVALUATIONS_MAX 4000
#define WORK_MAX 4e8   /* actions looked at in all */
#define ROUNDING 1e-13 /* of the makespan */
#define NOBODY (-1)

const char *const pp_cause_names[PP_CAUSE_COUNT] = {
#define X(value, name, what) name,
    PP_CAUSE_LIST(X)
#undef X
};
const char *const pp_cause_meanings[PP_CAUSE_COUNT] = {
#define X(value, name, what) what,
    PP_CAUSE_LIST(X)
#undef X
};

/* The numbers of one action; three kinds of x. */
typedef enum quantity { DURATION, GAP, TRANSFER, PARTS } quantity;

typedef struct node {
    const pp_span *predicted, *measured;
    int before;                   /* on the rank; NOBODY: first */
    int need, need_count;         /* into graph.needs: actions of other ranks */
    double x[PARTS], more[PARTS]; /* predicted; measured less predicted */
    double weight[PARTS];         /* share of the way on which each is critical */
    double mean_more;             /* of durations: average over stage and kind */
    double start_s, end_s;        /* at the t looked at last … */
    int via;                      /* … and who ended when the start could come; NOBODY: time 0 */
    bool via_need;                /* by a transfer */
} node;

typedef struct graph {
    const pp_sim_input *input;
    const pp_schedule *schedule;
    node *nodes; /* [count] rank by rank in order */
    int count;
    int *first; /* [ranks + 1] */
    int *needs;
    int *order;     /* [count] topological */
    int *output[2]; /* [stages · units] node of F; of B or I */
    int *ended;     /* [stages] node of the last compute action */
    double tail, tail_more, tail_weight;
    int evaluations, evaluations_max;
    double tolerance_s;
    pp_arena *arena;
} graph;

/* ---- pairing ------------------------------------------------------------------------------- */

static bool same_action(pp_action a, pp_action b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

static const pp_span *next_compute(const pp_trace *trace, size_t *index) {
    while (*index < trace->span_count && trace->spans[*index].lane != PP_LANE_COMPUTE) (*index)++;
    return *index < trace->span_count ? &trace->spans[(*index)++] : NULL;
}

static pp_status pair(graph *g, const pp_trace *predicted, const pp_trace *measured,
                      pp_error *error) {
    size_t i = 0, j = 0;
    g->nodes = PP_NEW(g->arena, node, predicted->span_count + 1);
    g->first = PP_NEW(g->arena, int, g->schedule->ranks + 1);
    if (g->arena->failed) return pp_fail_memory(error);
    for (;;) {
        const pp_span *p = next_compute(predicted, &i), *m = next_compute(measured, &j);
        if (!p && !m) break;
        if (!p || !m || p->rank != m->rank || !same_action(p->action, m->action))
            return pp_fail(error, PP_E_INPUT, NULL,
                           "the measured trace does not hold the actions that were predicted");
        node *made = &g->nodes[g->count];
        bool first = g->count == 0 || made[-1].predicted->rank != p->rank;
        *made = (node){.predicted = p, .measured = m, .before = first ? NOBODY : g->count - 1};
        g->first[p->rank + 1] = ++g->count;
    }
    for (int p = 0; p < g->schedule->ranks; p++) /* ranks without actions */
        if (g->first[p + 1] < g->first[p]) g->first[p + 1] = g->first[p];
    return PP_OK;
}

/* ---- who needs whom ------------------------------------------------------------------------ */

static bool is_output(pp_action action) {
    return action.kind == PP_FORWARD || action.kind == PP_BACKWARD || action.kind == PP_INPUT;
}

static size_t slot_of(const graph *g, int stage, pp_action action) {
    return (size_t)stage * pp_stage_units(g->schedule) + pp_unit_in_stage(g->schedule, action);
}

/* Outputs of an overlapped pair appear at its end. */
static int end_of_unit(const graph *g, int i) {
    return g->nodes[i].predicted->action.overlapped && i + 1 < g->count ? i + 1 : i;
}

static pp_status find_outputs(graph *g, pp_error *error) {
    size_t slots = (size_t)g->schedule->stages * pp_stage_units(g->schedule);
    for (int b = 0; b < 2; b++) g->output[b] = PP_NEW(g->arena, int, slots);
    g->ended = PP_NEW(g->arena, int, g->schedule->stages);
    if (g->arena->failed) return pp_fail_memory(error);
    for (size_t i = 0; i < slots; i++) g->output[0][i] = g->output[1][i] = NOBODY;
    for (int s = 0; s < g->schedule->stages; s++) g->ended[s] = NOBODY;
    for (int i = 0; i < g->count; i++) {
        pp_action action = g->nodes[i].predicted->action;
        if (action.kind >= PP_COMPUTE_KINDS) continue;
        if (is_output(action))
            g->output[action.kind != PP_FORWARD][slot_of(g, action.stage, action)] =
                end_of_unit(g, i);
        g->ended[action.stage] = end_of_unit(g, i);
    }
    return PP_OK;
}

static void add_need(graph *g, node *to, int from) {
    if (from == NOBODY || g->nodes[from].predicted->rank == to->predicted->rank) return;
    if (g->needs) g->needs[to->need + to->need_count] = from;
    to->need_count++;
}

static void find_needs_of(graph *g, const int *previous, const int *next, node *to) {
    pp_action action = to->predicted->action;
    const int *group = g->input->reduce_group;
    if (is_output(action)) {
        bool forward = action.kind == PP_FORWARD;
        int stage = forward ? previous[action.stage] : next[action.stage];
        if (stage >= 0) add_need(g, to, g->output[!forward][slot_of(g, stage, action)]);
    } else if (action.kind == PP_REDUCE_GRAD || action.kind == PP_STEP) {
        for (int s = 0; group && s < g->schedule->stages; s++)
            if (s != action.stage && group[s] == group[action.stage]) add_need(g, to, g->ended[s]);
    }
}

static pp_status find_needs(graph *g, pp_error *error) {
    int stages = g->schedule->stages;
    int *previous = PP_NEW(g->arena, int, stages), *next = PP_NEW(g->arena, int, stages);
    PP_TRY(find_outputs(g, error));
    if (g->arena->failed) return pp_fail_memory(error);
    pp_chain_links(g->schedule, previous, next);
    int used = 0;
    for (int pass = 0; pass < 2; pass++) { /* counted first */
        if (pass == 1) g->needs = PP_NEW(g->arena, int, used + 1);
        if (g->arena->failed) return pp_fail_memory(error);
        used = 0;
        for (int i = 0; i < g->count; i++) {
            g->nodes[i].need = used;
            g->nodes[i].need_count = 0;
            find_needs_of(g, previous, next, &g->nodes[i]);
            used += g->nodes[i].need_count;
        }
    }
    return PP_OK;
}

/* Every rank goes on as far as what its next action needs has been listed. */
static pp_status sort_nodes(graph *g, pp_error *error) {
    int ranks = g->schedule->ranks, listed = 0;
    int *next = PP_NEW(g->arena, int, ranks);
    bool *done = PP_NEW(g->arena, bool, g->count + 1), moved = true;
    g->order = PP_NEW(g->arena, int, g->count + 1);
    if (g->arena->failed) return pp_fail_memory(error);
    memcpy(next, g->first, (size_t)ranks * sizeof *next);
    while (moved) {
        moved = false;
        for (int p = 0; p < ranks; p++)
            for (; next[p] < g->first[p + 1]; next[p]++, moved = true) {
                const node *n = &g->nodes[next[p]];
                bool ready = true;
                for (int k = 0; k < n->need_count; k++)
                    ready = ready && done[g->needs[n->need + k]];
                if (!ready) break;
                done[next[p]] = true;
                g->order[listed++] = next[p];
            }
    }
    if (listed == g->count) return PP_OK;
    return pp_fail(error, PP_E_INPUT, NULL, "the actions of the trace wait for each other");
}

/* ---- what the traces say ------------------------------------------------------------------- */

static double end_of(const graph *g, int i, bool measured) {
    if (i == NOBODY) return 0;
    return measured ? g->nodes[i].measured->end_s : g->nodes[i].predicted->end_s;
}

static double needed_s(const graph *g, const node *n, bool measured) {
    double latest = -INFINITY;
    for (int k = 0; k < n->need_count; k++)
        latest = fmax(latest, end_of(g, g->needs[n->need + k], measured));
    return latest;
}

/* What the links say that a transfer to this action takes. */
static double nominal_s(const graph *g, const node *n) {
    pp_action action = n->predicted->action;
    if (!g->input->border || !is_output(action) || n->need_count == 0) return 0;
    int from = g->nodes[g->needs[n->need]].predicted->action.stage;
    bool forward = action.kind == PP_FORWARD;
    const pp_border_cost *border = &g->input->border[forward ? from : action.stage];
    return border->latency_s +
           (forward ? border->forward_occupancy_s : border->backward_occupancy_s);
}

static double duration(const pp_span *span) {
    return span->end_s - span->start_s;
}

static void read_predicted(const graph *g, node *n) {
    double start = n->predicted->start_s, free_s = end_of(g, n->before, false);
    double wait = start - free_s;
    n->x[DURATION] = duration(n->predicted);
    if (n->need_count > 0) {
        double since = start - needed_s(g, n, false);
        bool waited = wait > 0;
        n->x[TRANSFER] = waited ? since : fmin(nominal_s(g, n), since);
        if (waited) wait = 0;
    }
    n->x[GAP] = wait;
}

static void read_measured(const graph *g, node *n) {
    double start = n->measured->start_s, free_s = end_of(g, n->before, true);
    double transfer = n->x[TRANSFER], gap = n->x[GAP];
    if (n->need_count > 0) {
        double needed = needed_s(g, n, true);
        if (needed + transfer > free_s + gap) { /* the rank waited for it */
            transfer = start - needed;
            gap = fmin(gap, start - free_s);
        } else {
            gap = start - free_s;
            transfer = fmin(transfer, start - needed);
        }
    } else {
        gap = start - free_s;
    }
    n->more[DURATION] = duration(n->measured) - n->x[DURATION];
    n->more[GAP] = gap - n->x[GAP];
    n->more[TRANSFER] = transfer - n->x[TRANSFER];
}

static double last_end(const graph *g, bool measured) {
    double last = 0;
    for (int i = 0; i < g->count; i++) last = fmax(last, end_of(g, i, measured));
    return last;
}

/* Averages over the actions of a stage and kind. */
static pp_status average(graph *g, pp_error *error) {
    size_t cells = (size_t)g->schedule->stages * PP_ACTION_KIND_COUNT;
    double *sum = PP_NEW(g->arena, double, cells), *count = PP_NEW(g->arena, double, cells);
    if (g->arena->failed) return pp_fail_memory(error);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < g->count; i++) {
            node *n = &g->nodes[i];
            pp_action action = n->predicted->action;
            size_t cell = (size_t)action.stage * PP_ACTION_KIND_COUNT + action.kind;
            if (pass == 0)
                sum[cell] += n->more[DURATION], count[cell]++;
            else
                n->mean_more = sum[cell] / count[cell];
        }
    return PP_OK;
}

static pp_status read_traces(graph *g, double predicted_s, double measured_s, pp_error *error) {
    for (int i = 0; i < g->count; i++) read_predicted(g, &g->nodes[i]);
    for (int i = 0; i < g->count; i++) read_measured(g, &g->nodes[i]);
    g->tail = predicted_s - last_end(g, false);
    g->tail_more = measured_s - last_end(g, true) - g->tail;
    return average(g, error);
}

/* ---- longest paths ------------------------------------------------------------------------- */

/* x0 + t·more, or with some of `more` alone. */
typedef struct point {
    double t;
    const bool *only; /* [PP_CAUSE_COUNT] causes that are measured; NULL: t says */
} point;

static bool is_update(const node *n) {
    pp_action_kind kind = (pp_action_kind)n->predicted->action.kind;
    return kind == PP_REDUCE_GRAD || kind == PP_STEP;
}

static double value(const node *n, quantity which, point at) {
    if (!at.only) return n->x[which] + at.t * n->more[which];
    if (which == GAP) return n->x[GAP] + (at.only[PP_CAUSE_GAPS] ? n->more[GAP] : 0);
    if (which == TRANSFER)
        return n->x[TRANSFER] + (at.only[PP_CAUSE_TRANSFERS] ? n->more[TRANSFER] : 0);
    if (is_update(n)) return n->x[DURATION] + (at.only[PP_CAUSE_UPDATE] ? n->more[DURATION] : 0);
    return n->x[DURATION] + (at.only[PP_CAUSE_COMPUTE] ? n->mean_more : 0) +
           (at.only[PP_CAUSE_UNEVEN] ? n->more[DURATION] - n->mean_more : 0);
}

static void start_node(graph *g, node *n, point at) {
    n->start_s = (n->before == NOBODY ? 0 : g->nodes[n->before].end_s) + value(n, GAP, at);
    n->via = n->before;
    n->via_need = false;
    for (int k = 0; k < n->need_count; k++) {
        int from = g->needs[n->need + k];
        double arrives = g->nodes[from].end_s + value(n, TRANSFER, at);
        if (arrives <= n->start_s) continue;
        n->start_s = arrives;
        n->via = from;
        n->via_need = true;
    }
    n->end_s = n->start_s + value(n, DURATION, at);
}

/* The makespan; *last: the action that ends last, NOBODY if none does anything. */
static double evaluate(graph *g, point at, int *last) {
    double latest = 0;
    *last = NOBODY;
    for (int i = 0; i < g->count; i++) {
        node *n = &g->nodes[g->order[i]];
        start_node(g, n, at);
        if (*last != NOBODY && n->end_s <= latest) continue;
        latest = n->end_s;
        *last = g->order[i];
    }
    g->evaluations++;
    double more = !at.only ? at.t : at.only[PP_CAUSE_END] ? 1 : 0;
    return latest + g->tail + more * g->tail_more;
}

/* ---- paths at one t ------------------------------------------------------------------------ */

typedef struct critical {
    double t, makespan_s, slope; /* of the path's length in t */
    int *steps;                  /* [count] node · 2 + by a transfer */
    int count;
} critical;

static pp_status trace_path(graph *g, double t, critical *made, pp_error *error) {
    int last, length = 0;
    *made = (critical){.t = t, .makespan_s = evaluate(g, (point){t, NULL}, &last)};
    for (int i = last; i != NOBODY; i = g->nodes[i].via) length++;
    made->steps = pp_allocate(((size_t)length + 1) * sizeof *made->steps);
    if (!made->steps) return pp_fail_memory(error);
    made->slope = g->tail_more;
    for (int i = last; i != NOBODY; i = g->nodes[i].via) {
        const node *n = &g->nodes[i];
        made->steps[made->count++] = 2 * i + n->via_need;
        made->slope += n->more[DURATION] + n->more[n->via_need ? TRANSFER : GAP];
    }
    return PP_OK;
}

static void take(graph *g, const critical *path, double way) {
    for (int i = 0; i < path->count; i++) {
        node *n = &g->nodes[path->steps[i] / 2];
        n->weight[DURATION] += way;
        n->weight[path->steps[i] % 2 ? TRANSFER : GAP] += way;
    }
    g->tail_weight += way;
}

/* The interval is shared so that the two slopes, mixed, add up to its difference. */
static void mix(graph *g, const critical *from, const critical *to) {
    double way = to->t - from->t, slopes = to->slope - from->slope;
    double over = (to->makespan_s - from->makespan_s) - from->slope * way;
    double share = slopes * way > 0 ? fmin(fmax(over / (slopes * way), 0), 1) : 0;
    take(g, from, way * (1 - share));
    take(g, to, way * share);
}

static pp_status between(graph *g, const critical *from, const critical *to, pp_error *error) {
    double way = to->t - from->t;
    double over = to->makespan_s - (from->makespan_s + from->slope * way);
    double under = from->makespan_s - (to->makespan_s - to->slope * way);
    bool one = over <= g->tolerance_s || under <= g->tolerance_s;
    double t = one ? from->t : from->t + under / (to->slope - from->slope);
    if (one || g->evaluations >= g->evaluations_max || !(t > from->t && t < to->t)) {
        mix(g, from, to);
        return PP_OK;
    }
    critical middle;
    PP_TRY(trace_path(g, t, &middle, error));
    pp_status status = PP_OK;
    if (middle.makespan_s - (from->makespan_s + from->slope * (t - from->t)) <= g->tolerance_s) {
        take(g, from, t - from->t);
        take(g, to, to->t - t);
    } else {
        status = between(g, from, &middle, error);
        if (status == PP_OK) status = between(g, &middle, to, error);
    }
    pp_free(middle.steps);
    return status;
}

/* ---- the parts ----------------------------------------------------------------------------- */

static void share_out(const graph *g, pp_attribution *made) {
    for (int i = 0; i < g->count; i++) {
        const node *n = &g->nodes[i];
        double part[PARTS];
        for (int k = 0; k < PARTS; k++) part[k] = n->weight[k] * n->more[k];
        double mean = is_update(n) ? part[DURATION] : n->weight[DURATION] * n->mean_more;
        pp_action action = n->predicted->action;
        made->actions[i] = (pp_attributed){.predicted = n->predicted,
                                           .measured = n->measured,
                                           .duration_s = part[DURATION],
                                           .gap_s = part[GAP],
                                           .transfer_s = part[TRANSFER]};
        made->share_s[is_update(n) ? PP_CAUSE_UPDATE : PP_CAUSE_COMPUTE] += mean;
        made->share_s[PP_CAUSE_UNEVEN] += part[DURATION] - mean;
        made->share_s[PP_CAUSE_GAPS] += part[GAP];
        made->share_s[PP_CAUSE_TRANSFERS] += part[TRANSFER];
        made->stage_s[(size_t)action.stage * PP_ACTION_KIND_COUNT + action.kind] += mean;
    }
    made->share_s[PP_CAUSE_END] = g->tail_weight * g->tail_more;
}

static void switch_causes(graph *g, pp_attribution *made) {
    for (int e = 0; e < PP_CAUSE_COUNT; e++) {
        bool only[PP_CAUSE_COUNT];
        int last;
        for (int k = 0; k < PP_CAUSE_COUNT; k++) only[k] = k == e;
        made->alone_s[e] = evaluate(g, (point){0, only}, &last) - made->predicted_s;
        for (int k = 0; k < PP_CAUSE_COUNT; k++) only[k] = k != e;
        made->without_s[e] = made->measured_s - evaluate(g, (point){0, only}, &last);
    }
}

static pp_status go_all_the_way(graph *g, pp_error *error) {
    critical from = {0}, to = {0};
    pp_status status = trace_path(g, 0, &from, error);
    if (status == PP_OK) status = trace_path(g, 1, &to, error);
    g->tolerance_s = ROUNDING * fmax(fabs(from.makespan_s), fabs(to.makespan_s));
    g->evaluations_max = (int)fmin(EVALUATIONS_MAX, WORK_MAX / (g->count + 1.0));
    if (status == PP_OK) status = between(g, &from, &to, error);
    pp_free(from.steps);
    pp_free(to.steps);
    return status;
}

static pp_status attribute(graph *g, const pp_trace *predicted, const pp_trace *measured,
                           pp_attribution *made, pp_error *error) {
    PP_TRY(pair(g, predicted, measured, error));
    PP_TRY(find_needs(g, error));
    PP_TRY(sort_nodes(g, error));
    made->predicted_s = predicted->makespan_s;
    made->measured_s = measured->makespan_s;
    PP_TRY(read_traces(g, made->predicted_s, made->measured_s, error));
    made->action_count = (size_t)g->count;
    made->actions = PP_NEW(&made->arena, pp_attributed, g->count + 1);
    made->stage_count = g->schedule->stages;
    made->stage_s = PP_NEW(&made->arena, double, (size_t)made->stage_count *PP_ACTION_KIND_COUNT);
    if (made->arena.failed) return pp_fail_memory(error);
    PP_TRY(go_all_the_way(g, error));
    share_out(g, made);
    switch_causes(g, made);
    return PP_OK;
}

pp_status pp_attribute(const pp_sim_input *input, const pp_trace *predicted,
                       const pp_trace *measured, pp_attribution **result, pp_error *error) {
    *result = NULL;
    pp_attribution *made = pp_allocate_zeroed(1, sizeof *made);
    if (!made) return pp_fail_memory(error);
    pp_arena work;
    pp_arena_init(&work);
    pp_arena_init(&made->arena);
    graph g = {.input = input, .schedule = input->schedule, .arena = &work};
    pp_status status = attribute(&g, predicted, measured, made, error);
    pp_arena_deinit(&work);
    if (status == PP_OK)
        *result = made;
    else
        pp_attribution_free(made);
    return status;
}

void pp_attribution_free(pp_attribution *attribution) {
    if (!attribution) return;
    pp_arena_deinit(&attribution->arena);
    pp_free(attribution);
}
