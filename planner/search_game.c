/* A bound of one candidate over all its splits at once: the game between splits and paths.
 *
 * Every path through the graph of the order (order_paths.c) is a linear function of the split that
 * no step time is below. So is every weighted mean of paths, and the least of such a mean over all
 * splits is a bound of the candidate. That least is found by a chain programme, since the mean is a
 * sum over stages; with A_s(j) the sums over layers 0 … j-1 weighted as stage s weights them,
 *
 *     D_s(j) = A_s(j) + border_s(j) + min over i < j of (D_{s-1}(i) - A_s(i)),
 *
 * in O(stages · layers), the minimum sliding along.
 *
 * The best weights are a strategy of a game of two: one picks paths, the other splits, the payoff
 * is the path's length. It is solved by double oracle (McMahan, Gordon, Blum 2003): the game of the
 * paths and splits found so far is solved exactly (Dantzig's simplex); then the best split against
 * the mean of paths joins, and the longest path for a mix half way between the mean of splits and
 * the best mix known, which keeps the play from running from one extreme to the other (in-out
 * separation, Ben-Ameur and Neto 2007).
 *
 * The value of the game is that of the best mix of splits, below what any one split can reach,
 * because layers are whole. Part of that is won back. Let L be the least number so that ranks with
 * at most L members each (capacity.c) have room for all. Either no rank has more than L, or some
 * rank p has L + 1: these K + 1 cases cover all splits, and each is a game of its own, in which
 *
 *     path + w · (members of a rank - most that it can hold)
 *     path + w · (L + 1 - members of rank p)                       w >= 0
 *
 * are rows as well, being no more than the path for every split of the case. The bound is the least
 * over the cases. Splits whose step takes longer than limit_s are left out of the capacities, so
 * the result is never more than that.
 *
 * Where stages choose what they recompute and a rank has two of them, what it has to repeat for
 * want of memory depends on how many members each has (pp_capacity_again), so that the programme
 * tries all starts i for each j, with that added by number of members: in O(stages · layers²).
 *
 * A case's bound is what the chain programme says for some weights >= 0 that add up to one. Where
 * they come from, and when the play was broken off, does not matter for its truth. */
#include <math.h>
#include <string.h>

#include "planner/game_internal.h"

enum { MOVES = 96, FEWEST_MOVES = 8, BASE_ROWS = 64, ROWS = BASE_ROWS + MOVES };
#define FULLER 1.3 /* a rank's share of time when its own row is looked for */
#define CLOSE_ENOUGH 1e-3
#define CAUTION (1 - 1e-10)
#define SIMPLEX_EFFORT 1e3 /* solving the game of what was found so far, in actions */
#define GAME_ACTIONS 3e7   /* that all walks together may look at … */
#define WIN_ACTIONS 7e5    /* … and those of a case that is to be won */

typedef struct split_move {
    int *splits;
    pp_mix *mix; /* [copies] */
} split_move;

typedef struct game {
    pp_work *work;
    const pp_terms *terms;
    pp_capacity *capacity;
    pp_paths paths;
    double limit_s, enough_s;     /* no more is wanted of a case … */
    bool to_win;                  /* … and no less */
    int *most;                    /* [ranks] members in this case */
    int *fewest;                  /* [ranks] and at the least */
    int fullest, fullest_members; /* this rank has as many at the least; -1: no rank is said to */
    int moves;                    /* at most, in a case */
    pp_row rows[ROWS];            /* the first base_count are shared by all cases */
    int base_count;
    split_move columns[MOVES];
    int row_count, column_count;
    double payoff[ROWS][MOVES];
    double row_share[ROWS], column_share[MOVES];
    double center[ROWS]; /* shares that proved most so far in this case */
    pp_mix *mean;  /* [copies] of the splits … */
    pp_mix *inner; /* … and the best mix, whose longest path is */
    double inner_s;
    pp_row sum;    /* mean of the rows */
    double *sums;  /* [layers + 1] A_s */
    double *least; /* [layers + 1] D_s */
    int *queue;    /* [layers + 1] starts that may be best … */
    double *keys;  /* [layers + 1] … and how good they are */
    int *choice;   /* [stages][layers + 1] */
    double bound_s;
} game;

