/* What an action costs its rank beside its layers, on a device: the host asks for the first kernel,
 * and hears some time later that the last is done. A fill of a few bytes has both and next to
 * nothing in between. */
#include "executor/measure_internal.h"

#define BUDGET_S 0.5
#define FILLED_BYTES 64

static pp_status act(const pp_backend *backend, void *state, void *block, int count,
                     double *elapsed_s, pp_error *error) {
    double start_s = pp_now_s();
    pp_status status = PP_OK;
    for (int i = 0; i < count && status == PP_OK; i++) {
        backend->fill(state, block, 0, FILLED_BYTES);
        status = backend->finish(state, error);
    }
    *elapsed_s = pp_now_s() - start_s;
    return status;
}

static pp_status measure(const pp_measure_options *options, const pp_backend *backend, void *state,
                         void *block, pp_error *error) {
    double elapsed_s;
    pp_sample sample = {"action", PP_PHASE_OVERHEAD, .microbatch = 0};
    pp_series *series = pp_allocate(sizeof *series);
    if (!series) return pp_fail_memory(error);
    pp_status status = act(backend, state, block, 10, &elapsed_s, error);
    pp_series_start(series, options, BUDGET_S, elapsed_s / 10, PP_SAMPLE_S);
    while (status == PP_OK && !series->done) {
        if (pp_stop_signal()) status = pp_measure_interrupted(error);
        if (status == PP_OK) status = act(backend, state, block, series->repeat, &elapsed_s, error);
        pp_series_add(series, elapsed_s);
    }
    if (status == PP_OK) pp_series_report(series, options, &sample, "the cost of an action");
    pp_free(series);
    return status;
}

pp_status pp_measure_action(const pp_measure_options *options, const pp_backend *backend,
                            const pp_backend_seat *seat, pp_error *error) {
    void *state = NULL;
    if (!backend->device_memory) return PP_OK;
    PP_TRY(backend->open(seat, &state, error));
    void *block = backend->allocate(state, FILLED_BYTES);
    pp_status status =
        block ? measure(options, backend, state, block, error) : pp_fail_memory(error);
    if (block) backend->release(state, block, FILLED_BYTES);
    backend->close(state);
    return status;
}
