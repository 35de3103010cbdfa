/* Measuring: what `ppsim profile` does to a model. One bench per distinct layer and size, its
 * phases in turn so that slow drifts of the machine spread over all of them, alone and beside busy
 * neighbours.
 *
 * Neighbours are other threads with benches of the model's typical layer at the same size, which go
 * round F, I, W without pause: cores share memory bandwidth, caches and clock, and a rank of a
 * pipeline is rarely alone. They are not kept in step with what is measured, since neither are the
 * ranks of a pipeline, and like these they wait for their device again and again: threads that only
 * ask for more fill its queues and keep all others from asking. */
#include "executor/gate_internal.h"
#include "executor/measure_internal.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PHASES (PP_PHASE_OPTIMIZER + 1)
#define BUDGET_S 12.0 /* for all layers, where the machine is not quiet */
#define CALLS_IN_A_ROW 2 /* of neighbours: a stage has some layers */

/* ---- which layers ---- */

static bool is_alike(const pp_model *model, int a, int b) {
    char one[PP_SIGNATURE_LENGTH], other[PP_SIGNATURE_LENGTH];
    return strcmp(pp_layer_signature(&model->layers[a], one),
                  pp_layer_signature(&model->layers[b], other)) == 0;
}

/* Opaque layers have no arithmetic, and equal signatures are measured once. */
static bool is_measured(const pp_model *model, int index) {
    if (model->layers[index].op == PP_OP_OPAQUE) return false;
    for (int i = 0; i < index; i++)
        if (is_alike(model, i, index)) return false;
    return true;
}

/* The layer of which the model has most, by FLOPs: what some other rank is most likely at. */
static int typical_layer(const pp_model *model) {
    int typical = 0;
    double most = -1;
    for (int i = 0; i < model->layer_count; i++) {
        if (!is_measured(model, i)) continue;
        double flops = 0, each = pp_layer_work_get(&model->layers[i], 1, PP_FP32).forward_flops;
        for (int k = i; k < model->layer_count; k++) flops += is_alike(model, i, k) ? each : 0;
        if (flops <= most) continue;
        most = flops;
        typical = i;
    }
    return typical;
}

/* ---- neighbours ---- */

typedef struct crowd crowd;

/* A thread of its own all the way: a backend belongs to the thread that opens it. */
typedef struct neighbour {
    pthread_t thread;
    bool started;
    int number; /* from 1; 0 is what is measured */
    crowd *around;
    pp_status status;
    pp_error error;
} neighbour;

struct crowd {
    pp_bench_request request;
    neighbour *members; /* [count] */
    int count;
    pp_gate ready; /* all members and who measures: their benches are made, or have failed */
    bool gate_open;
    atomic_bool stop;
};

static void go_round(const crowd *around, pp_bench *bench) {
    for (int phase = PP_PHASE_FORWARD; !atomic_load(&around->stop); phase = (phase + 1) % 3) {
        if (!pp_bench_has(bench, (pp_phase)phase)) continue;
        for (int i = 0; i < CALLS_IN_A_ROW; i++) pp_bench_run(bench, (pp_phase)phase);
        pp_bench_wait(bench);
    }
}

static void *be_busy(void *argument) {
    neighbour *self = argument;
    crowd *around = self->around;
    pp_bench_request request = around->request;
    pp_backend_seat seat = request.seat;
    pp_bench *bench = NULL;
    double now_s = pp_now_s();
    seat.slice = self->number;
    self->status = request.backend->open(&seat, &request.state, &self->error);
    bool opened = self->status == PP_OK;
    if (opened) self->status = pp_bench_make(&request, &bench, &self->error);
    pp_gate_wait(&around->ready, NULL, &now_s);
    if (bench) go_round(around, bench);
    pp_bench_free(bench);
    if (opened) request.backend->close(request.state);
    return NULL;
}

static void crowd_stop(crowd *around) {
    atomic_store(&around->stop, true);
    if (around->gate_open) pp_gate_abort(&around->ready);
    for (int i = 0; i < around->count; i++)
        if (around->members[i].started) pthread_join(around->members[i].thread, NULL);
    if (around->gate_open) pp_gate_deinit(&around->ready);
    pp_free(around->members);
}

