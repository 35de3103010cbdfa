/* A stand-in for libnccl.so.2 on memory of the host: the functions that ppsim calls, with NCCL's
 * rules that matter to the host's side of a transport.
 *
 * Sends rendezvous: a transfer takes place when both sides have begun theirs, in the order of each
 * side, and its sizes must agree. Operations begin at the end of the outermost group of the thread.
 * Communicators are non-blocking: joining, groups and finishing are "in progress" until they were
 * asked about often enough. Errors of one side show on both (ncclCommGetAsyncError). A pair needs
 * both its ranks to join, and both to finish. */
#include "stand_in.h"

#include "executor/nccl/nccl_abi.h"
#include "fake_stream.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6 };
enum { PAIRS = 256, GROUP = 256 };

#define EXPORT __attribute__((visibility("default")))

EXPORT stand_in_control stand_in_control_;

typedef struct operation {
    struct operation *next;
    const void *from;
    void *to;
    size_t count;
    fake_stream *stream;
} operation;

typedef struct meeting_point {
    uint64_t id;
    int joined, finishing, left;
    int error, hangs;
    operation *begun[2]; /* sends of rank 0, receives of rank 1 */
} meeting_point;

struct nccl_comm {
    meeting_point *point;
    int rank, polls;
    int finished;
};

typedef struct queued {
    nccl_comm *comm;
    operation what;
} queued;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static meeting_point points[PAIRS];
static uint64_t last_id;
static _Thread_local int depth, count;
static _Thread_local queued group[GROUP];

#define control stand_in_control_

EXPORT int ncclGetVersion(int *version) {
    *version = control.version ? control.version : 22809;
    return SUCCESS;
}

EXPORT const char *ncclGetErrorString(int result) {
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return texts[result];
}

EXPORT const char *ncclGetLastError(nccl_comm *comm) {
    (void)comm;
    return "";
}

EXPORT int ncclGetUniqueId(nccl_id *id) {
    pthread_mutex_lock(&mutex);
    memset(id, 0, sizeof *id);
    last_id++;
    memcpy(id->internal, &last_id, sizeof last_id);
    pthread_mutex_unlock(&mutex);
    return SUCCESS;
}

static meeting_point *point_of(uint64_t id) {
    meeting_point *free_one = NULL;
    for (int i = 0; i < PAIRS; i++) {
        if (points[i].id == id) return &points[i];
        if (points[i].id == 0 && !free_one) free_one = &points[i];
    }
    if (free_one) *free_one = (meeting_point){.id = id};
    return free_one;
}

EXPORT int ncclCommInitRankConfig(nccl_comm **comm, int ranks, nccl_id id, int rank,
                                  nccl_config *config) {
    uint64_t number;
    memcpy(&number, id.internal, sizeof number);
    if (ranks != 2 || config->magic != NCCL_CONFIG_MAGIC || config->blocking != 0)
        return INVALID_ARGUMENT;
    nccl_comm *made = malloc(sizeof *made);
    if (!made) return SYSTEM_ERROR;
    pthread_mutex_lock(&mutex);
    *made = (nccl_comm){.point = point_of(number), .rank = rank};
    made->polls = atomic_load(&control.slow_polls);
    if (made->point) made->point->joined++;
    pthread_mutex_unlock(&mutex);
    atomic_fetch_add(&control.comms, 1);
    *comm = made;
    return NCCL_IN_PROGRESS;
}

/* ---- transfers ----------------------------------------------------------------------------- */

static double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int comes_up(atomic_int *left) {
    return atomic_load(left) > 0 && atomic_fetch_sub(left, 1) == 1;
}

static void *host(const void *address) {
    return control.host ? control.host(address) : (void *)(uintptr_t)address;
}

static void end_operation(operation *ended) {
    double wait_s = control.delay_s * ((double)rand() / RAND_MAX);
    atomic_store(&ended->stream->ready_s, now_s() + wait_s);
    atomic_fetch_add(&ended->stream->ended, 1);
    free(ended);
}

