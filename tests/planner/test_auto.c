/* --schedule auto: never slower than a named schedule under the same memory, on unequal devices
 * too, and a plan that brings its order is read and simulated as it was written. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(auto_plans);

static double seconds_with(world *w, const char *schedule, pp_plan_result **result) {
    w->request.schedule = schedule;
    pp_status status = pp_plan_search(&w->request, result, NULL);
    return status == PP_OK ? (*result)->best->predicted.iteration_time_s : INFINITY;
}

static void check_plan(const pp_plan *plan, uint64_t seed) {
    pp_text text = plan_text(plan);
    pp_plan *read;
    pp_error error = {0};
    pp_sim_result *result;
    cr_assert_str_eq(plan->schedule, "auto");
    cr_assert_eq(pp_plan_read(text.bytes, text.length, "plan", &read, &error), PP_OK, "%s",
                 error.message);
    cr_assert_eq(pp_simulate_plan(read, false, NULL, &result, &error), PP_OK, "%s", error.message);
    cr_expect_eq(result->makespan_s, plan->predicted.iteration_time_s, "seed %d", (int)seed);
    for (int p = 0; p < plan->ranks; p++) {
        int width = plan->dp * plan->tp;
        for (int i = p * width; i < (p + 1) * width; i++) {
            int64_t limit = pp_cluster_device(plan->cluster, plan->devices[i])->memory_bytes;
            cr_expect_leq(result->rank[p].peak.total, limit, "seed %d: rank %d", (int)seed, p);
        }
    }
    pp_sim_result_free(result);
    pp_plan_free(read);
    pp_text_deinit(&text);
}

Test(auto_plans, never_slower_than_a_named_schedule, .timeout = 120) {
    int shorter = 0, fitting = 0;
    for (uint64_t seed = 300; seed < 310; seed++) {
        world w = world_random(seed, (world_size){9, 4, 8, .memory = seed % 3, .unequal = true});
        w.request.dp = 1;
        pp_plan_result *named, *made;
        double best = seconds_with(&w, NULL, &named);
        double seconds = seconds_with(&w, "auto", &made);
        cr_expect_leq(seconds, best, "seed %d: auto %.12g, %s %.12g", (int)seed, seconds,
                      named->best ? named->best->schedule : "nothing", best);
        if (best < INFINITY) {
            fitting++;
            shorter += seconds < best * (1 - 1e-9);
            check_plan(made->best, seed);
            cr_expect_leq(made->lower_bound_s, seconds, "seed %d", (int)seed);
        }
        pp_plan_result_free(named);
        pp_plan_result_free(made);
        world_free(&w);
    }
    cr_expect_gt(fitting, 4);
    cr_expect_gt(shorter, 0, "made to measure in %d of %d worlds", shorter, fitting);
}