/* ---- payoffs ------------------------------------------------------------------------------- */

static double payoff_of(const game *g, const pp_row *row, const pp_mix *mix) {
    double seconds = row->fixed_s;
    for (int s = 0; s < g->terms->copies; s++) {
        const pp_row_stage *r = &row->stages[s];
        const pp_mix *m = &mix[s];
        seconds += r->forward * m->forward_s + r->recompute * m->recompute_s +
                   r->input * m->input_s + r->weight * m->weight_s + r->update * m->update_s +
                   r->border_byte_s * m->border_bytes + r->members * m->members +
                   r->again * m->again_s;
    }
    return seconds;
}

/* Seconds of a step; 0 where nothing is said. */
static double again_s(const game *g, int copy, int members) {
    const pp_capacity *c = g->capacity;
    return c->again_s == NULL ? 0
                              : c->again_s[(size_t)copy * ((size_t)c->total + 1) + (size_t)members];
}

static void add_split(const game *g, const int *splits, double share, pp_mix *mix) {
    pp_mix_add(g->terms, splits, share, mix);
    int stages = g->terms->stages;
    for (int s = 0; s < g->terms->copies; s++) {
        int i = s % stages, first = i == 0 ? 0 : splits[i - 1];
        int end = i == stages - 1 ? g->terms->tables->layers : splits[i];
        int members = g->capacity->members[end] - g->capacity->members[first];
        double again = again_s(g, s, members);
        mix[s].members += share * members;
        if (again < INFINITY) mix[s].again_s += share * again; /* else the split is none */
    }
}

static bool add_column(game *g, const int *splits) {
    size_t boundaries = (size_t)g->terms->stages - 1;
    for (int c = 0; c < g->column_count; c++) {
        if (memcmp(g->columns[c].splits, splits, boundaries * sizeof *splits) == 0) return false;
    }
    if (g->column_count == MOVES) return false;
    split_move *column = &g->columns[g->column_count];
    memcpy(column->splits, splits, boundaries * sizeof *splits);
    memset(column->mix, 0, (size_t)g->terms->copies * sizeof *column->mix);
    add_split(g, splits, 1, column->mix);
    for (int r = 0; r < g->row_count; r++) {
        g->payoff[r][g->column_count] = payoff_of(g, &g->rows[r], column->mix);
    }
    g->column_count++;
    return true;
}

static double members_of(const game *g, const pp_mix *mix, int rank) {
    double members = 0;
    for (int s = 0; s < g->terms->copies; s++) {
        if (g->terms->placement[s] == rank) members += mix[s].members;
    }
    return members;
}

static void punish(const game *g, int rank, double weight, int members, pp_row *row) {
    row->fixed_s -= weight * members;
    for (int s = 0; s < g->terms->copies; s++) {
        if (g->terms->placement[s] == rank) row->stages[s].members = weight;
    }
}

/* Whichever of its stages repeats it, a path has at least the share of what its rank repeats that
 * it has of the backwards of each of them. */
static void count_again(const game *g, pp_row *row) {
    const pp_terms *terms = g->terms;
    for (int s = 0; s < terms->copies; s++) {
        double least = 1;
        for (int o = 0; o < terms->copies; o++) {
            if (terms->placement[o] != terms->placement[s]) continue;
            least = fmin(least, row->stages[o].input / terms->visits[o / terms->stages]);
        }
        row->stages[s].again = least;
    }
}

/* The longest path for a mix, and what the mix breaks of the case's limits; the payoff is returned.
 */
static double add_row(game *g, const pp_mix *mix) {
    pp_row *row = &g->rows[g->row_count];
    pp_paths_longest(&g->paths, mix, row);
    count_again(g, row);
    for (int p = 0; p < g->terms->ranks; p++) {
        double members = members_of(g, mix, p);
        if (members > g->most[p] + 1e-6) punish(g, p, g->limit_s, g->most[p], row);
        if (p == g->fullest && members < g->fullest_members - 1e-6) {
            punish(g, p, -g->limit_s, g->fullest_members, row);
        }
    }
    for (int c = 0; c < g->column_count; c++) {
        g->payoff[g->row_count][c] = payoff_of(g, row, g->columns[c].mix);
    }
    g->row_count++;
    return payoff_of(g, row, mix);
}

