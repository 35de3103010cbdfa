/* The worker: one rank of one replica, an actor that goes through its list of actions.
 *
 * Model. The list alone says in what order; dependencies say when: an action that needs a message
 * waits for it, and what an action makes is sent when it is done. SEND and RECV actions of a
 * lowered schedule therefore say nothing new and are passed over. A rank blocks in three places
 * only: for a message, at a reduction, at the start and end of a step.
 *
 * Memory moves exactly as sim/memory counts it: activations from the start of F (or R) to the end
 * of I, W or B, the stash from I to W, a received input to the end of W or B, a received gradient
 * to the end of I or B. Both are freed BEFORE the gradient is sent on, so that the sender's next
 * message finds a slot whatever the timing (pp_schedule_slots).
 *
 * An OVERLAP_F_B pair is one action, as in DualPipe: it begins when what both halves need is there,
 * both hold their memory from its start, and what they make leaves at its end. Its halves are
 * computed one after the other; the second needs the workspace in which the first has left its
 * output, so that is copied to the receiver at once, and shown to it at the end.
 *
 * Busy is the time inside an action's arithmetic: waiting, loading data and copying messages are
 * not. Under replay an action ends at a deadline of the plan's own time line,
 *
 *     end = max(end of the action before, arrival of what it needs) + the plan's duration,
 *
 * and what it sends leaves at that deadline, so late wake-ups of threads do not add up. */
#include "executor/cuda/arithmetic.h"
#include "executor/worker_internal.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* What each kind of compute action does, in this order. */
typedef struct action_rule {
    bool takes_input;    /* waits for the stage's inputs */
    bool takes_gradient; /* waits for the gradients of its outputs */
    bool forward;        /* fills the activations */
    bool input, weight;  /* backward passes; their ends free what they were the last to read */
    bool sends_outputs, sends_gradients;
} action_rule;

static const action_rule rules[] = {
    [PP_FORWARD] = {.takes_input = true, .forward = true, .sends_outputs = true},
    [PP_BACKWARD] = {.takes_gradient = true,
                     .input = true,
                     .weight = true,
                     .sends_gradients = true},
    [PP_INPUT] = {.takes_gradient = true, .input = true, .sends_gradients = true},
    [PP_WEIGHT] = {.weight = true},
    [PP_RECOMPUTE] = {.forward = true},
};

/* One compute action on its way. */
typedef struct work {
    pp_worker *worker;
    pp_worker_stage *stage;
    pp_microbatch *memory;
    pp_action action;
    const pp_action *place; /* in the schedule */
    const action_rule *rule;
    double ready_s;  /* replay: when all it needs has arrived */
    int begun;       /* what the transport says of a message that has begun to leave */
    bool held;       /* what it makes is shown later: the other half of its pair is to come … */
    int channel;     /* … there; -1: nothing */
    double behind_s; /* … and, under replay, is planned to take so long */
    double end_s;    /* when what it makes leaves; replay: on the plan's time line */
} work;

/* The microbatch of an action, as it is counted in the batch. */
static int microbatch_of(const pp_job *job, pp_action action) {
    return job->first_microbatch[action.stage] + (int)action.microbatch;
}

static int64_t samples_of(const pp_job *job, pp_action action) {
    return pp_plan_samples(job->plan, microbatch_of(job, action));
}

/* ---- spans --------------------------------------------------------------------------------- */

static void record(pp_worker *worker, pp_lane lane, pp_action action, double start_s,
                   double end_s) {
    if (!worker->spans) return;
    assert(worker->span_count < worker->span_capacity);
    int64_t row = worker->step % worker->job->ring_steps;
    worker->spans[row * worker->span_capacity + worker->span_count++] =
        (pp_span){.start_s = start_s - worker->step_start_s,
                  .end_s = end_s - worker->step_start_s,
                  .action = action,
                  .rank = worker->rank,
                  .lane = (uint8_t)lane};
}

/* What the rank holds now, if that has changed. */
static void record_bytes(pp_worker *worker) {
    if (!worker->points) return;
    int64_t row = worker->step % worker->job->ring_steps;
    pp_trace_point *points = worker->points + row * worker->point_capacity;
    int64_t bytes = worker->heap.in_use_bytes;
    if (worker->point_count > 0 && points[worker->point_count - 1].bytes == bytes) return;
    assert(worker->point_count < worker->point_capacity);
    double time_s = worker->point_count > 0 ? pp_now_s() - worker->step_start_s : 0;
    points[worker->point_count++] = (pp_trace_point){time_s, bytes, worker->rank};
}

