/* The kernels that layers are made of (executor/layers/kernels_declared.h), on the device: each is
 * a launch or a matrix product, or a few. */
#define PP_THIS_FILE "executor/cuda/cuda_kernels.c"
#ifndef PP_REAL_PASS
#include "executor/cuda/arithmetic.h"
#include "executor/cuda/attention.h"
#include "executor/cuda/gemm.h"
#include "executor/cuda/queue.h"

#include <math.h>
#include <string.h>
#endif
#include "executor/layers/real.h"

#ifdef real

#define LAUNCH pp_cuda_launch(REAL_DTYPE == PP_BF16)
/* Statistics are fp32 in both passes. */
#define STATISTIC(x) ((float *)(void *)(uintptr_t)(x))

/* ---- rows.c -------------------------------------------------------------------------------- */

void copy_or_add(int64_t count, const real *x, real *y, bool add) {
    pp_launch_copy_or_add(LAUNCH, count, x, y, add);
}

static pp_drop NAME(drop_of)(const pp_layer_call *call, uint64_t site, int64_t per_sample) {
    return (pp_drop){.key = {call->key.word[0], call->key.word[1]},
                     .first_sample = call->first_sample,
                     .site = site,
                     .samples = call->samples,
                     .per_sample = per_sample,
                     .width = per_sample,
                     .pitch = per_sample,
                     .threshold = pp_mask_threshold(call->layer->dropout),
                     .scale = (float)(1 / (1 - call->layer->dropout))};
}

static int64_t NAME(per_sample)(const pp_layer_call *call, int64_t columns) {
    return pp_call_rows(call) / call->samples * columns;
}

void drop(const pp_layer_call *call, uint64_t site, int64_t columns, const real *x, real *y) {
    pp_drop mask = NAME(drop_of)(call, site, NAME(per_sample)(call, columns));
    pp_launch_drop(LAUNCH, &mask, x, y, NULL, false);
}

void drop_add(const pp_layer_call *call, uint64_t site, int64_t columns, const real *x, real *y) {
    pp_drop mask = NAME(drop_of)(call, site, NAME(per_sample)(call, columns));
    pp_launch_drop(LAUNCH, &mask, x, y, NULL, true);
}

void drop_rows(const pp_layer_call *call, uint64_t site, real *x, uint8_t *kept) {
    pp_drop mask = NAME(drop_of)(call, site, NAME(per_sample)(call, call->layer->dim));
    pp_launch_drop(LAUNCH, &mask, x, x, kept, false);
}

void drop_masked(const pp_layer_call *call, int64_t count, const uint8_t *mask, const real *x,
                 real *y) {
    pp_launch_masked(LAUNCH, count, mask, (float)(1 / (1 - call->layer->dropout)), x, y);
}

static void NAME(sum_columns)(int64_t rows, int64_t columns, const real *x, const real *by,
                              real *sums, real *by_sums) {
    float *parts = pp_cuda_scratch(2 * PP_COLUMN_PARTS * columns);
    if (parts) pp_launch_column_sums(LAUNCH, rows, columns, x, by, parts, sums, by_sums);
}

/* ---- matmul.c ------------------------------------------------------------------------------ */

/* y = [y +] x · weight^T */
static void NAME(times_weight)(int64_t rows, int64_t in, int64_t out, const real *x,
                               const real *weight, real *y, bool add) {
    pp_cuda_gemm(LAUNCH, &(pp_gemm){.transpose_b = true,
                                    .m = rows,
                                    .n = out,
                                    .k = in,
                                    .alpha = 1,
                                    .beta = add,
                                    .a = x,
                                    .lda = in,
                                    .b = weight,
                                    .ldb = in,
                                    .c = y,
                                    .ldc = out});
}

void linear_forward(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight,
                    const real *bias, real *y) {
    if (bias)
        linear_gelu(rows, in, out, x, weight, bias, y, NULL);
    else
        NAME(times_weight)(rows, in, out, x, weight, y, false);
}

void linear_gelu(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight,
                 const real *bias, real *y, real *activated) {
    pp_linear_run(LAUNCH, &(pp_linear){.rows = rows,
                                       .in = in,
                                       .out = out,
                                       .x = x,
                                       .weight = weight,
                                       .bias = bias,
                                       .y = y,
                                       .activated = activated});
}

