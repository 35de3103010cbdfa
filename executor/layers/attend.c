/* Attention: for each sample and head, P = softmax(Q K^T / √(head size)), over the positions up to
 * the row's own where it is causal; result P V, with P dropped where asked. Several heads may share
 * keys and values (grouped queries, Ainslie et al. 2023).
 *
 * Rows are taken in blocks; a causal block multiplies with the positions up to its last row alone,
 * which skips nearly half of the square. Within a block P is zero above the diagonal; right of the
 * block it is never touched. P is saved rather than made again: it costs sequence numbers per row
 * and head and saves a product and the exponentials in I. */
#define PP_THIS_FILE "executor/layers/attend.c"
#ifndef PP_REAL_PASS
#include <math.h>

enum { BLOCK_ROWS = 64 };
#endif
#include "executor/layers/real.h"

#ifdef real

/* One head of one sample. */
typedef struct NAME(head) {
    const real *q, *k, *v; /* rows of qkv_stride */
    real *p;               /* rows of sequence */
    int64_t sequence, size, qkv_stride, out_stride;
    int64_t sample, index;
    bool causal;
    double scale;
} NAME(head);

static NAME(head) NAME(head_of)(const attend_call *a, int64_t sample, int64_t index) {
    int64_t size = a->size, stride = (a->heads + 2 * a->kv_heads) * size;
    int64_t shared = index / (a->heads / a->kv_heads);
    const real *row = a->qkv + sample * a->sequence * stride;
    return (NAME(head)){.q = row + index * size,
                        .k = row + (a->heads + shared) * size,
                        .v = row + (a->heads + a->kv_heads + shared) * size,
                        .p = a->probabilities +
                             (sample * a->heads + index) * a->sequence * a->sequence,
                        .sequence = a->sequence,
                        .size = size,
                        .qkv_stride = stride,
                        .out_stride = a->heads * size,
                        .sample = sample,
                        .index = index,
                        .causal = a->causal,
                        .scale = 1 / sqrt((double)size)};
}

/* Positions that the rows up to last - 1 see. */
static int64_t NAME(reach)(const NAME(head) * h, int64_t last) {
    return h->causal ? last : h->sequence;
}

/* Rows first … last - 1 of P, from their scores. */
static void NAME(softmax_block)(const NAME(head) * h, int64_t first, int64_t last) {
    const real one = 1;
    for (int64_t i = first; i < last; i++) {
        real *row = h->p + i * h->sequence;
        int64_t count = NAME(reach)(h, i + 1), reach = NAME(reach)(h, last);
        real sum = exp_row(count, row_max(count, row), row);
        scale_row(count, one / sum, row);
        for (int64_t j = count; j < reach; j++) row[j] = 0;
    }
}

/* The same rows of P dropped. Rows of a mask begin at multiples of 4 (layers/mask.c). */
static void NAME(drop_block)(const attend_call *a, const NAME(head) * h, int64_t first,
                             int64_t last) {
    int64_t pitch = (h->sequence + 3) / 4 * 4, reach = NAME(reach)(h, last);
    for (int64_t i = first; i < last; i++) {
        int64_t at = (h->p - a->probabilities) + i * h->sequence;
        drop_keep(a->drop, h->sample, a->site, (h->index * h->sequence + i) * pitch, reach,
                  h->p + i * h->sequence, a->dropped + at, a->mask + at);
    }
}

/* What weighs the values: P, or what dropout left of it. */
static const real *NAME(weights_of)(const attend_call *a, const NAME(head) * h) {
    return a->drop ? a->dropped + (h->p - a->probabilities) : h->p;
}

