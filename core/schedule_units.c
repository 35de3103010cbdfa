/* Numbering the units of a schedule, and what can be said about it without looking across ranks:
 * every action is in its place, none is named twice, none is missing, and no rank's own order
 * contradicts the chain order.
 *
 * A unit is a (stage, microbatch, slice). Stage s of chain c has M_c · slices units from base[s]
 * on; each unit has a mask with a bit per kind of action. So the checks are two passes over the
 * actions with one table look-up each, and the table is 2 bytes per unit.
 *
 * A file of a few bytes can name stage 65534 and microbatch 16777215. Such a schedule has more
 * units than actions, so by the pigeonhole principle some stage lacks an F: it is refused, by name,
 * before the table is allocated. */
#include "core/schedule_internal.h"

#include <string.h>

#define BIT(kind) ((uint16_t)(1u << (kind)))

enum { BACKWARD_BITS = 1 << PP_BACKWARD | 1 << PP_INPUT };

/* ---- chains and placement ------------------------------------------------------------------ */

static pp_status link_chain(pp_units *units, const pp_schedule *schedule, int c, pp_error *error) {
    pp_chain chain = schedule->chains[c];
    if (chain.first < 0 || chain.first > chain.last || chain.last >= schedule->stages)
        return pp_fail(error, PP_E_INPUT, schedule->name,
                       "chain %d-%d is not a range of the stages 0 to %d, first before last",
                       chain.first, chain.last, schedule->stages - 1);
    for (int s = chain.first; s <= chain.last; s++) {
        if (units->chain[s] >= 0)
            return pp_fail(error, PP_E_INPUT, schedule->name, "stage %d is in two chains", s);
        units->chain[s] = c;
        units->previous[s] = s == chain.first ? -1 : s - 1;
        units->next[s] = s == chain.last ? -1 : s + 1;
    }
    return PP_OK;
}

static pp_status link_stages(pp_units *units, const pp_schedule *schedule, size_t *culprit,
                             pp_error *error) {
    *culprit = PP_CULPRIT_CHAINS;
    for (int s = 0; s < schedule->stages; s++) units->chain[s] = -1;
    for (int c = 0; c < schedule->chain_count; c++) PP_TRY(link_chain(units, schedule, c, error));
    for (int s = 0; s < schedule->stages; s++)
        if (units->chain[s] < 0)
            return pp_fail(error, PP_E_INPUT, schedule->name, "stage %d is in no chain", s);
    *culprit = PP_CULPRIT_PLACEMENT;
    for (int s = 0; s < schedule->stages; s++)
        if (schedule->placement[s] < 0 || schedule->placement[s] >= schedule->ranks)
            return pp_fail(error, PP_E_INPUT, schedule->name,
                           "stage %d is placed on rank %d, but the ranks are 0 to %d", s,
                           schedule->placement[s], schedule->ranks - 1);
    *culprit = PP_NO_CULPRIT;
    return PP_OK;
}

/* ---- each action in its place -------------------------------------------------------------- */

static const char *pair_flaw(const pp_schedule *schedule, size_t index, size_t end) {
    if (index + 1 == end) return "overlaps with an action that is not there";
    pp_action second = schedule->actions[index + 1];
    if (second.overlapped || !pp_action_is_compute(second) ||
        !pp_action_is_compute(schedule->actions[index]))
        return "can overlap with exactly one action, and only F, B, I, W and R can";
    return NULL;
}

static const char *transfer_flaw(const pp_units *units, const pp_schedule *schedule,
                                 pp_action action) {
    int other = pp_other_stage(units, action);
    if (other < 0) return "has no stage on the other side: its stage ends the chain there";
    if (!pp_crosses(schedule, action.stage, other))
        return "would transfer inside a rank: both stages are on the same one";
    return NULL;
}

