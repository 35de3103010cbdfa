/* The check against every interleaving (schedule_explorer.h), against hand-made hangs, and on what
 * it must accept. */
#include "schedule_explorer.h"
#include "schedule_samples.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(check);

typedef enum lowering { COMPUTE_ONLY, DERIVED, NAIVE, ROUND_ROBIN } lowering;

static pp_schedule *lowered_sample(const sample *s, lowering how) {
    pp_error error;
    pp_schedule *compute, *schedule = NULL;
    sample other = {0};
    switch (how) {
    case DERIVED:
        compute = sample_build(s);
        cr_assert_eq(pp_schedule_add_transfers(compute, &schedule, &error), PP_OK, "%s",
                     error.message);
        pp_schedule_free(compute);
        return schedule;
    case NAIVE:
        other = sample_lower_naive(s);
        break;
    case ROUND_ROBIN:
        other = sample_lower_round_robin(s);
        break;
    default:
        return sample_build(s);
    }
    schedule = sample_build(&other);
    sample_free(&other);
    return schedule;
}

static pp_status check(const pp_schedule *schedule, bool blocking, pp_error *error) {
    pp_check_report report;
    *error = (pp_error){0};
    pp_status status = pp_schedule_check(schedule, blocking, &report, error);
    cr_assert_eq(report.peak_activations != NULL, status == PP_OK);
    cr_assert_eq(report.complete && report.dependencies && report.matched && report.finishes,
                 status == PP_OK);
    pp_free(report.peak_activations);
    return status;
}

static void must_pass(const sample *s, lowering how, bool blocking, const char *what) {
    pp_error error;
    pp_schedule *schedule = lowered_sample(s, how);
    cr_expect_eq(check(schedule, blocking, &error), PP_OK, "%s K=%d M=%d: %s", what, s->ranks,
                 s->microbatches, error.message);
    pp_schedule_free(schedule);
}

/* ---- what must pass ------------------------------------------------------------------------ */

Test(check, named_orders_pass_as_derived_and_as_pytorch_lowers_them) {
    for (int k = 1; k <= 8; k++) {
        for (int m = 1; m <= 10; m++) {
            sample orders[] = {sample_1f1b(k, m), sample_gpipe(k, m),
                               sample_interleaved(k, k * (1 + m % 3), 2),
                               sample_interleaved(k, k * (1 + m % 2), 3)};
            for (int i = 0; i < 4; i++) {
                for (int how = COMPUTE_ONLY; how <= ROUND_ROBIN; how++) {
                    if (how == NAIVE) continue;
                    must_pass(&orders[i], (lowering)how, false, "queues");
                    must_pass(&orders[i], (lowering)how, true, "blocking");
                }
                sample_free(&orders[i]);
            }
        }
    }
}

Test(check, naive_1f1b_hangs_when_it_blocks_and_never_in_groups) {
    int hangs = 0, configurations = 0;
    for (int k = 1; k <= 31; k++) {
        for (int m = 1; m <= 31; m++) {
            sample order = sample_1f1b(k, m);
            pp_schedule *schedule = lowered_sample(&order, NAIVE);
            pp_error error;
            cr_expect_eq(check(schedule, false, &error), PP_OK, "K=%d M=%d: %s", k, m,
                         error.message);
            pp_status status = check(schedule, true, &error);
            cr_expect(status == PP_OK || status == PP_E_DEADLOCK);
            hangs += status == PP_E_DEADLOCK;
            configurations++;
            pp_schedule_free(schedule);
            sample_free(&order);
        }
    }
    /* one rank, or one microbatch, never crosses */
    cr_expect_eq(hangs, 30 * 30, "%d of %d", hangs, configurations);
}

Test(check, peaks_of_1f1b_and_gpipe) {
    for (int k = 1; k <= 8; k++) {
        for (int m = 1; m <= 12; m++) {
            sample orders[] = {sample_1f1b(k, m), sample_gpipe(k, m)};
            for (int i = 0; i < 2; i++) {
                pp_schedule *schedule = sample_build(&orders[i]);
                pp_check_report report;
                cr_assert_eq(pp_schedule_check(schedule, false, &report, NULL), PP_OK);
                for (int p = 0; p < k; p++) {
                    int peak = i == 1 || k - p > m ? m : k - p;
                    cr_expect_eq(report.peak_activations[p], (size_t)peak);
                }
                pp_free(report.peak_activations);
                pp_schedule_free(schedule);
                sample_free(&orders[i]);
            }
        }
    }
}

Test(check, a_report_is_not_needed) {
    pp_schedule *schedule = sample_read("0F0,0B0\n");
    cr_expect_eq(pp_schedule_check(schedule, false, NULL, NULL), PP_OK);
    pp_schedule_free(schedule);
    cr_expect_eq(pp_live_bytes(), 0);
}

