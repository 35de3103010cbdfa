/* From a plan to the actions that its ranks perform: the order of its schedule, R where its stages
 * recompute, and at each rank's end the gradient reductions and optimizer steps. Where reductions
 * run beside compute, each comes as soon as its gradients are final.
 *
 * Simulator and executor both expand the plan themselves and compare the hash of the result with
 * the one in the plan, so that what runs is what was simulated. */
#include "sim/engine_internal.h"

#include <string.h>

/* What a copy of a schedule gets besides its own actions. */
typedef struct additions {
    const pp_recompute *recompute; /* [stages]; NULL: no R actions */
    const bool *reduce;            /* [stages] REDUCE_GRAD at the end of the rank; NULL: none */
    const bool *step;              /* [stages] STEP behind those; NULL: none */
    const size_t *last_use;        /* [stages] index of the last compute action: REDUCE_GRAD comes
                                      right behind it, and STEPs in the same order; NULL: not so */
} additions;

/* ---- copying with additions ---------------------------------------------------------------- */

static bool recomputed(const pp_schedule *schedule, const additions *add, pp_action action) {
    if (action.kind != PP_BACKWARD && action.kind != PP_INPUT) return false;
    return add->recompute && pp_recompute_applies(add->recompute[action.stage],
                                                  (int)action.microbatch, schedule->microbatches);
}

static size_t put_recompute(const pp_schedule *schedule, const additions *add, pp_action before,
                            pp_action *to, size_t at) {
    if (!recomputed(schedule, add, before)) return at;
    if (to) {
        to[at] = before;
        to[at].kind = PP_RECOMPUTE;
        to[at].overlapped = 0;
    }
    return at + 1;
}

static size_t put_update(pp_action_kind kind, int stage, pp_action *to, size_t at) {
    if (to)
        to[at] = (pp_action){.kind = (uint8_t)((unsigned)kind & 0x7fu),
                             .stage = (uint16_t)stage,
                             .microbatch = PP_NO_MICROBATCH};
    return at + 1;
}

/* The updates of stages in `wanted` whose last compute action is at `index`. */
static size_t put_behind(const pp_schedule *schedule, const additions *add, const bool *wanted,
                         pp_action_kind kind, size_t index, pp_action *to, size_t at) {
    int stage = schedule->actions[index].stage;
    if (!wanted || !add->last_use || add->last_use[stage] != index || !wanted[stage]) return at;
    return put_update(kind, stage, to, at);
}

/* The actions of one rank with the R actions put in. A pair of OVERLAP_F_B stays together: what its
 * parts recompute comes before both. to may be NULL, to count. Returns the place behind. */
static size_t copy_rank(const pp_schedule *schedule, const additions *add, int p, pp_action *to,
                        size_t at) {
    const pp_action *from = schedule->actions;
    size_t end = schedule->first_action[p + 1];
    for (size_t i = schedule->first_action[p]; i < end;) {
        size_t length = from[i].overlapped && i + 1 < end ? 2 : 1;
        for (size_t part = 0; part < length; part++)
            at = put_recompute(schedule, add, from[i + part], to, at);
        if (to) memcpy(to + at, from + i, length * sizeof *from);
        at += length;
        for (size_t part = 0; part < length; part++)
            at = put_behind(schedule, add, add->reduce, PP_REDUCE_GRAD, i + part, to, at);
        i += length;
    }
    return at;
}

/* The i-th stage, each followed by its copies in other chains: two ranks that hold copies of the
 * same stages reduce them in the same order. */
static int stage_in_turn(const pp_schedule *schedule, int i) {
    int chains = schedule->chain_count;
    return i / chains + i % chains * (schedule->stages / chains);
}

static size_t put_tail(const pp_schedule *schedule, const bool *wanted, pp_action_kind kind, int p,
                       pp_action *to, size_t at) {
    for (int i = 0; wanted && i < schedule->stages; i++) {
        int s = stage_in_turn(schedule, i);
        if (wanted[s] && schedule->placement[s] == p) at = put_update(kind, s, to, at);
    }
    return at;
}

