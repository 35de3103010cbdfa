/* The NCCL transport where there is no GPU: the plugin's calls go to a stand-in for libnccl.so.2
 * (tests/nccl), the device is the fake one, processes are threads on a wire in memory. */
#include "executor/nccl/nccl_carrier.h"
#include "executor/processes_internal.h"
#include "fake_device.h"
#include "members.h"
#include "memory_wire.h"
#include "run_fixture.h"
#include "tests/live_bytes.h"
#include "tests/nccl/stand_in.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(nccl, .timeout = 120);

static const pp_host host = {.abi = PP_PLUGIN_ABI,
                             .allocate = pp_allocate,
                             .release = pp_free,
                             .now_s = pp_now_s,
                             .stop_signal = pp_stop_signal,
                             .log = pp_log,
                             .fail = pp_fail};

/* Opens the stand-in as the plugin's NCCL. */
static stand_in_control *open_stand_in(void) {
    char detail[256];
    setenv("PPSIM_NCCL", PPSIM_STAND_IN_NCCL, 1);
    pp_nccl_host = &host;
    cr_assert(pp_nccl_carrier.usable(detail), "%s", detail);
    cr_assert_str_eq(detail, "NCCL 2.28.9");
    void *library = dlopen(PPSIM_STAND_IN_NCCL, RTLD_NOW);
    stand_in_control *control = dlsym(library, "stand_in_control_");
    cr_assert_not_null(control);
    control->host = fake_host;
    return control;
}

static const pp_run_options through_nccl = {
    .seed = 5, .poison = true, .steps = 3, .timeout_s = 20, .transport = "nccl"};

static pp_run_options options_of(const pp_run_options *from) {
    pp_run_options options = *from;
    options.own_backend = &fake_device;
    options.own_carrier = &pp_nccl_carrier;
    return options;
}