/* What is wrong with one action by itself, or NULL. `end` is the end of its rank's list. */
static const char *action_flaw(const pp_units *units, const pp_schedule *schedule, size_t index,
                               int rank, size_t end) {
    pp_action action = schedule->actions[index];
    bool numbered = pp_kind_has_microbatch(action.kind);
    if (action.kind >= PP_ACTION_KIND_COUNT) return "has an unknown type";
    if (action.stage >= schedule->stages) return "names a stage that the schedule does not have";
    if (schedule->placement[action.stage] != rank) return "stands in the row of another rank";
    if (!numbered && action.microbatch != PP_NO_MICROBATCH) return "takes no microbatch number";
    if (numbered && action.microbatch >= (uint32_t)schedule->microbatches)
        return "has a microbatch number that the schedule does not have";
    if (action.slice >= schedule->slices) return "has a slice that the schedule does not have";
    if (action.overlapped) return pair_flaw(schedule, index, end);
    if (pp_action_is_transfer(action)) return transfer_flaw(units, schedule, action);
    return NULL;
}

static pp_status blame(const pp_schedule *schedule, size_t index, int rank, const char *flaw,
                       size_t *culprit, pp_error *error) {
    char text[32];
    *culprit = index;
    if (schedule->actions[index].kind >= PP_ACTION_KIND_COUNT)
        return pp_fail(error, PP_E_INPUT, schedule->name, "action %zu of rank %d %s",
                       index - schedule->first_action[rank], rank, flaw);
    return pp_fail(error, PP_E_INPUT, schedule->name, "%s of rank %d %s",
                   pp_action_text(schedule->actions[index], text), rank, flaw);
}

/* Pass 1: every action by itself; counts microbatches per chain. */
static pp_status check_places(pp_units *units, const pp_schedule *schedule, size_t *culprit,
                              pp_error *error) {
    for (int p = 0; p < schedule->ranks; p++) {
        size_t end = schedule->first_action[p + 1];
        for (size_t i = schedule->first_action[p]; i < end; i++) {
            const char *flaw = action_flaw(units, schedule, i, p, end);
            if (flaw) return blame(schedule, i, p, flaw, culprit, error);
            pp_action action = schedule->actions[i];
            if (pp_action_is_transfer(action)) units->has_transfers = true;
            if (!pp_kind_has_microbatch(action.kind)) continue;
            int *most = &units->chain_microbatches[units->chain[action.stage]];
            if ((int)action.microbatch >= *most) *most = (int)action.microbatch + 1;
        }
    }
    return PP_OK;
}

/* M is the largest of all chains: when none reaches it, the first is short of it. */
static void settle_microbatches(pp_units *units, const pp_schedule *schedule) {
    int most = 1;
    for (int c = 0; c < schedule->chain_count; c++) {
        if (units->chain_microbatches[c] < 1) units->chain_microbatches[c] = 1;
        if (units->chain_microbatches[c] > most) most = units->chain_microbatches[c];
    }
    if (most < schedule->microbatches) units->chain_microbatches[0] = schedule->microbatches;
}

static int64_t units_per_stage(const pp_units *units, const pp_schedule *schedule, int s) {
    return (int64_t)units->chain_microbatches[units->chain[s]] * schedule->slices;
}

static void number_units(pp_units *units, const pp_schedule *schedule) {
    size_t next = 0;
    for (int s = 0; s < schedule->stages; s++) {
        units->base[s] = next;
        next += (size_t)units_per_stage(units, schedule, s);
    }
    units->base[schedule->stages] = next;
}

/* ---- what is missing ----------------------------------------------------------------------- */

static pp_status fail_missing(const pp_units *units, const pp_schedule *schedule, pp_action action,
                              pp_error *error) {
    char text[32];
    pp_action_text(action, text);
    int rank = schedule->placement[action.stage];
    if (pp_action_is_transfer(action))
        return pp_fail(
            error, PP_E_INPUT, schedule->name,
            "rank %d lacks %s: a schedule with transfers needs all of them, a SEND and a "
            "RECV wherever two ranks meet",
            rank, text);
    return pp_fail(error, PP_E_INPUT, schedule->name,
                   "rank %d lacks %s: stage %d needs an F and a B (or an I and a W) of each of its "
                   "%d microbatches",
                   rank, text, action.stage, units->chain_microbatches[units->chain[action.stage]]);
}

