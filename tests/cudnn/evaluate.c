/* Graphs of the stand-in for cuDNN, computed: each operation in fp32 over all its elements, results
 * rounded to the type of their tensor. Tensors that are not in memory get some for a while. */
#include "stand_in_graph.h"

#include "executor/cuda/arithmetic.h"

#include <math.h>
#include <stdlib.h>

enum { TENSORS = 64, AXES = 4 };

typedef struct tensor {
    const descriptor *described;
    const int64_t *dims, *strides;
    int64_t type;
    void *data;
    float *own; /* of a virtual tensor: fp32 whatever its type, which only rounds */
} tensor;

typedef struct evaluation {
    tensor tensors[TENSORS];
    int count;
    void *(*data)(void *context, int64_t id);
    void *context;
} evaluation;

static int64_t span(const tensor *t) {
    int64_t last = 0;
    for (int axis = 0; axis < AXES; axis++) last += (t->dims[axis] - 1) * t->strides[axis];
    return last + 1;
}

static tensor *tensor_of(evaluation *e, const descriptor *operation, int name) {
    const descriptor *described = dnn_other(operation, name);
    if (!described) return NULL;
    for (int i = 0; i < e->count; i++)
        if (e->tensors[i].described == described) return &e->tensors[i];
    tensor *t = &e->tensors[e->count++];
    *t = (tensor){.described = described,
                  .dims = dnn_values(described, DNN_ATTR_TENSOR_DIMENSIONS, NULL),
                  .strides = dnn_values(described, DNN_ATTR_TENSOR_STRIDES, NULL),
                  .type = dnn_number(described, DNN_ATTR_TENSOR_DATA_TYPE)};
    if (dnn_number(described, DNN_ATTR_TENSOR_IS_VIRTUAL) > 0)
        t->own = malloc((size_t)span(t) * sizeof *t->own);
    else
        t->data = e->data(e->context, dnn_number(described, DNN_ATTR_TENSOR_UNIQUE_ID));
    return t;
}

static float load_at(const tensor *t, int64_t at) {
    if (t->own) return t->own[at];
    return t->type == DNN_DATA_BFLOAT16 ? bf16_to_float(((const uint16_t *)t->data)[at])
                                        : ((const float *)t->data)[at];
}

static void save_at(tensor *t, int64_t at, float value) {
    if (t->type == DNN_DATA_BFLOAT16) value = bf16_to_float(bf16_from_float(value));
    if (t->own)
        t->own[at] = value;
    else if (t->type == DNN_DATA_BFLOAT16)
        ((uint16_t *)t->data)[at] = bf16_from_float(value);
    else
        ((float *)t->data)[at] = value;
}

/* Where an element of another tensor's shape is in this one: axes of 1 are shared, and so are heads
 * where there are fewer. */
static int64_t offset(const tensor *t, const int64_t index[AXES], const int64_t dims[AXES]) {
    int64_t at = 0;
    for (int axis = 0; axis < AXES; axis++) {
        int64_t i = dims[axis] > 0 ? index[axis] / (dims[axis] / t->dims[axis]) : 0;
        at += i * t->strides[axis];
    }
    return at;
}

#define EACH(index, dims)                                                                          \
    for (int64_t index[AXES] = {0}; index[0] < (dims)[0]; index[0]++)                              \
        for (index[1] = 0; index[1] < (dims)[1]; index[1]++)                                       \
            for (index[2] = 0; index[2] < (dims)[2]; index[2]++)                                   \
                for (index[3] = 0; index[3] < (dims)[3]; index[3]++)

static float compute(int64_t mode, float x, float b, float t) {
    switch (mode) {
    case DNN_POINTWISE_ADD:
        return x + b;
    case DNN_POINTWISE_SUB:
        return x - b;
    case DNN_POINTWISE_MUL:
        return x * b;
    case DNN_POINTWISE_DIV:
        return x / b;
    case DNN_POINTWISE_EXP:
        return expf(x);
    case DNN_POINTWISE_LOG:
        return logf(x);
    case DNN_POINTWISE_IDENTITY:
        return x;
    case DNN_POINTWISE_CMP_GE:
        return x >= b;
    case DNN_POINTWISE_BINARY_SELECT:
        return t != 0 ? x : b;
    default:
        return NAN;
    }
}

