/* Several stages on a rank: what each repeats so that they fit together.
 *
 * Alone every stage repeats as little as its rank's memory allows. Where that is too much together,
 * one after the other repeats more: of all changes of one stage the one that frees most of the
 * bytes that are too many for its time, until the rank holds them. What is found need not be the
 * best, so work->shared says that there may be better policies. */
#include <math.h>
#include <string.h>

#include "planner/planner_internal.h"

/* A change of what one stage repeats. */
typedef struct relief {
    int stage;
    pp_recompute policy;
    double cost_s; /* of a microbatch, beyond what the stage repeats now */
    int64_t bytes; /* that the rank needs then */
} relief;

/* Puts a policy's bytes into every copy of a stage of the plan. */
static void put_policy(pp_work *work, int stage, pp_recompute policy) {
    const pp_terms *terms = &work->terms;
    pp_footprint_mode mode = terms->mode;
    int first, last;
    mode.recompute = policy;
    pp_work_interval(work, work->trial, stage, &first, &last);
    const pp_stage_bytes *bytes = pp_footprint(work->footprints, first, last, mode);
    if (bytes == NULL) work->failure = PP_E_OUT_OF_MEMORY;
    for (int copy = stage; copy < terms->copies && bytes != NULL; copy += terms->stages)
        work->plan.stages[copy].bytes = *bytes;
}

/* More of the bytes that are too many for its time. */
static bool is_better(const relief *a, const relief *b, int64_t needed, int64_t limit) {
    double gain = fmin((double)(needed - a->bytes), (double)(needed - limit));
    double other_gain = fmin((double)(needed - b->bytes), (double)(needed - limit));
    return gain * b->cost_s > other_gain * a->cost_s;
}

/* Looks through what the stage could repeat beyond its policy. */
static void look_for_relief(pp_work *work, int rank, int stage, int64_t needed, relief *best) {
    const pp_terms *terms = &work->terms;
    pp_recompute now = terms->policies[stage], policy = now;
    int64_t limit = terms->limit_bytes[rank];
    int first, last;
    pp_work_interval(work, work->trial, stage, &first, &last);
    double before = pp_terms_inside_s(terms, now, stage, first, last);
    while ((policy = pp_work_next_policy(policy, last - first + 1)) >= 0 &&
           work->failure == PP_OK) {
        put_policy(work, stage, policy);
        relief found = {.stage = stage,
                        .policy = policy,
                        .cost_s = pp_terms_inside_s(terms, policy, stage, first, last) - before,
                        .bytes = pp_work_rank_bytes(work, rank)};
        if (found.bytes >= needed) continue;
        if (best->stage < 0 || is_better(&found, best, needed, limit)) *best = found;
    }
    put_policy(work, stage, now);
}

/* Has the rank's stages repeat more until they fit together, if that goes. */
static bool find_policies(pp_work *work, int rank) {
    const pp_terms *terms = &work->terms;
    const size_t *first_action = work->order->first_action;
    for (;;) {
        int64_t needed = pp_work_rank_bytes(work, rank);
        relief best = {.stage = -1};
        if (needed <= terms->limit_bytes[rank]) return true;
        for (int s = 0; s < terms->stages; s++) {
            if (pp_terms_copy_on(terms, s, rank) < 0) continue;
            look_for_relief(work, rank, s, needed, &best);
            work->effort += (double)(first_action[rank + 1] - first_action[rank]);
        }
        if (best.stage < 0 || work->failure != PP_OK) return false;
        terms->policies[best.stage] = best.policy;
        put_policy(work, best.stage, best.policy);
    }
}

/* What a rank's policies follow from: its stages, and what they would repeat alone. */
static uint64_t policies_key(pp_work *work, int rank) {
    const pp_terms *terms = &work->terms;
    uint64_t key = pp_mix64(UINT64_C(0x706f6c6963696573), (uint64_t)rank);
    for (int s = 0; s < terms->stages; s++) {
        int first, last;
        if (pp_terms_copy_on(terms, s, rank) < 0) continue;
        pp_work_interval(work, work->trial, s, &first, &last);
        key = pp_mix64(key, pp_footprint_kind(work->footprints, first, last));
        key = pp_mix64(key, (uint64_t)terms->policies[s]);
    }
    return key | 1;
}

/* The same, looked up where it is known: moves of a split leave most ranks as they are. */
static bool relieve_rank(pp_work *work, int rank) {
    const pp_terms *terms = &work->terms;
    if (pp_work_rank_bytes(work, rank) <= terms->limit_bytes[rank]) return true;
    uint64_t key = policies_key(work, rank);
    int64_t known;
    if (!pp_memo_find(&work->needs, key, &known)) {
        if (!find_policies(work, rank)) return false;
        pp_recompute *policies = PP_NEW(&work->arena, pp_recompute, terms->stages);
        if (policies != NULL)
            memcpy(policies, terms->policies, (size_t)terms->stages * sizeof *policies);
        if (policies == NULL || !pp_memo_put(&work->needs, key, (int64_t)(intptr_t)policies))
            work->failure = PP_E_OUT_OF_MEMORY;
        return work->failure == PP_OK;
    }
    const pp_recompute *policies = (const pp_recompute *)(intptr_t)known;
    for (int s = 0; s < terms->stages; s++) {
        if (pp_terms_copy_on(terms, s, rank) < 0) continue;
        terms->policies[s] = policies[s];
        put_policy(work, s, policies[s]);
    }
    return work->failure == PP_OK;
}

bool pp_work_relieve(pp_work *work) {
    for (int p = 0; p < work->terms.ranks; p++)
        if (!relieve_rank(work, p)) return false;
    return true;
}
