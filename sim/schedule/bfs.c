/* bfs: looped breadth-first (Lamy-Poirier 2023, "Breadth-first pipeline parallelism"): all M
 * microbatches pass chunk 0, then all pass chunk 1 and so on; the backward goes through the chunks
 * in reverse and, as in PyTorch's LoopedBFS, starts with the last microbatch. Holds M·V
 * activations of chunks. */
#include "sim/families_internal.h"

#include <math.h>

pp_status pp_bfs_validate(const pp_schedule_request *request, pp_error *error) {
    return pp_family_options(request, PP_TAKES_VIRTUAL, error);
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    for (int v = 0; v < request->virtual_stages; v++)
        for (int m = 0; m < request->microbatches; m++)
            at = pp_put(schedule, at, PP_FORWARD, v * request->ranks + p, m);
    for (int v = request->virtual_stages - 1; v >= 0; v--)
        for (int m = request->microbatches - 1; m >= 0; m--)
            at = pp_put(schedule, at, PP_BACKWARD, v * request->ranks + p, m);
    return at;
}

void pp_bfs_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_rank);
}

/* (K-1) / (MV+K-1) for M >= K: below, a microbatch comes back to its rank before the rank is done
 * with the others, and waits. */
double pp_bfs_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    if (!pp_family_uniform_domain(request, cost)) return NAN;
    if (request->microbatches < request->ranks) return NAN;
    double ranks = request->ranks;
    double visits = (double)request->microbatches * request->virtual_stages;
    return (ranks - 1) / (visits + ranks - 1);
}
