/* A microbatch cut along its sequences into equally long slices (Sun et al. 2024, "Seq1F1B"): which
 * models can be, and what one slice costs.
 *
 * Slice k of Q has 1/Q of the rows, so it does 1/Q of all products but those of attention. A causal
 * row attends to itself and what is before it: slice k works with the keys of the k slices before
 * it and on average half of its own, so of the products with scores it does (2k+1)/Q². Parameters
 * are read, and their gradients written, once for every slice; of all other traffic a slice has its
 * 1/Q. */
#include "core/layer_internal.h"

static double parameter_bytes(const pp_layer *layer, pp_dtype dtype) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    double bytes = 0;
    if (pp_layer_needs_get(layer->op).takes_tokens) return 0; /* the rows of its tokens alone */
    int count = pp_layer_tensors(layer, 1, dtype, tensors);
    for (int i = 0; i < count; i++)
        if (tensors[i].role == PP_TENSOR_PARAMETER) bytes += (double)pp_tensor_bytes(&tensors[i]);
    return bytes;
}

/* Of the FLOPs of a phase, `scores` of which are products with scores. */
static double flops_of(double all, double scores, double slices, double slice) {
    return (all - scores) / slices + scores * (2 * slice + 1) / (slices * slices);
}

static double bytes_of(double all, double parameters, double slices) {
    return all > 0 ? (all - parameters) / slices + parameters : 0;
}

pp_layer_work pp_layer_slice_work(const pp_layer *layer, int64_t samples, pp_dtype dtype,
                                  int slices, int slice) {
    pp_layer_work work = pp_layer_work_get(layer, samples, dtype);
    double parameters = parameter_bytes(layer, dtype);
    /* attention_flops is one of the two products of F, of which I has four */
    work.forward_flops = flops_of(work.forward_flops, 2 * work.attention_flops, slices, slice);
    work.input_flops = flops_of(work.input_flops, 4 * work.attention_flops, slices, slice);
    work.weight_flops /= slices;
    work.forward_bytes = bytes_of(work.forward_bytes, parameters, slices);
    work.input_bytes = bytes_of(work.input_bytes, parameters, slices);
    work.weight_bytes = bytes_of(work.weight_bytes, 2 * parameters, slices);
    work.forward_sum.bytes /= slices;
    work.input_sum.bytes /= slices;
    work.attention_flops = flops_of(work.attention_flops, work.attention_flops, slices, slice);
    work.attention_bytes /= slices;
    return work;
}

pp_status pp_model_can_slice(const pp_model *model, int slices, pp_error *error) {
    for (int i = 0; i < model->layer_count && slices > 1; i++) {
        const pp_layer *layer = &model->layers[i];
        if (layer->op == PP_OP_OPAQUE || pp_layer_needs_get(layer->op).sees_both_ways)
            return pp_fail(error, PP_E_INPUT, model->name,
                           "layer %d (%s) cannot be cut along the sequence: %s", i, layer->name,
                           layer->op == PP_OP_OPAQUE
                               ? "of an opaque layer nobody knows what a part of it takes"
                               : "each position attends to those behind it too");
        if (pp_layer_sequence(layer) < slices)
            return pp_fail(error, PP_E_INPUT, model->name,
                           "layer %d (%s) has sequences of %lld, too short for %d slices", i,
                           layer->name, (long long)pp_layer_sequence(layer), slices);
    }
    return PP_OK;
}
