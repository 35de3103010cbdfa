/* The families of schedules, one row each. A new family is a new file in sim/schedule/ that defines
 * pp_<prefix>_validate and pp_<prefix>_build, and one row here; a new asynchronous one is a row. */
#ifndef PPSIM_SIM_FAMILIES_INTERNAL_H
#define PPSIM_SIM_FAMILIES_INTERNAL_H

#include "sim/sim.h"

/* prefix of the functions, name, summary, constraint, source,
 * natural V, step to further V (0: none), splits the backward, placement, cuts the sequence, count,
 * closed form of the bubble, and of the span's, whose orders it has where both are defined */
#define PP_FAMILY_LIST(X)                                                                          \
    X(naive, "naive", "one microbatch at a time through all ranks", "M >= 1",                      \
      "model parallelism without a pipeline", 1, 0, false, PP_PLACE_LOOP, false, false,            \
      pp_count_whole, pp_naive_bubble, pp_naive_bubble, NULL)                                      \
    X(gpipe, "gpipe", "all forwards, then all backwards (fill-drain)", "M >= 1",                   \
      "Huang et al. 2019, GPipe, section 2.3", 1, 0, false, PP_PLACE_LOOP, false, false,           \
      pp_count_whole, pp_gpipe_bubble, pp_gpipe_bubble, NULL)                                      \
    X(one_f_one_b, "1f1b", "one forward, one backward after a short warm-up", "M >= 1",            \
      "Narayanan et al. 2021, Megatron-LM, section 2.2.1; Fan et al. 2021, DAPPLE", 1, 0, false,   \
      PP_PLACE_LOOP, false, false, pp_count_whole, pp_gpipe_bubble, pp_gpipe_bubble, NULL)         \
    X(interleaved, "interleaved", "1f1b over V chunks on each rank, in groups of microbatches",    \
      "M a multiple of max(1, M / K); with a group G: K <= G <= M, and M mod G is 0 or >= K",      \
      "Narayanan et al. 2021, Megatron-LM, section 2.2.2", 2, 1, false, PP_PLACE_LOOP, false,      \
      false, pp_count_whole, pp_interleaved_bubble, pp_interleaved_bubble, NULL)                   \
    X(bfs, "bfs", "looped breadth-first: all microbatches pass a chunk before the next", "M >= 1", \
      "Lamy-Poirier 2023, Breadth-first pipeline parallelism", 2, 1, false, PP_PLACE_LOOP, false,  \
      false, pp_count_whole, pp_bfs_bubble, pp_bfs_bubble, NULL)                                   \
    X(zb_h1, "zb-h1", "1f1b with the backward split; weight halves fill the bubbles",              \
      "with V > 1: M a multiple of K",                                                             \
      "Qi et al. 2023, Zero bubble pipeline parallelism, "                                         \
      "section 2.1",                                                                               \
      1, 1, true, PP_PLACE_LOOP, false, false, pp_count_split, pp_zb_h1_bubble, pp_zb_h1_bubble,   \
      NULL)                                                                                        \
    X(zb_h2, "zb-h2", "zb-h1 with twice the warm-up: more memory, hardly a bubble",                \
      "M >= 1, of use from M >= 2K-1",                                                             \
      "Qi et al. 2023, Zero bubble pipeline parallelism, "                                         \
      "section 2.2",                                                                               \
      1, 0, true, PP_PLACE_LOOP, false, false, pp_count_split, pp_zb_h2_bubble,                    \
      pp_zb_h2_span_bubble, NULL)                                                                  \
    X(pytorch_zb, "pytorch-interleaved-zb", "PyTorch's interleaved schedule with weight halves",   \
      "M a multiple of max(1, M / K)",                                                             \
      "torch.distributed.pipelining, ScheduleInterleavedZeroBubble", 2, 1, true, PP_PLACE_LOOP,    \
      false, false, pp_count_split, pp_no_closed_form, pp_no_closed_form, "zb-h1")                 \
    X(zbv, "zbv", "zero bubble on a V-shaped placement, with the memory of 1f1b", "V = 2",         \
      "Qi et al. 2024, Pipeline parallelism with controllable memory, ZB-V", 2, 0, true,           \
      PP_PLACE_ZIGZAG, false, false, pp_count_split, pp_zbv_bubble, pp_zbv_span_bubble, NULL)      \
    X(dualpipe, "dualpipe", "two directions, forward and backward overlapped as one action",       \
      "K and M even, M >= 2K", "DeepSeek-AI 2024, DeepSeek-V3, section 3.2.1", 1, 0, true,         \
      PP_PLACE_BIDIRECTIONAL, false, false, pp_count_split, pp_dualpipe_bubble,                    \
      pp_dualpipe_bubble, NULL)                                                                    \
    X(dualpipev, "dualpipev", "dualpipe cut in half: one direction on a V-shaped placement",       \
      "V = 2, M >= 2K", "Qi 2025, DualPipe could be better without the dual", 2, 0, true,          \
      PP_PLACE_ZIGZAG, false, false, pp_count_split, pp_dualpipev_bubble, pp_dualpipev_bubble,     \
      NULL)                                                                                        \
    X(chimera, "chimera", "two directions, K/2 microbatches of each in flight", "K even, M >= 2",  \
      "Li and Hoefler 2021, Chimera", 1, 0, false, PP_PLACE_BIDIRECTIONAL, false, false,           \
      pp_count_whole, pp_chimera_bubble, pp_chimera_bubble, NULL)                                  \
    X(v_half, "v-half", "V-shaped, half the activation memory of 1f1b", "V = 2",                   \
      "Qi et al. 2024, Pipeline parallelism with controllable memory, V-Half", 2, 0, true,         \
      PP_PLACE_ZIGZAG, false, true, pp_count_split, pp_no_closed_form, pp_no_closed_form, NULL)    \
    X(v_min, "v-min", "V-shaped, a third of the activation memory of 1f1b", "V = 2",               \
      "Qi et al. 2024, Pipeline parallelism with controllable memory, V-Min", 2, 0, true,          \
      PP_PLACE_ZIGZAG, false, true, pp_count_split, pp_no_closed_form, pp_no_closed_form, NULL)    \
    X(hanayo, "hanayo", "V/2 waves through the ranks and back", "V even",                          \
      "Liu et al. 2023, Hanayo", 2, 2, false, PP_PLACE_ZIGZAG, false, false, pp_count_whole,       \
      pp_no_closed_form, pp_no_closed_form, NULL)                                                  \
    X(seq1f1b, "seq1f1b", "1f1b over slices of each sequence", "1 <= slices <= 256",               \
      "Sun et al. 2024, Seq1F1B", 1, 0, false, PP_PLACE_LOOP, true, false, pp_seq1f1b_count,       \
      pp_no_closed_form, pp_no_closed_form, NULL)

