/* Memory: against the oracle's recount, and by hand. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

COUNTED_SUITE(memory);

/* The curve of a rank begins with what is always there, ends with it when every microbatch is done,
 * is in order, and its highest point is the peak, at the time that was named. */
static void check_curve(const pp_sim_input *input, const pp_sim_result *result, int p,
                        int64_t constant, uint64_t seed) {
    const pp_trace *trace = result->trace;
    const pp_trace_point *first = NULL, *last = NULL, *highest = NULL;
    for (size_t i = 0; i < trace->point_count; i++) {
        const pp_trace_point *point = &trace->points[i];
        if (point->rank != p) continue;
        if (last) {
            cr_assert_eq(point, last + 1, "seed %lu", seed);
            cr_assert_geq(point->time_s, last->time_s, "seed %lu", seed);
            cr_assert_neq(point->bytes, last->bytes, "seed %lu", seed);
        }
        if (!first) first = point;
        if (!highest || point->bytes > highest->bytes) highest = point;
        last = point;
    }
    cr_assert(first && first->time_s == 0 && first->bytes == constant, "seed %lu", seed);
    cr_assert_eq(highest->bytes, result->rank[p].peak.total, "seed %lu", seed);
    if (highest != first)
        cr_assert_eq(highest->time_s, result->rank[p].peak_time_s, "seed %lu", seed);
    if (input->schedule->slices == 1) cr_assert_eq(last->bytes, constant, "seed %lu", seed);
}

Test(memory, agrees_with_a_recount) {
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        dice d = {seed};
        shape of = shape_random(&d);
        if (seed % 4 == 0) of.slices = 2 + dice_below(&d, 3);
        pp_schedule *schedule = schedule_random(&d, &of);
        costs c = costs_random(&d, of.stages, false);
        pp_sim_input input = input_of(schedule, &c);
        input.keep_spans = seed % 8 < 4;
        pp_sim_result *result = simulate(&input);
        for (int p = 0; p < of.ranks; p++) {
            oracle_peaks peaks = oracle_memory(&input, p);
            const pp_sim_rank *rank = &result->rank[p];
            int64_t constant = 0, workspace = 0;
            int visits = 0;
            for (int s = 0; s < of.stages; s++) {
                const pp_stage_bytes *b = &c.bytes[s];
                if (schedule->placement[s] != p) continue;
                constant += b->parameters + b->gradients + b->optimizer + b->reduction;
                if (b->workspace > workspace) workspace = b->workspace;
                visits++;
            }
            constant += workspace;
            cr_assert_eq(rank->peak.total, constant + peaks.held, "seed %lu rank %d: %ld, %ld",
                         seed, p, rank->peak.total, constant + peaks.held);
            const pp_peak_bytes *k = &rank->peak;
            cr_assert_eq(k->parameters + k->gradients + k->optimizer + k->activations +
                             k->weight_versions + k->buffers,
                         k->total, "seed %lu", seed);
            cr_assert_float_eq(rank->peak_activation_weight, peaks.weight, 1e-12, "seed %lu", seed);
            size_t index;
            pp_peak_bytes alone = pp_rank_peak_bytes(schedule, p, c.bytes, NULL, NULL, &index);
            cr_assert_eq(memcmp(&alone, k, sizeof alone), 0, "seed %lu", seed);
            cr_assert_eq(index, peaks.held_index, "seed %lu", seed);
            pp_action at = schedule->actions[index];
            cr_assert_eq(memcmp(&at, &rank->peak_action, sizeof at), 0, "seed %lu", seed);
            if (result->trace) check_curve(&input, result, p, constant, seed);
        }
        pp_sim_result_free(result);
        pp_schedule_free(schedule);
        costs_free(&c);
    }
}

/* Weights given as 1/V and half of it must give what the default gives. */
Test(memory, given_weights_generalise_the_default) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        dice d = {seed};
        shape of = shape_random(&d);
        pp_schedule *schedule = schedule_random(&d, &of);
        costs c = costs_random(&d, of.stages, false);
        pp_sim_input input = input_of(schedule, &c);
        pp_sim_result *plain = simulate(&input);
        double whole[32], half[32];
        for (int s = 0; s < of.stages; s++) whole[s] = 3, half[s] = 1.5;
        input.activation_weight = whole;
        if (dice_chance(&d, 2)) input.released_by_input_weight = half;
        pp_sim_result *given = simulate(&input);
        double unit = plain->rank[0].peak_activation_weight / given->rank[0].peak_activation_weight;
        for (int p = 0; p < of.ranks; p++)
            cr_assert_float_eq(plain->rank[p].peak_activation_weight,
                               unit * given->rank[p].peak_activation_weight, 1e-12, "seed %lu",
                               seed);
        pp_sim_result_free(plain);
        pp_sim_result_free(given);
        pp_schedule_free(schedule);
        costs_free(&c);
    }
}

