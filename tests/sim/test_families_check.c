/* Every family over a grid of K, M and V: what it makes passes the check, what it refuses it
 * refuses in words, and its ranks hold what the literature says. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <string.h>

COUNTED_SUITE(families_check);

/* ---- the grid ------------------------------------------------------------------------------ */

/* Builds and checks; NULL if the family refuses this size. */
static pp_schedule *build_checked(const pp_schedule_request *r, pp_check_report *report) {
    pp_schedule *schedule;
    pp_error error = {0};
    pp_status status = pp_schedule_build(r, &schedule, &error);
    if (status != PP_OK) {
        cr_assert_eq(status, PP_E_INPUT, "%s K=%d M=%d V=%d", r->name, r->ranks, r->microbatches,
                     r->virtual_stages);
        cr_assert_null(schedule);
        cr_assert_gt(strlen(error.message), 20);
        return NULL;
    }
    status = pp_schedule_check(schedule, false, report, &error);
    cr_assert_eq(status, PP_OK, "%s K=%d M=%d V=%d G=%d Q=%d: %s", r->name, r->ranks,
                 r->microbatches, r->virtual_stages, r->group, r->slices, error.message);
    return schedule;
}

/* All small M, some larger ones of every remainder. */
static int next_size(int m) {
    return m < 13 ? m + 1 : m + 5;
}

static int check_sizes(const char *name, int ranks, int virtual_stages, int group, int slices) {
    int made = 0;
    for (int m = 1; m <= 40; m = next_size(m)) {
        pp_schedule_request r = {.name = name,
                                 .ranks = ranks,
                                 .microbatches = m,
                                 .virtual_stages = virtual_stages,
                                 .group = group,
                                 .slices = slices};
        pp_check_report report = {0};
        pp_schedule *schedule = build_checked(&r, &report);
        made += schedule != NULL;
        pp_free(report.peak_activations);
        pp_schedule_free(schedule);
    }
    return made;
}

Test(families_check, whatever_is_built_is_complete_and_finishes) {
    int count, made = 0;
    const pp_schedule_family *families = pp_schedule_families(&count);
    for (int i = 0; i < count; i++) {
        int of_family = 0;
        for (int k = 1; k <= 9; k++)
            for (int v = 1; v <= 4; v++) of_family += check_sizes(families[i].name, k, v, 0, 0);
        of_family += check_sizes(families[i].name, 16, 0, 0, 0);
        cr_assert_gt(of_family, 20, "%s", families[i].name);
        made += of_family;
    }
    for (int k = 1; k <= 5; k++)
        for (int option = 1; option <= 9; option++) {
            made += check_sizes("interleaved", k, 3, option, 0);
            made += check_sizes("seq1f1b", k, 1, 0, option);
        }
    cr_log_info("%d schedules checked", made);
}

