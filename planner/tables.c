/* What layers cost, asked once and kept as sums, so that any interval of layers costs two look-ups.
 *
 * Times depend on the microbatch size, on the kind of device and on how many of them a layer is
 * divided over, and are made when these first come up. A candidate on several kinds has those of
 * each and, for its bounds, those of each layer on the fastest of them. Weights and optimizer state
 * depend on the division alone. Tied matrices are in those sums once, as the lowest layer's own: a
 * stage that holds both ends of a tie has the matrix once, so this keeps every sum a lower bound
 * that never falls when an interval grows. What a stage really needs is counted in assemble.c. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "planner/planner_internal.h"

/* ---- the cluster as measured --------------------------------------------------------------- */

/* Message sizes between which a measured link is taken to be a line. */
#define LINK_PROBE_BYTES ((int64_t)1 << 26)

/* A measured transport replaces the cluster's own figures, so that the plan, which carries its
 * cluster, is simulated with what was measured. */
static void measure_link(const pp_costs *costs, pp_link *link) {
    pp_cost small = pp_costs_transfer(costs, *link, 0);
    pp_cost large = pp_costs_transfer(costs, *link, LINK_PROBE_BYTES);
    if (small.source != PP_COST_MEASURED || large.source != PP_COST_MEASURED) return;
    double occupancy = large.seconds - small.seconds;
    link->latency_s = small.seconds;
    link->bandwidth_bytes_per_s = occupancy > 0 ? (double)LINK_PROBE_BYTES / occupancy : INFINITY;
}

static pp_status copy_cluster(pp_tables *tables, pp_error *error) {
    const pp_plan_request *request = tables->request;
    PP_TRY(pp_cluster_copy(request->cluster, &tables->cluster, error));
    measure_link(request->costs, &tables->cluster->intra);
    return PP_OK;
}

/* ---- kinds of devices ---------------------------------------------------------------------- */

/* Those that some node is made of, without what costs the same as another. */
static void list_kinds(pp_tables *tables) {
    const pp_cluster *cluster = tables->cluster;
    for (int n = 0; n < cluster->node_kind_count; n++) {
        int kind = cluster->nodes[n].device, i = 0;
        int alike = pp_costs_alike(tables->request->costs, kind);
        while (i < tables->kind_count && tables->kinds[i] != alike) i++;
        if (i == tables->kind_count) tables->kinds[tables->kind_count++] = alike;
        tables->kind_of[kind] = i;
    }
}

static const pp_kinds *find_kinds(const pp_tables *tables, const int *kinds, int count) {
    for (int i = 0; i < tables->kind_set_count; i++) {
        const pp_kinds *set = tables->kind_sets[i];
        if (set->count == count && memcmp(set->kinds, kinds, (size_t)count * sizeof *kinds) == 0)
            return set;
    }
    return NULL;
}

static const pp_kinds *make_kinds(pp_tables *tables, const int *kinds, int count) {
    const pp_kinds *known = find_kinds(tables, kinds, count);
    if (known != NULL) return known;
    if (tables->kind_set_count == tables->kind_set_capacity) {
        int capacity = 2 * tables->kind_set_capacity + 8;
        void *grown = pp_reallocate(tables->kind_sets, (size_t)capacity * sizeof(pp_kinds *));
        if (grown == NULL) return NULL;
        tables->kind_sets = grown;
        tables->kind_set_capacity = capacity;
    }
    pp_kinds *made = PP_NEW(&tables->arena, pp_kinds, 1);
    int *copy = PP_NEW(&tables->arena, int, count);
    if (tables->arena.failed) return NULL;
    memcpy(copy, kinds, (size_t)count * sizeof *copy);
    *made = (pp_kinds){.id = tables->kind_set_count, .count = count, .kinds = copy};
    return tables->kind_sets[tables->kind_set_count++] = made;
}

/* kinds: ascending. */
static const pp_kinds *intern_kinds(pp_tables *tables, const int *kinds, int count) {
    pthread_mutex_lock(tables->lock);
    const pp_kinds *set = make_kinds(tables, kinds, count);
    pthread_mutex_unlock(tables->lock);
    return set;
}

const pp_kinds *pp_tables_kind(pp_tables *tables, int kind) {
    return intern_kinds(tables, &kind, 1);
}

static int kind_of_device(const pp_cluster *cluster, int device) {
    return (int)(pp_cluster_device(cluster, device) - cluster->devices);
}

