/* Where every tensor of a stage lives: one table that the executor allocates and the simulator adds
 * up, so that predicted memory is never below real memory (promise P3).
 *
 * The model: a stage is an interval of the plan's order. Tensors that outlive an action get bytes
 * of their own in the region of their life (parameters, activations, stash, border slots). What
 * lives inside one action shares WORKSPACE:
 *
 *   scratch       the WORKSPACE tensors of one layer (and its STASH tensors, where I and W are one
 *                 action): at the front, as large as the greediest layer's
 *   F transients  outputs that no backward pass reads: from their layer to their last reader
 *   B gradients   of outputs: from their last reader's I to their own layer's I
 *
 * F and B are different actions, so transients and gradients overlie each other; within each,
 * intervals are placed first-fit. Outputs and gradients that cross a border live to the end of
 * their action, when they are sent.
 *
 * Where a stage recomputes inside its backward, what F makes and forgets is in region AGAIN: one
 * group of layers at a time, each from its start. F leaves a group there until the next one comes;
 * B (or I) fills it again before it goes back through the group. What is dropped:
 *
 *   attention   of each layer its attention core; a group is a layer
 *   every:N     all that the layers save, and outputs that nobody outside the group reads (those
 *               that another group reads are kept, they are what groups start from). Since B goes
 *               forward through a group between gradients, gradients lie behind the transients
 *
 * Where I and W are apart, what W reads of it is made again in STASH instead (its second row: F
 * alone uses that in AGAIN).
 *
 * The same tensor can have several rows, one per place; what each means is said in core.h. */
#include "core/core.h"

#include <assert.h>
#include <string.h>

enum { ALIGNMENT = 64 };
#define REDUCTION_CHUNK_BYTES ((int64_t)1 << 20)

/* A block of WORKSPACE that is in use from step birth to step death, inclusive. */
typedef struct interval {
    int64_t offset, size;
    int birth, death;
} interval;

/* The tensors of a layer. */
typedef struct tensor_list {
    pp_layer shape;
    int count;
    pp_tensor tensors[PP_LAYER_TENSORS];
} tensor_list;

typedef struct builder {
    const pp_layout_request *request;
    const pp_model *model;
    pp_arena *arena;
    pp_stage_layout *layout;
    int *position;    /* [model layers] in plan order */
    int *last_reader; /* [model layers] index in the stage of the last layer of the stage that
                         reads the output, or -1 */
    pp_region *output_region; /* [model layers] the region that keeps the output for a backward pass
                                 of the stage; WORKSPACE: none needs it */
    interval *placed;         /* of the action being laid out */
    int placed_count;
    int64_t scratch_end;     /* in WORKSPACE: of the layers' scratch */
    int64_t gradients_start; /* … and, behind it, of the gradients of the stage's inputs */
    int group_layers;        /* of every:N, else 0 */
    bool *starts_group;      /* [model layers] the output is read by a later group of the stage */
    int64_t again_end;       /* in AGAIN: of the group being laid out */
    tensor_list **lists;     /* [model layers] NULL: not asked for yet */
    tensor_list *newest;
    tensor_list none; /* when memory is out, or a layer cannot be divided: */
    pp_status status;
    pp_error *error;
} builder;

