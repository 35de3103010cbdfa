/* Gradient reductions: when they may start, what they hold up, and what of them a step pays.
 *
 * Blocking (input.reduce_buckets 0): REDUCE_GRAD keeps its rank busy for all of reduce_s, and waits
 * until every stage of its group has ended its last backward.
 *
 * Beside compute: REDUCE_GRAD keeps its rank for the arithmetic alone and sets the transfer off,
 * which holds up nothing but the stage's STEP, or else the end of the step. Two kinds of transfer:
 *
 *   over replicas     in n buckets. Gradients become final one after the other during the stage's
 *                     last backward, so bucket i < n-1 is ready at the part (i+1)/n of it, as hooks
 *                     of data-parallel wrappers send them (Li et al., "PyTorch Distributed", VLDB
 *                     2020, 3.2.3); the last one at REDUCE_GRAD. A bucket takes
 *                     latency + (whole - latency)/n, and those of a rank follow each other.
 *   of tied weights   once all stages of the group have ended their last backward; on links of its
 *                     own.
 *
 * What an overlapped pair makes appears at its end, so nothing is sent during it. */
#include "sim/engine_internal.h"

#include <math.h>

pp_reduction *pp_run_reduction(const pp_run *run, int stage) {
    return run->reduction ? &run->reduction[run->input->reduce_group[stage]] : NULL;
}

static bool beside(const pp_run *run) {
    return run->input->reduce_buckets > 0;
}

static pp_action reduction_of(int stage) {
    return (pp_action){
        .kind = PP_REDUCE_GRAD & 0x7fu, .stage = (uint16_t)stage, .microbatch = PP_NO_MICROBATCH};
}

/* What transfers beside compute take of their given time: where durations are drawn, as much as
 * their REDUCE_GRAD. */
static double drawn(const pp_run *run, int stage, double given_s) {
    bool varies = pp_durations_vary(run->input);
    return varies ? given_s * pp_draw_factor(run->input, reduction_of(stage)) : given_s;
}

static double tie_transfer_s(const pp_run *run, int stage) {
    return drawn(run, stage, run->input->stage[stage].tie_transfer_s);
}

/* ---- setting up ---------------------------------------------------------------------------- */

static pp_status make_groups(pp_run *run, pp_error *error) {
    int stages = run->schedule->stages;
    run->reduction = PP_NEW(run->arena, pp_reduction, stages);
    run->next_waiting = PP_NEW(run->arena, int32_t, run->schedule->ranks);
    if (run->arena->failed) return pp_fail_memory(error);
    for (int s = 0; s < stages; s++) run->reduction[s].waiting = -1;
    for (int s = 0; s < stages; s++)
        if (run->stage_order[s].last_use != PP_NO_INDEX) pp_run_reduction(run, s)->pending++;
    for (int s = 0; s < stages && !beside(run); s++) /* alone: its own rank's order is enough */
        if (run->reduction[s].pending == 1) run->reduction[s].pending = 0;
    return PP_OK;
}

pp_status pp_reductions_make(pp_run *run, pp_error *error) {
    if (run->input->reduce_group) PP_TRY(make_groups(run, error));
    if (!beside(run)) return PP_OK;
    run->sent = PP_NEW(run->arena, pp_sent_gradient, run->schedule->stages);
    run->reduce_free_s = PP_NEW(run->arena, double, run->schedule->ranks);
    return run->arena->failed ? pp_fail_memory(error) : PP_OK;
}

bool pp_reduction_observes(const pp_run *run, int stage) {
    if (beside(run) && run->stage_order[stage].reduces) return true;
    return run->reduction && pp_run_reduction(run, stage)->pending > 0;
}

/* ---- the last backward of a stage ------------------------------------------------------------ */

static bool sends_meanwhile(const pp_run *run, int rank, size_t index) {
    const pp_action *action = &run->schedule->actions[index];
    bool second = index > run->schedule->first_action[rank] && action[-1].overlapped;
    return !action->overlapped && !second &&
           (action->kind == PP_BACKWARD || action->kind == PP_WEIGHT);
}

