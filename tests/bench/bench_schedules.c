/* How long it takes to build each schedule, to check it, and to simulate it, by size.
 *
 * Milliseconds of processor time, medians of several runs. The check derives transfers and proves
 * that the schedule finishes under every timing. PyTorch 2.14's Python needs 10.7 s to build its
 * interleaved schedule at K, M = 64, 512 and 7.6 s to simulate it. */
#include "sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RUNS = 5 };

static double processor_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values) {
    qsort(values, RUNS, sizeof *values, by_value);
    return values[RUNS / 2];
}

static void fail(const char *what, const pp_error *error) {
    fprintf(stderr, "%s: %s: %s\n", what, error->place, error->message);
    exit(1);
}

static void simulate(const pp_schedule *schedule, const pp_stage_cost *stage) {
    pp_sim_input input = {.schedule = schedule, .stage = stage};
    pp_sim_result *result;
    pp_error error;
    if (pp_simulate(&input, &result, &error) != PP_OK) fail(schedule->name, &error);
    pp_sim_result_free(result);
}

/* Seconds of one run of each; false: the family does not take this size. */
static bool run(const pp_schedule_request *request, double seconds[3], size_t *actions) {
    pp_schedule *schedule;
    pp_error error;
    double start_s = processor_s();
    if (pp_schedule_build(request, &schedule, &error) != PP_OK) return false;
    seconds[0] = processor_s() - start_s;
    start_s = processor_s();
    if (pp_schedule_check(schedule, false, NULL, &error) != PP_OK) fail(request->name, &error);
    seconds[1] = processor_s() - start_s;
    pp_stage_cost *stage = calloc((size_t)schedule->stages, sizeof *stage);
    for (int s = 0; s < schedule->stages; s++)
        stage[s] = (pp_stage_cost){.forward_s = 1, .input_s = 1, .weight_s = 1};
    start_s = processor_s();
    simulate(schedule, stage);
    seconds[2] = processor_s() - start_s;
    *actions = schedule->first_action[schedule->ranks];
    free(stage);
    pp_schedule_free(schedule);
    return true;
}

static void measure(const char *name, int ranks, int microbatches) {
    double seconds[3], all[3][RUNS];
    size_t actions = 0;
    pp_schedule_request request = {.name = name, .ranks = ranks, .microbatches = microbatches};
    for (int i = 0; i < RUNS; i++) {
        if (!run(&request, seconds, &actions)) return;
        for (int what = 0; what < 3; what++) all[what][i] = seconds[what];
    }
    printf("%-22s %5d %6d %9zu %9.3f %9.3f %9.3f\n", name, ranks, microbatches, actions,
           1e3 * median(all[0]), 1e3 * median(all[1]), 1e3 * median(all[2]));
    fflush(stdout);
}

int main(void) {
    static const int sizes[][2] = {{8, 64}, {16, 128}, {64, 512}};
    int count;
    const pp_schedule_family *families = pp_schedule_families(&count);
    printf("milliseconds of processor time, medians of %d runs\n", RUNS);
    printf("%-22s %5s %6s %9s %9s %9s %9s\n", "name", "K", "M", "actions", "build", "check",
           "simulate");
    for (int i = 0; i < count; i++)
        for (int size = 0; size < 3; size++)
            measure(families[i].name, sizes[size][0], sizes[size][1]);
    return 0;
}
