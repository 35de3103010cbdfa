/* What a plan document says, as tables: plan_write.c prints by them, plan_read.c reads by them. */
#include "core/plan_internal.h"

#include <string.h>

/* ---- names ---------------------------------------------------------------------------------- */

static const char *const optimizer_names[PP_OPTIMIZER_COUNT] = {
    [PP_ADAMW] = "adamw", [PP_SGD] = "sgd"};

const char *pp_optimizer_name(pp_optimizer optimizer) {
    return optimizer_names[optimizer];
}

bool pp_optimizer_from_name(const char *name, pp_optimizer *optimizer) {
    for (int i = 0; i < PP_OPTIMIZER_COUNT; i++)
        if (strcmp(name, optimizer_names[i]) == 0) {
            *optimizer = (pp_optimizer)i;
            return true;
        }
    return false;
}

static const char *optimizer_name(int value) {
    return optimizer_names[value];
}

static const char *dtype_name(int value) {
    return pp_dtype_name((pp_dtype)value);
}

static const char *cost_source_name(int value) {
    static const char *const names[] = {[PP_COST_MEASURED] = "measured",
                                        [PP_COST_MODELLED] = "modelled",
                                        [PP_COST_OPAQUE] = "opaque"};
    return names[value];
}

/* ---- rows ----------------------------------------------------------------------------------- */

#define ENUM_ROW(key_, structure_, member_, name_, count_)                                         \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_NAME, PP_AT(structure_, member_), .name = name_,             \
        .name_count = count_                                                                       \
    }
#define INT_ROW(key_, member_, minimum_, maximum_)                                                 \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_INT, PP_AT(pp_plan, member_), .minimum = minimum_,           \
        .maximum = maximum_                                                                        \
    }
#define HASH_ROW(key_, member_)                                                                    \
    { .key = key_, .type = PP_FIELD_HASH, PP_AT(pp_plan, member_) }

const pp_field pp_plan_fields[] = {
    PP_FORMAT_ROWS,
    INT_ROW("ranks", ranks, 1, PP_RANKS_MAX),
    INT_ROW("virtual", virtual_stages, 1, PP_STAGES_MAX),
    {.key = "chains",
     .type = PP_FIELD_INT,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_plan, chains),
     .minimum = 1,
     .maximum = 2,
     .fallback = 1},
    INT_ROW("microbatches", microbatches, 1, PP_MICROBATCHES_MAX),
    {.key = "slices",
     .type = PP_FIELD_INT,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_plan, slices),
     .minimum = 1,
     .maximum = PP_SLICES_MAX,
     .fallback = 1},
    {.key = "microbatch_size",
     .type = PP_FIELD_INT64,
     PP_AT(pp_plan, microbatch_size),
     .minimum = 1,
     .maximum = 1LL << 40},
    {.key = "global_batch",
     .type = PP_FIELD_INT64,
     PP_AT(pp_plan, global_batch),
     .minimum = 1,
     .maximum = 1LL << 40},
    {.key = "last_microbatch_scale",
     .type = PP_FIELD_DOUBLE,
     .flags = PP_FIELD_ABOVE,
     PP_AT(pp_plan, last_microbatch_scale),
     .minimum = 0,
     .maximum = 1000},
    INT_ROW("dp", dp, 1, PP_RANKS_MAX),
    INT_ROW("tp", tp, 1, PP_RANKS_MAX),
    ENUM_ROW("dtype", pp_plan, dtype, dtype_name, PP_DTYPE_COUNT),
    ENUM_ROW("optimizer", pp_plan, optimizer, optimizer_name, PP_OPTIMIZER_COUNT),
    INT_ROW("zero", zero, 0, 1),
    {.key = "recompute",
     .type = PP_FIELD_POLICY,
     .flags = PP_FIELD_MIXED,
     PP_AT(pp_plan, recompute)},
    {.key = "blocking", .type = PP_FIELD_BOOL, PP_AT(pp_plan, blocking)},
    {.key = "reduce_buckets",
     .type = PP_FIELD_INT,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_plan, reduce_buckets),
     .minimum = 0,
     .maximum = PP_REDUCE_BUCKETS_MAX},
    {.key = "load_s",
     .type = PP_FIELD_DOUBLE,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_plan, load_s),
     .minimum = 0,
     .maximum = 1e15},
    {.key = "prefetch",
     .type = PP_FIELD_BOOL,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_plan, prefetch)},
    HASH_ROW("model_hash", model_hash),
    HASH_ROW("cluster_hash", cluster_hash),
    {.key = "schedule", .type = PP_FIELD_OBJECT},
    {.key = "order", .type = PP_FIELD_ARRAY},
    {.key = "splits", .type = PP_FIELD_ARRAY},
    {.key = "placement", .type = PP_FIELD_ARRAY},
    {.key = "devices", .type = PP_FIELD_ARRAY},
    {.key = "stages", .type = PP_FIELD_ARRAY},
    {.key = "costs", .type = PP_FIELD_OBJECT},
    {.key = "predicted", .type = PP_FIELD_OBJECT},
    {.key = "model", .type = PP_FIELD_OBJECT},
    {.key = "cluster", .type = PP_FIELD_OBJECT},
};
const int pp_plan_field_count = PP_ARRAY_LENGTH(pp_plan_fields);

const pp_field pp_plan_schedule_fields[] = {
    {.key = "name", .type = PP_FIELD_TEXT, PP_AT(pp_plan, schedule), .size = 64},
    HASH_ROW("hash", schedule_hash),
    {.key = "csv", .type = PP_FIELD_OTHER, .flags = PP_FIELD_OPTIONAL},
};
const int pp_plan_schedule_field_count = PP_ARRAY_LENGTH(pp_plan_schedule_fields);

