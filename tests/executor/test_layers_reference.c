/* Layers against plain formulas, fp32 against fp64, and the promises of repeatability. */
#include "executor/layers/layers_internal.h"
#include "layer_support.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(layers_reference);

/* ---- plain formulas, written without regard to speed ---------------------------------------- */

static double logistic_gelu(double x) {
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static void naive_norm(const double *x, int64_t dim, const double *scale, const double *shift,
                       double *y) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < dim; i++) mean += x[i] / (double)dim;
    for (int64_t i = 0; i < dim; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)dim;
    for (int64_t i = 0; i < dim; i++)
        y[i] = (x[i] - mean) / sqrt(variance + 1e-5) * scale[i] + shift[i];
}

static void naive_linear(const double *x, int64_t in, int64_t out, const double *weight,
                         const double *bias, double *y) {
    for (int64_t o = 0; o < out; o++) {
        y[o] = bias ? bias[o] : 0;
        for (int64_t i = 0; i < in; i++) y[o] += x[i] * weight[o * in + i];
    }
}

/* Row `row` of a sample: attention over rows 0 … row of qkv [sequence, 3·dim]. */
static void naive_attend(const double *qkv, int64_t row, int64_t dim, int64_t heads, double *y) {
    int64_t size = dim / heads;
    for (int64_t h = 0; h < heads; h++) {
        double weight[64], sum = 0;
        for (int64_t j = 0; j <= row; j++) {
            double score = 0;
            for (int64_t i = 0; i < size; i++)
                score += qkv[row * 3 * dim + h * size + i] * qkv[j * 3 * dim + dim + h * size + i];
            sum += weight[j] = exp(score / sqrt((double)size));
        }
        for (int64_t i = 0; i < size; i++) {
            y[h * size + i] = 0;
            for (int64_t j = 0; j <= row; j++)
                y[h * size + i] += weight[j] / sum * qkv[j * 3 * dim + 2 * dim + h * size + i];
        }
    }
}

enum { DIM = 6, HEADS = 2, SEQUENCE = 5 };

/* y = x + proj(attention(norm1 x)), then + mlp(norm2 ·), for one sample without dropout. */
static void naive_block(void *const *p, const double *x, double *y) {
    double normed[4 * DIM], qkv[SEQUENCE * 3 * DIM], mixed[DIM], inner[4 * DIM], out[DIM];
    for (int r = 0; r < SEQUENCE; r++) {
        naive_norm(x + r * DIM, DIM, p[0], p[1], normed);
        naive_linear(normed, DIM, 3 * DIM, p[2], p[3], qkv + r * 3 * DIM);
    }
    for (int r = 0; r < SEQUENCE; r++) {
        naive_attend(qkv, r, DIM, HEADS, mixed);
        naive_linear(mixed, DIM, DIM, p[4], p[5], out);
        for (int i = 0; i < DIM; i++) y[r * DIM + i] = x[r * DIM + i] + out[i];
        naive_norm(y + r * DIM, DIM, p[6], p[7], normed);
        naive_linear(normed, DIM, 4 * DIM, p[8], p[9], inner);
        for (int i = 0; i < 4 * DIM; i++) inner[i] = logistic_gelu(inner[i]);
        naive_linear(inner, 4 * DIM, DIM, p[10], p[11], out);
        for (int i = 0; i < DIM; i++) y[r * DIM + i] += out[i];
    }
}

Test(layers_reference, gpt_block) {
    pp_layer layer = {
        .name = "b", .op = PP_OP_GPT_BLOCK, .dim = DIM, .heads = HEADS, .sequence = SEQUENCE};
    bench b;
    bench_init(&b, &layer, PP_FP64, 3, 2);
    bench_reset(&b, 0);
    bench_forward(&b);
    double expected[SEQUENCE * DIM];
    for (int s = 0; s < 2; s++) {
        const double *x = (const double *)b.inputs[0] + s * SEQUENCE * DIM;
        const double *y = (const double *)b.tensors[bench_output_tensor(&b)] + s * SEQUENCE * DIM;
        naive_block(b.tensors, x, expected);
        for (int i = 0; i < SEQUENCE * DIM; i++) cr_expect_float_eq(y[i], expected[i], 1e-12);
    }
    bench_deinit(&b);
}

