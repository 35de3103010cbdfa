/* The same model in other orders.
 *
 * Stages are intervals of an order of the layers, and all that the planner knows of them is sums
 * over intervals. A model that branches has many topological orders, so each that comes up gets
 * tables of its own: a view. A view's positions are those of its order; its model is the file's
 * with the layers in that order, so that nobody behind needs to know. One more view, `wide`, has
 * the ideals of lattice.c for positions: there the best cut over all orders is found, which then
 * becomes an interval of some order.
 *
 * Sums over a set of layers are added up in the file's order whatever set it is, so that a larger
 * set never has a smaller sum by rounding. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "planner/planner_internal.h"

/* ---- sums ---------------------------------------------------------------------------------- */

/* Which arrays are sums over positions, and which have a value for each layer. */
static const size_t weight_sums[] = {
    offsetof(pp_weights, weight_bytes), offsetof(pp_weights, state_bytes),
    offsetof(pp_weights, own_bytes), offsetof(pp_weights, held_bytes)};
static const size_t timing_sums[] = {offsetof(pp_timing, forward), offsetof(pp_timing, input),
                                     offsetof(pp_timing, weight), offsetof(pp_timing, own_update)};
static const size_t timing_values[] = {
    offsetof(pp_timing, forward_each),      offsetof(pp_timing, input_each),
    offsetof(pp_timing, weight_each),       offsetof(pp_timing, update_each),
    offsetof(pp_timing, forward_tilt_each), offsetof(pp_timing, input_tilt_each)};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static double **doubles_at(const void *owner, size_t offset) {
    return (double **)(void *)((char *)(uintptr_t)owner + offset);
}

static int64_t **bytes_at(const void *owner, size_t offset) {
    return (int64_t **)(void *)((char *)(uintptr_t)owner + offset);
}

/* What a view is over: prefixes of an order, or a lattice's ideals. */
static int layers_of(const pp_tables *tables) {
    return tables->lattice != NULL ? tables->lattice->layers : tables->layers;
}

static int layer_at(const pp_tables *tables, int position) {
    return tables->order != NULL ? tables->order[position] : position;
}

/* each: [layers of the file]. Returns [positions + 1]. */
static double *sum_s(const pp_tables *tables, const double *each, pp_arena *arena) {
    const pp_lattice *lattice = tables->lattice;
    double *sums = PP_NEW(arena, double, tables->layers + 1);
    for (int i = 0; sums != NULL && i <= tables->layers; i++) {
        if (lattice == NULL && i > 0) sums[i] = sums[i - 1] + each[layer_at(tables, i - 1)];
        for (int l = 0; lattice != NULL && l < lattice->layers; l++) {
            if (pp_lattice_has(lattice, i, l)) sums[i] += each[l];
        }
    }
    return sums;
}

static int64_t *sum_bytes(const pp_tables *tables, const int64_t *each, pp_arena *arena) {
    const pp_lattice *lattice = tables->lattice;
    int64_t *sums = PP_NEW(arena, int64_t, tables->layers + 1);
    for (int i = 0; sums != NULL && i <= tables->layers; i++) {
        if (lattice == NULL && i > 0) sums[i] = sums[i - 1] + each[layer_at(tables, i - 1)];
        for (int l = 0; lattice != NULL && l < lattice->layers; l++) {
            if (pp_lattice_has(lattice, i, l)) sums[i] += each[l];
        }
    }
    return sums;
}

/* From the file's prefix sums back to layers, then to the view's sums. */
static int64_t *resum_bytes(pp_tables *tables, const int64_t *sums, int layers) {
    int64_t *each = PP_NEW(&tables->arena, int64_t, layers);
    if (each == NULL) return NULL;
    for (int i = 0; i < layers; i++) each[i] = sums[i + 1] - sums[i];
    return sum_bytes(tables, each, &tables->arena);
}

static double *resum_s(pp_tables *tables, const double *sums, int layers) {
    double *each = PP_NEW(&tables->arena, double, layers);
    if (each == NULL) return NULL;
    for (int i = 0; i < layers; i++) each[i] = sums[i + 1] - sums[i];
    return sum_s(tables, each, &tables->arena);
}

