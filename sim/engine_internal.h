/* What the files of the engine share: the facts that follow from a rank's order alone (memory.c),
 * and the state of a run that finds the times (engine.c, engine_blocking.c, engine_common.c).
 *
 * A rank's order is followed first. That checks it, so the engines may trust every index, and gives
 * memory, which does not depend on times. Then the engine walks all ranks at once. */
#ifndef PPSIM_SIM_ENGINE_INTERNAL_H
#define PPSIM_SIM_ENGINE_INTERNAL_H

#include "sim/sim.h"

#include <string.h>

#define PP_NO_INDEX SIZE_MAX
#define PP_COMPUTE_KINDS 5 /* F B I W R: the first kinds of pp_action_kind */

/* A unit is one slice of a microbatch on a stage; without slices, a microbatch. */
static inline size_t pp_stage_units(const pp_schedule *schedule) {
    return (size_t)schedule->microbatches * (size_t)schedule->slices;
}

static inline size_t pp_unit_in_stage(const pp_schedule *schedule, pp_action action) {
    return (size_t)action.microbatch * (size_t)schedule->slices + action.slice;
}

/* Kind, whether it is overlapped, and slice, as they lie in memory: 0 … PP_COMPUTE_KINDS - 1 are
 * plain actions and nothing else is. One load and one comparison, for the loops that see every
 * action. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the kind is the lowest byte");
static inline unsigned pp_action_head(const pp_action *action) {
    uint16_t head;
    memcpy(&head, action, sizeof head);
    return head;
}

/* Whether the last microbatch of all, which may be smaller, passes the stage: it is the last of the
 * last chain. */
static inline bool pp_has_last(const pp_schedule *schedule, int stage) {
    const pp_chain *chain = &schedule->chains[schedule->chain_count - 1];
    return stage >= chain->first && stage <= chain->last;
}

static inline bool pp_is_last(const pp_schedule *schedule, pp_action action) {
    return action.microbatch == (uint32_t)schedule->microbatches - 1 &&
           pp_has_last(schedule, action.stage);
}

/* ---- what follows from the order (memory.c) ------------------------------------------------- */

typedef struct pp_rank_order {
    size_t compute_count; /* F, B, I, W and R actions */
    size_t span_count;    /* actions that take time: all but transfers and (UN)SHARD */
    int64_t peak_alive;   /* units: (stage, microbatch) pairs, or slices of them */
    double peak_weight;   /* in the caller's weights, or in units / V */
    pp_peak_bytes peak;   /* all -1 without bytes */
    size_t peak_index;    /* the action whose start first reaches the peak (of bytes, or else of
                             weight); PP_NO_INDEX: an empty rank */
} pp_rank_order;

typedef struct pp_stage_order {
    size_t last_use;                   /* index of the last compute action; PP_NO_INDEX: none */
    uint32_t count[PP_COMPUTE_KINDS];  /* actions of each kind … */
    uint32_t scaled[PP_COMPUTE_KINDS]; /* … and how many of them pp_is_last */
    bool reduces, steps;               /* has REDUCE_GRAD, STEP */
} pp_stage_order;

/* Follows every rank's order. slots: [stages] each, read only with input->bytes. Any action that
 * names a stage of another rank, comes twice or before what it needs on the same rank is
 * PP_E_INPUT, as are bytes that overflow. O(actions). */
pp_status pp_order_follow(const pp_sim_input *input, const int *input_slots,
                          const int *gradient_slots, pp_rank_order *ranks, pp_stage_order *stages,
                          pp_error *error);

/* ---- a run ---------------------------------------------------------------------------------- */

/* What F, B or I made, on its way to another rank. */
typedef struct pp_transfer {
    double sent_s, arrival_s; /* it leaves, it is there */
    pp_action action;         /* that made it */
} pp_transfer;

typedef struct pp_rank_times {
    double first_start_s, last_end_s;
    double compute_s; /* busy with F, B, I, W, R */
    double update_s;  /* busy with REDUCE_GRAD, STEP */
    double peak_time_s;
} pp_rank_times;

/* Stages that reduce their gradients together. */
typedef struct pp_reduction {
    int pending;     /* member stages whose last backward has not ended */
    double ready_s;  /* when the last of those that have, did */
    int32_t waiting; /* first rank that waits for pending to be 0; -1: none */
} pp_reduction;