static size_t write_rank(const pp_schedule *schedule, const additions *add, int p, pp_action *to,
                         size_t at) {
    at = copy_rank(schedule, add, p, to, at);
    if (!add->last_use) {
        at = put_tail(schedule, add->reduce, PP_REDUCE_GRAD, p, to, at);
        return put_tail(schedule, add->step, PP_STEP, p, to, at);
    }
    for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++)
        at = put_behind(schedule, add, add->step, PP_STEP, i, to, at);
    return at;
}

static pp_status copy_shape(const pp_schedule *from, pp_schedule *to, pp_error *error) {
    memcpy(to->name, from->name, sizeof to->name);
    to->virtual_stages = from->virtual_stages;
    to->slices = from->slices;
    to->has_transfers = from->has_transfers;
    memcpy(to->placement, from->placement, (size_t)from->stages * sizeof *to->placement);
    to->chains = PP_NEW(&to->arena, pp_chain, from->chain_count);
    if (!to->chains) return pp_fail_memory(error);
    memcpy(to->chains, from->chains, (size_t)from->chain_count * sizeof *to->chains);
    to->chain_count = from->chain_count;
    return PP_OK;
}

static pp_status copy_with(const pp_schedule *schedule, const additions *add, pp_schedule **with,
                           pp_error *error) {
    size_t count = 0;
    for (int p = 0; p < schedule->ranks; p++) count = write_rank(schedule, add, p, NULL, count);
    if (count > PP_ACTIONS_MAX)
        return pp_fail(error, PP_E_INPUT, schedule->name, "%zu actions, the limit is %d", count,
                       PP_ACTIONS_MAX);
    pp_schedule *made;
    PP_TRY(pp_schedule_new(schedule->ranks, schedule->stages, schedule->microbatches, count, &made,
                           error));
    pp_status status = copy_shape(schedule, made, error);
    if (status != PP_OK) {
        pp_schedule_free(made);
        return status;
    }
    size_t at = 0;
    for (int p = 0; p < schedule->ranks; p++) {
        made->first_action[p] = at;
        at = write_rank(schedule, add, p, made->actions, at);
    }
    made->first_action[schedule->ranks] = at;
    *with = made;
    return PP_OK;
}

static bool contains(const pp_schedule *schedule, pp_action_kind kind) {
    size_t count = schedule->first_action[schedule->ranks];
    for (size_t i = 0; i < count; i++)
        if (schedule->actions[i].kind == kind) return true;
    return false;
}

pp_status pp_schedule_add_recompute(const pp_schedule *schedule, pp_recompute policy,
                                    pp_schedule **with, pp_error *error) {
    *with = NULL;
    if (contains(schedule, PP_RECOMPUTE))
        return pp_fail(error, PP_E_INPUT, schedule->name,
                       "the schedule already has R actions; use one without them");
    pp_recompute *policies = pp_allocate((size_t)schedule->stages * sizeof *policies);
    if (!policies) return pp_fail_memory(error);
    for (int s = 0; s < schedule->stages; s++) policies[s] = policy;
    pp_status status = copy_with(schedule, &(additions){.recompute = policies}, with, error);
    pp_free(policies);
    return status;
}

/* ---- stages that reduce together ------------------------------------------------------------- */

static const pp_layer *layer_at(const pp_plan *plan, int position) {
    return &plan->model->layers[plan->order[position]];
}

/* In the first chain. */
static int stage_of_position(const pp_plan *plan, int position) {
    int s = 0, last = plan->stage_count / plan->chains - 1;
    while (s < last && position > plan->stages[s].last) s++;
    return s;
}

