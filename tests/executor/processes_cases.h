/* Runs over several processes, played by threads on a wire in memory (memory_wire.h): bits,
 * failures, silence. Run like threaded_cases.h. */
#ifndef PPSIM_TESTS_PROCESSES_CASES_H
#define PPSIM_TESTS_PROCESSES_CASES_H

#include "threaded_cases.h"

const threaded_case *processes_cases(int *count);

#endif
