/* The table of families of schedules, and building a named schedule from it.
 *
 * A family gives the order of compute actions alone. What all share is done here: default of V,
 * limits of size, where the stages are, and the R actions of recomputation. */
#include "sim/families_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const pp_schedule_family families[] = {
#define X(prefix, name_, summary_, constraint_, source_, natural, step, splits, placement_, cuts_, \
          equal_, count_, bubble_, span_bubble_, same_as_)                                         \
    {.name = name_,                                                                                \
     .summary = summary_,                                                                          \
     .constraint = constraint_,                                                                    \
     .source = source_,                                                                            \
     .natural_virtual = natural,                                                                   \
     .virtual_step = step,                                                                         \
     .splits_backward = splits,                                                                    \
     .placement = placement_,                                                                      \
     .cuts_sequence = cuts_,                                                                       \
     .equal_times = equal_,                                                                        \
     .validate = pp_##prefix##_validate,                                                           \
     .count = count_,                                                                              \
     .build = pp_##prefix##_build,                                                                 \
     .closed_form_bubble = bubble_,                                                                \
     .closed_form_span_bubble = span_bubble_,                                                      \
     .same_as = same_as_},
    PP_FAMILY_LIST(X)
#undef X
#define X(name_, summary_, constraint_, source_, ...)                                              \
    {.name = name_,                                                                                \
     .summary = summary_,                                                                          \
     .constraint = constraint_,                                                                    \
     .source = source_,                                                                            \
     .natural_virtual = 1,                                                                         \
     .async = &(const pp_async_rule){__VA_ARGS__},                                                 \
     .validate = pp_async_validate,                                                                \
     .count = pp_async_count,                                                                      \
     .build = pp_async_build,                                                                      \
     .closed_form_bubble = pp_async_bubble,                                                        \
     .closed_form_span_bubble = pp_async_bubble},
        PP_ASYNC_FAMILY_LIST(X)
#undef X
};

enum { FAMILY_COUNT = sizeof families / sizeof *families };

const pp_schedule_family *pp_schedule_families(int *count) {
    *count = FAMILY_COUNT;
    return families;
}

const pp_schedule_family *pp_schedule_family_find(const char *name) {
    for (int i = 0; i < FAMILY_COUNT; i++)
        if (strcmp(families[i].name, name) == 0) return &families[i];
    return NULL;
}

/* ---- what families share ------------------------------------------------------------------- */

double pp_no_closed_form(const pp_schedule_request *request, const pp_uniform *cost) {
    (void)request, (void)cost;
    return NAN;
}

static size_t visits(const pp_schedule_request *request) {
    return (size_t)request->ranks * (size_t)request->virtual_stages * (size_t)request->microbatches;
}

size_t pp_count_whole(const pp_schedule_request *request) {
    return 2 * visits(request);
}

size_t pp_count_split(const pp_schedule_request *request) {
    return 3 * visits(request);
}

pp_status pp_family_options(const pp_schedule_request *request, unsigned takes, pp_error *error) {
    if (request->virtual_stages != 1 && !(takes & PP_TAKES_VIRTUAL))
        return pp_fail(error, PP_E_INPUT, "-V",
                       "%s has one stage on each rank, not %d; leave -V out or set it to 1",
                       request->name, request->virtual_stages);
    if (request->reverse_backward && !(takes & PP_TAKES_REVERSE))
        return pp_fail(error, PP_E_INPUT, request->name,
                       "the reversed backward order belongs to gpipe alone");
    if (request->group != 0 && !(takes & PP_TAKES_GROUP))
        return pp_fail(error, PP_E_INPUT, "--group",
                       "%s has no groups of microbatches; interleaved has", request->name);
    if (request->slices != 0 && !(takes & PP_TAKES_SLICES))
        return pp_fail(error, PP_E_INPUT, "--slices",
                       "%s does not cut microbatches along the sequence; seq1f1b does",
                       request->name);
    if (request->minibatches != 0 && !(takes & PP_TAKES_MINIBATCHES))
        return pp_fail(error, PP_E_INPUT, "--minibatches",
                       "%s has no minibatches of several microbatches each; pipedream-2bw has",
                       request->name);
    return PP_OK;
}

