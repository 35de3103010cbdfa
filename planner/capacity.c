/* How many layers each rank can hold, counted in whole layers.
 *
 * Most layers of a deep model are equal. Call those of the commonest kind members. A rank with m of
 * them works at least N m times what one costs for a microbatch, begins when a microbatch has got
 * there and ends by summing and stepping them, so in a step shorter than a limit of time it has at
 * most a certain whole number; and at least so many bytes, so that its memory allows at most a
 * certain whole number as well. If the numbers of all ranks do not add up to the members that there
 * are (twice as many where there are two copies), no split keeps the limits.
 * Means over splits cannot see this: of 97 layers on 32 ranks some rank has four, though the mean
 * is hardly above three.
 *
 * Bytes: for each m the least, over all intervals of layers with m members, of every part of a
 * stage's bytes for itself; with those the rank's own order is followed (pp_rank_peak_bytes, which
 * never falls when a part grows), for every way in which m can be shared out to its stages. So a
 * rank that cannot hold m by this count cannot hold m.
 *
 * Where stages choose what they recompute, time and memory are counted together: in the time that m
 * members leave the attention of some can be repeated, or all of some, and what is kept beside that
 * is what has to fit. Turned round, ranks of two stages: for each number of members of one stage
 * the least time that has to be repeated so that the rank fits (pp_capacity_again). Each stage is
 * told half of it, so that the sum over both is no more than is true of both.
 *
 * With more than two stages on a rank the ways to choose are too many: there what has to be
 * repeated follows from a price of bytes (capacity_price.c).
 *
 * Says nothing (limits of INT_MAX) of long models, whose intervals are too many to look at, and of
 * ranks with so many stages that the ways to share out are. Layers that are all different make each
 * its own kind: then the count is true but of no use. */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "planner/capacity_internal.h"

enum { INTERVALS_MAX = 40000, WAYS_MAX = 60, STEPS_MAX = 2000 };
#define FOLLOWING 0.25       /* of what simulating an action costs: following its bytes */
#define LEAST_TIME_STEP 1e-4 /* how closely the least time is found */

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

static int min(int a, int b) {
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

static bool measure(pp_work *work, const pp_capacity *c, int repeats, int first, int last) {
    pp_footprint_mode mode = work->terms.mode;
    pp_lean *l = &c->lean[repeats];
    int layers = work->tables->layers, m = c->members[last + 1] - c->members[first];
    if (repeats == REPEATS_ATTENTION) mode.recompute = PP_RECOMPUTE_ATTENTION;
    const pp_stage_bytes *b = pp_footprint(work->footprints, first, last, mode);
    if (b == NULL) return false;
    pp_stage_bytes dropped =
        *b; /* recomputing keeps less of what F saves, and no less of the rest */
    dropped.activation = dropped.released_by_input = 0;
    if (repeats == REPEATS_ANYTHING || (m == 0 && chooses(work))) b = &dropped;
    if (first == 0) take_least(&l->least[FRONT][m], &l->kept[FRONT][m], b);
    if (last == layers - 1) take_least(&l->least[BACK][m], &l->kept[BACK][m], b);
    if (first > 0 && last < layers - 1) take_least(&l->least[MIDDLE][m], &l->kept[MIDDLE][m], b);
    return true;
}

/* From what just m members need to what at least m do: then fewer never need more. */
static void spread(const pp_capacity *c, pp_lean *l) {
    for (int place = 0; place < PLACES; place++) {
        for (int m = c->total - 1; m >= 0; m--) {
            const pp_stage_bytes *more = &l->least[place][m + 1];
            if (exists(more)) take_least(&l->least[place][m], &l->kept[place][m], more);
        }
    }
}

/* False: out of memory. */
static bool find_leanest(pp_work *work, pp_capacity *c, int repeats) {
    pp_lean *l = &c->lean[repeats];
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
            if (!measure(work, c, repeats, first, last)) return false;
        }
    }
    spread(c, l);
    return true;
}

/* ---- ways to share out --------------------------------------------------------------------- */

typedef struct sharing {
    pp_work *work;
    const pp_capacity *capacity;
    int rank;
    int fixed, fixed_members;              /* this stage has as many; -1: none is said to */
    double left_s;                         /* to repeat in */
    double spare_s;                        /* of that, when a way was found */
    double member_s[REPEAT_KINDS];         /* what repeating takes for a member */
    int ways, steps;                       /* left */
} sharing;

