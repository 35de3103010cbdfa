/* The replay backend: computes nothing and waits the plan's times.
 *
 * What it is for: running a schedule on real threads and a real transport with durations that are
 * known exactly, so that what is left between prediction and measurement is the executor's own
 * overhead. The worker hands absolute deadlines down; they follow from the schedule and not from
 * when a thread woke up, so late wake-ups do not add up.
 *
 * The thread sleeps until shortly before the deadline and looks at the clock for the rest, which is
 * kept short: spinning steals the processor from other ranks (they may outnumber the cores). */
#include "executor/backends_internal.h"

#include <math.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>

#define SLEEP_UNCERTAINTY_S 20e-6 /* how late a sleeper typically wakes with the slack below */
#define TIMER_SLACK_NS 1UL

static bool replay_usable(char detail[256]) {
    snprintf(detail, 256, "always: waits the plan's times on threads");
    return true;
}

static pp_status replay_open(const pp_backend_seat *seat, void **state, pp_error *error) {
    (void)seat;
    (void)error;
    *state = NULL;
    /* Linux lets ordinary threads wake 50 µs late to save power; refusing only costs precision. */
    (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0UL, 0UL, 0UL);
    return PP_OK;
}

static void replay_close(void *state) {
    (void)state;
}

static void *replay_allocate(void *state, size_t size_bytes) {
    (void)state;
    (void)size_bytes;
    return NULL;
}

static void replay_release(void *state, void *block, size_t size_bytes) {
    (void)state;
    (void)block;
    (void)size_bytes;
}

static const pp_layer_ops *replay_layer(pp_op op, pp_dtype dtype) {
    (void)op;
    (void)dtype;
    return NULL;
}

static void sleep_for(double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double nanoseconds = (double)until.tv_nsec + fmin(seconds, 1.0) * 1e9;
    until.tv_sec += (time_t)(nanoseconds / 1e9);
    until.tv_nsec = (long)fmod(nanoseconds, 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void replay_wait_until(void *state, double until_s) {
    (void)state;
    for (double left_s; (left_s = until_s - pp_now_s()) > 0;)
        if (left_s > SLEEP_UNCERTAINTY_S) sleep_for(left_s - SLEEP_UNCERTAINTY_S);
}

const pp_backend pp_backend_replay = {
    .name = "replay",
    .runs_layers = false,
    .usable = replay_usable,
    .open = replay_open,
    .close = replay_close,
    .allocate = replay_allocate,
    .release = replay_release,
    .layer = replay_layer,
    .wait_until = replay_wait_until,
};