Test(check, slices_run_forward_in_order_and_backward_in_reverse) {
    pp_schedule *schedule = sample_read("0F0.0,0F0.1,0B0.1,0B0.0\n1F0.0,1F0.1,1B0.1,1B0.0\n");
    pp_error error;
    cr_expect_eq(schedule->slices, 2);
    cr_expect_eq(check(schedule, false, &error), PP_OK, "%s", error.message);
    pp_schedule_free(schedule);
    schedule = sample_read("0F0.1,0F0.0,0B0.1,0B0.0\n");
    cr_expect_eq(check(schedule, false, &error), PP_E_DEADLOCK);
    cr_expect(strstr(error.message, "waits in 0F0.1 for its own 0F0"), "%s", error.message);
    pp_schedule_free(schedule);
    schedule = sample_read("0F0.0,0F0.1,0B0.0,0B0.1\n");
    cr_expect_eq(check(schedule, false, &error), PP_E_DEADLOCK);
    cr_expect(strstr(error.message, "waits in 0B0 for its own 0B0.1"), "%s", error.message);
    pp_schedule_free(schedule);
}

/* A group ends at F, B, I, W or R, and at nothing else. (REDUCE_GRAD and STEP cannot stand there.)
 */
Test(check, only_compute_actions_part_groups) {
    static const char *const between[] = {"0REDUCE_GRAD", "0UNSHARD", "0STEP", "0R0"};
    static const pp_status expected[] = {PP_E_INPUT, PP_OK, PP_E_INPUT, PP_E_DEADLOCK};
    for (int i = 0; i < 4; i++) {
        char csv[256];
        pp_error error;
        snprintf(csv, sizeof csv,
                 "0F0,0SEND_F0,0F1,0RECV_B0,%s,0SEND_F1,0RECV_B1,0B0,0B1\n"
                 "1RECV_F0,1F0,1RECV_F1,1F1,1B0,1SEND_B0,1B1,1SEND_B1\n",
                 between[i]);
        pp_schedule *schedule = sample_read(csv);
        cr_expect_eq(check(schedule, false, &error), expected[i], "%s: %s", between[i],
                     error.message);
        pp_schedule_free(schedule);
    }
}

/* As simulate has it. */
Test(check, nothing_is_computed_behind_the_step_of_its_stage) {
    pp_error error;
    pp_schedule *schedule = sample_read("0F0,0STEP,0B0\n");
    cr_expect_eq(check(schedule, false, &error), PP_E_INPUT);
    cr_expect(strstr(error.message, "rank 0, action 1: 0STEP") && strstr(error.message, "0B0"),
              "%s", error.message);
    pp_schedule_free(schedule);
    schedule = sample_read("0F0,1F0,1B0,1STEP,0B0,0REDUCE_GRAD,0STEP\n");
    cr_expect_eq(check(schedule, false, &error), PP_OK, "%s", error.message);
    pp_schedule_free(schedule);
}

/* ---- hangs in words ------------------------------------------------------------------------ */

/* Each line of a case is a rank; `words` is the whole of the message behind "the schedule hangs: ".
 */
