/* Opening and closing a worker: everything that a rank owns, allocated once.
 *
 * It happens in the rank's own thread, so that memory is first touched where it is used and all
 * ranks initialise at the same time. Whole-run bytes are taken first; what moves with the
 * microbatches comes and goes in worker.c. */
#include "executor/worker_internal.h"

#include <assert.h>

static pp_status take_slots(pp_worker *worker, int channel, int count, int64_t size_bytes,
                            void **slots, pp_error *error) {
    for (int i = 0; i < count; i++)
        PP_TRY(pp_heap_take(&worker->heap, size_bytes, &slots[i], error));
    const pp_job *job = worker->job;
    const pp_backend *backend = job->backend->runs_layers ? job->backend : NULL;
    if (count > 0)
        job->transport_ops->attach(job->transport, channel, slots, backend, worker->backend_state);
    return PP_OK;
}

static pp_status open_slots(pp_worker *worker, pp_worker_stage *stage, pp_error *error) {
    pp_job *job = worker->job;
    int s = stage->stage, inputs = job->input_slots[s], gradients = job->gradient_slots[s];
    stage->input_slots = PP_NEW(&worker->arena, void *, inputs);
    stage->gradient_slots = PP_NEW(&worker->arena, void *, gradients);
    if (worker->arena.failed) return pp_fail_memory(error);
    PP_TRY(take_slots(worker, pp_job_channel(job, s, worker->replica, false), inputs,
                      stage->bytes->input, stage->input_slots, error));
    return take_slots(worker, pp_job_channel(job, s, worker->replica, true), gradients,
                      stage->bytes->output_gradient, stage->gradient_slots, error);
}

/* Tells the reduction where the gradients of this stage are. */
static void attach_gradients(pp_worker *worker, const pp_stage_run *run) {
    for (int i = 0; i < run->layer_count; i++) {
        const pp_stage_layer *layer = &run->layers[i];
        for (int t = 0; t < layer->tensor_count; t++)
            if (layer->tensors[t].role == PP_TENSOR_PARAMETER)
                pp_reduce_attach(&worker->job->reduce, run->stage, layer->index, t, worker->replica,
                                 layer->gradients[t]);
    }
}

static pp_status open_layers(pp_worker *worker, pp_worker_stage *stage, void *const blocks[3],
                             pp_error *error) {
    pp_job *job = worker->job;
    PP_TRY(pp_stage_run_init(&stage->run, stage->stage, job->plan->model,
                             &job->layouts[stage->stage], job->backend, worker->backend_state,
                             job->plan->dtype, job->plan->microbatch_size, &worker->arena, error));
    int index = (int)(stage - worker->stages);
    pp_stage_run **earlier = PP_NEW(&worker->arena, pp_stage_run *, index);
    if (worker->arena.failed) return pp_fail_memory(error);
    for (int i = 0; i < index; i++) earlier[i] = &worker->stages[i].run;
    pp_shard shard = pp_reduce_shard(job->plan, stage->bytes, worker->replica);
    pp_stage_run_bind(&stage->run, blocks[0], blocks[1], blocks[2], shard.first, shard.end, earlier,
                      index);
    pp_reduce_attach_weights(&job->reduce, stage->stage, worker->replica, blocks[0]);
    pp_stage_run_initialise(&stage->run, job->plan->optimizer, job->options->seed);
    attach_gradients(worker, &stage->run);
    return PP_OK;
}

static pp_status open_stage(pp_worker *worker, pp_worker_stage *stage, int s, pp_error *error) {
    pp_job *job = worker->job;
    const pp_stage_bytes *bytes = &job->bytes[s];
    *stage = (pp_worker_stage){.stage = s,
                               .previous = pp_schedule_previous(job->schedule, s),
                               .next = pp_schedule_next(job->schedule, s),
                               .bytes = bytes};
    stage->microbatches = PP_NEW(&worker->arena, pp_microbatch, job->plan->microbatches);
    stage->parts = PP_NEW(&worker->arena, pp_message_part, job->plan->model->layer_count);
    if (worker->arena.failed) return pp_fail_memory(error);
    for (int m = 0; m < job->plan->microbatches; m++)
        stage->microbatches[m].input_slot = stage->microbatches[m].gradient_slot = -1;

    void *blocks[3];
    const int64_t sizes[3] = {bytes->parameters, bytes->gradients, bytes->optimizer};
    for (int i = 0; i < 3; i++) PP_TRY(pp_heap_take(&worker->heap, sizes[i], &blocks[i], error));
    PP_TRY(pp_heap_take(&worker->heap, bytes->reduction, &stage->reduction, error));
    if (job->processes && job->backend->device_memory) {
        stage->landing = job->backend->allocate(worker->backend_state, (size_t)bytes->reduction);
        if (!stage->landing) return pp_fail_memory(error);
    }
    PP_TRY(open_slots(worker, stage, error));
    return job->layouts ? open_layers(worker, stage, blocks, error) : PP_OK;
}

/* What the host writes and a device fetches. */
static void *open_host(pp_worker *worker, size_t size_bytes) {
    const pp_backend *backend = worker->job->backend;
    return backend->host_allocate ? backend->host_allocate(size_bytes)
                                  : pp_arena_allocate(&worker->arena, size_bytes, 1);
}

/* Memory of the host that a device sees through a copy of its own. */
static void *open_copy(pp_worker *worker, const void *host, size_t size_bytes) {
    const pp_backend *backend = worker->job->backend;
    if (!host || !backend->device_memory) return (void *)(uintptr_t)host;
    return backend->allocate(worker->backend_state, size_bytes);
}

