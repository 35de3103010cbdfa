/* The layers of the cuda plugin. */
#ifndef PPSIM_EXECUTOR_CUDA_LAYERS_H
#define PPSIM_EXECUTOR_CUDA_LAYERS_H

#include "executor/layer.h"

/* In fp32 or bf16; NULL for ops that cannot run (opaque) and other types. */
const pp_layer_ops *pp_cuda_layer(pp_op op, pp_dtype dtype);

#endif
