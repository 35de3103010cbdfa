/* Every op's gradients against central differences in double precision. */
#include "layer_support.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(layers_gradients);

/* (f(x+h) - f(x-h)) / 2h by Richardson extrapolation: the error falls with h^4. */
static double slope(bench *b, void *values, int64_t i) {
    double at = bench_get(b, values, i), h = 1e-3, difference[2];
    for (int k = 0; k < 2; k++, h /= 2) {
        bench_set(b, values, i, at + h);
        bench_forward(b);
        double above = bench_objective(b);
        bench_set(b, values, i, at - h);
        bench_forward(b);
        difference[k] = (above - bench_objective(b)) / (2 * h);
    }
    bench_set(b, values, i, at);
    return (4 * difference[1] - difference[0]) / 3;
}

/* ‖gradient - slopes‖ / ‖slopes‖ over a whole tensor; `start` was there before I added to it. */
static double error_of(bench *b, void *values, const double *gradient, int64_t count,
                       double start) {
    double error = 0, norm = 1e-30;
    for (int64_t i = 0; i < count; i++) {
        double expected = slope(b, values, i), difference = gradient[i] - start - expected;
        error += difference * difference;
        norm += expected * expected;
    }
    return sqrt(error / norm);
}

static void check_layer(const pp_layer *layer, int64_t capacity, int64_t samples, bool accumulate) {
    bench b;
    double start = accumulate ? 0.75 : 0, limit = 1e-8;
    bench_init(&b, layer, PP_FP64, capacity, samples);
    b.accumulate = accumulate;
    bench_reset(&b, start);
    bench_forward(&b);
    bench_input(&b);
    bench_weight(&b);
    int64_t used = bench_used_rows(&b) * layer->dim, all = bench_rows(&b) * layer->dim;
    for (int i = 0; i < b.input_count; i++) {
        const double *gradient = b.input_gradients[i];
        double error = error_of(&b, b.inputs[i], gradient, used, start);
        cr_expect(error < limit, "%s: input %d is off by %g", layer->name, i, error);
        for (int64_t j = used; j < all; j++)
            cr_assert(accumulate ? gradient[j] == start : isnan(gradient[j]),
                      "%s: wrote past the last sample", layer->name);
    }
    for (int t = 0; t < b.tensor_count; t++) {
        if (b.list[t].role != PP_TENSOR_PARAMETER) continue;
        double error = error_of(&b, b.tensors[t], b.gradients[t], bench_elements(&b, t), 0);
        cr_expect(error < limit, "%s: %s is off by %g", layer->name, b.list[t].name, error);
    }
    bench_deinit(&b);
}

Test(layers_gradients, full_microbatch) {
    for (int i = 0; i < BENCH_LAYERS; i++) check_layer(&bench_layers[i], 3, 3, false);
}

Test(layers_gradients, smaller_last_microbatch) {
    for (int i = 0; i < BENCH_LAYERS; i++) check_layer(&bench_layers[i], 3, 1, false);
}

Test(layers_gradients, accumulating) {
    for (int i = 0; i < BENCH_LAYERS; i++) check_layer(&bench_layers[i], 2, 2, true);
}

/* Sequences over several row blocks of attention, not a multiple of one. */
Test(layers_gradients, long_attention) {
    pp_layer layer = {.name = "long", .op = PP_OP_ATTENTION, .dim = 2, .heads = 1, .sequence = 131};
    check_layer(&layer, 1, 1, false);
    pp_layer llama = {.name = "long_llama",
                      .op = PP_OP_LLAMA_BLOCK,
                      .dim = 4,
                      .heads = 2,
                      .kv_heads = 1,
                      .hidden = 3,
                      .sequence = 67};
    check_layer(&llama, 1, 1, false);
    pp_layer bert = {.name = "long_bert",
                     .op = PP_OP_BERT_BLOCK,
                     .dim = 8,
                     .heads = 1,
                     .hidden = 2,
                     .sequence = 65,
                     .dropout = 0.2};
    check_layer(&bert, 1, 1, false);
}

/* The planted fault: a gradient with one wrong element is refused. */
Test(layers_gradients, the_check_sees) {
    bench b;
    bench_init(&b, &bench_layers[8], PP_FP64, 1, 1);
    bench_reset(&b, 0);
    bench_forward(&b);
    bench_input(&b);
    double *gradient = b.input_gradients[0];
    gradient[2] *= 1 + 1e-5;
    cr_expect(error_of(&b, b.inputs[0], gradient, bench_used_rows(&b) * 5, 0) > 1e-8);
    bench_deinit(&b);
}

/* Rows without a target leave no trace: neither loss nor gradient. */
Test(layers_gradients, ignored_targets) {
    static const pp_op ops[] = {PP_OP_LM_HEAD, PP_OP_CROSS_ENTROPY};
    for (int k = 0; k < 2; k++) {
        pp_layer layer = {.name = "l", .op = ops[k], .dim = 6, .sequence = 3, .vocabulary = 9};
        bench b;
        bench_init(&b, &layer, PP_FP64, 2, 2);
        for (int r = 0; r < 6; r++) b.targets[r] = -1;
        bench_reset(&b, 0);
        bench_forward(&b);
        bench_input(&b);
        bench_weight(&b);
        cr_expect_eq(b.loss, 0.0);
        for (int i = 0; i < 36; i++) cr_expect_eq(((double *)b.input_gradients[0])[i], 0.0);
        for (int t = 0; t < b.tensor_count; t++)
            for (int64_t i = 0; b.gradients[t] && i < bench_elements(&b, t); i++)
                cr_expect_eq(bench_get(&b, b.gradients[t], i), 0.0);
        bench_deinit(&b);
    }
}
