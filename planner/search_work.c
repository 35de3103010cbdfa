/* One candidate: from "K ranks, M microbatches, this schedule" to its best split and step time.
 *
 * The order of actions is built once; it gives each stage's slots, its microbatches in flight and
 * so the bytes that any interval of layers would need there. Two chain cuts then give the splits to
 * start from: the one with the least proved bound (pp_bound_stage: it knows filling and draining)
 * and the one with the least slowest stage or transfer. The simulator decides between them, and
 * refinement (search_refine.c) goes on from the better one.
 *
 * With one stage on each rank a stage's need is its rank's need, so a split in which all stages fit
 * fits. With several it is only a part of it; then the whole is checked when a split is tried, and
 * where it fails the cut is repeated with each stage held to its share of the limit, and layers are
 * moved until every rank fits (search_fit.c). More starting points come from putting the longer
 * stages into one run along the chain, and from the game (search_game.c) that bounds them all. */
#include <math.h>
#include <string.h>

#include "planner/game_internal.h"
#include "planner/pipedream_internal.h"

#define CUT_EFFORT 5     /* an interval of layers as a stage, in simulated actions */
#define START_EFFORT 0.5 /* building an order and looking it through, in simulations of it */
#define RUN_ACTIONS 5e5  /* simulated to find where longer stages go best */
/* Likewise, a layer of the model while the memory of a stage is laid out. Of a chain few are, since
 * stages that look alike need the same. */
#define LAYOUT_EFFORT 25
enum { RUNS_MIN = 8 };

void pp_work_init(pp_work *work, pp_views *views, const pp_split_method *method) {
    *work = (pp_work){.views = views, .method = method};
    pp_arena_init(&work->arena);
}

static void drop_candidate(pp_work *work) {
    pp_schedule_free(work->order);
    pp_schedule_free(work->expanded);
    work->order = work->expanded = NULL;
    work->view = work->best_view = NULL;
    pp_memo_clear(&work->needs);
    pp_arena_reset(&work->arena);
}

void pp_work_deinit(pp_work *work) {
    drop_candidate(work);
    pp_memo_deinit(&work->needs);
    pp_arena_deinit(&work->arena);
}

bool pp_work_must_stop(const pp_work *work) {
    if (pp_stop_signal() != 0) return true;
    return work->deadline_s > 0 && pp_now_s() > work->deadline_s;
}

bool pp_work_gives_up(const pp_work *work) {
    if (pp_stop_signal() != 0) return true;
    return work->found != NULL && atomic_load(work->found) && pp_work_must_stop(work);
}

void pp_work_interval(const pp_work *work, const int *splits, int stage, int *first, int *last) {
    *first = stage == 0 ? 0 : splits[stage - 1];
    *last = stage == work->terms.stages - 1 ? work->tables->layers - 1 : splits[stage] - 1;
}

/* ---- what follows from the order ----------------------------------------------------------- */

/* Activations held at the peak, where bytes follow from that number alone: one stage on the rank,
 * no I without its W, and no slices, whose parts are rounded. */
static void count_alive(pp_work *work) {
    const pp_schedule *order = work->order;
    if (work->candidate->family->splits_backward || order->virtual_stages > 1) return;
    if (order->slices > 1) return;
    for (int s = 0; s < order->stages; s++) {
        work->probe[s].activation = 1;
        pp_peak_bytes peak =
            pp_rank_peak_bytes(order, order->placement[s], work->probe, NULL, NULL, NULL);
        work->probe[s].activation = 0;
        work->alive[s] = peak.total > 0 ? (int)peak.total : 0;
    }
}

/* Stages that hold as many activations and slots need the same; others are followed one by one. */
static void find_alike(pp_work *work) {
    for (int s = 0; s < work->order->stages; s++) {
        int other = work->alive[s] > 0 ? 0 : s;
        while (other < s && (work->alive[other] != work->alive[s] ||
                             work->input_slots[other] != work->input_slots[s] ||
                             work->gradient_slots[other] != work->gradient_slots[s]))
            other++;
        work->alike[s] = other;
    }
}

static pp_status build_order(pp_work *work, pp_error *error) {
    const pp_candidate *c = work->candidate;
    pp_schedule_request request = {.name = c->family->name,
                                   .ranks = c->ranks,
                                   .microbatches = c->microbatches,
                                   .virtual_stages = c->virtual_stages,
                                   .slices = pp_candidate_slices(c),
                                   .recompute = pp_candidate_policy(c)};
    return pp_schedule_build(&request, &work->order, error);
}

