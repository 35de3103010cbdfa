/* PipeDream's dynamic programme: stages with replicas of their own (Narayanan et al., "PipeDream:
 * generalized pipeline parallelism for DNN training", SOSP 2019, section 3.1), as its published
 * optimizer computes it, level by level of the network.
 *
 * A level has N machines joined by links of bandwidth B; a machine of the first level is a device,
 * one of the next is a whole group of the level below. T(i, j) is what the layers from cut i to cut
 * j take on one machine: on the first level their compute, above it the level below at its best.
 * With P the parameter bytes of the layers, A those and the bytes of all their outputs, O(k) what
 * PipeDream takes to be alive at cut k, and G the devices of a machine of the level below (1 on the
 * first),
 *
 *   one stage of m replicas   (T + 4(m-1)P / (B m) / G) / m        if ceil((N-m)/m) A fits
 *   a last stage of r         max of (T + 4(r-1)P / (B r)) / r, 2 O(start) / (B r) and, unless it
 *                             ends the model, 2 O(end) / (B r)     if ceil((N-used)/r) A fits
 *
 * and best(i, j, m) is the least over the one stage, and over all last stages with r of the m
 * machines, of the larger of it and best(i, its start, m - r). Without replicas every m and r of
 * these is 1. The answer uses all machines. G is in the first formula alone, as published.
 *
 * Cost of a row (one i): pairs of cuts · machines². */
#include <math.h>
#include <string.h>

#include "planner/pipedream_internal.h"

/* One level while one row of it is filled. */
typedef struct row {
    const pp_pipedream *problem;
    int level, machines, start;
    double bandwidth;
    double *best;         /* [cuts][machines + 1] */
    pp_last_stage *chosen; /* [cuts][machines + 1] */
    double *stage;        /* [machines + 1] of the last stage at hand, by replicas */
} row;

static double *best_at(const row *r, int cut) {
    return r->best + (size_t)cut * (size_t)(r->machines + 1);
}

static pp_last_stage *chosen_at(const row *r, int cut) {
    return r->chosen + (size_t)cut * (size_t)(r->machines + 1);
}

/* T */
static double time_of(const row *r, int from, int to) {
    const pp_pipedream *p = r->problem;
    if (r->level > 0) return p->below[(size_t)from * (size_t)p->lattice->count + (size_t)to];
    return p->compute[to] - p->compute[from];
}

static bool fits(const row *r, int from, int to, int used, int replicas) {
    const pp_pipedream *p = r->problem;
    double held = p->outputs[to] - p->outputs[from] + (p->parameters[to] - p->parameters[from]);
    return ceil((double)(r->machines - used) / replicas) * held <= p->limit_bytes;
}

static double sharing_s(const row *r, int from, int to, int replicas) {
    const pp_pipedream *p = r->problem;
    double bytes = p->parameters[to] - p->parameters[from];
    return 4.0 * (replicas - 1) * bytes / (r->bandwidth * replicas);
}

static double alone(const row *r, int to, int replicas) {
    if (!fits(r, r->start, to, replicas, replicas)) return INFINITY;
    int below = r->level > 0 ? r->problem->levels[r->level - 1].machines : 1;
    double sharing = sharing_s(r, r->start, to, replicas) / below;
    return (time_of(r, r->start, to) + sharing) / replicas;
}

/* stage[1 …] of the layers between two cuts. */
static void fill_last(const row *r, int from, int to, int most) {
    const pp_pipedream *p = r->problem;
    double time = time_of(r, from, to);
    double crossing = to < p->lattice->count - 1 ? fmax(p->alive[from], p->alive[to])
                                                 : p->alive[from];
    for (int m = 1; m <= most; m++) {
        double last = (time + sharing_s(r, from, to, m)) / m;
        r->stage[m] = fmax(last, 2 * crossing / (r->bandwidth * m));
    }
}

static void try_last(const row *r, int from, int to) {
    bool straight = r->problem->straight;
    const double *before = best_at(r, from);
    double *best = best_at(r, to);
    fill_last(r, from, to, straight ? 1 : r->machines - 1);
    for (int used = 2; used <= r->machines; used++) {
        int most = straight ? 1 : used - 1;
        for (int m = 1; m <= most; m++) {
            double slower = fmax(before[used - m], r->stage[m]);
            if (slower >= best[used] || !fits(r, from, to, used, m)) continue;
            best[used] = slower;
            chosen_at(r, to)[used] = (pp_last_stage){from, m};
        }
    }
}

