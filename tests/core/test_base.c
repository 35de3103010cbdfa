/* The base of core: errors, counted allocation, arenas, text, files, JSON output, random numbers.
 */
#include "core/core.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

COUNTED_SUITE(base);

/* ---- errors -------------------------------------------------------------------------------- */

Test(base, errors_carry_place_message_and_cause) {
    pp_error error = {0};
    cr_assert_eq(pp_fail(&error, PP_E_INPUT, "a.json:3:4", "expected %d", 7), PP_E_INPUT);
    cr_assert_eq(pp_fail_cause(&error, "No such file"), PP_E_INPUT);
    cr_assert_str_eq(error.place, "a.json:3:4");
    cr_assert_str_eq(error.message, "expected 7");
    cr_assert_str_eq(error.cause, "No such file");
    cr_assert_eq(pp_fail(NULL, PP_E_IO, NULL, "nobody listens"), PP_E_IO);
}

Test(base, long_errors_are_cut_and_marked) {
    pp_error error;
    char longest[5000];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    pp_fail(&error, PP_E_INPUT, longest, "%s", longest);
    cr_assert_eq(strlen(error.message), sizeof error.message - 1);
    cr_assert_eq(strlen(error.place), sizeof error.place - 1);
    cr_assert_str_eq(error.message + sizeof error.message - 4, "...");
}

Test(base, an_error_can_be_reworded_from_itself) {
    pp_error error;
    pp_fail(&error, PP_E_INPUT, "plan.json", "bad");
    pp_fail(&error, PP_E_FAILED, error.place, "again: %s", error.message);
    cr_assert_str_eq(error.place, "plan.json");
    cr_assert_str_eq(error.message, "again: bad");
}

Test(base, exit_statuses_follow_the_contract) {
    cr_assert_eq(pp_status_exit(PP_OK), 0);
    cr_assert_eq(pp_status_exit(PP_E_INPUT), 2);
    cr_assert_eq(pp_status_exit(PP_E_DEADLOCK), 2);
    cr_assert_eq(pp_status_exit(PP_E_NO_FIT), 3);
    cr_assert_eq(pp_status_exit(PP_E_IO), 1);
}

/* ---- allocation ---------------------------------------------------------------------------- */

Test(base, live_bytes_are_counted) {
    int64_t before = pp_live_bytes();
    char *block = pp_allocate(100);
    cr_assert_eq((uintptr_t)block % 16, 0);
    memset(block, 7, 100);
    cr_assert_eq(pp_live_bytes(), before + 100);
    block = pp_reallocate(block, 1000);
    cr_assert(block[0] == 7 && block[99] == 7);
    cr_assert_eq(pp_live_bytes(), before + 1000);
    pp_free(block);
    pp_free(NULL);
    cr_assert_eq(pp_live_bytes(), before);
    cr_assert_null(pp_allocate_zeroed(SIZE_MAX / 2, 3));
    cr_assert_null(pp_allocate(SIZE_MAX - 4));
}

static int allocations_left;

static void *failing_allocate(size_t size_bytes) {
    return allocations_left-- > 0 ? malloc(size_bytes) : NULL;
}

Test(base, a_failed_reallocation_keeps_the_block) {
    char *block = pp_allocate(8);
    strcpy(block, "kept");
    pp_platform platform = *pp_platform_get();
    platform.allocate = failing_allocate;
    allocations_left = 0;
    pp_platform_set(&platform);
    cr_assert_null(pp_reallocate(block, 100));
    pp_platform_set(NULL);
    cr_assert_str_eq(block, "kept");
    pp_free(block);
}

/* ---- arenas -------------------------------------------------------------------------------- */

Test(base, arenas_hand_out_zeroed_separate_blocks) {
    int64_t before = pp_live_bytes();
    pp_arena arena;
    pp_arena_init(&arena);
    unsigned char *blocks[200];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 200; i++) {
            size_t size = (size_t)(i * 37 % 977 + 1);
            blocks[i] = pp_arena_allocate(&arena, size, 1);
            cr_assert_eq((uintptr_t)blocks[i] % 16, 0);
            for (size_t b = 0; b < size; b++) cr_assert_eq(blocks[i][b], 0);
            memset(blocks[i], i + 1, size);
        }
        for (int i = 0; i < 200; i++) cr_assert_eq(blocks[i][i * 37 % 977], (i + 1) & 0xff);
        int64_t warm = pp_live_bytes();
        pp_arena_reset(&arena);
        cr_assert_eq(pp_live_bytes(), warm, "reset keeps the blocks");
    }
    cr_assert_str_eq(pp_arena_printf(&arena, "%d-%s", 4, "x"), "4-x");
    pp_arena_deinit(&arena);
    cr_assert_eq(pp_live_bytes(), before);
}

