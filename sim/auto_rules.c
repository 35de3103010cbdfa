/* Which rules the greedy follows: a portfolio of plain ones in a mixed order, so that a short
 * budget sees all sorts, then a random walk that changes the best of them a little, rank by rank.
 */
#include "sim/auto_internal.h"

#include <math.h>

typedef struct walker {
    pp_auto_search *search;
    pp_auto_rule rule, kept; /* kept: the best of this walk, to go back to */
    pp_auto_score score;     /* of kept */
    int idle;                /* tries since kept became better */
} walker;

/* ---- rules --------------------------------------------------------------------------------- */

static pp_status make_rule(pp_auto_search *search, pp_auto_rule *rule, pp_error *error) {
    size_t ranks = (size_t)search->c->ranks;
    *rule = (pp_auto_rule){.target = PP_NEW(search->arena, int, ranks),
                           .backlog = PP_NEW(search->arena, int, ranks),
                           .reserve = PP_NEW(search->arena, double, ranks)};
    return search->arena->failed ? pp_fail_memory(error) : PP_OK;
}

static void copy_rule(const pp_auto_case *c, const pp_auto_rule *from, pp_auto_rule *to) {
    for (int p = 0; p < c->ranks; p++) {
        to->target[p] = from->target[p];
        to->backlog[p] = from->backlog[p];
        to->reserve[p] = from->reserve[p];
    }
    to->gap = from->gap;
    to->yield = from->yield;
    to->deep_first = from->deep_first;
}

/* As much as leaves room for one first visit at least. */
static double clamp_reserve(const pp_auto_case *c, int p, double reserve) {
    if (c->visits == 1 || isinf(c->limit[p])) return 0;
    return fmax(0, fmin(reserve, c->limit[p] - c->op[p * c->codes].rise));
}

/* ---- the portfolio -------------------------------------------------------------------------- */

enum { TARGETS = 4, BACKLOGS = 4, GAPS = 4, YIELDS = 3, RESERVES = 4 };

static int target_of(const pp_auto_case *c, int choice, int p) {
    const int behind = c->ranks - p;
    const int targets[TARGETS] = {behind * c->visits, (2 * behind - 1) * c->visits,
                                  c->microbatches * c->visits, 1};
    return targets[choice];
}

static int backlog_of(const pp_auto_case *c, int choice, int p) {
    const int backlogs[BACKLOGS] = {c->microbatches * c->visits + 1, p + 1, 2 * p + 1, 1};
    return backlogs[choice];
}

/* What second visits need grows with the rank: at equal steps each way a first visit of rank p
 * stays for all ranks behind, there and back, a second one only for those before. */
static double reserve_of(const pp_auto_case *c, int choice, int p) {
    double second = c->op[p * c->codes + (c->visits - 1) * PP_AUTO_KINDS].rise;
    double part = fmax(second, c->limit[p] * (p + 1) / (2 * c->ranks));
    const double reserves[RESERVES] = {0, part, part + second, c->limit[p] / 2};
    return clamp_reserve(c, p, reserves[choice]);
}

static int portfolio_size(const pp_auto_case *c) {
    int plain = TARGETS * BACKLOGS * GAPS * YIELDS;
    return c->visits == 1 ? plain : plain * RESERVES * 2;
}

static void portfolio_rule(const pp_auto_case *c, int number, pp_auto_rule *rule) {
    static const double gaps[GAPS] = {0, 1, 0.6, 0.3};
    static const double yields[YIELDS] = {0, 0.5, 1};
    int gap = number % GAPS, target = number / GAPS % TARGETS;
    number /= GAPS * TARGETS;
    int backlog = number % BACKLOGS, yield = number / BACKLOGS % YIELDS;
    number /= BACKLOGS * YIELDS;
    int reserve = c->visits == 1 ? 0 : number % RESERVES;
    rule->deep_first = c->visits > 1 && number / RESERVES % 2;
    rule->gap = gaps[gap];
    rule->yield = yields[yield];
    for (int p = 0; p < c->ranks; p++) {
        rule->target[p] = target_of(c, target, p);
        rule->backlog[p] = backlog_of(c, backlog, p);
        rule->reserve[p] = c->visits == 1 ? 0 : reserve_of(c, reserve, p);
    }
}

/* ---- trying -------------------------------------------------------------------------------- */

