/* Embedding: row = token_weight[token] + position_weight[position], with dropout where asked.
 *
 * There is no input gradient; W adds the gradient of each row to its token and its position. */
#define PP_THIS_FILE "executor/layers/embedding.c"
#ifndef PP_REAL_PASS
enum { TOKEN_WEIGHT, POSITION_WEIGHT, OUTPUT, MASKED_GRADIENT };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    gather_tokens(rows, dim, call->tokens, t[TOKEN_WEIGHT], t[OUTPUT]);
    add_positions(rows, dim, rows / call->samples, t[POSITION_WEIGHT], t[OUTPUT]);
    if (pp_call_drops(call)) drop(call, 0, dim, t[OUTPUT], t[OUTPUT]);
}

static void NAME(weight)(const pp_layer_call *call) {
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const real *dy = call->output_gradient;
    if (pp_call_drops(call)) {
        drop(call, 0, dim, dy, call->tensors[MASKED_GRADIENT]);
        dy = call->tensors[MASKED_GRADIENT];
    }
    scatter_tokens(rows, dim, call->tokens, dy, call->gradients[TOKEN_WEIGHT]);
    scatter_positions(rows, dim, rows / call->samples, dy, call->gradients[POSITION_WEIGHT]);
}

const pp_layer_ops NAME(pp_embedding) = {
    PP_OP_EMBEDDING, initialise_parameters, NAME(forward), NULL, NAME(weight), NULL};

#endif
