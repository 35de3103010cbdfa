/* Bounds of candidates with several stages on a rank, against splits that are simulated: none of
 * those that fit may be faster than a bound, hold more than a capacity, or be shorter than a path.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "planner/game_internal.h"
#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(game);

#define LITTLE 1e-12 /* seconds */
enum { WORLDS = 150, SPLITS = 60 };

/* Everything that the search has in hand when it works on candidates. */
typedef struct bench {
    pp_tables tables;
    pp_footprints footprints;
    pp_split_method method;
    pp_space space;
    pp_views views;
    pp_work work;
    pp_arena arena;
} bench;

static void open_bench(bench *b, const world *w) {
    *b = (bench){0};
    pp_arena_init(&b->arena);
    cr_assert_eq(pp_split_method_read(NULL, w->model, &b->arena, &b->method, NULL), PP_OK);
    cr_assert_eq(pp_tables_init(&b->tables, &w->request, NULL), PP_OK);
    cr_assert_eq(pp_footprints_init(&b->footprints, &b->tables, NULL), PP_OK);
    cr_assert_eq(pp_space_init(&b->space, &b->tables, &b->method, NULL), PP_OK);
    cr_assert_eq(pp_views_init(&b->views, &b->tables, &b->footprints, PP_CUTS_ALL, 1, NULL), PP_OK);
    pp_work_init(&b->work, &b->views, &b->method);
    b->work.share = 1;
}

static void close_bench(bench *b) {
    pp_work_deinit(&b->work);
    pp_views_deinit(&b->views);
    pp_space_deinit(&b->space);
    pp_footprints_deinit(&b->footprints);
    pp_tables_deinit(&b->tables);
    pp_arena_deinit(&b->arena);
}

/* `count` of `of` positions, each set equally likely. */
static void random_splits(pp_random_key key, uint64_t *counter, int count, int of, int *splits) {
    for (int at = 1, left = count; left > 0; at++) {
        double chance = (double)left / (of - at + 1);
        if (pp_random_unit(key, (*counter)++) < chance) splits[count - left--] = at;
    }
}

/* Step time of work->trial; INFINITY: it does not fit. */
static double time_trial(pp_work *work) {
    work->best_s = INFINITY;
    pp_view *view = work->view; /* of one order: trying does not leave it */
    cr_assert_eq(pp_work_try(work, NULL), PP_OK);
    cr_assert_eq(work->view, view);
    return work->best_s;
}

static void expect_path(const pp_work *work, pp_paths *paths, pp_row *row, double seconds,
                        uint64_t seed) {
    pp_mix mix[64] = {0};
    pp_mix_add(&work->terms, work->trial, 1, mix);
    double length = pp_paths_longest(paths, mix, row);
    cr_expect_leq(length, seconds * (1 + 1e-9), "seed %d, %s: a path is longer than the step",
                  (int)seed, work->candidate->family->name);
    double sum = row->fixed_s;
    for (int s = 0; s < work->terms.copies; s++) {
        const pp_row_stage *r = &row->stages[s];
        sum += r->forward * mix[s].forward_s + r->recompute * mix[s].recompute_s +
               r->input * mix[s].input_s + r->weight * mix[s].weight_s +
               r->update * mix[s].update_s + r->border_byte_s * mix[s].border_bytes;
    }
    cr_expect_float_eq(sum, length, 1e-9 * length, "seed %d: the row is not its path", (int)seed);
}

static void expect_capacity(const pp_work *work, const pp_capacity *c, uint64_t seed) {
    const pp_terms *terms = &work->terms;
    int held[64] = {0};
    cr_expect(c->fits, "seed %d: something fits", (int)seed);
    for (int s = 0; s < terms->stages; s++) {
        int first, last;
        pp_work_interval(work, work->trial, s, &first, &last);
        int members = c->members[last + 1] - c->members[first];
        for (int copy = s; copy < terms->copies; copy += terms->stages)
            held[terms->placement[copy]] += members;
        cr_expect_leq(members, c->held_by_stage[s], "seed %d: stage %d", (int)seed, s);
        cr_expect_geq(members, c->least[s], "seed %d: stage %d", (int)seed, s);
    }
    for (int p = 0; p < terms->ranks; p++) {
        cr_expect_leq(held[p], c->held[p], "seed %d: rank %d", (int)seed, p);
    }
}

