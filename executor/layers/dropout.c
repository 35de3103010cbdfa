/* Inverted dropout. The mask is drawn again in I from its counters, so nothing is kept. */
#define PP_THIS_FILE "executor/layers/dropout.c"
#ifndef PP_REAL_PASS
enum { OUTPUT };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    const int64_t dim = call->layer->dim;
    if (pp_call_drops(call))
        drop(call, 0, dim, pp_call_input(call), call->tensors[OUTPUT]);
    else
        copy_or_add(pp_call_rows(call) * dim, pp_call_input(call), call->tensors[OUTPUT], false);
}

static void NAME(input)(const pp_layer_call *call) {
    const int64_t dim = call->layer->dim;
    real *dx = pp_call_input_gradient(call);
    if (!dx) return;
    bool add = pp_call_accumulates(call);
    if (!pp_call_drops(call))
        copy_or_add(pp_call_rows(call) * dim, call->output_gradient, dx, add);
    else if (add)
        drop_add(call, 0, dim, call->output_gradient, dx);
    else
        drop(call, 0, dim, call->output_gradient, dx);
}

const pp_layer_ops NAME(pp_dropout) = {
    PP_OP_DROPOUT, initialise_parameters, NAME(forward), NAME(input), NULL, NULL};

#endif
