/* The cuda plugin's kernels and their launches (launch.h). What they compute of an element or a row
 * stands in arithmetic.h and arithmetic_rows.h; here is which thread does it.
 *
 * Nothing uses atomics, so results do not depend on the order in which blocks run. Grids are
 * bounded and every kernel loops, so any size works. */
#include <cuda_runtime.h>

#include "executor/cuda/arithmetic.h"
#include "executor/cuda/launch.h"

enum {
    BLOCK = 256,         /* threads of most kernels */
    MOST_BLOCKS = 65536, /* of a grid */
    MOST_THREADS = 256,  /* of a block that shares a row: while some blocks wait, others read */
    MOST_WARPS = MOST_THREADS / 32,
    WARPS = 4,      /* of a block whose warps have a row each */
    SUM_LANES = 32, /* block of column_parts */
    SUM_ROWS = 8,
    SUM_AHEAD = 4,
    CHAINED = 64, /* threads of chain_tokens */
    TOKENS = 1024 /* that they compare with at a time */
};

#define store float
#define NAME(x) x##_f32
#define load load_f32
#define save save_f32
#include "executor/cuda/kernels_typed.cuh"
#undef store
#undef NAME
#undef load
#undef save
#define store uint16_t
#define NAME(x) x##_bf16
#define load load_bf16
#define save save_bf16
#include "executor/cuda/kernels_typed.cuh"
#undef store
#undef NAME
#undef load
#undef save

/* The loss of a microbatch: one block, a fixed order. */
static __global__ void sum_losses(int64_t rows, const float *losses, double *loss) {
    __shared__ double part[BLOCK];
    double sum = 0;
    for (int64_t r = threadIdx.x; r < rows; r += BLOCK) sum += losses[r];
    part[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int i = 1; i < BLOCK; i++) sum += part[i];
    *loss = sum;
}

/* One thread: there are few parts. */
static __global__ void sum_parts(const double *parts, double *sum) {
    *sum = sum_in_order(PP_SQUARE_PARTS, parts);
}

/* For each row the next with the same token, or -1, and whether it is the token's first. Tokens are
 * looked at four at a time, and closer only where one of them is the row's. */
static __global__ void chain_tokens(int64_t rows, const int32_t *tokens, int32_t *next,
                                    int32_t *is_first) {
    __shared__ __align__(16) int32_t tile[TOKENS];
    const int64_t r = (int64_t)blockIdx.x * CHAINED + threadIdx.x;
    const int32_t token = r < rows ? tokens[r] : -1;
    int32_t following = -1, first = 1;
    for (int64_t from = 0; from < rows; from += TOKENS) {
        __syncthreads();
        for (int i = threadIdx.x; i < TOKENS; i += CHAINED)
            tile[i] = from + i < rows ? tokens[from + i] : -1;
        __syncthreads();
#pragma unroll 8
        for (int i = 0; i < TOKENS; i += 4) {
            const int4 four = *(const int4 *)(tile + i);
            if (four.x != token && four.y != token && four.z != token && four.w != token) continue;
            for (int k = i; k < i + 4; k++) {
                if (tile[k] != token) continue;
                if (from + k < r) first = 0;
                if (from + k > r && following < 0) following = (int32_t)(from + k);
            }
        }
    }
    if (r >= rows) return;
    next[r] = following;
    is_first[r] = first;
}

static unsigned blocks_for(int64_t items, int64_t per_block) {
    int64_t blocks = (items + per_block - 1) / per_block;
    return (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS);
}

/* Elements of a pack. */
static int many(pp_launch l) {
    return l.bf16 ? 8 : 4;
}

static bool is_aligned(const void *x) {
    return (uintptr_t)x % 16 == 0;
}

template <typename... Tensors> static bool all_aligned(Tensors... tensors) {
    return (is_aligned(tensors) && ...);
}

/* Rows `stride` apart; so all begin at multiples of 16 bytes. */
template <typename... Tensors>
static bool rows_aligned(pp_launch l, int64_t stride, Tensors... tensors) {
    return stride % many(l) == 0 && all_aligned(tensors...);
}

/* A row's packs are shared out among a warp, several of which make a block, or among a block. */
static dim3 block_for(pp_launch l, int64_t columns) {
    const int64_t packs = (columns + many(l) - 1) / many(l);
    if (packs <= 32 * 8) return dim3(32, WARPS);
    unsigned threads = 64;
    while (threads < MOST_THREADS && (int64_t)threads * 2 <= packs) threads *= 2;
    return dim3(threads, 1);
}

#define LAUNCH(kernel, grid, block, ...)                                                           \
    do {                                                                                           \
        cudaStream_t stream = (cudaStream_t)l.stream;                                              \
        if (l.bf16)                                                                                \
            kernel##_bf16<<<grid, block, 0, stream>>>(__VA_ARGS__);                                \
        else                                                                                       \
            kernel##_f32<<<grid, block, 0, stream>>>(__VA_ARGS__);                                 \
    } while (0)
#define ELEMENTWISE(kernel, count, ...)                                                            \
    do {                                                                                           \
        if ((count) > 0) LAUNCH(kernel, blocks_for(count, BLOCK *many(l)), BLOCK, __VA_ARGS__);    \
    } while (0)
