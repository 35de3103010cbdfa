/* sim: what order, when, how much. Floor 2; uses core alone.
 *
 *   schedule/     a file per family of schedules: the ORDER of actions on each rank
 *   families.c    the table of families; expanding a plan's schedule
 *   engine.c      WHEN each action starts and ends: the longest path through the order;
 *                 engine_events.c where links are shared, engine_blocking.c where ranks wait
 *   reduction.c, loading.c    when gradients have been summed, when data has been read
 *   memory.c      HOW MUCH each rank holds, event by event
 *   bounds.c      lower bounds; critical_path.c
 *   replications.c, sensitivity.c    how much of that is luck, and what it depends on
 *   attribution.c                    why a measured step differs from the predicted one
 *   auto.c …      a schedule made to measure for given costs and limits
 *   guided.c      list scheduling along a given order
 *   retimed.c     the same within the memory of a given one
 *
 * A schedule is data (core.h, part 8). The engine never reorders: time follows from the order. */
#ifndef PPSIM_SIM_H
#define PPSIM_SIM_H

#include "core/core.h"

/* ---- families of schedules ----------------------------------------------------------------- */

/* What to build. Zero means default where it can. */
typedef struct pp_schedule_request {
    const char *name;       /* "1f1b" */
    int ranks;              /* K ≥ 1 */
    int microbatches;       /* M ≥ 1 */
    int virtual_stages;     /* V; 0: the family's natural value */
    pp_recompute recompute; /* R actions are put before the backward of these microbatches */
    bool reverse_backward;  /* gpipe: backward of the last microbatch first, as torchgpipe runs */
    int group;       /* interleaved: microbatches that pass a chunk before the next; 0: ours */
    int slices;      /* seq1f1b: slices of a microbatch along the sequence; 0: 2 */
    int variant;     /* v-half, v-min: 1 … of the variants tried; 0: the shortest for F = I = W */
    int minibatches; /* pipedream-2bw: so many in a row, of M microbatches each; 0: 4 */
} pp_schedule_request;

/* Where the stages are. Bidirectional: two chains of K stages, each with a copy of the weights;
 * stage s of chain 0 is on rank s, stage K+j of chain 1 on rank K-1-j. M counts both directions and
 * must be even, microbatch numbers are per chain; V stays 1, since each visit is of a whole rank.
 */
typedef enum pp_stage_placement {
    PP_PLACE_LOOP,   /* stage s on rank s mod K */
    PP_PLACE_ZIGZAG, /* 0 … K-1, then K-1 … 0, and so on; with V = 2 the V shape */
    PP_PLACE_BIDIRECTIONAL,
} pp_stage_placement;

/* Of stages of both chains, where there are two, those of chain 1 behind those of chain 0. */
int pp_stage_rank(pp_stage_placement placement, int ranks, int stage);

/* Durations of one stage visit on uniform stages, for closed forms. */
typedef struct pp_uniform {
    double forward_s, input_s, weight_s, transfer_s;
} pp_uniform;

typedef struct pp_schedule_family {
    const char *name;
    const char *summary;    /* one line */
    const char *constraint; /* in words: "M >= 1" */
    const char *source;     /* paper, section */
    int natural_virtual;
    int virtual_step;     /* V may also be natural + n · this; 0: it may not */
    bool splits_backward; /* has I and W, in place of B or beside it */
    pp_stage_placement placement;
    bool cuts_sequence; /* its units are slices of microbatches */
    bool equal_times;   /* made for F = I = W without transfers: see pp_schedule_retime */
    const struct pp_async_rule *async; /* NULL: synchronous, weights change between steps alone */
    /* PP_E_INPUT with a reason if K, M, V are outside the definition. May be NULL: always fine. */
    pp_status (*validate)(const pp_schedule_request *request, pp_error *error);
    /* Upper bound of the number of actions, for allocation; then the order itself: compute actions
     * without recompute, into an allocated schedule whose capacity is that bound and whose stages
     * are placed. Allocates nothing. O(actions). */
    size_t (*count)(const pp_schedule_request *request);
    void (*build)(const pp_schedule_request *request, pp_schedule *schedule);
    /* 1 - busy / (K · makespan) on uniform stages; NAN outside the formula's domain (c > 0
     * always is). An overlapped pair counts the sum of its parts. */
    double (*closed_form_bubble)(const pp_schedule_request *request, const pp_uniform *cost);
    /* The same of the span: 1 - VMT / span. c > 0 is fine where the formula has it. */
    double (*closed_form_span_bubble)(const pp_schedule_request *request, const pp_uniform *cost);
    const char *same_as; /* wherever that family is defined too, its orders are these; or NULL */
} pp_schedule_family;

