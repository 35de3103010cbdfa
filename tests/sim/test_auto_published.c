/* The schedule made to measure against what the published zero-bubble scheduler reaches: its spans
 * on a grid of costs and limits, the table of the paper, and a profile with unequal stages. The
 * grid needs the published data: the folder that PPSIM_TEST_DATA names, or ../shared/data. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

COUNTED_SUITE(auto_published, .timeout = 120);

enum { RANKS_MAX = 16 };

static double number(json_t *row, const char *name) {
    return json_number_value(json_object_get(row, name));
}

static pp_auto_result solve(const pp_auto_request *request) {
    pp_auto_result result;
    pp_error error;
    pp_status status = pp_auto_schedule(request, &result, &error);
    cr_assert_eq(status, PP_OK, "%s: %s", error.place, error.message);
    return result;
}

/* Uniform stages within `activations` on each rank, half of each released by I. */
static pp_auto_result solve_uniform(int ranks, int microbatches, pp_uniform cost,
                                    double activations, pp_auto_objective objective,
                                    int64_t budget) {
    pp_stage_cost stage[RANKS_MAX];
    pp_border_cost border[RANKS_MAX];
    double limit[RANKS_MAX];
    for (int p = 0; p < ranks; p++) {
        stage[p] = (pp_stage_cost){
            .forward_s = cost.forward_s, .input_s = cost.input_s, .weight_s = cost.weight_s};
        border[p] = (pp_border_cost){.latency_s = cost.transfer_s};
        limit[p] = activations;
    }
    pp_auto_request request = {.ranks = ranks,
                               .microbatches = microbatches,
                               .stage = stage,
                               .border = border,
                               .limit = limit,
                               .objective = objective,
                               .budget = budget};
    return solve(&request);
}

Test(auto_published, never_worse_on_the_grid) {
    const char *named = getenv("PPSIM_TEST_DATA");
    char path[512];
    snprintf(path, sizeof path, "%s/zero-bubble/auto.json", named ? named : "../shared/data");
    json_t *document = json_load_file(path, 0, NULL), *row;
    if (!document) cr_skip_test("no published schedules at %s (set PPSIM_TEST_DATA)", path);
    size_t r;
    int better = 0;
    json_array_foreach(json_object_get(document, "rows"), r, row) {
        int ranks = (int)number(row, "K"), microbatches = (int)number(row, "M");
        pp_uniform cost = {number(row, "F"), number(row, "B"), number(row, "W"),
                           number(row, "comm")};
        pp_auto_result result = solve_uniform(ranks, microbatches, cost, number(row, "mem_limit_f"),
                                              (pp_auto_objective)(r % 2), 8000000);
        double theirs_s = number(row, "makespan"); /* which is a span */
        cr_assert_leq(result.span_s, theirs_s * (1 + 1e-9), "row %zu: K=%d M=%d: %g, published %g",
                      r, ranks, microbatches, result.span_s, theirs_s);
        better += result.span_s < theirs_s * (1 - 1e-9);
        pp_schedule_free(result.schedule);
    }
    cr_assert_geq(r, 100);
    cr_assert_gt(better, 0);
    json_decref(document);
}

/* Table 5 of arXiv 2401.10241: bubble = 1 - M·T/span, to four digits, with K and 2K activations. */
Test(auto_published, at_least_zb_1p_and_zb_2p) {
    static const struct {
        int ranks, microbatches;
        pp_uniform cost;
        double zb_1p, zb_2p;
    } rows[] = {
        {8, 24, {18.522, 18.086, 9.337, 0.601}, 0.1585, 0.0433},
        {8, 32, {18.513, 18.086, 9.331, 0.626}, 0.1242, 0.0039},
        {8, 64, {18.546, 18.097, 9.321, 0.762}, 0.0674, 0.0026},
        {16, 48, {11.347, 11.248, 8.132, 0.377}, 0.1397, 0.0066},
        {16, 128, {11.325, 11.308, 8.109, 0.378}, 0.0576, 0.0028},
    };
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        size_t r = i / 2;
        int times = 1 + (int)(i % 2);
        const pp_uniform *cost = &rows[r].cost;
        pp_auto_result result = solve_uniform(rows[r].ranks, rows[r].microbatches, *cost,
                                              times * rows[r].ranks, PP_AUTO_MAKESPAN, 0);
        double work_s = rows[r].microbatches * (cost->forward_s + cost->input_s + cost->weight_s);
        double bubble = 1 - work_s / result.span_s;
        cr_assert_leq(bubble, (times == 1 ? rows[r].zb_1p : rows[r].zb_2p) + 0.00005,
                      "row %zu, %d times memory: %.5f", r, times, bubble);
        pp_schedule_free(result.schedule);
    }
}

/* K = 8 measured stages, in µs and MB. Within 8 forwards of each rank's own memory the busiest
 * rank never waits; the published scheduler, which takes stages as equal, needs 3,798,692. */
Test(auto_published, unequal_stages_reach_the_optimum) {
    static const double times[8][3] = {
        {30715, 31308, 18746}, {29233, 29344, 18789}, {29106, 29357, 19062}, {29078, 29455, 19367},
        {28850, 29217, 19455}, {28919, 29384, 19967}, {28924, 29354, 20096}, {41678, 38731, 32833}};
    static const double weight[8] = {943, 1240, 1240, 1240, 1240, 1240, 1240, 1071};
    static const double released[8] = {533, 688, 688, 688, 688, 688, 688, 588};
    pp_stage_cost stage[8];
    pp_border_cost border[8];
    double limit[8];
    for (int p = 0; p < 8; p++) {
        stage[p] = (pp_stage_cost){
            .forward_s = times[p][0], .input_s = times[p][1], .weight_s = times[p][2]};
        border[p] = (pp_border_cost){.latency_s = 473};
        limit[p] = 8 * weight[p];
    }
    for (int objective = 0; objective < 2; objective++) {
        pp_auto_request request = {.ranks = 8,
                                   .microbatches = 32,
                                   .stage = stage,
                                   .border = border,
                                   .activation_weight = weight,
                                   .released_by_input_weight = released,
                                   .limit = limit,
                                   .objective = (pp_auto_objective)objective};
        pp_auto_result result = solve(&request);
        cr_assert_eq(result.span_s, 3623744, "%.10g", result.span_s);
        cr_assert_eq(result.span_bound_s, 3623744);
        cr_assert_eq(result.makespan_bound_s, result.makespan_s);
        pp_schedule_free(result.schedule);
    }
}
