/* Orders made for real times within the memory of v-half and v-min. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>

COUNTED_SUITE(retimed);

/* The most chunks that any rank holds. */
static int fullest(const pp_schedule *schedule) {
    int most = 0;
    for (int p = 0; p < schedule->ranks; p++) {
        int alive = 0;
        for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++) {
            alive += schedule->actions[i].kind == PP_FORWARD;
            if (alive > most) most = alive;
            alive -= schedule->actions[i].kind == PP_WEIGHT;
        }
    }
    return most;
}

/* Never longer, no more than the fullest rank held, a schedule that the check accepts; often
 * shorter. */
Test(retimed, is_shorter_within_the_same_memory_or_nothing) {
    int shorter = 0, cases = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        dice d = {seed};
        pp_schedule_request request = {.name = dice_chance(&d, 2) ? "v-half" : "v-min",
                                       .ranks = 1 + dice_below(&d, 8),
                                       .microbatches = 1 + dice_below(&d, 16)};
        pp_schedule *published = build(request.name, request.ranks, request.microbatches);
        costs c = costs_uniform(published->stages, 0, 0, 0, dice_time(&d) / 20);
        for (int s = 0; s < published->stages; s++)
            c.stage[s] = (pp_stage_cost){.forward_s = 1 + dice_time(&d) / 10,
                                         .input_s = 1 + dice_time(&d) / 10,
                                         .weight_s = dice_time(&d) / 10};
        pp_sim_input input = input_of(published, &c);
        pp_schedule *better;
        pp_error error = {0};
        cr_assert_eq(pp_schedule_retime(&input, &request, &better, &error), PP_OK, "%s",
                     error.message);
        cases++;
        if (better) {
            shorter++;
            cr_assert_str_eq(better->name, published->name);
            cr_assert_eq(pp_schedule_check(better, false, NULL, &error), PP_OK, "%s",
                         error.message);
            cr_assert_leq(fullest(better), fullest(published), "seed %lu", seed);
            pp_sim_result *old = simulate(&input);
            input.schedule = better;
            pp_sim_result *made = simulate(&input);
            cr_assert_lt(made->makespan_s, old->makespan_s, "seed %lu", seed);
            pp_sim_result_free(old);
            pp_sim_result_free(made);
        }
        pp_schedule_free(better);
        pp_schedule_free(published);
        costs_free(&c);
    }
    cr_assert_gt(2 * shorter, cases, "%d of %d", shorter, cases);
}
