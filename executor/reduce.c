/* REDUCE_GRAD: the gradients of weights that several layers or replicas share are added up.
 *
 * Model: a group is one weight; its members are the gradients that layers (of one tie) and replicas
 * hold separately. The sum is always taken in the order (layer, replica), never in order of
 * arrival, and with one gradient per member even where members share a rank: so its bits depend on
 * neither K nor timing, and replicas of a weight stay equal for ever.
 *
 * Each party (a rank of a replica) owns a slice of the elements:
 *
 *     gate: all gradients are complete
 *     sum its slice over all members, chunk by chunk through its own buffer, into its own gradient
 *     gate: all slices are summed          (nobody else reads or writes the owner's slice till
 * here) copy every other slice from its owner's gradient gate: nobody reads any more          (the
 * gradients may be used and cleared)
 *
 * Every rank goes through its groups in the same global order, after all of its backward work, so
 * parties never wait for each other in a circle. */
#include "executor/reduce_internal.h"

#include <string.h>

/* ---- building the groups ------------------------------------------------------------------- */

static bool same_weight(const pp_layer *a, const pp_layer *b) {
    return a == b || (a->tie && b->tie && strcmp(a->tie, b->tie) == 0);
}

/* The tied tensor of a layer, or -1. */
static int tied_tensor(const pp_layer *layer) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int count = pp_layer_tensors(layer, 1, PP_FP32, tensors);
    for (int t = 0; t < count; t++)
        if (tensors[t].tied) return t;
    return -1;
}

typedef struct group_builder {
    pp_reduce *reduce;
    const pp_model *model;
    const int *stage_of_layer, *placement;
    pp_arena *arena;
} group_builder;

static void add_party(pp_reduce_group *group, int party) {
    int i = group->party_count;
    for (int k = 0; k < group->party_count; k++)
        if (group->parties[k] == party) return;
    for (; i > 0 && group->parties[i - 1] > party; i--) group->parties[i] = group->parties[i - 1];
    group->parties[i] = party;
    group->party_count++;
}

static void add_member(const group_builder *b, pp_reduce_group *group, int layer, int tensor) {
    int stage = b->stage_of_layer[layer], rank = b->placement[stage], dp = b->reduce->dp;
    for (int d = 0; d < dp; d++) {
        group->members[group->member_count++] = (pp_reduce_member){
            .layer = layer, .stage = stage, .rank = rank, .replica = d, .tensor = tensor};
        add_party(group, rank * dp + d);
    }
}

/* A group of the weight (layer, tensor) and all that share it, unless there is nobody to share. */
static void add_group(const group_builder *b, int layer, int tensor, const pp_tensor *what) {
    const pp_layer *layers = b->model->layers;
    int sharers = 1;
    for (int i = 0; i < b->model->layer_count; i++) {
        if (i == layer || !what->tied || !same_weight(&layers[layer], &layers[i])) continue;
        if (i < layer) return; /* the group of that one holds this */
        sharers++;
    }
    if (sharers * b->reduce->dp == 1) return;
    pp_reduce_group *group = &b->reduce->groups[b->reduce->group_count];
    group->count = what->rows * what->columns;
    group->members = PP_NEW(b->arena, pp_reduce_member, sharers * b->reduce->dp);
    group->parties = PP_NEW(b->arena, int, sharers * b->reduce->dp);
    if (b->arena->failed) return;
    add_member(b, group, layer, tensor);
    for (int i = layer + 1; what->tied && i < b->model->layer_count; i++)
        if (same_weight(&layers[layer], &layers[i]))
            add_member(b, group, i, tied_tensor(&layers[i]));
    b->reduce->group_count++;
}

static void add_groups(const group_builder *b, bool count_only, int *count) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    for (int i = 0; i < b->model->layer_count && !b->arena->failed; i++) {
        int tensor_count = pp_layer_tensors(&b->model->layers[i], 1, b->reduce->dtype, tensors);
        for (int t = 0; t < tensor_count; t++) {
            if (tensors[t].role != PP_TENSOR_PARAMETER) continue;
            if (count_only)
                ++*count;
            else
                add_group(b, i, t, &tensors[t]);
        }
    }
}

pp_status pp_reduce_init(pp_reduce *reduce, const pp_model *model, const int *stage_of_layer,
                         const int *placement, int dp, pp_dtype dtype, pp_arena *arena,
                         pp_error *error) {
    *reduce = (pp_reduce){.dp = dp, .dtype = dtype};
    group_builder b = {reduce, model, stage_of_layer, placement, arena};
    int capacity = 0;
    add_groups(&b, true, &capacity);
    reduce->groups = PP_NEW(arena, pp_reduce_group, capacity);
    if (!arena->failed) add_groups(&b, false, NULL);
    if (arena->failed) return pp_fail_memory(error);
    for (int g = 0; g < reduce->group_count; g++)
        pp_gate_init(&reduce->groups[g].gate, reduce->groups[g].party_count);
    reduce->gates_ready = reduce->group_count;
    return PP_OK;
}

void pp_reduce_deinit(pp_reduce *reduce) {
    for (int g = 0; g < reduce->gates_ready; g++) pp_gate_deinit(&reduce->groups[g].gate);
    *reduce = (pp_reduce){0};
}

