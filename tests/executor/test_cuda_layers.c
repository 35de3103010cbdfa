/* The cuda plugin's layers with their kernels on the host (launch_host.c), against the CPU backend
 * in double precision. The arithmetic of each element and row, and what layers make of it, is the
 * device's own source; which thread does it is not tested here. */
#include "executor/cuda/cuda_layers.h"
#include "executor/cuda/launch.h"
#include "layer_support.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(cuda_layers);

static double to_bf16(double value) {
    return (double)bf16_to_float(bf16_from_float((float)value));
}

static double to_float(double value) {
    return (double)(float)value;
}

/* ‖a - b‖ / ‖b‖; NaN, which nobody wrote, counts as far off. */
static double distance(const bench *a, const void *actual, const bench *b, const void *expected,
                       int64_t count) {
    double error = 0, norm = 1e-30;
    for (int64_t i = 0; i < count; i++) {
        double value = bench_get(b, expected, i), off = bench_get(a, actual, i) - value;
        if (isnan(off)) return INFINITY;
        error += off * off;
        norm += value * value;
    }
    return sqrt(error / norm);
}

static void run(bench *b, double start) {
    b->accumulate = start != 0;
    bench_reset(b, start);
    bench_forward(b);
    bench_input(b);
    bench_weight(b);
}

typedef struct precision {
    pp_dtype dtype;
    double limit;
    double (*rounded)(double);
} precision;
static const precision single = {PP_FP32, 1e-5, to_float}, half = {PP_BF16, 1.5e-2, to_bf16};

/* capacity and samples: of the microbatch. start: what input gradients are added to; 0: written. */
static void compare(const pp_layer *layer, precision in, int64_t capacity, int64_t samples,
                    double start) {
    bench reference, b;
    bench_init_rounded(&reference, layer, PP_FP64, capacity, samples, in.rounded);
    bench_init_rounded(&b, layer, in.dtype, capacity, samples, in.rounded);
    b.ops = pp_cuda_layer;
    run(&reference, start);
    run(&b, start);
    int output = bench_output_tensor(&b);
    int64_t rows = bench_used_rows(&b);
    if (output < 0) {
        double off = fabs(b.loss / reference.loss - 1);
        cr_expect(off < in.limit, "%s: loss %g, expected %g", layer->name, b.loss, reference.loss);
    }
    for (int i = 0; i < b.input_count; i++) {
        double off = distance(&b, b.input_gradients[i], &reference, reference.input_gradients[i],
                              rows * layer->dim);
        cr_expect(off < in.limit, "%s in %s: gradient of input %d is off by %g", layer->name,
                  pp_dtype_name(in.dtype), i, off);
    }
    for (int t = 0; t < b.tensor_count; t++) {
        if (b.list[t].role != PP_TENSOR_PARAMETER) continue;
        double off =
            distance(&b, b.gradients[t], &reference, reference.gradients[t], bench_elements(&b, t));
        cr_expect(off < in.limit, "%s in %s: gradient of %s is off by %g", layer->name,
                  pp_dtype_name(in.dtype), b.list[t].name, off);
    }
    bench_reset(&reference, 0);
    bench_reset(&b, 0);
    bench_forward(&reference);
    bench_forward(&b);
    if (output >= 0) {
        double off = distance(&b, b.tensors[output], &reference, reference.tensors[output],
                              rows * bench_features_out(&b));
        cr_expect(off < in.limit, "%s in %s: output is off by %g", layer->name,
                  pp_dtype_name(in.dtype), off);
    }
    bench_deinit(&b);
    bench_deinit(&reference);
}

Test(cuda_layers, every_op_in_fp32) {
    for (int i = 0; i < BENCH_LAYERS; i++) {
        compare(&bench_layers[i], single, 3, 3, 0);
        compare(&bench_layers[i], single, 3, 1, 0);
        compare(&bench_layers[i], single, 2, 2, 0.75);
    }
}

