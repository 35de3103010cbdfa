/* The kernels, for one type of tensor: included by kernels.cu once for each. */

#include "executor/cuda/arithmetic_rows.h"

/* `for` each element, over all threads of the grid. */
#define EACH_ELEMENT(i, end)                                                                       \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (end);                    \
         i += (int64_t)gridDim.x * blockDim.x)
/* `for` each row of this block. All threads of a block go through the same rows. */
#define EACH_ROW(r, end) for (int64_t r = blockIdx.x; r < (end); r += gridDim.x)
#define LANES                                                                                      \
    __shared__ float scratch[MOST_WARPS];                                                          \
    lanes l = {(int)threadIdx.x, (int)blockDim.x, scratch}
#define IN(x) ((const store *)(x))
#define OUT(x) ((store *)(x))

/* ---- elementwise --------------------------------------------------------------------------- */

static __global__ void NAME(copy_or_add)(int64_t count, const void *x, void *y, bool add) {
    EACH_ELEMENT(i, count) {
        float value = load(IN(x) + i);
        save(OUT(y) + i, add ? load(IN(y) + i) + value : value);
    }
}

static __global__ void NAME(gelu_forward)(int64_t count, const void *x, void *y) {
    EACH_ELEMENT(i, count) save(OUT(y) + i, gelu(load(IN(x) + i)));
}

static __global__ void NAME(gelu_input)(int64_t count, const void *x, const void *dy, void *dx,
                                        bool accumulate) {
    EACH_ELEMENT(i, count) {
        float out = load(IN(dy) + i) * gelu_slope(load(IN(x) + i));
        save(OUT(dx) + i, accumulate ? load(IN(dx) + i) + out : out);
    }
}

static __global__ void NAME(relu_forward)(int64_t count, const void *x, void *y) {
    EACH_ELEMENT(i, count) save(OUT(y) + i, fmaxf(load(IN(x) + i), 0.0f));
}

static __global__ void NAME(relu_input)(int64_t count, const void *y, const void *dy, void *dx,
                                        bool accumulate) {
    EACH_ELEMENT(i, count) {
        float out = load(IN(y) + i) > 0 ? load(IN(dy) + i) : 0.0f;
        save(OUT(dx) + i, accumulate ? load(IN(dx) + i) + out : out);
    }
}

static __global__ void NAME(swiglu_forward)(int64_t count, const void *gate, const void *up,
                                            void *y) {
    EACH_ELEMENT(i, count) {
        save(OUT(y) + i, swiglu(load(IN(gate) + i), load(IN(up) + i)));
    }
}

static __global__ void NAME(swiglu_input)(int64_t count, const void *gate, const void *up,
                                          const void *dy, void *gate_gradient, void *up_gradient) {
    EACH_ELEMENT(i, count) {
        float g = load(IN(gate) + i), u = load(IN(up) + i), d = load(IN(dy) + i), dg, du;
        swiglu_slopes(g, u, d, &dg, &du);
        save(OUT(gate_gradient) + i, dg);
        save(OUT(up_gradient) + i, du);
    }
}

static __global__ void NAME(drop)(pp_drop drop, const void *x, void *y, uint8_t *mask, bool add) {
    EACH_ELEMENT(i, drop.samples * drop.per_sample) {
        uint64_t sample = drop_sample(i, drop.first_sample, drop.per_sample);
        uint64_t counter = drop_counter(i, drop.per_sample, drop.width, drop.pitch);
        bool kept = mask_word(drop.key, sample, drop.site, counter) >= drop.threshold;
        float out = kept ? load(IN(x) + i) * drop.scale : 0.0f;
        save(OUT(y) + i, add ? load(IN(y) + i) + out : out);
        if (mask) mask[i] = kept;
    }
}

static __global__ void NAME(masked)(int64_t count, const uint8_t *mask, float scale, const void *x,
                                    void *y) {
    EACH_ELEMENT(i, count) save(OUT(y) + i, mask[i] ? load(IN(x) + i) * scale : 0.0f);
}

static __global__ void NAME(fill_rows)(int64_t rows, int64_t columns, const void *row, void *y) {
    EACH_ELEMENT(i, rows * columns) save(OUT(y) + i, load(IN(row) + i % columns));
}

