/* vLLM: what the pipeline-parallel part of a server takes, as a few lines of shell.
 *
 * Serving runs forward passes alone, one stage on each rank: VLLM_PP_LAYER_PARTITION counts the
 * transformer layers of each; the embedding goes with the first and the head with the last. */
#include "cli/export_internal.h"

pp_status pp_export_vllm(pp_export *e) {
    const pp_plan *plan = e->plan;
    pp_text *text = &e->files[0];
    pp_export_transformer t;
    if (plan->virtual_stages > 1 || e->schedule->chain_count > 1)
        return pp_export_refuse(e, "it has one stage on each rank, the plan %d",
                                plan->stage_count / plan->ranks);
    PP_TRY(pp_export_read_transformer(e, &t));
    if (t.embedding_stage != 0 || t.head_stage != plan->stage_count - 1)
        return pp_export_refuse(e, "its first rank has the embedding and its last the head");
    pp_export_heading(e, 0, "#");
    pp_text_string(text, "export VLLM_PP_LAYER_PARTITION=");
    for (int s = 0; s < plan->stage_count; s++)
        pp_text_printf(text, s == 0 ? "%d" : ",%d", t.blocks[s]);
    pp_text_printf(text,
                   "\nVLLM_ARGS=(\n  --pipeline-parallel-size %d\n  --tensor-parallel-size %d\n",
                   plan->ranks, plan->tp);
    if (plan->dp > 1) pp_text_printf(text, "  --data-parallel-size %d\n", plan->dp);
    pp_text_printf(text, "  --dtype %s\n)\n", plan->dtype == PP_BF16 ? "bfloat16" : "float32");
    pp_warn("vLLM serves: schedule (%s), microbatches, recomputation and optimizer of the plan do "
            "not apply",
            plan->schedule);
    for (int s = 0; s < plan->stage_count; s++)
        if (t.blocks[s] == 0)
            pp_warn("rank %d has no transformer layer: not every model of vLLM expects that", s);
    pp_export_warn_devices(e);
    return PP_OK;
}