/* What the trial's ranks recompute is no less than is said of any with as many members. Returns the
 * seconds that were said. */
static double expect_again(pp_work *work, pp_capacity *c, uint64_t seed) {
    const pp_terms *terms = &work->terms;
    int members[64] = {0}, held[64] = {0};
    double repeated[64] = {0}, least[64] = {0}, all = 0;
    for (int copy = 0; copy < terms->copies; copy++) {
        int first, last, s = copy % terms->stages, rank = terms->placement[copy];
        pp_work_interval(work, work->trial, s, &first, &last);
        members[copy] = c->members[last + 1] - c->members[first];
        held[rank] += members[copy];
        repeated[rank] += terms->visits[copy / terms->stages] *
                          pp_terms_inside_s(terms, terms->policies[s], s, first, last);
    }
    for (int p = 0; p < terms->ranks && c->lean != NULL; p++) {
        if (repeated[p] == 0 && work->candidate->recompute == PP_RECOMPUTE_MIXED)
            cr_expect_leq(held[p], c->kept[p], "seed %d: rank %d", (int)seed, p);
    }
    for (int p = 0; p < terms->ranks && c->priced != NULL; p++) {
        size_t most = (size_t)c->priced_most, n = (size_t)held[p] < most ? (size_t)held[p] : most;
        double priced = c->priced[(size_t)p * (most + 1) + n];
        cr_expect_leq(priced, repeated[p] * (1 + 1e-9) + LITTLE, "seed %d: rank %d", (int)seed, p);
        all += priced;
    }
    cr_assert_eq(pp_capacity_again(work, held, held, c, NULL), PP_OK);
    if (c->again_s == NULL) return all;
    for (int copy = 0; copy < terms->copies; copy++) {
        least[terms->placement[copy]] +=
            c->again_s[(size_t)copy * ((size_t)c->total + 1) + (size_t)members[copy]];
    }
    for (int p = 0; p < terms->ranks; p++) {
        cr_expect_leq(least[p], repeated[p] * (1 + 1e-9), "seed %d: rank %d", (int)seed, p);
        all += least[p];
    }
    return all;
}

/* The bound holds for every split tried, whatever limit it was asked for. Returns the seconds that
 * the splits were said to recompute. */
