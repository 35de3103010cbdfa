/* Models that branch: the programme over ideals against brute force over every down-closed set, and
 * what pp_plan_search makes of them. */
#include <criterion/criterion.h>
#include <math.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(graphs);

enum { LAYERS_MAX = 10, STAGES_MAX = 4, INSTANCES = 300, ALL = 1 << LAYERS_MAX };

/* A random graph of layers with times, bytes to hold and bytes to hand on. */
typedef struct graph {
    int layers, stages;
    unsigned reads[LAYERS_MAX]; /* masks of earlier layers */
    double time[LAYERS_MAX], bytes[LAYERS_MAX], width[LAYERS_MAX];
    double limit[STAGES_MAX];
    double step; /* what a stage costs more than the one before */
    bool borders;
    const pp_lattice *lattice; /* NULL: first and last are masks */
} graph;

typedef struct dice {
    pp_random_key key;
    uint64_t rolled;
} dice;

static int roll(dice *d, int below) {
    return (int)pp_random_below(d->key, d->rolled++, (uint64_t)below);
}

static graph random_graph(uint64_t seed) {
    dice d = {pp_random_key_make(seed, "graph", 0), 0};
    graph g = {.layers = 2 + roll(&d, LAYERS_MAX - 1)};
    g.stages = 1 + roll(&d, g.layers < STAGES_MAX ? g.layers : STAGES_MAX);
    g.borders = roll(&d, 2) == 1;
    g.step = 0.25;
    int density = 2 + roll(&d, 4);
    double held = 0;
    for (int i = 0; i < g.layers; i++) {
        for (int k = 0; k < i; k++) g.reads[i] |= (unsigned)(roll(&d, density) == 0) << k;
        g.time[i] = roll(&d, 10);
        g.bytes[i] = roll(&d, 10);
        g.width[i] = roll(&d, 12);
        held += g.bytes[i];
    }
    bool limited = roll(&d, 3) != 0;
    for (int s = 0; s < g.stages; s++) {
        g.limit[s] = limited ? held / g.stages * (0.5 + 0.1 * roll(&d, 20)) + 3 : INFINITY;
    }
    return g;
}

static bool is_ideal(const graph *g, unsigned set) {
    for (int i = 0; i < g->layers; i++) {
        if (set >> i & 1 && g->reads[i] & ~set) return false;
    }
    return true;
}

static double sum_over(const double *each, unsigned set) {
    double sum = 0;
    for (int i = 0; i < LAYERS_MAX; i++) sum += set >> i & 1 ? each[i] : 0;
    return sum;
}

/* Bytes of the distinct outputs that cross in front of what is not in the set. */
static double crossing(const graph *g, unsigned set) {
    double bytes = 0;
    for (int i = 0; i < g->layers; i++) {
        bool read = false;
        for (int k = 0; k < g->layers; k++) read |= !(set >> k & 1) && g->reads[k] >> i & 1;
        if (set >> i & 1 && read) bytes += g->width[i];
    }
    return bytes;
}

/* ---- the programme against brute force ----------------------------------------------------- */

/* What a stage holds: its layers, and what comes in, so that more layers may need less. */
static double stage_cost(const graph *g, int stage, unsigned before, unsigned with) {
    double bytes = sum_over(g->bytes, with & ~before) + 0.5 * crossing(g, before);
    if (bytes > g->limit[stage]) return INFINITY;
    return sum_over(g->time, with & ~before) + g->step * stage;
}

static double border_cost(const graph *g, int stage, unsigned set) {
    return g->borders ? crossing(g, set) + 0.5 * stage : 0;
}

static double brute(const graph *g, int stage, unsigned before) {
    unsigned all = (1u << g->layers) - 1;
    if (stage == g->stages - 1) return stage_cost(g, stage, before, all);
    double best = INFINITY;
    for (unsigned with = 0; with < all; with++) {
        if ((with & before) != before || with == before || !is_ideal(g, with)) continue;
        double here = fmax(stage_cost(g, stage, before, with), border_cost(g, stage, with));
        if (here < best) best = fmin(best, fmax(here, brute(g, stage + 1, with)));
    }
    return best;
}

