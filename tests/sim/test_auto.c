/* The schedule made to measure against an exhaustive search of all orders of tiny cases, against
 * every named family that fits the same memory, and against the engine and the check. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(auto_schedule, .timeout = 120);

enum { RANKS = 4, STAGES = 8, MICROBATCHES = 6, NODES_MAX = 200000 };
#define ROUNDING 1e-9

/* A request with room for its arrays. */
typedef struct instance {
    pp_auto_request request;
    pp_stage_cost stage[STAGES];
    pp_border_cost border[STAGES];
    double weight[STAGES], released[STAGES], limit[STAGES];
} instance;

static void instance_link(instance *i) {
    i->request.stage = i->stage;
    i->request.border = i->border;
    i->request.activation_weight = i->weight;
    i->request.released_by_input_weight = i->released;
    i->request.limit = i->limit;
}

static int rank_of(const instance *i, int stage) {
    int ranks = i->request.ranks;
    return stage < ranks ? stage : 2 * ranks - 1 - stage;
}

static pp_stage_cost random_cost(dice *d) {
    return (pp_stage_cost){.forward_s = 1 + dice_below(d, 9),
                           .input_s = 1 + dice_below(d, 9),
                           .weight_s = dice_below(d, 9)};
}

/* Whole numbers, so that sums are exact; uniform stages now and then; memory from one microbatch up
 * to plenty. */
static void instance_random(dice *d, int visits, int ranks, int microbatches, instance *i) {
    *i = (instance){.request = {.ranks = ranks,
                                .microbatches = microbatches,
                                .virtual_stages = visits,
                                .budget = 10000000}};
    instance_link(i);
    bool uniform = dice_chance(d, 3);
    for (int s = 0; s < ranks * visits; s++) {
        i->stage[s] = uniform && s ? i->stage[0] : random_cost(d);
        i->border[s].latency_s = dice_below(d, 3);
        i->weight[s] = uniform ? 2 : 2 + dice_below(d, 3);
        i->released[s] = uniform ? 1 : dice_below(d, 3);
    }
    for (int p = 0; p < ranks; p++)
        i->limit[p] = dice_below(d, 2 * ranks + 1) + i->weight[p] +
                      (visits > 1 ? i->weight[2 * ranks - 1 - p] : 0);
}

static pp_auto_result solve(const pp_auto_request *request) {
    pp_auto_result result;
    pp_error error;
    pp_status status = pp_auto_schedule(request, &result, &error);
    cr_assert_eq(status, PP_OK, "%s: %s", error.place, error.message);
    return result;
}

static double of(const pp_auto_result *result, pp_auto_objective objective) {
    return objective == PP_AUTO_SPAN ? result->span_s : result->makespan_s;
}

static double bound_of(const pp_auto_result *result, pp_auto_objective objective) {
    return objective == PP_AUTO_SPAN ? result->span_bound_s : result->makespan_bound_s;
}

/* ---- all orders ---------------------------------------------------------------------------- */

/* Builds every order whose actions are taken up in the sequence of their starts, each as early as
 * its rank and its input allow. Nothing is shared with the library: a state per (stage,
 * microbatch), microbatches first come, first served. */
typedef struct explorer {
    const instance *of;
    pp_auto_objective objective;
    double best_s;
    long nodes;
    double end_s[STAGES][3][MICROBATCHES]; /* of each F, I and W */
    int done[STAGES][3];
    double free_s[RANKS], first_s[RANKS], weight[RANKS], left_s[RANKS];
} explorer;

static double delay(const explorer *e, int from, int to) {
    int border = from < to ? from : to;
    return rank_of(e->of, from) == rank_of(e->of, to) ? 0 : e->of->border[border].latency_s;
}

static double duration(const explorer *e, int s, int kind) {
    const pp_stage_cost *cost = &e->of->stage[s];
    return kind == 0 ? cost->forward_s : kind == 1 ? cost->input_s : cost->weight_s;
}

