/* What the cuda backend does with blocks of memory besides running layers (executor/backend.h). The
 * state is not looked at: work goes to the calling thread's queue. */
#ifndef PPSIM_EXECUTOR_CUDA_MEMORY_H
#define PPSIM_EXECUTOR_CUDA_MEMORY_H

#include "executor/layer.h"

void pp_cuda_copy(void *state, void *to, const void *from, size_t size_bytes);
void pp_cuda_fill(void *state, void *block, int byte, size_t size_bytes);
void pp_cuda_add(void *state, pp_dtype dtype, void *sum, const void *added, int64_t count);
void pp_cuda_step(void *state, const pp_optimizer_settings *settings, pp_dtype dtype, int64_t step,
                  int64_t count, void *weights, const void *gradient, void *const *states);
void pp_cuda_square_sum(void *state, pp_dtype dtype, const void *values, int64_t count,
                        double *sum);
void pp_cuda_make_master(void *state, int64_t count, const void *weights, void *master);

#endif
