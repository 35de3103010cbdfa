/* The orders that our families make against those of the original implementations (PyTorch,
 * Megatron-LM, DualPipe): the same cells, the same refusals, and the times, spans and peaks that an
 * independent replay found. Needs the published data: the folder that PPSIM_TEST_DATA names, or
 * ../shared/data. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(families_published);

static const char *data_folder(void) {
    const char *named = getenv("PPSIM_TEST_DATA");
    return named ? named : "../shared/data";
}

static int field(json_t *row, const char *name) {
    return (int)json_integer_value(json_object_get(row, name));
}

/* ---- one row ------------------------------------------------------------------------------- */

/* The cell that begins at an action as the files write it, without OVERLAP_F_B. */
static size_t cell_text(const pp_schedule *schedule, size_t i, char *text) {
    char first[32], second[32];
    const pp_action *a = &schedule->actions[i];
    pp_action_text(a[0], first);
    if (!a->overlapped) {
        strcpy(text, first);
        return 1;
    }
    sprintf(text, "(%s;%s)", first, pp_action_text(a[1], second));
    return 2;
}

/* Idle slots and gradient reductions are not part of an order of compute actions. */
static bool is_compute_cell(json_t *cell) {
    return json_is_string(cell) && !strstr(json_string_value(cell), "REDUCE_GRAD");
}

static void compare_rank(const char *what, const pp_schedule *ours, int p, json_t *cells) {
    size_t at = ours->first_action[p], i;
    json_t *cell;
    json_array_foreach(cells, i, cell) {
        char text[80], theirs[80];
        if (!is_compute_cell(cell)) continue;
        snprintf(theirs, sizeof theirs, "%s", json_string_value(cell));
        char *suffix = strstr(theirs, "OVERLAP_F_B");
        if (suffix) *suffix = '\0';
        cr_assert_lt(at, ours->first_action[p + 1], "%s rank %d: ends before %s", what, p, theirs);
        at += cell_text(ours, at, text);
        cr_assert_str_eq(text, theirs, "%s rank %d: %s, theirs %s", what, p, text, theirs);
    }
    cr_assert_eq(at, ours->first_action[p + 1], "%s rank %d: longer than theirs", what, p);
}

static void compare_replay(const char *what, const pp_schedule *ours, const char *key,
                           json_t *expected) {
    double f, i, w, c, visits = ours->virtual_stages;
    cr_assert_eq(sscanf(key, "F%lfI%lfW%lfc%lf", &f, &i, &w, &c), 4, "%s", key);
    costs cost = costs_uniform(ours->stages, f, i, w, c);
    pp_sim_input input = input_of(ours, &cost);
    pp_sim_result *result = simulate(&input);
    json_t *spans = json_object_get(expected, "stage_span");
    json_t *peaks = json_object_get(expected, "peak_acts");
    cr_assert_eq(result->makespan_s, json_number_value(json_object_get(expected, "makespan")),
                 "%s %s: makespan %g", what, key, result->makespan_s);
    for (int p = 0; p < ours->ranks; p++) {
        const pp_sim_rank *rank = &result->rank[p];
        cr_assert_eq(rank->last_end_s - rank->first_start_s,
                     json_number_value(json_array_get(spans, (size_t)p)), "%s %s: span of rank %d",
                     what, key, p);
        cr_assert_eq(rank->peak_activations * visits,
                     json_number_value(json_array_get(peaks, (size_t)p)), "%s %s: peak of rank %d",
                     what, key, p);
    }
    pp_sim_result_free(result);
    costs_free(&cost);
}

static void compare_row(const char *what, const pp_schedule *ours, json_t *row) {
    json_t *order = json_object_get(row, "order"), *ranks = json_object_get(row, "stage_to_rank");
    json_t *rank, *cells, *expected;
    const char *key;
    size_t i;
    cr_assert_eq(json_array_size(ranks), (size_t)ours->stages, "%s: stages", what);
    json_array_foreach(ranks, i, rank)
        cr_assert_eq(json_integer_value(rank), ours->placement[i], "%s: stage %zu", what, i);
    json_array_foreach(order, i, cells) compare_rank(what, ours, (int)i, cells);
    json_object_foreach(json_object_get(row, "ref"), key, expected)
        compare_replay(what, ours, key, expected);
}

/* ---- all rows ------------------------------------------------------------------------------ */

typedef struct original {
    const char *file, *schedule, *family;
    int least_virtual;  /* rows with fewer are not this schedule: PyTorch's V = 1 is not 1F1B */
    bool refusal_binds; /* what it refuses the definition refuses too */
} original;

static const original originals[] = {
    {"pytorch-gpipe", "GPipe", "gpipe", 1, true},
    {"pytorch-1f1b", "1F1B", "1f1b", 1, false}, /* M < K is legal */
    {"megatron", "Megatron-1F1B", "1f1b", 1, true},
    {"megatron", "Megatron-interleaved", "interleaved", 2, true},
    {"pytorch-interleaved1f1b", "Interleaved1F1B", "interleaved", 2, true},
    {"pytorch-loopedbfs", "LoopedBFS", "bfs", 1, true},
    {"pytorch-interleavedzerobubble", "InterleavedZeroBubble", "pytorch-interleaved-zb", 1, true},
    {"pytorch-zbvzerobubble", "ZBVZeroBubble", "zbv", 2, true},
    {"pytorch-dualpipev", "DualPipeV", "dualpipev", 2, true},
    {"dualpipe-dualpipev", "DualPipeV", "dualpipev", 0, true},
    {"dualpipe-dualpipe", "DualPipe", "dualpipe", 0, true},
};

