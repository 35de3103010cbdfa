/* The CPU backend's attention in double precision, forward and backward. */
#ifndef PPSIM_TESTS_ATTEND_REFERENCE_H
#define PPSIM_TESTS_ATTEND_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct attend_reference {
    int64_t samples, sequence, heads, kv_heads, size;
    bool causal;
    const double *qkv, *attended_gradient;
    double *probabilities, *score_gradient; /* scratch, as in executor/layers/kernels_declared.h */
    double *attended, *qkv_gradient;        /* results */
} attend_reference;

void attend_as_on_the_cpu(const attend_reference *a);

#endif
