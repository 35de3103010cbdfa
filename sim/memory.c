/* How much each rank holds, event by event. It follows from a rank's own order alone: no times
 * needed, and one rank after the other.
 *
 * Of a rank's bytes, parameters, gradients, optimizer state, transfer slots, workspace and
 * reduction buffers are there for the whole step. The rest moves with the actions of a microbatch:
 *
 *   F start  + activation              (end: down to the checkpoint, if it is recomputed later)
 *   R start  up to the activation again
 *   I start  + stash                   (end: - what the input backward releases)
 *   B start  + stash                   (end: - activation, - stash)
 *   W end    - the rest of the activation, - stash
 *
 * Everything rises at starts and falls at ends, so a peak belongs to the start of an action. Both
 * actions of an OVERLAP_F_B pair start, then both end.
 *
 * The same walk checks the order: a small state per (stage, microbatch) says what has been, and a
 * table what each kind needs. The engines rely on that.
 *
 * A microbatch cut into slices counts as that many, each with its part of the bytes. Attention
 * looks back, so slices of a microbatch go forward in order and, after the last of them, backward
 * in reverse. */
#include "sim/memory_internal.h"

#include <stdio.h>
#include <string.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* What has happened to a microbatch on a stage. */
enum {
    DID_F = 1,
    DID_R = 2,
    DID_I = 4,
    DID_W = 8,
    DID_B = 16,
    WILL_R = 32, /* known beforehand: it is recomputed later */
};

/* Pairs alive and half activations held, counted in one number: 2^32 of the first, 1 of the other.
 * Both are at most twice PP_ACTIONS_MAX. */
#define COUNTS(alive, halves) ((int64_t)(alive) * (INT64_C(1) << 32) + (halves))

/* What each kind needs and leaves in that state, and how the counts change: up at its start, or
 * down at its end, never both. */
typedef struct kind_rule {
    uint8_t mask, want, set;
    int64_t rise, fall;
} kind_rule;

static const kind_rule rules[PP_COMPUTE_KINDS] = {
    [PP_FORWARD] = {DID_F, 0, DID_F, COUNTS(1, 2), 0},
    [PP_BACKWARD] = {DID_F | DID_I, DID_F, DID_B | DID_I | DID_W, 0, COUNTS(1, 2)},
    [PP_INPUT] = {DID_F | DID_I, DID_F, DID_I, 0, COUNTS(0, 1)},
    [PP_WEIGHT] = {DID_I | DID_W, DID_I, DID_W, 0, COUNTS(1, 1)},
    [PP_RECOMPUTE] = {DID_F | DID_R | DID_I, DID_F, DID_R, 0, 0},
};

/* All that the loop needs of one kind of action of one stage, in one cache line. A rank's stages
 * have ROWS each; before them stand rows whose rule no state meets, for the stages of other ranks:
 * that an action belongs to its rank and that it may come now is then one comparison. */
typedef struct row {
    kind_rule rule;
    uint8_t *state;   /* [units] of the stage */
    pp_effect effect; /* all 0 without bytes */
} row;
#define ROWS 8 /* PP_EFFECT_ROWS, rounded up so that their number is a shift */

_Static_assert(sizeof(row) == 64 && (int)PP_EFFECT_ROWS <= ROWS, "a row is one cache line");

/* Where a stage is. */
typedef struct home {
    int rank;
    int local;    /* among the stages of its rank */
    size_t first; /* in walk.state */
} home;

typedef struct walk {
    const pp_sim_input *input;
    const pp_schedule *schedule;
    const int *rank_first;  /* [ranks + 1] into rank_stages */
    const int *rank_stages; /* [stages] by rank, ascending */
    const home *homes;      /* [stages] */
    row *rows;              /* [1 + most stages of a rank][ROWS] */
    uint32_t *first_row;    /* [stages] 0: of another rank than the one at hand */
    uint8_t *state;         /* [most stages of a rank][microbatches] */
    size_t *closed;         /* [stages] index of the first REDUCE_GRAD or STEP */
    pp_stage_order *stages; /* [stages] filled */
    bool recompute_known;   /* WILL_R bits are set for this rank … */
    bool again;             /* … or should have been: follow it again, knowing them */
} walk;

