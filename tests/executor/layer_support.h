/* One layer with buffers of its own, for tests: everything is poisoned with NaN before use, so that
 * a kernel which reads what nobody wrote is found. */
#ifndef PPSIM_TESTS_LAYER_SUPPORT_H
#define PPSIM_TESTS_LAYER_SUPPORT_H

#include "executor/cuda/arithmetic.h"
#include "executor/layer.h"

#include <cblas.h>
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { BENCH_INPUTS = 3 };

typedef struct bench {
    pp_layer layer;
    pp_dtype dtype;
    int64_t capacity; /* samples that the buffers are laid out for */
    int64_t samples;  /* in the call */
    uint64_t first_sample;
    bool training, accumulate;
    int input_count;
    pp_tensor list[PP_LAYER_TENSORS];
    int tensor_count;
    void *tensors[PP_LAYER_TENSORS], *gradients[PP_LAYER_TENSORS];
    void *inputs[BENCH_INPUTS], *input_gradients[BENCH_INPUTS];
    void *output_gradient;
    int32_t *tokens, *targets;
    double loss, gradient_scale;
    pp_random_key key;
    bool accumulate_flags[BENCH_INPUTS];
    const pp_layer_ops *(*ops)(pp_op, pp_dtype); /* whose layers: pp_cpu_layer */
    double (*rounded)(double);                   /* of all that is filled in; NULL: as it is */
} bench;

static inline int64_t bench_rows(const bench *b) {
    return b->capacity * (b->layer.sequence > 0 ? b->layer.sequence : 1);
}

static inline int64_t bench_used_rows(const bench *b) {
    return bench_rows(b) / b->capacity * b->samples;
}

static inline int64_t bench_features_out(const bench *b) {
    return b->layer.output_dim > 0 ? b->layer.output_dim : b->layer.dim;
}

static inline double bench_get(const bench *b, const void *values, int64_t i) {
    if (b->dtype == PP_FP64) return ((const double *)values)[i];
    if (b->dtype == PP_BF16) return (double)bf16_to_float(((const uint16_t *)values)[i]);
    return (double)((const float *)values)[i];
}

static inline void bench_set(const bench *b, void *values, int64_t i, double value) {
    if (b->dtype == PP_FP64)
        ((double *)values)[i] = value;
    else if (b->dtype == PP_BF16)
        ((uint16_t *)values)[i] = bf16_from_float((float)value);
    else
        ((float *)values)[i] = (float)value;
}

/* All bits set are NaN in every type; buffers have room for the widest, since statistics are fp32
 * among bf16 tensors. */
enum { BENCH_WIDTH = 8 };

static inline void bench_poison(void *values, int64_t count) {
    memset(values, 0xff, (size_t)count * BENCH_WIDTH);
}

static inline void *bench_new(int64_t count) {
    void *values = pp_allocate((size_t)count * BENCH_WIDTH);
    cr_assert_not_null(values);
    bench_poison(values, count);
    return values;
}

/* Normal numbers of variance 1, scaled: a function of name alone, in any dtype. */
static inline void bench_fill(const bench *b, void *values, int64_t count, const char *name,
                              double scale) {
    pp_random_key key = pp_random_key_make(7, name, 0);
    for (int64_t i = 0; i < count; i++) {
        double value = scale * pp_random_normal(key, (uint64_t)i);
        bench_set(b, values, i, b->rounded ? b->rounded(value) : value);
    }
}

static inline int64_t bench_elements(const bench *b, int tensor) {
    return b->list[tensor].rows * b->list[tensor].columns;
}

/* Parameters far from their initial values, so that no gradient vanishes by symmetry. */
static inline void bench_fill_parameters(bench *b) {
    for (int t = 0; t < b->tensor_count; t++) {
        if (b->list[t].role != PP_TENSOR_PARAMETER) continue;
        bench_fill(b, b->tensors[t], bench_elements(b, t), b->list[t].name, 0.4);
    }
}

