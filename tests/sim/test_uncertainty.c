/* Replications and sensitivity. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

COUNTED_SUITE(uncertainty);

static pp_replications *replicate(const pp_sim_input *input, int count, uint64_t seed) {
    pp_replications *result;
    pp_error error = {0};
    cr_assert_eq(pp_simulate_replications(input, count, seed, &result, &error), PP_OK, "%s: %s",
                 error.place, error.message);
    return result;
}

static pp_sensitivity *measure(const pp_sim_input *input, const pp_schedule *other) {
    pp_sensitivity *result;
    pp_error error = {0};
    cr_assert_eq(pp_measure_sensitivity(input, other, &result, &error), PP_OK, "%s: %s",
                 error.place, error.message);
    return result;
}

/* ---- replications -------------------------------------------------------------------------- */

Test(uncertainty, without_jitter_all_replications_are_the_step) {
    pp_schedule *schedule = build("1f1b", 4, 8);
    costs c = costs_uniform(4, 1, 2, 3, 0.25);
    pp_slow_rank(schedule, 2, 3, c.stage);
    cr_assert(c.stage[2].weight_s == 9 && c.stage[1].weight_s == 3);
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *step = simulate(&input);
    pp_replications *many = replicate(&input, 3, 1);
    cr_assert(many->makespan_s.p5 == step->makespan_s && many->makespan_s.p95 == step->makespan_s);
    cr_assert_eq(many->bubble_fraction.p50, step->bubble_fraction);
    for (int p = 0; p < 4; p++) cr_assert_eq(many->critical[p], p == 2, "rank %d", p);
    pp_replications_free(many);
    pp_sim_result_free(step);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* One rank: the step is the sum of its draws, whose mean and deviation are those asked for. */
Test(uncertainty, draws_have_the_mean_and_the_spread_asked_for) {
    enum { M = 2000, COUNT = 200 };
    pp_schedule *schedule = build("1f1b", 1, M);
    costs c = costs_uniform(1, 2, 1, 1, 0);
    pp_sim_input input = input_of(schedule, &c);
    input.jitter = 0.4;
    double sum = 0, squares = 0;
    for (int i = 0; i < COUNT; i++) {
        input.jitter_key = pp_random_key_make(7, "draws", (uint64_t)i);
        pp_sim_result *result = simulate(&input);
        cr_assert_eq(result->lower_bound_s, 0, "nothing is known");
        sum += result->makespan_s;
        squares += result->makespan_s * result->makespan_s;
        pp_sim_result_free(result);
    }
    double mean = sum / COUNT, deviation = sqrt(squares / COUNT - mean * mean);
    double expected = sqrt(2.0 * M) * 2 * 0.4; /* 2M draws of mean 2 */
    cr_assert_float_eq(mean, 4.0 * M, 5 * expected / sqrt(COUNT), "mean %g", mean);
    cr_assert_float_eq(deviation, expected, 0.25 * expected, "deviation %g", deviation);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(uncertainty, equal_seeds_give_equal_results) {
    pp_schedule *schedule = build("1f1b", 4, 8);
    costs c = costs_uniform(4, 1, 1, 1, 0.1);
    pp_sim_input input = input_of(schedule, &c);
    input.jitter = 0.2;
    pp_replications *one = replicate(&input, 64, 1), *same = replicate(&input, 64, 1);
    pp_replications *other = replicate(&input, 64, 2);
    cr_assert_eq(memcmp(&one->makespan_s, &same->makespan_s, sizeof one->makespan_s), 0);
    cr_assert_neq(one->makespan_s.p50, other->makespan_s.p50);
    cr_assert(one->makespan_s.p5 < one->makespan_s.p50 &&
              one->makespan_s.p50 < one->makespan_s.p95);
    cr_assert(one->bubble_fraction.p5 < one->bubble_fraction.p95);
    double shares = 0;
    for (int p = 0; p < 4; p++) {
        cr_assert_eq(one->critical[p], same->critical[p]);
        shares += one->critical[p];
    }
    cr_assert_float_eq(shares, 1, 1e-12);
    /* waiting for the slowest of several costs: the mean step is longer than the step of means */
    input.jitter = 0;
    pp_sim_result *even = simulate(&input);
    cr_assert_gt(one->makespan_s.p50, even->makespan_s);
    pp_sim_result_free(even);
    pp_replications_free(one);
    pp_replications_free(same);
    pp_replications_free(other);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* ---- samples ------------------------------------------------------------------------------- */

/* One rank, one microbatch: F of 10, of which a layer with half of the time was measured as 1 or 3
 * times its share; I of 2 and W of 6 vary in W alone. */
Test(uncertainty, durations_are_drawn_from_samples_as_often_as_they_were_seen) {
    pp_schedule *schedule = build("1f1b", 1, 1);
    costs c = costs_uniform(1, 10, 2, 6, 0);
    const double often[] = {1, 1, 1, 3}, twice[] = {2};
    const pp_sim_part forward[2] = {{.share = 0.5, .relative = often, .count = 4}, {.share = 0.5}};
    const pp_sim_part input[2] = {{0}}, weight[2] = {{.share = 1, .relative = twice, .count = 1}};
    const pp_sim_draws draws = {{{forward, 2}, {input, 2}, {weight, 2}}};
    pp_sim_input in = input_of(schedule, &c);
    in.draws = &draws;
    int slow = 0, count = 4000;
    for (int i = 0; i < count; i++) {
        in.jitter_key = pp_random_key_make(11, "draws", (uint64_t)i);
        pp_sim_result *result = simulate(&in);
        double forward_s = result->makespan_s - (2 + 12);
        cr_assert(forward_s == 10 || forward_s == 20, "%g", forward_s);
        slow += forward_s == 20;
        cr_assert_eq(result->lower_bound_s, 0);
        pp_sim_result_free(result);
    }
    cr_assert(abs(slow - count / 4) < 150, "%d of %d, expected a quarter", slow, count);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(uncertainty, samples_are_drawn_by_action_and_seed_alone) {
    pp_schedule *schedule = build("1f1b", 3, 6);
    costs c = costs_uniform(3, 2, 1, 1, 0.25);
    const double seen[] = {0.5, 0.75, 1, 1.25, 4};
    const pp_sim_part part[1] = {{.share = 1, .relative = seen, .count = 5}};
    const pp_sim_draws draws[3] = {{{{part, 1}, {part, 1}, {part, 1}}},
                                   {{{part, 1}, {part, 1}, {part, 1}}},
                                   {{{part, 1}, {part, 1}, {part, 1}}}};
    pp_sim_input input = input_of(schedule, &c);
    input.draws = draws;
    pp_replications *one = replicate(&input, 64, 1);
    input.general = true;
    pp_replications *same = replicate(&input, 64, 1), *other = replicate(&input, 64, 2);
    cr_assert_eq(memcmp(&one->makespan_s, &same->makespan_s, sizeof one->makespan_s), 0);
    cr_assert_neq(one->makespan_s.p50, other->makespan_s.p50);
    cr_assert_lt(one->makespan_s.p5, one->makespan_s.p95);
    pp_replications_free(one);
    pp_replications_free(same);
    pp_replications_free(other);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(uncertainty, samples_that_cannot_be_are_refused) {
    pp_schedule *schedule = build("1f1b", 1, 1);
    costs c = costs_uniform(1, 1, 1, 1, 0);
    double value[] = {-1};
    pp_sim_part parts[2] = {{.share = 0.5, .relative = value, .count = 1}, {.share = 0.5}};
    const pp_sim_draws draws = {{{parts, 2}, {parts, 2}, {parts, 2}}};
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *result;
    input.draws = &draws;
    cr_assert_eq(pp_simulate(&input, &result, NULL), PP_E_INPUT);
    value[0] = NAN;
    cr_assert_eq(pp_simulate(&input, &result, NULL), PP_E_INPUT);
    value[0] = 1, parts[1].share = 0.75;
    cr_assert_eq(pp_simulate(&input, &result, NULL), PP_E_INPUT);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(uncertainty, a_number_of_replications_out_of_range_is_refused) {
    pp_schedule *schedule = build("1f1b", 2, 2);
    costs c = costs_uniform(2, 1, 1, 1, 0);
    pp_sim_input input = input_of(schedule, &c);
    pp_replications *result;
    pp_error error = {0};
    const int bad[] = {0, -5, PP_REPLICATIONS_MAX + 1};
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pp_simulate_replications(&input, bad[i], 1, &result, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "expected 1 to 1000000"), "%s", error.message);
    input.jitter = NAN;
    cr_assert_eq(pp_simulate_replications(&input, 2, 1, &result, &error), PP_E_INPUT);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* ---- sensitivity --------------------------------------------------------------------------- */

Test(uncertainty, sensitivity_by_hand) {
    pp_schedule *schedule = build("1f1b", 1, 10);
    costs c = costs_uniform(1, 1, 2, 3, 5);
    pp_sim_input input = input_of(schedule, &c);
    pp_schedule *more = build("1f1b", 1, 14);
    pp_sensitivity *one = measure(&input, more);
    cr_assert_eq(one->makespan_s, 60);
    cr_assert_float_eq(one->forward[0].slower_s, 0.1, 1e-12);
    cr_assert_float_eq(one->input[0].slower_s, 0.2, 1e-12);
    cr_assert_float_eq(one->weight[0].faster_s, -0.3, 1e-12);
    cr_assert_eq(one->border[0].slower_s, 0);
    cr_assert_float_eq(one->microbatches_s, 0.6, 1e-12); /* 6 s each, of which 10 are 100 % */
    pp_sensitivity_free(one);
    pp_schedule_free(schedule);

    /* stage 1 does everything that counts but filling and draining; transfers once each way */
    schedule = build("1f1b", 2, 4);
    costs slow = costs_uniform(2, 1, 1, 1, 0.5);
    slow.stage[1] = (pp_stage_cost){.forward_s = 10, .input_s = 10, .weight_s = 10};
    input = input_of(schedule, &slow);
    pp_sensitivity *two = measure(&input, NULL);
    cr_assert_float_eq(two->makespan_s, 1 + 0.5 + 120 + 0.5 + 2, 1e-12);
    cr_assert_float_eq(two->forward[0].slower_s, 0.01, 1e-12);
    cr_assert_float_eq(two->forward[1].slower_s, 0.4, 1e-12);
    cr_assert_float_eq(two->input[1].faster_s, -0.4, 1e-12);
    cr_assert_float_eq(two->border[0].slower_s, 0.01, 1e-12);
    cr_assert(isnan(two->microbatches_s));
    pp_error error = {0};
    pp_sensitivity *none;
    cr_assert_eq(pp_measure_sensitivity(&input, more, &none, &error), PP_E_INPUT);
    cr_assert_eq(pp_measure_sensitivity(&input, schedule, &none, &error), PP_E_INPUT);
    pp_sensitivity_free(two);
    pp_schedule_free(more);
    pp_schedule_free(schedule);
    costs_free(&c);
    costs_free(&slow);
}

/* A layer has parts of its stage's times; of two copies, in both. */
Test(uncertainty, layers_by_hand) {
    pp_schedule *schedule = build("1f1b", 2, 10);
    costs c = costs_uniform(2, 1, 2, 3, 0);
    c.stage[1] = (pp_stage_cost){.forward_s = 10, .input_s = 10, .weight_s = 10};
    pp_sim_input input = input_of(schedule, &c); /* 1 + 10 · 30 + 2 + 3 */
    const pp_stage_share shares[] = {
        {.layer = 2, .stage = 0, .forward = 0.5, .weight = 1},
        {.layer = 0, .stage = 1, .forward = 0.25, .input = 0.5},
        {.layer = 1, .stage = 0, .forward = 0.5, .input = 1},
        {.layer = 1, .stage = 1, .forward = 0.75, .input = 0.5, .weight = 1},
    };
    pp_change changes[4] = {[3] = {7, 7}};
    cr_assert_eq(pp_measure_layers(&input, shares, 4, changes, NULL), PP_OK);
    cr_assert_float_eq(changes[0].slower_s, 0.01 * 10 * (2.5 + 5), 1e-9);
    cr_assert_float_eq(changes[0].faster_s, -0.01 * 10 * (2.5 + 5), 1e-9);
    cr_assert_float_eq(changes[1].slower_s, 0.01 * (0.5 + 2 + 10 * (7.5 + 5 + 10)), 1e-9);
    cr_assert_float_eq(changes[2].slower_s, 0.01 * (0.5 + 3), 1e-9);
    cr_assert_eq(changes[3].slower_s, 7, "a layer that does not come is left alone");
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* The step time is convex in the costs, and proportional when all of them are changed together. So
 * what they do one by one, when each grows by a hundredth, adds up to a hundredth of it at least;
 * when each shrinks, at most. */
Test(uncertainty, sensitivities_add_up) {
    for (uint64_t seed = 1; seed <= 150; seed++) {
        dice d = {seed};
        shape of = shape_random(&d);
        of.recompute = of.updates = false;
        pp_schedule *schedule = schedule_random(&d, &of);
        costs c = costs_random(&d, of.stages, dice_chance(&d, 2));
        pp_sim_input input = input_of(schedule, &c);
        pp_sensitivity *made = measure(&input, NULL);
        double slower = 0, faster = 0;
        for (int s = 0; s < of.stages; s++) {
            const pp_change *all[] = {&made->forward[s], &made->input[s], &made->weight[s],
                                      &made->border[s]};
            for (int i = 0; i < 4; i++) {
                cr_assert(all[i]->slower_s >= 0 && all[i]->faster_s <= 0, "seed %lu", seed);
                slower += all[i]->slower_s;
                faster += all[i]->faster_s;
            }
        }
        double hundredth = made->makespan_s / 100;
        cr_assert_geq(slower, hundredth * (1 - 1e-9), "seed %lu", seed);
        cr_assert_leq(-faster, hundredth * (1 + 1e-9), "seed %lu", seed);
        pp_sensitivity_free(made);
        pp_schedule_free(schedule);
        costs_free(&c);
    }
}