static bool holds(const sharing *s) {
    pp_work *work = s->work;
    const size_t *first_action = work->order->first_action;
    work->effort += FOLLOWING * (double)(first_action[s->rank + 1] - first_action[s->rank]);
    pp_peak_bytes peak = pp_rank_peak_bytes(work->order, s->rank, work->probe, work->input_slots,
                                            work->gradient_slots, NULL);
    return peak.total >= 0 && peak.total <= work->terms.limit_bytes[s->rank];
}

static bool can_hold(sharing *s, int stage, int left, int64_t bytes);

/* The stage has m members and repeats so much; what follows has the rest. */
static bool can_hold_as(sharing *s, int repeats, int stage, int m, int left, int64_t bytes) {
    const pp_terms *terms = &s->work->terms;
    int copy = pp_terms_copy_on(terms, stage, s->rank);
    double repeats_s = m * s->member_s[repeats];
    const pp_stage_bytes *least = leanest(&s->capacity->lean[repeats], terms, stage, m);
    if (repeats_s > s->left_s || !exists(least)) return false;
    int64_t sum = bytes + least->parameters + least->gradients + least->optimizer;
    if (sum > terms->limit_bytes[s->rank]) return false;
    s->work->probe[copy] = *least;
    s->left_s -= repeats_s;
    bool found = can_hold(s, stage + 1, left - m, sum);
    s->left_s += repeats_s;
    s->work->probe[copy] = (pp_stage_bytes){0};
    return found;
}

/* Whether the rank's stages from `stage` on can hold `left` members in some way beside `bytes`.
 * Where a stage can afford to repeat more, it need not be looked at with less. */
static bool can_hold(sharing *s, int stage, int left, int64_t bytes) {
    const pp_terms *terms = &s->work->terms;
    while (stage < terms->stages && pp_terms_copy_on(terms, stage, s->rank) < 0) stage++;
    if (s->steps-- <= 0) return true;
    if (stage == terms->stages) {
        if (left > 0) return false;
        s->spare_s = s->left_s;
        return s->ways-- <= 0 || holds(s); /* too many ways: say yes */
    }
    for (int m = s->capacity->least[stage]; m <= left; m++) {
        if (stage == s->fixed && m != s->fixed_members) continue;
        int repeats = chooses(s->work) ? REPEATS_ANYTHING : KEEPS;
        for (; repeats >= KEEPS; repeats--) {
            if (can_hold_as(s, repeats, stage, m, left, bytes)) return true;
            if (m * s->member_s[repeats] == 0) break;
        }
    }
    return false;
}

/* In left_s seconds, where a member's attention takes so long, and all of it. */
static sharing sharing_of(pp_work *work, const pp_capacity *c, int rank, double attention_s,
                          double forward_s, double left_s) {
    return (sharing){.work = work,
                     .capacity = c,
                     .rank = rank,
                     .fixed = -1,
                     .left_s = left_s * (1 + 1e-9),
                     .member_s = {0, attention_s, forward_s},
                     .ways = WAYS_MAX,
                     .steps = STEPS_MAX};
}

/* repeats: stages may repeat what they like, where they choose. */
static bool rank_can_hold(pp_work *work, const pp_capacity *c, int rank, bool repeats,
                          int members) {
    double takes_s = repeats ? 0 : 1; /* there is no time for that */
    sharing s = sharing_of(work, c, rank, takes_s, takes_s, 0);
    return can_hold(&s, 0, members, 0);
}

/* By bisection, since what holds more holds fewer; where too many ways made it say yes, the yes of
 * a larger number stands for itself. -1: not even the fewest. */
