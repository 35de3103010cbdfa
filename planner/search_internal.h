/* What the files of the search share: its state, what plans are compared by, and its passes.
 *
 *   search.c            the passes that are needed, and the result
 *   search_pass.c       a pass: candidates by their bounds, pruned, simulated
 *   search_sketch.c     its first plans
 *   search_kept.c       its best plans, and what is still looked for
 *   search_crew.c       its threads
 *   objective.c         what is wanted of a plan, as a table
 *   search_memory.c     the smallest peak memory that any plan has
 *   search_frontier.c   step time against peak memory: a pass under each of some limits */
#ifndef PPSIM_SEARCH_INTERNAL_H
#define PPSIM_SEARCH_INTERNAL_H

#include "planner/planner_internal.h"

/* ---- objectives ---------------------------------------------------------------------------- */

/* Of two plans the one of the lower value is better, of two of one value the faster. */
struct pp_objective {
    const char *name;
    const char *unit; /* of values */
    const char *goal; /* "the shortest step" */
    /* Of a plan of this candidate whose step takes so long; never falls when that grows. */
    double (*value)(const pp_candidate *candidate, double seconds);
    const char *(*text)(double value, char buffer[32]);
    bool timeless; /* it does not depend on seconds; else it is in proportion to them */
    bool
        least_memory; /* first the smallest peak is looked for, then the fastest plan that has it */
    bool priced;      /* every device needs a price */
};

/* NULL is time. PP_E_INPUT: unknown, which lists the known, or without the prices that it needs. */
pp_status pp_objective_find(const char *name, const pp_cluster *cluster,
                            const pp_objective **objective, pp_error *error);

/* ---- the search ---------------------------------------------------------------------------- */

/* A plan worth keeping. */
typedef struct kept {
    size_t candidate;
    double seconds;
    int64_t peak_bytes;
    pp_view *view;          /* whose positions … */
    int *splits;            /* … these are: [stages - 1] */
    pp_recompute *policies; /* [stages] */
} kept;

typedef struct crew crew;

typedef struct search {
    const pp_plan_request *request;
    pp_plan_result *result;
    pp_error *error;
    pp_tables tables;
    pp_footprints footprints; /* of the file's order, as the tables */
    pp_views views;
    pp_split_method method;
    pp_space space;
    pp_work work; /* of this thread, between passes; its effort is that of all */
    crew *crew;
    const pp_objective *objective;
    int64_t least_bytes; /* peak that no plan is below, where the objective asks for it */
    double effort_before; /* work.effort when the pass began */
    double effort_limit;  /* of work.effort, for passes that sketch nothing and are cut there or at
                             the deadline; 0: none */
    bool cut;
    double ceiling_s; /* nothing slower is of interest */
    double sketched_s; /* the best sketch before this batch of them */
    size_t *heap;     /* candidates by what the objective says of their bounds, then by index */
    size_t heap_count;
    pp_memo
        group_bounds; /* of level 1, as bits: group, placement, V, whether the backward is split */
    kept *best;           /* [wanted] the best so far, in order */
    int kept_count, wanted;
    kept *archive; /* [PP_ARCHIVE_MAX] plans found of which no other found is as fast and leaner … */
    int archive_count; /* … the fastest first */
    pp_error unsupported; /* why a candidate could not be planned */
    double started_s;
    atomic_bool found; /* some plan, by whichever thread */
    bool timed_out;
    pp_plan_request straight; /* what `request` becomes where --split pipedream needs no replicas */
    bool replicated;          /* it does need them: there is no plan to search for */
    bool made_to_measure;     /* --schedule auto: the named schedules are where to start from */
    pp_arena arena;           /* lists above, and splits of kept plans */
    pp_arena scratch;
} search;

/* Negative: a is less. */
static inline int pp_compare_numbers(double a, double b) {
    return (a > b) - (a < b);
}

/* ---- batches of candidates ----------------------------------------------------------------- */

enum { SEARCH_BATCH = 8, PP_ARCHIVE_MAX = 128 };

/* What became of a candidate in a workshop. */
typedef struct outcome {
    size_t index;
    pp_status status;
    pp_error error;
    kept plan;  /* if found: its lists are there until the next batch … */
    bool found; /* … else seconds are INFINITY */
    bool searched, waits;
    double effort;
} outcome;

/* Of one candidate, on any thread: may change that candidate, the workshop and the outcome alone. */
typedef pp_status crew_job(search *s, pp_work *work, outcome *o);

/* Needs all of the search but its plans. Close it before these go; closing none is fine. */
pp_status pp_crew_open(search *s);
void pp_crew_close(search *s);
/* Every outcome gets what the job made of its candidate. count <= SEARCH_BATCH. */
void pp_crew_run(search *s, crew_job *job, outcome *outcomes, int count);

/* The same, and what it found is kept; candidates that cannot be planned are left out from now on,
 * those that wait go back to the heap. */
pp_status pp_search_do(search *s, crew_job *job, const size_t *candidates, int count,
                       outcome outcomes[]);
/* Notes if splits of the candidate were simulated for the first time. */
void pp_search_count(const pp_work *work, pp_candidate *candidate, outcome *o);
/* The job of solving a candidate whatever else there is. */
crew_job pp_search_solve;

/* ---- parts of a pass ----------------------------------------------------------------------- */

/* Level 1 of a candidate's bound: over all splits, order unknown. */
pp_status pp_search_bound_splits(search *s, pp_candidate *candidate);
/* Sketches, the best of them solved, all kept. */
pp_status pp_search_sketch(search *s);
/* Copies a plan, if it is one of the best. */
pp_status pp_search_keep(search *s, const kept *plan);
/* Copies a plan, if none found before is as fast and as lean. */
pp_status pp_search_note(search *s, const kept *plan);
/* A plan of the candidate that is slower than this is not looked for. */
double pp_search_ceiling(const search *s, const pp_candidate *candidate);
/* It has cost enough. */
bool pp_search_is_tired(const search *s);

/* ---- passes -------------------------------------------------------------------------------- */

/* A pass under tables.cap_bytes and s->ceiling_s: fills s->best with what the objective likes best.
 * Bounds that candidates have from passes under caps as large or larger are used, and raised. */
pp_status pp_search_pass(search *s);
/* Sets tables.cap_bytes to the smallest peak that any plan has, and *bound to what none is below;
 * the cap is 0 where nothing was found. Candidates that do not fit under it get the bound INFINITY.
 */
pp_status pp_search_least_memory(search *s, int64_t *bound);
/* Fills the result's frontier; changes the objective and the plans kept. fastest: the best plan by
 * time, kept under no cap, with bounds of that search; NULL: not known. */
pp_status pp_search_frontier(search *s, const kept *fastest);
/* The plan as it was kept. */
pp_status pp_search_hand_out(search *s, const kept *from, pp_plan **plan);

#endif
