/* The smallest peak memory that any plan has: the largest of its ranks, over all plans that fit.
 *
 * A candidate whose weights, gradients and optimizer state alone exceed the smallest peak so far
 * somewhere is out: some rank holds at least the average, and some rank the largest layer. What is
 * left is taken to the workshop, leanest first, under a cap of the smallest peak so far. No split
 * fits under it: the candidate is out. Else the chain cut that makes the largest need of a stage
 * least gives a split, and the cap falls to its peak; with one stage on each rank and equal limits
 * that is the candidate's own smallest peak, and the next cut proves it. Elsewhere splits are
 * looked for under one byte less until none is found; where that is no proof, the smallest cap
 * under which it is not ruled out remains as its bound. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/game_internal.h"
#include "planner/search_internal.h"

/* Bounds are found to one part in so many. */
enum { VISITS_MAX = 20000, ROUNDS_MAX = 64, PRECISION = 256 };

/* A candidate and what it needs at the least. */
typedef struct lean {
    const pp_candidate *candidate;
    size_t index;
    int64_t floor_bytes;
} lean;

/* ---- order --------------------------------------------------------------------------------- */

/* Of weights, gradients and optimizer state. sums: of pp_weights, in the file's order. */
static int64_t floor_of(const pp_tables *tables, const pp_candidate *c) {
    const pp_weights *w = c->timing->division.weights;
    int64_t shards = pp_candidate_shards(c), largest = 0;
    for (int i = 0; i < tables->layers; i++) {
        int64_t state = (w->state_bytes[i + 1] - w->state_bytes[i]) / shards;
        int64_t bytes = w->weight_bytes[i + 1] - w->weight_bytes[i] + state;
        if (bytes > largest) largest = bytes;
    }
    int64_t all = w->weight_bytes[tables->layers] + w->state_bytes[tables->layers] / shards;
    all *= pp_candidate_chains(c);
    int64_t average = (all + c->ranks - 1) / c->ranks;
    return average > largest ? average : largest;
}

/* The leanest first: least weights, smallest microbatches, one stage on each rank, all recomputed.
 */
static int compare_lean(const void *a_, const void *b_) {
    const lean *a = a_, *b = b_;
    const pp_candidate *first = a->candidate, *second = b->candidate;
    const int64_t keys[][2] = {
        {a->floor_bytes, b->floor_bytes},
        {first->size, second->size},
        {pp_candidate_each(first), pp_candidate_each(second)},
        {second->recompute == PP_RECOMPUTE_FULL, first->recompute == PP_RECOMPUTE_FULL}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i][0] != keys[i][1]) return keys[i][0] < keys[i][1] ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static lean *list_lean(search *s) {
    lean *list = PP_NEW(&s->arena, lean, s->space.count + 1);
    for (size_t i = 0; i < s->space.count && list != NULL; i++) {
        const pp_candidate *c = &s->space.candidates[i];
        list[i] = (lean){c, i, floor_of(&s->tables, c)};
    }
    if (list != NULL) qsort(list, s->space.count, sizeof *list, compare_lean);
    return list;
}

/* ---- one candidate ------------------------------------------------------------------------- */

static pp_status start(search *s, const pp_candidate *c, int64_t cap) {
    s->tables.cap_bytes = cap;
    return pp_work_start(&s->work, c, s->error);
}

/* Whether known splits that fit under the cap are not ruled out; leaves one in work->trial that
 * fits stage by stage. */
static pp_status may_fit(search *s, bool *may) {
    double bound;
    pp_capacity capacity;
    PP_TRY(pp_work_bound(&s->work, &bound, s->error));
    *may = bound < INFINITY && !s->work.gave_up;
    if (!*may || pp_candidate_each(s->work.candidate) == 1) return PP_OK;
    if (s->views.wide->tables->lattice != NULL) return PP_OK;
    PP_TRY(pp_capacity_find(&s->work, &capacity, s->error));
    PP_TRY(pp_capacity_hold(&s->work, &capacity, s->error));
    *may = capacity.fits;
    return PP_OK;
}