static pp_action transfer_of(pp_action action, pp_action_kind kind) {
    action.kind = (unsigned)kind & 0x7fu;
    action.overlapped = 0;
    return action;
}

/* ---- messages ------------------------------------------------------------------------------ */

static pp_status fail_waiting(const pp_worker *worker, int from_stage, pp_error *error) {
    const pp_job *job = worker->job;
    int from_rank = job->plan->placement[from_stage];
    const pp_worker *peer = &job->workers[from_rank * job->plan->dp + worker->replica];
    if (!peer->here)
        return pp_fail(
            error, PP_E_FAILED, NULL,
            "nothing came from stage %d for %g s; rank %d, which has it, is in process %d",
            from_stage, job->watch.timeout_s, from_rank, peer->process);
    pp_action stands = job->schedule->actions[atomic_load(&peer->standing)];
    char text[32];
    return pp_fail(error, PP_E_FAILED, NULL,
                   "nothing came from stage %d for %g s; rank %d, which has it, stands at %s",
                   from_stage, job->watch.timeout_s, from_rank, pp_action_text(stands, text));
}

/* The message of the action's microbatch from from_stage; its slot. */
static pp_status receive(work *w, bool backward, int from_stage, int *slot, pp_error *error) {
    pp_worker *worker = w->worker;
    pp_job *job = worker->job;
    int channel = pp_job_channel(job, w->stage->stage, worker->replica, backward);
    uint32_t m = w->action.microbatch;
    double start_s = pp_now_s();
    pp_patience patience = pp_patience_start(&job->watch);
    while (!job->transport_ops->poll(job->transport, channel, m, PP_WAIT_SLICE_S)) {
        if (atomic_load(&job->failed)) return PP_E_INTERRUPTED;
        pp_status status = pp_patience_check(&patience);
        if (status == PP_E_FAILED) return fail_waiting(worker, from_stage, error);
        if (status != PP_OK) return status;
    }
    PP_TRY(job->transport_ops->receive(job->transport, channel, m, 0, slot, error));
    w->ready_s = fmax(w->ready_s, job->transport_ops->ready_s(job->transport, channel, *slot));
    record(worker, PP_LANE_RECEIVE, transfer_of(w->action, backward ? PP_RECV_B : PP_RECV_F),
           start_s, pp_now_s());
    return PP_OK;
}

static pp_status receive_all(work *w, pp_error *error) {
    const pp_worker_stage *stage = w->stage;
    if (w->rule->takes_input && stage->previous >= 0)
        PP_TRY(receive(w, false, stage->previous, &w->memory->input_slot, error));
    if (w->rule->takes_gradient && stage->next >= 0)
        PP_TRY(receive(w, true, stage->next, &w->memory->gradient_slot, error));
    return PP_OK;
}

static void release_slot(work *w, bool backward, int *slot) {
    if (*slot < 0) return;
    pp_job *job = w->worker->job;
    const pp_worker_stage *stage = w->stage;
    if (backward)
        pp_heap_poison(&w->worker->heap, stage->gradient_slots[*slot],
                       stage->bytes->output_gradient);
    else
        pp_heap_poison(&w->worker->heap, stage->input_slots[*slot], stage->bytes->input);
    int channel = pp_job_channel(job, stage->stage, w->worker->replica, backward);
    job->transport_ops->release(job->transport, channel, *slot);
    *slot = -1;
}

/* ---- the memory of a microbatch ------------------------------------------------------------ */

static pp_stage_memory regions(const work *w) {
    const pp_microbatch *memory = w->memory;
    const pp_worker_stage *stage = w->stage;
    pp_stage_memory m = {{NULL}};
    m.base[PP_REGION_PARAMETERS] = stage->run.parameters;
    m.base[PP_REGION_ACTIVATION_INPUT] = memory->early;
    m.base[PP_REGION_ACTIVATION_WEIGHT] = memory->late;
    m.base[PP_REGION_STASH] = memory->stash;
    m.base[PP_REGION_WORKSPACE] = w->worker->workspace;
    if (w->worker->job->layouts)
        m.base[PP_REGION_AGAIN] = (unsigned char *)w->worker->workspace +
                                  stage->run.layout->region_bytes[PP_REGION_WORKSPACE];
    if (memory->input_slot >= 0) m.base[PP_REGION_INPUT] = stage->input_slots[memory->input_slot];
    if (memory->gradient_slot >= 0)
        m.base[PP_REGION_OUTPUT_GRADIENT] = stage->gradient_slots[memory->gradient_slot];
    return m;
}

