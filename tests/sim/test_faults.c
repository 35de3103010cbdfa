/* Any allocation may fail: an error comes back, nothing leaks, and the same call works afterwards.
 */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <stdlib.h>

COUNTED_SUITE(faults);

static long allocations, fail_at; /* fail_at: the n-th fails, and all after it if for_ever */
static bool for_ever;

static void *failing_allocate(size_t size_bytes) {
    allocations++;
    if (fail_at > 0 && (for_ever ? allocations >= fail_at : allocations == fail_at)) return NULL;
    return malloc(size_bytes);
}

/* The general engine, replications and sensitivity. */
static pp_status simulate_more(const pp_sim_input *input_, pp_error *error) {
    pp_sim_input input = *input_;
    pp_sim_result *result = NULL;
    pp_replications *replications = NULL;
    pp_sensitivity *sensitivity = NULL;
    input.cards = &(pp_sim_cards){.node = (int[]){0, 1, 0, 1}};
    pp_status status = pp_simulate(&input, &result, error);
    if (status == PP_OK) status = pp_simulate_replications(&input, 2, 1, &replications, error);
    if (status == PP_OK) status = pp_measure_sensitivity(&input, NULL, &sensitivity, error);
    pp_sim_result_free(result);
    pp_replications_free(replications);
    pp_sensitivity_free(sensitivity);
    return status;
}

static pp_status build_and_simulate(const costs *c, bool blocking) {
    pp_schedule *schedule = NULL;
    pp_sim_result *result = NULL;
    pp_schedule_request request = {
        .name = "1f1b", .ranks = 4, .microbatches = 6, .recompute = PP_RECOMPUTE_EXCEPT_LAST};
    pp_error error;
    pp_status status = pp_schedule_build(&request, &schedule, &error);
    if (status == PP_OK) {
        pp_sim_input input = input_of(schedule, c);
        input.keep_spans = true;
        input.blocking = blocking;
        input.reduce_group = c->group;
        status = pp_simulate(&input, &result, &error);
        size_t path[100];
        if (status == PP_OK) pp_critical_path(&input, result, path, 100);
        if (status == PP_OK && pp_lower_bound(&input) < 0) abort();
        if (status == PP_OK && !blocking) status = simulate_more(&input, &error);
    }
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    return status;
}

/* Samples in place of times, layers of stages, and another order of v-half for unequal times. */
static pp_status draw_and_retime(const costs *c, bool blocking) {
    static const double values[] = {0.5, 1, 2};
    static const pp_sim_part part = {1, values, 3};
    pp_schedule *schedule = NULL, *better = NULL;
    pp_replications *replications = NULL;
    pp_schedule_request request = {.name = "v-half", .ranks = 2, .microbatches = 4};
    pp_sim_draws draws[4];
    pp_change changes[1];
    pp_error error;
    for (int s = 0; s < 4; s++)
        for (int phase = 0; phase < PP_SIM_PHASES; phase++)
            draws[s].phase[phase] = (pp_sim_mix){&part, 1};
    pp_status status = pp_schedule_build(&request, &schedule, &error);
    if (status == PP_OK) {
        pp_sim_input input = {.schedule = schedule, .stage = c->stage, .border = c->border};
        const pp_stage_share share = {.forward = 0.5};
        status = pp_schedule_retime(&input, &request, &better, &error);
        if (status == PP_OK) status = pp_measure_layers(&input, &share, 1, changes, &error);
        input.blocking = blocking;
        input.draws = draws;
        if (status == PP_OK) status = pp_simulate_replications(&input, 2, 1, &replications, &error);
    }
    pp_replications_free(replications);
    pp_schedule_free(better);
    pp_schedule_free(schedule);
    return status;
}

Test(faults, any_allocation_may_fail) {
    dice d = {7};
    costs c = costs_random(&d, 4, true);
    for (int s = 0; s < 4; s++) c.bytes[s].input = c.bytes[s].output_gradient = 10;
    pp_platform platform = *pp_platform_get();
    platform.allocate = failing_allocate;
    int64_t before = pp_live_bytes();
    for (int variant = 0; variant < 8; variant++) {
        bool blocking = variant & 1;
        pp_status (*use)(const costs *, bool) = variant & 4 ? draw_and_retime : build_and_simulate;
        for_ever = variant & 2;
        pp_platform_set(&platform);
        fail_at = allocations = 0;
        pp_status clean = use(&c, blocking);
        long count = allocations, refused = 0;
        for (long n = 1; n <= count; n++) {
            fail_at = n;
            allocations = 0;
            pp_status status = use(&c, blocking);
            if (status != PP_OK && status != PP_E_OUT_OF_MEMORY) refused = -1000000;
            if (status == PP_E_OUT_OF_MEMORY) refused++;
        }
        pp_platform_set(NULL);
        cr_assert_eq(clean, PP_OK);
        cr_assert_gt(refused, 10, "%ld of %ld failing allocations were reported", refused, count);
        cr_assert_eq(pp_live_bytes(), before, "%ld bytes leak", (long)(pp_live_bytes() - before));
    }
    costs_free(&c);
}