/* Which weights a microbatch goes forward and back with. */
typedef enum pp_async_weights {
    PP_WEIGHTS_NEWEST,        /* the newest at either time: they differ */
    PP_WEIGHTS_STASHED,       /* back with those that it went forward with, the newest then */
    PP_WEIGHTS_OF_FIRST_RANK, /* both with the version that it found on rank 0 */
    PP_WEIGHTS_DOUBLE,        /* both with the version before the newest at its backward; an update
                                 comes after M microbatches */
} pp_async_weights;

/* Which future weights are guessed from the optimizer's momentum. */
typedef enum pp_async_prediction {
    PP_PREDICTS_NOTHING,
    PP_PREDICTS_OWN_BACKWARD,   /* forward: those of its backward on this rank */
    PP_PREDICTS_FIRST_BACKWARD, /* forward and backward: those when its backward is on rank 0 */
} pp_async_prediction;

typedef struct pp_async_rule {
    int depth, more; /* depth · (K-1-p) + more forwards come before the first backward of rank p */
    pp_async_weights weights;
    pp_async_prediction predicts;
    int extra_copies; /* as large as the weights: predicted ones, or what else the method keeps */
} pp_async_rule;

/* name, summary, constraint, source; the columns of pp_async_rule. */
#define PP_ASYNC_FAMILY_LIST(X)                                                                    \
    X("pipedream", "1f1b without a flush; each minibatch goes back with the weights it came with", \
      "M >= 1", "Narayanan et al. 2019, PipeDream, section 3.3, weight stashing", 1, 0,            \
      PP_WEIGHTS_STASHED, PP_PREDICTS_NOTHING, 0)                                                  \
    X("pipedream-vsync", "pipedream in which all ranks use the version that rank 0 used",          \
      "M >= 1", "Narayanan et al. 2019, PipeDream, section 3.3, vertical sync", 1, 0,              \
      PP_WEIGHTS_OF_FIRST_RANK, PP_PREDICTS_NOTHING, 0)                                            \
    X("pipedream-2bw", "two weight versions; an update after M microbatches",                      \
      "M >= K; M counts the microbatches of an update",                                            \
      "Narayanan et al. 2021, Memory-efficient pipeline-parallel DNN training, section 3.1", 1, 0, \
      PP_WEIGHTS_DOUBLE, PP_PREDICTS_NOTHING, 0)                                                   \
    X("spectrain", "no stash: weights are predicted, forward and backward, from momentum",         \
      "M >= 1", "Chen et al. 2018, SpecTrain", 1, 0, PP_WEIGHTS_NEWEST,                            \
      PP_PREDICTS_FIRST_BACKWARD, 1)                                                               \
    X("xpipe", "no stash: forward with weights predicted from Adam's moments", "M >= 1",           \
      "Guan et al. 2019, XPipe", 1, 0, PP_WEIGHTS_NEWEST, PP_PREDICTS_OWN_BACKWARD, 1)             \
    X("pipemare", "no stash: smaller steps at first, backward weights extrapolated", "M >= 1",     \
      "Yang et al. 2019, PipeMare, section 3", 2, 1, PP_WEIGHTS_NEWEST, PP_PREDICTS_NOTHING, 1)    \
    X("pb", "no stash: spike compensation and linear weight prediction, batches of one", "M >= 1", \
      "Kosson et al. 2020, Pipelined backpropagation at scale, section 3", 2, 0,                   \
      PP_WEIGHTS_NEWEST, PP_PREDICTS_OWN_BACKWARD, 1)

