/* What the tests of all documents need: malformed variants of a good text, a platform whose n-th
 * allocation fails, numbers of every size. */
#ifndef PPSIM_TEST_DOCUMENT_SUPPORT_H
#define PPSIM_TEST_DOCUMENT_SUPPORT_H

#include "core/core.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- malformed documents -------------------------------------------------------------------- */

/* A good text with `find` replaced (once), and what the refusal must say. find NULL: the
 * replacement is the whole text. */
typedef struct malformed {
    const char *find;
    const char *replacement;
    const char *place;   /* the whole place after the file's name */
    const char *message; /* a part of it */
} malformed;

static inline char *text_of(const malformed *bad, const char *good) {
    pp_text text = {0};
    const char *at = bad->find ? strstr(good, bad->find) : good;
    cr_assert(at, "the good text has no %s", bad->find);
    size_t skip = bad->find ? strlen(bad->find) : strlen(good);
    pp_text_append(&text, good, (size_t)(at - good));
    pp_text_string(&text, bad->replacement);
    pp_text_string(&text, at + skip);
    return text.bytes; /* pp_free */
}

typedef pp_status try_text(const char *text, size_t length, pp_error *error);

/* True if the refusal of one case says what it must; else prints what it said. */
static inline bool refused_well(const malformed *bad, const char *good, try_text *try) {
    pp_error error = {0};
    char place[320];
    char *text = text_of(bad, good);
    pp_status status = try(text, strlen(text), &error);
    pp_free(text);
    snprintf(place, sizeof place, "bad.json%s", bad->place);
    bool right = status == PP_E_INPUT && error.code == PP_E_INPUT &&
                 strcmp(error.place, place) == 0 && strstr(error.message, bad->message) &&
                 !strpbrk(error.message, "\n\r\t\x1b");
    if (!right)
        fprintf(stderr, "%.60s: status %d, \"%s\" at \"%s\"\n", bad->replacement, status,
                error.message, error.place);
    return right;
}

static inline void expect_refused(const malformed *cases, size_t count, const char *good,
                                  try_text *try) {
    int64_t before = pp_live_bytes();
    size_t wrong = 0;
    cr_assert_geq(count, 30);
    for (size_t i = 0; i < count; i++) wrong += !refused_well(&cases[i], good, try);
    cr_assert_eq(wrong, 0, "%zu refusals, printed above, are not as wanted", wrong);
    cr_assert_eq(pp_live_bytes(), before, "refusing leaks");
}

/* ---- failing allocations -------------------------------------------------------------------- */

static long allocations_left; /* before the failure */
static bool failing_for_ever;

static inline void *failing_allocate(size_t size_bytes) {
    if (allocations_left-- == 0 || (failing_for_ever && allocations_left < 0)) return NULL;
    return malloc(size_bytes);
}

typedef pp_status try_work(void *context, pp_error *error);

/* Fails the n-th allocation of the work, once and from then on, for n = 1, 2, 3 … until it
 * succeeds: each time out of memory is what it says, and nothing leaks. */
static inline void expect_survives_allocation_failures(try_work *work, void *context) {
    pp_platform failing = *pp_platform_get();
    failing.allocate = failing_allocate;
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        pp_status status = PP_E_OUT_OF_MEMORY;
        long n = 0;
        for (; status != PP_OK; n++) {
            pp_error error = {0};
            int64_t before = pp_live_bytes();
            allocations_left = n;
            failing_for_ever = for_ever != 0;
            pp_platform_set(&failing);
            status = work(context, &error);
            pp_platform_set(NULL);
            cr_assert_eq(pp_live_bytes(), before, "allocation %ld leaks", n);
            if (status == PP_OK) break;
            cr_assert_eq(status, PP_E_OUT_OF_MEMORY, "allocation %ld: %s %s", n, error.place,
                         error.message);
            cr_assert_eq(error.code, PP_E_OUT_OF_MEMORY);
            cr_assert_lt(n, 100000);
        }
        cr_assert_gt(n, 3, "the work allocates, so the first failures must show");
    }
}

/* ---- random values -------------------------------------------------------------------------- */

typedef struct dice {
    pp_random_key key;
    uint64_t at;
} dice;

static inline dice dice_of(uint64_t seed, const char *name) {
    return (dice){pp_random_key_make(seed, name, 0), 0};
}

static inline int64_t roll(dice *d, int64_t low, int64_t high) {
    return low + (int64_t)pp_random_below(d->key, d->at++, (uint64_t)(high - low + 1));
}

/* Positive doubles of all magnitudes, with all 53 bits used. */
static inline double roll_double(dice *d) {
    static const double scales[] = {1e-300, 1e-12, 1e-6, 1e-3, 1, 1e3, 1e8};
    double unit = pp_random_unit(d->key, d->at++);
    return unit * scales[roll(d, 0, sizeof scales / sizeof *scales - 1)];
}

#endif
