/* Seconds from FLOPs and bytes, for devices on which nothing was measured.
 *
 * The roofline (Williams, Waterman and Patterson 2009): a phase lasts as long as its arithmetic or
 * its memory traffic, whichever is longer, plus a constant for getting started:
 *
 *     t = max(flops / (peak · e_flops), bytes / (bandwidth · e_bytes)) + start
 *
 * What share of its peak a device reaches is an assumption, the same for all of them: such times
 * rank plans, and are not meant to agree with a stopwatch. Everything made from them is marked as
 * modelled. */
#include "profiles/costs_internal.h"

#include <assert.h>
#include <math.h>

/* Large matrix products reach about half to two thirds of the data sheet's peak in training. */
#define FLOPS_EFFICIENCY 0.55
/* Streaming kernels reach most of the memory bandwidth. */
#define BANDWIDTH_EFFICIENCY 0.80
/* Launching the kernels of one phase of one layer. */
#define START_S 5e-6

/* Where a dtype's rate stands in a cluster document, and what share of that field it gets. */
typedef struct rate_row {
    const char *field; /* NULL: no type to train in */
    size_t offset;
    double share;
} rate_row;

static const rate_row rates[PP_DTYPE_COUNT] = {
    [PP_FP32] = {"flops/fp32", offsetof(pp_device, fp32_flops), 1},
    [PP_FP64] = {"flops/fp32", offsetof(pp_device, fp32_flops), 0.5},
    [PP_BF16] = {"flops/bf16", offsetof(pp_device, bf16_flops), 1},
};

static pp_status missing_rate(const pp_cluster *cluster, int kind, const char *field,
                              pp_dtype dtype, pp_error *error) {
    return pp_fail(error, PP_E_INPUT, NULL,
                   "device '%s' of cluster '%s' gives no '%s' (/devices/%d/%s), without which "
                   "costs in %s cannot be modelled: add it to the cluster, choose another --dtype, "
                   "or give a measured profile with --db",
                   cluster->devices[kind].name, cluster->name, field, kind, field,
                   pp_dtype_name(dtype));
}

pp_status pp_analytic_make(const pp_cluster *cluster, int kind, pp_dtype dtype,
                           pp_analytic *analytic, pp_error *error) {
    const rate_row *row = &rates[dtype];
    if (!row->field)
        return pp_fail(error, PP_E_INPUT, "--dtype", "%s is not a type to train in",
                       pp_dtype_name(dtype));
    const pp_device *device = &cluster->devices[kind];
    double peak = *(const double *)(const void *)((const char *)device + row->offset);
    double bandwidth = device->memory_bandwidth_bytes_per_s;
    if (!(peak > 0)) return missing_rate(cluster, kind, row->field, dtype, error);
    if (!(bandwidth > 0))
        return missing_rate(cluster, kind, "memory_bandwidth_bytes_per_s", dtype, error);
    *analytic = (pp_analytic){.flops_per_s = peak * row->share * FLOPS_EFFICIENCY,
                              .bytes_per_s = bandwidth * BANDWIDTH_EFFICIENCY,
                              .start_s = START_S,
                              .dtype = dtype};
    return PP_OK;
}

static double opaque_seconds(const pp_layer *layer, pp_phase phase) {
    switch (phase) {
    case PP_PHASE_FORWARD:
        return layer->forward_s;
    case PP_PHASE_INPUT:
        return layer->input_s;
    case PP_PHASE_WEIGHT:
        return layer->weight_s;
    default:
        return 0;
    }
}

static pp_phase_work of_phase(const pp_layer_work *work, pp_phase phase) {
    switch (phase) {
    case PP_PHASE_FORWARD:
        return (pp_phase_work){work->forward_flops, work->forward_bytes};
    case PP_PHASE_INPUT:
        return (pp_phase_work){work->input_flops, work->input_bytes};
    case PP_PHASE_WEIGHT:
        return (pp_phase_work){work->weight_flops, work->weight_bytes};
    case PP_PHASE_OPTIMIZER:
        return (pp_phase_work){0, work->optimizer_bytes};
    default:
        assert(phase <= PP_PHASE_OPTIMIZER);
        return (pp_phase_work){0, 0};
    }
}

pp_phase_work pp_phase_work_get(const pp_layer *layer, pp_phase phase, int64_t samples,
                                pp_dtype dtype) {
    pp_layer_work work = pp_layer_work_get(layer, samples, dtype);
    return of_phase(&work, phase);
}

static double roofline_s(const pp_analytic *analytic, pp_phase_work work) {
    if (work.flops <= 0 && work.bytes <= 0) return 0;
    return fmax(work.flops / analytic->flops_per_s, work.bytes / analytic->bytes_per_s) +
           analytic->start_s;
}

double pp_analytic_layer(const pp_analytic *analytic, const pp_layer *layer, pp_phase phase,
                         int64_t samples) {
    if (layer->op == PP_OP_OPAQUE) return opaque_seconds(layer, phase) * (double)samples;
    return roofline_s(analytic, pp_phase_work_get(layer, phase, samples, analytic->dtype));
}

double pp_analytic_slice(const pp_analytic *analytic, const pp_layer *layer, pp_phase phase,
                         int64_t samples, int slices, int slice) {
    pp_layer_work work = pp_layer_slice_work(layer, samples, analytic->dtype, slices, slice);
    return roofline_s(analytic, of_phase(&work, phase));
}
