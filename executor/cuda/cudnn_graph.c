/* Descriptors: each is made, its attributes are set, it is finalized, and then others may name it
 * (cuDNN's documentation, "cudnn_graph Library"). All are kept until their plan is closed, whoever
 * of them the library still looks at. */
#include "executor/cuda/cudnn_graph.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { PROPOSALS = 8, MEMORY_ALIGNMENT = 16, BINDINGS = 24 };

/* ---- graphs -------------------------------------------------------------------------------- */

dnn_tensor dnn_packed(dnn_life life, int64_t id, int type, const int64_t dims[DNN_AXES]) {
    dnn_tensor tensor = {.id = id, .type = type, .life = life};
    int64_t stride = 1;
    for (int axis = DNN_AXES - 1; axis >= 0; axis--) {
        tensor.dims[axis] = dims[axis];
        tensor.strides[axis] = stride;
        stride *= dims[axis];
    }
    return tensor;
}

int dnn_add(dnn_graph *graph, dnn_tensor tensor) {
    assert(graph->tensor_count < DNN_TENSORS);
    if (tensor.life == DNN_VIRTUAL) tensor.id = DNN_FIRST_VIRTUAL + graph->tensor_count;
    graph->tensors[graph->tensor_count] = tensor;
    return graph->tensor_count++;
}

static int like(dnn_graph *graph, int x, int type) {
    return dnn_add(graph, dnn_packed(DNN_VIRTUAL, 0, type, graph->tensors[x].dims));
}

static int add_node(dnn_graph *graph, dnn_node node) {
    assert(graph->node_count < DNN_NODES);
    graph->nodes[graph->node_count++] = node;
    return node.y;
}

int dnn_pointwise(dnn_graph *graph, int mode, int x, int b, int t, int y) {
    if (y < 0) y = like(graph, x, DNN_DATA_FLOAT);
    return add_node(graph, (dnn_node){DNN_POINTWISE, mode, DNN_DATA_FLOAT, -1, x, b, t, y});
}

int dnn_index(dnn_graph *graph, int x, int64_t axis) {
    int y = like(graph, x, DNN_DATA_INT32);
    return add_node(graph, (dnn_node){DNN_POINTWISE, DNN_POINTWISE_GEN_INDEX, DNN_DATA_FLOAT, axis,
                                      x, -1, -1, y});
}

int dnn_compare(dnn_graph *graph, int mode, int x, int b) {
    int y = like(graph, x, DNN_DATA_BOOLEAN);
    return add_node(graph, (dnn_node){DNN_POINTWISE, mode, DNN_DATA_BOOLEAN, -1, x, b, -1, y});
}

int dnn_matmul(dnn_graph *graph, int x, int b, int y) {
    return add_node(graph, (dnn_node){DNN_MATMUL, 0, DNN_DATA_FLOAT, -1, x, b, -1, y});
}

int dnn_reduce(dnn_graph *graph, int mode, int x, int y) {
    return add_node(graph, (dnn_node){DNN_REDUCTION, mode, DNN_DATA_FLOAT, -1, x, -1, -1, y});
}

int dnn_reshape(dnn_graph *graph, int x, int y) {
    return add_node(graph, (dnn_node){DNN_RESHAPE, 0, DNN_DATA_FLOAT, -1, x, -1, -1, y});
}

/* ---- descriptors --------------------------------------------------------------------------- */

/* A plan being made: the first failure ends it, later calls do nothing. */
typedef struct maker {
    dnn_plan *plan;
    const dnn_functions *dnn;
    dnn_context *context;
    const char *doing;
    int status;
} maker;

static bool succeeds(maker *m, int status) {
    if (m->status == DNN_STATUS_SUCCESS) m->status = status;
    return m->status == DNN_STATUS_SUCCESS;
}

static dnn_descriptor make(maker *m, int type, const char *doing) {
    dnn_descriptor made = NULL;
    if (m->status != DNN_STATUS_SUCCESS) return NULL;
    assert(m->plan->made_count < DNN_DESCRIPTORS);
    m->doing = doing;
    if (!succeeds(m, m->dnn->make(type, &made))) return NULL;
    m->plan->made[m->plan->made_count++] = made;
    return made;
}