int32_t pp_reduction_end_stage(pp_run *run, int rank, size_t index, double start_s, double end_s) {
    int stage = run->schedule->actions[index].stage;
    if (beside(run)) {
        run->sent[stage].begun_s = sends_meanwhile(run, rank, index) ? start_s : end_s;
        run->sent[stage].ended_s = end_s;
    }
    pp_reduction *reduction = pp_run_reduction(run, stage);
    if (!reduction) return -1;
    if (end_s > reduction->ready_s) reduction->ready_s = end_s;
    if (--reduction->pending > 0) return -1;
    int32_t woken = reduction->waiting;
    reduction->waiting = -1;
    return woken;
}

/* ---- REDUCE_GRAD and STEP -------------------------------------------------------------------- */

/* False: members of the group are not done; the rank is among those that wait for them. */
static bool group_ready(pp_run *run, int rank, int stage, double *ready_s) {
    pp_reduction *reduction = pp_run_reduction(run, stage);
    if (!reduction) return true;
    if (reduction->pending > 0) {
        run->next_waiting[rank] = reduction->waiting;
        reduction->waiting = rank;
        return false;
    }
    *ready_s = fmax(*ready_s, reduction->ready_s);
    return true;
}

/* The end of the transfers that the stage has set off. False: not known yet. */
static bool transfers_end(pp_run *run, int rank, int stage, double *end_s) {
    const pp_sent_gradient *sent = &run->sent[stage];
    double tie_s = tie_transfer_s(run, stage), ready_s = sent->ended_s;
    if (!sent->off) return true;
    if (tie_s > 0) {
        if (!group_ready(run, rank, stage, &ready_s)) return false;
        *end_s = fmax(*end_s, ready_s + tie_s);
    }
    *end_s = fmax(*end_s, sent->done_s);
    return true;
}

bool pp_update_ready(pp_run *run, int rank, pp_action action, double *start_s) {
    if (action.kind == PP_REDUCE_GRAD && !beside(run))
        return group_ready(run, rank, action.stage, start_s);
    if (action.kind == PP_STEP && beside(run))
        return transfers_end(run, rank, action.stage, start_s);
    return true;
}

void pp_reduction_set_off(pp_run *run, int rank, pp_action action, double start_s) {
    if (action.kind != PP_REDUCE_GRAD || !beside(run)) return;
    const pp_stage_cost *cost = &run->input->stage[action.stage];
    pp_sent_gradient *sent = &run->sent[action.stage];
    int buckets = run->input->reduce_buckets;
    double each_s = drawn(run, action.stage, pp_bucket_duration(run->input, action.stage));
    double *free_s = &run->reduce_free_s[rank], begin_s = start_s;
    sent->off = true;
    sent->done_s = start_s;
    if (cost->reduce_transfer_s <= 0) return;
    for (int i = 1; i <= buckets; i++) {
        double part_s = (sent->ended_s - sent->begun_s) * i / buckets;
        double ready_s = i < buckets ? sent->begun_s + part_s : start_s;
        double sent_s = fmax(*free_s, ready_s);
        if (i == 1) begin_s = sent_s;
        *free_s = sent_s + each_s;
    }
    sent->done_s = *free_s;
    if (run->transfers) pp_run_keep_transfer(run, action, begin_s, sent->done_s);
}

void pp_reductions_finish(pp_run *run) {
    for (int s = 0; beside(run) && s < run->schedule->stages; s++) {
        int rank = run->schedule->placement[s];
        double tie_s = tie_transfer_s(run, s), end_s = 0;
        transfers_end(run, rank, s, &end_s);
        run->times[rank].last_end_s = fmax(run->times[rank].last_end_s, end_s);
        if (!run->transfers || !run->sent[s].off || tie_s <= 0) continue;
        double ready_s = run->sent[s].ended_s;
        group_ready(run, rank, s, &ready_s);
        pp_run_keep_transfer(run, reduction_of(s), ready_s, ready_s + tie_s);
    }
}
