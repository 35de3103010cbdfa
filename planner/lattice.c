/* Every place at which a model that branches can be cut.
 *
 * A cut parts the layers into those before it and those behind it; no layer before it may read one
 * behind it. So the layers before a cut are an ideal of the graph's order (a downward-closed set),
 * its last layers form an antichain, and a stage is what one ideal has beyond a smaller one. A
 * chain of n layers has n + 1 ideals, its prefixes; branches that run side by side multiply
 * theirs. (PipeDream, Narayanan et al. 2019, counts antichains: the same states.)
 *
 * Ideals are numbered so that a smaller set never follows a larger one: 0 is empty, the last holds
 * everything. What tables.c sums over prefixes is summed here over ideals, and then an interval
 * "first … last" of ideals stands for the stage that ideal last + 1 has beyond ideal first: the
 * formulas of terms.c and search_bound.c hold for it as they stand.
 *
 * Where there are too many ideals, the family is a part of them: first those in which a source
 * enters no sooner than a layer that reads it, as PipeDream has it; else the prefixes of a handful
 * of good topological orders, between which stages may still change. */
#include <stdlib.h>
#include <string.h>

#include "planner/lattice_internal.h"

/* ---- sets of layers ------------------------------------------------------------------------ */

typedef uint64_t word;
enum { WORD_BITS = 64 };

static bool has(const word *set, int layer) {
    return set[layer / WORD_BITS] >> (layer % WORD_BITS) & 1;
}

static void put(word *set, int layer) {
    set[layer / WORD_BITS] |= (word)1 << (layer % WORD_BITS);
}

/* A family of sets while it is being found: an array that grows, and a map from hashes to chains of
 * sets with that hash. */
typedef struct family {
    int words, count, limit;
    word *members; /* [limit][words] */
    int *next;     /* [limit] another set of the same bucket, or -1 */
    int *buckets;  /* [bucket_count], or -1 */
    int bucket_count;
    bool failed;
} family;

static const word *member(const family *f, int index) {
    return f->members + (size_t)index * (size_t)f->words;
}

static size_t set_bytes(const family *f) {
    return (size_t)f->words * sizeof(word);
}

static void family_init(family *f, int words, int limit) {
    *f = (family){.words = words, .limit = limit};
    f->bucket_count = 2 * limit + 1;
    f->members = pp_allocate((size_t)f->limit * set_bytes(f));
    f->next = pp_allocate((size_t)f->limit * sizeof *f->next);
    f->buckets = pp_allocate((size_t)f->bucket_count * sizeof *f->buckets);
    f->failed = f->members == NULL || f->next == NULL || f->buckets == NULL;
    for (int i = 0; i < f->bucket_count && !f->failed; i++) f->buckets[i] = -1;
}

static void family_deinit(family *f) {
    pp_free(f->members);
    pp_free(f->next);
    pp_free(f->buckets);
}

/* False: there are more than the limit. */
static bool family_add(family *f, const word *set) {
    uint64_t hash = pp_hash(PP_HASH_START, set, set_bytes(f));
    int *bucket = &f->buckets[hash % (uint64_t)f->bucket_count];
    for (int i = *bucket; i >= 0; i = f->next[i]) {
        if (memcmp(member(f, i), set, set_bytes(f)) == 0) return true;
    }
    if (f->count == f->limit) return false;
    memcpy(f->members + (size_t)f->count * (size_t)f->words, set, set_bytes(f));
    f->next[f->count] = *bucket;
    *bucket = f->count++;
    return true;
}

/* ---- the graph ----------------------------------------------------------------------------- */

typedef struct graph {
    const pp_model *model;
    int layers, words;
    word *reads;  /* [layers][words] what each layer reads … */
    word *needed; /* [layers][words] … and all that it needs, itself among it */
    word *set;    /* [words] scratch */
    int root;     /* the source that most layers need */
} graph;

static word *row_of(word *rows, const graph *g, int layer) {
    return rows + (size_t)layer * (size_t)g->words;
}

