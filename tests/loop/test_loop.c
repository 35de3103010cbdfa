/* What crosses the floors: a plan that the search made is expanded, simulated, run and drawn, and
 * every floor must agree with the others.
 *
 *   planner → plan.predicted      the simulator finds the same numbers again, from the written plan
 *   simulator → peak_bytes        what the executor's heaps held, byte for byte
 *   simulator → replay's step     on the plan's time line, for every schedule that can be planned
 *   schedule → losses             depend on M and the data alone: not on K, splits, dp's placement,
 *                                 schedule or recomputation
 *
 * Times are measured but never judged: the machine is busy with other things. */
#include "executor/executor.h"
#include "planner/planner.h"
#include "tests/live_bytes.h"
#include "viz/viz.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

COUNTED_SUITE(loop, .timeout = 120);

/* Five layers, the embedding tied with the head, dropout where recomputation could go wrong. */
static const char gpt[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"loop-gpt\", \"layers\": ["
    "{\"name\": \"embed\", \"op\": \"embedding\", \"vocabulary\": 64, \"dim\": 16, \"sequence\": 8,"
    " \"tie\": \"wte\"},"
    "{\"name\": \"block0\", \"op\": \"gpt_block\", \"dim\": 16, \"heads\": 2, \"sequence\": 8,"
    " \"dropout\": 0.1},"
    "{\"name\": \"block1\", \"op\": \"gpt_block\", \"dim\": 16, \"heads\": 2, \"sequence\": 8},"
    "{\"name\": \"block2\", \"op\": \"gpt_block\", \"dim\": 16, \"heads\": 4, \"sequence\": 8},"
    "{\"name\": \"head\", \"op\": \"lm_head\", \"vocabulary\": 64, \"dim\": 16, \"sequence\": 8,"
    " \"tie\": \"wte\"}]}";

/* Eight layers, edges over one and more of them. */
static const char graph[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"loop-graph\", \"layers\": ["
    "{\"name\": \"l0\", \"op\": \"linear\", \"dim\": 8, \"output_dim\": 16},"
    "{\"name\": \"relu\", \"op\": \"relu\", \"dim\": 16},"
    "{\"name\": \"l1\", \"op\": \"linear\", \"dim\": 16, \"output_dim\": 16},"
    "{\"name\": \"drop\", \"op\": \"dropout\", \"dim\": 16, \"dropout\": 0.2},"
    "{\"name\": \"sum\", \"op\": \"add\", \"dim\": 16},"
    "{\"name\": \"norm\", \"op\": \"layer_norm\", \"dim\": 16},"
    "{\"name\": \"out\", \"op\": \"linear\", \"dim\": 16, \"output_dim\": 10},"
    "{\"name\": \"loss\", \"op\": \"softmax_cross_entropy\", \"dim\": 10}],"
    "\"edges\": [[0,1],[1,2],[2,3],[3,4],[1,4],[0,4],[4,5],[5,6],[6,7]]}";

/* ---- one way around ------------------------------------------------------------------------ */

enum { STEPS = 3, BATCH = 22 };

/* Pins of one plan. Zero and NULL are left to the search. */
typedef struct way {
    const char *model;
    int ranks, microbatches, dp;
    const char *schedule, *recompute, *split;
    pp_optimizer optimizer;
    int zero;
} way;

/* Of the uneven chain, whole microbatches of one sample. */
static int batch_of(const way *w) {
    return w->model == gpt || w->model == graph ? BATCH : w->microbatches;
}

static pp_plan_result *search(const way *w) {
    pp_plan_request request = {.global_batch = batch_of(w),
                               .dtype = PP_FP32,
                               .optimizer = w->optimizer,
                               .ranks = w->ranks,
                               .microbatches = w->microbatches,
                               .dp = w->dp ? w->dp : 1,
                               .tp = 1,
                               .zero = w->zero,
                               .schedule = w->schedule,
                               .recompute = w->recompute,
                               .split = w->split};
    pp_error error = {.message = ""};
    pp_model *model;
    pp_cluster *cluster;
    pp_costs *costs;
    pp_plan_result *result;
    cr_assert_eq(pp_model_read(w->model, strlen(w->model), "loop", &model, &error), PP_OK, "%s",
                 error.message);
    cr_assert_eq(pp_cluster_open("local", w->ranks * request.dp, &cluster, &error), PP_OK, "%s",
                 error.message);
    pp_costs_request wanted = {.model = model, .cluster = cluster, .dtype = PP_FP32};
    cr_assert_eq(pp_costs_open(&wanted, &costs, &error), PP_OK, "%s", error.message);
    request.model = model;
    request.cluster = cluster;
    request.costs = costs;
    cr_assert_eq(pp_plan_search(&request, &result, &error), PP_OK, "%s", error.message);
    pp_costs_close(costs);
    pp_cluster_free(cluster);
    pp_model_free(model);
    return result;
}

/* As it comes back from its own document: what other processes would see. */
static pp_plan *written_and_read(const pp_plan *plan) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_error error = {.message = ""};
    pp_plan *read;
    pp_plan_write(plan, &json);
    cr_assert_eq(pp_plan_read(text.bytes, text.length, "plan.json", &read, &error), PP_OK, "%s: %s",
                 error.place, error.message);
    pp_text_deinit(&text);
    return read;
}

static pp_plan *plan_of(const way *w) {
    pp_plan_result *result = search(w);
    pp_plan *plan = written_and_read(result->best);
    cr_assert_eq(plan->ranks, w->ranks);
    cr_assert_eq(plan->microbatches, w->microbatches);
    cr_assert_str_eq(plan->schedule, w->schedule);
    char policy[PP_RECOMPUTE_LENGTH];
    cr_assert_str_eq(pp_recompute_text(plan->recompute, policy), w->recompute);
    pp_plan_result_free(result);
    return plan;
}

static void describe(const way *w, char text[160]) {
    snprintf(text, 160, "%s K=%d M=%d dp=%d %s recompute %s split %s",
             w->model == gpt     ? "gpt"
             : w->model == graph ? "graph"
                                 : "uneven",
             w->ranks, w->microbatches, w->dp, w->schedule, w->recompute,
             w->split ? w->split : "optimal");
}

static pp_sim_result *simulate_as_predicted(const pp_plan *plan, const char *what) {
    pp_error error = {.message = ""};
    pp_sim_result *simulated;
    cr_assert_eq(pp_simulate_plan(plan, true, NULL, &simulated, &error), PP_OK, "%s: %s", what,
                 error.message);
    const pp_prediction *predicted = &plan->predicted;
    cr_assert_float_eq(simulated->makespan_s, predicted->iteration_time_s,
                       1e-12 * simulated->makespan_s, "%s: %.17g is not %.17g", what,
                       simulated->makespan_s, predicted->iteration_time_s);
    cr_assert_float_eq(simulated->bubble_fraction, predicted->bubble_fraction, 1e-9, "%s", what);
    for (int p = 0; p < plan->ranks; p++) {
        cr_assert_float_eq(simulated->rank[p].busy_s, predicted->rank[p].busy_s,
                           1e-12 * simulated->makespan_s, "%s: rank %d", what, p);
        cr_assert_eq(simulated->rank[p].peak.total, predicted->rank[p].peak_bytes, "%s: rank %d",
                     what, p);
    }
    return simulated;
}

static void draw(const pp_trace *predicted, const pp_trace *measured, const char *what) {
    static const struct {
        const char *chart, *file;
    } pictures[] = {{"timeline", "x.svg"}, {"timeline", "x.png"}, {"compare", "x.pdf"}};
    const pp_trace *traces[] = {measured, predicted};
    const pp_render_options look = {0};
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) {
        bool both = strcmp(pictures[i].chart, "compare") == 0;
        const pp_trace *pair[] = {predicted, measured};
        pp_text image = {0};
        pp_error error = {.message = ""};
        cr_assert_eq(pp_render(pictures[i].chart, both ? pair : traces, both ? 2 : 1,
                               pictures[i].file, &look, &image, &error),
                     PP_OK, "%s: %s: %s", what, pictures[i].chart, error.message);
        cr_assert_gt(image.length, 100);
        pp_text_deinit(&image);
    }
}