/* Makes an order by walker->rule; keeps the rule if it is no worse than the one kept. */
static void try_rule(walker *w) {
    pp_auto_search *search = w->search;
    const pp_auto_case *c = search->c;
    search->budget -= PP_AUTO_GREEDY_PRICE * (int64_t)c->actions;
    pp_auto_score score = PP_AUTO_NO_SCORE;
    if (pp_auto_greedy(c, &w->rule, NULL, &search->work, search->trial))
        score = pp_auto_score_of(c, search->work.end_s);
    int compared = pp_auto_compare(score, w->score);
    w->idle = compared < 0 ? 0 : w->idle + 1;
    if (compared > 0 || (compared == 0 && score.sum_s > w->score.sum_s)) return;
    w->score = score;
    copy_rule(c, &w->rule, &w->kept);
    pp_auto_offer(search, "rules");
}

static void try_portfolio(walker *w, int64_t reserve) {
    enum { STRIDE = 83 }; /* prime to the sizes: neighbours differ in everything */
    const pp_auto_case *c = w->search->c;
    int size = portfolio_size(c);
    for (int i = 0; i < size && (i == 0 || !pp_auto_over(w->search, reserve)); i++) {
        portfolio_rule(c, i * STRIDE % size, &w->rule);
        try_rule(w);
    }
}

/* ---- the walk ------------------------------------------------------------------------------ */

static int changed(int value, int usual, int by, int most) {
    int from = value >= most ? usual : value; /* from "no limit" to a sensible one */
    return from + by < 1 ? 1 : from + by;
}

enum { CHANGE_TARGET, CHANGE_BACKLOG, CHANGE_RESERVE };

static void change_rank(walker *w, int p, int what, int by) {
    const pp_auto_case *c = w->search->c;
    pp_auto_rule *rule = &w->rule;
    int most = c->microbatches * c->visits;
    if (what == CHANGE_TARGET)
        rule->target[p] = changed(rule->target[p], 2 * (c->ranks - p) * c->visits, by, most);
    if (what == CHANGE_BACKLOG)
        rule->backlog[p] = changed(rule->backlog[p], p + c->ranks / 2, by, most);
    if (what == CHANGE_RESERVE)
        rule->reserve[p] = clamp_reserve(
            c, p, rule->reserve[p] + by * c->op[p * c->codes + c->codes - PP_AUTO_KINDS].rise / 2);
}

static void change(walker *w) {
    pp_auto_search *search = w->search;
    const pp_auto_case *c = search->c;
    int what = pp_auto_draw(search, c->visits > 1 ? 12 : 8);
    if (what == 0) w->rule.gap = pp_auto_draw(search, 11) / 10.0;
    if (what == 1) w->rule.yield = pp_auto_draw(search, 11) / 10.0;
    if (what < 2) return;
    int kind = what < 5 ? CHANGE_TARGET : what < 8 ? CHANGE_BACKLOG : CHANGE_RESERVE;
    int by = (pp_auto_draw(search, 2) ? 1 : -1) * (pp_auto_draw(search, 4) ? 1 : 2);
    int first = pp_auto_draw(search, c->ranks);
    int count = pp_auto_draw(search, 3) ? 1 : 1 + pp_auto_draw(search, c->ranks);
    for (int p = first; p < c->ranks && p < first + count; p++) change_rank(w, p, kind, by);
}

/* Walks from the best rule of the portfolio; a walk that gets no further begins anew. */
static void walk(walker *w, const pp_auto_rule *first, int64_t reserve) {
    enum { PATIENCE = 600 };
    const pp_auto_case *c = w->search->c;
    const pp_auto_score first_score = w->score;
    while (!pp_auto_over(w->search, reserve)) {
        if (w->idle > PATIENCE) {
            copy_rule(c, first, &w->kept);
            w->score = first_score;
            w->idle = 0;
        }
        copy_rule(c, &w->kept, &w->rule);
        for (int changes = 1 + pp_auto_draw(w->search, 3); changes > 0; changes--) change(w);
        try_rule(w);
    }
}

pp_status pp_auto_try_rules(pp_auto_search *search, int64_t reserve, pp_error *error) {
    walker w = {.search = search, .score = PP_AUTO_NO_SCORE};
    pp_auto_rule first;
    PP_TRY(make_rule(search, &w.rule, error));
    PP_TRY(make_rule(search, &w.kept, error));
    PP_TRY(make_rule(search, &first, error));
    try_portfolio(&w, reserve + (search->budget - reserve) / 3);
    copy_rule(search->c, &w.kept, &first);
    walk(&w, &first, reserve);
    return PP_OK;
}
