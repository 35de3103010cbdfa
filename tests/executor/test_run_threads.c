/* The bodies of threaded_cases.c under Criterion, one test each. */
#include "threaded_cases.h"

#include "core/core.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <string.h>

static void run_case(const char *name) {
    int count;
    const threaded_case *cases = threaded_cases(&count);
    for (int i = 0; i < count; i++) {
        if (strcmp(cases[i].name, name) != 0) continue;
        char message[512] = "";
        cr_assert(cases[i].run(message), "%s", message);
        return;
    }
    cr_assert_fail("no case is called %s", name);
}

COUNTED_SUITE(run_threads);

#define CASE(name)                                                                                 \
    Test(run_threads, name) {                                                                      \
        run_case(#name);                                                                           \
    }

CASE(same_bits_gpt)
CASE(same_bits_graph)
CASE(same_bits_llama)
CASE(same_bits_bert)
CASE(same_bits_ties)
CASE(same_bits_mlp)
CASE(same_bits_virtual)
CASE(many_ranks)
CASE(other_microbatches)
CASE(replicas)
CASE(replicas_same_bits)
CASE(random_delays)
CASE(failures)
CASE(hangs)
CASE(stops)
CASE(peaks)
CASE(every_allocation)
CASE(replay_known_times)
CASE(replay_ties)
CASE(learns)
