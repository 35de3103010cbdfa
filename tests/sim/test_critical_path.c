/* The critical path: consecutive, and as long as the makespan. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

COUNTED_SUITE(critical_path);

static bool feeds(const pp_schedule *schedule, pp_action from, pp_action to) {
    bool backward = from.kind == PP_BACKWARD || from.kind == PP_INPUT;
    bool backward_to = to.kind == PP_BACKWARD || to.kind == PP_INPUT;
    if (from.microbatch != to.microbatch || from.slice != to.slice) return false;
    if (from.kind == PP_FORWARD)
        return to.kind == PP_FORWARD && pp_schedule_next(schedule, from.stage) == to.stage;
    return backward && backward_to && pp_schedule_previous(schedule, from.stage) == to.stage;
}

static bool sends_to(const pp_schedule *schedule, pp_action from, int rank) {
    bool backward = from.kind == PP_BACKWARD || from.kind == PP_INPUT;
    int to = from.kind == PP_FORWARD ? pp_schedule_next(schedule, from.stage)
             : backward              ? pp_schedule_previous(schedule, from.stage)
                                     : -1;
    return to >= 0 && schedule->placement[to] == rank;
}

/* Seconds from the end of span `before` to the arrival of what span `now` needs, if all transfers
 * of the lane in between follow each other without a pause. end: of spans. */
static double lane_delay(const pp_sim_input *input, const pp_span *spans, size_t end, size_t before,
                         const pp_span *now) {
    const pp_schedule *schedule = input->schedule;
    int to = now->rank, from = spans[before].rank;
    if (before > 0 && spans[before - 1].rank == from && spans[before - 1].action.overlapped)
        before--; /* both parts of a pair send at its end */
    double delay = 0;
    for (size_t i = before; i < end && spans[i].rank == from; i++) {
        pp_action a = spans[i].action;
        if (!sends_to(schedule, a, to)) continue;
        const pp_border_cost *border = &input->border[a.kind == PP_FORWARD ? a.stage : a.stage - 1];
        delay +=
            (a.kind == PP_FORWARD ? border->forward_occupancy_s : border->backward_occupancy_s) /
            schedule->slices;
        if (feeds(schedule, a, now->action)) return delay + border->latency_s;
    }
    return NAN;
}

/* Independent of the engine: from span to span there is no gap but transfers that follow each
 * other, and the durations and those gaps add up to the makespan. */
static void check_path(const pp_sim_input *input, uint64_t seed) {
    pp_sim_result *result = simulate(input);
    size_t room = result->trace->span_count;
    size_t *path = calloc(room + 1, sizeof *path);
    size_t length = pp_critical_path(input, result, path, room);
    if (result->makespan_s > 0) cr_assert_gt(length, 0, "seed %lu", seed);
    double total = 0;
    const pp_span *spans = result->trace->spans;
    for (size_t i = 0; i < length; i++) {
        const pp_span *now = &spans[path[i]];
        total += now->end_s - now->start_s;
        if (i == 0) cr_assert_eq(now->end_s, result->makespan_s, "seed %lu", seed);
        if (i + 1 == length) {
            cr_assert_eq(now->start_s, 0, "seed %lu: the path begins at %g", seed, now->start_s);
            break;
        }
        const pp_span *before = &spans[path[i + 1]];
        double gap = now->start_s - before->end_s;
        cr_assert_geq(gap, 0, "seed %lu", seed);
        if (input->blocking || (now->rank == before->rank && gap != 0))
            cr_assert_eq(gap, 0, "seed %lu: a gap on one rank", seed);
        if (gap > 0) {
            cr_assert_neq(now->rank, before->rank);
            double delay = lane_delay(input, spans, room, path[i + 1], now);
            if (now->action.overlapped && !(fabs(gap - delay) < 1e-9)) /* its partner waited */
                delay = lane_delay(input, spans, room, path[i + 1], now + 1);
            cr_assert_float_eq(gap, delay, 1e-9, "seed %lu: a gap that is no transfer", seed);
        }
        total += gap;
    }
    cr_assert_float_eq(total, result->makespan_s, 1e-9 * (1 + result->makespan_s), "seed %lu",
                       seed);
    cr_assert_eq(pp_critical_path(input, result, path, 1), length > 0, "capacity is kept");
    free(path);
    pp_sim_result_free(result);
}

Test(critical_path, covers_the_makespan) {
    for (uint64_t seed = 1; seed <= 800; seed++) {
        dice d = {seed};
        shape of = shape_random(&d);
        if (seed % 4 == 0) of.slices = 2 + dice_below(&d, 2);
        pp_schedule *schedule = schedule_random(&d, &of);
        costs c = costs_random(&d, of.stages, dice_chance(&d, 2));
        pp_sim_input input = input_of(schedule, &c);
        input.keep_spans = true;
        if (of.updates) input.reduce_group = c.group;
        if (dice_chance(&d, 3)) input.last_microbatch_scale = 0.3;
        check_path(&input, seed);
        pp_schedule_free(schedule);
        costs_free(&c);
    }
}

Test(critical_path, covers_the_makespan_under_blocking) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        dice d = {seed};
        const char *names[] = {"naive", "gpipe", "1f1b"};
        int ranks = 1 + dice_below(&d, 6);
        pp_schedule *schedule = build(names[dice_below(&d, 3)], ranks, 1 + dice_below(&d, 8));
        costs c = costs_random(&d, ranks, dice_chance(&d, 2));
        if (dice_chance(&d, 3)) /* transfers that take no time still order things */
            for (int s = 0; s < ranks; s++) c.border[s] = (pp_border_cost){0};
        pp_sim_input input = input_of(schedule, &c);
        input.keep_spans = input.blocking = true;
        check_path(&input, seed);
        pp_schedule_free(schedule);
        costs_free(&c);
    }
}

/* A slow stage in the middle of a pipeline: its own work is the path but for filling and draining.
 */
Test(critical_path, goes_through_the_bottleneck) {
    pp_schedule *schedule = build("1f1b", 3, 8);
    costs c = costs_uniform(3, 1, 1, 1, 0);
    c.stage[1] = (pp_stage_cost){.forward_s = 5, .input_s = 5, .weight_s = 5};
    pp_sim_input input = input_of(schedule, &c);
    input.keep_spans = true;
    pp_sim_result *result = simulate(&input);
    size_t path[64], length = pp_critical_path(&input, result, path, 64), on_slow = 0;
    for (size_t i = 0; i < length; i++) on_slow += result->trace->spans[path[i]].rank == 1;
    cr_assert_geq(on_slow, 15, "%zu of %zu", on_slow, length);
    cr_assert_lt(result->gap, 0.06);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(critical_path, needs_spans) {
    pp_schedule *schedule = build("1f1b", 3, 8);
    costs c = costs_uniform(3, 1, 1, 1, 0);
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *result = simulate(&input);
    size_t path[4];
    cr_assert_eq(pp_critical_path(&input, result, path, 4), 0);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}
