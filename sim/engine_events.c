/* When, in general: a simulation by events, for what no longest path can say. Transfers between
 * nodes share network cards, so that how long one takes depends on who else is there; and compute
 * of a rank may be slower while it transfers.
 *
 * Actors are lanes (one for each directed pair of ranks, which does one transfer after the other)
 * and ranks. Each has at most one event to come: a lane the end of its transfer, a rank the end of
 * its action, or its start, where it matters what goes on meanwhile. When rates change, the events
 * of those concerned are moved. Work that is left is counted in seconds at full speed, and only
 * touched when a speed changes: where nothing is shared and nothing slowed, the same sums are
 * formed as in engine.c, and all times are equal to the last bit.
 *
 * An arrival is no event: when a transfer ends it is known when its data will be there. */
#include "sim/engine_internal.h"
#include "sim/event_queue_internal.h"
#include "sim/fair_share_internal.h"

#include <math.h>

/* What a rank does next, or is doing: an action or an overlapped pair. */
typedef enum phase { AWAITS_DATA, AWAITS_GROUP, STARTING, RUNNING, FINISHED } phase;

typedef struct actor {
    size_t index, end;
    double time_s; /* end of the action before index */
    phase phase;
    double start_s, middle_s; /* of the action at index; pairs: where they are cut */
    double nominal_s;         /* it takes at full speed … */
    double left_s, since_s;   /* … of which so much was left then */
    bool slowed, was_slowed;
    int transfers; /* being sent or received */
    bool started;
    pp_span *span;
} actor;

typedef struct lane {
    int from, to;      /* ranks */
    int flow;          /* in the network; -1: the link is not shared */
    size_t head, tail; /* actions whose outputs wait for the lane, then PP_NO_INDEX */
    bool busy;
    double sent_s, left_s, since_s, rate;
} lane;

/* An output that waits for its lane. */
typedef struct parcel {
    double made_s;
    size_t next;
} parcel;

typedef struct engine {
    pp_run *run;
    actor *actors; /* [ranks] */
    lane *lanes;   /* [lane_count] */
    int lane_count;
    int *lane_of[2];       /* [backward][stages] lane that outputs of the stage take; -1: none */
    parcel *parcels;       /* [actions] */
    double *arrival[2];    /* [backward][stages · units] when an output is there; NAN: not known */
    pp_event_queue events; /* lanes, then ranks */
    pp_network network;
    double slowdown;
    double now_s;
    int finished;
} engine;

/* ---- setting up ---------------------------------------------------------------------------- */

static bool is_backward(pp_action_kind kind) {
    return kind != PP_FORWARD;
}

static pp_sending sending_of(const engine *e, int stage, bool backward) {
    return pp_action_sending(e->run->input, e->run->previous, e->run->next, stage,
                             backward ? PP_BACKWARD : PP_FORWARD);
}

/* Lane from p to q; [first, …) are those of p. */
static int find_lane(engine *e, int first, int p, int q) {
    for (int l = first; l < e->lane_count; l++)
        if (e->lanes[l].to == q) return l;
    e->lanes[e->lane_count] =
        (lane){.from = p, .to = q, .flow = -1, .head = PP_NO_INDEX, .tail = PP_NO_INDEX};
    return e->lane_count++;
}

static pp_status set_lanes(engine *e, pp_error *error) {
    const int *rank_first, *stages;
    const pp_schedule *schedule = e->run->schedule;
    PP_TRY(pp_stages_by_rank(schedule, e->run->arena, &rank_first, &stages, error));
    for (int p = 0; p < schedule->ranks; p++) {
        int first = e->lane_count;
        for (int i = 2 * rank_first[p]; i < 2 * rank_first[p + 1]; i++) {
            int s = stages[i / 2], backward = i % 2;
            pp_sending sending = sending_of(e, s, backward);
            e->lane_of[backward][s] = sending.to < 0 ? -1 : find_lane(e, first, p, sending.to);
        }
    }
    return PP_OK;
}

/* A flow for each lane that passes cards. */
static void set_flows(engine *e) {
    const pp_sim_cards *cards = e->run->input->cards;
    const pp_schedule *schedule = e->run->schedule;
    for (int s = 0; cards && s < schedule->stages; s++)
        for (int backward = 0; backward < 2; backward++) {
            int l = e->lane_of[backward][s];
            if (l < 0 || !pp_passes_cards(e->run, s, backward)) continue;
            lane *at = &e->lanes[l];
            pp_flow *flow = &e->network.flows[l];
            at->flow = l;
            flow->card[0] = pp_card_out(cards->node[at->from]);
            flow->card[1] = pp_card_in(cards->node[at->to]);
            flow->copies = cards->copies ? cards->copies[at->from] : 1;
        }
}

