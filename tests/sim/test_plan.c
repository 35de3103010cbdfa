/* From a plan to its actions and their times. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

COUNTED_SUITE(plan);

/* Four opaque layers, or a tied embedding and head around two blocks. */
static const char opaque_model[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"four\", \"layers\": ["
    "{\"name\": \"a\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, \"weight_s\": 1,"
    " \"parameter_bytes\": 8, \"output_bytes\": 1000, \"activation_bytes\": 100},"
    "{\"name\": \"b\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, \"weight_s\": 1,"
    " \"parameter_bytes\": 8, \"output_bytes\": 1000, \"activation_bytes\": 100},"
    "{\"name\": \"c\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, \"weight_s\": 1,"
    " \"parameter_bytes\": 8, \"output_bytes\": 1000, \"activation_bytes\": 100},"
    "{\"name\": \"d\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, \"weight_s\": 1,"
    " \"parameter_bytes\": 8, \"output_bytes\": 1000, \"activation_bytes\": 100}]}";

static const char tied_model[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"tied\", \"layers\": ["
    "{\"name\": \"embed\", \"op\": \"embedding\", \"vocabulary\": 16, \"dim\": 8, \"sequence\": 4,"
    " \"tie\": \"wte\"},"
    "{\"name\": \"b0\", \"op\": \"gpt_block\", \"dim\": 8, \"heads\": 2, \"sequence\": 4},"
    "{\"name\": \"b1\", \"op\": \"gpt_block\", \"dim\": 8, \"heads\": 2, \"sequence\": 4},"
    "{\"name\": \"head\", \"op\": \"lm_head\", \"vocabulary\": 16, \"dim\": 8, \"sequence\": 4,"
    " \"tie\": \"wte\"}]}";

/* Devices 0 and 1 in one node, 2 and 3 in another: 1 s and 1000 bytes/s between nodes. */
static const char two_nodes[] =
    "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"two\","
    " \"devices\": [{\"name\": \"d\", \"memory_bytes\": 1000000, \"flops\": {\"fp32\": 1e9},"
    " \"memory_bandwidth_bytes_per_s\": 1e9}],"
    " \"nodes\": [{\"device\": \"d\", \"count\": 2, \"repeat\": 2}],"
    " \"intra\": {\"bandwidth_bytes_per_s\": null, \"latency_s\": 0},"
    " \"inter\": {\"bandwidth_bytes_per_s\": 1000, \"latency_s\": 1}}";

/* One layer per stage, 1 s each for F, I and W, 1f1b. */
static pp_plan *plan_make(const char *model_text, int ranks, int microbatches) {
    pp_model *model;
    pp_cluster *cluster;
    pp_plan *plan;
    pp_error error = {0};
    cr_assert_eq(pp_model_read(model_text, strlen(model_text), "model", &model, &error), PP_OK,
                 "%s: %s", error.place, error.message);
    cr_assert_eq(pp_cluster_read(two_nodes, strlen(two_nodes), "cluster", &cluster, &error), PP_OK,
                 "%s: %s", error.place, error.message);
    cr_assert_eq(pp_plan_new(model, cluster, ranks, ranks, 1, 1, &plan, &error), PP_OK);
    pp_model_free(model);
    pp_cluster_free(cluster);
    plan->virtual_stages = 1;
    plan->microbatches = microbatches;
    plan->microbatch_size = 1;
    plan->global_batch = microbatches;
    plan->last_microbatch_scale = 1;
    plan->dtype = PP_FP32;
    snprintf(plan->schedule, sizeof plan->schedule, "1f1b");
    int layers = plan->model->layer_count, each = layers / ranks;
    for (int i = 0; i < layers; i++) plan->order[i] = i;
    for (int s = 0; s < ranks; s++) {
        plan->placement[s] = plan->devices[s] = s;
        plan->stages[s] = (pp_stage){.first = s * each,
                                     .last = s == ranks - 1 ? layers - 1 : (s + 1) * each - 1,
                                     .forward_s = 1,
                                     .input_s = 1,
                                     .weight_s = 1,
                                     .optimizer_s = 0.5};
    }
    return plan;
}

static void expect_row(const pp_schedule *schedule, int p, const char *expected) {
    char line[2048] = "", cell[32];
    for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++) {
        if (*line) strcat(line, " ");
        strcat(line, pp_action_text(schedule->actions[i], cell));
    }
    cr_assert_str_eq(line, expected);
}

static pp_schedule *expand(const pp_plan *plan) {
    pp_schedule *schedule;
    pp_error error = {0};
    cr_assert_eq(pp_plan_expand(plan, &schedule, &error), PP_OK, "%s: %s", error.place,
                 error.message);
    return schedule;
}

static void expand_refuses(const pp_plan *plan, const char *expected) {
    pp_schedule *schedule;
    pp_error error = {0};
    cr_assert_eq(pp_plan_expand(plan, &schedule, &error), PP_E_INPUT);
    cr_assert_null(schedule);
    cr_assert(strstr(error.place, expected) || strstr(error.message, expected), "%s: %s",
              error.place, error.message);
}

Test(plan, expands_to_steps_reductions_and_recomputation) {
    pp_plan *plan = plan_make(tied_model, 4, 2);
    plan->stages[1].recompute = PP_RECOMPUTE_FULL;
    plan->stages[2].recompute = PP_RECOMPUTE_EXCEPT_LAST;
    plan->stages[1].reduce_s = 0.25;
    pp_schedule *schedule = expand(plan);
    expect_row(schedule, 0, "0F0 0F1 0B0 0B1 0REDUCE_GRAD 0STEP");
    expect_row(schedule, 1, "1F0 1F1 1R0 1B0 1R1 1B1 1REDUCE_GRAD 1STEP");
    expect_row(schedule, 2, "2F0 2F1 2R0 2B0 2B1 2STEP");
    expect_row(schedule, 3, "3F0 3B0 3F1 3B1 3REDUCE_GRAD 3STEP");
    pp_schedule_free(schedule);
    plan->dp = 2;
    schedule = expand(plan);
    expect_row(schedule, 2, "2F0 2F1 2R0 2B0 2B1 2REDUCE_GRAD 2STEP");
    pp_schedule_free(schedule);
    pp_plan_free(plan);
    plan = plan_make(tied_model, 1, 1); /* both ends of the tie in one stage */
    schedule = expand(plan);
    expect_row(schedule, 0, "0F0 0B0 0REDUCE_GRAD 0STEP");
    pp_schedule_free(schedule);
    pp_plan_free(plan);
}

Test(plan, takes_a_schedule_from_a_file) {
    pp_plan *plan = plan_make(opaque_model, 2, 2);
    snprintf(plan->schedule, sizeof plan->schedule, "file");
    plan->schedule_csv = "0F0,0F1,0I0,0I1,0W0,0W1,0REDUCE_GRAD\n1F0,1B0,1F1,1B1,1STEP\n";
    pp_schedule *schedule = expand(plan);
    expect_row(schedule, 0, "0F0 0F1 0I0 0I1 0W0 0W1 0REDUCE_GRAD 0STEP");
    expect_row(schedule, 1, "1F0 1B0 1F1 1B1 1STEP");
    pp_schedule_free(schedule);
    plan->schedule_csv = "0F0,0F1,0B0,0B1\n";
    expand_refuses(plan, "1 ranks");
    plan->schedule_csv = NULL;
    expand_refuses(plan, "no schedule attached");
    pp_plan_free(plan);
}

Test(plan, a_changed_plan_is_noticed) {
    pp_plan *plan = plan_make(opaque_model, 4, 6);
    pp_schedule *schedule = expand(plan);
    plan->schedule_hash = pp_schedule_hash(schedule);
    pp_schedule_free(schedule);
    schedule = expand(plan);
    pp_schedule_free(schedule);
    plan->stages[2].recompute = PP_RECOMPUTE_FULL;
    expand_refuses(plan, "hash");
    plan->stages[2].recompute = PP_RECOMPUTE_NONE;
    plan->placement[1] = 2;
    expand_refuses(plan, "stage 1 on rank 1");
    plan->placement[1] = 1;
    snprintf(plan->schedule, sizeof plan->schedule, "1f2b");
    expand_refuses(plan, "known are");
    pp_plan_free(plan);
}

static pp_sim_result *simulate_plan(const pp_plan *plan) {
    pp_sim_result *result;
    pp_schedule *schedule;
    pp_error error = {0};
    cr_assert_eq(pp_simulate_plan(plan, true, &schedule, &result, &error), PP_OK, "%s: %s",
                 error.place, error.message);
    cr_assert_not_null(schedule);
    pp_schedule_free(schedule);
    return result;
}

Test(plan, links_delay_what_crosses_them) {
    pp_plan *plan = plan_make(opaque_model, 4, 1);
    pp_sim_result *result = simulate_plan(plan);
    double bytes = (double)pp_plan_border_bytes(plan, 1);
    cr_assert_gt(bytes, 0);
    /* 4 F, 4 B of 2 s, the node border once each way, the last step */
    cr_assert_float_eq(result->makespan_s, 4 + 8 + 2 * (1 + bytes / 1000) + 0.5, 1e-12);
    pp_sim_result_free(result);
    for (int s = 0; s < 4; s++) plan->devices[s] = (s + 1) % 4; /* 1, 2, 3, 0: two borders */
    result = simulate_plan(plan);
    cr_assert_float_eq(result->makespan_s, 12 + 4 * (1 + bytes / 1000) + 0.5, 1e-12);
    pp_sim_result_free(result);
    pp_plan_free(plan);
}

/* One of each node's two ranks crosses to the other node, and back: nothing is shared. With two
 * replicas side by side on each node, both cross at once; with the order 0, 2, 1, 3 of devices all
 * four ranks cross. */
Test(plan, ranks_of_a_node_share_its_card) {
    pp_plan *plan = plan_make(opaque_model, 4, 1);
    plan->cluster->inter.shared_per_node = true;
    pp_sim_result *result = simulate_plan(plan);
    double seconds = (double)pp_plan_border_bytes(plan, 1) / 1000;
    cr_assert_float_eq(result->makespan_s, 12 + 2 * (1 + seconds) + 0.5, 1e-12);
    pp_sim_result_free(result);
    pp_plan_free(plan);

    plan = plan_make(opaque_model, 4, 8);
    snprintf(plan->schedule, sizeof plan->schedule, "gpipe");
    plan->cluster->inter.shared_per_node = true;
    const int devices[] = {0, 2, 1, 3};
    for (int s = 0; s < 4; s++) {
        plan->devices[s] = devices[s];
        plan->stages[s].forward_s = s == 0 ? 1 : 0; /* outputs at 1, 2 …, then only transfers */
        plan->stages[s].input_s = plan->stages[s].weight_s = plan->stages[s].optimizer_s = 0;
    }
    result = simulate_plan(plan);
    plan->cluster->inter.shared_per_node = false;
    pp_sim_result *apart = simulate_plan(plan);
    cr_assert_gt(result->makespan_s, apart->makespan_s + 0.1 * seconds);
    pp_sim_result_free(result);
    pp_sim_result_free(apart);
    pp_plan_free(plan);
}

Test(plan, replicas_of_a_node_share_its_card) {
    pp_plan *plan = plan_make(opaque_model, 2, 1);
    pp_plan *twice;
    cr_assert_eq(pp_plan_new(plan->model, plan->cluster, 2, 2, 2, 1, &twice, NULL), PP_OK);
    twice->virtual_stages = twice->microbatches = 1;
    twice->microbatch_size = 1;
    twice->global_batch = 2;
    snprintf(twice->schedule, sizeof twice->schedule, "1f1b");
    memcpy(twice->order, plan->order, 4 * sizeof *plan->order);
    memcpy(twice->stages, plan->stages, 2 * sizeof *plan->stages);
    for (int i = 0; i < 4; i++) twice->devices[i] = i; /* both replicas of a rank on its node */
    twice->placement[1] = 1;
    twice->cluster->inter.shared_per_node = true;
    pp_sim_result *result = simulate_plan(twice);
    double seconds = (double)pp_plan_border_bytes(twice, 0) / 1000;
    cr_assert_float_eq(result->makespan_s, 6 + 2 * (1 + 2 * seconds) + 0.5, 1e-12);
    pp_sim_result_free(result);
    pp_plan_free(twice);
    pp_plan_free(plan);
}

Test(plan, tied_stages_reduce_together_and_the_last_microbatch_is_short) {
    pp_plan *plan = plan_make(tied_model, 2, 2);
    plan->stages[0].reduce_s = plan->stages[1].reduce_s = 4;
    plan->last_microbatch_scale = 0.5;
    pp_sim_result *result = simulate_plan(plan);
    /* rank 0: F0 0-1, F1 1-1.5, B0 4-6, B1 6-7; rank 1: F0 1-2, B0 2-4, F1 4-4.5, B1 4.5-5.5 */
    cr_assert_eq(result->rank[0].last_end_s, 7 + 4 + 0.5);
    cr_assert_eq(result->rank[1].last_end_s, 7 + 4 + 0.5);
    cr_assert_eq(result->rank[1].busy_s, 4.5 + 4.5);
    pp_sim_result_free(result);
    pp_plan_free(plan);
}

/* Two stages of one layer on two ranks, chimera: each rank has both, and reduces both with the
 * other rank, when both have done everything. */
static pp_plan *two_chains(int microbatches) {
    pp_plan *plan = plan_make(opaque_model, 2, microbatches);
    pp_stage stages[2] = {plan->stages[0], plan->stages[1]};
    cr_assert(pp_plan_add_chain(plan));
    cr_assert(plan->stage_count == 4 && plan->chains == 2);
    for (int s = 0; s < 4; s++) {
        plan->stages[s] = stages[s % 2];
        plan->stages[s].reduce_s = 3;
        plan->stages[s].bytes = (pp_stage_bytes){.parameters = s % 2 ? 100 : 10, .activation = 1};
    }
    snprintf(plan->schedule, sizeof plan->schedule, "chimera");
    return plan;
}

Test(plan, copies_of_a_stage_reduce_together_at_the_end) {
    pp_plan *plan = two_chains(2);
    pp_schedule *schedule = expand(plan);
    expect_row(schedule, 0, "0F0 3F0 3B0 0B0 0REDUCE_GRAD 3REDUCE_GRAD 0STEP 3STEP");
    expect_row(schedule, 1, "2F0 1F0 1B0 2B0 2REDUCE_GRAD 1REDUCE_GRAD 2STEP 1STEP");
    pp_schedule_free(schedule);
    plan->stages[3].forward_s = 2; /* of rank 0 */
    pp_sim_result *result = simulate_plan(plan);
    /* rank 0: 0F0 0-1, 3F0 1-3, 3B0 3-5, 0B0 5-7; rank 1: 2F0 0-1, 1F0 1-2, 1B0 2-4, 2B0 5-7 */
    cr_assert_eq(result->rank[0].last_end_s, 7 + 2 * 3 + 2 * 0.5);
    cr_assert_eq(result->rank[1].last_end_s, 7 + 2 * 3 + 2 * 0.5);
    cr_assert_eq(result->rank[1].busy_s, 6 + 2 * 3 + 2 * 0.5);
    for (int p = 0; p < 2; p++) {
        cr_assert_eq(result->rank[p].peak.parameters, 110, "both stages on each rank");
        cr_assert_eq(result->rank[p].peak.activations, 2);
    }
    pp_sim_result_free(result);
    plan->chains = 1;
    expand_refuses(plan, "2 chains of stages, but the plan has 1");
    plan->chains = 2;
    plan->microbatches = 4;
    snprintf(plan->schedule, sizeof plan->schedule, "file");
    plan->schedule_csv = "# placement: 0,1,1,0\n# chains: 0-1,2-3\n0F0,3F0,3B0,0B0\n"
                         "2F0,1F0,1B0,2B0\n";
    expand_refuses(plan, "2 microbatches, but the plan has 2, 4 and 4");
    pp_plan_free(plan);
}

/* One microbatch of two slices on two ranks: the second slice of F takes a second longer than the
 * first, that of B half of one. */
Test(plan, slices_that_look_back_on_more_take_longer) {
    pp_plan *plan = plan_make(opaque_model, 2, 1);
    snprintf(plan->schedule, sizeof plan->schedule, "seq1f1b");
    plan->slices = 2;
    for (int s = 0; s < 2; s++) {
        plan->stages[s].forward_s = 3;
        plan->stages[s].forward_tilt_s = 1;
        plan->stages[s].input_s = plan->stages[s].weight_s = 2;
        plan->stages[s].input_tilt_s = 0.5;
    }
    pp_schedule *schedule = expand(plan);
    expect_row(schedule, 0, "0F0 0F0.1 0B0.1 0B0 0STEP");
    expect_row(schedule, 1, "1F0 1F0.1 1B0.1 1B0 1STEP");
    pp_schedule_free(schedule);
    pp_sim_result *result = simulate_plan(plan);
    /* rank 0: F 0-1, 1-3, B 7.25-9.5, 9.5-11.25; rank 1: F 1-2, 3-5, B 5-7.25, 7.25-9 */
    cr_assert_eq(result->rank[1].last_end_s, 9 + 0.5);
    cr_assert_eq(result->rank[0].last_end_s, 11.25 + 0.5);
    cr_assert_eq(result->rank[0].busy_s, 3 + 4 + 0.5);
    pp_sim_result_free(result);
    pp_plan_free(plan);
}

/* The last microbatch of all is the last of the second chain; the first chain's are full. */
Test(plan, one_chain_has_the_smaller_microbatch) {
    pp_plan *plan = two_chains(2);
    plan->last_microbatch_scale = 0.5;
    pp_sim_result *result = simulate_plan(plan);
    /* rank 0: 0F0 0-1, 3F0 1-1.5, 3B0 1.5-2.5, 0B0 4-6; rank 1: 2F0 0-0.5, 1F0 1-2, 1B0 2-4, 2B0
     * 4-5 */
    cr_assert_eq(result->rank[0].busy_s, 4.5 + 7);
    cr_assert_eq(result->rank[1].busy_s, 4.5 + 7);
    cr_assert_eq(result->makespan_s, 6 + 7);
    cr_assert_leq(result->lower_bound_s, 13);
    pp_sim_result_free(result);
    pp_plan_free(plan);
}

Test(plan, peaks_are_those_of_the_table) {
    pp_plan *plan = plan_make(opaque_model, 4, 8);
    for (int s = 0; s < 4; s++)
        plan->stages[s].bytes = (pp_stage_bytes){.parameters = 10,
                                                 .gradients = 20,
                                                 .optimizer = 30,
                                                 .activation = 1000,
                                                 .input = s ? 100 : 0,
                                                 .output_gradient = s < 3 ? 100 : 0};
    pp_schedule *schedule;
    pp_sim_result *result;
    int inputs[4], gradients[4];
    cr_assert_eq(pp_simulate_plan(plan, false, &schedule, &result, NULL), PP_OK);
    cr_assert_eq(pp_schedule_slots(schedule, inputs, gradients, NULL), PP_OK);
    for (int p = 0; p < 4; p++) {
        int64_t slots = (p ? inputs[p] : 0) + (p < 3 ? gradients[p] : 0);
        cr_assert_eq(result->rank[p].peak.total, 60 + 1000 * (4 - p) + 100 * slots);
        cr_assert_eq(result->rank[p].peak.buffers, 100 * slots);
        cr_assert_eq(result->rank[p].peak.activations, 1000 * (4 - p));
    }
    pp_schedule_free(schedule);
    pp_sim_result_free(result);
    pp_plan_free(plan);
}