/* When ranks have the data that their forwards need (loading.c). */
typedef struct pp_loading {
    const pp_sim_input *input;
    bool *reads;      /* [stages]; NULL: nobody waits for data */
    double **there_s; /* [stages] [microbatches] of those that read, with prefetch; else NULL */
} pp_loading;

/* What a stage's REDUCE_GRAD has sent beside compute. */
typedef struct pp_sent_gradient {
    double begun_s, ended_s; /* its last backward: when gradients begin to be final, and all are */
    double done_s;           /* the transfer over replicas */
    bool off;                /* REDUCE_GRAD has been */
} pp_sent_gradient;

typedef struct pp_run {
    const pp_sim_input *input;
    const pp_schedule *schedule;
    const pp_rank_order *order;        /* [ranks] */
    const pp_stage_order *stage_order; /* [stages] */
    const int *previous, *next;        /* [stages] in the chain; -1: none */
    pp_reduction *reduction;           /* [stages] by group; NULL: no groups */
    int32_t *next_waiting;             /* [ranks] list behind pp_reduction.waiting */
    pp_sent_gradient *sent;            /* [stages] where reductions run beside compute, else NULL */
    double *reduce_free_s;             /* [ranks] … when the rank's transfers so far have ended */
    pp_loading loading;
    pp_rank_times *times;     /* [ranks] results */
    pp_span *spans;           /* NULL: not kept */
    const size_t *first_span; /* [ranks] where each rank's begin */
    pp_transfer *transfers;   /* with spans, but for blocking, where spans hold them */
    size_t transfer_count;
    pp_arena *arena; /* working memory, gone after the run */
} pp_run;

/* Times the order; run->times, first zeroed, and run->spans are filled. PP_E_DEADLOCK if it cannot
 * go on. Blocking: the schedule must have transfers and must have passed the check. */
pp_status pp_engine_run(pp_run *run, pp_error *error);
pp_status pp_engine_run_blocking(pp_run *run, pp_error *error);
/* The general one (engine_events.c). O(actions · log(ranks + lanes)) where nothing is shared. */
pp_status pp_engine_run_events(pp_run *run, pp_error *error);
/* Transfers between ranks that one rank takes part in: each has a span under blocking. */
size_t pp_blocking_transfer_count(const pp_run *run, int rank);

/* ---- engine_common.c ------------------------------------------------------------------------ */

/* Stages by rank: those of p are stages[first[p] … first[p + 1] - 1], ascending. */
pp_status pp_stages_by_rank(const pp_schedule *schedule, pp_arena *arena, const int **first,
                            const int **stages, pp_error *error);

/* Stages before and after in the chains; previous, next: [stages]. */
void pp_chain_links(const pp_schedule *schedule, int *previous, int *next);

/* Duration of F, B, I, W, R of a slice of a microbatch, REDUCE_GRAD, STEP; 0 of other kinds. Of
 * slices that take unequally long, the mean; that of the first one, which is the least. */
double pp_slice_duration(const pp_sim_input *input, int stage, pp_action_kind kind);
double pp_least_slice_duration(const pp_sim_input *input, int stage, pp_action_kind kind);
/* Of one bucket of gradients over the replicas. */
double pp_bucket_duration(const pp_sim_input *input, int stage);
/* The same of an action: scaled if it is of the last microbatch of all. */
double pp_action_duration(const pp_sim_input *input, pp_action action);
/* Durations are not the given ones but drawn; what of them an action then takes (draws.c). */
bool pp_durations_vary(const pp_sim_input *input);
double pp_draw_factor(const pp_sim_input *input, pp_action action);
/* … and what a transfer of its output takes. */
double pp_transfer_factor(const pp_sim_input *input, pp_action action);
pp_status pp_draws_check(const pp_sim_input *input, pp_error *error);
/* Of the pair that begins at `first`: its two parts, then the whole. */
typedef struct pp_pair_duration {
    double first_s, total_s;
} pp_pair_duration;
pp_pair_duration pp_pair_time(const pp_sim_input *input, pp_action first, pp_action second);

/* Latency plus occupancy of what a compute action sends; both 0 if it sends nothing to another
 * rank. *to gets the rank, or -1. */
