/* The format for everything that has no importer of its own: a CSV with a row per layer of a chain,
 *
 *     layer,forward_ms,backward_ms,parameter_bytes,activation_bytes,output_bytes
 *     conv1,1.5,2.75,37632,1605632,3211264
 *
 * Columns may stand in any order behind the first. Times and the last two sizes are those of the
 * profiled minibatch. */
#include "profiles/import_internal.h"

static const pp_csv_column columns[] = {
    {"forward_ms", 1e-3, offsetof(pp_import_costs, forward_s)},
    {"backward_ms", 1e-3, offsetof(pp_import_costs, backward_s)},
    {"parameter_bytes", 1, offsetof(pp_import_costs, parameter_bytes)},
    {"activation_bytes", 1, offsetof(pp_import_costs, activation_bytes)},
    {"output_bytes", 1, offsetof(pp_import_costs, output_bytes)},
};
static const pp_import_csv csv = {
    .name = "layer",
    .header = "forward_ms,backward_ms,parameter_bytes,activation_bytes,output_bytes",
    .columns = columns,
    .column_count = sizeof columns / sizeof *columns,
};

pp_status pp_import_layers(const pp_import_source *source, pp_model **model) {
    pp_import_graph graph;
    pp_status status = pp_import_csv_read(&csv, source, 1, &graph);
    if (status == PP_OK) {
        pp_import_chain(&graph);
        status = pp_import_graph_finish(&graph, model);
    }
    pp_import_graph_deinit(&graph);
    return status;
}
