/* The search against trying everything: every number of ranks, devices of a layer, replicas,
 * microbatches, stages on a rank, every schedule, every recomputation, sharded optimizer state or
 * not, and every split, each assembled here by other code and simulated. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(search);

enum { WORLDS = 60, DEEP_WORLDS = 440, BEST = 4, POSITIONS = 8 };

/* ---- the oracle ---------------------------------------------------------------------------- */

/* One combination, as the oracle enumerates them. */
typedef struct shape {
    int ranks, dp, tp, zero, microbatches, each; /* each: stages on a rank */
    int slices;
    int64_t size;
    const pp_schedule_family *family;
    const pp_schedule *order;  /* of the family, for the placement */
    pp_recompute recompute;    /* mixed: every combination of `policies` */
    pp_recompute policies[16]; /* of each stage */
    int devices[POSITIONS];    /* of each position, tp fastest, then replica, then rank */
} shape;

typedef struct oracle {
    const world *w;
    double fastest[BEST]; /* least step times of different shapes, rising */
    int combinations;
} oracle;

/* All-reduce over the devices of `count` positions, each `stride` behind the one before, in a ring.
 */
static double ring_s(const world *w, const shape *c, int first, int stride, int count,
                     double bytes) {
    double latency = 0, per_byte = 0;
    for (int i = 0; i < count; i++) {
        pp_link link = pp_cluster_link(w->cluster, c->devices[first + i * stride],
                                       c->devices[first + (i + 1) % count * stride]);
        latency = fmax(latency, link.latency_s);
        per_byte = fmax(per_byte, 1 / link.bandwidth_bytes_per_s);
    }
    return 2 * (count - 1) * latency + 2 * (count - 1.0) / count * bytes * per_byte;
}

/* All-reduce over tp devices, by the slowest group of the plan. */
static double group_s(const world *w, const shape *c, double bytes) {
    double slowest = 0;
    for (int first = 0; first < c->ranks * c->dp * c->tp; first += c->tp)
        slowest = fmax(slowest, ring_s(w, c, first, 1, c->tp, bytes));
    return slowest;
}

/* What tp devices take to add up what they computed of a layer, as Megatron-LM does. */
static double sums_s(const world *w, const shape *c, int layer, pp_phase phase) {
    const pp_layer *l = &w->model->layers[layer];
    double rows = (double)c->size * (double)l->sequence;
    double hidden = group_s(w, c, 4 * rows * (double)l->dim);
    bool forward = phase == PP_PHASE_FORWARD, input = phase == PP_PHASE_INPUT;
    if (c->tp == 1) return 0;
    cr_assert_eq(c->slices, 1);
    if (l->op == PP_OP_EMBEDDING) return forward ? hidden : 0;
    if (l->op == PP_OP_GPT_BLOCK) return forward || input ? 2 * hidden : 0;
    cr_assert_eq(l->op, PP_OP_LM_HEAD);
    return forward ? 3 * group_s(w, c, 4 * rows) : input ? hidden : 0;
}

/* Of all slices; *tilt: last less first. */
static double tilted_s(const world *w, const shape *c, int device, int layer, pp_phase phase,
                       double *tilt) {
    int kind = (int)(pp_cluster_device(w->cluster, device) - w->cluster->devices);
    pp_cost_query query = {
        .kind = kind, .layer = layer, .phase = phase, .samples = c->size, .tp = c->tp};
    *tilt = 0;
    if (c->slices == 1 || phase == PP_PHASE_OPTIMIZER)
        return pp_costs_ask(w->costs, query).seconds + sums_s(w, c, layer, phase);
    return pp_costs_slices(w->costs, query, c->slices, tilt).seconds;
}

static double layer_s(const world *w, const shape *c, int device, int layer, pp_phase phase) {
    double tilt;
    return tilted_s(w, c, device, layer, phase, &tilt);
}

/* Of a whole microbatch, each layer's phase on the fastest device in use. */
static double total_s(const world *w, shape c, int64_t samples) {
    double seconds = 0;
    c.size = samples;
    for (int i = 0; i < 3 * w->model->layer_count; i++) {
        double least = INFINITY;
        for (int d = 0; d < c.ranks * c.dp * c.tp; d++)
            least = fmin(least, layer_s(w, &c, c.devices[d], i / 3, (pp_phase)(i % 3)));
        seconds += least;
    }
    return seconds;
}

/* Of layers first … last on the slowest device of a rank; *tilt on the one that tilts most. */
static double slowest_s(const world *w, const shape *c, int rank, int first, int last,
                        pp_phase phase, double *tilt) {
    double slowest = 0, most = 0;
    for (int d = 0; d < c->dp * c->tp; d++) {
        double seconds = 0, tilts = 0, one;
        for (int i = first; i <= last; i++) {
            seconds += tilted_s(w, c, c->devices[rank * c->dp * c->tp + d], i, phase, &one);
            tilts += one;
        }
        slowest = fmax(slowest, seconds);
        most = fmax(most, tilts);
    }
    if (tilt != NULL) *tilt = most;
    return slowest;
}

static double attention_s(const world *w, const shape *c, int rank, int first, int last) {
    double slowest = 0;
    for (int d = 0; d < c->dp * c->tp; d++) {
        double seconds = 0;
        for (int i = first; i <= last; i++) {
            int device = c->devices[rank * c->dp * c->tp + d];
            int kind = (int)(pp_cluster_device(w->cluster, device) - w->cluster->devices);
            pp_cost_query query = {.kind = kind, .layer = i, .samples = c->size, .tp = c->tp};
            seconds += pp_costs_attention(w->costs, query).seconds;
        }
        slowest = fmax(slowest, seconds);
    }
    return slowest;
}

/* Intervals that the layers are cut into: the stages of a chain. */
static int intervals_of(const shape *c) {
    return c->order->stages / c->order->chain_count;
}

/* All-reduce over the replicas of a rank and of the one that holds copies of its stages, in one
 * ring: the slowest of the links from each device to the next, of any of the tp rings. */
