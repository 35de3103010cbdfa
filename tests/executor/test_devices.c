/* Who sits where, and what is refused before anything starts: against a device that is played on
 * the host (fake_device.h). */
#include "executor/run_internal.h"
#include "fake_device.h"
#include "run_fixture.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <string.h>

COUNTED_SUITE(devices, .timeout = 60);

#define GIBI ((int64_t)1 << 30)

/* ---- seats --------------------------------------------------------------------------------- */

/* Nobody sits on another's slice, devices get equal shares to one, and a device is cut into as many
 * slices as ranks sit there. */
static void expect_dealt(int count, int first, int devices, int slices) {
    int sharers[16] = {0}, most = 0, least = count;
    bool taken[16][64] = {{false}};
    int used = slices ? 1 : devices - first < count ? devices - first : count;
    for (int i = 0; i < count; i++) {
        pp_backend_seat seat = pp_seat_of(i, count, first, devices, slices);
        cr_assert(seat.device >= first && seat.device < devices);
        cr_assert(!taken[seat.device][seat.slice], "%d of %d: taken", i, count);
        taken[seat.device][seat.slice] = true;
        sharers[seat.device]++;
    }
    for (int d = first; d < first + used; d++) {
        most = sharers[d] > most ? sharers[d] : most;
        least = sharers[d] < least ? sharers[d] : least;
    }
    cr_assert(most - least <= 1, "%d ranks, devices %d to %d: %d and %d", count, first, devices,
              least, most);
    for (int i = 0; i < count; i++) {
        pp_backend_seat seat = pp_seat_of(i, count, first, devices, slices);
        int wanted = slices ? slices : sharers[seat.device] > 1 ? sharers[seat.device] : 0;
        cr_assert(seat.slices == wanted && seat.must_slice == (slices > 0));
        cr_assert(seat.slice < (wanted ? wanted : 1));
    }
}

Test(devices, are_dealt_round) {
    for (int devices = 1; devices <= 8; devices++)
        for (int first = 0; first < devices; first++)
            for (int count = 1; count <= 20; count++) {
                expect_dealt(count, first, devices, 0);
                expect_dealt(count, first, devices, count + devices - 1);
            }
}

/* ---- runs ---------------------------------------------------------------------------------- */

static char warning[512];
static int warnings;
static void hear(pp_log_level level, const char *subsystem, const char *message) {
    if (level != PP_LOG_WARNING || strncmp(subsystem, "executor", 9) != 0) return;
    warnings++;
    snprintf(warning, sizeof warning, "%s", message);
}

static fixture make(int ranks, int dp) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = ranks,
                               .microbatches = 3,
                               .microbatch_size = 2,
                               .dp = dp,
                               .dtype = PP_FP32,
                               .order = ORDER_1F1B};
    fixture made;
    char message[512];
    cr_assert(fixture_make(&request, &made, message), "%s", message);
    fake_reset();
    return made;
}

static pp_run_options on_fake(int device, int slices) {
    return (pp_run_options){.seed = 7,
                            .poison = true,
                            .steps = 2,
                            .own_backend = &fake_device,
                            .device = device,
                            .slices = slices};
}

/* Runs and frees the fixture; nobody has opened the device. */
static void refuse(fixture *what, const pp_run_options *options, pp_status wanted,
                   const char *place, const char *reason) {
    pp_error error = {.message = ""};
    pp_run_result *result;
    pp_status status = pp_run(what->plan, what->schedule, options, &result, &error);
    cr_assert_eq(status, wanted, "status %d: %s", (int)status, error.message);
    cr_assert(strstr(error.message, reason), "\"%s\" does not say \"%s\"", error.message, reason);
    cr_assert_str_eq(error.place, place);
    cr_assert_eq(atomic_load(&fake_seat_count), 0, "it was started all the same");
    fixture_free(what);
}

/* The seats that a run has taken, in any order, as a bit for each (device, slice). */
static uint64_t seats_of(fixture *what, const pp_run_options *options, fixture_record *record) {
    char message[512];
    cr_assert(fixture_run(what, options->steps, options, record, message), "%s", message);
    fixture_free(what);
    uint64_t taken = 0;
    for (int i = 0; i < atomic_load(&fake_seat_count); i++) {
        cr_assert_eq(fake_seats[i].must_slice, options->slices > 0);
        taken |= (uint64_t)1 << (8 * fake_seats[i].device + fake_seats[i].slice);
    }
    return taken;
}

/* Where ranks sit changes no bit. */
Test(devices, ranks_sit_where_they_are_told) {
    static const struct {
        int devices, device, slices, ranks;
        uint64_t taken;
        int cut; /* slices of the first to come */
    } cases[] = {{8, 0, 0, 3, 0x010101, 0}, {8, 5, 0, 3, (uint64_t)0x010101 << 40, 0},
                 {1, 0, 0, 3, 0x07, 3},     {2, 1, 0, 2, (uint64_t)0x03 << 8, 2},
                 {8, 0, 3, 3, 0x07, 3},     {8, 2, 4, 3, (uint64_t)0x07 << 16, 4},
                 {8, 1, 1, 1, 0x01 << 8, 1}};
    fixture_record reference = {0};
    fixture one = make(1, 1);
    pp_run_options plain = on_fake(0, 0);
    (void)seats_of(&one, &plain, &reference);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture_record record = {0};
        fixture made = make(cases[i].ranks, 1);
        pp_run_options options = on_fake(cases[i].device, cases[i].slices);
        char message[512];
        fake_devices = cases[i].devices;
        uint64_t taken = seats_of(&made, &options, &record);
        cr_assert_eq(taken, cases[i].taken, "case %zu: %llx", i, (unsigned long long)taken);
        cr_assert_eq(fake_seats[0].slices, cases[i].cut, "case %zu", i);
        cr_assert(fixture_same(&record, &reference, message), "case %zu: %s", i, message);
        fixture_record_free(&record);
    }
    fixture_record_free(&reference);
}

