/* Several stages on a rank: what bounds such a candidate, and what finds its splits.
 *
 *   paths     order_paths.c  the order as a graph, its paths as linear functions of the split
 *   capacity  capacity.c     how many layers a rank can hold at all, by time and by memory
 *   the game  search_game.c  the bound of all splits at once, from both
 *   a fit     search_fit.c   a split that fits */
#ifndef PPSIM_PLANNER_GAME_INTERNAL_H
#define PPSIM_PLANNER_GAME_INTERNAL_H

#include "planner/planner_internal.h"

/* ---- paths --------------------------------------------------------------------------------- */

/* Times of layers on a device of the stage's rank: the rank is no faster. */
const pp_timing *pp_terms_timing(const pp_terms *terms, int stage);
/* A line below what the stage's REDUCE_GRAD takes, as a function of the gradients that are its
 * layers' own, with what it sums and steps besides in every split. */
pp_line pp_terms_update_line(const pp_terms *terms, int stage);

/* Means over splits of what one stage costs: layers alone, without the cost of actions. */
typedef struct pp_mix {
    double forward_s, recompute_s, input_s, weight_s, update_s;
    double border_bytes; /* behind it */
    double members;      /* layers of the kind that capacities count */
    double again_s;      /* of pp_capacity, in a step */
} pp_mix;

/* How often what a stage costs is counted in a row. */
typedef struct pp_row_stage {
    double forward, recompute, input, weight, update;
    double border_byte_s; /* per byte of the border behind it */
    double members;       /* per layer of the kind that capacities count */
    double again;         /* share of what pp_capacity says is recomputed */
} pp_row_stage;

/* A linear function of the split that no step time is below. */
typedef struct pp_row {
    double fixed_s;
    pp_row_stage *stages; /* [copies] */
} pp_row;

/* The graph of a candidate's order; in the arena given to pp_paths_init. */
typedef struct pp_paths {
    const pp_terms *terms;
    struct pp_path_node *nodes; /* [count] in topological order */
    size_t count;               /* 0: the order is too long, or of a kind that is not followed */
    double *ends;               /* [count] of the last walk */
    double *times, *links;      /* of stages and kinds, of borders */
} pp_paths;

pp_status pp_paths_init(pp_paths *paths, const pp_terms *terms, const pp_schedule *order,
                        pp_arena *arena, pp_error *error);
/* Length of the longest path for these stages, which becomes *row. O(actions). */
double pp_paths_longest(pp_paths *paths, const pp_mix *mix, pp_row *row);
/* Adds `share` times the stages of a split to mix [copies]. */
void pp_mix_add(const pp_terms *terms, const int *splits, double share, pp_mix *mix);

/* ---- capacity ------------------------------------------------------------------------------ */

/* How many layers of the commonest kind (members) each rank can hold. In the candidate's arena. */
typedef struct pp_capacity {
    int member;         /* one of them */
    int *members;       /* [layers + 1] how many there are among the first layers */
    int total;          /* of the model */
    int *least;         /* [stages] members that the stage has in every split */
    int *held;          /* [ranks] at most, by memory; -1: not even the fewest */
    int *kept;          /* [ranks] the same with nothing recomputed, where stages choose that */
    int *held_by_stage; /* [stages] the same of one stage beside others that have their fewest */
    struct pp_lean *lean; /* least bytes of stages; NULL: not looked at */
    double *priced; /* [ranks][priced_most + 1] of pp_capacity_price, by members (the last number
                       also for more); NULL: nothing */
    int priced_most;
    int *most;          /* [ranks] as held, also within a limit of time */
    double *again_s;    /* [copies][total + 1] of pp_capacity_again; NULL: nothing … */
    double *again_room; /* … and where it lies */
    bool fits;          /* memory by this count does not rule out every split */
} pp_capacity;

/* All but what memory allows, which is said to be anything. */
pp_status pp_capacity_find(pp_work *work, pp_capacity *capacity, pp_error *error);
/* And that. */
pp_status pp_capacity_hold(pp_work *work, pp_capacity *capacity, pp_error *error);
/* Fills `most` for splits whose step takes less than limit_s. False: there are none. */
bool pp_capacity_limit(pp_work *work, double limit_s, pp_capacity *capacity);
/* The longest limit found from low_s on for which there are none, or low_s; for high_s there are.
 * Leaves `most` for some limit between. */
double pp_capacity_shortest(pp_work *work, double low_s, double high_s, pp_capacity *capacity);
/* Where stages choose what they recompute: fills again_s, by how many members a copy of a stage
 * has, with its even part of the seconds that its rank spends on that in a step; INFINITY where it
 * cannot have so many. least, most: [ranks] members that each rank has in the splits asked about.
 * Nothing is said of ranks with other numbers of stages than two. */
pp_status pp_capacity_again(pp_work *work, const int *least, const int *most, pp_capacity *capacity,
                            pp_error *error);
/* A time >= at_least_s below (which is all that is said if that is 0) which the ranks cannot work
 * off all members, whatever memory they have, in any order. */
pp_status pp_capacity_least_time(const pp_terms *terms, double at_least_s, pp_arena *arena,
                                 double *bound_s, pp_error *error);

/* ---- splits and their bound ---------------------------------------------------------------- */

/* Tries splits into nearly equal stages, the longer ones in one run, with every place of the run.
 */
pp_status pp_work_try_runs(pp_work *work, const pp_capacity *capacity, pp_error *error);
/* Seconds that no split beats that fits, or limit_s if that is less. to_win: gives up as soon as it
 * is plain that it will be less. Begins with work->trial; leaves splits that looked good in
 * work->starts. */
pp_status pp_game_bound(pp_work *work, pp_capacity *capacity, double limit_s, bool to_win,
                        double *bound, pp_error *error);

/* Moves layers in work->trial until every rank holds its stages, if that goes; then simulates it.
 */
pp_status pp_work_fit(pp_work *work, pp_error *error);

#endif
