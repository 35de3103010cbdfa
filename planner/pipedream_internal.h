/* PipeDream's hierarchical programme: pipedream.c solves it, pipedream_plan.c asks it. */
#ifndef PPSIM_PIPEDREAM_INTERNAL_H
#define PPSIM_PIPEDREAM_INTERNAL_H

#include "planner/lattice_internal.h"
#include "planner/planner_internal.h"

typedef struct pp_last_stage {
    int from, replicas;
} pp_last_stage;

typedef struct pp_pipedream_level {
    int machines;
    double bandwidth; /* bytes/s */
} pp_pipedream_level;

/* Cuts are numbers of the lattice's ideals; sums over what lies in front of each. */
typedef struct pp_pipedream {
    const pp_lattice *lattice;
    double *compute;    /* [cuts] seconds */
    double *outputs;    /* [cuts] bytes of all outputs … */
    double *parameters; /* … and of all parameters */
    double *alive;      /* [cuts] bytes that cross, as PipeDream counts them */
    double limit_bytes;
    bool straight; /* no replicas */
    pp_pipedream_level levels[2];
    int level_count;
    /* workspace */
    double *best, *stage, *below;
    pp_last_stage *chosen;
} pp_pipedream;

typedef struct pp_pipedream_stage {
    int from, to; /* cuts */
    int replicas;
    double seconds; /* of one replica */
} pp_pipedream_stage;

typedef struct pp_pipedream_answer {
    double seconds; /* the pipeline time */
    pp_pipedream_stage *stages;
    int count;
} pp_pipedream_answer;

/* PP_E_NO_FIT, without a message: nothing fits. Everything lives in the arena. */
pp_status pp_pipedream_solve(pp_pipedream *problem, pp_arena *arena, pp_pipedream_answer *answer,
                             pp_error *error);
/* The sums of a problem over its lattice, for microbatches of `samples`. compute: [layers] seconds
 * of F, I and W. */
pp_status pp_pipedream_sums(pp_pipedream *problem, const pp_model *model, const double *compute,
                            int64_t samples, pp_dtype dtype, pp_arena *arena, pp_error *error);

/* Order [layers] and splits of a candidate without replicas. *seconds: the pipeline time; INFINITY:
 * no such split. The candidate's timing must be expanded. */
pp_status pp_pipedream_cut(const pp_views *views, const pp_candidate *candidate, pp_arena *arena,
                           int *order, int *splits, double *seconds, pp_error *error);
/* What the request comes to where stages may have replicas. *replicated: some do, and the result's
 * split and explanation are filled; else --dp 1 gives the same. */
pp_status pp_pipedream_replicate(pp_tables *tables, pp_arena *arena, pp_plan_result *result,
                                 bool *replicated, pp_error *error);

#endif
