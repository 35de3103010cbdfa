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

/* Position in the tables, or -1. */
static int find_chart(const char *name) {
    for (int i = 0; i < CHART_COUNT; i++)
        if (strcmp(name, charts[i].name) == 0) return i;
    return -1;
}

static pp_status fail_unknown(const char *name, pp_error *error) {
    if (strcmp(name, "sweep") == 0)
        return pp_fail(error, PP_E_INPUT, name, "this chart takes a sweep, and no trace");
    char known[256] = "";
    for (int i = 0; i < CHART_COUNT; i++) {
        if (i > 0) strcat(known, ", ");
        strcat(known, charts[i].name);
    }
    return pp_fail(error, PP_E_INPUT, name, "there is no such chart; choose one of: %s, sweep",
                   known);
}

static pp_status fail_trace_count(const pp_chart *chart, int trace_count, pp_error *error) {
    const char *plural = chart->traces == 1 ? "" : "s";
    return pp_fail(error, PP_E_INPUT, chart->name,
                   "this chart takes %d plan%s or trace%s, but got %d%s", chart->traces, plural,
                   plural, trace_count,
                   chart->traces == 2 ? "; give the prediction, then the measurement" : "");
}

pp_status viz_chart_draw(const char *chart, const pp_trace *const *traces, int trace_count,
                         const double size[2], bool dark, viz_canvas *canvas, pp_error *error) {
    pp_arena arena;
    int index = find_chart(chart);
    *canvas = (viz_canvas){0};
    if (index < 0) return fail_unknown(chart, error);
    if (trace_count != charts[index].traces)
        return fail_trace_count(&charts[index], trace_count, error);
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

pp_status viz_sweep_draw(const pp_sweep *sweep, const double size[2], bool dark, viz_canvas *canvas,
                         pp_error *error) {
    *canvas = (viz_canvas){0};
    PP_TRY(viz_canvas_init(canvas, error));
    PP_TRY(viz_sweep(sweep, viz_theme_get(dark), size, canvas, error));
    return canvas->failed || canvas->arena.failed ? pp_fail_memory(error) : PP_OK;
}

pp_status pp_render_sweep(const pp_sweep *sweep, const char *path, const pp_render_options *options,
                          pp_text *image, pp_error *error) {
    const viz_format *format;
    viz_canvas canvas;
    PP_TRY(viz_format_find(path, &format, error));
    double size[2] = {options ? options->width / format->scale : 0,
                      options ? options->height / format->scale : 0};
    pp_status status = viz_sweep_draw(sweep, size, options && options->dark, &canvas, error);
    if (status == PP_OK) status = viz_canvas_write(&canvas, format, image, error);
    viz_canvas_deinit(&canvas);
    if (status != PP_OK) pp_text_deinit(image);
    return status;
}