/* All three rules of a bidirectional or V-shaped family that has a size of its own. */
Test(families_check, refusals_say_what_would_do) {
    static const struct {
        pp_schedule_request request;
        const char *expected;
    } cases[] = {
        {{.name = "interleaved", .ranks = 4, .microbatches = 9}, "take a multiple of 4"},
        {{.name = "interleaved", .ranks = 4, .microbatches = 8, .group = 3}, "4 to 8"},
        {{.name = "interleaved", .ranks = 4, .microbatches = 5, .virtual_stages = 3, .group = 4},
         "at least 4"},
        {{.name = "interleaved", .ranks = 4, .microbatches = 8, .group = -1}, "expected 1 or more"},
        {{.name = "bfs", .ranks = 4, .microbatches = 8, .group = 4}, "interleaved has"},
        {{.name = "1f1b", .ranks = 4, .microbatches = 8, .slices = 4}, "seq1f1b does"},
        {{.name = "seq1f1b", .ranks = 4, .microbatches = 8, .slices = 257}, "expected 1 to 256"},
        {{.name = "zb-h1", .ranks = 4, .microbatches = 6, .virtual_stages = 2},
         "multiple of K = 4"},
        {{.name = "zb-h2", .ranks = 4, .microbatches = 6, .virtual_stages = 2},
         "one stage on each"},
        {{.name = "pytorch-interleaved-zb", .ranks = 4, .microbatches = 9}, "take a multiple of 4"},
        {{.name = "zbv", .ranks = 4, .microbatches = 6, .virtual_stages = 3}, "two stages on each"},
        {{.name = "v-half", .ranks = 4, .microbatches = 6, .virtual_stages = 1},
         "two stages on each"},
        {{.name = "v-min", .ranks = 4, .microbatches = 6, .virtual_stages = 4},
         "two stages on each"},
        {{.name = "hanayo", .ranks = 4, .microbatches = 6, .virtual_stages = 3},
         "twice the number"},
        {{.name = "dualpipe", .ranks = 3, .microbatches = 8}, "must be even"},
        {{.name = "dualpipe", .ranks = 4, .microbatches = 9}, "must be even"},
        {{.name = "dualpipe", .ranks = 4, .microbatches = 6}, "at least 2K"},
        {{.name = "dualpipev", .ranks = 4, .microbatches = 7}, "at least 2K"},
        {{.name = "chimera", .ranks = 3, .microbatches = 6}, "must be even"},
        {{.name = "chimera", .ranks = 4, .microbatches = 1}, "one for each direction"},
        {{.name = "chimera", .ranks = 65534, .microbatches = 2}, "131068 stages"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_schedule *schedule;
        pp_error error = {0};
        cr_assert_eq(pp_schedule_build(&cases[i].request, &schedule, &error), PP_E_INPUT,
                     "case %zu", i);
        cr_assert(strstr(error.message, cases[i].expected), "%s", error.message);
    }
}

/* ---- what is held -------------------------------------------------------------------------- */

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Pairs of (stage, microbatch) that rank p may hold at most; *exact: and does hold. */
typedef int peak_rule(int ranks, int microbatches, int virtual_stages, int p, bool *exact);

static int peak_1f1b(int k, int m, int v, int p, bool *exact) {
    (void)v, (void)exact;
    return least(m, k - p);
}

static int peak_interleaved(int k, int m, int v, int p, bool *exact) {
    (void)exact;
    return least(m * v, (v - 1) * k + 2 * (k - 1 - p) + 1);
}

static int peak_bfs(int k, int m, int v, int p, bool *exact) {
    (void)k, (void)p, (void)exact;
    return m * v;
}

static int peak_zb_h1(int k, int m, int v, int p, bool *exact) {
    (void)v, (void)p, (void)exact;
    return least(k, m);
}

static int peak_zb_h2(int k, int m, int v, int p, bool *exact) {
    (void)v, (void)p;
    *exact = m >= 2 * k - 1;
    return 2 * k - 1;
}

static int peak_zbv(int k, int m, int v, int p, bool *exact) {
    (void)v, (void)p;
    *exact = m >= 2 * k - 1;
    return 2 * k;
}

static int peak_dualpipe(int k, int m, int v, int p, bool *exact) {
    (void)m, (void)v, (void)p, (void)exact;
    return k + 1;
}

static int peak_dualpipev(int k, int m, int v, int p, bool *exact) {
    (void)m, (void)v, (void)p, (void)exact;
    return 2 * k + 1;
}

/* K/2+1 on the outer ranks, K on the inner ones, once both directions are full. */
static int peak_chimera(int k, int m, int v, int p, bool *exact) {
    (void)v;
    *exact = m >= k;
    return k / 2 + 1 + least(p, least(k - 1 - p, k / 2 - 1));
}

static int peak_v_half(int k, int m, int v, int p, bool *exact) {
    (void)m, (void)v, (void)p;
    *exact = false;
    return 2 * ((k + 2) / 2);
}

static int peak_v_min(int k, int m, int v, int p, bool *exact) {
    (void)m, (void)v, (void)p;
    *exact = false;
    return 2 * ((k + 4) / 3);
}

static int peak_hanayo(int k, int m, int v, int p, bool *exact) {
    (void)m, (void)p;
    *exact = false;
    return k * v;
}

static void check_peaks(const char *name, int virtual_stages, bool multiples, peak_rule *rule) {
    int seen = 0;
    for (int k = 1; k <= 10; k++)
        for (int m = 1; m <= 40; m = next_size(m)) {
            pp_schedule_request r = {
                .name = name, .ranks = k, .microbatches = m, .virtual_stages = virtual_stages};
            pp_check_report report = {0};
            if (multiples && m % k != 0) continue;
            pp_schedule *schedule = build_checked(&r, &report);
            if (!schedule) continue;
            for (int p = 0; p < k; p++) {
                bool exact = true;
                int peak = (int)report.peak_activations[p];
                int expected = rule(k, m, virtual_stages, p, &exact);
                cr_assert(exact ? peak == expected : peak <= expected,
                          "%s K=%d M=%d V=%d rank %d holds %d, expected %d", name, k, m,
                          virtual_stages, p, peak, expected);
            }
            seen++;
            pp_free(report.peak_activations);
            pp_schedule_free(schedule);
        }
    cr_assert_gt(seen, 8, "%s", name);
}

Test(families_check, ranks_hold_what_is_published) {
    check_peaks("1f1b", 1, false, peak_1f1b);
    check_peaks("interleaved", 2, true, peak_interleaved);
    check_peaks("interleaved", 3, true, peak_interleaved);
    check_peaks("bfs", 3, false, peak_bfs);
    check_peaks("zb-h1", 1, false, peak_zb_h1);
    check_peaks("zb-h2", 1, false, peak_zb_h2);
    check_peaks("zbv", 2, false, peak_zbv);
    check_peaks("dualpipe", 1, false, peak_dualpipe);
    check_peaks("dualpipev", 2, false, peak_dualpipev);
    check_peaks("chimera", 1, false, peak_chimera);
    check_peaks("v-half", 2, false, peak_v_half);
    check_peaks("v-min", 2, false, peak_v_min);
    check_peaks("hanayo", 2, false, peak_hanayo);
    check_peaks("hanayo", 4, false, peak_hanayo);
}

/* Slices alive: those of the warm-up and one more. */
Test(families_check, seq1f1b_holds_a_part_of_1f1b) {
    for (int k = 1; k <= 6; k++)
        for (int slices = 1; slices <= 6; slices++) {
            pp_schedule_request r = {
                .name = "seq1f1b", .ranks = k, .microbatches = 9, .slices = slices};
            pp_check_report report = {0};
            pp_schedule *schedule = build_checked(&r, &report);
            cr_assert_eq(schedule->slices, slices);
            for (int p = 0; p < k; p++) {
                int alive = least(k - p - 1 + slices, 9 * slices);
                cr_assert_eq((int)report.peak_activations[p], (alive + slices - 1) / slices);
            }
            pp_free(report.peak_activations);
            pp_schedule_free(schedule);
        }
}

/* Slots that the schedule idles, where F takes one, and I and W one each (or B two). */
static double idle_slots(const char *name, int ranks, int microbatches, int virtual_stages,
                         double weight) {
    pp_schedule_request r = {.name = name,
                             .ranks = ranks,
                             .microbatches = microbatches,
                             .virtual_stages = virtual_stages};
    pp_schedule *schedule;
    cr_assert_eq(pp_schedule_build(&r, &schedule, NULL), PP_OK);
    costs c = costs_uniform(schedule->stages, 1, 2 - weight, weight, 0);
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *result = simulate(&input);
    double idle = result->makespan_s - 3.0 * virtual_stages * microbatches;
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
    return idle;
}

/* What the list schedulings reach, so that a change of their rules shows. 1F1B idles 6(K-1). */
Test(families_check, list_schedulings_stay_as_short_as_they_are) {
    for (int k = 2; k <= 20; k += k < 9 ? 1 : 3)
        for (int m = k; m <= 3 * k; m += k) {
            double half = idle_slots("v-half", k, m, 2, 1), min = idle_slots("v-min", k, m, 2, 1);
            cr_assert_leq(half, k % 2 == 0 && k > 2 ? 3 * k - 7 : 3 * k - 4, "K=%d M=%d: %g", k, m,
                          half);
            cr_assert_leq(min, 4 * k - 5, "K=%d M=%d: %g", k, m, min);
            cr_assert_leq(idle_slots("hanayo", k, m, 2, 0), 4 * k - 4, "K=%d M=%d", k, m);
            cr_assert_leq(idle_slots("hanayo", k, m, 4, 0), 4.5 * k - 4, "K=%d M=%d", k, m);
        }
}

/* ---- shapes -------------------------------------------------------------------------------- */

Test(families_check, bidirectional_families_have_two_chains) {
    static const char *const names[] = {"dualpipe", "chimera"};
    for (int i = 0; i < 2; i++) {
        pp_schedule *schedule = build(names[i], 4, 8);
        cr_assert_eq(schedule->stages, 8);
        cr_assert_eq(schedule->chain_count, 2);
        cr_assert_eq(schedule->microbatches, 4, "M counts both directions");
        cr_assert_eq(schedule->virtual_stages, 1);
        for (int j = 0; j < 4; j++) {
            cr_assert_eq(schedule->placement[j], j);
            cr_assert_eq(schedule->placement[4 + j], 3 - j);
        }
        pp_schedule_free(schedule);
    }
}

/* Microbatches are shared out as evenly as they go; the second direction of chimera has more. */
Test(families_check, chimera_takes_odd_numbers_of_microbatches) {
    for (int microbatches = 2; microbatches <= 13; microbatches++) {
        pp_schedule *schedule = build("chimera", 4, microbatches);
        int of_chain[2] = {0};
        for (size_t i = 0; i < schedule->first_action[4]; i++) {
            pp_action action = schedule->actions[i];
            of_chain[action.stage / 4] += action.kind == PP_FORWARD && action.stage % 4 == 0;
        }
        cr_assert_eq(of_chain[0], microbatches / 2);
        cr_assert_eq(of_chain[1], microbatches - microbatches / 2);
        cr_assert_eq(pp_schedule_all_microbatches(schedule), microbatches);
        pp_schedule_free(schedule);
    }
}

/* seq1f1b with one slice, and what has V = 1 among the interleaved ones, is what it comes from. */
Test(families_check, families_meet_where_they_should) {
    static const struct {
        pp_schedule_request one, other;
    } same[] = {
        {{.name = "seq1f1b", .slices = 1}, {.name = "1f1b"}},
        {{.name = "interleaved", .virtual_stages = 1}, {.name = "1f1b"}},
        {{.name = "bfs", .virtual_stages = 1}, {.name = "gpipe", .reverse_backward = true}},
        {{.name = "pytorch-interleaved-zb", .virtual_stages = 1}, {.name = "zb-h1"}},
        {{.name = "pytorch-interleaved-zb", .virtual_stages = 3},
         {.name = "zb-h1", .virtual_stages = 3}},
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        for (int k = 1; k <= 5; k++) {
            pp_schedule_request one = same[i].one, other = same[i].other;
            pp_schedule *a, *b;
            one.ranks = other.ranks = k;
            one.microbatches = other.microbatches = 3 * k;
            cr_assert_eq(pp_schedule_build(&one, &a, NULL), PP_OK);
            cr_assert_eq(pp_schedule_build(&other, &b, NULL), PP_OK);
            cr_assert_eq(pp_schedule_hash(a), pp_schedule_hash(b), "%s and %s, K=%d", one.name,
                         other.name, k);
            pp_schedule_free(a);
            pp_schedule_free(b);
        }
}
