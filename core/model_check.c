/* What a model's numbers mean together: refused here is whatever no executor could run and no user
 * could have meant, each with the place in the document.
 *
 * - names are unique, ties join at least two layers with the same token matrix
 * - every op has as many inputs as it takes; a layer without one reads the data set: token ids for
 *   an embedding, features otherwise, and a data set has one of the two and one shape
 * - features and sequence agree along every edge
 * - at most one loss, which ends the model: nothing reads it, and everything else is read
 * Opaque layers stand outside the last two: nothing is known of their tensors. */
#include "core/model_internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct check {
    const pp_model *model;
    const pp_json_node *document;
    int *inputs;  /* [layers] edges that end there */
    int *readers; /* [layers] edges that begin there */
    const pp_layer **sorted;
    pp_error *error;
} check;

__attribute__((format(printf, 4, 5))) static pp_status
fail_layer(const check *c, int layer, const char *key, const char *format, ...) {
    pp_json_node layers = pp_node_member(c->document, "layers");
    pp_json_node element = pp_node_element(&layers, (size_t)layer);
    pp_json_node member = pp_node_member(&element, key ? key : "");
    va_list arguments;
    va_start(arguments, format);
    pp_status status = pp_node_fail_list(key ? &member : &element, c->error, format, arguments);
    va_end(arguments);
    return status;
}

static int index_of(const check *c, const pp_layer *layer) {
    return (int)(layer - c->model->layers);
}

/* ---- names and ties ------------------------------------------------------------------------- */

/* By address last, so that of two equal names the later layer is the one complained about. */
static int compare_names(const void *left, const void *right) {
    const pp_layer *a = *(const pp_layer *const *)left, *b = *(const pp_layer *const *)right;
    int order = strcmp(a->name, b->name);
    return order ? order : (a > b) - (a < b);
}

static int compare_ties(const void *left, const void *right) {
    const pp_layer *a = *(const pp_layer *const *)left, *b = *(const pp_layer *const *)right;
    int order = strcmp(a->tie, b->tie);
    return order ? order : (a > b) - (a < b);
}

static pp_status check_names(check *c) {
    size_t count = (size_t)c->model->layer_count;
    for (size_t i = 0; i < count; i++) c->sorted[i] = &c->model->layers[i];
    qsort(c->sorted, count, sizeof *c->sorted, compare_names);
    for (size_t i = 1; i < count; i++)
        if (strcmp(c->sorted[i - 1]->name, c->sorted[i]->name) == 0)
            return fail_layer(c, index_of(c, c->sorted[i]), "name",
                              "the name \"%s\" is taken by layer %d; names must differ",
                              c->sorted[i]->name, index_of(c, c->sorted[i - 1]));
    return PP_OK;
}

static pp_status check_ties(check *c) {
    size_t count = 0;
    for (int i = 0; i < c->model->layer_count; i++)
        if (c->model->layers[i].tie) c->sorted[count++] = &c->model->layers[i];
    qsort(c->sorted, count, sizeof *c->sorted, compare_ties);
    for (size_t i = 0; i < count; i++) {
        const pp_layer *layer = c->sorted[i];
        bool before = i > 0 && strcmp(c->sorted[i - 1]->tie, layer->tie) == 0;
        bool after = i + 1 < count && strcmp(c->sorted[i + 1]->tie, layer->tie) == 0;
        if (!before && !after)
            return fail_layer(c, index_of(c, layer), "tie",
                              "no other layer has the tie \"%s\"; a tie joins two or more",
                              layer->tie);
        const pp_layer *other = before ? c->sorted[i - 1] : layer;
        if (other->vocabulary != layer->vocabulary || other->dim != layer->dim)
            return fail_layer(c, index_of(c, layer), "tie",
                              "layers tied by \"%s\" share one matrix: layer %d has vocabulary "
                              "%lld and dim %lld, this one %lld and %lld",
                              layer->tie, index_of(c, other), (long long)other->vocabulary,
                              (long long)other->dim, (long long)layer->vocabulary,
                              (long long)layer->dim);
        if (other->tied_bytes != layer->tied_bytes)
            return fail_layer(c, index_of(c, layer), "tied_bytes",
                              "layers tied by \"%s\" share the same bytes: layer %d has %lld, this "
                              "one %lld",
                              layer->tie, index_of(c, other), (long long)other->tied_bytes,
                              (long long)layer->tied_bytes);
    }
    return PP_OK;
}

/* ---- single layers -------------------------------------------------------------------------- */

static double largest(double a, double b) {
    return a > b ? a : b;
}

