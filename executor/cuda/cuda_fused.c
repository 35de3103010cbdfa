/* A linear layer and what follows it in one kernel, by cuBLASLt's epilogues: y = x A^T + b, and
 * beside it gelu(y).
 *
 * PPSIM_EPILOGUES says where: `on` (where the library can; the default), `measure` (the faster of
 * the fused kernel and its parts, shape by shape) or `off`. What it should compute is tested on the
 * host (tests/executor/launch_host.c), and that it does on a device by gpu_layers.
 *
 * As in cuda_gemm.c a row-major y is the column-major y^T = A x^T, with [out] rows, over which the
 * library adds its bias. The gelu epilogue writes gelu(x A^T + b), from sums in fp32, as the
 * product's result and x A^T + b itself as `aux`, whose leading dimension must be a multiple of 8.
 */
#include "executor/cuda/choice.h"
#include "executor/cuda/cuda_internal.h"
#include "executor/cuda/gemm.h"
#include "executor/cuda/queue.h"

#include <cublasLt.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT = 64, ALIGNMENT = 64 /* of every tensor (core/layout.c) */ };

typedef enum epilogues { EPILOGUES_OFF, EPILOGUES_MEASURE, EPILOGUES_ON } epilogues;

static epilogues mode = EPILOGUES_ON;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_mode(void) {
    const char *wish = getenv("PPSIM_EPILOGUES");
    if (!wish || strcmp(wish, "on") == 0) return;
    if (strcmp(wish, "off") == 0)
        mode = EPILOGUES_OFF;
    else if (strcmp(wish, "measure") == 0)
        mode = EPILOGUES_MEASURE;
    else
        pp_cuda_host->log(PP_LOG_WARNING, "executor",
                          "PPSIM_EPILOGUES is '%.40s'; known are off, measure and on: on", wish);
}

/* ---- what the library is asked ------------------------------------------------------------- */

/* One product as the library describes it; nothing of it is allocated. */
typedef struct product {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t weight, x, y;
} product;

#define SET(p, attribute, value)                                                                   \
    (cublasLtMatmulDescSetAttribute(&(p)->operation, CUBLASLT_MATMUL_DESC_##attribute, &(value),   \
                                    sizeof(value)) == CUBLAS_STATUS_SUCCESS)

static bool set_epilogue(product *p, const pp_linear *l) {
    cublasLtEpilogue_t plain = CUBLASLT_EPILOGUE_BIAS, gelu = CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    const void *bias = l->bias;
    void *aux = l->y;
    int64_t leading = l->out;
    if (!SET(p, BIAS_POINTER, bias)) return false;
    if (!l->activated) return SET(p, EPILOGUE, plain);
    return SET(p, EPILOGUE, gelu) && SET(p, EPILOGUE_AUX_POINTER, aux) &&
           SET(p, EPILOGUE_AUX_LD, leading);
}

static bool describe(product *p, const pp_cuda_queue *queue, bool bf16, const pp_linear *l) {
    cudaDataType_t type = bf16 ? CUDA_R_16BF : CUDA_R_32F;
    cublasComputeType_t compute =
        queue->tf32 && !bf16 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasOperation_t transposed = CUBLAS_OP_T;
    uint64_t rows = (uint64_t)l->rows, in = (uint64_t)l->in, out = (uint64_t)l->out;
    return cublasLtMatmulDescInit(&p->operation, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           SET(p, TRANSA, transposed) &&
           cublasLtMatrixLayoutInit(&p->weight, type, in, out, l->in) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutInit(&p->x, type, in, rows, l->in) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutInit(&p->y, type, out, rows, l->out) == CUBLAS_STATUS_SUCCESS &&
           set_epilogue(p, l);
}

static bool prefer(cublasLtMatmulPreferenceOpaque_t *preference) {
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    uint32_t alignment = ALIGNMENT;
    size_t workspace = PP_CUDA_WORKSPACE_BYTES;
    bool set =
        cublasLtMatmulPreferenceInit(preference) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace, sizeof workspace) == CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; set && i < sizeof aligned / sizeof *aligned; i++)
        set = cublasLtMatmulPreferenceSetAttribute(preference, aligned[i], &alignment,
                                                   sizeof alignment) == CUBLAS_STATUS_SUCCESS;
    return set;
}