/* When the next action of this kind can start at the earliest; -1: not yet. */
static double earliest(const explorer *e, int s, int kind) {
    int stages = e->of->request.ranks * e->of->request.virtual_stages;
    int m = e->done[s][kind], p = rank_of(e->of, s);
    if (m == e->of->request.microbatches || (kind > 0 && e->done[s][kind - 1] <= m)) return -1;
    if (kind == 0 && e->weight[p] + e->of->weight[s] > e->of->limit[p]) return -1;
    int from = kind == 0 ? s - 1 : kind == 1 ? s + 1 : s;
    if (kind == 2 || from < 0 || from == stages) return e->free_s[p];
    if (e->done[from][kind] <= m) return -1;
    return fmax(e->free_s[p], e->end_s[from][kind][m] + delay(e, from, s));
}

/* What the objective is at least, if every rank works on without a pause. */
static double reached(const explorer *e) {
    double worst_s = 0;
    for (int p = 0; p < e->of->request.ranks; p++) {
        double since_s = e->objective == PP_AUTO_SPAN ? fmax(0, e->first_s[p]) : 0;
        worst_s = fmax(worst_s, e->free_s[p] + e->left_s[p] - since_s);
    }
    return worst_s;
}

static void explore(explorer *e, double now_s, int left) {
    if (++e->nodes > NODES_MAX || reached(e) >= e->best_s) return;
    if (left == 0) {
        e->best_s = reached(e);
        return;
    }
    int stages = e->of->request.ranks * e->of->request.virtual_stages;
    for (int s = 0; s < stages; s++)
        for (int kind = 0; kind < 3; kind++) {
            double start_s = earliest(e, s, kind);
            if (start_s < now_s) continue; /* it would have come before, or cannot come */
            int p = rank_of(e->of, s), m = e->done[s][kind];
            double free_s = e->free_s[p], first_s = e->first_s[p], weight = e->weight[p];
            double released = e->of->released[s];
            const double change[3] = {e->of->weight[s], -released, released - e->of->weight[s]};
            if (first_s < 0) e->first_s[p] = start_s;
            e->free_s[p] = e->end_s[s][kind][m] = start_s + duration(e, s, kind);
            e->weight[p] += change[kind];
            e->left_s[p] -= duration(e, s, kind);
            e->done[s][kind]++;
            explore(e, start_s, left - 1);
            e->done[s][kind]--;
            e->left_s[p] += duration(e, s, kind);
            e->weight[p] = weight;
            e->free_s[p] = free_s;
            e->first_s[p] = first_s;
        }
}

/* The optimum, or -1 if the search was too large. upper_s: something that is reached. */
static double optimum(const instance *i, pp_auto_objective objective, double upper_s) {
    explorer e = {.of = i, .objective = objective, .best_s = upper_s * (1 + ROUNDING) + ROUNDING};
    int stages = i->request.ranks * i->request.virtual_stages;
    for (int p = 0; p < i->request.ranks; p++) e.first_s[p] = -1;
    for (int s = 0; s < stages; s++)
        for (int kind = 0; kind < 3; kind++)
            e.left_s[rank_of(i, s)] += i->request.microbatches * duration(&e, s, kind);
    explore(&e, 0, stages * 3 * i->request.microbatches);
    return e.nodes > NODES_MAX ? -1 : e.best_s;
}

static void compare_with_all(dice *d, int visits, int ranks, int microbatches, int cases) {
    int proved = 0;
    for (int n = 0; n < cases; n++) {
        uint64_t seed = d->state;
        instance i;
        instance_random(d, visits, ranks, microbatches, &i);
        i.request.objective = n % 2 ? PP_AUTO_SPAN : PP_AUTO_MAKESPAN;
        pp_auto_result result = solve(&i.request);
        double ours_s = of(&result, i.request.objective);
        double best_s = optimum(&i, i.request.objective, ours_s);
        double bound_s = bound_of(&result, i.request.objective);
        pp_schedule_free(result.schedule);
        if (best_s < 0) continue;
        proved++;
        cr_assert_leq(fabs(ours_s - best_s), ROUNDING * best_s + 2 * ROUNDING,
                      "V=%d K=%d M=%d seed %llu objective %d: %.10g, optimum %.10g", visits, ranks,
                      microbatches, (unsigned long long)seed, (int)i.request.objective, ours_s,
                      best_s);
        cr_assert_leq(bound_s, best_s * (1 + ROUNDING) + 2 * ROUNDING,
                      "V=%d K=%d M=%d seed %llu: bound %.10g above the optimum %.10g", visits,
                      ranks, microbatches, (unsigned long long)seed, bound_s, best_s);
    }
    cr_assert_geq(2 * proved, cases, "V=%d K=%d M=%d: only %d of %d explored", visits, ranks,
                  microbatches, proved, cases);
}

