/* The table of charts, and pp_render: from traces to the bytes of a picture. A new chart is a file
 * with a viz_<name> function and a row here. */
#include "viz/chart_internal.h"

#include <assert.h>
#include <string.h>

/* name, function, traces, summary */
#define CHARTS(X)                                                                                  \
    X("timeline", viz_timeline, 1, "what each rank does when: rows are ranks, time to the right")  \
    X("memory", viz_memory, 1, "what each rank holds over time, or its peak")                      \
    X("compare", viz_compare, 2, "prediction above measurement for each rank, on one time axis")

static const pp_chart charts[] = {
#define X(name, draw, traces, summary) {name, summary, traces},
    CHARTS(X)
#undef X
};

static pp_status (*const draw_functions[])(const viz_job *, viz_canvas *, pp_error *) = {
#define X(name, draw, traces, summary) draw,
    CHARTS(X)
#undef X
};

enum { CHART_COUNT = sizeof charts / sizeof *charts };

const pp_chart *pp_charts(int *count) {
    *count = CHART_COUNT;
    return charts;
}

const char *pp_cairo_version(void) {
    return cairo_version_string();
}

static pp_status find_chart(const char *name, int trace_count, int *index, pp_error *error) {
    char known[256] = "";
    for (int i = 0; i < CHART_COUNT; i++) {
        if (strcmp(name, charts[i].name) == 0) {
            *index = i;
            if (trace_count == charts[i].traces) return PP_OK;
            return pp_fail(
                error, PP_E_INPUT, name, "this chart takes %d plan%s or trace%s, but got %d%s",
                charts[i].traces, charts[i].traces == 1 ? "" : "s",
                charts[i].traces == 1 ? "" : "s", trace_count,
                charts[i].traces == 2 ? "; give the prediction, then the measurement" : "");
        }
        if (i > 0) strcat(known, ", ");
        strcat(known, charts[i].name);
    }
    return pp_fail(error, PP_E_INPUT, name, "there is no such chart; choose one of: %s", known);
}

pp_status viz_chart_draw(const char *chart, const pp_trace *const *traces, int trace_count,
                         const double size[2], bool dark, viz_canvas *canvas, pp_error *error) {
    pp_arena arena;
    int index;
    *canvas = (viz_canvas){0};
    PP_TRY(find_chart(chart, trace_count, &index, error));
    PP_TRY(viz_canvas_init(canvas, error));
    pp_arena_init(&arena);
    viz_job job = {traces, viz_theme_get(dark), {size[0], size[1]}, &arena};
    pp_status status = draw_functions[index](&job, canvas, error);
    if (status == PP_OK && (canvas->failed || canvas->arena.failed)) status = pp_fail_memory(error);
    pp_arena_deinit(&arena);
    return status;
}

pp_status pp_render(const char *chart, const pp_trace *const *traces, int trace_count,
                    const char *path, const pp_render_options *options, pp_text *image,
                    pp_error *error) {
    const viz_format *format;
    viz_canvas canvas;
    PP_TRY(viz_format_find(path, &format, error));
    double size[2] = {options ? options->width / format->scale : 0,
                      options ? options->height / format->scale : 0};
    pp_status status =
        viz_chart_draw(chart, traces, trace_count, size, options && options->dark, &canvas, error);
    if (status == PP_OK) status = viz_canvas_write(&canvas, format, image, error);
    viz_canvas_deinit(&canvas);
    if (status != PP_OK) pp_text_deinit(image); /* no half pictures */
    return status;
}
