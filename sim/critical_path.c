/* The critical path: from the action that ends last back to time 0, always to something that ended
 * (or whose output arrived) exactly when the action at hand started.
 *
 * Works on the spans of a trace. The end of each action is known from them, and from the spans of
 * transfers when its output left and arrived; outputs without such a span were there at once. A
 * start then equals, bit for bit (and with what a launch takes added to it), one of
 *   - the end of the rank's action before,
 *   - the arrival of what it needs from another stage; if the lane was taken, the path goes on with
 *     the transfer that held it,
 *   - the end of the last backward of the group whose gradients are reduced; where reductions run
 *     beside compute, a STEP goes back to the last backward whose gradients it waited for,
 *   - the moment when its data was read, where nothing stands before it,
 *   - under blocking, the end of the action before at the other end of the transfer. */
#include "sim/engine_internal.h"

#include <string.h>

typedef struct path {
    const pp_sim_input *input;
    const pp_schedule *schedule;
    const pp_trace *trace;
    const pp_span *spans;
    int *previous, *next;   /* [stages] */
    size_t *first_span;     /* [ranks + 1] */
    size_t *compute_end;    /* [ranks] behind the last span of a compute lane */
    size_t *output[2];      /* [stages · units] span of F; of B or I */
    size_t *ended;          /* [stages] span of the last compute action */
    size_t *lane_before;    /* [spans] the transfer before on the same lane; PP_NO_INDEX: none */
    double *sent_s;         /* [spans] when the output took its lane … */
    double *arrival_s;      /* [spans] … and arrived */
    size_t *before;         /* blocking: [spans] the one before in the rank's order */
    size_t *transfer[2][2]; /* blocking: [backward][sends][stages · units] its span */
    pp_schedule *lowered;   /* blocking: owned; NULL if the schedule has its transfers */
    pp_loading loading;
    pp_arena arena;
} path;

/* Of the unit that an action is of, on a stage. */
static size_t slot_of(const path *w, int stage, pp_action action) {
    return (size_t)stage * pp_stage_units(w->schedule) + pp_unit_in_stage(w->schedule, action);
}

/* ---- gathering ----------------------------------------------------------------------------- */

static void find_ranks(path *w) {
    size_t i = 0;
    for (int p = 0; p < w->schedule->ranks; p++) {
        w->first_span[p] = i;
        while (i < w->trace->span_count && w->spans[i].rank == p &&
               w->spans[i].lane == PP_LANE_COMPUTE)
            i++;
        w->compute_end[p] = i;
        while (i < w->trace->span_count && w->spans[i].rank == p) i++;
    }
    w->first_span[w->schedule->ranks] = i;
}

static bool is_output(pp_action action) {
    return action.kind == PP_FORWARD || action.kind == PP_BACKWARD || action.kind == PP_INPUT;
}

/* The span at whose end an action's outputs appear: its own, or that of its pair's second part. */
static size_t end_of_unit(const path *w, size_t i) {
    return w->spans[i].action.overlapped ? i + 1 : i;
}

static void find_outputs(path *w) {
    for (size_t i = 0; i < w->trace->span_count; i++) {
        pp_action action = w->spans[i].action;
        if (action.kind >= PP_COMPUTE_KINDS) continue;
        if (is_output(action))
            w->output[action.kind != PP_FORWARD][slot_of(w, action.stage, action)] = i;
        w->ended[action.stage] = end_of_unit(w, i);
    }
}

/* The lane to one rank, of the sender whose spans are being looked at. */
typedef struct lane {
    int sender;
    size_t holder;
} lane;

