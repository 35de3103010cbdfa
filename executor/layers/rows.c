/* Kernels over whole rows: copies, biases, sums of columns, dropout. */
#define PP_THIS_FILE "executor/layers/rows.c"
#ifndef PP_REAL_PASS
enum { CHUNK = 1024 }; /* words on the stack; a multiple of 4 */
#endif
#include "executor/layers/real.h"

#ifdef real

PP_VECTOR static void NAME(add_row)(int64_t count, const real *restrict x, real *restrict y) {
    for (int64_t i = 0; i < count; i++) y[i] += x[i];
}

void copy_or_add(int64_t count, const real *x, real *y, bool add) {
    if (add)
        NAME(add_row)(count, x, y);
    else
        memcpy(y, x, (size_t)count * sizeof *y);
}

void fill_rows(int64_t rows, int64_t columns, const real *row, real *y) {
    for (int64_t r = 0; r < rows; r++) memcpy(y + r * columns, row, (size_t)columns * sizeof *y);
}

PP_VECTOR void column_sums(int64_t rows, int64_t columns, const real *restrict x,
                           real *restrict sums) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) sums[c] += x[r * columns + c];
}

PP_VECTOR static void NAME(drop_chunk)(int64_t count, const uint32_t *restrict words,
                                       uint32_t threshold, real scale, real *restrict y) {
    for (int64_t i = 0; i < count; i++) y[i] = words[i] < threshold ? 0 : y[i] * scale;
}

PP_VECTOR static void NAME(drop_add_chunk)(int64_t count, const uint32_t *restrict words,
                                           uint32_t threshold, real scale, const real *restrict x,
                                           real *restrict y) {
    for (int64_t i = 0; i < count; i++) y[i] += words[i] < threshold ? 0 : x[i] * scale;
}

static void NAME(drop_or_add)(const pp_layer_call *call, uint64_t site, int64_t columns,
                              const real *x, real *y, bool add) {
    uint32_t words[CHUNK];
    int64_t per_sample = pp_call_rows(call) / call->samples * columns;
    uint32_t threshold = pp_mask_threshold(call->layer->dropout);
    real scale = (real)(1 / (1 - call->layer->dropout));
    for (int64_t s = 0; s < call->samples; s++) {
        for (int64_t e = 0; e < per_sample; e += CHUNK) {
            int64_t count = per_sample - e < CHUNK ? per_sample - e : CHUNK;
            pp_mask_words(call->key, call->first_sample + (uint64_t)s, site, e, count, words);
            if (add) {
                NAME(drop_add_chunk)(count, words, threshold, scale, x, y);
            } else {
                if (x != y) copy_or_add(count, x, y, false);
                NAME(drop_chunk)(count, words, threshold, scale, y);
            }
            x += count;
            y += count;
        }
    }
}

PP_VECTOR static void NAME(mask_chunk)(int64_t count, const uint32_t *restrict words,
                                       uint32_t threshold, uint8_t *restrict mask) {
    for (int64_t i = 0; i < count; i++) mask[i] = words[i] >= threshold;
}

PP_VECTOR static void NAME(masked)(int64_t count, const uint8_t *restrict mask, real scale,
                                   real *restrict y) {
    for (int64_t i = 0; i < count; i++) y[i] = mask[i] ? y[i] * scale : 0;
}

void drop_masked(const pp_layer_call *call, int64_t count, const uint8_t *mask, const real *x,
                 real *y) {
    if (x != y) copy_or_add(count, x, y, false);
    NAME(masked)(count, mask, (real)(1 / (1 - call->layer->dropout)), y);
}

void drop_keep(const pp_layer_call *call, int64_t sample, uint64_t site, int64_t first,
               int64_t count, const real *x, real *y, uint8_t *mask) {
    uint32_t words[CHUNK], threshold = pp_mask_threshold(call->layer->dropout);
    for (int64_t e = 0; e < count; e += CHUNK) {
        int64_t some = count - e < CHUNK ? count - e : CHUNK;
        pp_mask_words(call->key, call->first_sample + (uint64_t)sample, site, first + e, some,
                      words);
        NAME(mask_chunk)(some, words, threshold, mask + e);
    }
    drop_masked(call, count, mask, x, y);
}

void drop_rows(const pp_layer_call *call, uint64_t site, real *x, uint8_t *mask) {
    int64_t count = pp_call_rows(call) / call->samples * call->layer->dim;
    for (int64_t s = 0; s < call->samples; s++, x += count, mask += count)
        drop_keep(call, s, site, 0, count, x, x, mask);
}

void drop(const pp_layer_call *call, uint64_t site, int64_t columns, const real *x, real *y) {
    NAME(drop_or_add)(call, site, columns, x, y, false);
}

void drop_add(const pp_layer_call *call, uint64_t site, int64_t columns, const real *x, real *y) {
    NAME(drop_or_add)(call, site, columns, x, y, true);
}

#endif
