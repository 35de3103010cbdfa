/* Sweeps: every point is what a search with that value pinned finds, or refuses for the same
 * reason. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(sweep);

static void pin(pp_plan_request *request, pp_sweep_kind kind, int64_t value) {
    if (kind == PP_SWEEP_MICROBATCHES) request->microbatches = (int)value;
    if (kind == PP_SWEEP_RANKS) request->ranks = (int)value;
    if (kind == PP_SWEEP_MEMORY) request->memory_bytes = value;
}

/* Returns whether there is a plan. */
static bool compare_point(const pp_plan_request *open, pp_sweep_kind kind,
                          const pp_sweep_point *point) {
    pp_plan_request request = *open;
    pp_plan_result *result;
    pp_error error = {0};
    pin(&request, kind, point->value);
    pp_status status = pp_plan_search(&request, &result, &error);
    cr_expect_eq(point->planned, status == PP_OK, "at %lld", (long long)point->value);
    if (status == PP_OK) {
        const pp_plan *plan = result->best;
        double seconds = 0;
        for (int s = 0; s < plan->stage_count / plan->chains; s++)
            seconds +=
                plan->stages[s].forward_s + plan->stages[s].input_s + plan->stages[s].weight_s;
        cr_expect_eq(point->iteration_time_s, plan->predicted.iteration_time_s);
        cr_expect_eq(point->ranks, plan->ranks);
        cr_expect_eq(point->microbatches, plan->microbatches);
        cr_expect_str_eq(point->schedule, plan->schedule);
        cr_expect_float_eq(point->compute_s * (double)plan->microbatch_size, seconds * plan->tp,
                           1e-12 * seconds);
    } else {
        cr_expect_str_eq(point->reason, error.message);
        cr_expect_eq(point->iteration_time_s, PP_SWEEP_UNKNOWN);
    }
    pp_plan_result_free(result);
    return status == PP_OK;
}

/* Losses are over the least. */
static void check_losses(const pp_sweep *sweep) {
    double least = INFINITY;
    for (int i = 0; i < sweep->point_count; i++)
        if (sweep->points[i].planned) least = fmin(least, sweep->points[i].compute_s);
    for (int i = 0; i < sweep->point_count; i++)
        if (sweep->points[i].planned)
            cr_expect_float_eq((1 + sweep->points[i].compute_loss) * least,
                               sweep->points[i].compute_s, 1e-11 * sweep->points[i].compute_s);
}

static const int64_t microbatches[] = {1, 2, 4, 6, 12}, ranks[] = {1, 2, 3, 4, 5, 6, 7, 8};

Test(sweep, points_are_what_pinned_searches_find, .timeout = 120) {
    for (int kind = 0; kind < PP_SWEEP_KIND_COUNT; kind++) {
        world w = world_open("gpt-nano", "dgx-h100:1", 12);
        w.request.schedule = "1f1b";
        w.request.best_alone = true;
        pp_sweep *sweep;
        int planned = 0;
        cr_assert_eq(pp_plan_sweep(&w.request, (pp_sweep_kind)kind, &sweep, NULL), PP_OK);
        for (int i = 0; i < sweep->point_count; i++) {
            planned += compare_point(&w.request, (pp_sweep_kind)kind, &sweep->points[i]);
            if (kind == PP_SWEEP_MICROBATCHES)
                cr_expect_eq(sweep->points[i].value, microbatches[i]);
            if (kind == PP_SWEEP_RANKS) cr_expect_eq(sweep->points[i].value, ranks[i]);
        }
        if (kind == PP_SWEEP_MICROBATCHES) cr_expect(sweep->point_count == 5 && planned == 5);
        if (kind == PP_SWEEP_RANKS) cr_expect(sweep->point_count == 8 && planned == 6);
        check_losses(sweep);
        pp_sweep_free(sweep);
        world_free(&w);
    }
    cr_expect_eq(pp_live_bytes(), 0);
}

Test(sweep, small_microbatches_lose_compute_and_large_ones_time_in_bubbles, .timeout = 120) {
    world w = world_open("gpt-nano", "dgx-h100:1", 32);
    pp_sweep *sweep;
    w.request.ranks = 4;
    w.request.dp = w.request.tp = w.request.virtual_stages = 1;
    w.request.schedule = "1f1b";
    w.request.recompute = "none";
    cr_assert_eq(pp_plan_sweep(&w.request, PP_SWEEP_MICROBATCHES, &sweep, NULL), PP_OK);
    cr_assert_eq(sweep->point_count, 6);
    for (int i = 0; i < 6; i++) {
        cr_expect_eq(sweep->points[i].microbatch_size, 32 >> i);
        if (i > 0) cr_expect_geq(sweep->points[i].compute_loss, sweep->points[i - 1].compute_loss);
    }
    cr_expect_eq(sweep->points[0].compute_loss, 0);
    cr_expect_gt(sweep->points[5].compute_loss, 0.1);
    cr_expect_gt(sweep->points[0].bubble_fraction, sweep->points[5].bubble_fraction);
    pp_sweep_free(sweep);
    world_free(&w);
}

