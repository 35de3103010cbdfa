/* What measurements leave open: against measuring again. A store whose samples of one layer and
 * phase all took longer gives the plan another step time; that is what the step owes to this cost.
 * And what one change to a plan gives: against a search with that pinned. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(doubt);
COUNTED_SUITE(changes);

enum { KINDS = 3, PHASES = 4, REPEATS = 9, SAMPLES_MAX = 2000 };

/* Of layer kinds embed, block and head: relative spread of each phase. */
typedef struct clock_face {
    double spread;                /* of all */
    double longer[KINDS][PHASES]; /* times factor; 0: 1 */
} clock_face;

static const int layer_of_kind[KINDS] = {0, 1, 5};

static double seconds_of(int kind, int phase, int64_t size, const clock_face *face) {
    static const double base[KINDS] = {2e-5, 3e-4, 1e-4};
    double factor = face->longer[kind][phase] > 0 ? face->longer[kind][phase] : 1;
    double samples = phase == PP_PHASE_OPTIMIZER ? 1 : 0.1 + (double)size;
    return base[kind] * (1 + 0.3 * phase) * samples * factor;
}

/* Medians as they are, around them samples that scatter: by more the more phases there were. */
static void write_store(const char *path, const pp_model *model, const clock_face *face) {
    static pp_sample samples[SAMPLES_MAX];
    size_t count = 0;
    for (int k = 0; k < KINDS; k++)
        for (int phase = 0; phase < PHASES; phase++)
            for (int64_t size = 1; size <= 8; size *= 2) {
                if (phase == PP_PHASE_OPTIMIZER && size > 1) continue;
                for (int r = 0; r < REPEATS; r++) {
                    pp_sample *made = &samples[count++];
                    double off = face->spread * (1 + k + phase) * (r - REPEATS / 2);
                    *made = (pp_sample){.phase = (pp_phase)phase, .microbatch = size};
                    pp_layer_signature(&model->layers[layer_of_kind[k]], made->signature);
                    made->duration_s = seconds_of(k, phase, size, face) * (1 + off);
                }
            }
    pp_session session = {.device = "scattered",
                          .backend = "cpu",
                          .driver = "-",
                          .libraries = "-",
                          .clocks = "-",
                          .date = "2026-01-01T00:00:00Z",
                          .model = "gpt-nano"};
    pp_store *store;
    unlink(path);
    cr_assert_eq(pp_store_open(path, false, &store, NULL), PP_OK);
    cr_assert_eq(pp_store_add(store, &session, samples, count, NULL), PP_OK);
    pp_store_close(store);
}

static char path[64];

static world measured_world(const clock_face *face, int64_t batch) {
    world w = world_open("gpt-nano", "local", batch);
    pp_costs_request asked = {.model = w.model, .cluster = w.cluster, .dtype = PP_FP32, .db = path};
    snprintf(path, sizeof path, "/tmp/ppsim-doubt-%d.db", (int)getpid());
    pp_costs_close(w.costs);
    write_store(path, w.model, face);
    pp_error error = {0};
    cr_assert_eq(pp_costs_open(&asked, &w.costs, &error), PP_OK, "%s", error.message);
    w.request.costs = w.costs;
    w.request.dtype = PP_FP32;
    return w;
}

static void close_world(world *w) {
    world_free(w);
    unlink(path);
}

typedef struct pins {
    const char *schedule, *recompute, *split;
    int ranks, microbatches;
} pins;

static double step_with(const clock_face *face, const pins *p, double *doubt_s) {
    world w = measured_world(face, 8);
    pp_plan_result *result;
    pp_error error = {0};
    w.request.schedule = p->schedule;
    w.request.recompute = p->recompute;
    w.request.split = p->split;
    w.request.ranks = p->ranks;
    w.request.microbatches = p->microbatches;
    w.request.dp = w.request.tp = w.request.virtual_stages = 1;
    cr_assert_eq(pp_plan_search(&w.request, &result, &error), PP_OK, "%s", error.message);
    double seconds = result->best->predicted.iteration_time_s;
    if (doubt_s) *doubt_s = result->doubt_s;
    pp_plan_result_free(result);
    close_world(&w);
    return seconds;
}

/* Measured again, with all times of each cost in turn as much longer as they may be. */
static double doubt_of_longer(const clock_face *face, const pins *p, double seconds) {
    world w = measured_world(face, 8);
    double squares = 0;
    for (int k = 0; k < KINDS; k++)
        for (int phase = 0; phase < PHASES; phase++) {
            clock_face longer = *face;
            pp_cost cost =
                pp_costs_layer(w.costs, layer_of_kind[k], (pp_phase)phase, 8 / p->microbatches);
            longer.longer[k][phase] = 1 + cost.relative_error;
            squares += pow(step_with(&longer, p, NULL) - seconds, 2);
        }
    world_free(&w);
    return sqrt(squares);
}

Test(doubt, is_what_longer_measurements_give, .timeout = 120) {
    static const pins cases[] = {{"naive", "none", NULL, 1, 8},
                                 {"1f1b", "none", "3", 2, 4},
                                 {"1f1b", "full", "2", 2, 4},
                                 {"zb-h1", "none", "3", 2, 8}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        clock_face face = {.spread = 0.003};
        double doubt_s, seconds = step_with(&face, &cases[c], &doubt_s);
        double longer = doubt_of_longer(&face, &cases[c], seconds);
        cr_expect_gt(doubt_s, 0);
        cr_expect_float_eq(doubt_s, longer, 1e-3 * doubt_s, "%s: %g, not %g", cases[c].schedule,
                           doubt_s, longer); /* fits are as robust, not as exact */
    }
}

