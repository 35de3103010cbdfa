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
    MOST_WARPS = 32,     /* of a block */
    SUM_COLUMNS = 32,    /* block of column_sums */
    SUM_ROWS = 32
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

static unsigned blocks_for(int64_t items, int64_t per_block) {
    int64_t blocks = (items + per_block - 1) / per_block;
    return (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS);
}

/* Rows are shared by as many threads as they have use for. */
static unsigned lanes_for(int64_t columns) {
    unsigned threads = 32;
    while (threads < 1024 && (int64_t)threads * 4 < columns) threads *= 2;
    return threads;
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
        if ((count) > 0) LAUNCH(kernel, blocks_for(count, BLOCK), BLOCK, __VA_ARGS__);             \
    } while (0)
#define BY_ROW(kernel, rows, columns, ...)                                                         \
    do {                                                                                           \
        if ((rows) > 0) LAUNCH(kernel, blocks_for(rows, 1), lanes_for(columns), __VA_ARGS__);      \
    } while (0)

/* ---- elementwise --------------------------------------------------------------------------- */

void pp_launch_copy_or_add(pp_launch l, int64_t count, const void *x, void *y, bool add) {
    ELEMENTWISE(copy_or_add, count, count, x, y, add);
}

void pp_launch_gelu_forward(pp_launch l, int64_t count, const void *x, void *y) {
    ELEMENTWISE(gelu_forward, count, count, x, y);
}

void pp_launch_gelu_input(pp_launch l, int64_t count, const void *x, const void *dy, void *dx,
                          bool accumulate) {
    ELEMENTWISE(gelu_input, count, count, x, dy, dx, accumulate);
}

void pp_launch_relu_forward(pp_launch l, int64_t count, const void *x, void *y) {
    ELEMENTWISE(relu_forward, count, count, x, y);
}

void pp_launch_relu_input(pp_launch l, int64_t count, const void *y, const void *dy, void *dx,
                          bool accumulate) {
    ELEMENTWISE(relu_input, count, count, y, dy, dx, accumulate);
}

void pp_launch_swiglu_forward(pp_launch l, int64_t count, const void *gate, const void *up,
                              void *y) {
    ELEMENTWISE(swiglu_forward, count, count, gate, up, y);
}

void pp_launch_swiglu_input(pp_launch l, int64_t count, const void *gate, const void *up,
                            const void *dy, void *gate_gradient, void *up_gradient) {
    ELEMENTWISE(swiglu_input, count, count, gate, up, dy, gate_gradient, up_gradient);
}

void pp_launch_drop(pp_launch l, const pp_drop *drop, const void *x, void *y, uint8_t *mask,
                    bool add) {
    ELEMENTWISE(drop, drop->samples * drop->per_sample, *drop, x, y, mask, add);
}

void pp_launch_masked(pp_launch l, int64_t count, const uint8_t *mask, float scale, const void *x,
                      void *y) {
    ELEMENTWISE(masked, count, count, mask, scale, x, y);
}

void pp_launch_step(pp_launch l, const pp_step_factors *factors, int64_t count, void *weights,
                    const void *gradient, float *master, float *first, float *second) {
    ELEMENTWISE(step, count, *factors, count, weights, gradient, master, first, second);
}

void pp_launch_square_sum(pp_launch l, int64_t count, const void *x, double *parts, double *sum) {
    LAUNCH(square_parts, PP_SQUARE_PARTS, PP_SQUARE_LANES, count, x, parts);
    sum_parts<<<1, 1, 0, (cudaStream_t)l.stream>>>(parts, sum);
}

void pp_launch_widen(pp_launch l, int64_t count, const void *x, float *y) {
    ELEMENTWISE(widen, count, count, x, y);
}

void pp_launch_copy_bytes(pp_launch l, void *to, const void *from, int64_t size_bytes) {
    cudaMemcpyAsync(to, from, (size_t)size_bytes, cudaMemcpyDefault, (cudaStream_t)l.stream);
}

void pp_launch_fill_bytes(pp_launch l, void *block, int byte, int64_t size_bytes) {
    cudaMemsetAsync(block, byte, (size_t)size_bytes, (cudaStream_t)l.stream);
}

/* ---- rows ---------------------------------------------------------------------------------- */

void pp_launch_fill_rows(pp_launch l, int64_t rows, int64_t columns, const void *row, void *y) {
    ELEMENTWISE(fill_rows, rows * columns, rows, columns, row, y);
}