/* ---- the best split against a mean of paths ------------------------------------------------ */

static void mean_row(game *g) {
    size_t stages = (size_t)g->terms->copies;
    g->sum.fixed_s = 0;
    memset(g->sum.stages, 0, stages * sizeof *g->sum.stages);
    for (int i = 0; i < g->row_count; i++) {
        double share = g->row_share[i];
        if (share <= 0) continue;
        g->sum.fixed_s += share * g->rows[i].fixed_s;
        for (size_t s = 0; s < stages; s++) {
            pp_row_stage *to = &g->sum.stages[s];
            const pp_row_stage *from = &g->rows[i].stages[s];
            to->forward += share * from->forward;
            to->recompute += share * from->recompute;
            to->input += share * from->input;
            to->weight += share * from->weight;
            to->update += share * from->update;
            to->border_byte_s += share * from->border_byte_s;
            to->members += share * from->members;
            to->again += share * from->again;
        }
    }
}

/* Adds one copy of a stage to A_s; what it costs wherever it is cut. */
static double weigh_copy(game *g, int s) {
    const pp_terms *terms = g->terms;
    const int64_t *own_bytes = terms->timing->division.weights->own_bytes;
    const pp_timing *t = pp_terms_timing(terms, s);
    const pp_row_stage *r = &g->sum.stages[s];
    pp_line reduce = pp_terms_update_line(terms, s);
    double forward = r->forward + (terms->mode.recompute ? r->recompute : 0);
    double step = r->update / terms->mode.shards, byte = r->update * reduce.per_byte_s;
    for (int j = 0; j <= terms->tables->layers; j++) {
        g->sums[j] += forward * t->forward[j] + r->input * t->input[j] + r->weight * t->weight[j] +
                      step * t->own_update[j] + byte * (double)own_bytes[j] +
                      r->members * g->capacity->members[j];
    }
    return r->update * reduce.fixed_s;
}

/* A_s, over all copies, and what the stage costs wherever it is cut. */
static double weigh_stage(game *g, int s) {
    double fixed = 0;
    memset(g->sums, 0, ((size_t)g->terms->tables->layers + 1) * sizeof *g->sums);
    for (int copy = s; copy < g->terms->copies; copy += g->terms->stages)
        fixed += weigh_copy(g, copy);
    return fixed;
}

/* Most members of stage s in splits that keep the limits. */
static int stage_limit(const game *g, int s) {
    const pp_terms *terms = g->terms;
    int rank = terms->placement[s], most = g->most[rank];
    for (int o = 0; o < terms->stages; o++) {
        if (o != s && pp_terms_copy_on(terms, o, rank) >= 0) most -= g->capacity->least[o];
    }
    int held = g->capacity->held_by_stage[s];
    return most < held ? most : held;
}

/* By the mean of the rows, in a stage with so many members. */
static double repeated(const game *g, int s, int members) {
    double seconds = 0;
    for (int copy = s; copy < g->terms->copies; copy += g->terms->stages) {
        double again = again_s(g, copy, members);
        if (again == INFINITY) return INFINITY;
        seconds += g->sum.stages[copy].again * again;
    }
    return seconds;
}

/* The same where what a stage repeats depends on how many members it has: all starts are tried. */
static void extend_by_members(game *g, int s, int most, double byte) {
    const int *members = g->capacity->members;
    int layers = g->terms->tables->layers, behind = g->terms->stages - 1 - s, width = layers + 1;
    for (int j = layers - behind; j > s; j--) {
        double least = INFINITY;
        int best = -1;
        for (int start = j - 1; start >= s && members[j] - members[start] <= most; start--) {
            double value =
                g->least[start] - g->sums[start] + repeated(g, s, members[j] - members[start]);
            if (value < least) least = value, best = start;
        }
        g->choice[s * width + j] = best;
        g->least[j] = least + g->sums[j] + byte * (double)g->terms->timing->border_bytes[j];
    }
}