static const struct hang {
    bool blocking;
    const char *csv, *words;
} hangs[] = {
    {false, "0B0,0F0\n", "rank 0 waits in 0B0 for its own 0F0, which stands behind it"},
    {false, "0F0,0W0,0I0\n", "rank 0 waits in 0W0 for its own 0I0, which stands behind it"},
    {false, "0F0,0B0,0R0\n", "rank 0 waits in 0B0 for its own 0R0, which stands behind it"},
    {false, "(0F0;0B0)OVERLAP_F_B\n",
     "rank 0 waits in 0B0 for its own 0F0, which runs as one with it"},
    /* stage 2 before stage 0 on one rank, with stage 1 elsewhere */
    {false, "2F0,0F0,2B0,0B0\n1F0,1B0\n",
     "rank 0 waits in 2F0 for its own 0F0, which stands behind it"},
    /* compute actions alone: each rank wants the other's later one first */
    {false, "0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n",
     "rank 0 waits in 0B0 for rank 1 to reach 1B0; rank 1 waits in 1F1 for rank 0 to reach 0F1"},
    {false, "# placement: 0,1,1,0\n# chains: 0-1,2-3\n0F0,0B0,3F0,3B0\n2F0,2B0,1F0,1B0\n",
     "rank 0 waits in 0B0 for rank 1 to reach 1B0; rank 1 waits in 2B0 for rank 0 to reach 3B0"},
    /* the same with transfers: compute queue, transfer queue, and back */
    {false,
     "0F0,0SEND_F0,0RECV_B0,0B0,0F1,0SEND_F1,0RECV_B1,0B1\n"
     "1RECV_F0,1F0,1RECV_F1,1F1,1B0,1SEND_B0,1B1,1SEND_B1\n",
     "rank 0 waits in 0RECV_B0 for rank 1 to reach 1SEND_B0; rank 1 waits in 1RECV_F1 for rank 0 "
     "to "
     "reach 0SEND_F1"},
    /* one group holds a RECV back until its SEND has something to send */
    {false,
     "0F0,0SEND_F0,0B0,0RECV_B0,0SEND_F1,0F1,0RECV_B1,0B1\n"
     "1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1\n",
     "rank 0 waits in 0B0 for its own 0RECV_B0; rank 0 waits in 0SEND_F1 (one group with 0RECV_B0) "
     "for its own 0F1"},
    /* blocking: both send first */
    {true,
     "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
     "1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1\n",
     "rank 0 waits in 0SEND_F1 for rank 1 to reach 1RECV_F1; rank 1 waits in 1SEND_B0 for rank 0 "
     "to "
     "reach 0RECV_B0"},
    {true, "0SEND_F0,0F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
     "rank 0 waits in 0SEND_F0 for its own 0F0, which stands behind it"},
    {true, "0F0,0SEND_F0,0RECV_B0,0B0\n1F0,1RECV_F0,1B0,1SEND_B0\n",
     "rank 1 waits in 1F0 for its own 1RECV_F0, which stands behind it"},
    {true, "0F0,0SEND_F0,0B0,0RECV_B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
     "rank 0 waits in 0B0 for its own 0RECV_B0, which stands behind it"},
    /* a ring of three ranks and one of two: the shorter is told */
    {true,
     "# placement: 0,1,2,0,3,4\n# chains: 0-3,4-5\n"
     "0F0,3RECV_F0,3F0,3B0,3SEND_B0,0SEND_F0,0RECV_B0,0B0\n"
     "1RECV_F0,1F0,1SEND_F0,1RECV_B0,1B0,1SEND_B0\n"
     "2RECV_F0,2F0,2SEND_F0,2RECV_B0,2B0,2SEND_B0\n"
     "4F0,4RECV_B0,4SEND_F0,4B0\n5RECV_F0,5F0,5B0,5SEND_B0\n",
     "rank 3 waits in 4RECV_B0 for rank 4 to reach 5SEND_B0; rank 4 waits in 5RECV_F0 for rank 3 "
     "to "
     "reach 4SEND_F0"},
    /* three in a ring, none of them neighbours of two others twice */
    {true,
     "# placement: 0,1,2,0\n"
     "0F0,3RECV_F0,3F0,3B0,3SEND_B0,0SEND_F0,0RECV_B0,0B0\n"
     "1RECV_F0,1F0,1SEND_F0,1RECV_B0,1B0,1SEND_B0\n"
     "2RECV_F0,2F0,2SEND_F0,2RECV_B0,2B0,2SEND_B0\n",
     "rank 0 waits in 3RECV_F0 for rank 2 to reach 2SEND_F0; rank 2 waits in 2RECV_F0 for rank 1 "
     "to "
     "reach 1SEND_F0; rank 1 waits in 1RECV_F0 for rank 0 to reach 0SEND_F0"},
};

Test(check, hangs_are_told_in_words) {
    static const char start[] = "the schedule hangs: ";
    for (size_t i = 0; i < sizeof hangs / sizeof *hangs; i++) {
        pp_error error;
        pp_schedule *schedule = sample_read(hangs[i].csv);
        cr_expect_eq(check(schedule, hangs[i].blocking, &error), PP_E_DEADLOCK, "case %zu: %s", i,
                     error.message);
        cr_expect_eq(strncmp(error.message, start, sizeof start - 1), 0, "%s", error.message);
        cr_expect_str_eq(error.message + sizeof start - 1, hangs[i].words, "case %zu:\n%s\n%s", i,
                         error.message + sizeof start - 1, hangs[i].words);
        cr_expect_str_eq(error.place, "x.csv");
        pp_schedule_free(schedule);
    }
}

/* A ring of K ranks that all receive first; the message must stay readable. */
Test(check, a_long_cycle_is_cut_short) {
    enum { K = 60 };
    sample order = sample_new(K, K + 1, 1);
    for (int s = 0; s <= K; s++) {
        int p = s % K;
        if (s == 0) sample_push(&order, 0, sample_action(PP_FORWARD, 0, 0));
        if (s == 0) continue;
        sample_push(&order, p, sample_action(PP_RECV_F, s, 0));
        sample_push(&order, p, sample_action(PP_FORWARD, s, 0));
        if (s < K) sample_push(&order, p, sample_action(PP_SEND_F, s, 0));
    }
    sample_push(&order, 0, sample_action(PP_SEND_F, 0, 0));
    for (int s = K; s >= 0; s--) {
        int p = s % K;
        if (s < K) sample_push(&order, p, sample_action(PP_RECV_B, s, 0));
        sample_push(&order, p, sample_action(PP_BACKWARD, s, 0));
        if (s > 0) sample_push(&order, p, sample_action(PP_SEND_B, s, 0));
    }
    pp_schedule *schedule = sample_build(&order);
    pp_error error;
    cr_expect_eq(check(schedule, true, &error), PP_E_DEADLOCK);
    cr_expect(strstr(error.message, "and so on, 60 waits in all"), "%s", error.message);
    cr_expect_eq(check(schedule, false, &error), PP_OK, "%s", error.message);
    pp_schedule_free(schedule);
    sample_free(&order);
}

