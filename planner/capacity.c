/* How many layers each rank can hold, counted in whole layers.
 *
 * Most layers of a deep model are equal. Call those of the commonest kind members. A rank with m of
 * them works at least N m times what one costs for a microbatch, so in a step shorter than a limit
 * of time it has at most a certain whole number; and at least so many bytes, so that its memory
 * allows at most a certain whole number as well. If the numbers of all ranks do not add up to the
 * members that there are (twice as many where there are two copies), no split keeps the limits.
 * Means over splits cannot see this: of 97 layers on 32 ranks some rank has four, though the mean
 * is hardly above three.
 *
 * Bytes: for each m the least, over all intervals of layers with m members, of every part of a
 * stage's bytes for itself; with those the rank's own order is followed (pp_rank_peak_bytes, which
 * never falls when a part grows), for every way in which m can be shared out to its stages. So a
 * rank that cannot hold m by this count cannot hold m.
 *
 * Says nothing (limits of INT_MAX) of long models, whose intervals are too many to look at, and of
 * ranks with so many stages that the ways are. Layers that are all different make each its own
 * kind: then the count is true but of no use. */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "planner/game_internal.h"

enum { INTERVALS_MAX = 40000, WAYS_MAX = 60, STEPS_MAX = 2000 };

/* ---- members ------------------------------------------------------------------------------- */

static bool equal_layers(const pp_timing *t, int a, int b) {
    return t->forward_each[a] == t->forward_each[b] && t->input_each[a] == t->input_each[b] &&
           t->weight_each[a] == t->weight_each[b];
}

static int count_like(const pp_timing *t, int layers, int which) {
    int count = 0;
    for (int i = 0; i < layers; i++) count += equal_layers(t, i, which);
    return count;
}

/* A layer of the commonest kind, or of one that is common: one of three is looked at. */
static int choose_member(const pp_timing *t, int layers) {
    int best = layers / 2;
    for (int quarter = 1; quarter <= 3; quarter += 2) {
        int other = layers * quarter / 4;
        if (count_like(t, layers, other) > count_like(t, layers, best)) best = other;
    }
    return best;
}

static void count_members(pp_capacity *c, const pp_timing *t, int layers) {
    c->member = choose_member(t, layers);
    for (int i = 0; i < layers; i++) {
        c->members[i + 1] = c->members[i] + equal_layers(t, i, c->member);
    }
    c->total = c->members[layers];
}

/* Layers at which stage s can begin, and before which it must have ended. */
static void room_of(const pp_terms *terms, int s, int *first, int *end) {
    int layers = terms->tables->layers, behind = terms->stages - 1 - s;
    *first = s;
    *end = layers - behind;
    if (s == 0 && behind > 0) *end = 1;
    if (behind == 0) *first = layers - 1;
}

/* 0 if the stage can do without a member, else 1. */
static int least_members(const pp_capacity *c, const pp_terms *terms, int s) {
    int first, end;
    room_of(terms, s, &first, &end);
    if (terms->stages == 1) return c->total;
    return c->members[end] - c->members[first] == end - first;
}

/* ---- bytes --------------------------------------------------------------------------------- */