/* Whatever has come up on both sides. */
static void meet(meeting_point *point) {
    while (point->begun[0] && point->begun[1] && !point->error) {
        operation *sent = point->begun[0], *received = point->begun[1];
        point->hangs |= comes_up(&control.hang_transfer);
        if (point->hangs) return;
        if (sent->count != received->count || comes_up(&control.fail_transfer)) {
            point->error = REMOTE_ERROR;
            return;
        }
        point->begun[0] = sent->next;
        point->begun[1] = received->next;
        memcpy(host(received->to), host(sent->from), sent->count);
        atomic_fetch_add(&control.transfers, 1);
        end_operation(sent);
        end_operation(received);
    }
}

static void begin(const queued *due) {
    meeting_point *point = due->comm->point;
    operation *copy = malloc(sizeof *copy);
    if (!copy) abort();
    *copy = due->what;
    atomic_fetch_add(&copy->stream->begun, 1);
    pthread_mutex_lock(&mutex);
    operation **last = &point->begun[due->comm->rank];
    while (*last) last = &(*last)->next;
    *last = copy;
    due->comm->polls = atomic_load(&control.slow_polls);
    meet(point);
    pthread_mutex_unlock(&mutex);
}

EXPORT int ncclGroupStart(void) {
    depth++;
    return SUCCESS;
}

EXPORT int ncclGroupEnd(void) {
    if (--depth > 0) return SUCCESS;
    atomic_fetch_add(&control.groups, 1);
    if (count > atomic_load(&control.most_in_group)) atomic_store(&control.most_in_group, count);
    for (int i = 0; i < count; i++) begin(&group[i]);
    count = 0;
    return NCCL_IN_PROGRESS;
}

static int enqueue(nccl_comm *comm, int wanted_rank, const void *from, void *to, size_t bytes,
                   void *stream) {
    if (comes_up(&control.fail_call)) return INVALID_USAGE;
    if (comm->rank != wanted_rank || count == GROUP) return INVALID_USAGE;
    if (depth == 0) atomic_fetch_add(&control.outside_groups, 1);
    group[count++] = (queued){comm, {.from = from, .to = to, .count = bytes, .stream = stream}};
    return SUCCESS;
}

EXPORT int ncclSend(const void *bytes, size_t size, int type, int peer, nccl_comm *comm,
                    void *stream) {
    return type == NCCL_INT8 && peer == 1 ? enqueue(comm, 0, bytes, NULL, size, stream)
                                          : INVALID_ARGUMENT;
}

EXPORT int ncclRecv(void *bytes, size_t size, int type, int peer, nccl_comm *comm, void *stream) {
    return type == NCCL_INT8 && peer == 0 ? enqueue(comm, 1, NULL, bytes, size, stream)
                                          : INVALID_ARGUMENT;
}

/* ---- states -------------------------------------------------------------------------------- */

EXPORT int ncclCommGetAsyncError(nccl_comm *comm, int *result) {
    pthread_mutex_lock(&mutex);
    meeting_point *point = comm->point;
    int waiting = point->joined < 2 || (comm->finished && point->finishing < 2);
    *result = point->error                   ? point->error
              : waiting || comm->polls-- > 0 ? NCCL_IN_PROGRESS
                                             : SUCCESS;
    pthread_mutex_unlock(&mutex);
    return SUCCESS;
}

EXPORT int ncclCommFinalize(nccl_comm *comm) {
    pthread_mutex_lock(&mutex);
    comm->finished = 1;
    comm->point->finishing++;
    pthread_mutex_unlock(&mutex);
    return NCCL_IN_PROGRESS;
}

static void leave(nccl_comm *comm, int error) {
    pthread_mutex_lock(&mutex);
    meeting_point *point = comm->point;
    if (error && !point->error) point->error = error;
    for (operation *begun = point->begun[comm->rank], *next; begun; begun = next) {
        next = begun->next;
        free(begun);
    }
    point->begun[comm->rank] = NULL;
    if (++point->left == 2) point->id = 0;
    pthread_mutex_unlock(&mutex);
    free(comm);
}

EXPORT int ncclCommDestroy(nccl_comm *comm) {
    leave(comm, SUCCESS);
    atomic_fetch_add(&control.destroyed, 1);
    return SUCCESS;
}

EXPORT int ncclCommAbort(nccl_comm *comm) {
    leave(comm, REMOTE_ERROR);
    atomic_fetch_add(&control.aborted, 1);
    return SUCCESS;
}
