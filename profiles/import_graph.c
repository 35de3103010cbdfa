/* From the nodes and edges of a file, in whatever order they stand there, to a model.
 *
 * Layers come out in reverse postorder of a depth-first search that visits nodes, and the readers
 * of a node, by their description and then by their place in the file. So a branch stays together;
 * and it is the order of PipeDream's own topological_sort (msr-fiddle/pipedream, graph/graph.py),
 * so that split points mean the same here and there. The search keeps its own stack: a chain of
 * 100,000 layers is no reason to run out of the program's. */
#include "profiles/import_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 200 /* of a layer, at most (docs/formats.md) */

pp_status pp_import_graph_init(pp_import_graph *graph, const pp_import_source *source, size_t nodes,
                               size_t edges, pp_piece where) {
    *graph = (pp_import_graph){.source = source};
    pp_arena_init(&graph->arena);
    if (where.line == 0) where.line = 1; /* an empty file */
    if (nodes == 0) return pp_import_fail(source, where, "there are no layers");
    if (nodes > PP_IMPORT_LAYERS_MAX)
        return pp_import_fail(source, where, "there are more than %d layers", PP_IMPORT_LAYERS_MAX);
    if (edges > PP_IMPORT_EDGES_MAX)
        return pp_import_fail(source, where, "there are more than %d edges", PP_IMPORT_EDGES_MAX);
    graph->nodes = PP_NEW(&graph->arena, pp_import_node, nodes);
    graph->sorted = PP_NEW(&graph->arena, int, nodes);
    graph->edges = PP_NEW(&graph->arena, pp_import_edge, edges);
    return graph->arena.failed ? pp_fail_memory(source->error) : PP_OK;
}

void pp_import_graph_deinit(pp_import_graph *graph) {
    pp_arena_deinit(&graph->arena);
}

/* ---- ids ------------------------------------------------------------------------------------ */

typedef struct named {
    pp_piece id;
    int node;
} named;

static int compare_named(const void *left, const void *right) {
    const named *a = left, *b = right;
    int order = pp_piece_compare(a->id, b->id);
    return order != 0 ? order : (a->node > b->node) - (a->node < b->node);
}

pp_status pp_import_index(pp_import_graph *graph) {
    char shown[PP_PIECE_SHOWN];
    int count = graph->node_count;
    named *list = PP_NEW(&graph->arena, named, count);
    if (!list) return pp_fail_memory(graph->source->error);
    for (int i = 0; i < count; i++) list[i] = (named){graph->nodes[i].id, i};
    qsort(list, (size_t)count, sizeof *list, compare_named);
    for (int i = 0; i < count; i++) {
        graph->sorted[i] = list[i].node;
        if (i > 0 && pp_piece_compare(list[i - 1].id, list[i].id) == 0)
            return pp_import_fail(graph->source, list[i].id,
                                  "'%s' stands here a second time; names must differ",
                                  pp_piece_show(list[i].id, shown));
    }
    return PP_OK;
}

pp_status pp_import_find(const pp_import_graph *graph, pp_piece id, int *node) {
    char shown[PP_PIECE_SHOWN];
    int low = 0, high = graph->node_count - 1;
    while (low <= high) {
        int middle = low + (high - low) / 2;
        int order = pp_piece_compare(id, graph->nodes[graph->sorted[middle]].id);
        if (order == 0) {
            *node = graph->sorted[middle];
            return PP_OK;
        }
        if (order < 0)
            high = middle - 1;
        else
            low = middle + 1;
    }
    return pp_import_fail(graph->source, id, "no node is called '%s'", pp_piece_show(id, shown));
}

/* ---- costs ---------------------------------------------------------------------------------- */

void pp_import_set_costs(const pp_import_source *source, const pp_import_costs *costs,
                         pp_layer *layer) {
    double samples = (double)source->options->profile_batch;
    *layer = (pp_layer){.op = PP_OP_OPAQUE,
                        .forward_s = costs->forward_s / samples,
                        .input_s = costs->backward_s / 2 / samples,
                        .weight_s = costs->backward_s / 2 / samples,
                        .backward_assumed = true,
                        .parameter_bytes = (int64_t)ceil(costs->parameter_bytes),
                        .output_bytes = (int64_t)ceil(costs->output_bytes / samples),
                        .activation_bytes = (int64_t)ceil(costs->activation_bytes / samples)};
}

