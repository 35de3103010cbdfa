/* The job that all ranks of a run share, and the worker that is one rank of it. */
#ifndef PPSIM_EXECUTOR_WORKER_INTERNAL_H
#define PPSIM_EXECUTOR_WORKER_INTERNAL_H

#include "executor/board_internal.h"
#include "executor/clip_internal.h"
#include "executor/data_internal.h"
#include "executor/executor.h"
#include "executor/gate_internal.h"
#include "executor/heap_internal.h"
#include "executor/reduce_internal.h"
#include "executor/stage_internal.h"

typedef struct pp_worker pp_worker;

/* What a worker did in one step. */
typedef struct pp_worker_step {
    double end_s;     /* pp_now_s when its list was done … */
    double planned_s; /* … and, under replay, when on the plan's time line, which began with the step */
    double busy_s;
    int span_count, point_count; /* in its rings, if traces are kept */
} pp_worker_step;

/* One run of a plan. Read-only for workers, except where said. */
typedef struct pp_job {
    const pp_plan *plan;
    const pp_schedule *schedule;
    const pp_run_options *options;
    const pp_backend *backend;
    pp_optimizer_settings optimizer;
    int steps;
    int step;                  /* the calling thread's */
    int64_t replica_samples;   /* of one replica and step */
    double gradient_scale;
    pp_stage_layout *layouts;  /* [stages]; NULL under replay */
    pp_stage_bytes *bytes;     /* [stages] */
    int *input_slots, *gradient_slots; /* [stages] */
    int *first_microbatch; /* [stages] where those of the stage's chain begin in the batch … */
    int *microbatch_count; /* … and how many there are */
    bool *recomputed;      /* [stages · microbatches of the chain, at most all] has an R action */
    int64_t *border_bytes;     /* [stages] what crosses the border behind; replay */
    pp_data_shape shape;
    pp_data *data;             /* NULL under replay */

    const pp_transport_ops *transport_ops; /* the rest is shared and guards itself */
    pp_transport *transport;
    const struct pp_carrier_ops *carrier; /* of the device transport */
    struct pp_processes *processes; /* NULL: one */
    int here_count;            /* workers of this process */
    int loss_stage;            /* that makes the loss, in the first chain; -1 under replay */
    double clock_error_s;      /* the worst of all processes; process 0 knows */
    pp_reduce reduce;
    pp_board board;
    pp_clip clip;
    pp_watch watch;
    pp_gate ready, start, finish; /* all workers here and the thread that called pp_run, which with
                                     several processes meets those of the others behind each */
    bool gates_ready;
    double *losses;            /* [dp · microbatches] written by the stages that make the loss */
    pthread_mutex_t mutex;     /* guards error, and observers */
    atomic_bool failed;
    pp_error error;            /* the first cause */

    pp_worker *workers;        /* [ranks · dp], rank · dp + replica */
    int worker_count;
    int ring_steps;            /* steps whose spans are kept; 0: none */
    pp_arena arena;
} pp_job;

/* The memory of one microbatch on one stage. */
typedef struct pp_microbatch {
    void *early, *late;  /* activations: freed by I, freed by W */
    void *stash, *checkpoint;
    int input_slot, gradient_slot; /* -1: none */
} pp_microbatch;

typedef struct pp_worker_stage {
    int stage, previous, next; /* in the chain; -1: none */
    const pp_stage_bytes *bytes;
    pp_stage_run run;          /* not under replay */
    pp_microbatch *microbatches;
    void **input_slots, **gradient_slots;
    pp_message_part *parts;    /* of the message being sent */
    void *reduction;           /* buffer */
    void *landing;             /* as large, for what comes from other processes; device memory only */
    int backward_left;         /* microbatches of this step without W or B */
} pp_worker_stage;

/* The data of the loaded microbatch: where the host has it, and where layers see it, which is the
 * same place unless the backend has memory of its own. NULL: no stage of the rank reads it. */
typedef struct pp_loader {
    int32_t *tokens, *targets;
    void *features;
    int32_t *seen_tokens, *seen_targets;
    void *seen_features;
    size_t label_bytes, feature_bytes;
    int64_t made;   /* whose data the host's buffers hold: its number in the run, or -1 */
    int64_t loaded; /* and whose is seen */
} pp_loader;

struct pp_worker {
    pp_job *job;
    int rank, replica;
    int process;               /* where it runs; only its own process starts and opens it */
    pp_backend_seat seat;      /* of workers on this machine */
    bool here;
    pthread_t thread;
    bool started;
    void *backend_state;
    bool backend_open;
    pp_heap heap;
    pp_worker_stage *stages;
    int stage_count;
    int *local;                /* [stages of the plan] index in stages, or -1 */
    void *workspace;
    int64_t workspace_bytes;
    pp_loader loader;
    pp_clip_weight *weights;   /* [weight_count] that it answers for; none unless gradients are clipped */
    int weight_count;
    double *sums, *seen_sums;  /* [weight_count] where the backend makes them, and where they are read */

    int step;
    double step_start_s;
    double scheduled_s;        /* replay: when the last action ends on the plan's time line */
    double busy_s;
    int64_t peak_bytes;        /* so far, at the end of the last step */
    int next_group;            /* of pp_reduce, this step */
    bool clipped;              /* this step's gradient_factor is known */
    double gradient_factor;
    pp_worker_step *steps;     /* [job.steps] */
    pp_span *spans;            /* ring of [job.ring_steps][span_capacity] */
    int span_count, span_capacity;
    pp_trace_point *points;    /* ring of [job.ring_steps][point_capacity]: bytes in use */
    int point_count, point_capacity;
    _Atomic(uint64_t) standing; /* index of the action it stands at, for messages */
    pp_arena arena;
};

/* Builds the worker's stages, memory and parameters, in its own thread. */
pp_status pp_worker_open(pp_worker *worker, pp_error *error);
void pp_worker_close(pp_worker *worker);
/* Room for what is recorded of each step; also of a worker of another process. */
pp_status pp_worker_open_records(pp_worker *worker, pp_error *error);
/* Thread body: opens, runs all steps, leaves everything in the worker. */
void *pp_worker_main(void *worker);
/* The channel into a stage: forward (its inputs) or backward (its output gradients). */
int pp_job_channel(const pp_job *job, int stage, int replica, bool backward);
/* First failure of the run wins; wakes everybody. worker NULL: nobody in particular. */
void pp_job_fail(pp_job *job, const pp_worker *worker, const pp_action *action, pp_status status,
                 const pp_error *error);

#endif
