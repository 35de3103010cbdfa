/* Meetings: all processes come together at process 0, which answers all of them.
 *
 * Everybody holds the same meetings in the same order, so a number tells which one a letter belongs
 * to. A meeting is also a comparison of clocks (clocks.c). */
#include "executor/processes_internal.h"

#include <stdio.h>
#include <string.h>

#define AGREEMENTS (1 << 30) /* numbers from here on are not meetings of a run */

double pp_to_run_clock(pp_processes *processes, double here_s) {
    pthread_mutex_lock(&processes->postman.mutex);
    double run_s = here_s + processes->clock.offset_s;
    pthread_mutex_unlock(&processes->postman.mutex);
    return run_s;
}

double pp_from_run_clock(pp_processes *processes, double run_s) {
    return run_s - pp_to_run_clock(processes, 0);
}

/* Its letter, if it comes before everybody's patience is over. */
static pp_status await(pp_processes *processes, const pp_meeting *meeting, pp_wanted *wanted,
                       double until_s, pp_parcel **came) {
    for (;;) {
        *came = pp_inbox_wait(processes, wanted, PP_WAIT_SLICE_S);
        if (*came) return PP_OK;
        if (meeting->given_up && atomic_load(meeting->given_up)) return PP_E_INTERRUPTED;
        int q = wanted->part < 0 ? 0 : wanted->part;
        bool late = pp_now_s() > until_s || atomic_load(&processes->postman.gone[q]);
        if (!meeting->given_up && late) {
            atomic_store(&processes->parted, true);
            return PP_E_FAILED;
        }
    }
}

static pp_status hear_one(pp_processes *processes, const pp_meeting *meeting, int q, double until_s,
                          pp_error *error) {
    pp_wanted wanted = {PP_LETTER_GATHER, meeting->number, q, -1, true};
    pp_parcel *came = NULL;
    pp_status status = await(processes, meeting, &wanted, until_s, &came);
    if (status == PP_E_INTERRUPTED) return status;
    if (meeting->hear) /* without bytes: did not come */
        status = meeting->hear(meeting->context, q, came ? came->payload : NULL,
                               came ? (size_t)came->letter.size_bytes : 0);
    else if (status != PP_OK)
        pp_fail(error, status, NULL, "process %d on %s did not come to a meeting within %g s", q,
                processes->places[q].host, processes->timeout_s);
    pp_parcel_free(processes, came);
    return status;
}

static pp_status post_copy(pp_processes *processes, int to, const pp_letter *letter,
                           const void *bytes, pp_error *error) {
    void *copy = NULL;
    if (letter->size_bytes > 0) {
        copy = pp_payload_new(processes, letter->size_bytes);
        if (!copy) return pp_fail_memory(error);
        memcpy(copy, bytes, letter->size_bytes);
    }
    return pp_post(processes, to, letter, copy, error);
}

static pp_status lead(pp_processes *processes, const pp_meeting *meeting, double until_s,
                      pp_error *error) {
    if (meeting->hear)
        PP_TRY(meeting->hear(meeting->context, 0, meeting->bring, meeting->bring_bytes));
    for (int q = 1; q < processes->count; q++)
        PP_TRY(hear_one(processes, meeting, q, until_s, error));
    pp_letter letter = {
        .kind = PP_LETTER_TELL, .number = meeting->number, .size_bytes = meeting->say_bytes};
    for (int q = 1; q < processes->count; q++)
        PP_TRY(post_copy(processes, q, &letter, meeting->say, error));
    return PP_OK;
}

static pp_status follow(pp_processes *processes, const pp_meeting *meeting, double until_s,
                        pp_error *error) {
    pp_letter letter = {.kind = PP_LETTER_GATHER,
                        .number = meeting->number,
                        .part = processes->process,
                        .size_bytes = meeting->bring_bytes};
    PP_TRY(post_copy(processes, 0, &letter, meeting->bring, error));
    pp_wanted wanted = {PP_LETTER_TELL, meeting->number, -1, -1, true};
    pp_parcel *came = NULL;
    pp_status status = await(processes, meeting, &wanted, until_s, &came);
    if (status == PP_E_FAILED)
        pp_fail(error, status, NULL, "process 0 on %s did not answer for %g s",
                processes->places[0].host, processes->timeout_s);
    if (status != PP_OK) return status;
    size_t size =
        came->letter.size_bytes < meeting->say_bytes ? came->letter.size_bytes : meeting->say_bytes;
    if (size > 0) memcpy(meeting->say, came->payload, size);
    pp_parcel_free(processes, came);
    return PP_OK;
}

