/* Reading a plan: everything that the program will rely on is checked here, so that nobody behind
 * needs to. What cannot be checked on this floor is that the schedule expands to its hash. */
#include "core/plan_internal.h"

#include "core/cluster_internal.h"
#include "core/model_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- parts ---------------------------------------------------------------------------------- */

static pp_status read_schedule(const pp_json_node *document, pp_plan *plan, pp_error *error) {
    pp_json_node schedule = pp_node_member(document, "schedule");
    pp_json_node name = pp_node_member(&schedule, "name");
    pp_json_node csv = pp_node_member(&schedule, "csv");
    PP_TRY(pp_fields_read(&schedule, pp_plan_schedule_fields, pp_plan_schedule_field_count, plan,
                          &plan->arena, error));
    if (plan->schedule[0] == '\0')
        return pp_node_fail(&name, error, "expected the name of a schedule, got an empty string");
    if (!csv.value && strcmp(plan->schedule, "file") == 0)
        return pp_node_fail(&schedule, error,
                            "\"csv\" is missing: the schedule \"file\" must bring its actions");
    if (!csv.value) return PP_OK;
    if (!json_is_string(csv.value))
        return pp_node_fail(&csv, error, "expected a string, a schedule as CSV");
    plan->schedule_csv =
        pp_arena_copy(&plan->arena, json_string_value(csv.value), json_string_length(csv.value));
    return plan->schedule_csv ? PP_OK : pp_fail_memory(error);
}

/* The parts of a reduction are no more than the whole, but for the rounding of their sum. */
static pp_status check_reduction(const pp_json_node *node, const pp_stage *stage, pp_error *error) {
    double parts_s = stage->reduce_transfer_s + stage->tie_transfer_s;
    if (parts_s > stage->reduce_s * (1 + 1e-9))
        return pp_node_fail(node, error,
                            "reduce_transfer_s and tie_transfer_s are parts of reduce_s, but add "
                            "up to %g s of %g s",
                            parts_s, stage->reduce_s);
    if (stage->reduce_latency_s > stage->reduce_transfer_s)
        return pp_node_fail(node, error,
                            "reduce_latency_s is a part of reduce_transfer_s, but is %g s of %g s",
                            stage->reduce_latency_s, stage->reduce_transfer_s);
    return PP_OK;
}

/* The first slice takes no less than nothing: whole/slices - tilt/2. */
static pp_status check_tilts(const pp_json_node *node, const pp_plan *plan, const pp_stage *stage,
                             pp_error *error) {
    double forward_s = stage->forward_s, input_s = pp_stage_input_s(stage);
    bool again = stage->recompute != PP_RECOMPUTE_NONE && !pp_recompute_is_inside(stage->recompute);
    if (again && stage->recompute_s < forward_s) forward_s = stage->recompute_s;
    if (stage->forward_tilt_s * plan->slices <= 2 * forward_s * (1 + 1e-9) &&
        stage->input_tilt_s * plan->slices <= 2 * input_s * (1 + 1e-9))
        return PP_OK;
    return pp_node_fail(node, error,
                        "with %d slices forward_tilt_s and input_tilt_s are at most %g s and %g s: "
                        "the first slice would take less than nothing",
                        plan->slices, 2 * forward_s / plan->slices, 2 * input_s / plan->slices);
}

static pp_status read_stages(const pp_json_node *document, pp_plan *plan, pp_error *error) {
    pp_json_node stages = pp_node_member(document, "stages");
    size_t count = (size_t)plan->stage_count;
    PP_TRY(pp_node_array(&stages, count, count, error));
    for (size_t s = 0; s < count; s++) {
        pp_json_node stage = pp_node_element(&stages, s);
        PP_TRY(pp_fields_read(&stage, pp_plan_stage_fields, pp_plan_stage_field_count,
                              &plan->stages[s], &plan->arena, error));
        pp_json_node bytes = pp_node_member(&stage, "bytes");
        PP_TRY(pp_fields_read(&bytes, pp_plan_bytes_fields, pp_plan_bytes_field_count,
                              &plan->stages[s].bytes, &plan->arena, error));
        PP_TRY(check_reduction(&stage, &plan->stages[s], error));
        PP_TRY(check_tilts(&stage, plan, &plan->stages[s], error));
    }
    return PP_OK;
}

static pp_status read_prediction(const pp_json_node *document, pp_plan *plan, pp_error *error) {
    pp_json_node predicted = pp_node_member(document, "predicted");
    pp_json_node ranks = pp_node_member(&predicted, "rank");
    size_t count = (size_t)plan->ranks;
    PP_TRY(pp_fields_read(&predicted, pp_prediction_fields, pp_prediction_field_count,
                          &plan->predicted, &plan->arena, error));
    PP_TRY(pp_node_array(&ranks, count, count, error));
    for (size_t p = 0; p < count; p++) {
        pp_json_node rank = pp_node_element(&ranks, p);
        PP_TRY(pp_fields_read(&rank, pp_rank_prediction_fields, pp_rank_prediction_field_count,
                              &plan->predicted.rank[p], &plan->arena, error));
    }
    return PP_OK;
}