const pp_field pp_plan_costs_fields[] = {
    ENUM_ROW("source", pp_plan, costs, cost_source_name, PP_COST_OPAQUE + 1),
    {.key = "note", .type = PP_FIELD_TEXT, PP_AT(pp_plan, cost_note), .size = 256},
    HASH_ROW("hash", cost_hash),
};
const int pp_plan_costs_field_count = PP_ARRAY_LENGTH(pp_plan_costs_fields);

#define SECONDS(key_, structure_, member_)                                                         \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_DOUBLE, PP_AT(structure_, member_), .minimum = 0,            \
        .maximum = 1e15                                                                            \
    }

#define OPTIONAL_SECONDS(key_, structure_, member_)                                                \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_DOUBLE, .flags = PP_FIELD_OPTIONAL,                          \
        PP_AT(structure_, member_), .minimum = 0, .maximum = 1e15                                  \
    }

const pp_field pp_plan_stage_fields[] = {
    SECONDS("forward_s", pp_stage, forward_s),
    SECONDS("input_s", pp_stage, input_s),
    SECONDS("weight_s", pp_stage, weight_s),
    OPTIONAL_SECONDS("forward_tilt_s", pp_stage, forward_tilt_s),
    OPTIONAL_SECONDS("input_tilt_s", pp_stage, input_tilt_s),
    SECONDS("recompute_s", pp_stage, recompute_s),
    SECONDS("optimizer_s", pp_stage, optimizer_s),
    SECONDS("reduce_s", pp_stage, reduce_s),
    OPTIONAL_SECONDS("reduce_transfer_s", pp_stage, reduce_transfer_s),
    OPTIONAL_SECONDS("reduce_latency_s", pp_stage, reduce_latency_s),
    OPTIONAL_SECONDS("tie_transfer_s", pp_stage, tie_transfer_s),
    {.key = "recompute", .type = PP_FIELD_POLICY, PP_AT(pp_stage, recompute)},
    {.key = "bytes", .type = PP_FIELD_OBJECT},
};
const int pp_plan_stage_field_count = PP_ARRAY_LENGTH(pp_plan_stage_fields);

/* A microbatch of the largest tensors allowed still fits. */
#define BYTES_MAX 1152921504606846976.0 /* 2^60 */
#define BYTES_ROW(member_)                                                                         \
    {                                                                                              \
        .key = #member_, .type = PP_FIELD_INT64, PP_AT(pp_stage_bytes, member_), .minimum = 0,     \
        .maximum = BYTES_MAX                                                                       \
    }

const pp_field pp_plan_bytes_fields[] = {
    BYTES_ROW(parameters),        BYTES_ROW(gradients),
    BYTES_ROW(optimizer),         BYTES_ROW(activation),
    BYTES_ROW(released_by_input), BYTES_ROW(stash),
    BYTES_ROW(checkpoint),        BYTES_ROW(input),
    BYTES_ROW(output_gradient),   BYTES_ROW(workspace),
    BYTES_ROW(reduction),
};
const int pp_plan_bytes_field_count = PP_ARRAY_LENGTH(pp_plan_bytes_fields);

/* Unknown is 0 in the struct and null in the document. */
#define KNOWN_ROW(key_, member_)                                                                   \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_DOUBLE, .flags = PP_FIELD_NULLABLE,                          \
        PP_AT(pp_prediction, member_), .minimum = 0, .maximum = 1e30, .null_value = 0              \
    }

/* The same, and absent where it is unknown. */
#define OPTIONAL_ROW(key_, member_)                                                                \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_DOUBLE, .flags = PP_FIELD_OPTIONAL,                          \
        PP_AT(pp_prediction, member_), .minimum = 0, .maximum = 1e30, .fallback = 0                \
    }

const pp_field pp_prediction_fields[] = {
    SECONDS("iteration_time", pp_prediction, iteration_time_s),
    {.key = "throughput",
     .type = PP_FIELD_DOUBLE,
     PP_AT(pp_prediction, throughput),
     .minimum = 0,
     .maximum = 1e30},
    KNOWN_ROW("tokens_per_s", tokens_per_s),
    KNOWN_ROW("mfu", mfu),
    OPTIONAL_ROW("hfu", hfu),
    KNOWN_ROW("cost_per_step", cost_per_step),
    OPTIONAL_ROW("cost_per_million_tokens", cost_per_million_tokens),
    /* equal work on all ranks may round to a hair below 0 */
    {.key = "bubble_fraction",
     .type = PP_FIELD_DOUBLE,
     PP_AT(pp_prediction, bubble_fraction),
     .minimum = -1,
     .maximum = 1},
    {.key = "rank", .type = PP_FIELD_ARRAY},
};
const int pp_prediction_field_count = PP_ARRAY_LENGTH(pp_prediction_fields);

const pp_field pp_rank_prediction_fields[] = {
    SECONDS("busy", pp_rank_prediction, busy_s),
    {.key = "peak_bytes",
     .type = PP_FIELD_INT64,
     .flags = PP_FIELD_NULLABLE,
     PP_AT(pp_rank_prediction, peak_bytes),
     .minimum = 0,
     .maximum = BYTES_MAX,
     .null_value = -1},
};
const int pp_rank_prediction_field_count = PP_ARRAY_LENGTH(pp_rank_prediction_fields);
