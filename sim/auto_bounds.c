/* Lower bounds of makespan and span over all orders that keep the limits.
 *
 * Of a rank p: head(p) is when it starts; after(p) the least time between the end of its last I and
 * the end of what follows from it, its own W or, by way of the stages before, that of another rank;
 * round(p) the time from the end of an F until its I can start, all stages behind there and back;
 * F, I and W its durations. As in bounds.c
 *
 *     makespan >= head + M(F+I) + max(M·W, after),   span >= M(F+I+W)                        (1)
 *
 * With one stage on each rank its memory adds idle time. Let n be how many activations fit the
 * limit, at most M. Before its first I a rank runs n forwards at most, so that it idles
 *
 *     idle_1 = max(0, F + round - n·F)                                                       (2)
 *
 * From the end of its last F to its own end round + I + W pass at least. The work left for that
 * time is u times I and u+q times W, if u microbatches are between F and I then and q between I and
 * W. They fit the limit. It idles
 *
 *     idle_2 = max(0, round + I + W - max over u of (u·I + (u+q)·W))                         (3)
 *
 * If n < M the first I comes before the last F: both idle times count. Else the larger does. When
 * the last I starts, b = (limit - activation)/(what waits for W) other microbatches can be between
 * I and W at most, so that I does not end before
 *
 *     head + idle_1 + M(F+I) + (M-1-b)·W                                                     (4)
 *
 * and after(p) follows. With any number of stages, a microbatch holds its activation for F + round
 * + I at least, and what I does not release for W more. Weight times time, of all together, cannot
 * exceed limit times span.                                                                 (5)
 *
 * Transfers take latency and occupancy; waiting for a lane only adds to this. */
#include "sim/auto_internal.h"

#include <math.h>

static double transfer_s(const pp_auto_op *op) {
    return op->occupancy_s + op->latency_s;
}

static const pp_auto_op *stage_ops(const pp_auto_case *c, int stage) {
    int visit = stage / c->ranks;
    int rank = visit ? 2 * c->ranks - 1 - stage : stage;
    return &c->op[rank * c->codes + visit * PP_AUTO_KINDS];
}

/* By stage: head_s before anything of it can start; from the end of an I of it to the end of what
 * follows, after_s, and of what follows on stage 0, first_s; round_s from the end of its F to the
 * start of its I. */
typedef struct paths {
    double *head_s, *after_s, *first_s, *round_s;
} paths;

static void set_paths(const pp_auto_case *c, paths *path) {
    int stages = c->ranks * c->visits;
    for (int s = 0; s < stages; s++) {
        const pp_auto_op *here = stage_ops(c, s);
        path->head_s[s] = 0;
        path->after_s[s] = path->first_s[s] = here[PP_AUTO_W].duration_s;
        if (s == 0) continue;
        const pp_auto_op *before = stage_ops(c, s - 1);
        double down_s = transfer_s(&here[PP_AUTO_I]) + before[PP_AUTO_I].duration_s;
        path->head_s[s] =
            path->head_s[s - 1] + before[PP_AUTO_F].duration_s + transfer_s(&before[PP_AUTO_F]);
        path->after_s[s] = fmax(path->after_s[s], down_s + path->after_s[s - 1]);
        path->first_s[s] = down_s + path->first_s[s - 1];
    }
    path->round_s[stages - 1] = 0;
    for (int s = stages - 2; s >= 0; s--) {
        const pp_auto_op *here = stage_ops(c, s), *behind = stage_ops(c, s + 1);
        path->round_s[s] = transfer_s(&here[PP_AUTO_F]) + behind[PP_AUTO_F].duration_s +
                           path->round_s[s + 1] + behind[PP_AUTO_I].duration_s +
                           transfer_s(&behind[PP_AUTO_I]);
    }
}

/* ---- memory -------------------------------------------------------------------------------- */

/* How often `part` fits into `whole`, at most M. Slack was added to the limits already. */
static double times_in(const pp_auto_case *c, double whole, double part) {
    if (part <= 0) return c->microbatches;
    return fmax(0, fmin(c->microbatches, floor(whole / part)));
}

typedef struct idle {
    double start_s, both_s; /* idle_1; with idle_2 */
    double put_off;         /* W that can wait for the end of the last I */
} idle;

