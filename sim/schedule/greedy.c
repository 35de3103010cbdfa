/* Orders by list scheduling in slots: for families whose definition is a rule rather than a row.
 *
 * All ranks run at once, in slots of equal length. Whenever a rank is free it takes, among the
 * actions that are ready and admitted, the most urgent one (the rules: pp_greedy in
 * families_internal.h); what it takes, one after the other, is its order. Microbatches go through
 * each stage first in, first out, so that a rank has two candidates for each of its chunks and the
 * state is a few counts for each stage. Weight halves wait in one queue for each rank, which needs
 * no memory: it is the rank's own order, read again.
 *
 * Such an order is free of deadlock because it has just been run. O(slots · stages). */
#include "sim/families_internal.h"

#include <assert.h>
#include <string.h>

typedef struct runner {
    const pp_greedy *rules;
    pp_schedule *schedule;
    pp_greedy_stage *stages; /* [stages] */
    pp_greedy_rank *ranks;   /* [ranks] */
} runner;

static bool give_state(runner *run) {
    pp_schedule *schedule = run->schedule;
    run->stages = PP_NEW(&schedule->arena, pp_greedy_stage, schedule->stages);
    run->ranks = PP_NEW(&schedule->arena, pp_greedy_rank, schedule->ranks);
    return run->stages && run->ranks;
}

/* What a rank could do next. */
typedef struct choice {
    pp_action_kind kind;
    int stage; /* -1: nothing is ready */
    int64_t urgency;
} choice;

/* ---- what may start ------------------------------------------------------------------------ */

static bool forward_ready(const runner *run, int s) {
    const pp_greedy_stage *stage = &run->stages[s];
    if (stage->forwards == run->rules->microbatches) return false;
    return s == 0 || run->stages[s - 1].forwards_done > stage->forwards;
}

static bool backward_ready(const runner *run, int s) {
    const pp_greedy_stage *stage = &run->stages[s];
    if (stage->backwards == run->rules->microbatches) return false;
    if (s == run->schedule->stages - 1) return stage->forwards_done > stage->backwards;
    return run->stages[s + 1].backwards_done > stage->backwards;
}

static void consider(const runner *run, pp_action_kind kind, int s, choice *best) {
    const pp_greedy_stage *stage = &run->stages[s];
    bool forward = kind == PP_FORWARD;
    int64_t urgency =
        run->rules->urgency(run->rules, s, forward, forward ? stage->forwards : stage->backwards);
    if (best->stage < 0 || urgency < best->urgency) *best = (choice){kind, s, urgency};
}

/* The stage of chunk v on rank p, zigzag. */
static int stage_on(const runner *run, int p, int v) {
    int ranks = run->schedule->ranks;
    return v * ranks + (v % 2 == 0 ? p : ranks - 1 - p);
}

/* The most urgent F, I or B of a rank that may start; stage -1: none. */
static choice choose(const runner *run, int p) {
    choice best = {.stage = -1};
    pp_action_kind backward = run->rules->weight_slots > 0 ? PP_INPUT : PP_BACKWARD;
    for (int v = 0; v < run->schedule->virtual_stages; v++) {
        int s = stage_on(run, p, v);
        if (forward_ready(run, s) &&
            run->rules->admits(run->rules, run->stages, &run->ranks[p], p, v))
            consider(run, PP_FORWARD, s, &best);
        if (backward_ready(run, s)) consider(run, backward, s, &best);
    }
    return best;
}

/* ---- running ------------------------------------------------------------------------------- */

/* The end of what the rank is at. */
static void finish(runner *run, pp_greedy_rank *rank) {
    pp_action action = run->schedule->actions[rank->at - 1];
    pp_greedy_stage *stage = &run->stages[action.stage];
    if (action.kind == PP_FORWARD) stage->forwards_done++;
    if (action.kind == PP_INPUT) rank->waiting++;
    if (action.kind == PP_INPUT || action.kind == PP_BACKWARD) stage->backwards_done++;
    if (action.kind == PP_WEIGHT || action.kind == PP_BACKWARD) {
        stage->alive--;
        rank->alive--;
    }
    rank->is_busy = false;
}

static void start(pp_greedy_rank *rank, int64_t slot, int duration) {
    rank->is_busy = true;
    rank->ends = slot + duration;
}

