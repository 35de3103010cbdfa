/* Cluster documents: what is read, what is refused, presets, where devices and links are. */
#include "document_support.h"

#include <math.h>

COUNTED_SUITE(cluster);

/* ---- helpers -------------------------------------------------------------------------------- */

static pp_text written(const pp_cluster *cluster) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_cluster_write(cluster, &json);
    cr_assert(!text.failed);
    return text;
}

static void expect_same_link(const pp_link *a, const pp_link *b) {
    cr_assert_eq(memcmp(&a->bandwidth_bytes_per_s, &b->bandwidth_bytes_per_s, sizeof(double)), 0);
    cr_assert_eq(memcmp(&a->latency_s, &b->latency_s, sizeof(double)), 0);
    cr_assert_eq(a->shared_per_node, b->shared_per_node);
}

static void expect_same_cluster(const pp_cluster *a, const pp_cluster *b) {
    cr_assert_str_eq(a->name, b->name);
    cr_assert_eq(a->all_reduce, b->all_reduce);
    cr_assert(a->device_kind_count == b->device_kind_count &&
              a->node_kind_count == b->node_kind_count && a->override_count == b->override_count);
    for (int i = 0; i < a->device_kind_count; i++) {
        const pp_device *x = &a->devices[i], *y = &b->devices[i];
        cr_assert_str_eq(x->name, y->name);
        cr_assert(x->memory_bytes == y->memory_bytes && x->bf16_flops == y->bf16_flops &&
                  x->fp32_flops == y->fp32_flops && x->cost_per_hour == y->cost_per_hour &&
                  x->memory_bandwidth_bytes_per_s == y->memory_bandwidth_bytes_per_s);
    }
    for (int i = 0; i < a->node_kind_count; i++)
        cr_assert(a->nodes[i].device == b->nodes[i].device &&
                  a->nodes[i].count == b->nodes[i].count &&
                  a->nodes[i].repeat == b->nodes[i].repeat);
    expect_same_link(&a->intra, &b->intra);
    expect_same_link(&a->inter, &b->inter);
    for (int i = 0; i < a->override_count; i++) {
        cr_assert(a->overrides[i].from == b->overrides[i].from &&
                  a->overrides[i].to == b->overrides[i].to);
        expect_same_link(&a->overrides[i].link, &b->overrides[i].link);
    }
}

static void expect_round_trip(const pp_cluster *cluster) {
    pp_error error = {0};
    pp_cluster *again, *copy;
    pp_text text = written(cluster);
    cr_assert_eq(pp_cluster_read(text.bytes, text.length, "x.json", &again, &error), PP_OK,
                 "%s: %s\n%s", error.place, error.message, text.bytes);
    cr_assert_eq(pp_cluster_copy(cluster, &copy, &error), PP_OK);
    expect_same_cluster(cluster, again);
    expect_same_cluster(cluster, copy);
    cr_assert_eq(pp_cluster_hash(cluster), pp_cluster_hash(again));
    pp_cluster_free(copy);
    pp_cluster_free(again);
    pp_text_deinit(&text);
}

static pp_cluster *read_cluster(const char *text) {
    pp_cluster *cluster;
    pp_error error = {0};
    cr_assert_eq(pp_cluster_read(text, strlen(text), "x.json", &cluster, &error), PP_OK, "%s: %s",
                 error.place, error.message);
    return cluster;
}

static const char design_example[] =
    "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"two-boxes\",\n"
    " \"devices\": [{\"name\": \"h100\", \"memory_bytes\": 85899345920, \"flops\": {\"bf16\": "
    "9.89e14, \"fp32\": 6.7e13},\n"
    "              \"memory_bandwidth_bytes_per_s\": 3.35e12, \"cost_per_hour\": 2.5}],\n"
    " \"nodes\": [{\"device\": \"h100\", \"count\": 8, \"repeat\": 2}],\n"
    " \"intra\": {\"bandwidth_bytes_per_s\": 4.5e11, \"latency_s\": 3e-6},\n"
    " \"inter\": {\"bandwidth_bytes_per_s\": 5e10, \"latency_s\": 1e-5, \"shared_per_node\": "
    "true},\n"
    " \"overrides\": [{\"from\": 0, \"to\": 9, \"bandwidth_bytes_per_s\": null, \"latency_s\": "
    "0}]}\n";

/* ---- what is read --------------------------------------------------------------------------- */

