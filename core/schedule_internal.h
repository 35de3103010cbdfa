/* What the files of part 8 share and nobody else sees: parsing a cell, building a schedule whose
 * sizes are not known yet, numbering (stage, microbatch, slice) triples, and the wait graph. */
#ifndef PPSIM_CORE_SCHEDULE_INTERNAL_H
#define PPSIM_CORE_SCHEDULE_INTERNAL_H

#include "core/core.h"

/* ---- notation.c ---------------------------------------------------------------------------- */

/* Parses one cell, trimmed by the caller: an action, or "(a;b)OVERLAP_F_B" (also without the
 * suffix, as DualPipe prints it), which gives two with the first marked. NULL, or what is wrong
 * with it. */
const char *pp_cell_parse(const char *text, size_t length, pp_action actions[2], int *count);

/* The reverse: the action, or the pair that begins with it. Into buffer, which is returned. */
#define PP_CELL_LENGTH 96
const char *pp_cell_text(const pp_action *action, char buffer[PP_CELL_LENGTH]);

/* Bytes of somebody's file for a message: at most 40, unprintable ones as '?'. */
typedef struct pp_excerpt {
    char text[48];
} pp_excerpt;
pp_excerpt pp_excerpt_of(const char *text, size_t length);

/* True if the kind carries a microbatch number. */
bool pp_kind_has_microbatch(pp_action_kind kind);

/* ---- schedule.c ---------------------------------------------------------------------------- */

/* A schedule with room for so many stages, chains and actions, all counts but ranks still 0. */
pp_status pp_schedule_allocate(int ranks, size_t stage_capacity, size_t chain_capacity,
                               size_t action_capacity, pp_schedule **schedule, pp_error *error);

/* A copy of everything but the actions, with room for so many. */
pp_status pp_schedule_copy_frame(const pp_schedule *schedule, size_t action_capacity,
                                 pp_schedule **copy, pp_error *error);

/* Whom to blame when it is not one action: nothing in particular, or what a reader was given. */
#define PP_NO_CULPRIT SIZE_MAX
#define PP_CULPRIT_PLACEMENT (SIZE_MAX - 1)
#define PP_CULPRIT_CHAINS (SIZE_MAX - 2)

/* What a reader found beside the actions. */
typedef struct pp_schedule_given {
    int placed_stages; /* entries of placement that were given; 0: none */
    bool chains;       /* chains were given */
} pp_schedule_given;

/* Completes a schedule whose actions, first_action and perhaps placement and chains a reader has
 * filled: counts, placement from the rows, one chain unless given; then checks it with
 * pp_units_init. On failure *culprit is the action (or PP_*CULPRIT*) to blame,
 * for the reader to find in its file. */
pp_status pp_schedule_finish(pp_schedule *schedule, pp_schedule_given given, size_t *culprit,
                             pp_error *error);

/* file_name without folders, cut to fit. */
void pp_schedule_name_after(pp_schedule *schedule, const char *file_name);

/* Rank in whose list action `index` stands. O(log ranks). */
int pp_schedule_rank_of(const pp_schedule *schedule, size_t index);

/* True if the action is the second of an overlapped pair. */
static inline bool pp_is_second(const pp_schedule *schedule, size_t index) {
    return index > 0 && schedule->actions[index - 1].overlapped;
}

/* How many actions run as one from `index` on: 2 for the first of an overlapped pair. */
static inline size_t pp_node_size(const pp_schedule *schedule, size_t index) {
    return schedule->actions[index].overlapped ? 2 : 1;
}

/* ---- schedule_units.c ---------------------------------------------------------------------- */

/* A unit is one (stage, microbatch, slice); units of a stage are consecutive, so that everything
 * known about them is an array and nothing is hashed. Built only for schedules whose every action
 * is in its place: stage on this rank, numbers in range, nothing twice, transfers across a border
 * between two ranks, pairs well formed. */
typedef struct pp_units {
    int *previous, *next;    /* [stages] neighbours in the chain, -1 at its ends */
    int *chain;              /* [stages] */
    int *chain_microbatches; /* [chains] largest number of the chain, plus 1 */
    size_t *base;            /* [stages + 1] first unit of each stage */
    uint16_t *seen;          /* [base[stages]] bit 1 << kind for each action that is present */
    bool has_transfers;
    pp_arena arena;
} pp_units;

/* Numbers the units and refuses what is out of place; *culprit (may be NULL) is whom to blame. A
 * schedule with fewer actions than units is refused before memory for them is taken, so memory is
 * bounded by the actions. O(actions). */
pp_status pp_units_init(pp_units *units, const pp_schedule *schedule, size_t *culprit,
                        pp_error *error);
void pp_units_deinit(pp_units *units);

/* Refuses a schedule in which an action is missing, and names the first one. */
pp_status pp_units_complete(const pp_units *units, const pp_schedule *schedule, pp_error *error);

/* Refuses a rank whose own order has an action before another one of the same rank that it waits
 * for, directly or through other ranks: PP_E_DEADLOCK in words. Needs a complete schedule. */
pp_status pp_units_order(const pp_units *units, const pp_schedule *schedule, pp_error *error);

static inline size_t pp_unit_of(const pp_units *units, const pp_schedule *schedule,
                                pp_action action) {
    return units->base[action.stage] + (size_t)action.microbatch * (size_t)schedule->slices +
           action.slice;
}

