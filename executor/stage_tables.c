/* The tables of one stage: read off its layout (core.h, part 9) once, before the first step.
 *
 * What has to be worked out beyond looking rows up is the order in which gradients are added.
 * Backward goes through the layers against plan order; the first to reach a gradient row writes
 * it, later ones add. A row that also arrives from the stage behind starts as a copy of what
 * arrived. Both follow from the graph alone, so the same sums are made in the same order
 * wherever the model is cut. */
#include "executor/stage_internal.h"

#include <assert.h>
#include <string.h>

static const pp_place nowhere = {.region = PP_REGION_COUNT};

/* The first row of a tensor, in any region but `not_in`. */
static pp_place find_row(const pp_stage_layout *layout, int layer, int tensor, pp_region not_in) {
    for (int i = 0; i < layout->buffer_count; i++) {
        const pp_buffer *row = &layout->buffers[i];
        if (row->layer == layer && row->tensor == tensor && row->region != not_in)
            return (pp_place){row->region, row->offset_bytes, row->size_bytes};
    }
    return nowhere;
}

static int output_tensor(const pp_model *model, int layer) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int count = pp_layer_tensors(&model->layers[layer], 1, PP_FP32, tensors);
    for (int t = 0; t < count; t++)
        if (tensors[t].role == PP_TENSOR_OUTPUT) return t;
    return -1;
}

static pp_place value_place(const pp_model *model, const pp_stage_layout *layout, int layer,
                            pp_region not_in) {
    return find_row(layout, layer, output_tensor(model, layer), not_in);
}

/* Where the gradient of a layer's output arrives, and where it is worked on. */
static pp_place arriving_place(const pp_stage_layout *layout, int layer) {
    for (int i = 0; i < layout->buffer_count; i++) {
        const pp_buffer *row = &layout->buffers[i];
        if (row->layer == layer && row->region == PP_REGION_OUTPUT_GRADIENT)
            return (pp_place){row->region, row->offset_bytes, row->size_bytes};
    }
    return nowhere;
}

static pp_place working_place(const pp_stage_layout *layout, int layer) {
    return find_row(layout, layer, PP_BUFFER_GRADIENT, PP_REGION_OUTPUT_GRADIENT);
}

const pp_edge *pp_stage_next_input(const pp_model *model, int layer, const pp_edge *previous) {
    const pp_edge *edge = previous ? previous + 1 : model->edges;
    while (edge < model->edges + model->edge_count && edge->to != layer) edge++;
    return edge < model->edges + model->edge_count ? edge : NULL;
}

static int count_inputs(const pp_model *model, int layer) {
    int count = 0;
    for (const pp_edge *e = NULL; (e = pp_stage_next_input(model, layer, e));) count++;
    return count;
}

/* ---- one layer ----------------------------------------------------------------------------- */

static void allocate_layer(pp_stage_layer *layer, const pp_tensor *tensors, pp_arena *arena) {
    int count = layer->tensor_count;
    layer->tensors = PP_NEW(arena, pp_tensor, count);
    layer->places = PP_NEW(arena, pp_place, count);
    layer->first_places = PP_NEW(arena, pp_place, count);
    layer->parameters = PP_NEW(arena, void *, count);
    layer->gradients = PP_NEW(arena, void *, count);
    layer->owned = PP_NEW(arena, bool, count);
    layer->inputs = PP_NEW(arena, pp_place, layer->input_count);
    layer->first_inputs = PP_NEW(arena, pp_place, layer->input_count);
    layer->input_gradients = PP_NEW(arena, pp_place, layer->input_count);
    layer->accumulate = PP_NEW(arena, bool, layer->input_count);
    if (!arena->failed) memcpy(layer->tensors, tensors, (size_t)count * sizeof *tensors);
}

