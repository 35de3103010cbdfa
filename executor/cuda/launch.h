/* What the cuda plugin asks its device to compute: one function for each kernel, in plain types, so
 * that cuda_kernels.c, which knows layers, and kernels.cu, which knows CUDA, meet here alone. The
 * tests link launch_host.c in the place of kernels.cu: the same arithmetic (arithmetic.h) in loops
 * on the host.
 *
 * Tensors are row-major in fp32 or, where launch.bf16, in bf16 (its upper half, as uint16_t), sums
 * always in fp32; statistics, masters and states of optimizers are fp32 in both. Everything is
 * ordered on launch.stream and returns at once; errors are CUDA's sticky ones, found when the
 * stream is waited for. Names as in executor/layers/kernels_declared.h. No kernel depends on
 * the order in which blocks run: equal calls give equal bits. */
#ifndef PPSIM_EXECUTOR_CUDA_LAUNCH_H
#define PPSIM_EXECUTOR_CUDA_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pp_launch {
    void *stream; /* cudaStream_t */
    bool bf16;
} pp_launch;

/* ---- elementwise --------------------------------------------------------------------------- */

void pp_launch_copy_or_add(pp_launch l, int64_t count, const void *x, void *y, bool add);
void pp_launch_gelu_forward(pp_launch l, int64_t count, const void *x, void *y);
void pp_launch_gelu_input(pp_launch l, int64_t count, const void *x, const void *dy, void *dx,
                          bool accumulate);
void pp_launch_relu_forward(pp_launch l, int64_t count, const void *x, void *y);
void pp_launch_relu_input(pp_launch l, int64_t count, const void *y, const void *dy, void *dx,
                          bool accumulate);
void pp_launch_swiglu_forward(pp_launch l, int64_t count, const void *gate, const void *up,
                              void *y);
void pp_launch_swiglu_input(pp_launch l, int64_t count, const void *gate, const void *up,
                            const void *dy, void *gate_gradient, void *up_gradient);

/* A dropout mask as core draws it (executor/layers/mask.c): element e of sample i is kept where
 * word e % 4 of the Philox block (first_sample + i, site << 40 | e / 4) is at least `threshold`. */
typedef struct pp_drop {
    uint32_t key[2];
    uint64_t first_sample, site;
    int64_t samples, per_sample; /* rows of a mask: see pitch */
    int64_t width, pitch;        /* of per_sample elements, each `width` begin at a multiple of
                                    `pitch` in the mask's count; equal: no gaps */
    uint32_t threshold;
    float scale; /* of what is kept */
} pp_drop;

/* y = [y +] dropped x. mask : [samples · per_sample] set to 1 where kept; NULL: not wanted. */
void pp_launch_drop(pp_launch l, const pp_drop *drop, const void *x, void *y, uint8_t *mask,
                    bool add);
void pp_launch_masked(pp_launch l, int64_t count, const uint8_t *mask, float scale, const void *x,
                      void *y);

/* ---- rows ---------------------------------------------------------------------------------- */

void pp_launch_fill_rows(pp_launch l, int64_t rows, int64_t columns, const void *row, void *y);
/* sums += columns of x, by_sums += those of x times `by`; NULL: not wanted. parts : [2,
 * PP_COLUMN_PARTS, columns] scratch. */
void pp_launch_column_sums(pp_launch l, int64_t rows, int64_t columns, const void *x,
                           const void *by, float *parts, void *sums, void *by_sums);
/* centred: a layer norm; else a root-mean-square norm. y: as norm_apply makes it. */
void pp_launch_norm_forward(pp_launch l, int64_t rows, int64_t dim, bool centred, const void *x,
                            const void *scale, const void *shift, void *normal, float *rstd,
                            void *y);
/* shift NULL: none. */
void pp_launch_norm_apply(pp_launch l, int64_t rows, int64_t dim, const void *normal,
                          const void *scale, const void *shift, void *y);
void pp_launch_norm_input(pp_launch l, int64_t rows, int64_t dim, bool centred, const void *dy,
                          const void *scale, const void *normal, const float *rstd,
                          const void *residual, void *dx, bool accumulate);
void pp_launch_rotate(pp_launch l, int64_t samples, int64_t sequence, int64_t heads, int64_t size,
                      int64_t stride, double base, bool back, void *x);

/* ---- tables -------------------------------------------------------------------------------- */

void pp_launch_gather_tokens(pp_launch l, int64_t rows, int64_t dim, const int32_t *tokens,
                             const void *table, void *y);
void pp_launch_add_positions(pp_launch l, int64_t rows, int64_t dim, int64_t period,
                             const void *table, void *y);
/* chains : [2, rows] scratch. */
void pp_launch_scatter_tokens(pp_launch l, int64_t rows, int64_t dim, const int32_t *tokens,
                              const void *dy, int32_t *chains, void *gradient);
void pp_launch_scatter_positions(pp_launch l, int64_t rows, int64_t dim, int64_t period,
                                 const void *dy, void *gradient);

/* ---- losses -------------------------------------------------------------------------------- */

/* losses : [rows] scratch; *loss gets their sum, in row order. Targets below 0 are ignored. Rows of
 * x and dx are `stride` apart; dx may be x unless it accumulates. */
void pp_launch_class_loss_forward(pp_launch l, int64_t rows, int64_t classes, int64_t stride,
                                  const int32_t *targets, const void *x, float *row_log_sum,
                                  float *losses, double *loss);
void pp_launch_class_loss_input(pp_launch l, int64_t rows, int64_t classes, int64_t stride,
                                const int32_t *targets, float scale, const void *x,
                                const float *row_log_sum, void *dx, bool accumulate);

/* ---- attention ----------------------------------------------------------------------------- */

/* Rows of scores become probabilities, in place: row r is of position r % sequence and, if causal,
 * sees those up to its own; the rest becomes 0. */
void pp_launch_softmax(pp_launch l, int64_t rows, int64_t sequence, bool causal, void *scores);
/* d becomes the gradient of the scores: p · (d - Σ p d), over each row of p. */
void pp_launch_softmax_input(pp_launch l, int64_t rows, int64_t sequence, const void *p, void *d);

/* ---- optimizers ---------------------------------------------------------------------------- */

/* The factors of one step (executor/optimizer.c). */
typedef struct pp_step_factors {
    bool adamw; /* else SGD with momentum */
    float rate, beta1, beta2, epsilon, decay, momentum, correct1, correct2;
    float gradient; /* what gradients are multiplied by */
} pp_step_factors;
/* master : fp32 weights, or NULL (fp32 tensors are their own). first, second : states. */
void pp_launch_step(pp_launch l, const pp_step_factors *factors, int64_t count, void *weights,
                    const void *gradient, float *master, float *first, float *second);
/* *sum = Σ x² in double. parts : [PP_SQUARE_PARTS] scratch. */
void pp_launch_square_sum(pp_launch l, int64_t count, const void *x, double *parts, double *sum);
/* y = x in fp32, of x in the launch's type. */
void pp_launch_widen(pp_launch l, int64_t count, const void *x, float *y);

/* ---- bytes --------------------------------------------------------------------------------- */

void pp_launch_fill_bytes(pp_launch l, void *block, int byte, int64_t size_bytes);
/* Also between devices. */
void pp_launch_copy_bytes(pp_launch l, void *to, const void *from, int64_t size_bytes);

#ifdef __cplusplus
}
#endif

#endif