pp_status pp_meet(pp_processes *processes, const pp_meeting *meeting, pp_error *error) {
    double until_s = pp_now_s() + processes->timeout_s;
    pp_meeting numbered = *meeting;
    if (numbered.number == 0) numbered.number = ++processes->meetings;
    return (processes->process == 0 ? lead : follow)(processes, &numbered, until_s, error);
}

/* ---- agreeing ------------------------------------------------------------------------------ */

/* What all are told; a run that was given up leaves them at different meetings. */
typedef struct outcome {
    pp_verdict verdict; /* the earliest that is not OK */
    int32_t meetings;
    int32_t parted;
} outcome;

typedef struct ballot {
    pp_processes *processes;
    outcome all;
    uint64_t key; /* process 0's */
} ballot;

typedef struct vote {
    pp_verdict verdict;
    uint64_t key;
    int32_t parted;
} vote;

static void set_late(ballot *b, int q) {
    pp_error error = {.code = PP_OK};
    pp_fail(&error, PP_E_FAILED, NULL, "process %d on %s did not answer for %g s", q,
            b->processes->places[q].host, b->processes->timeout_s);
    pp_verdict_make(b->processes, &error, &b->all.verdict);
}

static void set_differs(ballot *b, int q) {
    pp_error error = {.code = PP_OK};
    pp_fail(&error, PP_E_INPUT, NULL,
            "process %d on %s was given another plan, other options or another version of ppsim "
            "than process 0 on %s: give all of them the same files and the same command",
            q, b->processes->places[q].host, b->processes->places[0].host);
    pp_verdict_make(b->processes, &error, &b->all.verdict);
}

/* A process that was stopped because of another's failure says so; that is no cause. */
static bool is_cause(const pp_verdict *new, const pp_verdict *old) {
    if (new->status == PP_OK) return false;
    if (old->status == PP_OK) return true;
    bool echo_new = new->status == PP_E_INTERRUPTED, echo_old = old->status == PP_E_INTERRUPTED;
    if (echo_new != echo_old) return echo_old;
    return new->time_s < old->time_s;
}

static pp_status count_vote(void *context, int process, const void *bytes, size_t size_bytes) {
    ballot *b = context;
    const vote *heard = bytes;
    if (size_bytes < sizeof *heard) {
        b->all.parted = 1;
        if (b->all.verdict.status == PP_OK) set_late(b, process);
        return PP_OK;
    }
    if (is_cause(&heard->verdict, &b->all.verdict)) b->all.verdict = heard->verdict;
    if (process == 0) b->key = heard->key;
    b->all.parted |= heard->parted;
    if (heard->key != b->key && b->all.verdict.status == PP_OK) set_differs(b, process);
    return PP_OK;
}

/* What came, or the postman found, while no run listened. */
static pp_verdict pending(pp_processes *processes) {
    pthread_mutex_lock(&processes->listening);
    pp_verdict verdict = processes->pending;
    pthread_mutex_unlock(&processes->listening);
    return verdict;
}

pp_status pp_verdict_error(const pp_verdict *verdict, pp_error *error) {
    if (error) {
        *error = (pp_error){.code = (pp_status)verdict->status};
        memcpy(error->place, verdict->place, sizeof error->place);
        memcpy(error->message, verdict->message, sizeof error->message);
        memcpy(error->cause, verdict->cause, sizeof error->cause);
    }
    return (pp_status)verdict->status;
}

pp_status pp_processes_agree(pp_processes *processes, pp_status status, uint64_t key,
                             pp_error *error) {
    pp_error mine = {.code = PP_OK}, late = {.code = PP_OK};
    if (!processes) return status;
    ballot b = {.processes = processes, .all = {.meetings = processes->meetings}};
    vote own = {.key = key, .parted = atomic_load(&processes->parted)};
    if (status != PP_OK && error) mine = *error;
    mine.code = status;
    if (status != PP_OK)
        pp_verdict_make(processes, &mine, &own.verdict);
    else
        own.verdict = pending(processes);
    pp_meeting meeting = {.bring = &own,
                          .bring_bytes = sizeof own,
                          .hear = count_vote,
                          .context = &b,
                          .say = &b.all,
                          .say_bytes = sizeof b.all,
                          .number = AGREEMENTS + ++processes->agreements};
    pp_status met = pp_meet(processes, &meeting, &late);
    if (met == PP_OK) processes->meetings = b.all.meetings;
    if (met == PP_OK && b.all.parted) atomic_store(&processes->parted, true);
    if (met == PP_OK && b.all.verdict.status == PP_OK) return PP_OK;
    if (met == PP_OK) {
        if (b.all.verdict.signal && !pp_stop_signal()) pp_stop_request(b.all.verdict.signal);
        return pp_verdict_error(&b.all.verdict, error);
    }
    if (status != PP_OK) return status; /* nobody there to agree with */
    if (error) *error = late;
    return met;
}
