/* Models: their life, writing, hashing. Reading is model_read.c, meaning model_check.c, the models
 * that are known by name model_presets.c. */
#include "core/model_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- life ----------------------------------------------------------------------------------- */

pp_model *pp_model_new_empty(void) {
    return pp_allocate_zeroed(1, sizeof(pp_model));
}

void pp_model_free(pp_model *model) {
    if (!model) return;
    pp_arena_deinit(&model->arena);
    pp_free(model);
}

pp_status pp_model_connect_chain(pp_model *model, pp_error *error) {
    model->edge_count = model->layer_count - 1;
    model->edges = PP_NEW(&model->arena, pp_edge, model->edge_count);
    if (!model->edges) return pp_fail_memory(error);
    for (int i = 0; i < model->edge_count; i++) model->edges[i] = (pp_edge){i, i + 1};
    return PP_OK;
}

bool pp_model_is_chain(const pp_model *model) {
    if (model->edge_count != model->layer_count - 1) return false;
    for (int i = 0; i < model->edge_count; i++)
        if (model->edges[i].from != i || model->edges[i].to != i + 1) return false;
    return true;
}

static const char *copy_string(pp_arena *arena, const char *text) {
    return text ? pp_arena_copy(arena, text, strlen(text)) : NULL;
}

pp_status pp_model_copy(const pp_model *model, pp_model **copy, pp_error *error) {
    pp_model *made = *copy = pp_model_new_empty();
    if (!made) return pp_fail_memory(error);
    pp_arena *arena = &made->arena;
    made->layer_count = model->layer_count;
    made->edge_count = model->edge_count;
    made->name = copy_string(arena, model->name);
    made->layers = PP_NEW(arena, pp_layer, model->layer_count);
    made->edges = PP_NEW(arena, pp_edge, model->edge_count);
    for (int i = 0; i < model->layer_count && !arena->failed; i++) {
        made->layers[i] = model->layers[i];
        made->layers[i].name = copy_string(arena, model->layers[i].name);
        made->layers[i].tie = copy_string(arena, model->layers[i].tie);
    }
    if (arena->failed) {
        pp_model_free(made);
        *copy = NULL;
        return pp_fail_memory(error);
    }
    if (model->edge_count > 0)
        memcpy(made->edges, model->edges, (size_t)model->edge_count * sizeof(pp_edge));
    return PP_OK;
}

/* ---- opening -------------------------------------------------------------------------------- */

static pp_status open_preset(const char *name, pp_model **model, pp_error *error) {
    bool found;
    char known[600];
    int count;
    PP_TRY(pp_model_preset_make(name, &found, model, error));
    if (found) return PP_OK;
    const pp_preset *presets = pp_model_presets(&count);
    pp_preset_list(presets, count, known, sizeof known);
    return pp_fail(error, PP_E_INPUT, NULL,
                   "there is no model '%.100s'; known: %s; a file is written with a '/' or ends in "
                   "\".json\"",
                   name, known);
}

pp_status pp_model_open(const char *source, pp_model **model, pp_error *error) {
    pp_text text;
    *model = NULL;
    if (!pp_source_is_file(source)) return open_preset(source, model, error);
    PP_TRY(pp_file_read(source, PP_DOCUMENT_LIMIT_BYTES, &text, error));
    pp_status status = pp_model_read(text.bytes, text.length, source, model, error);
    pp_text_deinit(&text);
    return status;
}

pp_status pp_model_read(const char *text, size_t length, const char *file_name, pp_model **model,
                        pp_error *error) {
    json_t *root;
    *model = NULL;
    PP_TRY(pp_json_load(text, length, file_name, &root, error));
    pp_json_node document = pp_node_root(root, file_name);
    pp_status status = pp_model_from_node(&document, model, error);
    json_decref(root);
    return status;
}

/* ---- writing -------------------------------------------------------------------------------- */

static void write_edges(const pp_model *model, pp_json *json) {
    pp_json_key(json, "edges");
    pp_json_array(json);
    for (int i = 0; i < model->edge_count; i++) {
        pp_json_array_flat(json);
        pp_json_int(json, model->edges[i].from);
        pp_json_int(json, model->edges[i].to);
        pp_json_end_array(json);
    }
    pp_json_end_array(json);
}

void pp_model_write(const pp_model *model, pp_json *json) {
    pp_json_object(json);
    pp_json_key(json, "format");
    pp_json_string(json, "ppsim-model");
    pp_json_key(json, "version");
    pp_json_int(json, 1);
    pp_json_key(json, "name");
    pp_json_string(json, model->name);
    pp_json_key(json, "layers");
    pp_json_array(json);
    for (int i = 0; i < model->layer_count; i++) {
        const pp_op_rule *rule = pp_op_rule_get(model->layers[i].op);
        pp_json_object_flat(json);
        pp_fields_write(json, rule->fields, rule->field_count, &model->layers[i]);
        pp_json_end_object(json);
    }
    pp_json_end_array(json);
    if (!pp_model_is_chain(model)) write_edges(model, json);
    pp_json_end_object(json);
}

uint64_t pp_model_hash(const pp_model *model) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_model_write(model, &json);
    uint64_t hash = text.failed ? 0 : pp_hash(PP_HASH_START, text.bytes, text.length);
    pp_text_deinit(&text);
    return hash;
}

/* ---- counting ------------------------------------------------------------------------------- */

static bool tied_before(const pp_model *model, int layer) {
    const char *tie = model->layers[layer].tie;
    for (int i = 0; tie && i < layer; i++)
        if (model->layers[i].tie && strcmp(model->layers[i].tie, tie) == 0) return true;
    return false;
}

int64_t pp_model_parameters(const pp_model *model) {
    int64_t count = 0;
    for (int i = 0; i < model->layer_count; i++) {
        const pp_layer *layer = &model->layers[i];
        if (layer->op == PP_OP_OPAQUE) continue;
        count += pp_layer_parameters(layer);
        if (tied_before(model, i)) count -= layer->vocabulary * layer->dim;
    }
    return count;
}

/* ---- changing ------------------------------------------------------------------------------- */

/* A model has a sequence if any layer says more than 1, or an op that works along one is there. */
static bool has_sequence(const pp_model *model) {
    for (int i = 0; i < model->layer_count; i++) {
        const pp_layer *layer = &model->layers[i];
        if (layer->sequence > 1 || layer->heads > 0) return true;
        if (pp_layer_needs_get(layer->op).takes_tokens) return true;
    }
    return false;
}

pp_status pp_model_set_sequence(pp_model *model, int64_t sequence, pp_error *error) {
    if (!has_sequence(model))
        return pp_fail(error, PP_E_INPUT, NULL,
                       "the model '%s' has no sequence whose length could be set", model->name);
    if (sequence < 1 || sequence > 1 << 24)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "the sequence length must be from 1 to 16777216, not %lld",
                       (long long)sequence);
    for (int i = 0; i < model->layer_count; i++)
        if (pp_op_rule_get(model->layers[i].op)->sequence) model->layers[i].sequence = sequence;
    if (pp_model_sample_elements(model) <= PP_TENSOR_ELEMENTS_MAX) return PP_OK;
    return pp_fail(error, PP_E_INPUT, NULL,
                   "a sequence of %lld makes the tensors of '%s' too large", (long long)sequence,
                   model->name);
}

void pp_model_clear_dropout(pp_model *model) {
    for (int i = 0; i < model->layer_count; i++) model->layers[i].dropout = 0;
}
