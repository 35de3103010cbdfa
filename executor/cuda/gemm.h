/* Matrix products of the cuda plugin: by cuBLAS on the device (cuda_gemm.c), by OpenBLAS in tests
 * (tests/executor/launch_host.c). */
#ifndef PPSIM_EXECUTOR_CUDA_GEMM_H
#define PPSIM_EXECUTOR_CUDA_GEMM_H

#include "executor/cuda/launch.h"

/* C = alpha · op(A) · op(B) + beta · C for a batch of row-major matrices: op(A) [m, k], op(B)
 * [k, n]; ld: elements from row to row; stride: from matrix to matrix, 0 where all share one.
 * Sums are fp32 whatever the type. */
typedef struct pp_gemm {
    bool transpose_a, transpose_b;
    int64_t m, n, k;
    double alpha, beta;
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc;
    int64_t batch; /* 0: 1 */
    int64_t stride_a, stride_b, stride_c;
} pp_gemm;

void pp_cuda_gemm(pp_launch l, const pp_gemm *gemm);

/* A linear layer with a bias, and what stands before or behind it: y = [residual +] x weight^T +
 * bias [rows, out], and activated = gelu(y); NULL: not wanted, and only one of them. weight [out,
 * in]. y may be residual. */
typedef struct pp_linear {
    int64_t rows, in, out;
    const void *x, *weight, *bias, *residual;
    void *y, *activated;
} pp_linear;

/* Back through it to what gelu was applied to: dx = (dy weight) · gelu'(before) [rows, in]. */
typedef struct pp_linear_back {
    int64_t rows, in, out;
    const void *dy, *weight, *before;
    void *dx;
} pp_linear_back;

/* In one kernel, where that was asked for (cuda_fused.c); false: nothing is done, take the parts. */
bool pp_cuda_linear(pp_launch l, const pp_linear *linear);
bool pp_cuda_linear_back(pp_launch l, const pp_linear_back *back);
/* As kernels of their own: what is added, the product, GELU. */
void pp_linear_in_parts(pp_launch l, const pp_linear *linear);
void pp_linear_back_in_parts(pp_launch l, const pp_linear_back *back);
/* Either way. */
void pp_linear_run(pp_launch l, const pp_linear *linear);
void pp_linear_back_run(pp_launch l, const pp_linear_back *back);

#endif