Test(cluster, the_example_of_the_format_is_read) {
    pp_cluster *cluster = read_cluster(design_example);
    cr_assert_eq(pp_cluster_device_count(cluster), 16);
    cr_assert_eq(pp_cluster_device(cluster, 15)->memory_bytes, 85899345920);
    cr_assert_eq(pp_cluster_device(cluster, 0)->bf16_flops, 9.89e14);
    cr_assert_eq(pp_cluster_node_of(cluster, 7), 0);
    cr_assert_eq(pp_cluster_node_of(cluster, 8), 1);
    expect_round_trip(cluster);
    pp_cluster_free(cluster);
}

Test(cluster, a_link_is_override_else_intra_else_inter_and_free_to_itself) {
    pp_cluster *cluster = read_cluster(design_example);
    pp_link near = pp_cluster_link(cluster, 1, 7), far = pp_cluster_link(cluster, 7, 8);
    pp_link over = pp_cluster_link(cluster, 0, 9), back = pp_cluster_link(cluster, 9, 0);
    pp_link self = pp_cluster_link(cluster, 3, 3);
    cr_assert(near.bandwidth_bytes_per_s == 4.5e11 && !near.shared_per_node);
    cr_assert(far.bandwidth_bytes_per_s == 5e10 && far.shared_per_node);
    cr_assert(isinf(over.bandwidth_bytes_per_s) && over.latency_s == 0);
    cr_assert_eq(back.bandwidth_bytes_per_s, 5e10);
    cr_assert(isinf(self.bandwidth_bytes_per_s) && self.latency_s == 0);
    pp_cluster_free(cluster);
}

Test(cluster, devices_are_numbered_along_the_list_of_nodes) {
    pp_cluster *cluster = read_cluster(
        "{\"format\":\"ppsim-cluster\",\"version\":1,\"name\":\"mixed\",\"devices\":["
        "{\"name\":\"a\",\"memory_bytes\":1e9},{\"name\":\"b\",\"memory_bytes\":2e9}],\"nodes\":["
        "{\"device\":\"b\",\"count\":3},{\"device\":\"a\",\"count\":2,\"repeat\":2}],"
        "\"intra\":{\"bandwidth_bytes_per_s\":1,\"latency_s\":0},"
        "\"inter\":{\"bandwidth_bytes_per_s\":null,\"latency_s\":1}}");
    static const int nodes[] = {0, 0, 0, 1, 1, 2, 2};
    cr_assert_eq(pp_cluster_device_count(cluster), 7);
    for (int i = 0; i < 7; i++) {
        cr_assert_eq(pp_cluster_node_of(cluster, i), nodes[i]);
        cr_assert_str_eq(pp_cluster_device(cluster, i)->name, i < 3 ? "b" : "a");
    }
    expect_round_trip(cluster);
    pp_cluster_free(cluster);
}

Test(cluster, one_node_needs_no_link_between_nodes) {
    pp_cluster *cluster = read_cluster(
        "{\"format\":\"ppsim-cluster\",\"version\":1,\"name\":\"one\",\"devices\":["
        "{\"name\":\"a\",\"memory_bytes\":1}],\"nodes\":[{\"device\":\"a\",\"count\":3}],"
        "\"intra\":{\"bandwidth_bytes_per_s\":7,\"latency_s\":0.5}}");
    cr_assert_eq(cluster->inter.bandwidth_bytes_per_s, 7);
    expect_round_trip(cluster);
    pp_cluster_free(cluster);
}

Test(cluster, may_name_its_all_reduce) {
    static const char *const kinds[] = {"cheaper", "ring", "tree"};
    for (int i = 0; i < 3; i++) {
        char text[400];
        snprintf(
            text, sizeof text,
            "{\"format\":\"ppsim-cluster\",\"version\":1,\"name\":\"one\",\"all_reduce\":\"%s\","
            "\"devices\":[{\"name\":\"a\",\"memory_bytes\":1}],\"nodes\":[{\"device\":\"a\","
            "\"count\":3}],\"intra\":{\"bandwidth_bytes_per_s\":7,\"latency_s\":0.5}}",
            kinds[i]);
        pp_cluster *cluster = read_cluster(text);
        cr_assert_eq((int)cluster->all_reduce, i);
        expect_round_trip(cluster);
        pp_text again = written(cluster);
        cr_assert_eq(strstr(again.bytes, "all_reduce") != NULL, i > 0, "the default is not said");
        pp_text_deinit(&again);
        pp_cluster_free(cluster);
    }
}

/* ---- presets -------------------------------------------------------------------------------- */

