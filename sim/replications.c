/* How long a step may take when durations vary: the same order timed many times, each time with
 * durations drawn anew. What is drawn follows from the seed, the number of the replication and the
 * action alone, so that results do not depend on how they are computed, and two schedules or splits
 * that are compared see the same luck where they have the same actions.
 *
 * The rank that counts as critical in a replication is the one on which most of the critical path
 * lies, in seconds: nearly every rank is on the path for a moment, when the pipeline fills and
 * drains. */
#include "sim/engine_internal.h"

#include <stdlib.h>

typedef struct draws {
    pp_sim_input input;
    uint64_t seed;
    double *makespan_s, *bubble_fraction; /* [count] */
    double *on_path_s;                    /* [ranks] */
    size_t *path;                         /* [path_room] */
    size_t path_room;
    int *critical; /* [ranks] replications in which it was */
    pp_arena arena;
} draws;

/* ---- one replication ----------------------------------------------------------------------- */

static int most_on_path(const draws *d, const pp_trace *trace, size_t length) {
    int most = 0, ranks = d->input.schedule->ranks;
    for (int p = 0; p < ranks; p++) d->on_path_s[p] = 0;
    for (size_t i = 0; i < length; i++) {
        const pp_span *span = &trace->spans[d->path[i]];
        d->on_path_s[span->rank] += span->end_s - span->start_s;
    }
    for (int p = 1; p < ranks; p++)
        if (d->on_path_s[p] > d->on_path_s[most]) most = p;
    return most;
}

static pp_status find_critical(draws *d, const pp_sim_result *result, pp_error *error) {
    size_t room = result->trace->span_count;
    if (room > d->path_room) {
        d->path = PP_NEW(&d->arena, size_t, room);
        if (!d->path) return pp_fail_memory(error);
        d->path_room = room;
    }
    size_t length = pp_critical_path(&d->input, result, d->path, room);
    if (length == 0 && room > 0) return pp_fail_memory(error);
    d->critical[most_on_path(d, result->trace, length)]++;
    return PP_OK;
}

static pp_status replicate(draws *d, int number, pp_error *error) {
    pp_sim_result *result;
    d->input.jitter_key = pp_random_key_make(d->seed, "jitter", (uint64_t)number);
    PP_TRY(pp_simulate(&d->input, &result, error));
    d->makespan_s[number] = result->makespan_s;
    d->bubble_fraction[number] = result->bubble_fraction;
    pp_status status = find_critical(d, result, error);
    pp_sim_result_free(result);
    return status;
}

/* ---- all of them --------------------------------------------------------------------------- */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted values, between neighbours in proportion. */
static double quantile(const double *values, int count, double part) {
    double at = part * (count - 1);
    int below = (int)at;
    if (below + 1 >= count) return values[count - 1];
    return values[below] + (at - below) * (values[below + 1] - values[below]);
}

static pp_quantiles quantiles_of(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare);
    return (pp_quantiles){.p5 = quantile(values, count, 0.05),
                          .p50 = quantile(values, count, 0.5),
                          .p95 = quantile(values, count, 0.95)};
}

/* Exact where all values are equal. */
static double mean_of(const double *values, int count) {
    double sum = 0;
    for (int i = 1; i < count; i++) sum += values[i] - values[0];
    return values[0] + sum / count;
}

static pp_status draw_all(draws *d, pp_replications *made, pp_error *error) {
    int ranks = d->input.schedule->ranks, count = made->count;
    d->makespan_s = PP_NEW(&d->arena, double, count);
    d->bubble_fraction = PP_NEW(&d->arena, double, count);
    d->on_path_s = PP_NEW(&d->arena, double, ranks);
    d->critical = PP_NEW(&d->arena, int, ranks);
    made->critical = PP_NEW(&made->arena, double, ranks);
    if (d->arena.failed || made->arena.failed) return pp_fail_memory(error);
    for (int i = 0; i < count; i++) PP_TRY(replicate(d, i, error));
    made->mean_s = mean_of(d->makespan_s, count);
    made->makespan_s = quantiles_of(d->makespan_s, count);
    made->bubble_fraction = quantiles_of(d->bubble_fraction, count);
    for (int p = 0; p < ranks; p++) made->critical[p] = (double)d->critical[p] / count;
    return PP_OK;
}

pp_status pp_simulate_replications(const pp_sim_input *input, int count, uint64_t seed,
                                   pp_replications **result, pp_error *error) {
    *result = NULL;
    if (count < 1 || count > PP_REPLICATIONS_MAX)
        return pp_fail(error, PP_E_INPUT, "replications", "%d, expected 1 to %d", count,
                       PP_REPLICATIONS_MAX);
    PP_TRY(pp_sim_input_check(input, error));
    pp_replications *made = pp_allocate_zeroed(1, sizeof *made);
    if (!made) return pp_fail_memory(error);
    made->count = count;
    draws d = {.input = *input, .seed = seed};
    d.input.keep_spans = true;
    d.input.bytes = NULL; /* memory does not depend on durations */
    pp_arena_init(&d.arena);
    pp_arena_init(&made->arena);
    pp_status status = draw_all(&d, made, error);
    pp_arena_deinit(&d.arena);
    if (status == PP_OK)
        *result = made;
    else
        pp_replications_free(made);
    return status;
}

void pp_replications_free(pp_replications *replications) {
    if (!replications) return;
    pp_arena_deinit(&replications->arena);
    pp_free(replications);
}

void pp_slow_rank(const pp_schedule *schedule, int rank, double factor, pp_stage_cost *stage) {
    for (int s = 0; s < schedule->stages; s++) {
        if (schedule->placement[s] != rank) continue;
        stage[s].forward_s *= factor;
        stage[s].input_s *= factor;
        stage[s].weight_s *= factor;
        stage[s].recompute_s *= factor;
        stage[s].forward_tilt_s *= factor;
        stage[s].input_tilt_s *= factor;
        stage[s].reduce_s *= factor;
        stage[s].optimizer_s *= factor;
        stage[s].reduce_transfer_s *= factor;
        stage[s].reduce_latency_s *= factor;
        stage[s].tie_transfer_s *= factor;
    }
}
