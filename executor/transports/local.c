/* The local transport: ranks are threads of one process, and a message is copied.
 *
 * Each rank has memory of its own; the sender copies its tensors into a slot of the receiver, which
 * is at the same time the receiver's saved input, so nothing is copied twice. A channel is one
 * border in one direction and has one sender and one receiver. Its slots go around:
 *
 *     free --begin or send_message--> filling --copied--> full --receive--> taken --release--> free
 *
 * What is held back is full but for `show`.
 *
 * The emulated link (replay) moves nothing; it works out when the message would have arrived. A
 * lane is a directed pair of ranks: message i starts when it is sent and message i-1 has left the
 * sender, occupies the lane for bytes/bandwidth, and arrives a latency later. */
#include "executor/backend.h"
#include "executor/gate_internal.h"
#include "executor/transport.h"

#include <assert.h>
#include <math.h>
#include <string.h>

typedef enum slot_state { SLOT_FREE, SLOT_FILLING, SLOT_HELD, SLOT_FULL, SLOT_TAKEN } slot_state;

typedef struct slot {
    slot_state state;
    uint32_t microbatch;
    double ready_s;
    unsigned char *bytes; /* the receiver's; NULL under replay */
} slot;

typedef struct channel {
    pp_channel_request request;
    slot *slots; /* [request.slot_count] */
    pthread_mutex_t mutex;
    pthread_cond_t arrived;
} channel;

typedef struct lane {
    int number;
    double free_s; /* when the last message has left */
} lane;

struct pp_transport {
    channel *channels;
    int channel_count;
    lane *lanes;
    int lane_count;
    pthread_mutex_t lane_mutex;
    atomic_bool aborted;
    pp_arena arena;
};

static lane *find_lane(pp_transport *transport, int number) {
    for (int i = 0; i < transport->lane_count; i++)
        if (transport->lanes[i].number == number) return &transport->lanes[i];
    lane *added = &transport->lanes[transport->lane_count++];
    *added = (lane){.number = number};
    return added;
}

static void channel_init(pp_transport *transport, channel *created,
                         const pp_channel_request *request) {
    created->request = *request;
    created->slots = PP_NEW(&transport->arena, slot, request->slot_count);
    pthread_mutex_init(&created->mutex, NULL);
    pp_condition_init(&created->arrived);
    (void)find_lane(transport, request->lane);
}

static void local_close(pp_transport *transport) {
    if (!transport) return;
    for (int i = 0; i < transport->channel_count; i++) {
        pthread_cond_destroy(&transport->channels[i].arrived);
        pthread_mutex_destroy(&transport->channels[i].mutex);
    }
    pthread_mutex_destroy(&transport->lane_mutex);
    pp_arena_deinit(&transport->arena);
    pp_free(transport);
}

static pp_status local_open(const pp_transport_setting *setting, pp_transport **transport,
                            pp_error *error) {
    int channel_count = setting->channel_count;
    *transport = NULL;
    pp_transport *opened = pp_allocate_zeroed(1, sizeof *opened);
    if (!opened) return pp_fail_memory(error);
    pp_arena_init(&opened->arena);
    pthread_mutex_init(&opened->lane_mutex, NULL);
    atomic_init(&opened->aborted, false);
    opened->channels = PP_NEW(&opened->arena, channel, channel_count);
    opened->lanes = PP_NEW(&opened->arena, lane, channel_count);
    if (!opened->arena.failed) {
        opened->channel_count = channel_count;
        for (int i = 0; i < channel_count; i++)
            channel_init(opened, &opened->channels[i], &setting->channels[i]);
    }
    if (opened->arena.failed) {
        local_close(opened);
        return pp_fail_memory(error);
    }
    *transport = opened;
    return PP_OK;
}

