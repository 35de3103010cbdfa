/* Embedding: row = token_weight[token] + position_weight[position], with dropout where asked.
 *
 * There is no input gradient; W adds the gradient of each row to its token and its position, row by
 * row, so the order of the sums is fixed. */
#define PP_THIS_FILE "executor/layers/embedding.c"
#ifndef PP_REAL_PASS
enum { TOKEN_WEIGHT, POSITION_WEIGHT, OUTPUT, MASKED_GRADIENT };
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const int64_t sequence = rows / call->samples;
    const real *tokens = call->tensors[TOKEN_WEIGHT], *positions = call->tensors[POSITION_WEIGHT];
    real *y = call->tensors[OUTPUT];
    for (int64_t r = 0; r < rows; r++) {
        copy_or_add(dim, tokens + call->tokens[r] * dim, y + r * dim, false);
        copy_or_add(dim, positions + r % sequence * dim, y + r * dim, true);
    }
    if (pp_call_drops(call)) drop(call, 0, dim, y, y);
}

static void NAME(weight)(const pp_layer_call *call) {
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const int64_t sequence = rows / call->samples;
    real *tokens = call->gradients[TOKEN_WEIGHT], *positions = call->gradients[POSITION_WEIGHT];
    const real *dy = call->output_gradient;
    if (pp_call_drops(call)) {
        drop(call, 0, dim, dy, call->tensors[MASKED_GRADIENT]);
        dy = call->tensors[MASKED_GRADIENT];
    }
    for (int64_t r = 0; r < rows; r++) {
        copy_or_add(dim, dy + r * dim, tokens + call->tokens[r] * dim, true);
        copy_or_add(dim, dy + r * dim, positions + r % sequence * dim, true);
    }
}

const pp_layer_ops NAME(pp_embedding) = {PP_OP_EMBEDDING, initialise_parameters, NAME(forward),
                                         NULL, NAME(weight)};

#endif
