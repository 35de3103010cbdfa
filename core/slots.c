/* How many messages of a border can be under way or unused at once, whatever the timing.
 *
 * Write P = stage s-1 and C = stage s of a chain, each rank running its own list in order. All that
 * is used: F(C,m) starts after F(P,m) has ended, and the backward of P for m starts after the
 * backward of C for m has ended. (The B of a whole backward or the I of a split one is "the
 * backward" here.)
 *
 * Input slots of C hold m from the sending, after F(P,m), to the end of W(C,m), or of B(C,m). At
 * any moment such an m is of one of two kinds. Either C's backward of m has not ended: then P's has
 * not started, so m is one of P's microbatches with F begun and backward not ended, at the place
 * where P's rank is in its list. Or I(C,m) has ended and W(C,m) has not, at the place where C's
 * rank is. Both numbers are at most their peaks over all places of the one list. So the sum of the
 * two peaks suffices.
 *
 * Gradient slots of P hold m from the sending, after C's backward of m, to the end of P's backward
 * of m. There are two bounds, and the smaller counts.
 *   - m has F(P,m) begun and P's backward not ended: the first peak above.
 *   - Look at C's rank at some place of its list. Every F(C,n) before that place has begun, so
 * every such F(P,n) has ended, so P's rank is past all of them in its own list, and the backwards
 * of P that stand there before the last of them have ended. Held are therefore at most C's
 * backwards begun up to the place, less those. This is what makes the number 1 or 2 in 1F1B rather
 * than the depth of the pipeline. */
#include "core/schedule_internal.h"

/* Running numbers of one stage while its rank's list is walked. */
typedef struct stage_count {
    uint32_t undone, undone_peak;         /* F begun, backward not ended */
    uint32_t unweighted, unweighted_peak; /* I ended, W not ended */
    uint32_t backwards;                   /* ended: of this stage in pass 1 */
    uint32_t sent, certain, held_peak;    /* pass 2, kept with the stage that receives gradients */
} stage_count;

static void raise_to(uint32_t *peak, uint32_t value) {
    if (value > *peak) *peak = value;
}

typedef struct walk {
    const pp_schedule *schedule;
    const pp_units *units;
    stage_count *stages;        /* [stages] */
    uint32_t *backwards_before; /* [units] backwards of the stage before its F of this unit */
} walk;

/* What begins with an action counts before what ends with it, also across an overlapped pair. */
static void begin_action(walk *w, pp_action action) {
    stage_count *stage = &w->stages[action.stage];
    if (action.kind == PP_FORWARD) {
        raise_to(&stage->undone_peak, ++stage->undone);
        w->backwards_before[pp_unit_of(w->units, w->schedule, action)] = stage->backwards;
    } else if (action.kind == PP_INPUT) {
        raise_to(&stage->unweighted_peak, ++stage->unweighted);
    }
}

static void end_action(walk *w, pp_action action) {
    stage_count *stage = &w->stages[action.stage];
    if (pp_is_backward(action)) {
        stage->backwards++;
        if (stage->undone > 0) stage->undone--;
    } else if (action.kind == PP_WEIGHT && stage->unweighted > 0) {
        stage->unweighted--;
    }
}

/* Pass 2, for gradients that the action's stage sends to the one before it. */
static void begin_forward_for_gradients(walk *w, pp_action action) {
    int s = action.stage, receiver = w->units->previous[s];
    if (action.kind != PP_FORWARD || receiver < 0) return;
    size_t unit =
        pp_unit_of(w->units, w->schedule, action) - w->units->base[s] + w->units->base[receiver];
    raise_to(&w->stages[receiver].certain, w->backwards_before[unit]);
}

static void send_gradient(walk *w, pp_action action) {
    int receiver = w->units->previous[action.stage];
    if (!pp_is_backward(action) || receiver < 0) return;
    stage_count *stage = &w->stages[receiver];
    stage->sent++;
    if (stage->sent > stage->certain) raise_to(&stage->held_peak, stage->sent - stage->certain);
}

typedef void action_fn(walk *w, pp_action action);

/* Walks every rank's list: `first` on each action of a node, then `second` on each. */
static void walk_nodes(walk *w, action_fn *first, action_fn *second) {
    const pp_schedule *schedule = w->schedule;
    size_t count = schedule->first_action[schedule->ranks];
    for (size_t i = 0; i < count; i += pp_node_size(schedule, i)) {
        size_t end = i + pp_node_size(schedule, i);
        for (size_t a = i; a < end; a++)
            if (pp_action_is_compute(schedule->actions[a])) first(w, schedule->actions[a]);
        for (size_t a = i; a < end; a++)
            if (pp_action_is_compute(schedule->actions[a])) second(w, schedule->actions[a]);
    }
}

static void fill_slots(const walk *w, int *input_slots, int *gradient_slots) {
    for (int s = 0; s < w->schedule->stages; s++) {
        const stage_count *stage = &w->stages[s];
        int previous = w->units->previous[s];
        uint32_t held =
            stage->held_peak < stage->undone_peak ? stage->held_peak : stage->undone_peak;
        input_slots[s] =
            previous < 0 ? 0 : (int)(w->stages[previous].undone_peak + stage->unweighted_peak);
        gradient_slots[s] = w->units->next[s] < 0 ? 0 : (int)held;
    }
}

pp_status pp_schedule_slots(const pp_schedule *schedule, int *input_slots, int *gradient_slots,
                            pp_error *error) {
    pp_units units;
    PP_TRY(pp_units_init(&units, schedule, NULL, error));
    walk w = {.schedule = schedule, .units = &units};
    w.stages = PP_NEW(&units.arena, stage_count, schedule->stages);
    w.backwards_before = PP_NEW(&units.arena, uint32_t, units.base[schedule->stages]);
    pp_status status = PP_OK;
    if (units.arena.failed) {
        status = pp_fail_memory(error);
    } else {
        walk_nodes(&w, begin_action, end_action);
        walk_nodes(&w, begin_forward_for_gradients, send_gradient);
        fill_slots(&w, input_slots, gradient_slots);
    }
    pp_units_deinit(&units);
    return status;
}
