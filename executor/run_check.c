/* What a run refuses, before it starts: one sentence each, with what to do instead. */
#include "executor/run_internal.h"

#include <stdio.h>

static pp_status check_precision(const pp_plan *plan, const pp_backend *backend, pp_error *error) {
    char known[64] = "";
    size_t length = 0;
    if (!backend->runs_layers || backend->layer(PP_OP_LINEAR, plan->dtype)) return PP_OK;
    for (int i = 0; i < PP_DTYPE_COUNT; i++)
        if (backend->layer(PP_OP_LINEAR, (pp_dtype)i))
            length += (size_t)snprintf(known + length, sizeof known - length, "%s%s",
                                       length ? " and " : "", pp_dtype_name((pp_dtype)i));
    return pp_fail(error, PP_E_UNSUPPORTED, NULL,
                   "the %s backend computes in %s, not %s: plan again with --dtype fp32",
                   backend->name, known, pp_dtype_name(plan->dtype));
}

static pp_status check_parallelism(const pp_plan *plan, pp_error *error) {
    if (plan->tp > 1)
        return pp_fail(error, PP_E_UNSUPPORTED, NULL,
                       "run cannot split layers over devices yet (tp = %d): plan again with --tp 1",
                       plan->tp);
    if (plan->reduce_buckets > 0)
        return pp_fail(
            error, PP_E_UNSUPPORTED, NULL,
            "run cannot reduce gradients beside compute yet: leave reduce_buckets out of "
            "the plan, or plan without overlapping reductions");
    if (plan->load_s > 0)
        return pp_fail(
            error, PP_E_UNSUPPORTED, NULL,
            "run does not wait for data as the plan's load_s says: leave load_s out of it");
    if (plan->global_batch % plan->dp)
        return pp_fail(
            error, PP_E_UNSUPPORTED, NULL,
            "a global batch of %lld does not divide among %d replicas; choose a multiple",
            (long long)plan->global_batch, plan->dp);
    return PP_OK;
}

static pp_status check_batch(const pp_plan *plan, pp_error *error) {
    int64_t last = pp_plan_samples(plan, plan->microbatches - 1);
    if (last >= 1 && last <= plan->microbatch_size) return PP_OK;
    return pp_fail(error, PP_E_INPUT, NULL,
                   "%d microbatches of %lld samples do not make a batch of %lld on each of %d "
                   "replicas: plan again",
                   plan->microbatches, (long long)plan->microbatch_size,
                   (long long)(plan->global_batch / plan->dp), plan->dp);
}

static pp_status check_layers(const pp_plan *plan, const pp_backend *backend, pp_error *error) {
    if (!backend->runs_layers) return PP_OK;
    for (int i = 0; i < plan->model->layer_count; i++)
        if (plan->model->layers[i].op == PP_OP_OPAQUE)
            return pp_fail(error, PP_E_UNSUPPORTED, NULL,
                           "layer \"%s\" is opaque: its times are known but not its arithmetic, so "
                           "it runs with --backend replay only",
                           plan->model->layers[i].name);
    return PP_OK;
}

static pp_status check_shape(const pp_plan *plan, const pp_schedule *schedule, pp_error *error) {
    if (schedule->slices > 1)
        return pp_fail(error, PP_E_UNSUPPORTED, NULL,
                       "run cannot cut microbatches along the sequence yet: choose a schedule "
                       "without slices, such as 1f1b");
    int64_t microbatches = pp_schedule_all_microbatches(schedule);
    if (schedule->ranks != plan->ranks || schedule->stages != plan->stage_count ||
        schedule->chain_count != plan->chains || microbatches != plan->microbatches)
        return pp_fail(
            error, PP_E_INPUT, NULL,
            "the schedule is for %d ranks, %d stages in %d chains and %lld microbatches; "
            "the plan has %d, %d in %d and %d",
            schedule->ranks, schedule->stages, schedule->chain_count, (long long)microbatches,
            plan->ranks, plan->stage_count, plan->chains, plan->microbatches);
    for (int s = 0; s < plan->stage_count; s++)
        if (schedule->placement[s] != plan->placement[s])
            return pp_fail(error, PP_E_INPUT, NULL,
                           "the schedule puts stage %d on rank %d, the plan on rank %d", s,
                           schedule->placement[s], plan->placement[s]);
    return PP_OK;
}