const pp_kinds *pp_tables_kinds(pp_tables *tables, const int *devices, int count) {
    int found = 0, stack[64], *kinds = stack;
    bool *used = pp_allocate_zeroed((size_t)tables->kind_count, sizeof *used);
    if (tables->kind_count > 64) kinds = pp_allocate((size_t)tables->kind_count * sizeof *kinds);
    const pp_kinds *set = NULL;
    if (used != NULL && kinds != NULL) {
        for (int i = 0; i < count; i++)
            used[tables->kind_of[kind_of_device(tables->cluster, devices[i])]] = true;
        for (int k = 0; k < tables->kind_count; k++)
            if (used[k]) kinds[found++] = k;
        set = intern_kinds(tables, kinds, found);
    }
    if (kinds != stack) pp_free(kinds);
    pp_free(used);
    return set;
}

/* ---- sums that no microbatch size changes -------------------------------------------------- */

/* Lowest layer with the same tie, if there is another at all. */
static int tie_of(const pp_model *model, int layer) {
    const char *tie = model->layers[layer].tie;
    int lowest = -1, sharing = 0;
    for (int i = 0; tie != NULL && i < model->layer_count; i++) {
        const char *other = model->layers[i].tie;
        if (other == NULL || strcmp(tie, other) != 0) continue;
        if (sharing++ == 0) lowest = i;
    }
    return sharing > 1 ? lowest : -1;
}

bool pp_tables_tied_before(const pp_tables *tables, int layer, int first) {
    for (int i = first; i < layer; i++) {
        if (tables->tie[i] >= 0 && tables->tie[i] == tables->tie[layer]) return true;
    }
    return false;
}

/* One device's part of a layer. */
static pp_layer part_of(const pp_tables *tables, int layer, int tp) {
    pp_layer part;
    pp_layer_shard(&tables->model->layers[layer], tp, &part, NULL);
    return part;
}

static int64_t shared_bytes(const pp_tables *tables, int layer, int tp) {
    if (tables->tie[layer] < 0) return 0;
    pp_tensor tensors[PP_LAYER_TENSORS];
    int64_t bytes = 0;
    pp_layer part = part_of(tables, layer, tp);
    int count = pp_layer_tensors(&part, 1, tables->request->dtype, tensors);
    for (int t = 0; t < count; t++) {
        if (tensors[t].role == PP_TENSOR_PARAMETER && tensors[t].tied) {
            bytes += pp_tensor_bytes(&tensors[t]);
        }
    }
    return bytes;
}

/* Adds one layer to the sums. `scratch` holds its layout only meanwhile. */
static pp_status add_layer(const pp_tables *tables, pp_weights *weights, int i, pp_arena *scratch,
                           pp_error *error) {
    const pp_plan_request *request = tables->request;
    pp_layout_request ask = {.model = tables->model,
                             .first = i,
                             .last = i,
                             .samples = 1,
                             .dtype = request->dtype,
                             .optimizer = request->optimizer,
                             .tp = weights->tp};
    pp_stage_layout layout;
    PP_TRY(pp_stage_layout_make(&ask, scratch, &layout, error));
    const pp_stage_bytes *bytes = &layout.bytes;
    int64_t tied = shared_bytes(tables, i, weights->tp);
    double untied = bytes->parameters > 0 ? 1 - (double)tied / (double)bytes->parameters : 1;
    bool owner = tables->tie[i] == i;
    double own = owner ? 1 : untied;
    weights->tied_bytes[i] = tied;
    weights->untied_share[i] = untied;
    weights->own_share[i] = own;
    double held = own * (double)(bytes->parameters + bytes->gradients);
    weights->weight_bytes[i + 1] = weights->weight_bytes[i] + (int64_t)held;
    double state = own * (double)bytes->optimizer;
    weights->state_bytes[i + 1] = weights->state_bytes[i] + (int64_t)state;
    weights->own_bytes[i + 1] = weights->own_bytes[i] + bytes->gradients - (owner ? 0 : tied);
    int64_t all = bytes->parameters + bytes->gradients + bytes->optimizer;
    weights->held_bytes[i + 1] = weights->held_bytes[i] + all;
    return PP_OK;
}

static pp_status sum_layers(const pp_tables *tables, pp_weights *weights, pp_error *error) {
    pp_arena scratch;
    pp_arena_init(&scratch);
    pp_status status = PP_OK;
    for (int i = 0; i < tables->layers && status == PP_OK; i++) {
        status = add_layer(tables, weights, i, &scratch, error);
        pp_arena_reset(&scratch);
    }
    pp_arena_deinit(&scratch);
    return status;
}