static void local_attach(pp_transport *transport, int number, void *const *slots,
                         const pp_backend *backend, void *backend_state) {
    (void)backend, (void)backend_state; /* senders bring theirs */
    channel *attached = &transport->channels[number];
    pthread_mutex_lock(&attached->mutex);
    for (int i = 0; i < attached->request.slot_count; i++) attached->slots[i].bytes = slots[i];
    pthread_mutex_unlock(&attached->mutex);
}

/* The slot in `state` (and, unless any, of the microbatch), or -1. */
static int find_slot(const channel *searched, slot_state state, const uint32_t *microbatch) {
    for (int i = 0; i < searched->request.slot_count; i++) {
        const slot *candidate = &searched->slots[i];
        if (candidate->state == state && (!microbatch || candidate->microbatch == *microbatch))
            return i;
    }
    return -1;
}

double pp_local_link_ready_s(pp_transport *transport, int number, const pp_message *message) {
    const channel *used = &transport->channels[number];
    if (!used->request.emulate_link || message->landed) return message->sent_s;
    const pp_link *link = &used->request.link;
    pthread_mutex_lock(&transport->lane_mutex);
    lane *taken = find_lane(transport, used->request.lane);
    taken->free_s = fmax(taken->free_s, message->sent_s) +
                    (double)message->size_bytes / link->bandwidth_bytes_per_s;
    double ready_s = taken->free_s + link->latency_s;
    pthread_mutex_unlock(&transport->lane_mutex);
    return ready_s;
}

static void copy_parts(const channel *used, const slot *target, const pp_message *message) {
    const pp_backend *backend = message->backend;
    for (int i = 0; target->bytes && i < message->part_count; i++) {
        const pp_message_part *part = &message->parts[i];
        unsigned char *to = target->bytes + part->slot_offset;
        assert(part->slot_offset + part->size_bytes <= used->request.slot_bytes);
        if (backend)
            (message->landed ? backend->upload : backend->copy)(message->backend_state, to,
                                                                part->bytes, part->size_bytes);
        else
            memcpy(to, part->bytes, part->size_bytes);
    }
    (void)used;
}

/* A free slot, which is being filled from now on; NULL: there is none. */
static slot *claim_slot(channel *used) {
    pthread_mutex_lock(&used->mutex);
    int index = find_slot(used, SLOT_FREE, NULL);
    if (index >= 0) used->slots[index].state = SLOT_FILLING;
    pthread_mutex_unlock(&used->mutex);
    return index >= 0 ? &used->slots[index] : NULL;
}

static int local_begin(pp_transport *transport, int number, const pp_message *message) {
    channel *used = &transport->channels[number];
    slot *claimed = claim_slot(used);
    if (!claimed) return 0;
    copy_parts(used, claimed, message);
    return 1 + (int)(claimed - used->slots);
}

/* The slot with the message in it: the receiver may look. */
static pp_status fill_slot(channel *used, const pp_message *message, slot **filled,
                           pp_error *error) {
    *filled = message->begun ? &used->slots[message->begun - 1] : claim_slot(used);
    if (!*filled)
        return pp_fail(error, PP_E_FAILED, NULL,
                       "stage %d has no free slot among %d for microbatch %u of stage %d: the "
                       "slots were counted wrongly, please report this schedule",
                       used->request.to_stage, used->request.slot_count, message->microbatch,
                       used->request.from_stage);
    if (message->begun) return PP_OK;
    copy_parts(used, *filled, message);
    bool asked = message->backend && (*filled)->bytes;
    return asked ? message->backend->finish(message->backend_state, error) : PP_OK;
}

static pp_status local_send_message(pp_transport *transport, int number, const pp_message *message,
                                    pp_error *error) {
    channel *used = &transport->channels[number];
    slot *filled;
    PP_TRY(fill_slot(used, message, &filled, error));
    double ready_s = pp_local_link_ready_s(transport, number, message);

    pthread_mutex_lock(&used->mutex);
    filled->microbatch = message->microbatch;
    filled->ready_s = ready_s;
    filled->state = message->held ? SLOT_HELD : SLOT_FULL;
    pthread_cond_signal(&used->arrived);
    pthread_mutex_unlock(&used->mutex);
    return PP_OK;
}

