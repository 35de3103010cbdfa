/* The executor on a device: everything between the plan and the kernels, with memory that only the
 * backend may touch (fake_device.h), against the CPU backend. */
#include "fake_device.h"
#include "run_fixture.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

COUNTED_SUITE(fake_device, .timeout = 120);

enum { TRAINED = 4 };

static double clip; /* of all runs; 0: none */

static fixture_record must_run(const fixture_request *request, const pp_backend *backend) {
    fixture made;
    fixture_record record;
    char message[512] = "";
    pp_run_options options = {.seed = 7, .poison = true, .own_backend = backend, .clip = clip};
    fake_reset();
    cr_assert(fixture_make(request, &made, message), "%s", message);
    cr_assert(fixture_run(&made, TRAINED, &options, &record, message), "%s", message);
    for (int p = 0; p < request->ranks; p++)
        cr_assert_eq(record.peak_bytes[p], fixture_peak(&made, p), "rank %d holds %lld", p,
                     (long long)record.peak_bytes[p]);
    fixture_free(&made);
    return record;
}

/* Losses, gradients and weights of a run on the device, beside the CPU's. */
static void compare(fixture_request request, double limit) {
    fixture_record device = must_run(&request, &fake_device);
    if (request.dtype == PP_BF16) request.dtype = PP_FP32;
    fixture_record cpu = must_run(&request, NULL);
    size_t count = (size_t)(TRAINED * cpu.replicas) * cpu.values;
    for (int step = 0; step < TRAINED; step++)
        cr_expect(fabs(device.losses[step] / cpu.losses[step] - 1) < limit,
                  "K=%d, step %d: loss %.9g, on the CPU %.9g", request.ranks, step,
                  device.losses[step], cpu.losses[step]);
    if (limit < 1e-4) {
        double off = fixture_distance(device.gradients, cpu.gradients, count);
        cr_expect(off < 1e-3, "K=%d: gradients are off by %g", request.ranks, off);
        off = fixture_distance(device.weights, cpu.weights, count);
        cr_expect(off < 1e-4, "K=%d: weights are off by %g", request.ranks, off);
    }
    fixture_record_free(&device);
    fixture_record_free(&cpu);
}

static fixture_request request_of(const char *model, int ranks) {
    return (fixture_request){.model = model,
                             .ranks = ranks,
                             .microbatches = 3,
                             .microbatch_size = 2,
                             .dtype = PP_FP32,
                             .optimizer = PP_SGD,
                             .order = ORDER_1F1B};
}

Test(fake_device, every_number_of_ranks_trains_as_on_the_cpu) {
    for (int ranks = 1; ranks <= 4; ranks++) compare(request_of(fixture_gpt, ranks), 1e-5);
}

Test(fake_device, graphs_ties_and_features_cross_borders) {
    compare(request_of(fixture_graph, 3), 1e-5);
    compare(request_of(fixture_ties, 3), 1e-5);
    compare(request_of(fixture_mlp, 2), 1e-5);
}

Test(fake_device, split_backward_and_smaller_last_microbatch) {
    fixture_request request = request_of(fixture_gpt, 3);
    request.order = ORDER_SPLIT;
    request.global_batch = 5;
    compare(request, 1e-5);
}

Test(fake_device, every_recompute_policy) {
    for (int i = 0; i < FIXTURE_POLICIES; i++) {
        fixture_request request = request_of(fixture_gpt, 2);
        request.recompute = fixture_policy(i);
        compare(request, 1e-5);
    }
}

Test(fake_device, replicas_add_up_their_gradients) {
    fixture_request request = request_of(fixture_gpt, 2);
    request.dp = 2;
    compare(request, 1e-5);
}