/* ---- order, splits, placement, devices ------------------------------------------------------ */

/* `scratch` has room for the larger of layers and devices and is zeroed. */
static pp_status read_order(const pp_json_node *document, pp_plan *plan, int *scratch,
                            pp_error *error) {
    pp_json_node order = pp_node_member(document, "order");
    const pp_model *model = plan->model;
    PP_TRY(pp_node_ints(&order, model->layer_count, 0, model->layer_count - 1, plan->order, error));
    for (int i = 0; i < model->layer_count; i++) {
        pp_json_node element = pp_node_element(&order, (size_t)i);
        if (scratch[plan->order[i]] != 0)
            return pp_node_fail(&element, error, "layer %d stands twice in the order",
                                plan->order[i]);
        scratch[plan->order[i]] = i + 1;
    }
    for (int i = 0; i < model->edge_count; i++)
        if (scratch[model->edges[i].from] > scratch[model->edges[i].to])
            return pp_node_fail(&order, error, "layer %d reads layer %d, but stands before it",
                                model->edges[i].to, model->edges[i].from);
    return PP_OK;
}

static pp_status read_splits(const pp_json_node *document, pp_plan *plan, int *scratch,
                             pp_error *error) {
    pp_json_node splits = pp_node_member(document, "splits");
    int layers = plan->model->layer_count, each = plan->stage_count / plan->chains;
    int count = each - 1;
    PP_TRY(pp_node_ints(&splits, count, 1, layers - 1, scratch, error));
    for (int s = 0; s < count; s++) {
        pp_json_node element = pp_node_element(&splits, (size_t)s);
        if (s > 0 && scratch[s] <= scratch[s - 1])
            return pp_node_fail(&element, error, "splits must ascend, got %d after %d", scratch[s],
                                scratch[s - 1]);
    }
    for (int s = 0; s < plan->stage_count; s++) {
        int i = s % each; /* copies hold the same layers */
        plan->stages[s].first = i > 0 ? scratch[i - 1] : 0;
        plan->stages[s].last = (i < count ? scratch[i] : layers) - 1;
    }
    return PP_OK;
}

static pp_status read_placement(const pp_json_node *document, pp_plan *plan, int *scratch,
                                pp_error *error) {
    pp_json_node placement = pp_node_member(document, "placement");
    PP_TRY(pp_node_ints(&placement, plan->stage_count, 0, plan->ranks - 1, plan->placement, error));
    for (int s = 0; s < plan->stage_count; s++) scratch[plan->placement[s]]++;
    for (int p = 0; p < plan->ranks; p++)
        if (scratch[p] == 0) return pp_node_fail(&placement, error, "rank %d has no stage", p);
    return PP_OK;
}

static pp_status read_devices(const pp_json_node *document, pp_plan *plan, int *scratch,
                              pp_error *error) {
    pp_json_node devices = pp_node_member(document, "devices");
    int count = plan->ranks * plan->dp * plan->tp;
    int last = pp_cluster_device_count(plan->cluster) - 1;
    PP_TRY(pp_node_ints(&devices, count, 0, last, plan->devices, error));
    for (int i = 0; i < count; i++) {
        pp_json_node element = pp_node_element(&devices, (size_t)i);
        if (scratch[plan->devices[i]]++ != 0)
            return pp_node_fail(&element, error, "device %d is used twice", plan->devices[i]);
    }
    return PP_OK;
}

typedef pp_status read_indices(const pp_json_node *document, pp_plan *plan, int *scratch,
                               pp_error *error);

static pp_status read_structure(const pp_json_node *document, pp_plan *plan, pp_error *error) {
    static read_indices *const readers[] = {read_order, read_splits, read_placement, read_devices};
    int layers = plan->model->layer_count, devices = pp_cluster_device_count(plan->cluster);
    size_t room = (size_t)(layers > devices ? layers : devices);
    int *scratch = pp_allocate(room * sizeof *scratch);
    pp_status status = scratch ? PP_OK : pp_fail_memory(error);
    for (int i = 0; i < PP_ARRAY_LENGTH(readers) && status == PP_OK; i++) {
        memset(scratch, 0, room * sizeof *scratch);
        status = readers[i](document, plan, scratch, error);
    }
    pp_free(scratch);
    return status;
}

/* ---- what the numbers mean together --------------------------------------------------------- */

static pp_status check_hash(const pp_json_node *document, const char *key, const char *what,
                            uint64_t written, uint64_t actual, pp_error *error) {
    pp_json_node node = pp_node_member(document, key);
    if (written == actual) return PP_OK;
    return pp_node_fail(&node, error,
                        "the plan was edited: its %s has the hash %016llx, not %016llx as written "
                        "here, so its times no longer hold; make the plan again",
                        what, (unsigned long long)actual, (unsigned long long)written);
}

