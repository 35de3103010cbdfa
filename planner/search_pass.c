/* A pass over the candidates: the best bound first, in batches that all cores share.
 *
 * Candidates wait in a heap by their lower bound (search_bound.c). Bounds come in levels of rising
 * price: from totals when the space is listed; over all splits when a candidate first comes up (of
 * several stages on a rank by counting layers: capacity.c); with its order and the memory limits
 * when it comes up again and is taken to a workshop (search_work.c). There it is solved if its
 * bound is still the least, or else waits once more. The pass ends when the least bound left is
 * above the slowest plan that is wanted (search_kept.c): no candidate left can then be among them.
 *
 * Before that some candidates are sketched by what may be expected of them (search_sketch.c): with
 * good plans at hand the bounds rule out most of the rest.
 *
 * What a batch consists of, and what is known when it begins, does not depend on how many threads
 * there are or which of them does what; and what it found is gone through in its order. */
#include <math.h>
#include <string.h>

#include "planner/game_internal.h"
#include "planner/search_internal.h"

enum { SHARPENED_MAX = 100000 }; /* candidates, when the search has cost enough */

/* ---- the heap ------------------------------------------------------------------------------ */

/* Negative where the first candidate may have the better plan. */
static int compare_bounds(const search *s, const pp_candidate *a, const pp_candidate *b) {
    int order =
        pp_compare_numbers(s->objective->value(a, a->bound_s), s->objective->value(b, b->bound_s));
    return order != 0 ? order : pp_compare_numbers(a->bound_s, b->bound_s);
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

/* ---- one candidate ------------------------------------------------------------------------- */

static void raise_bound(pp_candidate *candidate, double bound) {
    candidate->bound_s = fmax(candidate->bound_s, bound);
}

/* Where the family puts its stages. NULL: out of memory. */
static const int *placement_of(const pp_candidate *candidate, pp_arena *arena) {
    int copies = pp_candidate_stages(candidate) * pp_candidate_chains(candidate);
    int *placement = PP_NEW(arena, int, copies);
    for (int s = 0; s < copies && placement != NULL; s++)
        placement[s] = pp_stage_rank(candidate->family->placement, candidate->ranks, s);
    return placement;
}

static pp_status find_splits_bound(search *s, const pp_candidate *candidate, double *bound) {
    pp_terms terms;
    pp_arena_reset(&s->scratch);
    const int *placement = placement_of(candidate, &s->scratch);
    if (placement == NULL) return pp_fail_memory(s->error);
    PP_TRY(pp_terms_init(&terms, s->views.wide, candidate, placement, &s->scratch, s->error));
    if (pp_candidate_each(candidate) == 1)
        return pp_bound_splits(&terms, &s->scratch, bound, s->error);
    if (s->views.wide->tables->lattice != NULL) return PP_OK;
    return pp_capacity_least_time(&terms, candidate->bound_s, &s->scratch, bound, s->error);
}

/* The same for all families of a group that place so many stages alike and hand on their gradients
 * alike. */
pp_status pp_search_bound_splits(search *s, pp_candidate *candidate) {
    candidate->level = 1;
    if (!s->views.complete) return PP_OK;
    const pp_schedule_family *family = candidate->family;
    uint64_t alike = 2 * (uint64_t)family->placement + family->splits_backward;
    uint64_t key =
        (uint64_t)candidate->group << 32 | alike << 24 | (uint64_t)candidate->virtual_stages;
    double bound = candidate->bound_s;
    int64_t known;
    if (pp_memo_find(&s->group_bounds, key, &known)) {
        memcpy(&bound, &known, sizeof bound);
    } else {
        PP_TRY(find_splits_bound(s, candidate, &bound));
        memcpy(&known, &bound, sizeof known);
        if (!pp_memo_put(&s->group_bounds, key, known)) return pp_fail_memory(s->error);
    }
    raise_bound(candidate, bound);
    return PP_OK;
}

/* Level 2: with the order and the memory limits. *fits: there is a split, and it is known. */
static pp_status bound_order(search *s, pp_work *work, pp_candidate *candidate, bool *fits,
                             pp_error *error) {
    double bound, above = pp_search_ceiling(s, candidate) * (1 + PP_NEGLIGIBLE);
    candidate->level = 2;
    *fits = false;
    PP_TRY(pp_work_outplay(work, above, error));
    raise_bound(candidate, work->bound_s);
    if (work->bound_s >= above) return PP_OK;
    PP_TRY(pp_work_bound(work, &bound, error));
    if (s->views.complete) raise_bound(candidate, bound);
    if (bound == INFINITY || work->gave_up || candidate->bound_s >= above) return PP_OK;
    PP_TRY(pp_work_count(work, above, error));
    raise_bound(candidate, work->bound_s);
    *fits = work->bound_s < INFINITY;
    return PP_OK;
}

/* Another candidate promises more by now. It goes first: a better plan found there may spare this
 * one the simulations. */
static bool must_wait(const search *s, const pp_candidate *candidate) {
    return s->heap_count > 0 && compare_bounds(s, &s->space.candidates[s->heap[0]], candidate) < 0;
}

void pp_search_count(const pp_work *work, pp_candidate *candidate, outcome *o) {
    o->searched = work->simulations > 0 && !candidate->simulated;
    candidate->simulated = candidate->simulated || o->searched;
}

static pp_status solve(search *s, pp_work *work, outcome *o) {
    pp_candidate *candidate = &s->space.candidates[o->index];
    double ceiling = pp_search_ceiling(s, candidate);
    PP_TRY(pp_work_solve(work, ceiling, &o->error));
    pp_search_count(work, candidate, o);
    candidate->tried = true;
    candidate->seconds = fmin(candidate->seconds, work->best_s);
    raise_bound(candidate, work->bound_s);
    if (work->proved) raise_bound(candidate, fmin(work->best_s, ceiling) * (1 - PP_NEGLIGIBLE));
    return PP_OK;
}

pp_status pp_search_solve(search *s, pp_work *work, outcome *o) {
    bool fits;
    PP_TRY(pp_work_start(work, &s->space.candidates[o->index], &o->error));
    PP_TRY(bound_order(s, work, &s->space.candidates[o->index], &fits, &o->error));
    return fits ? solve(s, work, o) : PP_OK;
}

/* The same unless there is something better to do. */
static pp_status solve_in_turn(search *s, pp_work *work, outcome *o) {
    pp_candidate *candidate = &s->space.candidates[o->index];
    bool fits;
    PP_TRY(pp_work_start(work, candidate, &o->error));
    PP_TRY(bound_order(s, work, candidate, &fits, &o->error));
    if (!fits || candidate->bound_s > pp_search_ceiling(s, candidate)) return PP_OK;
    o->waits = must_wait(s, candidate);
    return o->waits ? PP_OK : solve(s, work, o);
}

/* ---- the loop ------------------------------------------------------------------------------ */

static pp_status merge(search *s, const outcome *o) {
    s->work.effort += o->effort;
    s->result->searched += o->searched;
    if (o->status == PP_E_UNSUPPORTED) {
        s->unsupported = o->error;
        s->space.candidates[o->index].bound_s = INFINITY;
        return PP_OK;
    }
    if (o->status != PP_OK) {
        if (s->error != NULL) *s->error = o->error;
        return o->status;
    }
    if (o->waits) heap_push(s, o->index);
    if (o->found) PP_TRY(pp_search_note(s, &o->plan));
    return pp_search_keep(s, &o->plan);
}

pp_status pp_search_do(search *s, crew_job *job, const size_t *candidates, int count,
                       outcome outcomes[]) {
    for (int i = 0; i < count; i++) outcomes[i] = (outcome){.index = candidates[i]};
    pp_crew_run(s, job, outcomes, count);
    for (int i = 0; i < count; i++) PP_TRY(merge(s, &outcomes[i]));
    return PP_OK;
}

/* The next ones that still could be wanted and have a bound over all splits. */
static pp_status next_batch(search *s, size_t batch[SEARCH_BATCH], int *count) {
    *count = 0;
    while (s->heap_count > 0 && *count < SEARCH_BATCH) {
        pp_candidate *next = &s->space.candidates[s->heap[0]];
        if (next->bound_s > pp_search_ceiling(s, next)) return PP_OK;
        size_t index = heap_pop(s);
        if (next->level > 0) {
            batch[(*count)++] = index;
            continue;
        }
        PP_TRY(pp_search_bound_splits(s, next));
        if (next->bound_s < INFINITY) heap_push(s, index);
    }
    return PP_OK;
}

/* Candidates with bounds of nothing but sums, and the first plans. */
static pp_status fill_heap(search *s) {
    s->kept_count = 0;
    s->heap_count = 0;
    s->effort_before = s->work.effort;
    for (size_t i = 0; i < s->space.count; i++) {
        pp_candidate *candidate = &s->space.candidates[i];
        candidate->seconds = INFINITY;
        candidate->simulated = candidate->tried = candidate->sketched = false;
        raise_bound(candidate, pp_bound_totals(&s->tables, candidate));
    }
    if (s->effort_limit == 0) PP_TRY(pp_search_sketch(s));
    for (size_t i = 0; i < s->space.count; i++) {
        double bound = s->space.candidates[i].bound_s;
        if (bound <= s->ceiling_s && bound < INFINITY) heap_push(s, i);
    }
    return PP_OK;
}

/* Bounds over all splits for those in front that have none: cheap, and what the gap is told by. */
static pp_status sharpen(search *s) {
    for (int left = SHARPENED_MAX; left > 0 && s->heap_count > 0; left--) {
        pp_candidate *next = &s->space.candidates[s->heap[0]];
        if (next->level > 0 || pp_work_must_stop(&s->work)) return PP_OK;
        size_t index = heap_pop(s);
        PP_TRY(pp_search_bound_splits(s, next));
        if (next->bound_s < INFINITY) heap_push(s, index);
    }
    return PP_OK;
}

static void report_progress(const search *s) {
    const pp_plan_request *request = s->request;
    if (request->progress == NULL) return;
    double left = (double)s->heap_count / (double)(s->space.count + 1);
    request->progress(request->progress_context, 1 - left);
}

pp_status pp_search_pass(search *s) {
    size_t batch[SEARCH_BATCH];
    outcome outcomes[SEARCH_BATCH];
    int count = 1;
    bool tired = false;
    PP_TRY(fill_heap(s));
    while (count > 0) {
        if (pp_stop_signal() != 0) break;
        tired = pp_search_is_tired(s);
        bool late = pp_work_must_stop(&s->work);
        s->cut = s->effort_limit > 0 && (late || s->work.effort > s->effort_limit);
        s->timed_out = s->kept_count > 0 && late;
        if (tired || s->timed_out || s->cut) break;
        PP_TRY(next_batch(s, batch, &count));
        PP_TRY(pp_search_do(s, solve_in_turn, batch, count, outcomes));
        report_progress(s);
    }
    if (tired) PP_TRY(sharpen(s));
    if (pp_stop_signal() != 0)
        return pp_fail(s->error, PP_E_INTERRUPTED, NULL, "interrupted while searching plans");
    if (s->request->progress != NULL) s->request->progress(s->request->progress_context, 1);
    return PP_OK;
}