/* Starts `count` busy threads; crowd_stop ends them, also after a failure here. */
static pp_status crowd_start(crowd *around, const pp_bench_request *request, int count,
                             pp_error *error) {
    double now_s = pp_now_s();
    atomic_init(&around->stop, false);
    if (count == 0) return PP_OK;
    around->request = *request;
    around->request.layer = typical_layer(request->model);
    around->members = pp_allocate_zeroed((size_t)count, sizeof *around->members);
    if (!around->members) return pp_fail_memory(error);
    pp_gate_init(&around->ready, count + 1);
    around->gate_open = true;
    for (around->count = 0; around->count < count; around->count++) {
        neighbour *member = &around->members[around->count];
        member->number = around->count + 1;
        member->around = around;
        member->started = pthread_create(&member->thread, NULL, be_busy, member) == 0;
        if (!member->started)
            return pp_fail(error, PP_E_FAILED, NULL, "cannot start %d busy neighbours", count);
    }
    PP_TRY(pp_gate_wait(&around->ready, NULL, &now_s));
    for (int i = 0; i < count; i++) {
        if (around->members[i].status == PP_OK) continue;
        if (error) *error = around->members[i].error;
        return around->members[i].status;
    }
    return PP_OK;
}

/* ---- one layer at one size ---- */

/* Until the last of them has ended. */
static double timed_calls(pp_bench *bench, pp_phase phase, int count) {
    double start = pp_now_s();
    for (int i = 0; i < count; i++) pp_bench_run(bench, phase);
    pp_bench_wait(bench);
    return pp_now_s() - start;
}

/* Roughly: the least of three, since what disturbs a call only makes it longer. */
static double call_seconds(pp_bench *bench, pp_phase phase) {
    double least_s = INFINITY;
    for (int i = 0; i < 3; i++) least_s = fmin(least_s, timed_calls(bench, phase, 3) / 3);
    return least_s;
}

/* A round is one sample of each phase that is not done yet, in the order of a pipeline. */
static pp_status measure_rounds(pp_bench *bench, const pp_measure_options *options, double share_s,
                                pp_series *series, pp_error *error) {
    bool working = true;
    double sample_s = pp_bench_on_device(bench) ? PP_DEVICE_SAMPLE_S : PP_SAMPLE_S;
    for (int phase = 0; phase < PHASES; phase++) {
        bool used = pp_bench_has(bench, (pp_phase)phase);
        double call_s = used ? call_seconds(bench, (pp_phase)phase) : 1;
        pp_series_start(&series[phase], options, share_s, call_s, sample_s);
        series[phase].done = !used;
    }
    while (working) {
        working = false;
        for (int phase = 0; phase < PHASES; phase++) {
            if (series[phase].done) continue;
            if (pp_stop_signal()) return pp_measure_interrupted(error);
            double elapsed = timed_calls(bench, (pp_phase)phase, series[phase].repeat);
            pp_series_add(&series[phase], elapsed);
            working = true;
        }
        PP_TRY(pp_bench_status(bench, error));
    }
    return PP_OK;
}

static void report_rounds(const pp_bench_request *request, const pp_measure_options *options,
                          const pp_series *series, int neighbours) {
    const pp_layer *layer = &request->model->layers[request->layer];
    pp_sample sample = {.microbatch = request->samples, .neighbours = neighbours};
    pp_layer_signature(layer, sample.signature);
    for (int phase = 0; phase < PHASES; phase++) {
        char what[160];
        sample.phase = (pp_phase)phase;
        snprintf(what, sizeof what, "%.80s %s, microbatch %lld", layer->name,
                 pp_phase_name(sample.phase), (long long)request->samples);
        pp_series_report(&series[phase], options, &sample, what);
    }
}

static pp_status measure_layer(const pp_bench_request *request, const pp_measure_options *options,
                               int neighbours, double share_s, pp_error *error) {
    pp_bench *bench = NULL;
    crowd around = {0};
    pp_series *series = pp_allocate_zeroed(PHASES, sizeof *series);
    pp_status status = series ? PP_OK : pp_fail_memory(error);
    if (status == PP_OK) status = pp_bench_make(request, &bench, error);
    if (status == PP_OK) status = crowd_start(&around, request, neighbours, error);
    if (status == PP_OK) status = measure_rounds(bench, options, share_s, series, error);
    crowd_stop(&around);
    if (status == PP_OK) report_rounds(request, options, series, neighbours);
    pp_bench_free(bench);
    pp_free(series);
    return status;
}

/* ---- all layers ---- */

