/* From raw points to "how long does x take": a robust line, or a monotone curve where a line lies.
 *
 * Times of a layer are nearly a + b·x in the microbatch size x: a fixed cost per call and a cost
 * per sample. Measurements carry outliers to one side (another process ran), so the line is fitted
 * by iteratively reweighted least squares with Tukey's bisquare (GSL), and to relative residuals,
 * since sizes span decades (1 KiB to 16 MiB for transfers) and the small ones matter as much:
 *
 *     minimise  Σ ρ((a + b·x_i − y_i) / m_k)     m_k: the median of the points at the same x
 *
 * Caches and kernels that change with the size bend the curve. The line is rejected when its median
 * relative residual over the knots (distinct x with their medians) exceeds 2 %, when any single
 * knot is off by more than 10 %, or when it falls. Then the medians, made non-decreasing by pool
 * adjacent violators, are joined by straight pieces.
 *
 * One knot tells no fixed cost from a cost per sample: its time is taken to be proportional to x
 * (constant where x is 0), which is what a compute-bound layer does.
 *
 * GSL's workspaces come from malloc: it offers no other allocator. */
#include "profiles/costs_internal.h"

#include <gsl/gsl_errno.h>
#include <gsl/gsl_multifit.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#define MEDIAN_RESIDUAL_LIMIT 0.02
#define SINGLE_RESIDUAL_LIMIT 0.10
#define ROWS_MAX 4096  /* below the sizes at which a BLAS uses several threads and sums differ */
#define ROUNDING 1e-10 /* a slope that contributes less than this share is none */

void pp_gsl_start(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, (void (*)(void))gsl_set_error_handler_off);
}

/* ---- knots ---- */

typedef struct point {
    double x, y;
    int knot;
} point;

/* What the fit needs of its knots beyond what pp_fit keeps. */
typedef struct knots {
    double median[PP_FIT_KNOTS]; /* before any pooling */
    double doubt[PP_FIT_KNOTS];  /* half width of the median's 95 % interval */
    double weight[PP_FIT_KNOTS]; /* points */
} knots;

static int compare_points(const void *left, const void *right) {
    const point *a = left, *b = right;
    if (a->x != b->x) return a->x > b->x ? 1 : -1;
    return (a->y > b->y) - (a->y < b->y);
}

static pp_status check_points(const double *x, const double *y, size_t count, pp_error *error) {
    if (count == 0) return pp_fail(error, PP_E_INPUT, NULL, "there is no measurement to fit");
    for (size_t i = 0; i < count; i++)
        if (!isfinite(x[i]) || !isfinite(y[i]) || x[i] < 0 || y[i] < 0)
            return pp_fail(error, PP_E_INPUT, NULL,
                           "measurement %zu (%g s at size %g) is not a finite number of at least 0",
                           i, y[i], x[i]);
    return PP_OK;
}

/* Sorts the points by x and y, gives each its knot and each knot its median. scratch : [count] */
static pp_status make_knots(point *points, size_t count, double *scratch, pp_fit *fit, knots *all,
                            pp_error *error) {
    qsort(points, count, sizeof *points, compare_points);
    for (size_t first = 0, next; first < count; first = next) {
        if (fit->knot_count == PP_FIT_KNOTS)
            return pp_fail(error, PP_E_INPUT, NULL,
                           "more than %d different sizes were measured; delete some sessions",
                           PP_FIT_KNOTS);
        int knot = fit->knot_count++;
        for (next = first; next < count && points[next].x == points[first].x; next++) {
            points[next].knot = knot;
            scratch[next - first] = points[next].y;
        }
        pp_median median = pp_median_of(scratch, next - first);
        fit->x[knot] = points[first].x;
        fit->y[knot] = all->median[knot] = median.median;
        fit->spread[knot] = median.mad;
        all->doubt[knot] = 0.5 * (median.high - median.low);
        all->weight[knot] = (double)(next - first);
    }
    return PP_OK;
}

/* ---- the line ---- */

