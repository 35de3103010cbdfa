/* ppsim export: a plan as the files and flags with which another system runs it. */
#include "cli/export_internal.h"
#include "sim/sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A system is a file export_NAME.c and a row here. */
static const pp_exporter exporters[] = {
    {"pytorch",
     "PyTorch",
     "torch.distributed.pipelining of 2.9",
     {"pipeline.py", "schedule.csv"},
     pp_export_pytorch},
    {"megatron", "Megatron-LM", "Megatron Core 0.14", {"megatron.sh"}, pp_export_megatron},
    {"deepspeed",
     "DeepSpeed",
     "DeepSpeed 0.17",
     {"pipeline.py", "ds_config.json"},
     pp_export_deepspeed},
    {"vllm", "vLLM", "vLLM 0.11", {"vllm.sh"}, pp_export_vllm},
};
enum { EXPORTERS = sizeof exporters / sizeof *exporters };

typedef struct export_settings {
    const char *out;
    bool list;
} export_settings;

static const pp_option options[] = {
    {0, "out", NULL, "PATH", NULL, PP_OPTION_STRING, offsetof(export_settings, out),
     "write the file there, or, of systems that take two, into this folder; without it, to "
     "standard output"},
    {0, "list", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(export_settings, list),
     "list the systems"},
};

static void list_systems(pp_text *text) {
    pp_table table = pp_table_start("lll");
    for (int i = 0; i < EXPORTERS; i++) {
        const char *second = exporters[i].files[1];
        pp_table_cell(&table, "%s", exporters[i].name);
        pp_table_cell(&table, "written for %s", exporters[i].version);
        pp_table_cell(&table, "%s%s%s", exporters[i].files[0], second ? ", " : "",
                      second ? second : "");
    }
    pp_table_print(&table, text);
}

static pp_status find_exporter(const char *name, const pp_exporter **found, pp_error *error) {
    for (int i = 0; i < EXPORTERS; i++)
        if (strcmp(exporters[i].name, name) == 0) {
            *found = &exporters[i];
            return PP_OK;
        }
    char known[100] = "";
    for (int i = 0; i < EXPORTERS; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i > 0 ? ", " : "",
                 exporters[i].name);
    return pp_fail(error, PP_E_INPUT, name, "is no system that plans are exported to; known: %s",
                   known);
}

/* ---- output --------------------------------------------------------------------------------- */

static void print_files(const pp_exporter *exporter, pp_export *e, pp_text *text) {
    for (int i = 0; i < PP_EXPORT_FILES && exporter->files[i]; i++) {
        if (exporter->files[1])
            pp_text_printf(text, "%s# ---- %s ----\n", i > 0 ? "\n" : "", exporter->files[i]);
        pp_text_append(text, e->files[i].bytes, e->files[i].length);
        text->failed |= e->files[i].failed;
    }
}

static pp_status write_folder(const pp_exporter *exporter, pp_export *e, const char *folder,
                              pp_error *error) {
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
        int reason = errno;
        pp_fail(error, PP_E_INPUT, folder, "cannot be made a folder");
        return pp_fail_cause(error, strerror(reason));
    }
    for (int i = 0; i < PP_EXPORT_FILES && exporter->files[i]; i++) {
        const char *path = pp_arena_printf(&e->arena, "%s/%s", folder, exporter->files[i]);
        if (!path) return pp_fail_memory(error);
        PP_TRY(pp_file_write(path, &e->files[i], error));
    }
    return PP_OK;
}

static pp_status write_files(const pp_exporter *exporter, pp_export *e, const char *out,
                             pp_output *output, pp_error *error) {
    if (!out || strcmp(out, "-") == 0) {
        print_files(exporter, e, &output->out);
        return PP_OK;
    }
    if (exporter->files[1]) return write_folder(exporter, e, out, error);
    return pp_file_write(out, &e->files[0], error);
}

/* ---- the subcommand ------------------------------------------------------------------------- */

static pp_status export_plan(const pp_exporter *exporter, const pp_plan *plan, const char *path,
                             const char *out, pp_output *output, pp_error *error) {
    pp_schedule *schedule;
    PP_TRY(pp_in_document(pp_plan_expand(plan, &schedule, error), path, error));
    pp_export e = {.plan = plan, .schedule = schedule, .system = exporter->system, .error = error};
    pp_arena_init(&e.arena);
    pp_status status = exporter->write(&e);
    if (status == PP_OK) status = write_files(exporter, &e, out, output, error);
    if (status == PP_E_UNSUPPORTED && error->place[0] == '\0')
        snprintf(error->place, sizeof error->place, "%s", path);
    for (int i = 0; i < PP_EXPORT_FILES; i++) pp_text_deinit(&e.files[i]);
    pp_arena_deinit(&e.arena);
    pp_schedule_free(schedule);
    return status;
}

static pp_status run_export(const void *settings_, const char *const *arguments, int count,
                            pp_output *output, pp_error *error) {
    const export_settings *settings = settings_;
    const pp_exporter *exporter = NULL;
    pp_plan *plan;
    if (settings->list) {
        list_systems(&output->out);
        return PP_OK;
    }
    if (count != 2)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "ppsim export needs a SYSTEM and a PLAN; 'ppsim export --list' shows the "
                       "systems");
    PP_TRY(find_exporter(arguments[0], &exporter, error));
    if (!exporter->files[1]) PP_TRY(pp_check_output(settings->out, &arguments[1], 1, error));
    PP_TRY(pp_plan_open(arguments[1], &plan, error));
    pp_status status = export_plan(exporter, plan, arguments[1], settings->out, output, error);
    pp_plan_free(plan);
    return status;
}

const pp_subcommand pp_cmd_export = {
    .name = "export",
    .arguments = "SYSTEM PLAN",
    .maximum_arguments = 2,
    .summary = "writes the files and flags with which another system runs a plan",
    .description =
        "SYSTEM is one of those that --list shows. What it cannot run is refused with the "
        "reason; what it can run but not be told is said on stderr.",
    PP_OPTIONS(options),
    .settings_size = sizeof(export_settings),
    .run = run_export,
};
