/* See schedule_explorer.h. Everything is found by looking through the lists; states are compared
 * byte by byte. Slow and plain on purpose. */
#include "schedule_explorer.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { ACTIONS_MOST = 96, QUEUES_MOST = 12, STATES_MOST = 60000, TABLE = 1 << 17 };

typedef struct world {
    const pp_schedule *schedule;
    bool blocking;
    int count;
    int rank[ACTIONS_MOST];
    int partner[ACTIONS_MOST]; /* of a transfer */
    int peer[ACTIONS_MOST];    /* of a transfer */
    int group[ACTIONS_MOST];   /* first transfer of its group */
} world;

/* done[i]: a compute action ran, or a transfer happened. started[i]: the group that begins with
 * transfer i started. */
typedef struct state {
    unsigned char done[ACTIONS_MOST], started[ACTIONS_MOST];
} state;

static pp_action at(const world *w, int i) {
    return w->schedule->actions[i];
}

static int find(const world *w, pp_action_kind kind, int stage, uint32_t microbatch) {
    for (int i = 0; i < w->count; i++)
        if (at(w, i).kind == kind && at(w, i).stage == stage && at(w, i).microbatch == microbatch)
            return i;
    return -1;
}

static int find_backward(const world *w, int stage, uint32_t microbatch) {
    int whole = find(w, PP_BACKWARD, stage, microbatch);
    return whole >= 0 ? whole : find(w, PP_INPUT, stage, microbatch);
}

static bool is_send(pp_action a) {
    return a.kind == PP_SEND_F || a.kind == PP_SEND_B;
}

static bool is_pair_second(const world *w, int i) {
    return i > 0 && at(w, i - 1).overlapped;
}

/* ---- is everything there? ------------------------------------------------------------------ */

static int count_of(const world *w, pp_action_kind kind, int stage, uint32_t microbatch) {
    int count = 0;
    for (int i = 0; i < w->count; i++)
        count +=
            at(w, i).kind == kind && at(w, i).stage == stage && at(w, i).microbatch == microbatch;
    return count;
}

static bool crosses(const pp_schedule *schedule, int a, int b) {
    return a >= 0 && b >= 0 && schedule->placement[a] != schedule->placement[b];
}

static bool unit_complete(const world *w, int s, uint32_t m, bool lowered) {
    int up = pp_schedule_next(w->schedule, s), down = pp_schedule_previous(w->schedule, s);
    bool send_up = lowered && crosses(w->schedule, s, up);
    bool send_down = lowered && crosses(w->schedule, s, down);
    int whole = count_of(w, PP_BACKWARD, s, m), input = count_of(w, PP_INPUT, s, m);
    int weight = count_of(w, PP_WEIGHT, s, m);
    bool backward =
        (whole == 1 && input == 0 && weight == 0) || (whole == 0 && input == 1 && weight == 1);
    return count_of(w, PP_FORWARD, s, m) == 1 && backward && count_of(w, PP_RECOMPUTE, s, m) <= 1 &&
           count_of(w, PP_SEND_F, s, m) == send_up && count_of(w, PP_RECV_B, s, m) == send_up &&
           count_of(w, PP_SEND_B, s, m) == send_down && count_of(w, PP_RECV_F, s, m) == send_down;
}

static bool is_complete(const world *w) {
    bool lowered = false;
    int most[SCHAR_MAX] = {0};
    for (int i = 0; i < w->count; i++) {
        lowered |= pp_action_is_transfer(at(w, i));
        if (w->schedule->placement[at(w, i).stage] != w->rank[i]) return false;
        if (at(w, i).overlapped && (i + 1 == w->count || w->rank[i + 1] != w->rank[i] ||
                                    at(w, i + 1).overlapped || !pp_action_is_compute(at(w, i + 1))))
            return false;
    }
    for (int c = 0; c < w->schedule->chain_count; c++)
        for (int i = 0; i < w->count; i++)
            if (at(w, i).stage >= w->schedule->chains[c].first &&
                at(w, i).stage <= w->schedule->chains[c].last &&
                (int)at(w, i).microbatch >= most[c])
                most[c] = (int)at(w, i).microbatch + 1;
    int largest = 0;
    for (int c = 0; c < w->schedule->chain_count; c++) {
        if (most[c] == 0) return false;
        if (most[c] > largest) largest = most[c];
    }
    if (largest < w->schedule->microbatches) return false;
    for (int c = 0; c < w->schedule->chain_count; c++)
        for (int s = w->schedule->chains[c].first; s <= w->schedule->chains[c].last; s++)
            for (int m = 0; m < most[c]; m++)
                if (!unit_complete(w, s, (uint32_t)m, lowered)) return false;
    return true;
}

