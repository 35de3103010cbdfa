/* The desk of a rank: the one thread that makes all calls of the carrier for its device (device.c
 * has the model). */
#include "executor/processes_internal.h"
#include "executor/transports/device_internal.h"

#include <sched.h>
#include <string.h>

#define NAP_SHARE 0.02 /* as the postman's */
#define NAP_MOST_S 1e-3
#define TRIAL_BYTES 64

/* ---- blocks and crates --------------------------------------------------------------------- */

/* Exact sizes come again and again; after the first step nothing is allocated. */
block *pp_block_take(desk *d, size_t size_bytes) {
    pthread_mutex_lock(&d->transport->mutex);
    block **at = &d->free_blocks;
    while (*at && (*at)->size_bytes != size_bytes) at = &(*at)->next;
    block *found = *at;
    if (found) *at = found->next;
    pthread_mutex_unlock(&d->transport->mutex);
    if (found) return found;
    block *made = pp_allocate(sizeof *made);
    if (!made) return NULL;
    *made = (block){.size_bytes = size_bytes,
                    .bytes = d->backend->allocate(d->backend_state, size_bytes)};
    if (made->bytes) return made;
    pp_free(made);
    return NULL;
}

void pp_block_put(desk *d, block **list, block *back) {
    if (!back) return;
    pthread_mutex_lock(&d->transport->mutex);
    back->next = *list;
    *list = back;
    pthread_mutex_unlock(&d->transport->mutex);
}

crate *pp_crate_new(const coming *what) {
    size_t parts_bytes = (size_t)what->part_count * sizeof(crate_part);
    crate *made = pp_allocate(sizeof *made + parts_bytes);
    if (!made) return NULL;
    *made = (crate){.what = *what};
    memcpy(made->parts, what->parts, parts_bytes);
    for (int i = 0; i < what->part_count; i++) made->size_bytes += made->parts[i].size_bytes;
    return made;
}

void pp_crate_append(crate **list, crate *added) {
    while (*list) list = &(*list)->next;
    added->next = NULL;
    *list = added;
}

bool pp_device_is_here(const pp_transport *transport, int process) {
    return !transport->processes || transport->processes->process == process;
}

/* ---- joining ------------------------------------------------------------------------------- */

static pp_status gone_or_late(const desk *d, double until_s, const char *what, pp_error *error) {
    const pp_transport *transport = d->transport;
    if (atomic_load(&transport->aborted)) return PP_E_INTERRUPTED;
    if (pp_now_s() < until_s) return PP_OK;
    return pp_fail(error, PP_E_FAILED, NULL, "%s did not end within %g s (%s)", what,
                   transport->timeout_s, transport->carrier->name);
}

static double deadline_s(const desk *d) {
    return pp_now_s() + d->transport->timeout_s;
}

static pp_status wait_over(desk *d, end *e, const char *what, pp_error *error) {
    double until_s = deadline_s(d);
    for (bool over = false;;) {
        PP_TRY(d->transport->carrier->check(e->joined, &over, error));
        if (over) return PP_OK;
        PP_TRY(gone_or_late(d, until_s, what, error));
        sched_yield();
    }
}

static pp_status send_id(desk *d, end *e, pp_error *error) {
    pp_transport *transport = d->transport;
    pair *p = e->pair;
    pp_carrier_id id;
    PP_TRY(transport->carrier->make_id(&id, error));
    pthread_mutex_lock(&transport->mutex);
    p->id = id;
    p->id_made = true;
    pthread_cond_broadcast(&transport->stirred);
    pthread_mutex_unlock(&transport->mutex);
    if (pp_device_is_here(transport, p->to_process)) return PP_OK;
    pp_letter letter = {.kind = PP_LETTER_PAIR, .number = p->lane, .size_bytes = sizeof id};
    void *payload = pp_payload_new(transport->processes, sizeof id);
    if (!payload) return pp_fail_memory(error);
    memcpy(payload, &id, sizeof id);
    return pp_post(transport->processes, p->to_process, &letter, payload, error);
}

static bool look_for_id(pp_transport *transport, pair *p) {
    if (!pp_device_is_here(transport, p->from_process)) {
        pp_wanted wanted = {PP_LETTER_PAIR, p->lane, -1, -1, true};
        pp_parcel *came = pp_inbox_wait(transport->processes, &wanted, NAP_MOST_S);
        if (!came) return false;
        memcpy(&p->id, came->payload, sizeof p->id);
        pp_parcel_free(transport->processes, came);
        return true;
    }
    pthread_mutex_lock(&transport->mutex);
    if (!p->id_made) pp_condition_wait(&transport->stirred, &transport->mutex, NAP_MOST_S);
    bool made = p->id_made;
    pthread_mutex_unlock(&transport->mutex);
    return made;
}

