/* The kernels, for one type of tensor: included by kernels.cu once for each. `aligned` tells that
 * every tensor of a call, and every row of it, begins at a multiple of 16 bytes. */

#include "executor/cuda/arithmetic_rows.h"

#define MANY (16 / (int)sizeof(store))
#define pack NAME(pack)

/* `for` each pack of a tensor, over all threads of the grid: i is its first element, and `left` are
 * there from it on. */
#define EACH_PACK(i, end)                                                                          \
    PACKS_FROM(i, (int64_t)blockIdx.x *blockDim.x + threadIdx.x, (int64_t)gridDim.x * blockDim.x,  \
               end)
/* `for` each row of this block's row of threads, and each pack of such a row. */
#define EACH_ROW(r, end)                                                                           \
    for (int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y; r < (end);                    \
         r += (int64_t)gridDim.x * blockDim.y)
#define EACH_PACK_OF_ROW(i, end) PACKS_FROM(i, threadIdx.x, blockDim.x, end)
#define PACKS_FROM(i, first, step, end)                                                            \
    for (int64_t i = (int64_t)(first)*MANY, left = (end)-i; left > 0;                              \
         i += (int64_t)(step)*MANY, left = (end)-i)
#define EACH(k) UNROLL for (int k = 0; k < MANY; k++)
#define LANES                                                                                      \
    __shared__ float scratch[MOST_WARPS];                                                          \
    lanes l = {(int)threadIdx.x, (int)blockDim.x, scratch}
#define IN(x) ((const store *)(x))
#define OUT(x) ((store *)(x))
#define TAKE(x, i) NAME(load_pack)(IN(x) + (i), left, aligned)
#define GIVE(x, i, p) NAME(save_pack)(OUT(x) + (i), left, aligned, p)

/* Floats, states and masks that go with a pack. */
static __device__ __forceinline__ pack NAME(load_floats)(const float *x, int64_t left,
                                                         bool aligned) {
    pack p;
    if (aligned && left >= MANY) {
        UNROLL for (int k = 0; k < MANY; k += 4) {
            float4 four = *(const float4 *)(x + k);
            p.v[k] = four.x, p.v[k + 1] = four.y, p.v[k + 2] = four.z, p.v[k + 3] = four.w;
        }
        return p;
    }
    EACH(k) p.v[k] = k < left ? x[k] : 0;
    return p;
}

static __device__ __forceinline__ void NAME(save_floats)(float *x, int64_t left, bool aligned,
                                                         pack p) {
    if (aligned && left >= MANY) {
        UNROLL for (int k = 0; k < MANY; k += 4) * (float4 *)(x + k) =
            make_float4(p.v[k], p.v[k + 1], p.v[k + 2], p.v[k + 3]);
        return;
    }
    EACH(k) if (k < left) x[k] = p.v[k];
}

/* ---- elementwise --------------------------------------------------------------------------- */

static __global__ void NAME(copy_or_add)(int64_t count, bool aligned, const void *x, void *y,
                                         bool add) {
    EACH_PACK(i, count) {
        pack p = TAKE(x, i);
        if (add) {
            pack old = TAKE(y, i);
            EACH(k) p.v[k] += old.v[k];
        }
        GIVE(y, i, p);
    }
}

static __global__ void NAME(gelu_forward)(int64_t count, bool aligned, const void *x, void *y) {
    EACH_PACK(i, count) {
        pack p = TAKE(x, i);
        EACH(k) p.v[k] = gelu(p.v[k]);
        GIVE(y, i, p);
    }
}

static __global__ void NAME(gelu_input)(int64_t count, bool aligned, const void *x, const void *dy,
                                        void *dx, bool accumulate) {
    EACH_PACK(i, count) {
        pack p = TAKE(x, i), d = TAKE(dy, i);
        EACH(k) d.v[k] *= gelu_slope(p.v[k]);
        if (accumulate) {
            pack old = TAKE(dx, i);
            EACH(k) d.v[k] += old.v[k];
        }
        GIVE(dx, i, d);
    }
}

