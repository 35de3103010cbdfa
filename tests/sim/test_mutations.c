/* A hundred thousand damaged schedules: the check, a walk over all interleavings and the engines
 * say the same of each. */
#include "fixtures.h"
#include "tests/core/schedule_explorer.h"
#include "tests/core/schedule_samples.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>

COUNTED_SUITE(mutations);

enum { CASES = 100000 };

typedef struct verdicts {
    explored truth;
    pp_status checked, timed;
} verdicts;

static pp_status time_it(const pp_schedule *schedule, bool blocking, bool general) {
    costs c = costs_uniform(schedule->stages, 1, 1, 1, 0.5);
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *result = NULL;
    input.blocking = blocking;
    input.general = general;
    pp_status status = pp_simulate(&input, &result, NULL);
    pp_sim_result_free(result);
    costs_free(&c);
    return status;
}

/* The engine takes orders in which actions are missing, and does not look at transfers unless it
 * blocks; all else must agree. */
static void compare(const pp_schedule *schedule, bool blocking, uint64_t seed, int seen[5]) {
    verdicts v = {.truth = explore(schedule, blocking),
                  .checked = pp_schedule_check(schedule, blocking, NULL, NULL)};
    v.timed = time_it(schedule, blocking, seed % 2);
    seen[v.truth]++;
    bool agrees = true;
    switch (v.truth) {
    case EXPLORED_FINISHES:
        agrees = v.checked == PP_OK && v.timed == PP_OK;
        break;
    case EXPLORED_HANGS:
        agrees = v.checked == PP_E_DEADLOCK &&
                 (v.timed != PP_OK || (schedule->has_transfers && !blocking));
        break;
    case EXPLORED_INCOMPLETE:
        agrees = v.checked == PP_E_INPUT && (!blocking || v.timed == PP_E_INPUT);
        break;
    case EXPLORED_MISMATCH:
        agrees = v.checked != PP_OK && (!blocking || v.timed == v.checked);
        break;
    case EXPLORED_TOO_LARGE:
        agrees = (v.checked != PP_OK || v.timed == PP_OK) &&
                 (v.timed != PP_E_DEADLOCK || v.checked != PP_OK);
        break;
    }
    if (agrees) return;
    pp_text text = {0};
    pp_schedule_write_csv(schedule, &text);
    cr_assert_fail("seed %llu blocking %d: explored %d, checked %d, timed %d\n%s",
                   (unsigned long long)seed, blocking, v.truth, v.checked, v.timed, text.bytes);
}

Test(mutations, check_explorer_and_engines_agree_on_a_hundred_thousand, .timeout = 300) {
    int seen[5] = {0};
    for (uint64_t seed = 1; seed <= CASES; seed++) {
        uint64_t random = seed;
        sample order = sample_random(seed, seed % 200 ? 2 : 3, seed % 10 < 7 ? 1 : 2);
        sample lowered[] = {sample_lower_naive(&order), sample_lower_round_robin(&order)};
        sample *chosen = seed % 3 == 0 ? &order : &lowered[seed % 2];
        for (int i = sample_below(&random, 3); i >= 0; i--) sample_damage(chosen, &random);
        pp_schedule *schedule = sample_build(chosen);
        compare(schedule, schedule->has_transfers && seed % 2, seed, seen);
        pp_schedule_free(schedule);
        sample_free(&order);
        sample_free(&lowered[0]);
        sample_free(&lowered[1]);
    }
    for (int i = EXPLORED_FINISHES; i <= EXPLORED_MISMATCH; i++)
        cr_expect_gt(seen[i], 1000, "verdict %d: %d", i, seen[i]);
    cr_expect_lt(seen[EXPLORED_TOO_LARGE], CASES / 100, "%d", seen[EXPLORED_TOO_LARGE]);
}
