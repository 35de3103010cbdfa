/* Prediction above measurement: each rank has two bands on one time axis, and the ends of both
 * steps are marked, so that one sees where time was lost and not only how much. */
#include "viz/chart_internal.h"

#include <math.h>
#include <stdio.h>

/* "+3.3 %" of b over a; "" where a is 0. */
static const char *difference(double a, double b, char buffer[32]) {
    char percent[32];
    buffer[0] = '\0';
    if (a > 0)
        snprintf(buffer, 32, "%s%.24s", b >= a ? "+" : "−",
                 viz_percent_text(fabs(b - a) / a, percent));
    return buffer;
}

static void names(const viz_view views[2], const char *name[2]) {
    bool apart = views[0].trace->measured != views[1].trace->measured;
    for (int i = 0; i < 2; i++)
        name[i] = !apart                     ? i == 0 ? "first" : "second"
                  : views[i].trace->measured ? "measured"
                                             : "predicted";
}

static void head(const viz_view views[2], const char *const name[2], viz_page *page) {
    const pp_trace *a = views[0].trace, *b = views[1].trace;
    char first[32], second[32], change[32], order[64];
    snprintf(page->title, sizeof page->title, "%s", b->title[0] ? b->title : a->title);
    snprintf(order, sizeof order, "above: %s, below: %s", name[0], name[1]);
    viz_describe(a, order, page->subtitle, sizeof page->subtitle);
    snprintf(page->figure, sizeof page->figure, "step %.28s",
             difference(a->makespan_s, b->makespan_s, change));
    snprintf(page->figure_note, sizeof page->figure_note, "bubble %.28s → %.28s",
             viz_percent_text(a->bubble_fraction, first),
             viz_percent_text(b->bubble_fraction, second));
    snprintf(page->axis_note, sizeof page->axis_note, "%s %.16s · %s %.16s (%s%.16s)", name[0],
             viz_seconds_text(a->makespan_s, first), name[1],
             viz_seconds_text(b->makespan_s, second), b->makespan_s >= a->makespan_s ? "+" : "−",
             viz_seconds_text(fabs(b->makespan_s - a->makespan_s), change));
}

/* Where each step ends: the first dashed, the second solid, what lies between as a bar on top. */
static void mark_ends(viz_canvas *canvas, const viz_theme *theme, const viz_frame *frame,
                      const viz_view views[2]) {
    double a = viz_axis_at(&frame->axis, views[0].trace->makespan_s);
    double b = viz_axis_at(&frame->axis, views[1].trace->makespan_s);
    double top = frame->plot.y - 3, height = frame->plot.height + 3;
    for (double y = 0; y < height; y += 5)
        viz_fill(canvas, (viz_rect){a - 0.5, top + y, 1, fmin(3, height - y)}, theme->mark);
    viz_fill(canvas, (viz_rect){b - 0.5, top, 1, height}, theme->mark);
    viz_fill(canvas, (viz_rect){fmin(a, b) - 0.5, top - 1, fabs(b - a) + 1, 2}, theme->mark);
}

static pp_status check_pair(const viz_view views[2], pp_error *error) {
    const pp_trace *a = views[0].trace, *b = views[1].trace;
    if (a->ranks == b->ranks) return PP_OK;
    return pp_fail(error, PP_E_INPUT, NULL,
                   "the two traces cannot be compared: the first has %d ranks, the second %d",
                   a->ranks, b->ranks);
}

pp_status viz_compare(const viz_job *job, viz_canvas *canvas, pp_error *error) {
    viz_view views[2];
    viz_page page = {.lines = 2, .pitch_least = 4};
    viz_frame frame;
    const char *name[2];
    bool swap = job->traces[0]->measured && !job->traces[1]->measured;
    for (int i = 0; i < 2; i++)
        PP_TRY(viz_view_make(job->traces[swap ? 1 - i : i], job->arena, &views[i], error));
    PP_TRY(check_pair(views, error));
    names(views, name);
    head(views, name, &page);
    page.ranks = views[0].trace->ranks;
    page.pitch = viz_pitch(page.ranks, 720, 24, 50);
    page.low = fmin(views[0].start_s, views[1].start_s);
    page.high = fmax(views[0].end_s, views[1].end_s);
    page.plot_width = viz_bands_width(views, 2);
    if (page.ranks <= 8) page.line_names[0] = name[0], page.line_names[1] = name[1];
    PP_TRY(viz_add_columns(views, 2, job->arena, &page, error));
    PP_TRY(viz_frame_across(canvas, &page, job->theme, job->size, &frame, error));
    viz_bands bands = viz_bands_plan(canvas, job->theme, &frame.axis, views, 2);
    viz_bands_legend(canvas, &bands, views, 2, &page);
    PP_TRY(viz_frame_down(canvas, &page, job->theme, job->size, &frame, error));
    viz_canvas_title(canvas, page.title);
    for (int row = 0; row < frame.rows; row++)
        for (int i = 0; i < 2; i++)
            viz_band_draw(canvas, &bands, &views[i], row * frame.step,
                          viz_frame_band(&frame, row, i));
    mark_ends(canvas, job->theme, &frame, views);
    return PP_OK;
}
