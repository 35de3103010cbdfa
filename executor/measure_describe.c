/* What machine the samples come from: processor, kernel, libraries, clock. Whatever cannot be found
 * out is said to be unknown; nothing here fails. */
#include "executor/backend.h"
#include "executor/executor.h"

#include <cblas.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

static bool first_line(const char *path, char *line, int capacity) {
    FILE *file = fopen(path, "r");
    bool read = file && fgets(line, capacity, file);
    if (file) fclose(file);
    if (read) line[strcspn(line, "\n")] = '\0';
    return read;
}

/* The value of the first "key : value" line of /proc/cpuinfo. */
static bool cpuinfo(const char *key, char *value, size_t capacity) {
    char line[512];
    bool found = false;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && !found && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)) != 0) continue;
        char *text = colon + 1 + strspn(colon + 1, " \t");
        text[strcspn(text, "\n")] = '\0';
        snprintf(value, capacity, "%s", text);
        found = *text != '\0';
    }
    if (file) fclose(file);
    return found;
}

static void describe_clocks(char clocks[128]) {
    char governor[48] = "", kilohertz[32] = "", megahertz[32] = "";
    const char *folder = "/sys/devices/system/cpu/cpu0/cpufreq/";
    char path[96];
    snprintf(path, sizeof path, "%sscaling_governor", folder);
    bool has_governor = first_line(path, governor, sizeof governor);
    snprintf(path, sizeof path, "%sscaling_max_freq", folder);
    double value;
    if (first_line(path, kilohertz, sizeof kilohertz) && pp_parse_double(kilohertz, &value))
        snprintf(clocks, 128, "at most %.0f MHz", value / 1000);
    else if (cpuinfo("cpu MHz", megahertz, sizeof megahertz))
        snprintf(clocks, 128, "%s MHz", megahertz);
    else
        snprintf(clocks, 128, "unknown");
    size_t length = strlen(clocks);
    if (has_governor) snprintf(clocks + length, 128 - length, ", governor %s", governor);
}

/* By the backend, if it has more to tell than this file. */
static bool describe_device(const char *device, char name[128], char driver[128],
                            char libraries[256], char clocks[128]) {
    char kind[32];
    const pp_backend *backend;
    int64_t number = 0;
    const char *colon = strchr(device, ':');
    snprintf(kind, sizeof kind, "%.*s", (int)strcspn(device, ":"), device);
    if (pp_backend_find(kind, NULL, &backend, NULL) != PP_OK || !backend->describe) return false;
    if (colon && !pp_parse_int(colon + 1, 0, 1023, &number)) return false;
    backend->describe((int)number, name, driver, libraries, clocks);
    return true;
}

void pp_measure_describe(const char *device, char name[128], char driver[128], char libraries[256],
                         char clocks[128]) {
    struct utsname kernel;
    bool known = uname(&kernel) == 0;
    bool is_cpu = strncmp(device, "cpu", 3) == 0;
    if (!is_cpu && describe_device(device, name, driver, libraries, clocks)) return;
    if (!is_cpu)
        snprintf(name, 128, "%s", device);
    else if (!cpuinfo("model name", name, 128))
        snprintf(name, 128, "%s processor", known ? kernel.machine : "unknown");
    if (known)
        snprintf(driver, 128, "%.60s %.60s", kernel.sysname, kernel.release);
    else
        snprintf(driver, 128, "unknown");
    snprintf(libraries, 256, "ppsim %s, %s", PP_VERSION, openblas_get_config());
    describe_clocks(clocks);
}
