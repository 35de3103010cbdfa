/* Which arrangements of devices are worth trying for some ranks and replicas.
 *
 * Where there are few, all of them that differ in anything that costs time, memory or money: a
 * depth-first walk gives positions their devices one by one. Devices of one kind on one node are
 * alike as long as no link between them is an exception, and so are nodes of the same devices, so
 * of those still free only the first is tried. Replicas may be numbered in any order, so those of
 * rank 0 ascend; replicas of a rank that share a node stand next to each other, as reductions want.
 *
 * Otherwise a few that people would try: the cluster's own order, the fastest or the roomiest
 * devices first or last along the ranks, each with the replicas of a rank next to each other (data
 * parallel inside a node) and with the ranks of a replica next to each other (pipeline inside a
 * node), and with neither broken over the border of two nodes where the nodes allow it. Then what
 * the search proves holds for these alone. */
#include <stdlib.h>
#include <string.h>

#include "planner/planner_internal.h"

enum { WALK_DEVICES = 16, WALK_STEPS = 5000, SMALL_POSITIONS = 6, SMALL_MOST = 720, MOST = 64 };

typedef struct listing {
    pp_tables *tables;
    pp_arena *arena;
    int ranks, dp, tp, positions;
    int devices; /* of the cluster */
    pp_arrangements *out;
    pp_memo known; /* hashes of what is listed */
    int *scratch;  /* [positions] */
    int steps;     /* of the walk, left */
    bool failed;   /* out of memory */
} listing;

/* Adds an arrangement unless an equal one is there. */
static void add(listing *l, const int *devices) {
    int64_t found;
    size_t bytes = (size_t)l->positions * sizeof *devices;
    int *copy = PP_NEW(l->arena, int, l->positions);
    if (copy == NULL) {
        l->failed = true;
        return;
    }
    memcpy(copy, devices, bytes);
    pp_arrangement *made = pp_arrangement_make(l->tables, l->ranks, l->dp * l->tp, copy, l->arena);
    if (made == NULL) {
        l->failed = true;
        return;
    }
    uint64_t hash = pp_arrangement_hash(made, l->tables, l->scratch);
    if (pp_memo_find(&l->known, hash, &found)) return;
    pp_arrangements *out = l->out;
    if (out->count == out->capacity) {
        int capacity = 2 * out->capacity + 8;
        const pp_arrangement **grown = PP_NEW(l->arena, const pp_arrangement *, capacity);
        if (grown == NULL) {
            l->failed = true;
            return;
        }
        if (out->count > 0) memcpy(grown, out->list, (size_t)out->count * sizeof *grown);
        out->list = grown;
        out->capacity = capacity;
    }
    out->list[out->count++] = made;
    if (!pp_memo_put(&l->known, hash, 1)) l->failed = true;
}

/* ---- all of them --------------------------------------------------------------------------- */

typedef struct walk {
    listing *l;
    int *chosen; /* [positions] */
    bool *used;  /* [devices] */
    int *node;   /* [devices] node of each */
    const pp_device **kind;
    int most; /* arrangements */
} walk;

/* Devices between which the cluster file makes no difference. */
static bool alike(const walk *w, int a, int b) {
    return w->kind[a] == w->kind[b] && w->l->tables->cluster->override_count == 0;
}

static bool node_is_free(const walk *w, int first) {
    for (int i = first; i < w->l->devices && w->node[i] == w->node[first]; i++)
        if (w->used[i]) return false;
    return true;
}

/* Whether two nodes, given by their first devices, are made of the same devices. */
static bool nodes_alike(const walk *w, int a, int b) {
    int i = 0, devices = w->l->devices;
    for (;; i++) {
        bool a_ends = a + i == devices || w->node[a + i] != w->node[a];
        bool b_ends = b + i == devices || w->node[b + i] != w->node[b];
        if (a_ends || b_ends) return a_ends && b_ends;
        if (!alike(w, a + i, b + i)) return false;
    }
}