/* Plans, simulates, runs; everything but times is compared. losses: [STEPS], filled. */
static void go_around(const way *w, bool with_pictures, double *losses) {
    char what[160];
    describe(w, what);
    pp_plan *plan = plan_of(w);
    pp_sim_result *simulated = simulate_as_predicted(plan, what);
    pp_schedule *schedule;
    pp_run_result *run;
    pp_error error = {.message = ""};
    pp_run_options options = {.steps = STEPS, .seed = 7, .keep_trace = true, .backend = "cpu"};
    cr_assert_eq(pp_plan_expand(plan, &schedule, &error), PP_OK, "%s: %s", what, error.message);
    cr_assert_eq(pp_run(plan, schedule, &options, &run, &error), PP_OK, "%s: %s", what,
                 error.message);
    cr_assert_eq(run->step_count, STEPS);
    for (int step = 0; step < STEPS; step++) {
        losses[step] = run->steps[step].loss;
        cr_assert(isfinite(losses[step]), "%s", what);
    }
    for (int p = 0; p < plan->ranks; p++)
        cr_assert_eq(run->measured.rank[p].peak_bytes, plan->predicted.rank[p].peak_bytes,
                     "%s: rank %d held %lld bytes, predicted %lld", what, p,
                     (long long)run->measured.rank[p].peak_bytes,
                     (long long)plan->predicted.rank[p].peak_bytes);
    if (with_pictures) draw(simulated->trace, run->trace, what);
    pp_run_result_free(run);
    pp_schedule_free(schedule);
    pp_sim_result_free(simulated);
    pp_plan_free(plan);
}

