/* Initial parameters of every op, told by the ends of their names: weights normal(0, 0.02), biases
 * and shifts 0, scales 1.
 *
 * The key comes from (seed, layer or tie name), the counter from the element; a tied matrix counts
 * from 0 whatever its place in its layer, so that all who share it draw the same numbers. */
#define PP_THIS_FILE "executor/layers/initialise.c"
#include "executor/layers/real.h"

#ifdef real

static bool NAME(ends_in)(const char *name, const char *end) {
    size_t length = strlen(name), tail = strlen(end);
    return length >= tail && strcmp(name + length - tail, end) == 0;
}

void initialise_parameters(const pp_layer *layer, pp_random_key key, void *const *tensors) {
    pp_tensor list[PP_LAYER_TENSORS];
    int count = pp_layer_tensors(layer, 1, REAL_DTYPE, list);
    for (int t = 0; t < count; t++) {
        if (list[t].role != PP_TENSOR_PARAMETER) continue;
        real *values = tensors[t];
        int64_t elements = list[t].rows * list[t].columns;
        uint64_t start = list[t].tied ? 0 : (uint64_t)(t + 1) << 40;
        real constant = NAME(ends_in)(list[t].name, "scale") ? 1 : 0;
        if (NAME(ends_in)(list[t].name, "weight"))
            NAME(pp_random_normals)(key, start, elements, 0.02, values);
        else
            for (int64_t i = 0; i < elements; i++) values[i] = constant;
    }
}

#endif