static void set_actors(engine *e) {
    const pp_run *run = e->run;
    for (int p = 0; p < run->schedule->ranks; p++) {
        actor *a = &e->actors[p];
        a->index = run->schedule->first_action[p];
        a->end = run->schedule->first_action[p + 1];
        if (run->spans) a->span = run->spans + run->first_span[p];
    }
}

static pp_status engine_init(engine *e, pp_run *run, pp_error *error) {
    const pp_schedule *schedule = run->schedule;
    pp_arena *arena = run->arena;
    size_t stages = (size_t)schedule->stages, slots = stages * pp_stage_units(schedule);
    int lanes = 2 * schedule->stages, cards = pp_card_count(run->input);
    double slowdown = run->input->transfer_slowdown;
    *e = (engine){.run = run,
                  .slowdown = slowdown > 1 ? slowdown : 1,
                  .actors = PP_NEW(arena, actor, schedule->ranks),
                  .lanes = PP_NEW(arena, lane, lanes),
                  .parcels = PP_NEW(arena, parcel, schedule->first_action[schedule->ranks])};
    for (int backward = 0; backward < 2; backward++) {
        e->lane_of[backward] = PP_NEW(arena, int, stages);
        e->arrival[backward] = PP_NEW(arena, double, slots);
    }
    if (cards > 0) pp_network_init(&e->network, cards, lanes, arena);
    if (arena->failed) return pp_fail_memory(error);
    for (size_t i = 0; i < slots; i++) e->arrival[0][i] = e->arrival[1][i] = NAN;
    PP_TRY(set_lanes(e, error));
    set_flows(e);
    set_actors(e);
    pp_events_init(&e->events, e->lane_count + schedule->ranks, arena);
    return arena->failed ? pp_fail_memory(error) : PP_OK;
}

/* ---- ranks: what comes next ------------------------------------------------------------------ */

static double *slot_of(const engine *e, bool backward, int stage, pp_action action) {
    const pp_schedule *schedule = e->run->schedule;
    return &e->arrival[backward][(size_t)stage * pp_stage_units(schedule) +
                                 pp_unit_in_stage(schedule, action)];
}

/* False: what it needs from another stage is not known to come. Else start_s may become later. */
static bool compute_ready(const engine *e, pp_action action, double *start_s) {
    if (action.kind == PP_WEIGHT || action.kind == PP_RECOMPUTE) return true;
    bool backward = is_backward(action.kind);
    int from = backward ? e->run->next[action.stage] : e->run->previous[action.stage];
    if (from < 0) return true;
    double arrival_s = *slot_of(e, backward, from, action);
    if (arrival_s > *start_s) *start_s = arrival_s;
    return !isnan(arrival_s);
}

static bool is_ready(engine *e, int rank, const pp_action *action, double *start_s) {
    if (action->kind >= PP_COMPUTE_KINDS) return pp_update_ready(e->run, rank, *action, start_s);
    *start_s = pp_loaded_at(&e->run->loading, action[0], *start_s);
    if (action->overlapped) *start_s = pp_loaded_at(&e->run->loading, action[1], *start_s);
    bool ready = compute_ready(e, action[0], start_s);
    return action->overlapped ? compute_ready(e, action[1], start_s) && ready : ready;
}

static bool takes_time(pp_action action) {
    return action.kind < PP_COMPUTE_KINDS || action.kind == PP_REDUCE_GRAD ||
           action.kind == PP_STEP;
}

static void set_event(engine *e, int rank, double time_s) {
    pp_events_set(&e->events, e->lane_count + rank, time_s);
}

/* The action at index starts now, or is known to start at start_s. */
static void begin(engine *e, int rank) {
    actor *a = &e->actors[rank];
    const pp_action *action = &e->run->schedule->actions[a->index];
    a->phase = RUNNING;
    pp_reduction_set_off(e->run, rank, *action, a->start_s);
    if (action->overlapped) {
        pp_pair_duration pair = pp_pair_time(e->run->input, action[0], action[1]);
        a->nominal_s = pair.total_s;
        a->middle_s = a->start_s + pair.first_s;
    } else {
        a->nominal_s = pp_action_duration(e->run->input, *action);
    }
    a->left_s = a->nominal_s;
    a->since_s = a->start_s;
    a->slowed = a->was_slowed = e->slowdown > 1 && a->transfers > 0;
    set_event(e, rank, a->start_s + (a->slowed ? a->left_s * e->slowdown : a->left_s));
}