void linear_join(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight,
                 const real *bias, const real *residual, real *y) {
    pp_linear_run(LAUNCH, &(pp_linear){.rows = rows,
                                       .in = in,
                                       .out = out,
                                       .x = x,
                                       .weight = weight,
                                       .bias = bias,
                                       .residual = residual,
                                       .y = y});
}

void linear_gelu_input(int64_t rows, int64_t in, int64_t out, const real *dy, const real *weight,
                       const real *before, real *dx) {
    pp_linear_back_run(LAUNCH, &(pp_linear_back){.rows = rows,
                                                 .in = in,
                                                 .out = out,
                                                 .dy = dy,
                                                 .weight = weight,
                                                 .before = before,
                                                 .dx = dx});
}

void linear_add(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight, real *y) {
    NAME(times_weight)(rows, in, out, x, weight, y, true);
}

void linear_input(int64_t rows, int64_t in, int64_t out, const real *dy, const real *weight,
                  real *dx, bool accumulate) {
    pp_cuda_gemm(LAUNCH, &(pp_gemm){.m = rows,
                                    .n = in,
                                    .k = out,
                                    .alpha = 1,
                                    .beta = accumulate,
                                    .a = dy,
                                    .lda = out,
                                    .b = weight,
                                    .ldb = in,
                                    .c = dx,
                                    .ldc = in});
}

void linear_weight(int64_t rows, int64_t in, int64_t out, const real *x, const real *dy,
                   real *weight_gradient, real *bias_gradient) {
    pp_cuda_gemm(LAUNCH, &(pp_gemm){.transpose_a = true,
                                    .m = out,
                                    .n = in,
                                    .k = rows,
                                    .alpha = 1,
                                    .beta = 1,
                                    .a = dy,
                                    .lda = out,
                                    .b = x,
                                    .ldb = in,
                                    .c = weight_gradient,
                                    .ldc = in});
    if (bias_gradient) NAME(sum_columns)(rows, out, dy, NULL, bias_gradient, NULL);
}

/* ---- norm.c, rms.c, rotary.c, activate.c --------------------------------------------------- */

void norm_forward(int64_t rows, int64_t dim, const real *x, const real *scale, const real *shift,
                  real *normal, real *rstd, real *y) {
    pp_launch_norm_forward(LAUNCH, rows, dim, true, x, scale, shift, normal, STATISTIC(rstd), y);
}

void norm_apply(int64_t rows, int64_t dim, const real *normal, const real *scale, const real *shift,
                real *y) {
    pp_launch_norm_apply(LAUNCH, rows, dim, normal, scale, shift, y);
}

void norm_input(int64_t rows, int64_t dim, const real *dy, const real *scale, const real *normal,
                const real *rstd, const real *residual, real *dx, bool accumulate) {
    pp_launch_norm_input(LAUNCH, rows, dim, true, dy, scale, normal, STATISTIC(rstd), residual, dx,
                         accumulate);
}

void norm_weight(int64_t rows, int64_t dim, const real *dy, const real *normal,
                 real *scale_gradient, real *shift_gradient) {
    NAME(sum_columns)(rows, dim, dy, normal, shift_gradient, scale_gradient);
}

void rms_forward(int64_t rows, int64_t dim, const real *x, const real *scale, real *normal,
                 real *rstd, real *y) {
    pp_launch_norm_forward(LAUNCH, rows, dim, false, x, scale, NULL, normal, STATISTIC(rstd), y);
}

void rms_apply(int64_t rows, int64_t dim, const real *normal, const real *scale, real *y) {
    pp_launch_norm_apply(LAUNCH, rows, dim, normal, scale, NULL, y);
}

void rms_input(int64_t rows, int64_t dim, const real *dy, const real *scale, const real *normal,
               const real *rstd, const real *residual, real *dx, bool accumulate) {
    pp_launch_norm_input(LAUNCH, rows, dim, false, dy, scale, normal, STATISTIC(rstd), residual, dx,
                         accumulate);
}

void rms_weight(int64_t rows, int64_t dim, const real *dy, const real *normal,
                real *scale_gradient) {
    NAME(sum_columns)(rows, dim, dy, normal, NULL, scale_gradient);
}

void rotate(int64_t samples, int64_t sequence, int64_t heads, int64_t size, int64_t stride,
            double base, bool back, real *x) {
    pp_launch_rotate(LAUNCH, samples, sequence, heads, size, stride, base, back, x);
}

