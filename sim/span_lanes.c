/* From what a run has kept to a trace: the spans of its actions, and for each transfer one span in
 * the sending lane of its sender and one in the receiving lane of its receiver, both from the
 * moment the data leaves to its arrival. Measured traces look the same, so that the two can be
 * compared. Transfers of gradients stand in the sending lane of each rank that takes part.
 *
 * Engines keep transfers in whatever order they come to them. They are put in place by a counting
 * sort over (rank, lane, direction) and then sorted by time within each; equal times by what is
 * sent, so that the trace does not depend on the engine. What one rank sends to another is in order
 * already, so a lane's transfers in one direction are nearly sorted; what is left are a few runs to
 * merge. */
#include "sim/engine_internal.h"

#include <string.h>

/* The parts of a rank's spans that are counted: its actions, then each lane's transfers, those
 * forward and those backward apart. */
enum { COMPUTE, SEND_F, SEND_B, RECEIVE_F, RECEIVE_B, PARTS };

size_t pp_transfer_limit(const pp_run *run) {
    const int *placement = run->schedule->placement;
    size_t count = 0;
    for (int s = 0; s < run->schedule->stages; s++) {
        const uint32_t *actions = run->stage_order[s].count;
        int next = run->next[s], previous = run->previous[s];
        if (next >= 0 && placement[next] != placement[s]) count += actions[PP_FORWARD];
        if (previous >= 0 && placement[previous] != placement[s])
            count += (size_t)actions[PP_BACKWARD] + actions[PP_INPUT];
        if (run->input->reduce_buckets > 0 && run->stage_order[s].reduces) count += 2;
    }
    return count;
}

/* ---- the two ends of a transfer -------------------------------------------------------------- */

static pp_span reduction_of(const pp_run *run, const pp_transfer *transfer) {
    return (pp_span){.start_s = transfer->sent_s,
                     .end_s = transfer->arrival_s,
                     .action = transfer->action,
                     .rank = run->schedule->placement[transfer->action.stage],
                     .lane = PP_LANE_SEND};
}

static pp_span end_of(const pp_run *run, const pp_transfer *transfer, pp_lane lane) {
    if (transfer->action.kind == PP_REDUCE_GRAD) return reduction_of(run, transfer);
    bool forward = transfer->action.kind == PP_FORWARD, sends = lane == PP_LANE_SEND;
    pp_action action = transfer->action;
    int other = forward ? run->next[action.stage] : run->previous[action.stage];
    pp_action_kind kind =
        forward ? (sends ? PP_SEND_F : PP_RECV_F) : (sends ? PP_SEND_B : PP_RECV_B);
    action.kind = (unsigned)kind & 0x7fu;
    action.overlapped = 0;
    if (!sends) action.stage = (uint16_t)other;
    return (pp_span){.start_s = transfer->sent_s,
                     .end_s = transfer->arrival_s,
                     .action = action,
                     .rank = run->schedule->placement[action.stage],
                     .lane = (uint8_t)lane};
}

static int order_of(const pp_action *action, const pp_action *other) {
    if (action->stage != other->stage) return action->stage < other->stage ? -1 : 1;
    if (action->kind != other->kind) return action->kind < other->kind ? -1 : 1;
    if (action->microbatch != other->microbatch)
        return action->microbatch < other->microbatch ? -1 : 1;
    return (action->slice > other->slice) - (action->slice < other->slice);
}

static bool stands_before(const pp_span *a, const pp_span *b) {
    if (a->start_s != b->start_s) return a->start_s < b->start_s;
    if (a->end_s != b->end_s) return a->end_s < b->end_s;
    return order_of(&a->action, &b->action) < 0;
}

/* ---- sorting ------------------------------------------------------------------------------- */

static size_t run_end(const pp_span *spans, size_t at, size_t count) {
    for (at++; at < count && !stands_before(&spans[at], &spans[at - 1]);) at++;
    return at;
}

