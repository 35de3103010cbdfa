/* 1f1b: w = min(K-1-p, M) forwards, then M-w times one forward and one backward, then w backwards
 * (PipeDream-Flush, DAPPLE; Narayanan et al. 2021, section 2.2.1).
 *
 * Makespan (M+K-1)·T as gpipe's, and so the same closed form: the order changes what is held, not
 * how long it takes. Rank p holds min(K-p, M) activations instead of M. With fewer microbatches
 * than ranks the early ranks run forwards alone, then backwards: legal. */
#include "sim/families_internal.h"

pp_status pp_one_f_one_b_validate(const pp_schedule_request *request, pp_error *error) {
    return pp_family_options(request, 0, error);
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    int microbatches = request->microbatches;
    int after = request->ranks - 1 - p;
    int warm_up = after < microbatches ? after : microbatches;
    for (int m = 0; m < microbatches + warm_up; m++) {
        if (m < microbatches) at = pp_put(schedule, at, PP_FORWARD, p, m);
        if (m >= warm_up) at = pp_put(schedule, at, PP_BACKWARD, p, m - warm_up);
    }
    return at;
}

void pp_one_f_one_b_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_rank);
}
