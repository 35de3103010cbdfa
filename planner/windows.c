/* When a stage must wait, whatever the times: what its order alone says.
 *
 * On stage s, between the end of F of a microbatch and the start of its B (or I), that microbatch
 * goes to the end of the chain and back. Call that a window. If the order puts less work into a
 * window than that journey takes, the rank idles for the rest. Windows that do not overlap idle
 * independently, so their idle times add up (search_bound.c).
 *
 * Chosen are: the window of the stage's first backward, that of its last forward if it begins
 * later, and between them the one that opens first, over and over. For 1F1B on rank p of K these
 * hold K-1-p forwards, K-1-p backwards, and in between as many of each; for the naive order
 * nothing. Windows with equal contents are counted together. */
#include <string.h>

#include "planner/planner_internal.h"

/* The actions of one stage in the order of its rank. */
typedef struct sequence {
    uint8_t *kinds;  /* [length] */
    uint32_t *which; /* [length] microbatches */
    size_t length;
    size_t *forward_at; /* [microbatches] place of F, and of B or I; SIZE_MAX: none */
    size_t *backward_at;
    int microbatches;
} sequence;

static bool is_backward(uint8_t kind) {
    return kind == PP_BACKWARD || kind == PP_INPUT;
}

static void gather(const pp_schedule *order, int stage, sequence *q) {
    int rank = order->placement[stage];
    q->length = 0;
    for (int m = 0; m < q->microbatches; m++) q->forward_at[m] = q->backward_at[m] = SIZE_MAX;
    for (size_t i = order->first_action[rank]; i < order->first_action[rank + 1]; i++) {
        pp_action action = order->actions[i];
        if (action.stage != stage || !pp_action_is_compute(action)) continue;
        if (action.kind == PP_FORWARD) q->forward_at[action.microbatch] = q->length;
        if (is_backward(action.kind)) q->backward_at[action.microbatch] = q->length;
        q->kinds[q->length] = action.kind;
        q->which[q->length++] = action.microbatch;
    }
}

/* ---- counting ------------------------------------------------------------------------------ */

static void count_actions(const sequence *q, size_t from, size_t to, pp_window *window) {
    for (size_t i = from; i < to; i++) {
        window->forwards += q->kinds[i] == PP_FORWARD;
        window->inputs += is_backward(q->kinds[i]);
        window->weights += q->kinds[i] == PP_WEIGHT || q->kinds[i] == PP_BACKWARD;
        window->recomputes += q->kinds[i] == PP_RECOMPUTE;
    }
}

static bool same_contents(const pp_window *a, const pp_window *b) {
    return a->forwards == b->forwards && a->inputs == b->inputs && a->weights == b->weights &&
           a->recomputes == b->recomputes;
}

/* Windows beyond the capacity are left out: that only weakens the bound. */
static void add_window(const sequence *q, uint32_t microbatch, pp_flow *flow) {
    pp_window window = {.count = 1, .small = (int)microbatch == q->microbatches - 1};
    count_actions(q, q->forward_at[microbatch] + 1, q->backward_at[microbatch], &window);
    for (int i = 0; i < flow->window_count; i++) {
        if (!same_contents(&flow->windows[i], &window)) continue;
        flow->windows[i].count++;
        flow->windows[i].small = flow->windows[i].small || window.small;
        return;
    }
    if (flow->window_count < PP_WINDOWS_MAX) flow->windows[flow->window_count++] = window;
}

/* ---- choosing ------------------------------------------------------------------------------ */

static size_t first_backward(const sequence *q) {
    size_t i = 0;
    while (i < q->length && !is_backward(q->kinds[i])) i++;
    return i;
}

static size_t last_forward(const sequence *q) {
    size_t i = q->length;
    while (i > 0 && q->kinds[i - 1] != PP_FORWARD) i--;
    return i - 1; /* every stage has one */
}

static bool has_window(const sequence *q, uint32_t microbatch) {
    return q->backward_at[microbatch] != SIZE_MAX &&
           q->backward_at[microbatch] > q->forward_at[microbatch];
}

static bool is_small(const sequence *q, size_t at) {
    return (int)q->which[at] == q->microbatches - 1;
}

/* Which of the actions that the bounds name are of the last microbatch. */
static void note_small(const sequence *q, size_t turn, pp_flow *flow) {
    bool begun = false;
    flow->turn_small = is_small(q, turn);
    for (size_t i = 0; i < q->length; i++) {
        bool forward = q->kinds[i] == PP_FORWARD;
        if (forward && !begun) flow->first_small = is_small(q, i);
        if (forward && i < turn && is_small(q, i)) flow->leading_small = true;
        if (is_backward(q->kinds[i])) flow->final_small = is_small(q, i);
        begun = begun || forward;
    }
}

static void choose_windows(const sequence *q, pp_flow *flow) {
    size_t turn = first_backward(q), final = last_forward(q);
    if (turn >= q->length || !has_window(q, q->which[turn])) return;
    pp_window leading = {0};
    count_actions(q, 0, turn, &leading);
    flow->leading = leading.forwards;
    flow->leading_recomputes = leading.recomputes;
    note_small(q, turn, flow);
    add_window(q, q->which[turn], flow);
    if (final <= turn) return;
    if (has_window(q, q->which[final])) add_window(q, q->which[final], flow);
    for (size_t at = turn + 1; at < final; at++) {
        uint32_t m = q->which[at];
        if (q->kinds[at] != PP_FORWARD || !has_window(q, m)) continue;
        if (q->backward_at[m] > final) continue;
        add_window(q, m, flow);
        at = q->backward_at[m];
    }
}

bool pp_flows_make(const pp_schedule *order, pp_arena *arena, pp_flow *flows) {
    size_t most = 0, microbatches = (size_t)order->microbatches;
    for (int p = 0; p < order->ranks; p++) {
        size_t length = order->first_action[p + 1] - order->first_action[p];
        if (length > most) most = length;
    }
    sequence q = {.kinds = PP_NEW(arena, uint8_t, most + 1),
                  .which = PP_NEW(arena, uint32_t, most + 1),
                  .forward_at = PP_NEW(arena, size_t, microbatches),
                  .backward_at = PP_NEW(arena, size_t, microbatches),
                  .microbatches = order->microbatches};
    if (arena->failed) return false;
    for (int s = 0; s < order->stages; s++) {
        gather(order, s, &q);
        choose_windows(&q, &flows[s]);
    }
    return true;
}
