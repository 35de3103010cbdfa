/* The table of backends. To add one: a file in backends/ and a line here. */
#include "executor/backends_internal.h"
#include "executor/executor.h"

#include <stdio.h>
#include <string.h>

static const pp_backend *const backends[] = {&pp_backend_cpu, &pp_backend_replay};
enum { BACKEND_COUNT = sizeof backends / sizeof backends[0] };

const pp_backend *const *pp_backend_table(int *count) {
    *count = BACKEND_COUNT;
    return backends;
}

const pp_backend *pp_backend_find(const char *name) {
    for (int i = 0; i < BACKEND_COUNT; i++)
        if (strcmp(backends[i]->name, name) == 0) return backends[i];
    return NULL;
}

const char *pp_backend_default(const pp_model *model) {
    for (int i = 0; i < model->layer_count; i++)
        if (model->layers[i].op == PP_OP_OPAQUE) return pp_backend_replay.name;
    return pp_backend_cpu.name;
}

int pp_backends(pp_backend_info *infos, int capacity) {
    int count = capacity < BACKEND_COUNT ? capacity : BACKEND_COUNT;
    for (int i = 0; i < count; i++) {
        infos[i] = (pp_backend_info){.name = backends[i]->name};
        infos[i].usable = backends[i]->usable(infos[i].detail);
    }
    return count;
}
