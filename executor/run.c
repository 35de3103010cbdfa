/* Running a plan: one thread per rank and replica, step after step.
 *
 * The calling thread prepares what all share (job), starts the workers, and then meets them at two
 * gates per step: `start`, whose opening is time zero of the step, and `finish`, behind which the
 * workers stand still while the step is reported. Whoever fails first leaves the cause and wakes
 * everybody; all others end because of that, quietly. */
#include "executor/run_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_TIMEOUT_S 30.0
#define TRACE_MEMORY_BYTES ((int64_t)64 << 20) /* spans and points kept over all steps */

/* ---- failing ------------------------------------------------------------------------------- */

static void wake_everybody(pp_job *job) {
    if (job->transport) job->transport_ops->abort(job->transport);
    pp_reduce_abort(&job->reduce);
    pp_board_abort(&job->board);
    pp_gate_abort(&job->ready);
    pp_gate_abort(&job->start);
    pp_gate_abort(&job->finish);
    pp_gate_abort(&job->clip.gate);
    if (job->processes) pp_inbox_wake(job->processes);
}

/* "rank 2, replica 1, at 2B3 (microbatch 3): " */
static void describe(const pp_job *job, const pp_worker *worker, const pp_action *action,
                     char text[128]) {
    char name[32], replica[32] = "";
    if (!worker) {
        text[0] = '\0';
        return;
    }
    if (job->plan->dp > 1) snprintf(replica, sizeof replica, ", replica %d", worker->replica);
    int length = snprintf(text, 128, "rank %d%s", worker->rank, replica);
    if (!action)
        snprintf(text + length, 128 - (size_t)length, ": ");
    else if (action->microbatch == PP_NO_MICROBATCH)
        snprintf(text + length, 128 - (size_t)length, " at %s: ", pp_action_text(*action, name));
    else
        snprintf(text + length, 128 - (size_t)length,
                 " at %s (microbatch %u): ", pp_action_text(*action, name), action->microbatch);
}

void pp_job_fail(pp_job *job, const pp_worker *worker, const pp_action *action, pp_status status,
                 const pp_error *error) {
    pthread_mutex_lock(&job->mutex);
    bool first = job->error.code == PP_OK;
    if (first && status == PP_E_INTERRUPTED) {
        pp_fail(&job->error, status, NULL, "stopped by a signal");
    } else if (first) {
        char where[128];
        describe(job, worker, action, where);
        pp_fail(&job->error, status, error->place[0] ? error->place : NULL, "%s%s", where,
                error->message[0] ? error->message : pp_status_text(status));
        if (error->cause[0]) pp_fail_cause(&job->error, error->cause);
    }
    atomic_store(&job->failed, true);
    pthread_mutex_unlock(&job->mutex);
    if (!first) return;
    if (job->processes) pp_processes_fail(job->processes, &job->error);
    wake_everybody(job);
}

/* Another process has given the run up. */
static void fail_elsewhere(void *context, const pp_verdict *verdict) {
    pp_job *job = context;
    pthread_mutex_lock(&job->mutex);
    bool first = job->error.code == PP_OK;
    if (first) (void)pp_verdict_error(verdict, &job->error);
    atomic_store(&job->failed, true);
    pthread_mutex_unlock(&job->mutex);
    if (first && verdict->signal && !pp_stop_signal()) pp_stop_request(verdict->signal);
    if (first) wake_everybody(job);
}

/* ---- preparing ----------------------------------------------------------------------------- */

int pp_job_channel(const pp_job *job, int stage, int replica, bool backward) {
    return 2 * (stage * job->plan->dp + replica) + (backward ? 1 : 0);
}

/* Of the first chain; copies follow a chain's stages further on. */
static const int *stages_of_layers(pp_job *job) {
    const pp_plan *plan = job->plan;
    int *stage_of = PP_NEW(&job->arena, int, plan->model->layer_count);
    for (int s = 0; stage_of && s < plan->stage_count / plan->chains; s++)
        for (int i = plan->stages[s].first; i <= plan->stages[s].last; i++)
            stage_of[plan->order[i]] = s;
    return stage_of;
}

/* A chain's microbatches count from 0; in the batch they stand behind those of the chains before.
 */