Test(base, arena_failure_is_sticky_until_reset) {
    pp_arena arena;
    pp_arena_init(&arena);
    cr_assert_null(pp_arena_allocate(&arena, SIZE_MAX / 2, 4));
    cr_assert(arena.failed);
    cr_assert_null(pp_arena_allocate(&arena, 1, 1));
    pp_arena_reset(&arena);
    cr_assert_not_null(pp_arena_allocate(&arena, 1, 1));
    pp_arena_deinit(&arena);
}

/* ---- numbers as text ----------------------------------------------------------------------- */

static const char *double_text(pp_text *text, double value) {
    text->length = 0;
    pp_text_double(text, value);
    return text->bytes;
}

Test(base, doubles_are_printed_shortest_and_exact) {
    pp_text text = {0};
    cr_assert_str_eq(double_text(&text, 0.1), "0.1");
    cr_assert_str_eq(double_text(&text, 1e-9), "1e-09");
    cr_assert_str_eq(double_text(&text, 1.0 / 3), "0.3333333333333333");
    cr_assert_str_eq(double_text(&text, -0.0), "-0");
    pp_random_key key = pp_random_key_make(1, "doubles", 0);
    for (uint64_t i = 0; i < 20000; i++) {
        uint32_t word[4];
        pp_random_block(key, 0, i, word);
        double value;
        memcpy(&value, word, sizeof value);
        if (!isfinite(value)) continue;
        double back = strtod(double_text(&text, value), NULL);
        cr_assert(back == value, "%a came back as %a (number %llu)", value, back,
                  (unsigned long long)i);
    }
    pp_text_deinit(&text);
}

Test(base, parsing_takes_numbers_and_nothing_else) {
    int64_t i;
    double d;
    cr_assert(pp_parse_int("-12", -20, 20, &i) && i == -12);
    static const char *const not_ints[] = {"",    " 1", "1 ", "1.0", "0x10", "99999999999999999999",
                                           "--1", "21"};
    for (size_t n = 0; n < sizeof not_ints / sizeof *not_ints; n++)
        cr_assert_not(pp_parse_int(not_ints[n], -20, 20, &i), "took '%s'", not_ints[n]);
    cr_assert(pp_parse_double("1e-3", &d) && d == 1e-3);
    cr_assert(pp_parse_double("-.5", &d) && d == -.5);
    static const char *const not_doubles[] = {"",    "inf",   "nan", "0x1p3", " 1",
                                              "1,5", "1e999", "1 ",  "e5",    "+"};
    for (size_t n = 0; n < sizeof not_doubles / sizeof *not_doubles; n++)
        cr_assert_not(pp_parse_double(not_doubles[n], &d), "took '%s'", not_doubles[n]);
}

Test(base, byte_sizes_have_decimal_and_binary_units) {
    static const struct {
        const char *text;
        int64_t bytes;
    } cases[] = {
        {"0", 0},          {"16e9", 16000000000}, {"80GiB", 85899345920}, {"512MB", 512000000},
        {"1.5 KiB", 1536}, {"2g", 2147483648},    {"1TB", 1000000000000}};
    int64_t bytes;
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++)
        cr_assert(pp_parse_bytes(cases[n].text, &bytes) && bytes == cases[n].bytes, "%s",
                  cases[n].text);
    cr_assert_not(pp_parse_bytes("-1", &bytes));
    cr_assert_not(pp_parse_bytes("1 parsec", &bytes));
    cr_assert_not(pp_parse_bytes("1e30", &bytes));
}