/* One row of the programme: from D of the stage before, in g->least, to its own. */
static void extend(game *g, int s) {
    const int *members = g->capacity->members;
    int layers = g->terms->tables->layers, behind = g->terms->stages - 1 - s;
    int most = stage_limit(g, s), head = 0, tail = 0, width = layers + 1;
    double byte = 0, before = g->least[s];
    for (int copy = s; copy < g->terms->copies; copy += g->terms->stages)
        byte += g->sum.stages[copy].border_byte_s;
    if (g->capacity->again_s != NULL) {
        extend_by_members(g, s, most, byte);
        for (int j = 0; j <= s; j++) g->least[j] = INFINITY;
        return;
    }
    for (int j = s + 1; j <= layers - behind; j++) {
        int start = j - 1; /* joins */
        double value = before - g->sums[start];
        before = g->least[j]; /* of the stage before, kept until it is start's turn */
        while (tail > head && g->keys[g->queue[tail - 1]] >= value) tail--;
        g->keys[start] = value;
        g->queue[tail++] = start;
        while (head < tail && members[j] - members[g->queue[head]] > most) head++;
        bool none = head == tail;
        g->choice[s * width + j] = none ? -1 : g->queue[head];
        g->least[j] = none ? INFINITY
                           : g->keys[g->queue[head]] + g->sums[j] +
                                 byte * (double)g->terms->timing->border_bytes[j];
    }
    for (int j = 0; j <= s; j++) g->least[j] = INFINITY;
}

/* Into work->trial; the bound that the mean of the rows gives. INFINITY: no split keeps the
 * limits. */
static double best_response(game *g) {
    int layers = g->terms->tables->layers, stages = g->terms->stages;
    double fixed = g->sum.fixed_s;
    for (int j = 0; j <= layers; j++) g->least[j] = j == 0 ? 0 : INFINITY;
    for (int s = 0; s < stages; s++) {
        fixed += weigh_stage(g, s);
        extend(g, s);
    }
    if (g->least[layers] == INFINITY) return INFINITY;
    for (int s = stages - 1, end = layers; s > 0; s--) {
        end = g->choice[s * (layers + 1) + end];
        g->work->trial[s - 1] = end;
    }
    return fixed + g->least[layers];
}

/* ---- the game of what has been found ------------------------------------------------------- */

/* The splits' side as a linear programme: maximise Σ y with payoff · y <= 1, y >= 0, once all
 * payoffs are positive; the value is 1 / Σ y. In the tableau rows [row_count] are the basic
 * variables, and the last row and column the objective and the right side. */
typedef struct tableau {
    double cell[ROWS + 1][MOVES + 1];
    int row_name[ROWS], column_name[MOVES]; /* < MOVES: a split; else slack of a path */
    int rows, columns;
} tableau;

static void set_tableau(const game *g, double shift, tableau *t) {
    t->rows = g->row_count;
    t->columns = g->column_count;
    for (int r = 0; r <= t->rows; r++) {
        for (int c = 0; c <= t->columns; c++) {
            bool objective = r == t->rows, right = c == t->columns;
            t->cell[r][c] = objective ? (right ? 0 : -1) : right ? 1 : g->payoff[r][c] + shift;
        }
    }
    for (int r = 0; r < t->rows; r++) t->row_name[r] = MOVES + r;
    for (int c = 0; c < t->columns; c++) t->column_name[c] = c;
}

static int entering(const tableau *t) {
    int best = -1;
    double least = -1e-11;
    for (int c = 0; c < t->columns; c++) {
        if (t->cell[t->rows][c] < least) least = t->cell[t->rows][c], best = c;
    }
    return best;
}

static int leaving(const tableau *t, int column) {
    int best = -1;
    double least = INFINITY;
    for (int r = 0; r < t->rows; r++) {
        if (t->cell[r][column] <= 1e-12) continue;
        double ratio = t->cell[r][t->columns] / t->cell[r][column];
        if (ratio < least) least = ratio, best = r;
    }
    return best;
}

static void pivot(tableau *t, int row, int column) {
    double *with = t->cell[row], scale = 1 / with[column];
    for (int c = 0; c <= t->columns; c++) with[c] *= scale;
    with[column] = scale;
    for (int r = 0; r <= t->rows; r++) {
        double *of = t->cell[r], factor = of[column];
        if (r == row || factor == 0) continue;
        of[column] = 0;
        for (int c = 0; c <= t->columns; c++) of[c] -= factor * with[c];
    }
    int name = t->row_name[row];
    t->row_name[row] = t->column_name[column];
    t->column_name[column] = name;
}

