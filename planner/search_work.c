/* The workshop of one candidate: its order, the view of the model at hand, and trying splits in it.
 *
 * The order of actions is built once; it gives each stage's slots, its microbatches in flight and
 * so the bytes that any interval of layers would need there (search_room.c). */
#include <math.h>
#include <string.h>

#include "planner/work_internal.h"

#define START_EFFORT 0.5 /* building an order and looking it through, in simulations of it */

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

pp_status pp_work_settle(pp_work *work, pp_error *error) {
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
        int64_t total =
            alone ? pp_work_need_under(work, stage->recompute, i, stage->first, stage->last)
                  : pp_work_rank_bytes(work, rank);
        if (total > work->terms.limit_bytes[rank]) return false;
        if (total > *peak) *peak = total;
    }
    return true;
}

pp_status pp_work_assemble(pp_work *work, pp_error *error) {
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

/* Of splits that take the same but for rounding, the leaner. */
static bool is_better(const pp_work *work, double seconds, int64_t peak) {
    double now = pp_rounded(seconds), before = pp_rounded(work->best_s);
    return now < before || (now == before && peak < work->best_peak_bytes);
}

pp_status pp_work_try(pp_work *work, pp_error *error) {
    double seconds;
    int64_t peak;
    PP_TRY(pp_work_settle(work, error));
    PP_TRY(pp_work_assemble(work, error));
    PP_TRY(pp_work_time(work, &seconds, error));
    if (!is_better(work, seconds, 0)) return PP_OK; /* nor would it be if more were repeated */
    if (is_crowded(work)) {
        PP_TRY(relieve(work, error));
        PP_TRY(pp_work_time(work, &seconds, error));
    }
    if (!is_better(work, seconds, 0) || !ranks_fit(work, &peak)) return PP_OK;
    if (!is_better(work, seconds, peak)) return PP_OK;
    work->best_s = seconds;
    work->best_peak_bytes = peak;
    work->best_view = work->view;
    memcpy(work->splits, work->trial, (size_t)(work->terms.stages - 1) * sizeof *work->splits);
    memcpy(work->policies, work->terms.policies,
           (size_t)work->terms.stages * sizeof *work->policies);
    return PP_OK;
}
