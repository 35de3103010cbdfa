/* The table of families of schedules, and building a named schedule from it.
 *
 * A family gives the order of compute actions alone. What all share is done here: default of V,
 * limits of size, the loop placement (stage s on rank s mod K), and the R actions of recomputation.
 */
#include "sim/families_internal.h"

#include <stdio.h>
#include <string.h>

static const pp_schedule_family families[] = {
#define X(prefix, name_, summary_, constraint_, source_, natural, splits)                          \
    {.name = name_,                                                                                \
     .summary = summary_,                                                                          \
     .constraint = constraint_,                                                                    \
     .source = source_,                                                                            \
     .natural_virtual = natural,                                                                   \
     .splits_backward = splits,                                                                    \
     .validate = pp_##prefix##_validate,                                                           \
     .count = pp_##prefix##_count,                                                                 \
     .build = pp_##prefix##_build,                                                                 \
     .closed_form_bubble = pp_##prefix##_bubble},
    PP_FAMILY_LIST(X)
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

pp_status pp_family_plain(const pp_schedule_request *request, pp_error *error) {
    if (request->virtual_stages != 1)
        return pp_fail(error, PP_E_INPUT, "-V",
                       "%s has one stage on each rank, not %d; leave -V out or set it to 1",
                       request->name, request->virtual_stages);
    if (request->reverse_backward)
        return pp_fail(error, PP_E_INPUT, request->name,
                       "the reversed backward order belongs to gpipe alone");
    return PP_OK;
}

bool pp_family_uniform_domain(const pp_schedule_request *request, const pp_uniform *cost) {
    return request->recompute == PP_RECOMPUTE_NONE && !(cost->transfer_s > 0);
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
    if ((unsigned)request->recompute >= PP_RECOMPUTE_COUNT)
        return pp_fail(error, PP_E_INPUT, "recompute", "unknown policy %d", request->recompute);
    return PP_OK;
}

static pp_status build_order(const pp_schedule_family *family, const pp_schedule_request *request,
                             pp_schedule **schedule, pp_error *error) {
    size_t capacity = family->count(request);
    if (capacity > PP_ACTIONS_MAX)
        return pp_fail(error, PP_E_INPUT, "schedule",
                       "%s with K = %d, V = %d, M = %d has %zu actions, more than the limit of %d",
                       family->name, request->ranks, request->virtual_stages, request->microbatches,
                       capacity, PP_ACTIONS_MAX);
    int stages = request->ranks * request->virtual_stages;
    pp_schedule *made;
    PP_TRY(pp_schedule_new(request->ranks, stages, request->microbatches, capacity, &made, error));
    snprintf(made->name, sizeof made->name, "%s", family->name);
    made->virtual_stages = request->virtual_stages;
    for (int s = 0; s < stages; s++) made->placement[s] = s % request->ranks;
    family->build(request, made);
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
    if (full.recompute == PP_RECOMPUTE_NONE) {
        *schedule = order;
        return PP_OK;
    }
    pp_status status = pp_schedule_add_recompute(order, full.recompute, schedule, error);
    pp_schedule_free(order);
    return status;
}
