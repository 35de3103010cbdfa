/* Ops as data: names, tensor lists, parameter counts and FLOPs against published formulas. */
#include "core/core.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

COUNTED_SUITE(layer);

static const pp_layer block = {
    .name = "block", .op = PP_OP_GPT_BLOCK, .dim = 64, .heads = 4, .sequence = 128};

static pp_model *preset(const char *name) {
    pp_model *model = NULL;
    pp_error error = {0};
    cr_assert_eq(pp_model_open(name, &model, &error), PP_OK, "%s", error.message);
    return model;
}

Test(layer, names_read_back) {
    for (int i = 0; i < PP_OP_COUNT; i++) {
        pp_op op = PP_OP_COUNT;
        cr_assert(pp_op_from_name(pp_op_name((pp_op)i), &op));
        cr_assert_eq(op, (pp_op)i);
    }
    for (int i = 0; i < PP_DTYPE_COUNT; i++) {
        pp_dtype dtype = PP_DTYPE_COUNT;
        cr_assert(pp_dtype_from_name(pp_dtype_name((pp_dtype)i), &dtype));
        cr_assert_eq(dtype, (pp_dtype)i);
    }
    pp_op op;
    pp_dtype dtype;
    cr_assert_not(pp_op_from_name("gpt", &op));
    cr_assert_not(pp_dtype_from_name("fp16", &dtype));
}

Test(layer, signatures) {
    static const struct {
        pp_layer layer;
        const char *expected;
    } cases[] = {
        {{.name = "a", .op = PP_OP_GPT_BLOCK, .dim = 64, .heads = 4, .sequence = 128},
         "gpt_block dim=64 heads=4 sequence=128 dropout=0"},
        {{.name = "b",
          .op = PP_OP_GPT_BLOCK,
          .dim = 64,
          .heads = 4,
          .sequence = 128,
          .dropout = 0.1},
         "gpt_block dim=64 heads=4 sequence=128 dropout=0.1"},
        {{.name = "e",
          .op = PP_OP_EMBEDDING,
          .dim = 8,
          .sequence = 4,
          .vocabulary = 256,
          .tie = "t"},
         "embedding dim=8 sequence=4 vocabulary=256"},
        {{.name = "l", .op = PP_OP_LINEAR, .dim = 8, .sequence = 1, .output_dim = 3},
         "linear dim=8 output_dim=3 sequence=1"},
        {{.name = "l", .op = PP_OP_LINEAR, .dim = 8, .sequence = 1}, "linear dim=8 sequence=1"},
        {{.name = "d", .op = PP_OP_DROPOUT, .dim = 8, .sequence = 1, .dropout = 0.3},
         "dropout dim=8 sequence=1 dropout=0.3"},
        {{.name = "conv1", .op = PP_OP_OPAQUE, .forward_s = 1}, "opaque name=conv1"},
    };
    char buffer[PP_SIGNATURE_LENGTH];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_str_eq(pp_layer_signature(&cases[i].layer, buffer), cases[i].expected);
        pp_layer back;
        char again[PP_SIGNATURE_LENGTH];
        bool opaque = cases[i].layer.op == PP_OP_OPAQUE;
        cr_expect_eq(pp_layer_from_signature(buffer, &back), !opaque, "%s", buffer);
        if (!opaque) cr_expect_str_eq(pp_layer_signature(&back, again), buffer);
    }
}

Test(layer, what_is_no_signature_is_refused) {
    static const char *const cases[] = {
        "",
        "link",
        "opaque name=a",
        "no_such_op dim=4",
        "linear",
        "linear dim",
        "linear dim=",
        "linear dim=4x sequence=1",
        "linear dim=-4 sequence=1",
        "linear dim=4 sequence=0",
        "linear dim=4 sequence=1 sequence=1",
        "linear sequence=1 dim=4",
        "linear dim=4 sequence=1 heads=2",
        "linear dim=99999999999 sequence=1",
        "gpt_block dim=64 heads=7 sequence=128 dropout=0",
        "gpt_block dim=64 heads=0 sequence=128 dropout=0",
        "gpt_block dim=16777216 heads=1 sequence=16777216 dropout=0",
        "gpt_block dim=64 heads=4 sequence=128 dropout=nan",
    };
    pp_layer layer;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect(!pp_layer_from_signature(cases[i], &layer), "'%s' was taken", cases[i]);
}