static void same_losses(const way *w, const double *losses, const double *wanted) {
    char what[160];
    describe(w, what);
    for (int step = 0; step < STEPS; step++)
        cr_assert_eq(losses[step], wanted[step], "%s: step %d has loss %.17g, K=1 has %.17g", what,
                     step, losses[step], wanted[step]);
}

/* ---- many ways, one answer ----------------------------------------------------------------- */

/* The first of a list with the same model, M, dp and optimizer sets what the others must give. */
static void all_agree(const way *ways, size_t count) {
    double wanted[STEPS];
    for (size_t i = 0; i < count; i++) {
        double losses[STEPS];
        go_around(&ways[i], i == 1, losses);
        if (i == 0)
            memcpy(wanted, losses, sizeof wanted);
        else
            same_losses(&ways[i], losses, wanted);
    }
}

#define WAYS(list) (list), sizeof(list) / sizeof *(list)

Test(loop, transformer) {
    static const way ways[] = {
        {gpt, 1, 4, 1, "naive", "none", NULL, PP_ADAMW, 0},
        {gpt, 2, 4, 1, "1f1b", "none", NULL, PP_ADAMW, 0},
        {gpt, 2, 4, 1, "gpipe", "none", "1", PP_ADAMW, 0},
        {gpt, 2, 4, 1, "gpipe", "full", "4", PP_ADAMW, 0},
        {gpt, 3, 4, 1, "1f1b", "except-last", "2,4", PP_ADAMW, 0},
        {gpt, 3, 4, 1, "naive", "full", "uniform", PP_ADAMW, 0},
        {gpt, 4, 4, 1, "1f1b", "full", "parameters", PP_ADAMW, 0},
        {gpt, 4, 4, 1, "gpipe", "except-last", "time", PP_ADAMW, 0},
        {gpt, 5, 4, 1, "1f1b", "none", "memory", PP_ADAMW, 0},
        {gpt, 5, 4, 1, "gpipe", "none", NULL, PP_ADAMW, 0},
        {gpt, 1, 4, 1, "1f1b", "every:2", NULL, PP_ADAMW, 0},
        {gpt, 2, 4, 1, "1f1b", "attention", NULL, PP_ADAMW, 0},
        {gpt, 2, 4, 1, "gpipe", "every:1", "4", PP_ADAMW, 0},
        {gpt, 3, 4, 1, "zb-h1", "none", "2,4", PP_ADAMW, 0},
        {gpt, 2, 4, 1, "zb-h1", "full", "4", PP_ADAMW, 0},
        {gpt, 2, 4, 1, "zb-h1", "attention", "4", PP_ADAMW, 0},
        {gpt, 2, 4, 1, "zb-h1", "every:2", "4", PP_ADAMW, 0},
        {gpt, 2, 4, 1, "zb-h1", "every:1", "3", PP_ADAMW, 0},
        {gpt, 2, 4, 1, "interleaved", "every:1", NULL, PP_ADAMW, 0},
        {gpt, 2, 4, 1, "zbv", "attention", NULL, PP_ADAMW, 0},
    };
    all_agree(WAYS(ways));
}

