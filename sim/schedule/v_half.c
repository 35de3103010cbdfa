/* v-half and v-min: half and a third of 1F1B's activation memory on a V-shaped placement (Qi et al.
 * 2024, "Pipeline parallelism with controllable memory", sections 3 and 4).
 *
 * Rank p holds stages p (chunk 0) and 2K-1-p (chunk 1). With F, I and W of one slot, microbatch m
 * runs F0, F1, I1, I0 on rank p in slots 6m plus
 *
 *   v-half   2p, 3K-p-2, 3K+d+2p-1, 6K+d-p-2    d = 3 if K is even, else 0
 *   v-min    p, 2K-p-1, 2K+d+p, 4K+d-p-1        d = 2 if 3 divides K, else 0
 *
 * which never meet on a rank, and W fills the two slots of six that are left. Repeated as it is,
 * the pattern has a long way in and out. The paper then moves actions into earlier gaps as memory
 * allows, and runs them eagerly. Here the pattern is what urgency means in a list scheduling
 * (greedy.c) under the same memory: at most P = 2·((K+2)/2) chunks on a rank, or 2·((K+4)/3).
 *
 * How much of P chunk 0 may take, and when W goes before F, is tried in a few variants; the
 * shortest for F = I = W is kept. The last variant is the pattern as it is. */
#include "sim/families_internal.h"

/* When W goes before an F that is ready: with the rank all but full, never, before F0. */
enum weight_rule { WHEN_FULL, NEVER, BEFORE_CHUNK_0, WEIGHT_RULES };

static bool weight_first(const pp_greedy *rules, const pp_greedy_rank *rank, int s) {
    switch (rules->variant % WEIGHT_RULES) {
    case WHEN_FULL:
        return rank->alive >= rules->limit - 1;
    case BEFORE_CHUNK_0:
        return s < rules->ranks;
    default:
        return false;
    }
}

/* F0 may not take the last place unless chunk 1 has one, or else no microbatch could finish. */
static bool admits_within(const pp_greedy *rules, const pp_greedy_stage *stages,
                          const pp_greedy_rank *rank, int p, int v, int share) {
    if (rank->alive >= rules->limit) return false;
    if (v == 1) return true;
    bool last_place = rank->alive + 1 == rules->limit;
    bool chunk_1_has_one = stages[2 * rules->ranks - 1 - p].alive > 0;
    return stages[p].alive < share && (!last_place || chunk_1_has_one);
}

/* Chunks that the pattern holds of chunk 0, which lives for so many slots of every six. */
static int places_of(int slots) {
    return (slots + 5) / 6;
}

static void build(pp_greedy rules, int shares, const pp_schedule_request *request,
                  pp_schedule *schedule) {
    rules.ranks = request->ranks;
    rules.microbatches = request->microbatches;
    rules.forward_slots = rules.backward_slots = rules.weight_slots = 1;
    rules.weight_first = weight_first;
    rules.variant = request->variant - 1;
    pp_greedy_build(&rules, shares * WEIGHT_RULES, 3 * request->ranks, schedule);
}

static bool is_pattern(const pp_schedule_request *request, int shares) {
    return request->variant == shares * WEIGHT_RULES + 1;
}

/* F0, F1, I1, I0 of microbatch m on a rank are in slots slot[0 … 3] + 6m; the oldest W of a rank is
 * in each slot that is left. */
static size_t put_pattern(pp_schedule *schedule, size_t at, int p, const int slot[4]) {
    static const struct {
        pp_action_kind kind;
        int chunk;
    } visits[4] = {{PP_FORWARD, 0}, {PP_FORWARD, 1}, {PP_INPUT, 1}, {PP_INPUT, 0}};
    pp_two_chunks rank = {.schedule = schedule, .at = at, .stage = {p, schedule->stages - 1 - p}};
    int m = schedule->microbatches;
    size_t owed = at; /* I before this place have their W */
    for (int t = 0; rank.at < at + 6 * (size_t)m; t++) {
        int j = 0;
        while (j < 4 && (t < slot[j] || (t - slot[j]) % 6 != 0 || (t - slot[j]) / 6 >= m)) j++;
        while (j == 4 && owed < rank.at && schedule->actions[owed].kind != PP_INPUT) owed++;
        if (j < 4)
            pp_put_next(&rank, visits[j].kind, visits[j].chunk);
        else if (owed < rank.at)
            pp_put_next(&rank, PP_WEIGHT, schedule->actions[owed++].stage != p);
    }
    return rank.at;
}

