/* The backend interface: where memory lives and who computes. One row per backend in backends.c. */
#ifndef PPSIM_EXECUTOR_BACKEND_H
#define PPSIM_EXECUTOR_BACKEND_H

#include "executor/layer.h"

typedef struct pp_backend pp_backend;
typedef struct pp_side_queue pp_side_queue; /* of transfers, beside a rank's own */

/* What of its machine a rank has (devices.c). */
typedef struct pp_backend_seat {
    int device;
    int slice, slices; /* which of how many equal parts of its multiprocessors; slices 0: all */
    bool must_slice;   /* it was asked for: rather fail than share the device whole */
} pp_backend_seat;

/* One device of this machine. */
typedef struct pp_backend_device {
    char name[128];
    int64_t memory_bytes, free_bytes;
    int64_t rank_bytes; /* what the backend itself takes for each rank */
    int slices;         /* most that it can be cut into; 0: it cannot be cut */
} pp_backend_device;

struct pp_backend {
    const char *name;
    bool runs_layers; /* false: replay, which only waits the plan's times */
    /* Of a device, for the session row of a profile; NULL: the machine's own (measure_describe.c).
     */
    void (*describe)(int device, char name[128], char driver[128], char libraries[256],
                     char clocks[128]);
    bool (*usable)(char detail[256]); /* detail: what was found, or why not */
    /* Once per rank, in its own thread, before anything else. */
    pp_status (*open)(const pp_backend_seat *seat, void **state, pp_error *error);
    void (*close)(void *state);
    void *(*allocate)(void *state,
                      size_t size_bytes); /* 64-byte aligned; NULL when there is none */
    void (*release)(void *state, void *block, size_t size_bytes);
    const pp_layer_ops *(*layer)(pp_op op, pp_dtype dtype); /* NULL: this op does not run here */
    /* Work on blocks of this backend, which the host must not touch where device_memory. It is done
     * in the order in which this rank asks for it, together with its layers' calls; where
     * device_memory, a call may return before. */
    bool device_memory;
    void (*copy)(void *state, void *to, const void *from, size_t size_bytes);
    void (*fill)(void *state, void *block, int byte, size_t size_bytes);
    void (*add)(void *state, pp_dtype dtype, void *sum, const void *added, int64_t count);
    /* One step of one tensor; states as pp_optimizer_states counts them. */
    void (*step)(void *state, const pp_optimizer_settings *settings, pp_dtype dtype, int64_t step,
                 int64_t count, void *weights, const void *gradient, void *const *states);
    /* *sum, in a block of this backend, becomes the sum of the squares of a tensor, in an order that
     * depends on `count` alone. */
    void (*square_sum)(void *state, pp_dtype dtype, const void *values, int64_t count,
                       double *sum);
    /* The last state of a bf16 tensor is its fp32 master: makes it from fresh weights. NULL where
     * there is no bf16. */
    void (*make_master)(void *state, int64_t count, const void *weights, void *master);
    /* Host memory in and out; the host's side is free, or there, on return. */
    void (*upload)(void *state, void *to, const void *host, size_t size_bytes);
    void (*download)(void *state, void *host, const void *from, size_t size_bytes);
    /* Until everything asked for is done. PP_E_FAILED with the device's own words if any of it
     * failed. */
    pp_status (*finish)(void *state, pp_error *error);
    /* How many devices this machine has; NULL: one, which all ranks share. */
    int (*devices)(void);
    /* One of them, as it is now; false: it cannot be asked. NULL where `devices` is. */
    bool (*device)(int number, pp_backend_device *device);
    /* A queue of transfers beside the rank's own: opened in the rank's thread; all the rest happens
     * in the one thread that issues to it and has entered its device. NULL without device memory. */
    pp_side_queue *(*side_open)(void *state);
    void (*side_close)(pp_side_queue *side);
    pp_status (*side_enter)(pp_side_queue *side, pp_error *error);
    void *(*side_stream)(pp_side_queue *side); /* as the device's libraries know it */
    /* A mark behind all that was issued so far; it is gone once it was found passed, or forgotten. */
    pp_status (*side_mark)(pp_side_queue *side, void **mark, pp_error *error);
    pp_status (*side_passed)(pp_side_queue *side, void *mark, bool *passed, pp_error *error);
    void (*side_forget)(pp_side_queue *side, void *mark);
    /* Host memory that the device reaches fastest (pinned), from any thread; NULL: any will do. */
    void *(*host_allocate)(size_t size_bytes);
    void (*host_release)(void *block);
    /* Busy-accurate waiting for replay: returns at `until_s` of pp_now_s. */
    void (*wait_until)(void *state, double until_s);
};

/* A backend that can be used now. PP_E_UNSUPPORTED, at `place`, with the reason and the cure. */
pp_status pp_backend_find(const char *name, const char *place, const pp_backend **backend,
                          pp_error *error);

#endif
