/* Choosing between a fused kernel and its parts, by the clock.
 *
 * Which is faster depends on the shape, the card and the library's version, and no rule of thumb
 * knows. The two ways differ in rounding. So one choice holds for a whole process: ranks that have
 * equal layers compute them alike, whoever came first. Two processes may choose differently where
 * the ways are nearly as fast: who needs the same bits in all of them does not have it measured. */
#include "executor/cuda/choice.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

enum { SHAPES_MAX = 256 };

static struct {
    pp_choice_key key;
    pp_choice choice;
} known[SHAPES_MAX];
static int known_count;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static pp_choice choose_locked(const pp_choice_key *key, pp_choice_time *time, void *context) {
    for (int i = 0; i < known_count; i++)
        if (memcmp(&known[i].key, key, sizeof *key) == 0) return known[i].choice;
    if (known_count == SHAPES_MAX) return (pp_choice){.fused = false};
    pp_choice made = {.fused_s = time(context, true), .parts_s = time(context, false)};
    made.fused = isfinite(made.fused_s) && made.fused_s < made.parts_s;
    known[known_count].key = *key;
    known[known_count++].choice = made;
    made.fresh = true;
    return made;
}

pp_choice pp_choose(const pp_choice_key *key, pp_choice_time *time, void *context) {
    pthread_mutex_lock(&mutex);
    pp_choice choice = choose_locked(key, time, context);
    pthread_mutex_unlock(&mutex);
    return choice;
}
