/* Transformer block as in Llama (Touvron et al. 2023):
 *
 *     middle = x      + attention_weight · attention(rotated(qkv_weight · rms1(x) [+ qkv_bias]))
 *     y      = middle + down_weight · (silu(gate_weight · n) · up_weight · n),   n = rms2(middle)
 *
 * kv_heads heads of keys and values, each shared by heads / kv_heads of queries. `middle` lives in
 * the output buffer until y replaces it. The residual stream goes through unchanged, so its
 * gradient is that of both branches: W reads it where I left it (RESIDUAL_GRADIENT) or where it
 * came in. */
#define PP_THIS_FILE "executor/layers/llama_block.c"
#ifndef PP_REAL_PASS
enum {
    NORM1_SCALE,
    QKV_WEIGHT,
    ATTENTION_WEIGHT,
    NORM2_SCALE,
    GATE_WEIGHT,
    UP_WEIGHT,
    DOWN_WEIGHT,
    OUTPUT,
    NORM1_NORMAL,
    NORM1_RSTD,
    NORM1_OUTPUT,
    QKV,
    PROBABILITIES,
    ATTENDED,
    NORM2_NORMAL,
    NORM2_RSTD,
    NORM2_OUTPUT,
    GATE,
    UP,
    ACTIVATED,
    NORM1_GRADIENT,
    QKV_GRADIENT,
    RESIDUAL_GRADIENT,
    NORM2_GRADIENT,
    GATE_GRADIENT,
    UP_GRADIENT,
    ATTENDED_GRADIENT,
    SCORE_GRADIENT,
    QKV_BIAS
};
#endif
#include "executor/layers/real.h"

#ifdef real

typedef struct NAME(widths) {
    int64_t rows, dim, queries, qkv, hidden;
} NAME(widths);

static NAME(widths) NAME(widths_of)(const pp_layer_call *call) {
    const pp_layer *layer = call->layer;
    int64_t size = pp_layer_head_dim(layer);
    return (NAME(widths)){.rows = pp_call_rows(call),
                          .dim = layer->dim,
                          .queries = layer->heads * size,
                          .qkv = (layer->heads + 2 * pp_layer_kv_heads(layer)) * size,
                          .hidden = pp_layer_hidden(layer)};
}

static attend_call NAME(attend_of)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    return (attend_call){.samples = call->samples,
                         .sequence = pp_call_rows(call) / call->samples,
                         .heads = call->layer->heads,
                         .kv_heads = pp_layer_kv_heads(call->layer),
                         .size = pp_layer_head_dim(call->layer),
                         .causal = true,
                         .qkv = t[QKV],
                         .probabilities = t[PROBABILITIES],
                         .attended = t[ATTENDED],
                         .attended_gradient = t[ATTENDED_GRADIENT],
                         .qkv_gradient = t[QKV_GRADIENT],
                         .score_gradient = t[SCORE_GRADIENT]};
}

/* Queries and keys of all rows, or their gradients back. */
static void NAME(turn)(const pp_layer_call *call, bool back, real *qkv) {
    const pp_layer *layer = call->layer;
    rotate(call->samples, pp_call_rows(call) / call->samples,
           layer->heads + pp_layer_kv_heads(layer), pp_layer_head_dim(layer),
           NAME(widths_of)(call).qkv, pp_layer_rotary_base(layer), back, qkv);
}

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const NAME(widths) w = NAME(widths_of)(call);
    const real *x = pp_call_input(call);
    real *y = t[OUTPUT];
    attend_call attend = NAME(attend_of)(call);

    rms_forward(w.rows, w.dim, x, t[NORM1_SCALE], t[NORM1_NORMAL], t[NORM1_RSTD], t[NORM1_OUTPUT]);
    linear_forward(w.rows, w.dim, w.qkv, t[NORM1_OUTPUT], t[QKV_WEIGHT],
                   call->layer->qkv_bias ? t[QKV_BIAS] : NULL, t[QKV]);
    NAME(turn)(call, false, t[QKV]);
    attend_forward(&attend);
    copy_or_add(w.rows * w.dim, x, y, false);
    linear_add(w.rows, w.queries, w.dim, t[ATTENDED], t[ATTENTION_WEIGHT], y);

    rms_forward(w.rows, w.dim, y, t[NORM2_SCALE], t[NORM2_NORMAL], t[NORM2_RSTD], t[NORM2_OUTPUT]);
    linear_forward(w.rows, w.dim, w.hidden, t[NORM2_OUTPUT], t[GATE_WEIGHT], NULL, t[GATE]);
    linear_forward(w.rows, w.dim, w.hidden, t[NORM2_OUTPUT], t[UP_WEIGHT], NULL, t[UP]);
    swiglu_forward(w.rows * w.hidden, t[GATE], t[UP], t[ACTIVATED]);
    linear_add(w.rows, w.hidden, w.dim, t[ACTIVATED], t[DOWN_WEIGHT], y);
}

