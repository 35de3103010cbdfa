/* pp_simulate: checks the input, follows each rank's order (memory.c), lets an engine find the
 * times, and puts the result together. */
#include "sim/engine_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Everything that a simulation holds while it works. */
typedef struct simulation {
    pp_sim_input input;   /* the caller's, with the schedule that is really timed */
    pp_schedule *lowered; /* owned: transfers derived for blocking; NULL: not needed */
    pp_rank_order *order;
    pp_stage_order *stages;
    int *previous, *next;
    int *input_slots, *gradient_slots; /* [stages]; NULL: messages have no bytes */
    pp_rank_times *times;
    pp_trace *trace;
    pp_arena arena;
} simulation;

/* ---- preparing ----------------------------------------------------------------------------- */

static pp_status check_order(const pp_schedule *schedule, bool blocking, pp_error *error) {
    pp_check_report report = {0};
    pp_status status = pp_schedule_check(schedule, blocking, &report, error);
    pp_free(report.peak_activations);
    return status;
}

/* Blocking follows transfers action by action, so they must be there and be known to finish. */
static pp_status lower(simulation *sim, pp_error *error) {
    if (!sim->input.blocking) return PP_OK;
    if (!sim->input.schedule->has_transfers) {
        PP_TRY(pp_schedule_add_transfers(sim->input.schedule, &sim->lowered, error));
        sim->input.schedule = sim->lowered;
    }
    return check_order(sim->input.schedule, true, error);
}

/* Memory is bounded by the actions: a few actions that name a huge microbatch are refused. Chains
 * may have different numbers of microbatches, hence the room. */
static pp_status check_density(const pp_schedule *schedule, pp_error *error) {
    size_t actions = schedule->first_action[schedule->ranks];
    size_t pairs = (size_t)schedule->stages * pp_stage_units(schedule);
    if (pairs <= 16 * actions + 4096) return PP_OK;
    return pp_fail(error, PP_E_INPUT, schedule->name,
                   "%zu actions cannot hold %d stages and %d microbatches: actions are missing",
                   actions, schedule->stages, schedule->microbatches);
}

static bool needs_slots(const pp_sim_input *input) {
    if (!input->bytes) return false;
    for (int s = 0; s < input->schedule->stages; s++)
        if (input->bytes[s].input > 0 || input->bytes[s].output_gradient > 0) return true;
    return false;
}

static pp_status follow_orders(simulation *sim, pp_error *error) {
    const pp_schedule *schedule = sim->input.schedule;
    sim->order = PP_NEW(&sim->arena, pp_rank_order, schedule->ranks);
    sim->stages = PP_NEW(&sim->arena, pp_stage_order, schedule->stages);
    sim->previous = PP_NEW(&sim->arena, int, schedule->stages);
    sim->next = PP_NEW(&sim->arena, int, schedule->stages);
    sim->times = PP_NEW(&sim->arena, pp_rank_times, schedule->ranks);
    if (needs_slots(&sim->input)) {
        sim->input_slots = PP_NEW(&sim->arena, int, schedule->stages);
        sim->gradient_slots = PP_NEW(&sim->arena, int, schedule->stages);
    }
    if (sim->arena.failed) return pp_fail_memory(error);
    if (sim->input_slots)
        PP_TRY(pp_schedule_slots(schedule, sim->input_slots, sim->gradient_slots, error));
    pp_chain_links(schedule, sim->previous, sim->next);
    return pp_order_follow(&sim->input, sim->input_slots, sim->gradient_slots, sim->order,
                           sim->stages, error);
}

/* Room for what the run keeps. Under blocking, transfers are actions and their number is known: the
 * trace is made at once; otherwise when it is (finish_trace). */
static pp_status prepare_trace(simulation *sim, pp_run *run, pp_error *error) {
    if (!sim->input.keep_spans) return PP_OK;
    const pp_schedule *schedule = sim->input.schedule;
    size_t count = 0, *first_span = PP_NEW(&sim->arena, size_t, schedule->ranks + 1);
    if (!first_span) return pp_fail_memory(error);
    for (int p = 0; p < schedule->ranks; p++) {
        first_span[p] = count;
        count += sim->order[p].span_count;
        if (sim->input.blocking) count += pp_blocking_transfer_count(run, p);
    }
    first_span[schedule->ranks] = count;
    run->first_span = first_span;
    if (sim->input.blocking) {
        PP_TRY(pp_trace_new(schedule->ranks, count, &sim->trace, error));
        run->spans = sim->trace->spans;
        return PP_OK;
    }
    run->spans = PP_NEW(&sim->arena, pp_span, count);
    run->transfers = PP_NEW(&sim->arena, pp_transfer, pp_transfer_limit(run));
    return sim->arena.failed ? pp_fail_memory(error) : PP_OK;
}

