/* Layers divided over devices: what each holds adds up to the whole, activations follow the
 * published formula, and what cannot be divided is refused with its reason. */
#include "core/core.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <string.h>

COUNTED_SUITE(shard);

/* One of each op, with sizes that 2, 3 and 6 divide, but for the vocabulary. */
static pp_layer sample_layer(pp_op op) {
    return (pp_layer){.name = "x",
                      .op = op,
                      .dim = 36,
                      .output_dim = op == PP_OP_LINEAR ? 30 : 0,
                      .heads = 6,
                      .sequence = 5,
                      .vocabulary = 7};
}

static pp_layer part_of(const pp_layer *layer, int tp) {
    pp_layer local;
    pp_error error = {0};
    cr_assert_eq(pp_layer_shard(layer, tp, &local, &error), PP_OK, "%s", error.message);
    return local;
}

/* Every tensor is whole on each device, or its parts make up the whole, the vocabulary padded. */
Test(shard, parts_add_up) {
    static const int widths[] = {2, 3, 6};
    for (int op = 1; op < PP_OP_COUNT; op++) {
        for (int w = 0; w < 3; w++) {
            pp_layer layer = sample_layer((pp_op)op), local = part_of(&layer, widths[w]);
            pp_tensor whole[PP_LAYER_TENSORS], part[PP_LAYER_TENSORS];
            int count = pp_layer_tensors(&layer, 4, PP_FP32, whole);
            cr_assert_eq(pp_layer_tensors(&local, 4, PP_FP32, part), count);
            for (int t = 0; t < count; t++) {
                int64_t all = pp_tensor_bytes(&whole[t]), each = pp_tensor_bytes(&part[t]);
                int64_t words = whole[t].rows == 7 ? whole[t].columns : whole[t].rows;
                int64_t padding = (widths[w] - 7 % widths[w]) % widths[w] * words * 4;
                bool padded = whole[t].rows == 7 || whole[t].columns == 7;
                cr_expect(each == all || each * widths[w] == all + (padded ? padding : 0),
                          "%s.%s: %lld on each of %d, %lld in all", pp_op_name((pp_op)op),
                          whole[t].name, (long long)each, widths[w], (long long)all);
                cr_expect(whole[t].role != PP_TENSOR_OUTPUT || each == all, "%s",
                          pp_op_name((pp_op)op));
            }
        }
    }
}

/* Which tensors of a block are whole: what Megatron-LM keeps on each device. */
Test(shard, what_is_whole_in_a_block) {
    static const char *const whole_names[] = {"norm1_scale",
                                              "norm1_shift",
                                              "attention_bias",
                                              "norm2_scale",
                                              "norm2_shift",
                                              "contract_bias",
                                              "output",
                                              "norm1_normal",
                                              "norm1_rstd",
                                              "norm1_output",
                                              "norm2_normal",
                                              "norm2_rstd",
                                              "norm2_output",
                                              "norm1_gradient",
                                              "attention_gradient",
                                              "norm2_gradient",
                                              "contract_gradient",
                                              "branch",
                                              "residual_gradient",
                                              "score_gradient"};
    pp_layer layer = sample_layer(PP_OP_GPT_BLOCK), local = part_of(&layer, 3);
    pp_tensor whole[PP_LAYER_TENSORS], part[PP_LAYER_TENSORS];
    int count = pp_layer_tensors(&layer, 4, PP_FP32, whole);
    pp_layer_tensors(&local, 4, PP_FP32, part);
    for (int t = 0; t < count; t++) {
        bool expected = false;
        for (size_t i = 0; i < sizeof whole_names / sizeof *whole_names; i++)
            expected |= strcmp(whole_names[i], whole[t].name) == 0;
        bool found = pp_tensor_bytes(&whole[t]) == pp_tensor_bytes(&part[t]);
        cr_expect_eq(found, expected, "%s", whole[t].name);
    }
}

/* Korthikanti et al. 2022, equation 2 (tensor parallelism): s·b·h·(10 + 24/t + 5·a·s/(h·t)); with
 * the norms' statistics, 8·s·b. */
