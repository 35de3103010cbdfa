/* Finds cuDNN and its symbols. */
#include "executor/cuda/cudnn_library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static dnn_functions functions;
static size_t (*get_version)(void);
static void *library;
static char told[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* POSIX promises that a function's address fits a data pointer; C does not. */
static bool find(const char *symbol, void *function) {
    void *address = dlsym(library, symbol);
    memcpy(function, &address, sizeof address);
    if (!address)
        snprintf(told, sizeof told, "%s has no %s: install cuDNN 9.16 or later", DNN_LIBRARY,
                 symbol);
    return address != NULL;
}

static bool find_all(void) {
#define X(member, symbol, arguments)                                                               \
    if (!find(symbol, &functions.member)) return false;
    DNN_FUNCTION_LIST(X)
#undef X
    return find("cudnnGetVersion", &get_version) &&
           find("cudnnGetErrorString", &functions.error_text);
}

static bool is_new_enough(void) {
    size_t version = get_version();
    snprintf(told, sizeof told, "cuDNN %zu.%zu.%zu%s", version / 10000, version / 100 % 100,
             version % 100,
             version >= DNN_LEAST_VERSION ? "" : " is too old: install 9.16 or later");
    return version >= DNN_LEAST_VERSION;
}

static void open_library(void) {
    const char *path = getenv("PPSIM_CUDNN");
    if (!path) path = DNN_LIBRARY;
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(told, sizeof told,
                 "%.100s cannot be loaded: install NVIDIA's cuDNN 9, or name the file in "
                 "PPSIM_CUDNN",
                 path);
        return;
    }
    if (find_all() && is_new_enough()) return;
    dlclose(library);
    library = NULL;
}

const dnn_functions *pp_dnn_functions(char detail[256]) {
    pthread_once(&once, open_library);
    memcpy(detail, told, sizeof told);
    return library ? &functions : NULL;
}
