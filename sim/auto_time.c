/* When an order's actions start: the longest path, as in engine.c, for rows of codes.
 *
 * An action starts when the one before it on its rank has ended and its input has arrived. A rank
 * runs until an input is missing and is taken up again by the action that sends it. The arithmetic
 * is the engine's, operation by operation, so that both find the same bits. */
#include "sim/auto_internal.h"

#include <math.h>
#include <string.h>

/* ---- scores -------------------------------------------------------------------------------- */

static int64_t quanta(const pp_auto_case *c, double seconds) {
    return llround(seconds / c->quantum_s);
}

pp_auto_score pp_auto_score_of(const pp_auto_case *c, const double *end_s) {
    double makespan_s = 0, span_s = 0, sum_s = 0;
    for (int p = 0; p < c->ranks; p++) {
        makespan_s = fmax(makespan_s, end_s[p]);
        span_s = fmax(span_s, end_s[p] - c->head_s[p]);
        sum_s += end_s[p];
    }
    if (c->objective == PP_AUTO_SPAN)
        return (pp_auto_score){quanta(c, span_s), quanta(c, makespan_s), sum_s};
    return (pp_auto_score){quanta(c, makespan_s), quanta(c, span_s), sum_s};
}

int pp_auto_compare(pp_auto_score a, pp_auto_score b) {
    if (a.first != b.first) return a.first < b.first ? -1 : 1;
    return a.second < b.second ? -1 : a.second > b.second;
}

bool pp_auto_at_bound(const pp_auto_case *c, pp_auto_score score) {
    int first = (int)c->objective, second = 1 - first;
    return score.first <= quanta(c, c->bound_s[first]) &&
           score.second <= quanta(c, c->bound_s[second]);
}

/* ---- times --------------------------------------------------------------------------------- */

typedef struct timing {
    const pp_auto_case *c;
    const uint8_t *order;
    pp_auto_work *work;
    double *start_s; /* NULL: not wanted */
    int depth;
} timing;

static void wake(timing *t, int rank) {
    t->work->queued[rank] = true;
    t->work->stack[t->depth++] = rank;
}

static void start(timing *t) {
    const pp_auto_case *c = t->c;
    size_t ops = (size_t)c->ranks * (size_t)c->codes, ranks = (size_t)c->ranks;
    memset(t->work->arrived, 0, ops * sizeof *t->work->arrived);
    memset(t->work->done, 0, ops * sizeof *t->work->done);
    memset(t->work->cursor, 0, ranks * sizeof *t->work->cursor);
    memset(t->work->end_s, 0, ranks * sizeof *t->work->end_s);
    memset(t->work->lane_s, 0, 3 * ranks * sizeof *t->work->lane_s);
    for (int p = c->ranks - 1; p >= 0; p--) wake(t, p);
}

static void deliver(timing *t, const pp_auto_op *op, int rank, uint32_t microbatch, double end_s) {
    const pp_auto_case *c = t->c;
    pp_auto_work *work = t->work;
    double *free_s = &work->lane_s[op->lane];
    double sent_s = *free_s > end_s ? *free_s : end_s;
    *free_s = sent_s + op->occupancy_s;
    work->arrival[(size_t)op->consumer * c->row + microbatch] = *free_s + op->latency_s;
    work->arrived[op->consumer] = microbatch + 1;
    int to = op->consumer_rank;
    if (to == rank || work->queued[to] || work->cursor[to] == c->length) return;
    int awaited =
        to * c->codes + t->order[(size_t)to * (size_t)c->length + (size_t)work->cursor[to]];
    if (awaited == op->consumer) wake(t, to);
}

static bool advance(timing *t, int rank) {
    const pp_auto_case *c = t->c;
    pp_auto_work *work = t->work;
    const size_t first = (size_t)rank * (size_t)c->length;
    const int base = rank * c->codes;
    double now_s = work->end_s[rank];
    int i = work->cursor[rank];
    for (; i < c->length; i++) {
        int index = base + t->order[first + (size_t)i];
        const pp_auto_op *op = &c->op[index];
        uint32_t m = work->done[index];
        if (op->producer >= 0) {
            if (work->arrived[index] <= m) break;
            double arrival_s = work->arrival[(size_t)index * c->row + m];
            if (arrival_s > now_s) now_s = arrival_s;
        }
        if (t->start_s) t->start_s[first + (size_t)i] = now_s;
        now_s += op->duration_s;
        work->done[index] = m + 1;
        if (op->consumer >= 0) deliver(t, op, rank, m, now_s);
    }
    work->cursor[rank] = i;
    work->end_s[rank] = now_s;
    return i == c->length;
}

bool pp_auto_time(const pp_auto_case *c, const uint8_t *order, pp_auto_work *work,
                  double *start_s) {
    timing t = {.c = c, .order = order, .work = work, .start_s = start_s};
    int finished = 0;
    start(&t);
    while (t.depth > 0) {
        int rank = work->stack[--t.depth];
        work->queued[rank] = false;
        finished += advance(&t, rank);
    }
    return finished == c->ranks;
}
