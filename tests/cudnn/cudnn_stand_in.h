/* How a test steers the stand-in for cuDNN: the library exports one `dnn_control`. */
#ifndef PPSIM_TESTS_CUDNN_STAND_IN_H
#define PPSIM_TESTS_CUDNN_STAND_IN_H

#include <stddef.h>
#include <stdint.h>

enum { DNN_STAND_IN_ENGINES = 3 };

typedef struct dnn_stand_in {
    void *(*host)(const void *address); /* where the host finds device memory */
    size_t version;                     /* 0: 9.19.0 */
    int fail_at;                        /* the n-th call from now is refused; 0: none */
    int engines;                        /* that the heuristics propose; 0: 1; below 0: none */
    int refusing;                       /* the first so many refuse when their plan is finalized */
    int64_t workspace_bytes[DNN_STAND_IN_ENGINES]; /* of each engine */
    /* counted */
    int calls, contexts, live, made, finalized, executed;
    int tensors, virtual_tensors, operations; /* of the last graph that was finalized */
    int wrong;                                /* calls against the rules: the first is in `first` */
    char first[160];
} dnn_stand_in;

#endif
