/* The engine against the oracle, against arithmetic by hand, and against itself. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

COUNTED_SUITE(engine);

/* ---- random cases -------------------------------------------------------------------------- */

typedef struct random_case {
    shape of;
    pp_schedule *schedule;
    costs c;
    pp_sim_input input;
} random_case;

static random_case case_make(dice *d) {
    random_case made = {.of = shape_random(d)};
    if (dice_chance(d, 3)) made.of.slices = 1 + dice_below(d, 4);
    made.of.early = dice_chance(d, 2);
    made.schedule = schedule_random(d, &made.of);
    made.c = costs_random(d, made.of.stages, dice_chance(d, 2));
    made.input = input_of(made.schedule, &made.c);
    made.input.keep_spans = dice_chance(d, 2);
    if (dice_chance(d, 4)) made.input.border = NULL;
    if (dice_chance(d, 3)) made.input.last_microbatch_scale = 0.1 + dice_time(d) / 8;
    if (dice_chance(d, 3)) made.input.overlap_factor = 0.5 + dice_time(d) / 10;
    if (made.of.updates && dice_chance(d, 2)) made.input.reduce_group = made.c.group;
    if (made.of.early) made.input.reduce_buckets = 1 + dice_below(d, 4);
    if (dice_chance(d, 3)) made.input.load_s = dice_time(d) / 4;
    made.input.prefetch = dice_chance(d, 2);
    return made;
}

static void case_free(random_case *r) {
    pp_schedule_free(r->schedule);
    costs_free(&r->c);
}

/* Spans against the oracle's intervals; a pair is cut in two, its ends are the oracle's. */
static void compare_spans(const random_case *r, const pp_sim_result *result,
                          const oracle_times *times, uint64_t seed) {
    size_t at = 0;
    const pp_schedule *schedule = r->schedule;
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++) {
        while (result->trace->spans[at].lane != PP_LANE_COMPUTE) at++;
        const pp_span *span = &result->trace->spans[at++];
        bool second = i > 0 && schedule->actions[i - 1].overlapped;
        if (!second) cr_assert_eq(span->start_s, times->start[i], "seed %lu", seed);
        if (!schedule->actions[i].overlapped)
            cr_assert_eq(span->end_s, times->end[i], "seed %lu", seed);
        if (second) cr_assert_eq(span->start_s, span[-1].end_s, "seed %lu", seed);
        cr_assert_eq(memcmp(&span->action, &schedule->actions[i], sizeof span->action), 0);
    }
    while (at < result->trace->span_count && result->trace->spans[at].lane != PP_LANE_COMPUTE) at++;
    cr_assert_eq(at, result->trace->span_count);
}

static void compare_ranks(const random_case *r, const pp_sim_result *result,
                          const oracle_times *times, uint64_t seed) {
    const pp_schedule *schedule = r->schedule;
    double span = 0, busy = 0;
    for (int p = 0; p < schedule->ranks; p++) {
        size_t begin = schedule->first_action[p], end = schedule->first_action[p + 1];
        const pp_sim_rank *rank = &result->rank[p];
        busy += rank->busy_s;
        cr_assert_eq(rank->first_start_s, times->start[begin], "seed %lu rank %d", seed, p);
        if (r->input.reduce_buckets == 0 || r->of.updates)
            cr_assert_eq(rank->last_end_s, times->end[end - 1], "seed %lu rank %d", seed, p);
        cr_assert_leq(fabs(rank->idle_s + rank->busy_s - times->makespan), 1e-9, "seed %lu", seed);
        span = fmax(span, times->end[end - 1] - times->start[begin]);
        oracle_peaks peaks = oracle_memory(&r->input, p);
        cr_assert_eq(rank->peak_time_s, times->start[peaks.held_index], "seed %lu rank %d", seed,
                     p);
    }
    cr_assert_eq(result->span_s, span);
    cr_assert_float_eq(result->bubble_fraction, 1 - busy / (schedule->ranks * times->makespan),
                       1e-12);
}

