/* Optimizers over one flat tensor, in place.
 *
 * AdamW (Loshchilov and Hutter 2019, algorithm 2, schedule multiplier 1 and the decay scaled by the
 * learning rate as in common use):
 *
 *     m = β1·m + (1-β1)·g      v = β2·v + (1-β2)·g²
 *     w -= η·(m/(1-β1^t) / (√(v/(1-β2^t)) + ε) + λ·w)
 *
 * SGD with momentum: u = μ·u + g, w -= η·(u + λ·w). */
#define PP_THIS_FILE "executor/optimizer.c"
#ifndef PP_REAL_PASS
#include <assert.h>
#include <math.h>

/* The settings of one step, as factors. */
typedef struct factors {
    double rate, beta1, beta2, epsilon, decay, momentum, gradient;
    double correct1, correct2; /* 1/(1-β^t) */
} factors;
#endif
#include "executor/layers/real.h"

#ifdef real

PP_VECTOR static void NAME(adamw)(const factors *f, int64_t count, real *restrict w,
                                  const real *restrict g, real *restrict m, real *restrict v) {
    const real rate = (real)f->rate, epsilon = (real)f->epsilon, decay = (real)f->decay;
    const real keep1 = (real)f->beta1, take1 = (real)(1 - f->beta1), correct1 = (real)f->correct1;
    const real keep2 = (real)f->beta2, take2 = (real)(1 - f->beta2), correct2 = (real)f->correct2;
    const real gradient = (real)f->gradient;
    for (int64_t i = 0; i < count; i++) {
        real d = g[i] * gradient;
        m[i] = keep1 * m[i] + take1 * d;
        v[i] = keep2 * v[i] + take2 * d * d;
        real root = real_sqrt(v[i] * correct2);
        w[i] -= rate * (m[i] * correct1 / (root + epsilon) + decay * w[i]);
    }
}

PP_VECTOR static void NAME(sgd)(const factors *f, int64_t count, real *restrict w,
                                const real *restrict g, real *restrict u) {
    const real rate = (real)f->rate, momentum = (real)f->momentum, decay = (real)f->decay;
    const real gradient = (real)f->gradient;
    for (int64_t i = 0; i < count; i++) {
        u[i] = momentum * u[i] + g[i] * gradient;
        w[i] -= rate * (u[i] + decay * w[i]);
    }
}

static void NAME(step)(pp_optimizer kind, const factors *f, int64_t count, void *w, const void *g,
                       void *const *states) {
    if (kind == PP_ADAMW)
        NAME(adamw)(f, count, w, g, states[0], states[1]);
    else
        NAME(sgd)(f, count, w, g, states[0]);
}

#else

static const struct {
    int states;
    pp_optimizer_settings defaults;
} optimizer_table[PP_OPTIMIZER_COUNT] = {
    [PP_ADAMW] = {2,
                  {.kind = PP_ADAMW,
                   .learning_rate = 1e-3,
                   .beta1 = 0.9,
                   .beta2 = 0.999,
                   .epsilon = 1e-8,
                   .weight_decay = 0.01,
                   .gradient_factor = 1}},
    [PP_SGD] = {1, {.kind = PP_SGD, .learning_rate = 1e-1, .momentum = 0.9, .gradient_factor = 1}},
};

pp_optimizer_settings pp_optimizer_defaults(pp_optimizer kind) {
    return optimizer_table[kind].defaults;
}

int pp_optimizer_states(pp_optimizer kind, pp_dtype dtype) {
    return optimizer_table[kind].states + (dtype == PP_BF16);
}

void pp_cpu_optimizer_step(const pp_optimizer_settings *settings, pp_dtype dtype, int64_t step,
                           int64_t count, void *weights, const void *gradient,
                           void *const *states) {
    assert(step >= 1 && (dtype == PP_FP32 || dtype == PP_FP64));
    factors f = {.rate = settings->learning_rate,
                 .beta1 = settings->beta1,
                 .beta2 = settings->beta2,
                 .epsilon = settings->epsilon,
                 .decay = settings->weight_decay,
                 .momentum = settings->momentum,
                 .gradient = settings->gradient_factor,
                 .correct1 = 1 / (1 - pow(settings->beta1, (double)step)),
                 .correct2 = 1 / (1 - pow(settings->beta2, (double)step))};
    if (dtype == PP_FP64)
        step_f64(settings->kind, &f, count, weights, gradient, states);
    else
        step_f32(settings->kind, &f, count, weights, gradient, states);
}

#endif
