/* BERT's head for masked tokens (Devlin et al. 2019, section 3.1 and the released code): logits =
 * token_weight · norm(gelu(transform_weight · x)) + token_bias, softmax cross-entropy of the
 * positions that have a target. All positions get logits, as in that code without its gathering. */
#define PP_THIS_FILE "executor/layers/mlm_head.c"
#ifndef PP_REAL_PASS
enum {
    TRANSFORM_WEIGHT,
    TRANSFORM_BIAS,
    NORM_SCALE,
    NORM_SHIFT,
    TOKEN_WEIGHT,
    TOKEN_BIAS,
    TRANSFORMED,
    NORM_NORMAL,
    NORM_RSTD,
    ROW_SUM,
    LOGITS,
    NORM_GRADIENT,
    TRANSFORM_GRADIENT,
    ACTIVATED,
    NORMED
};
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    linear_gelu(rows, dim, dim, pp_call_input(call), t[TRANSFORM_WEIGHT], t[TRANSFORM_BIAS],
                t[TRANSFORMED], t[ACTIVATED]);
    norm_forward(rows, dim, t[ACTIVATED], t[NORM_SCALE], t[NORM_SHIFT], t[NORM_NORMAL],
                 t[NORM_RSTD], t[NORMED]);
    logits_make(call, t[NORMED], t[TOKEN_WEIGHT], t[TOKEN_BIAS], t[LOGITS]);
    logits_forward(call, t[LOGITS], t[ROW_SUM]);
}

static void NAME(input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    logits_input(call, t[LOGITS], t[ROW_SUM]);
    logits_make_input(call, t[LOGITS], t[TOKEN_WEIGHT], t[NORM_GRADIENT]);
    norm_input(rows, dim, t[NORM_GRADIENT], t[NORM_SCALE], t[NORM_NORMAL], t[NORM_RSTD], NULL,
               t[TRANSFORM_GRADIENT], false);
    gelu_input(rows * dim, t[TRANSFORMED], t[TRANSFORM_GRADIENT], t[TRANSFORM_GRADIENT], false);
    real *dx = pp_call_input_gradient(call);
    if (dx)
        linear_input(rows, dim, dim, t[TRANSFORM_GRADIENT], t[TRANSFORM_WEIGHT], dx,
                     pp_call_accumulates(call));
}

static void NAME(weight)(const pp_layer_call *call) {
    void *const *t = call->tensors, *const *g = call->gradients;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    norm_apply(rows, dim, t[NORM_NORMAL], t[NORM_SCALE], t[NORM_SHIFT], t[NORMED]);
    logits_make_weight(call, t[NORMED], t[LOGITS], g[TOKEN_WEIGHT], g[TOKEN_BIAS]);
    norm_weight(rows, dim, t[NORM_GRADIENT], t[NORM_NORMAL], g[NORM_SCALE], g[NORM_SHIFT]);
    linear_weight(rows, dim, dim, pp_call_input(call), t[TRANSFORM_GRADIENT], g[TRANSFORM_WEIGHT],
                  g[TRANSFORM_BIAS]);
}

const pp_layer_ops NAME(pp_mlm_head) = {PP_OP_MLM_HEAD, initialise_parameters, NAME(forward),
                                        NAME(input),    NAME(weight),          NULL};

#endif
