/* Durations that vary: what is drawn for one action.
 *
 * From measurements, each layer of the stage draws one of its own raw samples, with replacement
 * (Efron, "Bootstrap methods", Annals of Statistics 1979): no shape of distribution is assumed, and
 * rare slow samples come up as often as they were seen. Besides, or instead, a log-normal factor of
 * mean 1. What is drawn follows from the key and the action alone, wherever that stands in the
 * order. */
#include "sim/engine_internal.h"

#include <math.h>
#include <stdio.h>

enum { NORMAL, FIRST_PART }; /* what a draw's second counter says */

static uint64_t counter_of(pp_action action) {
    return (uint64_t)action.microbatch << 32 | (uint64_t)action.stage << 16 |
           (uint64_t)action.slice << 8 | action.kind;
}

/* Log-normal with mean 1 and standard deviation `jitter`: durations stay positive. */
static double jitter_factor(const pp_sim_input *input, pp_action action) {
    double variance = log1p(input->jitter * input->jitter);
    double normal = pp_random_normal(input->jitter_key, counter_of(action));
    return exp(sqrt(variance) * normal - 0.5 * variance);
}

/* One sample of each part of a phase: relative to the duration of the whole phase. */
static double phase_factor(const pp_sim_input *input, pp_action action, pp_sim_phase phase) {
    const pp_sim_draws *draws = &input->draws[action.stage];
    double factor = 1;
    for (int i = 0; i < draws->part_count; i++) {
        const pp_sim_part *part = &draws->parts[phase][i];
        if (part->count == 0) continue;
        uint64_t high = FIRST_PART + (uint64_t)i * PP_SIM_PHASES + (uint64_t)phase;
        uint32_t word[4];
        pp_random_block(input->jitter_key, high << 8, counter_of(action), word);
        size_t at = (size_t)((uint64_t)word[0] * (uint32_t)part->count >> 32);
        factor += part->share * (part->relative[at] - 1);
    }
    return factor;
}

static double measured_factor(const pp_sim_input *input, pp_action action) {
    const pp_stage_cost *cost = &input->stage[action.stage];
    switch (action.kind) {
    case PP_FORWARD:
    case PP_RECOMPUTE:
        return phase_factor(input, action, PP_SIM_FORWARD);
    case PP_INPUT:
        return phase_factor(input, action, PP_SIM_INPUT);
    case PP_WEIGHT:
        return phase_factor(input, action, PP_SIM_WEIGHT);
    case PP_BACKWARD:
        break;
    default:
        return 1;
    }
    double both_s = cost->input_s + cost->weight_s;
    if (both_s <= 0) return 1;
    return (cost->input_s * phase_factor(input, action, PP_SIM_INPUT) +
            cost->weight_s * phase_factor(input, action, PP_SIM_WEIGHT)) /
           both_s;
}

bool pp_durations_vary(const pp_sim_input *input) {
    return input->jitter > 0 || input->draws != NULL;
}

double pp_draw_factor(const pp_sim_input *input, pp_action action) {
    double factor = input->draws ? measured_factor(input, action) : 1;
    return input->jitter > 0 ? factor * jitter_factor(input, action) : factor;
}

/* ---- given draws --------------------------------------------------------------------------- */

static pp_status check_part(int stage, const pp_sim_part *part, pp_error *error) {
    char place[64];
    bool good = isfinite(part->share) && part->share >= 0 && part->count >= 0;
    for (int i = 0; good && i < part->count; i++)
        good = isfinite(part->relative[i]) && part->relative[i] >= 0;
    if (good) return PP_OK;
    snprintf(place, sizeof place, "stage %d samples", stage);
    return pp_fail(error, PP_E_INPUT, place, "expected finite numbers that are not negative");
}

pp_status pp_draws_check(const pp_sim_input *input, pp_error *error) {
    for (int s = 0; input->draws && s < input->schedule->stages; s++)
        for (int phase = 0; phase < PP_SIM_PHASES; phase++) {
            double shares = 0;
            for (int i = 0; i < input->draws[s].part_count; i++) {
                PP_TRY(check_part(s, &input->draws[s].parts[phase][i], error));
                shares += input->draws[s].parts[phase][i].share;
            }
            if (shares > 1 + 1e-9)
                return pp_fail(error, PP_E_INPUT, "samples",
                               "the parts of stage %d are %g of the whole, expected at most 1", s,
                               shares);
        }
    return PP_OK;
}