static pp_status allocate(pp_work *work, pp_error *error) {
    pp_arena *arena = &work->arena;
    const pp_candidate *c = work->candidate;
    int stages = pp_candidate_stages(c), copies = work->order->stages;
    work->input_slots = PP_NEW(arena, int, copies);
    work->gradient_slots = PP_NEW(arena, int, copies);
    work->alive = PP_NEW(arena, int, copies);
    work->alike = PP_NEW(arena, int, copies);
    work->probe = PP_NEW(arena, pp_stage_bytes, copies);
    work->splits = PP_NEW(arena, int, stages);
    work->policies = PP_NEW(arena, pp_recompute, stages);
    work->trial = PP_NEW(arena, int, stages);
    work->flows = PP_NEW(arena, pp_flow, copies);
    work->start_count = 0;
    for (int i = 0; i < PP_STARTS; i++) work->starts[i].splits = PP_NEW(arena, int, stages);
    pp_plan *plan = &work->plan;
    *plan = (pp_plan){.cluster = work->views->base->cluster,
                      .order = PP_NEW(arena, int, work->views->base->layers),
                      .placement = PP_NEW(arena, int, copies),
                      .devices = PP_NEW(arena, int, c->ranks * c->arrangement->width),
                      .stages = PP_NEW(arena, pp_stage, copies)};
    return arena->failed ? pp_fail_memory(error) : PP_OK;
}

pp_status pp_work_start(pp_work *work, const pp_candidate *candidate, pp_error *error) {
    drop_candidate(work);
    work->candidate = candidate;
    work->best_s = INFINITY;
    work->best_peak_bytes = 0;
    work->simulations = 0;
    work->share = 1;
    work->bound_s = 0;
    work->capacity = NULL;
    work->proved = work->shared = work->gave_up = false;
    work->failure = PP_OK;
    PP_TRY(build_order(work, error));
    work->effort += START_EFFORT * (double)work->order->first_action[work->order->ranks];
    PP_TRY(allocate(work, error));
    bool whole = work->order->slices == 1;
    if (whole && !pp_flows_make(work->order, &work->arena, work->flows))
        return pp_fail_memory(error);
    PP_TRY(pp_schedule_slots(work->order, work->input_slots, work->gradient_slots, error));
    count_alive(work);
    find_alike(work);
    PP_TRY(pp_work_enter(work, work->views->wide, error));
    pp_assemble_header(&work->terms, &work->plan);
    return pp_work_prepare_times(work, error);
}

/* ---- views --------------------------------------------------------------------------------- */

pp_status pp_work_enter(pp_work *work, pp_view *view, pp_error *error) {
    if (work->view == view) return PP_OK;
    PP_TRY(pp_terms_init(&work->terms, view, work->candidate, work->order->placement, &work->arena,
                         error));
    work->terms.flows = work->order->slices == 1 ? work->flows : NULL;
    work->view = view;
    work->tables = view->tables;
    work->footprints = view->footprints;
    work->plan.model = (pp_model *)(uintptr_t)view->tables->model;
    pp_schedule_free(work->expanded); /* where ties are changes with the order */
    work->expanded = NULL;
    return PP_OK;
}

/* A cut of the lattice in work->trial becomes the same cut of an order. */
static pp_status settle(pp_work *work, pp_error *error) {
    const pp_lattice *lattice = work->tables->lattice;
    if (lattice == NULL) return PP_OK;
    int *order = PP_NEW(&work->arena, int, lattice->layers);
    int *positions = PP_NEW(&work->arena, int, work->terms.stages);
    pp_view *view;
    if (work->arena.failed) return pp_fail_memory(error);
    pp_lattice_order(lattice, work->trial, work->terms.stages, order, positions);
    memcpy(work->trial, positions, (size_t)(work->terms.stages - 1) * sizeof *positions);
    PP_TRY(pp_views_order(work->views, order, &view, error));
    return pp_work_enter(work, view, error);
}

/* ---- memory -------------------------------------------------------------------------------- */

/* The next three of one copy. The same sum as the simulator's: what lies there all the time, and
 * the activations. */
static int64_t add_up(const pp_work *work, int stage, const pp_stage_bytes *bytes) {
    return bytes->parameters + bytes->gradients + bytes->optimizer + bytes->reduction +
           bytes->workspace + bytes->input * work->input_slots[stage] +
           bytes->output_gradient * work->gradient_slots[stage] +
           bytes->activation * work->alive[stage];
}

static int64_t follow(pp_work *work, int stage, const pp_stage_bytes *bytes) {
    work->probe[stage] = *bytes;
    pp_peak_bytes peak = pp_rank_peak_bytes(work->order, work->order->placement[stage], work->probe,
                                            work->input_slots, work->gradient_slots, NULL);
    work->probe[stage] = (pp_stage_bytes){0};
    return peak.total >= 0 ? peak.total : INT64_MAX;
}