Test(engine, agrees_with_the_oracle_to_the_last_bit) {
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        dice d = {seed};
        random_case r = case_make(&d);
        oracle_times times = oracle_run(&r.input);
        pp_sim_result *result = simulate(&r.input);
        cr_assert_eq(result->makespan_s, times.makespan, "seed %lu: %.17g, oracle %.17g", seed,
                     result->makespan_s, times.makespan);
        if (times.makespan > 0) compare_ranks(&r, result, &times, seed);
        if (result->trace) compare_spans(&r, result, &times, seed);
        pp_sim_result_free(result);
        oracle_free(&times);
        case_free(&r);
    }
}

Test(engine, twice_the_costs_is_exactly_twice_the_time) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        dice d = {seed};
        random_case r = case_make(&d);
        pp_sim_result *once = simulate(&r.input);
        r.input.load_s *= 2;
        for (int s = 0; s < r.of.stages; s++) {
            double *stage = (double *)&r.c.stage[s], *border = (double *)&r.c.border[s];
            for (size_t i = 0; i < sizeof *r.c.stage / sizeof *stage; i++) stage[i] *= 2;
            for (size_t i = 0; i < sizeof *r.c.border / sizeof *border; i++) border[i] *= 2;
        }
        pp_sim_result *twice = simulate(&r.input);
        cr_assert_eq(twice->makespan_s, 2 * once->makespan_s, "seed %lu", seed);
        cr_assert_eq(twice->bubble_fraction, once->bubble_fraction, "seed %lu", seed);
        cr_assert_eq(twice->lower_bound_s, 2 * once->lower_bound_s, "seed %lu", seed);
        pp_sim_result_free(once);
        pp_sim_result_free(twice);
        case_free(&r);
    }
}

Test(engine, one_cost_up_never_ends_earlier) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        dice d = {seed};
        random_case r = case_make(&d);
        pp_sim_result *before = simulate(&r.input);
        for (int trial = 0; trial < 5; trial++) {
            int s = dice_below(&d, r.of.stages);
            double *field = (double *)&r.c.stage[s] + dice_below(&d, 6);
            double kept = *field;
            if (r.input.border && dice_chance(&d, 2)) {
                field = (double *)&r.c.border[s] + dice_below(&d, 3);
                kept = *field;
            }
            *field += dice_time(&d);
            pp_sim_result *after = simulate(&r.input);
            cr_assert_geq(after->makespan_s, before->makespan_s, "seed %lu", seed);
            pp_sim_result_free(after);
            *field = kept;
        }
        pp_sim_result_free(before);
        case_free(&r);
    }
}

Test(engine, the_lower_bound_is_one) {
    int tight = 0;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        dice d = {seed};
        random_case r = case_make(&d);
        pp_sim_result *result = simulate(&r.input);
        double bound = pp_lower_bound(&r.input);
        cr_assert_leq(bound, result->makespan_s * (1 + 1e-12),
                      "seed %lu: bound %.17g makespan %.17g", seed, bound, result->makespan_s);
        cr_assert_float_eq(bound, result->lower_bound_s, 1e-9 * bound);
        if (bound > 0.999 * result->makespan_s) tight++;
        pp_sim_result_free(result);
        case_free(&r);
    }
    cr_assert_gt(tight, 30, "a bound that is hardly ever reached says little: %d", tight);
}

/* ---- by hand ------------------------------------------------------------------------------- */

static double makespan_of(const char *rows, const int *placement, int stages, int ranks,
                          const costs *c, double overlap_factor) {
    pp_schedule *schedule = schedule_from(rows, placement, stages, ranks);
    pp_sim_input input = input_of(schedule, c);
    input.overlap_factor = overlap_factor;
    pp_sim_result *result = simulate(&input);
    double makespan = result->makespan_s;
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    return makespan;
}