static bool is_source(const graph *g, int layer) {
    for (int w = 0; w < g->words; w++) {
        if (row_of(g->reads, g, layer)[w] != 0) return false;
    }
    return true;
}

static int find_root(const graph *g) {
    int root = 0, most = 0;
    for (int i = 0; i < g->layers; i++) {
        int needing = 0;
        for (int l = i; l < g->layers; l++) needing += has(row_of(g->needed, g, l), i);
        if (!is_source(g, i) || needing <= most) continue;
        root = i;
        most = needing;
    }
    return root;
}

static bool can_run(const pp_model *model) {
    for (int i = 0; i < model->layer_count; i++) {
        if (model->layers[i].op == PP_OP_OPAQUE) return false;
    }
    return true;
}

/* The gradient of an output is the sum of what its readers return, in the order of the plan. Two
 * may change places; more must not, or a run would differ from others by rounding. So each reader
 * but the first is as if it read the one before. */
static void keep_readers(graph *g) {
    const pp_edge *edges = g->model->edges; /* sorted by (from, to) */
    for (int e = 0, first = 0; e < g->model->edge_count; e++) {
        if (edges[e].from != edges[first].from) first = e;
        if (e < first + 2) continue;
        if (e == first + 2) put(row_of(g->reads, g, edges[e - 1].to), edges[first].to);
        put(row_of(g->reads, g, edges[e].to), edges[e - 1].to);
    }
}

static bool graph_init(graph *g, const pp_model *model, pp_arena *arena) {
    int n = model->layer_count, words = (n + WORD_BITS - 1) / WORD_BITS;
    *g = (graph){.model = model, .layers = n, .words = words};
    g->reads = PP_NEW(arena, word, (size_t)n * (size_t)words);
    g->needed = PP_NEW(arena, word, (size_t)n * (size_t)words);
    g->set = PP_NEW(arena, word, words);
    if (arena->failed) return false;
    for (int e = 0; e < model->edge_count; e++) {
        put(row_of(g->reads, g, model->edges[e].to), model->edges[e].from);
    }
    if (can_run(model)) keep_readers(g);
    for (int i = 0; i < n; i++) { /* in the file's order, which is topological */
        word *needed = row_of(g->needed, g, i);
        put(needed, i);
        for (int from = 0; from < i; from++) {
            if (!has(row_of(g->reads, g, i), from)) continue;
            const word *more = row_of(g->needed, g, from);
            for (int w = 0; w < words; w++) needed[w] |= more[w];
        }
    }
    g->root = find_root(g);
    return true;
}

/* ---- families ------------------------------------------------------------------------------ */

typedef bool next_layer(const graph *g, const word *set, int layer);

/* All that the layer reads is there. */
static bool is_ready(const graph *g, const word *set, int layer) {
    for (int w = 0; w < g->words; w++) {
        if (row_of(g->reads, g, layer)[w] & ~set[w]) return false;
    }
    return true;
}

/* Some of what it reads is there; what else it needs comes with it. Only the root enters by itself.
 */
static bool is_touched(const graph *g, const word *set, int layer) {
    bool empty = true, touched = false;
    for (int w = 0; w < g->words; w++) {
        empty = empty && set[w] == 0;
        touched = touched || (row_of(g->reads, g, layer)[w] & set[w]) != 0;
    }
    return empty ? layer == g->root : touched;
}

/* Sets that grow from nothing by one layer at a time. False: more than the limit. */
static bool grow(const graph *g, next_layer *may, family *f) {
    memset(g->set, 0, set_bytes(f));
    if (!family_add(f, g->set)) return false;
    for (int at = 0; at < f->count; at++) {
        for (int i = 0; i < g->layers; i++) {
            if (has(member(f, at), i) || !may(g, member(f, at), i)) continue;
            for (int w = 0; w < g->words; w++) {
                g->set[w] = member(f, at)[w] | row_of(g->needed, g, i)[w];
            }
            if (!family_add(f, g->set)) return false;
        }
    }
    return true;
}

