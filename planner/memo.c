/* A map from 64-bit keys to 64-bit values for results that are asked for again and again.
 *
 * Open addressing with linear probing in a power of two of slots, at most three quarters full. Key
 * 0 marks an empty slot, so callers never use it. Clearing keeps the slots: a warm search allocates
 * nothing. */
#include <assert.h>
#include <string.h>

#include "planner/planner_internal.h"

enum { FIRST_CAPACITY = 256 };

static size_t slot_of(const pp_memo *memo, uint64_t key) {
    uint64_t mixed = key * UINT64_C(0x9e3779b97f4a7c15);
    size_t slot = (size_t)(mixed >> 32) & (memo->capacity - 1);
    while (memo->slots[slot].key != 0 && memo->slots[slot].key != key) {
        slot = (slot + 1) & (memo->capacity - 1);
    }
    return slot;
}

static bool grow(pp_memo *memo) {
    pp_memo larger = {.capacity = memo->capacity ? 2 * memo->capacity : FIRST_CAPACITY};
    larger.slots = pp_allocate_zeroed(larger.capacity, sizeof *larger.slots);
    if (larger.slots == NULL) return false;
    for (size_t i = 0; i < memo->capacity; i++) {
        if (memo->slots[i].key == 0) continue;
        larger.slots[slot_of(&larger, memo->slots[i].key)] = memo->slots[i];
    }
    larger.count = memo->count;
    pp_free(memo->slots);
    *memo = larger;
    return true;
}

bool pp_memo_find(const pp_memo *memo, uint64_t key, int64_t *value) {
    if (memo->capacity == 0) return false;
    const pp_memo_slot *slot = &memo->slots[slot_of(memo, key)];
    if (slot->key == 0) return false;
    *value = slot->value;
    return true;
}

bool pp_memo_put(pp_memo *memo, uint64_t key, int64_t value) {
    assert(key != 0);
    if (4 * (memo->count + 1) > 3 * memo->capacity && !grow(memo)) return false;
    pp_memo_slot *slot = &memo->slots[slot_of(memo, key)];
    if (slot->key == 0) memo->count++;
    *slot = (pp_memo_slot){.key = key, .value = value};
    return true;
}

void pp_memo_clear(pp_memo *memo) {
    if (memo->count > 0) memset(memo->slots, 0, memo->capacity * sizeof *memo->slots);
    memo->count = 0;
}

void pp_memo_deinit(pp_memo *memo) {
    pp_free(memo->slots);
    *memo = (pp_memo){0};
}
