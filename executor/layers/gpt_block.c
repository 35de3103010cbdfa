/* Pre-norm transformer block as in GPT-2:
 *
 *     middle = x      + dropout(attention_weight · attention(qkv_weight · norm1(x)))
 *     y      = middle + dropout(contract_weight · gelu(expand_weight · norm2(middle)))
 *
 * with biases everywhere and `hidden` features inside; dropout also falls on the probabilities of
 * the attention. `middle` lives in the output buffer until y replaces it:
 * the norms keep their normalised rows, so no backward pass asks for x or middle. I goes down
 * through the block and leaves the gradient at each norm's and linear's output in STASH; W needs
 * those and what F saved, and multiplies. */
#define PP_THIS_FILE "executor/layers/gpt_block.c"
#ifndef PP_REAL_PASS
enum {
    NORM1_SCALE,
    NORM1_SHIFT,
    QKV_WEIGHT,
    QKV_BIAS,
    ATTENTION_WEIGHT,
    ATTENTION_BIAS,
    NORM2_SCALE,
    NORM2_SHIFT,
    EXPAND_WEIGHT,
    EXPAND_BIAS,
    CONTRACT_WEIGHT,
    CONTRACT_BIAS,
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
    EXPANDED,
    ACTIVATED,
    NORM1_GRADIENT,
    QKV_GRADIENT,
    ATTENTION_GRADIENT,
    NORM2_GRADIENT,
    EXPAND_GRADIENT,
    CONTRACT_GRADIENT,
    BRANCH,
    RESIDUAL_GRADIENT,
    SCORE_GRADIENT,
    DROPPED,
    DROPPED_MASK,
    ATTENTION_MASK,
    CONTRACT_MASK
};

/* Dropout sites. */
enum { AFTER_ATTENTION, AFTER_MLP, PROBABILITIES_SITE };
#endif
#include "executor/layers/real.h"

#ifdef real

static attend_call NAME(attend_of)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    attend_call attend = {.samples = call->samples,
                          .sequence = pp_call_rows(call) / call->samples,
                          .heads = call->layer->heads,
                          .kv_heads = call->layer->heads,
                          .size = pp_layer_head_dim(call->layer),
                          .causal = true,
                          .qkv = t[QKV],
                          .probabilities = t[PROBABILITIES],
                          .attended = t[ATTENDED],
                          .attended_gradient = t[BRANCH],
                          .qkv_gradient = t[QKV_GRADIENT],
                          .score_gradient = t[SCORE_GRADIENT]};
    if (!pp_call_drops(call)) return attend;
    attend.drop = call;
    attend.site = PROBABILITIES_SITE;
    attend.dropped = t[DROPPED];
    attend.mask = t[DROPPED_MASK];
    return attend;
}

/* The end of a branch: OUTPUT = stream + dropout(linear layer of x); `stream` may be OUTPUT. */
static void NAME(join)(const pp_layer_call *call, int site, int mask, int64_t in, const real *x,
                       int weight, int bias, const real *stream) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    if (!pp_call_drops(call)) {
        linear_join(rows, in, dim, x, t[weight], t[bias], stream, t[OUTPUT]);
        return;
    }
    linear_forward(rows, in, dim, x, t[weight], t[bias], t[BRANCH]);
    drop_rows(call, (uint64_t)site, t[BRANCH], t[mask]);
    if (stream != t[OUTPUT]) copy_or_add(rows * dim, stream, t[OUTPUT], false);
    copy_or_add(rows * dim, t[BRANCH], t[OUTPUT], true);
}

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const int64_t hidden = pp_layer_hidden(call->layer);
    const real *x = pp_call_input(call);
    attend_call attend = NAME(attend_of)(call);

    norm_forward(rows, dim, x, t[NORM1_SCALE], t[NORM1_SHIFT], t[NORM1_NORMAL], t[NORM1_RSTD],
                 t[NORM1_OUTPUT]);
    linear_forward(rows, dim, 3 * dim, t[NORM1_OUTPUT], t[QKV_WEIGHT], t[QKV_BIAS], t[QKV]);
    attend_forward(&attend);
    NAME(join)
    (call, AFTER_ATTENTION, ATTENTION_MASK, dim, t[ATTENDED], ATTENTION_WEIGHT, ATTENTION_BIAS, x);

    norm_forward(rows, dim, t[OUTPUT], t[NORM2_SCALE], t[NORM2_SHIFT], t[NORM2_NORMAL],
                 t[NORM2_RSTD], t[NORM2_OUTPUT]);
    linear_gelu(rows, dim, hidden, t[NORM2_OUTPUT], t[EXPAND_WEIGHT], t[EXPAND_BIAS], t[EXPANDED],
                t[ACTIVATED]);
    NAME(join)
    (call, AFTER_MLP, CONTRACT_MASK, hidden, t[ACTIVATED], CONTRACT_WEIGHT, CONTRACT_BIAS,
     t[OUTPUT]);
}

