/* Every combination, pruned by proved bounds, simulated exactly.
 *
 * A pass (search_pass.c) goes through the candidates of a space (search_space.c) and keeps the best
 * plans (search_kept.c). What is done here: the passes that the objective asks for, and from their
 * plans the result: finished plans, the bound over everything, the gap, the explanation. The least
 * bound over all candidates that could fit is a bound for the whole space.
 *
 * The result does not depend on the machine or the number of threads: candidates are done in
 * batches of fixed size, ties are broken by (time, devices, ranks, peak bytes, listing), and cost
 * is counted in actions looked at. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/pipedream_internal.h"
#include "planner/search_internal.h"

enum { ALTERNATIVES = 3 };
/* Cuts of a model that branches: more are too many to go through for each candidate, or once. */
enum { CUTS_TO_SEARCH = 2048, CUTS_TO_SPLIT = 20000 };

/* ---- the result ---------------------------------------------------------------------------- */

static void bound_gap(pp_plan_result *result, double best) {
    double bound = result->lower_bound;
    result->gap = bound > 0 ? (best - bound) / bound : 0;
}

static double finished_seconds(const search *s) {
    return s->made_to_measure ? s->result->best->predicted.iteration_time_s : s->best[0].seconds;
}

static void fill_bounds(search *s) {
    pp_plan_result *result = s->result;
    const pp_objective *objective = s->objective;
    double seconds = finished_seconds(s);
    double best = objective->value(&s->space.candidates[s->best[0].candidate], seconds);
    result->lower_bound_s = seconds;
    result->lower_bound = best;
    for (size_t i = 0; i < s->space.count; i++) {
        const pp_candidate *candidate = &s->space.candidates[i];
        double bound =
            s->made_to_measure ? pp_bound_any_order(&s->tables, candidate) : candidate->bound_s;
        if (bound == INFINITY) continue;
        result->lower_bound_s = fmin(result->lower_bound_s, bound);
        double value = objective->value(candidate, bound);
        result->lower_bound = fmin(result->lower_bound, value);
        result->left += !candidate->simulated && value < best * (1 - PP_NEGLIGIBLE);
    }
    result->pruned -= result->left;
    if (objective->least_memory) {
        result->lower_bound = (double)s->least_bytes;
        best = (double)s->best[0].peak_bytes;
    }
    bound_gap(result, best);
}

/* To the workshop, as it was when it was kept. */
static pp_status take_out(search *s, const kept *from) {
    PP_TRY(pp_work_start(&s->work, &s->space.candidates[from->candidate], s->error));
    int boundaries = s->work.terms.stages - 1;
    memcpy(s->work.splits, from->splits, (size_t)boundaries * sizeof *from->splits);
    PP_TRY(pp_work_enter(&s->work, from->view, s->error));
    size_t policies = ((size_t)boundaries + 1) * sizeof *from->policies;
    memcpy(s->work.terms.policies, from->policies, policies);
    memcpy(s->work.policies, from->policies, policies);
    return PP_OK;
}

/* Where the optimizer state need not be sharded, it is not: only ZeRO-1 was listed, since it is
 * never slower and never larger, but a plan that is as fast and fits without it can be run. */
static pp_status settle_zero(search *s, kept *from) {
    pp_candidate *candidate = &s->space.candidates[from->candidate];
    bool free = s->request->zero == PP_ZERO_SEARCH && !s->made_to_measure;
    if (!free || candidate->zero == 0) return PP_OK;
    candidate->zero = 0;
    PP_TRY(take_out(s, from));
    size_t boundaries = (size_t)(s->work.terms.stages - 1);
    memcpy(s->work.trial, from->splits, boundaries * sizeof *from->splits);
    PP_TRY(pp_work_try(&s->work, s->error)); /* best_s stays INFINITY if it does not fit */
    bool equal = pp_rounded(s->work.best_s) == pp_rounded(from->seconds);
    if (equal)
        from->seconds = s->work.best_s;
    else
        candidate->zero = 1;
    return PP_OK;
}

pp_status pp_search_hand_out(search *s, const kept *from, pp_plan **plan) {
    PP_TRY(take_out(s, from));
    if (s->made_to_measure) return pp_work_auto(&s->work, from->splits, 0, plan, s->error);
    PP_TRY(pp_assemble_plan(&s->work.terms, from->view->footprints, from->splits, plan, s->error));
    assert((*plan)->predicted.iteration_time_s == from->seconds);
    return PP_OK;
}

static pp_status hand_out(search *s, kept *from, pp_plan **plan) {
    PP_TRY(settle_zero(s, from));
    return pp_search_hand_out(s, from, plan);
}

