/* Closed forms of the families against the simulation, on their whole domain and not beyond: where
 * a formula gives a number it must be the simulated one to 1e-12. And the bubbles that Qi et al.
 * (2023, "Zero bubble pipeline parallelism", tables 5 and 9) print. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

COUNTED_SUITE(families_forms);

static const pp_uniform uniforms[] = {
    {1, 1, 1, 0},     {1.7, 2.3, 0.9, 0}, {1, 2, 3, 0},    {3, 1, 2, 0},   {2, 1, 1, 0},
    {0, 1, 1, 0},     {1, 0, 1, 0},       {1, 1, 0, 0},    {5, 1, 4, 0},   {1, 5, 4, 0},
    {0.5, 8, 1.5, 0}, {8, 0.5, 1.5, 0},   {1, 2, 1, 0.25}, {2, 1, 1, 0.1}, {3, 3, 1, 0.5},
};
enum { UNIFORMS = sizeof uniforms / sizeof *uniforms };

/* How many numbers, rather than NANs, were checked. */
typedef struct tally {
    int bubbles, spans;
} tally;

static void check_number(const pp_schedule_request *r, const pp_uniform *u, const char *what,
                         double formula, double simulated, int *count) {
    if (isnan(formula)) return;
    cr_assert_leq(fabs(formula - simulated), 1e-12,
                  "%s of %s K=%d M=%d V=%d F=%g I=%g W=%g c=%g: formula %.15g, simulated %.15g",
                  what, r->name, r->ranks, r->microbatches, r->virtual_stages, u->forward_s,
                  u->input_s, u->weight_s, u->transfer_s, formula, simulated);
    ++*count;
}

static void check_costs(const pp_schedule_family *family, const pp_schedule_request *r,
                        const pp_schedule *schedule, const pp_uniform *u, tally *t) {
    double bubble = family->closed_form_bubble(r, u), span = family->closed_form_span_bubble(r, u);
    if (isnan(bubble) && isnan(span)) return;
    costs c = costs_uniform(schedule->stages, u->forward_s, u->input_s, u->weight_s, u->transfer_s);
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *result = simulate(&input);
    check_number(r, u, "bubble", bubble, result->bubble_fraction, &t->bubbles);
    check_number(r, u, "span bubble", span, result->span_bubble_fraction, &t->spans);
    pp_sim_result_free(result);
    costs_free(&c);
}

static void check_family(const pp_schedule_family *family, int virtual_stages, tally *t) {
    for (int ranks = 1; ranks <= 16; ranks++)
        for (int microbatches = 1; microbatches <= 64; microbatches++) {
            pp_schedule_request r = {.name = family->name,
                                     .ranks = ranks,
                                     .microbatches = microbatches,
                                     .virtual_stages = virtual_stages};
            pp_schedule *schedule;
            if (pp_schedule_build(&r, &schedule, NULL) != PP_OK) continue;
            /* all costs for small sizes, a few that take turns for the others */
            for (int i = 0; i < UNIFORMS; i++)
                if (ranks * microbatches <= 24 || i % 8 == (ranks + 3 * microbatches) % 8)
                    check_costs(family, &r, schedule, &uniforms[i], t);
            pp_schedule_free(schedule);
        }
}

static void check_everywhere(const char *name, int virtual_most, int least_checked) {
    const pp_schedule_family *family = pp_schedule_family_find(name);
    tally t = {0};
    cr_assert_not_null(family, "%s", name);
    for (int v = 1; v <= virtual_most; v++)
        if (virtual_most > 1 || family->natural_virtual == 1)
            check_family(family, v, &t);
        else
            check_family(family, family->natural_virtual, &t);
    cr_log_info("%s: %d bubbles, %d span bubbles", name, t.bubbles, t.spans);
    cr_assert_geq(t.bubbles, least_checked, "%s has numbers on its domain", name);
    cr_assert_geq(t.spans, least_checked, "%s has numbers on its domain", name);
}

Test(families_forms, hold_on_their_domain) {
    check_everywhere("naive", 1, 1000);
    check_everywhere("gpipe", 1, 1000);
    check_everywhere("1f1b", 1, 1000);
    check_everywhere("interleaved", 4, 1000);
    check_everywhere("bfs", 4, 1000);
    check_everywhere("zb-h1", 4, 300);
    check_everywhere("zb-h2", 1, 200);
    check_everywhere("zbv", 1, 20);
    check_everywhere("dualpipe", 1, 20);
    check_everywhere("dualpipev", 1, 50);
    check_everywhere("chimera", 1, 10);
}

