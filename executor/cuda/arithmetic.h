/* The arithmetic of the cuda plugin's kernels, once for the device and once for the host.
 *
 * A function here works on one element or one row. On the device a row belongs to a block, whose
 * threads are the lanes; on the host there is one lane. Sums over a row go through lanes_sum, which
 * on the device adds up all lanes in a fixed order. Tensors are read and written through `load` and
 * `save`, in fp32 or bf16; all else is fp32.
 *
 * In C the file is included once for each type, with `store` and NAME defined; in CUDA likewise. */
#ifndef PPSIM_EXECUTOR_CUDA_ARITHMETIC_H
#define PPSIM_EXECUTOR_CUDA_ARITHMETIC_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define PP_DEVICE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#else
#define PP_DEVICE static inline __attribute__((unused))
#define UNROLL
#endif

/* ---- lanes --------------------------------------------------------------------------------- */

#ifdef __CUDACC__

/* The threads that share a row: 32, a warp, or a block of more, a multiple of 32, whose scratch
 * holds a number for each warp. */
typedef struct lanes {
    int index, count;
    float *scratch;
} lanes;

PP_DEVICE float warp_sum(float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

PP_DEVICE float warp_max(float x) {
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

/* Of all lanes, to all lanes. Every lane must come. */
PP_DEVICE float lanes_sum(lanes l, float x) {
    x = warp_sum(x);
    if (l.count == 32) return x;
    __syncthreads(); /* scratch may still be read */
    if (l.index % 32 == 0) l.scratch[l.index / 32] = x;
    __syncthreads();
    float sum = 0;
    for (int warp = 0; warp < l.count / 32; warp++) sum += l.scratch[warp];
    return sum;
}

PP_DEVICE float lanes_max(lanes l, float x) {
    x = warp_max(x);
    if (l.count == 32) return x;
    __syncthreads();
    if (l.index % 32 == 0) l.scratch[l.index / 32] = x;
    __syncthreads();
    float max = l.scratch[0];
    for (int warp = 1; warp < l.count / 32; warp++) max = fmaxf(max, l.scratch[warp]);
    return max;
}

#else

typedef struct lanes {
    int index, count;
} lanes;

PP_DEVICE float lanes_sum(lanes l, float x) {
    (void)l;
    return x;
}

PP_DEVICE float lanes_max(lanes l, float x) {
    (void)l;
    return x;
}

#endif

/* ---- sums of squares ----------------------------------------------------------------------- */

/* Packs of a row that a lane keeps at most (arithmetic_rows.h). */
enum { KEPT = 8 };

/* Rows are added up in so many parts, and the parts in order. */
enum { PP_COLUMN_PARTS = 64 };

/* The squares of a tensor add up in double: in each of so many parts by so many lanes (a block's
 * threads), lane j taking every element j, j + lanes, …; then over the lanes, then over the parts.
 * The order, and so every bit, depends on the tensor's size alone: it is the same on the host. */
enum { PP_SQUARE_PARTS = 256, PP_SQUARE_LANES = 256 };

/* Where part `part` of so many begins, of `count` elements. */
PP_DEVICE int64_t part_begin(int64_t count, int part, int parts) {
    return count / parts * part + count % parts * part / parts;
}

PP_DEVICE double sum_in_order(int count, const double *x) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += x[i];
    return sum;
}

/* ---- bf16 ---------------------------------------------------------------------------------- */

/* The upper half of a float. */
PP_DEVICE float bf16_to_float(uint16_t half) {
    union {
        uint32_t bits;
        float value;
    } whole;
    whole.bits = (uint32_t)half << 16;
    return whole.value;
}

/* To the nearest, ties to even; NaN stays NaN. */
PP_DEVICE uint16_t bf16_from_float(float value) {
    union {
        float value;
        uint32_t bits;
    } whole;
    whole.value = value;
    if ((whole.bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(whole.bits >> 16 | 0x40u);
    return (uint16_t)((whole.bits + 0x7fffu + (whole.bits >> 16 & 1u)) >> 16);
}

PP_DEVICE float load_f32(const float *x) {
    return *x;
}

PP_DEVICE float load_bf16(const uint16_t *x) {
    return bf16_to_float(*x);
}

PP_DEVICE void save_f32(float *x, float value) {
    *x = value;
}

PP_DEVICE void save_bf16(uint16_t *x, float value) {
    *x = bf16_from_float(value);
}

/* ---- elements ------------------------------------------------------------------------------ */

/* GELU, tanh form: x · s, s = 1/(1 + e^(-2u)), u = √(2/π) · (x + 0.044715 x³) (layers/activate.c).
 */
PP_DEVICE float logistic(float x) {
    return 1.0f / (1.0f + expf(-x));
}

PP_DEVICE float gelu(float x) {
    return x * logistic(1.5957691216057307f * (x + 0.044715f * x * x * x));
}

PP_DEVICE float gelu_slope(float x) {
    float square = x * x;
    float s = logistic(1.5957691216057307f * (x + 0.044715f * square * x));
    return s + x * s * (1.0f - s) * 1.5957691216057307f * (1.0f + 3.0f * 0.044715f * square);
}

/* SwiGLU: silu(gate) · up (layers/activate.c), and the gradients of both. */
PP_DEVICE float swiglu(float gate, float up) {
    return gate * logistic(gate) * up;
}

PP_DEVICE void swiglu_slopes(float gate, float up, float dy, float *gate_gradient,
                             float *up_gradient) {
    float s = logistic(gate);
    *gate_gradient = dy * up * (s + gate * s * (1.0f - s));
    *up_gradient = dy * gate * s;
}

/* Of one pair of features (layers/rotary.c). */
PP_DEVICE void rotary_angle(int64_t position, int64_t pair, int64_t size, double base, bool back,
                            float *cosine, float *sine) {
    double angle = (double)position * pow(base, -2.0 * (double)pair / (double)size);
    *cosine = (float)cos(angle);
    *sine = (float)(back ? -sin(angle) : sin(angle));
}

/* Where element i of all samples is drawn (launch.h, pp_drop). */
PP_DEVICE uint64_t drop_sample(int64_t i, uint64_t first_sample, int64_t per_sample) {
    return first_sample + (uint64_t)(i / per_sample);
}

PP_DEVICE uint64_t drop_counter(int64_t i, int64_t per_sample, int64_t width, int64_t pitch) {
    int64_t e = i % per_sample;
    return (uint64_t)(e / width * pitch + e % width);
}

/* The block (high, number + site · 2^40): Philox 4x32-10 (core/random.c). */
PP_DEVICE void mask_block(const uint32_t key[2], uint64_t high, uint64_t site, uint64_t number,
                          uint32_t word[4]) {
    uint64_t low = (site << 40) + number;
    uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32);
    uint32_t c2 = (uint32_t)high, c3 = (uint32_t)(high >> 32);
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

/* Of element e of a mask. */
PP_DEVICE uint32_t mask_word(const uint32_t key[2], uint64_t high, uint64_t site, uint64_t e) {
    uint32_t word[4];
    mask_block(key, high, site, e / 4, word);
    return e % 4 == 0 ? word[0] : e % 4 == 1 ? word[1] : e % 4 == 2 ? word[2] : word[3];
}

/* The new weight; states are updated (executor/optimizer.c has the formulas and their sources). */
PP_DEVICE float adamw(float weight, float gradient, float *m, float *v, float rate, float beta1,
                      float beta2, float epsilon, float decay, float correct1, float correct2) {
    *m = beta1 * *m + (1.0f - beta1) * gradient;
    *v = beta2 * *v + (1.0f - beta2) * gradient * gradient;
    float root = sqrtf(*v * correct2);
    return weight - rate * (*m * correct1 / (root + epsilon) + decay * weight);
}

PP_DEVICE float sgd(float weight, float gradient, float *u, float rate, float momentum,
                    float decay) {
    *u = momentum * *u + gradient;
    return weight - rate * (*u + decay * weight);
}

#endif
