/* What the files of `auto` share: a schedule synthesised for given costs and memory.
 *
 *   auto_case.c    the request as tables of operations; what cannot fit is refused there
 *   auto_bounds.c  what no order within the memory can beat
 *   auto_time.c    WHEN, for an order; the chain of actions that determines the end
 *   auto_greedy.c  an order from a rule, event by event
 *   auto_rules.c   which rules: a portfolio, then a random walk from the best
 *   auto_named.c   the named families as candidates
 *   auto_polish.c  moving single actions of the best order
 *   auto_exact.c   branch and bound for tiny cases
 *   auto.c         the order of all these, and the result
 *
 * Microbatches are alike, so it is enough to look at orders in which each stage takes them first
 * come, first served: numbering the k-th F, I and W of a stage k contradicts no dependency that
 * held before and moves no time. An order is then a row of small codes per rank, and the
 * microbatch of an action is how often its code has come before. With L = 3·V·M:
 *
 *   code = 3·visit + (0 F, 1 I, 2 W), order[p·L + i]      visit: the rank's first or second stage
 */
#ifndef PPSIM_SIM_AUTO_INTERNAL_H
#define PPSIM_SIM_AUTO_INTERNAL_H

#include "sim/sim.h"

enum { PP_AUTO_F, PP_AUTO_I, PP_AUTO_W, PP_AUTO_KINDS };
enum { PP_AUTO_VISITS_MAX = 2, PP_AUTO_CODES_MAX = PP_AUTO_VISITS_MAX * PP_AUTO_KINDS };

/* ---- the case (auto_case.c) ----------------------------------------------------------------- */

/* One code of one rank. */
typedef struct pp_auto_op {
    double duration_s;
    double latency_s, occupancy_s; /* of sending its output */
    double rise;                   /* activation weight that it takes at its start … */
    double fall;                   /* … and gives back at its end */
    int32_t consumer;              /* op that needs its output, or -1 */
    int32_t consumer_rank;
    int32_t producer; /* op whose output it needs, or -1 */
    int32_t lane;     /* that its transfers take one after the other */
} pp_auto_op;

typedef struct pp_auto_case {
    int ranks, visits, microbatches;
    int codes;      /* 3·visits */
    int length;     /* actions of a rank: codes·microbatches */
    size_t actions; /* of all ranks */
    size_t row;     /* doubles from one op's arrivals to the next's */
    pp_auto_op *op; /* [ranks·codes] */
    double *limit;  /* [ranks] activation weight; rounding allowed for */
    double *head_s; /* [ranks] when the first action can start, and does */
    bool has_lanes; /* some occupancy is not 0 */
    pp_auto_objective objective;
    double bound_s[2]; /* by objective: no order within the limits beats it */
    double quantum_s;  /* times closer than this are equal */
} pp_auto_case;

/* Tables in the arena. PP_E_INPUT for senseless numbers, PP_E_NO_FIT when a rank cannot hold even
 * one microbatch. */
pp_status pp_auto_case_make(const pp_auto_request *request, pp_arena *arena, pp_auto_case *made,
                            pp_error *error);
void pp_auto_bounds(const pp_auto_case *made, pp_arena *arena, double bound_s[2]);

static inline int pp_auto_stage(const pp_auto_case *c, int rank, int visit) {
    return visit == 0 ? rank : 2 * c->ranks - 1 - rank;
}

/* True if the rank may start this F: it fits now, and what has not come back for its second visit
 * leaves room for that (without this, ranks full of first visits would wait for ever). waiting:
 * first visits done whose second has not begun; weight: held now. Other codes always may. */
static inline bool pp_auto_fits(const pp_auto_case *c, int rank, int code, double weight,
                                uint32_t waiting) {
    const pp_auto_op *op = &c->op[rank * c->codes + code];
    if (weight + op->rise > c->limit[rank]) return false;
    if (code != PP_AUTO_F || c->visits == 1) return true;
    return (waiting + 1) * op->rise + op[PP_AUTO_KINDS].rise <= c->limit[rank];
}

/* ---- scores --------------------------------------------------------------------------------- */

/* Smaller is better: first the objective, then the other one, in quanta; then the sum of the ranks'
 * ends, which guides walks over plateaus. */
