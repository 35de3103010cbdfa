/* What the files of planner share. Nothing outside this folder includes it.
 *
 *   chain cuts  split.c            the dynamic programme behind every split
 *   memo        memo.c             a small map of numbers
 *   tables      tables.c           what a layer costs, by microbatch size and kind of device
 *   arrangement arrange.c          which device each position of a plan has
 *               arrange_list.c     which of them are tried
 *   views       views.c            the model in other orders and over the lattice of its cuts
 *   footprints  footprint.c        bytes of any interval of layers, made once per kind
 *   space       search_space.c     which candidates there are
 *   bounds      search_bound.c     what a candidate can never beat
 *   work        search_work.c, search_room.c, search_cut.c, search_solve.c
 *                                  one candidate: split, simulate, refine
 *   auto        search_auto.c      an order made to measure for its splits
 *   miss        search_miss.c      by how much nothing fitted
 *   doubt       doubt.c            by how much measured costs leave a step time open
 *   changes     search_changes.c   what one change to the plan would give */
#ifndef PPSIM_PLANNER_INTERNAL_H
#define PPSIM_PLANNER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "planner/lattice_internal.h"
#include "planner/planner.h"

/* ---- chain cuts ---------------------------------------------------------------------------- */

/* A chain of items to be cut into stages so that the largest cost is least.
 * floor  : a lower bound of an interval's cost that never falls when the interval grows.
 * exact  : the cost itself, at least floor, INFINITY where it is not allowed; NULL: floor is it.
 * border : cost of the border between `stage` and the next, which begins at item `next`; counts
 *          like a stage of its own. NULL: none.
 * stop   : nobody waits for the cut any more: it is given up soon. NULL: never. */
typedef struct pp_chain_problem {
    int items, stages;
    pp_interval_cost *floor;
    pp_interval_cost *exact;
    double (*border)(const void *context, int stage, int next);
    bool (*stop)(const void *context);
    const void *context;
    /* Not NULL: items and borders are numbers of ideals (lattice.c), an interval first … last is
     * what ideal last + 1 has beyond ideal first, and `items` does not count. Then the weight
     * [ideals] of a stage never falls when it grows, and its cost is at least per_weight times
     * that. */
    const pp_lattice *lattice;
    const double *weight;
    double per_weight;
} pp_chain_problem;

/* Fills splits [stages - 1] and *largest. PP_E_NO_FIT when every split costs INFINITY,
 * PP_E_INTERRUPTED when it was given up: only cuts of a lattice take long enough. Workspace from
 * the arena. */
pp_status pp_chain_cut(const pp_chain_problem *problem, pp_arena *arena, int *splits,
                       double *largest, pp_error *error);
/* What pp_chain_cut does where there is a lattice. */
pp_status pp_lattice_cut(const pp_chain_problem *problem, pp_arena *arena, int *splits,
                         double *largest, pp_error *error);

/* ---- memo ---------------------------------------------------------------------------------- */

typedef struct pp_memo_slot {
    uint64_t key; /* 0: empty */
    int64_t value;
} pp_memo_slot;

/* A map of numbers; zero-initialise to start. */
typedef struct pp_memo {
    pp_memo_slot *slots;
    size_t capacity, count;
} pp_memo;

/* A hash of numbers, one after the other: of two words that differ, the results agree no more often
 * than those of chance (the finaliser of MurmurHash3). */