static int64_t aligned(int64_t size_bytes) {
    return (size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* ---- what the stage is --------------------------------------------------------------------- */

static bool inside(const builder *b, int layer) {
    return b->position[layer] >= b->request->first && b->position[layer] <= b->request->last;
}

/* Of the layer at a position of the plan's order. */
static int group_of(const builder *b, int position) {
    return b->group_layers > 0 ? (position - b->request->first) / b->group_layers : 0;
}

static int layer_at(const pp_layout_request *request, int position) {
    return request->order ? request->order[position] : position;
}

static void find_layers(builder *b) {
    const pp_layout_request *request = b->request;
    for (int i = 0; i < b->model->layer_count; i++) {
        b->position[layer_at(request, i)] = i;
        b->last_reader[i] = -1;
        bool itself = pp_layer_needs_get(b->model->layers[i].op).output_for_input;
        b->output_region[i] = itself ? PP_REGION_ACTIVATION_INPUT : PP_REGION_WORKSPACE;
    }
    b->layout->layer_count = request->last - request->first + 1;
    for (int i = 0; i < b->layout->layer_count; i++)
        b->layout->layers[i] = layer_at(request, request->first + i);
}

/* A layer of the stage reads the output of `from` in its backward pass, or not. */
static void keep_for(builder *b, int from, pp_op reader) {
    pp_layer_needs needs = pp_layer_needs_get(reader);
    if (needs.input_for_weight)
        b->output_region[from] = PP_REGION_ACTIVATION_WEIGHT;
    else if (needs.input_for_input && b->output_region[from] == PP_REGION_WORKSPACE)
        b->output_region[from] = PP_REGION_ACTIVATION_INPUT;
}

/* Finds the readers in the stage and marks what crosses the two borders. */
static void find_readers(builder *b, bool *before, bool *behind) {
    const pp_layout_request *request = b->request;
    for (int e = 0; e < b->model->edge_count; e++) {
        pp_edge edge = b->model->edges[e];
        int from = b->position[edge.from], to = b->position[edge.to];
        if (from < request->first && to >= request->first) before[edge.from] = true;
        if (from <= request->last && to > request->last) behind[edge.from] = true;
        if (!inside(b, edge.to)) continue;
        int reader = to - request->first;
        if (reader > b->last_reader[edge.from]) b->last_reader[edge.from] = reader;
        keep_for(b, edge.from, b->model->layers[edge.to].op);
        if (group_of(b, from) != group_of(b, to)) b->starts_group[edge.from] = true;
    }
}

/* Kept from F on: what groups start from; and what is sent at the end of F, by when a later group
 * would lie where it was. */
static void keep_starts(builder *b, const bool *behind) {
    int last_group = group_of(b, b->request->last);
    for (int i = 0; b->group_layers > 0 && i < b->layout->layer_count; i++) {
        int layer = b->layout->layers[i];
        pp_region *region = &b->output_region[layer];
        if (behind[layer] && *region != PP_REGION_WORKSPACE &&
            group_of(b, b->request->first + i) != last_group)
            b->starts_group[layer] = true;
        if (b->starts_group[layer] && *region == PP_REGION_WORKSPACE)
            *region = PP_REGION_ACTIVATION_INPUT;
    }
}

static int collect(const bool *marked, int count, int *list) {
    int found = 0;
    for (int i = 0; i < count; i++)
        if (marked[i]) list[found++] = i;
    return found;
}

/* ---- rows ---------------------------------------------------------------------------------- */

static void add_row(builder *b, int layer, int tensor, pp_region region, int64_t offset,
                    int64_t size) {
    pp_buffer row = {layer, tensor, region, offset, size};
    b->layout->buffers[b->layout->buffer_count++] = row;
    b->layout->region_bytes[region] =
        larger(b->layout->region_bytes[region], offset + aligned(size));
}

/* At the end of its region. */
static void append_row(builder *b, int layer, int tensor, pp_region region, int64_t size) {
    add_row(b, layer, tensor, region, b->layout->region_bytes[region], size);
}

/* What a layer's tensors follow from. */
static pp_layer shape_of(const pp_layer *layer) {
    pp_layer shape = *layer;
    shape.name = NULL;
    shape.tie = layer->tie ? "" : NULL;
    return shape;
}

/* Of one device. Layers of one shape, which mostly follow each other, share their list. */
static const tensor_list *tensors_of(builder *b, int layer) {
    pp_layer shape = shape_of(&b->model->layers[layer]), local;
    if (b->lists[layer]) return b->lists[layer];
    if (b->newest && memcmp(&b->newest->shape, &shape, sizeof shape) == 0)
        return b->lists[layer] = b->newest;
    tensor_list *list = PP_NEW(b->arena, tensor_list, 1);
    if (!list) return &b->none;
    pp_status status = pp_layer_shard(&b->model->layers[layer], b->request->tp, &local, b->error);
    if (status != PP_OK) {
        b->status = status;
        return &b->none;
    }
    list->shape = shape;
    list->count = pp_layer_tensors(&local, b->request->samples, b->request->dtype, list->tensors);
    return b->lists[layer] = b->newest = list;
}

/* Index of the output among the layer's tensors, or -1; *size its bytes. */
static int output_of(builder *b, int layer, int64_t *size) {
    const tensor_list *list = tensors_of(b, layer);
    const pp_tensor *tensors = list->tensors;
    *size = 0;
    for (int t = 0; t < list->count; t++) {
        if (tensors[t].role != PP_TENSOR_OUTPUT) continue;
        *size = pp_tensor_bytes(&tensors[t]);
        return t;
    }
    *size = 0;
    return -1;
}

/* First fit among the blocks in use at the same time. */
static int64_t place(builder *b, int64_t base, int64_t size, int birth, int death) {
    interval block = {base, aligned(size), birth, death};
    for (int i = 0; i < b->placed_count;) {
        const interval *other = &b->placed[i];
        bool together = other->birth <= death && birth <= other->death;
        bool overlap =
            other->offset < block.offset + block.size && block.offset < other->offset + other->size;
        if (together && overlap) {
            block.offset = other->offset + other->size;
            i = 0;
        } else {
            i++;
        }
    }
    b->placed[b->placed_count++] = block;
    return block.offset;
}

/* ---- tensors that outlive an action -------------------------------------------------------- */

/* Row of an earlier layer of the stage that shares this tied parameter, or NULL. */
static const pp_buffer *tied_row(builder *b, int layer) {
    const pp_layer *layers = b->model->layers;
    for (int i = 0; i < b->layout->buffer_count; i++) {
        const pp_buffer *row = &b->layout->buffers[i];
        const char *tie = layers[row->layer].tie;
        if (!tie || row->region != PP_REGION_PARAMETERS) continue;
        const pp_tensor *tensors = tensors_of(b, row->layer)->tensors;
        if (tensors[row->tensor].tied && strcmp(tie, layers[layer].tie) == 0) return row;
    }
    return NULL;
}

static void add_parameter(builder *b, int layer, int tensor, const pp_tensor *what) {
    int64_t size = pp_tensor_bytes(what);
    const pp_buffer *shared = what->tied ? tied_row(b, layer) : NULL;
    b->layout->bytes.gradients += aligned(size);
    if (shared)
        add_row(b, layer, tensor, PP_REGION_PARAMETERS, shared->offset_bytes, size);
    else
        append_row(b, layer, tensor, PP_REGION_PARAMETERS, size);
}

static bool is_dropped(const builder *b, int layer, const pp_tensor *what) {
    if (b->request->recompute == PP_RECOMPUTE_ATTENTION) return what->attention_core;
    bool kept = what->role == PP_TENSOR_OUTPUT && b->starts_group[layer];
    return b->group_layers > 0 && !kept;
}

/* What F saves: for good, or until the backward makes it again. */
static void add_saved(builder *b, int layer, int tensor, pp_region region, const pp_tensor *what) {
    int64_t size = pp_tensor_bytes(what);
    if (!is_dropped(b, layer, what)) {
        append_row(b, layer, tensor, region, size);
        return;
    }
    if (region == PP_REGION_ACTIVATION_WEIGHT && b->request->split_backward)
        append_row(b, layer, tensor, PP_REGION_STASH, size);
    add_row(b, layer, tensor, PP_REGION_AGAIN, b->again_end, size);
    b->again_end += aligned(size);
}

/* Rows of everything of a layer but what lives in WORKSPACE. */
static void add_lasting(builder *b, int i) {
    int layer = b->layout->layers[i];
    const pp_tensor *tensors = tensors_of(b, layer)->tensors;
    int count = tensors_of(b, layer)->count;
    if (b->group_layers == 0 || i % b->group_layers == 0) b->again_end = 0;
    for (int t = 0; t < count; t++) {
        pp_region region = PP_REGION_WORKSPACE;
        switch (tensors[t].role) {
        case PP_TENSOR_PARAMETER:
            add_parameter(b, layer, t, &tensors[t]);
            continue;
        case PP_TENSOR_OUTPUT:
            region = b->output_region[layer];
            break;
        case PP_TENSOR_SAVED_INPUT:
            region = PP_REGION_ACTIVATION_INPUT;
            break;
        case PP_TENSOR_SAVED_WEIGHT:
            region = PP_REGION_ACTIVATION_WEIGHT;
            break;
        case PP_TENSOR_STASH:
            if (b->request->split_backward)
                append_row(b, layer, t, PP_REGION_STASH, pp_tensor_bytes(&tensors[t]));
            continue;
        case PP_TENSOR_WORKSPACE:
            continue;
        }
        if (region != PP_REGION_WORKSPACE) add_saved(b, layer, t, region, &tensors[t]);
    }
}

static void add_borders(builder *b) {
    const pp_stage_layout *layout = b->layout;
    int64_t size;
    for (int i = 0; i < layout->input_count; i++) {
        int tensor = output_of(b, layout->inputs[i], &size);
        append_row(b, layout->inputs[i], tensor, PP_REGION_INPUT, size);
    }
    for (int i = 0; i < layout->output_count; i++) {
        output_of(b, layout->outputs[i], &size);
        append_row(b, layout->outputs[i], PP_BUFFER_GRADIENT, PP_REGION_OUTPUT_GRADIENT, size);
    }
}

/* ---- WORKSPACE ----------------------------------------------------------------------------- */

static bool in_scratch(const builder *b, pp_tensor_role role) {
    return role == PP_TENSOR_WORKSPACE || (role == PP_TENSOR_STASH && !b->request->split_backward);
}

static void add_scratch(builder *b, int layer) {
    const pp_tensor *tensors = tensors_of(b, layer)->tensors;
    int count = tensors_of(b, layer)->count;
    int64_t offset = 0;
    for (int t = 0; t < count; t++) {
        if (!in_scratch(b, tensors[t].role)) continue;
        int64_t size = pp_tensor_bytes(&tensors[t]);
        add_row(b, layer, t, PP_REGION_WORKSPACE, offset, size);
        offset += aligned(size);
    }
    b->scratch_end = larger(b->scratch_end, offset);
}

static bool contains(const int *list, int count, int value) {
    for (int i = 0; i < count; i++)
        if (list[i] == value) return true;
    return false;
}

static void add_transients(builder *b) {
    const pp_stage_layout *layout = b->layout;
    b->placed_count = 0;
    for (int i = 0; i < layout->layer_count; i++) {
        int layer = layout->layers[i];
        int64_t size;
        int tensor = output_of(b, layer, &size);
        if (tensor < 0 || b->output_region[layer] != PP_REGION_WORKSPACE) continue;
        bool crosses = contains(layout->outputs, layout->output_count, layer);
        int death = crosses ? layout->layer_count : (int)larger(i, b->last_reader[layer]);
        int64_t offset = place(b, b->scratch_end, size, i, death);
        add_row(b, layer, tensor, PP_REGION_WORKSPACE, offset, size);
    }
}

/* Gradients of the stage's inputs, packed in order as they will be received. */
static void add_input_gradients(builder *b) {
    const pp_stage_layout *layout = b->layout;
    int64_t offset = b->scratch_end, size;
    if (b->group_layers > 0) offset = larger(offset, layout->region_bytes[PP_REGION_WORKSPACE]);
    for (int i = 0; i < layout->input_count; i++) {
        output_of(b, layout->inputs[i], &size);
        add_row(b, layout->inputs[i], PP_BUFFER_GRADIENT, PP_REGION_WORKSPACE, offset, size);
        offset += aligned(size);
    }
    b->gradients_start = offset;
}

/* Gradients of the stage's own outputs. One that only arrives, and is not needed after I, is read
 * where it was received. Steps count layers from the back. */
static void add_gradients(builder *b) {
    const pp_stage_layout *layout = b->layout;
    int last = layout->layer_count - 1;
    b->placed_count = 0;
    for (int i = last; i >= 0; i--) {
        int layer = layout->layers[i];
        int64_t size;
        if (output_of(b, layer, &size) < 0) continue;
        bool arrives = contains(layout->outputs, layout->output_count, layer);
        bool is_read = b->last_reader[layer] >= 0;
        bool stash = b->request->split_backward &&
                     pp_layer_needs_get(b->model->layers[layer].op).gradient_for_weight;
        if (!is_read && !(arrives && stash)) continue;
        if (stash) {
            append_row(b, layer, PP_BUFFER_GRADIENT, PP_REGION_STASH, size);
            continue;
        }
        int birth = arrives ? 0 : last - b->last_reader[layer];
        int64_t offset = place(b, b->gradients_start, size, birth, last - i);
        add_row(b, layer, PP_BUFFER_GRADIENT, PP_REGION_WORKSPACE, offset, size);
    }
}

/* ---- bytes --------------------------------------------------------------------------------- */

/* Optimizer bytes per parameter; under bf16 with the fp32 master. */
static int64_t optimizer_bytes(pp_dtype dtype, pp_optimizer optimizer) {
    int64_t states = optimizer == PP_ADAMW ? 2 : 1;
    if (dtype == PP_BF16) return pp_dtype_bytes(PP_FP32) * (1 + states);
    return pp_dtype_bytes(dtype) * states;
}

/* Another layer of the model has the same tie. */
static bool tie_is_shared(const pp_model *model, int layer) {
    for (int i = 0; i < model->layer_count; i++) {
        const char *tie = model->layers[i].tie;
        if (i != layer && tie && strcmp(tie, model->layers[layer].tie) == 0) return true;
    }
    return false;
}

/* The largest parameter that REDUCE_GRAD adds up over stages or replicas. */
static int64_t largest_reduced(builder *b) {
    int64_t largest = 0;
    for (int i = 0; i < b->layout->layer_count; i++) {
        int layer = b->layout->layers[i];
        const pp_tensor *tensors = tensors_of(b, layer)->tensors;
        int count = tensors_of(b, layer)->count;
        for (int t = 0; t < count; t++) {
            bool reduced =
                b->request->dp > 1 || (tensors[t].tied && tie_is_shared(b->model, layer));
            if (tensors[t].role == PP_TENSOR_PARAMETER && reduced)
                largest = larger(largest, pp_tensor_bytes(&tensors[t]));
        }
    }
    return largest;
}

static void fill_bytes(builder *b) {
    const pp_layout_request *request = b->request;
    const int64_t *region = b->layout->region_bytes;
    pp_stage_bytes *bytes = &b->layout->bytes;
    int64_t reduced = aligned(largest_reduced(b));
    bytes->parameters = region[PP_REGION_PARAMETERS];
    bytes->optimizer = bytes->parameters / pp_dtype_bytes(request->dtype) *
                       optimizer_bytes(request->dtype, request->optimizer);
    bytes->activation = region[PP_REGION_ACTIVATION_INPUT] + region[PP_REGION_ACTIVATION_WEIGHT];
    bytes->released_by_input = region[PP_REGION_ACTIVATION_INPUT];
    bytes->stash = region[PP_REGION_STASH];
    bytes->input = region[PP_REGION_INPUT];
    bytes->output_gradient = region[PP_REGION_OUTPUT_GRADIENT];
    bytes->workspace = region[PP_REGION_WORKSPACE] + region[PP_REGION_AGAIN];
    bytes->reduction = reduced < REDUCTION_CHUNK_BYTES ? reduced : REDUCTION_CHUNK_BYTES;
}

int64_t pp_shard_elements(int64_t elements, int shards) {
    int64_t share = (elements + shards - 1) / shards;
    int64_t rounded = (share + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return rounded < elements ? rounded : elements;
}

int64_t pp_sharded_optimizer_bytes(const pp_stage_bytes *bytes, pp_dtype dtype, int shards) {
    int64_t elements = bytes->parameters / pp_dtype_bytes(dtype);
    if (elements == 0) return bytes->optimizer;
    return bytes->optimizer / elements * pp_shard_elements(elements, shards);
}

/* ---- the whole ----------------------------------------------------------------------------- */

/* Arrays that depend on the number of layers alone. NULLs are seen in arena->failed. */
static void allocate_lists(builder *b) {
    int count = b->model->layer_count, own = b->request->last - b->request->first + 1;
    b->position = PP_NEW(b->arena, int, count);
    b->last_reader = PP_NEW(b->arena, int, count);
    b->output_region = PP_NEW(b->arena, pp_region, count);
    b->starts_group = PP_NEW(b->arena, bool, count);
    b->lists = PP_NEW(b->arena, tensor_list *, count);
    b->placed = PP_NEW(b->arena, interval, own);
    b->layout->layers = PP_NEW(b->arena, int, own);
    b->layout->inputs = PP_NEW(b->arena, int, count);
    b->layout->outputs = PP_NEW(b->arena, int, count);
}

static void allocate_rows(builder *b) {
    const pp_stage_layout *layout = b->layout;
    int64_t rows = 2 * layout->input_count + layout->output_count; /* the borders */
    for (int i = 0; i < layout->layer_count; i++)
        rows += 1 + 2 * tensors_of(b, layout->layers[i])->count; /* 1: its gradient */
    b->layout->buffers = PP_NEW(b->arena, pp_buffer, rows);
}

static void add_rows(builder *b) {
    const pp_stage_layout *layout = b->layout;
    for (int i = 0; i < layout->layer_count; i++) add_lasting(b, i);
    add_borders(b);
    for (int i = 0; i < layout->layer_count; i++) add_scratch(b, layout->layers[i]);
    add_transients(b);
    add_input_gradients(b);
    add_gradients(b);
}

pp_status pp_stage_layout_make(const pp_layout_request *request, pp_arena *arena,
                               pp_stage_layout *layout, pp_error *error) {
    const pp_model *model = request->model;
    assert(0 <= request->first && request->first <= request->last);
    assert(request->last < model->layer_count && request->samples > 0);
    *layout = (pp_stage_layout){.recompute = request->recompute};
    builder b = {
        .request = request, .model = model, .arena = arena, .layout = layout, .error = error};
    b.group_layers = pp_recompute_group(request->recompute);
    allocate_lists(&b);
    bool *before = PP_NEW(arena, bool, model->layer_count);
    bool *behind = PP_NEW(arena, bool, model->layer_count);
    if (arena->failed) return pp_fail_memory(error);
    find_layers(&b);
    find_readers(&b, before, behind);
    keep_starts(&b, behind);
    layout->input_count = collect(before, model->layer_count, layout->inputs);
    layout->output_count = collect(behind, model->layer_count, layout->outputs);
    allocate_rows(&b);
    if (arena->failed) return pp_fail_memory(error);
    if (b.status == PP_OK) add_rows(&b);
    if (b.status == PP_OK) fill_bytes(&b);
    return arena->failed ? pp_fail_memory(error) : b.status;
}
