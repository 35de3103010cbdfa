/* The counting allocator of a rank. */
#include "executor/backends_internal.h"
#include "executor/heap_internal.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>

COUNTED_SUITE(heap);

Test(heap, counts_what_is_in_use) {
    pp_heap heap;
    pp_heap_init(&heap, &pp_backend_cpu, NULL, false);
    void *a, *b, *c;
    cr_assert_eq(pp_heap_take(&heap, 1000, &a, NULL), PP_OK);
    cr_assert_eq(pp_heap_take(&heap, 24, &b, NULL), PP_OK);
    cr_assert_eq(heap.in_use_bytes, 1024);
    pp_heap_give(&heap, a, 1000);
    cr_assert_eq(heap.in_use_bytes, 24);
    cr_assert_eq(pp_heap_take(&heap, 1000, &c, NULL), PP_OK);
    cr_assert_eq(c, a, "a block of the same size is used again");
    cr_assert_eq(heap.peak_bytes, 1024);
    pp_heap_deinit(&heap);
}

Test(heap, blocks_are_aligned_and_apart) {
    pp_heap heap;
    pp_heap_init(&heap, &pp_backend_cpu, NULL, false);
    enum { BLOCKS = 200 };
    unsigned char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        void *block;
        cr_assert_eq(pp_heap_take(&heap, 1 + i % 70, &block, NULL), PP_OK);
        cr_assert_eq((uintptr_t)block % 64, 0);
        blocks[i] = block;
        memset(blocks[i], i, (size_t)(1 + i % 70));
    }
    for (int i = 0; i < BLOCKS; i++)
        for (int k = 0; k < 1 + i % 70; k++) cr_assert_eq(blocks[i][k], (unsigned char)i);
    pp_heap_deinit(&heap);
}

Test(heap, nothing_is_a_block_too) {
    pp_heap heap;
    pp_heap_init(&heap, &pp_backend_cpu, NULL, true);
    void *block = &heap;
    cr_assert_eq(pp_heap_take(&heap, 0, &block, NULL), PP_OK);
    cr_assert_null(block);
    pp_heap_give(&heap, block, 0);
    cr_assert_eq(heap.peak_bytes, 0);
    pp_heap_deinit(&heap);
}

Test(heap, poison_reads_as_nan) {
    pp_heap heap;
    pp_heap_init(&heap, &pp_backend_cpu, NULL, true);
    void *block;
    cr_assert_eq(pp_heap_take(&heap, 64, &block, NULL), PP_OK);
    float *floats = block;
    cr_assert(isnan(floats[0]) && isnan(floats[15]), "a fresh block has no value");
    for (int i = 0; i < 16; i++) floats[i] = 1;
    pp_heap_give(&heap, block, 64);
    double *doubles = block;
    cr_assert(isnan(floats[0]) && isnan(floats[15]) && isnan(doubles[7]));
    pp_heap_deinit(&heap);
}

Test(heap, counts_without_memory) {
    pp_heap heap;
    pp_heap_init(&heap, NULL, NULL, true);
    void *block;
    cr_assert_eq(pp_heap_take(&heap, INT64_C(1) << 50, &block, NULL), PP_OK);
    cr_assert_null(block);
    pp_heap_give(&heap, block, INT64_C(1) << 50);
    cr_assert_eq(heap.in_use_bytes, 0);
    cr_assert_eq(heap.peak_bytes, INT64_C(1) << 50);
    pp_heap_deinit(&heap);
}

static void *no_memory(void *state, size_t size_bytes) {
    (void)state;
    (void)size_bytes;
    return NULL;
}

Test(heap, says_what_it_could_not_have) {
    pp_backend poor = pp_backend_cpu;
    poor.allocate = no_memory;
    pp_heap heap;
    pp_heap_init(&heap, &poor, NULL, false);
    void *block;
    pp_error error = {.message = ""};
    cr_assert_eq(pp_heap_take(&heap, 100, &block, &error), PP_E_OUT_OF_MEMORY);
    cr_assert_null(block);
    cr_assert(strstr(error.message, "smaller microbatch"));
    cr_assert_eq(heap.in_use_bytes, 0);
    pp_heap_deinit(&heap);
}