Test(cuda_layers, every_op_in_bf16) {
    for (int i = 0; i < BENCH_LAYERS; i++) {
        compare(&bench_layers[i], half, 3, 3, 0);
        compare(&bench_layers[i], half, 3, 1, 0);
    }
}

/* Every op that the CPU knows, the device knows too. */
Test(cuda_layers, no_op_is_missing) {
    for (int op = 0; op < PP_OP_COUNT; op++) {
        bool known = pp_cpu_layer((pp_op)op, PP_FP32) != NULL;
        cr_expect_eq(pp_cuda_layer((pp_op)op, PP_FP32) != NULL, known, "%s", pp_op_name((pp_op)op));
        cr_expect_eq(pp_cuda_layer((pp_op)op, PP_BF16) != NULL, known, "%s", pp_op_name((pp_op)op));
        cr_expect_null(pp_cuda_layer((pp_op)op, PP_FP64));
    }
}

/* Initial weights are the CPU's, to the type's precision. */
Test(cuda_layers, initial_parameters_are_the_same) {
    for (int i = 0; i < BENCH_LAYERS; i++) {
        bench cpu, b;
        bench_init(&cpu, &bench_layers[i], PP_FP32, 1, 1);
        bench_init(&b, &bench_layers[i], PP_BF16, 1, 1);
        pp_random_key key = pp_random_key_make(3, "weights", 0);
        pp_cpu_layer(cpu.layer.op, PP_FP32)->initialise(&cpu.layer, key, cpu.tensors);
        pp_cuda_layer(b.layer.op, PP_BF16)->initialise(&b.layer, key, b.tensors);
        for (int t = 0; t < b.tensor_count; t++)
            for (int64_t e = 0; b.gradients[t] && e < bench_elements(&b, t); e++)
                cr_assert_eq(bench_get(&b, b.tensors[t], e),
                             to_bf16(bench_get(&cpu, cpu.tensors[t], e)), "%s %s", b.layer.name,
                             b.list[t].name);
        bench_deinit(&cpu);
        bench_deinit(&b);
    }
}

/* ---- bf16 itself --------------------------------------------------------------------------- */

Test(cuda_layers, bf16_rounds_to_the_nearest_even) {
    for (uint32_t half_bits = 0; half_bits < 0x10000; half_bits++) {
        float value = bf16_to_float((uint16_t)half_bits);
        if (isnan(value)) {
            cr_assert(isnan(bf16_to_float(bf16_from_float(value))));
            continue;
        }
        cr_assert_eq(bf16_from_float(value), half_bits, "what is bf16 stays as it is");
    }
    const float step = 0x1p-7f; /* between neighbours from 1 on */
    cr_assert_eq(bf16_to_float(bf16_from_float(1 + 0.49f * step)), 1);
    cr_assert_eq(bf16_to_float(bf16_from_float(1 + 0.5f * step)), 1, "a tie goes to the even one");
    cr_assert_eq(bf16_to_float(bf16_from_float(1 + 0.51f * step)), 1 + step);
    cr_assert_eq(bf16_to_float(bf16_from_float(1 + 1.5f * step)), 1 + 2 * step, "and here too");
    cr_assert(isinf(bf16_to_float(bf16_from_float(3.4e38f))));
}

/* ---- the optimizer ------------------------------------------------------------------------- */

enum { WEIGHTS = 1000, STEPS = 5 };

typedef struct trained {
    float weights[WEIGHTS], gradient[WEIGHTS], first[WEIGHTS], second[WEIGHTS];
    uint16_t half[WEIGHTS], half_gradient[WEIGHTS];
} trained;

static void fill_trained(trained *t) {
    pp_random_key key = pp_random_key_make(9, "optimizer", 0);
    memset(t, 0, sizeof *t);
    for (uint64_t i = 0; i < WEIGHTS; i++) {
        t->weights[i] = (float)to_bf16(pp_random_normal(key, 2 * i));
        t->gradient[i] = (float)to_bf16(0.1 * pp_random_normal(key, 2 * i + 1));
        t->half[i] = bf16_from_float(t->weights[i]);
        t->half_gradient[i] = bf16_from_float(t->gradient[i]);
    }
}