Test(engine, cases_by_hand) {
    const int loop[] = {0, 1, 0, 1}, vshape[] = {0, 1, 1, 0};
    costs c = costs_uniform(4, 1, 2, 3, 10);
    /* one microbatch on two ranks: F, 10, F, B (5), 10, B */
    cr_assert_eq(makespan_of("0F0 0B0\n1F0 1B0", loop, 2, 2, &c, 0), 1 + 10 + 1 + 5 + 10 + 5);
    /* the gradient leaves after I; W of stage 1 goes on meanwhile */
    cr_assert_eq(makespan_of("0F0 0I0 0W0\n1F0 1I0 1W0", loop, 2, 2, &c, 0), 24 + 5);
    /* any number in flight: two forwards follow each other 1 apart, not 10 */
    cr_assert_eq(makespan_of("0F0 0F1\n1F0 1F1", loop, 2, 2, &c, 0), 13);
    /* between stages of one rank nothing is charged: 0-1 and 2-3 pay, 1-2 does not */
    cr_assert_eq(makespan_of("0F0 3F0\n1F0 2F0", vshape, 4, 2, &c, 0), 24);
    /* a pair takes the sum of its parts, and both outputs wait for its end */
    cr_assert_eq(makespan_of("0F0 0F1& 0B0", loop, 1, 1, &c, 0), 1 + 6);
    cr_assert_eq(makespan_of("0F0 0F1& 0B0", loop, 1, 1, &c, 0.5), 1 + 3);
    /* lanes: occupancy 4 on the way forward, so the second arrives 4 after the first */
    c.border[0] = (pp_border_cost){.latency_s = 1, .forward_occupancy_s = 4};
    cr_assert_eq(makespan_of("0F0 0F1 0F2\n1F0 1F1 1F2", loop, 2, 2, &c, 0), 1 + 3 * 4 + 1 + 1);
    costs_free(&c);
}

/* Two slices, each half a microbatch: the second rank starts after half a forward, the first gets a
 * gradient after half a backward. */
