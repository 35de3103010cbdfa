/* What charts are made of: colours, a trace made ready, a time axis, the page around rows of ranks,
 * and the band that shows one rank's spans. A chart is a file that fills a viz_page, has it laid
 * out and then draws into the rows (timeline.c is the example). Units: points, y downward. */
#ifndef PPSIM_VIZ_CHART_INTERNAL_H
#define PPSIM_VIZ_CHART_INTERNAL_H

#include "viz/canvas_internal.h"
#include "viz/viz.h"

/* ---- palette.c: colours -------------------------------------------------------------------- */

/* How one kind of action looks: a row of the table. */
typedef struct viz_kind {
    const char *legend; /* "forward (F)" */
    const char *letter; /* in labels; NULL: `word` instead */
    const char *word;
    viz_colour colour;     /* of even microbatches; odd ones are lighter */
    viz_colour last;       /* the same for the last of several stages of a rank */
    viz_colour dark_theme; /* instead of both on a dark page; 0: not needed */
} viz_kind;

/* The page itself. */
typedef struct viz_theme {
    bool dark;
    viz_colour page, idle, grid, text, muted, mark;
} viz_theme;

const viz_theme *viz_theme_get(bool dark);
const viz_kind *viz_kind_get(unsigned kind);
/* Fill of an action; chunk of chunks: which of its rank's stages it belongs to, the first darkest.
 */
viz_colour viz_action_colour(const viz_theme *theme, pp_action action, int chunk, int chunks);
/* Black or white, whichever stands out more on the fill; and by how much (WCAG 2: 1 to 21). */
viz_colour viz_label_colour(viz_colour fill);
double viz_contrast(viz_colour a, viz_colour b);
double viz_luminance(viz_colour colour); /* relative, 0 to 1: what is left in grey */

/* ---- trace_view.c: a trace made ready for drawing ------------------------------------------ */

/* One trace checked and indexed. */
typedef struct viz_view {
    const pp_trace *trace;
    size_t *first;         /* [ranks + 1] where each rank's spans begin */
    uint16_t *chunk;       /* [65536] of each stage: how many lower stages its rank has */
    int chunks;            /* largest chunk + 1 */
    double start_s, end_s; /* from 0 or the first start to the makespan or the last end */
    size_t count[PP_ACTION_KIND_COUNT];   /* spans in the compute lane that take time */
    double total_s[PP_ACTION_KIND_COUNT]; /* of these */
    bool sent[PP_ACTION_KIND_COUNT];      /* there are spans of it in the other lanes */
    double period_s;                      /* work on a microbatch of the busiest rank */
} viz_view;

/* PP_E_INPUT where the trace contradicts itself: times that are no numbers or too large, ranks out
 * of range, spans out of order. */
pp_status viz_view_make(const pp_trace *trace, pp_arena *arena, viz_view *view, pp_error *error);
#define VIZ_SECONDS_MAX 1e15
size_t viz_view_spans(const viz_view *view);  /* compute spans that take time */
double viz_view_mean_s(const viz_view *view); /* their mean duration; 0: there are none */
bool viz_view_transfers(const viz_view *view);

/* ---- axis.c: from seconds, bytes or shares to points ------------------------------------ */

typedef enum viz_quantity { VIZ_TIME, VIZ_BYTES, VIZ_SHARE } viz_quantity; /* shares in % */

typedef struct viz_unit {
    const char *name;
    double size;
} viz_unit;

typedef struct viz_axis {
    double low, high;     /* values at the ends, high > low */
    double left, right;   /* points */
    const viz_unit *unit; /* of the tick labels */
    double step;          /* between ticks, in units */
    int decimals;
} viz_axis;

/* Chooses unit and ticks so that labels of this size never touch. */
viz_axis viz_axis_make(viz_canvas *canvas, double size, double low, double high, double left,
                       double right, viz_quantity quantity);
double viz_axis_at(const viz_axis *axis, double value);
/* Tick i: false when there is none left. label: NULL or [32]. */
bool viz_axis_tick(const viz_axis *axis, int i, double *position, char label[32]);

const char *viz_seconds_text(double seconds, char buffer[32]);  /* "12.3 µs" */
const char *viz_percent_text(double fraction, char buffer[32]); /* "12.3 %" */

/* ---- frame.c: the page around the rows ----------------------------------------------------- */

/* A number beside a row and its size as a bar. */
typedef struct viz_cell {
    char text[24];
    double share; /* 0 to 1; negative: no bar */
} viz_cell;

typedef struct viz_column {
    const char *heading;
    viz_cell *cells; /* [rows × lines] */
} viz_column;

typedef struct viz_entry { /* of the legend */
    const char *text;
    viz_colour colours[8]; /* swatches side by side */
    int colour_count;      /* 0: text alone */
} viz_entry;

