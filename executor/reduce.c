/* REDUCE_GRAD: the gradients of weights that several layers or replicas share are added up.
 *
 * Model: a group is one weight; its members are the gradients that layers (of one tie) and replicas
 * hold separately, and copies of a stage in other chains. The sum is always taken in the order
 * (layer, chain, replica), never in order of arrival, and with one gradient per member even where
 * members share a rank: so its bits depend on neither K nor timing, and replicas of a weight stay
 * equal for ever.
 *
 * Groups one behind the other that the same stages share go together: each of the waits below is
 * one for all of them. Each party (a rank of a replica) owns a slice of the elements:
 *
 *   gate  all gradients are complete
 *         each sums its slice over all members, chunk by chunk through its own buffer, into its own
 *         gradient; until the next gate nobody else reads or writes that
 *   gate  all slices are summed
 *         each copies every other slice from its owner's gradient
 *   gate  nobody reads any more: the gradients may be used and cleared
 *
 * Where replicas share out the optimizer's work (ZeRO-1), the slice of a weight that only they
 * share is what its owner steps, and is all that it needs: the second gate is the last. The stepped
 * weights are handed round behind the step instead.
 *
 * Every rank goes through its groups in the same global order, after all of its backward work, so
 * parties never wait for each other in a circle. */
#include "executor/reduce_internal.h"

#include <string.h>

/* What waits together at the most: between processes its gradients are on their way at once. */
#define TOGETHER_BYTES ((int64_t)64 << 20)

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
    const int *stage_of_layer;
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
    const pp_reduce *reduce = b->reduce;
    for (int c = 0; c < reduce->chains; c++) {
        int stage = b->stage_of_layer[layer] + c * reduce->chain_stages;
        int rank = reduce->placement[stage];
        for (int d = 0; d < reduce->dp; d++) {
            group->members[group->member_count++] = (pp_reduce_member){
                .layer = layer, .stage = stage, .rank = rank, .replica = d, .tensor = tensor};
            add_party(group, rank * reduce->dp + d);
        }
    }
}