void swiglu_forward(int64_t count, const real *gate, const real *up, real *y) {
    pp_launch_swiglu_forward(LAUNCH, count, gate, up, y);
}

void swiglu_input(int64_t count, const real *gate, const real *up, const real *dy,
                  real *gate_gradient, real *up_gradient) {
    pp_launch_swiglu_input(LAUNCH, count, gate, up, dy, gate_gradient, up_gradient);
}

void relu_forward(int64_t count, const real *x, real *y) {
    pp_launch_relu_forward(LAUNCH, count, x, y);
}

void relu_input(int64_t count, const real *y, const real *dy, real *dx, bool accumulate) {
    pp_launch_relu_input(LAUNCH, count, y, dy, dx, accumulate);
}

void gelu_forward(int64_t count, const real *x, real *y) {
    pp_launch_gelu_forward(LAUNCH, count, x, y);
}

void gelu_input(int64_t count, const real *x, const real *dy, real *dx, bool accumulate) {
    pp_launch_gelu_input(LAUNCH, count, x, dy, dx, accumulate);
}

/* ---- logits.c, class_loss.c, gather.c ------------------------------------------------------ */

/* Some words of the vocabulary, from `first` on. */
typedef struct NAME(words) {
    int64_t first, count;
} NAME(words);

/* Products of all words whose number is a multiple of 8, and of the rest: cuBLAS has its fast
 * kernels for such sizes alone (50257 words on an H100: a seventh of the time in two products). */
static int NAME(split_words)(const pp_layer_call *call, NAME(words) parts[2]) {
    const int64_t all = call->layer->vocabulary, most = all / 8 * 8;
    parts[0] = (NAME(words)){0, most > 0 ? most : all};
    parts[1] = (NAME(words)){most, all - most};
    return most > 0 && most < all ? 2 : 1;
}

void logits_make(const pp_layer_call *call, const real *normed, const real *weight,
                 const real *bias, real *logits) {
    const int64_t rows = pp_call_rows(call), dim = call->layer->dim;
    NAME(words) parts[2];
    int count = NAME(split_words)(call, parts);
    if (bias) /* no padding then */
        pp_launch_fill_rows(LAUNCH, rows, call->layer->vocabulary, bias, logits);
    for (int i = 0; i < count; i++)
        pp_cuda_gemm(LAUNCH, &(pp_gemm){.transpose_b = true,
                                        .m = rows,
                                        .n = parts[i].count,
                                        .k = dim,
                                        .alpha = 1,
                                        .beta = bias ? 1 : 0,
                                        .a = normed,
                                        .lda = dim,
                                        .b = weight + parts[i].first * dim,
                                        .ldb = dim,
                                        .c = logits + parts[i].first,
                                        .ldc = pp_layer_logits_stride(call->layer)});
}

void logits_make_input(const pp_layer_call *call, const real *logits, const real *weight,
                       real *normed_gradient) {
    const int64_t dim = call->layer->dim;
    NAME(words) parts[2];
    int count = NAME(split_words)(call, parts);
    for (int i = 0; i < count; i++)
        pp_cuda_gemm(LAUNCH, &(pp_gemm){.m = pp_call_rows(call),
                                        .n = dim,
                                        .k = parts[i].count,
                                        .alpha = 1,
                                        .beta = i > 0,
                                        .a = logits + parts[i].first,
                                        .lda = pp_layer_logits_stride(call->layer),
                                        .b = weight + parts[i].first * dim,
                                        .ldb = dim,
                                        .c = normed_gradient,
                                        .ldc = dim});
}

void logits_make_weight(const pp_layer_call *call, const real *normed, const real *logits,
                        real *weight_gradient, real *bias_gradient) {
    const int64_t rows = pp_call_rows(call), dim = call->layer->dim;
    NAME(words) parts[2];
    int count = NAME(split_words)(call, parts);
    for (int i = 0; i < count; i++)
        pp_cuda_gemm(LAUNCH, &(pp_gemm){.transpose_a = true,
                                        .m = parts[i].count,
                                        .n = dim,
                                        .k = rows,
                                        .alpha = 1,
                                        .beta = 1,
                                        .a = logits + parts[i].first,
                                        .lda = pp_layer_logits_stride(call->layer),
                                        .b = normed,
                                        .ldb = dim,
                                        .c = weight_gradient + parts[i].first * dim,
                                        .ldc = dim});
    if (bias_gradient)
        NAME(sum_columns)(rows, call->layer->vocabulary, logits, NULL, bias_gradient, NULL);
}

