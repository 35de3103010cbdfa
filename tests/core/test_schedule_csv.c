/* Schedule files: what is written reads back, what people write is understood, and what is wrong is
 * refused with its place. */
#include "schedule_samples.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

COUNTED_SUITE(schedule_files);

/* ---- read(write(x)) == x ------------------------------------------------------------------- */

static bool same_schedule(const pp_schedule *a, const pp_schedule *b) {
    size_t count = a->first_action[a->ranks];
    bool shape = a->ranks == b->ranks && a->stages == b->stages && a->slices == b->slices &&
                 a->microbatches == b->microbatches && a->chain_count == b->chain_count &&
                 a->has_transfers == b->has_transfers;
    return shape && count == b->first_action[b->ranks] &&
           memcmp(a->actions, b->actions, count * sizeof *a->actions) == 0 &&
           memcmp(a->placement, b->placement, (size_t)a->stages * sizeof(int)) == 0 &&
           memcmp(a->chains, b->chains, (size_t)a->chain_count * sizeof(pp_chain)) == 0 &&
           memcmp(a->first_action, b->first_action, ((size_t)a->ranks + 1) * sizeof(size_t)) == 0 &&
           pp_schedule_hash(a) == pp_schedule_hash(b);
}

static void expect_round_trip(const pp_schedule *schedule, uint64_t seed) {
    for (int json = 0; json < 2; json++) {
        pp_text text = {0};
        pp_json out = pp_json_start(&text);
        if (json)
            pp_schedule_write_json(schedule, &out);
        else
            pp_schedule_write_csv(schedule, &text);
        pp_schedule *back = NULL;
        pp_error error = {0};
        pp_status status = json ? pp_schedule_read_json(text.bytes, text.length, "t", &back, &error)
                                : pp_schedule_read_csv(text.bytes, text.length, "t", &back, &error);
        cr_assert_eq(status, PP_OK, "seed %llu: %s: %s\n%s", (unsigned long long)seed, error.place,
                     error.message, text.bytes);
        cr_assert(same_schedule(schedule, back), "seed %llu\n%s", (unsigned long long)seed,
                  text.bytes);
        pp_schedule_free(back);
        pp_text_deinit(&text);
    }
}

Test(schedule_files, random_schedules_read_back_as_written) {
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        sample order = sample_random(seed, 6, 6), naive = sample_lower_naive(&order);
        pp_schedule *schedule = sample_build(seed % 2 ? &order : &naive);
        expect_round_trip(schedule, seed);
        pp_schedule_free(schedule);
        sample_free(&order);
        sample_free(&naive);
    }
    cr_expect_eq(pp_live_bytes(), 0);
}

Test(schedule_files, every_kind_of_action_reads_back) {
    pp_schedule *schedule =
        sample_read("0UNSHARD,0F0.0,0F0.1,0SEND_F0,0SEND_F0.1,0RESHARD,0UNSHARD,0RECV_B0.1,"
                    "0RECV_B0.0,0R0.1,0I0.1,0W0.1,0B0.0,0REDUCE_GRAD,0STEP\n"
                    "1RECV_F0.0,1RECV_F0.1,1F0.0,1F0.1,(1B0.1;1R0.0)OVERLAP_F_B,1B0.0,1SEND_B0.1,"
                    "1SEND_B0.0,1STEP\n");
    expect_round_trip(schedule, 0);
    cr_expect_eq(pp_schedule_check(schedule, false, NULL, NULL), PP_OK);
    pp_schedule_free(schedule);
}

/* Incomplete, but a rank without actions is still one: its row must not be a blank line, which
 * counts for nothing. */
Test(schedule_files, idle_ranks_read_back) {
    static const char text[] = "{\"ranks\": 3, \"placement\": [0, 1, 2], \"actions\": "
                               "[[], [\"1F0\", \"1I0\", \"1W0\"], []]}";
    pp_schedule *schedule = NULL;
    pp_error error = {0};
    pp_status status = pp_schedule_read_json(text, strlen(text), "t", &schedule, &error);
    cr_assert_eq(status, PP_OK, "%s: %s", error.place, error.message);
    expect_round_trip(schedule, 0);
    pp_schedule_free(schedule);
}