static __global__ void NAME(norm_apply)(int64_t rows, int64_t dim, const void *normal,
                                        const void *scale, const void *shift, void *y) {
    EACH_ELEMENT(i, rows * dim) {
        float out = load(IN(normal) + i) * load(IN(scale) + i % dim);
        if (shift) out += load(IN(shift) + i % dim);
        save(OUT(y) + i, out);
    }
}

static __global__ void NAME(gather_tokens)(int64_t rows, int64_t dim, const int32_t *tokens,
                                           const void *table, void *y) {
    EACH_ELEMENT(i, rows * dim) {
        save(OUT(y) + i, load(IN(table) + tokens[i / dim] * dim + i % dim));
    }
}

static __global__ void NAME(add_positions)(int64_t rows, int64_t dim, int64_t period,
                                           const void *table, void *y) {
    EACH_ELEMENT(i, rows * dim) {
        int64_t position = i / dim % period;
        save(OUT(y) + i, load(IN(y) + i) + load(IN(table) + position * dim + i % dim));
    }
}

/* One thread for each pair of features of a head. */
static __global__ void NAME(rotate)(int64_t samples, int64_t sequence, int64_t heads, int64_t size,
                                    int64_t stride, double base, bool back, void *x) {
    const int64_t half = size / 2;
    EACH_ELEMENT(i, samples * sequence * heads * half) {
        int64_t pair = i % half, head = i / half % heads, row = i / half / heads;
        store *a = OUT(x) + row * stride + head * size + pair;
        float cosine, sine;
        rotary_angle(row % sequence, pair, size, base, back, &cosine, &sine);
        NAME(rotate_pair)(a, a + half, cosine, sine);
    }
}

static __global__ void NAME(step)(pp_step_factors f, int64_t count, void *weights,
                                  const void *gradient, float *master, float *first,
                                  float *second) {
    EACH_ELEMENT(i, count) {
        float weight = master ? master[i] : load(IN(weights) + i);
        float g = load(IN(gradient) + i) * f.gradient;
        if (f.adamw)
            weight = adamw(weight, g, first + i, second + i, f.rate, f.beta1, f.beta2, f.epsilon,
                           f.decay, f.correct1, f.correct2);
        else
            weight = sgd(weight, g, first + i, f.rate, f.momentum, f.decay);
        if (master) master[i] = weight;
        save(OUT(weights) + i, weight);
    }
}

static __global__ void NAME(widen)(int64_t count, const void *x, float *y) {
    EACH_ELEMENT(i, count) y[i] = load(IN(x) + i);
}

/* ---- a block for each row ------------------------------------------------------------------ */

static __global__ void NAME(norm_forward)(int64_t rows, int64_t dim, bool centred, const void *x,
                                          void *normal, float *rstd) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(norm_forward_row)(l, dim, centred, IN(x) + r * dim, OUT(normal) + r * dim, rstd + r);
    }
}

static __global__ void NAME(norm_input)(int64_t rows, int64_t dim, bool centred, const void *dy,
                                        const void *scale, const void *normal, const float *rstd,
                                        const void *residual, void *dx, bool accumulate) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(norm_input_row)(l, dim, centred, IN(dy) + r * dim, IN(scale), IN(normal) + r * dim,
                             rstd[r], residual ? IN(residual) + r * dim : NULL, OUT(dx) + r * dim,
                             accumulate);
    }
}

static __global__ void NAME(logits_forward)(int64_t rows, int64_t classes, int64_t stride,
                                            const int32_t *targets, void *logits, float *row_sum,
                                            float *losses) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(logits_forward_row)
        (l, classes, targets[r], OUT(logits) + r * stride, row_sum + r, losses + r);
    }
}

static __global__ void NAME(logits_input)(int64_t rows, int64_t classes, int64_t stride,
                                          const int32_t *targets, float scale, void *logits,
                                          const float *row_sum) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(logits_input_row)(l, classes, targets[r], scale, OUT(logits) + r * stride, row_sum[r]);
    }
}