/* When each output of a rank leaves and arrives: at once, unless there is a span that says more. */
static void time_outputs(path *w, int p) {
    for (size_t i = w->first_span[p]; i < w->compute_end[p]; i++)
        w->sent_s[i] = w->arrival_s[i] = w->spans[end_of_unit(w, i)].end_s;
    for (size_t i = w->compute_end[p]; i < w->first_span[p + 1]; i++) {
        const pp_span *span = &w->spans[i];
        if (span->lane != PP_LANE_SEND || span->action.kind == PP_REDUCE_GRAD) continue;
        bool backward = span->action.kind == PP_SEND_B;
        size_t made = w->output[backward][slot_of(w, span->action.stage, span->action)];
        if (made == PP_NO_INDEX) continue;
        w->sent_s[made] = span->start_s;
        w->arrival_s[made] = span->end_s;
    }
}

/* Behind which other output each output of a rank takes its lane. lanes: [ranks], by receiver. */
static void send_rank(path *w, int p, lane *lanes) {
    for (size_t i = w->first_span[p]; i < w->compute_end[p]; i++) {
        pp_action action = w->spans[i].action;
        w->lane_before[i] = PP_NO_INDEX;
        if (!is_output(action)) continue;
        pp_sending sending =
            pp_action_sending(w->input, w->previous, w->next, action.stage, action.kind);
        if (sending.to < 0) continue;
        lane *to = &lanes[sending.to];
        if (to->sender != p) *to = (lane){.sender = p, .holder = PP_NO_INDEX};
        w->lane_before[i] = to->holder;
        to->holder = i;
    }
}

/* ---- one step back ------------------------------------------------------------------------- */

/* The producer of what an action needs from another stage; PP_NO_INDEX: nothing, or its own F. */
static size_t producer_of(const path *w, pp_action action) {
    bool forward = action.kind == PP_FORWARD;
    int stage = forward ? w->previous[action.stage] : w->next[action.stage];
    if (!is_output(action) || stage < 0) return PP_NO_INDEX;
    return w->output[!forward][slot_of(w, stage, action)];
}

/* What happened at time_s let something start at start_s. */
static bool follows(const path *w, double time_s, double start_s) {
    return time_s + w->input->launch_s == start_s;
}

/* The rank was free at time_s, and the action of span i started as soon as it then had its data. */
static bool follows_free(const path *w, size_t i, double time_s) {
    if (!w->input->prefetch) {
        time_s = pp_loaded_at(&w->loading, w->spans[i].action, time_s);
        if (w->spans[i].action.overlapped)
            time_s = pp_loaded_at(&w->loading, w->spans[i + 1].action, time_s);
    }
    return follows(w, time_s, w->spans[i].start_s);
}

/* If what `action` needs from elsewhere arrived exactly at start_s: the span that made it so. */
static size_t arrived_at(const path *w, pp_action action, double start_s) {
    size_t i = producer_of(w, action);
    if (i == PP_NO_INDEX || !follows(w, w->arrival_s[i], start_s)) return PP_NO_INDEX;
    while (w->sent_s[i] != w->spans[end_of_unit(w, i)].end_s) i = w->lane_before[i];
    return end_of_unit(w, i);
}

static size_t reduced_at(const path *w, int stage, double start_s) {
    const int *group = w->input->reduce_group;
    for (int s = 0; group && s < w->schedule->stages; s++)
        if (group[s] == group[stage] && w->ended[s] != PP_NO_INDEX &&
            follows(w, w->spans[w->ended[s]].end_s, start_s))
            return w->ended[s];
    return PP_NO_INDEX;
}

/* The last backward of the stages whose gradients a STEP waited for. */
static size_t sent_by(const path *w, int stage) {
    const int *group = w->input->reduce_group;
    bool tied = group && w->input->stage[stage].tie_transfer_s > 0;
    size_t last = w->ended[stage];
    for (int s = 0; tied && s < w->schedule->stages; s++)
        if (group[s] == group[stage] && w->ended[s] != PP_NO_INDEX &&
            w->spans[w->ended[s]].end_s > w->spans[last].end_s)
            last = w->ended[s];
    return last;
}

