/* The postman: the one thread of a process that talks to the wire.
 *
 * Model. Whoever wants to send puts a parcel into the outbox and goes on; what comes is laid into
 * the inbox, where whoever needs it waits for it. So ranks never wait for the wire, and big
 * messages move while ranks compute. The wire cannot be waited for together with the outbox, so the
 * postman looks at both by turns: a look-round that found nothing is followed by a nap of 1/50 of
 * the time for which nothing has happened, at most NAP_MOST_S: what comes after a wait is found
 * with a delay that is small against that wait, and an idle wire costs next to no processor.
 *
 * Life. Every process tells process 0 now and then what its ranks have done, and process 0 tells
 * every process what all others have done: this feeds the watches (gate_internal.h), so that a rank
 * does not lose patience while another process computes. Who is not heard for the timeout is dead,
 * stopped or cut off, and the run is given up (promise P8). */
#include "executor/processes_internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#define NAP_SHARE 0.02
#define NAP_LEAST_S 5e-6
#define NAP_MOST_S 1e-3
#define ALIVE_MOST_S 0.5    /* between two signs of life */
#define ALIVE_SHARE 0.1     /* of the timeout */
#define SILENCE_SHARE 0.8   /* of the timeout: who is cut off is named before patience is over */
#define LAST_LETTERS_S 0.25 /* for what is still to be sent when nobody can wait any more */

void pp_parcel_free(pp_processes *processes, pp_parcel *parcel) {
    if (!parcel) return;
    pp_payload_free(processes, parcel->payload);
    pp_free(parcel);
}

/* ---- outbox and inbox ---------------------------------------------------------------------- */

pp_status pp_post(pp_processes *processes, int to, const pp_letter *letter, void *payload,
                  pp_error *error) {
    pp_postman *postman = &processes->postman;
    pp_parcel *parcel = pp_allocate(sizeof *parcel);
    if (!parcel) {
        pp_payload_free(processes, payload);
        return pp_fail_memory(error);
    }
    *parcel = (pp_parcel){.process = to, .letter = *letter, .payload = payload};
    pthread_mutex_lock(&postman->mutex);
    *postman->outbox_end = parcel;
    postman->outbox_end = &parcel->next;
    pthread_cond_signal(&postman->filled);
    pthread_mutex_unlock(&postman->mutex);
    return PP_OK;
}

static bool matches(const pp_parcel *parcel, const pp_wanted *wanted) {
    const pp_letter *letter = &parcel->letter;
    return (wanted->number < 0 || letter->number == wanted->number) &&
           (wanted->part < 0 || letter->part == wanted->part) &&
           (wanted->microbatch < 0 || letter->microbatch == (uint32_t)wanted->microbatch);
}

static pp_parcel *find_locked(pp_postman *postman, const pp_wanted *wanted) {
    for (pp_parcel **at = &postman->inbox[wanted->kind]; *at; at = &(*at)->next) {
        pp_parcel *found = *at;
        if (!matches(found, wanted)) continue;
        if (wanted->take) *at = found->next;
        return found;
    }
    return NULL;
}

bool pp_goodbye_wait(pp_processes *processes, int process, double timeout_s) {
    pp_postman *postman = &processes->postman;
    double until_s = pp_now_s() + timeout_s;
    pthread_mutex_lock(&postman->mutex);
    for (double left_s = timeout_s; left_s > 0 && !postman->said_goodbye[process];
         left_s = until_s - pp_now_s())
        pp_condition_wait(&postman->arrived, &postman->mutex, left_s);
    bool said = postman->said_goodbye[process];
    pthread_mutex_unlock(&postman->mutex);
    return said;
}

pp_parcel *pp_inbox_wait(pp_processes *processes, const pp_wanted *wanted, double timeout_s) {
    pp_postman *postman = &processes->postman;
    pthread_mutex_lock(&postman->mutex);
    pp_parcel *found = find_locked(postman, wanted);
    if (!found && timeout_s > 0) { /* once: whoever was woken looks at the run first */
        pp_condition_wait(&postman->arrived, &postman->mutex, timeout_s);
        found = find_locked(postman, wanted);
    }
    pthread_mutex_unlock(&postman->mutex);
    return found;
}

