/* Shared by the files that work on one candidate: search_work.c (the workshop), search_room.c (its
 * stages' memory), search_cut.c (splits by chain cuts) and search_solve.c (its best split). What
 * others call of them is in planner_internal.h and game_internal.h. */
#ifndef PPSIM_WORK_INTERNAL_H
#define PPSIM_WORK_INTERNAL_H

#include "planner/game_internal.h"

/* ---- the workshop -------------------------------------------------------------------------- */

/* A cut of the lattice in work->trial becomes the same cut of an order. */
pp_status pp_work_settle(pp_work *work, pp_error *error);
/* The stages of work->trial, each with the policy that it may have of its rank's memory. */
pp_status pp_work_assemble(pp_work *work, pp_error *error);

/* ---- memory of a stage, layers first … last ------------------------------------------------- */

/* What one copy of it needs under a policy. INT64_MAX: out of memory. */
int64_t pp_work_need_under(pp_work *work, pp_recompute policy, int stage, int first, int last);
/* Whether every copy has room for it whatever is kept: by a bound that needs no layout. */
bool pp_work_has_room(const pp_work *work, int stage, int first, int last);
/* Whether some copy has no room for it whatever it repeats, where that is chosen. */
bool pp_work_is_beyond_policies(pp_work *work, int stage, int first, int last);
/* As pp_work_policy; *excess: by how much the copy with least to spare needs more than it may use.
 */
pp_recompute pp_work_choose_policy(pp_work *work, int stage, int first, int last, int64_t *need,
                                   int64_t *excess);
/* That excess. */
int64_t pp_work_excess(pp_work *work, int stage, int first, int last);

/* ---- cuts, into work->trial; *largest or *measure INFINITY: none fits, or it gave up --------- */

/* The least slowest stage or transfer that fits. */
pp_status pp_work_cut_bottleneck(pp_work *work, double *largest, pp_error *error);
/* The least largest stage, memory and transfers aside. */
pp_status pp_work_cut_anywhere(pp_work *work, double *largest, pp_error *error);
/* In the view of the order that it comes with. */
pp_status pp_work_cut_pipedream(pp_work *work, double *measure, pp_error *error);
/* By a method that is not the search's own. */
pp_status pp_work_cut_baseline(pp_work *work, const pp_split_method *method, double *measure,
                               pp_error *error);

#endif