/* The second part of a pair that began before span i on its rank; then i is part of it. */
static bool is_second(const path *w, size_t i) {
    return i > w->first_span[w->spans[i].rank] && w->spans[i - 1].action.overlapped;
}

/* What ended when the action of span i started; PP_NO_INDEX at the beginning of time. */
static size_t step_back(const path *w, size_t i) {
    if (is_second(w, i)) return i - 1;
    const pp_span *span = &w->spans[i];
    if (i > w->first_span[span->rank] && follows_free(w, i, w->spans[i - 1].end_s)) return i - 1;
    if (span->start_s <= w->input->launch_s) return PP_NO_INDEX;
    if (span->action.kind == PP_REDUCE_GRAD)
        return reduced_at(w, span->action.stage, span->start_s);
    if (span->action.kind == PP_STEP) return sent_by(w, span->action.stage);
    size_t found = arrived_at(w, span->action, span->start_s);
    if (found == PP_NO_INDEX && span->action.overlapped)
        found = arrived_at(w, span[1].action, span->start_s);
    return found;
}

/* ---- blocking ------------------------------------------------------------------------------ */

static bool same_action(pp_action a, pp_action b) {
    return a.kind == b.kind && a.stage == b.stage && a.microbatch == b.microbatch &&
           a.slice == b.slice;
}

/* Spans are sorted by lane; the rank's own order of them is that of its actions. */
static void order_rank(path *w, int p) {
    size_t cursor[3], end = w->first_span[p + 1], last = PP_NO_INDEX;
    cursor[0] = w->first_span[p];
    for (int l = 1; l < 3; l++)
        for (cursor[l] = cursor[l - 1]; cursor[l] < end && w->spans[cursor[l]].lane < l;)
            cursor[l]++;
    for (size_t i = w->schedule->first_action[p]; i < w->schedule->first_action[p + 1]; i++) {
        pp_action action = w->schedule->actions[i];
        bool sends = action.kind == PP_SEND_F || action.kind == PP_SEND_B;
        int l = !pp_action_is_transfer(action) ? PP_LANE_COMPUTE
                : sends                        ? PP_LANE_SEND
                                               : PP_LANE_RECEIVE;
        size_t at = cursor[l];
        if (at >= end || !same_action(w->spans[at].action, action)) continue; /* took no time */
        cursor[l]++;
        w->before[at] = last;
        last = at;
        if (l == PP_LANE_COMPUTE) continue;
        bool forward = action.kind == PP_SEND_F || action.kind == PP_RECV_F;
        w->transfer[!forward][sends][slot_of(w, action.stage, action)] = at;
    }
}

static size_t other_end(const path *w, pp_action action) {
    bool sends = action.kind == PP_SEND_F || action.kind == PP_SEND_B;
    bool forward = action.kind == PP_SEND_F || action.kind == PP_RECV_F;
    int stage = sends == forward ? w->next[action.stage] : w->previous[action.stage];
    return w->transfer[!forward][!sends][slot_of(w, stage, action)];
}

/* Under blocking every wait is for a rank: the own one, the transfer's other, or a reducing one. */
static size_t step_back_blocking(const path *w, size_t i) {
    const pp_span *span = &w->spans[i];
    size_t before = w->before[i];
    bool transfer = pp_action_is_transfer(span->action);
    double before_s = before == PP_NO_INDEX ? 0 : w->spans[before].end_s;
    bool first = transfer ? before_s == span->start_s : follows_free(w, i, before_s);
    if (first) return before;
    if (is_second(w, i)) return i - 1;
    if (span->action.kind == PP_REDUCE_GRAD)
        return reduced_at(w, span->action.stage, span->start_s);
    if (span->action.kind == PP_STEP) return sent_by(w, span->action.stage);
    return transfer ? w->before[other_end(w, span->action)] : PP_NO_INDEX;
}

