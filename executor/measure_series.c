/* When is a thing measured well enough: a series of samples and the interval of its median.
 *
 * A sample is the mean of `repeat` calls, so many that it lasts at least 100 µs and the clock's own
 * cost does not count. The series ends when the 95 % confidence interval of the median (from order
 * statistics, so nothing is assumed about the noise) is narrow enough, or when the cap is reached.
 * A least duration keeps a short quiet moment from passing for the truth. */
#include "executor/measure_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_S 1e-4
#define LEAST_SAMPLES 9
#define LEAST_S 0.02
#define DEFAULT_INTERVAL 0.02
#define LARGEST_CAP_S 2.0
#define FEWEST_CALLS 5
#define REPEAT_MAX 100000

void pp_series_start(pp_series *series, const pp_measure_options *options, double share_s,
                     double call_s) {
    double default_cap_s = fmin(LARGEST_CAP_S, fmax(share_s, FEWEST_CALLS * call_s));
    double repeat = ceil(SAMPLE_S / fmax(call_s, SAMPLE_S / REPEAT_MAX));
    series->wanted = options->interval > 0 ? options->interval : DEFAULT_INTERVAL;
    series->cap_s = options->cap_s > 0 ? options->cap_s : default_cap_s;
    series->repeat = (int)repeat;
    series->count = series->next_look = 0;
    series->spent_s = 0;
    series->interval = INFINITY;
    series->done = series->capped = false;
}

static int compare_doubles(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Relative half width of the median's 95 % interval. The ranks of the interval's ends are those of
 * the binomial distribution, by its normal approximation (exact to a rank for all counts here). */
static double median_interval(const double *values, int count) {
    double sorted[PP_SERIES_SAMPLES];
    memcpy(sorted, values, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, compare_doubles);
    int low = (int)floor(0.5 * count - 0.98 * sqrt(count) - 0.5);
    if (low < 0) low = 0;
    double median = 0.5 * (sorted[(count - 1) / 2] + sorted[count / 2]);
    double width = sorted[count - 1 - low] - sorted[low];
    return median > 0 ? 0.5 * width / median : 0;
}

void pp_series_add(pp_series *series, double elapsed_s) {
    series->values[series->count++] = elapsed_s / series->repeat;
    series->spent_s += elapsed_s;
    bool over = series->spent_s >= series->cap_s || series->count == PP_SERIES_SAMPLES;
    bool enough = series->count >= LEAST_SAMPLES && series->spent_s >= LEAST_S;
    /* sorting costs time too: the longer the series, the more rarely is its interval looked at */
    if (!over && (!enough || series->count < series->next_look)) return;
    series->next_look = series->count + 1 + series->count / 16;
    series->interval = median_interval(series->values, series->count);
    bool narrow = enough && series->interval <= series->wanted;
    series->done = narrow || over;
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
}

pp_status pp_measure_interrupted(pp_error *error) {
    return pp_fail(error, PP_E_INTERRUPTED, NULL, "measuring was interrupted; nothing was stored");
}
