/* ppsim import: a profile that another program has measured, or a model's configuration, becomes a
 * model document. */
#include "cli/cli.h"
#include "profiles/profiles.h"

#include <string.h>

typedef struct import_settings {
    pp_import_options options;
    const char *out;
    bool list;
} import_settings;

static const pp_option options[] = {
    {0, "profile-batch", NULL, "N", NULL, PP_OPTION_SIZE,
     offsetof(import_settings, options.profile_batch),
     "samples that the profiled minibatch held; without it the minibatch counts as one sample"},
    {0, "layers", NULL, "N", NULL, PP_OPTION_COUNT, offsetof(import_settings, options.layers),
     "aceso: repeat the layer whose operators were profiled N times"},
    {0, "tp", NULL, "T", NULL, PP_OPTION_COUNT, offsetof(import_settings, options.tp),
     "piper: take the costs of one of T tensor-parallel devices (default: 1)"},
    {0, "out", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(import_settings, out),
     "write the model here; without it, to standard output"},
    {0, "list", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(import_settings, list),
     "list the formats"},
};

static void list_formats(pp_text *text) {
    const pp_importer *importer;
    for (int i = 0; (importer = pp_importer_at(i)); i++)
        pp_text_printf(text, "%s: %s\n  %s\n", importer->name, importer->summary, importer->shape);
}

/* "vgg16: 40 layers, 39 edges; a sample takes …", "llama: 34 layers, 33 edges; 6738415616
 * parameters" */
static void summarise(const pp_model *model, pp_text *text) {
    double forward_s = 0, backward_s = 0, parameters = 0;
    char forward[32], backward[32], bytes[32];
    int opaque = 0;
    for (int i = 0; i < model->layer_count; i++) {
        const pp_layer *layer = &model->layers[i];
        opaque += layer->op == PP_OP_OPAQUE;
        forward_s += layer->forward_s;
        backward_s += layer->input_s + layer->weight_s;
        parameters += (double)layer->parameter_bytes;
    }
    pp_text_printf(text, "%s: %d layers, %d edges", model->name, model->layer_count,
                   model->edge_count);
    if (opaque == model->layer_count)
        pp_text_printf(text, "; a sample takes %s forward, %s backward; parameters %s",
                       pp_format_seconds(forward_s, forward),
                       pp_format_seconds(backward_s, backward), pp_format_bytes(parameters, bytes));
    else
        pp_text_printf(text, "; %lld parameters", (long long)pp_model_parameters(model));
    pp_text_string(text, "\n");
}

static void print_model(const pp_model *model, pp_text *text) {
    pp_json json = pp_json_start(text);
    pp_model_write(model, &json);
    pp_text_string(text, "\n");
}

static pp_status write_model(const pp_model *model, const char *path, pp_output *output,
                             pp_error *error) {
    pp_text text = {0};
    if (!path || strcmp(path, "-") == 0) {
        print_model(model, &output->out);
        return PP_OK;
    }
    print_model(model, &text);
    pp_status status = pp_file_write(path, &text, error);
    pp_text_deinit(&text);
    if (status == PP_OK) summarise(model, &output->out);
    return status;
}

static pp_status run_import(const void *settings_, const char *const *arguments, int count,
                            pp_output *output, pp_error *error) {
    const import_settings *settings = settings_;
    pp_model *model;
    if (settings->list) {
        list_formats(&output->out);
        return PP_OK;
    }
    if (count != 2)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "ppsim import needs a FORMAT and a FILE; 'ppsim import --list' shows the "
                       "formats");
    PP_TRY(pp_check_output(settings->out, &arguments[1], 1, error));
    PP_TRY(pp_import_file(arguments[0], arguments[1], &settings->options, &model, error));
    pp_status status = write_model(model, settings->out, output, error);
    pp_model_free(model);
    return status;
}

const pp_subcommand pp_cmd_import = {
    .name = "import",
    .arguments = "FORMAT FILE",
    .maximum_arguments = 2,
    .summary = "makes a model of another program's profile or configuration",
    .description =
        "FORMAT is one of those that --list shows. Of a profile the layers become opaque ones, "
        "with "
        "seconds and bytes per sample; branches stay branches. A backward time that was measured "
        "undivided is halved into its input and weight parts, and the plan says so. Of a "
        "configuration (hf) they have their dimensions, from which costs follow.",
    PP_OPTIONS(options),
    .settings_size = sizeof(import_settings),
    .run = run_import,
};