/* `dropped`: less than under any policy that repeats more than this one, since that keeps less of
 * what F saves, and no less of the rest. */
static int64_t find_need(pp_work *work, pp_recompute policy, bool dropped, int stage, int first,
                         int last) {
    pp_footprint_mode mode = work->terms.mode;
    mode.recompute = policy;
    uint64_t kind = pp_footprint_kind(work->footprints, first, last), how = 2 * (uint64_t)policy;
    uint64_t key = pp_mix64(pp_mix64(kind, (uint64_t)work->alike[stage]), how + dropped) | 1;
    int64_t need;
    if (pp_memo_find(&work->needs, key, &need)) return need;
    if (work->tables->lattice != NULL) work->effort += LAYOUT_EFFORT * work->tables->layers;
    const pp_stage_bytes *known = pp_footprint(work->footprints, first, last, mode);
    if (known == NULL) {
        work->failure = PP_E_OUT_OF_MEMORY;
        return INT64_MAX;
    }
    pp_stage_bytes bytes = *known;
    if (dropped) bytes.activation = bytes.released_by_input = 0;
    bool simple = work->alive[stage] > 0 && bytes.checkpoint == 0;
    need = simple ? add_up(work, stage, &bytes) : follow(work, stage, &bytes);
    pp_memo_put(&work->needs, key, need);
    return need;
}

static int64_t need_under(pp_work *work, pp_recompute policy, int stage, int first, int last) {
    return find_need(work, policy, false, stage, first, last);
}

pp_recompute pp_work_next_policy(pp_recompute policy, int layers) {
    if (policy == PP_RECOMPUTE_NONE) return PP_RECOMPUTE_ATTENTION;
    if (policy == PP_RECOMPUTE_ATTENTION) return PP_RECOMPUTE_EVERY + layers;
    int group = pp_recompute_group(policy), groups = (layers + group - 1) / group + 1;
    int smaller = (layers + groups - 1) / groups;
    if (group == 1) return -1;
    return PP_RECOMPUTE_EVERY + (smaller < group ? smaller : group - 1);
}

/* What the stage may use of the rank of a copy. */
static int64_t limit_of(const pp_work *work, int copy) {
    return work->terms.limit_bytes[work->terms.placement[copy]] / work->share;
}

/* Some copy has no room for the stage whatever it repeats, where that is chosen. */
static bool is_beyond_policies(pp_work *work, int stage, int first, int last) {
    if (work->candidate->recompute != PP_RECOMPUTE_MIXED) return false;
    for (int copy = stage; copy < work->terms.copies; copy += work->terms.stages) {
        int64_t least = find_need(work, work->terms.others, true, copy, first, last);
        if (least > limit_of(work, copy)) return true;
    }
    return false;
}

/* By how much the copy with least to spare needs more than it may use, and what it needs. */
static int64_t excess_under(pp_work *work, pp_recompute policy, int stage, int first, int last,
                            int64_t *need) {
    int64_t most = INT64_MIN;
    for (int copy = stage; copy < work->terms.copies; copy += work->terms.stages) {
        int64_t bytes = need_under(work, policy, copy, first, last);
        int64_t excess = bytes - limit_of(work, copy);
        if (excess <= most) continue;
        most = excess;
        *need = bytes;
    }
    return most;
}

static pp_recompute choose_policy(pp_work *work, int stage, int first, int last, int64_t *need,
                                  int64_t *excess) {
    pp_recompute policy = work->terms.others, leanest = policy;
    *excess = excess_under(work, policy, stage, first, last, need);
    if (work->candidate->recompute != PP_RECOMPUTE_MIXED) return policy;
    while (*excess > 0 && work->failure == PP_OK) {
        policy = pp_work_next_policy(policy, last - first + 1);
        if (policy < 0) break;
        int64_t bytes = 0, other = excess_under(work, policy, stage, first, last, &bytes);
        if (other >= *excess) continue;
        *excess = other;
        *need = bytes;
        leanest = policy;
    }
    return leanest;
}

pp_recompute pp_work_policy(pp_work *work, int stage, int first, int last, int64_t *need) {
    int64_t excess;
    return choose_policy(work, stage, first, last, need, &excess);
}

static int64_t excess_of(pp_work *work, int stage, int first, int last) {
    int64_t need, excess;
    choose_policy(work, stage, first, last, &need, &excess);
    return excess;
}

int64_t pp_work_need(pp_work *work, int stage, int first, int last) {
    int64_t need;
    pp_work_policy(work, stage, first, last, &need);
    return need;
}

/* No layout without recomputation needs more: all that is held; the largest buffer that a reduction
 * takes; for every microbatch in flight all tensors of the layers, and where W comes later than I
 * the gradients that it multiplies with; the slots; and once more for what is at work all tensors,
 * their gradients and transients, and all that crosses the borders. Each of a border's tensors may
 * begin at a multiple of 64. */