static pp_status get_id(desk *d, end *e, pp_error *error) {
    double until_s = deadline_s(d);
    while (!look_for_id(d->transport, e->pair))
        PP_TRY(gone_or_late(d, until_s, "waiting for the other side of a pair", error));
    return PP_OK;
}

static pp_status carry(desk *d, end *e, void *bytes, size_t size_bytes, pp_error *error) {
    const pp_carrier_ops *carrier = d->transport->carrier;
    void *stream = d->backend->side_stream(e->side);
    return e->sends ? carrier->send(e->joined, bytes, size_bytes, stream, error)
                    : carrier->receive(e->joined, bytes, size_bytes, stream, error);
}

static pp_status wait_passed(desk *d, end *e, void *mark, pp_error *error) {
    double until_s = deadline_s(d);
    for (bool passed = false;;) {
        PP_TRY(d->backend->side_passed(e->side, mark, &passed, error));
        if (passed) return PP_OK;
        bool over;
        PP_TRY(d->transport->carrier->check(e->joined, &over, error));
        PP_TRY(gone_or_late(d, until_s, "the first message of a pair", error));
        sched_yield();
    }
}

/* One small message, so that connections are made now and not in the first step. */
static pp_status try_out(desk *d, end *e, pp_error *error) {
    const pp_carrier_ops *carrier = d->transport->carrier;
    block *small = pp_block_take(d, TRIAL_BYTES);
    if (!small) return pp_fail_memory(error);
    void *mark = NULL;
    pp_status status = carrier->group_start(error);
    if (status == PP_OK) status = carry(d, e, small->bytes, TRIAL_BYTES, error);
    if (status == PP_OK) status = carrier->group_end(error);
    if (status == PP_OK) status = wait_over(d, e, "the first message of a pair", error);
    if (status == PP_OK) status = d->backend->side_mark(e->side, &mark, error);
    if (status == PP_OK) status = wait_passed(d, e, mark, error);
    if (status != PP_OK && mark) d->backend->side_forget(e->side, mark);
    pp_block_put(d, &d->free_blocks, small);
    return status;
}

static pp_status join_all(desk *d, pp_error *error) {
    PP_TRY(d->backend->side_enter(d->ends[0].side, error));
    for (int i = 0; i < d->end_count; i++) {
        end *e = &d->ends[i];
        PP_TRY(e->sends ? send_id(d, e, error) : get_id(d, e, error));
        PP_TRY(d->transport->carrier->join(&e->pair->id, e->sends ? 0 : 1, &e->joined, error));
        PP_TRY(wait_over(d, e, "joining a pair of ranks", error));
        PP_TRY(try_out(d, e, error));
    }
    return PP_OK;
}

/* ---- the desk's round ---------------------------------------------------------------------- */

/* What other processes announce, in order. */
static pp_status hear_announcements(desk *d, end *e, pp_error *error) {
    pp_transport *transport = d->transport;
    if (e->sends || pp_device_is_here(transport, e->pair->from_process)) return PP_OK;
    for (;;) {
        pp_wanted wanted = {PP_LETTER_COMING, e->pair->lane, e->sequence, -1, true};
        pp_parcel *came = pp_inbox_wait(transport->processes, &wanted, 0);
        if (!came) return PP_OK;
        const int32_t *head = came->payload;
        coming what = {.channel = head[0],
                       .part_count = head[1],
                       .microbatch = came->letter.microbatch,
                       .parts = (const crate_part *)(head + 2)};
        crate *made = pp_crate_new(&what);
        pp_parcel_free(transport->processes, came);
        if (!made) return pp_fail_memory(error);
        e->sequence = (e->sequence + 1) & INT32_MAX;
        pp_crate_append(&e->begun, made);
    }
}

/* Moves what is waiting to what is begun; returns whether there is any. */
static bool gather_due(desk *d, end *e) {
    pthread_mutex_lock(&d->transport->mutex);
    if (e->waiting) {
        crate **last = &e->begun;
        while (*last) last = &(*last)->next;
        *last = e->waiting;
        e->waiting = NULL;
    }
    pthread_mutex_unlock(&d->transport->mutex);
    return e->begun != NULL;
}

static pp_status begin_crate(desk *d, end *e, crate *c, pp_error *error) {
    if (c->size_bytes == 0) return PP_OK;
    if (!e->sends) c->block = pp_block_take(d, c->size_bytes);
    if (!c->block) return pp_fail_memory(error);
    return carry(d, e, c->block->bytes, c->size_bytes, error);
}

static pp_status mark_begun(desk *d, end *e, pp_error *error) {
    if (!e->begun) return PP_OK;
    PP_TRY(wait_over(d, e, "starting a transfer", error));
    while (e->begun) {
        crate *c = e->begun;
        if (c->size_bytes > 0) PP_TRY(d->backend->side_mark(e->side, &c->mark, error));
        e->begun = c->next;
        pp_crate_append(&e->flying, c);
    }
    return PP_OK;
}