static pp_status make_weights(pp_tables *tables, int tp, const pp_weights **weights,
                              pp_error *error) {
    int64_t found;
    if (pp_memo_find(&tables->weights_of, (uint64_t)tp, &found)) {
        *weights = (const pp_weights *)(intptr_t)found;
        return PP_OK;
    }
    pp_arena *arena = &tables->arena;
    int layers = tables->layers;
    pp_weights *made = PP_NEW(arena, pp_weights, 1);
    if (made == NULL) return pp_fail_memory(error);
    *made = (pp_weights){.tp = tp,
                         .untied_share = PP_NEW(arena, double, layers),
                         .own_share = PP_NEW(arena, double, layers),
                         .tied_bytes = PP_NEW(arena, int64_t, layers),
                         .weight_bytes = PP_NEW(arena, int64_t, layers + 1),
                         .state_bytes = PP_NEW(arena, int64_t, layers + 1),
                         .own_bytes = PP_NEW(arena, int64_t, layers + 1),
                         .held_bytes = PP_NEW(arena, int64_t, layers + 1)};
    if (arena->failed) return pp_fail_memory(error);
    PP_TRY(sum_layers(tables, made, error));
    *weights = made;
    return pp_memo_put(&tables->weights_of, (uint64_t)tp, (int64_t)(intptr_t)made)
               ? PP_OK
               : pp_fail_memory(error);
}

pp_status pp_tables_weights(pp_tables *tables, int tp, const pp_weights **weights,
                            pp_error *error) {
    pthread_mutex_lock(tables->lock);
    pp_status status = make_weights(tables, tp, weights, error);
    pthread_mutex_unlock(tables->lock);
    return status;
}

static void describe_model(pp_tables *tables) {
    const pp_model *model = tables->model;
    for (int i = 0; i < tables->layers; i++) tables->last_reader[i] = -1;
    for (int e = 0; e < model->edge_count; e++) {
        pp_edge edge = model->edges[e];
        if (edge.to > tables->last_reader[edge.from]) tables->last_reader[edge.from] = edge.to;
    }
    for (int i = 0; i < tables->layers; i++) {
        const pp_layer *layer = &model->layers[i];
        tables->tie[i] = tie_of(model, i);
        if (tables->tie[i] >= 0) tables->tied_layers[tables->tied_count++] = i;
        pp_layer_work work = pp_layer_work_get(layer, 1, tables->request->dtype);
        tables->flops_per_sample += 3 * work.forward_flops;
        bool language = layer->vocabulary > 0;
        if (layer->sequence > 1 || language) {
            if (layer->sequence > tables->sequence) tables->sequence = layer->sequence;
        }
    }
}

static pp_status allocate(pp_tables *tables, pp_error *error) {
    pp_arena *arena = &tables->arena;
    int layers = tables->layers, kinds = tables->request->cluster->device_kind_count;
    tables->last_reader = PP_NEW(arena, int, layers);
    tables->tie = PP_NEW(arena, int, layers);
    tables->tied_layers = PP_NEW(arena, int, layers);
    tables->kinds = PP_NEW(arena, int, kinds);
    tables->kind_of = PP_NEW(arena, int, kinds);
    pthread_mutex_t *lock = PP_NEW(arena, pthread_mutex_t, 1);
    if (arena->failed) return pp_fail_memory(error);
    tables->lock = lock;
    pthread_mutex_init(lock, NULL);
    return PP_OK;
}

pp_status pp_tables_init(pp_tables *tables, const pp_plan_request *request, pp_error *error) {
    *tables = (pp_tables){.request = request,
                          .model = request->model,
                          .layers = request->model->layer_count,
                          .overhead_s = pp_costs_overhead(request->costs)};
    pp_arena_init(&tables->arena);
    PP_TRY(allocate(tables, error));
    PP_TRY(copy_cluster(tables, error));
    list_kinds(tables);
    describe_model(tables);
    return pp_tables_weights(tables, 1, &tables->whole, error);
}

void pp_tables_deinit(pp_tables *tables) {
    pp_cluster_free(tables->cluster);
    pp_memo_deinit(&tables->weights_of);
    pp_memo_deinit(&tables->timing_of);
    pp_free(tables->kind_sets);
    if (tables->lock != NULL) pthread_mutex_destroy(tables->lock);
    pp_arena_deinit(&tables->arena);
}

/* ---- sums for one microbatch size ---------------------------------------------------------- */

