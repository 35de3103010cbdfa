/* Statistics of measurements against closed forms and simulated truth: intervals hold the true
 * median as often as the binomial distribution says, whatever the noise; outliers move the median
 * no further than their number allows; a drift is told from noise. */
#include "core/core.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(median, .timeout = 60);
COUNTED_SUITE(drift, .timeout = 60);

Test(median, by_hand) {
    double odd[] = {5, 1, 3}, even[] = {4, 1, 3, 2}, one[] = {7};
    pp_median m = pp_median_of(odd, 3);
    cr_assert(m.median == 3 && m.low == 1 && m.high == 5 && m.mad == 2);
    m = pp_median_of(even, 4);
    cr_assert(m.median == 2.5 && m.low == 1 && m.high == 4 && m.mad == 1);
    m = pp_median_of(one, 1);
    cr_assert(m.median == 7 && m.low == 7 && m.high == 7 && m.mad == 0);
    cr_assert(isnan(pp_median_of(one, 0).median));
}

/* Ranks from the published table for a 95 % interval of the median (1-based, lower end). */
Test(median, interval_ranks) {
    static const size_t table[][2] = {{6, 1},  {8, 1},  {9, 2},   {10, 2},  {12, 3},
                                      {15, 4}, {20, 6}, {30, 10}, {50, 18}, {100, 40}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double values[100];
        size_t n = table[i][0];
        for (size_t j = 0; j < n; j++) values[j] = (double)(j + 1);
        pp_median m = pp_median_of(values, n);
        cr_assert_eq(m.low, (double)table[i][1], "n = %zu: %g", n, m.low);
        cr_assert_eq(m.high, (double)(n + 1 - table[i][1]), "n = %zu", n);
    }
}

/* P(Binomial(n, 1/2) < k), term by term. */
static double binomial_below(size_t n, size_t k) {
    double sum = 0;
    for (size_t j = 0; j < k; j++) {
        double nn = (double)n, jj = (double)j;
        sum += exp(lgamma(nn + 1) - lgamma(jj + 1) - lgamma(nn - jj + 1) - nn * log(2));
    }
    return sum;
}

/* The rank of the interval's lower end, read off 1 … n. */
static size_t rank_of(size_t n) {
    static double values[20000];
    for (size_t i = 0; i < n; i++) values[i] = (double)(i + 1);
    return (size_t)pp_median_of(values, n).low;
}

/* As narrow as 95 % allow, at any count: far beyond 1075 too, where 2^-n is no number any more. */
Test(median, interval_is_exact_at_every_count) {
    for (size_t n = 6; n <= 20000; n += n < 300 ? 1 : n / 7) {
        size_t k = rank_of(n);
        cr_assert(binomial_below(n, k) <= 0.025 + 1e-9, "n = %zu: rank %zu is too high", n, k);
        cr_assert(binomial_below(n, k + 1) > 0.025 - 1e-9, "n = %zu: rank %zu is too low", n, k);
    }
}

/* ---- noises, and the true median of each ---- */

static double gaussian(pp_random_key key, uint64_t i) {
    return 1 + 0.1 * pp_random_normal(key, i);
}
static double exponential(pp_random_key key, uint64_t i) {
    return -log(1 - pp_random_unit(key, i));
}
static double log_normal(pp_random_key key, uint64_t i) {
    return exp(pp_random_normal(key, i));
}
/* One in five samples was disturbed and takes two to ten times as long. */
static double disturbed(pp_random_key key, uint64_t i) {
    double clean = 1 + 0.1 * pp_random_normal(key, i);
    bool hit = pp_random_unit(key, i + (1ull << 40)) < 0.2;
    return hit ? 2 + 8 * pp_random_unit(key, i + (2ull << 40)) : clean;
}

static const struct {
    const char *name;
    double (*draw)(pp_random_key key, uint64_t i);
    double median; /* disturbed: the quantile 0.5/0.8 of the clean ones, Φ(0.318639) = 0.625 */
} noises[] = {{"gaussian", gaussian, 1},
              {"exponential", exponential, 0.69314718055994531},
              {"log-normal", log_normal, 1},
              {"disturbed", disturbed, 1.0318639}};
