/* The passes of a softmax over one row: its maximum, the exponentials with their sum, division. */
#define PP_THIS_FILE "executor/layers/softmax.c"
#include "executor/layers/real.h"

#ifdef real

PP_INLINE real NAME(larger)(real a, real b) {
    return a > b ? a : b;
}

PP_VECTOR real row_max(int64_t count, const real *x) {
    real lane[PP_LANES];
    for (int l = 0; l < PP_LANES; l++) lane[l] = x[0];
    int64_t i = 0;
    for (; i + PP_LANES <= count; i += PP_LANES)
        for (int l = 0; l < PP_LANES; l++) lane[l] = NAME(larger)(x[i + l], lane[l]);
    real max = lane[0];
    for (int l = 1; l < PP_LANES; l++) max = NAME(larger)(lane[l], max);
    for (; i < count; i++) max = NAME(larger)(x[i], max);
    return max;
}

PP_VECTOR real exp_row(int64_t count, real max, real *x) {
    real lane[PP_LANES] = {0};
    int64_t i = 0;
    for (int64_t j = 0; j < count; j++) x[j] = real_exp(x[j] - max);
    for (; i + PP_LANES <= count; i += PP_LANES)
        for (int l = 0; l < PP_LANES; l++) lane[l] += x[i + l];
    for (int l = 0; i + l < count; l++) lane[l] += x[i + l];
    return fold_lanes(lane);
}

PP_VECTOR void scale_row(int64_t count, real factor, real *x) {
    for (int64_t i = 0; i < count; i++) x[i] *= factor;
}

#endif