Test(layers_reference, embedding) {
    bench b;
    bench_init(&b, &bench_layers[0], PP_FP64, 2, 2);
    bench_reset(&b, 0);
    bench_forward(&b);
    const double *token = b.tensors[0], *position = b.tensors[1], *y = b.tensors[2];
    for (int r = 0; r < 6; r++)
        for (int i = 0; i < 5; i++)
            cr_expect_eq(y[r * 5 + i], token[b.tokens[r] * 5 + i] + position[r % 3 * 5 + i]);
    bench_deinit(&b);
}

static double naive_loss(const double *logits, int64_t classes, int32_t target) {
    double sum = 0;
    if (target < 0) return 0;
    for (int64_t i = 0; i < classes; i++) sum += exp(logits[i]);
    return log(sum) - logits[target];
}

Test(layers_reference, losses) {
    pp_layer head = {
        .name = "h", .op = PP_OP_LM_HEAD, .dim = DIM, .sequence = SEQUENCE, .vocabulary = 37};
    pp_layer plain = {.name = "c", .op = PP_OP_CROSS_ENTROPY, .dim = 37};
    double normed[DIM], logits[37], expected = 0;
    bench b;
    bench_init(&b, &head, PP_FP64, 2, 2);
    bench_reset(&b, 0);
    bench_forward(&b);
    for (int r = 0; r < 2 * SEQUENCE; r++) {
        naive_norm((double *)b.inputs[0] + r * DIM, DIM, b.tensors[0], b.tensors[1], normed);
        naive_linear(normed, DIM, 37, b.tensors[2], NULL, logits);
        expected += naive_loss(logits, 37, b.targets[r]);
    }
    cr_expect_float_eq(b.loss, expected, 1e-12);
    bench_deinit(&b);
    bench_init(&b, &plain, PP_FP64, 5, 5);
    bench_reset(&b, 0);
    bench_forward(&b);
    expected = 0;
    for (int r = 0; r < 5; r++)
        expected += naive_loss((double *)b.inputs[0] + r * 37, 37, b.targets[r]);
    cr_expect_float_eq(b.loss, expected, 1e-12);
    bench_deinit(&b);
}

/* Huge logits neither overflow nor lose the loss. */
Test(layers_reference, losses_are_stable) {
    for (int k = 0; k < 2; k++) {
        pp_layer layer = {.name = "c", .op = PP_OP_CROSS_ENTROPY, .dim = 3};
        bench b;
        bench_init(&b, &layer, k ? PP_FP64 : PP_FP32, 1, 1);
        bench_set(&b, b.inputs[0], 0, 1e4);
        bench_set(&b, b.inputs[0], 1, -1e4);
        bench_set(&b, b.inputs[0], 2, 1e4);
        b.targets[0] = 1;
        bench_reset(&b, 0);
        bench_forward(&b);
        bench_input(&b);
        cr_expect_float_eq(b.loss, 2e4 + log(2), 1e-2);
        cr_expect_float_eq(bench_get(&b, b.input_gradients[0], 0), 0.5 * b.gradient_scale, 1e-3);
        cr_expect_float_eq(bench_get(&b, b.input_gradients[0], 1), -b.gradient_scale, 1e-6);
        bench_deinit(&b);
    }
}

/* Over the whole line: exact at 0, odd part, saturation, a few ulp elsewhere. */
Test(layers_reference, gelu_is_accurate) {
    enum { COUNT = 4001 };
    pp_layer layer = {.name = "g", .op = PP_OP_GELU, .dim = COUNT};
    for (int k = 0; k < 2; k++) {
        bench b;
        bench_init(&b, &layer, k ? PP_FP64 : PP_FP32, 1, 1);
        for (int i = 0; i < COUNT; i++) bench_set(&b, b.inputs[0], i, (i - COUNT / 2) * 0.01);
        bench_reset(&b, 0);
        bench_forward(&b);
        for (int i = 0; i < COUNT; i++) {
            double x = bench_get(&b, b.inputs[0], i), y = bench_get(&b, b.tensors[0], i);
            double u = sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
            double expected = x / (1 + exp(-2 * u));
            /* an ulp of u counts 2u times in the exponential */
            double limit = fabs(expected) * (1 + fabs(u)) * (k ? 4e-15 : 2e-6) + 1e-35;
            cr_assert_float_eq(y, expected, limit, "gelu(%g) = %.17g, not %.17g", x, y, expected);
        }
        bench_deinit(&b);
    }
}

