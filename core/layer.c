/* Ops as data: names, what identifies a layer's cost, what the backward pass has to keep.
 *
 * Everything core knows of an op is a row of a table: here its fields and needs, in
 * layer_tensors.c its tensors, in layer_work.c its arithmetic. Its kernels are a file in
 * executor/layers/. */
#include "core/layer_internal.h"
#include "core/model_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int64_t bytes;
} dtype_table[PP_DTYPE_COUNT] = {
    [PP_FP32] = {"fp32", 4},   [PP_FP64] = {"fp64", 8},   [PP_BF16] = {"bf16", 2},
    [PP_INT32] = {"int32", 4}, [PP_UINT8] = {"uint8", 1},
};

int64_t pp_dtype_bytes(pp_dtype dtype) {
    return dtype_table[dtype].bytes;
}

const char *pp_dtype_name(pp_dtype dtype) {
    return dtype_table[dtype].name;
}

bool pp_dtype_from_name(const char *name, pp_dtype *dtype) {
    for (int i = 0; i < PP_DTYPE_COUNT; i++) {
        if (strcmp(name, dtype_table[i].name) != 0) continue;
        *dtype = (pp_dtype)i;
        return true;
    }
    return false;
}

static const char *const op_names[PP_OP_COUNT] = {
#define X(value, name, what) [value] = name,
    PP_OP_LIST(X)
#undef X
};

const char *pp_op_name(pp_op op) {
    return op_names[op];
}

bool pp_op_from_name(const char *name, pp_op *op) {
    for (int i = 0; i < PP_OP_COUNT; i++) {
        if (strcmp(name, op_names[i]) != 0) continue;
        *op = (pp_op)i;
        return true;
    }
    return false;
}

/* ---- needs --------------------------------------------------------------------------------- */

/* Blocks that begin with a norm keep the normalised rows themselves, so that nobody has to keep
 * their input (layer_tensors.c). An opaque layer's activation bytes already hold what its
 * backward pass reads of its input. */
static const pp_layer_needs needs_table[PP_OP_COUNT] = {
    [PP_OP_OPAQUE] = {.gradient_for_weight = true, .has_weights = true},
    [PP_OP_EMBEDDING] = {.gradient_for_weight = true, .has_weights = true, .takes_tokens = true},
    [PP_OP_GPT_BLOCK] = {.has_weights = true},
    [PP_OP_LM_HEAD] = {.has_weights = true, .makes_loss = true},
    [PP_OP_LAYER_NORM] = {.gradient_for_weight = true, .has_weights = true},
    [PP_OP_LINEAR] = {.input_for_weight = true, .gradient_for_weight = true, .has_weights = true},
    [PP_OP_GELU] = {.input_for_input = true},
    [PP_OP_RELU] = {.output_for_input = true},
    [PP_OP_ATTENTION] = {.input_for_weight = true,
                         .gradient_for_weight = true,
                         .has_weights = true},
    [PP_OP_DROPOUT] = {0},
    [PP_OP_ADD] = {0},
    [PP_OP_CROSS_ENTROPY] = {.input_for_input = true, .makes_loss = true},
    [PP_OP_RMS_NORM] = {.gradient_for_weight = true, .has_weights = true},
    [PP_OP_TOKEN_EMBEDDING] = {.gradient_for_weight = true,
                               .has_weights = true,
                               .takes_tokens = true},
    [PP_OP_LLAMA_BLOCK] = {.gradient_for_weight = true, .has_weights = true},
    [PP_OP_RMS_LM_HEAD] = {.has_weights = true, .makes_loss = true},
    [PP_OP_BERT_EMBEDDING] = {.gradient_for_weight = true,
                              .has_weights = true,
                              .takes_tokens = true},
    [PP_OP_BERT_BLOCK] = {.input_for_weight = true,
                          .gradient_for_weight = true,
                          .has_weights = true,
                          .sees_both_ways = true},
    [PP_OP_MLM_HEAD] = {.input_for_weight = true,
                        .has_weights = true,
                        .makes_loss = true,
                        .masks_tokens = true},
};

pp_layer_needs pp_layer_needs_get(pp_op op) {
    return needs_table[op];
}