/* From the block's output to RESIDUAL_GRADIENT, the gradient of `middle`. */
static void NAME(mlp_input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const NAME(widths) w = NAME(widths_of)(call);
    linear_input(w.rows, w.hidden, w.dim, call->output_gradient, t[DOWN_WEIGHT], t[UP_GRADIENT],
                 false);
    swiglu_input(w.rows * w.hidden, t[GATE], t[UP], t[UP_GRADIENT], t[GATE_GRADIENT],
                 t[UP_GRADIENT]);
    linear_input(w.rows, w.dim, w.hidden, t[GATE_GRADIENT], t[GATE_WEIGHT], t[NORM2_GRADIENT],
                 false);
    linear_input(w.rows, w.dim, w.hidden, t[UP_GRADIENT], t[UP_WEIGHT], t[NORM2_GRADIENT], true);
    rms_input(w.rows, w.dim, t[NORM2_GRADIENT], t[NORM2_SCALE], t[NORM2_NORMAL], t[NORM2_RSTD],
              call->output_gradient, t[RESIDUAL_GRADIENT], false);
}

/* From RESIDUAL_GRADIENT to the gradient of the block's input. */
static void NAME(attention_input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const NAME(widths) w = NAME(widths_of)(call);
    attend_call attend = NAME(attend_of)(call);
    linear_input(w.rows, w.queries, w.dim, t[RESIDUAL_GRADIENT], t[ATTENTION_WEIGHT],
                 t[ATTENDED_GRADIENT], false);
    attend_input(&attend);
    NAME(turn)(call, true, t[QKV_GRADIENT]);
    linear_input(w.rows, w.dim, w.qkv, t[QKV_GRADIENT], t[QKV_WEIGHT], t[NORM1_GRADIENT], false);
    real *dx = pp_call_input_gradient(call);
    if (dx)
        rms_input(w.rows, w.dim, t[NORM1_GRADIENT], t[NORM1_SCALE], t[NORM1_NORMAL], t[NORM1_RSTD],
                  t[RESIDUAL_GRADIENT], dx, pp_call_accumulates(call));
}

static void NAME(attend)(const pp_layer_call *call) {
    attend_call attend = NAME(attend_of)(call);
    attend_again(&attend);
}

static void NAME(input)(const pp_layer_call *call) {
    NAME(mlp_input)(call);
    NAME(attention_input)(call);
}

static void NAME(weight)(const pp_layer_call *call) {
    void *const *t = call->tensors, *const *g = call->gradients;
    const NAME(widths) w = NAME(widths_of)(call);
    linear_weight(w.rows, w.hidden, w.dim, t[ACTIVATED], call->output_gradient, g[DOWN_WEIGHT],
                  NULL);
    linear_weight(w.rows, w.dim, w.hidden, t[NORM2_OUTPUT], t[UP_GRADIENT], g[UP_WEIGHT], NULL);
    linear_weight(w.rows, w.dim, w.hidden, t[NORM2_OUTPUT], t[GATE_GRADIENT], g[GATE_WEIGHT], NULL);
    rms_weight(w.rows, w.dim, t[NORM2_GRADIENT], t[NORM2_NORMAL], g[NORM2_SCALE]);
    linear_weight(w.rows, w.queries, w.dim, t[ATTENDED], t[RESIDUAL_GRADIENT], g[ATTENTION_WEIGHT],
                  NULL);
    linear_weight(w.rows, w.dim, w.qkv, t[NORM1_OUTPUT], t[QKV_GRADIENT], g[QKV_WEIGHT],
                  call->layer->qkv_bias ? g[QKV_BIAS] : NULL);
    rms_weight(w.rows, w.dim, t[NORM1_GRADIENT], t[NORM1_NORMAL], g[NORM1_SCALE]);
}

const pp_layer_ops NAME(pp_llama_block) = {PP_OP_LLAMA_BLOCK, initialise_parameters, NAME(forward),
                                           NAME(input), NAME(weight), NAME(attend)};

#endif
