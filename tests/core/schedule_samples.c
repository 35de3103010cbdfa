/* See schedule_samples.h. */
#include "schedule_samples.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- plumbing ------------------------------------------------------------------------------ */

uint64_t sample_next(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

int sample_below(uint64_t *state, int bound) {
    return (int)(sample_next(state) % (uint64_t)bound);
}

pp_action sample_action(pp_action_kind kind, int stage, int microbatch) {
    return (pp_action){.kind = (uint8_t)(kind & 0x7f),
                       .stage = (uint16_t)stage,
                       .microbatch = (uint32_t)microbatch};
}

sample sample_new(int ranks, int stages, int microbatches) {
    sample s = {.ranks = ranks, .stages = stages, .microbatches = microbatches, .chain_count = 1};
    cr_assert(ranks <= SAMPLE_RANKS && stages <= SAMPLE_STAGES);
    for (int i = 0; i < stages; i++) s.placement[i] = i % ranks;
    s.chains[0] = (pp_chain){0, stages - 1};
    return s;
}

void sample_push(sample *s, int rank, pp_action action) {
    sample_row *row = &s->row[rank];
    if (row->count == row->capacity) {
        row->capacity = row->capacity ? 2 * row->capacity : 64;
        row->items = realloc(row->items, (size_t)row->capacity * sizeof *row->items);
        cr_assert_not_null(row->items);
    }
    row->items[row->count++] = action;
}

void sample_free(sample *s) {
    for (int p = 0; p < s->ranks; p++) free(s->row[p].items);
}

/* The same shape without actions. */
static sample sample_like(const sample *s) {
    sample copy = *s;
    memset(copy.row, 0, sizeof copy.row);
    return copy;
}

/* Stages that a rank has of one chain, at most. */
static int most_of_a_chain(const sample *s, const int *placement) {
    int most = 0;
    for (int c = 0; c < s->chain_count; c++)
        for (int p = 0; p < s->ranks; p++) {
            int held = 0;
            for (int stage = s->chains[c].first; stage <= s->chains[c].last; stage++)
                held += placement[stage] == p;
            if (held > most) most = held;
        }
    return most;
}

pp_schedule *sample_build(const sample *s) {
    size_t count = 0;
    for (int p = 0; p < s->ranks; p++) count += (size_t)s->row[p].count;
    pp_schedule *schedule;
    pp_error error;
    cr_assert_eq(pp_schedule_new(s->ranks, s->stages, s->microbatches, count, &schedule, &error),
                 PP_OK, "%s", error.message);
    memcpy(schedule->placement, s->placement, (size_t)s->stages * sizeof(int));
    if (s->chain_count == 2) {
        schedule->chains = PP_NEW(&schedule->arena, pp_chain, 2);
        memcpy(schedule->chains, s->chains, sizeof s->chains);
        schedule->chain_count = 2;
    }
    schedule->virtual_stages = most_of_a_chain(s, schedule->placement);
    size_t next = 0;
    for (int p = 0; p < s->ranks; p++) {
        schedule->first_action[p] = next;
        for (int i = 0; i < s->row[p].count; i++) {
            schedule->actions[next++] = s->row[p].items[i];
            if (pp_action_is_transfer(s->row[p].items[i])) schedule->has_transfers = true;
        }
    }
    schedule->first_action[s->ranks] = next;
    return schedule;
}

pp_schedule *sample_read(const char *csv) {
    pp_schedule *schedule = NULL;
    pp_error error = {0};
    pp_status status = pp_schedule_read_csv(csv, strlen(csv), "x.csv", &schedule, &error);
    cr_assert_eq(status, PP_OK, "%s: %s\n%s", error.place, error.message, csv);
    return schedule;
}

const char *sample_data_path(const char *name) {
    static char path[512];
    const char *folder = getenv("PPSIM_TEST_DATA");
    const char *tries[] = {folder, "../shared/data", "../../shared/data"};
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        if (!tries[i]) continue;
        snprintf(path, sizeof path, "%s/%s", tries[i], name);
        if (access(path, R_OK) == 0) return path;
    }
    return NULL;
}

