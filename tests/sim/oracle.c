/* A second implementation of times and memory, written from the definitions and as slow as they
 * are: times by relaxing all constraints until nothing changes, memory by recounting after every
 * event. */
#include "fixtures.h"

#include <math.h>
#include <stdlib.h>

/* ---- times --------------------------------------------------------------------------------- */

/* Of the last microbatch of all: the last of the last chain. */
static bool is_last(const pp_schedule *schedule, pp_action a) {
    pp_chain chain = schedule->chains[schedule->chain_count - 1];
    bool passes = a.stage >= chain.first && a.stage <= chain.last;
    return passes && (int)a.microbatch == schedule->microbatches - 1;
}

/* Slices in a row of equal steps around their mean, in the kinds that attend to slices before. */
static double tilt(const pp_sim_input *input, pp_action a) {
    const pp_stage_cost *cost = &input->stage[a.stage];
    int slices = input->schedule->slices;
    double tilts[PP_ACTION_KIND_COUNT] = {[PP_FORWARD] = cost->forward_tilt_s,
                                          [PP_RECOMPUTE] = cost->forward_tilt_s,
                                          [PP_BACKWARD] = cost->input_tilt_s,
                                          [PP_INPUT] = cost->input_tilt_s};
    return slices == 1 ? 0 : tilts[a.kind] * ((double)a.slice / (slices - 1) - 0.5);
}

static double part_duration(const pp_sim_input *input, pp_action a) {
    const pp_stage_cost *cost = &input->stage[a.stage];
    double whole[] = {
        [PP_FORWARD] = cost->forward_s,     [PP_BACKWARD] = cost->input_s + cost->weight_s,
        [PP_INPUT] = cost->input_s,         [PP_WEIGHT] = cost->weight_s,
        [PP_RECOMPUTE] = cost->recompute_s, [PP_REDUCE_GRAD] = cost->reduce_s,
        [PP_STEP] = cost->optimizer_s};
    double scale = input->last_microbatch_scale, duration = whole[a.kind];
    if (a.kind == PP_REDUCE_GRAD && input->reduce_buckets > 0)
        return duration - cost->reduce_transfer_s - cost->tie_transfer_s;
    if (pp_action_is_compute(a)) duration /= input->schedule->slices;
    duration += tilt(input, a);
    if (scale > 0 && is_last(input->schedule, a)) return duration * scale;
    return duration;
}

/* Index of the action (kind, or other) of a stage and unit, wherever it stands; -1: none. */
static long find(const pp_schedule *schedule, int stage, pp_action like, int kind, int other) {
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++) {
        pp_action a = schedule->actions[i];
        if (a.stage == stage && a.microbatch == like.microbatch && a.slice == like.slice &&
            (a.kind == kind || a.kind == other))
            return (long)i;
    }
    return -1;
}

static int receiver_of(const pp_schedule *schedule, pp_action a) {
    int to = -1;
    if (a.kind == PP_FORWARD) to = pp_schedule_next(schedule, a.stage);
    if (a.kind == PP_BACKWARD || a.kind == PP_INPUT) to = pp_schedule_previous(schedule, a.stage);
    return to < 0 ? -1 : schedule->placement[to];
}

static double occupancy_of(const pp_sim_input *input, pp_action a) {
    if (!input->border) return 0;
    int slices = input->schedule->slices;
    if (a.kind == PP_FORWARD) return input->border[a.stage].forward_occupancy_s / slices;
    return input->border[a.stage - 1].backward_occupancy_s / slices;
}

static double latency_of(const pp_sim_input *input, pp_action a) {
    if (!input->border) return 0;
    return input->border[a.kind == PP_FORWARD ? a.stage : a.stage - 1].latency_s;
}

/* When the output of action i takes its lane: behind the one sent there before, from the same rank.
 */
static double sent_at(const pp_sim_input *input, const oracle_times *times, int rank, size_t i) {
    const pp_schedule *schedule = input->schedule;
    int to = receiver_of(schedule, schedule->actions[i]);
    double free_at = 0, sent = 0;
    for (size_t j = schedule->first_action[rank]; j <= i; j++) {
        pp_action a = schedule->actions[j];
        if (receiver_of(schedule, a) != to) continue;
        sent = fmax(times->end[j], free_at);
        free_at = sent + occupancy_of(input, a);
    }
    return sent;
}

