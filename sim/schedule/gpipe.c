/* gpipe: every rank runs all M forwards, then all M backwards (Huang et al. 2019, section 2.3).
 *
 * The backward goes through the microbatches in the order of the forward, as PyTorch and most
 * figures have it; torchgpipe starts with the last one (reverse_backward). Makespan (M+K-1)·T
 * either way, M activations held on each rank. */
#include "sim/families_internal.h"

#include <math.h>

pp_status pp_gpipe_validate(const pp_schedule_request *request, pp_error *error) {
    pp_schedule_request plain = *request;
    plain.reverse_backward = false;
    return pp_family_plain(&plain, error);
}

size_t pp_gpipe_count(const pp_schedule_request *request) {
    return 2 * (size_t)request->ranks * (size_t)request->microbatches;
}

void pp_gpipe_build(const pp_schedule_request *request, pp_schedule *schedule) {
    int microbatches = request->microbatches;
    size_t at = 0;
    for (int p = 0; p < request->ranks; p++) {
        schedule->first_action[p] = at;
        for (int m = 0; m < microbatches; m++) at = pp_put(schedule, at, PP_FORWARD, p, m);
        for (int i = 0; i < microbatches; i++) {
            int m = request->reverse_backward ? microbatches - 1 - i : i;
            at = pp_put(schedule, at, PP_BACKWARD, p, m);
        }
    }
    schedule->first_action[request->ranks] = at;
}

/* (K-1) / (M+K-1) */
double pp_gpipe_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    if (!pp_family_uniform_domain(request, cost)) return NAN;
    double ranks = request->ranks, microbatches = request->microbatches;
    return (ranks - 1) / (microbatches + ranks - 1);
}
