/* Reading the store: no number leaves it unless its row's checksum holds and no row is missing.
 *
 * A query reads all sessions of one device that match, verifies every row of them, and then keeps,
 * for each (signature, phase, microbatch, neighbours), the samples of the newest session that
 * measured it: profiling again replaces a part without losing the rest. Damage anywhere in a
 * matching session refuses the query: a damaged key could otherwise make samples vanish silently.
 */
#include "profiles/store_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- rows ---- */

/* Copies a text column; false if it is no text, holds a NUL or is too long for the buffer. */
static bool read_text(sqlite3_stmt *statement, int column, char *buffer, size_t capacity) {
    if (sqlite3_column_type(statement, column) != SQLITE_TEXT) return false;
    const unsigned char *text = sqlite3_column_text(statement, column);
    size_t length = (size_t)sqlite3_column_bytes(statement, column);
    if (!text || length >= capacity || memchr(text, 0, length)) return false;
    memcpy(buffer, text, length);
    buffer[length] = '\0';
    return true;
}

static bool read_int(sqlite3_stmt *statement, int column, int64_t *value) {
    *value = sqlite3_column_int64(statement, column);
    return sqlite3_column_type(statement, column) == SQLITE_INTEGER;
}

static bool phase_from_name(const char *name, pp_phase *phase) {
    for (int i = 0; i < PP_PHASE_COUNT; i++) {
        *phase = (pp_phase)i;
        if (strcmp(name, pp_phase_name(*phase)) == 0) return true;
    }
    return false;
}

static pp_status damaged(const pp_store *store, const char *table, int64_t row, int64_t session,
                         pp_error *error) {
    return pp_fail(error, PP_E_INPUT, store->path,
                   "row %lld of table %s is damaged (its checksum does not hold); `ppsim profile "
                   "--db %s --delete %lld` removes the session it belongs to, then profile again",
                   (long long)row, table, store->path, (long long)session);
}

/* ---- sessions ---- */

#define SESSION_COLUMNS                                                                            \
    "id, device, backend, dtype, driver, libraries, clocks, date, model, sample_count, checksum"

static bool read_session(sqlite3_stmt *statement, pp_session *session) {
    char dtype[16];
    int64_t checksum;
    memset(session, 0, sizeof *session);
    return read_int(statement, 0, &session->id) &&
           read_text(statement, 1, session->device, sizeof session->device) &&
           read_text(statement, 2, session->backend, sizeof session->backend) &&
           read_text(statement, 3, dtype, sizeof dtype) &&
           pp_dtype_from_name(dtype, &session->dtype) &&
           read_text(statement, 4, session->driver, sizeof session->driver) &&
           read_text(statement, 5, session->libraries, sizeof session->libraries) &&
           read_text(statement, 6, session->clocks, sizeof session->clocks) &&
           read_text(statement, 7, session->date, sizeof session->date) &&
           read_text(statement, 8, session->model, sizeof session->model) &&
           read_int(statement, 9, &session->sample_count) && session->sample_count >= 0 &&
           read_int(statement, 10, &checksum) &&
           (uint64_t)checksum == pp_store_session_checksum(session);
}

/* A growing array; grows by doubling. */
typedef struct session_list {
    pp_session *items;
    size_t count, capacity;
} session_list;

static void *grow(void *items, size_t count, size_t *capacity, size_t item_bytes) {
    if (count < *capacity) return items;
    size_t wanted = *capacity ? 2 * *capacity : 64;
    void *grown = pp_reallocate(items, wanted * item_bytes);
    if (grown) *capacity = wanted;
    return grown;
}

static pp_status append_session(const pp_store *store, sqlite3_stmt *statement, session_list *list,
                                pp_error *error) {
    pp_session *items = grow(list->items, list->count, &list->capacity, sizeof *items);
    if (!items) return pp_fail_memory(error);
    list->items = items;
    pp_session *session = &items[list->count];
    if (!read_session(statement, session)) {
        if (sqlite3_errcode(store->db) == SQLITE_NOMEM) return pp_fail_memory(error);
        return damaged(store, "session", session->id, session->id, error);
    }
    list->count++;
    return PP_OK;
}