/* out NULL: the weights alone. */
static void NAME(head_forward)(const attend_call *a, const NAME(head) * h, real *out) {
    const real *weights = NAME(weights_of)(a, h);
    for (int64_t first = 0; first < h->sequence; first += BLOCK_ROWS) {
        int64_t last = first + BLOCK_ROWS;
        if (last > h->sequence) last = h->sequence;
        int64_t reach = NAME(reach)(h, last), at = first * h->sequence;
        gemm(false, true, last - first, reach, h->size, h->scale, h->q + first * h->qkv_stride,
             h->qkv_stride, h->k, h->qkv_stride, 0, h->p + at, h->sequence);
        NAME(softmax_block)(h, first, last);
        if (a->drop) NAME(drop_block)(a, h, first, last);
        if (!out) continue;
        gemm(false, false, last - first, h->size, reach, 1, weights + at, h->sequence, h->v,
             h->qkv_stride, 0, out + first * h->out_stride, h->out_stride);
    }
}

void attend_forward(const attend_call *a) {
    for (int64_t s = 0; s < a->samples; s++) {
        for (int64_t i = 0; i < a->heads; i++) {
            NAME(head) h = NAME(head_of)(a, s, i);
            NAME(head_forward)(a, &h, a->attended + s * a->sequence * h.out_stride + i * h.size);
        }
    }
}

void attend_again(const attend_call *a) {
    for (int64_t s = 0; s < a->samples; s++) {
        for (int64_t i = 0; i < a->heads; i++) {
            NAME(head) h = NAME(head_of)(a, s, i);
            NAME(head_forward)(a, &h, NULL);
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

/* From the gradient of the weights of rows first … first + rows - 1 to that of their scores. */
static void NAME(score_gradient)(const attend_call *a, const NAME(head) * h, int64_t first,
                                 int64_t rows, int64_t reach, real *d) {
    for (int64_t r = 0; r < rows; r++) {
        const real *p = h->p + (first + r) * h->sequence;
        real *row = d + r * h->sequence;
        if (a->drop) drop_masked(a->drop, reach, a->mask + (p - a->probabilities), row, row);
        NAME(score_gradient_row)(reach, p, row);
    }
}

/* Blocks from the last to the first: the last one reaches all positions and, for the first head
 * of those that share them, writes the gradients of k and v; the others add to them. */
static void NAME(head_input)(const attend_call *a, const NAME(head) * h, const real *dout, real *dq,
                             real *dk, real *dv) {
    int64_t stride = h->qkv_stride, s = h->sequence;
    bool shared = h->index % (a->heads / a->kv_heads) != 0;
    const real *weights = NAME(weights_of)(a, h);
    real *d = a->score_gradient;
    int64_t last = s;
    while (last > 0) {
        int64_t first = (last - 1) / BLOCK_ROWS * BLOCK_ROWS, rows = last - first;
        int64_t reach = NAME(reach)(h, last);
        double beta = shared || last < s;
        const real *g = dout + first * h->out_stride;
        gemm(false, true, rows, reach, h->size, 1, g, h->out_stride, h->v, stride, 0, d, s);
        gemm(true, false, reach, h->size, rows, 1, weights + first * s, s, g, h->out_stride, beta,
             dv, stride);
        NAME(score_gradient)(a, h, first, rows, reach, d);
        gemm(false, false, rows, h->size, reach, h->scale, d, s, h->k, stride, 0,
             dq + first * stride, stride);
        gemm(true, false, reach, h->size, rows, h->scale, d, s, h->q + first * stride, stride, beta,
             dk, stride);
        last = first;
    }
}

void attend_input(const attend_call *a) {
    for (int64_t s = 0; s < a->samples; s++) {
        for (int64_t i = 0; i < a->heads; i++) {
            NAME(head) h = NAME(head_of)(a, s, i);
            int64_t row = s * a->sequence;
            real *gradient = a->qkv_gradient;
            NAME(head_input)
            (a, &h, a->attended_gradient + row * h.out_stride + i * h.size,
             gradient + (h.q - a->qkv), gradient + (h.k - a->qkv), gradient + (h.v - a->qkv));
        }
    }
}

#endif
