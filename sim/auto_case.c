/* A request as tables: what each rank can do, what it needs, sends, takes and gives back. */
#include "sim/auto_internal.h"

#include <math.h>
#include <stdio.h>

/* Sums of weights are rounded; so much of a limit is no excess. Less than a byte of any device. */
#define LIMIT_SLACK 1e-12
/* Doubles between rows beyond the microbatches: rows of 2^n would share cache sets. */
enum { ROW_PADDING = 8 };

/* ---- refusing ------------------------------------------------------------------------------ */

static bool sensible(double value) {
    return isfinite(value) && value >= 0;
}

static pp_status check_sizes(const pp_auto_request *request, int visits, pp_error *error) {
    if (request->ranks < 1 || request->ranks > PP_RANKS_MAX / visits)
        return pp_fail(error, PP_E_INPUT, "-K", "%d ranks, expected 1 to %d", request->ranks,
                       PP_RANKS_MAX / visits);
    if (request->microbatches < 1 || request->microbatches > PP_MICROBATCHES_MAX)
        return pp_fail(error, PP_E_INPUT, "-M", "%d microbatches, expected 1 to %d",
                       request->microbatches, PP_MICROBATCHES_MAX);
    if (visits > PP_AUTO_VISITS_MAX)
        return pp_fail(error, PP_E_INPUT, "-V",
                       "auto places 1 stage on each rank, or 2 in the vshape, not %d",
                       request->virtual_stages);
    double actions = (double)request->ranks * request->microbatches * visits * PP_AUTO_KINDS;
    if (actions > PP_ACTIONS_MAX)
        return pp_fail(error, PP_E_INPUT, "schedule",
                       "auto with K = %d, V = %d, M = %d has %.0f actions, more than %d",
                       request->ranks, visits, request->microbatches, actions, PP_ACTIONS_MAX);
    if ((unsigned)request->objective > PP_AUTO_SPAN || request->budget < 0)
        return pp_fail(error, PP_E_INPUT, "auto", "unknown objective or negative budget");
    return PP_OK;
}

static double activation_of(const pp_auto_request *request, int visits, int s) {
    return request->activation_weight ? request->activation_weight[s] : 1.0 / visits;
}

static double released_of(const pp_auto_request *request, int visits, int s) {
    return request->released_by_input_weight ? request->released_by_input_weight[s]
                                             : activation_of(request, visits, s) / 2;
}

static pp_status check_stage(const pp_auto_request *request, int visits, int s, pp_error *error) {
    const pp_stage_cost *cost = &request->stage[s];
    double activation = activation_of(request, visits, s);
    double released = released_of(request, visits, s);
    bool fine = sensible(cost->forward_s) && sensible(cost->input_s) && sensible(cost->weight_s) &&
                sensible(activation) && sensible(released) && released <= activation;
    if (request->border) {
        const pp_border_cost *border = &request->border[s];
        fine = fine && sensible(border->latency_s) && sensible(border->forward_occupancy_s) &&
               sensible(border->backward_occupancy_s);
    }
    if (fine) return PP_OK;
    char place[64];
    snprintf(place, sizeof place, "stage %d", s);
    return pp_fail(error, PP_E_INPUT, place,
                   "durations and activation weights must be finite and not negative, and the part "
                   "that I releases at most the whole");
}

static pp_status check_limit(const pp_auto_request *request, const pp_auto_case *c, int p,
                             pp_error *error) {
    if (!request->limit) return PP_OK;
    char place[64];
    snprintf(place, sizeof place, "rank %d", p);
    if (isnan(request->limit[p]) || request->limit[p] < 0)
        return pp_fail(error, PP_E_INPUT, place, "activation limit %g, expected at least 0",
                       request->limit[p]);
    double one = 0;
    for (int v = 0; v < c->visits; v++) one += c->op[p * c->codes + v * PP_AUTO_KINDS].rise;
    if (one <= c->limit[p]) return PP_OK;
    return pp_fail(error, PP_E_NO_FIT, place,
                   "the activations of one microbatch weigh %.10g and the limit is %.10g; no "
                   "schedule fits. Raise the limit, take smaller microbatches or more ranks",
                   one, request->limit[p]);
}

/* ---- tables -------------------------------------------------------------------------------- */

static int rank_of(const pp_auto_case *c, int stage) {
    return stage < c->ranks ? stage : 2 * c->ranks - 1 - stage;
}

static int op_index(const pp_auto_case *c, int stage, int kind) {
    return rank_of(c, stage) * c->codes + stage / c->ranks * PP_AUTO_KINDS + kind;
}