static pp_status open_loader(pp_worker *worker, pp_error *error) {
    const pp_job *job = worker->job;
    pp_loader *loader = &worker->loader;
    bool tokens = false, targets = false, features = false;
    for (int i = 0; i < worker->stage_count; i++) {
        tokens |= worker->stages[i].run.reads_tokens;
        targets |= worker->stages[i].run.makes_loss;
        features |= worker->stages[i].run.reads_features;
    }
    int64_t rows = job->plan->microbatch_size * job->shape.sequence;
    loader->label_bytes = (size_t)rows * sizeof(int32_t);
    loader->feature_bytes = (size_t)(rows * job->shape.columns * pp_dtype_bytes(job->plan->dtype));
    if (tokens) loader->tokens = open_host(worker, loader->label_bytes);
    if (targets) loader->targets = open_host(worker, loader->label_bytes);
    if (features) loader->features = open_host(worker, 2 * loader->feature_bytes);
    loader->made = loader->loaded = -1;
    loader->seen_tokens = open_copy(worker, loader->tokens, loader->label_bytes);
    loader->seen_targets = open_copy(worker, loader->targets, loader->label_bytes);
    loader->seen_features = open_copy(worker, loader->features, loader->feature_bytes);
    bool complete = (!tokens || loader->seen_tokens) && (!targets || loader->seen_targets) &&
                    (!features || loader->seen_features);
    return complete ? PP_OK : pp_fail_memory(error);
}

static void close_copy(pp_worker *worker, void *host, void *seen, size_t size_bytes) {
    const pp_backend *backend = worker->job->backend;
    if (seen && seen != host) backend->release(worker->backend_state, seen, size_bytes);
    if (host && backend->host_allocate) backend->host_release(host);
}

static void close_loader(pp_worker *worker) {
    pp_loader *loader = &worker->loader;
    close_copy(worker, loader->tokens, loader->seen_tokens, loader->label_bytes);
    close_copy(worker, loader->targets, loader->seen_targets, loader->label_bytes);
    close_copy(worker, loader->features, loader->seen_features, loader->feature_bytes);
}

/* Each busy action and its send and receive; bytes at the start of the step, and at the start and
 * end of each action. */
pp_status pp_worker_open_records(pp_worker *worker, pp_error *error) {
    const pp_job *job = worker->job;
    const size_t *first = job->schedule->first_action;
    worker->steps = PP_NEW(&worker->arena, pp_worker_step, job->steps);
    if (job->ring_steps > 0) {
        int actions = (int)(first[worker->rank + 1] - first[worker->rank]);
        worker->span_capacity = 3 * actions;
        worker->point_capacity = 2 * actions + 1;
        worker->spans =
            PP_NEW(&worker->arena, pp_span, (int64_t)job->ring_steps * worker->span_capacity);
        worker->points = PP_NEW(&worker->arena, pp_trace_point,
                                (int64_t)job->ring_steps * worker->point_capacity);
    }
    return worker->arena.failed ? pp_fail_memory(error) : PP_OK;
}

static pp_status open_stages(pp_worker *worker, pp_error *error) {
    const pp_job *job = worker->job;
    int stages = job->plan->stage_count;
    worker->local = PP_NEW(&worker->arena, int, stages);
    worker->stages = PP_NEW(&worker->arena, pp_worker_stage, stages);
    if (worker->arena.failed) return pp_fail_memory(error);
    for (int s = 0; s < stages; s++) {
        worker->local[s] = -1;
        if (job->plan->placement[s] != worker->rank) continue;
        worker->local[s] = worker->stage_count++;
        PP_TRY(open_stage(worker, &worker->stages[worker->local[s]], s, error));
        if (job->bytes[s].workspace > worker->workspace_bytes)
            worker->workspace_bytes = job->bytes[s].workspace;
    }
    return pp_heap_take(&worker->heap, worker->workspace_bytes, &worker->workspace, error);
}

#ifdef NDEBUG
static const bool debug_build = false;
#else
static const bool debug_build = true;
#endif

static int number_of(const pp_worker *worker) {
    return (int)(worker - worker->job->workers);
}

pp_status pp_worker_open(pp_worker *worker, pp_error *error) {
    const pp_job *job = worker->job;
    pp_heap_init(&worker->heap, job->backend->runs_layers ? job->backend : NULL, NULL,
                 job->options->poison || debug_build);
    PP_TRY(job->backend->open(&worker->seat, &worker->backend_state, error));
    worker->backend_open = true;
    worker->heap.state = worker->backend_state;
    PP_TRY(open_stages(worker, error));
    PP_TRY(open_loader(worker, error));
    PP_TRY(pp_clip_open(worker, error));
    PP_TRY(pp_worker_open_records(worker, error));
    if (job->layouts) PP_TRY(job->backend->finish(worker->backend_state, error));
    if (!job->transport_ops->enter) return PP_OK;
    return job->transport_ops->enter(job->transport, number_of(worker), job->backend,
                                     worker->backend_state, error);
}

void pp_worker_close(pp_worker *worker) {
    if (worker->backend_open) {
        close_loader(worker);
        pp_clip_close(worker);
        for (int i = 0; i < worker->stage_count; i++)
            if (worker->stages[i].landing)
                worker->job->backend->release(worker->backend_state, worker->stages[i].landing,
                                              (size_t)worker->stages[i].bytes->reduction);
        pp_heap_deinit(&worker->heap);
        worker->job->backend->close(worker->backend_state);
    }
    pp_arena_deinit(&worker->arena);
}
