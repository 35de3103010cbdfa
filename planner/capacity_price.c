/* What a rank has to recompute for want of memory, however many stages it has: by a price of bytes.
 *
 * At any moment of the step the rank's stages hold together no more than its limit. So they do on
 * the mean over several moments: with f_s and w_s how many microbatches of stage s wait on the mean
 * for their I and their W,
 *
 *     sum over s of bytes_s(m_s, r_s) <= limit,
 *     bytes_s(m, r) = weights, optimizer state and buffers + f_s · activation(m, r)
 *                     + w_s · kept(m, r) + workspace(m, r) / stages of the rank,
 *
 * (the rank has the largest workspace of its stages, which is no less than their mean,)
 * for every way to share members m_s out to the stages and to choose what each repeats, r_s. For
 * every price u >= 0 of a byte in seconds, the rank then repeats at least
 *
 *     sum over s of min over r of (repeats(m_s, r) + u · bytes_s(m_s, r)) - u · limit
 *
 * (Lagrange's relaxation), and the least of that over all ways to share n members out is
 * a programme over the stages, O(stages · n²) for all n at once. Prices are tried at which a stage
 * would change its mind; moments are those of one round of the steady state, where most waits. */
#include <math.h>
#include <string.h>

#include "planner/capacity_internal.h"

/* ---- what waits ---------------------------------------------------------------------------- */

typedef struct waiting {
    double *forward, *weight; /* [copies] microbatches: for I or B; for W alone */
} waiting;

static void count_action(const pp_schedule *order, pp_action a, waiting *now) {
    double unit = 1.0 / order->slices;
    if (a.kind == PP_FORWARD) now->forward[a.stage] += unit;
    if (a.kind == PP_BACKWARD || a.kind == PP_INPUT) now->forward[a.stage] -= unit;
    if (a.kind == PP_INPUT) now->weight[a.stage] += unit;
    if (a.kind == PP_WEIGHT) now->weight[a.stage] -= unit;
}

static double change_of(pp_action a) {
    return a.kind == PP_FORWARD ? 1 : a.kind == PP_BACKWARD || a.kind == PP_INPUT ? -1 : 0;
}

/* First of `length` actions of the rank in which most waits. */
static size_t fullest_window(const pp_schedule *order, int rank, size_t length) {
    size_t first = order->first_action[rank], end = order->first_action[rank + 1], best = first;
    double now = 0, left = 0, sum = 0, most = 0; /* waiting now, and at the window's left end */
    for (size_t i = first; i < end; i++) {
        now += change_of(order->actions[i]);
        sum += now;
        if (i >= first + length) {
            left += change_of(order->actions[i - length]);
            sum -= left;
        }
        if (sum > most) {
            most = sum;
            best = i + 1 >= first + length ? i + 1 - length : first;
        }
    }
    return best;
}

typedef struct pricing {
    pp_work *work;
    const pp_capacity *capacity;
    const double *member_s;
    int rank, count;
    int *copies, copy_count; /* of stages on the rank */
    waiting now, mean;
    double *sum, *next; /* [count + 1] least of the stages so far, by members */
} pricing;

/* Fills p->mean over that many actions of the rank, where most waits. */
static void average(pricing *p, size_t length) {
    const pp_schedule *order = p->work->order;
    size_t first = order->first_action[p->rank], from = fullest_window(order, p->rank, length);
    for (int i = 0; i < p->copy_count; i++) {
        int s = p->copies[i];
        p->now.forward[s] = p->now.weight[s] = p->mean.forward[s] = p->mean.weight[s] = 0;
    }
    for (size_t a = first; a < from + length; a++) {
        count_action(order, order->actions[a], &p->now);
        for (int i = 0; i < p->copy_count && a >= from; i++) {
            int s = p->copies[i];
            p->mean.forward[s] += p->now.forward[s] / (double)length;
            p->mean.weight[s] += p->now.weight[s] / (double)length;
        }
    }
}

/* ---- the programme ------------------------------------------------------------------------- */

static double bytes_of(const pricing *p, int kind, int copy, int members) {
    const pp_work *work = p->work;
    const pp_stage_bytes *b =
        leanest(&p->capacity->lean[kind], &work->terms, copy % work->terms.stages, members);
    if (!exists(b)) return INFINITY;
    double kept = (double)(b->activation - b->released_by_input);
    double slots = (double)work->input_slots[copy] * (double)b->input +
                   (double)work->gradient_slots[copy] * (double)b->output_gradient;
    return (double)(b->parameters + b->gradients + b->optimizer + b->reduction) +
           slots / work->order->slices + (double)b->workspace / p->copy_count +
           p->mean.forward[copy] * (double)b->activation + p->mean.weight[copy] * kept;
}