static inline void bench_fill_data(bench *b) {
    int64_t rows = bench_rows(b),
            classes = b->layer.vocabulary ? b->layer.vocabulary : b->layer.dim;
    static const char *const names[BENCH_INPUTS] = {"input0", "input1", "input2"};
    pp_random_key key = pp_random_key_make(8, "tokens", 0);
    for (int i = 0; i < b->input_count; i++)
        bench_fill(b, b->inputs[i], rows * b->layer.dim, names[i], 1);
    bench_fill(b, b->output_gradient, rows * bench_features_out(b), "output gradient", 1);
    for (int64_t r = 0; r < rows; r++) {
        b->tokens[r] = (int32_t)pp_random_below(key, (uint64_t)(2 * r), (uint64_t)classes);
        b->targets[r] = (int32_t)pp_random_below(key, (uint64_t)(2 * r + 1), (uint64_t)classes);
        if (r % 5 == 3) b->targets[r] = -1;
    }
}

static inline void bench_init_rounded(bench *b, const pp_layer *layer, pp_dtype dtype,
                                      int64_t capacity, int64_t samples,
                                      double (*rounded)(double)) {
    openblas_set_num_threads(1);
    *b = (bench){.layer = *layer,
                 .ops = pp_cpu_layer,
                 .rounded = rounded,
                 .dtype = dtype,
                 .capacity = capacity,
                 .samples = samples,
                 .first_sample = 11,
                 .training = true,
                 .gradient_scale = 0.125};
    b->input_count = layer->op == PP_OP_ADD                       ? 3
                     : pp_layer_needs_get(layer->op).takes_tokens ? 0
                                                                  : 1;
    b->key = pp_random_key_make(3, layer->name, 5);
    b->tensor_count = pp_layer_tensors(layer, capacity, dtype, b->list);
    for (int t = 0; t < b->tensor_count; t++) {
        b->tensors[t] = bench_new(bench_elements(b, t));
        if (b->list[t].role == PP_TENSOR_PARAMETER)
            b->gradients[t] = bench_new(bench_elements(b, t));
    }
    int64_t rows = bench_rows(b);
    for (int i = 0; i < b->input_count; i++) {
        b->inputs[i] = bench_new(rows * layer->dim);
        b->input_gradients[i] = bench_new(rows * layer->dim);
    }
    b->output_gradient = bench_new(rows * bench_features_out(b));
    b->tokens = pp_allocate((size_t)rows * sizeof *b->tokens);
    b->targets = pp_allocate((size_t)rows * sizeof *b->targets);
    bench_fill_parameters(b);
    bench_fill_data(b);
}

static inline void bench_init(bench *b, const pp_layer *layer, pp_dtype dtype, int64_t capacity,
                              int64_t samples) {
    bench_init_rounded(b, layer, dtype, capacity, samples, NULL);
}

static inline void bench_deinit(bench *b) {
    for (int t = 0; t < b->tensor_count; t++) {
        pp_free(b->tensors[t]);
        pp_free(b->gradients[t]);
    }
    for (int i = 0; i < b->input_count; i++) {
        pp_free(b->inputs[i]);
        pp_free(b->input_gradients[i]);
    }
    pp_free(b->output_gradient);
    pp_free(b->tokens);
    pp_free(b->targets);
}

/* Everything that a call has to write itself becomes NaN; gradients of parameters become 0. Input
 * gradients become `start` where they are added to. */
static inline void bench_reset(bench *b, double start) {
    for (int t = 0; t < b->tensor_count; t++) {
        if (b->list[t].role != PP_TENSOR_PARAMETER)
            bench_poison(b->tensors[t], bench_elements(b, t));
        else
            memset(b->gradients[t], 0, (size_t)bench_elements(b, t) * BENCH_WIDTH);
    }
    for (int i = 0; i < b->input_count; i++) {
        int64_t count = bench_rows(b) * b->layer.dim;
        for (int64_t j = 0; j < count; j++)
            bench_set(b, b->input_gradients[i], j, b->accumulate ? start : NAN);
        b->accumulate_flags[i] = b->accumulate;
    }
    b->loss = NAN;
}

