/* Costs: modelled by hand-worked rooflines, opaque as given, measured through the store. */
#include "tests/live_bytes.h"
#include "tests/profiles/store_support.h"

#include <math.h>

COUNTED_SUITE(costs, .timeout = 60);

static const char model_text[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"small\", \"layers\": ["
    "{\"name\": \"first\", \"op\": \"linear\", \"dim\": 100, \"output_dim\": 100},"
    "{\"name\": \"bend\", \"op\": \"relu\", \"dim\": 100},"
    "{\"name\": \"second\", \"op\": \"linear\", \"dim\": 100, \"output_dim\": 100},"
    "{\"name\": \"loss\", \"op\": \"softmax_cross_entropy\", \"dim\": 100}]}";

static const char opaque_text[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"black\", \"layers\": ["
    "{\"name\": \"a\", \"op\": \"opaque\", \"forward_s\": 0.5, \"input_s\": 0.25,"
    " \"weight_s\": 0.125, \"parameter_bytes\": 4096, \"output_bytes\": 64,"
    " \"activation_bytes\": 64},"
    "{\"name\": \"b\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 2, \"weight_s\": 0,"
    " \"parameter_bytes\": 0, \"output_bytes\": 0, \"activation_bytes\": 0}]}";

/* 1e12 FLOP/s and so little bandwidth that either side of the roofline can be reached. */
static const char cluster_text[] =
    "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"one\", \"devices\": ["
    "{\"name\": \"gpu\", \"memory_bytes\": 1073741824, \"flops\": {\"fp32\": 1e12},"
    " \"memory_bandwidth_bytes_per_s\": 1e11}],"
    "\"nodes\": [{\"device\": \"gpu\", \"count\": 2}],"
    "\"intra\": {\"bandwidth_bytes_per_s\": 1e9, \"latency_s\": 1e-5},"
    "\"inter\": {\"bandwidth_bytes_per_s\": 1e8, \"latency_s\": 1e-4, \"shared_per_node\": true}}";

static pp_model *model_must_read(const char *text) {
    pp_model *model;
    pp_error error = {0};
    pp_status status = pp_model_read(text, strlen(text), "model.json", &model, &error);
    cr_assert(status == PP_OK, "%s: %s", error.place, error.message);
    return model;
}

static pp_cluster *cluster_must_read(const char *text) {
    pp_cluster *cluster;
    pp_error error = {0};
    pp_status status = pp_cluster_read(text, strlen(text), "cluster.json", &cluster, &error);
    cr_assert(status == PP_OK, "%s: %s", error.place, error.message);
    return cluster;
}

static pp_costs *costs_must_open(const pp_costs_request *request) {
    pp_costs *costs;
    pp_error error = {0};
    pp_status status = pp_costs_open(request, &costs, &error);
    cr_assert(status == PP_OK, "%s: %s", error.place, error.message);
    return costs;
}

static void expect_near(double actual, double expected, const char *what) {
    cr_assert(fabs(actual - expected) <= 1e-9 * fabs(expected), "%s: %.12g, expected %.12g", what,
              actual, expected);
}

/* ---- modelled ---- */

Test(costs, roofline_by_hand) {
    pp_model *model = model_must_read(model_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    pp_costs *costs =
        costs_must_open(&(pp_costs_request){.model = model, .cluster = cluster, .dtype = PP_FP32});
    cr_assert_eq(pp_costs_source(costs), PP_COST_MODELLED);
    cr_assert_str_eq(pp_costs_note(costs), "modelled from FLOPs and bytes of device 'gpu'");
    cr_assert_eq(pp_costs_overhead(costs), 0);

    /* a linear layer of 100 × 100 does 2·100·100 FLOPs for each of 100,000 rows, at 55 % of 1e12/s:
     * more than its 100,000 rows of 2·100 floats take at 80 % of 1e11 bytes/s */
    const double flops = 2e4 * 1e5 / 0.55e12, start = 5e-6;
    pp_cost cost = pp_costs_layer(costs, 2, PP_PHASE_FORWARD, 100000);
    expect_near(cost.seconds, flops + start, "compute bound");
    cr_assert_eq(cost.source, PP_COST_MODELLED);
    cr_assert_eq(cost.relative_error, 1);

    /* whichever side of the roofline is longer counts, for every phase */
    static const pp_phase phases[] = {PP_PHASE_FORWARD, PP_PHASE_INPUT, PP_PHASE_WEIGHT};
    for (int64_t samples = 1; samples < 100000; samples *= 7)
        for (int p = 0; p < 3; p++) {
            pp_layer_work work = pp_layer_work_get(&model->layers[2], samples, PP_FP32);
            double f[] = {work.forward_flops, work.input_flops, work.weight_flops};
            double b[] = {work.forward_bytes, work.input_bytes, work.weight_bytes};
            expect_near(pp_costs_layer(costs, 2, phases[p], samples).seconds,
                        fmax(f[p] / 0.55e12, b[p] / 0.8e11) + start, "roofline");
        }
    cr_assert_eq(pp_costs_layer(costs, 0, PP_PHASE_INPUT, 8).seconds, 0,
                 "nobody wants the gradient of the data");
    cr_assert_gt(pp_costs_layer(costs, 0, PP_PHASE_WEIGHT, 8).seconds, 0);
    cr_assert_eq(pp_costs_layer(costs, 1, PP_PHASE_WEIGHT, 8).seconds, 0, "relu has no weights");
    cr_assert_eq(pp_costs_layer(costs, 1, PP_PHASE_OPTIMIZER, 8).seconds, 0);
    cr_assert_gt(pp_costs_layer(costs, 2, PP_PHASE_OPTIMIZER, 0).seconds, 0);
    cr_assert_eq(pp_costs_layer(costs, 2, PP_PHASE_FORWARD, 0).seconds, 0);

    pp_cost transfer = pp_costs_transfer(costs, cluster->intra, 1000000);
    expect_near(transfer.seconds, 1e-5 + 1e-3, "latency + bytes / bandwidth");
    pp_cost itself = pp_costs_transfer(costs, pp_cluster_link(cluster, 1, 1), 1000000);
    cr_assert_eq(itself.seconds, 0);
    pp_costs_close(costs);
    pp_model_free(model);
    pp_cluster_free(cluster);
    cr_assert_eq(pp_live_bytes(), 0);
}

Test(costs, double_takes_half_the_rate) {
    pp_model *model = model_must_read(model_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    pp_costs_request request = {.model = model, .cluster = cluster, .dtype = PP_FP32};
    pp_costs *single = costs_must_open(&request);
    request.dtype = PP_FP64;
    pp_costs *twice = costs_must_open(&request);
    expect_near(pp_costs_layer(twice, 2, PP_PHASE_FORWARD, 100000).seconds - 5e-6,
                2 * (pp_costs_layer(single, 2, PP_PHASE_FORWARD, 100000).seconds - 5e-6), "fp64");
    cr_assert_neq(pp_costs_hash(single), pp_costs_hash(twice));
    pp_costs_close(single);
    pp_costs_close(twice);
    pp_model_free(model);
    pp_cluster_free(cluster);
}

Test(costs, a_rate_that_is_not_given_is_named) {
    pp_model *model = model_must_read(model_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    pp_costs *costs;
    pp_error error = {0};
    pp_costs_request request = {.model = model, .cluster = cluster, .dtype = PP_BF16};
    cr_assert_eq(pp_costs_open(&request, &costs, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "'gpu'") && strstr(error.message, "/devices/0/flops/bf16"),
              "%s", error.message);
    cluster->devices[0].memory_bandwidth_bytes_per_s = 0;
    request.dtype = PP_FP32;
    cr_assert_eq(pp_costs_open(&request, &costs, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "memory_bandwidth_bytes_per_s"), "%s", error.message);
    request.dtype = PP_INT32;
    cr_assert_eq(pp_costs_open(&request, &costs, &error), PP_E_INPUT);
    pp_model_free(model);
    pp_cluster_free(cluster);
}

/* Opaque layers need neither rates nor a store. */
Test(costs, opaque_layers_cost_what_they_say) {
    pp_model *model = model_must_read(opaque_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    cluster->devices[0].fp32_flops = 0;
    pp_costs *costs =
        costs_must_open(&(pp_costs_request){.model = model, .cluster = cluster, .dtype = PP_FP32});
    cr_assert_eq(pp_costs_source(costs), PP_COST_OPAQUE);
    pp_cost cost = pp_costs_layer(costs, 0, PP_PHASE_FORWARD, 6);
    cr_assert(cost.seconds == 3 && cost.relative_error == 0 && cost.source == PP_COST_OPAQUE);
    cr_assert_eq(pp_costs_layer(costs, 0, PP_PHASE_INPUT, 6).seconds, 1.5);
    cr_assert_eq(pp_costs_layer(costs, 0, PP_PHASE_WEIGHT, 6).seconds, 0.75);
    cr_assert_eq(pp_costs_layer(costs, 1, PP_PHASE_WEIGHT, 6).seconds, 0);
    cr_assert_eq(pp_costs_layer(costs, 0, PP_PHASE_OPTIMIZER, 6).seconds, 0);
    pp_costs_close(costs);
    pp_model_free(model);
    pp_cluster_free(cluster);
}

/* ---- measured ---- */

/* Seconds of the made-up machine: every signature and phase its own line, slower with neighbours.
 */
static double machine(size_t signature, pp_phase phase, int64_t samples, int neighbours) {
    double base = 1e-5 * (double)(signature + 1) + 1e-6 * (double)phase;
    return (base + 2e-4 * (double)(signature + 1) * (double)samples) * (1 + 0.1 * neighbours);
}

static size_t machine_samples(pp_sample *samples, const pp_model *model, int neighbours,
                              bool with_weights, double scale) {
    size_t count = 0;
    for (int i = 0; i < model->layer_count; i++) {
        char signature[PP_SIGNATURE_LENGTH];
        const pp_layer *layer = &model->layers[i];
        pp_layer_signature(layer, signature);
        bool weights = pp_layer_needs_get(layer->op).has_weights && with_weights;
        for (int phase = 0; phase <= PP_PHASE_OPTIMIZER; phase++) {
            if (phase >= PP_PHASE_WEIGHT && !weights) continue;
            for (int64_t size = 1; size <= 4; size *= 2)
                for (int repeat = -1; repeat <= 1; repeat++) {
                    int64_t x = phase == PP_PHASE_OPTIMIZER ? 1 : size;
                    double seconds =
                        scale * machine((size_t)layer->op, (pp_phase)phase, x, neighbours);
                    samples[count++] = sample_make(signature, (pp_phase)phase, x, neighbours,
                                                   seconds * (1 + 1e-12 * repeat));
                }
        }
    }
    return count;
}

static void add_session(const char *db, const char *backend, pp_dtype dtype,
                        const pp_sample *samples, size_t count) {
    pp_session session = session_make(backend, dtype);
    pp_store *store = store_must_open(db, false);
    cr_assert_eq(pp_store_add(store, &session, samples, count, NULL), PP_OK);
    pp_store_close(store);
}

static void add_machine_session(const char *db, const pp_model *model, pp_dtype dtype,
                                int neighbours, bool with_weights) {
    pp_sample samples[400];
    size_t count = machine_samples(samples, model, neighbours, with_weights, 1);
    for (int64_t bytes = 1024; bytes <= 1 << 20; bytes *= 32)
        samples[count++] =
            sample_make("link", PP_PHASE_TRANSFER, bytes, 0, 3e-6 + (double)bytes / 4e9);
    samples[count++] = sample_make("action", PP_PHASE_OVERHEAD, 0, 0, 7e-7);
    add_session(db, "cpu", dtype, samples, count);
}

/* What was measured of an opaque layer wins over what the model says of it, and says which phases
 * there are; a layer that the store lacks keeps its own times. On another kind: by FLOPs. */
Test(costs, opaque_layers_measured) {
    scratch made = scratch_make();
    pp_model *model = model_must_read(opaque_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    char signature[PP_SIGNATURE_LENGTH];
    pp_sample samples[12];
    size_t count = 0;
    pp_layer_signature(&model->layers[0], signature);
    for (int64_t size = 1; size <= 4; size *= 2)
        for (int phase = 0; phase < 2; phase++)
            samples[count++] = sample_make(signature, (pp_phase)phase, size, 0,
                                           0.5 + 0.25 * (double)size + (double)phase);
    pp_session session = session_make("torch", PP_FP32);
    snprintf(session.device, sizeof session.device, "%s", cluster->devices[0].name);
    pp_store *store = store_must_open(made.db, false);
    cr_assert_eq(pp_store_add(store, &session, samples, count, NULL), PP_OK);
    pp_store_close(store);
    pp_costs *costs = costs_must_open(
        &(pp_costs_request){.model = model, .cluster = cluster, .dtype = PP_FP32, .db = made.db});
    pp_cost cost = pp_costs_layer(costs, 0, PP_PHASE_FORWARD, 6);
    cr_assert_eq(cost.source, PP_COST_MEASURED);
    expect_near(cost.seconds, 0.5 + 0.25 * 6, "forward");
    expect_near(pp_costs_layer(costs, 0, PP_PHASE_INPUT, 3).seconds, 2.25, "input");
    cr_assert_eq(pp_costs_layer(costs, 0, PP_PHASE_WEIGHT, 3).seconds, 0);
    cr_assert_eq(pp_costs_layer(costs, 1, PP_PHASE_FORWARD, 6).source, PP_COST_OPAQUE);
    cr_assert_eq(pp_costs_layer(costs, 1, PP_PHASE_FORWARD, 6).seconds,
                 6 * model->layers[1].forward_s);
    cr_assert_eq(pp_costs_source(costs), PP_COST_OPAQUE, "the weakest counts");
    pp_costs_close(costs);
    pp_model_free(model);
    pp_cluster_free(cluster);
    scratch_remove(&made);
}

Test(costs, measured_times_come_back) {
    scratch made = scratch_make();
    pp_model *model = model_must_read(model_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    for (int neighbours = 0; neighbours <= 4; neighbours += 2)
        add_machine_session(made.db, model, PP_FP32, neighbours, true);
    static const struct {
        int asked, taken;
    } nearest[] = {{0, 0}, {1, 0}, {2, 2}, {3, 2}, {4, 4}, {90, 4}};
    uint64_t hashes[sizeof nearest / sizeof *nearest];
    for (size_t n = 0; n < sizeof nearest / sizeof *nearest; n++) {
        pp_costs *costs = costs_must_open(&(pp_costs_request){.model = model,
                                                              .cluster = cluster,
                                                              .dtype = PP_FP32,
                                                              .db = made.db,
                                                              .neighbours = nearest[n].asked});
        for (int64_t samples = 1; samples <= 9; samples++) {
            pp_cost cost = pp_costs_layer(costs, 2, PP_PHASE_INPUT, samples);
            double expected = machine(PP_OP_LINEAR, PP_PHASE_INPUT, samples, nearest[n].taken);
            expect_near(cost.seconds, expected, "input");
            cr_assert_eq(cost.source, PP_COST_MEASURED);
            cr_assert_lt(cost.relative_error, 1e-6);
        }
        double step = machine(PP_OP_LINEAR, PP_PHASE_OPTIMIZER, 1, nearest[n].taken);
        expect_near(pp_costs_layer(costs, 0, PP_PHASE_OPTIMIZER, 1).seconds, step, "step");
        expect_near(pp_costs_layer(costs, 0, PP_PHASE_OPTIMIZER, 64).seconds, step, "step");
        cr_assert_eq(pp_costs_layer(costs, 0, PP_PHASE_INPUT, 4).seconds, 0);
        cr_assert_eq(pp_costs_layer(costs, 1, PP_PHASE_WEIGHT, 4).seconds, 0);
        cr_assert_eq(pp_costs_source(costs), PP_COST_MEASURED);
        expect_near(pp_costs_transfer(costs, cluster->intra, 50000).seconds, 3e-6 + 50000 / 4e9,
                    "measured link");
        expect_near(pp_costs_transfer(costs, cluster->inter, 50000).seconds, 1e-4 + 50000 / 1e8,
                    "between nodes");
        expect_near(pp_costs_overhead(costs), 7e-7, "overhead");
        cr_assert(strstr(pp_costs_note(costs), "Test CPU 9000, 2026-11-21, "), "%s",
                  pp_costs_note(costs));
        hashes[n] = pp_costs_hash(costs);
        pp_costs_close(costs);
    }
    cr_assert(hashes[0] == hashes[1] && hashes[1] != hashes[2] && hashes[4] == hashes[5]);
    pp_model_free(model);
    pp_cluster_free(cluster);
    scratch_remove(&made);
    cr_assert_eq(pp_live_bytes(), 0);
}

/* A device that was measured whole, and in quarters, alone and beside the other three. */
Test(costs, neighbours_that_rest) {
    scratch made = scratch_make();
    pp_model *model = model_must_read(model_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    static pp_sample samples[800];
    size_t count = machine_samples(samples, model, 0, true, 1);
    add_session(made.db, "cuda", PP_FP32, samples, count);
    count = machine_samples(samples, model, 0, true, 4);
    count += machine_samples(samples + count, model, 3, true, 4);
    add_session(made.db, "cuda", PP_FP32, samples, count);
    static const struct {
        int neighbours;
        double idle, whole, alone, beside;
    } cases[] = {{0, 0, 1, 0, 0},   {0, 0.5, 1, 0, 0},  {3, 0, 0, 0, 4}, {2, 0, 0, 0, 4},
                 {3, 0.5, 0, 2, 2}, {7, 0.25, 0, 1, 3}, {3, 1, 0, 4, 0}};
    uint64_t hashes[sizeof cases / sizeof *cases];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_costs *costs = costs_must_open(&(pp_costs_request){.model = model,
                                                              .cluster = cluster,
                                                              .dtype = PP_FP32,
                                                              .db = made.db,
                                                              .neighbours = cases[i].neighbours,
                                                              .idle_share = cases[i].idle});
        for (int64_t size = 1; size <= 6; size++) {
            double alone = machine(PP_OP_LINEAR, PP_PHASE_INPUT, size, 0);
            double beside = machine(PP_OP_LINEAR, PP_PHASE_INPUT, size, 3);
            expect_near(pp_costs_layer(costs, 2, PP_PHASE_INPUT, size).seconds,
                        (cases[i].whole + cases[i].alone) * alone + cases[i].beside * beside,
                        "input");
        }
        cr_expect_eq(pp_costs_contended(costs), cases[i].neighbours > 0);
        bool told = strstr(pp_costs_note(costs), "idle for");
        cr_expect_eq(told, cases[i].neighbours > 0 && cases[i].idle > 0, "%s",
                     pp_costs_note(costs));
        hashes[i] = pp_costs_hash(costs);
        pp_costs_close(costs);
    }
    cr_expect(hashes[0] == hashes[1] && hashes[2] == hashes[3] && hashes[2] != hashes[4] &&
              hashes[4] != hashes[6]);
    pp_model_free(model);
    pp_cluster_free(cluster);
    scratch_remove(&made);
}

static void expect_refused(const pp_costs_request *request, const char *part, const char *cure) {
    pp_costs *costs;
    pp_error error = {0};
    cr_assert_eq(pp_costs_open(request, &costs, &error), PP_E_INPUT);
    cr_assert(costs == NULL && strstr(error.message, part) && strstr(error.message, cure), "%s",
              error.message);
}

static char warning[512];

static void note_warning(pp_log_level level, const char *subsystem, const char *message) {
    (void)subsystem;
    if (level == PP_LOG_WARNING) snprintf(warning, sizeof warning, "%s", message);
}

/* The session was on "Test CPU 9000" by the backend "cpu". */
Test(costs, times_of_other_devices_are_warned_of) {
    static const struct {
        const char *kind;
        bool warned;
    } cases[] = {{"cpu", false},
                 {"test cpu 9000", false},
                 {"9000-series", false},
                 {"h100-sxm-80gb", true},
                 {"gpu", true}};
    scratch made = scratch_make();
    pp_model *model = model_must_read(model_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    const char *name = cluster->devices[0].name;
    add_machine_session(made.db, model, PP_FP32, 0, true);
    pp_log_install(note_warning, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        warning[0] = '\0';
        cluster->devices[0].name = cases[i].kind;
        pp_costs_close(costs_must_open(&(pp_costs_request){
            .model = model, .cluster = cluster, .dtype = PP_FP32, .db = made.db}));
        cr_expect_eq(warning[0] != '\0', cases[i].warned, "%s: %s", cases[i].kind, warning);
        if (cases[i].warned) cr_expect_not_null(strstr(warning, cases[i].kind), "%s", warning);
    }
    pp_log_install(NULL, NULL);
    cluster->devices[0].name = name;
    pp_cluster_free(cluster);
    pp_model_free(model);
    scratch_remove(&made);
}

static const char two_kinds[] =
    "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"mixed\", \"devices\": ["
    "{\"name\": \"fast\", \"memory_bytes\": 1000000000, \"flops\": {\"fp32\": 4e12}, "
    "\"memory_bandwidth_bytes_per_s\": 4e11}, "
    "{\"name\": \"test-cpu\", \"memory_bytes\": 1000000000, \"flops\": {\"fp32\": 1e12}, "
    "\"memory_bandwidth_bytes_per_s\": 1e11}, "
    "{\"name\": \"nobody's\", \"memory_bytes\": 1000000000}], "
    "\"nodes\": [{\"device\": \"fast\", \"count\": 1}, {\"device\": \"test-cpu\", \"count\": 1}], "
    "\"intra\": {\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}, "
    "\"inter\": {\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}}";

/* What was measured on one kind is scaled to the other by the model; a large product takes a
 * quarter of the time on four times the rate. */
Test(costs, other_kinds_are_scaled_and_say_so) {
    scratch made = scratch_make();
    pp_model *model = model_must_read(model_text), *opaque = model_must_read(opaque_text);
    pp_cluster *cluster = cluster_must_read(two_kinds);
    add_machine_session(made.db, model, PP_FP32, 0, true);
    pp_costs_request request = {.model = model, .cluster = cluster, .dtype = PP_FP32};
    pp_costs *modelled = costs_must_open(&request);
    request.db = made.db;
    pp_costs *measured = costs_must_open(&request);
    pp_cost_query query = {.kind = 0, .layer = 2, .phase = PP_PHASE_FORWARD, .samples = 100000};
    pp_cost fast = pp_costs_ask(measured, query), fast_model = pp_costs_ask(modelled, query);
    query.kind = 1;
    pp_cost slow = pp_costs_ask(measured, query), slow_model = pp_costs_ask(modelled, query);
    cr_assert(slow.source == PP_COST_MEASURED && fast.source == PP_COST_MODELLED);
    expect_near(fast.seconds / slow.seconds, fast_model.seconds / slow_model.seconds, "ratio");
    expect_near(slow_model.seconds - 5e-6, 4 * (fast_model.seconds - 5e-6), "rates");
    cr_assert_eq(pp_costs_source_of(measured, 1), PP_COST_MEASURED);
    cr_assert_eq(pp_costs_source(measured), PP_COST_MODELLED);
    cr_assert(strstr(pp_costs_note(measured), "scaled by the model to 'fast'"), "%s",
              pp_costs_note(measured));
    pp_costs_close(modelled);
    pp_costs_close(measured);

    request = (pp_costs_request){.model = opaque, .cluster = cluster, .dtype = PP_FP32};
    pp_costs *given = costs_must_open(&request);
    query.layer = 0;
    cr_assert_eq(pp_costs_ask(given, query).seconds, 4 * 50000.0, "0.5 s on device 0's kind");
    pp_costs_close(given);
    cluster->devices[1].fp32_flops = 0;
    given = costs_must_open(&request);
    cr_assert_eq(pp_costs_ask(given, query).seconds, 50000.0, "no rate: as it is");
    cr_assert_null(strstr(pp_costs_note(given), "scaled"));
    pp_costs_close(given);
    request.model = model;
    expect_refused(&request, "'test-cpu'", "/devices/1/flops/fp32");
    pp_cluster_free(cluster);
    pp_model_free(opaque);
    pp_model_free(model);
    scratch_remove(&made);
}

Test(costs, what_was_never_measured_is_named) {
    scratch made = scratch_make();
    pp_model *model = model_must_read(model_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    pp_costs_request request = {
        .model = model, .cluster = cluster, .dtype = PP_FP32, .db = made.db};
    expect_refused(&request, "no profile store here", "ppsim profile");

    add_machine_session(made.db, model, PP_FP32, 0, false);
    expect_refused(&request, "'first'", "ppsim profile small --db");
    expect_refused(&request, "phase weight", "--dtype fp32");
    add_machine_session(made.db, model, PP_FP32, 0, true);
    model->layers[2].dim = model->layers[2].output_dim = 101;
    expect_refused(&request, "layer 2 'second' (linear", "ppsim profile small --db");
    model->layers[2].dim = model->layers[2].output_dim = 100;

    request.dtype = PP_BF16;
    expect_refused(&request, "nothing was measured in bf16", "--dtype bf16");
    request.dtype = PP_FP32;
    request.backend = "cuda";
    expect_refused(&request, "on cuda", "ppsim profile");
    request.backend = "cpu";
    pp_costs_close(costs_must_open(&request));

    sql_behind(made.db, "UPDATE sample SET duration_s = 2 * duration_s WHERE id = 30");
    expect_refused(&request, "row 30", "--delete");
    pp_model_free(model);
    pp_cluster_free(cluster);
    scratch_remove(&made);
    cr_assert_eq(pp_live_bytes(), 0);
}

/* Any allocation fails, once: no crash, no leak. */
static long allocations_left;

static void *failing_allocate(size_t size_bytes) {
    if (allocations_left >= 0 && allocations_left-- == 0) return NULL;
    return malloc(size_bytes);
}

Test(costs, any_allocation_may_fail) {
    scratch made = scratch_make();
    pp_model *model = model_must_read(model_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    add_machine_session(made.db, model, PP_FP32, 0, true);
    pp_costs_request request = {
        .model = model, .cluster = cluster, .dtype = PP_FP32, .db = made.db};
    int64_t live = pp_live_bytes();
    pp_platform failing = *pp_platform_get();
    failing.allocate = failing_allocate;
    bool survived = false;
    for (long n = 0; n < 20000 && !survived; n++) {
        pp_costs *costs;
        allocations_left = n;
        pp_platform_set(&failing);
        pp_status status = pp_costs_open(&request, &costs, NULL);
        survived = allocations_left >= 0;
        pp_costs_close(costs);
        pp_platform_set(NULL);
        cr_assert(status == PP_OK || status == PP_E_OUT_OF_MEMORY, "allocation %ld: %d", n,
                  (int)status);
        cr_assert_eq(pp_live_bytes(), live, "allocation %ld leaks", n);
    }
    cr_assert(survived);
    pp_model_free(model);
    pp_cluster_free(cluster);
    scratch_remove(&made);
}

/* ---- rates fitted to what was measured ---- */

/* A machine that reaches these rates: not what analytic.c assumes of cluster_text's device. */
static const double flops_per_s = 3e11, bytes_per_s = 5e10, start_s = 2e-6;

static double roofline(double flops, double bytes) {
    return flops <= 0 && bytes <= 0 ? 0 : fmax(flops / flops_per_s, bytes / bytes_per_s) + start_s;
}

static double roofline_of(const pp_layer *layer, pp_phase phase, int64_t samples) {
    pp_layer_work work = pp_layer_work_get(layer, samples, PP_FP32);
    const double seconds[] = {
        [PP_PHASE_FORWARD] = roofline(work.forward_flops, work.forward_bytes),
        [PP_PHASE_INPUT] = roofline(work.input_flops, work.input_bytes),
        [PP_PHASE_WEIGHT] = roofline(work.weight_flops, work.weight_bytes),
        [PP_PHASE_OPTIMIZER] = roofline(0, work.optimizer_bytes),
    };
    return seconds[phase];
}

/* Linear layers of four sizes, a ReLU and a loss, for microbatches of 1 to 1024. */
static void add_roofline_session(const char *db) {
    static const pp_layer layers[] = {
        {.name = "a", .op = PP_OP_LINEAR, .dim = 32, .sequence = 1},
        {.name = "b", .op = PP_OP_LINEAR, .dim = 200, .output_dim = 50, .sequence = 1},
        {.name = "c", .op = PP_OP_LINEAR, .dim = 1000, .sequence = 1},
        {.name = "d", .op = PP_OP_RELU, .dim = 100, .sequence = 1},
        {.name = "e", .op = PP_OP_CROSS_ENTROPY, .dim = 100, .sequence = 1},
    };
    static pp_sample samples[2000];
    size_t count = 0;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        for (int phase = 0; phase <= PP_PHASE_OPTIMIZER; phase++)
            for (int64_t size = 1; size <= 1024; size *= 4) {
                char signature[PP_SIGNATURE_LENGTH];
                double seconds = roofline_of(&layers[i], (pp_phase)phase, size);
                if (seconds == 0 || (phase == PP_PHASE_OPTIMIZER && size > 1)) continue;
                pp_layer_signature(&layers[i], signature);
                for (int repeat = 0; repeat < 3; repeat++)
                    samples[count++] = sample_make(signature, (pp_phase)phase, size, 0, seconds);
            }
    pp_session session = session_make("cpu", PP_FP32);
    pp_store *store = store_must_open(db, false);
    cr_assert_eq(pp_store_add(store, &session, samples, count, NULL), PP_OK);
    pp_store_close(store);
}

/* The store has the ReLU and the loss of this model, but none of its linear layers. */
Test(costs, layers_that_the_store_lacks_are_modelled_where_asked) {
    scratch made = scratch_make();
    pp_model *model = model_must_read(model_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    add_roofline_session(made.db);
    pp_costs_request request = {
        .model = model, .cluster = cluster, .dtype = PP_FP32, .db = made.db};
    expect_refused(&request, "'first'", "--model-missing");

    request.model_missing = true;
    pp_costs *costs = costs_must_open(&request);
    for (int64_t samples = 1; samples <= 10000; samples *= 10) {
        pp_cost cost = pp_costs_layer(costs, 2, PP_PHASE_FORWARD, samples);
        double expected = roofline_of(&model->layers[2], PP_PHASE_FORWARD, samples);
        cr_assert(fabs(cost.seconds / expected - 1) < 0.03, "%g, expected %g", cost.seconds,
                  expected);
        cr_assert(cost.source == PP_COST_MODELLED && cost.relative_error < 0.03);
    }
    cr_assert_eq(pp_costs_layer(costs, 1, PP_PHASE_FORWARD, 16).source, PP_COST_MEASURED);
    cr_assert_eq(pp_costs_source(costs), PP_COST_MODELLED);
    cr_assert(strstr(pp_costs_note(costs), "2 of 4 layers modelled"), "%s", pp_costs_note(costs));
    const pp_costs_model *told = pp_costs_model_of(costs);
    cr_assert(told->measured_layers == 2 && told->modelled_layers == 2 && told->fitted);
    cr_assert_eq(told->point_count, 4 * 6, "F and I of both, at six sizes");
    cr_assert(told->median_error < 0.03 && told->worst_error < 0.1);
    cr_assert(fabs(told->flops_per_s / flops_per_s - 1) < 0.05, "%g", told->flops_per_s);
    pp_costs_close(costs);

    cluster->devices[0].fp32_flops = 0;
    expect_refused(&request, "'gpu'", "/devices/0/flops/fp32");
    pp_model_free(model);
    pp_cluster_free(cluster);
    scratch_remove(&made);
    cr_assert_eq(pp_live_bytes(), 0);
}

/* ---- parts of layers ---- */

static pp_cost ask_part(const pp_costs *costs, int tp) {
    return pp_costs_ask(
        costs, (pp_cost_query){.layer = 0, .phase = PP_PHASE_FORWARD, .samples = 100000, .tp = tp});
}

/* One of five devices does a fifth of 2·100·100 FLOPs a row, but reads all of the row: 100 + 20
 * floats at 80 % of 1e11 bytes/s are less than its FLOPs at 55 % of 1e12. */
Test(costs, parts_are_modelled) {
    pp_model *model = model_must_read(model_text);
    pp_cluster *cluster = cluster_must_read(cluster_text);
    pp_costs *costs =
        costs_must_open(&(pp_costs_request){.model = model, .cluster = cluster, .dtype = PP_FP32});
    pp_layer part;
    cr_assert_eq(pp_layer_shard(&model->layers[0], 5, &part, NULL), PP_OK);
    pp_layer_work work = pp_layer_work_get(&part, 100000, PP_FP32);
    double seconds = fmax(work.forward_flops / 0.55e12, work.forward_bytes / 0.8e11) + 5e-6;
    expect_near(work.forward_flops, 2e9 / 5, "a fifth");
    expect_near(ask_part(costs, 5).seconds, seconds, "part");
    cr_assert_eq(ask_part(costs, 5).source, PP_COST_MODELLED);
    expect_near(ask_part(costs, 0).seconds, ask_part(costs, 1).seconds, "none is one");
    pp_costs_close(costs);
    pp_model_free(model);
    pp_cluster_free(cluster);
}

/* Measured parts come back as they were measured; others are whole layers scaled by the model, or
 * by their FLOPs where the device gives no rates. */
Test(costs, parts_are_measured_or_scaled) {
    scratch made = scratch_make();
    pp_model *model = model_must_read(model_text), halves = *model;
    pp_cluster *cluster = cluster_must_read(cluster_text);
    pp_layer parts[4];
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pp_layer_shard(&model->layers[i], 2, &parts[i], NULL), PP_OK);
    halves.layers = parts;
    add_machine_session(made.db, model, PP_FP32, 0, true);
    add_machine_session(made.db, &halves, PP_FP32, 0, true);
    pp_costs_request request = {
        .model = model, .cluster = cluster, .dtype = PP_FP32, .db = made.db};
    pp_costs *costs = costs_must_open(&request), *modelled;
    double measured = machine(PP_OP_LINEAR, PP_PHASE_FORWARD, 100000, 0);
    expect_near(ask_part(costs, 1).seconds, measured, "whole");
    expect_near(ask_part(costs, 2).seconds, measured, "half, as slow as the whole was measured");
    cr_assert_eq(ask_part(costs, 2).source, PP_COST_MEASURED);
    cr_assert_eq(ask_part(costs, 5).source, PP_COST_MODELLED);
    request.db = NULL;
    modelled = costs_must_open(&request);
    double ratio = ask_part(modelled, 5).seconds / ask_part(modelled, 1).seconds;
    expect_near(ask_part(costs, 5).seconds, ratio * measured, "a fifth, scaled");
    pp_costs_close(modelled);
    pp_costs_close(costs);
    cluster->devices[0].fp32_flops = 0;
    request.db = made.db;
    costs = costs_must_open(&request);
    expect_near(ask_part(costs, 5).seconds, measured / 5, "a fifth of the FLOPs");
    pp_costs_close(costs);
    pp_model_free(model);
    pp_cluster_free(cluster);
    scratch_remove(&made);
}

/* A block that is bound by arithmetic: every slice starts anew, the last attends to most. W and the
 * head do not attend. */
Test(costs, slices_cost_what_the_whole_does_and_more_starts) {
    pp_model *model;
    pp_cluster *cluster;
    cr_assert_eq(pp_model_open("gpt3-175b", &model, NULL), PP_OK);
    cr_assert_eq(pp_cluster_open("dgx-a100:1", 0, &cluster, NULL), PP_OK);
    pp_costs *costs =
        costs_must_open(&(pp_costs_request){.model = model, .cluster = cluster, .dtype = PP_BF16});
    enum { SAMPLES = 4, SLICES = 4 };
    pp_layer_work whole = pp_layer_work_get(&model->layers[1], SAMPLES, PP_BF16);
    double tilt_s;
    pp_cost_query query = {.layer = 1, .phase = PP_PHASE_FORWARD, .samples = SAMPLES};
    double whole_s = pp_costs_ask(costs, query).seconds;
    pp_cost cost = pp_costs_slices(costs, query, SLICES, &tilt_s);
    double launch_s = 5e-6, rate = whole.forward_flops / (whole_s - launch_s);
    expect_near(cost.seconds, whole_s + (SLICES - 1) * launch_s, "all slices");
    expect_near(tilt_s, 2 * whole.attention_flops * 6 / 16 / rate, "last less first");
    cr_expect_eq(cost.source, PP_COST_MODELLED);
    query.phase = PP_PHASE_INPUT;
    pp_costs_slices(costs, query, SLICES, &tilt_s);
    expect_near(tilt_s, 4 * whole.attention_flops * 6 / 16 / rate, "of I");
    query.phase = PP_PHASE_WEIGHT;
    pp_costs_slices(costs, query, SLICES, &tilt_s);
    cr_expect_eq(tilt_s, 0);
    query = (pp_cost_query){
        .layer = model->layer_count - 1, .phase = PP_PHASE_FORWARD, .samples = SAMPLES};
    cr_expect_gt(pp_costs_slices(costs, query, SLICES, &tilt_s).seconds,
                 pp_costs_ask(costs, query).seconds);
    cr_expect_eq(tilt_s, 0);
    cr_expect_eq(pp_costs_slices(costs, query, 1, &tilt_s).seconds,
                 pp_costs_ask(costs, query).seconds);
    pp_costs_close(costs);
    pp_cluster_free(cluster);
    pp_model_free(model);
}
