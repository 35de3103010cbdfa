/* The composite graphs, operation by operation, as the engines of cuDNN 9.16 to 9.20 recognise
 * attention: the order and the types are those that NVIDIA's cudnn-frontend writes down
 * ("scaled_dot_product_flash_attention.h", "softmax.h", "diagonal_band_mask.h"). K and, backward, V
 * come in transposed, by their strides. */
#include "executor/cuda/attention_graph.h"

enum { NONE = -1 };

/* ---- tensors ------------------------------------------------------------------------------- */

/* Heads within rows of `stride` elements. */
static dnn_tensor heads_of(const dnn_attention *a, int64_t id, int64_t heads, int64_t stride) {
    return (dnn_tensor){.id = id,
                        .dims = {a->samples, heads, a->sequence, a->size},
                        .strides = {a->sequence * stride, a->size, stride, 1},
                        .type = a->type};
}

static dnn_tensor transposed(dnn_tensor tensor) {
    dnn_tensor result = tensor;
    result.dims[2] = tensor.dims[3];
    result.dims[3] = tensor.dims[2];
    result.strides[2] = tensor.strides[3];
    result.strides[3] = tensor.strides[2];
    return result;
}

static dnn_tensor queries(const dnn_attention *a, int64_t id) {
    return heads_of(a, id, a->heads, (a->heads + 2 * a->kv_heads) * a->size);
}

static dnn_tensor keys(const dnn_attention *a, int64_t id) {
    return heads_of(a, id, a->kv_heads, (a->heads + 2 * a->kv_heads) * a->size);
}

static dnn_tensor results(const dnn_attention *a, int64_t id) {
    return heads_of(a, id, a->heads, a->heads * a->size);
}

/* [samples, heads, sequence, columns] */
static dnn_tensor square(const dnn_attention *a, dnn_life life, int64_t id, int64_t columns) {
    const int64_t dims[] = {a->samples, a->heads, a->sequence, columns};
    return dnn_packed(life, id, DNN_DATA_FLOAT, dims);
}

static int number(dnn_graph *graph, int64_t id) {
    const int64_t dims[] = {1, 1, 1, 1};
    return dnn_add(graph, dnn_packed(DNN_BY_VALUE, id, DNN_DATA_FLOAT, dims));
}

/* ---- parts of both ------------------------------------------------------------------------- */

static int scaled_scores(const dnn_attention *a, dnn_graph *graph, int q, int k, int scale) {
    int scores = dnn_matmul(graph, q, k, dnn_add(graph, square(a, DNN_VIRTUAL, 0, a->sequence)));
    return dnn_pointwise(graph, DNN_POINTWISE_MUL, scores, scale, NONE, NONE);
}

static int masked(const dnn_attention *a, dnn_graph *graph, int scores) {
    if (!a->causal) return scores;
    int hidden = number(graph, DNN_HIDDEN);
    int row = dnn_index(graph, scores, 2), column = dnn_index(graph, scores, 3);
    int seen = dnn_compare(graph, DNN_POINTWISE_CMP_GE, row, column);
    return dnn_pointwise(graph, DNN_POINTWISE_BINARY_SELECT, scores, hidden, seen, NONE);
}

/* ---- forward ------------------------------------------------------------------------------- */

/* P, in the type of what it is multiplied with. */
static int softmax(const dnn_attention *a, dnn_graph *graph, int scores) {
    int max = dnn_reduce(graph, DNN_REDUCE_TENSOR_MAX, scores,
                         dnn_add(graph, square(a, DNN_VIRTUAL, 0, 1)));
    int shifted = dnn_pointwise(graph, DNN_POINTWISE_SUB, scores, max, NONE, NONE);
    int raised = dnn_pointwise(graph, DNN_POINTWISE_EXP, shifted, NONE, NONE, NONE);
    int sum = dnn_reduce(graph, DNN_REDUCE_TENSOR_ADD, raised,
                         dnn_add(graph, square(a, DNN_VIRTUAL, 0, 1)));
    int log = dnn_pointwise(graph, DNN_POINTWISE_LOG, sum, NONE, NONE, NONE);
    dnn_pointwise(graph, DNN_POINTWISE_ADD, max, log, NONE,
                  dnn_add(graph, square(a, DNN_IN_MEMORY, DNN_STATISTICS, 1)));
    dnn_tensor p = square(a, DNN_VIRTUAL, 0, a->sequence);
    p.type = a->type;
    return dnn_pointwise(graph, DNN_POINTWISE_DIV, raised, sum, NONE, dnn_add(graph, p));
}

