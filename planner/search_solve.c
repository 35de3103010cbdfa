/* One candidate: from "K ranks, M microbatches, this schedule" to its best split and step time.
 *
 * Two chain cuts (search_cut.c) give the splits to start from: the one with the least proved bound
 * (pp_bound_stage: it knows filling and draining) and the one with the least slowest stage or
 * transfer. The simulator decides between them, and refinement (search_refine.c) goes on from the
 * better one.
 *
 * With one stage on each rank a stage's need is its rank's need, so a split in which all stages fit
 * fits. With several it is only a part of it; then the whole is checked when a split is tried, and
 * where it fails the cut is repeated with each stage held to its share of the limit, and layers are
 * moved until every rank fits (search_fit.c). More starting points come from putting the longer
 * stages into one run along the chain, and from the game (search_game.c) that bounds them all. */
#include <math.h>
#include <string.h>

#include "planner/work_internal.h"

#define RUN_ACTIONS 5e5 /* simulated to find where longer stages go best */
enum { RUNS_MIN = 8 };

static pp_status try_bottleneck(pp_work *work, pp_error *error) {
    double largest;
    PP_TRY(pp_work_cut_bottleneck(work, &largest, error));
    return largest < INFINITY ? pp_work_try(work, error) : PP_OK;
}

/* With several stages on a rank: each held to an equal share of its memory. */
static pp_status try_shares(pp_work *work, pp_error *error) {
    work->share = pp_candidate_each(work->candidate);
    pp_status status = try_bottleneck(work, error);
    work->share = 1;
    return status;
}

/* What the game came upon. */
static pp_status try_starts(pp_work *work, pp_error *error) {
    size_t boundaries = (size_t)work->terms.stages - 1;
    for (int i = 0; i < work->start_count; i++) {
        if (work->starts[i].estimate_s >= work->best_s) continue;
        memcpy(work->trial, work->starts[i].splits, boundaries * sizeof *work->trial);
        PP_TRY(pp_work_try(work, error));
    }
    return PP_OK;
}

/* Stages as equal as whole members allow, the longer ones next to each other from `first` on, round
 * the end of the chain. False: another stage would be left without a layer. */
static bool cut_run(const pp_work *work, const pp_capacity *c, int first, int *splits) {
    int stages = work->terms.stages, each = c->total / stages, more = c->total % stages;
    for (int s = 0, layer = 0; s + 1 < stages; s++) {
        int longer = (s - first + stages) % stages < more, from = layer;
        int goal = c->members[layer] + each + longer;
        while (layer < work->tables->layers && c->members[layer] < goal) layer++;
        if (layer == from || work->tables->layers - layer < stages - 1 - s) return false;
        splits[s] = layer;
    }
    return true;
}

/* With several stages on a rank, where the longer ones lie in the chain decides how it fills and
 * drains; which place is best depends on the order. */
pp_status pp_work_try_runs(pp_work *work, const pp_capacity *capacity, pp_error *error) {
    int stages = work->terms.stages;
    double most = RUN_ACTIONS / (double)work->order->first_action[work->order->ranks];
    int step = most >= stages    ? 1
               : most < RUNS_MIN ? stages / RUNS_MIN + 1
                                 : stages / (int)most + 1;
    int *splits = PP_NEW(&work->arena, int, stages);
    if (splits == NULL) return pp_fail_memory(error);
    for (int first = 0; first < stages && !pp_work_must_stop(work); first += step) {
        if (!cut_run(work, capacity, first, splits)) continue;
        memcpy(work->trial, splits, (size_t)(stages - 1) * sizeof *splits);
        PP_TRY(pp_work_try(work, error));
    }
    return PP_OK;
}

/* With several stages on a rank cuts that respect each stage need not fit. */
static pp_status try_fits(pp_work *work, pp_error *error) {
    size_t boundaries = (size_t)work->terms.stages - 1;
    for (int i = 0; i < work->start_count && work->best_s == INFINITY; i++) {
        memcpy(work->trial, work->starts[i].splits, boundaries * sizeof *work->trial);
        PP_TRY(pp_work_fit(work, error));
    }
    return PP_OK;
}

static pp_status try_baseline(pp_work *work, const pp_split_method *method, pp_error *error) {
    double measure;
    PP_TRY(pp_work_cut_baseline(work, method, &measure, error));
    return measure < INFINITY ? pp_work_try(work, error) : PP_OK;
}

/* Orders longer than this are left to refinement. */
enum { SHORT_ACTIONS = 8192 };

static pp_status try_pipedream(pp_work *work, pp_error *error) {
    pp_error reason = {0};
    double seconds;
    if (work->candidate->dp > 1 || work->candidate->tp > 1) return PP_OK;
    pp_status status = pp_work_cut_pipedream(work, &seconds, &reason);
    if (status == PP_OK && seconds < INFINITY) return pp_work_try(work, error);
    return status == PP_E_OUT_OF_MEMORY ? pp_fail_memory(error) : PP_OK; /* it knows no such case */
}