static pp_status local_show(pp_transport *transport, int number, pp_error *error) {
    (void)error;
    channel *used = &transport->channels[number];
    pthread_mutex_lock(&used->mutex);
    int index = find_slot(used, SLOT_HELD, NULL);
    assert(index >= 0);
    used->slots[index].state = SLOT_FULL;
    pthread_cond_signal(&used->arrived);
    pthread_mutex_unlock(&used->mutex);
    return PP_OK;
}

static pp_status local_send(pp_transport *transport, int number, uint32_t microbatch,
                            const void *bytes, size_t size_bytes, pp_error *error) {
    pp_message_part part;
    pp_message message = pp_message_whole(&part, microbatch, bytes, size_bytes);
    return local_send_message(transport, number, &message, error);
}

/* Waits with the channel locked; the full slot of the microbatch, or -1. */
static int wait_locked(pp_transport *transport, channel *waited, uint32_t microbatch,
                       double timeout_s) {
    int index = find_slot(waited, SLOT_FULL, &microbatch);
    if (index >= 0) return index;
    double until_s = pp_now_s() + timeout_s;
    double left_s = timeout_s;
    while (index < 0 && left_s > 0 && !atomic_load(&transport->aborted)) {
        pp_condition_wait(&waited->arrived, &waited->mutex, left_s);
        index = find_slot(waited, SLOT_FULL, &microbatch);
        left_s = until_s - pp_now_s();
    }
    return index;
}

static bool local_poll(pp_transport *transport, int number, uint32_t microbatch, double timeout_s) {
    channel *waited = &transport->channels[number];
    pthread_mutex_lock(&waited->mutex);
    int index = wait_locked(transport, waited, microbatch, timeout_s);
    pthread_mutex_unlock(&waited->mutex);
    return index >= 0;
}

static pp_status local_receive(pp_transport *transport, int number, uint32_t microbatch,
                               double timeout_s, int *index, pp_error *error) {
    channel *waited = &transport->channels[number];
    pthread_mutex_lock(&waited->mutex);
    *index = wait_locked(transport, waited, microbatch, timeout_s);
    if (*index >= 0) waited->slots[*index].state = SLOT_TAKEN;
    pthread_mutex_unlock(&waited->mutex);
    if (*index >= 0) return PP_OK;
    if (atomic_load(&transport->aborted))
        return pp_fail(error, PP_E_INTERRUPTED, NULL, "the run was given up");
    return pp_fail(error, PP_E_FAILED, NULL,
                   "waited %g s for microbatch %u from stage %d, and nothing came", timeout_s,
                   microbatch, waited->request.from_stage);
}

static double local_ready_s(pp_transport *transport, int number, int index) {
    return transport->channels[number].slots[index].ready_s;
}

static void local_release(pp_transport *transport, int number, int index) {
    channel *used = &transport->channels[number];
    pthread_mutex_lock(&used->mutex);
    assert(used->slots[index].state == SLOT_TAKEN);
    used->slots[index].state = SLOT_FREE;
    pthread_mutex_unlock(&used->mutex);
}

static void local_abort(pp_transport *transport) {
    atomic_store(&transport->aborted, true);
    for (int i = 0; i < transport->channel_count; i++) {
        channel *woken = &transport->channels[i];
        pthread_mutex_lock(&woken->mutex);
        pthread_cond_broadcast(&woken->arrived);
        pthread_mutex_unlock(&woken->mutex);
    }
}

const pp_transport_ops pp_transport_local = {
    .name = "local",
    .open = local_open,
    .close = local_close,
    .attach = local_attach,
    .send = local_send,
    .send_message = local_send_message,
    .begin = local_begin,
    .show = local_show,
    .poll = local_poll,
    .receive = local_receive,
    .ready_s = local_ready_s,
    .release = local_release,
    .abort = local_abort,
};