static unsigned mask_of(const graph *g, int ideal) {
    unsigned mask = 0;
    for (int i = 0; i < g->layers; i++) {
        mask |= (unsigned)pp_lattice_has(g->lattice, ideal, i) << i;
    }
    return mask;
}

static double floor_of(const void *context, int stage, int first, int last) {
    const graph *g = context;
    return sum_over(g->time, mask_of(g, last + 1) & ~mask_of(g, first)) + g->step * stage;
}

static double exact_of(const void *context, int stage, int first, int last) {
    const graph *g = context;
    return stage_cost(g, stage, mask_of(g, first), mask_of(g, last + 1));
}

static double border_of(const void *context, int stage, int next) {
    const graph *g = context;
    return border_cost(g, stage, mask_of(g, next));
}

/* The same graph as a model; opaque layers of one tensor each. */
static void write_model(const graph *g, pp_text *text) {
    pp_text_string(text, "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"random\", "
                         "\"layers\": [");
    for (int i = 0; i < g->layers; i++) {
        pp_text_printf(text,
                       "%s{\"name\": \"l%d\", \"op\": \"opaque\", \"forward_s\": %g, \"input_s\": "
                       "0, \"weight_s\": 0, \"parameter_bytes\": %g, \"output_bytes\": %g, "
                       "\"activation_bytes\": 64}",
                       i ? ", " : "", i, g->time[i], 64 * g->bytes[i], 64 * g->width[i]);
    }
    pp_text_string(text, "], \"edges\": [");
    bool any = false;
    for (int i = 0; i < g->layers; i++) {
        for (int k = 0; k < i; k++) {
            if (!(g->reads[i] >> k & 1)) continue;
            pp_text_printf(text, "%s[%d, %d]", any ? ", " : "", k, i);
            any = true;
        }
    }
    pp_text_string(text, "]}");
}

static pp_model *model_of(const graph *g) {
    pp_text text = {0};
    pp_model *model;
    pp_error error = {0};
    write_model(g, &text);
    cr_assert_eq(pp_model_read(text.bytes, text.length, "graph", &model, &error), PP_OK, "%s: %s",
                 error.place, error.message);
    pp_text_deinit(&text);
    return model;
}

static int count_ideals(const graph *g) {
    int count = 0;
    for (unsigned set = 0; set < 1u << g->layers; set++) count += is_ideal(g, set);
    return count;
}

/* The splits handed back: a topological order, and stages that cost no more than was said. */
static void check_splits(const graph *g, const int *splits, double largest, uint64_t seed) {
    int order[LAYERS_MAX], positions[STAGES_MAX];
    unsigned before = 0;
    pp_lattice_order(g->lattice, splits, g->stages, order, positions);
    for (int s = 0, at = 0; s < g->stages; s++) {
        unsigned with = before;
        for (int end = s == g->stages - 1 ? g->layers : positions[s]; at < end; at++) {
            cr_assert_eq(g->reads[order[at]] & ~with, 0, "seed %d: not topological", (int)seed);
            with |= 1u << order[at];
        }
        double cost = stage_cost(g, s, before, with);
        if (s < g->stages - 1) cost = fmax(cost, border_cost(g, s, with));
        cr_assert_leq(cost, largest + 1e-9, "seed %d, stage %d", (int)seed, s);
        before = with;
    }
    cr_assert_eq(before, (1u << g->layers) - 1);
}

static int polls_left;

static bool stop_soon(const void *context) {
    (void)context;
    return polls_left-- <= 0;
}

/* Given up after each number of looks at the clock, until it is through: then with the same answer.
 */
