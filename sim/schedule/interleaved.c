/* interleaved: 1F1B over V chunks on each rank (Narayanan et al. 2021, section 2.2.2).
 *
 * Warm-up w = min(MV, (V-1)G + 2(K-1-p)) forward visits in groups of G (groups.c), then one forward
 * and one backward in turn, then the backwards that are left. V = 1 is plain 1F1B.
 *
 * Which M are legal: Megatron-LM needs K <= G <= M and a last group of 0 or >= K microbatches, else
 * the order can hang (K = 4, M = 5, V = 3). With G not given we take PyTorch's rounds: R = max(1,
 * M/K) rounds of G = M/R, where R divides M; that is G = K for multiples of K, and all M for M <
 * 2K. */
#include "sim/families_internal.h"

#include <math.h>

static bool group_is_legal(const pp_schedule_request *request) {
    int group = request->group, rest = request->microbatches % group;
    return group >= request->ranks && group <= request->microbatches &&
           (rest == 0 || rest >= request->ranks);
}

static pp_status refuse_group(const pp_schedule_request *request, pp_error *error) {
    return pp_fail(error, PP_E_INPUT, "--group",
                   "groups of %d of %d microbatches on %d ranks would hang: a group is of %d to %d "
                   "microbatches, and what is left for the last one is none or at least %d",
                   request->group, request->microbatches, request->ranks, request->ranks,
                   request->microbatches, request->ranks);
}

pp_status pp_interleaved_validate(const pp_schedule_request *request, pp_error *error) {
    PP_TRY(pp_family_options(request, PP_TAKES_VIRTUAL | PP_TAKES_GROUP, error));
    if (request->virtual_stages == 1) return PP_OK;
    if (request->group > 0) return group_is_legal(request) ? PP_OK : refuse_group(request, error);
    if (pp_rounds_group(request) > 0) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "-M",
                   "interleaved cannot run %d microbatches on %d ranks in equal rounds: %d / %d "
                   "rounded down does not divide %d; take a multiple of %d, or give --group",
                   request->microbatches, request->ranks, request->microbatches, request->ranks,
                   request->microbatches, request->ranks);
}

static int group_of(const pp_schedule_request *request) {
    if (request->virtual_stages == 1) return request->microbatches;
    return request->group > 0 ? request->group : pp_rounds_group(request);
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    int group = group_of(request);
    int64_t total = (int64_t)request->microbatches * request->virtual_stages;
    int64_t after = request->ranks - 1 - p, warm_up = after;
    if (request->virtual_stages > 1)
        warm_up = (int64_t)(request->virtual_stages - 1) * group + 2 * after;
    if (warm_up > total) warm_up = total;
    for (int64_t k = 0; k < total + warm_up; k++) {
        if (k < total) at = pp_put_visit(request, schedule, at, PP_FORWARD, group, p, k);
        if (k >= warm_up)
            at = pp_put_visit(request, schedule, at, PP_BACKWARD, group, p, k - warm_up);
    }
    return at;
}

void pp_interleaved_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_rank);
}

/* (K-1) / (MV+K-1) for M a multiple of K, in groups of K. */
double pp_interleaved_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    if (!pp_family_uniform_domain(request, cost)) return NAN;
    if (request->microbatches % request->ranks != 0) return NAN;
    if (request->group != 0 && request->group != request->ranks) return NAN;
    double ranks = request->ranks;
    double visits = (double)request->microbatches * request->virtual_stages;
    return (ranks - 1) / (visits + ranks - 1);
}
