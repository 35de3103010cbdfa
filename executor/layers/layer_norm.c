/* Layer normalisation as an op of its own; the arithmetic is in norm.c. */
#define PP_THIS_FILE "executor/layers/layer_norm.c"
#ifndef PP_REAL_PASS
enum { SCALE, SHIFT, OUTPUT, NORMAL, RSTD };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    norm_forward(rows, dim, pp_call_input(call), t[SCALE], t[SHIFT], t[NORMAL], t[RSTD], t[OUTPUT]);
}

static void NAME(input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    real *dx = pp_call_input_gradient(call);
    if (!dx) return;
    norm_input(pp_call_rows(call), call->layer->dim, call->output_gradient, t[SCALE], t[NORMAL],
               t[RSTD], NULL, dx, pp_call_accumulates(call));
}

static void NAME(weight)(const pp_layer_call *call) {
    norm_weight(pp_call_rows(call), call->layer->dim, call->output_gradient, call->tensors[NORMAL],
                call->gradients[SCALE], call->gradients[SHIFT]);
}

const pp_layer_ops NAME(pp_layer_norm) = {PP_OP_LAYER_NORM, initialise_parameters, NAME(forward),
                                          NAME(input),      NAME(weight),          NULL};

#endif
