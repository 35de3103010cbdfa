/* Linear layers, y = x A^T + b, through OpenBLAS. */
#define PP_THIS_FILE "executor/layers/matmul.c"
#include "executor/layers/real.h"

#ifdef real

void linear_forward(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight,
                    const real *bias, real *y) {
    if (bias) fill_rows(rows, out, bias, y);
    gemm(false, true, rows, out, in, 1, x, in, weight, in, bias ? 1 : 0, y, out);
}

void linear_gelu(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight,
                 const real *bias, real *y, real *activated) {
    linear_forward(rows, in, out, x, weight, bias, y);
    if (activated) gelu_forward(rows * out, y, activated);
}

void linear_add(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight, real *y) {
    gemm(false, true, rows, out, in, 1, x, in, weight, in, 1, y, out);
}

PP_INLINE void NAME(add_row)(int64_t columns, const real *row, real *y) {
    for (int64_t i = 0; i < columns; i++) y[i] += row[i];
}

void linear_join(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight,
                 const real *bias, const real *residual, real *y) {
    if (residual != y) copy_or_add(rows * out, residual, y, false);
    for (int64_t r = 0; r < rows; r++) NAME(add_row)(out, bias, y + r * out);
    linear_add(rows, in, out, x, weight, y);
}

void linear_gelu_input(int64_t rows, int64_t in, int64_t out, const real *dy, const real *weight,
                       const real *before, real *dx) {
    linear_input(rows, in, out, dy, weight, dx, false);
    gelu_input(rows * in, before, dx, dx, false);
}

void linear_input(int64_t rows, int64_t in, int64_t out, const real *dy, const real *weight,
                  real *dx, bool accumulate) {
    gemm(false, false, rows, in, out, 1, dy, out, weight, in, accumulate, dx, in);
}

void linear_weight(int64_t rows, int64_t in, int64_t out, const real *x, const real *dy,
                   real *weight_gradient, real *bias_gradient) {
    gemm(true, false, out, in, rows, 1, dy, out, x, in, 1, weight_gradient, in);
    if (bias_gradient) column_sums(rows, out, dy, bias_gradient);
}

#endif
