/* "How long is layer i, phase p, at microbatch b, on this kind of device": the one question
 * that the planner asks.
 *
 * Each layer's answer comes from one of three sources: fits through measured samples of its
 * signature (a store was given), its own times (opaque layers, whose signature is their name, where
 * the store knows none), or the roofline of analytic.c. Layers with equal signatures share their
 * fits. Nothing is shared that changes, so any thread may ask.
 *
 * The first two are of one kind of device, the home of these times. On another kind
 *
 *     t(kind) = t(home) · modelled t(kind) / modelled t(home)
 *
 * which keeps what was seen of a layer and takes from the model only how the kinds differ. In the
 * same way a part of a layer that is divided over devices follows from the whole layer, unless the
 * store has samples of the part itself. */
#include "profiles/costs_internal.h"
#include "profiles/efficiency_internal.h"
#include "profiles/store_internal.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYER_PHASES (PP_PHASE_OPTIMIZER + 1)
#define LINK_SIGNATURE "link"
#define ACTION_SIGNATURE "action"
/* Parts of layers divided over up to so many devices are looked for in a store. */
#define WIDEST_PART 64

/* The measured times of one signature; a phase without work has no fit. */
typedef struct measured {
    const char *signature;
    const pp_fit *fit[LAYER_PHASES];
    int tp;                      /* devices that the layer is divided over */
    const struct measured *next; /* the same layer, divided over more */
} measured;

typedef struct costed_layer {
    pp_layer layer; /* strings NULL: only its numbers are needed */
    pp_cost_source source;
    bool works[LAYER_PHASES]; /* false: the phase does nothing here */
    const measured *measured; /* NULL unless source is PP_COST_MEASURED */
} costed_layer;

/* What the costs know of one kind of device. */
typedef struct costed_kind {
    pp_analytic analytic; /* as assumed; flops_per_s 0: not known */
    pp_analytic reached;  /* the same, or what the fit to the store makes of it */
    bool present;         /* some device is of this kind */
    bool home;            /* times of layers hold as they are */
} costed_kind;

struct pp_costs {
    costed_layer *layers;
    int layer_count;
    costed_kind *kinds; /* [device kinds of the cluster] */
    int kind_count;
    int first_kind;       /* of device 0 */
    int home;             /* a kind at home */
    measured *signatures; /* [at most layer_count] */
    int signature_count;
    pp_analytic assumed;      /* of the kind at home; flops_per_s 0: not known */
    pp_efficiency efficiency; /* the same, fitted to the store */
    int missing;              /* layers that are modelled since the store lacks them */
    pp_costs_model told;
    pp_link intra;
    const pp_fit *link; /* NULL: not measured */
    double overhead_s;
    bool contended; /* something measured takes longer beside neighbours than alone */
    uint64_t hash;
    char note[256];
    pp_arena arena;
};

/* ---- layers ---- */

static bool has_stash(const pp_layer *layer) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int count = pp_layer_tensors(layer, 1, PP_FP32, tensors);
    for (int i = 0; i < count; i++)
        if (tensors[i].role == PP_TENSOR_STASH) return true;
    return false;
}

static bool has_incoming(const pp_model *model, int layer) {
    for (int i = 0; i < model->edge_count; i++)
        if (model->edges[i].to == layer) return true;
    return false;
}

/* Whether a phase of the layer does anything. The first layer of a model has no input whose
 * gradient anyone wants: its I runs only if W needs something from it. */
static bool phase_has_work(const pp_model *model, int index, pp_phase phase) {
    const pp_layer *layer = &model->layers[index];
    pp_layer_needs needs = pp_layer_needs_get(layer->op);
    if (phase == PP_PHASE_FORWARD) return true;
    if (phase == PP_PHASE_INPUT)
        return !needs.takes_tokens && (has_incoming(model, index) || has_stash(layer));
    return needs.has_weights;
}

/* Every layer by its numbers; returns how many are not opaque. */
static int list_layers(const pp_model *model, pp_costs *costs) {
    int real = 0;
    costs->layer_count = model->layer_count;
    for (int i = 0; i < model->layer_count; i++) {
        costed_layer *layer = &costs->layers[i];
        bool opaque = model->layers[i].op == PP_OP_OPAQUE;
        layer->layer = model->layers[i];
        layer->layer.name = layer->layer.tie = NULL;
        layer->source = opaque ? PP_COST_OPAQUE : PP_COST_MODELLED;
        for (int phase = 0; phase < LAYER_PHASES; phase++)
            layer->works[phase] = opaque || phase_has_work(model, i, (pp_phase)phase);
        real += !opaque;
    }
    return real;
}

/* ---- samples of a store, sorted by (signature, phase, …) ---- */