Test(schedule_files, the_hash_sees_everything) {
    static const char *const files[] = {
        "0F0,0B0\n1F0,1B0\n",
        "# placement: 1,0\n1F0,1B0\n0F0,0B0\n",
        "# chains: 0-0,1-1\n0F0,0B0\n1F0,1B0\n",
        "0F0,0I0,0W0\n1F0,1B0\n",
        "0F0,0B0,0STEP\n1F0,1B0\n",
        "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n",
        "0F0,0F1,0B1,0B0\n1F0,1F1,1B0,1B1\n",
        "0F0,(0F1;0B0)OVERLAP_F_B,0B1\n1F0,1F1,1B0,1B1\n",
        "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1,1STEP\n",
        "0F0.0,0F0.1,0B0.1,0B0.0\n1F0.0,1F0.1,1B0.1,1B0.0\n",
    };
    enum { COUNT = sizeof files / sizeof *files };
    uint64_t hashes[COUNT];
    for (int i = 0; i < COUNT; i++) {
        pp_schedule *schedule = sample_read(files[i]);
        hashes[i] = pp_schedule_hash(schedule);
        pp_schedule_free(schedule);
        for (int j = 0; j < i; j++) cr_expect_neq(hashes[i], hashes[j], "%d and %d", i, j);
    }
}

/* ---- what people write --------------------------------------------------------------------- */

Test(schedule_files, spelling_does_not_matter) {
    static const char *const same[] = {
        "# placement: 0,1,1,0\n0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n",
        "#placement:0,1,1,0\r\n0F0,3F0,3B0,0B0\r\n1F0,2F0,2B0,1B0",
        "\xEF\xBB\xBF# written by hand\n\n 0F0 ,\t3F0,,,3B0,0B0,,\n \n1F0,2F0,2B0,1B0\n\n",
        "0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n# placement : 0 , 1 , 1 , 0\n# chains: 0-3\n",
        ",,,0F0,3F0,3B0.0,0B0\n00001F00,2F0,2B0,1B0\n",
        "{\"actions\": [[\"0F0\", \"3F0\", \"3B0\", \"0B0\"], [null, \"1F0\", \"\", \"2F0\", "
        "\"2\\u00420\", \"1B0\"]]}",
        "{\"name\": \"x\", \"ranks\": 2, \"virtual\": 2, \"microbatches\": 1, \"placement\": "
        "[0,1,1,0],\n\"chains\": [[0,3]],\n"
        "\"actions\":[[\"0F0\",\"3F0\",\"3B0\",\"0B0\"],[\"1F0\",\"2F0\",\"2B0\",\"1B0\"]]}\r\n",
    };
    uint64_t hash = 0;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        pp_schedule *schedule;
        pp_error error = {0};
        pp_status status =
            same[i][0] == '{'
                ? pp_schedule_read_json(same[i], strlen(same[i]), "t", &schedule, &error)
                : pp_schedule_read_csv(same[i], strlen(same[i]), "t", &schedule, &error);
        cr_assert_eq(status, PP_OK, "%zu: %s: %s", i, error.place, error.message);
        if (i == 0) hash = pp_schedule_hash(schedule);
        cr_expect_eq(pp_schedule_hash(schedule), hash, "%zu", i);
        cr_expect_eq(schedule->virtual_stages, 2);
        cr_expect_eq(schedule->microbatches, 1);
        pp_schedule_free(schedule);
    }
}

