/* Memory and arithmetic of whole transformers, as published: what a stage's layout counts in bf16
 * against Korthikanti et al. 2022, FLOPs of an iteration against Narayanan et al. 2021. */
#include "core/core.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

COUNTED_SUITE(transformers);

static pp_model *preset(const char *name) {
    pp_model *model = NULL;
    pp_error error = {0};
    cr_assert_eq(pp_model_open(name, &model, &error), PP_OK, "%s", error.message);
    return model;
}

static pp_stage_bytes stage_bytes(const pp_model *model, int first, int last, int64_t samples,
                                  int tp) {
    pp_arena arena;
    pp_stage_layout layout;
    pp_error error = {0};
    pp_layout_request request = {.model = model,
                                 .first = first,
                                 .last = last,
                                 .samples = samples,
                                 .dtype = PP_BF16,
                                 .optimizer = PP_ADAMW,
                                 .tp = tp};
    pp_arena_init(&arena);
    cr_assert_eq(pp_stage_layout_make(&request, &arena, &layout, &error), PP_OK, "%s",
                 error.message);
    pp_arena_deinit(&arena);
    return layout.bytes;
}

/* Activations of one more block in a stage of blocks. */
static double block_bytes(const pp_model *model, int64_t samples, int tp) {
    return (double)(stage_bytes(model, 2, 5, samples, tp).activation -
                    stage_bytes(model, 2, 4, samples, tp).activation);
}

/* Korthikanti et al. 2022, equations 1 and 2: s·b·h·(34 + 5·a·s/h) on one device, on t of them
 * s·b·h·(10 + 24/t + 5·a·s/(h·t)). What we have on top, the norms' statistics, is 8/h of it. */
