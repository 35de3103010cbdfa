/* Branch and bound for tiny cases: proves that the best order is optimal, or finds a better one.
 *
 * Orders are built in time, after Giffler and Thompson (1960): of all actions that could be next,
 * take the one that could end first; on its rank something has to start before that end, or it
 * could be put in front without delaying anything. So it is enough to branch over the actions of
 * that rank that could start earlier. Putting an F in front may break the limit for the F of the
 * rank's other stage that follow later; with two stages on each rank there is one more branch, in
 * which it is held back until the rank has done something else.
 *
 * A node is dropped when each rank's time so far plus its work left is no better than the best
 * known score. Lanes are left out: with them an early action can delay a later one of its rank. */
#include "sim/auto_internal.h"

#include <math.h>

enum {
    RANKS_MAX = 5,
    MICROBATCHES_MAX = 12,
    ACTIONS_MAX = 60,
    NODES_MAX = 400000,
    NODE_PRICE = 16
};

typedef struct brancher {
    pp_auto_search *search;
    double free_s[RANKS_MAX];
    double left_s[RANKS_MAX]; /* work */
    double weight[RANKS_MAX];
    int length[RANKS_MAX];
    uint8_t order[RANKS_MAX][ACTIONS_MAX];
    uint32_t done[RANKS_MAX * PP_AUTO_CODES_MAX];
    unsigned held[RANKS_MAX]; /* bit per code: held back */
    double arrival_s[RANKS_MAX * PP_AUTO_CODES_MAX][MICROBATCHES_MAX];
    uint32_t arrived[RANKS_MAX * PP_AUTO_CODES_MAX];
    int64_t nodes, most;
    int left; /* actions to place */
} brancher;

/* When a code of a rank could start; INFINITY: not now. */
static double start_of(const brancher *b, int rank, int code) {
    const pp_auto_case *c = b->search->c;
    int index = rank * c->codes + code;
    uint32_t m = b->done[index];
    const uint32_t *done = &b->done[rank * c->codes];
    if (m == (uint32_t)c->microbatches || (b->held[rank] >> code & 1)) return INFINITY;
    if (code % PP_AUTO_KINDS == PP_AUTO_W && done[code - 1] <= m) return INFINITY;
    uint32_t waiting = c->visits > 1 ? done[PP_AUTO_F] - done[PP_AUTO_KINDS] : 0;
    if (code % PP_AUTO_KINDS == PP_AUTO_F && !pp_auto_fits(c, rank, code, b->weight[rank], waiting))
        return INFINITY;
    if (c->op[index].producer < 0) return b->free_s[rank];
    return m < b->arrived[index] ? fmax(b->free_s[rank], b->arrival_s[index][m]) : INFINITY;
}

static bool hopeless(const brancher *b) {
    const pp_auto_case *c = b->search->c;
    double end_s[RANKS_MAX];
    for (int p = 0; p < c->ranks; p++) end_s[p] = fmax(b->free_s[p], c->head_s[p]) + b->left_s[p];
    return pp_auto_compare(pp_auto_score_of(c, end_s), b->search->score) >= 0;
}

/* All is placed: better than the best, or hopeless() would have said so. */
static void keep(brancher *b) {
    pp_auto_search *search = b->search;
    size_t length = (size_t)search->c->length, at = 0;
    for (int p = 0; p < search->c->ranks; p++) {
        for (size_t i = 0; i < length; i++) search->trial[at++] = b->order[p][i];
        search->work.end_s[p] = b->free_s[p];
    }
    pp_auto_offer(search, "branch and bound");
}

static void branch(brancher *b);

static void place(brancher *b, int rank, int code, double start_s) {
    const pp_auto_case *c = b->search->c;
    int index = rank * c->codes + code;
    const pp_auto_op *op = &c->op[index];
    double free_s = b->free_s[rank], weight = b->weight[rank];
    unsigned held = b->held[rank];
    uint32_t m = b->done[index]++;
    b->order[rank][b->length[rank]++] = (uint8_t)code;
    b->free_s[rank] = start_s + op->duration_s;
    b->weight[rank] += op->rise - op->fall;
    b->left_s[rank] -= op->duration_s;
    b->held[rank] = 0;
    b->left--;
    if (op->consumer >= 0) {
        b->arrival_s[op->consumer][m] = b->free_s[rank] + op->latency_s;
        b->arrived[op->consumer]++;
    }
    branch(b);
    if (op->consumer >= 0) b->arrived[op->consumer]--;
    b->left++;
    b->held[rank] = held;
    b->left_s[rank] += op->duration_s;
    b->weight[rank] = weight;
    b->free_s[rank] = free_s;
    b->length[rank]--;
    b->done[index]--;
}

/* The action that could end first. */
static bool first_to_end(const brancher *b, int *rank, int *code, double *end_s) {
    const pp_auto_case *c = b->search->c;
    *end_s = INFINITY;
    for (int p = 0; p < c->ranks; p++)
        for (int k = 0; k < c->codes; k++) {
            double ends_s = start_of(b, p, k) + c->op[p * c->codes + k].duration_s;
            if (ends_s >= *end_s) continue;
            *end_s = ends_s, *rank = p, *code = k;
        }
    return *end_s < INFINITY;
}

static void branch(brancher *b) {
    static const int kinds[PP_AUTO_KINDS] = {PP_AUTO_I, PP_AUTO_F, PP_AUTO_W};
    const pp_auto_case *c = b->search->c;
    if (hopeless(b) || ++b->nodes > b->most) return;
    if (b->left == 0) {
        keep(b);
        return;
    }
    int rank = 0, code = 0;
    double end_s;
    if (!first_to_end(b, &rank, &code, &end_s)) return;
    for (int i = 0; i < c->codes; i++) {
        int k = kinds[i / c->visits] + i % c->visits * PP_AUTO_KINDS;
        double start_s = start_of(b, rank, k);
        if (start_s < end_s || (k == code && start_s < INFINITY)) place(b, rank, k, start_s);
    }
    if (c->visits == 1 || code % PP_AUTO_KINDS != PP_AUTO_F) return;
    b->held[rank] |= 1u << code;
    branch(b);
    b->held[rank] &= ~(1u << code);
}

void pp_auto_exact(pp_auto_search *search) {
    const pp_auto_case *c = search->c;
    if (c->ranks > RANKS_MAX || c->microbatches > MICROBATCHES_MAX || c->actions > ACTIONS_MAX ||
        c->has_lanes || pp_auto_over(search, 0))
        return;
    int64_t affordable = search->budget / (2 * NODE_PRICE);
    brancher b = {.search = search,
                  .most = affordable < NODES_MAX ? affordable : NODES_MAX,
                  .left = (int)c->actions};
    for (int i = 0; i < c->ranks * c->codes; i++)
        b.left_s[i / c->codes] += c->op[i].duration_s * c->microbatches;
    branch(&b);
    search->budget -= b.nodes * NODE_PRICE;
    search->proved = b.nodes <= b.most;
}