/* Refinement ends in a local optimum; nobody's way to split shall be better. */
static pp_status try_others(pp_work *work, pp_error *error) {
    double largest;
    if (work->order->first_action[work->order->ranks] > SHORT_ACTIONS) return PP_OK;
    for (int i = 0; pp_split_plain(i) != NULL; i++) {
        PP_TRY(try_baseline(work, pp_split_plain(i), error));
    }
    PP_TRY(pp_work_cut_anywhere(work, &largest, error));
    if (largest < INFINITY) PP_TRY(pp_work_try(work, error));
    return work->gave_up ? PP_OK : try_pipedream(work, error);
}

/* All splits are cuts of one order: of a graph that branches these tools say nothing. */
static bool is_chain(const pp_work *work) {
    return work->views->complete && work->views->wide->tables->lattice == NULL &&
           work->view == work->views->wide;
}

/* The first splits, one of which may fit. */
static pp_status try_cuts(pp_work *work, pp_error *error) {
    PP_TRY(pp_work_try(work, error));
    PP_TRY(try_bottleneck(work, error));
    if (work->best_s < INFINITY || pp_candidate_each(work->candidate) == 1) return PP_OK;
    PP_TRY(try_shares(work, error));
    return work->best_s < INFINITY || !is_chain(work) ? PP_OK : pp_work_fit(work, error);
}

/* With several stages on a rank, bounds of single stages are weak, and cuts by single stages far
 * from the best. */
static bool plays(const pp_work *work) {
    return pp_candidate_each(work->candidate) > 1 && is_chain(work);
}

static pp_status raise_by_game(pp_work *work, pp_capacity *capacity, double limit_s, bool to_win,
                               pp_error *error) {
    double bound;
    PP_TRY(pp_game_bound(work, capacity, limit_s, to_win, &bound, error));
    work->bound_s = fmax(work->bound_s, bound);
    return PP_OK;
}

pp_status pp_work_outplay(pp_work *work, double ceiling, pp_error *error) {
    pp_capacity capacity;
    if (!pp_split_is_optimal(work->method) || !plays(work)) return PP_OK;
    PP_TRY(pp_capacity_find(work, &capacity, error));
    if (!cut_run(work, &capacity, 0, work->trial)) return PP_OK;
    return raise_by_game(work, &capacity, ceiling, true, error);
}

pp_status pp_work_count(pp_work *work, double ceiling, pp_error *error) {
    if (!pp_split_is_optimal(work->method) || !plays(work)) return PP_OK;
    pp_capacity *capacity = PP_NEW(&work->arena, pp_capacity, 1);
    if (capacity == NULL) return pp_fail_memory(error);
    PP_TRY(pp_capacity_find(work, capacity, error));
    PP_TRY(pp_capacity_hold(work, capacity, error));
    work->capacity = capacity;
    if (!capacity->fits)
        work->bound_s = INFINITY;
    else if (!pp_capacity_limit(work, ceiling, capacity))
        work->bound_s = fmax(work->bound_s, ceiling);
    else if (isfinite(ceiling) && ceiling > work->bound_s)
        work->bound_s = pp_capacity_shortest(work, work->bound_s, ceiling, capacity);
    return PP_OK;
}

static pp_status play(pp_work *work, double ceiling, pp_error *error) {
    size_t boundaries = (size_t)work->terms.stages - 1;
    if (work->capacity == NULL) PP_TRY(pp_work_count(work, ceiling, error));
    if (work->bound_s >= ceiling) return PP_OK;
    PP_TRY(pp_work_try_runs(work, work->capacity, error));
    if (work->best_s < INFINITY)
        memcpy(work->trial, work->splits, boundaries * sizeof *work->trial);
    PP_TRY(raise_by_game(work, work->capacity, fmin(ceiling, work->best_s), false, error));
    if (work->bound_s >= ceiling) return PP_OK;
    PP_TRY(try_starts(work, error));
    return try_fits(work, error);
}

pp_status pp_work_sketch(pp_work *work, pp_error *error) {
    double bound;
    PP_TRY(pp_work_bound(work, &bound, error));
    if (bound == INFINITY || work->gave_up) return PP_OK;
    if (!pp_split_is_optimal(work->method)) return try_baseline(work, work->method, error);
    return try_cuts(work, error);
}

pp_status pp_work_solve(pp_work *work, double ceiling, pp_error *error) {
    work->share = 1;
    if (!pp_split_is_optimal(work->method)) return try_baseline(work, work->method, error);
    PP_TRY(try_cuts(work, error));
    if (plays(work)) PP_TRY(play(work, ceiling, error));
    if (work->bound_s >= ceiling || pp_work_is_hopeless(work, ceiling)) return PP_OK;
    if (work->best_s < INFINITY) {
        PP_TRY(pp_work_enter(work, work->best_view, error));
        PP_TRY(pp_refine(work, error));
    }
    PP_TRY(pp_enumerate(work, ceiling, error));
    return work->proved ? PP_OK : try_others(work, error);
}