Test(base, numbers_for_people) {
    char buffer[32];
    cr_assert_str_eq(pp_format_bytes(0, buffer), "0 B");
    cr_assert_str_eq(pp_format_bytes(1023, buffer), "1023 B");
    cr_assert_str_eq(pp_format_bytes(1536, buffer), "1.50 KiB");
    cr_assert_str_eq(pp_format_bytes(85899345920.0, buffer), "80.0 GiB");
    cr_assert_str_eq(pp_format_seconds(0.0123, buffer), "12.3 ms");
    cr_assert_str_eq(pp_format_seconds(0.99996, buffer), "1.00 s");
    cr_assert_str_eq(pp_format_seconds(0, buffer), "0 s");
}

/* ---- files --------------------------------------------------------------------------------- */

static void temporary_folder(char path[64]) {
    strcpy(path, "/tmp/ppsim-test-XXXXXX");
    cr_assert_not_null(mkdtemp(path));
}

static void assert_holds(const char *path, const char *expected) {
    pp_text contents;
    pp_error error;
    cr_assert_eq(pp_file_read(path, 1000, &contents, &error), PP_OK, "%s", error.message);
    cr_assert_str_eq(contents.bytes, expected);
    pp_text_deinit(&contents);
}

/* Fails the n-th call of a kind: the disk is full, or the machine refuses. */
static struct { int write, sync, close, rename; } fail_at;

static long failing_write(int file, const void *bytes, size_t size) {
    if (fail_at.write-- == 0) {
        errno = ENOSPC;
        return -1;
    }
    return (long)write(file, bytes, size > 3 ? 3 : size); /* short writes are normal */
}

static int failing_sync(int file) {
    if (fail_at.sync-- != 0) return fsync(file);
    errno = EIO;
    return -1;
}

static int failing_close(int file) {
    close(file);
    if (fail_at.close-- != 0) return 0;
    errno = ENOSPC;
    return -1;
}

static int failing_rename(const char *from, const char *to) {
    if (fail_at.rename-- != 0) return rename(from, to);
    errno = EACCES;
    return -1;
}

Test(base, a_failed_write_leaves_the_old_file_and_no_litter) {
    char folder[64], path[128], command[160];
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/out.json", folder);
    pp_text old = {0}, fresh = {0};
    pp_text_string(&old, "the old file");
    pp_text_string(&fresh, "the new one, longer");
    cr_assert_eq(pp_file_write(path, &old, NULL), PP_OK);

    pp_platform platform = *pp_platform_get();
    platform.write = failing_write;
    platform.sync = failing_sync;
    platform.close = failing_close;
    platform.rename = failing_rename;
    pp_platform_set(&platform);
    for (int kind = 0; kind < 9; kind++) {
        fail_at.write = kind < 6 ? kind : INT_MAX;
        fail_at.sync = kind == 6 ? 0 : INT_MAX;
        fail_at.close = kind == 7 ? 0 : INT_MAX;
        fail_at.rename = kind == 8 ? 0 : INT_MAX;
        pp_error error;
        cr_assert_eq(pp_file_write(path, &fresh, &error), PP_E_IO, "kind %d", kind);
        cr_assert_neq(error.cause[0], '\0');
        assert_holds(path, "the old file");
        snprintf(command, sizeof command, "test $(ls %s | wc -l) -eq 1", folder);
        cr_assert_eq(system(command), 0, "kind %d left a temporary file", kind);
    }
    fail_at.write = fail_at.sync = fail_at.close = fail_at.rename = INT_MAX;
    cr_assert_eq(pp_file_write(path, &fresh, NULL), PP_OK);
    assert_holds(path, "the new one, longer");
    pp_platform_set(NULL);
    pp_text_deinit(&old);
    pp_text_deinit(&fresh);
    unlink(path);
    rmdir(folder);
}

Test(base, reading_refuses_what_is_missing_or_too_large) {
    pp_text contents;
    pp_error error;
    cr_assert_eq(pp_file_read("/no/such/file", 10, &contents, &error), PP_E_INPUT);
    cr_assert_str_eq(error.cause, "No such file or directory");
    cr_assert_eq(pp_file_read("/", 10, &contents, &error), PP_E_INPUT);
    cr_assert_eq(pp_file_read("/dev/zero", 100000, &contents, &error), PP_E_INPUT);
    cr_assert_not_null(strstr(error.message, "larger than 100000 bytes"));
    cr_assert_null(contents.bytes);
    cr_assert_eq(pp_file_read("/dev/null", 10, &contents, &error), PP_OK);
    cr_assert_str_eq(contents.bytes, "");
    pp_text_deinit(&contents);
}

