/* One source, two real types.
 *
 * A file of layers/ that computes begins with
 *
 *     #define PP_THIS_FILE "executor/layers/gelu.c"
 *     #include "executor/layers/real.h"
 *     #ifdef real
 *     ... arithmetic on `real`, functions called NAME(something) ...
 *     #endif
 *
 * and is thereby compiled twice within itself: this header includes PP_THIS_FILE once with `real`
 * = float and NAME(x) = x_f32, once with double and x_f64. (On the way in, the header is met again
 * and then does nothing; on the way out `real` is undefined and the body is skipped.)
 *
 * Results must repeat bit for bit: no -ffast-math, no contraction, sums in a fixed order. Loops
 * are written so that the compiler vectorises them without reordering anything. */
#ifndef PP_REAL_PASS

#include "executor/layer.h"
#include "executor/layers/layers_internal.h"

#define PP_REAL_PASS
#define real float
#define NAME(x) x##_f32
#define REAL_IS_DOUBLE 0
#include "executor/layers/kernels_real.h"
#include PP_THIS_FILE
#undef real
#undef NAME
#undef REAL_IS_DOUBLE
#define real double
#define NAME(x) x##_f64
#define REAL_IS_DOUBLE 1
#include "executor/layers/kernels_real.h"
#include PP_THIS_FILE
#undef real
#undef NAME
#undef REAL_IS_DOUBLE

#endif
