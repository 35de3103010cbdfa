/* How fast a device proved to be: the three numbers of the roofline, fitted to measurements.
 *
 * The model is analytic.c's, t = max(flops / F, bytes / B) + s, with F and B the rates that are
 * reached and s what it takes to get started. Since s does not shrink with the work, the share of
 * F that is reached is a curve that rises with the size of the work,
 *
 *     e(flops) = flops / (F · t) = 1 / (1 + s · F / flops),
 *
 * half of it at s · F FLOPs. Fitted are the logarithms of F, B and s to the logarithms of the
 * times, so that an error of 10 % counts the same for a small layer as for a large one, by trust
 * regions (GSL's gsl_multifit_nlinear, Levenberg-Marquardt). Three more residuals pull each number
 * gently towards its prior: where no point is bound by memory, say, nothing else would hold B. A
 * point far from the rest (a kernel of its own kind) is weighed down by Cauchy's weights. */
#include "profiles/efficiency_internal.h"

#include <gsl/gsl_errno.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>
#include <stdlib.h>

enum { FLOPS_RATE, BYTES_RATE, START, PARAMETERS };
enum { ROUNDS = 8, STEPS = 100 };

#define PRIOR_PULL 0.02   /* of a factor e away from the prior, beside one point off by 2 % */
#define CAUCHY_SCALE 0.25 /* a point off by this much counts half */
#define STEP_TOLERANCE 1e-10

typedef struct fit_problem {
    const pp_work_point *points;
    size_t count;
    double prior[PARAMETERS]; /* logarithms */
} fit_problem;

static double seconds_of(const double rates[PARAMETERS], const pp_work_point *point) {
    return fmax(point->flops / exp(rates[FLOPS_RATE]), point->bytes / exp(rates[BYTES_RATE])) +
           exp(rates[START]);
}

static void rates_of(const gsl_vector *x, double rates[PARAMETERS]) {
    for (size_t k = 0; k < PARAMETERS; k++) rates[k] = gsl_vector_get(x, k);
}

static int residuals(const gsl_vector *x, void *context, gsl_vector *f) {
    const fit_problem *problem = context;
    double rates[PARAMETERS];
    rates_of(x, rates);
    for (size_t i = 0; i < problem->count; i++) {
        const pp_work_point *point = &problem->points[i];
        gsl_vector_set(f, i, log(seconds_of(rates, point) / point->seconds));
    }
    for (size_t k = 0; k < PARAMETERS; k++)
        gsl_vector_set(f, problem->count + k, PRIOR_PULL * (rates[k] - problem->prior[k]));
    return GSL_SUCCESS;
}

/* Weights of the next round from the residuals of this one; the priors keep theirs. */
static void weigh(const fit_problem *problem, const gsl_vector *x, gsl_vector *weights) {
    double rates[PARAMETERS];
    rates_of(x, rates);
    for (size_t i = 0; i < problem->count; i++) {
        const pp_work_point *point = &problem->points[i];
        double off = log(seconds_of(rates, point) / point->seconds) / CAUCHY_SCALE;
        gsl_vector_set(weights, i, 1 / (1 + off * off));
    }
}

/* Reweighted least squares from x on. False: GSL had no memory or found no way. */
static bool descend(const fit_problem *problem, gsl_vector *x) {
    size_t rows = problem->count + PARAMETERS;
    gsl_multifit_nlinear_parameters options = gsl_multifit_nlinear_default_parameters();
    gsl_multifit_nlinear_fdf function = {
        .f = residuals, .n = rows, .p = PARAMETERS, .params = (void *)(uintptr_t)problem};
    gsl_vector *weights = gsl_vector_alloc(rows);
    gsl_multifit_nlinear_workspace *work =
        gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &options, rows, PARAMETERS);
    bool done = weights && work;
    if (done) gsl_vector_set_all(weights, 1);
    for (int round = 0; done && round < ROUNDS; round++) {
        int reason, code = gsl_multifit_nlinear_winit(x, weights, &function, work);
        if (code == GSL_SUCCESS)
            code = gsl_multifit_nlinear_driver(STEPS, STEP_TOLERANCE, STEP_TOLERANCE, 0, NULL, NULL,
                                               &reason, work);
        /* no progress: as good as it gets on a kinked surface */
        done = code == GSL_SUCCESS || code == GSL_EMAXITER || code == GSL_ENOPROG;
        if (!done) break;
        gsl_vector_memcpy(x, gsl_multifit_nlinear_position(work));
        weigh(problem, x, weights);
    }
    gsl_multifit_nlinear_free(work);
    gsl_vector_free(weights);
    return done;
}

static int compare_doubles(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* How far off the fitted model is. errors : [count] scratch */
static void judge(const pp_work_point *points, size_t count, const double rates[PARAMETERS],
                  double *errors, pp_efficiency *fitted) {
    for (size_t i = 0; i < count; i++)
        errors[i] = fabs(seconds_of(rates, &points[i]) - points[i].seconds) / points[i].seconds;
    qsort(errors, count, sizeof *errors, compare_doubles);
    fitted->median_error =
        count % 2 ? errors[count / 2] : 0.5 * (errors[count / 2 - 1] + errors[count / 2]);
    fitted->worst_error = errors[count - 1];
}

pp_status pp_efficiency_fit(const pp_analytic *prior, const pp_work_point *points, size_t count,
                            pp_efficiency *fitted, pp_error *error) {
    *fitted = (pp_efficiency){.analytic = *prior, .point_count = count};
    if (count == 0) return PP_OK;
    pp_gsl_start();
    fit_problem problem = {
        points, count, {log(prior->flops_per_s), log(prior->bytes_per_s), log(prior->start_s)}};
    double *errors = pp_allocate_zeroed(count, sizeof *errors);
    gsl_vector *x = gsl_vector_alloc(PARAMETERS);
    pp_status status = errors && x ? PP_OK : pp_fail_memory(error);
    if (status == PP_OK) {
        for (size_t k = 0; k < PARAMETERS; k++) gsl_vector_set(x, k, problem.prior[k]);
        if (!descend(&problem, x))
            status =
                pp_fail(error, PP_E_FAILED, NULL,
                        "no rates of arithmetic and memory could be fitted to the %zu measured "
                        "times",
                        count);
    }
    if (status == PP_OK) {
        double rates[PARAMETERS];
        rates_of(x, rates);
        fitted->analytic.flops_per_s = exp(rates[FLOPS_RATE]);
        fitted->analytic.bytes_per_s = exp(rates[BYTES_RATE]);
        fitted->analytic.start_s = exp(rates[START]);
        judge(points, count, rates, errors, fitted);
    }
    gsl_vector_free(x);
    pp_free(errors);
    return status;
}