static int64_t less(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Part by part. `kept`: what I does not release; both it and the whole must be least. */
static void take_least(pp_stage_bytes *least, int64_t *kept, const pp_stage_bytes *b) {
    *kept = less(*kept, b->activation - b->released_by_input);
    *least = (pp_stage_bytes){.parameters = less(least->parameters, b->parameters),
                              .gradients = less(least->gradients, b->gradients),
                              .optimizer = less(least->optimizer, b->optimizer),
                              .activation = less(least->activation, b->activation),
                              .stash = less(least->stash, b->stash),
                              .checkpoint = less(least->checkpoint, b->checkpoint),
                              .input = less(least->input, b->input),
                              .output_gradient = less(least->output_gradient, b->output_gradient),
                              .workspace = less(least->workspace, b->workspace),
                              .reduction = less(least->reduction, b->reduction)};
    least->released_by_input = least->activation - *kept;
}

/* Where a stage can be in the chain. */
enum { FRONT, MIDDLE, BACK, PLACES };

/* The least bytes of a stage with at least m members, by place; `kept`: of the activation after I.
 */
typedef struct lean {
    pp_stage_bytes *least[PLACES]; /* [members + 1] */
    int64_t *kept[PLACES];
} lean;

static int place_of(const pp_terms *terms, int stage) {
    return stage == 0 ? FRONT : stage == terms->stages - 1 ? BACK : MIDDLE;
}

static const pp_stage_bytes *leanest(const lean *l, const pp_terms *terms, int stage, int members) {
    return &l->least[place_of(terms, stage)][members];
}

static bool exists(const pp_stage_bytes *least) {
    return least->parameters < INT64_MAX;
}

static bool measure(pp_work *work, const pp_capacity *c, lean *l, int first, int last) {
    int layers = work->tables->layers;
    const pp_stage_bytes *b = pp_footprint(work->footprints, first, last, work->terms.mode);
    if (b == NULL) return false;
    pp_stage_bytes dropped =
        *b; /* recomputing keeps less of what F saves, and no less of the rest */
    dropped.activation = dropped.released_by_input = 0;
    if (work->candidate->recompute == PP_RECOMPUTE_MIXED) b = &dropped;
    int m = c->members[last + 1] - c->members[first];
    if (first == 0) take_least(&l->least[FRONT][m], &l->kept[FRONT][m], b);
    if (last == layers - 1) take_least(&l->least[BACK][m], &l->kept[BACK][m], b);
    if (first > 0 && last < layers - 1) take_least(&l->least[MIDDLE][m], &l->kept[MIDDLE][m], b);
    return true;
}

/* From what just m members need to what at least m do: then fewer never need more. */
static void spread(const pp_capacity *c, lean *l) {
    for (int place = 0; place < PLACES; place++) {
        for (int m = c->total - 1; m >= 0; m--) {
            const pp_stage_bytes *more = &l->least[place][m + 1];
            if (exists(more)) take_least(&l->least[place][m], &l->kept[place][m], more);
        }
    }
}

/* False: out of memory. */
static bool find_leanest(pp_work *work, const pp_capacity *c, lean *l) {
    int layers = work->tables->layers, longest = layers - work->terms.stages + 1;
    const int64_t most = INT64_MAX;
    for (int place = 0; place < PLACES; place++) {
        l->least[place] = PP_NEW(&work->arena, pp_stage_bytes, c->total + 1);
        l->kept[place] = PP_NEW(&work->arena, int64_t, c->total + 1);
        for (int m = 0; m <= c->total && !work->arena.failed; m++) {
            l->kept[place][m] = most;
            l->least[place][m] =
                (pp_stage_bytes){most, most, most, most, 0, most, most, most, most, most, most};
        }
    }
    if (work->arena.failed) return false;
    for (int first = 0; first < layers; first++) {
        for (int last = first; last < layers && last - first < longest; last++) {
            if (!measure(work, c, l, first, last)) return false;
        }
    }
    spread(c, l);
    return true;
}

/* ---- ways to share out --------------------------------------------------------------------- */

typedef struct sharing {
    pp_work *work;
    const pp_capacity *capacity;
    const lean *lean;
    int rank;
    int ways, steps; /* left */
} sharing;

static bool holds(const sharing *s) {
    const pp_work *work = s->work;
    pp_peak_bytes peak = pp_rank_peak_bytes(work->order, s->rank, work->probe, work->input_slots,
                                            work->gradient_slots, NULL);
    return peak.total >= 0 && peak.total <= work->terms.limit_bytes[s->rank];
}

/* Whether the rank's stages from `stage` on can hold `left` members in some way beside `bytes`. */
static bool can_hold(sharing *s, int stage, int left, int64_t bytes) {
    const pp_terms *terms = &s->work->terms;
    while (stage < terms->stages && pp_terms_copy_on(terms, stage, s->rank) < 0) stage++;
    if (s->steps-- <= 0) return true;
    if (stage == terms->stages) {
        if (left > 0) return false;
        return s->ways-- <= 0 || holds(s); /* too many ways: say yes */
    }
    bool found = false;
    int copy = pp_terms_copy_on(terms, stage, s->rank);
    for (int m = s->capacity->least[stage]; m <= left && !found; m++) {
        const pp_stage_bytes *least = leanest(s->lean, terms, stage, m);
        if (!exists(least)) break; /* nor with more */
        int64_t sum = bytes + least->parameters + least->gradients + least->optimizer;
        if (sum > terms->limit_bytes[s->rank]) continue;
        s->work->probe[copy] = *least;
        found = can_hold(s, stage + 1, left - m, sum);
        s->work->probe[copy] = (pp_stage_bytes){0};
    }
    return found;
}

static bool rank_can_hold(pp_work *work, const pp_capacity *c, const lean *l, int rank,
                          int members) {
    sharing s = {work, c, l, rank, WAYS_MAX, STEPS_MAX};
    return can_hold(&s, 0, members, 0);
}

/* By bisection, since what holds more holds fewer; where too many ways made it say yes, the yes of
 * a larger number stands for itself. -1: not even the fewest. */
static int most_held(pp_work *work, const pp_capacity *c, const lean *l, int rank) {
    int low = 0, high = c->total;
    for (int s = 0; s < work->terms.stages; s++) {
        if (pp_terms_copy_on(&work->terms, s, rank) >= 0) low += c->least[s];
    }
    if (!rank_can_hold(work, c, l, rank, low)) return -1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (rank_can_hold(work, c, l, rank, middle)) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* ---- time ---------------------------------------------------------------------------------- */

/* Of either chain: which of two a rank's members belong to is not asked. */
static double fewest(const double of_chain[2]) {
    return fmin(of_chain[0], of_chain[1]);
}

/* Work of the rank that is no member's: the cost of its actions, and the ends of the model. */
static double other_work(const pp_capacity *c, const pp_terms *terms, int rank) {
    const pp_timing *t = terms->timing;
    int last = terms->tables->layers - 1, ends[] = {0, last};
    double work = 0;
    for (int e = 0; e < 2; e++) {
        int layer = ends[e], stage = e == 0 ? 0 : terms->stages - 1;
        bool here = pp_terms_copy_on(terms, stage, rank) >= 0;
        if (!here || equal_layers(t, layer, c->member)) continue;
        work += fewest(terms->visits) *
                    (t->forward_each[layer] + t->input_each[layer] + t->weight_each[layer]) +
                fewest(terms->recomputes) * t->forward_each[layer];
        if (last == 0) break;
    }
    double each = terms->mode.split_backward ? 3 : 2;
    double stages = pp_candidate_each(terms->candidate);
    double actions = each * fewest(terms->visits) + fewest(terms->recomputes);
    return work + stages * terms->tables->overhead_s * actions;
}

static int most_in_time(const pp_capacity *c, const pp_terms *terms, int rank, double limit_s) {
    const pp_timing *t = terms->timing;
    int m = c->member;
    double visit = t->forward_each[m] + t->input_each[m] + t->weight_each[m];
    double each = fewest(terms->visits) * visit + fewest(terms->recomputes) * t->forward_each[m];
    if (!(each > 0) || !isfinite(limit_s)) return c->total;
    double most = floor((limit_s - other_work(c, terms, rank)) / each * (1 + 1e-9));
    return most >= c->total ? c->total : most < 0 ? -1 : (int)most;
}

/* ---- the count ----------------------------------------------------------------------------- */

static bool allocate(pp_work *work, pp_capacity *c) {
    pp_arena *arena = &work->arena;
    *c = (pp_capacity){.members = PP_NEW(arena, int, work->tables->layers + 1),
                       .least = PP_NEW(arena, int, work->terms.stages),
                       .held_by_stage = PP_NEW(arena, int, work->terms.stages),
                       .held = PP_NEW(arena, int, work->terms.ranks),
                       .most = PP_NEW(arena, int, work->terms.ranks)};
    return !arena->failed;
}

static bool few_intervals(const pp_terms *terms) {
    double layers = terms->tables->layers;
    return layers * (layers - terms->stages + 1) <= INTERVALS_MAX;
}

/* Most members of one stage, the others of its rank having their fewest. */
static int most_of_stage(pp_work *work, const pp_capacity *c, const lean *l, int stage) {
    const pp_terms *terms = &work->terms;
    sharing s = {.work = work, .rank = terms->placement[stage]};
    for (int o = 0; o < terms->stages; o++) {
        int copy = pp_terms_copy_on(terms, o, s.rank);
        if (copy >= 0) work->probe[copy] = *leanest(l, terms, o, c->least[o]);
    }
    int low = c->least[stage] - 1, high = c->held[s.rank];
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        const pp_stage_bytes *least = leanest(l, terms, stage, middle);
        work->probe[stage] = *least;
        if (exists(least) && holds(&s)) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    memset(work->probe, 0, (size_t)terms->copies * sizeof *work->probe);
    return low;
}

static pp_status hold(pp_work *work, pp_capacity *c, pp_error *error) {
    lean l;
    if (!find_leanest(work, c, &l)) return pp_fail_memory(error);
    for (int p = 0; p < work->terms.ranks; p++) c->held[p] = most_held(work, c, &l, p);
    for (int s = 0; s < work->terms.stages; s++)
        c->held_by_stage[s] = most_of_stage(work, c, &l, s);
    return PP_OK;
}

/* Whether the ranks have room for all members with so many each; -1: not even the fewest. */
static bool enough(const int *most, int ranks, int total) {
    int64_t sum = 0;
    for (int p = 0; p < ranks; p++) {
        if (most[p] < 0) return false;
        sum += most[p];
    }
    return sum >= total;
}

pp_status pp_capacity_find(pp_work *work, pp_capacity *c, pp_error *error) {
    const pp_terms *terms = &work->terms;
    if (!allocate(work, c)) return pp_fail_memory(error);
    count_members(c, terms->timing, work->tables->layers);
    for (int s = 0; s < terms->stages; s++) c->least[s] = least_members(c, terms, s);
    for (int p = 0; p < terms->ranks; p++) c->held[p] = c->total;
    for (int s = 0; s < terms->stages; s++) c->held_by_stage[s] = c->total;
    if (few_intervals(terms)) PP_TRY(hold(work, c, error));
    c->fits = enough(c->held, terms->ranks, c->total * terms->copies / terms->stages);
    c->fits = c->fits && enough(c->held_by_stage, terms->stages, c->total);
    return PP_OK;
}

bool pp_capacity_limit(const pp_terms *terms, double limit_s, pp_capacity *c) {
    for (int p = 0; p < terms->ranks; p++) {
        int most = most_in_time(c, terms, p, limit_s);
        c->most[p] = most < c->held[p] ? most : c->held[p];
    }
    return enough(c->most, terms->ranks, c->total * terms->copies / terms->stages);
}
