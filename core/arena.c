/* Arenas: a chain of blocks, each twice the one before up to a limit, handed out front to back.
 *
 * Reset keeps the blocks, so a search of a million candidates does no malloc once it is warm. The
 * failure flag is sticky: a builder may allocate many times and look at `failed` once. */
#include "core/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct pp_arena_block {
    struct pp_arena_block *next;
    size_t size_bytes; /* of bytes[] */
    size_t used_bytes;
    _Alignas(16) unsigned char bytes[];
} block;

/* Past LARGEST_BLOCK_BYTES only an allocation that needs more gets more: a small one behind a huge
 * array must not reserve twice that array. */
enum { FIRST_BLOCK_BYTES = 4096, LARGEST_BLOCK_BYTES = 1 << 20, ALIGNMENT = 16 };

void pp_arena_init(pp_arena *arena) {
    *arena = (pp_arena){0};
}

static block *block_new(size_t size_bytes) {
    block *fresh = pp_allocate(sizeof(block) + size_bytes);
    if (!fresh) return NULL;
    fresh->next = NULL;
    fresh->size_bytes = size_bytes;
    fresh->used_bytes = 0;
    return fresh;
}

/* The next block of the chain that can hold `need` bytes, made if there is none. */
static block *block_with_room(pp_arena *arena, size_t need) {
    block *last = NULL;
    for (block *b = arena->current; b; last = b, b = b->next)
        if (b->size_bytes - b->used_bytes >= need) return b;
    size_t size = last ? 2 * last->size_bytes : FIRST_BLOCK_BYTES;
    if (size > LARGEST_BLOCK_BYTES) size = LARGEST_BLOCK_BYTES;
    block *fresh = block_new(size < need ? need : size);
    if (!fresh) return NULL;
    *(last ? &last->next : &arena->first) = fresh;
    return fresh;
}

void *pp_arena_allocate(pp_arena *arena, size_t count, size_t size_bytes) {
    size_t need;
    if (arena->failed) return NULL;
    if (__builtin_mul_overflow(count, size_bytes, &need) || need > SIZE_MAX / 4) {
        arena->failed = true;
        return NULL;
    }
    need = (need + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    block *b = block_with_room(arena, need);
    if (!b) {
        arena->failed = true;
        return NULL;
    }
    arena->current = b;
    void *result = b->bytes + b->used_bytes;
    b->used_bytes += need;
    arena->used_bytes += need;
    return memset(result, 0, need);
}

char *pp_arena_copy(pp_arena *arena, const char *text, size_t length) {
    char *copy = pp_arena_allocate(arena, length + 1, 1);
    if (copy) memcpy(copy, text, length);
    return copy;
}

char *pp_arena_printf(pp_arena *arena, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    char *text = pp_arena_allocate(arena, (size_t)(length < 0 ? 0 : length) + 1, 1);
    if (text && length > 0) vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
    return text;
}

void pp_arena_reset(pp_arena *arena) {
    for (block *b = arena->first; b; b = b->next) b->used_bytes = 0;
    arena->current = arena->first;
    arena->used_bytes = 0;
    arena->failed = false;
}

void pp_arena_deinit(pp_arena *arena) {
    for (block *b = arena->first; b;) {
        block *next = b->next;
        pp_free(b);
        b = next;
    }
    *arena = (pp_arena){0};
}
