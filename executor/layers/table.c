/* Which ops run on the CPU: one row per op, made from the list in layers_internal.h. */
#include "executor/layers/layers_internal.h"

static const struct {
    const pp_layer_ops *fp32, *fp64;
} layer_table[PP_OP_COUNT] = {
#define X(op, name) [op] = {&name##_f32, &name##_f64},
    PP_LAYERS(X)
#undef X
};

const pp_layer_ops *pp_cpu_layer(pp_op op, pp_dtype dtype) {
    if (dtype == PP_FP32) return layer_table[op].fp32;
    if (dtype == PP_FP64) return layer_table[op].fp64;
    return NULL;
}
