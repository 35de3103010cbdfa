/* An order made by a rule, event by event: whenever a rank is free it decides what to do next from
 * what has arrived, what is known to be on its way, and how much it holds.
 *
 *   1  I, if one is there, unless fewer microbatches than the target are between F and I
 *
 *   2  W, if the backlog is full and the target reached
 *
 *   3  F, if one is there and fits, unless the target is reached and an I comes very soon
 *
 *   4  W, if it fits (but for a part) into the gap before what comes next
 *
 *   5  wait for what comes next
 *
 * The target is the depth of the warm-up: the main knob on unequal stages. Putting W off keeps the
 * critical chain of F and I going and leaves work for the gaps at the end, but holds memory.
 *
 * Why it never halts (without a guide): of the microbatches that have begun their second visits
 * take the oldest, or of all if there is none. What it needs next is an I, which needs no memory,
 * or an F for which pp_auto_fits has kept room: those before it on that rank have gone, once their
 * W have run, and 4 runs them when nothing is known to come. */
#include "sim/auto_internal.h"

#include <math.h>
#include <string.h>

typedef struct greedy {
    const pp_auto_case *c;
    const pp_auto_rule *rule;
    const uint8_t *guide;
    pp_auto_work *work;
    uint8_t *order;
} greedy;

/* ---- whose turn: a tournament of the next decisions ----------------------------------------- */

static int earlier(const pp_auto_work *work, int a, int b) {
    if (a < 0 || b < 0) return a < 0 ? b : a;
    if (work->wake_s[a] != work->wake_s[b]) return work->wake_s[a] < work->wake_s[b] ? a : b;
    return a < b ? a : b;
}

static void set_wake(pp_auto_work *work, int rank, double wake_s) {
    work->wake_s[rank] = wake_s;
    for (int node = (work->leaves + rank) / 2; node >= 1; node /= 2)
        work->tree[node] = earlier(work, work->tree[2 * node], work->tree[2 * node + 1]);
}

static void start(greedy *g) {
    const pp_auto_case *c = g->c;
    pp_auto_work *work = g->work;
    size_t ops = (size_t)c->ranks * (size_t)c->codes, ranks = (size_t)c->ranks;
    memset(work->arrived, 0, ops * sizeof *work->arrived);
    memset(work->done, 0, ops * sizeof *work->done);
    memset(work->cursor, 0, ranks * sizeof *work->cursor);
    memset(work->end_s, 0, ranks * sizeof *work->end_s);
    memset(work->lane_s, 0, 3 * ranks * sizeof *work->lane_s);
    for (int p = 0; p < c->ranks; p++) work->wake_s[p] = p ? INFINITY : 0;
    for (int leaf = 0; leaf < work->leaves; leaf++)
        work->tree[work->leaves + leaf] = leaf < c->ranks ? leaf : -1;
    for (int node = work->leaves - 1; node >= 1; node--)
        work->tree[node] = earlier(work, work->tree[2 * node], work->tree[2 * node + 1]);
}

/* ---- what a rank can do --------------------------------------------------------------------- */

/* What a rank knows when it decides. Codes are -1 where there is none. */
typedef struct options {
    int f, i, w;     /* the F and I that can start first, the oldest W */
    double f_s, i_s; /* when they can */
    int under_way;   /* microbatches between F and I */
    int backlog;     /* … between I and W */
} options;

/* Weight of the activations of one visit, from counts: sums would drift. */
static double held(const greedy *g, int rank, int visit) {
    const pp_auto_op *op = &g->c->op[rank * g->c->codes + visit * PP_AUTO_KINDS];
    const uint32_t *done = &g->work->done[rank * g->c->codes + visit * PP_AUTO_KINDS];
    return (done[PP_AUTO_F] - done[PP_AUTO_I]) * op[PP_AUTO_F].rise +
           (done[PP_AUTO_I] - done[PP_AUTO_W]) * op[PP_AUTO_W].fall;
}

static bool may_start(const greedy *g, int rank, int code) {
    const pp_auto_case *c = g->c;
    const uint32_t *done = &g->work->done[rank * c->codes];
    double first = held(g, rank, 0);
    if (c->visits == 1) return pp_auto_fits(c, rank, code, first, 0);
    uint32_t waiting = done[PP_AUTO_F] - done[PP_AUTO_KINDS + PP_AUTO_F];
    if (!pp_auto_fits(c, rank, code, first + held(g, rank, 1), waiting)) return false;
    if (code != PP_AUTO_F || g->guide) return true;
    return first + c->op[rank * c->codes].rise + g->rule->reserve[rank] <= c->limit[rank];
}

/* When the next microbatch of an op can start; INFINITY: not known yet, or none is left. */
static double known_s(const greedy *g, int index) {
    const pp_auto_case *c = g->c;
    uint32_t m = g->work->done[index];
    if (c->op[index].producer < 0) return m < (uint32_t)c->microbatches ? 0 : INFINITY;
    return m < g->work->arrived[index] ? g->work->arrival[(size_t)index * c->row + m] : INFINITY;
}