/* ---- topological order ---------------------------------------------------------------------- */

/* An edge between nodes that stay, with what its search is ordered by. */
typedef struct arc {
    int from, to, kind; /* kind: rank of to's description; equal descriptions, equal kind */
    int edge;           /* in the file */
} arc;

typedef struct described {
    pp_piece description;
    int node;
} described;

typedef struct search {
    pp_import_graph *graph;
    described *roots; /* [nodes] all nodes by description, then as in the file */
    int *kind;        /* [nodes] */
    arc *arcs;        /* sorted by from, kind, edge */
    int arc_count;
    int *first; /* [nodes + 1] into arcs */
    int *next;  /* [nodes] arc to follow next */
    char *seen; /* [nodes] UNSEEN, OPEN, DONE */
    int *stack;
    int *order; /* [nodes] filled from the back */
    int at;     /* where order begins */
} search;

enum { UNSEEN, OPEN, DONE };

static int compare_described(const void *left, const void *right) {
    const described *a = left, *b = right;
    int order = pp_piece_compare(a->description, b->description);
    return order != 0 ? order : (a->node > b->node) - (a->node < b->node);
}

static int compare_arcs(const void *left, const void *right) {
    const arc *a = left, *b = right;
    if (a->from != b->from) return a->from < b->from ? -1 : 1;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    return (a->edge > b->edge) - (a->edge < b->edge);
}

static void sort_nodes(search *s) {
    const pp_import_graph *graph = s->graph;
    for (int i = 0; i < graph->node_count; i++)
        s->roots[i] = (described){graph->nodes[i].description, i};
    qsort(s->roots, (size_t)graph->node_count, sizeof *s->roots, compare_described);
    for (int i = 1; i < graph->node_count; i++) {
        const described *a = &s->roots[i - 1], *b = &s->roots[i];
        bool same = pp_piece_compare(a->description, b->description) == 0;
        s->kind[b->node] = s->kind[a->node] + !same;
    }
}

static void sort_arcs(search *s) {
    const pp_import_graph *graph = s->graph;
    for (int e = 0; e < graph->edge_count; e++) {
        int from = graph->edges[e].from, to = graph->edges[e].to;
        if (graph->nodes[from].removed || graph->nodes[to].removed) continue;
        s->arcs[s->arc_count++] = (arc){from, to, s->kind[to], e};
    }
    qsort(s->arcs, (size_t)s->arc_count, sizeof *s->arcs, compare_arcs);
    for (int node = 0, i = 0; node <= graph->node_count; node++) {
        while (i < s->arc_count && s->arcs[i].from < node) i++;
        s->first[node] = i;
    }
}

static pp_status search_init(search *s, pp_import_graph *graph) {
    pp_arena *arena = &graph->arena;
    int nodes = graph->node_count;
    *s = (search){.graph = graph,
                  .roots = PP_NEW(arena, described, nodes),
                  .kind = PP_NEW(arena, int, nodes),
                  .arcs = PP_NEW(arena, arc, graph->edge_count),
                  .first = PP_NEW(arena, int, nodes + 1),
                  .next = PP_NEW(arena, int, nodes),
                  .seen = PP_NEW(arena, char, nodes),
                  .stack = PP_NEW(arena, int, nodes),
                  .order = PP_NEW(arena, int, nodes),
                  .at = nodes};
    if (arena->failed) return pp_fail_memory(graph->source->error);
    sort_nodes(s);
    sort_arcs(s);
    memcpy(s->next, s->first, (size_t)nodes * sizeof *s->next);
    return PP_OK;
}

