/* One stage: runs its layers, forward in plan order and backward against it.
 *
 * Everything is decided once, in stage_tables.c: which tensor lives where, which call writes a
 * gradient first and which add to it. Here are the calls. A stage keeps nothing between calls;
 * the memory of a microbatch is handed in (core.h, part 9), so any order of actions that the
 * schedule allows gives the same bits. */
#include "executor/stage_internal.h"

static void *at(const pp_stage_memory *memory, const pp_place *place) {
    if (place->region == PP_REGION_COUNT) return NULL;
    unsigned char *base = memory->base[place->region];
    return base ? base + place->offset_bytes : NULL;
}

/* Bytes of a tensor in a smaller last microbatch: its leading rows. */
static size_t used_bytes(const pp_stage_run *run, const pp_place *place, int64_t samples) {
    return (size_t)(place->size_bytes / run->full_samples * samples);
}

/* FIRST is F; AGAIN goes forward inside the backward pass. */
typedef enum direction { FIRST, AGAIN, BACKWARD } direction;

/* Pointers of one call, in the stage's scratch space. */
static pp_layer_call make_call(pp_stage_run *run, const pp_stage_layer *layer,
                               const pp_stage_memory *memory, const pp_stage_batch *batch,
                               direction way) {
    bool backward = way == BACKWARD;
    const pp_place *places = way == FIRST ? layer->first_places : layer->places;
    const pp_place *input_places = way == FIRST ? layer->first_inputs : layer->inputs;
    void **tensors = run->scratch, **inputs = tensors + layer->tensor_count;
    void **input_gradients = inputs + layer->input_count;
    for (int t = 0; t < layer->tensor_count; t++) {
        const pp_place *place = &places[t];
        bool gone = backward && layer->tensors[t].role == PP_TENSOR_OUTPUT &&
                    place->region == PP_REGION_WORKSPACE;
        tensors[t] = layer->parameters[t] ? layer->parameters[t] : gone ? NULL : at(memory, place);
    }
    for (int i = 0; i < layer->input_count; i++) {
        bool gone = backward && input_places[i].region == PP_REGION_WORKSPACE;
        inputs[i] = gone ? NULL : at(memory, &input_places[i]);
        input_gradients[i] = backward ? at(memory, &layer->input_gradients[i]) : NULL;
    }
    return (pp_layer_call){
        .layer = layer->layer,
        .samples = batch->samples,
        .tensors = tensors,
        .gradients = layer->gradients,
        .inputs = (const void *const *)inputs,
        .input_count = layer->input_count,
        .output_gradient = backward ? at(memory, &layer->output_gradient) : NULL,
        .input_gradients = input_gradients,
        .accumulate = layer->accumulate,
        .tokens = batch->tokens,
        .features = batch->features,
        .targets = batch->targets,
        .gradient_scale = batch->gradient_scale,
        .loss = batch->loss,
        .key = pp_random_key_make(batch->seed, layer->layer->name, batch->step),
        .first_sample = batch->first_sample,
        .training = batch->training,
    };
}

void pp_stage_forward(pp_stage_run *run, const pp_stage_memory *memory,
                      const pp_stage_batch *batch) {
    for (int i = 0; i < run->layer_count; i++) {
        pp_layer_call call = make_call(run, &run->layers[i], memory, batch, FIRST);
        run->layers[i].ops->forward(&call);
    }
}

/* Before I: gradients that arrived and are added to by readers of this stage, or needed by W. */
static void copy_arrivals(const pp_stage_run *run, const pp_stage_memory *memory, int64_t samples) {
    for (int i = 0; i < run->arrival_count; i++) {
        const pp_stage_copy *copy = &run->arrivals[i];
        run->backend->copy(run->backend_state, at(memory, &copy->to), at(memory, &copy->from),
                           used_bytes(run, &copy->from, samples));
    }
}

/* After I: an input that no gradient reached. */
static void clear_unreached(const pp_stage_run *run, const pp_stage_memory *memory,
                            int64_t samples) {
    for (int i = 0; i < run->layout->input_count; i++) {
        const pp_place *place = &run->input_gradients[i];
        if (!run->input_reached[i])
            run->backend->fill(run->backend_state, at(memory, place), 0,
                               used_bytes(run, place, samples));
    }
}

/* Makes again what the backward of layer i reads and F did not keep. */
static void remake(pp_stage_run *run, const pp_stage_memory *memory, const pp_stage_batch *batch,
                   int i) {
    for (int j = i + 1 - run->layers[i].remade; j <= i; j++) {
        pp_layer_call call = make_call(run, &run->layers[j], memory, batch, AGAIN);
        run->layers[j].ops->forward(&call);
    }
    if (!run->layers[i].core_remade) return;
    pp_layer_call call = make_call(run, &run->layers[i], memory, batch, AGAIN);
    run->layers[i].ops->attend(&call);
}

void pp_stage_backward(pp_stage_run *run, const pp_stage_memory *memory,
                       const pp_stage_batch *batch, bool input, bool weight) {
    if (input) copy_arrivals(run, memory, batch->samples);
    for (int i = run->layer_count - 1; i >= 0; i--) {
        const pp_stage_layer *layer = &run->layers[i];
        if (input) remake(run, memory, batch, i);
        if (!layer->reached) continue;
        pp_layer_call call = make_call(run, layer, memory, batch, BACKWARD);
        if (input && layer->ops->input) layer->ops->input(&call);
        if (weight && layer->ops->weight) layer->ops->weight(&call);
    }
    if (input) clear_unreached(run, memory, batch->samples);
}

