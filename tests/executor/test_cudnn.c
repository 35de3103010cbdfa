/* Attention by cuDNN where there is no GPU: the plugin's descriptors go to a stand-in for
 * libcudnn.so.9 (tests/cudnn), which checks them and computes what the graphs say. */
#include "attend_reference.h"
#include "executor/cuda/attention.h"
#include "executor/cuda/attention_graph.h"
#include "executor/cuda/cuda_layers.h"
#include "fake_device.h"
#include "layer_support.h"
#include "tests/cudnn/cudnn_stand_in.h"
#include "tests/live_bytes.h"

#include <dlfcn.h>
#include <stdlib.h>

COUNTED_SUITE(cudnn);

/* Before anything asks for the library: the answer stays. */
static dnn_stand_in *open_stand_in(const char *way) {
    setenv("PPSIM_CUDNN", PPSIM_STAND_IN_CUDNN, 1);
    if (way) setenv("PPSIM_ATTENTION", way, 1);
    dnn_stand_in *control = dlsym(dlopen(PPSIM_STAND_IN_CUDNN, RTLD_NOW), "dnn_control");
    cr_assert_not_null(control);
    control->host = fake_host;
    return control;
}

static void expect_clean(const dnn_stand_in *control) {
    cr_expect_eq(control->wrong, 0, "%d calls against the rules: %s", control->wrong,
                 control->first);
    cr_expect_eq(control->live, 0, "%d descriptors are left", control->live);
    cr_expect_eq(control->contexts, 0);
}

/* ---- the graphs ---------------------------------------------------------------------------- */

static const dnn_attention shapes[] = {
    {1, 1, 1, 1, 4, DNN_DATA_FLOAT, 1},     {2, 5, 3, 3, 4, DNN_DATA_FLOAT, 1},
    {2, 5, 3, 3, 4, DNN_DATA_FLOAT, 0},     {1, 9, 4, 2, 8, DNN_DATA_FLOAT, 1},
    {3, 7, 6, 1, 4, DNN_DATA_FLOAT, 0},     {1, 33, 2, 2, 16, DNN_DATA_FLOAT, 1},
    {2, 12, 4, 2, 8, DNN_DATA_BFLOAT16, 1},
};

typedef struct numbers {
    int64_t count;
    double *exact;
    float *as_float; /* in the shape's type: fp32, or bf16 in its front half */
} numbers;

static numbers take(int64_t count) {
    numbers n = {count, pp_allocate((size_t)count * sizeof(double)),
                 pp_allocate(((size_t)count + 4) * sizeof(float))};
    memset(n.as_float, 0xff, (size_t)count * sizeof(float));
    return n;
}

static void release(numbers n) {
    pp_free(n.exact);
    pp_free(n.as_float);
}

static void fill(numbers n, const char *name, int type) {
    pp_random_key key = pp_random_key_make(2, name, 0);
    for (int64_t i = 0; i < n.count; i++) {
        float value = bf16_to_float(bf16_from_float((float)pp_random_normal(key, (uint64_t)i)));
        n.exact[i] = (double)value;
        if (type == DNN_DATA_BFLOAT16)
            ((uint16_t *)(void *)n.as_float)[i] = bf16_from_float(value);
        else
            n.as_float[i] = value;
    }
}

static double off(numbers n, int type) {
    double error = 0, norm = 1e-30;
    for (int64_t i = 0; i < n.count; i++) {
        double value = type == DNN_DATA_BFLOAT16
                           ? (double)bf16_to_float(((uint16_t *)(void *)n.as_float)[i])
                           : (double)n.as_float[i];
        if (isnan(value)) return INFINITY;
        error += (value - n.exact[i]) * (value - n.exact[i]);
        norm += n.exact[i] * n.exact[i];
    }
    return sqrt(error / norm);
}

