/* Damage, foreign files, missing rights and missing memory: the store says so, and never returns a
 * number that was not put in. */
#include "tests/live_bytes.h"
#include "tests/profiles/store_support.h"

#include <math.h>
#include <sys/wait.h>

COUNTED_SUITE(store_damage, .timeout = 120);

#define SAMPLES 40

/* The duration that sample i of the standard store was given. */
static double expected_duration(size_t i) {
    return 1e-3 * (double)(i + 1) / 3.0;
}

/* A store with one session of SAMPLES samples; microbatch i + 1 lasts expected_duration(i). */
static void make_standard_store(const char *path) {
    pp_sample samples[SAMPLES];
    for (size_t i = 0; i < SAMPLES; i++)
        samples[i] = sample_make(i % 2 ? "gpt_block dim=64 heads=4" : "linear dim=64",
                                 i % 3 ? PP_PHASE_INPUT : PP_PHASE_FORWARD, (int64_t)i + 1, 0,
                                 expected_duration(i));
    pp_session session = session_make("cpu", PP_FP32);
    pp_store *store = store_must_open(path, false);
    cr_assert_eq(pp_store_add(store, &session, samples, SAMPLES, NULL), PP_OK);
    pp_store_close(store);
}

/* Opens and reads everything. PP_OK only if all went well, and then checks that what came is what
 * was stored. */
static pp_status read_everything(const char *path, pp_error *error) {
    pp_store *store;
    pp_sample *samples = NULL;
    size_t count = 0;
    pp_status status = pp_store_open(path, true, &store, error);
    if (status != PP_OK) return status;
    status = pp_store_samples(store, 0, "cpu", NULL, PP_FP32, &samples, &count, error);
    if (status == PP_OK) {
        cr_assert_eq(count, SAMPLES, "%zu samples came back and no error", count);
        for (size_t i = 0; i < count; i++) {
            size_t index = (size_t)samples[i].microbatch - 1;
            cr_assert(index < SAMPLES);
            cr_assert_eq(samples[i].duration_s, expected_duration(index));
            cr_assert_str_eq(samples[i].signature,
                             index % 2 ? "gpt_block dim=64 heads=4" : "linear dim=64");
            cr_assert_eq(samples[i].phase, index % 3 ? PP_PHASE_INPUT : PP_PHASE_FORWARD);
            cr_assert_eq(samples[i].neighbours, 0);
        }
    }
    pp_free(samples);
    pp_store_close(store);
    return status;
}

