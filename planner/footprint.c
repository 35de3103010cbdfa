/* The bytes of any interval of layers as a stage, made once for each kind of interval.
 *
 * The layout of a stage (core, part 9) costs time that grows with its layers, and a search asks for
 * thousands of intervals under each microbatch size. But in a model of equal blocks nearly all
 * intervals look alike. Two intervals are of one kind when their layers have equal shapes, read
 * each other and the border in the same way, and leave the same outputs for later stages; then
 * their layouts are equal whatever the microbatch size. Kinds are told apart by a hash of all this.
 */
#include <string.h>

#include "planner/planner_internal.h"

/* ---- kinds of intervals -------------------------------------------------------------------- */

/* All of a layer that its tensors depend on. Its name, tie and times are not among it. */
static uint64_t shape_of(const pp_model *model, int i, bool shared) {
    const pp_layer *layer = &model->layers[i];
    int64_t fields[] = {(int64_t)layer->op,
                        layer->dim,
                        layer->output_dim,
                        layer->heads,
                        layer->kv_heads,
                        layer->head_dim,
                        layer->hidden,
                        layer->segments,
                        (int64_t)layer->qkv_bias,
                        layer->sequence,
                        layer->vocabulary,
                        (int64_t)(layer->dropout > 0),
                        layer->parameter_bytes,
                        layer->tied_bytes,
                        layer->output_bytes,
                        layer->activation_bytes,
                        (int64_t)shared};
    return pp_hash(PP_HASH_START, fields, sizeof fields);
}

/* What a reader sees of a layer: rows at two sizes, because they may grow with the samples or not.
 */
static uint64_t output_of(const pp_model *model, pp_dtype dtype, int i) {
    uint64_t hash = PP_HASH_START;
    for (int64_t samples = 1; samples <= 2; samples++) {
        pp_tensor tensors[PP_LAYER_TENSORS];
        int count = pp_layer_tensors(&model->layers[i], samples, dtype, tensors);
        for (int t = 0; t < count; t++) {
            if (tensors[t].role != PP_TENSOR_OUTPUT) continue;
            int64_t extent[] = {tensors[t].rows, tensors[t].columns, (int64_t)tensors[t].dtype};
            hash = pp_hash(hash, extent, sizeof extent);
        }
    }
    return hash;
}

/* Outputs that cross the border in front of each layer, as lists in one array. */
static pp_status list_crossings(pp_footprints *footprints, pp_error *error) {
    const pp_tables *tables = footprints->tables;
    int n = tables->layers;
    footprints->crossing_start = PP_NEW(&footprints->arena, size_t, n + 2);
    if (footprints->crossing_start == NULL) return pp_fail_memory(error);
    size_t *start = footprints->crossing_start;
    for (int i = 0; i < n; i++) {
        for (int b = i + 1; b <= tables->last_reader[i]; b++) start[b + 1]++;
    }
    for (int b = 0; b <= n; b++) start[b + 1] += start[b];
    footprints->crossing = PP_NEW(&footprints->arena, int, start[n + 1] + 1);
    size_t *fill = PP_NEW(&footprints->arena, size_t, n + 1);
    if (footprints->arena.failed) return pp_fail_memory(error);
    memcpy(fill, start, ((size_t)n + 1) * sizeof *fill);
    for (int i = 0; i < n; i++) {
        for (int b = i + 1; b <= tables->last_reader[i]; b++) footprints->crossing[fill[b]++] = i;
    }
    return PP_OK;
}

/* Edges by the layer that reads, as lists in one array. */
static pp_status list_readers(pp_footprints *footprints, pp_error *error) {
    const pp_model *model = footprints->tables->model;
    int n = model->layer_count;
    footprints->read_start = PP_NEW(&footprints->arena, size_t, n + 1);
    footprints->read = PP_NEW(&footprints->arena, int, model->edge_count + 1);
    size_t *fill = PP_NEW(&footprints->arena, size_t, n + 1);
    if (footprints->arena.failed) return pp_fail_memory(error);
    for (int e = 0; e < model->edge_count; e++) footprints->read_start[model->edges[e].to + 1]++;
    for (int i = 0; i < n; i++) footprints->read_start[i + 1] += footprints->read_start[i];
    memcpy(fill, footprints->read_start, ((size_t)n + 1) * sizeof *fill);
    for (int e = 0; e < model->edge_count; e++) {
        pp_edge edge = model->edges[e];
        footprints->read[fill[edge.to]++] = edge.from;
    }
    return PP_OK;
}

static uint64_t add(uint64_t hash, uint64_t value) {
    return pp_mix64(hash, value);
}

/* What comes in over the border: shape of each output, and whether it is relayed further. */
static uint64_t hash_border(const pp_footprints *footprints, int first, int last, uint64_t hash) {
    for (size_t c = footprints->crossing_start[first]; c < footprints->crossing_start[first + 1];
         c++) {
        int from = footprints->crossing[c];
        hash = add(hash, footprints->output[from]);
        hash = add(hash, footprints->tables->last_reader[from] > last);
    }
    return add(hash, UINT64_MAX);
}

/* Where a layer of the interval finds an input: so many layers back, or the n-th of the border. */
static uint64_t hash_input(const pp_footprints *footprints, int first, int reader, int from,
                           uint64_t hash) {
    if (from >= first) return add(hash, (uint64_t)(reader - from));
    uint64_t position = 0;
    size_t c = footprints->crossing_start[first];
    while (footprints->crossing[c + position] != from) position++;
    return add(hash, UINT64_MAX - 1 - position);
}