/* ---- v-half -------------------------------------------------------------------------------- */

static int half_slot(int k, int s, bool forward) {
    int p = s < k ? s : 2 * k - 1 - s, d = k % 2 == 0 ? 3 : 0;
    return s < k ? (forward ? 2 * p : 6 * k + d - p - 2)
                 : (forward ? 3 * k - p - 2 : 3 * k + d + 2 * p - 1);
}

static int64_t half_urgency(const pp_greedy *rules, int s, bool forward, int m) {
    return 6 * (int64_t)m + half_slot(rules->ranks, s, forward);
}

static size_t put_half(const pp_schedule_request *request, pp_schedule *schedule, int p,
                       size_t at) {
    int k = request->ranks, last = 2 * k - 1 - p;
    return put_pattern(schedule, at, p,
                       (int[]){half_slot(k, p, true), half_slot(k, last, true),
                               half_slot(k, last, false), half_slot(k, p, false)});
}

static bool half_admits(const pp_greedy *rules, const pp_greedy_stage *stages,
                        const pp_greedy_rank *rank, int p, int v) {
    int k = rules->ranks, d = k % 2 == 0 ? 3 : 0;
    int share = places_of(6 * k + d - 3 * p - 1);
    if (rules->variant >= WEIGHT_RULES) share = rules->limit;
    return admits_within(rules, stages, rank, p, v, share);
}

enum { HALF_SHARES = 2, MIN_SHARES = 3 };

static pp_status validate(const pp_schedule_request *request, int shares, pp_error *error) {
    PP_TRY(pp_family_vshape(request, error));
    if (request->variant >= 0 && request->variant <= shares * WEIGHT_RULES + 1) return PP_OK;
    return pp_fail(error, PP_E_INPUT, request->name, "variant %d, expected 0 to %d",
                   request->variant, shares * WEIGHT_RULES + 1);
}

pp_status pp_v_half_validate(const pp_schedule_request *request, pp_error *error) {
    return validate(request, HALF_SHARES, error);
}

void pp_v_half_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_greedy rules = {
        .limit = 2 * ((request->ranks + 2) / 2), .urgency = half_urgency, .admits = half_admits};
    if (is_pattern(request, HALF_SHARES))
        pp_family_build_ranks(request, schedule, put_half);
    else
        build(rules, HALF_SHARES, request, schedule);
}

/* ---- v-min --------------------------------------------------------------------------------- */

static int min_slot(int k, int d, int s, bool forward) {
    int p = s < k ? s : 2 * k - 1 - s;
    return s < k ? (forward ? p : 4 * k + d - p - 1) : (forward ? 2 * k - p - 1 : 2 * k + d + p);
}

/* As if d were 3: as an order of urgency that is shorter than 0 and 2. */
static int64_t min_urgency(const pp_greedy *rules, int s, bool forward, int m) {
    return 6 * (int64_t)m + min_slot(rules->ranks, 3, s, forward);
}

static size_t put_min(const pp_schedule_request *request, pp_schedule *schedule, int p, size_t at) {
    int k = request->ranks, last = 2 * k - 1 - p, d = k % 3 == 0 ? 2 : 0;
    return put_pattern(schedule, at, p,
                       (int[]){min_slot(k, d, p, true), min_slot(k, d, last, true),
                               min_slot(k, d, last, false), min_slot(k, d, p, false)});
}

/* One place more than the pattern; the same once the first microbatch is back; any number. */
static bool min_admits(const pp_greedy *rules, const pp_greedy_stage *stages,
                       const pp_greedy_rank *rank, int p, int v) {
    int k = rules->ranks, d = k % 3 == 0 ? 2 : 0;
    int share = places_of(4 * k + d - 2 * p) + 1;
    if (rules->variant / WEIGHT_RULES == 1 && stages[p].backwards_done == 0) share--;
    if (rules->variant / WEIGHT_RULES == 2) share = rules->limit;
    return admits_within(rules, stages, rank, p, v, share);
}

pp_status pp_v_min_validate(const pp_schedule_request *request, pp_error *error) {
    return validate(request, MIN_SHARES, error);
}

void pp_v_min_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_greedy rules = {
        .limit = 2 * ((request->ranks + 4) / 3), .urgency = min_urgency, .admits = min_admits};
    if (is_pattern(request, MIN_SHARES))
        pp_family_build_ranks(request, schedule, put_min);
    else
        build(rules, MIN_SHARES, request, schedule);
}
