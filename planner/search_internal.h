/* What the files of the search share: its state, what plans are compared by, and its passes.
 *
 *   search.c            a pass: candidates by their bounds, pruned, simulated
 *   objective.c         what is wanted of a plan, as a table
 *   search_guess.c      what a candidate will about take: which are tried first
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

typedef struct search {
    const pp_plan_request *request;
    pp_plan_result *result;
    pp_error *error;
    pp_tables tables;
    pp_footprints footprints; /* of the file's order, as the tables */
    pp_views views;
    pp_split_method method;
    pp_space space;
    pp_work work;
    const pp_objective *objective;
    int64_t least_bytes; /* peak that no plan is below, where the objective asks for it */
    double ceiling_s;    /* nothing slower is of interest */
    size_t *heap;        /* candidates by what the objective says of their bounds, then by index */
    size_t heap_count;
    double *group_bounds; /* [groups][2] of level 1, by whether the backward is split; 0: unknown */
    kept *best;           /* [wanted] the best so far, in order */
    int kept_count, wanted;
    pp_error unsupported; /* why a candidate could not be planned */
    double started_s;
    bool timed_out;
    bool tired;               /* the search has cost enough before all was proved */
    pp_plan_request straight; /* what `request` becomes where --split pipedream needs no replicas */
    bool replicated;          /* it does need them: there is no plan to search for */
    bool made_to_measure;     /* --schedule auto: the named schedules are where to start from */
    pp_arena arena;           /* lists above, and splits of kept plans */
    pp_arena scratch;
} search;

/* A pass under tables.cap_bytes and s->ceiling_s: fills s->best with what the objective likes best.
 * Bounds that candidates have from passes under caps as large or larger are used, and raised. */
pp_status pp_search_pass(search *s);
/* Sets tables.cap_bytes to the smallest peak that any plan has, and *bound to what none is below;
 * the cap is 0 where nothing was found. Candidates that do not fit under it get the bound INFINITY.
 */
pp_status pp_search_least_memory(search *s, int64_t *bound);
/* The plan as it was kept. */
pp_status pp_search_hand_out(search *s, const kept *from, pp_plan **plan);

#endif
