/* What recomputation leaves of a stage's memory, by hand and by the paper's formulas (Korthikanti
 * et al. 2022, section 4.1 and 5: s·b·h·(34 + 5·a·s/h) bytes of a block in 16 bit, 34 of them
 * without the attention core, 2 with its input alone). */
#include "core/core.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

COUNTED_SUITE(recompute, .timeout = 60);

/* Blocks alone: s = 64, h = 64, a = 4, so that every tensor is a multiple of the alignment. */
enum { SEQUENCE = 64, DIM = 64, HEADS = 4, SAMPLES = 2, ELEMENTS = SEQUENCE * DIM * SAMPLES };
enum { BORDER = 2 * ELEMENTS };                            /* 2·s·b·h */
enum { CORE = 5 * HEADS * SEQUENCE * SEQUENCE * SAMPLES }; /* 5·a·s²·b */
enum { STATISTICS = 8 * SEQUENCE * SAMPLES };              /* of the norms, fp32 */

static pp_model *blocks(int count, int dim, int heads, int sequence) {
    pp_text text = {0};
    pp_model *model;
    pp_error error = {.message = ""};
    pp_text_string(&text, "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"b\", "
                          "\"layers\": [");
    for (int i = 0; i < count; i++)
        pp_text_printf(&text,
                       "%s{\"name\": \"b%d\", \"op\": \"gpt_block\", \"dim\": %d, \"heads\": %d, "
                       "\"sequence\": %d, \"dropout\": 0.1}",
                       i ? "," : "", i, dim, heads, sequence);
    pp_text_string(&text, "]}");
    cr_assert_eq(pp_model_read(text.bytes, text.length, "blocks", &model, &error), PP_OK, "%s",
                 error.message);
    pp_text_deinit(&text);
    return model;
}

/* Layers first … last of the model. */
static pp_stage_bytes bytes_of(const pp_model *model, int first, int last, int64_t samples,
                               bool split, pp_recompute policy) {
    pp_arena arena;
    pp_arena_init(&arena);
    pp_layout_request ask = {.model = model,
                             .first = first,
                             .last = last,
                             .samples = samples,
                             .dtype = PP_BF16,
                             .split_backward = split,
                             .recompute = policy};
    pp_stage_layout layout;
    cr_assert_eq(pp_stage_layout_make(&ask, &arena, &layout, NULL), PP_OK);
    pp_arena_deinit(&arena);
    return layout.bytes;
}

Test(recompute, blocks_by_hand) {
    enum { BLOCKS = 9, LAYERS = 7 }; /* layers 1 … 7: both borders are crossed */
    pp_model *model = blocks(BLOCKS, DIM, HEADS, SEQUENCE);
    for (int split = 0; split < 2; split++) {
        pp_stage_bytes none = bytes_of(model, 1, LAYERS, SAMPLES, split, PP_RECOMPUTE_NONE);
        pp_stage_bytes core = bytes_of(model, 1, LAYERS, SAMPLES, split, PP_RECOMPUTE_ATTENTION);
        cr_expect_eq(none.activation, LAYERS * (34 * ELEMENTS + CORE + STATISTICS));
        cr_expect_eq(core.activation, LAYERS * (34 * ELEMENTS + STATISTICS));
        cr_expect_eq(core.workspace, none.workspace + CORE);
        cr_expect_eq(core.stash, none.stash);
        for (int n = 1; n <= LAYERS + 2; n++) {
            pp_stage_bytes every =
                bytes_of(model, 1, LAYERS, SAMPLES, split, PP_RECOMPUTE_EVERY + n);
            int groups = (LAYERS + n - 1) / n, largest = n < LAYERS ? n : LAYERS;
            /* the first group's input is in the slot that it was received in */
            cr_expect_eq(every.activation, (groups - 1) * BORDER, "every:%d", n);
            cr_expect_eq(every.input, BORDER);
            cr_expect_eq(every.parameters, none.parameters);
            int64_t group = largest * (34 * ELEMENTS + CORE + STATISTICS);
            int64_t more = every.workspace - none.workspace;
            cr_expect_geq(more, group, "every:%d", n);
            cr_expect_leq(more, group + 2 * BORDER, "every:%d", n); /* outputs inside the group */
            int64_t for_weight = every.stash - none.stash;
            cr_expect_eq(for_weight, split ? none.activation - none.released_by_input : 0);
        }
    }
    pp_model_free(model);
}

/* GPT-3 175B, one sample: s = 2048, h = 12288, a = 96. */
Test(recompute, agrees_with_the_paper) {
    pp_model *model = blocks(4, 12288, 96, 2048);
    double element = 2048.0 * 12288.0, score = 5.0 * 96 * 2048 * 2048;
    const struct {
        pp_recompute policy;
        double bytes;
    } cases[] = {{PP_RECOMPUTE_NONE, 34 * element + score},
                 {PP_RECOMPUTE_ATTENTION, 34 * element},
                 {PP_RECOMPUTE_EVERY + 1, 2 * element}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        /* three blocks but the first more than one: what a block adds */
        pp_stage_bytes one = bytes_of(model, 1, 1, 1, false, cases[i].policy);
        pp_stage_bytes three = bytes_of(model, 1, 3, 1, false, cases[i].policy);
        double block = (double)(three.activation - one.activation) / 2;
        cr_expect_float_eq(block / cases[i].bytes, 1, 0.02, "case %zu: %.6g, not %.6g", i, block,
                           cases[i].bytes);
    }
    pp_model_free(model);
}

/* Nothing to drop: the policies change nothing but where the backward starts from. */
Test(recompute, attention_without_a_core_is_none) {
    static const char text[] =
        "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"m\", \"layers\": ["
        "{\"name\": \"a\", \"op\": \"linear\", \"dim\": 32, \"output_dim\": 32, \"sequence\": 1},"
        "{\"name\": \"r\", \"op\": \"relu\", \"dim\": 32, \"sequence\": 1},"
        "{\"name\": \"b\", \"op\": \"linear\", \"dim\": 32, \"output_dim\": 32, \"sequence\": 1}]}";
    pp_model *model;
    cr_assert_eq(pp_model_read(text, strlen(text), "m", &model, NULL), PP_OK);
    pp_stage_bytes none = bytes_of(model, 0, 2, 4, false, PP_RECOMPUTE_NONE);
    pp_stage_bytes core = bytes_of(model, 0, 2, 4, false, PP_RECOMPUTE_ATTENTION);
    cr_expect_eq(memcmp(&none, &core, sizeof none), 0);
    pp_layer_work work = pp_layer_work_get(&model->layers[0], 4, PP_FP32);
    cr_expect_eq(work.attention_flops, 0);
    cr_expect_eq(work.attention_bytes, 0);
    pp_model_free(model);
}

/* B lasts longer by what it recomputes; an R is beside it. */
Test(recompute, times_of_a_stage) {
    pp_stage stage = {.input_s = 2, .weight_s = 3, .recompute_s = 0.5};
    const struct {
        pp_recompute policy;
        double input_s;
    } cases[] = {{PP_RECOMPUTE_FULL, 2},
                 {PP_RECOMPUTE_EXCEPT_LAST, 2},
                 {PP_RECOMPUTE_ATTENTION, 2.5},
                 {PP_RECOMPUTE_EVERY + 3, 2.5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        stage.recompute = cases[i].policy;
        cr_expect_eq(pp_stage_input_s(&stage), cases[i].input_s);
    }
}
