/* The cpu backend: memory of the process, layers of executor/layers, matrix products by OpenBLAS.
 *
 * Each rank is a thread that computes alone, so OpenBLAS is told once to use one thread per call:
 * its own pool would make ranks wait for each other and the results depend on the machine. */
#include "executor/backends_internal.h"

#include <assert.h>
#include <cblas.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
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

static pp_status cpu_open(const pp_backend_seat *seat, void **state, pp_error *error) {
    (void)seat;
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

static void cpu_copy(void *state, void *to, const void *from, size_t size_bytes) {
    (void)state;
    memcpy(to, from, size_bytes);
}

static void cpu_fill(void *state, void *block, int byte, size_t size_bytes) {
    (void)state;
    memset(block, byte, size_bytes);
}

static void add_floats(float *sum, const float *added, int64_t count) {
    for (int64_t i = 0; i < count; i++) sum[i] += added[i];
}

static void add_doubles(double *sum, const double *added, int64_t count) {
    for (int64_t i = 0; i < count; i++) sum[i] += added[i];
}

static void cpu_add(void *state, pp_dtype dtype, void *sum, const void *added, int64_t count) {
    (void)state;
    assert(dtype == PP_FP32 || dtype == PP_FP64);
    if (dtype == PP_FP32)
        add_floats(sum, added, count);
    else
        add_doubles(sum, added, count);
}

static void cpu_step(void *state, const pp_optimizer_settings *settings, pp_dtype dtype,
                     int64_t step, int64_t count, void *weights, const void *gradient,
                     void *const *states) {
    (void)state;
    pp_cpu_optimizer_step(settings, dtype, step, count, weights, gradient, states);
}

static void cpu_square_sum(void *state, pp_dtype dtype, const void *values, int64_t count,
                           double *sum) {
    (void)state;
    *sum = pp_cpu_square_sum(dtype, count, values);
}

static pp_status cpu_finish(void *state, pp_error *error) {
    (void)state;
    (void)error;
    return PP_OK;
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
    .copy = cpu_copy,
    .fill = cpu_fill,
    .add = cpu_add,
    .step = cpu_step,
    .square_sum = cpu_square_sum,
    .upload = cpu_copy,
    .download = cpu_copy,
    .finish = cpu_finish,
    .wait_until = cpu_wait_until,
};
