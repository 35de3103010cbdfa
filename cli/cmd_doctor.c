/* ppsim doctor: what this machine has, what it lacks, and how to get it. */
#include "cli/cli.h"
#include "executor/executor.h"
#include "executor/plugin.h"

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

static void transports(pp_text *text) {
    pp_backend_info infos[8];
    int count = pp_transports(infos, 8);
    for (int i = 0; i < count; i++)
        pp_text_printf(text, "transport %-5s %s: %s\n", infos[i].name,
                       infos[i].usable ? "usable" : "not usable", infos[i].detail);
}

/* ---- libraries that a machine may lack ------------------------------------------------------ */

/* Whether it can be opened here; detail: its version, or why not. */
static bool cuda_loads(char detail[256]) {
    if (!pp_plugin_open("cuda", detail)) return false;
    snprintf(detail, 256, "used by libppsim_cuda.so");
    return true;
}

static bool cublas_loads(char detail[256]) {
    char name[128], driver[128], libraries[256] = "", clocks[128];
    const pp_plugin *plugin = pp_plugin_open("cuda", detail);
    if (!plugin) return false;
    plugin->backend->describe(0, name, driver, libraries, clocks);
    const char *version = strstr(libraries, "cuBLAS");
    snprintf(detail, 256, "%.64s, used by libppsim_cuda.so", version ? version : "cuBLAS");
    return true;
}

static bool nccl_loads(char detail[256]) {
    const pp_plugin *plugin = pp_plugin_open("nccl", detail);
    return plugin && plugin->carrier->usable(detail);
}

static bool mpi_loads(char detail[256]) {
    const pp_plugin *plugin = pp_plugin_open("mpi", detail);
    return plugin && plugin->wire->usable(detail);
}

/* built: what CMake found when this program was built (cmake/PpsimOptional.cmake); "": nothing.
 * NCCL is not needed to build, only to run. */
static const struct {
    const char *part, *built;
    bool (*loads)(char detail[256]);
    const char *cure;
} optional[] = {
    {"CUDA", PPSIM_FOUND_CUDA, cuda_loads,
     "install NVIDIA's CUDA toolkit, 12.5 or later, and rebuild"},
    {"cuBLAS", PPSIM_FOUND_CUDA, cublas_loads, "it comes with the CUDA toolkit; rebuild then"},
    {"NCCL", "2.18 or later", nccl_loads, ""},
    {"MPI", PPSIM_FOUND_MPI, mpi_loads, "install libopenmpi-dev, and rebuild"},
};

static void optional_parts(pp_text *text) {
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) {
        char detail[256] = "";
        pp_text_printf(text, "library %-7s ", optional[i].part);
        if (!*optional[i].built)
            pp_text_printf(text, "not in this build; to get it: %s\n", optional[i].cure);
        else if (optional[i].loads(detail))
            pp_text_printf(text, "built for %s, loads: %s\n", optional[i].built, detail);
        else
            pp_text_printf(text, "built for %s, does not load: %s\n", optional[i].built, detail);
    }
}

static pp_status run_doctor(const void *settings, const char *const *arguments, int count,
                            pp_output *output, pp_error *error) {
    (void)settings, (void)arguments, (void)count, (void)error;
    pp_version_text(&output->out);
    pp_text_string(&output->out, "\n");
    machine(&output->out);
    backends(&output->out);
    pp_text_string(&output->out, "\n");
    transports(&output->out);
    pp_text_string(&output->out, "\n");
    optional_parts(&output->out);
    return PP_OK;
}

const pp_subcommand pp_cmd_doctor = {
    .name = "doctor",
    .arguments = "",
    .summary = "says what was found on this machine and, for what was not, why",
    .run = run_doctor,
};