Test(doubt, costs_that_two_plans_share_leave_their_difference_alone) {
    pp_doubt first[] = {{1, 3}, {2, 4}}, second[] = {{3, 2}, {1, 1}};
    pp_doubts a = {.known = true, .each = first, .count = 2};
    pp_doubts b = {.known = true, .each = second, .count = 2}, unknown = {.known = false};
    cr_expect_eq(pp_doubts_between(&a, &a), 0);
    cr_expect_float_eq(pp_doubts_between(&a, &b), sqrt(4 + 16 + 4), 1e-15);
    cr_expect_eq(pp_doubts_between(&a, &b), pp_doubts_between(&b, &a));
    cr_expect(isnan(pp_doubts_between(&a, &unknown)));
}

static int count_ties(double spread) {
    clock_face face = {.spread = spread};
    world w = measured_world(&face, 8);
    pp_plan_result *result;
    int ties = 0;
    w.request.alternative_count = 20;
    w.request.ranks = 2;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    cr_expect_eq(result->alternative_count, 20);
    for (int i = 0; i < result->alternative_count; i++) {
        double more = result->alternatives[i]->predicted.iteration_time_s -
                      result->best->predicted.iteration_time_s;
        cr_expect_geq(result->alternative_doubt_s[i], 0);
        cr_expect_eq(pp_plan_ties(result, i), fabs(more) <= result->alternative_doubt_s[i]);
        ties += pp_plan_ties(result, i);
    }
    pp_plan_result_free(result);
    close_world(&w);
    return ties;
}

Test(doubt, the_more_measurements_scatter_the_more_plans_tie, .timeout = 60) {
    int few = count_ties(1e-9), some = count_ties(6e-3), all = count_ties(0.02);
    cr_expect(few < some && some < all, "%d %d %d", few, some, all);
}

Test(doubt, nothing_is_known_where_nothing_was_measured) {
    world w = world_open("gpt-nano", "local", 8);
    pp_plan_result *result;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    cr_expect(isnan(result->doubt_s));
    for (int i = 0; i < result->alternative_count; i++)
        cr_expect(isnan(result->alternative_doubt_s[i]) && !pp_plan_ties(result, i));
    pp_plan_result_free(result);
    world_free(&w);
}

/* ---- one change ------------------------------------------------------------------------------ */

static void expect_line(const pp_plan_result *result, const char *format, double seconds) {
    char line[256], time[32];
    snprintf(line, sizeof line, format, pp_format_seconds(seconds, time));
    cr_expect(strstr(result->explanation.bytes, line) != NULL, "%s not in\n%s", line,
              result->explanation.bytes);
}

static double seconds_of_pinned(const world *w, int ranks, int microbatches,
                                const char *recompute) {
    pp_plan_request asked = w->request;
    pp_plan_result *result;
    asked.tell_changes = false;
    asked.ranks = ranks;
    asked.microbatches = microbatches;
    asked.recompute = recompute;
    cr_assert_eq(pp_plan_search(&asked, &result, NULL), PP_OK);
    double seconds = result->best->predicted.iteration_time_s;
    pp_plan_result_free(result);
    return seconds;
}

Test(changes, are_what_searches_with_them_pinned_find, .timeout = 60) {
    world w = world_open("gpt-nano", "dgx-h100:1", 16);
    pp_plan_result *result;
    w.request.tell_changes = true;
    w.request.schedule = "1f1b";
    w.request.ranks = 2;
    w.request.microbatches = 4;
    w.request.dp = w.request.tp = w.request.virtual_stages = 1;
    w.request.zero = 0;
    w.request.recompute = "none";
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    expect_line(result, "\nWith 8 microbatches of 2: %s", seconds_of_pinned(&w, 2, 8, "none"));
    expect_line(result, "\nWith everything recomputed: %s", seconds_of_pinned(&w, 2, 4, "full"));
    expect_line(result, "\nWith one more rank, on 1 of the idle devices: %s",
                seconds_of_pinned(&w, 3, 4, "none"));
    pp_plan_result_free(result);
    world_free(&w);
}

/* All devices at work, each layer a rank of its own, one sample each, and memory for no more. */
Test(changes, that_cannot_be_say_why, .timeout = 60) {
    world w = world_open("gpt-nano", "dgx-h100:1", 16);
    pp_plan_result *result;
    w.request.tell_changes = true;
    w.request.schedule = "1f1b";
    w.request.ranks = 6;
    w.request.microbatches = 16;
    w.request.recompute = "full";
    w.request.dp = w.request.tp = w.request.virtual_stages = 1;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    w.request.memory_bytes = 0;
    for (int p = 0; p < 6; p++)
        if (result->best->predicted.rank[p].peak_bytes > w.request.memory_bytes)
            w.request.memory_bytes = result->best->predicted.rank[p].peak_bytes;
    pp_plan_result_free(result);
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    const char *said = result->explanation.bytes;
    cr_expect(strstr(said, "they hold one sample each"), "%s", said);
    cr_expect(strstr(said, "With nothing recomputed it does not fit: rank "), "%s", said);
    cr_expect(strstr(said, "there are no more layers to divide"), "%s", said);
    pp_plan_result_free(result);
    world_free(&w);
}

Test(changes, another_rank_may_need_another_machine, .timeout = 60) {
    world w = world_open("gpt-nano", "dgx-h100:1", 64);
    pp_plan_result *result;
    w.request.tell_changes = true;
    w.request.schedule = "1f1b";
    w.request.ranks = 2;
    w.request.dp = 4;
    w.request.tp = 1;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    cr_expect(strstr(result->explanation.bytes, "\nWith one more rank, on 4 more devices: "), "%s",
              result->explanation.bytes);
    pp_plan_result_free(result);
    world_free(&w);
}
