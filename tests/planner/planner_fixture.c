#include "planner_fixture.h"

#include <criterion/criterion.h>

static void open_costs(world *w, int64_t batch) {
    pp_error error = {0};
    w->request = (pp_plan_request){
        .model = w->model, .cluster = w->cluster, .global_batch = batch, .dtype = PP_FP32};
    pp_costs_request costs = {.model = w->model, .cluster = w->cluster, .dtype = PP_FP32};
    cr_assert_eq(pp_costs_open(&costs, &w->costs, &error), PP_OK, "%s", error.message);
    w->request.costs = w->costs;
}

world world_open(const char *model, const char *cluster, int64_t batch) {
    world w = {0};
    pp_error error = {0};
    cr_assert_eq(pp_model_open(model, &w.model, &error), PP_OK, "%s", error.message);
    cr_assert_eq(pp_cluster_open(cluster, 0, &w.cluster, &error), PP_OK, "%s", error.message);
    open_costs(&w, batch);
    return w;
}

world world_read(const char *model_text, const char *cluster_text, int64_t batch) {
    world w = {0};
    pp_error error = {0};
    cr_assert_eq(pp_model_read(model_text, strlen(model_text), "model", &w.model, &error), PP_OK,
                 "%s: %s", error.place, error.message);
    cr_assert_eq(pp_cluster_read(cluster_text, strlen(cluster_text), "cluster", &w.cluster, &error),
                 PP_OK, "%s: %s", error.place, error.message);
    open_costs(&w, batch);
    return w;
}

void world_free(world *w) {
    pp_costs_close(w->costs);
    pp_cluster_free(w->cluster);
    pp_model_free(w->model);
    *w = (world){0};
}

/* ---- random documents ---------------------------------------------------------------------- */

typedef struct dice {
    pp_random_key key;
    uint64_t rolled;
} dice;

static int roll(dice *d, int below) {
    return (int)pp_random_below(d->key, d->rolled++, (uint64_t)below);
}

static void write_model(dice *d, int layers, pp_text *text) {
    pp_text_string(text, "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"random\", "
                         "\"layers\": [");
    for (int i = 0; i < layers; i++) {
        pp_text_printf(
            text,
            "%s{\"name\": \"l%d\", \"op\": \"opaque\", \"forward_s\": %d, \"input_s\": %d, "
            "\"weight_s\": %d, \"parameter_bytes\": %d, \"output_bytes\": %d, "
            "\"activation_bytes\": %d}",
            i ? ", " : "", i, 1 + roll(d, 9), roll(d, 9), 1 + roll(d, 6), 64 * roll(d, 40),
            64 * (1 + roll(d, 6)), 64 * roll(d, 20));
    }
    pp_text_string(text, "], \"edges\": [");
    for (int i = 0; i + 1 < layers; i++) {
        pp_text_printf(text, "%s[%d, %d]", i ? ", " : "", i, i + 1);
        int skip = i + 2 + roll(d, 4);
        if (roll(d, 4) == 0 && skip < layers) pp_text_printf(text, ", [%d, %d]", i, skip);
    }
    pp_text_string(text, "]}");
}

static void write_cluster(dice *d, int devices, world_size size, pp_text *text) {
    bool linked = roll(d, 3) != 0;
    pp_text_string(text, "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"box\", "
                         "\"devices\": [");
    for (int i = 0; i < devices; i++) {
        int64_t bytes = size.memory ? 6144 + 2048 * roll(d, 10) : 1 << 30;
        pp_text_printf(text,
                       "%s{\"name\": \"d%d\", \"memory_bytes\": %lld, \"flops\": {\"fp32\": %de9}, "
                       "\"memory_bandwidth_bytes_per_s\": 1e9, \"cost_per_hour\": 2.5}",
                       i ? ", " : "", i, (long long)bytes, size.unequal ? 1 << roll(d, 3) : 1);
    }
    pp_text_string(text, "], \"nodes\": [");
    for (int i = 0; i < devices; i++) {
        pp_text_printf(text, "%s{\"device\": \"d%d\", \"count\": 1, \"repeat\": 1}", i ? ", " : "",
                       i);
    }
    double latency = linked ? 0.25 * roll(d, 4) : 0;
    pp_text_printf(text,
                   "], \"intra\": {\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}, \"inter\": "
                   "{\"bandwidth_bytes_per_s\": %s, \"latency_s\": %g, \"shared_per_node\": false}",
                   linked ? "200" : "null", latency);
    pp_text_string(text, ", \"overrides\": [");
    for (int i = 1; i < devices && size.unequal; i++) {
        pp_text_printf(text,
                       "%s{\"from\": %d, \"to\": %d, \"bandwidth_bytes_per_s\": %d, "
                       "\"latency_s\": 0.5}",
                       i > 1 ? ", " : "", i - 1, i, 50 << roll(d, 4));
    }
    pp_text_string(text, "]}");
}

world world_random(uint64_t seed, world_size size) {
    dice d = {.key = pp_random_key_make(seed, "world", 0)};
    pp_text model = {0}, cluster = {0};
    int layers = 2 + roll(&d, size.layers_max - 1);
    int devices = 2 + roll(&d, size.devices_max - 1);
    write_model(&d, layers, &model);
    write_cluster(&d, devices, size, &cluster);
    world w = world_read(model.bytes, cluster.bytes, 1 + roll(&d, size.batch_max));
    w.unequal = size.memory || size.unequal;
    if (size.unequal) w.cluster->all_reduce = PP_ALL_REDUCE_RING;
    if (roll(&d, 4) == 0) w.request.zero = 1;
    pp_text_deinit(&model);
    pp_text_deinit(&cluster);
    return w;
}

pp_text plan_text(const pp_plan *plan) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_plan_write(plan, &json);
    cr_assert(!text.failed);
    return text;
}