/* The kernels of softmax.c, in both types (kernels_real.h). */
float pp_exp_row_f32(int64_t count, float max, float *x);
double pp_exp_row_f64(int64_t count, double max, double *x);

Test(layers_reference, exponentials_are_accurate) {
    for (int i = -70000; i <= 70000; i += 7) {
        double wide = i * 0.01, near = i * 1e-5;
        float narrow = (float)(i * 0.00124), narrow_near = (float)near;
        double expected = exp(wide), expected_near = exp(near);
        double narrow_expected = exp((double)narrow),
               narrow_expected_near = exp((double)narrow_near);
        pp_exp_row_f64(1, 0, &wide);
        pp_exp_row_f64(1, 0, &near);
        pp_exp_row_f32(1, 0, &narrow);
        pp_exp_row_f32(1, 0, &narrow_near);
        cr_assert(fabs(wide - expected) <= expected * 0x1p-52, "exp(%g)", i * 0.01);
        cr_assert(fabs(near - expected_near) <= expected_near * 0x1p-52, "exp(%g)", i * 1e-5);
        cr_assert(fabs((double)narrow - narrow_expected) <= narrow_expected * 0x1p-23, "%d", i);
        cr_assert(fabs((double)narrow_near - narrow_expected_near) <=
                  narrow_expected_near * 0x1p-23);
    }
    double nan64 = NAN, tiny = -1e6;
    float nan32 = NAN, tiny32 = -1e6f;
    cr_expect(isnan(pp_exp_row_f64(1, 0, &nan64)) && isnan(pp_exp_row_f32(1, 0, &nan32)));
    cr_expect(pp_exp_row_f64(1, 0, &tiny) < 1e-300 && pp_exp_row_f32(1, 0, &tiny32) < 1e-36f);
}

/* ---- dropout ----------------------------------------------------------------------------------
 */

/* The masks are those of pp_random_block, whatever the position and length. */
Test(layers_reference, masks_are_philox) {
    pp_random_key key = pp_random_key_make(1, "mask", 2);
    uint32_t words[300], block[4];
    for (int64_t first = 0; first < 40; first += 4) {
        for (int64_t count = 1; count < 300; count += 37) {
            pp_mask_words(key, UINT64_C(0x123456789), 3, first, count, words);
            for (int64_t e = 0; e < count; e++) {
                uint64_t low = (UINT64_C(3) << 40) + (uint64_t)(first + e) / 4;
                pp_random_block(key, UINT64_C(0x123456789), low, block);
                cr_assert_eq(words[e], block[(first + e) % 4]);
            }
        }
    }
}

/* A share p of the elements is 0, the rest is divided by 1 - p. */
Test(layers_reference, dropout_drops_its_share) {
    enum { COUNT = 50000 };
    pp_layer layer = {.name = "d", .op = PP_OP_DROPOUT, .dim = COUNT, .dropout = 0.3};
    bench b;
    int dropped = 0;
    bench_init(&b, &layer, PP_FP64, 1, 1);
    bench_reset(&b, 0);
    bench_forward(&b);
    for (int i = 0; i < COUNT; i++) {
        double x = bench_get(&b, b.inputs[0], i), y = bench_get(&b, b.tensors[0], i);
        dropped += y == 0;
        cr_assert(y == 0 || fabs(y - x / 0.7) < 1e-12);
    }
    cr_expect(abs(dropped - 15000) < 5 * 102, "%d", dropped); /* 5 σ of the binomial */
    b.training = false;
    bench_forward(&b);
    cr_expect_eq(memcmp(b.tensors[0], b.inputs[0], COUNT * sizeof(double)), 0);
    bench_deinit(&b);
}

