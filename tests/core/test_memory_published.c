/* Memory of whole models, as the layout counts it, against published formulas: bytes per parameter
 * of mixed-precision training, and activations under tensor parallelism. */
#include "core/core.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>

COUNTED_SUITE(memory_published);

typedef struct published {
    const char *name;
    double parameters; /* Brown et al. 2020, table 2.1; OpenAI's gpt-2 repository */
    double layers, hidden, heads, sequence;
    int tp;
} published;

static const published models[] = {{"gpt3-175b", 174.6e9, 96, 12288, 96, 2048, 1},
                                   {"gpt3-175b", 174.6e9, 96, 12288, 96, 2048, 8},
                                   {"gpt2-1.5b", 1557.6e6, 48, 1600, 25, 1024, 1},
                                   {"gpt2-1.5b", 1557.6e6, 48, 1600, 25, 1024, 5}};
enum { MODELS = sizeof models / sizeof *models };

static pp_stage_bytes bytes_of(const published *p, pp_layout_request request) {
    pp_arena arena;
    pp_model *model;
    pp_stage_layout layout;
    pp_error error = {0};
    pp_arena_init(&arena);
    cr_assert_eq(pp_model_open(p->name, &model, NULL), PP_OK);
    request.model = model;
    request.tp = p->tp;
    if (request.last < 0) request.last = model->layer_count - 1;
    cr_assert_eq(pp_stage_layout_make(&request, &arena, &layout, &error), PP_OK, "%s",
                 error.message);
    pp_arena_deinit(&arena);
    pp_model_free(model);
    return layout.bytes;
}

/* Parameters of one of t devices: 12·h² of each block's matrices, their inner biases and the word
 * embedding are divided; norms, outer biases and positions are not. */
static double parameters_of(const published *p) {
    double h = p->hidden, t = p->tp, each = (12 * h * h + 7 * h) / t + 6 * h;
    double words = p->parameters - p->layers * (12 * h * h + 13 * h) - p->sequence * h - 2 * h;
    return p->layers * each + words / t + p->sequence * h + 2 * h;
}

/* Weights, gradients and optimizer state: 2 + 2 + 4 + 8 bytes per parameter in mixed precision with
 * Adam (Rajbhandari et al. 2020, ZeRO, section 3.1), 4 + 4 + 8 in fp32; SGD has one momentum. */
Test(memory_published, bytes_per_parameter) {
    static const struct {
        pp_dtype dtype;
        pp_optimizer optimizer;
        double weights, gradients, optimizer_state;
    } rows[] = {{PP_BF16, PP_ADAMW, 2, 2, 4 + 8},
                {PP_FP32, PP_ADAMW, 4, 4, 8},
                {PP_BF16, PP_SGD, 2, 2, 4 + 4},
                {PP_FP32, PP_SGD, 4, 4, 4}};
    for (int m = 0; m < MODELS; m++) {
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            double each = parameters_of(&models[m]);
            pp_layout_request request = {
                .last = -1, .samples = 1, .dtype = rows[r].dtype, .optimizer = rows[r].optimizer};
            pp_stage_bytes bytes = bytes_of(&models[m], request);
            double weights = rows[r].weights * each, state = rows[r].optimizer_state * each;
            double all = weights + rows[r].gradients * each + state;
            double found = (double)(bytes.parameters + bytes.gradients + bytes.optimizer);
            cr_expect_float_eq((double)bytes.parameters, weights, 0.02 * weights, "%s tp %d",
                               models[m].name, models[m].tp);
            cr_expect_float_eq((double)bytes.optimizer, state, 0.02 * state, "%s tp %d",
                               models[m].name, models[m].tp);
            cr_expect_float_eq(found, all, 0.02 * all, "%s tp %d: %.4g of %.4g bytes",
                               models[m].name, models[m].tp, found, all);
        }
    }
}

/* The blocks' activations: Korthikanti et al. 2022, equation 2. */
Test(memory_published, activations) {
    for (int m = 0; m < MODELS; m++) {
        double s = models[m].sequence, h = models[m].hidden, a = models[m].heads, b = 4;
        double t = models[m].tp;
        double formula = models[m].layers * s * b * h * (10 + 24 / t + 5 * a * s / (h * t));
        pp_layout_request request = {
            .first = 1, .last = (int)models[m].layers, .samples = 4, .dtype = PP_BF16};
        double found = (double)bytes_of(&models[m], request).activation;
        cr_expect_float_eq(found, formula, 0.02 * formula, "%s tp %g: %.4g of %.4g bytes",
                           models[m].name, t, found, formula);
    }
}
