/* One stage on one rank: its layers in order, and where each finds its tensors. */
#ifndef PPSIM_EXECUTOR_STAGE_INTERNAL_H
#define PPSIM_EXECUTOR_STAGE_INTERNAL_H

#include "executor/backend.h"
#include "executor/transport.h"

/* A tensor's place; region PP_REGION_COUNT: it has none. */
typedef struct pp_place {
    pp_region region;
    int64_t offset_bytes, size_bytes;
} pp_place;

typedef struct pp_stage_layer {
    int index; /* in the model */
    const pp_layer *layer;
    const pp_layer_ops *ops;
    pp_layer_needs needs;
    pp_tensor *tensors;
    int tensor_count;
    pp_place *places;       /* [tensor_count] in the backward pass, and what it recomputes */
    pp_place *first_places; /* [tensor_count] in F: elsewhere if it is made again in STASH */
    void **parameters;      /* [tensor_count] weights in use; NULL for other roles */
    void **gradients;       /* [tensor_count] */
    bool *owned;            /* [tensor_count] this stage initialises and steps the parameter; false
                               for the second user of a tied one */
    int input_count;
    pp_place *inputs;          /* [input_count] as places … */
    pp_place *first_inputs;    /* [input_count] … and as first_places */
    pp_place *input_gradients; /* [input_count] */
    bool *accumulate;          /* [input_count] I adds to what an earlier call left */
    pp_place output_gradient;
    bool reached; /* a gradient arrives at the layer (or it makes the loss) */
    int remade;   /* layers to go forward through before the backward of this one: it is the last of
                     a group of that many; 0: it is not */
    bool core_remade; /* its attention core is made again before its backward */
} pp_stage_layer;

/* The gradient of a border tensor that arrives from behind and is worked on elsewhere. */
typedef struct pp_stage_copy {
    pp_place from, to;
} pp_stage_copy;

typedef struct pp_stage_run {
    int stage;
    const pp_stage_layout *layout;
    const pp_backend *backend;
    void *backend_state; /* of the rank */
    pp_dtype dtype;
    int64_t full_samples; /* what the layout was made for */
    pp_stage_layer *layers;
    int layer_count;
    pp_place *outputs;         /* [layout.output_count] what crosses the border behind */
    pp_place *input_gradients; /* [layout.input_count] what crosses the border before, back */
    bool *input_reached;       /* [layout.input_count] false: the gradient is 0 */
    pp_stage_copy *arrivals;
    int arrival_count;
    bool reads_tokens, reads_features, makes_loss;
    void **scratch; /* pointers of one call: NULL-free space for the widest layer */
    size_t scratch_count;
    unsigned char *parameters, *gradients, *states; /* blocks of the rank's heap */
    int64_t state_first, state_end; /* elements of the parameters, one behind the other, that have
                                       states here */
} pp_stage_run;

/* Where the regions of one (stage, microbatch) are during one action; NULL: not there. */
typedef struct pp_stage_memory {
    unsigned char *base[PP_REGION_COUNT];
} pp_stage_memory;

/* What a microbatch is. */
typedef struct pp_stage_batch {
    int64_t samples;
    uint64_t first_sample; /* within the global minibatch */
    uint64_t seed, step;
    bool training;
    double gradient_scale;
    const int32_t *tokens, *targets;
    const void *features;
    double *loss; /* gets the sum over the microbatch where the stage makes the loss */
} pp_stage_batch;

/* Builds the tables from the layout. PP_E_UNSUPPORTED for layers that the backend cannot run. */
pp_status pp_stage_run_init(pp_stage_run *run, int stage, const pp_model *model,
                            const pp_stage_layout *layout, const pp_backend *backend,
                            void *backend_state, pp_dtype dtype, int64_t full_samples,
                            pp_arena *arena, pp_error *error);

/* Hands over the whole-run memory (of layout->bytes.parameters and gradients; states of the
 * elements state_first … state_end - 1 of the parameters) and points every layer at its part.
 * `earlier`: stages of the same rank that were bound before; a tied parameter that one of them has
 * is shared. */
void pp_stage_run_bind(pp_stage_run *run, void *parameters, void *gradients, void *states,
                       int64_t state_first, int64_t state_end, pp_stage_run *const *earlier,
                       int earlier_count);
/* First values of the parameters that the stage owns; gradients and states become 0. */
void pp_stage_run_initialise(pp_stage_run *run, pp_optimizer optimizer, uint64_t seed);

void pp_stage_forward(pp_stage_run *run, const pp_stage_memory *memory,
                      const pp_stage_batch *batch);
/* input: I; weight: W; both: B, layer by layer. I and B recompute what the policy has them do. */
void pp_stage_backward(pp_stage_run *run, const pp_stage_memory *memory,
                       const pp_stage_batch *batch, bool input, bool weight);
/* The optimizer over every owned parameter, then all gradients become 0. step counts from 1. */
void pp_stage_step(pp_stage_run *run, const pp_optimizer_settings *settings, int64_t step);

/* The message behind (outputs) or before (gradients of inputs): parts for the transport, at most
 * layout output_count or input_count; returns how many. */
int pp_stage_outgoing(const pp_stage_run *run, const pp_stage_memory *memory, bool backward,
                      int64_t samples, pp_message_part *parts);

/* The model's edges into a layer, in edge order: *count of them from the first. */
const pp_edge *pp_stage_next_input(const pp_model *model, int layer, const pp_edge *previous);

#endif