static double arrival(const pp_sim_input *input, const oracle_times *times, long producer,
                      int rank) {
    const pp_schedule *schedule = input->schedule;
    pp_action a = schedule->actions[producer];
    int from = schedule->placement[a.stage];
    if (from == rank) return times->end[producer];
    double sent = sent_at(input, times, from, (size_t)producer);
    return sent + occupancy_of(input, a) + latency_of(input, a);
}

/* ---- reductions and loading ------------------------------------------------------------------ */

/* Start or end of the last compute action of a stage; 0: it has none. */
static double last_of(const pp_sim_input *input, const oracle_times *times, int stage, bool end) {
    const pp_schedule *schedule = input->schedule;
    size_t last = SIZE_MAX;
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++)
        if (schedule->actions[i].stage == stage && pp_action_is_compute(schedule->actions[i]))
            last = i;
    if (last == SIZE_MAX) return 0;
    pp_action a = schedule->actions[last];
    bool paired = a.overlapped || (last > 0 && schedule->actions[last - 1].overlapped);
    bool makes_gradients = a.kind == PP_BACKWARD || a.kind == PP_WEIGHT;
    return !end && makes_gradients && !paired ? times->start[last] : times->end[last];
}

/* When the last bucket of the REDUCE_GRAD at `index` has been sent: buckets of the rank follow each
 * other in the order of its REDUCE_GRADs. */
static double buckets_end(const pp_sim_input *input, const oracle_times *times, int rank,
                          size_t index) {
    const pp_schedule *schedule = input->schedule;
    double free_at = 0, end = times->start[index];
    for (size_t i = schedule->first_action[rank]; i <= index; i++) {
        pp_action a = schedule->actions[i];
        const pp_stage_cost *cost = &input->stage[a.stage];
        int n = input->reduce_buckets;
        if (a.kind != PP_REDUCE_GRAD || cost->reduce_transfer_s == 0) continue;
        double each =
            cost->reduce_latency_s + (cost->reduce_transfer_s - cost->reduce_latency_s) / n;
        double from = last_of(input, times, a.stage, false);
        double to = last_of(input, times, a.stage, true);
        for (int b = 1; b <= n; b++)
            free_at = each + fmax(free_at, b == n ? times->start[i] : from + (to - from) * b / n);
        if (i == index) end = free_at;
    }
    return end;
}

/* When everything that the stage's REDUCE_GRAD, at `index` of the rank, has sent is there. */
static double reduced_at(const pp_sim_input *input, const oracle_times *times, int rank,
                         size_t index) {
    const pp_schedule *schedule = input->schedule;
    int stage = schedule->actions[index].stage;
    double end = buckets_end(input, times, rank, index), tied = 0;
    for (int s = 0; s < schedule->stages; s++)
        if (s == stage ||
            (input->reduce_group && input->reduce_group[s] == input->reduce_group[stage]))
            tied = fmax(tied, last_of(input, times, s, true));
    double tie_s = input->stage[stage].tie_transfer_s;
    return tie_s > 0 ? fmax(end, tied + tie_s) : end;
}

/* What a STEP, or without one the end of the rank, has to wait for. */
static double gradients_at(const pp_sim_input *input, const oracle_times *times, int rank,
                           int stage) {
    const pp_schedule *schedule = input->schedule;
    double ready = 0;
    for (size_t i = schedule->first_action[rank]; i < schedule->first_action[rank + 1]; i++) {
        pp_action a = schedule->actions[i];
        if (a.kind == PP_REDUCE_GRAD && input->reduce_buckets > 0 &&
            (stage < 0 || a.stage == stage))
            ready = fmax(ready, reduced_at(input, times, rank, i));
    }
    return ready;
}

static bool reads_data(const pp_schedule *schedule, pp_action a) {
    if (a.kind != PP_FORWARD || a.slice > 0) return false;
    int first = a.stage, last = a.stage;
    while (pp_schedule_previous(schedule, first) >= 0) first--;
    while (pp_schedule_next(schedule, last) >= 0) last++;
    return a.stage == first ||
           (a.stage == last && schedule->placement[first] != schedule->placement[last]);
}