static inline uint64_t pp_mix64(uint64_t hash, uint64_t value) {
    uint64_t mixed = (hash ^ value) * UINT64_C(0xff51afd7ed558ccd);
    mixed = (mixed ^ (mixed >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return mixed ^ (mixed >> 29);
}

bool pp_memo_find(const pp_memo *memo, uint64_t key, int64_t *value);
bool pp_memo_put(pp_memo *memo, uint64_t key, int64_t value); /* key not 0; false: out of memory */
void pp_memo_clear(pp_memo *memo);                            /* keeps the memory */
void pp_memo_deinit(pp_memo *memo);

/* ---- tables -------------------------------------------------------------------------------- */

/* A set of kinds of devices, ascending; kinds on which everything takes equally long count as one.
 * Equal sets are the same object. */
typedef struct pp_kinds {
    int id;
    int count;
    const int *kinds; /* of pp_tables.kinds */
} pp_kinds;

/* What the model's layers weigh on each of tp devices; sums are prefix sums over the file's order:
 * layers first … last have sum[last + 1] - sum[first]. A tied matrix is the own of the lowest layer
 * that has it, whichever stage that is in: so sums are never more than a stage has. */
typedef struct pp_weights {
    int tp;
    double *untied_share;  /* [layers] of a layer's parameters that is not tied … */
    double *own_share;     /* [layers] … or is its own */
    int64_t *tied_bytes;   /* [layers] of the parameter that the layer shares, or 0 */
    int64_t *weight_bytes; /* [layers + 1] sums of weights and gradients that are a layer's own */
    int64_t *state_bytes;  /* [layers + 1] sums of their optimizer state */
    int64_t *own_bytes;    /* [layers + 1] sums of gradients that are a layer's own */
    int64_t *held_bytes;   /* [layers + 1] sums of weights, gradients and state, ties included */
} pp_weights;

/* How layers are divided over the tp devices of a rank. */
typedef struct pp_division {
    const pp_weights *weights; /* of one of them */
    pp_all_reduce sum;         /* over them, as slow as over the slowest such group */
} pp_division;

/* Seconds of the model's layers at one microbatch size, what the devices of a rank add up included,
 * on one kind of device, or of each layer on the fastest of several. Sums are prefix sums like
 * those of pp_weights. */
typedef struct pp_timing {
    int64_t samples;
    int slices; /* into which they are cut: times are of all together, each without its actions */
    pp_division division;
    const pp_kinds *kinds;
    double *stretch; /* [kinds->count] all times on that kind are at least so many times these */
    double forward_total_s, input_total_s, weight_total_s;
    double attention_total_s;         /* of F what recompute attention repeats */
    double *heaviest;                 /* [layers + 1] sums of F + I + W, largest layers first … */
    double *heaviest_recomputed;      /* … and of 2F + I + W */
    double least_forward_share;       /* least F / (F + I + W) of a layer that costs anything */
    double least_slice_share;         /* of what a phase takes, what its first slice does at least */
    double own_update_total_s;        /* optimizer steps over what is a layer's own */
    double *forward, *input, *weight; /* [layers + 1] sums; NULL until pp_tables_expand */
    double *forward_each, *input_each, *weight_each; /* [layers] what they are sums of */
    double *attention, *attention_each;              /* the same */
    double *forward_tilt_each, *input_tilt_each;     /* [layers] last slice less the first one */
    double *update_each;   /* [layers] one optimizer step, whatever the microbatch … */
    double *own_update;    /* [layers + 1] … and sums of it over what is its own */
    int64_t *border_bytes; /* [layers + 1] what crosses in front of each layer */
    int64_t *tensor_bytes; /* [layers + 1] sums of all tensors that are no parameters */
    double *whole;         /* over a lattice: [ideals] sums of F + I + W */
} pp_timing;

/* What does not depend on a candidate. Read-only after pp_tables_init but for what is made on first
 * use, which any thread may ask for. Arrays
 * are by position in the order at hand, the file's or that of a view, and so are the layers and
 * edges of `model`. */
typedef struct pp_tables {
    const pp_plan_request *request;
    const pp_model *model; /* the request's, its layers in the order at hand */
    const int *order;      /* [layers] position → layer of the request's model; NULL: the same */
    const pp_lattice *lattice; /* not NULL: sums are over ideals, of which there are layers + 1 */
    pp_cluster *cluster;       /* a copy, whose links are as measured where the store has them */
    int layers;
    double overhead_s;            /* of each action */
    int *last_reader;             /* [layers] last layer that reads the output, or -1 */
    int *tie;                     /* [layers] lowest layer with the same tie; -1: shares nothing */
    int *tied_layers, tied_count; /* layers with tie >= 0, ascending */
    int *kinds, kind_count;       /* kinds of devices that differ in what layers cost */
    int *kind_of;                 /* [kinds of the cluster] index into kinds */
    pp_kinds **kind_sets;         /* every set that was asked for */
    int kind_set_count, kind_set_capacity;
    const pp_weights *whole;  /* of layers that are not divided */
    double flops_per_sample;  /* of F, I and W; 0: unknown */
    int64_t sequence;         /* tokens of a sample; 0: not a sequence model */
    int64_t cap_bytes;     /* of the file's order: no rank may hold more; 0: its own limit alone */
    pthread_mutex_t *lock; /* of what is made on first use: below, and the sets of kinds */
    pp_memo weights_of;    /* tp → pp_weights */
    pp_memo timing_of;     /* samples, kinds and division → pp_timing */
    pp_arena arena;
} pp_tables;

pp_status pp_tables_init(pp_tables *tables, const pp_plan_request *request, pp_error *error);
void pp_tables_deinit(pp_tables *tables);
/* The kinds of these devices. NULL: out of memory. */
const pp_kinds *pp_tables_kinds(pp_tables *tables, const int *devices, int count);
/* One of pp_tables.kinds, by its index, as a set. NULL: out of memory. */
const pp_kinds *pp_tables_kind(pp_tables *tables, int kind);
/* Made on first use. The model must divide over tp devices (pp_model_can_shard). */
pp_status pp_tables_weights(pp_tables *tables, int tp, const pp_weights **weights, pp_error *error);
/* Totals at a microbatch size, cut into so many slices, on the fastest of some kinds, made on first
 * use. */
pp_status pp_tables_timing(pp_tables *tables, const pp_kinds *kinds, pp_division division,
                           int64_t samples, int slices, pp_timing **timing, pp_error *error);
/* The sums as well. */
pp_status pp_tables_expand(pp_tables *tables, pp_timing *timing, pp_error *error);

/* The layer shares its matrix with a layer first … layer - 1. */
bool pp_tables_tied_before(const pp_tables *tables, int layer, int first);

/* ---- arrangements -------------------------------------------------------------------------- */

/* Which device each position of a plan has. */
typedef struct pp_arrangement {
    int ranks, width;            /* devices of a rank: dp·tp */
    const int *devices;          /* [ranks·width] tp fastest, then replica, then rank */
    const pp_kinds *kinds;       /* of all of them */
    const pp_kinds **rank_kinds; /* [ranks] */
    int64_t *limit_bytes;  /* [ranks] memory of the smallest device of the rank, or --memory */
    double limit_total;    /* Σ limit_bytes */
    double cost_per_hour;  /* of all devices */
    pp_link *ahead, *back; /* [ranks] the slowest link to the next rank, the last's is the
                              first, and from there */
} pp_arrangement;

typedef struct pp_arrangements {
    const pp_arrangement **list; /* the cluster's own order first, if it is among them */
    int count, capacity;
    bool all; /* any other is as good as one of these */
} pp_arrangements;

/* Takes over `devices`. NULL: out of memory. */
pp_arrangement *pp_arrangement_make(pp_tables *tables, int ranks, int width, const int *devices,
                                    pp_arena *arena);
/* The slowest link from the devices of a rank to those of another. */
pp_link pp_arrangement_link(const pp_arrangement *arrangement, const pp_cluster *cluster, int from,
                            int to);
/* Equal where no plan costs more or less; of many ranks: as far as neighbours tell. Never 0.
 * scratch: [devices of the cluster] */
uint64_t pp_arrangement_hash(const pp_arrangement *arrangement, const pp_tables *tables,
                             int *scratch);
/* Those worth trying: arrange_list.c. Everything is in the arena. */
pp_status pp_arrangements_list(pp_tables *tables, int ranks, int dp, int tp, pp_arena *arena,
                               pp_arrangements *out, pp_error *error);

/* ---- footprints ---------------------------------------------------------------------------- */

/* Bytes of intervals, cached by kind. Not thread-safe. */
typedef struct pp_footprints {
    const pp_tables *tables;
    uint64_t *shape;        /* [layers] hash of what a layer's tensors depend on */
    uint64_t *output;       /* [layers] hash of what a reader sees of it */
    size_t *crossing_start; /* [layers + 2] outputs that cross the border in front of layer i are */
    int *crossing;      /* crossing[crossing_start[i]] … crossing[crossing_start[i + 1] - 1] */
    size_t *read_start; /* [layers + 1] the same for the layers that layer i reads */
    int *read;
    pp_memo kinds;   /* interval → hash of its kind */
    pp_memo layouts; /* kind and mode → pp_stage_bytes */
    pp_arena arena, scratch;
} pp_footprints;

/* What else the bytes of a stage depend on. */
typedef struct pp_footprint_mode {
    int64_t samples;
    int dp; /* all that hold the same weights */
    int tp;
    int shards; /* of the optimizer state: dp under ZeRO-1, else 1 */
    bool split_backward;
    pp_recompute recompute;
} pp_footprint_mode;

pp_status pp_footprints_init(pp_footprints *footprints, const pp_tables *tables, pp_error *error);
void pp_footprints_deinit(pp_footprints *footprints);
/* Bytes of layers first … last as a stage, the optimizer state sharded under zero 1. NULL: out of
 * memory. Lives as long as the footprints. */
const pp_stage_bytes *pp_footprint(pp_footprints *footprints, int first, int last,
                                   pp_footprint_mode mode);
/* Equal for intervals whose bytes are equal in every mode. */
uint64_t pp_footprint_kind(pp_footprints *footprints, int first, int last);
/* Equal for intervals whose bytes are equal; never 0. */
uint64_t pp_footprint_key(pp_footprints *footprints, int first, int last, pp_footprint_mode mode);

/* ---- views --------------------------------------------------------------------------------- */

/* The model in one topological order, or over a lattice: the same tables with other positions. */
typedef struct pp_view {
    pp_tables *base;   /* of the file's order */
    pp_tables *tables; /* its own */
    pp_footprints *footprints;
    pp_memo timings; /* the file's pp_timing → this view's … */
    pp_memo weights; /* … and pp_weights */
} pp_view;

/* All views of one search. Where the model has one order alone, `wide` and `file` are the same. */
typedef struct pp_views {
    pp_tables *base;
    pp_view file;  /* the file's order */
    pp_view *wide; /* every known cut: where to look for the best ones */
    bool complete; /* … and there are no others */
    pp_lattice lattice;
    pp_view **orders; /* that were asked for, in that order; owned */
    size_t order_count, order_capacity;
    pp_memo order_of; /* hash of an order → index in orders + 1 */
    pp_arena arena;
} pp_views;

/* widest, limit: of pp_lattice_make. */
pp_status pp_views_init(pp_views *views, pp_tables *base, pp_footprints *footprints,
                        pp_lattice_family widest, int limit, pp_error *error);
/* Others of the same tables and cuts, for another thread. What they share must outlive them. */
pp_status pp_views_share(pp_views *views, pp_views *from, pp_footprints *footprints,
                         pp_error *error);
void pp_views_deinit(pp_views *views);
/* The view of a topological order [layers], made when it first comes up. */
pp_status pp_views_order(pp_views *views, const int *order, pp_view **view, pp_error *error);
/* What is asked for changes; all views are told. */
void pp_views_ask(pp_views *views, const pp_plan_request *request);
/* The view's counterpart of a timing of the base tables, expanded. */
pp_status pp_view_timing(pp_view *view, pp_timing *timing, const pp_timing **seen, pp_error *error);

/* ---- published partitions ------------------------------------------------------------------ */

/* torchgpipe's blocks, DeepSpeed's balanced partition, equal numbers with the remainder in front.
 * Fill splits [stages - 1]; items >= stages. False: out of memory. Even costs O(items² · stages).
 */
bool pp_split_blocks(const double *weights, int items, int stages, pp_arena *arena, int *splits);
bool pp_split_even(const double *weights, int items, int stages, pp_arena *arena, int *splits);
void pp_split_uniform(int items, int stages, int *splits);

/* ---- split methods ------------------------------------------------------------------------- */

typedef struct pp_split_row pp_split_row;

/* --split, read. */
typedef struct pp_split_method {
    const pp_split_row *row; /* of the table in baselines.c */
    char name[64];           /* as given, cut to fit */
    int *cuts;               /* "3,7,11": first layers of stages 1 …; else NULL */
    int cut_count;
    double *matches; /* [layers] 1 where type:REGEX matches; else NULL */
} pp_split_method;

/* NULL means "optimal". Arrays live in the arena. Unknown names are PP_E_INPUT and list the known.
 */
pp_status pp_split_method_read(const char *text, const pp_model *model, pp_arena *arena,
                               pp_split_method *method, pp_error *error);
/* True if the search itself chooses the splits. */
bool pp_split_is_optimal(const pp_split_method *method);
/* True for the pure least largest stage; for PipeDream's programme. */
bool pp_split_is_bottleneck(const pp_split_method *method);
bool pp_split_is_pipedream(const pp_split_method *method);

/* The methods that need no argument and no lattice, to compare with; NULL behind the last. Shared,
 * never to be changed. */
const pp_split_method *pp_split_plain(int index);

/* What a baseline balances. */
typedef struct pp_split_load {
    const pp_tables *tables;
    const pp_timing *timing; /* expanded */
    pp_footprints *footprints;
    pp_footprint_mode mode;
    pp_recompute recompute;
} pp_split_load;

/* Splits the file's order by a method that is none of these. *measure: the largest stage by the
 * method's own measure; 0 for those that have none. */
pp_status pp_split_baseline(const pp_split_method *method, const pp_split_load *load, int stages,
                            pp_arena *arena, int *splits, double *measure, pp_error *error);

/* ---- the space ----------------------------------------------------------------------------- */

/* One combination of everything but the splits. */
typedef struct pp_candidate {
    int ranks, virtual_stages, dp, tp, microbatches;
    int zero;          /* ZeRO stage: 0 or 1 */
    int64_t size;      /* samples of a microbatch */
    int slices;        /* that each microbatch is cut into along the sequence; 1 */
    double last_scale; /* times of the last microbatch over those of a full one */
    const pp_schedule_family *family;
    pp_recompute recompute; /* mixed: chosen stage by stage, as little as fits */
    const pp_arrangement *arrangement;
    pp_timing *timing; /* on the fastest of its kinds of devices */
    double sum_byte_s; /* to sum a byte of gradients over all that hold it, at the least */
    double capacity;   /* in such fastest devices: ranks, unless some are slower */
    double bound_s;    /* no split of it is faster; INFINITY: it does not fit */
    double seconds;    /* step time of its best split; INFINITY: none simulated that fits */
    bool simulated;    /* splits of it were */
    bool tried;        /* it was solved */
    bool sketched;     /* it was looked at early: pp_work_sketch */
    int group;         /* equal where nothing but the family differs */
    int level;         /* how sharp bound_s is: 0, 1; 2: sharpest */
} pp_candidate;

typedef struct pp_space {
    pp_candidate *candidates; /* in the order in which ties are broken */
    size_t count, capacity;
    int group_count;
    int devices; /* of the cluster */
    pp_arena arena;
} pp_space;

/* Refuses contradictory requests, then lists every combination that they allow. */
pp_status pp_space_init(pp_space *space, pp_tables *tables, const pp_split_method *method,
                        pp_error *error);
void pp_space_deinit(pp_space *space);

/* Replicas that share out the optimizer state. */
static inline int pp_candidate_shards(const pp_candidate *candidate) {
    return candidate->zero == 1 ? candidate->dp : 1;
}

/* What is recomputed on every stage, whatever else is chosen: none of a mixed candidate. */
static inline pp_recompute pp_candidate_policy(const pp_candidate *candidate) {
    bool mixed = candidate->recompute == PP_RECOMPUTE_MIXED;
    return mixed ? PP_RECOMPUTE_NONE : candidate->recompute;
}

/* What to ask a schedule for. */
static inline int pp_candidate_slices(const pp_candidate *candidate) {
    return candidate->slices > 1 || candidate->family->cuts_sequence ? candidate->slices : 0;
}

/* Of what passes a stage in any phase, the first slice takes at least so much: 1 without slices. Of
 * what recompute attention repeats it has the least (core/slices.c). */
static inline double pp_candidate_slice_share(const pp_candidate *candidate) {
    double slices = candidate->slices, share = candidate->timing->least_slice_share;
    bool attention = candidate->recompute == PP_RECOMPUTE_ATTENTION;
    return attention && share * slices * slices > 1 ? 1 / (slices * slices) : share;
}

/* Of one chain: so many intervals the layers are cut into. */
static inline int pp_candidate_stages(const pp_candidate *candidate) {
    return candidate->ranks * candidate->virtual_stages;
}

/* Chains of stages, each with a copy of the model and its share of the microbatches. */
static inline int pp_candidate_chains(const pp_candidate *candidate) {
    return candidate->family->placement == PP_PLACE_BIDIRECTIONAL ? 2 : 1;
}

/* Stages on each rank, copies included. */
static inline int pp_candidate_each(const pp_candidate *candidate) {
    return candidate->virtual_stages * pp_candidate_chains(candidate);
}

/* Devices that hold the same weights: their gradients are summed. */
static inline int pp_candidate_holders(const pp_candidate *candidate) {
    return candidate->dp * pp_candidate_chains(candidate);
}

/* Microbatches of a chain: of an odd number the second of two has one more. */
static inline int pp_candidate_microbatches(const pp_candidate *candidate, int chain) {
    return (candidate->microbatches + chain) / pp_candidate_chains(candidate);
}

/* The same counted in full ones: the last one goes through the last chain. */
static inline double pp_candidate_visits(const pp_candidate *candidate, int chain) {
    int count = pp_candidate_microbatches(candidate, chain);
    bool last = chain == pp_candidate_chains(candidate) - 1;
    return last ? count - 1 + candidate->last_scale : count;
}

/* R actions of a stage of the chain, in full microbatches. except-last leaves out one of each
 * chain, but none of a chain with fewer than the other. */
static inline double pp_candidate_recomputes(const pp_candidate *candidate, int chain) {
    int chains = pp_candidate_chains(candidate);
    if (candidate->recompute == PP_RECOMPUTE_FULL) return pp_candidate_visits(candidate, chain);
    bool but_last = candidate->recompute == PP_RECOMPUTE_EXCEPT_LAST;
    return but_last ? pp_candidate_microbatches(candidate, chains - 1) - 1 : 0;
}

/* ---- windows ------------------------------------------------------------------------------- */

/* Disjoint spans of a stage's order from the end of an F to the start of the same microbatch's B
 * (or I), all with the same actions of the stage inside. */
typedef struct pp_window {
    int forwards, inputs, weights, recomputes; /* inside; a whole B is both input and weight */
    int count;                                 /* such windows */
    bool small; /* one of them is of the last, perhaps smaller, microbatch */
} pp_window;

enum { PP_WINDOWS_MAX = 8 };

/* What the order of a stage's actions says. `small`: of the last, perhaps smaller, microbatch. */
typedef struct pp_flow {
    int leading;                               /* F before the first backward */
    int leading_recomputes;                    /* R before it */
    bool leading_small;                        /* one of those F is small */
    bool first_small, turn_small, final_small; /* the first F, first and last backward are */
    int window_count;
    pp_window windows[PP_WINDOWS_MAX];
} pp_flow;

/* flows: [stages] zeroed, filled. False: out of memory. O(V · actions). */
bool pp_flows_make(const pp_schedule *order, pp_arena *arena, pp_flow *flows);

/* ---- terms --------------------------------------------------------------------------------- */

/* The last layer's part in a matrix that is another layer's own: at the end of a step so much is
 * summed and stepped besides what is its own, where that layer is in another stage. */
typedef struct pp_tied_end {
    int owner; /* -1: none */
    double step_s, bytes;
} pp_tied_end;

/* What the stages of one candidate cost, as functions of where they are cut. Arrays are in the
 * arena given to pp_terms_init. Where a candidate has two chains, stage s of the first and stage
 * stages + s of the second are copies, of the same layers: [copies] are arrays over both. */
typedef struct pp_terms {
    const pp_tables *tables;
    const pp_candidate *candidate;
    const pp_timing *timing;   /* of the candidate, expanded */
    const pp_timing **on_kind; /* [kinds of the tables] those that it uses, expanded */
    pp_footprint_mode mode;
    pp_recompute others; /* what P, Q and J of other stages take for granted; mode has that of the
                            stage asked about */
    pp_recompute *policies; /* [stages] for assembling: chosen stage by stage where the candidate
                               says mixed; of all copies */
    int stages, copies, ranks;
    int *placement;             /* [copies] */
    const int64_t *limit_bytes; /* [ranks] */
    pp_all_reduce *reduce;      /* [ranks] of one rank's gradients over its replicas, and those that
                                   hold copies, by each of its tp devices at once */
    pp_line *forward, *backward; /* [copies] the link behind each stage, there and back */
    double *forward_least, *backward_least; /* [copies + 1] sums over the borders in front of a
                                               stage of the least time that any cut leaves */
    double visits[2], recomputes[2]; /* by chain, twice the same if there is one: microbatches, and
                                        those recomputed, in full ones */
    double scale;                    /* of the smallest microbatch, at most 1 */
    double slice_share;              /* of a microbatch that is the first slice, at least; 1: all */
    double overhead_s;               /* of the actions of one phase of a microbatch */
    pp_tied_end tied_end;
    int *tie_devices;                /* [tied layers] scratch of the assembling … */
    bool *tie_holds;                 /* [copies] … of tied stages */
    const pp_flow *flows;            /* [copies] what follows from the order; NULL: not known */
} pp_terms;

/* The copy of a stage that is on the rank; -1: none is. */
static inline int pp_terms_copy_on(const pp_terms *terms, int stage, int rank) {
    while (stage < terms->copies && terms->placement[stage] != rank) stage += terms->stages;
    return stage < terms->copies ? stage : -1;
}

/* Bytes that every rank has which holds the stage. */
int64_t pp_terms_limit(const pp_terms *terms, int stage);

/* Of the candidate in some view. placement: [copies] stage → rank; NULL: stage s on rank s mod K.
 */
pp_status pp_terms_init(pp_terms *terms, pp_view *view, const pp_candidate *candidate,
                        const int *placement, pp_arena *arena, pp_error *error);

/* Over the replicas of some ranks that hold the same weights, by each of their tp devices at once: as
 * slow as the slowest. False: out of memory. */
bool pp_ranks_sum(const pp_cluster *cluster, const pp_candidate *candidate, const int *ranks,
                  int count, pp_all_reduce *sum);
/* All-reduce over the tp devices of each rank and replica, as slow as the slowest of them. */
pp_all_reduce pp_division_sum(const pp_cluster *cluster, const pp_arrangement *arrangement, int tp);

/* Sums over layers first … last as one stage, on the slowest device of its rank, with the cost of
 * its actions. */
double pp_terms_forward_s(const pp_terms *terms, int stage, int first, int last);
/* I alone, with what it recomputes */
double pp_terms_input_s(const pp_terms *terms, int stage, int first, int last);
double pp_terms_backward_s(const pp_terms *terms, int stage, int first, int last); /* I and W */
/* What the backward passes recompute inside them under a policy, and how long an R takes; 0 if the
 * policy has no such thing. */
double pp_terms_inside_s(const pp_terms *terms, pp_recompute policy, int stage, int first,
                         int last);
double pp_terms_again_s(const pp_terms *terms, pp_recompute policy, int stage, int first, int last);
/* Where pp_timing has the sums of what a policy recomputes inside the backward passes; NULL: it
 * recomputes nothing there. */
const double *pp_timing_inside(const pp_timing *timing, pp_recompute policy);
/* F, I, W and R of one full microbatch. */
double pp_terms_visit_s(const pp_terms *terms, int stage, int first, int last);
/* At least REDUCE_GRAD and STEP of the stage. */
double pp_terms_update_s(const pp_terms *terms, int stage, int first, int last);
/* How long the lane behind `stage` is held for one microbatch when the next one begins at `next`.
 */
double pp_terms_lane_s(const pp_terms *terms, int stage, int next);

/* ---- assembling ---------------------------------------------------------------------------- */

/* Everything of a plan but its stages; its arrays must be there. */
void pp_assemble_header(const pp_terms *terms, pp_plan *plan);
/* Stages for these splits: times and bytes. False: out of memory. */
bool pp_assemble_stages(const pp_terms *terms, pp_footprints *footprints, const int *splits,
                        pp_plan *plan);
/* A finished plan: expanded, simulated, predicted. */
pp_status pp_assemble_plan(const pp_terms *terms, pp_footprints *footprints, const int *splits,
                           pp_plan **plan, pp_error *error);
/* The same with another order of compute actions, which the plan brings under the name "auto";
 * NULL: as the candidate's schedule has it. */
pp_status pp_assemble_order(const pp_terms *terms, pp_footprints *footprints, const int *splits,
                            const pp_schedule *order, pp_plan **plan, pp_error *error);

/* ---- bounds -------------------------------------------------------------------------------- */

/* Seconds of the fullest rank's own work, updates included: no split makes it less. O(ranks). */
double pp_bound_load(const pp_tables *tables, const pp_candidate *candidate);
/* Seconds that no split of the candidate can beat, from totals alone. O(1). INFINITY: its weights
 * alone do not fit. */
double pp_bound_totals(const pp_tables *tables, const pp_candidate *candidate);
/* The same whatever the order of its actions. */
double pp_bound_any_order(const pp_tables *tables, const pp_candidate *candidate);
/* Seconds that no step can beat in which `stage` holds layers first … last. Never falls when the
 * interval grows. Sharper when the order is known. */
double pp_bound_stage(const pp_terms *terms, int stage, int first, int last);
/* Seconds that no step can beat in which the rank of `stage` holds these splits of its stages up to
 * that one. */
double pp_bound_rank(const pp_terms *terms, const int *splits, int stage);
/* Bytes that the stage needs at the least; never fall when the interval grows. */
int64_t pp_bound_bytes(const pp_terms *terms, int first, int last);
/* Least of the largest pp_bound_stage over all splits whose weights fit; INFINITY: none. */
pp_status pp_bound_splits(const pp_terms *terms, pp_arena *arena, double *bound, pp_error *error);
/* What to order step times by, so that those that differ by rounding alone are equal. */
double pp_rounded(double seconds);
/* Improvements by less than this share are not looked for. */
#define PP_NEGLIGIBLE 1e-9

/* ---- one candidate ------------------------------------------------------------------------- */

enum { PP_STARTS = 4 };

/* A split to begin from. */
typedef struct pp_start {
    double estimate_s; /* of its step time: never more */
    int *splits;       /* [stages - 1] */
} pp_start;

/* The workshop in which candidates are timed, one after the other. Stages are intervals of the view
 * at hand: `wide`, where cuts are looked for, or that of the order in which a cut is tried. */
typedef struct pp_work {
    pp_views *views;
    pp_view *view;             /* at hand … */
    pp_tables *tables;         /* … its tables … */
    pp_footprints *footprints; /* … and footprints; terms are in it too, and the plan */
    const pp_split_method *method;
    const pp_candidate *candidate;
    pp_terms terms;
    pp_schedule *order;                /* compute actions */
    int *input_slots, *gradient_slots; /* [copies] */
    int *alike;                        /* [copies] the first stage whose needs are the same */
    int *alive;                /* [copies] activations at the peak; 0: follow the order each time */
    pp_stage_bytes *probe;     /* [copies] all zero but the one asked for */
    pp_memo needs;             /* (stage, kind of interval) → bytes */
    pp_plan plan;              /* filled for each split in turn; owns nothing */
    pp_schedule *expanded;     /* the order of the plan's last split, with reductions and steps */
    uint64_t expanded_ties;    /* for these stages of tied layers */
    pp_stage_cost *costs;      /* [copies] of the plan's split, as are the next three */
    pp_border_cost *borders;   /* [copies] */
    pp_link *links;            /* [copies][2] behind each stage, there and back */
    const pp_sim_cards *cards; /* that ranks share; NULL: none */
    int *groups;               /* [copies] that reduce together */
    pp_flow *flows;            /* [copies] of the order */
    int *splits;               /* [stages - 1] the best so far, in best_view … */
    pp_recompute *policies;    /* [stages] of the best … */
    int *trial;                /* … and the one being tried, in the view at hand */
    pp_view *best_view;        /* NULL: none fits */
    pp_start starts[PP_STARTS]; /* best estimates first … */
    int start_count;            /* … so many */
    double best_s;              /* its step time; INFINITY: none fits */
    int64_t best_peak_bytes;    /* the largest of its ranks */
    bool shared; /* policies were chosen stage after stage: there may be better ones */
    int share;                  /* of a rank's limit that each of its stages may use: 1/share */
    double deadline_s;          /* on pp_now_s's clock; 0: none */
    const atomic_bool *found;   /* some plan is known: cuts need not end beyond the deadline; NULL:
                                   they   must */
    bool gave_up;               /* a cut of the candidate did not end: its trial is none */
    int64_t simulations;        /* of this candidate */
    double effort;              /* actions looked at since pp_work_init, of all candidates */
    double bound_s;             /* of pp_work_bound; 0: not asked yet */
    struct pp_capacity *capacity; /* of pp_work_count; NULL: not asked yet */
    bool proved;                /* best_s is the least over all splits */
    pp_status failure;          /* what went wrong inside a callback */
    pp_arena arena;             /* reset for each candidate */
} pp_work;

void pp_work_init(pp_work *work, pp_views *views, const pp_split_method *method);
void pp_work_deinit(pp_work *work);
/* Takes up a candidate: its order, slots and terms. PP_E_UNSUPPORTED: of a kind that cannot be
 * planned yet. */
pp_status pp_work_start(pp_work *work, const pp_candidate *candidate, pp_error *error);
/* Some splits that come to mind, without improving them: best_s is what a plan of the candidate is
 * about worth. bound_s INFINITY: it cannot fit. */
pp_status pp_work_sketch(pp_work *work, pp_error *error);
/* Takes another view to hand. */
pp_status pp_work_enter(pp_work *work, pp_view *view, pp_error *error);
/* Least of the largest pp_bound_stage over all known splits that fit; INFINITY: none does. Leaves
 * the split in work->trial. Proved if work->views->complete. 0 where work->gave_up. */
pp_status pp_work_bound(pp_work *work, double *bound, pp_error *error);
/* Several stages on a rank: raises bound_s to `ceiling` if the paths of the order alone prove, and
 * soon, that no split takes less. Most orders of no interest are known by that. */
pp_status pp_work_outplay(pp_work *work, double ceiling, pp_error *error);
/* Several stages on a rank: raises bound_s by counting the layers that ranks have time and memory
 * for, up to `ceiling`; INFINITY: nothing fits. */
pp_status pp_work_count(pp_work *work, double ceiling, pp_error *error);
/* The policy that takes least time of those that fit a stage, each copy of it, as layers first …
 * last, and the bytes that it needs by itself on the rank that has least to spare; if none fits,
 * the one that needs least. INT64_MAX: out of memory. A
 * pinned candidate has one policy. Mixed ones choose among none, attention and every:N, which leave
 * the order alone: then no step gets slower when one of its stages gets faster, so that for each
 * split the choice is the best of all (with one stage on each rank: ranks choose by themselves). */
pp_recompute pp_work_policy(pp_work *work, int stage, int first, int last, int64_t *need);
/* The next in the order of time for a stage of so many layers; -1: it was the last. All every:N
 * take the same, so they come from the largest groups to the smallest, one N for each number of
 * groups. */
pp_recompute pp_work_next_policy(pp_recompute policy, int layers);
/* Raises the policies of work->trial's stages, as they are in work->plan, until all ranks hold
 * theirs: search_relief.c. False: that does not go, or work->failure says why not. */
bool pp_work_relieve(pp_work *work);
/* Those bytes alone. */
int64_t pp_work_need(pp_work *work, int stage, int first, int last);
/* Whether that is within its rank's limit. Cheap where there is room to spare. */
bool pp_work_fits(pp_work *work, int stage, int first, int last);
/* Simulates work->plan's stages: search_time.c. */
pp_status pp_work_prepare_times(pp_work *work, pp_error *error);
pp_status pp_work_time(pp_work *work, double *seconds, pp_error *error);
/* Simulates the splits in work->trial and keeps them if they fit and are faster than the best. A
 * cut of the lattice first becomes one of an order, whose view is then at hand. */
pp_status pp_work_try(pp_work *work, pp_error *error);
/* The time is up, or somebody asked to stop: leave loops with what there is. */
bool pp_work_must_stop(const pp_work *work);
/* And nobody waits for what has begun. */
bool pp_work_gives_up(const pp_work *work);
/* Finds the best splits by the method, starting from work->trial. No split whose bound reaches
 * `ceiling` is of interest to the caller. */
pp_status pp_work_solve(pp_work *work, double ceiling, pp_error *error);
/* Bytes of a rank under the stages of work->plan. */
int64_t pp_work_rank_bytes(pp_work *work, int rank);
/* First and last layer of a stage under some splits. */
void pp_work_interval(const pp_work *work, const int *splits, int stage, int *first, int *last);

/* A plan with an order made to measure for these splits of the candidate at hand, or with its own
 * order where none shorter was found: search_auto.c. budget: of pp_auto_schedule. */
pp_status pp_work_auto(pp_work *work, const int *splits, int64_t budget, pp_plan **plan,
                       pp_error *error);

/* Too far from the ceiling to be worth the next two. */
bool pp_work_is_hopeless(const pp_work *work, double ceiling);
/* Moves boundaries while the simulated step time falls. */
pp_status pp_refine(pp_work *work, pp_error *error);
/* Tries every split that could beat both the best and the ceiling, as long as the effort stays
 * bounded; sets work->proved if it saw them all. */
pp_status pp_enumerate(pp_work *work, double ceiling, pp_error *error);

/* ---- guesses ------------------------------------------------------------------------------- */

/* What the candidate will about take; INFINITY: it cannot fit. Proves nothing. O(ranks). */
double pp_guess(const pp_tables *tables, const pp_candidate *candidate);

/* Candidates, the best guess first. */
typedef struct pp_guesses {
    const pp_space *space;
    size_t *heap;
    double *seconds; /* of the candidate in the same place */
    size_t count;
} pp_guesses;

typedef bool pp_guess_match(const pp_candidate *candidate, const pp_candidate *like);

/* All of the space that may fit, matches and was not sketched before. Start zeroed; the arrays come
 * from the arena the first time. False: out of memory. */
bool pp_guesses_make(pp_guesses *guesses, const pp_tables *tables, const pp_space *space,
                     pp_guess_match *match, const pp_candidate *like, pp_arena *arena);
/* Puts back one that was taken out. */
void pp_guesses_put(pp_guesses *guesses, size_t candidate, double seconds);
/* Takes the best out; there must be one. */
size_t pp_guesses_next(pp_guesses *guesses, double *seconds);

/* ---- reports ------------------------------------------------------------------------------- */

/* True if the method has a measure of its own (parameters, bytes, …) rather than a stage's seconds.
 */
bool pp_split_has_measure(const pp_split_method *method);
/* Fills what a result says of work->splits. */
pp_status pp_work_report(pp_work *work, pp_plan_split *split, pp_error *error);
/* Cuts into work->trial so that the largest excess of a stage's need over its share of the rank's
 * limit is least. *rank is then furthest above its limit (or least below) and needs *needed bytes.
 */
pp_status pp_work_least_excess(pp_work *work, int *rank, int64_t *needed, pp_error *error);

/* Looks for what came closest to fitting, and for the cheapest change that would fit; fills *miss
 * and returns PP_E_NO_FIT with both in the message. */
pp_status pp_miss_find(pp_work *work, pp_space *space, pp_plan_miss *miss, pp_error *error);

/* What a step owes to one cost's being off, in seconds. */
typedef struct pp_doubt {
    uint64_t cost; /* which: equal in all plans */
    double seconds;
} pp_doubt;

typedef struct pp_doubts {
    bool known;    /* some costs were measured, and the plan is small enough */
    double step_s; /* half the 95 % interval of the step time; NAN: not known */
    pp_doubt *each;
    int count;
} pp_doubts;

/* What measured costs leave in doubt of the plan's step time: doubt.c. each: in the arena. As many
 * simulations as costs. */
pp_status pp_doubts_find(const pp_costs *costs, const pp_plan *plan, pp_arena *arena,
                         pp_doubts *doubts, pp_error *error);
/* The same of the difference between the step times of two plans; NAN: not known. */
double pp_doubts_between(const pp_doubts *a, const pp_doubts *b);

/* What explain.c is given. */
typedef struct pp_story {
    const pp_tables *tables;
    const pp_space *space; /* with what became of each candidate */
    const pp_candidate *chosen;
    const pp_plan_result *result; /* complete but for the explanation */
    bool timed_out;
    double until_s; /* on pp_now_s's clock: when the time is up, where it is limited */
} pp_story;
pp_status pp_explain(const pp_story *story, pp_text *text, pp_error *error);
/* What one change to the plan would give, in a line each: search_changes.c. */
pp_status pp_tell_changes(const pp_plan_request *request, const pp_plan *plan, double until_s,
                          pp_text *text, pp_error *error);

#endif