/* A sample's output does not depend on its place in a microbatch: masks follow the sample's number
 * in the minibatch. The two sites of a block drop different elements (else its two branches would
 * agree in what they lose; seen in the gradient check as well). */
Test(layers_reference, masks_do_not_depend_on_microbatches) {
    for (int i = 0; i < BENCH_LAYERS; i++) {
        const pp_layer *layer = &bench_layers[i];
        if (!(layer->dropout > 0)) continue;
        bench four, one;
        bench_init(&four, layer, PP_FP64, 4, 4);
        bench_init(&one, layer, PP_FP64, 1, 1);
        int64_t rows = bench_rows(&one), count = rows * layer->dim,
                output = bench_output_tensor(&one);
        bench_reset(&four, 0);
        bench_forward(&four);
        for (int s = 0; s < 4; s++) {
            one.first_sample = four.first_sample + (uint64_t)s;
            if (one.input_count > 0)
                memcpy(one.inputs[0], (double *)four.inputs[0] + s * count,
                       (size_t)count * sizeof(double));
            memcpy(one.tokens, four.tokens + s * rows, (size_t)rows * sizeof *one.tokens);
            bench_reset(&one, 0);
            bench_forward(&one);
            for (int64_t j = 0; j < count; j++)
                cr_assert_float_eq(((double *)one.tensors[output])[j],
                                   ((double *)four.tensors[output])[s * count + j], 1e-12, "%s",
                                   layer->name);
        }
        bench_deinit(&four);
        bench_deinit(&one);
    }
}

/* ---- fp32 against fp64 ------------------------------------------------------------------------
 */

static double difference(const bench *a, const void *x, const bench *b, const void *y,
                         int64_t count) {
    double error = 0, norm = 1e-30;
    for (int64_t i = 0; i < count; i++) {
        double expected = bench_get(b, y, i), off = bench_get(a, x, i) - expected;
        error += off * off;
        norm += expected * expected;
    }
    return sqrt(error / norm);
}

static void run_all(bench *b) {
    bench_reset(b, 0.5);
    bench_forward(b);
    bench_input(b);
    bench_weight(b);
}

Test(layers_reference, fp32_agrees_with_fp64) {
    for (int i = 0; i < BENCH_LAYERS; i++) {
        const pp_layer *layer = &bench_layers[i];
        bench narrow, wide;
        bench_init(&narrow, layer, PP_FP32, 3, 3);
        bench_init(&wide, layer, PP_FP64, 3, 3);
        run_all(&narrow);
        run_all(&wide);
        int64_t count = bench_rows(&wide) * layer->dim;
        for (int j = 0; j < wide.input_count; j++)
            cr_expect(difference(&narrow, narrow.input_gradients[j], &wide, wide.input_gradients[j],
                                 count) < 5e-6,
                      "%s: input gradient", layer->name);
        for (int t = 0; t < wide.tensor_count; t++)
            if (wide.gradients[t])
                cr_expect(difference(&narrow, narrow.gradients[t], &wide, wide.gradients[t],
                                     bench_elements(&wide, t)) < 5e-6,
                          "%s: %s", layer->name, wide.list[t].name);
        if (bench_output_tensor(&wide) < 0)
            cr_expect_float_eq(narrow.loss, wide.loss, 1e-5 * wide.loss);
        bench_deinit(&narrow);
        bench_deinit(&wide);
    }
}

/* ---- the same bits ----------------------------------------------------------------------------
 */

/* Everything that leaves the layer, as one hash. */
static uint64_t results_hash(const bench *b) {
    size_t size = (size_t)pp_dtype_bytes(b->dtype);
    uint64_t hash = pp_hash(PP_HASH_START, &b->loss, sizeof b->loss);
    for (int i = 0; i < b->input_count; i++)
        hash = pp_hash(hash, b->input_gradients[i],
                       (size_t)(bench_used_rows(b) * b->layer.dim) * size);
    for (int t = 0; t < b->tensor_count; t++)
        if (b->gradients[t])
            hash = pp_hash(hash, b->gradients[t], (size_t)bench_elements(b, t) * size);
    return hash;
}