static void give(work *w, void **block, int64_t size_bytes) {
    pp_heap_give(&w->worker->heap, *block, size_bytes);
    *block = NULL;
}

static int64_t late_bytes(const pp_stage_bytes *bytes) {
    return bytes->activation - bytes->released_by_input;
}

static bool is_recomputed(const work *w) {
    const pp_job *job = w->worker->job;
    return job->recomputed[(size_t)w->stage->stage * (size_t)job->plan->microbatches +
                           w->action.microbatch];
}

static pp_status take_memory(work *w, pp_error *error) {
    pp_heap *heap = &w->worker->heap;
    const pp_stage_bytes *bytes = w->stage->bytes;
    if (w->action.kind == PP_RECOMPUTE) give(w, &w->memory->checkpoint, bytes->checkpoint);
    if (w->rule->forward) {
        PP_TRY(pp_heap_take(heap, bytes->released_by_input, &w->memory->early, error));
        PP_TRY(pp_heap_take(heap, late_bytes(bytes), &w->memory->late, error));
    }
    if (w->rule->input) return pp_heap_take(heap, bytes->stash, &w->memory->stash, error);
    return PP_OK;
}

/* After an F whose activations will be computed again. */
static pp_status drop_activations(work *w, pp_error *error) {
    const pp_stage_bytes *bytes = w->stage->bytes;
    give(w, &w->memory->early, bytes->released_by_input);
    give(w, &w->memory->late, late_bytes(bytes));
    return pp_heap_take(&w->worker->heap, bytes->checkpoint, &w->memory->checkpoint, error);
}

/* What a backward pass was the last to read. */
static void give_memory(work *w) {
    const pp_stage_bytes *bytes = w->stage->bytes;
    if (w->rule->input) {
        give(w, &w->memory->early, bytes->released_by_input);
        release_slot(w, true, &w->memory->gradient_slot);
    }
    if (w->rule->weight) {
        give(w, &w->memory->late, late_bytes(bytes));
        give(w, &w->memory->stash, bytes->stash);
        release_slot(w, false, &w->memory->input_slot);
    }
}

/* To the stage behind or before; -1: there is none. */
static int receiver_of(const work *w, bool backward) {
    return backward ? w->stage->previous : w->stage->next;
}

static pp_message message_of(work *w, bool backward) {
    pp_worker *worker = w->worker;
    pp_job *job = worker->job;
    pp_message message = {.microbatch = w->action.microbatch,
                          .parts = w->stage->parts,
                          .sent_s = w->end_s,
                          .begun = w->begun,
                          .held = w->held};
    if (job->layouts) {
        message.backend = job->backend;
        message.backend_state = worker->backend_state;
        pp_stage_memory memory = regions(w);
        message.part_count = pp_stage_outgoing(&w->stage->run, &memory, backward,
                                               samples_of(job, w->action), w->stage->parts);
    } else {
        int border = backward ? receiver_of(w, true) : w->stage->stage;
        message.size_bytes = (size_t)job->border_bytes[border];
    }
    return message;
}

/* While the device is at work: its copies follow at once, without the host in between. */
static void begin_send(work *w) {
    pp_job *job = w->worker->job;
    bool backward = w->rule->sends_gradients;
    int to = receiver_of(w, backward);
    bool sends = backward || w->rule->sends_outputs;
    if (!sends || to < 0 || !job->backend->device_memory || !job->transport_ops->begin) return;
    pp_message message = message_of(w, backward);
    int channel = pp_job_channel(job, to, w->worker->replica, backward);
    w->begun = job->transport_ops->begin(job->transport, channel, &message);
}