/* [begin, middle) and [middle, end) are sorted; work: [middle - begin]. */
static void merge(pp_span *spans, size_t begin, size_t middle, size_t end, pp_span *work) {
    size_t left = 0, count = middle - begin, right = middle, to = begin;
    memcpy(work, spans + begin, count * sizeof *work);
    while (left < count && right < end)
        spans[to++] = stands_before(&spans[right], &work[left]) ? spans[right++] : work[left++];
    memcpy(spans + to, work + left, (count - left) * sizeof *work);
}

static void sort_lane(pp_span *spans, size_t count, pp_span *work) {
    while (count > 0 && run_end(spans, 0, count) < count)
        for (size_t begin = 0, middle, end; begin < count; begin = end) {
            middle = end = run_end(spans, begin, count);
            if (middle == count) break;
            end = run_end(spans, middle, count);
            merge(spans, begin, middle, end, work);
        }
}

/* ---- placing ------------------------------------------------------------------------------- */

static size_t slot_of(const pp_span *span) {
    bool backward = span->action.kind == PP_SEND_B || span->action.kind == PP_RECV_B;
    size_t part = span->lane == PP_LANE_SEND ? SEND_F : RECEIVE_F;
    return (size_t)span->rank * PARTS + part + backward;
}

/* The last lane that a transfer stands in. */
static int last_lane(const pp_transfer *transfer) {
    return transfer->action.kind == PP_REDUCE_GRAD ? PP_LANE_SEND : PP_LANE_RECEIVE;
}

/* begin[slot]: where the spans of a part of a rank begin; one more at the end. */
static void find_places(const pp_run *run, size_t *begin) {
    int ranks = run->schedule->ranks;
    for (int p = 0; p < ranks; p++)
        begin[(size_t)p * PARTS + COMPUTE + 1] = run->first_span[p + 1] - run->first_span[p];
    for (size_t i = 0; i < run->transfer_count; i++)
        for (int lane = PP_LANE_SEND; lane <= last_lane(&run->transfers[i]); lane++) {
            pp_span span = end_of(run, &run->transfers[i], (pp_lane)lane);
            begin[slot_of(&span) + 1]++;
        }
    for (size_t slot = 0; slot < (size_t)ranks * PARTS; slot++) begin[slot + 1] += begin[slot];
}

static void place_spans(const pp_run *run, const size_t *begin, size_t *at, pp_span *spans) {
    int ranks = run->schedule->ranks;
    memcpy(at, begin, (size_t)ranks * PARTS * sizeof *at);
    for (int p = 0; p < ranks; p++)
        memcpy(spans + begin[(size_t)p * PARTS], run->spans + run->first_span[p],
               (run->first_span[p + 1] - run->first_span[p]) * sizeof *spans);
    for (size_t i = 0; i < run->transfer_count; i++)
        for (int lane = PP_LANE_SEND; lane <= last_lane(&run->transfers[i]); lane++) {
            pp_span span = end_of(run, &run->transfers[i], (pp_lane)lane);
            spans[at[slot_of(&span)]++] = span;
        }
}

static void sort_lanes(const pp_run *run, const size_t *begin, pp_span *spans, pp_span *work) {
    for (int p = 0; p < run->schedule->ranks; p++) {
        const size_t *part = begin + (size_t)p * PARTS;
        sort_lane(spans + part[SEND_F], part[RECEIVE_F] - part[SEND_F], work);
        sort_lane(spans + part[RECEIVE_F], part[PARTS] - part[RECEIVE_F], work);
    }
}

pp_status pp_spans_arrange(const pp_run *run, pp_trace **trace, pp_error *error) {
    size_t slots = (size_t)run->schedule->ranks * PARTS;
    size_t *begin = PP_NEW(run->arena, size_t, slots + 1);
    size_t *at = PP_NEW(run->arena, size_t, slots);
    pp_span *work = PP_NEW(run->arena, pp_span, run->transfer_count);
    if (run->arena->failed) return pp_fail_memory(error);
    find_places(run, begin);
    PP_TRY(pp_trace_new(run->schedule->ranks, begin[slots], trace, error));
    place_spans(run, begin, at, (*trace)->spans);
    sort_lanes(run, begin, (*trace)->spans, work);
    return PP_OK;
}
