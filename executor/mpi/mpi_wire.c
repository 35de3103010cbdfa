/* The mpi plugin: the wire over MPI.
 *
 * All calls come from the postman's thread, which also initialises MPI, so the lowest level of
 * threads that knows of threads at all (MPI_THREAD_FUNNELED) is enough. A receive for the next
 * letter is always posted; a letter's payload follows it under a tag of its own, and since MPI
 * keeps the order of messages between two processes and a tag, payloads match their letters. What
 * is longer than an int can say goes in pieces. */
#include "executor/plugin.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES ((uint64_t)1 << 30)

enum { TAG_LETTER = 1, TAG_PAYLOAD = 2 };

static const pp_host *host;

struct pp_wire_request {
    pp_letter letter;
    int count;
    MPI_Request pieces[]; /* [count] */
};

struct pp_wire {
    MPI_Comm comm;
    pp_letter next;
    MPI_Request posted; /* for the next letter */
};

static pp_status fail_mpi(int code, const char *doing, pp_error *error) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length;
    MPI_Error_string(code, text, &length);
    return host->fail(error, PP_E_FAILED, NULL, "MPI failed %s: %s", doing, text);
}

/* "Open MPI v4.1.4" */
static bool mpi_usable(char detail[256]) {
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length;
    MPI_Get_library_version(version, &length);
    version[strcspn(version, ",\n")] = '\0';
    snprintf(detail, 256, "%.200s", version);
    return true;
}

/* ---- joining and leaving ------------------------------------------------------------------- */

static int post_next(pp_wire *wire) {
    return MPI_Irecv(&wire->next, (int)sizeof wire->next, MPI_BYTE, MPI_ANY_SOURCE, TAG_LETTER,
                     wire->comm, &wire->posted);
}

static pp_status mpi_join(pp_wire **wire, int *process, int *processes, pp_error *error) {
    int provided, code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    *wire = NULL;
    if (code != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED)
        return host->fail(error, PP_E_FAILED, NULL, "MPI cannot be started with threads");
    pp_wire *joined = host->allocate(sizeof *joined);
    if (!joined) {
        MPI_Finalize();
        return host->fail(error, PP_E_OUT_OF_MEMORY, NULL, "out of memory");
    }
    code = MPI_Comm_dup(MPI_COMM_WORLD, &joined->comm);
    if (code == MPI_SUCCESS) code = MPI_Comm_set_errhandler(joined->comm, MPI_ERRORS_RETURN);
    if (code == MPI_SUCCESS) code = post_next(joined);
    if (code != MPI_SUCCESS) {
        host->release(joined);
        fail_mpi(code, "while joining", error);
        MPI_Finalize();
        return PP_E_FAILED;
    }
    MPI_Comm_rank(joined->comm, process);
    MPI_Comm_size(joined->comm, processes);
    *wire = joined;
    return PP_OK;
}

static void mpi_leave(pp_wire *wire, bool together, int exit_status) {
    if (!together) MPI_Abort(MPI_COMM_WORLD, exit_status);
    MPI_Cancel(&wire->posted);
    MPI_Wait(&wire->posted, MPI_STATUS_IGNORE);
    MPI_Comm_free(&wire->comm);
    host->release(wire);
    MPI_Finalize();
}

/* ---- letters ------------------------------------------------------------------------------- */

static pp_wire_request *request_new(const pp_letter *letter, bool with_letter) {
    uint64_t pieces = (letter->size_bytes + PIECE_BYTES - 1) / PIECE_BYTES + with_letter;
    pp_wire_request *request =
        host->allocate(sizeof *request + (size_t)pieces * sizeof request->pieces[0]);
    if (request) *request = (pp_wire_request){.letter = *letter};
    return request;
}

typedef int transfer(pp_wire *wire, void *bytes, int count, int peer, MPI_Request *request);

static int send_piece(pp_wire *wire, void *bytes, int count, int peer, MPI_Request *request) {
    return MPI_Isend(bytes, count, MPI_BYTE, peer, TAG_PAYLOAD, wire->comm, request);
}

static int receive_piece(pp_wire *wire, void *bytes, int count, int peer, MPI_Request *request) {
    return MPI_Irecv(bytes, count, MPI_BYTE, peer, TAG_PAYLOAD, wire->comm, request);
}

static int in_pieces(pp_wire *wire, pp_wire_request *request, transfer *start, void *payload,
                     int peer) {
    uint64_t size = request->letter.size_bytes;
    for (uint64_t at = 0; at < size; at += PIECE_BYTES) {
        uint64_t count = size - at < PIECE_BYTES ? size - at : PIECE_BYTES;
        int code = start(wire, (unsigned char *)payload + at, (int)count, peer,
                         &request->pieces[request->count]);
        if (code != MPI_SUCCESS) return code;
        request->count++;
    }
    return MPI_SUCCESS;
}

/* What was started before a failure cannot be taken back: its request is left as it is. */
static pp_status mpi_send(pp_wire *wire, int to, const pp_letter *letter, const void *payload,
                          pp_wire_request **request, pp_error *error) {
    *request = request_new(letter, true);
    if (!*request) return host->fail(error, PP_E_OUT_OF_MEMORY, NULL, "out of memory");
    int code = MPI_Isend(&(*request)->letter, (int)sizeof *letter, MPI_BYTE, to, TAG_LETTER,
                         wire->comm, &(*request)->pieces[0]);
    if (code == MPI_SUCCESS) {
        (*request)->count = 1;
        code = in_pieces(wire, *request, send_piece, (void *)(uintptr_t)payload, to);
    }
    return code == MPI_SUCCESS ? PP_OK : fail_mpi(code, "while sending", error);
}

static bool mpi_next(pp_wire *wire, pp_letter *letter, int *from) {
    int came = 0;
    MPI_Status status;
    if (MPI_Test(&wire->posted, &came, &status) != MPI_SUCCESS || !came) return false;
    *letter = wire->next;
    *from = status.MPI_SOURCE;
    post_next(wire);
    return true;
}

static pp_status mpi_receive(pp_wire *wire, int from, const pp_letter *letter, void *payload,
                             pp_wire_request **request, pp_error *error) {
    *request = request_new(letter, false);
    if (!*request) return host->fail(error, PP_E_OUT_OF_MEMORY, NULL, "out of memory");
    int code = in_pieces(wire, *request, receive_piece, payload, from);
    return code == MPI_SUCCESS ? PP_OK : fail_mpi(code, "while receiving", error);
}

static bool mpi_done(pp_wire *wire, pp_wire_request *request) {
    int all = 0;
    (void)wire;
    if (MPI_Testall(request->count, request->pieces, &all, MPI_STATUSES_IGNORE) != MPI_SUCCESS ||
        !all)
        return false;
    host->release(request);
    return true;
}

static const pp_wire_ops wire_ops = {
    .name = "mpi",
    .usable = mpi_usable,
    .join = mpi_join,
    .send = mpi_send,
    .next = mpi_next,
    .receive = mpi_receive,
    .done = mpi_done,
    .leave = mpi_leave,
};

static const pp_plugin plugin = {
    .abi = PP_PLUGIN_ABI, .name = "mpi", .version = PP_VERSION, .wire = &wire_ops};

__attribute__((visibility("default"))) const pp_plugin *ppsim_plugin(const pp_host *given);

const pp_plugin *ppsim_plugin(const pp_host *given) {
    if (given->abi != PP_PLUGIN_ABI) return NULL;
    host = given;
    return &plugin;
}