static __global__ void NAME(relu_forward)(int64_t count, bool aligned, const void *x, void *y) {
    EACH_PACK(i, count) {
        pack p = TAKE(x, i);
        EACH(k) p.v[k] = fmaxf(p.v[k], 0.0f);
        GIVE(y, i, p);
    }
}

static __global__ void NAME(relu_input)(int64_t count, bool aligned, const void *y, const void *dy,
                                        void *dx, bool accumulate) {
    EACH_PACK(i, count) {
        pack p = TAKE(y, i), d = TAKE(dy, i);
        EACH(k) d.v[k] = p.v[k] > 0 ? d.v[k] : 0.0f;
        if (accumulate) {
            pack old = TAKE(dx, i);
            EACH(k) d.v[k] += old.v[k];
        }
        GIVE(dx, i, d);
    }
}

static __global__ void NAME(swiglu_forward)(int64_t count, bool aligned, const void *gate,
                                            const void *up, void *y) {
    EACH_PACK(i, count) {
        pack g = TAKE(gate, i), u = TAKE(up, i);
        EACH(k) g.v[k] = swiglu(g.v[k], u.v[k]);
        GIVE(y, i, g);
    }
}

static __global__ void NAME(swiglu_input)(int64_t count, bool aligned, const void *gate,
                                          const void *up, const void *dy, void *gate_gradient,
                                          void *up_gradient) {
    EACH_PACK(i, count) {
        pack g = TAKE(gate, i), u = TAKE(up, i), d = TAKE(dy, i), dg, du;
        EACH(k) swiglu_slopes(g.v[k], u.v[k], d.v[k], &dg.v[k], &du.v[k]);
        GIVE(gate_gradient, i, dg);
        GIVE(up_gradient, i, du);
    }
}

/* regular: the packs of a row, and of a sample, are whole, and so are blocks of the mask. */
static __global__ void NAME(drop)(pp_drop drop, bool aligned, bool regular, const void *x, void *y,
                                  uint8_t *mask, bool add) {
    EACH_PACK(i, drop.samples * drop.per_sample) {
        uint32_t word[MANY];
        if (regular) {
            uint64_t sample = drop_sample(i, drop.first_sample, drop.per_sample);
            uint64_t counter = drop_counter(i, drop.per_sample, drop.width, drop.pitch);
            UNROLL for (int k = 0; k < MANY; k += 4)
                mask_block(drop.key, sample, drop.site, (counter + (uint64_t)k) / 4, word + k);
        } else {
            EACH(k) {
                word[k] = mask_word(
                    drop.key, drop_sample(i + k, drop.first_sample, drop.per_sample), drop.site,
                    drop_counter(i + k, drop.per_sample, drop.width, drop.pitch));
            }
        }
        pack p = TAKE(x, i);
        EACH(k) p.v[k] = word[k] >= drop.threshold ? p.v[k] * drop.scale : 0.0f;
        if (add) {
            pack old = TAKE(y, i);
            EACH(k) p.v[k] += old.v[k];
        }
        GIVE(y, i, p);
        if (mask) EACH(k) if (k < left) mask[i + k] = word[k] >= drop.threshold;
    }
}

static __global__ void NAME(masked)(int64_t count, bool aligned, const uint8_t *mask, float scale,
                                    const void *x, void *y) {
    EACH_PACK(i, count) {
        pack p = TAKE(x, i);
        EACH(k) p.v[k] = k < left && mask[i + k] ? p.v[k] * scale : 0.0f;
        GIVE(y, i, p);
    }
}