/* ---- what is wrong but does not hang ------------------------------------------------------- */

static const struct wrong {
    const char *csv, *words;
} wrongs[] = {
    {"0F0,0B0,0F1\n", "rank 0 lacks 0B1"},
    {"0F0,0B0,0B1\n", "rank 0 lacks 0F1"},
    {"0F0,0I0\n", "rank 0 lacks 0W0"},
    {"0F0,0W0\n", "rank 0 lacks 0I0"},
    {"0F0,0B0\n1F0\n", "rank 1 lacks 1B0"},
    {"0F0,0B0\n1F0,1B0,1F2,1B2\n", "rank 0 lacks 0F1"},
    {"0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0\n", "rank 1 lacks 1SEND_B0"},
    {"0F0,0SEND_F0,0RECV_B0,0B0\n1F0,1B0,1SEND_B0\n", "rank 1 lacks 1RECV_F0"},
    {"0F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "rank 0 lacks 0SEND_F0"},
    {"0F0,0F1,0SEND_F0,0SEND_F1,0RECV_B0,0RECV_B1,0B0,0B1\n"
     "1RECV_F1,1RECV_F0,1F0,1F1,1B0,1SEND_B0,1B1,1SEND_B1\n",
     "message 0 from rank 0 to rank 1 is sent as 0SEND_F0 but received as 1RECV_F1"},
    {"# chains: 0-0,1-1\n0F0,0B0,1F1,1B1\n", "rank 0 lacks 1F0"},
};

Test(check, what_is_wrong_is_named) {
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        pp_error error;
        pp_schedule *schedule = sample_read(wrongs[i].csv);
        cr_expect_eq(check(schedule, false, &error), PP_E_INPUT, "case %zu", i);
        cr_expect(strstr(error.message, wrongs[i].words), "case %zu: %s", i, error.message);
        pp_schedule_free(schedule);
    }
}

/* ---- every interleaving -------------------------------------------------------------------- */

static void compare(const pp_schedule *schedule, bool blocking, uint64_t seed, int seen[5]) {
    pp_error error;
    explored truth = explore(schedule, blocking);
    pp_status status = check(schedule, blocking, &error);
    seen[truth]++;
    if (truth == EXPLORED_TOO_LARGE) return;
    bool agrees = truth == EXPLORED_FINISHES     ? status == PP_OK
                  : truth == EXPLORED_HANGS      ? status == PP_E_DEADLOCK
                  : truth == EXPLORED_INCOMPLETE ? status == PP_E_INPUT
                                                 : status != PP_OK;
    if (agrees) return;
    pp_text text = {0};
    pp_schedule_write_csv(schedule, &text);
    cr_assert_fail("seed %llu blocking %d: explored %d, checked %d (%s)\n%s",
                   (unsigned long long)seed, blocking, truth, status, error.message, text.bytes);
}

Test(check, agrees_with_every_interleaving, .timeout = 120) {
    int seen[5] = {0};
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        uint64_t random = seed;
        sample order = sample_random(seed, 3, 3);
        sample lowered[] = {sample_lower_naive(&order), sample_lower_round_robin(&order)};
        sample *chosen = seed % 4 == 0 ? &order : &lowered[seed % 2];
        int damages = sample_below(&random, 4);
        for (int i = 0; i < damages; i++) sample_damage(chosen, &random);
        pp_schedule *schedule = sample_build(chosen);
        bool lowers = schedule->has_transfers;
        compare(schedule, false, seed, seen);
        if (lowers) compare(schedule, true, seed, seen);
        pp_schedule_free(schedule);
        sample_free(&order);
        sample_free(&lowered[0]);
        sample_free(&lowered[1]);
    }
    /* the cases must reach every verdict, or the test sees nothing */
    for (int i = EXPLORED_FINISHES; i <= EXPLORED_MISMATCH; i++)
        cr_expect_gt(seen[i], 50, "verdict %d: %d", i, seen[i]);
    cr_expect_lt(seen[EXPLORED_TOO_LARGE], 300, "%d", seen[EXPLORED_TOO_LARGE]);
}
