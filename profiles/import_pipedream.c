/* PipeDream's profiles: graph.txt, as its profiler writes them (Narayanan et al. 2019, 3.1;
 * msr-fiddle/pipedream, graph/graph.py). A line per node, then an indented line per edge:
 *
 *     node4 -- Conv2d(3, 64) -- forward_compute_time=3.4, backward_compute_time=6.5, \
 *         activation_size=802816.0, parameter_size=6912.000
 *     	node4 -- node5
 *
 * Times are milliseconds and activation_size bytes of a whole minibatch, parameter_size bytes. A
 * node with several outputs lists the sizes of all: [6291456.0; 131072.0]. A fourth field,
 * stage_id=2, stands in files that its optimizer has written; it is read over.
 *
 * activation_size is the size of the node's OUTPUT; what its backward pass keeps was not measured.
 * We count each output as kept from its forward to its backward pass, once, which is what
 * PipeDream's own memory limit counts (optimizer_graph_hierarchical.py): enough for layers that
 * keep their input, which is the output of another, too much for those that keep nothing and for
 * in-place ones.
 *
 * DAPPLE's planner takes the same form; the files published with it indent edges by blanks as well.
 *
 * As its optimizer does, we leave out Input nodes that nothing leads to, and then outputs taken out
 * of a tuple (__getitem__) that nothing reads. */
#include "profiles/import_internal.h"

#include <string.h>

static const struct {
    const char *key;
    double unit; /* to seconds or bytes */
    size_t offset;
} fields[] = {
    {"forward_compute_time", 1e-3, offsetof(pp_import_costs, forward_s)},
    {"backward_compute_time", 1e-3, offsetof(pp_import_costs, backward_s)},
    {"activation_size", 1, offsetof(pp_import_costs, output_bytes)},
    {"parameter_size", 1, offsetof(pp_import_costs, parameter_bytes)},
};
enum { FIELDS = sizeof fields / sizeof *fields };

#define EXPECTED                                                                                   \
    "expected 'nodeN -- description -- forward_compute_time=F, backward_compute_time=B, "          \
    "activation_size=A, parameter_size=P'"

static bool is_edge(pp_piece line) {
    return *line.start == '\t' || *line.start == ' ';
}

/* ---- nodes ---------------------------------------------------------------------------------- */

/* "12.5", or the sum of "[12.5; 3; 4]". */
static pp_status read_value(const pp_import_source *source, pp_piece value, const char *key,
                            double *sum) {
    bool more = true;
    *sum = 0;
    if (!pp_piece_starts(value, "[")) return pp_import_number(source, value, key, sum);
    if (value.end[-1] != ']')
        return pp_import_fail(source, value, "the list of %s has no ']'", key);
    value.start++, value.column++, value.end--;
    while (more) {
        pp_piece item;
        double number;
        more = pp_piece_cut(&value, ";", &item);
        PP_TRY(pp_import_number(source, pp_piece_trim(item), key, &number));
        *sum += number;
    }
    return PP_OK;
}

static pp_status read_field(const pp_import_source *source, pp_piece field, unsigned *found,
                            pp_import_costs *costs) {
    char shown[PP_PIECE_SHOWN];
    pp_piece key, value = field;
    if (!pp_piece_cut(&value, "=", &key)) return pp_import_fail(source, field, EXPECTED);
    for (unsigned i = 0; i < FIELDS; i++) {
        double number;
        if (!pp_piece_is(pp_piece_trim(key), fields[i].key)) continue;
        if (*found & 1U << i)
            return pp_import_fail(source, field, "%s stands twice", fields[i].key);
        *found |= 1U << i;
        PP_TRY(read_value(source, pp_piece_trim(value), fields[i].key, &number));
        *(double *)((char *)costs + fields[i].offset) = number * fields[i].unit;
        return PP_OK;
    }
    return pp_import_fail(source, field, "unknown field '%s'; " EXPECTED,
                          pp_piece_show(key, shown));
}

