/* How fast the simulator is.
 *
 *   bench_simulate            simulated actions per second, medians of several runs, by schedule
 * and size bench_simulate large      the whole process once: 1024 ranks x 4096 microbatches x F, I,
 * W; time it from outside for start-up and exit as well
 *
 * Memory accounting is on in all of them: counts and weights of activations always, bytes in the
 * column that says so. "general" is the engine by events, where nothing is shared. The goal is 100
 * million actions/s with spans off, and 0.5 s and 512 MiB for the large step. */
#include "sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { RUNS = 7 };

static void fail(const char *what, const pp_error *error) {
    fprintf(stderr, "%s: %s: %s\n", what, error->place, error->message);
    exit(1);
}

static pp_schedule *build(const char *name, int ranks, int microbatches) {
    pp_schedule *schedule;
    pp_error error;
    pp_schedule_request request = {.name = name, .ranks = ranks, .microbatches = microbatches};
    if (pp_schedule_build(&request, &schedule, &error) != PP_OK) fail(name, &error);
    return schedule;
}

/* The same order with every B as I, W. */
static pp_schedule *split_backward(pp_schedule *whole) {
    pp_schedule *split;
    pp_error error;
    size_t count = whole->first_action[whole->ranks], at = 0;
    if (pp_schedule_new(whole->ranks, whole->stages, whole->microbatches, count + count / 2, &split,
                        &error) != PP_OK)
        fail("split", &error);
    memcpy(split->placement, whole->placement, (size_t)whole->stages * sizeof *whole->placement);
    for (int p = 0; p < whole->ranks; p++) {
        split->first_action[p] = at;
        for (size_t i = whole->first_action[p]; i < whole->first_action[p + 1]; i++) {
            pp_action action = whole->actions[i];
            if (action.kind != PP_BACKWARD) {
                split->actions[at++] = action;
                continue;
            }
            action.kind = PP_INPUT;
            split->actions[at++] = action;
            action.kind = PP_WEIGHT;
            split->actions[at++] = action;
        }
    }
    split->first_action[whole->ranks] = at;
    pp_schedule_free(whole);
    return split;
}

typedef struct setting {
    pp_sim_input input;
    pp_stage_cost *stage;
    pp_border_cost *border;
    pp_stage_bytes *bytes;
} setting;

static setting setting_make(const pp_schedule *schedule) {
    size_t stages = (size_t)schedule->stages;
    setting s = {.stage = calloc(stages, sizeof *s.stage),
                 .border = calloc(stages, sizeof *s.border),
                 .bytes = calloc(stages, sizeof *s.bytes)};
    for (size_t i = 0; i < stages; i++) {
        s.stage[i] = (pp_stage_cost){
            .forward_s = 1.0 + 0.01 * (double)(i % 7), .input_s = 1.1, .weight_s = 0.7};
        s.border[i].latency_s = 0.03;
        s.bytes[i] = (pp_stage_bytes){
            .parameters = 1000, .activation = 100, .released_by_input = 60, .stash = 5};
    }
    s.input = (pp_sim_input){.schedule = schedule, .stage = s.stage, .border = s.border};
    return s;
}

static void setting_free(setting *s) {
    free(s->stage), free(s->border), free(s->bytes);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Processor time of this thread: what else runs on the machine hardly matters. */
static double processor_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Median of RUNS, in million actions per second. */
static double rate(const pp_sim_input *input) {
    double seconds[RUNS];
    size_t actions = 0;
    for (int run = 0; run < RUNS; run++) {
        pp_sim_result *result;
        pp_error error;
        double start_s = processor_s();
        if (pp_simulate(input, &result, &error) != PP_OK) fail("simulate", &error);
        seconds[run] = processor_s() - start_s;
        actions = result->action_count;
        pp_sim_result_free(result);
    }
    qsort(seconds, RUNS, sizeof *seconds, by_value);
    return (double)actions / seconds[RUNS / 2] * 1e-6;
}

static void measure(const char *name, int ranks, int microbatches, bool split) {
    pp_schedule *schedule = build(name, ranks, microbatches);
    if (split) schedule = split_backward(schedule);
    setting s = setting_make(schedule);
    size_t actions = schedule->first_action[schedule->ranks];
    double plain = rate(&s.input), with_spans = 0, general = 0;
    s.input.bytes = s.bytes;
    double bytes = rate(&s.input);
    s.input.bytes = NULL;
    s.input.keep_spans = true;
    if (actions <= 4000000) with_spans = rate(&s.input);
    s.input.keep_spans = false;
    s.input.general = true;
    if (actions <= 4000000) general = rate(&s.input);
    printf("%-5s %-5s %5d %6d %10zu %9.1f %9.1f ", name, split ? "F,I,W" : "F,B", ranks,
           microbatches, actions, plain, bytes);
    if (with_spans > 0)
        printf("%9.1f %9.1f\n", with_spans, general);
    else
        printf("%9s %9s\n", "-", "-");
    fflush(stdout);
    setting_free(&s);
    pp_schedule_free(schedule);
}

static double peak_mebibytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024.0;
}

static void large(void) {
    double start_s = processor_s();
    pp_schedule *schedule = split_backward(build("1f1b", 1024, 4096));
    double built_s = processor_s();
    setting s = setting_make(schedule);
    pp_sim_result *result;
    pp_error error;
    if (pp_simulate(&s.input, &result, &error) != PP_OK) fail("simulate", &error);
    double end_s = processor_s();
    printf("1024 ranks x 4096 microbatches x F, I, W: %zu actions\n", result->action_count);
    printf("  processor time: order %.3f s, simulation %.3f s (%.0f million actions/s), together "
           "%.3f s\n",
           built_s - start_s, end_s - built_s,
           (double)result->action_count / (end_s - built_s) * 1e-6, end_s - start_s);
    printf("  largest resident memory %.0f MiB, makespan %.6g s, gap %.3g\n", peak_mebibytes(),
           result->makespan_s, result->gap);
    pp_sim_result_free(result);
    setting_free(&s);
    pp_schedule_free(schedule);
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "large") == 0) {
        large();
        return 0;
    }
    static const struct {
        int ranks, microbatches;
    } sizes[] = {{4, 16}, {8, 64}, {16, 256}, {64, 1024}, {256, 1024}, {1024, 4096}};
    printf("million actions per second of processor time, median of %d runs\n", RUNS);
    printf("%-5s %-5s %5s %6s %10s %9s %9s %9s %9s\n", "name", "kinds", "K", "M", "actions",
           "counts", "bytes", "spans", "general");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        measure("1f1b", sizes[i].ranks, sizes[i].microbatches, false);
        measure("1f1b", sizes[i].ranks, sizes[i].microbatches, true);
        measure("gpipe", sizes[i].ranks, sizes[i].microbatches, false);
    }
    return 0;
}
