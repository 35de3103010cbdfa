/* The middle of measurements, how well it is known, and whether they drifted.
 *
 * Times of a computer have outliers to one side (another process ran) and no distribution that
 * could be named, so everything here goes by the order of the values alone: it holds whatever the
 * noise, and an outlier counts the same however far out it lies.
 *
 * Sources: interval of the median from order statistics, H. A. David and H. N. Nagaraja, "Order
 * statistics", 3rd ed., 7.1; rank sums of two groups, F. Wilcoxon 1945, with the normal
 * approximation of H. B. Mann and D. R. Whitney 1947: U has mean n·m/2 and variance n·m(n+m+1)/12.
 */
#include "core/core.h"

#include <math.h>
#include <stdlib.h>

#define TAIL 0.025 /* on each side of a 95 % interval */

static int compare_doubles(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double middle(const double *sorted, size_t count) {
    return 0.5 * (sorted[(count - 1) / 2] + sorted[count / 2]);
}

/* The largest k with P(Binomial(count, 1/2) < k) <= TAIL, at least 1: the k-th smallest and the
 * k-th largest value then enclose the median with at least 95 % (with less below six values).
 * Terms are relative to the largest, of k = count/2, from which each follows by a ratio. */
static size_t interval_rank(size_t count) {
    size_t half = count / 2, k = half;
    double term = 1, below = 0; /* below: the terms of all j < k */
    for (size_t j = half; j > 0; j--) below += term *= (double)j / (double)(count - j + 1);
    double limit = TAIL * (count % 2 ? 2 * (below + 1) : 2 * below + 1);
    for (term = 1; k > 1 && below > limit; k--)
        below -= term *= (double)k / (double)(count - k + 1);
    return k > 1 ? k : 1;
}

pp_median pp_median_of(double *values, size_t count) {
    pp_median result = {NAN, NAN, NAN, NAN};
    if (count == 0) return result;
    qsort(values, count, sizeof *values, compare_doubles);
    size_t k = interval_rank(count);
    result.median = middle(values, count);
    result.low = values[k - 1];
    result.high = values[count - k];
    for (size_t i = 0; i < count; i++) /* (infinite ones may be equal) */
        values[i] = values[i] == result.median ? 0 : fabs(values[i] - result.median);
    qsort(values, count, sizeof *values, compare_doubles);
    result.mad = middle(values, count);
    return result;
}

/* How many pairs of an earlier and a later value rise; equal ones count half. Both are sorted. */
static double rising_pairs(const double *early, size_t early_count, const double *late,
                           size_t late_count) {
    double pairs = 0;
    for (size_t i = 0, below = 0, equal = 0; i < late_count; i++) {
        while (below < early_count && early[below] < late[i]) below++;
        if (equal < below) equal = below;
        while (equal < early_count && early[equal] == late[i]) equal++;
        pairs += (double)below + 0.5 * (double)(equal - below);
    }
    return pairs;
}

pp_drift pp_drift_of(double *values, size_t count) {
    size_t half = count / 2;
    double *early = values, *late = values + (count - half), n = (double)half;
    if (half == 0) return (pp_drift){0, 0};
    qsort(early, half, sizeof *early, compare_doubles);
    qsort(late, half, sizeof *late, compare_doubles);
    double from = middle(early, half), to = middle(late, half);
    double pairs = rising_pairs(early, half, late, half);
    return (pp_drift){.relative = from > 0 ? to / from - 1 : 0,
                      .deviations = (pairs - 0.5 * n * n) / sqrt(n * n * (2 * n + 1) / 12)};
}
