/* The curve of one setting: the best plan at each of its values.
 *
 * Few large microbatches leave ranks idle while the pipeline fills (a bubble of (K-1)/(M+K-1) for
 * equal stages: Narayanan et al. 2021, section 2.2); many small ones use a device badly, since
 * fixed costs and weights read from memory are shared by fewer samples. The first is
 * bubble_fraction, the second compute_loss: what a sample's F, I and W take over the least that
 * they take at any point. Recomputation is left out of that: it is paid for memory, not for small
 * microbatches. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/planner.h"

#define ROUNDING 1e-12 /* of sums over stages that were cut elsewhere */
enum { VALUES_MAX = 64, EVERY_RANK = 16, MEMORY_STEPS = 8 };

typedef struct sweeping {
    pp_plan_request request; /* of one point */
    pp_sweep_kind kind;
    int64_t values[VALUES_MAX];
    int count;
    int done;        /* searches so far, for progress */
    pp_error *error; /* the first that is worth telling */
    bool planned;
    pp_status failed;
    void (*progress)(void *context, double fraction);
    void *context;
} sweeping;

/* ---- one search ---------------------------------------------------------------------------- */

static void report(void *context, double fraction) {
    sweeping *w = context;
    int searches = w->count > 0 ? w->count : MEMORY_STEPS;
    w->progress(w->context, fmin(1, (w->done + fraction) / searches));
}

static int64_t peak_of(const pp_plan *plan) {
    int64_t peak = 0;
    for (int p = 0; p < plan->ranks; p++)
        if (plan->predicted.rank[p].peak_bytes > peak) peak = plan->predicted.rank[p].peak_bytes;
    return peak;
}

/* Of the first chain: a second one has the same layers. */
static double compute_per_sample(const pp_plan *plan) {
    double seconds = 0;
    for (int s = 0; s < plan->stage_count / plan->chains; s++)
        seconds += plan->stages[s].forward_s + plan->stages[s].input_s + plan->stages[s].weight_s;
    return seconds * plan->tp / (double)plan->microbatch_size;
}

static void fill_point(const pp_plan_result *result, pp_sweep_point *point) {
    const pp_plan *plan = result->best;
    point->planned = true;
    point->iteration_time_s = plan->predicted.iteration_time_s;
    point->throughput = plan->predicted.throughput;
    point->bubble_fraction = fmax(0, plan->predicted.bubble_fraction);
    point->compute_s = compute_per_sample(plan);
    point->peak_bytes = peak_of(plan);
    point->gap = isfinite(result->gap) ? fmax(0, result->gap) : PP_SWEEP_UNKNOWN;
    point->ranks = plan->ranks;
    point->virtual_stages = plan->virtual_stages;
    point->microbatches = plan->microbatches;
    point->microbatch_size = plan->microbatch_size;
    point->dp = plan->dp;
    point->tp = plan->tp;
    point->zero = plan->zero;
    point->recompute = plan->recompute;
    memcpy(point->schedule, plan->schedule, sizeof point->schedule);
}

static void fill_reason(const char *reason, pp_sweep_point *point) {
    point->iteration_time_s = point->throughput = point->bubble_fraction = PP_SWEEP_UNKNOWN;
    point->compute_s = point->compute_loss = point->gap = PP_SWEEP_UNKNOWN;
    point->peak_bytes = PP_SWEEP_UNKNOWN;
    snprintf(point->reason, sizeof point->reason, "%s", reason);
}

/* The value cannot be planned; other values perhaps can. */
static bool concerns_the_value(pp_status status) {
    return status == PP_E_NO_FIT || status == PP_E_INPUT || status == PP_E_UNSUPPORTED;
}

/* Of several errors that nothing fits is told before others, then the first. */
static void note_failure(sweeping *w, pp_status status, const pp_error *error) {
    if (w->failed != PP_OK && (w->failed == PP_E_NO_FIT || status != PP_E_NO_FIT)) return;
    w->failed = status;
    if (w->error != NULL) *w->error = *error;
}

static pp_status search_point(sweeping *w, pp_sweep_point *point) {
    pp_plan_result *result;
    pp_error error = {0};
    pp_status status = pp_plan_search(&w->request, &result, &error);
    w->done++;
    if (status == PP_OK && result->best == NULL)
        status = pp_fail(&error, PP_E_UNSUPPORTED, "--sweep",
                         "stages would have replicas of their own, of which no step time is known; "
                         "--dp 1 plans without them");
    if (status == PP_OK)
        fill_point(result, point);
    else
        fill_reason(error.message, point);
    pp_plan_result_free(result);
    w->planned = w->planned || status == PP_OK;
    if (status == PP_OK) return PP_OK;
    note_failure(w, status, &error);
    return concerns_the_value(status) ? PP_OK : status;
}

/* ---- values -------------------------------------------------------------------------------- */

/* Values come in rising order; what does not rise is left out. */
static void add_value(sweeping *w, int64_t value) {
    if (w->count == VALUES_MAX || value < 1) return;
    if (w->count > 0 && value <= w->values[w->count - 1]) return;
    w->values[w->count++] = value;
}

static void add_powers(sweeping *w, int64_t most) {
    for (int64_t value = 1; value < most; value *= 2) add_value(w, value);
    add_value(w, most);
}

/* Equal microbatches but for the last: of 12 samples there can be 6 microbatches, but not 8. */
static pp_status list_microbatches(sweeping *w) {
    int64_t batch = w->request.global_batch / (w->request.dp ? w->request.dp : 1);
    int64_t most = batch < PP_SWEEP_MOST_MICROBATCHES ? batch : PP_SWEEP_MOST_MICROBATCHES;
    for (int64_t wanted = 1; wanted < most; wanted *= 2) {
        int64_t size = (batch + wanted - 1) / wanted;
        add_value(w, (batch + size - 1) / size);
    }
    add_value(w, most > 1 ? most : 1);
    return PP_OK;
}

