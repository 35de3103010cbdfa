/* ppsim models | clusters | schedules: what is known by name, and one of them in full. */
#include "cli/cli.h"
#include "sim/sim.h"

#include <string.h>

/* "show NAME" or nothing; *name is NULL for the list. */
static pp_status shown_name(const char *const *arguments, int count, const char **name,
                            pp_error *error) {
    *name = NULL;
    if (count == 0) return PP_OK;
    if (strcmp(arguments[0], "show") != 0 || count != 2)
        return pp_fail(error, PP_E_INPUT, arguments[0], "expected nothing, or 'show NAME'");
    *name = arguments[1];
    return PP_OK;
}

static void list_presets(const pp_preset *presets, int count, pp_text *text) {
    pp_table table = pp_table_start("lll");
    for (int i = 0; i < count; i++) {
        pp_table_cell(&table, "%s", presets[i].name);
        pp_table_cell(&table, "%s", presets[i].summary);
        pp_table_cell(&table, "%s", presets[i].source ? presets[i].source : "");
    }
    pp_table_print(&table, text);
}

static pp_status run_models(const void *settings, const char *const *arguments, int count,
                            pp_output *output, pp_error *error) {
    (void)settings;
    const char *name;
    pp_model *model;
    PP_TRY(shown_name(arguments, count, &name, error));
    if (!name) {
        int presets;
        const pp_preset *table = pp_model_presets(&presets);
        list_presets(table, presets, &output->out);
        return PP_OK;
    }
    PP_TRY(pp_model_open(name, &model, error));
    pp_json json = pp_json_start(&output->out);
    pp_model_write(model, &json);
    pp_text_string(&output->out, "\n");
    pp_model_free(model);
    return PP_OK;
}

static pp_status run_clusters(const void *settings, const char *const *arguments, int count,
                              pp_output *output, pp_error *error) {
    (void)settings;
    const char *name;
    pp_cluster *cluster;
    PP_TRY(shown_name(arguments, count, &name, error));
    if (!name) {
        int presets;
        const pp_preset *table = pp_cluster_presets(&presets);
        list_presets(table, presets, &output->out);
        return PP_OK;
    }
    PP_TRY(pp_cluster_open(name, 0, &cluster, error));
    pp_json json = pp_json_start(&output->out);
    pp_cluster_write(cluster, &json);
    pp_text_string(&output->out, "\n");
    pp_cluster_free(cluster);
    return PP_OK;
}

static void describe_family(const pp_schedule_family *family, pp_text *text) {
    pp_text_printf(text,
                   "%s: %s\n  virtual stages: %d\n  constraint: %s\n  backward: %s\n"
                   "  source: %s\n",
                   family->name, family->summary, family->natural_virtual, family->constraint,
                   family->splits_backward ? "input (I) and weight (W) apart" : "whole (B)",
                   family->source);
}

static pp_status run_schedules(const void *settings, const char *const *arguments, int count,
                               pp_output *output, pp_error *error) {
    (void)settings;
    const char *name;
    int families;
    const pp_schedule_family *table = pp_schedule_families(&families);
    PP_TRY(shown_name(arguments, count, &name, error));
    if (name) {
        const pp_schedule_family *family = pp_schedule_family_find(name);
        if (!family)
            return pp_fail(error, PP_E_INPUT, name, "is no schedule; 'ppsim schedules' lists them");
        describe_family(family, &output->out);
        return PP_OK;
    }
    pp_table list = pp_table_start("lll");
    for (int i = 0; i < families; i++) {
        pp_table_cell(&list, "%s", table[i].name);
        pp_table_cell(&list, "%s", table[i].summary);
        pp_table_cell(&list, "%s", table[i].source);
    }
    pp_table_print(&list, &output->out);
    return PP_OK;
}

#define LIST_DESCRIPTION "Without arguments lists them, with 'show NAME' prints one in full."

const pp_subcommand pp_cmd_models = {
    .name = "models",
    .arguments = "[show NAME]",
    .maximum_arguments = 2,
    .summary = "lists the models known by name, or prints one as JSON",
    .description = LIST_DESCRIPTION,
    .run = run_models,
};

const pp_subcommand pp_cmd_clusters = {
    .name = "clusters",
    .arguments = "[show NAME]",
    .maximum_arguments = 2,
    .summary = "lists the clusters known by name, or prints one as JSON",
    .description = LIST_DESCRIPTION,
    .run = run_clusters,
};

const pp_subcommand pp_cmd_schedules = {
    .name = "schedules",
    .arguments = "[show NAME]",
    .maximum_arguments = 2,
    .summary = "lists the schedules, or describes one",
    .description = LIST_DESCRIPTION,
    .run = run_schedules,
};