static pp_status finish_trace(simulation *sim, const pp_run *run, pp_error *error) {
    if (!sim->input.keep_spans) return PP_OK;
    if (!sim->trace) PP_TRY(pp_spans_arrange(run, &sim->trace, error));
    if (!sim->input.bytes) return PP_OK;
    return pp_memory_curves(&sim->input, sim->input_slots, sim->gradient_slots, sim->trace, error);
}

static pp_status run_engine(simulation *sim, pp_run *run, pp_error *error) {
    if (sim->input.blocking) return pp_engine_run_blocking(run, error);
    bool general = sim->input.general || sim->input.transfer_slowdown > 1;
    if (!general) PP_TRY(pp_cards_shared(run, &general, error));
    pp_status status = (general ? pp_engine_run_events : pp_engine_run)(run, error);
    if (status != PP_E_DEADLOCK) return status;
    pp_error reason; /* the check says it in words; should it find nothing, the engine has */
    pp_status checked = check_order(run->schedule, false, &reason);
    if (checked == PP_OK) return status;
    if (error) *error = reason;
    return checked;
}

static pp_status find_times(simulation *sim, pp_error *error) {
    pp_run run = {.input = &sim->input,
                  .schedule = sim->input.schedule,
                  .order = sim->order,
                  .stage_order = sim->stages,
                  .previous = sim->previous,
                  .next = sim->next,
                  .times = sim->times,
                  .arena = &sim->arena};
    PP_TRY(prepare_trace(sim, &run, error));
    PP_TRY(pp_reductions_make(&run, error));
    PP_TRY(pp_loading_make(&run.loading, &sim->input, &sim->arena, error));
    PP_TRY(run_engine(sim, &run, error));
    pp_reductions_finish(&run);
    return finish_trace(sim, &run, error);
}

/* ---- results ------------------------------------------------------------------------------- */

/* Virtual stages of one chain on one rank: what a peak of (stage, microbatch) pairs is divided by.
 * For one chain that is V; each of the two chains of a bidirectional schedule passes a rank once.
 */
static int chain_visits(const pp_schedule *schedule, int *count) {
    int most = 1;
    for (int c = 0; c < schedule->chain_count; c++) {
        const pp_chain *chain = &schedule->chains[c];
        for (int s = chain->first; s <= chain->last; s++) count[schedule->placement[s]] = 0;
        for (int s = chain->first; s <= chain->last; s++) {
            int visits = ++count[schedule->placement[s]];
            if (visits > most) most = visits;
        }
    }
    return most;
}

static double not_negative(double value) {
    return value > 0 ? value : 0;
}

static void set_rank(const simulation *sim, int p, double visits, double makespan_s,
                     pp_sim_rank *rank) {
    const pp_rank_order *order = &sim->order[p];
    const pp_rank_times *times = &sim->times[p];
    visits *= sim->input.schedule->slices; /* the part of a microbatch's activation in a unit */
    double weight_unit = sim->input.activation_weight ? 1 : visits;
    rank->busy_s = times->compute_s + times->update_s;
    rank->idle_s = not_negative(makespan_s - rank->busy_s);
    rank->bubble_fraction = makespan_s > 0 ? rank->idle_s / makespan_s : 0;
    rank->first_start_s = times->first_start_s;
    rank->last_end_s = times->last_end_s;
    rank->peak_activations = (double)order->peak_alive / visits;
    rank->peak_activation_weight = order->peak_weight / weight_unit;
    rank->peak = order->peak;
    rank->peak_time_s = times->peak_time_s;
    if (order->peak_index != PP_NO_INDEX)
        rank->peak_action = sim->input.schedule->actions[order->peak_index];
}

/* A bound that rounding has put above the makespan is that makespan; anything more is our mistake,
 * and stays visible. */
