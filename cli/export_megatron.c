/* Megatron-LM: command-line flags, as a bash array to source.
 *
 * It runs 1f1b, and interleaved with V > 1, on stages of which stage s is on rank s mod K; its
 * ranks are numbered as ours, tp fastest, then dp, then pipeline rank. Where every stage has as
 * many transformer layers, the counts say it all; else the layout is spelled out, a letter per
 * layer and
 * '|' between stages: "Ett|(ttt|)*2,tL"
 * (megatron/core/transformer/pipeline_parallel_layer_layout.py).
 *
 * full: ppsim keeps a stage's input alone, which is Megatron's "uniform" recomputation in groups of
 * as many layers as the stage has. Groups must be equal for all stages: their common divisor. */
#include "cli/export_internal.h"

#include <stdio.h>
#include <string.h>

static void flag(pp_text *text, const char *name, int64_t value) {
    pp_text_printf(text, "  %s %lld\n", name, (long long)value);
}

/* ---- schedule ------------------------------------------------------------------------------- */

/* Microbatches that pass a chunk before the next: ours follows PyTorch, M over the whole rounds of
 * K microbatches; Megatron's default is K. */
static int group_of(const pp_plan *plan) {
    int rounds = plan->microbatches / plan->ranks;
    return plan->microbatches / (rounds > 0 ? rounds : 1);
}

static pp_status check_schedule(const pp_export *e) {
    const pp_plan *plan = e->plan;
    const char *name = plan->schedule;
    if (strcmp(name, "1f1b") != 0 && strcmp(name, "interleaved") != 0)
        return pp_export_refuse(e, "its schedules are 1f1b and interleaved, not %s", name);
    for (int s = 0; s < plan->stage_count; s++)
        if (plan->placement[s] != s % plan->ranks)
            return pp_export_refuse(e, "its stage %d is on rank %d, the plan's on rank %d", s,
                                    s % plan->ranks, plan->placement[s]);
    if (plan->virtual_stages == 1) return PP_OK;
    if (plan->ranks == 1) return pp_export_refuse(e, "interleaving needs 2 ranks or more");
    if (group_of(plan) < plan->ranks)
        return pp_export_refuse(e,
                                "interleaving needs at least as many microbatches (%d) as ranks "
                                "(%d)",
                                plan->microbatches, plan->ranks);
    return PP_OK;
}

/* ---- layout --------------------------------------------------------------------------------- */

static bool same_stage(const pp_export_transformer *t, int a, int b) {
    bool plain_a = a != t->embedding_stage && a != t->head_stage;
    bool plain_b = b != t->embedding_stage && b != t->head_stage;
    return plain_a && plain_b && t->blocks[a] == t->blocks[b];
}

static void write_stage(const pp_export_transformer *t, int stage, pp_text *text) {
    if (stage == t->embedding_stage) pp_text_string(text, "E");
    if (t->blocks[stage] > 3) pp_text_printf(text, "t*%d", t->blocks[stage]);
    for (int i = 0; i < t->blocks[stage] && t->blocks[stage] <= 3; i++) pp_text_string(text, "t");
    if (stage == t->head_stage) pp_text_string(text, "L");
}

/* Runs of equal stages, none of them the last, are "(tt|)*n". */
static void write_layout(const pp_export_transformer *t, int stages, pp_text *text) {
    for (int s = 0, run; s < stages; s += run) {
        for (run = 1; s + run < stages - 1 && same_stage(t, s, s + run);) run++;
        if (run > 1) pp_text_string(text, "(");
        write_stage(t, s, text);
        if (s + run < stages) pp_text_string(text, "|");
        if (run > 1) pp_text_printf(text, ")*%d,", run);
    }
}

static bool is_even(const pp_export_transformer *t, int stages) {
    for (int s = 1; s < stages; s++)
        if (t->blocks[s] != t->blocks[0]) return false;
    return t->blocks[0] > 0 && t->embedding_stage == 0 && t->head_stage == stages - 1;
}

static pp_status write_pipeline(pp_export *e, const pp_export_transformer *t) {
    const pp_plan *plan = e->plan;
    pp_text *text = &e->files[0];
    flag(text, "--tensor-model-parallel-size", plan->tp);
    flag(text, "--pipeline-model-parallel-size", plan->ranks);
    if (!is_even(t, plan->stage_count)) {
        if (t->block->op == PP_OP_BERT_BLOCK)
            return pp_export_refuse(e, "its BERT takes no layout, and the stages are unequal");
        pp_text_string(text, "  --pipeline-model-parallel-layout \"");
        write_layout(t, plan->stage_count, text);
        pp_text_string(text, "\"\n");
    } else if (plan->virtual_stages > 1) {
        flag(text, "--num-layers-per-virtual-pipeline-stage", t->blocks[0]);
    }
    if (plan->virtual_stages > 1 && group_of(plan) != plan->ranks)
        flag(text, "--microbatch-group-size-per-virtual-pipeline-stage", group_of(plan));
    return PP_OK;
}

/* ---- recomputation -------------------------------------------------------------------------- */