/* The output of `index` goes to `to_kind` of stage `to`, across the border behind `border`. */
static void link_ops(const pp_auto_request *request, pp_auto_case *c, int index, int to,
                     int to_kind, int border, bool forward) {
    pp_auto_op *op = &c->op[index];
    int rank = index / c->codes;
    op->consumer = op_index(c, to, to_kind);
    op->consumer_rank = rank_of(c, to);
    c->op[op->consumer].producer = index;
    op->lane = 3 * rank + (op->consumer_rank == rank ? 0 : op->consumer_rank > rank ? 1 : 2);
    if (op->consumer_rank == rank || !request->border) return;
    const pp_border_cost *cost = &request->border[border];
    op->latency_s = cost->latency_s;
    op->occupancy_s = forward ? cost->forward_occupancy_s : cost->backward_occupancy_s;
    c->has_lanes |= op->occupancy_s > 0;
}

static void set_stage(const pp_auto_request *request, pp_auto_case *c, int s) {
    pp_auto_op *ops = &c->op[op_index(c, s, PP_AUTO_F)];
    double activation = activation_of(request, c->visits, s);
    double released = released_of(request, c->visits, s);
    ops[PP_AUTO_F].duration_s = request->stage[s].forward_s;
    ops[PP_AUTO_F].rise = activation;
    ops[PP_AUTO_I].duration_s = request->stage[s].input_s;
    ops[PP_AUTO_I].fall = released;
    ops[PP_AUTO_W].duration_s = request->stage[s].weight_s;
    ops[PP_AUTO_W].fall = activation - released;
}

static void link_stage(const pp_auto_request *request, pp_auto_case *c, int s) {
    bool last = s == c->ranks * c->visits - 1;
    int forward = op_index(c, s, PP_AUTO_F), input = op_index(c, s, PP_AUTO_I);
    if (last)
        link_ops(request, c, forward, s, PP_AUTO_I, s, true);
    else
        link_ops(request, c, forward, s + 1, PP_AUTO_F, s, true);
    if (s > 0) link_ops(request, c, input, s - 1, PP_AUTO_I, s - 1, false);
}

/* The way of the first microbatch, with the arithmetic of the timing. */
static void set_heads(pp_auto_case *c) {
    double now_s = 0;
    for (int p = 0; p < c->ranks; p++) {
        const pp_auto_op *op = &c->op[p * c->codes];
        c->head_s[p] = now_s;
        now_s = now_s + op->duration_s + op->occupancy_s + op->latency_s;
    }
}

static pp_status allocate(const pp_auto_request *request, pp_arena *arena, pp_auto_case *c,
                          pp_error *error) {
    size_t ranks = (size_t)request->ranks;
    c->op = PP_NEW(arena, pp_auto_op, ranks * (size_t)c->codes);
    c->limit = PP_NEW(arena, double, ranks);
    c->head_s = PP_NEW(arena, double, ranks);
    return arena->failed ? pp_fail_memory(error) : PP_OK;
}

pp_status pp_auto_case_make(const pp_auto_request *request, pp_arena *arena, pp_auto_case *made,
                            pp_error *error) {
    int visits = request->virtual_stages ? request->virtual_stages : 1;
    if (visits < 1)
        return pp_fail(error, PP_E_INPUT, "-V", "%d virtual stages, expected 1 or 2", visits);
    PP_TRY(check_sizes(request, visits, error));
    int stages = request->ranks * visits;
    *made = (pp_auto_case){.ranks = request->ranks,
                           .visits = visits,
                           .microbatches = request->microbatches,
                           .codes = visits * PP_AUTO_KINDS,
                           .length = visits * PP_AUTO_KINDS * request->microbatches,
                           .row = (size_t)request->microbatches + ROW_PADDING,
                           .objective = request->objective};
    made->actions = (size_t)made->ranks * (size_t)made->length;
    for (int s = 0; s < stages; s++) PP_TRY(check_stage(request, visits, s, error));
    PP_TRY(allocate(request, arena, made, error));
    for (int i = 0; i < made->ranks * made->codes; i++)
        made->op[i].consumer = made->op[i].producer = -1;
    for (int s = 0; s < stages; s++) {
        set_stage(request, made, s);
        link_stage(request, made, s);
    }
    for (int p = 0; p < made->ranks; p++) {
        made->limit[p] = request->limit ? request->limit[p] * (1 + LIMIT_SLACK) : INFINITY;
        PP_TRY(check_limit(request, made, p, error));
    }
    set_heads(made);
    pp_auto_bounds(made, arena, made->bound_s);
    double largest_s = fmax(made->bound_s[PP_AUTO_MAKESPAN], made->bound_s[PP_AUTO_SPAN]);
    made->quantum_s = largest_s > 0 ? largest_s * 1e-12 : 1;
    return arena->failed ? pp_fail_memory(error) : PP_OK;
}
