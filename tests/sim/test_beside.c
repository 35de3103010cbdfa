/* What runs beside compute: gradient reductions and the reading of data, by hand. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>

COUNTED_SUITE(beside);

typedef struct hand {
    const char *rows;
    int placement[4], stages, ranks;
    pp_stage_cost each;
    int buckets;
    int *group;
    double load_s;
    bool prefetch, blocking;
} hand;

static double makespan_of(const hand *h, double *busy_s) {
    pp_schedule *schedule = schedule_from(h->rows, h->placement, h->stages, h->ranks);
    costs c = costs_uniform(h->stages, 0, 0, 0, 0);
    for (int s = 0; s < h->stages; s++) c.stage[s] = h->each;
    pp_sim_input input = input_of(schedule, &c);
    input.reduce_buckets = h->buckets;
    input.reduce_group = h->group;
    input.load_s = h->load_s;
    input.prefetch = h->prefetch;
    input.blocking = h->blocking;
    double makespan = 0;
    for (int engine = 0; engine < 2; engine++) {
        input.general = engine;
        pp_sim_result *result = simulate(&input);
        if (engine) cr_assert_eq(result->makespan_s, makespan, "the engines differ");
        cr_assert_leq(result->lower_bound_s, result->makespan_s);
        makespan = result->makespan_s;
        if (busy_s) *busy_s = result->rank[0].busy_s;
        pp_sim_result_free(result);
    }
    pp_schedule_free(schedule);
    costs_free(&c);
    return makespan;
}

/* F 1, B 4 (I 2, W 2), STEP 1; a reduction of 10, of which 8 is transfer with 2 of latency. */
static const pp_stage_cost reducing = {.forward_s = 1,
                                       .input_s = 2,
                                       .weight_s = 2,
                                       .reduce_s = 10,
                                       .optimizer_s = 1,
                                       .reduce_transfer_s = 8,
                                       .reduce_latency_s = 2};

Test(beside, one_bucket_is_all_exposed_behind_the_last_backward) {
    hand h = {"0F0 0B0 0REDUCE_GRAD 0STEP", {0}, 1, 1, reducing, .buckets = 0};
    double busy;
    cr_assert_eq(makespan_of(&h, &busy), 5 + 10 + 1);
    cr_assert_eq(busy, 16);
    h.buckets = 1; /* arithmetic (2) and transfer (8) begin together */
    cr_assert_eq(makespan_of(&h, &busy), 5 + 8 + 1);
    cr_assert_eq(busy, 5 + 2 + 1, "a transfer is not busy");
}

/* Buckets of 2 + 6/2 = 5: ready at 3 and 5, sent at 3 and 8. */
Test(beside, buckets_leave_during_the_last_backward) {
    hand h = {"0F0 0B0 0REDUCE_GRAD 0STEP", {0}, 1, 1, reducing, .buckets = 2};
    cr_assert_eq(makespan_of(&h, NULL), 13 + 1);
    /* W alone makes gradients: ready at 4 and 5, sent at 4 and 9 */
    h.rows = "0F0 0I0 0W0 0REDUCE_GRAD 0STEP";
    cr_assert_eq(makespan_of(&h, NULL), 14 + 1);
    /* of a pair all appears at its end (1 + 1 + 4 = 6): sent at 6 and 11, then a B of 4 waits not
     */
    h.rows = "0F0 0F1& 0B0 0REDUCE_GRAD 0STEP";
    cr_assert_eq(makespan_of(&h, NULL), 16 + 1);
}

/* Two stages on a rank: stage 1 is done at 6, its transfer of 8 runs beside B of stage 0 (to 10 + 2
 * of arithmetic); that of stage 0 follows on the same lane from 14 to 22. */
Test(beside, transfers_run_beside_other_stages_of_the_rank) {
    hand h = {"0F0 1F0 1B0 1REDUCE_GRAD 0B0 0REDUCE_GRAD 1STEP 0STEP",
              {0, 0},
              2,
              1,
              reducing,
              .buckets = 1};
    cr_assert_eq(makespan_of(&h, NULL), 22 + 1);
    h.buckets = 0;
    cr_assert_eq(makespan_of(&h, NULL), 2 + 8 + 20 + 2);
    h.each.reduce_s = 2, h.each.reduce_transfer_s = 2, h.each.reduce_latency_s = 0;
    h.buckets = 1; /* stage 1: 6 to 8, hidden; stage 0: 10 to 12, exposed; both STEPs after */
    cr_assert_eq(makespan_of(&h, NULL), 12 + 1);
}

