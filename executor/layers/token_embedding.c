/* Embedding without positions: row = token_weight[token]. The blocks behind it find the positions
 * out for themselves (rotary.c). */
#define PP_THIS_FILE "executor/layers/token_embedding.c"
#ifndef PP_REAL_PASS
enum { TOKEN_WEIGHT, OUTPUT };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const real *weight = call->tensors[TOKEN_WEIGHT];
    real *y = call->tensors[OUTPUT];
    for (int64_t r = 0; r < rows; r++)
        copy_or_add(dim, weight + call->tokens[r] * dim, y + r * dim, false);
}

static void NAME(weight)(const pp_layer_call *call) {
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const real *dy = call->output_gradient;
    real *gradient = call->gradients[TOKEN_WEIGHT];
    for (int64_t r = 0; r < rows; r++)
        copy_or_add(dim, dy + r * dim, gradient + call->tokens[r] * dim, true);
}

const pp_layer_ops NAME(pp_token_embedding) = {PP_OP_TOKEN_EMBEDDING, initialise_parameters,
                                               NAME(forward), NULL, NAME(weight)};

#endif