static double most_bytes(const pp_work *work, int stage, int first, int last) {
    const pp_timing *timing = work->terms.timing;
    const pp_weights *weights = timing->division.weights;
    double alive = work->alive[stage] > 0 ? work->alive[stage] : work->candidate->microbatches;
    double held = (double)(weights->held_bytes[last + 1] - weights->held_bytes[first]);
    double tensors = (double)(timing->tensor_bytes[last + 1] - timing->tensor_bytes[first]);
    double rounded = 64.0 * work->views->base->layers;
    double before = (double)timing->border_bytes[first] + rounded;
    double behind = (double)timing->border_bytes[last + 1] + rounded;
    double each = work->alive[stage] > 0 ? tensors : 2 * tensors + before + behind;
    return held + (1 << 20) + alive * each + work->input_slots[stage] * before +
           work->gradient_slots[stage] * behind + 3 * tensors + before + behind;
}

/* Every copy of the stage, whatever is kept. */
static bool has_room(const pp_work *work, int stage, int first, int last) {
    for (int copy = stage; copy < work->terms.copies; copy += work->terms.stages)
        if (most_bytes(work, copy, first, last) > (double)limit_of(work, copy)) return false;
    return true;
}

bool pp_work_fits(pp_work *work, int stage, int first, int last) {
    const pp_terms *terms = &work->terms;
    if (pp_bound_bytes(terms, first, last) > pp_terms_limit(terms, stage) / work->share)
        return false;
    if (has_room(work, stage, first, last)) return true;
    return !is_beyond_policies(work, stage, first, last) &&
           excess_of(work, stage, first, last) <= 0;
}

/* ---- cuts ---------------------------------------------------------------------------------- */

typedef double stage_measure(const pp_terms *terms, int stage, int first, int last);

/* The work is the context of cuts that do without their own. */
static bool work_stops(const void *context) {
    return pp_work_gives_up(context);
}

static bool is_signalled(const void *context) {
    (void)context;
    return pp_stop_signal() != 0;
}

/* A chain cut by some measure under the memory limits. */
typedef struct limited_cut {
    pp_work *work;
    stage_measure *measure;
} limited_cut;

static double cut_floor(const void *context, int stage, int first, int last) {
    const limited_cut *cut = context;
    const pp_terms *terms = &cut->work->terms;
    int64_t limit = pp_terms_limit(terms, stage) / cut->work->share;
    if (pp_bound_bytes(terms, first, last) > limit) return INFINITY;
    return cut->measure(terms, stage, first, last);
}

static double cut_exact(const void *context, int stage, int first, int last) {
    const limited_cut *cut = context;
    pp_terms *terms = &cut->work->terms;
    if (!has_room(cut->work, stage, first, last)) { /* else nothing need be recomputed */
        int64_t need, excess;
        if (is_beyond_policies(cut->work, stage, first, last)) return INFINITY;
        terms->mode.recompute = choose_policy(cut->work, stage, first, last, &need, &excess);
        if (excess > 0) {
            terms->mode.recompute = terms->others;
            return INFINITY;
        }
    }
    double measured = cut->measure(terms, stage, first, last);
    terms->mode.recompute = terms->others;
    return measured;
}

static double cut_border(const void *context, int stage, int next) {
    const limited_cut *cut = context;
    return pp_terms_lane_s(&cut->work->terms, stage, next);
}

static bool cut_stops(const void *context) {
    const limited_cut *cut = context;
    return pp_work_gives_up(cut->work);
}

static double visit_measure(const pp_terms *terms, int stage, int first, int last) {
    return pp_terms_visit_s(terms, stage, first, last);
}

/* The best of all known cuts is asked for. */
static pp_chain_problem wide_problem(const pp_work *work, const void *context) {
    return (pp_chain_problem){.items = work->tables->layers,
                              .stages = work->terms.stages,
                              .context = context,
                              .lattice = work->tables->lattice,
                              .weight = work->terms.timing->whole};
}

/* *largest INFINITY: there is none. */
static pp_status settle_cut(pp_work *work, pp_status status, double *largest, pp_error *error) {
    if (status == PP_E_OUT_OF_MEMORY || work->failure != PP_OK) return pp_fail_memory(error);
    if (status == PP_E_INTERRUPTED) work->gave_up = true;
    if (status != PP_OK) *largest = INFINITY;
    return PP_OK;
}

