/* ppsim validate --explain: the parts of the difference between prediction and measurement, by
 * cause, by stage and by action. What they mean and why they add up: sim/attribution.c. */
#include "cli/validate_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SHOWN 5

pp_status pp_explain_make(const pp_plan *plan, const pp_trace *simulated, const pp_trace *trace,
                          pp_attribution **made, pp_error *error) {
    pp_schedule *schedule;
    pp_sim_input input;
    pp_arena arena;
    *made = NULL;
    PP_TRY(pp_plan_expand(plan, &schedule, error));
    pp_arena_init(&arena);
    pp_status status = pp_plan_sim_input(plan, schedule, &arena, &input, error);
    if (status == PP_OK) status = pp_attribute(&input, simulated, trace, made, error);
    pp_arena_deinit(&arena);
    pp_schedule_free(schedule);
    return status;
}

void pp_signed_cell(pp_table *table, double seconds) {
    char buffer[32];
    pp_table_cell(table, "%s%s", seconds < 0 ? "-" : "+", pp_format_seconds(fabs(seconds), buffer));
}

static void share_cell(pp_table *table, const pp_attribution *a, double seconds) {
    if (a->predicted_s > 0)
        pp_table_cell(table, "%+.2f %%", 100 * seconds / a->predicted_s);
    else
        pp_table_cell(table, "%s", "");
}

static void part_cells(pp_table *table, const pp_attribution *a, const char *what, double part_s) {
    pp_table_cell(table, "%s", what);
    pp_signed_cell(table, part_s);
    share_cell(table, a, part_s);
}

static void blank_cells(pp_table *table, int count) {
    for (int i = 0; i < count; i++) pp_table_cell(table, "%s", "");
}

/* ---- by cause ------------------------------------------------------------------------------ */

static void causes_table(const pp_attribution *a, double typical_s, pp_text *text) {
    pp_table table = pp_table_start("lrrrrl");
    static const char *const heads[] = {"why",   "part",       "of the step",
                                        "alone", "without it", "what it is"};
    for (int i = 0; i < 6; i++) pp_table_cell(&table, "%s", heads[i]);
    double other_s = typical_s - a->measured_s, sum_s = other_s;
    for (int c = 0; c < PP_CAUSE_COUNT; c++) {
        sum_s += a->share_s[c];
        if (a->share_s[c] == 0 && a->alone_s[c] == 0 && a->without_s[c] == 0) continue;
        part_cells(&table, a, pp_cause_names[c], a->share_s[c]);
        pp_signed_cell(&table, a->alone_s[c]);
        pp_signed_cell(&table, a->without_s[c]);
        pp_table_cell(&table, "%s", pp_cause_meanings[c]);
    }
    if (other_s != 0) {
        part_cells(&table, a, "median step", other_s);
        blank_cells(&table, 2);
        pp_table_cell(&table, "%s", "the median step less the traced one");
    }
    part_cells(&table, a, "all", sum_s);
    blank_cells(&table, 3);
    pp_table_print(&table, text);
}

/* ---- by stage and kind --------------------------------------------------------------------- */

typedef struct cell {
    double seconds;
    size_t at;
} cell;

static int by_size(const void *left, const void *right) {
    const cell *a = left, *b = right;
    double x = fabs(a->seconds), y = fabs(b->seconds);
    if (x != y) return x > y ? -1 : 1;
    return (a->at > b->at) - (a->at < b->at);
}

/* The largest first, into largest; returns how many are not 0. */
static size_t find_largest(const double *values, size_t count, size_t stride, cell *largest) {
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        cell next = {values[i * stride], i};
        if (next.seconds == 0) continue;
        size_t at = found < SHOWN ? found++ : SHOWN;
        if (at == SHOWN && by_size(&next, &largest[SHOWN - 1]) >= 0) continue;
        largest[at == SHOWN ? SHOWN - 1 : at] = next;
        qsort(largest, found, sizeof *largest, by_size);
    }
    return found;
}

