/* Stage layouts: random graphs against an independent replay of what lives when. */
#include "core/core.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

COUNTED_SUITE(layout);

enum { LAYERS_MAX = 12 };

typedef struct random_model {
    pp_model model;
    pp_layer layers[LAYERS_MAX];
    pp_edge edges[LAYERS_MAX * LAYERS_MAX];
    char names[LAYERS_MAX][24];
    int order[LAYERS_MAX];
} random_model;

static uint64_t below(uint64_t seed, uint64_t *counter, uint64_t bound) {
    return pp_random_below(pp_random_key_make(seed, "layout", 0), (*counter)++, bound);
}

/* A graph with an embedding, some middle ops with skip edges, and a loss; ties in half of them. */
static void make_model(random_model *m, uint64_t seed) {
    static const pp_op middle[] = {PP_OP_GPT_BLOCK, PP_OP_LINEAR,     PP_OP_GELU,
                                   PP_OP_RELU,      PP_OP_ATTENTION,  PP_OP_DROPOUT,
                                   PP_OP_ADD,       PP_OP_LAYER_NORM, PP_OP_OPAQUE};
    uint64_t counter = 0;
    int count = 3 + (int)below(seed, &counter, LAYERS_MAX - 2);
    bool tied = below(seed, &counter, 2);
    *m = (random_model){
        .model = {.name = "random", .layers = m->layers, .layer_count = count, .edges = m->edges}};
    for (int i = 0; i < count; i++) {
        snprintf(m->names[i], sizeof m->names[i], "layer%d", i);
        pp_op op = i == 0           ? PP_OP_EMBEDDING
                   : i == count - 1 ? PP_OP_LM_HEAD
                                    : middle[below(seed, &counter, sizeof middle / sizeof *middle)];
        m->layers[i] = (pp_layer){.name = m->names[i],
                                  .op = op,
                                  .dim = 6,
                                  .heads = 2,
                                  .sequence = 3,
                                  .vocabulary = 11,
                                  .dropout = 0.1,
                                  .output_bytes = 100,
                                  .activation_bytes = 333,
                                  .parameter_bytes = 77};
        if (tied && (i == 0 || i == count - 1)) m->layers[i].tie = "wte";
        m->order[i] = i;
    }
    for (int from = 0; from < count - 1; from++)
        for (int to = from + 1; to < count; to++)
            if (to == from + 1 || (from > 0 && to < count - 1 && below(seed, &counter, 5) == 0))
                m->edges[m->model.edge_count++] = (pp_edge){from, to};
}

static int64_t aligned(int64_t size) {
    return (size + 63) / 64 * 64;
}

/* The one row of (layer, tensor) in `region`, or in any other than INPUT and OUTPUT_GRADIENT where
 * region is PP_REGION_COUNT. */
static const pp_buffer *row_of(const pp_stage_layout *layout, int layer, int tensor,
                               pp_region region) {
    const pp_buffer *found = NULL;
    for (int i = 0; i < layout->buffer_count; i++) {
        const pp_buffer *row = &layout->buffers[i];
        bool border = row->region == PP_REGION_INPUT || row->region == PP_REGION_OUTPUT_GRADIENT;
        if (row->layer != layer || row->tensor != tensor) continue;
        if (region == PP_REGION_COUNT ? border : row->region != region) continue;
        cr_assert_null(found, "two rows for one place");
        found = row;
    }
    return found;
}

static int output_of(const pp_layer *layer) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int count = pp_layer_tensors(layer, 1, PP_FP32, tensors);
    for (int t = 0; t < count; t++)
        if (tensors[t].role == PP_TENSOR_OUTPUT) return t;
    return -1;
}

/* ---- the oracle: who owns each 64-byte line of a region during a replay --------------------- */

enum { LINES = 1 << 14 };
typedef struct owners {
    const pp_buffer *line[PP_REGION_COUNT][LINES];
    int violations;
} owners;

static void take(owners *o, const pp_buffer *row) {
    int64_t first = row->offset_bytes / 64, count = aligned(row->size_bytes) / 64;
    cr_assert_leq(first + count, LINES);
    for (int64_t i = first; i < first + count; i++) o->line[row->region][i] = row;
}

/* Still there: nobody took a line since. */
static void check(owners *o, const pp_buffer *row) {
    int64_t first = row->offset_bytes / 64, count = aligned(row->size_bytes) / 64;
    for (int64_t i = first; i < first + count; i++) o->violations += o->line[row->region][i] != row;
}

