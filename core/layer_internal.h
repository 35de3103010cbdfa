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

#endif