static __global__ void NAME(step)(pp_step_factors f, int64_t count, bool aligned, void *weights,
                                  const void *gradient, float *master, float *first,
                                  float *second) {
    EACH_PACK(i, count) {
        pack g = TAKE(gradient, i), m = NAME(load_floats)(first + i, left, aligned);
        pack w = master ? NAME(load_floats)(master + i, left, aligned) : TAKE(weights, i);
        if (f.adamw) {
            pack v = NAME(load_floats)(second + i, left, aligned);
            EACH(k) {
                w.v[k] = adamw(w.v[k], g.v[k] * f.gradient, &m.v[k], &v.v[k], f.rate, f.beta1,
                               f.beta2, f.epsilon, f.decay, f.correct1, f.correct2);
            }
            NAME(save_floats)(second + i, left, aligned, v);
        } else {
            EACH(k) {
                w.v[k] = sgd(w.v[k], g.v[k] * f.gradient, &m.v[k], f.rate, f.momentum, f.decay);
            }
        }
        NAME(save_floats)(first + i, left, aligned, m);
        if (master) NAME(save_floats)(master + i, left, aligned, w);
        GIVE(weights, i, w);
    }
}

static __global__ void NAME(widen)(int64_t count, bool aligned, const void *x, float *y) {
    EACH_PACK(i, count) NAME(save_floats)(y + i, left, aligned, TAKE(x, i));
}

/* ---- rows ---------------------------------------------------------------------------------- */

static __global__ void NAME(fill_rows)(int64_t rows, int64_t columns, bool aligned, const void *row,
                                       void *y) {
    EACH_ROW(r, rows) EACH_PACK_OF_ROW(i, columns) GIVE(y, r * columns + i, TAKE(row, i));
}

static __global__ void NAME(norm_apply)(int64_t rows, int64_t dim, bool aligned, const void *normal,
                                        const void *scale, const void *shift, void *y) {
    EACH_ROW(r, rows) EACH_PACK_OF_ROW(i, dim) {
        pack p = TAKE(normal, r * dim + i), s = TAKE(scale, i);
        EACH(k) p.v[k] *= s.v[k];
        if (shift) {
            pack more = TAKE(shift, i);
            EACH(k) p.v[k] += more.v[k];
        }
        GIVE(y, r * dim + i, p);
    }
}

static __global__ void NAME(gather_tokens)(int64_t rows, int64_t dim, bool aligned,
                                           const int32_t *tokens, const void *table, void *y) {
    EACH_ROW(r, rows)
    EACH_PACK_OF_ROW(i, dim) GIVE(y, r * dim + i, TAKE(table, tokens[r] * dim + i));
}

static __global__ void NAME(add_positions)(int64_t rows, int64_t dim, bool aligned, int64_t period,
                                           const void *table, void *y) {
    EACH_ROW(r, rows) EACH_PACK_OF_ROW(i, dim) {
        pack p = TAKE(y, r * dim + i), more = TAKE(table, r % period * dim + i);
        EACH(k) p.v[k] += more.v[k];
        GIVE(y, r * dim + i, p);
    }
}

/* A thread for a pair of features of all heads: they turn by the same angle. */
static __global__ void NAME(rotate)(int64_t samples, int64_t sequence, int64_t heads, int64_t size,
                                    int64_t stride, double base, bool back, void *x) {
    const int64_t half = size / 2;
    EACH_ROW(row, samples * sequence) {
        for (int64_t pair = threadIdx.x; pair < half; pair += blockDim.x) {
            float cosine, sine;
            rotary_angle(row % sequence, pair, size, base, back, &cosine, &sine);
            for (int64_t head = 0; head < heads; head++) {
                store *a = OUT(x) + row * stride + head * size + pair;
                NAME(rotate_pair)(a, a + half, cosine, sine);
            }
        }
    }
}

static __global__ void NAME(norm_forward)(int64_t rows, int64_t dim, bool aligned, bool centred,
                                          const void *x, const void *scale, const void *shift,
                                          void *normal, float *rstd, void *y) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(norm_forward_row)
        (l, aligned, dim, centred, IN(x) + r * dim, IN(scale), IN(shift), OUT(normal) + r * dim,
         rstd + r, OUT(y) + r * dim);
    }
}

