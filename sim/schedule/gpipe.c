/* gpipe: every rank runs all M forwards, then all M backwards (Huang et al. 2019, section 2.3).
 *
 * The backward goes through the microbatches in the order of the forward, as PyTorch and most
 * figures have it; torchgpipe starts with the last one (reverse_backward). Makespan (M+K-1)·T
 * either way, M activations held on each rank. */
#include "sim/families_internal.h"

#include <math.h>

pp_status pp_gpipe_validate(const pp_schedule_request *request, pp_error *error) {
    return pp_family_options(request, PP_TAKES_REVERSE, error);
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    int microbatches = request->microbatches;
    for (int m = 0; m < microbatches; m++) at = pp_put(schedule, at, PP_FORWARD, p, m);
    for (int i = 0; i < microbatches; i++) {
        int m = request->reverse_backward ? microbatches - 1 - i : i;
        at = pp_put(schedule, at, PP_BACKWARD, p, m);
    }
    return at;
}

void pp_gpipe_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_rank);
}

/* (K-1) / (M+K-1) */
double pp_gpipe_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    if (!pp_family_uniform_domain(request, cost)) return NAN;
    double ranks = request->ranks, microbatches = request->microbatches;
    return (ranks - 1) / (microbatches + ranks - 1);
}
