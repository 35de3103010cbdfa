/* NCCL as a carrier: each pair is a communicator of two ranks, of which rank 0 sends.
 *
 * A communicator for each direction, because operations of one communicator follow each other on
 * both sides: if one side began with a send and the other with a send too, both would wait. They
 * are non-blocking (ncclConfig_t.blocking = 0): calls return at once with "in progress", and
 * ncclCommGetAsyncError tells how they end, also when the other side dies. */
#include "executor/nccl/nccl_carrier.h"

#include "executor/nccl/nccl_abi.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const pp_host *pp_nccl_host;

struct pp_carrier_end {
    nccl_comm *comm;
    int peer;
};

/* ---- the library --------------------------------------------------------------------------- */

static struct {
#define X(member, symbol, arguments) int(*member) arguments;
    NCCL_FUNCTION_LIST(X)
#undef X
    const char *(*error_text)(int result);
    const char *(*last_error)(nccl_comm *comm);
    void *library;
    char detail[256];
} nccl;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* POSIX promises that a function's address fits a data pointer; C does not. */
static bool find(const char *symbol, void *function) {
    void *address = dlsym(nccl.library, symbol);
    memcpy(function, &address, sizeof address);
    if (!address)
        snprintf(nccl.detail, sizeof nccl.detail, "%s has no %s: install NCCL 2.18 or later",
                 NCCL_LIBRARY, symbol);
    return address != NULL;
}

static bool find_all(void) {
#define X(member, symbol, arguments)                                                               \
    if (!find(symbol, &nccl.member)) return false;
    NCCL_FUNCTION_LIST(X)
#undef X
    return find("ncclGetErrorString", &nccl.error_text) &&
           find("ncclGetLastError", &nccl.last_error);
}

static void close_library(void) {
    dlclose(nccl.library);
    nccl.library = NULL;
}

static void open_library(void) {
    const char *path = getenv("PPSIM_NCCL"); /* another one than the loader finds */
    int version = 0;
    if (!path) path = NCCL_LIBRARY;
    nccl.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!nccl.library) {
        snprintf(
            nccl.detail, sizeof nccl.detail,
            "%.100s cannot be loaded: install NVIDIA's libnccl2, or name the file in PPSIM_NCCL",
            path);
        return;
    }
    if (!find_all()) {
        close_library();
        return;
    }
    nccl.get_version(&version);
    snprintf(nccl.detail, sizeof nccl.detail, "NCCL %d.%d.%d", version / 10000, version / 100 % 100,
             version % 100);
    if (version >= NCCL_LEAST_VERSION) return;
    strncat(nccl.detail, " is too old: install 2.18 or later",
            sizeof nccl.detail - strlen(nccl.detail) - 1);
    close_library();
}

static bool nccl_usable(char detail[256]) {
    pthread_once(&once, open_library);
    memcpy(detail, nccl.detail, 256);
    return nccl.library != NULL;
}

/* ---- the carrier --------------------------------------------------------------------------- */

static pp_status fail_nccl(int result, const char *doing, nccl_comm *comm, pp_error *error) {
    const char *last = comm ? nccl.last_error(comm) : NULL;
    return pp_nccl_host->fail(error, PP_E_FAILED, NULL, "NCCL failed %s: %s%s%s", doing,
                              nccl.error_text(result), last && *last ? ": " : "",
                              last && *last ? last : "");
}

static bool is_fine(int result) {
    return result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS;
}

static pp_status outcome(int result, const char *doing, nccl_comm *comm, pp_error *error) {
    return is_fine(result) ? PP_OK : fail_nccl(result, doing, comm, error);
}

static pp_status nccl_make_id(pp_carrier_id *id, pp_error *error) {
    nccl_id made;
    int result = nccl.get_unique_id(&made);
    if (result != NCCL_SUCCESS) return fail_nccl(result, "making an id", NULL, error);
    memcpy(id->bytes, made.internal, sizeof id->bytes);
    return PP_OK;
}

static pp_status nccl_join(const pp_carrier_id *id, int number, pp_carrier_end **joined,
                           pp_error *error) {
    nccl_id given;
    nccl_config config = {.size = sizeof config,
                          .magic = NCCL_CONFIG_MAGIC,
                          .version = NCCL_LEAST_VERSION,
                          .blocking = 0,
                          .cga_cluster_size = NCCL_CONFIG_UNDEFINED,
                          .least_ctas = NCCL_CONFIG_UNDEFINED,
                          .most_ctas = NCCL_CONFIG_UNDEFINED,
                          .split_share = NCCL_CONFIG_UNDEFINED};
    *joined = NULL;
    pp_carrier_end *end = pp_nccl_host->allocate(sizeof *end);
    if (!end) return pp_nccl_host->fail(error, PP_E_OUT_OF_MEMORY, NULL, "out of memory");
    *end = (pp_carrier_end){.peer = 1 - number};
    memcpy(given.internal, id->bytes, sizeof given.internal);
    int result = nccl.init_rank(&end->comm, 2, given, number, &config);
    if (is_fine(result)) {
        *joined = end;
        return PP_OK;
    }
    pp_nccl_host->release(end);
    return fail_nccl(result, "joining a pair", NULL, error);
}

static pp_status nccl_check(pp_carrier_end *end, bool *over, pp_error *error) {
    int state = NCCL_SUCCESS;
    int result = nccl.get_async_error(end->comm, &state);
    if (result != NCCL_SUCCESS) return fail_nccl(result, "being asked", end->comm, error);
    *over = state != NCCL_IN_PROGRESS;
    return outcome(state, "in the background", end->comm, error);
}

static pp_status nccl_group_start(pp_error *error) {
    return outcome(nccl.group_start(), "beginning a group", NULL, error);
}

static pp_status nccl_group_end(pp_error *error) {
    return outcome(nccl.group_end(), "starting a group", NULL, error);
}

static pp_status nccl_send(pp_carrier_end *end, const void *bytes, size_t size_bytes, void *stream,
                           pp_error *error) {
    return outcome(nccl.send(bytes, size_bytes, NCCL_INT8, end->peer, end->comm, stream), "sending",
                   end->comm, error);
}

static pp_status nccl_receive(pp_carrier_end *end, void *bytes, size_t size_bytes, void *stream,
                              pp_error *error) {
    return outcome(nccl.receive(bytes, size_bytes, NCCL_INT8, end->peer, end->comm, stream),
                   "receiving", end->comm, error);
}

static pp_status nccl_finish(pp_carrier_end *end, pp_error *error) {
    return outcome(nccl.finalize(end->comm), "finishing", end->comm, error);
}

static void nccl_leave(pp_carrier_end *end) {
    nccl.destroy(end->comm);
    pp_nccl_host->release(end);
}

static void nccl_abort(pp_carrier_end *end) {
    nccl.abort(end->comm);
    pp_nccl_host->release(end);
}

const pp_carrier_ops pp_nccl_carrier = {
    .name = "nccl",
    .usable = nccl_usable,
    .make_id = nccl_make_id,
    .join = nccl_join,
    .check = nccl_check,
    .group_start = nccl_group_start,
    .group_end = nccl_group_end,
    .send = nccl_send,
    .receive = nccl_receive,
    .finish = nccl_finish,
    .leave = nccl_leave,
    .abort = nccl_abort,
};
