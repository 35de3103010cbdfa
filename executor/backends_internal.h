/* The backends that are part of this library. */
#ifndef PPSIM_EXECUTOR_BACKENDS_INTERNAL_H
#define PPSIM_EXECUTOR_BACKENDS_INTERNAL_H

#include "executor/backend.h"

extern const pp_backend pp_backend_cpu;    /* backends/cpu.c */
extern const pp_backend pp_backend_replay; /* backends/replay.c */

#endif