void logits_forward(const pp_layer_call *call, real *logits, real *row_sum) {
    const int64_t rows = pp_call_rows(call);
    pp_launch_class_loss_forward(LAUNCH, rows, call->layer->vocabulary,
                                 pp_layer_logits_stride(call->layer), call->targets, logits,
                                 STATISTIC(row_sum), pp_cuda_scratch(rows), pp_cuda_loss());
    pp_cuda_fetch_loss(call->loss);
}

void logits_input(const pp_layer_call *call, real *logits, const real *row_sum) {
    pp_launch_class_loss_input(
        LAUNCH, pp_call_rows(call), call->layer->vocabulary, pp_layer_logits_stride(call->layer),
        call->targets, (float)call->gradient_scale, logits, STATISTIC(row_sum), logits, false);
}

void class_loss_forward(const pp_layer_call *call, const real *x, real *row_log_sum) {
    const int64_t rows = pp_call_rows(call), classes = call->layer->dim;
    pp_launch_class_loss_forward(LAUNCH, rows, classes, classes, call->targets, x,
                                 STATISTIC(row_log_sum), pp_cuda_scratch(rows), pp_cuda_loss());
    pp_cuda_fetch_loss(call->loss);
}

void class_loss_input(const pp_layer_call *call, const real *x, const real *row_log_sum, real *dx,
                      bool accumulate) {
    const int64_t classes = call->layer->dim;
    pp_launch_class_loss_input(LAUNCH, pp_call_rows(call), classes, classes, call->targets,
                               (float)call->gradient_scale, x, STATISTIC(row_log_sum), dx,
                               accumulate);
}

void gather_tokens(int64_t rows, int64_t dim, const int32_t *tokens, const real *table, real *y) {
    pp_launch_gather_tokens(LAUNCH, rows, dim, tokens, table, y);
}

void add_positions(int64_t rows, int64_t dim, int64_t period, const real *table, real *y) {
    pp_launch_add_positions(LAUNCH, rows, dim, period, table, y);
}

void scatter_tokens(int64_t rows, int64_t dim, const int32_t *tokens, const real *dy,
                    real *gradient) {
    int32_t *chains = (int32_t *)(void *)pp_cuda_scratch(2 * rows);
    if (chains) pp_launch_scatter_tokens(LAUNCH, rows, dim, tokens, dy, chains, gradient);
}

void scatter_positions(int64_t rows, int64_t dim, int64_t period, const real *dy, real *gradient) {
    pp_launch_scatter_positions(LAUNCH, rows, dim, period, dy, gradient);
}

/* ---- attend.c ------------------------------------------------------------------------------ */

/* Heads of one sample that share keys and values, or all where none do. */
typedef struct NAME(heads) {
    const real *q, *k, *v;
    int64_t first, count; /* of q */
    int64_t qkv_stride, out_stride;
    int64_t shared; /* from one head's keys to the next's: 0 or size */
    double scale;
} NAME(heads);

static NAME(heads)
    NAME(heads_of)(const attend_call *a, int64_t sample, int64_t first, int64_t count) {
    int64_t stride = (a->heads + 2 * a->kv_heads) * a->size;
    int64_t kv = first / (a->heads / a->kv_heads);
    const real *row = a->qkv + sample * a->sequence * stride;
    return (NAME(heads)){.q = row + first * a->size,
                         .k = row + (a->heads + kv) * a->size,
                         .v = row + (a->heads + a->kv_heads + kv) * a->size,
                         .first = sample * a->heads + first,
                         .count = count,
                         .qkv_stride = stride,
                         .out_stride = a->heads * a->size,
                         .shared = a->heads == a->kv_heads ? a->size : 0,
                         .scale = 1 / sqrt((double)a->size)};
}

/* Heads in one product: all that share keys, or all there are. */
static int64_t NAME(heads_at_once)(const attend_call *a) {
    return a->heads == a->kv_heads ? a->heads : a->heads / a->kv_heads;
}

