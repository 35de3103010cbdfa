/* ReLU: y = max(x, 0). The gradient passes where y > 0, so only the output is kept. */
#define PP_THIS_FILE "executor/layers/relu.c"
#ifndef PP_REAL_PASS
enum { OUTPUT };
#endif
#include "executor/layers/real.h"

#ifdef real

PP_VECTOR static void NAME(relu_rows)(int64_t count, const real *restrict x, real *restrict y) {
    for (int64_t i = 0; i < count; i++) y[i] = x[i] > 0 ? x[i] : 0;
}

PP_VECTOR static void NAME(relu_rows_input)(int64_t count, const real *restrict y,
                                            const real *restrict dy, real *restrict dx,
                                            bool accumulate) {
    if (accumulate)
        for (int64_t i = 0; i < count; i++) dx[i] += y[i] > 0 ? dy[i] : 0;
    else
        for (int64_t i = 0; i < count; i++) dx[i] = y[i] > 0 ? dy[i] : 0;
}

static void NAME(forward)(const pp_layer_call *call) {
    int64_t count = pp_call_rows(call) * call->layer->dim;
    NAME(relu_rows)(count, pp_call_input(call), call->tensors[OUTPUT]);
}

static void NAME(input)(const pp_layer_call *call) {
    int64_t count = pp_call_rows(call) * call->layer->dim;
    real *dx = pp_call_input_gradient(call);
    if (!dx) return;
    const real *y = call->tensors[OUTPUT], *dy = call->output_gradient;
    NAME(relu_rows_input)(count, y, dy, dx, pp_call_accumulates(call));
}

const pp_layer_ops NAME(pp_relu) = {PP_OP_RELU, initialise_parameters, NAME(forward), NAME(input),
                                    NULL};

#endif
