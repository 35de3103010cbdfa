/* Every combination, pruned by proved bounds, simulated exactly.
 *
 * Candidates (search_space.c) wait in a heap by their lower bound (search_bound.c). Bounds come in
 * levels of rising price: from totals when the space is listed; over all splits when a candidate
 * first comes up; with its order and the memory limits when it comes up again and is taken to the
 * workshop (search_work.c). There it is solved if its bound is still the least, or else waits once
 * more. The search ends when the least bound left is above the slowest plan
 * that is wanted, the last of the runners-up: no candidate left can then be among them. The least
 * bound over all that could fit is a bound for the whole space, printed with the gap.
 *
 * Before that some candidates are sketched by what may be expected of them (search_guess.c), and
 * the best sketches solved: with good plans at hand the bounds rule out most of the rest. What is
 * looked for becomes less as the search costs more (stages_of_search): first all runners-up, then
 * only what would improve the best plan noticeably, and at last nothing; `exact` does without. Cost
 * is counted in actions looked at, not in seconds, so the result is the same everywhere.
 *
 * One thread and one order, with ties broken by (time, devices, ranks, peak bytes, listing), so the
 * result does not depend on the machine. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/pipedream_internal.h"
#include "planner/search_internal.h"

enum { ALTERNATIVES = 3, PROGRESS_EVERY = 64 };
/* Cuts of a model that branches: more are too many to go through for each candidate, or once. */
enum { CUTS_TO_SEARCH = 2048, CUTS_TO_SPLIT = 20000 };

/* ---- the heap ------------------------------------------------------------------------------ */

static int compare_numbers(double a, double b) {
    return (a > b) - (a < b);
}

/* Negative where the first candidate may have the better plan. */
static int compare_bounds(const search *s, const pp_candidate *a, const pp_candidate *b) {
    int order =
        compare_numbers(s->objective->value(a, a->bound_s), s->objective->value(b, b->bound_s));
    return order != 0 ? order : compare_numbers(a->bound_s, b->bound_s);
}

static bool sooner(const search *s, size_t a, size_t b) {
    int order = compare_bounds(s, &s->space.candidates[a], &s->space.candidates[b]);
    return order < 0 || (order == 0 && a < b);
}

static void swap(size_t *a, size_t *b) {
    size_t held = *a;
    *a = *b;
    *b = held;
}

static void sift_down(search *s, size_t at) {
    for (;;) {
        size_t least = at, left = 2 * at + 1, right = left + 1;
        if (left < s->heap_count && sooner(s, s->heap[left], s->heap[least])) least = left;
        if (right < s->heap_count && sooner(s, s->heap[right], s->heap[least])) least = right;
        if (least == at) return;
        swap(&s->heap[at], &s->heap[least]);
        at = least;
    }
}