/* The view's counterpart. NULL: out of memory. */
static const pp_weights *see_weights(pp_view *view, const pp_weights *base) {
    pp_tables *tables = view->tables;
    pp_arena *arena = &tables->arena;
    uint64_t key = (uint64_t)(uintptr_t)base;
    int64_t found;
    if (pp_memo_find(&view->weights, key, &found)) return (const pp_weights *)(intptr_t)found;
    pp_weights *made = PP_NEW(arena, pp_weights, 1);
    if (made == NULL) return NULL;
    *made = (pp_weights){.tp = base->tp,
                         .untied_share = PP_NEW(arena, double, tables->layers),
                         .own_share = PP_NEW(arena, double, tables->layers),
                         .tied_bytes = PP_NEW(arena, int64_t, tables->layers)};
    for (size_t f = 0; f < COUNT(weight_sums); f++) {
        const int64_t *sums = *bytes_at(base, weight_sums[f]);
        *bytes_at(made, weight_sums[f]) = resum_bytes(tables, sums, layers_of(tables));
    }
    if (arena->failed) return NULL;
    for (int i = 0; i < tables->layers && tables->order != NULL; i++) {
        made->untied_share[i] = base->untied_share[tables->order[i]];
        made->own_share[i] = base->own_share[tables->order[i]];
        made->tied_bytes[i] = base->tied_bytes[tables->order[i]];
    }
    return pp_memo_put(&view->weights, key, (int64_t)(intptr_t)made) ? made : NULL;
}

/* ---- the model in another order ------------------------------------------------------------ */

static int by_start(const void *a_, const void *b_) {
    const pp_edge *a = a_, *b = b_;
    if (a->from != b->from) return a->from < b->from ? -1 : 1;
    return a->to < b->to ? -1 : a->to > b->to;
}

static bool reorder_model(pp_tables *tables, const pp_model *model) {
    pp_arena *arena = &tables->arena;
    pp_model *copy = PP_NEW(arena, pp_model, 1);
    pp_layer *layers = PP_NEW(arena, pp_layer, model->layer_count);
    pp_edge *edges = PP_NEW(arena, pp_edge, model->edge_count + 1);
    int *position = PP_NEW(arena, int, model->layer_count);
    if (arena->failed) return false;
    for (int i = 0; i < model->layer_count; i++) {
        layers[i] = model->layers[tables->order[i]];
        position[tables->order[i]] = i;
    }
    for (int e = 0; e < model->edge_count; e++) {
        edges[e] = (pp_edge){position[model->edges[e].from], position[model->edges[e].to]};
    }
    qsort(edges, (size_t)model->edge_count, sizeof *edges, by_start);
    *copy = (pp_model){.name = model->name,
                       .layers = layers,
                       .layer_count = model->layer_count,
                       .edges = edges,
                       .edge_count = model->edge_count};
    tables->model = copy;
    return true;
}

/* Ties are named by their lowest layer, which may be another in this order. */
static void reorder_ties(pp_tables *tables, const pp_tables *base) {
    tables->tied_count = 0;
    for (int i = 0; i < tables->layers; i++) {
        int tie = base->tie[tables->order[i]], lowest = i;
        for (int k = i - 1; k >= 0; k--) {
            if (tie >= 0 && base->tie[tables->order[k]] == tie) lowest = k;
        }
        tables->tie[i] = tie >= 0 ? lowest : -1;
        if (tie >= 0) tables->tied_layers[tables->tied_count++] = i;
    }
}

static bool reorder_layers(pp_tables *tables, const pp_tables *base) {
    pp_arena *arena = &tables->arena;
    int layers = tables->layers;
    tables->last_reader = PP_NEW(arena, int, layers);
    tables->tie = PP_NEW(arena, int, layers);
    tables->tied_layers = PP_NEW(arena, int, layers);
    if (arena->failed || !reorder_model(tables, base->model)) return false;
    for (int i = 0; i < layers; i++) tables->last_reader[i] = -1;
    const pp_model *model = tables->model;
    for (int e = 0; e < model->edge_count; e++) { /* sorted: the last one wins */
        tables->last_reader[model->edges[e].from] = model->edges[e].to;
    }
    reorder_ties(tables, base);
    return true;
}

/* ---- making views -------------------------------------------------------------------------- */

/* order or lattice is NULL. */
static pp_status make_view(pp_view *view, pp_tables *base, const int *order,
                           const pp_lattice *lattice, pp_error *error) {
    *view = (pp_view){.base = base,
                      .tables = pp_allocate_zeroed(1, sizeof *view->tables),
                      .footprints = pp_allocate_zeroed(1, sizeof *view->footprints)};
    if (view->tables == NULL || view->footprints == NULL) return pp_fail_memory(error);
    pp_tables *tables = view->tables;
    pthread_mutex_lock(base->lock);
    *tables = *base;
    pthread_mutex_unlock(base->lock);
    tables->timing_of = tables->weights_of = (pp_memo){0}; /* asked of the base alone */
    pp_arena_init(&tables->arena);
    tables->lattice = lattice;
    if (lattice != NULL) tables->layers = lattice->count - 1;
    if (order != NULL) {
        int *copy = PP_NEW(&tables->arena, int, tables->layers);
        if (copy == NULL) return pp_fail_memory(error);
        memcpy(copy, order, (size_t)tables->layers * sizeof *copy);
        tables->order = copy;
        if (!reorder_layers(tables, base)) return pp_fail_memory(error);
    }
    tables->whole = see_weights(view, base->whole);
    if (tables->whole == NULL) return pp_fail_memory(error);
    return pp_footprints_init(view->footprints, tables, error);
}

