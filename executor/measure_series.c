/* When is a thing measured well enough: a series of samples and the interval of its median.
 *
 * A sample is the mean of `repeat` calls, so many that it lasts as long as the caller says and what
 * a sample costs by itself does not count: reading the clock, and on a device asking for the first
 * call and hearing of the end of the last, which cost a stage once and not once a layer. The series
 * ends when the 95 % confidence interval of the median (from order statistics, so nothing is
 * assumed about the noise) is narrow enough and the machine was steady meanwhile, or when the cap
 * is reached. A least duration keeps a short quiet moment from passing for the truth.
 *
 * Steady: the interval holds for samples that scatter about one value. Of a clock that falls it
 * knows nothing, and it narrows all the same. So the two halves of the series are compared by their
 * rank sum: a shift of more than the wanted interval that chance cannot explain keeps the series
 * going (a warm-up is outvoted in time), and what is left of it at the cap is reported.
 *
 * Looking again and again and stopping at the first narrow interval costs it some confidence: of
 * simulated series 93 to 96 % hold the truth, where one look at a fixed count holds it in 95 to
 * 98 %. */
#include "executor/measure_internal.h"

#include <math.h>
#include <string.h>

#define LEAST_SAMPLES 9
#define LEAST_S 0.02
#define DEFAULT_INTERVAL 0.02
#define LARGEST_CAP_S 2.0
#define FEWEST_CALLS 5
#define REPEAT_MAX 100000
#define CERTAIN 3 /* standard deviations: chance alone does this once in 370 times */

void pp_series_start(pp_series *series, const pp_measure_options *options, double share_s,
                     double call_s, double sample_s) {
    double default_cap_s = fmin(LARGEST_CAP_S, fmax(share_s, FEWEST_CALLS * call_s));
    double repeat = ceil(sample_s / fmax(call_s, sample_s / REPEAT_MAX));
    series->wanted = options->interval > 0 ? options->interval : DEFAULT_INTERVAL;
    series->cap_s = options->cap_s > 0 ? options->cap_s : default_cap_s;
    series->repeat = (int)repeat;
    series->count = series->next_look = 0;
    series->spent_s = 0;
    series->interval = INFINITY;
    series->drift = 0;
    series->done = series->capped = series->drifted = false;
}

/* Relative half width of the median's 95 % interval. Fewer than six samples have none: the median
 * is beyond all of them once in 2^(count-1) times. */
static double median_interval(const pp_series *series) {
    if (series->count < 6) return INFINITY;
    double values[PP_SERIES_SAMPLES];
    memcpy(values, series->values, (size_t)series->count * sizeof *values);
    pp_median known = pp_median_of(values, (size_t)series->count);
    return known.median > 0 ? 0.5 * (known.high - known.low) / known.median : 0;
}

/* 0 where the halves differ by no more than chance can explain. */
static double certain_drift(const pp_series *series) {
    double values[PP_SERIES_SAMPLES];
    memcpy(values, series->values, (size_t)series->count * sizeof *values);
    pp_drift drift = pp_drift_of(values, (size_t)series->count);
    return fabs(drift.deviations) > CERTAIN ? drift.relative : 0;
}

void pp_series_add(pp_series *series, double elapsed_s) {
    series->values[series->count++] = elapsed_s / series->repeat;
    series->spent_s += elapsed_s;
    bool over = series->spent_s >= series->cap_s || series->count == PP_SERIES_SAMPLES;
    bool enough = series->count >= LEAST_SAMPLES && series->spent_s >= LEAST_S;
    /* sorting costs time too: the longer the series, the more rarely is its interval looked at */
    if (!over && (!enough || series->count < series->next_look)) return;
    series->next_look = series->count + 1 + series->count / 16;
    series->interval = median_interval(series);
    series->drift = certain_drift(series);
    bool narrow = enough && series->interval <= series->wanted;
    series->drifted = fabs(series->drift) > series->wanted;
    series->done = (narrow && !series->drifted) || over;
    series->capped = !narrow && over;
}

void pp_series_report(const pp_series *series, const pp_measure_options *options,
                      const pp_sample *sample, const char *what) {
    pp_sample each = *sample;
    for (int i = 0; options->on_sample && i < series->count; i++) {
        each.duration_s = series->values[i];
        options->on_sample(options->context, &each);
    }
    if (options->on_cap && series->capped)
        options->on_cap(options->context, what, series->interval);
    if (options->on_drift && series->drifted)
        options->on_drift(options->context, what, series->drift);
}

pp_status pp_measure_interrupted(pp_error *error) {
    return pp_fail(error, PP_E_INTERRUPTED, NULL, "measuring was interrupted; nothing was stored");
}
