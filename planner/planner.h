/* planner: split, search, explain. Floor 3; uses sim and profiles.
 *
 * Splitting:  split.c          exact dynamic programming under each stage's own limits
 *             lattice.c        where a model that branches can be cut; lattice_cut.c: the best way
 *             pipedream.c      PipeDream's programme, whose stages have replicas of their own
 *             baselines.c      the other --split methods, by name
 * Knowing:    tables.c         what layers cost at each microbatch size, on each kind of device
 *             arrange.c        which device each position of a plan has
 *             arrange_list.c   which of these arrangements are tried
 *             views.c          the same in another order of the layers
 *             footprint.c      the bytes of any interval of layers
 *             terms.c          what the stages of one candidate cost, wherever they are cut
 *             windows.c        when a stage must wait, from its order alone
 *             memo.c           a small map of numbers
 * Searching:  search.c         every combination: the passes, and the result
 *             search_pass.c    a pass: best bound first
 *             search_sketch.c  its first plans
 *             search_kept.c    its best plans, and what is still looked for
 *             search_crew.c    its threads
 *             search_space.c   which combinations there are; contradictory requests
 *             search_guess.c   what is tried first
 *             search_bound.c   proved lower bounds of the step time
 *             search_solve.c   one candidate: the best of its splits …
 *             search_work.c    … tried in a workshop,
 *             search_room.c    … by what its stages need,
 *             search_cut.c     … beginning with chain cuts
 *             search_time.c    its step time
 *             search_auto.c    a schedule made to measure
 *             order_paths.c, capacity.c, capacity_price.c, search_game.c   bounds where several
 *                              stages share a rank …
 *             search_fit.c     … and splits that fit there
 *             search_refine.c  better splits: moves, and all that could still win
 *             objective.c      what is wanted of a plan: time, memory, devices, cost
 *             search_memory.c  the smallest peak memory
 *             search_frontier.c  step time against peak memory
 *             search_miss.c    nothing fits: by how much, and what to change
 *             search_changes.c what one change to the plan would give
 * Answering:  assemble.c       from a candidate and its splits to a full pp_plan
 *             doubt.c          how much of a step time, and of a difference, is within what
 *                              measurements scatter
 *             explain.c        why this plan, in sentences
 *             search_sweep.c   the best plan at each value of one setting */
#ifndef PPSIM_PLANNER_H
#define PPSIM_PLANNER_H

#include "profiles/profiles.h"
#include "sim/sim.h"

/* ---- splitting ----------------------------------------------------------------------------- */

/* The smallest possible largest stage: a chain of n items into S intervals, none empty.
 * time    : cost of items first … last (inclusive) as stage s; INFINITY where they do not fit s's
 *           memory. Must not fall when an interval grows.
 * splits  : [stages - 1] filled with the first item of stages 1 … S-1.
 * Returns PP_E_NO_FIT if no split has finite cost. O(S · n · log n) calls of time. */
typedef double pp_interval_cost(const void *context, int stage, int first, int last);
pp_status pp_split_chain(int items, int stages, pp_interval_cost *time, const void *context,
                         int *splits, double *bottleneck, pp_error *error);

/* ---- the search ---------------------------------------------------------------------------- */

/* pp_plan_request.zero: search it. */
#define PP_ZERO_SEARCH (-1)

/* What is wanted. A pin of 0 or NULL means: search it. */
typedef struct pp_plan_request {
    const pp_model *model;
    const pp_cluster *cluster;
    const pp_costs *costs;
    int64_t global_batch;
    int64_t memory_bytes;     /* per device; 0: the device's own */
    pp_dtype dtype;
    pp_optimizer optimizer;
    int zero;                 /* ZeRO stage of the optimizer state: 0, 1 or PP_ZERO_SEARCH */
    bool runnable;            /* what `run` cannot execute yet (tp > 1) only where pinned */
    int ranks, virtual_stages, microbatches, dp, tp;  /* pins */
    int slices;               /* pin: of each microbatch along the sequence. Not searched unless the
                                 schedule is one that cuts them: what slices take is never measured,
                                 and `run` cannot execute them */
    int64_t microbatch_size;
    const char *schedule;     /* pin; "auto": one made to measure for the splits of the best plans */
    const char *recompute;    /* pin: a policy, of all stages */
    const char *split;        /* method or "3,7,11"; NULL: "optimal" */
    double limit_s;           /* stop after; 0: never */
    const char *objective;    /* NULL or "time": the shortest step; "throughput": the same; "memory":
                                 the smallest peak; "devices": the fewest; "cost": the cheapest step.
                                 Of several such plans the fastest */
    int threads;              /* 0: one for each core; 8 at the most; the answer is the same */
    bool exact;               /* go on until the best plan is proved, however long that takes */
    int alternative_count;    /* runners-up wanted; 0: 3 */
    bool best_alone;          /* no frontier, no doubts */
    bool tell_changes;        /* the explanation says what one change to the plan would give: four
                                 more searches, of little each */
    void (*progress)(void *context, double fraction); /* may be NULL; called from this thread */
    void *progress_context;
} pp_plan_request;