/* What the devices of a rank take to add up what each computed in one phase. */
static double sums_of(const pp_tables *tables, const pp_timing *timing, int layer, pp_phase phase) {
    int tp = timing->division.weights->tp;
    if (tp == 1 || (phase != PP_PHASE_FORWARD && phase != PP_PHASE_INPUT)) return 0;
    pp_layer part = part_of(tables, layer, tp);
    pp_layer_work work = pp_layer_work_get(&part, timing->samples, tables->request->dtype);
    pp_layer_sum sum = phase == PP_PHASE_FORWARD ? work.forward_sum : work.input_sum;
    if (!(sum.count > 0)) return 0;
    double sums = sum.count * timing->slices;
    return sums * pp_all_reduce_s(&timing->division.sum, sum.bytes / sums);
}

/* Of all slices; *tilt: by how much the last takes longer than the first. */
static double slices_on(const pp_tables *tables, const pp_timing *timing, int kind, int layer,
                        pp_phase phase, double *tilt) {
    bool step = phase == PP_PHASE_OPTIMIZER;
    pp_cost_query query = {.kind = tables->kinds[kind],
                           .layer = layer,
                           .phase = phase,
                           .samples = step ? 1 : timing->samples,
                           .tp = timing->division.weights->tp};
    int slices = step ? 1 : timing->slices;
    return pp_costs_slices(tables->request->costs, query, slices, tilt).seconds +
           sums_of(tables, timing, layer, phase);
}

static double seconds_on(const pp_tables *tables, const pp_timing *timing, int kind, int layer,
                         pp_phase phase) {
    double tilt;
    return slices_on(tables, timing, kind, layer, phase, &tilt);
}

/* On the fastest of the timing's kinds. */
static double seconds_of(const pp_tables *tables, const pp_timing *timing, int layer,
                         pp_phase phase) {
    double least = INFINITY;
    for (int i = 0; i < timing->kinds->count; i++)
        least = fmin(least, seconds_on(tables, timing, timing->kinds->kinds[i], layer, phase));
    return least;
}

/* How many times the timing's seconds the kinds take at the least. */
static void fill_stretch(const pp_tables *tables, pp_timing *timing) {
    static const pp_phase phases[] = {PP_PHASE_FORWARD, PP_PHASE_INPUT, PP_PHASE_WEIGHT,
                                      PP_PHASE_OPTIMIZER};
    timing->stretch[0] = 1;
    for (int k = 0; k < timing->kinds->count && timing->kinds->count > 1; k++) {
        double least = INFINITY;
        for (int i = 0; i < 4 * tables->layers; i++) {
            int layer = i / 4;
            pp_phase phase = phases[i % 4];
            double fastest = seconds_of(tables, timing, layer, phase);
            double here = seconds_on(tables, timing, timing->kinds->kinds[k], layer, phase);
            if (fastest > 0) least = fmin(least, here / fastest);
        }
        timing->stretch[k] = least < INFINITY ? least : 1;
    }
}

/* Of what the phase takes on the fastest kind, the least that its first slice takes on any. */
static double first_slice_share(const pp_tables *tables, const pp_timing *timing, int layer,
                                pp_phase phase) {
    double least = INFINITY, fastest = seconds_of(tables, timing, layer, phase);
    for (int i = 0; i < timing->kinds->count; i++) {
        double tilt, all = slices_on(tables, timing, timing->kinds->kinds[i], layer, phase, &tilt);
        least = fmin(least, all / timing->slices - tilt / 2);
    }
    return fastest > 0 ? least / fastest : 1;
}

static void fill_slice_share(const pp_tables *tables, pp_timing *timing) {
    static const pp_phase phases[] = {PP_PHASE_FORWARD, PP_PHASE_INPUT, PP_PHASE_WEIGHT};
    timing->least_slice_share = 1.0 / timing->slices;
    for (int i = 0; i < 3 * tables->layers && timing->slices > 1; i++)
        timing->least_slice_share = fmin(timing->least_slice_share,
                                         first_slice_share(tables, timing, i / 3, phases[i % 3]));
}

static int falling(const void *a, const void *b) {
    double first = *(const double *)a, second = *(const double *)b;
    return (first < second) - (first > second);
}

/* sums[1] … sums[layers] become sums over them, largest first. */
static void sum_falling(double *sums, int layers) {
    qsort(sums + 1, (size_t)layers, sizeof *sums, falling);
    for (int i = 1; i <= layers; i++) sums[i] += sums[i - 1];
}

