/* What the files of planner share. Nothing outside this folder includes it.
 *
 *   chain cuts  split.c            the dynamic programme behind every split
 *   memo        memo.c             a small map of numbers
 *   tables      tables.c           what a layer costs at each microbatch size
 *   footprints  footprint.c        bytes of any interval of layers, made once per kind
 *   space       search_space.c     which candidates there are
 *   bounds      search_bound.c     what a candidate can never beat
 *   work        search_work.c      one candidate: split, simulate, refine
 *   miss        search_miss.c      by how much nothing fitted */
#ifndef PPSIM_PLANNER_INTERNAL_H
#define PPSIM_PLANNER_INTERNAL_H

#include "planner/planner.h"

/* ---- chain cuts ---------------------------------------------------------------------------- */

/* A chain of items to be cut into stages so that the largest cost is least.
 * floor  : a lower bound of an interval's cost that never falls when the interval grows.
 * exact  : the cost itself, at least floor, INFINITY where it is not allowed; NULL: floor is it.
 * border : cost of the border between `stage` and the next, which begins at item `next`; counts
 *          like a stage of its own. NULL: none. */
typedef struct pp_chain_problem {
    int items, stages;
    pp_interval_cost *floor;
    pp_interval_cost *exact;
    double (*border)(const void *context, int stage, int next);
    const void *context;
} pp_chain_problem;

/* Fills splits [stages - 1] and *largest. PP_E_NO_FIT when every split costs INFINITY. Workspace
 * from the arena. */
pp_status pp_chain_cut(const pp_chain_problem *problem, pp_arena *arena, int *splits,
                       double *largest, pp_error *error);

#endif
