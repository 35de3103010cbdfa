/* A linear layer with a bias, forward and back: in one kernel where the device has been asked for
 * that, else its parts one after another. */
#include "executor/cuda/gemm.h"

static void fill_with_bias(pp_launch l, const pp_linear *linear) {
    if (!linear->residual) {
        pp_launch_fill_rows(l, linear->rows, linear->out, linear->bias, linear->y);
        return;
    }
    if (linear->residual != linear->y)
        pp_launch_copy_or_add(l, linear->rows * linear->out, linear->residual, linear->y, false);
    pp_launch_add_positions(l, linear->rows, linear->out, 1, linear->bias, linear->y);
}

void pp_linear_in_parts(pp_launch l, const pp_linear *linear) {
    fill_with_bias(l, linear);
    pp_cuda_gemm(l, &(pp_gemm){.transpose_b = true,
                               .m = linear->rows,
                               .n = linear->out,
                               .k = linear->in,
                               .alpha = 1,
                               .beta = 1,
                               .a = linear->x,
                               .lda = linear->in,
                               .b = linear->weight,
                               .ldb = linear->in,
                               .c = linear->y,
                               .ldc = linear->out});
    if (linear->activated)
        pp_launch_gelu_forward(l, linear->rows * linear->out, linear->y, linear->activated);
}

void pp_linear_back_in_parts(pp_launch l, const pp_linear_back *back) {
    pp_cuda_gemm(l, &(pp_gemm){.m = back->rows,
                               .n = back->in,
                               .k = back->out,
                               .alpha = 1,
                               .a = back->dy,
                               .lda = back->out,
                               .b = back->weight,
                               .ldb = back->in,
                               .c = back->dx,
                               .ldc = back->in});
    pp_launch_gelu_input(l, back->rows * back->in, back->before, back->dx, back->dx, false);
}

void pp_linear_run(pp_launch l, const pp_linear *linear) {
    if (!pp_cuda_linear(l, linear)) pp_linear_in_parts(l, linear);
}

void pp_linear_back_run(pp_launch l, const pp_linear_back *back) {
    if (!pp_cuda_linear_back(l, back)) pp_linear_back_in_parts(l, back);
}
