/* What importers share: pieces of somebody's text file with their places (import_text.c), and a
 * graph of layers in whatever order a file has them, from which a model is made (import_graph.c).
 */
#ifndef PPSIM_IMPORT_INTERNAL_H
#define PPSIM_IMPORT_INTERNAL_H

#include "profiles/profiles.h"

#define PP_IMPORT_LAYERS_MAX 100000
#define PP_IMPORT_EDGES_MAX 1000000

/* A file being imported. */
typedef struct pp_import_source {
    const char *text; /* NUL-terminated, without a byte order mark */
    size_t length;
    const char *file_name;
    const char *model_name;
    const pp_import_options *options; /* the defaults filled in */
    pp_error *error;
} pp_import_source;

/* A row of the table in import.c. `read` gives a model or fails with the place in the file. */
typedef struct pp_import_row {
    pp_importer importer;
    bool takes_layers, takes_tp; /* which options beside profile_batch */
    bool measures_nothing;       /* nor that: costs follow from dimensions */
    pp_status (*read)(const pp_import_source *source, pp_model **model);
} pp_import_row;

pp_status pp_import_hf(const pp_import_source *source, pp_model **model);
pp_status pp_import_pipedream(const pp_import_source *source, pp_model **model);
pp_status pp_import_aceso(const pp_import_source *source, pp_model **model);
pp_status pp_import_piper(const pp_import_source *source, pp_model **model);
pp_status pp_import_layers(const pp_import_source *source, pp_model **model);

/* ---- import_text.c -------------------------------------------------------------------------- */

/* A stretch of one line; lines and columns count from 1. In a JSON file, something of an element of
 * one of its lists. */
typedef struct pp_piece {
    const char *start, *end;
    size_t line, column;
    const char *list; /* JSON: "nodes"; else NULL */
    size_t element;   /* JSON: from 0 */
} pp_piece;

/* Text that is not UTF-8, or holds control characters, is refused: what follows need not care. */
pp_status pp_import_check_text(const pp_import_source *source);

pp_piece pp_import_start(const pp_import_source *source); /* in front of the first line */
/* Steps to the next line that is not blank, without its line end; false behind the last. */
bool pp_import_next_line(const pp_import_source *source, pp_piece *line);

pp_piece pp_piece_trim(pp_piece piece);
/* Cuts off the front of *rest, up to the separator, which vanishes; without one all of it, and
 * returns false. */
bool pp_piece_cut(pp_piece *rest, const char *separator, pp_piece *front);
bool pp_piece_empty(pp_piece piece);
bool pp_piece_is(pp_piece piece, const char *text);
bool pp_piece_starts(pp_piece piece, const char *text);
int pp_piece_compare(pp_piece a, pp_piece b); /* as strcmp */

/* PP_E_INPUT at file:line:column, or at "file /list/element". */
pp_status pp_import_fail(const pp_import_source *source, pp_piece where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The beginning of a piece, for messages: at most 60 bytes, in buffer, which is returned. */
#define PP_PIECE_SHOWN 72
const char *pp_piece_show(pp_piece piece, char buffer[PP_PIECE_SHOWN]);
/* The whole piece as a number, finite, 0 … 2^46; `what` is what messages call it. */
pp_status pp_import_number(const pp_import_source *source, pp_piece piece, const char *what,
                           double *number);

/* ---- costs: import_graph.c ------------------------------------------------------------------ */

/* Times and bytes of one profiled minibatch. */
typedef struct pp_import_costs {
    double forward_s, backward_s;
    double parameter_bytes, output_bytes, activation_bytes;
} pp_import_costs;

/* Makes them those of one sample of an opaque layer; sizes are rounded up. */
void pp_import_set_costs(const pp_import_source *source, const pp_import_costs *costs,
                         pp_layer *layer);

/* ---- import_graph.c ------------------------------------------------------------------------- */

typedef struct pp_import_node {
    pp_layer layer;       /* opaque; its name is made from the two below */
    pp_piece id;          /* what edges call it; unique in the file */
    pp_piece description; /* may be empty */
    bool removed;
} pp_import_node;

typedef struct pp_import_edge {
    int from, to;
    pp_piece place;
} pp_import_edge;

typedef struct pp_import_graph {
    const pp_import_source *source;
    pp_import_node *nodes; /* in file order */
    int node_count;
    int *sorted; /* by id, for pp_import_find */
    pp_import_edge *edges;
    int edge_count;
    pp_arena arena;
} pp_import_graph;

/* Room for so many; more than the limits above are refused at `where`. Deinit in every case. */
pp_status pp_import_graph_init(pp_import_graph *graph, const pp_import_source *source, size_t nodes,
                               size_t edges, pp_piece where);
void pp_import_graph_deinit(pp_import_graph *graph);
/* After all nodes: sorts their ids and refuses two of one name. */
pp_status pp_import_index(pp_import_graph *graph);
/* The node called so; an unknown one is an error at the piece. */
pp_status pp_import_find(const pp_import_graph *graph, pp_piece id, int *node);
/* The model of what was not removed: layers in topological order, edges once each. A cycle is an
 * error at one of its edges. */
pp_status pp_import_graph_finish(pp_import_graph *graph, pp_model **model);

/* ---- import_csv.c --------------------------------------------------------------------------- */

#define PP_CSV_COLUMNS 16
#define PP_CSV_UNUSED SIZE_MAX

typedef struct pp_csv_column {
    const char *name;
    double unit;   /* to seconds or bytes */
    size_t offset; /* into pp_import_costs; PP_CSV_UNUSED: must be a number, but is not needed */
} pp_csv_column;

typedef struct pp_import_csv {
    const char *name;   /* the first column, which holds names */
    const char *header; /* the others, for messages */
    const pp_csv_column *columns;
    int column_count;
} pp_import_csv;

/* The rows of a table as nodes, with room for `copies` of each and as many edges. The graph is
 * initialised, in every case. */
pp_status pp_import_csv_read(const pp_import_csv *csv, const pp_import_source *source,
                             int64_t copies, pp_import_graph *graph);
/* Edges from each node to the next. */
void pp_import_chain(pp_import_graph *graph);

#endif