typedef struct replay {
    const random_model *m;
    const pp_layout_request *request;
    const pp_stage_layout *layout;
    owners *o;
    bool *written; /* gradient rows that have a value: by layer */
} replay;

static const pp_buffer *value_row(const replay *r, int layer) {
    const pp_buffer *input =
        row_of(r->layout, layer, output_of(&r->m->layers[layer]), PP_REGION_INPUT);
    return input ? input
                 : row_of(r->layout, layer, output_of(&r->m->layers[layer]), PP_REGION_COUNT);
}

static const pp_buffer *gradient_row(const replay *r, int layer) {
    const pp_buffer *row = row_of(r->layout, layer, PP_BUFFER_GRADIENT, PP_REGION_COUNT);
    return row ? row : row_of(r->layout, layer, PP_BUFFER_GRADIENT, PP_REGION_OUTPUT_GRADIENT);
}

/* Takes or checks the layer's own tensors of the given roles. */
static void touch(const replay *r, int layer, unsigned roles,
                  void (*f)(owners *, const pp_buffer *)) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int count =
        pp_layer_tensors(&r->m->layers[layer], r->request->samples, r->request->dtype, tensors);
    for (int t = 0; t < count; t++)
        if (roles & 1u << tensors[t].role) f(r->o, row_of(r->layout, layer, t, PP_REGION_COUNT));
}

#define SAVED (1u << PP_TENSOR_SAVED_INPUT | 1u << PP_TENSOR_SAVED_WEIGHT)

static void replay_forward(const replay *r) {
    for (int i = 0; i < r->layout->layer_count; i++) {
        int layer = r->layout->layers[i];
        touch(r, layer, SAVED | 1u << PP_TENSOR_OUTPUT | 1u << PP_TENSOR_WORKSPACE, take);
        for (int e = 0; e < r->m->model.edge_count; e++)
            if (r->m->edges[e].to == layer) check(r->o, value_row(r, r->m->edges[e].from));
        touch(r, layer, SAVED | 1u << PP_TENSOR_OUTPUT, check);
    }
    for (int i = 0; i < r->layout->output_count; i++)
        check(r->o, value_row(r, r->layout->outputs[i]));
}

static void check_needed(const replay *r, int layer, bool weight) {
    pp_layer_needs needs = pp_layer_needs_get(r->m->layers[layer].op);
    bool reads_input = weight ? needs.input_for_weight : needs.input_for_input;
    for (int e = 0; e < r->m->model.edge_count; e++)
        if (r->m->edges[e].to == layer && reads_input)
            check(r->o, value_row(r, r->m->edges[e].from));
    if (!weight && needs.output_for_input) check(r->o, value_row(r, layer));
    if (weight && needs.gradient_for_weight && r->written[layer])
        check(r->o, gradient_row(r, layer));
}

static void replay_input(const replay *r, int layer) {
    if (r->written[layer]) check(r->o, gradient_row(r, layer));
    touch(r, layer, SAVED, check);
    check_needed(r, layer, false);
    touch(r, layer, 1u << PP_TENSOR_STASH | 1u << PP_TENSOR_WORKSPACE, take);
    for (int e = 0; e < r->m->model.edge_count; e++) {
        pp_edge edge = r->m->edges[e];
        if (edge.to != layer) continue;
        const pp_buffer *row = gradient_row(r, edge.from);
        cr_assert_not_null(row);
        if (r->written[edge.from]) check(r->o, row);
        take(r->o, row);
        r->written[edge.from] = true;
    }
    if (r->written[layer]) check(r->o, gradient_row(r, layer));
}

/* After all I of an action whose W comes later, WORKSPACE and what only I needed are gone. */
static void forget(const replay *r, bool keep_gradients) {
    static const pp_buffer nobody;
    for (int i = 0; i < LINES; i++) {
        r->o->line[PP_REGION_WORKSPACE][i] = &nobody;
        r->o->line[PP_REGION_OUTPUT_GRADIENT][i] = &nobody;
        if (!keep_gradients) r->o->line[PP_REGION_ACTIVATION_INPUT][i] = &nobody;
    }
}

static void replay_weight(const replay *r, int layer) {
    touch(r, layer, 1u << PP_TENSOR_SAVED_WEIGHT, check);
    touch(r, layer, 1u << PP_TENSOR_STASH, check);
    touch(r, layer, 1u << PP_TENSOR_WORKSPACE, take);
    check_needed(r, layer, true);
}