typedef struct tally {
    int64_t counts, held, stash;
    int64_t peak_counts; /* with the most pairs alive */
    int64_t peak_halves, peak_held, peak_stash;
    size_t peak_index;
} tally;

/* ---- errors -------------------------------------------------------------------------------- */

static pp_status fail_as(const walk *w, int p, size_t index, pp_status code, const char *what,
                         pp_error *error) {
    char place[64], text[32];
    snprintf(place, sizeof place, "rank %d, action %zu", p, index - w->schedule->first_action[p]);
    return pp_fail(error, code, place, "%s %s", pp_action_text(w->schedule->actions[index], text),
                   what);
}

static pp_status fail_action(const walk *w, int p, size_t index, const char *what,
                             pp_error *error) {
    return fail_as(w, p, index, PP_E_INPUT, what, error);
}

/* The rank would wait for itself. */
static pp_status fail_early(const walk *w, int p, size_t index, const char *what, pp_error *error) {
    return fail_as(w, p, index, PP_E_DEADLOCK, what, error);
}

static pp_status fail_state(const walk *w, int p, size_t index, uint8_t state, pp_error *error) {
    unsigned kind = w->schedule->actions[index].kind;
    if (kind == PP_FORWARD) return fail_action(w, p, index, "stands there twice", error);
    if (!(state & DID_F)) return fail_early(w, p, index, "comes before its forward", error);
    if (kind == PP_RECOMPUTE)
        return fail_action(
            w, p, index, state & DID_R ? "stands there twice" : "comes after its backward", error);
    if (kind == PP_WEIGHT && !(state & DID_I))
        return fail_early(w, p, index, "comes before the backward for its input (I)", error);
    return fail_action(w, p, index, "repeats a backward that is already done", error);
}

static pp_status fail_index(const walk *w, int p, size_t index, pp_error *error) {
    const pp_schedule *schedule = w->schedule;
    pp_action action = schedule->actions[index];
    if (action.stage >= schedule->stages)
        return fail_action(w, p, index, "names a stage that does not exist", error);
    if (schedule->placement[action.stage] != p)
        return fail_action(w, p, index, "belongs to a stage of another rank", error);
    if (action.slice >= schedule->slices)
        return fail_action(w, p, index, "names a slice that does not exist", error);
    return fail_action(w, p, index, "names a microbatch that does not exist", error);
}

/* ---- tallies ------------------------------------------------------------------------------- */

static ALWAYS_INLINE void tally_rise(tally *t, const row *r, bool with_bytes) {
    t->counts += r->rule.rise;
    if (!with_bytes) return;
    t->held += r->effect.held_rise;
    t->stash += r->effect.stash_rise;
}

static ALWAYS_INLINE void tally_peak(tally *t, size_t index, bool with_bytes) {
    int64_t halves = t->counts & UINT32_MAX;
    if (t->counts > t->peak_counts) t->peak_counts = t->counts;
    if (halves > t->peak_halves) {
        t->peak_halves = halves;
        if (!with_bytes) t->peak_index = index;
    }
    if (with_bytes && t->held > t->peak_held) {
        t->peak_held = t->held;
        t->peak_stash = t->stash;
        t->peak_index = index;
    }
}

static ALWAYS_INLINE void tally_fall(tally *t, const row *r, bool with_bytes) {
    t->counts -= r->rule.fall;
    if (!with_bytes) return;
    t->held -= r->effect.held_fall;
    t->stash -= r->effect.stash_fall;
}

/* ---- following one rank --------------------------------------------------------------------- */

/* Is this a compute action of a stage of rank p? */
static bool in_range(const walk *w, int p, pp_action action) {
    const pp_schedule *schedule = w->schedule;
    return action.stage < schedule->stages && w->homes[action.stage].rank == p &&
           action.microbatch < (uint32_t)schedule->microbatches && action.slice < schedule->slices;
}