static __global__ void NAME(norm_input)(int64_t rows, int64_t dim, bool aligned, bool centred,
                                        const void *dy, const void *scale, const void *normal,
                                        const float *rstd, const void *residual, void *dx,
                                        bool accumulate) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(norm_input_row)
        (l, aligned, dim, centred, IN(dy) + r * dim, IN(scale), IN(normal) + r * dim, rstd[r],
         residual ? IN(residual) + r * dim : NULL, OUT(dx) + r * dim, accumulate);
    }
}

/* Rows of x, and of dx, are `stride` apart. */
static __global__ void NAME(class_loss_forward)(int64_t rows, int64_t classes, bool aligned,
                                                int64_t stride, const int32_t *targets,
                                                const void *x, float *row_log_sum, float *losses) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(class_loss_forward_row)
        (l, aligned, classes, targets[r], IN(x) + r * stride, row_log_sum + r, losses + r);
    }
}

static __global__ void NAME(class_loss_input)(int64_t rows, int64_t classes, bool aligned,
                                              int64_t stride, const int32_t *targets, float scale,
                                              const void *x, const float *row_log_sum, void *dx,
                                              bool accumulate) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(class_loss_input_row)
        (l, aligned, classes, targets[r], scale, IN(x) + r * stride, row_log_sum[r],
         OUT(dx) + r * stride, accumulate);
    }
}

static __global__ void NAME(softmax)(int64_t rows, int64_t sequence, bool aligned, bool causal,
                                     void *scores) {
    LANES;
    EACH_ROW(r, rows) {
        int64_t reach = causal ? r % sequence + 1 : sequence;
        NAME(softmax_row)(l, aligned, sequence, reach, OUT(scores) + r * sequence);
    }
}

static __global__ void NAME(softmax_input)(int64_t rows, int64_t sequence, bool aligned,
                                           const void *p, void *d) {
    LANES;
    EACH_ROW(r, rows) {
        NAME(softmax_input_row)(l, aligned, sequence, IN(p) + r * sequence, OUT(d) + r * sequence);
    }
}

/* ---- sums down the rows -------------------------------------------------------------------- */

/* A block sums SUM_LANES packs of columns over one part of the rows; its rows of threads take every
 * SUM_ROWS-th row, SUM_AHEAD of them on their way at a time, and what they found is added up in
 * order.
 * parts, by_parts : [PP_COLUMN_PARTS, columns]; one of them may be NULL. */
static __global__ void NAME(column_parts)(int64_t rows, int64_t columns, bool aligned,
                                          const void *x, const void *by, float *parts,
                                          float *by_parts) {
    __shared__ float found[2][SUM_ROWS][SUM_LANES * MANY];
    const int64_t first = (int64_t)blockIdx.x * SUM_LANES * MANY, c = first + threadIdx.x * MANY;
    const int64_t to = part_begin(rows, (int)blockIdx.y + 1, PP_COLUMN_PARTS);
    const int64_t left = columns - c;
    pack sum = {{0}}, by_sum = {{0}};
    for (int64_t r = part_begin(rows, (int)blockIdx.y, PP_COLUMN_PARTS) + threadIdx.y;
         r < to && left > 0; r += SUM_AHEAD * SUM_ROWS) {
        NAME(raw) ahead[SUM_AHEAD], by_ahead[SUM_AHEAD];
        UNROLL for (int a = 0; a < SUM_AHEAD; a++) {
            const int64_t at = (r + a * SUM_ROWS) * columns + c;
            if (r + a * SUM_ROWS < to) ahead[a] = NAME(load_raw)(IN(x) + at, left, aligned);
            if (r + a * SUM_ROWS < to && by)
                by_ahead[a] = NAME(load_raw)(IN(by) + at, left, aligned);
        }
        UNROLL for (int a = 0; a < SUM_AHEAD; a++) {
            if (r + a * SUM_ROWS >= to) continue;
            pack p = NAME(unpack)(ahead[a]);
            EACH(k) sum.v[k] += p.v[k];
            if (!by) continue;
            pack factor = NAME(unpack)(by_ahead[a]);
            EACH(k) by_sum.v[k] += p.v[k] * factor.v[k];
        }
    }
    EACH(k) {
        found[0][threadIdx.y][threadIdx.x * MANY + k] = sum.v[k];
        found[1][threadIdx.y][threadIdx.x * MANY + k] = by_sum.v[k];
    }
    __syncthreads();
    for (int i = threadIdx.y * SUM_LANES + threadIdx.x; i < SUM_LANES * MANY && first + i < columns;
         i += SUM_ROWS * SUM_LANES) {
        float total = 0, by_total = 0;
        for (int y = 0; y < SUM_ROWS; y++) {
            total += found[0][y][i];
            by_total += found[1][y][i];
        }
        const int64_t at = (int64_t)blockIdx.y * columns + first + i;
        if (parts) parts[at] = total;
        if (by_parts) by_parts[at] = by_total;
    }
}