static pp_status number_microbatches(pp_job *job, pp_error *error) {
    const pp_schedule *schedule = job->schedule;
    size_t end = schedule->first_action[schedule->ranks];
    job->first_microbatch = PP_NEW(&job->arena, int, schedule->stages);
    job->microbatch_count = PP_NEW(&job->arena, int, schedule->stages);
    if (job->arena.failed) return pp_fail_memory(error);
    for (size_t i = 0; i < end; i++)
        job->microbatch_count[schedule->actions[i].stage] +=
            schedule->actions[i].kind == PP_FORWARD;
    int first = 0;
    for (int c = 0; c < schedule->chain_count; c++) {
        pp_chain chain = schedule->chains[c];
        for (int s = chain.first; s <= chain.last; s++) job->first_microbatch[s] = first;
        first += job->microbatch_count[chain.first];
    }
    return PP_OK;
}

/* Which microbatches have an R; true: the schedule splits backward passes somewhere. Then memory is
 * laid out for that on every stage, as the planner counts it: dualpipe's pairs have whole ones. */
static bool read_schedule(const pp_job *job) {
    bool split = false;
    size_t end = job->schedule->first_action[job->schedule->ranks];
    for (size_t i = 0; i < end; i++) {
        pp_action action = job->schedule->actions[i];
        split = split || action.kind == PP_INPUT || action.kind == PP_WEIGHT;
        if (action.kind != PP_RECOMPUTE) continue;
        job->recomputed[(size_t)action.stage * (size_t)job->plan->microbatches +
                        action.microbatch] = true;
    }
    return split;
}

static pp_status make_layouts(pp_job *job, bool split, pp_error *error) {
    const pp_plan *plan = job->plan;
    job->layouts = PP_NEW(&job->arena, pp_stage_layout, plan->stage_count);
    if (!job->layouts) return pp_fail_memory(error);
    for (int s = 0; s < plan->stage_count; s++) {
        pp_layout_request request = {.model = plan->model,
                                     .order = plan->order,
                                     .first = plan->stages[s].first,
                                     .last = plan->stages[s].last,
                                     .samples = plan->microbatch_size,
                                     .dtype = plan->dtype,
                                     .optimizer = plan->optimizer,
                                     .split_backward = split,
                                     .recompute = plan->stages[s].recompute,
                                     .dp = plan->dp * plan->chains};
        PP_TRY(pp_stage_layout_make(&request, &job->arena, &job->layouts[s], error));
        job->bytes[s] = job->layouts[s].bytes;
        if (plan->zero > 0)
            job->bytes[s].optimizer =
                pp_sharded_optimizer_bytes(&job->bytes[s], plan->dtype, plan->dp);
    }
    return PP_OK;
}

static pp_status prepare_memory(pp_job *job, pp_error *error) {
    const pp_plan *plan = job->plan;
    int stages = plan->stage_count;
    job->bytes = PP_NEW(&job->arena, pp_stage_bytes, stages);
    job->input_slots = PP_NEW(&job->arena, int, stages);
    job->gradient_slots = PP_NEW(&job->arena, int, stages);
    job->recomputed = PP_NEW(&job->arena, bool, (int64_t)stages * plan->microbatches);
    if (job->arena.failed) return pp_fail_memory(error);
    bool split = read_schedule(job);
    PP_TRY(pp_schedule_slots(job->schedule, job->input_slots, job->gradient_slots, error));
    if (job->backend->runs_layers) return make_layouts(job, split, error);
    job->border_bytes = PP_NEW(&job->arena, int64_t, stages);
    if (!job->border_bytes) return pp_fail_memory(error);
    for (int s = 0; s < stages; s++) {
        job->bytes[s] = plan->stages[s].bytes;
        job->border_bytes[s] = s + 1 < stages ? pp_plan_border_bytes(plan, s) : 0;
        if (job->border_bytes[s] < 0) return pp_fail_memory(error);
    }
    return PP_OK;
}

static pp_status prepare_data(pp_job *job, const int *stage_of_layer, pp_error *error) {
    const pp_plan *plan = job->plan;
    job->replica_samples = plan->global_batch / plan->dp;
    if (!job->backend->runs_layers) return PP_OK;
    PP_TRY(pp_data_shape_of(plan->model, &job->shape, error));
    job->loss_stage = stage_of_layer[job->shape.loss_layer];
    job->gradient_scale = 1.0 / (double)(plan->global_batch * job->shape.targets);
    job->losses = PP_NEW(&job->arena, double, (int64_t)plan->dp * plan->microbatches);
    if (!job->losses) return pp_fail_memory(error);
    return pp_data_open(&job->shape, job->options->data, job->options->seed, &job->data, error);
}

