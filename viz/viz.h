/* viz: pictures and reports from traces. Floor 2; uses core's trace types alone, and cairo with
 * pango for text.
 *
 *   canvas.c    a cairo surface of a file format, text, colours
 *   timeline.c  rows = ranks, time to the right
 *   memory.c    bytes over time, a curve per rank
 *   compare.c   prediction above measurement, same time axis */
#ifndef PPSIM_VIZ_H
#define PPSIM_VIZ_H

#include "core/core.h"

typedef struct pp_render_options {
    double width, height; /* pixels or points; 0: chosen from ranks and actions */
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
 * pp_file_write. */
pp_status pp_render(const char *chart, const pp_trace *const *traces, int trace_count,
                    const char *path, const pp_render_options *options, pp_text *image,
                    pp_error *error);

const char *pp_cairo_version(void);

#endif
