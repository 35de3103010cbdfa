/* The wire interface: how the processes of one run reach each other, by whatever library.
 *
 * A letter is a small head of fixed size and, where size_bytes > 0, a payload behind it. Between
 * two processes letters arrive whole, once, and in the order in which they were sent. All calls
 * come from one thread, the postman's (postman.c), so an implementation needs no locks and no
 * library that knows threads; none of them may wait, except join and leave. One in executor/mpi. */
#ifndef PPSIM_EXECUTOR_WIRE_H
#define PPSIM_EXECUTOR_WIRE_H

#include "core/core.h"

typedef struct pp_wire pp_wire;                 /* one per process */
typedef struct pp_wire_request pp_wire_request; /* something under way */

typedef struct pp_letter {
    int32_t kind;         /* of letters (processes_internal.h) */
    int32_t number, part; /* which of its kind */
    uint32_t microbatch;
    uint64_t size_bytes; /* of the payload */
    double time_s;       /* when it was sent, on the sender's clock */
    double held_s;       /* how long the letter that it answers had waited for the answer */
    double sent_s;       /* replay: when the emulated link got it, on the run's clock */
} pp_letter;

typedef struct pp_wire_ops {
    const char *name;                 /* "mpi" */
    bool (*usable)(char detail[256]); /* detail: what was found, or why not and the cure */
    /* Joins those who were started together. process: this one's number, from 0. */
    pp_status (*join)(pp_wire **wire, int *process, int *processes, pp_error *error);
    /* Starts sending; the payload must stay as it is until `done`. The letter is copied. */
    pp_status (*send)(pp_wire *wire, int to, const pp_letter *letter, const void *payload,
                      pp_wire_request **request, pp_error *error);
    /* The next letter that has come, and from whom; false: none. */
    bool (*next)(pp_wire *wire, pp_letter *letter, int *from);
    /* Starts receiving the payload of the letter that `next` gave last. */
    pp_status (*receive)(pp_wire *wire, int from, const pp_letter *letter, void *payload,
                         pp_wire_request **request, pp_error *error);
    /* True once it is done; the request is gone then. */
    bool (*done)(pp_wire *wire, pp_wire_request *request);
    /* together: all have come to this point and nothing is under way. Else the others, dead or
     * stuck, are ended by force, with exit_status; does not return where that ends this one too. */
    void (*leave)(pp_wire *wire, bool together, int exit_status);
} pp_wire_ops;

#endif
