/* Where the calling thread's work goes: each rank is a thread, and each has one queue. */
#ifndef PPSIM_EXECUTOR_CUDA_QUEUE_H
#define PPSIM_EXECUTOR_CUDA_QUEUE_H

#include "executor/cuda/launch.h"

#include <stdbool.h>
#include <stddef.h>

/* Launches of the calling thread, in fp32 or bf16. */
pp_launch pp_cuda_launch(bool bf16);

/* fp32 scratch of at least `count` numbers, of the queue and for its next kernels alone. */
float *pp_cuda_scratch(int64_t count);

/* Its workspace, which every library that works in its stream may use for one call. */
void *pp_cuda_workspace(size_t *size_bytes);

/* Where attention keeps what it knows of this queue; pp_attention_close closes that. */
void **pp_cuda_attention(void);

/* Which device it is on, and how many multiprocessors its slice has; 0: all. */
void pp_cuda_seat(int32_t *device, int32_t *multiprocessors);

/* Seconds of a run on the queue, of some in a row behind one that warms up; INFINITY: `run` said
 * that it cannot be had. Waits for the queue. */
double pp_cuda_seconds(bool (*run)(void *context), void *context);

/* Into the log of the program. */
void pp_cuda_say(bool warns, const char *text);
/* Work on the queue has failed: whoever waits for it is told. */
void pp_cuda_fail(const char *what);

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