/* The guide's next F or I. */
static int guided(const greedy *g, int rank) {
    const pp_auto_case *c = g->c;
    const uint8_t *row = g->guide + (size_t)rank * (size_t)c->length;
    int *at = &g->work->stack[rank]; /* free while the greedy works */
    while (*at < c->length && row[*at] % PP_AUTO_KINDS == PP_AUTO_W) ++*at;
    return *at < c->length ? row[*at] : -1;
}

static void look(const greedy *g, int rank, double now_s, options *o) {
    const pp_auto_case *c = g->c;
    const uint32_t *done = &g->work->done[rank * c->codes];
    int only = g->guide ? guided(g, rank) : -1;
    *o = (options){.f = -1, .i = -1, .w = -1, .f_s = INFINITY, .i_s = INFINITY};
    for (int turn = 0; turn < c->visits; turn++) {
        int visit = g->rule->deep_first ? c->visits - 1 - turn : turn;
        int f = visit * PP_AUTO_KINDS, i = f + PP_AUTO_I, w = f + PP_AUTO_W;
        o->under_way += (int)(done[f] - done[i]);
        o->backlog += (int)(done[i] - done[w]);
        double f_s = g->guide && only != f ? INFINITY : known_s(g, rank * c->codes + f);
        double i_s = g->guide && only != i ? INFINITY : known_s(g, rank * c->codes + i);
        if (f_s < INFINITY && !may_start(g, rank, f)) f_s = INFINITY;
        if (fmax(f_s, now_s) < o->f_s) o->f = f, o->f_s = fmax(f_s, now_s);
        if (fmax(i_s, now_s) < o->i_s) o->i = i, o->i_s = fmax(i_s, now_s);
        if (done[i] > done[w] && (o->w < 0 || done[o->w] > done[w])) o->w = w;
    }
}

/* The code to run now; -1: wait. */
static int decide(const greedy *g, int rank, double now_s, double *next_s) {
    const pp_auto_rule *rule = g->rule;
    const pp_auto_op *ops = &g->c->op[rank * g->c->codes];
    options o;
    look(g, rank, now_s, &o);
    bool f_now = o.f >= 0 && o.f_s <= now_s, i_now = o.i >= 0 && o.i_s <= now_s;
    bool deep = o.under_way >= rule->target[rank];
    *next_s = fmin(f_now ? INFINITY : o.f_s, i_now ? INFINITY : o.i_s);
    if (i_now && (deep || !f_now)) return o.i;
    if (f_now && deep && o.w >= 0 && o.backlog >= rule->backlog[rank]) return o.w;
    if (f_now && !(deep && o.i_s < now_s + rule->yield * ops[o.f].duration_s)) return o.f;
    if (o.w >= 0 && now_s + ops[o.w].duration_s * (1 - rule->gap) <= *next_s) return o.w;
    return -1;
}

/* ---- running -------------------------------------------------------------------------------- */

static void send(greedy *g, const pp_auto_op *op, int rank, uint32_t microbatch, double end_s) {
    pp_auto_work *work = g->work;
    double *free_s = &work->lane_s[op->lane];
    double sent_s = *free_s > end_s ? *free_s : end_s;
    *free_s = sent_s + op->occupancy_s;
    double arrival_s = *free_s + op->latency_s;
    work->arrival[(size_t)op->consumer * g->c->row + microbatch] = arrival_s;
    work->arrived[op->consumer] = microbatch + 1;
    int to = op->consumer_rank;
    if (to == rank) return;
    double wake_s = fmax(arrival_s, work->end_s[to]);
    if (wake_s < work->wake_s[to]) set_wake(work, to, wake_s);
}

static void run(greedy *g, int rank, int code, double now_s) {
    const pp_auto_case *c = g->c;
    pp_auto_work *work = g->work;
    const pp_auto_op *op = &c->op[rank * c->codes + code];
    uint32_t m = work->done[rank * c->codes + code]++;
    g->order[(size_t)rank * (size_t)c->length + (size_t)work->cursor[rank]++] = (uint8_t)code;
    if (g->guide && code % PP_AUTO_KINDS != PP_AUTO_W) work->stack[rank]++;
    work->end_s[rank] = now_s + op->duration_s;
    set_wake(work, rank, work->end_s[rank]);
    if (op->consumer >= 0) send(g, op, rank, m, work->end_s[rank]);
}

bool pp_auto_greedy(const pp_auto_case *c, const pp_auto_rule *rule, const uint8_t *guide,
                    pp_auto_work *work, uint8_t *order) {
    greedy g = {.c = c, .rule = rule, .guide = guide, .work = work, .order = order};
    if (guide) memset(work->stack, 0, (size_t)c->ranks * sizeof *work->stack);
    start(&g);
    for (size_t left = c->actions; left > 0;) {
        int rank = work->tree[1];
        double now_s = work->wake_s[rank], next_s;
        if (now_s == INFINITY) return false;
        int code = decide(&g, rank, now_s, &next_s);
        if (code < 0) {
            set_wake(work, rank, next_s);
            continue;
        }
        run(&g, rank, code, now_s);
        left--;
    }
    return true;
}
