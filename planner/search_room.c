/* What a stage of a candidate needs of its rank's memory, and what it has to recompute for that. */
#include "planner/work_internal.h"

/* Of effort: a layer of the model while the memory of a stage is laid out. Of a chain few are,
 * since stages that look alike need the same. */
#define LAYOUT_EFFORT 25

/* The next three of one copy. The same sum as the simulator's: what lies there all the time, and
 * the activations. */
static int64_t add_up(const pp_work *work, int stage, const pp_stage_bytes *bytes) {
    return bytes->parameters + bytes->gradients + bytes->optimizer + bytes->reduction +
           bytes->workspace + bytes->input * work->input_slots[stage] +
           bytes->output_gradient * work->gradient_slots[stage] +
           bytes->activation * work->alive[stage];
}

static int64_t follow(pp_work *work, int stage, const pp_stage_bytes *bytes) {
    work->probe[stage] = *bytes;
    pp_peak_bytes peak = pp_rank_peak_bytes(work->order, work->order->placement[stage], work->probe,
                                            work->input_slots, work->gradient_slots, NULL);
    work->probe[stage] = (pp_stage_bytes){0};
    return peak.total >= 0 ? peak.total : INT64_MAX;
}

/* `dropped`: less than under any policy that repeats more than this one, since that keeps less of
 * what F saves, and no less of the rest. */
static int64_t find_need(pp_work *work, pp_recompute policy, bool dropped, int stage, int first,
                         int last) {
    pp_footprint_mode mode = work->terms.mode;
    mode.recompute = policy;
    uint64_t kind = pp_footprint_kind(work->footprints, first, last), how = 2 * (uint64_t)policy;
    uint64_t key = pp_mix64(pp_mix64(kind, (uint64_t)work->alike[stage]), how + dropped) | 1;
    int64_t need;
    if (pp_memo_find(&work->needs, key, &need)) return need;
    if (work->tables->lattice != NULL) work->effort += LAYOUT_EFFORT * work->tables->layers;
    const pp_stage_bytes *known = pp_footprint(work->footprints, first, last, mode);
    if (known == NULL) {
        work->failure = PP_E_OUT_OF_MEMORY;
        return INT64_MAX;
    }
    pp_stage_bytes bytes = *known;
    if (dropped) bytes.activation = bytes.released_by_input = 0;
    bool simple = work->alive[stage] > 0 && bytes.checkpoint == 0;
    need = simple ? add_up(work, stage, &bytes) : follow(work, stage, &bytes);
    pp_memo_put(&work->needs, key, need);
    return need;
}

int64_t pp_work_need_under(pp_work *work, pp_recompute policy, int stage, int first, int last) {
    return find_need(work, policy, false, stage, first, last);
}

pp_recompute pp_work_next_policy(pp_recompute policy, int layers) {
    if (policy == PP_RECOMPUTE_NONE) return PP_RECOMPUTE_ATTENTION;
    if (policy == PP_RECOMPUTE_ATTENTION) return PP_RECOMPUTE_EVERY + layers;
    int group = pp_recompute_group(policy), groups = (layers + group - 1) / group + 1;
    int smaller = (layers + groups - 1) / groups;
    if (group == 1) return -1;
    return PP_RECOMPUTE_EVERY + (smaller < group ? smaller : group - 1);
}

/* What the stage may use of the rank of a copy. */
static int64_t limit_of(const pp_work *work, int copy) {
    return work->terms.limit_bytes[work->terms.placement[copy]] / work->share;
}

bool pp_work_is_beyond_policies(pp_work *work, int stage, int first, int last) {
    if (work->candidate->recompute != PP_RECOMPUTE_MIXED) return false;
    for (int copy = stage; copy < work->terms.copies; copy += work->terms.stages) {
        int64_t least = find_need(work, work->terms.others, true, copy, first, last);
        if (least > limit_of(work, copy)) return true;
    }
    return false;
}

/* By how much the copy with least to spare needs more than it may use, and what it needs. */
static int64_t excess_under(pp_work *work, pp_recompute policy, int stage, int first, int last,
                            int64_t *need) {
    int64_t most = INT64_MIN;
    for (int copy = stage; copy < work->terms.copies; copy += work->terms.stages) {
        int64_t bytes = pp_work_need_under(work, policy, copy, first, last);
        int64_t excess = bytes - limit_of(work, copy);
        if (excess <= most) continue;
        most = excess;
        *need = bytes;
    }
    return most;
}

pp_recompute pp_work_choose_policy(pp_work *work, int stage, int first, int last, int64_t *need,
                                   int64_t *excess) {
    pp_recompute policy = work->terms.others, leanest = policy;
    *excess = excess_under(work, policy, stage, first, last, need);
    if (work->candidate->recompute != PP_RECOMPUTE_MIXED) return policy;
    while (*excess > 0 && work->failure == PP_OK) {
        policy = pp_work_next_policy(policy, last - first + 1);
        if (policy < 0) break;
        int64_t bytes = 0, other = excess_under(work, policy, stage, first, last, &bytes);
        if (other >= *excess) continue;
        *excess = other;
        *need = bytes;
        leanest = policy;
    }
    return leanest;
}

pp_recompute pp_work_policy(pp_work *work, int stage, int first, int last, int64_t *need) {
    int64_t excess;
    return pp_work_choose_policy(work, stage, first, last, need, &excess);
}

int64_t pp_work_excess(pp_work *work, int stage, int first, int last) {
    int64_t need, excess;
    pp_work_choose_policy(work, stage, first, last, &need, &excess);
    return excess;
}

int64_t pp_work_need(pp_work *work, int stage, int first, int last) {
    int64_t need;
    pp_work_policy(work, stage, first, last, &need);
    return need;
}

/* No layout without recomputation needs more: all that is held; the largest buffer that a reduction
 * takes; for every microbatch in flight all tensors of the layers, and where W comes later than I
 * the gradients that it multiplies with; the slots; and once more for what is at work all tensors,
 * their gradients and transients, and all that crosses the borders. Each of a border's tensors may
 * begin at a multiple of 64. */
static double most_bytes(const pp_work *work, int stage, int first, int last) {
    const pp_timing *timing = work->terms.timing;
    const pp_weights *weights = timing->division.weights;
    double alive = work->alive[stage] > 0 ? work->alive[stage] : work->candidate->microbatches;
    double held = (double)(weights->held_bytes[last + 1] - weights->held_bytes[first]);
    double tensors = (double)(timing->tensor_bytes[last + 1] - timing->tensor_bytes[first]);
    double rounded = 64.0 * work->views->base->layers;
    double before = (double)timing->border_bytes[first] + rounded;
    double behind = (double)timing->border_bytes[last + 1] + rounded;
    double each = work->alive[stage] > 0 ? tensors : 2 * tensors + before + behind;
    return held + (1 << 20) + alive * each + work->input_slots[stage] * before +
           work->gradient_slots[stage] * behind + 3 * tensors + before + behind;
}

bool pp_work_has_room(const pp_work *work, int stage, int first, int last) {
    for (int copy = stage; copy < work->terms.copies; copy += work->terms.stages)
        if (most_bytes(work, copy, first, last) > (double)limit_of(work, copy)) return false;
    return true;
}

bool pp_work_fits(pp_work *work, int stage, int first, int last) {
    const pp_terms *terms = &work->terms;
    if (pp_bound_bytes(terms, first, last) > pp_terms_limit(terms, stage) / work->share)
        return false;
    if (pp_work_has_room(work, stage, first, last)) return true;
    return !pp_work_is_beyond_policies(work, stage, first, last) &&
           pp_work_excess(work, stage, first, last) <= 0;
}