static __global__ void NAME(class_loss_forward)(int64_t rows, int64_t classes,
                                                const int32_t *targets, const void *x,
                                                float *row_log_sum, float *losses) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(class_loss_forward_row)(l, classes, targets[r], IN(x) + r * classes, row_log_sum + r,
                                     losses + r);
    }
}

static __global__ void NAME(class_loss_input)(int64_t rows, int64_t classes,
                                              const int32_t *targets, float scale, const void *x,
                                              const float *row_log_sum, void *dx,
                                              bool accumulate) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(class_loss_input_row)(l, classes, targets[r], scale, IN(x) + r * classes,
                                   row_log_sum[r], OUT(dx) + r * classes, accumulate);
    }
}

static __global__ void NAME(softmax)(int64_t rows, int64_t sequence, bool causal, void *scores) {
    LANES;
    EACH_ROW(r, rows) {
        int64_t reach = causal ? r % sequence + 1 : sequence;
        NAME(softmax_row)(l, sequence, reach, OUT(scores) + r * sequence);
    }
}

static __global__ void NAME(softmax_input)(int64_t rows, int64_t sequence, const void *p, void *d) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(softmax_input_row)(l, sequence, IN(p) + r * sequence, OUT(d) + r * sequence);
    }
}

/* ---- sums down the rows -------------------------------------------------------------------- */

/* A block is SUM_COLUMNS columns wide; its thread rows take every SUM_ROWS-th row, and the first
 * adds up what they found, in order. */
static __global__ void NAME(column_sums)(int64_t rows, int64_t columns, const void *x,
                                         const void *by, void *sums) {
    __shared__ float part[SUM_ROWS][SUM_COLUMNS];
    int64_t c = (int64_t)blockIdx.x * SUM_COLUMNS + threadIdx.x;
    float sum = 0;
    for (int64_t r = threadIdx.y; r < rows && c < columns; r += SUM_ROWS) {
        float value = load(IN(x) + r * columns + c);
        sum += by ? value * load(IN(by) + r * columns + c) : value;
    }
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || c >= columns) return;
    for (int y = 1; y < SUM_ROWS; y++) sum += part[y][threadIdx.x];
    save(OUT(sums) + c, load(IN(sums) + c) + sum);
}

/* The block of a row that is the first of its token adds up all rows of that token, in order. */
static __global__ void NAME(scatter_tokens)(int64_t rows, int64_t dim, const int32_t *tokens,
                                            const void *dy, void *gradient) {
    EACH_ROW(r, rows) {
        const int32_t token = tokens[r];
        int earlier = 0;
        for (int64_t other = threadIdx.x; other < r; other += blockDim.x)
            earlier |= tokens[other] == token;
        if (__syncthreads_or(earlier)) continue;
        for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
            float sum = 0;
            for (int64_t other = r; other < rows; other++)
                if (tokens[other] == token) sum += load(IN(dy) + other * dim + i);
            store *to = OUT(gradient) + token * dim + i;
            save(to, load(to) + sum);
        }
    }
}

static __global__ void NAME(scatter_positions)(int64_t rows, int64_t dim, int64_t period,
                                               const void *dy, void *gradient) {
    int64_t table = period < rows ? period : rows;
    EACH_ELEMENT(i, table * dim) {
        float sum = 0;
        for (int64_t r = i / dim; r < rows; r += period) sum += load(IN(dy) + r * dim + i % dim);
        save(OUT(gradient) + i, load(IN(gradient) + i) + sum);
    }
}

/* A block for each part. */
static __global__ void NAME(square_parts)(int64_t count, const void *x, double *parts) {
    __shared__ double found[PP_SQUARE_LANES];
    int64_t from = square_part(count, (int)blockIdx.x);
    int64_t to = square_part(count, (int)blockIdx.x + 1);
    lanes l = {(int)threadIdx.x, PP_SQUARE_LANES, NULL};
    found[threadIdx.x] = NAME(lane_squares)(l, to - from, IN(x) + from);
    __syncthreads();
    if (threadIdx.x == 0) parts[blockIdx.x] = sum_in_order(PP_SQUARE_LANES, found);
}

#undef EACH_ELEMENT
#undef EACH_ROW
#undef LANES
#undef IN
#undef OUT
