/* executor: runs plans for real. Floor 2; uses core alone.
 *
 *   layer.h     the layer interface: one row per op and file in layers/
 *   backend.h   the backend interface: memory, layers, waiting     backends/cpu.c backends/replay.c
 *   transport.h the transport interface: moving tensors   transports/local.c remote.c device.c
 *   stage.c     one stage: its layers run forward, input gradient, weight gradient
 *   worker.c    one rank: interprets its action list (worker_setup.c: its memory)
 *   run.c       all ranks of a plan, step after step (run_check.c: what it refuses)
 *   measured.c  what a run measured: medians, the trace
 *   processes.c several processes that run one plan (wire.h, postman.c, meeting.c, spread.c)
 *   reduce.c    gradients of shared weights added up in a fixed order
 *   clip.c      gradients clipped by the norm of all of them
 *   devices.c   which device each rank has, and whether it is enough
 *   heap.c      a rank's memory, counted
 *   gate.c      waiting for others without ever hanging
 *   measure.c   times layers and links for the profiler
 *   data.c      samples: text, tokens, CIFAR-10, synthetic (data_sources.c)
 *
 * One worker per rank knows layers, a backend and a transport by three small tables of functions. */
#ifndef PPSIM_EXECUTOR_H
#define PPSIM_EXECUTOR_H

#include "core/core.h"

/* ---- processes ----------------------------------------------------------------------------- */

/* The processes that mpirun or srun started with this command; NULL everywhere: just this one. */
typedef struct pp_processes pp_processes;

/* As this process's environment tells: how many there are, and which one it is. */
int pp_processes_launched(int *process);
/* Joins them, through the plugin `mpi`; *processes is NULL where there is only one. timeout_s:
 * whoever gives no sign of life for so long is given up, and with him all (0: 30). */
pp_status pp_processes_join(double timeout_s, pp_processes **processes, pp_error *error);
int pp_processes_count(const pp_processes *processes);
/* Is this the process that prints? */
bool pp_processes_speaks(const pp_processes *processes);
/* All call it and get the same status and error: the earliest of all, or PP_OK. key: must be the
 * same for all of them. */
pp_status pp_processes_agree(pp_processes *processes, pp_status status, uint64_t key,
                             pp_error *error);
/* The last call, when everything is printed: all end together. */
void pp_processes_leave(pp_processes *processes, int exit_status);
/* Of ranks·dp workers, those that run on this machine, on their memory and cores. */
int pp_processes_workers_here(const pp_processes *processes, const struct pp_plan *plan,
                              bool *here /* [ranks · dp], worker = rank · dp + replica */);

/* ---- running a plan ------------------------------------------------------------------------ */

typedef struct pp_step_report {
    int step;            /* from 0 */
    double loss;         /* mean over the global batch; NAN under replay */
    double seconds;
    double planned_s;    /* replay: the step on the plan's own time line, which late wake-ups do not
                            delay: what simulation predicts; else NAN */
    double tokens_per_s; /* 0 without a sequence */
    double gradient_norm; /* before clipping; NAN where nothing is clipped */
} pp_step_report;

/* A tensor shown to an observer: a parameter or its gradient, after a step's reduction and before
 * (gradient) or after (parameter) the optimizer. Called by one rank at a time. */
typedef struct pp_observed {
    int step, rank, replica, stage;
    const char *layer, *tensor;
    bool gradient;
    pp_dtype dtype;
    const void *values;
    int64_t count;
} pp_observed;

