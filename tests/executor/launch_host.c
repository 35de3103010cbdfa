/* The cuda plugin's launches on the host: the arithmetic of its kernels (arithmetic.h) in loops, so
 * that everything of the plugin that computes is tested where there is no device. Products are
 * plain loops with fp32 sums. */

#include "core/core.h"
#include "executor/cuda/arithmetic.h"
#include "executor/cuda/attention.h"
#include "executor/cuda/gemm.h"
#include "executor/cuda/queue.h"
#include "executor/layer.h"
#include "fake_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define store float
#define NAME(x) x##_f32
#define load load_f32
#define save save_f32
#include "executor/cuda/arithmetic_rows.h"
#undef store
#undef NAME
#undef load
#undef save
#define store uint16_t
#define NAME(x) x##_bf16
#define load load_bf16
#define save save_bf16
#include "executor/cuda/arithmetic_rows.h"
#undef store
#undef NAME
#undef load
#undef save

static const lanes alone = {0, 1};

static float get(pp_launch l, const void *x, int64_t i) {
    x = fake_host(x);
    return l.bf16 ? load_bf16((const uint16_t *)x + i) : ((const float *)x)[i];
}

static void put(pp_launch l, void *x, int64_t i, float value) {
    x = fake_host(x);
    if (l.bf16)
        save_bf16((uint16_t *)x + i, value);
    else
        ((float *)x)[i] = value;
}

static void put_or_add(pp_launch l, void *x, int64_t i, float value, bool add) {
    put(l, x, i, add ? get(l, x, i) + value : value);
}

/* Row r of `columns`. */
static void *row_of(pp_launch l, const void *x, int64_t r, int64_t columns) {
    return (char *)fake_host(x) + r * columns * (l.bf16 ? 2 : 4);
}

#define BY_TYPE(function, ...)                                                                     \
    do {                                                                                           \
        if (l.bf16)                                                                                \
            function##_bf16(__VA_ARGS__);                                                          \
        else                                                                                       \
            function##_f32(__VA_ARGS__);                                                           \
    } while (0)

/* ---- elementwise --------------------------------------------------------------------------- */

void pp_launch_copy_or_add(pp_launch l, int64_t count, const void *x, void *y, bool add) {
    for (int64_t i = 0; i < count; i++) put_or_add(l, y, i, get(l, x, i), add);
}

void pp_launch_gelu_forward(pp_launch l, int64_t count, const void *x, void *y) {
    for (int64_t i = 0; i < count; i++) put(l, y, i, gelu(get(l, x, i)));
}

void pp_launch_gelu_input(pp_launch l, int64_t count, const void *x, const void *dy, void *dx,
                          bool accumulate) {
    for (int64_t i = 0; i < count; i++)
        put_or_add(l, dx, i, get(l, dy, i) * gelu_slope(get(l, x, i)), accumulate);
}

void pp_launch_relu_forward(pp_launch l, int64_t count, const void *x, void *y) {
    for (int64_t i = 0; i < count; i++) put(l, y, i, fmaxf(get(l, x, i), 0));
}

void pp_launch_relu_input(pp_launch l, int64_t count, const void *y, const void *dy, void *dx,
                          bool accumulate) {
    for (int64_t i = 0; i < count; i++)
        put_or_add(l, dx, i, get(l, y, i) > 0 ? get(l, dy, i) : 0, accumulate);
}

void pp_launch_swiglu_forward(pp_launch l, int64_t count, const void *gate, const void *up,
                              void *y) {
    for (int64_t i = 0; i < count; i++) put(l, y, i, swiglu(get(l, gate, i), get(l, up, i)));
}

void pp_launch_swiglu_input(pp_launch l, int64_t count, const void *gate, const void *up,
                            const void *dy, void *gate_gradient, void *up_gradient) {
    for (int64_t i = 0; i < count; i++) {
        float g = get(l, gate, i), u = get(l, up, i), d = get(l, dy, i), dg, du;
        swiglu_slopes(g, u, d, &dg, &du);
        put(l, gate_gradient, i, dg);
        put(l, up_gradient, i, du);
    }
}

void pp_launch_drop(pp_launch l, const pp_drop *drop, const void *x, void *y, uint8_t *mask,
                    bool add) {
    mask = fake_host(mask);
    for (int64_t i = 0; i < drop->samples * drop->per_sample; i++) {
        bool kept =
            mask_word(drop->key, drop_sample(i, drop->first_sample, drop->per_sample), drop->site,
                      drop_counter(i, drop->per_sample, drop->width, drop->pitch)) >=
            drop->threshold;
        put_or_add(l, y, i, kept ? get(l, x, i) * drop->scale : 0, add);
        if (mask) mask[i] = kept;
    }
}