double pp_layer_sample_elements(const pp_layer *layer) {
    double sequence = (double)layer->sequence;
    double qkv =
        (double)(layer->heads + 2 * pp_layer_kv_heads(layer)) * (double)pp_layer_head_dim(layer);
    double widest = largest(qkv, (double)pp_layer_hidden(layer));
    widest = largest(widest, largest((double)layer->output_dim, (double)layer->vocabulary));
    double scores = (double)layer->heads * sequence;
    double elements = sequence * largest(widest, scores);
    elements = largest(elements, (double)layer->output_bytes);
    return largest(elements, (double)layer->activation_bytes);
}

double pp_model_sample_elements(const pp_model *model) {
    double elements = 0;
    for (int i = 0; i < model->layer_count; i++)
        elements = largest(elements, pp_layer_sample_elements(&model->layers[i]));
    return elements;
}

/* Widest row of queries, keys and values. */
enum { QKV_MAX = 1 << 22 };

static pp_status check_heads(const check *c, int index) {
    const pp_layer *layer = &c->model->layers[index];
    if (layer->heads == 0) return PP_OK;
    if (layer->head_dim == 0 && layer->dim % layer->heads != 0)
        return fail_layer(c, index, "heads", "%lld heads do not divide dim %lld evenly",
                          (long long)layer->heads, (long long)layer->dim);
    int64_t kv_heads = pp_layer_kv_heads(layer), size = pp_layer_head_dim(layer);
    if (layer->heads % kv_heads != 0)
        return fail_layer(c, index, "kv_heads",
                          "%lld heads of keys and values do not divide %lld heads evenly",
                          (long long)kv_heads, (long long)layer->heads);
    if (layer->op == PP_OP_LLAMA_BLOCK && size % 2 != 0)
        return fail_layer(c, index, layer->head_dim ? "head_dim" : "heads",
                          "the rotary embedding turns pairs of features, but a head has %lld",
                          (long long)size);
    if ((layer->heads + 2 * kv_heads) * size > QKV_MAX)
        return fail_layer(c, index, layer->head_dim ? "head_dim" : "heads",
                          "queries, keys and values would have %lld features; at most %d",
                          (long long)((layer->heads + 2 * kv_heads) * size), QKV_MAX);
    return PP_OK;
}

/* Of what an opaque layer shares: it must say how much, and have it. */
static pp_status check_tied_bytes(const check *c, int index) {
    const pp_layer *layer = &c->model->layers[index];
    if (layer->op != PP_OP_OPAQUE) return PP_OK;
    if (layer->tied_bytes > layer->parameter_bytes)
        return fail_layer(c, index, "tied_bytes",
                          "expected at most the layer's %lld parameter_bytes, got %lld",
                          (long long)layer->parameter_bytes, (long long)layer->tied_bytes);
    if ((layer->tie != NULL) == (layer->tied_bytes > 0)) return PP_OK;
    return fail_layer(
        c, index, layer->tie ? "tie" : "tied_bytes",
        "an opaque layer that shares parameters needs both \"tie\" and \"tied_bytes\" "
        "(at least 1)");
}

static pp_status check_layer(const check *c, int index) {
    const pp_layer *layer = &c->model->layers[index];
    PP_TRY(check_heads(c, index));
    PP_TRY(check_tied_bytes(c, index));
    if (pp_layer_sample_elements(layer) > PP_TENSOR_ELEMENTS_MAX)
        return fail_layer(c, index, NULL,
                          "one sample of this layer would have more than 2^46 elements");
    return PP_OK;
}

/* ---- connections ---------------------------------------------------------------------------- */

static pp_status check_inputs(const check *c, int index) {
    const pp_layer *layer = &c->model->layers[index];
    int inputs = c->inputs[index];
    const char *name = pp_op_name(layer->op);
    switch (pp_op_rule_get(layer->op)->inputs) {
    case PP_INPUTS_NONE:
        if (inputs > 0)
            return fail_layer(c, index, NULL,
                              "%s reads the data set and takes no edge; %d lead to \"%s\"", name,
                              inputs, layer->name);
        break;
    case PP_INPUTS_ONE:
        if (inputs > 1)
            return fail_layer(c, index, NULL,
                              "%s takes one input; %d edges lead to \"%s\" (join them with an add)",
                              name, inputs, layer->name);
        break;
    case PP_INPUTS_MANY:
        if (inputs == 0)
            return fail_layer(c, index, NULL, "%s needs an edge; none leads to \"%s\"", name,
                              layer->name);
        break;
    case PP_INPUTS_ANY:
        return PP_OK;
    }
    if (inputs == 0 && c->readers[index] == 0 && c->model->layer_count > 1)
        return fail_layer(c, index, NULL, "no edge leads to or from \"%s\"", layer->name);
    return PP_OK;
}