/* All sessions, newest first. */
static pp_status read_sessions(pp_store *store, session_list *list, pp_error *error) {
    sqlite3_stmt *statement;
    PP_TRY(pp_store_sql_prepare(store, "SELECT " SESSION_COLUMNS " FROM session ORDER BY id DESC",
                                &statement, error));
    bool row;
    pp_status status;
    while ((status = pp_store_sql_step(store, statement, &row, error)) == PP_OK && row)
        if ((status = append_session(store, statement, list, error)) != PP_OK) break;
    sqlite3_finalize(statement);
    return status;
}

pp_status pp_store_sessions(pp_store *store, pp_session **sessions, size_t *count,
                            pp_error *error) {
    session_list list = {0};
    pp_status status = read_sessions(store, &list, error);
    if (status != PP_OK) {
        pp_free(list.items);
        list = (session_list){0};
    }
    *sessions = list.items;
    *count = list.count;
    return status;
}

/* ---- samples ---- */

typedef struct loaded {
    pp_sample sample;
    int64_t session, row;
} loaded;

typedef struct sample_list {
    loaded *items;
    size_t count, capacity;
} sample_list;

static bool read_sample(sqlite3_stmt *statement, uint64_t session_checksum, loaded *item) {
    char phase[32];
    int64_t neighbours, checksum;
    pp_sample *sample = &item->sample;
    if (!read_int(statement, 0, &item->row) ||
        !read_text(statement, 1, sample->signature, sizeof sample->signature) ||
        !read_text(statement, 2, phase, sizeof phase) || !phase_from_name(phase, &sample->phase) ||
        !read_int(statement, 3, &sample->microbatch) || !read_int(statement, 4, &neighbours) ||
        neighbours < 0 || neighbours > INT32_MAX ||
        sqlite3_column_type(statement, 5) != SQLITE_FLOAT || !read_int(statement, 6, &checksum))
        return false;
    sample->neighbours = (int)neighbours;
    sample->duration_s = sqlite3_column_double(statement, 5);
    return (uint64_t)checksum == pp_store_sample_checksum(session_checksum, item->row, sample);
}

static pp_status append_sample(const pp_store *store, sqlite3_stmt *statement,
                               const pp_session *session, uint64_t session_checksum,
                               sample_list *list, pp_error *error) {
    loaded *items = grow(list->items, list->count, &list->capacity, sizeof *items);
    if (!items) return pp_fail_memory(error);
    list->items = items;
    loaded *item = &items[list->count];
    memset(item, 0, sizeof *item);
    item->session = session->id;
    if (!read_sample(statement, session_checksum, item)) {
        if (sqlite3_errcode(store->db) == SQLITE_NOMEM) return pp_fail_memory(error);
        return damaged(store, "sample", item->row, session->id, error);
    }
    list->count++;
    return PP_OK;
}

/* Who measures beside N neighbours on a device that is not a CPU has one of N + 1 slices of it, and
 * keeps it while the neighbours rest. */
static void tell_slices(const pp_session *session, loaded *items, size_t count) {
    int slices = 1;
    for (size_t i = 0; i < count && strcmp(session->backend, "cpu") != 0; i++)
        if (items[i].sample.neighbours >= slices) slices = items[i].sample.neighbours + 1;
    for (size_t i = 0; i < count; i++) items[i].sample.slices = slices;
}

static pp_status read_samples(pp_store *store, const pp_session *session, sample_list *list,
                              pp_error *error) {
    sqlite3_stmt *statement;
    PP_TRY(pp_store_sql_prepare(
        store,
        "SELECT s.id, k.signature, s.phase, s.microbatch, s.neighbours, s.duration_s, s.checksum"
        " FROM sample s LEFT JOIN layer_key k ON k.id = s.layer_key WHERE s.session = ?1"
        " ORDER BY s.id",
        &statement, error));
    sqlite3_bind_int64(statement, 1, session->id);
    uint64_t session_checksum = pp_store_session_checksum(session);
    size_t before = list->count;
    bool row;
    pp_status status;
    while ((status = pp_store_sql_step(store, statement, &row, error)) == PP_OK && row)
        if ((status = append_sample(store, statement, session, session_checksum, list, error)))
            break;
    sqlite3_finalize(statement);
    PP_TRY(status);
    tell_slices(session, &list->items[before], list->count - before);
    if (list->count - before == (size_t)session->sample_count) return PP_OK;
    return pp_fail(error, PP_E_INPUT, store->path,
                   "session %lld is damaged (%zu of its %lld samples are there); `ppsim profile "
                   "--db %s --delete %lld` removes it, then profile again",
                   (long long)session->id, list->count - before, (long long)session->sample_count,
                   store->path, (long long)session->id);
}

