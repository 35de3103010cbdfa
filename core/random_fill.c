/* Many random numbers at once: each is a function of its counter alone, so that threads share the
 * counters out and the numbers stay the same. */
#include "core/core.h"

#include <pthread.h>
#include <unistd.h>

enum { THREADS_MOST = 16 };
#define SHARE_LEAST INT64_C(32768) /* numbers for which a thread is worth its start */

typedef struct share {
    pp_random_key key;
    uint64_t start;
    double deviation;
    float *floats; /* one of both */
    double *doubles;
    int64_t from, to;
    pthread_t thread;
    bool started;
} share;

static void *fill(void *argument) {
    const share *s = argument;
    for (int64_t i = s->from; i < s->to; i++) {
        double value = s->deviation * pp_random_normal(s->key, s->start + (uint64_t)i);
        if (s->floats)
            s->floats[i] = (float)value;
        else
            s->doubles[i] = value;
    }
    return NULL;
}

static int threads_for(int64_t count) {
    int64_t cores = (int64_t)sysconf(_SC_NPROCESSORS_ONLN), most = count / SHARE_LEAST;
    if (cores > THREADS_MOST) cores = THREADS_MOST;
    if (most < cores) cores = most;
    return cores > 1 ? (int)cores : 1;
}

/* The first share, and whichever no thread could be had for, is the caller's. */
static void fill_all(share whole, int64_t count) {
    share shares[THREADS_MOST];
    int threads = threads_for(count);
    for (int i = 0; i < threads; i++) {
        share *s = &shares[i];
        *s = whole;
        s->from = count * i / threads;
        s->to = count * (i + 1) / threads;
        s->started = i > 0 && pthread_create(&s->thread, NULL, fill, s) == 0;
    }
    for (int i = 0; i < threads; i++)
        if (!shares[i].started) fill(&shares[i]);
    for (int i = 0; i < threads; i++)
        if (shares[i].started) pthread_join(shares[i].thread, NULL);
}

void pp_random_normals_f32(pp_random_key key, uint64_t start, int64_t count, double deviation,
                           float *values) {
    fill_all((share){.key = key, .start = start, .deviation = deviation, .floats = values}, count);
}

void pp_random_normals_f64(pp_random_key key, uint64_t start, int64_t count, double deviation,
                           double *values) {
    fill_all((share){.key = key, .start = start, .deviation = deviation, .doubles = values}, count);
}