/* Layers that read the data set must agree on what it is. */
static pp_status check_sources(const check *c) {
    const pp_layer *first = NULL;
    for (int i = 0; i < c->model->layer_count; i++) {
        const pp_layer *layer = &c->model->layers[i];
        if (c->inputs[i] > 0 || layer->op == PP_OP_OPAQUE) continue;
        if (!first) first = layer;
        bool tokens = pp_layer_needs_get(layer->op).takes_tokens;
        if (tokens != pp_layer_needs_get(first->op).takes_tokens)
            return fail_layer(c, i, NULL,
                              "no edge leads to \"%s\", so it would read the data set as %s, but "
                              "\"%s\" reads it as %s; is an edge missing?",
                              layer->name, tokens ? "token ids" : "features", first->name,
                              tokens ? "features" : "token ids");
        if (layer->sequence != first->sequence || (!tokens && layer->dim != first->dim))
            return fail_layer(c, i, NULL,
                              "\"%s\" and \"%s\" read the same data set, but in different shapes",
                              layer->name, first->name);
    }
    return PP_OK;
}

static int64_t features_out(const pp_layer *layer) {
    return layer->op == PP_OP_LINEAR ? layer->output_dim : layer->dim;
}

static pp_status check_edge(const check *c, pp_edge edge) {
    const pp_layer *from = &c->model->layers[edge.from], *to = &c->model->layers[edge.to];
    if (pp_op_rule_get(from->op)->loss)
        return fail_layer(c, edge.to, NULL, "\"%s\" reads \"%s\", but a loss has no output",
                          to->name, from->name);
    if (from->op == PP_OP_OPAQUE || to->op == PP_OP_OPAQUE) return PP_OK;
    if (features_out(from) != to->dim)
        return fail_layer(c, edge.to, "dim",
                          "expected %lld, the features that \"%s\" makes, got %lld",
                          (long long)features_out(from), from->name, (long long)to->dim);
    if (from->sequence != to->sequence)
        return fail_layer(c, edge.to, to->sequence == 1 ? NULL : "sequence",
                          "expected \"sequence\": %lld as in \"%s\", which it reads, got %lld",
                          (long long)from->sequence, from->name, (long long)to->sequence);
    return PP_OK;
}

static pp_status check_losses(const check *c) {
    int loss = -1;
    for (int i = 0; i < c->model->layer_count; i++) {
        if (!pp_op_rule_get(c->model->layers[i].op)->loss) continue;
        if (loss >= 0)
            return fail_layer(c, i, NULL, "a model has one loss, but \"%s\" is one already",
                              c->model->layers[loss].name);
        loss = i;
    }
    for (int i = 0; i < c->model->layer_count && loss >= 0; i++)
        if (i != loss && c->readers[i] == 0 && c->model->layers[i].op != PP_OP_OPAQUE)
            return fail_layer(c, i, NULL,
                              "nothing reads \"%s\", so it cannot reach the loss \"%s\"",
                              c->model->layers[i].name, c->model->layers[loss].name);
    return PP_OK;
}

/* ---- all of it ------------------------------------------------------------------------------ */

static pp_status check_all(check *c) {
    const pp_model *model = c->model;
    for (int i = 0; i < model->edge_count; i++) {
        c->inputs[model->edges[i].to]++;
        c->readers[model->edges[i].from]++;
    }
    PP_TRY(check_names(c));
    for (int i = 0; i < model->layer_count; i++) PP_TRY(check_layer(c, i));
    for (int i = 0; i < model->edge_count; i++) PP_TRY(check_edge(c, model->edges[i]));
    for (int i = 0; i < model->layer_count; i++) PP_TRY(check_inputs(c, i));
    PP_TRY(check_sources(c));
    PP_TRY(check_losses(c));
    return check_ties(c);
}

pp_status pp_model_check(const pp_model *model, const pp_json_node *document, pp_error *error) {
    pp_arena scratch;
    pp_arena_init(&scratch);
    check c = {.model = model,
               .document = document,
               .inputs = PP_NEW(&scratch, int, model->layer_count),
               .readers = PP_NEW(&scratch, int, model->layer_count),
               .sorted = PP_NEW(&scratch, const pp_layer *, model->layer_count),
               .error = error};
    pp_status status = scratch.failed ? pp_fail_memory(error) : check_all(&c);
    pp_arena_deinit(&scratch);
    return status;
}