static pp_status measure_all(const pp_measure_options *options, const pp_backend *backend,
                             const pp_backend_seat *seat, void *state, pp_error *error) {
    const pp_model *model = options->model;
    int crowds = options->neighbours > 0 ? 2 : 1, total = 0, done = 0;
    for (int i = 0; i < model->layer_count; i++) total += is_measured(model, i);
    total *= crowds * options->microbatch_count;
    for (int i = 0; i < model->layer_count; i++) {
        if (!is_measured(model, i)) continue;
        for (int job = 0; job < crowds * options->microbatch_count; job++, done++) {
            int neighbours = job % crowds ? options->neighbours : 0;
            pp_bench_request request = {.model = model,
                                        .layer = i,
                                        .samples = options->microbatches[job / crowds],
                                        .dtype = options->dtype,
                                        .backend = backend,
                                        .seat = *seat,
                                        .state = state,
                                        .copies = 1 + neighbours};
            char what[160];
            snprintf(what, sizeof what, "%.80s, microbatch %lld%s", model->layers[i].name,
                     (long long)request.samples, neighbours ? ", with neighbours" : "");
            if (options->on_progress)
                options->on_progress(options->context, (double)done / total, what);
            PP_TRY(measure_layer(&request, options, neighbours, BUDGET_S / PHASES / total, error));
        }
    }
    return PP_OK;
}

static pp_status measure_layers(const pp_measure_options *options, const pp_backend *backend,
                                const pp_backend_seat *seat, void *state, pp_error *error) {
    pp_canary canary;
    PP_TRY(pp_canary_start(&canary, backend, seat, state, options->dtype, error));
    pp_status status = measure_all(options, backend, seat, state, error);
    if (status == PP_OK) pp_canary_report(&canary, options);
    pp_canary_stop(&canary);
    return status;
}

/* ---- what can be measured ---- */

/* And what the measured layer has of its device, which its neighbours share. */
static pp_status find_backend(const pp_measure_options *options, const pp_backend **backend,
                              pp_backend_seat *seat, pp_error *error) {
    char name[32];
    int ranks = 1 + options->neighbours;
    *seat = (pp_backend_seat){.slices = ranks > 1 ? ranks : 0};
    PP_TRY(pp_device_parse(options->device, name, &seat->device, error));
    PP_TRY(pp_backend_find(name, "--device", backend, error));
    if ((*backend)->runs_layers) return PP_OK;
    return pp_fail(error, PP_E_UNSUPPORTED, "--device",
                   "the %s backend runs no layers, so there is nothing to time", name);
}

static pp_status check_layers(const pp_measure_options *options, const pp_backend *backend,
                              pp_error *error) {
    const pp_model *model = options->model;
    int measured = 0;
    if (!backend->layer(PP_OP_LINEAR, options->dtype))
        return pp_fail(error, PP_E_UNSUPPORTED, "--dtype",
                       "the %s backend does not compute in %s; use --dtype fp32", backend->name,
                       pp_dtype_name(options->dtype));
    for (int i = 0; i < model->layer_count; i++) {
        const pp_layer *layer = &model->layers[i];
        if (layer->op == PP_OP_OPAQUE) continue;
        if (!backend->layer(layer->op, options->dtype))
            return pp_fail(error, PP_E_UNSUPPORTED, NULL,
                           "layer '%s': the %s backend has no op '%s'", layer->name, backend->name,
                           pp_op_name(layer->op));
        measured++;
    }
    if (measured > 0) return PP_OK;
    return pp_fail(error, PP_E_INPUT, NULL,
                   "model '%s' has opaque layers only: their times are given, there is nothing to "
                   "measure",
                   model->name);
}

static pp_status check_options(const pp_measure_options *options, pp_error *error) {
    if (options->neighbours < 0)
        return pp_fail(error, PP_E_INPUT, "--neighbours", "cannot be negative");
    if (!options->links && options->microbatch_count < 1)
        return pp_fail(error, PP_E_INPUT, "--microbatch", "expected at least one size");
    for (int i = 0; i < options->microbatch_count; i++)
        if (options->microbatches[i] < 1)
            return pp_fail(error, PP_E_INPUT, "--microbatch", "%lld is not a size of at least 1",
                           (long long)options->microbatches[i]);
    return PP_OK;
}

pp_status pp_measure(const pp_measure_options *options, pp_error *error) {
    const pp_backend *backend;
    void *state = NULL;
    pp_backend_seat seat;
    PP_TRY(check_options(options, error));
    PP_TRY(find_backend(options, &backend, &seat, error));
    if (options->links) {
        PP_TRY(pp_measure_action(options, backend, &seat, error));
        return pp_measure_links(options, backend, &seat, error);
    }
    PP_TRY(check_layers(options, backend, error));
    PP_TRY(backend->open(&seat, &state, error));
    pp_status status = measure_layers(options, backend, &seat, state, error);
    backend->close(state);
    return status;
}
