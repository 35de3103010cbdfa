/* The order of a candidate as a graph, and its longest paths as linear functions of the split.
 *
 * Node: an action. Edges: from the action before it on its rank, and from the action whose result
 * it needs (F of the stage before, B or I of the stage behind, each over its link; I for W). At the
 * end of a rank its stages' reductions and optimizer steps. Every path through this graph is a
 * lower bound of the step time, whatever the split: its length is
 *
 *     Σ over stages of (f_s F_s + r_s R_s + i_s I_s + w_s W_s + u_s U_s) + Σ over borders of bytes
 *     + what does not depend on the split,
 *
 * with the counts of the actions and transfers on it. Left out, so that what is here holds for
 * every split: waits for lanes and cards that transfers share, for other stages of a tied matrix,
 * and for the other half of an overlapped pair (whose halves are taken one after the other, the
 * second after the first, which is never later than as one).
 *
 * A mix is a weighted mean of splits; the longest path for its mean stage times is the row that
 * serves best against all of its splits at once (search_game.c). */
#include <math.h>
#include <string.h>

#include "planner/game_internal.h"

#define PATH_ACTIONS_MAX 1000000

typedef enum path_link { OVER_NOTHING, OVER_FORWARD, OVER_BACKWARD } path_link;

enum { KIND_F, KIND_R, KIND_I, KIND_W, KIND_B, KIND_U, KINDS };

struct pp_path_node {
    int32_t before, needs; /* nodes, or -1 */
    uint16_t stage;
    uint8_t kind, link; /* that the result comes over */
    bool small;         /* of the last microbatch */
};
typedef struct pp_path_node node;

/* ---- the graph ----------------------------------------------------------------------------- */

typedef struct builder {
    pp_paths *paths;
    const pp_schedule *order;
    int32_t *forward, *backward; /* [stages][microbatches] nodes of F, of B or I; -1: not yet */
    size_t *next;                /* [ranks] */
    int32_t *last;               /* [ranks] */
} builder;

static const int8_t kind_of[] = {[PP_FORWARD] = KIND_F,
                                 [PP_BACKWARD] = KIND_B,
                                 [PP_INPUT] = KIND_I,
                                 [PP_WEIGHT] = KIND_W,
                                 [PP_RECOMPUTE] = KIND_R};

static size_t cell(const builder *b, int stage, uint32_t microbatch) {
    return (size_t)stage * (size_t)b->order->microbatches + microbatch;
}

/* The node whose result the action needs: -1 none, -2 not there yet. */
static int32_t needed_by(const builder *b, pp_action a, uint8_t *link) {
    int s = a.stage, other = -1, stages = b->paths->terms->stages;
    const int32_t *table = b->forward;
    *link = OVER_NOTHING;
    if (a.kind == PP_FORWARD && s % stages > 0) other = s - 1;
    if (a.kind == PP_BACKWARD || a.kind == PP_INPUT) {
        bool turns = s % stages == stages - 1;
        other = turns ? s : s + 1;
        if (!turns) table = b->backward;
    }
    if (a.kind == PP_WEIGHT) other = s, table = b->backward;
    if (other < 0) return -1;
    int32_t found = table[cell(b, other, a.microbatch)];
    if (found < 0) return -2;
    if (b->order->placement[other] != b->order->placement[s]) {
        *link = other < s ? OVER_FORWARD : OVER_BACKWARD;
    }
    return found;
}

static void add_node(builder *b, int rank, node n) {
    n.before = b->last[rank];
    b->last[rank] = (int32_t)b->paths->count;
    b->paths->nodes[b->paths->count++] = n;
}

/* Goes on with one rank as far as it can. False: nothing happened. */
static bool advance(builder *b, int rank) {
    const pp_schedule *order = b->order;
    size_t start = b->next[rank];
    for (; b->next[rank] < order->first_action[rank + 1]; b->next[rank]++) {
        pp_action a = order->actions[b->next[rank]];
        if (!pp_action_is_compute(a)) continue;
        node n = {.stage = a.stage, .kind = (uint8_t)kind_of[a.kind]};
        uint8_t link;
        n.needs = needed_by(b, a, &link);
        if (n.needs == -2) break;
        n.link = link;
        bool in_last_chain = a.stage >= b->paths->terms->copies - b->paths->terms->stages;
        n.small = in_last_chain && (int)a.microbatch == order->microbatches - 1;
        add_node(b, rank, n);
        int32_t here = b->last[rank];
        if (a.kind == PP_FORWARD) b->forward[cell(b, a.stage, a.microbatch)] = here;
        if (a.kind == PP_BACKWARD || a.kind == PP_INPUT) {
            b->backward[cell(b, a.stage, a.microbatch)] = here;
        }
    }
    return b->next[rank] != start;
}