/* A line through the first and the last knot: what two knots need, and a fallback. */
static void line_through_ends(pp_fit *fit) {
    int last = fit->knot_count - 1;
    fit->slope = (fit->y[last] - fit->y[0]) / (fit->x[last] - fit->x[0]);
    fit->intercept = fit->y[0] - fit->slope * fit->x[0];
}

static void line_of_one_knot(pp_fit *fit) {
    bool proportional = fit->x[0] > 0;
    fit->slope = proportional ? fit->y[0] / fit->x[0] : 0;
    fit->intercept = proportional ? 0 : fit->y[0];
}

/* Bisquare on the points (sorted; every n-th of very many), each row divided by its knot's median.
 * x is scaled to [0, 1] meanwhile. False when GSL could not (its own memory, a singular system). */
static bool robust_line(const point *points, size_t point_count, pp_fit *fit) {
    bool done = false;
    size_t stride = (point_count + ROWS_MAX - 1) / ROWS_MAX;
    size_t count = (point_count + stride - 1) / stride;
    double scale = fit->x[fit->knot_count - 1];
    gsl_multifit_robust_workspace *work =
        gsl_multifit_robust_alloc(gsl_multifit_robust_bisquare, count, 2);
    gsl_matrix *rows = gsl_matrix_alloc(count, 2);
    gsl_vector *targets = gsl_vector_alloc(count);
    gsl_vector *line = gsl_vector_alloc(2);
    gsl_matrix *covariance = gsl_matrix_alloc(2, 2);
    if (!work || !rows || !targets || !line || !covariance) goto out;
    for (size_t i = 0; i < count; i++) {
        const point *each = &points[i * stride];
        double unit = fit->y[each->knot];
        gsl_matrix_set(rows, i, 0, 1 / unit);
        gsl_matrix_set(rows, i, 1, each->x / scale / unit);
        gsl_vector_set(targets, i, each->y / unit);
    }
    int code = gsl_multifit_robust(rows, targets, line, covariance, work);
    if (code != GSL_SUCCESS && code != GSL_EMAXITER) goto out;
    fit->intercept = gsl_vector_get(line, 0);
    fit->slope = gsl_vector_get(line, 1) / scale;
    done = isfinite(fit->intercept) && isfinite(fit->slope);
out:
    gsl_multifit_robust_free(work);
    gsl_matrix_free(rows);
    gsl_vector_free(targets);
    gsl_vector_free(line);
    gsl_matrix_free(covariance);
    return done;
}

static void fit_line(const point *points, size_t count, pp_fit *fit) {
    fit->kind = PP_FIT_LINEAR;
    bool positive = true; /* relative residuals need medians above 0 */
    for (int k = 0; k < fit->knot_count; k++) positive &= fit->y[k] > 0;
    if (fit->knot_count == 1)
        line_of_one_knot(fit);
    else if (fit->knot_count == 2 || !positive || !robust_line(points, count, fit))
        line_through_ends(fit);
    int last = fit->knot_count - 1;
    if (fabs(fit->slope) * fit->x[last] < ROUNDING * fit->y[last]) fit->slope = 0;
}

/* Of a value that is not told from 0 all is in doubt: 1, as of what was never measured. */
static double relative(double difference, double value) {
    if (difference == 0) return 0;
    return value > 0 ? fabs(difference) / value : 1;
}

/* The stated criterion. */
static bool line_is_rejected(const pp_fit *fit, const knots *all) {
    double residual[PP_FIT_KNOTS];
    double largest = 0;
    if (!(fit->slope >= 0)) return true;
    for (int k = 0; k < fit->knot_count; k++) {
        residual[k] = relative(pp_fit_at(fit, fit->x[k]) - all->median[k], all->median[k]);
        largest = fmax(largest, residual[k]);
    }
    return pp_median_of(residual, (size_t)fit->knot_count).median > MEDIAN_RESIDUAL_LIMIT ||
           largest > SINGLE_RESIDUAL_LIMIT;
}

/* ---- the monotone curve ---- */

/* Isotonic regression of the medians, weighted by points: runs that fall are replaced by their mean
 * (pool adjacent violators). */
