/* Language model head: final norm, logits = normed · token_weight^T, softmax cross-entropy.
 *
 * The logits are the largest tensor of a model, so one buffer serves three lives: F leaves
 * e^(logit - row maximum) in it and the row's sum beside it, I turns it into the gradient of the
 * logits in place (so I runs once for each F), W multiplies with that. */
#define PP_THIS_FILE "executor/layers/lm_head.c"
#ifndef PP_REAL_PASS
#include <math.h>

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

/* Adds -log softmax[target] of each row to the loss; rows become exponentials. */
static double NAME(take_loss)(const pp_layer_call *call, int64_t rows) {
    const int64_t vocabulary = call->layer->vocabulary;
    real *row = call->tensors[LOGITS], *sum = call->tensors[ROW_SUM];
    double loss = 0;
    for (int64_t r = 0; r < rows; r++, row += vocabulary) {
        if (call->targets[r] < 0) continue;
        real max = row_max(vocabulary, row);
        double target = (double)(row[call->targets[r]] - max);
        sum[r] = exp_row(vocabulary, max, row);
        loss += log((double)sum[r]) - target;
    }
    return loss;
}

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    norm_forward(rows, dim, pp_call_input(call), t[NORM_NORMAL], t[NORM_RSTD]);
    norm_apply(rows, dim, t[NORM_NORMAL], t[NORM_SCALE], t[NORM_SHIFT], t[NORMED]);
    linear_forward(rows, dim, call->layer->vocabulary, t[NORMED], t[TOKEN_WEIGHT], NULL, t[LOGITS]);
    *call->loss = NAME(take_loss)(call, rows);
}

/* Gradient of the logits, in place of the exponentials. */
static void NAME(turn_logits)(const pp_layer_call *call, int64_t rows) {
    const int64_t vocabulary = call->layer->vocabulary;
    real *row = call->tensors[LOGITS], scale = (real)call->gradient_scale;
    const real *sum = call->tensors[ROW_SUM];
    for (int64_t r = 0; r < rows; r++, row += vocabulary) {
        if (call->targets[r] < 0) {
            memset(row, 0, (size_t)vocabulary * sizeof *row);
            continue;
        }
        scale_row(vocabulary, scale / sum[r], row);
        row[call->targets[r]] -= scale;
    }
}

static void NAME(input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    NAME(turn_logits)(call, rows);
    linear_input(rows, dim, call->layer->vocabulary, t[LOGITS], t[TOKEN_WEIGHT], t[NORM_GRADIENT],
                 false);
    real *dx = pp_call_input_gradient(call);
    if (dx)
        norm_input(rows, dim, t[NORM_GRADIENT], t[NORM_SCALE], t[NORM_NORMAL], t[NORM_RSTD], NULL,
                   dx, pp_call_accumulates(call));
}

static void NAME(weight)(const pp_layer_call *call) {
    void *const *t = call->tensors, *const *g = call->gradients;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    norm_apply(rows, dim, t[NORM_NORMAL], t[NORM_SCALE], t[NORM_SHIFT], t[NORMED]);
    linear_weight(rows, dim, call->layer->vocabulary, t[NORMED], t[LOGITS], g[TOKEN_WEIGHT], NULL);
    norm_weight(rows, dim, t[NORM_GRADIENT], t[NORM_NORMAL], g[NORM_SCALE], g[NORM_SHIFT]);
}

const pp_layer_ops NAME(pp_lm_head) = {PP_OP_LM_HEAD, initialise_parameters, NAME(forward),
                                       NAME(input), NAME(weight)};

#endif