static pp_action action_of_unit(const pp_units *units, const pp_schedule *schedule, int s,
                                size_t unit, pp_action_kind kind) {
    size_t ordinal = unit - units->base[s], slices = (size_t)schedule->slices;
    return (pp_action){.kind = (uint8_t)(kind & 0x7f),
                       .stage = (uint16_t)s,
                       .slice = (uint8_t)(ordinal % slices),
                       .microbatch = (uint32_t)(ordinal / slices)};
}

static size_t count_forwards(const pp_units *units, const pp_schedule *schedule, int stage,
                             bool *present, size_t capacity) {
    size_t count = 0;
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++) {
        pp_action action = schedule->actions[i];
        if (action.kind != PP_FORWARD || action.stage != stage) continue;
        size_t ordinal = pp_unit_of(units, schedule, action) - units->base[stage];
        if (ordinal < capacity) present[ordinal] = true;
        count++;
    }
    return count;
}

/* More units than actions: some stage has fewer F than it needs, and among its first count + 1
 * units one has none. */
static pp_status fail_by_pigeonhole(pp_units *units, const pp_schedule *schedule, pp_error *error) {
    size_t *count = PP_NEW(&units->arena, size_t, schedule->stages);
    if (!count) return pp_fail_memory(error);
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++)
        if (schedule->actions[i].kind == PP_FORWARD) count[schedule->actions[i].stage]++;
    int s = 0;
    while ((int64_t)count[s] >= units_per_stage(units, schedule, s)) s++;
    bool *present = PP_NEW(&units->arena, bool, count[s] + 1);
    if (!present) return pp_fail_memory(error);
    count_forwards(units, schedule, s, present, count[s] + 1);
    size_t ordinal = 0;
    while (present[ordinal]) ordinal++;
    pp_action missing = action_of_unit(units, schedule, s, units->base[s] + ordinal, PP_FORWARD);
    return fail_missing(units, schedule, missing, error);
}

/* The kind that a unit lacks, or PP_ACTION_KIND_COUNT. */
static pp_action_kind missing_kind(const pp_units *units, const pp_schedule *schedule, int s,
                                   uint16_t seen) {
    bool up = pp_crosses(schedule, s, units->next[s]);
    bool down = pp_crosses(schedule, s, units->previous[s]);
    if (!(seen & BIT(PP_FORWARD))) return PP_FORWARD;
    if (seen & BIT(PP_WEIGHT) && !(seen & BIT(PP_INPUT))) return PP_INPUT;
    if (!(seen & BACKWARD_BITS)) return PP_BACKWARD;
    if (seen & BIT(PP_INPUT) && !(seen & BIT(PP_WEIGHT))) return PP_WEIGHT;
    if (!units->has_transfers) return PP_ACTION_KIND_COUNT;
    if (up && !(seen & BIT(PP_SEND_F))) return PP_SEND_F;
    if (up && !(seen & BIT(PP_RECV_B))) return PP_RECV_B;
    if (down && !(seen & BIT(PP_RECV_F))) return PP_RECV_F;
    if (down && !(seen & BIT(PP_SEND_B))) return PP_SEND_B;
    return PP_ACTION_KIND_COUNT;
}

pp_status pp_units_complete(const pp_units *units, const pp_schedule *schedule, pp_error *error) {
    for (int s = 0; s < schedule->stages; s++) {
        for (size_t unit = units->base[s]; unit < units->base[s + 1]; unit++) {
            pp_action_kind kind = missing_kind(units, schedule, s, units->seen[unit]);
            if (kind == PP_ACTION_KIND_COUNT) continue;
            pp_action missing = action_of_unit(units, schedule, s, unit, kind);
            return fail_missing(units, schedule, missing, error);
        }
    }
    return PP_OK;
}

/* ---- nothing twice ------------------------------------------------------------------------- */

static const char *repeat_flaw(pp_action_kind kind, uint16_t seen) {
    if (seen & BIT(kind)) return "is named a second time";
    if (kind == PP_BACKWARD && seen & (BIT(PP_INPUT) | BIT(PP_WEIGHT)))
        return "is a whole backward beside an I or W of the same microbatch";
    if ((kind == PP_INPUT || kind == PP_WEIGHT) && seen & BIT(PP_BACKWARD))
        return "is part of a backward beside a whole B of the same microbatch";
    return NULL;
}