/* ---- queues -------------------------------------------------------------------------------- */

static void find_peers(world *w) {
    for (int i = 0; i < w->count; i++) {
        pp_action a = at(w, i);
        if (!pp_action_is_transfer(a)) continue;
        bool up = a.kind == PP_SEND_F || a.kind == PP_RECV_B;
        int other = up ? a.stage + 1 : a.stage - 1;
        w->peer[i] = w->schedule->placement[other];
    }
}

/* The transfer before i in its queue, or -1; *apart: a compute action stands between. */
static int before_in_queue(const world *w, int i, bool *apart) {
    *apart = false;
    for (int j = i - 1; j >= 0 && w->rank[j] == w->rank[i]; j--) {
        if (pp_action_is_compute(at(w, j))) *apart = true;
        if (pp_action_is_transfer(at(w, j)) && w->peer[j] == w->peer[i]) return j;
    }
    return -1;
}

static void find_groups(world *w) {
    for (int i = 0; i < w->count; i++) {
        bool apart;
        if (!pp_action_is_transfer(at(w, i))) continue;
        int before = before_in_queue(w, i, &apart);
        w->group[i] = before < 0 || apart || w->blocking ? i : w->group[before];
    }
}

/* The i-th SEND to a peer meets the i-th RECV of the peer from here. */
static bool match(world *w) {
    for (int i = 0; i < w->count; i++) {
        if (!is_send(at(w, i))) continue;
        int position = 0, passed = 0, found = -1;
        for (int j = 0; j < i; j++)
            position += w->rank[j] == w->rank[i] && is_send(at(w, j)) && w->peer[j] == w->peer[i];
        for (int j = 0; j < w->count && found < 0; j++) {
            if (w->rank[j] != w->peer[i] || !pp_action_is_transfer(at(w, j)) || is_send(at(w, j)) ||
                w->peer[j] != w->rank[i])
                continue;
            if (passed++ == position) found = j;
        }
        bool forward = at(w, i).kind == PP_SEND_F;
        if (found < 0 || at(w, found).kind != (forward ? PP_RECV_F : PP_RECV_B) ||
            at(w, found).stage != at(w, i).stage + (forward ? 1 : -1) ||
            at(w, found).microbatch != at(w, i).microbatch)
            return false;
        w->partner[i] = found;
        w->partner[found] = i;
    }
    return true;
}

/* ---- what may happen ----------------------------------------------------------------------- */

static bool group_ended(const world *w, const state *now, int first) {
    for (int i = first; i < w->count; i++)
        if (pp_action_is_transfer(at(w, i)) && w->group[i] == first && !now->done[i]) return false;
    return true;
}

/* Everything before i that its queue must have finished. */
static bool queue_reached(const world *w, const state *now, int i) {
    bool transfer = pp_action_is_transfer(at(w, i));
    for (int j = 0; j < i; j++) {
        bool other = pp_action_is_transfer(at(w, j));
        if (w->rank[j] != w->rank[i]) continue;
        if (w->blocking || (!transfer && !other)) {
            if (!now->done[j]) return false;
        } else if (transfer && other && w->peer[j] == w->peer[i] && w->group[j] != w->group[i] &&
                   !now->done[j]) {
            return false;
        }
    }
    return true;
}

/* The results that an action of stage s takes from stage `other` have come. */
static bool arrived(const world *w, const state *now, pp_action a, int other) {
    bool forward = a.kind == PP_FORWARD;
    if (other < 0) return true;
    int transfer = find(w, forward ? PP_RECV_F : PP_RECV_B, a.stage, a.microbatch);
    if (transfer >= 0) return group_ended(w, now, w->group[transfer]);
    int producer =
        forward ? find(w, PP_FORWARD, other, a.microbatch) : find_backward(w, other, a.microbatch);
    return now->done[producer];
}

