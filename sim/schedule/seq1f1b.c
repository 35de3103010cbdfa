/* seq1f1b: 1F1B whose unit is a slice of a sequence rather than a microbatch (Sun et al. 2024,
 * "Seq1F1B: efficient sequence-level pipeline parallelism").
 *
 * Attention looks back, so the Q slices of a microbatch go forward in order and backward in
 * reverse: k-th forward is slice k mod Q of microbatch k/Q, k-th backward slice Q-1 - k mod Q.
 * Warm-up min(K-p-2+Q, MQ) forward slices: the first backward must have all Q slices behind it.
 * Holds about (K-p-1+Q)/Q microbatches instead of 1F1B's K-p. Q = 1 is 1F1B. */
#include "sim/families_internal.h"

static int slices_of(const pp_schedule_request *request) {
    return request->slices > 0 ? request->slices : 2;
}

pp_status pp_seq1f1b_validate(const pp_schedule_request *request, pp_error *error) {
    return pp_family_options(request, PP_TAKES_SLICES, error);
}

size_t pp_seq1f1b_count(const pp_schedule_request *request) {
    return pp_count_whole(request) * (size_t)slices_of(request);
}

static size_t put_slice(pp_schedule *schedule, size_t at, pp_action_kind kind, int p, int64_t k) {
    int slice = (int)(k % schedule->slices);
    at = pp_put(schedule, at, kind, p, (int)(k / schedule->slices));
    schedule->actions[at - 1].slice =
        (uint8_t)(kind == PP_FORWARD ? slice : schedule->slices - 1 - slice);
    return at;
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    int64_t total = (int64_t)request->microbatches * schedule->slices;
    int64_t warm_up = (int64_t)request->ranks - p - 2 + schedule->slices;
    if (warm_up > total) warm_up = total;
    for (int64_t k = 0; k < total + warm_up; k++) {
        if (k < total) at = put_slice(schedule, at, PP_FORWARD, p, k);
        if (k >= warm_up) at = put_slice(schedule, at, PP_BACKWARD, p, k - warm_up);
    }
    return at;
}

void pp_seq1f1b_build(const pp_schedule_request *request, pp_schedule *schedule) {
    schedule->slices = slices_of(request);
    pp_family_build_ranks(request, schedule, build_rank);
}