void pp_launch_masked(pp_launch l, int64_t count, const uint8_t *mask, float scale, const void *x,
                      void *y) {
    mask = fake_host(mask);
    for (int64_t i = 0; i < count; i++) put(l, y, i, mask[i] ? get(l, x, i) * scale : 0);
}

void pp_launch_step(pp_launch l, const pp_step_factors *f, int64_t count, void *weights,
                    const void *gradient, float *master, float *first, float *second) {
    master = fake_host(master);
    first = fake_host(first);
    second = fake_host(second);
    for (int64_t i = 0; i < count; i++) {
        float weight = master ? master[i] : get(l, weights, i);
        float g = get(l, gradient, i) * f->gradient;
        if (f->adamw)
            weight = adamw(weight, g, first + i, second + i, f->rate, f->beta1, f->beta2,
                           f->epsilon, f->decay, f->correct1, f->correct2);
        else
            weight = sgd(weight, g, first + i, f->rate, f->momentum, f->decay);
        if (master) master[i] = weight;
        put(l, weights, i, weight);
    }
}

/* As the device does it, block by block and thread by thread. */
void pp_launch_square_sum(pp_launch l, int64_t count, const void *x, double *parts, double *sum) {
    for (int part = 0; part < PP_SQUARE_PARTS; part++) {
        int64_t from = part_begin(count, part, PP_SQUARE_PARTS);
        int64_t to = part_begin(count, part + 1, PP_SQUARE_PARTS);
        double found[PP_SQUARE_LANES];
        for (int i = 0; i < PP_SQUARE_LANES; i++) {
            lanes lane = {i, PP_SQUARE_LANES};
            const void *at = row_of(l, x, 1, from);
            found[i] = l.bf16 ? lane_squares_bf16(lane, to - from, at)
                              : lane_squares_f32(lane, to - from, at);
        }
        parts[part] = sum_in_order(PP_SQUARE_LANES, found);
    }
    *(double *)fake_host(sum) = sum_in_order(PP_SQUARE_PARTS, parts);
}

void pp_launch_fill_bytes(pp_launch l, void *block, int byte, int64_t size_bytes) {
    (void)l;
    memset(fake_host(block), byte, (size_t)size_bytes);
}

void pp_launch_copy_bytes(pp_launch l, void *to, const void *from, int64_t size_bytes) {
    (void)l;
    memcpy(fake_host(to), fake_host(from), (size_t)size_bytes);
}

void pp_launch_widen(pp_launch l, int64_t count, const void *x, float *y) {
    y = fake_host(y);
    for (int64_t i = 0; i < count; i++) y[i] = get(l, x, i);
}

/* ---- rows ---------------------------------------------------------------------------------- */

void pp_launch_fill_rows(pp_launch l, int64_t rows, int64_t columns, const void *row, void *y) {
    for (int64_t i = 0; i < rows * columns; i++) put(l, y, i, get(l, row, i % columns));
}

void pp_launch_column_sums(pp_launch l, int64_t rows, int64_t columns, const void *x,
                           const void *by, float *parts, void *sums, void *by_sums) {
    (void)parts;
    for (int64_t c = 0; c < columns; c++) {
        float sum = 0, by_sum = 0;
        for (int64_t i = c; i < rows * columns; i += columns) {
            sum += get(l, x, i);
            if (by) by_sum += get(l, x, i) * get(l, by, i);
        }
        if (sums) put_or_add(l, sums, c, sum, true);
        if (by_sums) put_or_add(l, by_sums, c, by_sum, true);
    }
}

void pp_launch_norm_forward(pp_launch l, int64_t rows, int64_t dim, bool centred, const void *x,
                            const void *scale, const void *shift, void *normal, float *rstd,
                            void *y) {
    rstd = fake_host(rstd);
    scale = fake_host(scale);
    shift = shift ? fake_host(shift) : NULL;
    for (int64_t r = 0; r < rows; r++)
        BY_TYPE(norm_forward_row, alone, true, dim, centred, row_of(l, x, r, dim), scale, shift,
                row_of(l, normal, r, dim), rstd + r, row_of(l, y, r, dim));
}

void pp_launch_norm_apply(pp_launch l, int64_t rows, int64_t dim, const void *normal,
                          const void *scale, const void *shift, void *y) {
    for (int64_t i = 0; i < rows * dim; i++)
        put(l, y, i,
            get(l, normal, i) * get(l, scale, i % dim) + (shift ? get(l, shift, i % dim) : 0));
}

void pp_launch_norm_input(pp_launch l, int64_t rows, int64_t dim, bool centred, const void *dy,
                          const void *scale, const void *normal, const float *rstd,
                          const void *residual, void *dx, bool accumulate) {
    rstd = fake_host(rstd);
    scale = fake_host(scale);
    for (int64_t r = 0; r < rows; r++)
        BY_TYPE(norm_input_row, alone, true, dim, centred, row_of(l, dy, r, dim), scale,
                row_of(l, normal, r, dim), rstd[r], residual ? row_of(l, residual, r, dim) : NULL,
                row_of(l, dx, r, dim), accumulate);
}