static double attention_of(const pp_tables *tables, const pp_timing *timing, int layer) {
    double least = INFINITY;
    for (int i = 0; i < timing->kinds->count; i++) {
        pp_cost_query query = {.kind = tables->kinds[timing->kinds->kinds[i]],
                               .layer = layer,
                               .samples = timing->samples,
                               .tp = timing->division.weights->tp};
        least = fmin(least, pp_costs_attention(tables->request->costs, query).seconds);
    }
    return least;
}

static void add_totals(const pp_tables *tables, pp_timing *timing) {
    timing->least_forward_share = 1;
    for (int i = 0; i < tables->layers; i++) {
        double forward = seconds_of(tables, timing, i, PP_PHASE_FORWARD);
        double input = seconds_of(tables, timing, i, PP_PHASE_INPUT);
        double weight = seconds_of(tables, timing, i, PP_PHASE_WEIGHT);
        double update = seconds_of(tables, timing, i, PP_PHASE_OPTIMIZER);
        double all = forward + input + weight;
        timing->forward_total_s += forward;
        timing->input_total_s += input;
        timing->weight_total_s += weight;
        timing->attention_total_s += attention_of(tables, timing, i);
        timing->own_update_total_s += timing->division.weights->own_share[i] * update;
        timing->heaviest[i + 1] = all;
        timing->heaviest_recomputed[i + 1] = all + forward;
        if (all > 0) timing->least_forward_share = fmin(timing->least_forward_share, forward / all);
    }
    sum_falling(timing->heaviest, tables->layers);
    sum_falling(timing->heaviest_recomputed, tables->layers);
}

static uint64_t timing_key(const pp_kinds *kinds, const pp_division *division, int64_t samples,
                           int slices) {
    uint64_t key = pp_hash(PP_HASH_START, &kinds->id, sizeof kinds->id);
    key = pp_hash(key, &division->weights->tp, sizeof division->weights->tp);
    key = pp_hash(key, &division->sum.ring, sizeof division->sum.ring);
    key = pp_hash(key, &division->sum.tree, sizeof division->sum.tree);
    key = pp_hash(key, &slices, sizeof slices);
    return pp_hash(key, &samples, sizeof samples) | 1;
}

static pp_status make_timing(pp_tables *tables, const pp_kinds *kinds, pp_division division,
                             int64_t samples, int slices, pp_timing **timing, pp_error *error) {
    int64_t found;
    uint64_t key = timing_key(kinds, &division, samples, slices);
    if (pp_memo_find(&tables->timing_of, key, &found)) {
        *timing = (pp_timing *)(intptr_t)found;
        return PP_OK;
    }
    *timing = PP_NEW(&tables->arena, pp_timing, 1);
    if (*timing == NULL) return pp_fail_memory(error);
    (*timing)->samples = samples;
    (*timing)->slices = slices;
    (*timing)->division = division;
    (*timing)->kinds = kinds;
    (*timing)->stretch = PP_NEW(&tables->arena, double, kinds->count);
    (*timing)->heaviest = PP_NEW(&tables->arena, double, tables->layers + 1);
    (*timing)->heaviest_recomputed = PP_NEW(&tables->arena, double, tables->layers + 1);
    if (tables->arena.failed) return pp_fail_memory(error);
    add_totals(tables, *timing);
    fill_stretch(tables, *timing);
    fill_slice_share(tables, *timing);
    if (!pp_memo_put(&tables->timing_of, key, (int64_t)(intptr_t)*timing)) {
        return pp_fail_memory(error);
    }
    return PP_OK;
}

pp_status pp_tables_timing(pp_tables *tables, const pp_kinds *kinds, pp_division division,
                           int64_t samples, int slices, pp_timing **timing, pp_error *error) {
    pthread_mutex_lock(tables->lock);
    pp_status status = make_timing(tables, kinds, division, samples, slices, timing, error);
    pthread_mutex_unlock(tables->lock);
    return status;
}

static int64_t output_bytes(const pp_tables *tables, int layer, int64_t samples) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int count =
        pp_layer_tensors(&tables->model->layers[layer], samples, tables->request->dtype, tensors);
    int64_t bytes = 0;
    for (int t = 0; t < count; t++) {
        if (tensors[t].role == PP_TENSOR_OUTPUT) bytes += pp_tensor_bytes(&tensors[t]);
    }
    return bytes;
}

