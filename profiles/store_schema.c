/* What a profile store looks like inside, how an older one becomes a newer one, and how to tell a
 * store from any other file.
 *
 *   session    one row per call of `ppsim profile`: what all its samples have in common
 *   layer_key  the distinct signatures ("gpt_block dim=64 …", "link", "action")
 *   sample     one row per raw measurement; nothing is averaged before it is stored
 *
 * Rows of session and sample carry a checksum of our own: SQLite's integrity check looks at the
 * structure of pages, not at the numbers in them. The checksum of a sample covers its session's, so
 * a sample cannot change hands; the session's covers sample_count, so none can vanish.
 *
 * application_id says "this is a profile store", user_version how new it is. A released migration
 * is never edited: a change is one more row. */
#include "profiles/store_internal.h"

#include <stdio.h>

#define APPLICATION_ID 0x70707369 /* "ppsi" */

const pp_store_migration pp_store_migrations[] = {
    {"CREATE TABLE session ("
     "  id INTEGER PRIMARY KEY AUTOINCREMENT," /* never used again after a delete */
     "  device TEXT NOT NULL, backend TEXT NOT NULL, dtype TEXT NOT NULL, driver TEXT NOT NULL,"
     "  libraries TEXT NOT NULL, clocks TEXT NOT NULL, date TEXT NOT NULL, model TEXT NOT NULL,"
     "  sample_count INTEGER NOT NULL, checksum INTEGER NOT NULL) STRICT;"
     "CREATE TABLE layer_key ("
     "  id INTEGER PRIMARY KEY, signature TEXT NOT NULL UNIQUE) STRICT;"
     "CREATE TABLE sample ("
     "  id INTEGER PRIMARY KEY,"
     "  session INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,"
     "  layer_key INTEGER NOT NULL REFERENCES layer_key (id),"
     "  phase TEXT NOT NULL, microbatch INTEGER NOT NULL, neighbours INTEGER NOT NULL,"
     "  duration_s REAL NOT NULL, checksum INTEGER NOT NULL) STRICT;"
     "CREATE INDEX sample_session ON sample (session);"},
};
const int pp_store_version = sizeof pp_store_migrations / sizeof *pp_store_migrations;

/* Our three tables as real tables, and nothing that would run code while we read. */
static const char count_own_tables[] =
    "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND rootpage > 0"
    " AND name IN ('session', 'layer_key', 'sample')";
static const char count_foreign_objects[] =
    "SELECT count(*) FROM sqlite_schema WHERE type IN ('view', 'trigger')";

static pp_status not_a_store(const pp_store *store, pp_error *error) {
    return pp_fail(error, PP_E_INPUT, store->path,
                   "this SQLite file is not a ppsim profile store; give --db another file name");
}

static pp_status recognise_tables(pp_store *store, pp_error *error) {
    int64_t own = 0, foreign = 0;
    PP_TRY(pp_store_sql_int(store, count_own_tables, &own, error));
    PP_TRY(pp_store_sql_int(store, count_foreign_objects, &foreign, error));
    if (own == 3 && foreign == 0) return PP_OK;
    return pp_fail(error, PP_E_INPUT, store->path,
                   "the profile store is damaged (its tables are not the expected ones); restore a "
                   "copy, or delete it and profile again");
}

static pp_status recognise_inside(pp_store *store, int newest, int *version, pp_error *error) {
    int64_t application = 0, user_version = 0, objects = 0;
    PP_TRY(pp_store_sql_int(store, "PRAGMA application_id", &application, error));
    PP_TRY(pp_store_sql_int(store, "PRAGMA user_version", &user_version, error));
    PP_TRY(pp_store_sql_int(store, "SELECT count(*) FROM sqlite_schema", &objects, error));
    if (application == 0 && user_version == 0 && objects == 0) return PP_OK;
    if (application != APPLICATION_ID || user_version < 1) return not_a_store(store, error);
    if (user_version > newest)
        return pp_fail(error, PP_E_INPUT, store->path,
                       "this profile store has version %lld, written by a newer ppsim; this one "
                       "reads up to version %d: update ppsim or give --db another file name",
                       (long long)user_version, newest);
    *version = (int)user_version;
    return recognise_tables(store, error);
}

pp_status pp_store_recognise(pp_store *store, int newest, int *version, pp_error *error) {
    *version = -1;
    /* one snapshot: another process may be making the store right now */
    bool own_transaction = sqlite3_get_autocommit(store->db) != 0;
    if (own_transaction) PP_TRY(pp_store_sql_run(store, "BEGIN", error));
    pp_status status = recognise_inside(store, newest, version, error);
    return own_transaction ? pp_store_sql_end(store, status, error) : status;
}

static pp_status migrate_inside(pp_store *store, const pp_store_migration *migrations, int count,
                                pp_error *error) {
    /* another process may have done it since we looked */
    int version;
    PP_TRY(pp_store_recognise(store, count, &version, error));
    for (int i = version < 0 ? 0 : version; i < count; i++)
        PP_TRY(pp_store_sql_run(store, migrations[i].sql, error));
    char marks[96];
    snprintf(marks, sizeof marks, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             APPLICATION_ID, count);
    return pp_store_sql_run(store, marks, error);
}

pp_status pp_store_migrate(pp_store *store, const pp_store_migration *migrations, int count,
                           pp_error *error) {
    PP_TRY(pp_store_sql_run(store, "BEGIN IMMEDIATE", error));
    pp_status status = migrate_inside(store, migrations, count, error);
    return pp_store_sql_end(store, status, error);
}