/* What a call may not read is not there: NULL, as the runtime does it, or poisoned. */
static inline pp_layer_call bench_call(bench *b) {
    return (pp_layer_call){.layer = &b->layer,
                           .samples = b->samples,
                           .tensors = b->tensors,
                           .gradients = b->gradients,
                           .inputs = (const void *const *)b->inputs,
                           .input_count = b->input_count,
                           .output_gradient = b->output_gradient,
                           .input_gradients = b->input_gradients,
                           .accumulate = b->accumulate_flags,
                           .tokens = b->tokens,
                           .targets = b->targets,
                           .gradient_scale = b->gradient_scale,
                           .loss = &b->loss,
                           .key = b->key,
                           .first_sample = b->first_sample,
                           .training = b->training};
}

static inline void bench_poison_roles(bench *b, unsigned roles) {
    for (int t = 0; t < b->tensor_count; t++)
        if (roles & 1u << b->list[t].role) bench_poison(b->tensors[t], bench_elements(b, t));
}

static inline void bench_forward(bench *b) {
    pp_layer_call call = bench_call(b);
    b->ops(b->layer.op, b->dtype)->forward(&call);
}

/* I, with everything poisoned or absent that it has no right to. */
static inline void bench_input(bench *b) {
    pp_layer_needs needs = pp_layer_needs_get(b->layer.op);
    const pp_layer_ops *ops = b->ops(b->layer.op, b->dtype);
    const void *absent[BENCH_INPUTS] = {NULL};
    pp_layer_call call = bench_call(b);
    if (!needs.input_for_input) call.inputs = absent;
    unsigned gone = 1u << PP_TENSOR_WORKSPACE | 1u << PP_TENSOR_STASH;
    if (!needs.output_for_input) gone |= 1u << PP_TENSOR_OUTPUT;
    bench_poison_roles(b, gone);
    if (ops->input) ops->input(&call);
}

/* W, likewise: after I, with only SAVED_WEIGHT and STASH left. */
static inline void bench_weight(bench *b) {
    pp_layer_needs needs = pp_layer_needs_get(b->layer.op);
    const pp_layer_ops *ops = b->ops(b->layer.op, b->dtype);
    const void *absent[BENCH_INPUTS] = {NULL};
    pp_layer_call call = bench_call(b);
    if (!needs.input_for_weight) call.inputs = absent;
    if (!needs.gradient_for_weight) call.output_gradient = NULL;
    bench_poison_roles(b, 1u << PP_TENSOR_WORKSPACE | 1u << PP_TENSOR_OUTPUT |
                              1u << PP_TENSOR_SAVED_INPUT);
    if (ops->weight) ops->weight(&call);
}

static inline int bench_output_tensor(const bench *b) {
    for (int t = 0; t < b->tensor_count; t++)
        if (b->list[t].role == PP_TENSOR_OUTPUT) return t;
    return -1;
}

/* What the gradients are of: the loss times its scale, or Σ output · output gradient. */
static inline double bench_objective(const bench *b) {
    int output = bench_output_tensor(b);
    if (output < 0) return b->loss * b->gradient_scale;
    int64_t count = bench_used_rows(b) * bench_features_out(b);
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += bench_get(b, b->tensors[output], i) * bench_get(b, b->output_gradient, i);
    return sum;
}