int sample_neighbour(const sample *s, int stage, int step) {
    for (int c = 0; c < s->chain_count; c++) {
        if (stage < s->chains[c].first || stage > s->chains[c].last) continue;
        int other = stage + step;
        return other < s->chains[c].first || other > s->chains[c].last ? -1 : other;
    }
    return -1;
}

/* ---- named orders -------------------------------------------------------------------------- */

sample sample_gpipe(int ranks, int microbatches) {
    sample s = sample_new(ranks, ranks, microbatches);
    for (int p = 0; p < ranks; p++) {
        for (int m = 0; m < microbatches; m++) sample_push(&s, p, sample_action(PP_FORWARD, p, m));
        for (int m = 0; m < microbatches; m++) sample_push(&s, p, sample_action(PP_BACKWARD, p, m));
    }
    return s;
}

sample sample_1f1b(int ranks, int microbatches) {
    sample s = sample_new(ranks, ranks, microbatches);
    for (int p = 0; p < ranks; p++) {
        int warm = ranks - 1 - p < microbatches ? ranks - 1 - p : microbatches;
        for (int m = 0; m < warm; m++) sample_push(&s, p, sample_action(PP_FORWARD, p, m));
        for (int m = warm; m < microbatches; m++) {
            sample_push(&s, p, sample_action(PP_FORWARD, p, m));
            sample_push(&s, p, sample_action(PP_BACKWARD, p, m - warm));
        }
        for (int m = microbatches - warm; m < microbatches; m++)
            sample_push(&s, p, sample_action(PP_BACKWARD, p, m));
    }
    return s;
}

/* The i-th virtual microbatch of a rank in groups of `ranks` microbatches, chunk after chunk. */
static pp_action interleaved_action(int ranks, int virtual_stages, int p, int i, bool forward) {
    int group = i / (ranks * virtual_stages), inside = i % (ranks * virtual_stages);
    int chunk = inside / ranks, m = group * ranks + inside % ranks;
    if (!forward) chunk = virtual_stages - 1 - chunk;
    return sample_action(forward ? PP_FORWARD : PP_BACKWARD, chunk * ranks + p, m);
}

sample sample_interleaved(int ranks, int microbatches, int virtual_stages) {
    sample s = sample_new(ranks, ranks * virtual_stages, microbatches);
    int total = microbatches * virtual_stages;
    for (int p = 0; p < ranks; p++) {
        int warm = (virtual_stages - 1) * ranks + 2 * (ranks - 1 - p);
        if (warm > total) warm = total;
        for (int i = 0; i < warm; i++)
            sample_push(&s, p, interleaved_action(ranks, virtual_stages, p, i, true));
        for (int i = 0; i < total; i++) {
            if (warm + i < total)
                sample_push(&s, p, interleaved_action(ranks, virtual_stages, p, warm + i, true));
            sample_push(&s, p, interleaved_action(ranks, virtual_stages, p, i, false));
        }
    }
    return s;
}

/* ---- random orders ------------------------------------------------------------------------- */

enum { STATE_NOTHING, STATE_FORWARD, STATE_RECOMPUTED, STATE_INPUT, STATE_DONE };

typedef struct randomly {
    sample s;
    uint64_t random;
    bool *split, *recompute; /* [stages * microbatches] */
    int *state;
} randomly;

static bool backward_ended(const randomly *r, int stage, int m) {
    return r->state[stage * r->s.microbatches + m] >= STATE_INPUT;
}

/* The kind that unit (stage, m) would do next, or PP_ACTION_KIND_COUNT if it cannot. */
static pp_action_kind next_kind(const randomly *r, int stage, int m) {
    int unit = stage * r->s.microbatches + m;
    int before = sample_neighbour(&r->s, stage, -1), after = sample_neighbour(&r->s, stage, 1);
    switch (r->state[unit]) {
    case STATE_NOTHING:
        if (before >= 0 && r->state[before * r->s.microbatches + m] == STATE_NOTHING) break;
        return PP_FORWARD;
    case STATE_FORWARD:
        if (r->recompute[unit]) return PP_RECOMPUTE;
        /* fall through */
    case STATE_RECOMPUTED:
        if (after >= 0 && !backward_ended(r, after, m)) break;
        return r->split[unit] ? PP_INPUT : PP_BACKWARD;
    case STATE_INPUT:
        return PP_WEIGHT;
    default:
        break;
    }
    return PP_ACTION_KIND_COUNT;
}

