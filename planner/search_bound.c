/* What a candidate can never beat: lower bounds of its step time over all splits, with their
 * proofs.
 *
 * Let F_s, B_s be the forward and the whole backward time of stage s for a full microbatch, R_s
 * that of its recomputation, c the transfers, N the microbatches counted in full ones (M - 1 + the
 * scale of the last), N_R those recomputed, and sigma <= 1 that scale: what a microbatch of which
 * no more is known costs at the least. P(s) = sigma Σ_{k<s} F_k + c is the least time before an F
 * can start on s, Q(s) = sigma Σ_{k<s} B_k + c the least time after the last B of s, and J(s) =
 * Σ_{k>s} (F_k + B_k) + c the journey from s to the end of the chain and back. U_s is the stage's
 * gradient reduction and optimizer step, which follow its last backward. For each stage, in every
 * execution of the order:
 *
 *   A  step >= P(s) + N (F_s + B_s) + N_R R_s + Σ over windows w of max(0, J(s) - work_w)
 *              + max(Q(s), U_s)
 *      The rank does all this work one action at a time, starts it no sooner and ends it no later.
 * A window (windows.c) lasts at least J, and of the stage's own work only work_w lies in it; the
 *      windows are disjoint, so what they lack of J is idle time that adds up. Without an order
 *      there are no windows.
 *   B  step >= P(s) + a F_s + sigma J(s) + N B_s + the F and R behind the first B of s
 *              + max(Q(s), U_s)
 *      with a the forwards that the LAST stage does before its first backward: all of them pass s
 *      first; then one of them has to end its forward, turn and come back before s has a backward
 *      to do at all. (In GPipe a = M, in 1F1B a = 1.)
 *
 * With several stages on a rank the rank's other work may fill a stage's idle time, but not shorten
 * it: both hold. Of two chains they hold for each: for a stage counts the copy that has more. A
 * family that splits the backward hands on after I alone: there B_k of other stages is I_k in J,
 * and Q is 0, since only W may follow the last I.
 *
 * What a policy recomputes inside the backward passes (attention, every:N) is part of B_k, or I_k,
 * everywhere; it has no R. Where stages choose their policies, nothing is known of others than the
 * one asked about: they count as recomputing nothing.
 *
 * On unequal devices F_s and B_s are those of the slowest device of the stage's rank; P, Q and J,
 * which do not know where the other stages are cut, take each layer on the fastest kind there is.
 *
 * Of microbatches cut into slices the first is the shortest: what is said to go from stage to stage
 * is that slice of a microbatch, so sigma becomes sigma times the least share of any phase of any
 * layer that it has; the work of a stage is that of all slices. Their windows are not looked at.
 *
 * Both never fall when the stage's interval grows by a layer (f, b). To the left: P loses at most f
 * and Q at most b, a window's idle time at most what of f and b is counted in it; but at least one
 * F and one B lie outside all windows (a >= 1 in B), and they grow. To the right: each window's J
 * loses f + b, but each has its own F and B, outside all windows, that grow by as much. So min over
 * splits of max over stages of the bound is a chain cut (split.c), and below the step time of every
 * split.
 *
 * Before that, from totals alone (pp_bound_totals), with T the work of one pass over all S stages:
 *
 *   step >= total work / K, with the updates: some rank has at least the average. On unequal
 *      devices, with the work on the fastest kind and K replaced by the ranks counted in fastest
 *      devices, Σ 1/r_p: rank p takes at least r_p times as long, so it does at most step / r_p.
 *   step >= N · the k + 1 lightest of the k·K + 1 heaviest layers, for every k: of so many layers
 *      some rank has k + 1 (pigeonhole), however many stages it has; for k = 0 the heaviest layer
 *   step >= sigma T / (1 - (1 - sigma/N')^S) for whole backwards, N' = N + N_R · the least share of
 * F in a layer: A says X >= sigma p_s + N' t_s for the pass p_s up to s and the pass t_s of s, so
 *      X - sigma p_{s+1} >= (X - sigma p_s)(1 - sigma/N'); multiply over all s.
 *   step >= sigma T + (N - sigma) ΣB / S for whole backwards: B with the largest B_s.
 *
 * Of two chains N and T are those of the one with more, but for the average, which has the work of
 * both; and for the pigeonholes, which are the K/2 pairs of ranks that hold copies of the same two
 * stages: of what passes the layers that both have, one of a pair has at least half. */
#include <float.h>
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
    double forward_s, backward_s;     /* of one pass over all stages of a chain, actions included */
    double visits, recomputes, scale; /* of each stage of the chain that has most */
    double all_visits, all_recomputes; /* of all chains together */
    double capacity;                   /* of all ranks, in devices that take these times */
    int stages, chains;
} totals;