/* Into work->trial. *largest INFINITY: no split fits, or it gave up. */
static pp_status cut_by(pp_work *work, stage_measure *measure, bool borders, double *largest,
                        pp_error *error) {
    PP_TRY(pp_work_enter(work, work->views->wide, error));
    work->effort += CUT_EFFORT * work->terms.stages * work->tables->layers;
    limited_cut cut = {work, measure};
    pp_chain_problem problem = wide_problem(work, &cut);
    problem.floor = cut_floor;
    problem.exact = cut_exact;
    problem.border = borders ? cut_border : NULL;
    problem.stop = cut_stops;
    problem.per_weight = measure == visit_measure ? 1 : work->terms.visits[0] * (1 - PP_NEGLIGIBLE);
    pp_status status = pp_chain_cut(&problem, &work->arena, work->trial, largest, NULL);
    return settle_cut(work, status, largest, error);
}

pp_status pp_work_bound(pp_work *work, double *bound, pp_error *error) {
    work->share = 1;
    PP_TRY(cut_by(work, pp_bound_stage, false, bound, error));
    if (work->gave_up) *bound = 0;
    if (work->views->complete) work->bound_s = fmax(work->bound_s, *bound);
    return PP_OK;
}

/* ---- trying -------------------------------------------------------------------------------- */

int64_t pp_work_rank_bytes(pp_work *work, int rank) {
    const pp_plan *plan = &work->plan;
    for (int s = 0; s < plan->stage_count; s++) work->probe[s] = plan->stages[s].bytes;
    pp_peak_bytes peak = pp_rank_peak_bytes(work->order, rank, work->probe, work->input_slots,
                                            work->gradient_slots, NULL);
    memset(work->probe, 0, (size_t)plan->stage_count * sizeof *work->probe);
    return peak.total >= 0 ? peak.total : INT64_MAX;
}

/* Whether every rank holds the plan's split; *peak: the most that one of them needs. */
static bool ranks_fit(pp_work *work, int64_t *peak) {
    const pp_plan *plan = &work->plan;
    bool alone = plan->stage_count == plan->ranks;
    *peak = 0;
    for (int i = 0; i < plan->ranks; i++) { /* rank i, or that of stage i */
        const pp_stage *stage = &plan->stages[i];
        int rank = alone ? plan->placement[i] : i;
        int64_t total = alone ? need_under(work, stage->recompute, i, stage->first, stage->last)
                              : pp_work_rank_bytes(work, rank);
        if (total > work->terms.limit_bytes[rank]) return false;
        if (total > *peak) *peak = total;
    }
    return true;
}

/* The stages of work->trial, each with the policy that it may have of its rank's memory. */
static pp_status assemble(pp_work *work, pp_error *error) {
    pp_terms *terms = &work->terms;
    for (int s = 0; s < terms->stages; s++) {
        int first, last;
        int64_t need;
        pp_work_interval(work, work->trial, s, &first, &last);
        terms->policies[s] = pp_work_policy(work, s, first, last, &need);
    }
    if (work->failure != PP_OK) return pp_fail_memory(error);
    return pp_assemble_stages(terms, work->footprints, work->trial, &work->plan)
               ? PP_OK
               : pp_fail_memory(error);
}

/* Stages of a rank do not fit together as they would alone: some have to repeat more. */
static bool is_crowded(pp_work *work) {
    int64_t peak;
    bool alone = pp_candidate_each(work->candidate) == 1;
    return !alone && work->candidate->recompute == PP_RECOMPUTE_MIXED && !ranks_fit(work, &peak);
}

/* If that goes; else it does not fit, which is found out. */
static pp_status relieve(pp_work *work, pp_error *error) {
    work->shared = true;
    (void)pp_work_relieve(work);
    if (work->failure != PP_OK) return pp_fail_memory(error);
    return pp_assemble_stages(&work->terms, work->footprints, work->trial, &work->plan)
               ? PP_OK
               : pp_fail_memory(error);
}

pp_status pp_work_try(pp_work *work, pp_error *error) {
    double seconds;
    int64_t peak;
    PP_TRY(settle(work, error));
    PP_TRY(assemble(work, error));
    PP_TRY(pp_work_time(work, &seconds, error));
    if (seconds >= work->best_s) return PP_OK; /* nor would it be faster if more were repeated */
    if (is_crowded(work)) {
        PP_TRY(relieve(work, error));
        PP_TRY(pp_work_time(work, &seconds, error));
    }
    if (seconds >= work->best_s || !ranks_fit(work, &peak)) return PP_OK;
    work->best_s = seconds;
    work->best_peak_bytes = peak;
    work->best_view = work->view;
    memcpy(work->splits, work->trial, (size_t)(work->terms.stages - 1) * sizeof *work->splits);
    memcpy(work->policies, work->terms.policies,
           (size_t)work->terms.stages * sizeof *work->policies);
    return PP_OK;
}

