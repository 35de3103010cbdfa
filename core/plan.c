/* Plans: their life, opening, and the small sums that everyone needs of them. Reading is
 * plan_read.c, writing plan_write.c, what stands in the document plan_fields.c. */
#include "core/plan_internal.h"

#include <assert.h>

/* ---- life ----------------------------------------------------------------------------------- */

static bool reserve(pp_plan *plan, int positions) {
    pp_arena *arena = &plan->arena;
    plan->order = PP_NEW(arena, int, plan->model->layer_count);
    plan->placement = PP_NEW(arena, int, plan->stage_count);
    plan->devices = PP_NEW(arena, int, positions);
    plan->stages = PP_NEW(arena, pp_stage, plan->stage_count);
    plan->predicted.rank = PP_NEW(arena, pp_rank_prediction, plan->ranks);
    return !arena->failed;
}

/* The file's order, stages dealt round, devices as they are numbered. */
static void fill_defaults(pp_plan *plan, int positions) {
    for (int i = 0; i < plan->model->layer_count; i++) plan->order[i] = i;
    for (int s = 0; s < plan->stage_count; s++) plan->placement[s] = s % plan->ranks;
    for (int i = 0; i < positions; i++) plan->devices[i] = i;
    plan->last_microbatch_scale = 1;
    plan->model_hash = pp_model_hash(plan->model);
    plan->cluster_hash = pp_cluster_hash(plan->cluster);
}

static pp_status check_counts(const pp_model *model, const pp_cluster *cluster, int ranks,
                              int stages, int dp, int tp, pp_error *error) {
    int64_t positions = (int64_t)ranks * dp * tp;
    int devices = pp_cluster_device_count(cluster);
    if (stages < 1 || ranks < 1 || stages % ranks != 0)
        return pp_fail(error, PP_E_INPUT, NULL, "%d stages cannot be dealt evenly to %d ranks",
                       stages, ranks);
    if (stages > model->layer_count)
        return pp_fail(error, PP_E_INPUT, NULL, "%d stages need as many layers; '%s' has %d",
                       stages, model->name, model->layer_count);
    if (dp < 1 || tp < 1 || positions > devices)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "%d ranks x dp %d x tp %d need %lld devices; the cluster '%s' has %d", ranks,
                       dp, tp, (long long)positions, cluster->name, devices);
    return PP_OK;
}

pp_status pp_plan_make(pp_model *model, pp_cluster *cluster, int ranks, int stages, int dp, int tp,
                       pp_plan **plan, pp_error *error) {
    pp_plan *made = NULL;
    *plan = NULL;
    pp_status status = check_counts(model, cluster, ranks, stages, dp, tp, error);
    if (status == PP_OK && !(made = pp_allocate_zeroed(1, sizeof *made)))
        status = pp_fail_memory(error);
    if (status != PP_OK) {
        pp_model_free(model);
        pp_cluster_free(cluster);
        return status;
    }
    made->model = model;
    made->cluster = cluster;
    made->ranks = ranks;
    made->stage_count = stages;
    made->virtual_stages = stages / ranks;
    made->chains = 1;
    made->slices = 1;
    made->dp = dp;
    made->tp = tp;
    if (reserve(made, ranks * dp * tp)) {
        fill_defaults(made, ranks * dp * tp);
        if (made->model_hash != 0 && made->cluster_hash != 0) {
            *plan = made;
            return PP_OK;
        }
    }
    pp_plan_free(made);
    return pp_fail_memory(error);
}

pp_status pp_plan_new(const pp_model *model, const pp_cluster *cluster, int ranks, int stages,
                      int dp, int tp, pp_plan **plan, pp_error *error) {
    pp_model *own_model;
    pp_cluster *own_cluster;
    *plan = NULL;
    PP_TRY(pp_model_copy(model, &own_model, error));
    pp_status status = pp_cluster_copy(cluster, &own_cluster, error);
    if (status != PP_OK) {
        pp_model_free(own_model);
        return status;
    }
    return pp_plan_make(own_model, own_cluster, ranks, stages, dp, tp, plan, error);
}

bool pp_plan_add_chain(pp_plan *plan) {
    int ranks = plan->ranks, stages = 2 * ranks;
    assert(plan->chains == 1 && plan->stage_count == ranks);
    plan->placement = PP_NEW(&plan->arena, int, stages);
    plan->stages = PP_NEW(&plan->arena, pp_stage, stages);
    if (plan->arena.failed) return false;
    for (int s = 0; s < stages; s++) plan->placement[s] = s < ranks ? s : stages - 1 - s;
    plan->chains = 2;
    plan->stage_count = stages;
    return true;
}

void pp_plan_free(pp_plan *plan) {
    if (!plan) return;
    pp_model_free(plan->model);
    pp_cluster_free(plan->cluster);
    pp_arena_deinit(&plan->arena);
    pp_free(plan);
}

pp_status pp_plan_open(const char *path, pp_plan **plan, pp_error *error) {
    pp_text text;
    *plan = NULL;
    PP_TRY(pp_file_read(path, PP_DOCUMENT_LIMIT_BYTES, &text, error));
    pp_status status = pp_plan_read(text.bytes, text.length, path, plan, error);
    pp_text_deinit(&text);
    return status;
}

/* ---- sums ----------------------------------------------------------------------------------- */

int64_t pp_plan_samples(const pp_plan *plan, int microbatch) {
    assert(microbatch >= 0 && microbatch < plan->microbatches);
    if (microbatch + 1 < plan->microbatches) return plan->microbatch_size;
    int64_t before = plan->microbatch_size * (plan->microbatches - 1);
    return plan->global_batch / plan->dp - before;
}

static int64_t output_bytes(const pp_plan *plan, int layer) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int count =
        pp_layer_tensors(&plan->model->layers[layer], plan->microbatch_size, plan->dtype, tensors);
    int64_t bytes = 0;
    for (int i = 0; i < count; i++)
        if (tensors[i].role == PP_TENSOR_OUTPUT) bytes += pp_tensor_bytes(&tensors[i]);
    return bytes;
}

int64_t pp_plan_border_bytes(const pp_plan *plan, int stage) {
    const pp_model *model = plan->model;
    int border = plan->stages[stage].last;
    bool *behind = pp_allocate((size_t)model->layer_count * sizeof *behind);
    if (!behind) return -1;
    for (int i = 0; i < model->layer_count; i++) behind[plan->order[i]] = i > border;
    int64_t bytes = 0;
    int counted = -1; /* edges are sorted by their start, so each layer is counted once */
    for (int i = 0; i < model->edge_count; i++) {
        pp_edge edge = model->edges[i];
        if (edge.from == counted || behind[edge.from] || !behind[edge.to]) continue;
        bytes += output_bytes(plan, edge.from);
        counted = edge.from;
    }
    pp_free(behind);
    return bytes;
}