/* Into work->trial: the split whose fullest stage needs least, under the cap that it needs. */
static pp_status cut_leanest(search *s, const pp_candidate *c, int64_t cap) {
    int rank;
    int64_t needed;
    PP_TRY(start(s, c, 1)); /* all limits equal */
    size_t boundaries = (size_t)s->work.terms.stages - 1;
    PP_TRY(pp_work_least_excess(&s->work, &rank, &needed, s->error));
    pp_view *view = s->work.view;
    int *splits = PP_NEW(&s->scratch, int, boundaries + 1);
    if (splits == NULL) return pp_fail_memory(s->error);
    memcpy(splits, s->work.trial, boundaries * sizeof *splits);
    PP_TRY(start(s, c, needed < cap ? needed : cap));
    memcpy(s->work.trial, splits, boundaries * sizeof *splits);
    return pp_work_enter(&s->work, view, s->error);
}

/* A split under the cap by all means there are; *proved: where there is none, it is proved. */
static pp_status find_any(search *s, const pp_candidate *c, int64_t cap, bool *proved) {
    bool may;
    PP_TRY(start(s, c, cap));
    PP_TRY(may_fit(s, &may));
    *proved = !may && s->views.complete;
    if (!may) return PP_OK;
    PP_TRY(pp_work_solve(&s->work, INFINITY, s->error));
    *proved = s->work.proved || s->work.bound_s == INFINITY;
    return PP_OK;
}

/* Lowers *least to the candidate's smallest peak. *proved: it has none below what *least then is.
 */
static pp_status lower(search *s, const pp_candidate *c, int64_t *least, bool *proved) {
    int64_t cap = *least;
    pp_arena_reset(&s->scratch);
    if (pp_split_is_optimal(&s->method)) {
        PP_TRY(cut_leanest(s, c, cap));
        PP_TRY(pp_work_try(&s->work, s->error));
        if (s->work.best_s < INFINITY) *least = s->work.best_peak_bytes;
    }
    for (int round = 0; round < ROUNDS_MAX; round++) {
        PP_TRY(find_any(s, c, *least - 1, proved));
        if (s->work.best_s == INFINITY) return PP_OK;
        *least = s->work.best_peak_bytes;
        *proved = false;
    }
    return PP_OK;
}

/* What the candidate is proved to need: bisection of the caps under which it is ruled out. *floor:
 * known so far; raised. */
static pp_status raise_floor(search *s, const pp_candidate *c, int64_t least, int64_t *floor) {
    int64_t high = least - 1;
    if (!s->views.complete) return PP_OK;
    while (high - *floor > high / PRECISION) {
        bool may;
        int64_t middle = *floor + (high - *floor) / 2;
        PP_TRY(start(s, c, middle));
        PP_TRY(may_fit(s, &may));
        if (may)
            high = middle;
        else
            *floor = middle + 1;
    }
    return PP_OK;
}

/* ---- all of them --------------------------------------------------------------------------- */

/* PP_E_UNSUPPORTED is no failure: the candidate is out. */
static pp_status visit(search *s, lean *entry, int64_t *least, bool *proved) {
    pp_candidate *c = &s->space.candidates[entry->index];
    pp_error reason = {0};
    pp_error *error = s->error;
    bool may = false;
    *proved = s->views.complete;
    s->error = &reason;
    pp_status status = start(s, c, *least < INT64_MAX ? *least : 0);
    if (status == PP_OK) status = may_fit(s, &may);
    if (status == PP_OK && may) status = lower(s, c, least, proved);
    if (status == PP_OK && may && !*proved) status = raise_floor(s, c, *least, &entry->floor_bytes);
    s->error = error;
    if (status == PP_E_UNSUPPORTED) {
        s->unsupported = reason;
        *proved = true;
        status = PP_OK;
    }
    if (!may && *proved) c->bound_s = INFINITY;
    if (status != PP_OK && error != NULL) *error = reason;
    return status;
}

pp_status pp_search_least_memory(search *s, int64_t *bound) {
    int64_t least = INT64_MAX;
    int visits = 0;
    bool proved;
    lean *list = list_lean(s);
    if (list == NULL) return pp_fail_memory(s->error);
    *bound = INT64_MAX;
    for (size_t i = 0; i < s->space.count; i++) {
        if (list[i].floor_bytes > least) {
            s->space.candidates[list[i].index].bound_s = INFINITY;
            continue;
        }
        bool enough = visits++ >= VISITS_MAX || pp_work_must_stop(&s->work);
        proved = false;
        if (!enough || least == INT64_MAX) PP_TRY(visit(s, &list[i], &least, &proved));
        if (!proved && list[i].floor_bytes < *bound) *bound = list[i].floor_bytes;
        if (pp_stop_signal() != 0) break;
    }
    s->tables.cap_bytes = least < INT64_MAX ? least : 0;
    if (least < *bound) *bound = least;
    return PP_OK;
}