enum { VIZ_COLUMNS_MAX = 3, VIZ_ENTRIES_MAX = 24, VIZ_ROWS_MAX = 1024 };

/* What a chart wants on its page. */
typedef struct viz_page {
    char title[160], subtitle[320];
    char figure[64], figure_note[96]; /* at the right of both */
    int ranks;
    int lines;                 /* bands in a row, each with its own cells */
    const char *line_names[2]; /* beside the bands of the first rows; NULL: none */
    double plot_width, pitch;  /* as it would like them; pitch of a row */
    double pitch_least;
    double low, high; /* of the axis */
    bool bytes;       /* axis of bytes, not of time */
    viz_column columns[VIZ_COLUMNS_MAX];
    int column_count;
    viz_entry entries[VIZ_ENTRIES_MAX];
    int entry_count;
    char axis_note[128]; /* above the plot, right-aligned at its right end */
} viz_page;

/* Where things came to lie. */
typedef struct viz_frame {
    viz_rect plot;
    double pitch;     /* of a row */
    double band, gap; /* height of each of its bands; what is left between rows */
    int rows, step;   /* row r shows rank r · step */
    viz_axis axis;
} viz_frame;

/* Step one: the width of everything, and so the axis. `size` holds the page's wanted width and
 * height in points, 0: free. PP_E_INPUT if it is too small or too large. */
pp_status viz_frame_across(viz_canvas *canvas, viz_page *page, const viz_theme *theme,
                           const double size[2], viz_frame *frame, pp_error *error);
/* Step two: heights; draws the page without what belongs into the bands. */
pp_status viz_frame_down(viz_canvas *canvas, const viz_page *page, const viz_theme *theme,
                         const double size[2], viz_frame *frame, pp_error *error);
/* The rectangle of one band of a row. */
viz_rect viz_frame_band(const viz_frame *frame, int row, int line);

/* ---- bands.c: what one rank did ------------------------------------------------------------ */

/* How all bands of a picture are drawn. */
typedef struct viz_bands {
    const viz_theme *theme;
    const viz_axis *axis;
    bool dense;      /* spans are too thin to be told apart: shares of each window are drawn */
    double window_s; /* their length */
    int windows;
    double *coverage;  /* [windows × kinds] scratch; NULL unless dense */
    double label_size; /* 0: no labels */
    bool label_long;   /* "F3" ("1F3" where a rank has several stages) rather than "3" */
    bool labelled[PP_ACTION_KIND_COUNT];
} viz_bands;

viz_bands viz_bands_plan(viz_canvas *canvas, const viz_theme *theme, const viz_axis *axis,
                         const viz_view *views, int view_count);
void viz_band_draw(viz_canvas *canvas, const viz_bands *bands, const viz_view *view, int rank,
                   viz_rect band);
/* Adds to the page's legend what the bands show. */
void viz_bands_legend(viz_canvas *canvas, const viz_bands *bands, const viz_view *views,
                      int view_count, viz_page *page);
/* A width of the plot at which typical spans can be labelled. */
double viz_bands_width(const viz_view *views, int view_count);

/* ---- page.c: what charts of traces have in common ------------------------------------------ */

/* "1f1b · K = 4 ranks · M = 8 microbatches · V = 1 · note" */
void viz_describe(const pp_trace *trace, const char *note, char *text, size_t capacity);
/* Height of a row when `room` points are to be shared, within limits. */
double viz_pitch(int ranks, double room, double least, double most);
/* Busy share and, where known, peak memory; views of as many ranks as the page. */
pp_status viz_add_columns(const viz_view *views, int view_count, pp_arena *arena, viz_page *page,
                          pp_error *error);

/* ---- charts -------------------------------------------------------------------------------- */

typedef struct viz_job {
    const pp_trace *const *traces;
    const viz_theme *theme;
    double size[2]; /* width and height in points; 0: free */
    pp_arena *arena;
} viz_job;

pp_status viz_timeline(const viz_job *job, viz_canvas *canvas, pp_error *error);
pp_status viz_memory(const viz_job *job, viz_canvas *canvas, pp_error *error);
pp_status viz_compare(const viz_job *job, viz_canvas *canvas, pp_error *error);

/* A sweep instead of traces. */
pp_status viz_sweep(const pp_sweep *sweep, const viz_theme *theme, const double size[2],
                    viz_canvas *canvas, pp_error *error);

/* Everything up to the bytes: what tests look at. canvas: initialised here, deinit by the caller
 * whatever comes back. */
pp_status viz_chart_draw(const char *chart, const pp_trace *const *traces, int trace_count,
                         const double size[2], bool dark, viz_canvas *canvas, pp_error *error);
pp_status viz_sweep_draw(const pp_sweep *sweep, const double size[2], bool dark, viz_canvas *canvas,
                         pp_error *error);

#endif