/* Shares >= 0 that add up to one, whatever rounding did. */
static void normalize(double *share, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) {
        if (!(share[i] > 1e-9)) share[i] = 0;
        sum += share[i];
    }
    if (!(sum > 0)) share[0] = sum = 1;
    for (int i = 0; i < count; i++) share[i] /= sum;
}

static void solve_game(game *g) {
    tableau t;
    double least = INFINITY, most = -INFINITY;
    for (int r = 0; r < g->row_count; r++) {
        for (int c = 0; c < g->column_count; c++) {
            least = fmin(least, g->payoff[r][c]);
            most = fmax(most, g->payoff[r][c]);
        }
    }
    double scale = most > least ? most - least : 1;
    set_tableau(g, scale - least, &t);
    for (int r = 0; r < t.rows; r++) {
        for (int c = 0; c < t.columns; c++) t.cell[r][c] /= scale;
    }
    for (int steps = 0; steps < 8 * MOVES; steps++) {
        int column = entering(&t), row = column < 0 ? -1 : leaving(&t, column);
        if (row < 0) break;
        pivot(&t, row, column);
    }
    memset(g->row_share, 0, sizeof g->row_share);
    memset(g->column_share, 0, sizeof g->column_share);
    for (int r = 0; r < t.rows; r++) {
        if (t.row_name[r] < MOVES) g->column_share[t.row_name[r]] = t.cell[r][t.columns];
    }
    for (int c = 0; c < t.columns; c++) {
        int name = t.column_name[c];
        if (name >= MOVES) g->row_share[name - MOVES] = t.cell[t.rows][c];
    }
    normalize(g->row_share, t.rows);
    normalize(g->column_share, t.columns);
}

/* ---- mixes --------------------------------------------------------------------------------- */

/* The mean of the splits, weighted by their shares. */
static void mean_split(game *g) {
    memset(g->mean, 0, (size_t)g->terms->copies * sizeof *g->mean);
    for (int c = 0; c < g->column_count; c++) {
        if (g->column_share[c] > 0) add_split(g, g->columns[c].splits, g->column_share[c], g->mean);
    }
}

/* Half way from the best mix to the mean. */
static void step_inward(game *g) {
    double *mean = (double *)g->mean;
    const double *inner = (const double *)g->inner;
    size_t count = (size_t)g->terms->copies * (sizeof *g->mean / sizeof *mean);
    for (size_t i = 0; i < count; i++) mean[i] = 0.5 * (mean[i] + inner[i]);
}

static void note_inner(game *g, const pp_mix *mix, double seconds) {
    if (seconds >= g->inner_s) return;
    g->inner_s = seconds;
    memcpy(g->inner, mix, (size_t)g->terms->copies * sizeof *mix);
}

/* ---- the play ------------------------------------------------------------------------------ */

static pp_status prepare(game *g, pp_work *work, double limit_s, pp_error *error) {
    pp_arena *arena = &work->arena;
    int stages = work->terms.stages, copies = work->terms.copies;
    int width = work->tables->layers + 1;
    *g = (game){.work = work, .terms = &work->terms, .limit_s = limit_s};
    g->most = PP_NEW(arena, int, work->terms.ranks);
    g->fewest = PP_NEW(arena, int, work->terms.ranks);
    g->mean = PP_NEW(arena, pp_mix, copies);
    g->inner = PP_NEW(arena, pp_mix, copies);
    g->sum.stages = PP_NEW(arena, pp_row_stage, copies);
    g->sums = PP_NEW(arena, double, width);
    g->least = PP_NEW(arena, double, width);
    g->keys = PP_NEW(arena, double, width);
    g->queue = PP_NEW(arena, int, width);
    g->choice = PP_NEW(arena, int, (size_t)stages *(size_t)width);
    for (int i = 0; i < ROWS; i++) g->rows[i].stages = PP_NEW(arena, pp_row_stage, copies);
    for (int i = 0; i < MOVES; i++) {
        g->columns[i].splits = PP_NEW(arena, int, stages);
        g->columns[i].mix = PP_NEW(arena, pp_mix, copies);
    }
    return arena->failed ? pp_fail_memory(error) : PP_OK;
}

