/* Optimizers against the formulas step by step, and on a problem whose solution is known. */
#include "executor/layer.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>

COUNTED_SUITE(optimizer);

Test(optimizer, sgd_by_hand) {
    pp_optimizer_settings settings = pp_optimizer_defaults(PP_SGD);
    double w[2] = {1, -2}, u[2] = {0, 0}, g[2] = {0.5, 1};
    void *states[1] = {u};
    cr_assert_eq(pp_optimizer_states(PP_SGD, PP_FP32), 1);
    settings.learning_rate = 0.1;
    settings.momentum = 0.9;
    pp_cpu_optimizer_step(&settings, PP_FP64, 1, 2, w, g, states);
    cr_expect_float_eq(w[0], 1 - 0.1 * 0.5, 1e-15);
    pp_cpu_optimizer_step(&settings, PP_FP64, 2, 2, w, g, states);
    cr_expect_float_eq(w[0], 1 - 0.1 * 0.5 - 0.1 * (0.9 * 0.5 + 0.5), 1e-15);
    cr_expect_float_eq(w[1], -2 - 0.1 * 1 - 0.1 * (0.9 * 1 + 1), 1e-15);
}

/* 100 steps of both types against algorithm 2 of the paper, written out. */
Test(optimizer, adamw_follows_the_paper) {
    enum { COUNT = 37, STEPS = 100 };
    pp_optimizer_settings s = pp_optimizer_defaults(PP_ADAMW);
    double w[COUNT], m[COUNT] = {0}, v[COUNT] = {0}, g[COUNT];
    float narrow[COUNT], narrow_m[COUNT] = {0}, narrow_v[COUNT] = {0}, narrow_g[COUNT];
    double expected[COUNT], first[COUNT] = {0}, second[COUNT] = {0};
    void *states[2] = {m, v}, *narrow_states[2] = {narrow_m, narrow_v};
    pp_random_key key = pp_random_key_make(1, "adamw", 0);
    cr_assert_eq(pp_optimizer_states(PP_ADAMW, PP_FP64), 2);
    cr_assert_eq(pp_optimizer_states(PP_ADAMW, PP_BF16), 3);
    cr_assert(s.weight_decay > 0 && s.beta1 > 0 && s.beta2 > s.beta1 && s.epsilon > 0);
    for (int i = 0; i < COUNT; i++) {
        expected[i] = w[i] = pp_random_normal(key, (uint64_t)i);
        narrow[i] = (float)w[i];
    }
    for (int t = 1; t <= STEPS; t++) {
        for (int i = 0; i < COUNT; i++) {
            g[i] = pp_random_normal(key, (uint64_t)(t * COUNT + i));
            narrow_g[i] = (float)g[i];
            first[i] = s.beta1 * first[i] + (1 - s.beta1) * g[i];
            second[i] = s.beta2 * second[i] + (1 - s.beta2) * g[i] * g[i];
            double mean = first[i] / (1 - pow(s.beta1, t));
            double square = second[i] / (1 - pow(s.beta2, t));
            expected[i] -= s.learning_rate *
                           (mean / (sqrt(square) + s.epsilon) + s.weight_decay * expected[i]);
        }
        pp_cpu_optimizer_step(&s, PP_FP64, t, COUNT, w, g, states);
        pp_cpu_optimizer_step(&s, PP_FP32, t, COUNT, narrow, narrow_g, narrow_states);
    }
    for (int i = 0; i < COUNT; i++) {
        cr_expect_float_eq(w[i], expected[i], 1e-13);
        cr_expect_float_eq((double)narrow[i], expected[i], 1e-5);
    }
}

/* Both reach the minimum of Σ (w - i)²; decay pulls AdamW towards 0. */
Test(optimizer, both_find_a_minimum) {
    for (int kind = 0; kind < PP_OPTIMIZER_COUNT; kind++) {
        pp_optimizer_settings s = pp_optimizer_defaults((pp_optimizer)kind);
        double w[4] = {0}, g[4], one[4] = {0}, two[4] = {0};
        void *states[2] = {one, two};
        s.learning_rate = 0.02;
        s.weight_decay = 0;
        for (int t = 1; t <= 2000; t++) {
            for (int i = 0; i < 4; i++) g[i] = 2 * (w[i] - i);
            pp_cpu_optimizer_step(&s, PP_FP64, t, 4, w, g, states);
        }
        for (int i = 0; i < 4; i++)
            cr_expect_float_eq(w[i], i, 1e-3, "%s", pp_optimizer_name(s.kind));
    }
    pp_optimizer_settings s = pp_optimizer_defaults(PP_ADAMW);
    double w = 1, g = 0, m = 0, v = 0;
    void *states[2] = {&m, &v};
    s.learning_rate = 0.1;
    s.weight_decay = 0.5;
    pp_cpu_optimizer_step(&s, PP_FP64, 1, 1, &w, &g, states);
    cr_expect_float_eq(w, 0.95, 1e-15);
}

/* A factor on gradients is a step with gradients that were multiplied by it before. */
Test(optimizer, gradients_may_be_scaled) {
    for (int kind = 0; kind < PP_OPTIMIZER_COUNT; kind++) {
        pp_optimizer_settings scaled = pp_optimizer_defaults((pp_optimizer)kind), plain = scaled;
        double w[2][3] = {{1, 2, 3}, {1, 2, 3}}, state[4][3] = {{0}}, g[3] = {1, -4, 0.5};
        double scaled_g[3] = {0.25, -1, 0.125};
        scaled.gradient_factor = 0.25;
        for (int step = 1; step <= 5; step++) {
            pp_cpu_optimizer_step(&scaled, PP_FP64, step, 3, w[0], g,
                                  (void *[]){state[0], state[1]});
            pp_cpu_optimizer_step(&plain, PP_FP64, step, 3, w[1], scaled_g,
                                  (void *[]){state[2], state[3]});
        }
        for (int i = 0; i < 3; i++) cr_assert_eq(w[0][i], w[1][i]);
    }
}
