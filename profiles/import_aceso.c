/* Aceso's operator profiles (Liu et al. 2024, "Aceso: Efficient Parallel DNN Training through
 * Iterative Bottleneck Alleviation"): a CSV per model, microbatch size and tensor-parallel width,
 * named gpt_1_3B_mbs4_tp2_algo0.csv.
 *
 * Microseconds and MiB of one microbatch on one of the tp devices. A file has the operators of ONE
 * transformer layer, "enc-…", between those in front of and behind the layers; --layers N puts N
 * such layers in a row. What an operator sends on is its output_size, which includes the residual
 * that passes it by; `activations` is what it keeps for its backward pass. input_size is the output
 * of the operator before, and the reserved sizes are the allocator's temporary memory: both are
 * read over. */
#include "profiles/import_internal.h"

#include <stdlib.h>
#include <string.h>

#define US 1e-6
#define MIB 1048576.0

static const pp_csv_column columns[] = {
    {"forward-compute", US, offsetof(pp_import_costs, forward_s)},
    {"backward-compute", US, offsetof(pp_import_costs, backward_s)},
    {"input_size", MIB, PP_CSV_UNUSED},
    {"output_size", MIB, offsetof(pp_import_costs, output_bytes)},
    {"weights", MIB, offsetof(pp_import_costs, parameter_bytes)},
    {"activations", MIB, offsetof(pp_import_costs, activation_bytes)},
    {"fwd_reserved", MIB, PP_CSV_UNUSED},
    {"bwd_reserved", MIB, PP_CSV_UNUSED},
};
static const pp_import_csv csv = {
    .name = "op_name",
    .header = "forward-compute,backward-compute,input_size,output_size,weights,activations,"
              "fwd_reserved,bwd_reserved",
    .columns = columns,
    .column_count = sizeof columns / sizeof *columns,
};

/* ---- the layer, repeated -------------------------------------------------------------------- */

static bool is_layer(const pp_import_node *node) {
    return pp_piece_starts(node->id, "enc-");
}

/* "layer7" */
static pp_piece number_layer(pp_arena *arena, int layer) {
    char *text = pp_arena_printf(arena, "layer%d", layer);
    return text ? (pp_piece){.start = text, .end = text + strlen(text)} : (pp_piece){0};
}

/* The run of the layer's operators becomes `layers` runs; there is room. */
static pp_status repeat(pp_import_graph *graph, int layers) {
    int first = 0, count = 0;
    while (first < graph->node_count && !is_layer(&graph->nodes[first])) first++;
    while (first + count < graph->node_count && is_layer(&graph->nodes[first + count])) count++;
    if (count == 0)
        return pp_fail(graph->source->error, PP_E_INPUT, "--layers",
                       "%s has no operator 'enc-…' of a layer that could be repeated",
                       graph->source->file_name);
    int behind = graph->node_count - first - count, added = (layers - 1) * count;
    pp_import_node *run = graph->nodes + first;
    memmove(run + count + added, run + count, (size_t)behind * sizeof *run);
    graph->node_count += added;
    for (int i = layers - 1; i >= 0; i--) {
        memmove(run + i * count, run, (size_t)count * sizeof *run);
        pp_piece name = number_layer(&graph->arena, i);
        for (int k = 0; k < count; k++) run[i * count + k].description = name;
    }
    return graph->arena.failed ? pp_fail_memory(graph->source->error) : PP_OK;
}

/* ---- what the file's name says -------------------------------------------------------------- */

/* 4 of "_mbs4_"; 0: the name does not say. */
static long named_number(const char *file_name, const char *key) {
    const char *found = strstr(file_name, key);
    return found ? strtol(found + strlen(key), NULL, 10) : 0;
}

static void warn_of_name(const pp_import_source *source) {
    const char *slash = strrchr(source->file_name, '/');
    const char *name = slash ? slash + 1 : source->file_name;
    long samples = named_number(name, "_mbs"), tp = named_number(name, "_tp");
    if (samples > 1 && source->options->profile_batch == 1)
        pp_log(PP_LOG_WARNING, "import",
               "%s: by its name a microbatch of %ld samples, counted as one here; --profile-batch "
               "%ld makes it per sample",
               name, samples, samples);
    if (tp > 1)
        pp_log(PP_LOG_WARNING, "import",
               "%s: by its name the costs of one of %ld tensor-parallel devices", name, tp);
}

/* ---- the importer --------------------------------------------------------------------------- */

pp_status pp_import_aceso(const pp_import_source *source, pp_model **model) {
    pp_import_graph graph;
    int layers = source->options->layers;
    pp_status status = pp_import_csv_read(&csv, source, layers, &graph);
    if (status == PP_OK && layers > 1) status = repeat(&graph, layers);
    if (status == PP_OK) {
        pp_import_chain(&graph);
        status = pp_import_graph_finish(&graph, model);
    }
    pp_import_graph_deinit(&graph);
    if (status == PP_OK) warn_of_name(source);
    return status;
}