static int first_of_node(const walk *w, int device) {
    while (device > 0 && w->node[device - 1] == w->node[device]) device--;
    return device;
}

/* An equal device, or one of an equal node, is still free and comes first. */
static bool stands_back(const walk *w, int device) {
    int first = first_of_node(w, device);
    for (int i = first; i < device; i++)
        if (!w->used[i] && alike(w, i, device)) return true;
    if (!node_is_free(w, first)) return false;
    for (int i = 0; i < first; i++)
        if (first_of_node(w, i) == i && node_is_free(w, i) && nodes_alike(w, i, first)) return true;
    return false;
}

/* Whether a device may follow those that the rank has. */
static bool may_follow(const walk *w, int at, int device) {
    int width = w->l->dp * w->l->tp, before = at % width;
    if (before == 0) return true;
    bool plain = w->l->tables->cluster->override_count == 0;
    if (plain && at < width && device < w->chosen[at - 1]) return false;
    if (w->node[device] == w->node[w->chosen[at - 1]]) return true;
    for (int i = at - before; i < at; i++)
        if (w->node[w->chosen[i]] == w->node[device]) return false;
    return true;
}

/* False: too many. */
static bool descend(walk *w, int at) {
    if (at == w->l->positions) {
        add(w->l, w->chosen);
        return !w->l->failed && w->l->out->count <= w->most;
    }
    for (int i = 0; i < w->l->devices; i++) {
        if (w->l->steps-- <= 0) return false;
        if (w->used[i] || stands_back(w, i) || !may_follow(w, at, i)) continue;
        w->used[i] = true;
        w->chosen[at] = i;
        bool going = descend(w, at + 1);
        w->used[i] = false;
        if (!going) return false;
    }
    return true;
}

static bool walk_all(listing *l) {
    if (l->devices > WALK_DEVICES) return false;
    walk w = {.l = l,
              .chosen = PP_NEW(l->arena, int, l->positions),
              .used = PP_NEW(l->arena, bool, l->devices),
              .node = PP_NEW(l->arena, int, l->devices),
              .kind = PP_NEW(l->arena, const pp_device *, l->devices),
              .most = l->positions <= SMALL_POSITIONS ? SMALL_MOST : MOST};
    if (l->arena->failed) {
        l->failed = true;
        return true;
    }
    for (int i = 0; i < l->devices; i++) {
        w.node[i] = pp_cluster_node_of(l->tables->cluster, i);
        w.kind[i] = pp_cluster_device(l->tables->cluster, i);
    }
    return descend(&w, 0);
}

/* ---- a few --------------------------------------------------------------------------------- */

typedef struct ranked_device {
    int index;
    double key; /* the least comes first */
} ranked_device;

static int compare_ranked(const void *a, const void *b) {
    const ranked_device *first = a, *second = b;
    if (first->key != second->key) return first->key < second->key ? -1 : 1;
    return first->index - second->index;
}

/* Seconds of the model's layers, a sample each. */
static double slowness(const listing *l, int device) {
    const pp_tables *tables = l->tables;
    double seconds = 0;
    pp_cost_query query = {
        .kind = (int)(pp_cluster_device(tables->cluster, device) - tables->cluster->devices),
        .samples = 1};
    for (query.layer = 0; query.layer < tables->layers; query.layer++)
        for (int phase = PP_PHASE_FORWARD; phase <= PP_PHASE_WEIGHT; phase++) {
            query.phase = (pp_phase)phase;
            seconds += pp_costs_ask(tables->request->costs, query).seconds;
        }
    return seconds;
}

static double scarcity(const listing *l, int device) {
    return -(double)pp_cluster_device(l->tables->cluster, device)->memory_bytes;
}

static double own_place(const listing *l, int device) {
    (void)l;
    return device;
}

/* Replicas of a rank side by side, or ranks of a replica. */
static void lay_out(const listing *l, const int *base, bool pipeline_inside, int *devices) {
    int width = l->dp * l->tp, pipeline = l->ranks * l->tp;
    for (int i = 0; i < l->positions; i++) {
        int rank = i / width, replica = i % width / l->tp, shard = i % l->tp;
        devices[i] = pipeline_inside ? base[replica * pipeline + rank * l->tp + shard] : base[i];
    }
}

