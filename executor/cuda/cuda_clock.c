/* How long work takes on a queue, by events of its stream. */
#include "executor/cuda/cuda_internal.h"
#include "executor/cuda/queue.h"

#include <math.h>

enum { RUNS = 5 };

static bool time_runs(bool (*run)(void *context), void *context, cudaEvent_t start, cudaEvent_t end,
                      float *elapsed_ms) {
    cudaStream_t stream = pp_cuda_current()->stream;
    if (!run(context) || cudaEventRecord(start, stream) != cudaSuccess) return false;
    for (int i = 0; i < RUNS; i++)
        if (!run(context)) return false;
    return cudaEventRecord(end, stream) == cudaSuccess &&
           cudaEventSynchronize(end) == cudaSuccess &&
           cudaEventElapsedTime(elapsed_ms, start, end) == cudaSuccess;
}

double pp_cuda_seconds(bool (*run)(void *context), void *context) {
    cudaEvent_t start = NULL, end = NULL;
    float elapsed_ms = 0;
    bool timed = cudaEventCreate(&start) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess &&
                 time_runs(run, context, start, end, &elapsed_ms);
    if (start) cudaEventDestroy(start);
    if (end) cudaEventDestroy(end);
    return timed ? (double)elapsed_ms * 1e-3 / RUNS : INFINITY;
}
