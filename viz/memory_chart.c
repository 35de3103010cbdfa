/* Memory: a curve per rank, each in a row of its own and all to one scale, with the moment of the
 * peak marked. A trace without curves gives a bar per rank, as long as its peak.
 *
 * A curve is drawn as one column per pixel that holds the largest value of its moments: however
 * many points there are, no peak is lost. */
#include "viz/chart_internal.h"

#include <math.h>
#include <stdio.h>

#define COLUMN 0.5 /* points: a pixel of a PNG */

static const viz_colour curve_colour[2] = {0x7fa6d6, 0x4f80bd}; /* light page, dark page */

static viz_colour fill_colour(const viz_job *job) {
    return curve_colour[job->theme->dark];
}

static pp_status check_points(const pp_trace *trace, pp_error *error) {
    for (size_t i = 0; i < trace->point_count; i++) {
        const pp_trace_point *point = &trace->points[i];
        bool known = point->rank >= 0 && point->rank < trace->ranks && point->bytes >= 0 &&
                     fabs(point->time_s) <= VIZ_SECONDS_MAX;
        bool sorted = i == 0 || point[-1].rank < point->rank ||
                      (point[-1].rank == point->rank && point[-1].time_s <= point->time_s);
        if (known && sorted) continue;
        return pp_fail(error, PP_E_INPUT, trace->title,
                       "point %zu of the trace's memory curves has a rank, time or size out of "
                       "range, or is not in the order of rank and time",
                       i);
    }
    return PP_OK;
}

/* Largest known number of bytes; negative: nothing is known. */
static int64_t largest(const pp_trace *trace) {
    int64_t most = -1;
    for (int p = 0; p < trace->ranks; p++)
        if (trace->rank[p].peak_bytes > most) most = trace->rank[p].peak_bytes;
    for (size_t i = 0; i < trace->point_count; i++)
        if (trace->points[i].bytes > most) most = trace->points[i].bytes;
    return most;
}

static void head(const pp_trace *trace, int64_t most, viz_page *page) {
    char text[32];
    int64_t fewest = most;
    for (int p = 0; p < trace->ranks; p++)
        if (trace->rank[p].peak_bytes >= 0 && trace->rank[p].peak_bytes < fewest)
            fewest = trace->rank[p].peak_bytes;
    snprintf(page->title, sizeof page->title, "%s",
             trace->title[0] ? trace->title : "Memory of each rank");
    viz_describe(trace, trace->measured ? "measured" : "simulated", page->subtitle,
                 sizeof page->subtitle);
    snprintf(page->figure, sizeof page->figure, "peak %s", pp_format_bytes((double)most, text));
    snprintf(page->figure_note, sizeof page->figure_note, "least loaded rank %s",
             pp_format_bytes((double)fewest, text));
}

/* ---- curves -------------------------------------------------------------------------------- */

/* Raises the columns that [from, to) touches to at least `bytes`. */
static void raise_columns(const viz_axis *axis, double *columns, int count, double from, double to,
                          double bytes) {
    int first = (int)fmax(0, floor((viz_axis_at(axis, from) - axis->left) / COLUMN));
    int last = (int)fmin(count, ceil((viz_axis_at(axis, to) - axis->left) / COLUMN));
    for (int c = first; c < last; c++) columns[c] = fmax(columns[c], bytes);
}