/* On the domain that each formula is published for, it must not be NAN. */
Test(families_forms, give_numbers_where_they_are_published) {
    static const struct {
        const char *name;
        int ranks, microbatches, virtual_stages;
        pp_uniform cost;
        bool number;
    } cases[] = {
        {"bfs", 4, 4, 3, {1, 2, 3, 0}, true},         {"bfs", 4, 3, 3, {1, 2, 3, 0}, false},
        {"interleaved", 4, 8, 3, {1, 2, 3, 0}, true}, {"interleaved", 4, 6, 3, {1, 2, 3, 0}, false},
        {"zb-h1", 4, 4, 1, {2, 2, 1, 0}, true},       {"zb-h1", 4, 3, 1, {2, 2, 1, 0}, false},
        {"zb-h1", 4, 8, 1, {1, 2, 2, 0}, false},      {"zb-h1", 4, 8, 1, {2, 1, 2, 0}, false},
        {"zb-h2", 4, 7, 1, {2, 2, 1, 0}, true},       {"zb-h2", 4, 6, 1, {2, 2, 1, 0}, false},
        {"zb-h2", 4, 7, 1, {1, 1, 2, 0}, false},      {"zbv", 4, 7, 2, {3, 3, 3, 0}, true},
        {"zbv", 4, 7, 2, {3, 3, 2, 0}, false},        {"zbv", 4, 6, 2, {3, 3, 3, 0}, false},
        {"dualpipe", 4, 8, 1, {1, 1, 1, 0}, true},    {"dualpipev", 4, 8, 2, {1, 1, 1, 0}, true},
        {"chimera", 4, 8, 1, {2, 1, 1, 0}, true},     {"chimera", 4, 6, 1, {2, 1, 1, 0}, false},
        {"chimera", 4, 8, 1, {1, 1, 1, 0}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_schedule_request r = {.name = cases[i].name,
                                 .ranks = cases[i].ranks,
                                 .microbatches = cases[i].microbatches,
                                 .virtual_stages = cases[i].virtual_stages};
        double bubble = pp_schedule_family_find(r.name)->closed_form_bubble(&r, &cases[i].cost);
        cr_assert_eq(!isnan(bubble), cases[i].number, "case %zu, %s", i, r.name);
    }
}

/* ---- where there is a number -------------------------------------------------------------------
 */

typedef bool domain(const pp_schedule_request *r, const pp_uniform *u);

/* Not beyond rounding: these costs have few digits. */
static bool equal(double a, double b) {
    return fabs(a - b) < 1e-9;
}

static bool everywhere(const pp_schedule_request *r, const pp_uniform *u) {
    return (void)u, r->virtual_stages == 1;
}
static bool whole_groups(const pp_schedule_request *r, const pp_uniform *u) {
    return (void)u, r->microbatches % r->ranks == 0;
}
static bool filled(const pp_schedule_request *r, const pp_uniform *u) {
    return (void)u, r->microbatches >= r->ranks;
}
static bool weights_shortest(const pp_schedule_request *r, const pp_uniform *u) {
    return r->virtual_stages == 1 && r->microbatches >= r->ranks && u->forward_s >= u->weight_s &&
           u->input_s >= u->weight_s;
}
static bool parallelogram(const pp_schedule_request *r, const pp_uniform *u) {
    return r->virtual_stages == 1 && r->microbatches >= 2 * r->ranks - 1 &&
           u->forward_s >= u->weight_s &&
           (r->ranks == 1 || u->forward_s + u->input_s >= 2 * u->weight_s);
}
static bool all_equal(const pp_schedule_request *r, const pp_uniform *u) {
    return r->virtual_stages == 2 && r->microbatches >= 2 * r->ranks - 1 &&
           equal(u->forward_s, u->input_s) && equal(u->forward_s, u->weight_s);
}
static bool two_ways(const pp_schedule_request *r, const pp_uniform *u) {
    return r->microbatches >= 2 * r->ranks && equal(u->forward_s, u->input_s) &&
           u->input_s >= u->weight_s;
}
static bool whole_units(const pp_schedule_request *r, const pp_uniform *u) {
    return r->microbatches % r->ranks == 0 && equal(u->forward_s, u->input_s + u->weight_s);
}

/* For requests that can be built, on the whole grid, the forms are numbers exactly where
 * docs/schedules.md ("holds for") says so. */
Test(families_forms, are_numbers_on_their_domain_alone) {
    static const struct {
        const char *name;
        domain *in_domain;
    } families[] = {
        {"naive", everywhere},    {"gpipe", everywhere},
        {"1f1b", everywhere},     {"interleaved", whole_groups},
        {"bfs", filled},          {"zb-h1", weights_shortest},
        {"zb-h2", parallelogram}, {"zbv", all_equal},
        {"dualpipe", two_ways},   {"dualpipev", two_ways},
        {"chimera", whole_units}, {"v-half", NULL},
        {"v-min", NULL},          {"hanayo", NULL},
        {"seq1f1b", NULL},        {"pytorch-interleaved-zb", NULL},
    };
    int inside = 0;
    for (int n = 0; n < 16 * 16 * 64 * 4; n++) {
        const pp_schedule_family *family = pp_schedule_family_find(families[n % 16].name);
        domain *in_domain = families[n % 16].in_domain;
        pp_schedule_request r = {.name = family->name,
                                 .ranks = 1 + n / 16 % 16,
                                 .microbatches = 1 + n / 256 % 64,
                                 .virtual_stages = 1 + n / 16384};
        if (family->validate(&r, NULL) != PP_OK) continue;
        for (int i = 0; i < UNIFORMS; i++) {
            const pp_uniform *u = &uniforms[i];
            bool number = in_domain && u->transfer_s == 0 && in_domain(&r, u);
            bool given = !isnan(family->closed_form_bubble(&r, u));
            cr_assert_eq(given, number, "%s K=%d M=%d V=%d costs %d: %d", r.name, r.ranks,
                         r.microbatches, r.virtual_stages, i, given);
            inside += number;
        }
    }
    cr_assert_gt(inside, 50000, "%d", inside);
}

/* Transfers that take time, and recomputation, are outside of every domain but of zb-h2's span. */
Test(families_forms, end_with_transfers_and_recomputation) {
    int count;
    const pp_schedule_family *families = pp_schedule_families(&count);
    for (int i = 0; i < count; i++) {
        pp_schedule_request r = {.name = families[i].name,
                                 .ranks = 4,
                                 .microbatches = 8,
                                 .virtual_stages = families[i].natural_virtual};
        pp_uniform slow = {2, 1, 1, 0.5}, quick = {2, 1, 1, 0};
        bool span_has_transfers = strcmp(r.name, "zb-h2") == 0;
        cr_assert(isnan(families[i].closed_form_bubble(&r, &slow)), "%s", r.name);
        cr_assert(isnan(families[i].closed_form_span_bubble(&r, &slow)) != span_has_transfers);
        r.recompute = PP_RECOMPUTE_FULL;
        cr_assert(isnan(families[i].closed_form_bubble(&r, &quick)), "%s", r.name);
        cr_assert(isnan(families[i].closed_form_span_bubble(&r, &slow)), "%s", r.name);
    }
}

/* ---- zero bubble, tables 5 and 9 ------------------------------------------------------------- */

Test(families_forms, zero_bubble_tables_to_four_digits) {
    static const char *const names[] = {"1f1b", "zb-h1", "zb-h2"};
    static const struct {
        int ranks, microbatches;
        double f, i, w, c, bubbles[3];
    } rows[] = {
        {8, 24, 18.522, 18.086, 9.337, 0.601, {.2431, .1585, .1083}},
        {8, 32, 18.513, 18.086, 9.331, 0.626, {.1985, .1242, .0837}},
        {8, 64, 18.546, 18.097, 9.321, 0.762, {.1240, .0674, .0444}},
        {16, 48, 11.347, 11.248, 8.132, 0.377, {.2552, .1397, .0672}},
        {16, 128, 11.325, 11.308, 8.109, 0.378, {.1251, .0576, .0266}},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (int n = 0; n < 3; n++) {
            pp_schedule *schedule = build(names[n], rows[r].ranks, rows[r].microbatches);
            costs c = costs_uniform(rows[r].ranks, rows[r].f, rows[r].i, rows[r].w, rows[r].c);
            pp_sim_input input = input_of(schedule, &c);
            pp_sim_result *result = simulate(&input);
            double rounded = round(result->span_bubble_fraction * 1e4) / 1e4;
            cr_assert_float_eq(rounded, rows[r].bubbles[n], 1e-9, "%s row %zu: %.6f", names[n], r,
                               result->span_bubble_fraction);
            pp_sim_result_free(result);
            pp_schedule_free(schedule);
            costs_free(&c);
        }
}
