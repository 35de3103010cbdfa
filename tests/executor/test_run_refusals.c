/* What pp_run refuses before it starts a thread, and what it says. */
#include "run_fixture.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>

COUNTED_SUITE(run_refusals);

static fixture make(const char *model, int dp) {
    fixture_request request = {.model = model,
                               .ranks = 2,
                               .microbatches = 2,
                               .microbatch_size = 1,
                               .dp = dp,
                               .dtype = PP_FP32,
                               .order = ORDER_1F1B};
    fixture made;
    char message[512];
    cr_assert(fixture_make(&request, &made, message), "%s", message);
    return made;
}

/* Runs, frees the fixture. */
static void refuse(fixture *what, const pp_run_options *options, pp_status wanted,
                   const char *reason) {
    pp_error error = {.message = ""};
    pp_run_result *result;
    pp_status status = pp_run(what->plan, what->schedule, options, &result, &error);
    cr_assert_eq(status, wanted, "status %d: %s", status, error.message);
    cr_assert_null(result);
    cr_assert(strstr(error.message, reason), "\"%s\" does not say \"%s\"", error.message, reason);
    fixture_free(what);
}

static const pp_run_options plain = {.steps = 1};

Test(run_refusals, backends_and_precision) {
    fixture made = make(fixture_gpt, 1);
    refuse(&made, &(pp_run_options){.backend = "abacus"}, PP_E_UNSUPPORTED,
           "there are cuda, cpu, replay");
    made = make(fixture_gpt, 1);
    made.plan->dtype = PP_BF16;
    refuse(&made, &plain, PP_E_UNSUPPORTED, "--dtype fp32");
    made = make(fixture_opaque, 1);
    refuse(&made, &(pp_run_options){.backend = "cpu"}, PP_E_UNSUPPORTED, "--backend replay");
}

Test(run_refusals, parallelism) {
    fixture made = make(fixture_gpt, 1);
    made.plan->tp = 2;
    refuse(&made, &plain, PP_E_UNSUPPORTED, "--tp 1");
    made = make(fixture_gpt, 2);
    made.plan->global_batch = 3;
    refuse(&made, &plain, PP_E_UNSUPPORTED, "multiple");
    made = make(fixture_gpt, 1);
    made.plan->global_batch = 5;
    refuse(&made, &plain, PP_E_INPUT, "2 microbatches of 1 samples");
}

Test(run_refusals, schedules_of_other_plans) {
    fixture made = make(fixture_gpt, 1);
    made.plan->microbatches = 3;
    refuse(&made, &plain, PP_E_INPUT, "2 microbatches");
    made = make(fixture_gpt, 1);
    made.schedule->placement[1] = 0;
    refuse(&made, &plain, PP_E_INPUT, "stage 1");
}

/* Turns every action of a kind into UNSHARD, which does nothing. */
static void silence(pp_schedule *schedule, pp_action_kind kind) {
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++)
        if (schedule->actions[i].kind == kind) schedule->actions[i].kind = PP_UNSHARD;
}

Test(run_refusals, updates_that_are_missing) {
    fixture made = make(fixture_gpt, 1);
    silence(made.schedule, PP_REDUCE_GRAD);
    refuse(&made, &plain, PP_E_INPUT, "REDUCE_GRAD");
    made = make(fixture_gpt, 1);
    silence(made.schedule, PP_STEP);
    refuse(&made, &plain, PP_E_INPUT, "STEP of stage 0");
}

Test(run_refusals, data) {
    fixture made = make(fixture_gpt, 1);
    refuse(&made, &(pp_run_options){.data = "/nowhere/at/all"}, PP_E_INPUT, "");
    made = make(fixture_gpt, 1);
    refuse(&made, &(pp_run_options){.data = "/dev/null"}, PP_E_INPUT, "256");
}

Test(run_refusals, default_backends) {
    fixture made = make(fixture_opaque, 1);
    cr_assert_str_eq(pp_backend_default(made.plan->model, PP_FP32), "replay");
    fixture_free(&made);
    pp_backend_info infos[8];
    int count = pp_backends(infos, 8);
    cr_assert_eq(count, 3);
    for (int i = 0; i < count; i++) {
        bool everywhere = strcmp(infos[i].name, "cuda") != 0;
        cr_assert(infos[i].detail[0] && (infos[i].usable || !everywhere));
    }
    cr_assert_eq(pp_backends(infos, 1), 1);
    cr_assert_str_eq(infos[0].name, "cuda", "the best first");
    made = make(fixture_gpt, 1);
    const char *chosen = pp_backend_default(made.plan->model, PP_FP32);
    cr_assert(infos[0].usable || strcmp(chosen, "cpu") == 0, "%s", chosen);
    fixture_free(&made);
}

/* With --clip every gradient has to be there before the first STEP. */
Test(run_refusals, clipping_needs_steps_at_the_end) {
    fixture made = make(fixture_gpt, 1);
    pp_action *actions = made.schedule->actions;
    size_t last = made.schedule->first_action[1] - 1;
    cr_assert(actions[last].kind == PP_STEP && actions[last - 1].kind == PP_REDUCE_GRAD);
    pp_action step = actions[last];
    actions[last] = actions[last - 1];
    actions[last - 1] = step;
    refuse(&made, &(pp_run_options){.clip = 1}, PP_E_UNSUPPORTED, "0REDUCE_GRAD after a STEP");
    made = make(fixture_opaque, 1);
    silence(made.schedule, PP_STEP);
    refuse(&made, &(pp_run_options){.clip = 1, .backend = "replay"}, PP_E_UNSUPPORTED,
           "rank 0 has no STEP");
}
