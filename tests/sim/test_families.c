/* The families of schedules: their orders, closed forms, peaks, and what they refuse. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

COUNTED_SUITE(families);

static double closed_form(const char *name, int ranks, int microbatches, pp_uniform cost) {
    pp_schedule_request request = {.name = name, .ranks = ranks, .microbatches = microbatches};
    return pp_schedule_family_find(name)->closed_form_bubble(&request, &cost);
}

/* Uniform stages, no transfers: makespan and bubble of one schedule against its formulas. */
static void check_uniform(const char *name, int ranks, int microbatches, double makespan) {
    const pp_uniform cost = {1.7, 2.3, 0.9, 0};
    pp_schedule *schedule = build(name, ranks, microbatches);
    costs c = costs_uniform(ranks, cost.forward_s, cost.input_s, cost.weight_s, 0);
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *result = simulate(&input);
    double bubble = closed_form(name, ranks, microbatches, cost);
    cr_assert_leq(fabs(result->makespan_s - makespan), 1e-12 * makespan,
                  "%s K=%d M=%d: %.17g, %.17g", name, ranks, microbatches, result->makespan_s,
                  makespan);
    cr_assert_leq(fabs(result->bubble_fraction - bubble), 1e-12, "%s K=%d M=%d bubble", name, ranks,
                  microbatches);
    cr_assert_leq(result->lower_bound_s, result->makespan_s);
    cr_assert_eq(result->action_count, 2 * (size_t)ranks * (size_t)microbatches);
    for (int p = 0; p < ranks && strcmp(name, "1f1b") == 0; p++) {
        int peak = ranks - p < microbatches ? ranks - p : microbatches;
        cr_assert_eq(result->rank[p].peak_activations, peak, "K=%d M=%d rank %d", ranks,
                     microbatches, p);
    }
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(families, closed_forms_hold_to_1e_12) {
    const double t = 1.7 + 2.3 + 0.9;
    for (int ranks = 1; ranks <= 16; ranks++)
        for (int microbatches = 1; microbatches <= 64; microbatches++) {
            check_uniform("gpipe", ranks, microbatches, (microbatches + ranks - 1) * t);
            check_uniform("1f1b", ranks, microbatches, (microbatches + ranks - 1) * t);
            check_uniform("naive", ranks, microbatches, (double)ranks * microbatches * t);
        }
}

Test(families, closed_forms_end_with_their_domain) {
    pp_uniform free_transfers = {1, 1, 1, 0}, slow = {1, 1, 1, 0.5};
    const char *names[] = {"naive", "gpipe", "1f1b"};
    for (int i = 0; i < 3; i++) {
        cr_assert(isfinite(closed_form(names[i], 4, 8, free_transfers)));
        cr_assert(isnan(closed_form(names[i], 4, 8, slow)));
        pp_schedule_request recomputing = {
            .name = names[i], .ranks = 4, .microbatches = 8, .recompute = PP_RECOMPUTE_FULL};
        cr_assert(isnan(
            pp_schedule_family_find(names[i])->closed_form_bubble(&recomputing, &free_transfers)));
    }
}

/* The actions of one rank in one line. */
static const char *row(const pp_schedule *schedule, int p, char *line) {
    char cell[32];
    *line = '\0';
    for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++) {
        if (*line) strcat(line, " ");
        strcat(line, pp_action_text(schedule->actions[i], cell));
    }
    return line;
}

static void expect_row(const pp_schedule_request *request, int p, const char *expected) {
    pp_schedule *schedule;
    char line[1024];
    cr_assert_eq(pp_schedule_build(request, &schedule, NULL), PP_OK);
    cr_assert_str_eq(row(schedule, p, line), expected);
    pp_schedule_free(schedule);
}

Test(families, orders_by_hand) {
    static const struct {
        const char *name;
        int ranks, microbatches;
        pp_recompute recompute;
        bool reverse;
        int rank;
        const char *row;
    } cases[] = {
        {"naive", 2, 2, 0, false, 0, "0F0 0B0 0F1 0B1"},
        {"gpipe", 2, 3, 0, false, 1, "1F0 1F1 1F2 1B0 1B1 1B2"},
        {"gpipe", 2, 3, 0, true, 1, "1F0 1F1 1F2 1B2 1B1 1B0"},
        {"1f1b", 4, 5, 0, false, 0, "0F0 0F1 0F2 0F3 0B0 0F4 0B1 0B2 0B3 0B4"},
        {"1f1b", 4, 5, 0, false, 3, "3F0 3B0 3F1 3B1 3F2 3B2 3F3 3B3 3F4 3B4"},
        {"1f1b", 4, 2, 0, false, 0, "0F0 0F1 0B0 0B1"},
        {"1f1b", 4, 2, 0, false, 2, "2F0 2F1 2B0 2B1"},
        {"gpipe", 1, 2, PP_RECOMPUTE_FULL, false, 0, "0F0 0F1 0R0 0B0 0R1 0B1"},
        {"gpipe", 1, 2, PP_RECOMPUTE_EXCEPT_LAST, false, 0, "0F0 0F1 0R0 0B0 0B1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_schedule_request request = {.name = cases[i].name,
                                       .ranks = cases[i].ranks,
                                       .microbatches = cases[i].microbatches,
                                       .recompute = cases[i].recompute,
                                       .reverse_backward = cases[i].reverse};
        expect_row(&request, cases[i].rank, cases[i].row);
    }
}