static double rounded_bound(double bound_s, double makespan_s) {
    bool rounding = bound_s > makespan_s && bound_s <= makespan_s * (1 + 1e-9);
    return rounding ? makespan_s : bound_s;
}

static pp_status set_result(simulation *sim, pp_sim_result *result, pp_error *error) {
    const pp_schedule *schedule = sim->input.schedule;
    result->rank = PP_NEW(&result->arena, pp_sim_rank, schedule->ranks);
    int *count = PP_NEW(&sim->arena, int, schedule->ranks);
    if (!result->rank || !count) return pp_fail_memory(error);
    double busy_s = 0, compute_s = 0, visits = chain_visits(schedule, count);
    for (int p = 0; p < schedule->ranks; p++) {
        const pp_rank_times *times = &sim->times[p];
        result->makespan_s = fmax(result->makespan_s, times->last_end_s);
        result->span_s = fmax(result->span_s, times->last_end_s - times->first_start_s);
        result->action_count += sim->order[p].compute_count;
        busy_s += times->compute_s + times->update_s;
        compute_s = fmax(compute_s, times->compute_s);
    }
    if (!isfinite(result->makespan_s))
        return pp_fail(error, PP_E_INPUT, "stage costs", "the durations add up to infinity");
    for (int p = 0; p < schedule->ranks; p++)
        set_rank(sim, p, visits, result->makespan_s, &result->rank[p]);
    if (result->makespan_s > 0)
        result->bubble_fraction = not_negative(1 - busy_s / (schedule->ranks * result->makespan_s));
    if (result->span_s > 0)
        result->span_bubble_fraction = not_negative(1 - compute_s / result->span_s);
    if (!pp_durations_vary(&sim->input))
        result->lower_bound_s = rounded_bound(
            pp_lower_bound_of(&sim->input, sim->stages, sim->previous, sim->next, &sim->arena),
            result->makespan_s);
    if (result->lower_bound_s > 0)
        result->gap = (result->makespan_s - result->lower_bound_s) / result->lower_bound_s;
    return PP_OK;
}

static void set_trace(simulation *sim, pp_sim_result *result) {
    pp_trace *trace = sim->trace;
    if (!trace) return;
    const pp_schedule *schedule = sim->input.schedule;
    snprintf(trace->title, sizeof trace->title, "%s on %d ranks", schedule->name, schedule->ranks);
    snprintf(trace->schedule, sizeof trace->schedule, "%s", schedule->name);
    trace->ranks = schedule->ranks;
    trace->stages = schedule->stages;
    trace->virtual_stages = schedule->virtual_stages;
    trace->microbatches = (int)pp_schedule_all_microbatches(schedule);
    trace->makespan_s = result->makespan_s;
    trace->bubble_fraction = result->bubble_fraction;
    for (int p = 0; p < schedule->ranks; p++)
        trace->rank[p] = (pp_trace_rank){.busy_s = result->rank[p].busy_s,
                                         .peak_bytes = result->rank[p].peak.total};
    result->trace = trace;
    sim->trace = NULL;
}

pp_status pp_simulate(const pp_sim_input *input, pp_sim_result **result, pp_error *error) {
    *result = NULL;
    PP_TRY(pp_sim_input_check(input, error));
    pp_sim_result *made = pp_allocate_zeroed(1, sizeof *made);
    if (!made) return pp_fail_memory(error);
    pp_arena_init(&made->arena);
    simulation sim = {.input = *input};
    pp_arena_init(&sim.arena);

    pp_status status = check_density(input->schedule, error);
    if (status == PP_OK) status = lower(&sim, error);
    if (status == PP_OK) status = follow_orders(&sim, error);
    if (status == PP_OK) status = find_times(&sim, error);
    if (status == PP_OK) status = set_result(&sim, made, error);
    if (status == PP_OK) {
        set_trace(&sim, made);
        *result = made;
        made = NULL;
    }
    pp_sim_result_free(made);
    pp_trace_free(sim.trace);
    pp_schedule_free(sim.lowered);
    pp_arena_deinit(&sim.arena);
    return status;
}

void pp_sim_result_free(pp_sim_result *result) {
    if (!result) return;
    pp_trace_free(result->trace);
    pp_arena_deinit(&result->arena);
    pp_free(result);
}