static void merge_groups(int *group, int stages, int a, int b) {
    int low = group[a] < group[b] ? group[a] : group[b];
    int high = group[a] < group[b] ? group[b] : group[a];
    for (int s = 0; s < stages; s++)
        if (group[s] == high) group[s] = low;
}

/* group[s]: the lowest stage that s shares weights with, directly or through others; its own number
 * when with none. tied[s]: a layer of s has a partner, in s or elsewhere. */
static void find_ties(const pp_plan *plan, int *group, bool *tied) {
    for (int s = 0; s < plan->stage_count; s++) group[s] = s, tied[s] = false;
    int layers = plan->model->layer_count;
    for (int a = 0; a < layers; a++) {
        const char *tie = layer_at(plan, a)->tie;
        for (int b = a + 1; tie && b < layers; b++) {
            const char *other = layer_at(plan, b)->tie;
            if (!other || strcmp(tie, other) != 0) continue;
            int first = stage_of_position(plan, a), second = stage_of_position(plan, b);
            tied[first] = tied[second] = true;
            merge_groups(group, plan->stage_count, first, second);
        }
    }
}

void pp_plan_join_copies(const pp_plan *plan, int *group) {
    int stages = plan->stage_count, each = stages / plan->chains;
    for (int s = each; s < stages; s++) {
        merge_groups(group, stages, s - each, s);
        for (int other = 0; other < each && plan->reduce_buckets == 0; other++)
            if (plan->placement[other] == plan->placement[s]) merge_groups(group, stages, other, s);
    }
}

pp_status pp_plan_reduce_groups(const pp_plan *plan, int *group, pp_error *error) {
    bool *tied = pp_allocate((size_t)plan->stage_count * sizeof *tied);
    if (!tied) return pp_fail_memory(error);
    find_ties(plan, group, tied);
    pp_plan_join_copies(plan, group);
    pp_free(tied);
    return PP_OK;
}

/* ---- plans --------------------------------------------------------------------------------- */

static pp_status read_file_order(const pp_plan *plan, pp_schedule **order, pp_error *error) {
    if (!plan->schedule_csv)
        return pp_fail(error, PP_E_INPUT, "/schedule", "the plan has no schedule attached");
    pp_schedule *read;
    PP_TRY(pp_schedule_read_csv(plan->schedule_csv, strlen(plan->schedule_csv),
                                "the plan's schedule", &read, error));
    if (!read->has_transfers) {
        *order = read;
        return PP_OK;
    }
    pp_status status = pp_schedule_drop_transfers(read, order, error);
    pp_schedule_free(read);
    return status;
}

static pp_status base_order(const pp_plan *plan, pp_schedule **order, pp_error *error) {
    if (plan->schedule_csv || strcmp(plan->schedule, "file") == 0)
        return read_file_order(plan, order, error);
    const pp_schedule_family *family = pp_schedule_family_find(plan->schedule);
    bool sliced = plan->slices > 1 || (family && family->cuts_sequence);
    pp_schedule_request request = {.name = plan->schedule,
                                   .ranks = plan->ranks,
                                   .microbatches = plan->microbatches,
                                   .virtual_stages = plan->virtual_stages,
                                   .slices = sliced ? plan->slices : 0};
    return pp_schedule_build(&request, order, error);
}

static pp_status match_plan(const pp_plan *plan, const pp_schedule *order, pp_error *error) {
    int64_t microbatches = pp_schedule_all_microbatches(order);
    if (order->ranks != plan->ranks || order->stages != plan->stage_count ||
        microbatches != plan->microbatches)
        return pp_fail(error, PP_E_INPUT, "/schedule",
                       "the schedule has %d ranks, %d stages and %lld microbatches, but the plan "
                       "has %d, %d and %d",
                       order->ranks, order->stages, (long long)microbatches, plan->ranks,
                       plan->stage_count, plan->microbatches);
    if (order->chain_count != plan->chains)
        return pp_fail(error, PP_E_INPUT, "/chains",
                       "the schedule sends microbatches through %d chain%s of stages, but the plan "
                       "has %d",
                       order->chain_count, order->chain_count == 1 ? "" : "s", plan->chains);
    for (int s = 0; s < plan->stage_count; s++)
        if (order->placement[s] != plan->placement[s])
            return pp_fail(error, PP_E_INPUT, "/placement",
                           "the schedule has stage %d on rank %d, but the plan puts it on rank %d",
                           s, order->placement[s], plan->placement[s]);
    return PP_OK;
}

