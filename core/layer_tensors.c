/* The tensors of each op for one microbatch: the one list from which the layout is made, the
 * executor allocates and the simulator adds up (promise P3).
 *
 * What a transformer block saves, next to Korthikanti et al. 2022 (section 4.1), who count
 * s·b·h·(34 + 5·a·s/h) bytes in 16 bit:
 *
 *   kept by both    normalised rows of both norms 2+2, q k v 6, attended values 2, MLP before and
 *                   after GELU 8+8: 28; softmax output 2·a·s/h
 *   only they keep  the two norms' inputs 2+2 (ours keep the normalised rows, which serve both the
 *                   norm's gradient and, scaled again, the weights behind it), dropout masks 1+1
 *                   (ours are drawn again from their counters), and mask and result of a dropout
 *                   on the softmax 3·a·s/h (this op has none)
 *
 * so a block here holds s·b·h·(28 + 2·a·s/h) bytes in bf16 and the norms' fp32 statistics, 8·s·b.
 *
 * On t devices (tensor parallelism; Shoeybi et al. 2019, section 3, and Korthikanti, section 4.2.1:
 * s·b·h·(10 + 24/t + 5·a·s/(h·t))) each holds its heads of q k v and their attention, its part of
 * the MLP's inner features and of the vocabulary, and all of the rest: s·b·h·(4 + 24/t +
 * 2·a·s/(h·t)) here. So a tensor is divided if an extent of it is, and which are is said once, in
 * share_of. */
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
    DIM,
    HEADS_DIM, /* features of all heads: dim, divided by heads */
    DIM_3,     /* three times that: q, k and v */
    DIM_4,     /* inner features of the MLP */
    OUTPUT_DIM,
    OUTPUT_FEATURES /* of a linear layer, whole: gathered from the devices */
} extent;

