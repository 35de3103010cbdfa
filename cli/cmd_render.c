/* ppsim render: draws a plan (simulated first), a trace or a sweep. */
#include "cli/cli.h"
#include "sim/sim.h"
#include "viz/viz.h"

#include <string.h>

typedef struct render_settings {
    const char *out, *what;
    double width, height;
    bool dark;
} render_settings;

static const pp_option options[] = {
    {'o', "out", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(render_settings, out),
     "the picture: .png, .svg or .pdf"},
    {0, "what", NULL, "CHART", NULL, PP_OPTION_STRING, offsetof(render_settings, what),
     "timeline (default), memory, compare (give a plan and a trace of its run), or sweep (give the "
     "output of 'ppsim plan --sweep … --json')"},
    {0, "width", NULL, "W", NULL, PP_OPTION_FACTOR, offsetof(render_settings, width),
     "width in pixels or points (default: from the content)"},
    {0, "height", NULL, "H", NULL, PP_OPTION_FACTOR, offsetof(render_settings, height),
     "height in pixels or points"},
    {0, "dark", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(render_settings, dark), "light on dark"},
};

static pp_status trace_of_plan(const pp_text *file, const char *path, pp_trace **trace,
                               pp_error *error) {
    pp_plan *plan;
    pp_sim_result *result = NULL;
    PP_TRY(pp_plan_read(file->bytes, file->length, path, &plan, error));
    pp_status status = pp_simulate_plan(plan, true, NULL, &result, error);
    status = pp_in_document(status, path, error);
    if (status == PP_OK) {
        *trace = result->trace;
        result->trace = NULL; /* ours now */
    }
    pp_sim_result_free(result);
    pp_plan_free(plan);
    return status;
}

static pp_status open_trace(const char *path, pp_trace **trace, pp_error *error) {
    pp_text file;
    PP_TRY(pp_file_read(path, PP_FILE_LIMIT_BYTES, &file, error));
    pp_status status = pp_trace_recognise(file.bytes, file.length)
                           ? pp_trace_read(file.bytes, file.length, path, trace, error)
                           : trace_of_plan(&file, path, trace, error);
    pp_text_deinit(&file);
    return status;
}

static pp_status draw_sweep(const char *path, const char *out, const pp_render_options *look,
                            pp_text *image, pp_error *error) {
    pp_text file;
    pp_sweep *sweep;
    PP_TRY(pp_file_read(path, PP_FILE_LIMIT_BYTES, &file, error));
    pp_status status = pp_sweep_read(file.bytes, file.length, path, &sweep, error);
    pp_text_deinit(&file);
    if (status == PP_OK) status = pp_render_sweep(sweep, out, look, image, error);
    pp_sweep_free(sweep);
    return status;
}

static pp_status draw_traces(const char *chart, const char *const *paths, int count,
                             const char *out, const pp_render_options *look, pp_text *image,
                             pp_error *error) {
    pp_trace *traces[2] = {NULL, NULL};
    pp_status status = PP_OK;
    for (int i = 0; i < count && status == PP_OK; i++)
        status = open_trace(paths[i], &traces[i], error);
    if (status == PP_OK)
        status = pp_render(chart, (const pp_trace *const *)traces, count, out, look, image, error);
    for (int i = 0; i < 2; i++) pp_trace_free(traces[i]);
    return status;
}

static pp_status run_render(const void *settings_, const char *const *arguments, int count,
                            pp_output *output, pp_error *error) {
    const render_settings *settings = settings_;
    pp_render_options look = {settings->width, settings->height, settings->dark};
    const char *chart = settings->what ? settings->what : "timeline";
    bool sweep = strcmp(chart, "sweep") == 0;
    pp_text image = {0};
    (void)output;
    if (!settings->out)
        return pp_fail(error, PP_E_INPUT, NULL, "ppsim render needs -o FILE (.png, .svg or .pdf)");
    if (sweep && count != 1)
        return pp_fail(error, PP_E_INPUT, arguments[1], "is one file too many: a sweep is one");
    PP_TRY(pp_check_output(settings->out, arguments, count, error));
    pp_status status =
        sweep ? draw_sweep(arguments[0], settings->out, &look, &image, error)
              : draw_traces(chart, arguments, count, settings->out, &look, &image, error);
    if (status == PP_OK) status = pp_file_write(settings->out, &image, error);
    pp_text_deinit(&image);
    return status;
}

const pp_subcommand pp_cmd_render = {
    .name = "render",
    .arguments = "PLAN|TRACE|SWEEP [TRACE]",
    .minimum_arguments = 1,
    .maximum_arguments = 2,
    .summary = "draws the timeline of a plan or of a measured run, or a sweep",
    .description = "A plan is simulated first; a trace is one that 'ppsim run --trace' or 'ppsim "
                   "simulate --trace' wrote. The file's ending chooses PNG, SVG or PDF.",
    PP_OPTIONS(options),
    .settings_size = sizeof(render_settings),
    .run = run_render,
};