static double load_of(const pp_sim_input *input, pp_action a) {
    bool last = is_last(input->schedule, a);
    return input->load_s *
           (last && input->last_microbatch_scale > 0 ? input->last_microbatch_scale : 1);
}

/* A rank that is free at `before` has what action i reads. */
static double loaded_at(const pp_sim_input *input, int rank, size_t i, double before) {
    const pp_schedule *schedule = input->schedule;
    pp_action a = schedule->actions[i], whole = a;
    whole.slice = 0;
    if (!input->prefetch) return reads_data(schedule, a) ? before + load_of(input, a) : before;
    if (!reads_data(schedule, whole)) return before;
    double there = 0;
    bool first = true;
    for (size_t j = schedule->first_action[rank]; j <= i; j++) {
        pp_action b = schedule->actions[j];
        if (!reads_data(schedule, b)) continue;
        if (!first) there += load_of(input, b);
        first = false;
        if (b.stage == a.stage && b.microbatch == a.microbatch) break;
    }
    return fmax(before, there);
}

/* The earliest start of action i by everything but its place in the rank's order. */
static double ready_at(const pp_sim_input *input, const oracle_times *times, int rank, size_t i) {
    const pp_schedule *schedule = input->schedule;
    pp_action a = schedule->actions[i];
    double ready = 0;
    if (a.kind == PP_STEP) ready = gradients_at(input, times, rank, a.stage);
    if (a.kind == PP_REDUCE_GRAD && input->reduce_group && input->reduce_buckets == 0)
        for (size_t j = 0; j < schedule->first_action[schedule->ranks]; j++) {
            pp_action b = schedule->actions[j];
            if (pp_action_is_compute(b) &&
                input->reduce_group[b.stage] == input->reduce_group[a.stage])
                ready = fmax(ready, times->end[j]);
        }
    int previous = pp_schedule_previous(schedule, a.stage);
    int next = pp_schedule_next(schedule, a.stage);
    long producer = -1;
    if (a.kind == PP_FORWARD && previous >= 0)
        producer = find(schedule, previous, a, PP_FORWARD, PP_FORWARD);
    if ((a.kind == PP_BACKWARD || a.kind == PP_INPUT) && next >= 0)
        producer = find(schedule, next, a, PP_BACKWARD, PP_INPUT);
    return producer < 0 ? ready : fmax(ready, arrival(input, times, producer, rank));
}

static bool relax_rank(const pp_sim_input *input, oracle_times *times, int rank) {
    const pp_schedule *schedule = input->schedule;
    bool changed = false;
    double factor = input->overlap_factor > 0 ? input->overlap_factor : 1;
    double before = 0;
    for (size_t i = schedule->first_action[rank]; i < schedule->first_action[rank + 1];) {
        size_t parts = schedule->actions[i].overlapped ? 2 : 1;
        double free = loaded_at(input, rank, i, before);
        if (parts == 2) free = loaded_at(input, rank, i + 1, free);
        double start = fmax(free, ready_at(input, times, rank, i));
        double duration = part_duration(input, schedule->actions[i]);
        if (parts == 2) {
            start = fmax(start, ready_at(input, times, rank, i + 1));
            duration = (duration + part_duration(input, schedule->actions[i + 1])) * factor;
        }
        for (size_t part = 0; part < parts; part++, i++) {
            changed = changed || times->end[i] != start + duration || times->start[i] != start;
            times->start[i] = start;
            times->end[i] = start + duration;
        }
        before = start + duration;
    }
    before = fmax(before, gradients_at(input, times, rank, -1));
    if (before > times->makespan) times->makespan = before;
    return changed;
}

oracle_times oracle_run(const pp_sim_input *input) {
    size_t count = input->schedule->first_action[input->schedule->ranks];
    oracle_times times = {calloc(count + 1, sizeof(double)), calloc(count + 1, sizeof(double)), 0};
    for (bool changed = true; changed;) {
        changed = false;
        for (int p = input->schedule->ranks - 1; p >= 0; p--)
            changed = relax_rank(input, &times, p) || changed;
    }
    return times;
}

