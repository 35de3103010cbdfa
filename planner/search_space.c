/* Which combinations there are: ranks × replicas × microbatches × schedule × recomputation.
 *
 *   K   1 … the smaller of devices and layers; on more than 64 devices, divisors of their number
 *   dp  every D with K·D·tp devices at hand that divides the global batch
 *   M   every distinct number of microbatches: for a size b of a batch of B samples per replica it
 * is ceil(B / b). Of the sizes with equal M the smallest is taken: it spreads the samples most
 *       evenly, so neither its full microbatches nor its last one are larger than need be.
 *
 * A pin leaves one value. Pins that contradict each other, the batch, the model or the cluster are
 * refused here, each with the sentence that says which. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/planner_internal.h"

enum { EVERY_RANK_UP_TO = 64 };

/* ---- refusals ------------------------------------------------------------------------------ */

static pp_status check_counts(const pp_plan_request *request, pp_error *error) {
    const struct {
        const char *option;
        int64_t value;
    } counts[] = {{"--ranks", request->ranks},
                  {"--virtual", request->virtual_stages},
                  {"--microbatches", request->microbatches},
                  {"--dp", request->dp},
                  {"--tp", request->tp},
                  {"--microbatch-size", request->microbatch_size},
                  {"--memory", request->memory_bytes}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (counts[i].value < 0) {
            return pp_fail(error, PP_E_INPUT, counts[i].option,
                           "%lld is negative; expected 1 or more", (long long)counts[i].value);
        }
    }
    if (request->global_batch < 1) {
        return pp_fail(error, PP_E_INPUT, "--batch", "%lld samples; expected 1 or more",
                       (long long)request->global_batch);
    }
    if (request->zero != 0 && request->zero != 1) {
        return pp_fail(error, PP_E_INPUT, "--zero", "%d; expected 0 or 1", request->zero);
    }
    if (request->tp > 1) {
        return pp_fail(error, PP_E_UNSUPPORTED, "--tp",
                       "%d: the planner does not shard layers over devices yet; use --tp 1",
                       request->tp);
    }
    return PP_OK;
}

static pp_status check_names(const pp_plan_request *request, pp_error *error) {
    pp_recompute policy;
    if (request->recompute != NULL && !pp_recompute_from_name(request->recompute, &policy)) {
        char known[160] = "";
        size_t length = 0;
        for (int i = 0; i < PP_RECOMPUTE_COUNT && length < sizeof known; i++) {
            length += (size_t)snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "",
                                       pp_recompute_name((pp_recompute)i));
        }
        return pp_fail(error, PP_E_INPUT, "--recompute", "'%s' is not a policy; known are %s",
                       request->recompute, known);
    }
    if (request->schedule == NULL || pp_schedule_family_find(request->schedule) != NULL) {
        return PP_OK;
    }
    char known[512] = "";
    size_t length = 0;
    int count;
    const pp_schedule_family *families = pp_schedule_families(&count);
    for (int i = 0; i < count && length < sizeof known; i++) {
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "",
                                   families[i].name);
    }
    return pp_fail(error, PP_E_INPUT, "--schedule", "no schedule is called '%s'; known are %s",
                   request->schedule, known);
}

static pp_status check_devices(const pp_tables *tables, int devices, pp_error *error) {
    const pp_plan_request *request = tables->request;
    int ranks = request->ranks ? request->ranks : 1, dp = request->dp ? request->dp : 1;
    if (request->ranks > tables->layers) {
        return pp_fail(error, PP_E_INPUT, "--ranks",
                       "%d ranks, but %s has %d layers and each rank needs at least one",
                       request->ranks, tables->model->name, tables->layers);
    }
    if ((int64_t)ranks * dp > devices) {
        return pp_fail(error, PP_E_INPUT, request->ranks ? "--ranks" : "--dp",
                       "%d ranks times %d replicas are %lld devices, but %s has %d", ranks, dp,
                       (long long)ranks * dp, tables->cluster->name, devices);
    }
    return PP_OK;
}

