/* How many messages of a border can be under way or unused at once, whatever the timing.
 *
 * Write P = stage s-1 and C = stage s of a chain, each rank running its own list in order. All that
 * is used: F(C,m) starts after F(P,m) has ended, and the backward of P for m starts after the
 * backward of C for m has ended. ("The backward" is the B of a whole one, the I of a split one.)
 *
 * Input slots of C hold m from the sending, after F(P,m), to the end of W(C,m), or of B(C,m). At
 * any moment such an m is of one of two kinds. Either C's backward of m has not ended: then P's has
 * not started, so m is one of P's microbatches with F begun and backward not ended, at the place
 * where P's rank is in its list. Or I(C,m) has ended and W(C,m) has not, at the place where C's
 * rank is. Each number is at most its peak over all places of that one list. So the sum of the two
 * peaks suffices.
 *
 * Gradient slots of P hold m from the sending, after C's backward of m, to the end of P's backward
 * of m. F(P,m) has ended by then, so m is one of P's microbatches with F begun and backward not
 * ended: the same peak suffices. It is needed, too: when C has run all its forwards, nothing
 * keeps its backwards from running ahead of a slow P, down to P's last outstanding microbatch.
 *
 * Slices count as microbatches. What begins with an overlapped pair counts before what ends with
 * it. */
#include "core/schedule_internal.h"

/* Running numbers of one stage while its rank's list is walked. */
typedef struct stage_count {
    int undone, undone_peak;         /* F begun, backward not ended */
    int unweighted, unweighted_peak; /* I ended, W not ended */
} stage_count;

static void begin_action(stage_count *stage, pp_action_kind kind) {
    if (kind == PP_FORWARD && ++stage->undone > stage->undone_peak)
        stage->undone_peak = stage->undone;
    if (kind == PP_INPUT && ++stage->unweighted > stage->unweighted_peak)
        stage->unweighted_peak = stage->unweighted;
}

static void end_action(stage_count *stage, pp_action_kind kind) {
    stage->undone -= kind == PP_BACKWARD || kind == PP_INPUT;
    stage->unweighted -= kind == PP_WEIGHT;
}

static void walk(const pp_schedule *schedule, stage_count *stages) {
    const pp_action *actions = schedule->actions;
    size_t count = schedule->first_action[schedule->ranks];
    for (size_t i = 0; i < count; i += pp_node_size(schedule, i)) {
        size_t end = i + pp_node_size(schedule, i);
        for (size_t a = i; a < end; a++) begin_action(&stages[actions[a].stage], actions[a].kind);
        for (size_t a = i; a < end; a++) end_action(&stages[actions[a].stage], actions[a].kind);
    }
}

pp_status pp_schedule_slots(const pp_schedule *schedule, int *input_slots, int *gradient_slots,
                            pp_error *error) {
    pp_units units;
    PP_TRY(pp_units_init(&units, schedule, NULL, error));
    stage_count *stages = PP_NEW(&units.arena, stage_count, schedule->stages);
    if (stages) walk(schedule, stages);
    for (int s = 0; s < schedule->stages && stages; s++) {
        int previous = units.previous[s];
        input_slots[s] =
            previous < 0 ? 0 : stages[previous].undone_peak + stages[s].unweighted_peak;
        gradient_slots[s] = units.next[s] < 0 ? 0 : stages[s].undone_peak;
    }
    pp_units_deinit(&units);
    return stages ? PP_OK : pp_fail_memory(error);
}
