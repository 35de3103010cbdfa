/* Profiles of other programs as models: the table of importers, and what all have in common. */
#include "profiles/import_internal.h"

#include <stdio.h>
#include <string.h>

/* A format is a file import_NAME.c and a row here. */
static const pp_import_row rows[] = {
    {{"pipedream", "PipeDream's profiler: graph.txt",
      "nodeN -- description -- forward_compute_time=ms, backward_compute_time=ms, "
      "activation_size=bytes, parameter_size=bytes; then indented edges nodeA -- nodeB"},
     .read = pp_import_pipedream},
    {{"dapple", "DAPPLE's profiles: the same with fewer digits, named MODEL-pbs-BATCH.txt",
      "as pipedream; edges may be indented by blanks"},
     .read = pp_import_pipedream},
    {{"aceso", "Aceso's operator profiles: MODEL_mbsB_tpT_algoA.csv",
      "op_name,forward-compute,backward-compute (us),input_size,output_size,weights,activations,"
      "fwd_reserved,bwd_reserved (MiB)"},
     .takes_layers = true,
     .read = pp_import_aceso},
    {{"piper", "Piper's inputs: JSON with costs per tensor-parallel width",
      "{\"nodes\": [{\"id\", \"name\", \"TMPCs\": {\"1\": [{\"timePerSample\": s, "
      "\"parameterSize\", \"memoryUsageA\": bytes}]}}], \"edges\": [{\"sourceId\", \"destId\", "
      "\"communicationCost\": bytes}]}"},
     .takes_tp = true,
     .read = pp_import_piper},
    {{"layers", "anything else: a CSV with a row per layer of a chain",
      "layer,forward_ms,backward_ms,parameter_bytes,activation_bytes,output_bytes"},
     .read = pp_import_layers},
    {{"hf", "Hugging Face's config.json of GPT-2, Llama, Mistral, Qwen2 and BERT models",
      "{\"model_type\": \"llama\", \"hidden_size\": 4096, \"num_hidden_layers\": 32, …}; costs "
      "follow from the dimensions"},
     .measures_nothing = true,
     .read = pp_import_hf},
};
enum { ROWS = sizeof rows / sizeof *rows };

const pp_importer *pp_importer_at(int index) {
    return index >= 0 && index < ROWS ? &rows[index].importer : NULL;
}

static const pp_import_row *find_row(const char *format) {
    for (int i = 0; i < ROWS; i++)
        if (strcmp(rows[i].importer.name, format) == 0) return &rows[i];
    return NULL;
}

static pp_status fail_unknown(const char *format, pp_error *error) {
    char known[200] = "";
    for (int i = 0; i < ROWS; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i > 0 ? ", " : "",
                 rows[i].importer.name);
    return pp_fail(error, PP_E_INPUT, NULL, "there is no format '%.60s' to import; known: %s",
                   format, known);
}

/* ---- the name of the model ------------------------------------------------------------------ */

typedef struct span {
    const char *start;
    int length;
} span;

/* "b" of "a/b", and the path in front of it. */
static span last_part(span path, span *folder) {
    int start = path.length;
    while (start > 0 && path.start[start - 1] != '/') start--;
    *folder = (span){path.start, start > 0 ? start - 1 : 0};
    return (span){path.start + start, path.length - start};
}

/* The file's name without its ending; who calls every file graph.txt or config.json puts it into a
 * folder that says the model's. */
static span name_of_file(const char *file_name) {
    span folder, rest, name = last_part((span){file_name, (int)strlen(file_name)}, &folder);
    const char *point = memrchr(name.start, '.', (size_t)name.length);
    if (point && point > name.start) name.length = (int)(point - name.start);
    span above = last_part(folder, &rest);
    bool generic = (name.length == 5 && memcmp(name.start, "graph", 5) == 0) ||
                   (name.length == 6 && memcmp(name.start, "config", 6) == 0);
    return generic && above.length > 0 && *above.start != '.' ? above : name;
}

static const char *model_name(const char *file_name, char buffer[128]) {
    span name = name_of_file(file_name);
    int length = 0;
    for (int i = 0; i < name.length && length < 100; i++)
        if (name.start[i] > ' ' && name.start[i] <= '~') buffer[length++] = name.start[i];
    buffer[length] = '\0';
    return length > 0 && strcmp(buffer, "-") != 0 ? buffer : "imported";
}

/* ---- importing ------------------------------------------------------------------------------ */

/* The model as its document gives it back: what was imported can be read again, whatever the file
 * held, and here is where it is refused if not. */
static pp_status through_document(const pp_import_source *source, pp_model **model) {
    pp_model *made = *model;
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_model_write(made, &json);
    pp_model_free(made);
    *model = NULL;
    pp_status status = text.failed ? pp_fail_memory(source->error)
                                   : pp_model_read(text.bytes, text.length, source->file_name,
                                                   model, source->error);
    pp_text_deinit(&text);
    return status;
}

/* Options that the format knows nothing of are refused, not passed over. */
static pp_status check_options(const pp_import_row *row, const pp_import_options *options,
                               pp_error *error) {
    bool batch = options->profile_batch && row->measures_nothing;
    const char *flaw = options->layers && !row->takes_layers ? "--layers"
                       : options->tp && !row->takes_tp       ? "--tp"
                       : batch                               ? "--profile-batch"
                                                             : NULL;
    if (!flaw) return PP_OK;
    return pp_fail(error, PP_E_INPUT, flaw, "does not go with the format %s", row->importer.name);
}

pp_status pp_import_text(const char *format, const char *text, size_t length, const char *file_name,
                         const pp_import_options *options, pp_model **model, pp_error *error) {
    static const char mark[] = "\xEF\xBB\xBF";
    char name[128];
    pp_import_options filled = options ? *options : (pp_import_options){0};
    pp_import_source source = {.text = text,
                               .length = length,
                               .file_name = file_name,
                               .model_name = model_name(file_name, name),
                               .options = &filled,
                               .error = error};
    const pp_import_row *row = find_row(format);
    *model = NULL;
    if (!row) return fail_unknown(format, error);
    PP_TRY(check_options(row, &filled, error));
    if (filled.profile_batch < 1) filled.profile_batch = 1;
    if (filled.layers < 1) filled.layers = 1;
    if (filled.tp < 1) filled.tp = 1;
    if (length >= 3 && memcmp(text, mark, 3) == 0) source.text += 3, source.length -= 3;
    PP_TRY(pp_import_check_text(&source));
    PP_TRY(row->read(&source, model));
    return through_document(&source, model);
}

pp_status pp_import_file(const char *format, const char *path, const pp_import_options *options,
                         pp_model **model, pp_error *error) {
    pp_text text;
    *model = NULL;
    if (!find_row(format)) return fail_unknown(format, error);
    PP_TRY(pp_file_read(path, PP_IMPORT_LIMIT_BYTES, &text, error));
    pp_status status = pp_import_text(format, text.bytes ? text.bytes : "", text.length, path,
                                      options, model, error);
    pp_text_deinit(&text);
    return status;
}
