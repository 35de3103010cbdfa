/* How a test steers the stand-in for NCCL: the library exports one `stand_in_control`. */
#ifndef PPSIM_TESTS_STAND_IN_H
#define PPSIM_TESTS_STAND_IN_H

#include <stdatomic.h>
#include <stddef.h>

typedef struct stand_in_control {
    void *(*host)(const void *address); /* where the host finds device memory */
    double delay_s;                     /* transfers are noticed later by up to so much */
    int version;                        /* 0: 2.28.9 */
    atomic_int slow_polls;              /* so many polls say "in progress" after each begin */
    atomic_int fail_transfer;           /* the n-th transfer from now fails in the background */
    atomic_int fail_call;               /* the n-th send or receive from now is refused */
    atomic_int hang_transfer;           /* the n-th transfer from now never ends */
    /* counted */
    atomic_int comms, destroyed, aborted, transfers, groups, most_in_group, outside_groups;
} stand_in_control;

#endif