typedef struct measurements {
    const pp_costs_request *request;
    pp_store *store;
    pp_session session; /* the newest that matches */
    pp_sample *samples;
    size_t count;
    size_t used;            /* by a fit */
    pp_condition condition; /* under which the layers used were timed */
    double *x, *y;          /* [count] scratch */
} measurements;

static int compare_to(const pp_sample *sample, const char *signature, int phase) {
    int order = strcmp(sample->signature, signature);
    return order ? order : (int)sample->phase - phase;
}

/* The first sample that does not stand before (signature, phase). */
static size_t lower_bound(const measurements *all, const char *signature, int phase) {
    size_t low = 0, high = all->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_to(&all->samples[middle], signature, phase) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The median of a series' samples under one condition; 0: there are none. */
static double median_under(const measurements *all, size_t first, size_t end, int64_t microbatch,
                           pp_condition condition, double *scratch) {
    size_t count = 0;
    for (size_t i = first; i < end; i++) {
        const pp_sample *sample = &all->samples[i];
        if (sample->microbatch == microbatch && pp_taken_under(sample, condition))
            scratch[count++] = sample->duration_s;
    }
    return count > 0 ? pp_median_of(scratch, count).median : 0;
}

/* How much of its time beside busy neighbours something takes while they are idle for a share of
 * the time: ranks that share a device's memory slow each other down only while they are at work.
 * Linear between alone and beside. */
static double rest_factor(const measurements *all, pp_costs *costs, size_t first, size_t end,
                          int64_t microbatch, pp_condition beside, double *scratch) {
    pp_condition alone = {beside.slices, 0};
    if (beside.neighbours == 0) return 1;
    double alone_s = median_under(all, first, end, microbatch, alone, scratch);
    double beside_s = median_under(all, first, end, microbatch, beside, scratch);
    if (!(alone_s > 0) || alone_s >= beside_s) return 1;
    costs->contended = true;
    double idle = all->request->idle_share;
    double factor = 1 - idle * (1 - alone_s / beside_s);
    if (idle > 0) costs->hash = pp_hash(costs->hash, &factor, sizeof factor);
    return factor;
}

/* Fits the samples of (signature, phase); *fit stays NULL if there are none. Steps of the optimizer
 * and the cost of an action do not depend on the microbatch: x is 0 for them. */
static pp_status fit_samples(measurements *all, pp_costs *costs, const char *signature,
                             pp_phase phase, const pp_fit **fit, pp_error *error) {
    bool by_size = phase != PP_PHASE_OPTIMIZER && phase != PP_PHASE_OVERHEAD;
    size_t first = lower_bound(all, signature, (int)phase);
    size_t end = lower_bound(all, signature, (int)phase + 1);
    *fit = NULL;
    if (first == end) return PP_OK;
    pp_condition condition =
        pp_nearest_condition(&all->samples[first], &all->samples[end], all->request->neighbours);
    size_t count = 0;
    int64_t rated = -1; /* whose factor it is */
    double factor = 1;
    for (size_t i = first; i < end; i++) {
        const pp_sample *sample = &all->samples[i];
        if (!pp_taken_under(sample, condition)) continue;
        if (sample->microbatch != rated)
            factor =
                rest_factor(all, costs, first, end, sample->microbatch, condition, all->y + count);
        rated = sample->microbatch;
        all->x[count] = by_size ? (double)sample->microbatch : 0;
        all->y[count++] = factor * sample->duration_s;
        costs->hash = pp_store_sample_checksum(costs->hash, 0, sample);
    }
    all->used += count;
    if (phase == PP_PHASE_FORWARD) all->condition = condition;
    pp_fit *made = PP_NEW(&costs->arena, pp_fit, 1);
    if (!made) return pp_fail_memory(error);
    *fit = made;
    return pp_fit_points(all->x, all->y, count, made, error);
}

/* ---- measured layers ---- */

static pp_status never_measured(const measurements *all, int index, const char *signature,
                                pp_phase phase, pp_error *error) {
    const pp_costs_request *request = all->request;
    const char *db = request->db, *dtype = pp_dtype_name(request->dtype);
    return pp_fail(
        error, PP_E_INPUT, db,
        "layer %d '%s' (%s) was never measured in %s%s%s (phase %s): run `ppsim profile "
        "%s --db %s --dtype %s`, add --model-missing to have it modelled by rates fitted "
        "to what was measured, or leave out --db for modelled costs",
        index, request->model->layers[index].name, signature, dtype, request->backend ? " on " : "",
        request->backend ? request->backend : "", pp_phase_name(phase), request->model->name, db,
        dtype);
}

static measured *find_signature(pp_costs *costs, const char *signature) {
    for (int i = 0; i < costs->signature_count; i++)
        if (strcmp(costs->signatures[i].signature, signature) == 0) return &costs->signatures[i];
    return NULL;
}

static pp_status fit_phases(measurements *all, pp_costs *costs, const char *signature, int tp,
                            measured *made, pp_error *error) {
    *made = (measured){.tp = tp};
    made->signature = pp_arena_copy(&costs->arena, signature, strlen(signature));
    if (!made->signature) return pp_fail_memory(error);
    for (int phase = 0; phase < LAYER_PHASES; phase++)
        PP_TRY(fit_samples(all, costs, signature, (pp_phase)phase, &made->fit[phase], error));
    return PP_OK;
}

/* Lists behind `whole` every part of the layer that the store knows. */
static pp_status fit_parts(measurements *all, pp_costs *costs, const pp_layer *layer,
                           measured *whole, pp_error *error) {
    for (int tp = 2; tp <= WIDEST_PART; tp++) {
        char signature[PP_SIGNATURE_LENGTH];
        pp_layer part;
        if (pp_layer_shard(layer, tp, &part, NULL) != PP_OK) continue;
        pp_layer_signature(&part, signature);
        if (lower_bound(all, signature, 0) == lower_bound(all, signature, LAYER_PHASES)) continue;
        measured *made = PP_NEW(&costs->arena, measured, 1);
        if (!made) return pp_fail_memory(error);
        PP_TRY(fit_phases(all, costs, signature, tp, made, error));
        whole->next = made;
        whole = made;
    }
    return PP_OK;
}

static pp_status measured_layer(measurements *all, pp_costs *costs, const pp_layer *layer,
                                const char *signature, measured **out, pp_error *error) {
    *out = find_signature(costs, signature);
    if (*out) return PP_OK;
    *out = &costs->signatures[costs->signature_count];
    PP_TRY(fit_phases(all, costs, signature, 1, *out, error));
    costs->signature_count++;
    return fit_parts(all, costs, layer, *out, error);
}

static pp_status cost_measured_layer(measurements *all, pp_costs *costs, int index,
                                     pp_error *error) {
    const pp_model *model = all->request->model;
    char signature[PP_SIGNATURE_LENGTH];
    measured *found;
    pp_layer_signature(&model->layers[index], signature);
    PP_TRY(measured_layer(all, costs, &model->layers[index], signature, &found, error));
    for (int phase = 0; phase < LAYER_PHASES; phase++) {
        if (!costs->layers[index].works[phase] || found->fit[phase]) continue;
        if (!all->request->model_missing)
            return never_measured(all, index, signature, (pp_phase)phase, error);
        costs->missing++;
        return PP_OK;
    }
    costs->layers[index].source = PP_COST_MEASURED;
    costs->layers[index].measured = found;
    return PP_OK;
}

/* An opaque layer has times of its own, for when the store knows none. What was measured says which
 * phases do anything: a module without parameters has no W. */
static pp_status cost_opaque_layer(measurements *all, pp_costs *costs, int index, pp_error *error) {
    const pp_layer *named = &all->request->model->layers[index];
    costed_layer *layer = &costs->layers[index];
    char signature[PP_SIGNATURE_LENGTH];
    measured *found;
    pp_layer_signature(named, signature);
    if (lower_bound(all, signature, 0) == lower_bound(all, signature, LAYER_PHASES)) return PP_OK;
    PP_TRY(measured_layer(all, costs, named, signature, &found, error));
    for (int phase = 0; phase < LAYER_PHASES; phase++)
        layer->works[phase] = found->fit[phase] != NULL;
    layer->source = PP_COST_MEASURED;
    layer->measured = found;
    return PP_OK;
}

/* ---- opening ---- */

/* Settles whose samples are meant. */
static pp_status choose_session(measurements *all, pp_error *error) {
    const pp_costs_request *request = all->request;
    bool found;
    PP_TRY(pp_store_choose(all->store, request->cluster, request->backend, request->dtype,
                           &all->session, &found, error));
    if (found) return PP_OK;
    return pp_fail(error, PP_E_INPUT, request->db,
                   "nothing was measured in %s%s%s: run `ppsim profile %s --db %s --dtype %s`, or "
                   "leave out --db for modelled costs",
                   pp_dtype_name(request->dtype), request->backend ? " on " : "",
                   request->backend ? request->backend : "", request->model->name, request->db,
                   pp_dtype_name(request->dtype));
}

static pp_status load_samples(measurements *all, pp_error *error) {
    PP_TRY(pp_store_open(all->request->db, true, &all->store, error));
    PP_TRY(choose_session(all, error));
    PP_TRY(pp_store_samples(all->store, 0, all->session.backend, all->session.device,
                            all->request->dtype, &all->samples, &all->count, error));
    all->x = pp_allocate_zeroed(all->count + 1, sizeof *all->x);
    all->y = pp_allocate_zeroed(all->count + 1, sizeof *all->y);
    return all->x && all->y ? PP_OK : pp_fail_memory(error);
}

static void warn_of_slices(const measurements *all) {
    const int taken = all->condition.slices - 1, wanted = all->request->neighbours;
    if (taken <= 0 || taken == wanted) return;
    pp_log(PP_LOG_WARNING, "profiles",
           "%s was measured on slices, %d of the device, where the plan's ranks are %d: times will "
           "not hold unless the ranks get such slices; measure with 'ppsim profile --neighbours "
           "%d', or with --alone for ranks that have a device each",
           all->request->db, taken + 1, wanted + 1, wanted);
}

static pp_status fit_everything(measurements *all, pp_costs *costs, pp_error *error) {
    for (int i = 0; i < costs->layer_count; i++) {
        bool opaque = costs->layers[i].layer.op == PP_OP_OPAQUE;
        PP_TRY((opaque ? cost_opaque_layer : cost_measured_layer)(all, costs, i, error));
    }
    if (all->used == 0)
        pp_log(PP_LOG_WARNING, "profiles",
               "%s has no samples of any layer of %s: the times that the model states are used",
               all->request->db, all->request->model->name);
    warn_of_slices(all);
    const pp_fit *overhead;
    PP_TRY(fit_samples(all, costs, LINK_SIGNATURE, PP_PHASE_TRANSFER, &costs->link, error));
    PP_TRY(fit_samples(all, costs, ACTION_SIGNATURE, PP_PHASE_OVERHEAD, &overhead, error));
    if (overhead) costs->overhead_s = pp_fit_at(overhead, 0);
    char idle[64] = "";
    if (costs->contended && all->request->idle_share > 0)
        snprintf(idle, sizeof idle, ", neighbours idle for %.0f %% of the time",
                 100 * all->request->idle_share);
    snprintf(costs->note, sizeof costs->note, "profile %s: %s, %.10s, %zu samples%s",
             all->request->db, all->session.device, all->session.date, all->used, idle);
    return PP_OK;
}

/* ---- kinds of devices ---- */

static void list_kinds(const pp_cluster *cluster, pp_costs *costs) {
    costs->kind_count = cluster->device_kind_count;
    costs->first_kind = costs->home = cluster->nodes[0].device;
    for (int i = 0; i < cluster->node_kind_count; i++)
        costs->kinds[cluster->nodes[i].device].present = true;
    costs->kinds[costs->home].home = true;
}

/* Times are of one machine and plans may be of another: allowed, but not in silence. */
static void find_home(const pp_costs_request *request, const pp_session *session, pp_costs *costs) {
    const pp_cluster *cluster = request->cluster;
    int fitting = 0;
    for (int i = costs->kind_count - 1; i >= 0; i--) {
        costs->kinds[i].home =
            costs->kinds[i].present && pp_session_may_be(session, cluster->devices[i].name);
        fitting += costs->kinds[i].home;
        if (costs->kinds[i].home) costs->home = i;
    }
    if (fitting > 0) return;
    costs->kinds[costs->home].home = true;
    pp_log(PP_LOG_WARNING, "profiles",
           "%s was measured on '%s' (%s), but %s is made of '%s': the times are used as they "
           "are and hold only if these are the same; leave out --db for modelled costs",
           request->db, session->device, session->backend, cluster->name,
           cluster->devices[costs->home].name);
}

/* How fast a kind is; must: without that there are no costs. */
static pp_status rate_kind(const pp_costs_request *request, pp_costs *costs, int kind, bool must,
                           pp_error *error) {
    pp_analytic *analytic = &costs->kinds[kind].analytic;
    pp_status status =
        pp_analytic_make(request->cluster, kind, request->dtype, analytic, must ? error : NULL);
    if (status == PP_OK) {
        costs->hash = pp_hash(costs->hash, &analytic->flops_per_s, sizeof(double));
        costs->hash = pp_hash(costs->hash, &analytic->bytes_per_s, sizeof(double));
    }
    return must ? status : PP_OK;
}

/* Rates of all kinds where something is modelled or scaled. `real` layers need them. */
static pp_status rate_kinds(const pp_costs_request *request, pp_costs *costs, int real,
                            pp_error *error) {
    bool strangers = false;
    for (int i = 0; i < costs->kind_count; i++)
        strangers = strangers || (costs->kinds[i].present && !costs->kinds[i].home);
    for (int i = 0; i < costs->kind_count; i++) {
        bool needed = strangers || (real > 0 && (!request->db || costs->missing > 0));
        costs->kinds[i].analytic.dtype = request->dtype;
        if (!costs->kinds[i].present) continue;
        if (needed)
            PP_TRY(rate_kind(request, costs, i, real > 0, error));
        else if (real > 0) /* for parts of layers, which may do without */
            pp_analytic_make(request->cluster, i, request->dtype, &costs->kinds[i].analytic, NULL);
    }
    return PP_OK;
}

/* Opaque layers alone: kinds of which no difference is known are all at home. */
static void settle_alike(pp_costs *costs) {
    const pp_analytic *home = &costs->kinds[costs->home].analytic;
    for (int i = 0; i < costs->kind_count; i++) {
        const pp_analytic *there = &costs->kinds[i].analytic;
        bool known = home->flops_per_s > 0 && there->flops_per_s > 0;
        if (!known || there->flops_per_s == home->flops_per_s) costs->kinds[i].home = true;
    }
}

static void note_missing(pp_costs *costs) {
    size_t length = strlen(costs->note);
    if (costs->missing == 0) return;
    snprintf(costs->note + length, sizeof costs->note - length,
             "; %d of %d layers modelled by rates fitted to it", costs->missing,
             costs->layer_count);
}

/* Adds names of kinds to the note, which may be cut. */
static void note_kinds(const pp_cluster *cluster, pp_costs *costs, const char *first) {
    size_t length = strlen(costs->note);
    for (int i = 0, told = 0; i < costs->kind_count && length < sizeof costs->note; i++) {
        if (!costs->kinds[i].present || costs->kinds[i].home) continue;
        length += (size_t)snprintf(costs->note + length, sizeof costs->note - length, "%s'%s'",
                                   told++ ? ", " : first, cluster->devices[i].name);
    }
}

/* ---- what the store says of the model ---- */

/* Fits the rates of the kind at home to everything that the store has. Without assumed rates there
 * is nothing to begin at; that matters only where layers are missing. */
static pp_status fit_rates(measurements *all, pp_costs *costs, pp_error *error) {
    const pp_costs_request *request = all->request;
    bool must = costs->missing > 0;
    pp_status status = pp_analytic_make(request->cluster, costs->home, request->dtype,
                                        &costs->assumed, must ? error : NULL);
    if (status != PP_OK) return must ? status : PP_OK;
    pp_work_point *points = pp_allocate_zeroed(all->count + 1, sizeof *points);
    if (!points) return pp_fail_memory(error);
    size_t count = pp_work_points(all->samples, all->count, request->neighbours, request->dtype,
                                  all->y, points);
    status = pp_efficiency_fit(&costs->assumed, points, count, &costs->efficiency, error);
    pp_free(points);
    return status;
}

/* Other kinds are taken to reach the same share of what was assumed of them. */
static void apply_rates(pp_costs *costs) {
    const pp_analytic *fitted = &costs->efficiency.analytic;
    for (int i = 0; i < costs->kind_count; i++) costs->kinds[i].reached = costs->kinds[i].analytic;
    if (costs->efficiency.point_count == 0) return;
    for (int i = 0; i < costs->kind_count; i++) {
        pp_analytic *analytic = &costs->kinds[i].reached;
        analytic->flops_per_s *= fitted->flops_per_s / costs->assumed.flops_per_s;
        analytic->bytes_per_s *= fitted->bytes_per_s / costs->assumed.bytes_per_s;
        analytic->start_s = fitted->start_s;
    }
    if (costs->missing > 0) costs->hash = pp_hash(costs->hash, fitted, 3 * sizeof(double));
}

/* The first layer of its signature: the others would count it again. */
static bool is_first_of_signature(const pp_costs *costs, int index) {
    for (int i = 0; i < index; i++)
        if (costs->layers[i].measured == costs->layers[index].measured) return false;
    return true;
}

/* Where a layer was measured: how far off the fitted model is at each of its knots. Returns how
 * many; errors NULL: only counts. */
static size_t layer_errors(const pp_costs *costs, const costed_layer *layer, double *errors) {
    size_t count = 0;
    for (int phase = 0; phase < LAYER_PHASES; phase++) {
        const pp_fit *fit = layer->works[phase] ? layer->measured->fit[phase] : NULL;
        for (int k = 0; fit && k < fit->knot_count; k++) {
            if (!(fit->y[k] > 0)) continue;
            double modelled = pp_analytic_layer(&costs->efficiency.analytic, &layer->layer,
                                                (pp_phase)phase, (int64_t)fit->x[k]);
            if (errors) errors[count] = fabs(modelled - fit->y[k]) / fit->y[k];
            count++;
        }
    }
    return count;
}

static size_t all_errors(const pp_costs *costs, double *errors) {
    size_t count = 0;
    for (int i = 0; i < costs->layer_count; i++) {
        const costed_layer *layer = &costs->layers[i];
        bool modelled = layer->measured && layer->layer.op != PP_OP_OPAQUE;
        if (!modelled || !is_first_of_signature(costs, i)) continue;
        count += layer_errors(costs, layer, errors ? errors + count : NULL);
    }
    return count;
}

/* How far off the model is on this model's own layers. */
static pp_status judge_model(pp_costs *costs, pp_error *error) {
    size_t count = costs->efficiency.point_count > 0 ? all_errors(costs, NULL) : 0;
    if (count == 0) return PP_OK;
    double *errors = pp_allocate_zeroed(count, sizeof *errors);
    if (!errors) return pp_fail_memory(error);
    all_errors(costs, errors);
    for (size_t i = 0; i < count; i++)
        costs->told.worst_error = fmax(costs->told.worst_error, errors[i]);
    costs->told.median_error = pp_median_of(errors, count).median;
    costs->told.point_count = count;
    pp_free(errors);
    return PP_OK;
}

static void tell_model(pp_costs *costs) {
    pp_costs_model *told = &costs->told;
    for (int i = 0; i < costs->layer_count; i++) {
        told->measured_layers += costs->layers[i].source == PP_COST_MEASURED;
        told->modelled_layers += costs->layers[i].source == PP_COST_MODELLED;
    }
    const pp_analytic *rates = &costs->kinds[costs->home].analytic;
    if (costs->efficiency.point_count > 0) rates = &costs->efficiency.analytic;
    told->flops_per_s = rates->flops_per_s;
    told->bytes_per_s = rates->bytes_per_s;
    told->start_s = rates->start_s;
    told->fitted = costs->efficiency.point_count > 0;
}

static pp_status open_measured(const pp_costs_request *request, pp_costs *costs, pp_error *error) {
    measurements all = {.request = request};
    pp_status status = load_samples(&all, error);
    if (status == PP_OK) status = fit_everything(&all, costs, error);
    if (status == PP_OK) find_home(request, &all.session, costs);
    if (status == PP_OK) status = fit_rates(&all, costs, error);
    pp_free(all.x);
    pp_free(all.y);
    pp_free(all.samples);
    pp_store_close(all.store);
    return status;
}

static pp_status open_inside(const pp_costs_request *request, pp_costs *costs, pp_error *error) {
    costs->layers = PP_NEW(&costs->arena, costed_layer, request->model->layer_count);
    costs->signatures = PP_NEW(&costs->arena, measured, request->model->layer_count);
    costs->kinds = PP_NEW(&costs->arena, costed_kind, request->cluster->device_kind_count);
    if (costs->arena.failed) return pp_fail_memory(error);
    int real = list_layers(request->model, costs);
    list_kinds(request->cluster, costs);
    if (request->db) PP_TRY(open_measured(request, costs, error));
    PP_TRY(rate_kinds(request, costs, real, error));
    apply_rates(costs);
    PP_TRY(judge_model(costs, error));
    tell_model(costs);
    note_missing(costs);
    if (!request->db && real > 0) {
        snprintf(costs->note, sizeof costs->note, "modelled from FLOPs and bytes of device '%s'",
                 request->cluster->devices[costs->first_kind].name);
        note_kinds(request->cluster, costs, ", ");
        return PP_OK;
    }
    if (!request->db) {
        settle_alike(costs);
        snprintf(costs->note, sizeof costs->note, "times given in the model (opaque layers)");
    }
    note_kinds(request->cluster, costs, "; scaled by the model to ");
    return PP_OK;
}

pp_status pp_costs_open(const pp_costs_request *request, pp_costs **out, pp_error *error) {
    *out = NULL;
    pp_costs *costs = pp_allocate_zeroed(1, sizeof *costs);
    if (!costs) return pp_fail_memory(error);
    pp_arena_init(&costs->arena);
    costs->hash = PP_HASH_START;
    costs->intra = request->cluster->intra;
    pp_status status = open_inside(request, costs, error);
    if (status == PP_OK)
        *out = costs;
    else
        pp_costs_close(costs);
    return status;
}

void pp_costs_close(pp_costs *costs) {
    if (!costs) return;
    pp_arena_deinit(&costs->arena);
    pp_free(costs);
}

/* ---- answers ---- */

static pp_cost from_fit(const pp_fit *fit, double x) {
    return (pp_cost){pp_fit_at(fit, x), fit->relative_error, PP_COST_MEASURED};
}

/* What is asked about: a layer, and one device's part of it. */
typedef struct subject {
    const costed_layer *layer;
    pp_layer part;
    pp_cost_query query;
} subject;

static double modelled(const pp_analytic *analytic, const pp_layer *layer, pp_cost_query query) {
    return pp_analytic_layer(analytic, layer, query.phase, query.samples);
}

/* How much less the part does than the whole, where no rates are known: of FLOPs, or of bytes. */
static double share_of_work(const subject *s, pp_dtype dtype) {
    pp_cost_query query = s->query;
    pp_phase_work whole = pp_phase_work_get(&s->layer->layer, query.phase, query.samples, dtype);
    pp_phase_work part = pp_phase_work_get(&s->part, query.phase, query.samples, dtype);
    if (whole.flops > 0) return part.flops / whole.flops;
    return whole.bytes > 0 ? part.bytes / whole.bytes : 1;
}

/* How much longer a phase of `there` takes on the kind asked for than of `here` at home, by the
 * model. */
static double stretch(const pp_costs *costs, const subject *s, const pp_layer *here) {
    const pp_analytic *there = &costs->kinds[s->query.kind].analytic;
    const pp_analytic *home = &costs->kinds[costs->home].analytic;
    bool rated = there->flops_per_s > 0 && home->flops_per_s > 0;
    if (!rated) return here == &s->part ? 1 : share_of_work(s, there->dtype);
    if (s->layer->layer.op == PP_OP_OPAQUE) return home->flops_per_s / there->flops_per_s;
    double at_home = modelled(home, here, s->query);
    return at_home > 0 ? modelled(there, &s->part, s->query) / at_home : 1;
}

/* The fit of this phase of the part; NULL: it was not measured. */
static const pp_fit *part_fit(const costed_layer *layer, pp_cost_query query) {
    const measured *found = layer->measured;
    while (found && found->tp < query.tp) found = found->next;
    return found && found->tp == query.tp ? found->fit[query.phase] : NULL;
}

/* From what is known of the layer at home, whole or the part itself. */
static pp_cost known_cost(const pp_costs *costs, const subject *s) {
    const costed_layer *layer = s->layer;
    if (!layer->measured) {
        double seconds = modelled(NULL, &layer->layer, s->query);
        if (costs->kinds[s->query.kind].home) return (pp_cost){seconds, 0, PP_COST_OPAQUE};
        return (pp_cost){seconds * stretch(costs, s, &s->part), 1, PP_COST_MODELLED};
    }
    const pp_fit *fit = part_fit(layer, s->query);
    bool itself = fit || s->query.tp == 1;
    pp_cost cost =
        from_fit(fit ? fit : layer->measured->fit[s->query.phase], (double)s->query.samples);
    if (itself && costs->kinds[s->query.kind].home) return cost;
    double factor = stretch(costs, s, itself ? &s->part : &layer->layer);
    return (pp_cost){cost.seconds * factor, 1, PP_COST_MODELLED};
}

pp_cost pp_costs_ask(const pp_costs *costs, pp_cost_query query) {
    assert(query.layer >= 0 && query.layer < costs->layer_count && query.phase < LAYER_PHASES);
    assert(query.kind >= 0 && query.kind < costs->kind_count);
    if (query.tp < 1) query.tp = 1;
    const costed_layer *layer = &costs->layers[query.layer];
    subject s = {.layer = layer, .query = query};
    bool empty = query.samples <= 0 && query.phase != PP_PHASE_OPTIMIZER;
    if (empty || !layer->works[query.phase]) return (pp_cost){0, 0, layer->source};
    pp_status divided = pp_layer_shard(&layer->layer, query.tp, &s.part, NULL);
    assert(divided == PP_OK);
    (void)divided;
    if (layer->source != PP_COST_MODELLED) return known_cost(costs, &s);
    return (pp_cost){modelled(&costs->kinds[query.kind].reached, &s.part, query),
                     costs->efficiency.point_count > 0 ? costs->efficiency.median_error : 1,
                     PP_COST_MODELLED};
}

/* By the roofline where rates are known, else by FLOPs. */
static double attention_share(const pp_analytic *rates, const pp_layer_work *work) {
    if (!(work->forward_flops > 0)) return 0;
    if (!(rates->flops_per_s > 0)) return work->attention_flops / work->forward_flops;
    double core = fmax(work->attention_flops / rates->flops_per_s,
                       work->attention_bytes / rates->bytes_per_s);
    double all =
        fmax(work->forward_flops / rates->flops_per_s, work->forward_bytes / rates->bytes_per_s);
    return fmin(core / all, 1);
}

pp_cost pp_costs_attention(const pp_costs *costs, pp_cost_query query) {
    query.phase = PP_PHASE_FORWARD;
    pp_cost cost = pp_costs_ask(costs, query);
    if (cost.seconds == 0 || costs->layers[query.layer].layer.op == PP_OP_OPAQUE)
        return (pp_cost){0, 0, cost.source};
    const pp_analytic *rates = &costs->kinds[query.kind].reached;
    pp_layer part;
    pp_layer_shard(&costs->layers[query.layer].layer, query.tp < 1 ? 1 : query.tp, &part, NULL);
    pp_layer_work work = pp_layer_work_get(&part, query.samples, rates->dtype);
    return (pp_cost){cost.seconds * attention_share(rates, &work), 1, PP_COST_MODELLED};
}

/* What slices take, in some unit: seconds where rates are known, else FLOPs. */
static double slice_measure(const pp_analytic *rates, const pp_layer *part, pp_cost_query query,
                            int slices, int slice) {
    if (rates->flops_per_s > 0)
        return pp_analytic_slice(rates, part, query.phase, query.samples, slices, slice);
    pp_layer_work work = pp_layer_slice_work(part, query.samples, rates->dtype, slices, slice);
    return query.phase == PP_PHASE_FORWARD ? work.forward_flops
           : query.phase == PP_PHASE_INPUT ? work.input_flops
                                           : work.weight_flops;
}

pp_cost pp_costs_slices(const pp_costs *costs, pp_cost_query query, int slices, double *tilt_s) {
    pp_cost cost = pp_costs_ask(costs, query);
    const pp_analytic *rates = &costs->kinds[query.kind].reached;
    pp_layer part;
    *tilt_s = 0;
    if (slices == 1 || cost.seconds == 0) return cost;
    pp_layer_shard(&costs->layers[query.layer].layer, query.tp < 1 ? 1 : query.tp, &part, NULL);
    double whole = slice_measure(rates, &part, query, 1, 0), all = 0, first = 0, last = 0;
    for (int i = 0; i < slices; i++) {
        last = slice_measure(rates, &part, query, slices, i);
        all += last;
        if (i == 0) first = last;
    }
    double factor = whole > 0 ? cost.seconds / whole : 0;
    *tilt_s = factor * (last - first);
    return (pp_cost){factor > 0 ? factor * all : cost.seconds, 1, PP_COST_MODELLED};
}

pp_cost pp_costs_layer(const pp_costs *costs, int index, pp_phase phase, int64_t samples) {
    return pp_costs_ask(costs, (pp_cost_query){costs->first_kind, index, phase, samples, 1});
}

int pp_costs_alike(const pp_costs *costs, int kind) {
    const costed_kind *this = &costs->kinds[kind];
    for (int i = 0; i < kind; i++) {
        const costed_kind *other = &costs->kinds[i];
        bool same = other->analytic.flops_per_s == this->analytic.flops_per_s &&
                    other->analytic.bytes_per_s == this->analytic.bytes_per_s;
        if (other->present && other->home == this->home && same) return i;
    }
    return kind;
}

static bool is_intra(const pp_costs *costs, pp_link link) {
    return !link.shared_per_node && link.latency_s == costs->intra.latency_s &&
           link.bandwidth_bytes_per_s == costs->intra.bandwidth_bytes_per_s;
}

pp_cost pp_costs_transfer(const pp_costs *costs, pp_link link, int64_t bytes) {
    if (costs->link && is_intra(costs, link)) return from_fit(costs->link, (double)bytes);
    double seconds = link.latency_s + (double)bytes / link.bandwidth_bytes_per_s;
    return (pp_cost){seconds, 1, PP_COST_MODELLED};
}

bool pp_costs_contended(const pp_costs *costs) {
    return costs->contended;
}

double pp_costs_overhead(const pp_costs *costs) {
    return costs->overhead_s;
}

pp_cost_source pp_costs_source_of(const pp_costs *costs, int kind) {
    pp_cost_source weakest = (pp_cost_source)0;
    for (int i = 0; i < costs->layer_count; i++)
        if (costs->layers[i].source > weakest) weakest = costs->layers[i].source;
    bool scaled = weakest == PP_COST_MEASURED && !costs->kinds[kind].home;
    return scaled ? PP_COST_MODELLED : weakest;
}

pp_cost_source pp_costs_source(const pp_costs *costs) {
    pp_cost_source weakest = (pp_cost_source)0;
    for (int i = 0; i < costs->kind_count; i++) {
        if (!costs->kinds[i].present) continue;
        pp_cost_source source = pp_costs_source_of(costs, i);
        if (source > weakest) weakest = source;
    }
    return weakest;
}

const pp_costs_model *pp_costs_model_of(const pp_costs *costs) {
    return &costs->told;
}

const char *pp_costs_note(const pp_costs *costs) {
    return costs->note;
}

uint64_t pp_costs_hash(const pp_costs *costs) {
    return costs->hash;
}
