/* The first plans of a pass, by what may be expected of the candidates (search_guess.c).
 *
 * Sketches are plans without refinement. They come in rounds: the plain schedule on anything, what
 * promises most, and then what is like the best so far. The best sketches are solved. */
#include <math.h>
#include <string.h>

#include "planner/search_internal.h"

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
    return c->family == like->family && c->virtual_stages == like->virtual_stages &&
           c->slices == like->slices;
}

static const sketch_round rounds[] = {{is_plain, 0, 96},
                                      {is_any, 0, 16},
                                      {is_same_work, 3, 16},
                                      {is_same_schedule, 3, 16},
                                      {is_same_work, 3, 32}};
enum { ROUNDS = sizeof rounds / sizeof *rounds, LIKES = 8, SOLVED_SKETCHES = 8 };
#define SKETCH_EFFORT 2.5e7 /* of all rounds */
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

static pp_status sketch(search *s, pp_work *work, outcome *o) {
    pp_candidate *candidate = &s->space.candidates[o->index];
    PP_TRY(pp_work_start(work, candidate, &o->error));
    PP_TRY(pp_work_outplay(work, s->sketched_s, &o->error));
    if (pp_candidate_each(candidate) > 2) PP_TRY(pp_work_count(work, s->sketched_s, &o->error));
    candidate->bound_s = fmax(candidate->bound_s, work->bound_s);
    if (candidate->bound_s < s->sketched_s) PP_TRY(pp_work_sketch(work, &o->error));
    pp_search_count(work, candidate, o);
    return PP_OK;
}

static bool sketched_enough(const search *s) {
    return s->work.effort - s->effort_before > SKETCH_EFFORT || pp_work_must_stop(&s->work);
}

/* Into batch: the next guesses that are near the best sketch, and not proved to be worse. Those
 * that a bound proves too good come again later. */
static pp_status next_guesses(search *s, sketches *of, int most, size_t batch[SEARCH_BATCH],
                              int *count) {
    *count = 0;
    s->sketched_s = of->count > 0 ? of->seconds[0] : INFINITY;
    while (*count < most && *count < SEARCH_BATCH && of->guesses.count > 0) {
        double seconds;
        size_t index = pp_guesses_next(&of->guesses, &seconds);
        pp_candidate *candidate = &s->space.candidates[index];
        if (seconds > FAR_FROM_BEST * s->sketched_s) break;
        if (candidate->level == 0) PP_TRY(pp_search_bound_splits(s, candidate));
        if (candidate->bound_s >= s->sketched_s) continue;
        if (candidate->bound_s > seconds)
            pp_guesses_put(&of->guesses, index, candidate->bound_s);
        else
            batch[(*count)++] = index;
    }
    return PP_OK;
}

static pp_status sketch_batch(search *s, sketches *of, const size_t *batch, int count) {
    outcome outcomes[SEARCH_BATCH];
    for (int i = 0; i < count; i++) s->space.candidates[batch[i]].sketched = true;
    PP_TRY(pp_search_do(s, sketch, batch, count, outcomes));
    for (int i = 0; i < count; i++) {
        double seconds = outcomes[i].plan.seconds;
        if (seconds <= s->ceiling_s && outcomes[i].found) note_sketch(of, batch[i], seconds);
    }
    return PP_OK;
}

static pp_status sketch_like(search *s, sketches *of, const sketch_round *round,
                             const pp_candidate *like) {
    size_t batch[SEARCH_BATCH];
    if (!pp_guesses_make(&of->guesses, &s->tables, &s->space, round->match, like, &s->arena)) {
        return pp_fail_memory(s->error);
    }
    for (int left = round->most, count = 1; left > 0 && count > 0; left -= count) {
        if (sketched_enough(s)) return PP_OK;
        PP_TRY(next_guesses(s, of, left, batch, &count));
        PP_TRY(sketch_batch(s, of, batch, count));
    }
    return PP_OK;
}

pp_status pp_search_sketch(search *s) {
    sketches of = {.count = 0};
    outcome outcomes[SOLVED_SKETCHES];
    for (int r = 0; r < ROUNDS; r++) {
        size_t likes[LIKES];
        int count = of.count < rounds[r].likes ? of.count : rounds[r].likes;
        memcpy(likes, of.best, sizeof likes);
        if (rounds[r].likes == 0) PP_TRY(sketch_like(s, &of, &rounds[r], NULL));
        for (int i = 0; i < count; i++) {
            PP_TRY(sketch_like(s, &of, &rounds[r], &s->space.candidates[likes[i]]));
        }
    }
    if (pp_work_must_stop(&s->work)) return PP_OK;
    int solved = of.count < SOLVED_SKETCHES ? of.count : SOLVED_SKETCHES;
    return pp_search_do(s, pp_search_solve, of.best, solved, outcomes);
}