static double copies_s(const world *w, const shape *c, int rank, double bytes) {
    int count = 2 * c->dp, width = c->dp * c->tp, other = c->ranks - 1 - rank;
    double latency = 0, per_byte = 0;
    for (int i = 0; i < count * c->tp; i++) {
        int from = i % count, to = (from + 1) % count, t = i / count;
        int a = (from < c->dp ? rank : other) * width + from % c->dp * c->tp + t;
        int b = (to < c->dp ? rank : other) * width + to % c->dp * c->tp + t;
        pp_link link = pp_cluster_link(w->cluster, c->devices[a], c->devices[b]);
        latency = fmax(latency, link.latency_s);
        per_byte = fmax(per_byte, 1 / link.bandwidth_bytes_per_s);
    }
    return 2 * (count - 1) * latency + 2 * (count - 1.0) / count * bytes * per_byte;
}

static void fill_stage(const world *w, const shape *c, int s, int first, int last,
                       pp_stage *stage) {
    pp_recompute policy = c->policies[s % intervals_of(c)];
    pp_arena arena;
    pp_arena_init(&arena);
    pp_layout_request ask = {.model = w->model,
                             .first = first,
                             .last = last,
                             .samples = c->size,
                             .dtype = PP_FP32,
                             .optimizer = PP_ADAMW,
                             .split_backward = c->family->splits_backward,
                             .recompute = policy,
                             .dp = c->dp * c->order->chain_count,
                             .tp = c->tp};
    pp_stage_layout layout;
    cr_assert_eq(pp_stage_layout_make(&ask, &arena, &layout, NULL), PP_OK);
    *stage = (pp_stage){.first = first, .last = last, .recompute = policy, .bytes = layout.bytes};
    pp_arena_deinit(&arena);
    int rank = c->order->placement[s], first_position = rank * c->dp * c->tp;
    double *tilts[] = {&stage->forward_tilt_s, &stage->input_tilt_s};
    stage->forward_s = slowest_s(w, c, rank, first, last, PP_PHASE_FORWARD, tilts[0]);
    stage->input_s = slowest_s(w, c, rank, first, last, PP_PHASE_INPUT, tilts[1]);
    stage->weight_s = slowest_s(w, c, rank, first, last, PP_PHASE_WEIGHT, NULL);
    stage->optimizer_s = slowest_s(w, c, rank, first, last, PP_PHASE_OPTIMIZER, NULL);
    if (policy != PP_RECOMPUTE_NONE) stage->recompute_s = stage->forward_s;
    if (policy == PP_RECOMPUTE_ATTENTION) stage->recompute_s = attention_s(w, c, rank, first, last);
    if (policy > PP_RECOMPUTE_EVERY) *tilts[1] += *tilts[0];
    double q = c->slices, scores = stage->recompute_s * ((2 * q - 1) / (q * q) - 1 / (q * q));
    if (policy == PP_RECOMPUTE_ATTENTION) *tilts[1] += fmin(scores, *tilts[0]);
    if (c->zero == 1) {
        stage->optimizer_s /= c->dp;
        stage->bytes.optimizer = (stage->bytes.optimizer + c->dp - 1) / c->dp;
    }
    double bytes = (double)stage->bytes.gradients;
    if (c->order->chain_count > 1)
        stage->reduce_s = copies_s(w, c, rank, bytes);
    else if (c->dp > 1)
        stage->reduce_s = ring_s(w, c, first_position, c->tp, c->dp, bytes);
}

/* The matrix that the first and the last layer share: summed where they are on two ranks, stepped
 * over once where they are in one stage. (The head has two vectors of dim numbers beside it.) */
static void add_tie(const world *w, const shape *c, pp_stage *stages) {
    const pp_layer *embed = &w->model->layers[0];
    int last = c->order->stages - 1, from = c->order->placement[0];
    int to = c->order->placement[last], width = c->dp * c->tp;
    int64_t words = (embed->vocabulary + c->tp - 1) / c->tp;
    double bytes = 4 * (double)(words * embed->dim), vectors = 8 * (double)embed->dim;
    if (embed->tie == NULL) return;
    if (c->order->chain_count > 1) return; /* both of its ranks have both stages, summed */
    if (last == 0) {
        double step = layer_s(w, c, 0, w->model->layer_count - 1, PP_PHASE_OPTIMIZER);
        stages[0].optimizer_s -= step * bytes / (bytes + vectors) / (c->zero == 1 ? c->dp : 1);
    }
    if (from == to) return;
    double seconds = ring_s(w, c, from * width, (to - from) * width, 2, bytes);
    stages[0].reduce_s += seconds;
    stages[last].reduce_s += seconds;
}

/* Step time of one split, INFINITY if it does not fit. first: [stages + 1] */
static double time_policies(const world *w, const shape *c, const int *first) {
    pp_plan *plan;
    pp_sim_result *result;
    int stages = c->order->stages, each = intervals_of(c);
    cr_assert_eq(pp_plan_new(w->model, w->cluster, c->ranks, each, c->dp, c->tp, &plan, NULL),
                 PP_OK);
    if (each < stages) cr_assert(pp_plan_add_chain(plan));
    memcpy(plan->placement, c->order->placement, (size_t)stages * sizeof *plan->placement);
    for (int i = 0; i < c->ranks * c->dp * c->tp; i++) plan->devices[i] = c->devices[i];
    plan->microbatches = c->microbatches;
    plan->slices = c->slices;
    plan->microbatch_size = c->size;
    plan->global_batch = w->request.global_batch;
    plan->dtype = PP_FP32;
    plan->recompute = c->recompute;
    strcpy(plan->schedule, c->family->name);
    int64_t batch = plan->global_batch / c->dp, rest = batch - (c->microbatches - 1) * c->size;
    plan->last_microbatch_scale = total_s(w, *c, rest) / total_s(w, *c, c->size);
    for (int s = 0; s < stages; s++) {
        fill_stage(w, c, s, first[s % each], first[s % each + 1] - 1, &plan->stages[s]);
    }
    add_tie(w, c, plan->stages);
    cr_assert_eq(pp_simulate_plan(plan, false, NULL, &result, NULL), PP_OK);
    double seconds = result->makespan_s;
    for (int p = 0; p < c->ranks; p++) {
        for (int d = p * c->dp * c->tp; d < (p + 1) * c->dp * c->tp; d++) {
            int64_t limit = w->request.memory_bytes;
            if (limit == 0) limit = pp_cluster_device(w->cluster, c->devices[d])->memory_bytes;
            if (result->rank[p].peak.total > limit) seconds = INFINITY;
        }
    }
    pp_sim_result_free(result);
    pp_plan_free(plan);
    return seconds;
}

