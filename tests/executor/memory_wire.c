#include "memory_wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { PROCESSES = 16 };

/* One letter on its way. It is gone when both sides are done with it. */
struct pp_wire_request {
    struct pp_wire_request *next;
    pp_letter letter;
    int from;
    double ready_s;
    const void *payload;
    bool received;
};

struct pp_wire {
    int process;
};

static struct {
    pthread_mutex_t mutex;
    int processes, joined, left_together, cut;
    double delay_s;
    uint64_t seed, drawn;
    atomic_int sends_left;
    pp_wire_request *queues[PROCESSES][PROCESSES]; /* [to][from] in order */
    pp_wire_request *taken[PROCESSES][PROCESSES];  /* letters whose payload is not yet copied */
} world = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cut = -1};

void memory_wire_open(int processes, double delay_s, uint64_t seed) {
    world.processes = processes;
    world.joined = world.left_together = 0;
    world.cut = -1;
    world.delay_s = delay_s;
    world.seed = seed;
    world.drawn = 0;
    atomic_store(&world.sends_left, -1);
}

void memory_wire_cut(int process) {
    pthread_mutex_lock(&world.mutex);
    world.cut = process;
    pthread_mutex_unlock(&world.mutex);
}

void memory_wire_fail_send(int n) {
    atomic_store(&world.sends_left, n > 0 ? n : -1);
}

static void drop(pp_wire_request **list) {
    while (*list) {
        pp_wire_request *next = (*list)->next;
        pp_free(*list);
        *list = next;
    }
}

int memory_wire_close(void) {
    for (int to = 0; to < PROCESSES; to++)
        for (int from = 0; from < PROCESSES; from++) {
            drop(&world.queues[to][from]);
            drop(&world.taken[to][from]);
        }
    return world.left_together;
}

static bool memory_usable(char detail[256]) {
    strcpy(detail, "threads");
    return true;
}

static pp_status memory_join(pp_wire **wire, int *process, int *processes, pp_error *error) {
    *wire = pp_allocate(sizeof **wire);
    if (!*wire) return pp_fail_memory(error);
    pthread_mutex_lock(&world.mutex);
    *process = (*wire)->process = world.joined++;
    *processes = world.processes;
    pthread_mutex_unlock(&world.mutex);
    return PP_OK;
}

static void append(pp_wire_request **list, pp_wire_request *added) {
    while (*list) list = &(*list)->next;
    added->next = NULL;
    *list = added;
}

static pp_status memory_send(pp_wire *wire, int to, const pp_letter *letter, const void *payload,
                             pp_wire_request **request, pp_error *error) {
    if (atomic_load(&world.sends_left) > 0 && atomic_fetch_sub(&world.sends_left, 1) == 1)
        return pp_fail(error, PP_E_FAILED, NULL, "the wire was told to break");
    pp_wire_request *sent = pp_allocate(sizeof *sent);
    if (!sent) return pp_fail_memory(error);
    pthread_mutex_lock(&world.mutex);
    double delay_s =
        world.delay_s * (double)(pp_hash(world.seed, &world.drawn, 8) >> 40) / (1 << 24);
    world.drawn++;
    *sent = (pp_wire_request){.letter = *letter,
                              .from = wire->process,
                              .ready_s = pp_now_s() + delay_s,
                              .payload = payload};
    bool lost = world.cut == wire->process || world.cut == to;
    if (!lost) append(&world.queues[to][wire->process], sent);
    pthread_mutex_unlock(&world.mutex);
    if (lost) pp_free(sent);
    *request = lost || letter->size_bytes == 0 ? NULL : sent;
    return PP_OK;
}

static bool memory_next(pp_wire *wire, pp_letter *letter, int *from) {
    bool found = false;
    double now_s = pp_now_s();
    pthread_mutex_lock(&world.mutex);
    for (int p = 0; !found && p < world.processes; p++) {
        pp_wire_request **queue = &world.queues[wire->process][p], *first = *queue;
        if (!first || first->ready_s > now_s || world.cut == wire->process) continue;
        found = true;
        *queue = first->next;
        *letter = first->letter;
        *from = p;
        if (letter->size_bytes > 0)
            append(&world.taken[wire->process][p], first);
        else
            pp_free(first);
    }
    pthread_mutex_unlock(&world.mutex);
    return found;
}

static pp_status memory_receive(pp_wire *wire, int from, const pp_letter *letter, void *payload,
                                pp_wire_request **request, pp_error *error) {
    pthread_mutex_lock(&world.mutex);
    pp_wire_request **first = &world.taken[wire->process][from], *taken = *first;
    bool there = taken->payload != NULL;
    *first = taken->next;
    if (there) memcpy(payload, taken->payload, letter->size_bytes);
    taken->received = true; /* the sender's from here on */
    if (!there) pp_free(taken);
    pthread_mutex_unlock(&world.mutex);
    *request = NULL;
    return there ? PP_OK : pp_fail(error, PP_E_FAILED, NULL, "the sender is gone");
}

static bool memory_done(pp_wire *wire, pp_wire_request *request) {
    (void)wire;
    if (!request) return true;
    pthread_mutex_lock(&world.mutex);
    bool received = request->received;
    pthread_mutex_unlock(&world.mutex);
    if (received) pp_free(request);
    return received;
}

/* What was not received when its sender left is lost. */
static void withdraw(int from) {
    for (int to = 0; to < world.processes; to++) {
        for (pp_wire_request **at = &world.queues[to][from]; *at;) {
            pp_wire_request *waiting = *at;
            if (waiting->letter.size_bytes == 0) {
                at = &waiting->next;
                continue;
            }
            *at = waiting->next;
            pp_free(waiting);
        }
        for (pp_wire_request *taken = world.taken[to][from]; taken; taken = taken->next)
            taken->payload = NULL;
    }
}

static void memory_leave(pp_wire *wire, bool together, int exit_status) {
    (void)exit_status;
    pthread_mutex_lock(&world.mutex);
    world.left_together += together;
    withdraw(wire->process);
    pthread_mutex_unlock(&world.mutex);
    pp_free(wire);
}

const pp_wire_ops memory_wire = {
    .name = "memory",
    .usable = memory_usable,
    .join = memory_join,
    .send = memory_send,
    .next = memory_next,
    .receive = memory_receive,
    .done = memory_done,
    .leave = memory_leave,
};