void pp_launch_column_sums(pp_launch l, int64_t rows, int64_t columns, const void *x,
                           const void *by, void *sums) {
    dim3 block(SUM_COLUMNS, SUM_ROWS);
    LAUNCH(column_sums, (unsigned)((columns + SUM_COLUMNS - 1) / SUM_COLUMNS), block, rows, columns,
           x, by, sums);
}

void pp_launch_norm_forward(pp_launch l, int64_t rows, int64_t dim, bool centred, const void *x,
                            void *normal, float *rstd) {
    BY_ROW(norm_forward, rows, dim, rows, dim, centred, x, normal, rstd);
}

void pp_launch_norm_apply(pp_launch l, int64_t rows, int64_t dim, const void *normal,
                          const void *scale, const void *shift, void *y) {
    ELEMENTWISE(norm_apply, rows * dim, rows, dim, normal, scale, shift, y);
}

void pp_launch_norm_input(pp_launch l, int64_t rows, int64_t dim, bool centred, const void *dy,
                          const void *scale, const void *normal, const float *rstd,
                          const void *residual, void *dx, bool accumulate) {
    BY_ROW(norm_input, rows, dim, rows, dim, centred, dy, scale, normal, rstd, residual, dx,
           accumulate);
}

void pp_launch_rotate(pp_launch l, int64_t samples, int64_t sequence, int64_t heads, int64_t size,
                      int64_t stride, double base, bool back, void *x) {
    ELEMENTWISE(rotate, samples * sequence * heads * (size / 2), samples, sequence, heads, size,
                stride, base, back, x);
}

/* ---- tables -------------------------------------------------------------------------------- */

void pp_launch_gather_tokens(pp_launch l, int64_t rows, int64_t dim, const int32_t *tokens,
                             const void *table, void *y) {
    ELEMENTWISE(gather_tokens, rows * dim, rows, dim, tokens, table, y);
}

void pp_launch_add_positions(pp_launch l, int64_t rows, int64_t dim, int64_t period,
                             const void *table, void *y) {
    ELEMENTWISE(add_positions, rows * dim, rows, dim, period, table, y);
}

void pp_launch_scatter_tokens(pp_launch l, int64_t rows, int64_t dim, const int32_t *tokens,
                              const void *dy, void *gradient) {
    BY_ROW(scatter_tokens, rows, 4 * BLOCK, rows, dim, tokens, dy, gradient);
}

void pp_launch_scatter_positions(pp_launch l, int64_t rows, int64_t dim, int64_t period,
                                 const void *dy, void *gradient) {
    ELEMENTWISE(scatter_positions, (period < rows ? period : rows) * dim, rows, dim, period, dy,
                gradient);
}

/* ---- losses -------------------------------------------------------------------------------- */

void pp_launch_logits_forward(pp_launch l, int64_t rows, int64_t classes, int64_t stride,
                              const int32_t *targets, void *logits, float *row_sum, float *losses,
                              double *loss) {
    BY_ROW(logits_forward, rows, classes, rows, classes, stride, targets, logits, row_sum, losses);
    sum_losses<<<1, BLOCK, 0, (cudaStream_t)l.stream>>>(rows, losses, loss);
}

void pp_launch_logits_input(pp_launch l, int64_t rows, int64_t classes, int64_t stride,
                            const int32_t *targets, float scale, void *logits,
                            const float *row_sum) {
    BY_ROW(logits_input, rows, classes, rows, classes, stride, targets, scale, logits, row_sum);
}

void pp_launch_class_loss_forward(pp_launch l, int64_t rows, int64_t classes,
                                  const int32_t *targets, const void *x, float *row_log_sum,
                                  float *losses, double *loss) {
    BY_ROW(class_loss_forward, rows, classes, rows, classes, targets, x, row_log_sum, losses);
    sum_losses<<<1, BLOCK, 0, (cudaStream_t)l.stream>>>(rows, losses, loss);
}

void pp_launch_class_loss_input(pp_launch l, int64_t rows, int64_t classes, const int32_t *targets,
                                float scale, const void *x, const float *row_log_sum, void *dx,
                                bool accumulate) {
    BY_ROW(class_loss_input, rows, classes, rows, classes, targets, scale, x, row_log_sum, dx,
           accumulate);
}

/* ---- attention ----------------------------------------------------------------------------- */

void pp_launch_softmax(pp_launch l, int64_t rows, int64_t sequence, bool causal, void *scores) {
    BY_ROW(softmax, rows, sequence, rows, sequence, causal, scores);
}

void pp_launch_softmax_input(pp_launch l, int64_t rows, int64_t sequence, const void *p, void *d) {
    BY_ROW(softmax_input, rows, sequence, rows, sequence, p, d);
}
