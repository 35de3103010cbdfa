/* The transport interface: how a stage's tensors reach the stage of another rank.
 *
 * A channel is one border in one direction: F from stage s to s+1, or B back. The receiver owns the
 * channel's slots (their number is pp_schedule_slots, so a sender never waits for one); a message
 * is the list of the border's tensors, packed one after another, of one microbatch. */
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
} pp_channel_request;

typedef struct pp_transport_ops {
    const char *name;
    /* channel_count channels; slots are handed over by the receiving rank's thread with attach. */
    pp_status (*open)(const pp_channel_request *channels, int channel_count, pp_transport **transport,
                      pp_error *error);
    void (*close)(pp_transport *transport);
    /* slots : [slot_count] blocks of slot_bytes owned by the receiver; NULL slots carry no bytes
     * (replay). Called once per channel before the first step. */
    void (*attach)(pp_transport *transport, int channel, void *const *slots);
    /* Copies bytes into a free slot and returns at once. No free slot is a PP_E_FAILED (a bug). */
    pp_status (*send)(pp_transport *transport, int channel, uint32_t microbatch, const void *bytes,
                      size_t size_bytes, pp_error *error);
    /* Waits for the next message, which must be `microbatch` (else PP_E_FAILED): *slot is its number.
     * Gives up after timeout_s or on abort. */
    pp_status (*receive)(pp_transport *transport, int channel, uint32_t microbatch,
                         double timeout_s, int *slot, pp_error *error);
    void (*release)(pp_transport *transport, int channel, int slot);
    /* Wakes every waiter with PP_E_INTERRUPTED. Thread-safe, idempotent. */
    void (*abort)(pp_transport *transport);
} pp_transport_ops;

extern const pp_transport_ops pp_transport_local;

#endif