static pp_status send(work *w, bool backward, pp_error *error) {
    pp_worker *worker = w->worker;
    pp_job *job = worker->job;
    int to = receiver_of(w, backward);
    if (to < 0) return PP_OK;
    double start_s = pp_now_s();
    pp_message message = message_of(w, backward);
    int channel = pp_job_channel(job, to, worker->replica, backward);
    PP_TRY(job->transport_ops->send_message(job->transport, channel, &message, error));
    if (w->held) w->channel = channel;
    record(worker, PP_LANE_SEND, transfer_of(w->action, backward ? PP_SEND_B : PP_SEND_F), start_s,
           pp_now_s());
    return PP_OK;
}

/* ---- arithmetic ---------------------------------------------------------------------------- */

static pp_worker_stage *stage_of(pp_worker *worker, pp_action action) {
    return &worker->stages[worker->local[action.stage]];
}

static int64_t first_sample(const pp_worker *worker, int microbatch) {
    return worker->replica * worker->job->replica_samples +
           (int64_t)microbatch * worker->job->plan->microbatch_size;
}

static void show(const pp_worker *worker, const void *host, void *seen, size_t size_bytes) {
    if (seen != host) worker->job->backend->upload(worker->backend_state, seen, host, size_bytes);
}

static void show_data(const pp_worker *worker, const pp_loader *loader) {
    show(worker, loader->tokens, loader->seen_tokens, loader->label_bytes);
    show(worker, loader->targets, loader->seen_targets, loader->label_bytes);
    show(worker, loader->features, loader->seen_features, loader->feature_bytes);
}

/* bf16 features are made as floats and narrowed in place, front to back. */
static void load_features(const pp_job *job, uint64_t first, int64_t samples, void *features) {
    bool narrow = job->plan->dtype == PP_BF16;
    pp_data_features(job->data, narrow ? PP_FP32 : job->plan->dtype, first, samples, features);
    int64_t count = samples * job->shape.sequence * job->shape.columns;
    for (int64_t i = 0; narrow && i < count; i++)
        ((uint16_t *)features)[i] = bf16_from_float(((const float *)features)[i]);
}

static bool reads_data(const pp_stage_run *run) {
    return run->reads_tokens || run->reads_features || run->makes_loss;
}

/* Tokens, features and targets of a microbatch of a step into the host's buffers. */
static void make_data(pp_worker *worker, int step, int microbatch) {
    const pp_job *job = worker->job;
    pp_loader *loader = &worker->loader;
    int64_t number = (int64_t)step * job->plan->microbatches + microbatch;
    if (loader->made == number) return;
    uint64_t first = (uint64_t)(step * job->plan->global_batch + first_sample(worker, microbatch));
    int64_t samples = pp_plan_samples(job->plan, microbatch);
    if (loader->tokens) pp_data_tokens(job->data, first, samples, loader->tokens);
    if (loader->targets) pp_data_targets(job->data, first, samples, loader->targets);
    if (loader->features) load_features(job, first, samples, loader->features);
    loader->made = number;
}

/* Those of the action's microbatch, where its stage reads them. */
static void load_data(work *w) {
    pp_worker *worker = w->worker;
    if (!reads_data(&w->stage->run)) return;
    make_data(worker, worker->step, microbatch_of(worker->job, w->action));
    if (worker->loader.loaded == worker->loader.made) return;
    show_data(worker, &worker->loader);
    worker->loader.loaded = worker->loader.made;
}

/* While a device is at work the host makes what the next compute action will read. */
static void make_next_data(work *w) {
    pp_worker *worker = w->worker;
    const pp_job *job = worker->job;
    const pp_action *next = w->place + 1;
    const pp_action *end = &job->schedule->actions[job->schedule->first_action[worker->rank + 1]];
    if (!job->backend->device_memory) return; /* it reads the host's buffers */
    while (next < end && !pp_action_is_compute(*next)) next++;
    if (next < end && reads_data(&stage_of(worker, *next)->run))
        make_data(worker, worker->step, microbatch_of(job, *next));
}

static void run_layers(work *w) {
    pp_worker *worker = w->worker;
    const pp_job *job = worker->job;
    int m = microbatch_of(job, w->action);
    double ignored = 0;
    double *loss = &job->losses[worker->replica * job->plan->microbatches + m];
    pp_stage_memory memory = regions(w);
    pp_stage_batch batch = {.samples = samples_of(job, w->action),
                            .first_sample = (uint64_t)first_sample(worker, m),
                            .seed = job->options->seed,
                            .step = (uint64_t)worker->step,
                            .training = !job->options->evaluate,
                            .gradient_scale = job->gradient_scale,
                            .tokens = worker->loader.seen_tokens,
                            .targets = worker->loader.seen_targets,
                            .features = worker->loader.seen_features,
                            .loss = w->action.kind == PP_FORWARD ? loss : &ignored};
    if (w->rule->forward)
        pp_stage_forward(&w->stage->run, &memory, &batch);
    else
        pp_stage_backward(&w->stage->run, &memory, &batch, w->rule->input, w->rule->weight);
}