Test(families, the_table_is_complete) {
    int count;
    const pp_schedule_family *families = pp_schedule_families(&count);
    cr_assert_geq(count, 3);
    for (int i = 0; i < count; i++) {
        cr_assert(families[i].name && families[i].summary && families[i].constraint);
        cr_assert(families[i].source && families[i].count && families[i].build);
        cr_assert_geq(families[i].natural_virtual, 1);
        cr_assert_eq(pp_schedule_family_find(families[i].name), &families[i]);
    }
    cr_assert_null(pp_schedule_family_find("no such schedule"));
}

/* NULL: not defined. */
static pp_schedule *try_build(const char *name, int ranks, int virtual_stages, int microbatches) {
    pp_schedule *schedule = NULL;
    pp_schedule_request request = {.name = name,
                                   .ranks = ranks,
                                   .virtual_stages = virtual_stages,
                                   .microbatches = microbatches};
    return pp_schedule_build(&request, &schedule, NULL) == PP_OK ? schedule : NULL;
}

static int expect_same(const pp_schedule_family *family, int ranks, int stages, int microbatches) {
    pp_schedule *one = try_build(family->name, ranks, stages, microbatches);
    pp_schedule *other = try_build(family->same_as, ranks, stages, microbatches);
    int same = one != NULL && other != NULL;
    if (same) {
        size_t count = one->first_action[ranks];
        cr_assert_eq(other->first_action[ranks], count);
        cr_assert_arr_eq(one->first_action, other->first_action,
                         ((size_t)ranks + 1) * sizeof *one->first_action);
        cr_assert_arr_eq(one->placement, other->placement,
                         (size_t)one->stages * sizeof *one->placement);
        cr_assert_arr_eq(one->actions, other->actions, count * sizeof *one->actions,
                         "%s, %s: K=%d V=%d M=%d", family->name, family->same_as, ranks, stages,
                         microbatches);
    }
    pp_schedule_free(one);
    pp_schedule_free(other);
    return same;
}

Test(families, twins_have_the_same_orders) {
    int count, compared = 0;
    const pp_schedule_family *families = pp_schedule_families(&count);
    for (int i = 0; i < count; i++) {
        if (families[i].same_as == NULL) continue;
        for (int ranks = 1; ranks <= 8; ranks++)
            for (int stages = 1; stages <= 5; stages++)
                for (int microbatches = 1; microbatches <= 24; microbatches++)
                    compared += expect_same(&families[i], ranks, stages, microbatches);
    }
    cr_assert_gt(compared, 200);
}

Test(families, refuse_what_they_cannot_be) {
    static const struct {
        pp_schedule_request request;
        const char *expected;
    } cases[] = {
        {{.name = "1f2b", .ranks = 2, .microbatches = 2}, "known are naive, gpipe, 1f1b"},
        {{.name = NULL, .ranks = 2, .microbatches = 2}, "known are"},
        {{.name = "1f1b", .ranks = 0, .microbatches = 2}, "0 ranks"},
        {{.name = "1f1b", .ranks = 70000, .microbatches = 2}, "70000 ranks"},
        {{.name = "1f1b", .ranks = 2, .microbatches = 0}, "0 microbatches"},
        {{.name = "1f1b", .ranks = 2, .microbatches = 2, .virtual_stages = 2}, "one stage on each"},
        {{.name = "gpipe", .ranks = 2, .microbatches = 2, .virtual_stages = -1}, "-1 virtual"},
        {{.name = "1f1b", .ranks = 2, .microbatches = 2, .reverse_backward = true}, "gpipe alone"},
        {{.name = "gpipe", .ranks = 65000, .microbatches = 16777216}, "actions, more than"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_schedule *schedule;
        pp_error error = {0};
        cr_assert_eq(pp_schedule_build(&cases[i].request, &schedule, &error), PP_E_INPUT);
        cr_assert_null(schedule);
        cr_assert(strstr(error.message, cases[i].expected), "%s", error.message);
    }
}

Test(families, recomputation_goes_before_a_pair_and_not_twice) {
    pp_schedule *schedule, *with, *again = NULL;
    char line[256];
    schedule = schedule_from("0F0 0F1 0F2& 0I0 0B1 0B2 0W0", (int[]){0}, 1, 1);
    cr_assert_eq(pp_schedule_add_recompute(schedule, PP_RECOMPUTE_EXCEPT_LAST, &with, NULL), PP_OK);
    cr_assert_str_eq(row(with, 0, line), "0F0 0F1 0R0 0F2 0I0 0R1 0B1 0B2 0W0");
    cr_assert(with->actions[3].overlapped && !with->actions[4].overlapped);
    cr_assert_eq(pp_schedule_add_recompute(with, PP_RECOMPUTE_FULL, &again, NULL), PP_E_INPUT);
    cr_assert_null(again);
    pp_schedule_free(with);
    pp_schedule_free(schedule);
}
