/* Where to cut a chain of layers so that the slowest stage is as fast as possible.
 *
 * The model: cut items 0 … n-1 into S intervals, none empty, and minimise the largest
 * cost(s, first, last). Costs depend on the stage too, because ranks have their own memory limits
 * and links. Let best(s, j) be the answer for items 0 … j-1 in stages 0 … s:
 *
 *     best(s, j) = min over i of max(best(s-1, i), cost(s, i, j-1))
 *
 * Because a stage may forbid some intervals, best(s-1, i) need not grow with i, so the textbook
 * binary search for the crossing is not exact. What is exact: cost(s, i, j-1) never grows with i,
 * so a start i is useless if a later one i' has best(s-1, i') <= best(s-1, i). The useful starts
 * form a stack on which best strictly rises while cost falls; the minimum of their maximum lies at
 * the crossing, found by bisection. Each start enters and leaves the stack once: O(S n log n)
 * calls.
 *
 * Costs that do not keep to that order (memory may fall when a stage swallows a wide border) come
 * with a floor that does. The best start under the floor is then tried first, and only if its exact
 * cost is higher are the other starts looked at, until the floor alone rules out the rest. */
#include <assert.h>
#include <math.h>

#include "planner/planner_internal.h"

/* The programme while it works on one stage. */
typedef struct cut_row {
    const pp_chain_problem *problem;
    int stage;
    const double *previous; /* [items + 1] best(stage - 1, i) */
    int *stack;             /* useful starts, ascending, previous[] strictly ascending */
    int depth;
} cut_row;

static double larger(double a, double b) {
    return a > b ? a : b;
}

static double exact_cost(const cut_row *row, int first, int last) {
    const pp_chain_problem *problem = row->problem;
    pp_interval_cost *cost = problem->exact != NULL ? problem->exact : problem->floor;
    return cost(problem->context, row->stage, first, last);
}

static void push_start(cut_row *row, int start) {
    double value = row->previous[start];
    if (value == INFINITY) return;
    while (row->depth > 0 && row->previous[row->stack[row->depth - 1]] >= value) row->depth--;
    row->stack[row->depth++] = start;
}

/* The start that is best for items … last by the floor, or -1. */
static int best_start_by_floor(const cut_row *row, int last, double *largest) {
    const pp_chain_problem *problem = row->problem;
    int low = 0, high = row->depth;
    double below = INFINITY; /* floor at low - 1, where the cost still outweighs what precedes it */
    while (low < high) {
        int middle = low + (high - low) / 2, start = row->stack[middle];
        double cost = problem->floor(problem->context, row->stage, start, last);
        if (row->previous[start] >= cost) {
            high = middle;
        } else {
            low = middle + 1;
            below = cost;
        }
    }
    double above = low < row->depth ? row->previous[row->stack[low]] : INFINITY;
    *largest = above <= below ? above : below;
    if (*largest == INFINITY) return -1;
    return row->stack[above <= below ? low : low - 1];
}

/* The best start by the exact cost: all starts from the shortest interval on, until the floor of
 * the interval alone is no better than what was found. */
static int best_start_by_scan(const cut_row *row, int last, int start, double *largest) {
    const pp_chain_problem *problem = row->problem;
    for (int i = last; i >= row->stage; i--) {
        if (problem->floor(problem->context, row->stage, i, last) >= *largest) break;
        if (row->previous[i] >= *largest) continue;
        double value = larger(row->previous[i], exact_cost(row, i, last));
        if (value >= *largest) continue;
        *largest = value;
        start = i;
    }
    return start;
}

static int best_start(const cut_row *row, int last, double *largest) {
    int start = best_start_by_floor(row, last, largest);
    if (start < 0 || row->problem->exact == NULL) return start;
    double floor = *largest;
    *largest = larger(row->previous[start], exact_cost(row, start, last));
    if (*largest <= floor) return start;
    if (*largest == INFINITY) start = -1;
    return best_start_by_scan(row, last, start, largest);
}

/* Fills current[j] and choice[j] for every j that leaves an item for each other stage. */
static void fill_row(cut_row *row, double *current, int *choice) {
    const pp_chain_problem *problem = row->problem;
    int stage = row->stage, stages = problem->stages;
    for (int j = 0; j <= problem->items; j++) current[j] = INFINITY;
    for (int j = stage + 1; j <= problem->items - (stages - 1 - stage); j++) {
        if (stage == 0) {
            current[j] = exact_cost(row, 0, j - 1);
        } else {
            push_start(row, j - 1);
            choice[j] = best_start(row, j - 1, &current[j]);
        }
        if (problem->border != NULL && stage < stages - 1 && current[j] < INFINITY) {
            current[j] = larger(current[j], problem->border(problem->context, stage, j));
        }
    }
}

pp_status pp_chain_cut(const pp_chain_problem *problem, pp_arena *arena, int *splits,
                       double *largest, pp_error *error) {
    int items = problem->items, stages = problem->stages;
    if (problem->lattice != NULL) return pp_lattice_cut(problem, arena, splits, largest, error);
    assert(stages >= 1 && items >= stages);
    size_t width = (size_t)items + 1;
    double *previous = PP_NEW(arena, double, width), *current = PP_NEW(arena, double, width);
    int *stack = PP_NEW(arena, int, width);
    int *choice = PP_NEW(arena, int, width *(size_t)stages);
    if (arena->failed) return pp_fail_memory(error);
    for (int s = 0; s < stages; s++) {
        cut_row row = {.problem = problem, .stage = s, .previous = previous, .stack = stack};
        fill_row(&row, current, choice + width * (size_t)s);
        double *swap = previous;
        previous = current;
        current = swap;
    }
    *largest = previous[items];
    if (*largest == INFINITY) {
        return pp_fail(error, PP_E_NO_FIT, NULL, "no split of %d layers into %d stages is allowed",
                       items, stages);
    }
    for (int s = stages - 1, end = items; s > 0; s--) {
        end = choice[width * (size_t)s + (size_t)end];
        splits[s - 1] = end;
    }
    return PP_OK;
}

pp_status pp_split_chain(int items, int stages, pp_interval_cost *time, const void *context,
                         int *splits, double *bottleneck, pp_error *error) {
    if (stages < 1 || items < stages) {
        return pp_fail(error, PP_E_INPUT, NULL,
                       "%d layers cannot be cut into %d stages: each stage needs a layer", items,
                       stages);
    }
    pp_chain_problem problem = {
        .items = items, .stages = stages, .floor = time, .context = context};
    pp_arena arena;
    pp_arena_init(&arena);
    pp_status status = pp_chain_cut(&problem, &arena, splits, bottleneck, error);
    pp_arena_deinit(&arena);
    return status;
}