static void check_giving_up(pp_chain_problem problem, pp_arena *arena, pp_status wanted,
                            double largest) {
    problem.stop = stop_soon;
    pp_status status = PP_E_INTERRUPTED;
    for (int polls = 0; status == PP_E_INTERRUPTED; polls = 2 * polls + 1) {
        int splits[STAGES_MAX];
        double other = -1;
        pp_error error = {0};
        polls_left = polls;
        status = pp_chain_cut(&problem, arena, splits, &other, &error);
        if (polls == 0) cr_assert_eq(status, PP_E_INTERRUPTED);
        if (status == PP_E_INTERRUPTED) cr_assert_not_null(strstr(error.message, "interrupted"));
        if (status == PP_OK) cr_assert_eq(other, largest);
    }
    cr_assert_eq(status, wanted);
}

static void check_instance(uint64_t seed) {
    graph g = random_graph(seed);
    pp_arena arena;
    pp_arena_init(&arena);
    pp_model *model = model_of(&g);
    pp_lattice lattice;
    cr_assert_eq(pp_lattice_make(model, PP_CUTS_ALL, ALL, &arena, &lattice, NULL), PP_OK);
    cr_assert_eq(lattice.count, count_ideals(&g), "seed %d", (int)seed);
    g.lattice = &lattice;
    double weights[ALL];
    for (int i = 0; i < lattice.count; i++) weights[i] = sum_over(g.time, mask_of(&g, i));
    pp_chain_problem problem = {.stages = g.stages,
                                .floor = floor_of,
                                .exact = exact_of,
                                .border = g.borders ? border_of : NULL,
                                .context = &g,
                                .lattice = &lattice,
                                .weight = weights,
                                .per_weight = 1};
    int splits[STAGES_MAX];
    double largest = 0, expected = brute(&g, 0, 0);
    pp_status status = pp_chain_cut(&problem, &arena, splits, &largest, NULL);
    cr_assert_eq(status, expected < INFINITY ? PP_OK : PP_E_NO_FIT, "seed %d", (int)seed);
    if (status == PP_OK) {
        cr_assert_float_eq(largest, expected, 1e-9, "seed %d: %g, best is %g", (int)seed, largest,
                           expected);
        check_splits(&g, splits, largest, seed);
    }
    check_giving_up(problem, &arena, status, largest);
    pp_model_free(model);
    pp_arena_deinit(&arena);
}

Test(graphs, cuts_are_the_best_of_all_orders, .timeout = 120) {
    for (uint64_t seed = 0; seed < INSTANCES; seed++) check_instance(seed);
}

/* ---- families ------------------------------------------------------------------------------ */

/* With too little room for all ideals there are fewer, and each is one. */
Test(graphs, families_hold_ideals_only) {
    for (uint64_t seed = 0; seed < 60; seed++) {
        graph g = random_graph(seed);
        pp_model *model = model_of(&g);
        pp_arena arena;
        pp_arena_init(&arena);
        for (int widest = PP_CUTS_ALL; widest <= PP_CUTS_ORDERS; widest++) {
            pp_lattice lattice;
            cr_assert_eq(pp_lattice_make(model, (pp_lattice_family)widest, widest == 0 ? 3 : ALL,
                                         &arena, &lattice, NULL),
                         PP_OK);
            g.lattice = &lattice;
            cr_assert_eq(mask_of(&g, 0), 0);
            cr_assert_eq(mask_of(&g, lattice.count - 1), (1u << g.layers) - 1);
            cr_assert_leq(lattice.count, count_ideals(&g));
            for (int i = 0; i < lattice.count; i++) {
                cr_assert(is_ideal(&g, mask_of(&g, i)), "seed %d", (int)seed);
            }
        }
        pp_model_free(model);
        pp_arena_deinit(&arena);
    }
}

/* ---- plans --------------------------------------------------------------------------------- */

static const char free_links[] =
    "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"box\", \"devices\": [{\"name\": "
    "\"d\", \"memory_bytes\": 1073741824, \"flops\": {\"fp32\": 1e12}, "
    "\"memory_bandwidth_bytes_per_s\": 1e12}], \"nodes\": [{\"device\": \"d\", \"count\": 4, "
    "\"repeat\": 1}], \"intra\": {\"bandwidth_bytes_per_s\": 640, \"latency_s\": 0.1}, \"inter\": "
    "{\"bandwidth_bytes_per_s\": null, \"latency_s\": 0}}";

