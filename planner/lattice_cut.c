/* Where to cut a model that branches so that the slowest stage is as fast as possible: split.c's
 * programme over the ideals of lattice.c instead of prefixes,
 *
 *     best(s, I) = min over J within I of max(best(s-1, J), cost(s, J, I))
 *
 * Exact over the family of ideals. Work is O(S · pairs of ideals), most of which two cheap tests
 * decide: best(s-1, J) against the best so far, and the seconds of the layers between. For the
 * latter, J goes through the ideals from those nearest to I in weight: once the weight between
 * alone is too much, all that is left is too. */
#include <math.h>
#include <stdlib.h>

#include "planner/planner_internal.h"

typedef struct cut {
    const pp_chain_problem *problem;
    const pp_lattice *lattice;
    int stage;
    const double *previous; /* [ideals] best(stage - 1, J) */
    const int *by_weight;   /* [ideals] ascending */
    int *rank;              /* [ideals] where an ideal stands among them */
} cut;

static double larger(double a, double b) {
    return a > b ? a : b;
}

static double floor_of(const cut *c, int from, int to) {
    return c->problem->floor(c->problem->context, c->stage, from, to - 1);
}

/* As stage number `stage` what ideal `to` has beyond ideal `from`, where that is less than `most`;
 * else INFINITY. */
static double cost_below(const cut *c, int from, int to, double most) {
    const pp_chain_problem *problem = c->problem;
    double cost = floor_of(c, from, to);
    if (cost >= most) return INFINITY;
    if (problem->exact == NULL) return cost;
    return problem->exact(problem->context, c->stage, from, to - 1);
}

static bool must_stop(const cut *c) {
    return c->problem->stop != NULL && c->problem->stop(c->problem->context);
}

/* Best way to end stage `stage` at ideal `to`, if it is below `best`: of floors, or of costs. Those
 * take long enough to ask whether they are still wanted. */
static double best_below(const cut *c, int to, bool floors, double best, int *choice) {
    const pp_chain_problem *problem = c->problem;
    for (int r = c->rank[to] - 1; r >= 0; r--) {
        int from = c->by_weight[r];
        double between = problem->weight[to] - problem->weight[from];
        if (problem->per_weight > 0 && problem->per_weight * between >= best) break;
        if (c->previous[from] >= best || from > to) continue;
        if (!pp_lattice_within(c->lattice, from, to)) continue;
        if (!floors && must_stop(c)) return INFINITY;
        double cost = floors ? floor_of(c, from, to) : cost_below(c, from, to, best);
        double value = larger(c->previous[from], cost);
        if (value >= best) continue;
        best = value;
        *choice = from;
    }
    return best;
}

/* Costs are dear where memory must be laid out. The least of the floors is the answer if its cost
 * is its floor; else every cost that may be below it has to be asked. */
static double best_end(const cut *c, int to, int *choice) {
    const pp_chain_problem *problem = c->problem;
    double least = best_below(c, to, true, INFINITY, choice), best = INFINITY;
    if (least == INFINITY || problem->exact == NULL) return least;
    best =
        larger(c->previous[*choice], problem->exact(problem->context, c->stage, *choice, to - 1));
    return best > least ? best_below(c, to, false, best, choice) : best;
}

/* current[i] and choice[i] for every ideal that leaves a layer for each other stage. False:
 * stopped. */
static bool fill_stage(const cut *c, double *current, int *choice) {
    const pp_chain_problem *problem = c->problem;
    const pp_lattice *lattice = c->lattice;
    int behind = problem->stages - 1 - c->stage;
    for (int i = 0; i < lattice->count; i++) {
        current[i] = INFINITY;
        bool room = lattice->sizes[i] > c->stage && lattice->sizes[i] <= lattice->layers - behind;
        if (!room || (behind == 0 && i < lattice->count - 1)) continue;
        if (must_stop(c)) return false;
        current[i] = best_end(c, i, &choice[i]);
        if (problem->border == NULL || behind == 0 || current[i] == INFINITY) continue;
        current[i] = larger(current[i], problem->border(problem->context, c->stage, i));
    }
    return !must_stop(c);
}

typedef struct weighed {
    double weight;
    int index;
} weighed;

static int by_weight(const void *a_, const void *b_) {
    const weighed *a = a_, *b = b_;
    if (a->weight != b->weight) return a->weight < b->weight ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static bool sort_by_weight(const pp_chain_problem *problem, int count, int *order, int *rank) {
    weighed *list = pp_allocate((size_t)count * sizeof *list);
    if (list == NULL) return false;
    for (int i = 0; i < count; i++) list[i] = (weighed){problem->weight[i], i};
    qsort(list, (size_t)count, sizeof *list, by_weight);
    for (int r = 0; r < count; r++) {
        order[r] = list[r].index;
        rank[list[r].index] = r;
    }
    pp_free(list);
    return true;
}

static pp_status cut_stages(cut *c, double *previous, double *current, int *choice, int *splits,
                            double *largest, pp_error *error) {
    const pp_lattice *lattice = c->lattice;
    int stages = c->problem->stages;
    size_t width = (size_t)lattice->count;
    for (int i = 1; i < lattice->count; i++) previous[i] = INFINITY;
    previous[0] = -INFINITY; /* nothing is placed yet */
    for (int s = 0; s < stages; s++) {
        c->stage = s;
        c->previous = previous;
        if (!fill_stage(c, current, choice + width * (size_t)s))
            return pp_fail(error, PP_E_INTERRUPTED, NULL, "interrupted while searching plans");
        double *swap = previous;
        previous = current;
        current = swap;
    }
    *largest = previous[lattice->count - 1];
    if (*largest == INFINITY) {
        return pp_fail(error, PP_E_NO_FIT, NULL, "no split of %d layers into %d stages is allowed",
                       lattice->layers, stages);
    }
    for (int s = stages - 1, end = lattice->count - 1; s > 0; s--) {
        end = choice[width * (size_t)s + (size_t)end];
        splits[s - 1] = end;
    }
    return PP_OK;
}

pp_status pp_lattice_cut(const pp_chain_problem *problem, pp_arena *arena, int *splits,
                         double *largest, pp_error *error) {
    const pp_lattice *lattice = problem->lattice;
    size_t count = (size_t)lattice->count;
    double *previous = PP_NEW(arena, double, count), *current = PP_NEW(arena, double, count);
    int *choice = PP_NEW(arena, int, count *(size_t)problem->stages);
    int *order = PP_NEW(arena, int, count), *rank = PP_NEW(arena, int, count);
    if (arena->failed || !sort_by_weight(problem, lattice->count, order, rank)) {
        return pp_fail_memory(error);
    }
    cut c = {.problem = problem, .lattice = lattice, .by_weight = order, .rank = rank};
    return cut_stages(&c, previous, current, choice, splits, largest, error);
}
