/* PyTorch's torch.distributed.pipelining: a module that cuts the model and a schedule that its
 * runtime loads.
 *
 * _PipelineScheduleRuntime._load_csv takes the very order that was simulated and finds the
 * placement of the stages in it. It knows F, B, I, W and OVERLAP_F_B of one chain of stages and no
 * comments; it recomputes inside B, where modules are wrapped in checkpoints, and not as an action
 * R of its own. */
#include "cli/export_internal.h"
#include "sim/sim.h"

#include <string.h>

/* Schedules of the same order, for people who would rather use a class; tests/sim compares them
 * with its files. */
static const struct {
    const char *name, *schedule_class;
} classes[] = {
    {"gpipe", "ScheduleGPipe"},
    {"1f1b", "Schedule1F1B"},
    {"interleaved", "ScheduleInterleaved1F1B"},
    {"bfs", "ScheduleLoopedBFS"},
    {"pytorch-interleaved-zb", "ScheduleInterleavedZeroBubble"},
    {"zbv", "ScheduleZBVZeroBubble"},
    {"dualpipev", "ScheduleDualPipeV"},
};

static pp_status check(const pp_export *e) {
    const pp_schedule_family *family = pp_schedule_family_find(e->plan->schedule);
    if (e->schedule->chain_count > 1)
        return pp_export_refuse(e,
                                "%s sends microbatches through two chains of stages, and it has "
                                "one",
                                e->plan->schedule);
    if (e->schedule->slices > 1)
        return pp_export_refuse(e, "%s cuts microbatches along the sequence", e->plan->schedule);
    if (family && family->async)
        return pp_export_refuse(e, "%s changes weights while microbatches are under way",
                                e->plan->schedule);
    return PP_OK;
}

/* ---- schedule.csv --------------------------------------------------------------------------- */

/* What its compute-only files hold: F, B, I and W. The runtime puts the rest there itself. */
static bool is_taken(pp_action action) {
    return pp_action_is_compute(action) && action.kind != PP_RECOMPUTE;
}

/* A copy of those actions. */
static pp_status taken_actions(const pp_export *e, pp_schedule **copy) {
    const pp_schedule *from = e->schedule;
    size_t count = from->first_action[from->ranks], kept = 0;
    PP_TRY(pp_schedule_new(from->ranks, from->stages, from->microbatches, count, copy, e->error));
    for (int p = 0; p < from->ranks; p++) {
        (*copy)->first_action[p] = kept;
        for (size_t i = from->first_action[p]; i < from->first_action[p + 1]; i++)
            if (is_taken(from->actions[i])) (*copy)->actions[kept++] = from->actions[i];
    }
    (*copy)->first_action[from->ranks] = kept;
    memcpy((*copy)->placement, from->placement, (size_t)from->stages * sizeof *from->placement);
    return PP_OK;
}

/* The rows of our CSV; its comments, which come first, are not PyTorch's. */
static pp_status write_schedule(pp_export *e) {
    pp_schedule *copy;
    pp_text text = {0};
    PP_TRY(taken_actions(e, &copy));
    pp_schedule_write_csv(copy, &text);
    pp_schedule_free(copy);
    const char *rows = text.bytes;
    while (rows && *rows == '#') rows = strchr(rows, '\n') + 1;
    if (rows) pp_text_string(&e->files[1], rows);
    e->files[1].failed |= text.failed;
    pp_text_deinit(&text);
    return PP_OK;
}

/* ---- pipeline.py ---------------------------------------------------------------------------- */

/* A Python literal; JSON's strings are Python's. */
static void write_string(pp_text *text, const char *value) {
    pp_json json = pp_json_start(text);
    pp_json_string(&json, value);
}

static void write_stages(pp_export *e, pp_text *text) {
    const pp_plan *plan = e->plan;
    pp_text_string(text, "\n# layers of each stage\nSTAGES = [\n");
    for (int s = 0; s < plan->stage_count; s++) {
        pp_text_string(text, "    [");
        for (int i = plan->stages[s].first; i <= plan->stages[s].last; i++) {
            if (i > plan->stages[s].first) pp_text_string(text, ", ");
            write_string(text, pp_export_layer(e, i));
        }
        pp_text_string(text, "],\n");
    }
    pp_text_string(text, "]\n# first layer of each stage but the first: "
                         "split_spec={name: SplitPoint.BEGINNING for name in SPLIT_POINTS}\n"
                         "SPLIT_POINTS = [");
    for (int s = 1; s < plan->stage_count; s++) {
        if (s > 1) pp_text_string(text, ", ");
        write_string(text, pp_export_layer(e, plan->stages[s].first));
    }
    pp_text_string(text, "]\n");
}

