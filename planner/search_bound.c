/* What a candidate can never beat: lower bounds of its step time over all splits, with their
 * proofs.
 *
 * Let F_s, B_s be the forward and the whole backward time of stage s for a full microbatch, R_s
 * that of its recomputation, c the transfers, N the microbatches counted in full ones (M - 1 + the
 * scale of the last), sigma ≤ 1 that scale (what the first microbatch to arrive may cost at the
 * least), and P(s) = sigma · Σ_{k<s} F_k + c_k, the least time before an F can start on s; Q(s) =
 * the same of B back to stage 0, the least time after the last B of s. U_s: the stage's gradient
 * reduction and optimizer step, which follow its last backward. A microbatch passes its chain in
 * order, so for every order of actions, and for each stage:
 *
 *   A  step >= P(s) + N (F_s + B_s) + N_R R_s + max(Q(s), U_s)
 *      its rank does all this work one after the other, starts it no sooner and ends it no later.
 *   B  step >= sigma (ΣF + Σ_{k≠s} B_k) + c + N B_s + the F and R of s that its own order puts
 * behind its first B + what of max(Q, U) is not in it yet for that first B cannot start before its
 * microbatch went all the way and back to s. C  step >= P(s) + (N · Σ_{k>=s} (F_k + B_k) + M · c
 * behind s) / h_s + max(Q(s), U_s) with h_s the most microbatches that the order has in flight on
 * s: each is in flight at least as long as it takes to the end and back, and at most h_s at once
 * (Little).
 *
 * A family that splits the backward hands on after I alone: there, B_k of other stages is I_k, and
 * Q is 0, since only W may follow the last I.
 *
 * Each bound never falls when the stage's interval grows: a layer moved from the front of P or Q
 * into the stage enters with a factor N >= sigma (in C: N / h_s >= sigma, because h_s <= M). So min
 * over splits of max over stages of the bound is a chain cut (split.c), and below the step time of
 * every split.
 *
 * Before that, from totals alone (pp_bound_totals), with T the work of one pass over all S stages:
 *
 *   step >= total work / K, with the updates: some rank has at least the average
 *   step >= N · the heaviest layer
 *   step >= sigma · T / (1 - (1 - sigma/N')^S) for whole backwards, N' = N + N_R · the least share
 * of F in a layer: A says X >= sigma·p_s + N' t_s for the pass p_s up to s and the pass t_s of s,
 * so X - sigma·p_{s+1} >= (X - sigma·p_s)(1 - sigma/N'); multiply over all s. step >= sigma · T +
 * (N - sigma) · ΣB / S: B with the largest B_s, all F before its first B. */
#include <math.h>

#include "planner/planner_internal.h"

/* Room for the rounding of a few thousand additions. */
#define CAUTION (1 - 1e-12)

double pp_rounded(double seconds) {
    if (!isfinite(seconds) || seconds == 0) return seconds;
    int exponent;
    double mantissa = frexp(seconds, &exponent);
    return ldexp(nearbyint(ldexp(mantissa, 36)), exponent - 36);
}

/* ---- from totals --------------------------------------------------------------------------- */

typedef struct totals {
    double forward_s, backward_s; /* of one pass over all stages, actions included */
    double visits, recomputes, scale;
    int stages;
} totals;

static totals totals_of(const pp_tables *tables, const pp_candidate *c) {
    const pp_timing *timing = c->timing;
    int stages = pp_candidate_stages(c);
    double overhead = stages * tables->overhead_s;
    totals t = {.forward_s = timing->forward_total_s + overhead,
                .backward_s = timing->input_total_s + timing->weight_total_s + overhead,
                .visits = c->microbatches - 1 + c->last_scale,
                .scale = fmin(c->last_scale, 1),
                .stages = stages};
    if (c->recompute == PP_RECOMPUTE_FULL) t.recomputes = t.visits;
    if (c->recompute == PP_RECOMPUTE_EXCEPT_LAST) t.recomputes = c->microbatches - 1;
    return t;
}

/* All updates together, over the fastest link. */
static double updates_of(const pp_tables *tables, const pp_candidate *c) {
    double step = tables->own_update_s[tables->layers];
    if (tables->request->zero == 1) step /= c->dp;
    double moved = 2.0 * (c->dp - 1) / c->dp * (double)tables->own_bytes[tables->layers];
    return step + moved / tables->fastest_bandwidth;
}

static double average_bound(const pp_tables *tables, const pp_candidate *c, const totals *t) {
    double work = t->visits * (t->forward_s + t->backward_s) + t->recomputes * t->forward_s;
    return (work + updates_of(tables, c)) / c->ranks;
}

static double heaviest_bound(const pp_candidate *c, const totals *t) {
    return fmax(t->visits * c->timing->heaviest_s,
                t->recomputes * c->timing->heaviest_recomputed_s);
}

static double filling_bound(const pp_candidate *c, const totals *t) {
    if (c->family->splits_backward) return 0;
    double pass = t->scale * (t->forward_s + t->backward_s);
    double work = t->visits + t->recomputes * c->timing->least_forward_share;
    double filled = 1 - pow(1 - t->scale / work, t->stages);
    double first_backward = pass + (t->visits - t->scale) * t->backward_s / t->stages;
    return fmax(first_backward, filled > 0 ? pass / filled : 0);
}

static int64_t static_bytes(const pp_tables *tables, const pp_candidate *c, int first, int last) {
    int64_t state = tables->state_bytes[last + 1] - tables->state_bytes[first];
    int64_t shards = tables->request->zero == 1 ? c->dp : 1;
    return tables->weight_bytes[last + 1] - tables->weight_bytes[first] + state / shards;
}