Test(devices, what_is_not_there_is_refused) {
    fixture made = make(2, 1);
    pp_run_options options = on_fake(8, 0);
    refuse(&made, &options, PP_E_INPUT, "--device", "fake:8 is not there: this machine has 8");
    made = make(3, 1);
    options = on_fake(0, 2);
    refuse(&made, &options, PP_E_INPUT, "--slices",
           "3 ranks of this machine are more than 2 slices");
    made = make(2, 2);
    options = on_fake(0, 3);
    refuse(&made, &options, PP_E_INPUT, "--slices",
           "4 ranks of this machine are more than 3 slices");
    made = make(3, 1);
    options = on_fake(0, 5);
    refuse(&made, &options, PP_E_INPUT, "--slices", "Fake 9000 can be cut into 4 slices at most");
    fake_properties.slices = 0;
    made = make(2, 1);
    options = on_fake(0, 2);
    refuse(&made, &options, PP_E_UNSUPPORTED, "--slices", "Fake 9000 cannot be cut");
    made = make(2, 1);
    options = (pp_run_options){.steps = 1, .backend = "cpu", .slices = 2};
    refuse(&made, &options, PP_E_UNSUPPORTED, "--slices", "cpu backend has no device to cut");
    made = make(2, 1);
    options = (pp_run_options){.steps = 1, .backend = "cpu", .device = 1};
    refuse(&made, &options, PP_E_INPUT, "--device", "cpu backend has no devices that are numbered");
}

static void need(fixture *made, int64_t bytes) {
    for (int p = 0; p < made->plan->ranks; p++) made->plan->predicted.rank[p].peak_bytes = bytes;
}

/* The rank that does not fit is named, with what it needs and what is left for it. */
Test(devices, too_little_memory_is_said_before_the_start) {
    fake_properties.free_bytes = 10 * GIBI;
    fake_properties.rank_bytes = GIBI;
    pp_run_options options = on_fake(3, 4);
    fixture made = make(3, 1);
    need(&made, 4 * GIBI);
    refuse(&made, &options, PP_E_INPUT, "",
           "rank 2 needs 5.00 GiB (5368709120 bytes) on fake:3, and Fake 9000 has 0 B free there "
           "beside 2 other ranks");
    made = make(2, 1);
    need(&made, 10 * GIBI);
    refuse(&made, &options, PP_E_INPUT, "", "rank 0 needs 11.0 GiB");
    made = make(1, 3);
    need(&made, 5 * GIBI);
    refuse(&made, &options, PP_E_INPUT, "", "rank 0, replica 1 needs 6.00 GiB");
    /* dealt round eight devices they fit */
    fixture_record record = {0};
    options = on_fake(0, 0);
    made = make(3, 1);
    need(&made, 4 * GIBI);
    cr_assert_eq(seats_of(&made, &options, &record), 0x010101);
    fixture_record_free(&record);
}

/* A plan for another card runs, with one warning that has both names. */
Test(devices, a_plan_for_another_card_is_warned_of) {
    static const struct {
        const char *kind;
        int warnings;
    } cases[] = {{"h100-sxm", 1}, {"fake-9000", 0}, {"fake", 0}, {"FAKE", 0}};
    pp_log_install(hear, "warning");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture_record record = {0};
        fixture made = make(3, 1);
        pp_run_options options = on_fake(0, 0);
        made.plan->cluster->devices[0].name = cases[i].kind;
        warnings = 0;
        (void)seats_of(&made, &options, &record);
        cr_assert_eq(warnings, cases[i].warnings, "%s: %s", cases[i].kind, warning);
        fixture_record_free(&record);
    }
    pp_log_install(NULL, NULL);
    cr_assert(strstr(warning, "made for h100-sxm, and rank 0 has Fake 9000"), "%s", warning);
}

Test(devices, are_read_from_the_command_line) {
    static const struct {
        const char *text, *backend;
        int number;
    } cases[] = {
        {"cpu", "cpu", 0}, {"cuda", "cuda", 0}, {"cuda:0", "cuda", 0}, {"cuda:17", "cuda", 17}};
    char backend[32];
    int number;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(pp_device_parse(cases[i].text, backend, &number, NULL), PP_OK);
        cr_assert_str_eq(backend, cases[i].backend);
        cr_assert_eq(number, cases[i].number);
    }
    static const char *const wrong[] = {"cuda:", "cuda:x", "cuda:-1", "cuda:1024", "cuda:0:1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert_eq(pp_device_parse(wrong[i], backend, &number, NULL), PP_E_INPUT, "%s", wrong[i]);
}
