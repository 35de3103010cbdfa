/* A queue of events: each of a fixed number of actors has at most one, which may be moved. Events
 * of one time come in the order of their actors, so that a run is always the same. */
#ifndef PPSIM_SIM_EVENT_QUEUE_INTERNAL_H
#define PPSIM_SIM_EVENT_QUEUE_INTERNAL_H

#include "core/core.h"

typedef struct pp_event_queue {
    double *time_s; /* [actors] of its event */
    int *place;     /* [actors] in heap; -1: has none */
    int *heap;      /* [count] actors; none comes before its parent, at (i - 1) / 2 */
    int count;
} pp_event_queue;

/* Memory is the arena's, which says if there was none. */
void pp_events_init(pp_event_queue *queue, int actors, pp_arena *arena);
/* Sets or moves the actor's event. O(log actors). */
void pp_events_set(pp_event_queue *queue, int actor, double time_s);
/* Takes the first event; its time stays in time_s. -1: there is none. O(log actors). */
int pp_events_take(pp_event_queue *queue);

#endif