typedef struct pp_sending {
    int to;
    double latency_s, occupancy_s;
} pp_sending;
pp_sending pp_action_sending(const pp_sim_input *input, const int *previous, const int *next,
                             int stage, pp_action_kind kind);
/* The same of what one action sends: drawn, where durations are. */
pp_sending pp_action_transfer(const pp_run *run, pp_action action);

/* Only what is not there the moment it is made. */
static inline void pp_run_keep_transfer(pp_run *run, pp_action action, double sent_s,
                                        double arrival_s) {
    run->transfers[run->transfer_count++] = (pp_transfer){sent_s, arrival_s, action};
}

/* Records what a run wants to know of the action at `index` besides its end: when the peak is, and
 * the last backward of a reducing stage. Returns the first rank to wake (a list through
 * run->next_waiting), or -1. */
int32_t pp_run_observe(pp_run *run, int rank, size_t index, double start_s, double end_s);

/* ---- reduction.c --------------------------------------------------------------------------- */

/* The group of a stage that reduces together with others; NULL if alone. */
pp_reduction *pp_run_reduction(const pp_run *run, int stage);

pp_status pp_reductions_make(pp_run *run, pp_error *error);
/* The last compute action of the stage has to be shown to pp_run_observe. */
bool pp_reduction_observes(const pp_run *run, int stage);
/* That was action `index`, the stage's last. Returns the first rank to wake, or -1. */
int32_t pp_reduction_end_stage(pp_run *run, int rank, size_t index, double start_s, double end_s);
/* REDUCE_GRAD and STEP. False: waits for other ranks, and is woken (next_waiting). Else the time
 * may have become later. */
bool pp_update_ready(pp_run *run, int rank, pp_action action, double *start_s);
/* The action starts: if it is a REDUCE_GRAD, so may its transfer. */
void pp_reduction_set_off(pp_run *run, int rank, pp_action action, double start_s);
/* All ranks have ended: the step ends when the last transfer has. */
void pp_reductions_finish(pp_run *run);

/* ---- loading.c ------------------------------------------------------------------------------ */

/* input: outlives it. */
pp_status pp_loading_make(pp_loading *loading, const pp_sim_input *input, pp_arena *arena,
                          pp_error *error);
/* When a rank that is free from free_s on has what the action reads. */
double pp_loaded_at(const pp_loading *loading, pp_action action, double free_s);

/* ---- cards.c ------------------------------------------------------------------------------- */

/* Cards are numbered 0 … count-1; 0 of them: input->cards is NULL. */
int pp_card_count(const pp_sim_input *input);
int pp_card_out(int node);
int pp_card_in(int node);
/* Outputs of the stage, forward or backward, pass the cards of two nodes. */
bool pp_passes_cards(const pp_run *run, int stage, bool backward);
/* Some card may have more than one transfer at a time. */
pp_status pp_cards_shared(const pp_run *run, bool *shared, pp_error *error);

/* ---- span_lanes.c, memory_curve.c ----------------------------------------------------------- */

/* The most transfers that a run can keep. */
size_t pp_transfer_limit(const pp_run *run);
/* A trace of the run's spans, [first_span[ranks]], and of its transfers: a span at the sender and
 * one at the receiver of each. */
pp_status pp_spans_arrange(const pp_run *run, pp_trace **trace, pp_error *error);

/* Fills the memory curves of a trace that has compute spans, from input->bytes. Slots: [stages], or
 * NULL. */
pp_status pp_memory_curves(const pp_sim_input *input, const int *input_slots,
                           const int *gradient_slots, pp_trace *trace, pp_error *error);

/* ---- given_costs.c, expand.c, bounds.c ------------------------------------------------------ */

/* PP_E_INPUT for missing, negative, NaN or infinite numbers. */
pp_status pp_sim_input_check(const pp_sim_input *input, pp_error *error);

/* group[s]: the lowest stage that s reduces its gradients together with, since they share weights.
 */
pp_status pp_plan_reduce_groups(const pp_plan *plan, int *group, pp_error *error);

double pp_lower_bound_of(const pp_sim_input *input, const pp_stage_order *stages,
                         const int *previous, const int *next, pp_arena *arena);

#endif