/* Small worlds, whose searches prove their plans: more memory never makes the best plan slower,
 * and the smallest cap is one that nothing fits under. */
Test(sweep, more_memory_is_never_slower, .timeout = 120) {
    int compared = 0;
    for (uint64_t seed = 1; seed <= 25; seed++) {
        world_size size = {.layers_max = 5, .devices_max = 3, .batch_max = 5};
        world w = world_random(seed, size);
        pp_sweep *sweep;
        double before = INFINITY;
        cr_assert_eq(pp_plan_sweep(&w.request, PP_SWEEP_MEMORY, &sweep, NULL), PP_OK, "seed %d",
                     (int)seed);
        for (int i = 0; i < sweep->point_count; i++) {
            const pp_sweep_point *point = &sweep->points[i];
            if (!point->planned) {
                cr_expect_eq(i, 0, "seed %d: nothing at %d", (int)seed, i);
                continue;
            }
            cr_expect_leq(point->peak_bytes, point->value, "seed %d", (int)seed);
            cr_expect_leq(point->iteration_time_s, before * (1 + 1e-9), "seed %d: %d", (int)seed,
                          i);
            before = point->iteration_time_s;
            compared++;
        }
        pp_sweep_free(sweep);
        world_free(&w);
    }
    cr_expect_gt(compared, 50);
    cr_expect_eq(pp_live_bytes(), 0);
}

Test(sweep, where_nothing_fits_every_point_says_why) {
    for (int kind = 0; kind < PP_SWEEP_KIND_COUNT; kind++) {
        world w = world_open("gpt-nano", "dgx-h100:1", 8);
        pp_sweep *sweep;
        pp_error error = {0};
        w.request.memory_bytes = 1024;
        cr_expect_eq(pp_plan_sweep(&w.request, (pp_sweep_kind)kind, &sweep, &error), PP_E_NO_FIT);
        cr_assert(sweep != NULL && sweep->point_count > 0);
        for (int i = 0; i < sweep->point_count; i++)
            cr_expect(!sweep->points[i].planned && sweep->points[i].reason[0] != '\0');
        cr_expect(error.message[0] != '\0');
        pp_sweep_free(sweep);
        world_free(&w);
    }
}

Test(sweep, contradictions_are_refused) {
    world w = world_open("gpt-nano", "dgx-h100:1", 8);
    pp_sweep *sweep;
    pp_error error = {0};
    pp_plan_request asked = w.request;
    asked.ranks = 2;
    cr_expect_eq(pp_plan_sweep(&asked, PP_SWEEP_RANKS, &sweep, &error), PP_E_INPUT);
    cr_expect(sweep == NULL && strstr(error.message, "--ranks"));
    asked = w.request;
    asked.microbatch_size = 2;
    cr_expect_eq(pp_plan_sweep(&asked, PP_SWEEP_MICROBATCHES, &sweep, &error), PP_E_INPUT);
    cr_expect(sweep == NULL && strstr(error.message, "--microbatch-size"));
    asked = w.request;
    asked.schedule = "none";
    cr_expect_eq(pp_plan_sweep(&asked, PP_SWEEP_MEMORY, &sweep, &error), PP_E_INPUT);
    cr_expect(sweep == NULL && strstr(error.message, "no schedule"));
    world_free(&w);
    cr_expect_eq(pp_live_bytes(), 0);
}

static long allocations_left;

static void *failing_allocate(size_t size_bytes) {
    return allocations_left-- == 0 ? NULL : malloc(size_bytes);
}

Test(sweep, failing_allocations_leave_nothing_behind, .timeout = 120) {
    world w = world_open("gpt-nano", "dgx-h100:1", 2);
    pp_platform failing = *pp_platform_get();
    pp_status status = PP_E_OUT_OF_MEMORY;
    failing.allocate = failing_allocate;
    w.request.schedule = "gpipe";
    w.request.dp = w.request.tp = w.request.threads = 1;
    int64_t before = pp_live_bytes();
    for (long n = 0; status != PP_OK; n += 1 + n / 16) {
        pp_sweep *sweep;
        pp_error error = {0};
        allocations_left = n;
        pp_platform_set(&failing);
        status = pp_plan_sweep(&w.request, PP_SWEEP_MICROBATCHES, &sweep, &error);
        pp_platform_set(NULL);
        cr_assert(status == PP_OK || (status == PP_E_OUT_OF_MEMORY && sweep == NULL));
        pp_sweep_free(sweep);
        cr_assert_eq(pp_live_bytes(), before, "allocation %ld leaks", n);
    }
    world_free(&w);
}
