/* ppsim schedule: prints the order of actions of a schedule by name or from a file, or checks one.
 */
#include "cli/cli.h"
#include "sim/sim.h"

#include <stdio.h>
#include <string.h>

typedef struct schedule_settings {
    pp_named_schedule named;
    const char *format, *check;
    bool transfers, list, blocking;
} schedule_settings;

static const pp_option options[] = {
    PP_NAMED_SCHEDULE_OPTIONS(schedule_settings),
    {0, "transfers", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(schedule_settings, transfers),
     "include the sends and receives"},
    {0, "format", NULL, "FORMAT", "text|csv|json", PP_OPTION_STRING,
     offsetof(schedule_settings, format),
     "text (default), csv (as torch.distributed.pipelining reads it) or json"},
    {0, "list", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(schedule_settings, list),
     "list the schedules"},
    {0, "check", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(schedule_settings, check),
     "check a schedule file: complete, in order, free of deadlock"},
    {0, "blocking", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(schedule_settings, blocking),
     "with --check: every send and receive blocks its rank"},
};

/* ---- printing ------------------------------------------------------------------------------ */

static void print_text(const pp_schedule *schedule, pp_text *text) {
    pp_text_printf(text, "%s: %d ranks, %d stages, %lld microbatches\n", schedule->name,
                   schedule->ranks, schedule->stages,
                   (long long)pp_schedule_all_microbatches(schedule));
    for (int p = 0; p < schedule->ranks; p++) {
        pp_text_printf(text, "rank %d:", p);
        for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++) {
            char action[32];
            pp_text_printf(text, "%s%s", schedule->actions[i].overlapped ? " (" : " ",
                           pp_action_text(schedule->actions[i], action));
            if (i > schedule->first_action[p] && schedule->actions[i - 1].overlapped)
                pp_text_string(text, ")");
        }
        pp_text_string(text, "\n");
    }
}

static void print_json(const pp_schedule *schedule, pp_text *text) {
    pp_json json = pp_json_start(text);
    pp_schedule_write_json(schedule, &json);
    pp_text_string(text, "\n");
}

static const struct {
    const char *name;
    void (*print)(const pp_schedule *schedule, pp_text *text);
} formats[] = {{"text", print_text}, {"csv", pp_schedule_write_csv}, {"json", print_json}};

static void print_schedule(const pp_schedule *schedule, const char *format, pp_text *text) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, format ? format : "text") == 0)
            formats[i].print(schedule, text);
}

/* ---- checking ------------------------------------------------------------------------------ */

static void print_report(const pp_check_report *report, const pp_schedule *schedule,
                         pp_text *text) {
    pp_text_printf(text, "%s: %d ranks, %d stages, %lld microbatches\n", schedule->name,
                   schedule->ranks, schedule->stages,
                   (long long)pp_schedule_all_microbatches(schedule));
    const struct {
        const char *what, *good, *bad;
        bool passed;
    } tests[] = {{"complete      ", "yes", "no", report->complete},
                 {"dependencies  ", "kept", "broken", report->dependencies},
                 {"matched       ", "yes", "no", report->matched},
                 {"finishes      ", "yes, under every timing", "no", report->finishes}};
    bool reached = true; /* the first that fails ends the check */
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        const char *verdict = tests[i].passed ? tests[i].good : tests[i].bad;
        pp_text_printf(text, "%s%s\n", tests[i].what, reached ? verdict : "not reached");
        reached = reached && tests[i].passed;
    }
    if (!report->peak_activations) return;
    pp_text_string(text, "peak activations per rank:");
    for (int p = 0; p < schedule->ranks; p++)
        pp_text_printf(text, " %zu", report->peak_activations[p]);
    pp_text_string(text, "\n");
}