/* Sleeps until then, but not through the end of the run. */
static void wait_until(pp_worker *worker, double until_s) {
    const pp_job *job = worker->job;
    for (double now_s; (now_s = pp_now_s()) < until_s && !atomic_load(&job->failed);)
        job->backend->wait_until(worker->backend_state, fmin(until_s, now_s + PP_WAIT_SLICE_S));
}

static double planned_duration_s(const pp_job *job, pp_action action) {
    const pp_plan *plan = job->plan;
    const pp_stage *stage = &plan->stages[action.stage];
    const double durations[PP_ACTION_KIND_COUNT] = {
        [PP_FORWARD] = stage->forward_s,
        [PP_BACKWARD] = pp_stage_input_s(stage) + stage->weight_s,
        [PP_INPUT] = pp_stage_input_s(stage),
        [PP_WEIGHT] = stage->weight_s,
        [PP_RECOMPUTE] = stage->recompute_s,
        [PP_REDUCE_GRAD] = stage->reduce_s,
        [PP_STEP] = stage->optimizer_s,
    };
    bool last =
        pp_action_is_compute(action) && microbatch_of(job, action) + 1 == plan->microbatches;
    double scale = last && plan->last_microbatch_scale > 0 ? plan->last_microbatch_scale : 1;
    return durations[action.kind] * scale;
}

/* An action of the plan's time line: from when it may start to its deadline, which is returned. */
static double replay_action(pp_worker *worker, pp_action action, double ready_s,
                            double *started_s) {
    double start_s = fmax(worker->scheduled_s, ready_s);
    wait_until(worker, start_s);
    *started_s = pp_now_s();
    worker->scheduled_s = start_s + planned_duration_s(worker->job, action);
    wait_until(worker, worker->scheduled_s);
    return worker->scheduled_s;
}

static void end_busy(pp_worker *worker, pp_action action, double start_s, double end_s,
                     double busy_s) {
    worker->busy_s += busy_s;
    record(worker, PP_LANE_COMPUTE, action, start_s, end_s);
}

static pp_status compute(work *w, pp_error *error) {
    pp_worker *worker = w->worker;
    pp_job *job = worker->job;
    double start_s = pp_now_s(), end_s;
    pp_status status = PP_OK;
    atomic_fetch_add(&job->watch.computing, 1);
    if (job->layouts) {
        run_layers(w);
        begin_send(w);
        make_next_data(w);
        status = job->backend->finish(worker->backend_state, error);
        end_s = w->end_s = pp_now_s();
    } else {
        w->end_s = replay_action(worker, w->action, w->ready_s, &start_s) + w->behind_s;
        end_s = pp_now_s();
    }
    atomic_fetch_sub(&job->watch.computing, 1);
    end_busy(worker, w->action, start_s, end_s, end_s - start_s);
    return status;
}

/* ---- actions ------------------------------------------------------------------------------- */

/* Which action messages name. */
static void stand_at(pp_worker *worker, const pp_action *action) {
    atomic_store(&worker->standing, (size_t)(action - worker->job->schedule->actions));
}

static pp_status begin_work(work *w, pp_worker *worker, const pp_action *action, pp_error *error) {
    pp_worker_stage *stage = stage_of(worker, *action);
    *w = (work){.worker = worker,
                .stage = stage,
                .memory = &stage->microbatches[action->microbatch],
                .action = *action,
                .place = action,
                .rule = &rules[action->kind],
                .held = action->overlapped,
                .channel = -1};
    stand_at(worker, action);
    PP_TRY(receive_all(w, error));
    return take_memory(w, error);
}

