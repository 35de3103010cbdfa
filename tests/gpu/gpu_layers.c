/* Every op on the GPU, in fp32 and bf16, against the CPU backend in double precision: outputs, the
 * loss, gradients of inputs and of parameters, over small odd shapes and real ones. Everything that
 * a call has to write is NaN before it.
 * usage: gpu_layers [backend [small]]      small: without the real shapes
 * exit 0: all within the limits, 1: not, 77: no device */
#include "executor/backend.h"
#include "executor/cuda/arithmetic.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKIPPED = 77, INPUTS = 3, SMALL = 1 << 16 };

typedef struct shape {
    pp_layer layer;
    int64_t samples;
} shape;

#define GPT(dim_, heads_, sequence_, dropout_, samples_)                                           \
    {                                                                                              \
        {.name = "gpt_block",                                                                      \
         .op = PP_OP_GPT_BLOCK,                                                                    \
         .dim = dim_,                                                                              \
         .heads = heads_,                                                                          \
         .sequence = sequence_,                                                                    \
         .dropout = dropout_},                                                                     \
            samples_                                                                               \
    }
#define LLAMA(dim_, heads_, kv_, hidden_, sequence_, samples_)                                     \
    {                                                                                              \
        {.name = "llama_block",                                                                    \
         .op = PP_OP_LLAMA_BLOCK,                                                                  \
         .dim = dim_,                                                                              \
         .heads = heads_,                                                                          \
         .kv_heads = kv_,                                                                          \
         .hidden = hidden_,                                                                        \
         .sequence = sequence_},                                                                   \
            samples_                                                                               \
    }
#define BERT(dim_, heads_, sequence_, dropout_, samples_)                                          \
    {                                                                                              \
        {.name = "bert_block",                                                                     \
         .op = PP_OP_BERT_BLOCK,                                                                   \
         .dim = dim_,                                                                              \
         .heads = heads_,                                                                          \
         .sequence = sequence_,                                                                    \
         .dropout = dropout_},                                                                     \
            samples_                                                                               \
    }
