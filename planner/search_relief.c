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
    double gain;   /* bytes that the rank needed less … */
    int round;     /* … when it was last looked at; -1: it never was */
    bool gone;     /* the stage repeats more by now */
} relief;

/* Those of a rank, in the order of its stages and of their time. */
typedef struct reliefs {
    pp_work *work;
    int rank, round, count;
    relief *all;
} reliefs;

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

static double cost_of(const reliefs *r, int stage, pp_recompute policy) {
    const pp_terms *terms = &r->work->terms;
    int first, last;
    pp_work_interval(r->work, r->work->trial, stage, &first, &last);
    return pp_terms_inside_s(terms, policy, stage, first, last) -
           pp_terms_inside_s(terms, terms->policies[stage], stage, first, last);
}

/* Counts the changes there are, and lists them where `all` is not NULL. */
static int list_reliefs(const reliefs *r, relief *all) {
    const pp_terms *terms = &r->work->terms;
    int count = 0;
    for (int s = 0; s < terms->stages; s++) {
        int first, last;
        if (pp_terms_copy_on(terms, s, r->rank) < 0) continue;
        pp_work_interval(r->work, r->work->trial, s, &first, &last);
        pp_recompute policy = terms->policies[s];
        while ((policy = pp_work_next_policy(policy, last - first + 1)) >= 0) {
            relief change = {.stage = s, .policy = policy, .round = -1};
            change.cost_s = cost_of(r, s, policy);
            if (all != NULL) all[count] = change;
            count++;
        }
    }
    return count;
}

/* What the rank needs less with the change than now. */
static void look_at(reliefs *r, relief *change, int64_t needed) {
    const size_t *first_action = r->work->order->first_action;
    put_policy(r->work, change->stage, change->policy);
    change->gain = (double)(needed - pp_work_rank_bytes(r->work, r->rank));
    change->round = r->round;
    put_policy(r->work, change->stage, r->work->terms.policies[change->stage]);
    r->work->effort += (double)(first_action[r->rank + 1] - first_action[r->rank]);
}

/* More of the bytes that are too many for its time; what was never looked at comes first. */
static bool is_better(const relief *a, const relief *b, double excess) {
    if (a->round < 0 || b->round < 0) return b->round >= 0;
    return fmin(a->gain, excess) * b->cost_s > fmin(b->gain, excess) * a->cost_s;
}

/* The best change. What was known of others in earlier rounds is taken for granted until they come
 * first: gains change little from one round to the next. NULL: none frees anything. */
static const relief *best_relief(reliefs *r, int64_t needed, int64_t limit) {
    for (;;) {
        relief *best = NULL;
        for (int i = 0; i < r->count; i++) {
            relief *change = &r->all[i];
            bool useless = change->round == r->round && change->gain <= 0;
            if (change->gone || useless) continue;
            if (best == NULL || is_better(change, best, (double)(needed - limit))) best = change;
        }
        if (best == NULL || best->round == r->round) return best;
        look_at(r, best, needed);
        if (r->work->failure != PP_OK) return NULL;
    }
}

static void take(reliefs *r, const relief *change) {
    int stage = change->stage;
    pp_recompute policy = change->policy;
    double cost_s = change->cost_s;
    r->work->terms.policies[stage] = policy;
    put_policy(r->work, stage, policy);
    bool beyond = false; /* the changes of a stage that come behind this one are left */
    for (int i = 0; i < r->count; i++) {
        relief *other = &r->all[i];
        if (other->stage != stage) continue;
        other->gone = !beyond;
        beyond = beyond || other->policy == policy;
        other->cost_s -= cost_s;
        other->round = -1;
    }
}

/* Has the rank's stages repeat more until they fit together, if that goes. */
static bool find_policies(pp_work *work, int rank) {
    reliefs r = {.work = work, .rank = rank};
    r.count = list_reliefs(&r, NULL);
    r.all = PP_NEW(&work->arena, relief, r.count + 1);
    if (r.all == NULL) {
        work->failure = PP_E_OUT_OF_MEMORY;
        return false;
    }
    list_reliefs(&r, r.all);
    for (;; r.round++) {
        int64_t needed = pp_work_rank_bytes(work, rank), limit = work->terms.limit_bytes[rank];
        if (needed <= limit) return true;
        const relief *best = best_relief(&r, needed, limit);
        if (best == NULL) return false;
        take(&r, best);
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
