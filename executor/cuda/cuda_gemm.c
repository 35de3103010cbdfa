/* Matrix products by cuBLAS. It thinks in columns, and a row-major C = A · B is a column-major
 * C^T = B^T · A^T: so A and B change places, and nothing is copied. */
#include "executor/cuda/cuda_internal.h"
#include "executor/cuda/gemm.h"

void pp_cuda_gemm(pp_launch l, const pp_gemm *g) {
    pp_cuda_queue *queue = pp_cuda_current();
    const float alpha = (float)g->alpha, beta = (float)g->beta;
    const cudaDataType_t type = l.bf16 ? CUDA_R_16BF : CUDA_R_32F;
    if (g->m == 0 || g->n == 0 || g->k == 0) return;
    cublasStatus_t status = cublasGemmStridedBatchedEx(
        queue->blas, g->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
        g->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, (int)g->n, (int)g->m, (int)g->k, &alpha, g->b,
        type, (int)g->ldb, g->stride_b, g->a, type, (int)g->lda, g->stride_a, &beta, g->c, type,
        (int)g->ldc, g->stride_c, g->batch > 0 ? (int)g->batch : 1,
        queue->tf32 && !l.bf16 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
        CUBLAS_GEMM_DEFAULT);
    if (status != CUBLAS_STATUS_SUCCESS) pp_cuda_note(queue, cublasGetStatusString(status));
}
