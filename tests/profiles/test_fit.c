/* The fit: lines are found through outliers, bent curves are not forced onto a line, and whatever
 * the points, the curve neither falls nor goes below zero. */
#include "profiles/profiles.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

COUNTED_SUITE(fit, .timeout = 60);

#define POINTS 600

/* Points at sizes x[0 … sizes-1], `each` per size, from a curve with one-sided noise. */
typedef struct cloud {
    double x[POINTS], y[POINTS];
    size_t count;
} cloud;

typedef double curve(double x);

static cloud cloud_make(curve *truth, const double *x, size_t sizes, size_t each, double noise,
                        double outliers, uint64_t seed) {
    cloud made = {.count = 0};
    pp_random_key key = pp_random_key_make(seed, "cloud", 0);
    for (size_t k = 0; k < sizes; k++)
        for (size_t i = 0; i < each; i++) {
            uint64_t counter = 4 * made.count;
            double y = truth(x[k]) * (1 + noise * pp_random_normal(key, counter));
            if (pp_random_unit(key, counter + 1) < outliers)
                y *= 2 + 8 * pp_random_unit(key, counter + 2);
            made.x[made.count] = x[k];
            made.y[made.count++] = fabs(y);
        }
    return made;
}

static pp_fit fit_must(const cloud *points) {
    pp_fit fit;
    pp_error error = {0};
    cr_assert(pp_fit_points(points->x, points->y, points->count, &fit, &error) == PP_OK, "%s",
              error.message);
    return fit;
}

static void expect_near(double actual, double expected, double tolerance, const char *what) {
    cr_assert(fabs(actual - expected) <= tolerance * fabs(expected), "%s: %.9g, expected %.9g",
              what, actual, expected);
}

static double straight(double x) {
    return 2e-5 + 3e-4 * x;
}
static double through_origin(double x) {
    return 1e-4 * x;
}
static double constant(double x) {
    return 5e-5 + 0 * x;
}
static double link(double x) {
    return 4e-6 + x / 5e9;
}
/* flat while the device is not full, then a cost per sample */
static double saturating(double x) {
    return fmax(1e-3, 1.5e-4 * x);
}
static double stepwise(double x) {
    return 1e-3 * ceil(x / 4);
}
static double quadratic(double x) {
    return 1e-5 * x * x;
}