static uint64_t hash_layer(const pp_footprints *footprints, int first, int last, int i,
                           uint64_t hash) {
    const pp_tables *tables = footprints->tables;
    hash = add(hash, footprints->shape[i]);
    hash = add(hash, tables->last_reader[i] > last);
    if (tables->whole->tied_bytes[i] > 0) hash = add(hash, pp_tables_tied_before(tables, i, first));
    for (size_t r = footprints->read_start[i]; r < footprints->read_start[i + 1]; r++) {
        hash = hash_input(footprints, first, i, footprints->read[r], hash);
    }
    return add(hash, UINT64_MAX);
}

static uint64_t kind_of(pp_footprints *footprints, int first, int last) {
    uint64_t n = (uint64_t)footprints->tables->layers;
    if (footprints->tables->lattice != NULL) { /* each its own kind, apart from those of orders */
        return add(add(add(PP_HASH_START, n), (uint64_t)first), ~(uint64_t)last);
    }
    uint64_t interval = (uint64_t)first * n + (uint64_t)last + 1;
    int64_t known;
    if (pp_memo_find(&footprints->kinds, interval, &known)) return (uint64_t)known;
    uint64_t hash = hash_border(footprints, first, last, PP_HASH_START);
    for (int i = first; i <= last; i++) hash = hash_layer(footprints, first, last, i, hash);
    pp_memo_put(&footprints->kinds, interval, (int64_t)hash); /* out of memory: asked again */
    return hash;
}

/* ---- bytes --------------------------------------------------------------------------------- */

pp_status pp_footprints_init(pp_footprints *footprints, const pp_tables *tables, pp_error *error) {
    *footprints = (pp_footprints){.tables = tables};
    pp_arena_init(&footprints->arena);
    pp_arena_init(&footprints->scratch);
    if (tables->lattice != NULL) return PP_OK;
    footprints->shape = PP_NEW(&footprints->arena, uint64_t, tables->layers);
    footprints->output = PP_NEW(&footprints->arena, uint64_t, tables->layers);
    if (footprints->arena.failed) return pp_fail_memory(error);
    for (int i = 0; i < tables->layers; i++) {
        footprints->shape[i] = shape_of(tables->model, i, tables->whole->tied_bytes[i] > 0);
        footprints->output[i] = output_of(tables->model, tables->request->dtype, i);
    }
    PP_TRY(list_crossings(footprints, error));
    return list_readers(footprints, error);
}

void pp_footprints_deinit(pp_footprints *footprints) {
    pp_memo_deinit(&footprints->kinds);
    pp_memo_deinit(&footprints->layouts);
    pp_arena_deinit(&footprints->arena);
    pp_arena_deinit(&footprints->scratch);
}

/* Over a lattice: an order in which what ideal last + 1 has beyond ideal first stands in one piece.
 * NULL: out of memory. Turns first and last into positions of that order. */
static const int *order_of(pp_footprints *footprints, int *first, int *last) {
    const pp_lattice *lattice = footprints->tables->lattice;
    int splits[] = {*first, *last + 1}, positions[2];
    int *order = PP_NEW(&footprints->scratch, int, lattice->layers);
    if (order == NULL) return NULL;
    pp_lattice_order(lattice, splits, 3, order, positions);
    *first = positions[0];
    *last = positions[1] - 1;
    return order;
}

static const pp_stage_bytes *make_layout(pp_footprints *footprints, int first, int last,
                                         pp_footprint_mode mode, uint64_t key) {
    const pp_plan_request *request = footprints->tables->request;
    const int *order = NULL;
    pp_arena_reset(&footprints->scratch);
    if (footprints->tables->lattice != NULL) {
        order = order_of(footprints, &first, &last);
        if (order == NULL) return NULL;
    }
    pp_layout_request ask = {.model = footprints->tables->model,
                             .order = order,
                             .first = first,
                             .last = last,
                             .samples = mode.samples,
                             .dtype = request->dtype,
                             .optimizer = request->optimizer,
                             .split_backward = mode.split_backward,
                             .recompute = mode.recompute,
                             .dp = mode.dp,
                             .tp = mode.tp};
    pp_stage_layout layout;
    if (pp_stage_layout_make(&ask, &footprints->scratch, &layout, NULL) != PP_OK) return NULL;
    pp_stage_bytes *bytes = PP_NEW(&footprints->arena, pp_stage_bytes, 1);
    if (bytes == NULL) return NULL;
    *bytes = layout.bytes;
    bytes->optimizer = pp_sharded_optimizer_bytes(bytes, request->dtype, mode.shards);
    if (!pp_memo_put(&footprints->layouts, key, (int64_t)(intptr_t)bytes)) return NULL;
    return bytes;
}

uint64_t pp_footprint_kind(pp_footprints *footprints, int first, int last) {
    return kind_of(footprints, first, last);
}

uint64_t pp_footprint_key(pp_footprints *footprints, int first, int last, pp_footprint_mode mode) {
    uint64_t key = kind_of(footprints, first, last);
    key = add(key, (uint64_t)mode.samples);
    key = add(key, (uint64_t)mode.dp << 32 | (uint64_t)mode.shards);
    key = add(key, (uint64_t)mode.tp);
    key = add(key, (uint64_t)mode.recompute << 1 | (uint64_t)mode.split_backward);
    return key != 0 ? key : 1;
}

const pp_stage_bytes *pp_footprint(pp_footprints *footprints, int first, int last,
                                   pp_footprint_mode mode) {
    uint64_t key = pp_footprint_key(footprints, first, last, mode);
    int64_t known;
    if (pp_memo_find(&footprints->layouts, key, &known)) {
        return (const pp_stage_bytes *)(intptr_t)known;
    }
    return make_layout(footprints, first, last, mode, key);
}
