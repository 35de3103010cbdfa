/* Test bodies that start threads: each a function that says whether it passed, and why not. Criterion
 * runs them (test_run_threads.c), and so does a plain program under the thread sanitizer
 * (tests/tsan/main.c). */
#ifndef PPSIM_TESTS_THREADED_CASES_H
#define PPSIM_TESTS_THREADED_CASES_H

#include <stdbool.h>

typedef struct threaded_case {
    const char *name;
    bool (*run)(char message[512]);
} threaded_case;

const threaded_case *threaded_cases(int *count);

#endif
