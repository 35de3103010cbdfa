/* Durations that are drawn: of transfers, reductions and optimizer steps as of everything else. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

COUNTED_SUITE(draws);

static pp_replications *replicate(const pp_sim_input *input, int count, uint64_t seed) {
    pp_replications *result;
    pp_error error = {0};
    cr_assert_eq(pp_simulate_replications(input, count, seed, &result, &error), PP_OK, "%s: %s",
                 error.place, error.message);
    return result;
}

/* ---- samples that are all the same ---------------------------------------------------------- */

/* Whatever the engine: a distribution of one value is that value, to the last bit. */
Test(draws, constant_samples_change_nothing) {
    static const double ones[] = {1, 1, 1};
    static const pp_sim_part parts[] = {{0.25, ones, 3}, {0.5, ones, 2}, {0.125, NULL, 0}};
    for (uint64_t seed = 1; seed <= 300; seed++) {
        dice d = {seed};
        shape of = shape_random(&d);
        of.slices = dice_chance(&d, 4) ? 2 : 1;
        bool beside = of.updates && of.slices == 1 && dice_chance(&d, 2);
        pp_schedule *schedule = schedule_random(&d, &of);
        costs c = costs_random(&d, of.stages, dice_chance(&d, 2));
        pp_sim_draws draws[16];
        int node[5];
        cr_assert_leq(of.stages, 16);
        for (int s = 0; s < of.stages; s++)
            for (int phase = 0; phase < PP_SIM_PHASES; phase++)
                draws[s].phase[phase] = (pp_sim_mix){parts, dice_below(&d, 4)};
        for (int p = 0; p < of.ranks; p++) node[p] = p / 2;
        pp_sim_cards cards = {.node = node};
        pp_sim_input input = input_of(schedule, &c);
        input.bytes = NULL;
        input.last_microbatch_scale = dice_chance(&d, 2) ? 0.75 : 0;
        input.general = dice_chance(&d, 3);
        if (dice_chance(&d, 3)) input.cards = &cards;
        if (of.chains == 1 && !of.overlap && dice_chance(&d, 3)) input.blocking = true;
        if (beside) input.reduce_buckets = 1 + dice_below(&d, 4);
        pp_sim_result *plain;
        if (pp_simulate(&input, &plain, NULL) == PP_OK) { /* blocking may hang */
            input.draws = draws;
            pp_replications *many = replicate(&input, 3, seed);
            cr_assert(many->mean_s == plain->makespan_s && many->makespan_s.p5 == many->mean_s &&
                          many->makespan_s.p95 == many->mean_s,
                      "seed %lu: %.17g, alone %.17g", seed, many->mean_s, plain->makespan_s);
            cr_assert_eq(many->bubble_fraction.p50, plain->bubble_fraction);
            pp_replications_free(many);
            pp_sim_result_free(plain);
        }
        pp_schedule_free(schedule);
        costs_free(&c);
    }
}

/* ---- against a simulation of its own -------------------------------------------------------- */

/* Two ranks, 1F1B, three microbatches, then REDUCE_GRAD and STEP on each. */
enum { SAMPLES = 4, MICROBATCHES = 3, DRAWN = 20000, REPLICATED = 4000 };

static const double seen[PP_SIM_PHASES][SAMPLES] = {
    [PP_SIM_FORWARD] = {0.8, 0.9, 1, 1.6},
    [PP_SIM_INPUT] = {0.5, 1, 1, 2},
    [PP_SIM_WEIGHT] = {0.7, 1, 1.2, 1.9},
    [PP_SIM_OPTIMIZER] = {0.5, 0.9, 1, 4},
    [PP_SIM_REDUCE] = {0.6, 1, 1, 3},
    [PP_SIM_SEND_FORWARD] = {0.5, 1, 1.5, 4},
    [PP_SIM_SEND_BACKWARD] = {0.25, 0.75, 2, 3},
};
static const double given[PP_SIM_PHASES] = {
    [PP_SIM_FORWARD] = 3,      [PP_SIM_INPUT] = 4,    [PP_SIM_WEIGHT] = 3.5,
    [PP_SIM_OPTIMIZER] = 2,    [PP_SIM_REDUCE] = 2.5, [PP_SIM_SEND_FORWARD] = 2,
    [PP_SIM_SEND_BACKWARD] = 2};

/* One duration; `fixed` is the phase that the fault does not draw. */
static double draw(dice *d, int phase, int fixed) {
    double relative = seen[phase][dice_below(d, SAMPLES)];
    return phase == fixed ? given[phase] : given[phase] * relative;
}

