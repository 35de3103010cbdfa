/* One run over several processes: who has which worker, and what they tell each other at each step.
 *
 * Workers go to processes by the number of their device, in equal shares: a launcher numbers
 * processes machine by machine, so ranks come to stand where the plan puts them. The calling
 * threads of all processes lead their workers' gates (pp_gate_lead) and meet behind them
 * (meeting.c): so the gates `ready`, `start` and `finish` hold for all workers of all processes,
 * and time zero of a step is the same moment for all. Times travel on the run's clock, process 0's.
 */
#include "executor/run_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- who has what -------------------------------------------------------------------------- */

/* Of the worker's device among all that the plan uses. */
static int position_of(const pp_plan *plan, int worker) {
    int position = 0, device = plan->devices[worker * plan->tp];
    for (int i = 0; i < plan->ranks * plan->dp; i++) {
        int other = plan->devices[i * plan->tp];
        position += other < device || (other == device && i < worker);
    }
    return position;
}

static int process_of(const pp_plan *plan, int processes, int worker) {
    return (int)((int64_t)position_of(plan, worker) * processes / (plan->ranks * plan->dp));
}

int pp_processes_workers_here(const pp_processes *processes, const pp_plan *plan, bool *here) {
    int count = 0;
    for (int i = 0; i < plan->ranks * plan->dp; i++) {
        here[i] = !processes || pp_processes_here(processes, process_of(plan, processes->count, i));
        count += here[i];
    }
    return count;
}

pp_status pp_spread_workers(pp_job *job, pp_error *error) {
    int processes = pp_processes_count(job->processes);
    if (processes > job->worker_count)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "%d processes are more than the plan's %d rank%s%s: start %d, or plan for "
                       "more ranks",
                       processes, job->worker_count, job->worker_count == 1 ? "" : "s",
                       job->plan->dp > 1 ? " and replicas" : "", job->worker_count);
    for (int i = 0; i < job->worker_count; i++) {
        pp_worker *worker = &job->workers[i];
        worker->process = process_of(job->plan, processes, i);
        worker->here = !job->processes || worker->process == job->processes->process;
        job->here_count += worker->here;
    }
    return PP_OK;
}

int pp_spread_index(const pp_job *job, const pp_worker *worker) {
    int index = 0, position = position_of(job->plan, (int)(worker - job->workers));
    for (int i = 0; i < job->worker_count; i++) {
        const pp_worker *other = &job->workers[i];
        if (job->processes && !pp_processes_here(job->processes, other->process)) continue;
        index += position_of(job->plan, i) < position;
    }
    return index;
}

/* ---- steps --------------------------------------------------------------------------------- */

static pp_status hear_latest(void *context, int process, const void *bytes, size_t size_bytes) {
    double *latest = context, value;
    (void)process;
    if (size_bytes != sizeof value) return PP_E_FAILED;
    memcpy(&value, bytes, sizeof value);
    *latest = fmax(*latest, value);
    return PP_OK;
}

pp_status pp_spread_start(void *context, double *value) {
    pp_job *job = context;
    double own = pp_to_run_clock(job->processes, *value), latest = own;
    pp_meeting meeting = {.bring = &own,
                          .bring_bytes = sizeof own,
                          .hear = hear_latest,
                          .context = &latest,
                          .say = &latest,
                          .say_bytes = sizeof latest,
                          .given_up = &job->failed};
    PP_TRY(pp_meet(job->processes, &meeting, NULL));
    *value = pp_from_run_clock(job->processes, latest);
    return PP_OK;
}

static pp_status hear_squares(void *context, int process, const void *bytes, size_t size_bytes) {
    const pp_job *job = context;
    size_t layers = (size_t)job->plan->model->layer_count;
    const double *told = bytes;
    if (process == 0) return PP_OK; /* its own letter is what all others are added to */
    if (size_bytes != (1 + layers) * sizeof *told) return PP_E_FAILED;
    job->clip.letter[0] = fmax(job->clip.letter[0], told[0]);
    for (size_t i = 1; i <= layers; i++) job->clip.letter[i] += told[i];
    return PP_OK;
}

/* Each layer is in one process, and the others say 0: adding them up changes no bit. */
static void write_squares(const pp_job *job, double *letter) {
    for (int i = 0; i < job->plan->model->layer_count; i++) letter[i] = 0;
    for (int w = 0; w < job->worker_count; w++)
        for (int i = 0; job->workers[w].here && i < job->workers[w].weight_count; i++) {
            int layer = job->workers[w].weights[i].layer;
            letter[layer] = job->clip.squares[layer];
        }
}