static void write_placement(const pp_plan *plan, pp_text *text) {
    pp_text_string(text, "# rank of each stage\nSTAGE_TO_RANK = [");
    for (int s = 0; s < plan->stage_count; s++)
        pp_text_printf(text, s == 0 ? "%d" : ", %d", plan->placement[s]);
    pp_text_string(text, "]\n");
}

static const char *class_of(const pp_plan *plan) {
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strcmp(classes[i].name, plan->schedule) == 0) return classes[i].schedule_class;
    return NULL;
}

static void write_counts(pp_export *e, pp_text *text) {
    const pp_plan *plan = e->plan;
    const char *schedule_class = class_of(plan);
    pp_text_printf(text,
                   "\nNUM_STAGES = %d\nN_MICROBATCHES = %d\nMICROBATCH_SIZE = %lld\n"
                   "GLOBAL_BATCH = %lld\n"
                   "MESH_SHAPE = (%d, %d, %d)  # init_device_mesh(\"cuda\", MESH_SHAPE, "
                   "mesh_dim_names=MESH_NAMES)\n"
                   "MESH_NAMES = (\"pp\", \"dp\", \"tp\")\n"
                   "DTYPE = \"%s\"\n"
                   "SCHEDULE_CLASS = ",
                   plan->stage_count, plan->microbatches, (long long)plan->microbatch_size,
                   (long long)plan->global_batch, plan->ranks, plan->dp, plan->tp,
                   plan->dtype == PP_BF16 ? "bfloat16" : "float32");
    if (schedule_class) pp_text_printf(text, "\"%s\"", schedule_class);
    pp_text_printf(text, "%s  # of the same order as schedule.csv\n", schedule_class ? "" : "None");
}

/* Names of the layers whose modules are to be wrapped in checkpoints. */
static void write_checkpoints(pp_export *e, pp_text *text) {
    const pp_plan *plan = e->plan;
    pp_text_string(text, "# recomputation of each stage\nRECOMPUTE = [");
    for (int s = 0; s < plan->stage_count; s++) {
        char buffer[PP_RECOMPUTE_LENGTH];
        pp_text_printf(text, s == 0 ? "\"%s\"" : ", \"%s\"",
                       pp_recompute_text(plan->stages[s].recompute, buffer));
    }
    pp_text_string(text, "]\n");
}

static void write_module(pp_export *e) {
    pp_text *text = &e->files[0];
    pp_export_heading(e, 0, "#");
    pp_text_string(text, "from pathlib import Path\n\n"
                         "from torch.distributed.pipelining.schedules import "
                         "_PipelineScheduleRuntime\n");
    write_counts(e, text);
    write_stages(e, text);
    write_placement(e->plan, text);
    write_checkpoints(e, text);
    pp_text_string(text, "\n\ndef make_schedule(stages, loss_fn):\n"
                         "    \"\"\"stages: this rank's PipelineStages, in ascending order.\"\"\"\n"
                         "    schedule = _PipelineScheduleRuntime(stages, N_MICROBATCHES, "
                         "loss_fn=loss_fn)\n"
                         "    schedule._load_csv(str(Path(__file__).with_name(\"schedule.csv\")), "
                         "format=\"compute_only\")\n"
                         "    return schedule\n");
}

static void warn(const pp_export *e) {
    const pp_plan *plan = e->plan;
    bool recomputes = false, uneven = plan->last_microbatch_scale != 1;
    for (int s = 0; s < plan->stage_count; s++)
        recomputes |= plan->stages[s].recompute != PP_RECOMPUTE_NONE;
    if (recomputes)
        pp_warn("PyTorch recomputes where modules are wrapped in torch.utils.checkpoint: wrap the "
                "layers of the stages that RECOMPUTE names");
    if (uneven)
        pp_warn(
            "PyTorch cuts a batch into nearly equal microbatches: the last is not smaller by as "
            "much as in the plan");
    if (plan->zero > 0)
        pp_warn(
            "ZeRO stage 1 is torch.distributed.optim.ZeroRedundancyOptimizer over the mesh's dp");
    pp_export_warn_overlap(e);
    pp_export_warn_devices(e);
}

pp_status pp_export_pytorch(pp_export *e) {
    PP_TRY(check(e));
    write_module(e);
    PP_TRY(write_schedule(e));
    warn(e);
    return PP_OK;
}