static pp_status end_work(work *w, pp_error *error) {
    pp_worker *worker = w->worker;
    if (worker->job->layouts) load_data(w);
    PP_TRY(compute(w, error));
    give_memory(w);
    if (w->rule->sends_outputs) PP_TRY(send(w, false, error));
    if (w->action.kind == PP_FORWARD && is_recomputed(w)) PP_TRY(drop_activations(w, error));
    record_bytes(worker);
    if (w->rule->sends_gradients) PP_TRY(send(w, true, error));
    pp_heap_poison(&worker->heap, worker->workspace, worker->workspace_bytes);
    if (w->rule->weight && --w->stage->backward_left == 0)
        pp_board_post(&worker->job->board, w->stage->stage, worker->replica, worker->step,
                      w->end_s);
    return PP_OK;
}

static pp_status run_compute(pp_worker *worker, const pp_action *actions, pp_error *error) {
    const pp_job *job = worker->job;
    work parts[2];
    int count = actions->overlapped ? 2 : 1;
    double ready_s = 0;
    for (int i = 0; i < count; i++) {
        PP_TRY(begin_work(&parts[i], worker, &actions[i], error));
        ready_s = fmax(ready_s, parts[i].ready_s);
    }
    record_bytes(worker);
    parts[0].ready_s = ready_s;
    if (count > 1) parts[0].behind_s = planned_duration_s(job, actions[1]);
    for (int i = 0; i < count; i++) {
        stand_at(worker, &actions[i]);
        PP_TRY(end_work(&parts[i], error));
    }
    return parts[0].channel < 0 ? PP_OK
                                : job->transport_ops->show(job->transport, parts[0].channel, error);
}

static pp_status fail_reduce(pp_status status, double timeout_s, pp_error *error) {
    if (status != PP_E_FAILED || error->message[0]) return status; /* told by the backend */
    return pp_fail(error, PP_E_FAILED, NULL,
                   "the other ranks of the reduction did not come for %g s", timeout_s);
}

static pp_reduce_party party_of(const pp_worker *worker, const pp_worker_stage *stage) {
    return (pp_reduce_party){.rank = worker->rank,
                             .replica = worker->replica,
                             .backend = worker->job->backend,
                             .backend_state = worker->backend_state,
                             .buffer = stage->reduction,
                             .landing = stage->landing,
                             .buffer_bytes = stage->bytes->reduction};
}

/* All groups up to this stage's last, in the order that every rank keeps. The waits, nearly all of
 * them before the first sum, are taken off the front of the span. */
static pp_status reduce_gradients(pp_worker *worker, pp_action action, pp_error *error) {
    pp_job *job = worker->job;
    const pp_worker_stage *stage = stage_of(worker, action);
    int last = pp_reduce_last_of(&job->reduce, action.stage);
    double start_s = pp_now_s(), waited_s = 0;
    while (worker->next_group <= last) {
        pp_reduce_party party = party_of(worker, stage);
        pp_status status = pp_reduce_groups_run(&job->reduce, worker->next_group, &party,
                                                &job->watch, &waited_s, error);
        if (status != PP_OK) return fail_reduce(status, job->watch.timeout_s, error);
        worker->next_group += job->reduce.groups[worker->next_group].together;
    }
    double end_s = pp_now_s();
    end_busy(worker, action, start_s + waited_s, end_s, end_s - start_s - waited_s);
    return PP_OK;
}

static pp_status replay_reduce(pp_worker *worker, pp_action action, pp_error *error) {
    pp_job *job = worker->job;
    double ready_s = 0, start_s;
    pp_status status = pp_board_wait(&job->board, action.stage, worker->replica, worker->step,
                                     &job->watch, &ready_s);
    if (status != PP_OK) return fail_reduce(status, job->watch.timeout_s, error);
    replay_action(worker, action, ready_s, &start_s);
    double end_s = pp_now_s();
    end_busy(worker, action, start_s, end_s, end_s - start_s);
    return PP_OK;
}

static pp_status run_reduce(pp_worker *worker, const pp_action *action, pp_error *error) {
    return worker->job->layouts ? reduce_gradients(worker, *action, error)
                                : replay_reduce(worker, *action, error);
}

/* A tensor where the host can read it; release_view afterwards. NULL: out of memory. */
static const void *host_view(const pp_worker *worker, const void *values, size_t size_bytes) {
    const pp_backend *backend = worker->job->backend;
    if (!backend->device_memory) return values;
    void *copy = pp_allocate(size_bytes);
    if (copy) backend->download(worker->backend_state, copy, values, size_bytes);
    return copy;
}