const pp_schedule_family *pp_schedule_families(int *count);
const pp_schedule_family *pp_schedule_family_find(const char *name); /* NULL if unknown */

/* How many stages a request has: K·V, or 2K if bidirectional. */
int64_t pp_schedule_family_stages(const pp_schedule_family *family,
                                  const pp_schedule_request *request);

/* Builds the compute actions of a named schedule, R actions included. Unknown names are PP_E_INPUT
 * and list the known ones; sizes beyond PP_ACTIONS_MAX are refused before allocating. */
pp_status pp_schedule_build(const pp_schedule_request *request, pp_schedule **schedule,
                            pp_error *error);

/* Asynchronous families run minibatch after minibatch without a flush: a rank updates its weights
 * after each backward (pipedream-2bw: each M-th), while other ranks are elsewhere. Version v of a
 * rank's weights is what v of its updates have made. M counts minibatches, except for
 * pipedream-2bw, whose schedule has M times `minibatches` microbatches. */
typedef struct pp_async_rank {
    int weight_versions; /* that microbatches under way may need, as published: of a long run */
    int weight_copies;   /* as large as the weights that must have room: the same; or with versions
                            kept for later (vsync), predicted weights, PipeMare's differences */
    int delay;           /* updates from the weights that a forward reads to the newest ones at its
                            backward, in a long run */
    int forward_ahead;   /* updates that are predicted on top of what F reads … */
    int backward_ahead;  /* … and B */
} pp_async_rank;

/* Versions that F and B of a microbatch read, before prediction. */
typedef struct pp_async_use {
    int64_t forward, backward;
} pp_async_use;

/* Of a request that its family, which must be asynchronous, accepts; of rank p, and there of
 * microbatch m of the schedule. */
pp_async_rank pp_async_rank_of(const pp_schedule_request *request, int p);
pp_async_use pp_async_use_of(const pp_schedule_request *request, int p, int64_t m);

/* A copy with an R before each B (or I) of the microbatches that `policy` recomputes by one: none
 * under attention and every:N. */
pp_status pp_schedule_add_recompute(const pp_schedule *schedule, pp_recompute policy,
                                    pp_schedule **with, pp_error *error);

/* The compute actions of a plan: its schedule with R where its stages recompute, and at each rank's
 * end REDUCE_GRAD (for stages that reduce_s or ties or dp > 1 demand it) and STEP of each of its
 * stages; with reduce_buckets each REDUCE_GRAD right behind the last backward of its stage. Refuses
 * (PP_E_INPUT) when plan->schedule_hash is not 0 and differs from the hash of the result: the plan
 * was changed or made by another version. */
pp_status pp_plan_expand(const pp_plan *plan, pp_schedule **schedule, pp_error *error);

/* Of a plan of two chains: a stage and its copy reduce their gradients together, and so do the
 * stages of one rank, since a rank in an all-reduce does nothing else: two ranks that hold copies
 * of the same two stages begin when both have done all their microbatches. With reduce_buckets the
 * copies alone. group: [stages] the lowest stage that each reduces with; joined further. */
void pp_plan_join_copies(const pp_plan *plan, int *group);

/* ---- simulation ---------------------------------------------------------------------------- */

typedef struct pp_stage_cost {
    double forward_s, input_s, weight_s, recompute_s, reduce_s, optimizer_s;
    double forward_tilt_s, input_tilt_s; /* of slices: see pp_stage */
    double reduce_transfer_s, reduce_latency_s,
        tie_transfer_s; /* parts of reduce_s: see pp_stage */
} pp_stage_cost;

/* The transfer across the border behind a stage, to the next stage of its chain. It delays the
 * consumer by latency + occupancy. Transfers of one directed pair of ranks follow each other:
 * each holds the pair's lane for its occupancy (bytes / bandwidth); 0: any number in flight. */