/* Leaves out what a file's own actions already do. */
static void drop_present(const pp_schedule *order, bool *reduce, bool *step) {
    size_t count = order->first_action[order->ranks];
    for (size_t i = 0; i < count; i++) {
        pp_action action = order->actions[i];
        if (action.kind == PP_REDUCE_GRAD) reduce[action.stage] = false;
        if (action.kind == PP_STEP) step[action.stage] = false;
    }
}

static void find_last_uses(const pp_schedule *order, size_t *last_use) {
    for (int s = 0; s < order->stages; s++) last_use[s] = PP_NO_INDEX;
    for (size_t i = 0; i < order->first_action[order->ranks]; i++)
        if (pp_action_is_compute(order->actions[i])) last_use[order->actions[i].stage] = i;
}

static pp_status complete_order(const pp_plan *plan, const pp_schedule *order,
                                pp_schedule **schedule, pp_error *error) {
    int stages = plan->stage_count;
    pp_status status = PP_OK;
    pp_arena work;
    pp_arena_init(&work);
    pp_recompute *recompute = PP_NEW(&work, pp_recompute, stages);
    bool *reduce = PP_NEW(&work, bool, stages);
    bool *step = PP_NEW(&work, bool, stages);
    int *group = PP_NEW(&work, int, stages);
    size_t *last_use = PP_NEW(&work, size_t, stages);
    if (work.failed) {
        status = pp_fail_memory(error);
        goto out;
    }
    find_ties(plan, group, reduce);
    for (int s = 0; s < stages; s++) {
        recompute[s] = plan->stages[s].recompute;
        reduce[s] = reduce[s] || plan->dp > 1 || plan->chains > 1 || plan->stages[s].reduce_s > 0;
        step[s] = true;
    }
    drop_present(order, reduce, step);
    find_last_uses(order, last_use);
    additions add = {.recompute = contains(order, PP_RECOMPUTE) ? NULL : recompute,
                     .reduce = reduce,
                     .step = step,
                     .last_use = plan->reduce_buckets > 0 ? last_use : NULL};
    status = copy_with(order, &add, schedule, error);
out:
    pp_arena_deinit(&work);
    return status;
}

static pp_status check_hash(const pp_plan *plan, const pp_schedule *schedule, pp_error *error) {
    if (plan->schedule_hash == 0) return PP_OK;
    uint64_t hash = pp_schedule_hash(schedule);
    if (hash == plan->schedule_hash) return PP_OK;
    return pp_fail(
        error, PP_E_INPUT, "/schedule_hash",
        "the plan's schedule expands to actions with hash %016llx, but the plan was made "
        "with %016llx: it was edited or made by another version; plan again",
        (unsigned long long)hash, (unsigned long long)plan->schedule_hash);
}

pp_status pp_plan_expand(const pp_plan *plan, pp_schedule **schedule, pp_error *error) {
    *schedule = NULL;
    pp_schedule *order = NULL, *complete = NULL;
    pp_status status = base_order(plan, &order, error);
    if (status == PP_OK) status = match_plan(plan, order, error);
    if (status == PP_OK) status = complete_order(plan, order, &complete, error);
    if (status == PP_OK) status = check_hash(plan, complete, error);
    if (status == PP_OK) {
        *schedule = complete;
        complete = NULL;
    }
    pp_schedule_free(complete);
    pp_schedule_free(order);
    return status;
}
