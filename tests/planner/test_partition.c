/* --split pipedream and bottleneck against the answers of PipeDream's own optimizer, on the
 * profiles that it came with. Needs the published data: the folder that PPSIM_TEST_DATA names, or
 * ../shared/data. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(partition);

static void data_path(char path[512], const char *name) {
    const char *named = getenv("PPSIM_TEST_DATA");
    snprintf(path, 512, "%s/%s", named ? named : "../shared/data", name);
}

static double number(const json_t *object, const char *key, double otherwise) {
    const json_t *value = json_object_get(object, key);
    return value ? json_number_value(value) : otherwise;
}

/* ---- partitions of chains ------------------------------------------------------------------ */

static double *costs_of(const json_t *profile, int *count) {
    const json_t *list = json_object_get(profile, "cost");
    *count = (int)json_array_size(list);
    double *costs = malloc((size_t)*count * sizeof *costs);
    for (int i = 0; i < *count; i++) {
        costs[i] = json_number_value(json_array_get(list, (size_t)i));
    }
    return costs;
}

static double between(const void *context, int stage, int first, int last) {
    const double *costs = context;
    double sum = 0;
    (void)stage;
    for (int i = first; i <= last; i++) sum += costs[i];
    return sum;
}

static void check_result(const char *name, const double *costs, int count, const json_t *result) {
    int stages = (int)number(result, "stages", 0), splits[16];
    const json_t *even = json_object_get(result, "deepspeed_parts");
    const json_t *blocks = json_object_get(result, "blockpartition_sizes");
    pp_arena arena;
    pp_arena_init(&arena);
    cr_assert(pp_split_blocks(costs, count, stages, &arena, splits));
    for (int s = 1, at = 0; s < stages; s++) {
        at += (int)json_integer_value(json_array_get(blocks, (size_t)s - 1));
        cr_expect_eq(splits[s - 1], at, "%s, blocks, %d stages: %d", name, stages, s);
    }
    cr_assert(pp_split_even(costs, count, stages, &arena, splits));
    for (int s = 1; s < stages && even; s++) {
        int expected = (int)json_integer_value(json_array_get(even, (size_t)s));
        cr_expect_eq(splits[s - 1], expected, "%s, even, %d stages: %d", name, stages, s);
    }
    double bottleneck;
    cr_assert_eq(pp_split_chain(count, stages, between, costs, splits, &bottleneck, NULL), PP_OK);
    cr_expect_float_eq(bottleneck, number(result, "exact_max", 0), 1e-6, "%s, %d", name, stages);
    pp_arena_deinit(&arena);
}

Test(partition, chains_are_parted_as_published, .timeout = 60) {
    char path[512];
    const char *name;
    json_t *profile, *result;
    size_t i;
    int count;
    data_path(path, "planner/chain_partition.json");
    json_t *document = json_load_file(path, 0, NULL);
    if (!document) cr_skip_test("no published partitions at %s (set PPSIM_TEST_DATA)", path);
    json_object_foreach(document, name, profile) {
        double *costs = costs_of(profile, &count);
        json_array_foreach(json_object_get(profile, "results"), i, result) {
            check_result(name, costs, count, result);
        }
        free(costs);
    }
    json_decref(document);
}
