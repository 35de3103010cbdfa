/* GELU as an op of its own; the arithmetic is in activate.c. */
#define PP_THIS_FILE "executor/layers/gelu.c"
#ifndef PP_REAL_PASS
enum { OUTPUT };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    gelu_forward(pp_call_rows(call) * call->layer->dim, pp_call_input(call), call->tensors[OUTPUT]);
}

static void NAME(input)(const pp_layer_call *call) {
    real *dx = pp_call_input_gradient(call);
    if (!dx) return;
    gelu_input(pp_call_rows(call) * call->layer->dim, pp_call_input(call), call->output_gradient,
               dx, pp_call_accumulates(call));
}

const pp_layer_ops NAME(pp_gelu) = {
    PP_OP_GELU, initialise_parameters, NAME(forward), NAME(input), NULL, NULL};

#endif