static pp_status visit(search *s, int root) {
    char shown[PP_PIECE_SHOWN];
    int depth = 0;
    s->stack[depth++] = root;
    s->seen[root] = OPEN;
    while (depth > 0) {
        int node = s->stack[depth - 1];
        if (s->next[node] == s->first[node + 1]) {
            s->seen[node] = DONE;
            s->order[--s->at] = node;
            depth--;
            continue;
        }
        const arc *a = &s->arcs[s->next[node]++];
        if (s->seen[a->to] == OPEN)
            return pp_import_fail(s->graph->source, s->graph->edges[a->edge].place,
                                  "this edge closes a cycle through '%s'",
                                  pp_piece_show(s->graph->nodes[a->to].id, shown));
        if (s->seen[a->to] == DONE) continue;
        s->seen[a->to] = OPEN;
        s->stack[depth++] = a->to;
    }
    return PP_OK;
}

static pp_status search_run(search *s) {
    for (int i = 0; i < s->graph->node_count; i++) {
        int node = s->roots[i].node;
        if (s->seen[node] == UNSEEN && !s->graph->nodes[node].removed) PP_TRY(visit(s, node));
    }
    return PP_OK;
}

/* ---- the model ------------------------------------------------------------------------------ */

/* "node4 Conv2d(64, 192)": blanks once each, and no longer than a name may be. */
static const char *name_of(pp_arena *arena, const pp_import_node *node) {
    char name[NAME_BYTES + 1];
    size_t length = 0;
    const pp_piece parts[] = {node->id, node->description};
    for (int k = 0; k < 2; k++) {
        for (const char *c = parts[k].start; c < parts[k].end && length < NAME_BYTES; c++) {
            bool blank = *c == ' ' || *c == '\t' || *c == '\r';
            if (blank && (length == 0 || name[length - 1] == ' ')) continue;
            name[length++] = blank ? ' ' : *c;
        }
        if (k == 0 && length < NAME_BYTES && !pp_piece_empty(parts[1])) name[length++] = ' ';
    }
    while (length > 0 && name[length - 1] == ' ') length--;
    if (length == NAME_BYTES) /* not in the middle of a character */
        while ((name[length - 1] & 0xC0) == 0x80 || (name[length - 1] & 0xC0) == 0xC0) length--;
    return pp_arena_copy(arena, name, length);
}

static int compare_edges(const void *left, const void *right) {
    const pp_edge *a = left, *b = right;
    if (a->from != b->from) return a->from < b->from ? -1 : 1;
    return (a->to > b->to) - (a->to < b->to);
}

static void fill_edges(const search *s, const int *position, pp_model *model) {
    for (int i = 0; i < s->arc_count; i++)
        model->edges[i] = (pp_edge){position[s->arcs[i].from], position[s->arcs[i].to]};
    qsort(model->edges, (size_t)s->arc_count, sizeof *model->edges, compare_edges);
    for (int i = 0; i < s->arc_count; i++)
        if (i == 0 || compare_edges(&model->edges[i - 1], &model->edges[i]) != 0)
            model->edges[model->edge_count++] = model->edges[i];
}

/* The model, its memory in the arena of the graph. */
static pp_status fill_model(const search *s, pp_model *model) {
    pp_import_graph *graph = s->graph;
    int *position = PP_NEW(&graph->arena, int, graph->node_count);
    *model = (pp_model){.name = graph->source->model_name,
                        .layer_count = graph->node_count - s->at,
                        .edges = PP_NEW(&graph->arena, pp_edge, s->arc_count)};
    model->layers = PP_NEW(&graph->arena, pp_layer, model->layer_count);
    if (graph->arena.failed) return pp_fail_memory(graph->source->error);
    for (int i = 0; i < model->layer_count; i++) {
        pp_import_node *node = &graph->nodes[s->order[s->at + i]];
        position[s->order[s->at + i]] = i;
        model->layers[i] = node->layer;
        model->layers[i].name = name_of(&graph->arena, node);
    }
    fill_edges(s, position, model);
    return graph->arena.failed ? pp_fail_memory(graph->source->error) : PP_OK;
}

pp_status pp_import_graph_finish(pp_import_graph *graph, pp_model **model) {
    search s;
    pp_model filled;
    PP_TRY(search_init(&s, graph));
    PP_TRY(search_run(&s));
    if (s.at == graph->node_count)
        return pp_import_fail(graph->source, (pp_piece){.line = 1, .column = 1},
                              "there are no layers besides inputs");
    PP_TRY(fill_model(&s, &filled));
    return pp_model_copy(&filled, model, graph->source->error);
}