/* Over the policies of the stages from `stage` on. */
static double best_policies(const world *w, shape *c, const int *first, int stage) {
    if (stage == intervals_of(c)) return time_policies(w, c, first);
    double best = INFINITY;
    int layers = first[stage + 1] - first[stage];
    for (int i = 0; i < layers + 2; i++) {
        c->policies[stage] = i == 0   ? PP_RECOMPUTE_NONE
                             : i == 1 ? PP_RECOMPUTE_ATTENTION
                                      : PP_RECOMPUTE_EVERY + i - 1;
        best = fmin(best, best_policies(w, c, first, stage + 1));
    }
    return best;
}

/* Worlds in which stages that share a rank had to recompute: there the search is no proof. */
static bool loose;

static double time_split(const world *w, const shape *asked, const int *first) {
    shape c = *asked;
    bool mixed = c.recompute == PP_RECOMPUTE_MIXED;
    for (int s = 0; s < intervals_of(&c); s++)
        c.policies[s] = mixed ? PP_RECOMPUTE_NONE : c.recompute;
    double seconds = time_policies(w, &c, first); /* recomputing nothing is fastest */
    if (!mixed || seconds < INFINITY) return seconds;
    seconds = best_policies(w, &c, first, 0);
    if (c.order->stages > c.ranks && seconds < INFINITY) loose = true;
    return seconds;
}

static double best_split(const world *w, const shape *c, int *first, int stage) {
    int layers = w->model->layer_count, stages = intervals_of(c);
    if (stage == stages) {
        first[stage] = layers;
        return time_split(w, c, first);
    }
    double best = INFINITY;
    for (int at = first[stage - 1] + 1; at <= layers - (stages - stage); at++) {
        first[stage] = at;
        best = fmin(best, best_split(w, c, first, stage + 1));
    }
    return best;
}

/* Over all ways to give the positions from `at` on a device each. */
static double best_order(const world *w, shape *c, int at) {
    int first[64] = {0}, devices = pp_cluster_device_count(w->cluster);
    if (at == c->ranks * c->dp * c->tp) return best_split(w, c, first, 1);
    if (at >= POSITIONS) abort(); /* worlds are smaller */
    double best = INFINITY;
    for (int i = 0; i < devices; i++) {
        bool taken = false;
        for (int k = 0; k < at; k++) taken = taken || c->devices[k] == i;
        if (taken) continue;
        c->devices[at] = i;
        best = fmin(best, best_order(w, c, at + 1));
    }
    return best;
}

static double best_of(const world *w, shape *c) {
    int first[64] = {0};
    if (w->unequal) return best_order(w, c, 0);
    for (int i = 0; i < POSITIONS; i++) c->devices[i] = i;
    return best_split(w, c, first, 1);
}

static void note(oracle *o, double seconds) {
    for (int i = 0; i < BEST; i++) {
        if (seconds >= o->fastest[i]) continue;
        memmove(&o->fastest[i + 1], &o->fastest[i], (size_t)(BEST - 1 - i) * sizeof *o->fastest);
        o->fastest[i] = seconds;
        return;
    }
}

static void try_shape(oracle *o, shape c) {
    const pp_plan_request *r = &o->w->request;
    pp_schedule *order;
    if (r->schedule != NULL && strcmp(r->schedule, c.family->name) != 0) return;
    char policy[PP_RECOMPUTE_LENGTH];
    if (r->recompute != NULL && strcmp(r->recompute, pp_recompute_text(c.recompute, policy)) != 0)
        return;
    if (c.recompute == PP_RECOMPUTE_EXCEPT_LAST && c.microbatches == 1 && r->recompute == NULL) {
        return; /* the same as none */
    }
    if (r->virtual_stages != 0 && r->virtual_stages != c.each) return;
    pp_schedule_request ask = {.name = c.family->name,
                               .ranks = c.ranks,
                               .microbatches = c.microbatches,
                               .virtual_stages = c.each,
                               .slices = c.slices > 1 ? c.slices : 0};
    bool asked = r->schedule != NULL || r->slices > 0;
    if (c.family->cuts_sequence ? !asked || c.slices == 1 : c.slices > 1) return;
    if (r->schedule == NULL && c.family->same_as != NULL) { /* runners-up are other orders */
        pp_schedule_request twin = ask;
        twin.name = c.family->same_as;
        bool repeated = pp_schedule_build(&twin, &order, NULL) == PP_OK;
        if (repeated) pp_schedule_free(order);
        if (repeated) return;
    }
    if (pp_schedule_build(&ask, &order, NULL) != PP_OK) return;
    c.order = order;
    if (c.family->async == NULL && intervals_of(&c) <= o->w->model->layer_count) {
        o->combinations++;
        note(o, best_of(o->w, &c));
    }
    pp_schedule_free(order);
}

/* Whole, or cut into 2, 4, 8 or 16 slices if the sequences are as long. */
static void try_slices(oracle *o, shape c) {
    int pinned = o->w->request.slices;
    for (c.slices = 1; c.slices <= 16; c.slices *= 2) {
        if (pinned != 0 && c.slices != pinned) continue;
        if (c.slices == 1 || pp_model_can_slice(o->w->model, c.slices, NULL) == PP_OK)
            try_shape(o, c);
    }
}