void pp_inbox_wake(pp_processes *processes) {
    pp_postman *postman = &processes->postman;
    pthread_mutex_lock(&postman->mutex);
    pthread_cond_broadcast(&postman->arrived);
    pthread_mutex_unlock(&postman->mutex);
}

/* ---- giving up ----------------------------------------------------------------------------- */

static void give_up(pp_processes *processes, const pp_verdict *verdict) {
    pthread_mutex_lock(&processes->listening);
    if (processes->on_fail)
        processes->on_fail(processes->context, verdict);
    else if (!processes->pending.status)
        processes->pending = *verdict;
    pthread_mutex_unlock(&processes->listening);
}

void pp_verdict_make(pp_processes *processes, const pp_error *error, pp_verdict *verdict) {
    *verdict = (pp_verdict){.time_s = pp_to_run_clock(processes, pp_now_s()),
                            .status = (int32_t)error->code,
                            .signal = pp_stop_signal()};
    memcpy(verdict->place, error->place, sizeof verdict->place);
    memcpy(verdict->message, error->message, sizeof verdict->message);
    memcpy(verdict->cause, error->cause, sizeof verdict->cause);
}

/* What the postman finds himself; the first finding counts. */
static void part(pp_processes *processes, const pp_error *error) {
    pp_verdict verdict;
    atomic_store(&processes->parted, true);
    if (processes->postman.told) return;
    processes->postman.told = true;
    pp_verdict_make(processes, error, &verdict);
    give_up(processes, &verdict);
}

static void found_broken(pp_processes *processes, const pp_error *error) {
    processes->postman.broken = true;
    part(processes, error);
}

/* ---- signs of life ------------------------------------------------------------------------- */

static uint32_t own_life(pp_processes *processes, int *computing) {
    pthread_mutex_lock(&processes->listening);
    pp_watch *watch = processes->watch;
    uint32_t done = watch ? (uint32_t)atomic_load(&watch->done) : 0;
    *computing = watch ? atomic_load(&watch->computing) : 0;
    pthread_mutex_unlock(&processes->listening);
    return done;
}

/* What all but process q have done; process 0 knows. */
static pp_letter life_without(pp_processes *processes, int q) {
    const pp_postman *postman = &processes->postman;
    int computing;
    uint32_t done = own_life(processes, &computing);
    for (int r = 1; r < processes->count; r++)
        if (r != q) done += postman->life[r], computing += postman->computing[r];
    return (pp_letter){.kind = PP_LETTER_ALIVE, .microbatch = done, .part = computing > 0};
}

static void tell_alive(pp_processes *processes) {
    bool first = processes->process == 0;
    for (int q = first ? 1 : 0; q < (first ? processes->count : 1); q++) {
        pp_letter letter = life_without(processes, q);
        (void)pp_post(processes, q, &letter, NULL, NULL); /* the next one will do */
    }
}

static void hear_alive(pp_processes *processes, int from, const pp_letter *letter) {
    pp_postman *postman = &processes->postman;
    bool moved = letter->microbatch != postman->life[from] || letter->part > 0;
    postman->life[from] = letter->microbatch;
    postman->computing[from] = letter->part;
    pthread_mutex_lock(&processes->listening);
    if (moved && processes->watch) atomic_fetch_add(&processes->watch->elsewhere, 1);
    pthread_mutex_unlock(&processes->listening);
}

static void watch_silence(pp_processes *processes, double now_s) {
    bool first = processes->process == 0;
    for (int q = first ? 1 : 0; q < (first ? processes->count : 1); q++) {
        double silent_s = now_s - processes->postman.heard_s[q];
        if (silent_s <= processes->timeout_s * SILENCE_SHARE) continue;
        pp_error error = {.code = PP_OK};
        pp_fail(&error, PP_E_FAILED, NULL,
                "process %d on %s has given no sign of life for %.2g s: it has died, hangs, or "
                "cannot be reached",
                q, processes->places[q].host[0] ? processes->places[q].host : "its machine",
                silent_s);
        atomic_store(&processes->postman.gone[q], true);
        if (q == 0) atomic_store(&processes->speaker, 1);
        part(processes, &error);
    }
}

