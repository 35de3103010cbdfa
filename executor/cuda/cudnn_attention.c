/* Attention by cuDNN: one kernel forward and a few backward that never write the square of
 * probabilities.
 *
 * PPSIM_ATTENTION says where: `cudnn` (wherever the library can; the default), `measure` (where its
 * F is faster than the parts, shape by shape; I follows F, because what F keeps differs) or `parts`
 * (nowhere). What its graphs compute is tested on the host, by a stand-in for the library that
 * evaluates them (tests/cudnn), and on a device by gpu_layers.
 *
 * Memory stays as it is planned: the tensor of the probabilities, which F writes and I reads last,
 * holds the statistics instead, and behind them I's scratch:
 *
 *     statistics | sums of rows | queries' gradients in fp32 | rest
 *
 * So nothing is allocated, predicted peaks hold (and are more than is touched), and sequences must
 * be longer than twice the head's size and a little; others take the parts. Engines get the larger
 * of the rest and the queue's workspace, which cuBLAS uses in the same stream at other times.
 *
 * cuDNN adds up the queries' gradients in the order in which blocks come: equal runs may differ in
 * their last bits; the parts have no such freedom. Without a library, an engine or room the parts are taken, told once. */
#include "executor/cuda/attention.h"

#include "executor/cuda/attention_graph.h"
#include "executor/cuda/choice.h"
#include "executor/cuda/queue.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHAPES = 32, ALIGNMENT = 256, HEAD_MOST = 256, FP32_BYTES = 4, BF16_BYTES = 2 };

typedef enum way { PARTS, MEASURE, CUDNN } way;

/* ---- what was asked for -------------------------------------------------------------------- */

static way wish = CUDNN;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void say(bool warns, const char *format, const char *what) {
    char text[320];
    snprintf(text, sizeof text, format, what);
    pp_cuda_say(warns, text);
}

static void read_wish(void) {
    const char *asked = getenv("PPSIM_ATTENTION");
    if (!asked || strcmp(asked, "cudnn") == 0) return;
    if (strcmp(asked, "parts") == 0)
        wish = PARTS;
    else if (strcmp(asked, "measure") == 0)
        wish = MEASURE;
    else
        say(true, "PPSIM_ATTENTION is '%.40s'; known are parts, measure and cudnn: cudnn", asked);
}

/* Once in a process: ranks have equal reasons. */
static void tell_why_not(const char *why) {
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&told))
        say(true, "attention is computed in parts, not by cuDNN: %.250s", why);
}

/* ---- where things lie ---------------------------------------------------------------------- */

typedef struct places {
    int64_t row_sums, query_sums, rest, end; /* bytes into the place of the probabilities */
} places;

