/* When: the longest path through an order, in one pass.
 *
 * The graph is never built. An action starts when the one before it on its rank has ended and what
 * it needs from a neighbouring stage has arrived:
 *
 *   F(s,m)  F(s-1,m)       B(s,m), I(s,m)  B or I(s+1,m)       last stage: its own F(s,m)
 *
 * Each rank has a cursor into its actions. It advances until something has not arrived; then the
 * rank leaves its microbatch number with the producer (`awaited`), and the producer, when it gets
 * there, puts the rank back among those that can go on. Every action is looked at once, plus once
 * per wait: O(n).
 *
 * One array holds a time per (stage, microbatch): first when the output of F arrives at the next
 * stage, later, with the sign bit set, when the gradient of B or I arrives at the stage before. By
 * then the first is no longer needed: the backward of s waits for the next stage's, which waited
 * for F(s). As bit patterns read as signed integers, gradients < outputs < NOTHING, so that "has it
 * arrived" is one comparison whatever is waited for.
 *
 * Transfers of a directed pair of ranks have one sender, whose order is theirs, so a lane is one
 * number: when it is free again.
 *
 * Of microbatches cut into slices each slice has a slot of its own. That slices of a stage follow
 * each other is a matter of its rank's order alone, which has been checked. */
#include "sim/engine_internal.h"

#include <math.h>
#include <string.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

#define NOTHING INT64_C(0x7ff8000000000000) /* a NaN: neither output nor gradient is there */
#define NOBODY UINT32_MAX                   /* no unit is awaited */
#define ROW_PADDING                                                                                \
    8 /* slots between rows, so that rows of 2^n microbatches do not share cache sets */

/* What is waited for of a stage; W and R are not. In an array of their own, since a word is left
 * with another stage, whose steps the cache may not have. */
enum { MAIL_OUTPUT, MAIL_GRADIENT, MAIL_NONE, MAIL_ROW = 4 };

/* One kind of action of one stage, as the loop wants it: one cache line. */
typedef struct step {
    const int64_t *producer; /* [units] row of what it waits for */
    int64_t ready_below;     /* … which is there when less than this */
    int64_t *slot;           /* [units] row of its own output */
    double duration_s;
    double latency_s, occupancy_s; /* of sending the output */
    uint32_t index_mask;           /* all ones; 0: W and R, which wait for and send nothing */
    uint32_t mail;                 /* where word is left by who waits for the output */
    uint32_t lane;
    uint16_t consumer; /* that rank */
    uint16_t is_gradient;
} step;

_Static_assert(sizeof(step) == 64, "a step is one cache line");

/* Where a rank stands. */
typedef struct cursor {
    size_t index, end;
    size_t stop;        /* … the loop may run up to here: the next mark, or end */
    const size_t *mark; /* the next index at which the careful way is taken; PP_NO_INDEX ends */
    double time_s;      /* end of the action before index */
    double busy_s;
    pp_span *span; /* where the next one goes */
    bool started;
} cursor;

typedef struct engine {
    pp_run *run;
    step *steps;                         /* [stages · PP_COMPUTE_KINDS] */
    cursor *cursors;                     /* [ranks] */
    double *lane_free_s;                 /* [lanes] */
    const int *rank_stages, *rank_first; /* stages by rank: rank_stages[rank_first[p] …] */
    int64_t *slots;                      /* [stages] rows */
    int64_t nothing;                     /* what steps read that wait for nothing … */
    int64_t waste;                       /* … and where they write that send nothing */
    uint32_t *awaited; /* [stages][MAIL_ROW] units whose F, or B or I, a rank waits for */
    uint32_t *stack;   /* [ranks] those that can go on */
    uint32_t depth;
    double scale; /* of the durations of microbatch M-1 */
    int finished;
    bool has_lanes;
    bool has_extras; /* slices, chains, random durations, launches that take time, data to read */
} engine;