/* Each of these leaves a file that SQLite finds nothing wrong with. */
static const char *const edits[] = {
    "UPDATE sample SET duration_s = duration_s * 2 WHERE id = 17",
    "UPDATE sample SET duration_s = duration_s * (1 + 3e-16) WHERE id = 3",
    "UPDATE sample SET microbatch = microbatch + 1 WHERE id = 17",
    "UPDATE sample SET neighbours = 1 WHERE id = 17",
    "UPDATE sample SET neighbours = -1 WHERE id = 17",
    "UPDATE sample SET neighbours = 4294967296 WHERE id = 17",
    "UPDATE sample SET phase = 'weight' WHERE id = 17",
    "UPDATE sample SET phase = 'nothing' WHERE id = 17",
    "UPDATE sample SET phase = '' WHERE id = 17",
    "UPDATE sample SET layer_key = 3 - layer_key WHERE id = 17",
    "UPDATE sample SET layer_key = 77 WHERE id = 17",
    "UPDATE sample SET checksum = checksum + 1 WHERE id = 17",
    "UPDATE sample SET id = 1000 WHERE id = 17",
    "UPDATE sample SET session = 2 WHERE id = 17",
    "DELETE FROM sample WHERE id = 17",
    "DELETE FROM sample",
    "DELETE FROM layer_key",
    "INSERT INTO sample SELECT 900, session, layer_key, phase, microbatch, neighbours, duration_s,"
    " checksum FROM sample WHERE id = 17",
    "UPDATE layer_key SET signature = 'linear dim=65' WHERE signature = 'linear dim=64'",
    "UPDATE layer_key SET signature = 'linear dim=64' || char(0) || 'x' WHERE id = 1",
    "UPDATE layer_key SET signature = hex(zeroblob(5000)) WHERE id = 1",
    "UPDATE session SET dtype = 'fp64'",
    "UPDATE session SET dtype = 'fp31'",
    "UPDATE session SET backend = 'cuda'",
    "UPDATE session SET device = 'another machine'",
    "UPDATE session SET sample_count = 39",
    "UPDATE session SET sample_count = -1",
    "UPDATE session SET checksum = 0",
    "UPDATE session SET id = 5",
    "UPDATE session SET date = hex(zeroblob(100))",
    "CREATE VIEW harmless AS SELECT 1",
    "CREATE TRIGGER t AFTER INSERT ON sample BEGIN DELETE FROM sample; END",
    "DROP TABLE sample",
    "DROP TABLE sample; CREATE TABLE sample (id INTEGER PRIMARY KEY)",
    "DROP TABLE sample; CREATE VIEW sample AS SELECT 1 AS id",
    "DROP TABLE layer_key; CREATE TABLE layer_key (id, signature)",
    "PRAGMA user_version = 0",
    "PRAGMA user_version = -3",
    "PRAGMA user_version = 99",
    "PRAGMA application_id = 1",
    /* NaN becomes NULL, which only a table without our constraints takes */
    "DROP TABLE sample; CREATE TABLE sample (id INTEGER PRIMARY KEY, session, layer_key, phase,"
    " microbatch, neighbours, duration_s, checksum);"
    "INSERT INTO sample VALUES (1, 1, 1, 'forward', 1, 0, NULL, 5)",
    "DROP TABLE sample; CREATE TABLE sample (id INTEGER PRIMARY KEY, session, layer_key, phase,"
    " microbatch, neighbours, duration_s, checksum);"
    "INSERT INTO sample VALUES (1, 1, 1, 'forward', 1, 0, '0.5', 5)",
    "DROP TABLE sample; CREATE TABLE sample (id INTEGER PRIMARY KEY, session, layer_key, phase,"
    " microbatch, neighbours, duration_s, checksum);"
    "INSERT INTO sample VALUES (1, 1, 1, x'00', 'four', 0, 0.5, NULL)",
};

Test(store_damage, edited_rows_are_refused) {
    scratch made = scratch_make();
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        scratch_empty(&made);
        make_standard_store(made.db);
        sql_behind(made.db, edits[i]);
        pp_error error = {0};
        cr_assert_eq(read_everything(made.db, &error), PP_E_INPUT, "%s", edits[i]);
        cr_assert_str_eq(error.place, made.db, "%s", edits[i]);
        cr_assert(error.message[0], "%s", edits[i]);
    }
    scratch_remove(&made);
    cr_assert_eq(pp_live_bytes(), 0);
}

Test(store_damage, message_names_row_and_cure) {
    scratch made = scratch_make();
    make_standard_store(made.db);
    sql_behind(made.db, edits[0]);
    pp_error error = {0};
    cr_assert_eq(read_everything(made.db, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "row 17 of table sample"), "%s", error.message);
    cr_assert(strstr(error.message, "--delete 1"), "%s", error.message);
    pp_store *store = store_must_open(made.db, false);
    cr_assert_eq(pp_store_delete(store, 1, &error), PP_OK, "the cure must work: %s", error.message);
    pp_store_close(store);
    scratch_remove(&made);
}

/* Bits flipped anywhere in the file: refused, or without consequence. */
Test(store_damage, flipped_bits_never_change_numbers) {
    const uint64_t seed = 11;
    enum { trials = 1500 };
    scratch made = scratch_make();
    make_standard_store(made.db);
    pp_text image = file_contents(made.db);
    pp_random_key key = pp_random_key_make(seed, "flip", 0);
    int refused = 0;
    for (uint64_t trial = 0; trial < trials; trial++) {
        size_t at = (size_t)pp_random_below(key, 2 * trial, image.length);
        char flip = (char)(1 << pp_random_below(key, 2 * trial + 1, 8));
        image.bytes[at] = (char)(image.bytes[at] ^ flip);
        scratch_empty(&made);
        file_write(made.db, image.bytes, image.length);
        pp_error error = {0};
        pp_status status = read_everything(made.db, &error);
        image.bytes[at] = (char)(image.bytes[at] ^ flip);
        if (status == PP_OK) continue;
        refused++;
        cr_assert(status == PP_E_INPUT || status == PP_E_IO,
                  "seed %llu trial %llu: byte %zu gives status %d: %s", (unsigned long long)seed,
                  (unsigned long long)trial, at, (int)status, error.message);
    }
    cr_assert(refused > trials / 20, "only %d of %d flips were noticed", refused, trials);
    pp_text_deinit(&image);
    cr_assert_eq(pp_live_bytes(), 0);
    scratch_remove(&made);
}