Test(auto_schedule, equals_exhaustive_search) {
    dice d = {20261121};
    compare_with_all(&d, 1, 1, 4, 6);
    compare_with_all(&d, 1, 2, 3, 24);
    compare_with_all(&d, 1, 2, 4, 8);
    compare_with_all(&d, 1, 3, 2, 12);
    compare_with_all(&d, 2, 1, 3, 6);
    compare_with_all(&d, 2, 2, 2, 10);
}

/* ---- against the named families -------------------------------------------------------------- */

static void set_limits(const pp_sim_result *named, instance *i) {
    for (int p = 0; p < i->request.ranks; p++) i->limit[p] = named->rank[p].peak_activation_weight;
}

static bool on_our_placement(const instance *i, const pp_schedule *schedule) {
    if (schedule->chain_count > 1 || schedule->slices > 1) return false;
    for (int s = 0; s < schedule->stages; s++)
        if (schedule->placement[s] != rank_of(i, s)) return false;
    return true;
}

/* How one family does on these costs, and auto within the same memory. */
static int compare_with_family(const char *name, instance *i) {
    pp_schedule_request request = {.name = name,
                                   .ranks = i->request.ranks,
                                   .microbatches = i->request.microbatches,
                                   .virtual_stages = i->request.virtual_stages};
    pp_schedule *schedule;
    if (pp_schedule_build(&request, &schedule, NULL) != PP_OK) return 0;
    if (!on_our_placement(i, schedule)) {
        pp_schedule_free(schedule);
        return 0;
    }
    pp_sim_input input = {.schedule = schedule,
                          .stage = i->stage,
                          .border = i->border,
                          .activation_weight = i->weight,
                          .released_by_input_weight = i->released};
    pp_sim_result *named = simulate(&input);
    set_limits(named, i);
    for (int objective = 0; objective < 2; objective++) {
        i->request.objective = (pp_auto_objective)objective;
        pp_auto_result result = solve(&i->request);
        double theirs_s = objective ? named->span_s : named->makespan_s;
        cr_assert_leq(of(&result, i->request.objective), theirs_s * (1 + ROUNDING),
                      "%s K=%d M=%d V=%d objective %d", name, request.ranks, request.microbatches,
                      request.virtual_stages, objective);
        pp_schedule_free(result.schedule);
    }
    pp_sim_result_free(named);
    pp_schedule_free(schedule);
    return 1;
}

Test(auto_schedule, never_worse_than_a_named_family) {
    dice d = {77};
    int count, compared = 0;
    const pp_schedule_family *families = pp_schedule_families(&count);
    for (int visits = 1; visits <= 2; visits++)
        for (int microbatches = 1; microbatches <= 13; microbatches += 4)
            for (int f = 0; f < count; f++) {
                instance i;
                instance_random(&d, visits, 2 + dice_below(&d, RANKS - 1), microbatches, &i);
                i.request.budget = 300000;
                compared += compare_with_family(families[f].name, &i);
            }
    cr_assert_gt(compared, 30);
}

/* ---- the result ---------------------------------------------------------------------------- */

