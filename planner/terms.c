/* What the stages of one candidate cost, before it is known where they are cut.
 *
 * A stage is an interval of layers, so all of this is differences of the sums in tables.c plus what
 * depends on where the stage runs: how fast the slowest device of its rank is, links to its
 * neighbours, and the all-reduce over its replicas (core/collective.c). Under ZeRO-1 a
 * reduce-scatter and an all-gather move as much. Each of the tp devices of a rank sums with its
 * counterparts in the other replicas, all at the same time. */
#include <math.h>
#include <stddef.h>

#include "planner/planner_internal.h"

/* ---- links --------------------------------------------------------------------------------- */

/* The t-th device of a replica of a rank. */
static int device_of(const pp_candidate *candidate, int rank, int replica, int t) {
    const pp_arrangement *arrangement = candidate->arrangement;
    return arrangement->devices[rank * arrangement->width + replica * candidate->tp + t];
}

static pp_line line_of(pp_link link) {
    return (pp_line){link.latency_s, 1 / link.bandwidth_bytes_per_s};
}

static pp_line slower(pp_line a, pp_line b) {
    return (pp_line){fmax(a.fixed_s, b.fixed_s), fmax(a.per_byte_s, b.per_byte_s)};
}

static pp_all_reduce slower_sum(pp_all_reduce a, pp_all_reduce b) {
    return (pp_all_reduce){slower(a.ring, b.ring), slower(a.tree, b.tree), b.kind};
}

pp_all_reduce pp_division_sum(const pp_cluster *cluster, const pp_arrangement *arrangement,
                              int tp) {
    pp_all_reduce slowest = {.kind = cluster->all_reduce};
    int count = arrangement->ranks * arrangement->width;
    for (int i = 0; i < count && tp > 1; i += tp) {
        pp_all_reduce sum = pp_all_reduce_over(cluster, &arrangement->devices[i], tp, 1);
        slowest = slower_sum(slowest, sum);
    }
    return slowest;
}

bool pp_ranks_sum(const pp_cluster *cluster, const pp_candidate *c, const int *ranks, int count,
                  pp_all_reduce *sum) {
    int holders = count * c->dp, *devices = pp_allocate((size_t)holders * sizeof *devices);
    if (devices == NULL) return false;
    *sum = (pp_all_reduce){.kind = cluster->all_reduce};
    for (int t = 0; t < c->tp; t++) {
        for (int d = 0; d < holders; d++) devices[d] = device_of(c, ranks[d / c->dp], d % c->dp, t);
        *sum = slower_sum(pp_all_reduce_over(cluster, devices, holders, c->tp), *sum);
    }
    pp_free(devices);
    return true;
}

static pp_status fill_reductions(pp_terms *terms, pp_error *error) {
    const pp_candidate *c = terms->candidate;
    int chains = pp_candidate_chains(c);
    for (int s = 0; s < terms->ranks && chains * c->dp > 1; s++) {
        int ranks[2] = {terms->placement[s], 0}; /* of the first stages: these stand for all */
        if (chains > 1) ranks[1] = terms->placement[s + terms->stages];
        if (!pp_ranks_sum(terms->tables->cluster, c, ranks, chains, &terms->reduce[ranks[0]]))
            return pp_fail_memory(error);
    }
    return PP_OK;
}

int64_t pp_terms_limit(const pp_terms *terms, int stage) {
    int64_t least = INT64_MAX;
    for (; stage < terms->copies; stage += terms->stages) {
        int64_t limit = terms->limit_bytes[terms->placement[stage]];
        if (limit < least) least = limit;
    }
    return least;
}

/* Least bytes over all borders at which the model can be cut. */
static int64_t least_border(const pp_timing *timing, int layers) {
    int64_t least = INT64_MAX;
    for (int i = 1; i < layers; i++) {
        if (timing->border_bytes[i] < least) least = timing->border_bytes[i];
    }
    return layers > 1 ? least : 0;
}

static void fill_links(pp_terms *terms) {
    const pp_tables *tables = terms->tables;
    double bytes = (double)least_border(terms->timing, tables->layers) / terms->candidate->slices;
    for (int s = 0; s < terms->copies; s++) {
        if ((s + 1) % terms->stages == 0) continue; /* a chain ends, and sums begin again */
        int here = terms->placement[s], there = terms->placement[s + 1];
        if (here != there) {
            const pp_arrangement *a = terms->candidate->arrangement;
            terms->forward[s] = line_of(pp_arrangement_link(a, tables->cluster, here, there));
            terms->backward[s] = line_of(pp_arrangement_link(a, tables->cluster, there, here));
        }
        /* One latency for both directions, as in the simulator. */
        double latency = fmax(terms->forward[s].fixed_s, terms->backward[s].fixed_s);
        terms->forward_least[s + 1] =
            terms->forward_least[s] + latency + bytes * terms->forward[s].per_byte_s;
        terms->backward_least[s + 1] =
            terms->backward_least[s] + latency + bytes * terms->backward[s].per_byte_s;
    }
}