/* Looks at the rank's next action: it starts, will, or has to wait. */
static void advance(engine *e, int rank) {
    actor *a = &e->actors[rank];
    const pp_action *actions = e->run->schedule->actions;
    while (a->index < a->end && !takes_time(actions[a->index])) a->index++;
    if (a->index == a->end) {
        a->phase = FINISHED;
        e->run->times[rank].last_end_s = a->time_s;
        e->finished++;
        return;
    }
    double start_s = a->time_s;
    a->phase = actions[a->index].kind >= PP_COMPUTE_KINDS ? AWAITS_GROUP : AWAITS_DATA;
    if (!is_ready(e, rank, &actions[a->index], &start_s)) return;
    a->start_s = start_s + e->run->input->launch_s;
    if (!a->started) e->run->times[rank].first_start_s = a->start_s;
    a->started = true;
    a->phase = STARTING;
    if (e->slowdown > 1)
        set_event(e, rank, a->start_s);
    else
        begin(e, rank);
}

/* ---- speeds -------------------------------------------------------------------------------- */

/* One transfer more or less at this rank. */
static void count_transfer(engine *e, int rank, int change) {
    actor *a = &e->actors[rank];
    a->transfers += change;
    bool slowed = e->slowdown > 1 && a->transfers > 0;
    if (a->phase != RUNNING || slowed == a->slowed) return;
    double passed_s = e->now_s - a->since_s;
    a->left_s = fmax(0, a->left_s - (a->slowed ? passed_s / e->slowdown : passed_s));
    a->since_s = e->now_s;
    a->slowed = slowed;
    a->was_slowed = true;
    set_event(e, rank, e->now_s + (slowed ? a->left_s * e->slowdown : a->left_s));
}

/* The flows whose rates the last change of the network has set. */
static void take_rates(engine *e) {
    for (int i = 0; i < e->network.changed_count; i++) {
        int l = e->network.changed[i];
        lane *at = &e->lanes[l];
        double rate = e->network.flows[l].rate;
        if (rate == at->rate) continue;
        at->left_s = fmax(0, at->left_s - (e->now_s - at->since_s) * at->rate);
        at->since_s = e->now_s;
        at->rate = rate;
        pp_events_set(&e->events, l, e->now_s + at->left_s / rate);
    }
}

/* ---- lanes --------------------------------------------------------------------------------- */

static void append(engine *e, lane *at, size_t index, double made_s) {
    e->parcels[index] = (parcel){made_s, PP_NO_INDEX};
    if (at->head == PP_NO_INDEX)
        at->head = index;
    else
        e->parcels[at->tail].next = index;
    at->tail = index;
}

/* The first parcel of the lane has been sent at sent_s and leaves it now. */
static void arrive(engine *e, int l, double sent_s) {
    lane *at = &e->lanes[l];
    size_t index = at->head;
    pp_action action = e->run->schedule->actions[index];
    bool backward = is_backward(action.kind);
    double arrival_s = e->now_s + pp_action_transfer(e->run, action).latency_s;
    at->head = e->parcels[index].next;
    if (e->run->transfers && arrival_s > e->parcels[index].made_s)
        pp_run_keep_transfer(e->run, action, sent_s, arrival_s);
    *slot_of(e, backward, action.stage, action) = arrival_s;
    if (e->actors[at->to].phase == AWAITS_DATA) advance(e, at->to);
}

/* The lane is free: sends what waits, until something takes time. */
static void send_next(engine *e, int l) {
    lane *at = &e->lanes[l];
    while (at->head != PP_NO_INDEX) {
        pp_action action = e->run->schedule->actions[at->head];
        pp_sending sending = pp_action_transfer(e->run, action);
        if (sending.occupancy_s <= 0) {
            arrive(e, l, e->now_s);
            continue;
        }
        at->busy = true;
        at->sent_s = at->since_s = e->now_s;
        at->left_s = sending.occupancy_s;
        at->rate = at->flow >= 0 ? 0 : 1;
        count_transfer(e, at->from, 1);
        count_transfer(e, at->to, 1);
        if (at->flow < 0) {
            pp_events_set(&e->events, l, e->now_s + at->left_s);
            return;
        }
        pp_network_start(&e->network, at->flow);
        take_rates(e);
        return;
    }
}

