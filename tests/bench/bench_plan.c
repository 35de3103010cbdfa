/* How long planning takes: the whole search for known models on clusters of growing size, with
 * growing numbers of microbatches and of ranks, and exact splitting of long chains. Costs are
 * modelled. Prints one row per case with the median of several runs.
 *
 *     bench_plan [RUNS] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/planner.h"

enum { RUNS = 3, RUNS_MAX = 101 };

static const struct {
    const char *model, *cluster;
    int64_t batch;
    pp_dtype dtype;
    int ranks, microbatches; /* pinned; 0: searched */
} searches[] = {
    {"gpt-nano", "dgx-h100:1", 64, PP_BF16, 0, 0},
    {"gpt2-124m", "dgx-h100:1", 256, PP_BF16, 0, 0},
    {"gpt2-1.5b", "dgx-a100:2", 512, PP_BF16, 0, 0},
    {"gpt2-1.5b", "dgx-h100:8", 512, PP_BF16, 0, 0},
    {"gpt3-175b", "h200:16", 1536, PP_BF16, 0, 0},
    {"gpt3-175b", "h200:128", 1536, PP_BF16, 0, 0},
    /* microbatches, then ranks, doubled */
    {"gpt3-175b", "h200:16", 1536, PP_BF16, 8, 48},
    {"gpt3-175b", "h200:16", 1536, PP_BF16, 8, 96},
    {"gpt3-175b", "h200:16", 1536, PP_BF16, 8, 192},
    {"gpt3-175b", "h200:16", 1536, PP_BF16, 16, 192},
    {"gpt3-175b", "h200:16", 1536, PP_BF16, 32, 192},
};

static const struct {
    int layers, stages;
} splits[] = {{100, 8}, {100, 64}, {1000, 8}, {1000, 64}, {10000, 64}};

static int by_value(const void *a, const void *b) {
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

static double median(double *seconds, int count) {
    qsort(seconds, (size_t)count, sizeof *seconds, by_value);
    return seconds[count / 2];
}

static pp_status search_once(size_t i, pp_plan_result **result, pp_error *error) {
    pp_model *model = NULL;
    pp_cluster *cluster = NULL;
    pp_costs *costs = NULL;
    *result = NULL;
    pp_status status = pp_model_open(searches[i].model, &model, error);
    if (status == PP_OK) status = pp_cluster_open(searches[i].cluster, 0, &cluster, error);
    if (status == PP_OK) {
        pp_costs_request request = {.model = model, .cluster = cluster, .dtype = searches[i].dtype};
        status = pp_costs_open(&request, &costs, error);
    }
    if (status == PP_OK) {
        pp_plan_request request = {.model = model,
                                   .cluster = cluster,
                                   .costs = costs,
                                   .global_batch = searches[i].batch,
                                   .ranks = searches[i].ranks,
                                   .microbatches = searches[i].microbatches,
                                   .dtype = searches[i].dtype,
                                   .optimizer = PP_ADAMW,
                                   .zero = PP_ZERO_SEARCH}; /* as the command line does */
        status = pp_plan_search(&request, result, error);
    }
    pp_costs_close(costs);
    pp_cluster_free(cluster);
    pp_model_free(model);
    return status;
}

static void time_search(size_t i, int runs) {
    double seconds[RUNS_MAX];
    pp_plan_result *result = NULL;
    pp_error error = {0};
    for (int r = 0; r < runs; r++) {
        pp_plan_result_free(result);
        if (search_once(i, &result, &error) != PP_OK) {
            printf("%-11s %-11s %6lld  %s\n", searches[i].model, searches[i].cluster,
                   (long long)searches[i].batch, error.message);
            pp_plan_result_free(result);
            return;
        }
        seconds[r] = result->seconds;
    }
    const pp_plan *plan = result->best;
    char policy[PP_RECOMPUTE_LENGTH];
    printf("%-11s %-11s %6lld %9lld %9lld %9.3f %8.3f  K=%d dp=%d M=%d %s recompute %s\n",
           searches[i].model, searches[i].cluster, (long long)searches[i].batch,
           (long long)(result->searched + result->pruned + result->left),
           (long long)result->searched, median(seconds, runs), 100 * result->gap, plan->ranks,
           plan->dp, plan->microbatches, plan->schedule,
           pp_recompute_text(plan->recompute, policy));
    pp_plan_result_free(result);
}

/* Layers of pseudo-random times; stages whose memory holds a little more from one to the next. */
typedef struct chain {
    double *sums; /* [layers + 1] */
    double limit;
} chain;

static double layer_cost(const void *context, int stage, int first, int last) {
    const chain *c = context;
    double seconds = c->sums[last + 1] - c->sums[first];
    return seconds > c->limit * (1 + 0.01 * stage) ? INFINITY : seconds;
}

static void time_split(int layers, int stages, int runs) {
    double seconds[RUNS_MAX], bottleneck = 0;
    chain c = {.sums = calloc((size_t)layers + 1, sizeof *c.sums)};
    int *cuts = calloc((size_t)stages, sizeof *cuts);
    if (c.sums == NULL || cuts == NULL) exit(1);
    pp_random_key key = pp_random_key_make(1, "bench", 0);
    for (int i = 0; i < layers; i++) {
        c.sums[i + 1] = c.sums[i] + 0.5 + pp_random_unit(key, (uint64_t)i);
    }
    c.limit = 1.1 * c.sums[layers] / stages;
    for (int r = 0; r < runs; r++) {
        double start = pp_now_s();
        pp_split_chain(layers, stages, layer_cost, &c, cuts, &bottleneck, NULL);
        seconds[r] = pp_now_s() - start;
    }
    printf("%6d %6d %12.3f ms\n", layers, stages, 1e3 * median(seconds, runs));
    free(c.sums);
    free(cuts);
}

int main(int argc, char **argv) {
    int runs = argc > 1 ? atoi(argv[1]) : RUNS;
    if (runs < 1 || runs > RUNS_MAX) runs = RUNS;
    printf("planning, median of %d runs\n", runs);
    printf("%-11s %-11s %6s %9s %9s %9s %8s  %s\n", "model", "cluster", "batch", "listed",
           "simulated", "seconds", "gap %", "plan");
    for (size_t i = 0; i < sizeof searches / sizeof *searches; i++) time_search(i, runs);
    printf("\nexact splitting, median of %d runs\n%6s %6s %15s\n", runs, "layers", "stages",
           "time");
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        time_split(splits[i].layers, splits[i].stages, runs);
    }
    return 0;
}
