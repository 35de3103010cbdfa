/* Which combinations there are: ranks × devices of a layer × replicas × sharded optimizer state ×
 * microbatches × recomputation × schedule × virtual stages.
 *
 *   K   1 … the smaller of devices and layers; on more than 64 devices, divisors of their number
 *   tp  every width that divides the nodes' numbers of devices, so that no group of devices lies on
 *       two nodes, and that divides the layers (pp_model_can_shard). A pin may be any that does
 *   dp  every D with K·D·tp devices at hand that divides the global batch
 *   M   every distinct number of microbatches: for a size b of a batch of B samples per replica it
 * is ceil(B / b). Of the sizes with equal M the smallest is taken: it spreads the samples most
 *       evenly, so neither its full microbatches nor its last one are larger than need be.
 *   ZeRO  with D > 1 only 1: the optimizer's step is at most as long and its state smaller, all
 *       else equal, so nothing faster or leaner is missed. Whether 0 serves as well is asked of
 *       the result (search.c), since that is what `run` executes
 *   Q   slices along the sequence: 1, or 2, 4, 8 and 16 where the schedule asked for cuts it
 *   V   the schedule's natural number and, by its own step, more up to 8 while there are layers
 *
 * A pin leaves one value. Pins that contradict each other, the batch, the model or the cluster are
 * refused here, each with the sentence that says which. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/planner_internal.h"

enum { EVERY_RANK_UP_TO = 64, VIRTUAL_MAX = 8 };

/* ---- refusals ------------------------------------------------------------------------------ */

/* The plural. */
static const char *s_of(int64_t count) {
    return count == 1 ? "" : "s";
}