void pp_launch_rotate(pp_launch l, int64_t samples, int64_t sequence, int64_t heads, int64_t size,
                      int64_t stride, double base, bool back, void *x) {
    for (int64_t row = 0; row < samples * sequence; row++)
        for (int64_t i = 0; i < heads * (size / 2); i++) {
            int64_t pair = i % (size / 2), at = row * stride + i / (size / 2) * size + pair;
            float cosine, sine;
            rotary_angle(row % sequence, pair, size, base, back, &cosine, &sine);
            BY_TYPE(rotate_pair, row_of(l, x, 1, at), row_of(l, x, 1, at + size / 2), cosine, sine);
        }
}

/* ---- tables -------------------------------------------------------------------------------- */

void pp_launch_gather_tokens(pp_launch l, int64_t rows, int64_t dim, const int32_t *tokens,
                             const void *table, void *y) {
    tokens = fake_host(tokens);
    for (int64_t i = 0; i < rows * dim; i++)
        put(l, y, i, get(l, table, tokens[i / dim] * dim + i % dim));
}

void pp_launch_add_positions(pp_launch l, int64_t rows, int64_t dim, int64_t period,
                             const void *table, void *y) {
    for (int64_t i = 0; i < rows * dim; i++)
        put_or_add(l, y, i, get(l, table, i / dim % period * dim + i % dim), true);
}

static bool is_first(const int32_t *tokens, int64_t r) {
    for (int64_t other = 0; other < r; other++)
        if (tokens[other] == tokens[r]) return false;
    return true;
}

void pp_launch_scatter_tokens(pp_launch l, int64_t rows, int64_t dim, const int32_t *tokens,
                              const void *dy, int32_t *chains, void *gradient) {
    (void)chains;
    tokens = fake_host(tokens);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; is_first(tokens, r) && i < dim; i++) {
            float sum = 0;
            for (int64_t other = r; other < rows; other++)
                if (tokens[other] == tokens[r]) sum += get(l, dy, other * dim + i);
            put_or_add(l, gradient, tokens[r] * dim + i, sum, true);
        }
}

void pp_launch_scatter_positions(pp_launch l, int64_t rows, int64_t dim, int64_t period,
                                 const void *dy, void *gradient) {
    for (int64_t i = 0; i < (period < rows ? period : rows) * dim; i++) {
        float sum = 0;
        for (int64_t r = i / dim; r < rows; r += period) sum += get(l, dy, r * dim + i % dim);
        put_or_add(l, gradient, i, sum, true);
    }
}

/* ---- losses -------------------------------------------------------------------------------- */

static void sum_losses(int64_t rows, const float *losses, double *loss) {
    *loss = 0;
    for (int64_t r = 0; r < rows; r++) *loss += (double)losses[r];
}

void pp_launch_class_loss_forward(pp_launch l, int64_t rows, int64_t classes, int64_t stride,
                                  const int32_t *targets, const void *x, float *row_log_sum,
                                  float *losses, double *loss) {
    targets = fake_host(targets);
    row_log_sum = fake_host(row_log_sum);
    for (int64_t r = 0; r < rows; r++)
        BY_TYPE(class_loss_forward_row, alone, true, classes, targets[r], row_of(l, x, r, stride),
                row_log_sum + r, losses + r);
    sum_losses(rows, losses, loss);
}

void pp_launch_class_loss_input(pp_launch l, int64_t rows, int64_t classes, int64_t stride,
                                const int32_t *targets, float scale, const void *x,
                                const float *row_log_sum, void *dx, bool accumulate) {
    targets = fake_host(targets);
    row_log_sum = fake_host(row_log_sum);
    for (int64_t r = 0; r < rows; r++)
        BY_TYPE(class_loss_input_row, alone, true, classes, targets[r], scale,
                row_of(l, x, r, stride), row_log_sum[r], row_of(l, dx, r, stride), accumulate);
}

/* ---- attention ----------------------------------------------------------------------------- */

void pp_launch_softmax(pp_launch l, int64_t rows, int64_t sequence, bool causal, void *scores) {
    for (int64_t r = 0; r < rows; r++)
        BY_TYPE(softmax_row, alone, true, sequence, causal ? r % sequence + 1 : sequence,
                row_of(l, scores, r, sequence));
}

void pp_launch_softmax_input(pp_launch l, int64_t rows, int64_t sequence, const void *p, void *d) {
    for (int64_t r = 0; r < rows; r++)
        BY_TYPE(softmax_input_row, alone, true, sequence, row_of(l, p, r, sequence),
                row_of(l, d, r, sequence));
}