static pp_status check_batch(const pp_json_node *document, const pp_plan *plan, pp_error *error) {
    pp_json_node batch = pp_node_member(document, "global_batch");
    pp_json_node count = pp_node_member(document, "microbatches");
    pp_json_node size = pp_node_member(document, "microbatch_size");
    pp_json_node dtype = pp_node_member(document, "dtype");
    if (plan->global_batch % plan->dp != 0)
        return pp_node_fail(&batch, error, "%lld samples do not divide evenly by dp %d",
                            (long long)plan->global_batch, plan->dp);
    int64_t replica = plan->global_batch / plan->dp;
    int64_t wanted = (replica + plan->microbatch_size - 1) / plan->microbatch_size;
    if (wanted != plan->microbatches)
        return pp_node_fail(
            &count, error, "expected %lld: %lld samples per replica in microbatches of %lld",
            (long long)wanted, (long long)replica, (long long)plan->microbatch_size);
    if ((double)plan->microbatch_size * pp_model_sample_elements(plan->model) > 4503599627370496.0)
        return pp_node_fail(&size, error,
                            "tensors of %lld samples would have more than 2^52 elements",
                            (long long)plan->microbatch_size);
    if (plan->dtype == PP_INT32 || plan->dtype == PP_UINT8)
        return pp_node_fail(&dtype, error, "expected a floating-point type: fp32, bf16 or fp64");
    return PP_OK;
}

/* ---- the document --------------------------------------------------------------------------- */

/* S = K·V·chains in range, so that what depends on it may be allocated. */
static pp_status check_stage_count(const pp_json_node *document, const pp_plan *head,
                                   pp_error *error) {
    pp_json_node node = pp_node_member(document, "virtual");
    pp_json_node chains = pp_node_member(document, "chains");
    int64_t stages = (int64_t)head->ranks * head->virtual_stages;
    if (head->chains > 1 && (head->virtual_stages > 1 || head->microbatches < 2))
        return pp_node_fail(&chains, error,
                            "two chains need one stage of each on a rank and a microbatch of their "
                            "own; got %d and %d",
                            head->virtual_stages, head->microbatches);
    if (stages * head->chains <= PP_STAGES_MAX) return PP_OK;
    return pp_node_fail(&node, error, "%d ranks with %d stages each are more than %d stages",
                        head->ranks, head->virtual_stages, PP_STAGES_MAX);
}

/* An empty plan of the document's size, with its model and cluster. */
static pp_status make_plan(const pp_json_node *document, pp_plan **plan, pp_error *error) {
    pp_plan head = {0}; /* its scalars only; no row of the table needs an arena */
    pp_json_node model_node = pp_node_member(document, "model");
    pp_json_node cluster_node = pp_node_member(document, "cluster");
    pp_model *model;
    pp_cluster *cluster;
    PP_TRY(pp_fields_read(document, pp_plan_fields, pp_plan_field_count, &head, NULL, error));
    PP_TRY(check_stage_count(document, &head, error));
    PP_TRY(pp_model_from_node(&model_node, &model, error));
    pp_status status = pp_cluster_from_node(&cluster_node, &cluster, error);
    if (status != PP_OK) {
        pp_model_free(model);
        return status;
    }
    status = pp_plan_make(model, cluster, head.ranks, head.ranks * head.virtual_stages, head.dp,
                          head.tp, plan, error);
    if (status == PP_OK && head.chains > 1 && !pp_plan_add_chain(*plan)) {
        pp_plan_free(*plan);
        *plan = NULL;
        return pp_fail_memory(error);
    }
    if (status == PP_E_INPUT && error)
        snprintf(error->place, sizeof error->place, "%s", document->file_name);
    return status;
}

static pp_status fill_plan(const pp_json_node *document, pp_plan *plan, pp_error *error) {
    pp_json_node costs = pp_node_member(document, "costs");
    uint64_t model_hash = plan->model_hash, cluster_hash = plan->cluster_hash; /* the actual ones */
    PP_TRY(pp_fields_read(document, pp_plan_fields, pp_plan_field_count, plan, NULL, error));
    PP_TRY(check_hash(document, "model_hash", "model", plan->model_hash, model_hash, error));
    PP_TRY(
        check_hash(document, "cluster_hash", "cluster", plan->cluster_hash, cluster_hash, error));
    PP_TRY(check_batch(document, plan, error));
    PP_TRY(read_schedule(document, plan, error));
    PP_TRY(
        pp_fields_read(&costs, pp_plan_costs_fields, pp_plan_costs_field_count, plan, NULL, error));
    PP_TRY(read_stages(document, plan, error));
    PP_TRY(read_prediction(document, plan, error));
    return read_structure(document, plan, error);
}

static pp_status read_document(const pp_json_node *document, pp_plan **plan, pp_error *error) {
    PP_TRY(pp_node_format(document, "ppsim-plan", error));
    PP_TRY(make_plan(document, plan, error));
    pp_status status = fill_plan(document, *plan, error);
    if (status != PP_OK) {
        pp_plan_free(*plan);
        *plan = NULL;
    }
    return status;
}

pp_status pp_plan_read(const char *text, size_t length, const char *file_name, pp_plan **plan,
                       pp_error *error) {
    json_t *root;
    *plan = NULL;
    PP_TRY(pp_json_load(text, length, file_name, &root, error));
    pp_json_node document = pp_node_root(root, file_name);
    pp_status status = read_document(&document, plan, error);
    json_decref(root);
    return status;
}
