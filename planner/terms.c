/* What the stages of one candidate cost, before it is known where they are cut.
 *
 * A stage is an interval of layers, so all of this is differences of the sums in tables.c plus what
 * depends on where the stage runs: links to its neighbours, and the all-reduce over its replicas
 * (core/collective.c). Under ZeRO-1 a reduce-scatter and an all-gather move as much. */
#include <math.h>

#include "planner/planner_internal.h"

/* ---- links --------------------------------------------------------------------------------- */

/* Devices are numbered tp fastest, then replica, then rank; tp is 1. */
static int device_of(const pp_candidate *candidate, int rank, int replica) {
    return rank * candidate->dp + replica;
}

static pp_line line_of(pp_link link) {
    return (pp_line){link.latency_s, 1 / link.bandwidth_bytes_per_s};
}

static pp_status fill_reductions(pp_terms *terms, pp_arena *arena, pp_error *error) {
    const pp_candidate *c = terms->candidate;
    int *devices = PP_NEW(arena, int, c->dp);
    if (devices == NULL) return pp_fail_memory(error);
    for (int p = 0; p < terms->ranks; p++) {
        for (int d = 0; d < c->dp; d++) devices[d] = device_of(c, p, d);
        terms->reduce[p] = pp_all_reduce_over(terms->tables->cluster, devices, c->dp, 1);
    }
    return PP_OK;
}

static void fill_limits(pp_terms *terms) {
    const pp_tables *tables = terms->tables;
    for (int p = 0; p < terms->ranks; p++) {
        int64_t least = INT64_MAX;
        for (int d = 0; d < terms->candidate->dp; d++) {
            int index = device_of(terms->candidate, p, d);
            int64_t memory = pp_cluster_device(tables->cluster, index)->memory_bytes;
            if (memory < least) least = memory;
        }
        int64_t asked = tables->request->memory_bytes;
        terms->limit_bytes[p] = asked > 0 ? asked : least;
    }
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
    double bytes = (double)least_border(terms->timing, tables->layers);
    for (int s = 0; s + 1 < terms->stages; s++) {
        int here = terms->placement[s], there = terms->placement[s + 1];
        if (here != there) {
            int from = device_of(terms->candidate, here, 0);
            int to = device_of(terms->candidate, there, 0);
            terms->forward[s] = line_of(pp_cluster_link(tables->cluster, from, to));
            terms->backward[s] = line_of(pp_cluster_link(tables->cluster, to, from));
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
    terms->visits = c->microbatches - 1 + c->last_scale;
    terms->recomputes = 0;
    if (c->recompute == PP_RECOMPUTE_FULL) terms->recomputes = terms->visits;
    if (c->recompute == PP_RECOMPUTE_EXCEPT_LAST) terms->recomputes = c->microbatches - 1;
    terms->scale = fmin(c->last_scale, 1);
}

pp_status pp_terms_init(pp_terms *terms, const pp_tables *tables, const pp_candidate *candidate,
                        const int *placement, pp_arena *arena, pp_error *error) {
    int stages = pp_candidate_stages(candidate), ranks = candidate->ranks;
    *terms = (pp_terms){.tables = tables,
                        .candidate = candidate,
                        .timing = candidate->timing,
                        .mode = {.samples = candidate->size,
                                 .dp = candidate->dp,
                                 .shards = tables->request->zero == 1 ? candidate->dp : 1,
                                 .split_backward = candidate->family->splits_backward,
                                 .recompute = candidate->recompute != PP_RECOMPUTE_NONE},
                        .stages = stages,
                        .ranks = ranks,
                        .placement = PP_NEW(arena, int, stages),
                        .limit_bytes = PP_NEW(arena, int64_t, ranks),
                        .reduce = PP_NEW(arena, pp_all_reduce, ranks),
                        .tie_devices = PP_NEW(arena, int, tables->tied_count + 1),
                        .tie_holds = PP_NEW(arena, bool, stages),
                        .forward = PP_NEW(arena, pp_line, stages),
                        .backward = PP_NEW(arena, pp_line, stages),
                        .forward_least = PP_NEW(arena, double, stages + 1),
                        .backward_least = PP_NEW(arena, double, stages + 1)};
    if (arena->failed) return pp_fail_memory(error);
    for (int s = 0; s < stages; s++) {
        terms->placement[s] = placement != NULL ? placement[s] : s % ranks;
    }
    PP_TRY(fill_reductions(terms, arena, error));
    fill_limits(terms);
    fill_links(terms);
    fill_counts(terms);
    return PP_OK;
}

double pp_terms_forward_s(const pp_terms *terms, int first, int last) {
    const double *sums = terms->timing->forward;
    return sums[last + 1] - sums[first] + terms->tables->overhead_s;
}

double pp_terms_backward_s(const pp_terms *terms, int first, int last) {
    const double *input = terms->timing->input, *weight = terms->timing->weight;
    int actions = terms->mode.split_backward ? 2 : 1;
    return input[last + 1] - input[first] + (weight[last + 1] - weight[first]) +
           actions * terms->tables->overhead_s;
}

double pp_terms_visit_s(const pp_terms *terms, int first, int last) {
    double forward = pp_terms_forward_s(terms, first, last);
    double recompute = terms->mode.recompute ? forward : 0;
    return forward + pp_terms_backward_s(terms, first, last) + recompute;
}

double pp_terms_update_s(const pp_terms *terms, int stage, int first, int last) {
    const pp_tables *tables = terms->tables;
    const pp_candidate *c = terms->candidate;
    double step = tables->own_update_s[last + 1] - tables->own_update_s[first];
    step /= terms->mode.shards;
    if (c->dp == 1) return step;
    double bytes = (double)(tables->own_bytes[last + 1] - tables->own_bytes[first]);
    return step + pp_all_reduce_s(&terms->reduce[terms->placement[stage]], bytes);
}

double pp_terms_lane_s(const pp_terms *terms, int stage, int next) {
    double bytes = (double)terms->timing->border_bytes[next];
    return bytes * fmax(terms->forward[stage].per_byte_s, terms->backward[stage].per_byte_s);
}
