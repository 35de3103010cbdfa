/* The backend interface: where memory lives and who computes. One row per backend in backends.c. */
#ifndef PPSIM_EXECUTOR_BACKEND_H
#define PPSIM_EXECUTOR_BACKEND_H

#include "executor/layer.h"

typedef struct pp_backend pp_backend;

struct pp_backend {
    const char *name;
    bool runs_layers;  /* false: replay, which only waits the plan's times */
    bool (*usable)(char detail[256]);         /* detail: what was found, or why not */
    /* Once per rank, in its own thread, before anything else. */
    pp_status (*open)(void **state, int rank, pp_error *error);
    void (*close)(void *state);
    void *(*allocate)(void *state, size_t size_bytes);   /* 64-byte aligned; NULL when there is none */
    void (*release)(void *state, void *block, size_t size_bytes);
    const pp_layer_ops *(*layer)(pp_op op, pp_dtype dtype); /* NULL: this op does not run here */
    /* Busy-accurate waiting for replay: returns at `until_s` of pp_now_s. */
    void (*wait_until)(void *state, double until_s);
};

/* A backend that can be used now. PP_E_UNSUPPORTED, at `place`, with the reason and the cure. */
pp_status pp_backend_find(const char *name, const char *place, const pp_backend **backend,
                          pp_error *error);

#endif