pp_status pp_spread_norm(void *context, double *value) {
    pp_job *job = context;
    double *letter = job->clip.letter;
    size_t layers = (size_t)job->plan->model->layer_count;
    size_t bytes = (1 + layers) * sizeof *letter;
    pp_error error = {.code = PP_OK};
    letter[0] = pp_to_run_clock(job->processes, *value);
    write_squares(job, letter + 1);
    pp_meeting meeting = {.bring = letter,
                          .bring_bytes = bytes,
                          .hear = hear_squares,
                          .context = job,
                          .say = letter,
                          .say_bytes = bytes,
                          .given_up = &job->failed};
    pp_status status = pp_meet(job->processes, &meeting, &error);
    if (status != PP_OK && status != PP_E_INTERRUPTED) pp_job_fail(job, NULL, NULL, status, &error);
    if (status != PP_OK) return status;
    memcpy(job->clip.squares, letter + 1, layers * sizeof *letter);
    *value = pp_from_run_clock(job->processes, letter[0]);
    return PP_OK;
}

/* What a process tells of a finished step: this, a worker_report for each of its workers, and the
 * losses of those that make them. */
typedef struct step_report {
    double clock_error_s;
} step_report;

typedef struct worker_report {
    pp_worker_step step; /* end_s on the run's clock */
    int64_t peak_bytes;
} worker_report;

/* Where and how many losses a worker makes in a chain. */
typedef struct made_losses {
    double *first;
    size_t bytes;
} made_losses;

static made_losses losses_of(const pp_job *job, const pp_worker *worker, int chain) {
    const pp_plan *plan = job->plan;
    int stage = job->loss_stage + chain * (plan->stage_count / plan->chains);
    if (job->loss_stage < 0 || plan->placement[stage] != worker->rank)
        return (made_losses){NULL, 0};
    return (made_losses){job->losses + worker->replica * plan->microbatches +
                             job->first_microbatch[stage],
                         (size_t)job->microbatch_count[stage] * sizeof(double)};
}

static size_t report_bytes(const pp_job *job, int process) {
    size_t bytes = sizeof(step_report);
    for (int i = 0; i < job->worker_count; i++) {
        if (job->workers[i].process != process) continue;
        bytes += sizeof(worker_report);
        for (int c = 0; c < job->plan->chains; c++)
            bytes += losses_of(job, &job->workers[i], c).bytes;
    }
    return bytes;
}

static void write_report(pp_job *job, int step, unsigned char *to) {
    step_report head = {pp_clock_error_s(&job->processes->clock, pp_now_s())};
    memcpy(to, &head, sizeof head);
    to += sizeof head;
    for (int i = 0; i < job->worker_count; i++) {
        const pp_worker *worker = &job->workers[i];
        if (!worker->here) continue;
        worker_report report = {worker->steps[step], worker->peak_bytes};
        report.step.end_s = pp_to_run_clock(job->processes, report.step.end_s);
        memcpy(to, &report, sizeof report);
        to += sizeof report;
        for (int c = 0; c < job->plan->chains; c++) {
            made_losses made = losses_of(job, worker, c);
            if (made.bytes > 0) memcpy(to, made.first, made.bytes);
            to += made.bytes;
        }
    }
}

static pp_status hear_report(void *context, int process, const void *bytes, size_t size_bytes) {
    pp_job *job = context;
    const unsigned char *from = bytes;
    step_report head;
    if (process == 0) return PP_OK; /* it is all here */
    if (size_bytes != report_bytes(job, process)) return PP_E_FAILED;
    memcpy(&head, from, sizeof head);
    from += sizeof head;
    job->clock_error_s = fmax(job->clock_error_s, head.clock_error_s);
    for (int i = 0; i < job->worker_count; i++) {
        pp_worker *worker = &job->workers[i];
        if (worker->process != process) continue;
        worker_report report;
        memcpy(&report, from, sizeof report);
        from += sizeof report;
        worker->steps[job->step] = report.step; /* process 0's clock is the run's */
        worker->peak_bytes = report.peak_bytes;
        for (int c = 0; c < job->plan->chains; c++) {
            made_losses made = losses_of(job, worker, c);
            if (made.bytes > 0) memcpy(made.first, from, made.bytes);
            from += made.bytes;
        }
    }
    return PP_OK;
}

