/* The tensors of each op for one microbatch: the one list from which the layout is made, the
 * executor allocates and the simulator adds up (promise P3).
 *
 * What a transformer block with dropout saves is what Korthikanti et al. 2022 (section 4.1) count,
 * s·b·h·(34 + 5·a·s/h) bytes in 16 bit, tensor for tensor but one: where they keep the input of a
 * norm, we keep its normalised rows, which are as large and spare the backward pass the norm.
 *
 *   input and output of both norms 4+4, q k v 6, attended values 2, MLP before and after GELU 8+8,
 *   masks of the two dropouts behind the branches 1+1: 34
 *   softmax, its dropped form, the mask between them (2+2+1)·a·s/h
 *
 * Without dropout nothing of it is allocated, and s·b·h·(32 + 2·a·s/h) remain. The norms' fp32
 * statistics, 8·s·b, which the paper neglects, come on top. bert_block is counted with the input
 * that it asks the layer before it to keep (pp_layer_needs). Llama's block has no dropout; with kv
 * of a heads for keys and values and f features inside, it saves s·b·(12·h + 4·h·kv/a + 6·f +
 * 2·a·s).
 *
 * On t devices (tensor parallelism; Shoeybi et al. 2019, section 3, and Korthikanti, section 4.2.1:
 * s·b·h·(10 + 24/t + 5·a·s/(h·t))) each holds its heads of q k v and their attention, its part of
 * the MLP's inner features and of the vocabulary, and all of the rest. So a tensor is divided if an
 * extent of it is, and which are is said once, in share_of.
 */
#include "core/layer_internal.h"

#include <assert.h>
#include <inttypes.h>

/* Extents of tensors, as a function of layer and samples. */
typedef enum extent {
    ONE,
    ROWS,      /* samples × sequence */
    HEAD_ROWS, /* samples × heads × sequence */
    SEQUENCE,
    VOCABULARY,
    LOGITS, /* a word for each of the vocabulary, and what rows are padded by */
    DIM,
    HEADS_DIM, /* features of all heads of queries, and of the attended values */
    QKV,       /* of queries, keys and values */
    HIDDEN,    /* inner features of the MLP */
    SEGMENTS,
    OUTPUT_DIM,
    OUTPUT_FEATURES /* of a linear layer, whole: gathered from the devices */
} extent;

/* What else there is to say of a tensor; several are or'ed. */
typedef enum trait {
    PLAIN = 0,
    STATISTIC = 1,      /* sums over many elements: fp32 under bf16 */
    TIED = 2,           /* shared where the layer has a tie */
    WITH_DROPOUT = 4,   /* there only where the layer has dropout; such rows end a list */
    MASK = 8,           /* likewise; a byte for each element: kept or dropped */
    WITH_QKV_BIAS = 16, /* there only where the layer has qkv_bias; ends a list */
    CORE = 32           /* of the attention core, which recompute attention drops: 5·a·s/h */
} trait;

typedef struct tensor_row {
    const char *name;
    pp_tensor_role role;
    extent rows, columns;
    trait trait;
} tensor_row;

#define PARAMETER PP_TENSOR_PARAMETER
#define OUTPUT PP_TENSOR_OUTPUT
#define SAVED_INPUT PP_TENSOR_SAVED_INPUT
#define SAVED_WEIGHT PP_TENSOR_SAVED_WEIGHT
#define STASH PP_TENSOR_STASH
#define WORKSPACE PP_TENSOR_WORKSPACE

/* Token and position embedding. */
static const tensor_row embedding[] = {
    {"token_weight", PARAMETER, VOCABULARY, DIM, TIED},
    {"position_weight", PARAMETER, SEQUENCE, DIM, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},
    {"masked_gradient", WORKSPACE, ROWS, DIM, WITH_DROPOUT},
};

static const tensor_row token_embedding[] = {
    {"token_weight", PARAMETER, VOCABULARY, DIM, TIED},
    {"output", OUTPUT, ROWS, DIM, PLAIN},
};

/* The normalised rows are the output before scale and shift; the sum of the three is not kept. */
static const tensor_row bert_embedding[] = {
    {"token_weight", PARAMETER, VOCABULARY, DIM, TIED},
    {"position_weight", PARAMETER, SEQUENCE, DIM, PLAIN},
    {"segment_weight", PARAMETER, SEGMENTS, DIM, PLAIN},
    {"norm_scale", PARAMETER, ONE, DIM, PLAIN},
    {"norm_shift", PARAMETER, ONE, DIM, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},
    {"norm_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm_rstd", SAVED_WEIGHT, ROWS, ONE, STATISTIC},
    {"sum", WORKSPACE, ROWS, DIM, PLAIN}, /* F: of the three; W: its gradient */
    {"masked_gradient", WORKSPACE, ROWS, DIM, WITH_DROPOUT},
};

