/* The store of raw measurements: opening, adding and deleting sessions. Reading is in store_read.c,
 * the tables in store_schema.c.
 *
 * A session is written with all its samples in one transaction that takes the write lock at its
 * beginning (BEGIN IMMEDIATE): under write-ahead logging a transaction that reads first and writes
 * later is refused when another wrote in between, and waiting does not help it. Processes therefore
 * queue up, none loses anything, and a process killed half-way leaves what was committed. */
#include "profiles/store_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- opening ---- */

#define SMALLEST_DATABASE_BYTES 512 /* one page of the smallest size */

/* Refuses early what SQLite would refuse with a poor message, or block on. */
static pp_status examine_path(const char *path, bool read_only, pp_error *error) {
    struct stat info;
    if (!*path) return pp_fail(error, PP_E_INPUT, "--db", "the name of the profile store is empty");
    bool exists = stat(path, &info) == 0;
    if (exists && S_ISREG(info.st_mode)) {
        /* SQLite takes a file of one byte for an empty one, and would write over it */
        if (info.st_size == 0 || info.st_size >= SMALLEST_DATABASE_BYTES) return PP_OK;
        return pp_fail(error, PP_E_INPUT, path,
                       "this is not a profile store (not an SQLite file); give --db another file "
                       "name");
    }
    if (exists && S_ISDIR(info.st_mode))
        return pp_fail(error, PP_E_INPUT, path,
                       "this is a folder; a profile store is a file, for example %s/profile.db",
                       path);
    if (exists) return pp_fail(error, PP_E_INPUT, path, "a profile store must be an ordinary file");
    if (!read_only && errno == ENOENT) return PP_OK;
    int reason = errno;
    pp_fail(error, PP_E_INPUT, path,
            "there is no profile store here; `ppsim profile MODEL --db %s` makes one", path);
    pp_fail_cause(error, strerror(reason));
    return PP_E_INPUT;
}

/* The path as SQLite must see it: never one of its special names, and as a URI on request. The
 * caller frees. */
static char *sqlite_path(const char *path, bool immutable) {
    pp_text text = {0};
    if (immutable) pp_text_string(&text, "file:");
    if (*path != '/') pp_text_string(&text, "./");
    for (; *path; path++) {
        bool escape = immutable && strchr("%?#", *path);
        if (escape)
            pp_text_printf(&text, "%%%02x", (unsigned char)*path);
        else
            pp_text_append(&text, path, 1);
    }
    if (immutable) pp_text_string(&text, "?immutable=1");
    if (text.failed) pp_text_deinit(&text);
    return text.bytes;
}

static pp_status open_database(pp_store *store, int flags, bool immutable, pp_error *error) {
    char *path = sqlite_path(store->path, immutable);
    if (!path) return pp_fail_memory(error);
    int code = sqlite3_open_v2(path, &store->db, flags | (immutable ? SQLITE_OPEN_URI : 0), NULL);
    pp_free(path);
    if (!store->db) return pp_fail_memory(error);
    if (code != SQLITE_OK) return pp_store_sql_fail(store, error);
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, PP_STORE_BUSY_WAIT_MS);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    return pp_store_sql_run(
        store, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON",
        error);
}

/* A store in a folder that we may not write to cannot have the side files of its log; when no log
 * is there, nobody is writing, and the file can be read as it stands. */
static pp_status reopen_immutable(pp_store *store, int *version, pp_error *error) {
    char *log = sqlite3_mprintf("%s-wal", store->path);
    if (!log) return pp_fail_memory(error);
    bool in_use = access(log, F_OK) == 0;
    sqlite3_free(log);
    if (in_use) return pp_store_sql_fail(store, error);
    sqlite3_close(store->db);
    store->db = NULL;
    PP_TRY(open_database(store, SQLITE_OPEN_READONLY, true, error));
    return pp_store_recognise(store, pp_store_version, version, error);
}

static pp_status open_for_reading(pp_store *store, pp_error *error) {
    int version = 0;
    PP_TRY(open_database(store, SQLITE_OPEN_READWRITE, false, error));
    pp_status status = pp_store_recognise(store, pp_store_version, &version, error);
    int code = store->failed_code;
    if (status != PP_OK && (code == SQLITE_CANTOPEN || code == SQLITE_READONLY))
        status = reopen_immutable(store, &version, error);
    PP_TRY(status);
    if (version < 0)
        return pp_fail(error, PP_E_INPUT, store->path,
                       "the file is empty; `ppsim profile MODEL --db %s` fills it", store->path);
    if (version < pp_store_version)
        return pp_fail(error, PP_E_INPUT, store->path,
                       "this profile store has version %d, this ppsim reads version %d; any "
                       "`ppsim profile MODEL --db %s` brings it up to date",
                       version, pp_store_version, store->path);
    return pp_store_sql_run(store, "PRAGMA query_only = ON", error);
}

