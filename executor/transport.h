/* The transport interface: how a stage's tensors reach the stage of another rank.
 *
 * A channel is one border in one direction: F from stage s to s+1, or B back. The receiver owns the
 * channel's slots (their number is pp_schedule_slots, so a sender never waits for one); a message
 * is the list of the border's tensors of one microbatch, each at its place in the slot. */
#ifndef PPSIM_EXECUTOR_TRANSPORT_H
#define PPSIM_EXECUTOR_TRANSPORT_H

#include "core/core.h"

typedef struct pp_transport pp_transport; /* one per run */

typedef struct pp_channel_request {
    int from_stage, to_stage, replica;
    int slot_count;
    size_t slot_bytes;
    pp_link link;       /* emulated by replay: a message is ready latency + bytes/bandwidth later */
    bool emulate_link;
    int lane;           /* channels with the same lane (a directed pair of ranks) share the link's
                           bandwidth: their messages follow each other */
    int from_worker, to_worker; /* rank · dp + replica */
    int from_process, to_process;
} pp_channel_request;

typedef struct pp_transport_setting {
    const pp_channel_request *channels;
    int channel_count;
    struct pp_processes *processes; /* NULL: this one has both ends of all channels */
    const struct pp_carrier_ops *carrier; /* of the device transport */
    double timeout_s;                     /* for what its carrier begins */
    void (*fail)(void *context, const pp_error *error); /* for what it finds while nobody asks */
    void *context;
} pp_transport_setting;

/* One tensor of a message and where it goes. */
typedef struct pp_message_part {
    const void *bytes;
    size_t size_bytes;
    size_t slot_offset; /* in the receiver's slot */
} pp_message_part;

typedef struct pp_message {
    uint32_t microbatch;
    const pp_message_part *parts;
    int part_count;     /* 0: carries size_bytes of nothing (replay) */
    size_t size_bytes;  /* what the emulated link carries */
    double sent_s;      /* when the emulated link gets it (pp_now_s) */
    const struct pp_backend *backend; /* whose memory the parts and the slot are; NULL: the host's */
    void *backend_state;              /* of the caller */
    int begun;                        /* what `begin` has returned for it, or 0 */
    bool held;          /* the receiver does not see it before `show`; one of a channel at a time */
    bool landed;        /* it came from another process: its parts are in the host's memory, and it
                           came out of the link at sent_s */
} pp_message;

/* All of it at once, from the host's memory. *part must live as long; NULL bytes: nothing. */
static inline pp_message pp_message_whole(pp_message_part *part, uint32_t microbatch,
                                          const void *bytes, size_t size_bytes) {
    *part = (pp_message_part){.bytes = bytes, .size_bytes = size_bytes};
    return (pp_message){.microbatch = microbatch,
                        .parts = part,
                        .part_count = bytes ? 1 : 0,
                        .size_bytes = size_bytes,
                        .sent_s = pp_now_s()};
}

typedef struct pp_transport_ops {
    const char *name;
    /* Slots are handed over by the receiving rank's thread with attach. */
    pp_status (*open)(const pp_transport_setting *setting, pp_transport **transport,
                      pp_error *error);
    void (*close)(pp_transport *transport);
    /* slots : [slot_count] blocks of slot_bytes owned by the receiver; NULL slots carry no bytes
     * (replay). backend: whose memory they are, with the receiver's state. Called once per channel
     * before the first step. */
    void (*attach)(pp_transport *transport, int channel, void *const *slots,
                   const struct pp_backend *backend, void *backend_state);
    /* Once per worker that runs here, in its own thread before the first step: what has to be opened
     * on its device. Returns when the ranks that it exchanges messages with have come too. NULL:
     * nothing. */
    pp_status (*enter)(pp_transport *transport, int worker, const struct pp_backend *backend,
                       void *backend_state, pp_error *error);
    /* Copies bytes into a free slot and returns at once. No free slot is a PP_E_FAILED (a bug). */
    pp_status (*send)(pp_transport *transport, int channel, uint32_t microbatch, const void *bytes,
                      size_t size_bytes, pp_error *error);
    /* The same for a list of tensors. */
    pp_status (*send_message)(pp_transport *transport, int channel, const pp_message *message,
                              pp_error *error);
    /* Asks the sender's backend for a message's copies, behind the work that is still filling its
     * parts and instead of in send_message, which is called when all that is done. 0: not now.
     * NULL: never. */
    int (*begin)(pp_transport *transport, int channel, const pp_message *message);
    /* The message that the channel holds back leaves. */
    pp_status (*show)(pp_transport *transport, int channel, pp_error *error);
    /* Waits at most timeout_s for the message of `microbatch`: true if it is there. Returns early
     * (false) on abort. */
    bool (*poll)(pp_transport *transport, int channel, uint32_t microbatch, double timeout_s);
    /* Waits for the message of `microbatch`: *slot is its number. Messages of other microbatches that
     * came earlier stay in their slots until they are asked for. Gives up after timeout_s
     * (PP_E_FAILED) or on abort (PP_E_INTERRUPTED). */
    pp_status (*receive)(pp_transport *transport, int channel, uint32_t microbatch,
                         double timeout_s, int *slot, pp_error *error);
    /* When the message in a received slot came out of the emulated link; else when it was sent. */
    double (*ready_s)(pp_transport *transport, int channel, int slot);
    void (*release)(pp_transport *transport, int channel, int slot);
    /* Wakes every waiter with PP_E_INTERRUPTED. Thread-safe, idempotent. */
    void (*abort)(pp_transport *transport);
} pp_transport_ops;

extern const pp_transport_ops pp_transport_local;  /* threads of one process */
extern const pp_transport_ops pp_transport_remote; /* processes, by letters of their postmen */
extern const pp_transport_ops pp_transport_device; /* devices, by a carrier (carrier.h) */

/* Of the local transport: when the message comes out of the channel's link, which it occupies. */
double pp_local_link_ready_s(pp_transport *transport, int channel, const pp_message *message);

#endif