static void do_kind(randomly *r, int stage, int m, pp_action_kind kind) {
    static const int after[] = {[PP_FORWARD] = STATE_FORWARD,
                                [PP_BACKWARD] = STATE_DONE,
                                [PP_INPUT] = STATE_INPUT,
                                [PP_WEIGHT] = STATE_DONE,
                                [PP_RECOMPUTE] = STATE_RECOMPUTED};
    r->state[stage * r->s.microbatches + m] = after[kind];
}

/* A random thing that can be done now, on `rank` or (-1) anywhere; false if there is none. */
static bool pick(randomly *r, int rank, pp_action *picked) {
    int seen = 0;
    for (int stage = 0; stage < r->s.stages; stage++) {
        if (rank >= 0 && r->s.placement[stage] != rank) continue;
        for (int m = 0; m < r->s.microbatches; m++) {
            pp_action_kind kind = next_kind(r, stage, m);
            if (kind == PP_ACTION_KIND_COUNT || sample_below(&r->random, ++seen) != 0) continue;
            *picked = sample_action(kind, stage, m);
        }
    }
    return seen > 0;
}

static void random_shape(randomly *r, int ranks_most, int microbatches_most) {
    int ranks = 1 + sample_below(&r->random, ranks_most);
    int stages = ranks + sample_below(&r->random, ranks + 1);
    r->s = sample_new(ranks, stages, 1 + sample_below(&r->random, microbatches_most));
    /* a random permutation keeps every rank in use */
    for (int i = stages - 1; i > 0; i--) {
        int j = sample_below(&r->random, i + 1), t = r->s.placement[i];
        r->s.placement[i] = r->s.placement[j];
        r->s.placement[j] = t;
    }
    if (stages >= 2 && sample_below(&r->random, 3) == 0) {
        int cut = 1 + sample_below(&r->random, stages - 1);
        r->s.chain_count = 2;
        r->s.chains[0] = (pp_chain){0, cut - 1};
        r->s.chains[1] = (pp_chain){cut, stages - 1};
    }
}

sample sample_random(uint64_t seed, int ranks_most, int microbatches_most) {
    randomly r = {.random = seed};
    random_shape(&r, ranks_most, microbatches_most);
    size_t units = (size_t)(r.s.stages * r.s.microbatches);
    r.split = calloc(units, sizeof *r.split);
    r.recompute = calloc(units, sizeof *r.recompute);
    r.state = calloc(units, sizeof *r.state);
    cr_assert(r.split && r.recompute && r.state);
    int splitting = sample_below(&r.random, 3), overlapping = sample_below(&r.random, 2);
    for (size_t u = 0; u < units; u++) {
        r.split[u] = splitting == 2 || (splitting == 1 && sample_below(&r.random, 2));
        r.recompute[u] = sample_below(&r.random, 8) == 0;
    }
    pp_action first, second;
    while (pick(&r, -1, &first)) {
        int rank = r.s.placement[first.stage];
        /* a second one that does not need the first runs as one with it */
        if (overlapping && sample_below(&r.random, 4) == 0 && pick(&r, rank, &second) &&
            (second.stage != first.stage || second.microbatch != first.microbatch)) {
            first.overlapped = 1;
            sample_push(&r.s, rank, first);
            do_kind(&r, second.stage, (int)second.microbatch, second.kind);
            sample_push(&r.s, rank, second);
        } else {
            sample_push(&r.s, rank, first);
        }
        do_kind(&r, first.stage, (int)first.microbatch, first.kind);
    }
    free(r.split);
    free(r.recompute);
    free(r.state);
    return r.s;
}

/* ---- lowering ------------------------------------------------------------------------------ */

/* The stage that needs the result of an action on another rank, or -1. */
static int result_goes_to(const sample *s, pp_action action) {
    bool forward = action.kind == PP_FORWARD;
    if (!forward && action.kind != PP_BACKWARD && action.kind != PP_INPUT) return -1;
    int other = sample_neighbour(s, action.stage, forward ? 1 : -1);
    return other >= 0 && s->placement[other] != s->placement[action.stage] ? other : -1;
}