/* The channel from stage `from` into stage `to`, as the link between their devices. */
static pp_channel_request channel_request(const pp_job *job, int from, int to, int replica,
                                          bool backward) {
    const pp_plan *plan = job->plan;
    int ranks[2] = {plan->placement[from], plan->placement[to]}, devices[2];
    for (int i = 0; i < 2; i++)
        devices[i] = plan->devices[(ranks[i] * plan->dp + replica) * plan->tp];
    const int *slots = backward ? job->gradient_slots : job->input_slots;
    const pp_stage_bytes *bytes = &job->bytes[to];
    return (pp_channel_request){
        .from_stage = from,
        .to_stage = to,
        .replica = replica,
        .slot_count = slots[to],
        .slot_bytes = (size_t)(backward ? bytes->output_gradient : bytes->input),
        .link = ranks[0] == ranks[1] ? (pp_link){.bandwidth_bytes_per_s = INFINITY}
                                     : pp_cluster_link(plan->cluster, devices[0], devices[1]),
        .emulate_link = !job->backend->runs_layers,
        .lane = (replica * plan->ranks + ranks[0]) * plan->ranks + ranks[1],
        .from_worker = ranks[0] * plan->dp + replica,
        .to_worker = ranks[1] * plan->dp + replica,
        .from_process = job->workers[ranks[0] * plan->dp + replica].process,
        .to_process = job->workers[ranks[1] * plan->dp + replica].process,
    };
}

static void fail_transport(void *context, const pp_error *error) {
    pp_job_fail(context, NULL, NULL, error->code, error);
}

static pp_status prepare_transport(pp_job *job, pp_error *error) {
    const pp_plan *plan = job->plan;
    int count = 2 * plan->stage_count * plan->dp;
    pp_channel_request *channels = PP_NEW(&job->arena, pp_channel_request, count);
    if (!channels) return pp_fail_memory(error);
    for (int s = 0; s < plan->stage_count; s++) {
        int previous = pp_schedule_previous(job->schedule, s);
        int next = pp_schedule_next(job->schedule, s);
        for (int d = 0; d < plan->dp; d++) {
            if (previous >= 0)
                channels[pp_job_channel(job, s, d, false)] =
                    channel_request(job, previous, s, d, false);
            if (next >= 0)
                channels[pp_job_channel(job, s, d, true)] = channel_request(job, next, s, d, true);
        }
    }
    pp_transport_setting setting = {.channels = channels,
                                    .channel_count = count,
                                    .processes = job->processes,
                                    .carrier = job->carrier,
                                    .timeout_s = job->watch.timeout_s,
                                    .fail = fail_transport,
                                    .context = job};
    return job->transport_ops->open(&setting, &job->transport, error);
}

static pp_status prepare_workers(pp_job *job, pp_error *error) {
    const pp_plan *plan = job->plan;
    int count = plan->ranks * plan->dp;
    job->workers = PP_NEW(&job->arena, pp_worker, count);
    if (!job->workers) return pp_fail_memory(error);
    job->worker_count = count;
    for (int i = 0; i < count; i++) {
        pp_worker *worker = &job->workers[i];
        worker->job = job;
        worker->rank = i / plan->dp;
        worker->replica = i % plan->dp;
        atomic_init(&worker->standing, job->schedule->first_action[worker->rank]);
        pp_arena_init(&worker->arena);
    }
    PP_TRY(pp_spread_workers(job, error));
    pp_gate_init(&job->ready, job->here_count + 1);
    pp_gate_init(&job->start, job->here_count + 1);
    pp_gate_init(&job->finish, job->here_count + 1);
    pp_gate_init(&job->clip.gate, job->here_count + 1);
    job->gates_ready = true;
    return PP_OK;
}

/* Where process 0 keeps what the workers of other processes report. */
static pp_status prepare_reports(pp_job *job, pp_error *error) {
    for (int i = 0; i < job->worker_count; i++)
        if (!job->workers[i].here) PP_TRY(pp_worker_open_records(&job->workers[i], error));
    return PP_OK;
}

static int ring_steps(const pp_job *job) {
    if (!job->options->keep_trace) return 0;
    int64_t actions = (int64_t)job->schedule->first_action[job->schedule->ranks];
    int64_t action_bytes = 3 * (int64_t)sizeof(pp_span) + 2 * (int64_t)sizeof(pp_trace_point);
    int64_t step_bytes = action_bytes * actions * job->plan->dp + 1;
    int64_t fits = TRACE_MEMORY_BYTES / step_bytes;
    return fits < 1 ? 1 : fits < job->steps ? (int)fits : job->steps;
}