Test(schedule_files, a_file_is_opened_by_what_it_holds) {
    static const char *const contents[] = {
        "0F0,0B0\n", " \n{\"actions\": [[\"0F0\", \"0B0\"]], \"name\": \"own\"}"};
    for (int i = 0; i < 2; i++) {
        char path[] = "/tmp/ppsim-schedule-XXXXXX";
        int file = mkstemp(path);
        cr_assert(file >= 0);
        cr_assert_eq(write(file, contents[i], strlen(contents[i])), (long)strlen(contents[i]));
        close(file);
        pp_schedule *schedule;
        pp_error error;
        cr_assert_eq(pp_schedule_open(path, &schedule, &error), PP_OK, "%s", error.message);
        cr_expect_str_eq(schedule->name, i == 0 ? strrchr(path, '/') + 1 : "own");
        pp_schedule_free(schedule);
        unlink(path);
    }
    pp_schedule *schedule;
    pp_error error;
    cr_expect_eq(pp_schedule_open("/nowhere/x.csv", &schedule, &error), PP_E_INPUT);
    cr_expect_null(schedule);
}

/* ---- what is wrong ------------------------------------------------------------------------- */

typedef struct malformed {
    const char *text, *place, *words;
} malformed;

static const malformed csvs[] = {
    {"", "f:1:1", "there are no actions"},
    {"\n\n  \n", "f:1:1", "there are no actions"},
    {"# placement: 0\n", "f:1:1", "there are no actions"},
    {",,,\n,\n", "f:1:1", "there are no actions"},
    {"0F0,0X0\n", "f:1:5", "'0X0' is not an action: its type is none of F B I W R"},
    {"0F0,0B0\n1F0,1Q1,1B0\n", "f:2:5", "'1Q1' is not an action"},
    {"0F0, F3 ,0B0\n", "f:1:6", "'F3' is not an action: an action begins with its stage"},
    {"0F0,0B\n", "f:1:5", "needs a microbatch number"},
    {"0F0,0B0x\n", "f:1:5", "the action ends before the cell does"},
    {"0F0,0B0,0UNSHARD0\n", "f:1:9", "the action ends before the cell does"},
    {"65535F0,0B0\n", "f:1:1", "the largest stage number is 65534"},
    {"0F0,0B16777216\n", "f:1:5", "the largest microbatch number is 16777215"},
    {"0F0.256,0B0\n", "f:1:1", "a slice is a number from 0 to 255"},
    {"0F0.,0B0\n", "f:1:1", "a slice is a number"},
    {"0F0,(0F1)OVERLAP_F_B\n", "f:1:5", "an overlapped pair is (0F3;1B0)OVERLAP_F_B"},
    {"0F0,(0F1;0B0)OVERLAP\n", "f:1:5", "ends with )OVERLAP_F_B"},
    {"0F0,(0F1;0SEND_F0)OVERLAP_F_B\n", "f:1:5", "only F, B, I, W and R can overlap"},
    {"0F0,0B0,0F0\n", "f:1:9", "0F0 of rank 0 is named a second time"},
    {"0F0,0B0\n1F0,1B0,,\t1B0\n", "f:2:11", "1B0 of rank 1 is named a second time"},
    {"0F0,(0F1;0B0),0B1,0B0\n", "f:1:19", "0B0 of rank 0 is named a second time"},
    {"0F0,0B0,0W0\n", "f:1:9", "beside a whole B"},
    {"0F0,0I0,0W0,0B0\n", "f:1:13", "beside an I or W"},
    {"0F0,0B0\n0F1,0B1\n", "f:2:1", "but stage 0 has actions in the row of rank 0"},
    {"# placement: 0,1\n0F0,1F0,0B0\n1B0\n", "f:2:5", "1F0 of rank 0 stands in the row of another"},
    {"# placement: 0,1\n0F0,0B0\n1F0,2F0,1B0\n", "f:3:5", "names stage 2, but the placement has 2"},
    {"# placement: 0,2\n0F0,0B0\n1F0,1B0\n", "f:1:14",
     "placed on rank 2, but the ranks are 0 to 1"},
    {"# placement: 0,x\n0F0,0B0\n", "f:1:16", "the placement is a list of ranks"},
    {"# placement: 0,,1\n0F0,0B0\n", "f:1:16", "the placement is a list of ranks"},
    {"# placement: 0,70000\n0F0,0B0\n", "f:1:16", "the placement is a list of ranks"},
    {"# placement:\n0F0,0B0\n", "f:1:13", "the list is empty"},
    {"# placement: 0\n0F0,0B0\n# placement: 0\n", "f:3:14", "a second time"},
    {"0F0,0B0\n#chains: 0:1\n", "f:2:10", "ranges of stages"},
    {"0F0,0B0\n# chains: 0-1-2\n", "f:2:11", "ranges of stages"},
    {"0F0,0B0\n# chains: 0-1\n", "f:2:11", "chain 0-1 is not a range of the stages 0 to 0"},
    {"# chains: 0-1,1-1\n0F0,0B0\n1F0,1B0\n", "f:1:11", "stage 1 is in two chains"},
    {"# chains: 0-0\n0F0,0B0\n1F0,1B0\n", "f:1:11", "stage 1 is in no chain"},
    {"# chains: 1-0\n0F0,0B0\n1F0,1B0\n", "f:1:11", "first before last"},
    {"0F0,0B0\n2F0,2B0\n", "f", "stage 1 of 0 to 2 has no actions"},
    {"0F0,0B0,65534F0\n", "f", "too few for the stages 0 to 65534"},
    {"0F0,0B0,0F16777215\n", "f", "rank 0 lacks 0F1"},
    {"# placement: 0,0,0\n0F0,0B0,2F9\n", "f", "rank 0 lacks 0F1"},
    {"0F0,0B0\n,,\n", "f", "rank 1 of 2 has no stage"},
    {"0UNSHARD\n", "f", "no action with a microbatch"},
    {"0F0,0RECV_F0,0B0\n", "f:1:5", "0RECV_F0 of rank 0 has no stage on the other side"},
    {"0F0,0SEND_F0,1F0,1B0,0B0\n", "f:1:5", "would transfer inside a rank"},
    {"0F0;0B0\n", "f:1:1", "the action ends before the cell does"},
    {"\"0F0\",\"0B0\"\n", "f:1:1", "is not an action"},
    {"0F0,0B0\r0F1,0B1\n", "f:1:5", "'0B0?0F1' is not an action"},
    {"0F0,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", "f:1:5", "aaa...' is not"},
};

