/* Who sits where: which device of its machine each rank has, and what of it.
 *
 * Ranks are dealt round the devices, from the first that may be used on. Ranks that meet on one
 * device share it by slices of its multiprocessors, as many as ranks (backends that cannot cut it
 * say so and let them share it whole). With --slices N all ranks of a machine have the first device
 * alone, cut into N whether or not there are so many ranks: the slices of a profile that was made
 * beside N - 1 neighbours.
 *
 * Before anything starts it is said what would fail later: a device that is not there, more ranks
 * than slices, too little memory. A device that is not the plan's is a warning: the run is right,
 * and its prediction is not. */
#include "executor/run_internal.h"

#include <stdio.h>
#include <string.h>

pp_status pp_device_parse(const char *text, char backend[32], int *number, pp_error *error) {
    const char *colon = strchr(text, ':');
    int64_t value = 0;
    snprintf(backend, 32, "%.*s", (int)strcspn(text, ":"), text);
    if (colon && !pp_parse_int(colon + 1, 0, 1023, &value))
        return pp_fail(error, PP_E_INPUT, "--device",
                       "'%.100s' has no device number after ':'; expected cpu or cuda:N", text);
    *number = (int)value;
    return PP_OK;
}

/* ---- seats --------------------------------------------------------------------------------- */

pp_backend_seat pp_seat_of(int index, int count, int first, int devices, int slices) {
    int available = slices > 0 ? 1 : devices - first, used = available < count ? available : count;
    int sharers = count / used + (index % used < count % used);
    return (pp_backend_seat){.device = first + index % used,
                             .slice = index / used,
                             .slices = slices > 0    ? slices
                                       : sharers > 1 ? sharers
                                                     : 0,
                             .must_slice = slices > 0};
}

/* On this machine, of this process or another. */
static bool is_near(const pp_job *job, const pp_worker *worker) {
    return !job->processes || pp_processes_here(job->processes, worker->process);
}

static pp_status check_wish(const pp_job *job, int near, pp_error *error) {
    const pp_run_options *options = job->options;
    const pp_backend *backend = job->backend;
    int devices = backend->devices ? backend->devices() : 0;
    if (!backend->devices && options->slices > 0)
        return pp_fail(error, PP_E_UNSUPPORTED, "--slices",
                       "the %s backend has no device to cut: leave --slices out", backend->name);
    if (!backend->devices && options->device > 0)
        return pp_fail(error, PP_E_INPUT, "--device",
                       "the %s backend has no devices that are numbered", backend->name);
    if (backend->devices && options->device >= devices)
        return pp_fail(error, PP_E_INPUT, "--device",
                       "%s:%d is not there: this machine has %d such device%s, from 0",
                       backend->name, options->device, devices, devices == 1 ? "" : "s");
    if (options->slices > 0 && near > options->slices)
        return pp_fail(error, PP_E_INPUT, "--slices",
                       "%d ranks of this machine are more than %d slice%s: cut into %d, or plan "
                       "for fewer ranks",
                       near, options->slices, options->slices == 1 ? "" : "s", near);
    return PP_OK;
}

pp_status pp_devices_seat(pp_job *job, pp_error *error) {
    int near = 0;
    for (int i = 0; i < job->worker_count; i++) near += is_near(job, &job->workers[i]);
    PP_TRY(check_wish(job, near, error));
    if (!job->backend->devices) return PP_OK;
    for (int i = 0; i < job->worker_count; i++) {
        pp_worker *worker = &job->workers[i];
        if (!is_near(job, worker)) continue;
        worker->seat = pp_seat_of(pp_spread_index(job, worker), near, job->options->device,
                                  job->backend->devices(), job->options->slices);
    }
    return PP_OK;
}

/* Of this machine's ranks those that have this device. */
static int sharers_of(const pp_job *job, int device) {
    int count = 0;
    for (int i = 0; i < job->worker_count; i++)
        count += is_near(job, &job->workers[i]) && job->workers[i].seat.device == device;
    return count;
}

int pp_devices_most_sharers(const pp_job *job) {
    int most = 0;
    for (int i = 0; i < job->worker_count; i++) {
        int sharers = sharers_of(job, job->workers[i].seat.device);
        if (is_near(job, &job->workers[i]) && sharers > most) most = sharers;
    }
    return most;
}

/* ---- what a device has --------------------------------------------------------------------- */

static pp_status check_slices(const pp_job *job, const pp_backend_device *device, pp_error *error) {
    int wanted = job->options->slices;
    if (wanted <= device->slices || wanted == 0) return PP_OK;
    if (device->slices == 0)
        return pp_fail(error, PP_E_UNSUPPORTED, "--slices",
                       "%s cannot be cut (green contexts come with CUDA 12.5): without --slices "
                       "ranks share it whole",
                       device->name);
    return pp_fail(error, PP_E_INPUT, "--slices", "%s can be cut into %d slices at most, not %d",
                   device->name, device->slices, wanted);
}

/* Rank by rank, in the order in which they will ask for it. */
static pp_status check_memory(const pp_job *job, int number, const pp_backend_device *device,
                              pp_error *error) {
    int64_t left = device->free_bytes;
    int beside = 0;
    for (int i = 0; i < job->worker_count; i++) {
        const pp_worker *worker = &job->workers[i];
        if (!is_near(job, worker) || worker->seat.device != number) continue;
        int64_t needed = job->plan->predicted.rank[worker->rank].peak_bytes + device->rank_bytes;
        char needs[32], has[32], replica[32] = "", others[48] = "";
        if (job->plan->dp > 1) snprintf(replica, sizeof replica, ", replica %d", worker->replica);
        if (beside > 0)
            snprintf(others, sizeof others, " beside %d other rank%s", beside,
                     beside == 1 ? "" : "s");
        if (needed > left)
            return pp_fail(error, PP_E_INPUT, NULL,
                           "rank %d%s needs %s (%lld bytes) on %s:%d, and %s has %s free there%s: "
                           "plan again for less --memory or more devices",
                           worker->rank, replica, pp_format_bytes((double)needed, needs),
                           (long long)needed, job->backend->name, number, device->name,
                           pp_format_bytes((double)left, has), others);
        left -= needed;
        beside++;
    }
    return PP_OK;
}

/* Of the ranks on this device, the first that was planned for another kind. */
static bool warn_of_name(const pp_job *job, int number, const pp_backend_device *device) {
    const pp_plan *plan = job->plan;
    for (int i = 0; i < job->worker_count; i++) {
        const pp_worker *worker = &job->workers[i];
        if (!is_near(job, worker) || worker->seat.device != number) continue;
        const char *kind = pp_cluster_device(plan->cluster, plan->devices[i * plan->tp])->name;
        if (pp_device_may_be(kind, device->name) || strcmp(kind, job->backend->name) == 0) continue;
        pp_log(
            PP_LOG_WARNING, "executor",
            "the plan was made for %s, and rank %d has %s: its times were not measured there, so "
            "the prediction will not hold",
            kind, worker->rank, device->name);
        return true;
    }
    return false;
}

pp_status pp_devices_check(const pp_job *job, pp_error *error) {
    bool warned = job->processes && job->processes->process != 0; /* one voice */
    if (!job->backend->device) return PP_OK;
    for (int number = 0; number < job->backend->devices(); number++) {
        pp_backend_device device = {.name = ""};
        if (sharers_of(job, number) == 0 || !job->backend->device(number, &device)) continue;
        PP_TRY(check_slices(job, &device, error));
        PP_TRY(check_memory(job, number, &device, error));
        warned = warned || warn_of_name(job, number, &device);
    }
    return PP_OK;
}
