/* Reading a model document: which fields each op has, and the layers and edges themselves.
 *
 * A new op is one list of fields and one row of op_rules. What the numbers mean together is
 * model_check.c. */
#include "core/model_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- the fields of each op ------------------------------------------------------------------ */

static const char *op_name(int op) {
    return pp_op_name((pp_op)op);
}

#define COUNT_ROW(key_, member_, maximum_)                                                         \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_INT64, PP_AT(pp_layer, member_), .minimum = 1,               \
        .maximum = maximum_                                                                        \
    }
#define NAME_ROWS                                                                                  \
    {.key = "name", .type = PP_FIELD_STRING, PP_AT(pp_layer, name)}, {                             \
        .key = "op", .type = PP_FIELD_NAME, PP_AT(pp_layer, op), .name = op_name,                  \
        .name_count = PP_OP_COUNT                                                                  \
    }
#define VOCABULARY COUNT_ROW("vocabulary", vocabulary, 1 << 24)
#define DIM COUNT_ROW("dim", dim, 1 << 20)
#define OUTPUT_DIM COUNT_ROW("output_dim", output_dim, 1 << 20)
#define HEADS COUNT_ROW("heads", heads, 1 << 16)
#define OPTIONAL_COUNT(key_, member_, maximum_)                                                    \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_INT64, .flags = PP_FIELD_OPTIONAL, PP_AT(pp_layer, member_), \
        .minimum = 1, .maximum = maximum_                                                          \
    }
#define KV_HEADS OPTIONAL_COUNT("kv_heads", kv_heads, 1 << 16)
#define HEAD_DIM OPTIONAL_COUNT("head_dim", head_dim, 1 << 16)
#define SEGMENTS OPTIONAL_COUNT("segments", segments, 1 << 16)
#define HIDDEN(flags_)                                                                             \
    {                                                                                              \
        .key = "hidden", .type = PP_FIELD_INT64, .flags = flags_, PP_AT(pp_layer, hidden),         \
        .minimum = 1, .maximum = 1 << 22                                                           \
    }
#define ROTARY_BASE                                                                                \
    {                                                                                              \
        .key = "rotary_base", .type = PP_FIELD_DOUBLE, .flags = PP_FIELD_OPTIONAL,                 \
        PP_AT(pp_layer, rotary_base), .minimum = 1, .maximum = 1e15                                \
    }
#define QKV_BIAS                                                                                   \
    {                                                                                              \
        .key = "qkv_bias", .type = PP_FIELD_BOOL, .flags = PP_FIELD_OPTIONAL,                      \
        PP_AT(pp_layer, qkv_bias)                                                                  \
    }
#define SEQUENCE COUNT_ROW("sequence", sequence, 1 << 24)
#define SEQUENCE_OR_1                                                                              \
    {                                                                                              \
        .key = "sequence", .type = PP_FIELD_INT64, .flags = PP_FIELD_OPTIONAL,                     \
        PP_AT(pp_layer, sequence), .minimum = 1, .maximum = 1 << 24, .fallback = 1                 \
    }
#define PROBABILITY(flags_)                                                                        \
    {                                                                                              \
        .key = "dropout", .type = PP_FIELD_DOUBLE, .flags = PP_FIELD_BELOW | (flags_),             \
        PP_AT(pp_layer, dropout), .minimum = 0, .maximum = 1                                       \
    }
#define TIE                                                                                        \
    { .key = "tie", .type = PP_FIELD_STRING, .flags = PP_FIELD_OPTIONAL, PP_AT(pp_layer, tie) }
#define SECONDS(key_, member_)                                                                     \
    { .key = key_, .type = PP_FIELD_DOUBLE, PP_AT(pp_layer, member_), .minimum = 0, .maximum = 1e9 }
#define SIZE(key_, member_, maximum_)                                                              \
    { .key = key_, .type = PP_FIELD_INT64, PP_AT(pp_layer, member_), .maximum = maximum_ }

static const pp_field opaque_fields[] = {
    NAME_ROWS,
    SECONDS("forward_s", forward_s),
    SECONDS("input_s", input_s),
    SECONDS("weight_s", weight_s),
    {.key = "backward_assumed",
     .type = PP_FIELD_BOOL,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_layer, backward_assumed)},
    {.key = "weight_doubt_s",
     .type = PP_FIELD_DOUBLE,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_layer, weight_doubt_s),
     .maximum = 1e9},
    SIZE("parameter_bytes", parameter_bytes, PP_TENSOR_ELEMENTS_MAX),
    TIE,
    {.key = "tied_bytes",
     .type = PP_FIELD_INT64,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_layer, tied_bytes),
     .maximum = PP_TENSOR_ELEMENTS_MAX},
    SIZE("output_bytes", output_bytes, PP_TENSOR_ELEMENTS_MAX),
    SIZE("activation_bytes", activation_bytes, PP_TENSOR_ELEMENTS_MAX),
};
static const pp_field embedding_fields[] = {
    NAME_ROWS, VOCABULARY, DIM, SEQUENCE, PROBABILITY(PP_FIELD_OPTIONAL), TIE};
