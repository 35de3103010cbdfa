/* Layer normalisation (Ba, Kiros, Hinton 2016): y = scale · normal + shift, normal = (x - μ)/σ,
 * σ² the biased variance of the row plus 1e-5.
 *
 * Only `normal` and 1/σ are kept. With g = scale · dy the gradient of the input is
 * (g - mean(g) - normal · mean(g · normal)) / σ. */
#define PP_THIS_FILE "executor/layers/norm.c"
#include "executor/layers/real.h"

#ifdef real

PP_INLINE real NAME(row_sum)(int64_t dim, const real *x) {
    real lane[PP_LANES] = {0};
    int64_t i = 0;
    for (; i + PP_LANES <= dim; i += PP_LANES)
        for (int l = 0; l < PP_LANES; l++) lane[l] += x[i + l];
    for (int l = 0; i + l < dim; l++) lane[l] += x[i + l];
    return fold_lanes(lane);
}

PP_VECTOR real row_sum_squares(int64_t dim, const real *x) {
    real lane[PP_LANES] = {0};
    int64_t i = 0;
    for (; i + PP_LANES <= dim; i += PP_LANES)
        for (int l = 0; l < PP_LANES; l++) lane[l] += x[i + l] * x[i + l];
    for (int l = 0; i + l < dim; l++) lane[l] += x[i + l] * x[i + l];
    return fold_lanes(lane);
}

PP_VECTOR void norm_forward(int64_t rows, int64_t dim, const real *x, const real *restrict scale,
                            const real *restrict shift, real *restrict normal, real *restrict rstd,
                            real *y) {
    const real one = 1, epsilon = (real)1e-5;
    for (int64_t r = 0; r < rows; r++, x += dim, normal += dim, y += dim) {
        real mean = NAME(row_sum)(dim, x) / (real)dim;
        for (int64_t i = 0; i < dim; i++) normal[i] = x[i] - mean;
        real variance = row_sum_squares(dim, normal) / (real)dim;
        real inverse = one / real_sqrt(variance + epsilon);
        for (int64_t i = 0; i < dim; i++) {
            normal[i] *= inverse;
            y[i] = normal[i] * scale[i] + shift[i];
        }
        rstd[r] = inverse;
    }
}

PP_VECTOR void norm_apply(int64_t rows, int64_t dim, const real *restrict normal,
                          const real *restrict scale, const real *restrict shift,
                          real *restrict y) {
    for (int64_t r = 0; r < rows; r++, normal += dim, y += dim)
        for (int64_t i = 0; i < dim; i++) y[i] = normal[i] * scale[i] + shift[i];
}

/* Means over one row of g = dy · scale and of g · normal. */
PP_INLINE void NAME(gradient_means)(int64_t dim, const real *dy, const real *scale,
                                    const real *normal, real *mean, real *mean_normal) {
    real lane[PP_LANES] = {0}, lane_normal[PP_LANES] = {0};
    int64_t i = 0;
    for (; i + PP_LANES <= dim; i += PP_LANES) {
        for (int l = 0; l < PP_LANES; l++) {
            real g = dy[i + l] * scale[i + l];
            lane[l] += g;
            lane_normal[l] += g * normal[i + l];
        }
    }
    for (int l = 0; i + l < dim; l++) {
        real g = dy[i + l] * scale[i + l];
        lane[l] += g;
        lane_normal[l] += g * normal[i + l];
    }
    *mean = fold_lanes(lane) / (real)dim;
    *mean_normal = fold_lanes(lane_normal) / (real)dim;
}

/* residual may be NULL; dx is apart from everything else. */
PP_VECTOR void norm_input(int64_t rows, int64_t dim, const real *restrict dy,
                          const real *restrict scale, const real *restrict normal,
                          const real *restrict rstd, const real *restrict residual,
                          real *restrict dx, bool accumulate) {
    for (int64_t r = 0; r < rows; r++) {
        const real *g = dy + r * dim, *n = normal + r * dim;
        const real *rest = residual ? residual + r * dim : NULL;
        real *out = dx + r * dim, mean, mean_normal, inverse = rstd[r];
        NAME(gradient_means)(dim, g, scale, n, &mean, &mean_normal);
        if (!accumulate && !rest) {
            for (int64_t i = 0; i < dim; i++)
                out[i] = (g[i] * scale[i] - mean - n[i] * mean_normal) * inverse;
        } else if (!accumulate) {
            for (int64_t i = 0; i < dim; i++)
                out[i] = rest[i] + (g[i] * scale[i] - mean - n[i] * mean_normal) * inverse;
        } else if (!rest) {
            for (int64_t i = 0; i < dim; i++)
                out[i] += (g[i] * scale[i] - mean - n[i] * mean_normal) * inverse;
        } else {
            for (int64_t i = 0; i < dim; i++)
                out[i] += rest[i] + (g[i] * scale[i] - mean - n[i] * mean_normal) * inverse;
        }
    }
}

PP_VECTOR void norm_weight(int64_t rows, int64_t dim, const real *restrict dy,
                           const real *restrict normal, real *restrict scale_gradient,
                           real *restrict shift_gradient) {
    for (int64_t r = 0; r < rows; r++, dy += dim, normal += dim) {
        for (int64_t i = 0; i < dim; i++) {
            scale_gradient[i] += dy[i] * normal[i];
            shift_gradient[i] += dy[i];
        }
    }
}

#endif