/* Long names of opaque layers stay apart, and nothing overflows. */
Test(layer, signatures_of_long_names) {
    char names[2][2000], signature[2][PP_SIGNATURE_LENGTH];
    for (int i = 0; i < 2; i++) {
        memset(names[i], 'x', sizeof names[i] - 1);
        names[i][1998] = (char)('a' + i);
        names[i][1999] = '\0';
        pp_layer layer = {.name = names[i], .op = PP_OP_OPAQUE};
        pp_layer_signature(&layer, signature[i]);
    }
    cr_assert_str_neq(signature[0], signature[1]);
}

/* Roles come with what the layout relies on: at most one output, none for losses. */
Test(layer, tensors_of_every_op) {
    for (int op = 0; op < PP_OP_COUNT; op++) {
        pp_layer layer = {.name = "x",
                          .op = (pp_op)op,
                          .dim = 12,
                          .heads = 3,
                          .sequence = 5,
                          .vocabulary = 7,
                          .dropout = 0.5,
                          .tie = "t",
                          .parameter_bytes = 40,
                          .output_bytes = 8,
                          .activation_bytes = 24};
        pp_layer_needs needs = pp_layer_needs_get(layer.op);
        pp_tensor tensors[PP_LAYER_TENSORS], twice[PP_LAYER_TENSORS];
        int count = pp_layer_tensors(&layer, 3, PP_FP32, tensors), outputs = 0, parameters = 0;
        cr_assert_leq(count, PP_LAYER_TENSORS);
        cr_assert_eq(pp_layer_tensors(&layer, 6, PP_FP64, twice), count);
        for (int t = 0; t < count; t++) {
            bool whole_run = tensors[t].role == PP_TENSOR_PARAMETER;
            int64_t size = pp_tensor_bytes(&tensors[t]), twice_size = pp_tensor_bytes(&twice[t]);
            bool scratch = strcmp(tensors[t].name, "score_gradient") == 0;
            bool mask = strstr(tensors[t].name, "_mask") != NULL;
            cr_expect_eq(tensors[t].dtype, mask ? PP_UINT8 : PP_FP32);
            if (op != PP_OP_OPAQUE)
                cr_expect_eq(twice_size, size * (whole_run || scratch || mask ? 2 : 4), "%s %s",
                             pp_op_name(layer.op), tensors[t].name);
            outputs += tensors[t].role == PP_TENSOR_OUTPUT;
            parameters += whole_run;
            cr_expect_eq(tensors[t].tied, strcmp(tensors[t].name, "token_weight") == 0);
        }
        cr_expect_eq(outputs, needs.makes_loss ? 0 : 1, "%s", pp_op_name(layer.op));
        cr_expect_eq(parameters > 0, needs.has_weights, "%s", pp_op_name(layer.op));
    }
}

/* 12lh²(1 + 13/(12h) + (v+s)/(12lh)) of Narayanan et al. 2021, equation 2; it leaves out the final
 * norm, 2h. */
Test(layer, parameters_follow_the_formula) {
    static const char *const names[] = {"gpt-nano", "gpt2-124m", "gpt3-175b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pp_model *model = preset(names[i]);
        const pp_layer *head = &model->layers[model->layer_count - 1];
        double l = model->layer_count - 2, h = (double)head->dim, v = (double)head->vocabulary;
        double s = (double)head->sequence;
        double formula = 12 * l * h * h * (1 + 13 / (12 * h) + (v + s) / (12 * l * h)) + 2 * h;
        cr_expect_float_eq((double)pp_model_parameters(model), formula, formula * 1e-13, "%s",
                           names[i]);
        pp_model_free(model);
    }
}

/* 96·B·s·l·h²(1 + s/(6h) + v/(16lh)) with the blocks recomputed: equation 3. */
Test(layer, flops_follow_the_formula) {
    pp_model *model = preset("gpt2-124m");
    const pp_layer *head = &model->layers[model->layer_count - 1];
    double l = model->layer_count - 2, h = (double)head->dim, v = (double)head->vocabulary;
    double s = (double)head->sequence, samples = 3, sum = 0;
    for (int i = 1; i < model->layer_count; i++) {
        pp_layer_work work = pp_layer_work_get(&model->layers[i], 3, PP_BF16);
        double again = i < model->layer_count - 1 ? work.forward_flops : 0;
        sum += work.forward_flops + work.input_flops + work.weight_flops + again;
    }
    double formula = 96 * samples * s * l * h * h * (1 + s / (6 * h) + v / (16 * l * h));
    cr_expect_float_eq(sum, formula, formula * 1e-13);
    pp_model_free(model);
}

