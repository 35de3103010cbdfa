/* The numbers that a simulation is given, checked before anything is computed from them: finite,
 * not negative, and consistent. Messages name the stage and the field. */
#include "sim/engine_internal.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

typedef struct field {
    const char *name;
    size_t offset;
} field;

#define FIELD(type, name)                                                                          \
    { #name, offsetof(type, name) }

static const field cost_fields[] = {
    FIELD(pp_stage_cost, forward_s),         FIELD(pp_stage_cost, input_s),
    FIELD(pp_stage_cost, weight_s),          FIELD(pp_stage_cost, recompute_s),
    FIELD(pp_stage_cost, reduce_s),          FIELD(pp_stage_cost, optimizer_s),
    FIELD(pp_stage_cost, reduce_transfer_s), FIELD(pp_stage_cost, reduce_latency_s),
    FIELD(pp_stage_cost, tie_transfer_s),
};

static const field border_fields[] = {
    FIELD(pp_border_cost, latency_s),
    FIELD(pp_border_cost, forward_occupancy_s),
    FIELD(pp_border_cost, backward_occupancy_s),
};

static const field byte_fields[] = {
    FIELD(pp_stage_bytes, parameters),        FIELD(pp_stage_bytes, gradients),
    FIELD(pp_stage_bytes, optimizer),         FIELD(pp_stage_bytes, activation),
    FIELD(pp_stage_bytes, released_by_input), FIELD(pp_stage_bytes, stash),
    FIELD(pp_stage_bytes, checkpoint),        FIELD(pp_stage_bytes, input),
    FIELD(pp_stage_bytes, output_gradient),   FIELD(pp_stage_bytes, workspace),
    FIELD(pp_stage_bytes, reduction),
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

static pp_status check_number(const char *what, int index, const char *name, double value,
                              pp_error *error) {
    if (isfinite(value) && value >= 0) return PP_OK;
    char place[64];
    snprintf(place, sizeof place, "%s %d %s", what, index, name);
    return pp_fail(error, PP_E_INPUT, place, "%g, expected a finite number that is not negative",
                   value);
}

/* Arrays of structs of doubles, and one struct of int64. */
static pp_status check_doubles(const char *what, int index, const void *row, const field *fields,
                               size_t count, pp_error *error) {
    for (size_t i = 0; i < count; i++) {
        const double *value = (const void *)((const char *)row + fields[i].offset);
        PP_TRY(check_number(what, index, fields[i].name, *value, error));
    }
    return PP_OK;
}

static pp_status check_bytes(int stage, const pp_stage_bytes *bytes, pp_error *error) {
    char place[64];
    for (size_t i = 0; i < COUNT(byte_fields); i++) {
        const int64_t *value = (const void *)((const char *)bytes + byte_fields[i].offset);
        if (*value >= 0) continue;
        snprintf(place, sizeof place, "stage %d %s", stage, byte_fields[i].name);
        return pp_fail(error, PP_E_INPUT, place, "%lld bytes, expected 0 or more",
                       (long long)*value);
    }
    if (bytes->released_by_input <= bytes->activation) return PP_OK;
    snprintf(place, sizeof place, "stage %d released_by_input", stage);
    return pp_fail(error, PP_E_INPUT, place, "%lld bytes are released of an activation of %lld",
                   (long long)bytes->released_by_input, (long long)bytes->activation);
}

static pp_status check_weights(const pp_sim_input *input, int s, pp_error *error) {
    const double *whole = input->activation_weight, *part = input->released_by_input_weight;
    if (whole) PP_TRY(check_number("stage", s, "activation_weight", whole[s], error));
    if (!whole || !part) return PP_OK;
    PP_TRY(check_number("stage", s, "released_by_input_weight", part[s], error));
    if (part[s] <= whole[s]) return PP_OK;
    char place[64];
    snprintf(place, sizeof place, "stage %d released_by_input_weight", s);
    return pp_fail(error, PP_E_INPUT, place, "%g is released of a weight of %g", part[s], whole[s]);
}

/* Parts are no more than the whole, but for the rounding of their sum. */
static pp_status check_reduction(int stage, const pp_stage_cost *cost, pp_error *error) {
    double parts_s = cost->reduce_transfer_s + cost->tie_transfer_s;
    if (parts_s <= cost->reduce_s * (1 + 1e-9) && cost->reduce_latency_s <= cost->reduce_transfer_s)
        return PP_OK;
    char place[64];
    snprintf(place, sizeof place, "stage %d reduce_s", stage);
    return pp_fail(error, PP_E_INPUT, place,
                   "the parts of a reduction of %g s take %g s over replicas (%g s latency) and %g "
                   "s over ties",
                   cost->reduce_s, cost->reduce_transfer_s, cost->reduce_latency_s,
                   cost->tie_transfer_s);
}

static pp_status check_stage(const pp_sim_input *input, int s, pp_error *error) {
    int stages = input->schedule->stages;
    PP_TRY(check_doubles("stage", s, &input->stage[s], cost_fields, COUNT(cost_fields), error));
    PP_TRY(check_reduction(s, &input->stage[s], error));
    if (input->border)
        PP_TRY(check_doubles("border", s, &input->border[s], border_fields, COUNT(border_fields),
                             error));
    if (input->bytes) PP_TRY(check_bytes(s, &input->bytes[s], error));
    if (input->reduce_group && (input->reduce_group[s] < 0 || input->reduce_group[s] >= stages))
        return pp_fail(error, PP_E_INPUT, "reduce_group", "group %d of stage %d, expected 0 to %d",
                       input->reduce_group[s], s, stages - 1);
    return check_weights(input, s, error);
}

/* 0 stands for the default. */
static pp_status check_option(const char *name, double value, pp_error *error) {
    if (isfinite(value) && value >= 0) return PP_OK;
    return pp_fail(error, PP_E_INPUT, name, "%g, expected a positive number", value);
}

static pp_status check_cards(const pp_sim_input *input, pp_error *error) {
    const pp_sim_cards *cards = input->cards;
    if (!cards) return PP_OK;
    for (int p = 0; p < input->schedule->ranks; p++) {
        if (cards->node[p] < 0 || cards->node[p] >= PP_RANKS_MAX)
            return pp_fail(error, PP_E_INPUT, "cards", "node %d of rank %d, expected 0 to %d",
                           cards->node[p], p, PP_RANKS_MAX - 1);
        if (cards->copies && (cards->copies[p] < 1 || cards->copies[p] > PP_RANKS_MAX))
            return pp_fail(error, PP_E_INPUT, "cards", "%d copies of rank %d, expected 1 to %d",
                           cards->copies[p], p, PP_RANKS_MAX);
    }
    return PP_OK;
}

static pp_status check_copies(const pp_sim_input *input, pp_error *error) {
    for (int p = 0; input->weight_copies && p < input->schedule->ranks; p++)
        if (input->weight_copies[p] < 1)
            return pp_fail(error, PP_E_INPUT, "weight copies", "%d on rank %d, expected 1 or more",
                           input->weight_copies[p], p);
    return PP_OK;
}

pp_status pp_sim_input_check(const pp_sim_input *input, pp_error *error) {
    if (!input->schedule) return pp_fail(error, PP_E_INPUT, "schedule", "there is none");
    if (!input->stage) return pp_fail(error, PP_E_INPUT, "stage costs", "there are none");
    if (input->schedule->slices < 1 || pp_stage_units(input->schedule) >= UINT32_MAX)
        return pp_fail(error, PP_E_INPUT, input->schedule->name,
                       "%d microbatches of %d slices each, expected at least 1 slice and fewer "
                       "than 2^32 slices in all",
                       input->schedule->microbatches, input->schedule->slices);
    PP_TRY(check_option("overlap factor", input->overlap_factor, error));
    PP_TRY(check_option("last microbatch scale", input->last_microbatch_scale, error));
    PP_TRY(check_option("launch", input->launch_s, error));
    PP_TRY(check_option("load", input->load_s, error));
    if (input->reduce_buckets < 0 || input->reduce_buckets > PP_REDUCE_BUCKETS_MAX)
        return pp_fail(error, PP_E_INPUT, "reduce buckets", "%d, expected 0 to %d",
                       input->reduce_buckets, PP_REDUCE_BUCKETS_MAX);
    PP_TRY(check_option("jitter", input->jitter, error));
    PP_TRY(check_option("transfer jitter", input->transfer_jitter, error));
    PP_TRY(check_option("transfer slowdown", input->transfer_slowdown, error));
    if (input->transfer_slowdown > 0 && input->transfer_slowdown < 1)
        return pp_fail(error, PP_E_INPUT, "transfer slowdown", "%g, expected 1 or more",
                       input->transfer_slowdown);
    PP_TRY(check_cards(input, error));
    PP_TRY(check_copies(input, error));
    PP_TRY(pp_draws_check(input, error));
    for (int s = 0; s < input->schedule->stages; s++) PP_TRY(check_stage(input, s, error));
    return PP_OK;
}
