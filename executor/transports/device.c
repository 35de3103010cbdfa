/* The device transport: ranks own devices, and a message goes from one device's memory to the
 * other's by a carrier (carrier.h), whether their threads share a process or not.
 *
 * Each pair of ranks with something to send has a pair of the carrier's for each direction. One
 * thread per rank, its desk, makes all calls of the carrier for its device; the rank's own thread
 * packs and unpacks. The sender announces each message, on the host, in the order in which it
 * sends; the receiver begins to receive in that order, and always: into a block of its own, never
 * into a slot that might not be free. So what one side begins the other soon begins too, no
 * transfer waits for arithmetic, and positions match though carriers know no tags. What is due at
 * one desk begins in one group. A block lives until its transfer is over; given back it reads as
 * NaN where debugging.
 *
 * Pairs are joined and tried out before the first step, by every desk in the order of their
 * numbers: the lowest pair that is not yet joined has both its desks working on it, so all get
 * through. The desk looks after errors all the time: one fails the run, and a run that failed
 * aborts every pair, since a peer's end may wait for ever for a dead one. */
#include "executor/processes_internal.h"
#include "executor/transports/device_internal.h"

#include <string.h>

static const pp_transport_ops *const inner = &pp_transport_local;

/* ---- blocks ---------------------------------------------------------------------------------- */

#ifdef NDEBUG
static const bool poison = false;
#else
static const bool poison = true;
#endif

static block *take_list(desk *d, block **list) {
    pthread_mutex_lock(&d->transport->mutex);
    block *taken = *list;
    *list = NULL;
    pthread_mutex_unlock(&d->transport->mutex);
    return taken;
}

/* In the rank's thread, whose queue the backend fills by; the desk's next transfer must not
 * overtake the fill. */
static pp_status give_back(desk *d, block *back, pp_error *error) {
    pp_status status = PP_OK;
    if (back && poison) {
        d->backend->fill(d->backend_state, back->bytes, 0xff, back->size_bytes);
        status = d->backend->finish(d->backend_state, error);
    }
    pp_block_put(d, &d->free_blocks, back);
    return status;
}

static pp_status sweep(desk *d, pp_error *error) {
    pp_status status = PP_OK;
    for (block *sent = take_list(d, &d->spent_blocks); sent;) {
        block *next = sent->next;
        pp_status given = give_back(d, sent, status == PP_OK ? error : NULL);
        if (status == PP_OK) status = given;
        sent = next;
    }
    return status;
}

/* ---- finding things ------------------------------------------------------------------------ */

static desk *desk_of(pp_transport *transport, int worker) {
    for (int i = 0; i < transport->desk_count; i++)
        if (transport->desks[i].worker == worker) return &transport->desks[i];
    return NULL;
}

static end *end_of(pp_transport *transport, int worker, int lane) {
    desk *d = desk_of(transport, worker);
    for (int i = 0; d && i < d->end_count; i++)
        if (d->ends[i].pair->lane == lane) return &d->ends[i];
    return NULL;
}

static bool crosses(const pp_channel_request *channel) {
    return channel->from_worker != channel->to_worker;
}

static void stir(pp_transport *transport) {
    pthread_mutex_lock(&transport->mutex);
    pthread_cond_broadcast(&transport->stirred);
    pthread_mutex_unlock(&transport->mutex);
}

/* ---- entering, opening and closing --------------------------------------------------------- */

static pp_status device_enter(pp_transport *transport, int worker, const pp_backend *backend,
                              void *backend_state, pp_error *error) {
    desk *d = desk_of(transport, worker);
    if (!d) return PP_OK;
    d->backend = backend;
    d->backend_state = backend_state;
    for (int i = 0; i < d->end_count; i++) {
        d->ends[i].side = backend->side_open(backend_state);
        if (!d->ends[i].side)
            return pp_fail(error, PP_E_FAILED, NULL, "the device has no queue left for transfers");
    }
    if (pthread_create(&d->thread, NULL, pp_desk_main, d) != 0)
        return pp_fail(error, PP_E_FAILED, NULL, "cannot start a thread for transfers");
    d->started = true;
    pthread_mutex_lock(&transport->mutex);
    while (!d->ready) pthread_cond_wait(&transport->stirred, &transport->mutex);
    pthread_mutex_unlock(&transport->mutex);
    if (d->status != PP_OK && error) *error = d->error;
    return d->status;
}

