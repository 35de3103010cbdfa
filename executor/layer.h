/* The layer interface: what the worker asks of a layer, and all that a layer may touch.
 *
 * Forward (F), input gradient (I) and weight gradient (W) are separate calls; a full backward is
 * I then W. A layer keeps nothing between calls: everything saved lives in the tensors of the
 * stage's table (core.h, part 9), one set per (stage, microbatch). So any order that the schedule
 * allows gives bit-identical results. F comes first, then I once (lm_head overwrites what F saved
 * with the gradient of the logits), then W once; F again (recompute) starts afresh. A layer's
 * arithmetic is compiled once per real type (layers/real.h): float and double. Each op is a file in
 * layers/ and a row in layers/table.c. */
#ifndef PPSIM_EXECUTOR_LAYER_H
#define PPSIM_EXECUTOR_LAYER_H

#include "core/core.h"

/* One call on one layer for one microbatch. Pointers are NULL where the op has no such thing.
 * Activations are row-major [samples · sequence][features] in the call's real type. */
typedef struct pp_layer_call {
    const pp_layer *layer;
    int64_t samples;             /* in this microbatch */
    void *const *tensors;        /* [pp_layer_tensors count] the layer's own tensors, in that order;
                                    for a smaller last microbatch only the leading rows are used */
    void *const *gradients;      /* [same count] gradients of the PARAMETER tensors: ADDED to by W */
    const void *const *inputs;   /* [input_count] outputs of the layers before it, in edge order */
    int input_count;
    const void *output_gradient; /* I and W */
    void *const *input_gradients;/* [input_count] I writes or, where accumulate, adds; NULL: unwanted */
    const bool *accumulate;      /* [input_count] */
    const int32_t *tokens;       /* [samples · sequence] for ops that take tokens */
    const void *features;        /* [samples][dim] for a first layer fed with features */
    const int32_t *targets;      /* [samples · sequence] for losses; -1: ignored */
    double gradient_scale;       /* losses: 1 / (targets of the whole minibatch, all replicas) */
    double *loss;                /* losses: F stores the SUM of this microbatch's -log p here */
    pp_random_key key;           /* of (seed, layer name, step) */
    uint64_t first_sample;       /* of the microbatch within the global minibatch: element e of sample
                                    i draws word e % 4 of block (first_sample + i, e / 4), so masks
                                    depend on neither M nor K (layers/mask.c) */
    bool training;               /* false: no dropout */
} pp_layer_call;

typedef void pp_layer_function(const pp_layer_call *call);

/* One op in one real type. */
typedef struct pp_layer_ops {
    pp_op op;
    /* fills parameters from key of (seed, layer or tie name, 0); weights normal(0, 0.02), biases 0,
     * scales 1; residual projections are not rescaled */
    void (*initialise)(const pp_layer *layer, pp_random_key key, void *const *tensors);
    pp_layer_function *forward;
    pp_layer_function *input;   /* NULL: the layer has no inputs with gradients (embedding) */
    pp_layer_function *weight;  /* NULL: no weights */
    pp_layer_function *attend;  /* makes the attention core's tensors again from what else F saved,
                                   bit for bit; NULL: has none */
} pp_layer_ops;

/* The CPU's layers in fp32 or fp64; NULL for ops that cannot run (opaque) and other dtypes. */
const pp_layer_ops *pp_cpu_layer(pp_op op, pp_dtype dtype);

/* Optimizers over one flat tensor, in place. step counts from 1. AdamW: decoupled decay (Loshchilov
 * and Hutter 2019), states m and v; SGD: momentum, state u: u = μu + g, w -= ηu. */
typedef struct pp_optimizer_settings {
    pp_optimizer kind;
    double learning_rate, beta1, beta2, epsilon, weight_decay, momentum;
    double gradient_factor; /* what gradients are multiplied by (clip.c); by default 1 */
} pp_optimizer_settings;
pp_optimizer_settings pp_optimizer_defaults(pp_optimizer kind);
/* State tensors per parameter: adamw 2, sgd 1; in bf16, where all are fp32, one more: the master. */
int pp_optimizer_states(pp_optimizer kind, pp_dtype dtype);
enum { PP_OPTIMIZER_STATES_MAX = 3 };
void pp_cpu_optimizer_step(const pp_optimizer_settings *settings, pp_dtype dtype, int64_t step,
                           int64_t count, void *weights, const void *gradient,
                           void *const *states);
/* Σ x² in double, in an order that depends on count alone (cuda/arithmetic.h). fp32 and fp64. */
double pp_cpu_square_sum(pp_dtype dtype, int64_t count, const void *values);

#endif