static totals totals_of(const pp_tables *tables, const pp_candidate *c) {
    const pp_timing *timing = c->timing;
    int stages = pp_candidate_stages(c), chains = pp_candidate_chains(c);
    double overhead = stages * c->slices * tables->overhead_s;
    totals t = {.forward_s = timing->forward_total_s + overhead,
                .backward_s = timing->input_total_s + timing->weight_total_s + overhead,
                .scale = fmin(c->last_scale, 1) * pp_candidate_slice_share(c),
                .capacity = c->capacity,
                .stages = stages,
                .chains = chains};
    for (int chain = 0; chain < chains; chain++) {
        double visits = pp_candidate_visits(c, chain), again = pp_candidate_recomputes(c, chain);
        t.all_visits += visits;
        t.all_recomputes += again;
        if (visits <= t.visits) continue;
        t.visits = visits;
        t.recomputes = again;
    }
    if (c->recompute == PP_RECOMPUTE_ATTENTION) t.backward_s += timing->attention_total_s;
    if (pp_recompute_group(c->recompute) > 0) t.backward_s += timing->forward_total_s;
    return t;
}

/* All updates together, those of copies too, on the ranks that sum their gradients fastest. */
static double updates_of(const pp_tables *tables, const pp_candidate *c) {
    const pp_weights *weights = c->timing->division.weights;
    double step = c->timing->own_update_total_s / pp_candidate_shards(c);
    int chains = pp_candidate_chains(c);
    if (c->arrangement->kinds->count > 1) return chains * step;
    return chains * (step + c->sum_byte_s * (double)weights->own_bytes[tables->layers]);
}

static double average_bound(const pp_tables *tables, const pp_candidate *c, const totals *t) {
    double work = t->all_visits * (t->forward_s + t->backward_s) + t->all_recomputes * t->forward_s;
    return (work + updates_of(tables, c)) / t->capacity;
}

/* Of layers that some rank has, whatever the split. sums: largest first; their rounding, which is
 * that of the whole sum, is taken off. */
static double fullest_rank(const double *sums, int layers, int ranks) {
    double most = 0, rounding = layers * DBL_EPSILON;
    for (int k = 0, last = 1; last <= layers; k++, last += ranks) {
        most = fmax(most, sums[last] * (1 - rounding) - sums[last - k - 1]);
    }
    return most;
}

static double fullest_bound(const pp_tables *tables, const pp_candidate *c, const totals *t) {
    const pp_timing *timing = c->timing;
    int bins = c->ranks / t->chains;
    double once = fullest_rank(timing->heaviest, tables->layers, bins);
    double twice = fullest_rank(timing->heaviest_recomputed, tables->layers, bins);
    return fmax(t->all_visits * once, t->all_recomputes * twice) / t->chains;
}

static double filling_bound(const pp_candidate *c, const totals *t) {
    if (c->family->splits_backward) return 0;
    double pass = t->scale * (t->forward_s + t->backward_s);
    double work = t->visits + t->recomputes * c->timing->least_forward_share;
    double filled = 1 - pow(1 - t->scale / work, t->stages);
    double first_backward = pass + (t->visits - t->scale) * t->backward_s / t->stages;
    return fmax(first_backward, filled > 0 ? pass / filled : 0);
}

static int64_t static_bytes(const pp_weights *weights, const pp_candidate *c, int first, int last) {
    int64_t state = weights->state_bytes[last + 1] - weights->state_bytes[first];
    return weights->weight_bytes[last + 1] - weights->weight_bytes[first] +
           state / pp_candidate_shards(c);
}

/* Weights, gradients and optimizer state are somewhere, whatever the split. */
static bool weights_fit(const pp_tables *tables, const pp_candidate *c) {
    double limit = c->arrangement->limit_total;
    if (tables->cap_bytes > 0) limit = fmin(limit, (double)tables->cap_bytes * c->ranks);
    int64_t once = static_bytes(c->timing->division.weights, c, 0, tables->layers - 1);
    return (double)once * pp_candidate_chains(c) <= limit;
}

double pp_bound_load(const pp_tables *tables, const pp_candidate *candidate) {
    totals t = totals_of(tables, candidate);
    return fmax(average_bound(tables, candidate, &t), fullest_bound(tables, candidate, &t));
}

double pp_bound_totals(const pp_tables *tables, const pp_candidate *candidate) {
    if (!weights_fit(tables, candidate)) return INFINITY;
    totals t = totals_of(tables, candidate);
    double bound = fmax(average_bound(tables, candidate, &t), fullest_bound(tables, candidate, &t));
    return CAUTION * fmax(bound, filling_bound(candidate, &t));
}

/* ---- of one stage -------------------------------------------------------------------------- */

