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

/* ---- lowered by PyTorch ---------------------------------------------------------------------- */

/* The rows of a schedule that grow, transfers among them. */
typedef struct lowering {
    const pp_schedule *from;
    pp_text *rows;    /* [ranks] cells, each with a comma behind */
    pp_text *arrived; /* [ranks] the same of what it has received and done, commas on both sides */
} lowering;

static void put_cell(lowering *l, int rank, const char *cell) {
    pp_text_printf(&l->rows[rank], "%s,", cell);
    pp_text_printf(&l->arrived[rank], ",%s,", cell);
}

static bool has_cell(const lowering *l, int rank, const char *format, int stage, unsigned m) {
    char cell[32];
    snprintf(cell, sizeof cell, format, stage, m);
    return strstr(l->arrived[rank].bytes ? l->arrived[rank].bytes : "", cell) != NULL;
}

static int neighbour(const pp_schedule *s, int stage, bool forward) {
    return forward ? pp_schedule_previous(s, stage) : pp_schedule_next(s, stage);
}

static bool needs_input(pp_action a) {
    return a.kind == PP_FORWARD || a.kind == PP_BACKWARD || a.kind == PP_INPUT;
}

/* What the action needs has been received, or made on its own rank. */
static bool may_follow(const lowering *l, int rank, pp_action a) {
    bool forward = a.kind == PP_FORWARD;
    int other = needs_input(a) ? neighbour(l->from, a.stage, forward) : -1;
    if (other < 0) return true;
    if (l->from->placement[other] != rank)
        return has_cell(l, rank, forward ? ",%dRECV_F%u," : ",%dRECV_B%u,", a.stage, a.microbatch);
    if (forward) return has_cell(l, rank, ",%dF%u,", other, a.microbatch);
    return has_cell(l, rank, ",%dB%u,", other, a.microbatch) ||
           has_cell(l, rank, ",%dI%u,", other, a.microbatch);
}

/* A send right behind the action that made it; its receive goes to the end of what the other rank
 * has so far. */
static void pass_on(lowering *l, int rank, pp_action a) {
    char cell[32];
    bool forward = a.kind == PP_FORWARD;
    int other = needs_input(a) ? neighbour(l->from, a.stage, !forward) : -1;
    if (other < 0 || l->from->placement[other] == rank) return;
    snprintf(cell, sizeof cell, "%dSEND_%c%u", a.stage, forward ? 'F' : 'B', a.microbatch);
    put_cell(l, rank, cell);
    snprintf(cell, sizeof cell, "%dRECV_%c%u", other, forward ? 'F' : 'B', a.microbatch);
    put_cell(l, l->from->placement[other], cell);
}

static bool take_next(lowering *l, int rank, size_t index, size_t count) {
    char text[2][32], pair[80];
    const pp_action *actions = l->from->actions + index;
    for (size_t i = 0; i < count; i++)
        if (!may_follow(l, rank, actions[i])) return false;
    for (size_t i = 0; i < count; i++) {
        pp_action_text(actions[i], text[i]);
        pp_text_printf(&l->arrived[rank], ",%s,", text[i]);
    }
    snprintf(pair, sizeof pair, "(%s;%s)OVERLAP_F_B", text[0], count > 1 ? text[1] : "");
    pp_text_printf(&l->rows[rank], "%s,", count > 1 ? pair : text[0]);
    for (size_t i = 0; i < count; i++) pass_on(l, rank, actions[i]);
    return true;
}

/* As torch.distributed.pipelining puts transfers into an order: rank after rank, one action of each
 * in turn. Compute-only in, the text of a CSV out. */
static void lower(const pp_schedule *from, pp_text *csv) {
    int ranks = from->ranks, ended = 0;
    lowering l = {from, calloc((size_t)ranks, sizeof(pp_text)),
                  calloc((size_t)ranks, sizeof(pp_text))};
    size_t *next = calloc((size_t)ranks, sizeof *next);
    for (bool moved = true; ended < ranks;) {
        cr_assert(moved);
        moved = false;
        ended = 0;
        for (int p = 0; p < ranks; p++) {
            size_t index = from->first_action[p] + next[p];
            if (index >= from->first_action[p + 1]) {
                ended++;
                continue;
            }
            size_t count = from->actions[index].overlapped ? 2 : 1;
            if (!take_next(&l, p, index, count)) continue;
            next[p] += count;
            moved = true;
        }
        moved |= ended == ranks;
    }
    pp_text_string(csv, "# placement: ");
    for (int s = 0; s < from->stages; s++)
        pp_text_printf(csv, "%s%d", s ? "," : "", from->placement[s]);
    for (int p = 0; p < ranks; p++) pp_text_printf(csv, "\n%s", l.rows[p].bytes);
    for (int p = 0; p < ranks; p++) pp_text_deinit(&l.rows[p]), pp_text_deinit(&l.arrived[p]);
    free(l.rows), free(l.arrived), free(next);
}

/* A lowered order is read, passes the check, and takes as long as without its transfers. */
static void check_lowered(const char *what, const pp_schedule *schedule, const pp_sim_input *input,
                          double makespan_s) {
    pp_text csv = {0};
    pp_schedule *lowered;
    pp_error error = {.message = ""};
    lower(schedule, &csv);
    cr_assert_eq(pp_schedule_read_csv(csv.bytes, csv.length, "lowered.csv", &lowered, &error),
                 PP_OK, "%s: %s %s", what, error.place, error.message);
    cr_assert(lowered->has_transfers || schedule->ranks == 1, "%s", what);
    cr_assert_eq(pp_schedule_check(lowered, false, NULL, &error), PP_OK, "%s: %s", what,
                 error.message);
    pp_sim_input with = *input;
    with.schedule = lowered;
    pp_sim_result *result = simulate(&with);
    cr_assert_eq(result->makespan_s, makespan_s, "%s", what);
    pp_sim_result_free(result);
    pp_schedule_free(lowered);
    pp_text_deinit(&csv);
}

/* ---- replay ---------------------------------------------------------------------------------- */

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
        if (strncmp(file, "pytorch", 7) == 0)
            check_lowered(what, schedule, &input, result->makespan_s);
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
