/* Transformers from their dimensions: an embedding, L equal blocks, a head. What presets and
 * imported configurations have in common. A family is a row of the table of ops. */
#include "core/model_internal.h"

#include <string.h>

static const struct {
    pp_op embedding, block, head;
} family_ops[PP_FAMILY_COUNT] = {
    [PP_FAMILY_GPT] = {PP_OP_EMBEDDING, PP_OP_GPT_BLOCK, PP_OP_LM_HEAD},
    [PP_FAMILY_LLAMA] = {PP_OP_TOKEN_EMBEDDING, PP_OP_LLAMA_BLOCK, PP_OP_RMS_LM_HEAD},
    [PP_FAMILY_BERT] = {PP_OP_BERT_EMBEDDING, PP_OP_BERT_BLOCK, PP_OP_MLM_HEAD},
};

static pp_layer end_of(const pp_transformer *shape, pp_op op, const char *name, const char *tie) {
    bool embedding = op == family_ops[shape->family].embedding;
    return (pp_layer){.name = name,
                      .op = op,
                      .vocabulary = shape->vocabulary,
                      .dim = shape->dim,
                      .sequence = shape->sequence,
                      .segments = embedding ? shape->segments : 0,
                      .dropout = embedding ? shape->dropout : 0,
                      .tie = tie};
}

static pp_layer block_of(const pp_transformer *shape, const char *name) {
    return (pp_layer){.name = name,
                      .op = family_ops[shape->family].block,
                      .dim = shape->dim,
                      .heads = shape->heads,
                      .kv_heads = shape->kv_heads,
                      .head_dim = shape->head_dim,
                      .hidden = shape->hidden,
                      .sequence = shape->sequence,
                      .dropout = shape->dropout,
                      .rotary_base = shape->rotary_base,
                      .qkv_bias = shape->qkv_bias};
}

/* In the arena of the model; what is missing there shows in arena.failed. */
static void fill(const pp_transformer *shape, const char *name, pp_model *model) {
    pp_arena *arena = &model->arena;
    int last = shape->blocks + 1;
    const char *tie = shape->untied ? NULL : pp_arena_copy(arena, "wte", 3);
    model->name = pp_arena_copy(arena, name, strlen(name));
    model->layer_count = last + 1;
    model->layers = PP_NEW(arena, pp_layer, model->layer_count);
    if (!model->layers) return;
    model->layers[0] =
        end_of(shape, family_ops[shape->family].embedding, pp_arena_copy(arena, "embed", 5), tie);
    for (int i = 1; i < last; i++)
        model->layers[i] = block_of(shape, pp_arena_printf(arena, "block%d", i - 1));
    model->layers[last] =
        end_of(shape, family_ops[shape->family].head, pp_arena_copy(arena, "head", 4), tie);
}

pp_status pp_model_make_transformer(const pp_transformer *shape, const char *name, pp_model **model,
                                    pp_error *error) {
    pp_model *made = *model = pp_model_new_empty();
    if (!made) return pp_fail_memory(error);
    fill(shape, name, made);
    if (!made->arena.failed && pp_model_connect_chain(made, error) == PP_OK) return PP_OK;
    pp_model_free(made);
    *model = NULL;
    return pp_fail_memory(error);
}
