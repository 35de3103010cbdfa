/* `--split pipedream`: PipeDream's programme asked of a model and a cluster.
 *
 * Its cuts are those in which a source enters with a layer that reads it (lattice.c), its levels
 * the links inside nodes and between them. The bytes that it takes to cross a cut are not the
 * distinct tensors alive there: it counts the outputs of the cut's last layers, and for each of
 * those layers the outputs that it needs and that something else reads which it does not need,
 * even where that reader lies in front of the cut too. */
#include <math.h>
#include <string.h>

#include "planner/pipedream_internal.h"

/* ---- what crosses, as PipeDream counts it -------------------------------------------------- */

typedef struct needs {
    const pp_model *model;
    bool *of; /* [layers][layers] of[i][k]: layer i needs layer k */
} needs;

static bool needs_layer(const needs *n, int layer, int other) {
    return n->of[(size_t)layer * (size_t)n->model->layer_count + (size_t)other];
}

static pp_status find_needs(needs *n, const pp_model *model, pp_arena *arena, pp_error *error) {
    size_t layers = (size_t)model->layer_count;
    *n = (needs){model, PP_NEW(arena, bool, layers *layers)};
    if (n->of == NULL) return pp_fail_memory(error);
    for (int e = 0; e < model->edge_count; e++) { /* by rising start: complete when they are read */
        pp_edge edge = model->edges[e];
        bool *to = n->of + (size_t)edge.to * layers;
        const bool *from = n->of + (size_t)edge.from * layers;
        to[edge.from] = true;
        for (size_t k = 0; k < layers; k++) to[k] = to[k] || from[k];
    }
    return PP_OK;
}

static bool is_last(const needs *n, const pp_lattice *lattice, int cut, int layer) {
    for (int e = 0; e < n->model->edge_count; e++) {
        pp_edge edge = n->model->edges[e];
        if (edge.from == layer && pp_lattice_has(lattice, cut, edge.to)) return false;
    }
    return pp_lattice_has(lattice, cut, layer);
}

/* marked: [layers] false before. */
static void mark_alive(const needs *n, const pp_lattice *lattice, int cut, bool *marked) {
    for (int last = 0; last < lattice->layers; last++) {
        if (!is_last(n, lattice, cut, last)) continue;
        marked[last] = true;
        for (int e = 0; e < n->model->edge_count; e++) {
            pp_edge edge = n->model->edges[e];
            if (!needs_layer(n, last, edge.from) || edge.to == last) continue;
            if (!needs_layer(n, last, edge.to)) marked[edge.from] = true;
        }
    }
}

/* ---- sums ---------------------------------------------------------------------------------- */

static double output_bytes(const pp_layer *layer, int64_t samples, pp_dtype dtype) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int count = pp_layer_tensors(layer, samples, dtype, tensors);
    double bytes = 0;
    for (int t = 0; t < count; t++) {
        if (tensors[t].role == PP_TENSOR_OUTPUT) bytes += (double)pp_tensor_bytes(&tensors[t]);
    }
    return bytes;
}

static double parameter_bytes(const pp_layer *layer, pp_dtype dtype) {
    if (layer->op == PP_OP_OPAQUE) return (double)layer->parameter_bytes;
    return (double)pp_layer_parameters(layer) * (double)pp_dtype_bytes(dtype);
}

static void add_cut(pp_pipedream *problem, const needs *n, int cut, const double *compute,
                    const double *outputs, const double *parameters, bool *marked) {
    const pp_lattice *lattice = problem->lattice;
    memset(marked, 0, (size_t)lattice->layers * sizeof *marked);
    mark_alive(n, lattice, cut, marked);
    for (int l = 0; l < lattice->layers; l++) {
        if (marked[l]) problem->alive[cut] += outputs[l];
        if (!pp_lattice_has(lattice, cut, l)) continue;
        problem->compute[cut] += compute[l];
        problem->outputs[cut] += outputs[l];
        problem->parameters[cut] += parameters[l];
    }
}

pp_status pp_pipedream_sums(pp_pipedream *problem, const pp_model *model, const double *compute,
                            int64_t samples, pp_dtype dtype, pp_arena *arena, pp_error *error) {
    size_t cuts = (size_t)problem->lattice->count, layers = (size_t)model->layer_count;
    needs n;
    PP_TRY(find_needs(&n, model, arena, error));
    problem->compute = PP_NEW(arena, double, cuts);
    problem->outputs = PP_NEW(arena, double, cuts);
    problem->parameters = PP_NEW(arena, double, cuts);
    problem->alive = PP_NEW(arena, double, cuts);
    double *outputs = PP_NEW(arena, double, layers), *parameters = PP_NEW(arena, double, layers);
    bool *marked = PP_NEW(arena, bool, layers);
    if (arena->failed) return pp_fail_memory(error);
    for (int l = 0; l < model->layer_count; l++) {
        outputs[l] = output_bytes(&model->layers[l], samples, dtype);
        parameters[l] = parameter_bytes(&model->layers[l], dtype);
    }
    for (int cut = 0; cut < problem->lattice->count; cut++) {
        add_cut(problem, &n, cut, compute, outputs, parameters, marked);
    }
    return PP_OK;
}