static void arrive(const replay *r) {
    for (int i = 0; i < r->layout->output_count; i++) {
        int layer = r->layout->outputs[i];
        const pp_buffer *received =
            row_of(r->layout, layer, PP_BUFFER_GRADIENT, PP_REGION_OUTPUT_GRADIENT);
        const pp_buffer *working = row_of(r->layout, layer, PP_BUFFER_GRADIENT, PP_REGION_COUNT);
        cr_assert_not_null(received);
        take(r->o, received);
        if (working) take(r->o, working);
        r->written[layer] = true;
    }
}

static void replay_backward(const replay *r) {
    bool split = r->request->split_backward;
    arrive(r);
    for (int i = r->layout->layer_count - 1; i >= 0; i--) {
        replay_input(r, r->layout->layers[i]);
        if (!split) replay_weight(r, r->layout->layers[i]);
    }
    for (int i = 0; i < r->layout->input_count; i++)
        if (r->written[r->layout->inputs[i]]) check(r->o, gradient_row(r, r->layout->inputs[i]));
    if (!split) return;
    forget(r, false);
    for (int i = r->layout->layer_count - 1; i >= 0; i--) replay_weight(r, r->layout->layers[i]);
}

/* ---- properties ------------------------------------------------------------------------------ */

static void check_rows(const random_model *m, const pp_layout_request *request,
                       const pp_stage_layout *layout) {
    int64_t region[PP_REGION_COUNT] = {0};
    for (int i = 0; i < layout->buffer_count; i++) {
        const pp_buffer *row = &layout->buffers[i];
        pp_tensor tensors[PP_LAYER_TENSORS];
        pp_layer_tensors(&m->layers[row->layer], request->samples, request->dtype, tensors);
        int tensor =
            row->tensor == PP_BUFFER_GRADIENT ? output_of(&m->layers[row->layer]) : row->tensor;
        cr_assert_eq(row->size_bytes, pp_tensor_bytes(&tensors[tensor]));
        cr_assert_eq(row->offset_bytes % 64, 0);
        int64_t end = row->offset_bytes + aligned(row->size_bytes);
        cr_assert_leq(end, layout->region_bytes[row->region]);
        if (end > region[row->region]) region[row->region] = end;
    }
    for (int i = 0; i < PP_REGION_COUNT; i++) cr_assert_eq(region[i], layout->region_bytes[i]);
    cr_assert_eq(layout->bytes.activation,
                 region[PP_REGION_ACTIVATION_INPUT] + region[PP_REGION_ACTIVATION_WEIGHT]);
    cr_assert_eq(layout->bytes.released_by_input, region[PP_REGION_ACTIVATION_INPUT]);
    cr_assert_eq(layout->bytes.workspace, region[PP_REGION_WORKSPACE]);
    cr_assert_eq(layout->bytes.stash, region[PP_REGION_STASH]);
    cr_assert(request->split_backward || region[PP_REGION_STASH] == 0);
}

/* Times that a tensor was found overwritten when it was needed. */
static int violations(const random_model *m, const pp_layout_request *request,
                      const pp_stage_layout *layout, owners *o) {
    bool written[LAYERS_MAX] = {false};
    memset(o, 0, sizeof *o);
    replay r = {m, request, layout, o, written};
    for (int i = 0; i < layout->buffer_count; i++)
        if (layout->buffers[i].region == PP_REGION_INPUT) take(o, &layout->buffers[i]);
    replay_forward(&r);
    forget(&r, true);
    replay_backward(&r);
    return o->violations;
}

/* What one stage sends is what the next receives, in the same order. */
static void check_border(const pp_stage_layout *before, const pp_stage_layout *behind) {
    cr_assert_eq(before->output_count, behind->input_count);
    for (int i = 0; i < before->output_count; i++)
        cr_assert_eq(before->outputs[i], behind->inputs[i]);
    cr_assert_eq(before->bytes.output_gradient, behind->bytes.input);
}