static void NAME(scores)(const attend_call *a, const NAME(heads) * h) {
    const int64_t square = a->sequence * a->sequence;
    pp_cuda_gemm(LAUNCH, &(pp_gemm){.transpose_b = true,
                                    .m = a->sequence,
                                    .n = a->sequence,
                                    .k = a->size,
                                    .alpha = h->scale,
                                    .a = h->q,
                                    .lda = h->qkv_stride,
                                    .stride_a = a->size,
                                    .b = h->k,
                                    .ldb = h->qkv_stride,
                                    .stride_b = h->shared,
                                    .c = a->probabilities + h->first * square,
                                    .ldc = a->sequence,
                                    .stride_c = square,
                                    .batch = h->count});
}

static const real *NAME(weights_of)(const attend_call *a) {
    return a->drop ? a->dropped : a->probabilities;
}

static void NAME(weigh_values)(const attend_call *a, const NAME(heads) * h) {
    const int64_t square = a->sequence * a->sequence, sample = h->first / a->heads;
    pp_cuda_gemm(LAUNCH, &(pp_gemm){.m = a->sequence,
                                    .n = a->size,
                                    .k = a->sequence,
                                    .alpha = 1,
                                    .a = NAME(weights_of)(a) + h->first * square,
                                    .lda = a->sequence,
                                    .stride_a = square,
                                    .b = h->v,
                                    .ldb = h->qkv_stride,
                                    .stride_b = h->shared,
                                    .c = a->attended + sample * a->sequence * h->out_stride +
                                         h->first % a->heads * a->size,
                                    .ldc = h->out_stride,
                                    .stride_c = a->size,
                                    .batch = h->count});
}

/* Rows of a mask begin at multiples of 4 (layers/mask.c). */
static void NAME(drop_probabilities)(const attend_call *a) {
    pp_drop mask = NAME(drop_of)(a->drop, a->site, a->heads * a->sequence * a->sequence);
    mask.width = a->sequence;
    mask.pitch = (a->sequence + 3) / 4 * 4;
    pp_launch_drop(LAUNCH, &mask, a->probabilities, a->dropped, a->mask, false);
}

/* A function of all heads that are one product. */
typedef void NAME(heads_function)(const attend_call *a, const NAME(heads) * h);

static void NAME(each_heads)(const attend_call *a, NAME(heads_function) * function) {
    const int64_t some = NAME(heads_at_once)(a);
    for (int64_t s = 0; s < a->samples; s++)
        for (int64_t first = 0; first < a->heads; first += some) {
            NAME(heads) h = NAME(heads_of)(a, s, first, some);
            function(a, &h);
        }
}

static void NAME(make_probabilities)(const attend_call *a) {
    NAME(each_heads)(a, NAME(scores));
    pp_launch_softmax(LAUNCH, a->samples * a->heads * a->sequence, a->sequence, a->causal,
                      a->probabilities);
    if (a->drop) NAME(drop_probabilities)(a);
}

static void NAME(attend_in_parts)(const void *call) {
    const attend_call *a = call;
    NAME(make_probabilities)(a);
    NAME(each_heads)(a, NAME(weigh_values));
}

static pp_attention NAME(attention_of)(const attend_call *a) {
    return (pp_attention){.samples = a->samples,
                          .sequence = a->sequence,
                          .heads = a->heads,
                          .kv_heads = a->kv_heads,
                          .size = a->size,
                          .causal = a->causal,
                          .qkv = a->qkv,
                          .kept = a->probabilities,
                          .attended = a->attended,
                          .attended_gradient = a->attended_gradient,
                          .qkv_gradient = a->qkv_gradient,
                          .in_parts = NAME(attend_in_parts),
                          .call = a};
}

static bool NAME(attend_fused)(const attend_call *a) {
    pp_attention attention = NAME(attention_of)(a);
    return !a->drop && pp_attention_forward(LAUNCH, &attention);
}

void attend_forward(const attend_call *a) {
    if (!NAME(attend_fused)(a)) NAME(attend_in_parts)(a);
}

/* The fused kernel makes what was attended again too, with the same bits. */
void attend_again(const attend_call *a) {
    if (!NAME(attend_fused)(a)) NAME(make_probabilities)(a);
}