pp_status pp_spread_finish(void *context, double *value) {
    pp_job *job = context;
    (void)value;
    size_t bytes = report_bytes(job, job->processes->process);
    unsigned char *report = pp_allocate(bytes);
    pp_error error = {.code = PP_OK};
    pp_status status = report ? PP_OK : pp_fail_memory(&error);
    if (status == PP_OK) {
        write_report(job, job->step, report);
        pp_meeting meeting = {.bring = report,
                              .bring_bytes = bytes,
                              .hear = hear_report,
                              .context = job,
                              .given_up = &job->failed};
        status = pp_meet(job->processes, &meeting, &error);
    }
    pp_free(report);
    if (status != PP_OK && status != PP_E_INTERRUPTED) pp_job_fail(job, NULL, NULL, status, &error);
    return status;
}

/* ---- the trace ----------------------------------------------------------------------------- */

static bool in_trace(const pp_worker *worker) {
    return worker->replica == 0;
}

static size_t spans_bytes(const pp_job *job, int process, int step) {
    size_t bytes = 0;
    for (int i = 0; i < job->worker_count; i++) {
        const pp_worker *worker = &job->workers[i];
        if (worker->process != process || !in_trace(worker)) continue;
        bytes += (size_t)worker->steps[step].span_count * sizeof(pp_span) +
                 (size_t)worker->steps[step].point_count * sizeof(pp_trace_point);
    }
    return bytes;
}

/* Between the process's rings and the letter. */
static void copy_spans(pp_job *job, int process, int step, unsigned char *letter, bool out) {
    int64_t row = step % job->ring_steps;
    for (int i = 0; i < job->worker_count; i++) {
        pp_worker *worker = &job->workers[i];
        if (worker->process != process || !in_trace(worker)) continue;
        struct {
            void *at;
            size_t bytes;
        } parts[] = {{worker->spans + row * worker->span_capacity,
                      (size_t)worker->steps[step].span_count * sizeof(pp_span)},
                     {worker->points + row * worker->point_capacity,
                      (size_t)worker->steps[step].point_count * sizeof(pp_trace_point)}};
        for (int k = 0; k < 2; letter += parts[k].bytes, k++)
            memcpy(out ? letter : parts[k].at, out ? parts[k].at : letter, parts[k].bytes);
    }
}

static pp_status hear_spans(void *context, int process, const void *bytes, size_t size_bytes) {
    pp_job *job = context;
    if (process == 0) return PP_OK;
    if (size_bytes != spans_bytes(job, process, job->step)) return PP_E_FAILED;
    if (size_bytes > 0)
        copy_spans(job, process, job->step, (unsigned char *)(uintptr_t)bytes, false);
    return PP_OK;
}

pp_status pp_spread_trace(pp_job *job, int step, pp_error *error) {
    if (!job->processes) return PP_OK;
    int process = job->processes->process;
    int32_t chosen = step;
    pp_meeting choice = {.say = &chosen, .say_bytes = sizeof chosen, .given_up = &job->failed};
    PP_TRY(pp_meet(job->processes, &choice, error));
    job->step = chosen;
    size_t bytes = process == 0 ? 0 : spans_bytes(job, process, chosen);
    unsigned char *letter = pp_allocate(bytes);
    if (!letter) return pp_fail_memory(error);
    if (bytes > 0) copy_spans(job, process, chosen, letter, true);
    pp_meeting meeting = {.bring = letter,
                          .bring_bytes = bytes,
                          .hear = hear_spans,
                          .context = job,
                          .given_up = &job->failed};
    pp_status status = pp_meet(job->processes, &meeting, error);
    pp_free(letter);
    return status;
}

void pp_spread_title(const pp_job *job, char *text, size_t size) {
    char error[32];
    if (job->clock_error_s > 0)
        snprintf(text, size, ", %d processes, clocks within %s", job->processes->count,
                 pp_format_seconds(job->clock_error_s, error));
    else
        snprintf(text, size, ", %d processes, one clock", job->processes->count);
}

/* ---- the same for all ---------------------------------------------------------------------- */

uint64_t pp_spread_key(const pp_job *job) {
    const pp_run_options *options = job->options;
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_plan_write(job->plan, &json);
    pp_text_printf(&text, "%016llx %s %s %d %llu %g %d %d %d %.17g",
                   (unsigned long long)pp_schedule_hash(job->schedule), job->backend->name,
                   job->transport_ops->name, job->steps, (unsigned long long)options->seed,
                   job->optimizer.learning_rate, options->evaluate, options->keep_trace,
                   options->data != NULL, options->clip);
    uint64_t key = text.failed ? 0 : pp_hash(0, text.bytes, text.length);
    pp_text_deinit(&text);
    return key;
}
