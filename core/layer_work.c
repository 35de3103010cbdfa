/* Arithmetic and memory traffic of one layer and microbatch, for modelled costs.
 *
 * FLOPs are those of the matrix products, as Narayanan et al. 2021 (section 5.1, appendix) count
 * them, attention over the full square included: for a block 24·R·h² + 4·R·s·h forward with R =
 * rows and twice that backward. Elementwise ops count a few per element. Bytes follow from the
 * tensor list: what each phase has to read and write once when nothing is cached.
 *
 * Of a layer that is divided over t devices (pp_layer_shard) this is one device's part: 1/t of the
 * products, and all of what is done per element. Each device then holds a summand of what later
 * layers read, and they add those up (Shoeybi et al. 2019, figure 4): the block after its attention
 * and after its MLP, and their input gradients in the backward pass. */
#include "core/layer_internal.h"

/* FLOPs of one phase, R rows of h features: the sum of these terms. */
typedef struct flops_row {
    double per_element; /* × R·h */
    double per_square;  /* × R·h² */
    double per_qkv;     /* × R·h·q, q the width of queries, keys and values */
    double per_queries; /* × R·h·a, a that of the queries alone, which is the attended values' */
    double per_score;   /* × R·s·a */
    double per_hidden;  /* × R·h·f, f that inside the MLP */
    double per_class;   /* × R·h·v */
    double per_output;  /* × R·h·o */
} flops_row;

enum { FORWARD, INPUT, WEIGHT, PHASES };

static const flops_row flops_table[PP_OP_COUNT][PHASES] = {
    [PP_OP_EMBEDDING] = {{.per_element = 1}, {0}, {.per_element = 2}},
    [PP_OP_GPT_BLOCK] = {{.per_qkv = 2, .per_queries = 2, .per_score = 4, .per_hidden = 4},
                         {.per_qkv = 2, .per_queries = 2, .per_score = 8, .per_hidden = 4},
                         {.per_qkv = 2, .per_queries = 2, .per_hidden = 4}},
    [PP_OP_LM_HEAD] = {{.per_class = 2}, {.per_class = 2}, {.per_class = 2}},
    [PP_OP_LAYER_NORM] = {{.per_element = 8}, {.per_element = 8}, {.per_element = 3}},
    [PP_OP_LINEAR] = {{.per_output = 2}, {.per_output = 2}, {.per_output = 2}},
    [PP_OP_GELU] = {{.per_element = 16}, {.per_element = 24}, {0}},
    [PP_OP_RELU] = {{.per_element = 1}, {.per_element = 1}, {0}},
    [PP_OP_ATTENTION] = {{.per_qkv = 2, .per_queries = 2, .per_score = 4},
                         {.per_qkv = 2, .per_queries = 2, .per_score = 8},
                         {.per_qkv = 2, .per_queries = 2}},
    [PP_OP_DROPOUT] = {{.per_element = 10}, {.per_element = 10}, {0}},
    [PP_OP_ADD] = {{.per_element = 1}, {.per_element = 1}, {0}},
    [PP_OP_CROSS_ENTROPY] = {{.per_element = 16}, {.per_element = 16}, {0}},
    [PP_OP_RMS_NORM] = {{.per_element = 6}, {.per_element = 7}, {.per_element = 2}},
    [PP_OP_TOKEN_EMBEDDING] = {{.per_element = 1}, {0}, {.per_element = 1}},
    [PP_OP_LLAMA_BLOCK] = {{.per_qkv = 2, .per_queries = 2, .per_score = 4, .per_hidden = 6},
                           {.per_qkv = 2, .per_queries = 2, .per_score = 8, .per_hidden = 6},
                           {.per_qkv = 2, .per_queries = 2, .per_hidden = 6}},
    [PP_OP_RMS_LM_HEAD] = {{.per_class = 2}, {.per_class = 2}, {.per_class = 2}},
    [PP_OP_BERT_EMBEDDING] = {{.per_element = 10}, {0}, {.per_element = 14}},
    [PP_OP_BERT_BLOCK] = {{.per_qkv = 2, .per_queries = 2, .per_score = 4, .per_hidden = 4},
                          {.per_qkv = 2, .per_queries = 2, .per_score = 8, .per_hidden = 4},
                          {.per_qkv = 2, .per_queries = 2, .per_hidden = 4}},
    [PP_OP_MLM_HEAD] = {{.per_square = 2, .per_class = 2},
                        {.per_square = 2, .per_class = 2},
                        {.per_square = 2, .per_class = 2}},
};

