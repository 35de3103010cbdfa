/* Which of two ways to compute the same is faster here: measured once for each shape. */
#ifndef PPSIM_EXECUTOR_CUDA_CHOICE_H
#define PPSIM_EXECUTOR_CUDA_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

/* A linear layer [rows, in] → [rows, out]; or, where there are heads, attention: rows samples of
 * `in` positions, heads of `out` features. */
typedef struct pp_choice_key {
    int64_t rows, in, out;
    int64_t heads, kv_heads;
    int32_t bf16, epilogue, causal;
    int32_t device, multiprocessors; /* of the slice; 0: all */
    int32_t unused;                  /* 0: keys are compared byte by byte */
} pp_choice_key;

typedef struct pp_choice {
    bool fused;
    bool fresh; /* it was measured by this call: */
    double fused_s, parts_s;
} pp_choice;

/* Seconds of one way; INFINITY: it cannot be had. */
typedef double pp_choice_time(void *context, bool fused);

/* The first call for a key measures, in its own thread, while others of the key wait: so all ranks
 * of a process choose alike. A tie, a failure or a full table takes the parts. */
pp_choice pp_choose(const pp_choice_key *key, pp_choice_time *time, void *context);

#endif
