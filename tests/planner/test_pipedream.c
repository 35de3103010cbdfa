/* --split pipedream and bottleneck against the answers of PipeDream's own optimizer, on the
 * profiles that it came with. Needs the published data: the folder that PPSIM_TEST_DATA names, or
 * ../shared/data. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "core/json_reader.h"
#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(pipedream);

static void data_path(char path[512], const char *name) {
    const char *named = getenv("PPSIM_TEST_DATA");
    snprintf(path, 512, "%s/%s", named ? named : "../shared/data", name);
}

static double number(const json_t *object, const char *key, double otherwise) {
    const json_t *value = json_object_get(object, key);
    return value ? json_number_value(value) : otherwise;
}

static int machines_of(const json_t *options, int level) {
    const json_t *n = json_array_get(json_object_get(options, "n"), (size_t)level);
    return n ? (int)json_integer_value(n) : 1;
}

static void write_link(const json_t *options, int level, pp_text *text) {
    const json_t *b = json_array_get(json_object_get(options, "b"), (size_t)level);
    bool compared = json_object_get(options, "activation_compression_ratio") != NULL;
    if (b && compared)
        pp_text_printf(text, "{\"bandwidth_bytes_per_s\": %.17g, \"latency_s\": 0}",
                       json_number_value(b));
    else
        pp_text_string(text, "{\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}");
}

/* The run's machines: nodes of the first level's, the second level's times. */
static void write_cluster(const json_t *options, pp_text *text) {
    bool limited = json_is_true(json_object_get(options, "use_memory_constraint"));
    pp_text_printf(text,
                   "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"machines\", "
                   "\"devices\": [{\"name\": \"d\", \"memory_bytes\": %.0f, \"flops\": {\"fp32\": "
                   "1e12}, \"memory_bandwidth_bytes_per_s\": 1e12}], \"nodes\": [{\"device\": "
                   "\"d\", \"count\": %d, \"repeat\": %d}], \"intra\": ",
                   limited ? number(options, "memory_size", 0) : 1e15, machines_of(options, 0),
                   machines_of(options, 1));
    write_link(options, 0, text);
    pp_text_string(text, ", \"inter\": ");
    write_link(options, 1, text);
    pp_text_string(text, "}");
}

static world world_of(const json_t *run) {
    char name[64], path[512];
    world w = {0};
    pp_error error = {0};
    pp_text text = {0};
    pp_import_options plain = {0};
    const json_t *options = json_object_get(run, "options");
    snprintf(name, sizeof name, "pipedream/%s/graph.txt",
             json_string_value(json_object_get(run, "profile")));
    data_path(path, name);
    cr_assert_eq(pp_import_file("pipedream", path, &plain, &w.model, &error), PP_OK, "%s",
                 error.message);
    write_cluster(options, &text);
    cr_assert_eq(pp_cluster_read(text.bytes, text.length, "cluster", &w.cluster, &error), PP_OK,
                 "%s", error.message);
    pp_text_deinit(&text);
    w.request = (pp_plan_request){.model = w.model,
                                  .cluster = w.cluster,
                                  .global_batch = 4,
                                  .microbatch_size = 1,
                                  .schedule = "1f1b",
                                  .recompute = "none",
                                  .split = "pipedream",
                                  .dtype = PP_FP32};
    w.request.ranks = machines_of(options, 0) * machines_of(options, 1);
    if (json_is_true(json_object_get(options, "straight_pipeline"))) w.request.dp = 1;
    pp_costs_request costs = {.model = w.model, .cluster = w.cluster, .dtype = PP_FP32};
    cr_assert_eq(pp_costs_open(&costs, &w.costs, &error), PP_OK, "%s", error.message);
    w.request.costs = w.costs;
    return w;
}

static double ask(world *w, const char *split, const char *id, int *machines) {
    pp_plan_result *result;
    pp_error error = {0};
    w->request.split = split;
    cr_assert_eq(pp_plan_search(&w->request, &result, &error), PP_OK, "%s: %s", id, error.message);
    double seconds = result->split.bottleneck_s;
    *machines = result->best ? result->best->ranks : 0;
    for (int s = 0; s < result->split.stage_count; s++) {
        *machines += result->split.stages[s].replicas;
    }
    pp_plan_result_free(result);
    return seconds;
}

static void check_run(const json_t *run) {
    const char *id = json_string_value(json_object_get(run, "id"));
    double expected = number(run, "final_level_pipeline_time_s", 0);
    int machines;
    world w = world_of(run);
    double seconds = ask(&w, "pipedream", id, &machines);
    cr_expect(fabs(seconds - expected) <= 1e-9 * expected, "%s: %.12g, PipeDream has %.12g", id,
              seconds, expected);
    cr_expect_eq(machines, w.request.ranks, "%s uses %d machines", id, machines);
    if (strstr(id, "nocomm")) {
        seconds = ask(&w, "bottleneck", id, &machines);
        cr_expect_leq(seconds, expected * (1 + 1e-9), "%s: bottleneck %.12g", id, seconds);
    }
    world_free(&w);
}

Test(pipedream, equals_the_published_optimizer, .timeout = 120) {
    char path[512];
    size_t i;
    json_t *run;
    pp_text file;
    json_t *document = NULL;
    data_path(path, "planner/pipedream.json");
    if (pp_file_read(path, PP_FILE_LIMIT_BYTES, &file, NULL) == PP_OK) {
        pp_error error = {0};
        pp_status status = pp_json_load(file.bytes, file.length, path, &document, &error);
        pp_text_deinit(&file);
        cr_assert_eq(status, PP_OK, "%s", error.message);
    }
    if (!document) cr_skip_test("no published answers at %s (set PPSIM_TEST_DATA)", path);
    json_array_foreach(json_object_get(document, "runs"), i, run) check_run(run);
    json_decref(document);
}
