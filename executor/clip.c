/* Clipping gradients by their global norm (Pascanu, Mikolov and Bengio 2013, "On the difficulty of
 * training recurrent neural networks", section 3.2; the 1e-6 is torch.nn.utils.clip_grad_norm_'s):
 *
 *     n = √ Σ g²   over every weight of the model, once,      g ← g · min(1, limit / (n + 1e-6))
 *
 * Model. The gradients are complete once every rank has reduced. A weight that several layers or
 * replicas hold has the same sum in each of them then, so the first layer of the model that has it
 * answers for it, on the first replica. Σ g² of a tensor is taken in double in an order that
 * depends on its size alone; tensors add up per layer, layers in the order of the model. So the
 * norm has the same bits for every K, split and number of processes.
 *
 * No STEP can begin before the last gradient of all ranks is there: a gate stands in front of each
 * rank's first one. Behind it every rank adds up the same numbers, which costs less than telling
 * them the sum. The factor is applied inside the optimizer's own pass over the gradient. */
#define PP_THIS_FILE "executor/clip.c"
#ifndef PP_REAL_PASS
#include "executor/clip_internal.h"
#include "executor/cuda/arithmetic.h"
#include "executor/worker_internal.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define EPSILON 1e-6
#endif
#include "executor/layers/real.h"

#ifdef real

/* Lane j adds up elements j, j + PP_SQUARE_LANES, …, as the threads of a block do. */
PP_VECTOR static void NAME(add_squares)(int64_t count, const real *restrict x,
                                        double *restrict found) {
    int64_t whole = count - count % PP_SQUARE_LANES;
    for (int64_t i = 0; i < whole; i += PP_SQUARE_LANES)
        for (int j = 0; j < PP_SQUARE_LANES; j++) found[j] += (double)x[i + j] * (double)x[i + j];
    for (int64_t i = whole; i < count; i++) found[i - whole] += (double)x[i] * (double)x[i];
}

static double NAME(square_sum)(int64_t count, const real *x) {
    double parts[PP_SQUARE_PARTS];
    for (int part = 0; part < PP_SQUARE_PARTS; part++) {
        double found[PP_SQUARE_LANES] = {0};
        int64_t from = part_begin(count, part, PP_SQUARE_PARTS),
                to = part_begin(count, part + 1, PP_SQUARE_PARTS);
        NAME(add_squares)(to - from, x + from, found);
        parts[part] = sum_in_order(PP_SQUARE_LANES, found);
    }
    return sum_in_order(PP_SQUARE_PARTS, parts);
}

#else

double pp_cpu_square_sum(pp_dtype dtype, int64_t count, const void *values) {
    assert(dtype == PP_FP32 || dtype == PP_FP64);
    return dtype == PP_FP64 ? square_sum_f64(count, values) : square_sum_f32(count, values);
}

/* ---- tables -------------------------------------------------------------------------------- */

pp_status pp_clip_init(pp_job *job, pp_error *error) {
    int layers = job->plan->model->layer_count;
    job->clip.limit = job->options->clip;
    if (!(job->clip.limit > 0)) return PP_OK;
    job->clip.squares = PP_NEW(&job->arena, double, layers);
    job->clip.letter = PP_NEW(&job->arena, double, layers + 1);
    return job->arena.failed ? pp_fail_memory(error) : PP_OK;
}

/* Does no layer before this one have the same weight? */
static bool is_first(const pp_model *model, int layer, const pp_tensor *tensor) {
    const pp_layer *layers = model->layers;
    for (int i = 0; tensor->tied && i < layer; i++)
        if (layers[i].tie && strcmp(layers[i].tie, layers[layer].tie) == 0) return false;
    return true;
}