/* Weights, gradients and optimizer state are somewhere, whatever the split. */
static bool weights_fit(const pp_tables *tables, const pp_candidate *c) {
    double most = 0;
    for (int p = 0; p < c->ranks * c->dp; p++) {
        most = fmax(most, (double)pp_cluster_device(tables->cluster, p)->memory_bytes);
    }
    if (tables->request->memory_bytes > 0) most = (double)tables->request->memory_bytes;
    return (double)static_bytes(tables, c, 0, tables->layers - 1) <= most * c->ranks;
}

double pp_bound_totals(const pp_tables *tables, const pp_candidate *candidate) {
    if (!weights_fit(tables, candidate)) return INFINITY;
    totals t = totals_of(tables, candidate);
    double bound = fmax(average_bound(tables, candidate, &t), heaviest_bound(candidate, &t));
    return CAUTION * fmax(bound, filling_bound(candidate, &t));
}

/* ---- of one stage -------------------------------------------------------------------------- */

/* What a stage hands back after: B, or I alone. */
static double gate_s(const pp_terms *terms, int first, int last) {
    if (!terms->mode.split_backward) return pp_terms_backward_s(terms, first, last);
    const double *input = terms->timing->input;
    return input[last + 1] - input[first] + terms->tables->overhead_s;
}

/* Sums over the stages in front of layer `first`, which begins `stage`, without links. */
static double forward_before(const pp_terms *terms, int stage, int first) {
    return terms->timing->forward[first] + stage * terms->tables->overhead_s;
}

static double gates_before(const pp_terms *terms, int stage, int first) {
    const pp_timing *timing = terms->timing;
    double weight = terms->mode.split_backward ? 0 : timing->weight[first];
    return timing->input[first] + weight + stage * terms->tables->overhead_s;
}

/* max(Q(s), U_s) */
static double tail_of(const pp_terms *terms, int stage, int first, int last) {
    double update = pp_terms_update_s(terms, stage, first, last);
    if (terms->mode.split_backward) return update;
    double back = terms->scale * gates_before(terms, stage, first) + terms->backward_least[stage];
    return fmax(back, update);
}

static double work_bound(const pp_terms *terms, int stage, int first, int last, double tail) {
    double forward = pp_terms_forward_s(terms, first, last);
    return terms->scale * forward_before(terms, stage, first) + terms->forward_least[stage] +
           terms->visits * (forward + pp_terms_backward_s(terms, first, last)) +
           terms->recomputes * forward + tail;
}

static double return_bound(const pp_terms *terms, int stage, int first, int last, double tail) {
    int layers = terms->tables->layers, stages = terms->stages;
    double partial = 1 - terms->scale; /* what a small microbatch may lack of a full one */
    double pass = forward_before(terms, stages, layers) + gates_before(terms, stages, layers) -
                  gates_before(terms, stage, first) - gate_s(terms, first, last);
    double links = terms->forward_least[stages - 1] + terms->backward_least[stages - 1] -
                   terms->backward_least[stage];
    int microbatches = terms->candidate->microbatches;
    double forwards = fmax(0, microbatches - terms->leading[stage] - partial);
    double recomputes = fmax(0, terms->recomputes - terms->leading_recomputes[stage] - partial);
    return terms->scale * pass + links + terms->visits * pp_terms_backward_s(terms, first, last) +
           (forwards + recomputes) * pp_terms_forward_s(terms, first, last) + tail;
}

static double flight_bound(const pp_terms *terms, int stage, int first, double tail) {
    int layers = terms->tables->layers, stages = terms->stages;
    double before = forward_before(terms, stage, first);
    double pass = forward_before(terms, stages, layers) - before +
                  gates_before(terms, stages, layers) - gates_before(terms, stage, first);
    double links = terms->forward_least[stages - 1] - terms->forward_least[stage] +
                   terms->backward_least[stages - 1] - terms->backward_least[stage];
    double flight = terms->visits * pass + terms->candidate->microbatches * links;
    return terms->scale * before + terms->forward_least[stage] + flight / terms->in_flight[stage] +
           tail;
}

double pp_bound_stage(const pp_terms *terms, int stage, int first, int last) {
    double tail = tail_of(terms, stage, first, last);
    double bound = work_bound(terms, stage, first, last, tail);
    if (terms->leading != NULL) {
        bound = fmax(bound, return_bound(terms, stage, first, last, tail));
        bound = fmax(bound, flight_bound(terms, stage, first, tail));
    }
    return CAUTION * bound;
}

int64_t pp_bound_bytes(const pp_terms *terms, int first, int last) {
    return static_bytes(terms->tables, terms->candidate, first, last);
}

/* ---- over all splits ----------------------------------------------------------------------- */

static double bound_where_weights_fit(const void *context, int stage, int first, int last) {
    const pp_terms *terms = context;
    if (pp_bound_bytes(terms, first, last) > terms->limit_bytes[terms->placement[stage]]) {
        return INFINITY;
    }
    return pp_bound_stage(terms, stage, first, last);
}

pp_status pp_bound_splits(const pp_terms *terms, pp_arena *arena, double *bound, pp_error *error) {
    pp_chain_problem problem = {.items = terms->tables->layers,
                                .stages = terms->stages,
                                .floor = bound_where_weights_fit,
                                .context = terms};
    int *splits = PP_NEW(arena, int, terms->stages);
    if (splits == NULL) return pp_fail_memory(error);
    pp_status status = pp_chain_cut(&problem, arena, splits, bound, error);
    if (status == PP_E_NO_FIT) *bound = INFINITY;
    return status == PP_E_NO_FIT ? PP_OK : status;
}
