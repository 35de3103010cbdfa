/* Slot bounds against executions in which every rank runs as fast or as slowly as chance wants. */
#include "schedule_samples.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(slots);

enum { STAGES = 32, MICROBATCHES = 64 };

/* An execution: ranks run their next node when what it needs from elsewhere is done. */
typedef struct execution {
    const pp_schedule *schedule;
    size_t next[SAMPLE_RANKS];
    bool forward[STAGES][MICROBATCHES], backward[STAGES][MICROBATCHES];
    int inputs[STAGES], gradients[STAGES];           /* slots in use */
    int inputs_peak[STAGES], gradients_peak[STAGES]; /* over all executions */
} execution;

static bool can_run(const execution *e, pp_action a) {
    int before = pp_schedule_previous(e->schedule, a.stage);
    int after = pp_schedule_next(e->schedule, a.stage);
    if (a.kind == PP_FORWARD) return before < 0 || e->forward[before][a.microbatch];
    if (a.kind == PP_BACKWARD || a.kind == PP_INPUT)
        return after < 0 || e->backward[after][a.microbatch];
    return true;
}

static void raise_to(int *peak, int value) {
    if (value > *peak) *peak = value;
}

/* What an action's end sends. */
static void send(execution *e, pp_action a) {
    int before = pp_schedule_previous(e->schedule, a.stage);
    int after = pp_schedule_next(e->schedule, a.stage);
    bool backward = a.kind == PP_BACKWARD || a.kind == PP_INPUT;
    if (a.kind == PP_FORWARD) {
        e->forward[a.stage][a.microbatch] = true;
        if (after >= 0) raise_to(&e->inputs_peak[after], ++e->inputs[after]);
    } else if (backward) {
        e->backward[a.stage][a.microbatch] = true;
        if (before >= 0) raise_to(&e->gradients_peak[before], ++e->gradients[before]);
    }
}

/* What it frees. */
static void release(execution *e, pp_action a) {
    bool first = pp_schedule_previous(e->schedule, a.stage) < 0;
    bool last = pp_schedule_next(e->schedule, a.stage) < 0;
    if ((a.kind == PP_BACKWARD || a.kind == PP_WEIGHT) && !first) e->inputs[a.stage]--;
    if ((a.kind == PP_BACKWARD || a.kind == PP_INPUT) && !last) e->gradients[a.stage]--;
}

static bool run_next(execution *e, int p) {
    const pp_schedule *schedule = e->schedule;
    size_t i = e->next[p];
    if (i == schedule->first_action[p + 1]) return false;
    size_t end = i + (schedule->actions[i].overlapped ? 2 : 1);
    for (size_t a = i; a < end; a++)
        if (!can_run(e, schedule->actions[a])) return false;
    for (size_t a = i; a < end; a++) send(e, schedule->actions[a]);
    for (size_t a = i; a < end; a++) release(e, schedule->actions[a]);
    e->next[p] = end;
    return true;
}

/* Runs to the end. Each rank gets a random speed; now and then one rank is left out for as long as
 * anything else can run. */
static void execute(execution *e, uint64_t *random) {
    const pp_schedule *schedule = e->schedule;
    int weight[SAMPLE_RANKS], asleep = sample_below(random, schedule->ranks + 1), refused = 0;
    memcpy(e->next, schedule->first_action, (size_t)schedule->ranks * sizeof *e->next);
    memset(e->forward, 0, sizeof e->forward);
    memset(e->backward, 0, sizeof e->backward);
    for (int p = 0; p < schedule->ranks; p++) weight[p] = 1 + sample_below(random, 8);
    while (refused < 500) {
        int p = sample_below(random, schedule->ranks);
        bool tired = p == asleep || sample_below(random, 8) >= weight[p];
        bool ran = !tired && run_next(e, p);
        refused = ran ? 0 : refused + 1;
        if (refused == 200 && asleep < schedule->ranks && run_next(e, asleep)) refused = 0;
        if (sample_below(random, 64) == 0) asleep = sample_below(random, schedule->ranks + 1);
    }
    for (int p = 0; p < schedule->ranks; p++)
        cr_assert_eq(e->next[p], schedule->first_action[p + 1], "the execution got stuck");
}