/* Small and odd shapes of every op that runs. */
static const pp_layer bench_layers[] = {
    {.name = "embedding", .op = PP_OP_EMBEDDING, .dim = 5, .sequence = 3, .vocabulary = 7},
    {.name = "embedding_dropped",
     .op = PP_OP_EMBEDDING,
     .dim = 5,
     .sequence = 3,
     .vocabulary = 7,
     .dropout = 0.3,
     .tie = "w"},
    {.name = "block", .op = PP_OP_GPT_BLOCK, .dim = 6, .heads = 2, .sequence = 5},
    {.name = "block_dropped",
     .op = PP_OP_GPT_BLOCK,
     .dim = 9,
     .heads = 3,
     .sequence = 4,
     .dropout = 0.25},
    {.name = "block_one", .op = PP_OP_GPT_BLOCK, .dim = 4, .heads = 1, .sequence = 1},
    {.name = "head", .op = PP_OP_LM_HEAD, .dim = 6, .sequence = 5, .vocabulary = 37},
    {.name = "norm", .op = PP_OP_LAYER_NORM, .dim = 35, .sequence = 3},
    {.name = "norm_flat", .op = PP_OP_LAYER_NORM, .dim = 3},
    {.name = "linear", .op = PP_OP_LINEAR, .dim = 5, .output_dim = 7, .sequence = 3},
    {.name = "linear_square", .op = PP_OP_LINEAR, .dim = 4},
    {.name = "gelu", .op = PP_OP_GELU, .dim = 13, .sequence = 3},
    {.name = "relu", .op = PP_OP_RELU, .dim = 13, .sequence = 3},
    {.name = "attention", .op = PP_OP_ATTENTION, .dim = 6, .heads = 3, .sequence = 7},
    {.name = "dropout", .op = PP_OP_DROPOUT, .dim = 13, .sequence = 3, .dropout = 0.5},
    {.name = "dropout_none", .op = PP_OP_DROPOUT, .dim = 13, .sequence = 3},
    {.name = "add", .op = PP_OP_ADD, .dim = 7, .sequence = 3},
    {.name = "loss", .op = PP_OP_CROSS_ENTROPY, .dim = 41},
    {.name = "rms", .op = PP_OP_RMS_NORM, .dim = 35, .sequence = 3},
    {.name = "tokens", .op = PP_OP_TOKEN_EMBEDDING, .dim = 5, .sequence = 3, .vocabulary = 7},
    {.name = "llama",
     .op = PP_OP_LLAMA_BLOCK,
     .dim = 8,
     .heads = 4,
     .kv_heads = 2,
     .hidden = 11,
     .sequence = 5},
    {.name = "llama_wide_heads",
     .op = PP_OP_LLAMA_BLOCK,
     .dim = 6,
     .heads = 3,
     .kv_heads = 1,
     .head_dim = 4,
     .hidden = 7,
     .sequence = 4,
     .rotary_base = 30,
     .qkv_bias = true},
    {.name = "llama_plain", .op = PP_OP_LLAMA_BLOCK, .dim = 6, .heads = 3, .sequence = 3},
    {.name = "rms_head", .op = PP_OP_RMS_LM_HEAD, .dim = 6, .sequence = 5, .vocabulary = 37},
    {.name = "bert_embedding",
     .op = PP_OP_BERT_EMBEDDING,
     .dim = 5,
     .sequence = 3,
     .vocabulary = 7},
    {.name = "bert_embedding_dropped",
     .op = PP_OP_BERT_EMBEDDING,
     .dim = 5,
     .sequence = 3,
     .vocabulary = 7,
     .segments = 3,
     .dropout = 0.3},
    {.name = "bert", .op = PP_OP_BERT_BLOCK, .dim = 6, .heads = 2, .hidden = 10, .sequence = 5},
    {.name = "bert_dropped",
     .op = PP_OP_BERT_BLOCK,
     .dim = 9,
     .heads = 3,
     .sequence = 4,
     .dropout = 0.25},
    {.name = "mlm_head", .op = PP_OP_MLM_HEAD, .dim = 6, .sequence = 5, .vocabulary = 37},
};
enum { BENCH_LAYERS = sizeof bench_layers / sizeof *bench_layers };

#endif
