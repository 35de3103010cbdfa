/* What a run measured: a report per step, medians over the steps after the first, and the trace of
 * the step that is nearest to the median. The first step warms caches and memory up, so it counts
 * only where it is the only one. Of dp replicas the slowest counts for a rank's times and the
 * largest for its memory; the trace shows replica 0. */
#include "executor/run_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double step_end_s(const pp_job *job, int step) {
    double end_s = job->workers[0].steps[step].end_s;
    for (int i = 1; i < job->worker_count; i++)
        end_s = fmax(end_s, job->workers[i].steps[step].end_s);
    return end_s;
}

static double step_planned_s(const pp_job *job, int step) {
    if (job->layouts) return NAN;
    double planned_s = 0;
    for (int i = 0; i < job->worker_count; i++)
        planned_s = fmax(planned_s, job->workers[i].steps[step].planned_s);
    return planned_s;
}

/* In replica and microbatch order, so that the sum's bits depend on M alone. */
static double mean_loss(const pp_job *job) {
    if (!job->layouts) return NAN;
    double sum = 0;
    for (int i = 0; i < job->plan->dp * job->plan->microbatches; i++) sum += job->losses[i];
    return sum * job->gradient_scale;
}

static double samples_per_second(const pp_job *job, double seconds) {
    return seconds > 0 ? (double)job->plan->global_batch / seconds : 0;
}

/* Positions per sample; 0 for models without a sequence. */
static int64_t model_sequence(const pp_model *model) {
    int64_t sequence = 0;
    for (int i = 0; i < model->layer_count; i++)
        if (model->layers[i].sequence > sequence) sequence = model->layers[i].sequence;
    return sequence > 1 ? sequence : 0;
}

pp_step_report pp_measured_step(const pp_job *job, int step, double start_s) {
    double seconds = step_end_s(job, step) - start_s;
    bool norms = job->clip.limit > 0 && job->layouts;
    return (pp_step_report){.step = step,
                            .loss = mean_loss(job),
                            .seconds = seconds,
                            .gradient_norm = norms ? pp_clip_norm(job) : NAN,
                            .planned_s = step_planned_s(job, step),
                            .tokens_per_s = samples_per_second(job, seconds) *
                                            (double)model_sequence(job->plan->model)};
}

static double median(double *values, int count) {
    return pp_median_of(values, (size_t)count).median;
}

static double rank_busy_s(const pp_job *job, int rank, int step) {
    double busy_s = 0;
    for (int d = 0; d < job->plan->dp; d++)
        busy_s = fmax(busy_s, job->workers[rank * job->plan->dp + d].steps[step].busy_s);
    return busy_s;
}

static int64_t rank_peak_bytes(const pp_job *job, int rank) {
    int64_t peak = 0;
    for (int d = 0; d < job->plan->dp; d++) {
        const pp_worker *worker = &job->workers[rank * job->plan->dp + d];
        if (worker->peak_bytes > peak) peak = worker->peak_bytes;
    }
    return peak;
}

static double bubble_fraction(const pp_job *job, int step, double seconds) {
    double busy_s = 0;
    for (int p = 0; p < job->plan->ranks; p++) busy_s += rank_busy_s(job, p, step);
    return 1 - busy_s / (job->plan->ranks * seconds);
}

/* Medians over steps `first` … count-1; work: [count]. */
static void fill_measured(const pp_job *job, pp_run_result *result, int first, double *work) {
    pp_prediction *measured = &result->measured;
    int count = result->step_count - first;
    const pp_step_report *steps = result->steps + first;
    for (int i = 0; i < count; i++) work[i] = steps[i].seconds;
    measured->iteration_time_s = median(work, count);
    for (int i = 0; i < count; i++) work[i] = bubble_fraction(job, first + i, steps[i].seconds);
    measured->bubble_fraction = median(work, count);
    for (int p = 0; p < job->plan->ranks; p++) {
        for (int i = 0; i < count; i++) work[i] = rank_busy_s(job, p, first + i);
        measured->rank[p].busy_s = median(work, count);
        measured->rank[p].peak_bytes = rank_peak_bytes(job, p);
    }
    /* the plan knows the work and what time costs; the time is ours */
    double stretch = measured->iteration_time_s / job->plan->predicted.iteration_time_s;
    if (stretch > 0 && isfinite(stretch)) {
        measured->mfu = job->plan->predicted.mfu / stretch;
        measured->cost_per_step = job->plan->predicted.cost_per_step * stretch;
    }
    measured->throughput = samples_per_second(job, measured->iteration_time_s);
    measured->tokens_per_s = measured->throughput * (double)model_sequence(job->plan->model);
}