/* What a stage hands back after: B, or I alone. */
static double gate_s(const pp_terms *terms, int stage, int first, int last) {
    return terms->mode.split_backward ? pp_terms_input_s(terms, stage, first, last)
                                      : pp_terms_backward_s(terms, stage, first, last);
}

/* Sums over the stages in front of layer `first`, which begins `stage`, without links. */
static double forward_before(const pp_terms *terms, int stage, int first) {
    return terms->timing->forward[first] + stage * terms->overhead_s;
}

static double gates_before(const pp_terms *terms, int stage, int first) {
    const pp_timing *timing = terms->timing;
    const double *inside = pp_timing_inside(timing, terms->others);
    double weight = terms->mode.split_backward ? 0 : timing->weight[first];
    return timing->input[first] + (inside != NULL ? inside[first] : 0) + weight +
           stage * terms->overhead_s;
}

/* What passes from stage to stage, in full microbatches: one that is the last or is not, or the
 * first slice of it. */
static double scale_of(const pp_terms *terms, bool small) {
    return terms->slice_share * (small ? terms->scale : 1);
}

/* What a copy of a stage can tell of its order; all may be of the last microbatch if that is not
 * known. */
static pp_flow flow_of(const pp_terms *terms, int copy) {
    pp_flow unknown = {
        .leading_small = true, .first_small = true, .turn_small = true, .final_small = true};
    return terms->flows != NULL ? terms->flows[copy] : unknown;
}

/* max(Q(s), U_s) */
static double tail_of(const pp_terms *terms, const pp_flow *flow, int copy, int first, int last) {
    double update = pp_terms_update_s(terms, copy, first, last);
    if (terms->mode.split_backward) return update;
    double back =
        scale_of(terms, flow->final_small) * gates_before(terms, copy % terms->stages, first);
    return fmax(back + terms->backward_least[copy], update);
}

/* Parts of J(s). */
typedef struct journey {
    double forward_s, backward_s, recompute_s, links_s;
} journey;

static journey journey_of(const pp_terms *terms, int copy, int last) {
    int layers = terms->tables->layers, stages = terms->stages, stage = copy % stages;
    int end = copy - stage + stages - 1; /* of the chain */
    journey j = {.forward_s = forward_before(terms, stages, layers) -
                              forward_before(terms, stage + 1, last + 1),
                 .backward_s =
                     gates_before(terms, stages, layers) - gates_before(terms, stage + 1, last + 1),
                 .links_s = terms->forward_least[end] - terms->forward_least[copy] +
                            terms->backward_least[end] - terms->backward_least[copy]};
    pp_recompute policy = terms->candidate->recompute;
    bool again = policy == PP_RECOMPUTE_FULL || policy == PP_RECOMPUTE_EXCEPT_LAST;
    if (again && stage < stages - 1) {
        j.recompute_s = terms->timing->forward_each[layers - 1] + terms->tables->overhead_s;
    }
    return j;
}

/* J of a microbatch that is the last one or is not. */
static double journey_s(const pp_terms *terms, const journey *j, bool small) {
    bool recomputed = !small || terms->candidate->recompute == PP_RECOMPUTE_FULL;
    double work = j->forward_s + j->backward_s + (recomputed ? j->recompute_s : 0);
    return scale_of(terms, small) * work + j->links_s;
}

/* Times of one copy of a stage, and what it waits for. */
typedef struct stage_terms {
    int chain;
    double forward_s, input_s, weight_s; /* of a full microbatch, with their actions */
    double front_s, tail_s;              /* P, and max(Q, U) */
    journey journey;
} stage_terms;

static stage_terms terms_of(const pp_terms *terms, const pp_flow *flow, int copy, int first,
                            int last) {
    double input = gate_s(terms, copy, first, last);
    double whole = pp_terms_backward_s(terms, copy, first, last);
    double way =
        scale_of(terms, flow->first_small) * forward_before(terms, copy % terms->stages, first);
    return (stage_terms){.chain = copy / terms->stages,
                         .forward_s = pp_terms_forward_s(terms, copy, first, last),
                         .input_s = input,
                         .weight_s = whole - input,
                         .front_s = way + terms->forward_least[copy],
                         .tail_s = tail_of(terms, flow, copy, first, last),
                         .journey = journey_of(terms, copy, last)};
}

/* Σ over windows of max(0, J - work) */
static double idle_of(const pp_terms *terms, const pp_flow *flow, const stage_terms *t) {
    double idle = 0;
    double full = journey_s(terms, &t->journey, false), small = journey_s(terms, &t->journey, true);
    for (int i = 0; i < flow->window_count; i++) {
        const pp_window *w = &flow->windows[i];
        double work = (w->forwards + w->recomputes) * t->forward_s + w->inputs * t->input_s;
        if (terms->mode.split_backward) work += w->weights * t->weight_s;
        idle += (w->count - w->small) * fmax(0, full - work) + w->small * fmax(0, small - work);
    }
    return idle;
}