/* Pass 2: marks what each unit has. */
static pp_status check_repeats(pp_units *units, const pp_schedule *schedule, size_t *culprit,
                               pp_error *error) {
    size_t count = schedule->first_action[schedule->ranks];
    for (size_t i = 0; i < count; i++) {
        pp_action action = schedule->actions[i];
        if (!pp_kind_has_microbatch(action.kind)) continue;
        uint16_t *seen = &units->seen[pp_unit_of(units, schedule, action)];
        const char *flaw = repeat_flaw(action.kind, *seen);
        if (flaw) return blame(schedule, i, pp_schedule_rank_of(schedule, i), flaw, culprit, error);
        *seen |= BIT(action.kind);
    }
    return PP_OK;
}

/* ---- building ------------------------------------------------------------------------------ */

static pp_status units_build(pp_units *units, const pp_schedule *schedule, size_t *culprit,
                             pp_error *error) {
    pp_arena *arena = &units->arena;
    units->previous = PP_NEW(arena, int, schedule->stages);
    units->next = PP_NEW(arena, int, schedule->stages);
    units->chain = PP_NEW(arena, int, schedule->stages);
    units->chain_microbatches = PP_NEW(arena, int, schedule->chain_count);
    units->base = PP_NEW(arena, size_t, schedule->stages + 1);
    if (arena->failed) return pp_fail_memory(error);
    PP_TRY(link_stages(units, schedule, culprit, error));
    PP_TRY(check_places(units, schedule, culprit, error));
    settle_microbatches(units, schedule);
    number_units(units, schedule);
    size_t unit_count = units->base[schedule->stages];
    if (unit_count > schedule->first_action[schedule->ranks])
        return fail_by_pigeonhole(units, schedule, error);
    units->seen = PP_NEW(arena, uint16_t, unit_count);
    if (!units->seen) return pp_fail_memory(error);
    return check_repeats(units, schedule, culprit, error);
}

pp_status pp_units_init(pp_units *units, const pp_schedule *schedule, size_t *culprit,
                        pp_error *error) {
    size_t ignored;
    if (!culprit) culprit = &ignored;
    *culprit = PP_NO_CULPRIT;
    *units = (pp_units){0};
    pp_arena_init(&units->arena);
    pp_status status = units_build(units, schedule, culprit, error);
    if (status != PP_OK) pp_units_deinit(units);
    return status;
}

void pp_units_deinit(pp_units *units) {
    pp_arena_deinit(&units->arena);
}

/* ---- the order inside a rank --------------------------------------------------------------- */

/* What one rank's list has done so far. */
typedef struct progress {
    const pp_units *units;
    const pp_schedule *schedule;
    int *before;    /* [stages] nearest earlier stage of the chain on the same rank, or -1 */
    int *after;     /* [stages] nearest later one */
    uint16_t *done; /* [units] mask of kinds */
} progress;

static void find_neighbours_on_rank(progress *state, int *latest) {
    const pp_schedule *schedule = state->schedule;
    for (int s = 0; s < schedule->stages; s++) state->before[s] = state->after[s] = -1;
    for (int c = 0; c < schedule->chain_count; c++) {
        pp_chain chain = schedule->chains[c];
        for (int s = chain.first; s <= chain.last; s++) latest[schedule->placement[s]] = -1;
        for (int s = chain.first; s <= chain.last; s++) {
            int *last = &latest[schedule->placement[s]];
            state->before[s] = *last;
            if (*last >= 0) state->after[*last] = s;
            *last = s;
        }
    }
}

/* True if the action `kinds` of a unit is done, or if there is no such unit. Else *needed is it. */
static bool is_done(const progress *state, int stage, pp_action like, int slice, unsigned kinds,
                    pp_action *needed) {
    if (stage < 0 || slice < 0 || slice >= state->schedule->slices) return true;
    *needed = like;
    needed->overlapped = 0;
    needed->stage = (uint16_t)stage;
    needed->slice = (uint8_t)slice;
    size_t unit = pp_unit_of(state->units, state->schedule, *needed);
    if (state->done[unit] & kinds) return true;
    unsigned present = state->units->seen[unit] & kinds;
    needed->kind = (uint8_t)(__builtin_ctz(present) & 0x7f);
    return false;
}