void pp_reduce_attach(pp_reduce *reduce, int layer, int tensor, int replica, void *gradient) {
    for (int g = 0; g < reduce->group_count; g++)
        for (int i = 0; i < reduce->groups[g].member_count; i++) {
            pp_reduce_member *member = &reduce->groups[g].members[i];
            if (member->layer == layer && member->tensor == tensor && member->replica == replica)
                member->gradient = gradient;
        }
}

int pp_reduce_last_of(const pp_reduce *reduce, int stage) {
    int last = -1;
    for (int g = 0; g < reduce->group_count; g++)
        for (int i = 0; i < reduce->groups[g].member_count; i++)
            if (reduce->groups[g].members[i].stage == stage) last = g;
    return last;
}

/* ---- reducing ------------------------------------------------------------------------------ */

static int party_index(const pp_reduce_group *group, int party) {
    for (int i = 0; i < group->party_count; i++)
        if (group->parties[i] == party) return i;
    return -1;
}

static int party_of(const pp_reduce *reduce, const pp_reduce_member *member) {
    return member->rank * reduce->dp + member->replica;
}

/* The gradient that a party sums its slice into: its first member's. */
static unsigned char *party_gradient(const pp_reduce *reduce, const pp_reduce_group *group,
                                     int index) {
    for (int i = 0; i < group->member_count; i++)
        if (party_of(reduce, &group->members[i]) == group->parties[index])
            return group->members[i].gradient;
    return NULL;
}

static int64_t slice_start(const pp_reduce_group *group, int index) {
    return group->count / group->party_count * index +
           group->count % group->party_count * index / group->party_count;
}

static void sum_slice(const pp_reduce *reduce, const pp_reduce_group *group, int index,
                      const pp_reduce_party *party) {
    const pp_backend *backend = party->backend;
    void *state = party->backend_state, *buffer = party->buffer;
    int64_t width = pp_dtype_bytes(reduce->dtype), chunk = party->buffer_bytes / width;
    int64_t end = slice_start(group, index + 1);
    unsigned char *own = party_gradient(reduce, group, index);
    for (int64_t from = slice_start(group, index); from < end; from += chunk) {
        int64_t count = end - from < chunk ? end - from : chunk;
        size_t size_bytes = (size_t)(count * width);
        backend->copy(state, buffer, group->members[0].gradient + from * width, size_bytes);
        for (int i = 1; i < group->member_count; i++)
            backend->add(state, reduce->dtype, buffer, group->members[i].gradient + from * width,
                         count);
        backend->copy(state, own + from * width, buffer, size_bytes);
    }
}

/* Every slice from its owner into all members of this party. */
static void gather_slices(const pp_reduce *reduce, const pp_reduce_group *group, int index,
                          const pp_reduce_party *party) {
    int64_t width = pp_dtype_bytes(reduce->dtype);
    for (int i = 0; i < group->member_count; i++) {
        if (party_of(reduce, &group->members[i]) != group->parties[index]) continue;
        unsigned char *target = group->members[i].gradient;
        for (int k = 0; k < group->party_count; k++) {
            const unsigned char *source = party_gradient(reduce, group, k);
            if (source == target) continue;
            int64_t from = slice_start(group, k), end = slice_start(group, k + 1);
            party->backend->copy(party->backend_state, target + from * width, source + from * width,
                                 (size_t)((end - from) * width));
        }
    }
}

static pp_status wait_gate(pp_gate *gate, const pp_watch *watch, double *waited_s) {
    double before_s = pp_now_s();
    double opened_s = before_s;
    pp_status status = pp_gate_wait(gate, watch, &opened_s);
    *waited_s += pp_now_s() - before_s;
    return status;
}

/* The party's part between two gates: what it did is done before the others go on. */
static pp_status
work_between(const pp_reduce_party *party, pp_watch *watch,
             void (*work)(const pp_reduce *, const pp_reduce_group *, int, const pp_reduce_party *),
             const pp_reduce *reduce, const pp_reduce_group *group, int index, pp_error *error) {
    atomic_fetch_add(&watch->computing, 1);
    work(reduce, group, index, party);
    pp_status status = party->backend->finish(party->backend_state, error);
    atomic_fetch_sub(&watch->computing, 1);
    return status;
}

pp_status pp_reduce_group_run(pp_reduce *reduce, int number, const pp_reduce_party *party,
                              pp_watch *watch, double *waited_s, pp_error *error) {
    pp_reduce_group *group = &reduce->groups[number];
    int index = party_index(group, party->rank * reduce->dp + party->replica);
    if (index < 0) return PP_OK;
    PP_TRY(wait_gate(&group->gate, watch, waited_s));
    PP_TRY(work_between(party, watch, sum_slice, reduce, group, index, error));
    PP_TRY(wait_gate(&group->gate, watch, waited_s));
    PP_TRY(work_between(party, watch, gather_slices, reduce, group, index, error));
    return wait_gate(&group->gate, watch, waited_s);
}

void pp_reduce_abort(pp_reduce *reduce) {
    for (int g = 0; g < reduce->gates_ready; g++) pp_gate_abort(&reduce->groups[g].gate);
}
