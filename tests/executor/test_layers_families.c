/* Llama's and BERT's layers against plain formulas of their papers, written without regard to speed
 * or to what the layers keep. */
#include "layer_support.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(layers_families);

enum { DIM = 6, SEQUENCE = 5, WIDE = 48 };

/* ---- plain formulas ------------------------------------------------------------------------- */

static void naive_layer_norm(const double *x, const double *scale, const double *shift, double *y) {
    double mean = 0, variance = 0;
    for (int i = 0; i < DIM; i++) mean += x[i] / DIM;
    for (int i = 0; i < DIM; i++) variance += (x[i] - mean) * (x[i] - mean) / DIM;
    for (int i = 0; i < DIM; i++)
        y[i] = (x[i] - mean) / sqrt(variance + 1e-5) * scale[i] + shift[i];
}

static void naive_rms_norm(const double *x, const double *scale, double *y) {
    double square = 0;
    for (int i = 0; i < DIM; i++) square += x[i] * x[i] / DIM;
    for (int i = 0; i < DIM; i++) y[i] = x[i] / sqrt(square + 1e-5) * scale[i];
}

static void naive_linear(const double *x, int64_t in, int64_t out, const double *weight,
                         const double *bias, double *y) {
    for (int64_t o = 0; o < out; o++) {
        y[o] = bias ? bias[o] : 0;
        for (int64_t i = 0; i < in; i++) y[o] += x[i] * weight[o * in + i];
    }
}