/* True if everything that `action` needs of its own rank is done. Slices of a sequence run in order
 * forward, since attention looks back, and in reverse order backward. */
static bool is_ready(const progress *state, pp_action action, pp_action *needed) {
    int s = action.stage, q = action.slice;
    size_t unit = pp_unit_of(state->units, state->schedule, action);
    bool recomputed = state->units->seen[unit] & BIT(PP_RECOMPUTE);
    switch ((pp_action_kind)action.kind) {
    case PP_FORWARD:
        return is_done(state, state->before[s], action, q, BIT(PP_FORWARD), needed) &&
               is_done(state, s, action, q - 1, BIT(PP_FORWARD), needed);
    case PP_BACKWARD:
    case PP_INPUT:
        return is_done(state, s, action, q, BIT(PP_FORWARD), needed) &&
               (!recomputed || is_done(state, s, action, q, BIT(PP_RECOMPUTE), needed)) &&
               is_done(state, state->after[s], action, q, BACKWARD_BITS, needed) &&
               is_done(state, s, action, q + 1, BACKWARD_BITS, needed);
    case PP_WEIGHT:
        return is_done(state, s, action, q, BIT(PP_INPUT), needed);
    case PP_RECOMPUTE:
        return is_done(state, s, action, q, BIT(PP_FORWARD), needed);
    default:
        return true;
    }
}

static pp_status fail_order(const pp_schedule *schedule, size_t index, size_t size,
                            pp_action needed, pp_error *error) {
    char text[32], needed_text[32];
    pp_action action = schedule->actions[index];
    pp_action other = size == 2
                          ? schedule->actions[pp_is_second(schedule, index) ? index - 1 : index + 1]
                          : action;
    bool as_one = size == 2 && other.kind == needed.kind && other.stage == needed.stage &&
                  other.microbatch == needed.microbatch && other.slice == needed.slice;
    return pp_fail(error, PP_E_DEADLOCK, schedule->name,
                   "the schedule hangs: rank %d waits in %s for its own %s, which %s",
                   schedule->placement[action.stage], pp_action_text(action, text),
                   pp_action_text(needed, needed_text),
                   as_one ? "runs as one with it" : "stands behind it");
}

static pp_status check_node_order(progress *state, size_t index, pp_error *error) {
    const pp_schedule *schedule = state->schedule;
    size_t size = pp_node_size(schedule, index);
    pp_action needed;
    for (size_t i = index; i < index + size; i++)
        if (pp_action_is_compute(schedule->actions[i]) &&
            !is_ready(state, schedule->actions[i], &needed))
            return fail_order(schedule, i, size, needed, error);
    for (size_t i = index; i < index + size; i++)
        if (pp_action_is_compute(schedule->actions[i]))
            state->done[pp_unit_of(state->units, schedule, schedule->actions[i])] |=
                BIT(schedule->actions[i].kind);
    return PP_OK;
}

pp_status pp_units_order(const pp_units *units, const pp_schedule *schedule, pp_error *error) {
    pp_arena arena;
    pp_arena_init(&arena);
    progress state = {.units = units, .schedule = schedule};
    pp_status status = PP_OK;
    int *latest = PP_NEW(&arena, int, schedule->ranks);
    state.before = PP_NEW(&arena, int, schedule->stages);
    state.after = PP_NEW(&arena, int, schedule->stages);
    state.done = PP_NEW(&arena, uint16_t, units->base[schedule->stages]);
    if (arena.failed) {
        status = pp_fail_memory(error);
        goto out;
    }
    find_neighbours_on_rank(&state, latest);
    size_t count = schedule->first_action[schedule->ranks];
    for (size_t i = 0; i < count && status == PP_OK; i += pp_node_size(schedule, i))
        status = check_node_order(&state, i, error);
out:
    pp_arena_deinit(&arena);
    return status;
}
