/* What the tests of the store share: scratch files, made-up sessions, and raw SQL behind its back.
 */
#ifndef PPSIM_TESTS_STORE_SUPPORT_H
#define PPSIM_TESTS_STORE_SUPPORT_H

#include "profiles/store_internal.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder of its own for each test process; removed by scratch_remove. */
typedef struct scratch {
    char folder[64];
    char db[96];
} scratch;

static inline scratch scratch_make(void) {
    scratch made;
    snprintf(made.folder, sizeof made.folder, "/tmp/ppsim-test-XXXXXX");
    cr_assert(mkdtemp(made.folder) != NULL);
    snprintf(made.db, sizeof made.db, "%s/profile.db", made.folder);
    return made;
}

static inline void scratch_empty(const scratch *made) {
    DIR *folder = opendir(made->folder);
    cr_assert(folder != NULL);
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[400];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", made->folder, entry->d_name);
        if (unlink(path) != 0) rmdir(path);
    }
    closedir(folder);
}

static inline void scratch_remove(const scratch *made) {
    scratch_empty(made);
    rmdir(made->folder);
}

static inline pp_session session_make(const char *backend, pp_dtype dtype) {
    pp_session session = {.dtype = dtype};
    snprintf(session.device, sizeof session.device, "Test CPU 9000");
    snprintf(session.backend, sizeof session.backend, "%s", backend);
    snprintf(session.driver, sizeof session.driver, "Linux 6.1.0");
    snprintf(session.libraries, sizeof session.libraries, "ppsim %s", PP_VERSION);
    snprintf(session.clocks, sizeof session.clocks, "2000 MHz");
    snprintf(session.date, sizeof session.date, "2026-11-21T12:00:00Z");
    snprintf(session.model, sizeof session.model, "gpt-nano");
    return session;
}

static inline pp_sample sample_make(const char *signature, pp_phase phase, int64_t microbatch,
                                    int neighbours, double duration_s) {
    pp_sample sample = {.phase = phase,
                        .microbatch = microbatch,
                        .neighbours = neighbours,
                        .duration_s = duration_s};
    snprintf(sample.signature, sizeof sample.signature, "%s", signature);
    return sample;
}

/* Opens, or fails the test with the message. */
static inline pp_store *store_must_open(const char *path, bool read_only) {
    pp_store *store;
    pp_error error = {0};
    pp_status status = pp_store_open(path, read_only, &store, &error);
    cr_assert(status == PP_OK, "%s: %s (%s)", error.place, error.message, error.cause);
    return store;
}

/* Adds a session of `count` samples whose durations are base, base + 1 µs, … */
static inline int64_t store_must_add(pp_store *store, const char *backend, const char *signature,
                                     size_t count, double base) {
    pp_session session = session_make(backend, PP_FP32);
    pp_sample *samples = pp_allocate(count * sizeof *samples);
    cr_assert(samples != NULL);
    for (size_t i = 0; i < count; i++)
        samples[i] = sample_make(signature, PP_PHASE_FORWARD, 4, 0, base + 1e-6 * (double)i);
    pp_error error = {0};
    pp_status status = pp_store_add(store, &session, samples, count, &error);
    cr_assert(status == PP_OK, "%s (%s)", error.message, error.cause);
    pp_free(samples);
    return session.id;
}

/* Runs SQL on the file without any of our checks. */
static inline void sql_behind(const char *path, const char *sql) {
    sqlite3 *db;
    pp_store_sql_start();
    cr_assert(sqlite3_open(path, &db) == SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    char *message = NULL;
    int code = sqlite3_exec(db, sql, NULL, NULL, &message);
    cr_assert(code == SQLITE_OK, "%s: %s", sql, message ? message : "");
    sqlite3_close(db);
}

static inline void file_write(const char *path, const void *bytes, size_t length) {
    FILE *file = fopen(path, "wb");
    cr_assert(file != NULL);
    cr_assert(fwrite(bytes, 1, length, file) == length);
    fclose(file);
}

/* The caller frees with pp_text_deinit. */
static inline pp_text file_contents(const char *path) {
    pp_text text = {0};
    cr_assert(pp_file_read(path, PP_FILE_LIMIT_BYTES, &text, NULL) == PP_OK);
    return text;
}

#endif