/* 22 samples in 8 microbatches of 3: the last has one. */
Test(loop, last_microbatch_is_smaller) {
    static const way ways[] = {
        {gpt, 1, 8, 1, "gpipe", "none", NULL, PP_SGD, 0},
        {gpt, 2, 8, 1, "1f1b", "full", NULL, PP_SGD, 0},
        {gpt, 3, 8, 1, "1f1b", "none", "type:block", PP_SGD, 0},
        {gpt, 5, 8, 1, "gpipe", "except-last", NULL, PP_SGD, 0},
        {gpt, 2, 8, 1, "dualpipev", "none", NULL, PP_SGD, 0},
    };
    all_agree(WAYS(ways));
}

Test(loop, replicas) {
    static const way ways[] = {
        {gpt, 1, 3, 2, "gpipe", "none", NULL, PP_ADAMW, 0},
        {gpt, 2, 3, 2, "1f1b", "none", NULL, PP_ADAMW, 0},
        {gpt, 3, 3, 2, "gpipe", "full", "1,4", PP_ADAMW, 0},
        {gpt, 3, 3, 2, "1f1b", "except-last", "2,3", PP_ADAMW, 0},
        {gpt, 2, 3, 2, "1f1b", "every:2", "4", PP_ADAMW, 0},
        {gpt, 1, 3, 2, "gpipe", "none", NULL, PP_ADAMW, 1},
        {gpt, 3, 3, 2, "1f1b", "none", "1,4", PP_ADAMW, 1},
        {gpt, 2, 3, 2, "interleaved", "none", NULL, PP_ADAMW, 1},
    };
    all_agree(WAYS(ways));
}

Test(loop, graph_with_skips) {
    static const way ways[] = {
        {graph, 1, 6, 1, "1f1b", "none", NULL, PP_ADAMW, 0},
        {graph, 2, 6, 1, "1f1b", "none", "2", PP_ADAMW, 0},
        {graph, 2, 6, 1, "gpipe", "full", "4", PP_ADAMW, 0},
        {graph, 3, 6, 1, "1f1b", "full", "1,3", PP_ADAMW, 0},
        {graph, 4, 6, 1, "1f1b", "except-last", "2,4,6", PP_ADAMW, 0},
        {graph, 8, 6, 1, "gpipe", "none", NULL, PP_ADAMW, 0},
        {graph, 2, 6, 1, "1f1b", "every:2", "5", PP_ADAMW, 0},
        {graph, 2, 6, 1, "zb-h1", "every:3", "3", PP_ADAMW, 0},
        {graph, 3, 6, 1, "1f1b", "every:1", "3,5", PP_ADAMW, 0},
        {graph, 8, 6, 1, "1f1b", "none", NULL, PP_ADAMW, 0},
    };
    all_agree(WAYS(ways));
}

/* Two chains: each gradient is summed over the chains too, so that the bits are not those of one
 * chain, but the same for every K; with replicas, and where the last microbatch is smaller. */
Test(loop, two_chains) {
    static const way ways[] = {
        {gpt, 2, 8, 1, "chimera", "none", NULL, PP_SGD, 0},
        {gpt, 2, 8, 1, "dualpipe", "none", NULL, PP_SGD, 0},
        {gpt, 4, 8, 1, "dualpipe", "none", NULL, PP_SGD, 0},
        {gpt, 4, 8, 1, "chimera", "full", NULL, PP_SGD, 0},
        {gpt, 2, 8, 1, "dualpipe", "attention", NULL, PP_SGD, 0},
        {gpt, 2, 8, 1, "chimera", "except-last", NULL, PP_SGD, 0},
    };
    static const way replicas[] = {
        {gpt, 2, 4, 2, "chimera", "none", NULL, PP_ADAMW, 0},
        {gpt, 2, 4, 2, "dualpipe", "none", NULL, PP_ADAMW, 0},
        {gpt, 4, 4, 2, "chimera", "every:1", NULL, PP_ADAMW, 0},
        {gpt, 2, 4, 2, "dualpipe", "none", NULL, PP_ADAMW, 1},
    };
    static const way one = {gpt, 1, 8, 1, "gpipe", "none", NULL, PP_SGD, 0};
    double losses[STEPS], wanted[STEPS];
    all_agree(WAYS(ways));
    all_agree(WAYS(replicas));
    go_around(&ways[0], false, losses);
    go_around(&one, false, wanted);
    for (int step = 0; step < STEPS; step++)
        cr_expect_float_eq(losses[step], wanted[step], 1e-5 * wanted[step], "step %d: %.9g, %.9g",
                           step, losses[step], wanted[step]);
}

