/* The remote transport: ranks are threads of several processes, which may be on several machines.
 *
 * A channel with both ends here is the local transport's. On its way to another process a message
 * is packed into a letter of its own, so that the sender may use its memory again at once; the
 * postmen carry it while ranks compute. It waits in the receiver's inbox until the receiving rank
 * asks for it and moves it, in its own thread (and so on its own device's queue), into a slot of
 * the local transport, where all else goes its usual way. The schedule bounds how many wait: no
 * more than the channel has slots.
 *
 * A letter's payload: how many parts, where each goes and how long it is, then their bytes. */
#include "executor/backend.h"
#include "executor/processes_internal.h"
#include "executor/transport.h"

#include <string.h>

typedef struct part_head {
    uint64_t slot_offset, size_bytes;
} part_head;

/* What the sender of a channel holds back. */
typedef struct held_letter {
    pp_letter letter;
    void *payload;
} held_letter;

/* The receiving end of a channel. */
typedef struct receiver {
    const pp_backend *backend;
    void *backend_state;
} receiver;

struct pp_transport {
    pp_processes *processes;
    void *local; /* the local transport that has all channels too */
    pp_channel_request *channels;
    receiver *receivers;
    held_letter *held; /* [channels] */
    int channel_count;
    atomic_bool aborted;
    pp_arena arena;
};

static const pp_transport_ops *const inner = &pp_transport_local;

static void remote_close(pp_transport *transport) {
    if (!transport) return;
    for (int i = 0; i < transport->channel_count; i++)
        pp_payload_free(transport->processes, transport->held[i].payload);
    inner->close(transport->local);
    pp_arena_deinit(&transport->arena);
    pp_free(transport);
}

static pp_status remote_open(const pp_transport_setting *setting, pp_transport **transport,
                             pp_error *error) {
    *transport = NULL;
    pp_transport *opened = pp_allocate_zeroed(1, sizeof *opened), *local = NULL;
    if (!opened) return pp_fail_memory(error);
    pp_arena_init(&opened->arena);
    opened->processes = setting->processes;
    opened->channel_count = setting->channel_count;
    opened->channels = PP_NEW(&opened->arena, pp_channel_request, setting->channel_count);
    opened->receivers = PP_NEW(&opened->arena, receiver, setting->channel_count);
    opened->held = PP_NEW(&opened->arena, held_letter, setting->channel_count);
    pp_status status = opened->arena.failed ? pp_fail_memory(error) : PP_OK;
    if (status == PP_OK) status = inner->open(setting, &local, error);
    if (status != PP_OK) {
        pp_arena_deinit(&opened->arena);
        pp_free(opened);
        return status;
    }
    memcpy(opened->channels, setting->channels,
           (size_t)setting->channel_count * sizeof *opened->channels);
    opened->local = local;
    *transport = opened;
    return PP_OK;
}

static void remote_attach(pp_transport *transport, int channel, void *const *slots,
                          const pp_backend *backend, void *backend_state) {
    transport->receivers[channel] = (receiver){backend, backend_state};
    inner->attach(transport->local, channel, slots, backend, backend_state);
}

/* ---- sending ------------------------------------------------------------------------------- */

static size_t packed_bytes(const pp_message *message) {
    size_t bytes = 0;
    for (int i = 0; i < message->part_count; i++)
        bytes += sizeof(part_head) + message->parts[i].size_bytes;
    return bytes;
}

static void pack(const pp_message *message, unsigned char *payload) {
    const pp_backend *backend = message->backend;
    part_head *heads = (part_head *)payload;
    unsigned char *bytes = payload + (size_t)message->part_count * sizeof *heads;
    for (int i = 0; i < message->part_count; i++) {
        const pp_message_part *part = &message->parts[i];
        heads[i] = (part_head){part->slot_offset, part->size_bytes};
        if (backend && backend->device_memory)
            backend->download(message->backend_state, bytes, part->bytes, part->size_bytes);
        else
            memcpy(bytes, part->bytes, part->size_bytes);
        bytes += part->size_bytes;
    }
}

static pp_status remote_send_message(pp_transport *transport, int channel,
                                     const pp_message *message, pp_error *error) {
    const pp_channel_request *used = &transport->channels[channel];
    pp_processes *processes = transport->processes;
    if (used->to_process == processes->process)
        return inner->send_message(transport->local, channel, message, error);
    double ready_s = pp_local_link_ready_s(transport->local, channel, message);
    pp_letter letter = {.kind = PP_LETTER_MESSAGE,
                        .number = channel,
                        .part = message->part_count,
                        .microbatch = message->microbatch,
                        .size_bytes = packed_bytes(message),
                        .sent_s = pp_to_run_clock(processes, ready_s)};
    unsigned char *payload = NULL;
    if (letter.size_bytes > 0) {
        payload = pp_payload_new(processes, letter.size_bytes);
        if (!payload) return pp_fail_memory(error);
        pack(message, payload);
    }
    if (!message->held) return pp_post(processes, used->to_process, &letter, payload, error);
    transport->held[channel] = (held_letter){letter, payload};
    return PP_OK;
}