static bool operands_ready(const world *w, const state *now, int i) {
    pp_action a = at(w, i);
    int recompute = find(w, PP_RECOMPUTE, a.stage, a.microbatch);
    switch ((pp_action_kind)a.kind) {
    case PP_FORWARD:
        return arrived(w, now, a, pp_schedule_previous(w->schedule, a.stage));
    case PP_BACKWARD:
    case PP_INPUT:
        return now->done[find(w, PP_FORWARD, a.stage, a.microbatch)] &&
               (recompute < 0 || now->done[recompute]) &&
               arrived(w, now, a, pp_schedule_next(w->schedule, a.stage));
    case PP_WEIGHT:
        return now->done[find(w, PP_INPUT, a.stage, a.microbatch)];
    case PP_RECOMPUTE:
        return now->done[find(w, PP_FORWARD, a.stage, a.microbatch)];
    default:
        return true;
    }
}

static bool group_may_start(const world *w, const state *now, int first) {
    if (!queue_reached(w, now, first)) return false;
    for (int i = first; i < w->count; i++) {
        pp_action a = at(w, i);
        if (!pp_action_is_transfer(a) || w->group[i] != first || !is_send(a)) continue;
        int producer = a.kind == PP_SEND_F ? find(w, PP_FORWARD, a.stage, a.microbatch)
                                           : find_backward(w, a.stage, a.microbatch);
        if (!now->done[producer]) return false;
    }
    return true;
}

/* Event i: even: compute action or transfer i/2 happens. Odd: the group of i/2 starts. */
static bool happen(const world *w, const state *now, int event, state *then) {
    int i = event / 2;
    bool transfer = pp_action_is_transfer(at(w, i)), start = event % 2;
    *then = *now;
    if (start) {
        if (!transfer || w->group[i] != i || now->started[i] || !group_may_start(w, now, i))
            return false;
        then->started[i] = 1;
        return true;
    }
    if (now->done[i]) return false;
    if (transfer) {
        int other = w->partner[i];
        if (!now->started[w->group[i]] || !now->started[w->group[other]]) return false;
        then->done[i] = then->done[other] = 1;
        return true;
    }
    if (is_pair_second(w, i) || !queue_reached(w, now, i) || !operands_ready(w, now, i))
        return false;
    if (at(w, i).overlapped && !operands_ready(w, now, i + 1)) return false;
    then->done[i] = 1;
    if (at(w, i).overlapped) then->done[i + 1] = 1;
    return true;
}

/* ---- all interleavings --------------------------------------------------------------------- */

typedef struct known {
    state *states;
    int *slots;
    int count;
} known;

static bool remember(known *all, const state *fresh) {
    uint64_t hash = pp_hash(PP_HASH_START, fresh, sizeof *fresh);
    size_t slot = hash % TABLE;
    for (; all->slots[slot] > 0; slot = (slot + 1) % TABLE)
        if (memcmp(&all->states[all->slots[slot] - 1], fresh, sizeof *fresh) == 0) return false;
    all->states[all->count++] = *fresh;
    all->slots[slot] = all->count;
    return true;
}

static bool all_done(const world *w, const state *now) {
    for (int i = 0; i < w->count; i++)
        if (!now->done[i]) return false;
    return true;
}

static explored walk(const world *w) {
    known all = {calloc(STATES_MOST, sizeof(state)), calloc(TABLE, sizeof(int)), 0};
    explored result = EXPLORED_FINISHES;
    state now = {0}, then;
    cr_assert(all.states && all.slots);
    remember(&all, &now);
    for (int next = 0; next < all.count && result == EXPLORED_FINISHES; next++) {
        bool moved = false;
        now = all.states[next];
        for (int event = 0; event < 2 * w->count; event++) {
            if (!happen(w, &now, event, &then)) continue;
            moved = true;
            if (all.count == STATES_MOST - 1) result = EXPLORED_TOO_LARGE;
            if (result == EXPLORED_FINISHES) remember(&all, &then);
        }
        if (!moved && !all_done(w, &now)) result = EXPLORED_HANGS;
    }
    free(all.states);
    free(all.slots);
    return result;
}

explored explore(const pp_schedule *schedule, bool blocking) {
    world w = {.schedule = schedule, .blocking = blocking};
    size_t count = schedule->first_action[schedule->ranks];
    if (count > ACTIONS_MOST) return EXPLORED_TOO_LARGE;
    w.count = (int)count;
    for (int p = 0, i = 0; p < schedule->ranks; p++)
        for (; i < (int)schedule->first_action[p + 1]; i++) w.rank[i] = p;
    if (!is_complete(&w)) return EXPLORED_INCOMPLETE;
    find_peers(&w);
    find_groups(&w);
    if (!match(&w)) return EXPLORED_MISMATCH;
    return walk(&w);
}
