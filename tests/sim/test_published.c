/* Orders of the original implementations (PyTorch, Megatron-LM, DualPipe) with the times that an
 * independent replay found for them: makespan, bubble, spans and peaks must come out the same.
 * Needs the published data: the folder that PPSIM_TEST_DATA names, or ../shared/data. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(published);

static const char *data_folder(void) {
    const char *named = getenv("PPSIM_TEST_DATA");
    return named ? named : "../shared/data";
}

/* ---- from JSON to a schedule ----------------------------------------------------------------- */

static size_t parse_one(const char *text, size_t length, pp_action *action) {
    cr_assert(pp_action_parse(text, length, action), "%.*s", (int)length, text);
    return 1;
}

/* "0F3", or "(0F3;1B0)" with or without OVERLAP_F_B behind. */
static size_t parse_cell(const char *cell, pp_action *to) {
    if (*cell != '(') return parse_one(cell, strlen(cell), to);
    size_t first = strcspn(cell, ";"), second = strcspn(cell, ")");
    parse_one(cell + 1, first - 1, to);
    parse_one(cell + first + 1, second - first - 1, to + 1);
    to[0].overlapped = 1;
    return 2;
}

static void set_microbatches(pp_schedule *schedule) {
    int most = 0;
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++) {
        uint32_t m = schedule->actions[i].microbatch;
        if (m != PP_NO_MICROBATCH && (int)m > most) most = (int)m;
    }
    schedule->microbatches = most + 1;
}

/* DualPipe's stages K … 2K-1 are the other direction. */
static void set_chains(pp_schedule *schedule, const char *name) {
    if (strcmp(name, "DualPipe") != 0) return;
    schedule->chains = PP_NEW(&schedule->arena, pp_chain, 2);
    schedule->chains[0] = (pp_chain){0, schedule->ranks - 1};
    schedule->chains[1] = (pp_chain){schedule->ranks, schedule->stages - 1};
    schedule->chain_count = 2;
}

static pp_schedule *schedule_of(json_t *row) {
    json_t *order = json_object_get(row, "order"), *ranks = json_object_get(row, "stage_to_rank");
    int stages = (int)json_array_size(ranks);
    size_t capacity = 0, at = 0, i, p, s;
    json_t *cells, *cell, *rank;
    json_array_foreach(order, i, cells) capacity += 2 * json_array_size(cells);
    pp_schedule *schedule;
    cr_assert_eq(pp_schedule_new((int)json_array_size(order), stages, 1, capacity, &schedule, NULL),
                 PP_OK);
    json_array_foreach(ranks, s, rank) schedule->placement[s] = (int)json_integer_value(rank);
    json_array_foreach(order, p, cells) {
        schedule->first_action[p] = at;
        json_array_foreach(cells, i, cell) if (json_is_string(cell)) at +=
            parse_cell(json_string_value(cell), schedule->actions + at);
    }
    schedule->first_action[schedule->ranks] = at;
    schedule->virtual_stages = stages / schedule->ranks;
    set_microbatches(schedule);
    set_chains(schedule, json_string_value(json_object_get(row, "schedule")));
    return schedule;
}

/* ---- comparing ----------------------------------------------------------------------------- */

static void compare(const char *what, const pp_sim_result *result, int ranks, double visits,
                    json_t *expected) {
    double makespan = json_number_value(json_object_get(expected, "makespan"));
    double bubble = json_number_value(json_object_get(expected, "bubble_rate"));
    json_t *spans = json_object_get(expected, "stage_span");
    json_t *peaks = json_object_get(expected, "peak_acts");
    cr_assert_eq(result->makespan_s, makespan, "%s: makespan %g, published %g", what,
                 result->makespan_s, makespan);
    cr_assert_leq(fabs(result->bubble_fraction - bubble), 5.0001e-7, "%s: bubble", what);
    for (int p = 0; p < ranks; p++) {
        const pp_sim_rank *rank = &result->rank[p];
        cr_assert_eq(rank->last_end_s - rank->first_start_s,
                     json_number_value(json_array_get(spans, (size_t)p)), "%s: span of rank %d",
                     what, p);
        cr_assert_eq(rank->peak_activations * visits,
                     json_number_value(json_array_get(peaks, (size_t)p)), "%s: peak of rank %d",
                     what, p);
    }
    cr_assert_leq(result->lower_bound_s, result->makespan_s, "%s: bound", what);
}

