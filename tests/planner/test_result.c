/* What the planner hands out: plans that round-trip and simulate to the same bits, the same answer
 * twice, figures that follow from each other, and an explanation with its sentences. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(result);

static pp_plan_result *search_or_fail(const pp_plan_request *request) {
    pp_plan_result *result;
    pp_error error = {0};
    cr_assert_eq(pp_plan_search(request, &result, &error), PP_OK, "%s", error.message);
    return result;
}

/* read(write(plan)) is the plan, and simulating it gives the prediction, bit for bit. */
static void check_plan(const pp_plan *plan, const char *what) {
    pp_text text = plan_text(plan);
    pp_plan *read;
    pp_error error = {0};
    cr_assert_eq(pp_plan_read(text.bytes, text.length, "plan.json", &read, &error), PP_OK,
                 "%s: %s: %s", what, error.place, error.message);
    pp_text again = plan_text(read);
    cr_expect_str_eq(text.bytes, again.bytes, "%s", what);
    pp_sim_result *result;
    cr_assert_eq(pp_simulate_plan(read, false, NULL, &result, &error), PP_OK, "%s: %s", what,
                 error.message);
    cr_expect_eq(result->makespan_s, plan->predicted.iteration_time_s, "%s", what);
    cr_expect_eq(result->bubble_fraction, plan->predicted.bubble_fraction, "%s", what);
    for (int p = 0; p < plan->ranks; p++) {
        cr_expect_eq(result->rank[p].busy_s, plan->predicted.rank[p].busy_s, "%s", what);
        cr_expect_eq(result->rank[p].peak.total, plan->predicted.rank[p].peak_bytes, "%s", what);
    }
    pp_sim_result_free(result);
    pp_plan_free(read);
    pp_text_deinit(&text);
    pp_text_deinit(&again);
}

Test(result, plans_round_trip_and_simulate_to_the_same_bits) {
    char what[32];
    for (uint64_t seed = 0; seed < 30; seed++) {
        world w = world_random(seed, (world_size){9, 5, 12, .memory = false});
        pp_plan_result *result = search_or_fail(&w.request);
        snprintf(what, sizeof what, "seed %d", (int)seed);
        check_plan(result->best, what);
        for (int i = 0; i < result->alternative_count; i++) {
            check_plan(result->alternatives[i], what);
        }
        pp_plan_result_free(result);
        world_free(&w);
    }
    static const char *const splits[] = {NULL, "uniform"};
    for (int i = 0; i < 2; i++) {
        world w = world_open("gpt-nano", "dgx-h100:1", 30);
        w.request.ranks = 3;
        w.request.microbatches = 4;
        w.request.dp = 1;
        w.request.split = splits[i];
        pp_plan_result *result = search_or_fail(&w.request);
        cr_expect_eq(result->best->microbatch_size, 8); /* 8 8 8 6 */
        cr_expect_lt(result->best->last_microbatch_scale, 1);
        check_plan(result->best, "gpt-nano");
        pp_plan_result_free(result);
        world_free(&w);
    }
}

static int distinct(const pp_plan *a, const pp_plan *b) {
    return a->ranks != b->ranks || a->dp != b->dp || a->microbatches != b->microbatches ||
           a->recompute != b->recompute || strcmp(a->schedule, b->schedule) != 0;
}

Test(result, alternatives_are_distinct_and_rising) {
    world w = world_open("gpt2-124m", "dgx-h100:1", 64);
    w.request.dtype = PP_BF16;
    w.request.alternative_count = 12;
    pp_plan_result *result = search_or_fail(&w.request);
    cr_assert_eq(result->alternative_count, 12);
    const pp_plan *before = result->best;
    for (int i = 0; i < 12; i++) {
        const pp_plan *plan = result->alternatives[i];
        cr_expect_geq(plan->predicted.iteration_time_s * (1 + 1e-10),
                      before->predicted.iteration_time_s);
        cr_expect(distinct(plan, result->best));
        for (int k = 0; k < i; k++) cr_expect(distinct(plan, result->alternatives[k]));
        before = plan;
    }
    pp_plan_result_free(result);
    world_free(&w);
}