pp_status pp_family_vshape(const pp_schedule_request *request, pp_error *error) {
    PP_TRY(pp_family_options(request, PP_TAKES_VIRTUAL, error));
    if (request->virtual_stages == 2) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "-V",
                   "%s has two stages on each rank, not %d; leave -V out or set it to 2",
                   request->name, request->virtual_stages);
}

bool pp_family_nothing_recomputed(const pp_schedule_request *request) {
    return request->recompute == PP_RECOMPUTE_NONE;
}

bool pp_family_uniform_domain(const pp_schedule_request *request, const pp_uniform *cost) {
    return pp_family_nothing_recomputed(request) && !(cost->transfer_s > 0);
}

bool pp_same_time(double a, double b) {
    return fabs(a - b) <= 1e-14 * fmax(a, b);
}

double pp_uniform_visit(const pp_uniform *cost) {
    return cost->forward_s + cost->input_s + cost->weight_s;
}

double pp_idle_share(double work, double idle) {
    return idle > 0 ? idle / (work + idle) : 0;
}

int pp_rounds_group(const pp_schedule_request *request) {
    int rounds = request->microbatches / request->ranks;
    if (rounds < 1) rounds = 1;
    return request->microbatches % rounds == 0 ? request->microbatches / rounds : 0;
}

void pp_family_build_ranks(const pp_schedule_request *request, pp_schedule *schedule,
                           pp_build_rank *build_rank) {
    size_t at = 0;
    for (int p = 0; p < request->ranks; p++) {
        schedule->first_action[p] = at;
        at = build_rank(request, schedule, p, at);
    }
    schedule->first_action[request->ranks] = at;
}

/* ---- building ------------------------------------------------------------------------------ */

static pp_status unknown_name(const char *name, pp_error *error) {
    char known[512] = "";
    size_t length = 0;
    for (int i = 0; i < FAMILY_COUNT && length < sizeof known; i++)
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "",
                                   families[i].name);
    return pp_fail(error, PP_E_INPUT, "schedule", "no schedule is called '%s'; known are %s",
                   name ? name : "", known);
}

static pp_status check_sizes(const pp_schedule_request *request, pp_error *error) {
    if (request->ranks < 1 || request->ranks > PP_RANKS_MAX)
        return pp_fail(error, PP_E_INPUT, "-K", "%d ranks, expected 1 to %d", request->ranks,
                       PP_RANKS_MAX);
    if (request->microbatches < 1 || request->microbatches > PP_MICROBATCHES_MAX)
        return pp_fail(error, PP_E_INPUT, "-M", "%d microbatches, expected 1 to %d",
                       request->microbatches, PP_MICROBATCHES_MAX);
    if (request->virtual_stages < 1 || request->virtual_stages > PP_STAGES_MAX / request->ranks)
        return pp_fail(error, PP_E_INPUT, "-V",
                       "%d virtual stages on each of %d ranks, expected 1 to %d",
                       request->virtual_stages, request->ranks, PP_STAGES_MAX / request->ranks);
    if (request->group < 0)
        return pp_fail(error, PP_E_INPUT, "--group", "%d microbatches, expected 1 or more",
                       request->group);
    if (request->slices < 0 || request->slices > PP_SLICES_MAX)
        return pp_fail(error, PP_E_INPUT, "--slices", "%d slices, expected 1 to %d",
                       request->slices, PP_SLICES_MAX);
    if (request->minibatches < 0)
        return pp_fail(error, PP_E_INPUT, "--minibatches", "%d, expected 1 or more",
                       request->minibatches);
    bool fixed = request->recompute >= 0 && request->recompute < PP_RECOMPUTE_COUNT;
    if (!fixed && pp_recompute_group(request->recompute) == 0)
        return pp_fail(error, PP_E_INPUT, "recompute", "unknown policy %d", request->recompute);
    return PP_OK;
}

