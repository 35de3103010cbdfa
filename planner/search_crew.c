/* The candidates of a batch, shared among threads.
 *
 * Each thread has a workshop of its own, with views and footprints of its own: what these keep for
 * the next candidate spares work and decides nothing. What all of them look things up in, the
 * tables, locks itself. The calling thread works too; the others are started when the search has
 * cost so much that they pay. Where one cannot be started, the rest do its share. */
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "planner/search_internal.h"

#define ALONE_EFFORT 3e5 /* up to here one thread is as quick */

typedef struct worker {
    struct crew *crew;
    pthread_t thread;
    pp_status status; /* of setting it up */
    pp_footprints footprints;
    pp_views views;
    pp_work work;
    pp_arena plans; /* of the batch at hand */
} worker;

struct crew {
    search *s;
    worker *workers; /* [wanted] the first is the caller's */
    int worker_count, wanted;
    pthread_mutex_t mutex;
    pthread_cond_t begun, ended;
    /* Under the mutex: */
    crew_job *job;
    outcome *outcomes;
    int next, count, busy;
    bool closing;
};

/* ---- workers ------------------------------------------------------------------------------- */

static void set_up(worker *w) {
    search *s = w->crew->s;
    pp_arena_init(&w->plans);
    w->status = pp_footprints_init(&w->footprints, &s->tables, NULL);
    if (w->status == PP_OK) w->status = pp_views_share(&w->views, &s->views, &w->footprints, NULL);
    pp_work_init(&w->work, &w->views, &s->method);
    w->work.deadline_s = s->work.deadline_s;
    w->work.found = &s->found;
}

static void tear_down(worker *w) {
    pp_work_deinit(&w->work);
    pp_views_deinit(&w->views);
    pp_footprints_deinit(&w->footprints);
    pp_arena_deinit(&w->plans);
}

/* What the workshop holds is gone with the next candidate. */
static pp_status put_aside(worker *w, outcome *o) {
    const pp_work *work = &w->work;
    size_t stages = (size_t)work->terms.stages;
    kept *plan = &o->plan;
    *plan = (kept){o->index,
                   work->best_s,
                   work->best_peak_bytes,
                   work->best_view,
                   PP_NEW(&w->plans, int, stages),
                   PP_NEW(&w->plans, pp_recompute, stages)};
    if (w->plans.failed) return pp_fail_memory(&o->error);
    memcpy(plan->splits, work->splits, (stages - 1) * sizeof *plan->splits);
    memcpy(plan->policies, work->policies, stages * sizeof *plan->policies);
    return PP_OK;
}

static void do_one(worker *w, crew_job *job, outcome *o) {
    o->plan.seconds = INFINITY;
    w->work.effort = 0;
    o->status = w->status == PP_OK ? job(w->crew->s, &w->work, o) : pp_fail_memory(&o->error);
    o->effort = w->work.effort;
    o->found = o->status == PP_OK && w->work.best_s < INFINITY;
    if (!o->found) return;
    atomic_store(&w->crew->s->found, true);
    o->status = put_aside(w, o);
}

/* Takes one after the other until none is left. Called with the mutex held. */
static void do_some(worker *w) {
    crew *c = w->crew;
    c->busy++;
    while (c->next < c->count) {
        outcome *o = &c->outcomes[c->next++];
        pthread_mutex_unlock(&c->mutex);
        do_one(w, c->job, o);
        pthread_mutex_lock(&c->mutex);
    }
    if (--c->busy == 0) pthread_cond_signal(&c->ended);
}

static void *live(void *context) {
    worker *w = context;
    crew *c = w->crew;
    pthread_mutex_lock(&c->mutex);
    while (!c->closing) {
        if (c->next < c->count) do_some(w);
        if (!c->closing) pthread_cond_wait(&c->begun, &c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

/* ---- the crew ------------------------------------------------------------------------------ */

static int wanted_threads(const search *s) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int most = s->request->threads > 0 ? s->request->threads : cores > 0 ? (int)cores : 1;
    return most < SEARCH_BATCH ? most : SEARCH_BATCH;
}

pp_status pp_crew_open(search *s) {
    crew *c = PP_NEW(&s->arena, crew, 1);
    if (c == NULL) return pp_fail_memory(s->error);
    c->s = s;
    c->wanted = wanted_threads(s);
    c->workers = PP_NEW(&s->arena, worker, c->wanted);
    if (c->workers == NULL) return pp_fail_memory(s->error);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->begun, NULL);
    pthread_cond_init(&c->ended, NULL);
    for (int i = 0; i < c->wanted; i++) c->workers[i].crew = c;
    set_up(&c->workers[0]);
    c->worker_count = 1;
    s->crew = c;
    return PP_OK;
}

static void hire(crew *c) {
    while (c->worker_count < c->wanted) {
        worker *w = &c->workers[c->worker_count];
        set_up(w);
        if (pthread_create(&w->thread, NULL, live, w) != 0) {
            tear_down(w);
            c->wanted = c->worker_count;
            return;
        }
        c->worker_count++;
    }
}

void pp_crew_close(search *s) {
    crew *c = s->crew;
    if (c == NULL) return;
    pthread_mutex_lock(&c->mutex);
    c->closing = true;
    pthread_cond_broadcast(&c->begun);
    pthread_mutex_unlock(&c->mutex);
    for (int i = 1; i < c->worker_count; i++) pthread_join(c->workers[i].thread, NULL);
    for (int i = 0; i < c->worker_count; i++) tear_down(&c->workers[i]);
    pthread_cond_destroy(&c->ended);
    pthread_cond_destroy(&c->begun);
    pthread_mutex_destroy(&c->mutex);
}

void pp_crew_run(search *s, crew_job *job, outcome *outcomes, int count) {
    crew *c = s->crew;
    if (s->work.effort > ALONE_EFFORT) hire(c);
    pthread_mutex_lock(&c->mutex);
    for (int i = 0; i < c->worker_count; i++) pp_arena_reset(&c->workers[i].plans);
    c->job = job;
    c->outcomes = outcomes;
    c->count = count;
    c->next = 0;
    pthread_cond_broadcast(&c->begun);
    do_some(&c->workers[0]);
    while (c->busy > 0) pthread_cond_wait(&c->ended, &c->mutex);
    c->count = 0;
    pthread_mutex_unlock(&c->mutex);
}
