/* How many bytes an action of a stage adds and takes off: what the walk over an order (memory.c)
 * and the curve over time (memory_curve.c) both go by. */
#ifndef PPSIM_SIM_MEMORY_INTERNAL_H
#define PPSIM_SIM_MEMORY_INTERNAL_H

#include "sim/engine_internal.h"

/* What an action adds at its start and takes off at its end. A row per kind, and one more for the F
 * of a recomputed microbatch. `held` counts activations and stash. */
typedef struct pp_effect {
    int64_t held_rise, held_fall, stash_rise, stash_fall;
} pp_effect;
enum { PP_F_RECOMPUTED = PP_COMPUTE_KINDS, PP_EFFECT_ROWS };

/* Fills rows [PP_EFFECT_ROWS] for a stage whose microbatches are cut into `slices`. */
void pp_memory_effects(const pp_stage_bytes *bytes, int slices, pp_effect *rows);

/* What a rank with these stages holds for the whole step, by kind. Slots: [all stages], or NULL.
 * False on overflow, also of what all microbatches at once would need, so that no later sum can
 * overflow. */
bool pp_memory_constant(const pp_sim_input *input, const int *stages, int stage_count,
                        const int *input_slots, const int *gradient_slots, pp_peak_bytes *sum);

#endif
