/* The named ways to split: hand-made cases, and what they promise against brute force. */
#include <criterion/criterion.h>
#include <math.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(baselines);

/* Six layers on a line; times 1 1 4 1 1 4, parameters 8 0 0 0 8 8 (× 512 bytes), names a … f. */
static const char six_layers[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"six\", \"layers\": ["
    "{\"name\": \"conv1\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 0, \"weight_s\": 0, "
    "\"parameter_bytes\": 4096, \"output_bytes\": 64, \"activation_bytes\": 0},"
    "{\"name\": \"relu1\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 0, \"weight_s\": 0, "
    "\"parameter_bytes\": 0, \"output_bytes\": 64, \"activation_bytes\": 0},"
    "{\"name\": \"pool\", \"op\": \"opaque\", \"forward_s\": 4, \"input_s\": 0, \"weight_s\": 0, "
    "\"parameter_bytes\": 0, \"output_bytes\": 64, \"activation_bytes\": 0},"
    "{\"name\": \"relu2\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 0, \"weight_s\": 0, "
    "\"parameter_bytes\": 0, \"output_bytes\": 64, \"activation_bytes\": 65536},"
    "{\"name\": \"Conv2\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 0, \"weight_s\": 0, "
    "\"parameter_bytes\": 4096, \"output_bytes\": 64, \"activation_bytes\": 0},"
    "{\"name\": \"conv3\", \"op\": \"opaque\", \"forward_s\": 4, \"input_s\": 0, \"weight_s\": 0, "
    "\"parameter_bytes\": 4096, \"output_bytes\": 64, \"activation_bytes\": 0}]}";

static const char box[] =
    "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"box\", \"devices\": [{\"name\": "
    "\"d\", \"memory_bytes\": 1073741824, \"flops\": {\"fp32\": 1e12}, "
    "\"memory_bandwidth_bytes_per_s\": 1e12}], \"nodes\": [{\"device\": \"d\", \"count\": 6, "
    "\"repeat\": 1}], \"intra\": {\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}, \"inter\": "
    "{\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}}";

static const struct {
    const char *split;
    int ranks;
    int cuts[3]; /* of stages 1, 2, 3; 0: no more */
    double bottleneck;
} cases[] = {
    {"uniform", 4, {2, 4, 5}, 5}, /* 2 2 1 1 layers: the remainder to the first */
    {"uniform", 3, {2, 4, 0}, 5},
    {"2,3", 3, {2, 3, 0}, 6},
    {"5", 2, {5, 0, 0}, 8},
    {"time", 2, {3, 0, 0}, 6}, /* 1 1 4 | 1 1 4 */
    {"bottleneck", 2, {3, 0, 0}, 6},
    {"parameters", 3, {0, 0, 0}, 1024}, /* a convolution each, wherever the rest goes */
    {"memory", 2, {0, 0, 0}, 0},
    {"type:^conv", 3, {0, 0, 0}, 1},
    {"type:RELU", 2, {0, 0, 0}, 1},
};

static void check_case(size_t i) {
    world w = world_read(six_layers, box, 4);
    w.request.ranks = cases[i].ranks;
    w.request.microbatches = 4;
    w.request.split = cases[i].split;
    pp_plan_result *result;
    pp_error error = {0};
    cr_assert_eq(pp_plan_search(&w.request, &result, &error), PP_OK, "%s: %s", cases[i].split,
                 error.message);
    cr_expect_str_eq(result->split.method, cases[i].split);
    for (int s = 1; s < cases[i].ranks && cases[i].cuts[0] > 0; s++) {
        cr_expect_eq(result->best->stages[s].first, cases[i].cuts[s - 1],
                     "%s: stage %d begins at %d", cases[i].split, s, result->best->stages[s].first);
    }
    if (cases[i].bottleneck > 0) {
        cr_expect_float_eq(result->split.bottleneck_s, cases[i].bottleneck, 1e-9, "%s: %g",
                           cases[i].split, result->split.bottleneck_s);
    }
    cr_expect_leq(result->split.lower_bound_s, result->split.bottleneck_s * (1 + 1e-12));
    cr_expect_leq(result->lower_bound_s, result->best->predicted.iteration_time_s);
    pp_plan_result_free(result);
    world_free(&w);
}

Test(baselines, hand_made_cases) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_case(i);
}

/* The greatest number of matching layers in one stage is the least there is. */
Test(baselines, regular_expressions_balance_their_matches) {
    world w = world_open("gpt2-124m", "dgx-h100:1", 8); /* embedding, 12 blocks, head */
    w.request.ranks = 5;
    w.request.split = "type:BLOCK$";
    pp_plan_result *result;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    cr_expect_float_eq(result->split.bottleneck_s, 3, 0);
    for (int s = 0; s < 5; s++) {
        int blocks = 0;
        const pp_stage *stage = &result->best->stages[s];
        for (int i = stage->first; i <= stage->last; i++) {
            blocks += w.model->layers[i].op == PP_OP_GPT_BLOCK;
        }
        cr_expect_leq(blocks, 3);
    }
    pp_plan_result_free(result);
    world_free(&w);
}

/* No method beats the default, whose split is the best of all that were simulated. */
Test(baselines, none_beats_optimal) {
    static const char *const methods[] = {NULL,   "uniform", "bottleneck", "parameters",
                                          "time", "memory",  "type:l[0-9]"};
    for (uint64_t seed = 0; seed < 25; seed++) {
        world w = world_random(seed, (world_size){10, 5, 12, .memory = false});
        double optimal = 0;
        for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
            w.request.split = methods[m];
            pp_plan_result *result;
            cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
            double seconds = result->best->predicted.iteration_time_s;
            if (m == 0) optimal = seconds;
            cr_expect_geq(seconds * (1 + 1e-9), optimal, "seed %d: %s", (int)seed, methods[m]);
            pp_plan_result_free(result);
        }
        world_free(&w);
    }
}
