/* The splits of a candidate that chain cuts give, and what is said of one. */
#include <math.h>
#include <string.h>

#include "planner/pipedream_internal.h"
#include "planner/work_internal.h"

#define CUT_EFFORT 5 /* an interval of layers as a stage, in simulated actions */

/* ---- cuts ---------------------------------------------------------------------------------- */

typedef double stage_measure(const pp_terms *terms, int stage, int first, int last);

/* The work is the context of cuts that do without their own. */
static bool work_stops(const void *context) {
    return pp_work_gives_up(context);
}

static bool is_signalled(const void *context) {
    (void)context;
    return pp_stop_signal() != 0;
}

/* A chain cut by some measure under the memory limits. */
typedef struct limited_cut {
    pp_work *work;
    stage_measure *measure;
} limited_cut;

static double cut_floor(const void *context, int stage, int first, int last) {
    const limited_cut *cut = context;
    const pp_terms *terms = &cut->work->terms;
    int64_t limit = pp_terms_limit(terms, stage) / cut->work->share;
    if (pp_bound_bytes(terms, first, last) > limit) return INFINITY;
    return cut->measure(terms, stage, first, last);
}

static double cut_exact(const void *context, int stage, int first, int last) {
    const limited_cut *cut = context;
    pp_terms *terms = &cut->work->terms;
    if (!pp_work_has_room(cut->work, stage, first, last)) { /* else nothing need be recomputed */
        int64_t need, excess;
        if (pp_work_is_beyond_policies(cut->work, stage, first, last)) return INFINITY;
        terms->mode.recompute =
            pp_work_choose_policy(cut->work, stage, first, last, &need, &excess);
        if (excess > 0) {
            terms->mode.recompute = terms->others;
            return INFINITY;
        }
    }
    double measured = cut->measure(terms, stage, first, last);
    terms->mode.recompute = terms->others;
    return measured;
}

static double cut_border(const void *context, int stage, int next) {
    const limited_cut *cut = context;
    return pp_terms_lane_s(&cut->work->terms, stage, next);
}

static bool cut_stops(const void *context) {
    const limited_cut *cut = context;
    return pp_work_gives_up(cut->work);
}

static double visit_measure(const pp_terms *terms, int stage, int first, int last) {
    return pp_terms_visit_s(terms, stage, first, last);
}

/* The best of all known cuts is asked for. */
static pp_chain_problem wide_problem(const pp_work *work, const void *context) {
    return (pp_chain_problem){.items = work->tables->layers,
                              .stages = work->terms.stages,
                              .context = context,
                              .lattice = work->tables->lattice,
                              .weight = work->terms.timing->whole};
}

/* *largest INFINITY: there is none. */
static pp_status settle_cut(pp_work *work, pp_status status, double *largest, pp_error *error) {
    if (status == PP_E_OUT_OF_MEMORY || work->failure != PP_OK) return pp_fail_memory(error);
    if (status == PP_E_INTERRUPTED) work->gave_up = true;
    if (status != PP_OK) *largest = INFINITY;
    return PP_OK;
}

/* Into work->trial. *largest INFINITY: no split fits, or it gave up. */
static pp_status cut_by(pp_work *work, stage_measure *measure, bool borders, double *largest,
                        pp_error *error) {
    PP_TRY(pp_work_enter(work, work->views->wide, error));
    work->effort += CUT_EFFORT * work->terms.stages * work->tables->layers;
    limited_cut cut = {work, measure};
    pp_chain_problem problem = wide_problem(work, &cut);
    problem.floor = cut_floor;
    problem.exact = cut_exact;
    problem.border = borders ? cut_border : NULL;
    problem.stop = cut_stops;
    problem.per_weight = measure == visit_measure ? 1 : work->terms.visits[0] * (1 - PP_NEGLIGIBLE);
    pp_status status = pp_chain_cut(&problem, &work->arena, work->trial, largest, NULL);
    return settle_cut(work, status, largest, error);
}

pp_status pp_work_bound(pp_work *work, double *bound, pp_error *error) {
    work->share = 1;
    PP_TRY(cut_by(work, pp_bound_stage, false, bound, error));
    if (work->gave_up) *bound = 0;
    if (work->views->complete) work->bound_s = fmax(work->bound_s, *bound);
    return PP_OK;
}

pp_status pp_work_cut_bottleneck(pp_work *work, double *largest, pp_error *error) {
    return cut_by(work, visit_measure, true, largest, error);
}

static double visit_anywhere(const void *context, int stage, int first, int last) {
    const pp_work *work = context;
    return visit_measure(&work->terms, stage, first, last);
}

pp_status pp_work_cut_anywhere(pp_work *work, double *largest, pp_error *error) {
    PP_TRY(pp_work_enter(work, work->views->wide, error));
    pp_chain_problem problem = wide_problem(work, work);
    problem.floor = visit_anywhere;
    problem.stop = work_stops;
    problem.per_weight = 1;
    pp_status status = pp_chain_cut(&problem, &work->arena, work->trial, largest, NULL);
    return settle_cut(work, status, largest, error);
}