static const pp_field head_fields[] = {NAME_ROWS, VOCABULARY, DIM, SEQUENCE, TIE};
static const pp_field gpt_block_fields[] = {
    NAME_ROWS, DIM, HEADS, HIDDEN(PP_FIELD_OPTIONAL), SEQUENCE, PROBABILITY(PP_FIELD_OPTIONAL)};
static const pp_field llama_block_fields[] = {
    NAME_ROWS, DIM, HEADS, KV_HEADS, HEAD_DIM, HIDDEN(0), SEQUENCE, QKV_BIAS, ROTARY_BASE,
};
static const pp_field bert_embedding_fields[] = {
    NAME_ROWS, VOCABULARY, DIM, SEQUENCE, SEGMENTS, PROBABILITY(PP_FIELD_OPTIONAL), TIE};
static const pp_field attention_fields[] = {NAME_ROWS, DIM, HEADS, SEQUENCE};
static const pp_field linear_fields[] = {NAME_ROWS, DIM, OUTPUT_DIM, SEQUENCE_OR_1};
static const pp_field dropout_fields[] = {NAME_ROWS, DIM, SEQUENCE_OR_1, PROBABILITY(0)};
static const pp_field simple_fields[] = {NAME_ROWS, DIM, SEQUENCE_OR_1};

#define FIELDS(list) .fields = list, .field_count = PP_ARRAY_LENGTH(list)
static const pp_op_rule op_rules[PP_OP_COUNT] = {
    [PP_OP_OPAQUE] = {FIELDS(opaque_fields), PP_INPUTS_ANY},
    [PP_OP_EMBEDDING] = {FIELDS(embedding_fields), PP_INPUTS_NONE, .sequence = true},
    [PP_OP_GPT_BLOCK] = {FIELDS(gpt_block_fields), PP_INPUTS_ONE, .sequence = true},
    [PP_OP_LM_HEAD] = {FIELDS(head_fields), PP_INPUTS_ONE, .loss = true, .sequence = true},
    [PP_OP_LAYER_NORM] = {FIELDS(simple_fields), PP_INPUTS_ONE, .sequence = true},
    [PP_OP_LINEAR] = {FIELDS(linear_fields), PP_INPUTS_ONE, .sequence = true},
    [PP_OP_GELU] = {FIELDS(simple_fields), PP_INPUTS_ONE, .sequence = true},
    [PP_OP_RELU] = {FIELDS(simple_fields), PP_INPUTS_ONE, .sequence = true},
    [PP_OP_ATTENTION] = {FIELDS(attention_fields), PP_INPUTS_ONE, .sequence = true},
    [PP_OP_DROPOUT] = {FIELDS(dropout_fields), PP_INPUTS_ONE, .sequence = true},
    [PP_OP_ADD] = {FIELDS(simple_fields), PP_INPUTS_MANY, .sequence = true},
    [PP_OP_CROSS_ENTROPY] = {FIELDS(simple_fields), PP_INPUTS_ONE, .loss = true, .sequence = true},
    [PP_OP_RMS_NORM] = {FIELDS(simple_fields), PP_INPUTS_ONE, .sequence = true},
    [PP_OP_TOKEN_EMBEDDING] = {FIELDS(head_fields), PP_INPUTS_NONE, .sequence = true},
    [PP_OP_LLAMA_BLOCK] = {FIELDS(llama_block_fields), PP_INPUTS_ONE, .sequence = true},
    [PP_OP_RMS_LM_HEAD] = {FIELDS(head_fields), PP_INPUTS_ONE, .loss = true, .sequence = true},
    [PP_OP_BERT_EMBEDDING] = {FIELDS(bert_embedding_fields), PP_INPUTS_NONE, .sequence = true},
    [PP_OP_BERT_BLOCK] = {FIELDS(gpt_block_fields), PP_INPUTS_ONE, .sequence = true},
    [PP_OP_MLM_HEAD] = {FIELDS(head_fields), PP_INPUTS_ONE, .loss = true, .sequence = true},
};

const pp_op_rule *pp_op_rule_get(pp_op op) {
    return &op_rules[op];
}

/* ---- layers --------------------------------------------------------------------------------- */