static double backward(dice *d, int fixed) {
    return draw(d, PP_SIM_INPUT, fixed) + draw(d, PP_SIM_WEIGHT, fixed);
}

static double step_by_hand(dice *d, int fixed) {
    double first = 0, second = 0, ahead[MICROBATCHES + 1];
    for (int m = 0; m < 2; m++) {
        first += draw(d, PP_SIM_FORWARD, fixed);
        ahead[m] = first + draw(d, PP_SIM_SEND_FORWARD, fixed);
    }
    for (int m = 0; m < MICROBATCHES; m++) {
        second = fmax(second, ahead[m]) + draw(d, PP_SIM_FORWARD, fixed);
        second += backward(d, fixed);
        double back = second + draw(d, PP_SIM_SEND_BACKWARD, fixed);
        first = fmax(first, back) + backward(d, fixed);
        if (m + 2 >= MICROBATCHES) continue;
        first += draw(d, PP_SIM_FORWARD, fixed);
        ahead[m + 2] = first + draw(d, PP_SIM_SEND_FORWARD, fixed);
    }
    first += draw(d, PP_SIM_REDUCE, fixed) + draw(d, PP_SIM_OPTIMIZER, fixed);
    second += draw(d, PP_SIM_REDUCE, fixed) + draw(d, PP_SIM_OPTIMIZER, fixed);
    return fmax(first, second);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* mean, 5 %, 50 %, 95 %, standard deviation */
typedef struct summary {
    double of[4], deviation;
} summary;

static summary by_hand(int fixed) {
    static double steps[DRAWN];
    dice d = {99};
    double sum = 0, squares = 0;
    for (int i = 0; i < DRAWN; i++) {
        steps[i] = step_by_hand(&d, fixed);
        sum += steps[i];
        squares += steps[i] * steps[i];
    }
    qsort(steps, DRAWN, sizeof *steps, ascending);
    double mean = sum / DRAWN;
    return (summary){{mean, steps[DRAWN / 20], steps[DRAWN / 2], steps[DRAWN - DRAWN / 20]},
                     sqrt(squares / DRAWN - mean * mean)};
}

/* How far two are apart, in standard deviations. */
static double distance(const summary *a, const summary *b) {
    double most = 0;
    for (int i = 0; i < 4; i++) most = fmax(most, fabs(a->of[i] - b->of[i]) / a->deviation);
    return most;
}

static summary replicated(void) {
    static const int placement[] = {0, 1};
    pp_schedule *schedule = schedule_from(
        "0F0 0F1 0B0 0F2 0B1 0B2 0REDUCE_GRAD 0STEP\n1F0 1B0 1F1 1B1 1F2 1B2 1REDUCE_GRAD 1STEP\n",
        placement, 2, 2);
    pp_sim_part part[PP_SIM_PHASES];
    pp_sim_draws draws[2];
    for (int phase = 0; phase < PP_SIM_PHASES; phase++) {
        part[phase] = (pp_sim_part){1, seen[phase], SAMPLES};
        for (int s = 0; s < 2; s++) draws[s].phase[phase] = (pp_sim_mix){&part[phase], 1};
    }
    pp_stage_cost stage = {.forward_s = given[PP_SIM_FORWARD],
                           .input_s = given[PP_SIM_INPUT],
                           .weight_s = given[PP_SIM_WEIGHT],
                           .reduce_s = given[PP_SIM_REDUCE],
                           .optimizer_s = given[PP_SIM_OPTIMIZER]};
    pp_stage_cost stages[2] = {stage, stage};
    pp_border_cost border[2] = {{.latency_s = given[PP_SIM_SEND_FORWARD]}};
    pp_sim_input input = {.schedule = schedule, .stage = stages, .border = border, .draws = draws};
    pp_replications *many = replicate(&input, REPLICATED, 5);
    summary made = {{many->mean_s, many->makespan_s.p5, many->makespan_s.p50, many->makespan_s.p95},
                    0};
    pp_replications_free(many);
    pp_schedule_free(schedule);
    return made;
}

/* The oracle sees each phase: with one of them held fixed it no longer agrees. */
Test(draws, quantiles_are_those_of_an_independent_monte_carlo) {
    const double near = 0.1;
    summary wanted = by_hand(-1), found = replicated();
    cr_assert_lt(distance(&wanted, &found), near, "mean %g %g, quantiles %g %g, %g %g, %g %g",
                 wanted.of[0], found.of[0], wanted.of[1], found.of[1], wanted.of[2], found.of[2],
                 wanted.of[3], found.of[3]);
    for (int phase = 0; phase < PP_SIM_PHASES; phase++) {
        summary wrong = by_hand(phase);
        cr_assert_gt(distance(&wrong, &found), near, "phase %d", phase);
    }
}

/* ---- transfers ------------------------------------------------------------------------------ */

/* Nothing takes time but the transfers of one microbatch, there and back: the step is their sum. */
Test(draws, transfers_have_the_mean_and_the_spread_asked_for) {
    enum { COUNT = 4000 };
    pp_schedule *schedule = build("1f1b", 2, 1);
    pp_stage_cost stage[2] = {{0}};
    pp_border_cost border[2] = {
        {.latency_s = 1, .forward_occupancy_s = 3, .backward_occupancy_s = 3}};
    double step[3] = {0};
    for (int engine = 0; engine < 3; engine++) {
        pp_sim_input input = {.schedule = schedule,
                              .stage = stage,
                              .border = border,
                              .transfer_jitter = 0.5,
                              .general = engine == 1,
                              .blocking = engine == 2};
        double sum = 0, squares = 0;
        for (int i = 0; i < COUNT; i++) {
            input.jitter_key = pp_random_key_make(3, "draws", (uint64_t)i);
            pp_sim_result *result = simulate(&input);
            step[engine] = result->makespan_s;
            sum += result->makespan_s;
            squares += result->makespan_s * result->makespan_s;
            pp_sim_result_free(result);
        }
        double mean = sum / COUNT, deviation = sqrt(squares / COUNT - mean * mean);
        double expected = sqrt(2) * 4 * 0.5;
        cr_assert_float_eq(mean, 8, 5 * expected / sqrt(COUNT), "engine %d: %g", engine, mean);
        cr_assert_float_eq(deviation, expected, 0.1 * expected, "engine %d: %g", engine, deviation);
        cr_assert_float_eq(step[engine], step[0], 1e-12 * step[0], "engine %d", engine);
    }
    pp_schedule_free(schedule);
}

/* From the end of the step back to time 0, with nothing on one rank left out. */
static void check_path(const pp_sim_input *input, const pp_sim_result *result, uint64_t seed) {
    size_t room = result->trace->span_count;
    size_t *path = calloc(room + 1, sizeof *path);
    size_t length = pp_critical_path(input, result, path, room);
    const pp_span *spans = result->trace->spans;
    if (result->makespan_s > 0 && input->reduce_buckets == 0) {
        cr_assert_gt(length, 0, "seed %lu", seed);
        cr_assert_eq(spans[path[0]].end_s, result->makespan_s, "seed %lu", seed);
        cr_assert_eq(spans[path[length - 1]].start_s, 0, "seed %lu", seed);
        for (size_t i = 0; i + 1 < length; i++) {
            const pp_span *now = &spans[path[i]], *before = &spans[path[i + 1]];
            double gap = now->start_s - before->end_s;
            cr_assert(now->rank == before->rank ? gap == 0 : gap >= 0, "seed %lu", seed);
        }
    }
    free(path);
}

/* Both engines draw the same for the same action, also where its rank waits and is woken. */
Test(draws, engines_agree_to_the_last_bit) {
    static const double values[] = {0.5, 0.75, 1, 1.25, 4};
    static const pp_sim_part part = {1, values, 5};
    for (uint64_t seed = 1; seed <= 200; seed++) {
        dice d = {seed};
        shape of = shape_random(&d);
        pp_schedule *schedule = schedule_random(&d, &of);
        costs c = costs_random(&d, of.stages, dice_chance(&d, 2));
        pp_sim_draws draws[16];
        for (int s = 0; s < of.stages; s++)
            for (int phase = 0; phase < PP_SIM_PHASES; phase++)
                draws[s].phase[phase] = (pp_sim_mix){&part, 1};
        pp_sim_input input = input_of(schedule, &c);
        input.draws = draws;
        input.transfer_jitter = dice_chance(&d, 2) ? 0.25 : 0;
        input.jitter_key = pp_random_key_make(seed, "draws", 0);
        if (of.updates && dice_chance(&d, 2)) input.reduce_buckets = 2;
        input.keep_spans = true;
        pp_sim_result *fast = simulate(&input);
        check_path(&input, fast, seed);
        input.general = true;
        pp_sim_result *general = simulate(&input);
        check_path(&input, general, seed);
        cr_assert_eq(fast->makespan_s, general->makespan_s, "seed %lu", seed);
        for (int p = 0; p < of.ranks; p++)
            cr_assert_eq(fast->rank[p].busy_s, general->rank[p].busy_s, "seed %lu", seed);
        pp_sim_result_free(fast);
        pp_sim_result_free(general);
        pp_schedule_free(schedule);
        costs_free(&c);
    }
}
