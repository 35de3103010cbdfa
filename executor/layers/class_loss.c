/* The arithmetic of softmax cross-entropy over rows that must not change: loss = Σ (log Σ exp x -
 * x[target]).
 *
 * F keeps log Σ exp of each row (in the input's own units); I makes the softmax again from the
 * input, e^(x - that), and takes one off at the target. */
#define PP_THIS_FILE "executor/layers/class_loss.c"
#ifndef PP_REAL_PASS
#include <math.h>
#endif
#include "executor/layers/real.h"

#ifdef real

/* Σ e^(x - max) of a row that must not change. */
PP_VECTOR static real NAME(exp_sum)(int64_t count, real max, const real *x) {
    real lane[PP_LANES] = {0};
    int64_t i = 0;
    for (; i + PP_LANES <= count; i += PP_LANES)
        for (int l = 0; l < PP_LANES; l++) lane[l] += real_exp(x[i + l] - max);
    for (int l = 0; i + l < count; l++) lane[l] += real_exp(x[i + l] - max);
    return fold_lanes(lane);
}

void class_loss_forward(const pp_layer_call *call, const real *x, real *row_log_sum) {
    const int64_t classes = call->layer->dim, rows = pp_call_rows(call);
    double loss = 0;
    for (int64_t r = 0; r < rows; r++, x += classes) {
        if (call->targets[r] < 0) continue;
        real max = row_max(classes, x);
        double log_sum = (double)max + log((double)NAME(exp_sum)(classes, max, x));
        row_log_sum[r] = (real)log_sum;
        loss += log_sum - (double)x[call->targets[r]];
    }
    *call->loss = loss;
}

PP_VECTOR static void NAME(softmax_gradient)(int64_t count, const real *restrict x, real log_sum,
                                             real scale, real *restrict dx) {
    for (int64_t i = 0; i < count; i++) dx[i] += scale * real_exp(x[i] - log_sum);
}

void class_loss_input(const pp_layer_call *call, const real *x, const real *row_log_sum, real *dx,
                      bool accumulate) {
    const int64_t classes = call->layer->dim, rows = pp_call_rows(call);
    real scale = (real)call->gradient_scale;
    if (!accumulate) memset(dx, 0, (size_t)(rows * classes) * sizeof *dx);
    for (int64_t r = 0; r < rows; r++, x += classes, dx += classes) {
        if (call->targets[r] < 0) continue;
        NAME(softmax_gradient)(classes, x, row_log_sum[r], scale, dx);
        dx[call->targets[r]] -= scale;
    }
}

#endif