static pp_status check_file(const schedule_settings *settings, pp_output *output, pp_error *error) {
    pp_schedule *schedule;
    pp_check_report report = {0};
    PP_TRY(pp_schedule_open(settings->check, &schedule, error));
    pp_status status = pp_named_schedule_agrees(&settings->named, schedule, settings->check, error);
    bool checked = status == PP_OK;
    if (checked) status = pp_schedule_check(schedule, settings->blocking, &report, error);
    if (checked && status != PP_E_OUT_OF_MEMORY) print_report(&report, schedule, &output->out);
    if (status != PP_OK && error->place[0] == '\0')
        snprintf(error->place, sizeof error->place, "%s", settings->check);
    pp_free(report.peak_activations);
    pp_schedule_free(schedule);
    return status;
}

/* ---- the subcommand ------------------------------------------------------------------------ */

static pp_status open_named(const schedule_settings *settings, const char *name,
                            pp_schedule **schedule, pp_error *error) {
    pp_schedule_request request;
    PP_TRY(pp_named_schedule_request(&settings->named, name, &request, error));
    if (strcmp(name, "auto") == 0)
        return pp_fail(error, PP_E_INPUT, "auto",
                       "is made to measure: ppsim simulate --schedule auto -K … -M … --costs F,I,W "
                       "--schedule-out FILE");
    if (!request.ranks || !request.microbatches)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "ppsim schedule needs -K (ranks) and -M (microbatches)");
    return pp_schedule_build(&request, schedule, error);
}

/* By name, or from a file into another form. */
static pp_status print_one(const schedule_settings *settings, const char *name, pp_output *output,
                           pp_error *error) {
    pp_schedule *schedule = NULL, *lowered = NULL;
    pp_status status = PP_OK;
    if (!pp_named_schedule_is_file(name)) {
        PP_TRY(open_named(settings, name, &schedule, error));
    } else {
        PP_TRY(pp_schedule_open(name, &schedule, error));
        status = pp_named_schedule_agrees(&settings->named, schedule, name, error);
    }
    if (status == PP_OK && settings->transfers)
        status = pp_schedule_add_transfers(schedule, &lowered, error);
    if (status == PP_OK)
        print_schedule(lowered ? lowered : schedule, settings->format, &output->out);
    pp_schedule_free(lowered);
    pp_schedule_free(schedule);
    return status;
}

static pp_status run_schedule(const void *settings_, const char *const *arguments, int count,
                              pp_output *output, pp_error *error) {
    const schedule_settings *settings = settings_;
    if (settings->list) return pp_cmd_schedules.run(NULL, NULL, 0, output, error);
    if (settings->check && (count > 0 || settings->format || settings->transfers))
        return pp_fail(
            error, PP_E_INPUT, "--check",
            "prints a report of the file; NAME, --format and --transfers do not go with it");
    if (settings->check) return check_file(settings, output, error);
    if (settings->blocking)
        return pp_fail(error, PP_E_INPUT, "--blocking", "goes with --check FILE");
    if (count == 0)
        return pp_fail(
            error, PP_E_INPUT, NULL,
            "ppsim schedule needs the NAME of a schedule, a FILE, --list or --check FILE");
    return print_one(settings, arguments[0], output, error);
}

const pp_subcommand pp_cmd_schedule = {
    .name = "schedule",
    .arguments = "[NAME|FILE]",
    .maximum_arguments = 1,
    .summary = "prints the order of actions of a schedule, or checks one from a file",
    .description =
        "An action is <stage><type><microbatch>: 0F3 is the forward pass of microbatch 3 on stage "
        "0; B is the full backward pass, I and W its input and weight halves, R recomputation.\n"
        "A file's order is printed as it stands: from CSV to JSON or back with --format, and with "
        "its sends and receives with --transfers.\n"
        "--check proves that the schedule finishes under every timing when sends and receives "
        "rendezvous without buffers, or prints a shortest cycle of waits.",
    PP_OPTIONS(options),
    .settings_size = sizeof(schedule_settings),
    .run = run_schedule,
};