Test(shard, activations_follow_the_formula) {
    static const struct {
        double a, h, s;
        int t;
    } cases[] = {{96, 12288, 2048, 8}, {25, 1600, 1024, 5}, {96, 12288, 2048, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double a = cases[i].a, h = cases[i].h, s = cases[i].s, t = cases[i].t, b = 2, saved = 0;
        pp_layer layer = {.name = "b",
                          .op = PP_OP_GPT_BLOCK,
                          .dim = (int64_t)h,
                          .heads = (int64_t)a,
                          .sequence = (int64_t)s,
                          .dropout = 0.1};
        pp_layer local = part_of(&layer, cases[i].t);
        pp_tensor tensors[PP_LAYER_TENSORS];
        int count = pp_layer_tensors(&local, 2, PP_BF16, tensors);
        for (int k = 0; k < count; k++) {
            pp_tensor_role role = tensors[k].role;
            if (role == PP_TENSOR_SAVED_INPUT || role == PP_TENSOR_SAVED_WEIGHT)
                saved += (double)pp_tensor_bytes(&tensors[k]);
        }
        double published = s * b * h * (10 + 24 / t + 5 * a * s / (h * t));
        cr_expect_float_eq(saved, published + 8 * s * b, 1e-9 * saved);
    }
}

/* 1/t of the products; two sums of R·h in F and two in I (Shoeybi et al. 2019, figure 4). */
Test(shard, work_of_a_block) {
    pp_layer layer = sample_layer(PP_OP_GPT_BLOCK), local = part_of(&layer, 6);
    pp_layer_work whole = pp_layer_work_get(&layer, 4, PP_BF16);
    pp_layer_work part = pp_layer_work_get(&local, 4, PP_BF16);
    double bytes = 2 * 4 * 5 * 36 * 2;
    cr_expect_float_eq(6 * part.forward_flops, whole.forward_flops, 1e-6);
    cr_expect_float_eq(6 * part.input_flops, whole.input_flops, 1e-6);
    cr_expect_float_eq(6 * part.weight_flops, whole.weight_flops, 1e-6);
    cr_expect_eq(whole.forward_sum.count, 0);
    cr_expect_eq(part.forward_sum.count, 2);
    cr_expect_eq(part.forward_sum.bytes, bytes);
    cr_expect_eq(part.input_sum.count, 2);
    cr_expect_eq(part.input_sum.bytes, bytes);
}

/* The embedding sums its output and has no input gradient; the head sums three fp32 numbers a row
 * forward and its input gradient; norms have nothing to sum. */
Test(shard, sums_of_other_ops) {
    static const struct {
        pp_op op;
        pp_layer_sum forward, input;
    } cases[] = {{PP_OP_EMBEDDING, {1, 20 * 36 * 4}, {0, 0}},
                 {PP_OP_LM_HEAD, {3, 3 * 20 * 4}, {1, 20 * 36 * 4}},
                 {PP_OP_ATTENTION, {1, 20 * 36 * 4}, {1, 20 * 36 * 4}},
                 {PP_OP_LINEAR, {0.5, 0.5 * 20 * 30 * 4}, {1, 20 * 36 * 4}},
                 {PP_OP_LAYER_NORM, {0, 0}, {0, 0}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_layer layer = sample_layer(cases[i].op), local = part_of(&layer, 2);
        pp_layer_work work = pp_layer_work_get(&local, 4, PP_FP32);
        const char *name = pp_op_name(cases[i].op);
        cr_expect_eq(work.forward_sum.count, cases[i].forward.count, "%s", name);
        cr_expect_eq(work.forward_sum.bytes, cases[i].forward.bytes, "%s", name);
        cr_expect_eq(work.input_sum.count, cases[i].input.count, "%s", name);
        cr_expect_eq(work.input_sum.bytes, cases[i].input.bytes, "%s", name);
    }
}

Test(shard, refusals) {
    static const struct {
        pp_op op;
        int tp;
        pp_status status;
        const char *words;
    } cases[] = {
        {PP_OP_GPT_BLOCK, 4, PP_E_INPUT, "4 devices cannot share the 6 heads of layer 'x'"},
        {PP_OP_ATTENTION, 5, PP_E_INPUT, "6 heads"},
        {PP_OP_LINEAR, 4, PP_E_INPUT, "30 output features"},
        {PP_OP_OPAQUE, 2, PP_E_UNSUPPORTED, "opaque"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_layer layer = sample_layer(cases[i].op), local;
        pp_error error = {0};
        cr_expect_eq(pp_layer_shard(&layer, cases[i].tp, &local, &error), cases[i].status);
        cr_expect(strstr(error.message, cases[i].words), "%s", error.message);
        cr_expect_str_eq(error.place, "--tp");
        cr_expect_eq(pp_layer_shard(&layer, 1, &local, &error), PP_OK);
        cr_expect_eq(memcmp(&layer, &local, sizeof layer), 0);
    }
}

Test(shard, signatures_tell_parts_apart) {
    char text[PP_SIGNATURE_LENGTH];
    pp_layer layer = sample_layer(PP_OP_GPT_BLOCK), local = part_of(&layer, 2);
    cr_expect_str_eq(pp_layer_signature(&local, text),
                     "gpt_block dim=36 heads=6 sequence=5 dropout=0 shards=2");
}

/* A stage's layout on one of t devices: its weights, as its layers' parameters add up; borders are
 * as they were. */
Test(shard, layouts) {
    pp_model *model;
    cr_assert_eq(pp_model_open("gpt2-124m", &model, NULL), PP_OK);
    pp_arena arena;
    pp_arena_init(&arena);
    pp_layout_request request = {
        .model = model, .first = 1, .last = 3, .samples = 2, .dtype = PP_BF16};
    pp_stage_layout whole, part;
    cr_assert_eq(pp_stage_layout_make(&request, &arena, &whole, NULL), PP_OK);
    request.tp = 4;
    cr_assert_eq(pp_stage_layout_make(&request, &arena, &part, NULL), PP_OK);
    double ratio = (double)part.bytes.parameters / (double)whole.bytes.parameters;
    pp_layer local = part_of(&model->layers[1], 4);
    double expected =
        (double)pp_layer_parameters(&local) / (double)pp_layer_parameters(&model->layers[1]);
    cr_expect_float_eq(ratio, expected, 1e-6);
    cr_expect_eq(part.bytes.input, whole.bytes.input);
    cr_expect_eq(part.bytes.output_gradient, whole.bytes.output_gradient);
    cr_expect_lt(part.bytes.activation, whole.bytes.activation / 2);
    pp_error error = {0};
    request.tp = 7;
    cr_expect_eq(pp_stage_layout_make(&request, &arena, &part, &error), PP_E_INPUT);
    cr_expect(strstr(error.message, "12 heads"), "%s", error.message);
    pp_arena_deinit(&arena);
    pp_model_free(model);
}