/* The most work that can be left after the last F of a rank: (3). */
static double most_left_s(const pp_auto_case *c, int p, double fits) {
    const pp_auto_op *op = &c->op[p * c->codes];
    double most_s = 0, weight = op[PP_AUTO_F].rise, kept = op[PP_AUTO_W].fall;
    for (double u = 1; u <= fits; u++) {
        double waiting = fmin(u + times_in(c, c->limit[p] - u * weight, kept), c->microbatches);
        most_s = fmax(most_s, u * op[PP_AUTO_I].duration_s + waiting * op[PP_AUTO_W].duration_s);
    }
    return most_s;
}

static idle idle_of(const pp_auto_case *c, int p, double round_s) {
    const pp_auto_op *op = &c->op[p * c->codes];
    if (c->visits > 1) return (idle){0, 0, c->microbatches};
    double weight = op[PP_AUTO_F].rise, kept = op[PP_AUTO_W].fall;
    double fits = times_in(c, c->limit[p], weight);
    double passes_s = round_s + op[PP_AUTO_I].duration_s + op[PP_AUTO_W].duration_s;
    double start_s = fmax(0, op[PP_AUTO_F].duration_s * (1 - fits) + round_s);
    double end_s = fmax(0, passes_s - most_left_s(c, p, fits));
    return (idle){start_s, fits < c->microbatches ? start_s + end_s : fmax(start_s, end_s),
                  times_in(c, c->limit[p] - weight, kept)};
}

/* ---- ranks --------------------------------------------------------------------------------- */

static void raise_to(double *bound_s, double seconds) {
    if (seconds > *bound_s) *bound_s = seconds;
}

/* Weight times the least time that one microbatch of a stage holds it. */
static double area_of(const pp_auto_op *op, double round_s) {
    double until_input_s = op[PP_AUTO_F].duration_s + round_s + op[PP_AUTO_I].duration_s;
    return op[PP_AUTO_F].rise * until_input_s + op[PP_AUTO_W].fall * op[PP_AUTO_W].duration_s;
}

static void add_rank(const pp_auto_case *c, int p, const paths *path, double bound_s[2]) {
    double chain_s = 0, weights_s = 0, after_s = INFINITY, area = 0, m = c->microbatches;
    for (int v = 0; v < c->visits; v++) {
        const pp_auto_op *op = &c->op[p * c->codes + v * PP_AUTO_KINDS];
        area += m * area_of(op, path->round_s[pp_auto_stage(c, p, v)]);
        chain_s += m * (op[PP_AUTO_F].duration_s + op[PP_AUTO_I].duration_s);
        weights_s += m * op[PP_AUTO_W].duration_s;
        after_s = fmin(after_s, path->after_s[pp_auto_stage(c, p, v)]);
    }
    idle lost = idle_of(c, p, path->round_s[p]);
    double before = fmax(0, m - 1 - lost.put_off); /* W before the last I */
    double last_input_s = chain_s + lost.start_s;
    if (c->visits == 1) last_input_s += before * c->op[p * c->codes + PP_AUTO_W].duration_s;
    double own_s = chain_s + weights_s + lost.both_s;
    if (area > 0) own_s = fmax(own_s, area / c->limit[p]);
    raise_to(&bound_s[PP_AUTO_SPAN], own_s);
    raise_to(&bound_s[PP_AUTO_MAKESPAN], path->head_s[p] + fmax(own_s, last_input_s + after_s));
    if (c->visits == 1) /* … and rank 0, which started at 0, ends no earlier than this */
        raise_to(&bound_s[PP_AUTO_SPAN], path->head_s[p] + last_input_s + path->first_s[p]);
}

void pp_auto_bounds(const pp_auto_case *c, pp_arena *arena, double bound_s[2]) {
    size_t stages = (size_t)c->ranks * (size_t)c->visits;
    paths path = {.head_s = PP_NEW(arena, double, stages),
                  .after_s = PP_NEW(arena, double, stages),
                  .first_s = PP_NEW(arena, double, stages),
                  .round_s = PP_NEW(arena, double, stages)};
    bound_s[PP_AUTO_MAKESPAN] = bound_s[PP_AUTO_SPAN] = 0;
    if (arena->failed) return;
    set_paths(c, &path);
    for (int p = 0; p < c->ranks; p++) add_rank(c, p, &path, bound_s);
}