static int common_divisor(int a, int b) {
    return b == 0 ? a : common_divisor(b, a % b);
}

static void write_groups(pp_text *text, int layers) {
    pp_text_printf(text,
                   "  --recompute-granularity full --recompute-method uniform "
                   "--recompute-num-layers %d\n",
                   layers);
}

static pp_status write_full(pp_export *e, const pp_export_transformer *t) {
    int group = 0, most = 0;
    for (int s = 0; s < e->plan->stage_count; s++) {
        group = common_divisor(group, t->blocks[s]);
        if (t->blocks[s] > most) most = t->blocks[s];
    }
    if (group < most)
        pp_warn(
            "Megatron-LM recomputes in groups of equal size, here %d, and keeps the input of each: "
            "more than the plan's one for each stage",
            group);

    write_groups(&e->files[0], group);
    return PP_OK;
}

static pp_status write_every(pp_export *e, const pp_export_transformer *t, int group) {
    for (int s = 0; s < e->plan->stage_count; s++)
        if (t->blocks[s] % group != 0)
            return pp_export_refuse(e,
                                    "it recomputes in groups of equal size, and %d do not divide "
                                    "the %d layers of stage %d",
                                    group, t->blocks[s], s);
    write_groups(&e->files[0], group);
    return PP_OK;
}

static pp_status write_recompute(pp_export *e, const pp_export_transformer *t) {
    pp_recompute recompute;
    PP_TRY(pp_export_recompute(e, &recompute));
    if (recompute == PP_RECOMPUTE_NONE) return PP_OK;
    if (recompute == PP_RECOMPUTE_FULL) return write_full(e, t);
    if (pp_recompute_group(recompute) > 0) return write_every(e, t, pp_recompute_group(recompute));
    if (recompute != PP_RECOMPUTE_ATTENTION) return pp_export_refuse_recompute(e, recompute);
    pp_text_string(&e->files[0],
                   "  --recompute-granularity selective --recompute-modules core_attn\n");
    return PP_OK;
}

/* ---- model ---------------------------------------------------------------------------------- */

static void write_llama(const pp_layer *block, pp_text *text) {
    pp_text_string(text, "  --normalization RMSNorm --swiglu --disable-bias-linear "
                         "--position-embedding-type rope\n");
    if (block->rotary_base > 0) flag(text, "--rotary-base", (int64_t)block->rotary_base);
    if (block->kv_heads > 0 && block->kv_heads != block->heads)
        pp_text_printf(text, "  --group-query-attention --num-query-groups %lld\n",
                       (long long)block->kv_heads);
    if (block->head_dim > 0) flag(text, "--kv-channels", block->head_dim);
    if (block->qkv_bias) pp_text_string(text, "  --add-qkv-bias\n");
}

static void write_model(const pp_export_transformer *t, pp_text *text) {
    const pp_layer *block = t->block;
    flag(text, "--num-layers", t->block_count);
    flag(text, "--hidden-size", block->dim);
    flag(text, "--ffn-hidden-size", block->hidden > 0 ? block->hidden : 4 * block->dim);
    flag(text, "--num-attention-heads", block->heads);
    flag(text, "--seq-length", block->sequence);
    flag(text, "--max-position-embeddings", block->sequence);
    if (block->op == PP_OP_LLAMA_BLOCK) write_llama(block, text);
    if (!t->head->tie && block->op != PP_OP_BERT_BLOCK)
        pp_text_string(text, "  --untie-embeddings-and-output-weights\n");
}

/* ---- all of it ------------------------------------------------------------------------------ */

static void write_training(const pp_plan *plan, pp_text *text) {
    flag(text, "--micro-batch-size", plan->microbatch_size);
    flag(text, "--global-batch-size", plan->global_batch);
    if (plan->dtype == PP_BF16) pp_text_string(text, "  --bf16\n");
    pp_text_printf(text, "  --optimizer %s\n", plan->optimizer == PP_SGD ? "sgd" : "adam");
    if (plan->zero > 0) pp_text_string(text, "  --use-distributed-optimizer\n");
    if (plan->reduce_buckets > 0 && plan->dp > 1) pp_text_string(text, "  --overlap-grad-reduce\n");
    if (plan->blocking && plan->virtual_stages > 1)
        pp_text_string(text, "  --no-overlap-p2p-communication\n");
}

pp_status pp_export_megatron(pp_export *e) {
    pp_export_transformer t;
    pp_text *text = &e->files[0];
    PP_TRY(check_schedule(e));
    PP_TRY(pp_export_even_batch(e));
    PP_TRY(pp_export_read_transformer(e, &t));
    pp_export_heading(e, 0, "#");
    pp_text_printf(text, "# %d processes; vocabulary %lld\nMEGATRON_ARGS=(\n",
                   e->plan->ranks * e->plan->dp * e->plan->tp, (long long)t.head->vocabulary);
    PP_TRY(write_pipeline(e, &t));
    write_training(e->plan, text);
    PP_TRY(write_recompute(e, &t));
    write_model(&t, text);
    pp_text_string(text, ")\n");
    pp_export_warn_devices(e);
    return PP_OK;
}
