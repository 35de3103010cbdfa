/* Causal attention: for each sample and head, P = softmax(Q K^T / √(head size)) over the positions
 * up to the row's own, result P V.
 *
 * Rows are taken in blocks; a block multiplies with the positions up to its last row alone, which
 * skips nearly half of the square. Within a block P is zero above the diagonal; right of the block
 * it is never touched. P is saved rather than made again: it costs sequence numbers per row and
 * head and saves a product and the exponentials in I. */
#define PP_THIS_FILE "executor/layers/attend.c"
#ifndef PP_REAL_PASS
#include <math.h>

enum { BLOCK_ROWS = 64 };
#endif
#include "executor/layers/real.h"

#ifdef real

/* One head of one sample. */
typedef struct NAME(head) {
    const real *q, *k, *v; /* rows of 3·dim */
    real *p;               /* rows of sequence */
    int64_t sequence, size, qkv_stride, dim;
    double scale;
} NAME(head);

static NAME(head) NAME(head_of)(const attend_call *a, int64_t sample, int64_t index) {
    int64_t size = a->dim / a->heads;
    const real *q = a->qkv + sample * a->sequence * 3 * a->dim + index * size;
    return (NAME(head)){.q = q,
                        .k = q + a->dim,
                        .v = q + 2 * a->dim,
                        .p = a->probabilities +
                             (sample * a->heads + index) * a->sequence * a->sequence,
                        .sequence = a->sequence,
                        .size = size,
                        .qkv_stride = 3 * a->dim,
                        .dim = a->dim,
                        .scale = 1 / sqrt((double)size)};
}

/* Rows first … last - 1 of P, from their scores. */
static void NAME(softmax_block)(const NAME(head) * h, int64_t first, int64_t last) {
    const real one = 1;
    for (int64_t i = first; i < last; i++) {
        real *row = h->p + i * h->sequence;
        real sum = exp_row(i + 1, row_max(i + 1, row), row);
        scale_row(i + 1, one / sum, row);
        for (int64_t j = i + 1; j < last; j++) row[j] = 0;
    }
}

static void NAME(head_forward)(const NAME(head) * h, real *out) {
    for (int64_t first = 0; first < h->sequence; first += BLOCK_ROWS) {
        int64_t last = first + BLOCK_ROWS;
        if (last > h->sequence) last = h->sequence;
        real *p = h->p + first * h->sequence;
        gemm(false, true, last - first, last, h->size, h->scale, h->q + first * h->qkv_stride,
             h->qkv_stride, h->k, h->qkv_stride, 0, p, h->sequence);
        NAME(softmax_block)(h, first, last);
        gemm(false, false, last - first, h->size, last, 1, p, h->sequence, h->v, h->qkv_stride, 0,
             out + first * h->dim, h->dim);
    }
}

void attend_forward(const attend_call *a) {
    for (int64_t s = 0; s < a->samples; s++) {
        for (int64_t i = 0; i < a->heads; i++) {
            NAME(head) h = NAME(head_of)(a, s, i);
            NAME(head_forward)(&h, a->attended + s * a->sequence * a->dim + i * h.size);
        }
    }
}

/* Gradient of the scores in place of the gradient d of P: dS = P · (d - Σ P d). */
PP_VECTOR static void NAME(score_gradient_row)(int64_t count, const real *restrict p,
                                               real *restrict d) {
    real lane[PP_LANES] = {0};
    int64_t i = 0;
    for (; i + PP_LANES <= count; i += PP_LANES)
        for (int l = 0; l < PP_LANES; l++) lane[l] += p[i + l] * d[i + l];
    for (int l = 0; i + l < count; l++) lane[l] += p[i + l] * d[i + l];
    real sum = fold_lanes(lane);
    for (int64_t j = 0; j < count; j++) d[j] = p[j] * (d[j] - sum);
}

/* Blocks from the last to the first: the last one reaches all positions and writes the gradients
 * of k and v, the others add to them. */
static void NAME(head_input)(const NAME(head) * h, const real *dout, real *dq, real *d) {
    int64_t stride = h->qkv_stride, s = h->sequence;
    real *dk = dq + h->dim, *dv = dq + 2 * h->dim;
    int64_t last = s;
    while (last > 0) {
        int64_t first = (last - 1) / BLOCK_ROWS * BLOCK_ROWS, rows = last - first;
        double beta = last < s;
        const real *p = h->p + first * s, *g = dout + first * h->dim;
        gemm(false, true, rows, last, h->size, 1, g, h->dim, h->v, stride, 0, d, s);
        gemm(true, false, last, h->size, rows, 1, p, s, g, h->dim, beta, dv, stride);
        for (int64_t r = 0; r < rows; r++) NAME(score_gradient_row)(last, p + r * s, d + r * s);
        gemm(false, false, rows, h->size, last, h->scale, d, s, h->k, stride, 0,
             dq + first * stride, stride);
        gemm(true, false, last, h->size, rows, h->scale, d, s, h->q + first * stride, stride, beta,
             dk, stride);
        last = first;
    }
}

void attend_input(const attend_call *a) {
    for (int64_t s = 0; s < a->samples; s++) {
        for (int64_t i = 0; i < a->heads; i++) {
            NAME(head) h = NAME(head_of)(a, s, i);
            int64_t start = s * a->sequence * a->dim;
            const real *dout = a->attended_gradient + start + i * h.size;
            NAME(head_input)(&h, dout, a->qkv_gradient + 3 * start + i * h.size, a->score_gradient);
        }
    }
}

#endif