static pp_step_factors factors_of(const pp_optimizer_settings *s, int step) {
    return (pp_step_factors){.adamw = s->kind == PP_ADAMW,
                             .rate = (float)s->learning_rate,
                             .beta1 = (float)s->beta1,
                             .beta2 = (float)s->beta2,
                             .epsilon = (float)s->epsilon,
                             .decay = (float)s->weight_decay,
                             .momentum = (float)s->momentum,
                             .correct1 = (float)(1 / (1 - pow(s->beta1, step))),
                             .correct2 = (float)(1 / (1 - pow(s->beta2, step))),
                             .gradient = (float)s->gradient_factor};
}

/* fp32 alone and bf16 with an fp32 master follow the CPU's optimizer. */
Test(cuda_layers, optimizers_step_as_on_the_cpu) {
    for (int kind = 0; kind < PP_OPTIMIZER_COUNT; kind++) {
        static trained cpu, device, mixed;
        pp_optimizer_settings settings = pp_optimizer_defaults((pp_optimizer)kind);
        settings.gradient_factor = 0.37;
        fill_trained(&cpu);
        device = mixed = cpu;
        for (int step = 1; step <= STEPS; step++) {
            void *states[] = {cpu.first, cpu.second};
            pp_step_factors f = factors_of(&settings, step);
            pp_cpu_optimizer_step(&settings, PP_FP32, step, WEIGHTS, cpu.weights, cpu.gradient,
                                  states);
            pp_launch_step((pp_launch){.bf16 = false}, &f, WEIGHTS, device.weights, device.gradient,
                           NULL, device.first, device.second);
            pp_launch_step((pp_launch){.bf16 = true}, &f, WEIGHTS, mixed.half, mixed.half_gradient,
                           mixed.weights, mixed.first, mixed.second);
        }
        for (int i = 0; i < WEIGHTS; i++) {
            cr_assert_float_eq(device.weights[i], cpu.weights[i], 1e-6);
            cr_assert_float_eq(mixed.weights[i], cpu.weights[i], 1e-6, "the master");
            cr_assert_eq(mixed.half[i], bf16_from_float(mixed.weights[i]), "is what is used");
        }
    }
}

/* One order of summation: fp32 has the CPU's bits, whatever the size; bf16 is the sum of what its
 * numbers are; and a tensor a million times as large has no less digits. */
Test(cuda_layers, squares_add_up_as_on_the_cpu) {
    enum { MOST = 300000 };
    static const int64_t counts[] = {0,    1,     2,     255,   256,    257,
                                     4095, 65535, 65536, 65537, 100003, MOST};
    static float x[MOST];
    static uint16_t narrow[MOST];
    double parts[PP_SQUARE_PARTS], sum;
    pp_random_key key = pp_random_key_make(4, "squares", 0);
    for (uint64_t i = 0; i < MOST; i++) {
        x[i] = (float)pp_random_normal(key, i);
        narrow[i] = bf16_from_float(x[i]);
    }
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        long double exact = 0, exact_half = 0;
        for (int64_t i = 0; i < counts[c]; i++) {
            exact += (long double)x[i] * x[i];
            exact_half += (long double)bf16_to_float(narrow[i]) * bf16_to_float(narrow[i]);
        }
        pp_launch_square_sum((pp_launch){.bf16 = false}, counts[c], x, parts, &sum);
        cr_assert_eq(sum, pp_cpu_square_sum(PP_FP32, counts[c], x), "%lld", (long long)counts[c]);
        cr_assert(fabsl(sum - exact) <= 1e-14L * exact, "%lld", (long long)counts[c]);
        pp_launch_square_sum((pp_launch){.bf16 = true}, counts[c], narrow, parts, &sum);
        cr_assert(fabsl(sum - exact_half) <= 1e-14L * exact_half, "%lld", (long long)counts[c]);
    }
}
