/* What the CPU's kernels are made of, for one real type, and their declarations; included by real.h
 * once for each. */

PP_INLINE void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                    double alpha, const real *a, int64_t lda, const real *b, int64_t ldb,
                    double beta, real *c, int64_t ldc) {
    const CBLAS_TRANSPOSE ta = transpose_a ? CblasTrans : CblasNoTrans;
    const CBLAS_TRANSPOSE tb = transpose_b ? CblasTrans : CblasNoTrans;
#if REAL_IS_DOUBLE
    cblas_dgemm(CblasRowMajor, ta, tb, (blasint)m, (blasint)n, (blasint)k, alpha, a, (blasint)lda,
                b, (blasint)ldb, beta, c, (blasint)ldc);
#else
    cblas_sgemm(CblasRowMajor, ta, tb, (blasint)m, (blasint)n, (blasint)k, (float)alpha, a,
                (blasint)lda, b, (blasint)ldb, (float)beta, c, (blasint)ldc);
#endif
}

PP_INLINE real real_sqrt(real x) {
#if REAL_IS_DOUBLE
    return __builtin_sqrt(x);
#else
    return __builtin_sqrtf(x);
#endif
}

/* e^x within 2 ulp, without branches. Clamped where the result would leave the normal numbers; NaN
 * stays NaN. x = n·ln 2 + r with |r| ≤ ln 2 / 2, e^r by its Taylor polynomial, 2^n from the bits
 * of the exponent. Adding and subtracting 1.5·2^(mantissa bits) rounds to an integer. */
PP_INLINE real real_exp(real x) {
#if REAL_IS_DOUBLE
    x = x < -708.0 ? -708.0 : x;
    x = x > 709.0 ? 709.0 : x;
    const double shifter = 0x1.8p52;
    union {
        double value;
        int64_t bits;
    } n = {x * 0x1.71547652b82fep0 + shifter}, scale;
    double whole = n.value - shifter;
    double r = (x - whole * 0x1.62e42fefa0000p-1) - whole * 0x1.cf79abc9e3b3ap-40;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    scale.bits = (int64_t)((uint64_t)(n.bits - INT64_C(0x4338000000000000) + 1023) << 52);
#else
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float shifter = 0x1.8p23f;
    union {
        float value;
        int32_t bits;
    } n = {x * 0x1.715476p0f + shifter}, scale;
    float whole = n.value - shifter;
    float r = (x - whole * 0x1.62ep-1f) - whole * 0x1.0bfbe8p-15f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    scale.bits = (int32_t)((uint32_t)(n.bits - INT32_C(0x4b400000) + 127) << 23);
#endif
    real tail = r + r * r * p; /* e^r - 1 */
    return scale.value + scale.value * tail;
}

/* Sums of many elements are taken in a fixed order that vectorises: element i is added to lane i %
 * PP_LANES, and the lanes are folded in halves. */
PP_INLINE real fold_lanes(const real lane[PP_LANES]) {
    real half[PP_LANES];
    memcpy(half, lane, sizeof half);
    for (int width = PP_LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) half[i] += half[i + width];
    return half[0];
}

#include "executor/layers/kernels_declared.h"
