/* Dropout masks: Philox 4x32-10 of core/random.c, many blocks side by side.
 *
 * The words are those of pp_random_block (a test compares them); only the order of the loops
 * differs: rounds outside, blocks inside, so that a vector holds the same word of many blocks. */
#include "executor/layers/layers_internal.h"

#include <math.h>

enum { BLOCKS = 16, ROUNDS = 10, WORDS = 4 * BLOCKS, SITE_SHIFT = 40 };

PP_VECTOR static void philox(pp_random_key key, uint64_t high, uint64_t low,
                             uint32_t *restrict words) {
    uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS];
    for (int b = 0; b < BLOCKS; b++) {
        uint64_t counter = low + (uint64_t)b;
        c0[b] = (uint32_t)counter;
        c1[b] = (uint32_t)(counter >> 32);
        c2[b] = (uint32_t)high;
        c3[b] = (uint32_t)(high >> 32);
    }
    uint32_t k0 = key.word[0], k1 = key.word[1];
    for (int round = 0; round < ROUNDS; round++) {
        for (int b = 0; b < BLOCKS; b++) {
            uint64_t p0 = (uint64_t)UINT32_C(0xD2511F53) * c0[b];
            uint64_t p1 = (uint64_t)UINT32_C(0xCD9E8D57) * c2[b];
            c0[b] = (uint32_t)(p1 >> 32) ^ c1[b] ^ k0;
            c2[b] = (uint32_t)(p0 >> 32) ^ c3[b] ^ k1;
            c1[b] = (uint32_t)p1;
            c3[b] = (uint32_t)p0;
        }
        k0 += UINT32_C(0x9E3779B9);
        k1 += UINT32_C(0xBB67AE85);
    }
    for (int b = 0; b < BLOCKS; b++) {
        words[4 * b + 0] = c0[b];
        words[4 * b + 1] = c1[b];
        words[4 * b + 2] = c2[b];
        words[4 * b + 3] = c3[b];
    }
}

void pp_mask_words(pp_random_key key, uint64_t sample, uint64_t site, int64_t first, int64_t count,
                   uint32_t *words) {
    uint64_t low = (site << SITE_SHIFT) + (uint64_t)first / 4;
    for (; count >= WORDS; count -= WORDS, words += WORDS, low += BLOCKS)
        philox(key, sample, low, words);
    if (count == 0) return;
    uint32_t rest[WORDS];
    philox(key, sample, low, rest);
    memcpy(words, rest, (size_t)count * sizeof *words);
}

uint32_t pp_mask_threshold(double probability) {
    return (uint32_t)fmin(probability * 0x1p32, 0x1p32 - 1);
}