#define X(prefix, ...)                                                                             \
    pp_status pp_##prefix##_validate(const pp_schedule_request *request, pp_error *error);         \
    void pp_##prefix##_build(const pp_schedule_request *request, pp_schedule *schedule);
PP_FAMILY_LIST(X)
#undef X

/* All asynchronous ones (schedule/async.c). */
pp_status pp_async_validate(const pp_schedule_request *request, pp_error *error);
size_t pp_async_count(const pp_schedule_request *request);
void pp_async_build(const pp_schedule_request *request, pp_schedule *schedule);

typedef double pp_closed_form(const pp_schedule_request *request, const pp_uniform *cost);
pp_closed_form pp_naive_bubble, pp_gpipe_bubble, pp_interleaved_bubble, pp_bfs_bubble,
    pp_zb_h1_bubble, pp_zb_h2_bubble, pp_zb_h2_span_bubble, pp_zbv_bubble, pp_zbv_span_bubble,
    pp_dualpipe_bubble, pp_dualpipev_bubble, pp_chimera_bubble, pp_async_bubble;

/* ---- what families share (families.c) -------------------------------------------------------- */

/* NAN: there is none. */
double pp_no_closed_form(const pp_schedule_request *request, const pp_uniform *cost);

/* Every stage visit has two actions (F, B), or at most three (F, I, W). */
size_t pp_count_whole(const pp_schedule_request *request);
size_t pp_count_split(const pp_schedule_request *request);
size_t pp_seq1f1b_count(const pp_schedule_request *request);

/* Refuses options that the family does not take; V must be 1 unless it is one of them. */
enum pp_family_takes {
    PP_TAKES_VIRTUAL = 1,
    PP_TAKES_GROUP = 2,
    PP_TAKES_SLICES = 4,
    PP_TAKES_REVERSE = 8,
    PP_TAKES_MINIBATCHES = 16,
};
pp_status pp_family_options(const pp_schedule_request *request, unsigned takes, pp_error *error);
/* V = 2 and no options: the V shape. */
pp_status pp_family_vshape(const pp_schedule_request *request, pp_error *error);

/* True where closed forms hold at all: nothing recomputed. */
bool pp_family_nothing_recomputed(const pp_schedule_request *request);
/* … and no transfer time. */
bool pp_family_uniform_domain(const pp_schedule_request *request, const pp_uniform *cost);

/* Equal but for the last bits: 0.1 + 0.2 and 0.3 are. */
bool pp_same_time(double a, double b);

/* F + I + W of a visit; and idle / (work + idle), 0 where there is no time at all. */
double pp_uniform_visit(const pp_uniform *cost);
double pp_idle_share(double work, double idle);

