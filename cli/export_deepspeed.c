/* DeepSpeed: a PipelineModule whose parts are the plan's, and the configuration of its engine.
 *
 * Its TrainSchedule is 1f1b with one stage on each rank. The parts are the numbers of the first
 * layer of each stage, and the number of layers (deepspeed/runtime/pipe/module.py,
 * _partition_layers, which knows no explicit list: hence the subclass). Where "uniform" gives the
 * same, that is said. */
#include "cli/export_internal.h"

#include <stdlib.h>
#include <string.h>

static int part(const pp_plan *plan, int stage) {
    return stage < plan->stage_count ? plan->stages[stage].first : plan->model->layer_count;
}

/* partition_uniform: as many layers for each, one more for the first ones. */
static bool is_uniform(const pp_plan *plan) {
    int each = plan->model->layer_count / plan->stage_count;
    int more = plan->model->layer_count % plan->stage_count;
    for (int s = 0; s <= plan->stage_count; s++)
        if (part(plan, s) != s * each + (s < more ? s : more)) return false;
    return true;
}

static pp_status check(const pp_export *e) {
    const pp_plan *plan = e->plan;
    if (strcmp(plan->schedule, "1f1b") != 0)
        return pp_export_refuse(e, "its pipeline engine runs 1f1b, not %s", plan->schedule);
    if (plan->virtual_stages > 1)
        return pp_export_refuse(e, "it has one stage on each rank, the plan %d",
                                plan->virtual_stages);
    for (int s = 0; s < plan->stage_count; s++)
        if (plan->placement[s] != s)
            return pp_export_refuse(e, "its stage %d is on rank %d, the plan's on rank %d", s, s,
                                    plan->placement[s]);
    return pp_export_even_batch(e);
}

/* Layers between two kept inputs; 0: nothing is recomputed. */
static pp_status interval_of(const pp_export *e, int *interval) {
    const pp_plan *plan = e->plan;
    pp_recompute recompute;
    PP_TRY(pp_export_recompute(e, &recompute));
    *interval = pp_recompute_group(recompute);
    if (recompute == PP_RECOMPUTE_NONE || *interval > 0) return PP_OK;
    if (recompute != PP_RECOMPUTE_FULL) return pp_export_refuse_recompute(e, recompute);
    for (int s = 0; s < plan->stage_count; s++) { /* the whole stage in one */
        int layers = part(plan, s + 1) - part(plan, s);
        if (layers > *interval) *interval = layers;
    }
    return PP_OK;
}

static bool is_chain(const pp_model *model) {
    if (model->edge_count != model->layer_count - 1) return false;
    for (int i = 0; i < model->edge_count; i++)
        if (model->edges[i].from != i || model->edges[i].to != i + 1) return false;
    return true;
}

static void warn(const pp_export *e) {
    const pp_plan *plan = e->plan;
    if (!is_chain(plan->model))
        pp_warn("DeepSpeed runs layers one after the other: hand tensors that skip layers along in "
                "tuples");
    if (plan->tp > 1)
        pp_warn("DeepSpeed's PipelineModule leaves tensor parallelism to the layers: they must "
                "divide themselves over %d devices",
                plan->tp);
    pp_export_warn_overlap(e);
    pp_export_warn_devices(e);
}

static void write_module(pp_export *e, int interval) {
    const pp_plan *plan = e->plan;
    pp_text *text = &e->files[0];
    pp_export_heading(e, 0, "#");
    pp_text_string(text, "from deepspeed.pipe import PipelineModule\n"
                         "from deepspeed.runtime.pipe.topology import "
                         "PipeModelDataParallelTopology\n\n"
                         "PARTS = [");
    for (int s = 0; s <= plan->stage_count; s++)
        pp_text_printf(text, s == 0 ? "%d" : ", %d", part(plan, s));
    pp_text_printf(text,
                   "]%s\nACTIVATION_CHECKPOINT_INTERVAL = %d\n\n\n"
                   "class PlannedPipelineModule(PipelineModule):\n"
                   "    \"\"\"layers: %d, in the order of the plan.\"\"\"\n\n"
                   "    def __init__(self, layers, **arguments):\n"
                   "        assert len(layers) == PARTS[-1]\n"
                   "        topology = PipeModelDataParallelTopology(num_pp=%d, num_mp=%d, "
                   "num_dp=%d)\n"
                   "        super().__init__(layers, topology=topology,\n"
                   "                         "
                   "activation_checkpoint_interval=ACTIVATION_CHECKPOINT_INTERVAL, **arguments)\n\n"
                   "    def _partition_layers(self, method=\"uniform\"):\n"
                   "        stage = self._topo.get_coord(self.global_rank).pipe\n"
                   "        self.parts = list(PARTS)\n"
                   "        self._set_bounds(start=PARTS[stage], stop=PARTS[stage + 1])\n",
                   is_uniform(plan) ? "  # as partition_method=\"uniform\"" : "", interval,
                   plan->model->layer_count, plan->ranks, plan->tp, plan->dp);
}

static void write_config(pp_export *e) {
    const pp_plan *plan = e->plan;
    pp_json json = pp_json_start(&e->files[1]);
    pp_json_object(&json);
    pp_json_key(&json, "train_batch_size");
    pp_json_int(&json, plan->global_batch);
    pp_json_key(&json, "train_micro_batch_size_per_gpu");
    pp_json_int(&json, plan->microbatch_size);
    pp_json_key(&json, "gradient_accumulation_steps");
    pp_json_int(&json, plan->microbatches);
    pp_json_key(&json, "optimizer");
    pp_json_object_flat(&json);
    pp_json_key(&json, "type");
    pp_json_string(&json, plan->optimizer == PP_SGD ? "SGD" : "AdamW");
    pp_json_key(&json, "params");
    pp_json_object(&json);
    if (plan->optimizer == PP_SGD) { /* whose momentum the plan's memory counts */
        pp_json_key(&json, "momentum");
        pp_json_double(&json, 0.9);
    }
    pp_json_end_object(&json);
    pp_json_end_object(&json);
    pp_json_key(&json, "bf16");
    pp_json_object_flat(&json);
    pp_json_key(&json, "enabled");
    pp_json_bool(&json, plan->dtype == PP_BF16);
    pp_json_end_object(&json);
    pp_json_key(&json, "zero_optimization");
    pp_json_object_flat(&json);
    pp_json_key(&json, "stage");
    pp_json_int(&json, plan->zero);
    pp_json_end_object(&json);
    pp_json_end_object(&json);
    pp_text_string(&e->files[1], "\n");
}

pp_status pp_export_deepspeed(pp_export *e) {
    int interval;
    PP_TRY(check(e));
    PP_TRY(interval_of(e, &interval));
    write_module(e, interval);
    write_config(e);
    warn(e);
    return PP_OK;
}