static double flops_of(const flops_row *row, const pp_layer *layer, int64_t samples) {
    double h = (double)layer->dim, s = (double)pp_layer_sequence(layer);
    double rows = (double)samples * s, part = 1 / (double)pp_layer_shards(layer);
    double size = (double)pp_layer_head_dim(layer) * part;
    double queries = (double)layer->heads * size;
    double qkv = queries + 2 * (double)pp_layer_kv_heads(layer) * size;
    double per_input = row->per_element + row->per_square * h + row->per_qkv * qkv +
                       row->per_queries * queries +
                       row->per_hidden * (double)pp_layer_hidden(layer) * part +
                       row->per_class * (double)pp_layer_part(layer, layer->vocabulary) +
                       row->per_output * (double)pp_layer_part(layer, pp_layer_features_out(layer));
    return rows * (h * per_input + row->per_score * s * queries);
}

/* All-reduces of one phase: how many, and of how much each. */
typedef struct sum_row {
    double count;
    double per_row;            /* fp32 numbers for each row */
    double per_element;        /* × R·h */
    double per_output_element; /* × R·o */
} sum_row;

/* The head sums maximum, Σ exp and the target's logit of each row (its vocabulary is divided, and
 * with it the softmax); a linear layer gathers its outputs, which moves half of what a sum does. */
static const sum_row sum_table[PP_OP_COUNT][2] = {
    [PP_OP_EMBEDDING] = {{1, .per_element = 1}, {0}},
    [PP_OP_GPT_BLOCK] = {{2, .per_element = 1}, {2, .per_element = 1}},
    [PP_OP_LM_HEAD] = {{3, .per_row = 1}, {1, .per_element = 1}},
    [PP_OP_LINEAR] = {{0.5, .per_output_element = 1}, {1, .per_element = 1}},
    [PP_OP_ATTENTION] = {{1, .per_element = 1}, {1, .per_element = 1}},
    [PP_OP_TOKEN_EMBEDDING] = {{1, .per_element = 1}, {0}},
    [PP_OP_LLAMA_BLOCK] = {{2, .per_element = 1}, {2, .per_element = 1}},
    [PP_OP_RMS_LM_HEAD] = {{3, .per_row = 1}, {1, .per_element = 1}},
    [PP_OP_BERT_EMBEDDING] = {{1, .per_element = 1}, {0}},
    [PP_OP_BERT_BLOCK] = {{2, .per_element = 1}, {2, .per_element = 1}},
    [PP_OP_MLM_HEAD] = {{3, .per_row = 1}, {1, .per_element = 1}},
};

static pp_layer_sum sum_of(const sum_row *row, const pp_layer *layer, int64_t samples,
                           pp_dtype dtype) {
    if (pp_layer_shards(layer) == 1) return (pp_layer_sum){0, 0};
    double rows = (double)samples * (double)pp_layer_sequence(layer);
    double elements = row->per_element * (double)layer->dim +
                      row->per_output_element * (double)pp_layer_features_out(layer);
    double each = rows * (elements * (double)pp_dtype_bytes(dtype) +
                          row->per_row * (double)pp_dtype_bytes(PP_FP32));
    return (pp_layer_sum){row->count, row->count * each};
}

/* Bytes by what they are for. */
typedef struct traffic {
    double parameter; /* of the parameters that a call touches */
    double input, output, saved_input, saved_weight, stash;
    double rewritten; /* saved by F and overwritten by I: the logits */
    double core;      /* of what is saved, the attention core */
} traffic;