static world world_of(const graph *g) {
    pp_text text = {0};
    write_model(g, &text);
    world w = world_read(text.bytes, free_links, 6);
    pp_text_deinit(&text);
    w.request.ranks = g->stages;
    w.request.microbatch_size = 1;
    w.request.dp = 1;
    w.request.schedule = "1f1b";
    w.request.recompute = "none";
    return w;
}

static pp_plan_result *plan_by(world *w, const char *split) {
    pp_plan_result *result;
    pp_error error = {0};
    w->request.split = split;
    cr_assert_eq(pp_plan_search(&w->request, &result, &error), PP_OK, "%s", error.message);
    return result;
}

/* A plan whose order is not the file's is read back as it was written. */
static void check_document(const pp_plan *plan) {
    pp_text written = plan_text(plan);
    pp_plan *read;
    pp_error error = {0};
    cr_assert_eq(pp_plan_read(written.bytes, written.length, "plan", &read, &error), PP_OK, "%s %s",
                 error.place, error.message);
    pp_schedule *schedule;
    pp_sim_result *result;
    cr_assert_eq(pp_simulate_plan(read, false, &schedule, &result, &error), PP_OK);
    cr_assert_eq(result->makespan_s, plan->predicted.iteration_time_s);
    for (int p = 0; p < plan->ranks; p++) {
        cr_assert_eq(result->rank[p].peak.total, plan->predicted.rank[p].peak_bytes);
    }
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    pp_plan_free(read);
    pp_text_deinit(&written);
}

static bool is_files_order(const pp_plan *plan) {
    for (int i = 0; i < plan->model->layer_count; i++) {
        if (plan->order[i] != i) return false;
    }
    return true;
}

Test(graphs, plans_of_graphs, .timeout = 120) {
    static const char *const baselines[] = {"bottleneck", "uniform",   "time",       "memory",
                                            "parameters", "pipedream", "type:l[0-4]"};
    int reordered = 0;
    for (uint64_t seed = 1000; seed < 1060; seed++) {
        graph g = random_graph(seed);
        for (int s = 0; s < g.stages; s++) g.limit[s] = INFINITY;
        g.borders = false;
        g.step = 0;
        world w = world_of(&g);
        pp_plan_result *best = plan_by(&w, NULL);
        check_document(best->best);
        reordered += !is_files_order(best->best);
        cr_expect_leq(best->lower_bound_s, best->best->predicted.iteration_time_s * (1 + 1e-12));
        w.request.limit_s = 1e-9; /* the first plan, and what is known of the others */
        pp_plan_result *hurried = plan_by(&w, NULL);
        w.request.limit_s = 0;
        check_document(hurried->best);
        cr_expect_geq(hurried->best->predicted.iteration_time_s * (1 + 1e-12),
                      best->best->predicted.iteration_time_s);
        cr_expect_leq(hurried->lower_bound_s, best->best->predicted.iteration_time_s * (1 + 1e-12));
        pp_plan_result_free(hurried);
        for (size_t b = 0; b < sizeof baselines / sizeof *baselines; b++) {
            if (b == 6 && g.layers < 5) continue;
            pp_plan_result *other = plan_by(&w, baselines[b]);
            check_document(other->best);
            cr_expect_geq(other->best->predicted.iteration_time_s * (1 + 1e-9),
                          best->best->predicted.iteration_time_s, "seed %d: %s wins", (int)seed,
                          baselines[b]);
            if (b == 0) cr_expect_float_eq(other->split.bottleneck_s, brute(&g, 0, 0), 1e-9);
            pp_plan_result_free(other);
        }
        pp_plan_result_free(best);
        world_free(&w);
    }
    cr_expect_gt(reordered, 5, "hardly a plan needed another order than the file's");
}
