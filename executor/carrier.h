/* The carrier interface: how device memory goes from one device to another without the host.
 *
 * A pair is two devices and a direction; each end belongs to one thread, which makes all calls with
 * it. Nothing here waits: what takes time is begun, and `check` says when it is over. One in
 * executor/nccl; transports/device.c does the rest. */
#ifndef PPSIM_EXECUTOR_CARRIER_H
#define PPSIM_EXECUTOR_CARRIER_H

#include "core/core.h"

#define PP_CARRIER_ID_BYTES 128

typedef struct pp_carrier_end pp_carrier_end;
typedef struct pp_carrier_id {
    unsigned char bytes[PP_CARRIER_ID_BYTES];
} pp_carrier_id;

typedef struct pp_carrier_ops {
    const char *name;                 /* "nccl" */
    bool (*usable)(char detail[256]); /* detail: what was found, or why not and the cure */
    /* A name for a pair; the sender makes it and the receiver gets it by other means. */
    pp_status (*make_id)(pp_carrier_id *id, pp_error *error);
    /* Begins to join: end 0 sends, end 1 receives, on the device that is current in this thread. */
    pp_status (*join)(const pp_carrier_id *id, int end, pp_carrier_end **joined, pp_error *error);
    /* Is what was begun (joining, a group, finishing) over? An error of either side shows here. */
    pp_status (*check)(pp_carrier_end *end, bool *over, pp_error *error);
    /* Transfers between these two calls begin together. Each waits on `stream` for the other
     * side's. */
    pp_status (*group_start)(pp_error *error);
    pp_status (*group_end)(pp_error *error);
    pp_status (*send)(pp_carrier_end *end, const void *bytes, size_t size_bytes, void *stream,
                      pp_error *error);
    pp_status (*receive)(pp_carrier_end *end, void *bytes, size_t size_bytes, void *stream,
                         pp_error *error);
    /* Begins to end in order; then `check`, then leave. */
    pp_status (*finish)(pp_carrier_end *end, pp_error *error);
    void (*leave)(pp_carrier_end *end);
    void (*abort)(pp_carrier_end *end); /* whatever is under way; instead of leave */
} pp_carrier_ops;

#endif