static pp_status open_for_writing(pp_store *store, pp_error *error) {
    int version = 0;
    PP_TRY(open_database(store, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, false, error));
    if (sqlite3_db_readonly(store->db, "main") == 1)
        return pp_fail(error, PP_E_INPUT, store->path,
                       "no permission to write to the profile store; give --db another file name");
    PP_TRY(pp_store_recognise(store, pp_store_version, &version, error));
    PP_TRY(pp_store_sql_run(store, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", error));
    if (version == pp_store_version) return PP_OK;
    return pp_store_migrate(store, pp_store_migrations, pp_store_version, error);
}

pp_status pp_store_open(const char *path, bool read_only, pp_store **out, pp_error *error) {
    *out = NULL;
    PP_TRY(examine_path(path, read_only, error));
    pp_store_sql_start();
    size_t length = strlen(path) + 1;
    pp_store *store = pp_allocate_zeroed(1, sizeof *store + length);
    if (!store) return pp_fail_memory(error);
    store->path = memcpy(store + 1, path, length);
    store->read_only = read_only;
    store->busy_attempts = PP_STORE_BUSY_ATTEMPTS;
    pp_status status = read_only ? open_for_reading(store, error) : open_for_writing(store, error);
    if (status == PP_OK)
        *out = store;
    else
        pp_store_close(store);
    return status;
}

void pp_store_close(pp_store *store) {
    if (!store) return;
    sqlite3_close(store->db);
    pp_free(store);
}

/* ---- checksums ---- */

/* Byte by byte, so that a store means the same on every machine. */
static uint64_t hash_word(uint64_t hash, uint64_t word) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(word >> (8 * i));
    return pp_hash(hash, bytes, sizeof bytes);
}

static uint64_t hash_string(uint64_t hash, const char *string, size_t capacity) {
    size_t length = strnlen(string, capacity);
    return pp_hash(hash_word(hash, length), string, length);
}

uint64_t pp_store_session_checksum(const pp_session *session) {
    uint64_t hash = hash_word(PP_HASH_START, (uint64_t)session->id);
    hash = hash_string(hash, session->device, sizeof session->device);
    hash = hash_string(hash, session->backend, sizeof session->backend);
    hash = hash_word(hash, (uint64_t)session->dtype);
    hash = hash_string(hash, session->driver, sizeof session->driver);
    hash = hash_string(hash, session->libraries, sizeof session->libraries);
    hash = hash_string(hash, session->clocks, sizeof session->clocks);
    hash = hash_string(hash, session->date, sizeof session->date);
    hash = hash_string(hash, session->model, sizeof session->model);
    return hash_word(hash, (uint64_t)session->sample_count);
}

uint64_t pp_store_sample_checksum(uint64_t session_checksum, int64_t row, const pp_sample *sample) {
    uint64_t duration_bits;
    memcpy(&duration_bits, &sample->duration_s, sizeof duration_bits);
    uint64_t hash = hash_word(session_checksum, (uint64_t)row);
    hash = hash_string(hash, sample->signature, sizeof sample->signature);
    hash = hash_string(hash, pp_phase_name(sample->phase), 64);
    hash = hash_word(hash, (uint64_t)sample->microbatch);
    hash = hash_word(hash, (uint64_t)sample->neighbours);
    return hash_word(hash, duration_bits);
}

/* ---- adding ---- */

static pp_status check_samples(const pp_store *store, const pp_sample *samples, size_t count,
                               pp_error *error) {
    if (store->read_only)
        return pp_fail(error, PP_E_INPUT, store->path, "the profile store was opened for reading");
    for (size_t i = 0; i < count; i++) {
        const pp_sample *sample = &samples[i];
        const char *wrong = NULL;
        if (!memchr(sample->signature, 0, sizeof sample->signature)) wrong = "signature";
        if (sample->phase < 0 || sample->phase >= PP_PHASE_COUNT) wrong = "phase";
        if (sample->microbatch < 0) wrong = "microbatch";
        if (sample->neighbours < 0) wrong = "number of neighbours";
        if (!isfinite(sample->duration_s) || sample->duration_s < 0) wrong = "duration";
        if (wrong)
            return pp_fail(error, PP_E_INPUT, store->path,
                           "sample %zu has an impossible %s; nothing was stored", i, wrong);
    }
    return PP_OK;
}

static int bind_string(sqlite3_stmt *statement, int column, const char *string, size_t capacity) {
    return sqlite3_bind_text(statement, column, string, (int)strnlen(string, capacity),
                             SQLITE_STATIC);
}

static pp_status insert_session(pp_store *store, const pp_session *session, pp_error *error) {
    sqlite3_stmt *insert;
    PP_TRY(pp_store_sql_prepare(
        store, "INSERT INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)", &insert,
        error));
    sqlite3_bind_int64(insert, 1, session->id);
    bind_string(insert, 2, session->device, sizeof session->device);
    bind_string(insert, 3, session->backend, sizeof session->backend);
    bind_string(insert, 4, pp_dtype_name(session->dtype), 64);
    bind_string(insert, 5, session->driver, sizeof session->driver);
    bind_string(insert, 6, session->libraries, sizeof session->libraries);
    bind_string(insert, 7, session->clocks, sizeof session->clocks);
    bind_string(insert, 8, session->date, sizeof session->date);
    bind_string(insert, 9, session->model, sizeof session->model);
    sqlite3_bind_int64(insert, 10, session->sample_count);
    sqlite3_bind_int64(insert, 11, (int64_t)pp_store_session_checksum(session));
    bool row;
    pp_status status = pp_store_sql_step(store, insert, &row, error);
    sqlite3_finalize(insert);
    return status;
}

/* The two statements that every sample of a session needs. */
typedef struct sample_writer {
    sqlite3_stmt *key, *insert;
    uint64_t session_checksum;
    int64_t session, row; /* row: of the next sample */
} sample_writer;

static pp_status write_sample(pp_store *store, sample_writer *writer, const pp_sample *given,
                              pp_error *error) {
    pp_sample sample = *given;
    sample.duration_s += 0.0; /* SQLite has no negative zero */
    bool row;
    bind_string(writer->key, 1, sample.signature, sizeof sample.signature);
    PP_TRY(pp_store_sql_step(store, writer->key, &row, error));
    sqlite3_reset(writer->key);

    sqlite3_stmt *insert = writer->insert;
    sqlite3_bind_int64(insert, 1, writer->row);
    sqlite3_bind_int64(insert, 2, writer->session);
    bind_string(insert, 3, sample.signature, sizeof sample.signature);
    bind_string(insert, 4, pp_phase_name(sample.phase), 64);
    sqlite3_bind_int64(insert, 5, sample.microbatch);
    sqlite3_bind_int64(insert, 6, sample.neighbours);
    sqlite3_bind_double(insert, 7, sample.duration_s);
    uint64_t checksum = pp_store_sample_checksum(writer->session_checksum, writer->row, &sample);
    sqlite3_bind_int64(insert, 8, (int64_t)checksum);
    PP_TRY(pp_store_sql_step(store, insert, &row, error));
    sqlite3_reset(insert);
    writer->row++;
    return PP_OK;
}

static pp_status insert_samples(pp_store *store, const pp_session *session,
                                const pp_sample *samples, size_t count, pp_error *error) {
    sample_writer writer = {.session = session->id,
                            .session_checksum = pp_store_session_checksum(session)};
    pp_status status =
        pp_store_sql_int(store, "SELECT coalesce(max(id), 0) + 1 FROM sample", &writer.row, error);
    if (status == PP_OK)
        status = pp_store_sql_prepare(
            store, "INSERT OR IGNORE INTO layer_key (signature) VALUES (?1)", &writer.key, error);
    if (status == PP_OK)
        status = pp_store_sql_prepare(
            store,
            "INSERT INTO sample VALUES (?1, ?2, (SELECT id FROM layer_key WHERE signature = ?3),"
            " ?4, ?5, ?6, ?7, ?8)",
            &writer.insert, error);
    for (size_t i = 0; status == PP_OK && i < count; i++)
        status = write_sample(store, &writer, &samples[i], error);
    sqlite3_finalize(writer.key);
    sqlite3_finalize(writer.insert);
    return status;
}

static pp_status add_inside(pp_store *store, pp_session *session, const pp_sample *samples,
                            size_t count, pp_error *error) {
    /* ids are ours to choose, since the checksums cover them; sqlite_sequence remembers the deleted
     */
    session->id = 1;
    PP_TRY(pp_store_sql_int(store, "SELECT seq + 1 FROM sqlite_sequence WHERE name = 'session'",
                            &session->id, error));
    PP_TRY(insert_session(store, session, error));
    return insert_samples(store, session, samples, count, error);
}

pp_status pp_store_add(pp_store *store, pp_session *session, const pp_sample *samples, size_t count,
                       pp_error *error) {
    PP_TRY(check_samples(store, samples, count, error));
    pp_session stored = *session;
    stored.sample_count = (int64_t)count;
    PP_TRY(pp_store_sql_run(store, "BEGIN IMMEDIATE", error));
    pp_status status = add_inside(store, &stored, samples, count, error);
    PP_TRY(pp_store_sql_end(store, status, error));
    session->id = stored.id;
    session->sample_count = stored.sample_count;
    return PP_OK;
}

/* ---- deleting ---- */

/* Checks no checksum: deleting is how a damaged session is got rid of. */
static pp_status delete_inside(pp_store *store, int64_t session_id, pp_error *error) {
    char sql[96];
    snprintf(sql, sizeof sql, "DELETE FROM session WHERE id = %lld", (long long)session_id);
    PP_TRY(pp_store_sql_run(store, sql, error));
    if (sqlite3_changes(store->db) > 0) return PP_OK;
    return pp_fail(error, PP_E_INPUT, store->path,
                   "there is no session %lld; `ppsim profile --db %s --list` shows what there is",
                   (long long)session_id, store->path);
}

pp_status pp_store_delete(pp_store *store, int64_t session_id, pp_error *error) {
    if (store->read_only)
        return pp_fail(error, PP_E_INPUT, store->path, "the profile store was opened for reading");
    PP_TRY(pp_store_sql_run(store, "BEGIN IMMEDIATE", error));
    return pp_store_sql_end(store, delete_inside(store, session_id, error), error);
}
