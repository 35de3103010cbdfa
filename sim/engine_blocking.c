/* When, with blocking transfers: each rank has one queue for everything, a transfer begins when
 * both its ends have come to it, and both are held until it has ended (rendezvous, no buffering).
 *
 * The schedule has its transfers written out and has passed pp_schedule_check(blocking): each
 * action finds what it needs by the order of its own queue, so the only waits are those of two ends
 * for one another, and of a gradient reduction for its group.
 *
 * Where transfers share network cards, how long one takes depends on which others are under way, so
 * those that pass cards are events, taken in the order of their times: a beginning, once both ends
 * are there, the end of the occupancy, moved whenever a rate changes, and the arrival. Compute does
 * not depend on others and is done ahead: nothing that it leads to lies before the event at hand.
 */
#include "sim/engine_internal.h"
#include "sim/event_queue_internal.h"
#include "sim/fair_share_internal.h"

#include <math.h>

typedef enum waits_for { RUNNING, AT_TRANSFER, AT_REDUCTION, TRANSFERS, FINISHED } waits_for;

typedef struct cursor {
    size_t index, end;
    double time_s;
    pp_span *span[3]; /* by lane */
    waits_for waits;
    bool started;
} cursor;

/* What a rank sends over cards; it sends one thing at a time. */
typedef struct parcel {
    enum { BEGINS, MOVES, ARRIVES } phase;
    int to;
    double start_s, whole_s; /* alone it would take so long, … */
    double occupancy_s;      /* … of which it needs the cards so long */
    double left_s, since_s, rate;
    bool shared; /* it has not had its cards for itself throughout */
} parcel;

typedef struct engine {
    pp_run *run;
    cursor *cursors; /* [ranks] */
    parcel *parcels; /* [ranks] by sender; NULL: no cards are shared */
    pp_event_queue events;
    pp_network network;
    int32_t *stack; /* [ranks] that can go on */
    int depth;
    int finished;
} engine;

/* ---- transfers ----------------------------------------------------------------------------- */

typedef struct transfer {
    int peer;            /* rank; -1: the action is none, or has no other end */
    pp_action other_end; /* what the peer must have come to */
    double duration_s;
    double occupancy_s; /* of it, on cards; 0: it passes none */
    pp_lane lane;
} transfer;

/* What each kind of transfer meets at the other end. */
typedef struct end_rule {
    pp_action_kind other;
    bool to_next; /* the other end is the next stage, not the one before */
    bool receives;
} end_rule;

static const end_rule end_rules[PP_ACTION_KIND_COUNT] = {
    [PP_SEND_F] = {PP_RECV_F, true, false},
    [PP_RECV_F] = {PP_SEND_F, false, true},
    [PP_SEND_B] = {PP_RECV_B, false, false},
    [PP_RECV_B] = {PP_SEND_B, true, true},
};

static transfer transfer_of(const pp_run *run, pp_action action) {
    const end_rule *rule = &end_rules[action.kind];
    int stage = action.stage;
    int other = rule->to_next ? run->next[stage] : run->previous[stage];
    transfer t = {.peer = -1, .lane = rule->receives ? PP_LANE_RECEIVE : PP_LANE_SEND};
    if (other < 0) return t;
    int sender = rule->receives ? other : stage;
    bool forward = action.kind == PP_SEND_F || action.kind == PP_RECV_F;
    pp_action made = action;
    made.stage = (uint16_t)sender;
    made.kind = (unsigned)(forward ? PP_FORWARD : PP_BACKWARD) & 0x7fu;
    pp_sending sending = pp_action_transfer(run, made);
    if (sending.to < 0) return t; /* between stages of one rank: free */
    t.peer = run->schedule->placement[other];
    t.duration_s = sending.occupancy_s + sending.latency_s;
    if (pp_passes_cards(run, sender, !forward)) t.occupancy_s = sending.occupancy_s;
    t.other_end = action;
    t.other_end.kind = (uint8_t)((unsigned)rule->other & 0x7fu);
    t.other_end.stage = (uint16_t)other;
    return t;
}