static pp_status try_bottleneck(pp_work *work, pp_error *error) {
    double largest;
    PP_TRY(cut_by(work, visit_measure, true, &largest, error));
    return largest < INFINITY ? pp_work_try(work, error) : PP_OK;
}

/* With several stages on a rank: each held to an equal share of its memory. */
static pp_status try_shares(pp_work *work, pp_error *error) {
    work->share = pp_candidate_each(work->candidate);
    pp_status status = try_bottleneck(work, error);
    work->share = 1;
    return status;
}

static double visit_anywhere(const void *context, int stage, int first, int last) {
    const pp_work *work = context;
    return visit_measure(&work->terms, stage, first, last);
}

/* Into work->trial: the least largest stage, memory and transfers aside. *largest INFINITY: it gave
 * up. */
static pp_status cut_anywhere(pp_work *work, double *largest, pp_error *error) {
    PP_TRY(pp_work_enter(work, work->views->wide, error));
    pp_chain_problem problem = wide_problem(work, work);
    problem.floor = visit_anywhere;
    problem.stop = work_stops;
    problem.per_weight = 1;
    pp_status status = pp_chain_cut(&problem, &work->arena, work->trial, largest, NULL);
    return settle_cut(work, status, largest, error);
}

/* Into work->trial, in the view of the order that it comes with. *measure INFINITY: no split. */
static pp_status cut_pipedream(pp_work *work, double *measure, pp_error *error) {
    pp_view *view;
    int *order = PP_NEW(&work->arena, int, work->views->base->layers);
    if (order == NULL) return pp_fail_memory(error);
    PP_TRY(pp_pipedream_cut(work->views, work->candidate, &work->arena, order, work->trial, measure,
                            error));
    if (*measure == INFINITY) return PP_OK;
    PP_TRY(pp_views_order(work->views, order, &view, error));
    return pp_work_enter(work, view, error);
}

/* What the game came upon. */
static pp_status try_starts(pp_work *work, pp_error *error) {
    size_t boundaries = (size_t)work->terms.stages - 1;
    for (int i = 0; i < work->start_count; i++) {
        if (work->starts[i].estimate_s >= work->best_s) continue;
        memcpy(work->trial, work->starts[i].splits, boundaries * sizeof *work->trial);
        PP_TRY(pp_work_try(work, error));
    }
    return PP_OK;
}

/* Stages as equal as whole members allow, the longer ones next to each other from `first` on, round
 * the end of the chain. False: another stage would be left without a layer. */
static bool cut_run(const pp_work *work, const pp_capacity *c, int first, int *splits) {
    int stages = work->terms.stages, each = c->total / stages, more = c->total % stages;
    for (int s = 0, layer = 0; s + 1 < stages; s++) {
        int longer = (s - first + stages) % stages < more, from = layer;
        int goal = c->members[layer] + each + longer;
        while (layer < work->tables->layers && c->members[layer] < goal) layer++;
        if (layer == from || work->tables->layers - layer < stages - 1 - s) return false;
        splits[s] = layer;
    }
    return true;
}

/* With several stages on a rank, where the longer ones lie in the chain decides how it fills and
 * drains; which place is best depends on the order. */
pp_status pp_work_try_runs(pp_work *work, const pp_capacity *capacity, pp_error *error) {
    int stages = work->terms.stages;
    double most = RUN_ACTIONS / (double)work->order->first_action[work->order->ranks];
    int step = most >= stages    ? 1
               : most < RUNS_MIN ? stages / RUNS_MIN + 1
                                 : stages / (int)most + 1;
    int *splits = PP_NEW(&work->arena, int, stages);
    if (splits == NULL) return pp_fail_memory(error);
    for (int first = 0; first < stages && !pp_work_must_stop(work); first += step) {
        if (!cut_run(work, capacity, first, splits)) continue;
        memcpy(work->trial, splits, (size_t)(stages - 1) * sizeof *splits);
        PP_TRY(pp_work_try(work, error));
    }
    return PP_OK;
}

/* With several stages on a rank cuts that respect each stage need not fit. */
static pp_status try_fits(pp_work *work, pp_error *error) {
    size_t boundaries = (size_t)work->terms.stages - 1;
    for (int i = 0; i < work->start_count && work->best_s == INFINITY; i++) {
        memcpy(work->trial, work->starts[i].splits, boundaries * sizeof *work->trial);
        PP_TRY(pp_work_fit(work, error));
    }
    return PP_OK;
}

static pp_status cut_baseline(pp_work *work, const pp_split_method *method, double *measure,
                              pp_error *error) {
    if (pp_split_is_pipedream(method)) return cut_pipedream(work, measure, error);
    if (pp_split_is_bottleneck(method)) return cut_anywhere(work, measure, error);
    PP_TRY(pp_work_enter(work, &work->views->file, error));
    pp_split_load load = {.tables = work->tables,
                          .timing = work->terms.timing,
                          .footprints = work->footprints,
                          .mode = work->terms.mode,
                          .recompute = work->candidate->recompute};
    return pp_split_baseline(method, &load, work->terms.stages, &work->arena, work->trial, measure,
                             error);
}