static void check_seed(uint64_t seed, pp_arena *arena, owners *o) {
    static random_model m;
    uint64_t counter = 1000;
    make_model(&m, seed);
    pp_stage_layout layout[2];
    pp_layout_request request = {.model = &m.model,
                                 .order = below(seed, &counter, 2) ? m.order : NULL,
                                 .samples = 1 + (int64_t)below(seed, &counter, 3),
                                 .dtype = (pp_dtype)below(seed, &counter, 3),
                                 .split_backward = below(seed, &counter, 2)};
    int stage = 0, covered = 0;
    for (request.first = 0; request.first < m.model.layer_count; stage++) {
        int left = m.model.layer_count - request.first;
        request.last = request.first + (int)below(seed, &counter, (uint64_t)left);
        cr_assert_eq(pp_stage_layout_make(&request, arena, &layout[stage % 2], NULL), PP_OK);
        check_rows(&m, &request, &layout[stage % 2]);
        cr_assert_eq(violations(&m, &request, &layout[stage % 2], o), 0, "seed %llu, stage %d",
                     (unsigned long long)seed, stage);
        cr_assert_eq(layout[stage % 2].layer_count, request.last - request.first + 1);
        for (int i = 0; i < layout[stage % 2].layer_count; i++)
            cr_assert_eq(layout[stage % 2].layers[i], covered++);
        if (stage > 0) check_border(&layout[(stage + 1) % 2], &layout[stage % 2]);
        if (stage == 0) cr_assert_eq(layout[0].input_count, 0);
        request.first = request.last + 1;
    }
    cr_assert_eq(layout[(stage + 1) % 2].output_count, 0);
    cr_assert_eq(covered, m.model.layer_count);
    pp_arena_reset(arena);
}

Test(layout, random_graphs_never_overlap) {
    pp_arena arena;
    pp_arena_init(&arena);
    owners *o = pp_allocate(sizeof *o);
    for (uint64_t seed = 0; seed < 400; seed++) check_seed(seed, &arena, o);
    pp_free(o);
    pp_arena_deinit(&arena);
}

/* The oracle sees: gradients moved onto each other are found in nearly every graph. */
Test(layout, a_planted_overlap_is_found) {
    static random_model m;
    pp_arena arena;
    pp_arena_init(&arena);
    owners *o = pp_allocate(sizeof *o);
    int found = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        make_model(&m, seed);
        pp_stage_layout layout;
        pp_layout_request request = {
            .model = &m.model, .last = m.model.layer_count - 1, .samples = 1};
        cr_assert_eq(pp_stage_layout_make(&request, &arena, &layout, NULL), PP_OK);
        for (int i = 0; i < layout.buffer_count; i++)
            if (layout.buffers[i].tensor == PP_BUFFER_GRADIENT) layout.buffers[i].offset_bytes = 0;
        found += violations(&m, &request, &layout, o) > 0;
    }
    cr_expect_eq(found, 20);
    pp_free(o);
    pp_arena_deinit(&arena);
}

/* A chain that keeps nothing needs two buffers at a time, however long it is. */
Test(layout, workspace_is_reused) {
    random_model m = {
        .model = {.name = "chain", .layers = m.layers, .layer_count = 8, .edges = m.edges}};
    for (int i = 0; i < 8; i++) {
        m.layers[i] = (pp_layer){.name = "r",
                                 .op = i ? PP_OP_DROPOUT : PP_OP_EMBEDDING,
                                 .dim = 64,
                                 .sequence = 16,
                                 .vocabulary = 10};
        if (i) m.edges[m.model.edge_count++] = (pp_edge){i - 1, i};
    }
    pp_arena arena;
    pp_arena_init(&arena);
    pp_stage_layout layout;
    pp_layout_request request = {.model = &m.model, .first = 0, .last = 7, .samples = 2};
    cr_assert_eq(pp_stage_layout_make(&request, &arena, &layout, NULL), PP_OK);
    cr_expect_eq(layout.bytes.workspace, 2 * (2 * 16 * 64 * 4));
    cr_expect_eq(layout.bytes.activation, 0);
    pp_arena_deinit(&arena);
}

static pp_stage_bytes bytes_of(const pp_model *model, pp_layout_request request, pp_arena *arena) {
    pp_stage_layout layout;
    request.model = model;
    cr_assert_eq(pp_stage_layout_make(&request, arena, &layout, NULL), PP_OK);
    return layout.bytes;
}