static pp_status init_layer(pp_stage_run *run, pp_stage_layer *layer, int index,
                            const pp_model *model, const pp_backend *backend, pp_arena *arena,
                            pp_error *error) {
    const pp_stage_layout *layout = run->layout;
    pp_tensor tensors[PP_LAYER_TENSORS];
    *layer = (pp_stage_layer){.index = index, .layer = &model->layers[index]};
    layer->ops = backend->layer(layer->layer->op, run->dtype);
    if (!layer->ops)
        return pp_fail(error, PP_E_UNSUPPORTED, NULL,
                       "layer \"%s\" (%s) cannot run in %s on the %s backend", layer->layer->name,
                       pp_op_name(layer->layer->op), pp_dtype_name(run->dtype), backend->name);
    layer->needs = pp_layer_needs_get(layer->layer->op);
    layer->tensor_count = pp_layer_tensors(layer->layer, run->full_samples, run->dtype, tensors);
    layer->input_count = count_inputs(model, index);
    allocate_layer(layer, tensors, arena);
    if (arena->failed) return pp_fail_memory(error);

    for (int t = 0; t < layer->tensor_count; t++) {
        layer->places[t] = find_row(layout, index, t, PP_REGION_COUNT);
        layer->first_places[t] = find_row(layout, index, t, PP_REGION_STASH);
    }
    int i = 0;
    for (const pp_edge *e = NULL; (e = pp_stage_next_input(model, index, e)); i++) {
        layer->inputs[i] = value_place(model, layout, e->from, PP_REGION_COUNT);
        layer->first_inputs[i] = value_place(model, layout, e->from, PP_REGION_STASH);
        layer->input_gradients[i] = working_place(layout, e->from);
    }
    layer->output_gradient = working_place(layout, index);
    if (layer->output_gradient.region == PP_REGION_COUNT)
        layer->output_gradient = arriving_place(layout, index);
    return PP_OK;
}

/* ---- what is recomputed inside the backward ------------------------------------------------- */

static bool has_core(const pp_stage_layer *layer) {
    for (int t = 0; t < layer->tensor_count; t++)
        if (layer->tensors[t].attention_core) return true;
    return false;
}

static void find_remade(pp_stage_run *run) {
    int group = pp_recompute_group(run->layout->recompute);
    for (int i = 0; i < run->layer_count; i++) {
        pp_stage_layer *layer = &run->layers[i];
        bool ends = group > 0 && ((i + 1) % group == 0 || i + 1 == run->layer_count);
        layer->remade = ends ? i % group + 1 : 0;
        layer->core_remade = run->layout->recompute == PP_RECOMPUTE_ATTENTION && has_core(layer);
    }
}

/* ---- the order of gradients ---------------------------------------------------------------- */

static bool is_among(const int *list, int count, int value) {
    for (int i = 0; i < count; i++)
        if (list[i] == value) return true;
    return false;
}

/* written: [model layers] the gradient of this layer's output has a value by now. */
static void order_gradients(pp_stage_run *run, const pp_model *model, bool *written) {
    const pp_stage_layout *layout = run->layout;
    for (int i = 0; i < model->layer_count; i++)
        written[i] = is_among(layout->outputs, layout->output_count, i);
    for (int i = run->layer_count - 1; i >= 0; i--) {
        pp_stage_layer *layer = &run->layers[i];
        layer->reached = layer->needs.makes_loss || written[layer->index];
        int j = 0;
        for (const pp_edge *e = NULL; (e = pp_stage_next_input(model, layer->index, e)); j++) {
            layer->accumulate[j] = written[e->from];
            if (layer->reached) written[e->from] = true;
        }
    }
    for (int i = 0; i < layout->input_count; i++)
        run->input_reached[i] = written[layout->inputs[i]];
}

static void find_arrivals(pp_stage_run *run) {
    const pp_stage_layout *layout = run->layout;
    for (int i = 0; i < layout->output_count; i++) {
        pp_stage_copy copy = {arriving_place(layout, layout->outputs[i]),
                              working_place(layout, layout->outputs[i])};
        if (copy.to.region != PP_REGION_COUNT) run->arrivals[run->arrival_count++] = copy;
    }
}

/* ---- the stage ----------------------------------------------------------------------------- */

static void find_borders(pp_stage_run *run, const pp_model *model) {
    const pp_stage_layout *layout = run->layout;
    for (int i = 0; i < layout->output_count; i++)
        run->outputs[i] = value_place(model, layout, layout->outputs[i], PP_REGION_STASH);
    for (int i = 0; i < layout->input_count; i++)
        run->input_gradients[i] = working_place(layout, layout->inputs[i]);
}

