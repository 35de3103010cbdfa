/* A case of a table as the body of a Criterion test. */
#ifndef PPSIM_TESTS_RUN_CASE_H
#define PPSIM_TESTS_RUN_CASE_H

#include "threaded_cases.h"

#include <criterion/criterion.h>
#include <string.h>

static inline void run_case(const threaded_case *cases, int count, const char *name) {
    for (int i = 0; i < count; i++) {
        if (strcmp(cases[i].name, name) != 0) continue;
        char message[512] = "";
        cr_assert(cases[i].run(message), "%s", message);
        return;
    }
    cr_assert_fail("no case is called %s", name);
}

/* table: processes_cases or threaded_cases. */
#define RUN_CASE(suite, table, name)                                                               \
    Test(suite, name) {                                                                            \
        int count;                                                                                 \
        const threaded_case *cases = table(&count);                                                \
        run_case(cases, count, #name);                                                             \
    }

#endif