static uint8_t *state_of(const walk *w, pp_action action) {
    return w->state + w->homes[action.stage].first + pp_unit_in_stage(w->schedule, action);
}

static ALWAYS_INLINE const row *row_of(const walk *w, pp_action action, uint8_t state) {
    bool recomputed = action.kind == PP_FORWARD && (state & WILL_R);
    return &w->rows[w->first_row[action.stage] +
                    (recomputed ? (unsigned)PP_F_RECOMPUTED : action.kind)];
}

static ALWAYS_INLINE bool may_come(const row *r, uint8_t state) {
    return (state & r->rule.mask) == r->rule.want;
}

/* An R that was not known when its F passed: the walk must be taken again, knowing it. */
static bool unforeseen(walk *w, pp_action action) {
    if (action.kind != PP_RECOMPUTE || w->recompute_known) return false;
    return w->again = true;
}

/* REDUCE_GRAD, STEP: once, and of a stage of this rank. That no compute action of the stage follows
 * is seen at the end. Transfers and (UN)SHARD do nothing here. */
static pp_status follow_update(walk *w, int p, size_t index, pp_rank_order *out, pp_error *error) {
    pp_action action = w->schedule->actions[index];
    if (action.kind != PP_REDUCE_GRAD && action.kind != PP_STEP) return PP_OK;
    if (action.stage >= w->schedule->stages || w->schedule->placement[action.stage] != p)
        return fail_index(w, p, index, error);
    pp_stage_order *stage = &w->stages[action.stage];
    bool *done = action.kind == PP_STEP ? &stage->steps : &stage->reduces;
    if (*done) return fail_action(w, p, index, "stands there twice", error);
    if (action.kind == PP_REDUCE_GRAD && stage->steps)
        return fail_action(w, p, index, "comes after the STEP that needs it", error);
    *done = true;
    if (w->closed[action.stage] == PP_NO_INDEX) w->closed[action.stage] = index;
    out->span_count++;
    return PP_OK;
}

/* What the slices of a microbatch need of each other. */
static pp_status follow_slices(const walk *w, int p, size_t index, pp_error *error) {
    const pp_action action = w->schedule->actions[index];
    const int q = action.slice, last = w->schedule->slices - 1;
    if (last == 0) return PP_OK;
    const uint8_t *state = state_of(w, action);
    if (action.kind == PP_FORWARD && q > 0 && !(state[-1] & DID_F))
        return fail_early(w, p, index, "comes before the forward of the slice before", error);
    if (action.kind != PP_BACKWARD && action.kind != PP_INPUT) return PP_OK;
    if (!(state[last - q] & DID_F))
        return fail_early(w, p, index, "comes before the forward of the last slice", error);
    if (q < last && !(state[1] & DID_I))
        return fail_early(w, p, index, "comes before the backward of the slice behind", error);
    return PP_OK;
}

/* The two actions at index and index + 1 start together and end together. */
static pp_status follow_pair(walk *w, int p, size_t index, tally *t, bool with_bytes,
                             pp_error *error) {
    const pp_action *pair = w->schedule->actions + index;
    const row *of[2];
    if (index + 1 >= w->schedule->first_action[p + 1] || pair[1].overlapped ||
        pair[0].kind >= PP_COMPUTE_KINDS || pair[1].kind >= PP_COMPUTE_KINDS)
        return fail_action(w, p, index, "is no pair of two actions that can overlap", error);
    for (size_t i = 0; i < 2; i++) {
        if (!in_range(w, p, pair[i])) return fail_index(w, p, index + i, error);
        PP_TRY(follow_slices(w, p, index + i, error));
        uint8_t state = *state_of(w, pair[i]);
        of[i] = row_of(w, pair[i], state);
        if (!may_come(of[i], state)) return fail_state(w, p, index + i, state, error);
        if (with_bytes && unforeseen(w, pair[i])) return PP_OK;
        tally_rise(t, of[i], with_bytes);
    }
    if (pair[0].stage == pair[1].stage && pair[0].microbatch == pair[1].microbatch &&
        pair[0].slice == pair[1].slice)
        return fail_action(w, p, index, "overlaps another action of its own microbatch", error);
    tally_peak(t, index, with_bytes);
    for (size_t i = 0; i < 2; i++) {
        *state_of(w, pair[i]) |= of[i]->rule.set;
        tally_fall(t, of[i], with_bytes);
    }
    return PP_OK;
}