static pp_status check_counts(const pp_plan_request *request, pp_error *error) {
    const struct {
        const char *option;
        int64_t value;
    } counts[] = {{"--ranks", request->ranks},
                  {"--virtual", request->virtual_stages},
                  {"--microbatches", request->microbatches},
                  {"--dp", request->dp},
                  {"--tp", request->tp},
                  {"--slices", request->slices},
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
    if (request->zero != 0 && request->zero != 1 && request->zero != PP_ZERO_SEARCH) {
        return pp_fail(error, PP_E_INPUT, "--zero", "%d; expected 0 or 1", request->zero);
    }
    return PP_OK;
}

static pp_status check_names(const pp_plan_request *request, pp_error *error) {
    pp_recompute policy;
    if (request->recompute != NULL && !pp_recompute_from_name(request->recompute, &policy)) {
        return pp_fail(error, PP_E_INPUT, "--recompute", "'%s' is not a policy; known are %s",
                       request->recompute, pp_recompute_names);
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
    return pp_fail(error, PP_E_INPUT, "--schedule",
                   "no schedule is called '%s'; known are %s, auto", request->schedule, known);
}

static pp_status check_devices(const pp_tables *tables, int devices, pp_error *error) {
    const pp_plan_request *request = tables->request;
    int ranks = request->ranks ? request->ranks : 1, dp = request->dp ? request->dp : 1;
    int tp = request->tp ? request->tp : 1;
    if (request->ranks > tables->layers) {
        return pp_fail(error, PP_E_INPUT, "--ranks",
                       "%d ranks, but %s has %d layers and each rank needs at least one",
                       request->ranks, tables->model->name, tables->layers);
    }
    double wanted = (double)ranks * dp * tp;
    if (wanted > devices) {
        char width[64] = "";
        if (tp > 1) snprintf(width, sizeof width, " times tp %d", tp);
        const char *option = request->ranks ? "--ranks" : request->dp ? "--dp" : "--tp";
        return pp_fail(error, PP_E_INPUT, option,
                       "%d rank%s times %d replica%s%s %s %.0f device%s, but %s has %d", ranks,
                       s_of(ranks), dp, s_of(dp), width, wanted == 1 ? "is" : "are", wanted,
                       wanted == 1 ? "" : "s", tables->cluster->name, devices);
    }
    return tp > 1 ? pp_model_can_shard(tables->model, tp, error) : PP_OK;
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

/* ---- listing ------------------------------------------------------------------------------- */

/* What combinations have to pass, in this order. */
typedef enum hurdle { AT_COUNT, AT_STAGES, AT_CUTS, AT_ACTIONS, AT_FAMILY } hurdle;

typedef struct lister {
    pp_space *space;
    pp_tables *tables;
    const pp_split_method *method;
    pp_error *error;
    const int *widths; /* [width_count] values of tp, rising */
    int width_count;
    int fewest_slices, most_slices; /* those and what doubling leads to */
    double sum_byte_s[2];           /* of the arrangement at hand, with one chain or two */
    int *group;                     /* scratch: devices of one rank and replica */
    hurdle furthest;                /* that any combination came to */
    pp_error refusal;               /* the last that a family gave to the only schedule asked for */
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

static void further(lister *l, hurdle reached) {
    if (reached > l->furthest) l->furthest = reached;
}

static bool stages_possible(lister *l, const pp_candidate *c) {
    int64_t stages = (int64_t)c->ranks * c->virtual_stages;
    further(l, AT_STAGES);
    if (stages > l->tables->layers || stages > PP_STAGES_MAX) return false;
    further(l, AT_CUTS);
    if (l->method->cuts != NULL && stages != l->method->cut_count + 1) return false;
    further(l, AT_ACTIONS);
    if (stages * c->microbatches * c->slices > PP_ACTIONS_MAX / 4) return false;
    further(l, AT_FAMILY);
    return true;
}

/* What a plan cannot describe yet: updates while others are still at work. */
static bool can_be_planned(lister *l, const pp_schedule_family *family) {
    if (!family->async) return true;
    pp_fail(&l->refusal, PP_E_INPUT, "--schedule",
            "%s updates weights without a flush, which cannot be planned yet", family->name);
    return false;
}

/* refusal: where to say why not; NULL: nowhere. */
static bool family_accepts(lister *l, const pp_candidate *c, pp_error *refusal) {
    pp_schedule_request request = {.name = c->family->name,
                                   .ranks = c->ranks,
                                   .microbatches = c->microbatches,
                                   .virtual_stages = c->virtual_stages,
                                   .slices = pp_candidate_slices(c),
                                   .recompute = pp_candidate_policy(c)};
    if (!can_be_planned(l, c->family)) return false;
    if (c->family->validate == NULL) return true;
    return c->family->validate(&request, refusal) == PP_OK;
}

/* Another family is listed with the same order. */
static bool is_repeated(lister *l, const pp_candidate *c) {
    if (l->tables->request->schedule != NULL || c->family->same_as == NULL) return false;
    pp_candidate twin = *c;
    twin.family = pp_schedule_family_find(c->family->same_as);
    return family_accepts(l, &twin, NULL);
}

/* All numbers of stages on each rank that the family can have. */
static pp_status list_virtual(lister *l, pp_candidate c) {
    int pinned = l->tables->request->virtual_stages, step = c.family->virtual_step;
    int natural = pinned ? pinned : c.family->natural_virtual;
    int most = pinned || step == 0 || l->method->cuts != NULL ? natural : VIRTUAL_MAX;
    if (l->method->cuts != NULL && !pinned && step > 0) most = l->method->cut_count + 1;
    for (c.virtual_stages = natural; c.virtual_stages <= most; c.virtual_stages += step) {
        if (stages_possible(l, &c) && !is_repeated(l, &c) &&
            family_accepts(l, &c, c.virtual_stages == natural ? &l->refusal : NULL)) {
            PP_TRY(append(l->space, &c, l->error));
        }
        if (step == 0) break;
    }
    return PP_OK;
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
        if (request->schedule == NULL && families[i].cuts_sequence != (c.slices > 1)) continue;
        c.sum_byte_s = l->sum_byte_s[pp_candidate_chains(&c) - 1];
        PP_TRY(list_virtual(l, c));
    }
    return PP_OK;
}

static pp_status list_policies(lister *l, pp_candidate c) {
    const char *pinned = l->tables->request->recompute;
    if (pinned != NULL) {
        pp_recompute_from_name(pinned, &c.recompute);
        return list_families(l, c);
    }
    static const pp_recompute policies[] = {PP_RECOMPUTE_MIXED, PP_RECOMPUTE_FULL,
                                            PP_RECOMPUTE_EXCEPT_LAST};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        c.recompute = policies[i];
        /* With one microbatch, all but the last is none. */
        bool idle = c.recompute == PP_RECOMPUTE_EXCEPT_LAST && c.microbatches == 1;
        if (idle) continue;
        PP_TRY(list_families(l, c));
    }
    return PP_OK;
}

static double total_of(const pp_timing *timing) {
    return timing->forward_total_s + timing->input_total_s + timing->weight_total_s;
}

/* Ranks in devices of the timing: a rank counts for as little as its slowest device. */
static double capacity_of(const pp_candidate *c) {
    const pp_kinds *all = c->timing->kinds;
    double capacity = 0;
    for (int p = 0; p < c->ranks; p++) {
        const pp_kinds *kinds = c->arrangement->rank_kinds[p];
        double slowest = 1;
        for (int i = 0, at = 0; i < kinds->count; i++) {
            while (all->kinds[at] != kinds->kinds[i]) at++;
            slowest = fmax(slowest, c->timing->stretch[at]);
        }
        capacity += 1 / slowest;
    }
    return capacity;
}

/* rest: samples of the last microbatch. */
static pp_status list_slices(lister *l, pp_candidate c, pp_division division, int64_t rest) {
    pp_tables *tables = l->tables;
    const pp_kinds *kinds = c.arrangement->kinds;
    PP_TRY(pp_tables_timing(tables, kinds, division, c.size, c.slices, &c.timing, l->error));
    c.capacity = capacity_of(&c);
    c.last_scale = 1;
    if (rest < c.size) {
        pp_timing *last;
        PP_TRY(pp_tables_timing(tables, kinds, division, rest, c.slices, &last, l->error));
        if (total_of(c.timing) > 0) c.last_scale = total_of(last) / total_of(c.timing);
    }
    return list_policies(l, c);
}

static pp_status list_size(lister *l, pp_candidate c, pp_division division, int64_t size) {
    const pp_plan_request *request = l->tables->request;
    int64_t batch = request->global_batch / c.dp, count = ceil_divide(batch, size);
    if (count > PP_MICROBATCHES_MAX) return PP_OK;
    if (request->microbatches && count != request->microbatches) return PP_OK;
    c.size = size;
    c.microbatches = (int)count;
    for (c.slices = l->fewest_slices; c.slices <= l->most_slices; c.slices *= 2)
        PP_TRY(list_slices(l, c, division, batch - (count - 1) * size));
    return PP_OK;
}

/* Sizes from the whole batch down to one sample, the smallest for each M. */
static pp_status list_sizes(lister *l, pp_candidate c) {
    const pp_plan_request *request = l->tables->request;
    int64_t batch = request->global_batch / c.dp;
    pp_division division = {.sum = pp_division_sum(l->tables->cluster, c.arrangement, c.tp)};
    PP_TRY(pp_tables_weights(l->tables, c.tp, &division.weights, l->error));
    if (request->microbatch_size) return list_size(l, c, division, request->microbatch_size);
    if (request->microbatches) {
        return list_size(l, c, division, ceil_divide(batch, request->microbatches));
    }
    for (int64_t size = batch;; size = ceil_divide(batch, ceil_divide(batch, size - 1))) {
        PP_TRY(list_size(l, c, division, size));
        if (size == 1) return PP_OK;
    }
}

/* The least over all ranks, alone or each with the one that mirrors it, whatever a stage weighs. */
static pp_status find_sums(lister *l, const pp_candidate *c) {
    for (int chains = 1; chains <= 2; chains++) {
        double least = INFINITY;
        for (int p = 0; p < c->ranks; p++) {
            int ranks[2] = {p, c->ranks - 1 - p};
            pp_all_reduce sum;
            if (!pp_ranks_sum(l->tables->cluster, c, ranks, chains, &sum))
                return pp_fail_memory(l->error);
            if (sum.kind != PP_ALL_REDUCE_TREE) least = fmin(least, sum.ring.per_byte_s);
            if (sum.kind != PP_ALL_REDUCE_RING) least = fmin(least, sum.tree.per_byte_s);
        }
        l->sum_byte_s[chains - 1] = chains * c->dp > 1 ? least : 0;
    }
    return PP_OK;
}

static pp_status list_arrangements(lister *l, pp_candidate c) {
    pp_arrangements arrangements;
    PP_TRY(pp_arrangements_list(l->tables, c.ranks, c.dp, c.tp, &l->space->arena, &arrangements,
                                l->error));
    for (int i = 0; i < arrangements.count; i++) {
        c.arrangement = arrangements.list[i];
        PP_TRY(find_sums(l, &c));
        PP_TRY(list_sizes(l, c));
    }
    return PP_OK;
}

static pp_status list_replicas(lister *l, pp_candidate c) {
    const pp_plan_request *request = l->tables->request;
    int devices = l->space->devices;
    for (c.dp = 1; c.dp <= devices / c.ranks / c.tp; c.dp++) {
        if (request->dp ? c.dp != request->dp : devices > EVERY_RANK_UP_TO && devices % c.dp != 0) {
            continue;
        }
        if (request->global_batch % c.dp != 0) continue;
        c.zero = request->zero;
        if (c.zero == PP_ZERO_SEARCH) c.zero = c.dp > 1;
        PP_TRY(list_arrangements(l, c));
    }
    return PP_OK;
}

static pp_status list_widths(lister *l, pp_candidate c) {
    for (int i = 0; i < l->width_count; i++) {
        c.tp = l->widths[i];
        PP_TRY(list_replicas(l, c));
    }
    return PP_OK;
}

static int greatest_common_divisor(int a, int b) {
    return b == 0 ? a : greatest_common_divisor(b, a % b);
}

/* Values of tp: the pin, or all that no node and no layer objects to. widths: room for WIDTHS. */
enum { WIDTHS = 64 };
static int find_widths(const pp_tables *tables, int *widths) {
    const pp_plan_request *request = tables->request;
    const pp_cluster *cluster = tables->cluster;
    int count = 0, common = 0;
    for (int i = 0; i < cluster->node_kind_count; i++) {
        common = greatest_common_divisor(cluster->nodes[i].count, common);
    }
    if (request->tp != 0) {
        widths[count++] = request->tp;
        return count;
    }
    for (int tp = 1; tp <= common && count < WIDTHS; tp++) {
        if (common % tp != 0 || (tp > 1 && request->runnable)) continue;
        if (pp_model_can_shard(tables->model, tp, NULL) == PP_OK) widths[count++] = tp;
    }
    return count;
}

/* One, the pin, or for a schedule that cuts sequences up to SLICES_MAX while the model can be cut.
 */
enum { SLICES_MAX = 16 };
static pp_status find_slices(lister *l) {
    const pp_plan_request *request = l->tables->request;
    const pp_schedule_family *family =
        request->schedule != NULL ? pp_schedule_family_find(request->schedule) : NULL;
    bool cut = family != NULL && family->cuts_sequence && request->slices == 0;
    l->fewest_slices = l->most_slices = request->slices > 0 ? request->slices : cut ? 2 : 1;
    if (l->most_slices > PP_SLICES_MAX)
        return pp_fail(l->error, PP_E_INPUT, "--slices", "%d slices, expected 1 to %d",
                       l->most_slices, PP_SLICES_MAX);
    PP_TRY(pp_model_can_slice(l->tables->model, l->fewest_slices, l->error));
    while (cut && 2 * l->most_slices <= SLICES_MAX &&
           pp_model_can_slice(l->tables->model, 2 * l->most_slices, NULL) == PP_OK)
        l->most_slices *= 2;
    return PP_OK;
}

/* ---- nothing listed ------------------------------------------------------------------------ */

/* No number of microbatches passed. */
static pp_status fail_count(const pp_plan_request *request, pp_error *error) {
    int64_t dp = request->dp ? request->dp : 1, batch = request->global_batch / dp;
    int64_t size = request->microbatch_size, count = request->microbatches;
    if (size > 0 && count > 0) {
        return pp_fail(
            error, PP_E_INPUT, "--microbatches",
            "%lld microbatch%s of %lld sample%s do not make the %lld sample%s of a replica: "
            "leave out one of --microbatches and --microbatch-size",
            (long long)count, count == 1 ? "" : "es", (long long)size, s_of(size), (long long)batch,
            s_of(batch));
    }
    if (size > 0 || count > PP_MICROBATCHES_MAX) {
        return pp_fail(error, PP_E_INPUT, size > 0 ? "--microbatch-size" : "--microbatches",
                       "%lld sample%s of a replica in %lld microbatches; at most %d are possible",
                       (long long)batch, s_of(batch),
                       (long long)(size > 0 ? ceil_divide(batch, size) : count),
                       PP_MICROBATCHES_MAX);
    }
    int64_t whole = ceil_divide(batch, count);
    return pp_fail(error, PP_E_INPUT, "--microbatches",
                   "%lld samples per replica cannot be cut into %lld microbatches: with %lld "
                   "sample%s each there are %lld",
                   (long long)batch, (long long)count, (long long)whole, s_of(whole),
                   (long long)ceil_divide(batch, whole));
}

/* Every number of stages is too large. */
static pp_status fail_stages(const lister *l, pp_error *error) {
    const pp_plan_request *request = l->tables->request;
    int ranks = request->ranks ? request->ranks : 1, each = request->virtual_stages;
    int most = l->tables->layers < PP_STAGES_MAX ? l->tables->layers : PP_STAGES_MAX;
    const char *option = each ? "--virtual" : request->schedule ? "--schedule" : "--ranks";
    if (each == 0)
        each = request->schedule ? pp_schedule_family_find(request->schedule)->natural_virtual : 1;
    return pp_fail(error, PP_E_INPUT, option,
                   "%d stage%s on each of %d rank%s are too many: %s has %d layer%s, so at most %d "
                   "stage%s in all",
                   each, s_of(each), ranks, s_of(ranks), l->tables->model->name, l->tables->layers,
                   s_of(l->tables->layers), most, s_of(most));
}

/* What else fixes the number of stages. */
static pp_status fail_cuts(const lister *l, pp_error *error) {
    const pp_plan_request *request = l->tables->request;
    int cuts = l->method->cut_count, stages = cuts + 1;
    char wanted[256];
    if (request->ranks && request->virtual_stages) {
        int64_t fixed = (int64_t)request->ranks * request->virtual_stages;
        snprintf(wanted, sizeof wanted, "--ranks %d with --virtual %d needs %lld stage%s",
                 request->ranks, request->virtual_stages, (long long)fixed, s_of(fixed));
    } else if (request->ranks) {
        snprintf(wanted, sizeof wanted,
                 "--ranks %d needs %d stage%s, or %d, %d, … with several on each rank",
                 request->ranks, request->ranks, s_of(request->ranks), 2 * request->ranks,
                 3 * request->ranks);
    } else if (request->virtual_stages) {
        snprintf(wanted, sizeof wanted, "--virtual %d needs a multiple of %d on at most %d rank%s",
                 request->virtual_stages, request->virtual_stages, l->space->devices,
                 s_of(l->space->devices));
    } else {
        snprintf(wanted, sizeof wanted,
                 "no schedule deals so many evenly to ranks among the %d device%s of %s",
                 l->space->devices, s_of(l->space->devices), l->tables->cluster->name);
    }
    return pp_fail(error, PP_E_INPUT, "--split", "%d position%s make%s %d stages, but %s", cuts,
                   s_of(cuts), cuts == 1 ? "s" : "", stages, wanted);
}

/* Some shape passed, but no schedule takes it. */
static pp_status fail_family(const lister *l, pp_error *error) {
    const pp_plan_request *request = l->tables->request;
    char ranks[32] = "any number of", each[32] = "their own number of", count[64] = "";
    if (request->schedule != NULL) {
        return pp_fail(error, l->refusal.code, l->refusal.place, "%s", l->refusal.message);
    }
    if (request->ranks) snprintf(ranks, sizeof ranks, "%d", request->ranks);
    if (request->virtual_stages) snprintf(each, sizeof each, "%d", request->virtual_stages);
    if (request->microbatches) {
        snprintf(count, sizeof count, " in %d microbatch%s", request->microbatches,
                 request->microbatches == 1 ? "" : "es");
    }
    return pp_fail(error, PP_E_INPUT, request->virtual_stages ? "--virtual" : "--ranks",
                   "no schedule runs %s rank%s with %s stage%s on each%s; leave one of these out",
                   ranks, s_of(request->ranks), each, s_of(request->virtual_stages), count);
}

/* Every combination was ruled out: by what, as far as the best of them came. */
static pp_status fail_empty(const lister *l, pp_error *error) {
    switch (l->furthest) {
    case AT_COUNT:
        return fail_count(l->tables->request, error);
    case AT_STAGES:
        return fail_stages(l, error);
    case AT_CUTS:
        return fail_cuts(l, error);
    case AT_ACTIONS:
        return pp_fail(error, PP_E_INPUT, "--microbatches",
                       "more than the %d actions that a schedule may have: ask for fewer or larger "
                       "microbatches, or fewer stages",
                       PP_ACTIONS_MAX);
    case AT_FAMILY:
        break;
    }
    return fail_family(l, error);
}

pp_status pp_space_init(pp_space *space, pp_tables *tables, const pp_split_method *method,
                        pp_error *error) {
    const pp_plan_request *request = tables->request;
    *space = (pp_space){.devices = pp_cluster_device_count(tables->cluster)};
    pp_arena_init(&space->arena);
    PP_TRY(check_counts(request, error));
    PP_TRY(check_names(request, error));
    PP_TRY(check_devices(tables, space->devices, error));
    PP_TRY(check_batch(request, error));
    int widths[WIDTHS];
    lister l = {.space = space,
                .tables = tables,
                .method = method,
                .error = error,
                .widths = widths,
                .width_count = find_widths(tables, widths)};
    PP_TRY(find_slices(&l));
    int most = space->devices < tables->layers ? space->devices : tables->layers;
    for (int ranks = 1; ranks <= most; ranks++) {
        if (request->ranks ? ranks != request->ranks
                           : space->devices > EVERY_RANK_UP_TO && space->devices % ranks != 0) {
            continue;
        }
        PP_TRY(list_widths(&l, (pp_candidate){.ranks = ranks}));
    }
    return space->count > 0 ? PP_OK : fail_empty(&l, error);
}

void pp_space_deinit(pp_space *space) {
    pp_free(space->candidates);
    pp_arena_deinit(&space->arena);
    *space = (pp_space){0};
}