/* A group of the weight (layer, tensor) and all that share it, unless there is nobody to share. */
static void add_group(const group_builder *b, int layer, int tensor, const pp_tensor *what) {
    const pp_layer *layers = b->model->layers;
    int sharers = 1, holders = b->reduce->dp * b->reduce->chains;
    for (int i = 0; i < b->model->layer_count; i++) {
        if (i == layer || !what->tied || !same_weight(&layers[layer], &layers[i])) continue;
        if (i < layer) return; /* the group of that one holds this */
        sharers++;
    }
    if (sharers * holders == 1) return;
    pp_reduce_group *group = &b->reduce->groups[b->reduce->group_count];
    group->count = what->rows * what->columns;
    group->members = PP_NEW(b->arena, pp_reduce_member, sharers * holders);
    group->parties = PP_NEW(b->arena, int, sharers *holders);
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

/* The same stages hold both, so that no rank comes to one of them in another action than to the
 * other. */
static bool goes_with(const pp_reduce_group *a, const pp_reduce_group *b) {
    if (a->member_count != b->member_count || a->party_count != b->party_count) return false;
    if ((a->stage_count > 0) != (b->stage_count > 0)) return false;
    for (int i = 0; i < a->member_count; i++)
        if (a->members[i].stage != b->members[i].stage) return false;
    return memcmp(a->parties, b->parties, (size_t)a->party_count * sizeof *a->parties) == 0;
}

static void put_together(pp_reduce *reduce) {
    pp_reduce_group *head = NULL;
    int64_t bytes = 0;
    for (int g = 0; g < reduce->group_count; g++) {
        pp_reduce_group *group = &reduce->groups[g];
        int64_t more = group->count * pp_dtype_bytes(reduce->dtype);
        if (!head || !goes_with(head, group) || bytes + more > TOGETHER_BYTES) {
            head = group;
            bytes = 0;
        }
        head->together++;
        bytes += more;
    }
}

static int64_t part_start(int64_t count, int parts, int index) {
    return count / parts * index + count % parts * index / parts;
}

static bool is_sharded(const pp_plan *plan) {
    return plan->zero > 0 && plan->dp > 1;
}

static int64_t elements_of(const pp_plan *plan, const pp_stage_bytes *bytes) {
    return bytes->parameters / pp_dtype_bytes(plan->dtype);
}

static int64_t shard_start(int64_t count, int shards, int index) {
    int64_t at = index * pp_shard_elements(count, shards);
    return at < count ? at : count;
}

pp_shard pp_reduce_shard(const pp_plan *plan, const pp_stage_bytes *bytes, int replica) {
    int64_t count = elements_of(plan, bytes);
    if (!is_sharded(plan)) return (pp_shard){0, count};
    return (pp_shard){shard_start(count, plan->dp, replica),
                      shard_start(count, plan->dp, replica + 1)};
}

static pp_status add_handed(pp_reduce *reduce, const pp_plan *plan, const pp_stage_layout *layouts,
                            pp_arena *arena, pp_error *error) {
    if (!is_sharded(plan)) return PP_OK;
    reduce->handed = PP_NEW(arena, pp_reduce_group, plan->stage_count);
    if (!reduce->handed) return pp_fail_memory(error);
    for (int s = 0; s < plan->stage_count; s++) {
        pp_reduce_group *group = &reduce->handed[s];
        group->count = group->stage_count = elements_of(plan, &layouts[s].bytes);
        group->members = PP_NEW(arena, pp_reduce_member, plan->dp);
        group->parties = PP_NEW(arena, int, plan->dp);
        if (arena->failed) return pp_fail_memory(error);
        for (int d = 0; d < plan->dp; d++) {
            group->members[d] = (pp_reduce_member){
                .layer = -1, .stage = s, .rank = plan->placement[s], .replica = d, .tensor = -1};
            group->parties[d] = plan->placement[s] * plan->dp + d;
        }
        group->member_count = group->party_count = group->here_count = plan->dp;
        group->together = 1;
        pp_gate_init(&group->gate, plan->dp);
        reduce->handed_count++;
    }
    return PP_OK;
}

/* Where a parameter lies in its stage's, in elements. */
static int64_t offset_of(const pp_stage_layout *layout, const pp_reduce_member *member,
                         pp_dtype dtype) {
    for (int i = 0; i < layout->buffer_count; i++) {
        const pp_buffer *row = &layout->buffers[i];
        bool same = row->layer == member->layer && row->tensor == member->tensor;
        if (same && row->region == PP_REGION_PARAMETERS)
            return row->offset_bytes / pp_dtype_bytes(dtype);
    }
    return 0;
}

/* Weights of one stage alone, of which each replica needs the sum of what it steps. */
static void scatter(pp_reduce *reduce, const pp_plan *plan, const pp_stage_layout *layouts) {
    for (int g = 0; g < reduce->group_count && is_sharded(plan); g++) {
        pp_reduce_group *group = &reduce->groups[g];
        const pp_reduce_member *member = &group->members[0];
        if (group->member_count > reduce->dp) continue; /* ties, and copies in other chains */
        group->stage_count = elements_of(plan, &layouts[member->stage].bytes);
        group->offset = offset_of(&layouts[member->stage], member, reduce->dtype);
    }
}

pp_status pp_reduce_init(pp_reduce *reduce, const pp_plan *plan, const int *stage_of_layer,
                         const pp_stage_layout *layouts, bool whole, pp_arena *arena,
                         pp_error *error) {
    *reduce = (pp_reduce){.dp = plan->dp,
                          .chains = plan->chains,
                          .chain_stages = plan->stage_count / plan->chains,
                          .placement = plan->placement,
                          .dtype = plan->dtype};
    group_builder b = {reduce, plan->model, stage_of_layer, arena};
    int capacity = 0;
    add_groups(&b, true, &capacity);
    reduce->groups = PP_NEW(arena, pp_reduce_group, capacity);
    if (!arena->failed) add_groups(&b, false, NULL);
    if (arena->failed) return pp_fail_memory(error);
    for (int g = 0; g < reduce->group_count; g++) {
        reduce->groups[g].here_count = reduce->groups[g].party_count;
        pp_gate_init(&reduce->groups[g].gate, reduce->groups[g].party_count);
    }
    reduce->gates_ready = reduce->group_count;
    if (!whole) scatter(reduce, plan, layouts);
    put_together(reduce);
    return add_handed(reduce, plan, layouts, arena, error);
}

static void spread_group(pp_reduce_group *group, const pp_processes *processes,
                         const int *process_of) {
    group->here_count = 0;
    group->leader = -1;
    for (int k = 0; k < group->party_count; k++) {
        if (process_of[group->parties[k]] != processes->process) continue;
        if (group->here_count++ == 0) group->leader = k;
    }
    pp_gate_deinit(&group->gate);
    pp_gate_init(&group->gate, group->here_count);
}

void pp_reduce_spread(pp_reduce *reduce, pp_processes *processes, const int *process_of) {
    reduce->processes = processes;
    reduce->process_of = process_of;
    for (int g = 0; g < reduce->group_count; g++)
        spread_group(&reduce->groups[g], processes, process_of);
    for (int s = 0; s < reduce->handed_count; s++)
        spread_group(&reduce->handed[s], processes, process_of);
}

void pp_reduce_deinit(pp_reduce *reduce) {
    for (int g = 0; g < reduce->gates_ready; g++) pp_gate_deinit(&reduce->groups[g].gate);
    for (int s = 0; s < reduce->handed_count; s++) pp_gate_deinit(&reduce->handed[s].gate);
    *reduce = (pp_reduce){0};
}

void pp_reduce_attach(pp_reduce *reduce, int stage, int layer, int tensor, int replica,
                      void *gradient) {
    for (int g = 0; g < reduce->group_count; g++)
        for (int i = 0; i < reduce->groups[g].member_count; i++) {
            pp_reduce_member *member = &reduce->groups[g].members[i];
            if (member->stage == stage && member->layer == layer && member->tensor == tensor &&
                member->replica == replica)
                member->gradient = gradient;
        }
}

void pp_reduce_attach_weights(pp_reduce *reduce, int stage, int replica, void *parameters) {
    if (reduce->handed_count > 0) reduce->handed[stage].members[replica].gradient = parameters;
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

/* Of a party, which sums it; where it steps a part of the stage, what that has of the group. */
static int64_t slice_start(const pp_reduce_group *group, int index) {
    if (group->stage_count == 0) return part_start(group->count, group->party_count, index);
    int64_t at = shard_start(group->stage_count, group->party_count, index) - group->offset;
    return at < 0 ? 0 : at < group->count ? at : group->count;
}

static bool is_here(const pp_reduce *reduce, int party) {
    return !reduce->processes || reduce->process_of[party] == reduce->processes->process;
}

/* ---- between processes --------------------------------------------------------------------- */

/* A copy of a part of a gradient, which may then change at once. */
static pp_status ship(const pp_reduce *reduce, const pp_reduce_party *party, int to,
                      const pp_letter *letter, const unsigned char *bytes, pp_error *error) {
    if (letter->size_bytes == 0) return PP_OK;
    void *copy = pp_payload_new(reduce->processes, letter->size_bytes);
    if (!copy) return pp_fail_memory(error);
    party->backend->download(party->backend_state, copy, bytes, letter->size_bytes);
    return pp_post(reduce->processes, to, letter, copy, error);
}

static int slice_letter(const pp_reduce_group *group, int member, int slice) {
    return member * group->party_count + slice;
}

static size_t slice_bytes(const pp_reduce *reduce, const pp_reduce_group *group, int slice) {
    return (size_t)((slice_start(group, slice + 1) - slice_start(group, slice)) *
                    pp_dtype_bytes(reduce->dtype));
}

static pp_status keep_waiting(const pp_reduce *reduce, pp_patience *patience) {
    return atomic_load(&reduce->aborted) ? PP_E_INTERRUPTED : pp_patience_check(patience);
}

static pp_status await_letter(const pp_reduce *reduce, const pp_wanted *wanted,
                              const pp_watch *watch, double *waited_s, pp_parcel **came) {
    double before_s = pp_now_s();
    pp_patience patience = pp_patience_start(watch);
    pp_status status = PP_OK;
    while (!(*came = pp_inbox_wait(reduce->processes, wanted, PP_WAIT_SLICE_S)) && status == PP_OK)
        status = keep_waiting(reduce, &patience);
    *waited_s += pp_now_s() - before_s;
    return *came ? PP_OK : status;
}

/* ---- sums ---------------------------------------------------------------------------------- */

/* One party at some groups that go together. */
typedef struct sitting {
    pp_reduce *reduce;
    pp_reduce_group *head; /* the first group … */
    int head_number;       /* … and what letters call it */
    const pp_reduce_party *party;
    pp_watch *watch;
    double *waited_s;
    int index;               /* of the party */
    pp_parcel **all_parcels; /* [groups][members] from other processes; NULL: all are here */
    pp_reduce_group *group;  /* at hand … */
    int number;
    pp_parcel **parcels; /* [members] … slices of its gradients; NULL: all are here */
} sitting;

static void take_up(sitting *s, int i) {
    s->group = s->head + i;
    s->number = s->head_number + i;
    s->parcels = s->all_parcels ? s->all_parcels + i * s->head->member_count : NULL;
}

static pp_status in_each(sitting *s, pp_status (*part)(sitting *, pp_error *), pp_error *error) {
    for (int i = 0; i < s->head->together; i++) {
        take_up(s, i);
        PP_TRY(part(s, error));
    }
    return PP_OK;
}

static const unsigned char *gradient_at(const sitting *s, int member, int64_t from) {
    int64_t width = pp_dtype_bytes(s->reduce->dtype);
    if (!s->parcels || !s->parcels[member])
        return s->group->members[member].gradient + from * width;
    const unsigned char *slice = s->parcels[member]->payload;
    return slice + (from - slice_start(s->group, s->index)) * width;
}

/* Brings a member's gradient to where the backend adds. */
static const void *addend(const sitting *s, int member, int64_t from, size_t size_bytes) {
    const unsigned char *at = gradient_at(s, member, from);
    bool landed = s->parcels && s->parcels[member] && s->party->landing;
    if (!landed) return at;
    s->party->backend->upload(s->party->backend_state, s->party->landing, at, size_bytes);
    return s->party->landing;
}

/* Of two gradients in reach: into the party's own, since the order of two addends is all one. */
static void sum_two(sitting *s, unsigned char *own) {
    const pp_reduce_group *group = s->group;
    int64_t from = slice_start(group, s->index), end = slice_start(group, s->index + 1);
    int64_t at = from * pp_dtype_bytes(s->reduce->dtype);
    const pp_reduce_member *other = &group->members[group->members[0].gradient == own];
    if (end > from)
        s->party->backend->add(s->party->backend_state, s->reduce->dtype, own + at,
                               other->gradient + at, end - from);
}

static void sum_slice(sitting *s) {
    const pp_backend *backend = s->party->backend;
    void *state = s->party->backend_state, *buffer = s->party->buffer;
    int64_t width = pp_dtype_bytes(s->reduce->dtype), chunk = s->party->buffer_bytes / width;
    int64_t end = slice_start(s->group, s->index + 1);
    unsigned char *own = party_gradient(s->reduce, s->group, s->index);
    if (s->group->member_count == 2 && !s->parcels) {
        sum_two(s, own);
        return;
    }
    for (int64_t from = slice_start(s->group, s->index); from < end; from += chunk) {
        int64_t count = end - from < chunk ? end - from : chunk;
        size_t size_bytes = (size_t)(count * width);
        backend->copy(state, buffer, addend(s, 0, from, size_bytes), size_bytes);
        for (int i = 1; i < s->group->member_count; i++)
            backend->add(state, s->reduce->dtype, buffer, addend(s, i, from, size_bytes), count);
        backend->copy(state, own + from * width, buffer, size_bytes);
    }
}

/* The sum of slice k, wherever it was made. */
static void copy_sum(const sitting *s, unsigned char *target, int k) {
    const pp_backend *backend = s->party->backend;
    int64_t at = slice_start(s->group, k) * pp_dtype_bytes(s->reduce->dtype);
    size_t size_bytes = slice_bytes(s->reduce, s->group, k);
    if (size_bytes == 0) return;
    if (is_here(s->reduce, s->group->parties[k])) {
        const unsigned char *source = party_gradient(s->reduce, s->group, k);
        if (source != target)
            backend->copy(s->party->backend_state, target + at, source + at, size_bytes);
        return;
    }
    pp_wanted wanted = {PP_LETTER_SUM, s->number, k, -1, false};
    const pp_parcel *came = pp_inbox_wait(s->reduce->processes, &wanted, 0);
    backend->upload(s->party->backend_state, target + at, came->payload, size_bytes);
}

/* Every slice from its owner into all members of this party. */
static void gather_slices(sitting *s) {
    for (int i = 0; i < s->group->member_count; i++) {
        const pp_reduce_member *member = &s->group->members[i];
        if (party_of(s->reduce, member) != s->group->parties[s->index]) continue;
        for (int k = 0; k < s->group->party_count; k++) copy_sum(s, member->gradient, k);
    }
}

/* The slices that parties of other processes sum, of all of this party's gradients. */
static pp_status ship_gradients(sitting *s, pp_error *error) {
    const pp_reduce_group *group = s->group;
    int64_t width = pp_dtype_bytes(s->reduce->dtype);
    for (int i = 0; i < group->member_count; i++) {
        if (party_of(s->reduce, &group->members[i]) != group->parties[s->index]) continue;
        for (int k = 0; k < group->party_count; k++) {
            if (is_here(s->reduce, group->parties[k])) continue;
            pp_letter letter = {.kind = PP_LETTER_GRADIENT,
                                .number = s->number,
                                .part = slice_letter(group, i, k),
                                .size_bytes = slice_bytes(s->reduce, group, k)};
            PP_TRY(ship(s->reduce, s->party, s->reduce->process_of[group->parties[k]], &letter,
                        group->members[i].gradient + slice_start(group, k) * width, error));
        }
    }
    return PP_OK;
}

static bool has_party(const pp_reduce *reduce, const pp_reduce_group *group, int process) {
    for (int k = 0; k < group->party_count; k++)
        if (reduce->process_of[group->parties[k]] == process) return true;
    return false;
}

/* The summed slice to every other process that has a party. */
static pp_status ship_sum(sitting *s, pp_error *error) {
    const pp_reduce *reduce = s->reduce;
    const unsigned char *sum = party_gradient(reduce, s->group, s->index) +
                               slice_start(s->group, s->index) * pp_dtype_bytes(reduce->dtype);
    pp_letter letter = {.kind = PP_LETTER_SUM,
                        .number = s->number,
                        .part = s->index,
                        .size_bytes = slice_bytes(reduce, s->group, s->index)};
    for (int q = 0; q < reduce->processes->count; q++)
        if (q != reduce->processes->process && has_party(reduce, s->group, q))
            PP_TRY(ship(reduce, s->party, q, &letter, sum, error));
    return PP_OK;
}

/* ---- the order of events ------------------------------------------------------------------- */

static pp_status wait_gate(const sitting *s) {
    double before_s = pp_now_s();
    double opened_s = before_s;
    pp_status status = pp_gate_wait(&s->head->gate, s->watch, &opened_s);
    *s->waited_s += pp_now_s() - before_s;
    return status;
}

/* The party's part between two gates: what it did is done before the others go on. */
static pp_status work_between(sitting *s, void (*work)(sitting *), pp_error *error) {
    atomic_fetch_add(&s->watch->computing, 1);
    for (int i = 0; i < s->head->together; i++) {
        take_up(s, i);
        work(s);
    }
    pp_status status = s->party->backend->finish(s->party->backend_state, error);
    atomic_fetch_sub(&s->watch->computing, 1);
    return status;
}

/* The slices of this party's that other processes hold. */
static pp_status take_gradients(sitting *s, pp_error *error) {
    (void)error;
    if (slice_bytes(s->reduce, s->group, s->index) == 0) return PP_OK;
    for (int i = 0; i < s->group->member_count; i++) {
        if (is_here(s->reduce, party_of(s->reduce, &s->group->members[i]))) continue;
        pp_wanted wanted = {PP_LETTER_GRADIENT, s->number, slice_letter(s->group, i, s->index), -1,
                            true};
        PP_TRY(await_letter(s->reduce, &wanted, s->watch, s->waited_s, &s->parcels[i]));
    }
    return PP_OK;
}

static bool make_parcels(sitting *s) {
    size_t count = (size_t)(s->head->together * s->head->member_count);
    s->all_parcels = pp_allocate_zeroed(count, sizeof *s->all_parcels);
    return s->all_parcels != NULL;
}

static void free_parcels(sitting *s) {
    int count = s->head->together * s->head->member_count;
    for (int i = 0; s->all_parcels && i < count; i++)
        pp_parcel_free(s->reduce->processes, s->all_parcels[i]);
    pp_free(s->all_parcels);
}

/* The sums of other processes: present once this returns. */
static pp_status await_sums(sitting *s, pp_error *error) {
    (void)error;
    for (int k = 0; k < s->group->party_count; k++) {
        if (is_here(s->reduce, s->group->parties[k])) continue;
        if (slice_bytes(s->reduce, s->group, k) == 0) continue;
        pp_wanted wanted = {PP_LETTER_SUM, s->number, k, -1, false};
        pp_parcel *came;
        PP_TRY(await_letter(s->reduce, &wanted, s->watch, s->waited_s, &came));
    }
    return PP_OK;
}

/* Once nobody here reads them any more. */
static pp_status free_sums(sitting *s, pp_error *error) {
    (void)error;
    for (int k = 0; k < s->group->party_count; k++) {
        pp_wanted wanted = {PP_LETTER_SUM, s->number, k, -1, true};
        if (!is_here(s->reduce, s->group->parties[k]))
            pp_parcel_free(s->reduce->processes, pp_inbox_wait(s->reduce->processes, &wanted, 0));
    }
    return PP_OK;
}

static pp_status reduce_here(sitting *s, pp_error *error) {
    PP_TRY(wait_gate(s));
    PP_TRY(work_between(s, sum_slice, error));
    PP_TRY(wait_gate(s));
    if (s->head->stage_count > 0) return PP_OK;
    PP_TRY(work_between(s, gather_slices, error));
    return wait_gate(s);
}

/* Letters take the place of the gates between processes. */
static pp_status reduce_spread(sitting *s, pp_error *error) {
    if (!make_parcels(s)) return pp_fail_memory(error);
    PP_TRY(wait_gate(s));
    PP_TRY(in_each(s, ship_gradients, error));
    PP_TRY(in_each(s, take_gradients, error));
    PP_TRY(work_between(s, sum_slice, error));
    if (s->head->stage_count > 0) return wait_gate(s);
    PP_TRY(in_each(s, ship_sum, error));
    PP_TRY(in_each(s, await_sums, error));
    PP_TRY(wait_gate(s));
    PP_TRY(work_between(s, gather_slices, error));
    PP_TRY(wait_gate(s));
    return s->index == s->head->leader ? in_each(s, free_sums, error) : PP_OK;
}

/* As behind a sum: the slices are complete, and every party takes the others'. */
static pp_status hand_round(sitting *s, pp_error *error) {
    bool spread = s->head->here_count < s->head->party_count;
    PP_TRY(wait_gate(s));
    if (spread) {
        PP_TRY(in_each(s, ship_sum, error));
        PP_TRY(in_each(s, await_sums, error));
        PP_TRY(wait_gate(s));
    }
    PP_TRY(work_between(s, gather_slices, error));
    PP_TRY(wait_gate(s));
    return spread && s->index == s->head->leader ? in_each(s, free_sums, error) : PP_OK;
}

pp_status pp_reduce_hand_round(pp_reduce *reduce, int stage, const pp_reduce_party *party,
                               pp_watch *watch, double *waited_s, pp_error *error) {
    if (reduce->handed_count == 0) return PP_OK;
    pp_reduce_group *group = &reduce->handed[stage];
    sitting s = {.reduce = reduce,
                 .head = group,
                 .head_number = reduce->group_count + stage,
                 .party = party,
                 .watch = watch,
                 .waited_s = waited_s,
                 .index = party_index(group, party->rank * reduce->dp + party->replica)};
    return group->count > 0 ? hand_round(&s, error) : PP_OK;
}

pp_status pp_reduce_groups_run(pp_reduce *reduce, int first, const pp_reduce_party *party,
                               pp_watch *watch, double *waited_s, pp_error *error) {
    pp_reduce_group *head = &reduce->groups[first];
    int index = party_index(head, party->rank * reduce->dp + party->replica);
    if (index < 0) return PP_OK;
    sitting s = {.reduce = reduce,
                 .head = head,
                 .head_number = first,
                 .party = party,
                 .watch = watch,
                 .waited_s = waited_s,
                 .index = index};
    if (head->here_count == head->party_count) return reduce_here(&s, error);
    pp_status status = reduce_spread(&s, error);
    free_parcels(&s);
    return status;
}

void pp_reduce_abort(pp_reduce *reduce) {
    atomic_store(&reduce->aborted, true);
    if (reduce->processes) pp_inbox_wake(reduce->processes);
    for (int g = 0; g < reduce->gates_ready; g++) pp_gate_abort(&reduce->groups[g].gate);
    for (int s = 0; s < reduce->handed_count; s++) pp_gate_abort(&reduce->handed[s].gate);
}
