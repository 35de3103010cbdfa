/* Rotary position embedding (Su et al. 2021, section 3.2.2): features i and i + size/2 of a head
 * are a point in the plane, turned by the angle position · base^(-2i/size). Pairs are half a head
 * apart, as in the Llama weights that Hugging Face publishes, not neighbours as in the paper.
 *
 * A rotation keeps lengths, so the gradient is turned back by the same angle and nothing is saved.
 */
#define PP_THIS_FILE "executor/layers/rotary.c"
#ifndef PP_REAL_PASS
#include <math.h>

enum { PAIRS = 256 }; /* angles on the stack */
#endif
#include "executor/layers/real.h"

#ifdef real

/* Pairs first … first + count - 1 of one head of one row. */
PP_VECTOR static void NAME(turn)(int64_t count, const real *restrict cosine,
                                 const real *restrict sine, real *restrict a, real *restrict b) {
    for (int64_t i = 0; i < count; i++) {
        real x = a[i], y = b[i];
        a[i] = x * cosine[i] - y * sine[i];
        b[i] = x * sine[i] + y * cosine[i];
    }
}

static void NAME(angles)(int64_t position, int64_t first, int64_t count, int64_t size, double base,
                         bool back, real *cosine, real *sine) {
    for (int64_t i = 0; i < count; i++) {
        double angle = (double)position * pow(base, -2.0 * (double)(first + i) / (double)size);
        cosine[i] = (real)cos(angle);
        sine[i] = (real)(back ? -sin(angle) : sin(angle));
    }
}

void rotate(int64_t samples, int64_t sequence, int64_t heads, int64_t size, int64_t stride,
            double base, bool back, real *x) {
    const int64_t half = size / 2;
    real cosine[PAIRS], sine[PAIRS];
    for (int64_t position = 0; position < sequence; position++) {
        for (int64_t first = 0; first < half; first += PAIRS) {
            int64_t count = half - first < PAIRS ? half - first : PAIRS;
            NAME(angles)(position, first, count, size, base, back, cosine, sine);
            for (int64_t s = 0; s < samples; s++) {
                real *head = x + (s * sequence + position) * stride + first;
                for (int64_t h = 0; h < heads; h++, head += size)
                    NAME(turn)(count, cosine, sine, head, head + half);
            }
        }
    }
}

#endif
