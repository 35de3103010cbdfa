/* Bytes: from the table of a stage to what its actions add and take off, and to what its rank holds
 * throughout. A slice of a microbatch has its part of what the microbatch has, rounded up: a
 * prediction may never be below what is allocated. */
#include "sim/memory_internal.h"

static int64_t part_of(int64_t bytes, int slices) {
    return bytes / slices + (bytes % slices != 0);
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

void pp_memory_effects(const pp_stage_bytes *b, int slices, pp_effect *rows) {
    int64_t activation = part_of(b->activation, slices);
    int64_t released = part_of(b->released_by_input, slices);
    int64_t checkpoint = part_of(b->checkpoint, slices), stash = part_of(b->stash, slices);
    int64_t during = larger(activation, checkpoint);
    rows[PP_FORWARD] = (pp_effect){.held_rise = activation};
    /* a stage that has I and W apart elsewhere keeps the stash apart in its whole backwards too */
    rows[PP_BACKWARD] = (pp_effect){.held_rise = stash,
                                    .held_fall = activation + stash,
                                    .stash_rise = stash,
                                    .stash_fall = stash};
    rows[PP_INPUT] = (pp_effect){.held_rise = stash, .held_fall = released, .stash_rise = stash};
    rows[PP_WEIGHT] = (pp_effect){.held_fall = activation - released + stash, .stash_fall = stash};
    rows[PP_RECOMPUTE] = (pp_effect){.held_rise = activation - checkpoint};
    rows[PP_F_RECOMPUTED] = (pp_effect){.held_rise = during, .held_fall = during - checkpoint};
}

static bool add_bytes(int64_t *sum, int64_t bytes, int64_t times) {
    int64_t product;
    return !__builtin_mul_overflow(bytes, times, &product) &&
           !__builtin_add_overflow(*sum, product, sum);
}

/* Slots hold a slice each. */
static bool add_stage(pp_peak_bytes *sum, const pp_stage_bytes *b, int slices, int64_t input_slots,
                      int64_t gradient_slots) {
    return add_bytes(&sum->parameters, b->parameters, 1) &&
           add_bytes(&sum->gradients, b->gradients, 1) &&
           add_bytes(&sum->optimizer, b->optimizer, 1) &&
           add_bytes(&sum->buffers, b->reduction, 1) &&
           add_bytes(&sum->buffers, part_of(b->input, slices), input_slots) &&
           add_bytes(&sum->buffers, part_of(b->output_gradient, slices), gradient_slots);
}

bool pp_memory_constant(const pp_sim_input *input, const int *stages, int stage_count,
                        const int *input_slots, const int *gradient_slots, pp_peak_bytes *sum) {
    int slices = input->schedule->slices;
    int64_t units = (int64_t)pp_stage_units(input->schedule), workspace = 0, most = 0;
    *sum = (pp_peak_bytes){0};
    for (int i = 0; i < stage_count; i++) {
        const pp_stage_bytes *b = &input->bytes[stages[i]];
        int rank = input->schedule->placement[stages[i]];
        int64_t more_copies = input->weight_copies ? input->weight_copies[rank] - 1 : 0;
        int64_t during = part_of(larger(b->activation, b->checkpoint), slices);
        if (!add_stage(sum, b, slices, input_slots ? input_slots[stages[i]] : 0,
                       gradient_slots ? gradient_slots[stages[i]] : 0) ||
            !add_bytes(&sum->weight_versions, b->parameters, more_copies) ||
            !add_bytes(&most, during, units) || !add_bytes(&most, part_of(b->stash, slices), units))
            return false;
        workspace = larger(workspace, b->workspace);
    }
    return add_bytes(&sum->buffers, workspace, 1) && add_bytes(&sum->total, sum->parameters, 1) &&
           add_bytes(&sum->total, sum->gradients, 1) && add_bytes(&sum->total, sum->optimizer, 1) &&
           add_bytes(&sum->total, sum->weight_versions, 1) &&
           add_bytes(&sum->total, sum->buffers, 1) && add_bytes(&most, sum->total, 1);
}