/* The neighbour that a transfer of this kind and stage talks to, or that an action of this kind
 * hands its result to (F: next, B and I: previous). -1: none. */
static inline int pp_other_stage(const pp_units *units, pp_action action) {
    bool toward_next =
        action.kind == PP_FORWARD || action.kind == PP_SEND_F || action.kind == PP_RECV_B;
    return toward_next ? units->next[action.stage] : units->previous[action.stage];
}

/* True if the results of `from` reach stage `to` through a transfer. */
static inline bool pp_crosses(const pp_schedule *schedule, int from, int to) {
    return from >= 0 && to >= 0 && schedule->placement[from] != schedule->placement[to];
}

static inline bool pp_is_backward(pp_action action) {
    return action.kind == PP_BACKWARD || action.kind == PP_INPUT;
}

static inline bool pp_is_send(pp_action action) {
    return action.kind == PP_SEND_F || action.kind == PP_SEND_B;
}

/* ---- wait_graph.c -------------------------------------------------------------------------- */

#define PP_NOWHERE UINT32_MAX

/* Who waits for whom. Nodes: each compute action (an overlapped pair is one, known by its first),
 * numbered like the actions; and for each group of transfers its start and its end, numbered from
 * action_count on. Edges are never stored: they follow from the arrays below. */
typedef struct pp_wait_graph {
    const pp_schedule *schedule;
    const pp_units *units;
    bool blocking;
    size_t action_count;
    uint32_t *forward;     /* [units] where the unit's F stands */
    uint32_t *backward;    /* [units] where its B or I stands */
    uint32_t *partner;     /* [actions] of a transfer: the transfer at the other end. Of a compute
                              action: its SEND. PP_NOWHERE: none */
    uint32_t *group;       /* [actions] of a transfer: its group. Of a compute action: its RECV */
    uint32_t *transfers;   /* [transfer_count] transfers queue by queue, each in file order */
    uint32_t *group_first; /* [group_count + 1] into transfers */
    size_t transfer_count, group_count;
    int *queue_to_next;     /* [stages] the queue of this stage's rank with its neighbour's rank; */
    int *queue_to_previous; /* -1 where the border is inside a rank or there is none */
    int *queue_rank;        /* [queues] whose queue it is */
    int queue_count;
    uint32_t *waiting; /* [nodes] how many nodes it still waits for; 0 after its turn */
    uint32_t *order;   /* [nodes] in which they ran */
    size_t node_count, done_count;
    pp_arena arena;
} pp_wait_graph;

/* Builds the graph of a complete schedule; without transfers, ranks wait for each other's compute
 * actions directly. Transfers that do not agree position by position are PP_E_INPUT. */
pp_status pp_wait_graph_init(pp_wait_graph *graph, const pp_schedule *schedule,
                             const pp_units *units, bool blocking, pp_error *error);
void pp_wait_graph_deinit(pp_wait_graph *graph);

/* Runs everything that can run, in rounds: a node is in the round after the last node it waited
 * for. on_round (may be NULL) sees each round before its successors are released. True if every
 * node had its turn: the graph is acyclic. Once only. O(nodes + edges). */
typedef void pp_round_fn(void *context, const uint32_t *nodes, size_t count);
bool pp_wait_graph_run(pp_wait_graph *graph, pp_round_fn *on_round, void *context);

static inline uint32_t pp_group_start(const pp_wait_graph *graph, uint32_t group) {
    return (uint32_t)(graph->action_count + 2 * (size_t)group);
}

static inline uint32_t pp_group_end(const pp_wait_graph *graph, uint32_t group) {
    return pp_group_start(graph, group) + 1;
}

/* The node of a compute action. */
static inline uint32_t pp_compute_node(const pp_wait_graph *graph, uint32_t action) {
    return action - pp_is_second(graph->schedule, action);
}

/* Where the compute action stands that a SEND waits for, or that waits for a RECV. */
static inline uint32_t pp_transfer_compute(const pp_wait_graph *graph, uint32_t transfer) {
    pp_action action = graph->schedule->actions[transfer];
    size_t unit = pp_unit_of(graph->units, graph->schedule, action);
    bool forward = action.kind == PP_SEND_F || action.kind == PP_RECV_F;
    return forward ? graph->forward[unit] : graph->backward[unit];
}

/* The compute action on another rank that a compute action of a schedule without transfers waits
 * for, or PP_NOWHERE; and the one that waits for it. */
uint32_t pp_compute_before(const pp_wait_graph *graph, uint32_t action);
uint32_t pp_compute_after(const pp_wait_graph *graph, uint32_t action);

/* The queue that a transfer stands in. */
static inline int pp_transfer_queue(const pp_wait_graph *graph, pp_action transfer) {
    bool toward_next = transfer.kind == PP_SEND_F || transfer.kind == PP_RECV_B;
    return toward_next ? graph->queue_to_next[transfer.stage]
                       : graph->queue_to_previous[transfer.stage];
}

/* ---- check_cycle.c ------------------------------------------------------------------------- */

/* Fails with PP_E_DEADLOCK and a shortest wait cycle in words. The graph has run and is stuck. */
pp_status pp_wait_cycle_fail(const pp_wait_graph *graph, pp_error *error);

#endif