/* ---- fields with a default ----------------------------------------------------------------- */

int64_t pp_layer_kv_heads(const pp_layer *layer) {
    return layer->kv_heads > 0 ? layer->kv_heads : layer->heads;
}

int64_t pp_layer_head_dim(const pp_layer *layer) {
    if (layer->head_dim > 0) return layer->head_dim;
    return layer->heads > 0 ? layer->dim / layer->heads : layer->dim;
}

int64_t pp_layer_hidden(const pp_layer *layer) {
    return layer->hidden > 0 ? layer->hidden : 4 * layer->dim;
}

double pp_layer_rotary_base(const pp_layer *layer) {
    return layer->rotary_base > 0 ? layer->rotary_base : 10000;
}

/* ---- signatures ---------------------------------------------------------------------------- */

typedef enum field_kind { COUNT_FIELD, REAL_FIELD, BOOL_FIELD, NAME_FIELD } field_kind;

/* Fields that times can depend on, in the order in which a signature lists them. */
static const struct {
    const char *name;
    size_t offset;
    field_kind kind;
    uint32_t ops;     /* bit per op that always prints it */
    uint32_t ops_set; /* bit per op that prints it where it is not zero */
} signature_fields[] = {
#define OP(op) (UINT32_C(1) << (op))
#define ALL_BUT_OPAQUE (OP(PP_OP_COUNT) - 1 - OP(PP_OP_OPAQUE))
#define BLOCKS (OP(PP_OP_GPT_BLOCK) | OP(PP_OP_LLAMA_BLOCK) | OP(PP_OP_BERT_BLOCK))
#define EMBEDDINGS (OP(PP_OP_EMBEDDING) | OP(PP_OP_TOKEN_EMBEDDING) | OP(PP_OP_BERT_EMBEDDING))
#define HEADS (OP(PP_OP_LM_HEAD) | OP(PP_OP_RMS_LM_HEAD) | OP(PP_OP_MLM_HEAD))
    {"name", offsetof(pp_layer, name), NAME_FIELD, OP(PP_OP_OPAQUE), 0},
    {"dim", offsetof(pp_layer, dim), COUNT_FIELD, ALL_BUT_OPAQUE, 0},
    {"output_dim", offsetof(pp_layer, output_dim), COUNT_FIELD, 0, OP(PP_OP_LINEAR)},
    {"heads", offsetof(pp_layer, heads), COUNT_FIELD, BLOCKS | OP(PP_OP_ATTENTION), 0},
    {"kv_heads", offsetof(pp_layer, kv_heads), COUNT_FIELD, 0, OP(PP_OP_LLAMA_BLOCK)},
    {"head_dim", offsetof(pp_layer, head_dim), COUNT_FIELD, 0, OP(PP_OP_LLAMA_BLOCK)},
    {"hidden", offsetof(pp_layer, hidden), COUNT_FIELD, 0, BLOCKS},
    {"qkv_bias", offsetof(pp_layer, qkv_bias), BOOL_FIELD, 0, OP(PP_OP_LLAMA_BLOCK)},
    {"sequence", offsetof(pp_layer, sequence), COUNT_FIELD, ALL_BUT_OPAQUE, 0},
    {"vocabulary", offsetof(pp_layer, vocabulary), COUNT_FIELD, EMBEDDINGS | HEADS, 0},
    {"dropout", offsetof(pp_layer, dropout), REAL_FIELD, OP(PP_OP_GPT_BLOCK) | OP(PP_OP_DROPOUT),
     EMBEDDINGS | OP(PP_OP_BERT_BLOCK)},
    {"shards", offsetof(pp_layer, shards), COUNT_FIELD, 0, ALL_BUT_OPAQUE},
#undef EMBEDDINGS
#undef HEADS
#undef BLOCKS
#undef ALL_BUT_OPAQUE
#undef OP
};

/* The shortest decimal that reads back to value, with a point in any locale. */
static void format_real(double value, char *text, size_t size) {
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, size, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    char *comma = strchr(text, ',');
    if (comma) *comma = '.';
}