static void set(maker *m, dnn_descriptor made, int name, int type, int64_t count,
                const void *values) {
    if (m->status == DNN_STATUS_SUCCESS) succeeds(m, m->dnn->set(made, name, type, count, values));
}

static void set_descriptor(maker *m, dnn_descriptor made, int name, dnn_descriptor value) {
    set(m, made, name, DNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void finalize(maker *m, dnn_descriptor made) {
    if (m->status == DNN_STATUS_SUCCESS) succeeds(m, m->dnn->finalize(made));
}

static dnn_descriptor make_tensor(maker *m, const dnn_tensor *tensor) {
    dnn_descriptor made = make(m, DNN_BACKEND_TENSOR_DESCRIPTOR, "describing a tensor");
    int64_t alignment = MEMORY_ALIGNMENT;
    bool is_virtual = tensor->life == DNN_VIRTUAL, by_value = tensor->life == DNN_BY_VALUE;
    set(m, made, DNN_ATTR_TENSOR_UNIQUE_ID, DNN_TYPE_INT64, 1, &tensor->id);
    set(m, made, DNN_ATTR_TENSOR_DATA_TYPE, DNN_TYPE_DATA_TYPE, 1, &tensor->type);
    set(m, made, DNN_ATTR_TENSOR_DIMENSIONS, DNN_TYPE_INT64, DNN_AXES, tensor->dims);
    set(m, made, DNN_ATTR_TENSOR_STRIDES, DNN_TYPE_INT64, DNN_AXES, tensor->strides);
    set(m, made, DNN_ATTR_TENSOR_BYTE_ALIGNMENT, DNN_TYPE_INT64, 1, &alignment);
    set(m, made, DNN_ATTR_TENSOR_IS_VIRTUAL, DNN_TYPE_BOOLEAN, 1, &is_virtual);
    set(m, made, DNN_ATTR_TENSOR_IS_BY_VALUE, DNN_TYPE_BOOLEAN, 1, &by_value);
    finalize(m, made);
    return made;
}

/* How each kind is described: what it computes in a descriptor of its own (-1: it has none), then
 * the operation with its tensors. */
static const struct {
    const char *doing;
    int math_descriptor, math_type, mode, mode_type;
    int operation, operation_math, x, b, t, y;
} kinds[] = {
    [DNN_POINTWISE] = {"describing a pointwise operation", DNN_BACKEND_POINTWISE_DESCRIPTOR,
                       DNN_ATTR_POINTWISE_MATH_PREC, DNN_ATTR_POINTWISE_MODE,
                       DNN_TYPE_POINTWISE_MODE, DNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
                       DNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
                       DNN_ATTR_OPERATION_POINTWISE_XDESC, DNN_ATTR_OPERATION_POINTWISE_BDESC,
                       DNN_ATTR_OPERATION_POINTWISE_TDESC, DNN_ATTR_OPERATION_POINTWISE_YDESC},
    [DNN_MATMUL] = {"describing a product", DNN_BACKEND_MATMUL_DESCRIPTOR,
                    DNN_ATTR_MATMUL_COMP_TYPE, -1, -1, DNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR,
                    DNN_ATTR_OPERATION_MATMUL_DESC, DNN_ATTR_OPERATION_MATMUL_ADESC,
                    DNN_ATTR_OPERATION_MATMUL_BDESC, -1, DNN_ATTR_OPERATION_MATMUL_CDESC},
    [DNN_REDUCTION] = {"describing a reduction", DNN_BACKEND_REDUCTION_DESCRIPTOR,
                       DNN_ATTR_REDUCTION_COMP_TYPE, DNN_ATTR_REDUCTION_OPERATOR,
                       DNN_TYPE_REDUCTION_OPERATOR_TYPE, DNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR,
                       DNN_ATTR_OPERATION_REDUCTION_DESC, DNN_ATTR_OPERATION_REDUCTION_XDESC, -1,
                       -1, DNN_ATTR_OPERATION_REDUCTION_YDESC},
    [DNN_RESHAPE] = {"describing a reshape", -1, -1, -1, -1,
                     DNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, -1, DNN_ATTR_OPERATION_RESHAPE_XDESC,
                     -1, -1, DNN_ATTR_OPERATION_RESHAPE_YDESC},
};

static dnn_descriptor make_math(maker *m, const dnn_node *node) {
    dnn_descriptor made = make(m, kinds[node->kind].math_descriptor, kinds[node->kind].doing);
    set(m, made, kinds[node->kind].math_type, DNN_TYPE_DATA_TYPE, 1, &node->math);
    if (kinds[node->kind].mode >= 0)
        set(m, made, kinds[node->kind].mode, kinds[node->kind].mode_type, 1, &node->mode);
    if (node->axis >= 0) set(m, made, DNN_ATTR_POINTWISE_AXIS, DNN_TYPE_INT64, 1, &node->axis);
    finalize(m, made);
    return made;
}

static dnn_descriptor make_operation(maker *m, const dnn_node *node,
                                     const dnn_descriptor *tensors) {
    const bool has_math = kinds[node->kind].math_descriptor >= 0;
    dnn_descriptor math = has_math ? make_math(m, node) : NULL;
    dnn_descriptor made = make(m, kinds[node->kind].operation, kinds[node->kind].doing);
    if (has_math) set_descriptor(m, made, kinds[node->kind].operation_math, math);
    set_descriptor(m, made, kinds[node->kind].x, tensors[node->x]);
    if (node->b >= 0) set_descriptor(m, made, kinds[node->kind].b, tensors[node->b]);
    if (node->t >= 0) set_descriptor(m, made, kinds[node->kind].t, tensors[node->t]);
    set_descriptor(m, made, kinds[node->kind].y, tensors[node->y]);
    finalize(m, made);
    return made;
}

static dnn_descriptor make_graph(maker *m, const dnn_graph *graph) {
    dnn_descriptor tensors[DNN_TENSORS], operations[DNN_NODES];
    for (int i = 0; i < graph->tensor_count; i++) tensors[i] = make_tensor(m, &graph->tensors[i]);
    for (int i = 0; i < graph->node_count; i++)
        operations[i] = make_operation(m, &graph->nodes[i], tensors);
    dnn_descriptor made = make(m, DNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, "checking the graph");
    set(m, made, DNN_ATTR_OPERATIONGRAPH_HANDLE, DNN_TYPE_HANDLE, 1, &m->context);
    set(m, made, DNN_ATTR_OPERATIONGRAPH_OPS, DNN_TYPE_BACKEND_DESCRIPTOR, graph->node_count,
        operations);
    finalize(m, made);
    return made;
}

/* ---- engines ------------------------------------------------------------------------------- */

/* Engines that cuDNN proposes, the best first; returns how many. */
static int propose(maker *m, dnn_descriptor graph, dnn_descriptor *engines) {
    int mode = DNN_HEUR_MODE_A;
    int64_t found = 0;
    dnn_descriptor heuristics = make(m, DNN_BACKEND_ENGINEHEUR_DESCRIPTOR, "asking for engines");
    set_descriptor(m, heuristics, DNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(m, heuristics, DNN_ATTR_ENGINEHEUR_MODE, DNN_TYPE_HEUR_MODE, 1, &mode);
    finalize(m, heuristics);
    for (int i = 0; i < PROPOSALS; i++)
        engines[i] = make(m, DNN_BACKEND_ENGINECFG_DESCRIPTOR, "asking for engines");
    if (m->status != DNN_STATUS_SUCCESS) return 0;
    succeeds(m, m->dnn->get(heuristics, DNN_ATTR_ENGINEHEUR_RESULTS, DNN_TYPE_BACKEND_DESCRIPTOR,
                            PROPOSALS, &found, engines));
    if (m->status != DNN_STATUS_SUCCESS) return 0;
    return (int)(found < PROPOSALS ? found : PROPOSALS);
}

/* An engine that refuses the graph says so when its plan is finalized: then the next is tried. */
static bool plan_with(maker *m, dnn_descriptor engine, int64_t workspace_bytes) {
    int64_t bytes = 0, count = 0;
    dnn_descriptor made = make(m, DNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "making a plan");
    set(m, made, DNN_ATTR_EXECUTION_PLAN_HANDLE, DNN_TYPE_HANDLE, 1, &m->context);
    set_descriptor(m, made, DNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine);
    finalize(m, made);
    if (m->status != DNN_STATUS_SUCCESS) return false;
    if (!succeeds(m, m->dnn->get(made, DNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, DNN_TYPE_INT64, 1,
                                 &count, &bytes)) ||
        bytes > workspace_bytes)
        return false;
    m->plan->plan = made;
    m->plan->workspace_bytes = bytes;
    return true;
}

static void tell(char why[160], const maker *m, bool no_room) {
    if (m->status != DNN_STATUS_SUCCESS)
        snprintf(why, 160, "%s: %.100s", m->doing, m->dnn->error_text(m->status));
    else if (no_room)
        snprintf(why, 160, "%s", "its engines need more workspace than a rank has");
    else
        snprintf(why, 160, "%s", "it has no engine for this shape");
}

bool pp_dnn_plan_make(dnn_plan *plan, const dnn_functions *functions, dnn_context *context,
                      const dnn_graph *graph, int64_t workspace_bytes, char why[160]) {
    dnn_descriptor engines[PROPOSALS];
    bool no_room = false;
    *plan = (dnn_plan){.functions = functions};
    maker m = {.plan = plan, .dnn = functions, .context = context};
    dnn_descriptor described = make_graph(&m, graph);
    int proposed = propose(&m, described, engines);
    for (int i = 0; i < proposed; i++) {
        m.status = DNN_STATUS_SUCCESS;
        if (plan_with(&m, engines[i], workspace_bytes)) return true;
        no_room |= m.status == DNN_STATUS_SUCCESS;
    }
    tell(why, &m, no_room);
    pp_dnn_plan_close(plan);
    return false;
}

void pp_dnn_plan_close(dnn_plan *plan) {
    while (plan->made_count > 0) plan->functions->drop(plan->made[--plan->made_count]);
    plan->plan = NULL;
}

/* ---- running ------------------------------------------------------------------------------- */

bool pp_dnn_plan_run(const dnn_plan *plan, dnn_context *context, const dnn_binding *bindings,
                     int count, void *workspace, char why[160]) {
    dnn_plan call = {.functions = plan->functions}; /* keeps the pack */
    maker m = {.plan = &call, .dnn = plan->functions, .context = context};
    int64_t ids[BINDINGS];
    void *data[BINDINGS];
    assert(count <= BINDINGS);
    for (int i = 0; i < count; i++) {
        ids[i] = bindings[i].id;
        data[i] = bindings[i].data;
    }
    dnn_descriptor pack = make(&m, DNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "binding tensors");
    set(&m, pack, DNN_ATTR_VARIANT_PACK_UNIQUE_IDS, DNN_TYPE_INT64, count, ids);
    set(&m, pack, DNN_ATTR_VARIANT_PACK_DATA_POINTERS, DNN_TYPE_VOID_PTR, count, data);
    set(&m, pack, DNN_ATTR_VARIANT_PACK_WORKSPACE, DNN_TYPE_VOID_PTR, 1, &workspace);
    finalize(&m, pack);
    if (m.status == DNN_STATUS_SUCCESS) {
        m.doing = "running";
        succeeds(&m, m.dnn->execute(context, plan->plan, pack));
    }
    if (m.status != DNN_STATUS_SUCCESS) tell(why, &m, false);
    pp_dnn_plan_close(&call);
    return m.status == DNN_STATUS_SUCCESS;
}
