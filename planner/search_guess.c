/* What a candidate will about take, before anything of it is built.
 *
 * Best bound first is the order in which a proof is complete soonest, but bounds that know neither
 * order nor memory promise most where they know least, and a search that follows them alone finds
 * its first good plan late. So a few candidates are tried first by what is expected of them:
 *
 *     seconds = work of the fullest rank / (1 - bubble)
 *
 * with the bubble of the family's closed form on equal stages, or (K-1)/(K-1+MV), with K/2 for K of
 * two chains, a third of it where the backward is split, outside its domain. A guess proves nothing
 * and decides nothing: it only finds good plans early, and with them the proof can leave out most
 * of the rest. It is rounded to what may be trusted of it, and of candidates that promise the same
 * the one with the fewest stages comes first: more virtual stages promise a little more of every
 * schedule, cost more to try, and keep their promise less often. */
#include <math.h>

#include "planner/planner_internal.h"

#define PRECISION 1.01

static double generic_bubble(const pp_candidate *c) {
    double ramp = (c->ranks / (double)pp_candidate_chains(c) - 1) *
                  (c->family->splits_backward ? 1.0 / 3 : 1);
    return ramp / (ramp + (double)c->microbatches * c->virtual_stages * c->slices);
}

static double bubble_of(const pp_candidate *c) {
    const pp_timing *timing = c->timing;
    double stages = pp_candidate_stages(c);
    pp_schedule_request request = {.name = c->family->name,
                                   .ranks = c->ranks,
                                   .microbatches = c->microbatches,
                                   .virtual_stages = c->virtual_stages};
    pp_uniform cost = {.forward_s = timing->forward_total_s / stages,
                       .input_s = timing->input_total_s / stages,
                       .weight_s = timing->weight_total_s / stages};
    double bubble = c->family->closed_form_bubble != NULL
                        ? c->family->closed_form_bubble(&request, &cost)
                        : NAN;
    return bubble >= 0 && bubble < 1 ? bubble : generic_bubble(c);
}

double pp_guess(const pp_tables *tables, const pp_candidate *candidate) {
    if (candidate->bound_s == INFINITY) return INFINITY;
    return pp_bound_load(tables, candidate) / (1 - bubble_of(candidate));
}

/* ---- the best guesses ---------------------------------------------------------------------- */

/* Of guesses that are about equal, that with the fewest stages. */
static bool sooner(const pp_guesses *g, size_t a, size_t b) {
    int stages = pp_candidate_stages(&g->space->candidates[g->heap[a]]);
    int other = pp_candidate_stages(&g->space->candidates[g->heap[b]]);
    if (g->seconds[a] != g->seconds[b]) return g->seconds[a] < g->seconds[b];
    return stages != other ? stages < other : g->heap[a] < g->heap[b];
}

/* Up to the next power of PRECISION. */
static double rounded(double seconds) {
    return pow(PRECISION, ceil(log(seconds) / log(PRECISION) - PP_NEGLIGIBLE));
}

static void swap(pp_guesses *g, size_t a, size_t b) {
    size_t index = g->heap[a];
    double seconds = g->seconds[a];
    g->heap[a] = g->heap[b];
    g->seconds[a] = g->seconds[b];
    g->heap[b] = index;
    g->seconds[b] = seconds;
}

static void sift_down(pp_guesses *g, size_t at) {
    for (;;) {
        size_t least = at, left = 2 * at + 1, right = left + 1;
        if (left < g->count && sooner(g, left, least)) least = left;
        if (right < g->count && sooner(g, right, least)) least = right;
        if (least == at) return;
        swap(g, at, least);
        at = least;
    }
}

bool pp_guesses_make(pp_guesses *g, const pp_tables *tables, const pp_space *space,
                     pp_guess_match *match, const pp_candidate *like, pp_arena *arena) {
    if (g->heap == NULL) g->heap = PP_NEW(arena, size_t, space->count);
    if (g->seconds == NULL) g->seconds = PP_NEW(arena, double, space->count);
    if (arena->failed) return false;
    g->count = 0;
    g->space = space;
    for (size_t i = 0; i < space->count; i++) {
        const pp_candidate *c = &space->candidates[i];
        if (c->sketched || !match(c, like)) continue;
        double seconds = pp_guess(tables, c);
        if (seconds == INFINITY) continue;
        g->heap[g->count] = i;
        g->seconds[g->count++] = rounded(seconds);
    }
    for (size_t i = g->count / 2; i-- > 0;) sift_down(g, i);
    return true;
}

static void sift_up(pp_guesses *g, size_t at) {
    while (at > 0 && sooner(g, at, (at - 1) / 2)) {
        swap(g, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

void pp_guesses_put(pp_guesses *g, size_t candidate, double seconds) {
    g->heap[g->count] = candidate;
    g->seconds[g->count++] = rounded(seconds);
    sift_up(g, g->count - 1);
}

size_t pp_guesses_next(pp_guesses *g, double *seconds) {
    size_t best = g->heap[0];
    *seconds = g->seconds[0];
    g->count--;
    g->heap[0] = g->heap[g->count];
    g->seconds[0] = g->seconds[g->count];
    sift_down(g, 0);
    return best;
}