Test(memory, a_rank_by_hand) {
    static const struct {
        const char *row;
        int64_t held;
        const char *peak;
    } cases[] = {
        /* activation 100 (60 released by I), stash 7, checkpoint 10 */
        {"0F0 0B0 0F1 0B1", 107, "0B0"},
        {"0F0 0F1 0B0 0B1", 207, "0B0"},
        {"0F0 0F1 0I0 0W0 0I1 0W1", 207, "0I0"},
        {"0F0 0I0 0F1 0W0 0I1 0W1", 147, "0F1"},         /* 40 + 7 + 100 */
        {"0F0 0I0 0F1 0I1 0W0 0W1", 154, "0I1"},         /* 47 + 100 + 7 */
        {"0F0 0F1 0R0 0B0 0R1 0B1", 117, "0B0"},         /* 10 + 100 + 7 */
        {"0F0 0F1 0F2 0R0 0B0 0R1 0B1 0B2", 217, "0B0"}, /* 10 + 100 (2 not recomputed) + 107 */
        {"0F0 0F1& 0B0 0B1", 207, "0F1"},                /* both start before either ends */
    };
    pp_stage_bytes bytes = {
        .activation = 100, .released_by_input = 60, .stash = 7, .checkpoint = 10};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_schedule *schedule = schedule_from(cases[i].row, (int[]){0}, 1, 1);
        size_t index;
        char text[32];
        pp_peak_bytes peak = pp_rank_peak_bytes(schedule, 0, &bytes, NULL, NULL, &index);
        cr_assert_eq(peak.total, cases[i].held, "%s: %ld", cases[i].row, peak.total);
        cr_assert_str_eq(pp_action_text(schedule->actions[index], text), cases[i].peak, "%s",
                         cases[i].row);
        pp_schedule_free(schedule);
    }
}

Test(memory, slots_and_constants_are_counted_by_kind) {
    pp_schedule *schedule = schedule_from("0F0 1F0 1B0 0B0", (int[]){0, 0}, 2, 1);
    pp_stage_bytes bytes[2] = {{.parameters = 1,
                                .gradients = 20,
                                .optimizer = 300,
                                .activation = 4000,
                                .input = 50000,
                                .output_gradient = 600000,
                                .workspace = 7000000,
                                .reduction = 80000000},
                               {.parameters = 1, .workspace = 1000000}};
    pp_peak_bytes peak = pp_rank_peak_bytes(schedule, 0, bytes, (int[]){2, 0}, (int[]){1, 0}, NULL);
    cr_assert_eq(peak.parameters, 2);
    cr_assert_eq(peak.gradients, 20);
    cr_assert_eq(peak.optimizer, 300);
    cr_assert_eq(peak.activations, 4000);
    cr_assert_eq(peak.buffers, 2 * 50000 + 600000 + 7000000 + 80000000);
    cr_assert_eq(peak.weight_versions, 0);
    bytes[0].parameters = INT64_MAX;
    cr_assert_eq(pp_rank_peak_bytes(schedule, 0, bytes, NULL, NULL, NULL).total, -1);
    pp_schedule_free(schedule);
}

Test(memory, without_bytes_they_are_unknown) {
    pp_schedule *schedule = build("1f1b", 3, 5);
    costs c = costs_uniform(3, 1, 1, 1, 0);
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *result = simulate(&input);
    char text[32];
    for (int p = 0; p < 3; p++) {
        cr_assert_eq(result->rank[p].peak.total, -1);
        cr_assert_eq(result->rank[p].peak.activations, -1);
        cr_assert_eq(result->rank[p].peak_activation_weight, 3 - p);
    }
    cr_assert_str_eq(pp_action_text(result->rank[0].peak_action, text), "0F2");
    cr_assert_eq(result->rank[0].peak_time_s, 2);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}