static const struct {
    const char *model;
    int ranks, virtual_stages, dp;
    fixture_order order;
} shapes[] = {{fixture_gpt, 2, 1, 1, ORDER_1F1B},
              {fixture_gpt, 4, 1, 1, ORDER_SPLIT},
              {fixture_graph, 3, 1, 1, ORDER_GPIPE},
              {fixture_gpt, 3, 2, 1, ORDER_LOOPS},
              {fixture_ties, 2, 1, 2, ORDER_1F1B}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static fixture_request request_of(int i) {
    return (fixture_request){.model = shapes[i].model,
                             .ranks = shapes[i].ranks,
                             .virtual_stages = shapes[i].virtual_stages,
                             .dp = shapes[i].dp,
                             .microbatches = 4,
                             .microbatch_size = 2,
                             .global_batch = 7 * shapes[i].dp,
                             .dtype = PP_FP32,
                             .order = shapes[i].order};
}

/* What the fake device gives when messages are copied. */
static fixture_record reference_of(const fixture_request *request) {
    fixture made;
    fixture_record record;
    char message[512] = "";
    pp_run_options options = {.seed = 5, .poison = true, .own_backend = &fake_device};
    fake_reset();
    cr_assert(fixture_make(request, &made, message), "%s", message);
    cr_assert(fixture_run(&made, 3, &options, &record, message), "%s", message);
    fixture_free(&made);
    return record;
}

static void expect_clean(const stand_in_control *control) {
    cr_expect_gt(control->transfers, 0);
    cr_expect_eq(control->outside_groups, 0);
    cr_expect_eq(control->comms, control->destroyed, "%d joined, %d left, %d aborted",
                 control->comms, control->destroyed, control->aborted);
    cr_expect_eq(control->aborted, 0);
}

/* Several threads of one process: ids go from thread to thread. */
Test(nccl, threads_get_the_same_bits) {
    stand_in_control *control = open_stand_in();
    control->delay_s = 1e-4;
    atomic_store(&control->slow_polls, 3);
    for (int i = 0; i < SHAPES; i++) {
        char message[512] = "";
        fixture_request request = request_of(i);
        fixture_record reference = reference_of(&request), record;
        fixture made;
        pp_run_options options = options_of(&through_nccl);
        fake_reset();
        cr_assert(fixture_make(&request, &made, message), "%s", message);
        cr_assert(fixture_run(&made, 3, &options, &record, message), "shape %d: %s", i, message);
        cr_expect(fixture_same(&record, &reference, message), "shape %d: %s", i, message);
        fixture_record_free(&record);
        fixture_record_free(&reference);
        fixture_free(&made);
    }
    expect_clean(control);
}

static void run_members(const fixture_request *request, const pp_run_options *options,
                        member *members, int processes, bool record_all) {
    cr_assert(processes <= MEMBERS_MOST);
    memory_wire_open(processes, 1e-4, 3);
    for (int q = 0; q < processes && q < MEMBERS_MOST; q++)
        members[q] = (member){.request = request,
                              .options = *options,
                              .timeout_s = options->timeout_s,
                              .record_all = record_all};
    fake_reset();
    members_run(members, processes);
}

/* Several processes: ids and announcements go over the wire. */
Test(nccl, processes_get_the_same_bits) {
    stand_in_control *control = open_stand_in();
    control->delay_s = 1e-4;
    for (int i = 0; i < SHAPES; i++) {
        char message[512] = "";
        fixture_request request = request_of(i);
        fixture_record reference = reference_of(&request);
        pp_run_options options = options_of(&through_nccl);
        for (int processes = 2; processes <= request.ranks * request.dp; processes++) {
            member members[MEMBERS_MOST];
            run_members(&request, &options, members, processes, true);
            for (int q = 0; q < processes; q++)
                cr_assert(members[q].fine, "shape %d: %s", i, members[q].message);
            members_merge(members, processes);
            cr_expect(fixture_same(&members[0].record, &reference, message),
                      "shape %d, %d processes: %s", i, processes, message);
            members_free(members, processes);
            cr_expect_eq(memory_wire_close(), processes);
        }
        fixture_record_free(&reference);
    }
    expect_clean(control);
}

/* The fallback: the same through the host, by letters. */
Test(nccl, staging_through_pinned_memory_gets_the_same_bits) {
    for (int i = 0; i < SHAPES; i++) {
        char message[512] = "";
        fixture_request request = request_of(i);
        fixture_record reference = reference_of(&request);
        pp_run_options options = options_of(&through_nccl);
        options.transport = "mpi";
        member members[MEMBERS_MOST];
        run_members(&request, &options, members, 2, true);
        for (int q = 0; q < 2; q++)
            cr_assert(members[q].fine, "shape %d: %s", i, members[q].message);
        members_merge(members, 2);
        cr_expect(fixture_same(&members[0].record, &reference, message), "shape %d: %s", i,
                  message);
        members_free(members, 2);
        fixture_record_free(&reference);
        cr_expect_eq(memory_wire_close(), 2);
        cr_expect_gt(atomic_load(&fake_pinned_ever), 0);
        cr_expect_eq(atomic_load(&fake_pinned), 0, "%d blocks are pinned",
                     atomic_load(&fake_pinned));
    }
}

/* ---- failures ------------------------------------------------------------------------------ */

static pp_status run_failing(stand_in_control *control, pp_error *error) {
    fixture_request request = request_of(1);
    fixture made;
    char message[512] = "";
    pp_run_options options = options_of(&through_nccl);
    options.timeout_s = 0.4;
    pp_run_result *result;
    cr_assert(fixture_make(&request, &made, message), "%s", message);
    fake_reset();
    *error = (pp_error){.code = PP_OK};
    pp_status status = pp_run(made.plan, made.schedule, &options, &result, error);
    pp_run_result_free(result);
    fixture_free(&made);
    cr_expect_eq(control->comms, control->destroyed + control->aborted, "%d joined, %d + %d left",
                 control->comms, control->destroyed, control->aborted);
    return status;
}

/* Whenever it happens: while pairs are tried out, or in a step. */
Test(nccl, an_error_in_the_background_ends_the_run) {
    stand_in_control *control = open_stand_in();
    for (int n = 1; n < 60; n += 4) {
        pp_error error;
        atomic_store(&control->fail_transfer, n);
        cr_expect_eq(run_failing(control, &error), PP_E_FAILED);
        cr_expect(strstr(error.message, "NCCL failed in the background: remote process exited"),
                  "transfer %d: %s", n, error.message);
    }
}

Test(nccl, a_refused_call_ends_the_run) {
    stand_in_control *control = open_stand_in();
    for (int n = 1; n < 60; n += 7) {
        pp_error error;
        atomic_store(&control->fail_call, n);
        cr_expect_eq(run_failing(control, &error), PP_E_FAILED);
        cr_expect(strstr(error.message, "ing: invalid usage") ||
                      strstr(error.message, "remote process exited"),
                  "call %d: %s", n, error.message);
    }
}

Test(nccl, a_transfer_that_never_ends_ends_the_run_in_time) {
    stand_in_control *control = open_stand_in();
    for (int n = 2; n < 40; n += 17) {
        pp_error error;
        atomic_store(&control->hang_transfer, n);
        cr_expect_eq(run_failing(control, &error), PP_E_FAILED);
        cr_expect(strstr(error.message, "for 0.4 s") || strstr(error.message, "within 0.4 s"),
                  "transfer %d: %s", n, error.message);
        cr_expect_gt(control->aborted, 0);
    }
}

/* The error of one process reaches all, and all abort their pairs. */
Test(nccl, processes_end_together) {
    stand_in_control *control = open_stand_in();
    fixture_request request = request_of(1);
    pp_run_options options = options_of(&through_nccl);
    for (int n = 3; n < 40; n += 12) {
        member members[MEMBERS_MOST];
        atomic_store(&control->fail_transfer, n);
        run_members(&request, &options, members, 3, false);
        for (int q = 0; q < 3; q++) {
            cr_expect_eq(members[q].status, PP_E_FAILED, "transfer %d, process %d", n, q);
            cr_expect(strstr(members[q].error.message, "NCCL failed"), "%s",
                      members[q].error.message);
        }
        members_free(members, 3);
        memory_wire_close();
        cr_expect_eq(control->comms, control->destroyed + control->aborted);
    }
}

/* ---- what can serve ------------------------------------------------------------------------ */

static void refuse(pp_run_options options, const char *reason) {
    fixture_request request = request_of(0);
    fixture made;
    char message[512] = "";
    pp_run_result *result;
    pp_error error = {.code = PP_OK};
    cr_assert(fixture_make(&request, &made, message), "%s", message);
    cr_expect_eq(pp_run(made.plan, made.schedule, &options, &result, &error), PP_E_UNSUPPORTED);
    cr_expect_str_eq(error.place, "--transport");
    cr_expect(strstr(error.message, reason), "%s", error.message);
    fixture_free(&made);
}

Test(nccl, refusals_say_why) {
    open_stand_in();
    refuse((pp_run_options){.transport = "nccl"}, "the cpu backend has no device memory");
    refuse((pp_run_options){.transport = "mpi"}, "there is one process");
    refuse((pp_run_options){.transport = "pigeon"}, "there are local, nccl, mpi");
    pp_run_options options = options_of(&through_nccl);
    fake_devices = 1;
    refuse(options, "2 ranks share one device, and NCCL wants one for each");
    fake_devices = 8;
}

Test(nccl, a_library_that_is_missing_or_old_is_one_sentence) {
    char detail[256];
    pp_nccl_host = &host;
    setenv("PPSIM_NCCL", "/nowhere/libnccl.so.2", 1);
    cr_expect_not(pp_nccl_carrier.usable(detail));
    cr_expect(strstr(detail, "/nowhere/libnccl.so.2 cannot be loaded: install NVIDIA's libnccl2"),
              "%s", detail);
}

Test(nccl, a_library_that_is_old_is_one_sentence) {
    char detail[256];
    pp_nccl_host = &host;
    setenv("PPSIM_NCCL", PPSIM_STAND_IN_NCCL, 1);
    stand_in_control *control = dlsym(dlopen(PPSIM_STAND_IN_NCCL, RTLD_NOW), "stand_in_control_");
    control->version = 21403;
    cr_expect_not(pp_nccl_carrier.usable(detail));
    cr_expect_str_eq(detail, "NCCL 2.14.3 is too old: install 2.18 or later");
}