#define TABLE(op_, dim_, sequence_, vocabulary_, samples_)                                         \
    {                                                                                              \
        {.name = #op_, .op = op_, .dim = dim_, .sequence = sequence_, .vocabulary = vocabulary_},  \
            samples_                                                                               \
    }
#define ROWS(op_, dim_, sequence_, samples_)                                                       \
    { {.name = #op_, .op = op_, .dim = dim_, .sequence = sequence_}, samples_ }

static const shape shapes[] = {
    GPT(6, 2, 5, 0, 3),
    GPT(9, 3, 4, 0.25, 2),
    GPT(256, 4, 131, 0.1, 2),
    GPT(768, 12, 256, 0, 1),
    LLAMA(8, 4, 2, 11, 5, 3),
    LLAMA(256, 8, 2, 688, 130, 2),
    BERT(6, 2, 5, 0, 3),
    BERT(128, 4, 67, 0.1, 2),
    TABLE(PP_OP_EMBEDDING, 5, 3, 7, 3),
    TABLE(PP_OP_EMBEDDING, 768, 256, 50257, 2),
    TABLE(PP_OP_TOKEN_EMBEDDING, 333, 100, 1000, 2),
    TABLE(PP_OP_BERT_EMBEDDING, 129, 65, 300, 2),
    TABLE(PP_OP_LM_HEAD, 6, 5, 37, 3),
    TABLE(PP_OP_LM_HEAD, 256, 100, 50257, 1),
    TABLE(PP_OP_EMBEDDING, 768, 1024, 50, 2), /* tokens that come often */
    TABLE(PP_OP_RMS_LM_HEAD, 130, 33, 4099, 2),
    TABLE(PP_OP_MLM_HEAD, 130, 33, 4099, 2),
    ROWS(PP_OP_LAYER_NORM, 3, 3, 2), /* of fewer features the input gradient is 0 but for eps */
    ROWS(PP_OP_LAYER_NORM, 4104, 9, 2),
    ROWS(PP_OP_LAYER_NORM, 1601, 77, 2),
    ROWS(PP_OP_RMS_NORM, 1601, 77, 2),
    ROWS(PP_OP_GELU, 1000, 77, 2),
    ROWS(PP_OP_RELU, 1000, 77, 2),
    ROWS(PP_OP_ADD, 1000, 77, 2),
    ROWS(PP_OP_CROSS_ENTROPY, 1001, 1, 50),
    {{.name = "linear", .op = PP_OP_LINEAR, .dim = 65, .output_dim = 130, .sequence = 33}, 3},
    {{.name = "attention", .op = PP_OP_ATTENTION, .dim = 96, .heads = 3, .sequence = 129}, 2},
    {{.name = "dropout", .op = PP_OP_DROPOUT, .dim = 1000, .sequence = 77, .dropout = 0.5}, 2},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* ---- buffers ------------------------------------------------------------------------------- */

/* One side of a comparison. The reference lives on the host in double. */
typedef struct side {
    const pp_backend *backend;
    void *state;
    pp_dtype dtype;
    const pp_layer_ops *ops;
    pp_tensor list[PP_LAYER_TENSORS];
    void *tensors[PP_LAYER_TENSORS], *gradients[PP_LAYER_TENSORS];
    const void *inputs[INPUTS];
    void *input_gradients[INPUTS];
    void *output_gradient, *tokens, *targets;
    double loss;
} side;

static void give_up(const char *what) {
    fprintf(stderr, "gpu_layers: %s\n", what);
    exit(1);
}

static void *take(const side *s, int64_t count) {
    size_t size = (size_t)(count > 0 ? count : 1) * 8; /* room for the widest type */
    void *block = s->backend->allocate(s->state, size);
    if (!block) give_up("out of memory");
    s->backend->fill(s->state, block, 0xff, size);
    return block;
}

static double rounded(pp_dtype dtype, double value) {
    return dtype == PP_BF16 ? (double)bf16_to_float(bf16_from_float((float)value)) : (float)value;
}

/* Numbers on the host into the side's type. */
static void put(const side *s, void *block, const double *values, int64_t count) {
    size_t width = (size_t)pp_dtype_bytes(s->dtype);
    void *typed = malloc((size_t)count * width);
    if (!typed) give_up("out of memory");
    for (int64_t i = 0; i < count; i++) {
        if (s->dtype == PP_FP64)
            ((double *)typed)[i] = values[i];
        else if (s->dtype == PP_FP32)
            ((float *)typed)[i] = (float)values[i];
        else
            ((uint16_t *)typed)[i] = bf16_from_float((float)values[i]);
    }
    s->backend->upload(s->state, block, typed, (size_t)count * width);
    free(typed);
}

static double *get(const side *s, const void *block, int64_t count) {
    size_t width = (size_t)pp_dtype_bytes(s->dtype);
    void *typed = malloc((size_t)count * width);
    double *values = malloc((size_t)count * sizeof *values);
    if (!typed || !values) give_up("out of memory");
    s->backend->download(s->state, typed, block, (size_t)count * width);
    for (int64_t i = 0; i < count; i++)
        values[i] = s->dtype == PP_FP64   ? ((double *)typed)[i]
                    : s->dtype == PP_FP32 ? (double)((float *)typed)[i]
                                          : (double)bf16_to_float(((uint16_t *)typed)[i]);
    free(typed);
    return values;
}

/* The same numbers on both sides, rounded to the device's type. */
static void *random_block(const side *s, pp_dtype rounding, const char *name, double scale,
                          int64_t count) {
    double *values = malloc((size_t)count * sizeof *values);
    if (!values) give_up("out of memory");
    pp_random_key key = pp_random_key_make(7, name, 0);
    for (int64_t i = 0; i < count; i++)
        values[i] = rounded(rounding, scale * pp_random_normal(key, (uint64_t)i));
    void *block = take(s, count);
    put(s, block, values, count);
    free(values);
    return block;
}

static void *labels(const side *s, const shape *of, uint64_t which, int64_t rows) {
    int32_t *host = malloc((size_t)rows * sizeof *host);
    if (!host) give_up("out of memory");
    int64_t classes = of->layer.vocabulary > 0 ? of->layer.vocabulary : of->layer.dim;
    pp_random_key key = pp_random_key_make(8, "labels", which);
    for (int64_t r = 0; r < rows; r++) {
        host[r] = (int32_t)pp_random_below(key, (uint64_t)r, (uint64_t)classes);
        if (which == 1 && r % 5 == 3) host[r] = -1;
    }
    void *block = take(s, rows);
    s->backend->upload(s->state, block, host, (size_t)rows * sizeof *host);
    free(host);
    return block;
}

static int64_t rows_of(const shape *of) {
    return of->samples * (of->layer.sequence > 0 ? of->layer.sequence : 1);
}

static int64_t features_out(const shape *of) {
    return of->layer.output_dim > 0 ? of->layer.output_dim : of->layer.dim;
}

static int input_count(const shape *of) {
    if (pp_layer_needs_get(of->layer.op).takes_tokens) return 0;
    return of->layer.op == PP_OP_ADD ? INPUTS : 1;
}

static int fill_side(side *s, const shape *of, pp_dtype rounding) {
    static const char *const names[INPUTS] = {"input0", "input1", "input2"};
    int count = pp_layer_tensors(&of->layer, of->samples, s->dtype, s->list);
    int64_t rows = rows_of(of);
    for (int t = 0; t < count; t++) {
        int64_t elements = s->list[t].rows * s->list[t].columns;
        if (s->list[t].role != PP_TENSOR_PARAMETER) {
            s->tensors[t] = take(s, elements);
            continue;
        }
        double scale = 1 / sqrt((double)s->list[t].columns);
        s->tensors[t] = random_block(s, rounding, s->list[t].name, scale, elements);
        s->gradients[t] = take(s, elements);
        s->backend->fill(s->state, s->gradients[t], 0, (size_t)elements * 8);
    }
    for (int i = 0; i < input_count(of); i++) {
        s->inputs[i] = random_block(s, rounding, names[i], 1, rows * of->layer.dim);
        s->input_gradients[i] = take(s, rows * of->layer.dim);
    }
    s->output_gradient = random_block(s, rounding, "output gradient", 1, rows * features_out(of));
    s->tokens = labels(s, of, 0, rows);
    s->targets = labels(s, of, 1, rows);
    return count;
}

/* ---- calls --------------------------------------------------------------------------------- */

static pp_layer_call call_of(side *s, const shape *of) {
    static const bool accumulate[INPUTS];
    return (pp_layer_call){.layer = &of->layer,
                           .samples = of->samples,
                           .tensors = s->tensors,
                           .gradients = s->gradients,
                           .inputs = s->inputs,
                           .input_count = input_count(of),
                           .output_gradient = s->output_gradient,
                           .input_gradients = s->input_gradients,
                           .accumulate = accumulate,
                           .tokens = s->tokens,
                           .targets = s->targets,
                           .gradient_scale = 0.125,
                           .loss = &s->loss,
                           .key = pp_random_key_make(3, of->layer.name, 5),
                           .first_sample = 11,
                           .training = true};
}

static void finish(const side *s) {
    pp_error error = {0};
    if (s->backend->finish(s->state, &error) != PP_OK) give_up(error.message);
}

static double distance(const double *a, const double *b, int64_t count) {
    double error = 0, norm = 1e-30;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(a[i])) return INFINITY;
        error += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(error / norm);
}

typedef struct gap {
    double off;
    const char *of; /* what is that far from the reference */
} gap;

static gap larger(gap worst, double off, const char *of) {
    return off > worst.off || isnan(off) ? (gap){isnan(off) ? INFINITY : off, of} : worst;
}

static gap further(gap worst, const char *of, const side *device, const void *actual,
                   const side *reference, const void *expected, int64_t count) {
    double *a = get(device, actual, count), *b = get(reference, expected, count);
    double off = distance(a, b, count);
    free(a);
    free(b);
    return larger(worst, off, of);
}

static gap worst_of(side *device, side *reference, const shape *of, int tensors, int output,
                    double *kept_output) {
    gap worst = {0, "nothing"};
    int64_t rows = rows_of(of);
    if (output < 0) worst = larger(worst, fabs(device->loss / reference->loss - 1), "loss");
    if (output >= 0) {
        double *now = get(reference, reference->tensors[output], rows * features_out(of));
        worst = larger(worst, distance(kept_output, now, rows * features_out(of)), "output");
        free(now);
    }
    for (int i = 0; i < input_count(of); i++)
        worst = further(worst, "input gradient", device, device->input_gradients[i], reference,
                        reference->input_gradients[i], rows * of->layer.dim);
    for (int t = 0; t < tensors; t++)
        if (device->gradients[t])
            worst = further(worst, device->list[t].name, device, device->gradients[t], reference,
                            reference->gradients[t],
                            device->list[t].rows * device->list[t].columns);
    return worst;
}

static gap compare(const pp_backend *backend, void *state, const pp_backend *cpu, const shape *of,
                   pp_dtype dtype) {
    static side device, reference;
    device = (side){.backend = backend, .state = state, .dtype = dtype};
    reference = (side){.backend = cpu, .dtype = PP_FP64};
    side *sides[] = {&reference, &device};
    int tensors = 0, output = -1;
    double *kept = NULL;
    for (int i = 0; i < 2; i++) {
        side *s = sides[i];
        s->ops = s->backend->layer(of->layer.op, s->dtype);
        if (!s->ops) give_up("an op is missing");
        tensors = fill_side(s, of, dtype);
        for (int t = 0; t < tensors; t++)
            if (s->list[t].role == PP_TENSOR_OUTPUT) output = t;
        pp_layer_call call = call_of(s, of);
        s->ops->forward(&call);
        finish(s);
        if (s == &device && output >= 0)
            kept = get(s, s->tensors[output], rows_of(of) * features_out(of));
        if (s->ops->input) s->ops->input(&call);
        if (s->ops->weight) s->ops->weight(&call);
        finish(s);
    }
    gap worst = worst_of(&device, &reference, of, tensors, output, kept);
    free(kept);
    for (int i = 0; i < 2; i++) {
        side *s = sides[i];
        for (int t = 0; t < tensors; t++) {
            s->backend->release(s->state, s->tensors[t], 0);
            s->backend->release(s->state, s->gradients[t], 0);
        }
        for (int k = 0; k < input_count(of); k++) {
            s->backend->release(s->state, (void *)(uintptr_t)s->inputs[k], 0);
            s->backend->release(s->state, s->input_gradients[k], 0);
        }
        s->backend->release(s->state, s->output_gradient, 0);
        s->backend->release(s->state, s->tokens, 0);
        s->backend->release(s->state, s->targets, 0);
    }
    return worst;
}

int main(int count, char **arguments) {
    static const struct {
        pp_dtype dtype;
        double limit;
    } types[] = {{PP_FP32, 1e-5}, {PP_BF16, 1.5e-2}};
    const pp_backend *backend, *cpu;
    const char *name = count > 1 ? arguments[1] : "cuda";
    pp_error error = {0};
    void *state;
    pp_backend_seat seat = {.device = 0};
    bool all = count < 3 || strcmp(arguments[2], "small") != 0;
    int failures = 0, compared = 0;
    openblas_set_num_threads(1);
    if (pp_backend_find(name, NULL, &backend, &error) != PP_OK) {
        printf("skipped: %s\n", error.message);
        return SKIPPED;
    }
    if (pp_backend_find("cpu", NULL, &cpu, &error) != PP_OK ||
        backend->open(&seat, &state, &error) != PP_OK)
        give_up(error.message);
    for (int t = 0; t < 2; t++) {
        if (!backend->layer(PP_OP_LINEAR, types[t].dtype)) continue;
        for (int i = 0; i < SHAPES; i++) {
            const pp_layer *layer = &shapes[i].layer;
            if (!all && rows_of(&shapes[i]) * layer->dim > SMALL) continue;
            compared++;
            gap worst = compare(backend, state, cpu, &shapes[i], types[t].dtype);
            bool fine = worst.off < types[t].limit;
            failures += !fine;
            printf("%-6s %-22s %s dim %-5lld sequence %-4lld samples %-3lld off by %.2e (%s)\n",
                   fine ? "ok" : "FAILED", pp_op_name(layer->op), pp_dtype_name(types[t].dtype),
                   (long long)layer->dim, (long long)layer->sequence, (long long)shapes[i].samples,
                   worst.off, worst.of);
        }
    }
    backend->close(state);
    printf("%d passed, %d failed\n", compared - failures, failures);
    return failures > 0;
}