static pp_status try_baseline(pp_work *work, const pp_split_method *method, pp_error *error) {
    double measure;
    PP_TRY(cut_baseline(work, method, &measure, error));
    return measure < INFINITY ? pp_work_try(work, error) : PP_OK;
}

/* Orders longer than this are left to refinement. */
enum { SHORT_ACTIONS = 8192 };

static pp_status try_pipedream(pp_work *work, pp_error *error) {
    pp_error reason = {0};
    double seconds;
    if (work->candidate->dp > 1 || work->candidate->tp > 1) return PP_OK;
    pp_status status = cut_pipedream(work, &seconds, &reason);
    if (status == PP_OK && seconds < INFINITY) return pp_work_try(work, error);
    return status == PP_E_OUT_OF_MEMORY ? pp_fail_memory(error) : PP_OK; /* it knows no such case */
}

/* Refinement ends in a local optimum; nobody's way to split shall be better. */
static pp_status try_others(pp_work *work, pp_error *error) {
    double largest;
    if (work->order->first_action[work->order->ranks] > SHORT_ACTIONS) return PP_OK;
    for (int i = 0; pp_split_plain(i) != NULL; i++) {
        PP_TRY(try_baseline(work, pp_split_plain(i), error));
    }
    PP_TRY(cut_anywhere(work, &largest, error));
    if (largest < INFINITY) PP_TRY(pp_work_try(work, error));
    return work->gave_up ? PP_OK : try_pipedream(work, error);
}

/* All splits are cuts of one order: of a graph that branches these tools say nothing. */
static bool is_chain(const pp_work *work) {
    return work->views->complete && work->views->wide->tables->lattice == NULL &&
           work->view == work->views->wide;
}

/* The first splits, one of which may fit. */
static pp_status try_cuts(pp_work *work, pp_error *error) {
    PP_TRY(pp_work_try(work, error));
    PP_TRY(try_bottleneck(work, error));
    if (work->best_s < INFINITY || pp_candidate_each(work->candidate) == 1) return PP_OK;
    PP_TRY(try_shares(work, error));
    return work->best_s < INFINITY || !is_chain(work) ? PP_OK : pp_work_fit(work, error);
}

/* With several stages on a rank, bounds of single stages are weak, and cuts by single stages far
 * from the best. */
static bool plays(const pp_work *work) {
    return pp_candidate_each(work->candidate) > 1 && is_chain(work);
}

static pp_status raise_by_game(pp_work *work, pp_capacity *capacity, double limit_s, bool to_win,
                               pp_error *error) {
    double bound;
    PP_TRY(pp_game_bound(work, capacity, limit_s, to_win, &bound, error));
    work->bound_s = fmax(work->bound_s, bound);
    return PP_OK;
}

pp_status pp_work_outplay(pp_work *work, double ceiling, pp_error *error) {
    pp_capacity capacity;
    if (!pp_split_is_optimal(work->method) || !plays(work)) return PP_OK;
    PP_TRY(pp_capacity_find(work, &capacity, error));
    if (!cut_run(work, &capacity, 0, work->trial)) return PP_OK;
    return raise_by_game(work, &capacity, ceiling, true, error);
}

pp_status pp_work_count(pp_work *work, double ceiling, pp_error *error) {
    if (!pp_split_is_optimal(work->method) || !plays(work)) return PP_OK;
    pp_capacity *capacity = PP_NEW(&work->arena, pp_capacity, 1);
    if (capacity == NULL) return pp_fail_memory(error);
    PP_TRY(pp_capacity_find(work, capacity, error));
    PP_TRY(pp_capacity_hold(work, capacity, error));
    work->capacity = capacity;
    if (!capacity->fits)
        work->bound_s = INFINITY;
    else if (!pp_capacity_limit(work, ceiling, capacity))
        work->bound_s = fmax(work->bound_s, ceiling);
    else if (isfinite(ceiling) && ceiling > work->bound_s)
        work->bound_s = pp_capacity_shortest(work, work->bound_s, ceiling, capacity);
    return PP_OK;
}

static pp_status play(pp_work *work, double ceiling, pp_error *error) {
    size_t boundaries = (size_t)work->terms.stages - 1;
    if (work->capacity == NULL) PP_TRY(pp_work_count(work, ceiling, error));
    if (work->bound_s >= ceiling) return PP_OK;
    PP_TRY(pp_work_try_runs(work, work->capacity, error));
    if (work->best_s < INFINITY)
        memcpy(work->trial, work->splits, boundaries * sizeof *work->trial);
    PP_TRY(raise_by_game(work, work->capacity, fmin(ceiling, work->best_s), false, error));
    if (work->bound_s >= ceiling) return PP_OK;
    PP_TRY(try_starts(work, error));
    return try_fits(work, error);
}

