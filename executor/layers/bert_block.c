/* Post-norm transformer block as in BERT (Devlin et al. 2019; Vaswani et al. 2017, section 3.1),
 * every position seeing every other:
 *
 *     middle = norm1(x      + dropout(attention_weight · attention(qkv_weight · x)))
 *     y      = norm2(middle + dropout(contract_weight · gelu(expand_weight · middle)))
 *
 * with biases everywhere, `hidden` features inside, and dropout on the attention's probabilities
 * too. `middle` is NORM1_OUTPUT; the sums before the norms live in BRANCH and are not kept. W reads
 * x for qkv_weight and the gradient of y for norm2. */
#define PP_THIS_FILE "executor/layers/bert_block.c"
#ifndef PP_REAL_PASS
enum {
    QKV_WEIGHT,
    QKV_BIAS,
    ATTENTION_WEIGHT,
    ATTENTION_BIAS,
    NORM1_SCALE,
    NORM1_SHIFT,
    EXPAND_WEIGHT,
    EXPAND_BIAS,
    CONTRACT_WEIGHT,
    CONTRACT_BIAS,
    NORM2_SCALE,
    NORM2_SHIFT,
    OUTPUT,
    QKV,
    PROBABILITIES,
    ATTENDED,
    NORM1_NORMAL,
    NORM1_RSTD,
    NORM1_OUTPUT,
    EXPANDED,
    ACTIVATED,
    NORM2_NORMAL,
    NORM2_RSTD,
    QKV_GRADIENT,
    ATTENTION_GRADIENT,
    NORM1_GRADIENT,
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

/* BRANCH becomes stream + dropout(BRANCH). */
static void NAME(join)(const pp_layer_call *call, int site, int mask, int64_t count,
                       const real *stream) {
    real *branch = call->tensors[BRANCH];
    if (pp_call_drops(call)) drop_rows(call, (uint64_t)site, branch, call->tensors[mask]);
    copy_or_add(count, stream, branch, true);
}

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const int64_t hidden = pp_layer_hidden(call->layer);
    const real *x = pp_call_input(call);
    attend_call attend = NAME(attend_of)(call);

    linear_forward(rows, dim, 3 * dim, x, t[QKV_WEIGHT], t[QKV_BIAS], t[QKV]);
    attend_forward(&attend);
    linear_forward(rows, dim, dim, t[ATTENDED], t[ATTENTION_WEIGHT], t[ATTENTION_BIAS], t[BRANCH]);
    NAME(join)(call, AFTER_ATTENTION, ATTENTION_MASK, rows * dim, x);
    norm_forward(rows, dim, t[BRANCH], t[NORM1_SCALE], t[NORM1_SHIFT], t[NORM1_NORMAL],
                 t[NORM1_RSTD], t[NORM1_OUTPUT]);

    linear_gelu(rows, dim, hidden, t[NORM1_OUTPUT], t[EXPAND_WEIGHT], t[EXPAND_BIAS], t[EXPANDED],
                t[ACTIVATED]);
    linear_forward(rows, hidden, dim, t[ACTIVATED], t[CONTRACT_WEIGHT], t[CONTRACT_BIAS],
                   t[BRANCH]);
    NAME(join)(call, AFTER_MLP, CONTRACT_MASK, rows * dim, t[NORM1_OUTPUT]);
    norm_forward(rows, dim, t[BRANCH], t[NORM2_SCALE], t[NORM2_SHIFT], t[NORM2_NORMAL],
                 t[NORM2_RSTD], t[OUTPUT]);
}

/* The gradient that a branch receives: that of the sum it went into, dropped. */
static void NAME(part)(const pp_layer_call *call, int mask, int64_t count, real *branch) {
    const real *sum = call->tensors[RESIDUAL_GRADIENT];
    if (pp_call_drops(call))
        drop_masked(call, count, call->tensors[mask], sum, branch);
    else
        copy_or_add(count, sum, branch, false);
}

/* From the block's output to NORM1_GRADIENT, the gradient of `middle`. */
static void NAME(mlp_input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const int64_t hidden = pp_layer_hidden(call->layer);
    norm_input(rows, dim, call->output_gradient, t[NORM2_SCALE], t[NORM2_NORMAL], t[NORM2_RSTD],
               NULL, t[RESIDUAL_GRADIENT], false);
    NAME(part)(call, CONTRACT_MASK, rows * dim, t[CONTRACT_GRADIENT]);
    linear_gelu_input(rows, hidden, dim, t[CONTRACT_GRADIENT], t[CONTRACT_WEIGHT], t[EXPANDED],
                      t[EXPAND_GRADIENT]);
    copy_or_add(rows * dim, t[RESIDUAL_GRADIENT], t[NORM1_GRADIENT], false);
    linear_input(rows, dim, hidden, t[EXPAND_GRADIENT], t[EXPAND_WEIGHT], t[NORM1_GRADIENT], true);
}

/* From NORM1_GRADIENT to the gradient of the block's input. */
static void NAME(attention_input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    attend_call attend = NAME(attend_of)(call);
    norm_input(rows, dim, t[NORM1_GRADIENT], t[NORM1_SCALE], t[NORM1_NORMAL], t[NORM1_RSTD], NULL,
               t[RESIDUAL_GRADIENT], false);
    NAME(part)(call, ATTENTION_MASK, rows * dim, t[ATTENTION_GRADIENT]);
    linear_input(rows, dim, dim, t[ATTENTION_GRADIENT], t[ATTENTION_WEIGHT], t[BRANCH], false);
    attend_input(&attend);
    real *dx = pp_call_input_gradient(call);
    if (!dx) return;
    copy_or_add(rows * dim, t[RESIDUAL_GRADIENT], dx, pp_call_accumulates(call));
    linear_input(rows, dim, 3 * dim, t[QKV_GRADIENT], t[QKV_WEIGHT], dx, true);
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
    norm_weight(rows, dim, call->output_gradient, t[NORM2_NORMAL], g[NORM2_SCALE], g[NORM2_SHIFT]);
    linear_weight(rows, hidden, dim, t[ACTIVATED], t[CONTRACT_GRADIENT], g[CONTRACT_WEIGHT],
                  g[CONTRACT_BIAS]);
    linear_weight(rows, dim, hidden, t[NORM1_OUTPUT], t[EXPAND_GRADIENT], g[EXPAND_WEIGHT],
                  g[EXPAND_BIAS]);
    norm_weight(rows, dim, t[NORM1_GRADIENT], t[NORM1_NORMAL], g[NORM1_SCALE], g[NORM1_SHIFT]);
    linear_weight(rows, dim, dim, t[ATTENDED], t[ATTENTION_GRADIENT], g[ATTENTION_WEIGHT],
                  g[ATTENTION_BIAS]);
    linear_weight(rows, dim, 3 * dim, pp_call_input(call), t[QKV_GRADIENT], g[QKV_WEIGHT],
                  g[QKV_BIAS]);
}

const pp_layer_ops NAME(pp_bert_block) = {PP_OP_BERT_BLOCK, initialise_parameters, NAME(forward),
                                          NAME(input),      NAME(weight),          NAME(attend)};

#endif
