/* A lower bound of the makespan of any order of the same actions on the same stages and ranks.
 *
 * head(p) is the least time, over the stages of rank p, until anything of the stage can start:
 * F(s,m) needs F(s-1,m) and its transfer, which needs F(s-2,m), and so on; every other action of s
 * needs an F(s).
 *
 * after(s) is what must still follow the end of a B or I of stage s somewhere. On s itself that is
 * the W of that microbatch (if s has no B), REDUCE_GRAD and STEP; elsewhere it is the transfer to
 * s-1, its B or I, and after(s-1). The larger of the two counts.
 *
 * Nothing on p starts before head(p), and p does one thing at a time:
 *
 *     makespan >= head(p) + all work of p                                                   (1)
 *
 * Of p's F, R, B and I actions the last is a B or I, since each F and R has a backward after it on
 * the same stage. It ends no earlier than head(p) plus their work, and after() follows:
 *
 *     makespan >= head(p) + work of F, R, B, I on p + least after(s) over the stages of p   (2)
 *
 * (2) needs every F to have its backward; it is left out for ranks where one has not. On uniform
 * stages with V = 1, (1) and (2) give max(M·T, (K-1)(F+I+2c) + M(F+I) + W) of the literature.
 *
 * Of microbatches cut into slices, the steps of a path are slices, each as short as the first.
 * Launch overhead, slower compute and shared links only add to all this.
 *
 * Where durations differ by microbatch (a smaller last one) or overlapping saves time (a factor
 * below 1), paths take the smallest value. Blocking only adds to this. */
#include "sim/engine_internal.h"

#include <math.h>

/* ---- stages -------------------------------------------------------------------------------- */

typedef struct bound {
    const pp_sim_input *input;
    const pp_stage_order *stages;
    const int *previous, *next;
    double scale;    /* of microbatch M-1 */
    double smallest; /* least factor that a duration can have */
    double shrink;   /* least factor that overlapping gives to work */
} bound;

static double least(const bound *b, int s, pp_action_kind kind) {
    return pp_least_slice_duration(b->input, s, kind) * b->smallest;
}

static double transfer_s(const bound *b, int from, pp_action_kind kind) {
    pp_sending sending = pp_action_sending(b->input, b->previous, b->next, from, kind);
    return sending.occupancy_s + sending.latency_s;
}

/* The stage does this with every slice of every microbatch: on average each takes the mean. */
static bool of_all_slices(const bound *b, int s, pp_action_kind kind) {
    const uint32_t *count = b->stages[s].count;
    bool backward = kind == PP_BACKWARD || kind == PP_INPUT;
    size_t done = backward ? (size_t)count[PP_BACKWARD] + count[PP_INPUT] : count[kind];
    return done == pp_stage_units(b->input->schedule);
}

static double work_of(const bound *b, int s, pp_action_kind kind) {
    const pp_stage_order *stage = &b->stages[s];
    double plain = (double)(stage->count[kind] - stage->scaled[kind]);
    double each_s = of_all_slices(b, s, kind) ? pp_slice_duration(b->input, s, kind)
                                              : pp_least_slice_duration(b->input, s, kind);
    return each_s * (plain + stage->scaled[kind] * b->scale) * b->shrink;
}

static double update_of(const bound *b, int s) {
    double seconds = 0;
    if (b->stages[s].reduces) seconds += pp_slice_duration(b->input, s, PP_REDUCE_GRAD);
    if (b->stages[s].steps) seconds += b->input->stage[s].optimizer_s;
    return seconds;
}

static bool has_backward(const bound *b, int s) {
    return b->stages[s].count[PP_BACKWARD] > 0 || b->stages[s].count[PP_INPUT] > 0;
}

/* The shortest backward for the input of a stage that has one. */
static double least_backward(const bound *b, int s) {
    bool whole = b->stages[s].count[PP_INPUT] == 0;
    return least(b, s, whole ? PP_BACKWARD : PP_INPUT);
}

/* What must follow the last compute action of a stage: the update, and before its STEP whatever of
 * the reduction cannot leave earlier. */
static double after_compute(const bound *b, int s) {
    double update_s = update_of(b, s);
    if (!b->stages[s].reduces || b->input->reduce_buckets == 0) return update_s;
    double optimizer_s = b->stages[s].steps ? b->input->stage[s].optimizer_s : 0;
    double exposed_s = fmax(pp_bucket_duration(b->input, s), b->input->stage[s].tie_transfer_s);
    return fmax(update_s, exposed_s + optimizer_s);
}

static double after_here(const bound *b, int s) {
    double weight_s = b->stages[s].count[PP_BACKWARD] == 0 && b->stages[s].count[PP_WEIGHT] > 0
                          ? least(b, s, PP_WEIGHT)
                          : 0;
    return weight_s + after_compute(b, s);
}