/* A */
static double work_bound(const pp_terms *terms, const pp_flow *flow, const stage_terms *t) {
    double work = terms->visits[t->chain] * (t->forward_s + t->input_s + t->weight_s) +
                  terms->recomputes[t->chain] * t->forward_s;
    return t->front_s + work + idle_of(terms, flow, t) + t->tail_s;
}

/* B. What the small microbatch may lack of a full one is taken off wherever it may be. */
static double turn_bound(const pp_terms *terms, const pp_flow *flow, const stage_terms *t) {
    const pp_flow *last = &terms->flows[(t->chain + 1) * terms->stages - 1];
    double partial = 1 - terms->scale;
    double before = last->leading - (last->leading_small ? partial : 0);
    double behind = pp_candidate_microbatches(terms->candidate, t->chain) - flow->leading;
    if (!flow->leading_small) behind -= partial;
    double recomputes = fmax(0, terms->recomputes[t->chain] - flow->leading_recomputes - partial);
    double way = scale_of(terms, last->leading_small) * t->journey.forward_s +
                 scale_of(terms, flow->turn_small) * t->journey.backward_s + t->journey.links_s;
    return t->front_s + (before + fmax(0, behind) + recomputes) * t->forward_s + way +
           terms->visits[t->chain] * (t->input_s + t->weight_s) + t->tail_s;
}

double pp_bound_stage(const pp_terms *terms, int stage, int first, int last) {
    double bound = 0;
    for (int copy = stage; copy < terms->copies; copy += terms->stages) {
        pp_flow flow = flow_of(terms, copy);
        stage_terms t = terms_of(terms, &flow, copy, first, last);
        bound = fmax(bound, work_bound(terms, &flow, &t));
        if (terms->flows != NULL) bound = fmax(bound, turn_bound(terms, &flow, &t));
    }
    return CAUTION * bound;
}

/* A rank does the work of all its stages one action at a time, and their updates behind it. It
 * begins no sooner than a microbatch gets to the first of its stages, and the last one has to go
 * back from there. Links are left out: which of two chains comes first is not known. */
static double rank_bound(const pp_terms *terms, const int *splits, int stage, int rank) {
    double work = 0, update = 0, front = -1, back = 0;
    for (int s = 0; s <= stage; s++) {
        int copy = pp_terms_copy_on(terms, s, rank);
        if (copy < 0) continue;
        int first = s == 0 ? 0 : splits[s - 1];
        int last = s == terms->stages - 1 ? terms->tables->layers - 1 : splits[s] - 1;
        double forward = pp_terms_forward_s(terms, copy, first, last);
        double backward = pp_terms_backward_s(terms, copy, first, last);
        int chain = copy / terms->stages;
        work += terms->visits[chain] * (forward + backward) + terms->recomputes[chain] * forward;
        update += pp_terms_update_s(terms, copy, first, last);
        if (front >= 0) continue;
        front = terms->scale * forward_before(terms, s, first);
        if (!terms->mode.split_backward) back = terms->scale * gates_before(terms, s, first);
    }
    return CAUTION * (front + work + fmax(back, update));
}

double pp_bound_rank(const pp_terms *terms, const int *splits, int stage) {
    double most = 0;
    for (int copy = stage; copy < terms->copies; copy += terms->stages)
        most = fmax(most, rank_bound(terms, splits, stage, terms->placement[copy]));
    return most;
}

int64_t pp_bound_bytes(const pp_terms *terms, int first, int last) {
    return static_bytes(terms->timing->division.weights, terms->candidate, first, last);
}

/* ---- over all splits ----------------------------------------------------------------------- */

static double bound_where_weights_fit(const void *context, int stage, int first, int last) {
    const pp_terms *terms = context;
    if (pp_bound_bytes(terms, first, last) > pp_terms_limit(terms, stage)) return INFINITY;
    return pp_bound_stage(terms, stage, first, last);
}

pp_status pp_bound_splits(const pp_terms *terms, pp_arena *arena, double *bound, pp_error *error) {
    pp_chain_problem problem = {.items = terms->tables->layers,
                                .stages = terms->stages,
                                .floor = bound_where_weights_fit,
                                .context = terms,
                                .lattice = terms->tables->lattice,
                                .weight = terms->timing->whole,
                                .per_weight = terms->visits[0] * (1 - PP_NEGLIGIBLE)};
    int *splits = PP_NEW(arena, int, terms->stages);
    if (splits == NULL) return pp_fail_memory(error);
    pp_status status = pp_chain_cut(&problem, arena, splits, bound, NULL);
    if (status == PP_E_OUT_OF_MEMORY) return pp_fail_memory(error);
    if (status == PP_E_NO_FIT) *bound = INFINITY;
    return PP_OK;
}
