/* Root-mean-square normalisation as an op of its own; the arithmetic is in rms.c. */
#define PP_THIS_FILE "executor/layers/rms_norm.c"
#ifndef PP_REAL_PASS
enum { SCALE, OUTPUT, NORMAL, RSTD };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    rms_forward(rows, dim, pp_call_input(call), t[SCALE], t[NORMAL], t[RSTD], t[OUTPUT]);
}

static void NAME(input)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    real *dx = pp_call_input_gradient(call);
    if (!dx) return;
    rms_input(pp_call_rows(call), call->layer->dim, call->output_gradient, t[SCALE], t[NORMAL],
              t[RSTD], NULL, dx, pp_call_accumulates(call));
}

static void NAME(weight)(const pp_layer_call *call) {
    rms_weight(pp_call_rows(call), call->layer->dim, call->output_gradient, call->tensors[NORMAL],
               call->gradients[SCALE]);
}

const pp_layer_ops NAME(pp_rms_norm) = {PP_OP_RMS_NORM, initialise_parameters, NAME(forward),
                                        NAME(input), NAME(weight), NULL};

#endif