/* ---- products ------------------------------------------------------------------------------ */

static float dot(pp_launch l, const pp_gemm *g, int64_t batch, int64_t i, int64_t j) {
    float sum = 0;
    int64_t a = batch * g->stride_a, b = batch * g->stride_b;
    for (int64_t k = 0; k < g->k; k++)
        sum += get(l, g->a, a + (g->transpose_a ? k * g->lda + i : i * g->lda + k)) *
               get(l, g->b, b + (g->transpose_b ? j * g->ldb + k : k * g->ldb + j));
    return sum;
}

void pp_cuda_gemm(pp_launch l, const pp_gemm *g) {
    for (int64_t batch = 0; batch < (g->batch > 0 ? g->batch : 1); batch++)
        for (int64_t i = 0; i < g->m; i++)
            for (int64_t j = 0; j < g->n; j++) {
                int64_t at = batch * g->stride_c + i * g->ldc + j;
                float value = (float)g->alpha * dot(l, g, batch, i, j);
                if (g->beta != 0) value += (float)g->beta * get(l, g->c, at);
                put(l, g->c, at, value);
            }
}

/* As a fused epilogue computes: bias and GELU of the product's fp32 sums, each rounded once. */
bool fake_epilogues;

bool pp_cuda_linear(pp_launch l, const pp_linear *linear) {
    if (!fake_epilogues || (linear->activated && linear->out % 8 != 0)) return false;
    pp_gemm g = {.transpose_b = true,
                 .k = linear->in,
                 .a = linear->x,
                 .lda = linear->in,
                 .b = linear->weight,
                 .ldb = linear->in};
    for (int64_t i = 0; i < linear->rows; i++)
        for (int64_t j = 0; j < linear->out; j++) {
            float sum = dot(l, &g, 0, i, j) + get(l, linear->bias, j);
            if (linear->residual) sum += get(l, linear->residual, i * linear->out + j);
            put(l, linear->y, i * linear->out + j, sum);
            if (linear->activated) put(l, linear->activated, i * linear->out + j, gelu(sum));
        }
    return true;
}

bool pp_cuda_linear_back(pp_launch l, const pp_linear_back *back) {
    if (!fake_epilogues || back->in % 8 != 0) return false;
    pp_gemm g = {
        .k = back->out, .a = back->dy, .lda = back->out, .b = back->weight, .ldb = back->in};
    for (int64_t i = 0; i < back->rows; i++)
        for (int64_t j = 0; j < back->in; j++) {
            int64_t at = i * back->in + j;
            put(l, back->dx, at, dot(l, &g, 0, i, j) * gelu_slope(get(l, back->before, at)));
        }
    return true;
}

/* ---- the queue ----------------------------------------------------------------------------- */

enum { SCRATCH = 1 << 18 };
static _Thread_local _Alignas(64) float scratch[SCRATCH];
static _Thread_local double loss;

pp_launch pp_cuda_launch(bool bf16) {
    return (pp_launch){.bf16 = bf16};
}

float *pp_cuda_scratch(int64_t count) {
    return count <= SCRATCH ? scratch : NULL;
}

enum { WORKSPACE = 1 << 12 };
static _Thread_local _Alignas(64) char workspace[WORKSPACE];
static _Thread_local void *attention;
char fake_said[256], fake_failed[160];
atomic_int fake_said_count;
double fake_seconds[2] = {1, 2};

void *pp_cuda_workspace(size_t *size_bytes) {
    *size_bytes = WORKSPACE;
    return workspace;
}

void **pp_cuda_attention(void) {
    return &attention;
}

void fake_close_attention(void) {
    pp_attention_close(attention);
    attention = NULL;
}

void pp_cuda_seat(int32_t *device, int32_t *multiprocessors) {
    *device = *multiprocessors = 0;
}

/* The first way that is timed takes fake_seconds[0]. */
double pp_cuda_seconds(bool (*run)(void *context), void *context) {
    static int timed;
    return run(context) ? fake_seconds[timed++ % 2] : (double)INFINITY;
}

void pp_cuda_say(bool warns, const char *text) {
    atomic_fetch_add(&fake_said_count, 1);
    snprintf(fake_said, sizeof fake_said, "%s%s", warns ? "warning: " : "", text);
}

void pp_cuda_fail(const char *what) {
    snprintf(fake_failed, sizeof fake_failed, "%s", what);
}

double *pp_cuda_loss(void) {
    return &loss;
}

void pp_cuda_fetch_loss(double *to) {
    *to = loss;
}

void pp_cuda_upload(void *to, const void *from, size_t size_bytes) {
    memcpy(fake_host(to), from, size_bytes);
}

void *pp_cuda_host_allocate(size_t size_bytes) {
    return pp_allocate(size_bytes);
}

void pp_cuda_host_release(void *block) {
    pp_free(block);
}
