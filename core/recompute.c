/* Recomputation policies: their names, and which times of a stage they are part of. What each drops
 * and where that is made again is said by the layout (layout.c). */
#include "core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const fixed_names[] = {
#define X(value, name) [value] = name,
    PP_RECOMPUTE_LIST(X)
#undef X
        [PP_RECOMPUTE_MIXED] = "mixed",
};
#define EVERY "every:"
const char pp_recompute_names[] =
#define X(value, name) name ", "
    PP_RECOMPUTE_LIST(X) EVERY "N";
#undef X

const char *pp_recompute_text(pp_recompute policy, char buffer[PP_RECOMPUTE_LENGTH]) {
    if (policy <= PP_RECOMPUTE_MIXED) return fixed_names[policy];
    snprintf(buffer, PP_RECOMPUTE_LENGTH, EVERY "%d", pp_recompute_group(policy));
    return buffer;
}

/* Digits alone, without a leading 0: a policy has one name. */
static bool read_every(const char *name, pp_recompute *policy) {
    size_t prefix = strlen(EVERY), digits = strspn(name + prefix, "0123456789");
    if (name[prefix] == '0' || digits == 0 || digits > 5 || name[prefix + digits]) return false;
    int layers = atoi(name + prefix);
    *policy = PP_RECOMPUTE_EVERY + layers;
    return layers <= PP_RECOMPUTE_EVERY_MAX;
}

bool pp_recompute_from_name(const char *name, pp_recompute *policy) {
    if (strncmp(name, EVERY, strlen(EVERY)) == 0) return read_every(name, policy);
    for (int i = 0; i < PP_RECOMPUTE_COUNT; i++) {
        if (strcmp(fixed_names[i], name) != 0) continue;
        *policy = i;
        return true;
    }
    return false;
}

int pp_recompute_group(pp_recompute policy) {
    return policy > PP_RECOMPUTE_EVERY ? policy - PP_RECOMPUTE_EVERY : 0;
}

bool pp_recompute_is_inside(pp_recompute policy) {
    return policy == PP_RECOMPUTE_ATTENTION || policy > PP_RECOMPUTE_EVERY;
}

bool pp_recompute_applies(pp_recompute policy, int microbatch, int microbatches) {
    switch (policy) {
    case PP_RECOMPUTE_FULL:
        return true;
    case PP_RECOMPUTE_EXCEPT_LAST:
        return microbatch != microbatches - 1;
    default:
        return false;
    }
}

double pp_stage_input_s(const pp_stage *stage) {
    return stage->input_s + (pp_recompute_is_inside(stage->recompute) ? stage->recompute_s : 0);
}

pp_recompute pp_plan_recompute(const pp_plan *plan) {
    for (int s = 1; s < plan->stage_count; s++)
        if (plan->stages[s].recompute != plan->stages[0].recompute) return PP_RECOMPUTE_MIXED;
    return plan->stages[0].recompute;
}
