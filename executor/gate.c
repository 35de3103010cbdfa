/* Gates and patience: every wait of the executor ends, either with what it waited for, or because
 * the run was aborted, a stop was requested, or nobody has moved for the timeout (promise P8).
 *
 * Waiters sleep in slices: a stop request comes from a signal handler, which cannot signal a
 * condition variable, and life elsewhere has to be looked at now and then. */
#include "executor/gate_internal.h"

#include <math.h>
#include <time.h>

void pp_condition_init(pthread_cond_t *condition) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

void pp_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double whole = floor(seconds);
    until.tv_sec += (time_t)whole;
    until.tv_nsec += (long)((seconds - whole) * 1e9);
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_cond_timedwait(condition, mutex, &until);
}

static uint_fast64_t life(const pp_watch *watch) {
    return watch ? atomic_load(&watch->done) + atomic_load(&watch->elsewhere) : 0;
}

pp_patience pp_patience_start(const pp_watch *watch) {
    return (pp_patience){.watch = watch, .seen = life(watch), .since_s = pp_now_s()};
}

pp_status pp_patience_check(pp_patience *patience) {
    if (!patience->watch) return PP_OK;
    if (pp_stop_signal()) return PP_E_INTERRUPTED;
    uint_fast64_t done = life(patience->watch);
    double now_s = pp_now_s();
    if (done != patience->seen || atomic_load(&patience->watch->computing) > 0) {
        patience->seen = done;
        patience->since_s = now_s;
    }
    return now_s - patience->since_s > patience->watch->timeout_s ? PP_E_FAILED : PP_OK;
}

void pp_gate_init(pp_gate *gate, int parties) {
    *gate = (pp_gate){.parties = parties};
    pthread_mutex_init(&gate->mutex, NULL);
    pp_condition_init(&gate->opened);
}

void pp_gate_deinit(pp_gate *gate) {
    pthread_cond_destroy(&gate->opened);
    pthread_mutex_destroy(&gate->mutex);
}

/* The last to come opens the gate for this round. */
static void arrive(pp_gate *gate, double value) {
    if (gate->waiting == 0 || value > gate->latest) gate->latest = value;
    gate->waiting++;
    if (gate->waiting == gate->parties - 1) pthread_cond_broadcast(&gate->opened); /* to a leader */
    if (gate->waiting < gate->parties || gate->aborted) return;
    gate->waiting = 0;
    gate->round++;
    gate->result = gate->latest;
    pthread_cond_broadcast(&gate->opened);
}

pp_status pp_gate_wait(pp_gate *gate, const pp_watch *watch, double *value) {
    pp_status status = PP_OK;
    pp_patience patience = pp_patience_start(watch);
    pthread_mutex_lock(&gate->mutex);
    uint64_t round = gate->round;
    arrive(gate, *value);
    while (gate->round == round && !gate->aborted && status == PP_OK) {
        pp_condition_wait(&gate->opened, &gate->mutex, PP_WAIT_SLICE_S);
        status = pp_patience_check(&patience);
    }
    bool open = gate->round != round;
    *value = gate->result;
    pthread_mutex_unlock(&gate->mutex);
    if (open) return PP_OK;
    return status != PP_OK ? status : PP_E_INTERRUPTED;
}

pp_status pp_gate_lead(pp_gate *gate, double *value,
                       pp_status (*meet)(void *context, double *value), void *context) {
    pthread_mutex_lock(&gate->mutex);
    while (gate->waiting < gate->parties - 1 && !gate->aborted)
        pp_condition_wait(&gate->opened, &gate->mutex, PP_WAIT_SLICE_S);
    bool aborted = gate->aborted;
    if (gate->waiting > 0 && gate->latest > *value) *value = gate->latest;
    pthread_mutex_unlock(&gate->mutex);
    if (aborted) return PP_E_INTERRUPTED;
    PP_TRY(meet(context, value));
    pthread_mutex_lock(&gate->mutex);
    arrive(gate, *value);
    gate->result = *value;
    aborted = gate->aborted;
    pthread_mutex_unlock(&gate->mutex);
    return aborted ? PP_E_INTERRUPTED : PP_OK;
}

void pp_gate_abort(pp_gate *gate) {
    pthread_mutex_lock(&gate->mutex);
    gate->aborted = true;
    pthread_cond_broadcast(&gate->opened);
    pthread_mutex_unlock(&gate->mutex);
}
