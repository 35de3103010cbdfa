/* The store: what goes in comes out, which sessions win, who may write when. */
#include "tests/live_bytes.h"
#include "tests/profiles/store_support.h"

#include <float.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

COUNTED_SUITE(store, .timeout = 60);

static void expect_same(const pp_sample *a, const pp_sample *b) {
    cr_assert_str_eq(a->signature, b->signature);
    cr_assert_eq(a->phase, b->phase);
    cr_assert_eq(a->microbatch, b->microbatch);
    cr_assert_eq(a->neighbours, b->neighbours);
    cr_assert_eq(memcmp(&a->duration_s, &b->duration_s, sizeof a->duration_s), 0);
}

static size_t count_samples(const char *path) {
    pp_store *store = store_must_open(path, true);
    pp_sample *samples;
    size_t count;
    pp_error error = {0};
    cr_assert(pp_store_samples(store, 0, NULL, NULL, PP_FP32, &samples, &count, &error) == PP_OK,
              "%s", error.message);
    pp_free(samples);
    pp_store_close(store);
    return count;
}

static size_t count_sessions(const char *path) {
    pp_store *store = store_must_open(path, true);
    pp_session *sessions;
    size_t count;
    pp_error error = {0};
    cr_assert(pp_store_sessions(store, &sessions, &count, &error) == PP_OK, "%s", error.message);
    pp_free(sessions);
    pp_store_close(store);
    return count;
}

/* Every finite double must come back bit for bit, the awkward ones included. */
Test(store, round_trip_is_exact) {
    scratch made = scratch_make();
    static const double awkward[] = {0.0,     5e-324,  DBL_MIN, 1e-9, 0.1,
                                     1.0 / 3, 1.0,     4096.0,  1e6,  9007199254740993.0,
                                     1e300,   DBL_MAX, 2.5e-5,  3.0,  123456789012345678.0};
    enum { awkward_count = sizeof awkward / sizeof *awkward, count = 500 };
    pp_random_key key = pp_random_key_make(7, "round trip", 0);
    pp_sample samples[count];
    for (int i = 0; i < count; i++) {
        double value = i < awkward_count ? awkward[i] : pp_random_unit(key, (uint64_t)i) * 1e-3;
        samples[i] =
            sample_make("linear dim=8", (pp_phase)(i % PP_PHASE_COUNT), 1 + i, i % 3, value);
    }
    pp_store *store = store_must_open(made.db, false);
    pp_session session = session_make("cpu", PP_FP64);
    cr_assert_eq(pp_store_add(store, &session, samples, count, NULL), PP_OK);
    cr_assert_eq(session.sample_count, count);
    pp_store_close(store);

    store = store_must_open(made.db, true);
    pp_sample *read;
    size_t read_count;
    cr_assert_eq(pp_store_samples(store, session.id, NULL, NULL, PP_FP32, &read, &read_count, NULL),
                 PP_OK);
    cr_assert_eq(read_count, count);
    for (size_t i = 0; i < read_count; i++) expect_same(&read[i], &samples[read[i].microbatch - 1]);
    pp_free(read);

    pp_session *sessions;
    cr_assert_eq(pp_store_sessions(store, &sessions, &read_count, NULL), PP_OK);
    cr_assert_eq(read_count, 1);
    cr_assert_eq(memcmp(&sessions[0], &session, sizeof session), 0);
    pp_free(sessions);
    pp_store_close(store);
    cr_assert_eq(pp_live_bytes(), 0);
    scratch_remove(&made);
}

Test(store, strings_of_full_length_survive) {
    scratch made = scratch_make();
    pp_session session = session_make("cpu", PP_FP32);
    memset(session.device, 'd', sizeof session.device - 1);
    memset(session.libraries, 'l', sizeof session.libraries - 1);
    pp_sample sample = sample_make("", PP_PHASE_FORWARD, 1, 0, 1.0);
    memset(sample.signature, 's', sizeof sample.signature - 1);
    pp_store *store = store_must_open(made.db, false);
    cr_assert_eq(pp_store_add(store, &session, &sample, 1, NULL), PP_OK);
    pp_sample *samples;
    size_t count;
    cr_assert_eq(pp_store_samples(store, 0, "cpu", NULL, PP_FP32, &samples, &count, NULL), PP_OK);
    cr_assert_eq(count, 1);
    expect_same(&samples[0], &sample);
    pp_free(samples);
    pp_store_close(store);
    scratch_remove(&made);
}