Test(transformers, activations_of_a_block) {
    static const struct {
        const char *name;
        int tp;
    } cases[] = {{"gpt3-175b", 1}, {"gpt3-175b", 8},  {"gpt2-1.5b", 1},  {"gpt2-1.5b", 5},
                 {"gpt2-124m", 4}, {"bert-large", 1}, {"bert-large", 2}, {"bert-base", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_model *model = preset(cases[i].name);
        const pp_layer *block = &model->layers[2];
        double h = (double)block->dim, a = (double)block->heads, s = (double)block->sequence;
        double t = cases[i].tp, samples = 3;
        double formula = s * samples * h * (10 + 24 / t + 5 * a * s / (h * t));
        double counted = block_bytes(model, 3, cases[i].tp);
        cr_expect_float_eq(counted, formula, 0.001 * formula, "%s tp=%d: %g, not %g", cases[i].name,
                           cases[i].tp, counted, formula);
        pp_model_free(model);
    }
}

/* Llama's block, counted out in core/layer_tensors.c: there is no dropout, and keys and values are
 * narrower than queries. */
Test(transformers, activations_of_a_llama_block) {
    static const char *const names[] = {"llama-2-7b", "llama-2-70b", "llama-1b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pp_model *model = preset(names[i]);
        const pp_layer *block = &model->layers[2];
        double h = (double)block->dim, a = (double)block->heads, s = (double)block->sequence;
        double f = (double)block->hidden, kv = (double)pp_layer_kv_heads(block);
        double formula = s * (12 * h + 4 * h * kv / a + 6 * f + 2 * a * s);
        double counted = block_bytes(model, 1, 1);
        cr_expect_float_eq(counted, formula, 0.001 * formula, "%s: %g, not %g", names[i], counted,
                           formula);
        pp_model_free(model);
    }
}

/* Mixed-precision Adam: 2 bytes of weight, 2 of gradient, 4 of fp32 master, 8 of moments for each
 * parameter (Rajbhandari et al. 2020, ZeRO, section 3.1). A tied matrix on one stage has one set of
 * weights and states; its second gradient is the difference. */
Test(transformers, sixteen_bytes_per_parameter) {
    static const char *const names[] = {"gpt2-124m",   "gpt2-1.5b",  "gpt3-175b",   "llama-1b",
                                        "llama-2-70b", "bert-large", "llama-3-405b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pp_model *model = preset(names[i]);
        const pp_layer *head = &model->layers[model->layer_count - 1];
        pp_stage_bytes bytes = stage_bytes(model, 0, model->layer_count - 1, 1, 1);
        double shared = head->tie ? 2 * (double)head->vocabulary * (double)head->dim : 0;
        double counted = (double)(bytes.parameters + bytes.gradients + bytes.optimizer) - shared;
        double formula = 16 * (double)pp_model_parameters(model);
        cr_expect_float_eq(counted, formula, 1e-5 * formula, "%s: %g, not %g", names[i], counted,
                           formula);
        pp_model_free(model);
    }
}

/* FLOPs of forward and backward, blocks once more forward where they are recomputed. */
static double iteration_flops(const pp_model *model, int64_t samples, bool recompute) {
    double sum = 0;
    for (int i = 0; i < model->layer_count; i++) {
        pp_layer_needs needs = pp_layer_needs_get(model->layers[i].op);
        pp_layer_work work = pp_layer_work_get(&model->layers[i], samples, PP_BF16);
        if (needs.takes_tokens) continue; /* looked up, not multiplied */
        sum += work.forward_flops + work.input_flops + work.weight_flops;
        if (recompute && !needs.makes_loss) sum += work.forward_flops;
    }
    return sum;
}

/* Narayanan et al. 2021, equation 3: 96·B·s·l·h²(1 + s/(6h) + v/(16lh)) with recomputation, where
 * the logits are not computed twice, 72·B·s·l·h²(1 + s/(6h) + v/(12lh)) without. BERT's head
 * multiplies with one more matrix of h², of 12·l of them. */
Test(transformers, flops_of_an_iteration) {
    static const struct {
        const char *name;
        double tolerance;
    } cases[] = {{"gpt2-124m", 1e-12},
                 {"gpt2-1.5b", 1e-12},
                 {"gpt3-175b", 1e-12},
                 {"bert-base", 0.01},
                 {"bert-large", 0.005}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_model *model = preset(cases[i].name);
        const pp_layer *head = &model->layers[model->layer_count - 1];
        double l = model->layer_count - 2, h = (double)head->dim, v = (double)head->vocabulary;
        double s = (double)head->sequence, batch = 3, square = batch * s * l * h * h;
        double with = 96 * square * (1 + s / (6 * h) + v / (16 * l * h));
        double without = 72 * square * (1 + s / (6 * h) + v / (12 * l * h));
        cr_expect_float_eq(iteration_flops(model, 3, true), with, cases[i].tolerance * with, "%s",
                           cases[i].name);
        cr_expect_float_eq(iteration_flops(model, 3, false), without, cases[i].tolerance * without,
                           "%s", cases[i].name);
        pp_model_free(model);
    }
}

/* Llama's matrices multiply once forward and twice backward: 6 FLOPs for each of their parameters
 * and token (Kaplan et al. 2020, section 2.1; norms and embedding do not), and attention over the
 * square, 12·s·a·d a token and block, which the backward pass does at twice the price. */
Test(transformers, flops_of_llama) {
    static const char *const names[] = {"llama-2-7b", "llama-2-70b", "llama-3-8b", "llama-1b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pp_model *model = preset(names[i]);
        const pp_layer *head = &model->layers[model->layer_count - 1];
        double s = (double)head->sequence, l = model->layer_count - 2, h = (double)head->dim;
        double norms = (2 * l + 1) * h, table = (double)head->vocabulary * h;
        double matrices = (double)pp_model_parameters(model) - norms - (head->tie ? 0 : table);
        double formula = s * (6 * matrices + 12 * s * l * h);
        cr_expect_float_eq(iteration_flops(model, 1, false), formula, 1e-12 * formula, "%s",
                           names[i]);
        pp_model_free(model);
    }
}