/* A sink that nothing the family grows from leads to would be missing. */
static bool has_everything(const graph *g, const family *f) {
    for (int i = 0; i < f->count; i++) {
        int held = 0;
        for (int l = 0; l < g->layers; l++) held += has(member(f, i), l);
        if (held == g->layers) return true;
    }
    return false;
}

/* ---- good orders --------------------------------------------------------------------------- */

/* A topological order made front to back: `pick` chooses among the layers that are ready. */
typedef int pick_layer(const graph *g, const word *set, const int *since, int turn);

/* Branch after branch: of the layers whose inputs are the freshest, the turn-th. */
static int pick_deep(const graph *g, const word *set, const int *since, int turn) {
    int fresh[8], count = 0;
    for (int i = 0; i < g->layers; i++) {
        if (has(set, i) || since[i] < 0) continue;
        if (count > 0 && since[i] < since[fresh[0]]) continue;
        if (count > 0 && since[i] > since[fresh[0]]) count = 0;
        if (count < (int)(sizeof fresh / sizeof *fresh)) fresh[count++] = i;
    }
    return count > 0 ? fresh[turn % count] : -1;
}

/* Branches side by side: the layer that has waited longest. */
static int pick_wide(const graph *g, const word *set, const int *since, int turn) {
    (void)turn;
    int best = -1;
    for (int i = 0; i < g->layers; i++) {
        if (has(set, i) || since[i] < 0) continue;
        if (best < 0 || since[i] < since[best]) best = i;
    }
    return best;
}

static int pick_first(const graph *g, const word *set, const int *since, int turn) {
    (void)turn;
    for (int i = 0; i < g->layers; i++) {
        if (!has(set, i) && since[i] >= 0) return i;
    }
    return -1;
}

static const struct {
    pick_layer *pick;
    int turn;
} good_orders[] = {{pick_first, 0}, {pick_wide, 0}, {pick_deep, 0}, {pick_deep, 1},
                   {pick_deep, 2},  {pick_deep, 3}, {pick_deep, 4}, {pick_deep, 5}};
enum { GOOD_ORDERS = sizeof good_orders / sizeof *good_orders };

/* since: [layers] scratch, the step at which a layer became ready, or -1. */
static bool add_prefixes(const graph *g, int which, int *since, family *f) {
    memset(g->set, 0, set_bytes(f));
    for (int i = 0; i < g->layers; i++) since[i] = is_source(g, i) ? 0 : -1;
    for (int step = 0;; step++) {
        if (!family_add(f, g->set)) return false;
        int next = good_orders[which].pick(g, g->set, since, good_orders[which].turn);
        if (next < 0) return true;
        put(g->set, next);
        for (int i = next + 1; i < g->layers; i++) {
            if (since[i] < 0 && is_ready(g, g->set, i)) since[i] = step + 1;
        }
    }
}

static void add_good_orders(const graph *g, int *since, family *f) {
    for (int i = 0; i < GOOD_ORDERS; i++) {
        if (!add_prefixes(g, i, since, f)) return;
    }
}

/* ---- the lattice --------------------------------------------------------------------------- */

/* Smaller sets first; among equals those with early layers. */
typedef struct numbered {
    int size, index;
    const family *family;
} numbered;

static int by_size(const void *a_, const void *b_) {
    const numbered *a = a_, *b = b_;
    if (a->size != b->size) return a->size < b->size ? -1 : 1;
    const word *left = member(a->family, a->index), *right = member(b->family, b->index);
    for (int w = 0; w < a->family->words; w++) {
        word differs = left[w] ^ right[w];
        if (differs != 0) return left[w] & (differs & -differs) ? -1 : 1;
    }
    return 0;
}

