/* zb-h2: zb-h1 with twice the warm-up (Qi et al. 2023, "Zero bubble pipeline parallelism", section
 * 2.2 and figure 3).
 *
 * 2(K-1-p) forwards, then W lags 2p microbatches behind I: 2K-1 activations on every rank. The
 * ranks start one after the other and end so too, a parallelogram: hardly any bubble inside, but
 * the makespan has the K-1 first forwards before the last rank starts. */
#include "sim/families_internal.h"

#include <math.h>

pp_status pp_zb_h2_validate(const pp_schedule_request *request, pp_error *error) {
    return pp_family_options(request, 0, error);
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    return pp_put_split_rank(request, schedule, at, request->microbatches, p,
                             2 * (int64_t)(request->ranks - 1 - p), 2 * (int64_t)p);
}

void pp_zb_h2_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_rank);
}

/* Idle part of the span: (K-1)(F+I-2W+2c), where that is >= 0 and M >= 2K-1. The paper says it for
 * F, I, W of about a length and short transfers; by simulation it holds from F >= W and F+I >= 2c
 * on. NAN elsewhere. */
static double span_idle(const pp_schedule_request *request, const pp_uniform *cost) {
    double f = cost->forward_s, i = cost->input_s, w = cost->weight_s, c = cost->transfer_s;
    double idle = (request->ranks - 1) * (f + i - 2 * w + 2 * c);
    bool holds = pp_family_nothing_recomputed(request) && idle >= 0 && f >= w && f + i >= 2 * c &&
                 request->microbatches >= 2 * request->ranks - 1;
    return holds ? idle : NAN;
}

double pp_zb_h2_span_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    double idle = span_idle(request, cost);
    return isnan(idle) ? NAN : pp_idle_share(request->microbatches * pp_uniform_visit(cost), idle);
}

/* The makespan has the longest span, rank 0's, or the K-1 forwards before the last rank's. */
double pp_zb_h2_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    double idle = span_idle(request, cost);
    if (isnan(idle) || cost->transfer_s > 0) return NAN;
    idle = fmax(idle, (request->ranks - 1) * cost->forward_s);
    return pp_idle_share(request->microbatches * pp_uniform_visit(cost), idle);
}