typedef struct pp_border_cost {
    double latency_s;
    double forward_occupancy_s;
    double backward_occupancy_s;
} pp_border_cost;

/* Network cards that the ranks of a node share. A transfer between two nodes passes the outward
 * card of its sender's node and the inward card of its receiver's; its occupancy is that of a card
 * which it has for itself. Transfers that meet get max-min fair shares. */
typedef struct pp_sim_cards {
    const int *node;      /* [ranks] 0 … PP_RANKS_MAX-1 */
    const bool *forward;  /* [stages] forward transfers across the border behind a stage pass the
                             cards of two nodes (a link of their own: they do not); NULL: all */
    const bool *backward; /* [stages] the same of backward ones */
    const int *copies;    /* [ranks] equal transfers that leave the rank's node at once, since
                             replicas of the rank work there too; NULL: 1 */
} pp_sim_cards;

/* What was measured of the stages, for durations that are drawn. The duration of a phase of a stage
 * (R is like F, B is I and W) is the given one times 1 + Σ share · (relative - 1), with one
 * `relative` drawn for each part; of a transfer, latency and occupancy. */
typedef enum pp_sim_phase {
    PP_SIM_FORWARD,
    PP_SIM_INPUT,
    PP_SIM_WEIGHT,
    PP_SIM_OPTIMIZER,     /* STEP */
    PP_SIM_REDUCE,        /* REDUCE_GRAD and, beside compute, its transfers */
    PP_SIM_SEND_FORWARD,  /* what F of the stage sends to another rank … */
    PP_SIM_SEND_BACKWARD, /* … and B or I */
    PP_SIM_PHASES
} pp_sim_phase;

typedef struct pp_sim_part {
    double share;           /* of the phase's duration; all parts of a phase at most 1 */
    const double *relative; /* [count] samples over what `share` is of */
    int count;              /* 0: it does not vary */
} pp_sim_part;

typedef struct pp_sim_mix {
    const pp_sim_part *parts; /* [count] as the stage's layers */
    int count;                /* 0: the phase does not vary */
} pp_sim_mix;

typedef struct pp_sim_draws {
    pp_sim_mix phase[PP_SIM_PHASES];
} pp_sim_draws;

/* What simulation needs besides the order. Arrays are the caller's. */
typedef struct pp_sim_input {
    const pp_schedule *schedule;  /* transfers are ignored unless blocking, and derived then */
    const pp_stage_cost *stage;   /* [stages] */
    const pp_border_cost *border; /* [stages], behind each stage; NULL: free. Never charged between
                                     stages of one rank */
    bool blocking;                /* sender and receiver are both held for the whole transfer */
    double overlap_factor;        /* of an OVERLAP_F_B pair; 0 means 1 */
    double last_microbatch_scale; /* durations of the last microbatch, which goes through the last
                                     chain; 0 means 1 */
    const pp_stage_bytes *bytes;  /* [stages]; NULL: byte results are -1 */
    const double *activation_weight;        /* [stages] weight that one activation of the stage */
    const double *released_by_input_weight; /* adds, and I takes off; NULL: 1/V, half of it */
    const int *reduce_group; /* [stages] REDUCE_GRAD of stages with equal numbers starts when
                                all of them have ended their last backward; NULL: each alone */
    int reduce_buckets; /* 0: REDUCE_GRAD keeps its rank for all of reduce_s. Else its transfers run
                           beside compute and STEP waits for them (reduction.c) */
    double load_s;      /* F of a rank that reads data waits so long for each microbatch; 0: none */
    bool prefetch;      /* … or data is read beside compute, from the start of the step on, the
                           first microbatch before it */
    bool keep_spans; /* of actions and of transfers that take time; with bytes, memory curves too */
    double launch_s; /* an action starts so long after all that it waits for; this is not busy */
    double jitter; /* relative standard deviation of actions' durations, which are then log-normal,
                      their means those given; the lower bound is 0: not known. 0: they are fixed */
    double transfer_jitter;    /* the same of transfers between ranks */
    pp_random_key jitter_key;  /* what is drawn follows from it, stage, kind, microbatch, slice */
    const pp_sim_draws *draws; /* [stages] durations are drawn from these, by the same key, and the
                                  bound is 0 likewise; NULL: they are not */
    const pp_sim_cards *cards; /* NULL: no transfers share anything */
    double transfer_slowdown;  /* actions of a rank take so many times longer while it sends or
                                  receives; 0 means 1. Under blocking they never do */
    const int *weight_copies;  /* [ranks] copies of the weights of its stages that a rank holds
                                  (pp_async_rank); NULL: 1 each */
    bool general; /* use the general engine also where the fast one applies; to the same results */
} pp_sim_input;

