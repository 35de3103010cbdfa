/* ppsim: finds the subcommand, gives it its settings, prints what it made, and turns its error into
 * one message and an exit status. */
#include "cli/cli.h"
#include "executor/executor.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const pp_subcommand *const subcommands[] = {
    &pp_cmd_profile,  &pp_cmd_plan,     &pp_cmd_simulate, &pp_cmd_render,   &pp_cmd_run,
    &pp_cmd_validate, &pp_cmd_schedule, &pp_cmd_models,   &pp_cmd_clusters, &pp_cmd_schedules,
    &pp_cmd_import,   &pp_cmd_export,   &pp_cmd_doctor,   &pp_cmd_help,
};

const pp_subcommand *const *pp_subcommands(int *count) {
    *count = (int)(sizeof subcommands / sizeof *subcommands);
    return subcommands;
}

const pp_subcommand *pp_subcommand_find(const char *name) {
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++)
        if (strcmp(subcommands[i]->name, name) == 0) return subcommands[i];
    return NULL;
}

/* ---- signals and log ----------------------------------------------------------------------- */

/* The first signal asks to stop; after it both are as they were, so a second one, of either kind,
 * is immediate. Where it comes here all the same, on another thread at the same time (Pango has
 * one), it is sent again. */
static void on_signal(int signal_number) {
    static atomic_flag asked = ATOMIC_FLAG_INIT;
    bool second = atomic_flag_test_and_set(&asked);
    pp_stop_request(signal_number);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    if (second) raise(signal_number);
}

/* Without SA_RESTART: what waits in read or write comes back and sees the request. */
static void install_signals(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGINT);
    sigaddset(&action.sa_mask, SIGTERM);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is seen as EPIPE where it is written */
}

static void log_to_stderr(pp_log_level level, const char *subsystem, const char *message) {
    static const char *const names[] = {"error", "warning", "info", "debug", "trace"};
    pp_progress_clear();
    if (level <= PP_LOG_WARNING) /* whose warning it is says the message */
        fprintf(stderr, "ppsim: %s: %s\n", names[level], message);
    else
        fprintf(stderr, "ppsim: %s: %s: %s\n", names[level], subsystem, message);
}

/* ---- results ------------------------------------------------------------------------------- */

/* Everything to stdout. A reader that left (EPIPE) is no error; one that does not read holds the
 * program until it is asked to stop. */
static pp_status write_stdout(const pp_text *text, pp_error *error) {
    size_t done = 0;
    if (text->failed) return pp_fail_memory(error);
    while (done < text->length) {
        ssize_t written = write(STDOUT_FILENO, text->bytes + done, text->length - done);
        if (written > 0) done += (size_t)written;
        if (done < text->length && pp_stop_signal()) /* a signal cut the call short */
            return pp_fail(error, PP_E_INTERRUPTED, NULL,
                           "interrupted while writing to standard output");
        if (written >= 0 || errno == EINTR) continue;
        if (errno == EPIPE) return PP_OK;
        int reason = errno;
        pp_fail(error, PP_E_IO, NULL, "cannot write to standard output");
        return pp_fail_cause(error, strerror(reason));
    }
    return PP_OK;
}

static void print_error(const pp_error *error) {
    bool colour = pp_terminal_colour(STDERR_FILENO);
    pp_progress_clear();
    bool placed = error->place[0] != '\0', caused = error->cause[0] != '\0';
    /* in one call, which is one write: others may write there too */
    fprintf(stderr, "%sppsim:%s %s%s%s%s%s%s\n", colour ? "\033[31m" : "", colour ? "\033[0m" : "",
            error->place, placed ? ": " : "", error->message, caused ? " (" : "", error->cause,
            caused ? ")" : "");
}

static int exit_status(pp_status status) {
    if (status == PP_E_INTERRUPTED && pp_stop_signal() != 0) return 128 + pp_stop_signal();
    return pp_status_exit(status);
}

/* Prints what there is, then the error if there is one; returns the exit status. Who asked for a
 * stop gets the signal's status even when the work was quicker. */
static int finish(pp_status status, pp_output *output, pp_error *error) {
    pp_error write_error;
    pp_progress_clear();
    pp_status written = output->silent ? PP_OK : write_stdout(&output->out, &write_error);
    if (status == PP_OK) {
        status = written;
        error = &write_error;
    }
    if (status == PP_OK && pp_stop_signal())
        status = pp_fail(error, PP_E_INTERRUPTED, NULL, "interrupted when all was done");
    if (status != PP_OK && !output->silent) print_error(error);
    pp_text_deinit(&output->out);
    return exit_status(status);
}

/* ---- dispatch ------------------------------------------------------------------------------ */

static pp_status run_subcommand(const pp_subcommand *subcommand, int argc, char **argv,
                                pp_output *output, pp_error *error) {
    pp_status status = PP_E_OUT_OF_MEMORY;
    int argument_count, process;
    output->silent = subcommand->together && pp_processes_launched(&process) > 1 && process > 0;
    bool help;
    void *settings = pp_allocate_zeroed(1, subcommand->settings_size + 1);
    const char **arguments = pp_allocate_zeroed((size_t)argc + 1, sizeof *arguments);
    if (!settings || !arguments) {
        pp_fail_memory(error);
        goto out;
    }
    if (subcommand->defaults) memcpy(settings, subcommand->defaults, subcommand->settings_size);
    status = pp_options_parse(subcommand, argc, argv, settings, arguments, &argument_count, &help,
                              error);
    if (status != PP_OK) goto out;
    if (help)
        pp_help_subcommand(subcommand, &output->out);
    else
        status = subcommand->run(settings, arguments, argument_count, output, error);
out:
    pp_free(arguments);
    pp_free(settings);
    return status;
}

static pp_status dispatch(int argc, char **argv, pp_output *output, pp_error *error) {
    if (argc < 2) {
        pp_help_program(&output->out);
        return pp_fail(error, PP_E_INPUT, NULL, "which subcommand?");
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        pp_version_text(&output->out);
        return PP_OK;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        pp_help_program(&output->out);
        return PP_OK;
    }
    const pp_subcommand *subcommand = pp_subcommand_find(word);
    if (!subcommand)
        return pp_fail(error, PP_E_INPUT, word,
                       "is not a subcommand of ppsim; 'ppsim help' lists them");
    return run_subcommand(subcommand, argc - 2, argv + 2, output, error);
}

int main(int argc, char **argv) {
    pp_output output = {0};
    pp_error error = {0};
    install_signals();
    pp_log_install(log_to_stderr, getenv("PPSIM_LOG"));
    pp_status status = dispatch(argc, argv, &output, &error);
    if (output.processes) output.silent = !pp_processes_speaks(output.processes);
    int code = finish(status, &output, &error);
    pp_processes_leave(output.processes, code);
    if (getenv("PPSIM_COUNT_LEAKS") && pp_live_bytes() != 0)
        fprintf(stderr, "ppsim: %lld bytes were never freed\n", (long long)pp_live_bytes());
    return code;
}
