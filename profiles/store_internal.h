/* The store from inside: its handle, the border to SQLite and the schema. Tests of damage, locks
 * and migrations use these too. */
#ifndef PPSIM_PROFILES_STORE_INTERNAL_H
#define PPSIM_PROFILES_STORE_INTERNAL_H

#include "profiles/profiles.h"

#include <sqlite3.h>

struct pp_store {
    sqlite3 *db;
    int busy_attempts; /* how often a locked file is tried, PP_STORE_BUSY_WAIT_MS each */
    bool read_only;
    int failed_code; /* SQLite's code of the last failure that was reported */
    char *path;      /* as the caller gave it, for messages */
};

#define PP_STORE_BUSY_WAIT_MS 500
#define PP_STORE_BUSY_ATTEMPTS 40 /* 20 s in all */

/* ---- store_sql.c: the border to SQLite ---- */

/* Makes SQLite allocate through pp_allocate. Must come before its first use in the process; any
 * later call does nothing. */
void pp_store_sql_start(void);

/* The error of the last SQLite call on the store, in our words. */
pp_status pp_store_sql_fail(pp_store *store, pp_error *error);

/* Runs statements that return nothing (several may be separated by semicolons). A locked file is
 * waited for: at most busy_attempts times PP_STORE_BUSY_WAIT_MS, stop requests are honoured. */
pp_status pp_store_sql_run(pp_store *store, const char *sql, pp_error *error);

/* The first column of the first row as an integer; no row leaves *value as it was. */
pp_status pp_store_sql_int(pp_store *store, const char *sql, int64_t *value, pp_error *error);

/* Prepares one statement; the caller finalizes. */
pp_status pp_store_sql_prepare(pp_store *store, const char *sql, sqlite3_stmt **statement,
                               pp_error *error);

/* Steps a statement, waiting as pp_store_sql_run does. *row: it stands on a row. */
pp_status pp_store_sql_step(pp_store *store, sqlite3_stmt *statement, bool *row, pp_error *error);

/* Ends the transaction that is open: COMMIT when status is PP_OK, else (or when COMMIT fails)
 * ROLLBACK. Returns the first failure. */
pp_status pp_store_sql_end(pp_store *store, pp_status status, pp_error *error);

/* ---- store_schema.c ---- */

typedef struct pp_store_migration {
    const char *sql; /* takes a store from version (its index) to the next */
} pp_store_migration;

extern const pp_store_migration pp_store_migrations[];
extern const int pp_store_version; /* the number of migrations */

/* Says what kind of file is open: *version is -1 for an empty database, else the store's version.
 * Not a store, damaged tables or a version above `newest` are PP_E_INPUT. Reads only. */
pp_status pp_store_recognise(pp_store *store, int newest, int *version, pp_error *error);

/* Brings the store to version `count` in one transaction; an empty file becomes a store. */
pp_status pp_store_migrate(pp_store *store, const pp_store_migration *migrations, int count,
                           pp_error *error);

/* ---- store_choose.c ---- */

/* Whether what was measured can be this kind of device: it is named after the backend ("cpu"), or
 * one name holds the other, or the first word of it ("h100" of "h100-sxm-80gb"). */
bool pp_session_may_be(const pp_session *session, const char *kind);

/* ---- checksums: store.c writes them, store_read.c verifies ---- */

uint64_t pp_store_session_checksum(const pp_session *session);
uint64_t pp_store_sample_checksum(uint64_t session_checksum, int64_t row, const pp_sample *sample);

#endif