/* A stage without weights has no block to clear. */
static void clear(const pp_stage_run *run, void *block, int64_t size_bytes) {
    if (block) run->backend->fill(run->backend_state, block, 0, (size_t)size_bytes);
}

/* ---- optimizer states ---------------------------------------------------------------------- */

/* Bytes of one state; under bf16 they are fp32. */
static int64_t state_bytes(const pp_stage_run *run) {
    int64_t width = run->dtype == PP_BF16 ? pp_dtype_bytes(PP_FP32) : pp_dtype_bytes(run->dtype);
    return (run->state_end - run->state_first) * width;
}

/* Tensors whose weights and gradients follow each other, with what is between them: a step of many
 * small ones costs a device a start for each. */
typedef struct stretch {
    unsigned char *parameters, *gradients;
    int64_t bytes; /* of the weights; 0: none */
} stretch;

/* Elements from `first` on, all with states here, which are at `states`. */
typedef struct owned_part {
    unsigned char *parameters, *gradients;
    int64_t count;
    void *states[PP_OPTIMIZER_STATES_MAX];
} owned_part;

/* What of a stretch of the stage's own block has states here; count 0: nothing. */
static owned_part part_with_states(const pp_stage_run *run, const stretch *s, int states) {
    int64_t width = pp_dtype_bytes(run->dtype), begin = (s->parameters - run->parameters) / width;
    int64_t end = begin + s->bytes / width;
    int64_t from = begin > run->state_first ? begin : run->state_first;
    int64_t to = end < run->state_end ? end : run->state_end;
    owned_part part = {.count = to > from ? to - from : 0};
    if (part.count == 0) return part;
    part.parameters = run->parameters + from * width;
    part.gradients = s->gradients ? s->gradients + (from - begin) * width : NULL;
    int64_t each = state_bytes(run), element = each / (run->state_end - run->state_first);
    for (int k = 0; k < states; k++)
        part.states[k] = run->states + k * each + (from - run->state_first) * element;
    return part;
}

/* Calls `use` for every stretch of tensors that the stage owns. */
static void each_stretch(const pp_stage_run *run, void *context,
                         void (*use)(const pp_stage_run *run, const stretch *s, void *context)) {
    stretch s = {.bytes = 0};
    for (int i = 0; i < run->layer_count; i++) {
        const pp_stage_layer *layer = &run->layers[i];
        for (int t = 0; t < layer->tensor_count; t++) {
            if (!layer->owned[t]) continue;
            unsigned char *parameters = layer->parameters[t], *gradients = layer->gradients[t];
            int64_t next = (s.bytes + 63) / 64 * 64; /* where the layout puts what follows */
            bool follows =
                s.bytes > 0 && parameters == s.parameters + next && gradients == s.gradients + next;
            if (!follows && s.bytes > 0) use(run, &s, context);
            if (!follows) s = (stretch){parameters, gradients, 0};
            s.bytes = (follows ? next : 0) + pp_tensor_bytes(&layer->tensors[t]);
        }
    }
    if (s.bytes > 0) use(run, &s, context);
}

/* Under bf16: the last state of each weight from its fresh value. */
static void make_masters(const pp_stage_run *run, const stretch *s, void *context) {
    int states = pp_optimizer_states(*(const pp_optimizer *)context, run->dtype);
    owned_part part = part_with_states(run, s, states);
    if (part.count > 0)
        run->backend->make_master(run->backend_state, part.count, part.parameters,
                                  part.states[states - 1]);
}

void pp_stage_run_initialise(pp_stage_run *run, pp_optimizer optimizer, uint64_t seed) {
    clear(run, run->parameters,
          run->layout->bytes.parameters); /* what is between them is stepped too */
    clear(run, run->gradients, run->layout->bytes.gradients);
    clear(run, run->states, pp_optimizer_states(optimizer, run->dtype) * state_bytes(run));
    for (int i = 0; i < run->layer_count; i++) {
        const pp_stage_layer *layer = &run->layers[i];
        const char *name = layer->layer->tie ? layer->layer->tie : layer->layer->name;
        if (layer->needs.has_weights)
            layer->ops->initialise(layer->layer, pp_random_key_make(seed, name, 0),
                                   layer->parameters);
    }
    if (run->dtype == PP_BF16) each_stretch(run, &optimizer, make_masters);
}

typedef struct update {
    const pp_optimizer_settings *settings;
    int64_t step;
} update;

static void step_stretch(const pp_stage_run *run, const stretch *s, void *context) {
    const update *u = context;
    owned_part part = part_with_states(run, s, pp_optimizer_states(u->settings->kind, run->dtype));
    if (part.count > 0)
        run->backend->step(run->backend_state, u->settings, run->dtype, u->step, part.count,
                           part.parameters, part.gradients, part.states);
}

void pp_stage_step(pp_stage_run *run, const pp_optimizer_settings *settings, int64_t step) {
    update u = {settings, step};
    each_stretch(run, &u, step_stretch);
    clear(run, run->gradients, run->layout->bytes.gradients);
}

/* Both sides pack a border's tensors in the same order, so the receiver's offsets follow. */
int pp_stage_outgoing(const pp_stage_run *run, const pp_stage_memory *memory, bool backward,
                      int64_t samples, pp_message_part *parts) {
    const pp_place *places = backward ? run->input_gradients : run->outputs;
    int count = backward ? run->layout->input_count : run->layout->output_count;
    size_t offset = 0;
    for (int i = 0; i < count; i++) {
        parts[i] = (pp_message_part){.bytes = at(memory, &places[i]),
                                     .size_bytes = used_bytes(run, &places[i], samples),
                                     .slot_offset = offset};
        offset += ((size_t)places[i].size_bytes + 63) / 64 * 64;
    }
    return count;
}
