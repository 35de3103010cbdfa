/* The canary: one matrix product, always the same, that tells how fast the machine is just now.
 *
 * A series sees what changes while it is measured (measure_series.c). What changes more slowly, a
 * card that warms up, a clock that falls over minutes, makes the layers measured first look
 * different from those measured last, each of them with a narrow interval. So the canary is run
 * until it is steady before anything is measured, which also ends the machine's sleep, and once
 * more when all is done. */
#include "executor/measure_internal.h"

#include <math.h>

#define IN_A_ROW 5
#define STEADY 0.02
#define PATIENCE_S 1.0
#define DRIFT 0.05

static double one_call_s(pp_bench *bench) {
    double start_s = pp_now_s();
    pp_bench_run(bench, PP_PHASE_FORWARD);
    pp_bench_wait(bench);
    return pp_now_s() - start_s;
}

/* The median of the last five calls, once they agree or patience is over. *spread: how far the
 * largest of them is from the smallest. */
static double settled_s(pp_bench *bench, double patience_s, double *spread) {
    double last[IN_A_ROW], least = 0, most = 0, start_s = pp_now_s();
    int calls = 0;
    do {
        last[calls++ % IN_A_ROW] = one_call_s(bench);
        if (calls < IN_A_ROW) continue;
        least = most = last[0];
        for (int i = 1; i < IN_A_ROW; i++) {
            least = fmin(least, last[i]);
            most = fmax(most, last[i]);
        }
        *spread = least > 0 ? most / least - 1 : 0;
    } while (calls < IN_A_ROW || (*spread > STEADY && pp_now_s() - start_s < patience_s));
    return pp_median_of(last, IN_A_ROW).median;
}

pp_status pp_canary_start(pp_canary *canary, const pp_backend *backend, const pp_backend_seat *seat,
                          void *state, pp_dtype dtype, pp_error *error) {
    int64_t dim = backend->device_memory ? 4096 : 512;
    *canary = (pp_canary){
        .layer = {
            .name = "canary", .op = PP_OP_LINEAR, .dim = dim, .output_dim = dim, .sequence = 1}};
    canary->model = (pp_model){.layers = &canary->layer, .layer_count = 1};
    pp_bench_request request = {.model = &canary->model,
                                .samples = dim,
                                .dtype = dtype,
                                .backend = backend,
                                .seat = *seat,
                                .state = state,
                                .copies = 1};
    PP_TRY(pp_bench_make(&request, &canary->bench, error));
    canary->before_s = settled_s(canary->bench, PATIENCE_S, &canary->spread);
    pp_status status = pp_bench_status(canary->bench, error);
    if (status != PP_OK) pp_canary_stop(canary);
    return status;
}

void pp_canary_report(pp_canary *canary, const pp_measure_options *options) {
    double spread, after_s = settled_s(canary->bench, 0, &spread);
    double change = canary->before_s > 0 ? after_s / canary->before_s - 1 : 0;
    if (!options->on_drift) return;
    if (canary->spread > STEADY)
        options->on_drift(options->context, "a matrix product that never became steady",
                          canary->spread);
    if (fabs(change) > DRIFT)
        options->on_drift(options->context, "the same matrix product before and after", change);
}

void pp_canary_stop(pp_canary *canary) {
    pp_bench_free(canary->bench);
    canary->bench = NULL;
}