/* Never above the bounds; returns how many of the bounds were reached. */
static int compare(const pp_schedule *schedule, uint64_t seed, int runs, int *bounds) {
    int inputs[STAGES], gradients[STAGES], reached = 0;
    uint64_t random = seed;
    execution e = {.schedule = schedule};
    cr_assert(schedule->stages <= STAGES && schedule->microbatches <= MICROBATCHES);
    cr_assert_eq(pp_schedule_slots(schedule, inputs, gradients, NULL), PP_OK);
    for (int i = 0; i < runs; i++) execute(&e, &random);
    for (int s = 0; s < schedule->stages; s++) {
        cr_assert_leq(e.inputs_peak[s], inputs[s], "seed %llu stage %d", (unsigned long long)seed,
                      s);
        cr_assert_leq(e.gradients_peak[s], gradients[s], "seed %llu stage %d",
                      (unsigned long long)seed, s);
        reached += (e.inputs_peak[s] == inputs[s]) + (e.gradients_peak[s] == gradients[s]);
        *bounds += 2;
    }
    return reached;
}

Test(slots, no_execution_exceeds_the_bounds_of_random_orders) {
    int reached = 0, bounds = 0;
    for (uint64_t seed = 1; seed <= 250; seed++) {
        sample order = sample_random(seed, 5, 6);
        pp_schedule *schedule = sample_build(&order);
        reached += compare(schedule, seed, 8, &bounds);
        pp_schedule_free(schedule);
        sample_free(&order);
    }
    /* a bound that is never reached would be waste */
    cr_expect_gt(reached, bounds / 2, "%d of %d", reached, bounds);
}

Test(slots, no_execution_exceeds_the_bounds_of_named_orders) {
    for (int k = 1; k <= 6; k++) {
        sample orders[] = {sample_1f1b(k, 2 * k + 1), sample_gpipe(k, k + 2),
                           sample_interleaved(k, 2 * k, 2)};
        for (int i = 0; i < 3; i++) {
            int bounds = 0;
            pp_schedule *schedule = sample_build(&orders[i]);
            compare(schedule, (uint64_t)k, 6, &bounds);
            pp_schedule_free(schedule);
            sample_free(&orders[i]);
        }
    }
}

Test(slots, known_numbers) {
    enum { K = 6, M = 20 };
    int inputs[STAGES], gradients[STAGES];
    sample order = sample_1f1b(K, M);
    pp_schedule *schedule = sample_build(&order);
    cr_assert_eq(pp_schedule_slots(schedule, inputs, gradients, NULL), PP_OK);
    for (int s = 0; s < K; s++) {
        cr_expect_eq(inputs[s], s == 0 ? 0 : K - (s - 1), "stage %d: %d", s, inputs[s]);
        cr_expect_eq(gradients[s], s == K - 1 ? 0 : K - s, "stage %d: %d", s, gradients[s]);
    }
    pp_schedule_free(schedule);
    sample_free(&order);

    order = sample_gpipe(K, M);
    schedule = sample_build(&order);
    cr_assert_eq(pp_schedule_slots(schedule, inputs, gradients, NULL), PP_OK);
    for (int s = 0; s < K; s++) {
        cr_expect_eq(inputs[s], s == 0 ? 0 : M);
        cr_expect_eq(gradients[s], s == K - 1 ? 0 : M);
    }
    pp_schedule_free(schedule);
    sample_free(&order);

    /* two I without their W keep two more inputs */
    schedule = sample_read("0F0,0F1,0B0,0B1\n1F0,1I0,1F1,1I1,1W0,1W1\n");
    cr_assert_eq(pp_schedule_slots(schedule, inputs, gradients, NULL), PP_OK);
    cr_expect_eq(inputs[1], 2 + 2);
    cr_expect_eq(gradients[0], 2);
    pp_schedule_free(schedule);
    cr_expect_eq(pp_live_bytes(), 0);
}

Test(slots, transfers_change_nothing) {
    int plain[2 * STAGES], lowered[2 * STAGES];
    for (uint64_t seed = 1; seed <= 50; seed++) {
        sample order = sample_random(seed, 5, 6);
        pp_schedule *schedule = sample_build(&order), *with;
        cr_assert_eq(pp_schedule_add_transfers(schedule, &with, NULL), PP_OK);
        cr_assert_eq(pp_schedule_slots(schedule, plain, plain + STAGES, NULL), PP_OK);
        cr_assert_eq(pp_schedule_slots(with, lowered, lowered + STAGES, NULL), PP_OK);
        for (int s = 0; s < schedule->stages; s++) {
            cr_expect_eq(plain[s], lowered[s]);
            cr_expect_eq(plain[STAGES + s], lowered[STAGES + s]);
        }
        pp_schedule_free(with);
        pp_schedule_free(schedule);
        sample_free(&order);
    }
}