static bool same_action(pp_action a, pp_action b) {
    return a.kind == b.kind && a.stage == b.stage && a.microbatch == b.microbatch &&
           a.slice == b.slice;
}

/* ---- one rank ------------------------------------------------------------------------------ */

static void wake(engine *e, int rank) {
    e->cursors[rank].waits = RUNNING;
    e->stack[e->depth++] = rank;
}

static void keep(engine *e, int rank, pp_lane lane, pp_action action, double start_s,
                 double end_s) {
    cursor *c = &e->cursors[rank];
    if (!c->span[lane]) return;
    *c->span[lane]++ = (pp_span){
        .start_s = start_s, .end_s = end_s, .action = action, .rank = rank, .lane = (uint8_t)lane};
}

static void start_rank(engine *e, int rank, double start_s) {
    cursor *c = &e->cursors[rank];
    if (!c->started) e->run->times[rank].first_start_s = start_s;
    c->started = true;
}

/* The end of a transfer for one of its two ranks. */
static void pass(engine *e, int rank, pp_lane lane, double start_s, double end_s) {
    cursor *c = &e->cursors[rank];
    start_rank(e, rank, start_s);
    keep(e, rank, lane, e->run->schedule->actions[c->index], start_s, end_s);
    c->time_s = end_s;
    c->index++;
}

/* ---- cards --------------------------------------------------------------------------------- */

/* Both ends are there at start_s. */
static void begin_on_cards(engine *e, int rank, const transfer *t, double start_s) {
    int from = t->lane == PP_LANE_SEND ? rank : t->peer;
    e->parcels[from] = (parcel){.phase = BEGINS,
                                .to = from == rank ? t->peer : rank,
                                .start_s = start_s,
                                .whole_s = t->duration_s,
                                .occupancy_s = t->occupancy_s};
    e->cursors[rank].waits = e->cursors[t->peer].waits = TRANSFERS;
    pp_events_set(&e->events, from, start_s);
}

/* The parcels whose rates the last change of the network has set. */
static void take_rates(engine *e, double now_s) {
    for (int i = 0; i < e->network.changed_count; i++) {
        int from = e->network.changed[i];
        parcel *at = &e->parcels[from];
        double rate = e->network.flows[from].rate;
        if (rate == at->rate) continue;
        at->left_s = fmax(0, at->left_s - (now_s - at->since_s) * at->rate);
        at->since_s = now_s;
        at->rate = rate;
        if (rate < 1) at->shared = true;
        pp_events_set(&e->events, from, now_s + at->left_s / rate);
    }
}

static void enter_network(engine *e, int from, double now_s) {
    const pp_sim_cards *cards = e->run->input->cards;
    parcel *at = &e->parcels[from];
    pp_flow *flow = &e->network.flows[from];
    flow->card[0] = pp_card_out(cards->node[from]);
    flow->card[1] = pp_card_in(cards->node[at->to]);
    flow->copies = cards->copies ? cards->copies[from] : 1;
    at->left_s = at->occupancy_s;
    at->since_s = now_s;
    at->rate = 0;
    at->phase = MOVES;
    pp_network_start(&e->network, from);
    take_rates(e, now_s);
}

static void leave_network(engine *e, int from, double now_s) {
    parcel *at = &e->parcels[from];
    double latency_s = at->whole_s - at->occupancy_s;
    at->phase = ARRIVES;
    pp_network_stop(&e->network, from);
    take_rates(e, now_s);
    pp_events_set(&e->events, from, at->shared ? now_s + latency_s : at->start_s + at->whole_s);
}