/* Embedding and head in one stage share one matrix and its states, but not its gradient. */
Test(layout, bytes_of_weights) {
    pp_layer layers[] = {{.name = "e",
                          .op = PP_OP_EMBEDDING,
                          .dim = 64,
                          .sequence = 16,
                          .vocabulary = 320,
                          .tie = "w"},
                         {.name = "h",
                          .op = PP_OP_LM_HEAD,
                          .dim = 64,
                          .sequence = 16,
                          .vocabulary = 320,
                          .tie = "w"}};
    pp_edge edge = {0, 1};
    pp_model model = {
        .name = "m", .layers = layers, .layer_count = 2, .edges = &edge, .edge_count = 1};
    int64_t shared = 320 * 64, rest = 16 * 64 + 2 * 64, all = shared + rest;
    static const struct {
        pp_dtype dtype;
        pp_optimizer optimizer;
        int64_t weight, state; /* bytes per parameter */
    } cases[] = {{PP_FP32, PP_ADAMW, 4, 8}, {PP_FP32, PP_SGD, 4, 4},    {PP_FP64, PP_ADAMW, 8, 16},
                 {PP_FP64, PP_SGD, 8, 8},   {PP_BF16, PP_ADAMW, 2, 12}, {PP_BF16, PP_SGD, 2, 8}};
    pp_arena arena;
    pp_arena_init(&arena);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_layout_request request = {
            .last = 1, .samples = 1, .dtype = cases[i].dtype, .optimizer = cases[i].optimizer};
        pp_stage_bytes bytes = bytes_of(&model, request, &arena);
        cr_expect_eq(bytes.parameters, all * cases[i].weight);
        cr_expect_eq(bytes.gradients, (all + shared) * cases[i].weight);
        cr_expect_eq(bytes.optimizer, all * cases[i].state);
        cr_expect_eq(bytes.reduction, shared * cases[i].weight);
    }
    layers[0].tie = layers[1].tie = NULL;
    pp_layout_request request = {.last = 1, .samples = 1};
    cr_expect_eq(bytes_of(&model, request, &arena).parameters, (all + shared) * 4);
    cr_expect_eq(bytes_of(&model, request, &arena).reduction, 0);
    request.dp = 2;
    cr_expect_eq(bytes_of(&model, request, &arena).reduction, shared * 4);
    layers[0].vocabulary = 1 << 20;
    cr_expect_eq(bytes_of(&model, request, &arena).reduction, 1 << 20);
    pp_arena_deinit(&arena);
}

/* A chain of blocks, written out: nothing of a block's neighbours is kept, its border tensors are.
 */
Test(layout, bytes_of_a_block) {
    pp_layer layers[3];
    for (int i = 0; i < 3; i++)
        layers[i] =
            (pp_layer){.name = "b", .op = PP_OP_GPT_BLOCK, .dim = 64, .heads = 4, .sequence = 32};
    pp_edge edges[] = {{0, 1}, {1, 2}};
    pp_model model = {
        .name = "m", .layers = layers, .layer_count = 3, .edges = edges, .edge_count = 2};
    pp_arena arena;
    pp_arena_init(&arena);
    pp_layout_request request = {.first = 1, .last = 1, .samples = 2, .dtype = PP_BF16};
    int64_t rows = 2 * 32, scratch = 2 * (2 * rows * 64 + 32 * 32), stash = 2 * rows * 64 * 11;
    pp_stage_bytes bytes = bytes_of(&model, request, &arena);
    cr_expect_eq(bytes.activation, rows * 64 * 32 + 2 * rows * 4 * 32 + 8 * rows);
    cr_expect_eq(bytes.released_by_input, rows * 64 * 14 + 2 * rows * 4 * 32 + 8 * rows);
    cr_expect_eq(bytes.input, 2 * rows * 64);
    cr_expect_eq(bytes.output_gradient, 2 * rows * 64);
    cr_expect_eq(bytes.stash, 0);
    cr_expect_eq(bytes.workspace, scratch + stash + 2 * rows * 64);
    request.split_backward = true;
    bytes = bytes_of(&model, request, &arena);
    cr_expect_eq(bytes.stash, stash);
    cr_expect_eq(bytes.workspace, scratch + 2 * rows * 64);
    pp_arena_deinit(&arena);
}

/* Every allocation may fail. */
static int allocations_left;

static void *failing_allocate(size_t size) {
    return allocations_left-- > 0 ? __builtin_malloc(size) : NULL;
}

Test(layout, out_of_memory) {
    static random_model m;
    make_model(&m, 3);
    pp_platform platform = *pp_platform_get();
    platform.allocate = failing_allocate;
    pp_status status = PP_E_OUT_OF_MEMORY;
    for (int n = 0; status != PP_OK; n++) {
        pp_arena arena;
        pp_error error = {0};
        pp_stage_layout layout;
        pp_layout_request request = {
            .model = &m.model, .last = m.model.layer_count - 1, .samples = 1};
        pp_arena_init(&arena);
        allocations_left = n;
        pp_platform_set(&platform);
        status = pp_stage_layout_make(&request, &arena, &layout, &error);
        pp_platform_set(NULL);
        cr_assert(status == PP_OK || error.code == PP_E_OUT_OF_MEMORY);
        cr_assert(status == PP_OK || n < 20);
        pp_arena_deinit(&arena);
    }
}
