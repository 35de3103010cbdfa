/* A rank's counting allocator.
 *
 * Why: the peak that a run reports must be what was really in use at once, and must be comparable
 * with the prediction byte by byte (promise P3). So a rank asks for nothing but the regions of
 * its stage tables, and this heap counts them. A step asks for the same few sizes over and over;
 * blocks given back are kept per exact size, so that after the first step nothing is asked of the
 * backend any more.
 *
 * With poison on, a block's bytes become NaN the moment its owner gives it back (promise P9):
 * a use after that shows in the loss instead of hiding. */
#include "executor/heap_internal.h"

#include <assert.h>

/* All bits set is a quiet NaN in every floating format and -1 in integers. */
enum { POISON_BYTE = 0xff };

void pp_heap_init(pp_heap *heap, const pp_backend *backend, void *state, bool poison) {
    *heap = (pp_heap){.backend = backend, .state = state, .poison = poison};
}

void pp_heap_poison(const pp_heap *heap, void *block, int64_t size_bytes) {
    if (heap->poison && block && heap->backend)
        heap->backend->fill(heap->state, block, POISON_BYTE, (size_t)size_bytes);
}

/* Doubles an array that is full; false when out of memory, the array as it was. */
static bool grow(void **array, int *capacity, int count, size_t item_bytes) {
    if (count < *capacity) return true;
    int wanted = *capacity ? *capacity * 2 : 8;
    void *larger = pp_reallocate(*array, (size_t)wanted * item_bytes);
    if (!larger) return false;
    *array = larger;
    *capacity = wanted;
    return true;
}

static pp_heap_class *find_class(pp_heap *heap, int64_t size_bytes) {
    for (int i = 0; i < heap->class_count; i++)
        if (heap->classes[i].size_bytes == size_bytes) return &heap->classes[i];
    void *array = heap->classes;
    bool fits = grow(&array, &heap->class_capacity, heap->class_count, sizeof(pp_heap_class));
    heap->classes = array;
    if (!fits) return NULL;
    pp_heap_class *added = &heap->classes[heap->class_count++];
    *added = (pp_heap_class){.size_bytes = size_bytes};
    return added;
}

static bool reserve_owned(pp_heap *heap) {
    if (heap->owned_count < heap->owned_capacity) return true;
    int wanted = heap->owned_capacity ? heap->owned_capacity * 2 : 16;
    void **blocks = pp_reallocate(heap->owned, (size_t)wanted * sizeof *blocks);
    if (!blocks) return false;
    heap->owned = blocks;
    int64_t *bytes = pp_reallocate(heap->owned_bytes, (size_t)wanted * sizeof *bytes);
    if (!bytes) return false;
    heap->owned_bytes = bytes;
    heap->owned_capacity = wanted;
    return true;
}

/* A new block from the backend. Room to give it back is reserved here, so that giving cannot fail.
 */
static void *make_block(pp_heap *heap, pp_heap_class *class) {
    void *array = class->blocks;
    bool fits = grow(&array, &class->capacity, class->made, sizeof(void *));
    class->blocks = array;
    if (!fits || !reserve_owned(heap)) return NULL;
    void *block = heap->backend->allocate(heap->state, (size_t) class->size_bytes);
    if (!block) return NULL;
    class->made++;
    heap->owned[heap->owned_count] = block;
    heap->owned_bytes[heap->owned_count++] = class->size_bytes;
    pp_heap_poison(heap, block, class->size_bytes);
    return block;
}

static void count_taken(pp_heap *heap, int64_t size_bytes) {
    heap->in_use_bytes += size_bytes;
    if (heap->in_use_bytes > heap->peak_bytes) heap->peak_bytes = heap->in_use_bytes;
}

pp_status pp_heap_take(pp_heap *heap, int64_t size_bytes, void **block, pp_error *error) {
    *block = NULL;
    if (size_bytes == 0) return PP_OK;
    if (heap->backend) {
        pp_heap_class *class = find_class(heap, size_bytes);
        if (class) *block = class->count ? class->blocks[--class->count] : make_block(heap, class);
        if (!*block) {
            char wanted[32], used[32];
            return pp_fail(error, PP_E_OUT_OF_MEMORY, NULL,
                           "out of memory: %s more on top of %s; use a smaller microbatch, more "
                           "ranks or recompute",
                           pp_format_bytes((double)size_bytes, wanted),
                           pp_format_bytes((double)heap->in_use_bytes, used));
        }
    }
    count_taken(heap, size_bytes);
    return PP_OK;
}

void pp_heap_give(pp_heap *heap, void *block, int64_t size_bytes) {
    if (size_bytes == 0 || (heap->backend && !block)) return;
    heap->in_use_bytes -= size_bytes;
    assert(heap->in_use_bytes >= 0);
    if (!heap->backend) return;
    pp_heap_class *class = find_class(heap, size_bytes);
    assert(class && class->count < class->made);
    pp_heap_poison(heap, block, size_bytes);
    class->blocks[class->count++] = block;
}

void pp_heap_deinit(pp_heap *heap) {
    for (int i = 0; i < heap->owned_count; i++)
        heap->backend->release(heap->state, heap->owned[i], (size_t)heap->owned_bytes[i]);
    for (int i = 0; i < heap->class_count; i++) pp_free(heap->classes[i].blocks);
    pp_free(heap->classes);
    pp_free(heap->owned);
    pp_free(heap->owned_bytes);
    *heap = (pp_heap){0};
}
