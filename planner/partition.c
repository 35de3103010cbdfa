/* Two published ways to part a row of weights, kept as they are, flaws included, so that --split
 * time, memory, parameters and type: give the splits that their tools' users know. Neither
 * minimises the heaviest part; split.c does.
 *
 * Blocks (torchgpipe's balance by time and by size; Bárány and Grinberg, "Block partitions of
 * sequences", 2015): weights are scaled to 0 … 1, parts begin equally long, and single items move
 * towards the lightest part until it weighs at most 1 less than the heaviest.
 *
 * Even (DeepSpeed's balanced partition): for every beginning of the row the heaviest less the
 * lightest part is minimised, given the best beginnings with one part less; of equals the last. */
#include <math.h>
#include <string.h>

#include "planner/planner_internal.h"

void pp_split_uniform(int items, int stages, int *splits) {
    int least = items / stages, remainder = items % stages;
    for (int s = 1; s < stages; s++) splits[s - 1] = s * least + (s < remainder ? s : remainder);
}

/* ---- blocks -------------------------------------------------------------------------------- */

typedef struct blocks {
    const double *scaled;
    int stages;
    int *ends; /* [stages] */
} blocks;

static double block_weight(const blocks *b, int stage) {
    double weight = 0;
    for (int i = stage > 0 ? b->ends[stage - 1] : 0; i < b->ends[stage]; i++)
        weight += b->scaled[i];
    return weight;
}

/* The last of the heaviest. */
static int heaviest(const blocks *b, double *weight) {
    int found = 0;
    *weight = -INFINITY;
    for (int s = 0; s < b->stages; s++) {
        double here = block_weight(b, s);
        if (here < *weight) continue;
        *weight = here;
        found = s;
    }
    return found;
}

/* The first of the lightest. */
static int lightest(const blocks *b, double *weight) {
    int found = 0;
    *weight = INFINITY;
    for (int s = 0; s < b->stages; s++) {
        double here = block_weight(b, s);
        if (here >= *weight) continue;
        *weight = here;
        found = s;
    }
    return found;
}

/* An item goes to `light` from its neighbour on the side of `heavy`. Returns that neighbour. */
static int move_item(blocks *b, int heavy, int light) {
    if (heavy < light) {
        b->ends[light - 1]--;
        return light - 1;
    }
    b->ends[light]++;
    return light + 1;
}

static void settle(blocks *b, int items) {
    /* The paper proves an end after fewer moves; rounding must not make it a hang. */
    int64_t moves = (int64_t)items * items * b->stages;
    double most, least;
    int heavy = heaviest(b, &most);
    while (moves-- > 0) {
        int light = lightest(b, &least);
        if (most <= least + 1) return;
        if (move_item(b, heavy, light) == heavy) heavy = heaviest(b, &most);
    }
}

/* Items of no weight can leave a part with nothing, which no plan can have: it gets a neighbour's.
 */
static void fill_empty(blocks *b, int items) {
    for (int s = 0; s < b->stages; s++) {
        int least = s > 0 ? b->ends[s - 1] + 1 : 1, most = items - (b->stages - 1 - s);
        if (b->ends[s] < least) b->ends[s] = least;
        if (b->ends[s] > most) b->ends[s] = most;
    }
}

bool pp_split_blocks(const double *weights, int items, int stages, pp_arena *arena, int *splits) {
    double *scaled = PP_NEW(arena, double, items);
    blocks b = {scaled, stages, PP_NEW(arena, int, stages)};
    if (arena->failed) return false;
    double least = INFINITY, most = -INFINITY;
    for (int i = 0; i < items; i++) {
        least = fmin(least, weights[i]);
        most = fmax(most, weights[i]);
    }
    for (int i = 0; i < items; i++) {
        scaled[i] = most > least ? (weights[i] - least) / (most - least) : 0;
    }
    for (int s = 0; s < stages; s++) b.ends[s] = items / stages * (s + 1);
    b.ends[stages - 1] = items;
    settle(&b, items);
    fill_empty(&b, items);
    memcpy(splits, b.ends, (size_t)(stages - 1) * sizeof *splits);
    return true;
}

/* ---- even ---------------------------------------------------------------------------------- */

/* Of a beginning of the row in so many parts. */
typedef struct beginning {
    double most, least, spread;
    int last; /* where its last part begins */
} beginning;

static void extend(const double *sums, int items, const beginning *before, beginning *now) {
    for (int i = 0; i <= items; i++) {
        now[i] = (beginning){INFINITY, INFINITY, INFINITY, 0};
        for (int k = 0; k < i; k++) {
            double part = sums[i] - sums[k];
            double most = fmax(before[k].most, part), least = fmin(before[k].least, part);
            if (most - least <= now[i].spread) now[i] = (beginning){most, least, most - least, k};
        }
    }
}

bool pp_split_even(const double *weights, int items, int stages, pp_arena *arena, int *splits) {
    size_t width = (size_t)items + 1;
    double *sums = PP_NEW(arena, double, width);
    beginning *table = PP_NEW(arena, beginning, width * ((size_t)stages + 1));
    if (arena->failed) return false;
    if (items <= stages) {
        pp_split_uniform(items, stages, splits);
        return true;
    }
    for (int i = 0; i < items; i++) sums[i + 1] = sums[i] + weights[i];
    for (int i = 0; i <= items; i++) table[i] = (beginning){INFINITY, INFINITY, INFINITY, 0};
    table[0].most = table[0].spread = 0;
    for (int s = 1; s <= stages; s++) {
        extend(sums, items, table + width * (size_t)(s - 1), table + width * (size_t)s);
    }
    for (int s = stages, end = items; s > 1; s--) {
        end = table[width * (size_t)s + (size_t)end].last;
        splits[s - 2] = end;
    }
    return true;
}
