/* Finding and opening plugins (plugin.h): once each, and the reason is kept where one cannot be. */
#include "executor/plugin.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const pp_host host = {
    .abi = PP_PLUGIN_ABI,
    .allocate = pp_allocate,
    .release = pp_free,
    .now_s = pp_now_s,
    .stop_signal = pp_stop_signal,
    .log = pp_log,
    .fail = pp_fail,
};

/* Where plugins may be, from the folder of the program on. */
static const char *const folders[] = {"", "../lib/ppsim/", "../executor/"};

typedef struct known_plugin {
    const char *name;
    const char *cure; /* when it is not there */
    bool tried;
    const pp_plugin *plugin;
    char detail[256];
} known_plugin;

static known_plugin known[] = {
    {.name = "cuda",
     .cure = "this build has no CUDA: install NVIDIA's CUDA toolkit, 12.5 or later, and rebuild"},
    {.name = "nccl", .cure = "libppsim_nccl.so is not beside the program: install both from one build"},
    {.name = "mpi", .cure = "this build has no MPI: install libopenmpi-dev and rebuild"},
};
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* The folder of the running program, with a '/' at its end. */
static bool program_folder(char *folder, size_t size) {
    ssize_t length = readlink("/proc/self/exe", folder, size - 1);
    if (length <= 0) return false;
    folder[length] = '\0';
    char *slash = strrchr(folder, '/');
    if (!slash) return false;
    slash[1] = '\0';
    return true;
}

/* The first place where its file is; false: nowhere. */
static bool find_file(const char *name, char *path, size_t size) {
    char folder[3072];
    if (!program_folder(folder, sizeof folder)) return false;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, size, "%s%slibppsim_%s.so", folder, folders[i], name);
        if (access(path, R_OK) == 0) return true;
    }
    return false;
}

static void open_plugin(known_plugin *entry) {
    char path[4096];
    if (!find_file(entry->name, path, sizeof path)) {
        snprintf(entry->detail, sizeof entry->detail, "%s", entry->cure);
        return;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(entry->detail, sizeof entry->detail, "cannot be loaded: %s", dlerror());
        return;
    }
    /* POSIX promises that a function's address fits a data pointer; C does not */
    union {
        void *address;
        pp_plugin_entry *call;
    } symbol = {dlsym(library, PP_PLUGIN_SYMBOL)};
    const pp_plugin *plugin = symbol.address ? symbol.call(&host) : NULL;
    if (plugin && plugin->abi == PP_PLUGIN_ABI && strcmp(plugin->version, PP_VERSION) == 0) {
        entry->plugin = plugin;
        return;
    }
    snprintf(entry->detail, sizeof entry->detail,
             "%.160s is not of this version of ppsim (%s): install both from one build", path,
             PP_VERSION);
    dlclose(library);
}

const pp_plugin *pp_plugin_open(const char *name, char detail[256]) {
    const pp_plugin *plugin = NULL;
    snprintf(detail, 256, "there is no plugin '%.100s'", name);
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) != 0) continue;
        if (!known[i].tried) open_plugin(&known[i]);
        known[i].tried = true;
        plugin = known[i].plugin;
        memcpy(detail, known[i].detail, 256);
    }
    pthread_mutex_unlock(&mutex);
    return plugin;
}
