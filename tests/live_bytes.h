/* A leak fails the run. Criterion runs each test in a process of its own and heeds neither what
 * LeakSanitizer says when that process ends nor a failed assertion in a suite's fini: only a crash
 * there counts. So each suite's fini looks at the live bytes of our own allocator and aborts.
 * Instead of TestSuite, once in the file of the suite (tests/structure checks that):
 *
 *   COUNTED_SUITE(heap);
 *   COUNTED_SUITE(store, .timeout = 60); */
#ifndef PPSIM_LIVE_BYTES_H
#define PPSIM_LIVE_BYTES_H

#include "core/core.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static inline void expect_nothing_lives(void) {
    if (pp_live_bytes() == 0) return;
    fprintf(stderr, "%lld bytes are still allocated at the end of:\n", (long long)pp_live_bytes());
    abort();
}

#define COUNTED_SUITE(name, ...) TestSuite(name, .fini = expect_nothing_lives, ##__VA_ARGS__)

#endif