static pp_status list_ranks(sweeping *w) {
    const pp_plan_request *r = &w->request;
    int64_t each = (int64_t)(r->dp ? r->dp : 1) * (r->tp ? r->tp : 1);
    int64_t most = pp_cluster_device_count(r->cluster) / each;
    if (most < 1) most = 1;
    if (most > EVERY_RANK)
        add_powers(w, most);
    else
        for (int64_t k = 1; k <= most; k++) add_value(w, k);
    return PP_OK;
}

static int64_t all_memory(const pp_plan_request *request) {
    int64_t most = request->memory_bytes;
    int devices = most > 0 ? 0 : pp_cluster_device_count(request->cluster);
    for (int i = 0; i < devices; i++) {
        int64_t one = pp_cluster_device(request->cluster, i)->memory_bytes;
        if (one > most) most = one;
    }
    return most;
}

/* What the leanest and the fastest plan need decides which caps are worth asking for. */
static pp_status list_memory(sweeping *w) {
    const char *objective = w->request.objective;
    pp_sweep_point fastest = {0}, leanest = {0};
    int64_t all = all_memory(&w->request);
    w->request.memory_bytes = all;
    PP_TRY(search_point(w, &fastest));
    if (fastest.planned) {
        w->request.objective = "memory";
        pp_status status = search_point(w, &leanest);
        w->request.objective = objective;
        if (status != PP_OK) return status;
    }
    if (leanest.planned) {
        double low = (double)leanest.peak_bytes;
        double ratio = fmax(1, (double)fastest.peak_bytes / low);
        add_value(w, leanest.peak_bytes - (leanest.peak_bytes + 7) / 8);
        add_value(w, leanest.peak_bytes);
        for (int i = 1; i < MEMORY_STEPS; i++)
            add_value(w, (int64_t)ceil(low * pow(ratio, (double)i / MEMORY_STEPS)));
        add_value(w, fastest.peak_bytes);
    }
    add_value(w, all);
    return PP_OK;
}

/* ---- the kinds ----------------------------------------------------------------------------- */

static void pin_microbatches(pp_plan_request *request, int64_t value) {
    request->microbatches = (int)value;
}

static void pin_ranks(pp_plan_request *request, int64_t value) {
    request->ranks = (int)value;
}

static void pin_memory(pp_plan_request *request, int64_t value) {
    request->memory_bytes = value;
}

static const struct {
    pp_status (*list)(sweeping *w);
    void (*pin)(pp_plan_request *request, int64_t value);
} kinds[PP_SWEEP_KIND_COUNT] = {
    [PP_SWEEP_MICROBATCHES] = {list_microbatches, pin_microbatches},
    [PP_SWEEP_RANKS] = {list_ranks, pin_ranks},
    [PP_SWEEP_MEMORY] = {list_memory, pin_memory},
};

/* ---- the call ------------------------------------------------------------------------------ */

static void fill_losses(pp_sweep *sweep) {
    double least = INFINITY;
    for (int i = 0; i < sweep->point_count; i++)
        if (sweep->points[i].planned) least = fmin(least, sweep->points[i].compute_s);
    for (int i = 0; i < sweep->point_count; i++) {
        pp_sweep_point *point = &sweep->points[i];
        if (!point->planned) continue;
        double more = least > 0 ? point->compute_s / least - 1 : 0;
        point->compute_loss = more > ROUNDING ? more : 0;
    }
}

static pp_status search_points(sweeping *w, pp_sweep *sweep) {
    w->planned = false;
    w->failed = PP_OK;
    w->done = 0;
    for (int i = 0; i < w->count; i++) {
        sweep->points[i].value = w->values[i];
        kinds[w->kind].pin(&w->request, w->values[i]);
        PP_TRY(search_point(w, &sweep->points[i]));
    }
    fill_losses(sweep);
    return w->planned ? PP_OK : w->failed;
}

static pp_status check_open(const pp_plan_request *request, pp_sweep_kind kind, pp_error *error) {
    if (kind == PP_SWEEP_MICROBATCHES && (request->microbatches || request->microbatch_size))
        return pp_fail(error, PP_E_INPUT, "--sweep",
                       "microbatches are what is swept: leave out --microbatches and "
                       "--microbatch-size");
    if (kind == PP_SWEEP_RANKS && request->ranks)
        return pp_fail(error, PP_E_INPUT, "--sweep", "ranks are what is swept: leave out --ranks");
    return PP_OK;
}

pp_status pp_plan_sweep(const pp_plan_request *request, pp_sweep_kind kind, pp_sweep **sweep,
                        pp_error *error) {
    sweeping w = {.request = *request,
                  .kind = kind,
                  .error = error,
                  .progress = request->progress,
                  .context = request->progress_context};
    *sweep = NULL;
    PP_TRY(check_open(request, kind, error));
    w.request.best_alone = true;
    w.request.alternative_count = 1;
    if (w.progress != NULL) w.request.progress = report;
    w.request.progress_context = &w;
    PP_TRY(kinds[kind].list(&w));
    PP_TRY(pp_sweep_new(w.count, sweep, error));
    (*sweep)->kind = kind;
    (*sweep)->global_batch = request->global_batch;
    snprintf((*sweep)->model, sizeof(*sweep)->model, "%s", request->model->name);
    snprintf((*sweep)->cluster, sizeof(*sweep)->cluster, "%s", request->cluster->name);
    pp_status status = search_points(&w, *sweep);
    if (status == PP_OK || status == PP_E_NO_FIT) return status;
    pp_sweep_free(*sweep);
    *sweep = NULL;
    return status;
}