static void run_graph(const dnn_attention *a, bool backward, dnn_binding *bindings, int count,
                      dnn_stand_in *control) {
    char why[256];
    dnn_graph graph;
    dnn_plan plan;
    dnn_context *context;
    const dnn_functions *dnn = pp_dnn_functions(why);
    cr_assert_not_null(dnn, "%s", why);
    cr_assert_eq(dnn->create(&context), 0);
    if (backward)
        dnn_attention_backward(a, &graph);
    else
        dnn_attention_forward(a, &graph);
    cr_assert(pp_dnn_plan_make(&plan, dnn, context, &graph, 0, why), "%s (%s)", why,
              control->first);
    cr_expect_eq(control->tensors, graph.tensor_count, "no tensor is idle");
    cr_expect_eq(control->operations, graph.node_count);
    cr_expect_eq(control->tensors - control->virtual_tensors, count,
                 "in memory or by value are those that have a name");
    cr_assert(pp_dnn_plan_run(&plan, context, bindings, count, NULL, why), "%s (%s)", why,
              control->first);
    pp_dnn_plan_close(&plan);
    dnn->destroy(context);
}

static void compare_graphs(const dnn_attention *a, dnn_stand_in *control) {
    const int64_t rows = a->samples * a->sequence, wide = a->heads * a->size;
    const int64_t row = (a->heads + 2 * a->kv_heads) * a->size, scores = rows * a->heads;
    const int64_t width = a->type == DNN_DATA_BFLOAT16 ? 2 : 4;
    numbers qkv = take(rows * row), qkv_gradient = take(rows * row), attended = take(rows * wide),
            attended_gradient = take(rows * wide), probabilities = take(scores * a->sequence),
            statistics = take(scores), sums = take(scores), query_sums = take(rows * wide);
    fill(qkv, "qkv", a->type);
    fill(attended_gradient, "gradient", a->type);
    attend_reference reference = {.samples = a->samples,
                                  .sequence = a->sequence,
                                  .heads = a->heads,
                                  .kv_heads = a->kv_heads,
                                  .size = a->size,
                                  .causal = a->causal,
                                  .qkv = qkv.exact,
                                  .attended_gradient = attended_gradient.exact,
                                  .probabilities = probabilities.exact,
                                  .attended = attended.exact,
                                  .qkv_gradient = qkv_gradient.exact};
    double *square = pp_allocate((size_t)(a->sequence * a->sequence) * sizeof *square);
    reference.score_gradient = square;
    attend_as_on_the_cpu(&reference);
    pp_free(square);

    float scale = (float)(1 / sqrt((double)a->size)), hidden = -INFINITY, one = 1;
    char *q = (char *)qkv.as_float, *dq = (char *)qkv_gradient.as_float;
    char *k = q + wide * width, *v = k + a->kv_heads * a->size * width;
    dnn_binding bindings[] = {{DNN_Q, q},
                              {DNN_K, k},
                              {DNN_V, v},
                              {DNN_O, attended.as_float},
                              {DNN_STATISTICS, statistics.as_float},
                              {DNN_SCALE, &scale},
                              {DNN_ONE, &one},
                              {DNN_O_GRADIENT, attended_gradient.as_float},
                              {DNN_Q_GRADIENT, dq},
                              {DNN_K_GRADIENT, dq + (k - q)},
                              {DNN_V_GRADIENT, dq + (v - q)},
                              {DNN_ROW_SUMS, sums.as_float},
                              {DNN_Q_SUMS, query_sums.as_float},
                              {DNN_HIDDEN, &hidden}};
    dnn_binding forward[7];
    memcpy(forward, bindings, 6 * sizeof *forward);
    forward[6] = bindings[13];
    run_graph(a, false, forward, 6 + a->causal, control);
    run_graph(a, true, bindings, 13 + a->causal, control);

    double limit = a->type == DNN_DATA_BFLOAT16 ? 1e-2 : 2e-6;
    cr_expect(off(attended, a->type) < limit, "result is off by %g", off(attended, a->type));
    cr_expect(off(qkv_gradient, a->type) < limit, "gradients are off by %g",
              off(qkv_gradient, a->type));
    /* the statistics: log Σ exp of the scores, so that exp(first score - it) is the first P */
    for (int64_t r = 0; r < scores; r++) {
        int64_t sample = r / (a->heads * a->sequence), head = r / a->sequence % a->heads;
        const double *left =
            qkv.exact + (sample * a->sequence + r % a->sequence) * row + head * a->size;
        const double *right = qkv.exact + sample * a->sequence * row +
                              (a->heads + head / (a->heads / a->kv_heads)) * a->size;
        double score = 0;
        for (int64_t i = 0; i < a->size; i++) score += left[i] * right[i];
        double p = exp(score / sqrt((double)a->size) - (double)statistics.as_float[r]);
        cr_expect(fabs(p - probabilities.exact[r * a->sequence]) < 1e-5, "statistics of row %lld",
                  (long long)r);
    }
    release(qkv), release(qkv_gradient), release(attended), release(attended_gradient);
    release(probabilities), release(statistics), release(sums), release(query_sums);
}