static void release_view(const pp_worker *worker, const void *view) {
    if (worker->job->backend->device_memory) pp_free((void *)(uintptr_t)view);
}

static pp_status observe_tensor(const pp_worker *worker, const pp_stage_run *run,
                                const pp_stage_layer *layer, int t, bool gradient,
                                pp_error *error) {
    const pp_run_options *options = worker->job->options;
    const void *values = gradient ? layer->gradients[t] : layer->parameters[t];
    const void *view = host_view(worker, values, (size_t)pp_tensor_bytes(&layer->tensors[t]));
    if (!view) return pp_fail_memory(error);
    pp_observed observed = {
        .step = worker->step,
        .rank = worker->rank,
        .replica = worker->replica,
        .stage = run->stage,
        .layer = layer->layer->name,
        .tensor = layer->tensors[t].name,
        .gradient = gradient,
        .dtype = run->dtype,
        .values = view,
        .count = layer->tensors[t].rows * layer->tensors[t].columns,
    };
    options->observe(options->context, &observed);
    release_view(worker, view);
    return PP_OK;
}

/* Shows every parameter of the stage, or every gradient, to the observer. */
static pp_status observe(const pp_worker *worker, const pp_stage_run *run, bool gradient,
                         pp_error *error) {
    pp_job *job = worker->job;
    pp_status status = PP_OK;
    if (!job->options->observe) return PP_OK;
    atomic_fetch_add(&job->watch.computing, 1); /* nobody may lose patience with an observer */
    pthread_mutex_lock(&job->mutex);
    for (int i = 0; i < run->layer_count; i++) {
        const pp_stage_layer *layer = &run->layers[i];
        for (int t = 0; t < layer->tensor_count && status == PP_OK; t++)
            if (layer->tensors[t].role == PP_TENSOR_PARAMETER)
                status = observe_tensor(worker, run, layer, t, gradient, error);
    }
    pthread_mutex_unlock(&job->mutex);
    atomic_fetch_sub(&job->watch.computing, 1);
    return status;
}

/* The optimizer's step, and where replicas share it out the weights that the others have stepped.
 */
static pp_status step_stage(pp_worker *worker, pp_worker_stage *stage, double *waited_s,
                            pp_error *error) {
    pp_job *job = worker->job;
    pp_optimizer_settings settings = job->optimizer;
    pp_reduce_party party = party_of(worker, stage);
    settings.gradient_factor = worker->gradient_factor;
    atomic_fetch_add(&job->watch.computing, 1);
    pp_stage_step(&stage->run, &settings, worker->step + 1);
    pp_status status = job->backend->finish(worker->backend_state, error);
    atomic_fetch_sub(&job->watch.computing, 1);
    PP_TRY(status);
    status = pp_reduce_hand_round(&job->reduce, stage->stage, &party, &job->watch, waited_s, error);
    return status == PP_OK ? PP_OK : fail_reduce(status, job->watch.timeout_s, error);
}

static pp_status run_step(pp_worker *worker, const pp_action *action, pp_error *error) {
    pp_job *job = worker->job;
    pp_worker_stage *stage = stage_of(worker, *action);
    pp_stage_run *run = &stage->run;
    pp_status status = PP_OK;
    if (job->layouts) PP_TRY(observe(worker, run, true, error));
    double start_s = pp_now_s(), ready_s = 0, waited_s = 0;
    if (job->clip.limit > 0 && !worker->clipped)
        PP_TRY(pp_clip_meet(worker, &ready_s, &waited_s, error));
    if (job->layouts) {
        status = step_stage(worker, stage, &waited_s, error);
    } else {
        atomic_fetch_add(&job->watch.computing, 1);
        replay_action(worker, *action, ready_s, &start_s);
        atomic_fetch_sub(&job->watch.computing, 1);
    }
    start_s += waited_s; /* taken off the front of the span, as in reduce_gradients */
    double end_s = pp_now_s();
    end_busy(worker, *action, start_s, end_s, end_s - start_s);
    if (job->layouts && status == PP_OK) status = observe(worker, run, false, error);
    return status;
}

static pp_status pass_over(pp_worker *worker, const pp_action *action, pp_error *error) {
    (void)worker;
    (void)action;
    (void)error;
    return PP_OK;
}