/* Than the first of the plans kept, when both take so long. */
static bool is_better(const search *s, int i, double seconds, double best_seconds) {
    const pp_candidate *candidates = s->space.candidates;
    double value = s->objective->value(&candidates[s->best[i].candidate], seconds);
    double best = s->objective->value(&candidates[s->best[0].candidate], best_seconds);
    return value < best || (value == best && seconds < best_seconds);
}

/* Orders made to measure may turn the plans around: the best comes first, others stay. */
static void put_best_first(search *s) {
    pp_plan_result *result = s->result;
    for (int i = 0; i < result->alternative_count; i++) {
        pp_plan *best = result->best, *other = result->alternatives[i];
        if (!is_better(s, i + 1, other->predicted.iteration_time_s,
                       best->predicted.iteration_time_s))
            continue;
        kept held = s->best[0];
        result->best = other;
        result->alternatives[i] = best;
        s->best[0] = s->best[i + 1];
        s->best[i + 1] = held;
    }
}

static pp_status hand_out_all(search *s) {
    pp_plan_result *result = s->result;
    result->alternatives = pp_allocate_zeroed((size_t)s->kept_count, sizeof *result->alternatives);
    if (result->alternatives == NULL) return pp_fail_memory(s->error);
    for (int i = 1; i < s->kept_count; i++) {
        PP_TRY(hand_out(s, &s->best[i], &result->alternatives[i - 1]));
        result->alternative_count++;
    }
    PP_TRY(hand_out(s, &s->best[0], &result->best));
    put_best_first(s);
    PP_TRY(take_out(s, &s->best[0]));
    return pp_work_report(&s->work, &result->split, s->error);
}

/* What measurements leave open, of the plans that are handed out. */
static pp_status doubt(search *s) {
    pp_plan_result *result = s->result;
    int count = result->alternative_count;
    pp_doubts best, other;
    result->doubt_s = NAN;
    result->alternative_doubt_s =
        pp_allocate_zeroed((size_t)count + 1, sizeof *result->alternative_doubt_s);
    if (result->alternative_doubt_s == NULL) return pp_fail_memory(s->error);
    for (int i = 0; i < count; i++) result->alternative_doubt_s[i] = NAN;
    if (s->request->best_alone) return PP_OK;
    PP_TRY(pp_doubts_find(s->request->costs, result->best, &s->arena, &best, s->error));
    result->doubt_s = best.step_s;
    for (int i = 0; i < count; i++) {
        PP_TRY(pp_doubts_find(s->request->costs, result->alternatives[i], &s->arena, &other,
                              s->error));
        result->alternative_doubt_s[i] = pp_doubts_between(&best, &other);
    }
    return PP_OK;
}

bool pp_plan_ties(const pp_plan_result *result, int i) {
    double more = result->alternatives[i]->predicted.iteration_time_s -
                  result->best->predicted.iteration_time_s;
    return fabs(more) <= result->alternative_doubt_s[i]; /* not where that is NAN */
}

static pp_status explain(search *s) {
    pp_story story = {.tables = &s->tables,
                      .space = &s->space,
                      .chosen = &s->space.candidates[s->best[0].candidate],
                      .result = s->result,
                      .timed_out = s->timed_out,
                      .until_s = s->started_s + s->request->limit_s};
    return pp_explain(&story, &s->result->explanation, s->error);
}

/* Nothing was kept: because nothing fits, or because nothing asked for can be planned. */
static pp_status give_up(search *s) {
    if (s->unsupported.code != PP_OK && s->request->schedule != NULL) {
        if (s->error != NULL) *s->error = s->unsupported;
        return s->unsupported.code;
    }
    return pp_miss_find(&s->work, &s->space, &s->result->miss, s->error);
}

static pp_status conclude(search *s) {
    pp_plan_result *result = s->result;
    int64_t left = (int64_t)s->space.count - result->searched;
    result->pruned = left > 0 ? left : 0; /* of two passes each has searched */
    if (s->kept_count == 0) return give_up(s);
    kept best = s->best[0];
    PP_TRY(hand_out_all(s));
    fill_bounds(s);
    PP_TRY(doubt(s));
    PP_TRY(explain(s));
    bool by_time = !s->objective->least_memory && !s->objective->priced && !s->objective->timeless;
    if (s->made_to_measure || s->timed_out || s->request->best_alone) return PP_OK;
    return pp_search_frontier(s, by_time ? &best : NULL);
}

/* ---- the call ------------------------------------------------------------------------------ */