static int most_held(pp_work *work, const pp_capacity *c, int rank, bool repeats) {
    int low = 0, high = c->total;
    for (int s = 0; s < work->terms.stages; s++) {
        if (pp_terms_copy_on(&work->terms, s, rank) >= 0) low += c->least[s];
    }
    if (!rank_can_hold(work, c, rank, repeats, low)) return -1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (rank_can_hold(work, c, rank, repeats, middle)) {
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

/* What a rank waits for at both ends of a step, the least over its copies of stages. So many layers
 * as stages lie in front of each and behind it. */
typedef struct rank_ends {
    double front_s;    /* before a microbatch gets there */
    double gradient_s; /* before the first gradient does */
    double journey_s; /* a microbatch's from there to the end of the chain, and back to its start */
    double back_s;    /* from there to the start; 0 where less than whole backwards go back */
} rank_ends;

static rank_ends ends_of(const pp_terms *terms, int rank) {
    const pp_timing *t = terms->timing;
    int layers = terms->tables->layers, stages = terms->stages;
    double scale = terms->slice_share * terms->scale, overhead = terms->overhead_s;
    rank_ends ends = {INFINITY, INFINITY, INFINITY, INFINITY};
    for (int copy = 0; copy < terms->copies; copy++) {
        if (terms->placement[copy] != rank) continue;
        int s = copy % stages, behind = stages - 1 - s, end = copy + behind;
        double there = terms->forward_least[end] - terms->forward_least[copy];
        double back = terms->backward_least[end] - terms->backward_least[copy];
        double forward = t->forward[layers] - t->forward[layers - behind] + behind * overhead;
        double input = t->input[layers] - t->input[layers - behind] + behind * overhead;
        double before = t->input[s] + s * overhead;
        double front = scale * (t->forward[s] + s * overhead) + terms->forward_least[copy];
        double journey = scale * (forward + input) + there + back;
        double home = scale * before + terms->backward_least[copy];
        ends.front_s = fmin(ends.front_s, front);
        /* its own F too, of a layer at the least */
        ends.gradient_s =
            fmin(ends.gradient_s, scale * (t->forward[layers] + stages * overhead) +
                                      terms->forward_least[end] + scale * input + back);
        ends.journey_s = fmin(ends.journey_s, journey + home);
        ends.back_s = fmin(ends.back_s, home + scale * t->weight[s]);
    }
    if (terms->mode.split_backward) ends.back_s = 0;
    return ends;
}

/* To sum and step one layer, by a copy of a stage that has it. */
static double layer_update(const pp_terms *terms, int layer, int copy) {
    const pp_timing *t = terms->timing;
    const int64_t *own_bytes = t->division.weights->own_bytes;
    double bytes = (double)(own_bytes[layer + 1] - own_bytes[layer]);
    return (t->own_update[layer + 1] - t->own_update[layer]) / terms->mode.shards +
           bytes * pp_terms_update_line(terms, copy).per_byte_s;
}

/* The same of a rank's stages, but for their members. */
static double other_update(const pp_capacity *c, const pp_terms *terms, int rank) {
    int last = terms->tables->layers - 1;
    double seconds = 0;
    for (int copy = 0; copy < terms->copies; copy++) {
        int s = copy % terms->stages;
        bool front = s == 0, back = s == terms->stages - 1;
        if (terms->placement[copy] != rank) continue;
        seconds += pp_terms_update_line(terms, copy).fixed_s;
        if (front && !equal_layers(terms->timing, 0, c->member))
            seconds += layer_update(terms, 0, copy);
        if (back && last > 0 && !equal_layers(terms->timing, last, c->member))
            seconds += layer_update(terms, last, copy);
    }
    return seconds;
}

/* What a rank does in a step, and with each member more. */
typedef struct rank_time {
    rank_ends ends;
    double other_s;            /* work that no member adds */
    double forward_s, whole_s; /* work that a member adds: all its F, and all with F … */
    double backward_s;         /* … all that follows a gradient, without what is recomputed … */
    double attention_s;        /* … all attention once more, if that is repeated … */
    double update_s;           /* … and when all backwards are done … */
    double other_update_s;     /* … where so much is done besides */
} rank_time;

static rank_time time_of(const pp_capacity *c, const pp_terms *terms, int rank) {
    const pp_timing *t = terms->timing;
    int m = c->member, copy = 0;
    while (terms->placement[copy] != rank) copy++;
    double visits = fewest(terms->visits), again = fewest(terms->recomputes);
    double forward = t->forward_each[m], backward = t->input_each[m] + t->weight_each[m];
    return (rank_time){.ends = ends_of(terms, rank),
                       .other_s = other_work(c, terms, rank),
                       .forward_s = visits * forward,
                       .whole_s = visits * (forward + backward) + again * forward,
                       .backward_s = visits * backward,
                       .attention_s = visits * t->attention_each[m],
                       .update_s = layer_update(terms, m, copy),
                       .other_update_s = other_update(c, terms, rank)};
}

/* Most n with n · each + max(back, n · update + other update) <= left. */
static double most_within(const rank_time *r, double left, double each) {
    return fmin((left - r->ends.back_s) / each, (left - r->other_update_s) / (each + r->update_s));
}

/* Of a rank that has n members each of these takes less than the step:
 *
 *   front + all work                                   + max(back, updates)
 *   until the first gradient comes + I, W of all       + max(back, updates)
 *   front + F of all + the last one's journey to the end of the chain and home
 *
 * -1: more. */
static int most_in_time(const pp_capacity *c, const rank_time *r, double limit_s) {
    const rank_ends *e = &r->ends;
    if (!(r->forward_s > 0) || !isfinite(limit_s)) return c->total;
    double most = most_within(r, limit_s - e->front_s - r->other_s, r->whole_s);
    most = fmin(most, most_within(r, limit_s - e->gradient_s, r->backward_s));
    most = fmin(most, (limit_s - e->front_s - e->journey_s) / r->forward_s);
    most = floor(most * (1 + 1e-9));
    return most >= c->total ? c->total : most < 0 ? -1 : (int)most;
}

/* ---- the count ----------------------------------------------------------------------------- */

static bool allocate(pp_work *work, pp_capacity *c) {
    pp_arena *arena = &work->arena;
    *c = (pp_capacity){.members = PP_NEW(arena, int, work->tables->layers + 1),
                       .least = PP_NEW(arena, int, work->terms.stages),
                       .held_by_stage = PP_NEW(arena, int, work->terms.stages),
                       .held = PP_NEW(arena, int, work->terms.ranks),
                       .kept = PP_NEW(arena, int, work->terms.ranks),
                       .most = PP_NEW(arena, int, work->terms.ranks)};
    return !arena->failed;
}

static bool few_intervals(const pp_terms *terms) {
    double layers = terms->tables->layers;
    return layers * (layers - terms->stages + 1) <= INTERVALS_MAX;
}

/* Most members of one stage, the others of its rank having their fewest. */
static int most_of_stage(pp_work *work, const pp_capacity *c, int stage) {
    const pp_terms *terms = &work->terms;
    const pp_lean *l = &c->lean[chooses(work) ? REPEATS_ANYTHING : KEEPS];
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
    for (int s = 0; s < terms->stages; s++) {
        c->least[s] = least_members(c, terms, s);
        c->held_by_stage[s] = c->total;
    }
    for (int p = 0; p < terms->ranks; p++) c->held[p] = c->total;
    c->fits = true;
    return PP_OK;
}

static double priced_s(const pp_capacity *c, int rank, int members) {
    int most = c->priced_most, n = members < most ? members : most;
    return c->priced[(size_t)rank * ((size_t)most + 1) + (size_t)n];
}

/* Most members for which the rank's price is no more than so many seconds each. */
static int most_priced(const pp_capacity *c, int rank, double each_s) {
    int n = c->priced_most;
    while (n >= 0 && priced_s(c, rank, n) * CAUTION > n * each_s) n--;
    return n == c->priced_most ? c->total : n;
}

/* With more than two stages on a rank the ways to share out are too many. */
static bool is_priced(const pp_work *work) {
    return chooses(work) && pp_candidate_each(work->candidate) > 2;
}

/* False: out of memory. */
static bool price_ranks(pp_work *work, pp_capacity *c) {
    int ranks = work->terms.ranks, each = pp_candidate_each(work->candidate);
    c->priced_most = min(c->total, 2 * (c->total / ranks + 1) + each);
    size_t length = (size_t)c->priced_most + 1;
    c->priced = PP_NEW(&work->arena, double, (size_t)ranks *length);
    for (int p = 0; p < ranks && c->priced != NULL; p++) {
        rank_time r = time_of(c, &work->terms, p);
        const double member_s[REPEAT_KINDS] = {0, r.attention_s, r.forward_s};
        double *least_s = &c->priced[(size_t)p * length];
        if (!pp_capacity_price(work, c, p, member_s, c->priced_most, least_s)) return false;
        c->held[p] = most_priced(c, p, r.forward_s);
        c->kept[p] = most_priced(c, p, 0);
    }
    return c->priced != NULL;
}

static bool hold_ranks(pp_work *work, pp_capacity *c) {
    if (is_priced(work)) return price_ranks(work, c);
    for (int p = 0; p < work->terms.ranks; p++) {
        c->held[p] = most_held(work, c, p, true);
        c->kept[p] = chooses(work) ? most_held(work, c, p, false) : c->held[p];
    }
    return true;
}

pp_status pp_capacity_hold(pp_work *work, pp_capacity *c, pp_error *error) {
    const pp_terms *terms = &work->terms;
    int kinds = chooses(work) ? REPEAT_KINDS : KEEPS + 1;
    if (!few_intervals(terms)) return PP_OK;
    c->lean = PP_NEW(&work->arena, pp_lean, kinds);
    if (c->lean == NULL) return pp_fail_memory(error);
    for (int kind = 0; kind < kinds; kind++) {
        if (!find_leanest(work, c, kind)) return pp_fail_memory(error);
    }
    if (!hold_ranks(work, c)) return pp_fail_memory(error);
    for (int s = 0; s < terms->stages; s++) c->held_by_stage[s] = most_of_stage(work, c, s);
    c->fits = enough(c->held, terms->ranks, c->total * terms->copies / terms->stages) &&
              enough(c->held_by_stage, terms->stages, c->total);
    return PP_OK;
}

/* Where stages choose what they repeat, and have so long for it. */
static bool can_keep(pp_work *work, const pp_capacity *c, int rank, const rank_time *r, int members,
                     double left_s) {
    if (c->priced != NULL) return priced_s(c, rank, members) * CAUTION <= left_s;
    sharing s = sharing_of(work, c, rank, r->attention_s, r->forward_s, left_s);
    return can_hold(&s, 0, members, 0);
}

static int most_with_choice(pp_work *work, const pp_capacity *c, int rank, const rank_time *r,
                            double limit_s) {
    int most = min(most_in_time(c, r, limit_s), c->held[rank]);
    for (; most > c->kept[rank] && most > 0; most--) {
        double tail = fmax(r->ends.back_s, most * r->update_s + r->other_update_s);
        double took = r->ends.front_s + r->other_s + most * r->whole_s + tail;
        if (can_keep(work, c, rank, r, most, fmax(limit_s - took, 0))) break;
    }
    return most;
}

bool pp_capacity_limit(pp_work *work, double limit_s, pp_capacity *c) {
    const pp_terms *terms = &work->terms;
    for (int p = 0; p < terms->ranks; p++) {
        rank_time r = time_of(c, terms, p);
        c->most[p] = c->lean != NULL && chooses(work)
                         ? most_with_choice(work, c, p, &r, limit_s)
                         : min(most_in_time(c, &r, limit_s), c->held[p]);
    }
    return enough(c->most, terms->ranks, c->total * terms->copies / terms->stages);
}

double pp_capacity_shortest(pp_work *work, double low_s, double high_s, pp_capacity *c) {
    while (high_s - low_s > LEAST_TIME_STEP * high_s) {
        double middle = 0.5 * (low_s + high_s);
        if (pp_capacity_limit(work, middle, c))
            high_s = middle;
        else
            low_s = middle;
    }
    return low_s;
}

/* ---- what has to be repeated --------------------------------------------------------------- */

/* The least seconds in a step that the rank repeats, where it has `all` members and a stage so many
 * of them; INFINITY: it cannot hold them. From any way to a cheaper one, until there is none. */
static double least_again(pp_work *work, const pp_capacity *c, const rank_time *r, int copy,
                          int members, int all) {
    int rank = work->terms.placement[copy];
    double spent = INFINITY, left = 0;
    for (bool first = true; spent > 0; first = false) {
        sharing s = sharing_of(work, c, rank, r->attention_s, r->forward_s, left);
        s.fixed = copy % work->terms.stages;
        s.fixed_members = members;
        bool found = can_hold(&s, 0, all, 0);
        if (found) spent = fmax(left - s.spare_s, 0);
        if (!found && !first) break;
        left = first ? all * r->forward_s : spent * CAUTION;
    }
    return spent * CAUTION;
}

/* Whether the rank holds as many members as it has at the most, whichever stage has them, with
 * nothing repeated. */
static bool has_room(pp_work *work, const pp_capacity *c, int rank, int most) {
    const pp_terms *terms = &work->terms;
    sharing s = {.work = work, .rank = rank};
    bool exist = true;
    for (int o = 0; o < terms->stages && exist; o++) {
        int copy = pp_terms_copy_on(terms, o, rank);
        if (copy < 0) continue;
        work->probe[copy] = *leanest(&c->lean[KEEPS], terms, o, most);
        exist = exists(&work->probe[copy]);
    }
    bool room = exist && holds(&s);
    memset(work->probe, 0, (size_t)terms->copies * sizeof *work->probe);
    return room;
}

/* Both stages of the rank tell of the same, so each counts for half. */
static void fill_again(pp_work *work, int least, int most, pp_capacity *c, int copy) {
    const pp_terms *terms = &work->terms;
    int rank = terms->placement[copy], stage = copy % terms->stages, others = 0;
    double *again = &c->again_s[(size_t)copy * ((size_t)c->total + 1)];
    rank_time r = time_of(c, terms, rank);
    bool room = most >= 0 && has_room(work, c, rank, most);
    for (int o = 0; o < terms->stages; o++) {
        if (o != stage && pp_terms_copy_on(terms, o, rank) >= 0) others += c->least[o];
    }
    for (int m = 0; m <= c->total; m++) {
        int all = m + others > least ? m + others : least;
        bool held = m >= c->least[stage] && m <= c->held_by_stage[stage] && all <= most;
        again[m] = !held ? INFINITY : room ? 0 : 0.5 * least_again(work, c, &r, copy, m, all);
    }
}

static bool all_have_room(pp_work *work, const int *most, const pp_capacity *c) {
    for (int p = 0; p < work->terms.ranks; p++)
        if (most[p] < 0 || !has_room(work, c, p, most[p])) return false;
    return true;
}

pp_status pp_capacity_again(pp_work *work, const int *least, const int *most, pp_capacity *c,
                            pp_error *error) {
    const pp_terms *terms = &work->terms;
    c->again_s = NULL;
    if (c->lean == NULL || !chooses(work) || pp_candidate_each(work->candidate) != 2) return PP_OK;
    if (all_have_room(work, most, c)) return PP_OK;
    if (c->again_room == NULL)
        c->again_room = PP_NEW(&work->arena, double, (size_t)terms->copies *((size_t)c->total + 1));
    c->again_s = c->again_room;
    if (c->again_s == NULL) return pp_fail_memory(error);
    for (int copy = 0; copy < terms->copies; copy++) {
        int rank = terms->placement[copy];
        fill_again(work, least[rank], most[rank], c, copy);
    }
    return PP_OK;
}

static bool enough_time(const pp_capacity *c, const pp_terms *terms, const rank_time *times,
                        double limit_s) {
    for (int p = 0; p < terms->ranks; p++) c->most[p] = most_in_time(c, &times[p], limit_s);
    return enough(c->most, terms->ranks, c->total * terms->copies / terms->stages);
}

pp_status pp_capacity_least_time(const pp_terms *terms, double at_least_s, pp_arena *arena,
                                 double *bound_s, pp_error *error) {
    int layers = terms->tables->layers;
    pp_capacity c = {.members = PP_NEW(arena, int, layers + 1),
                     .most = PP_NEW(arena, int, terms->ranks)};
    rank_time *times = PP_NEW(arena, rank_time, terms->ranks);
    if (arena->failed) return pp_fail_memory(error);
    count_members(&c, terms->timing, layers);
    for (int p = 0; p < terms->ranks; p++) times[p] = time_of(&c, terms, p);
    double low = at_least_s, high = at_least_s;
    *bound_s = low;
    if (!(high > 0)) return PP_OK;
    while (!enough_time(&c, terms, times, high)) low = high, high *= 1.25;
    while (high - low > LEAST_TIME_STEP * high) {
        double middle = 0.5 * (low + high);
        if (enough_time(&c, terms, times, middle))
            high = middle;
        else
            low = middle;
    }
    *bound_s = low;
    return PP_OK;
}
