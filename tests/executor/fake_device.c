/* One piece of memory, mapped twice: once where the device's addresses are, without any rights, and
 * once for those who act for the device. */
#include "fake_device.h"

#include "executor/cuda/cuda_layers.h"
#include "executor/cuda/cuda_memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE ((size_t)1 << 30) /* sparse: only what is used is there */

static unsigned char *device_side, *host_side;
static atomic_size_t used;
static atomic_int finishes_left = -1;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void map_twice(void) {
    int file = memfd_create("fake-device", 0);
    if (file < 0 || ftruncate(file, (off_t)SIZE) != 0) abort();
    device_side = mmap(NULL, SIZE, PROT_NONE, MAP_SHARED, file, 0);
    host_side = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (device_side == MAP_FAILED || host_side == MAP_FAILED) abort();
    close(file);
}

void *fake_host(const void *address) {
    const unsigned char *at = address;
    if (!device_side || at < device_side || at >= device_side + SIZE) return (void *)(uintptr_t)at;
    return host_side + (at - device_side);
}

void fake_reset(void) {
    atomic_store(&used, 0);
    atomic_store(&fake_seat_count, 0);
}

void fake_fail_after(int finishes) {
    atomic_store(&finishes_left, finishes > 0 ? finishes : -1);
}

pp_backend_device fake_properties = {
    .name = "Fake 9000", .memory_bytes = 1 << 30, .free_bytes = 1 << 30, .slices = 4};
pp_backend_seat fake_seats[16];
atomic_int fake_seat_count;

static bool fake_usable(char detail[256]) {
    snprintf(detail, 256, "on the host");
    return true;
}

static pp_status fake_open(const pp_backend_seat *seat, void **state, pp_error *error) {
    (void)error;
    pthread_once(&once, map_twice);
    fake_seats[atomic_fetch_add(&fake_seat_count, 1) % 16] = *seat;
    *state = NULL;
    return PP_OK;
}

static void fake_close(void *state) {
    (void)state;
    fake_close_attention();
}

static void *fake_allocate(void *state, size_t size_bytes) {
    (void)state;
    size_t at = atomic_fetch_add(&used, (size_bytes + 63) / 64 * 64);
    return at + size_bytes <= SIZE ? device_side + at : NULL;
}

static void fake_release(void *state, void *block, size_t size_bytes) {
    (void)state, (void)block, (void)size_bytes;
}

static void fake_upload(void *state, void *to, const void *host, size_t size_bytes) {
    (void)state;
    memcpy(fake_host(to), host, size_bytes);
}

static void fake_download(void *state, void *host, const void *from, size_t size_bytes) {
    (void)state;
    memcpy(host, fake_host(from), size_bytes);
}

static pp_status fake_finish(void *state, pp_error *error) {
    (void)state;
    if (atomic_load(&finishes_left) < 0 || atomic_fetch_sub(&finishes_left, 1) != 1) return PP_OK;
    return pp_fail(error, PP_E_FAILED, NULL, "the fake device was told to fail");
}

/* ---- side queues --------------------------------------------------------------------------- */

int fake_devices = 8;
atomic_int fake_pinned, fake_pinned_ever;

static int fake_device_count(void) {
    return fake_devices;
}

static bool fake_describe_device(int number, pp_backend_device *device) {
    *device = fake_properties;
    return number < fake_devices;
}

struct pp_side_queue {
    fake_stream stream;
    atomic_int marks;
};

static pp_side_queue *fake_side_open(void *state) {
    (void)state;
    return pp_allocate_zeroed(1, sizeof(pp_side_queue));
}

static void fake_side_close(pp_side_queue *side) {
    if (atomic_load(&side->marks) != 0) abort();
    pp_free(side);
}

static pp_status fake_side_enter(pp_side_queue *side, pp_error *error) {
    (void)side, (void)error;
    return PP_OK;
}

static void *fake_side_stream(pp_side_queue *side) {
    return &side->stream;
}

static pp_status fake_side_mark(pp_side_queue *side, void **mark, pp_error *error) {
    uint64_t *made = pp_allocate(sizeof *made);
    *mark = made;
    if (!made) return pp_fail_memory(error);
    *made = atomic_load(&side->stream.begun);
    atomic_fetch_add(&side->marks, 1);
    return PP_OK;
}

static void fake_side_forget(pp_side_queue *side, void *mark) {
    atomic_fetch_sub(&side->marks, 1);
    pp_free(mark);
}

static pp_status fake_side_passed(pp_side_queue *side, void *mark, bool *passed, pp_error *error) {
    (void)error;
    const uint64_t *behind = mark;
    *passed = atomic_load(&side->stream.ended) >= *behind &&
              pp_now_s() >= atomic_load(&side->stream.ready_s);
    if (*passed) fake_side_forget(side, mark);
    return PP_OK;
}

static void *fake_host_allocate(size_t size_bytes) {
    atomic_fetch_add(&fake_pinned, 1);
    atomic_fetch_add(&fake_pinned_ever, 1);
    return malloc(size_bytes);
}

static void fake_host_release(void *block) {
    atomic_fetch_sub(&fake_pinned, 1);
    free(block);
}

static void fake_wait_until(void *state, double until_s) {
    (void)state, (void)until_s;
}

const pp_backend fake_device = {
    .name = "fake",
    .runs_layers = true,
    .usable = fake_usable,
    .open = fake_open,
    .close = fake_close,
    .allocate = fake_allocate,
    .release = fake_release,
    .layer = pp_cuda_layer,
    .device_memory = true,
    .copy = pp_cuda_copy,
    .fill = pp_cuda_fill,
    .add = pp_cuda_add,
    .step = pp_cuda_step,
    .make_master = pp_cuda_make_master,
    .square_sum = pp_cuda_square_sum,
    .upload = fake_upload,
    .download = fake_download,
    .finish = fake_finish,
    .devices = fake_device_count,
    .device = fake_describe_device,
    .side_open = fake_side_open,
    .side_close = fake_side_close,
    .side_enter = fake_side_enter,
    .side_stream = fake_side_stream,
    .side_mark = fake_side_mark,
    .side_passed = fake_side_passed,
    .side_forget = fake_side_forget,
    .host_allocate = fake_host_allocate,
    .host_release = fake_host_release,
    .wait_until = fake_wait_until,
};
