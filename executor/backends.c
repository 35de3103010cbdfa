/* The table of backends. To add one: a file in backends/ (or a plugin) and a line here. */
#include "executor/backends_internal.h"
#include "executor/executor.h"
#include "executor/plugin.h"

#include <stdio.h>
#include <string.h>

/* Best first: what runs by default where it can. A row without a table is a plugin's. */
static const struct {
    const char *name;
    const pp_backend *built_in;
} rows[] = {{"cuda", NULL}, {"cpu", &pp_backend_cpu}, {"replay", &pp_backend_replay}};
enum { ROWS = sizeof rows / sizeof *rows };

/* The row's backend, usable or not; NULL with the reason in `detail`: there is none. */
static const pp_backend *backend_of(size_t row, char detail[256]) {
    if (rows[row].built_in) return rows[row].built_in;
    const pp_plugin *plugin = pp_plugin_open(rows[row].name, detail);
    return plugin ? plugin->backend : NULL;
}

static const pp_backend *usable_backend(size_t row, char detail[256]) {
    const pp_backend *backend = backend_of(row, detail);
    return backend && backend->usable(detail) ? backend : NULL;
}

pp_status pp_backend_find(const char *name, const char *place, const pp_backend **backend,
                          pp_error *error) {
    char detail[256], known[128] = "";
    size_t length = 0;
    *backend = NULL;
    for (size_t i = 0; i < ROWS; i++) {
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "",
                                   rows[i].name);
        if (strcmp(rows[i].name, name) != 0) continue;
        *backend = usable_backend(i, detail);
        if (*backend) return PP_OK;
        return pp_fail(error, PP_E_UNSUPPORTED, place, "the %s backend cannot be used here: %s",
                       name, detail);
    }
    return pp_fail(error, PP_E_UNSUPPORTED, place, "'%.100s' is not a backend; there are %s", name,
                   known);
}

/* Whether all of the model runs there in this type. */
static bool runs_all(const pp_backend *backend, const pp_model *model, pp_dtype dtype) {
    for (int i = 0; i < model->layer_count; i++)
        if (!backend->layer(model->layers[i].op, dtype)) return false;
    return true;
}

const char *pp_backend_default(const pp_model *model, pp_dtype dtype) {
    char detail[256];
    for (int i = 0; i < model->layer_count; i++)
        if (model->layers[i].op == PP_OP_OPAQUE) return pp_backend_replay.name;
    for (size_t i = 0; i < ROWS; i++) {
        const pp_backend *backend = usable_backend(i, detail);
        if (backend && backend->runs_layers && runs_all(backend, model, dtype))
            return backend->name;
    }
    return pp_backend_cpu.name;
}

int pp_backends(pp_backend_info *infos, int capacity) {
    int count = 0;
    for (size_t i = 0; i < ROWS && count < capacity; i++) {
        pp_backend_info *info = &infos[count++];
        *info = (pp_backend_info){.name = rows[i].name};
        info->usable = usable_backend(i, info->detail) != NULL;
    }
    return count;
}