/* The gradient of one head's weights into the scratch square, then of its scores. */
static void NAME(score_gradient)(const attend_call *a, const NAME(heads) * h, const real *dout) {
    const int64_t square = a->sequence * a->sequence, at = h->first * square;
    real *d = a->score_gradient;
    pp_cuda_gemm(LAUNCH, &(pp_gemm){.transpose_b = true,
                                    .m = a->sequence,
                                    .n = a->sequence,
                                    .k = a->size,
                                    .alpha = 1,
                                    .a = dout,
                                    .lda = h->out_stride,
                                    .b = h->v,
                                    .ldb = h->qkv_stride,
                                    .c = d,
                                    .ldc = a->sequence});
    if (a->drop) drop_masked(a->drop, square, a->mask + at, d, d);
    pp_launch_softmax_input(LAUNCH, a->sequence, a->sequence, a->probabilities + at, d);
}

/* to [sequence, size] = [to +] scale · op(square) · from */
static void NAME(through_square)(const attend_call *a, const NAME(heads) * h, bool transpose,
                                 double scale, const real *square, const real *from, int64_t ld,
                                 bool add, real *to) {
    pp_cuda_gemm(LAUNCH, &(pp_gemm){.transpose_a = transpose,
                                    .m = a->sequence,
                                    .n = a->size,
                                    .k = a->sequence,
                                    .alpha = scale,
                                    .beta = add,
                                    .a = square,
                                    .lda = a->sequence,
                                    .b = from,
                                    .ldb = ld,
                                    .c = to,
                                    .ldc = h->qkv_stride});
}

/* One head at a time: there is one square of scratch. The first of those that share keys and values
 * writes their gradients, the others add. */
void attend_input(const attend_call *a) {
    pp_attention attention = NAME(attention_of)(a);
    if (!a->drop && pp_attention_input(LAUNCH, &attention)) return;
    for (int64_t s = 0; s < a->samples; s++) {
        for (int64_t i = 0; i < a->heads; i++) {
            NAME(heads) h = NAME(heads_of)(a, s, i, 1);
            bool add = i % (a->heads / a->kv_heads) != 0;
            const real *dout = a->attended_gradient + s * a->sequence * h.out_stride + i * a->size;
            const real *weights = NAME(weights_of)(a) + h.first * a->sequence * a->sequence;
            real *to = a->qkv_gradient;
            NAME(through_square)
            (a, &h, true, 1, weights, dout, h.out_stride, add, to + (h.v - a->qkv));
            NAME(score_gradient)(a, &h, dout);
            NAME(through_square)
            (a, &h, false, h.scale, a->score_gradient, h.k, h.qkv_stride, false,
             to + (h.q - a->qkv));
            NAME(through_square)
            (a, &h, true, h.scale, a->score_gradient, h.q, h.qkv_stride, add, to + (h.k - a->qkv));
        }
    }
}

/* ---- initialise.c -------------------------------------------------------------------------- */

/* The numbers of the CPU's initialise.c, rounded to the type: made as floats and narrowed in place,
 * front to back. */
static void NAME(fill_parameter)(pp_random_key key, uint64_t start, const char *name,
                                 int64_t elements, float *values) {
    size_t length = strlen(name);
    bool weight = length >= 6 && strcmp(name + length - 6, "weight") == 0;
    float constant = length >= 5 && strcmp(name + length - 5, "scale") == 0 ? 1 : 0;
    if (weight)
        pp_random_normals_f32(key, start, elements, 0.02, values);
    else
        for (int64_t i = 0; i < elements; i++) values[i] = constant;
    for (int64_t i = 0; REAL_DTYPE == PP_BF16 && i < elements; i++) {
        uint16_t narrow = bf16_from_float(values[i]);
        memcpy((char *)values + i * 2, &narrow, 2);
    }
}

void initialise_parameters(const pp_layer *layer, pp_random_key key, void *const *tensors) {
    pp_tensor list[PP_LAYER_TENSORS];
    int count = pp_layer_tensors(layer, 1, REAL_DTYPE, list);
    for (int t = 0; t < count; t++) {
        if (list[t].role != PP_TENSOR_PARAMETER) continue;
        int64_t elements = list[t].rows * list[t].columns;
        uint64_t start = list[t].tied ? 0 : (uint64_t)(t + 1) << 40;
        float *values = pp_cuda_host_allocate((size_t)elements * sizeof *values);
        if (!values) return; /* the queue knows, and says so when it is waited for */
        NAME(fill_parameter)(key, start, list[t].name, elements, values);
        pp_cuda_upload(tensors[t], values, (size_t)pp_tensor_bytes(&list[t]));
        pp_cuda_host_release(values);
    }
}

#endif
