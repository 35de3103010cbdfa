/* Better splits for one candidate: first by moving boundaries, then, where that is affordable, by
 * trying every split that could still be better.
 *
 * A chain cut minimises a bound, or the slowest stage; the step time also depends on how stages
 * fill and drain and on transfers that no formula of one stage knows. So the simulator has the last
 * word.
 *
 * Moves: a run of neighbouring boundaries goes one layer to the left or right: one layer changes
 * from the stage at one end of the run to the stage at the other, those between keep their sizes.
 * Where ranks have several stages, neighbouring ranks tilt together: each moves a layer from its
 * last stage to its first, or back. One rank that does so alone mostly loses, since what its
 * neighbours wait for stays.
 *
 * Enumeration: a depth-first search that gives layers to stages from the left. Stages whose
 * pp_bound_stage or whose rank's pp_bound_rank reaches the best time are cut off, and so are
 * beginnings whose rest cannot be completed below it; `rest` holds, for each stage and first layer,
 * the least of the largest bound over all ways to cut the rest. If the search ends within its
 * effort, no split is better.
 *
 * Effort is counted in simulated actions, not seconds, so that the result is the same everywhere.
 */
#include <math.h>
#include <string.h>

#include "planner/planner_internal.h"

enum { TILTS = 8 }; /* places where ranks that tilt begin and end */
#define REFINE_ACTIONS 2e6
#define ENUMERATE_ACTIONS 1e6
#define FAR_ABOVE 1.15
#define MANY_SPLITS 5000.0
#define SHARED_SPLITS 1e6 /* where stages share ranks */
#define ENUMERATE_NODES 50000
#define REST_CELLS 4e6 /* bounds that the table of rests may cost */

static double actions_of(const pp_work *work) {
    return (double)work->order->first_action[work->order->ranks];
}

/* (layers - 1) choose (stages - 1), or more than `most`. */
static double count_splits(const pp_work *work, double most) {
    double splits = 1;
    for (int i = 1; i < work->terms.stages && splits <= most; i++) {
        splits *= (double)(work->views->base->layers - i) / i;
    }
    return splits;
}

bool pp_work_is_hopeless(const pp_work *work, double ceiling) {
    if (work->best_s <= FAR_ABOVE * ceiling) return false;
    return count_splits(work, MANY_SPLITS) > MANY_SPLITS;
}

/* Where the bounds of single stages leave too much to try: see search_game.c for what else can be
 * proved there. */
static bool beyond_enumeration(const pp_work *work) {
    return pp_candidate_each(work->candidate) > 1 &&
           count_splits(work, SHARED_SPLITS) > SHARED_SPLITS;
}

/* ---- moves --------------------------------------------------------------------------------- */

/* Boundary i lies between stages i and i + 1. Puts the move into work->trial. */
static bool shift(pp_work *work, int first, int last, int by) {
    int boundaries = work->terms.stages - 1;
    memcpy(work->trial, work->splits, (size_t)boundaries * sizeof *work->trial);
    for (int i = first; i <= last; i++) work->trial[i] += by;
    int before = first > 0 ? work->trial[first - 1] : 0;
    int behind = last < boundaries - 1 ? work->trial[last + 1] : work->tables->layers;
    return work->trial[first] > before && work->trial[last] < behind;
}

/* Whether the whole rank of a stage could be part of something better. */
static bool rank_promising(const pp_work *work, int stage) {
    int last = work->terms.stages - 1, rank = work->terms.placement[stage];
    while (pp_terms_copy_on(&work->terms, last, rank) < 0) last--;
    double bound = pp_bound_rank(&work->terms, work->trial, last);
    return bound < work->best_s * (1 - PP_NEGLIGIBLE);
}

