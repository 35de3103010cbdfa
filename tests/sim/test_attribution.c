/* Why a step differs from its prediction: parts add up, and land where the difference was put. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(attribution);

static pp_attribution *attributed(const pp_sim_input *input, const pp_trace *predicted,
                                  const pp_trace *measured) {
    pp_attribution *made;
    pp_error error = {0};
    pp_status status = pp_attribute(input, predicted, measured, &made, &error);
    cr_assert(status == PP_OK, "%s", error.message);
    return made;
}

static double sum_of(const pp_attribution *a) {
    double sum = 0;
    for (int e = 0; e < PP_CAUSE_COUNT; e++) sum += a->share_s[e];
    return sum;
}

static double sum_of_actions(const pp_attribution *a) {
    double sum = a->share_s[PP_CAUSE_END];
    for (size_t i = 0; i < a->action_count; i++)
        sum += a->actions[i].duration_s + a->actions[i].gap_s + a->actions[i].transfer_s;
    return sum;
}

static void expect_sums(const pp_attribution *a, uint64_t seed) {
    double difference = a->measured_s - a->predicted_s;
    double scale = 1e-9 * (1 + a->measured_s + a->predicted_s);
    cr_assert_float_eq(sum_of(a), difference, scale, "seed %lu: %g is not %g", seed, sum_of(a),
                       difference);
    cr_assert_float_eq(sum_of_actions(a), difference, scale, "seed %lu", seed);
}

/* Any two simulations of one order: other stages, links, launches, luck. The convexity of the step
 * in all its times says more: an effect alone is at most its part at the end of the way. */
Test(attribution, parts_add_up) {
    for (uint64_t seed = 1; seed <= 400; seed++) {
        dice d = {seed};
        shape of = shape_random(&d);
        pp_schedule *schedule = schedule_random(&d, &of);
        costs before = costs_random(&d, of.stages, dice_chance(&d, 2));
        costs after = costs_random(&d, of.stages, dice_chance(&d, 2));
        pp_sim_input input = input_of(schedule, &before), other = input_of(schedule, &after);
        input.keep_spans = other.keep_spans = true;
        if (of.updates) input.reduce_group = other.reduce_group = before.group;
        if (dice_chance(&d, 2)) other.launch_s = 0.3;
        if (dice_chance(&d, 2)) other.jitter = 0.5;
        pp_sim_result *predicted = simulate(&input), *measured = simulate(&other);
        if (dice_chance(&d, 2)) measured->trace->makespan_s += 1;
        pp_attribution *a = attributed(&input, predicted->trace, measured->trace);
        expect_sums(a, seed);
        double all = 0;
        for (int e = 0; e < PP_CAUSE_COUNT; e++) all += fabs(a->alone_s[e]);
        cr_assert(isfinite(all), "seed %lu", seed);
        pp_attribution *back = attributed(&other, measured->trace, predicted->trace);
        expect_sums(back, seed);
        pp_attribution_free(back);
        pp_attribution_free(a);
        pp_sim_result_free(predicted);
        pp_sim_result_free(measured);
        pp_schedule_free(schedule);
        costs_free(&before);
        costs_free(&after);
    }
}