/* Every size whose M no smaller size has. */
static void try_sizes(oracle *o, shape c) {
    int64_t batch = o->w->request.global_batch / c.dp;
    int families, layers = o->w->model->layer_count;
    const pp_schedule_family *family = pp_schedule_families(&families);
    for (c.size = 1; c.size <= batch; c.size++) {
        c.microbatches = (int)((batch + c.size - 1) / c.size);
        int pinned = o->w->request.microbatches;
        if (pinned != 0 && c.microbatches != pinned) continue;
        if (c.size > 1 && (batch + c.size - 2) / (c.size - 1) == c.microbatches) continue;
        for (int f = 0; f < families; f++) {
            c.family = &family[f];
            const char *policy = o->w->request.recompute;
            static const pp_recompute policies[] = {PP_RECOMPUTE_MIXED, PP_RECOMPUTE_FULL,
                                                    PP_RECOMPUTE_EXCEPT_LAST};
            for (int r = 0; r < (policy ? 1 : 3); r++) {
                c.recompute = policies[r];
                if (policy) pp_recompute_from_name(policy, &c.recompute);
                for (c.each = c.family->natural_virtual; c.each <= layers; c.each++) {
                    try_slices(o, c);
                }
            }
        }
    }
}

static oracle try_everything(const world *w) {
    oracle o = {.w = w};
    for (int i = 0; i < BEST; i++) o.fastest[i] = INFINITY;
    int devices = pp_cluster_device_count(w->cluster);
    for (int ranks = 1; ranks <= devices && ranks <= w->model->layer_count; ranks++) {
        if (w->request.ranks != 0 && w->request.ranks != ranks) continue;
        for (int tp = 1; tp <= w->cluster->nodes[0].count; tp++) {
            if (w->cluster->nodes[0].count % tp != 0) continue;
            if (pp_model_can_shard(w->model, tp, NULL) != PP_OK) continue;
            if (w->request.tp != 0 && w->request.tp != tp) continue;
            for (int dp = 1; ranks * dp * tp <= devices; dp++) {
                if (w->request.global_batch % dp != 0) continue;
                if (w->request.dp != 0 && w->request.dp != dp) continue;
                int zero = w->request.zero;
                shape c = {.ranks = ranks, .dp = dp, .tp = tp, .zero = zero};
                if (zero == PP_ZERO_SEARCH) c.zero = dp > 1; /* never slower, never larger */
                try_sizes(&o, c);
            }
        }
    }
    return o;
}

/* ---- comparison ---------------------------------------------------------------------------- */

