/* Causal multi-head self-attention as an op of its own: qkv projection, attention, projection. */
#define PP_THIS_FILE "executor/layers/attention.c"
#ifndef PP_REAL_PASS
enum {
    QKV_WEIGHT,
    QKV_BIAS,
    OUTPUT_WEIGHT,
    OUTPUT_BIAS,
    OUTPUT,
    QKV,
    PROBABILITIES,
    ATTENDED,
    QKV_GRADIENT,
    ATTENDED_GRADIENT,
    SCORE_GRADIENT
};
#endif
#include "executor/layers/real.h"

#ifdef real

static attend_call NAME(attend_of)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    return (attend_call){.samples = call->samples,
                         .sequence = pp_call_rows(call) / call->samples,
                         .heads = call->layer->heads,
                         .kv_heads = call->layer->heads,
                         .size = pp_layer_head_dim(call->layer),
                         .causal = true,
                         .qkv = t[QKV],
                         .probabilities = t[PROBABILITIES],
                         .attended = t[ATTENDED],
                         .attended_gradient = t[ATTENDED_GRADIENT],
                         .qkv_gradient = t[QKV_GRADIENT],
                         .score_gradient = t[SCORE_GRADIENT]};
}

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    attend_call attend = NAME(attend_of)(call);
    linear_forward(rows, dim, 3 * dim, pp_call_input(call), t[QKV_WEIGHT], t[QKV_BIAS], t[QKV]);
    attend_forward(&attend);
    linear_forward(rows, dim, dim, t[ATTENDED], t[OUTPUT_WEIGHT], t[OUTPUT_BIAS], t[OUTPUT]);
}

static void NAME(attend)(const pp_layer_call *call) {
    attend_call attend = NAME(attend_of)(call);
    attend_again(&attend);
}

static void NAME(input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    attend_call attend = NAME(attend_of)(call);
    linear_input(rows, dim, dim, call->output_gradient, t[OUTPUT_WEIGHT], t[ATTENDED_GRADIENT],
                 false);
    attend_input(&attend);
    real *dx = pp_call_input_gradient(call);
    if (dx)
        linear_input(rows, dim, 3 * dim, t[QKV_GRADIENT], t[QKV_WEIGHT], dx,
                     pp_call_accumulates(call));
}

static void NAME(weight)(const pp_layer_call *call) {
    void *const *t = call->tensors, *const *g = call->gradients;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    linear_weight(rows, dim, 3 * dim, pp_call_input(call), t[QKV_GRADIENT], g[QKV_WEIGHT],
                  g[QKV_BIAS]);
    linear_weight(rows, dim, dim, t[ATTENDED], call->output_gradient, g[OUTPUT_WEIGHT],
                  g[OUTPUT_BIAS]);
}

const pp_layer_ops NAME(pp_attention) = {PP_OP_ATTENTION, initialise_parameters, NAME(forward),
                                         NAME(input),     NAME(weight),          NAME(attend)};

#endif