/* A step that went as predicted has no parts at all. */
Test(attribution, nothing_to_explain) {
    pp_schedule *schedule = build("1f1b", 4, 8);
    costs c = costs_uniform(4, 1, 1.5, 0.5, 0.25);
    pp_sim_input input = input_of(schedule, &c);
    input.keep_spans = true;
    pp_sim_result *made = simulate(&input);
    pp_attribution *a = attributed(&input, made->trace, made->trace);
    for (int e = 0; e < PP_CAUSE_COUNT; e++)
        cr_assert(a->share_s[e] == 0 && a->alone_s[e] == 0 && a->without_s[e] == 0);
    pp_attribution_free(a);
    pp_sim_result_free(made);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* One thing is changed, and all of the difference is its. */
static void expect_only(pp_cause effect, const pp_sim_input *input, const pp_sim_input *other,
                        double difference_s) {
    pp_sim_result *predicted = simulate(input), *measured = simulate(other);
    pp_attribution *a = attributed(input, predicted->trace, measured->trace);
    cr_assert_float_eq(a->measured_s - a->predicted_s, difference_s, 1e-9);
    for (int e = 0; e < PP_CAUSE_COUNT; e++) {
        double expected = e == (int)effect ? difference_s : 0;
        cr_assert_float_eq(a->share_s[e], expected, 1e-9, "%s: %g", pp_cause_names[e],
                           a->share_s[e]);
        cr_assert_float_eq(a->alone_s[e], expected, 1e-9, "%s alone", pp_cause_names[e]);
        cr_assert_float_eq(a->without_s[e], expected, 1e-9, "without %s", pp_cause_names[e]);
    }
    pp_attribution_free(a);
    pp_sim_result_free(predicted);
    pp_sim_result_free(measured);
}

/* 1F1B of four equal stages, eight microbatches; F + B = 3, transfers 0.25. */
Test(attribution, lands_where_the_difference_is) {
    pp_schedule *schedule = build("1f1b", 4, 8);
    costs before = costs_uniform(4, 1, 1.5, 0.5, 0.25), after = costs_uniform(4, 1, 1.5, 0.5, 0.25);
    pp_sim_input input = input_of(schedule, &before), other = input_of(schedule, &after);
    input.keep_spans = other.keep_spans = true;
    for (int s = 0; s < 4; s++) after.stage[s].forward_s = 1.1; /* (M + K - 1) · 0.1 */
    expect_only(PP_CAUSE_COMPUTE, &input, &other, 1.1);
    for (int s = 0; s < 4; s++) after.stage[s].forward_s = 1;
    other.launch_s = 0; /* naive: each of 2·(K - 1) borders is crossed once for each microbatch */
    pp_schedule_free(schedule);
    schedule = build("naive", 4, 8);
    input.schedule = other.schedule = schedule;
    for (int s = 0; s < 4; s++) after.border[s].latency_s = 0.35;
    expect_only(PP_CAUSE_TRANSFERS, &input, &other, 0.1 * (2 * 3 * 8));
    for (int s = 0; s < 4; s++) after.border[s].latency_s = 0.25;
    pp_schedule_free(schedule);
    costs_free(&before);
    costs_free(&after);
}

/* One rank: 2·M launches, a late end, a slow action, each its own part. */
Test(attribution, one_rank_by_hand) {
    pp_schedule *schedule = build("gpipe", 1, 4);
    costs c = costs_uniform(1, 1, 1, 1, 0);
    pp_sim_input input = input_of(schedule, &c), other = input;
    input.keep_spans = other.keep_spans = true;
    other.launch_s = 0.125;
    expect_only(PP_CAUSE_GAPS, &input, &other, 8 * 0.125);
    pp_sim_result *predicted = simulate(&input), *measured = simulate(&input);
    pp_trace *trace = measured->trace;
    for (size_t i = 1; i < trace->span_count; i++) {
        trace->spans[i].start_s += 4; /* the first F took 4 longer, so the average 1 */
        trace->spans[i].end_s += 4;
    }
    trace->spans[0].end_s += 4;
    trace->makespan_s += 4.5;
    pp_attribution *a = attributed(&input, predicted->trace, trace);
    cr_assert_float_eq(a->share_s[PP_CAUSE_COMPUTE], 4, 1e-9); /* four actions, each 1 */
    cr_assert_float_eq(a->share_s[PP_CAUSE_UNEVEN], 0, 1e-9);
    cr_assert_float_eq(a->share_s[PP_CAUSE_END], 0.5, 1e-9);
    cr_assert_float_eq(a->stage_s[PP_FORWARD], 4, 1e-9);
    cr_assert_float_eq(a->actions[0].duration_s, 4, 1e-9);
    pp_attribution_free(a);
    pp_sim_result_free(predicted);
    pp_sim_result_free(measured);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* Two ranks side by side, one stage each of two chains that nothing joins but the end: with D and
 * 2D longer the second is critical from half of the way on. By hand: T(t) = max(10 + t·0, 9 + 2t).
 */
Test(attribution, a_bend_by_hand) {
    static const int placement[] = {0, 1};
    pp_schedule *schedule = schedule_from("0F0 0B0\n1F0 1B0", placement, 2, 2);
    schedule->chain_count = 2;
    pp_chain chains[2] = {{0, 0}, {1, 1}};
    pp_chain *kept = schedule->chains;
    schedule->chains = chains;
    costs before = costs_uniform(2, 5, 5, 0, 0), after = costs_uniform(2, 5, 5, 0, 0);
    before.stage[1].forward_s = 4;
    after.stage[1].forward_s = 6;
    pp_sim_input input = input_of(schedule, &before), other = input_of(schedule, &after);
    input.keep_spans = other.keep_spans = true;
    pp_sim_result *predicted = simulate(&input), *measured = simulate(&other);
    pp_attribution *a = attributed(&input, predicted->trace, measured->trace);
    cr_assert_float_eq(a->predicted_s, 10, 1e-12);
    cr_assert_float_eq(a->measured_s, 11, 1e-12);
    cr_assert_float_eq(a->share_s[PP_CAUSE_COMPUTE], 1, 1e-12);
    cr_assert_float_eq(a->actions[2].duration_s, 1, 1e-12); /* half of the way, of 2 */
    pp_attribution_free(a);
    pp_sim_result_free(predicted);
    pp_sim_result_free(measured);
    schedule->chains = kept;
    pp_schedule_free(schedule);
    costs_free(&before);
    costs_free(&after);
}

/* Against integrating in a thousand steps: what the straight way gives to compute. */
Test(attribution, agrees_with_small_steps) {
    for (uint64_t seed = 1; seed <= 12; seed++) {
        enum { STEPS = 1000, K = 4 };
        dice d = {seed};
        pp_schedule *schedule = build(seed % 2 ? "1f1b" : "gpipe", K, 6);
        costs before = costs_random(&d, K, false), after = costs_random(&d, K, false);
        costs at = costs_random(&d, K, false);
        memset(at.stage, 0, K * sizeof *at.stage);
        memset(at.border, 0, K * sizeof *at.border);
        pp_sim_input input = input_of(schedule, &before), other = input_of(schedule, &after);
        pp_sim_input moving = input_of(schedule, &at);
        input.keep_spans = other.keep_spans = true;
        for (int s = 0; s < K; s++) { /* so that transfers are those of the links throughout */
            before.border[s] = after.border[s] = (pp_border_cost){.latency_s = 1};
            at.border[s] = before.border[s];
        }
        pp_sim_result *predicted = simulate(&input), *measured = simulate(&other);
        pp_attribution *a = attributed(&input, predicted->trace, measured->trace);
        expect_sums(a, seed);
        double forward = 0; /* what making F of stage 1 longer gives, summed over the way */
        for (int i = 0; i < STEPS; i++) {
            double t = (i + 0.5) / STEPS, with[2];
            for (int side = 0; side < 2; side++) {
                for (int s = 0; s < K; s++) {
                    pp_stage_cost *from = &before.stage[s], *to = &after.stage[s];
                    at.stage[s].forward_s = from->forward_s + t * (to->forward_s - from->forward_s);
                    at.stage[s].input_s = from->input_s + t * (to->input_s - from->input_s);
                    at.stage[s].weight_s = from->weight_s + t * (to->weight_s - from->weight_s);
                }
                at.stage[1].forward_s += (side ? 1e-7 : -1e-7);
                pp_sim_result *made = simulate(&moving);
                with[side] = made->makespan_s;
                pp_sim_result_free(made);
            }
            double longer = after.stage[1].forward_s - before.stage[1].forward_s;
            forward += (with[1] - with[0]) / 2e-7 * longer / STEPS;
        }
        double mine = a->stage_s[1 * PP_ACTION_KIND_COUNT + PP_FORWARD];
        cr_assert_float_eq(mine, forward, 0.02 * (1 + fabs(forward)), "seed %lu: %g is not %g",
                           seed, mine, forward);
        pp_attribution_free(a);
        pp_sim_result_free(predicted);
        pp_sim_result_free(measured);
        pp_schedule_free(schedule);
        costs_free(&before);
        costs_free(&after);
        costs_free(&at);
    }
}

Test(attribution, another_order_is_refused) {
    pp_schedule *one = build("1f1b", 2, 4), *two = build("gpipe", 2, 4);
    costs c = costs_uniform(2, 1, 1, 1, 0);
    pp_sim_input input = input_of(one, &c), other = input_of(two, &c);
    input.keep_spans = other.keep_spans = true;
    pp_sim_result *predicted = simulate(&input), *measured = simulate(&other);
    pp_attribution *a;
    pp_error error = {0};
    cr_assert_eq(pp_attribute(&input, predicted->trace, measured->trace, &a, &error), PP_E_INPUT);
    cr_assert(a == NULL);
    pp_sim_result_free(predicted);
    pp_sim_result_free(measured);
    pp_schedule_free(one);
    pp_schedule_free(two);
    costs_free(&c);
}