static int operand_comes_from(const sample *s, pp_action action) {
    bool forward = action.kind == PP_FORWARD;
    if (!forward && action.kind != PP_BACKWARD && action.kind != PP_INPUT) return -1;
    int other = sample_neighbour(s, action.stage, forward ? -1 : 1);
    return other >= 0 && s->placement[other] != s->placement[action.stage] ? other : -1;
}

static pp_action transfer_of(pp_action action, bool send, int stage) {
    bool forward = action.kind == PP_FORWARD;
    pp_action_kind kind =
        send ? (forward ? PP_SEND_F : PP_SEND_B) : (forward ? PP_RECV_F : PP_RECV_B);
    return sample_action(kind, stage, (int)action.microbatch);
}

sample sample_lower_naive(const sample *s) {
    sample lowered = sample_like(s);
    for (int p = 0; p < s->ranks; p++) {
        const sample_row *row = &s->row[p];
        for (int i = 0, size; i < row->count; i += size) {
            size = row->items[i].overlapped ? 2 : 1;
            for (int a = i; a < i + size; a++)
                if (operand_comes_from(s, row->items[a]) >= 0)
                    sample_push(&lowered, p,
                                transfer_of(row->items[a], false, row->items[a].stage));
            for (int a = i; a < i + size; a++) sample_push(&lowered, p, row->items[a]);
            for (int a = i; a < i + size; a++)
                if (result_goes_to(s, row->items[a]) >= 0)
                    sample_push(&lowered, p, transfer_of(row->items[a], true, row->items[a].stage));
        }
    }
    return lowered;
}

static bool row_has(const sample_row *row, pp_action wanted) {
    for (int i = 0; i < row->count; i++) {
        pp_action a = row->items[i];
        if (a.kind == wanted.kind && a.stage == wanted.stage && a.microbatch == wanted.microbatch)
            return true;
    }
    return false;
}

sample sample_lower_round_robin(const sample *s) {
    sample lowered = sample_like(s);
    int next[SAMPLE_RANKS] = {0};
    for (bool progress = true; progress;) {
        progress = false;
        for (int p = 0; p < s->ranks; p++) {
            const sample_row *row = &s->row[p];
            if (next[p] == row->count) continue;
            int size = row->items[next[p]].overlapped ? 2 : 1;
            bool ready = true;
            for (int a = next[p]; a < next[p] + size; a++)
                if (operand_comes_from(s, row->items[a]) >= 0)
                    ready &= row_has(&lowered.row[p],
                                     transfer_of(row->items[a], false, row->items[a].stage));
            if (!ready) continue;
            for (int a = next[p]; a < next[p] + size; a++) sample_push(&lowered, p, row->items[a]);
            for (int a = next[p]; a < next[p] + size; a++) {
                int other = result_goes_to(s, row->items[a]);
                if (other < 0) continue;
                sample_push(&lowered, p, transfer_of(row->items[a], true, row->items[a].stage));
                sample_push(&lowered, s->placement[other],
                            transfer_of(row->items[a], false, other));
            }
            next[p] += size;
            progress = true;
        }
    }
    return lowered;
}

/* ---- damage -------------------------------------------------------------------------------- */

static void swap_actions(sample_row *row, uint64_t *random) {
    int a = sample_below(random, row->count), b = sample_below(random, row->count);
    pp_action t = row->items[a];
    row->items[a] = row->items[b];
    row->items[b] = t;
}

static void move_action(sample_row *row, uint64_t *random) {
    int a = sample_below(random, row->count), b = sample_below(random, row->count);
    pp_action moved = row->items[a];
    for (; a < b; a++) row->items[a] = row->items[a + 1];
    for (; a > b; a--) row->items[a] = row->items[a - 1];
    row->items[b] = moved;
}

void sample_damage(sample *s, uint64_t *random) {
    int rank = sample_below(random, s->ranks);
    sample_row *row = &s->row[rank];
    if (row->count == 0) return;
    switch (sample_below(random, 8)) {
    case 0:
        row->count--;
        break;
    case 1:
        sample_push(s, rank, row->items[sample_below(random, row->count)]);
        break;
    case 2:
    case 3:
        swap_actions(row, random);
        break;
    default:
        move_action(row, random);
        break;
    }
    for (int i = 0; i < row->count; i++)
        if (row->items[i].overlapped && sample_below(random, 2)) row->items[i].overlapped = 0;
}