static ALWAYS_INLINE int64_t bits_of(double value) {
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static ALWAYS_INLINE double time_of(int64_t bits) {
    bits &= INT64_MAX;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- setting up ---------------------------------------------------------------------------- */

static int64_t *row_of(const engine *e, int stage) {
    return e->slots + (size_t)stage * (pp_stage_units(e->run->schedule) + ROW_PADDING);
}

/* What an action waits for, besides its rank. */
static void set_producer(const engine *e, step *st, int stage, pp_action_kind kind) {
    const pp_run *run = e->run;
    bool needs_nothing = kind == PP_WEIGHT || kind == PP_RECOMPUTE;
    st->producer = needs_nothing ? &e->nothing : row_of(e, stage);
    st->ready_below = INT64_MAX; /* what it needs is of its own rank: the order has been checked */
    if (kind == PP_FORWARD && run->previous[stage] >= 0) {
        st->producer = row_of(e, run->previous[stage]);
        st->ready_below = NOTHING;
    }
    if ((kind == PP_BACKWARD || kind == PP_INPUT) && run->next[stage] >= 0) {
        st->producer = row_of(e, run->next[stage]);
        st->ready_below = 0;
    }
}

static void set_output(engine *e, step *st, int stage, pp_action_kind kind) {
    const pp_run *run = e->run;
    st->mail = (uint32_t)stage * MAIL_ROW + MAIL_NONE;
    if (kind == PP_WEIGHT || kind == PP_RECOMPUTE) {
        st->slot = &e->waste;
        st->index_mask = 0;
        return;
    }
    pp_sending sending = pp_action_sending(run->input, run->previous, run->next, stage, kind);
    int to = kind == PP_FORWARD ? run->next[stage] : run->previous[stage];
    st->slot = row_of(e, stage);
    st->index_mask = UINT32_MAX;
    st->is_gradient = kind != PP_FORWARD;
    st->mail = (uint32_t)stage * MAIL_ROW + (kind == PP_FORWARD ? MAIL_OUTPUT : MAIL_GRADIENT);
    st->latency_s = sending.latency_s;
    st->occupancy_s = sending.occupancy_s;
    st->consumer = (uint16_t)run->schedule->placement[to >= 0 ? to : stage];
    if (sending.occupancy_s > 0) e->has_lanes = true;
}

static void set_steps(engine *e) {
    for (int s = 0; s < e->run->schedule->stages; s++)
        for (int kind = 0; kind < PP_COMPUTE_KINDS; kind++) {
            step *st = &e->steps[s * PP_COMPUTE_KINDS + kind];
            st->duration_s = pp_slice_duration(e->run->input, s, (pp_action_kind)kind);
            set_producer(e, st, s, (pp_action_kind)kind);
            set_output(e, st, s, (pp_action_kind)kind);
        }
}

/* Lane 0 is of steps that send nothing to another rank; each directed pair of ranks gets another.
 * lane_of[q], owner[q]: the lane from rank `owner` to q, as far as the scan has come. */
static pp_status set_lanes(engine *e, pp_error *error) {
    const pp_run *run = e->run;
    const pp_schedule *schedule = run->schedule;
    uint32_t *lane_of = PP_NEW(run->arena, uint32_t, schedule->ranks);
    int *owner = PP_NEW(run->arena, int, schedule->ranks);
    e->lane_free_s = PP_NEW(run->arena, double, 2 * (size_t)schedule->stages + 1);
    if (run->arena->failed) return pp_fail_memory(error);
    uint32_t lanes = 1;
    for (int q = 0; q < schedule->ranks; q++) owner[q] = -1;
    for (int p = 0; p < schedule->ranks; p++)
        for (int i = e->rank_first[p]; i < e->rank_first[p + 1]; i++)
            for (int kind = 0; kind < PP_WEIGHT; kind++) {
                step *st = &e->steps[e->rank_stages[i] * PP_COMPUTE_KINDS + kind];
                if (st->consumer == p) continue;
                if (owner[st->consumer] != p) {
                    owner[st->consumer] = p;
                    lane_of[st->consumer] = lanes++;
                }
                st->lane = lane_of[st->consumer];
            }
    return PP_OK;
}

static bool takes_time(pp_action action) {
    return action.kind < PP_COMPUTE_KINDS || action.kind == PP_REDUCE_GRAD ||
           action.kind == PP_STEP;
}

static void set_stop(cursor *c) {
    c->stop = *c->mark < c->end ? *c->mark : c->end;
}

/* The places at which a rank takes the careful way: its first action, its peak, and the last
 * backward of stages that reduce together with others; ascending, then PP_NO_INDEX. */
static size_t *set_marks(engine *e, int p, size_t *to) {
    const pp_run *run = e->run;
    const int *stages = e->rank_stages + e->rank_first[p];
    int count = e->rank_first[p + 1] - e->rank_first[p];
    size_t *first = to;
    size_t begin = e->cursors[p].index;
    while (begin < e->cursors[p].end && !takes_time(run->schedule->actions[begin])) begin++;
    *to++ = begin;
    if (run->order[p].peak_index != PP_NO_INDEX) *to++ = run->order[p].peak_index;
    for (int i = 0; i < count; i++) {
        size_t index = run->stage_order[stages[i]].last_use;
        if (index == PP_NO_INDEX || !pp_reduction_observes(run, stages[i])) continue;
        size_t *at = to++;
        for (; at > first && at[-1] > index; at--) *at = at[-1];
        *at = index;
    }
    *to++ = PP_NO_INDEX;
    e->cursors[p].mark = first;
    set_stop(&e->cursors[p]);
    return to;
}

static pp_status set_cursors(engine *e, pp_error *error) {
    const pp_run *run = e->run;
    const pp_schedule *schedule = run->schedule;
    size_t room = 3 * (size_t)schedule->ranks + (size_t)schedule->stages;
    size_t *marks = PP_NEW(run->arena, size_t, room);
    e->cursors = PP_NEW(run->arena, cursor, schedule->ranks);
    e->stack = PP_NEW(run->arena, uint32_t, schedule->ranks);
    if (run->arena->failed) return pp_fail_memory(error);
    for (int p = 0; p < schedule->ranks; p++) {
        cursor *c = &e->cursors[p];
        c->index = schedule->first_action[p];
        c->end = schedule->first_action[p + 1];
        if (run->spans) c->span = run->spans + run->first_span[p];
        marks = set_marks(e, p, marks);
        e->stack[schedule->ranks - 1 - p] = (uint32_t)p;
    }
    e->depth = (uint32_t)schedule->ranks;
    return PP_OK;
}

static pp_status engine_init(engine *e, pp_run *run, pp_error *error) {
    const pp_schedule *schedule = run->schedule;
    double scale = run->input->last_microbatch_scale;
    *e = (engine){.run = run, .nothing = NOTHING, .scale = scale > 0 ? scale : 1};
    bool some_scaled = schedule->chain_count > 1 && e->scale != 1; /* of one chain alone */
    e->has_extras = schedule->slices > 1 || some_scaled || pp_durations_vary(run->input) ||
                    run->input->launch_s > 0 || run->input->load_s > 0;
    size_t row = pp_stage_units(schedule) + ROW_PADDING;
    size_t count = (size_t)schedule->stages * row; /* < 2^16 · 2^33 */
    e->slots = pp_allocate(count * sizeof *e->slots);
    char *steps = pp_arena_allocate(run->arena, (size_t)schedule->stages * PP_COMPUTE_KINDS + 1,
                                    sizeof(step));
    size_t mails = (size_t)schedule->stages * MAIL_ROW;
    e->awaited = PP_NEW(run->arena, uint32_t, mails);
    if (!e->slots || !steps || !e->awaited) return pp_fail_memory(error);
    e->steps = (step *)(((uintptr_t)steps + sizeof(step) - 1) / sizeof(step) * sizeof(step));
    for (size_t i = 0; i < count; i++) e->slots[i] = NOTHING;
    for (size_t i = 0; i < mails; i++) e->awaited[i] = NOBODY;
    PP_TRY(pp_stages_by_rank(schedule, run->arena, &e->rank_first, &e->rank_stages, error));
    set_steps(e);
    PP_TRY(set_lanes(e, error));
    return set_cursors(e, error);
}

/* ---- waiting and waking -------------------------------------------------------------------- */

static ALWAYS_INLINE void wake(engine *e, uint32_t rank) {
    e->stack[e->depth++] = rank;
    __builtin_prefetch(&e->cursors[rank]); /* it goes next, as soon as this one waits */
}

/* The rank that comes to this action cannot go on: leaves word with the stage that produces its
 * input. A word is never taken back: its unit passes there once. Stages of a chain are consecutive.
 */
static ALWAYS_INLINE void await(engine *e, const step *st, unsigned kind, uint32_t unit) {
    e->awaited[kind == PP_FORWARD ? st->mail - MAIL_ROW : st->mail + MAIL_ROW] = unit;
}

/* ---- delivering ---------------------------------------------------------------------------- */

/* The output of an action that ended at end_s is on its way; factor: of what that takes. */
static ALWAYS_INLINE void deliver(engine *e, step *st, pp_action action, uint32_t unit,
                                  double end_s, double factor, bool with_lanes, bool with_spans) {
    double arrival_s;
    if (with_lanes) {
        double *free_s = &e->lane_free_s[st->lane];
        double sent_s = st->lane && *free_s > end_s ? *free_s : end_s;
        *free_s = sent_s + st->occupancy_s * factor;
        arrival_s = *free_s + st->latency_s * factor;
        if (with_spans && st->lane && arrival_s > end_s)
            pp_run_keep_transfer(e->run, action, sent_s, arrival_s);
    } else {
        arrival_s = end_s + st->latency_s * factor;
    }
    int64_t sign = (int64_t)((uint64_t)st->is_gradient << 63);
    st->slot[unit & st->index_mask] = bits_of(arrival_s) | sign;
    if (unit == e->awaited[st->mail]) wake(e, st->consumer);
}

static ALWAYS_INLINE pp_span *keep_span(pp_span *span, int rank, pp_action action, double start_s,
                                        double end_s) {
    *span = (pp_span){.start_s = start_s,
                      .end_s = end_s,
                      .action = action,
                      .rank = rank,
                      .lane = PP_LANE_COMPUTE};
    return span + 1;
}

/* ---- the careful way ----------------------------------------------------------------------- */

/* One action or an overlapped pair, when it starts and how long it takes. */
typedef struct piece {
    size_t index;
    int parts; /* 1, 2 */
    double start_s, end_s, middle_s;
} piece;

static uint32_t unit_of(const engine *e, pp_action action) {
    return (uint32_t)pp_unit_in_stage(e->run->schedule, action);
}

/* False: it has to wait. Else the time may only have become later. */
static bool compute_ready(engine *e, pp_action action, double *start_s) {
    step *st = &e->steps[action.stage * PP_COMPUTE_KINDS + action.kind];
    uint32_t unit = unit_of(e, action);
    int64_t bits = st->producer[unit & st->index_mask];
    if (bits >= st->ready_below) {
        await(e, st, action.kind, unit);
        return false;
    }
    if (time_of(bits) > *start_s) *start_s = time_of(bits);
    return true;
}

static bool piece_ready(engine *e, int rank, piece *u) {
    const pp_action *action = &e->run->schedule->actions[u->index];
    if (action->kind >= PP_COMPUTE_KINDS)
        return pp_update_ready(e->run, rank, *action, &u->start_s);
    for (int part = 0; part < u->parts; part++)
        u->start_s = pp_loaded_at(&e->run->loading, action[part], u->start_s);
    for (int part = 0; part < u->parts; part++)
        if (!compute_ready(e, action[part], &u->start_s)) return false;
    return true;
}

static void piece_times(const engine *e, piece *u) {
    const pp_action *action = &e->run->schedule->actions[u->index];
    if (u->parts == 1) {
        u->end_s = u->middle_s = u->start_s + pp_action_duration(e->run->input, *action);
        return;
    }
    pp_pair_duration pair = pp_pair_time(e->run->input, action[0], action[1]);
    u->middle_s = u->start_s + pair.first_s;
    u->end_s = u->start_s + pair.total_s;
}

/* Everything that follows from a piece's end. */
static void piece_end(engine *e, int rank, const piece *u) {
    cursor *c = &e->cursors[rank];
    for (int part = 0; part < u->parts; part++) {
        pp_action action = e->run->schedule->actions[u->index + (size_t)part];
        if (action.kind < PP_COMPUTE_KINDS)
            deliver(e, &e->steps[action.stage * PP_COMPUTE_KINDS + action.kind], action,
                    unit_of(e, action), u->end_s, pp_transfer_factor(e->run->input, action), true,
                    c->span != NULL);
        if (c->span && takes_time(action))
            c->span = keep_span(c->span, rank, action, part ? u->middle_s : u->start_s,
                                part == u->parts - 1 ? u->end_s : u->middle_s);
        int32_t woken = pp_run_observe(e->run, rank, u->index + (size_t)part, u->start_s, u->end_s);
        for (; woken >= 0; woken = e->run->next_waiting[woken]) wake(e, (uint32_t)woken);
    }
}

static void piece_account(engine *e, int rank, const piece *u) {
    cursor *c = &e->cursors[rank];
    const pp_action *action = &e->run->schedule->actions[u->index];
    if (action->kind >= PP_COMPUTE_KINDS)
        e->run->times[rank].update_s += pp_action_duration(e->run->input, *action);
    else if (u->parts == 1)
        c->busy_s += pp_action_duration(e->run->input, *action);
    else
        c->busy_s += pp_pair_time(e->run->input, action[0], action[1]).total_s;
}

/* Runs the one action or pair at the cursor, whatever it is. False: it has to wait. */
static __attribute__((noinline)) bool run_careful(engine *e, int rank) {
    cursor *c = &e->cursors[rank];
    const pp_action *action = &e->run->schedule->actions[c->index];
    piece u = {.index = c->index, .parts = action->overlapped ? 2 : 1, .start_s = c->time_s};
    if (!piece_ready(e, rank, &u)) return false;
    c->index += (size_t)u.parts;
    while (*c->mark < c->index) c->mark++;
    set_stop(c);
    if (!takes_time(*action)) return true;
    u.start_s += e->run->input->launch_s;
    piece_times(e, &u);
    piece_account(e, rank, &u);
    pp_reduction_set_off(e->run, rank, *action, u.start_s);
    c->time_s = u.end_s;
    if (!c->started) {
        c->started = true;
        e->run->times[rank].first_start_s = u.start_s;
    }
    piece_end(e, rank, &u);
    return true;
}

/* ---- the loop ------------------------------------------------------------------------------ */

typedef enum outcome { WAITS, AT_MARK, ENDED } outcome;

/* The next line of a rank's actions and of a stage's row: with hundreds of ranks at work, the
 * hardware does not see that each of them is a stream. No further ahead, since all ranks come by
 * before this one is back. */
static ALWAYS_INLINE void prefetch_behind(const pp_action *action, const int64_t *slot) {
    __builtin_prefetch((const void *)((uintptr_t)action + 64));
    __builtin_prefetch((const void *)((uintptr_t)slot + 64), 1);
}

/* Runs the plain actions of a rank up to its next mark. This is the loop that sees every action. */
static ALWAYS_INLINE outcome run_plain(engine *e, uint32_t rank, const pp_action *actions,
                                       bool with_spans, bool with_lanes, bool with_extras) {
    cursor *c = &e->cursors[rank];
    const uint32_t last = (uint32_t)e->run->schedule->microbatches - 1;
    step *const steps = e->steps;
    const double scale = e->scale;
    const size_t stop = c->stop;
    size_t i = c->index;
    double time_s = c->time_s, busy_s = c->busy_s;
    outcome found = c->stop == c->end ? ENDED : AT_MARK;
    for (; i < stop; i++) {
        const pp_action action = actions[i];
        const unsigned head = pp_action_head(&actions[i]), kind = with_extras ? head & 0xff : head;
        if (kind >= PP_COMPUTE_KINDS) {
            found = AT_MARK;
            break;
        }
        step *st = &steps[action.stage * PP_COMPUTE_KINDS + kind];
        const uint32_t unit = with_extras ? unit_of(e, action) : action.microbatch;
        const int64_t bits = st->producer[unit & st->index_mask];
        if (bits >= st->ready_below) {
            await(e, st, kind, unit);
            found = WAITS;
            break;
        }
        const double ready_s = time_of(bits); /* NaN where nothing is needed: compares false */
        const double free_s = with_extras ? pp_loaded_at(&e->run->loading, action, time_s) : time_s;
        double start_s = ready_s > free_s ? ready_s : free_s;
        double duration_s = action.microbatch == last ? st->duration_s * scale : st->duration_s;
        double factor = 1;
        if (with_extras) {
            factor = pp_transfer_factor(e->run->input, action);
            start_s += e->run->input->launch_s;
            duration_s = pp_action_duration(e->run->input, action);
        }
        time_s = start_s + duration_s;
        busy_s += duration_s;
        deliver(e, st, action, unit, time_s, factor, with_lanes, with_spans);
        prefetch_behind(&actions[i], &st->slot[unit & st->index_mask]);
        if (with_spans) c->span = keep_span(c->span, (int)rank, action, start_s, time_s);
    }
    c->index = i;
    c->time_s = time_s;
    c->busy_s = busy_s;
    return found;
}

static void finish(engine *e, uint32_t rank) {
    cursor *c = &e->cursors[rank];
    e->run->times[rank].last_end_s = c->time_s;
    e->run->times[rank].compute_s = c->busy_s;
    e->finished++;
}

/* Runs ranks until none can go on. The last one woken goes first: what it needs is still warm. */
static ALWAYS_INLINE bool run_ranks(engine *e, bool with_spans, bool with_lanes, bool with_extras) {
    const pp_action *actions = e->run->schedule->actions;
    for (uint32_t visits = 0; e->depth > 0; visits++) {
        uint32_t rank = e->stack[--e->depth];
        outcome found;
        do found = run_plain(e, rank, actions, with_spans, with_lanes, with_extras);
        while (found == AT_MARK && run_careful(e, (int)rank));
        if (found == ENDED) finish(e, rank);
        if (visits % 4096 == 0 && pp_stop_signal()) return false;
    }
    return true;
}

/* The variants, each compiled on its own. */
static bool run_simple(engine *e) {
    return run_ranks(e, false, false, false);
}

static bool run_with_lanes(engine *e) {
    return run_ranks(e, false, true, false);
}

static bool run_with_spans(engine *e) {
    return run_ranks(e, true, true, false);
}

static bool run_with_extras(engine *e) {
    return run_ranks(e, e->run->spans != NULL, true, true);
}

static pp_status run_all(engine *e, pp_error *error) {
    bool (*run)(engine *) = e->has_extras   ? run_with_extras
                            : e->run->spans ? run_with_spans
                            : e->has_lanes  ? run_with_lanes
                                            : run_simple;
    if (run(e)) return PP_OK;
    return pp_fail(error, PP_E_INTERRUPTED, NULL, "the simulation was interrupted");
}

/* ---- running ------------------------------------------------------------------------------- */

/* The first rank that could not finish, for the message. */
static pp_status stuck(const engine *e, pp_error *error) {
    int p = 0;
    while (e->cursors[p].index == e->cursors[p].end) p++;
    char text[32];
    pp_action action = e->run->schedule->actions[e->cursors[p].index];
    return pp_fail(
        error, PP_E_DEADLOCK, NULL,
        "%d of %d ranks cannot finish: rank %d waits at %s for something that never comes",
        e->run->schedule->ranks - e->finished, e->run->schedule->ranks, p,
        pp_action_text(action, text));
}

pp_status pp_engine_run(pp_run *run, pp_error *error) {
    engine e;
    pp_status status = engine_init(&e, run, error);
    if (status == PP_OK) status = run_all(&e, error);
    if (status == PP_OK && e.finished < run->schedule->ranks) status = stuck(&e, error);
    pp_free(e.slots);
    return status;
}
