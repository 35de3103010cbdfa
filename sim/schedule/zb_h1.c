/* zb-h1: 1F1B with the backward split; weight halves fill the bubbles (Qi et al. 2023, "Zero bubble
 * pipeline parallelism", section 2.1 and figure 2).
 *
 * Warm-up of K-1-p forwards as in 1F1B, and W of a microbatch runs p microbatches behind its I on
 * rank p: every rank holds at most min(K, M) activations, 1F1B's largest, and a third of 1F1B's
 * bubble is left. With V > 1 the same over interleaved chunks in groups of K: warm-up (V-1)K +
 * K-1-p visits. */
#include "sim/families_internal.h"

#include <math.h>

pp_status pp_zb_h1_validate(const pp_schedule_request *request, pp_error *error) {
    PP_TRY(pp_family_options(request, PP_TAKES_VIRTUAL, error));
    if (request->virtual_stages == 1 || request->microbatches % request->ranks == 0) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "-M",
                   "zb-h1 with %d stages on each rank needs a multiple of K = %d microbatches, "
                   "not %d",
                   request->virtual_stages, request->ranks, request->microbatches);
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    int group = request->virtual_stages == 1 ? request->microbatches : request->ranks;
    int64_t warm_up =
        (int64_t)(request->virtual_stages - 1) * request->ranks + request->ranks - 1 - p;
    return pp_put_split_rank(request, schedule, at, group, p, warm_up, p);
}

void pp_zb_h1_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_rank);
}

/* Makespan MT + (K-1)(F+I-W) for V = 1 if F, I >= W and M >= K. */
double pp_zb_h1_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    if (!pp_family_uniform_domain(request, cost) || request->virtual_stages > 1) return NAN;
    if (cost->forward_s < cost->weight_s || cost->input_s < cost->weight_s) return NAN;
    if (request->microbatches < request->ranks) return NAN;
    double idle = (request->ranks - 1) * (cost->forward_s + cost->input_s - cost->weight_s);
    return pp_idle_share(request->microbatches * pp_uniform_visit(cost), idle);
}
