/* A binary heap that knows where each actor stands in it. */
#include "sim/event_queue_internal.h"

void pp_events_init(pp_event_queue *queue, int actors, pp_arena *arena) {
    *queue = (pp_event_queue){.time_s = PP_NEW(arena, double, actors),
                              .place = PP_NEW(arena, int, actors),
                              .heap = PP_NEW(arena, int, actors)};
    for (int i = 0; !arena->failed && i < actors; i++) queue->place[i] = -1;
}

static bool comes_before(const pp_event_queue *queue, int a, int b) {
    if (queue->time_s[a] != queue->time_s[b]) return queue->time_s[a] < queue->time_s[b];
    return a < b;
}

static void put(pp_event_queue *queue, int at, int actor) {
    queue->heap[at] = actor;
    queue->place[actor] = at;
}

static void rise(pp_event_queue *queue, int at) {
    int actor = queue->heap[at];
    for (int parent; at > 0; at = parent) {
        parent = (at - 1) / 2;
        if (!comes_before(queue, actor, queue->heap[parent])) break;
        put(queue, at, queue->heap[parent]);
    }
    put(queue, at, actor);
}

static void sink(pp_event_queue *queue, int at) {
    int actor = queue->heap[at];
    for (int child; (child = 2 * at + 1) < queue->count; at = child) {
        if (child + 1 < queue->count &&
            comes_before(queue, queue->heap[child + 1], queue->heap[child]))
            child++;
        if (!comes_before(queue, queue->heap[child], actor)) break;
        put(queue, at, queue->heap[child]);
    }
    put(queue, at, actor);
}

void pp_events_set(pp_event_queue *queue, int actor, double time_s) {
    queue->time_s[actor] = time_s;
    if (queue->place[actor] < 0) put(queue, queue->count++, actor);
    rise(queue, queue->place[actor]);
    sink(queue, queue->place[actor]);
}

int pp_events_take(pp_event_queue *queue) {
    if (queue->count == 0) return -1;
    int first = queue->heap[0];
    queue->place[first] = -1;
    queue->count--;
    if (queue->count > 0) {
        put(queue, 0, queue->heap[queue->count]);
        sink(queue, 0);
    }
    return first;
}