static void handle(engine *e, int from) {
    double now_s = e->events.time_s[from];
    parcel *at = &e->parcels[from];
    if (at->phase == BEGINS) {
        enter_network(e, from, now_s);
    } else if (at->phase == MOVES) {
        leave_network(e, from, now_s);
    } else {
        pass(e, from, PP_LANE_SEND, at->start_s, now_s);
        pass(e, at->to, PP_LANE_RECEIVE, at->start_s, now_s);
        wake(e, from);
        wake(e, at->to);
    }
}

/* ---- one action ---------------------------------------------------------------------------- */

/* False: the rank cannot go on yet. */
static bool run_transfer(engine *e, int rank, pp_action action) {
    cursor *c = &e->cursors[rank];
    transfer t = transfer_of(e->run, action);
    if (t.peer < 0) {
        c->index++;
        return true;
    }
    cursor *peer = &e->cursors[t.peer];
    if (peer->waits != AT_TRANSFER ||
        !same_action(e->run->schedule->actions[peer->index], t.other_end)) {
        c->waits = AT_TRANSFER;
        return false;
    }
    double start_s = c->time_s > peer->time_s ? c->time_s : peer->time_s;
    if (e->parcels && t.occupancy_s > 0) {
        begin_on_cards(e, rank, &t, start_s);
        return false;
    }
    double end_s = start_s + t.duration_s;
    pass(e, rank, t.lane, start_s, end_s);
    pass(e, t.peer, t.lane == PP_LANE_SEND ? PP_LANE_RECEIVE : PP_LANE_SEND, start_s, end_s);
    wake(e, t.peer);
    return true;
}

static bool may_update(engine *e, int rank, pp_action action) {
    cursor *c = &e->cursors[rank];
    if (pp_update_ready(e->run, rank, action, &c->time_s)) return true;
    c->waits = AT_REDUCTION;
    return false;
}

static void end_action(engine *e, int rank, size_t index, double start_s, double from_s,
                       double end_s) {
    keep(e, rank, PP_LANE_COMPUTE, e->run->schedule->actions[index], from_s, end_s);
    int32_t woken = pp_run_observe(e->run, rank, index, start_s, e->cursors[rank].time_s);
    while (woken >= 0) {
        int32_t following = e->run->next_waiting[woken];
        wake(e, woken);
        woken = following;
    }
}

static void run_compute(engine *e, int rank, pp_action action) {
    cursor *c = &e->cursors[rank];
    double free_s = pp_loaded_at(&e->run->loading, action, c->time_s);
    if (action.overlapped)
        free_s = pp_loaded_at(&e->run->loading, e->run->schedule->actions[c->index + 1], free_s);
    double start_s = free_s + e->run->input->launch_s, middle_s;
    pp_rank_times *times = &e->run->times[rank];
    start_rank(e, rank, start_s);
    pp_reduction_set_off(e->run, rank, action, start_s);
    if (action.overlapped) {
        pp_action second = e->run->schedule->actions[c->index + 1];
        pp_pair_duration pair = pp_pair_time(e->run->input, action, second);
        middle_s = start_s + pair.first_s;
        c->time_s = start_s + pair.total_s;
        times->compute_s += pair.total_s;
        end_action(e, rank, c->index, start_s, start_s, middle_s);
        end_action(e, rank, c->index + 1, start_s, middle_s, c->time_s);
        c->index += 2;
        return;
    }
    double duration_s = pp_action_duration(e->run->input, action);
    c->time_s = start_s + duration_s;
    *(action.kind < PP_COMPUTE_KINDS ? &times->compute_s : &times->update_s) += duration_s;
    end_action(e, rank, c->index++, start_s, start_s, c->time_s);
}

static void run_rank(engine *e, int rank) {
    cursor *c = &e->cursors[rank];
    while (c->index < c->end) {
        pp_action action = e->run->schedule->actions[c->index];
        if (pp_action_is_transfer(action)) {
            if (!run_transfer(e, rank, action)) return;
        } else if (action.kind == PP_UNSHARD || action.kind == PP_RESHARD) {
            c->index++;
        } else {
            if (!may_update(e, rank, action)) return;
            run_compute(e, rank, action);
        }
    }
    c->waits = FINISHED;
    e->run->times[rank].last_end_s = c->time_s;
    e->finished++;
}