static pp_status spread_reductions(pp_job *job, pp_error *error) {
    int *process_of = PP_NEW(&job->arena, int, job->worker_count);
    if (!process_of) return pp_fail_memory(error);
    for (int i = 0; i < job->worker_count; i++) process_of[i] = job->workers[i].process;
    pp_reduce_spread(&job->reduce, job->processes, process_of);
    return PP_OK;
}

static pp_status prepare(pp_job *job, pp_error *error) {
    const pp_plan *plan = job->plan;
    job->ring_steps = ring_steps(job);
    const int *stage_of_layer = stages_of_layers(job);
    if (!stage_of_layer) return pp_fail_memory(error);
    PP_TRY(prepare_workers(job, error));
    PP_TRY(pp_devices_seat(job, error));
    PP_TRY(pp_transport_choose(job, error));
    if (job->processes && job->processes->process == 0) PP_TRY(prepare_reports(job, error));
    PP_TRY(number_microbatches(job, error));
    PP_TRY(prepare_memory(job, error));
    PP_TRY(prepare_data(job, stage_of_layer, error));
    PP_TRY(pp_clip_init(job, error));
    if (job->backend->runs_layers) {
        bool whole = job->clip.limit > 0 || job->options->observe != NULL;
        PP_TRY(pp_reduce_init(&job->reduce, plan, stage_of_layer, job->layouts, whole, &job->arena,
                              error));
        if (job->processes) PP_TRY(spread_reductions(job, error));
        PP_TRY(pp_run_check_updates(job->schedule, &job->reduce, error));
    }
    if (job->clip.limit > 0) PP_TRY(pp_run_check_clip(job->schedule, error));
    PP_TRY(pp_devices_check(job, error));
    PP_TRY(pp_board_init(&job->board, plan, stage_of_layer, &job->arena, error));
    if (!job->backend->runs_layers) job->board.processes = job->processes;
    return prepare_transport(job, error);
}

static void job_init(pp_job *job, const pp_plan *plan, const pp_schedule *schedule,
                     const pp_run_options *options, const pp_backend *backend) {
    *job = (pp_job){.plan = plan,
                    .schedule = schedule,
                    .options = options,
                    .backend = backend,
                    .optimizer = pp_optimizer_defaults(plan->optimizer),
                    .steps = options->steps > 0 ? options->steps : 1,
                    .processes = options->processes,
                    .loss_stage = -1};
    if (options->learning_rate > 0) job->optimizer.learning_rate = options->learning_rate;
    job->watch.timeout_s = options->timeout_s > 0 ? options->timeout_s : DEFAULT_TIMEOUT_S;
    pthread_mutex_init(&job->mutex, NULL);
    pp_arena_init(&job->arena);
}

static void job_deinit(pp_job *job) {
    if (job->transport) job->transport_ops->close(job->transport);
    for (int i = 0; i < job->worker_count; i++) pp_worker_close(&job->workers[i]);
    if (job->gates_ready) {
        pp_gate_deinit(&job->ready);
        pp_gate_deinit(&job->start);
        pp_gate_deinit(&job->finish);
        pp_gate_deinit(&job->clip.gate);
    }
    pp_board_deinit(&job->board);
    pp_reduce_deinit(&job->reduce);
    pp_data_close(job->data);
    pthread_mutex_destroy(&job->mutex);
    pp_arena_deinit(&job->arena);
}

/* ---- running ------------------------------------------------------------------------------- */

static void start_workers(pp_job *job) {
    for (int i = 0; i < job->worker_count; i++) {
        pp_worker *worker = &job->workers[i];
        if (!worker->here) continue;
        int failure = pthread_create(&worker->thread, NULL, pp_worker_main, worker);
        worker->started = failure == 0;
        if (worker->started) continue;
        pp_error error;
        pp_fail(&error, PP_E_FAILED, NULL, "cannot start thread %d of %d; use fewer ranks", i + 1,
                job->worker_count);
        pp_fail_cause(&error, strerror(failure));
        pp_job_fail(job, NULL, NULL, PP_E_FAILED, &error);
        return;
    }
}

static void join_workers(pp_job *job) {
    for (int i = 0; i < job->worker_count; i++)
        if (job->workers[i].started) pthread_join(job->workers[i].thread, NULL);
}

