/* NCCL on one card, function only: a communicator of one rank that sends to itself, and processes
 * that send around a ring through the nccl plugin, over loopback sockets. NCCL refuses two ranks on
 * one device of one host, so that each process gets a host of its own by name (NCCL_HOSTID).
 * usage: gpu_nccl [PROCESSES]      exit 0: all bytes came, 1: not, 77: no device or no NCCL
 *
 * NEVER RUN YET on a device: without one it says so. */
#include "executor/backend.h"
#include "executor/nccl/nccl_abi.h"
#include "executor/plugin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SKIPPED = 77, MOST = 8, COUNT = 1 << 20, PATIENCE_S = 30 };

typedef struct member {
    int rank;
    const pp_backend *backend;
    const pp_carrier_ops *carrier;
    void *state;
    pp_side_queue *side;
    char *sent, *received; /* on the device */
} member;

static int give_up(int rank, const char *what) {
    fprintf(stderr, "gpu_nccl: process %d: %s\n", rank, what);
    return 1;
}

/* What process `rank` sends. */
static void pattern(int rank, char *bytes) {
    for (int i = 0; i < COUNT; i++) bytes[i] = (char)(i * 7 + rank * 31 + i / 4096);
}

static bool arrived(member *m, int from) {
    static char wanted[COUNT], got[COUNT];
    pattern(from, wanted);
    m->backend->download(m->state, got, m->received, COUNT);
    return memcmp(wanted, got, COUNT) == 0;
}

static int open_member(member *m) {
    char detail[256];
    pp_error error = {0};
    pp_backend_seat seat = {.slices = 1};
    static char bytes[COUNT];
    if (pp_backend_find("cuda", NULL, &m->backend, &error) != PP_OK) {
        if (m->rank == 0) printf("%s\n", error.message);
        return SKIPPED;
    }
    const pp_plugin *plugin = pp_plugin_open("nccl", detail);
    if (!plugin || !plugin->carrier->usable(detail)) {
        if (m->rank == 0) printf("%s\n", detail);
        return SKIPPED;
    }
    m->carrier = plugin->carrier;
    if (m->backend->open(&seat, &m->state, &error) != PP_OK) return give_up(m->rank, error.message);
    m->side = m->backend->side_open(m->state);
    m->sent = m->backend->allocate(m->state, COUNT);
    m->received = m->backend->allocate(m->state, COUNT);
    if (!m->side || !m->sent || !m->received) return give_up(m->rank, "no memory");
    pattern(m->rank, bytes);
    m->backend->upload(m->state, m->sent, bytes, COUNT);
    m->backend->fill(m->state, m->received, 0xff, COUNT);
    if (m->backend->finish(m->state, &error) != PP_OK ||
        m->backend->side_enter(m->side, &error) != PP_OK)
        return give_up(m->rank, error.message);
    return 0;
}

static bool wait_for_stream(member *m, pp_error *error) {
    const double deadline_s = pp_now_s() + PATIENCE_S;
    void *mark;
    bool passed = false;
    if (m->backend->side_mark(m->side, &mark, error) != PP_OK) return false;
    while (!passed && pp_now_s() < deadline_s)
        if (m->backend->side_passed(m->side, mark, &passed, error) != PP_OK) return false;
    return passed;
}

/* ---- a ring -------------------------------------------------------------------------------- */

static bool wait_for_ends(member *m, pp_carrier_end *const *ends, pp_error *error) {
    const double deadline_s = pp_now_s() + PATIENCE_S;
    for (int i = 0; i < 2; i++) {
        bool over = false;
        while (!over && pp_now_s() < deadline_s)
            if (m->carrier->check(ends[i], &over, error) != PP_OK) return false;
        if (!over) return false;
    }
    return true;
}

/* ends[0] sends to the next process, ends[1] receives from the one before. */
static bool join(member *m, int id_out, int id_in, pp_carrier_end **ends, pp_error *error) {
    pp_carrier_id out, in;
    return m->carrier->make_id(&out, error) == PP_OK &&
           write(id_out, &out, sizeof out) == (ssize_t)sizeof out &&
           read(id_in, &in, sizeof in) == (ssize_t)sizeof in &&
           m->carrier->join(&out, 0, &ends[0], error) == PP_OK &&
           m->carrier->join(&in, 1, &ends[1], error) == PP_OK && wait_for_ends(m, ends, error);
}

static bool pass_on(member *m, pp_carrier_end *const *ends, pp_error *error) {
    void *stream = m->backend->side_stream(m->side);
    return m->carrier->group_start(error) == PP_OK &&
           m->carrier->send(ends[0], m->sent, COUNT, stream, error) == PP_OK &&
           m->carrier->receive(ends[1], m->received, COUNT, stream, error) == PP_OK &&
           m->carrier->group_end(error) == PP_OK && wait_for_ends(m, ends, error) &&
           wait_for_stream(m, error);
}