static pp_status remote_show(pp_transport *transport, int channel, pp_error *error) {
    int to = transport->channels[channel].to_process;
    if (to == transport->processes->process) return inner->show(transport->local, channel, error);
    held_letter held = transport->held[channel];
    transport->held[channel].payload = NULL;
    return pp_post(transport->processes, to, &held.letter, held.payload, error);
}

static pp_status remote_send(pp_transport *transport, int channel, uint32_t microbatch,
                             const void *bytes, size_t size_bytes, pp_error *error) {
    pp_message_part part;
    pp_message message = pp_message_whole(&part, microbatch, bytes, size_bytes);
    return remote_send_message(transport, channel, &message, error);
}

/* ---- receiving ----------------------------------------------------------------------------- */

static bool comes_from_elsewhere(const pp_transport *transport, int channel) {
    return transport->channels[channel].from_process != transport->processes->process;
}

static bool remote_poll(pp_transport *transport, int channel, uint32_t microbatch,
                        double timeout_s) {
    if (!comes_from_elsewhere(transport, channel))
        return inner->poll(transport->local, channel, microbatch, timeout_s);
    pp_wanted wanted = {PP_LETTER_MESSAGE, channel, -1, microbatch, false};
    double until_s = pp_now_s() + timeout_s;
    for (double left_s = timeout_s;;) {
        if (pp_inbox_wait(transport->processes, &wanted, left_s)) return true;
        left_s = until_s - pp_now_s();
        if (left_s <= 0 || atomic_load(&transport->aborted)) return false;
    }
}

/* From the letter into a slot of the local transport. */
static pp_status land(pp_transport *transport, int channel, const pp_parcel *parcel,
                      pp_error *error) {
    const pp_letter *letter = &parcel->letter;
    const part_head *heads = parcel->payload;
    size_t count = (size_t)letter->part;
    pp_message_part *parts = pp_allocate(count * sizeof *parts);
    if (!parts) return pp_fail_memory(error);
    const unsigned char *bytes = (const unsigned char *)parcel->payload + count * sizeof *heads;
    for (size_t i = 0; i < count; bytes += heads[i].size_bytes, i++)
        parts[i] = (pp_message_part){bytes, heads[i].size_bytes, heads[i].slot_offset};
    pp_message message = {.microbatch = letter->microbatch,
                          .parts = parts,
                          .part_count = letter->part,
                          .sent_s = pp_from_run_clock(transport->processes, letter->sent_s),
                          .backend = transport->receivers[channel].backend,
                          .backend_state = transport->receivers[channel].backend_state,
                          .landed = true};
    pp_status status = inner->send_message(transport->local, channel, &message, error);
    pp_free(parts);
    return status;
}

static pp_status remote_receive(pp_transport *transport, int channel, uint32_t microbatch,
                                double timeout_s, int *slot, pp_error *error) {
    if (comes_from_elsewhere(transport, channel)) {
        pp_wanted wanted = {PP_LETTER_MESSAGE, channel, -1, microbatch, true};
        bool there = remote_poll(transport, channel, microbatch, timeout_s);
        pp_parcel *parcel = there ? pp_inbox_wait(transport->processes, &wanted, 0) : NULL;
        if (parcel) {
            pp_status status = land(transport, channel, parcel, error);
            pp_parcel_free(transport->processes, parcel);
            if (status != PP_OK) return status;
        }
        timeout_s = 0;
    }
    return inner->receive(transport->local, channel, microbatch, timeout_s, slot, error);
}

static double remote_ready_s(pp_transport *transport, int channel, int slot) {
    return inner->ready_s(transport->local, channel, slot);
}

static void remote_release(pp_transport *transport, int channel, int slot) {
    inner->release(transport->local, channel, slot);
}

static void remote_abort(pp_transport *transport) {
    atomic_store(&transport->aborted, true);
    inner->abort(transport->local);
    pp_inbox_wake(transport->processes);
}

const pp_transport_ops pp_transport_remote = {
    .name = "remote",
    .open = remote_open,
    .close = remote_close,
    .attach = remote_attach,
    .send = remote_send,
    .send_message = remote_send_message,
    .show = remote_show,
    .poll = remote_poll,
    .receive = remote_receive,
    .ready_s = remote_ready_s,
    .release = remote_release,
    .abort = remote_abort,
};
