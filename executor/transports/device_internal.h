/* What the device transport keeps: pairs of ranks, the desks of this process's ranks, and what is
 * on its way between them. */
#ifndef PPSIM_EXECUTOR_DEVICE_INTERNAL_H
#define PPSIM_EXECUTOR_DEVICE_INTERNAL_H

#include "executor/backend.h"
#include "executor/carrier.h"
#include "executor/transport.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct crate_part {
    uint64_t slot_offset, size_bytes;
} crate_part;

/* What a sender announces. */
typedef struct coming {
    int channel, part_count;
    uint32_t microbatch;
    const crate_part *parts;
} coming;

/* Device memory of the transport. */
typedef struct block {
    struct block *next;
    void *bytes;
    size_t size_bytes;
} block;

/* One message on its way, at one of its ends. */
typedef struct crate {
    struct crate *next;
    coming what; /* its parts are below */
    size_t size_bytes;
    block *block; /* NULL: not yet, or nothing to carry */
    void *mark;   /* behind its transfer in the end's queue */
    crate_part parts[];
} crate;

/* From one rank to another. */
typedef struct pair {
    int lane, from_worker, to_worker, from_process, to_process;
    pp_carrier_id id;
    bool id_made;
} pair;

typedef struct end {
    pair *pair;
    bool sends;
    int sequence; /* of the next announcement between processes */
    pp_side_queue *side;
    pp_carrier_end *joined;
    crate *waiting;        /* to be begun, in order; guarded by the transport's mutex */
    crate *begun, *flying; /* the desk's own */
} end;

typedef struct desk {
    pp_transport *transport;
    int worker;
    const pp_backend *backend;
    void *backend_state; /* of the rank */
    end *ends;           /* by lane */
    int end_count;
    pthread_t thread;
    bool started, ready; /* ready, and what follows: guarded by the transport's mutex */
    pp_status status;
    pp_error error;
    crate *arrived;
    block *free_blocks;
    block *spent_blocks; /* sent, and still to be poisoned by the rank's thread */
} desk;

struct pp_transport {
    struct pp_processes *processes;
    const pp_carrier_ops *carrier;
    void *local; /* the local transport, which has the slots */
    pp_channel_request *channels;
    pair *pairs; /* ascending by lane */
    int pair_count;
    desk *desks; /* of this process's ranks that send or receive */
    int desk_count;
    double timeout_s;
    void (*fail)(void *context, const pp_error *error);
    void *context;
    pthread_mutex_t mutex;
    pthread_cond_t stirred;
    atomic_bool aborted, closing;
    pp_arena arena;
};

/* ---- device_desk.c ------------------------------------------------------------------------- */

/* A block of exactly that size; NULL: out of memory. On the rank's device, from either thread. */
block *pp_block_take(desk *d, size_t size_bytes);
void pp_block_put(desk *d, block **list, block *back); /* NULL is fine */
crate *pp_crate_new(const coming *what);               /* copies the parts */
void pp_crate_append(crate **list, crate *added);
bool pp_device_is_here(const pp_transport *transport, int process);
void *pp_desk_main(void *desk); /* the thread */

#endif
