/* hanayo: waves (Liu et al. 2023, "Hanayo: harnessing wave-like pipeline parallelism"). The stages
 * go down the ranks and back, V/2 times, so that a microbatch turns around without a transfer.
 * Small chunks make the way in and out short, as in interleaved, but no rank holds more than 1F1B's
 * first does: K activations of V chunks each.
 *
 * The order is a list scheduling (greedy.c) with B twice as long as F, the paper's assumption. The
 * urgency of an action is when it would run in an ideal wave: microbatches enter at a steady rate,
 * or K at a time, F takes so long for each stage, and so does B on the way back. Which wave is best
 * depends on V and M; a few are tried and the shortest is kept. */
#include "sim/families_internal.h"

/* An ideal wave, in half slots. A microbatch enters `microbatch` per chunk after the one before,
 * and `group` per stage more after each K of them; F takes `forward` for each stage; the way back
 * begins `turn` per stage after the microbatch entered, and takes `backward` for each. */
static const struct wave {
    int microbatch, group, forward, turn, backward;
} waves[] = {
    {3, 0, 2, 2, 4}, /* steady rate, half of the period: best for one wave */
    {1, 2, 3, 3, 4}, /* groups of K: best for several */
    {1, 2, 2, 3, 2},
    {2, 2, 3, 3, 4},
};

static int64_t urgency(const pp_greedy *rules, int s, bool forward, int m) {
    const struct wave *wave = &waves[rules->variant];
    int64_t stages = rules->limit, chunks = stages / rules->ranks;
    int64_t enters =
        wave->microbatch * chunks * m + wave->group * stages * (int64_t)(m / rules->ranks);
    if (forward) return enters + wave->forward * (int64_t)s;
    return enters + wave->turn * stages + wave->backward * (stages - 1 - s);
}

/* A place is kept for each later chunk of the rank that has none: else no microbatch could finish.
 */
static bool admits(const pp_greedy *rules, const pp_greedy_stage *stages,
                   const pp_greedy_rank *rank, int p, int v) {
    int ranks = rules->ranks, chunks = rules->limit / ranks, kept = 0;
    for (int u = v + 1; u < chunks; u++)
        kept += stages[u * ranks + (u % 2 == 0 ? p : ranks - 1 - p)].alive == 0;
    return rank->alive + 1 + kept <= rules->limit;
}

pp_status pp_hanayo_validate(const pp_schedule_request *request, pp_error *error) {
    PP_TRY(pp_family_options(request, PP_TAKES_VIRTUAL, error));
    if (request->virtual_stages % 2 == 0) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "-V",
                   "hanayo goes down the ranks and back: V is twice the number of waves, not %d",
                   request->virtual_stages);
}

void pp_hanayo_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_greedy rules = {.variant = -1,
                       .ranks = request->ranks,
                       .microbatches = request->microbatches,
                       .forward_slots = 1,
                       .backward_slots = 2,
                       .limit = schedule->stages,
                       .urgency = urgency,
                       .admits = admits};
    pp_greedy_build(&rules, sizeof waves / sizeof *waves, 3 * request->ranks, schedule);
}