static bool build(builder *b) {
    const pp_schedule *order = b->order;
    for (bool moved = true; moved;) {
        moved = false;
        for (int p = 0; p < order->ranks; p++) moved = advance(b, p) || moved;
    }
    for (int p = 0; p < order->ranks; p++) {
        if (b->next[p] != order->first_action[p + 1]) return false;
    }
    for (int s = 0; s < order->stages; s++) {
        node n = {.needs = -1, .stage = (uint16_t)s, .kind = KIND_U};
        add_node(b, order->placement[s], n);
    }
    return true;
}

pp_status pp_paths_init(pp_paths *paths, const pp_terms *terms, const pp_schedule *order,
                        pp_arena *arena, pp_error *error) {
    size_t actions = order->first_action[order->ranks] + (size_t)order->stages;
    size_t cells = (size_t)order->stages * (size_t)order->microbatches;
    *paths = (pp_paths){.terms = terms};
    if (actions > PATH_ACTIONS_MAX || order->slices > 1) return PP_OK;
    builder b = {.paths = paths,
                 .order = order,
                 .forward = PP_NEW(arena, int32_t, cells),
                 .backward = PP_NEW(arena, int32_t, cells),
                 .next = PP_NEW(arena, size_t, order->ranks),
                 .last = PP_NEW(arena, int32_t, order->ranks)};
    paths->nodes = PP_NEW(arena, node, actions);
    paths->ends = PP_NEW(arena, double, actions);
    paths->times = PP_NEW(arena, double, (size_t)terms->copies * 2 * KINDS);
    paths->links = PP_NEW(arena, double, (size_t)terms->copies * 2);
    if (arena->failed) return pp_fail_memory(error);
    for (size_t i = 0; i < cells; i++) b.forward[i] = b.backward[i] = -1;
    for (int p = 0; p < order->ranks; p++) {
        b.next[p] = order->first_action[p];
        b.last[p] = -1;
    }
    if (!build(&b)) paths->count = 0;
    return PP_OK;
}

/* ---- the longest path ---------------------------------------------------------------------- */

static double *time_of(const pp_paths *paths, int stage, int kind, bool small) {
    return &paths->times[((size_t)stage * KINDS + (size_t)kind) * 2 + small];
}

static void set_times(pp_paths *paths, const pp_mix *mix) {
    const pp_terms *terms = paths->terms;
    double overhead = terms->tables->overhead_s;
    for (int s = 0; s < terms->copies; s++) {
        const pp_mix *m = &mix[s];
        double input = m->input_s + m->again_s / terms->visits[s / terms->stages];
        double full[KINDS] = {[KIND_F] = m->forward_s + overhead,
                              [KIND_R] = m->recompute_s + overhead,
                              [KIND_I] = input + overhead,
                              [KIND_W] = m->weight_s + overhead,
                              [KIND_B] = input + m->weight_s + overhead,
                              [KIND_U] = m->update_s};
        for (int k = 0; k < KINDS; k++) {
            *time_of(paths, s, k, false) = full[k];
            *time_of(paths, s, k, true) = full[k] * terms->candidate->last_scale;
        }
        const pp_line *there = &terms->forward[s], *back = &terms->backward[s];
        double latency = fmax(there->fixed_s, back->fixed_s);
        paths->links[2 * s] = latency + m->border_bytes * there->per_byte_s;
        paths->links[2 * s + 1] = latency + m->border_bytes * back->per_byte_s;
    }
}

static double arrival(const pp_paths *paths, const node *n) {
    if (n->needs < 0) return 0;
    double end = paths->ends[n->needs];
    if (n->link == OVER_FORWARD) return end + paths->links[2 * (n->stage - 1)];
    if (n->link == OVER_BACKWARD) return end + paths->links[2 * n->stage + 1];
    return end;
}

static double walk(pp_paths *paths, size_t *latest) {
    double most = -1;
    for (size_t i = 0; i < paths->count; i++) {
        const node *n = &paths->nodes[i];
        double start = n->before >= 0 ? paths->ends[n->before] : 0, come = arrival(paths, n);
        if (come > start) start = come;
        double end = start + *time_of(paths, n->stage, n->kind, n->small);
        paths->ends[i] = end;
        if (end > most) most = end, *latest = i;
    }
    return most;
}