/* Three sessions: the newest that measured a key wins, with all of its raw samples. */
Test(store, newest_session_wins_per_key) {
    scratch made = scratch_make();
    pp_store *store = store_must_open(made.db, false);
    pp_sample old[] = {sample_make("a", PP_PHASE_FORWARD, 1, 0, 1.0),
                       sample_make("a", PP_PHASE_FORWARD, 1, 0, 2.0),
                       sample_make("a", PP_PHASE_FORWARD, 1, 1, 3.0),
                       sample_make("a", PP_PHASE_FORWARD, 2, 0, 4.0),
                       sample_make("a", PP_PHASE_INPUT, 1, 0, 5.0),
                       sample_make("b", PP_PHASE_FORWARD, 1, 0, 6.0)};
    pp_sample new[] = {sample_make("a", PP_PHASE_FORWARD, 1, 0, 10.0),
                       sample_make("a", PP_PHASE_FORWARD, 1, 0, 9.0),
                       sample_make("c", PP_PHASE_FORWARD, 1, 0, 11.0)};
    pp_sample other = sample_make("a", PP_PHASE_FORWARD, 1, 0, 99.0);
    pp_session sessions[] = {session_make("cpu", PP_FP32), session_make("cpu", PP_FP32),
                             session_make("cuda", PP_FP32), session_make("cpu", PP_FP64)};
    cr_assert_eq(pp_store_add(store, &sessions[0], old, 6, NULL), PP_OK);
    cr_assert_eq(pp_store_add(store, &sessions[1], new, 3, NULL), PP_OK);
    cr_assert_eq(pp_store_add(store, &sessions[2], &other, 1, NULL), PP_OK);
    cr_assert_eq(pp_store_add(store, &sessions[3], &other, 1, NULL), PP_OK);

    pp_sample *samples;
    size_t count;
    cr_assert_eq(pp_store_samples(store, 0, "cpu", NULL, PP_FP32, &samples, &count, NULL), PP_OK);
    static const double expected[] = {10.0, 9.0, 3.0, 4.0, 5.0, 6.0, 11.0};
    cr_assert_eq(count, 7);
    for (size_t i = 0; i < count; i++) cr_assert_eq(samples[i].duration_s, expected[i]);
    pp_free(samples);

    cr_assert_eq(pp_store_samples(store, 0, NULL, NULL, PP_FP32, &samples, &count, NULL), PP_OK);
    cr_assert_eq(count, 1, "the cuda session is the newest, and nothing of the cpu's is mixed in");
    cr_assert_eq(samples[0].duration_s, 99.0);
    pp_free(samples);

    cr_assert_eq(pp_store_samples(store, 0, "cpu", NULL, PP_BF16, &samples, &count, NULL), PP_OK);
    cr_assert_eq(count, 0);
    pp_free(samples);
    pp_store_close(store);
    scratch_remove(&made);
}