/* What the shares of the rows prove; the split that answers them joins. */
static void respond(game *g, double *bound) {
    mean_row(g);
    double proved = CAUTION * best_response(g);
    if (proved < INFINITY) add_column(g, g->work->trial);
    if (proved <= *bound) return;
    *bound = proved;
    memcpy(g->center, g->row_share, sizeof g->center);
}

/* To begin with, the rows of all ranks count alike. */
static void begin_at_center(game *g, double *bound) {
    memset(g->row_share, 0, sizeof g->row_share);
    for (int i = 0; i < g->base_count; i++) g->row_share[i] = 1.0 / g->base_count;
    memcpy(g->center, g->row_share, sizeof g->center);
    respond(g, bound);
}

/* Half way from the shares that proved most. */
static void step_to_center(game *g) {
    for (int i = 0; i < g->row_count; i++) g->row_share[i] = 0.5 * (g->row_share[i] + g->center[i]);
}

/* One move of both sides. False: no more can be won. */
static bool move(game *g, double *bound) {
    solve_game(g);
    g->work->effort += (double)g->paths.count + SIMPLEX_EFFORT;
    step_to_center(g);
    respond(g, bound);
    if (*bound >= g->enough_s) return false;
    mean_split(g);
    step_inward(g);
    note_inner(g, g->mean, add_row(g, g->mean));
    if (g->to_win && g->inner_s < g->enough_s) return false;
    return g->inner_s > *bound * (1 + CLOSE_ENOUGH);
}

/* A row for every rank: the longest path when it has more to do than the split gives it. */
static void add_base(game *g, const int *start) {
    const pp_terms *terms = g->terms;
    g->fullest = -1;
    for (int p = 0; p < terms->ranks; p++) g->most[p] = g->capacity->total;
    for (int p = 0; p < terms->ranks && p < BASE_ROWS; p++) {
        memset(g->mean, 0, (size_t)terms->copies * sizeof *g->mean);
        add_split(g, start, 1, g->mean);
        for (int s = 0; s < terms->copies; s++) {
            if (terms->placement[s] != p) continue;
            g->mean[s].forward_s *= FULLER;
            g->mean[s].recompute_s *= FULLER;
            g->mean[s].input_s *= FULLER;
            g->mean[s].weight_s *= FULLER;
        }
        add_row(g, g->mean);
    }
    g->base_count = g->row_count;
}

/* The base row of the fullest rank, with what it is short of. */
static void add_fullest(game *g) {
    if (g->fullest < 0 || g->fullest >= g->base_count) return;
    pp_row *row = &g->rows[g->row_count];
    const pp_row *base = &g->rows[g->fullest];
    row->fixed_s = base->fixed_s;
    memcpy(row->stages, base->stages, (size_t)g->terms->copies * sizeof *row->stages);
    punish(g, g->fullest, -g->limit_s, g->fullest_members, row);
    g->row_count++;
}

/* What the paths found so far say of a split at the least. */
static double estimate(const game *g, int column) {
    double most = 0;
    for (int r = 0; r < g->row_count; r++) most = fmax(most, g->payoff[r][column]);
    return most;
}

/* Keeps the most promising splits for whoever looks for the best one. */
static void keep_starts(const game *g) {
    pp_work *work = g->work;
    size_t bytes = (size_t)(g->terms->stages - 1) * sizeof *work->trial;
    for (int c = 0; c < g->column_count; c++) {
        const int *splits = g->columns[c].splits;
        double seconds = estimate(g, c);
        int place = work->start_count;
        bool known = false;
        for (int i = 0; i < work->start_count; i++) {
            known = known || memcmp(work->starts[i].splits, splits, bytes) == 0;
        }
        while (place > 0 && seconds < work->starts[place - 1].estimate_s) place--;
        if (known || place == PP_STARTS) continue;
        if (work->start_count < PP_STARTS) work->start_count++;
        pp_start last = work->starts[work->start_count - 1];
        for (int i = work->start_count - 1; i > place; i--) work->starts[i] = work->starts[i - 1];
        last.estimate_s = seconds;
        memcpy(last.splits, splits, bytes);
        work->starts[place] = last;
    }
}