/* Returns 1 if the row was compared. */
static int take_row(const original *o, json_t *row) {
    char what[160];
    pp_schedule_request request = {.name = o->family,
                                   .ranks = field(row, "K"),
                                   .microbatches = field(row, "M"),
                                   .virtual_stages = field(row, "V")};
    if (strcmp(json_string_value(json_object_get(row, "schedule")), o->schedule) != 0) return 0;
    if (request.virtual_stages < o->least_virtual) return 0;
    if (strcmp(o->schedule, "Megatron-interleaved") == 0) request.group = field(row, "group");
    snprintf(what, sizeof what, "%s K=%d M=%d V=%d group=%d", o->family, request.ranks,
             request.microbatches, request.virtual_stages, request.group);
    pp_schedule *ours;
    pp_error error = {0};
    pp_status status = pp_schedule_build(&request, &ours, &error);
    if (json_object_get(row, "error")) {
        cr_assert(status == PP_E_INPUT || !o->refusal_binds, "%s must be refused", what);
    } else {
        cr_assert_eq(status, PP_OK, "%s: %s", what, error.message);
        compare_row(what, ours, row);
    }
    pp_schedule_free(ours);
    return 1;
}

Test(families_published, orders_and_refusals_are_the_originals) {
    int compared = 0;
    for (size_t i = 0; i < sizeof originals / sizeof *originals; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/schedules/%s.json", data_folder(), originals[i].file);
        json_t *document = json_load_file(path, 0, NULL), *row;
        if (!document) cr_skip_test("no published schedules at %s (set PPSIM_TEST_DATA)", path);
        size_t r;
        json_array_foreach(json_object_get(document, "rows"), r, row) compared +=
            take_row(&originals[i], row);
        json_decref(document);
    }
    cr_log_info("%d published rows compared", compared);
    cr_assert_gt(compared, 140);
}

/* ---- v-half and v-min ------------------------------------------------------------------------ */

static double number(json_t *row, const char *name) {
    return json_number_value(json_object_get(row, name));
}

/* What `simulate` takes: for other than equal times, the order made for them. */
static pp_schedule *order_for(const char *name, json_t *row, costs *c) {
    pp_schedule_request request = {
        .name = name, .ranks = field(row, "K"), .microbatches = field(row, "M")};
    pp_schedule *published = build(name, request.ranks, request.microbatches), *better;
    *c = costs_uniform(published->stages, number(row, "F"), number(row, "B"), number(row, "W"),
                       number(row, "comm"));
    if (strcmp(json_string_value(json_object_get(row, "cost")), "unit") == 0) return published;
    pp_sim_input input = input_of(published, c);
    cr_assert_eq(pp_schedule_retime(&input, &request, &better, NULL), PP_OK);
    if (!better) return published;
    pp_schedule_free(published);
    return better;
}

/* Ours must not be longer, nor hold more chunks, with equal times (for which theirs are made) and
 * with others. */
static void compare_memory_row(json_t *row) {
    bool half = strcmp(json_string_value(json_object_get(row, "schedule")), "V-half") == 0;
    costs c;
    pp_schedule *ours = order_for(half ? "v-half" : "v-min", row, &c);
    pp_sim_input input = input_of(ours, &c);
    pp_sim_result *result = simulate(&input);
    double most = 0, peak = 0;
    json_t *chunks;
    size_t p;
    json_array_foreach(json_object_get(row, "peak_acts_chunks"), p, chunks) {
        most = fmax(most, json_number_value(chunks));
        peak = fmax(peak, 2 * result->rank[p].peak_activations);
    }
    cr_assert_leq(result->span_s, json_number_value(json_object_get(row, "makespan")),
                  "%s K=%d M=%d: span %g", ours->name, ours->ranks, ours->microbatches,
                  result->span_s);
    cr_assert_leq(peak, most, "%s K=%d M=%d", ours->name, ours->ranks, ours->microbatches);
    pp_sim_result_free(result);
    pp_schedule_free(ours);
    costs_free(&c);
}

Test(families_published, v_half_and_v_min_are_not_longer) {
    char path[512];
    snprintf(path, sizeof path, "%s/zero-bubble/vhalf_vmin.json", data_folder());
    json_t *document = json_load_file(path, 0, NULL), *row;
    if (!document) cr_skip_test("no published schedules at %s (set PPSIM_TEST_DATA)", path);
    size_t r, rows = json_array_size(json_object_get(document, "rows"));
    json_array_foreach(json_object_get(document, "rows"), r, row) compare_memory_row(row);
    json_decref(document);
    cr_assert_gt(rows, 90);
}