/* ---- the trace ----------------------------------------------------------------------------- */

/* Among the steps whose spans are still there. */
static int nearest_step(const pp_job *job, const pp_run_result *result, int first) {
    int oldest = result->step_count - job->ring_steps;
    if (oldest < first) oldest = first;
    int best = oldest;
    double wanted_s = result->measured.iteration_time_s;
    for (int i = oldest; i < result->step_count; i++)
        if (fabs(result->steps[i].seconds - wanted_s) <
            fabs(result->steps[best].seconds - wanted_s))
            best = i;
    return best;
}

static int compare_spans(const void *a, const void *b) {
    const pp_span *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    if (x->lane != y->lane) return x->lane < y->lane ? -1 : 1;
    return (x->start_s > y->start_s) - (x->start_s < y->start_s);
}

static const pp_worker *first_replica(const pp_job *job, int rank) {
    return &job->workers[rank * job->plan->dp];
}

static void copy_spans(const pp_job *job, int step, pp_span *spans) {
    for (int p = 0; p < job->plan->ranks; p++) {
        const pp_worker *worker = first_replica(job, p);
        size_t count = (size_t)worker->steps[step].span_count;
        int64_t row = step % job->ring_steps;
        memcpy(spans, worker->spans + row * worker->span_capacity, count * sizeof *spans);
        qsort(spans, count, sizeof *spans, compare_spans);
        spans += count;
    }
}

/* Into trace->points, which have room for all. */
static void copy_points(const pp_job *job, int step, pp_trace *trace) {
    for (int p = 0; p < job->plan->ranks; p++) {
        const pp_worker *worker = first_replica(job, p);
        size_t count = (size_t)worker->steps[step].point_count;
        int64_t row = step % job->ring_steps;
        memcpy(trace->points + trace->point_count, worker->points + row * worker->point_capacity,
               count * sizeof *trace->points);
        trace->point_count += count;
    }
}

static pp_status make_trace(pp_job *job, pp_run_result *result, int first, pp_error *error) {
    const pp_plan *plan = job->plan;
    int step = nearest_step(job, result, first);
    PP_TRY(pp_spread_trace(job, step, error));
    size_t span_count = 0, point_count = 0;
    for (int p = 0; p < plan->ranks; p++) {
        span_count += (size_t)first_replica(job, p)->steps[step].span_count;
        point_count += (size_t)first_replica(job, p)->steps[step].point_count;
    }
    pp_trace *trace;
    PP_TRY(pp_trace_new(plan->ranks, span_count, &trace, error));
    result->trace = trace;
    trace->points = PP_NEW(&trace->arena, pp_trace_point, point_count);
    if (!trace->points) return pp_fail_memory(error);
    int length = snprintf(trace->title, sizeof trace->title, "%.60s on %s, step %d",
                          plan->model->name, job->backend->name, step);
    if (job->processes)
        pp_spread_title(job, trace->title + length, sizeof trace->title - (size_t)length);
    snprintf(trace->schedule, sizeof trace->schedule, "%s", plan->schedule);
    trace->measured = true;
    trace->ranks = plan->ranks;
    trace->stages = plan->stage_count;
    trace->virtual_stages = plan->virtual_stages;
    trace->microbatches = plan->microbatches;
    trace->makespan_s = result->steps[step].seconds;
    trace->bubble_fraction = bubble_fraction(job, step, trace->makespan_s);
    for (int p = 0; p < plan->ranks; p++)
        trace->rank[p] = (pp_trace_rank){.busy_s = rank_busy_s(job, p, step),
                                         .peak_bytes = rank_peak_bytes(job, p)};
    copy_spans(job, step, trace->spans);
    copy_points(job, step, trace);
    return PP_OK;
}

pp_status pp_measured_summary(pp_job *job, pp_run_result *result, pp_error *error) {
    result->measured.rank = PP_NEW(&result->arena, pp_rank_prediction, job->plan->ranks);
    double *work = PP_NEW(&result->arena, double, result->step_count);
    if (result->arena.failed) return pp_fail_memory(error);
    if (result->step_count == 0) return PP_OK;
    int first = result->step_count > 1 ? 1 : 0;
    bool whole = !job->processes || !atomic_load(&job->failed); /* all are there to bring theirs */
    if (job->processes && job->processes->process != 0)
        return whole && job->ring_steps > 0 ? pp_spread_trace(job, -1, error) : PP_OK;
    fill_measured(job, result, first, work);
    return whole && job->ring_steps > 0 ? make_trace(job, result, first, error) : PP_OK;
}