/* ---- replay -------------------------------------------------------------------------------- */

/* A chain of layers of different times and borders, per sample. */
static const char *uneven_chain(pp_text *text) {
    pp_text_printf(text, "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"uneven\", "
                         "\"layers\": [");
    for (int i = 0; i < 33; i++)
        pp_text_printf(text,
                       "%s{\"name\": \"l%d\", \"op\": \"opaque\", \"forward_s\": %de-6, "
                       "\"input_s\": %de-6, \"weight_s\": %de-6, \"parameter_bytes\": 4096, "
                       "\"output_bytes\": %d, \"activation_bytes\": 131072}",
                       i ? "," : "", i, 20 + i * 7 % 11, 20 + i * 5 % 13, 15 + i * 3 % 7,
                       100000 * (1 + i % 3));
    pp_text_string(text, "]}");
    cr_assert_not(text->failed);
    return text->bytes;
}

/* Replay waits the plan's times and holds the plan's memory; it has no losses. On the plan's own
 * time line, which does not hang on when threads wake up, the step takes what was predicted. */
static void replay_as_predicted(const way *w) {
    char what[160];
    describe(w, what);
    pp_plan *plan = plan_of(w);
    pp_schedule *schedule;
    pp_run_result *run;
    pp_error error = {.message = ""};
    pp_run_options options = {.steps = 2, .backend = "replay"};
    cr_assert_eq(pp_plan_expand(plan, &schedule, &error), PP_OK, "%s: %s", what, error.message);
    cr_assert_eq(pp_run(plan, schedule, &options, &run, &error), PP_OK, "%s: %s", what,
                 error.message);
    for (int p = 0; p < plan->ranks; p++)
        cr_assert_eq(run->measured.rank[p].peak_bytes, plan->predicted.rank[p].peak_bytes,
                     "%s: rank %d", what, p);
    for (int step = 0; step < 2; step++) {
        double planned_s = run->steps[step].planned_s;
        double predicted_s = plan->predicted.iteration_time_s;
        cr_assert(fabs(planned_s - predicted_s) < 1e-6 * predicted_s,
                  "%s: step %d takes %.9g s, predicted %.9g s", what, step, planned_s, predicted_s);
        cr_assert(isnan(run->steps[step].loss));
    }
    pp_run_result_free(run);
    pp_schedule_free(schedule);
    pp_plan_free(plan);
}

/* Every schedule that run drives, at K = 4 and, where a pair of F and B is one action, 8. */
Test(loop, replay_takes_what_was_predicted) {
    pp_text text = {0};
    way w = {uneven_chain(&text), .microbatches = 16, .recompute = "none"};
    int count, replayed = 0;
    const pp_schedule_family *families = pp_schedule_families(&count);
    for (int i = 0; i < count; i++) {
        const pp_schedule_family *family = &families[i];
        if (family->async || family->cuts_sequence) continue;
        w.schedule = family->name;
        w.ranks = 4;
        replay_as_predicted(&w);
        replayed++;
    }
    cr_assert_geq(replayed, 15);
    w.schedule = "dualpipev";
    w.ranks = 8;
    replay_as_predicted(&w);
    w.ranks = 4;
    w.recompute = "full";
    replay_as_predicted(&w);
    pp_text_deinit(&text);
}

/* The last of 8 microbatches is smaller; ties and replicas are summed. */
Test(loop, replay_of_updates_takes_what_was_predicted) {
    static const way ways[] = {
        {gpt, 4, 4, 1, "1f1b", "none", NULL, PP_ADAMW, 0},
        {gpt, 2, 8, 1, "dualpipev", "none", NULL, PP_ADAMW, 0},
        {gpt, 2, 8, 1, "dualpipe", "none", NULL, PP_ADAMW, 0},
        {gpt, 4, 8, 1, "chimera", "none", NULL, PP_ADAMW, 0},
        {gpt, 4, 4, 2, "chimera", "full", NULL, PP_ADAMW, 0},
        {gpt, 3, 3, 2, "1f1b", "full", "2,3", PP_ADAMW, 0},
        {gpt, 2, 3, 2, "zb-h1", "none", NULL, PP_ADAMW, 0},
        {gpt, 2, 3, 2, "1f1b", "none", NULL, PP_ADAMW, 1},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) replay_as_predicted(&ways[i]);
}