/* One compute action, whatever else is to be known of it; and why it must not come. */
static pp_status follow_single(walk *w, int p, size_t index, tally *t, bool with_bytes,
                               pp_error *error) {
    const pp_action action = w->schedule->actions[index];
    if (!in_range(w, p, action)) return fail_index(w, p, index, error);
    PP_TRY(follow_slices(w, p, index, error));
    uint8_t *state = state_of(w, action);
    const row *r = row_of(w, action, *state);
    if (!may_come(r, *state)) return fail_state(w, p, index, *state, error);
    if (with_bytes && unforeseen(w, action)) return PP_OK;
    *state |= r->rule.set;
    tally_rise(t, r, with_bytes);
    tally_peak(t, index, with_bytes);
    tally_fall(t, r, with_bytes);
    return PP_OK;
}

/* The careful way, for any action. Returns through *length how many it was. */
static pp_status follow_careful(walk *w, int p, size_t index, bool with_bytes, tally *t,
                                pp_rank_order *out, size_t *length, pp_error *error) {
    const pp_action action = w->schedule->actions[index];
    *length = action.overlapped ? 2 : 1;
    if (action.overlapped) return follow_pair(w, p, index, t, with_bytes, error);
    if (action.kind < PP_COMPUTE_KINDS) return follow_single(w, p, index, t, with_bytes, error);
    out->compute_count--;
    return follow_update(w, p, index, out, error);
}

/* The loop that sees every action of a step; its speed is a promise (the bench). It stops at the
 * first that is not plain or must not come, and leaves that one to the careful way. Everything is
 * in locals, since a store to a state might otherwise change any of it. In general: microbatches
 * have slices, or it is known what is recomputed. */
static ALWAYS_INLINE size_t follow_plain(const walk *w, int p, size_t index, bool with_bytes,
                                         bool in_general, tally *tally_out) {
    const pp_action *actions = w->schedule->actions;
    const size_t end = w->schedule->first_action[p + 1];
    const row *rows = w->rows;
    const uint32_t *first_row = w->first_row;
    const uint32_t stages = (uint32_t)w->schedule->stages;
    const uint32_t microbatches = (uint32_t)w->schedule->microbatches;
    const uint32_t slices = in_general ? (uint32_t)w->schedule->slices : 1;
    const unsigned kinds = with_bytes && !w->recompute_known ? PP_RECOMPUTE : PP_COMPUTE_KINDS;
    tally t = *tally_out;
    for (; index < end; index++) {
        const pp_action action = actions[index];
        const unsigned head = pp_action_head(&actions[index]),
                       kind = in_general ? head & 0xff : head;
        if (kind >= kinds || action.stage >= stages || action.microbatch >= microbatches) break;
        if (slices > 1 && (!in_range(w, p, action) || follow_slices(w, p, index, NULL) != PP_OK))
            break;
        const row *r = &rows[first_row[action.stage] + kind];
        uint8_t *state = r->state + (in_general ? (size_t)action.microbatch * slices + action.slice
                                                : action.microbatch);
        if (!may_come(r, *state)) break;
        if (in_general && kind == PP_FORWARD) r = row_of(w, action, *state);
        *state |= r->rule.set;
        tally_rise(&t, r, with_bytes);
        tally_peak(&t, index, with_bytes);
        tally_fall(&t, r, with_bytes);
    }
    *tally_out = t;
    return index;
}

/* Copies of the loop, so that a walk does not pay for what it does not need. */
static size_t follow_counts(const walk *w, int p, size_t index, tally *t) {
    return follow_plain(w, p, index, false, false, t);
}

