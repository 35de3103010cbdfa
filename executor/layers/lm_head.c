/* Language model head: final norm, logits = normed · token_weight^T, softmax cross-entropy. */
#define PP_THIS_FILE "executor/layers/lm_head.c"
#ifndef PP_REAL_PASS
enum {
    NORM_SCALE,
    NORM_SHIFT,
    TOKEN_WEIGHT,
    NORM_NORMAL,
    NORM_RSTD,
    ROW_SUM,
    LOGITS,
    NORM_GRADIENT,
    NORMED
};
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    norm_forward(rows, dim, pp_call_input(call), t[NORM_SCALE], t[NORM_SHIFT], t[NORM_NORMAL],
                 t[NORM_RSTD], t[NORMED]);
    logits_make(call, t[NORMED], t[TOKEN_WEIGHT], NULL, t[LOGITS]);
    logits_forward(call, t[LOGITS], t[ROW_SUM]);
}

static void NAME(input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    logits_input(call, t[LOGITS], t[ROW_SUM]);
    logits_make_input(call, t[LOGITS], t[TOKEN_WEIGHT], t[NORM_GRADIENT]);
    real *dx = pp_call_input_gradient(call);
    if (dx)
        norm_input(rows, dim, t[NORM_GRADIENT], t[NORM_SCALE], t[NORM_NORMAL], t[NORM_RSTD], NULL,
                   dx, pp_call_accumulates(call));
}

static void NAME(weight)(const pp_layer_call *call) {
    void *const *t = call->tensors, *const *g = call->gradients;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    norm_apply(rows, dim, t[NORM_NORMAL], t[NORM_SCALE], t[NORM_SHIFT], t[NORMED]);
    logits_make_weight(call, t[NORMED], t[LOGITS], g[TOKEN_WEIGHT], NULL);
    norm_weight(rows, dim, t[NORM_GRADIENT], t[NORM_NORMAL], g[NORM_SCALE], g[NORM_SHIFT]);
}

const pp_layer_ops NAME(pp_lm_head) = {PP_OP_LM_HEAD, initialise_parameters, NAME(forward),
                                       NAME(input),   NAME(weight),          NULL};

#endif
