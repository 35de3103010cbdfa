/* What interleaved schedules share: the order in which a rank visits its chunks.
 *
 * Visit k of a rank is a microbatch of a chunk: groups of G microbatches pass chunk 0, then chunk 1
 * and so on (chunk-major within a group; Narayanan et al. 2021, section 2.2.2). With V = 1 the
 * groups do not show: visit k is microbatch k. */
#include "sim/families_internal.h"

size_t pp_put_visit(const pp_schedule_request *request, pp_schedule *schedule, size_t at,
                    pp_action_kind kind, int group, int p, int64_t k) {
    int64_t per_group = (int64_t)group * request->virtual_stages;
    int64_t first = k / per_group * group, rest = k % per_group;
    int64_t left = request->microbatches - first;
    int64_t size = left < group ? left : group;
    int chunk = (int)(rest / size), microbatch = (int)(first + rest % size);
    if (kind != PP_FORWARD) chunk = request->virtual_stages - 1 - chunk;
    return pp_put(schedule, at, kind, chunk * request->ranks + p, microbatch);
}

size_t pp_put_split_rank(const pp_schedule_request *request, pp_schedule *schedule, size_t at,
                         int group, int p, int64_t warm_up, int64_t lag) {
    int64_t total = (int64_t)request->microbatches * request->virtual_stages, weights = 0;
    if (warm_up > total) warm_up = total;
    for (int64_t k = 0; k < total + warm_up; k++) {
        if (k < total) at = pp_put_visit(request, schedule, at, PP_FORWARD, group, p, k);
        if (k < warm_up) continue;
        at = pp_put_visit(request, schedule, at, PP_INPUT, group, p, k - warm_up);
        if (k - warm_up >= lag)
            at = pp_put_visit(request, schedule, at, PP_WEIGHT, group, p, weights++);
    }
    while (weights < total)
        at = pp_put_visit(request, schedule, at, PP_WEIGHT, group, p, weights++);
    return at;
}