/* Same thing measured under the same conditions? */
static int compare_keys(const loaded *a, const loaded *b) {
    int order = strcmp(a->sample.signature, b->sample.signature);
    if (order) return order;
    if (a->sample.phase != b->sample.phase) return a->sample.phase < b->sample.phase ? -1 : 1;
    if (a->sample.microbatch != b->sample.microbatch)
        return a->sample.microbatch < b->sample.microbatch ? -1 : 1;
    if (a->sample.slices != b->sample.slices) return a->sample.slices < b->sample.slices ? -1 : 1;
    return (a->sample.neighbours > b->sample.neighbours) -
           (a->sample.neighbours < b->sample.neighbours);
}

/* Key first, then newest session, then the order of measuring. */
static int compare_loaded(const void *left, const void *right) {
    const loaded *a = left, *b = right;
    int order = compare_keys(a, b);
    if (order) return order;
    if (a->session != b->session) return a->session > b->session ? -1 : 1;
    return (a->row > b->row) - (a->row < b->row);
}

/* Of each key, the samples of its newest session; gives the array to the caller. */
static pp_status keep_newest(sample_list *list, pp_sample **samples, size_t *count,
                             pp_error *error) {
    if (list->count > 1) qsort(list->items, list->count, sizeof *list->items, compare_loaded);
    pp_sample *kept = pp_allocate((list->count ? list->count : 1) * sizeof *kept);
    if (!kept) return pp_fail_memory(error);
    const loaded *first = NULL; /* of the current key */
    for (size_t i = 0; i < list->count; i++) {
        const loaded *item = &list->items[i];
        if (!first || compare_keys(first, item) != 0) first = item;
        if (item->session == first->session) kept[(*count)++] = item->sample;
    }
    *samples = kept;
    return PP_OK;
}

typedef struct query {
    int64_t session_id;
    const char *backend, *device; /* NULL: any, until the newest session has decided */
    pp_dtype dtype;
} query;

static bool wanted(const pp_session *session, const query *asked) {
    if (asked->session_id) return session->id == asked->session_id;
    return session->dtype == asked->dtype &&
           (!asked->backend || strcmp(asked->backend, session->backend) == 0) &&
           (!asked->device || strcmp(asked->device, session->device) == 0);
}

static pp_status samples_inside(pp_store *store, query asked, sample_list *list, pp_error *error) {
    session_list sessions = {0};
    pp_status status = read_sessions(store, &sessions, error);
    size_t matches = 0;
    for (size_t i = 0; status == PP_OK && i < sessions.count; i++) { /* newest first */
        const pp_session *session = &sessions.items[i];
        if (!wanted(session, &asked)) continue;
        if (matches++ == 0) asked.backend = session->backend, asked.device = session->device;
        status = read_samples(store, session, list, error);
    }
    pp_free(sessions.items);
    int64_t session_id = asked.session_id;
    if (status == PP_OK && session_id && !matches)
        status = pp_fail(error, PP_E_INPUT, store->path,
                         "there is no session %lld; `ppsim profile --db %s --list` shows what "
                         "there is",
                         (long long)session_id, store->path);
    return status;
}

pp_status pp_store_samples(pp_store *store, int64_t session_id, const char *backend,
                           const char *device, pp_dtype dtype, pp_sample **samples, size_t *count,
                           pp_error *error) {
    query asked = {session_id, backend, device, dtype};
    sample_list list = {0};
    *samples = NULL;
    *count = 0;
    PP_TRY(pp_store_sql_run(store, "BEGIN", error)); /* one snapshot for all the reads */
    pp_status status = samples_inside(store, asked, &list, error);
    status = pp_store_sql_end(store, status, error);
    if (status == PP_OK) status = keep_newest(&list, samples, count, error);
    pp_free(list.items);
    return status;
}

pp_status pp_store_hash(pp_store *store, const char *backend, pp_dtype dtype, uint64_t *hash,
                        pp_error *error) {
    pp_sample *samples;
    size_t count;
    PP_TRY(pp_store_samples(store, 0, backend, NULL, dtype, &samples, &count, error));
    *hash = PP_HASH_START;
    for (size_t i = 0; i < count; i++)
        *hash = pp_store_sample_checksum(*hash, (int64_t)i, &samples[i]);
    pp_free(samples);
    return PP_OK;
}