/* ---- setting up ---------------------------------------------------------------------------- */

/* Spans are sorted by lane within a rank: how many of each there are says where each lane begins.
 */
static void place_spans(const engine *e, int rank) {
    cursor *c = &e->cursors[rank];
    size_t count[2] = {0, 0};
    for (size_t i = c->index; i < c->end; i++) {
        pp_action action = e->run->schedule->actions[i];
        if (!pp_action_is_transfer(action)) continue;
        transfer t = transfer_of(e->run, action);
        if (t.peer >= 0 && t.lane == PP_LANE_SEND) count[1]++;
    }
    count[0] = e->run->order[rank].span_count;
    c->span[PP_LANE_COMPUTE] = e->run->spans + e->run->first_span[rank];
    c->span[PP_LANE_SEND] = c->span[PP_LANE_COMPUTE] + count[0];
    c->span[PP_LANE_RECEIVE] = c->span[PP_LANE_SEND] + count[1];
}

size_t pp_blocking_transfer_count(const pp_run *run, int rank) {
    size_t count = 0;
    for (size_t i = run->schedule->first_action[rank]; i < run->schedule->first_action[rank + 1];
         i++) {
        pp_action action = run->schedule->actions[i];
        if (pp_action_is_transfer(action) && transfer_of(run, action).peer >= 0) count++;
    }
    return count;
}

static pp_status set_cards(engine *e, pp_error *error) {
    bool shared;
    pp_arena *arena = e->run->arena;
    int ranks = e->run->schedule->ranks;
    PP_TRY(pp_cards_shared(e->run, &shared, error));
    if (!shared) return PP_OK;
    e->parcels = PP_NEW(arena, parcel, ranks);
    pp_events_init(&e->events, ranks, arena);
    pp_network_init(&e->network, pp_card_count(e->run->input), ranks, arena);
    return arena->failed ? pp_fail_memory(error) : PP_OK;
}

static pp_status engine_init(engine *e, pp_run *run, pp_error *error) {
    const pp_schedule *schedule = run->schedule;
    *e = (engine){.run = run,
                  .cursors = PP_NEW(run->arena, cursor, schedule->ranks),
                  .stack = PP_NEW(run->arena, int32_t, schedule->ranks)};
    if (run->arena->failed) return pp_fail_memory(error);
    for (int p = schedule->ranks - 1; p >= 0; p--) {
        e->cursors[p].index = schedule->first_action[p];
        e->cursors[p].end = schedule->first_action[p + 1];
        if (run->spans) place_spans(e, p);
        wake(e, p);
    }
    return set_cards(e, error);
}

/* ---- running ------------------------------------------------------------------------------- */

/* The next thing on the cards. False: nothing is under way. */
static bool next_event(engine *e) {
    int from = e->parcels ? pp_events_take(&e->events) : -1;
    if (from >= 0) handle(e, from);
    return from >= 0;
}

pp_status pp_engine_run_blocking(pp_run *run, pp_error *error) {
    engine e;
    PP_TRY(engine_init(&e, run, error));
    while (e.depth > 0 || next_event(&e)) {
        if (e.depth > 0) run_rank(&e, e.stack[--e.depth]);
        if (pp_stop_signal())
            return pp_fail(error, PP_E_INTERRUPTED, NULL, "the simulation was interrupted");
    }
    if (e.finished == run->schedule->ranks) return PP_OK;
    return pp_fail(error, PP_E_DEADLOCK, NULL,
                   "%d of %d ranks cannot finish under blocking transfers",
                   run->schedule->ranks - e.finished, run->schedule->ranks);
}