static void end_transfer(engine *e, int l) {
    lane *at = &e->lanes[l];
    at->busy = false;
    count_transfer(e, at->from, -1);
    count_transfer(e, at->to, -1);
    if (at->flow >= 0) {
        pp_network_stop(&e->network, at->flow);
        take_rates(e);
    }
    arrive(e, l, at->sent_s);
    send_next(e, l);
}

/* The output of an action that has just ended. */
static void deliver(engine *e, size_t index) {
    pp_action action = e->run->schedule->actions[index];
    if (action.kind == PP_WEIGHT || action.kind >= PP_RECOMPUTE) return;
    bool backward = is_backward(action.kind);
    int l = e->lane_of[backward][action.stage];
    if (l < 0) { /* to a stage of this rank, if to any */
        *slot_of(e, backward, action.stage, action) = e->now_s;
        return;
    }
    append(e, &e->lanes[l], index, e->now_s);
    if (!e->lanes[l].busy) send_next(e, l);
}

/* ---- ends of actions ----------------------------------------------------------------------- */

static void keep_spans(actor *a, int rank, const pp_action *action, double end_s) {
    int parts = action->overlapped ? 2 : 1;
    for (int part = 0; a->span && part < parts; part++)
        *a->span++ = (pp_span){.start_s = part ? a->middle_s : a->start_s,
                               .end_s = part == parts - 1 ? end_s : a->middle_s,
                               .action = action[part],
                               .rank = rank,
                               .lane = PP_LANE_COMPUTE};
}

static void account(engine *e, int rank, const pp_action *action) {
    actor *a = &e->actors[rank];
    double taken_s = a->was_slowed ? e->now_s - a->start_s : a->nominal_s;
    if (a->was_slowed && action->overlapped && a->nominal_s > 0)
        a->middle_s = a->start_s + (a->middle_s - a->start_s) * (taken_s / a->nominal_s);
    if (action->kind < PP_COMPUTE_KINDS)
        e->run->times[rank].compute_s += taken_s;
    else
        e->run->times[rank].update_s += taken_s;
}

static void wake(engine *e, int32_t rank) {
    while (rank >= 0) {
        int32_t following = e->run->next_waiting[rank];
        advance(e, rank);
        rank = following;
    }
}

static void end_action(engine *e, int rank) {
    actor *a = &e->actors[rank];
    size_t first = a->index;
    const pp_action *action = &e->run->schedule->actions[first];
    size_t parts = action->overlapped ? 2 : 1;
    account(e, rank, action);
    keep_spans(a, rank, action, e->now_s);
    a->time_s = e->now_s;
    a->index += parts;
    a->phase = STARTING; /* deliveries to itself must not start it twice */
    for (size_t part = 0; part < parts; part++) {
        int32_t woken = pp_run_observe(e->run, rank, first + part, a->start_s, e->now_s);
        deliver(e, first + part);
        wake(e, woken);
    }
    advance(e, rank);
}

/* ---- running ------------------------------------------------------------------------------- */

static void handle(engine *e, int id) {
    e->now_s = e->events.time_s[id];
    if (id < e->lane_count) {
        end_transfer(e, id);
        return;
    }
    int rank = id - e->lane_count;
    if (e->actors[rank].phase == STARTING)
        begin(e, rank);
    else
        end_action(e, rank);
}

static pp_status stuck(const engine *e, pp_error *error) {
    int p = 0;
    while (e->actors[p].phase == FINISHED) p++;
    char text[32];
    return pp_fail(
        error, PP_E_DEADLOCK, NULL,
        "%d of %d ranks cannot finish: rank %d waits at %s for something that never comes",
        e->run->schedule->ranks - e->finished, e->run->schedule->ranks, p,
        pp_action_text(e->run->schedule->actions[e->actors[p].index], text));
}

pp_status pp_engine_run_events(pp_run *run, pp_error *error) {
    engine e;
    PP_TRY(engine_init(&e, run, error));
    for (int p = 0; p < run->schedule->ranks; p++) advance(&e, p);
    int id;
    for (uint32_t count = 0; (id = pp_events_take(&e.events)) >= 0; count++) {
        handle(&e, id);
        if (count % 4096 == 0 && pp_stop_signal())
            return pp_fail(error, PP_E_INTERRUPTED, NULL, "the simulation was interrupted");
    }
    return e.finished == run->schedule->ranks ? PP_OK : stuck(&e, error);
}
