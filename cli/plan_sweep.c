/* ppsim plan --sweep: the curve of one setting as a table, CSV or its document. */
#include "cli/cli.h"
#include "cli/plan_sweep_internal.h"

#include <stdio.h>

/* ---- text ---------------------------------------------------------------------------------- */

static const char *value_text(const pp_sweep *sweep, const pp_sweep_point *point, char buffer[32]) {
    if (sweep->kind == PP_SWEEP_MEMORY) return pp_format_bytes((double)point->value, buffer);
    snprintf(buffer, 32, "%lld", (long long)point->value);
    return buffer;
}

static void plan_cell(const pp_sweep *sweep, const pp_sweep_point *point, pp_table *table) {
    char policy[PP_RECOMPUTE_LENGTH];
    pp_text line = {0};
    pp_text_printf(&line, "%s", point->schedule);
    if (sweep->kind != PP_SWEEP_RANKS) pp_text_printf(&line, ", K=%d", point->ranks);
    if (point->virtual_stages > 1) pp_text_printf(&line, ", V=%d", point->virtual_stages);
    if (sweep->kind != PP_SWEEP_MICROBATCHES) pp_text_printf(&line, ", M=%d", point->microbatches);
    pp_text_printf(&line, ", %lld a microbatch", (long long)point->microbatch_size);
    if (point->dp > 1) pp_text_printf(&line, ", dp=%d", point->dp);
    if (point->tp > 1) pp_text_printf(&line, ", tp=%d", point->tp);
    if (point->zero > 0 && point->dp > 1) pp_text_string(&line, ", ZeRO-1");
    pp_text_printf(&line, ", recompute %s", pp_recompute_text(point->recompute, policy));
    pp_table_cell(table, "%s", line.bytes ? line.bytes : "");
    pp_text_deinit(&line);
}

static void numbers_cells(const pp_sweep_point *point, pp_table *table) {
    char buffer[32];
    pp_table_cell(table, "%s", pp_format_seconds(point->iteration_time_s, buffer));
    pp_table_cell(table, "%.2f %%", 100 * point->bubble_fraction);
    pp_table_cell(table, "+%.2f %%", 100 * point->compute_loss);
    pp_table_cell(table, "%s", pp_format_bytes((double)point->peak_bytes, buffer));
    if (point->gap >= 0)
        pp_table_cell(table, "%.2f %%", 100 * point->gap);
    else
        pp_table_cell(table, "-");
}

/* Why points have no plan, below the table: a reason may be a paragraph. */
static void reasons(const pp_sweep *sweep, pp_text *text) {
    const char *before = "\n";
    for (int i = 0; i < sweep->point_count; i++) {
        const pp_sweep_point *point = &sweep->points[i];
        char buffer[32];
        if (point->planned) continue;
        pp_text_printf(text, "%sno plan at %s: %s\n", before, value_text(sweep, point, buffer),
                       point->reason);
        before = "";
    }
}

static void sweep_text(const pp_sweep *sweep, pp_text *text) {
    static const char *const heads[] = {"step time",   "bubble", "compute per sample",
                                        "peak memory", "gap",    "plan"};
    pp_table table = pp_table_start("rrrrrrl");
    pp_text_printf(text, "%s on %s, batch %lld: the best plan for each %s\n\n", sweep->model,
                   sweep->cluster, (long long)sweep->global_batch,
                   sweep->kind == PP_SWEEP_MEMORY  ? "memory of a device"
                   : sweep->kind == PP_SWEEP_RANKS ? "number of ranks"
                                                   : "number of microbatches");
    pp_table_cell(&table, "%s", pp_sweep_name((int)sweep->kind));
    for (int i = 0; i < 6; i++) pp_table_cell(&table, "%s", heads[i]);
    for (int i = 0; i < sweep->point_count; i++) {
        const pp_sweep_point *point = &sweep->points[i];
        char buffer[32];
        pp_table_cell(&table, "%s", value_text(sweep, point, buffer));
        if (point->planned) {
            numbers_cells(point, &table);
            plan_cell(sweep, point, &table);
            continue;
        }
        for (int k = 0; k < 5; k++) pp_table_cell(&table, "-");
        pp_table_cell(&table, "none");
    }
    pp_table_print(&table, text);
    reasons(sweep, text);
    pp_text_string(text, "\ncompute per sample: forward and backward of one sample over the least "
                         "of all points\n");
}

/* ---- CSV ----------------------------------------------------------------------------------- */

/* RFC 4180: in quotes, which are doubled inside. */
static void quoted(pp_text *text, const char *value) {
    pp_text_string(text, "\"");
    for (; *value; value++) {
        pp_text_append(text, value, 1);
        if (*value == '"') pp_text_string(text, "\"");
    }
    pp_text_string(text, "\"");
}

static void number(pp_text *text, double value) {
    pp_text_string(text, ",");
    if (value != PP_SWEEP_UNKNOWN) pp_text_double(text, value);
}

static void csv_point(const pp_sweep_point *point, pp_text *text) {
    pp_text_printf(text, "%lld", (long long)point->value);
    number(text, point->iteration_time_s);
    number(text, point->throughput);
    number(text, point->bubble_fraction);
    number(text, point->compute_s);
    number(text, point->compute_loss);
    pp_text_string(text, ",");
    if (point->planned) pp_text_printf(text, "%lld", (long long)point->peak_bytes);
    number(text, point->gap);
    if (point->planned) {
        char policy[PP_RECOMPUTE_LENGTH];
        pp_text_printf(text, ",%d,%d,%d,%lld,%d,%d,%d,%s,%s,\n", point->ranks,
                       point->virtual_stages, point->microbatches,
                       (long long)point->microbatch_size, point->dp, point->tp, point->zero,
                       point->schedule, pp_recompute_text(point->recompute, policy));
        return;
    }
    pp_text_string(text, ",,,,,,,,,,");
    quoted(text, point->reason);
    pp_text_string(text, "\n");
}

static void sweep_csv(const pp_sweep *sweep, pp_text *text) {
    pp_text_string(
        text, "value,iteration_time,throughput,bubble_fraction,compute_per_sample,compute_loss,"
              "peak_bytes,gap,ranks,virtual,microbatches,microbatch_size,dp,tp,zero,schedule,"
              "recompute,reason\n");
    for (int i = 0; i < sweep->point_count; i++) csv_point(&sweep->points[i], text);
}

/* ---- the call ------------------------------------------------------------------------------ */

static void sweep_json(const pp_sweep *sweep, pp_text *text) {
    pp_json json = pp_json_start(text);
    pp_sweep_write(sweep, &json);
    pp_text_string(text, "\n");
}

pp_status pp_plan_sweep_print(const pp_plan_request *request, const pp_plan_sweep_settings *asked,
                              pp_text *text, pp_error *error) {
    pp_sweep_kind kind;
    pp_sweep *sweep;
    if (!pp_sweep_from_name(asked->sweep, &kind))
        return pp_fail(error, PP_E_INPUT, "--sweep", "'%s' cannot be swept", asked->sweep);
    pp_status status = pp_plan_sweep(request, kind, &sweep, error);
    if (sweep == NULL) return status;
    (asked->json ? sweep_json : asked->csv ? sweep_csv : sweep_text)(sweep, text);
    pp_sweep_free(sweep);
    return status;
}