void oracle_free(oracle_times *times) {
    free(times->start), free(times->end);
}

/* ---- memory -------------------------------------------------------------------------------- */

/* What one (stage, microbatch) holds, given which of its actions have started and which ended. */
static void held_by(const pp_sim_input *input, int s, unsigned present, unsigned started,
                    unsigned ended, int visits, oracle_peaks *sum) {
    unsigned f = 1u << PP_FORWARD, b = 1u << PP_BACKWARD, i = 1u << PP_INPUT, w = 1u << PP_WEIGHT,
             r = 1u << PP_RECOMPUTE;
    int slices = input->schedule->slices;
    pp_stage_bytes part = input->bytes ? input->bytes[s] : (pp_stage_bytes){0}, *bytes = &part;
    part.activation = (part.activation + slices - 1) / slices;
    part.released_by_input = (part.released_by_input + slices - 1) / slices;
    part.checkpoint = (part.checkpoint + slices - 1) / slices;
    part.stash = (part.stash + slices - 1) / slices;
    if (!(started & f) || (ended & (b | w))) return;
    sum->alive++;
    sum->weight += (ended & i ? 0.5 : 1.0) / visits / slices;
    int64_t held = bytes->activation;
    if (present & r && !(started & r)) {
        held = bytes->checkpoint;
        if (!(ended & f) && bytes->activation > held) held = bytes->activation;
    }
    if (ended & i) held -= bytes->released_by_input;
    if (started & (i | b)) held += bytes->stash;
    sum->held += held;
}

static int visits_of(const pp_schedule *schedule) {
    int most = 1;
    for (int c = 0; c < schedule->chain_count; c++)
        for (int p = 0; p < schedule->ranks; p++) {
            int count = 0;
            for (int s = schedule->chains[c].first; s <= schedule->chains[c].last; s++)
                count += schedule->placement[s] == p;
            if (count > most) most = count;
        }
    return most;
}

oracle_peaks oracle_memory(const pp_sim_input *input, int rank) {
    const pp_schedule *schedule = input->schedule;
    size_t units = (size_t)(schedule->microbatches * schedule->slices);
    size_t pairs = (size_t)schedule->stages * units;
    unsigned *present = calloc(pairs, sizeof *present), *started = calloc(pairs, sizeof *started),
             *ended = calloc(pairs, sizeof *ended);
    int visits = visits_of(schedule);
    oracle_peaks peak = {.held = -1, .held_index = SIZE_MAX};
    size_t begin = schedule->first_action[rank], end = schedule->first_action[rank + 1];
#define PAIR(a) ((size_t)(a).stage * units + (a).microbatch * (size_t)schedule->slices + (a).slice)
    for (size_t i = begin; i < end; i++)
        if (pp_action_is_compute(schedule->actions[i]))
            present[PAIR(schedule->actions[i])] |= 1u << schedule->actions[i].kind;
    for (size_t i = begin; i < end;) {
        size_t parts = schedule->actions[i].overlapped ? 2 : 1;
        if (!pp_action_is_compute(schedule->actions[i])) {
            i++;
            continue;
        }
        for (size_t part = 0; part < parts; part++)
            started[PAIR(schedule->actions[i + part])] |= 1u << schedule->actions[i + part].kind;
        for (int moment = 0; moment < 2; moment++) {
            oracle_peaks now = {0};
            for (size_t pair = 0; pair < pairs; pair++)
                held_by(input, (int)(pair / units), present[pair], started[pair], ended[pair],
                        visits, &now);
            if (now.alive > peak.alive) peak.alive = now.alive;
            if (now.weight > peak.weight) peak.weight = now.weight;
            if (now.held > peak.held) {
                peak.held = now.held;
                peak.held_index = i;
            }
            for (size_t part = 0; part < parts; part++)
                ended[PAIR(schedule->actions[i + part])] |= 1u << schedule->actions[i + part].kind;
        }
        i += parts;
    }
    free(present), free(started), free(ended);
    return peak;
}