static void expect_sound(const instance *i, const pp_auto_result *result) {
    pp_check_report report = {0};
    pp_error error;
    cr_assert_eq(pp_schedule_check(result->schedule, false, &report, &error), PP_OK, "%s",
                 error.message);
    pp_free(report.peak_activations);
    pp_sim_input input = {.schedule = result->schedule,
                          .stage = i->stage,
                          .border = i->border,
                          .activation_weight = i->weight,
                          .released_by_input_weight = i->released};
    pp_sim_result *timed = simulate(&input);
    cr_assert_eq(timed->makespan_s, result->makespan_s, "%.17g, %.17g", timed->makespan_s,
                 result->makespan_s);
    cr_assert_leq(fabs(timed->span_s - result->span_s), ROUNDING * timed->span_s);
    cr_assert_leq(timed->lower_bound_s, result->makespan_bound_s * (1 + ROUNDING));
    cr_assert_leq(result->makespan_bound_s, result->makespan_s);
    cr_assert_leq(result->span_bound_s, result->span_s);
    for (int p = 0; p < i->request.ranks; p++)
        cr_assert_leq(timed->rank[p].peak_activation_weight, i->limit[p] * (1 + ROUNDING));
    pp_sim_result_free(timed);
}

Test(auto_schedule, passes_the_check_keeps_limits_and_agrees_with_the_engine) {
    dice d = {5};
    for (int n = 0; n < 120; n++) {
        instance i;
        instance_random(&d, 1 + n % 2, 1 + dice_below(&d, RANKS), 1 + dice_below(&d, 12), &i);
        i.request.budget = 200000;
        i.request.objective = n % 3 ? PP_AUTO_MAKESPAN : PP_AUTO_SPAN;
        for (int s = 0; s < STAGES && n % 4 == 0; s++) { /* lanes, and times that round */
            i.border[s].forward_occupancy_s = dice_time(&d);
            i.border[s].backward_occupancy_s = dice_time(&d);
            i.stage[s].forward_s = dice_time(&d);
            i.stage[s].weight_s = dice_time(&d);
        }
        pp_auto_result result = solve(&i.request);
        cr_assert_eq(result.schedule->virtual_stages, i.request.virtual_stages);
        cr_assert_str_eq(result.schedule->name, "auto");
        cr_assert(*result.origin);
        expect_sound(&i, &result);
        pp_schedule_free(result.schedule);
    }
}

/* What simulation makes of a schedule for equal times where the times are others. */
static double retimed_makespan(const char *name, const pp_auto_request *r) {
    pp_schedule_request request = {.name = name,
                                   .ranks = r->ranks,
                                   .microbatches = r->microbatches,
                                   .virtual_stages = r->virtual_stages};
    pp_schedule *built, *better;
    pp_sim_result *timed;
    cr_assert_eq(pp_schedule_build(&request, &built, NULL), PP_OK);
    pp_sim_input input = {.schedule = built, .stage = r->stage, .border = r->border};
    cr_assert_eq(pp_schedule_retime(&input, &request, &better, NULL), PP_OK);
    if (better) input.schedule = better;
    cr_assert_eq(pp_simulate(&input, &timed, NULL), PP_OK);
    double makespan_s = timed->makespan_s;
    pp_sim_result_free(timed);
    pp_schedule_free(better);
    pp_schedule_free(built);
    return makespan_s;
}

/* Found by comparing at random; auto was up to 6 % longer. */
Test(auto_schedule, is_not_longer_than_v_half_and_v_min_as_they_are_simulated) {
    static const struct {
        const char *name;
        int ranks, microbatches, limit;
        pp_stage_cost rank;
        double latency_s;
    } cases[] = {
        {"v-min", 4, 3, 2, {.forward_s = 1.31, .input_s = 0.34, .weight_s = 2.5}, 0},
        {"v-min", 4, 8, 2, {.forward_s = 2.78, .input_s = 1.89, .weight_s = 0.47}, 0},
        {"v-half", 4, 20, 3, {.forward_s = 0.5, .input_s = 1.08, .weight_s = 0.27}, 0.4},
        {"v-half", 4, 5, 3, {.forward_s = 2.32, .input_s = 1.64, .weight_s = 0.28}, 0.4},
    };
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        instance i = {.request = {.ranks = cases[n].ranks,
                                  .microbatches = cases[n].microbatches,
                                  .virtual_stages = 2}};
        for (int s = 0; s < 2 * cases[n].ranks; s++) {
            i.stage[s] = (pp_stage_cost){.forward_s = cases[n].rank.forward_s / 2,
                                         .input_s = cases[n].rank.input_s / 2,
                                         .weight_s = cases[n].rank.weight_s / 2};
            i.border[s].latency_s = cases[n].latency_s;
        }
        for (int p = 0; p < cases[n].ranks; p++) i.limit[p] = cases[n].limit;
        i.request.stage = i.stage;
        i.request.border = i.border;
        i.request.limit = i.limit;
        pp_auto_result result = solve(&i.request);
        double named_s = retimed_makespan(cases[n].name, &i.request);
        cr_expect_leq(result.makespan_s, named_s * (1 + 1e-12), "case %zu: %.17g > %.17g", n,
                      result.makespan_s, named_s);
        pp_schedule_free(result.schedule);
    }
}

