/* The dynamic programme against brute force over every split: with and without memory limits that
 * differ by stage, with borders, and with costs that only keep to a floor. */
#include <criterion/criterion.h>
#include <math.h>

#include "planner/planner_internal.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(split);

enum { ITEMS_MAX = 11, STAGES_MAX = 6, INSTANCES = 400 };

/* A random chain: times and bytes of items, memory of stages, bytes of borders. */
typedef struct chain {
    int items, stages;
    double time[ITEMS_MAX], bytes[ITEMS_MAX], width[ITEMS_MAX + 1];
    double limit[STAGES_MAX];
    bool borders, swallow; /* swallow: a border's bytes count, so memory may fall with growth */
} chain;

static chain random_chain(uint64_t seed) {
    pp_random_key key = pp_random_key_make(seed, "chain", 0);
    uint64_t n = 0;
    chain c = {.items = 1 + (int)pp_random_below(key, n++, ITEMS_MAX)};
    int most = c.items < STAGES_MAX ? c.items : STAGES_MAX;
    c.stages = 1 + (int)pp_random_below(key, n++, (uint64_t)most);
    c.borders = pp_random_below(key, n++, 2) == 1;
    c.swallow = pp_random_below(key, n++, 2) == 1;
    double bytes = 0;
    for (int i = 0; i < c.items; i++) {
        c.time[i] = (double)pp_random_below(key, n++, 10); /* zeros and ties are wanted */
        c.bytes[i] = (double)pp_random_below(key, n++, 10);
        c.width[i] = (double)pp_random_below(key, n++, 12);
        bytes += c.bytes[i];
    }
    bool limited = pp_random_below(key, n++, 4) != 0;
    for (int s = 0; s < c.stages; s++) {
        double share = 0.5 + 2 * pp_random_unit(key, n++);
        c.limit[s] = limited ? share * bytes / c.stages + 4 : INFINITY;
    }
    return c;
}

static double time_of(const void *context, int stage, int first, int last) {
    const chain *c = context;
    double time = 0;
    for (int i = first; i <= last; i++) time += c->time[i];
    return time + 0.25 * stage;
}

/* Time where the bytes of the interval fit; monotone, as pp_split_chain demands. */
static double limited_time(const void *context, int stage, int first, int last) {
    const chain *c = context;
    double bytes = 0;
    for (int i = first; i <= last; i++) bytes += c->bytes[i];
    return bytes <= c->limit[stage] ? time_of(context, stage, first, last) : INFINITY;
}

/* The same with the border in front counted, which growth may shed. */
static double swallowing_time(const void *context, int stage, int first, int last) {
    const chain *c = context;
    double bytes = first > 0 ? c->width[first] : 0;
    for (int i = first; i <= last; i++) bytes += c->bytes[i];
    return bytes <= c->limit[stage] ? time_of(context, stage, first, last) : INFINITY;
}

static double border_of(const void *context, int stage, int next) {
    const chain *c = context;
    return c->width[next] + 0.5 * stage;
}

/* Least largest cost over every way to cut items first … into stages stage …. */
static double brute(const pp_chain_problem *p, pp_interval_cost *cost, int stage, int first) {
    if (stage == p->stages - 1) return cost(p->context, stage, first, p->items - 1);
    double best = INFINITY;
    for (int next = first + 1; next <= p->items - (p->stages - 1 - stage); next++) {
        double here = cost(p->context, stage, first, next - 1);
        if (p->border != NULL) here = fmax(here, p->border(p->context, stage, next));
        best = fmin(best, fmax(here, brute(p, cost, stage + 1, next)));
    }
    return best;
}

/* What the splits that were handed back really cost. */
static double recount(const pp_chain_problem *p, pp_interval_cost *cost, const int *splits) {
    double largest = 0;
    for (int s = 0; s < p->stages; s++) {
        int first = s == 0 ? 0 : splits[s - 1];
        int last = s == p->stages - 1 ? p->items - 1 : splits[s] - 1;
        cr_assert_leq(first, last, "an empty stage");
        largest = fmax(largest, cost(p->context, s, first, last));
        if (p->border != NULL && s < p->stages - 1) {
            largest = fmax(largest, p->border(p->context, s, last + 1));
        }
    }
    return largest;
}