static void drop_view(pp_view *view) {
    if (view->footprints != NULL) pp_footprints_deinit(view->footprints);
    if (view->tables != NULL) {
        pp_arena_deinit(&view->tables->arena);
    }
    pp_memo_deinit(&view->timings);
    pp_memo_deinit(&view->weights);
    pp_free(view->footprints);
    pp_free(view->tables);
}

pp_status pp_views_init(pp_views *views, pp_tables *base, pp_footprints *footprints,
                        pp_lattice_family widest, int limit, pp_error *error) {
    *views = (pp_views){.base = base, .file = {base, base, footprints, {0}, {0}}, .complete = true};
    pp_arena_init(&views->arena);
    views->wide = &views->file;
    if (pp_model_is_linear(base->model)) return PP_OK;
    PP_TRY(pp_lattice_make(base->model, widest, limit, &views->arena, &views->lattice, error));
    views->complete = views->lattice.family == PP_CUTS_ALL;
    views->wide = PP_NEW(&views->arena, pp_view, 1);
    if (views->wide == NULL) return pp_fail_memory(error);
    return make_view(views->wide, base, NULL, &views->lattice, error);
}

pp_status pp_views_share(pp_views *views, pp_views *from, pp_footprints *footprints,
                         pp_error *error) {
    *views = (pp_views){.base = from->base,
                        .file = {from->base, from->base, footprints, {0}, {0}},
                        .complete = from->complete};
    pp_arena_init(&views->arena);
    views->wide = &views->file;
    if (from->wide == &from->file) return PP_OK;
    views->wide = PP_NEW(&views->arena, pp_view, 1);
    if (views->wide == NULL) return pp_fail_memory(error);
    return make_view(views->wide, from->base, NULL, &from->lattice, error);
}

void pp_views_deinit(pp_views *views) {
    if (views->wide != NULL && views->wide != &views->file) drop_view(views->wide);
    for (size_t i = 0; i < views->order_count; i++) {
        drop_view(views->orders[i]);
        pp_free(views->orders[i]);
    }
    pp_free(views->orders);
    pp_memo_deinit(&views->order_of);
    pp_arena_deinit(&views->arena);
}

static bool is_files(const int *order, int layers) {
    int i = 0;
    while (i < layers && order[i] == i) i++;
    return i == layers;
}

static pp_status add_order(pp_views *views, const int *order, uint64_t key, pp_error *error) {
    if (views->order_count == views->order_capacity) {
        size_t capacity = 2 * views->order_capacity + 8;
        pp_view **grown = pp_reallocate(views->orders, capacity * sizeof *grown);
        if (grown == NULL) return pp_fail_memory(error);
        views->orders = grown;
        views->order_capacity = capacity;
    }
    pp_view *view = pp_allocate_zeroed(1, sizeof *view);
    if (view == NULL) return pp_fail_memory(error);
    views->orders[views->order_count++] = view;
    PP_TRY(make_view(view, views->base, order, NULL, error));
    if (!pp_memo_put(&views->order_of, key, (int64_t)views->order_count)) {
        return pp_fail_memory(error);
    }
    return PP_OK;
}

pp_status pp_views_order(pp_views *views, const int *order, pp_view **view, pp_error *error) {
    int layers = views->base->layers;
    int64_t found;
    *view = &views->file;
    if (is_files(order, layers)) return PP_OK;
    uint64_t key = pp_hash(PP_HASH_START, order, (size_t)layers * sizeof *order) | 1;
    if (!pp_memo_find(&views->order_of, key, &found)) {
        PP_TRY(add_order(views, order, key, error));
        found = (int64_t)views->order_count;
    }
    *view = views->orders[found - 1];
    return PP_OK;
}

void pp_views_ask(pp_views *views, const pp_plan_request *request) {
    views->base->request = views->wide->tables->request = request;
    for (size_t i = 0; i < views->order_count; i++) views->orders[i]->tables->request = request;
}

/* ---- timings ------------------------------------------------------------------------------- */

