/* The border to SQLite: memory, waiting for locks, and its error codes in our words.
 *
 * SQLite reports a lock in two ways: after its own busy handler has waited, or at once where
 * waiting could deadlock (a snapshot that became stale, a recovering log). So every call that may
 * meet a lock is tried a bounded number of times, and the last refusal becomes one clear message.
 */
#include "profiles/store_internal.h"

#include <pthread.h>
#include <string.h>

/* ---- memory ---- */

/* SQLite asks a block for its size; ours do not know theirs, so it stands in front. */
#define HEADER_BYTES 16

static void *memory_allocate(int size_bytes) {
    if (size_bytes <= 0) return NULL;
    char *block = pp_allocate((size_t)size_bytes + HEADER_BYTES);
    if (!block) return NULL;
    memcpy(block, &size_bytes, sizeof size_bytes);
    return block + HEADER_BYTES;
}

static int memory_size(void *user) {
    if (!user) return 0;
    int size_bytes;
    memcpy(&size_bytes, (char *)user - HEADER_BYTES, sizeof size_bytes);
    return size_bytes;
}

static void memory_release(void *user) {
    if (user) pp_free((char *)user - HEADER_BYTES);
}

static void *memory_reallocate(void *user, int size_bytes) {
    char *block = pp_reallocate((char *)user - HEADER_BYTES, (size_t)size_bytes + HEADER_BYTES);
    if (!block) return NULL;
    memcpy(block, &size_bytes, sizeof size_bytes);
    return block + HEADER_BYTES;
}

static int memory_round(int size_bytes) {
    return (size_bytes + 7) & ~7;
}

static int memory_init(void *unused) {
    (void)unused;
    return SQLITE_OK;
}

static void memory_shutdown(void *unused) {
    (void)unused;
}

/* A refusal (SQLite was started by someone else in this process) is harmless: it then keeps its own
 * allocator, and only the counting of live bytes misses it. */
static void configure(void) {
    static const sqlite3_mem_methods methods = {
        .xMalloc = memory_allocate,
        .xFree = memory_release,
        .xRealloc = memory_reallocate,
        .xSize = memory_size,
        .xRoundup = memory_round,
        .xInit = memory_init,
        .xShutdown = memory_shutdown,
    };
    sqlite3_config(SQLITE_CONFIG_MALLOC, &methods);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

/* Process-wide because SQLite's configuration is. */
void pp_store_sql_start(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, configure);
}

/* ---- errors ---- */

typedef struct sql_error {
    int code;
    pp_status status;
    const char *message;
} sql_error;

static const sql_error sql_errors[] = {
    {SQLITE_NOTADB, PP_E_INPUT,
     "this is not a profile store (not an SQLite file); give --db another file name"},
    {SQLITE_CORRUPT, PP_E_INPUT,
     "the profile store is damaged; restore a copy, or delete it and profile again"},
    {SQLITE_CONSTRAINT, PP_E_INPUT,
     "the profile store is damaged (its rows contradict each other); restore a copy, or delete it "
     "and profile again"},
    {SQLITE_ERROR, PP_E_INPUT,
     "the tables in this file are not those of a profile store; give --db another file name"},
    {SQLITE_BUSY, PP_E_IO,
     "another process keeps the profile store locked; try again when it has finished"},
    {SQLITE_LOCKED, PP_E_IO,
     "another process keeps the profile store locked; try again when it has finished"},
    {SQLITE_READONLY, PP_E_INPUT,
     "the profile store cannot be written: the file or its folder is read-only"},
    {SQLITE_CANTOPEN, PP_E_INPUT,
     "the profile store cannot be opened; check that the folder exists and that you may write to "
     "it"},
    {SQLITE_PERM, PP_E_INPUT, "no permission to use the profile store"},
    {SQLITE_AUTH, PP_E_INPUT, "no permission to use the profile store"},
    {SQLITE_FULL, PP_E_IO, "the disk is full; nothing of this session was stored"},
    {SQLITE_IOERR, PP_E_IO, "reading or writing the profile store failed"},
};

pp_status pp_store_sql_fail(pp_store *store, pp_error *error) {
    int code = sqlite3_errcode(store->db) & 0xff;
    store->failed_code = code;
    if (code == SQLITE_NOMEM) return pp_fail_memory(error);
    pp_status status = PP_E_FAILED;
    const char *message = "the profile store failed";
    for (size_t i = 0; i < sizeof sql_errors / sizeof *sql_errors; i++) {
        if (sql_errors[i].code != code) continue;
        status = sql_errors[i].status;
        message = sql_errors[i].message;
    }
    pp_fail(error, status, store->path, "%s", message);
    pp_fail_cause(error, sqlite3_errmsg(store->db));
    return status;
}

/* ---- statements ---- */

/* Whether a call that ended with `code` should be tried again; sleeps before saying yes. SQLite's
 * own busy handler has waited already where that is allowed; the sleep is for where it is not. */
static bool try_again(const pp_store *store, int code, int attempt) {
    if ((code & 0xff) != SQLITE_BUSY || attempt >= store->busy_attempts) return false;
    if (pp_stop_signal()) return false;
    sqlite3_sleep(1 + attempt);
    return true;
}

static pp_status fail_or_interrupted(pp_store *store, int code, pp_error *error) {
    if ((code & 0xff) == SQLITE_BUSY && pp_stop_signal())
        return pp_fail(error, PP_E_INTERRUPTED, store->path,
                       "interrupted while waiting for a lock");
    return pp_store_sql_fail(store, error);
}

pp_status pp_store_sql_prepare(pp_store *store, const char *sql, sqlite3_stmt **statement,
                               pp_error *error) {
    *statement = NULL;
    int code = SQLITE_OK;
    for (int attempt = 1; attempt == 1 || try_again(store, code, attempt); attempt++) {
        code = sqlite3_prepare_v2(store->db, sql, -1, statement, NULL);
        if (code == SQLITE_OK) return PP_OK;
    }
    return fail_or_interrupted(store, code, error);
}

pp_status pp_store_sql_step(pp_store *store, sqlite3_stmt *statement, bool *row, pp_error *error) {
    int code = SQLITE_OK;
    *row = false;
    for (int attempt = 1; attempt == 1 || try_again(store, code, attempt); attempt++) {
        code = sqlite3_step(statement);
        *row = code == SQLITE_ROW;
        if (code == SQLITE_ROW || code == SQLITE_DONE) return PP_OK;
    }
    return fail_or_interrupted(store, code, error);
}

pp_status pp_store_sql_run(pp_store *store, const char *sql, pp_error *error) {
    pp_status status = PP_OK;
    while (status == PP_OK && *sql) {
        sqlite3_stmt *statement = NULL;
        bool row = true;
        status = pp_store_sql_prepare(store, sql, &statement, error);
        if (statement)
            sql += strlen(sqlite3_sql(statement));
        else if (status == PP_OK)
            break; /* nothing but spaces was left */
        while (status == PP_OK && row) status = pp_store_sql_step(store, statement, &row, error);
        sqlite3_finalize(statement);
    }
    return status;
}

pp_status pp_store_sql_int(pp_store *store, const char *sql, int64_t *value, pp_error *error) {
    sqlite3_stmt *statement;
    PP_TRY(pp_store_sql_prepare(store, sql, &statement, error));
    bool row;
    pp_status status = pp_store_sql_step(store, statement, &row, error);
    if (status == PP_OK && row) *value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return status;
}

pp_status pp_store_sql_end(pp_store *store, pp_status status, pp_error *error) {
    if (status == PP_OK) status = pp_store_sql_run(store, "COMMIT", error);
    if (status != PP_OK && !sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}