typedef struct pp_auto_score {
    int64_t first, second;
    double sum_s;
} pp_auto_score;

#define PP_AUTO_NO_SCORE ((pp_auto_score){INT64_MAX, INT64_MAX, 0})

pp_auto_score pp_auto_score_of(const pp_auto_case *c, const double *end_s);
/* -1, 0, 1 by both objectives alone. */
int pp_auto_compare(pp_auto_score a, pp_auto_score b);
/* Both objectives are at their bounds: nothing can be better. */
bool pp_auto_at_bound(const pp_auto_case *c, pp_auto_score score);

/* ---- the search ----------------------------------------------------------------------------- */

/* Where the cursors of a timed order stand. */
typedef struct pp_auto_work {
    double *arrival;   /* [ranks·codes rows] when inputs are there */
    uint32_t *arrived; /* [ranks·codes] how many are known */
    uint32_t *done;    /* [ranks·codes] */
    int *cursor;       /* [ranks] */
    double *end_s;     /* [ranks] end of the rank's last action so far */
    double *lane_s;    /* [3·ranks] when each lane is free again */
    int *stack;        /* [ranks] */
    bool *queued;      /* [ranks] */
    double *wake_s;    /* [ranks] greedy: next decision */
    int *tree;         /* greedy: tournament of wake_s */
    int leaves;
} pp_auto_work;

typedef struct pp_auto_search {
    const pp_auto_case *c;
    pp_arena *arena;
    pp_auto_work work;
    pp_random_key key;
    uint64_t drawn;      /* numbers taken from the key */
    int64_t budget;      /* actions that may still be timed */
    uint8_t *best;       /* [actions]; score says if there is one */
    uint8_t *trial;      /* [actions] */
    pp_auto_score score; /* of best */
    const char *origin;  /* of best, in a word */
    bool proved;         /* best is optimal */
} pp_auto_search;

static inline int pp_auto_draw(pp_auto_search *search, int bound) {
    return (int)pp_random_below(search->key, search->drawn++, (uint64_t)bound);
}
static inline bool pp_auto_over(const pp_auto_search *search, int64_t reserve) {
    return search->budget <= reserve || search->proved || pp_stop_signal() ||
           pp_auto_at_bound(search->c, search->score);
}

pp_status pp_auto_search_init(pp_auto_search *search, const pp_auto_case *c, uint64_t seed,
                              int64_t budget, pp_arena *arena, pp_error *error);

/* Takes search->trial, with ends in search->work, for best if it is better. */
bool pp_auto_offer(pp_auto_search *search, const char *origin);

/* Times an order: work.end_s. False: it cannot finish. start_s: [actions] or NULL. */
bool pp_auto_time(const pp_auto_case *c, const uint8_t *order, pp_auto_work *work, double *start_s);

/* How the greedy decides. */
typedef struct pp_auto_rule {
    int *target;     /* [ranks] with fewer microbatches than this between F and I, F goes first */
    int *backlog;    /* [ranks] so many W put off: one goes before the next F */
    double *reserve; /* [ranks] weight that first visits leave to second ones */
    double gap;      /* part of a W that may stick out of the gap that it fills */
    double yield;    /* an F waits for an I that comes within this part of its duration */
    bool deep_first; /* ties go to the second visit */
} pp_auto_rule;

/* Makes an order by a rule and times it. guide: an order whose F and I are taken in its sequence
 * while W are placed anew; NULL: none. False: it came to a halt (with a guide only). */
bool pp_auto_greedy(const pp_auto_case *c, const pp_auto_rule *rule, const uint8_t *guide,
                    pp_auto_work *work, uint8_t *order);
enum { PP_AUTO_GREEDY_PRICE = 10 }; /* a greedy's action in actions timed */

/* Each spends the budget down to `reserve` at most. */
pp_status pp_auto_try_named(pp_auto_search *search, const pp_auto_request *request,
                            pp_error *error);
pp_status pp_auto_try_rules(pp_auto_search *search, int64_t reserve, pp_error *error);
pp_status pp_auto_polish(pp_auto_search *search, int64_t reserve, pp_error *error);
/* Does nothing for cases that are not tiny. */
void pp_auto_exact(pp_auto_search *search);

#endif