/* Where PipeDream's programme gives no stage a replica, the plan is that of --dp 1. */
static pp_status replicate(search *s) {
    PP_TRY(pp_pipedream_replicate(&s->tables, &s->scratch, s->result, &s->replicated, s->error));
    if (s->replicated) {
        snprintf(s->result->split.method, sizeof s->result->split.method, "%s", s->method.name);
        return PP_OK;
    }
    s->straight = *s->request;
    s->straight.dp = s->straight.tp = s->straight.virtual_stages = 1;
    if (s->straight.ranks == 0) s->straight.ranks = pp_cluster_device_count(s->tables.cluster);
    if (s->straight.microbatches == 0 && s->straight.microbatch_size == 0) {
        s->straight.microbatch_size = 1;
    }
    s->request = s->tables.request = &s->straight;
    return PP_OK;
}

static pp_status make_lists(search *s) {
    if ((size_t)s->wanted > s->space.count) s->wanted = (int)s->space.count;
    s->heap = PP_NEW(&s->arena, size_t, s->space.count);
    s->best = PP_NEW(&s->arena, kept, s->wanted);
    s->archive = PP_NEW(&s->arena, kept, PP_ARCHIVE_MAX);
    if (s->arena.failed) return pp_fail_memory(s->error);
    return pp_crew_open(s);
}

static pp_status prepare(search *s) {
    const pp_plan_request *request = s->request;
    PP_TRY(pp_objective_find(request->objective, request->cluster, &s->objective, s->error));
    s->result->objective = s->objective;
    s->wanted = 1 + (request->alternative_count > 0 ? request->alternative_count : ALTERNATIVES);
    PP_TRY(pp_split_method_read(request->split, request->model, &s->arena, &s->method, s->error));
    PP_TRY(pp_tables_init(&s->tables, request, s->error));
    if (pp_split_is_pipedream(&s->method) && request->dp != 1) {
        PP_TRY(replicate(s));
        if (s->replicated) return PP_OK;
    }
    PP_TRY(pp_footprints_init(&s->footprints, &s->tables, s->error));
    PP_TRY(pp_space_init(&s->space, &s->tables, &s->method, s->error));
    int limit = pp_split_is_bottleneck(&s->method) ? CUTS_TO_SPLIT : CUTS_TO_SEARCH;
    PP_TRY(pp_views_init(&s->views, &s->tables, &s->footprints, PP_CUTS_ALL, limit, s->error));
    pp_work_init(&s->work, &s->views, &s->method);
    if (request->limit_s > 0) s->work.deadline_s = s->started_s + request->limit_s;
    return make_lists(s);
}

static pp_status search_objective(search *s) {
    if (s->objective->least_memory) PP_TRY(pp_search_least_memory(s, &s->least_bytes));
    return pp_search_pass(s);
}

pp_status pp_plan_search(const pp_plan_request *request, pp_plan_result **result, pp_error *error) {
    *result = pp_allocate_zeroed(1, sizeof **result);
    if (*result == NULL) return pp_fail_memory(error);
    pp_plan_request named = *request; /* auto starts from the named schedules */
    bool made_to_measure = request->schedule != NULL && strcmp(request->schedule, "auto") == 0;
    named.schedule = made_to_measure ? NULL : request->schedule;
    search s = {.request = &named,
                .result = *result,
                .error = error,
                .started_s = pp_now_s(),
                .ceiling_s = INFINITY,
                .made_to_measure = made_to_measure};
    pp_arena_init(&s.arena);
    pp_arena_init(&s.scratch);
    pp_status status = prepare(&s);
    if (status == PP_OK && !s.replicated) status = search_objective(&s);
    if (status == PP_OK && !s.replicated) status = conclude(&s);
    (*result)->seconds = pp_now_s() - s.started_s;
    pp_crew_close(&s);
    pp_memo_deinit(&s.group_bounds);
    pp_work_deinit(&s.work);
    pp_space_deinit(&s.space);
    pp_views_deinit(&s.views);
    pp_footprints_deinit(&s.footprints);
    pp_tables_deinit(&s.tables);
    pp_arena_deinit(&s.scratch);
    pp_arena_deinit(&s.arena);
    return status;
}

void pp_plan_result_free(pp_plan_result *result) {
    if (result == NULL) return;
    pp_plan_free(result->best);
    for (int i = 0; i < result->alternative_count; i++) pp_plan_free(result->alternatives[i]);
    pp_free(result->alternatives);
    pp_free(result->alternative_doubt_s);
    for (int i = 0; i < result->frontier_count; i++) pp_plan_free(result->frontier[i]);
    pp_free(result->frontier);
    pp_free(result->split.order);
    pp_free(result->split.stages);
    pp_text_deinit(&result->explanation);
    pp_free(result);
}