static const malformed jsons[] = {
    {"", "f:1:1", "expected '{' before the end"},
    {"[]", "f:1:1", "expected '{'"},
    {"{", "f:1:2", ""},
    {"{}", "f", "the key \"actions\" is missing"},
    {"{\"actions\": []}", "f /actions", "there are no actions"},
    {"{\"actions\": [[]]}", "f /actions", "there are no actions"},
    {"{\"actions\": [[null, \"\"]]}", "f /actions", "there are no actions"},
    {"{\"actions\": 3}", "f /actions", "expected a list of rows, one per rank, not 3"},
    {"{\"actions\": [\"0F0\"]}", "f /actions/0", "expected the list of a rank's actions"},
    {"{\"actions\": [[3]]}", "f /actions/0/0", "expected an action such as \"0F3\", not 3"},
    {"{\"actions\": [[\"0F0\", [\"0B0\"]]]}", "f /actions/0/1", "expected an action"},
    {"{\"actions\": [[\"0F0\",\"0X0\"]]}", "f /actions/0/1", "'0X0' is not an action"},
    {"{\"actions\": [[\"0F0\", \"\\u00e90\"]]}", "f /actions/0/1", "is not an action"},
    {"{\"actions\": [[\"0F0\",\"0B0\",null,\"0F0\"]]}", "f /actions/0/3", "named a second time"},
    {"{\"actions\": [[\"0F0\",\"0B0\"],[\"0F1\",\"0B1\"]]}", "f /actions/1/0", "row of rank 1"},
    {"{\"actions\": [[\"0F0\" \"0B0\"]]}", "f:1:21", "expected ','"},
    {"{\"actions\": [[\"0F0\",]]}", "f:1:21", ""},
    {"{\"actions\": [[\"0F0\",\"0B0\"],]}", "f:1:28", ""},
    {"{\"actions\": [[\"0F0\",\"0B0\"]}", "f:1:27", "expected ','"},
    {"{\"actions\": [[\"0F0\",\"0B0\"]]", "f:1:28", "expected ','"},
    {"{\"actions\": [[\"0F0\",\"0B0\"]]} x", "f:1:30", "nothing may follow"},
    {"{\"actions\": [[\"0F0\",\"0B0\n\"]]}", "f:1:24", "unexpected newline"},
    {"{\"actions\": [[\"0F0\",\"0B0]]}", "f:1:27", "premature end"},
    {"{\n\"ranks\": 1,\n \"colour\": 2}", "f", "unknown key 'colour'; a schedule has name, ranks"},
    {"{\"ranks\": 2, \"actions\": [[\"0F0\",\"0B0\"]]}", "f /ranks",
     "says 2, but its actions make it 1"},
    {"{\"virtual\": 2, \"actions\": [[\"0F0\",\"0B0\"]]}", "f /virtual", "says 2"},
    {"{\"microbatches\": 4, \"actions\": [[\"0F0\",\"0B0\"]]}", "f /microbatches", "says 4"},
    {"{\"microbatches\": 0, \"actions\": [[\"0F0\",\"0B0\"]]}", "f /microbatches", "from 1 to"},
    {"{\"ranks\": \"1\", \"actions\": []}", "f /ranks", "expected an integer from 1 to 65535"},
    {"{\"ranks\": 1.5, \"actions\": []}", "f /ranks",
     "expected an integer from 1 to 65535, not 1.5"},
    {"{\"ranks\": 99999999999999999999999}", "f:1:33", "too big"},
    {"{\"name\": 4}", "f /name", "expected a name of at most 63 printable"},
    {"{\"name\": \"0123456789012345678901234567890123456789012345678901234567890123\"}", "f /name",
     "at most 63 printable"},
    {"{\"name\": \"a\\u001bb\"}", "f /name", "printable"},
    {"{\"placement\": [], \"actions\": []}", "f /placement", "got 0"},
    {"{\"placement\": {}, \"actions\": []}", "f /placement", "expected an array"},
    {"{\"placement\": [0,-1], \"actions\": [[\"0F0\",\"0B0\"]]}", "f /placement/1", "from 0 to"},
    {"{\"placement\": [1], \"actions\": [[\"0F0\",\"0B0\"]]}", "f /placement", "placed on rank 1"},
    {"{\"chains\": [[0]], \"actions\": [[\"0F0\",\"0B0\"]]}", "f /chains/0", "expected 2 elements"},
    {"{\"chains\": [[0,1]], \"actions\": [[\"0F0\",\"0B0\"]]}", "f /chains", "not a range"},
    {"{\"ranks\": 1, \"ranks\": 1}", "f /ranks", "stands in the file twice"},
    {"{\"actions\": [[\"0F0\",\"0B0\"]], \"actions\": [[\"0F0\",\"0B0\"]]}", "f /actions", "twice"},
    {"{\"actions\": [[\"0F0\",\"0B0\"]] \"ranks\": 1}", "f:1:29", "expected ','"},
    {"{3: 4}", "f:1:2", ""},
    {"{\"ranks\" 1}", "f:1:10", "expected ':'"},
    {"{\"actions\": [[\"0F0\",\"0B0\",\"0F16777215\"]]}", "f /actions", "rank 0 lacks 0F1"},
};

