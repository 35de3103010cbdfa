#define PP_THIS_FILE "tests/executor/attend_reference.c"
#ifndef PP_REAL_PASS
#include "attend_reference.h"
#endif
#include "executor/layers/real.h"

#if defined(real) && REAL_IS_DOUBLE

void attend_as_on_the_cpu(const attend_reference *a) {
    attend_call call = {.samples = a->samples,
                        .sequence = a->sequence,
                        .heads = a->heads,
                        .kv_heads = a->kv_heads,
                        .size = a->size,
                        .causal = a->causal,
                        .qkv = a->qkv,
                        .probabilities = a->probabilities,
                        .attended = a->attended,
                        .attended_gradient = a->attended_gradient,
                        .qkv_gradient = a->qkv_gradient,
                        .score_gradient = a->score_gradient};
    attend_forward(&call);
    attend_input(&call);
}

#endif
