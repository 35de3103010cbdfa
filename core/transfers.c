/* Deriving SEND and RECV actions from the order of compute actions.
 *
 * The compute actions are run in rounds, each taking one unit of time: an action is in the round
 * after the last one it waits for. At a round's beginning its actions are appended to their ranks'
 * lists; at its end each of their results that another rank needs is appended twice at the same
 * moment: SEND to the list of the rank that made it, RECV to the list of the rank that needs it.
 *
 * So a SEND stands behind its producer with at most other transfers between. A RECV stands where
 * the receiver is when the result comes to exist: behind the action it has just finished, or runs.
 * Of the results of one round the forward ones go first, so an F is followed by its SEND_F. In
 * 1F1B, where F of one rank ends together with B of the next, the crossing SEND_F and RECV_B so
 * come to stand side by side and are one group.
 *
 * The result is free of deadlock, for any compute order that is. Proof: number all appendings in
 * the order in which they happened, both ends of a transfer with the same number; each rank's list
 * is ascending. Give a compute action its number, the start of a group its first transfer's, the
 * end of a group its last transfer's. Then along every edge of the wait graph the number does not
 * fall:
 *   - compute to next compute, end to next group's start: lists ascend;
 *   - producer to start of the group that sends its result: no compute action stands inside a group
 *     and the producer stands before one of its transfers, hence before all;
 *   - end of a group to consumer: likewise behind all of them, since a RECV is appended before its
 *     consumer's round begins;
 *   - start of g' to end of g, which hold the two ends of transfer x: first(g') <= x <= last(g).
 * Only the last kind of edge, and that from a start to its own end, can leave it equal; from an end
 * only rising edges leave. So there is no cycle. The same numbers prove it for blocking ranks,
 * where every transfer is a group of its own. And both ends of a queue list its transfers in the
 * order of their numbers, so they match position by position. */
#include "core/schedule_internal.h"

#include <string.h>

typedef struct lowering {
    const pp_schedule *schedule;
    const pp_units *units;
    pp_schedule *lowered;
    size_t *filled; /* [ranks] where each rank's next action goes */
} lowering;

/* The stage that needs the action's result, if that is on another rank; else -1. */
static int receiver_of(const pp_units *units, const pp_schedule *schedule, pp_action action) {
    if (action.kind != PP_FORWARD && !pp_is_backward(action)) return -1;
    int other = pp_other_stage(units, action);
    return pp_crosses(schedule, action.stage, other) ? other : -1;
}

/* Sets first_action of the lowered schedule. */
static void count_lowered(const pp_units *units, const pp_schedule *schedule, size_t *first) {
    memset(first, 0, ((size_t)schedule->ranks + 1) * sizeof *first);
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++) {
        pp_action action = schedule->actions[i];
        int other = receiver_of(units, schedule, action);
        first[schedule->placement[action.stage] + 1] += other >= 0 ? 2 : 1;
        if (other >= 0) first[schedule->placement[other] + 1]++;
    }
    for (int p = 0; p < schedule->ranks; p++) first[p + 1] += first[p];
}

static void append(lowering *work, pp_action action) {
    int rank = work->schedule->placement[action.stage];
    work->lowered->actions[work->filled[rank]++] = action;
}

static void append_transfer(lowering *work, pp_action action, int receiver) {
    bool forward = action.kind == PP_FORWARD;
    action.overlapped = 0;
    action.kind = forward ? PP_SEND_F : PP_SEND_B;
    append(work, action);
    action.kind = forward ? PP_RECV_F : PP_RECV_B;
    action.stage = (uint16_t)receiver;
    append(work, action);
    work->lowered->has_transfers = true;
}

/* Appends the transfers of the round's forward results, or of its backward ones. */
static void lower_results(lowering *work, const uint32_t *nodes, size_t count, bool forward) {
    const pp_schedule *schedule = work->schedule;
    for (size_t n = 0; n < count; n++) {
        for (size_t i = nodes[n]; i < nodes[n] + pp_node_size(schedule, nodes[n]); i++) {
            pp_action action = schedule->actions[i];
            int receiver = receiver_of(work->units, schedule, action);
            if (receiver >= 0 && (action.kind == PP_FORWARD) == forward)
                append_transfer(work, action, receiver);
        }
    }
}

static void lower_round(void *context, const uint32_t *nodes, size_t count) {
    lowering *work = context;
    const pp_schedule *schedule = work->schedule;
    for (size_t n = 0; n < count; n++)
        for (size_t i = nodes[n]; i < nodes[n] + pp_node_size(schedule, nodes[n]); i++)
            append(work, schedule->actions[i]);
    lower_results(work, nodes, count, true);
    lower_results(work, nodes, count, false);
}

/* Runs the graph into a fresh schedule. */
static pp_status lower(const pp_schedule *schedule, const pp_units *units, pp_wait_graph *graph,
                       pp_schedule **lowered, pp_error *error) {
    size_t *first = PP_NEW(&graph->arena, size_t, schedule->ranks + 1);
    if (!first) return pp_fail_memory(error);
    count_lowered(units, schedule, first);
    pp_schedule *fresh;
    PP_TRY(pp_schedule_copy_frame(schedule, first[schedule->ranks], &fresh, error));
    memcpy(fresh->first_action, first, ((size_t)schedule->ranks + 1) * sizeof *first);
    lowering work = {schedule, units, fresh, first};
    if (!pp_wait_graph_run(graph, lower_round, &work)) {
        pp_schedule_free(fresh);
        return pp_wait_cycle_fail(graph, error);
    }
    *lowered = fresh;
    return PP_OK;
}

static pp_status add_transfers(const pp_schedule *schedule, const pp_units *units,
                               pp_schedule **lowered, pp_error *error) {
    if (units->has_transfers)
        return pp_fail(error, PP_E_INPUT, schedule->name,
                       "transfers cannot be derived: the schedule has some already");
    PP_TRY(pp_units_complete(units, schedule, error));
    PP_TRY(pp_units_order(units, schedule, error));
    pp_wait_graph graph;
    PP_TRY(pp_wait_graph_init(&graph, schedule, units, false, error));
    pp_status status = lower(schedule, units, &graph, lowered, error);
    pp_wait_graph_deinit(&graph);
    return status;
}

pp_status pp_schedule_add_transfers(const pp_schedule *schedule, pp_schedule **lowered,
                                    pp_error *error) {
    pp_units units;
    *lowered = NULL;
    PP_TRY(pp_units_init(&units, schedule, NULL, error));
    pp_status status = add_transfers(schedule, &units, lowered, error);
    pp_units_deinit(&units);
    return status;
}