static void look_after_life(pp_processes *processes, double *told_s) {
    double now_s = pp_now_s();
    double share_s = processes->timeout_s * ALIVE_SHARE;
    if (now_s - *told_s < (share_s < ALIVE_MOST_S ? share_s : ALIVE_MOST_S)) return;
    *told_s = now_s;
    tell_alive(processes);
    watch_silence(processes, now_s);
}

/* ---- the round ----------------------------------------------------------------------------- */

static pp_parcel *next_out(pp_postman *postman) {
    pthread_mutex_lock(&postman->mutex);
    pp_parcel *parcel = postman->outbox;
    if (parcel) postman->outbox = parcel->next;
    if (parcel && !postman->outbox) postman->outbox_end = &postman->outbox;
    pthread_mutex_unlock(&postman->mutex);
    return parcel;
}

static void keep_under_way(pp_postman *postman, pp_parcel *parcel) {
    parcel->next = postman->under_way;
    postman->under_way = parcel;
}

/* Marks the time: answers of meetings compare clocks by it. */
static void stamp(pp_processes *processes, pp_parcel *parcel) {
    pp_postman *postman = &processes->postman;
    double now_s = pp_now_s();
    parcel->letter.time_s = now_s;
    if (parcel->letter.kind == PP_LETTER_GATHER) postman->gather_s[0] = now_s;
    if (parcel->letter.kind == PP_LETTER_TELL)
        parcel->letter.held_s = now_s - postman->gather_s[parcel->process];
}

static bool send_all(pp_processes *processes) {
    pp_postman *postman = &processes->postman;
    bool any = false;
    for (pp_parcel *parcel; (parcel = next_out(postman)); any = true) {
        pp_error error = {.code = PP_OK};
        stamp(processes, parcel);
        parcel->outgoing = true;
        pp_status status = postman->ops->send(postman->wire, parcel->process, &parcel->letter,
                                              parcel->payload, &parcel->request, &error);
        if (status == PP_OK) {
            keep_under_way(postman, parcel);
            continue;
        }
        found_broken(processes, &error);
        pp_parcel_free(processes, parcel);
    }
    return any;
}

static void lay_in(pp_processes *processes, pp_parcel *parcel) {
    pp_postman *postman = &processes->postman;
    pthread_mutex_lock(&postman->mutex);
    parcel->next = postman->inbox[parcel->letter.kind];
    postman->inbox[parcel->letter.kind] = parcel;
    pthread_cond_broadcast(&postman->arrived);
    pthread_mutex_unlock(&postman->mutex);
}

static void learn_clock(pp_processes *processes, const pp_letter *letter, double now_s) {
    if (processes->same_clock) return;
    pthread_mutex_lock(&processes->postman.mutex);
    pp_clock_learn(&processes->clock, processes->postman.gather_s[0], now_s, letter->time_s,
                   letter->held_s);
    pthread_mutex_unlock(&processes->postman.mutex);
}

static void hear_goodbye(pp_postman *postman, int from) {
    pthread_mutex_lock(&postman->mutex);
    postman->goodbyes += !postman->said_goodbye[from];
    postman->said_goodbye[from] = true;
    pthread_cond_broadcast(&postman->arrived);
    pthread_mutex_unlock(&postman->mutex);
}

/* A parcel that has come whole. */
static void arrive(pp_processes *processes, pp_parcel *parcel) {
    switch ((pp_letter_kind)parcel->letter.kind) {
    case PP_LETTER_ALIVE:
        hear_alive(processes, parcel->process, &parcel->letter);
        break;
    case PP_LETTER_GOODBYE:
        hear_goodbye(&processes->postman, parcel->process);
        break;
    case PP_LETTER_FAIL:
        give_up(processes, parcel->payload);
        break;
    default:
        lay_in(processes, parcel);
        return;
    }
    pp_parcel_free(processes, parcel);
}