/* Bytes that a layer keeps from F to the backward pass, in 16 bit. */
static double saved_bytes(const pp_layer *layer, int64_t samples) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    double saved = 0;
    int count = pp_layer_tensors(layer, samples, PP_BF16, tensors);
    for (int t = 0; t < count; t++)
        if (tensors[t].role == PP_TENSOR_SAVED_INPUT || tensors[t].role == PP_TENSOR_SAVED_WEIGHT)
            saved += (double)pp_tensor_bytes(&tensors[t]);
    return saved;
}

/* s·b·h·(34 + 5·a·s/h) with dropout, 32 + 2·a·s/h without (Korthikanti et al. 2022, section 4.1;
 * core/layer_tensors.c has the terms), and the norms' statistics. */
Test(layer, activations_of_a_block) {
    double s = 128, b = 3, h = 64, a = 4;
    pp_layer dropped = block;
    dropped.dropout = 0.1;
    cr_expect_float_eq(saved_bytes(&block, 3), s * b * h * (32 + 2 * a * s / h) + 8 * s * b, 1e-6);
    cr_expect_float_eq(saved_bytes(&dropped, 3), s * b * h * (34 + 5 * a * s / h) + 8 * s * b,
                       1e-6);
}

/* Work grows with the microbatch, bytes of weights do not; fp64 moves twice what fp32 does. */
Test(layer, work_scales) {
    for (int op = 1; op < PP_OP_COUNT; op++) {
        pp_layer layer = {
            .name = "x", .op = (pp_op)op, .dim = 12, .heads = 3, .sequence = 5, .vocabulary = 7};
        pp_layer_needs needs = pp_layer_needs_get(layer.op);
        pp_layer_work one = pp_layer_work_get(&layer, 1, PP_FP32);
        pp_layer_work two = pp_layer_work_get(&layer, 2, PP_FP32);
        pp_layer_work wide = pp_layer_work_get(&layer, 1, PP_FP64);
        const char *name = pp_op_name(layer.op);
        cr_expect_float_eq(two.forward_flops, 2 * one.forward_flops, 1e-9, "%s", name);
        cr_expect_float_eq(two.weight_flops, 2 * one.weight_flops, 1e-9, "%s", name);
        cr_expect(two.forward_bytes > one.forward_bytes, "%s", name);
        cr_expect_float_eq(wide.forward_bytes, 2 * one.forward_bytes, 1e-9, "%s", name);
        cr_expect_float_eq(wide.optimizer_bytes, 2 * one.optimizer_bytes, 1e-9, "%s", name);
        cr_expect_float_eq(two.optimizer_bytes, one.optimizer_bytes, 1e-9, "%s", name);
        cr_expect_eq(one.weight_bytes > 0, needs.has_weights, "%s", name);
        cr_expect_eq(one.input_bytes > 0, !needs.takes_tokens, "%s", name);
        cr_expect_eq(one.weight_flops > 0, needs.has_weights, "%s", name);
    }
}

/* Byte fields of opaque layers are per sample, rounded up to whole elements. */
Test(layer, opaque_tensors) {
    pp_layer layer = {.name = "o",
                      .op = PP_OP_OPAQUE,
                      .parameter_bytes = 4096,
                      .output_bytes = 65536,
                      .activation_bytes = 131072};
    pp_tensor tensors[PP_LAYER_TENSORS];
    int64_t bytes[PP_TENSOR_WORKSPACE + 1] = {0};
    int count = pp_layer_tensors(&layer, 5, PP_FP32, tensors);
    for (int t = 0; t < count; t++) bytes[tensors[t].role] += pp_tensor_bytes(&tensors[t]);
    cr_expect_eq(bytes[PP_TENSOR_PARAMETER], 4096);
    cr_expect_eq(bytes[PP_TENSOR_OUTPUT], 5 * 65536);
    cr_expect_eq(bytes[PP_TENSOR_SAVED_INPUT], 5 * 131072 / 2);
    cr_expect_eq(bytes[PP_TENSOR_SAVED_WEIGHT], 5 * 131072 / 2);
}