Test(auto_schedule, more_memory_proves_the_bubble_away) {
    instance i;
    dice d = {1};
    instance_random(&d, 1, 4, 16, &i);
    for (int s = 0; s < 4; s++)
        i.stage[s] = (pp_stage_cost){.forward_s = 1, .input_s = 1, .weight_s = 1},
        i.border[s].latency_s = 0, i.weight[s] = 2, i.released[s] = 1;
    i.request.objective = PP_AUTO_SPAN;
    for (int p = 0; p < 4; p++)
        i.limit[p] = 2 * 4; /* ZB-H1's memory and its span: MT+(K-1)(F+I-W) */
    pp_auto_result result = solve(&i.request);
    cr_assert_eq(result.span_s, 16 * 3 + 3);
    cr_assert_eq(result.span_bound_s, result.span_s);
    pp_schedule_free(result.schedule);
    for (int p = 0; p < 4; p++) i.limit[p] = 2 * 7; /* ZB-H2's: no bubble */
    result = solve(&i.request);
    cr_assert_eq(result.span_s, 16 * 3);
    pp_schedule_free(result.schedule);
    i.request.limit = NULL;
    result = solve(&i.request);
    cr_assert_eq(result.span_s, 16 * 3);
    pp_schedule_free(result.schedule);
}

/* ---- repeating ------------------------------------------------------------------------------ */

typedef struct repeat {
    const pp_auto_request *request;
    uint64_t hash;
} repeat;

static void *solve_again(void *context) {
    repeat *r = context;
    pp_auto_result result;
    if (pp_auto_schedule(r->request, &result, NULL) != PP_OK) return NULL;
    r->hash = pp_schedule_hash(result.schedule);
    pp_schedule_free(result.schedule);
    return NULL;
}

Test(auto_schedule, repeats_itself_on_any_thread) {
    dice d = {31};
    for (int visits = 1; visits <= 2; visits++) {
        instance i;
        instance_random(&d, visits, 4, 11, &i);
        i.request.budget = 2000000;
        repeat first = {&i.request, 0}, others[3];
        pthread_t threads[3];
        solve_again(&first);
        cr_assert_neq(first.hash, 0);
        for (int t = 0; t < 3; t++) {
            others[t] = (repeat){&i.request, 0};
            cr_assert_eq(pthread_create(&threads[t], NULL, solve_again, &others[t]), 0);
        }
        for (int t = 0; t < 3; t++) {
            pthread_join(threads[t], NULL);
            cr_assert_eq(others[t].hash, first.hash);
        }
    }
}

Test(auto_schedule, doubled_costs_double_the_times) {
    dice d = {8};
    for (int n = 0; n < 20; n++) {
        instance i;
        instance_random(&d, 1 + n % 2, 3, 7, &i);
        i.request.budget = 300000;
        pp_auto_result once = solve(&i.request);
        for (int s = 0; s < STAGES; s++) {
            i.stage[s].forward_s *= 2, i.stage[s].input_s *= 2, i.stage[s].weight_s *= 2;
            i.border[s].latency_s *= 2;
        }
        pp_auto_result twice = solve(&i.request);
        cr_assert_eq(twice.makespan_s, 2 * once.makespan_s);
        cr_assert_eq(twice.span_s, 2 * once.span_s);
        cr_assert_eq(pp_schedule_hash(twice.schedule), pp_schedule_hash(once.schedule));
        pp_schedule_free(once.schedule);
        pp_schedule_free(twice.schedule);
    }
}

/* ---- refusing ------------------------------------------------------------------------------- */

