/* Bytes of intervals that are remembered by kind against layouts made afresh, on models with equal
 * blocks, ties and skip edges; and the small map that remembers them. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(footprint);

static pp_stage_bytes fresh(const world *w, int first, int last, pp_footprint_mode mode) {
    pp_arena arena;
    pp_arena_init(&arena);
    pp_layout_request ask = {.model = w->model,
                             .first = first,
                             .last = last,
                             .samples = mode.samples,
                             .dtype = w->request.dtype,
                             .optimizer = w->request.optimizer,
                             .split_backward = mode.split_backward,
                             .recompute = mode.recompute,
                             .dp = mode.dp,
                             .tp = mode.tp};
    pp_stage_layout layout;
    cr_assert_eq(pp_stage_layout_make(&ask, &arena, &layout, NULL), PP_OK);
    pp_arena_deinit(&arena);
    int64_t elements = layout.bytes.parameters / pp_dtype_bytes(w->request.dtype);
    if (elements > 0 && mode.shards > 1) { /* whole blocks of 64 */
        int64_t blocks = ((elements + mode.shards - 1) / mode.shards + 63) / 64;
        int64_t share = 64 * blocks < elements ? 64 * blocks : elements;
        layout.bytes.optimizer = layout.bytes.optimizer / elements * share;
    }
    return layout.bytes;
}

/* Every interval, twice, so that the second answer comes from memory. */
static void check_intervals(const world *w, const char *what) {
    static const pp_footprint_mode modes[] = {
        {.samples = 1, .dp = 1, .tp = 1, .shards = 1},
        {.samples = 3, .dp = 2, .tp = 1, .shards = 1, .split_backward = true},
        {.samples = 3, .dp = 2, .tp = 1, .shards = 2, .recompute = true}};
    pp_tables tables;
    pp_footprints footprints;
    cr_assert_eq(pp_tables_init(&tables, &w->request, NULL), PP_OK);
    cr_assert_eq(pp_footprints_init(&footprints, &tables, NULL), PP_OK);
    int layers = w->model->layer_count;
    for (size_t k = 0; k < 2 * sizeof modes / sizeof *modes; k++) {
        pp_footprint_mode mode = modes[k / 2];
        for (int first = 0; first < layers; first++) {
            for (int last = first; last < layers; last++) {
                const pp_stage_bytes *bytes = pp_footprint(&footprints, first, last, mode);
                pp_stage_bytes expected = fresh(w, first, last, mode);
                cr_assert_not_null(bytes);
                cr_expect_eq(memcmp(bytes, &expected, sizeof expected), 0,
                             "%s: layers %d to %d, mode %d", what, first, last, (int)k / 2);
            }
        }
    }
    pp_footprints_deinit(&footprints);
    pp_tables_deinit(&tables);
}

Test(footprint, remembered_bytes_are_layouts) {
    char what[32];
    for (uint64_t seed = 0; seed < 40; seed++) {
        world w = world_random(seed, (world_size){9, 2, 4, .memory = false});
        snprintf(what, sizeof what, "seed %d", (int)seed);
        check_intervals(&w, what);
        world_free(&w);
    }
    world w = world_open("gpt-nano", "dgx-h100:1", 4); /* equal blocks, embedding tied to head */
    check_intervals(&w, "gpt-nano");
    world_free(&w);
}

/* Equal blocks make few kinds: the number of layouts grows with the layers, not their square. */
Test(footprint, equal_blocks_share_layouts) {
    world w = world_open("gpt2-1.5b", "dgx-h100:1", 4);
    pp_tables tables;
    pp_footprints footprints;
    cr_assert_eq(pp_tables_init(&tables, &w.request, NULL), PP_OK);
    cr_assert_eq(pp_footprints_init(&footprints, &tables, NULL), PP_OK);
    pp_footprint_mode mode = {.samples = 1, .dp = 1, .tp = 1, .shards = 1};
    int layers = w.model->layer_count;
    for (int first = 0; first < layers; first++) {
        for (int length = 1; length <= 10 && first + length <= layers; length++) {
            pp_footprint(&footprints, first, first + length - 1, mode);
        }
    }
    cr_expect_leq(footprints.layouts.count, 3 * 10, "%d layouts", (int)footprints.layouts.count);
    pp_footprints_deinit(&footprints);
    pp_tables_deinit(&tables);
    world_free(&w);
}

Test(footprint, memo_equals_an_array) {
    enum { KEYS = 500, STEPS = 20000 };
    int64_t values[KEYS + 1] = {0};
    bool known[KEYS + 1] = {false};
    pp_memo memo = {0};
    pp_random_key key = pp_random_key_make(7, "memo", 0);
    for (uint64_t step = 0; step < STEPS; step++) {
        uint64_t k = 1 + pp_random_below(key, 3 * step, KEYS);
        int64_t value = (int64_t)pp_random_below(key, 3 * step + 1, 1000), found = -1;
        cr_assert_eq(pp_memo_find(&memo, k << 40, &found), known[k]);
        if (known[k]) cr_assert_eq(found, values[k]);
        if (pp_random_below(key, 3 * step + 2, 3) == 0) {
            cr_assert(pp_memo_put(&memo, k << 40, value));
            values[k] = value;
            known[k] = true;
        }
        if (step % 5000 == 4999) {
            pp_memo_clear(&memo);
            memset(known, 0, sizeof known);
        }
    }
    pp_memo_deinit(&memo);
}