/* Both graphs compute what the CPU's attention computes, and obey the rules of descriptors. */
Test(cudnn, graphs_are_attention) {
    dnn_stand_in *control = open_stand_in(NULL);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        compare_graphs(&shapes[i], control);
        if (control->wrong) break;
    }
    expect_clean(control);
    cr_expect_eq(control->executed, 2 * (int)(sizeof shapes / sizeof *shapes));
}

/* ---- layers -------------------------------------------------------------------------------- */

static double as_bf16(double value) {
    return (double)bf16_to_float(bf16_from_float((float)value));
}

#define BLOCK(op_, dim_, heads_, kv_, sequence_, dropout_)                                         \
    {                                                                                              \
        .name = #op_, .op = op_, .dim = dim_, .heads = heads_, .kv_heads = kv_, .hidden = 24,      \
        .sequence = sequence_, .dropout = dropout_                                                 \
    }
static const pp_layer blocks[] = {
    BLOCK(PP_OP_GPT_BLOCK, 16, 2, 0, 32, 0), BLOCK(PP_OP_BERT_BLOCK, 16, 2, 0, 37, 0),
    BLOCK(PP_OP_LLAMA_BLOCK, 32, 4, 2, 24, 0), BLOCK(PP_OP_ATTENTION, 16, 1, 0, 64, 0)};
enum { BLOCKS = sizeof blocks / sizeof *blocks };

static void run_block(bench *b, bool again) {
    pp_layer_call call = bench_call(b);
    bench_reset(b, 0);
    bench_forward(b);
    for (int t = 0; again && t < b->tensor_count; t++)
        if (strcmp(b->list[t].name, "probabilities") == 0)
            bench_poison(b->tensors[t], bench_elements(b, t));
    if (again) b->ops(b->layer.op, b->dtype)->attend(&call);
    bench_input(b);
    bench_weight(b);
}

static void expect_near(const bench *b, const void *got, const bench *reference, const void *wanted,
                        int64_t count, const char *what) {
    double error = 0, norm = 1e-30;
    for (int64_t i = 0; i < count; i++) {
        double value = bench_get(reference, wanted, i), by = bench_get(b, got, i) - value;
        error += isnan(by) ? INFINITY : by * by;
        norm += value * value;
    }
    cr_expect(sqrt(error / norm) < 1.5e-2, "%s: %s is off by %g", b->layer.name, what,
              sqrt(error / norm));
}

/* One block in bf16 through the stand-in, against the CPU in double. */
static void compare_block(const pp_layer *layer, int64_t samples, bool again) {
    bench reference, b;
    bench_init_rounded(&reference, layer, PP_FP64, 2, samples, as_bf16);
    bench_init_rounded(&b, layer, PP_BF16, 2, samples, as_bf16);
    b.ops = pp_cuda_layer;
    run_block(&reference, false);
    run_block(&b, again);
    expect_near(&b, b.input_gradients[0], &reference, reference.input_gradients[0],
                bench_used_rows(&b) * layer->dim, "the input's gradient");
    for (int t = 0; t < b.tensor_count; t++)
        if (b.gradients[t])
            expect_near(&b, b.gradients[t], &reference, reference.gradients[t],
                        bench_elements(&b, t), b.list[t].name);
    bench_deinit(&b);
    bench_deinit(&reference);
}

