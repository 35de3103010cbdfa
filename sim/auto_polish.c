/* Moving single actions of the best order: one on the critical chain goes to another place of its
 * row, or another action to its place, and stays there if nothing gets worse. Equal results are
 * taken too: they are the way across plateaus.
 *
 * Source of the idea: local search for job shops moves operations of the critical path only, since
 * no other move can make it shorter (van Laarhoven, Aarts, Lenstra 1992). */
#include "sim/auto_internal.h"

#include <math.h>
#include <string.h>

typedef struct polisher {
    pp_auto_search *search;
    double *start_s; /* [actions] of best */
    int32_t *number; /* [actions] microbatch of each */
    int32_t *place;  /* [ranks·codes·M] where in its row */
    size_t *chain;   /* [actions] critical, last to first */
    size_t chain_length;
    uint8_t *saved; /* [length] */
    bool stale;     /* the chain is of an older order */
} polisher;

/* ---- the critical chain --------------------------------------------------------------------- */

static void number_actions(polisher *k) {
    const pp_auto_case *c = k->search->c;
    size_t at = 0;
    for (int p = 0; p < c->ranks; p++) {
        int32_t count[PP_AUTO_CODES_MAX] = {0};
        for (int i = 0; i < c->length; i++, at++) {
            int code = k->search->best[at];
            int op = p * c->codes + code;
            k->number[at] = count[code]++;
            k->place[(size_t)op * (size_t)c->microbatches + (size_t)k->number[at]] = i;
        }
    }
}

/* The rank whose end is the objective that is not at its bound yet. */
static int critical_rank(const polisher *k) {
    const pp_auto_case *c = k->search->c;
    pp_auto_objective objective = c->objective;
    if (k->search->score.first <= llround(c->bound_s[objective] / c->quantum_s))
        objective = (pp_auto_objective)(1 - objective);
    int rank = 0;
    double latest_s = -INFINITY;
    for (int p = 0; p < c->ranks; p++) {
        double end_s = k->search->work.end_s[p];
        if (objective == PP_AUTO_SPAN) end_s -= c->head_s[p];
        if (end_s > latest_s) latest_s = end_s, rank = p;
    }
    return rank;
}

/* What the action at `at` had to wait for; SIZE_MAX: nothing. */
static size_t cause_of(const polisher *k, size_t at) {
    const pp_auto_case *c = k->search->c;
    size_t rank = at / (size_t)c->length, index = at % (size_t)c->length;
    if (index > 0) {
        const pp_auto_op *before = &c->op[rank * (size_t)c->codes + k->search->best[at - 1]];
        if (k->start_s[at - 1] + before->duration_s >= k->start_s[at]) return at - 1;
    }
    int producer = c->op[rank * (size_t)c->codes + k->search->best[at]].producer;
    if (producer < 0) return SIZE_MAX;
    size_t place = (size_t)producer * (size_t)c->microbatches + (size_t)k->number[at];
    return (size_t)(producer / c->codes) * (size_t)c->length + (size_t)k->place[place];
}

static void find_chain(polisher *k) {
    pp_auto_search *search = k->search;
    const pp_auto_case *c = search->c;
    search->budget -= 3 * (int64_t)c->actions;
    pp_auto_time(c, search->best, &search->work, k->start_s);
    number_actions(k);
    k->chain_length = 0;
    size_t at = (size_t)(critical_rank(k) + 1) * (size_t)c->length - 1;
    for (; at != SIZE_MAX; at = cause_of(k, at)) k->chain[k->chain_length++] = at;
    k->stale = false;
}

/* ---- moves --------------------------------------------------------------------------------- */

typedef struct move {
    int rank, from, to;
} move;

static int draw_distance(pp_auto_search *search) {
    if (pp_auto_draw(search, 2)) return 1 + pp_auto_draw(search, 4);
    return 1 + pp_auto_draw(search, 1 + pp_auto_draw(search, 32));
}

static bool draw_move(polisher *k, move *m) {
    pp_auto_search *search = k->search;
    const pp_auto_case *c = search->c;
    size_t at = k->chain[pp_auto_draw(search, (int)k->chain_length)];
    int here = (int)(at % (size_t)c->length);
    int distance = draw_distance(search);
    int there = pp_auto_draw(search, 2) ? here + distance : here - distance;
    bool pull = pp_auto_draw(search, 2);
    *m = (move){(int)(at / (size_t)c->length), pull ? there : here, pull ? here : there};
    return there >= 0 && there < c->length;
}

static void shift(uint8_t *row, int from, int to) {
    uint8_t moved = row[from];
    if (from < to)
        memmove(row + from, row + from + 1, (size_t)(to - from));
    else
        memmove(row + to + 1, row + to, (size_t)(from - to));
    row[to] = moved;
}

/* Each I after its F, each W after its I, and the limit kept, up to `last`. */
static bool row_holds(const pp_auto_case *c, int rank, const uint8_t *row, int last) {
    const pp_auto_op *ops = &c->op[rank * c->codes];
    int32_t count[PP_AUTO_CODES_MAX] = {0};
    double weight = 0;
    for (int i = 0; i <= last; i++) {
        int code = row[i];
        if (code % PP_AUTO_KINDS && count[code - 1] <= count[code]) return false;
        count[code]++;
        weight += ops[code].rise;
        if (weight > c->limit[rank]) return false;
        weight -= ops[code].fall;
    }
    return true;
}

static bool accept(polisher *k) {
    pp_auto_search *search = k->search;
    search->budget -= (int64_t)search->c->actions;
    if (!pp_auto_time(search->c, search->best, &search->work, NULL)) return false;
    pp_auto_score score = pp_auto_score_of(search->c, search->work.end_s);
    int compared = pp_auto_compare(score, search->score);
    if (compared > 0) return false;
    if (compared < 0) search->origin = "local search";
    search->score = score;
    return true;
}

static void try_move(polisher *k) {
    pp_auto_search *search = k->search;
    move m;
    search->budget -= 64; /* a draw costs something even if nothing is timed */
    if (!draw_move(k, &m)) return;
    uint8_t *row = search->best + (size_t)m.rank * (size_t)search->c->length;
    int low = m.from < m.to ? m.from : m.to, high = m.from < m.to ? m.to : m.from;
    size_t length = (size_t)(high - low + 1);
    memcpy(k->saved, row + low, length);
    shift(row, m.from, m.to);
    if (memcmp(k->saved, row + low, length) == 0) return;
    if (row_holds(search->c, m.rank, row, high) && accept(k))
        k->stale = true;
    else
        memcpy(row + low, k->saved, length);
}

pp_status pp_auto_polish(pp_auto_search *search, int64_t reserve, pp_error *error) {
    const pp_auto_case *c = search->c;
    if (c->length < 2 || pp_auto_over(search, reserve)) return PP_OK;
    polisher k = {.search = search,
                  .start_s = PP_NEW(search->arena, double, c->actions),
                  .number = PP_NEW(search->arena, int32_t, c->actions),
                  .place = PP_NEW(search->arena, int32_t, c->actions),
                  .chain = PP_NEW(search->arena, size_t, c->actions),
                  .saved = PP_NEW(search->arena, uint8_t, c->length),
                  .stale = true};
    if (search->arena->failed) return pp_fail_memory(error);
    while (!pp_auto_over(search, reserve)) {
        if (k.stale) find_chain(&k);
        try_move(&k);
    }
    return PP_OK;
}