static pp_parcel *open_parcel(pp_processes *processes, const pp_letter *letter, int from,
                              pp_error *error) {
    pp_parcel *parcel = pp_allocate_zeroed(1, sizeof *parcel);
    if (!parcel) return pp_fail_memory(error), NULL;
    parcel->process = from;
    parcel->letter = *letter;
    if (letter->size_bytes == 0) return parcel;
    parcel->payload = pp_payload_new(processes, letter->size_bytes);
    if (parcel->payload) return parcel;
    pp_free(parcel);
    pp_fail_memory(error);
    return NULL;
}

/* A letter has come; its payload, if any, is on its way. */
static void take_in(pp_processes *processes, const pp_letter *letter, int from) {
    pp_postman *postman = &processes->postman;
    pp_error error = {.code = PP_OK};
    double now_s = pp_now_s();
    postman->heard_s[from] = now_s;
    if (letter->kind == PP_LETTER_GATHER) postman->gather_s[from] = now_s;
    if (letter->kind == PP_LETTER_TELL) learn_clock(processes, letter, now_s);
    pp_parcel *parcel = open_parcel(processes, letter, from, &error);
    if (!parcel) {
        found_broken(processes, &error);
    } else if (letter->size_bytes == 0) {
        arrive(processes, parcel);
    } else if (postman->ops->receive(postman->wire, from, letter, parcel->payload, &parcel->request,
                                     &error) == PP_OK) {
        keep_under_way(postman, parcel);
    } else {
        found_broken(processes, &error);
        pp_parcel_free(processes, parcel);
    }
}

static bool take_in_all(pp_processes *processes) {
    pp_postman *postman = &processes->postman;
    pp_letter letter;
    int from;
    bool any = false;
    for (; !postman->broken && postman->ops->next(postman->wire, &letter, &from); any = true)
        take_in(processes, &letter, from);
    return any;
}

static bool finish_under_way(pp_processes *processes) {
    pp_postman *postman = &processes->postman;
    bool any = false;
    for (pp_parcel **at = &postman->under_way; *at;) {
        pp_parcel *parcel = *at;
        if (!postman->ops->done(postman->wire, parcel->request)) {
            at = &parcel->next;
            continue;
        }
        any = true;
        *at = parcel->next;
        if (parcel->outgoing)
            pp_parcel_free(processes, parcel);
        else
            arrive(processes, parcel);
    }
    return any;
}

/* Until something is in the outbox, or for a share of the idle time. */
static void nap(pp_postman *postman, double idle_s) {
    double seconds = idle_s * NAP_SHARE;
    if (seconds < NAP_LEAST_S) {
        sched_yield();
        return;
    }
    if (seconds > NAP_MOST_S) seconds = NAP_MOST_S;
    pthread_mutex_lock(&postman->mutex);
    if (!postman->outbox && !postman->closing)
        pp_condition_wait(&postman->filled, &postman->mutex, seconds);
    pthread_mutex_unlock(&postman->mutex);
}

/* All is sent, and received: a letter that nobody takes in would never be sent. Or it is too late
 * for that. */
static bool may_close(pp_processes *processes, double now_s) {
    pp_postman *postman = &processes->postman;
    pthread_mutex_lock(&postman->mutex);
    bool empty = !postman->outbox && !postman->under_way;
    bool complete = empty && (!postman->together || postman->goodbyes == processes->count - 1);
    double most_s = postman->together ? pp_last_word_s(processes) : LAST_LETTERS_S;
    bool late = now_s > postman->closing_s + most_s;
    bool closing = atomic_load(&postman->closing);
    if (closing && late && !complete) postman->together = false;
    pthread_mutex_unlock(&postman->mutex);
    return closing && (complete || late);
}

static void work(pp_processes *processes) {
    pp_postman *postman = &processes->postman;
    double told_s = pp_now_s(), busy_s = told_s;
    for (int q = 0; q < processes->count; q++) postman->heard_s[q] = told_s;
    for (double now_s = told_s; !may_close(processes, now_s); now_s = pp_now_s()) {
        bool any = send_all(processes);
        any |= take_in_all(processes);
        any |= finish_under_way(processes);
        if (!atomic_load(&postman->closing)) look_after_life(processes, &told_s);
        if (any)
            busy_s = now_s;
        else
            nap(postman, now_s - busy_s);
    }
}

