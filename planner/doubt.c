/* How far a step time may be off because what it was computed from was measured, and measurements
 * scatter.
 *
 * A cost is the time of one layer's phase at one microbatch size on one kind of device: layers with
 * equal signatures were measured together, so all their times are off together. The store's fit
 * says by how much it may be off, as half of a 95 % interval (pp_fit.relative_error). Each cost in
 * turn is made so much larger in every stage that it is part of, and the step is simulated again:
 * that is what the step owes to this cost, d_i. Costs are measured apart from each other, so what
 * they do adds up as for independent errors, to first order:
 *
 *     of a step time        sqrt(Σ d_i²)
 *     of A less B           sqrt(Σ (d_i(A) − d_i(B))²)
 *
 * where a cost that both plans use makes both longer, and much of the difference it makes is none.
 * Two plans whose step times differ by less than that are ties: measured again, the other might
 * come first. The same layer at two microbatch sizes counts as two costs, which is on the safe
 * side. Costs that were not measured are of unknown error, and count for nothing here: a plan
 * without a measured cost has no known doubt. */
#include <math.h>
#include <string.h>

#include "planner/planner_internal.h"

/* What may be simulated for one plan, in actions; beyond, the doubt is not known. */
#define ACTIONS_MAX 2e7

static const pp_phase phases[] = {PP_PHASE_FORWARD, PP_PHASE_INPUT, PP_PHASE_WEIGHT,
                                  PP_PHASE_OPTIMIZER};
enum { PHASES = sizeof phases / sizeof *phases };

/* One layer's phase in one stage. */
typedef struct part {
    int cost; /* which; -1: not measured */
    double error_s;
} part;

typedef struct survey {
    const pp_costs *costs;
    const pp_plan *plan;
    pp_arena *arena;
    pp_memo known;  /* key → index of a cost, plus one */
    uint64_t *keys; /* [count] */
    part **parts;   /* [stages] → [layers of the stage][PHASES] */
    int count, room;
} survey;

static int kind_of_rank(const pp_plan *plan, int rank) {
    int device = plan->devices[(size_t)rank * (size_t)plan->dp * (size_t)plan->tp];
    return (int)(pp_cluster_device(plan->cluster, device) - plan->cluster->devices);
}

static uint64_t key_of(const pp_plan *plan, pp_cost_query query) {
    char signature[PP_SIGNATURE_LENGTH];
    uint64_t key = pp_mix64((uint64_t)query.phase + 1, (uint64_t)query.tp);
    key = pp_mix64(key, query.phase == PP_PHASE_OPTIMIZER ? 0 : (uint64_t)query.samples);
    key = pp_mix64(key, (uint64_t)query.kind);
    for (const char *c = pp_layer_signature(&plan->model->layers[query.layer], signature); *c; c++)
        key = pp_mix64(key, (uint64_t)(unsigned char)*c);
    return key | 1;
}

static pp_status add_cost(survey *v, uint64_t key, int *index, pp_error *error) {
    int64_t found;
    if (pp_memo_find(&v->known, key, &found)) {
        *index = (int)found - 1;
        return PP_OK;
    }
    if (v->count == v->room) {
        int room = 2 * v->room + 16;
        uint64_t *grown = PP_NEW(v->arena, uint64_t, room);
        if (grown == NULL) return pp_fail_memory(error);
        if (v->count > 0) memcpy(grown, v->keys, (size_t)v->count * sizeof *grown);
        v->keys = grown;
        v->room = room;
    }
    v->keys[v->count] = key;
    *index = v->count++;
    return pp_memo_put(&v->known, key, v->count) ? PP_OK : pp_fail_memory(error);
}

static pp_status ask_part(survey *v, int s, int position, pp_phase phase, part *made,
                          pp_error *error) {
    const pp_plan *plan = v->plan;
    pp_cost_query query = {.kind = kind_of_rank(plan, plan->placement[s]),
                           .layer = plan->order[position],
                           .phase = phase,
                           .samples = plan->microbatch_size,
                           .tp = plan->tp};
    pp_cost cost = pp_costs_ask(v->costs, query);
    *made = (part){.cost = -1, .error_s = cost.seconds * cost.relative_error};
    if (cost.source != PP_COST_MEASURED || !(made->error_s > 0)) return PP_OK;
    return add_cost(v, key_of(plan, query), &made->cost, error);
}

static pp_status ask_stage(survey *v, int s, pp_error *error) {
    const pp_stage *stage = &v->plan->stages[s];
    int layers = stage->last - stage->first + 1;
    part *parts = v->parts[s] = PP_NEW(v->arena, part, layers * PHASES);
    if (parts == NULL) return pp_fail_memory(error);
    for (int i = 0; i < layers * PHASES; i++)
        PP_TRY(ask_part(v, s, stage->first + i / PHASES, phases[i % PHASES], &parts[i], error));
    return PP_OK;
}

