/* A rank's memory: every block that a rank owns comes from here, so that its peak is known. */
#ifndef PPSIM_EXECUTOR_HEAP_INTERNAL_H
#define PPSIM_EXECUTOR_HEAP_INTERNAL_H

#include "executor/backend.h"

/* Blocks of one size that were given back and wait to be taken again. */
typedef struct pp_heap_class {
    int64_t size_bytes;
    void **blocks; /* [capacity], the first `count` are free; capacity = blocks of this size made */
    int count, capacity, made;
} pp_heap_class;

typedef struct pp_heap {
    const pp_backend *backend; /* NULL: nothing but counting (replay) */
    void *state;               /* of the backend */
    bool poison;
    int64_t in_use_bytes;
    int64_t peak_bytes; /* largest in_use_bytes so far */
    pp_heap_class *classes;
    int class_count, class_capacity;
    void **owned; /* every block that the backend made, for deinit */
    int64_t *owned_bytes;
    int owned_count, owned_capacity;
} pp_heap;

/* poison: freed and fresh bytes read as NaN. */
void pp_heap_init(pp_heap *heap, const pp_backend *backend, void *state, bool poison);
/* A block of exactly size_bytes (0 gives NULL and PP_OK); contents undefined. O(sizes in use). */
pp_status pp_heap_take(pp_heap *heap, int64_t size_bytes, void **block, pp_error *error);
/* The block may be taken again at once; NULL counts all the same where nothing is real. */
void pp_heap_give(pp_heap *heap, void *block, int64_t size_bytes);
/* Makes a block unreadable that stays taken, such as a message slot; nothing unless poisoning. */
void pp_heap_poison(const pp_heap *heap, void *block, int64_t size_bytes);
/* Returns every block to the backend, taken or not. */
void pp_heap_deinit(pp_heap *heap);

#endif
