/* Waiting for other ranks without ever hanging: gates, and the watch that knows when to give up. */
#ifndef PPSIM_EXECUTOR_GATE_INTERNAL_H
#define PPSIM_EXECUTOR_GATE_INTERNAL_H

#include "core/core.h"

#include <pthread.h>
#include <stdatomic.h>

/* Signs of life of a run. A wait is given up only when for timeout_s no rank has finished an
 * action and none is inside one: a long kernel is not a hang. */
typedef struct pp_watch {
    atomic_int computing;       /* ranks inside an action's arithmetic */
    atomic_uint_fast64_t done;  /* actions finished by all ranks of this process */
    atomic_uint_fast64_t elsewhere; /* signs of life from other processes */
    double timeout_s;
} pp_watch;

/* One wait, as the waiter sees it. */
typedef struct pp_patience {
    const pp_watch *watch; /* NULL: waits until aborted */
    uint_fast64_t seen;
    double since_s;
} pp_patience;

#define PP_WAIT_SLICE_S 0.05 /* how often a waiter looks at the watch and at stop requests */

pp_patience pp_patience_start(const pp_watch *watch);
/* PP_OK: wait on. PP_E_INTERRUPTED: a stop request. PP_E_FAILED: nobody has moved for too long. */
pp_status pp_patience_check(pp_patience *patience);

/* A place where `parties` threads meet, again and again. */
typedef struct pp_gate {
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    int parties, waiting;
    uint64_t round;
    double latest, result; /* largest value brought this round, and of the round before */
    bool aborted;
} pp_gate;

void pp_gate_init(pp_gate *gate, int parties);
void pp_gate_deinit(pp_gate *gate);
/* Waits for the others. Each brings a value (such as its clock) and all leave with the largest.
 * PP_E_INTERRUPTED: aborted or a stop request; PP_E_FAILED: timed out. Fills no error. */
pp_status pp_gate_wait(pp_gate *gate, const pp_watch *watch, double *value);
/* For one of the parties: waits until all others stand at the gate, calls `meet` with the largest of
 * all values, which it may replace, and opens. Not PP_OK from meet: the gate stays closed. */
pp_status pp_gate_lead(pp_gate *gate, double *value,
                       pp_status (*meet)(void *context, double *value), void *context);
void pp_gate_abort(pp_gate *gate); /* wakes all, now and later */

/* A condition variable on the monotonic clock, and a wait of at most `seconds` on it. */
void pp_condition_init(pthread_cond_t *condition);
void pp_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double seconds);

#endif
