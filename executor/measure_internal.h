/* What the files of measuring share: a layer on a test bench, and when enough was measured. */
#ifndef PPSIM_EXECUTOR_MEASURE_INTERNAL_H
#define PPSIM_EXECUTOR_MEASURE_INTERNAL_H

#include "executor/backend.h"
#include "executor/executor.h"

/* ---- measure_bench.c ---- */

typedef struct pp_bench pp_bench;

typedef struct pp_bench_request {
    const pp_model *model;
    int layer;
    int64_t samples;
    pp_dtype dtype;
    const pp_backend *backend;
    pp_backend_seat seat;
    void *state; /* the backend's, of the thread that makes and runs the bench */
    int copies;  /* benches of this size that will exist at once: for the memory check */
} pp_bench_request;

/* One layer with all that its calls touch, filled with random data and run once in every phase. Too
 * little memory is PP_E_OUT_OF_MEMORY, before any of it is touched. */
pp_status pp_bench_make(const pp_bench_request *request, pp_bench **bench, pp_error *error);
void pp_bench_free(pp_bench *bench);

/* Whether the layer does anything in this phase. */
bool pp_bench_has(const pp_bench *bench, pp_phase phase);

/* One call of the phase, on the set of buffers that is its turn; a device may still be at it. */
void pp_bench_run(pp_bench *bench, pp_phase phase);
/* Its calls return before they are done. */
bool pp_bench_on_device(const pp_bench *bench);
/* Until all calls have ended. */
void pp_bench_wait(pp_bench *bench);
/* The first failure of any call so far, which only devices have. */
pp_status pp_bench_status(const pp_bench *bench, pp_error *error);

/* ---- measure_series.c ---- */

#define PP_SERIES_SAMPLES 2000

/* Samples of one thing, until its median is known well enough. */
typedef struct pp_series {
    double wanted; /* relative half width of the median's 95 % interval */
    double cap_s;
    int repeat; /* calls per sample, so that a sample lasts long enough to be timed */
    int count;
    int next_look; /* count at which the interval is worked out again */
    double spent_s;
    double interval; /* reached so far */
    double drift;    /* of the medians of its two halves, as far as it is no chance */
    bool done, capped, drifted;
    double values[PP_SERIES_SAMPLES]; /* seconds per call, in the order of measuring */
} pp_series;

/* How long a sample lasts at least: of calls that return when they are done, and of a device's. */
#define PP_SAMPLE_S 1e-4
#define PP_DEVICE_SAMPLE_S 2e-3

/* call_s: roughly how long one call takes. share_s: this series' share of the time for all; where
 * the caller sets no cap, it caps the series (but five calls are made if they fit into 2 s).
 * sample_s: how long a sample lasts at least. */
void pp_series_start(pp_series *series, const pp_measure_options *options, double share_s,
                     double call_s, double sample_s);
/* Takes in one sample: `elapsed_s` for series->repeat calls. */
void pp_series_add(pp_series *series, double elapsed_s);

/* Hands the samples of a finished series to the options' callbacks. */
void pp_series_report(const pp_series *series, const pp_measure_options *options,
                      const pp_sample *sample, const char *what);

pp_status pp_measure_interrupted(pp_error *error);

/* ---- measure_canary.c ---- */

typedef struct pp_canary {
    pp_layer layer;
    pp_model model;
    pp_bench *bench;
    double before_s, spread; /* of the last calls before everything */
} pp_canary;

/* Before the first layer: runs the canary until it is steady, for a second at most. */
pp_status pp_canary_start(pp_canary *canary, const pp_backend *backend, const pp_backend_seat *seat,
                          void *state, pp_dtype dtype, pp_error *error);
/* After the last: tells on_drift if it takes another time now than before, or never was steady. */
void pp_canary_report(pp_canary *canary, const pp_measure_options *options);
void pp_canary_stop(pp_canary *canary);

/* ---- measure_action.c ---- */

/* Times what an action costs its rank by itself: asking a device for work, and hearing of its end.
 * Nothing where calls return when they are done. */
pp_status pp_measure_action(const pp_measure_options *options, const pp_backend *backend,
                            const pp_backend_seat *seat, pp_error *error);

/* ---- measure_links.c ---- */

/* Times the local transport for messages from 1 KiB to 16 MiB. */
pp_status pp_measure_links(const pp_measure_options *options, const pp_backend *backend,
                           const pp_backend_seat *seat, pp_error *error);

#endif