Test(cudnn, blocks_are_as_on_the_cpu) {
    dnn_stand_in *control = open_stand_in("cudnn");
    for (int i = 0; i < BLOCKS; i++)
        for (int64_t samples = 1; samples <= 2; samples++)
            compare_block(&blocks[i], samples, false);
    cr_expect_eq(control->executed, 2 * 2 * BLOCKS, "forward and backward of each");
    int planned = control->made;
    for (int i = 0; i < BLOCKS; i++) compare_block(&blocks[i], 2, true);
    cr_expect_eq(control->executed, 2 * 2 * BLOCKS + 3 * BLOCKS, "made again in between");
    cr_expect_eq(control->made - planned, 3 * BLOCKS, "plans are kept: a pack for each run");
    cr_expect_eq(fake_said_count, 0, "%s", fake_said);
    fake_close_attention();
    expect_clean(control);
}

/* Dropout, fp32, odd heads and short sequences are for the parts, without asking cuDNN. */
Test(cudnn, what_it_cannot_do_is_done_in_parts) {
    dnn_stand_in *control = open_stand_in("cudnn");
    static const pp_layer others[] = {
        BLOCK(PP_OP_GPT_BLOCK, 16, 2, 0, 32, 0.25), BLOCK(PP_OP_GPT_BLOCK, 12, 2, 0, 32, 0),
        BLOCK(PP_OP_GPT_BLOCK, 16, 2, 0, 16, 0), BLOCK(PP_OP_GPT_BLOCK, 16, 2, 0, 1, 0)};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) compare_block(&others[i], 2, false);
    cr_expect_eq(control->made, 0);
    cr_expect_eq(fake_said_count, 0);
    expect_clean(control);
}

Test(cudnn, is_not_asked_where_parts_are_wanted) {
    dnn_stand_in *control = open_stand_in("parts");
    compare_block(&blocks[0], 2, false);
    cr_expect_eq(control->calls, 0);
}

Test(cudnn, an_unknown_wish_is_told) {
    dnn_stand_in *control = open_stand_in("flash");
    compare_block(&blocks[0], 2, true);
    cr_expect_str_eq(fake_said, "warning: PPSIM_ATTENTION is 'flash'; known are parts, measure and "
                                "cudnn: cudnn");
    fake_close_attention();
    expect_clean(control);
}

/* ---- what goes wrong ----------------------------------------------------------------------- */

Test(cudnn, without_the_library_parts_are_taken_and_it_is_told_once) {
    open_stand_in("cudnn");
    setenv("PPSIM_CUDNN", "/nowhere/libcudnn.so.9", 1);
    for (int i = 0; i < 2; i++) {
        compare_block(&blocks[0], 2, false);
        fake_close_attention();
    }
    cr_expect_eq(fake_said_count, 1);
    cr_expect_str_eq(fake_said,
                     "warning: attention is computed in parts, not by cuDNN: "
                     "/nowhere/libcudnn.so.9 cannot be loaded: install NVIDIA's cuDNN 9, or name "
                     "the file in PPSIM_CUDNN");
}

Test(cudnn, another_library_is_not_taken) {
    open_stand_in("cudnn");
    setenv("PPSIM_CUDNN", PPSIM_STAND_IN_NCCL, 1);
    compare_block(&blocks[0], 2, false);
    cr_expect_not_null(strstr(fake_said, "has no cudnnCreate"), "%s", fake_said);
    fake_close_attention();
}

Test(cudnn, an_old_library_is_not_taken) {
    dnn_stand_in *control = open_stand_in("cudnn");
    control->version = 90502;
    compare_block(&blocks[0], 2, false);
    cr_expect_not_null(strstr(fake_said, "cuDNN 9.5.2 is too old"), "%s", fake_said);
    fake_close_attention();
}

/* Engines that refuse or want too much are passed over; the rest of the probabilities' place is
 * room too. */