static bool close_to(double a, double b) {
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

static void compare(const world *w, const oracle *o, uint64_t seed) {
    pp_plan_result *result;
    pp_error error = {0};
    pp_status status = pp_plan_search(&w->request, &result, &error);
    if (o->fastest[0] == INFINITY) {
        cr_expect_eq(status, PP_E_NO_FIT, "seed %d: %s", (int)seed, error.message);
        cr_expect(result->miss.known, "seed %d", (int)seed);
    } else if (!loose || status != PP_E_NO_FIT) {
        cr_assert_eq(status, PP_OK, "seed %d: %s", (int)seed, error.message);
        double found = result->best->predicted.iteration_time_s;
        cr_expect(loose ? found >= o->fastest[0] * (1 - 1e-9) : close_to(found, o->fastest[0]),
                  "seed %d: %.12g, but %.12g can be had", (int)seed, found, o->fastest[0]);
        cr_expect_leq(result->lower_bound_s, o->fastest[0], "seed %d: the bound is wrong",
                      (int)seed);
        for (int i = 1; i < BEST; i++) {
            if (loose) break;
            bool there = i <= result->alternative_count;
            cr_expect_eq(there, o->fastest[i] < INFINITY, "seed %d: runner-up %d", (int)seed, i);
            if (!there || o->fastest[i] == INFINITY) continue;
            found = result->alternatives[i - 1]->predicted.iteration_time_s;
            cr_expect(close_to(found, o->fastest[i]), "seed %d: runner-up %d: %.12g, not %.12g",
                      (int)seed, i, found, o->fastest[i]);
        }
    }
    pp_plan_result_free(result);
}

Test(search, equals_trying_everything, .timeout = 300) {
    int combinations = 0, strict = 0;
    for (uint64_t seed = 0; seed < WORLDS; seed++) {
        world_size large = {6, 4, 8, .memory = false}; /* all devices alike */
        world_size small = {seed % 2 ? 5 : 6, 3, 6, .memory = seed % 4 != 1, .unequal = seed % 4};
        world_size mixed = {5, 2, 4, .memory = true}; /* policies stage by stage */
        world w = world_random(seed, seed % 6 == 0 ? mixed : seed % 4 == 3 ? large : small);
        if (seed % 5 == 1) w.request.schedule = "1f1b";
        static const char *const pins[] = {"none", "full", "every:1", "attention", "every:2"};
        if (seed % 6 != 0) w.request.recompute = pins[seed % 5];
        if (seed % 7 == 1) w.request.recompute = "except-last";
        if (seed % 11 == 1) w.request.ranks = 2 <= pp_cluster_device_count(w.cluster) ? 2 : 1;
        if (seed % 13 == 1) w.request.memory_bytes = 9000;
        loose = false;
        oracle o = try_everything(&w);
        combinations += o.combinations;
        strict += !loose;
        compare(&w, &o, seed);
        world_free(&w);
    }
    cr_expect_gt(combinations, 500);
    cr_expect_gt(strict, WORLDS / 2);
}

/* More layers on more ranks, under one schedule after the other. */
Test(search, equals_trying_everything_deep, .timeout = 300) {
    int families, combinations = 0;
    const pp_schedule_family *family = pp_schedule_families(&families);
    for (uint64_t seed = 5000; seed < 5000 + DEEP_WORLDS; seed++) {
        int layers = seed % 8 == 0 ? 12 : 8;
        world w =
            world_random(seed, (world_size){layers, seed % 4 == 0 ? 5 : 3, 2, .memory = false});
        if (seed % 3 != 0) w.request.memory_bytes = 6144 + 1024 * (int64_t)(seed % 20);
        const pp_schedule_family *only = &family[seed % (uint64_t)families];
        bool plannable = only->async == NULL && !only->cuts_sequence;
        w.request.schedule = plannable ? only->name : seed % 2 == 0 ? "interleaved" : "zbv";
        static const char *const policies[] = {"none", "full", "except-last"};
        w.request.recompute = policies[seed / 4 % 3];
        oracle o = try_everything(&w);
        combinations += o.combinations;
        if (o.combinations > 0) compare(&w, &o, seed);
        world_free(&w);
    }
    cr_expect_gt(combinations, 500);
}

/* A transformer of one or two blocks on nodes of two or four devices, with links that make dividing
 * layers cheap or dear and memory that may enforce it. */
static world divided_world(uint64_t seed) {
    pp_random_key key = pp_random_key_make(seed, "divided", 0);
    int dice[8];
    for (int i = 0; i < 8; i++) dice[i] = (int)pp_random_below(key, (uint64_t)i, 1000);
    pp_text model = {0}, cluster = {0};
    int blocks = 1 + dice[0] % 2;
    pp_text_printf(&model,
                   "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"small\", "
                   "\"layers\": [{\"name\": \"embed\", \"op\": \"embedding\", "
                   "\"vocabulary\": 11, \"dim\": 16, \"sequence\": 8%s}",
                   dice[1] % 2 ? ", \"tie\": \"w\"" : "");
    for (int i = 0; i < blocks; i++) {
        pp_text_printf(&model,
                       ", {\"name\": \"block%d\", \"op\": \"gpt_block\", \"dim\": 16, "
                       "\"heads\": %d, \"sequence\": 8}",
                       i, dice[2] % 3 ? 4 : 2);
    }
    pp_text_printf(&model,
                   ", {\"name\": \"head\", \"op\": \"lm_head\", \"vocabulary\": 11, "
                   "\"dim\": 16, \"sequence\": 8%s}]}",
                   dice[1] % 2 ? ", \"tie\": \"w\"" : "");
    int each = dice[3] % 8 ? 4 : 2;
    pp_text_printf(&cluster,
                   "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"box\", "
                   "\"all_reduce\": \"ring\", \"devices\": [{\"name\": \"d\", \"memory_bytes\": "
                   "%d, \"flops\": "
                   "{\"fp32\": 1e9}, \"memory_bandwidth_bytes_per_s\": 1e9}], "
                   "\"nodes\": [{\"device\": \"d\", \"count\": %d, \"repeat\": %d}], "
                   "\"intra\": {\"bandwidth_bytes_per_s\": %s, \"latency_s\": 1e-6}, "
                   "\"inter\": {\"bandwidth_bytes_per_s\": 1e8, \"latency_s\": 1e-5, "
                   "\"shared_per_node\": false}}",
                   dice[4] % 2 ? 1 << 28 : 60000 + 100 * dice[5], each, 4 / each,
                   dice[6] % 3 ? "1e10" : "1e6");
    world w = world_read(model.bytes, cluster.bytes, 1 + dice[7] % (each == 2 ? 2 : 6));
    pp_text_deinit(&model);
    pp_text_deinit(&cluster);
    w.unequal = each == 2;
    w.request.zero = seed % 4 == 3 ? 0 : PP_ZERO_SEARCH;
    return w;
}

Test(search, equals_trying_every_division, .timeout = 300) {
    int divided = 0, sharded = 0, whole = 0;
    for (uint64_t seed = 3000; seed < 3032; seed++) {
        world w = divided_world(seed);
        if (seed % 5 == 1) w.request.tp = 2;
        if (seed % 6 == 1 && w.request.global_batch % 2 == 0) w.request.dp = 2;
        if (seed % 7 == 1) w.request.schedule = "interleaved";
        if (seed % 9 == 1) w.request.microbatches = 1;
        oracle o = try_everything(&w);
        if (o.combinations > 0) compare(&w, &o, seed);
        pp_plan_result *result;
        if (pp_plan_search(&w.request, &result, NULL) == PP_OK) {
            divided += result->best->tp > 1;
            sharded += result->best->zero == 1;
            whole += result->best->tp == 1 && result->best->zero == 0;
        }
        pp_plan_result_free(result);
        world_free(&w);
    }
    cr_expect(divided > 2 && sharded > 2 && whole > 2, "%d divided, %d sharded, %d neither",
              divided, sharded, whole);
}

/* Two chains with copies of the stages: on equal and unequal devices, under memory limits, with
 * replicas, a smaller last microbatch, and a tied matrix. */
Test(search, equals_trying_everything_both_ways, .timeout = 300) {
    int planned = 0, deep = 0, replicated = 0, uneven = 0, odd = 0;
    for (uint64_t seed = 6000; seed < 6160; seed++) {
        world_size plain = {8, 4, 12, .memory = seed % 3 == 0};
        world_size mixed = {5, 4, 10, .memory = seed % 3 == 0, .unequal = true};
        world w =
            seed % 4 == 3 ? divided_world(seed) : world_random(seed, seed % 4 == 2 ? mixed : plain);
        static const char *const policies[] = {"none", "full", "except-last", "every:1"};
        w.cluster->all_reduce = PP_ALL_REDUCE_RING;
        w.request.schedule = seed % 2 == 0 ? "dualpipe" : "chimera";
        if (seed % 12 != 0) w.request.recompute = policies[seed / 2 % 4];
        int devices = pp_cluster_device_count(w.cluster);
        if (seed % 5 == 0 && devices == 4 && w.request.global_batch % 2 == 0) w.request.dp = 2;
        if (seed % 5 == 1 && devices == 4 && w.model->layer_count >= 4) w.request.ranks = 4;
        loose = false;
        oracle o = try_everything(&w);
        if (o.combinations > 0) compare(&w, &o, seed);
        pp_plan_result *result;
        if (pp_plan_search(&w.request, &result, NULL) == PP_OK) {
            const pp_plan *best = result->best;
            cr_assert_eq(best->chains, 2);
            planned++;
            deep += best->ranks > 2;
            replicated += best->dp > 1;
            uneven += best->last_microbatch_scale < 1;
            odd += best->microbatches % 2;
        }
        pp_plan_result_free(result);
        world_free(&w);
    }
    cr_expect(planned > 40 && deep > 5 && replicated > 0 && uneven > 5 && odd > 0,
              "%d planned, %d on more than two ranks, %d with replicas, %d uneven, %d odd", planned,
              deep, replicated, uneven, odd);
}

/* A causal transformer of up to three blocks of unequal width inside on two or three devices. */
static world causal_world(uint64_t seed, bool unequal) {
    pp_random_key key = pp_random_key_make(seed, "causal", 0);
    int dice[16];
    for (int i = 0; i < 16; i++) dice[i] = (int)pp_random_below(key, (uint64_t)i, 1000);
    pp_text model = {0}, cluster = {0};
    const char *tie = dice[0] % 3 == 0 ? ", \"tie\": \"w\"" : "";
    pp_text_printf(&model,
                   "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"causal\", "
                   "\"layers\": [{\"name\": \"embed\", \"op\": \"embedding\", "
                   "\"vocabulary\": 11, \"dim\": 16, \"sequence\": 8%s}",
                   tie);
    for (int i = 0; i < 1 + dice[1] % 3; i++)
        pp_text_printf(&model,
                       ", {\"name\": \"block%d\", \"op\": \"gpt_block\", \"dim\": 16, "
                       "\"heads\": 2, \"hidden\": %d, \"sequence\": 8}",
                       i, 4 + dice[2 + i] % 60);
    pp_text_printf(&model,
                   ", {\"name\": \"head\", \"op\": \"lm_head\", \"vocabulary\": 11, "
                   "\"dim\": 16, \"sequence\": 8%s}]}",
                   tie);
    pp_text_string(&cluster, "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"box\", "
                             "\"all_reduce\": \"ring\", \"devices\": [");
    int devices = unequal ? 2 : 2 + dice[6] % 2;
    for (int i = 0; i < devices; i++)
        pp_text_printf(&cluster,
                       "%s{\"name\": \"d%d\", \"memory_bytes\": %d, \"flops\": {\"fp32\": %de6}, "
                       "\"memory_bandwidth_bytes_per_s\": %de6}",
                       i ? ", " : "", i,
                       dice[7] % 2 ? 1 << 28 : 24000 + 60 * dice[unequal ? 8 + i : 8],
                       10 << (unequal ? dice[8 + i] % 3 : 0), dice[14] % 2 ? 20 : 1000);
    pp_text_string(&cluster, "], \"nodes\": [");
    for (int i = 0; i < devices; i++)
        pp_text_printf(&cluster, "%s{\"device\": \"d%d\", \"count\": 1, \"repeat\": 1}",
                       i ? ", " : "", i);
    pp_text_printf(&cluster,
                   "], \"intra\": {\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}, \"inter\": "
                   "{\"bandwidth_bytes_per_s\": %s, \"latency_s\": 1e-5, \"shared_per_node\": "
                   "false}}",
                   dice[12] % 2 ? "null" : "3e6");
    world w = world_read(model.bytes, cluster.bytes, 2 + dice[13] % 4);
    pp_text_deinit(&model);
    pp_text_deinit(&cluster);
    w.unequal = unequal;
    w.request.schedule = "seq1f1b";
    return w;
}

/* Microbatches cut along the sequence, on equal and unequal devices, under memory limits, with
 * every policy, a smaller last microbatch, and a tied matrix. */
Test(search, equals_trying_everything_in_slices, .timeout = 300) {
    int planned = 0, deep = 0, fine = 0, uneven = 0, mixed = 0;
    for (uint64_t seed = 7000; seed < 7045; seed++) {
        static const char *const policies[] = {"none", "full", "except-last", "attention",
                                               "every:1"};
        world w = causal_world(seed, seed % 3 == 0);
        if (seed % 4 == 0) w.request.slices = 2 + 2 * (int)(seed / 4 % 2);
        if (seed % 7 != 0) w.request.recompute = policies[seed % 5];
        loose = false;
        oracle o = try_everything(&w);
        cr_assert_gt(o.combinations, 0);
        compare(&w, &o, seed);
        pp_plan_result *result;
        if (pp_plan_search(&w.request, &result, NULL) == PP_OK) {
            const pp_plan *best = result->best;
            cr_assert_gt(best->slices, 1);
            planned++;
            deep += best->ranks > 1;
            fine += best->slices > 2;
            uneven += best->last_microbatch_scale < 1;
            mixed += best->recompute == PP_RECOMPUTE_MIXED;
        }
        pp_plan_result_free(result);
        world_free(&w);
    }
    cr_expect(planned > 20 && deep > 8 && fine > 2 && uneven > 2,
              "%d planned, %d on several ranks, %d in more than two slices, %d uneven, %d mixed",
              planned, deep, fine, uneven, mixed);
}

/* A plan that is as fast without sharding its optimizer state does not shard it; one that does not
 * fit without, or is slower, does; and what run cannot execute is left out where that is asked. */
Test(search, zero_only_where_it_helps) {
    world w = divided_world(1);
    w.request.memory_bytes = 1 << 28;
    w.request.zero = PP_ZERO_SEARCH;
    w.request.global_batch = 4;
    w.request.dp = 2;
    pp_plan_result *result;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    cr_expect_eq(result->best->zero, 1, "half the optimizer's step is saved");
    double sharded = result->best->predicted.iteration_time_s;
    pp_plan_result_free(result);
    w.request.runnable = true;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    cr_expect_eq(result->best->zero, 1);
    cr_expect_eq(result->best->tp, 1);
    cr_expect_geq(result->best->predicted.iteration_time_s, sharded);
    pp_plan_result_free(result);
    world_free(&w);
    /* Opaque layers have no optimizer step to save. */
    w = world_random(7, (world_size){6, 4, 8, .memory = false});
    w.request.global_batch = 8;
    w.request.dp = 2;
    w.request.zero = PP_ZERO_SEARCH;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    cr_expect_eq(result->best->zero, 0);
    for (int i = 0; i < result->alternative_count; i++)
        cr_expect_eq(result->alternatives[i]->zero, 0);
    pp_plan_result_free(result);
    world_free(&w);
}

/* ---- the search against itself ------------------------------------------------------------- */

static double seconds_of(const world *w, int alternatives) {
    pp_plan_request request = w->request;
    request.alternative_count = alternatives;
    pp_plan_result *result;
    pp_error error = {0};
    pp_status status = pp_plan_search(&request, &result, &error);
    double seconds = status == PP_OK ? result->best->predicted.iteration_time_s : INFINITY;
    pp_plan_result_free(result);
    return seconds;
}

/* Wanting every plan there is as a runner-up leaves nothing to prune. */
Test(search, pruning_changes_nothing, .timeout = 300) {
    for (uint64_t seed = 1000; seed < 1015; seed++) {
        world w = world_random(seed, (world_size){10, 5, 12, .memory = seed % 2 == 0});
        double pruned = seconds_of(&w, 1), whole = seconds_of(&w, 1 << 20);
        cr_expect(pruned == whole || close_to(pruned, whole), "seed %d: %.12g, unpruned %.12g",
                  (int)seed, pruned, whole);
        world_free(&w);
    }
}

/* Costly enough that the threads are called in. */
Test(search, threads_change_nothing, .timeout = 300) {
    double seconds[2], bound[2];
    int64_t searched[2];
    for (int i = 0; i < 2; i++) {
        world w = world_open("gpt2-774m", "dgx-a100:1", 64);
        w.request.threads = i == 0 ? 1 : 5;
        w.request.tp = 1;
        pp_plan_result *result;
        cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
        seconds[i] = result->best->predicted.iteration_time_s;
        bound[i] = result->lower_bound;
        searched[i] = result->searched;
        pp_plan_result_free(result);
        world_free(&w);
    }
    cr_expect(seconds[0] == seconds[1] && bound[0] == bound[1]);
    cr_expect_eq(searched[0], searched[1]);
}

/* ---- bounds -------------------------------------------------------------------------------- */

static void random_splits(pp_random_key key, uint64_t *n, int layers, int stages, int *splits) {
    for (int s = 1; s < stages; s++) {
        int least = s == 1 ? 1 : splits[s - 2] + 1, room = layers - (stages - s) - least;
        splits[s - 1] = least + (int)pp_random_below(key, (*n)++, (uint64_t)(room + 1));
    }
}

static void check_bounds(pp_work *work, const int *splits, uint64_t seed) {
    double bound = pp_bound_totals(work->tables, work->candidate);
    double without = 0, seconds;
    if (bound == INFINITY) bound = 0; /* its weights do not fit: no claim about time */
    memcpy(work->trial, splits, (size_t)(work->terms.stages - 1) * sizeof *splits);
    work->best_s = INFINITY;
    cr_assert(pp_assemble_stages(&work->terms, work->footprints, splits, &work->plan));
    cr_assert_eq(pp_work_time(work, &seconds, NULL), PP_OK);
    pp_terms blind = work->terms;
    blind.flows = NULL;
    for (int s = 0; s < work->terms.stages; s++) {
        int first, last;
        pp_work_interval(work, splits, s, &first, &last);
        bound = fmax(bound, pp_bound_stage(&work->terms, s, first, last));
        without = fmax(without, pp_bound_stage(&blind, s, first, last));
        pp_sim_result *result;
        if (s > 0 || pp_candidate_each(work->candidate) > 1) continue;
        cr_assert_eq(pp_simulate_plan(&work->plan, false, NULL, &result, NULL), PP_OK);
        cr_expect_eq(result->makespan_s, seconds, "seed %d: two simulations differ", (int)seed);
        for (int p = 0; p < work->terms.ranks; p++) {
            pp_work_interval(work, splits, p, &first, &last);
            cr_expect_eq(result->rank[p].peak.total, pp_work_need(work, p, first, last),
                         "seed %d: bytes of rank %d", (int)seed, p);
        }
        pp_sim_result_free(result);
    }
    char policy[PP_RECOMPUTE_LENGTH];
    cr_expect_leq(bound, seconds, "seed %d: %s K=%d M=%d dp=%d recompute %s: bound %.17g of %.17g",
                  (int)seed, work->candidate->family->name, work->candidate->ranks,
                  work->candidate->microbatches, work->candidate->dp,
                  pp_recompute_text(work->candidate->recompute, policy), bound, seconds);
    cr_expect_leq(without, seconds, "seed %d: the bound without order", (int)seed);
}

/* Least step time over all splits that fit, by trying each. */
static void try_all(pp_work *work, int stage) {
    int layers = work->tables->layers, left = work->terms.stages - stage;
    if (left == 0) { /* stages - 1 boundaries are set */
        cr_assert_eq(pp_work_try(work, NULL), PP_OK);
        return;
    }
    int from = stage > 1 ? work->trial[stage - 2] + 1 : 1;
    for (int at = from; at <= layers - left; at++) {
        work->trial[stage - 1] = at;
        try_all(work, stage + 1);
    }
}

/* Enumeration alone, without a good split to start from, finds the same as trying each. */
static void check_enumeration(pp_work *work, uint64_t seed) {
    work->best_s = INFINITY;
    cr_assert_eq(pp_enumerate(work, INFINITY, NULL), PP_OK);
    cr_expect(work->proved, "seed %d", (int)seed);
    double enumerated = work->best_s;
    work->best_s = INFINITY;
    try_all(work, 1);
    bool equal = enumerated == work->best_s || close_to(enumerated, work->best_s);
    cr_expect(equal, "seed %d: %.12g, but %.12g can be had", (int)seed, enumerated, work->best_s);
}

/* No split beats its bound, and memory by intervals is the simulator's memory. */
static void check_world(world *w, uint64_t seed) {
    pp_tables tables;
    pp_footprints footprints;
    pp_views views;
    pp_split_method method;
    pp_space space;
    pp_work work;
    pp_arena arena;
    pp_error error = {0};
    pp_arena_init(&arena);
    cr_assert_eq(pp_split_method_read(NULL, w->model, &arena, &method, &error), PP_OK);
    cr_assert_eq(pp_tables_init(&tables, &w->request, &error), PP_OK);
    cr_assert_eq(pp_footprints_init(&footprints, &tables, &error), PP_OK);
    cr_assert_eq(pp_space_init(&space, &tables, &method, &error), PP_OK, "%s", error.message);
    cr_assert_eq(pp_views_init(&views, &tables, &footprints, PP_CUTS_ALL, 1, &error), PP_OK);
    pp_work_init(&work, &views, &method);
    pp_random_key key = pp_random_key_make(seed, "splits", 0);
    uint64_t n = 0;
    int splits[64];
    for (size_t i = 0; i < space.count; i += 1 + space.count / 40) {
        if (pp_work_start(&work, &space.candidates[i], &error) != PP_OK) continue;
        work.share = 1;
        for (int k = 0; k < 4; k++) {
            random_splits(key, &n, w->model->layer_count, work.terms.stages, splits);
            check_bounds(&work, splits, seed);
        }
        if (w->model->layer_count <= 8) check_enumeration(&work, seed);
    }
    pp_work_deinit(&work);
    pp_views_deinit(&views);
    pp_space_deinit(&space);
    pp_footprints_deinit(&footprints);
    pp_tables_deinit(&tables);
    pp_arena_deinit(&arena);
}

Test(search, no_split_beats_its_bound, .timeout = 300) {
    for (uint64_t seed = 2000; seed < 2030; seed++) {
        world w = world_random(seed, (world_size){12, 8, 24, .memory = false});
        check_world(&w, seed);
        world_free(&w);
    }
    for (uint64_t seed = 2100; seed < 2130; seed++) {
        world w = causal_world(seed, seed % 3 == 0);
        w.request.memory_bytes = 1 << 28; /* policies are not chosen here */
        check_world(&w, seed);
        world_free(&w);
    }
    world w = world_open("gpt-nano", "dgx-h100:1", 20);
    check_world(&w, 1);
    w.request.schedule = "seq1f1b";
    check_world(&w, 2);
    world_free(&w);
}

/* Three devices; transfers take no time. */
static const char box[] =
    "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"box\", \"devices\": "
    "[{\"name\": \"d\", \"memory_bytes\": 1073741824, \"flops\": {\"fp32\": 1e9}, "
    "\"memory_bandwidth_bytes_per_s\": 1e9}], \"nodes\": [{\"device\": \"d\", \"count\": 3, "
    "\"repeat\": 1}], \"intra\": {\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}, "
    "\"inter\": {\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}}";

/* Equal stages, no transfers: 1F1B's closed form (M + K - 1) T is the bound and the time. */
Test(search, bound_is_tight_on_equal_stages) {
    world w = world_read(
        "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"even\", \"layers\": ["
        "{\"name\": \"a\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, \"weight_s\": 1, "
        "\"parameter_bytes\": 0, \"output_bytes\": 8, \"activation_bytes\": 8},"
        "{\"name\": \"b\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, \"weight_s\": 1, "
        "\"parameter_bytes\": 0, \"output_bytes\": 8, \"activation_bytes\": 8},"
        "{\"name\": \"c\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, \"weight_s\": 1, "
        "\"parameter_bytes\": 0, \"output_bytes\": 8, \"activation_bytes\": 8}]}",
        box, 8);
    w.request.ranks = 3;
    w.request.microbatches = 8;
    w.request.schedule = "1f1b";
    pp_plan_result *result;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    cr_expect_float_eq(result->best->predicted.iteration_time_s, 30, 1e-9);
    cr_expect_float_eq(result->lower_bound_s, 30, 1e-6);
    cr_expect_float_eq(result->best->predicted.bubble_fraction, 0.2, 1e-9);
    pp_plan_result_free(result);
    world_free(&w);
}

/* Seven equal layers on two ranks: one of them has four, however many stages they are cut into. */
Test(search, some_rank_is_fuller_than_the_average) {
    pp_text model = {0};
    pp_text_string(&model, "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"odd\", "
                           "\"layers\": [");
    for (int i = 0; i < 7; i++) {
        pp_text_printf(
            &model,
            "%s{\"name\": \"l%d\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, "
            "\"weight_s\": 1, \"parameter_bytes\": 0, \"output_bytes\": 8, "
            "\"activation_bytes\": 8}",
            i ? "," : "", i);
    }
    pp_text_string(&model, "]}");
    world w = world_read(model.bytes, box, 8);
    pp_text_deinit(&model);
    w.request.ranks = 2;
    w.request.microbatches = 8;
    w.request.recompute = "none";
    w.request.schedule = "interleaved";
    pp_plan_result *result;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    cr_expect_geq(result->lower_bound_s, 8 * 4 * 3 * (1 - 1e-9));
    cr_expect_geq(result->best->predicted.iteration_time_s, result->lower_bound_s);
    pp_plan_result_free(result);
    world_free(&w);
}

/* Step time where that much memory is all there is, and how much of it is used. */
static double time_within(world *w, const char *recompute, int64_t memory, int64_t *used) {
    pp_plan_result *result;
    w->request.recompute = recompute;
    w->request.memory_bytes = memory;
    cr_assert_eq(pp_plan_search(&w->request, &result, NULL), PP_OK, "%s", w->request.schedule);
    double seconds = result->best->predicted.iteration_time_s;
    *used = 0;
    for (int p = 0; p < result->best->ranks; p++) {
        int64_t peak = result->best->predicted.rank[p].peak_bytes;
        if (peak > *used) *used = peak;
    }
    pp_plan_result_free(result);
    return seconds;
}

/* Where all stages could repeat their attention and no more, choosing for each must not be worse:
 * two stages share the memory of a rank. */
Test(search, choosing_policies_beats_attention_everywhere, .timeout = 120) {
    static const char *const schedules[] = {"interleaved", "zbv", "hanayo", "dualpipev"};
    for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++) {
        world w = world_open("gpt3-6.7b", "h200:1", 32);
        int64_t used, other;
        w.request.schedule = schedules[i];
        w.request.ranks = 4;
        w.request.dp = w.request.tp = 1;
        w.request.virtual_stages = 2;
        w.request.microbatch_size = 1;
        double attention = time_within(&w, "attention", 0, &used);
        for (int more = 0; more < 3; more++) {
            int64_t memory = used + used / 16 * more;
            attention = time_within(&w, "attention", memory, &other);
            double chosen = time_within(&w, NULL, memory, &other);
            cr_expect_leq(chosen, attention * (1 + 1e-9), "%s, %g GiB", schedules[i],
                          (double)memory / (1 << 30));
        }
        world_free(&w);
    }
}