static int64_t output_bytes(const pp_tables *tables, int layer, int64_t samples) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    const pp_plan_request *request = tables->request;
    int count = pp_layer_tensors(&request->model->layers[layer], samples, request->dtype, tensors);
    int64_t bytes = 0;
    for (int t = 0; t < count; t++) {
        if (tensors[t].role == PP_TENSOR_OUTPUT) bytes += pp_tensor_bytes(&tensors[t]);
    }
    return bytes;
}

/* The distinct outputs that lie in front of a position and are read behind it. */
static void fill_borders(const pp_tables *tables, pp_timing *timing, const int64_t *each) {
    const pp_model *model = tables->request->model;
    for (int p = 0; p <= tables->layers && tables->lattice != NULL; p++) {
        int counted = -1; /* edges are sorted by their start */
        for (int e = 0; e < model->edge_count; e++) {
            pp_edge edge = model->edges[e];
            if (edge.from == counted || !pp_lattice_has(tables->lattice, p, edge.from)) continue;
            if (pp_lattice_has(tables->lattice, p, edge.to)) continue;
            timing->border_bytes[p] += each[edge.from];
            counted = edge.from;
        }
    }
    for (int i = 0; i < tables->layers && tables->lattice == NULL; i++) {
        for (int p = i + 1; p <= tables->last_reader[i]; p++) {
            timing->border_bytes[p] += each[tables->order[i]];
        }
    }
}

static double whole_of(const pp_timing *timing, int i) {
    return timing->forward[i] + timing->input[i] + timing->weight[i];
}

/* What bounds take for the last layer: over a lattice it may be any that nobody reads. */
static double least_last(const pp_tables *tables, const double *each) {
    const pp_model *model = tables->request->model;
    double least = INFINITY;
    for (int i = 0, e = 0; i < model->layer_count; i++) {
        while (e < model->edge_count && model->edges[e].from < i) e++;
        bool read = e < model->edge_count && model->edges[e].from == i;
        if (!read) least = fmin(least, each[i]);
    }
    return least;
}

static void fill_each(const pp_tables *tables, const double *from, double *to) {
    if (tables->lattice != NULL) {
        to[tables->layers - 1] = least_last(tables, from);
        return;
    }
    for (int i = 0; i < tables->layers; i++) to[i] = from[tables->order[i]];
}

static pp_timing *see_timing(pp_view *view, const pp_timing *base) {
    pp_tables *tables = view->tables;
    pp_arena *arena = &tables->arena;
    pp_timing *timing = PP_NEW(arena, pp_timing, 1);
    int64_t *bytes = PP_NEW(arena, int64_t, layers_of(tables));
    if (arena->failed) return NULL;
    *timing = *base;
    for (size_t f = 0; f < COUNT(timing_sums); f++) {
        const double *sums = *doubles_at(base, timing_sums[f]);
        *doubles_at(timing, timing_sums[f]) = resum_s(tables, sums, layers_of(tables));
    }
    for (size_t f = 0; f < COUNT(timing_values); f++) {
        double *own = PP_NEW(arena, double, tables->layers);
        if (own != NULL) fill_each(tables, *doubles_at(base, timing_values[f]), own);
        *doubles_at(timing, timing_values[f]) = own;
    }
    timing->division.weights = see_weights(view, base->division.weights);
    timing->border_bytes = PP_NEW(arena, int64_t, tables->layers + 1);
    timing->tensor_bytes = resum_bytes(tables, base->tensor_bytes, layers_of(tables));
    timing->whole = PP_NEW(arena, double, tables->layers + 1);
    if (arena->failed || timing->division.weights == NULL) return NULL;
    for (int i = 0; i < layers_of(tables); i++) bytes[i] = output_bytes(tables, i, base->samples);
    fill_borders(tables, timing, bytes);
    for (int i = 0; i <= tables->layers; i++) timing->whole[i] = whole_of(timing, i);
    return timing;
}

pp_status pp_view_timing(pp_view *view, pp_timing *timing, const pp_timing **seen,
                         pp_error *error) {
    uint64_t key = (uint64_t)(uintptr_t)timing;
    int64_t found;
    PP_TRY(pp_tables_expand(view->base, timing, error));
    *seen = timing;
    if (view->tables == view->base) return PP_OK;
    if (pp_memo_find(&view->timings, key, &found)) {
        *seen = (const pp_timing *)(intptr_t)found;
        return PP_OK;
    }
    *seen = see_timing(view, timing);
    if (*seen == NULL || !pp_memo_put(&view->timings, key, (int64_t)(intptr_t)*seen)) {
        return pp_fail_memory(error);
    }
    return PP_OK;
}
