/* Adding up gradients of shared weights: ties between stages, copies of stages in other chains, and
 * data-parallel replicas. And where these share out the optimizer's work (ZeRO-1), handing round
 * the weights that each has stepped. */
#ifndef PPSIM_EXECUTOR_REDUCE_INTERNAL_H
#define PPSIM_EXECUTOR_REDUCE_INTERNAL_H

#include "executor/backend.h"
#include "executor/processes_internal.h"

/* One gradient that takes part, of one (layer, chain, replica). */
typedef struct pp_reduce_member {
    int layer, stage, rank, replica;
    int tensor;
    unsigned char *gradient; /* set by the owning rank before the first step */
} pp_reduce_member;

/* Gradients of one weight; after the reduction each holds the sum of all. */
typedef struct pp_reduce_group {
    int64_t count;             /* elements of each */
    pp_reduce_member *members; /* ascending (layer, chain, replica): the order of the sum */
    int member_count;
    int *parties; /* rank · dp + replica of those who take part, ascending */
    int party_count;
    int here_count; /* parties of this process */
    int leader;     /* the first of them, as an index of parties; -1: none */
    int together;   /* this and the groups behind it that wait together; 0: one before it does */
    int64_t stage_count; /* elements of the stage's parameters, where each party sums only what it
                            steps, and no more is needed; else 0 */
    int64_t offset;      /* … among which this weight's begin here */
    pp_gate gate;   /* of the parties of this process */
} pp_reduce_group;

typedef struct pp_reduce {
    pp_reduce_group *groups; /* every rank goes through its groups in this order */
    int group_count;
    pp_reduce_group *handed; /* [handed_count] the replicas of each stage, and as gradients their
                                weights, of which each party has stepped its slice */
    int handed_count;        /* stages, where the optimizer state is sharded; else 0 */
    int gates_ready;         /* groups whose gate is initialised */
    int dp, chains, chain_stages;
    const int *placement; /* [stages] */
    pp_dtype dtype;
    pp_processes *processes; /* NULL: all parties are here */
    const int *process_of;   /* [parties] */
    atomic_bool aborted;
} pp_reduce;

/* The groups of a plan; stage_of_layer: [layers], in the first chain; layouts: [stages]. whole:
 * gradients are summed whole for all, though the optimizer state is sharded. */
pp_status pp_reduce_init(pp_reduce *reduce, const pp_plan *plan, const int *stage_of_layer,
                         const pp_stage_layout *layouts, bool whole, pp_arena *arena,
                         pp_error *error);
/* The elements of a stage's parameters, one behind the other, whose optimizer state a replica has:
 * all, unless it is sharded. */
typedef struct pp_shard {
    int64_t first, end;
} pp_shard;
pp_shard pp_reduce_shard(const pp_plan *plan, const pp_stage_bytes *bytes, int replica);
/* Several processes reduce together: party p runs in process_of[p]. Before the first step. */
void pp_reduce_spread(pp_reduce *reduce, pp_processes *processes, const int *process_of);
void pp_reduce_deinit(pp_reduce *reduce);
/* Tells where the gradient of (stage, layer, tensor, replica) is. Thread-safe for different
 * members.
 */
void pp_reduce_attach(pp_reduce *reduce, int stage, int layer, int tensor, int replica,
                      void *gradient);
/* Tells where a replica has the stage's parameters, where they are handed round. */
void pp_reduce_attach_weights(pp_reduce *reduce, int stage, int replica, void *parameters);
/* Index of the last group that this stage has a member in, or -1: none. */
int pp_reduce_last_of(const pp_reduce *reduce, int stage);

/* Who reduces, and with what. */
typedef struct pp_reduce_party {
    int rank, replica;
    const pp_backend *backend;
    void *backend_state;
    void *buffer;  /* scratch of buffer_bytes, at least one element */
    void *landing; /* as large: device memory for what comes from other processes, else NULL */
    int64_t buffer_bytes;
} pp_reduce_party;

/* One party's share of a group and those that wait together with it; returns PP_OK at once if it is
 * none of them. waited_s is added to. Statuses as pp_gate_wait; with a message, the backend's. */
pp_status pp_reduce_groups_run(pp_reduce *reduce, int first, const pp_reduce_party *party,
                               pp_watch *watch, double *waited_s, pp_error *error);
/* Behind the stage's step: every replica gets the weights that the others have stepped. Nothing
 * where the optimizer state is whole. */
pp_status pp_reduce_hand_round(pp_reduce *reduce, int stage, const pp_reduce_party *party,
                               pp_watch *watch, double *waited_s, pp_error *error);
void pp_reduce_abort(pp_reduce *reduce);

#endif
