/* Writing a plan: scalars by the tables, arrays of integers on one line, a line for each stage. */
#include "core/plan_internal.h"

static void write_fields(pp_json *json, const char *key, const pp_field *fields, int count,
                         const void *source) {
    pp_json_key(json, key);
    pp_json_object_flat(json);
    pp_fields_write(json, fields, count, source);
    pp_json_end_object(json);
}

static void write_ints(pp_json *json, const char *key, const int *values, int count) {
    pp_json_key(json, key);
    pp_json_array_flat(json);
    for (int i = 0; i < count; i++) pp_json_int(json, values[i]);
    pp_json_end_array(json);
}

static void write_schedule(const pp_plan *plan, pp_json *json) {
    pp_json_key(json, "schedule");
    pp_json_object(json);
    pp_fields_write(json, pp_plan_schedule_fields, pp_plan_schedule_field_count, plan);
    if (plan->schedule_csv) {
        pp_json_key(json, "csv");
        pp_json_string(json, plan->schedule_csv);
    }
    pp_json_end_object(json);
}

static void write_splits(const pp_plan *plan, pp_json *json) {
    pp_json_key(json, "splits");
    pp_json_array_flat(json);
    for (int s = 1; s < plan->stage_count / plan->chains; s++)
        pp_json_int(json, plan->stages[s].first);
    pp_json_end_array(json);
}

static void write_stages(const pp_plan *plan, pp_json *json) {
    pp_json_key(json, "stages");
    pp_json_array(json);
    for (int s = 0; s < plan->stage_count; s++) {
        pp_json_object_flat(json);
        pp_fields_write(json, pp_plan_stage_fields, pp_plan_stage_field_count, &plan->stages[s]);
        write_fields(json, "bytes", pp_plan_bytes_fields, pp_plan_bytes_field_count,
                     &plan->stages[s].bytes);
        pp_json_end_object(json);
    }
    pp_json_end_array(json);
}

void pp_prediction_write(const pp_prediction *prediction, int ranks, pp_json *json) {
    pp_json_object(json);
    pp_fields_write(json, pp_prediction_fields, pp_prediction_field_count, prediction);
    pp_json_key(json, "rank");
    pp_json_array(json);
    for (int p = 0; p < ranks; p++) {
        pp_json_object_flat(json);
        pp_fields_write(json, pp_rank_prediction_fields, pp_rank_prediction_field_count,
                        &prediction->rank[p]);
        pp_json_end_object(json);
    }
    pp_json_end_array(json);
    pp_json_end_object(json);
}

void pp_plan_write(const pp_plan *plan, pp_json *json) {
    pp_json_object(json);
    pp_json_key(json, "format");
    pp_json_string(json, "ppsim-plan");
    pp_json_key(json, "version");
    pp_json_int(json, 1);
    pp_fields_write(json, pp_plan_fields, pp_plan_field_count, plan);
    write_schedule(plan, json);
    write_ints(json, "order", plan->order, plan->model->layer_count);
    write_splits(plan, json);
    write_ints(json, "placement", plan->placement, plan->stage_count);
    write_ints(json, "devices", plan->devices, plan->ranks * plan->dp * plan->tp);
    write_stages(plan, json);
    write_fields(json, "costs", pp_plan_costs_fields, pp_plan_costs_field_count, plan);
    pp_json_key(json, "predicted");
    pp_prediction_write(&plan->predicted, plan->ranks, json);
    pp_json_key(json, "model");
    pp_model_write(plan->model, json);
    pp_json_key(json, "cluster");
    pp_cluster_write(plan->cluster, json);
    pp_json_end_object(json);
}