Test(store_damage, truncated_files_are_refused) {
    scratch made = scratch_make();
    make_standard_store(made.db);
    pp_text image = file_contents(made.db);
    for (size_t length = 1; length < image.length; length += length < 200 ? 7 : 1021) {
        scratch_empty(&made);
        file_write(made.db, image.bytes, length);
        pp_error error = {0};
        pp_status status = read_everything(made.db, &error);
        cr_assert(status == PP_E_INPUT || status == PP_E_IO, "%zu bytes: status %d", length,
                  (int)status);
    }
    pp_text_deinit(&image);
    scratch_remove(&made);
}

/* ---- files that are no store ---- */

static void expect_refused_and_untouched(const char *path, const char *what) {
    pp_text before = file_contents(path);
    for (int read_only = 0; read_only < 2; read_only++) {
        pp_store *store = NULL;
        pp_error error = {0};
        cr_assert_eq(pp_store_open(path, read_only, &store, &error), PP_E_INPUT, "%s", what);
        cr_assert(store == NULL && error.message[0], "%s", what);
        cr_assert_str_eq(error.place, path);
    }
    pp_text after = file_contents(path);
    cr_assert(before.length == after.length && memcmp(before.bytes, after.bytes, after.length) == 0,
              "%s was changed", what);
    pp_text_deinit(&before);
    pp_text_deinit(&after);
}

Test(store_damage, foreign_files_are_refused_and_not_touched) {
    scratch made = scratch_make();
    static const char *const texts[] = {"hello\n",          "{\"format\": \"ppsim-plan\"}",
                                        "SQLite format 3",  "SQLite format 3\n\n",
                                        "\177ELF",          "\n",
                                        "PNG and then some"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        file_write(made.db, texts[i], strlen(texts[i]));
        expect_refused_and_untouched(made.db, texts[i]);
    }
    char zeros[8192] = {0};
    file_write(made.db, zeros, sizeof zeros);
    expect_refused_and_untouched(made.db, "zeros");
    memset(zeros, 0xff, sizeof zeros);
    file_write(made.db, zeros, sizeof zeros);
    expect_refused_and_untouched(made.db, "ones");
    memcpy(zeros, "SQLite format 3", 16);
    file_write(made.db, zeros, sizeof zeros);
    expect_refused_and_untouched(made.db, "a header without a database");

    static const char *const databases[] = {
        "CREATE TABLE t (a)",
        "CREATE TABLE session (id); CREATE TABLE sample (id)",
        "PRAGMA user_version = 1",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = -1",
        "PRAGMA application_id = 1886417769; PRAGMA user_version = 1",
        "PRAGMA application_id = 1886417769; PRAGMA user_version = 12",
        "CREATE VIEW v AS SELECT 1"};
    for (size_t i = 0; i < sizeof databases / sizeof *databases; i++) {
        scratch_empty(&made);
        sql_behind(made.db, databases[i]);
        expect_refused_and_untouched(made.db, databases[i]);
    }
    scratch_remove(&made);
    cr_assert_eq(pp_live_bytes(), 0);
}

static void expect_message(const char *path, bool read_only, const char *part) {
    pp_store *store = NULL;
    pp_error error = {0};
    cr_assert_eq(pp_store_open(path, read_only, &store, &error), PP_E_INPUT, "%s", path);
    cr_assert(strstr(error.message, part), "%s: \"%s\" does not say \"%s\"", path, error.message,
              part);
}