static void start_choice(runner *run, pp_greedy_rank *rank, choice chosen, int64_t slot) {
    pp_greedy_stage *stage = &run->stages[chosen.stage];
    bool forward = chosen.kind == PP_FORWARD;
    int m = forward ? stage->forwards++ : stage->backwards++;
    rank->at = pp_put(run->schedule, rank->at, chosen.kind, chosen.stage, m);
    rank->alive += forward;
    stage->alive += forward;
    start(rank, slot, forward ? run->rules->forward_slots : run->rules->backward_slots);
}

/* The W of the earliest I that has none yet. */
static void start_weight(runner *run, pp_greedy_rank *rank, int64_t slot) {
    pp_action *actions = run->schedule->actions;
    while (actions[rank->weighed].kind != PP_INPUT) rank->weighed++;
    pp_action weight = actions[rank->weighed++];
    weight.kind = PP_WEIGHT;
    actions[rank->at++] = weight;
    rank->waiting--;
    start(rank, slot, run->rules->weight_slots);
}

/* A W waits: is it its turn? */
static bool weight_goes(const runner *run, const pp_greedy_rank *rank, choice ready) {
    if (rank->waiting == 0) return false;
    if (ready.stage < 0) return true;
    return ready.kind == PP_FORWARD && run->rules->weight_first(run->rules, rank, ready.stage);
}

static void go_on(runner *run, int p, int64_t slot) {
    pp_greedy_rank *rank = &run->ranks[p];
    if (rank->is_busy) return;
    choice chosen = choose(run, p);
    if (weight_goes(run, rank, chosen))
        start_weight(run, rank, slot);
    else if (chosen.stage >= 0)
        start_choice(run, rank, chosen, slot);
}

static void reset(runner *run, size_t per_rank) {
    memset(run->stages, 0, (size_t)run->schedule->stages * sizeof *run->stages);
    memset(run->ranks, 0, (size_t)run->schedule->ranks * sizeof *run->ranks);
    for (int p = 0; p < run->schedule->ranks; p++) {
        run->ranks[p].at = run->ranks[p].weighed = (size_t)p * per_rank;
        run->schedule->first_action[p] = (size_t)p * per_rank;
    }
    run->schedule->first_action[run->schedule->ranks] = (size_t)run->schedule->ranks * per_rank;
}

static __attribute__((unused)) bool is_complete(const runner *run) { /* in asserts only */
    for (int p = 0; p < run->schedule->ranks; p++)
        if (run->ranks[p].at != run->schedule->first_action[p + 1]) return false;
    return true;
}

/* One run with these rules; the number of slots it takes. */
static int64_t run_once(runner *run) {
    int ranks = run->schedule->ranks, busy = ranks;
    size_t per_rank = (size_t)run->schedule->virtual_stages * (size_t)run->rules->microbatches *
                      (run->rules->weight_slots > 0 ? 3 : 2);
    int64_t slot = 0;
    reset(run, per_rank);
    for (; busy > 0; slot++) {
        busy = 0;
        for (int p = 0; p < ranks; p++)
            if (run->ranks[p].is_busy && run->ranks[p].ends == slot) finish(run, &run->ranks[p]);
        for (int p = 0; p < ranks; p++) {
            bool done = run->ranks[p].at == run->schedule->first_action[p + 1];
            if (!done) go_on(run, p, slot);
            busy += run->ranks[p].is_busy;
        }
    }
    assert(is_complete(run)); /* or else the rules have left all ranks waiting */
    return slot - 1;
}

void pp_greedy_build(pp_greedy *rules, int variants, int trial_microbatches,
                     pp_schedule *schedule) {
    runner run = {.rules = rules, .schedule = schedule};
    int best = rules->variant > 0 ? rules->variant : 0, all = rules->microbatches;
    int64_t least = INT64_MAX;
    if (!give_state(&run)) return;
    if (rules->variant >= 0) variants = 0;
    rules->microbatches = all < trial_microbatches ? all : trial_microbatches;
    for (int i = 0; i < variants && variants > 1; i++) {
        rules->variant = i;
        int64_t slots = run_once(&run);
        if (slots < least) {
            least = slots;
            best = i;
        }
    }
    rules->microbatches = all;
    rules->variant = best;
    run_once(&run);
}
