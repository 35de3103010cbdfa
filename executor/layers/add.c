/* Sum of all inputs, from the first to the last; the gradient goes to each of them unchanged. */
#define PP_THIS_FILE "executor/layers/add.c"
#ifndef PP_REAL_PASS
enum { OUTPUT };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    const int64_t count = pp_call_rows(call) * call->layer->dim;
    copy_or_add(count, pp_call_input(call), call->tensors[OUTPUT], false);
    for (int i = 1; i < call->input_count; i++)
        copy_or_add(count, call->inputs[i], call->tensors[OUTPUT], true);
}

static void NAME(input)(const pp_layer_call *call) {
    const int64_t count = pp_call_rows(call) * call->layer->dim;
    for (int i = 0; i < call->input_count; i++)
        if (call->input_gradients[i])
            copy_or_add(count, call->output_gradient, call->input_gradients[i],
                        call->accumulate && call->accumulate[i]);
}

const pp_layer_ops NAME(pp_add) = {
    PP_OP_ADD, initialise_parameters, NAME(forward), NAME(input), NULL, NULL};

#endif