static traffic traffic_of(const pp_layer *layer, int64_t samples, pp_dtype dtype) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    double sum[PP_TENSOR_WORKSPACE + 1] = {0};
    int count = pp_layer_tensors(layer, samples, dtype, tensors);
    double core = 0;
    for (int i = 0; i < count; i++) {
        sum[tensors[i].role] += (double)pp_tensor_bytes(&tensors[i]);
        if (tensors[i].attention_core) core += (double)pp_tensor_bytes(&tensors[i]);
    }
    double rows = (double)(samples * pp_layer_sequence(layer));
    traffic t = {.parameter = sum[PP_TENSOR_PARAMETER],
                 .input = rows * (double)layer->dim * (double)pp_dtype_bytes(dtype),
                 .output = sum[PP_TENSOR_OUTPUT],
                 .saved_input = sum[PP_TENSOR_SAVED_INPUT],
                 .saved_weight = sum[PP_TENSOR_SAVED_WEIGHT],
                 .stash = sum[PP_TENSOR_STASH],
                 .core = core};
    if (layer->op == PP_OP_OPAQUE) t.input = t.output;
    pp_layer_needs needs = pp_layer_needs_get(layer->op);
    if (needs.makes_loss && layer->vocabulary > 0) t.rewritten = t.saved_weight;
    if (needs.takes_tokens) { /* only the rows of its tokens, no gradient of its input */
        t.parameter = 2 * t.output;
        t.input = 0;
    }
    return t;
}

/* What is saved is written by one kernel and read by the next. */
static double forward_bytes(const traffic *t) {
    return t->parameter + t->input + t->output + 2 * (t->saved_input + t->saved_weight);
}

static double input_bytes(const traffic *t) {
    return t->parameter + t->output + t->saved_input + t->input + 2 * (t->stash + t->rewritten);
}

/* Gradients are read and written. */
static double weight_bytes(const traffic *t) {
    return 2 * t->parameter + t->input + t->output + t->saved_weight + t->stash;
}

/* One AdamW step of one parameter: weight, gradient and two moments read, all but the gradient
 * written; under bf16 the fp32 master is read and written and the weight only written. */
static double optimizer_bytes_per_parameter(pp_dtype dtype) {
    return dtype == PP_BF16 ? 2 + 3 * 4 + 3 * 4 + 2 : 7.0 * (double)pp_dtype_bytes(dtype);
}

static double parameters_of(const pp_layer *layer, pp_dtype dtype) {
    if (layer->op != PP_OP_OPAQUE) return (double)pp_layer_parameters(layer);
    return (double)layer->parameter_bytes / (double)pp_dtype_bytes(dtype);
}

/* Half of the products with scores: Q·Kᵀ is made again, the attended values are kept. */
static double attention_flops(const pp_layer *layer, int64_t samples) {
    flops_row scores = {.per_score = flops_table[layer->op][FORWARD].per_score / 2};
    return flops_of(&scores, layer, samples);
}

pp_layer_work pp_layer_work_get(const pp_layer *layer, int64_t samples, pp_dtype dtype) {
    const flops_row *flops = flops_table[layer->op];
    pp_layer_needs needs = pp_layer_needs_get(layer->op);
    traffic t = traffic_of(layer, samples, dtype);
    return (pp_layer_work){
        .forward_flops = flops_of(&flops[FORWARD], layer, samples),
        .input_flops = flops_of(&flops[INPUT], layer, samples),
        .weight_flops = flops_of(&flops[WEIGHT], layer, samples),
        .forward_bytes = forward_bytes(&t),
        .input_bytes = needs.takes_tokens ? 0 : input_bytes(&t),
        .weight_bytes = needs.has_weights ? weight_bytes(&t) : 0,
        .optimizer_bytes = parameters_of(layer, dtype) * optimizer_bytes_per_parameter(dtype),
        .forward_sum = sum_of(&sum_table[layer->op][FORWARD], layer, samples, dtype),
        .input_sum = needs.takes_tokens
                         ? (pp_layer_sum){0, 0}
                         : sum_of(&sum_table[layer->op][INPUT], layer, samples, dtype),
        .attention_flops = attention_flops(layer, samples),
        .attention_bytes = 2 * t.core,
    };
}
