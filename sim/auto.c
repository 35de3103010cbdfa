/* auto: a schedule made to measure, for these stage times, transfers and limits of memory.
 *
 * Candidates come from four places, each starting where the one before ended: the named families;
 * rules that a greedy follows; branch and bound where the case is tiny; single actions of the best
 * order moved. The budget counts actions timed, not seconds, so the same request always gives the
 * same schedule. The search ends early when both objectives are at their lower bounds. */
#include "sim/auto_internal.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

enum { DEFAULT_BUDGET = 40000000 }; /* about half a second */

/* ---- the search ---------------------------------------------------------------------------- */

static void allocate_work(const pp_auto_case *c, pp_arena *arena, pp_auto_work *work) {
    size_t ranks = (size_t)c->ranks, ops = ranks * (size_t)c->codes;
    work->leaves = 1;
    while (work->leaves < c->ranks) work->leaves *= 2;
    work->arrival = PP_NEW(arena, double, ops * c->row);
    work->arrived = PP_NEW(arena, uint32_t, ops);
    work->done = PP_NEW(arena, uint32_t, ops);
    work->cursor = PP_NEW(arena, int, ranks);
    work->end_s = PP_NEW(arena, double, ranks);
    work->lane_s = PP_NEW(arena, double, 3 * ranks);
    work->stack = PP_NEW(arena, int, ranks);
    work->queued = PP_NEW(arena, bool, ranks);
    work->wake_s = PP_NEW(arena, double, ranks);
    work->tree = PP_NEW(arena, int, 2 * work->leaves);
}

pp_status pp_auto_search_init(pp_auto_search *search, const pp_auto_case *c, uint64_t seed,
                              int64_t budget, pp_arena *arena, pp_error *error) {
    *search = (pp_auto_search){.c = c,
                               .arena = arena,
                               .key = pp_random_key_make(seed, "auto", 0),
                               .budget = budget > 0 ? budget : DEFAULT_BUDGET,
                               .score = PP_AUTO_NO_SCORE,
                               .origin = ""};
    allocate_work(c, arena, &search->work);
    search->best = PP_NEW(arena, uint8_t, c->actions);
    search->trial = PP_NEW(arena, uint8_t, c->actions);
    return arena->failed ? pp_fail_memory(error) : PP_OK;
}

bool pp_auto_offer(pp_auto_search *search, const char *origin) {
    pp_auto_score score = pp_auto_score_of(search->c, search->work.end_s);
    int compared = pp_auto_compare(score, search->score);
    if (compared > 0 || (compared == 0 && score.sum_s >= search->score.sum_s)) return false;
    uint8_t *worse = search->best;
    search->best = search->trial;
    search->trial = worse;
    search->score = score;
    if (compared < 0) search->origin = origin;
    return true;
}

static pp_status find(pp_auto_search *search, const pp_auto_request *given, pp_error *error) {
    int64_t budget = search->budget;
    PP_TRY(pp_auto_try_named(search, given, error));
    PP_TRY(pp_auto_try_rules(search, budget / 3, error));
    pp_auto_exact(search);
    PP_TRY(pp_auto_polish(search, 0, error));
    assert(search->score.first < INT64_MAX); /* a rule always ends with an order */
    if (!pp_stop_signal()) return PP_OK;
    return pp_fail(error, PP_E_INTERRUPTED, NULL, "the search for a schedule was interrupted");
}

/* ---- the result ---------------------------------------------------------------------------- */

static void write_row(const pp_auto_case *c, int p, const uint8_t *row, pp_action *actions) {
    static const pp_action_kind kinds[PP_AUTO_KINDS] = {PP_FORWARD, PP_INPUT, PP_WEIGHT};
    uint32_t count[PP_AUTO_CODES_MAX] = {0};
    for (int i = 0; i < c->length; i++) {
        int code = row[i];
        actions[i] = (pp_action){.kind = (uint8_t)(kinds[code % PP_AUTO_KINDS] & 0x7f),
                                 .stage = (uint16_t)pp_auto_stage(c, p, code / PP_AUTO_KINDS),
                                 .microbatch = count[code]++};
    }
}

static pp_status write_schedule(const pp_auto_search *search, pp_schedule **schedule,
                                pp_error *error) {
    const pp_auto_case *c = search->c;
    int stages = c->ranks * c->visits;
    PP_TRY(pp_schedule_new(c->ranks, stages, c->microbatches, c->actions, schedule, error));
    pp_schedule *made = *schedule;
    snprintf(made->name, sizeof made->name, "auto");
    made->virtual_stages = c->visits;
    for (int p = 0; p < c->ranks; p++) {
        size_t first = (size_t)p * (size_t)c->length;
        for (int v = 0; v < c->visits; v++) made->placement[pp_auto_stage(c, p, v)] = p;
        made->first_action[p] = first;
        write_row(c, p, search->best + first, made->actions + first);
    }
    made->first_action[c->ranks] = c->actions;
    return PP_OK;
}

/* The bounds, never above what was reached: rounding can put them there. A proof makes the
 * objective its own bound. */
static void set_result(pp_auto_search *search, pp_auto_result *result) {
    const pp_auto_case *c = search->c;
    pp_auto_time(c, search->best, &search->work, NULL);
    for (int p = 0; p < c->ranks; p++) {
        double end_s = search->work.end_s[p];
        result->makespan_s = fmax(result->makespan_s, end_s);
        result->span_s = fmax(result->span_s, end_s - c->head_s[p]);
    }
    result->makespan_bound_s = fmin(c->bound_s[PP_AUTO_MAKESPAN], result->makespan_s);
    result->span_bound_s = fmin(c->bound_s[PP_AUTO_SPAN], result->span_s);
    if (search->proved && c->objective == PP_AUTO_MAKESPAN)
        result->makespan_bound_s = result->makespan_s;
    if (search->proved && c->objective == PP_AUTO_SPAN) result->span_bound_s = result->span_s;
    snprintf(result->origin, sizeof result->origin, "%s", search->origin);
}

pp_status pp_auto_schedule(const pp_auto_request *request, pp_auto_result *result,
                           pp_error *error) {
    *result = (pp_auto_result){0};
    pp_auto_case c;
    pp_auto_search search;
    pp_arena arena;
    pp_arena_init(&arena);
    pp_status status = pp_auto_case_make(request, &arena, &c, error);
    if (status == PP_OK)
        status = pp_auto_search_init(&search, &c, request->seed, request->budget, &arena, error);
    if (status == PP_OK) status = find(&search, request, error);
    if (status == PP_OK) status = write_schedule(&search, &result->schedule, error);
    if (status == PP_OK) set_result(&search, result);
    pp_arena_deinit(&arena);
    return status;
}