static pair *find_pair(pp_transport *transport, int lane) {
    for (int i = 0; i < transport->pair_count; i++)
        if (transport->pairs[i].lane == lane) return &transport->pairs[i];
    return NULL;
}

/* Sorted by their lanes: the order in which everybody joins them. */
static void add_pair(pp_transport *transport, const pp_channel_request *channel) {
    int at = transport->pair_count;
    if (!crosses(channel) || find_pair(transport, channel->lane)) return;
    for (; at > 0 && transport->pairs[at - 1].lane > channel->lane; at--)
        transport->pairs[at] = transport->pairs[at - 1];
    transport->pairs[at] = (pair){.lane = channel->lane,
                                  .from_worker = channel->from_worker,
                                  .to_worker = channel->to_worker,
                                  .from_process = channel->from_process,
                                  .to_process = channel->to_process};
    transport->pair_count++;
}

static void add_end(pp_transport *transport, pair *p, bool sends) {
    if (!pp_device_is_here(transport, sends ? p->from_process : p->to_process)) return;
    int worker = sends ? p->from_worker : p->to_worker;
    desk *d = desk_of(transport, worker);
    if (!d) {
        d = &transport->desks[transport->desk_count++];
        *d = (desk){.transport = transport, .worker = worker};
        d->ends = PP_NEW(&transport->arena, end, transport->pair_count);
        if (!d->ends) return;
    }
    d->ends[d->end_count++] = (end){.pair = p, .sends = sends};
}

static void device_close(pp_transport *transport);

static pp_status device_open(const pp_transport_setting *setting, pp_transport **transport,
                             pp_error *error) {
    int count = setting->channel_count;
    *transport = NULL;
    pp_transport *opened = pp_allocate_zeroed(1, sizeof *opened), *local = NULL;
    if (!opened) return pp_fail_memory(error);
    pp_arena_init(&opened->arena);
    pthread_mutex_init(&opened->mutex, NULL);
    pp_condition_init(&opened->stirred);
    opened->processes = setting->processes;
    opened->carrier = setting->carrier;
    opened->timeout_s = setting->timeout_s;
    opened->fail = setting->fail;
    opened->context = setting->context;
    opened->channels = PP_NEW(&opened->arena, pp_channel_request, count);
    opened->pairs = PP_NEW(&opened->arena, pair, count);
    opened->desks = PP_NEW(&opened->arena, desk, 2 * count);
    if (!opened->arena.failed) {
        memcpy(opened->channels, setting->channels, (size_t)count * sizeof *opened->channels);
        for (int i = 0; i < count; i++) add_pair(opened, &opened->channels[i]);
        for (int i = 0; i < opened->pair_count && !opened->arena.failed; i++) {
            add_end(opened, &opened->pairs[i], true);
            if (!opened->arena.failed) add_end(opened, &opened->pairs[i], false);
        }
    }
    pp_status status = opened->arena.failed ? pp_fail_memory(error) : PP_OK;
    if (status == PP_OK) status = inner->open(setting, &local, error);
    opened->local = local;
    if (status == PP_OK)
        *transport = opened;
    else
        device_close(opened);
    return status;
}

static void free_crates(crate *list, desk *d) {
    while (list) {
        crate *next = list->next;
        if (list->block) pp_block_put(d, &d->free_blocks, list->block);
        pp_free(list);
        list = next;
    }
}

static void free_blocks(desk *d, block *list) {
    while (list) {
        block *next = list->next;
        d->backend->release(d->backend_state, list->bytes, list->size_bytes);
        pp_free(list);
        list = next;
    }
}

static void close_end(desk *d, end *e) {
    for (crate *c = e->flying; c; c = c->next)
        if (c->mark) d->backend->side_forget(e->side, c->mark);
    free_crates(e->waiting, d);
    free_crates(e->begun, d);
    free_crates(e->flying, d);
    if (e->side) d->backend->side_close(e->side);
}

static void device_close(pp_transport *transport) {
    if (!transport) return;
    atomic_store(&transport->closing, true);
    stir(transport);
    for (int i = 0; i < transport->desk_count; i++)
        if (transport->desks[i].started) pthread_join(transport->desks[i].thread, NULL);
    for (int i = 0; i < transport->desk_count; i++) {
        desk *d = &transport->desks[i];
        for (int k = 0; k < d->end_count; k++) close_end(d, &d->ends[k]);
        free_crates(d->arrived, d);
        free_blocks(d, d->spent_blocks);
        free_blocks(d, d->free_blocks);
    }
    if (transport->local) inner->close(transport->local);
    pthread_cond_destroy(&transport->stirred);
    pthread_mutex_destroy(&transport->mutex);
    pp_arena_deinit(&transport->arena);
    pp_free(transport);
}

