/* The few facts of NCCL's interface (version 2.18 and later, nccl.h of that version) that the
 * plugin relies on, so that it is built where NCCL is not: it opens the library when it is asked
 * to. */
#ifndef PPSIM_EXECUTOR_NCCL_ABI_H
#define PPSIM_EXECUTOR_NCCL_ABI_H

#include <limits.h>
#include <stddef.h>

#define NCCL_LIBRARY "libnccl.so.2"
#define NCCL_LEAST_VERSION 21800 /* 2.18.0: major · 10000 + minor · 100 + patch */

enum { NCCL_SUCCESS = 0, NCCL_IN_PROGRESS = 7 }; /* ncclResult_t */
enum { NCCL_INT8 = 0 };                          /* ncclDataType_t */

typedef struct nccl_comm nccl_comm; /* ncclComm_t is a pointer to it */

typedef struct nccl_id { /* ncclUniqueId */
    char internal[128];
} nccl_id;

/* ncclConfig_t as of 2.18: later ones append to it and read as much as `size` says. */
typedef struct nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking, cga_cluster_size, least_ctas, most_ctas;
    const char *net_name;
    int split_share;
} nccl_config;

#define NCCL_CONFIG_MAGIC 0xcafebeefU
#define NCCL_CONFIG_UNDEFINED INT_MIN

/* X(member, symbol, arguments): all return an int, a ncclResult_t, but the texts. */
#define NCCL_FUNCTION_LIST(X)                                                                      \
    X(get_version, "ncclGetVersion", (int *version))                                               \
    X(get_unique_id, "ncclGetUniqueId", (nccl_id * id))                                            \
    X(init_rank, "ncclCommInitRankConfig",                                                         \
      (nccl_comm * *comm, int ranks, nccl_id id, int rank, nccl_config *config))                   \
    X(get_async_error, "ncclCommGetAsyncError", (nccl_comm * comm, int *result))                   \
    X(group_start, "ncclGroupStart", (void))                                                       \
    X(group_end, "ncclGroupEnd", (void))                                                           \
    X(send, "ncclSend",                                                                            \
      (const void *bytes, size_t count, int type, int peer, nccl_comm *comm, void *stream))        \
    X(receive, "ncclRecv",                                                                         \
      (void *bytes, size_t count, int type, int peer, nccl_comm *comm, void *stream))              \
    X(finalize, "ncclCommFinalize", (nccl_comm * comm))                                            \
    X(destroy, "ncclCommDestroy", (nccl_comm * comm))                                              \
    X(abort, "ncclCommAbort", (nccl_comm * comm))

#endif