static double check_candidate(bench *b, const pp_candidate *c, pp_random_key key, uint64_t *counter,
                              uint64_t seed) {
    pp_work *work = &b->work;
    double seconds[SPLITS], bound, least_time, least = INFINITY, again_s = 0;
    pp_capacity capacity;
    pp_paths paths;
    cr_assert_eq(pp_work_start(work, c, NULL), PP_OK);
    cr_assert_eq(pp_capacity_find(work, &capacity, NULL), PP_OK);
    cr_assert_eq(pp_capacity_hold(work, &capacity, NULL), PP_OK);
    cr_assert_eq(pp_capacity_least_time(&work->terms, LITTLE, &work->arena, &least_time, NULL),
                 PP_OK);
    cr_assert_eq(pp_paths_init(&paths, &work->terms, work->order, &work->arena, NULL), PP_OK);
    pp_row row = {.stages = PP_NEW(&work->arena, pp_row_stage, work->terms.copies)};
    for (int i = 0; i < SPLITS; i++) {
        random_splits(key, counter, work->terms.stages - 1, b->tables.layers - 1, work->trial);
        seconds[i] = time_trial(work);
        if (seconds[i] == INFINITY) continue;
        least = fmin(least, seconds[i]);
        expect_path(work, &paths, &row, seconds[i], seed);
        expect_capacity(work, &capacity, seed);
        again_s += expect_again(work, &capacity, seed);
        cr_expect_leq(least_time, seconds[i] * (1 + 1e-9), "seed %d", (int)seed);
        cr_expect(pp_capacity_limit(work, seconds[i] * 1.000001, &capacity), "seed %d", (int)seed);
    }
    if (least < INFINITY) {
        double shortest = pp_capacity_shortest(work, 0, least * 1.000001, &capacity);
        cr_expect_leq(shortest, least * (1 + 1e-9), "seed %d", (int)seed);
    }
    for (int i = 0; i < 6; i++) {
        double limit = i % 3 == 0 ? seconds[0] : i % 3 == 1 ? least * 1.000001 : least * 2;
        if (limit == INFINITY) continue;
        cr_assert_eq(pp_game_bound(work, &capacity, limit, i < 3, &bound, NULL), PP_OK);
        cr_expect_leq(bound, limit);
        cr_expect_leq(bound, fmax(least, 0) * (1 + 1e-9), "seed %d, %s K=%d M=%d limit %g: %.12g",
                      (int)seed, c->family->name, c->ranks, c->microbatches, limit, least);
    }
    return again_s;
}

Test(game, bounds_hold_for_every_split, .timeout = 200) {
    int checked = 0;
    for (uint64_t seed = 0; seed < WORLDS; seed++) {
        world w = world_random(seed + 1000, (world_size){12, 5, 8, .memory = seed % 3 != 0});
        pp_random_key key = pp_random_key_make(seed, "game", 0);
        uint64_t counter = 0;
        bench b;
        open_bench(&b, &w);
        for (int i = 0; i < 4; i++) {
            size_t which = (size_t)(pp_random_unit(key, counter++) * (double)b.space.count);
            const pp_candidate *c = &b.space.candidates[which];
            check_candidate(&b, c, key, &counter, seed);
            checked += pp_candidate_each(c) > 1;
        }
        close_bench(&b);
        world_free(&w);
    }
    cr_expect_geq(checked, WORLDS / 2);
}

/* Several stages on a rank that has not the memory for all that they would keep. */
Test(game, bounds_hold_where_ranks_recompute, .timeout = 200) {
    static const char *const schedules[] = {"interleaved", "zbv", "hanayo", "dualpipev", "zb-h1"};
    enum { SCHEDULES = sizeof schedules / sizeof *schedules, MEMORIES = 12 };
    int repeating[2] = {0}; /* by deep */
    for (uint64_t seed = 0; seed < (uint64_t)SCHEDULES * MEMORIES; seed++) {
        world w = world_open("gpt2-124m", "h200:1", 16);
        const char *schedule = schedules[seed % SCHEDULES];
        bool deep = seed % 4 > 1 && pp_schedule_family_find(schedule)->virtual_step == 1;
        w.request.schedule = schedule;
        w.request.ranks = seed % 2 ? 2 : 4;
        w.request.virtual_stages = deep ? 3 : 2;
        w.request.dp = seed % 3 ? 1 : 2;
        w.request.tp = 1;
        w.request.zero = seed % 3 == 0 && seed % 2;
        w.request.microbatch_size = 1;
        w.request.memory_bytes = (int64_t)(1.5e9 + 0.25e9 * (double)(seed / SCHEDULES));
        pp_random_key key = pp_random_key_make(seed, "memory", 0);
        uint64_t counter = 0;
        bench b;
        open_bench(&b, &w);
        for (size_t i = 0; i < b.space.count; i++) {
            repeating[deep] += check_candidate(&b, &b.space.candidates[i], key, &counter, seed) > 0;
        }
        close_bench(&b);
        world_free(&w);
    }
    cr_expect_geq(repeating[false], 10);
    cr_expect_geq(repeating[true], 5);
}