enum { NOISES = sizeof noises / sizeof *noises };

/* The interval holds the truth with 1 - 2 P(Binomial(n, 1/2) < k), exactly, for every continuous
 * noise; of `trials` it may differ by 4.5 standard deviations. */
Test(median, interval_covers_as_often_as_it_says) {
    enum { trials = 20000, seed = 77 };
    static const size_t counts[] = {6, 9, 20, 51, 200};
    for (size_t noise = 0; noise < NOISES; noise++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            size_t n = counts[c], all = n < 100 ? trials : trials / 10, inside = 0;
            pp_random_key key = pp_random_key_make(seed, noises[noise].name, n);
            for (uint64_t trial = 0; trial < all; trial++) {
                double values[200];
                for (uint64_t i = 0; i < n; i++) values[i] = noises[noise].draw(key, trial * n + i);
                pp_median m = pp_median_of(values, n);
                inside += m.low <= noises[noise].median && noises[noise].median <= m.high;
            }
            double p = 1 - 2 * binomial_below(n, rank_of(n)), expected = p * (double)all;
            cr_assert(fabs((double)inside - expected) < 4.5 * sqrt(expected * (1 - p)),
                      "%s, n = %zu, seed %d: %zu of %zu, expected %.0f", noises[noise].name, n,
                      seed, inside, all, expected);
        }
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Whatever `bad` of the values become, the median stays within `bad` ranks of the clean one, and
 * the deviation below the largest distance between such ranks. */
Test(median, outliers_count_once_each) {
    enum { seed = 5, n = 41 };
    pp_random_key key = pp_random_key_make(seed, "outliers", 0);
    for (uint64_t trial = 0; trial < 3000; trial++) {
        double clean[n], dirty[n];
        int bad = (int)pp_random_below(key, trial, n / 2);
        for (uint64_t i = 0; i < n; i++) clean[i] = log_normal(key, (trial + 1) * n + i);
        memcpy(dirty, clean, sizeof clean);
        for (int i = 0; i < bad; i++) dirty[i] = trial % 2 ? INFINITY : -1e300;
        pp_median m = pp_median_of(dirty, n);
        qsort(clean, n, sizeof *clean, ascending);
        cr_assert(m.median >= clean[n / 2 - bad] && m.median <= clean[n / 2 + bad],
                  "trial %d, seed %d: %g with %d outliers", (int)trial, seed, m.median, bad);
        cr_assert(m.mad <= clean[n - 1] - clean[0], "trial %d, seed %d: MAD %g", (int)trial, seed,
                  m.mad);
    }
}

/* Of a Gaussian the median absolute deviation is Φ⁻¹(3/4) σ. With a fifth of outliers it is the t σ
 * of Φ(s + t) - Φ(s - t) = 0.5/0.8 about the median s = 0.3186, where the standard deviation is 26
 * σ. */
Test(median, deviation_of_noise) {
    enum { n = 100000, seed = 3 };
    static double values[n];
    pp_random_key key = pp_random_key_make(seed, "deviation", 0);
    for (uint64_t i = 0; i < n; i++) values[i] = gaussian(key, i);
    cr_assert_float_eq(pp_median_of(values, n).mad, 0.0674490, 0.0006);
    for (uint64_t i = 0; i < n; i++) values[i] = disturbed(key, i);
    cr_assert_float_eq(pp_median_of(values, n).mad, 0.0932686, 0.001);
}

Test(median, scales_and_knows_no_order) {
    enum { n = 37 };
    pp_random_key key = pp_random_key_make(11, "order", 0);
    for (uint64_t trial = 0; trial < 500; trial++) {
        double values[n], other[n];
        for (uint64_t i = 0; i < n; i++) values[i] = log_normal(key, trial * n + i);
        for (int i = 0; i < n; i++) other[i] = 4 * values[(i * 5) % n];
        pp_median a = pp_median_of(values, n), b = pp_median_of(other, n);
        cr_assert(b.median == 4 * a.median && b.low == 4 * a.low && b.high == 4 * a.high &&
                  b.mad == 4 * a.mad);
    }
}

/* ---- drift ---- */

/* Over all ways to deal 1 … 10 into two halves the rank sum has mean 0 and deviation 1. */
Test(drift, deviations_are_standardised) {
    double sum = 0, squares = 0, deals = 0;
    for (unsigned deal = 0; deal < 1u << 10; deal++) {
        double values[10];
        int early = 0, late = 5;
        if (__builtin_popcount(deal) != 5) continue;
        for (int i = 0; i < 10; i++) values[deal >> i & 1 ? late++ : early++] = i + 1;
        double deviations = pp_drift_of(values, 10).deviations;
        sum += deviations;
        squares += deviations * deviations;
        deals++;
    }
    cr_assert(deals == 252 && fabs(sum) < 1e-9);
    cr_assert_float_eq(squares / deals, 1, 1e-12);
}

/* The count of rising pairs against all pairs, with many equal values. */
Test(drift, every_pair_counts) {
    pp_random_key key = pp_random_key_make(21, "pairs", 0);
    for (uint64_t trial = 0; trial < 2000; trial++) {
        double values[61];
        size_t n = 2 + (size_t)pp_random_below(key, trial, 60), half = n / 2;
        double pairs = 0, h = (double)half;
        for (uint64_t i = 0; i < n; i++)
            values[i] = (double)pp_random_below(key, (trial + 1) * 64 + i, 12);
        for (size_t i = 0; i < half; i++)
            for (size_t j = n - half; j < n; j++)
                pairs += values[i] < values[j] ? 1 : values[i] == values[j] ? 0.5 : 0;
        double expected = (pairs - h * h / 2) / sqrt(h * h * (2 * h + 1) / 12);
        cr_assert_float_eq(pp_drift_of(values, n).deviations, expected, 1e-12, "trial %d",
                           (int)trial);
    }
}

/* From 1 evenly up to 1 + D: medians 1 + D/4 and 1 + 3D/4, and all n² pairs rise. */
Test(drift, of_a_straight_line) {
    for (int n = 4; n <= 2000; n += 1 + n / 3)
        for (double d = -0.5; d <= 0.5; d += 0.25) {
            double values[2000], half = n / 2;
            int last = n - 1, pairs_sign = (d > 0) - (d < 0);
            for (int i = 0; i < n; i++) values[i] = 1 + d * i / last;
            double early = 1 + d * (half - 1) / 2 / last,
                   late = 1 + d * (last - (half - 1) / 2) / last;
            pp_drift drift = pp_drift_of(values, (size_t)n);
            cr_assert_float_eq(drift.relative, late / early - 1, 1e-12);
            cr_assert_float_eq(drift.deviations, pairs_sign * half * sqrt(3 / (2 * half + 1)),
                               1e-9);
        }
    double one = 7;
    cr_assert(pp_drift_of(&one, 1).relative == 0 && pp_drift_of(NULL, 0).deviations == 0);
}

/* Of steady noise beyond three deviations: 0.27 % of all, by chance; ten times the trials' own
 * deviation is far below what an alarm that cannot be trusted would show. */
Test(drift, steady_noise_seldom_looks_like_it) {
    enum { trials = 10000, n = 60, seed = 8 };
    for (size_t noise = 0; noise < NOISES; noise++) {
        pp_random_key key = pp_random_key_make(seed, noises[noise].name, 1);
        int alarms = 0;
        for (uint64_t trial = 0; trial < trials; trial++) {
            double values[n];
            for (uint64_t i = 0; i < n; i++) values[i] = noises[noise].draw(key, trial * n + i);
            alarms += fabs(pp_drift_of(values, n).deviations) > 3;
        }
        cr_assert(alarms < 27 + 5 * 5.2, "%s, seed %d: %d of %d", noises[noise].name, seed, alarms,
                  trials);
    }
}