/* Bytes of a rank at its peak, by kind. */
typedef struct pp_peak_bytes {
    int64_t total, parameters, gradients, optimizer, activations, weight_versions, buffers;
} pp_peak_bytes;

typedef struct pp_sim_rank {
    double busy_s, idle_s;  /* idle = makespan - busy */
    double bubble_fraction; /* idle / makespan */
    double first_start_s, last_end_s;
    double peak_activations;       /* pairs alive from start of F to end of W or B, over V */
    double peak_activation_weight; /* the same by weight, the part that I releases taken off */
    pp_peak_bytes peak;            /* all -1 without input.bytes */
    double peak_time_s;            /* when it is first reached */
    pp_action peak_action;         /* by which action */
} pp_sim_rank;

typedef struct pp_sim_result {
    double makespan_s;
    double span_s;               /* longest time from a rank's first start to its own last end */
    double bubble_fraction;      /* 1 - Σ busy / (K · makespan) */
    double span_bubble_fraction; /* 1 - max over ranks of F,B,I,W,R busy / span */
    double lower_bound_s;        /* of the makespan of ANY order of these actions */
    double gap;                  /* (makespan - bound) / bound */
    size_t action_count;         /* compute actions */
    pp_sim_rank *rank;           /* [ranks] */
    pp_trace *trace;             /* NULL unless keep_spans */
    pp_arena arena;
} pp_sim_result;

/* Times the order. A schedule that cannot run is PP_E_DEADLOCK (run pp_schedule_check for the wait
 * cycle); negative, NaN or infinite costs are PP_E_INPUT. Exact: one pass in topological order,
 * O(actions), no allocation per action. *result: pp_sim_result_free. */
pp_status pp_simulate(const pp_sim_input *input, pp_sim_result **result, pp_error *error);
void pp_sim_result_free(pp_sim_result *result);

/* The share that ranks idle while the pipeline is full: from the time when all have begun their
 * first backward to when the first has done its last forward. What asynchronous schedules idle in a
 * long run. NAN where there is no such time (all microbatches are under way before the first comes
 * back) or spans were not kept. O(spans). */
double pp_steady_bubble_fraction(const pp_sim_result *result);

/* Bytes that one rank needs under this order, from the table alone (no times needed: a rank's
 * memory follows from its own order). slots: from pp_schedule_slots. peak_action may be NULL. */
pp_peak_bytes pp_rank_peak_bytes(const pp_schedule *schedule, int rank, const pp_stage_bytes *bytes,
                                 const int *input_slots, const int *gradient_slots,
                                 size_t *peak_action);

/* Simulates a plan: expands it (*schedule, if not NULL, gets it), takes stage times, bytes and the
 * links between its ranks' devices from it. */
pp_status pp_simulate_plan(const pp_plan *plan, bool keep_spans, pp_schedule **schedule,
                           pp_sim_result **result, pp_error *error);

/* The input that pp_simulate_plan simulates, for those who want to change it first. expanded: from
 * pp_plan_expand, outlives the input; arrays are the arena's. */
pp_status pp_plan_sim_input(const pp_plan *plan, const pp_schedule *expanded, pp_arena *arena,
                            pp_sim_input *input, pp_error *error);

/* The cards that the plan's ranks share, from its cluster, devices and placement; NULL where links
 * are not shared or no node has two transfers to share one. In the arena. */
pp_status pp_plan_sim_cards(const pp_plan *plan, pp_arena *arena, const pp_sim_cards **cards,
                            pp_error *error);

/* The chain of actions that no slack separates from the end, last to first, as span indices of
 * result->trace (which must have been kept). Into indices [capacity]; returns how many. */
size_t pp_critical_path(const pp_sim_input *input, const pp_sim_result *result, size_t *indices,
                        size_t capacity);

/* ---- uncertainty and sensitivity ------------------------------------------------------------ */

typedef struct pp_quantiles {
    double p5, p50, p95;
} pp_quantiles;

