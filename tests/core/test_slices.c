/* What slices of a microbatch do, against sums over all of them and closed forms. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "core/core.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(slices);

static const char *const causal[] = {"gpt-nano", "gpt2-124m", "gpt3-175b", "llama-1b"};

static pp_model *open_model(const char *name) {
    pp_model *model;
    cr_assert_eq(pp_model_open(name, &model, NULL), PP_OK);
    return model;
}

static void add(pp_layer_work *sum, pp_layer_work more) {
    sum->forward_flops += more.forward_flops;
    sum->input_flops += more.input_flops;
    sum->weight_flops += more.weight_flops;
    sum->attention_flops += more.attention_flops;
    sum->forward_bytes += more.forward_bytes;
    sum->forward_sum.bytes += more.forward_sum.bytes;
}

static bool close_to(double a, double b) {
    return fabs(a - b) <= 1e-12 * fmax(fabs(a), fabs(b));
}

/* Nothing is done twice, nothing is left out; parameters are read again. */
Test(slices, together_they_do_what_the_whole_does) {
    for (size_t n = 0; n < sizeof causal / sizeof *causal; n++) {
        pp_model *model = open_model(causal[n]);
        for (int i = 0; i < model->layer_count; i++)
            for (int slices = 1; slices <= 16; slices += 5) {
                const pp_layer *layer = &model->layers[i];
                pp_layer_work whole = pp_layer_work_get(layer, 3, PP_BF16), sum = {0};
                for (int k = 0; k < slices; k++)
                    add(&sum, pp_layer_slice_work(layer, 3, PP_BF16, slices, k));
                cr_assert(close_to(sum.forward_flops, whole.forward_flops));
                cr_assert(close_to(sum.input_flops, whole.input_flops));
                cr_assert(close_to(sum.weight_flops, whole.weight_flops));
                cr_assert(close_to(sum.attention_flops, whole.attention_flops));
                bool tokens = pp_layer_needs_get(layer->op).takes_tokens;
                double read = tokens ? 0 : 2.0 * (double)pp_layer_parameters(layer);
                cr_assert(close_to(sum.forward_bytes, whole.forward_bytes + (slices - 1) * read));
            }
        pp_model_free(model);
    }
}

/* A block's F has 4·R·s·h of its FLOPs in products with scores, I twice that; slice k of Q does
 * (2k+1)/Q² of those. */
Test(slices, later_ones_look_back_on_more) {
    pp_model *model = open_model("gpt2-124m");
    const pp_layer *block = &model->layers[1];
    double rows = 2 * 1024, scores = 4 * rows * 1024 * 768;
    pp_layer_work whole = pp_layer_work_get(block, 2, PP_BF16);
    for (int k = 0; k < 4; k++) {
        pp_layer_work slice = pp_layer_slice_work(block, 2, PP_BF16, 4, k);
        double share = (2 * k + 1) / 16.0;
        cr_expect(
            close_to(slice.forward_flops, (whole.forward_flops - scores) / 4 + scores * share));
        cr_expect(
            close_to(slice.input_flops, (whole.input_flops - 2 * scores) / 4 + 2 * scores * share));
        cr_expect(close_to(slice.weight_flops, whole.weight_flops / 4));
    }
    pp_model_free(model);
}

Test(slices, models_that_cannot_be_cut_are_named_with_the_layer) {
    static const struct {
        const char *model;
        int slices;
        const char *expected;
    } cases[] = {{"bert-large", 2, "attends to those behind it"},
                 {"mlp", 2, "too short for 2 slices"},
                 {"gpt-nano", 129, "sequences of 128, too short for 129 slices"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_model *model = open_model(cases[i].model);
        pp_error error = {0};
        cr_expect_eq(pp_model_can_slice(model, cases[i].slices, &error), PP_E_INPUT);
        cr_expect(strstr(error.message, cases[i].expected), "%s", error.message);
        cr_expect_eq(pp_model_can_slice(model, 1, NULL), PP_OK);
        pp_model_free(model);
    }
    for (size_t n = 0; n < sizeof causal / sizeof *causal; n++) {
        pp_model *model = open_model(causal[n]);
        cr_expect_eq(pp_model_can_slice(model, 128, NULL), PP_OK);
        pp_model_free(model);
    }
}
