/* pytorch-interleaved-zb: ScheduleInterleavedZeroBubble of torch.distributed.pipelining, for plans
 * that travel there.
 *
 * Interleaved chunks in PyTorch's rounds with the backward split: warm-up (V-1)G + K-1-p, half of
 * interleaved's, and W runs p visits behind I. With V = 1 it is zb-h1. */
#include "sim/families_internal.h"

pp_status pp_pytorch_zb_validate(const pp_schedule_request *request, pp_error *error) {
    PP_TRY(pp_family_options(request, PP_TAKES_VIRTUAL, error));
    if (pp_rounds_group(request) > 0) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "-M",
                   "%s needs equal rounds: %d / %d rounded down does not divide %d; take a "
                   "multiple of %d",
                   request->name, request->microbatches, request->ranks, request->microbatches,
                   request->ranks);
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    int group = pp_rounds_group(request);
    int64_t warm_up = (int64_t)(request->virtual_stages - 1) * group + request->ranks - 1 - p;
    return pp_put_split_rank(request, schedule, at, group, p, warm_up, p);
}

void pp_pytorch_zb_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_rank);
}