Test(engine, slices_fill_the_pipeline_sooner) {
    const int loop[] = {0, 1};
    costs c = costs_uniform(2, 2, 2, 2, 0);
    const char *rows = "0F0 0F0.1 0B0.1 0B0\n1F0 1F0.1 1B0.1 1B0";
    cr_assert_eq(makespan_of(rows, loop, 2, 2, &c, 0), 1 + 2 + 4 + 2);
    cr_assert_eq(makespan_of("0F0 0B0\n1F0 1B0", loop, 2, 2, &c, 0), 2 + 2 + 4 + 4);
    /* half the data of a microbatch goes with each slice, after the same latency: the last forward
     * of rank 1 begins at 1 + 3 + 3 + 1 = 8, the last gradient leaves at 13 */
    c.border[0] = (pp_border_cost){.latency_s = 1, .forward_occupancy_s = 6};
    cr_assert_eq(makespan_of(rows, loop, 2, 2, &c, 0), 8 + 1 + 4 + 1 + 2);
    pp_schedule *schedule = schedule_from(rows, loop, 2, 2);
    pp_sim_input input = input_of(schedule, &c);
    pp_stage_bytes bytes[2] = {{.activation = 101}, {.activation = 100, .input = 7}};
    input.bytes = bytes;
    pp_sim_result *result = simulate(&input);
    cr_assert_eq(result->rank[0].peak_activations, 1);
    cr_assert_eq(result->rank[0].peak.activations, 2 * 51); /* halves, rounded up */
    cr_assert_eq(result->rank[1].peak.buffers, 2 * 4);      /* both slices may be under way */
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* Spans of transfers: from when the data leaves, which is when the lane is free, to its arrival. */
Test(engine, transfers_have_spans_at_both_ends) {
    const int loop[] = {0, 1};
    costs c = costs_uniform(2, 1, 1, 1, 0);
    c.border[0] = (pp_border_cost){.latency_s = 1, .forward_occupancy_s = 4};
    pp_schedule *schedule = schedule_from("0F0 0F1 0B0 0B1\n1F0 1F1 1B0 1B1", loop, 2, 2);
    pp_sim_input input = input_of(schedule, &c);
    input.keep_spans = true;
    pp_sim_result *result = simulate(&input);
    const pp_trace *trace = result->trace;
    static const struct {
        size_t at;
        double start_s, end_s;
        const char *action;
        int rank;
    } expected[] = {
        {4, 1, 6, "0SEND_F0", 0},   {5, 5, 10, "0SEND_F1", 0},   {6, 13, 14, "0RECV_B0", 0},
        {7, 15, 16, "0RECV_B1", 0}, {12, 13, 14, "1SEND_B0", 1}, {13, 15, 16, "1SEND_B1", 1},
        {14, 1, 6, "1RECV_F0", 1},  {15, 5, 10, "1RECV_F1", 1},
    };
    cr_assert_eq(trace->span_count, 16);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const pp_span *span = &trace->spans[expected[i].at];
        char text[32];
        cr_assert_str_eq(pp_action_text(span->action, text), expected[i].action);
        cr_assert(span->start_s == expected[i].start_s && span->end_s == expected[i].end_s,
                  "%s: %g to %g", text, span->start_s, span->end_s);
        cr_assert_eq(span->rank, expected[i].rank);
        cr_assert_eq(span->lane, span->action.kind == PP_SEND_F || span->action.kind == PP_SEND_B
                                     ? PP_LANE_SEND
                                     : PP_LANE_RECEIVE);
    }
    pp_sim_result_free(result);
    c.border[0] = (pp_border_cost){0}; /* what takes no time has no span */
    result = simulate(&input);
    cr_assert_eq(result->trace->span_count, 8);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* Every action of a rank starts so long after it could; that is idle time. */
Test(engine, launches_take_time) {
    const int loop[] = {0, 1};
    costs c = costs_uniform(2, 1, 1, 1, 10);
    pp_schedule *schedule = schedule_from("0F0 0F1 0B0 0B1\n1F0 1B0 1F1 1B1", loop, 2, 2);
    pp_sim_input input = input_of(schedule, &c);
    for (int blocking = 0; blocking < 2; blocking++) {
        input.blocking = blocking;
        input.launch_s = 0;
        pp_sim_result *none = simulate(&input);
        input.launch_s = 0.25;
        pp_sim_result *some = simulate(&input);
        cr_assert_gt(some->makespan_s, none->makespan_s);
        cr_assert_eq(some->rank[0].busy_s, none->rank[0].busy_s);
        cr_assert_eq(some->rank[0].first_start_s, 0.25);
        cr_assert_leq(some->lower_bound_s, some->makespan_s);
        pp_sim_result_free(none);
        pp_sim_result_free(some);
    }
    pp_schedule_free(schedule);
    schedule = schedule_from("0F0 0B0 0STEP", loop, 1, 1);
    input = input_of(schedule, &c);
    input.launch_s = 0.25;
    pp_sim_result *result = simulate(&input);
    cr_assert_eq(result->makespan_s, 3 + 3 * 0.25);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(engine, a_reduction_waits_for_its_group) {
    const int placement[] = {0, 1};
    pp_schedule *schedule =
        schedule_from("0F0 0B0 0REDUCE_GRAD 0STEP\n1F0 1B0 1REDUCE_GRAD 1STEP", placement, 2, 2);
    costs c = costs_uniform(2, 1, 1, 1, 0);
    for (int s = 0; s < 2; s++) c.stage[s].reduce_s = 10, c.stage[s].optimizer_s = 100;
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *alone = simulate(&input); /* rank 1 is done with its backward at 4 */
    cr_assert_eq(alone->rank[1].last_end_s, 4 + 110);
    cr_assert_eq(alone->rank[0].last_end_s, 6 + 110);
    input.reduce_group = (int[]){1, 1};
    pp_sim_result *together = simulate(&input);
    cr_assert_eq(together->rank[1].last_end_s, 6 + 110);
    cr_assert_eq(together->rank[0].busy_s, 3 + 110);
    cr_assert_eq(together->span_s, 116);
    cr_assert_float_eq(together->span_bubble_fraction, 1 - 3.0 / 116, 1e-15);
    pp_sim_result_free(alone);
    pp_sim_result_free(together);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(engine, the_last_microbatch_is_scaled) {
    pp_schedule *schedule = build("1f1b", 1, 4);
    costs c = costs_uniform(1, 1, 1, 1, 0);
    pp_sim_input input = input_of(schedule, &c);
    input.last_microbatch_scale = 0.25;
    pp_sim_result *result = simulate(&input);
    cr_assert_eq(result->makespan_s, 9.75);
    cr_assert_eq(result->lower_bound_s, 9.75);
    cr_assert_eq(result->bubble_fraction, 0);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* Transfers that stand in a schedule are ignored unless blocking: the same times and memory. */
Test(engine, written_transfers_change_nothing) {
    for (uint64_t seed = 1; seed <= 200; seed++) {
        dice d = {seed};
        const char *names[] = {"naive", "gpipe", "1f1b"};
        int ranks = 1 + dice_below(&d, 6);
        pp_schedule *schedule = build(names[dice_below(&d, 3)], ranks, 1 + dice_below(&d, 8));
        pp_schedule *lowered;
        cr_assert_eq(pp_schedule_add_transfers(schedule, &lowered, NULL), PP_OK);
        costs c = costs_random(&d, ranks, true);
        pp_sim_input input = input_of(schedule, &c);
        input.keep_spans = true;
        pp_sim_result *plain = simulate(&input);
        input.schedule = lowered;
        pp_sim_result *with = simulate(&input);
        cr_assert_eq(plain->makespan_s, with->makespan_s, "seed %lu", seed);
        cr_assert_eq(plain->action_count, with->action_count);
        cr_assert_eq(plain->trace->span_count, with->trace->span_count);
        for (int p = 0; p < ranks; p++) {
            cr_assert_eq(plain->rank[p].peak.total, with->rank[p].peak.total, "seed %lu", seed);
            cr_assert_eq(plain->rank[p].first_start_s, with->rank[p].first_start_s, "seed %lu",
                         seed);
        }
        pp_sim_result_free(plain);
        pp_sim_result_free(with);
        pp_schedule_free(schedule);
        pp_schedule_free(lowered);
        costs_free(&c);
    }
}

/* ---- blocking ------------------------------------------------------------------------------ */

Test(engine, blocking_holds_both_ends) {
    /* one microbatch: the same as without blocking, but both ranks are held: 1 + C + 1 + 2 + C + 2
     */
    costs c = costs_uniform(2, 1, 1, 1, 10);
    pp_schedule *schedule = build("1f1b", 2, 1);
    pp_sim_input input = input_of(schedule, &c);
    input.blocking = true;
    input.keep_spans = true;
    pp_sim_result *result = simulate(&input);
    cr_assert_eq(result->makespan_s, 26);
    cr_assert_eq(result->rank[0].busy_s, 3);
    cr_assert_eq(result->trace->span_count, 4 + 4);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    /* gpipe: the second forward of rank 0 starts after its first send, 1 + 10, and is sent at 12 */
    schedule = schedule_from("0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1\n"
                             "1RECV_F0 1F0 1RECV_F1 1F1 1B0 1SEND_B0 1B1 1SEND_B1",
                             (int[]){0, 1}, 2, 2);
    schedule->has_transfers = true;
    input.schedule = schedule;
    result = simulate(&input);
    /* rank 1: F0 11-12, receive 12-22, F1 22-23, B0 23-25, send 25-35, B1 35-37; rank 0: B0 35-37;
     * both: transfer 37-47; rank 0: B1 47-49 */
    cr_assert_eq(result->makespan_s, 49);
    cr_assert_eq(result->span_s, 49);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(engine, blocking_is_never_faster) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        dice d = {seed};
        const char *names[] = {"naive", "gpipe", "1f1b"};
        int ranks = 1 + dice_below(&d, 6);
        pp_schedule *schedule = build(names[dice_below(&d, 3)], ranks, 1 + dice_below(&d, 8));
        costs c = costs_random(&d, ranks, false);
        pp_sim_input input = input_of(schedule, &c);
        pp_sim_result *free_running = simulate(&input);
        input.blocking = true;
        pp_sim_result *blocking = simulate(&input);
        cr_assert_geq(blocking->makespan_s, free_running->makespan_s, "seed %lu", seed);
        cr_assert_leq(pp_lower_bound(&input), blocking->makespan_s * (1 + 1e-12), "seed %lu", seed);
        memset(c.border, 0, (size_t)ranks * sizeof *c.border);
        pp_sim_result *no_transfer = simulate(&input);
        cr_assert_leq(no_transfer->makespan_s, blocking->makespan_s, "seed %lu", seed);
        pp_sim_result_free(free_running);
        pp_sim_result_free(blocking);
        pp_sim_result_free(no_transfer);
        pp_schedule_free(schedule);
        costs_free(&c);
    }
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void refuse(const pp_sim_input *input, pp_status status, const char *expected) {
    pp_sim_result *result;
    pp_error error = {0};
    cr_assert_eq(pp_simulate(input, &result, &error), status, "%s: %s", error.place, error.message);
    cr_assert_null(result);
    bool found = strstr(error.place, expected) || strstr(error.message, expected);
    cr_assert(found, "expected '%s' in '%s: %s'", expected, error.place, error.message);
}

Test(engine, bad_numbers_are_named) {
    pp_schedule *schedule = build("1f1b", 4, 4);
    costs c = costs_uniform(4, 1, 1, 1, 0);
    pp_sim_input input = input_of(schedule, &c);
    const double bad[] = {-1, NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 4; i++) {
        c.stage[3].forward_s = bad[i];
        refuse(&input, PP_E_INPUT, "stage 3 forward_s");
        c.stage[3].forward_s = 1;
        c.stage[2].optimizer_s = bad[i];
        refuse(&input, PP_E_INPUT, "stage 2 optimizer_s");
        c.stage[2].optimizer_s = 0;
        c.border[1].backward_occupancy_s = bad[i];
        refuse(&input, PP_E_INPUT, "border 1 backward_occupancy_s");
        c.border[1].backward_occupancy_s = 0;
        input.overlap_factor = bad[i];
        refuse(&input, PP_E_INPUT, "overlap factor");
        input.overlap_factor = 0;
        input.last_microbatch_scale = bad[i];
        refuse(&input, PP_E_INPUT, "last microbatch scale");
        input.last_microbatch_scale = 0;
        input.launch_s = bad[i];
        refuse(&input, PP_E_INPUT, "launch");
        input.launch_s = 0;
        input.jitter = bad[i];
        refuse(&input, PP_E_INPUT, "jitter");
        input.jitter = 0;
        double weights[4] = {1, bad[i], 1, 1};
        input.activation_weight = weights;
        refuse(&input, PP_E_INPUT, "stage 1 activation_weight");
        input.activation_weight = NULL;
    }
    input.reduce_group = (int[]){0, 1, 4, 0};
    refuse(&input, PP_E_INPUT, "group 4 of stage 2");
    input.reduce_group = NULL;
    pp_stage_bytes bytes[4] = {{0}};
    input.bytes = bytes;
    bytes[2].workspace = -1;
    refuse(&input, PP_E_INPUT, "stage 2 workspace");
    bytes[2].workspace = 0;
    bytes[1].released_by_input = 5;
    refuse(&input, PP_E_INPUT, "stage 1 released_by_input");
    bytes[1] = (pp_stage_bytes){.activation = INT64_MAX / 2};
    refuse(&input, PP_E_INPUT, "2^63");
    bytes[1] = (pp_stage_bytes){.parameters = INT64_MAX, .gradients = 1};
    refuse(&input, PP_E_INPUT, "rank 1");
    bytes[1] = (pp_stage_bytes){0};
    c.stage[0].forward_s = 1e308;
    refuse(&input, PP_E_INPUT, "infinity");
    input.stage = NULL;
    refuse(&input, PP_E_INPUT, "stage costs");
    input.schedule = NULL;
    refuse(&input, PP_E_INPUT, "schedule");
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(engine, bad_orders_are_refused) {
    static const struct {
        const char *rows;
        pp_status status;
        const char *expected;
    } cases[] = {
        {"0F0 0F0 0B0\n1F0 1B0", PP_E_INPUT, "0F0 stands there twice"},
        {"0B0 0F0\n1F0 1B0", PP_E_DEADLOCK, "0B0 comes before its forward"},
        {"0F0 0W0 0I0\n1F0 1B0", PP_E_DEADLOCK, "0W0 comes before"},
        {"0F0 0B0 0B0\n1F0 1B0", PP_E_INPUT, "0B0 repeats a backward"},
        {"0F0 0B0 0W0\n1F0 1B0", PP_E_INPUT, "0W0 repeats a backward"},
        {"0F0 0B0 0R0\n1F0 1B0", PP_E_INPUT, "0R0 comes after its backward"},
        {"0F0 1B0\n1F0 0B0", PP_E_INPUT, "stage of another rank"},
        {"0F0 0B0 7F0\n1F0 1B0", PP_E_INPUT, "stage that does not exist"},
        {"0F0 0STEP 0B0\n1F0 1B0", PP_E_INPUT, "0STEP comes before"},
        {"0F0 0B0 0STEP 0STEP\n1F0 1B0", PP_E_INPUT, "0STEP stands there twice"},
        {"0F0 0B0&\n1F0 1B0", PP_E_INPUT, "no pair"},
        {"0F0& 0B0\n1F0 1B0", PP_E_DEADLOCK, "0B0 comes before its forward"},
        {"0F0 0R0& 0B0\n1F0 1B0", PP_E_INPUT, "its own microbatch"},
        {"0F0 0B0 0F1 0B1\n1F1 1B1 1F0 1B0", PP_E_DEADLOCK, "waits"},
        {"0F0.1 0F0 0B0.1 0B0\n1F0 1F0.1 1B0.1 1B0", PP_E_DEADLOCK, "0F0.1 comes before the for"},
        {"0F0 0F0.1 0B0.1 0B0\n1F0 1F0.1 1B0 1B0.1", PP_E_DEADLOCK, "1B0 comes before the back"},
        {"0F0 0F0.1 0B0.1 0B0\n1F0 1I0 1F0.1 1B0.1", PP_E_DEADLOCK, "the last slice"},
        {"0F0 0F0.1& 0F0.2 0B0\n1F0", PP_E_DEADLOCK, "0F0.2 comes before the forward of the"},
    };
    costs c = costs_uniform(2, 1, 1, 1, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_schedule *schedule = schedule_from(cases[i].rows, (int[]){0, 1}, 2, 2);
        pp_sim_input input = input_of(schedule, &c);
        refuse(&input, cases[i].status, cases[i].expected);
        pp_schedule_free(schedule);
    }
    pp_schedule *sparse = schedule_from("0F99999 0B99999\n1F0 1B0", (int[]){0, 1}, 2, 2);
    pp_sim_input input = input_of(sparse, &c);
    refuse(&input, PP_E_INPUT, "actions are missing");
    pp_schedule_free(sparse);
    costs_free(&c);
}