static pp_status read_op(const pp_json_node *layer, pp_op *op, pp_error *error) {
    pp_json_node node = pp_node_member(layer, "op");
    const char *name = json_string_value(node.value);
    char known[400];
    pp_name_list(op_name, PP_OP_COUNT, known, sizeof known);
    if (!json_is_object(layer->value))
        return pp_node_fail(layer, error, "expected an object with \"name\" and \"op\"");
    if (!node.value)
        return pp_node_fail(layer, error, "\"op\" is missing; expected one of %s", known);
    if (!name) return pp_node_fail(&node, error, "expected one of %s", known);
    if (!pp_op_from_name(name, op))
        return pp_node_fail(&node, error, "unknown op \"%.60s\"; known: %s", name, known);
    return PP_OK;
}

static pp_status read_layers(const pp_json_node *document, pp_model *model, pp_error *error) {
    pp_json_node layers = pp_node_member(document, "layers");
    PP_TRY(pp_node_array(&layers, 1, PP_LAYERS_MAX, error));
    model->layer_count = (int)pp_node_length(&layers);
    model->layers = PP_NEW(&model->arena, pp_layer, model->layer_count);
    if (!model->layers) return pp_fail_memory(error);
    for (int i = 0; i < model->layer_count; i++) {
        pp_json_node node = pp_node_element(&layers, (size_t)i);
        pp_layer *layer = &model->layers[i];
        PP_TRY(read_op(&node, &layer->op, error));
        const pp_op_rule *rule = pp_op_rule_get(layer->op);
        PP_TRY(pp_fields_read(&node, rule->fields, rule->field_count, layer, &model->arena, error));
    }
    return PP_OK;
}

/* ---- edges ---------------------------------------------------------------------------------- */

static int compare_edges(const void *left, const void *right) {
    const pp_edge *a = left, *b = right;
    if (a->from != b->from) return a->from < b->from ? -1 : 1;
    return (a->to > b->to) - (a->to < b->to);
}

static pp_status read_edge(const pp_json_node *node, int layer_count, pp_edge *edge,
                           pp_error *error) {
    int ends[2];
    PP_TRY(pp_node_ints(node, 2, 0, layer_count - 1, ends, error));
    if (ends[0] >= ends[1])
        return pp_node_fail(node, error,
                            "an edge must lead to a later layer (layers stand in topological "
                            "order), got %d to %d",
                            ends[0], ends[1]);
    *edge = (pp_edge){ends[0], ends[1]};
    return PP_OK;
}

static pp_status read_edges(const pp_json_node *edges, pp_model *model, pp_error *error) {
    PP_TRY(pp_node_array(edges, 0, PP_EDGES_MAX, error));
    model->edge_count = (int)pp_node_length(edges);
    model->edges = PP_NEW(&model->arena, pp_edge, model->edge_count);
    if (!model->edges) return pp_fail_memory(error);
    for (int i = 0; i < model->edge_count; i++) {
        pp_json_node node = pp_node_element(edges, (size_t)i);
        PP_TRY(read_edge(&node, model->layer_count, &model->edges[i], error));
    }
    qsort(model->edges, (size_t)model->edge_count, sizeof(pp_edge), compare_edges);
    for (int i = 1; i < model->edge_count; i++)
        if (compare_edges(&model->edges[i - 1], &model->edges[i]) == 0)
            return pp_node_fail(edges, error, "the edge from %d to %d stands twice",
                                model->edges[i].from, model->edges[i].to);
    return PP_OK;
}

/* ---- the document --------------------------------------------------------------------------- */

static const pp_field document_fields[] = {
    PP_FORMAT_ROWS,
    {.key = "name", .type = PP_FIELD_STRING, PP_AT(pp_model, name)},
    {.key = "layers", .type = PP_FIELD_ARRAY},
    {.key = "edges", .type = PP_FIELD_ARRAY, .flags = PP_FIELD_OPTIONAL},
};

static pp_status read_document(const pp_json_node *document, pp_model *model, pp_error *error) {
    PP_TRY(pp_node_format(document, "ppsim-model", error));
    PP_TRY(pp_fields_read(document, document_fields, PP_ARRAY_LENGTH(document_fields), model,
                          &model->arena, error));
    PP_TRY(read_layers(document, model, error));
    pp_json_node edges = pp_node_member(document, "edges");
    PP_TRY(edges.value ? read_edges(&edges, model, error) : pp_model_connect_chain(model, error));
    return pp_model_check(model, document, error);
}

pp_status pp_model_from_node(const pp_json_node *document, pp_model **model, pp_error *error) {
    *model = pp_model_new_empty();
    if (!*model) return pp_fail_memory(error);
    pp_status status = read_document(document, *model, error);
    if (status != PP_OK) {
        pp_model_free(*model);
        *model = NULL;
    }
    return status;
}
