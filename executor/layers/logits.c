/* The end of a language model: softmax cross-entropy of logits over the vocabulary.
 *
 * The logits are the largest tensor of a model, so one buffer serves three lives: F leaves
 * e^(logit - row maximum) in it and the row's sum beside it (a device, which is short of memory
 * bandwidth and not of exponentials, leaves the logits and log Σ e^logit), I turns it into the
 * gradient of the logits in place (so I runs once for each F), W multiplies with that. */
#define PP_THIS_FILE "executor/layers/logits.c"
#ifndef PP_REAL_PASS
#include <assert.h>
#include <math.h>
#endif
#include "executor/layers/real.h"

#ifdef real

void logits_make(const pp_layer_call *call, const real *normed, const real *weight,
                 const real *bias, real *logits) {
    const int64_t rows = pp_call_rows(call), dim = call->layer->dim;
    const int64_t vocabulary = call->layer->vocabulary;
    const int64_t stride = pp_layer_logits_stride(call->layer);
    assert(!bias || stride == vocabulary);
    if (bias) fill_rows(rows, vocabulary, bias, logits);
    gemm(false, true, rows, vocabulary, dim, 1, normed, dim, weight, dim, bias ? 1 : 0, logits,
         stride);
}

void logits_make_input(const pp_layer_call *call, const real *logits, const real *weight,
                       real *normed_gradient) {
    const int64_t dim = call->layer->dim;
    gemm(false, false, pp_call_rows(call), dim, call->layer->vocabulary, 1, logits,
         pp_layer_logits_stride(call->layer), weight, dim, 0, normed_gradient, dim);
}

void logits_make_weight(const pp_layer_call *call, const real *normed, const real *logits,
                        real *weight_gradient, real *bias_gradient) {
    const int64_t rows = pp_call_rows(call), dim = call->layer->dim;
    const int64_t vocabulary = call->layer->vocabulary;
    gemm(true, false, vocabulary, dim, rows, 1, logits, pp_layer_logits_stride(call->layer), normed,
         dim, 1, weight_gradient, dim);
    if (bias_gradient) column_sums(rows, vocabulary, logits, bias_gradient);
}

void logits_forward(const pp_layer_call *call, real *logits, real *row_sum) {
    const int64_t vocabulary = call->layer->vocabulary, rows = pp_call_rows(call);
    const int64_t stride = pp_layer_logits_stride(call->layer);
    real *row = logits;
    double loss = 0;
    for (int64_t r = 0; r < rows; r++, row += stride) {
        if (call->targets[r] < 0) continue;
        real max = row_max(vocabulary, row);
        double target = (double)(row[call->targets[r]] - max);
        row_sum[r] = exp_row(vocabulary, max, row);
        loss += log((double)row_sum[r]) - target;
    }
    *call->loss = loss;
}

void logits_input(const pp_layer_call *call, real *logits, const real *row_sum) {
    const int64_t vocabulary = call->layer->vocabulary, rows = pp_call_rows(call);
    const int64_t stride = pp_layer_logits_stride(call->layer);
    real *row = logits, scale = (real)call->gradient_scale;
    for (int64_t r = 0; r < rows; r++, row += stride) {
        if (call->targets[r] < 0) {
            memset(row, 0, (size_t)vocabulary * sizeof *row);
            continue;
        }
        scale_row(vocabulary, scale / row_sum[r], row);
        row[call->targets[r]] -= scale;
    }
}

#endif