Test(cluster, presets_open_and_round_trip) {
    static const struct {
        const char *name;
        int devices;
        double bf16, intra, inter;
    } table[] = {
        {"dgx-h100:4", 32, 989e12, 450e9, 50e9}, {"dgx-a100:1", 8, 312e12, 300e9, 25e9},
        {"h200:128", 1024, 989e12, 450e9, 50e9}, {"h200:100000", 800000, 989e12, 450e9, 50e9},
        {"dgx-h100", 8, 989e12, 450e9, 50e9},    {"dgx-a100-40gb:2", 16, 312e12, 300e9, 25e9},
        {"dgx-v100:2", 16, 0, 150e9, 50e9},      {"mi300x:2", 16, 1307.4e12, 64e9, 50e9},
        {"l4:2", 16, 121e12, 32e9, 12.5e9},      {"rtx-4090:2", 16, 165.2e12, 32e9, 12.5e9},
    };
    int count;
    const pp_preset *presets = pp_cluster_presets(&count);
    cr_assert_eq(count, 9);
    for (int i = 0; i < count; i++) cr_assert(presets[i].summary && presets[i].source);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        pp_cluster *cluster;
        cr_assert_eq(pp_cluster_open(table[i].name, 0, &cluster, NULL), PP_OK);
        cr_assert_str_eq(cluster->name, table[i].name);
        cr_assert_eq(pp_cluster_device_count(cluster), table[i].devices);
        cr_assert_eq(pp_cluster_device(cluster, 0)->bf16_flops, table[i].bf16);
        cr_assert_eq(pp_cluster_link(cluster, 0, 7).bandwidth_bytes_per_s, table[i].intra);
        if (table[i].devices > 8)
            cr_assert_eq(pp_cluster_link(cluster, 0, 8).bandwidth_bytes_per_s, table[i].inter);
        cr_assert_eq(pp_cluster_node_of(cluster, table[i].devices - 1), table[i].devices / 8 - 1);
        expect_round_trip(cluster);
        pp_cluster_free(cluster);
    }
}

Test(cluster, local_shares_this_machine) {
    pp_cluster *one, *four;
    cr_assert_eq(pp_cluster_open("local", 1, &one, NULL), PP_OK);
    cr_assert_eq(pp_cluster_open("local", 4, &four, NULL), PP_OK);
    cr_assert_eq(pp_cluster_device_count(four), 4);
    cr_assert_eq(four->devices[0].memory_bytes, one->devices[0].memory_bytes / 4);
    cr_assert_gt(four->devices[0].memory_bytes, 1 << 20);
    expect_round_trip(four);
    pp_cluster_free(one);
    pp_cluster_free(four);
    cr_assert_eq(pp_cluster_open("local", 0, &one, NULL), PP_OK);
    cr_assert_geq(pp_cluster_device_count(one), 1);
    pp_cluster_free(one);
}

static char logged[512];

static void keep_log(pp_log_level level, const char *subsystem, const char *message) {
    snprintf(logged, sizeof logged, "%d %s %s", (int)level, subsystem, message);
}

Test(cluster, more_devices_than_cores_is_warned_about) {
    pp_cluster *cluster;
    pp_log_install(keep_log, NULL);
    cr_assert_eq(pp_cluster_open("local", 5000, &cluster, NULL), PP_OK);
    pp_log_install(NULL, NULL);
    cr_assert(strstr(logged, "will not hold"), "%s", logged);
    pp_cluster_free(cluster);
}