/* "F10I12W8c1" */
static costs costs_of_key(const char *key, int stages) {
    double f, i, w, c;
    cr_assert_eq(sscanf(key, "F%lfI%lfW%lfc%lf", &f, &i, &w, &c), 4, "%s", key);
    return costs_uniform(stages, f, i, w, c);
}

static int replay_row(const char *file, json_t *row) {
    char what[256];
    const char *key;
    json_t *expected;
    int replayed = 0;
    if (!json_object_get(row, "order")) return 0;
    pp_schedule *schedule = schedule_of(row);
    double visits = (double)schedule->stages / schedule->ranks / schedule->chain_count;
    json_object_foreach(json_object_get(row, "ref"), key, expected) {
        snprintf(what, sizeof what, "%s %s K=%d M=%d %s", file,
                 json_string_value(json_object_get(row, "schedule")), schedule->ranks,
                 (int)json_integer_value(json_object_get(row, "M")), key);
        costs c = costs_of_key(key, schedule->stages);
        pp_sim_input input = input_of(schedule, &c);
        pp_sim_result *result = simulate(&input);
        compare(what, result, schedule->ranks, visits, expected);
        pp_sim_result_free(result);
        costs_free(&c);
        replayed++;
    }
    pp_schedule_free(schedule);
    return replayed;
}

Test(published, replayed_orders_agree) {
    static const char *const files[] = {"dualpipe-dualpipe",
                                        "dualpipe-dualpipev",
                                        "megatron",
                                        "pytorch-1f1b",
                                        "pytorch-dualpipev",
                                        "pytorch-gpipe",
                                        "pytorch-interleaved1f1b",
                                        "pytorch-loopedbfs",
                                        "pytorch-zbvzerobubble",
                                        "pytorch-interleavedzerobubble"};
    int replayed = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/schedules/%s.json", data_folder(), files[i]);
        json_t *document = json_load_file(path, 0, NULL), *row;
        if (!document) cr_skip_test("no published schedules at %s (set PPSIM_TEST_DATA)", path);
        size_t r;
        json_array_foreach(json_object_get(document, "rows"), r, row) replayed +=
            replay_row(files[i], row);
        json_decref(document);
    }
    cr_log_info("%d published results reproduced", replayed);
    cr_assert_gt(replayed, 100);
}

/* ---- our own orders ------------------------------------------------------------------------ */

static void compare_order(const char *family, json_t *row, int *compared) {
    if (!json_object_get(row, "order")) return;
    if (json_integer_value(json_object_get(row, "V")) > 1) return;
    pp_schedule *theirs = schedule_of(row),
                *ours = build(family, theirs->ranks, theirs->microbatches);
    for (int p = 0; p < ours->ranks; p++) {
        size_t at = theirs->first_action[p];
        for (size_t i = ours->first_action[p]; i < ours->first_action[p + 1]; i++, at++)
            cr_assert_eq(memcmp(&ours->actions[i], &theirs->actions[at], sizeof *ours->actions), 0,
                         "%s K=%d M=%d rank %d action %zu", family, ours->ranks, ours->microbatches,
                         p, i - ours->first_action[p]);
    }
    ++*compared;
    pp_schedule_free(theirs);
    pp_schedule_free(ours);
}

/* gpipe and 1f1b are the orders that PyTorch and Megatron-LM make. */
Test(published, our_orders_are_theirs) {
    static const struct {
        const char *file, *schedule, *family;
    } cases[] = {{"pytorch-1f1b", "1F1B", "1f1b"},
                 {"pytorch-gpipe", "GPipe", "gpipe"},
                 {"megatron", "Megatron-1F1B", "1f1b"}};
    int compared = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/schedules/%s.json", data_folder(), cases[i].file);
        json_t *document = json_load_file(path, 0, NULL), *row;
        if (!document) cr_skip_test("no published schedules at %s (set PPSIM_TEST_DATA)", path);
        size_t r;
        json_array_foreach(json_object_get(document, "rows"), r, row) {
            const char *name = json_string_value(json_object_get(row, "schedule"));
            if (strcmp(name, cases[i].schedule) == 0)
                compare_order(cases[i].family, row, &compared);
        }
        json_decref(document);
    }
    cr_assert_gt(compared, 10);
}