/* What else there is to say of a tensor. */
typedef enum trait {
    PLAIN,
    STATISTIC,   /* sums over many elements: fp32 under bf16 */
    TIED,        /* shared where the layer has a tie */
    WITH_DROPOUT /* there only where the layer has dropout */
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

static const tensor_row gpt_block[] = {
    {"norm1_scale", PARAMETER, ONE, DIM, PLAIN},
    {"norm1_shift", PARAMETER, ONE, DIM, PLAIN},
    {"qkv_weight", PARAMETER, DIM_3, DIM, PLAIN},
    {"qkv_bias", PARAMETER, ONE, DIM_3, PLAIN},
    {"attention_weight", PARAMETER, DIM, HEADS_DIM, PLAIN},
    {"attention_bias", PARAMETER, ONE, DIM, PLAIN},
    {"norm2_scale", PARAMETER, ONE, DIM, PLAIN},
    {"norm2_shift", PARAMETER, ONE, DIM, PLAIN},
    {"expand_weight", PARAMETER, DIM_4, DIM, PLAIN},
    {"expand_bias", PARAMETER, ONE, DIM_4, PLAIN},
    {"contract_weight", PARAMETER, DIM, DIM_4, PLAIN},
    {"contract_bias", PARAMETER, ONE, DIM, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},
    {"norm1_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm1_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"qkv", SAVED_INPUT, ROWS, DIM_3, PLAIN},
    {"probabilities", SAVED_INPUT, HEAD_ROWS, SEQUENCE, PLAIN},
    {"attended", SAVED_WEIGHT, ROWS, HEADS_DIM, PLAIN},
    {"norm2_normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"norm2_rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
    {"expanded", SAVED_INPUT, ROWS, DIM_4, PLAIN},
    {"activated", SAVED_WEIGHT, ROWS, DIM_4, PLAIN},
    /* gradients at the outputs of the norms and the four linears */
    {"norm1_gradient", STASH, ROWS, DIM, PLAIN},
    {"qkv_gradient", STASH, ROWS, DIM_3, PLAIN},
    {"attention_gradient", STASH, ROWS, DIM, PLAIN},
    {"norm2_gradient", STASH, ROWS, DIM, PLAIN},
    {"expand_gradient", STASH, ROWS, DIM_4, PLAIN},
    {"contract_gradient", STASH, ROWS, DIM, PLAIN},
    {"normed", WORKSPACE, ROWS, DIM, PLAIN}, /* a norm's output, F and W */
    {"branch", WORKSPACE, ROWS, DIM, PLAIN}, /* F: of a residual branch; I: gradient of attended */
    {"residual_gradient", WORKSPACE, ROWS, DIM, PLAIN},       /* I: between the two branches */
    {"score_gradient", WORKSPACE, SEQUENCE, SEQUENCE, PLAIN}, /* I: of one sample and head */
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
    {"logits", SAVED_WEIGHT, ROWS, VOCABULARY, PLAIN},
    {"norm_gradient", STASH, ROWS, DIM, PLAIN},
    {"normed", WORKSPACE, ROWS, DIM, PLAIN},
};

static const tensor_row layer_norm[] = {
    {"scale", PARAMETER, ONE, DIM, PLAIN},       {"shift", PARAMETER, ONE, DIM, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},        {"normal", SAVED_WEIGHT, ROWS, DIM, PLAIN},
    {"rstd", SAVED_INPUT, ROWS, ONE, STATISTIC},
};

static const tensor_row linear[] = {
    {"weight", PARAMETER, OUTPUT_DIM, DIM, PLAIN},
    {"bias", PARAMETER, ONE, OUTPUT_DIM, PLAIN},
    {"output", OUTPUT, ROWS, OUTPUT_FEATURES, PLAIN},
};

static const tensor_row attention[] = {
    {"qkv_weight", PARAMETER, DIM_3, DIM, PLAIN},
    {"qkv_bias", PARAMETER, ONE, DIM_3, PLAIN},
    {"output_weight", PARAMETER, DIM, HEADS_DIM, PLAIN},
    {"output_bias", PARAMETER, ONE, DIM, PLAIN},
    {"output", OUTPUT, ROWS, DIM, PLAIN},
    {"qkv", SAVED_INPUT, ROWS, DIM_3, PLAIN},
    {"probabilities", SAVED_INPUT, HEAD_ROWS, SEQUENCE, PLAIN},
    {"attended", SAVED_WEIGHT, ROWS, HEADS_DIM, PLAIN},
    {"qkv_gradient", STASH, ROWS, DIM_3, PLAIN},
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
    case DIM_3:
        return (share){"heads", layer->heads, false};
    case DIM_4:
        return (share){"features of the MLP", 4 * layer->dim, false};
    case VOCABULARY:
        return (share){"words of the vocabulary", layer->vocabulary, true};
    case OUTPUT_DIM:
        return (share){"output features", pp_layer_features_out(layer), false};
    case ONE:
    case ROWS:
    case SEQUENCE:
    case DIM:
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
        return layer->vocabulary;
    case DIM:
    case HEADS_DIM:
        return layer->dim;
    case DIM_3:
        return 3 * layer->dim;
    case DIM_4:
        return 4 * layer->dim;
    case OUTPUT_DIM:
    case OUTPUT_FEATURES:
        return pp_layer_features_out(layer);
    }
    assert(false && "every extent is handled");
    return 0;
}

static int64_t extent_of(extent kind, const pp_layer *layer, int64_t samples) {
    int64_t whole = whole_extent(kind, layer, samples);
    return share_of(kind, layer).what ? pp_layer_part(layer, whole) : whole;
}

/* Byte counts as elements of dtype, rounded up. */
static pp_tensor opaque_tensor(const char *name, pp_tensor_role role, pp_dtype dtype, int64_t rows,
                               int64_t bytes) {
    int64_t size = pp_dtype_bytes(dtype);
    return (pp_tensor){name, role, dtype, rows, (bytes + size - 1) / size, false};
}

static int opaque_tensors(const pp_layer *layer, int64_t samples, pp_dtype dtype,
                          pp_tensor *tensors) {
    int64_t saved = layer->activation_bytes, early = saved / 2;
    tensors[0] = opaque_tensor("weights", PARAMETER, dtype, 1, layer->parameter_bytes);
    tensors[1] = opaque_tensor("output", OUTPUT, dtype, samples, layer->output_bytes);
    tensors[2] = opaque_tensor("saved_for_input", SAVED_INPUT, dtype, samples, early);
    tensors[3] = opaque_tensor("saved_for_weight", SAVED_WEIGHT, dtype, samples, saved - early);
    return 4;
}

int pp_layer_tensors(const pp_layer *layer, int64_t samples, pp_dtype dtype,
                     pp_tensor tensors[PP_LAYER_TENSORS]) {
    if (layer->op == PP_OP_OPAQUE) return opaque_tensors(layer, samples, dtype, tensors);
    pp_dtype statistic = dtype == PP_BF16 ? PP_FP32 : dtype;
    int count = 0;
    for (int i = 0; i < tensor_table[layer->op].count; i++) {
        const tensor_row *row = &tensor_table[layer->op].rows[i];
        if (row->trait == WITH_DROPOUT && !(layer->dropout > 0)) continue;
        tensors[count++] = (pp_tensor){.name = row->name,
                                       .role = row->role,
                                       .dtype = row->trait == STATISTIC ? statistic : dtype,
                                       .rows = extent_of(row->rows, layer, samples),
                                       .columns = extent_of(row->columns, layer, samples),
                                       .tied = row->trait == TIED && layer->tie};
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
