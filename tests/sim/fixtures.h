/* Fixtures of the simulator's tests: random schedules that are free of deadlock, random costs, and
 * a second, slow implementation of times and memory to compare with. */
#ifndef PPSIM_TESTS_SIM_FIXTURES_H
#define PPSIM_TESTS_SIM_FIXTURES_H

#include "sim/sim.h"

/* A plain generator for tests: seeded, 64 bits. */
typedef struct dice {
    uint64_t state;
} dice;
uint64_t dice_roll(dice *d);
int dice_below(dice *d, int bound); /* 0 … bound-1 */
bool dice_chance(dice *d, int one_in);
double dice_time(dice *d); /* 0 now and then, else in (0, 10) with a full mantissa */

/* What a random case is made of. */
typedef struct shape {
    int ranks, stages, microbatches, chains;
    int slices; /* 0: 1 */
    bool split, recompute, overlap, updates;
    bool early; /* with updates: some REDUCE_GRADs come as soon as they can */
} shape;
shape shape_random(dice *d);
/* An order that is topological, hence without deadlock: actions are drawn from those that are
 * ready. Placement is random, each rank has a stage. Asserts on failure. */
pp_schedule *schedule_random(dice *d, const shape *of);

/* A schedule from text: rows separated by '\n', cells by ' ' or ','. */
pp_schedule *schedule_from(const char *rows, const int *placement, int stages, int ranks);

/* Costs for a schedule, all from one allocation. */
typedef struct costs {
    pp_stage_cost *stage;
    pp_border_cost *border;
    pp_stage_bytes *bytes;
    int *group;
} costs;
costs costs_random(dice *d, int stages, bool occupancy);
costs costs_uniform(int stages, double f, double i, double w, double c);
void costs_free(costs *c);

pp_sim_input input_of(const pp_schedule *schedule, const costs *c);

/* Simulates; asserts that it works. */
pp_sim_result *simulate(const pp_sim_input *input);
pp_schedule *build(const char *name, int ranks, int microbatches);

/* ---- the oracle ---------------------------------------------------------------------------- */

/* When each action starts and ends, by relaxing every constraint until nothing changes. An
 * overlapped pair has one interval. */
typedef struct oracle_times {
    double *start, *end; /* [actions] */
    double makespan;
} oracle_times;
oracle_times oracle_run(const pp_sim_input *input);
void oracle_free(oracle_times *times);

/* Peaks of one rank, from sets of what is alive. */
typedef struct oracle_peaks {
    int alive;
    double weight; /* 1/V each, half of it until I */
    int64_t held;  /* activations and stash, bytes */
    size_t held_index;
} oracle_peaks;
oracle_peaks oracle_memory(const pp_sim_input *input, int rank);

#endif
