/* A linear layer with a bias: in one kernel where the device has been asked for that, else its
 * parts one after another. */
#include "executor/cuda/gemm.h"

void pp_linear_in_parts(pp_launch l, const pp_linear *linear) {
    pp_launch_fill_rows(l, linear->rows, linear->out, linear->bias, linear->y);
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

void pp_linear_run(pp_launch l, const pp_linear *linear) {
    if (!pp_cuda_linear(l, linear)) pp_linear_in_parts(l, linear);
}