static size_t follow_bytes(const walk *w, int p, size_t index, tally *t) {
    return follow_plain(w, p, index, true, false, t);
}

static size_t follow_all(const walk *w, int p, size_t index, tally *t) {
    return follow_plain(w, p, index, w->input->bytes != NULL, true, t);
}

static pp_status follow_actions(walk *w, int p, tally *t, pp_rank_order *out, pp_error *error) {
    const bool with_bytes = w->input->bytes != NULL;
    size_t (*follow)(const walk *, int, size_t, tally *) =
        w->schedule->slices > 1 || w->recompute_known ? follow_all
        : with_bytes                                  ? follow_bytes
                                                      : follow_counts;
    size_t index = w->schedule->first_action[p], end = w->schedule->first_action[p + 1], length;
    *t = (tally){.peak_halves = -1, .peak_held = -1, .peak_index = PP_NO_INDEX};
    out->compute_count = end - index;
    while ((index = follow(w, p, index, t)) < end) {
        PP_TRY(follow_careful(w, p, index, with_bytes, t, out, &length, error));
        if (w->again) return PP_OK;
        index += length;
    }
    out->span_count += out->compute_count;
    return PP_OK;
}

static void forget_rank(walk *w, int p, pp_rank_order *out) {
    *out = (pp_rank_order){.peak_index = PP_NO_INDEX};
    int begin = w->rank_first[p], end = w->rank_first[p + 1];
    memset(w->state, 0, (size_t)(end - begin) * pp_stage_units(w->schedule));
    for (int i = begin; i < end; i++) {
        w->stages[w->rank_stages[i]] = (pp_stage_order){.last_use = PP_NO_INDEX};
        w->closed[w->rank_stages[i]] = PP_NO_INDEX;
    }
}

static void foresee_recompute(walk *w, int p) {
    for (size_t i = w->schedule->first_action[p]; i < w->schedule->first_action[p + 1]; i++) {
        pp_action action = w->schedule->actions[i];
        if (action.kind == PP_RECOMPUTE && in_range(w, p, action)) *state_of(w, action) |= WILL_R;
    }
    w->recompute_known = true;
}

/* Actions of each kind among some units of one stage, from their states. */
static void count_kinds(const uint8_t *state, size_t units, uint32_t count[PP_COMPUTE_KINDS]) {
    uint32_t f = 0, r = 0, i = 0, w = 0, b = 0;
    for (size_t m = 0; m < units; m++) {
        f += state[m] & DID_F;
        r += (state[m] & DID_R) / DID_R;
        i += (state[m] & DID_I) / DID_I;
        w += (state[m] & DID_W) / DID_W;
        b += (state[m] & DID_B) / DID_B;
    }
    count[PP_FORWARD] = f;
    count[PP_RECOMPUTE] = r;
    count[PP_BACKWARD] = b;
    count[PP_INPUT] = i - b; /* a B has the marks of both */
    count[PP_WEIGHT] = w - b;
}

/* The last compute action of each stage of the rank: near its end, as a rule. */
static void find_last_uses(walk *w, int p) {
    int missing = w->rank_first[p + 1] - w->rank_first[p];
    for (size_t i = w->schedule->first_action[p + 1];
         missing > 0 && i > w->schedule->first_action[p]; i--) {
        pp_action action = w->schedule->actions[i - 1];
        if (action.kind >= PP_COMPUTE_KINDS) continue;
        pp_stage_order *stage = &w->stages[action.stage];
        if (stage->last_use != PP_NO_INDEX) continue;
        stage->last_use = i - 1;
        missing--;
    }
}

/* What is known at the end of a rank. No compute action may follow the REDUCE_GRAD or STEP of its
 * stage. */
