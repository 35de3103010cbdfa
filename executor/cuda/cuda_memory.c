/* Blocks of memory: copies, sums of gradients, the optimizer. */
#include "executor/cuda/cuda_memory.h"

#include "executor/cuda/arithmetic.h"
#include "executor/cuda/queue.h"

#include <math.h>

void pp_cuda_copy(void *state, void *to, const void *from, size_t size_bytes) {
    (void)state;
    pp_launch_copy_bytes(pp_cuda_launch(false), to, from, (int64_t)size_bytes);
}

void pp_cuda_fill(void *state, void *block, int byte, size_t size_bytes) {
    (void)state;
    pp_launch_fill_bytes(pp_cuda_launch(false), block, byte, (int64_t)size_bytes);
}

void pp_cuda_add(void *state, pp_dtype dtype, void *sum, const void *added, int64_t count) {
    (void)state;
    pp_launch_copy_or_add(pp_cuda_launch(dtype == PP_BF16), count, added, sum, true);
}

static pp_step_factors factors_of(const pp_optimizer_settings *s, int64_t step) {
    return (pp_step_factors){.adamw = s->kind == PP_ADAMW,
                             .rate = (float)s->learning_rate,
                             .beta1 = (float)s->beta1,
                             .beta2 = (float)s->beta2,
                             .epsilon = (float)s->epsilon,
                             .decay = (float)s->weight_decay,
                             .momentum = (float)s->momentum,
                             .correct1 = (float)(1 / (1 - pow(s->beta1, (double)step))),
                             .correct2 = (float)(1 / (1 - pow(s->beta2, (double)step))),
                             .gradient = (float)s->gradient_factor};
}

void pp_cuda_step(void *state, const pp_optimizer_settings *settings, pp_dtype dtype, int64_t step,
                  int64_t count, void *weights, const void *gradient, void *const *states) {
    (void)state;
    bool bf16 = dtype == PP_BF16;
    int masters = bf16 ? 1 : 0, moments = settings->kind == PP_ADAMW ? 2 : 1;
    pp_step_factors factors = factors_of(settings, step);
    pp_launch_step(pp_cuda_launch(bf16), &factors, count, weights, gradient,
                   masters ? states[moments] : NULL, states[0], moments > 1 ? states[1] : NULL);
}

void pp_cuda_square_sum(void *state, pp_dtype dtype, const void *values, int64_t count,
                        double *sum) {
    (void)state;
    void *parts = pp_cuda_scratch(2 * PP_SQUARE_PARTS); /* doubles */
    if (parts) pp_launch_square_sum(pp_cuda_launch(dtype == PP_BF16), count, values, parts, sum);
}

void pp_cuda_make_master(void *state, int64_t count, const void *weights, void *master) {
    (void)state;
    pp_launch_widen(pp_cuda_launch(true), count, weights, master);
}