static const double powers[] = {1, 2, 4, 8, 16};
static const double dense[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
static const double byte_sizes[] = {1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216};
#define SIZES(x) (x), sizeof(x) / sizeof *(x)

Test(fit, exact_lines) {
    static const struct {
        curve *truth;
        const double *x;
        size_t sizes;
    } cases[] = {{straight, SIZES(powers)},
                 {through_origin, SIZES(powers)},
                 {constant, SIZES(powers)},
                 {link, SIZES(byte_sizes)},
                 {straight, powers, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cloud points = cloud_make(cases[i].truth, cases[i].x, cases[i].sizes, 5, 0, 0, 1);
        pp_fit fit = fit_must(&points);
        cr_assert_eq(fit.kind, PP_FIT_LINEAR, "case %zu", i);
        cr_assert_lt(fit.relative_error, 1e-9);
        for (size_t k = 0; k < cases[i].sizes; k++)
            expect_near(pp_fit_at(&fit, cases[i].x[k]), cases[i].truth(cases[i].x[k]), 1e-9, "fit");
        expect_near(pp_fit_at(&fit, 3 * cases[i].x[cases[i].sizes - 1]),
                    cases[i].truth(3 * cases[i].x[cases[i].sizes - 1]), 1e-9, "beyond");
        expect_near(pp_fit_at(&fit, 0.5 * cases[i].x[0]), cases[i].truth(0.5 * cases[i].x[0]), 1e-9,
                    "below");
    }
}

/* A fifth of the points two to ten times too long, on top of 1 % noise. */
Test(fit, outliers_do_not_move_the_line) {
    for (uint64_t seed = 0; seed < 50; seed++) {
        cloud points = cloud_make(straight, SIZES(powers), 40, 0.01, 0.2, seed);
        pp_fit fit = fit_must(&points);
        cr_assert_eq(fit.kind, PP_FIT_LINEAR, "seed %llu", (unsigned long long)seed);
        for (double x = 1; x <= 32; x *= 2)
            expect_near(pp_fit_at(&fit, x), straight(x), 0.015, "y");
    }
}

/* More points than the fit takes rows. */
/* Times that are differences of others can have a median of 0: their error is all of them, a number
 * that can be computed with. */
Test(fit, medians_of_zero) {
    double x[18], y[18];
    for (int i = 0; i < 18; i++) {
        x[i] = i < 9 ? 1 : 3;
        y[i] = i < 9 ? (i % 3 == 0 ? 2e-5 : 0) : 2e-5 + 1e-5 * i;
    }
    pp_fit fit;
    cr_assert_eq(pp_fit_points(x, y, 18, &fit, NULL), PP_OK);
    cr_assert(fit.relative_error > 0 && fit.relative_error <= 1, "%g", fit.relative_error);
    cr_assert_eq(pp_fit_at(&fit, 1), 0);
    cr_assert_eq(pp_fit_points(x, y, 9, &fit, NULL), PP_OK);
    cr_assert_eq(fit.relative_error, 1, "%g", fit.relative_error);
}

Test(fit, very_many_points) {
    enum { count = 30000 };
    static double x[count], y[count];
    pp_random_key key = pp_random_key_make(8, "many", 0);
    for (size_t i = 0; i < count; i++) {
        x[i] = powers[i % 5];
        y[i] = straight(x[i]) * (1 + 0.03 * pp_random_normal(key, i)) * (i % 11 ? 1 : 4);
    }
    pp_fit fit;
    cr_assert_eq(pp_fit_points(x, y, count, &fit, NULL), PP_OK);
    cr_assert_eq(fit.kind, PP_FIT_LINEAR);
    for (double at = 1; at <= 16; at *= 2)
        expect_near(pp_fit_at(&fit, at), straight(at), 0.01, "y");
}

/* Over four decades of size, latency and bandwidth are both found. */
Test(fit, links_keep_their_latency) {
    for (uint64_t seed = 0; seed < 50; seed++) {
        cloud points = cloud_make(link, SIZES(byte_sizes), 40, 0.01, 0.1, seed);
        pp_fit fit = fit_must(&points);
        cr_assert_eq(fit.kind, PP_FIT_LINEAR, "seed %llu", (unsigned long long)seed);
        expect_near(fit.intercept, 4e-6, 0.02, "latency");
        expect_near(1 / fit.slope, 5e9, 0.02, "bandwidth");
    }
}

Test(fit, bent_curves_are_not_forced_onto_a_line) {
    curve *const bent[] = {saturating, stepwise, quadratic};
    for (size_t i = 0; i < sizeof bent / sizeof *bent; i++)
        for (uint64_t seed = 0; seed < 30; seed++) {
            cloud points = cloud_make(bent[i], SIZES(dense), 30, 0.01, 0.1, seed);
            pp_fit fit = fit_must(&points);
            cr_assert_eq(fit.kind, PP_FIT_MONOTONE, "curve %zu seed %llu", i,
                         (unsigned long long)seed);
            for (size_t k = 0; k < sizeof dense / sizeof *dense; k++)
                expect_near(pp_fit_at(&fit, dense[k]), bent[i](dense[k]), 0.02, "at a knot");
        }
}

/* Between knots and beyond them, by hand: 10 up to 4, then 20 at 8, then 60 at 16. */
Test(fit, monotone_pieces_by_hand) {
    static const double x[] = {16, 1, 2, 4, 8}, y[] = {60, 10, 10, 10, 20};
    pp_fit fit;
    cr_assert_eq(pp_fit_points(x, y, 5, &fit, NULL), PP_OK);
    cr_assert_eq(fit.kind, PP_FIT_MONOTONE);
    static const double at[][2] = {{0.5, 10}, {1, 10},  {3, 10}, {6, 15},
                                   {12, 40},  {16, 60}, {20, 80}};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        expect_near(pp_fit_at(&fit, at[i][0]), at[i][1], 1e-12, "piece");
    cr_assert_eq(fit.relative_error, 0);
}

/* 10, 30, 20 (twice as many points), 40: the middle pools to (30 + 2·20)/3. */
Test(fit, violators_are_pooled) {
    static const double x[] = {1, 2, 3, 3, 4}, y[] = {10, 30, 20, 20, 40};
    pp_fit fit;
    cr_assert_eq(pp_fit_points(x, y, 5, &fit, NULL), PP_OK);
    cr_assert_eq(fit.kind, PP_FIT_MONOTONE);
    expect_near(fit.y[1], 70.0 / 3, 1e-12, "pool");
    expect_near(fit.y[2], 70.0 / 3, 1e-12, "pool");
    expect_near(pp_fit_at(&fit, 2.5), 70.0 / 3, 1e-12, "flat");
    cr_assert_gt(fit.relative_error, 0);
}

Test(fit, falling_points_become_flat) {
    static const double x[] = {1, 2}, y[] = {4, 2};
    pp_fit fit;
    cr_assert_eq(pp_fit_points(x, y, 2, &fit, NULL), PP_OK);
    cr_assert_eq(fit.kind, PP_FIT_MONOTONE);
    expect_near(pp_fit_at(&fit, 1), 3, 1e-12, "mean");
    expect_near(pp_fit_at(&fit, 100), 3, 1e-12, "mean");
}

Test(fit, one_knot_is_proportional) {
    static const double x[] = {4, 4, 4}, y[] = {8, 8.5, 30};
    pp_fit fit;
    cr_assert_eq(pp_fit_points(x, y, 3, &fit, NULL), PP_OK);
    expect_near(pp_fit_at(&fit, 4), 8.5, 1e-15, "median");
    expect_near(pp_fit_at(&fit, 1), 8.5 / 4, 1e-15, "ratio");
    expect_near(pp_fit_at(&fit, 8), 17, 1e-15, "ratio");
    cr_assert_eq(pp_fit_at(&fit, 0), 0);
    static const double zero[] = {0};
    cr_assert_eq(pp_fit_points(zero, y, 1, &fit, NULL), PP_OK);
    expect_near(pp_fit_at(&fit, 5), 8, 1e-15, "a size of 0 has no ratio: constant");
}

/* Ties, zeros, huge ranges, reversed orders: any points at all. */
Test(fit, never_negative_never_falling) {
    for (uint64_t seed = 0; seed < 3000; seed++) {
        pp_random_key key = pp_random_key_make(seed, "any", 0);
        double x[60], y[60];
        size_t count = 1 + (size_t)pp_random_below(key, 0, 60);
        size_t sizes = 1 + (size_t)pp_random_below(key, 1, 12);
        bool wide = pp_random_below(key, 2, 2) != 0, zeros = pp_random_below(key, 3, 4) == 0;
        for (size_t i = 0; i < count; i++) {
            double size = (double)pp_random_below(key, 10 + 3 * i, sizes);
            x[i] = wide ? pow(10, size) : size;
            y[i] = pow(10, -6 * pp_random_unit(key, 11 + 3 * i));
            if (zeros && pp_random_below(key, 12 + 3 * i, 3) == 0) y[i] = 0;
        }
        pp_fit fit;
        pp_error error = {0};
        cr_assert(pp_fit_points(x, y, count, &fit, &error) == PP_OK, "seed %llu: %s",
                  (unsigned long long)seed, error.message);
        double limit = 2 * fit.x[fit.knot_count - 1] + 1, before = 0;
        for (int i = 0; i <= 997; i++) {
            double value = pp_fit_at(&fit, limit * i / 997);
            cr_assert(value >= before && isfinite(value), "seed %llu: %g after %g at x = %g",
                      (unsigned long long)seed, value, before, limit * i / 997);
            before = value;
        }
        cr_assert(!(fit.relative_error < 0));
    }
}

Test(fit, order_of_points_does_not_matter) {
    cloud points = cloud_make(straight, SIZES(powers), 20, 0.05, 0.1, 3);
    cloud reversed = points;
    for (size_t i = 0; i < points.count; i++) {
        reversed.x[i] = points.x[points.count - 1 - i];
        reversed.y[i] = points.y[points.count - 1 - i];
    }
    pp_fit one = fit_must(&points), other = fit_must(&reversed);
    for (double x = 0; x < 40; x += 0.7) cr_assert_eq(pp_fit_at(&one, x), pp_fit_at(&other, x));
}

Test(fit, refuses_what_is_no_measurement) {
    static const double bad[][2] = {{1, NAN},      {NAN, 1}, {1, INFINITY},
                                    {INFINITY, 1}, {-1, 1},  {1, -1}};
    pp_fit fit;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(pp_fit_points(&bad[i][0], &bad[i][1], 1, &fit, NULL), PP_E_INPUT);
    cr_assert_eq(pp_fit_points(NULL, NULL, 0, &fit, NULL), PP_E_INPUT);
    double many[PP_FIT_KNOTS + 1];
    for (int i = 0; i <= PP_FIT_KNOTS; i++) many[i] = i + 1;
    cr_assert_eq(pp_fit_points(many, many, PP_FIT_KNOTS, &fit, NULL), PP_OK);
    cr_assert_eq(pp_fit_points(many, many, PP_FIT_KNOTS + 1, &fit, NULL), PP_E_INPUT);
    cr_assert_eq(pp_live_bytes(), 0);
}
