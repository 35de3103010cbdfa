/* Softmax cross-entropy of class labels as an op of its own; the arithmetic is in class_loss.c. */
#define PP_THIS_FILE "executor/layers/cross_entropy.c"
#ifndef PP_REAL_PASS
enum { ROW_LOG_SUM };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    class_loss_forward(call, pp_call_input(call), call->tensors[ROW_LOG_SUM]);
}

static void NAME(input)(const pp_layer_call *call) {
    real *dx = pp_call_input_gradient(call);
    if (!dx) return;
    class_loss_input(call, pp_call_input(call), call->tensors[ROW_LOG_SUM], dx,
                     pp_call_accumulates(call));
}

const pp_layer_ops NAME(pp_cross_entropy) = {
    PP_OP_CROSS_ENTROPY, initialise_parameters, NAME(forward), NAME(input), NULL, NULL};

#endif
