/* The plugin interface: backends, wires and carriers that live in shared objects of their own, so that a
 * machine without the libraries they need runs all the rest of ppsim, and starts as fast as ever.
 *
 * A plugin is libppsim_<name>.so beside the program (or in ../lib/ppsim of it), opened when its
 * part is first asked for. It exports one symbol, ppsim_plugin, and hides all
 * others. It holds no state of core's: memory, log, errors, clock and stop requests come from the
 * host in a table. Both tables begin with the version of this interface; a plugin of another one
 * is not used, and says so. */
#ifndef PPSIM_EXECUTOR_PLUGIN_H
#define PPSIM_EXECUTOR_PLUGIN_H

#include "executor/backend.h"
#include "executor/carrier.h"
#include "executor/wire.h"

#define PP_PLUGIN_ABI 5
#define PP_PLUGIN_SYMBOL "ppsim_plugin"

/* What a plugin may ask of the program. Lives as long as the process. */
typedef struct pp_host {
    uint32_t abi;                         /* PP_PLUGIN_ABI */
    void *(*allocate)(size_t size_bytes); /* pp_allocate and pp_free of core.h */
    void (*release)(void *block);
    double (*now_s)(void);
    int (*stop_signal)(void);
    void (*log)(pp_log_level level, const char *subsystem, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
    pp_status (*fail)(pp_error *error, pp_status code, const char *place, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
} pp_host;

typedef struct pp_plugin {
    uint32_t abi;                      /* PP_PLUGIN_ABI of the plugin's own headers */
    const char *name;                  /* "cuda" */
    const char *version;               /* of ppsim, as it was built */
    const pp_backend *backend;         /* NULL: none */
    const pp_carrier_ops *carrier;     /* NULL: none */
    const pp_wire_ops *wire;           /* NULL: none */
} pp_plugin;

/* The one exported symbol. Called once; NULL: the plugin cannot work with this host. */
typedef const pp_plugin *pp_plugin_entry(const pp_host *host);

/* The plugin of that name, opened on first use and kept; NULL with the reason and the cure in
 * `detail`. Thread-safe. */
const pp_plugin *pp_plugin_open(const char *name, char detail[256]);

#endif
