/* The arithmetic of root-mean-square normalisation (Zhang and Sennrich 2019): y = scale · normal,
 * normal = x / √(mean x² + 1e-5).
 *
 * With g = scale · dy the gradient of the input is (g - normal · mean(g · normal)) · rstd. */
#define PP_THIS_FILE "executor/layers/rms.c"
#include "executor/layers/real.h"

#ifdef real

PP_VECTOR void rms_forward(int64_t rows, int64_t dim, const real *x, const real *restrict scale,
                           real *restrict normal, real *restrict rstd, real *y) {
    const real one = 1, epsilon = (real)1e-5;
    for (int64_t r = 0; r < rows; r++, x += dim, normal += dim, y += dim) {
        real inverse = one / real_sqrt(row_sum_squares(dim, x) / (real)dim + epsilon);
        for (int64_t i = 0; i < dim; i++) {
            normal[i] = x[i] * inverse;
            y[i] = normal[i] * scale[i];
        }
        rstd[r] = inverse;
    }
}

PP_VECTOR void rms_apply(int64_t rows, int64_t dim, const real *restrict normal,
                         const real *restrict scale, real *restrict y) {
    for (int64_t r = 0; r < rows; r++, normal += dim, y += dim)
        for (int64_t i = 0; i < dim; i++) y[i] = normal[i] * scale[i];
}

/* Mean over one row of dy · scale · normal. */
PP_INLINE real NAME(mean_normal)(int64_t dim, const real *dy, const real *scale,
                                 const real *normal) {
    real lane[PP_LANES] = {0};
    int64_t i = 0;
    for (; i + PP_LANES <= dim; i += PP_LANES)
        for (int l = 0; l < PP_LANES; l++) lane[l] += dy[i + l] * scale[i + l] * normal[i + l];
    for (int l = 0; i + l < dim; l++) lane[l] += dy[i + l] * scale[i + l] * normal[i + l];
    return fold_lanes(lane) / (real)dim;
}

/* residual may be NULL; dx is apart from everything else. */
PP_VECTOR void rms_input(int64_t rows, int64_t dim, const real *restrict dy,
                         const real *restrict scale, const real *restrict normal,
                         const real *restrict rstd, const real *restrict residual,
                         real *restrict dx, bool accumulate) {
    for (int64_t r = 0; r < rows; r++) {
        const real *g = dy + r * dim, *n = normal + r * dim;
        real *out = dx + r * dim, inverse = rstd[r];
        real mean = NAME(mean_normal)(dim, g, scale, n);
        if (!accumulate)
            for (int64_t i = 0; i < dim; i++) out[i] = 0;
        if (residual)
            for (int64_t i = 0; i < dim; i++) out[i] += residual[r * dim + i];
        for (int64_t i = 0; i < dim; i++) out[i] += (g[i] * scale[i] - n[i] * mean) * inverse;
    }
}

PP_VECTOR void rms_weight(int64_t rows, int64_t dim, const real *restrict dy,
                          const real *restrict normal, real *restrict scale_gradient) {
    for (int64_t r = 0; r < rows; r++, dy += dim, normal += dim)
        for (int64_t i = 0; i < dim; i++) scale_gradient[i] += dy[i] * normal[i];
}

#endif
