/* How long the search for a schedule takes and how near to the lower bound it comes. The budget of
 * the search is counted in actions, so only its time depends on the machine. The goal is K = 64,
 * M = 512 inside a second. */
#include "sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct setting {
    int ranks, visits, microbatches;
    double memory; /* in activations of all of a rank's stages, per rank */
    bool unequal;
} setting;

static double processor_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Stages like those of a transformer, the last with its head on top if unequal. */
static void fill(const setting *s, pp_stage_cost *stage, pp_border_cost *border, double *limit) {
    int stages = s->ranks * s->visits;
    for (int i = 0; i < stages; i++) {
        double size = s->unequal ? 1 + 0.02 * (i % 7) + (i == stages - 1 ? 0.3 : 0) : 1;
        size /= s->visits;
        stage[i] =
            (pp_stage_cost){.forward_s = 1.0 * size, .input_s = 1.1 * size, .weight_s = 0.7 * size};
        border[i] = (pp_border_cost){.latency_s = 0.03};
    }
    for (int p = 0; p < s->ranks; p++) limit[p] = s->memory;
}

static void measure(const setting *s) {
    size_t stages = (size_t)s->ranks * (size_t)s->visits;
    pp_stage_cost *stage = calloc(stages, sizeof *stage);
    pp_border_cost *border = calloc(stages, sizeof *border);
    double *limit = calloc((size_t)s->ranks, sizeof *limit);
    if (!stage || !border || !limit) exit(1);
    fill(s, stage, border, limit);
    pp_auto_request request = {.ranks = s->ranks,
                               .microbatches = s->microbatches,
                               .virtual_stages = s->visits,
                               .stage = stage,
                               .border = border,
                               .limit = limit};
    pp_auto_result result;
    pp_error error;
    double start_s = processor_s();
    if (pp_auto_schedule(&request, &result, &error) != PP_OK) {
        fprintf(stderr, "%s: %s\n", error.place, error.message);
        exit(1);
    }
    printf("%4d %2d %5d %7.0f %-8s %8.3f %9.3f%% %9.3f%%  %s\n", s->ranks, s->visits,
           s->microbatches, s->memory, s->unequal ? "unequal" : "equal", processor_s() - start_s,
           100 * (result.makespan_s / result.makespan_bound_s - 1),
           100 * (result.span_s / result.span_bound_s - 1), result.origin);
    fflush(stdout);
    pp_schedule_free(result.schedule);
    free(stage), free(border), free(limit);
}

int main(void) {
    static const setting settings[] = {
        {4, 1, 16, 4, false},    {8, 1, 64, 8, false},    {8, 1, 64, 16, false},
        {8, 1, 64, 8, true},     {8, 2, 64, 8, true},     {16, 1, 128, 16, false},
        {16, 1, 128, 32, true},  {16, 2, 128, 8, false},  {64, 1, 512, 64, false},
        {64, 1, 512, 128, true}, {64, 2, 512, 64, false}, {64, 2, 512, 32, true},
    };
    printf("%4s %2s %5s %7s %-8s %8s %10s %10s  %s\n", "K", "V", "M", "memory", "stages", "seconds",
           "gap", "span gap", "found by");
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) measure(&settings[i]);
    return 0;
}
