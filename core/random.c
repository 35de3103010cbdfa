/* Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011, section 4.2 and table 2 for the constants).
 *
 * There is no state: a number is a function of (key, counter). So weights do not depend on which
 * rank makes them, and a recomputed dropout repeats its mask. */
#include "core/core.h"

#include <math.h>
#include <string.h>

enum { PHILOX_ROUNDS = 10 };
#define PHILOX_M0 UINT32_C(0xD2511F53)
#define PHILOX_M1 UINT32_C(0xCD9E8D57)
#define PHILOX_W0 UINT32_C(0x9E3779B9)
#define PHILOX_W1 UINT32_C(0xBB67AE85)

/* A key must not repeat for different (seed, name, stream): FNV-1a mixes the low bits poorly, so
 * its result goes through the finaliser of SplitMix64. */
static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

pp_random_key pp_random_key_make(uint64_t seed, const char *name, uint64_t stream) {
    uint64_t hash = pp_hash(PP_HASH_START, name, strlen(name));
    uint64_t key = mix(mix(mix(hash) + seed) + stream);
    return (pp_random_key){{(uint32_t)key, (uint32_t)(key >> 32)}};
}

void pp_random_block(pp_random_key key, uint64_t high, uint64_t low, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32);
    uint32_t c2 = (uint32_t)high, c3 = (uint32_t)(high >> 32);
    uint32_t k0 = key.word[0], k1 = key.word[1];
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)PHILOX_M0 * c0, p1 = (uint64_t)PHILOX_M1 * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* 53 bits out of two words. */
static double unit_of(uint32_t high, uint32_t low) {
    return (double)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53;
}

double pp_random_unit(pp_random_key key, uint64_t counter) {
    uint32_t word[4];
    pp_random_block(key, 0, counter, word);
    return unit_of(word[0], word[1]);
}

double pp_random_normal(pp_random_key key, uint64_t counter) {
    uint32_t word[4];
    pp_random_block(key, 1, counter, word);
    double radius = sqrt(-2 * log1p(-unit_of(word[0], word[1])));
    return radius * cos(6.283185307179586477 * unit_of(word[2], word[3]));
}

/* The high half of a 64 × 64-bit product: uniform up to a bias of bound / 2^64. */
uint64_t pp_random_below(pp_random_key key, uint64_t counter, uint64_t bound) {
    uint32_t word[4];
    pp_random_block(key, 2, counter, word);
    uint64_t value = (uint64_t)word[0] << 32 | word[1];
    return (uint64_t)(((unsigned __int128)value * bound) >> 64);
}
