/* ReLU as an op of its own; the arithmetic is in activate.c. */
#define PP_THIS_FILE "executor/layers/relu.c"
#ifndef PP_REAL_PASS
enum { OUTPUT };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    int64_t count = pp_call_rows(call) * call->layer->dim;
    relu_forward(count, pp_call_input(call), call->tensors[OUTPUT]);
}

static void NAME(input)(const pp_layer_call *call) {
    int64_t count = pp_call_rows(call) * call->layer->dim;
    real *dx = pp_call_input_gradient(call);
    if (!dx) return;
    const real *y = call->tensors[OUTPUT], *dy = call->output_gradient;
    relu_input(count, y, dy, dx, pp_call_accumulates(call));
}

const pp_layer_ops NAME(pp_relu) = {
    PP_OP_RELU, initialise_parameters, NAME(forward), NAME(input), NULL, NULL};

#endif
