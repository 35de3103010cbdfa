/* A linear layer and what stands around it in one kernel, by cuBLASLt's epilogues: y = x A^T + b,
 * and beside it gelu(y), or a residual stream joined; and back, dx = (dy A) · gelu'.
 *
 * PPSIM_EPILOGUES says where: `on` (where the library can; the default), `measure` (the faster of
 * the fused kernel and its parts, shape by shape) or `off`. What it should compute is tested on the
 * host (tests/executor/launch_host.c), and that it does on a device by gpu_layers.
 *
 * As in cuda_gemm.c a row-major y is the column-major y^T = A x^T, with [out] rows, over which the
 * library adds its bias. The gelu epilogue writes gelu(x A^T + b), from sums in fp32, as the
 * product's result and x A^T + b itself as `aux`; the one that goes back reads that. Its leading
 * dimension must be a multiple of 8. */
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

/* One product of either direction: result = epilogue(factor · op(weight) [+ added]). */
typedef enum kind { PLAIN, GELU, SLOPE, JOIN } kind;

typedef struct fusion {
    kind kind;
    int64_t rows, in, out; /* of the layer: weight [out, in] */
    const void *factor, *weight, *bias, *added;
    void *aux, *result;
} fusion;

static fusion forward_of(const pp_linear *l) {
    return (fusion){.kind = l->activated  ? GELU
                            : l->residual ? JOIN
                                          : PLAIN,
                    .rows = l->rows,
                    .in = l->in,
                    .out = l->out,
                    .factor = l->x,
                    .weight = l->weight,
                    .bias = l->bias,
                    .added = l->residual,
                    .aux = l->activated ? l->y : NULL,
                    .result = l->activated ? l->activated : l->y};
}

static fusion back_of(const pp_linear_back *l) {
    return (fusion){.kind = SLOPE,
                    .rows = l->rows,
                    .in = l->in,
                    .out = l->out,
                    .factor = l->dy,
                    .weight = l->weight,
                    .aux = (void *)(uintptr_t)l->before,
                    .result = l->dx};
}

/* Features of the result. */
static int64_t width(const fusion *f) {
    return f->kind == SLOPE ? f->in : f->out;
}

static const cublasLtEpilogue_t epilogues_of[] = {[PLAIN] = CUBLASLT_EPILOGUE_BIAS,
                                                  [GELU] = CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
                                                  [SLOPE] = CUBLASLT_EPILOGUE_DGELU,
                                                  [JOIN] = CUBLASLT_EPILOGUE_BIAS};

/* One product as the library describes it; nothing of it is allocated. */
typedef struct product {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t weight, factor, result;
} product;

#define SET(p, attribute, value)                                                                   \
    (cublasLtMatmulDescSetAttribute(&(p)->operation, CUBLASLT_MATMUL_DESC_##attribute, &(value),   \
                                    sizeof(value)) == CUBLAS_STATUS_SUCCESS)

static bool set_epilogue(product *p, const fusion *f) {
    int64_t leading = width(f);
    if (!SET(p, EPILOGUE, epilogues_of[f->kind])) return false;
    if (f->bias && !SET(p, BIAS_POINTER, f->bias)) return false;
    return !f->aux || (SET(p, EPILOGUE_AUX_POINTER, f->aux) && SET(p, EPILOGUE_AUX_LD, leading));
}

static bool lay_out(cublasLtMatrixLayoutOpaque_t *layout, cudaDataType_t type, int64_t columns,
                    int64_t rows) {
    return cublasLtMatrixLayoutInit(layout, type, (uint64_t)columns, (uint64_t)rows, columns) ==
           CUBLAS_STATUS_SUCCESS;
}