static pp_status (*const runners[PP_ACTION_KIND_COUNT])(pp_worker *, const pp_action *,
                                                        pp_error *) = {
    [PP_FORWARD] = run_compute, [PP_BACKWARD] = run_compute,  [PP_INPUT] = run_compute,
    [PP_WEIGHT] = run_compute,  [PP_RECOMPUTE] = run_compute, [PP_SEND_F] = pass_over,
    [PP_RECV_F] = pass_over,    [PP_SEND_B] = pass_over,      [PP_RECV_B] = pass_over,
    [PP_UNSHARD] = pass_over,   [PP_RESHARD] = pass_over,     [PP_REDUCE_GRAD] = run_reduce,
    [PP_STEP] = run_step,
};

/* The action, or the pair that begins with it: `count` of them. */
static pp_status run_action(pp_worker *worker, const pp_action *action, int count,
                            pp_error *error) {
    pp_job *job = worker->job;
    const pp_run_options *options = job->options;
    if (pp_stop_signal() || atomic_load(&job->failed)) return PP_E_INTERRUPTED;
    for (int i = 0; i < count; i++) {
        stand_at(worker, &action[i]);
        if (options->before_action && runners[action->kind] != pass_over)
            PP_TRY(options->before_action(options->context, worker->rank, worker->replica,
                                          action[i], error));
    }
    PP_TRY(runners[action->kind](worker, action, error));
    atomic_fetch_add(&job->watch.done, 1);
    return PP_OK;
}

/* ---- steps --------------------------------------------------------------------------------- */

static pp_status begin_step(pp_worker *worker, int step) {
    worker->step_start_s = pp_now_s();
    PP_TRY(pp_gate_wait(&worker->job->start, NULL, &worker->step_start_s));
    worker->step = step;
    worker->scheduled_s = worker->step_start_s;
    worker->busy_s = 0;
    worker->next_group = 0;
    worker->clipped = false;
    worker->span_count = worker->point_count = 0;
    record_bytes(worker);
    for (int i = 0; i < worker->stage_count; i++)
        worker->stages[i].backward_left = worker->job->microbatch_count[worker->stages[i].stage];
    return PP_OK;
}

static pp_status end_step(pp_worker *worker) {
    double end_s = pp_now_s();
    worker->peak_bytes = worker->heap.peak_bytes;
    worker->steps[worker->step] =
        (pp_worker_step){.end_s = end_s,
                         .planned_s = worker->scheduled_s - worker->step_start_s,
                         .busy_s = worker->busy_s,
                         .span_count = worker->span_count,
                         .point_count = worker->point_count};
    return pp_gate_wait(&worker->job->finish, &worker->job->watch, &end_s);
}

static bool run_actions(pp_worker *worker) {
    const pp_schedule *schedule = worker->job->schedule;
    const pp_action *action = &schedule->actions[schedule->first_action[worker->rank]];
    const pp_action *end = &schedule->actions[schedule->first_action[worker->rank + 1]];
    for (int count; action < end; action += count) {
        pp_error error = {.code = PP_OK};
        count = action->overlapped ? 2 : 1;
        pp_status status = run_action(worker, action, count, &error);
        if (status == PP_OK) continue;
        size_t standing = atomic_load(&worker->standing);
        pp_job_fail(worker->job, worker, &schedule->actions[standing], status, &error);
        return false;
    }
    return true;
}

static void run_steps(pp_worker *worker) {
    for (int step = 0; step < worker->job->steps; step++) {
        pp_error error = {.code = PP_OK};
        pp_status status = begin_step(worker, step);
        if (status == PP_OK && !run_actions(worker)) return;
        if (status == PP_OK) status = end_step(worker);
        if (status == PP_OK) continue;
        if (status == PP_E_FAILED)
            pp_fail(&error, status, NULL, "the other ranks did not end the step within %g s",
                    worker->job->watch.timeout_s);
        pp_job_fail(worker->job, worker, NULL, status, &error);
        return;
    }
}

void *pp_worker_main(void *argument) {
    pp_worker *worker = argument;
    pp_error error = {.code = PP_OK};
    pp_status status = pp_worker_open(worker, &error);
    double now_s = pp_now_s();
    if (status == PP_OK) status = pp_gate_wait(&worker->job->ready, NULL, &now_s);
    if (status == PP_OK)
        run_steps(worker);
    else
        pp_job_fail(worker->job, worker, NULL, status, &error);
    return NULL;
}