static pp_status read_fields(const pp_import_source *source, pp_piece text,
                             pp_import_costs *costs) {
    unsigned found = 0;
    bool more = true;
    pp_piece all = text;
    *costs = (pp_import_costs){0};
    while (more) {
        pp_piece field;
        more = pp_piece_cut(&text, ",", &field);
        PP_TRY(read_field(source, pp_piece_trim(field), &found, costs));
    }
    for (unsigned i = 0; i < FIELDS; i++)
        if (!(found & 1U << i))
            return pp_import_fail(source, all, "%s is missing; " EXPECTED, fields[i].key);
    costs->activation_bytes = costs->output_bytes;
    return PP_OK;
}

static pp_status read_node(const pp_import_source *source, pp_piece line, pp_import_node *node) {
    pp_piece values;
    pp_import_costs costs;
    bool whole =
        pp_piece_cut(&line, " -- ", &node->id) && pp_piece_cut(&line, " -- ", &node->description);
    if (!whole || pp_piece_empty(pp_piece_trim(node->id)))
        return pp_import_fail(source, node->id, EXPECTED);
    if (pp_piece_cut(&line, " -- ", &values) && !pp_piece_starts(pp_piece_trim(line), "stage_id="))
        return pp_import_fail(source, line, "expected the end of the line, or stage_id=N");
    node->id = pp_piece_trim(node->id);
    node->description = pp_piece_trim(node->description);
    PP_TRY(read_fields(source, pp_piece_trim(values), &costs));
    pp_import_set_costs(source, &costs, &node->layer);
    return PP_OK;
}

static pp_status read_nodes(pp_import_graph *graph) {
    pp_piece line = pp_import_start(graph->source);
    while (pp_import_next_line(graph->source, &line))
        if (!is_edge(line))
            PP_TRY(read_node(graph->source, line, &graph->nodes[graph->node_count++]));
    return pp_import_index(graph);
}

/* ---- edges ---------------------------------------------------------------------------------- */

static pp_status read_edges(pp_import_graph *graph) {
    pp_piece line = pp_import_start(graph->source);
    while (pp_import_next_line(graph->source, &line)) {
        pp_piece from, to = pp_piece_trim(line);
        if (!is_edge(line)) continue;
        pp_import_edge *edge = &graph->edges[graph->edge_count++];
        edge->place = to;
        if (!pp_piece_cut(&to, " -- ", &from))
            return pp_import_fail(graph->source, edge->place, "expected an edge, 'nodeA -- nodeB'");
        PP_TRY(pp_import_find(graph, pp_piece_trim(from), &edge->from));
        PP_TRY(pp_import_find(graph, pp_piece_trim(to), &edge->to));
    }
    return PP_OK;
}

/* ---- what is left out ----------------------------------------------------------------------- */

/* Removes the nodes whose description starts so and that no edge ends at (or, begins at). */
static pp_status remove_ends(pp_import_graph *graph, const char *prefix, bool begins) {
    bool *connected = PP_NEW(&graph->arena, bool, graph->node_count);
    if (!connected) return pp_fail_memory(graph->source->error);
    for (int e = 0; e < graph->edge_count; e++) {
        const pp_import_edge *edge = &graph->edges[e];
        if (graph->nodes[edge->from].removed || graph->nodes[edge->to].removed) continue;
        connected[begins ? edge->from : edge->to] = true;
    }
    for (int i = 0; i < graph->node_count; i++)
        if (!connected[i] && pp_piece_starts(graph->nodes[i].description, prefix))
            graph->nodes[i].removed = true;
    return PP_OK;
}

/* ---- the importer --------------------------------------------------------------------------- */

static pp_status read_graph(pp_import_graph *graph) {
    PP_TRY(read_nodes(graph));
    PP_TRY(read_edges(graph));
    PP_TRY(remove_ends(graph, "Input", false));
    return remove_ends(graph, "__getitem__", true);
}

pp_status pp_import_pipedream(const pp_import_source *source, pp_model **model) {
    pp_import_graph graph;
    pp_piece line = pp_import_start(source);
    size_t nodes = 0, edges = 0;
    while (pp_import_next_line(source, &line)) {
        nodes += !is_edge(line);
        edges += is_edge(line);
    }
    pp_status status = pp_import_graph_init(&graph, source, nodes, edges, line);
    if (status == PP_OK) status = read_graph(&graph);
    if (status == PP_OK) status = pp_import_graph_finish(&graph, model);
    pp_import_graph_deinit(&graph);
    return status;
}
