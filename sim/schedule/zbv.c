/* zbv: zero bubble on a V-shaped placement (Qi et al. 2024, "Pipeline parallelism with controllable
 * memory", ZB-V): rank p holds stages p (chunk 0) and 2K-1-p (chunk 1).
 *
 *   warm-up    2(K-p)-1 × F0, p × (F1, F0), K-p × (F1, I1, W1)
 *   stable     (F0, I0, W0, F1, I1, W1) while there are forwards
 *   cool-down  p × (I0, I1), K-p × (I0, W0), then the W1 and W0 that are left
 *
 * Made for max(2K-1, M) microbatches and cut to M. Holds 2K chunks, as much as 1F1B; no bubble in
 * the span when F = I = W. */
#include "sim/families_internal.h"

#include <math.h>

pp_status pp_zbv_validate(const pp_schedule_request *request, pp_error *error) {
    return pp_family_vshape(request, error);
}

static void warm_up(pp_two_chunks *rank, int p, int ranks) {
    for (int i = 0; i < 2 * (ranks - p) - 1; i++) pp_put_next(rank, PP_FORWARD, 0);
    for (int i = 0; i < p; i++) {
        pp_put_next(rank, PP_FORWARD, 1);
        pp_put_next(rank, PP_FORWARD, 0);
    }
    for (int i = 0; i < ranks - p; i++) {
        pp_put_next(rank, PP_FORWARD, 1);
        pp_put_next(rank, PP_INPUT, 1);
        pp_put_next(rank, PP_WEIGHT, 1);
    }
}

static void stable(pp_two_chunks *rank, int made_for) {
    while (rank->next[1][PP_FORWARD] < made_for) {
        if (rank->next[0][PP_FORWARD] < made_for) pp_put_next(rank, PP_FORWARD, 0);
        pp_put_next(rank, PP_INPUT, 0);
        pp_put_next(rank, PP_WEIGHT, 0);
        pp_put_next(rank, PP_FORWARD, 1);
        pp_put_next(rank, PP_INPUT, 1);
        pp_put_next(rank, PP_WEIGHT, 1);
    }
}

static void cool_down(pp_two_chunks *rank, int p, int ranks) {
    for (int i = 0; i < p; i++) {
        pp_put_next(rank, PP_INPUT, 0);
        pp_put_next(rank, PP_INPUT, 1);
    }
    for (int i = 0; i < ranks - p; i++) {
        pp_put_next(rank, PP_INPUT, 0);
        pp_put_next(rank, PP_WEIGHT, 0);
    }
    for (int chunk = 1; chunk >= 0; chunk--)
        while (rank->next[chunk][PP_WEIGHT] < rank->next[chunk][PP_INPUT])
            pp_put_next(rank, PP_WEIGHT, chunk);
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    int ranks = request->ranks, least = 2 * ranks - 1;
    pp_two_chunks rank = {.schedule = schedule, .at = at, .stage = {p, 2 * ranks - 1 - p}};
    warm_up(&rank, p, ranks);
    stable(&rank, request->microbatches > least ? request->microbatches : least);
    cool_down(&rank, p, ranks);
    return rank.at;
}

void pp_zbv_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_rank);
}

static bool in_domain(const pp_schedule_request *request, const pp_uniform *cost) {
    return pp_family_uniform_domain(request, cost) &&
           pp_same_time(cost->forward_s, cost->input_s) &&
           pp_same_time(cost->input_s, cost->weight_s) &&
           request->microbatches >= 2 * request->ranks - 1;
}

/* Span 2MT if F = I = W and M >= 2K-1. */
double pp_zbv_span_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    return in_domain(request, cost) ? 0 : NAN;
}

/* The makespan has the K-1 forwards before the last rank besides. */
double pp_zbv_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    if (!in_domain(request, cost)) return NAN;
    double work = 2.0 * request->microbatches * pp_uniform_visit(cost);
    return pp_idle_share(work, (request->ranks - 1) * cost->forward_s);
}
