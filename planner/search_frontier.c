/* Step time against peak memory: the plans of which no other is both as fast and leaner.
 *
 * The fastest plan of all comes first. A pass under one byte less than its peak gives the fastest
 * of all leaner plans: if that is as fast, the first was no point of the frontier and is replaced;
 * else the first is one, and so on until nothing fits. Bounds from passes under larger caps hold
 * under smaller ones, so each pass begins where the others ended.
 *
 * Where the search was so long that this would be too many passes, the frontier is of the plans
 * that it came upon (pp_search_note), and says that it is not complete. Effort is counted in
 * actions, not in seconds, so that the answer is the same everywhere; where it runs out, the point
 * at hand is not yet known to be one and left out. */
#include <math.h>
#include <string.h>

#include "planner/search_internal.h"

#define FINE_EFFORT 3e5  /* of the search: with less, every point is looked for … */
#define LIMIT_EFFORT 2e6 /* … as long as that costs no more */
enum { POINTS_MAX = PP_ARCHIVE_MAX };

typedef struct walk {
    search *s;
    kept points[POINTS_MAX];
    int count;
    kept at;   /* the fastest under the last cap: perhaps a point */
    bool done; /* nothing else fits */
} walk;

/* What settling and other objectives changed. */
static void start_over(search *s, bool bounds) {
    bool sharded = s->request->zero == PP_ZERO_SEARCH && !s->request->runnable;
    for (size_t i = 0; i < s->space.count; i++) {
        pp_candidate *c = &s->space.candidates[i];
        if (sharded) c->zero = c->dp > 1;
        if (!bounds) continue;
        c->bound_s = 0;
        c->level = 0;
    }
}

/* *found: the fastest plan under the cap, into w->at. */
static pp_status pass(walk *w, int64_t cap, bool *found) {
    search *s = w->s;
    s->tables.cap_bytes = cap;
    s->ceiling_s = INFINITY;
    PP_TRY(pp_search_pass(s));
    *found = s->kept_count > 0 && !s->cut;
    if (*found) w->at = s->best[0];
    return PP_OK;
}

/* One pass: w->at is a point if the next is slower. */
static pp_status step(walk *w) {
    kept last = w->at;
    bool found;
    PP_TRY(pass(w, last.peak_bytes - 1, &found));
    if (w->s->cut) return PP_OK;
    w->done = !found;
    if (!found || w->at.seconds > last.seconds * (1 + PP_NEGLIGIBLE)) w->points[w->count++] = last;
    return PP_OK;
}

static pp_status go(walk *w, const kept *fastest) {
    search *s = w->s;
    bool found = fastest != NULL;
    pp_objective_find(NULL, s->request->cluster, &s->objective, NULL);
    s->wanted = 1;
    s->effort_limit = s->work.effort + LIMIT_EFFORT;
    if (found)
        w->at = *fastest;
    else
        PP_TRY(pass(w, 0, &found));
    if (!found) return PP_OK;
    while (!w->done && !s->cut && w->count < POINTS_MAX && w->at.peak_bytes > 1) PP_TRY(step(w));
    return PP_OK;
}

static pp_status hand_out(const walk *w) {
    pp_plan_result *result = w->s->result;
    w->s->tables.cap_bytes = 0;
    result->frontier = pp_allocate_zeroed((size_t)w->count + 1, sizeof *result->frontier);
    if (result->frontier == NULL) return pp_fail_memory(w->s->error);
    for (int i = 0; i < w->count; i++) {
        PP_TRY(pp_search_hand_out(w->s, &w->points[i], &result->frontier[i]));
        result->frontier_count++;
    }
    result->frontier_complete = w->done;
    return PP_OK;
}

pp_status pp_search_frontier(search *s, const kept *fastest) {
    int64_t searched = s->result->searched;
    walk *w = PP_NEW(&s->arena, walk, 1);
    if (w == NULL) return pp_fail_memory(s->error);
    w->s = s;
    bool fine = s->work.effort < FINE_EFFORT;
    start_over(s, fine && fastest == NULL);
    if (fine) {
        PP_TRY(go(w, fastest));
    } else {
        w->count = s->archive_count;
        memcpy(w->points, s->archive, (size_t)w->count * sizeof *w->points);
    }
    s->result->searched = searched;
    return hand_out(w);
}