#define BY_ROW(kernel, rows, columns, ...)                                                         \
    do {                                                                                           \
        const dim3 block = block_for(l, columns);                                                  \
        if ((rows) > 0) LAUNCH(kernel, blocks_for(rows, block.y), block, __VA_ARGS__);             \
    } while (0)

/* ---- elementwise --------------------------------------------------------------------------- */

void pp_launch_copy_or_add(pp_launch l, int64_t count, const void *x, void *y, bool add) {
    ELEMENTWISE(copy_or_add, count, count, all_aligned(x, y), x, y, add);
}

void pp_launch_gelu_forward(pp_launch l, int64_t count, const void *x, void *y) {
    ELEMENTWISE(gelu_forward, count, count, all_aligned(x, y), x, y);
}

void pp_launch_gelu_input(pp_launch l, int64_t count, const void *x, const void *dy, void *dx,
                          bool accumulate) {
    ELEMENTWISE(gelu_input, count, count, all_aligned(x, dy, dx), x, dy, dx, accumulate);
}

void pp_launch_relu_forward(pp_launch l, int64_t count, const void *x, void *y) {
    ELEMENTWISE(relu_forward, count, count, all_aligned(x, y), x, y);
}

void pp_launch_relu_input(pp_launch l, int64_t count, const void *y, const void *dy, void *dx,
                          bool accumulate) {
    ELEMENTWISE(relu_input, count, count, all_aligned(y, dy, dx), y, dy, dx, accumulate);
}

void pp_launch_swiglu_forward(pp_launch l, int64_t count, const void *gate, const void *up,
                              void *y) {
    ELEMENTWISE(swiglu_forward, count, count, all_aligned(gate, up, y), gate, up, y);
}

void pp_launch_swiglu_input(pp_launch l, int64_t count, const void *gate, const void *up,
                            const void *dy, void *gate_gradient, void *up_gradient) {
    ELEMENTWISE(swiglu_input, count, count, all_aligned(gate, up, dy, gate_gradient, up_gradient),
                gate, up, dy, gate_gradient, up_gradient);
}

void pp_launch_drop(pp_launch l, const pp_drop *drop, const void *x, void *y, uint8_t *mask,
                    bool add) {
    const bool regular =
        drop->width % many(l) == 0 && drop->pitch % 4 == 0 && drop->per_sample % many(l) == 0;
    ELEMENTWISE(drop, drop->samples * drop->per_sample, *drop, all_aligned(x, y), regular, x, y,
                mask, add);
}

void pp_launch_masked(pp_launch l, int64_t count, const uint8_t *mask, float scale, const void *x,
                      void *y) {
    ELEMENTWISE(masked, count, count, all_aligned(x, y), mask, scale, x, y);
}

void pp_launch_step(pp_launch l, const pp_step_factors *factors, int64_t count, void *weights,
                    const void *gradient, float *master, float *first, float *second) {
    const bool aligned = all_aligned(weights, gradient, master, first, second);
    ELEMENTWISE(step, count, *factors, count, aligned, weights, gradient, master, first, second);
}

void pp_launch_square_sum(pp_launch l, int64_t count, const void *x, double *parts, double *sum) {
    LAUNCH(square_parts, PP_SQUARE_PARTS, PP_SQUARE_LANES, count, x, parts);
    sum_parts<<<1, 1, 0, (cudaStream_t)l.stream>>>(parts, sum);
}

void pp_launch_widen(pp_launch l, int64_t count, const void *x, float *y) {
    ELEMENTWISE(widen, count, count, all_aligned(x, y), x, y);
}

void pp_launch_copy_bytes(pp_launch l, void *to, const void *from, int64_t size_bytes) {
    cudaMemcpyAsync(to, from, (size_t)size_bytes, cudaMemcpyDefault, (cudaStream_t)l.stream);
}

void pp_launch_fill_bytes(pp_launch l, void *block, int byte, int64_t size_bytes) {
    cudaMemsetAsync(block, byte, (size_t)size_bytes, (cudaStream_t)l.stream);
}

/* ---- rows ---------------------------------------------------------------------------------- */

void pp_launch_fill_rows(pp_launch l, int64_t rows, int64_t columns, const void *row, void *y) {
    BY_ROW(fill_rows, rows, columns, rows, columns, rows_aligned(l, columns, row, y), row, y);
}

void pp_launch_column_sums(pp_launch l, int64_t rows, int64_t columns, const void *x,
                           const void *by, float *parts, void *sums, void *by_sums) {
    const unsigned width = (unsigned)(SUM_LANES * many(l));
    const dim3 grid((unsigned)((columns + width - 1) / width), PP_COLUMN_PARTS);
    const dim3 block(SUM_LANES, SUM_ROWS);
    float *by_parts = by ? parts + PP_COLUMN_PARTS * columns : NULL;
    LAUNCH(column_parts, grid, block, rows, columns, rows_aligned(l, columns, x, by), x, by,
           sums ? parts : NULL, by_parts);
    const dim3 all((unsigned)((columns + BLOCK - 1) / BLOCK), by ? 2 : 1);
    LAUNCH(add_column_parts, all, BLOCK, columns, parts, by_parts, sums, by_sums);
}

