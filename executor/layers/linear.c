/* Linear layer, y = x A^T + b, as an op of its own. */
#define PP_THIS_FILE "executor/layers/linear.c"
#ifndef PP_REAL_PASS
enum { WEIGHT, BIAS, OUTPUT };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    linear_forward(pp_call_rows(call), call->layer->dim, pp_features_out(call->layer),
                   pp_call_input(call), call->tensors[WEIGHT], call->tensors[BIAS],
                   call->tensors[OUTPUT]);
}

static void NAME(input)(const pp_layer_call *call) {
    real *dx = pp_call_input_gradient(call);
    if (!dx) return;
    linear_input(pp_call_rows(call), call->layer->dim, pp_features_out(call->layer),
                 call->output_gradient, call->tensors[WEIGHT], dx, pp_call_accumulates(call));
}

static void NAME(weight)(const pp_layer_call *call) {
    linear_weight(pp_call_rows(call), call->layer->dim, pp_features_out(call->layer),
                  pp_call_input(call), call->output_gradient, call->gradients[WEIGHT],
                  call->gradients[BIAS]);
}

const pp_layer_ops NAME(pp_linear) = {PP_OP_LINEAR, initialise_parameters, NAME(forward),
                                      NAME(input),  NAME(weight),          NULL};

#endif
