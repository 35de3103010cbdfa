/* 1f1b: w = min(K-1-p, M) forwards, then M-w times one forward and one backward, then w backwards
 * (PipeDream-Flush, DAPPLE; Narayanan et al. 2021, section 2.2.1).
 *
 * Makespan (M+K-1)·T as gpipe's, but rank p holds min(K-p, M) activations instead of M. With fewer
 * microbatches than ranks the early ranks run forwards alone, then backwards: legal. */
#include "sim/families_internal.h"

#include <math.h>

pp_status pp_one_f_one_b_validate(const pp_schedule_request *request, pp_error *error) {
    return pp_family_plain(request, error);
}

size_t pp_one_f_one_b_count(const pp_schedule_request *request) {
    return 2 * (size_t)request->ranks * (size_t)request->microbatches;
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    int microbatches = request->microbatches;
    int after = request->ranks - 1 - p;
    int warm_up = after < microbatches ? after : microbatches;
    for (int m = 0; m < warm_up; m++) at = pp_put(schedule, at, PP_FORWARD, p, m);
    for (int m = warm_up; m < microbatches; m++) {
        at = pp_put(schedule, at, PP_FORWARD, p, m);
        at = pp_put(schedule, at, PP_BACKWARD, p, m - warm_up);
    }
    for (int m = microbatches - warm_up; m < microbatches; m++)
        at = pp_put(schedule, at, PP_BACKWARD, p, m);
    return at;
}

void pp_one_f_one_b_build(const pp_schedule_request *request, pp_schedule *schedule) {
    size_t at = 0;
    for (int p = 0; p < request->ranks; p++) {
        schedule->first_action[p] = at;
        at = build_rank(request, schedule, p, at);
    }
    schedule->first_action[request->ranks] = at;
}

/* (K-1) / (M+K-1), as gpipe's: the order changes what is held, not how long it takes. */
double pp_one_f_one_b_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    return pp_gpipe_bubble(request, cost);
}