/* Tied stages on two ranks: both transfers begin when both have ended (1 + 1 + 4 + 4 = 10). */
Test(beside, ties_wait_for_every_stage_of_the_group_and_hold_up_steps_alone) {
    hand h = {"0F0 0B0 0REDUCE_GRAD 0STEP\n1F0 1B0 1REDUCE_GRAD 1STEP",
              {0, 1},
              2,
              2,
              {.forward_s = 1, .input_s = 4, .reduce_s = 3, .optimizer_s = 1, .tie_transfer_s = 3},
              .buckets = 1,
              .group = (int[]){1, 1}};
    cr_assert_eq(makespan_of(&h, NULL), 10 + 3 + 1);
    h.rows = "0F0 0B0 0REDUCE_GRAD\n1F0 1B0 1REDUCE_GRAD";
    cr_assert_eq(makespan_of(&h, NULL), 10 + 3, "without a STEP the end of the step waits");
    h.blocking = true;
    cr_assert_eq(makespan_of(&h, NULL), 10 + 3);
}

Test(beside, a_reduction_behind_its_step_is_refused) {
    pp_schedule *schedule = schedule_from("0F0 0B0 0STEP 0REDUCE_GRAD", (int[]){0}, 1, 1);
    costs c = costs_uniform(1, 1, 1, 1, 0);
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *result;
    pp_error error = {0};
    cr_assert_eq(pp_simulate(&input, &result, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "comes after the STEP"), "%s", error.message);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* Parts larger than the whole, and too many buckets. */
Test(beside, impossible_reductions_are_refused) {
    pp_schedule *schedule = build("1f1b", 1, 1);
    costs c = costs_uniform(1, 1, 1, 1, 0);
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *result;
    c.stage[0].reduce_transfer_s = 1;
    cr_assert_eq(pp_simulate(&input, &result, NULL), PP_E_INPUT);
    c.stage[0].reduce_s = 1, c.stage[0].reduce_latency_s = 2;
    cr_assert_eq(pp_simulate(&input, &result, NULL), PP_E_INPUT);
    c.stage[0].reduce_latency_s = 1, input.reduce_buckets = PP_REDUCE_BUCKETS_MAX + 1;
    cr_assert_eq(pp_simulate(&input, &result, NULL), PP_E_INPUT);
    input.reduce_buckets = -1;
    cr_assert_eq(pp_simulate(&input, &result, NULL), PP_E_INPUT);
    input.reduce_buckets = 0, input.load_s = NAN;
    cr_assert_eq(pp_simulate(&input, &result, NULL), PP_E_INPUT);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* ---- data ---------------------------------------------------------------------------------- */

/* F 3, B 4 on one rank, three microbatches, 2 to read each. */
Test(beside, data_is_read_before_each_forward_or_beside_compute) {
    hand h = {"0F0 0F1 0F2 0B0 0B1 0B2", {0}, 1, 1, {.forward_s = 3, .input_s = 4}, .load_s = 2};
    double busy;
    cr_assert_eq(makespan_of(&h, &busy), 3 * (2 + 3) + 12);
    cr_assert_eq(busy, 21);
    h.prefetch = true; /* the second is there at 2, the third at 4: nobody waits */
    cr_assert_eq(makespan_of(&h, NULL), 21);
    h.load_s = 5; /* there at 0, 5, 10 */
    cr_assert_eq(makespan_of(&h, NULL), 10 + 3 + 12);
}

/* The loss reads what it compares with while the activations are on their way. */
Test(beside, first_and_last_stage_read) {
    hand h = {"0F0\n1F0\n2F0", {0, 1, 2}, 3, 3, {.forward_s = 3}, .load_s = 2};
    cr_assert_eq(makespan_of(&h, NULL), 2 + 9);
    h.load_s = 20; /* both begin at 0 */
    cr_assert_eq(makespan_of(&h, NULL), 20 + 9);
    h.prefetch = true;
    cr_assert_eq(makespan_of(&h, NULL), 9);
    h = (hand){"0F0 2F0\n1F0", {0, 1, 0}, 3, 2, {.forward_s = 3}, .load_s = 2};
    cr_assert_eq(makespan_of(&h, NULL), 2 + 9, "a rank that has both reads once");
}