/* Through a gate of all workers, of all processes. */
static pp_status pass(pp_job *job, pp_gate *gate, pp_status (*meet)(void *job, double *value),
                      double *value) {
    return job->processes ? pp_gate_lead(gate, value, meet, job) : pp_gate_wait(gate, NULL, value);
}

static pp_step_report report_step(const pp_job *job, int step, double start_s) {
    bool elsewhere = job->processes && job->processes->process != 0;
    return elsewhere ? (pp_step_report){.step = step, .loss = NAN}
                     : pp_measured_step(job, step, start_s);
}

/* The calling thread's side. A stop request is left to the workers, who end after their current
 * action and take this thread along. */
static void run_steps(pp_job *job, pp_run_result *result) {
    double now_s = pp_now_s();
    if (pass(job, &job->ready, pp_spread_start, &now_s) != PP_OK) return;
    for (int step = 0; step < job->steps; step++) {
        double start_s = pp_now_s(), end_s = start_s;
        job->step = step;
        if (pass(job, &job->start, pp_spread_start, &start_s) != PP_OK) return;
        if (job->clip.limit > 0 && pass(job, &job->clip.gate, pp_spread_norm, &end_s) != PP_OK)
            return;
        if (pass(job, &job->finish, pp_spread_finish, &end_s) != PP_OK) return;
        result->steps[step] = report_step(job, step, start_s);
        result->step_count = step + 1;
        if (job->options->on_step)
            job->options->on_step(job->options->context, &result->steps[step]);
    }
}

static pp_status outcome(pp_job *job, pp_run_result *result, pp_error *error) {
    if (atomic_load(&job->failed)) {
        if (error) *error = job->error;
        if (job->error.code != PP_E_INTERRUPTED) return job->error.code;
    }
    PP_TRY(pp_measured_summary(job, result, error));
    return job->error.code;
}

static void listen(pp_job *job, bool on) {
    if (job->processes)
        pp_processes_listen(job->processes, on ? &job->watch : NULL, on ? fail_elsewhere : NULL,
                            on ? job : NULL);
}

static pp_status run_job(pp_job *job, pp_run_result *result, pp_error *error) {
    pp_status status = prepare(job, error);
    uint64_t key = job->processes && status == PP_OK ? pp_spread_key(job) : 0;
    PP_TRY(pp_processes_agree(job->processes, status, key, error));
    if (job->processes) pp_payloads_pin(job->processes, job->backend);
    listen(job, true);
    start_workers(job);
    run_steps(job, result);
    join_workers(job);
    status = outcome(job, result, error);
    listen(job, false);
    if (job->processes) pp_payloads_pin(job->processes, NULL);
    return pp_processes_agree(job->processes, status, 0, error);
}

static pp_status result_new(int steps, pp_run_result **result, pp_error *error) {
    pp_run_result *made = pp_allocate_zeroed(1, sizeof *made);
    if (!made) return pp_fail_memory(error);
    pp_arena_init(&made->arena);
    made->steps = PP_NEW(&made->arena, pp_step_report, steps);
    if (!made->steps) {
        pp_run_result_free(made);
        return pp_fail_memory(error);
    }
    *result = made;
    return PP_OK;
}

void pp_run_result_free(pp_run_result *result) {
    if (!result) return;
    pp_trace_free(result->trace);
    pp_arena_deinit(&result->arena);
    pp_free(result);
}

pp_status pp_run(const pp_plan *plan, const pp_schedule *schedule, const pp_run_options *options,
                 pp_run_result **result, pp_error *error) {
    *result = NULL;
    const char *name =
        options->backend ? options->backend : pp_backend_default(plan->model, plan->dtype);
    const char *place = options->backend_place ? options->backend_place : "--backend";
    const pp_backend *backend = options->own_backend;
    pp_status checked = PP_OK;
    if (!backend) checked = pp_backend_find(name, place, &backend, error);
    if (checked == PP_OK) checked = pp_run_check(plan, schedule, backend, error);
    PP_TRY(pp_processes_agree(options->processes, checked, 0, error));

    pp_run_result *made = NULL;
    pp_job job;
    job_init(&job, plan, schedule, options, backend);
    pp_status status = result_new(job.steps, &made, error);
    if (status == PP_OK) {
        status = run_job(&job, made, error);
        if (status == PP_OK || status == PP_E_INTERRUPTED)
            *result = made;
        else
            pp_run_result_free(made);
    }
    job_deinit(&job);
    return status;
}