Test(result, the_same_twice) {
    pp_text texts[2][2] = {{{0}}};
    for (int k = 0; k < 2; k++) {
        world w = world_open("gpt2-124m", "dgx-a100:1", 48);
        pp_plan_result *result = search_or_fail(&w.request);
        texts[k][0] = plan_text(result->best);
        pp_text_append(&texts[k][1], result->explanation.bytes, result->explanation.length);
        pp_plan_result_free(result);
        world_free(&w);
    }
    for (int t = 0; t < 2; t++) {
        cr_expect_str_eq(texts[0][t].bytes, texts[1][t].bytes);
        pp_text_deinit(&texts[0][t]);
        pp_text_deinit(&texts[1][t]);
    }
}

/* Throughput, tokens, MFU and cost from the step time and the model's own numbers. */
Test(result, figures_follow_from_the_step_time) {
    world w = world_open("gpt2-124m", "dgx-h100:1", 64);
    w.request.ranks = 2;
    w.request.dp = 2;
    w.request.tp = 2; /* 8 devices */
    pp_plan_result *result = search_or_fail(&w.request);
    const pp_prediction *p = &result->best->predicted;
    double flops = 0, seconds = p->iteration_time_s;
    for (int i = 0; i < w.model->layer_count; i++) {
        flops += 3 * pp_layer_work_get(&w.model->layers[i], 64, PP_FP32).forward_flops;
    }
    const pp_device *device = pp_cluster_device(w.cluster, 0);
    cr_expect_float_eq(p->throughput * seconds, 64, 1e-9);
    cr_expect_float_eq(p->tokens_per_s * seconds, 64 * 1024, 1e-6);
    cr_expect_float_eq(p->mfu, flops / (8 * device->fp32_flops * seconds), 1e-9);
    cr_expect_float_eq(p->cost_per_step, 8 * device->cost_per_hour * seconds / 3600, 1e-12);
    cr_expect_eq(result->best->dp, 2);
    for (int s = 0; s < 2; s++) cr_expect_gt(result->best->stages[s].reduce_s, 0);
    pp_plan_result_free(result);
    world_free(&w);
}

/* Tied embedding and head on two ranks are summed over them; on one rank nothing moves. */
Test(result, tied_weights_cost_a_reduction_across_ranks) {
    world w = world_open("gpt-nano", "dgx-h100:1", 8);
    w.request.dp = 1;
    w.request.ranks = 2;
    w.request.schedule = "1f1b"; /* a V-shaped placement would bring the two together */
    pp_plan_result *apart = search_or_fail(&w.request);
    cr_expect_gt(apart->best->stages[0].reduce_s, 0);
    cr_expect_eq(apart->best->stages[0].reduce_s, apart->best->stages[1].reduce_s);
    pp_layer head = w.model->layers[w.model->layer_count - 1];
    pp_link link = pp_cluster_link(w.cluster, 0, 1);
    double bytes = 4.0 * (double)(head.vocabulary * head.dim);
    cr_expect_float_eq(apart->best->stages[0].reduce_s,
                       2 * link.latency_s + bytes / link.bandwidth_bytes_per_s, 1e-12);
    pp_plan_result_free(apart);
    w.request.ranks = 1;
    pp_plan_result *together = search_or_fail(&w.request);
    cr_expect_eq(together->best->stages[0].reduce_s, 0);
    pp_plan_result_free(together);
    world_free(&w);
}

