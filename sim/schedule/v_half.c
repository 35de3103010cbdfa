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
 * shortest for F = I = W is kept. */
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

/* ---- v-half -------------------------------------------------------------------------------- */

static int64_t half_urgency(const pp_greedy *rules, int s, bool forward, int m) {
    int k = rules->ranks, p = s < k ? s : 2 * k - 1 - s, d = k % 2 == 0 ? 3 : 0;
    int slot = s < k ? (forward ? 2 * p : 6 * k + d - p - 2)
                     : (forward ? 3 * k - p - 2 : 3 * k + d + 2 * p - 1);
    return 6 * (int64_t)m + slot;
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
    if (request->variant >= 0 && request->variant <= shares * WEIGHT_RULES) return PP_OK;
    return pp_fail(error, PP_E_INPUT, request->name, "variant %d, expected 0 to %d",
                   request->variant, shares * WEIGHT_RULES);
}

pp_status pp_v_half_validate(const pp_schedule_request *request, pp_error *error) {
    return validate(request, HALF_SHARES, error);
}

void pp_v_half_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_greedy rules = {
        .limit = 2 * ((request->ranks + 2) / 2), .urgency = half_urgency, .admits = half_admits};
    build(rules, HALF_SHARES, request, schedule);
}

/* ---- v-min --------------------------------------------------------------------------------- */

/* As if d were 3: as an order of urgency that is shorter than 0 and 2. */
static int64_t min_urgency(const pp_greedy *rules, int s, bool forward, int m) {
    int k = rules->ranks, p = s < k ? s : 2 * k - 1 - s, d = 3;
    int slot =
        s < k ? (forward ? p : 4 * k + d - p - 1) : (forward ? 2 * k - p - 1 : 2 * k + d + p);
    return 6 * (int64_t)m + slot;
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
    build(rules, MIN_SHARES, request, schedule);
}
