/* Objectives and the frontier against every plan there is: each candidate of the space with each of
 * its splits, assembled and simulated. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(objectives);

enum { PLANS_MAX = 200000 };

/* What is known of one plan. */
typedef struct outcome {
    double seconds, cost;
    int64_t peak_bytes;
    int devices;
} outcome;

typedef struct oracle {
    outcome *all;
    int count;
} oracle;

static void note(oracle *o, const pp_plan *plan) {
    outcome found = {.seconds = plan->predicted.iteration_time_s,
                     .devices = plan->ranks * plan->dp * plan->tp};
    for (int p = 0; p < plan->ranks; p++) {
        int64_t bytes = plan->predicted.rank[p].peak_bytes;
        if (bytes > found.peak_bytes) found.peak_bytes = bytes;
    }
    for (int i = 0; i < found.devices; i++)
        found.cost += pp_cluster_device(plan->cluster, plan->devices[i])->cost_per_hour / 3600 *
                      found.seconds;
    cr_assert_lt(o->count, PLANS_MAX);
    o->all[o->count++] = found;
}

static void try_split(oracle *o, pp_work *work, const int *splits) {
    pp_plan *plan;
    cr_assert_eq(pp_assemble_plan(&work->terms, work->footprints, splits, &plan, NULL), PP_OK);
    bool fits = true;
    for (int p = 0; p < plan->ranks; p++)
        fits = fits && plan->predicted.rank[p].peak_bytes <= work->terms.limit_bytes[p];
    if (fits) note(o, plan);
    pp_plan_free(plan);
}

static void try_splits(oracle *o, pp_work *work, int *splits, int stage, int first) {
    int stages = work->terms.stages, layers = work->tables->layers;
    if (stage == stages) {
        try_split(o, work, splits);
        return;
    }
    for (int at = first + 1; at <= layers - (stages - stage); at++) {
        splits[stage - 1] = at;
        try_splits(o, work, splits, stage + 1, at);
    }
}

/* Caller: pp_free(all). The request pins recompute: what is recomputed is not enumerated. */
static oracle try_everything(const world *w) {
    oracle o = {.all = pp_allocate_zeroed(PLANS_MAX, sizeof *o.all)};
    pp_tables tables = {0};
    pp_footprints footprints = {0};
    pp_space space = {0};
    pp_views views = {0};
    pp_work work = {0};
    pp_arena arena;
    pp_split_method method;
    int splits[64];
    pp_error error = {0};
    pp_arena_init(&arena);
    cr_assert_eq(pp_split_method_read(NULL, w->model, &arena, &method, &error), PP_OK);
    cr_assert_eq(pp_tables_init(&tables, &w->request, &error), PP_OK);
    cr_assert_eq(pp_footprints_init(&footprints, &tables, &error), PP_OK);
    cr_assert_eq(pp_space_init(&space, &tables, &method, &error), PP_OK, "%s", error.message);
    cr_assert_eq(pp_views_init(&views, &tables, &footprints, PP_CUTS_ALL, 2048, &error), PP_OK);
    pp_work_init(&work, &views, &method);
    for (size_t i = 0; i < space.count; i++)
        if (pp_work_start(&work, &space.candidates[i], &error) == PP_OK)
            try_splits(&o, &work, splits, 1, 0);
    pp_work_deinit(&work);
    pp_views_deinit(&views);
    pp_space_deinit(&space);
    pp_footprints_deinit(&footprints);
    pp_tables_deinit(&tables);
    pp_arena_deinit(&arena);
    return o;
}

/* ---- objectives ---------------------------------------------------------------------------- */

static double memory_of(const outcome *o) {
    return (double)o->peak_bytes;
}
static double devices_of(const outcome *o) {
    return o->devices;
}
static double cost_of(const outcome *o) {
    return o->cost;
}
static double time_of(const outcome *o) {
    return o->seconds;
}

static const struct {
    const char *name;
    double (*value)(const outcome *);
} objectives[] = {{"time", time_of},
                  {"throughput", time_of},
                  {"memory", memory_of},
                  {"devices", devices_of},
                  {"cost", cost_of}};

