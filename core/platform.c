/* The platform: the few functions of the operating system that ppsim's promises depend on, as a
 * table that tests replace (docs/promises.md).
 *
 * Allocation is counted here. Each block is preceded by 16 bytes that hold its size, so that the
 * count of live bytes needs no help from the allocator and every block is 16-byte aligned. */
#include "core/core.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- the real platform --------------------------------------------------------------------- */

static void *real_allocate(size_t size_bytes) {
    return malloc(size_bytes);
}

static void real_release(void *block) {
    free(block);
}

static double real_now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int real_open_new(const char *path) {
    return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

static long real_write(int file, const void *bytes, size_t size_bytes) {
    return (long)write(file, bytes, size_bytes);
}

static int real_sync_directory(const char *directory) {
    int file = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0) return -1;
    int result = fsync(file);
    int reason = errno;
    close(file);
    /* some file systems cannot sync a directory, and say so: nothing more can be done there */
    if (result != 0 && (reason == EINVAL || reason == EROFS)) return 0;
    errno = reason;
    return result;
}

static const pp_platform real_platform = {
    .allocate = real_allocate,
    .release = real_release,
    .now_s = real_now_s,
    .open_new = real_open_new,
    .write = real_write,
    .sync = fsync,
    .close = close,
    .rename = rename,
    .unlink = unlink,
    .sync_directory = real_sync_directory,
};

static const pp_platform *platform = &real_platform;

const pp_platform *pp_platform_get(void) {
    return platform;
}

void pp_platform_set(const pp_platform *replacement) {
    platform = replacement ? replacement : &real_platform;
}

double pp_now_s(void) {
    return platform->now_s();
}

/* ---- counted allocation -------------------------------------------------------------------- */

typedef union block_header {
    size_t size_bytes;
    max_align_t align;
} block_header;

static_assert(sizeof(block_header) % 16 == 0, "blocks must stay 16-byte aligned");

static atomic_llong live_bytes;

static block_header *header_of(void *block) {
    return (block_header *)block - 1;
}

void *pp_allocate(size_t size_bytes) {
    if (size_bytes > SIZE_MAX / 2) return NULL;
    block_header *header = platform->allocate(sizeof(block_header) + size_bytes);
    if (!header) return NULL;
    header->size_bytes = size_bytes;
    atomic_fetch_add_explicit(&live_bytes, (long long)size_bytes, memory_order_relaxed);
    return header + 1;
}

void *pp_allocate_zeroed(size_t count, size_t size_bytes) {
    size_t total;
    if (__builtin_mul_overflow(count, size_bytes, &total)) return NULL;
    void *block = pp_allocate(total);
    if (block) memset(block, 0, total);
    return block;
}

void *pp_reallocate(void *block, size_t size_bytes) {
    if (!block) return pp_allocate(size_bytes);
    void *larger = pp_allocate(size_bytes);
    if (!larger) return NULL;
    size_t kept = header_of(block)->size_bytes;
    memcpy(larger, block, kept < size_bytes ? kept : size_bytes);
    pp_free(block);
    return larger;
}

void pp_free(void *block) {
    if (!block) return;
    block_header *header = header_of(block);
    atomic_fetch_sub_explicit(&live_bytes, (long long)header->size_bytes, memory_order_relaxed);
    platform->release(header);
}

int64_t pp_live_bytes(void) {
    return atomic_load_explicit(&live_bytes, memory_order_relaxed);
}

/* ---- stop requests ------------------------------------------------------------------------- */

/* lock-free, so a signal handler may store it while ranks read it */
static atomic_int stop_signal;

void pp_stop_request(int signal_number) {
    stop_signal = signal_number;
}

int pp_stop_signal(void) {
    return stop_signal;
}

/* ---- log ----------------------------------------------------------------------------------- */

static pp_log_sink *log_sink;
static char log_specification[256];

static const char *const level_names[] = {"error", "warning", "info", "debug", "trace"};

static int level_from_name(const char *name, size_t length) {
    for (int level = 0; level < (int)(sizeof level_names / sizeof *level_names); level++)
        if (strlen(level_names[level]) == length && memcmp(level_names[level], name, length) == 0)
            return level;
    return PP_LOG_WARNING;
}

/* The level asked for in "sim:debug,executor:trace"; a bare level ("debug") holds for all. */
static int level_wanted(const char *subsystem) {
    int wanted = PP_LOG_WARNING;
    size_t subsystem_length = strlen(subsystem);
    for (const char *item = log_specification; *item;) {
        size_t length = strcspn(item, ",");
        const char *colon = memchr(item, ':', length);
        size_t head = colon ? (size_t)(colon - item) : 0;
        if (!colon)
            wanted = level_from_name(item, length);
        else if (head == subsystem_length && memcmp(item, subsystem, head) == 0)
            return level_from_name(colon + 1, length - head - 1);
        item += length + (item[length] == ',');
    }
    return wanted;
}

void pp_log_install(pp_log_sink *sink, const char *specification) {
    log_sink = sink;
    snprintf(log_specification, sizeof log_specification, "%s", specification ? specification : "");
}

void pp_log(pp_log_level level, const char *subsystem, const char *format, ...) {
    if (!log_sink || (int)level > level_wanted(subsystem)) return;
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    log_sink(level, subsystem, message);
}
