/* A stream of the fake device: transfers (stand_in_nccl.c) are counted on it. */
#ifndef PPSIM_TESTS_FAKE_STREAM_H
#define PPSIM_TESTS_FAKE_STREAM_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct fake_stream {
    _Atomic(uint64_t) begun, ended; /* transfers, which end in order */
    _Atomic(double) ready_s;        /* when the last one that ended may be noticed */
} fake_stream;

#endif