/* ZeRO-1 shards the optimizer state over the replicas and nothing else. */
Test(result, zero_shards_the_optimizer_state) {
    world w = world_open("gpt2-124m", "dgx-h100:1", 64);
    w.request.ranks = 2;
    w.request.dp = 4;
    w.request.split = "7";
    w.request.recompute = "none";
    w.request.microbatches = 4;
    pp_plan_result *whole = search_or_fail(&w.request);
    w.request.zero = 1;
    pp_plan_result *sharded = search_or_fail(&w.request);
    for (int s = 0; s < 2; s++) {
        const pp_stage_bytes *before = &whole->best->stages[s].bytes;
        const pp_stage_bytes *after = &sharded->best->stages[s].bytes;
        cr_expect_eq(after->optimizer, (before->optimizer + 3) / 4);
        cr_expect_eq(after->parameters, before->parameters);
        cr_expect_eq(after->activation, before->activation);
    }
    pp_plan_result_free(whole);
    pp_plan_result_free(sharded);
    world_free(&w);
}

Test(result, explanation_has_its_sentences) {
    world w = world_open("gpt2-124m", "dgx-h100:1", 64);
    w.request.ranks = 4;
    w.request.dp = 2;
    pp_plan_result *result = search_or_fail(&w.request);
    static const char *const expected[] = {"Plan: 4 ranks, 2 replicas",
                                           "Microbatches: ",
                                           "Schedule: ",
                                           "Recomputation: ",
                                           "Slowest stage: ",
                                           "Idle time: ",
                                           "Memory: rank ",
                                           "Transfers: ",
                                           "Gradients: ",
                                           "Runner-up 3: ",
                                           "Proof: ",
                                           "modelled"};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        cr_expect_not_null(strstr(result->explanation.bytes, expected[i]),
                           "'%s' is missing in:\n%s", expected[i], result->explanation.bytes);
    }
    /* Pinned dimensions have nothing to explain. */
    cr_expect_null(strstr(result->explanation.bytes, "Ranks: "));
    cr_expect_null(strstr(result->explanation.bytes, "Replicas: "));
    pp_plan_result_free(result);
    world_free(&w);
}

/* A model without cost, and one layer on one device. */
Test(result, degenerate_models) {
    world w = world_read(
        "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"free\", \"layers\": ["
        "{\"name\": \"a\", \"op\": \"opaque\", \"forward_s\": 0, \"input_s\": 0, \"weight_s\": 0, "
        "\"parameter_bytes\": 0, \"output_bytes\": 0, \"activation_bytes\": 0}]}",
        "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"one\", \"devices\": "
        "[{\"name\": "
        "\"d\", \"memory_bytes\": 1024}], \"nodes\": [{\"device\": \"d\", \"count\": 1, "
        "\"repeat\": "
        "1}], \"intra\": {\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}, \"inter\": "
        "{\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}}",
        3);
    pp_plan_result *result = search_or_fail(&w.request);
    cr_expect_eq(result->best->ranks, 1);
    cr_expect_eq(result->best->predicted.iteration_time_s, 0);
    cr_expect_eq(result->gap, 0);
    check_plan(result->best, "free");
    pp_plan_result_free(result);
    world_free(&w);
}

static double peak_of(const pp_plan *plan) {
    double peak = 0;
    for (int p = 0; p < plan->ranks; p++)
        peak = fmax(peak, (double)plan->predicted.rank[p].peak_bytes);
    return peak;
}

/* Both ranks of dualpipe have all layers, so that every split takes the same but for rounding. */
Test(result, of_equal_splits_the_leanest_is_kept) {
    static const char *const splits[] = {NULL, "1", "2", "3", "4", "5"};
    world w = world_open("gpt-nano", "h200:1", 16);
    double least = INFINITY, best = 0, seconds = 0;
    int equal = 0;
    w.request.schedule = "dualpipe";
    w.request.recompute = "none";
    w.request.ranks = 2;
    w.request.microbatches = 8;
    w.request.dp = w.request.tp = 1;
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        pp_plan_result *result;
        w.request.split = splits[i];
        cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
        double took = result->best->predicted.iteration_time_s, peak = peak_of(result->best);
        if (i == 0) seconds = took, best = peak;
        if (took <= seconds * (1 + 1e-12)) least = fmin(least, peak), equal++;
        pp_plan_result_free(result);
    }
    cr_expect_geq(equal, 3);
    cr_expect_eq(best, least);
    world_free(&w);
}