typedef struct pp_run_options {
    int steps;                 /* 0: 1 */
    uint64_t seed;
    const char *data;          /* path; NULL: synthetic */
    const char *backend;       /* NULL: pp_backend_default */
    const char *backend_place; /* what named it, for messages; NULL: "--backend" */
    const char *transport;     /* "local", "mpi", "nccl"; NULL: the best that can serve */
    int device;                /* cuda: the first of this machine's devices that is used */
    int slices;                /* cuda: all ranks of a machine have that device alone, cut into so many
                                  equal parts; 0: ranks are dealt round the devices from there on, and
                                  those that meet on one share it by slices, as many as ranks */
    double learning_rate;      /* 0: 1e-3 adamw, 1e-1 sgd */
    double clip;               /* gradients are scaled down to this norm, of all of them; 0: not */
    double timeout_s;          /* a rank that waits this long for a peer, while no rank computes or
                                  ends an action, fails; 0: 30 */
    bool evaluate;             /* dropout off */
    bool keep_trace;           /* of the step nearest to the median time */
    bool poison;               /* freed memory reads as NaN; always so in debug builds */
    pp_processes *processes;   /* that run the plan together, each some of its ranks */
    /* all may be NULL */
    void (*on_step)(void *context, const pp_step_report *report);
    void (*observe)(void *context, const pp_observed *observed);
    const struct pp_backend *own_backend; /* tests: instead of a named one; NULL: none */
    const struct pp_carrier_ops *own_carrier; /* tests: instead of NCCL; NULL: none */
    /* tests: called before each action of each rank; a non-OK status fails that rank there */
    pp_status (*before_action)(void *context, int rank, int replica, pp_action action,
                               pp_error *error);
    void *context;
} pp_run_options;

typedef struct pp_run_result {
    pp_step_report *steps;
    int step_count;
    pp_prediction measured;    /* medians over the steps after the first (the only one, if one) */
    pp_trace *trace;           /* NULL unless keep_trace; the step nearest to the median time */
    pp_arena arena;
} pp_run_result;

/* Trains `steps` steps: ranks·dp threads of this process, or of all processes together; then all
 * call it and get the same status, and process 0 alone the whole result. schedule: the plan's
 * compute actions as pp_plan_expand gives them, with or without transfers. Refuses
 * (PP_E_UNSUPPORTED) tp > 1, bf16 on the CPU, opaque layers outside replay. The first cause of a
 * failure (rank, action, microbatch) is the message. A stop request ends after the current action:
 * PP_E_INTERRUPTED, and *result holds the finished steps. */
pp_status pp_run(const pp_plan *plan, const pp_schedule *schedule, const pp_run_options *options,
                 pp_run_result **result, pp_error *error);
void pp_run_result_free(pp_run_result *result);

/* "cuda:1" as backend and number; without a number 0. */
pp_status pp_device_parse(const char *text, char backend[32], int *number, pp_error *error);

/* Which backend a model would run on by default: "cuda" where it is usable and knows all of the
 * model's ops in this type, else "cpu"; "replay" for opaque layers. */
const char *pp_backend_default(const pp_model *model, pp_dtype dtype);

/* What a machine can do, for doctor: one row per backend. */
typedef struct pp_backend_info {
    const char *name;
    bool usable;
    char detail[256];  /* device and library versions, or why not and how to get it */
} pp_backend_info;
int pp_backends(pp_backend_info *infos, int capacity);
/* The same for how messages travel. */
int pp_transports(pp_backend_info *infos, int capacity);

/* ---- measuring ----------------------------------------------------------------------------- */

typedef struct pp_measure_options {
    const pp_model *model;
    const char *device;          /* "cpu" */
    pp_dtype dtype;
    const int64_t *microbatches; /* sizes to time */
    int microbatch_count;
    int neighbours;              /* also measure with this many other threads busy; 0: only alone */
    bool links;                  /* time the local transport instead of layers */
    double interval;             /* wanted relative half width of the median's 95 % CI; 0: 0.02 */
    double cap_s;                /* per (layer, phase, size); 0: at most 2 s, and less where there
                                    are many: about 12 s for all. Hitting it is reported */
    void (*on_progress)(void *context, double fraction, const char *what);
    void (*on_sample)(void *context, const pp_sample *sample); /* each raw sample */
    /* reached_interval: INFINITY below six samples */
    void (*on_cap)(void *context, const char *what, double reached_interval);
    /* the machine did not stay as it was: when the time was up the second half of the samples took
     * `drift` (0.1: 10 %) longer than the first, which chance does not explain; or one and the same
     * matrix product did so after all layers, compared with before */
    void (*on_drift)(void *context, const char *what, double drift);
    void *context;
} pp_measure_options;

/* Device and library names for the session row. Strings are written into the buffers. */
void pp_measure_describe(const char *device, char name[128], char driver[128], char libraries[256],
                         char clocks[128]);

/* Times each distinct layer's phases (and the optimizer): random data, warm-up, repetition until the
 * median's interval is narrow enough and nothing drifts, or the cap. Stops at a stop request: PP_E_INTERRUPTED. */
pp_status pp_measure(const pp_measure_options *options, pp_error *error);

#endif
