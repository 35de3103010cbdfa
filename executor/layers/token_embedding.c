/* Embedding without positions: row = token_weight[token]. The blocks behind it find the positions
 * out for themselves (rotary.c). */
#define PP_THIS_FILE "executor/layers/token_embedding.c"
#ifndef PP_REAL_PASS
enum { TOKEN_WEIGHT, OUTPUT };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    gather_tokens(pp_call_rows(call), call->layer->dim, call->tokens, call->tensors[TOKEN_WEIGHT],
                  call->tensors[OUTPUT]);
}

static void NAME(weight)(const pp_layer_call *call) {
    scatter_tokens(pp_call_rows(call), call->layer->dim, call->tokens, call->output_gradient,
                   call->gradients[TOKEN_WEIGHT]);
}

const pp_layer_ops NAME(pp_token_embedding) = {PP_OP_TOKEN_EMBEDDING, initialise_parameters,
                                               NAME(forward), NULL, NAME(weight), NULL};

#endif