static void note_layer(pp_stage_run *run, const pp_stage_layer *layer) {
    size_t pointers = (size_t)(layer->tensor_count + 2 * layer->input_count);
    if (pointers > run->scratch_count) run->scratch_count = pointers;
    run->makes_loss |= layer->needs.makes_loss;
    run->reads_tokens |= layer->needs.takes_tokens;
    run->reads_features |= !layer->needs.takes_tokens && layer->input_count == 0;
}

pp_status pp_stage_run_init(pp_stage_run *run, int stage, const pp_model *model,
                            const pp_stage_layout *layout, const pp_backend *backend,
                            void *backend_state, pp_dtype dtype, int64_t full_samples,
                            pp_arena *arena, pp_error *error) {
    *run = (pp_stage_run){.stage = stage,
                          .layout = layout,
                          .backend = backend,
                          .backend_state = backend_state,
                          .dtype = dtype,
                          .full_samples = full_samples};
    run->layers = PP_NEW(arena, pp_stage_layer, layout->layer_count);
    run->outputs = PP_NEW(arena, pp_place, layout->output_count);
    run->input_gradients = PP_NEW(arena, pp_place, layout->input_count);
    run->input_reached = PP_NEW(arena, bool, layout->input_count);
    run->arrivals = PP_NEW(arena, pp_stage_copy, layout->output_count);
    bool *written = PP_NEW(arena, bool, model->layer_count);
    if (arena->failed) return pp_fail_memory(error);
    run->layer_count = layout->layer_count;
    for (int i = 0; i < run->layer_count; i++) {
        PP_TRY(init_layer(run, &run->layers[i], layout->layers[i], model, backend, arena, error));
        note_layer(run, &run->layers[i]);
    }
    run->scratch = PP_NEW(arena, void *, run->scratch_count);
    if (arena->failed) return pp_fail_memory(error);
    order_gradients(run, model, written);
    find_remade(run);
    find_arrivals(run);
    find_borders(run, model);
    return PP_OK;
}

/* ---- whole-run memory ---------------------------------------------------------------------- */

/* Where an earlier layer of the rank has a tied parameter, or NULL. */
static void *find_tied(const pp_stage_run *searched, int layers, const char *tie) {
    for (int i = 0; i < layers; i++) {
        const pp_stage_layer *layer = &searched->layers[i];
        if (!layer->layer->tie || strcmp(layer->layer->tie, tie) != 0) continue;
        for (int t = 0; t < layer->tensor_count; t++)
            if (layer->tensors[t].tied) return layer->parameters[t];
    }
    return NULL;
}

static void *find_tied_on_rank(const pp_stage_run *run, int layers, pp_stage_run *const *earlier,
                               int earlier_count, const char *tie) {
    for (int i = 0; i < earlier_count; i++) {
        void *shared = find_tied(earlier[i], earlier[i]->layer_count, tie);
        if (shared) return shared;
    }
    return find_tied(run, layers, tie);
}

void pp_stage_run_bind(pp_stage_run *run, void *parameters, void *gradients, void *states,
                       int64_t state_first, int64_t state_end, pp_stage_run *const *earlier,
                       int earlier_count) {
    run->parameters = parameters;
    run->gradients = gradients;
    run->states = states;
    run->state_first = state_first;
    run->state_end = state_end;
    int64_t gradient_offset = 0;
    for (int i = 0; i < run->layer_count; i++) {
        pp_stage_layer *layer = &run->layers[i];
        for (int t = 0; t < layer->tensor_count; t++) {
            if (layer->tensors[t].role != PP_TENSOR_PARAMETER) continue;
            int64_t offset = layer->places[t].offset_bytes;
            const char *tie = layer->tensors[t].tied ? layer->layer->tie : NULL;
            void *shared = tie ? find_tied_on_rank(run, i, earlier, earlier_count, tie) : NULL;
            layer->owned[t] = !shared;
            layer->parameters[t] = shared ? shared : run->parameters + offset;
            layer->gradients[t] = run->gradients + gradient_offset;
            gradient_offset += (layer->places[t].size_bytes + 63) / 64 * 64;
        }
    }
    assert(gradient_offset == run->layout->bytes.gradients);
}