typedef struct pp_replications {
    int count;
    double mean_s; /* of the makespans */
    pp_quantiles makespan_s, bubble_fraction;
    double *critical; /* [ranks] share of the replications in which the rank has most of the
                         critical path, in seconds; they add up to 1 */
    pp_arena arena;
} pp_replications;
#define PP_REPLICATIONS_MAX 1000000

/* Simulates `count` times with input->jitter, transfer_jitter and draws, drawing anew each time;
 * input->jitter_key, bytes and keep_spans are ignored. Equal seeds give equal results. *result:
 * pp_replications_free. */
pp_status pp_simulate_replications(const pp_sim_input *input, int count, uint64_t seed,
                                   pp_replications **result, pp_error *error);
void pp_replications_free(pp_replications *replications);

/* A straggler: all costs of the rank's stages times factor. stage: [stages], changed. */
void pp_slow_rank(const pp_schedule *schedule, int rank, double factor, pp_stage_cost *stage);

/* Seconds that the step takes more when a cost grows by one per cent, and when it shrinks by one
 * per cent (negative, or 0). */
typedef struct pp_change {
    double slower_s, faster_s;
} pp_change;

/* What one layer has of the durations of its stage, as parts of 1. */
typedef struct pp_stage_share {
    int layer, stage;
    double forward, input, weight, recompute, optimizer;
} pp_stage_share;

typedef struct pp_sensitivity {
    double makespan_s;
    pp_change *forward, *input, *weight; /* [stages] */
    pp_change *border;     /* [stages] latency and occupancies of the border behind the stage */
    double microbatches_s; /* per per cent of M, from the slope to `other`; NAN without it */
    pp_arena arena;
} pp_sensitivity;

/* other: the same schedule with another number of microbatches, or NULL. O(stages) simulations.
 * *result: pp_sensitivity_free. */
pp_status pp_measure_sensitivity(const pp_sim_input *input, const pp_schedule *other,
                                 pp_sensitivity **result, pp_error *error);
void pp_sensitivity_free(pp_sensitivity *sensitivity);

/* The same of layers. shares: [share_count]; a layer of which several stages have copies comes once
 * for each, one behind the other. changes: [layers], filled where the layer comes. */
pp_status pp_measure_layers(const pp_sim_input *input, const pp_stage_share *shares,
                            int share_count, pp_change *changes, pp_error *error);

/* A lower bound of the makespan of any order on these stages: for each rank its own work, plus
 * the least time before its first action can start, plus the least time after its last. */
double pp_lower_bound(const pp_sim_input *input);

/* ---- prediction and measurement -------------------------------------------------------------- */

/* What can make a measured step differ from the predicted one. */
#define PP_CAUSE_LIST(X)                                                                          \
    X(PP_CAUSE_COMPUTE, "compute", "actions of a stage take longer or shorter, on average")       \
    X(PP_CAUSE_UNEVEN, "uneven actions", "single actions differ from the average of their stage") \
    X(PP_CAUSE_UPDATE, "reduction and step", "REDUCE_GRAD and STEP take longer or shorter")       \
    X(PP_CAUSE_GAPS, "gaps", "time between a rank's actions in which it waits for nobody")        \
    X(PP_CAUSE_TRANSFERS, "transfers", "from a stage's output to the action that needed it")      \
    X(PP_CAUSE_END, "end of step", "from the last action to the end")

typedef enum pp_cause {
#define X(value, name, what) value,
    PP_CAUSE_LIST(X)
#undef X
        PP_CAUSE_COUNT
} pp_cause;
extern const char *const pp_cause_names[PP_CAUSE_COUNT];
extern const char *const pp_cause_meanings[PP_CAUSE_COUNT];

/* One action of both traces, and its parts of the difference between the two makespans. */
typedef struct pp_attributed {
    const pp_span *predicted, *measured;
    double duration_s, gap_s, transfer_s;
} pp_attributed;

typedef struct pp_attribution {
    double predicted_s, measured_s;    /* makespans */
    double share_s[PP_CAUSE_COUNT];   /* add up to measured - predicted */
    double alone_s[PP_CAUSE_COUNT];   /* the prediction with this cause alone, less the prediction */
    double without_s[PP_CAUSE_COUNT]; /* the measurement, less the measurement without it */
    int stage_count;
    double *stage_s; /* [stage_count · PP_ACTION_KIND_COUNT] of COMPUTE and UPDATE, by stage and kind */
    pp_attributed *actions; /* [action_count] rank by rank in order; all their parts and
                               share_s[PP_CAUSE_END] add up to the difference too */
    size_t action_count;
    pp_arena arena;
} pp_attribution;