static void pointwise(evaluation *e, const descriptor *operation) {
    const descriptor *math = dnn_other(operation, DNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    const int64_t mode = dnn_number(math, DNN_ATTR_POINTWISE_MODE);
    const int64_t axis = dnn_number(math, DNN_ATTR_POINTWISE_AXIS);
    const tensor *x = tensor_of(e, operation, DNN_ATTR_OPERATION_POINTWISE_XDESC);
    const tensor *b = tensor_of(e, operation, DNN_ATTR_OPERATION_POINTWISE_BDESC);
    const tensor *t = tensor_of(e, operation, DNN_ATTR_OPERATION_POINTWISE_TDESC);
    tensor *y = tensor_of(e, operation, DNN_ATTR_OPERATION_POINTWISE_YDESC);
    EACH(i, y->dims) {
        float value = mode == DNN_POINTWISE_GEN_INDEX
                          ? (float)i[axis]
                          : compute(mode, load_at(x, offset(x, i, y->dims)),
                                    b ? load_at(b, offset(b, i, y->dims)) : 0,
                                    t ? load_at(t, offset(t, i, y->dims)) : 0);
        save_at(y, offset(y, i, y->dims), value);
    }
}

static void matmul(evaluation *e, const descriptor *operation) {
    const tensor *a = tensor_of(e, operation, DNN_ATTR_OPERATION_MATMUL_ADESC);
    const tensor *b = tensor_of(e, operation, DNN_ATTR_OPERATION_MATMUL_BDESC);
    tensor *c = tensor_of(e, operation, DNN_ATTR_OPERATION_MATMUL_CDESC);
    EACH(i, c->dims) {
        float sum = 0;
        int64_t left = i[0] * a->strides[0] + i[1] * a->strides[1] + i[2] * a->strides[2];
        int64_t right = i[0] * b->strides[0] + i[1] / (c->dims[1] / b->dims[1]) * b->strides[1] +
                        i[3] * b->strides[3];
        for (int64_t k = 0; k < a->dims[3]; k++)
            sum += load_at(a, left + k * a->strides[3]) * load_at(b, right + k * b->strides[2]);
        save_at(c, offset(c, i, c->dims), sum);
    }
}

/* Sums or maxima of what falls together in y. */
static void reduction(evaluation *e, const descriptor *operation) {
    const descriptor *math = dnn_other(operation, DNN_ATTR_OPERATION_REDUCTION_DESC);
    const bool max = dnn_number(math, DNN_ATTR_REDUCTION_OPERATOR) == DNN_REDUCE_TENSOR_MAX;
    const tensor *x = tensor_of(e, operation, DNN_ATTR_OPERATION_REDUCTION_XDESC);
    tensor *y = tensor_of(e, operation, DNN_ATTR_OPERATION_REDUCTION_YDESC);
    float *found = malloc((size_t)span(y) * sizeof *found);
    EACH(i, y->dims) found[offset(y, i, y->dims)] = max ? -INFINITY : 0;
    EACH(i, x->dims) {
        float value = load_at(x, offset(x, i, x->dims)), *to = &found[offset(y, i, x->dims)];
        *to = max ? fmaxf(*to, value) : *to + value;
    }
    EACH(i, y->dims) save_at(y, offset(y, i, y->dims), found[offset(y, i, y->dims)]);
    free(found);
}

/* The same places in memory under other dims and strides. */
static void reshape(evaluation *e, const descriptor *operation) {
    const tensor *x = tensor_of(e, operation, DNN_ATTR_OPERATION_RESHAPE_XDESC);
    tensor *y = tensor_of(e, operation, DNN_ATTR_OPERATION_RESHAPE_YDESC);
    EACH(i, y->dims) {
        int64_t at = offset(y, i, y->dims);
        save_at(y, at, load_at(x, at));
    }
}

void dnn_evaluate(const descriptor *graph, void *(*data)(void *context, int64_t id),
                  void *context) {
    static _Thread_local evaluation e;
    int64_t count;
    descriptor *const *operations = dnn_values(graph, DNN_ATTR_OPERATIONGRAPH_OPS, &count);
    e = (evaluation){.data = data, .context = context};
    for (int64_t i = 0; i < count; i++) {
        if (operations[i]->type == DNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
            pointwise(&e, operations[i]);
        else if (operations[i]->type == DNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
            matmul(&e, operations[i]);
        else if (operations[i]->type == DNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR)
            reduction(&e, operations[i]);
        else
            reshape(&e, operations[i]);
    }
    for (int i = 0; i < e.count; i++) free(e.tensors[i].own);
}
