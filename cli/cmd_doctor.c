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

/* What CMake looked for when this program was built (cmake/PpsimOptional.cmake). */
static const struct {
    const char *part;
    const char *found; /* version or place; "" if not found */
    const char *use;   /* nobody should search for a switch that is not there */
    const char *cure;
} optional[] = {
    {"CUDA toolkit", PPSIM_FOUND_CUDA, "the cuda backend was built with it",
     "install NVIDIA's CUDA toolkit, 12.5 or later, and rebuild"},
    {"NCCL", PPSIM_FOUND_NCCL, "not used yet",
     "install libnccl-dev from NVIDIA's packages, and rebuild"},
    {"MPI", PPSIM_FOUND_MPI, "'run' takes it under mpirun and srun",
     "install libopenmpi-dev, and rebuild"},
};

static void optional_parts(pp_text *text) {
    pp_text_string(text, "\nWhen this program was built:\n");
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++)
        if (*optional[i].found)
            pp_text_printf(text, "%-12s  found: %s; %s\n", optional[i].part, optional[i].found,
                           optional[i].use);
        else
            pp_text_printf(text, "%-12s  not found; to get it: %s\n", optional[i].part,
                           optional[i].cure);
}

static pp_status run_doctor(const void *settings, const char *const *arguments, int count,
                            pp_output *output, pp_error *error) {
    (void)settings, (void)arguments, (void)count, (void)error;
    pp_version_text(&output->out);
    pp_text_string(&output->out, "\n");
    machine(&output->out);
    backends(&output->out);
    optional_parts(&output->out);
    return PP_OK;
}

const pp_subcommand pp_cmd_doctor = {
    .name = "doctor",
    .arguments = "",
    .summary = "says what was found on this machine and, for what was not, why",
    .run = run_doctor,
};
