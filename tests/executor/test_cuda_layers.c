/* The cuda plugin's layers with their kernels on the host (launch_host.c), against the CPU backend
 * in double precision. The arithmetic of each element and row, and what layers make of it, is the
 * device's own source; which thread does it is not tested here. */
#include "executor/cuda/choice.h"
#include "executor/cuda/cuda_layers.h"
#include "executor/cuda/gemm.h"
#include "executor/cuda/launch.h"
#include "fake_device.h"
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

/* Bias and GELU inside the product: layers are as near to the CPU's as with kernels of their own.
 */
Test(cuda_layers, every_op_with_fused_epilogues) {
    fake_epilogues = true;
    for (int i = 0; i < BENCH_LAYERS; i++) {
        compare(&bench_layers[i], single, 3, 3, 0);
        compare(&bench_layers[i], half, 3, 1, 0);
    }
    fake_epilogues = false;
}

/* One linear layer both ways: the fused one rounds less, and says of widths that are no multiple of
 * 8 that it cannot keep the input of GELU. */
Test(cuda_layers, both_ways_of_a_linear_layer) {
    enum { ROWS = 5, IN = 24, WIDTH = 16 };
    for (int bf16 = 0; bf16 < 2; bf16++) {
        pp_launch launch = {.bf16 = bf16};
        pp_random_key key = pp_random_key_make(8, "linear", (uint64_t)bf16);
        float x[ROWS * IN], weight[WIDTH * IN], bias[WIDTH], out[4][ROWS * WIDTH];
        uint16_t x16[ROWS * IN], weight16[WIDTH * IN], bias16[WIDTH], out16[4][ROWS * WIDTH];
        for (uint64_t i = 0; i < ROWS * IN; i++)
            x[i] = bf16_to_float(x16[i] = bf16_from_float((float)pp_random_normal(key, i)));
        for (uint64_t i = 0; i < WIDTH * IN; i++)
            weight[i] = bf16_to_float(weight16[i] =
                                          bf16_from_float((float)pp_random_normal(key, 1000 + i)));
        for (uint64_t i = 0; i < WIDTH; i++)
            bias[i] =
                bf16_to_float(bias16[i] = bf16_from_float((float)pp_random_normal(key, 2000 + i)));
        pp_linear linear = {.rows = ROWS, .in = IN, .out = WIDTH};
        linear.x = bf16 ? (void *)x16 : x;
        linear.weight = bf16 ? (void *)weight16 : weight;
        linear.bias = bf16 ? (void *)bias16 : bias;
        for (int fused = 0; fused < 2; fused++) {
            linear.y = bf16 ? (void *)out16[2 * fused] : out[2 * fused];
            linear.activated = bf16 ? (void *)out16[2 * fused + 1] : out[2 * fused + 1];
            fake_epilogues = fused;
            pp_linear_run(launch, &linear);
        }
        for (int i = 0; i < ROWS * WIDTH; i++) {
            double sum = (double)bias[i % WIDTH];
            for (int k = 0; k < IN; k++)
                sum += (double)x[i / WIDTH * IN + k] * (double)weight[i % WIDTH * IN + k];
            double u = 0.7978845608028654 * (sum + 0.044715 * sum * sum * sum);
            double wanted[2] = {sum, 0.5 * sum * (1 + tanh(u))};
            for (int way = 0; way < 4; way++) {
                double got = bf16 ? (double)bf16_to_float(out16[way][i]) : (double)out[way][i];
                double limit = bf16 ? (way < 2 ? 0.05 : 0.005) : 1e-5;
                cr_assert(fabs(got - wanted[way % 2]) <= limit * (1 + fabs(wanted[way % 2])),
                          "way %d of %d: %g, expected %g", way, i, got, wanted[way % 2]);
            }
        }
        linear.out = WIDTH - 1;
        cr_assert(!pp_cuda_linear(launch, &linear));
        linear.activated = NULL;
        cr_assert(pp_cuda_linear(launch, &linear));
        fake_epilogues = false;
    }
}

/* ---- choosing ------------------------------------------------------------------------------ */

typedef struct two_ways {
    double fused_s, parts_s;
    int timed;
} two_ways;

static double time_of(void *context, bool fused) {
    two_ways *ways = context;
    ways->timed++;
    return fused ? ways->fused_s : ways->parts_s;
}

/* Each shape is measured once, whatever the clock says later; what is not faster is not taken. */
Test(cuda_layers, the_faster_way_is_kept) {
    static const struct {
        double fused_s, parts_s;
        bool fused;
    } cases[] = {{1, 2, true},         {2, 1, false},       {1, 1, false},
                 {INFINITY, 1, false}, {1, INFINITY, true}, {INFINITY, INFINITY, false},
                 {NAN, 1, false}};
    enum { CASES = sizeof cases / sizeof *cases };
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < CASES; i++) {
            pp_choice_key key = {.rows = 8, .in = 16, .out = 8 * i, .epilogue = 1};
            two_ways ways = {cases[i].fused_s, cases[i].parts_s, 0}, late = {2, 1, 0};
            pp_choice choice = pp_choose(&key, time_of, round ? &late : &ways);
            cr_assert_eq(choice.fused, cases[i].fused, "case %d", i);
            cr_assert_eq(choice.fresh, round == 0);
            cr_assert_eq(round ? late.timed : ways.timed, round ? 0 : 2);
        }
    two_ways fast = {1, 2, 0};
    for (int i = 0; i < 1000; i++) {
        pp_choice_key key = {.rows = 1 + i, .in = 1, .out = 1, .bf16 = 1};
        bool fused = pp_choose(&key, time_of, &fast).fused;
        cr_assert(i > 200 || fused, "shape %d", i);
        cr_assert(i < 300 || !fused, "a full table takes the parts");
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
