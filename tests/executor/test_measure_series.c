/* Series of samples against simulated truth: what ends early is right, outliers and warm-ups do not
 * spoil it, and a machine that drifts is not believed. The samples are made up, so nothing here
 * depends on a clock. */
#include "executor/measure_internal.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

COUNTED_SUITE(series_truth, .timeout = 60);

#define WANTED 0.02

static pp_series series;

/* What the i-th sample of a trial takes, in ms. */
typedef double machine(pp_random_key key, uint64_t i);

static void run_series(machine *takes_ms, uint64_t seed, uint64_t trial, double cap_s) {
    pp_measure_options options = {.interval = WANTED, .cap_s = cap_s};
    pp_random_key key = pp_random_key_make(seed, "series", trial);
    pp_series_start(&series, &options, 1, 1e-3, PP_SAMPLE_S);
    for (uint64_t i = 0; !series.done; i++) pp_series_add(&series, 1e-3 * takes_ms(key, i));
}

/* The median of what was measured, in ms. */
static double measured_ms(void) {
    static double values[PP_SERIES_SAMPLES];
    memcpy(values, series.values, (size_t)series.count * sizeof *values);
    return 1e3 * pp_median_of(values, (size_t)series.count).median;
}

/* ---- steady machines ---- */

static double quiet(pp_random_key key, uint64_t i) {
    return 1 + 0.01 * pp_random_normal(key, i);
}
static double noisy(pp_random_key key, uint64_t i) {
    return fabs(1 + 0.08 * pp_random_normal(key, i));
}
/* skewed, as when others take the caches: the median is e^0 */
static double skewed(pp_random_key key, uint64_t i) {
    return exp(0.1 * pp_random_normal(key, i));
}
/* one in ten takes up to twenty times as long; the median is the clean ones' quantile 0.5/0.9 */
static double interrupted(pp_random_key key, uint64_t i) {
    double clean = 1 + 0.03 * pp_random_normal(key, i);
    bool hit = pp_random_unit(key, i + (1ull << 40)) < 0.1;
    return hit ? 2 + 18 * pp_random_unit(key, i + (2ull << 40)) : clean;
}

static const struct {
    const char *name;
    machine *machine;
    double truth;
    int most_samples; /* on average; from (0.98 · density of the noise at its median / wanted)² */
} steady[] = {{"quiet", quiet, 1, 21},
              {"noisy", noisy, 1, 130},
              {"skewed", skewed, 1, 200},
              {"interrupted", interrupted, 1.00419, 40}};

/* Each ends before its cap, after no more samples than its noise asks for; its median is within the
 * interval that was wanted in 93 % of all trials at least (95 %, less what looking again and again
 * costs, less 4.5 deviations of 2000 trials), and hardly any is taken for drifting. */
Test(series_truth, steady_machines) {
    enum { trials = 2000, seed = 31 };
    for (size_t m = 0; m < sizeof steady / sizeof *steady; m++) {
        int within = 0, drifted = 0;
        double samples = 0;
        for (uint64_t trial = 0; trial < trials; trial++) {
            run_series(steady[m].machine, seed, trial, 10);
            within += fabs(measured_ms() / steady[m].truth - 1) <= WANTED;
            drifted += series.drifted;
            samples += series.count;
            cr_assert(!series.capped && series.interval <= WANTED, "%s, seed %d, trial %d",
                      steady[m].name, seed, (int)trial);
        }
        cr_assert(within > 0.93 * trials - 4.5 * 11.4, "%s, seed %d: %d of %d within",
                  steady[m].name, seed, within, trials);
        cr_assert(drifted == 0 && samples / trials <= steady[m].most_samples,
                  "%s, seed %d: %d drifted, %.0f samples", steady[m].name, seed, drifted,
                  samples / trials);
    }
}

/* no hope for 2 % within the cap */
static double wild(pp_random_key key, uint64_t i) {
    return exp(0.4 * pp_random_normal(key, i));
}

/* ---- machines that change ---- */

static double warming_up(pp_random_key key, uint64_t i) {
    double slow = i < 40 ? 0.2 * (double)(40 - i) / 40 : 0;
    return 1 + slow + 0.002 * pp_random_normal(key, i);
}
static double throttled_early(pp_random_key key, uint64_t i) {
    return (i < 10 ? 1 : 1.08) + 0.004 * pp_random_normal(key, i);
}
static double falling_clock(pp_random_key key, uint64_t i) {
    return 1 + 0.3 * (double)i / 100 + 0.002 * pp_random_normal(key, i);
}

/* Within the least duration a warm-up is noticed and then outvoted, and so is a clock that falls:
 * the series goes on until the steady machine is what it measured. (What takes longer than a whole
 * series to change shows between series: that is the canary's to see.) */
Test(series_truth, goes_on_until_steady) {
    enum { seed = 47 };
    static const struct {
        machine *machine;
        double truth;
    } cases[] = {{warming_up, 1}, {throttled_early, 1.08}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (uint64_t trial = 0; trial < 300; trial++) {
            run_series(cases[c].machine, seed, trial, 10);
            cr_assert(!series.capped && !series.drifted);
            cr_assert_float_eq(measured_ms(), cases[c].truth, WANTED * cases[c].truth,
                               "case %zu, seed %d, trial %d: %g ms", c, seed, (int)trial,
                               measured_ms());
        }
}

static double told_drift;
static int told;
static void hear_drift(void *context, const char *what, double drift) {
    (void)context;
    cr_assert_str_eq(what, "falling");
    told_drift = drift;
    told++;
}

/* A clock that never stops falling goes on to the cap, and there it is told
 * by how much: of n samples from 1 to 1 + D, (1 + 3D/4) / (1 + D/4) - 1. */
Test(series_truth, drift_is_told_at_the_cap) {
    pp_measure_options options = {.on_drift = hear_drift};
    pp_sample sample = {.microbatch = 1};
    for (uint64_t trial = 0; trial < 50; trial++) {
        run_series(falling_clock, 9, trial, 0.2);
        double d = 0.3 * (series.count - 1) / 100;
        cr_assert(series.spent_s >= 0.2 && series.drifted);
        cr_assert_float_eq(series.drift, (1 + 0.75 * d) / (1 + 0.25 * d) - 1, 8e-3);
        pp_series_report(&series, &options, &sample, "falling");
        cr_assert(told == (int)trial + 1 && told_drift == series.drift);
    }
}

/* Noise that never narrows enough ends at the cap; of 2000 such, a share that chance allows (0.27 %
 * and 5 deviations of it) is taken for drifting. */
Test(series_truth, noise_is_no_drift) {
    enum { trials = 2000, seed = 63 };
    int drifted = 0;
    for (uint64_t trial = 0; trial < trials; trial++) {
        run_series(wild, seed, trial, 0.05);
        cr_assert(series.capped);
        drifted += series.drifted;
    }
    cr_assert(drifted <= 17, "seed %d: %d of %d", seed, drifted, trials);
}

/* Up to five samples enclose the median with less than 95 %: nothing is known of their interval. */
Test(series_truth, few_samples_know_no_interval) {
    pp_measure_options options = {.interval = WANTED};
    for (int n = 1; n <= 7; n++) {
        options.cap_s = 1e-3 * n - 1e-9;
        pp_series_start(&series, &options, 1, 1e-3, PP_SAMPLE_S);
        while (!series.done) pp_series_add(&series, 1e-3);
        cr_assert(series.count == n && series.capped);
        cr_assert(n < 6 ? isinf(series.interval) : series.interval == 0, "%d: %g", n,
                  series.interval);
    }
}
