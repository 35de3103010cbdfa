/* Is this schedule right, and does it finish under every timing? (promise P2)
 *
 * In this order: every action is in its place and none is named twice (pp_units_init), none is
 * missing, no rank's own order contradicts the chain order or works on a stage whose gradients it
 * has reduced or stepped with, both ends of every peer queue list the
 * same transfers, and the wait graph has no cycle. Where the file has no transfers, the graph of
 * its compute actions alone is run: transfers.c proves that the transfers derived from an order
 * without a cycle have none either, blocking or not. */
#include "core/schedule_internal.h"

/* Most units of the rank alive at once, from F to the end of W or B; slices of a microbatch
 * count together. */
static size_t peak_of_rank(const pp_schedule *schedule, int p) {
    size_t alive = 0, peak = 0, slices = (size_t)schedule->slices;
    for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1];
         i += pp_node_size(schedule, i)) {
        size_t end = i + pp_node_size(schedule, i);
        for (size_t a = i; a < end; a++) alive += schedule->actions[a].kind == PP_FORWARD;
        if (alive > peak) peak = alive;
        for (size_t a = i; a < end; a++) {
            pp_action_kind kind = schedule->actions[a].kind;
            alive -= kind == PP_BACKWARD || kind == PP_WEIGHT;
        }
    }
    return (peak + slices - 1) / slices;
}

static pp_status find_peaks(const pp_schedule *schedule, pp_check_report *report, pp_error *error) {
    report->peak_activations =
        pp_allocate_zeroed((size_t)schedule->ranks, sizeof *report->peak_activations);
    if (!report->peak_activations) return pp_fail_memory(error);
    for (int p = 0; p < schedule->ranks; p++)
        report->peak_activations[p] = peak_of_rank(schedule, p);
    return PP_OK;
}

static pp_status check_finishes(const pp_schedule *schedule, const pp_units *units, bool blocking,
                                pp_check_report *report, pp_error *error) {
    pp_wait_graph graph;
    PP_TRY(pp_wait_graph_init(&graph, schedule, units, blocking && units->has_transfers, error));
    report->matched = true;
    report->finishes = pp_wait_graph_run(&graph, NULL, NULL);
    pp_status status = report->finishes ? PP_OK : pp_wait_cycle_fail(&graph, error);
    pp_wait_graph_deinit(&graph);
    return status;
}

/* Of rank p: no compute action of a stage behind its REDUCE_GRAD or STEP, which close it. */
static pp_status check_rank_closes(const pp_schedule *schedule, int p, size_t *closed,
                                   pp_error *error) {
    size_t first = schedule->first_action[p];
    for (size_t i = first; i < schedule->first_action[p + 1]; i++) {
        pp_action action = schedule->actions[i];
        char text[32], late[32];
        if (action.kind == PP_REDUCE_GRAD || action.kind == PP_STEP) {
            if (closed[action.stage] == SIZE_MAX) closed[action.stage] = i;
        } else if (pp_action_is_compute(action) && closed[action.stage] != SIZE_MAX) {
            size_t at = closed[action.stage];
            return pp_fail(error, PP_E_INPUT, NULL,
                           "rank %d, action %zu: %s comes before the stage has done its last "
                           "microbatch: %s is still to come",
                           p, at - first, pp_action_text(schedule->actions[at], text),
                           pp_action_text(action, late));
        }
    }
    return PP_OK;
}

static pp_status check_closes(const pp_schedule *schedule, pp_error *error) {
    size_t *closed = pp_allocate((size_t)schedule->stages * sizeof *closed);
    pp_status status = PP_OK;
    if (!closed) return pp_fail_memory(error);
    for (int s = 0; s < schedule->stages; s++) closed[s] = SIZE_MAX;
    for (int p = 0; p < schedule->ranks && status == PP_OK; p++)
        status = check_rank_closes(schedule, p, closed, error);
    pp_free(closed);
    return status;
}

static pp_status check_units(const pp_schedule *schedule, const pp_units *units, bool blocking,
                             pp_check_report *report, pp_error *error) {
    PP_TRY(pp_units_complete(units, schedule, error));
    report->complete = true;
    PP_TRY(pp_units_order(units, schedule, error));
    PP_TRY(check_closes(schedule, error));
    report->dependencies = true;
    PP_TRY(check_finishes(schedule, units, blocking, report, error));
    return find_peaks(schedule, report, error);
}

pp_status pp_schedule_check(const pp_schedule *schedule, bool blocking, pp_check_report *report,
                            pp_error *error) {
    pp_check_report ignored;
    bool wanted = report != NULL;
    if (!wanted) report = &ignored;
    *report = (pp_check_report){0};
    pp_units units;
    PP_TRY(pp_units_init(&units, schedule, NULL, error));
    pp_status status = check_units(schedule, &units, blocking, report, error);
    pp_units_deinit(&units);
    if (!wanted) pp_free(ignored.peak_activations);
    return status;
}