static pp_status close_rank(walk *w, int p, pp_error *error) {
    size_t units = pp_stage_units(w->schedule), slices = (size_t)w->schedule->slices;
    find_last_uses(w, p);
    for (int i = w->rank_first[p]; i < w->rank_first[p + 1]; i++) {
        int s = w->rank_stages[i];
        pp_stage_order *stage = &w->stages[s];
        if (stage->last_use != PP_NO_INDEX && w->closed[s] < stage->last_use)
            return fail_action(w, p, w->closed[s],
                               "comes before the stage has done its last microbatch", error);
        const uint8_t *state = w->state + w->homes[s].first;
        count_kinds(state, units, stage->count);
        if (pp_has_last(w->schedule, s)) count_kinds(state + units - slices, slices, stage->scaled);
    }
    return PP_OK;
}

static pp_status follow_rank(walk *w, int p, pp_rank_order *out, tally *t, pp_error *error) {
    w->recompute_known = w->again = false;
    forget_rank(w, p, out);
    pp_status status = follow_actions(w, p, t, out, error);
    if (status == PP_OK && w->again) {
        w->again = false;
        forget_rank(w, p, out);
        foresee_recompute(w, p);
        status = follow_actions(w, p, t, out, error);
    }
    if (status != PP_OK) return status;
    out->peak_index = t->peak_index;
    out->peak_alive = t->peak_counts >> 32;
    out->peak_weight = t->peak_halves < 0 ? 0 : 0.5 * (double)t->peak_halves;
    return close_rank(w, p, error);
}

/* ---- weights of the caller ------------------------------------------------------------------ */

/* Peak of the caller's activation weights, by the same rules; the order has been checked. */
static double follow_weights(const walk *w, int p) {
    const double *whole = w->input->activation_weight, *part = w->input->released_by_input_weight;
    double held = 0, peak = 0, late = 0; /* late: what the first of a pair gives back */
    int slices = w->schedule->slices;
    for (size_t i = w->schedule->first_action[p]; i < w->schedule->first_action[p + 1]; i++) {
        pp_action action = w->schedule->actions[i];
        if (action.kind >= PP_COMPUTE_KINDS) continue;
        double all = whole[action.stage] / slices;
        double by_input = part ? part[action.stage] / slices : 0.5 * all;
        double fall = action.kind == PP_BACKWARD ? all : action.kind == PP_INPUT ? by_input : 0;
        if (action.kind == PP_WEIGHT) fall = all - by_input;
        if (action.kind == PP_FORWARD) held += all;
        if (held > peak) peak = held;
        if (action.overlapped) {
            late = fall;
        } else {
            held -= fall + late;
            late = 0;
        }
    }
    return peak;
}

/* ---- bytes --------------------------------------------------------------------------------- */

/* The rows of the rank's stages. */
static void set_rows(walk *w, int p) {
    for (int i = w->rank_first[p]; i < w->rank_first[p + 1]; i++) {
        int s = w->rank_stages[i];
        pp_effect effects[PP_EFFECT_ROWS] = {0};
        if (w->input->bytes) pp_memory_effects(&w->input->bytes[s], w->schedule->slices, effects);
        w->first_row[s] = (uint32_t)(1 + w->homes[s].local) * ROWS;
        for (int kind = 0; kind < PP_EFFECT_ROWS; kind++)
            w->rows[w->first_row[s] + (unsigned)kind] =
                (row){.rule = rules[kind == PP_F_RECOMPUTED ? PP_FORWARD : kind],
                      .state = w->state + w->homes[s].first,
                      .effect = effects[kind]};
    }
}

/* Its stages are another rank's for the next one. */
static void forget_rows(walk *w, int p) {
    for (int i = w->rank_first[p]; i < w->rank_first[p + 1]; i++)
        w->first_row[w->rank_stages[i]] = 0;
}

static void add_peak(pp_peak_bytes *peak, const tally *t) {
    if (t->peak_held < 0) return;
    peak->activations = t->peak_held - t->peak_stash;
    peak->buffers += t->peak_stash;
    peak->total += t->peak_held;
}

static const pp_peak_bytes unknown_bytes = {-1, -1, -1, -1, -1, -1, -1};

/* ---- all ranks ------------------------------------------------------------------------------ */

