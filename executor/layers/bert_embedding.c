/* Embedding as in BERT (Devlin et al. 2019, figure 2): token + position + segment, a layer norm and
 * dropout. Samples of a data set are one text each, so all rows are of segment 0.
 *
 * There is no input gradient; W goes back through the norm and adds the gradient of each row to its
 * token, its position and the segment. */
#define PP_THIS_FILE "executor/layers/bert_embedding.c"
#ifndef PP_REAL_PASS
enum {
    TOKEN_WEIGHT,
    POSITION_WEIGHT,
    SEGMENT_WEIGHT,
    NORM_SCALE,
    NORM_SHIFT,
    OUTPUT,
    NORM_NORMAL,
    NORM_RSTD,
    SUM,
    MASKED_GRADIENT
};
#endif
#include "executor/layers/real.h"

#ifdef real

static void NAME(forward)(const pp_layer_call *call) {
    void *const *t = call->tensors;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    real *sum = t[SUM];
    gather_tokens(rows, dim, call->tokens, t[TOKEN_WEIGHT], sum);
    add_positions(rows, dim, rows / call->samples, t[POSITION_WEIGHT], sum);
    add_positions(rows, dim, 1, t[SEGMENT_WEIGHT], sum);
    norm_forward(rows, dim, sum, t[NORM_SCALE], t[NORM_SHIFT], t[NORM_NORMAL], t[NORM_RSTD],
                 t[OUTPUT]);
    if (pp_call_drops(call)) drop(call, 0, dim, t[OUTPUT], t[OUTPUT]);
}

static void NAME(weight)(const pp_layer_call *call) {
    void *const *t = call->tensors, *const *g = call->gradients;
    const int64_t dim = call->layer->dim, rows = pp_call_rows(call);
    const real *dy = call->output_gradient;
    if (pp_call_drops(call)) {
        drop(call, 0, dim, dy, t[MASKED_GRADIENT]);
        dy = t[MASKED_GRADIENT];
    }
    norm_weight(rows, dim, dy, t[NORM_NORMAL], g[NORM_SCALE], g[NORM_SHIFT]);
    norm_input(rows, dim, dy, t[NORM_SCALE], t[NORM_NORMAL], t[NORM_RSTD], NULL, t[SUM], false);
    scatter_tokens(rows, dim, call->tokens, t[SUM], g[TOKEN_WEIGHT]);
    scatter_positions(rows, dim, rows / call->samples, t[SUM], g[POSITION_WEIGHT]);
    scatter_positions(rows, dim, 1, t[SUM], g[SEGMENT_WEIGHT]);
}

const pp_layer_ops NAME(pp_bert_embedding) = {PP_OP_BERT_EMBEDDING, initialise_parameters,
                                              NAME(forward), NULL, NAME(weight), NULL};

#endif
