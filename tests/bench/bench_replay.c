/* How well a replayed run meets its prediction, for every schedule that can be planned.
 *
 * Replay runs the order on real threads with real messages, and waits where layers would compute:
 * an action ends at a deadline of the plan's own time line, end = max(end of the one before,
 * arrival of what it needs) + the plan's duration. A thread that wakes up late therefore delays
 * nobody, and the difference in the column `off` is small by construction: it shows that every
 * order runs to its end, that every message is there when the simulation says, and that the
 * executor fits between the deadlines. It does NOT show that layers take what the plan says; runs
 * on a device do (scripts/bench cpu, scripts/gpu-check).
 *
 * What is not hidden is in two columns of its own:
 *
 *   late   how long behind its deadline an action's thread went on, median and 99th percentile
 *   bare   the same order with all durations 0: all that is left is waking threads, messages and
 *          the executor itself; microseconds of the step per action and processor
 *
 * Stages take 1 ms each for F, I and W of a rank's share, all alike, so all threads wake at once:
 * the worst case for a machine with fewer cores than ranks. */
#include "executor/executor.h"
#include "planner/planner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STEPS = 6, UNIT_US = 1000 };

static void must(pp_status status, const char *what, const pp_error *error) {
    if (status == PP_OK) return;
    fprintf(stderr, "bench_replay: %s: %s %s\n", what, error->place, error->message);
    exit(1);
}

/* ---- the plan ---- */

static pp_model *model_of(int stages, double visit_s) {
    pp_text text = {0};
    pp_error error = {0};
    pp_model *model;
    pp_text_printf(&text, "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"alike\", "
                          "\"layers\": [");
    for (int s = 0; s < stages; s++)
        pp_text_printf(&text,
                       "%s{\"name\": \"l%d\", \"op\": \"opaque\", \"forward_s\": %g, \"input_s\": "
                       "%g, \"weight_s\": %g, \"parameter_bytes\": 4096, \"output_bytes\": 65536, "
                       "\"activation_bytes\": 65536}",
                       s ? ", " : "", s, visit_s, visit_s, visit_s);
    pp_text_printf(&text, "]}");
    must(pp_model_read(text.bytes, text.length, "alike", &model, &error), "model", &error);
    pp_text_deinit(&text);
    return model;
}

/* NULL: it cannot be planned, for the reason in *error. */
static pp_plan *plan_of(const pp_schedule_family *family, int ranks, int microbatches,
                        pp_plan_result **result, pp_error *error) {
    int virtual_stages = family->natural_virtual;
    pp_model *model = model_of(ranks * virtual_stages, 1e-6 * UNIT_US / virtual_stages);
    pp_cluster *cluster;
    pp_costs *costs;
    must(pp_cluster_open("local", ranks, &cluster, error), "cluster", error);
    pp_costs_request wanted = {.model = model, .cluster = cluster, .dtype = PP_FP32};
    must(pp_costs_open(&wanted, &costs, error), "costs", error);
    pp_plan_request request = {.model = model,
                               .cluster = cluster,
                               .costs = costs,
                               .global_batch = microbatches,
                               .dtype = PP_FP32,
                               .ranks = ranks,
                               .virtual_stages = virtual_stages,
                               .microbatches = microbatches,
                               .dp = 1,
                               .tp = 1,
                               .schedule = family->name,
                               .recompute = "none",
                               .split = "uniform",
                               .best_alone = true};
    pp_status status = pp_plan_search(&request, result, error);
    pp_costs_close(costs);
    pp_cluster_free(cluster);
    pp_model_free(model);
    return status == PP_OK ? (*result)->best : NULL;
}

/* ---- what it took ---- */

static bool same_action(pp_action a, pp_action b) {
    return a.kind == b.kind && a.stage == b.stage && a.microbatch == b.microbatch;
}

/* Behind their deadlines, of all actions that take time. late_s: as many as the trace has spans;
 * returns how many. */