/* Each output crosses every border from behind its layer to its last reader, once. */
static void sum_borders(const pp_tables *tables, pp_timing *timing) {
    for (int i = 0; i < tables->layers; i++) {
        int last = tables->last_reader[i];
        if (last <= i) continue;
        int64_t bytes = output_bytes(tables, i, timing->samples);
        timing->border_bytes[i + 1] += bytes;
        if (last + 1 <= tables->layers) timing->border_bytes[last + 1] -= bytes;
    }
    for (int i = 1; i <= tables->layers; i++)
        timing->border_bytes[i] += timing->border_bytes[i - 1];
}

/* All tensors of each layer but its parameters, with room for their alignment. */
static bool sum_tensors(pp_tables *tables, pp_timing *timing) {
    enum { ALIGNED = 64 };
    timing->tensor_bytes = PP_NEW(&tables->arena, int64_t, tables->layers + 1);
    if (timing->tensor_bytes == NULL) return false;
    for (int i = 0; i < tables->layers; i++) {
        pp_tensor tensors[PP_LAYER_TENSORS];
        pp_layer part = part_of(tables, i, timing->division.weights->tp);
        int count = pp_layer_tensors(&part, timing->samples, tables->request->dtype, tensors);
        timing->tensor_bytes[i + 1] = timing->tensor_bytes[i];
        for (int t = 0; t < count; t++) {
            if (tensors[t].role == PP_TENSOR_PARAMETER) continue;
            timing->tensor_bytes[i + 1] += pp_tensor_bytes(&tensors[t]) + ALIGNED;
        }
    }
    return true;
}

/* Seconds of one phase layer by layer, and their sums; of steps over what is a layer's own. */
static bool sum_phase(pp_tables *tables, const pp_timing *timing, pp_phase phase, double **each,
                      double **sums) {
    *each = PP_NEW(&tables->arena, double, tables->layers);
    *sums = PP_NEW(&tables->arena, double, tables->layers + 1);
    if (tables->arena.failed) return false;
    for (int i = 0; i < tables->layers; i++) {
        double share = phase == PP_PHASE_OPTIMIZER ? timing->division.weights->own_share[i] : 1;
        (*each)[i] = seconds_of(tables, timing, i, phase);
        (*sums)[i + 1] = (*sums)[i] + share * (*each)[i];
    }
    return true;
}

static pp_status expand(pp_tables *tables, pp_timing *timing, pp_error *error) {
    if (timing->forward != NULL) return PP_OK;
    double *forward, *forward_each;
    timing->border_bytes = PP_NEW(&tables->arena, int64_t, tables->layers + 1);
    if (timing->border_bytes == NULL || !sum_tensors(tables, timing) ||
        !sum_phase(tables, timing, PP_PHASE_INPUT, &timing->input_each, &timing->input) ||
        !sum_phase(tables, timing, PP_PHASE_WEIGHT, &timing->weight_each, &timing->weight) ||
        !sum_phase(tables, timing, PP_PHASE_OPTIMIZER, &timing->update_each, &timing->own_update) ||
        !sum_phase(tables, timing, PP_PHASE_FORWARD, &forward_each, &forward)) {
        return pp_fail_memory(error);
    }
    timing->attention_each = PP_NEW(&tables->arena, double, tables->layers);
    timing->attention = PP_NEW(&tables->arena, double, tables->layers + 1);
    timing->forward_tilt_each = PP_NEW(&tables->arena, double, tables->layers);
    timing->input_tilt_each = PP_NEW(&tables->arena, double, tables->layers);
    if (tables->arena.failed) return pp_fail_memory(error);
    for (int i = 0; i < tables->layers && timing->slices > 1; i++) {
        int kind = timing->kinds->kinds[0]; /* stages are timed on one kind at a time */
        slices_on(tables, timing, kind, i, PP_PHASE_FORWARD, &timing->forward_tilt_each[i]);
        slices_on(tables, timing, kind, i, PP_PHASE_INPUT, &timing->input_tilt_each[i]);
    }
    for (int i = 0; i < tables->layers; i++) {
        timing->attention_each[i] = attention_of(tables, timing, i);
        timing->attention[i + 1] = timing->attention[i] + timing->attention_each[i];
    }
    sum_borders(tables, timing);
    timing->forward_each = forward_each;
    timing->forward = forward;
    return PP_OK;
}

pp_status pp_tables_expand(pp_tables *tables, pp_timing *timing, pp_error *error) {
    pthread_mutex_lock(tables->lock);
    pp_status status = expand(tables, timing, error);
    pthread_mutex_unlock(tables->lock);
    return status;
}