static double naive_gelu(double x) {
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/* Rotates a head of the row at `position`, by complex numbers: (a + ib) · e^(i·angle). */
static void naive_rotate(double *head, int64_t size, int position, double base) {
    for (int64_t i = 0; i < size / 2; i++) {
        double angle = position / pow(base, 2 * (double)i / (double)size);
        double a = head[i], b = head[i + size / 2];
        head[i] = a * cos(angle) - b * sin(angle);
        head[i + size / 2] = b * cos(angle) + a * sin(angle);
    }
}

/* Head `h` of row `row`: q, k, v are the starts of that head's rows, `stride` apart. */
static void naive_head(const double *q, const double *k, const double *v, int64_t stride,
                       int64_t size, int row, int reach, double *y) {
    double weight[SEQUENCE], sum = 0;
    for (int j = 0; j < reach; j++) {
        double score = 0;
        for (int64_t i = 0; i < size; i++) score += q[row * stride + i] * k[j * stride + i];
        sum += weight[j] = exp(score / sqrt((double)size));
    }
    for (int64_t i = 0; i < size; i++) {
        y[i] = 0;
        for (int j = 0; j < reach; j++) y[i] += weight[j] / sum * v[j * stride + i];
    }
}

/* ---- whole layers --------------------------------------------------------------------------- */

/* Parameters by name, so that the order of the tensors does not matter here. */
static const double *named(const bench *b, const char *name) {
    for (int t = 0; t < b->tensor_count; t++)
        if (strcmp(b->list[t].name, name) == 0) return b->tensors[t];
    return NULL;
}

static void naive_llama(const bench *b, const double *x, double *y) {
    const pp_layer *l = &b->layer;
    int64_t size = pp_layer_head_dim(l), kv = pp_layer_kv_heads(l), queries = l->heads * size;
    int64_t width = queries + 2 * kv * size, hidden = pp_layer_hidden(l);
    double qkv[SEQUENCE * WIDE], normed[DIM], mixed[WIDE], gate[WIDE], up[WIDE], out[DIM];
    for (int r = 0; r < SEQUENCE; r++) {
        double *row = qkv + r * width;
        naive_rms_norm(x + r * DIM, named(b, "norm1_scale"), normed);
        naive_linear(normed, DIM, width, named(b, "qkv_weight"), named(b, "qkv_bias"), row);
        for (int64_t h = 0; h < l->heads + kv; h++)
            naive_rotate(row + h * size, size, r, pp_layer_rotary_base(l));
    }
    for (int r = 0; r < SEQUENCE; r++) {
        double *middle = y + r * DIM;
        for (int64_t h = 0; h < l->heads; h++) {
            const double *k = qkv + queries + h * kv / l->heads * size;
            naive_head(qkv + h * size, k, k + kv * size, width, size, r, r + 1, mixed + h * size);
        }
        naive_linear(mixed, queries, DIM, named(b, "attention_weight"), NULL, out);
        for (int i = 0; i < DIM; i++) middle[i] = x[r * DIM + i] + out[i];
        naive_rms_norm(middle, named(b, "norm2_scale"), normed);
        naive_linear(normed, DIM, hidden, named(b, "gate_weight"), NULL, gate);
        naive_linear(normed, DIM, hidden, named(b, "up_weight"), NULL, up);
        for (int64_t i = 0; i < hidden; i++) gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
        naive_linear(gate, hidden, DIM, named(b, "down_weight"), NULL, out);
        for (int i = 0; i < DIM; i++) middle[i] += out[i];
    }
}

static void naive_bert(const bench *b, const double *x, double *y) {
    const pp_layer *l = &b->layer;
    int64_t size = DIM / l->heads, hidden = pp_layer_hidden(l);
    double qkv[SEQUENCE * 3 * DIM], mixed[DIM], middle[DIM], inner[WIDE], out[DIM];
    for (int r = 0; r < SEQUENCE; r++)
        naive_linear(x + r * DIM, DIM, 3 * DIM, named(b, "qkv_weight"), named(b, "qkv_bias"),
                     qkv + r * 3 * DIM);
    for (int r = 0; r < SEQUENCE; r++) {
        for (int64_t h = 0; h < l->heads; h++) {
            const double *q = qkv + h * size;
            naive_head(q, q + DIM, q + 2 * DIM, 3 * DIM, size, r, SEQUENCE, mixed + h * size);
        }
        naive_linear(mixed, DIM, DIM, named(b, "attention_weight"), named(b, "attention_bias"),
                     out);
        for (int i = 0; i < DIM; i++) out[i] += x[r * DIM + i];
        naive_layer_norm(out, named(b, "norm1_scale"), named(b, "norm1_shift"), middle);
        naive_linear(middle, DIM, hidden, named(b, "expand_weight"), named(b, "expand_bias"),
                     inner);
        for (int64_t i = 0; i < hidden; i++) inner[i] = naive_gelu(inner[i]);
        naive_linear(inner, hidden, DIM, named(b, "contract_weight"), named(b, "contract_bias"),
                     out);
        for (int i = 0; i < DIM; i++) out[i] += middle[i];
        naive_layer_norm(out, named(b, "norm2_scale"), named(b, "norm2_shift"), y + r * DIM);
    }
}

static void naive_rms(const bench *b, const double *x, double *y) {
    for (int r = 0; r < SEQUENCE; r++) naive_rms_norm(x + r * DIM, named(b, "scale"), y + r * DIM);
}

Test(layers_families, blocks) {
    static const struct {
        pp_layer layer;
        void (*naive)(const bench *, const double *, double *);
    } cases[] = {
        {{.op = PP_OP_RMS_NORM}, naive_rms},
        {{.op = PP_OP_LLAMA_BLOCK, .heads = 3, .hidden = 11}, naive_llama},
        {{.op = PP_OP_LLAMA_BLOCK, .heads = 1, .kv_heads = 1, .rotary_base = 7}, naive_llama},
        {{.op = PP_OP_LLAMA_BLOCK,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 6,
          .hidden = 5,
          .rotary_base = 500,
          .qkv_bias = true},
         naive_llama},
        {{.op = PP_OP_BERT_BLOCK, .heads = 2}, naive_bert},
        {{.op = PP_OP_BERT_BLOCK, .heads = 3, .hidden = 7}, naive_bert},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        bench b;
        double expected[SEQUENCE * DIM];
        pp_layer layer = cases[c].layer;
        layer.name = "b";
        layer.dim = DIM;
        layer.sequence = SEQUENCE;
        bench_init(&b, &layer, PP_FP64, 3, 2);
        bench_reset(&b, 0);
        bench_forward(&b);
        for (int s = 0; s < 2; s++) {
            const double *x = (const double *)b.inputs[0] + s * SEQUENCE * DIM;
            const double *y =
                (const double *)b.tensors[bench_output_tensor(&b)] + s * SEQUENCE * DIM;
            cases[c].naive(&b, x, expected);
            for (int i = 0; i < SEQUENCE * DIM; i++)
                cr_expect_float_eq(y[i], expected[i], 1e-12, "case %zu", c);
        }
        bench_deinit(&b);
    }
}

Test(layers_families, embeddings) {
    bench b;
    pp_layer layer = {
        .name = "e", .op = PP_OP_TOKEN_EMBEDDING, .dim = DIM, .sequence = 3, .vocabulary = 7};
    bench_init(&b, &layer, PP_FP64, 2, 2);
    bench_reset(&b, 0);
    bench_forward(&b);
    const double *token = named(&b, "token_weight"), *y = named(&b, "output");
    for (int i = 0; i < 6 * DIM; i++) cr_expect_eq(y[i], token[b.tokens[i / DIM] * DIM + i % DIM]);
    bench_deinit(&b);

    layer.op = PP_OP_BERT_EMBEDDING;
    bench_init(&b, &layer, PP_FP64, 2, 2);
    bench_reset(&b, 0);
    bench_forward(&b);
    token = named(&b, "token_weight");
    y = named(&b, "output");
    const double *position = named(&b, "position_weight"), *segment = named(&b, "segment_weight");
    for (int r = 0; r < 6; r++) {
        double sum[DIM], normed[DIM];
        for (int i = 0; i < DIM; i++)
            sum[i] = token[b.tokens[r] * DIM + i] + position[r % 3 * DIM + i] + segment[i];
        naive_layer_norm(sum, named(&b, "norm_scale"), named(&b, "norm_shift"), normed);
        for (int i = 0; i < DIM; i++) cr_expect_float_eq(y[r * DIM + i], normed[i], 1e-12);
    }
    bench_deinit(&b);
}

enum { CLASSES = 37 };

static double naive_loss(const double *logits, int32_t target) {
    double sum = 0;
    if (target < 0) return 0;
    for (int i = 0; i < CLASSES; i++) sum += exp(logits[i]);
    return log(sum) - logits[target];
}

static void naive_logits(const bench *b, const double *x, double *logits) {
    double inner[DIM], normed[DIM];
    if (b->layer.op == PP_OP_RMS_LM_HEAD) {
        naive_rms_norm(x, named(b, "norm_scale"), normed);
    } else {
        naive_linear(x, DIM, DIM, named(b, "transform_weight"), named(b, "transform_bias"), inner);
        for (int i = 0; i < DIM; i++) inner[i] = naive_gelu(inner[i]);
        naive_layer_norm(inner, named(b, "norm_scale"), named(b, "norm_shift"), normed);
    }
    naive_linear(normed, DIM, CLASSES, named(b, "token_weight"), named(b, "token_bias"), logits);
}

Test(layers_families, heads) {
    static const pp_op ops[] = {PP_OP_RMS_LM_HEAD, PP_OP_MLM_HEAD};
    for (int k = 0; k < 2; k++) {
        bench b;
        double logits[CLASSES], expected = 0;
        pp_layer layer = {
            .name = "h", .op = ops[k], .dim = DIM, .sequence = SEQUENCE, .vocabulary = CLASSES};
        bench_init(&b, &layer, PP_FP64, 2, 2);
        bench_reset(&b, 0);
        bench_forward(&b);
        for (int r = 0; r < 2 * SEQUENCE; r++) {
            naive_logits(&b, (const double *)b.inputs[0] + r * DIM, logits);
            expected += naive_loss(logits, b.targets[r]);
        }
        cr_expect_float_eq(b.loss, expected, 1e-12, "%s", pp_op_name(ops[k]));
        bench_deinit(&b);
    }
}

/* Attention knows relative positions alone (Su et al. 2021, equation 16): the scores of rows that
 * are moved along together stay as they are. */
Test(layers_families, rotation_keeps_relative_positions) {
    enum { SIZE = 8, ROWS = 12 };
    double q[SIZE], k[SIZE], first = 0;
    for (int shift = 0; shift + 3 < ROWS; shift++) {
        double score = 0;
        for (int i = 0; i < SIZE; i++) q[i] = sin(i + 1.0), k[i] = cos(3.0 * i);
        naive_rotate(q, SIZE, shift + 3, 10000);
        naive_rotate(k, SIZE, shift, 10000);
        for (int i = 0; i < SIZE; i++) score += q[i] * k[i];
        if (shift == 0) first = score;
        cr_expect_float_eq(score, first, 1e-12);
    }
}

/* Dropout on the attention's probabilities drops its share and rescales the rest, in its own places
 * for each sample and head. */
Test(layers_families, probabilities_are_dropped) {
    enum { LONG = 66 };
    static const pp_op ops[] = {PP_OP_GPT_BLOCK, PP_OP_BERT_BLOCK};
    for (int k = 0; k < 2; k++) {
        bench b;
        pp_layer layer = {
            .name = "d", .op = ops[k], .dim = DIM, .heads = 2, .sequence = LONG, .dropout = 0.3};
        bench_init(&b, &layer, PP_FP64, 2, 2);
        bench_reset(&b, 0);
        bench_forward(&b);
        const double *p = named(&b, "probabilities"), *kept = named(&b, "dropped");
        int dropped = 0, seen = 0;
        for (int row = 0; row < 2 * 2 * LONG; row++) {
            int reach = ops[k] == PP_OP_GPT_BLOCK ? row % LONG + 1 : LONG;
            for (int j = 0; j < reach; j++, seen++) {
                double value = kept[row * LONG + j];
                dropped += value == 0;
                cr_assert(value == 0 || fabs(value - p[row * LONG + j] / 0.7) < 1e-15);
            }
        }
        double expected = 0.3 * seen, sigma = sqrt(0.21 * seen);
        cr_expect(fabs(dropped - expected) < 5 * sigma, "%d of %d", dropped, seen);
        cr_expect_neq(memcmp(kept, kept + LONG * LONG, LONG * LONG * sizeof *kept), 0);
        bench_deinit(&b);
    }
}