/* Why a step took longer or shorter than predicted, action by action: see attribution.c for what
 * the parts mean and why they add up. input: what was simulated. Both traces outlive the result. A
 * measured trace that does not hold the actions of the predicted one, rank by rank in the same
 * order, is PP_E_INPUT. O(actions) for each change of the critical path. pp_attribution_free. */
pp_status pp_attribute(const pp_sim_input *input, const pp_trace *predicted,
                       const pp_trace *measured, pp_attribution **result, pp_error *error);
void pp_attribution_free(pp_attribution *attribution);

/* ---- a schedule made to measure ------------------------------------------------------------- */

/* What is made short; among equals the other one decides.
 *
 * MAKESPAN, from the first start of any rank to the last end of all, is what one step takes and
 * what simulation reports. SPAN is the longest time from a rank's first start to its own last end:
 * what a step takes in a long run without a barrier between steps, where each rank starts the next
 * one as soon as its own work is done; the zero-bubble papers publish it. Whatever the order, a
 * rank first starts when microbatch 0 gets to it, so a span is an end less a constant, and with one
 * stage on each rank the least of both came together in nearly all we tried. With two stages a
 * shorter span can cost makespan: there the choice matters. */
typedef enum pp_auto_objective { PP_AUTO_MAKESPAN, PP_AUTO_SPAN } pp_auto_objective;

/* Zero means default where it can. Arrays are the caller's, indexed as simulation indexes them. */
typedef struct pp_auto_request {
    int ranks, microbatches;
    int virtual_stages;         /* 1, or 2 with stages s and 2K-1-s on rank s (vshape); 0: 1 */
    const pp_stage_cost *stage; /* [K·V] forward_s, input_s, weight_s; the rest is not read. Where
                                   microbatches are recomputed add that to input_s */
    const pp_border_cost *border;           /* [K·V]; NULL: transfers are free */
    const double *activation_weight;        /* [K·V] in any unit, bytes for one; NULL: 1/V … */
    const double *released_by_input_weight; /* [K·V] … of which I releases so much; NULL: half */
    const double *limit;                    /* [K] of a rank's activation weight; NULL: none */
    const pp_schedule *start; /* tried like a named one; NULL: none */
    pp_auto_objective objective;
    uint64_t seed;
    int64_t budget; /* of actions timed (10 for one that a rule places); 0: half a second's */
} pp_auto_request;

typedef struct pp_auto_result {
    pp_schedule *schedule; /* named "auto", I and W apart, one chain; pp_schedule_free */
    double makespan_s, span_s;
    double makespan_bound_s, span_bound_s; /* no schedule on this placement within the limits is
                                              shorter; higher than simulation's, which knows none */
    char origin[32]; /* what found it: a family's name, "rules", "branch and bound" … */
} pp_auto_result;

/* Synthesises a schedule: never worse in the objective than a named one with the same placement
 * (built with default options; without a budget and up to 10,000 actions, retimed as well) that
 * keeps the limits, and optimal for tiny cases. The same request gives the same schedule
 * everywhere. PP_E_NO_FIT names the first rank that cannot hold one microbatch. Full microbatches,
 * compute actions without launch times are what it sees. Time: the budget, or less where the bounds
 * are reached, and that of retiming; memory O(actions). */
pp_status pp_auto_schedule(const pp_auto_request *request, pp_auto_result *result, pp_error *error);

/* For a schedule of a family that is made for equal times: another order of the same stages, in
 * which no rank holds more chunks (from the start of F to the end of W) than the fullest rank of
 * input->schedule, but which is shorter with the input's costs. request: that schedule was built
 * from. *better: NULL if none was found. The same input gives the same order. Its effort is
 * bounded: a tenth of a second at 8 ranks and 64 microbatches, two seconds at 64 and 512. */
pp_status pp_schedule_retime(const pp_sim_input *input, const pp_schedule_request *request,
                             pp_schedule **better, pp_error *error);

#endif
