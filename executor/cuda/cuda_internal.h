/* What the files of the cuda plugin share that know CUDA. */
#ifndef PPSIM_EXECUTOR_CUDA_INTERNAL_H
#define PPSIM_EXECUTOR_CUDA_INTERNAL_H

#include "executor/plugin.h"

#include <cublas_v2.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

extern const pp_host *pp_cuda_host; /* set when the plugin is opened */

/* ---- slices -------------------------------------------------------------------------------- */

/* A share of a device's multiprocessors: a green context. All NULL: the whole device. */
typedef struct pp_cuda_slice {
    CUgreenCtx green;
    CUcontext context;
    unsigned multiprocessors;
} pp_cuda_slice;

/* Cuts a device into `count` equal slices, in one call, since separate ones would overlap: the
 * first caller does, the others get theirs of the same cut. Makes slice `index` current in this
 * thread. False where the driver cannot or the device is too small: the reason is in `why`. */
bool pp_cuda_slice_take(int device, int index, int count, pp_cuda_slice *slice, char why[160]);

/* Into how many slices the device can be cut; 0: not at all. */
int pp_cuda_slices_most(int device);

/* Makes a slice that was taken current in another thread. */
bool pp_cuda_slice_enter(const pp_cuda_slice *slice, char why[160]);

#define PP_CUDA_WORKSPACE_BYTES ((size_t)32 << 20) /* of cuBLAS, for each rank */

/* ---- queues -------------------------------------------------------------------------------- */

/* Where the work of one rank goes. */
typedef struct pp_cuda_queue {
    int device;
    pp_cuda_slice slice;
    cudaStream_t stream;
    cublasHandle_t blas;
    void *workspace; /* cuBLAS's own, so that it allocates nothing inside a step */
    float *scratch;  /* of kernels */
    int64_t scratch_count;
    double *loss;    /* of the last microbatch, on the device … */
    double *seen;    /* … and where the host sees it (pinned) once the queue is waited for … */
    double *fetched; /* … and who wants it then; NULL: nobody */
    void *attention; /* what cudnn_attention.c keeps, or NULL */
    bool tf32;      /* fp32 products in TF32 */
    char note[160]; /* the first failure that is not CUDA's sticky one; "" if none */
} pp_cuda_queue;

pp_cuda_queue *pp_cuda_current(void); /* of the calling thread */
/* Keeps the first failure until the queue is waited for. */
void pp_cuda_note(pp_cuda_queue *queue, const char *what);

/* ---- side queues (executor/backend.h) ------------------------------------------------------ */

pp_side_queue *pp_cuda_side_open(void *state);
void pp_cuda_side_close(pp_side_queue *side);
pp_status pp_cuda_side_enter(pp_side_queue *side, pp_error *error);
void *pp_cuda_side_stream(pp_side_queue *side);
pp_status pp_cuda_side_mark(pp_side_queue *side, void **mark, pp_error *error);
pp_status pp_cuda_side_passed(pp_side_queue *side, void *mark, bool *passed, pp_error *error);
void pp_cuda_side_forget(pp_side_queue *side, void *mark);

/* ---- the backend --------------------------------------------------------------------------- */

extern const pp_backend pp_cuda_backend;

#endif