static void stages_table(const pp_attribution *a, pp_text *text) {
    cell largest[SHOWN];
    size_t count =
        find_largest(a->stage_s, (size_t)a->stage_count * PP_ACTION_KIND_COUNT, 1, largest);
    if (count == 0) return;
    pp_table table = pp_table_start("lrr");
    static const char *const heads[] = {"slower or faster on average", "part", "of the step"};
    for (int i = 0; i < 3; i++) pp_table_cell(&table, "%s", heads[i]);
    for (size_t i = 0; i < count; i++) {
        char what[48];
        snprintf(what, sizeof what, "%s of stage %zu",
                 pp_action_kind_name((pp_action_kind)(largest[i].at % PP_ACTION_KIND_COUNT)),
                 largest[i].at / PP_ACTION_KIND_COUNT);
        part_cells(&table, a, what, largest[i].seconds);
    }
    pp_table_print(&table, text);
    pp_text_string(text, "\n");
}

/* ---- by action ----------------------------------------------------------------------------- */

static int by_part(const void *left, const void *right) {
    const pp_attributed *a = left, *b = right;
    double x = fabs(a->duration_s + a->gap_s + a->transfer_s);
    double y = fabs(b->duration_s + b->gap_s + b->transfer_s);
    if (x != y) return x > y ? -1 : 1;
    if (a->predicted->rank != b->predicted->rank)
        return a->predicted->rank < b->predicted->rank ? -1 : 1;
    return (a->predicted > b->predicted) - (a->predicted < b->predicted);
}

static void actions_table(const pp_attribution *a, pp_text *text) {
    pp_attributed *sorted = pp_allocate((a->action_count + 1) * sizeof *sorted);
    if (!sorted) {
        text->failed = true;
        return;
    }
    for (size_t i = 0; i < a->action_count; i++) sorted[i] = a->actions[i];
    qsort(sorted, a->action_count, sizeof *sorted, by_part);
    pp_table table = pp_table_start("lrrrrr");
    static const char *const heads[] = {"largest parts", "rank",       "part",
                                        "duration",      "gap before", "transfer before"};
    for (int i = 0; i < 6; i++) pp_table_cell(&table, "%s", heads[i]);
    for (size_t i = 0; i < a->action_count && i < SHOWN; i++) {
        const pp_attributed *part = &sorted[i];
        char action[32];
        pp_table_cell(&table, "%s", pp_action_text(part->predicted->action, action));
        pp_table_cell(&table, "%d", part->predicted->rank);
        pp_signed_cell(&table, part->duration_s + part->gap_s + part->transfer_s);
        pp_signed_cell(&table, part->duration_s);
        pp_signed_cell(&table, part->gap_s);
        pp_signed_cell(&table, part->transfer_s);
    }
    pp_table_print(&table, text);
    pp_free(sorted);
}

void pp_explain_text(const pp_attribution *a, double typical_s, pp_text *text) {
    pp_text_string(text, "why the measured step takes longer or shorter; the parts add up\n");
    causes_table(a, typical_s, text);
    pp_text_string(text, "\n");
    stages_table(a, text);
    actions_table(a, text);
    pp_text_string(text, "\n");
}

void pp_explain_json(const pp_attribution *a, double typical_s, pp_json *json) {
    pp_json_array(json);
    for (int c = 0; c < PP_CAUSE_COUNT; c++) {
        pp_json_object_flat(json);
        pp_json_key(json, "name");
        pp_json_string(json, pp_cause_names[c]);
        pp_json_key(json, "part");
        pp_json_double(json, a->share_s[c]);
        pp_json_key(json, "alone");
        pp_json_double(json, a->alone_s[c]);
        pp_json_key(json, "without");
        pp_json_double(json, a->without_s[c]);
        pp_json_end_object(json);
    }
    pp_json_object_flat(json);
    pp_json_key(json, "name");
    pp_json_string(json, "median step");
    pp_json_key(json, "part");
    pp_json_double(json, typical_s - a->measured_s);
    pp_json_end_object(json);
    pp_json_end_array(json);
}