/* best and chosen for every cut behind the row's start. */
static void fill_row(const row *r) {
    const pp_lattice *lattice = r->problem->lattice;
    for (int to = r->start + 1; to < lattice->count; to++) {
        if (!pp_lattice_within(lattice, r->start, to)) continue;
        for (int m = 1; m <= r->machines; m++) {
            bool may = m == 1 || !r->problem->straight;
            best_at(r, to)[m] = may ? alone(r, to, m) : INFINITY;
            chosen_at(r, to)[m] = (pp_last_stage){r->start, m};
        }
        for (int from = r->start + 1; from < to; from++) {
            if (!pp_lattice_within(lattice, r->start, from)) continue;
            if (pp_lattice_within(lattice, from, to)) try_last(r, from, to);
        }
    }
}

/* Adds the stages that lead from the row's start to a cut, first to last, with `times` the replicas
 * of each. False: out of room. */
static void add_stages(const row *r, int to, int machines, int times, pp_pipedream_answer *answer) {
    pp_last_stage last = chosen_at(r, to)[machines];
    if (last.from != r->start) add_stages(r, last.from, machines - last.replicas, times, answer);
    answer->stages[answer->count++] =
        (pp_pipedream_stage){last.from, to, times * last.replicas, time_of(r, last.from, to)};
}

static row row_of(pp_pipedream *problem, int level, int start) {
    return (row){.problem = problem,
                 .level = level,
                 .machines = problem->levels[level].machines,
                 .bandwidth = problem->levels[level].bandwidth,
                 .start = start,
                 .best = problem->best,
                 .chosen = problem->chosen,
                 .stage = problem->stage};
}

/* below[i][j]: what all machines of the first level make of the layers between two cuts. */
static void fill_below(pp_pipedream *problem) {
    int count = problem->lattice->count, machines = problem->levels[0].machines;
    for (int i = 0; i < count - 1; i++) {
        row r = row_of(problem, 0, i);
        fill_row(&r);
        for (int j = i + 1; j < count; j++) {
            if (!pp_lattice_within(problem->lattice, i, j)) continue;
            problem->below[(size_t)i * (size_t)count + (size_t)j] = best_at(&r, j)[machines];
        }
    }
}

/* Each stage of the upper level becomes its stages on the lower one. */
static void refine(pp_pipedream *problem, const pp_pipedream_answer *upper,
                   pp_pipedream_answer *answer) {
    for (int s = 0; s < upper->count; s++) {
        const pp_pipedream_stage *stage = &upper->stages[s];
        row r = row_of(problem, 0, stage->from);
        fill_row(&r);
        add_stages(&r, stage->to, r.machines, stage->replicas, answer);
    }
}

static bool allocate(pp_pipedream *problem, pp_arena *arena) {
    size_t count = (size_t)problem->lattice->count, most = 0;
    for (int l = 0; l < problem->level_count; l++) {
        size_t machines = (size_t)problem->levels[l].machines;
        if (machines > most) most = machines;
    }
    problem->best = PP_NEW(arena, double, count *(most + 1));
    problem->chosen = PP_NEW(arena, pp_last_stage, count *(most + 1));
    problem->stage = PP_NEW(arena, double, most + 1);
    if (problem->level_count > 1) problem->below = PP_NEW(arena, double, count *count);
    return !arena->failed;
}

pp_status pp_pipedream_solve(pp_pipedream *problem, pp_arena *arena, pp_pipedream_answer *answer,
                             pp_error *error) {
    int end = problem->lattice->count - 1, top = problem->level_count - 1;
    pp_pipedream_answer upper = {.stages = PP_NEW(arena, pp_pipedream_stage, end + 1)};
    *answer = (pp_pipedream_answer){.stages = PP_NEW(arena, pp_pipedream_stage, end + 1)};
    if (arena->failed || !allocate(problem, arena)) return pp_fail_memory(error);
    if (top > 0) fill_below(problem);
    row r = row_of(problem, top, 0);
    fill_row(&r);
    answer->seconds = best_at(&r, end)[r.machines];
    if (answer->seconds == INFINITY) return PP_E_NO_FIT;
    add_stages(&r, end, r.machines, 1, top > 0 ? &upper : answer);
    if (top > 0) refine(problem, &upper, answer);
    return PP_OK;
}