/* ---- levels -------------------------------------------------------------------------------- */

static pp_status read_levels(pp_pipedream *problem, const pp_cluster *cluster, int machines,
                             pp_error *error) {
    if (cluster->node_kind_count > 1 || cluster->override_count > 0) {
        return pp_fail(error, PP_E_UNSUPPORTED, "--split",
                       "pipedream knows one kind of node and one bandwidth inside and between "
                       "nodes; %s has %s",
                       cluster->name,
                       cluster->override_count > 0 ? "overrides of links" : "several kinds");
    }
    int count = cluster->nodes[0].count;
    double inside = cluster->intra.bandwidth_bytes_per_s;
    double between = cluster->inter.bandwidth_bytes_per_s;
    if (machines > count && machines % count != 0) {
        return pp_fail(error, PP_E_INPUT, "--ranks",
                       "pipedream fills whole nodes: %d is not a multiple of the %d devices of a "
                       "node of %s",
                       machines, count, cluster->name);
    }
    problem->level_count = machines > count && count > 1 ? 2 : 1;
    problem->levels[0] = machines <= count ? (pp_pipedream_level){machines, inside}
                         : count > 1       ? (pp_pipedream_level){count, inside}
                                           : (pp_pipedream_level){machines, between};
    problem->levels[1] = (pp_pipedream_level){machines / count, between};
    return PP_OK;
}

static double limit_of(const pp_tables *tables, int machines) {
    int64_t least = INT64_MAX;
    for (int i = 0; i < machines; i++) {
        int64_t memory = pp_cluster_device(tables->cluster, i)->memory_bytes;
        if (memory < least) least = memory;
    }
    int64_t asked = tables->request->memory_bytes;
    return (double)(asked > 0 ? asked : least);
}

/* More cuts than this take longer than a user would wait for. */
enum { CUTS_MAX = 4096 };

static pp_status find_cuts(const pp_model *model, pp_arena *arena, pp_lattice *lattice,
                           pp_error *error) {
    PP_TRY(pp_lattice_make(model, PP_CUTS_TOUCHED, CUTS_MAX, arena, lattice, error));
    if (lattice->family == PP_CUTS_TOUCHED) return PP_OK;
    /* Parts that nothing leads to from the first source, which PipeDream would leave out. */
    PP_TRY(pp_lattice_make(model, PP_CUTS_ALL, CUTS_MAX, arena, lattice, error));
    if (lattice->family == PP_CUTS_ALL) return PP_OK;
    return pp_fail(error, PP_E_UNSUPPORTED, "--split",
                   "%s can be cut in more than %d places, too many for pipedream's programme; "
                   "--split optimal and bottleneck look at good ones among them",
                   model->name, CUTS_MAX);
}

/* timing: expanded, of the file's order. */
static pp_status ask(const pp_tables *tables, const pp_timing *timing, int machines, bool straight,
                     pp_lattice *lattice, pp_arena *arena, pp_pipedream_answer *answer,
                     pp_error *error) {
    pp_pipedream problem = {.straight = straight, .limit_bytes = limit_of(tables, machines)};
    double *compute = PP_NEW(arena, double, tables->layers);
    if (compute == NULL) return pp_fail_memory(error);
    for (int i = 0; i < tables->layers; i++) {
        compute[i] = timing->forward_each[i] + timing->input_each[i] + timing->weight_each[i];
    }
    if (lattice->count == 0) PP_TRY(find_cuts(tables->model, arena, lattice, error));
    problem.lattice = lattice;
    PP_TRY(read_levels(&problem, tables->cluster, machines, error));
    PP_TRY(pp_pipedream_sums(&problem, tables->model, compute, timing->samples,
                             tables->request->dtype, arena, error));
    return pp_pipedream_solve(&problem, arena, answer, error);
}

static bool to_order(const pp_lattice *lattice, const pp_pipedream_answer *answer, pp_arena *arena,
                     int *order, int *positions) {
    int *splits = PP_NEW(arena, int, answer->count);
    if (splits == NULL) return false;
    for (int s = 1; s < answer->count; s++) splits[s - 1] = answer->stages[s].from;
    pp_lattice_order(lattice, splits, answer->count, order, positions);
    return true;
}

/* ---- without replicas ---------------------------------------------------------------------- */