/* What a byte costs, and what a second does that is repeated. */
typedef struct prices {
    double byte, second;
} prices;

static double cost_of(const pricing *p, prices price, int copy, int members) {
    double least = INFINITY;
    for (int kind = KEEPS; kind < REPEAT_KINDS; kind++) {
        double bytes = bytes_of(p, kind, copy, members);
        double seconds = members * p->member_s[kind];
        if (bytes < INFINITY) least = fmin(least, price.second * seconds + price.byte * bytes);
    }
    return least;
}

/* Adds one stage: p->sum is by members of all stages so far. */
static void add_stage(pricing *p, prices price, int copy) {
    int least = p->capacity->least[copy % p->work->terms.stages];
    for (int n = 0; n <= p->count; n++) p->next[n] = INFINITY;
    for (int m = least; m <= p->count; m++) {
        double cost = cost_of(p, price, copy, m);
        for (int n = m; n <= p->count && cost < INFINITY; n++)
            p->next[n] = fmin(p->next[n], p->sum[n - m] + cost);
    }
    memcpy(p->sum, p->next, ((size_t)p->count + 1) * sizeof *p->sum);
}

/* Fills p->sum for this price. */
static void share_out(pricing *p, prices price) {
    for (int n = 0; n <= p->count; n++) p->sum[n] = n == 0 ? 0 : INFINITY;
    for (int i = 0; i < p->copy_count; i++) add_stage(p, price, p->copies[i]);
}

/* Raises least_s to INFINITY where even what repeats anything is too much, or nothing has so many. */
static void try_bytes(pricing *p, double *least_s) {
    double limit = (double)p->work->terms.limit_bytes[p->rank];
    share_out(p, (prices){.byte = 1, .second = 0});
    for (int n = 0; n <= p->count; n++)
        if (p->sum[n] * CAUTION > limit) least_s[n] = INFINITY;
}

/* Raises least_s to what this price tells. */
static void try_price(pricing *p, double byte_s, double *least_s) {
    double limit = (double)p->work->terms.limit_bytes[p->rank];
    share_out(p, (prices){.byte = byte_s, .second = 1});
    for (int n = 0; n <= p->count; n++)
        if (p->sum[n] < INFINITY) least_s[n] = fmax(least_s[n], p->sum[n] - byte_s * limit);
}

/* Prices at which the stage would as soon repeat more. */
static void try_prices(pricing *p, int copy, double *least_s) {
    int members = p->capacity->total / p->work->terms.stages;
    if (members == 0) members = 1;
    for (int kind = KEEPS; kind < REPEAT_KINDS; kind++) {
        for (int more = kind + 1; more < REPEAT_KINDS; more++) {
            double saved = bytes_of(p, kind, copy, members) - bytes_of(p, more, copy, members);
            double costs = members * (p->member_s[more] - p->member_s[kind]);
            if (saved > 0 && saved < INFINITY && costs > 0) try_price(p, costs / saved, least_s);
        }
    }
}

static bool allocate(pricing *p) {
    pp_arena *arena = &p->work->arena;
    const pp_terms *terms = &p->work->terms;
    int copies = terms->copies;
    size_t length = (size_t)p->count + 1;
    p->copies = PP_NEW(arena, int, copies);
    p->now = (waiting){PP_NEW(arena, double, copies), PP_NEW(arena, double, copies)};
    p->mean = (waiting){PP_NEW(arena, double, copies), PP_NEW(arena, double, copies)};
    p->sum = PP_NEW(arena, double, length);
    p->next = PP_NEW(arena, double, length);
    if (arena->failed) return false;
    for (int s = 0; s < copies; s++)
        if (terms->placement[s] == p->rank) p->copies[p->copy_count++] = s;
    return true;
}

bool pp_capacity_price(pp_work *work, const pp_capacity *c, int rank,
                       const double member_s[REPEAT_KINDS], int count, double *least_s) {
    const pp_schedule *order = work->order;
    size_t actions = order->first_action[rank + 1] - order->first_action[rank];
    size_t round = (size_t)(work->terms.mode.split_backward ? 3 : 2) * (size_t)order->ranks *
                   (size_t)order->virtual_stages;
    const size_t lengths[] = {1, round < actions ? round : actions};
    pricing p = {.work = work, .capacity = c, .member_s = member_s, .rank = rank, .count = count};
    if (!allocate(&p)) return false;
    for (int n = 0; n <= count; n++) least_s[n] = 0;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        average(&p, lengths[i]);
        work->effort += (double)actions;
        try_bytes(&p, least_s);
        for (int o = 0; o < p.copy_count; o++) try_prices(&p, p.copies[o], least_s);
    }
    return true;
}
