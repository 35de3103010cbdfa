/* Attention of the cuda plugin in one kernel, where that was asked for; else in parts. */
#ifndef PPSIM_EXECUTOR_CUDA_ATTENTION_H
#define PPSIM_EXECUTOR_CUDA_ATTENTION_H

#include "executor/cuda/launch.h"

/* As attend_call in executor/layers/kernels_declared.h, without dropout. */
typedef struct pp_attention {
    int64_t samples, sequence, heads, kv_heads, size;
    bool causal;
    const void *qkv;
    void *kept; /* [samples · heads · sequence, sequence]: the place of the probabilities */
    void *attended;
    const void *attended_gradient;             /* I */
    void *qkv_gradient;                        /* I */
    void (*in_parts)(const void *call); /* F the other way, for measuring */
    const void *call; /* of in_parts */
} pp_attention;

/* False: nothing is done, take the parts. I goes the way that F went for the same shape on the same
 * queue, since what F keeps differs. */
bool pp_attention_forward(pp_launch l, const pp_attention *attention);
bool pp_attention_input(pp_launch l, const pp_attention *attention);

/* What a queue keeps of it, pp_cuda_attention() of queue.h; before its stream goes. */
void pp_attention_close(void *state);

#endif