static void device_attach(pp_transport *transport, int channel, void *const *slots,
                          const pp_backend *backend, void *backend_state) {
    inner->attach(transport->local, channel, slots, backend, backend_state);
}

/* ---- sending, in the rank's thread --------------------------------------------------------- */

static pp_status pack(desk *d, const pp_message *message, crate *c, pp_error *error) {
    if (c->size_bytes == 0) return PP_OK;
    c->block = pp_block_take(d, c->size_bytes);
    if (!c->block) return pp_fail_memory(error);
    unsigned char *at = c->block->bytes;
    for (int i = 0; i < message->part_count; i++) {
        d->backend->copy(d->backend_state, at, message->parts[i].bytes,
                         message->parts[i].size_bytes);
        at += message->parts[i].size_bytes;
    }
    return d->backend->finish(d->backend_state, error);
}

/* To a desk of this process: the crate itself, without the block. */
static pp_status announce_here(pp_transport *transport, const coming *what, end *receiver,
                               pp_error *error) {
    crate *c = pp_crate_new(what);
    if (!c) return pp_fail_memory(error);
    pthread_mutex_lock(&transport->mutex);
    pp_crate_append(&receiver->waiting, c);
    pthread_cond_broadcast(&transport->stirred);
    pthread_mutex_unlock(&transport->mutex);
    return PP_OK;
}

static pp_status announce_elsewhere(pp_transport *transport, const coming *what, end *sender,
                                    pp_error *error) {
    size_t parts_bytes = (size_t)what->part_count * sizeof *what->parts;
    pp_letter letter = {.kind = PP_LETTER_COMING,
                        .number = sender->pair->lane,
                        .part = sender->sequence,
                        .microbatch = what->microbatch,
                        .size_bytes = 2 * sizeof(int32_t) + parts_bytes};
    int32_t *payload = pp_payload_new(transport->processes, letter.size_bytes);
    if (!payload) return pp_fail_memory(error);
    payload[0] = what->channel;
    payload[1] = what->part_count;
    memcpy(payload + 2, what->parts, parts_bytes);
    sender->sequence = (sender->sequence + 1) & INT32_MAX;
    return pp_post(transport->processes, sender->pair->to_process, &letter, payload, error);
}

static pp_status dispatch(pp_transport *transport, desk *d, end *sender, const coming *what,
                          const pp_message *message, pp_error *error) {
    crate *c = pp_crate_new(what);
    if (!c) return pp_fail_memory(error);
    pp_status status = pack(d, message, c, error);
    if (status != PP_OK) {
        free_crates(c, d);
        return status;
    }
    pthread_mutex_lock(&transport->mutex);
    pp_crate_append(&sender->waiting, c);
    pthread_cond_broadcast(&transport->stirred);
    pthread_mutex_unlock(&transport->mutex);
    if (!pp_device_is_here(transport, sender->pair->to_process))
        return announce_elsewhere(transport, what, sender, error);
    return announce_here(transport, what,
                         end_of(transport, sender->pair->to_worker, sender->pair->lane), error);
}

static pp_status device_send_message(pp_transport *transport, int channel,
                                     const pp_message *message, pp_error *error) {
    const pp_channel_request *used = &transport->channels[channel];
    if (!crosses(used)) return inner->send_message(transport->local, channel, message, error);
    desk *d = desk_of(transport, used->from_worker);
    coming what = {
        .channel = channel, .part_count = message->part_count, .microbatch = message->microbatch};
    crate_part *parts = pp_allocate((size_t)message->part_count * sizeof *parts);
    if (!parts) return pp_fail_memory(error);
    for (int i = 0; i < message->part_count; i++)
        parts[i] = (crate_part){message->parts[i].slot_offset, message->parts[i].size_bytes};
    what.parts = parts;
    pp_status status = sweep(d, error);
    if (status == PP_OK)
        status = dispatch(transport, d, end_of(transport, used->from_worker, used->lane), &what,
                          message, error);
    pp_free(parts);
    return status;
}