/* Whether the stages that the move changes could be part of something better. */
static bool promising(pp_work *work, int first, int last) {
    for (int s = first; s <= last + 1; s++) {
        int from, to;
        pp_work_interval(work, work->trial, s, &from, &to);
        double bound = pp_bound_stage(&work->terms, s, from, to);
        if (bound >= work->best_s * (1 - PP_NEGLIGIBLE)) return false;
    }
    for (int s = first; s <= last + 1; s++) {
        int from, to;
        pp_work_interval(work, work->trial, s, &from, &to);
        if (!pp_work_fits(work, s, from, to)) return false;
    }
    if (pp_candidate_each(work->candidate) == 1) return true; /* the stage is the rank */
    return rank_promising(work, first) && rank_promising(work, last + 1);
}

static bool is_spent(const pp_work *work, double effort) {
    return effort <= 0 || pp_work_must_stop(work);
}

/* What lies in work->trial. *improved: it is kept, being faster. */
static pp_status try_move(pp_work *work, double *effort, bool *improved, pp_error *error) {
    double before = work->best_s;
    *effort -= actions_of(work);
    PP_TRY(pp_work_try(work, error));
    *improved = *improved || work->best_s < before;
    return PP_OK;
}

/* One round over all moves, short runs first. */
static pp_status try_moves(pp_work *work, double *effort, bool *improved, pp_error *error) {
    int boundaries = work->terms.stages - 1;
    for (int length = 1; length <= boundaries; length++) {
        for (int first = 0; first + length <= boundaries; first++) {
            for (int by = -1; by <= 1; by += 2) {
                int last = first + length - 1;
                if (!shift(work, first, last, by) || !promising(work, first, last)) continue;
                if (is_spent(work, *effort)) return PP_OK;
                PP_TRY(try_move(work, effort, improved, error));
            }
        }
    }
    return PP_OK;
}

/* Puts into work->trial: of each rank from p up to q, which is none of them, a layer changes from
 * its last stage to its first, or back, if there is one to spare. */
static void tilt(pp_work *work, int p, int q, int by) {
    size_t boundaries = (size_t)work->terms.stages - 1;
    memcpy(work->trial, work->splits, boundaries * sizeof *work->trial);
    for (int rank = p; rank < q; rank++) {
        int first = 0, last = work->terms.stages - 1, from, to;
        while (work->terms.placement[first] != rank) first++;
        while (work->terms.placement[last] != rank) last--;
        pp_work_interval(work, work->splits, by > 0 ? last : first, &from, &to);
        for (int i = first; i < last && to > from; i++) work->trial[i] += by;
    }
}

/* One round over tilts of ranks side by side, all together first. */
static pp_status try_tilts(pp_work *work, double *effort, bool *improved, pp_error *error) {
    int ranks = work->terms.ranks, step = (ranks + TILTS - 1) / TILTS;
    if (pp_candidate_each(work->candidate) == 1 || work->terms.copies != work->terms.stages)
        return PP_OK;
    for (int p = 0; p < ranks; p += step) {
        for (int q = ranks; q > p; q -= step) {
            for (int by = -1; by <= 1; by += 2) {
                if (is_spent(work, *effort)) return PP_OK;
                tilt(work, p, q, by);
                PP_TRY(try_move(work, effort, improved, error));
            }
        }
    }
    return PP_OK;
}

pp_status pp_refine(pp_work *work, pp_error *error) {
    double effort = REFINE_ACTIONS;
    bool improved = true;
    while (improved && effort > 0) {
        improved = false;
        PP_TRY(try_tilts(work, &effort, &improved, error));
        PP_TRY(try_moves(work, &effort, &improved, error));
    }
    return work->failure != PP_OK ? pp_fail_memory(error) : PP_OK;
}

/* ---- enumeration --------------------------------------------------------------------------- */

typedef struct enumeration {
    pp_work *work;
    double ceiling;
    double *rest;  /* [stages + 1][layers + 1] */
    double effort; /* actions left */
    int64_t nodes; /* left */
    pp_status status;
    pp_error *error;
} enumeration;