static bool close_to(double a, double b) {
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

static outcome outcome_of(const pp_plan *plan) {
    outcome found;
    oracle one = {.all = &found};
    note(&one, plan);
    return found;
}

/* Least value, and of the plans that have it the least time. */
static void best_by(const oracle *o, int objective, double *value, double *seconds) {
    *value = *seconds = INFINITY;
    for (int i = 0; i < o->count; i++)
        *value = fmin(*value, objectives[objective].value(&o->all[i]));
    for (int i = 0; i < o->count; i++) {
        if (close_to(objectives[objective].value(&o->all[i]), *value))
            *seconds = fmin(*seconds, o->all[i].seconds);
    }
}

static void compare(world *w, const oracle *o, int objective, int seed) {
    const char *name = objectives[objective].name;
    pp_plan_result *result;
    double value, seconds;
    pp_error error = {0};
    best_by(o, objective, &value, &seconds);
    w->request.objective = name;
    pp_status status = pp_plan_search(&w->request, &result, &error);
    if (o->count == 0) {
        cr_expect_eq(status, PP_E_NO_FIT, "seed %d: %s", seed, name);
    } else {
        cr_assert_eq(status, PP_OK, "seed %d, %s: %s", seed, name, error.message);
        outcome found = outcome_of(result->best);
        cr_expect(close_to(objectives[objective].value(&found), value),
                  "seed %d, %s: %.12g, but %.12g can be had", seed, name,
                  objectives[objective].value(&found), value);
        cr_expect(close_to(found.seconds, seconds), "seed %d, %s: %.12g s, but %.12g can be had",
                  seed, name, found.seconds, seconds);
        cr_expect_leq(result->lower_bound, value * (1 + 1e-9), "seed %d, %s: the bound is wrong",
                      seed, name);
        cr_expect_leq(result->lower_bound_s, found.seconds * (1 + 1e-9), "seed %d, %s", seed, name);
        cr_expect_str_eq(pp_objective_name(result->objective), name);
        cr_expect(close_to(result->gap * result->lower_bound, value - result->lower_bound) ||
                      result->gap * result->lower_bound < 1e-6 * value,
                  "seed %d, %s: gap %g", seed, name, result->gap);
    }
    pp_plan_result_free(result);
}

static world small_world(int seed) {
    world_size size = {6, 3, 5, .memory = seed % 3 == 0, .unequal = seed % 4 == 1};
    world w = world_random((uint64_t)seed, size);
    w.request.recompute = seed % 2 ? "none" : "full";
    if (seed % 5 == 1) w.request.schedule = "1f1b";
    if (seed % 5 == 2) w.request.schedule = "interleaved";
    return w;
}

Test(objectives, equal_trying_everything, .timeout = 300) {
    int fitting = 0;
    for (int seed = 7000; seed < 7040; seed++) {
        world w = small_world(seed);
        oracle o = try_everything(&w);
        fitting += o.count > 0;
        for (int i = 0; i < (int)(sizeof objectives / sizeof *objectives); i++)
            compare(&w, &o, i, seed);
        pp_free(o.all);
        world_free(&w);
    }
    cr_expect_gt(fitting, 25);
}

/* ---- the frontier -------------------------------------------------------------------------- */

static bool dominated(const oracle *o, const outcome *point) {
    for (int i = 0; i < o->count; i++) {
        const outcome *other = &o->all[i];
        bool faster = other->seconds < point->seconds * (1 - 1e-9);
        bool as_fast = other->seconds <= point->seconds * (1 + 1e-9);
        if (as_fast && other->peak_bytes < point->peak_bytes) return true;
        if (faster && other->peak_bytes <= point->peak_bytes) return true;
    }
    return false;
}

/* Different points of the frontier by brute force. */
static int count_frontier(const oracle *o) {
    int count = 0;
    for (int i = 0; i < o->count; i++) {
        bool again = false;
        for (int k = 0; k < i; k++)
            again = again || (o->all[k].peak_bytes == o->all[i].peak_bytes &&
                              close_to(o->all[k].seconds, o->all[i].seconds));
        count += !again && !dominated(o, &o->all[i]);
    }
    return count;
}

Test(objectives, frontier_is_everything_that_nothing_dominates, .timeout = 300) {
    int points = 0;
    for (int seed = 7100; seed < 7140; seed++) {
        world w = small_world(seed);
        static const char *const asked[] = {NULL, "memory", "devices"};
        oracle o = try_everything(&w);
        pp_plan_result *result;
        w.request.objective = asked[seed % 3];
        if (pp_plan_search(&w.request, &result, NULL) == PP_OK) {
            cr_expect(result->frontier_complete, "seed %d", seed);
            cr_expect_eq(result->frontier_count, count_frontier(&o), "seed %d: %d, not %d", seed,
                         result->frontier_count, count_frontier(&o));
            for (int i = 0; i < result->frontier_count; i++) {
                outcome point = outcome_of(result->frontier[i]);
                cr_expect(!dominated(&o, &point), "seed %d: point %d", seed, i);
            }
            points += result->frontier_count;
        } else {
            cr_expect_eq(o.count, 0);
        }
        pp_plan_result_free(result);
        pp_free(o.all);
        world_free(&w);
    }
    cr_expect_gt(points, 60);
}

Test(objectives, unknown_ones_and_missing_prices_are_refused) {
    world w = world_open("gpt-nano", "dgx-h100:1", 8);
    pp_plan_result *result;
    pp_error error = {0};
    w.request.objective = "speed";
    cr_expect_eq(pp_plan_search(&w.request, &result, &error), PP_E_INPUT);
    cr_expect_str_eq(error.message, "'speed' is not an objective; known are time, throughput, "
                                    "memory, devices, cost");
    pp_plan_result_free(result);
    w.request.objective = "cost";
    cr_expect_eq(pp_plan_search(&w.request, &result, &error), PP_E_INPUT);
    cr_expect(strstr(error.message, "price") != NULL, "%s", error.message);
    pp_plan_result_free(result);
    world_free(&w);
}
