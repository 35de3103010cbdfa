/* The best plans of a pass so far, and by them what is still looked for.
 *
 * As many are kept as are wanted: the best and its runners-up, each of another shape. What is
 * looked for becomes less as the search costs more (the table of stages): first all runners-up,
 * then only what would improve the best plan noticeably, and at last nothing; `exact` does without.
 * Cost is counted in actions looked at, not in seconds, so the result is the same everywhere. */
#include <math.h>
#include <string.h>

#include "planner/search_internal.h"

static double value_of(const search *s, const kept *k) {
    return s->objective->value(&s->space.candidates[k->candidate], k->seconds);
}

/* Negative if a is the better plan. */
static int compare(const search *s, const kept *a, const kept *b) {
    const pp_candidate *first = &s->space.candidates[a->candidate];
    const pp_candidate *second = &s->space.candidates[b->candidate];
    int order = pp_compare_numbers(pp_rounded(value_of(s, a)), pp_rounded(value_of(s, b)));
    if (order == 0) order = pp_compare_numbers(pp_rounded(a->seconds), pp_rounded(b->seconds));
    if (order == 0)
        order =
            first->ranks * first->arrangement->width - second->ranks * second->arrangement->width;
    if (order == 0) order = first->ranks - second->ranks;
    if (order == 0) order = pp_compare_numbers((double)a->peak_bytes, (double)b->peak_bytes);
    return order != 0 ? order : a->candidate < b->candidate ? -1 : 1;
}

/* What is still looked for, by what the search has cost. */
static const struct {
    double effort;    /* up to here: actions looked at */
    double tolerance; /* plans that are faster by more than this share */
} stages_of_search[] = {{2e7, 0}, {3e7, 2e-3}, {6e7, 9.9e-3}, {1.5e8, 5e-2}};
enum { SEARCH_STAGES = sizeof stages_of_search / sizeof *stages_of_search };

/* Of the table above; SEARCH_STAGES: it has cost enough. */
static int stage_of_search(const search *s) {
    int stage = 0;
    if (s->request->exact || s->kept_count == 0) return 0;
    while (stage < SEARCH_STAGES &&
           s->work.effort - s->effort_before > stages_of_search[stage].effort)
        stage++;
    return stage;
}

bool pp_search_is_tired(const search *s) {
    return stage_of_search(s) == SEARCH_STAGES;
}

/* The slowest a plan of the candidate may be for its value to be no more than this share of a kept
 * one's; where the value does not depend on the time, the time decides between equal ones. */
static double slowest_against(const search *s, const pp_candidate *candidate, const kept *than,
                              double share) {
    double value = value_of(s, than), other = s->objective->value(candidate, 1);
    if (!s->objective->timeless) return value / other * share;
    return other < value ? INFINITY : other > value ? -1 : than->seconds * share;
}

/* At first the time of the last of the runners-up, later of what is hardly better than the best. */
double pp_search_ceiling(const search *s, const pp_candidate *candidate) {
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
           a->slices == b->slices && a->recompute == b->recompute;
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

/* With lists of its own, which the search holds. */
static pp_status copy_of(search *s, const kept *plan, kept *copy) {
    size_t stages = (size_t)pp_candidate_stages(&s->space.candidates[plan->candidate]);
    *copy = *plan;
    copy->splits = PP_NEW(&s->arena, int, stages);
    copy->policies = PP_NEW(&s->arena, pp_recompute, stages);
    if (s->arena.failed) return pp_fail_memory(s->error);
    memcpy(copy->policies, plan->policies, stages * sizeof *copy->policies);
    memcpy(copy->splits, plan->splits, (stages - 1) * sizeof *copy->splits);
    return PP_OK;
}

pp_status pp_search_keep(search *s, const kept *plan) {
    kept found = *plan;
    if (plan->seconds == INFINITY || plan->seconds > s->ceiling_s) return PP_OK;
    if (replace_shape(s, &found)) return PP_OK;
    int place = s->kept_count;
    while (place > 0 && compare(s, &found, &s->best[place - 1]) < 0) place--;
    if (place == s->wanted) return PP_OK;
    PP_TRY(copy_of(s, plan, &found));
    if (s->kept_count < s->wanted) s->kept_count++;
    size_t moved = (size_t)(s->kept_count - 1 - place);
    memmove(&s->best[place + 1], &s->best[place], moved * sizeof *s->best);
    s->best[place] = found;
    return PP_OK;
}

/* Places are found by time; what is no faster than its neighbour in front must be leaner, and what
 * is no leaner than the new one behind it goes. */
pp_status pp_search_note(search *s, const kept *plan) {
    int place = 0, end;
    kept found;
    while (place < s->archive_count &&
           s->archive[place].seconds <= plan->seconds * (1 + PP_NEGLIGIBLE))
        place++;
    if (place > 0 && s->archive[place - 1].peak_bytes <= plan->peak_bytes) return PP_OK;
    while (place > 0 && s->archive[place - 1].seconds >= plan->seconds * (1 - PP_NEGLIGIBLE))
        place--;
    for (end = place; end < s->archive_count && s->archive[end].peak_bytes >= plan->peak_bytes;)
        end++;
    if (end == place && s->archive_count == PP_ARCHIVE_MAX) return PP_OK;
    PP_TRY(copy_of(s, plan, &found));
    memmove(&s->archive[place + 1], &s->archive[end],
            (size_t)(s->archive_count - end) * sizeof *s->archive);
    s->archive_count += 1 - (end - place);
    s->archive[place] = found;
    return PP_OK;
}
