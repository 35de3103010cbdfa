/* Tables with a header: a column per quantity, a row per layer, each layer reading the one before
 * it.
 *
 * Cells are divided by commas and may stand in double quotes, as names with commas must; lines that
 * begin with '#' are comments. */
#include "profiles/import_internal.h"

#include <string.h>

/* A table being read: which column of ours each cell of a row is. */
typedef struct csv_reader {
    const pp_import_csv *csv;
    pp_import_graph *graph;
    int cells[PP_CSV_COLUMNS]; /* column of each cell; -1: the name */
    int cell_count;
} csv_reader;

static bool is_comment(pp_piece line) {
    return *line.start == '#';
}

/* The next cell, without its quotes; false when none is left. *rest.start is NULL behind the last.
 */
static pp_status next_cell(const pp_import_source *source, pp_piece *rest, pp_piece *cell) {
    bool more;
    *rest = pp_piece_trim(*rest);
    if (!pp_piece_starts(*rest, "\"")) {
        more = pp_piece_cut(rest, ",", cell);
        *cell = pp_piece_trim(*cell);
    } else {
        pp_piece gap, quote = *rest;
        rest->start++, rest->column++;
        if (!pp_piece_cut(rest, "\"", cell))
            return pp_import_fail(source, quote, "this quote is never closed");
        more = pp_piece_cut(rest, ",", &gap);
        if (!pp_piece_empty(pp_piece_trim(gap)))
            return pp_import_fail(source, gap, "expected a comma behind the quoted cell");
    }
    if (!more) rest->start = NULL;
    return PP_OK;
}

static bool first_row(const pp_import_source *source, pp_piece *line) {
    while (pp_import_next_line(source, line))
        if (!is_comment(*line)) return true;
    return false;
}

/* ---- the header ----------------------------------------------------------------------------- */

static int find_column(const pp_import_csv *csv, pp_piece cell) {
    for (int i = 0; i < csv->column_count; i++)
        if (pp_piece_is(cell, csv->columns[i].name)) return i;
    return -2;
}

static pp_status read_header_cell(csv_reader *r, pp_piece cell) {
    const pp_import_source *source = r->graph->source;
    char shown[PP_PIECE_SHOWN];
    int column =
        r->cell_count == 0 && pp_piece_is(cell, r->csv->name) ? -1 : find_column(r->csv, cell);
    if (column == -2 || (r->cell_count == 0) != (column == -1))
        return pp_import_fail(source, cell, "unexpected column '%s'; expected the header %s,%s",
                              pp_piece_show(cell, shown), r->csv->name, r->csv->header);
    for (int i = 0; i < r->cell_count; i++)
        if (r->cells[i] == column)
            return pp_import_fail(source, cell, "the column '%s' stands twice",
                                  pp_piece_show(cell, shown));
    r->cells[r->cell_count++] = column;
    return PP_OK;
}

static pp_status read_header(csv_reader *r, pp_piece line) {
    const pp_import_source *source = r->graph->source;
    pp_piece rest = line, cell;
    while (rest.start && r->cell_count <= r->csv->column_count) {
        PP_TRY(next_cell(source, &rest, &cell));
        PP_TRY(read_header_cell(r, cell));
    }
    if (r->cell_count != r->csv->column_count + 1)
        return pp_import_fail(source, line, "expected the header %s,%s", r->csv->name,
                              r->csv->header);
    return PP_OK;
}

/* ---- rows ----------------------------------------------------------------------------------- */

static pp_status read_number(const csv_reader *r, int index, pp_piece cell,
                             pp_import_costs *costs) {
    const pp_csv_column *column = &r->csv->columns[r->cells[index]];
    double number;
    PP_TRY(pp_import_number(r->graph->source, cell, column->name, &number));
    if (column->offset != PP_CSV_UNUSED)
        *(double *)((char *)costs + column->offset) = number * column->unit;
    return PP_OK;
}

static pp_status read_row(csv_reader *r, pp_piece line) {
    const pp_import_source *source = r->graph->source;
    pp_import_node *node = &r->graph->nodes[r->graph->node_count++];
    pp_import_costs costs = {0};
    pp_piece rest = line, cell = line;
    int count = 0;
    for (; rest.start && count < r->cell_count; count++) {
        PP_TRY(next_cell(source, &rest, &cell));
        if (r->cells[count] >= 0)
            PP_TRY(read_number(r, count, cell, &costs));
        else
            node->id = cell;
    }
    if (rest.start || count < r->cell_count)
        return pp_import_fail(source, line, "expected %d cells, as many as the header has",
                              r->cell_count);
    if (pp_piece_empty(node->id)) return pp_import_fail(source, line, "the layer has no name");
    pp_import_set_costs(source, &costs, &node->layer);
    return PP_OK;
}

static pp_status read_rows(csv_reader *r) {
    pp_piece line = pp_import_start(r->graph->source);
    if (!first_row(r->graph->source, &line)) return PP_OK;
    PP_TRY(read_header(r, line));
    while (first_row(r->graph->source, &line)) PP_TRY(read_row(r, line));
    return pp_import_index(r->graph);
}

pp_status pp_import_csv_read(const pp_import_csv *csv, const pp_import_source *source,
                             int64_t copies, pp_import_graph *graph) {
    csv_reader r = {.csv = csv, .graph = graph};
    pp_piece line = pp_import_start(source);
    size_t rows = 0;
    while (first_row(source, &line)) rows++;
    rows = rows > 0 ? rows - 1 : 0; /* without the header */
    if (copies > PP_IMPORT_LAYERS_MAX) copies = PP_IMPORT_LAYERS_MAX + 1;
    size_t nodes = rows * (size_t)copies;
    PP_TRY(pp_import_graph_init(graph, source, nodes, nodes, line));
    return read_rows(&r);
}

void pp_import_chain(pp_import_graph *graph) {
    for (int i = 1; i < graph->node_count; i++)
        graph->edges[graph->edge_count++] = (pp_import_edge){i - 1, i, graph->nodes[i].id};
}