/* The order that was run: with its transfers, derived as the simulation derives them. */
static bool blocking_init(path *w) {
    size_t slots = (size_t)w->schedule->stages * pp_stage_units(w->schedule);
    for (int i = 0; i < 4; i++) w->transfer[i / 2][i % 2] = PP_NEW(&w->arena, size_t, slots);
    w->before = PP_NEW(&w->arena, size_t, w->trace->span_count);
    if (w->arena.failed) return false;
    if (!w->schedule->has_transfers) {
        if (pp_schedule_add_transfers(w->schedule, &w->lowered, NULL) != PP_OK) return false;
        w->schedule = w->lowered;
    }
    for (int p = 0; p < w->schedule->ranks; p++) order_rank(w, p);
    return true;
}

/* ---- the path ------------------------------------------------------------------------------ */

static bool path_init(path *w, const pp_sim_input *input, const pp_trace *trace) {
    const pp_schedule *schedule = input->schedule;
    size_t slots = (size_t)schedule->stages * pp_stage_units(schedule);
    *w = (path){.input = input, .schedule = schedule, .trace = trace, .spans = trace->spans};
    pp_arena_init(&w->arena);
    w->previous = PP_NEW(&w->arena, int, schedule->stages);
    w->next = PP_NEW(&w->arena, int, schedule->stages);
    w->first_span = PP_NEW(&w->arena, size_t, schedule->ranks + 1);
    w->compute_end = PP_NEW(&w->arena, size_t, schedule->ranks);
    w->output[0] = PP_NEW(&w->arena, size_t, slots);
    w->output[1] = PP_NEW(&w->arena, size_t, slots);
    w->ended = PP_NEW(&w->arena, size_t, schedule->stages);
    w->lane_before = PP_NEW(&w->arena, size_t, trace->span_count);
    w->sent_s = PP_NEW(&w->arena, double, trace->span_count);
    w->arrival_s = PP_NEW(&w->arena, double, trace->span_count);
    lane *lanes = PP_NEW(&w->arena, lane, schedule->ranks);
    if (w->arena.failed || pp_loading_make(&w->loading, input, &w->arena, NULL) != PP_OK)
        return false;
    for (int q = 0; q < schedule->ranks; q++) lanes[q].sender = -1;
    for (size_t i = 0; i < slots; i++) w->output[0][i] = w->output[1][i] = PP_NO_INDEX;
    for (int s = 0; s < schedule->stages; s++) w->ended[s] = PP_NO_INDEX;
    pp_chain_links(schedule, w->previous, w->next);
    find_ranks(w);
    find_outputs(w);
    if (input->blocking) return blocking_init(w);
    for (int p = 0; p < schedule->ranks; p++) {
        time_outputs(w, p);
        send_rank(w, p, lanes);
    }
    return true;
}

static size_t last_to_end(const path *w) {
    size_t last = PP_NO_INDEX;
    for (size_t i = 0; i < w->trace->span_count; i++) {
        bool counts = w->input->blocking || w->spans[i].lane == PP_LANE_COMPUTE;
        if (counts && (last == PP_NO_INDEX || w->spans[i].end_s > w->spans[last].end_s)) last = i;
    }
    return last;
}

size_t pp_critical_path(const pp_sim_input *input, const pp_sim_result *result, size_t *indices,
                        size_t capacity) {
    if (!result->trace || result->trace->span_count == 0) return 0;
    path w;
    size_t count = 0;
    if (path_init(&w, input, result->trace)) {
        size_t i = last_to_end(&w);
        /* a span is on the path once, so this ends even on spans that no engine made */
        for (; i != PP_NO_INDEX && count < result->trace->span_count; count++) {
            if (count < capacity) indices[count] = i;
            i = input->blocking ? step_back_blocking(&w, i) : step_back(&w, i);
        }
    }
    pp_schedule_free(w.lowered);
    pp_arena_deinit(&w.arena);
    return count < capacity ? count : capacity;
}