static pp_error refused(const pp_auto_request *request, pp_status expected) {
    pp_auto_result result;
    pp_error error;
    pp_status status = pp_auto_schedule(request, &result, &error);
    cr_assert_eq(status, expected, "%d: %s", (int)status, error.message);
    cr_assert_null(result.schedule);
    return error;
}

Test(auto_schedule, says_who_cannot_hold_one_microbatch) {
    dice d = {2};
    instance i;
    instance_random(&d, 2, 3, 4, &i);
    i.weight[1] = 5, i.weight[4] = 4, i.limit[1] = 8.5, i.limit[0] = i.limit[2] = 1000;
    pp_error error = refused(&i.request, PP_E_NO_FIT);
    cr_assert_str_eq(error.place, "rank 1");
    cr_assert(strstr(error.message, "9 and the limit is 8.5"), "%s", error.message);
    i.limit[1] = 9;
    pp_auto_result result = solve(&i.request);
    expect_sound(&i, &result);
    pp_schedule_free(result.schedule);
}

Test(auto_schedule, refuses_senseless_requests) {
    dice d = {3};
    instance good, i;
    instance_random(&d, 1, 3, 4, &good);
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        i = good;                                                                                  \
        instance_link(&i);                                                                         \
        change;                                                                                    \
        pp_error found = refused(&i.request, PP_E_INPUT);                                          \
        cr_assert(*found.place &&*found.message, #change);                                         \
    } while (0)
    REFUSED(i.request.ranks = 0);
    REFUSED(i.request.ranks = 1000000000);
    REFUSED(i.request.microbatches = 0);
    REFUSED(i.request.microbatches = 1000000000);
    REFUSED(i.request.virtual_stages = 3);
    REFUSED(i.request.virtual_stages = -1);
    REFUSED((i.request.ranks = 65535, i.request.microbatches = 16777216));
    REFUSED(i.request.budget = -1);
    REFUSED(i.stage[1].forward_s = -1);
    REFUSED(i.stage[2].input_s = NAN);
    REFUSED(i.stage[0].weight_s = INFINITY);
    REFUSED(i.border[1].latency_s = -1);
    REFUSED(i.weight[1] = NAN);
    REFUSED(i.released[1] = i.weight[1] + 1);
    REFUSED(i.limit[2] = NAN);
#undef REFUSED
}

Test(auto_schedule, costs_of_zero_are_fine) {
    instance i = {.request = {.ranks = 3, .microbatches = 4}};
    i.request.stage = i.stage;
    pp_auto_result result = solve(&i.request);
    cr_assert_eq(result.makespan_s, 0);
    pp_schedule_free(result.schedule);
}

Test(auto_schedule, stops_when_asked) {
    dice d = {4};
    instance i;
    instance_random(&d, 1, 4, 12, &i);
    pp_stop_request(2);
    pp_auto_result result;
    pp_status status = pp_auto_schedule(&i.request, &result, NULL);
    pp_stop_request(0);
    cr_assert_eq(status, PP_E_INTERRUPTED);
    cr_assert_null(result.schedule);
}

static long allocations, fail_at;

static void *failing_allocate(size_t size_bytes) {
    return ++allocations == fail_at ? NULL : malloc(size_bytes);
}

Test(auto_schedule, any_allocation_may_fail) {
    dice d = {6};
    instance i;
    instance_random(&d, 2, 3, 5, &i);
    i.request.budget = 100000;
    pp_platform platform = *pp_platform_get();
    platform.allocate = failing_allocate;
    pp_platform_set(&platform);
    pp_status status = PP_E_OUT_OF_MEMORY;
    long refusals = 0;
    for (fail_at = 1; status == PP_E_OUT_OF_MEMORY; fail_at++) {
        pp_auto_result result;
        allocations = 0;
        status = pp_auto_schedule(&i.request, &result, NULL);
        refusals += status == PP_E_OUT_OF_MEMORY;
        if (status != PP_OK && result.schedule) abort();
        pp_schedule_free(result.schedule);
        if (allocations < fail_at) break;
    }
    pp_platform_set(NULL);
    cr_assert_eq(status, PP_OK);
    cr_assert_gt(refusals, 3);
}