Test(store_damage, paths_that_cannot_be) {
    scratch made = scratch_make();
    char path[160];
    expect_message("", false, "empty");
    expect_message(made.folder, false, "folder");
    expect_message(made.folder, true, "folder");
    expect_message("/dev/null", false, "ordinary file");
    expect_message(made.db, true, "no profile store here");
    snprintf(path, sizeof path, "%s/missing/profile.db", made.folder);
    expect_message(path, false, "cannot be opened");
    snprintf(path, sizeof path, "%s/fifo", made.folder);
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_message(path, false, "ordinary file");
    file_write(made.db, "", 0);
    expect_message(made.db, true, "empty");
    make_standard_store(made.db); /* a file of no bytes is what a killed creation leaves */
    expect_message("/dev/null/profile.db", false, "no profile store here");
    scratch_remove(&made);
}

/* Without the rights, as nobody. Exits with the number of the check that failed. */
static int check_rights(const char *folder, const char *path) {
    pp_store *store;
    pp_error error = {0};
    if (geteuid() == 0 && setuid(65534) != 0) return 1;
    if (access(path, W_OK) == 0) return 0; /* a file system without rights */
    if (pp_store_open(path, false, &store, &error) != PP_E_INPUT) return 2;
    if (!strstr(error.message, "no permission to write")) return 3;
    if (read_everything(path, &error) != PP_OK) return 4;
    char fresh[160];
    snprintf(fresh, sizeof fresh, "%s/fresh.db", folder);
    if (pp_store_open(fresh, false, &store, &error) != PP_E_INPUT) return 5;
    return 0;
}

/* A read-only file in a read-only folder can still be read, and says why it cannot be written. */
Test(store_damage, read_only_files_and_folders) {
    scratch made = scratch_make();
    make_standard_store(made.db);
    cr_assert(chmod(made.db, 0444) == 0 && chmod(made.folder, 0555) == 0);
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) _exit(check_rights(made.folder, made.db));
    int status = -1;
    waitpid(child, &status, 0);
    chmod(made.folder, 0755);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
    scratch_remove(&made);
}

/* ---- memory ---- */

static long allocations_left; /* before the next one fails; negative: never */
static bool fail_for_ever;

static void *failing_allocate(size_t size_bytes) {
    if (allocations_left == 0) {
        if (!fail_for_ever) allocations_left = -1;
        return NULL;
    }
    if (allocations_left > 0) allocations_left--;
    return malloc(size_bytes);
}

static pp_status use_store(const char *path) {
    pp_store *store;
    PP_TRY(pp_store_open(path, false, &store, NULL));
    pp_sample samples[3];
    for (int i = 0; i < 3; i++)
        samples[i] = sample_make(i ? "a" : "b", PP_PHASE_FORWARD, 1, 0, 1e-3);
    pp_session session = session_make("cpu", PP_FP32);
    pp_status status = pp_store_add(store, &session, samples, 3, NULL);
    pp_session *sessions = NULL;
    pp_sample *read = NULL;
    size_t count;
    if (status == PP_OK) status = pp_store_sessions(store, &sessions, &count, NULL);
    if (status == PP_OK)
        status = pp_store_samples(store, session.id, NULL, NULL, PP_FP32, &read, &count, NULL);
    if (status == PP_OK) status = pp_store_delete(store, session.id, NULL);
    pp_free(sessions);
    pp_free(read);
    pp_store_close(store);
    return status;
}

/* The n-th allocation fails, once and for ever, SQLite's own included: no crash, no leak, and the
 * store stays whole. */
Test(store_damage, any_allocation_may_fail) {
    scratch made = scratch_make();
    cr_assert_eq(use_store(made.db), PP_OK);
    pp_platform failing = *pp_platform_get();
    failing.allocate = failing_allocate;
    for (int mode = 0; mode < 2; mode++) {
        bool survived = false;
        fail_for_ever = mode;
        for (long n = 0; n < 20000 && !survived; n += n < 400 ? 1 : 13) {
            allocations_left = n;
            pp_platform_set(&failing);
            pp_status status = use_store(made.db);
            survived = allocations_left > 0;
            pp_platform_set(NULL);
            cr_assert(status == PP_OK || status == PP_E_OUT_OF_MEMORY, "allocation %ld: status %d",
                      n, (int)status);
            cr_assert_eq(pp_live_bytes(), 0, "allocation %ld leaks", n);
        }
        cr_assert(survived);
    }
    cr_assert_eq(use_store(made.db), PP_OK);
    scratch_remove(&made);
}
