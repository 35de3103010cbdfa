/* Which ops run on the device: all whose files of executor/layers are compositions of kernels. */
#include "executor/layers/layers_internal.h"

#include "executor/cuda/cuda_layers.h"

static const struct {
    const pp_layer_ops *fp32, *bf16;
} layer_table[PP_OP_COUNT] = {
#define X(op, name) [op] = {&name##_cuda_f32, &name##_cuda_bf16},
    PP_LAYERS(X)
#undef X
};

const pp_layer_ops *pp_cuda_layer(pp_op op, pp_dtype dtype) {
    if (dtype == PP_FP32) return layer_table[op].fp32;
    if (dtype == PP_BF16) return layer_table[op].bf16;
    return NULL;
}