/* The gradient that a branch receives: that of the residual stream, dropped. */
static void NAME(part)(const pp_layer_call *call, int mask, int64_t count, const real *stream,
                       real *branch) {
    if (pp_call_drops(call))
        drop_masked(call, count, call->tensors[mask], stream, branch);
    else
        copy_or_add(count, stream, branch, false);
}

/* From the block's output to RESIDUAL_GRADIENT, the gradient of `middle`. */
static void NAME(mlp_input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const int64_t hidden = pp_layer_hidden(call->layer);
    NAME(part)(call, CONTRACT_MASK, rows * dim, call->output_gradient, t[CONTRACT_GRADIENT]);
    linear_gelu_input(rows, hidden, dim, t[CONTRACT_GRADIENT], t[CONTRACT_WEIGHT], t[EXPANDED],
                      t[EXPAND_GRADIENT]);
    linear_input(rows, dim, hidden, t[EXPAND_GRADIENT], t[EXPAND_WEIGHT], t[NORM2_GRADIENT], false);
    norm_input(rows, dim, t[NORM2_GRADIENT], t[NORM2_SCALE], t[NORM2_NORMAL], t[NORM2_RSTD],
               call->output_gradient, t[RESIDUAL_GRADIENT], false);
}

/* From RESIDUAL_GRADIENT to the gradient of the block's input. */
static void NAME(attention_input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    attend_call attend = NAME(attend_of)(call);
    NAME(part)(call, ATTENTION_MASK, rows * dim, t[RESIDUAL_GRADIENT], t[ATTENTION_GRADIENT]);
    linear_input(rows, dim, dim, t[ATTENTION_GRADIENT], t[ATTENTION_WEIGHT], t[BRANCH], false);
    attend_input(&attend);
    linear_input(rows, dim, 3 * dim, t[QKV_GRADIENT], t[QKV_WEIGHT], t[NORM1_GRADIENT], false);
    real *dx = pp_call_input_gradient(call);
    if (dx)
        norm_input(rows, dim, t[NORM1_GRADIENT], t[NORM1_SCALE], t[NORM1_NORMAL], t[NORM1_RSTD],
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
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const int64_t hidden = pp_layer_hidden(call->layer);
    linear_weight(rows, hidden, dim, t[ACTIVATED], t[CONTRACT_GRADIENT], g[CONTRACT_WEIGHT],
                  g[CONTRACT_BIAS]);
    linear_weight(rows, dim, hidden, t[NORM2_OUTPUT], t[EXPAND_GRADIENT], g[EXPAND_WEIGHT],
                  g[EXPAND_BIAS]);
    norm_weight(rows, dim, t[NORM2_GRADIENT], t[NORM2_NORMAL], g[NORM2_SCALE], g[NORM2_SHIFT]);
    linear_weight(rows, dim, dim, t[ATTENDED], t[ATTENTION_GRADIENT], g[ATTENTION_WEIGHT],
                  g[ATTENTION_BIAS]);
    linear_weight(rows, dim, 3 * dim, t[NORM1_OUTPUT], t[QKV_GRADIENT], g[QKV_WEIGHT], g[QKV_BIAS]);
    norm_weight(rows, dim, t[NORM1_GRADIENT], t[NORM1_NORMAL], g[NORM1_SCALE], g[NORM1_SHIFT]);
}

const pp_layer_ops NAME(pp_gpt_block) = {PP_OP_GPT_BLOCK, initialise_parameters, NAME(forward),
                                         NAME(input),     NAME(weight),          NAME(attend)};

#endif