/* In order: whoever left early might take bytes with it that are still under way. */
static bool part(member *m, pp_carrier_end *const *ends, pp_error *error) {
    if (m->carrier->finish(ends[0], error) != PP_OK ||
        m->carrier->finish(ends[1], error) != PP_OK || !wait_for_ends(m, ends, error))
        return false;
    m->carrier->leave(ends[0]);
    m->carrier->leave(ends[1]);
    return true;
}

static int run_member(int rank, int processes, int id_out, int id_in) {
    char host[32];
    member m = {.rank = rank};
    pp_carrier_end *ends[2] = {NULL, NULL};
    pp_error error = {.message = "waited in vain"};
    alarm(2 * PATIENCE_S); /* a neighbour that fails leaves its pipe open */
    snprintf(host, sizeof host, "ppsim-%d", rank);
    setenv("NCCL_HOSTID", host, 1);
    setenv("NCCL_SOCKET_IFNAME", "lo", 1);
    int code = open_member(&m);
    if (code != 0) return code;
    if (!join(&m, id_out, id_in, ends, &error) || !pass_on(&m, ends, &error))
        return give_up(rank, error.message);
    if (!arrived(&m, (rank + processes - 1) % processes)) return give_up(rank, "wrong bytes came");
    return part(&m, ends, &error) ? 0 : give_up(rank, error.message);
}

/* Each is forked before anything of CUDA is called. */
static int run_ring(int processes) {
    int pipes[MOST][2], worst = 0;
    for (int i = 0; i < processes; i++)
        if (pipe(pipes[i]) != 0) return give_up(i, "no pipe");
    for (int i = 0; i < processes; i++) {
        pid_t child = fork();
        if (child < 0) return give_up(i, "cannot be forked");
        if (child > 0) continue;
        int code = run_member(i, processes, pipes[i][1], pipes[(i + processes - 1) % processes][0]);
        fflush(stdout);
        _exit(code);
    }
    for (int i = 0, status; i < processes; i++) {
        wait(&status);
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        if (worst == 0 || code == 1) worst = code;
    }
    if (worst == 0) printf("%d processes in a ring: %d bytes each, as sent\n", processes, COUNT);
    return worst;
}

/* ---- alone --------------------------------------------------------------------------------- */

typedef struct functions {
#define X(name, symbol, arguments) int(*name) arguments;
    NCCL_FUNCTION_LIST(X)
#undef X
} functions;

static bool find_functions(functions *nccl) {
    const char *path = getenv("PPSIM_NCCL");
    void *library = dlopen(path ? path : NCCL_LIBRARY, RTLD_NOW), *address;
    if (!library) return false;
#define X(name, symbol, arguments)                                                                 \
    address = dlsym(library, symbol);                                                              \
    if (!address) return false;                                                                    \
    memcpy(&nccl->name, &address, sizeof address);
    NCCL_FUNCTION_LIST(X)
#undef X
    return true;
}

static bool send_to_itself(const functions *nccl, member *m, nccl_comm *comm) {
    void *stream = m->backend->side_stream(m->side);
    return nccl->group_start() == NCCL_SUCCESS &&
           nccl->send(m->sent, COUNT, NCCL_INT8, 0, comm, stream) == NCCL_SUCCESS &&
           nccl->receive(m->received, COUNT, NCCL_INT8, 0, comm, stream) == NCCL_SUCCESS &&
           nccl->group_end() == NCCL_SUCCESS;
}

static int run_alone(void) {
    member m = {.rank = 0};
    functions nccl;
    nccl_id id;
    nccl_comm *comm = NULL;
    pp_error error = {.message = "waited in vain"};
    nccl_config config = {sizeof config,         NCCL_CONFIG_MAGIC,     NCCL_LEAST_VERSION,    1,
                          NCCL_CONFIG_UNDEFINED, NCCL_CONFIG_UNDEFINED, NCCL_CONFIG_UNDEFINED, NULL,
                          NCCL_CONFIG_UNDEFINED};
    int code = open_member(&m);
    if (code != 0) return code;
    if (!find_functions(&nccl) || nccl.get_unique_id(&id) != NCCL_SUCCESS ||
        nccl.init_rank(&comm, 1, id, 0, &config) != NCCL_SUCCESS)
        return give_up(0, "a communicator of one rank cannot be made");
    if (!send_to_itself(&nccl, &m, comm) || !wait_for_stream(&m, &error))
        return give_up(0, "sending to itself failed");
    if (!arrived(&m, 0)) return give_up(0, "wrong bytes came");
    nccl.destroy(comm);
    printf("one rank to itself: %d bytes, as sent\n", COUNT);
    return 0;
}

int main(int argc, char **argv) {
    int processes = argc > 1 ? atoi(argv[1]) : 1;
    if (argc > 2 || processes < 1 || processes > MOST) {
        fprintf(stderr, "usage: gpu_nccl [PROCESSES]      1 to %d; 1: to itself\n", MOST);
        return 2;
    }
    return processes == 1 ? run_alone() : run_ring(processes);
}
