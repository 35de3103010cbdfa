/* The timeline: rows are ranks, time goes to the right. Beside each row how busy the rank was and
 * how much memory it needed. */
#include "viz/chart_internal.h"

#include <math.h>
#include <stdio.h>

static void head(const viz_view *view, viz_page *page) {
    const pp_trace *trace = view->trace;
    char text[32];
    snprintf(page->title, sizeof page->title, "%s",
             trace->title[0] ? trace->title : "Training step");
    viz_describe(trace, trace->measured ? "measured" : "simulated", page->subtitle,
                 sizeof page->subtitle);
    snprintf(page->figure, sizeof page->figure, "bubble %s",
             viz_percent_text(trace->bubble_fraction, text));
    snprintf(page->figure_note, sizeof page->figure_note, "step takes %s",
             viz_seconds_text(trace->makespan_s, text));
}

pp_status viz_timeline(const viz_job *job, viz_canvas *canvas, pp_error *error) {
    viz_view view;
    viz_page page = {.lines = 1, .pitch_least = 2};
    viz_frame frame;
    PP_TRY(viz_view_make(job->traces[0], job->arena, &view, error));
    head(&view, &page);
    page.ranks = view.trace->ranks;
    page.pitch = viz_pitch(page.ranks, 416, 13, 28);
    page.low = view.start_s;
    page.high = view.end_s;
    page.plot_width = viz_bands_width(&view, 1);
    PP_TRY(viz_add_columns(&view, 1, job->arena, &page, error));
    PP_TRY(viz_frame_across(canvas, &page, job->theme, job->size, &frame, error));
    viz_bands bands = viz_bands_plan(canvas, job->theme, &frame.axis, &view, 1);
    viz_bands_legend(canvas, &bands, &view, 1, &page);
    PP_TRY(viz_frame_down(canvas, &page, job->theme, job->size, &frame, error));
    viz_canvas_title(canvas, page.title);
    for (int row = 0; row < frame.rows; row++)
        viz_band_draw(canvas, &bands, &view, row * frame.step, viz_frame_band(&frame, row, 0));
    return PP_OK;
}
