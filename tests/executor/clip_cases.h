/* Gradients clipped by the norm of all of them. Run like threaded_cases.h. */
#ifndef PPSIM_TESTS_CLIP_CASES_H
#define PPSIM_TESTS_CLIP_CASES_H

#include "threaded_cases.h"

const threaded_case *clip_cases(int *count);

#endif