/* " dim=64"; a name that would not fit ends in its hash, so that different names stay different. */
static void format_field(const pp_layer *layer, size_t row, char *text, size_t size) {
    const char *name = signature_fields[row].name;
    const char *field = (const char *)layer + signature_fields[row].offset;
    char real[32];
    switch (signature_fields[row].kind) {
    case COUNT_FIELD:
        snprintf(text, size, " %s=%" PRId64, name, *(const int64_t *)(const void *)field);
        break;
    case REAL_FIELD:
        format_real(*(const double *)(const void *)field, real, sizeof real);
        snprintf(text, size, " %s=%s", name, real);
        break;
    case BOOL_FIELD:
        snprintf(text, size, " %s=%d", name, *(const bool *)(const void *)field);
        break;
    case NAME_FIELD: {
        const char *value = *(const char *const *)(const void *)field;
        size_t length = strlen(value);
        if (length < 120)
            snprintf(text, size, " %s=%s", name, value);
        else
            snprintf(text, size, " %s=%.100s...%016" PRIx64, name, value,
                     pp_hash(PP_HASH_START, value, length));
        break;
    }
    }
}

static bool field_is_zero(const pp_layer *layer, size_t row) {
    const char *field = (const char *)layer + signature_fields[row].offset;
    if (signature_fields[row].kind == REAL_FIELD) return *(const double *)(const void *)field == 0;
    if (signature_fields[row].kind == BOOL_FIELD) return !*(const bool *)(const void *)field;
    return *(const int64_t *)(const void *)field == 0;
}

const char *pp_layer_signature(const pp_layer *layer, char buffer[PP_SIGNATURE_LENGTH]) {
    uint32_t bit = UINT32_C(1) << layer->op;
    size_t length = (size_t)snprintf(buffer, PP_SIGNATURE_LENGTH, "%s", pp_op_name(layer->op));
    for (size_t i = 0; i < sizeof signature_fields / sizeof *signature_fields; i++) {
        bool always = signature_fields[i].ops & bit;
        bool where_set = signature_fields[i].ops_set & bit;
        if (!always && !(where_set && !field_is_zero(layer, i))) continue;
        format_field(layer, i, buffer + length, PP_SIGNATURE_LENGTH - length);
        length += strlen(buffer + length);
    }
    return buffer;
}

#define FIELD_MAX (INT64_C(1) << 24) /* as documents have it */

/* "64" into the field; false unless the whole of it is a number. */
static bool parse_field(const char *text, size_t row, pp_layer *layer) {
    char *field = (char *)layer + signature_fields[row].offset;
    if (signature_fields[row].kind == NAME_FIELD) return false;
    if (signature_fields[row].kind == COUNT_FIELD)
        return pp_parse_int(text, 1, FIELD_MAX, (int64_t *)(void *)field);
    if (signature_fields[row].kind == BOOL_FIELD) return *(bool *)field = strcmp(text, "1") == 0;
    return pp_parse_double(text, (double *)(void *)field);
}

static bool parse_named_field(char *word, pp_layer *layer) {
    char *value = strchr(word, '=');
    if (!value) return false;
    *value++ = '\0';
    for (size_t i = 0; i < sizeof signature_fields / sizeof *signature_fields; i++)
        if (strcmp(signature_fields[i].name, word) == 0) return parse_field(value, i, layer);
    return false;
}

bool pp_layer_from_signature(const char *signature, pp_layer *layer) {
    char text[PP_SIGNATURE_LENGTH], again[PP_SIGNATURE_LENGTH], *rest;
    *layer = (pp_layer){0};
    if (strlen(signature) >= sizeof text) return false;
    strcpy(text, signature);
    char *word = strtok_r(text, " ", &rest);
    if (!word || !pp_op_from_name(word, &layer->op) || layer->op == PP_OP_OPAQUE) return false;
    while ((word = strtok_r(NULL, " ", &rest)) != NULL)
        if (!parse_named_field(word, layer)) return false;
    if (layer->heads > 0 && layer->head_dim == 0 && layer->dim % layer->heads != 0) return false;
    if (layer->heads > 0 && layer->heads % pp_layer_kv_heads(layer) != 0) return false;
    if (pp_layer_sample_elements(layer) > PP_TENSOR_ELEMENTS_MAX) return false;
    return strcmp(pp_layer_signature(layer, again), signature) == 0;
}