pp_status pp_work_sketch(pp_work *work, pp_error *error) {
    double bound;
    PP_TRY(pp_work_bound(work, &bound, error));
    if (bound == INFINITY || work->gave_up) return PP_OK;
    if (!pp_split_is_optimal(work->method)) return try_baseline(work, work->method, error);
    return try_cuts(work, error);
}

pp_status pp_work_solve(pp_work *work, double ceiling, pp_error *error) {
    work->share = 1;
    if (!pp_split_is_optimal(work->method)) return try_baseline(work, work->method, error);
    PP_TRY(try_cuts(work, error));
    if (plays(work)) PP_TRY(play(work, ceiling, error));
    if (work->bound_s >= ceiling || pp_work_is_hopeless(work, ceiling)) return PP_OK;
    if (work->best_s < INFINITY) {
        PP_TRY(pp_work_enter(work, work->best_view, error));
        PP_TRY(pp_refine(work, error));
    }
    PP_TRY(pp_enumerate(work, ceiling, error));
    return work->proved ? PP_OK : try_others(work, error);
}

/* ---- reports ------------------------------------------------------------------------------- */

static double slowest(pp_work *work, const int *splits, bool lanes) {
    double slowest = 0;
    for (int s = 0; s < work->terms.stages; s++) {
        int first, last;
        pp_work_interval(work, splits, s, &first, &last);
        work->terms.mode.recompute = work->policies[s];
        slowest = fmax(slowest, pp_terms_visit_s(&work->terms, s, first, last));
        if (lanes && s + 1 < work->terms.stages) {
            slowest = fmax(slowest, pp_terms_lane_s(&work->terms, s, last + 1));
        }
    }
    work->terms.mode.recompute = work->terms.others;
    return slowest;
}

static pp_status report_seconds(pp_work *work, pp_plan_split *split, pp_error *error) {
    bool optimal = pp_split_is_optimal(work->method);
    split->bottleneck_s = slowest(work, work->splits, optimal);
    work->gave_up = false;
    if (optimal)
        PP_TRY(cut_by(work, visit_measure, true, &split->lower_bound_s, error));
    else
        PP_TRY(cut_anywhere(work, &split->lower_bound_s, error));
    if (work->gave_up) split->lower_bound_s = 0; /* it is not known */
    return PP_OK;
}

pp_status pp_work_report(pp_work *work, pp_plan_split *split, pp_error *error) {
    work->share = 1;
    memcpy(split->method, work->method->name, sizeof split->method);
    if (!pp_split_has_measure(work->method)) return report_seconds(work, split, error);
    PP_TRY(cut_baseline(work, work->method, &split->bottleneck_s, error));
    split->lower_bound_s = split->bottleneck_s;
    return PP_OK;
}

/* Bytes above the stage's share of the limit, by what has to be there at the least, and exactly. */
static double excess_floor(const void *context, int stage, int first, int last) {
    const pp_work *work = context;
    const pp_terms *terms = &work->terms;
    return (double)pp_bound_bytes(terms, first, last) -
           (double)(pp_terms_limit(terms, stage) / work->share);
}

static double excess_exact(const void *context, int stage, int first, int last) {
    return (double)excess_of((pp_work *)(uintptr_t)context, stage, first, last);
}

/* The rank of work->plan that is most above its limit. */
static int worst_rank(pp_work *work, int64_t *needed) {
    const pp_terms *terms = &work->terms;
    int worst = 0;
    for (int p = 0; p < terms->ranks; p++) {
        int64_t bytes = pp_work_rank_bytes(work, p);
        if (p > 0 && bytes - terms->limit_bytes[p] <= *needed - terms->limit_bytes[worst]) continue;
        worst = p;
        *needed = bytes;
    }
    return worst;
}

pp_status pp_work_least_excess(pp_work *work, int *rank, int64_t *needed, pp_error *error) {
    double excess;
    PP_TRY(pp_work_enter(work, work->views->wide, error));
    pp_chain_problem problem = wide_problem(work, work);
    problem.floor = excess_floor;
    problem.exact = excess_exact;
    problem.stop = is_signalled;
    work->share = pp_candidate_each(work->candidate);
    PP_TRY(pp_chain_cut(&problem, &work->arena, work->trial, &excess, error));
    PP_TRY(settle(work, error));
    PP_TRY(assemble(work, error));
    *rank = worst_rank(work, needed);
    return PP_OK;
}