static void expect_refused(const malformed *cases, size_t count, bool json) {
    for (size_t i = 0; i < count; i++) {
        pp_schedule *schedule = NULL;
        pp_error error = {0};
        size_t length = strlen(cases[i].text);
        pp_status status =
            json ? pp_schedule_read_json(cases[i].text, length, "f", &schedule, &error)
                 : pp_schedule_read_csv(cases[i].text, length, "f", &schedule, &error);
        cr_expect_eq(status, PP_E_INPUT, "case %zu: status %d", i, status);
        cr_expect_null(schedule);
        cr_expect_str_eq(error.place, cases[i].place, "case %zu: %s, not %s: %s", i, error.place,
                         cases[i].place, error.message);
        cr_expect(strstr(error.message, cases[i].words), "case %zu: '%s' lacks '%s'", i,
                  error.message, cases[i].words);
        cr_expect_eq(status,
                     json ? pp_schedule_read_json(cases[i].text, length, "f", &schedule, NULL)
                          : pp_schedule_read_csv(cases[i].text, length, "f", &schedule, NULL));
    }
    cr_expect_eq(pp_live_bytes(), 0);
}

Test(schedule_files, malformed_csv_is_refused_with_its_place) {
    expect_refused(csvs, sizeof csvs / sizeof *csvs, false);
}