void dnn_attention_forward(const dnn_attention *a, dnn_graph *graph) {
    *graph = (dnn_graph){0};
    int q = dnn_add(graph, queries(a, DNN_Q));
    int k = dnn_add(graph, transposed(keys(a, DNN_K)));
    int v = dnn_add(graph, keys(a, DNN_V));
    int scores = masked(a, graph, scaled_scores(a, graph, q, k, number(graph, DNN_SCALE)));
    int p = softmax(a, graph, scores);
    dnn_matmul(graph, p, v, dnn_add(graph, results(a, DNN_O)));
}

/* ---- backward ------------------------------------------------------------------------------ */

/* D, which the engine keeps in memory between its kernels. */
static int row_sums(const dnn_attention *a, dnn_graph *graph, int o_gradient, int o) {
    int product = dnn_pointwise(graph, DNN_POINTWISE_MUL, o_gradient, o, NONE, NONE);
    int sums = dnn_reduce(graph, DNN_REDUCE_TENSOR_ADD, product,
                          dnn_add(graph, square(a, DNN_VIRTUAL, 0, 1)));
    int kept = dnn_add(graph, square(a, DNN_IN_MEMORY, DNN_ROW_SUMS, 1));
    return dnn_pointwise(graph, DNN_POINTWISE_MUL, sums, number(graph, DNN_ONE), NONE, kept);
}

/* P again, from the statistics. */
static int probabilities(const dnn_attention *a, dnn_graph *graph, int scores) {
    int statistics = dnn_add(graph, square(a, DNN_IN_MEMORY, DNN_STATISTICS, 1));
    int shifted = dnn_pointwise(graph, DNN_POINTWISE_SUB, scores, statistics, NONE, NONE);
    return dnn_pointwise(graph, DNN_POINTWISE_EXP, masked(a, graph, shifted), NONE, NONE, NONE);
}

/* The gradient of keys or values: square^T · from, summed over the heads that share them. */
static void through_square(const dnn_attention *a, dnn_graph *graph, int squared, int from,
                           int64_t id) {
    dnn_tensor turned = transposed(square(a, DNN_VIRTUAL, 0, a->sequence));
    turned.type = a->type;
    int left = dnn_reshape(graph, squared, dnn_add(graph, turned));
    int gradient = dnn_add(graph, keys(a, id));
    if (a->heads == a->kv_heads) {
        dnn_matmul(graph, left, from, gradient);
        return;
    }
    dnn_tensor of_each = square(a, DNN_VIRTUAL, 0, a->size);
    of_each.type = a->type;
    int each = dnn_matmul(graph, left, from, dnn_add(graph, of_each));
    dnn_reduce(graph, DNN_REDUCE_TENSOR_ADD, each, gradient);
}

static void query_gradient(const dnn_attention *a, dnn_graph *graph, int score_gradient, int k) {
    dnn_tensor upright = transposed(graph->tensors[k]);
    upright.life = DNN_VIRTUAL;
    upright.type = DNN_DATA_FLOAT;
    int again = dnn_reshape(graph, k, dnn_add(graph, upright));
    int sums = dnn_matmul(graph, score_gradient, again,
                          dnn_add(graph, square(a, DNN_IN_MEMORY, DNN_Q_SUMS, a->size)));
    dnn_pointwise(graph, DNN_POINTWISE_IDENTITY, sums, NONE, NONE,
                  dnn_add(graph, queries(a, DNN_Q_GRADIENT)));
}

void dnn_attention_backward(const dnn_attention *a, dnn_graph *graph) {
    *graph = (dnn_graph){0};
    int q = dnn_add(graph, queries(a, DNN_Q));
    int k = dnn_add(graph, transposed(keys(a, DNN_K)));
    int v = dnn_add(graph, transposed(keys(a, DNN_V)));
    int o = dnn_add(graph, results(a, DNN_O));
    int o_gradient = dnn_add(graph, results(a, DNN_O_GRADIENT));
    int scale = number(graph, DNN_SCALE);
    int sums = row_sums(a, graph, o_gradient, o);
    int p = probabilities(a, graph, scaled_scores(a, graph, q, k, scale));
    through_square(a, graph, p, o_gradient, DNN_V_GRADIENT);
    int p_gradient =
        dnn_matmul(graph, o_gradient, v, dnn_add(graph, square(a, DNN_VIRTUAL, 0, a->sequence)));
    int off = dnn_pointwise(graph, DNN_POINTWISE_SUB, p_gradient, sums, NONE, NONE);
    int raw = dnn_pointwise(graph, DNN_POINTWISE_MUL, off, p, NONE, NONE);
    int score_gradient = dnn_pointwise(graph, DNN_POINTWISE_MUL, raw, scale, NONE, NONE);
    through_square(a, graph, score_gradient, q, DNN_K_GRADIENT);
    query_gradient(a, graph, score_gradient, k);
}
