/* Clipping gradients by the norm of all of them. */
#ifndef PPSIM_EXECUTOR_CLIP_INTERNAL_H
#define PPSIM_EXECUTOR_CLIP_INTERNAL_H

#include "executor/gate_internal.h"

struct pp_job;
struct pp_worker;

/* What all ranks know of the norm of a step. */
typedef struct pp_clip {
    double limit;    /* of the norm; 0: gradients are taken as they are */
    double *squares; /* [layers] Σ g² of each layer's weights; of a shared one in its first layer */
    double *letter; /* [1 + layers] what processes tell each other: a time, then squares */
    pp_gate gate;   /* between the last sum and the first STEP; parties as of the job's gates */
} pp_clip;

/* One weight that a worker answers for, and where its sum of squares goes: in order of stages. */
typedef struct pp_clip_weight {
    int layer; /* in the model */
    const void *gradient;
    int64_t count;
} pp_clip_weight;

/* Tables of the job; of a worker, once its gradients have their places. */
pp_status pp_clip_init(struct pp_job *job, pp_error *error);
pp_status pp_clip_open(struct pp_worker *worker, pp_error *error);
void pp_clip_close(struct pp_worker *worker);

/* Before a rank's first STEP of a step: adds up its squares and waits for those of all others.
 * *ready_s: when the last of them was there. waited_s is added to. The worker's gradient_factor is
 * known then. */
pp_status pp_clip_meet(struct pp_worker *worker, double *ready_s, double *waited_s,
                       pp_error *error);

/* The norm of the last step that has met. */
double pp_clip_norm(const struct pp_job *job);

#endif
