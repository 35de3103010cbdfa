/* Models known by name, generated from their dimensions.
 *
 * A GPT of L blocks has L+2 layers: "embed", "block0" … and "head" (final norm, logits, loss), with
 * the token matrix of embed and head tied. */
#include "core/model_internal.h"

#include <string.h>

#define RADFORD "Radford et al. 2019, Language Models are Unsupervised Multitask Learners, table 2"
#define BROWN "Brown et al. 2020, Language Models are Few-Shot Learners, table 2.1"

/* name, blocks, dim, heads, sequence, vocabulary, summary, source. The heads of GPT-2, which the
 * paper leaves out, are those of the released configurations; so is the vocabulary. */
#define GPT_LIST(X)                                                                                \
    X("gpt-nano", 4, 64, 4, 128, 256, "4 blocks of 64 features on bytes: trains on a CPU",         \
      "ours: the smallest GPT that shows every effect")                                            \
    X("gpt2-124m", 12, 768, 12, 1024, 50257, "GPT-2 small", RADFORD)                               \
    X("gpt2-355m", 24, 1024, 16, 1024, 50257, "GPT-2 medium", RADFORD)                             \
    X("gpt2-774m", 36, 1280, 20, 1024, 50257, "GPT-2 large", RADFORD)                              \
    X("gpt2-1.5b", 48, 1600, 25, 1024, 50257, "GPT-2 XL", RADFORD)                                 \
    X("gpt3-175b", 96, 12288, 96, 2048, 50257, "GPT-3", BROWN)

typedef struct gpt_size {
    int blocks;
    int64_t dim, heads, sequence, vocabulary;
} gpt_size;

static const gpt_size gpt_sizes[] = {
#define X(name, blocks, dim, heads, sequence, vocabulary, summary, source)                         \
    {blocks, dim, heads, sequence, vocabulary},
    GPT_LIST(X)
#undef X
};

/* The GPTs first, in the order of gpt_sizes. */
static const pp_preset presets[] = {
#define X(name, blocks, dim, heads, sequence, vocabulary, summary, source) {name, summary, source},
    GPT_LIST(X)
#undef X
        {"mlp", "six linear layers with ReLU, shaped for CIFAR-10", "ours"},
};

/* CIFAR-10: 32 x 32 pixels of 3 colours in, 10 classes out. */
static const int64_t mlp_widths[] = {3072, 1024, 1024, 512, 512, 256, 10};

const pp_preset *pp_model_presets(int *count) {
    *count = PP_ARRAY_LENGTH(presets);
    return presets;
}

static void make_gpt(const gpt_size *size, pp_model *model) {
    model->layer_count = size->blocks + 2;
    model->layers = PP_NEW(&model->arena, pp_layer, model->layer_count);
    if (!model->layers) return;
    pp_layer ends = {.vocabulary = size->vocabulary,
                     .dim = size->dim,
                     .sequence = size->sequence,
                     .tie = pp_arena_copy(&model->arena, "wte", 3)};
    pp_layer *layer = model->layers;
    *layer = ends;
    layer->op = PP_OP_EMBEDDING;
    layer->name = pp_arena_copy(&model->arena, "embed", 5);
    for (int i = 0; i < size->blocks; i++)
        *++layer = (pp_layer){.name = pp_arena_printf(&model->arena, "block%d", i),
                              .op = PP_OP_GPT_BLOCK,
                              .dim = size->dim,
                              .heads = size->heads,
                              .sequence = size->sequence};
    *++layer = ends;
    layer->op = PP_OP_LM_HEAD;
    layer->name = pp_arena_copy(&model->arena, "head", 4);
}

/* linear, relu, linear, …, linear, loss */
static void make_mlp(pp_model *model) {
    int linears = PP_ARRAY_LENGTH(mlp_widths) - 1;
    model->layer_count = 2 * linears;
    model->layers = PP_NEW(&model->arena, pp_layer, model->layer_count);
    if (!model->layers) return;
    for (int i = 0; i < linears; i++) {
        bool last = i + 1 == linears;
        model->layers[2 * i] = (pp_layer){.name = pp_arena_printf(&model->arena, "linear%d", i),
                                          .op = PP_OP_LINEAR,
                                          .dim = mlp_widths[i],
                                          .output_dim = mlp_widths[i + 1],
                                          .sequence = 1};
        model->layers[2 * i + 1] =
            (pp_layer){.name = last ? pp_arena_copy(&model->arena, "loss", 4)
                                    : pp_arena_printf(&model->arena, "relu%d", i),
                       .op = last ? PP_OP_CROSS_ENTROPY : PP_OP_RELU,
                       .dim = mlp_widths[i + 1],
                       .sequence = 1};
    }
}

static pp_status make(int preset, pp_model **model, pp_error *error) {
    pp_model *made = pp_model_new_empty();
    if (!made) return pp_fail_memory(error);
    const char *name = presets[preset].name;
    made->name = pp_arena_copy(&made->arena, name, strlen(name));
    if (preset < PP_ARRAY_LENGTH(gpt_sizes))
        make_gpt(&gpt_sizes[preset], made);
    else
        make_mlp(made);
    if (made->arena.failed || pp_model_connect_chain(made, error) != PP_OK) {
        pp_model_free(made);
        return pp_fail_memory(error);
    }
    *model = made;
    return PP_OK;
}

pp_status pp_model_preset_make(const char *name, bool *found, pp_model **model, pp_error *error) {
    for (int i = 0; i < PP_ARRAY_LENGTH(presets); i++)
        if (strcmp(presets[i].name, name) == 0) {
            *found = true;
            return make(i, model, error);
        }
    *found = false;
    return PP_OK;
}