int64_t pp_schedule_family_stages(const pp_schedule_family *family,
                                  const pp_schedule_request *request) {
    bool bidirectional = family->placement == PP_PLACE_BIDIRECTIONAL;
    return (int64_t)request->ranks * (bidirectional ? 2 : request->virtual_stages);
}

int pp_stage_rank(pp_stage_placement placement, int ranks, int s) {
    int pass = s / ranks, position = s % ranks;
    bool backwards = placement != PP_PLACE_LOOP && pass % 2 == 1;
    return backwards ? ranks - 1 - position : position;
}

static pp_status set_chains(pp_schedule *schedule, pp_error *error) {
    schedule->chains = PP_NEW(&schedule->arena, pp_chain, 2);
    if (!schedule->chains) return pp_fail_memory(error);
    schedule->chains[0] = (pp_chain){0, schedule->ranks - 1};
    schedule->chains[1] = (pp_chain){schedule->ranks, schedule->stages - 1};
    schedule->chain_count = 2;
    return PP_OK;
}

/* A schedule without actions: sizes, name, placement and chains. */
static pp_status make_frame(const pp_schedule_family *family, const pp_schedule_request *request,
                            size_t capacity, pp_schedule **schedule, pp_error *error) {
    bool bidirectional = family->placement == PP_PLACE_BIDIRECTIONAL;
    int64_t stages = pp_schedule_family_stages(family, request);
    if (stages > PP_STAGES_MAX)
        return pp_fail(error, PP_E_INPUT, "-K", "%s on %d ranks has %lld stages, the most is %d",
                       family->name, request->ranks, (long long)stages, PP_STAGES_MAX);
    PP_TRY(pp_schedule_new(request->ranks, (int)stages,
                           bidirectional ? request->microbatches - request->microbatches / 2
                                         : request->microbatches,
                           capacity, schedule, error));
    pp_schedule *made = *schedule;
    snprintf(made->name, sizeof made->name, "%s", family->name);
    made->virtual_stages = request->virtual_stages;
    for (int s = 0; s < made->stages; s++)
        made->placement[s] = pp_stage_rank(family->placement, made->ranks, s);
    return bidirectional ? set_chains(made, error) : PP_OK;
}

static pp_status build_order(const pp_schedule_family *family, const pp_schedule_request *request,
                             pp_schedule **schedule, pp_error *error) {
    size_t capacity = family->count(request);
    if (capacity > PP_ACTIONS_MAX)
        return pp_fail(error, PP_E_INPUT, "schedule",
                       "%s with K = %d, V = %d, M = %d has %zu actions, more than the limit of %d",
                       family->name, request->ranks, request->virtual_stages, request->microbatches,
                       capacity, PP_ACTIONS_MAX);
    pp_schedule *made = NULL;
    pp_status status = make_frame(family, request, capacity, &made, error);
    if (status == PP_OK) {
        family->build(request, made);
        if (made->arena.failed) status = pp_fail_memory(error); /* a build's own working memory */
    }
    if (status != PP_OK) {
        pp_schedule_free(made);
        return status;
    }
    *schedule = made;
    return PP_OK;
}

pp_status pp_schedule_build(const pp_schedule_request *request, pp_schedule **schedule,
                            pp_error *error) {
    *schedule = NULL;
    const pp_schedule_family *family =
        request->name ? pp_schedule_family_find(request->name) : NULL;
    if (!family) return unknown_name(request->name, error);
    pp_schedule_request full = *request;
    if (full.virtual_stages == 0) full.virtual_stages = family->natural_virtual;
    PP_TRY(check_sizes(&full, error));
    if (family->validate) PP_TRY(family->validate(&full, error));

    pp_schedule *order = NULL;
    PP_TRY(build_order(family, &full, &order, error));
    if (full.recompute == PP_RECOMPUTE_NONE || pp_recompute_is_inside(full.recompute)) {
        *schedule = order;
        return PP_OK;
    }
    pp_status status = pp_schedule_add_recompute(order, full.recompute, schedule, error);
    pp_schedule_free(order);
    return status;
}