/* Pins of the batch, given the replicas. */
static pp_status check_batch(const pp_plan_request *request, pp_error *error) {
    int64_t dp = request->dp ? request->dp : 1, batch = request->global_batch / dp;
    int64_t size = request->microbatch_size, count = request->microbatches;
    if (request->global_batch % dp != 0) {
        return pp_fail(error, PP_E_INPUT, "--dp", "%lld replicas do not divide --batch %lld evenly",
                       (long long)dp, (long long)request->global_batch);
    }
    if (size > batch) {
        return pp_fail(error, PP_E_INPUT, "--microbatch-size",
                       "%lld samples, but each replica has only %lld of --batch %lld",
                       (long long)size, (long long)batch, (long long)request->global_batch);
    }
    if (count > batch) {
        return pp_fail(error, PP_E_INPUT, "--microbatches",
                       "%lld microbatches, but each replica has only %lld samples of --batch %lld",
                       (long long)count, (long long)batch, (long long)request->global_batch);
    }
    return PP_OK;
}

static int64_t ceil_divide(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Every combination was ruled out by a pin: which one it was. */
static pp_status fail_empty(const pp_plan_request *request, const pp_error *last, pp_error *error) {
    if (last->code != PP_OK) {
        return pp_fail(error, last->code, last->place, "%s", last->message);
    }
    int64_t dp = request->dp ? request->dp : 1, batch = request->global_batch / dp;
    int64_t size = request->microbatch_size, count = request->microbatches;
    if (size > 0 && count > 0) {
        return pp_fail(
            error, PP_E_INPUT, "--microbatches",
            "%lld microbatches of %lld samples do not make the %lld samples of a replica: "
            "leave out one of --microbatches and --microbatch-size",
            (long long)count, (long long)size, (long long)batch);
    }
    if (count > 0) {
        int64_t whole = ceil_divide(batch, count);
        return pp_fail(error, PP_E_INPUT, "--microbatches",
                       "%lld samples per replica cannot be cut into %lld microbatches: with %lld "
                       "samples each there are %lld",
                       (long long)batch, (long long)count, (long long)whole,
                       (long long)ceil_divide(batch, whole));
    }
    return pp_fail(error, PP_E_INPUT, NULL,
                   "no combination of ranks, replicas, microbatches and schedule satisfies all the "
                   "pinned options; leave one out");
}

/* ---- listing ------------------------------------------------------------------------------- */

typedef struct lister {
    pp_space *space;
    pp_tables *tables;
    const pp_split_method *method;
    pp_error *error;
    pp_error refusal; /* the last that a family gave to the only schedule asked for */
} lister;

static pp_status append(pp_space *space, const pp_candidate *candidate, pp_error *error) {
    if (space->count == space->capacity) {
        size_t capacity = space->capacity ? 2 * space->capacity : 1024;
        void *grown = pp_reallocate(space->candidates, capacity * sizeof *space->candidates);
        if (grown == NULL) return pp_fail_memory(error);
        space->candidates = grown;
        space->capacity = capacity;
    }
    space->candidates[space->count++] = *candidate;
    return PP_OK;
}

static bool stages_possible(const lister *l, const pp_candidate *c) {
    int64_t stages = (int64_t)c->ranks * c->virtual_stages;
    if (stages > l->tables->layers || stages > PP_STAGES_MAX) return false;
    if (l->method->cuts != NULL && stages != l->method->cut_count + 1) return false;
    return stages * c->microbatches <= PP_ACTIONS_MAX / 4;
}

/* What a plan cannot describe yet: two copies of every stage, parts of a microbatch, updates while
 * others are still at work. */
static bool can_be_planned(lister *l, const pp_schedule_family *family) {
    bool two_chains = family->placement == PP_PLACE_BIDIRECTIONAL;
    if (!two_chains && !family->cuts_sequence && !family->async) return true;
    pp_fail(&l->refusal, PP_E_INPUT, "--schedule", "%s %s, which cannot be planned yet",
            family->name,
            two_chains      ? "runs two copies of the model in opposite directions"
            : family->async ? "updates weights without a flush"
                            : "cuts microbatches along the sequence");
    return false;
}

static bool family_accepts(lister *l, const pp_candidate *c) {
    pp_schedule_request request = {.name = c->family->name,
                                   .ranks = c->ranks,
                                   .microbatches = c->microbatches,
                                   .virtual_stages = c->virtual_stages,
                                   .recompute = c->recompute};
    if (!can_be_planned(l, c->family)) return false;
    if (c->family->validate == NULL) return true;
    return c->family->validate(&request, &l->refusal) == PP_OK;
}

/* All families of one recompute policy: a group. */
static pp_status list_families(lister *l, pp_candidate c) {
    const pp_plan_request *request = l->tables->request;
    int count;
    const pp_schedule_family *families = pp_schedule_families(&count);
    c.group = l->space->group_count++;
    for (int i = 0; i < count; i++) {
        c.family = &families[i];
        if (request->schedule != NULL && strcmp(families[i].name, request->schedule) != 0) continue;
        c.virtual_stages =
            request->virtual_stages ? request->virtual_stages : families[i].natural_virtual;
        if (!stages_possible(l, &c) || !family_accepts(l, &c)) continue;
        PP_TRY(append(l->space, &c, l->error));
    }
    return PP_OK;
}

static pp_status list_policies(lister *l, pp_candidate c) {
    const char *pinned = l->tables->request->recompute;
    for (int i = 0; i < PP_RECOMPUTE_COUNT; i++) {
        c.recompute = (pp_recompute)i;
        if (pinned != NULL && strcmp(pp_recompute_name(c.recompute), pinned) != 0) continue;
        /* With one microbatch, all but the last is none. */
        bool idle = c.recompute == PP_RECOMPUTE_EXCEPT_LAST && c.microbatches == 1;
        if (idle && pinned == NULL) continue;
        PP_TRY(list_families(l, c));
    }
    return PP_OK;
}

static double total_of(const pp_timing *timing) {
    return timing->forward_total_s + timing->input_total_s + timing->weight_total_s;
}

static pp_status list_size(lister *l, pp_candidate c, int64_t size) {
    const pp_plan_request *request = l->tables->request;
    int64_t batch = request->global_batch / c.dp, count = ceil_divide(batch, size);
    if (count > PP_MICROBATCHES_MAX) return PP_OK;
    if (request->microbatches && count != request->microbatches) return PP_OK;
    c.size = size;
    c.microbatches = (int)count;
    PP_TRY(pp_tables_timing(l->tables, size, &c.timing, l->error));
    int64_t rest = batch - (count - 1) * size;
    c.last_scale = 1;
    if (rest < size) {
        pp_timing *last;
        PP_TRY(pp_tables_timing(l->tables, rest, &last, l->error));
        if (total_of(c.timing) > 0) c.last_scale = total_of(last) / total_of(c.timing);
    }
    return list_policies(l, c);
}

/* Sizes from the whole batch down to one sample, the smallest for each M. */
static pp_status list_sizes(lister *l, pp_candidate c) {
    const pp_plan_request *request = l->tables->request;
    int64_t batch = request->global_batch / c.dp;
    if (request->microbatch_size) return list_size(l, c, request->microbatch_size);
    if (request->microbatches) return list_size(l, c, ceil_divide(batch, request->microbatches));
    for (int64_t size = batch;; size = ceil_divide(batch, ceil_divide(batch, size - 1))) {
        PP_TRY(list_size(l, c, size));
        if (size == 1) return PP_OK;
    }
}

static pp_status list_replicas(lister *l, pp_candidate c) {
    const pp_plan_request *request = l->tables->request;
    int devices = l->space->devices;
    for (c.dp = 1; c.dp <= devices / c.ranks; c.dp++) {
        if (request->dp ? c.dp != request->dp : devices > EVERY_RANK_UP_TO && devices % c.dp != 0) {
            continue;
        }
        if (request->global_batch % c.dp != 0) continue;
        PP_TRY(list_sizes(l, c));
    }
    return PP_OK;
}

pp_status pp_space_init(pp_space *space, pp_tables *tables, const pp_split_method *method,
                        pp_error *error) {
    const pp_plan_request *request = tables->request;
    *space = (pp_space){.devices = pp_cluster_device_count(tables->cluster)};
    PP_TRY(check_counts(request, error));
    PP_TRY(check_names(request, error));
    PP_TRY(check_devices(tables, space->devices, error));
    PP_TRY(check_batch(request, error));
    lister l = {.space = space, .tables = tables, .method = method, .error = error};
    int most = space->devices < tables->layers ? space->devices : tables->layers;
    for (int ranks = 1; ranks <= most; ranks++) {
        if (request->ranks ? ranks != request->ranks
                           : space->devices > EVERY_RANK_UP_TO && space->devices % ranks != 0) {
            continue;
        }
        PP_TRY(list_replicas(&l, (pp_candidate){.ranks = ranks}));
    }
    return space->count > 0 ? PP_OK : fail_empty(request, &l.refusal, error);
}

void pp_space_deinit(pp_space *space) {
    pp_free(space->candidates);
    *space = (pp_space){0};
}