Test(schedule_files, malformed_json_is_refused_with_its_place) {
    expect_refused(jsons, sizeof jsons / sizeof *jsons, true);
}

/* ---- memory -------------------------------------------------------------------------------- */

/* Allocation `failing` fails, once or from then on. */
static struct {
    int count, failing;
    bool for_ever;
} allocations;

static void *failing_allocate(size_t size_bytes) {
    int now = ++allocations.count;
    if (now == allocations.failing || (allocations.for_ever && now > allocations.failing))
        return NULL;
    return malloc(size_bytes);
}

/* Everything part 8 can do with one file. */
static pp_status use_everything(const char *csv, pp_error *error) {
    pp_schedule *schedule = NULL, *lowered = NULL, *again = NULL, *back = NULL;
    pp_check_report report = {0};
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    int slots[16];
    pp_status status = pp_schedule_read_csv(csv, strlen(csv), "f", &schedule, error);
    if (status == PP_OK) status = pp_schedule_add_transfers(schedule, &lowered, error);
    if (status == PP_OK) status = pp_schedule_check(lowered, false, &report, error);
    if (status == PP_OK) status = pp_schedule_slots(lowered, slots, slots + 8, error);
    if (status == PP_OK) status = pp_schedule_drop_transfers(lowered, &back, error);
    if (status == PP_OK) pp_schedule_write_json(lowered, &json);
    if (status == PP_OK && text.failed) status = pp_fail_memory(error);
    if (status == PP_OK)
        status = pp_schedule_read_json(text.bytes, text.length, "f", &again, error);
    pp_free(report.peak_activations);
    pp_text_deinit(&text);
    pp_schedule_free(schedule);
    pp_schedule_free(lowered);
    pp_schedule_free(again);
    pp_schedule_free(back);
    return status;
}

Test(schedule_files, any_allocation_may_fail) {
    static const struct {
        const char *csv;
        pp_status status;
    } cases[] = {
        {"# placement: 0,1,1,0\n# chains: 0-1,2-3\n0F0,3F0,3B0,0B0\n2F0,1F0,1B0,2B0\n", PP_OK},
        {"0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n", PP_E_DEADLOCK},
        {"0F0,0B0,0F16777215\n", PP_E_INPUT},
        {"0F0,0B0,0F0\n", PP_E_INPUT},
    };
    pp_platform platform = *pp_platform_get();
    platform.allocate = failing_allocate;
    pp_platform_set(&platform);
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        allocations.for_ever = i % 2;
        pp_status status = PP_E_OUT_OF_MEMORY;
        for (int n = 1; status == PP_E_OUT_OF_MEMORY && n < 500; n++) {
            pp_error error = {0};
            allocations.count = 0;
            allocations.failing = n;
            status = use_everything(cases[i / 2].csv, &error);
            cr_assert_eq(error.code, status);
            cr_assert_eq(pp_live_bytes(), 0, "case %zu, allocation %d", i / 2, n);
        }
        cr_expect_eq(status, cases[i / 2].status, "case %zu: %d", i / 2, status);
    }
    pp_platform_set(NULL);
}
