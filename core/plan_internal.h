/* Private to the plan files: the tables that reader and writer share. */
#ifndef PPSIM_PLAN_INTERNAL_H
#define PPSIM_PLAN_INTERNAL_H

#include "core/json_reader.h"

extern const pp_field pp_plan_fields[]; /* of the document, over pp_plan */
extern const int pp_plan_field_count;
extern const pp_field pp_plan_schedule_fields[]; /* "schedule", over pp_plan */
extern const int pp_plan_schedule_field_count;
extern const pp_field pp_plan_costs_fields[]; /* "costs", over pp_plan */
extern const int pp_plan_costs_field_count;
extern const pp_field pp_plan_stage_fields[]; /* over pp_stage */
extern const int pp_plan_stage_field_count;
extern const pp_field pp_plan_bytes_fields[]; /* over pp_stage_bytes */
extern const int pp_plan_bytes_field_count;
extern const pp_field pp_prediction_fields[]; /* over pp_prediction */
extern const int pp_prediction_field_count;
extern const pp_field pp_rank_prediction_fields[];
extern const int pp_rank_prediction_field_count;

/* pp_plan_new without copying: the plan owns model and cluster from now on, also when this fails.
 */
pp_status pp_plan_make(pp_model *model, pp_cluster *cluster, int ranks, int stages, int dp, int tp,
                       pp_plan **plan, pp_error *error);

#endif
