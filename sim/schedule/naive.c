/* naive: the forward and backward of one microbatch pass through all ranks before the next one
 * starts, so that one rank works at any time: makespan K·T·M, one activation held per rank. */
#include "sim/families_internal.h"

#include <math.h>

pp_status pp_naive_validate(const pp_schedule_request *request, pp_error *error) {
    return pp_family_options(request, 0, error);
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    for (int m = 0; m < request->microbatches; m++) {
        at = pp_put(schedule, at, PP_FORWARD, p, m);
        at = pp_put(schedule, at, PP_BACKWARD, p, m);
    }
    return at;
}

void pp_naive_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_rank);
}

/* 1 - M·K·T / (K · K·T·M) */
double pp_naive_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    if (!pp_family_uniform_domain(request, cost)) return NAN;
    return 1.0 - 1.0 / request->ranks;
}
