/* What the files of the stand-in for cuDNN share. */
#ifndef PPSIM_TESTS_STAND_IN_GRAPH_H
#define PPSIM_TESTS_STAND_IN_GRAPH_H

#include "cudnn_stand_in.h"
#include "executor/cuda/cudnn_abi.h"

#include <stdbool.h>

enum { ATTRIBUTES = 12 };

typedef struct attribute {
    int name, type;
    int64_t count;
    void *values;
} attribute;

typedef struct descriptor {
    int type;
    bool finalized;
    int engine;               /* of an engine's configuration or a plan */
    struct descriptor *graph; /* likewise */
    attribute attributes[ATTRIBUTES];
    int attribute_count;
} descriptor;

/* The attribute's values, or NULL: it was not set. */
const void *dnn_values(const descriptor *d, int name, int64_t *count);
int64_t dnn_number(const descriptor *d, int name); /* int64 or int or bool; -1: not set */
descriptor *dnn_other(const descriptor *d, int name);

/* Computes every operation of the graph in fp32, in order. `data` finds a tensor's memory by id. */
void dnn_evaluate(const descriptor *graph, void *(*data)(void *context, int64_t id), void *context);

#endif