static void check_against_brute(const pp_chain_problem *problem, uint64_t seed) {
    pp_interval_cost *cost = problem->exact != NULL ? problem->exact : problem->floor;
    double expected = brute(problem, cost, 0, 0), largest = -1;
    int splits[STAGES_MAX] = {0};
    pp_arena arena;
    pp_arena_init(&arena);
    pp_status status = pp_chain_cut(problem, &arena, splits, &largest, NULL);
    pp_arena_deinit(&arena);
    cr_assert_eq(status, expected == INFINITY ? PP_E_NO_FIT : PP_OK, "seed %d", (int)seed);
    if (status != PP_OK) return;
    cr_assert_eq(largest, expected, "seed %d: %g, brute force %g", (int)seed, largest, expected);
    cr_assert_eq(recount(problem, cost, splits), expected, "seed %d: the splits cost %g", (int)seed,
                 recount(problem, cost, splits));
}

Test(split, equals_brute_force_under_memory_limits) {
    for (uint64_t seed = 0; seed < INSTANCES; seed++) {
        chain c = random_chain(seed);
        pp_chain_problem problem = {.items = c.items,
                                    .stages = c.stages,
                                    .floor = limited_time,
                                    .border = c.borders ? border_of : NULL,
                                    .context = &c};
        check_against_brute(&problem, seed);
    }
}

Test(split, equals_brute_force_where_growth_may_shed_bytes) {
    for (uint64_t seed = INSTANCES; seed < 2 * INSTANCES; seed++) {
        chain c = random_chain(seed);
        pp_chain_problem problem = {.items = c.items,
                                    .stages = c.stages,
                                    .floor = time_of,
                                    .exact = swallowing_time,
                                    .border = c.borders ? border_of : NULL,
                                    .context = &c};
        check_against_brute(&problem, seed);
    }
}

Test(split, public_call_agrees_and_refuses) {
    chain c = {.items = 4, .stages = 2, .time = {1, 1, 1, 6}, .bytes = {1, 1, 1, 1}};
    c.limit[0] = c.limit[1] = INFINITY;
    int splits[STAGES_MAX];
    double bottleneck;
    pp_error error = {0};
    cr_assert_eq(pp_split_chain(4, 2, limited_time, &c, splits, &bottleneck, &error), PP_OK);
    cr_expect_eq(splits[0], 3);
    cr_expect_eq(bottleneck, 6.25);
    c.limit[0] = 1; /* the first rank holds one layer, so the second has to take the other three */
    cr_assert_eq(pp_split_chain(4, 2, limited_time, &c, splits, &bottleneck, &error), PP_OK);
    cr_expect_eq(splits[0], 1);
    cr_expect_eq(bottleneck, 8.25);
    c.limit[1] = 2;
    cr_expect_eq(pp_split_chain(4, 2, limited_time, &c, splits, &bottleneck, &error), PP_E_NO_FIT);
    cr_expect_eq(pp_split_chain(4, 5, limited_time, &c, splits, &bottleneck, &error), PP_E_INPUT);
    cr_expect_not_null(strstr(error.message, "5 stages"));
}

typedef struct counted {
    long calls;
} counted;

static double counted_cost(const void *context, int stage, int first, int last) {
    (void)stage;
    ((counted *)(uintptr_t)context)->calls++;
    return (double)(last - first + 1) + (first % 7 == 0 ? 0.5 : 0);
}

/* 1000 layers × 64 stages: the number of calls is what keeps it fast, so that is what is checked.
 */
Test(split, calls_grow_as_promised) {
    counted count = {0};
    int splits[63];
    double bottleneck;
    cr_assert_eq(pp_split_chain(1000, 64, counted_cost, &count, splits, &bottleneck, NULL), PP_OK);
    cr_expect_eq(bottleneck, 16.0 + (bottleneck > 16 ? 0.5 : 0));
    cr_expect_lt(count.calls, 64L * 1000 * 11);
}