static int64_t aligned(int64_t size_bytes) {
    return (size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static places places_of(const dnn_attention *shape) {
    const int64_t rows = shape->samples * shape->heads * shape->sequence;
    places p = {.row_sums = aligned(rows * FP32_BYTES)};
    p.query_sums = 2 * p.row_sums;
    p.rest = p.query_sums + aligned(rows * shape->size * FP32_BYTES);
    p.end = rows * shape->sequence * BF16_BYTES;
    return p;
}

static bool is_possible(pp_launch l, const dnn_attention *shape) {
    places p = places_of(shape);
    return l.bf16 && shape->samples > 0 && shape->size % 8 == 0 && shape->size <= HEAD_MOST &&
           p.rest <= p.end;
}

/* ---- plans, kept --------------------------------------------------------------------------- */

typedef struct kept_plans {
    dnn_attention shape;
    bool used; /* else the parts are */
    dnn_plan forward, backward;
} kept_plans;

/* Of one queue. */
typedef struct attention_state {
    const dnn_functions *functions;
    dnn_context *context; /* NULL: cuDNN cannot be used */
    int count;
    kept_plans plans[SHAPES];
} attention_state;

/* Without holes, so that shapes are compared byte by byte. */
static dnn_attention shape_of(const pp_attention *a) {
    return (dnn_attention){.samples = a->samples,
                           .sequence = a->sequence,
                           .heads = a->heads,
                           .kv_heads = a->kv_heads,
                           .size = a->size,
                           .type = DNN_DATA_BFLOAT16,
                           .causal = a->causal};
}

static void open_context(attention_state *state, pp_launch l) {
    char why[256];
    dnn_context *context = NULL;
    state->functions = pp_dnn_functions(why);
    if (!state->functions) {
        tell_why_not(why);
        return;
    }
    int status = state->functions->create(&context);
    if (status == DNN_STATUS_SUCCESS) {
        status = state->functions->set_stream(context, l.stream);
        if (status == DNN_STATUS_SUCCESS) {
            state->context = context;
            return;
        }
        state->functions->destroy(context);
    }
    tell_why_not(state->functions->error_text(status));
}

/* NULL: no memory on the host, which the queue has noted. */
static attention_state *state_of(pp_launch l) {
    void **kept = pp_cuda_attention();
    if (*kept) return *kept;
    attention_state *state = pp_cuda_host_allocate(sizeof *state);
    if (!state) return NULL;
    memset(state, 0, sizeof *state);
    open_context(state, l);
    return *kept = state;
}

void pp_attention_close(void *kept) {
    attention_state *state = kept;
    if (!state) return;
    for (int i = 0; i < state->count; i++) {
        pp_dnn_plan_close(&state->plans[i].forward);
        pp_dnn_plan_close(&state->plans[i].backward);
    }
    if (state->context) state->functions->destroy(state->context);
    pp_cuda_host_release(state);
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Both, or none: whoever begins with cuDNN must be able to go on. */
static bool make_plans(const attention_state *state, kept_plans *plans) {
    char why[160];
    dnn_graph graph;
    size_t workspace_bytes;
    places p = places_of(&plans->shape);
    pp_cuda_workspace(&workspace_bytes);
    const int64_t room = larger((int64_t)workspace_bytes, p.end - p.rest);
    dnn_attention_forward(&plans->shape, &graph);
    if (pp_dnn_plan_make(&plans->forward, state->functions, state->context, &graph, room, why)) {
        dnn_attention_backward(&plans->shape, &graph);
        if (pp_dnn_plan_make(&plans->backward, state->functions, state->context, &graph, room, why))
            return true;
        pp_dnn_plan_close(&plans->forward);
    }
    tell_why_not(why);
    return false;
}

/* ---- running ------------------------------------------------------------------------------- */

static void *workspace_of(const pp_attention *a, const places *p, const dnn_plan *plan) {
    size_t workspace_bytes;
    void *workspace = pp_cuda_workspace(&workspace_bytes);
    return plan->workspace_bytes <= (int64_t)workspace_bytes ? workspace
                                                             : (char *)a->kept + p->rest;
}

/* A plan with everything that either direction may ask for; ids that it does not know are left
 * out. */
static bool run_plan(const attention_state *state, const kept_plans *plans, const pp_attention *a,
                     bool backward) {
    const int64_t k = a->heads * a->size * BF16_BYTES;
    const int64_t v = k + a->kv_heads * a->size * BF16_BYTES;
    const dnn_plan *plan = backward ? &plans->backward : &plans->forward;
    float scale = (float)(1 / sqrt((double)a->size)), hidden = -INFINITY, one = 1;
    places p = places_of(&plans->shape);
    char *kept = a->kept, *qkv = (char *)(uintptr_t)a->qkv, *gradient = a->qkv_gradient;
    char why[160];
    dnn_binding bindings[DNN_ATTENTION_IDS];
    int count = 0;
#define BIND(id, address) bindings[count++] = (dnn_binding){id, address}
    BIND(DNN_Q, qkv);
    BIND(DNN_K, qkv + k);
    BIND(DNN_V, qkv + v);
    BIND(DNN_O, a->attended);
    BIND(DNN_STATISTICS, kept);
    BIND(DNN_SCALE, &scale);
    if (a->causal) BIND(DNN_HIDDEN, &hidden);
    if (backward) {
        BIND(DNN_ONE, &one);
        BIND(DNN_O_GRADIENT, (void *)(uintptr_t)a->attended_gradient);
        BIND(DNN_Q_GRADIENT, gradient);
        BIND(DNN_K_GRADIENT, gradient + k);
        BIND(DNN_V_GRADIENT, gradient + v);
        BIND(DNN_ROW_SUMS, kept + p.row_sums);
        BIND(DNN_Q_SUMS, kept + p.query_sums);
    }
#undef BIND
    if (pp_dnn_plan_run(plan, state->context, bindings, count, workspace_of(a, &p, plan), why))
        return true;
    pp_cuda_fail(why);
    return false;
}

typedef struct contest {
    const attention_state *state;
    const kept_plans *plans;
    const pp_attention *attention;
} contest;

static bool run_cudnn(void *context) {
    const contest *c = context;
    return run_plan(c->state, c->plans, c->attention, false);
}

static bool run_parts(void *context) {
    const contest *c = context;
    c->attention->in_parts(c->attention->call);
    return true;
}

static double time_way(void *context, bool fused) {
    return pp_cuda_seconds(fused ? run_cudnn : run_parts, context);
}

static bool is_faster(contest *c, const dnn_attention *shape) {
    pp_choice_key key;
    memset(&key, 0, sizeof key);
    key.rows = shape->samples;
    key.in = shape->sequence;
    key.out = shape->size;
    key.heads = shape->heads;
    key.kv_heads = shape->kv_heads;
    key.causal = shape->causal;
    key.bf16 = 1;
    pp_cuda_seat(&key.device, &key.multiprocessors);
    pp_choice choice = pp_choose(&key, time_way, c);
    char text[200];
    snprintf(
        text, sizeof text,
        "attention of [%lld, %lld] x %lld heads of %lld, forward: %.1f us by cuDNN, %.1f us in "
        "parts",
        (long long)shape->samples, (long long)shape->sequence, (long long)shape->heads,
        (long long)shape->size, 1e6 * choice.fused_s, 1e6 * choice.parts_s);
    if (choice.fresh) pp_cuda_say(false, text);
    return choice.fused;
}

/* How this shape goes on this queue: decided once. NULL: in parts. */
static const kept_plans *plans_for(pp_launch l, const attention_state **used,
                                   const pp_attention *a) {
    pthread_once(&once, read_wish);
    if (wish == PARTS) return NULL;
    dnn_attention shape = shape_of(a);
    if (!is_possible(l, &shape)) return NULL;
    attention_state *state = state_of(l);
    if (!state || !state->context) return NULL;
    *used = state;
    int i = 0;
    while (i < state->count && memcmp(&state->plans[i].shape, &shape, sizeof shape) != 0) i++;
    if (i == SHAPES) return NULL;
    kept_plans *plans = &state->plans[i];
    if (i == state->count) {
        plans->shape = shape;
        plans->used = make_plans(state, plans);
        state->count++;
        contest c = {state, plans, a};
        if (plans->used && wish == MEASURE) plans->used = is_faster(&c, &shape);
    }
    return plans->used ? plans : NULL;
}

/* After a failure the queue holds it, and whoever waits for the queue learns of it. */
static bool run(pp_launch l, const pp_attention *a, bool backward) {
    const attention_state *state = NULL;
    const kept_plans *plans = plans_for(l, &state, a);
    if (plans) run_plan(state, plans, a, backward);
    return plans != NULL;
}

bool pp_attention_forward(pp_launch l, const pp_attention *a) {
    return run(l, a, false);
}

bool pp_attention_input(pp_launch l, const pp_attention *a) {
    return run(l, a, true);
}
