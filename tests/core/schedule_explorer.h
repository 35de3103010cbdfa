/* An oracle for the check: walks every interleaving of a small schedule by the rules of
 * docs/promises.md, one event at a time, and sees whether one of them gets stuck. Shares no code and no idea
 * (no graph, no topological order) with the check. */
#ifndef PPSIM_TESTS_SCHEDULE_EXPLORER_H
#define PPSIM_TESTS_SCHEDULE_EXPLORER_H

#include "core/core.h"

typedef enum explored {
    EXPLORED_FINISHES,
    EXPLORED_HANGS,
    EXPLORED_INCOMPLETE, /* something is missing, twice or out of place */
    EXPLORED_MISMATCH,   /* the ends of a queue disagree */
    EXPLORED_TOO_LARGE
} explored;

explored explore(const pp_schedule *schedule, bool blocking);

#endif
