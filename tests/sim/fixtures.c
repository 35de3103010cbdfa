/* Random schedules and costs for the simulator's tests. */
#include "fixtures.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- dice ---------------------------------------------------------------------------------- */

uint64_t dice_roll(dice *d) {
    uint64_t z = (d->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

int dice_below(dice *d, int bound) {
    return (int)(dice_roll(d) % (uint64_t)bound);
}

bool dice_chance(dice *d, int one_in) {
    return dice_below(d, one_in) == 0;
}

double dice_time(dice *d) {
    if (dice_chance(d, 12)) return 0;
    return 10.0 * (double)(dice_roll(d) >> 11) / (double)(UINT64_C(1) << 53);
}

shape shape_random(dice *d) {
    shape of = {.ranks = 1 + dice_below(d, 5),
                .microbatches = 1 + dice_below(d, 6),
                .split = dice_chance(d, 2),
                .recompute = dice_chance(d, 3),
                .overlap = dice_chance(d, 3),
                .updates = dice_chance(d, 3)};
    of.stages = of.ranks + dice_below(d, 2 * of.ranks + 1);
    of.chains = of.stages >= 2 && dice_chance(d, 3) ? 2 : 1;
    return of;
}

/* ---- random orders ------------------------------------------------------------------------- */

/* States of a (stage, microbatch) on its way through the order. */
enum { NEW, FORWARDED, GRADIENT, DONE };

typedef struct maker {
    int slices;
    dice *d;
    const shape *of;
    pp_schedule *schedule;
    int *state;      /* [stages · microbatches · slices] */
    bool *again;     /* … R has been */
    bool *whole;     /* … its backward is a B */
    pp_action *rows; /* [ranks][room] */
    size_t *length;  /* [ranks] */
    size_t room;
    bool *reduced;    /* [stages] REDUCE_GRAD has been */
    bool *pair_first; /* [ranks] the last action waits for its partner: nothing may use it */
} maker;

/* u: microbatch times slices plus slice. */
static int *state_at(maker *k, int s, int u) {
    return &k->state[s * k->of->microbatches * k->slices + u];
}

/* Slices go forward in order, and backward in reverse once the last has gone forward. */
static bool slices_allow(maker *k, int s, int u, int state) {
    int q = u % k->slices, last = k->slices - 1;
    if (state == NEW) return q == 0 || *state_at(k, s, u - 1) != NEW;
    return *state_at(k, s, u - q + last) != NEW &&
           (q == last || *state_at(k, s, u + 1) >= GRADIENT);
}

/* The next action of unit u of stage s that may come now, if any. */
static bool next_action(maker *k, int s, int u, pp_action *action) {
    int previous = pp_schedule_previous(k->schedule, s), next = pp_schedule_next(k->schedule, s);
    int at = s * k->of->microbatches * k->slices + u, state = k->state[at];
    *action = (pp_action){.stage = (uint16_t)s,
                          .microbatch = (uint32_t)(u / k->slices),
                          .slice = (uint8_t)(u % k->slices)};
    if (state == NEW) {
        action->kind = PP_FORWARD;
        return slices_allow(k, s, u, state) && (previous < 0 || *state_at(k, previous, u) != NEW);
    }
    if (state == FORWARDED) {
        if (k->again[at]) {
            action->kind = PP_RECOMPUTE;
            return true;
        }
        action->kind = k->whole[at] ? PP_BACKWARD : PP_INPUT;
        return slices_allow(k, s, u, state) && (next < 0 || *state_at(k, next, u) >= GRADIENT);
    }
    action->kind = PP_WEIGHT;
    return state == GRADIENT;
}

static void put(maker *k, int rank, pp_action action) {
    k->rows[(size_t)rank * k->room + k->length[rank]++] = action;
}

static void advance(maker *k, pp_action action) {
    int at =
        (action.stage * k->of->microbatches + (int)action.microbatch) * k->slices + action.slice;
    if (action.kind == PP_RECOMPUTE)
        k->again[at] = false;
    else if (action.kind == PP_FORWARD)
        k->state[at] = FORWARDED;
    else
        k->state[at] = action.kind == PP_INPUT ? GRADIENT : DONE;
}

/* Tries to put one drawn action, sometimes with a partner that is ready on the same rank as well.
 */
static bool draw(maker *k) {
    const shape *of = k->of;
    int units = of->microbatches * k->slices;
    int s = dice_below(k->d, of->stages), m = dice_below(k->d, units);
    pp_action action, partner;
    if (!next_action(k, s, m, &action)) return false;
    int rank = k->schedule->placement[s];
    bool pairs = of->overlap && dice_chance(k->d, 3);
    for (int attempt = 0; pairs && attempt < 8; attempt++) {
        int s2 = dice_below(k->d, of->stages), m2 = dice_below(k->d, units);
        if ((s2 == s && m2 == m) || k->schedule->placement[s2] != rank) continue;
        if (!next_action(k, s2, m2, &partner)) continue;
        action.overlapped = 1;
        put(k, rank, action);
        put(k, rank, partner);
        action.overlapped = 0;
        advance(k, action);
        advance(k, partner);
        return true;
    }
    put(k, rank, action);
    advance(k, action);
    return true;
}

static void put_update(maker *k, int stage, unsigned kind) {
    put(k, k->schedule->placement[stage],
        (pp_action){.kind = kind & 0x7f, .stage = (uint16_t)stage, .microbatch = PP_NO_MICROBATCH});
}

static void reduce_early(maker *k, int stage) {
    for (int u = 0; u < k->of->microbatches * k->slices; u++)
        if (*state_at(k, stage, u) != DONE) return;
    if (!k->of->updates || !k->of->early || k->reduced[stage] || !dice_chance(k->d, 2)) return;
    put_update(k, stage, PP_REDUCE_GRAD);
    k->reduced[stage] = true;
}

static bool finished(const maker *k) {
    for (int i = 0; i < k->of->stages * k->of->microbatches * k->slices; i++)
        if (k->state[i] != DONE) return false;
    return true;
}

static void place_randomly(dice *d, const shape *of, pp_schedule *schedule) {
    for (int s = 0; s < of->stages; s++)
        schedule->placement[s] = s < of->ranks ? s : dice_below(d, of->ranks);
    for (int s = of->stages - 1; s > 0; s--) {
        int other = dice_below(d, s + 1), kept = schedule->placement[s];
        schedule->placement[s] = schedule->placement[other];
        schedule->placement[other] = kept;
    }
    int *held = calloc((size_t)of->ranks, sizeof *held);
    schedule->virtual_stages = 1;
    for (int s = 0; s < of->stages; s++)
        if (++held[schedule->placement[s]] > schedule->virtual_stages)
            schedule->virtual_stages = held[schedule->placement[s]];
    free(held);
    if (of->chains < 2) return;
    schedule->chains = PP_NEW(&schedule->arena, pp_chain, 2);
    int cut = 1 + dice_below(d, of->stages - 1);
    schedule->chains[0] = (pp_chain){0, cut - 1};
    schedule->chains[1] = (pp_chain){cut, of->stages - 1};
    schedule->chain_count = 2;
}

static void put_updates(maker *k) {
    for (int s = 0; s < k->of->stages; s++)
        if (!k->reduced[s] && dice_chance(k->d, 2)) put_update(k, s, PP_REDUCE_GRAD);
    for (int s = 0; s < k->of->stages; s++) put_update(k, s, PP_STEP);
}

static void finish_schedule(maker *k) {
    size_t at = 0;
    for (int p = 0; p < k->of->ranks; p++) {
        k->schedule->first_action[p] = at;
        memcpy(k->schedule->actions + at, k->rows + (size_t)p * k->room,
               k->length[p] * sizeof *k->rows);
        at += k->length[p];
    }
    k->schedule->first_action[k->of->ranks] = at;
}

pp_schedule *schedule_random(dice *d, const shape *of) {
    int slices = of->slices > 0 ? of->slices : 1;
    size_t pairs = (size_t)of->stages * (size_t)(of->microbatches * slices);
    size_t room = 4 * pairs + 2 * (size_t)of->stages;
    maker k = {.d = d, .of = of, .room = room, .slices = slices};
    cr_assert_eq(pp_schedule_new(of->ranks, of->stages, of->microbatches, room, &k.schedule, NULL),
                 PP_OK);
    k.schedule->slices = slices;
    place_randomly(d, of, k.schedule);
    k.state = calloc(pairs, sizeof *k.state);
    k.again = calloc(pairs, sizeof *k.again);
    k.whole = calloc(pairs, sizeof *k.whole);
    k.rows = calloc((size_t)of->ranks * room, sizeof *k.rows);
    k.length = calloc((size_t)of->ranks, sizeof *k.length);
    for (size_t i = 0; i < pairs; i++) {
        k.again[i] = of->recompute && dice_chance(d, 2);
        k.whole[i] = !of->split || dice_chance(d, 4);
    }
    k.reduced = calloc((size_t)of->stages, sizeof *k.reduced);
    while (!finished(&k)) {
        draw(&k);
        if (of->early) reduce_early(&k, dice_below(d, of->stages));
    }
    if (of->updates) put_updates(&k);
    finish_schedule(&k);
    free(k.state), free(k.again), free(k.whole), free(k.rows), free(k.length), free(k.reduced);
    return k.schedule;
}

/* ---- written orders ------------------------------------------------------------------------ */

static int count_cells(const char *rows) {
    int count = 1;
    for (; *rows; rows++) count += *rows == ' ' || *rows == '\n';
    return count;
}

pp_schedule *schedule_from(const char *rows, const int *placement, int stages, int ranks) {
    pp_schedule *schedule;
    size_t room = (size_t)count_cells(rows), at = 0;
    int microbatches = 1, rank = 0;
    cr_assert_eq(pp_schedule_new(ranks, stages, 1, room, &schedule, NULL), PP_OK);
    memcpy(schedule->placement, placement, (size_t)stages * sizeof *placement);
    schedule->first_action[0] = 0;
    for (const char *cell = rows; *cell;) {
        size_t length = strcspn(cell, " \n");
        bool joined = length && cell[length - 1] == '&'; /* "0F3&": overlaps the next cell */
        if (length) {
            cr_assert(pp_action_parse(cell, length - joined, &schedule->actions[at]), "cell %.*s",
                      (int)length, cell);
            schedule->actions[at].overlapped = joined;
            uint32_t m = schedule->actions[at].microbatch;
            if (schedule->actions[at].slice >= schedule->slices)
                schedule->slices = schedule->actions[at].slice + 1;
            if (m != PP_NO_MICROBATCH && (int)m >= microbatches) microbatches = (int)m + 1;
            at++;
        }
        cell += length;
        if (*cell == '\n') schedule->first_action[++rank] = at;
        if (*cell) cell++;
    }
    while (rank < ranks) schedule->first_action[++rank] = at;
    schedule->microbatches = microbatches;
    return schedule;
}

/* ---- costs --------------------------------------------------------------------------------- */

costs costs_random(dice *d, int stages, bool occupancy) {
    costs c = {calloc((size_t)stages, sizeof *c.stage), calloc((size_t)stages, sizeof *c.border),
               calloc((size_t)stages, sizeof *c.bytes), calloc((size_t)stages, sizeof *c.group)};
    for (int s = 0; s < stages; s++) {
        c.stage[s] = (pp_stage_cost){.forward_s = dice_time(d),
                                     .input_s = dice_time(d),
                                     .weight_s = dice_time(d),
                                     .recompute_s = dice_time(d),
                                     .reduce_s = dice_time(d),
                                     .optimizer_s = dice_time(d)};
        c.stage[s].forward_tilt_s = fmin(c.stage[s].forward_s, c.stage[s].recompute_s) / 8;
        c.stage[s].input_tilt_s = c.stage[s].input_s / 6;
        c.stage[s].reduce_transfer_s = c.stage[s].reduce_s / 2;
        c.stage[s].reduce_latency_s = c.stage[s].reduce_s / 16;
        c.stage[s].tie_transfer_s = s % 3 == 1 ? c.stage[s].reduce_s / 4 : 0;
        c.border[s].latency_s = dice_time(d) / 4;
        if (occupancy) {
            c.border[s].forward_occupancy_s = dice_time(d) / 2;
            c.border[s].backward_occupancy_s = dice_time(d) / 2;
        }
        c.bytes[s] = (pp_stage_bytes){.parameters = dice_below(d, 1000),
                                      .gradients = dice_below(d, 1000),
                                      .optimizer = dice_below(d, 1000),
                                      .activation = dice_below(d, 1000),
                                      .stash = dice_below(d, 300),
                                      .workspace = dice_below(d, 500),
                                      .reduction = dice_below(d, 100)};
        c.bytes[s].released_by_input = dice_below(d, (int)c.bytes[s].activation + 1);
        c.bytes[s].checkpoint = dice_below(d, 300);
        c.group[s] = dice_below(d, stages);
    }
    return c;
}

costs costs_uniform(int stages, double f, double i, double w, double c) {
    costs made = {calloc((size_t)stages, sizeof *made.stage),
                  calloc((size_t)stages, sizeof *made.border), NULL, NULL};
    for (int s = 0; s < stages; s++) {
        made.stage[s] = (pp_stage_cost){.forward_s = f, .input_s = i, .weight_s = w};
        made.border[s].latency_s = c;
    }
    return made;
}

void costs_free(costs *c) {
    free(c->stage), free(c->border), free(c->bytes), free(c->group);
}

pp_sim_input input_of(const pp_schedule *schedule, const costs *c) {
    return (pp_sim_input){
        .schedule = schedule, .stage = c->stage, .border = c->border, .bytes = c->bytes};
}

pp_sim_result *simulate(const pp_sim_input *input) {
    pp_sim_result *result;
    pp_error error = {0};
    cr_assert_eq(pp_simulate(input, &result, &error), PP_OK, "%s: %s", error.place, error.message);
    return result;
}

pp_schedule *build(const char *name, int ranks, int microbatches) {
    pp_schedule *schedule;
    pp_error error = {0};
    pp_schedule_request request = {.name = name, .ranks = ranks, .microbatches = microbatches};
    cr_assert_eq(pp_schedule_build(&request, &schedule, &error), PP_OK, "%s: %s", error.place,
                 error.message);
    return schedule;
}
