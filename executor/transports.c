/* Which transport a run takes: threads of one process copy; processes exchange letters through the
 * host; devices of their own exchange memory by NCCL. The first row that can serve is taken unless
 * one is named; with several processes all must be able to. */
#include "executor/plugin.h"
#include "executor/run_internal.h"

#include <stdio.h>
#include <string.h>

/* Why a row cannot serve this job; "" if it can. */
typedef void reason(const pp_job *job, char why[256]);

static void why_not_local(const pp_job *job, char why[256]) {
    if (job->processes)
        snprintf(why, 256, "ranks are in %d processes", pp_processes_count(job->processes));
}

static void why_not_mpi(const pp_job *job, char why[256]) {
    if (!job->processes) snprintf(why, 256, "there is one process: start several with mpirun");
}

static const pp_carrier_ops *find_carrier(const pp_job *job, char why[256]) {
    if (job->options->own_carrier) return job->options->own_carrier;
    const pp_plugin *plugin = pp_plugin_open("nccl", why);
    return plugin && plugin->carrier->usable(why) ? plugin->carrier : NULL;
}

static void why_not_nccl(const pp_job *job, char why[256]) {
    int sharers = pp_devices_most_sharers(job);
    if (!job->backend->device_memory || !job->backend->side_open)
        snprintf(why, 256, "the %s backend has no device memory", job->backend->name);
    else if (!find_carrier(job, why))
        return;
    else if (sharers > 1)
        snprintf(why, 256, "%d ranks share one device, and NCCL wants one for each", sharers);
    else
        why[0] = '\0';
}

/* Best first. */
static const struct {
    const char *name;
    reason *why_not;
    const pp_transport_ops *ops;
} rows[] = {
    {"local", why_not_local, &pp_transport_local},
    {"nccl", why_not_nccl, &pp_transport_device},
    {"mpi", why_not_mpi, &pp_transport_remote},
};
enum { ROWS = sizeof rows / sizeof *rows };

/* What everybody can, a bit for each row. */
static pp_status hear_able(void *context, int process, const void *bytes, size_t size_bytes) {
    uint32_t *able = context, heard;
    (void)process;
    if (size_bytes != sizeof heard) return PP_E_FAILED;
    memcpy(&heard, bytes, sizeof heard);
    *able &= heard;
    return PP_OK;
}

static pp_status agree_on(pp_job *job, uint32_t *able, pp_error *error) {
    uint32_t own = *able;
    if (!job->processes) return PP_OK;
    pp_meeting meeting = {.bring = &own,
                          .bring_bytes = sizeof own,
                          .hear = hear_able,
                          .context = able,
                          .say = able,
                          .say_bytes = sizeof *able};
    return pp_meet(job->processes, &meeting, error);
}

static void take(pp_job *job, size_t row) {
    char detail[256];
    job->transport_ops = rows[row].ops;
    if (rows[row].ops == &pp_transport_device) job->carrier = find_carrier(job, detail);
}

static pp_status take_named(pp_job *job, const char *name, uint32_t able, pp_error *error) {
    char why[256] = "", known[64] = "";
    size_t length = 0;
    for (size_t i = 0; i < ROWS; i++) {
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "",
                                   rows[i].name);
        if (strcmp(rows[i].name, name) != 0) continue;
        if (able & (1u << i)) {
            take(job, i);
            return PP_OK;
        }
        rows[i].why_not(job, why);
        return pp_fail(error, PP_E_UNSUPPORTED, "--transport", "%s cannot be used here: %s", name,
                       why[0] ? why : "another process cannot");
    }
    return pp_fail(error, PP_E_UNSUPPORTED, "--transport",
                   "'%.100s' is not a transport; there are %s", name, known);
}

pp_status pp_transport_choose(pp_job *job, pp_error *error) {
    uint32_t able = 0;
    for (size_t i = 0; i < ROWS; i++) {
        char why[256] = "";
        rows[i].why_not(job, why);
        if (!why[0])
            able |= 1u << i;
        else
            pp_log(PP_LOG_DEBUG, "executor", "transport %s: %s", rows[i].name, why);
    }
    PP_TRY(agree_on(job, &able, error));
    if (job->options->transport) return take_named(job, job->options->transport, able, error);
    for (size_t i = 0; i < ROWS; i++)
        if (able & (1u << i)) {
            take(job, i);
            pp_log(PP_LOG_INFO, "executor", "transport: %s", rows[i].name);
            return PP_OK;
        }
    return pp_fail(error, PP_E_UNSUPPORTED, NULL, "no transport can serve this run");
}

/* ---- for doctor ---------------------------------------------------------------------------- */

int pp_transports(pp_backend_info *infos, int capacity) {
    pp_backend_info known[] = {
        {.name = "local", .usable = true, .detail = "threads of one process"},
        {.name = "nccl"},
        {.name = "mpi"},
    };
    const pp_plugin *nccl = pp_plugin_open("nccl", known[1].detail);
    const pp_plugin *mpi = pp_plugin_open("mpi", known[2].detail);
    const pp_backend *cuda;
    pp_error error = {.code = PP_OK};
    known[1].usable = nccl && nccl->carrier->usable(known[1].detail);
    if (known[1].usable && pp_backend_find("cuda", NULL, &cuda, &error) != PP_OK) {
        known[1].usable = false;
        snprintf(known[1].detail, sizeof known[1].detail, "%.240s", error.message);
    }
    known[2].usable = mpi && mpi->wire->usable(known[2].detail);
    int count = capacity < 3 ? capacity : 3;
    memcpy(infos, known, (size_t)count * sizeof *infos);
    return count;
}