static pp_status begin_due(desk *d, bool *any, pp_error *error) {
    const pp_carrier_ops *carrier = d->transport->carrier;
    bool due = false;
    for (int i = 0; i < d->end_count; i++) {
        PP_TRY(hear_announcements(d, &d->ends[i], error));
        due |= gather_due(d, &d->ends[i]);
    }
    if (!due) return PP_OK;
    *any = true;
    PP_TRY(carrier->group_start(error));
    for (int i = 0; i < d->end_count; i++)
        for (crate *c = d->ends[i].begun; c; c = c->next)
            PP_TRY(begin_crate(d, &d->ends[i], c, error));
    PP_TRY(carrier->group_end(error));
    for (int i = 0; i < d->end_count; i++) PP_TRY(mark_begun(d, &d->ends[i], error));
    return PP_OK;
}

static void end_crate(desk *d, end *e, crate *c) {
    pp_transport *transport = d->transport;
    if (e->sends) {
        pp_block_put(d, &d->spent_blocks, c->block);
        pp_free(c);
        return;
    }
    pthread_mutex_lock(&transport->mutex);
    pp_crate_append(&d->arrived, c);
    pthread_cond_broadcast(&transport->stirred);
    pthread_mutex_unlock(&transport->mutex);
}

static pp_status end_passed(desk *d, end *e, bool *any, pp_error *error) {
    while (e->flying) {
        crate *c = e->flying;
        bool passed = c->size_bytes == 0;
        if (!passed) PP_TRY(d->backend->side_passed(e->side, c->mark, &passed, error));
        if (!passed) return PP_OK;
        *any = true;
        c->mark = NULL;
        e->flying = c->next;
        end_crate(d, e, c);
    }
    return PP_OK;
}

static pp_status go_round(desk *d, bool *any, pp_error *error) {
    bool over;
    *any = false;
    PP_TRY(begin_due(d, any, error));
    for (int i = 0; i < d->end_count; i++) {
        PP_TRY(end_passed(d, &d->ends[i], any, error));
        PP_TRY(d->transport->carrier->check(d->ends[i].joined, &over, error));
    }
    return PP_OK;
}

static void nap(pp_transport *transport, double idle_s) {
    double seconds = idle_s * NAP_SHARE;
    if (seconds < 5e-6) {
        sched_yield();
        return;
    }
    pthread_mutex_lock(&transport->mutex);
    pp_condition_wait(&transport->stirred, &transport->mutex,
                      seconds < NAP_MOST_S ? seconds : NAP_MOST_S);
    pthread_mutex_unlock(&transport->mutex);
}

static bool has_work(const desk *d) {
    for (int i = 0; i < d->end_count; i++)
        if (d->ends[i].begun || d->ends[i].flying) return true;
    return false;
}

static pp_status go_rounds(desk *d, pp_error *error) {
    pp_transport *transport = d->transport;
    double busy_s = pp_now_s();
    for (bool any; !atomic_load(&transport->closing) || has_work(d);) {
        if (atomic_load(&transport->aborted)) return PP_E_INTERRUPTED;
        PP_TRY(go_round(d, &any, error));
        if (any)
            busy_s = pp_now_s();
        else
            nap(transport, pp_now_s() - busy_s);
    }
    return PP_OK;
}

/* ---- the desk's life ----------------------------------------------------------------------- */

static pp_status part_in_order(desk *d, pp_error *error) {
    for (int i = 0; i < d->end_count; i++)
        PP_TRY(d->transport->carrier->finish(d->ends[i].joined, error));
    for (int i = 0; i < d->end_count; i++) {
        PP_TRY(wait_over(d, &d->ends[i], "leaving a pair", error));
        d->transport->carrier->leave(d->ends[i].joined);
        d->ends[i].joined = NULL;
    }
    return PP_OK;
}

static void set_state(desk *d, pp_status status, const pp_error *error) {
    pthread_mutex_lock(&d->transport->mutex);
    d->ready = true;
    d->status = status;
    d->error = *error;
    pthread_cond_broadcast(&d->transport->stirred);
    pthread_mutex_unlock(&d->transport->mutex);
}

void *pp_desk_main(void *argument) {
    desk *d = argument;
    pp_transport *transport = d->transport;
    pp_error error = {.code = PP_OK};
    pp_status status = join_all(d, &error);
    bool joined = status == PP_OK;
    if (joined) set_state(d, status, &error);
    if (joined) status = go_rounds(d, &error);
    if (status == PP_OK) status = part_in_order(d, &error);
    if (status != PP_OK && status != PP_E_INTERRUPTED && transport->fail)
        transport->fail(transport->context, &error); /* before its abort is another's error */
    if (!joined) set_state(d, status, &error);
    for (int i = 0; i < d->end_count; i++)
        if (d->ends[i].joined) transport->carrier->abort(d->ends[i].joined);
    return NULL;
}