/* Two cards of one backend: a query is about one of them, and planning about the cluster's. */
Test(store, devices_are_kept_apart) {
    scratch made = scratch_make();
    pp_store *store = store_must_open(made.db, false);
    static const char *const devices[] = {"NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB"};
    for (int i = 0; i < 4; i++) { /* h100, a100, h100, a100 */
        pp_session session = session_make("cuda", PP_FP32);
        snprintf(session.device, sizeof session.device, "%s", devices[i % 2]);
        char name[2] = {(char)('a' + i / 2), 0};
        pp_sample sample = sample_make(name, PP_PHASE_FORWARD, 1, 0, 1.0 + i);
        cr_assert_eq(pp_store_add(store, &session, &sample, 1, NULL), PP_OK);
    }
    for (int i = 0; i < 3; i++) { /* the newest is an a100 */
        pp_sample *samples;
        size_t count;
        cr_assert_eq(pp_store_samples(store, 0, "cuda", i < 2 ? devices[i] : NULL, PP_FP32,
                                      &samples, &count, NULL),
                     PP_OK);
        cr_assert_eq(count, 2);
        cr_assert_eq(samples[0].duration_s, i == 0 ? 1 : 2);
        cr_assert_eq(samples[1].duration_s, i == 0 ? 3 : 4);
        pp_free(samples);
    }
    static const struct {
        const char *cluster;
        int chosen;
    } cases[] = {{"dgx-h100:1", 0}, {"dgx-a100:1", 1}, {"local", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_cluster *cluster;
        pp_session session;
        bool found;
        cr_assert_eq(pp_cluster_open(cases[i].cluster, 1, &cluster, NULL), PP_OK);
        cr_assert_eq(pp_store_choose(store, cluster, NULL, PP_FP32, &session, &found, NULL), PP_OK);
        cr_assert(found);
        cr_assert_str_eq(session.device, devices[cases[i].chosen], "%s", cases[i].cluster);
        cr_assert_eq(pp_store_choose(store, cluster, "cpu", PP_FP32, &session, &found, NULL),
                     PP_OK);
        cr_assert(!found);
        pp_cluster_free(cluster);
    }
    pp_store_close(store);
    scratch_remove(&made);
}

Test(store, hash_follows_what_a_query_returns) {
    scratch made = scratch_make();
    pp_store *store = store_must_open(made.db, false);
    uint64_t hash[5];
    store_must_add(store, "cpu", "a", 5, 1e-3);
    cr_assert_eq(pp_store_hash(store, "cpu", PP_FP32, &hash[0], NULL), PP_OK);
    int64_t second = store_must_add(store, "cpu", "a", 5, 2e-3);
    cr_assert_eq(pp_store_hash(store, "cpu", PP_FP32, &hash[1], NULL), PP_OK);
    store_must_add(store, "cuda", "a", 5, 3e-3);
    cr_assert_eq(pp_store_hash(store, "cpu", PP_FP32, &hash[2], NULL), PP_OK);
    cr_assert_eq(pp_store_delete(store, second, NULL), PP_OK);
    cr_assert_eq(pp_store_hash(store, "cpu", PP_FP32, &hash[3], NULL), PP_OK);
    cr_assert_eq(pp_store_hash(store, "cuda", PP_FP32, &hash[4], NULL), PP_OK);
    cr_assert_neq(hash[0], hash[1]);
    cr_assert_eq(hash[1], hash[2]);
    cr_assert_eq(hash[0], hash[3]);
    cr_assert_neq(hash[4], hash[3]);
    pp_store_close(store);
    scratch_remove(&made);
}

static int64_t rows_of(pp_store *store, const char *table) {
    char sql[64];
    int64_t rows = -1;
    snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", table);
    cr_assert_eq(pp_store_sql_int(store, sql, &rows, NULL), PP_OK);
    return rows;
}

Test(store, delete_removes_a_session_with_its_samples) {
    scratch made = scratch_make();
    pp_store *store = store_must_open(made.db, false);
    int64_t first = store_must_add(store, "cpu", "a", 10, 1e-3);
    int64_t second = store_must_add(store, "cpu", "b", 20, 1e-3);
    cr_assert_eq(pp_store_delete(store, second, NULL), PP_OK);
    cr_assert_eq(rows_of(store, "session"), 1);
    cr_assert_eq(rows_of(store, "sample"), 10);

    pp_error error = {0};
    cr_assert_eq(pp_store_delete(store, second, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "no session 2"), "%s", error.message);
    pp_sample *samples;
    size_t count;
    cr_assert_eq(pp_store_samples(store, second, NULL, NULL, PP_FP32, &samples, &count, &error),
                 PP_E_INPUT);
    int64_t third = store_must_add(store, "cpu", "b", 1, 1e-3);
    cr_assert_eq(third, 3, "a deleted number is never given again");
    cr_assert_eq(pp_store_delete(store, first, NULL), PP_OK);
    cr_assert_eq(pp_store_delete(store, third, NULL), PP_OK);
    cr_assert_eq(rows_of(store, "sample"), 0);
    pp_store_close(store);
    scratch_remove(&made);
}

/* A refused session leaves nothing behind. */
Test(store, impossible_samples_are_refused_whole) {
    scratch made = scratch_make();
    pp_store *store = store_must_open(made.db, false);
    pp_sample good = sample_make("a", PP_PHASE_FORWARD, 1, 0, 1e-3);
    pp_sample bad[] = {good, good, good, good, good, good};
    bad[0].duration_s = NAN;
    bad[1].duration_s = INFINITY;
    bad[2].duration_s = -1e-9;
    bad[3].microbatch = -1;
    bad[4].neighbours = -2;
    memset(bad[5].signature, 'x', sizeof bad[5].signature);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pp_sample pair[] = {good, bad[i]};
        pp_session session = session_make("cpu", PP_FP32);
        pp_error error = {0};
        cr_assert_eq(pp_store_add(store, &session, pair, 2, &error), PP_E_INPUT);
        cr_assert(strstr(error.message, "sample 1"), "%s", error.message);
    }
    cr_assert_eq(rows_of(store, "session"), 0);
    cr_assert_eq(rows_of(store, "sample"), 0);
    pp_store_close(store);
    scratch_remove(&made);
}