/* ---- the whole ----------------------------------------------------------------------------- */

static void fill_counts(pp_terms *terms) {
    const pp_candidate *c = terms->candidate;
    for (int i = 0; i < 2; i++) {
        int chain = i < pp_candidate_chains(c) ? i : 0;
        terms->visits[i] = pp_candidate_visits(c, chain);
        terms->recomputes[i] = pp_candidate_recomputes(c, chain);
    }
    terms->scale = fmin(c->last_scale, 1);
    terms->slice_share = pp_candidate_slice_share(c);
    terms->overhead_s = c->slices * terms->tables->overhead_s;
}

/* Times on each kind that the candidate uses, in this view. */
static pp_status fill_times(pp_terms *terms, pp_view *view, pp_error *error) {
    const pp_candidate *c = terms->candidate;
    pp_tables *tables = view->base;
    PP_TRY(pp_view_timing(view, c->timing, &terms->timing, error));
    for (int i = 0; i < c->arrangement->kinds->count; i++) {
        const pp_timing **on_kind = &terms->on_kind[c->arrangement->kinds->kinds[i]];
        pp_timing *timing;
        const pp_kinds *kinds = pp_tables_kind(tables, c->arrangement->kinds->kinds[i]);
        if (kinds == NULL) return pp_fail_memory(error);
        PP_TRY(pp_tables_timing(tables, kinds, c->timing->division, c->size, c->slices, &timing,
                                error));
        PP_TRY(pp_view_timing(view, timing, on_kind, error));
    }
    return PP_OK;
}

/* The arrangement's, or the cap where that is less. NULL: out of memory. */
static const int64_t *limits_of(const pp_tables *base, const pp_arrangement *a, pp_arena *arena) {
    if (base->cap_bytes == 0) return a->limit_bytes;
    int64_t *limits = PP_NEW(arena, int64_t, a->ranks);
    for (int p = 0; p < a->ranks && limits != NULL; p++)
        limits[p] = a->limit_bytes[p] < base->cap_bytes ? a->limit_bytes[p] : base->cap_bytes;
    return limits;
}

/* Of models in the file's order, where the lowest layer of a tie comes first. */
static pp_tied_end tied_end_of(const pp_terms *terms) {
    const pp_tables *tables = terms->tables;
    const pp_timing *t = terms->timing;
    const pp_weights *weights = t->division.weights;
    int last = tables->layers - 1;
    if (tables->order != NULL || tables->lattice != NULL || tables->tie[last] < 0 ||
        tables->tie[last] == last)
        return (pp_tied_end){.owner = -1};
    int owner = tables->tie[last];
    double here = (1 - weights->untied_share[last]) * t->update_each[last];
    double there = (1 - weights->untied_share[owner]) * t->update_each[owner];
    return (pp_tied_end){.owner = owner,
                         .step_s = fmin(here, there) / terms->mode.shards,
                         .bytes = (double)weights->tied_bytes[last]};
}

pp_status pp_terms_init(pp_terms *terms, pp_view *view, const pp_candidate *candidate,
                        const int *placement, pp_arena *arena, pp_error *error) {
    const pp_tables *tables = view->tables;
    pp_recompute policy = pp_candidate_policy(candidate);
    int stages = pp_candidate_stages(candidate), ranks = candidate->ranks;
    int copies = stages * pp_candidate_chains(candidate);
    *terms = (pp_terms){.tables = tables,
                        .candidate = candidate,
                        .mode = {.samples = candidate->size,
                                 .dp = pp_candidate_holders(candidate),
                                 .tp = candidate->tp,
                                 .shards = pp_candidate_shards(candidate),
                                 .split_backward = candidate->family->splits_backward,
                                 .recompute = policy},
                        .others = policy,
                        .policies = PP_NEW(arena, pp_recompute, stages),
                        .stages = stages,
                        .copies = copies,
                        .ranks = ranks,
                        .placement = PP_NEW(arena, int, copies),
                        .limit_bytes = limits_of(view->base, candidate->arrangement, arena),
                        .on_kind = PP_NEW(arena, const pp_timing *, tables->kind_count),
                        .reduce = PP_NEW(arena, pp_all_reduce, ranks),
                        .tie_devices = PP_NEW(arena, int, tables->tied_count + 1),
                        .tie_holds = PP_NEW(arena, bool, copies),
                        .forward = PP_NEW(arena, pp_line, copies),
                        .backward = PP_NEW(arena, pp_line, copies),
                        .forward_least = PP_NEW(arena, double, copies + 1),
                        .backward_least = PP_NEW(arena, double, copies + 1)};
    if (arena->failed) return pp_fail_memory(error);
    for (int s = 0; s < copies; s++) {
        terms->placement[s] = placement != NULL ? placement[s] : s % ranks;
        if (s < stages) terms->policies[s] = policy;
    }
    PP_TRY(fill_times(terms, view, error));
    terms->tied_end = tied_end_of(terms);
    PP_TRY(fill_reductions(terms, error));
    fill_counts(terms);
    fill_links(terms);
    return PP_OK;
}