/* head and after of every stage; chains ascend. */
static void set_paths(const bound *b, double *head, double *after) {
    for (int s = 0; s < b->input->schedule->stages; s++) {
        int before = b->previous[s];
        head[s] = 0;
        after[s] = after_here(b, s);
        if (before < 0) continue;
        head[s] = head[before] + least(b, before, PP_FORWARD) + transfer_s(b, before, PP_FORWARD);
        if (!has_backward(b, before)) continue;
        double elsewhere =
            transfer_s(b, s, PP_BACKWARD) + least_backward(b, before) + after[before];
        if (elsewhere > after[s]) after[s] = elsewhere;
    }
}

/* ---- ranks --------------------------------------------------------------------------------- */

typedef struct rank_bound {
    double head_s, after_s; /* least over the rank's stages */
    double input_s, rest_s; /* work of F, R, B, I; of W and updates */
    bool complete;
} rank_bound;

static void add_stage(const bound *b, int s, double head, double after, rank_bound *rank) {
    const pp_stage_order *stage = &b->stages[s];
    if (stage->count[PP_FORWARD] == 0) return;
    if (head < rank->head_s) rank->head_s = head;
    if (after < rank->after_s) rank->after_s = after;
    if (stage->count[PP_FORWARD] != stage->count[PP_BACKWARD] + stage->count[PP_INPUT])
        rank->complete = false;
    rank->input_s += work_of(b, s, PP_FORWARD) + work_of(b, s, PP_RECOMPUTE) +
                     work_of(b, s, PP_BACKWARD) + work_of(b, s, PP_INPUT);
    rank->rest_s += work_of(b, s, PP_WEIGHT) + update_of(b, s);
}

static double rank_least(const rank_bound *rank) {
    if (isinf(rank->head_s)) return 0; /* nothing to do */
    double rest_s = rank->rest_s;
    if (rank->complete && rank->after_s > rest_s) rest_s = rank->after_s;
    return rank->head_s + rank->input_s + rest_s;
}

static double over_ranks(const bound *b, pp_arena *arena) {
    const pp_schedule *schedule = b->input->schedule;
    double *head = PP_NEW(arena, double, schedule->stages);
    double *after = PP_NEW(arena, double, schedule->stages);
    rank_bound *ranks = PP_NEW(arena, rank_bound, schedule->ranks);
    if (arena->failed) return 0;
    set_paths(b, head, after);
    for (int p = 0; p < schedule->ranks; p++)
        ranks[p] = (rank_bound){.head_s = INFINITY, .after_s = INFINITY, .complete = true};
    for (int s = 0; s < schedule->stages; s++)
        add_stage(b, s, head[s], after[s], &ranks[schedule->placement[s]]);
    double bound_s = 0;
    for (int p = 0; p < schedule->ranks; p++) bound_s = fmax(bound_s, rank_least(&ranks[p]));
    return bound_s;
}

double pp_lower_bound_of(const pp_sim_input *input, const pp_stage_order *stages,
                         const int *previous, const int *next, pp_arena *arena) {
    double scale = input->last_microbatch_scale > 0 ? input->last_microbatch_scale : 1;
    double factor = input->overlap_factor > 0 ? input->overlap_factor : 1;
    bound b = {.input = input,
               .stages = stages,
               .previous = previous,
               .next = next,
               .scale = scale,
               .smallest = fmin(1, scale) * fmin(1, factor),
               .shrink = fmin(1, factor)};
    return over_ranks(&b, arena);
}

/* ---- from the actions alone ----------------------------------------------------------------- */

static void count_actions(const pp_schedule *schedule, pp_stage_order *stages) {
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++) {
        pp_action action = schedule->actions[i];
        if (action.stage >= schedule->stages) continue;
        pp_stage_order *stage = &stages[action.stage];
        if (action.kind == PP_REDUCE_GRAD) stage->reduces = true;
        if (action.kind == PP_STEP) stage->steps = true;
        if (action.kind >= PP_COMPUTE_KINDS) continue;
        stage->count[action.kind]++;
        if (pp_is_last(schedule, action)) stage->scaled[action.kind]++;
    }
}

double pp_lower_bound(const pp_sim_input *input) {
    pp_arena arena;
    pp_arena_init(&arena);
    int stages = input->schedule->stages;
    pp_stage_order *orders = PP_NEW(&arena, pp_stage_order, stages);
    int *previous = PP_NEW(&arena, int, stages);
    int *next = PP_NEW(&arena, int, stages);
    double bound_s = 0; /* out of memory: still a bound */
    if (!arena.failed) {
        count_actions(input->schedule, orders);
        pp_chain_links(input->schedule, previous, next);
        bound_s = pp_lower_bound_of(input, orders, previous, next, &arena);
    }
    pp_arena_deinit(&arena);
    return bound_s;
}