Test(store, reading_does_not_write) {
    scratch made = scratch_make();
    pp_store *store = store_must_open(made.db, false);
    store_must_add(store, "cpu", "a", 3, 1e-3);
    pp_store_close(store);
    pp_text before = file_contents(made.db);

    store = store_must_open(made.db, true);
    pp_session session = session_make("cpu", PP_FP32);
    cr_assert_eq(pp_store_add(store, &session, NULL, 0, NULL), PP_E_INPUT);
    cr_assert_eq(pp_store_delete(store, 1, NULL), PP_E_INPUT);
    cr_assert_neq(pp_store_sql_run(store, "DELETE FROM sample", NULL), PP_OK);
    pp_store_close(store);
    cr_assert_eq(count_samples(made.db), 3);

    pp_text after = file_contents(made.db);
    cr_assert(before.length == after.length &&
              memcmp(before.bytes, after.bytes, after.length) == 0);
    char side[128];
    snprintf(side, sizeof side, "%s-wal", made.db);
    cr_assert(access(side, F_OK) != 0, "the log is left behind");
    pp_text_deinit(&before);
    pp_text_deinit(&after);
    scratch_remove(&made);
}

/* A name that SQLite would take for a URI, a parameter or memory is a file name to us. */
Test(store, odd_file_names) {
    scratch made = scratch_make();
    static const char *const names[] = {":memory:",  "file:x?mode=memory", "a%20b.db",
                                        "q?a=1&b#c", "sp ace.db",          "\xc3\xa9.db"};
    cr_assert_eq(chdir(made.folder), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pp_store *store = store_must_open(names[i], false);
        store_must_add(store, "cpu", "a", 2, 1e-3);
        pp_store_close(store);
        cr_assert_eq(access(names[i], F_OK), 0, "%s", names[i]);
        cr_assert_eq(count_samples(names[i]), 2);
    }
    cr_assert_eq(chdir("/"), 0);
    scratch_remove(&made);
}

/* ---- several processes ---- */

static pid_t spawn_writer(const char *path, int sessions, const char *signature) {
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child) return child;
    for (int i = 0; i < sessions; i++) {
        pp_store *store;
        if (pp_store_open(path, false, &store, NULL) != PP_OK) _exit(1);
        pp_session session = session_make("cpu", PP_FP32);
        pp_sample samples[20];
        for (int j = 0; j < 20; j++)
            samples[j] = sample_make(signature, PP_PHASE_FORWARD, 1 + i, 0, 1e-3 * j);
        if (pp_store_add(store, &session, samples, 20, NULL) != PP_OK) _exit(2);
        pp_store_close(store);
    }
    _exit(0);
}

/* The two also race to create the file. */
Test(store, two_writers_lose_nothing) {
    scratch made = scratch_make();
    pid_t writers[] = {spawn_writer(made.db, 50, "a"), spawn_writer(made.db, 50, "b")};
    for (int i = 0; i < 2; i++) {
        int status = -1;
        cr_assert_eq(waitpid(writers[i], &status, 0), writers[i]);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "writer %d: status %d", i, status);
    }
    cr_assert_eq(count_sessions(made.db), 100);
    cr_assert_eq(count_samples(made.db), 2 * 50 * 20);
    scratch_remove(&made);
}

/* Adds sessions of 300 samples until killed; reports each committed one through the pipe. */
static pid_t spawn_victim(const char *path, int reports) {
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child) return child;
    pp_store *store;
    if (pp_store_open(path, false, &store, NULL) != PP_OK) _exit(1);
    pp_sample samples[300];
    for (int i = 0; i < 300; i++)
        samples[i] = sample_make("linear dim=64", PP_PHASE_WEIGHT, 1 + i, 0, 1e-4 * i);
    for (;;) {
        pp_session session = session_make("cpu", PP_FP32);
        if (pp_store_add(store, &session, samples, 300, NULL) != PP_OK) _exit(2);
        if (write(reports, "x", 1) != 1) _exit(3);
    }
}