/* sums += the parts, in order; blockIdx.y 1: likewise those of the products. */
static __global__ void NAME(add_column_parts)(int64_t columns, const float *parts,
                                              const float *by_parts, void *sums, void *by_sums) {
    const float *from = blockIdx.y == 0 ? parts : by_parts;
    store *to = OUT(blockIdx.y == 0 ? sums : by_sums);
    const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (!to || c >= columns) return;
    float sum = 0;
    for (int part = 0; part < PP_COLUMN_PARTS; part++) sum += from[part * columns + c];
    save(to + c, load(to + c) + sum);
}

/* A block adds up all rows of one token, in order (chain_tokens). */
static __global__ void NAME(scatter_tokens)(int64_t rows, int64_t dim, bool aligned,
                                            const int32_t *tokens, const int32_t *next,
                                            const int32_t *is_first, const void *dy,
                                            void *gradient) {
    EACH_ROW(r, rows) {
        if (!is_first[r]) continue;
        EACH_PACK_OF_ROW(i, dim) {
            pack sum = TAKE(dy, r * dim + i);
            for (int64_t other = next[r]; other >= 0; other = next[other]) {
                pack p = TAKE(dy, other * dim + i);
                EACH(k) sum.v[k] += p.v[k];
            }
            pack old = TAKE(gradient, tokens[r] * dim + i);
            EACH(k) sum.v[k] += old.v[k];
            GIVE(gradient, tokens[r] * dim + i, sum);
        }
    }
}

static __global__ void NAME(scatter_positions)(int64_t rows, int64_t dim, bool aligned,
                                               int64_t period, const void *dy, void *gradient) {
    EACH_ROW(position, period < rows ? period : rows) EACH_PACK_OF_ROW(i, dim) {
        pack sum = {{0}};
        for (int64_t r = position; r < rows; r += period) {
            pack p = TAKE(dy, r * dim + i);
            EACH(k) sum.v[k] += p.v[k];
        }
        pack old = TAKE(gradient, position * dim + i);
        EACH(k) sum.v[k] += old.v[k];
        GIVE(gradient, position * dim + i, sum);
    }
}

/* A block for each part. */
static __global__ void NAME(square_parts)(int64_t count, const void *x, double *parts) {
    __shared__ double found[PP_SQUARE_LANES];
    int64_t from = part_begin(count, (int)blockIdx.x, PP_SQUARE_PARTS);
    int64_t to = part_begin(count, (int)blockIdx.x + 1, PP_SQUARE_PARTS);
    lanes l = {(int)threadIdx.x, PP_SQUARE_LANES, NULL};
    found[threadIdx.x] = NAME(lane_squares)(l, to - from, IN(x) + from);
    __syncthreads();
    if (threadIdx.x == 0) parts[blockIdx.x] = sum_in_order(PP_SQUARE_LANES, found);
}

#undef MANY
#undef pack
#undef EACH_PACK
#undef EACH_ROW
#undef EACH_PACK_OF_ROW
#undef PACKS_FROM
#undef EACH
#undef LANES
#undef IN
#undef OUT
#undef TAKE
#undef GIVE
