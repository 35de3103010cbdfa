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
 * What only needs to be there once (index constants, other headers) stands before the include,
 * under #ifndef PP_REAL_PASS. Shared kernels have short names, listed below.
 *
 * Where PP_DEVICE_PASSES is defined (the cuda plugin), the two passes are in that device's types
 * instead, x_cuda_f32 and x_cuda_bf16, and kernels are declared only.
 *
 * Results must repeat bit for bit: no -ffast-math, no contraction, sums in a fixed order. Loops
 * are written so that the compiler vectorises them without reordering anything. */
#ifndef PP_REAL_PASS

#include "executor/layer.h"
#include "executor/layers/layers_internal.h"

/* The kernels of kernels_real.h by their short names, in the type of the current pass. */
#define gemm NAME(pp_gemm)
#define real_sqrt NAME(pp_sqrt)
#define real_exp NAME(pp_exp)
#define fold_lanes NAME(pp_fold)
#define copy_or_add NAME(pp_copy_or_add)
#define fill_rows NAME(pp_fill_rows)
#define column_sums NAME(pp_column_sums)
#define drop NAME(pp_drop)
#define drop_add NAME(pp_drop_add)
#define drop_keep NAME(pp_drop_keep)
#define drop_rows NAME(pp_drop_rows)
#define drop_masked NAME(pp_drop_masked)
#define linear_forward NAME(pp_linear_forward)
#define linear_gelu NAME(pp_linear_gelu)
#define linear_add NAME(pp_linear_add)
#define linear_join NAME(pp_linear_join)
#define linear_gelu_input NAME(pp_linear_gelu_input)
#define linear_input NAME(pp_linear_input)
#define linear_weight NAME(pp_linear_weight)
#define norm_forward NAME(pp_norm_forward)
#define norm_apply NAME(pp_norm_apply)
#define norm_input NAME(pp_norm_input)
#define norm_weight NAME(pp_norm_weight)
#define rms_forward NAME(pp_rms_forward)
#define rms_apply NAME(pp_rms_apply)
#define rms_input NAME(pp_rms_input)
#define rms_weight NAME(pp_rms_weight)
#define rotate NAME(pp_rotate)
#define row_sum_squares NAME(pp_row_sum_squares)
#define swiglu_forward NAME(pp_swiglu_forward)
#define swiglu_input NAME(pp_swiglu_input)
#define relu_forward NAME(pp_relu_forward)
#define relu_input NAME(pp_relu_input)
#define gelu_forward NAME(pp_gelu_forward)
#define gelu_input NAME(pp_gelu_input)
#define row_max NAME(pp_row_max)
#define exp_row NAME(pp_exp_row)
#define scale_row NAME(pp_scale_row)
#define logits_make NAME(pp_logits_make)
#define logits_make_input NAME(pp_logits_make_input)
#define logits_make_weight NAME(pp_logits_make_weight)
#define logits_forward NAME(pp_logits_forward)
#define logits_input NAME(pp_logits_input)
#define class_loss_forward NAME(pp_class_loss_forward)
#define class_loss_input NAME(pp_class_loss_input)
#define gather_tokens NAME(pp_gather_tokens)
#define add_positions NAME(pp_add_positions)
#define scatter_tokens NAME(pp_scatter_tokens)
#define scatter_positions NAME(pp_scatter_positions)
#define attend_call NAME(pp_attend_call)
#define attend_forward NAME(pp_attend_forward)
#define attend_again NAME(pp_attend_again)
#define attend_input NAME(pp_attend_input)
#define initialise_parameters NAME(pp_initialise_parameters)

#define PP_REAL_PASS
#ifdef PP_DEVICE_PASSES
#define real float
#define NAME(x) x##_cuda_f32
#define REAL_DTYPE PP_FP32
#include "executor/layers/kernels_declared.h"
#include PP_THIS_FILE
#undef real
#undef NAME
#undef REAL_DTYPE
#define real uint16_t
#define NAME(x) x##_cuda_bf16
#define REAL_DTYPE PP_BF16
#include "executor/layers/kernels_declared.h"
#include PP_THIS_FILE
#undef real
#undef NAME
#undef REAL_DTYPE
#else
#define real float
#define NAME(x) x##_f32
#define REAL_DTYPE PP_FP32
#define REAL_IS_DOUBLE 0
#include "executor/layers/kernels_real.h"
#include PP_THIS_FILE
#undef real
#undef NAME
#undef REAL_DTYPE
#undef REAL_IS_DOUBLE
#define real double
#define NAME(x) x##_f64
#define REAL_DTYPE PP_FP64
#define REAL_IS_DOUBLE 1
#include "executor/layers/kernels_real.h"
#include PP_THIS_FILE
#undef real
#undef NAME
#undef REAL_DTYPE
#undef REAL_IS_DOUBLE
#endif

#endif