/* PyTorch's group: M / R microbatches of R = max(1, M / K) rounds; 0 where R does not divide M. */
int pp_rounds_group(const pp_schedule_request *request);

/* ---- writing orders -------------------------------------------------------------------------- */

/* Puts an action behind the ones that a build has made so far; returns the place after it. */
static inline size_t pp_put(pp_schedule *schedule, size_t at, pp_action_kind kind, int stage,
                            int microbatch) {
    schedule->actions[at] = (pp_action){.kind = (uint8_t)((unsigned)kind & 0x7fu),
                                        .stage = (uint16_t)stage,
                                        .microbatch = (uint32_t)microbatch};
    return at + 1;
}

/* Writes one rank's actions from `at` on; returns the place behind them. */
typedef size_t pp_build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                             size_t at);
void pp_family_build_ranks(const pp_schedule_request *request, pp_schedule *schedule,
                           pp_build_rank *build_rank);

/* Visits of a rank in groups (schedule/groups.c): `group` microbatches pass chunk 0, then chunk 1
 * …, then the next group; the last group may be smaller. Backward visits go through the chunks in
 * reverse. Puts the k-th visit of rank p. */
size_t pp_put_visit(const pp_schedule_request *request, pp_schedule *schedule, size_t at,
                    pp_action_kind kind, int group, int p, int64_t k);
/* `warm_up` forwards, then F and I in turn, each I from the lag-th on followed by the W that is
 * `lag` behind it, then the W that are left. */
size_t pp_put_split_rank(const pp_schedule_request *request, pp_schedule *schedule, size_t at,
                         int group, int p, int64_t warm_up, int64_t lag);

/* The V-shaped families write a rank as a sequence of (kind, chunk), microbatches counted up. Those
 * made for more microbatches than there are skip the rest. */
typedef struct pp_two_chunks {
    pp_schedule *schedule;
    size_t at;
    int stage[2];
    int next[2][PP_ACTION_KIND_COUNT]; /* microbatch of the next action of a chunk and kind */
} pp_two_chunks;

static inline void pp_put_next(pp_two_chunks *rank, pp_action_kind kind, int chunk) {
    int microbatch = rank->next[chunk][kind]++;
    if (microbatch < rank->schedule->microbatches)
        rank->at = pp_put(rank->schedule, rank->at, kind, rank->stage[chunk], microbatch);
}

/* ---- list scheduling (schedule/greedy.c) -------------------------------------------------------
 */

typedef struct pp_greedy_stage {
    int forwards, forwards_done;   /* microbatches whose F has started, and ended */
    int backwards, backwards_done; /* the same of I or B */
    int alive;                     /* from the start of F to the end of W or B */
} pp_greedy_stage;

typedef struct pp_greedy_rank {
    size_t at;      /* where its next action goes */
    size_t weighed; /* I actions before this place have their W */
    int64_t ends;   /* slot in which what it is at has ended */
    bool is_busy;
    int alive;   /* of all its stages */
    int waiting; /* I actions that have ended without a W */
} pp_greedy_rank;

/* The rules of one family. Zigzag placement, one chain. */
typedef struct pp_greedy pp_greedy;
struct pp_greedy {
    int ranks, microbatches;
    int forward_slots, backward_slots; /* durations … */
    int weight_slots;                  /* … 0: the backward is whole */
    int limit;                         /* for admits */
    int variant;                       /* 0 … variants-1; -1: the best of them */
    /* The smaller, the sooner: of F, or of I or B, of microbatch m on stage s. */
    int64_t (*urgency)(const pp_greedy *rules, int s, bool forward, int m);
    /* May another F of chunk v start on rank p? Must never leave all ranks waiting. */
    bool (*admits)(const pp_greedy *rules, const pp_greedy_stage *stages,
                   const pp_greedy_rank *rank, int p, int v);
    /* A W waits and an F of stage s is ready: does W go first? NULL where the backward is whole. */
    bool (*weight_first)(const pp_greedy *rules, const pp_greedy_rank *rank, int s);
};

/* Fills the schedule. If rules->variant is -1, of several variants of the rules it keeps the one
 * that takes the fewest slots for at most `trial_microbatches`; the first of equals. */
void pp_greedy_build(pp_greedy *rules, int variants, int trial_microbatches, pp_schedule *schedule);

#endif
