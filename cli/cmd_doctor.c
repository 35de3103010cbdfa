/* ppsim doctor: what this machine has, what it lacks, and how to get it. */
#include "cli/cli.h"
#include "executor/executor.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static void machine(pp_text *text) {
    struct utsname name;
    char memory[32], device[128], driver[128], libraries[256], clocks[128];
    double bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    pp_measure_describe("cpu", device, driver, libraries, clocks);
    if (uname(&name) == 0)
        pp_text_printf(text, "system     %s %s %s\n", name.sysname, name.release, name.machine);
    pp_text_printf(text, "processor  %s, %ld cores, clock %s\n", device,
                   sysconf(_SC_NPROCESSORS_ONLN), clocks);
    pp_text_printf(text, "memory     %s\n\n", pp_format_bytes(bytes, memory));
}

static void backends(pp_text *text) {
    pp_backend_info infos[8];
    int count = pp_backends(infos, 8);
    for (int i = 0; i < count; i++)
        pp_text_printf(text, "backend %-7s %s: %s\n", infos[i].name,
                       infos[i].usable ? "usable" : "not usable", infos[i].detail);
}

/* Plugins of later versions; named so that nobody searches for them in vain. */
static void absent(pp_text *text) {
    pp_text_string(text,
                   "backend cuda    not usable: this version of ppsim has no CUDA backend\n"
                   "transport nccl  not usable: this version of ppsim has no NCCL transport\n"
                   "transport mpi   not usable: this version of ppsim has no MPI transport\n");
}

static pp_status run_doctor(const void *settings, const char *const *arguments, int count,
                            pp_output *output, pp_error *error) {
    (void)settings, (void)arguments, (void)count, (void)error;
    pp_version_text(&output->out);
    pp_text_string(&output->out, "\n");
    machine(&output->out);
    backends(&output->out);
    absent(&output->out);
    return PP_OK;
}

const pp_subcommand pp_cmd_doctor = {
    .name = "doctor",
    .arguments = "",
    .summary = "says what was found on this machine and, for what was not, why",
    .run = run_doctor,
};