/* The weights of a stage, unless it is a copy of another; list NULL: counts them. */
static int list_weights(const pp_stage_run *run, const pp_plan *plan, pp_clip_weight *list) {
    const pp_model *model = plan->model;
    int count = 0;
    if (run->stage >= plan->stage_count / plan->chains) return 0;
    for (int i = 0; i < run->layer_count; i++) {
        const pp_stage_layer *layer = &run->layers[i];
        for (int t = 0; t < layer->tensor_count; t++) {
            const pp_tensor *tensor = &layer->tensors[t];
            if (tensor->role != PP_TENSOR_PARAMETER || !is_first(model, layer->index, tensor))
                continue;
            if (list)
                list[count] = (pp_clip_weight){layer->index, layer->gradients[t],
                                               tensor->rows * tensor->columns};
            count++;
        }
    }
    return count;
}

static size_t sums_bytes(const pp_worker *worker) {
    return (size_t)worker->weight_count * sizeof(double);
}

pp_status pp_clip_open(pp_worker *worker, pp_error *error) {
    const pp_job *job = worker->job;
    worker->gradient_factor = 1;
    if (!(job->clip.limit > 0) || !job->layouts || worker->replica > 0) return PP_OK;
    for (int i = 0; i < worker->stage_count; i++)
        worker->weight_count += list_weights(&worker->stages[i].run, job->plan, NULL);
    worker->weights = PP_NEW(&worker->arena, pp_clip_weight, worker->weight_count);
    worker->seen_sums = PP_NEW(&worker->arena, double, worker->weight_count);
    if (worker->arena.failed) return pp_fail_memory(error);
    int at = 0;
    for (int i = 0; i < worker->stage_count; i++)
        at += list_weights(&worker->stages[i].run, job->plan, worker->weights + at);
    if (at == 0) return PP_OK;
    worker->sums = job->backend->allocate(worker->backend_state, sums_bytes(worker));
    return worker->sums ? PP_OK : pp_fail_memory(error);
}

void pp_clip_close(pp_worker *worker) {
    if (!worker->sums) return;
    worker->job->backend->release(worker->backend_state, worker->sums, sums_bytes(worker));
    worker->sums = NULL;
}

/* ---- a step -------------------------------------------------------------------------------- */

static pp_status add_up(pp_worker *worker, pp_error *error) {
    pp_job *job = worker->job;
    const pp_backend *backend = job->backend;
    if (worker->weight_count == 0) return PP_OK;
    for (int i = 0; i < worker->weight_count; i++)
        backend->square_sum(worker->backend_state, job->plan->dtype, worker->weights[i].gradient,
                            worker->weights[i].count, &worker->sums[i]);
    PP_TRY(backend->finish(worker->backend_state, error));
    backend->download(worker->backend_state, worker->seen_sums, worker->sums, sums_bytes(worker));
    for (int i = 0; i < worker->weight_count; i++) job->clip.squares[worker->weights[i].layer] = 0;
    for (int i = 0; i < worker->weight_count; i++)
        job->clip.squares[worker->weights[i].layer] += worker->seen_sums[i];
    return PP_OK;
}

double pp_clip_norm(const pp_job *job) {
    double sum = 0;
    for (int i = 0; i < job->plan->model->layer_count; i++) sum += job->clip.squares[i];
    return sqrt(sum);
}

pp_status pp_clip_meet(pp_worker *worker, double *ready_s, double *waited_s, pp_error *error) {
    pp_job *job = worker->job;
    pp_status status = PP_OK;
    atomic_fetch_add(&job->watch.computing, 1);
    if (job->layouts) status = add_up(worker, error);
    atomic_fetch_sub(&job->watch.computing, 1);
    if (status != PP_OK) return status;
    double before_s = pp_now_s();
    *ready_s = job->layouts ? before_s : worker->scheduled_s;
    status = pp_gate_wait(&job->clip.gate, &job->watch, ready_s);
    *waited_s += pp_now_s() - before_s;
    if (status == PP_E_FAILED)
        return pp_fail(error, status, NULL,
                       "the gradients of the other ranks were not complete for %g s: their norm "
                       "cannot be taken",
                       job->watch.timeout_s);
    if (status != PP_OK) return status;
    double factor = job->layouts ? job->clip.limit / (pp_clip_norm(job) + EPSILON) : 1;
    worker->gradient_factor = factor < 1 ? factor : factor >= 1 ? 1 : NAN;
    worker->clipped = true;
    return PP_OK;
}

#endif