/* Adds what one cost may be off to the times of a stage; what is recomputed repeats F. */
static void enlarge(const survey *v, int s, int cost, pp_stage *stage) {
    double more[PHASES] = {0};
    int count = (stage->last - stage->first + 1) * PHASES;
    for (int i = 0; i < count; i++)
        if (v->parts[s][i].cost == cost) more[i % PHASES] += v->parts[s][i].error_s;
    if (stage->forward_s > 0) stage->recompute_s *= 1 + more[0] / stage->forward_s;
    stage->forward_s += more[0];
    stage->input_s += more[1];
    stage->weight_s += more[2];
    stage->optimizer_s += more[3];
}

static pp_status time_with(const survey *v, const pp_schedule *expanded, int cost, double *seconds,
                           pp_error *error) {
    pp_plan changed = *v->plan;
    pp_arena arena;
    pp_sim_input input;
    pp_sim_result *result = NULL;
    pp_arena_init(&arena);
    changed.stages = PP_NEW(&arena, pp_stage, changed.stage_count);
    pp_status status = changed.stages == NULL ? pp_fail_memory(error) : PP_OK;
    for (int s = 0; s < changed.stage_count && status == PP_OK; s++) {
        changed.stages[s] = v->plan->stages[s];
        enlarge(v, s, cost, &changed.stages[s]);
    }
    if (status == PP_OK) status = pp_plan_sim_input(&changed, expanded, &arena, &input, error);
    if (status == PP_OK) status = pp_simulate(&input, &result, error);
    if (status == PP_OK) *seconds = result->makespan_s;
    pp_sim_result_free(result);
    pp_arena_deinit(&arena);
    return status;
}

static pp_status try_costs(const survey *v, pp_doubts *doubts, pp_error *error) {
    pp_schedule *expanded;
    double seconds, squares = 0;
    PP_TRY(pp_plan_expand(v->plan, &expanded, error));
    double actions = (double)expanded->first_action[expanded->ranks] * v->count;
    pp_status status = PP_OK;
    doubts->known = actions <= ACTIONS_MAX;
    for (int i = 0; i < v->count && doubts->known && status == PP_OK; i++) {
        status = time_with(v, expanded, i, &seconds, error);
        if (status != PP_OK) break;
        doubts->each[i] = (pp_doubt){v->keys[i], seconds - v->plan->predicted.iteration_time_s};
        squares += doubts->each[i].seconds * doubts->each[i].seconds;
    }
    doubts->count = v->count;
    doubts->step_s = doubts->known ? sqrt(squares) : NAN;
    pp_schedule_free(expanded);
    return status;
}

static pp_status take_survey(survey *v, pp_error *error) {
    int stages = v->plan->stage_count;
    v->parts = PP_NEW(v->arena, part *, stages);
    if (v->parts == NULL) return pp_fail_memory(error);
    for (int s = 0; s < stages; s++) PP_TRY(ask_stage(v, s, error));
    return PP_OK;
}

pp_status pp_doubts_find(const pp_costs *costs, const pp_plan *plan, pp_arena *arena,
                         pp_doubts *doubts, pp_error *error) {
    survey v = {.costs = costs, .plan = plan, .arena = arena};
    *doubts = (pp_doubts){.step_s = NAN};
    pp_status status = take_survey(&v, error);
    if (status == PP_OK && v.count > 0) {
        doubts->each = PP_NEW(arena, pp_doubt, v.count);
        status = doubts->each == NULL ? pp_fail_memory(error) : try_costs(&v, doubts, error);
    }
    pp_memo_deinit(&v.known);
    return status;
}

static double doubt_of(const pp_doubts *doubts, uint64_t cost, bool *found) {
    for (int i = 0; i < doubts->count; i++)
        if (doubts->each[i].cost == cost) {
            *found = true;
            return doubts->each[i].seconds;
        }
    *found = false;
    return 0;
}

double pp_doubts_between(const pp_doubts *a, const pp_doubts *b) {
    double squares = 0;
    bool found;
    if (!a->known || !b->known) return NAN;
    for (int i = 0; i < a->count; i++) {
        double more = a->each[i].seconds - doubt_of(b, a->each[i].cost, &found);
        squares += more * more;
    }
    for (int i = 0; i < b->count; i++) {
        doubt_of(a, b->each[i].cost, &found);
        if (!found) squares += b->each[i].seconds * b->each[i].seconds;
    }
    return sqrt(squares);
}