Test(cudnn, the_first_engine_that_fits_is_taken) {
    dnn_stand_in *control = open_stand_in("cudnn");
    control->engines = 3;
    control->refusing = 1;
    control->workspace_bytes[1] = 1 << 30;
    control->workspace_bytes[2] = 1 << 12;
    compare_block(&blocks[0], 2, false);
    cr_expect_eq(control->executed, 2);
    cr_expect_eq(fake_said_count, 0);
    control->workspace_bytes[2] = 6000; /* more than the queue's 4096 */
    compare_block(&blocks[3], 2, false);
    cr_expect_eq(control->executed, 4, "%s", fake_said);
    control->workspace_bytes[2] = 1 << 30;
    compare_block(&blocks[1], 2, false);
    cr_expect_eq(control->executed, 4);
    cr_expect_not_null(strstr(fake_said, "more workspace than a rank has"), "%s", fake_said);
    fake_close_attention();
    expect_clean(control);
}

Test(cudnn, without_engines_parts_are_taken) {
    dnn_stand_in *control = open_stand_in("cudnn");
    control->engines = -1;
    compare_block(&blocks[0], 2, false);
    cr_expect_eq(control->executed, 0);
    cr_expect_not_null(strstr(fake_said, "has no engine for this shape"), "%s", fake_said);
    fake_close_attention();
    expect_clean(control);
}

/* Whichever call fails: while plans are made, the parts are taken, and the results are right; a
 * plan that cannot be run is an error of the queue. Nothing is left behind. */
Test(cudnn, any_call_may_fail) {
    static const pp_layer small = BLOCK(PP_OP_ATTENTION, 8, 1, 0, 40, 0);
    dnn_stand_in *control = open_stand_in("cudnn");
    compare_block(&small, 1, false);
    fake_close_attention();
    int calls = control->calls, in_parts = 0, errors = 0;
    cr_assert(calls > 300, "%d", calls);
    for (int at = 1; at <= calls; at++) {
        int executed = control->executed;
        control->fail_at = at;
        fake_failed[0] = '\0';
        bench b;
        bench_init_rounded(&b, &small, PP_BF16, 1, 1, as_bf16);
        b.ops = pp_cuda_layer;
        run_block(&b, false);
        bool whole = control->executed - executed == 2;
        if (fake_failed[0])
            errors++;
        else if (!whole)
            in_parts++;
        cr_expect(fake_failed[0] != '\0' || whole || control->executed == executed,
                  "call %d: half by cuDNN", at);
        bench_deinit(&b);
        if (!fake_failed[0] && at % 7 == 0) {
            fake_close_attention();
            control->fail_at = at;
            compare_block(&small, 1, false);
        }
        fake_close_attention();
        cr_assert_eq(control->live + control->contexts, 0, "call %d leaves something", at);
    }
    cr_expect_eq(control->wrong, 0, "%s", control->first);
    cr_expect_eq(errors, 2 * 6, "a pack of five calls, and the run, forward and backward");
    cr_expect_eq(in_parts, calls - errors);
    cr_expect_eq(fake_said_count, 1);
}

/* ---- choosing ------------------------------------------------------------------------------ */

/* The faster way forward is the way of both. */
Test(cudnn, measured_shapes_go_the_faster_way) {
    dnn_stand_in *control = open_stand_in("measure");
    compare_block(&blocks[0], 2, false);
    cr_expect_eq(control->executed, 3, "measured, then forward and backward");
    cr_expect_not_null(strstr(fake_said, "attention of [2, 32] x 2 heads of 8, forward: 1000000.0 "
                                         "us by cuDNN, 2000000.0 us in parts"),
                       "%s", fake_said);
    fake_seconds[0] = 3;
    compare_block(&blocks[1], 2, false);
    cr_expect_eq(control->executed, 4, "measured, and not taken");
    compare_block(&blocks[0], 2, false);
    cr_expect_eq(control->executed, 6, "known");
    cr_expect_eq(fake_said_count, 2);
    fake_close_attention();
    expect_clean(control);
}