/* ---- starting and ending ------------------------------------------------------------------- */

static pp_status open_books(pp_processes *processes, pp_error *error) {
    pp_postman *postman = &processes->postman;
    size_t count = (size_t)processes->count;
    processes->places = pp_allocate_zeroed(count, sizeof *processes->places);
    postman->heard_s = pp_allocate_zeroed(count, sizeof *postman->heard_s);
    postman->gather_s = pp_allocate_zeroed(count, sizeof *postman->gather_s);
    postman->life = pp_allocate_zeroed(count, sizeof *postman->life);
    postman->computing = pp_allocate_zeroed(count, sizeof *postman->computing);
    postman->gone = pp_allocate_zeroed(count, sizeof *postman->gone);
    postman->said_goodbye = pp_allocate_zeroed(count, sizeof *postman->said_goodbye);
    bool complete = processes->places && postman->heard_s && postman->gather_s && postman->life &&
                    postman->computing && postman->gone && postman->said_goodbye;
    return complete ? PP_OK : pp_fail_memory(error);
}

static void *postman_main(void *argument) {
    pp_processes *processes = argument;
    pp_postman *postman = &processes->postman;
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    pp_error error = {.code = PP_OK};
    pp_status status =
        postman->ops->join(&postman->wire, &processes->process, &processes->count, &error);
    bool on_wire = status == PP_OK;
    if (on_wire) status = open_books(processes, &error);
    pthread_mutex_lock(&postman->mutex);
    postman->error = error;
    postman->error.code = status;
    postman->joined = true;
    pthread_cond_broadcast(&postman->arrived);
    pthread_mutex_unlock(&postman->mutex);
    if (status == PP_OK) work(processes);
    if (on_wire)
        postman->ops->leave(postman->wire, status == PP_OK && postman->together,
                            postman->exit_status);
    return NULL;
}

pp_status pp_postman_start(pp_processes *processes, const pp_wire_ops *ops, pp_error *error) {
    pp_postman *postman = &processes->postman;
    postman->ops = ops;
    postman->outbox_end = &postman->outbox;
    pthread_mutex_init(&postman->mutex, NULL);
    pp_condition_init(&postman->filled);
    pp_condition_init(&postman->arrived);
    if (pthread_create(&postman->thread, NULL, postman_main, processes) != 0)
        return pp_fail(error, PP_E_FAILED, NULL, "cannot start a thread for the %s wire",
                       ops->name);
    postman->started = true;
    pthread_mutex_lock(&postman->mutex);
    while (!postman->joined) pthread_cond_wait(&postman->arrived, &postman->mutex);
    pthread_mutex_unlock(&postman->mutex);
    if (error) *error = postman->error;
    return postman->error.code;
}

static void free_all(pp_processes *processes, pp_parcel *parcel) {
    while (parcel) {
        pp_parcel *next = parcel->next;
        pp_parcel_free(processes, parcel);
        parcel = next;
    }
}

void pp_postman_stop(pp_processes *processes, bool together, int exit_status) {
    pp_postman *postman = &processes->postman;
    pthread_mutex_lock(&postman->mutex);
    atomic_store(&postman->closing, true);
    postman->closing_s = pp_now_s();
    postman->together = together;
    postman->exit_status = exit_status;
    pthread_cond_signal(&postman->filled);
    pthread_mutex_unlock(&postman->mutex);
    if (postman->started) pthread_join(postman->thread, NULL);
    free_all(processes, postman->outbox);
    free_all(processes, postman->under_way);
    for (int i = 0; i < PP_LETTER_KINDS; i++) free_all(processes, postman->inbox[i]);
    pp_free(postman->heard_s);
    pp_free(postman->gather_s);
    pp_free(postman->life);
    pp_free(postman->computing);
    pp_free(postman->gone);
    pp_free(postman->said_goodbye);
    pthread_cond_destroy(&postman->arrived);
    pthread_cond_destroy(&postman->filled);
    pthread_mutex_destroy(&postman->mutex);
}