/* The library's first proposal; false: it has none for this epilogue and shape. */
static bool propose(const pp_cuda_queue *queue, product *p, cublasLtMatmulAlgo_t *algorithm) {
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    if (!prefer(&preference)) return false;
    cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic((cublasLtHandle_t)queue->blas, &p->operation, &p->weight,
                                       &p->x, &p->y, &p->y, &preference, 1, &result, &found);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0) return false;
    *algorithm = result.algo;
    return result.state == CUBLAS_STATUS_SUCCESS;
}

/* ---- proposals, kept ----------------------------------------------------------------------- */

static _Thread_local struct {
    pp_choice_key key;
    bool there;
    cublasLtMatmulAlgo_t algorithm;
} kept[KEPT];
static _Thread_local int kept_count;

static const cublasLtMatmulAlgo_t *algorithm_for(const pp_cuda_queue *queue, product *p,
                                                 const pp_choice_key *key) {
    int i = 0;
    while (i < kept_count && memcmp(&kept[i].key, key, sizeof *key) != 0) i++;
    if (i == KEPT) return NULL;
    if (i == kept_count) {
        kept[i].key = *key;
        kept[i].there = propose(queue, p, &kept[i].algorithm);
        kept_count++;
    }
    return kept[i].there ? &kept[i].algorithm : NULL;
}

static pp_choice_key key_of(bool bf16, const pp_linear *l) {
    pp_choice_key key;
    memset(&key, 0, sizeof key); /* it is compared byte by byte */
    key.rows = l->rows;
    key.in = l->in;
    key.out = l->out;
    key.bf16 = bf16;
    key.gelu = l->activated != NULL;
    pp_cuda_seat(&key.device, &key.multiprocessors);
    return key;
}

/* ---- both ways ----------------------------------------------------------------------------- */

/* False: the library has no such kernel. */
static bool run_fused(pp_launch launch, const pp_linear *l) {
    pp_cuda_queue *queue = pp_cuda_current();
    const float one = 1, zero = 0;
    pp_choice_key key = key_of(launch.bf16, l);
    product p;
    if (!describe(&p, queue, launch.bf16, l)) return false;
    const cublasLtMatmulAlgo_t *algorithm = algorithm_for(queue, &p, &key);
    if (!algorithm) return false;
    void *result = l->activated ? l->activated : l->y;
    cublasStatus_t status =
        cublasLtMatmul((cublasLtHandle_t)queue->blas, &p.operation, &one, l->weight, &p.weight,
                       l->x, &p.x, &zero, result, &p.y, result, &p.y, algorithm, queue->workspace,
                       PP_CUDA_WORKSPACE_BYTES, queue->stream);
    if (status != CUBLAS_STATUS_SUCCESS) pp_cuda_note(queue, cublasGetStatusString(status));
    return true;
}

typedef struct contest {
    pp_launch launch;
    const pp_linear *linear;
} contest;

static bool run_contest(void *context) {
    const contest *c = context;
    return run_fused(c->launch, c->linear);
}

static bool run_parts(void *context) {
    const contest *c = context;
    pp_linear_in_parts(c->launch, c->linear);
    return true;
}

/* Both ways write the same tensors, so that running them again changes nothing. */
static double time_way(void *context, bool fused) {
    return pp_cuda_seconds(fused ? run_contest : run_parts, context);
}

static bool is_faster_fused(pp_launch launch, const pp_linear *l) {
    contest c = {launch, l};
    pp_choice_key key = key_of(launch.bf16, l);
    pp_choice choice = pp_choose(&key, time_way, &c);
    if (choice.fresh)
        pp_cuda_host->log(PP_LOG_INFO, "executor",
                          "bias%s behind [%lld, %lld] x [%lld]: %.1f us fused, %.1f us in parts",
                          l->activated ? " and gelu" : "", (long long)l->rows, (long long)l->in,
                          (long long)l->out, 1e6 * choice.fused_s, 1e6 * choice.parts_s);
    return choice.fused;
}

bool pp_cuda_linear(pp_launch launch, const pp_linear *l) {
    pthread_once(&once, read_mode);
    bool possible = l->rows > 0 && l->in > 0 && l->out > 0 && (!l->activated || l->out % 8 == 0);
    if (mode == EPILOGUES_OFF || !possible) return false;
    if (mode == EPILOGUES_MEASURE && !is_faster_fused(launch, l)) return false;
    return run_fused(launch, l);
}
