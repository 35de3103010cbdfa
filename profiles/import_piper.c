/* Piper's inputs (Tarnawski, Narayanan, Phanishayee 2021, "Piper: Multidimensional Planner for DNN
 * Parallelization"; msr-fiddle/piper): a JSON of nodes and edges, each node with lists of costs per
 * tensor-parallel width ("TMPCs"), among them usually one without recomputation and one with.
 *
 * We take the list of one width, 1 unless --tp says otherwise, and in it the quickest entry that
 * does not recompute, since recomputation is for `plan` to choose.
 *
 *   timePerSample   seconds of forward and backward together. Recomputing repeats the forward pass,
 *                   so the difference between the entry that does and the one that does not is the
 *                   forward time; where there is no such pair, or it is no time that a forward pass
 *                   could take, a third of the sum: the backward pass does twice the arithmetic.
 *   parameterSize   bytes on one device
 *   memoryUsageA    bytes for each microbatch in flight: what is kept for the backward pass
 *   memoryUsageB    bytes in any case; weights and gradients, which `plan` counts itself: not taken
 *   communicationCost   bytes along an edge. A layer's output is the largest of its edges'.
 *
 * syncTimeFw and syncTimeBw, the devices and the bandwidth of the file are not taken: the cluster
 * is a document of its own. */
#include "core/json_reader.h"
#include "profiles/import_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- values --------------------------------------------------------------------------------- */

/* A member that must be a number, 0 … 2^46. */
static pp_status read_amount(const pp_json_node *object, const char *key, double *amount,
                             pp_error *error) {
    char got[96];
    pp_json_node node = pp_node_member(object, key);
    if (!node.value) return pp_node_fail(object, error, "expected an object with \"%s\"", key);
    *amount = json_number_value(node.value);
    if (json_is_number(node.value) && *amount >= 0 && *amount <= 70368744177664.0) return PP_OK;
    return pp_node_fail(&node, error, "expected a number from 0 to 2^46, got %s",
                        pp_value_describe(node.value, got, sizeof got));
}

/* A node's number as a piece: what edges call it. */
static pp_status read_id(pp_import_graph *graph, const pp_json_node *object, const char *key,
                         pp_piece *id) {
    int64_t number;
    pp_json_node node = pp_node_member(object, key);
    if (!node.value || !pp_value_integer(node.value, &number))
        return pp_node_fail(object, graph->source->error, "\"%s\" must be the number of a node",
                            key);
    char *text = pp_arena_printf(&graph->arena, "%lld", (long long)number);
    if (!text) return pp_fail_memory(graph->source->error);
    *id = (pp_piece){.start = text,
                     .end = text + strlen(text),
                     .list = object->parent->key,
                     .element = object->index};
    return PP_OK;
}

static pp_status read_name(pp_import_graph *graph, const pp_json_node *object, pp_piece *name) {
    const char *text = json_string_value(pp_node_member(object, "name").value);
    if (!text)
        return pp_node_fail(object, graph->source->error, "\"name\" must be the node's name");
    size_t length = strlen(text);
    char *copy = pp_arena_copy(&graph->arena, text, length);
    if (!copy) return pp_fail_memory(graph->source->error);
    pp_make_printable(copy);
    *name = (pp_piece){.start = copy, .end = copy + length};
    return PP_OK;
}

/* ---- costs of a node ------------------------------------------------------------------------ */

static bool recomputes(const pp_json_node *entry) {
    const char *id = json_string_value(pp_node_member(entry, "id").value);
    return id && strstr(id, "recomp");
}

/* The quickest of the entries that recompute, or of those that do not; `at` is -1 if there is none.
 */
static pp_status find_quickest(const pp_json_node *entries, bool with, int *at, double *seconds,
                               pp_error *error) {
    *at = -1;
    for (size_t i = 0; i < pp_node_length(entries); i++) {
        pp_json_node entry = pp_node_element(entries, i);
        double time_s;
        PP_TRY(read_amount(&entry, "timePerSample", &time_s, error));
        if (recomputes(&entry) != with || (*at >= 0 && time_s >= *seconds)) continue;
        *at = (int)i;
        *seconds = time_s;
    }
    return PP_OK;
}

static pp_status read_entries(const pp_json_node *entries, pp_import_costs *costs,
                              pp_error *error) {
    int plain, again;
    double seconds = 0, longer = 0;
    PP_TRY(pp_node_array(entries, 1, 1000, error));
    PP_TRY(find_quickest(entries, false, &plain, &seconds, error));
    PP_TRY(find_quickest(entries, true, &again, &longer, error));
    if (plain < 0) return pp_node_fail(entries, error, "expected an entry that does not recompute");
    double forward_s = again >= 0 ? longer - seconds : 0;
    if (!(forward_s > 0 && forward_s < seconds)) forward_s = seconds / 3;
    pp_json_node entry = pp_node_element(entries, (size_t)plain);
    *costs = (pp_import_costs){.forward_s = forward_s, .backward_s = seconds - forward_s};
    PP_TRY(read_amount(&entry, "parameterSize", &costs->parameter_bytes, error));
    return read_amount(&entry, "memoryUsageA", &costs->activation_bytes, error);
}