Test(cluster, wrong_presets_are_refused) {
    static const struct {
        const char *name, *message;
    } table[] = {
        {"dgx-h100:0", "from 1 to 100000"},
        {"dgx-h100:100001", "from 1 to 100000"},
        {"dgx-h100:", "from 1 to 100000"},
        {"h200:2x", "from 1 to 100000"},
        {"dgx-h300:2", "known: local, dgx-h100:N"},
        {"dgx-h1001", "known: local"},
        {"", "known: local"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        pp_cluster *cluster;
        pp_error error = {0};
        cr_assert_eq(pp_cluster_open(table[i].name, 0, &cluster, &error), PP_E_INPUT);
        cr_assert(strstr(error.message, table[i].message), "%s: %s", table[i].name, error.message);
        cr_assert_null(cluster);
    }
}

/* ---- what is refused ------------------------------------------------------------------------ */

static pp_status try_cluster(const char *text, size_t length, pp_error *error) {
    pp_cluster *cluster;
    pp_status status = pp_cluster_read(text, length, "bad.json", &cluster, error);
    cr_assert(status == PP_OK || !cluster);
    pp_cluster_free(cluster);
    return status;
}

static const malformed refused[] = {
    {NULL, "", ":1:1", "end of file"},
    {NULL, "{\"format\"", ":1:9", "':' expected"},
    {"\"latency_s\": 3e-6", "\"latency_s\": 3e-6, \"latency_s\": 1", ":5:74", "duplicate"},
    {"two-boxes", "two\\u0000boxes", ":1:66", "u0000"},
    {NULL, "7", ":1:1", "'[' or '{' expected"},
    {NULL, "[]", "", "expected an object"},
    {"ppsim-cluster", "ppsim-model", " /format", "expected \"ppsim-cluster\""},
    {"\"version\": 1", "\"version\": \"1\"", " /version", "expected 1"},
    {"\"nodes\"", "\"boxes\"", "", "unknown key \"boxes\"; known here: format, version, name"},
    {"\"two-boxes\"", "null", " /name", "expected a string, got null"},
    {"[{\"name\": \"h100\"", "[3, {\"name\": \"h100\"", " /devices/0", "expected an object"},
    {"{\"name\": \"h100\", ", "{", " /devices/0", "\"name\" is missing; expected a string"},
    {"85899345920", "0", " /devices/0/memory_bytes", "from 1"},
    {"85899345920", "-5", " /devices/0/memory_bytes", "got -5"},
    {"85899345920", "85899345920.5", " /devices/0/memory_bytes", "an integer"},
    {"85899345920", "1e18", " /devices/0/memory_bytes", "an integer"},
    {"85899345920", "\"80GiB\"", " /devices/0/memory_bytes", "got \"80GiB\""},
    {"9.89e14", "-1", " /devices/0/flops/bf16", "from 0"},
    {"\"bf16\"", "\"fp8\"", " /devices/0/flops", "unknown key \"fp8\"; known here: bf16, fp32"},
    {"{\"bf16\": 9.89e14, \"fp32\": 6.7e13}", "9e14", " /devices/0/flops", "expected an object"},
    {"3.35e12", "true", " /devices/0/memory_bandwidth_bytes_per_s", "got true"},
    {"2.5", "[]", " /devices/0/cost_per_hour", "got an array"},
    {"\"cost_per_hour\": 2.5}",
     "\"cost_per_hour\": 2.5}, {\"name\": \"h100\", \"memory_bytes\": 1}", " /devices/1/name",
     "described twice"},
    {"{\"device\": \"h100\"", "{\"device\": \"h200\"", " /nodes/0/device", "known: h100"},
    {"\"count\": 8", "\"count\": 0", " /nodes/0/count", "from 1 to 65535"},
    {"\"count\": 8, ", "", " /nodes/0", "\"count\" is missing"},
    {"\"repeat\": 2", "\"repeat\": 100001", " /nodes/0/repeat", "to 100000"},
    {"\"count\": 8, \"repeat\": 2", "\"count\": 65535, \"repeat\": 100000", " /nodes/0",
     "at most 100000 nodes and 1048576 devices"},
    {"[{\"device\": \"h100\", \"count\": 8, \"repeat\": 2}]", "[]", " /nodes", "1 to 100000"},
    {"[{\"device\": \"h100\", \"count\": 8, \"repeat\": 2}]", "{}", " /nodes", "an array"},
    {"\"latency_s\": 3e-6", "\"latency_s\": -3e-6", " /intra/latency_s", "from 0"},
    {"\"latency_s\": 3e-6", "\"latency_s\": null", " /intra/latency_s", "got null"},
    {"4.5e11", "0", " /intra/bandwidth_bytes_per_s", "above 0"},
    {"\"latency_s\": 3e-6", "\"latency_s\": 3e-6, \"shared_per_node\": true", " /intra",
     "unknown key \"shared_per_node\""},
    {"true", "1", " /inter/shared_per_node", "true or false"},
    {" \"inter\": {\"bandwidth_bytes_per_s\": 5e10, \"latency_s\": 1e-5, \"shared_per_node\": "
     "true},\n",
     "", "", "\"inter\" is missing"},
    {"\"to\": 9", "\"to\": 16", " /overrides/0", "the devices are 0 to 15"},
    {"\"to\": 9", "\"to\": -1", " /overrides/0/to", "from 0"},
    {"\"to\": 9", "\"to\": 0", " /overrides/0", "no link to itself"},
    {"\"overrides\": [",
     "\"overrides\": [{\"from\": 0, \"to\": 9, \"bandwidth_bytes_per_s\": 1, "
     "\"latency_s\": 0}, ",
     " /overrides", "stands twice"},
    {"\"overrides\": [{", "\"overrides\": [4, {", " /overrides/0", "expected an object, got 4"},
};

Test(cluster, malformed_documents_are_refused_with_place_and_reason) {
    expect_refused(refused, sizeof refused / sizeof *refused, design_example, try_cluster);
}

/* ---- round trips and failures --------------------------------------------------------------- */

static pp_link random_link(dice *d) {
    return (pp_link){roll(d, 0, 4) == 0 ? INFINITY : 1e-9 + roll_double(d), roll_double(d), false};
}

static pp_cluster *random_cluster(uint64_t seed) {
    dice d = dice_of(seed, "cluster");
    pp_cluster *cluster = pp_allocate_zeroed(1, sizeof *cluster);
    pp_arena *arena = &cluster->arena;
    cluster->name = pp_arena_printf(arena, "random\\%d/\xe2\x82\xac", (int)seed);
    cluster->device_kind_count = (int)roll(&d, 1, 4);
    cluster->node_kind_count = (int)roll(&d, 1, 5);
    cluster->devices = PP_NEW(arena, pp_device, cluster->device_kind_count);
    cluster->nodes = PP_NEW(arena, pp_node, cluster->node_kind_count);
    for (int i = 0; i < cluster->device_kind_count; i++)
        cluster->devices[i] = (pp_device){.name = pp_arena_printf(arena, "kind%d", i),
                                          .memory_bytes = roll(&d, 1, 1LL << 50),
                                          .bf16_flops = roll(&d, 0, 1) ? roll_double(&d) : 0,
                                          .fp32_flops = roll(&d, 0, 1) ? roll_double(&d) : 0,
                                          .memory_bandwidth_bytes_per_s = roll_double(&d),
                                          .cost_per_hour = roll(&d, 0, 1) ? roll_double(&d) : 0};
    for (int i = 0; i < cluster->node_kind_count; i++)
        cluster->nodes[i] = (pp_node){(int)roll(&d, 0, cluster->device_kind_count - 1),
                                      (int)roll(&d, 1, 9), (int)roll(&d, 1, 9)};
    cluster->intra = random_link(&d);
    cluster->inter = random_link(&d);
    cluster->inter.shared_per_node = roll(&d, 0, 1);
    int devices = pp_cluster_device_count(cluster);
    cluster->overrides = PP_NEW(arena, pp_link_override, devices);
    for (int from = 0; from + 1 < devices; from++)
        if (roll(&d, 0, 2) == 0)
            cluster->overrides[cluster->override_count++] =
                (pp_link_override){from, (int)roll(&d, from + 1, devices - 1), random_link(&d)};
    return cluster;
}

Test(cluster, random_clusters_round_trip) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        cr_log_info("seed %d", (int)seed);
        pp_cluster *cluster = random_cluster(seed);
        expect_round_trip(cluster);
        for (int i = 0; i < cluster->override_count; i++) {
            const pp_link_override *at = &cluster->overrides[i];
            pp_link found = pp_cluster_link(cluster, at->from, at->to);
            expect_same_link(&found, &at->link);
        }
        pp_cluster_free(cluster);
    }
}

static pp_status read_and_copy(void *context, pp_error *error) {
    pp_cluster *cluster, *copy;
    const char *text = context;
    PP_TRY(pp_cluster_read(text, strlen(text), "x.json", &cluster, error));
    pp_status status = pp_cluster_copy(cluster, &copy, error);
    if (status == PP_OK) {
        expect_same_cluster(cluster, copy);
        if (pp_cluster_hash(copy) == 0) status = pp_fail_memory(error);
        pp_cluster_free(copy);
    }
    pp_cluster_free(cluster);
    return status;
}

static pp_status open_preset(void *context, pp_error *error) {
    pp_cluster *cluster;
    PP_TRY(pp_cluster_open(context, 0, &cluster, error));
    if (pp_cluster_hash(cluster) == 0) {
        pp_cluster_free(cluster);
        return pp_fail_memory(error);
    }
    pp_cluster_free(cluster);
    return PP_OK;
}

Test(cluster, any_allocation_may_fail) {
    char preset[] = "h200:2";
    expect_survives_allocation_failures(read_and_copy, (void *)(uintptr_t)design_example);
    expect_survives_allocation_failures(open_preset, preset);
}