/* ---- JSON output --------------------------------------------------------------------------- */

Test(base, json_layout) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_json_object(&json);
    pp_json_key(&json, "name");
    pp_json_string(&json, "a \"b\"\\\n");
    pp_json_key(&json, "list");
    pp_json_array_flat(&json);
    pp_json_int(&json, 1);
    pp_json_object(&json);
    pp_json_key(&json, "x");
    pp_json_double(&json, 0.5);
    pp_json_key(&json, "y");
    pp_json_double(&json, NAN);
    pp_json_end_object(&json);
    pp_json_end_array(&json);
    pp_json_key(&json, "empty");
    pp_json_array(&json);
    pp_json_end_array(&json);
    pp_json_key(&json, "rows");
    pp_json_array(&json);
    pp_json_bool(&json, true);
    pp_json_null(&json);
    pp_json_end_array(&json);
    pp_json_end_object(&json);
    cr_assert_str_eq(text.bytes, "{\n"
                                 "  \"name\": \"a \\\"b\\\"\\\\\\u000a\",\n"
                                 "  \"list\": [1, {\"x\": 0.5, \"y\": null}],\n"
                                 "  \"empty\": [],\n"
                                 "  \"rows\": [\n"
                                 "    true,\n"
                                 "    null\n"
                                 "  ]\n"
                                 "}");
    pp_text_deinit(&text);
}

/* ---- random numbers ------------------------------------------------------------------------ */

/* The known answers that the authors of Philox publish with their implementation. */
Test(base, philox_known_answers) {
    uint32_t out[4];
    pp_random_block((pp_random_key){{0, 0}}, 0, 0, out);
    cr_assert(out[0] == 0x6627e8d5 && out[1] == 0xe169c58d && out[2] == 0xbc57ac4c &&
              out[3] == 0x9b00dbd8);
    pp_random_block((pp_random_key){{0xffffffff, 0xffffffff}}, UINT64_MAX, UINT64_MAX, out);
    cr_assert(out[0] == 0x408f276d && out[1] == 0x41c83b0e && out[2] == 0xa20bc7c6 &&
              out[3] == 0x6d5451fd);
}

Test(base, random_numbers_have_their_moments) {
    enum { N = 200000 };
    pp_random_key key = pp_random_key_make(3, "moments", 0);
    double sum = 0, squares = 0, units = 0;
    int counts[10] = {0};
    for (uint64_t i = 0; i < N; i++) {
        double x = pp_random_normal(key, i);
        sum += x;
        squares += x * x;
        units += pp_random_unit(key, i);
        counts[pp_random_below(key, i, 10)]++;
    }
    cr_assert_float_eq(sum / N, 0, 0.01);
    cr_assert_float_eq(squares / N, 1, 0.02);
    cr_assert_float_eq(units / N, 0.5, 0.005);
    for (int i = 0; i < 10; i++) cr_assert(abs(counts[i] - N / 10) < 700);
}

Test(base, keys_differ_by_seed_name_and_stream) {
    pp_random_key a = pp_random_key_make(1, "a", 0);
    pp_random_key others[] = {pp_random_key_make(2, "a", 0), pp_random_key_make(1, "b", 0),
                              pp_random_key_make(1, "a", 1), pp_random_key_make(0, "a", 1)};
    for (size_t i = 0; i < 4; i++) cr_assert_neq(memcmp(&a, &others[i], sizeof a), 0);
}

/* ---- log ----------------------------------------------------------------------------------- */

static int messages_seen;

static void count_messages(pp_log_level level, const char *subsystem, const char *message) {
    (void)level, (void)subsystem, (void)message;
    messages_seen++;
}

Test(base, log_levels_per_subsystem) {
    pp_log_install(count_messages, "sim:debug,executor:error");
    pp_log(PP_LOG_DEBUG, "sim", "seen");
    pp_log(PP_LOG_TRACE, "sim", "not seen");
    pp_log(PP_LOG_WARNING, "executor", "not seen");
    pp_log(PP_LOG_WARNING, "core", "seen");
    pp_log(PP_LOG_INFO, "core", "not seen");
    cr_assert_eq(messages_seen, 2);
    pp_log_install(NULL, NULL);
}