/* A stage with replicas of its own. */
typedef struct pp_split_stage {
    int first, last; /* positions in the split's order, inclusive */
    int replicas;
    double seconds;  /* of F, I and W on one of them */
} pp_split_stage;

typedef struct pp_plan_split {
    char method[64];
    double bottleneck_s;      /* slowest stage, by the method's own measure */
    double lower_bound_s;     /* proved for this K */
    /* Where single stages have replicas (--split pipedream), which no plan can say yet: */
    int *order;               /* [layers] */
    pp_split_stage *stages;   /* [stage_count]; NULL: the best plan has the stages */
    int stage_count;
} pp_plan_split;

/* The nearest miss when nothing fits. */
typedef struct pp_plan_miss {
    bool known;
    int ranks, microbatches, dp, rank;   /* which candidate, which rank is worst */
    char schedule[64];
    int64_t needed_bytes, limit_bytes;
} pp_plan_miss;

/* What a plan was chosen for. */
typedef struct pp_objective pp_objective;
const char *pp_objective_name(const pp_objective *objective);
const char *pp_objective_unit(const pp_objective *objective); /* "s", "bytes", … */
/* "12.3 ms", "40 GiB", "3 devices", "0.25 a step": a value for people, in the buffer. */
const char *pp_objective_text(const pp_objective *objective, double value, char buffer[32]);

typedef struct pp_plan_result {
    const pp_objective *objective;
    pp_plan *best;            /* NULL when nothing fits, or stages have replicas: split.stages */
    pp_plan **alternatives;   /* [alternative_count], next best of other shape, fastest first */
    int alternative_count;
    /* Half of 95 % intervals, from the spread of what was measured; NAN where nothing was, or where
     * finding out would take too long. An alternative whose step time is within its own of the best
     * one's is a tie: measured again, it might come first. */
    double doubt_s;              /* of the best plan's step time */
    double *alternative_doubt_s; /* [alternative_count] of the difference to it */
    /* Step time against peak memory: plans of which none found is as fast and leaner, the fastest
     * first. Empty where the time was up, under --schedule auto and for request.best_alone. */
    pp_plan **frontier; /* [frontier_count] */
    int frontier_count;
    bool frontier_complete; /* there are no others; else some may lie between and behind them */
    pp_plan_split split;
    double lower_bound_s;     /* of the iteration time over everything searched */
    double lower_bound;       /* of what the objective counts, in its unit */
    double gap;               /* (best - lower_bound) / lower_bound */
    int64_t searched, pruned; /* combinations simulated; proved to be no better than the best */
    int64_t left;             /* neither: the search had cost enough */
    double seconds;           /* wall clock */
    pp_plan_miss miss;
    pp_text explanation;      /* --explain, some lines */
} pp_plan_result;

/* Finds the plan with the smallest step time. PP_E_NO_FIT (with *result filled as far as possible:
 * miss, stats) when nothing fits; the message names the nearest miss. Deterministic for any number
 * of threads. *result: pp_plan_result_free, in every case. */
pp_status pp_plan_search(const pp_plan_request *request, pp_plan_result **result, pp_error *error);
void pp_plan_result_free(pp_plan_result *result);
/* Whether alternative i differs from the best plan by less than measurements can tell. */
bool pp_plan_ties(const pp_plan_result *result, int i);

/* ---- sweeps -------------------------------------------------------------------------------- */

/* The best plan for each of some values of one setting, which the request must leave open (memory:
 * request.memory_bytes, or what the largest device has, is the largest). Each point is what
 * pp_plan_search finds with that value pinned; a limit_s is for each of these searches. A value for
 * which there is no plan is a point too, with the reason.
 *
 *   microbatches  powers of two below the samples of a replica, or what these can be cut into next
 *                 to that, and as many as the samples; at most PP_SWEEP_MOST_MICROBATCHES
 *   ranks         every number up to the devices; of more than 16 the powers of two, and all
 *   memory        from just below what the leanest plan needs to what the fastest uses, and all
 *
 * PP_E_NO_FIT where no point has a plan because of memory: *sweep is there all the same, as after
 * PP_OK. Any other error of all points is the error of the call. *sweep: pp_sweep_free. */
#define PP_SWEEP_MOST_MICROBATCHES 4096
pp_status pp_plan_sweep(const pp_plan_request *request, pp_sweep_kind kind, pp_sweep **sweep,
                        pp_error *error);

#endif
