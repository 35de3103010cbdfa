/* Graphs of tensors and operations, and the plans that cuDNN makes of them.
 *
 * A graph is plain data: dnn_tensor and dnn_… functions below write it down, operations in an order
 * in which each finds its inputs. pp_dnn_plan_make turns it into cuDNN's descriptors and takes the
 * first engine that its heuristics propose and that finds room. */
#ifndef PPSIM_EXECUTOR_CUDNN_GRAPH_H
#define PPSIM_EXECUTOR_CUDNN_GRAPH_H

#include "executor/cuda/cudnn_library.h"

enum { DNN_TENSORS = 48, DNN_NODES = 40, DNN_AXES = 4, DNN_FIRST_VIRTUAL = 100 };

/* Virtual tensors live inside the engine alone. Numbers by value are read from the host. */
typedef enum dnn_life { DNN_IN_MEMORY, DNN_BY_VALUE, DNN_VIRTUAL } dnn_life;

typedef struct dnn_tensor {
    int64_t id; /* unique in the graph; of virtual ones from DNN_FIRST_VIRTUAL on */
    int64_t dims[DNN_AXES], strides[DNN_AXES]; /* elements */
    int type;                                  /* DNN_DATA_… */
    dnn_life life;
} dnn_tensor;

typedef enum dnn_kind { DNN_POINTWISE, DNN_MATMUL, DNN_REDUCTION, DNN_RESHAPE } dnn_kind;

/* y = mode(x[, b[, t]]); y = x · b over the last two axes; y = the sums (mode) of x along the axes
 * that y has less of; y = the bytes of x under other dims and strides. */
typedef struct dnn_node {
    dnn_kind kind;
    int mode;       /* DNN_POINTWISE_… or DNN_REDUCE_TENSOR_… */
    int math;       /* DNN_DATA_… in which it is computed */
    int64_t axis;   /* of DNN_POINTWISE_GEN_INDEX */
    int x, b, t, y; /* tensors by index; -1: none */
} dnn_node;

typedef struct dnn_graph {
    dnn_tensor tensors[DNN_TENSORS];
    int tensor_count;
    dnn_node nodes[DNN_NODES];
    int node_count;
} dnn_graph;

/* Packed [dims]. */
dnn_tensor dnn_packed(dnn_life life, int64_t id, int type, const int64_t dims[DNN_AXES]);
/* Adds a tensor; returns its index. A virtual one (id 0) gets the next id. */
int dnn_add(dnn_graph *graph, dnn_tensor tensor);
/* Adds an operation whose result is a new virtual tensor like `x`, or `y` where that is not -1;
 * returns the result's index. b, t: -1: none. */
int dnn_pointwise(dnn_graph *graph, int mode, int x, int b, int t, int y);
int dnn_index(dnn_graph *graph, int x, int64_t axis); /* an element's place along the axis */
int dnn_compare(dnn_graph *graph, int mode, int x, int b);
int dnn_matmul(dnn_graph *graph, int x, int b, int y);
int dnn_reduce(dnn_graph *graph, int mode, int x, int y);
int dnn_reshape(dnn_graph *graph, int x, int y);

/* ---- plans --------------------------------------------------------------------------------- */

enum { DNN_DESCRIPTORS = DNN_TENSORS + 2 * DNN_NODES + 32 };

typedef struct dnn_plan {
    const dnn_functions *functions;
    dnn_descriptor made[DNN_DESCRIPTORS]; /* all that the plan may refer to, in order of making */
    int made_count;
    dnn_descriptor plan;
    int64_t workspace_bytes;
} dnn_plan;

/* False: there is none, and `why` says in which step and cuDNN's words; nothing is left to close.
 * workspace_bytes: as much as an engine may ask for. */
bool pp_dnn_plan_make(dnn_plan *plan, const dnn_functions *functions, dnn_context *context,
                      const dnn_graph *graph, int64_t workspace_bytes, char why[160]);
void pp_dnn_plan_close(dnn_plan *plan);

/* What memory stands for a tensor of the graph. */
typedef struct dnn_binding {
    int64_t id;
    void *data;
} dnn_binding;

/* Ordered on the context's stream. False: nothing was begun, `why` says what cuDNN says. */
bool pp_dnn_plan_run(const dnn_plan *plan, dnn_context *context, const dnn_binding *bindings,
                     int count, void *workspace, char why[160]);

#endif
