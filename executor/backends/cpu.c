/* The cpu backend: memory of the process, layers of executor/layers, matrix products by OpenBLAS.
 *
 * Each rank is a thread that computes alone, so OpenBLAS is told once to use one thread per call:
 * its own pool would make ranks wait for each other and the results depend on the machine. */
#include "executor/backends_internal.h"

#include <cblas.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { ALIGNMENT = 64 };

static pthread_once_t blas_once = PTHREAD_ONCE_INIT;

static void use_one_blas_thread(void) {
    openblas_set_num_threads(1);
}

static bool cpu_usable(char detail[256]) {
    snprintf(detail, 256, "%ld cores, %.200s", sysconf(_SC_NPROCESSORS_ONLN),
             openblas_get_config());
    return true;
}

static pp_status cpu_open(void **state, int rank, pp_error *error) {
    (void)rank;
    (void)error;
    pthread_once(&blas_once, use_one_blas_thread);
    *state = NULL;
    return PP_OK;
}

static void cpu_close(void *state) {
    (void)state;
}

/* pp_allocate aligns to 16 bytes; the step to the next multiple of 64 is kept in the byte before.
 */
static void *cpu_allocate(void *state, size_t size_bytes) {
    (void)state;
    if (size_bytes > SIZE_MAX - ALIGNMENT) return NULL;
    unsigned char *raw = pp_allocate(size_bytes + ALIGNMENT);
    if (!raw) return NULL;
    size_t shift = ALIGNMENT - (uintptr_t)raw % ALIGNMENT;
    raw[shift - 1] = (unsigned char)shift;
    return raw + shift;
}

static void cpu_release(void *state, void *block, size_t size_bytes) {
    (void)state;
    (void)size_bytes;
    unsigned char *bytes = block;
    if (bytes) pp_free(bytes - bytes[-1]);
}

static void cpu_wait_until(void *state, double until_s) {
    pp_backend_replay.wait_until(state, until_s);
}

const pp_backend pp_backend_cpu = {
    .name = "cpu",
    .runs_layers = true,
    .usable = cpu_usable,
    .open = cpu_open,
    .close = cpu_close,
    .allocate = cpu_allocate,
    .release = cpu_release,
    .layer = pp_cpu_layer,
    .wait_until = cpu_wait_until,
};