static pp_status number(const graph *g, const family *f, pp_arena *arena, pp_lattice *lattice,
                        pp_error *error) {
    numbered *list = pp_allocate((size_t)f->count * sizeof *list);
    lattice->count = f->count;
    lattice->words = f->words;
    lattice->layers = g->layers;
    lattice->members = PP_NEW(arena, word, (size_t)f->count * (size_t)f->words);
    lattice->sizes = PP_NEW(arena, int, f->count);
    if (list == NULL || arena->failed) {
        pp_free(list);
        return pp_fail_memory(error);
    }
    for (int i = 0; i < f->count; i++) {
        list[i] = (numbered){0, i, f};
        for (int l = 0; l < g->layers; l++) list[i].size += has(member(f, i), l);
    }
    qsort(list, (size_t)f->count, sizeof *list, by_size);
    for (int i = 0; i < f->count; i++) {
        lattice->sizes[i] = list[i].size;
        memcpy(lattice->members + (size_t)i * (size_t)f->words, member(f, list[i].index),
               set_bytes(f));
    }
    pp_free(list);
    return PP_OK;
}

static pp_status find_family(const graph *g, pp_lattice_family widest, int limit, pp_arena *arena,
                             pp_lattice *lattice, pp_error *error) {
    static next_layer *const ways[] = {is_ready, is_touched};
    enum { WAYS = sizeof ways / sizeof *ways };
    family f;
    pp_status status = PP_OK;
    int *since = PP_NEW(arena, int, g->layers);
    if (since == NULL) return pp_fail_memory(error);
    int least = GOOD_ORDERS * (g->layers + 1);
    for (int way = (int)widest; way <= WAYS; way++) {
        bool last = way == WAYS;
        family_init(&f, g->words, last && limit < least ? least : limit);
        bool found = !f.failed && !last && grow(g, ways[way], &f) && has_everything(g, &f);
        if (!f.failed && last) add_good_orders(g, since, &f);
        if (f.failed) status = pp_fail_memory(error);
        if (status == PP_OK && (found || last)) {
            lattice->family = (pp_lattice_family)way;
            status = number(g, &f, arena, lattice, error);
        }
        family_deinit(&f);
        if (found || last || status != PP_OK) return status;
    }
    return status;
}

bool pp_model_is_linear(const pp_model *model) {
    int linked = 0; /* edges are sorted by their start */
    for (int e = 0; e < model->edge_count; e++) {
        pp_edge edge = model->edges[e];
        linked += edge.to == edge.from + 1;
    }
    return linked == model->layer_count - 1;
}

pp_status pp_lattice_make(const pp_model *model, pp_lattice_family widest, int limit,
                          pp_arena *arena, pp_lattice *lattice, pp_error *error) {
    graph g;
    pp_arena scratch;
    *lattice = (pp_lattice){0};
    pp_arena_init(&scratch);
    pp_status status = graph_init(&g, model, &scratch)
                           ? find_family(&g, widest, limit, arena, lattice, error)
                           : pp_fail_memory(error);
    pp_arena_deinit(&scratch);
    return status;
}

/* ---- asking -------------------------------------------------------------------------------- */

static const word *ideal(const pp_lattice *lattice, int index) {
    return lattice->members + (size_t)index * (size_t)lattice->words;
}

bool pp_lattice_has(const pp_lattice *lattice, int index, int layer) {
    return has(ideal(lattice, index), layer);
}

bool pp_lattice_within(const pp_lattice *lattice, int smaller, int larger) {
    const word *a = ideal(lattice, smaller), *b = ideal(lattice, larger);
    for (int w = 0; w < lattice->words; w++) {
        if (a[w] & ~b[w]) return false;
    }
    return true;
}

void pp_lattice_order(const pp_lattice *lattice, const int *splits, int stages, int *order,
                      int *positions) {
    int at = 0;
    for (int s = 0; s < stages; s++) {
        int from = s == 0 ? 0 : splits[s - 1];
        int to = s == stages - 1 ? lattice->count - 1 : splits[s];
        for (int i = 0; i < lattice->layers; i++) {
            if (has(ideal(lattice, to), i) && !has(ideal(lattice, from), i)) order[at++] = i;
        }
        if (s < stages - 1) positions[s] = at;
    }
}
