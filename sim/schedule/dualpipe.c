/* dualpipe and dualpipev: forward and backward of different microbatches run as one action, so that
 * the communication of one hides behind the arithmetic of the other (DeepSeek-AI 2024,
 * "DeepSeek-V3", section 3.2.1; Qi 2025, "DualPipe could be better without the dual").
 *
 * dualpipe feeds microbatches from both ends: two chains, each with a copy of the weights.
 * dualpipev cuts it in half: one V-shaped chain of 2K stages. Both are the same eight steps. On
 * each rank there are a stage 0 (of the direction, or arm of the V, whose start is nearer) and a
 * stage 1; h is the rank's distance from that start, H the ranks that share it (K/2, or K), n the
 * microbatches of a chain:
 *
 *   1) 2(H-h-1) × F0                         5) H-h-1 × (B1, F1&B0)
 *   2) h+1 × (F0, F1)                        6) h+1 × (B1, B0), I alone in the second half
 *   3) H-h-1 × (I1, W, F1)                   7) H-h-1 × (W, I0)
 *   4) n-2H+h+1 × (F0&B1, F1&B0),            8) h+1 × W
 *      the first F0, B1 apart on a rank with h = H-1
 *
 * A bare W is that of the earliest I that still has none. */
#include "sim/families_internal.h"

#include <math.h>

typedef struct dual_rank {
    pp_schedule *schedule;
    size_t at;
    size_t weighed; /* I actions before this place have their W */
    int stage[2];
    int forwards[2], backwards[2]; /* microbatch of the next one */
} dual_rank;

static void put_forward(dual_rank *rank, int which) {
    rank->at =
        pp_put(rank->schedule, rank->at, PP_FORWARD, rank->stage[which], rank->forwards[which]++);
}

static void put_backward(dual_rank *rank, pp_action_kind kind, int which) {
    rank->at = pp_put(rank->schedule, rank->at, kind, rank->stage[which], rank->backwards[which]++);
}

/* The place of the earliest I without a W moves along: O(actions) in all. */
static void put_weight(dual_rank *rank) {
    pp_action *actions = rank->schedule->actions;
    while (actions[rank->weighed].kind != PP_INPUT) rank->weighed++;
    pp_action weight = actions[rank->weighed++];
    weight.kind = PP_WEIGHT;
    actions[rank->at++] = weight;
}

static void put_pair(dual_rank *rank, int forward, int backward) {
    put_forward(rank, forward);
    rank->schedule->actions[rank->at - 1].overlapped = 1;
    put_backward(rank, PP_BACKWARD, backward);
}

static void fill(dual_rank *rank, int h, int half) {
    for (int i = 0; i < 2 * (half - h - 1); i++) put_forward(rank, 0);
    for (int i = 0; i <= h; i++) {
        put_forward(rank, 0);
        put_forward(rank, 1);
    }
    for (int i = 0; i < half - h - 1; i++) {
        put_backward(rank, PP_INPUT, 1);
        put_weight(rank);
        put_forward(rank, 1);
    }
}

static void steady(dual_rank *rank, int h, int half, int microbatches) {
    for (int i = 0; i < microbatches - 2 * half + h + 1; i++) {
        if (i == 0 && h == half - 1) {
            put_forward(rank, 0);
            put_backward(rank, PP_BACKWARD, 1);
        } else {
            put_pair(rank, 0, 1);
        }
        put_pair(rank, 1, 0);
    }
}

static void drain(dual_rank *rank, int h, int half) {
    for (int i = 0; i < half - h - 1; i++) {
        put_backward(rank, PP_BACKWARD, 1);
        put_pair(rank, 1, 0);
    }
    for (int i = 0; i < 2 * (h + 1); i++)
        put_backward(rank, i <= h ? PP_BACKWARD : PP_INPUT, 1 - i % 2);
    for (int i = 0; i < half - h - 1; i++) {
        put_weight(rank);
        put_backward(rank, PP_INPUT, 0);
    }
    for (int i = 0; i <= h; i++) put_weight(rank);
}

static size_t put_steps(pp_schedule *schedule, size_t at, int stage_0, int stage_1, int h,
                        int half) {
    dual_rank rank = {.schedule = schedule, .at = at, .weighed = at, .stage = {stage_0, stage_1}};
    fill(&rank, h, half);
    steady(&rank, h, half, schedule->microbatches);
    drain(&rank, h, half);
    return rank.at;
}

/* Idle time (H-1)(F&B + (I+W) - 3W), with F&B = F+I+W, beside `work` of one rank. The steps fit
 * into each other when F = I; by simulation the formula holds for F = I >= W and for nothing wider.
 */
static double bubble(const pp_schedule_request *request, const pp_uniform *cost, double half,
                     double work) {
    if (!pp_family_uniform_domain(request, cost)) return NAN;
    if (!pp_same_time(cost->forward_s, cost->input_s)) return NAN;
    if (cost->weight_s > cost->forward_s) return NAN;
    double idle = (half - 1) * (cost->forward_s + 2 * cost->input_s - cost->weight_s);
    return pp_idle_share(work, idle);
}

/* ---- dualpipe ------------------------------------------------------------------------------ */

pp_status pp_dualpipe_validate(const pp_schedule_request *request, pp_error *error) {
    PP_TRY(pp_family_options(request, 0, error));
    if (request->ranks % 2 == 0 && request->microbatches % 2 == 0 &&
        request->microbatches / 2 >= request->ranks)
        return PP_OK;
    return pp_fail(error, PP_E_INPUT, "dualpipe",
                   "K and M must be even and M at least 2K; got K = %d, M = %d", request->ranks,
                   request->microbatches);
}

static size_t build_dual_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                              size_t at) {
    int ranks = request->ranks, half = ranks / 2, down = p, up = 2 * ranks - 1 - p;
    if (p < half) return put_steps(schedule, at, down, up, p, half);
    return put_steps(schedule, at, up, down, ranks - 1 - p, half);
}

void pp_dualpipe_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_dual_rank);
}

double pp_dualpipe_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    return bubble(request, cost, request->ranks / 2.0,
                  request->microbatches * pp_uniform_visit(cost));
}

/* ---- dualpipev ----------------------------------------------------------------------------- */

pp_status pp_dualpipev_validate(const pp_schedule_request *request, pp_error *error) {
    PP_TRY(pp_family_vshape(request, error));
    if (request->microbatches / 2 >= request->ranks) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "-M", "dualpipev needs M of at least 2K; got K = %d, M = %d",
                   request->ranks, request->microbatches);
}

static size_t build_arm_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                             size_t at) {
    return put_steps(schedule, at, p, 2 * request->ranks - 1 - p, p, request->ranks);
}

void pp_dualpipev_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_arm_rank);
}

double pp_dualpipev_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    return bubble(request, cost, request->ranks,
                  2.0 * request->microbatches * pp_uniform_visit(cost));
}