static pp_status walk_init(walk *w, const pp_sim_input *input, pp_arena *arena, pp_error *error) {
    const pp_schedule *schedule = input->schedule;
    int *first = PP_NEW(arena, int, schedule->ranks + 1);
    int *stages = PP_NEW(arena, int, schedule->stages);
    home *homes = PP_NEW(arena, home, schedule->stages);
    if (arena->failed) return pp_fail_memory(error);
    int most = 1;
    for (int s = 0; s < schedule->stages; s++) {
        int rank = schedule->placement[s], local = first[rank + 1]++;
        homes[s] = (home){rank, local, (size_t)local * pp_stage_units(schedule)};
        if (local >= most) most = local + 1;
    }
    for (int p = 0; p < schedule->ranks; p++) first[p + 1] += first[p];
    for (int s = 0; s < schedule->stages; s++) stages[first[homes[s].rank] + homes[s].local] = s;
    *w = (walk){.input = input,
                .schedule = schedule,
                .rank_first = first,
                .rank_stages = stages,
                .homes = homes,
                .rows = PP_NEW(arena, row, (most + 1) * ROWS),
                .first_row = PP_NEW(arena, uint32_t, schedule->stages),
                .state = pp_arena_allocate(arena, (size_t)most, pp_stage_units(schedule)),
                .closed = PP_NEW(arena, size_t, schedule->stages)};
    if (arena->failed) return pp_fail_memory(error);
    for (int kind = 0; kind < ROWS; kind++)
        w->rows[kind] = (row){.rule = {.mask = 0, .want = 1}, .state = w->state};
    return PP_OK;
}

static pp_status follow_memory(walk *w, int p, const int *input_slots, const int *gradient_slots,
                               pp_rank_order *out, pp_error *error) {
    tally t;
    pp_peak_bytes peak = unknown_bytes;
    if (w->input->bytes) {
        if (!pp_memory_constant(w->input, w->rank_stages + w->rank_first[p],
                                w->rank_first[p + 1] - w->rank_first[p], input_slots,
                                gradient_slots, &peak)) {
            char place[32];
            snprintf(place, sizeof place, "rank %d", p);
            return pp_fail(error, PP_E_INPUT, place,
                           "the bytes of its stages add up to more than 2^63; check their units");
        }
    }
    set_rows(w, p);
    PP_TRY(follow_rank(w, p, out, &t, error));
    forget_rows(w, p);
    if (w->input->bytes) add_peak(&peak, &t);
    if (w->input->activation_weight) out->peak_weight = follow_weights(w, p);
    out->peak = peak;
    return PP_OK;
}

pp_status pp_order_follow(const pp_sim_input *input, const int *input_slots,
                          const int *gradient_slots, pp_rank_order *ranks, pp_stage_order *stages,
                          pp_error *error) {
    pp_arena arena;
    pp_arena_init(&arena);
    walk w;
    pp_status status = walk_init(&w, input, &arena, error);
    w.stages = stages;
    for (int p = 0; status == PP_OK && p < input->schedule->ranks; p++)
        status = follow_memory(&w, p, input_slots, gradient_slots, &ranks[p], error);
    pp_arena_deinit(&arena);
    return status;
}

pp_peak_bytes pp_rank_peak_bytes(const pp_schedule *schedule, int rank, const pp_stage_bytes *bytes,
                                 const int *input_slots, const int *gradient_slots,
                                 size_t *peak_action) {
    pp_sim_input input = {.schedule = schedule, .bytes = bytes};
    pp_rank_order order = {.peak = unknown_bytes, .peak_index = PP_NO_INDEX};
    pp_arena arena;
    pp_arena_init(&arena);
    walk w;
    pp_status status = walk_init(&w, &input, &arena, NULL);
    if (status == PP_OK) {
        w.stages = PP_NEW(&arena, pp_stage_order, schedule->stages);
        status = w.stages ? follow_memory(&w, rank, input_slots, gradient_slots, &order, NULL)
                          : PP_E_OUT_OF_MEMORY;
    }
    pp_arena_deinit(&arena);
    if (peak_action) *peak_action = order.peak_index;
    return status == PP_OK ? order.peak : unknown_bytes;
}