/* I and W one right after the other, with no poison between: a full backward. Recomputation (F
 * again, over what F, and for the head I, left) changes nothing either. */
Test(layers_reference, split_backward_and_recompute_repeat_bits) {
    for (int k = 0; k < 2 * BENCH_LAYERS; k++) {
        const pp_layer *layer = &bench_layers[k / 2];
        bench b;
        bench_init(&b, layer, k % 2 ? PP_FP64 : PP_FP32, 3, 2);
        b.loss = 0;
        run_all(&b);
        uint64_t split = results_hash(&b);
        bench_reset(&b, 0.5);
        bench_forward(&b);
        bench_forward(&b);
        const pp_layer_ops *ops = pp_cpu_layer(layer->op, b.dtype);
        pp_layer_call call = bench_call(&b);
        if (ops->input) ops->input(&call);
        if (ops->weight) ops->weight(&call);
        double loss = b.loss;
        cr_expect(isnan(loss) || results_hash(&b) == split, "%s", layer->name);
        if (isnan(loss)) { /* no loss: compare without it */
            b.loss = NAN;
            cr_expect_eq(results_hash(&b), split, "%s", layer->name);
        }
        bench_forward(&b);
        cr_expect(isnan(loss) || b.loss == loss, "%s: F after I", layer->name);
        bench_deinit(&b);
    }
}

/* W adds: two calls give exactly twice the gradient of one. */
Test(layers_reference, weight_gradients_add_up) {
    for (int i = 0; i < BENCH_LAYERS; i++) {
        bench b;
        bench_init(&b, &bench_layers[i], PP_FP64, 2, 2);
        run_all(&b);
        void *once[PP_LAYER_TENSORS] = {NULL};
        for (int t = 0; t < b.tensor_count; t++) {
            if (!b.gradients[t]) continue;
            size_t size = (size_t)bench_elements(&b, t) * sizeof(double);
            once[t] = pp_allocate(size);
            memcpy(once[t], b.gradients[t], size);
        }
        bench_weight(&b);
        for (int t = 0; t < b.tensor_count; t++)
            for (int64_t j = 0; once[t] && j < bench_elements(&b, t); j++)
                cr_assert_float_eq(((double *)b.gradients[t])[j], 2 * ((double *)once[t])[j],
                                   1e-12);
        for (int t = 0; t < b.tensor_count; t++) pp_free(once[t]);
        bench_deinit(&b);
    }
}

/* A layer that nobody asks for an input gradient still leaves W what it needs. */
Test(layers_reference, unwanted_input_gradients) {
    for (int i = 0; i < BENCH_LAYERS; i++) {
        bench b;
        if (bench_layers[i].op == PP_OP_EMBEDDING) continue;
        bench_init(&b, &bench_layers[i], PP_FP64, 2, 2);
        run_all(&b);
        void *kept[BENCH_INPUTS];
        double wanted = 0, unwanted = 0;
        for (int t = 0; t < b.tensor_count; t++)
            for (int64_t j = 0; b.gradients[t] && j < bench_elements(&b, t); j++)
                wanted += fabs(bench_get(&b, b.gradients[t], j));
        memcpy(kept, b.input_gradients, sizeof kept);
        bench_reset(&b, 0);
        memset(b.input_gradients, 0, sizeof b.input_gradients);
        bench_forward(&b);
        bench_input(&b);
        bench_weight(&b);
        memcpy(b.input_gradients, kept, sizeof kept);
        for (int t = 0; t < b.tensor_count; t++)
            for (int64_t j = 0; b.gradients[t] && j < bench_elements(&b, t); j++)
                unwanted += fabs(bench_get(&b, b.gradients[t], j));
        cr_expect_eq(wanted, unwanted, "%s", b.layer.name);
        bench_deinit(&b);
    }
}