/* Where rank p's points begin, by bisection. */
static size_t first_point(const pp_trace *trace, int p) {
    size_t low = 0, high = trace->point_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (trace->points[middle].rank < p)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Fills columns[] with rank p's curve; returns when it is highest. */
static double trace_curve(const viz_view *view, int p, const viz_axis *axis, double *columns,
                          int count) {
    const pp_trace *trace = view->trace;
    double peak_s = 0;
    int64_t most = -1;
    for (int c = 0; c < count; c++) columns[c] = 0;
    for (size_t i = first_point(trace, p); i < trace->point_count && trace->points[i].rank == p;
         i++) {
        const pp_trace_point *point = &trace->points[i];
        bool more = i + 1 < trace->point_count && point[1].rank == p;
        raise_columns(axis, columns, count, point->time_s, more ? point[1].time_s : view->end_s,
                      (double)point->bytes);
        if (point->bytes > most) {
            most = point->bytes;
            peak_s = point->time_s;
        }
    }
    return peak_s;
}

static void draw_curve(viz_canvas *canvas, const viz_job *job, const viz_axis *axis, viz_rect band,
                       const double *columns, int count, double full) {
    for (int c = 0, end; c < count; c = end) {
        for (end = c + 1; end < count && columns[end] == columns[c];) end++;
        double height = full > 0 ? columns[c] / full * band.height : 0;
        viz_fill(canvas,
                 (viz_rect){axis->left + c * COLUMN, band.y + band.height - height,
                            (end - c) * COLUMN, height},
                 fill_colour(job));
    }
}

static pp_status add_peaks(const viz_view *view, viz_page *page, pp_arena *arena, pp_error *error) {
    char text[32];
    viz_cell *cells = PP_NEW(arena, viz_cell, page->ranks);
    if (!cells) return pp_fail_memory(error);
    for (int p = 0; p < page->ranks; p++) {
        int64_t bytes = view->trace->rank[p].peak_bytes;
        cells[p] = (viz_cell){"-", -1};
        if (bytes >= 0)
            snprintf(cells[p].text, sizeof cells[p].text, "%.23s",
                     pp_format_bytes((double)bytes, text));
    }
    page->columns[page->column_count++] = (viz_column){"peak", cells};
    return PP_OK;
}

static void curve_legend(const viz_job *job, viz_page *page) {
    page->entries[page->entry_count++] = (viz_entry){"bytes held", {fill_colour(job)}, 1};
    page->entries[page->entry_count++] = (viz_entry){"peak of the rank", {job->theme->mark}, 1};
}

static pp_status draw_curves(const viz_job *job, viz_canvas *canvas, const viz_view *view,
                             viz_page *page, double full, pp_error *error) {
    viz_frame frame;
    char text[32];
    page->pitch = viz_pitch(page->ranks, 560, 13, 72);
    page->low = view->start_s;
    page->high = view->end_s;
    page->plot_width = viz_bands_width(view, 1);
    snprintf(page->axis_note, sizeof page->axis_note, "full height of a row: %s",
             pp_format_bytes(full, text));
    curve_legend(job, page);
    PP_TRY(viz_frame_across(canvas, page, job->theme, job->size, &frame, error));
    PP_TRY(viz_frame_down(canvas, page, job->theme, job->size, &frame, error));
    int count = (int)(frame.plot.width / COLUMN);
    double *columns = PP_NEW(job->arena, double, count);
    if (!columns) return pp_fail_memory(error);
    for (int row = 0; row < frame.rows; row++) {
        viz_rect band = viz_frame_band(&frame, row, 0);
        double peak_s = trace_curve(view, row * frame.step, &frame.axis, columns, count);
        draw_curve(canvas, job, &frame.axis, band, columns, count, full);
        double x = fmin(viz_axis_at(&frame.axis, peak_s), frame.axis.right - 1);
        viz_fill(canvas, (viz_rect){x, band.y, 1, band.height}, job->theme->mark);
    }
    return PP_OK;
}

/* ---- bars ---------------------------------------------------------------------------------- */

static pp_status draw_bars(const viz_job *job, viz_canvas *canvas, const viz_view *view,
                           viz_page *page, double full, pp_error *error) {
    viz_frame frame;
    page->pitch = viz_pitch(page->ranks, 416, 13, 24);
    page->high = full;
    page->bytes = true;
    page->plot_width = 480;
    page->entries[page->entry_count++] =
        (viz_entry){"largest number of bytes held at once", {fill_colour(job)}, 1};
    PP_TRY(viz_frame_across(canvas, page, job->theme, job->size, &frame, error));
    PP_TRY(viz_frame_down(canvas, page, job->theme, job->size, &frame, error));
    for (int row = 0; row < frame.rows; row++) {
        viz_rect band = viz_frame_band(&frame, row, 0);
        double bytes = (double)view->trace->rank[row * frame.step].peak_bytes;
        band.width = viz_axis_at(&frame.axis, fmax(bytes, 0)) - band.x;
        viz_fill(canvas, band, fill_colour(job));
    }
    return PP_OK;
}

pp_status viz_memory(const viz_job *job, viz_canvas *canvas, pp_error *error) {
    const pp_trace *trace = job->traces[0];
    viz_view view;
    viz_page page = {.lines = 1, .pitch_least = 2};
    PP_TRY(viz_view_make(trace, job->arena, &view, error));
    PP_TRY(check_points(trace, error));
    int64_t most = largest(trace);
    if (most < 0)
        return pp_fail(error, PP_E_INPUT, trace->title,
                       "the trace does not say how much memory its ranks used");
    page.ranks = trace->ranks;
    head(trace, most, &page);
    viz_canvas_title(canvas, page.title);
    PP_TRY(add_peaks(&view, &page, job->arena, error));
    return (trace->point_count > 0 ? draw_curves : draw_bars)(job, canvas, &view, &page,
                                                              (double)most, error);
}