static pp_status device_send(pp_transport *transport, int channel, uint32_t microbatch,
                             const void *bytes, size_t size_bytes, pp_error *error) {
    pp_message_part part = {.bytes = bytes, .size_bytes = size_bytes};
    pp_message message = {.microbatch = microbatch, .parts = &part, .part_count = bytes ? 1 : 0};
    return device_send_message(transport, channel, &message, error);
}

/* ---- receiving, in the rank's thread ------------------------------------------------------- */

static crate **find_arrived(desk *d, int channel, uint32_t microbatch) {
    crate **at = &d->arrived;
    while (*at && ((*at)->what.channel != channel || (*at)->what.microbatch != microbatch))
        at = &(*at)->next;
    return at;
}

static bool device_poll(pp_transport *transport, int channel, uint32_t microbatch,
                        double timeout_s) {
    const pp_channel_request *used = &transport->channels[channel];
    if (!crosses(used)) return inner->poll(transport->local, channel, microbatch, timeout_s);
    desk *d = desk_of(transport, used->to_worker);
    double until_s = pp_now_s() + timeout_s;
    pthread_mutex_lock(&transport->mutex);
    bool there = *find_arrived(d, channel, microbatch) != NULL;
    for (double left_s = timeout_s; !there && left_s > 0 && !atomic_load(&transport->aborted);
         left_s = until_s - pp_now_s()) {
        pp_condition_wait(&transport->stirred, &transport->mutex, left_s);
        there = *find_arrived(d, channel, microbatch) != NULL;
    }
    pthread_mutex_unlock(&transport->mutex);
    return there;
}

static crate *take_arrived(desk *d, int channel, uint32_t microbatch) {
    pthread_mutex_lock(&d->transport->mutex);
    crate **at = find_arrived(d, channel, microbatch), *taken = *at;
    if (taken) *at = taken->next;
    pthread_mutex_unlock(&d->transport->mutex);
    return taken;
}

/* Into a slot of the local transport. */
static pp_status land(desk *d, crate *c, pp_error *error) {
    size_t count = (size_t)c->what.part_count;
    pp_message_part *parts = pp_allocate(count * sizeof *parts);
    if (!parts) return pp_fail_memory(error);
    const unsigned char *at = c->block ? c->block->bytes : NULL;
    for (size_t i = 0; i < count; i++) {
        parts[i] = (pp_message_part){at, c->parts[i].size_bytes, c->parts[i].slot_offset};
        if (at) at += c->parts[i].size_bytes;
    }
    pp_message message = {.microbatch = c->what.microbatch,
                          .parts = parts,
                          .part_count = (int)count,
                          .sent_s = pp_now_s(),
                          .backend = d->backend,
                          .backend_state = d->backend_state};
    pp_status status = inner->send_message(d->transport->local, c->what.channel, &message, error);
    pp_free(parts);
    return status;
}

static pp_status device_receive(pp_transport *transport, int channel, uint32_t microbatch,
                                double timeout_s, int *slot, pp_error *error) {
    const pp_channel_request *used = &transport->channels[channel];
    if (crosses(used)) {
        desk *d = desk_of(transport, used->to_worker);
        (void)device_poll(transport, channel, microbatch, timeout_s);
        crate *c = take_arrived(d, channel, microbatch);
        pp_status status = c ? land(d, c, error) : PP_OK;
        if (c) {
            pp_status given = give_back(d, c->block, status == PP_OK ? error : NULL);
            if (status == PP_OK) status = given;
            pp_free(c);
        }
        if (status != PP_OK) return status;
        timeout_s = 0;
    }
    return inner->receive(transport->local, channel, microbatch, timeout_s, slot, error);
}

static double device_ready_s(pp_transport *transport, int channel, int slot) {
    return inner->ready_s(transport->local, channel, slot);
}

static void device_release(pp_transport *transport, int channel, int slot) {
    inner->release(transport->local, channel, slot);
}

static void device_abort(pp_transport *transport) {
    atomic_store(&transport->aborted, true);
    inner->abort(transport->local);
    stir(transport);
}

const pp_transport_ops pp_transport_device = {
    .name = "device",
    .open = device_open,
    .close = device_close,
    .attach = device_attach,
    .enter = device_enter,
    .send = device_send,
    .send_message = device_send_message,
    .poll = device_poll,
    .receive = device_receive,
    .ready_s = device_ready_s,
    .release = device_release,
    .abort = device_abort,
};
