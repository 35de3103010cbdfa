/* The bodies of processes_cases.c under Criterion, one test each. */
#include "processes_cases.h"

#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <string.h>

static void run_case(const char *name) {
    int count;
    const threaded_case *cases = processes_cases(&count);
    for (int i = 0; i < count; i++) {
        if (strcmp(cases[i].name, name) != 0) continue;
        char message[512] = "";
        cr_assert(cases[i].run(message), "%s", message);
        return;
    }
    cr_assert_fail("no case is called %s", name);
}

COUNTED_SUITE(processes, .timeout = 120);

#define CASE(name)                                                                                 \
    Test(processes, name) {                                                                        \
        run_case(#name);                                                                           \
    }

CASE(spread_same_bits)
CASE(spread_replicas)
CASE(spread_virtual)
CASE(spread_failures)
CASE(spread_stops)
CASE(spread_silence)
CASE(spread_hangs)
CASE(spread_broken_wire)
CASE(spread_refusals)
CASE(spread_replay)
CASE(spread_clocks)