pp_status pp_work_cut_pipedream(pp_work *work, double *measure, pp_error *error) {
    pp_view *view;
    int *order = PP_NEW(&work->arena, int, work->views->base->layers);
    if (order == NULL) return pp_fail_memory(error);
    PP_TRY(pp_pipedream_cut(work->views, work->candidate, &work->arena, order, work->trial, measure,
                            error));
    if (*measure == INFINITY) return PP_OK;
    PP_TRY(pp_views_order(work->views, order, &view, error));
    return pp_work_enter(work, view, error);
}

pp_status pp_work_cut_baseline(pp_work *work, const pp_split_method *method, double *measure,
                               pp_error *error) {
    if (pp_split_is_pipedream(method)) return pp_work_cut_pipedream(work, measure, error);
    if (pp_split_is_bottleneck(method)) return pp_work_cut_anywhere(work, measure, error);
    PP_TRY(pp_work_enter(work, &work->views->file, error));
    pp_split_load load = {.tables = work->tables,
                          .timing = work->terms.timing,
                          .footprints = work->footprints,
                          .mode = work->terms.mode,
                          .recompute = work->candidate->recompute};
    return pp_split_baseline(method, &load, work->terms.stages, &work->arena, work->trial, measure,
                             error);
}

/* ---- reports ------------------------------------------------------------------------------- */

static double slowest(pp_work *work, const int *splits, bool lanes) {
    double slowest = 0;
    for (int s = 0; s < work->terms.stages; s++) {
        int first, last;
        pp_work_interval(work, splits, s, &first, &last);
        work->terms.mode.recompute = work->policies[s];
        slowest = fmax(slowest, pp_terms_visit_s(&work->terms, s, first, last));
        if (lanes && s + 1 < work->terms.stages) {
            slowest = fmax(slowest, pp_terms_lane_s(&work->terms, s, last + 1));
        }
    }
    work->terms.mode.recompute = work->terms.others;
    return slowest;
}

static pp_status report_seconds(pp_work *work, pp_plan_split *split, pp_error *error) {
    bool optimal = pp_split_is_optimal(work->method);
    split->bottleneck_s = slowest(work, work->splits, optimal);
    work->gave_up = false;
    if (optimal)
        PP_TRY(pp_work_cut_bottleneck(work, &split->lower_bound_s, error));
    else
        PP_TRY(pp_work_cut_anywhere(work, &split->lower_bound_s, error));
    if (work->gave_up) split->lower_bound_s = 0; /* it is not known */
    return PP_OK;
}

pp_status pp_work_report(pp_work *work, pp_plan_split *split, pp_error *error) {
    work->share = 1;
    memcpy(split->method, work->method->name, sizeof split->method);
    if (!pp_split_has_measure(work->method)) return report_seconds(work, split, error);
    PP_TRY(pp_work_cut_baseline(work, work->method, &split->bottleneck_s, error));
    split->lower_bound_s = split->bottleneck_s;
    return PP_OK;
}

/* Bytes above the stage's share of the limit, by what has to be there at the least, and exactly. */
static double excess_floor(const void *context, int stage, int first, int last) {
    const pp_work *work = context;
    const pp_terms *terms = &work->terms;
    return (double)pp_bound_bytes(terms, first, last) -
           (double)(pp_terms_limit(terms, stage) / work->share);
}

static double excess_exact(const void *context, int stage, int first, int last) {
    return (double)pp_work_excess((pp_work *)(uintptr_t)context, stage, first, last);
}

/* The rank of work->plan that is most above its limit. */
static int worst_rank(pp_work *work, int64_t *needed) {
    const pp_terms *terms = &work->terms;
    int worst = 0;
    for (int p = 0; p < terms->ranks; p++) {
        int64_t bytes = pp_work_rank_bytes(work, p);
        if (p > 0 && bytes - terms->limit_bytes[p] <= *needed - terms->limit_bytes[worst]) continue;
        worst = p;
        *needed = bytes;
    }
    return worst;
}

pp_status pp_work_least_excess(pp_work *work, int *rank, int64_t *needed, pp_error *error) {
    double excess;
    PP_TRY(pp_work_enter(work, work->views->wide, error));
    pp_chain_problem problem = wide_problem(work, work);
    problem.floor = excess_floor;
    problem.exact = excess_exact;
    problem.stop = is_signalled;
    work->share = pp_candidate_each(work->candidate);
    PP_TRY(pp_chain_cut(&problem, &work->arena, work->trial, &excess, error));
    PP_TRY(pp_work_settle(work, error));
    PP_TRY(pp_work_assemble(work, error));
    *rank = worst_rank(work, needed);
    return PP_OK;
}