pp_status pp_run_check(const pp_plan *plan, const pp_schedule *schedule, const pp_backend *backend,
                       pp_error *error) {
    PP_TRY(check_precision(plan, backend, error));
    PP_TRY(check_parallelism(plan, error));
    PP_TRY(check_layers(plan, backend, error));
    PP_TRY(check_shape(plan, schedule, error));
    PP_TRY(check_batch(plan, error));
    return pp_schedule_check(schedule, false, NULL, error);
}

/* ---- updates ------------------------------------------------------------------------------- */

static size_t count_of(const pp_schedule *schedule, pp_action_kind kind, int stage) {
    size_t count = 0, end = schedule->first_action[schedule->ranks];
    for (size_t i = 0; i < end; i++)
        count += schedule->actions[i].kind == kind && schedule->actions[i].stage == stage;
    return count;
}

/* A rank goes through all its reductions in one order; if it had work left that others wait for,
 * they could wait for each other in a circle. */
static pp_status check_reductions_last(const pp_schedule *schedule, pp_error *error) {
    for (int p = 0; p < schedule->ranks; p++) {
        bool reducing = false;
        for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++) {
            pp_action action = schedule->actions[i];
            reducing |= action.kind == PP_REDUCE_GRAD || action.kind == PP_STEP;
            if (!reducing || !pp_action_is_compute(action)) continue;
            char text[32];
            return pp_fail(
                error, PP_E_UNSUPPORTED, NULL,
                "rank %d has %s after a REDUCE_GRAD or STEP: put those at the end of the "
                "rank's row",
                p, pp_action_text(action, text));
        }
    }
    return PP_OK;
}

/* Not PP_OK where something of the rank comes after a STEP. */
static pp_status check_steps_last(const pp_schedule *schedule, int rank, pp_error *error) {
    bool stepped = false;
    for (size_t i = schedule->first_action[rank]; i < schedule->first_action[rank + 1]; i++) {
        pp_action action = schedule->actions[i];
        char text[32];
        if (stepped && (action.kind == PP_REDUCE_GRAD || pp_action_is_compute(action)))
            return pp_fail(error, PP_E_UNSUPPORTED, "--clip",
                           "rank %d has %s after a STEP, but the norm is known only when every "
                           "gradient is complete: leave --clip out, or put all STEPs last",
                           rank, pp_action_text(action, text));
        stepped |= action.kind == PP_STEP;
    }
    if (stepped) return PP_OK;
    return pp_fail(error, PP_E_UNSUPPORTED, "--clip",
                   "rank %d has no STEP before which to clip: expand the schedule from a plan",
                   rank);
}

pp_status pp_run_check_clip(const pp_schedule *schedule, pp_error *error) {
    for (int p = 0; p < schedule->ranks; p++) PP_TRY(check_steps_last(schedule, p, error));
    return PP_OK;
}

pp_status pp_run_check_updates(const pp_schedule *schedule, const pp_reduce *reduce,
                               pp_error *error) {
    PP_TRY(check_reductions_last(schedule, error));
    for (int s = 0; s < schedule->stages; s++) {
        if (count_of(schedule, PP_STEP, s) != 1)
            return pp_fail(error, PP_E_INPUT, NULL,
                           "the schedule must have STEP of stage %d once: expand it from a plan",
                           s);
        size_t wanted = pp_reduce_last_of(reduce, s) >= 0 ? 1 : 0;
        if (count_of(schedule, PP_REDUCE_GRAD, s) < wanted)
            return pp_fail(error, PP_E_INPUT, NULL,
                           "stage %d shares weights with others, but the schedule lacks its "
                           "REDUCE_GRAD: expand it from a plan",
                           s);
    }
    return PP_OK;
}