/* Of fixtures whose weights end between shares, and whose layers share a weight; masters too. */
Test(fake_device, shared_out_optimizers_change_no_bit) {
    static const char *const models[] = {fixture_gpt, fixture_ties};
    for (int i = 0; i < 8; i++) {
        fixture_request request = request_of(models[i % 2], 2);
        char message[512] = "";
        request.dp = 2 + i / 4;
        request.dtype = i / 2 % 2 ? PP_BF16 : PP_FP32;
        request.optimizer = PP_ADAMW;
        fixture_record whole = must_run(&request, &fake_device);
        request.zero = 1;
        fixture_record shared = must_run(&request, &fake_device);
        cr_expect(fixture_same(&shared, &whole, message), "case %d: %s", i, message);
        cr_expect_lt(shared.peak_bytes[0], whole.peak_bytes[0]);
        fixture_record_free(&whole);
        fixture_record_free(&shared);
    }
}

Test(fake_device, adamw_trains_as_on_the_cpu) {
    fixture_request request = request_of(fixture_gpt, 2);
    request.optimizer = PP_ADAMW;
    compare(request, 1e-3); /* an m/√v of noise may go either way */
}

/* bf16 with fp32 masters follows fp32, and uses the memory that the plan says. */
Test(fake_device, bf16_follows_fp32) {
    static const char *const models[] = {fixture_gpt, fixture_graph, fixture_ties, fixture_mlp};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (int kind = 0; kind < PP_OPTIMIZER_COUNT; kind++) {
            fixture_request request = request_of(models[i], 2);
            request.dtype = PP_BF16;
            request.optimizer = (pp_optimizer)kind;
            compare(request, 0.02);
        }
}

/* Ranks change nothing: the loss of K is that of one, bit for bit, in both types. */
Test(fake_device, cuts_change_no_bit) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        fixture_request request = request_of(fixture_gpt, 1);
        char message[512] = "";
        request.dtype = bf16 ? PP_BF16 : PP_FP32;
        fixture_record one = must_run(&request, &fake_device);
        for (int ranks = 2; ranks <= 4; ranks++) {
            request.ranks = ranks;
            fixture_record many = must_run(&request, &fake_device);
            cr_expect(fixture_same(&many, &one, message), "K=%d: %s", ranks, message);
            fixture_record_free(&many);
        }
        fixture_record_free(&one);
    }
}

/* Clipped, the device follows the CPU, ranks change no bit, and norms are near. */
Test(fake_device, clips_as_the_cpu) {
    clip = 0.05;
    for (int ranks = 1; ranks <= 3; ranks++) compare(request_of(fixture_ties, ranks), 1e-5);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        fixture_request request = request_of(fixture_gpt, 1);
        char message[512] = "";
        fixture_record cpu = must_run(&request, NULL);
        request.dtype = bf16 ? PP_BF16 : PP_FP32;
        fixture_record one = must_run(&request, &fake_device);
        for (int step = 0; step < TRAINED; step++)
            cr_expect(fabs(one.norms[step] / cpu.norms[step] - 1) < (bf16 ? 0.02 : 1e-5) &&
                          cpu.norms[step] > clip,
                      "step %d: norm %g, on the CPU %g", step, one.norms[step], cpu.norms[step]);
        request.ranks = 3;
        request.dp = 1;
        fixture_record many = must_run(&request, &fake_device);
        cr_expect(fixture_same(&many, &one, message), "%s", message);
        fixture_record_free(&many);
        fixture_record_free(&one);
        fixture_record_free(&cpu);
    }
}

/* A device that fails ends the run, and its words are the message. */
Test(fake_device, what_the_device_says_is_the_headline) {
    fixture_request request = request_of(fixture_gpt, 3);
    for (int after = 1; after < 40; after += 3) {
        fixture made;
        char message[512] = "";
        cr_assert(fixture_make(&request, &made, message), "%s", message);
        pp_run_options options = {.steps = 2, .own_backend = &fake_device, .timeout_s = 5};
        pp_run_result *result;
        pp_error error = {0};
        fake_reset();
        fake_fail_after(after);
        cr_assert_eq(pp_run(made.plan, made.schedule, &options, &result, &error), PP_E_FAILED);
        cr_assert(strstr(error.message, "the fake device was told to fail"), "%s", error.message);
        fake_fail_after(0);
        fixture_free(&made);
    }
}
