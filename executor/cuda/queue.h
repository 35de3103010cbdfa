/* Where the calling thread's work goes: each rank is a thread, and each has one queue. */
#ifndef PPSIM_EXECUTOR_CUDA_QUEUE_H
#define PPSIM_EXECUTOR_CUDA_QUEUE_H

#include "executor/cuda/launch.h"

#include <stddef.h>

/* Launches of the calling thread, in fp32 or bf16. */
pp_launch pp_cuda_launch(bool bf16);

/* fp32 scratch of at least `count` numbers, of the queue and for its next kernels alone. */
float *pp_cuda_scratch(int64_t count);

/* Brings a number that the device has made to the host: it is there once the queue was waited for.
 */
double *pp_cuda_loss(void);
void pp_cuda_fetch_loss(double *loss);

/* Host memory to the device; `from` may be reused at once. */
void pp_cuda_upload(void *to, const void *from, size_t size_bytes);

/* Memory of the host for a while; NULL when there is none. */
void *pp_cuda_host_allocate(size_t size_bytes);
void pp_cuda_host_release(void *block);

#endif