static double *rest_of(const enumeration *e, int stage, int first) {
    return &e->rest[(size_t)stage * ((size_t)e->work->tables->layers + 1) + (size_t)first];
}

static void fill_rest(enumeration *e, int stage, int first) {
    const pp_work *work = e->work;
    int layers = work->tables->layers, left = work->terms.stages - 1 - stage;
    double best = INFINITY;
    for (int next = left > 0 ? first + 1 : layers; next <= layers - left; next++) {
        double here = pp_bound_stage(&work->terms, stage, first, next - 1);
        if (here >= best) break;
        best = fmin(best, fmax(here, *rest_of(e, stage + 1, next)));
    }
    *rest_of(e, stage, first) = best;
}

static void fill_rests(enumeration *e) {
    int layers = e->work->tables->layers, stages = e->work->terms.stages;
    *rest_of(e, stages, layers) = 0;
    for (int s = stages - 1; s >= 0; s--) {
        for (int i = s; i <= layers - (stages - s); i++) fill_rest(e, s, i);
    }
}

/* What a split has to be below. */
static double target(const enumeration *e) {
    return fmin(e->work->best_s, e->ceiling) * (1 - PP_NEGLIGIBLE);
}

static bool exhausted(enumeration *e) {
    return e->status != PP_OK || e->effort <= 0 || e->nodes-- <= 0 || pp_work_must_stop(e->work);
}

static void try_trial(enumeration *e) {
    e->effort -= actions_of(e->work);
    e->status = pp_work_try(e->work, e->error);
}

/* Stages before `stage` are cut; its first layer is `first`. False: gave up. */
static bool descend(enumeration *e, int stage, int first) {
    pp_work *work = e->work;
    int layers = work->tables->layers, left = work->terms.stages - 1 - stage;
    for (int next = left > 0 ? first + 1 : layers; next <= layers - left; next++) {
        if (pp_bound_stage(&work->terms, stage, first, next - 1) >= target(e)) break;
        if (*rest_of(e, stage + 1, next) >= target(e)) continue;
        if (!pp_work_fits(work, stage, first, next - 1)) continue;
        if (exhausted(e)) return false;
        if (left > 0) work->trial[stage] = next;
        if (pp_candidate_each(work->candidate) > 1 &&
            pp_bound_rank(&work->terms, work->trial, stage) >= target(e)) {
            break; /* a longer stage is no better */
        }
        if (left == 0) {
            try_trial(e);
        } else if (!descend(e, stage + 1, next)) {
            return false;
        }
    }
    return e->status == PP_OK;
}

pp_status pp_enumerate(pp_work *work, double ceiling, pp_error *error) {
    int layers = work->tables->layers, stages = work->terms.stages;
    work->proved = work->bound_s >= fmin(work->best_s, ceiling) * (1 - PP_NEGLIGIBLE);
    if (work->proved || (double)stages * layers * layers > REST_CELLS) return PP_OK;
    if (work->tables->lattice != NULL) return PP_OK; /* nothing fits to start from */
    if (beyond_enumeration(work)) return PP_OK;
    size_t cells = ((size_t)stages + 1) * ((size_t)layers + 1);
    enumeration e = {.work = work,
                     .ceiling = ceiling,
                     .rest = PP_NEW(&work->arena, double, cells),
                     .effort = ENUMERATE_ACTIONS,
                     .nodes = ENUMERATE_NODES,
                     .error = error};
    if (e.rest == NULL) return pp_fail_memory(error);
    for (size_t i = 0; i < cells; i++) e.rest[i] = INFINITY;
    fill_rests(&e);
    bool all = descend(&e, 0, 0);
    work->proved = all && !work->shared &&                  /* else other policies are left … */
                   work->views->wide == &work->views->file; /* … or other orders */
    return work->failure != PP_OK ? pp_fail_memory(error) : e.status;
}
