/* GELU, tanh form (Hendrycks and Gimpel 2016): x/2 · (1 + tanh u), u = √(2/π) · (x + 0.044715 x³).
 * Written with the logistic function, (1 + tanh u)/2 = 1/(1 + e^(-2u)): one exponential and no
 * cancellation for negative x.
 *
 * SwiGLU (Shazeer 2020): silu(gate) · up, silu(x) = x · s, s = 1/(1 + e^-x), whose slope is
 * s + x · s · (1 - s). */
#define PP_THIS_FILE "executor/layers/activate.c"
#include "executor/layers/real.h"

#ifdef real

PP_VECTOR void gelu_forward(int64_t count, const real *restrict x, real *restrict y) {
    const real twice_root = (real)1.5957691216057307118, cubic = (real)0.044715, one = 1;
    for (int64_t i = 0; i < count; i++) {
        real u = twice_root * (x[i] + cubic * x[i] * x[i] * x[i]);
        y[i] = x[i] / (one + real_exp(-u));
    }
}

/* d(x·s)/dx = s + x · s · (1 - s) · d(2u)/dx with s = 1/(1 + e^(-2u)). */
PP_INLINE real NAME(gelu_slope)(real x) {
    const real twice_root = (real)1.5957691216057307118, cubic = (real)0.044715;
    const real one = 1, three = 3;
    real square = x * x;
    real u = twice_root * (x + cubic * square * x);
    real s = one / (one + real_exp(-u));
    return s + x * s * (one - s) * twice_root * (one + three * cubic * square);
}

PP_VECTOR static void NAME(gelu_add)(int64_t count, const real *restrict x, const real *restrict dy,
                                     real *restrict dx) {
    for (int64_t i = 0; i < count; i++) dx[i] += dy[i] * NAME(gelu_slope)(x[i]);
}

PP_VECTOR static void NAME(gelu_in_place)(int64_t count, const real *restrict x,
                                          real *restrict dx) {
    for (int64_t i = 0; i < count; i++) dx[i] *= NAME(gelu_slope)(x[i]);
}

PP_VECTOR void swiglu_forward(int64_t count, const real *restrict gate, const real *restrict up,
                              real *restrict y) {
    const real one = 1;
    for (int64_t i = 0; i < count; i++) y[i] = gate[i] / (one + real_exp(-gate[i])) * up[i];
}

PP_VECTOR static void NAME(swiglu_slopes)(int64_t count, const real *restrict gate,
                                          const real *restrict up, real *restrict gate_gradient,
                                          real *restrict up_gradient) {
    const real one = 1;
    for (int64_t i = 0; i < count; i++) {
        real s = one / (one + real_exp(-gate[i])), dy = up_gradient[i];
        gate_gradient[i] = dy * up[i] * (s + gate[i] * s * (one - s));
        up_gradient[i] = dy * gate[i] * s;
    }
}

void swiglu_input(int64_t count, const real *gate, const real *up, const real *dy,
                  real *gate_gradient, real *up_gradient) {
    if (dy != up_gradient) copy_or_add(count, dy, up_gradient, false);
    NAME(swiglu_slopes)(count, gate, up, gate_gradient, up_gradient);
}

void gelu_input(int64_t count, const real *x, const real *dy, real *dx, bool accumulate) {
    if (accumulate) {
        NAME(gelu_add)(count, x, dy, dx);
    } else {
        if (dx != dy) copy_or_add(count, dy, dx, false);
        NAME(gelu_in_place)(count, x, dx);
    }
}

/* ReLU: y = max(x, 0). The gradient passes where y > 0, so only the output is kept. */
PP_VECTOR void relu_forward(int64_t count, const real *restrict x, real *restrict y) {
    for (int64_t i = 0; i < count; i++) y[i] = x[i] > 0 ? x[i] : 0;
}

PP_VECTOR void relu_input(int64_t count, const real *restrict y, const real *restrict dy,
                          real *restrict dx, bool accumulate) {
    if (accumulate)
        for (int64_t i = 0; i < count; i++) dx[i] += y[i] > 0 ? dy[i] : 0;
    else
        for (int64_t i = 0; i < count; i++) dx[i] = y[i] > 0 ? dy[i] : 0;
}

#endif