static bool describe(product *p, const pp_cuda_queue *queue, bool bf16, const fusion *f) {
    cudaDataType_t type = bf16 ? CUDA_R_16BF : CUDA_R_32F;
    cublasComputeType_t compute =
        queue->tf32 && !bf16 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasOperation_t turned = f->kind == SLOPE ? CUBLAS_OP_N : CUBLAS_OP_T;
    int64_t inner = f->kind == SLOPE ? f->out : f->in;
    return cublasLtMatmulDescInit(&p->operation, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           SET(p, TRANSA, turned) && lay_out(&p->weight, type, f->in, f->out) &&
           lay_out(&p->factor, type, inner, f->rows) &&
           lay_out(&p->result, type, width(f), f->rows) && set_epilogue(p, f);
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
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        (cublasLtHandle_t)queue->blas, &p->operation, &p->weight, &p->factor, &p->result,
        &p->result, &preference, 1, &result, &found);
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

static pp_choice_key key_of(bool bf16, const fusion *f) {
    pp_choice_key key;
    memset(&key, 0, sizeof key); /* it is compared byte by byte */
    key.rows = f->rows;
    key.in = f->in;
    key.out = f->out;
    key.bf16 = bf16;
    key.epilogue = f->kind;
    pp_cuda_seat(&key.device, &key.multiprocessors);
    return key;
}

/* ---- both ways ----------------------------------------------------------------------------- */

/* False: the library has no such kernel. */
static bool run_fused(pp_launch launch, const fusion *f) {
    pp_cuda_queue *queue = pp_cuda_current();
    const float one = 1, beta = f->added ? 1 : 0;
    pp_choice_key key = key_of(launch.bf16, f);
    product p;
    if (!describe(&p, queue, launch.bf16, f)) return false;
    const cublasLtMatmulAlgo_t *algorithm = algorithm_for(queue, &p, &key);
    if (!algorithm) return false;
    cublasStatus_t status = cublasLtMatmul(
        (cublasLtHandle_t)queue->blas, &p.operation, &one, f->weight, &p.weight, f->factor,
        &p.factor, &beta, f->added ? f->added : f->result, &p.result, f->result, &p.result,
        algorithm, queue->workspace, PP_CUDA_WORKSPACE_BYTES, queue->stream);
    if (status != CUBLAS_STATUS_SUCCESS) pp_cuda_note(queue, cublasGetStatusString(status));
    return true;
}

typedef struct contest {
    pp_launch launch;
    const fusion *fusion;
    void (*parts)(pp_launch launch, const void *layer);
    const void *layer;
} contest;

static bool run_contest(void *context) {
    const contest *c = context;
    return run_fused(c->launch, c->fusion);
}

static bool run_parts(void *context) {
    const contest *c = context;
    c->parts(c->launch, c->layer);
    return true;
}

/* Both ways write the same tensors, so that running them again changes nothing. */
static double time_way(void *context, bool fused) {
    return pp_cuda_seconds(fused ? run_contest : run_parts, context);
}

static bool is_faster_fused(contest *c) {
    static const char *const names[] = {
        [PLAIN] = "bias", [GELU] = "bias and gelu", [SLOPE] = "slope of gelu"};
    const fusion *f = c->fusion;
    pp_choice_key key = key_of(c->launch.bf16, f);
    pp_choice choice = pp_choose(&key, time_way, c);
    if (choice.fresh)
        pp_cuda_host->log(PP_LOG_INFO, "executor",
                          "%s behind [%lld, %lld] x [%lld]: %.1f us fused, %.1f us in parts",
                          names[f->kind], (long long)f->rows, (long long)f->in, (long long)f->out,
                          1e6 * choice.fused_s, 1e6 * choice.parts_s);
    return choice.fused;
}

/* A residual stream is always joined where it can be: a second time would add it again. */
static bool run(contest *c) {
    const fusion *f = c->fusion;
    pthread_once(&once, read_mode);
    bool possible = f->rows > 0 && f->in > 0 && f->out > 0 && (!f->aux || width(f) % 8 == 0);
    if (mode == EPILOGUES_OFF || !possible) return false;
    if (mode == EPILOGUES_MEASURE && f->kind != JOIN && !is_faster_fused(c)) return false;
    return run_fused(c->launch, f);
}

static void forward_in_parts(pp_launch launch, const void *layer) {
    pp_linear_in_parts(launch, layer);
}

bool pp_cuda_linear(pp_launch launch, const pp_linear *l) {
    fusion f = forward_of(l);
    return run(&(contest){launch, &f, forward_in_parts, l});
}

static void back_in_parts(pp_launch launch, const void *layer) {
    pp_linear_back_in_parts(launch, layer);
}

bool pp_cuda_linear_back(pp_launch launch, const pp_linear_back *l) {
    fusion f = back_of(l);
    return run(&(contest){launch, &f, back_in_parts, l});
}
