/* A device without a device: the cuda plugin's layers and kernels on the host, on memory that the
 * host cannot touch by the device's addresses. Whoever uses a device pointer without the backend
 * crashes, as he would with a real one. */
#ifndef PPSIM_TESTS_FAKE_DEVICE_H
#define PPSIM_TESTS_FAKE_DEVICE_H

#include "executor/backend.h"
#include "fake_stream.h"

extern const pp_backend fake_device;

/* How many devices the machine is said to have; at first 8. */
extern int fake_devices;
/* Blocks of pinned memory that are not released, and that ever were made. */
extern atomic_int fake_pinned, fake_pinned_ever;

/* What each of them says of itself; at first much memory, four slices. */
extern pp_backend_device fake_properties;
/* Who has opened the device since the last reset, as they came: at most 16. */
extern pp_backend_seat fake_seats[16];
extern atomic_int fake_seat_count;

/* Whether linear layers run as the fused kernel does, with GELU of sums in fp32; at first not. */
extern bool fake_epilogues;

/* Attention of the calling thread: closed, as the device's close does. What it said last and how
 * often, what failed, and how long the two ways are said to take: cuDNN's, the parts. */
void fake_close_attention(void);
extern char fake_said[256], fake_failed[160];
extern atomic_int fake_said_count;
extern double fake_seconds[2];

/* Where the host finds what is at this address of the device; other addresses as they are. */
void *fake_host(const void *address);

/* Forgets everything that was allocated. */
void fake_reset(void);

/* Fails the first `finish` after so many more; 0: none does. */
void fake_fail_after(int finishes);

#endif
