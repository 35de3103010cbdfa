/* Durations that vary: what is drawn for one action.
 *
 * From measurements, each layer of the stage draws one of its own raw samples, with replacement
 * (Efron, "Bootstrap methods", Annals of Statistics 1979): no shape of distribution is assumed, and
 * rare slow samples come up as often as they were seen. Besides, or instead, a log-normal factor of
 * mean 1. What is drawn follows from the key and the action alone, wherever that stands in the
 * order. A transfer draws as the SEND that it would be.
 *
 * One replica is drawn, and stands for all dp of them. */
#include "sim/engine_internal.h"

#include <math.h>
#include <stdio.h>

enum { NORMAL, FIRST_PART }; /* what a draw's second counter says */

static uint64_t counter_of(pp_action action) {
    return (uint64_t)action.microbatch << 32 | (uint64_t)action.stage << 16 |
           (uint64_t)action.slice << 8 | action.kind;
}

/* Log-normal with mean 1 and standard deviation `jitter`: durations stay positive. */
static double jitter_factor(const pp_sim_input *input, pp_action action, double jitter) {
    if (!(jitter > 0)) return 1;
    double variance = log1p(jitter * jitter);
    double normal = pp_random_normal(input->jitter_key, counter_of(action));
    return exp(sqrt(variance) * normal - 0.5 * variance);
}

/* One sample of each part of a phase: relative to the duration of the whole phase. */
static double phase_factor(const pp_sim_input *input, pp_action action, pp_sim_phase phase) {
    const pp_sim_mix *mix = &input->draws[action.stage].phase[phase];
    double factor = 1;
    for (int i = 0; i < mix->count; i++) {
        const pp_sim_part *part = &mix->parts[i];
        if (part->count == 0) continue;
        uint64_t high = FIRST_PART + (uint64_t)i * PP_SIM_PHASES + (uint64_t)phase;
        uint32_t word[4];
        pp_random_block(input->jitter_key, high << 8, counter_of(action), word);
        size_t at = (size_t)((uint64_t)word[0] * (uint32_t)part->count >> 32);
        factor += part->share * (part->relative[at] - 1);
    }
    return factor;
}

/* Kinds that are one phase. */
static const pp_sim_phase phase_of[PP_ACTION_KIND_COUNT] = {
    [PP_FORWARD] = PP_SIM_FORWARD,     [PP_RECOMPUTE] = PP_SIM_FORWARD,
    [PP_INPUT] = PP_SIM_INPUT,         [PP_WEIGHT] = PP_SIM_WEIGHT,
    [PP_REDUCE_GRAD] = PP_SIM_REDUCE,  [PP_STEP] = PP_SIM_OPTIMIZER,
    [PP_SEND_F] = PP_SIM_SEND_FORWARD, [PP_SEND_B] = PP_SIM_SEND_BACKWARD,
};

static double measured_factor(const pp_sim_input *input, pp_action action) {
    if (!input->draws) return 1;
    if (action.kind != PP_BACKWARD) return phase_factor(input, action, phase_of[action.kind]);
    const pp_stage_cost *cost = &input->stage[action.stage];
    double both_s = cost->input_s + cost->weight_s;
    if (both_s <= 0) return 1;
    return (cost->input_s * phase_factor(input, action, PP_SIM_INPUT) +
            cost->weight_s * phase_factor(input, action, PP_SIM_WEIGHT)) /
           both_s;
}

bool pp_durations_vary(const pp_sim_input *input) {
    return input->jitter > 0 || input->transfer_jitter > 0 || input->draws != NULL;
}

double pp_draw_factor(const pp_sim_input *input, pp_action action) {
    return measured_factor(input, action) * jitter_factor(input, action, input->jitter);
}

double pp_transfer_factor(const pp_sim_input *input, pp_action action) {
    if (!pp_durations_vary(input) || action.kind > PP_INPUT) return 1;
    pp_action_kind kind = action.kind == PP_FORWARD ? PP_SEND_F : PP_SEND_B;
    action.kind = (unsigned)kind & 0x7fu;
    return measured_factor(input, action) * jitter_factor(input, action, input->transfer_jitter);
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
            const pp_sim_mix *mix = &input->draws[s].phase[phase];
            for (int i = 0; i < mix->count; i++) {
                PP_TRY(check_part(s, &mix->parts[i], error));
                shares += mix->parts[i].share;
            }
            if (shares > 1 + 1e-9)
                return pp_fail(error, PP_E_INPUT, "samples",
                               "the parts of stage %d are %g of the whole, expected at most 1", s,
                               shares);
        }
    return PP_OK;
}