/* The list of the width asked for. */
static pp_status read_costs(const pp_import_source *source, const pp_json_node *node,
                            pp_import_costs *costs) {
    char width[16], known[120] = "";
    pp_json_node widths = pp_node_member(node, "TMPCs");
    snprintf(width, sizeof width, "%d", source->options->tp);
    if (!json_is_object(widths.value))
        return pp_node_fail(node, source->error,
                            "\"TMPCs\" must be an object of costs by tensor-parallel width");
    pp_json_node entries = pp_node_member(&widths, width);
    if (entries.value) return read_entries(&entries, costs, source->error);
    pp_text_cut list = {known, sizeof known, 0};
    for (void *at = json_object_iter(widths.value); at;
         at = json_object_iter_next(widths.value, at))
        pp_cut_add(&list, "%s%s", list.length > 0 ? ", " : "", json_object_iter_key(at));
    return pp_node_fail(&widths, source->error,
                        "there are no costs for a tensor-parallel width of %s; there are: %s",
                        width, known);
}

/* ---- nodes and edges ------------------------------------------------------------------------ */

static pp_status read_nodes(pp_import_graph *graph, const pp_json_node *nodes,
                            pp_import_costs *costs) {
    for (size_t i = 0; i < pp_node_length(nodes); i++) {
        pp_json_node node = pp_node_element(nodes, i);
        PP_TRY(read_id(graph, &node, "id", &graph->nodes[i].id));
        PP_TRY(read_name(graph, &node, &graph->nodes[i].description));
        PP_TRY(read_costs(graph->source, &node, &costs[i]));
        graph->node_count++;
    }
    return pp_import_index(graph);
}

static pp_status read_edges(pp_import_graph *graph, const pp_json_node *edges,
                            pp_import_costs *costs) {
    for (size_t i = 0; i < pp_node_length(edges); i++) {
        pp_json_node node = pp_node_element(edges, i);
        pp_import_edge *edge = &graph->edges[graph->edge_count++];
        pp_piece from, to;
        double bytes;
        PP_TRY(read_id(graph, &node, "sourceId", &from));
        PP_TRY(read_id(graph, &node, "destId", &to));
        PP_TRY(pp_import_find(graph, from, &edge->from));
        PP_TRY(pp_import_find(graph, to, &edge->to));
        PP_TRY(read_amount(&node, "communicationCost", &bytes, graph->source->error));
        edge->place = from;
        if (bytes > costs[edge->from].output_bytes) costs[edge->from].output_bytes = bytes;
    }
    return PP_OK;
}

static pp_status read_graph(pp_import_graph *graph, const pp_json_node *nodes,
                            const pp_json_node *edges) {
    pp_import_costs *costs = PP_NEW(&graph->arena, pp_import_costs, pp_node_length(nodes));
    if (!costs) return pp_fail_memory(graph->source->error);
    PP_TRY(read_nodes(graph, nodes, costs));
    PP_TRY(read_edges(graph, edges, costs));
    for (int i = 0; i < graph->node_count; i++)
        pp_import_set_costs(graph->source, &costs[i], &graph->nodes[i].layer);
    return PP_OK;
}

/* ---- the importer --------------------------------------------------------------------------- */

static pp_status read_document(const pp_import_source *source, const pp_json_node *document,
                               pp_model **model) {
    pp_import_graph graph;
    pp_json_node nodes = pp_node_member(document, "nodes");
    pp_json_node edges = pp_node_member(document, "edges");
    PP_TRY(pp_node_array(&nodes, 1, PP_IMPORT_LAYERS_MAX, source->error));
    PP_TRY(pp_node_array(&edges, 0, PP_IMPORT_EDGES_MAX, source->error));
    pp_status status = pp_import_graph_init(&graph, source, pp_node_length(&nodes),
                                            pp_node_length(&edges), (pp_piece){.line = 1});
    if (status == PP_OK) status = read_graph(&graph, &nodes, &edges);
    if (status == PP_OK) status = pp_import_graph_finish(&graph, model);
    pp_import_graph_deinit(&graph);
    return status;
}

pp_status pp_import_piper(const pp_import_source *source, pp_model **model) {
    json_t *root;
    PP_TRY(pp_json_load(source->text, source->length, source->file_name, &root, source->error));
    pp_json_node document = pp_node_root(root, source->file_name);
    pp_status status = read_document(source, &document, model);
    json_decref(root);
    return status;
}
