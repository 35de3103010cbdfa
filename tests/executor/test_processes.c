/* The bodies of processes_cases.c under Criterion, one test each. */
#include "processes_cases.h"
#include "run_case.h"

#include "tests/live_bytes.h"

COUNTED_SUITE(processes, .timeout = 120);

#define CASE(name) RUN_CASE(processes, processes_cases, name)

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