static void count_node(const pp_paths *paths, const node *n, pp_row *row) {
    const pp_terms *terms = paths->terms;
    pp_row_stage *s = &row->stages[n->stage];
    double scale = n->small ? terms->candidate->last_scale : 1;
    if (n->kind == KIND_F) s->forward += scale;
    if (n->kind == KIND_R) s->recompute += scale;
    if (n->kind == KIND_I || n->kind == KIND_B) s->input += scale;
    if (n->kind == KIND_W || n->kind == KIND_B) s->weight += scale;
    if (n->kind == KIND_U) s->update += 1;
    if (n->kind != KIND_U) row->fixed_s += scale * terms->tables->overhead_s;
}

static void count_link(const pp_paths *paths, const node *n, pp_row *row) {
    if (n->link == OVER_NOTHING) return;
    const pp_terms *terms = paths->terms;
    bool forward = n->link == OVER_FORWARD;
    int s = forward ? n->stage - 1 : n->stage;
    const pp_line *there = &terms->forward[s], *back = &terms->backward[s];
    row->fixed_s += fmax(there->fixed_s, back->fixed_s);
    row->stages[s].border_byte_s += forward ? there->per_byte_s : back->per_byte_s;
}

double pp_paths_longest(pp_paths *paths, const pp_mix *mix, pp_row *row) {
    size_t at = 0;
    set_times(paths, mix);
    double seconds = walk(paths, &at);
    row->fixed_s = 0;
    memset(row->stages, 0, (size_t)paths->terms->copies * sizeof *row->stages);
    for (int32_t i = (int32_t)at; i >= 0;) {
        const node *n = &paths->nodes[i];
        count_node(paths, n, row);
        double before = n->before >= 0 ? paths->ends[n->before] : 0;
        bool waited = arrival(paths, n) > before;
        if (waited) count_link(paths, n, row);
        i = waited ? n->needs : n->before;
    }
    return seconds;
}

/* ---- mixes --------------------------------------------------------------------------------- */

const pp_timing *pp_terms_timing(const pp_terms *terms, int stage) {
    const pp_kinds *kinds = terms->candidate->arrangement->rank_kinds[terms->placement[stage]];
    return terms->on_kind[kinds->kinds[0]];
}

/* The cheaper of several lines is concave, so the chord over all bytes there are lies below it. */
static pp_line reduce_line(const pp_terms *terms, int stage) {
    if (terms->mode.dp == 1) return (pp_line){0, 0};
    const pp_all_reduce *reduce = &terms->reduce[terms->placement[stage]];
    const pp_weights *weights = terms->timing->division.weights;
    double bytes = (double)weights->own_bytes[terms->tables->layers];
    double least = pp_all_reduce_s(reduce, 0), most = pp_all_reduce_s(reduce, bytes);
    return (pp_line){least, bytes > 0 ? (most - least) / bytes : 0};
}

pp_line pp_terms_update_line(const pp_terms *terms, int stage) {
    const pp_tied_end *end = &terms->tied_end;
    pp_line line = reduce_line(terms, stage);
    bool ends = stage % terms->stages == terms->stages - 1;
    bool apart = end->owner >= 0 && end->owner < terms->stages - 1; /* in every split */
    if (ends && apart) line.fixed_s += end->step_s + end->bytes * line.per_byte_s;
    return line;
}

static double between(const double *sums, int first, int end) {
    return sums[end] - sums[first];
}

void pp_mix_add(const pp_terms *terms, const int *splits, double share, pp_mix *mix) {
    const pp_tables *tables = terms->tables;
    const int64_t *own_bytes = terms->timing->division.weights->own_bytes;
    for (int s = 0; s < terms->copies; s++) {
        const pp_timing *t = pp_terms_timing(terms, s);
        int i = s % terms->stages, first = i == 0 ? 0 : splits[i - 1];
        int end = i == terms->stages - 1 ? tables->layers : splits[i];
        double forward = between(t->forward, first, end);
        pp_line reduce = pp_terms_update_line(terms, s);
        double bytes = (double)(own_bytes[end] - own_bytes[first]);
        double step = between(t->own_update, first, end) / terms->mode.shards;
        mix[s].forward_s += share * forward;
        if (terms->mode.recompute) mix[s].recompute_s += share * forward;
        mix[s].input_s += share * between(t->input, first, end);
        mix[s].weight_s += share * between(t->weight, first, end);
        mix[s].update_s += share * (step + reduce.fixed_s + reduce.per_byte_s * bytes);
        mix[s].border_bytes += share * (double)t->border_bytes[end];
    }
}