void pp_launch_norm_forward(pp_launch l, int64_t rows, int64_t dim, bool centred, const void *x,
                            const void *scale, const void *shift, void *normal, float *rstd,
                            void *y) {
    BY_ROW(norm_forward, rows, dim, rows, dim, rows_aligned(l, dim, x, scale, shift, normal, y),
           centred, x, scale, shift, normal, rstd, y);
}

void pp_launch_norm_apply(pp_launch l, int64_t rows, int64_t dim, const void *normal,
                          const void *scale, const void *shift, void *y) {
    BY_ROW(norm_apply, rows, dim, rows, dim, rows_aligned(l, dim, normal, scale, shift, y), normal,
           scale, shift, y);
}

void pp_launch_norm_input(pp_launch l, int64_t rows, int64_t dim, bool centred, const void *dy,
                          const void *scale, const void *normal, const float *rstd,
                          const void *residual, void *dx, bool accumulate) {
    const bool aligned = rows_aligned(l, dim, dy, scale, normal, residual, dx);
    BY_ROW(norm_input, rows, dim, rows, dim, aligned, centred, dy, scale, normal, rstd, residual,
           dx, accumulate);
}

void pp_launch_rotate(pp_launch l, int64_t samples, int64_t sequence, int64_t heads, int64_t size,
                      int64_t stride, double base, bool back, void *x) {
    const dim3 block(32, WARPS);
    const int64_t rows = samples * sequence;
    cudaStream_t stream = (cudaStream_t)l.stream;
    if (rows == 0) return;
    if (l.bf16)
        rotate_bf16<<<blocks_for(rows, WARPS), block, 0, stream>>>(samples, sequence, heads, size,
                                                                   stride, base, back, x);
    else
        rotate_f32<<<blocks_for(rows, WARPS), block, 0, stream>>>(samples, sequence, heads, size,
                                                                  stride, base, back, x);
}

/* ---- tables -------------------------------------------------------------------------------- */

void pp_launch_gather_tokens(pp_launch l, int64_t rows, int64_t dim, const int32_t *tokens,
                             const void *table, void *y) {
    BY_ROW(gather_tokens, rows, dim, rows, dim, rows_aligned(l, dim, table, y), tokens, table, y);
}

void pp_launch_add_positions(pp_launch l, int64_t rows, int64_t dim, int64_t period,
                             const void *table, void *y) {
    BY_ROW(add_positions, rows, dim, rows, dim, rows_aligned(l, dim, table, y), period, table, y);
}

void pp_launch_scatter_tokens(pp_launch l, int64_t rows, int64_t dim, const int32_t *tokens,
                              const void *dy, int32_t *chains, void *gradient) {
    if (rows == 0) return;
    chain_tokens<<<(unsigned)((rows + CHAINED - 1) / CHAINED), CHAINED, 0,
                   (cudaStream_t)l.stream>>>(rows, tokens, chains, chains + rows);
    BY_ROW(scatter_tokens, rows, dim, rows, dim, rows_aligned(l, dim, dy, gradient), tokens, chains,
           chains + rows, dy, gradient);
}

void pp_launch_scatter_positions(pp_launch l, int64_t rows, int64_t dim, int64_t period,
                                 const void *dy, void *gradient) {
    BY_ROW(scatter_positions, period < rows ? period : rows, dim, rows, dim,
           rows_aligned(l, dim, dy, gradient), period, dy, gradient);
}

/* ---- losses -------------------------------------------------------------------------------- */

void pp_launch_class_loss_forward(pp_launch l, int64_t rows, int64_t classes, int64_t stride,
                                  const int32_t *targets, const void *x, float *row_log_sum,
                                  float *losses, double *loss) {
    BY_ROW(class_loss_forward, rows, classes, rows, classes, rows_aligned(l, stride, x), stride,
           targets, x, row_log_sum, losses);
    sum_losses<<<1, BLOCK, 0, (cudaStream_t)l.stream>>>(rows, losses, loss);
}

void pp_launch_class_loss_input(pp_launch l, int64_t rows, int64_t classes, int64_t stride,
                                const int32_t *targets, float scale, const void *x,
                                const float *row_log_sum, void *dx, bool accumulate) {
    BY_ROW(class_loss_input, rows, classes, rows, classes, rows_aligned(l, stride, x, dx), stride,
           targets, scale, x, row_log_sum, dx, accumulate);
}

/* ---- attention ----------------------------------------------------------------------------- */

void pp_launch_softmax(pp_launch l, int64_t rows, int64_t sequence, bool causal, void *scores) {
    BY_ROW(softmax, rows, sequence, rows, sequence, rows_aligned(l, sequence, scores), causal,
           scores);
}

void pp_launch_softmax_input(pp_launch l, int64_t rows, int64_t sequence, const void *p, void *d) {
    BY_ROW(softmax_input, rows, sequence, rows, sequence, rows_aligned(l, sequence, p, d), p, d);
}
