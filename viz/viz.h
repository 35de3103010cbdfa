/* viz: pictures and reports from traces. Floor 2; uses core's trace types alone, and cairo with
 * pango for text.
 *
 *   charts.c         the table of charts; from traces to the bytes of a picture
 *   timeline.c       rows = ranks, time to the right
 *   compare_chart.c  prediction above measurement, same time axis
 *   memory_chart.c   bytes over time, a curve per rank
 *   sweep_chart.c    the best plan at each value of one setting
 *
 *   page.c           what these say in common about a trace
 *   frame.c          the page around the rows: header, labels, columns, axis, legend
 *   bands.c          the spans of one rank; merged where they are thinner than pixels
 *   axis.c           units and ticks
 *   trace_view.c     a trace checked and indexed
 *   palette.c        colours
 *   canvas.c         the list of rectangles and texts that a picture is; measuring text
 *   canvas_output.c  from that list to PNG and PDF with cairo; the table of formats
 *   canvas_svg.c     and to SVG
 */
#ifndef PPSIM_VIZ_H
#define PPSIM_VIZ_H

#include "core/core.h"

typedef struct pp_render_options {
    double width, height; /* of the file: pixels of a PNG (2 per point), points of SVG and PDF;
                             0: chosen from ranks and actions */
    bool dark;
} pp_render_options;

/* One kind of picture: a row of the table. */
typedef struct pp_chart {
    const char *name; /* "timeline" */
    const char *summary;
    int traces; /* how many it takes: 1, or 2 (predicted, measured) */
} pp_chart;
const pp_chart *pp_charts(int *count);

/* Draws a chart of traces into *image (PNG, SVG or PDF bytes by the ending of path; any other
 * ending is PP_E_INPUT). Identical input gives identical bytes. The caller writes with
 * pp_file_write. On failure *image is empty. Errors: an unknown chart, another number of traces
 * than it takes, a size that cannot be, a trace that contradicts itself (all PP_E_INPUT), no
 * memory. */
pp_status pp_render(const char *chart, const pp_trace *const *traces, int trace_count,
                    const char *path, const pp_render_options *options, pp_text *image,
                    pp_error *error);

/* Draws a sweep likewise. Errors: a size that cannot be, another ending (PP_E_INPUT), no memory. */
pp_status pp_render_sweep(const pp_sweep *sweep, const char *path, const pp_render_options *options,
                          pp_text *image, pp_error *error);

const char *pp_cairo_version(void);

#endif