static const tensor_row gpt_block[] = {
    {"norm1_scale", PARAMETER, ONE, DIM, PLAIN},
    {"norm1_shift", PARAMETER, ONE, DIM, PLAIN},
    {"qkv_weight", PARAMETER, QKV, DIM, PLAIN},
    {"qkv_bias", PARAMETER, ONE, QKV, PLAIN},
    {"attention_weight", PARAMETER, DIM, HEADS_DIM, PLAIN},
    {"attention_bias", PARAMETER, ONE, DIM, PLAIN},
    {"norm2_scale", PARAMETER, ONE, DIM, PLAIN},
    {"norm2_shift", PARAMETER, ONE, DIM, PLAIN},
    {"expand_weight", PARAMETER, HIDDEN, DIM, PLAIN},
    {"expand_bias", PARAMETER, ONE, HIDDEN, PLAIN},
    {"contract_weight", PARAMETER, DIM, HIDDEN, PLAIN},
    {"contract_bias", PARAMETER, ONE, DIM, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},
    {"norm1_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm1_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"norm1_output", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"qkv", SAVED_INPUT, ROWS, QKV, PLAIN},
    {"probabilities", SAVED_INPUT, HEAD_ROWS, SEQUENCE, CORE},
    {"attended", SAVED_WEIGHT, ROWS, HEADS_DIM, PLAIN},
    {"norm2_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm2_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"norm2_output", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"expanded", SAVED_INPUT, ROWS, HIDDEN, PLAIN},
    {"activated", SAVED_WEIGHT, ROWS, HIDDEN, PLAIN},
    /* gradients at the outputs of the norms and the four linears */
    {"norm1_gradient", STASH, ROWS, DIM, PLAIN},
    {"qkv_gradient", STASH, ROWS, QKV, PLAIN},
    {"attention_gradient", STASH, ROWS, DIM, PLAIN},
    {"norm2_gradient", STASH, ROWS, DIM, PLAIN},
    {"expand_gradient", STASH, ROWS, HIDDEN, PLAIN},
    {"contract_gradient", STASH, ROWS, DIM, PLAIN},
    {"branch", WORKSPACE, ROWS, DIM, PLAIN}, /* F: of a residual branch; I: gradient of attended */
    {"residual_gradient", WORKSPACE, ROWS, DIM, PLAIN},       /* I: between the two branches */
    {"score_gradient", WORKSPACE, SEQUENCE, SEQUENCE, PLAIN}, /* I: of one sample and head */
    {"dropped", SAVED_INPUT, HEAD_ROWS, SEQUENCE, WITH_DROPOUT | CORE}, /* probabilities, dropped */
    {"dropped_mask", SAVED_INPUT, HEAD_ROWS, SEQUENCE, MASK | CORE},
    {"attention_mask", SAVED_INPUT, ROWS, DIM, MASK},
    {"contract_mask", SAVED_INPUT, ROWS, DIM, MASK},
};

/* The norms stand behind the residual sums: what norm2 makes is the block's output, which nobody
 * here reads again, and norm2_gradient is that of the output. */
static const tensor_row bert_block[] = {
    {"qkv_weight", PARAMETER, QKV, DIM, PLAIN},
    {"qkv_bias", PARAMETER, ONE, QKV, PLAIN},
    {"attention_weight", PARAMETER, DIM, HEADS_DIM, PLAIN},
    {"attention_bias", PARAMETER, ONE, DIM, PLAIN},
    {"norm1_scale", PARAMETER, ONE, DIM, PLAIN},
    {"norm1_shift", PARAMETER, ONE, DIM, PLAIN},
    {"expand_weight", PARAMETER, HIDDEN, DIM, PLAIN},
    {"expand_bias", PARAMETER, ONE, HIDDEN, PLAIN},
    {"contract_weight", PARAMETER, DIM, HIDDEN, PLAIN},
    {"contract_bias", PARAMETER, ONE, DIM, PLAIN},
    {"norm2_scale", PARAMETER, ONE, DIM, PLAIN},
    {"norm2_shift", PARAMETER, ONE, DIM, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},
    {"qkv", SAVED_INPUT, ROWS, QKV, PLAIN},
    {"probabilities", SAVED_INPUT, HEAD_ROWS, SEQUENCE, CORE},
    {"attended", SAVED_WEIGHT, ROWS, HEADS_DIM, PLAIN},
    {"norm1_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm1_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"norm1_output", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"expanded", SAVED_INPUT, ROWS, HIDDEN, PLAIN},
    {"activated", SAVED_WEIGHT, ROWS, HIDDEN, PLAIN},
    {"norm2_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm2_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"qkv_gradient", STASH, ROWS, QKV, PLAIN},
    {"attention_gradient", STASH, ROWS, DIM, PLAIN},
    {"norm1_gradient", STASH, ROWS, DIM, PLAIN},
    {"expand_gradient", STASH, ROWS, HIDDEN, PLAIN},
    {"contract_gradient", STASH, ROWS, DIM, PLAIN},
    {"branch", WORKSPACE, ROWS, DIM, PLAIN}, /* F: of a residual branch; I: gradient of attended */
    {"residual_gradient", WORKSPACE, ROWS, DIM, PLAIN},       /* I: of the sum before a norm */
    {"score_gradient", WORKSPACE, SEQUENCE, SEQUENCE, PLAIN}, /* I: of one sample and head */
    {"dropped", SAVED_INPUT, HEAD_ROWS, SEQUENCE, WITH_DROPOUT | CORE},
    {"dropped_mask", SAVED_INPUT, HEAD_ROWS, SEQUENCE, MASK | CORE},
    {"attention_mask", SAVED_INPUT, ROWS, DIM, MASK},
    {"contract_mask", SAVED_INPUT, ROWS, DIM, MASK},
};

/* The gradients of the two branches are those of the residual stream: residual_gradient and the
 * gradient of the output. */
static const tensor_row llama_block[] = {
    {"norm1_scale", PARAMETER, ONE, DIM, PLAIN},
    {"qkv_weight", PARAMETER, QKV, DIM, PLAIN},
    {"attention_weight", PARAMETER, DIM, HEADS_DIM, PLAIN},
    {"norm2_scale", PARAMETER, ONE, DIM, PLAIN},
    {"gate_weight", PARAMETER, HIDDEN, DIM, PLAIN},
    {"up_weight", PARAMETER, HIDDEN, DIM, PLAIN},
    {"down_weight", PARAMETER, DIM, HIDDEN, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},
    {"norm1_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm1_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"norm1_output", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"qkv", SAVED_INPUT, ROWS, QKV, PLAIN}, /* queries and keys rotated */
    {"probabilities", SAVED_INPUT, HEAD_ROWS, SEQUENCE, CORE},
    {"attended", SAVED_WEIGHT, ROWS, HEADS_DIM, PLAIN},
    {"norm2_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm2_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"norm2_output", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"gate", SAVED_INPUT, ROWS, HIDDEN, PLAIN},
    {"up", SAVED_INPUT, ROWS, HIDDEN, PLAIN},
    {"activated", SAVED_WEIGHT, ROWS, HIDDEN, PLAIN},
    {"norm1_gradient", STASH, ROWS, DIM, PLAIN},
    {"qkv_gradient", STASH, ROWS, QKV, PLAIN},
    {"residual_gradient", STASH, ROWS, DIM, PLAIN}, /* between the two branches */
    {"norm2_gradient", STASH, ROWS, DIM, PLAIN},
    {"gate_gradient", STASH, ROWS, HIDDEN, PLAIN},
    {"up_gradient", STASH, ROWS, HIDDEN, PLAIN},
    {"attended_gradient", WORKSPACE, ROWS, HEADS_DIM, PLAIN},
    {"score_gradient", WORKSPACE, SEQUENCE, SEQUENCE, PLAIN}, /* I: of one sample and head */
    {"qkv_bias", PARAMETER, ONE, QKV, WITH_QKV_BIAS},
};

/* The logits buffer is by far the largest tensor of a model, so there is one: F leaves exp(logit -
 * row maximum) in it, I turns that into the gradient of the logits, W reads it. */
static const tensor_row lm_head[] = {
    {"norm_scale", PARAMETER, ONE, DIM, PLAIN},
    {"norm_shift", PARAMETER, ONE, DIM, PLAIN},
    {"token_weight", PARAMETER, VOCABULARY, DIM, TIED},
    {"norm_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"row_sum", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"logits", SAVED_WEIGHT, ROWS, LOGITS, PLAIN},
    {"norm_gradient", STASH, ROWS, DIM, PLAIN},
    {"normed", WORKSPACE, ROWS, DIM, PLAIN},
};

static const tensor_row rms_lm_head[] = {
    {"norm_scale", PARAMETER, ONE, DIM, PLAIN},
    {"token_weight", PARAMETER, VOCABULARY, DIM, TIED},
    {"norm_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"row_sum", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"logits", SAVED_WEIGHT, ROWS, LOGITS, PLAIN},
    {"norm_gradient", STASH, ROWS, DIM, PLAIN},
    {"normed", WORKSPACE, ROWS, DIM, PLAIN},
};

static const tensor_row mlm_head[] = {
    {"transform_weight", PARAMETER, DIM, DIM, PLAIN},
    {"transform_bias", PARAMETER, ONE, DIM, PLAIN},
    {"norm_scale", PARAMETER, ONE, DIM, PLAIN},
    {"norm_shift", PARAMETER, ONE, DIM, PLAIN},
    {"token_weight", PARAMETER, VOCABULARY, DIM, TIED},
    {"token_bias", PARAMETER, ONE, VOCABULARY, PLAIN},
    {"transformed", SAVED_INPUT, ROWS, DIM, PLAIN}, /* before GELU */
    {"norm_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"row_sum", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"logits", SAVED_WEIGHT, ROWS, VOCABULARY, PLAIN},
    {"norm_gradient", STASH, ROWS, DIM, PLAIN},
    {"transform_gradient", STASH, ROWS, DIM, PLAIN},
    {"activated", WORKSPACE, ROWS, DIM, PLAIN}, /* F: after GELU */
    {"normed", WORKSPACE, ROWS, DIM, PLAIN},    /* F, W: the norm's output */
};

static const tensor_row layer_norm[] = {
    {"scale", PARAMETER, ONE, DIM, PLAIN},       {"shift", PARAMETER, ONE, DIM, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},        {"normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
};

static const tensor_row rms_norm[] = {
    {"scale", PARAMETER, ONE, DIM, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},
    {"normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
};

static const tensor_row linear[] = {
    {"weight", PARAMETER, OUTPUT_DIM, DIM, PLAIN},
    {"bias", PARAMETER, ONE, OUTPUT_DIM, PLAIN},
    {"output", OUTPUT, ROWS, OUTPUT_FEATURES, PLAIN},
};

static const tensor_row attention[] = {
    {"qkv_weight", PARAMETER, QKV, DIM, PLAIN},
    {"qkv_bias", PARAMETER, ONE, QKV, PLAIN},
    {"output_weight", PARAMETER, DIM, HEADS_DIM, PLAIN},
    {"output_bias", PARAMETER, ONE, DIM, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},
    {"qkv", SAVED_INPUT, ROWS, QKV, PLAIN},
    {"probabilities", SAVED_INPUT, HEAD_ROWS, SEQUENCE, CORE},
    {"attended", SAVED_WEIGHT, ROWS, HEADS_DIM, PLAIN},
    {"qkv_gradient", STASH, ROWS, QKV, PLAIN},
    {"attended_gradient", WORKSPACE, ROWS, HEADS_DIM, PLAIN},
    {"score_gradient", WORKSPACE, SEQUENCE, SEQUENCE, PLAIN},
};

/* gelu, relu, dropout, add: the backward pass needs at most the layer's input or output. */
static const tensor_row elementwise[] = {
    {"output", OUTPUT, ROWS, DIM, PLAIN},
};

/* The input's rows are kept, with log Σ exp of each: exp(x - that) is the softmax. */
static const tensor_row cross_entropy[] = {
    {"row_log_sum", SAVED_INPUT, ROWS, ONE, STATISTIC},
};

static const struct {
    const tensor_row *rows;
    int count;
} tensor_table[PP_OP_COUNT] = {
#define ROWS_OF(table)                                                                             \
    { table, (int)(sizeof(table) / sizeof *(table)) }
    [PP_OP_OPAQUE] = {NULL, 0},
    [PP_OP_EMBEDDING] = ROWS_OF(embedding),
    [PP_OP_GPT_BLOCK] = ROWS_OF(gpt_block),
    [PP_OP_LM_HEAD] = ROWS_OF(lm_head),
    [PP_OP_LAYER_NORM] = ROWS_OF(layer_norm),
    [PP_OP_LINEAR] = ROWS_OF(linear),
    [PP_OP_GELU] = ROWS_OF(elementwise),
    [PP_OP_RELU] = ROWS_OF(elementwise),
    [PP_OP_ATTENTION] = ROWS_OF(attention),
    [PP_OP_DROPOUT] = ROWS_OF(elementwise),
    [PP_OP_ADD] = ROWS_OF(elementwise),
    [PP_OP_CROSS_ENTROPY] = ROWS_OF(cross_entropy),
    [PP_OP_RMS_NORM] = ROWS_OF(rms_norm),
    [PP_OP_TOKEN_EMBEDDING] = ROWS_OF(token_embedding),
    [PP_OP_LLAMA_BLOCK] = ROWS_OF(llama_block),
    [PP_OP_RMS_LM_HEAD] = ROWS_OF(rms_lm_head),
    [PP_OP_BERT_EMBEDDING] = ROWS_OF(bert_embedding),
    [PP_OP_BERT_BLOCK] = ROWS_OF(bert_block),
    [PP_OP_MLM_HEAD] = ROWS_OF(mlm_head),
#undef ROWS_OF
};

_Static_assert(sizeof gpt_block / sizeof *gpt_block <= PP_LAYER_TENSORS, "the largest op fits");

/* What of an extent is shared out among the devices that a layer is divided over. */
typedef struct share {
    const char *what; /* NULL: nothing, each device has all of it */
    int64_t count;
    bool padded; /* to a multiple of their number */
} share;

static share share_of(extent kind, const pp_layer *layer) {
    switch (kind) {
    case HEAD_ROWS:
    case HEADS_DIM:
        return (share){"heads", layer->heads, false};
    case QKV:
        if (pp_layer_kv_heads(layer) < layer->heads)
            return (share){"heads of keys and values", pp_layer_kv_heads(layer), false};
        return (share){"heads", layer->heads, false};
    case HIDDEN:
        return (share){"features of the MLP", pp_layer_hidden(layer), false};
    case VOCABULARY:
    case LOGITS:
        return (share){"words of the vocabulary", layer->vocabulary, true};
    case OUTPUT_DIM:
        return (share){"output features", pp_layer_features_out(layer), false};
    case ONE:
    case ROWS:
    case SEQUENCE:
    case DIM:
    case SEGMENTS:
    case OUTPUT_FEATURES:
        break;
    }
    return (share){0};
}

/* Of the whole layer. */
static int64_t whole_extent(extent kind, const pp_layer *layer, int64_t samples) {
    switch (kind) {
    case ONE:
        return 1;
    case ROWS:
        return samples * pp_layer_sequence(layer);
    case HEAD_ROWS:
        return samples * layer->heads * pp_layer_sequence(layer);
    case SEQUENCE:
        return pp_layer_sequence(layer);
    case VOCABULARY:
    case LOGITS:
        return layer->vocabulary;
    case DIM:
        return layer->dim;
    case HEADS_DIM:
        return layer->heads * pp_layer_head_dim(layer);
    case QKV:
        return (layer->heads + 2 * pp_layer_kv_heads(layer)) * pp_layer_head_dim(layer);
    case HIDDEN:
        return pp_layer_hidden(layer);
    case SEGMENTS:
        return layer->segments > 0 ? layer->segments : 2;
    case OUTPUT_DIM:
    case OUTPUT_FEATURES:
        return pp_layer_features_out(layer);
    }
    assert(false && "every extent is handled");
    return 0;
}

static int64_t extent_of(extent kind, const pp_layer *layer, int64_t samples) {
    int64_t whole = whole_extent(kind, layer, samples);
    int64_t part = share_of(kind, layer).what ? pp_layer_part(layer, whole) : whole;
    return kind == LOGITS ? (part + 7) / 8 * 8 : part;
}

int64_t pp_layer_logits_stride(const pp_layer *layer) {
    return extent_of(layer->op == PP_OP_MLM_HEAD ? VOCABULARY : LOGITS, layer, 1);
}

/* Byte counts as elements of dtype, rounded up. */
static pp_tensor opaque_tensor(const char *name, pp_tensor_role role, pp_dtype dtype, int64_t rows,
                               int64_t bytes) {
    int64_t size = pp_dtype_bytes(dtype);
    return (pp_tensor){.name = name,
                       .role = role,
                       .dtype = dtype,
                       .rows = rows,
                       .columns = (bytes + size - 1) / size};
}

static int opaque_tensors(const pp_layer *layer, int64_t samples, pp_dtype dtype,
                          pp_tensor *tensors) {
    int64_t saved = layer->activation_bytes, early = saved / 2;
    int64_t tied = layer->tie ? layer->tied_bytes : 0;
    tensors[0] = opaque_tensor("weights", PARAMETER, dtype, 1, layer->parameter_bytes - tied);
    tensors[1] = opaque_tensor("output", OUTPUT, dtype, samples, layer->output_bytes);
    tensors[2] = opaque_tensor("saved_for_input", SAVED_INPUT, dtype, samples, early);
    tensors[3] = opaque_tensor("saved_for_weight", SAVED_WEIGHT, dtype, samples, saved - early);
    tensors[4] = opaque_tensor("tied_weights", PARAMETER, dtype, 1, tied);
    tensors[4].tied = true;
    return tied > 0 ? 5 : 4;
}

static bool is_there(trait what, const pp_layer *layer) {
    if (what & (WITH_DROPOUT | MASK)) return layer->dropout > 0;
    if (what & WITH_QKV_BIAS) return layer->qkv_bias;
    return true;
}

static pp_dtype dtype_of(trait what, pp_dtype dtype) {
    if (what & MASK) return PP_UINT8;
    return (what & STATISTIC) && dtype == PP_BF16 ? PP_FP32 : dtype;
}

int pp_layer_tensors(const pp_layer *layer, int64_t samples, pp_dtype dtype,
                     pp_tensor tensors[PP_LAYER_TENSORS]) {
    if (layer->op == PP_OP_OPAQUE) return opaque_tensors(layer, samples, dtype, tensors);
    int count = 0;
    for (int i = 0; i < tensor_table[layer->op].count; i++) {
        const tensor_row *row = &tensor_table[layer->op].rows[i];
        if (!is_there(row->trait, layer)) continue;
        tensors[count++] = (pp_tensor){.name = row->name,
                                       .role = row->role,
                                       .dtype = dtype_of(row->trait, dtype),
                                       .rows = extent_of(row->rows, layer, samples),
                                       .columns = extent_of(row->columns, layer, samples),
                                       .tied = (row->trait & TIED) && layer->tie,
                                       .attention_core = row->trait & CORE};
    }
    return count;
}

/* ---- dividing ------------------------------------------------------------------------------ */

static pp_status check_share(const pp_layer *layer, share part, int tp, pp_error *error) {
    if (!part.what || part.padded || part.count % tp == 0) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "--tp",
                   "%d devices cannot share the %" PRId64 " %s of layer '%s' evenly: choose a "
                   "divisor of %" PRId64,
                   tp, part.count, part.what, layer->name, part.count);
}

pp_status pp_layer_shard(const pp_layer *layer, int tp, pp_layer *local, pp_error *error) {
    *local = *layer;
    if (tp <= 1) return PP_OK;
    if (layer->op == PP_OP_OPAQUE)
        return pp_fail(error, PP_E_UNSUPPORTED, "--tp",
                       "%d: layer '%s' is opaque, and nothing says what a part of it costs; use "
                       "--tp 1",
                       tp, layer->name);
    for (int i = 0; i < tensor_table[layer->op].count; i++) {
        const tensor_row *row = &tensor_table[layer->op].rows[i];
        PP_TRY(check_share(layer, share_of(row->rows, layer), tp, error));
        PP_TRY(check_share(layer, share_of(row->columns, layer), tp, error));
    }
    local->shards = tp;
    return PP_OK;
}

pp_status pp_model_can_shard(const pp_model *model, int tp, pp_error *error) {
    pp_layer local;
    for (int i = 0; i < model->layer_count; i++)
        PP_TRY(pp_layer_shard(&model->layers[i], tp, &local, error));
    return PP_OK;
}

/* ---- sums ---------------------------------------------------------------------------------- */

int64_t pp_tensor_bytes(const pp_tensor *tensor) {
    return tensor->rows * tensor->columns * pp_dtype_bytes(tensor->dtype);
}

int64_t pp_layer_parameters(const pp_layer *layer) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int64_t elements = 0;
    int count = pp_layer_tensors(layer, 1, PP_FP32, tensors);
    for (int i = 0; i < count; i++)
        if (tensors[i].role == PARAMETER) elements += tensors[i].rows * tensors[i].columns;
    return elements;
}
