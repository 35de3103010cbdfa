/* Rates fitted to measurements: known rates come back from exact, noisy and spoiled points, and
 * where the points do not tell, the prior stays. */
#include "profiles/efficiency_internal.h"
#include "tests/live_bytes.h"

#include <math.h>

COUNTED_SUITE(efficiency, .timeout = 60);

static const pp_analytic prior = {
    .flops_per_s = 5e14, .bytes_per_s = 2e12, .start_s = 5e-6, .dtype = PP_BF16};

enum { SIZES = 12, POINTS = 3 * SIZES };

/* Bound by arithmetic, by memory, and small: 2^k times as much from one to the next. */
static void make_points(const pp_analytic *truth, pp_work_point points[POINTS]) {
    static const double flops_s[] = {1e-6, 1e-9, 1e-8}, bytes_s[] = {1e-8, 1e-6, 1e-9};
    for (int i = 0; i < POINTS; i++) {
        points[i].flops = flops_s[i % 3] * exp2(i / 3) * truth->flops_per_s;
        points[i].bytes = bytes_s[i % 3] * exp2(i / 3) * truth->bytes_per_s;
        points[i].seconds =
            fmax(points[i].flops / truth->flops_per_s, points[i].bytes / truth->bytes_per_s) +
            truth->start_s;
    }
}

static pp_efficiency must_fit(const pp_work_point *points, size_t count) {
    pp_efficiency fitted;
    pp_error error = {0};
    cr_assert_eq(pp_efficiency_fit(&prior, points, count, &fitted, &error), PP_OK, "%s",
                 error.message);
    return fitted;
}

static void expect_within(double actual, double expected, double share, const char *what) {
    cr_assert(fabs(actual / expected - 1) <= share, "%s: %g, expected %g within %g", what, actual,
              expected, share);
}

static void expect_rates(const pp_analytic *actual, const pp_analytic *truth, double share) {
    expect_within(actual->flops_per_s, truth->flops_per_s, share, "FLOP/s");
    expect_within(actual->bytes_per_s, truth->bytes_per_s, share, "bytes/s");
    expect_within(actual->start_s, truth->start_s, share, "start");
}

Test(efficiency, known_rates_come_back) {
    static const pp_analytic truths[] = {{7e14, 3e12, 2e-6, PP_BF16},
                                         {5e10, 8e9, 4e-7, PP_BF16}, /* a core of a CPU */
                                         {1e13, 9e11, 3e-5, PP_BF16}};
    pp_work_point points[POINTS];
    for (size_t t = 0; t < sizeof truths / sizeof *truths; t++) {
        make_points(&truths[t], points);
        pp_efficiency fitted = must_fit(points, POINTS);
        expect_rates(&fitted.analytic, &truths[t], 0.01);
        cr_assert_lt(fitted.median_error, 0.005);
        cr_assert_eq(fitted.point_count, POINTS);
        cr_assert_eq(fitted.analytic.dtype, PP_BF16);
    }
}

/* Every point off by up to 10 %, and one in nine by a factor of three. */
Test(efficiency, noise_and_outliers_do_not_carry_it_away) {
    const pp_analytic truth = {7e14, 3e12, 2e-6, PP_BF16};
    pp_work_point points[POINTS];
    pp_random_key key = pp_random_key_make(7, "efficiency", 0);
    make_points(&truth, points);
    for (int i = 0; i < POINTS; i++) {
        points[i].seconds *= 0.9 + 0.2 * pp_random_unit(key, (uint64_t)i);
        if (i % 9 == 4) points[i].seconds *= 3;
    }
    pp_efficiency fitted = must_fit(points, POINTS);
    expect_rates(&fitted.analytic, &truth, 0.15);
    cr_assert_lt(fitted.median_error, 0.12);
    cr_assert_gt(fitted.worst_error, 0.5, "the outliers are still told");
}

Test(efficiency, what_the_points_do_not_tell_stays_at_the_prior) {
    const pp_analytic truth = {7e14, 3e12, 2e-6, PP_BF16};
    pp_work_point points[POINTS], bound_by_arithmetic[SIZES];
    make_points(&truth, points);
    for (int i = 0; i < SIZES; i++) bound_by_arithmetic[i] = points[3 * i];
    pp_efficiency fitted = must_fit(bound_by_arithmetic, SIZES);
    expect_within(fitted.analytic.flops_per_s, truth.flops_per_s, 0.05, "FLOP/s");
    expect_within(fitted.analytic.bytes_per_s, prior.bytes_per_s, 0.05, "bytes/s");

    fitted = must_fit(NULL, 0);
    expect_rates(&fitted.analytic, &prior, 0);
    cr_assert_eq(fitted.point_count, 0);
}

Test(efficiency, the_order_of_the_points_does_not_matter_much) {
    const pp_analytic truth = {7e14, 3e12, 2e-6, PP_BF16};
    pp_work_point points[POINTS], reversed[POINTS];
    make_points(&truth, points);
    for (int i = 0; i < POINTS; i++) reversed[i] = points[POINTS - 1 - i];
    pp_efficiency a = must_fit(points, POINTS), b = must_fit(reversed, POINTS);
    expect_rates(&a.analytic, &b.analytic, 1e-6);
}
