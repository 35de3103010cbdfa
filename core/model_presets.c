/* Models known by name, generated from their dimensions.
 *
 * A transformer of L blocks has L+2 layers: "embed", "block0" … and "head" (final norm, logits,
 * loss); embedding and head share the token matrix unless the model was published with two. */
#include "core/model_internal.h"

#include <string.h>

#define RADFORD "Radford et al. 2019, Language Models are Unsupervised Multitask Learners, table 2"
#define BROWN "Brown et al. 2020, Language Models are Few-Shot Learners, table 2.1"
#define BROWN_13B BROWN ", whose 5140 for its width is not 40 heads of 128: 5120"
#define DEVLIN "Devlin et al. 2019, BERT, section 3"
#define LLAMA_2 "Touvron et al. 2023, Llama 2; the released configurations"
#define LLAMA_3 "Grattafiori et al. 2024, The Llama 3 Herd of Models, table 3"
#define LLAMA_32 "the released configuration of Llama 3.2 1B, with Llama 3's 8192 positions"
#define OURS "ours: the smallest that shows every effect"

/* name, summary, source, dimensions (pp_transformer). The heads of GPT-2, which the paper leaves
 * out, are those of the released configurations; so are the vocabulary and GPT-2's dropout. Brown
 * et al. give none for GPT-3; Korthikanti et al. 2022, who count its memory, train it with one. */
#define GPT(blocks_, dim_, heads_, sequence_)                                                      \
    .family = PP_FAMILY_GPT, .blocks = blocks_, .dim = dim_, .heads = heads_,                      \
    .sequence = sequence_, .vocabulary = 50257, .dropout = 0.1
#define LLAMA(blocks_, dim_, heads_, hidden_, sequence_, vocabulary_)                              \
    .family = PP_FAMILY_LLAMA, .blocks = blocks_, .dim = dim_, .heads = heads_, .hidden = hidden_, \
    .sequence = sequence_, .vocabulary = vocabulary_
#define BERT(blocks_, dim_, heads_)                                                                \
    .family = PP_FAMILY_BERT, .blocks = blocks_, .dim = dim_, .heads = heads_, .sequence = 512,    \
    .vocabulary = 30522, .dropout = 0.1
#define NANO(family_)                                                                              \
    .family = family_, .blocks = 4, .dim = 64, .heads = 4, .sequence = 128, .vocabulary = 256
#define TRANSFORMER_LIST(X)                                                                        \
    X("gpt-nano", "4 blocks of 64 features on bytes: trains on a CPU", OURS, NANO(PP_FAMILY_GPT))  \
    X("gpt2-124m", "GPT-2 small", RADFORD, GPT(12, 768, 12, 1024))                                 \
    X("gpt2-355m", "GPT-2 medium", RADFORD, GPT(24, 1024, 16, 1024))                               \
    X("gpt2-774m", "GPT-2 large", RADFORD, GPT(36, 1280, 20, 1024))                                \
    X("gpt2-1.5b", "GPT-2 XL", RADFORD, GPT(48, 1600, 25, 1024))                                   \
    X("gpt3-2.7b", "GPT-3 2.7B", BROWN, GPT(32, 2560, 32, 2048))                                   \
    X("gpt3-6.7b", "GPT-3 6.7B", BROWN, GPT(32, 4096, 32, 2048))                                   \
    X("gpt3-13b", "GPT-3 13B", BROWN_13B, GPT(40, 5120, 40, 2048))                                 \
    X("gpt3-175b", "GPT-3", BROWN, GPT(96, 12288, 96, 2048))                                       \
    X("llama-nano", "4 Llama blocks of 64 features on bytes", OURS, NANO(PP_FAMILY_LLAMA),         \
      .kv_heads = 2, .hidden = 176)                                                                \
    X("llama-1b", "Llama 3.2 1B", LLAMA_32, LLAMA(16, 2048, 32, 8192, 8192, 128256),               \
      .kv_heads = 8, .rotary_base = 500000)                                                        \
    X("llama-2-7b", "Llama 2 7B", LLAMA_2, LLAMA(32, 4096, 32, 11008, 4096, 32000),                \
      .untied = true)                                                                              \
    X("llama-2-13b", "Llama 2 13B", LLAMA_2, LLAMA(40, 5120, 40, 13824, 4096, 32000),              \
      .untied = true)                                                                              \
    X("llama-2-70b", "Llama 2 70B", LLAMA_2, LLAMA(80, 8192, 64, 28672, 4096, 32000),              \
      .kv_heads = 8, .untied = true)                                                               \
    X("llama-3-8b", "Llama 3 8B", LLAMA_3, LLAMA(32, 4096, 32, 14336, 8192, 128256),               \
      .kv_heads = 8, .rotary_base = 500000, .untied = true)                                        \
    X("llama-3-70b", "Llama 3 70B", LLAMA_3, LLAMA(80, 8192, 64, 28672, 8192, 128256),             \
      .kv_heads = 8, .rotary_base = 500000, .untied = true)                                        \
    X("llama-3-405b", "Llama 3 405B", LLAMA_3, LLAMA(126, 16384, 128, 53248, 8192, 128256),        \
      .kv_heads = 8, .rotary_base = 500000, .untied = true)                                        \
    X("bert-nano", "4 BERT blocks of 64 features on bytes", OURS, NANO(PP_FAMILY_BERT))            \
    X("bert-base", "BERT base", DEVLIN, BERT(12, 768, 12))                                         \
    X("bert-large", "BERT large", DEVLIN, BERT(24, 1024, 16))

static const pp_transformer transformers[] = {
#define X(name, summary, source, ...) {__VA_ARGS__},
    TRANSFORMER_LIST(X)
#undef X
};

/* The transformers first, in the same order. */
static const pp_preset presets[] = {
#define X(name, summary, source, ...) {name, summary, source},
    TRANSFORMER_LIST(X)
#undef X
        {"mlp", "six linear layers with ReLU, shaped for CIFAR-10", "ours"},
};

/* CIFAR-10: 32 x 32 pixels of 3 colours in, 10 classes out. */
static const int64_t mlp_widths[] = {3072, 1024, 1024, 512, 512, 256, 10};

const pp_preset *pp_model_presets(int *count) {
    *count = PP_ARRAY_LENGTH(presets);
    return presets;
}

/* linear, relu, linear, …, linear, loss */
static void fill_mlp(pp_model *model) {
    int linears = PP_ARRAY_LENGTH(mlp_widths) - 1;
    model->name = pp_arena_copy(&model->arena, "mlp", 3);
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

static pp_status make_mlp(pp_model **model, pp_error *error) {
    pp_model *made = pp_model_new_empty();
    if (!made) return pp_fail_memory(error);
    fill_mlp(made);
    if (made->arena.failed || pp_model_connect_chain(made, error) != PP_OK) {
        pp_model_free(made);
        return pp_fail_memory(error);
    }
    *model = made;
    return PP_OK;
}

pp_status pp_model_preset_make(const char *name, bool *found, pp_model **model, pp_error *error) {
    *found = true;
    for (int i = 0; i < PP_ARRAY_LENGTH(transformers); i++)
        if (strcmp(presets[i].name, name) == 0)
            return pp_model_make_transformer(&transformers[i], name, model, error);
    *found = strcmp(name, "mlp") == 0;
    return *found ? make_mlp(model, error) : PP_OK;
}