static void fit_monotone(pp_fit *fit, const knots *all) {
    double mean[PP_FIT_KNOTS], weight[PP_FIT_KNOTS];
    int length[PP_FIT_KNOTS], pools = 0;
    for (int k = 0; k < fit->knot_count; k++) {
        mean[pools] = all->median[k];
        weight[pools] = all->weight[k];
        length[pools++] = 1;
        while (pools > 1 && mean[pools - 2] > mean[pools - 1]) {
            double sum = weight[pools - 2] + weight[pools - 1];
            mean[pools - 2] += (mean[pools - 1] - mean[pools - 2]) * weight[pools - 1] / sum;
            weight[pools - 2] = sum;
            length[pools - 2] += length[pools - 1];
            pools--;
        }
    }
    for (int pool = 0, k = 0; pool < pools; pool++)
        for (int i = 0; i < length[pool]; i++) fit->y[k++] = mean[pool];
    fit->kind = PP_FIT_MONOTONE;
    fit->intercept = fit->slope = 0;
}

static double piece(const pp_fit *fit, int k, double x) {
    double share = (x - fit->x[k]) / (fit->x[k + 1] - fit->x[k]);
    return fmin(fit->y[k] + share * (fit->y[k + 1] - fit->y[k]), fit->y[k + 1]);
}

/* Inside: straight pieces. Beyond the last knot: the last piece goes on, or the mean slope of the
 * curve where that piece is flat because it was pooled. */
static double monotone_at(const pp_fit *fit, double x) {
    int last = fit->knot_count - 1;
    if (last == 0) return fit->y[0];
    if (x > fit->x[last]) {
        double slope = (fit->y[last] - fit->y[last - 1]) / (fit->x[last] - fit->x[last - 1]);
        if (slope <= 0) slope = (fit->y[last] - fit->y[0]) / (fit->x[last] - fit->x[0]);
        return fit->y[last] + slope * (x - fit->x[last]);
    }
    int k = 0;
    while (k + 1 < last && x > fit->x[k + 1]) k++;
    return piece(fit, k, x);
}

static double curve_at(const pp_fit *fit, double x) {
    return fit->kind == PP_FIT_LINEAR ? fit->intercept + fit->slope * x : monotone_at(fit, x);
}

/* ---- the fit ---- */

/* Median over the knots of how far the fit is from the median there, or of how far that median
 * itself is in doubt where this is more. */
static double relative_error(const pp_fit *fit, const knots *all) {
    double worst[PP_FIT_KNOTS];
    for (int k = 0; k < fit->knot_count; k++) {
        double residual = fabs(pp_fit_at(fit, fit->x[k]) - all->median[k]);
        worst[k] = relative(fmax(residual, all->doubt[k]), all->median[k]);
    }
    return pp_median_of(worst, (size_t)fit->knot_count).median;
}

pp_status pp_fit_points(const double *x, const double *y, size_t count, pp_fit *fit,
                        pp_error *error) {
    *fit = (pp_fit){0};
    PP_TRY(check_points(x, y, count, error));
    pp_gsl_start();
    pp_status status = PP_OK;
    knots all = {0};
    point *points = pp_allocate_zeroed(count, sizeof *points);
    double *scratch = pp_allocate_zeroed(count, sizeof *scratch);
    if (!points || !scratch) {
        status = pp_fail_memory(error);
        goto out;
    }
    for (size_t i = 0; i < count; i++) points[i] = (point){x[i], y[i], 0};
    status = make_knots(points, count, scratch, fit, &all, error);
    if (status != PP_OK) goto out;
    fit_line(points, count, fit);
    if (line_is_rejected(fit, &all)) fit_monotone(fit, &all);
    fit->relative_error = relative_error(fit, &all);
out:
    pp_free(points);
    pp_free(scratch);
    return status;
}

/* Below the first knot a curve with a fixed cost is extended as it is, one without goes in
 * proportion to 0: the larger of the two, which is never negative and never falls. */
double pp_fit_at(const pp_fit *fit, double x) {
    double value = curve_at(fit, x);
    if (x < fit->x[0]) value = fmax(value, curve_at(fit, fit->x[0]) * (x / fit->x[0]));
    return fmax(value, 0);
}
