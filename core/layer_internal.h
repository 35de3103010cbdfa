/* What layer.c, layer_tensors.c and layer_work.c share. */
#ifndef PPSIM_CORE_LAYER_INTERNAL_H
#define PPSIM_CORE_LAYER_INTERNAL_H

#include "core/core.h"

/* Positions per sample; layers without a sequence count one. */
static inline int64_t pp_layer_sequence(const pp_layer *layer) {
    return layer->sequence > 0 ? layer->sequence : 1;
}

/* Features of the layer's output. */
static inline int64_t pp_layer_features_out(const pp_layer *layer) {
    return layer->output_dim > 0 ? layer->output_dim : layer->dim;
}

/* Devices that the layer is divided over. */
static inline int64_t pp_layer_shards(const pp_layer *layer) {
    return layer->shards > 1 ? layer->shards : 1;
}

/* One device's part of a count that is divided evenly or padded. */
static inline int64_t pp_layer_part(const pp_layer *layer, int64_t count) {
    int64_t shards = pp_layer_shards(layer);
    return (count + shards - 1) / shards;
}

#endif