/* Seconds of one phase on the slowest kind of the stage's rank. sums: where pp_timing has them. */
static double slowest_s(const pp_terms *terms, size_t sums, int stage, int first, int last) {
    const pp_kinds *kinds = terms->candidate->arrangement->rank_kinds[terms->placement[stage]];
    double slowest = 0;
    for (int i = 0; i < kinds->count; i++) {
        const char *timing = (const char *)terms->on_kind[kinds->kinds[i]];
        const double *sum = *(double *const *)(const void *)(timing + sums);
        slowest = fmax(slowest, sum[last + 1] - sum[first]);
    }
    return slowest;
}

double pp_terms_forward_s(const pp_terms *terms, int stage, int first, int last) {
    double layers = slowest_s(terms, offsetof(pp_timing, forward), stage, first, last);
    return layers + terms->overhead_s;
}

const double *pp_timing_inside(const pp_timing *timing, pp_recompute policy) {
    if (policy == PP_RECOMPUTE_ATTENTION) return timing->attention;
    return pp_recompute_is_inside(policy) ? timing->forward : NULL;
}

double pp_terms_inside_s(const pp_terms *terms, pp_recompute policy, int stage, int first,
                         int last) {
    if (!pp_recompute_is_inside(policy)) return 0;
    bool attention = policy == PP_RECOMPUTE_ATTENTION;
    size_t sums = attention ? offsetof(pp_timing, attention) : offsetof(pp_timing, forward);
    return slowest_s(terms, sums, stage, first, last);
}

double pp_terms_again_s(const pp_terms *terms, pp_recompute policy, int stage, int first,
                        int last) {
    bool again = policy == PP_RECOMPUTE_FULL || policy == PP_RECOMPUTE_EXCEPT_LAST;
    return again ? pp_terms_forward_s(terms, stage, first, last) : 0;
}

double pp_terms_input_s(const pp_terms *terms, int stage, int first, int last) {
    double layers = slowest_s(terms, offsetof(pp_timing, input), stage, first, last);
    return layers + pp_terms_inside_s(terms, terms->mode.recompute, stage, first, last) +
           terms->overhead_s;
}

double pp_terms_backward_s(const pp_terms *terms, int stage, int first, int last) {
    double weight = slowest_s(terms, offsetof(pp_timing, weight), stage, first, last);
    if (terms->mode.split_backward) weight += terms->overhead_s;
    return pp_terms_input_s(terms, stage, first, last) + weight;
}

double pp_terms_visit_s(const pp_terms *terms, int stage, int first, int last) {
    double forward = pp_terms_forward_s(terms, stage, first, last);
    return forward + pp_terms_backward_s(terms, stage, first, last) +
           pp_terms_again_s(terms, terms->mode.recompute, stage, first, last);
}

double pp_terms_update_s(const pp_terms *terms, int stage, int first, int last) {
    const pp_weights *weights = terms->timing->division.weights;
    double step = slowest_s(terms, offsetof(pp_timing, own_update), stage, first, last);
    step /= terms->mode.shards;
    const pp_tied_end *end = &terms->tied_end;
    bool tied = last == terms->tables->layers - 1 && end->owner >= 0 && end->owner < first;
    if (tied) step += end->step_s;
    if (terms->mode.dp == 1) return step;
    double bytes = (double)(weights->own_bytes[last + 1] - weights->own_bytes[first]);
    if (tied) bytes += end->bytes;
    return step + pp_all_reduce_s(&terms->reduce[terms->placement[stage]], bytes);
}

double pp_terms_lane_s(const pp_terms *terms, int stage, int next) {
    double bytes = (double)terms->timing->border_bytes[next];
    return bytes * fmax(terms->forward[stage].per_byte_s, terms->backward[stage].per_byte_s);
}