/* The devices of `from` in blocks of `unit` that lie on one node each. False: there are too few. */
static bool align(const listing *l, const int *from, int unit, int *to) {
    const pp_cluster *cluster = l->tables->cluster;
    int taken = 0;
    for (int i = 0; i + unit <= l->devices && taken < l->positions;) {
        int node = pp_cluster_node_of(cluster, from[i]), length = 1;
        while (length < unit && pp_cluster_node_of(cluster, from[i + length]) == node) length++;
        if (length == unit) {
            memcpy(to + taken, from + i, (size_t)unit * sizeof *to);
            taken += unit;
        }
        i += length;
    }
    return taken >= l->positions;
}

static void add_layouts(listing *l, const int *base, int *aligned, int *devices) {
    for (int inside = 0; inside < 2 && !l->failed; inside++) {
        int unit = inside ? l->ranks * l->tp : l->dp * l->tp;
        lay_out(l, base, inside, devices);
        add(l, devices);
        if (!align(l, base, unit, aligned)) continue;
        lay_out(l, aligned, inside, devices);
        add(l, devices);
    }
}

static void reverse(int *values, int count) {
    for (int i = 0; i < count / 2; i++) {
        int held = values[i];
        values[i] = values[count - 1 - i];
        values[count - 1 - i] = held;
    }
}

static void add_some(listing *l) {
    static double (*const orders[])(const listing *, int) = {own_place, slowness, scarcity};
    ranked_device *ranked = PP_NEW(l->arena, ranked_device, l->devices);
    int *base = PP_NEW(l->arena, int, l->devices), *aligned = PP_NEW(l->arena, int, l->devices);
    int *devices = PP_NEW(l->arena, int, l->positions);
    l->failed = l->arena->failed;
    int count = l->tables->cluster->device_kind_count > 1 ? 3 : 1;
    for (int o = 0; o < count && !l->failed; o++) {
        for (int i = 0; i < l->devices; i++) ranked[i] = (ranked_device){i, orders[o](l, i)};
        qsort(ranked, (size_t)l->devices, sizeof *ranked, compare_ranked);
        for (int i = 0; i < l->devices; i++) base[i] = ranked[i].index;
        add_layouts(l, base, aligned, devices);
        reverse(base, l->positions);
        if (o > 0) add_layouts(l, base, aligned, devices);
    }
}

/* ---- the call ------------------------------------------------------------------------------ */

static bool is_uniform(const pp_cluster *cluster) {
    return cluster->device_kind_count == 1 && cluster->override_count == 0 &&
           cluster->node_kind_count == 1 && cluster->nodes[0].repeat == 1;
}

pp_status pp_arrangements_list(pp_tables *tables, int ranks, int dp, int tp, pp_arena *arena,
                               pp_arrangements *out, pp_error *error) {
    listing l = {.tables = tables,
                 .arena = arena,
                 .ranks = ranks,
                 .dp = dp,
                 .tp = tp,
                 .positions = ranks * dp * tp,
                 .devices = pp_cluster_device_count(tables->cluster),
                 .out = out,
                 .steps = WALK_STEPS};
    *out = (pp_arrangements){.all = true};
    l.scratch = PP_NEW(arena, int, l.devices);
    int *own = PP_NEW(arena, int, l.devices);
    if (arena->failed) return pp_fail_memory(error);
    for (int i = 0; i < l.devices; i++) own[i] = i;
    add(&l, own);
    if (!is_uniform(tables->cluster) && !l.failed && !walk_all(&l) && !l.failed) {
        pp_memo_clear(&l.known);
        *out = (pp_arrangements){0};
        add_some(&l);
    }
    pp_memo_deinit(&l.known);
    return l.failed ? pp_fail_memory(error) : PP_OK;
}
