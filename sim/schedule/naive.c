/* naive: the forward and backward of one microbatch pass through all ranks before the next one
 * starts, so that one rank works at any time: makespan K·T·M, one activation held per rank. */
#include "sim/families_internal.h"

#include <math.h>

pp_status pp_naive_validate(const pp_schedule_request *request, pp_error *error) {
    return pp_family_plain(request, error);
}

size_t pp_naive_count(const pp_schedule_request *request) {
    return 2 * (size_t)request->ranks * (size_t)request->microbatches;
}

void pp_naive_build(const pp_schedule_request *request, pp_schedule *schedule) {
    size_t at = 0;
    for (int p = 0; p < request->ranks; p++) {
        schedule->first_action[p] = at;
        for (int m = 0; m < request->microbatches; m++) {
            at = pp_put(schedule, at, PP_FORWARD, p, m);
            at = pp_put(schedule, at, PP_BACKWARD, p, m);
        }
    }
    schedule->first_action[request->ranks] = at;
}

/* 1 - M·K·T / (K · K·T·M) */
double pp_naive_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    if (!pp_family_uniform_domain(request, cost)) return NAN;
    return 1.0 - 1.0 / request->ranks;
}