static size_t lateness(const pp_trace *predicted, const pp_trace *measured, double *late_s) {
    size_t count = 0, m = 0;
    for (size_t i = 0; i < predicted->span_count; i++) {
        const pp_span *wanted = &predicted->spans[i];
        if (wanted->lane != PP_LANE_COMPUTE || wanted->end_s <= wanted->start_s) continue;
        for (; m < measured->span_count; m++) {
            const pp_span *seen = &measured->spans[m];
            if (seen->rank != wanted->rank || seen->lane != PP_LANE_COMPUTE) continue;
            if (!same_action(seen->action, wanted->action)) continue;
            late_s[count++] = seen->end_s - wanted->end_s;
            break;
        }
    }
    return count;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static pp_run_result *replay(const pp_plan *plan, const pp_schedule *schedule) {
    pp_run_options options = {.steps = STEPS, .backend = "replay", .keep_trace = true};
    pp_error error = {0};
    pp_run_result *result;
    must(pp_run(plan, schedule, &options, &result, &error), plan->schedule, &error);
    return result;
}

static void take_no_time(pp_plan *plan) {
    for (int s = 0; s < plan->stage_count; s++)
        plan->stages[s].forward_s = plan->stages[s].input_s = plan->stages[s].weight_s = 0;
}

static void print_lateness(const pp_sim_result *simulated, const pp_run_result *run) {
    double *late_s = calloc(simulated->trace->span_count, sizeof *late_s);
    size_t count = lateness(simulated->trace, run->trace, late_s);
    qsort(late_s, count, sizeof *late_s, ascending);
    if (count > 0)
        printf(" %8.0f %8.0f", 1e6 * late_s[count / 2], 1e6 * late_s[count - 1 - count / 100]);
    free(late_s);
}

static void print_row(pp_plan *plan, double *worst) {
    pp_error error = {0};
    pp_schedule *schedule;
    pp_sim_result *simulated;
    must(pp_simulate_plan(plan, true, &schedule, &simulated, &error), plan->schedule, &error);
    size_t actions = schedule->first_action[schedule->ranks];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    double predicted_s = simulated->makespan_s;

    pp_run_result *run = replay(plan, schedule);
    double off = run->measured.iteration_time_s / predicted_s - 1;
    if (off > *worst || -off > *worst) *worst = off < 0 ? -off : off;
    printf("%-22s %4d %3d %5d %8zu %10.2f %10.2f %+7.2f %%", plan->schedule, plan->ranks,
           plan->virtual_stages, plan->microbatches, actions, 1e3 * predicted_s,
           1e3 * run->measured.iteration_time_s, 100 * off);
    print_lateness(simulated, run);
    pp_run_result_free(run);

    take_no_time(plan);
    run = replay(plan, schedule);
    long busy = cores < plan->ranks ? cores : plan->ranks;
    printf(" %8.2f\n", 1e6 * run->measured.iteration_time_s * (double)busy / (double)actions);
    fflush(stdout);
    pp_run_result_free(run);
    pp_sim_result_free(simulated);
    pp_schedule_free(schedule);
}

/* False: the family cannot be planned. */
static bool measure(const pp_schedule_family *family, int ranks, int microbatches, double *worst) {
    pp_plan_result *result = NULL;
    pp_error error = {0};
    pp_plan *plan = plan_of(family, ranks, microbatches, &result, &error);
    if (plan)
        print_row(plan, worst);
    else
        printf("%-22s %4d %3d %5d   not run: %s\n", family->name, ranks, family->natural_virtual,
               microbatches, error.message);
    bool planned = plan != NULL;
    pp_plan_result_free(result);
    return planned;
}

int main(void) {
    static const int sizes[][2] = {{8, 32}, {8, 128}, {16, 64}, {16, 128}, {32, 64}, {32, 128}};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    int count;
    double worst = 0;
    const pp_schedule_family *families = pp_schedule_families(&count);
    printf("replay, medians of %d steps, %ld cores; step times in ms, late and bare in us\n",
           STEPS - 1, sysconf(_SC_NPROCESSORS_ONLN));
    printf("%-22s %4s %3s %5s %8s %10s %10s %9s %8s %8s %8s\n", "name", "K", "V", "M", "actions",
           "predicted", "measured", "off", "late", "99 %", "bare");
    for (int i = 0; i < count; i++) {
        /* naive is no pipeline, and takes K times as long */
        int some = strcmp(families[i].name, "naive") == 0 ? 1 : SIZES;
        for (int n = 0; n < some && measure(&families[i], sizes[n][0], sizes[n][1], &worst);) n++;
    }
    printf("furthest off: %.2f %%\n", 100 * worst);
    return 0;
}