static void heap_push(search *s, size_t candidate) {
    size_t at = s->heap_count++;
    s->heap[at] = candidate;
    while (at > 0 && sooner(s, s->heap[at], s->heap[(at - 1) / 2])) {
        swap(&s->heap[at], &s->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

static size_t heap_pop(search *s) {
    size_t top = s->heap[0];
    s->heap[0] = s->heap[--s->heap_count];
    sift_down(s, 0);
    return top;
}

/* ---- the plans kept ------------------------------------------------------------------------ */

static double value_of(const search *s, const kept *k) {
    return s->objective->value(&s->space.candidates[k->candidate], k->seconds);
}

/* Negative if a is the better plan. */
static int compare(const search *s, const kept *a, const kept *b) {
    const pp_candidate *first = &s->space.candidates[a->candidate];
    const pp_candidate *second = &s->space.candidates[b->candidate];
    int order = compare_numbers(pp_rounded(value_of(s, a)), pp_rounded(value_of(s, b)));
    if (order == 0) order = compare_numbers(pp_rounded(a->seconds), pp_rounded(b->seconds));
    if (order == 0)
        order =
            first->ranks * first->arrangement->width - second->ranks * second->arrangement->width;
    if (order == 0) order = first->ranks - second->ranks;
    if (order == 0) order = compare_numbers((double)a->peak_bytes, (double)b->peak_bytes);
    return order != 0 ? order : a->candidate < b->candidate ? -1 : 1;
}

/* What is still looked for, by what the search has cost. */
static const struct {
    double effort;    /* up to here: actions looked at */
    double tolerance; /* plans that are faster by more than this share */
} stages_of_search[] = {{1e7, 0}, {2e7, 2e-3}, {4e7, 1e-2}};
enum { SEARCH_STAGES = sizeof stages_of_search / sizeof *stages_of_search };

/* Of the table above; SEARCH_STAGES: it has cost enough. */
static int stage_of_search(const search *s) {
    int stage = 0;
    if (s->request->exact || s->kept_count == 0) return 0;
    while (stage < SEARCH_STAGES && s->work.effort > stages_of_search[stage].effort) stage++;
    return stage;
}

/* The slowest a plan of the candidate may be for its value to be no more than this share of a kept
 * one's; where the value does not depend on the time, the time decides between equal ones. */
static double slowest_against(const search *s, const pp_candidate *candidate, const kept *than,
                              double share) {
    double value = value_of(s, than), other = s->objective->value(candidate, 1);
    if (!s->objective->timeless) return value / other * share;
    return other < value ? INFINITY : other > value ? -1 : than->seconds * share;
}

/* A plan of the candidate that is slower than this is not among those wanted: at first the last of
 * the runners-up, later one that would be hardly better than the best. */
static double ceiling_of(const search *s, const pp_candidate *candidate) {
    int stage = stage_of_search(s);
    double ceiling = INFINITY;
    if (stage > 0) {
        if (stage == SEARCH_STAGES) stage--;
        ceiling = slowest_against(s, candidate, &s->best[0], 1 - stages_of_search[stage].tolerance);
    } else if (s->kept_count == s->wanted) {
        ceiling = slowest_against(s, candidate, &s->best[s->wanted - 1], 1 + PP_NEGLIGIBLE);
    }
    return fmin(ceiling, s->ceiling_s);
}

/* The same plan on other devices. */
static bool same_shape(const pp_candidate *a, const pp_candidate *b) {
    return a->ranks == b->ranks && a->virtual_stages == b->virtual_stages && a->dp == b->dp &&
           a->tp == b->tp && a->zero == b->zero && a->size == b->size && a->family == b->family &&
           a->recompute == b->recompute;
}

/* Of one shape only the best arrangement is kept. True if there is a better one than `found`. */
static bool replace_shape(search *s, const kept *found) {
    const pp_candidate *candidates = s->space.candidates;
    for (int i = 0; i < s->kept_count; i++) {
        if (!same_shape(&candidates[s->best[i].candidate], &candidates[found->candidate])) continue;
        if (compare(s, &s->best[i], found) < 0) return true;
        s->kept_count--;
        memmove(&s->best[i], &s->best[i + 1], (size_t)(s->kept_count - i) * sizeof *s->best);
        return false;
    }
    return false;
}

static pp_status keep(search *s, size_t candidate) {
    const pp_work *work = &s->work;
    int boundaries = work->terms.stages - 1;
    kept found = {candidate, work->best_s, work->best_peak_bytes, work->best_view, NULL, NULL};
    if (replace_shape(s, &found)) return PP_OK;
    int place = s->kept_count;
    while (place > 0 && compare(s, &found, &s->best[place - 1]) < 0) place--;
    if (place == s->wanted) return PP_OK;
    found.splits = PP_NEW(&s->arena, int, boundaries + 1);
    found.policies = PP_NEW(&s->arena, pp_recompute, boundaries + 1);
    if (s->arena.failed) return pp_fail_memory(s->error);
    memcpy(found.policies, work->policies, ((size_t)boundaries + 1) * sizeof *found.policies);
    memcpy(found.splits, work->splits, (size_t)boundaries * sizeof *found.splits);
    if (s->kept_count < s->wanted) s->kept_count++;
    size_t moved = (size_t)(s->kept_count - 1 - place);
    memmove(&s->best[place + 1], &s->best[place], moved * sizeof *s->best);
    s->best[place] = found;
    return PP_OK;
}

/* ---- one candidate ------------------------------------------------------------------------- */

static void raise_bound(pp_candidate *candidate, double bound) {
    candidate->bound_s = fmax(candidate->bound_s, bound);
}

/* Level 1: over all splits, order unknown. The same for all families of a group that hand on their
 * gradients alike. */
static pp_status bound_splits(search *s, pp_candidate *candidate) {
    double bound, *known = NULL;
    candidate->level = 1;
    if (candidate->virtual_stages > 1) return PP_OK; /* where stages lie is up to the order */
    if (!s->views.complete) return PP_OK;
    known = &s->group_bounds[2 * candidate->group + candidate->family->splits_backward];
    if (*known == 0) {
        pp_terms terms;
        pp_arena_reset(&s->scratch);
        PP_TRY(pp_terms_init(&terms, s->views.wide, candidate, NULL, &s->scratch, s->error));
        PP_TRY(pp_bound_splits(&terms, &s->scratch, &bound, s->error));
        *known = fmax(bound, candidate->bound_s);
    }
    raise_bound(candidate, *known);
    return PP_OK;
}

/* Level 2: with the order and the memory limits. *fits: there is a split. */
static pp_status bound_order(search *s, pp_candidate *candidate, bool *fits) {
    double bound;
    candidate->level = 2;
    PP_TRY(pp_work_bound(&s->work, &bound, s->error));
    if (s->views.complete) raise_bound(candidate, bound);
    *fits = bound < INFINITY;
    return PP_OK;
}

/* Another candidate promises more by now. It goes first: a better plan found there may spare this
 * one the simulations. */
static bool must_wait(const search *s, const pp_candidate *candidate) {
    return s->heap_count > 0 && compare_bounds(s, &s->space.candidates[s->heap[0]], candidate) < 0;
}

/* What is in the workshop, bounded. */
static pp_status solve_now(search *s, size_t index) {
    pp_candidate *candidate = &s->space.candidates[index];
    pp_work *work = &s->work;
    double ceiling = ceiling_of(s, candidate);
    PP_TRY(pp_work_solve(work, ceiling, s->error));
    s->result->searched++;
    candidate->tried = true;
    candidate->seconds = fmin(candidate->seconds, work->best_s);
    raise_bound(candidate, work->bound_s);
    if (work->proved) raise_bound(candidate, fmin(work->best_s, ceiling) * (1 - PP_NEGLIGIBLE));
    return work->best_s < INFINITY ? keep(s, index) : PP_OK;
}

static pp_status solve(search *s, size_t index) {
    pp_candidate *candidate = &s->space.candidates[index];
    bool fits;
    PP_TRY(bound_order(s, candidate, &fits));
    if (!fits || candidate->bound_s > ceiling_of(s, candidate)) return PP_OK;
    if (must_wait(s, candidate)) {
        heap_push(s, index);
        return PP_OK;
    }
    return solve_now(s, index);
}

/* ---- the best guesses ---------------------------------------------------------------------- */

/* Rounds of sketches: which candidates, like which of the best so far, and how many of each. */
typedef struct sketch_round {
    pp_guess_match *match;
    int likes; /* 0: like none */
    int most;
} sketch_round;

static bool is_plain(const pp_candidate *c, const pp_candidate *like) {
    (void)like;
    return c->virtual_stages == 1 && strcmp(c->family->name, "1f1b") == 0;
}

static bool is_any(const pp_candidate *c, const pp_candidate *like) {
    (void)c, (void)like;
    return true;
}

/* Another schedule of the same work on the same ranks. */
static bool is_same_work(const pp_candidate *c, const pp_candidate *like) {
    return c->ranks == like->ranks && c->dp == like->dp && c->tp == like->tp &&
           c->zero == like->zero && c->size == like->size;
}

/* The same schedule of other work. */
static bool is_same_schedule(const pp_candidate *c, const pp_candidate *like) {
    return c->family == like->family && c->virtual_stages == like->virtual_stages;
}

static const sketch_round rounds[] = {
    {is_plain, 0, 96}, {is_any, 0, 32}, {is_same_work, 6, 32}, {is_same_schedule, 2, 32}};
enum { ROUNDS = sizeof rounds / sizeof *rounds, LIKES = 6, SOLVED_SKETCHES = 4 };
#define SKETCH_EFFORT 1.5e7 /* of all rounds */
#define FAR_FROM_BEST 1.25  /* guesses are not that wrong */

/* The best sketches so far. */
typedef struct sketches {
    pp_guesses guesses;
    size_t best[LIKES];
    double seconds[LIKES];
    int count;
} sketches;

static void note_sketch(sketches *of, size_t index, double seconds) {
    int place = of->count;
    while (place > 0 && seconds < of->seconds[place - 1]) place--;
    if (place == LIKES) return;
    if (of->count < LIKES) of->count++;
    for (int i = of->count - 1; i > place; i--) {
        of->best[i] = of->best[i - 1];
        of->seconds[i] = of->seconds[i - 1];
    }
    of->best[place] = index;
    of->seconds[place] = seconds;
}

/* Takes a candidate to the workshop; those that cannot be planned are left out from now on. */
static pp_status take_up(search *s, pp_candidate *candidate) {
    pp_error reason = {0};
    pp_status status = pp_work_start(&s->work, candidate, &reason);
    if (status == PP_E_UNSUPPORTED) {
        s->unsupported = reason;
        candidate->bound_s = INFINITY;
    } else if (status != PP_OK && s->error != NULL) {
        *s->error = reason;
    }
    return status;
}

static pp_status sketch(search *s, sketches *of, size_t index) {
    pp_candidate *candidate = &s->space.candidates[index];
    candidate->sketched = true;
    pp_status status = take_up(s, candidate);
    if (status != PP_OK) return status == PP_E_UNSUPPORTED ? PP_OK : status;
    PP_TRY(pp_work_sketch(&s->work, s->error));
    if (s->work.best_s == INFINITY || s->work.best_s > s->ceiling_s) return PP_OK;
    note_sketch(of, index, s->work.best_s);
    return keep(s, index);
}

static bool sketched_enough(const search *s) {
    return s->work.effort > SKETCH_EFFORT || pp_work_must_stop(&s->work);
}

static pp_status sketch_like(search *s, sketches *of, const sketch_round *round,
                             const pp_candidate *like) {
    pp_guesses *guesses = &of->guesses;
    if (!pp_guesses_make(guesses, &s->tables, &s->space, round->match, like, &s->arena)) {
        return pp_fail_memory(s->error);
    }
    for (int i = 0; i < round->most && guesses->count > 0 && !sketched_enough(s); i++) {
        double seconds;
        size_t index = pp_guesses_next(guesses, &seconds);
        if (of->count > 0 && seconds > FAR_FROM_BEST * of->seconds[0]) break;
        PP_TRY(sketch(s, of, index));
    }
    return PP_OK;
}

/* The best sketches as well as they can be done. */
static pp_status solve_sketches(search *s, const sketches *of) {
    for (int i = 0; i < of->count && i < SOLVED_SKETCHES && !pp_work_must_stop(&s->work); i++) {
        bool fits;
        pp_candidate *candidate = &s->space.candidates[of->best[i]];
        PP_TRY(take_up(s, candidate));
        PP_TRY(bound_order(s, candidate, &fits));
        if (fits) PP_TRY(solve_now(s, of->best[i]));
    }
    return PP_OK;
}

static pp_status try_guesses(search *s) {
    sketches of = {.count = 0};
    for (int r = 0; r < ROUNDS; r++) {
        size_t likes[LIKES];
        int count = of.count < rounds[r].likes ? of.count : rounds[r].likes;
        memcpy(likes, of.best, sizeof likes);
        if (rounds[r].likes == 0) PP_TRY(sketch_like(s, &of, &rounds[r], NULL));
        for (int i = 0; i < count; i++) {
            PP_TRY(sketch_like(s, &of, &rounds[r], &s->space.candidates[likes[i]]));
        }
    }
    return solve_sketches(s, &of);
}

static pp_status take(search *s, size_t index) {
    pp_candidate *candidate = &s->space.candidates[index];
    if (candidate->level == 0) {
        PP_TRY(bound_splits(s, candidate));
        if (candidate->bound_s < INFINITY) heap_push(s, index);
        return PP_OK;
    }
    pp_error reason = {0};
    pp_error *error = s->error;
    s->error = &reason;
    pp_status status = pp_work_start(&s->work, candidate, &reason);
    if (status == PP_OK) status = solve(s, index);
    s->error = error;
    if (status == PP_E_UNSUPPORTED) {
        s->unsupported = reason;
        candidate->bound_s = INFINITY;
        return PP_OK;
    }
    if (status != PP_OK && error != NULL) *error = reason;
    return status;
}

/* ---- the loop ------------------------------------------------------------------------------ */

static pp_status make_heap(search *s) {
    if ((size_t)s->wanted > s->space.count) s->wanted = (int)s->space.count;
    s->heap = PP_NEW(&s->arena, size_t, s->space.count);
    s->best = PP_NEW(&s->arena, kept, s->wanted);
    s->group_bounds = PP_NEW(&s->arena, double, 2 * s->space.group_count);
    if (s->arena.failed) return pp_fail_memory(s->error);
    return PP_OK;
}

/* Candidates with bounds of nothing but sums, and the first plans. */
static pp_status fill_heap(search *s) {
    s->kept_count = 0;
    s->heap_count = 0;
    s->work.effort = 0;
    for (size_t i = 0; i < s->space.count; i++) {
        pp_candidate *candidate = &s->space.candidates[i];
        candidate->seconds = INFINITY;
        candidate->tried = candidate->sketched = false;
        raise_bound(candidate, pp_bound_totals(&s->tables, candidate));
    }
    PP_TRY(try_guesses(s));
    for (size_t i = 0; i < s->space.count; i++) {
        double bound = s->space.candidates[i].bound_s;
        if (bound <= s->ceiling_s && bound < INFINITY) heap_push(s, i);
    }
    return PP_OK;
}

static void report_progress(const search *s, int64_t steps) {
    const pp_plan_request *request = s->request;
    if (request->progress == NULL || steps % PROGRESS_EVERY != 0) return;
    double left = (double)s->heap_count / (double)(s->space.count + 1);
    request->progress(request->progress_context, 1 - left);
}

pp_status pp_search_pass(search *s) {
    PP_TRY(fill_heap(s));
    for (int64_t steps = 0; s->heap_count > 0; steps++) {
        const pp_candidate *next = &s->space.candidates[s->heap[0]];
        if (next->bound_s > ceiling_of(s, next)) break;
        if (pp_stop_signal() != 0) {
            return pp_fail(s->error, PP_E_INTERRUPTED, NULL, "interrupted while searching plans");
        }
        s->tired = stage_of_search(s) == SEARCH_STAGES;
        s->timed_out = s->kept_count > 0 && pp_work_must_stop(&s->work);
        if (s->tired || s->timed_out) break;
        PP_TRY(take(s, heap_pop(s)));
        report_progress(s, steps);
    }
    if (pp_stop_signal() != 0) {
        return pp_fail(s->error, PP_E_INTERRUPTED, NULL, "interrupted while searching plans");
    }
    if (s->request->progress != NULL) s->request->progress(s->request->progress_context, 1);
    return PP_OK;
}

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
        result->lower_bound = fmin(result->lower_bound, objective->value(candidate, bound));
    }
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

static pp_status explain(search *s) {
    pp_story story = {.tables = &s->tables,
                      .space = &s->space,
                      .chosen = &s->space.candidates[s->best[0].candidate],
                      .result = s->result,
                      .timed_out = s->timed_out,
                      .tired = s->tired};
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
    result->pruned = (int64_t)s->space.count - result->searched;
    if (s->kept_count == 0) return give_up(s);
    PP_TRY(hand_out_all(s));
    fill_bounds(s);
    result->seconds = pp_now_s() - s->started_s;
    return explain(s);
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
    return make_heap(s);
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
    pp_free(result->split.order);
    pp_free(result->split.stages);
    pp_text_deinit(&result->explanation);
    pp_free(result);
}