/* Killed at random moments, creation of the file included. */
Test(store, killed_writers_leave_every_committed_session) {
    const uint64_t seed = 20261121;
    scratch made = scratch_make();
    pp_random_key key = pp_random_key_make(seed, "kill", 0);
    size_t committed_in_all = 0;
    for (uint64_t trial = 0; trial < 40; trial++) {
        int reports[2];
        cr_assert_eq(pipe(reports), 0);
        pid_t child = spawn_victim(made.db, reports[1]);
        close(reports[1]);
        long microseconds = (long)pp_random_below(key, trial, trial % 4 ? 40000 : 4000);
        nanosleep(&(struct timespec){.tv_nsec = 1000 * microseconds}, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        size_t committed = 0;
        for (char byte; read(reports[0], &byte, 1) == 1;) committed++;
        close(reports[0]);
        committed_in_all += committed;

        pp_store *store = store_must_open(made.db, false);
        pp_session *sessions;
        size_t count;
        cr_assert_eq(pp_store_sessions(store, &sessions, &count, NULL), PP_OK);
        cr_assert(count >= committed, "seed %llu trial %llu: %zu of %zu sessions are left",
                  (unsigned long long)seed, (unsigned long long)trial, count, committed);
        for (size_t i = 0; i < count; i++) {
            pp_sample *samples;
            size_t sample_count;
            cr_assert_eq(pp_store_samples(store, sessions[i].id, NULL, NULL, PP_FP32, &samples,
                                          &sample_count, NULL),
                         PP_OK);
            cr_assert_eq(sample_count, 300);
            pp_free(samples);
        }
        pp_free(sessions);
        pp_store_close(store);
        scratch_empty(&made);
    }
    cr_assert(committed_in_all > 0, "no trial got as far as a commit: the test sees nothing");
    scratch_remove(&made);
}

/* Holds the write lock in another process until its pipe is closed. */
static pid_t spawn_holder(const char *path, int ready, int release) {
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child) return child;
    sqlite3 *db;
    char byte = 'r';
    if (sqlite3_open(path, &db) || sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL)) _exit(1);
    if (write(ready, &byte, 1) != 1 || read(release, &byte, 1) < 0) _exit(2);
    _exit(0);
}

Test(store, waiting_for_a_lock_ends) {
    scratch made = scratch_make();
    pp_store *store = store_must_open(made.db, false);
    store_must_add(store, "cpu", "a", 1, 1e-3);
    int ready[2], release[2];
    cr_assert(pipe(ready) == 0 && pipe(release) == 0);
    pid_t holder = spawn_holder(made.db, ready[1], release[0]);
    char byte;
    cr_assert_eq(read(ready[0], &byte, 1), 1);

    store->busy_attempts = 2;
    sqlite3_busy_timeout(store->db, 20);
    pp_session session = session_make("cpu", PP_FP32);
    pp_error error = {0};
    cr_assert_eq(pp_store_add(store, &session, NULL, 0, &error), PP_E_IO);
    cr_assert(strstr(error.message, "another process"), "%s", error.message);
    pp_session *sessions;
    size_t count;
    cr_assert_eq(pp_store_sessions(store, &sessions, &count, NULL), PP_OK,
                 "readers do not wait for a writer");
    pp_free(sessions);

    store->busy_attempts = 1000000;
    pp_stop_request(SIGINT);
    cr_assert_eq(pp_store_add(store, &session, NULL, 0, &error), PP_E_INTERRUPTED);
    pp_stop_request(0);

    close(release[0]);
    close(release[1]); /* the holder's read ends: it exits and the lock is free */
    kill(holder, SIGKILL);
    waitpid(holder, NULL, 0);
    cr_assert_eq(pp_store_add(store, &session, NULL, 0, &error), PP_OK);
    pp_store_close(store);
    scratch_remove(&made);
}

/* ---- migrations ---- */

Test(store, migrations_keep_what_is_there) {
    scratch made = scratch_make();
    pp_store *store = store_must_open(made.db, false);
    store_must_add(store, "cpu", "a", 4, 1e-3);
    int newer = pp_store_version + 1;
    pp_store_migration steps[8];
    memcpy(steps, pp_store_migrations, (size_t)pp_store_version * sizeof *steps);

    steps[newer - 1].sql =
        "ALTER TABLE session ADD COLUMN note TEXT; INSERT INTO nowhere VALUES (1)";
    cr_assert_neq(pp_store_migrate(store, steps, newer, NULL), PP_OK);
    int version = 0;
    cr_assert_eq(pp_store_recognise(store, pp_store_version, &version, NULL), PP_OK);
    cr_assert_eq(version, pp_store_version, "a failed migration leaves the old version");

    steps[newer - 1].sql = "ALTER TABLE session ADD COLUMN note TEXT";
    cr_assert_eq(pp_store_migrate(store, steps, newer, NULL), PP_OK);
    cr_assert_eq(pp_store_recognise(store, newer, &version, NULL), PP_OK);
    cr_assert_eq(version, newer);
    pp_sample *samples;
    size_t count;
    cr_assert_eq(pp_store_samples(store, 0, "cpu", NULL, PP_FP32, &samples, &count, NULL), PP_OK);
    cr_assert_eq(count, 4);
    pp_free(samples);
    pp_store_close(store);

    pp_error error = {0};
    cr_assert_eq(pp_store_open(made.db, false, &store, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "newer ppsim"), "%s", error.message);
    scratch_remove(&made);
}