/* How many members each rank has at the least, since the others have not more than they can. */
static void find_fewest(game *g) {
    const pp_terms *terms = g->terms;
    int64_t all = (int64_t)g->capacity->total * terms->copies / terms->stages;
    for (int p = 0; p < terms->ranks; p++) all -= g->most[p];
    for (int p = 0; p < terms->ranks; p++) {
        int64_t fewest = all + g->most[p];
        g->fewest[p] = fewest > 0 ? (int)fewest : 0;
        if (p == g->fullest && g->fewest[p] < g->fullest_members) g->fewest[p] = g->fullest_members;
    }
}

/* One case, from the splits that other cases left. */
static double play(game *g, const int *start) {
    double bound = 0;
    find_fewest(g);
    if (pp_capacity_again(g->work, g->fewest, g->most, g->capacity, NULL) != PP_OK) {
        g->work->failure = PP_E_OUT_OF_MEMORY;
        return 0;
    }
    g->row_count = g->base_count;
    g->column_count = 0;
    g->inner_s = INFINITY;
    add_fullest(g);
    add_column(g, start);
    note_inner(g, g->columns[0].mix, add_row(g, g->columns[0].mix));
    begin_at_center(g, &bound);
    while (bound < g->enough_s && g->row_count < g->base_count + g->moves && move(g, &bound) &&
           !pp_work_must_stop(g->work))
        continue;
    keep_starts(g);
    return bound;
}

/* L: the least number of members for each rank with which there is room for all. */
static int level_of(const game *g) {
    int64_t all = (int64_t)g->capacity->total * g->terms->copies / g->terms->stages;
    for (int level = 1;; level++) {
        int64_t room = 0;
        for (int p = 0; p < g->terms->ranks; p++) {
            int most = g->capacity->most[p];
            room += most < level ? most : level;
        }
        if (room >= all || level >= g->capacity->total) return level;
    }
}

static double play_level(game *g, int level, const int *start) {
    for (int p = 0; p < g->terms->ranks; p++) {
        int most = g->capacity->most[p];
        g->most[p] = most < level ? most : level;
    }
    g->fullest = -1;
    return play(g, start);
}

static double play_fullest(game *g, int rank, int members, const int *start) {
    if (g->capacity->most[rank] < members) return INFINITY;
    for (int p = 0; p < g->terms->ranks; p++) g->most[p] = g->capacity->most[p];
    g->fullest = rank;
    g->fullest_members = members;
    return play(g, start);
}

static double play_cases(game *g, const int *start) {
    int level = level_of(g), ranks = g->terms->ranks;
    double nodes = (double)g->paths.count, moves = GAME_ACTIONS / (nodes * (ranks + 1));
    if (g->to_win) moves = fmin(moves, WIN_ACTIONS / nodes);
    g->moves = moves < FEWEST_MOVES ? FEWEST_MOVES : moves > MOVES ? MOVES : (int)moves;
    g->enough_s = g->limit_s;
    add_base(g, start);
    for (int p = -1; p < ranks; p++) {
        double bound = p < 0 ? play_level(g, level, start) : play_fullest(g, p, level + 1, start);
        g->enough_s = fmin(g->enough_s, bound);
        if (g->enough_s <= g->work->bound_s) break; /* nothing new */
        if (g->to_win && g->enough_s < g->limit_s) return 0; /* of other cases nothing is known */
    }
    return g->enough_s;
}

pp_status pp_game_bound(pp_work *work, pp_capacity *capacity, double limit_s, bool to_win,
                        double *bound, pp_error *error) {
    *bound = pp_capacity_limit(work, limit_s, capacity) ? 0 : limit_s;
    if (*bound > 0 || !isfinite(limit_s)) return PP_OK;
    game *g = PP_NEW(&work->arena, game, 1);
    int *start = PP_NEW(&work->arena, int, work->terms.stages);
    if (g == NULL || start == NULL) return pp_fail_memory(error);
    PP_TRY(prepare(g, work, limit_s, error));
    g->capacity = capacity;
    g->to_win = to_win;
    PP_TRY(pp_paths_init(&g->paths, &work->terms, work->order, &work->arena, error));
    if (g->paths.count == 0) return PP_OK;
    memcpy(start, work->trial, (size_t)(work->terms.stages - 1) * sizeof *start);
    *bound = play_cases(g, start);
    return PP_OK;
}