/* The first layer of a model without tokens is fed with features. */
Test(layers_reference, features) {
    pp_layer layer = {.name = "first", .op = PP_OP_LINEAR, .dim = 5, .output_dim = 3};
    bench b;
    bench_init(&b, &layer, PP_FP64, 2, 2);
    run_all(&b);
    uint64_t expected = pp_hash(PP_HASH_START, b.gradients[0], 15 * sizeof(double));
    bench_reset(&b, 0);
    pp_layer_call call = bench_call(&b);
    call.features = b.inputs[0];
    call.input_count = 0;
    const pp_layer_ops *ops = pp_cpu_layer(layer.op, PP_FP64);
    ops->forward(&call);
    ops->input(&call);
    ops->weight(&call);
    cr_expect_eq(pp_hash(PP_HASH_START, b.gradients[0], 15 * sizeof(double)), expected);
    bench_deinit(&b);
}

/* ---- the table and initial values ------------------------------------------------------------ */

Test(layers_reference, the_table) {
    for (int op = 0; op < PP_OP_COUNT; op++) {
        bool runs = op != PP_OP_OPAQUE;
        cr_expect_null(pp_cpu_layer((pp_op)op, PP_BF16));
        for (int k = 0; k < 2; k++) {
            const pp_layer_ops *ops = pp_cpu_layer((pp_op)op, k ? PP_FP64 : PP_FP32);
            cr_assert_eq(ops != NULL, runs);
            if (!ops) continue;
            cr_expect_eq(ops->op, (pp_op)op);
            cr_expect_eq(ops->weight != NULL, pp_layer_needs_get((pp_op)op).has_weights);
        }
    }
}

Test(layers_reference, initial_values) {
    pp_layer block = {.name = "b", .op = PP_OP_GPT_BLOCK, .dim = 64, .heads = 4, .sequence = 8};
    bench b;
    bench_init(&b, &block, PP_FP64, 1, 1);
    pp_cpu_layer(block.op, PP_FP64)->initialise(&block, pp_random_key_make(1, "b", 0), b.tensors);
    for (int t = 0; t < b.tensor_count; t++) {
        if (b.list[t].role != PP_TENSOR_PARAMETER) continue;
        double sum = 0, squares = 0, count = (double)bench_elements(&b, t);
        for (int64_t i = 0; i < bench_elements(&b, t); i++) {
            double value = bench_get(&b, b.tensors[t], i);
            sum += value;
            squares += value * value;
        }
        if (strstr(b.list[t].name, "scale")) cr_expect_eq(sum, count);
        if (strstr(b.list[t].name, "bias") || strstr(b.list[t].name, "shift"))
            cr_expect_eq(squares, 0);
        if (strstr(b.list[t].name, "weight")) {
            cr_expect(fabs(sum / count) < 5 * 0.02 / sqrt(count), "%s", b.list[t].name);
            cr_expect(fabs(squares / count / 4e-4 - 1) < 5 * sqrt(2 / count), "%s", b.list[t].name);
        }
    }
    bench_deinit(&b);
}

/* Whoever holds a tied matrix draws the same numbers, in either type; position and token matrices
 * do not repeat each other. */
Test(layers_reference, tied_initial_values) {
    pp_layer embedding = {
        .name = "e", .op = PP_OP_EMBEDDING, .dim = 4, .sequence = 3, .vocabulary = 5, .tie = "w"};
    pp_layer head = embedding;
    head.op = PP_OP_LM_HEAD;
    bench a, b;
    bench_init(&a, &embedding, PP_FP32, 1, 1);
    bench_init(&b, &head, PP_FP64, 1, 1);
    pp_random_key key = pp_random_key_make(1, "w", 0);
    pp_cpu_layer(embedding.op, PP_FP32)->initialise(&embedding, key, a.tensors);
    pp_cpu_layer(head.op, PP_FP64)->initialise(&head, key, b.tensors);
    for (int i = 0; i < 20; i++)
        cr_expect_eq(((float *)a.tensors[0])[i], (float)((double *)b.tensors[2])[i]);
    for (int i = 0; i < 12; i++)
        cr_expect_neq(((float *)a.tensors[1])[i], ((float *)a.tensors[0])[i]);
    bench_deinit(&a);
    bench_deinit(&b);
}
