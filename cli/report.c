/* What plan, run and validate print alike. */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- predicted beside measured ------------------------------------------------------------- */

typedef const char *format_value(double value, char buffer[32]);

const char *pp_format_rate(double rate, char buffer[32]) {
    snprintf(buffer, 32, rate >= 1000 && rate < 1e15 ? "%.0f" : "%.4g", rate);
    return buffer;
}

static const char *format_percent(double fraction, char buffer[32]) {
    snprintf(buffer, 32, "%.2f %%", 100 * fraction);
    return buffer;
}

/* Fractions differ by percentage points, everything else by per cent of the prediction. */
static void compare_row(pp_table *table, const char *what, double predicted, double measured,
                        format_value *format) {
    char left[32], right[32];
    pp_table_cell(table, "%s", what);
    pp_table_cell(table, "%s", format(predicted, left));
    pp_table_cell(table, "%s", format(measured, right));
    if (format == format_percent)
        pp_table_cell(table, "%+.2f pp", 100 * (measured - predicted));
    else if (predicted > 0)
        pp_table_cell(table, "%+.2f %%", 100 * (measured / predicted - 1));
    else
        pp_table_cell(table, "%s", "");
}

void pp_report_compare(const pp_plan *plan, const pp_prediction *measured, pp_text *text) {
    const pp_prediction *predicted = &plan->predicted;
    pp_table table = pp_table_start("lrrr");
    static const char *const heads[] = {"", "predicted", "measured", "difference"};
    for (int i = 0; i < 4; i++) pp_table_cell(&table, "%s", heads[i]);
    compare_row(&table, "step time", predicted->iteration_time_s, measured->iteration_time_s,
                pp_format_seconds);
    compare_row(&table, "bubble", predicted->bubble_fraction, measured->bubble_fraction,
                format_percent);
    for (int p = 0; p < plan->ranks; p++) {
        char what[32];
        snprintf(what, sizeof what, "rank %d busy", p);
        compare_row(&table, what, predicted->rank[p].busy_s, measured->rank[p].busy_s,
                    pp_format_seconds);
    }
    for (int p = 0; p < plan->ranks; p++) {
        char what[32];
        if (measured->rank[p].peak_bytes <= 0) continue; /* replay holds no tensors */
        snprintf(what, sizeof what, "rank %d peak memory", p);
        compare_row(&table, what, (double)predicted->rank[p].peak_bytes,
                    (double)measured->rank[p].peak_bytes, pp_format_bytes);
    }
    pp_table_print(&table, text);
}

/* ---- plans --------------------------------------------------------------------------------- */

void pp_report_plan_line(const pp_plan *plan, pp_text *text) {
    pp_text_printf(text, "%s, K=%d", plan->schedule, plan->ranks);
    if (plan->virtual_stages > 1) pp_text_printf(text, ", V=%d", plan->virtual_stages);
    pp_text_printf(text, ", M=%d of %lld samples", plan->microbatches,
                   (long long)plan->microbatch_size);
    if (plan->slices > 1) pp_text_printf(text, ", Q=%d", plan->slices);
    if (plan->dp > 1) pp_text_printf(text, ", dp=%d", plan->dp);
    if (plan->tp > 1) pp_text_printf(text, ", tp=%d", plan->tp);
    char policy[PP_RECOMPUTE_LENGTH];
    pp_text_printf(text, ", recompute %s", pp_recompute_text(plan->recompute, policy));
}

/* Names from other programs' profiles hold whole descriptions: the beginning of one. */
static const char *short_name(const pp_plan *plan, int position, char buffer[40]) {
    enum { SHOWN = 30 };
    const char *name = plan->model->layers[plan->order[position]].name;
    size_t length = strlen(name);
    if (length <= SHOWN) return name;
    for (length = SHOWN - 1; ((unsigned char)name[length] & 0xC0) == 0x80;) length--;
    snprintf(buffer, 40, "%.*s…", (int)length, name);
    return buffer;
}

static void stage_layers(const pp_plan *plan, const pp_stage *stage, char *buffer, size_t size) {
    char first[40], last[40];
    if (stage->first == stage->last)
        snprintf(buffer, size, "%s", short_name(plan, stage->first, first));
    else
        snprintf(buffer, size, "%s … %s (%d)", short_name(plan, stage->first, first),
                 short_name(plan, stage->last, last), stage->last - stage->first + 1);
}

void pp_report_stages(const pp_plan *plan, pp_text *text) {
    pp_table table = pp_table_start("rrlrrrrr");
    static const char *const heads[] = {"stage", "rank",   "layers", "forward",
                                        "input", "weight", "busy",   "peak memory"};
    for (int i = 0; i < 8; i++) pp_table_cell(&table, "%s", heads[i]);
    for (int s = 0; s < plan->stage_count; s++) {
        const pp_stage *stage = &plan->stages[s];
        const pp_rank_prediction *rank = &plan->predicted.rank[plan->placement[s]];
        char layers[160], buffer[32];
        stage_layers(plan, stage, layers, sizeof layers);
        pp_table_cell(&table, "%d", s);
        pp_table_cell(&table, "%d", plan->placement[s]);
        pp_table_cell(&table, "%s", layers);
        pp_table_cell(&table, "%s", pp_format_seconds(stage->forward_s, buffer));
        pp_table_cell(&table, "%s", pp_format_seconds(stage->input_s, buffer));
        pp_table_cell(&table, "%s", pp_format_seconds(stage->weight_s, buffer));
        pp_table_cell(&table, "%s", pp_format_seconds(rank->busy_s, buffer));
        pp_table_cell(&table, "%s", pp_format_bytes((double)rank->peak_bytes, buffer));
    }
    pp_table_print(&table, text);
}