pp_status pp_pipedream_cut(const pp_views *views, const pp_candidate *candidate, pp_arena *arena,
                           int *order, int *splits, double *seconds, pp_error *error) {
    const pp_tables *base = views->base;
    pp_lattice lattice = {0};
    pp_pipedream_answer answer;
    *seconds = INFINITY;
    if (candidate->virtual_stages > 1 || candidate->ranks > base->layers) return PP_OK;
    pp_status status =
        ask(base, candidate->timing, candidate->ranks, true, &lattice, arena, &answer, error);
    if (status == PP_E_NO_FIT) return PP_OK;
    PP_TRY(status);
    *seconds = answer.seconds;
    return to_order(&lattice, &answer, arena, order, splits) ? PP_OK : pp_fail_memory(error);
}

/* ---- with replicas ------------------------------------------------------------------------- */

static pp_status check_request(const pp_plan_request *request, int machines, int devices,
                               pp_error *error) {
    if (request->tp > 1 || request->virtual_stages > 1) {
        return pp_fail(error, PP_E_INPUT, "--split",
                       "pipedream knows neither tensor-parallel ranks nor virtual stages; leave "
                       "out --tp and --virtual");
    }
    if (machines <= devices) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "--ranks", "%d machines are more than the %d devices of %s",
                   machines, devices, request->cluster->name);
}

static int64_t samples_of(const pp_plan_request *request) {
    if (request->microbatch_size > 0) return request->microbatch_size;
    if (request->microbatches == 0) return 1;
    return (request->global_batch + request->microbatches - 1) / request->microbatches;
}

static pp_status time_layers(pp_tables *tables, int machines, pp_timing **timing, pp_arena *arena,
                             pp_error *error) {
    int *devices = PP_NEW(arena, int, machines);
    if (devices == NULL) return pp_fail_memory(error);
    for (int i = 0; i < machines; i++) devices[i] = i;
    const pp_kinds *kinds = pp_tables_kinds(tables, devices, machines);
    if (kinds == NULL) return pp_fail_memory(error);
    pp_division undivided = {.weights = tables->whole};
    int64_t samples = samples_of(tables->request);
    PP_TRY(pp_tables_timing(tables, kinds, undivided, samples, 1, timing, error));
    return pp_tables_expand(tables, *timing, error);
}

static bool is_straight(const pp_pipedream_answer *answer, int machines) {
    return answer->count == machines; /* all machines are used */
}

static pp_status tell(const pp_pipedream_answer *answer, int machines, pp_text *text,
                      pp_error *error) {
    pp_text_printf(text,
                   "PipeDream's programme makes %d stages of %d machines; in a steady state a "
                   "microbatch leaves every %.6g s.\n"
                   "Stages have replicas of their own, which ppsim can neither simulate nor run; "
                   "--dp 1 asks for a plan without them.\n",
                   answer->count, machines, answer->seconds);
    return text->failed ? pp_fail_memory(error) : PP_OK;
}

static pp_status hand_out(const pp_lattice *lattice, const pp_pipedream_answer *answer, int layers,
                          pp_arena *arena, pp_plan_split *split, pp_error *error) {
    int *positions = PP_NEW(arena, int, answer->count);
    split->order = pp_allocate((size_t)layers * sizeof *split->order);
    split->stages = pp_allocate((size_t)answer->count * sizeof *split->stages);
    if (positions == NULL || split->order == NULL || split->stages == NULL ||
        !to_order(lattice, answer, arena, split->order, positions)) {
        return pp_fail_memory(error);
    }
    split->stage_count = answer->count;
    for (int s = 0; s < answer->count; s++) {
        split->stages[s] = (pp_split_stage){
            .first = s == 0 ? 0 : positions[s - 1],
            .last = (s == answer->count - 1 ? layers : positions[s]) - 1,
            .replicas = answer->stages[s].replicas,
            .seconds = answer->stages[s].seconds};
    }
    split->bottleneck_s = split->lower_bound_s = answer->seconds;
    return PP_OK;
}

pp_status pp_pipedream_replicate(pp_tables *tables, pp_arena *arena, pp_plan_result *result,
                                 bool *replicated, pp_error *error) {
    const pp_plan_request *request = tables->request;
    int devices = pp_cluster_device_count(tables->cluster);
    int machines = request->ranks > 0 ? request->ranks : devices;
    pp_timing *timing;
    pp_lattice lattice = {0};
    pp_pipedream_answer answer;
    PP_TRY(check_request(request, machines, devices, error));
    PP_TRY(time_layers(tables, machines, &timing, arena, error));
    pp_status status = ask(tables, timing, machines, false, &lattice, arena, &answer, error);
    if (status == PP_E_NO_FIT) {
        return pp_fail(error, PP_E_NO_FIT, "--memory",
                       "nothing fits by pipedream's rule of memory on %d machines", machines);
    }
    PP_TRY(status);
    *replicated = !is_straight(&answer, machines);
    if (!*replicated) return PP_OK;
    PP_TRY(hand_out(&lattice, &answer, tables->layers, arena, &result->split, error));
    return tell(&answer, machines, &result->explanation, error);
}
