/* What exporters ask of a plan. */
#include "cli/export_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pp_status pp_export_refuse(const pp_export *e, const char *format, ...) {
    char reason[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    return pp_fail(e->error, PP_E_UNSUPPORTED, NULL, "%s cannot run this plan: %s", e->system,
                   reason);
}

pp_status pp_export_even_batch(const pp_export *e) {
    const pp_plan *plan = e->plan;
    int64_t full = (int64_t)plan->microbatches * plan->microbatch_size * plan->dp;
    if (full == plan->global_batch) return PP_OK;
    return pp_export_refuse(e,
                            "its last microbatch is smaller than the others (%lld samples in %d x "
                            "%d of %lld)",
                            (long long)plan->global_batch, plan->dp, plan->microbatches,
                            (long long)plan->microbatch_size);
}

void pp_export_warn_devices(const pp_export *e) {
    const pp_plan *plan = e->plan;
    int count = plan->ranks * plan->dp * plan->tp;
    for (int i = 0; i < count; i++) {
        if (plan->devices[i] == i) continue;
        pp_warn("the plan puts process %d on device %d: launch the processes in the order of its "
                "\"devices\"",
                i, plan->devices[i]);
        return;
    }
}

void pp_export_warn_overlap(const pp_export *e) {
    if (e->plan->reduce_buckets > 0 && e->plan->dp > 1)
        pp_warn(
            "the plan reduces gradients beside the backward pass, in %d buckets for each stage: "
            "%s takes that from how the modules are wrapped, not from here",
            e->plan->reduce_buckets, e->system);
}

pp_status pp_export_recompute(const pp_export *e, pp_recompute *recompute) {
    const pp_plan *plan = e->plan;
    for (int s = 1; s < plan->stage_count; s++)
        if (plan->stages[s].recompute != plan->stages[0].recompute)
            return pp_export_refuse(e, "stages 0 and %d recompute differently", s);
    *recompute = plan->stages[0].recompute;
    return PP_OK;
}

pp_status pp_export_refuse_recompute(const pp_export *e, pp_recompute recompute) {
    char buffer[PP_RECOMPUTE_LENGTH];
    return pp_export_refuse(e, "it has no recomputation '%s'",
                            pp_recompute_text(recompute, buffer));
}

const char *pp_export_layer(const pp_export *e, int position) {
    return e->plan->model->layers[e->plan->order[position]].name;
}

void pp_export_heading(pp_export *e, int file, const char *comment) {
    pp_text *text = &e->files[file];
    pp_text_printf(text, "%s %s: ", comment, e->plan->model->name);
    pp_report_plan_line(e->plan, text);
    pp_text_string(text, "\n");
}

/* ---- transformers --------------------------------------------------------------------------- */

typedef enum part { PART_OTHER, PART_EMBEDDING, PART_BLOCK, PART_HEAD } part;

static const unsigned char parts[PP_OP_COUNT] = {
    [PP_OP_EMBEDDING] = PART_EMBEDDING,
    [PP_OP_GPT_BLOCK] = PART_BLOCK,
    [PP_OP_LM_HEAD] = PART_HEAD,
    [PP_OP_TOKEN_EMBEDDING] = PART_EMBEDDING,
    [PP_OP_LLAMA_BLOCK] = PART_BLOCK,
    [PP_OP_RMS_LM_HEAD] = PART_HEAD,
    [PP_OP_BERT_EMBEDDING] = PART_EMBEDDING,
    [PP_OP_BERT_BLOCK] = PART_BLOCK,
    [PP_OP_MLM_HEAD] = PART_HEAD,
};

static bool same_block(const pp_layer *a, const pp_layer *b) {
    char left[PP_SIGNATURE_LENGTH], right[PP_SIGNATURE_LENGTH];
    return strcmp(pp_layer_signature(a, left), pp_layer_signature(b, right)) == 0;
}

static pp_status add_layer(const pp_export *e, pp_export_transformer *t, int stage, int position) {
    const pp_layer *layer = &e->plan->model->layers[e->plan->order[position]];
    bool last = position == e->plan->model->layer_count - 1;
    part expected = position == 0 ? PART_EMBEDDING : last ? PART_HEAD : PART_BLOCK;
    if (parts[layer->op] == PART_OTHER)
        return pp_export_refuse(e,
                                "it builds transformers of an embedding, equal layers and a head, "
                                "and the op of \"%.60s\" is %s",
                                layer->name, pp_op_name(layer->op));
    if (parts[layer->op] != expected)
        return pp_export_refuse(e, "\"%s\" stands where %s belongs", layer->name,
                                position == 0 ? "the embedding"
                                : last        ? "the head"
                                              : "a transformer layer");
    if (expected == PART_EMBEDDING) t->embedding_stage = stage;
    if (expected == PART_HEAD) t->head = layer, t->head_stage = stage;
    if (expected != PART_BLOCK) return PP_OK;
    if (t->block && !same_block(t->block, layer))
        return pp_export_refuse(e, "\"%s\" and \"%s\" differ, but its transformer layers are equal",
                                t->block->name, layer->name);
    t->block = layer;
    t->blocks[stage]++;
    t->block_count++;
    return PP_OK;
}

pp_status pp_export_read_transformer(pp_export *e, pp_export_transformer *t) {
    const pp_plan *plan = e->plan;
    *t = (pp_export_transformer){.blocks = PP_NEW(&e->arena, int, plan->stage_count)};
    if (!t->blocks) return pp_fail_memory(e->error);
    for (int s = 0; s < plan->stage_count; s++)
        for (int i = plan->stages[s].first; i <= plan->stages[s].last; i++)
            PP_TRY(add_layer(e, t, s, i));
    if (!t->block) return pp_export_refuse(e, "the model has no transformer layer");
    return PP_OK;
}
