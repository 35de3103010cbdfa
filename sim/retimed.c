/* An order for given costs that holds no more than one made for equal times.
 *
 * v-half and v-min are defined by a pattern of slots in which F, I and W take one each. Where they
 * do not, the pattern waits. The chunks that it holds become a limit, and the shortest with the
 * real F, I, W and transfers is taken of: all variants of the family, of which it keeps the best
 * for equal times otherwise; what list scheduling makes of the last one, the pattern itself; and
 * what auto's list scheduling and search find within that limit, beginning with the best of these.
 * Chunks count from the start of F to the end of W, as in the paper (Qi et al. 2024, "Pipeline
 * parallelism with controllable memory", 3). */
#include "sim/engine_internal.h"
#include "sim/guided_internal.h"

#include <math.h>
#include <string.h>

/* List schedulings of the whole order that the search may try; a large order has fewer. */
enum { TRIALS = 4000, MOST_TIMED = 30000000, BACKLOGS = 4 };

typedef struct retiming {
    pp_sim_input input; /* the caller's, with chunks as weights */
    const pp_schedule_request *request;
    double *weight, *nothing; /* [stages] 1, and 0: nothing is given back before W ends */
    double *limit;            /* [ranks] */
    double makespan_s;        /* of the best so far */
    pp_schedule *best;        /* NULL: the caller's */
} retiming;

static double fullest(const pp_sim_result *result, int ranks) {
    double most = 0;
    for (int p = 0; p < ranks; p++) most = fmax(most, result->rank[p].peak_activation_weight);
    return most;
}

static pp_status time_order(const retiming *r, const pp_schedule *schedule, double *makespan_s,
                            double *held, pp_error *error) {
    pp_sim_input input = r->input;
    pp_sim_result *result;
    input.schedule = schedule;
    PP_TRY(pp_simulate(&input, &result, error));
    *makespan_s = result->makespan_s;
    *held = fullest(result, schedule->ranks);
    pp_sim_result_free(result);
    return PP_OK;
}

/* Takes the schedule, or frees it. */
static pp_status offer(retiming *r, pp_schedule *schedule, pp_error *error) {
    double makespan_s, held;
    pp_status status = time_order(r, schedule, &makespan_s, &held, error);
    if (status != PP_OK || held > r->limit[0] || !(makespan_s < r->makespan_s)) {
        pp_schedule_free(schedule);
        return status;
    }
    pp_schedule_free(r->best);
    r->best = schedule;
    r->makespan_s = makespan_s;
    return PP_OK;
}

/* *last: the number of variants. */
static pp_status try_variants(retiming *r, int *last, pp_error *error) {
    pp_schedule_request request = *r->request;
    for (request.variant = 1;; request.variant++) {
        pp_schedule *schedule;
        pp_status status = pp_schedule_build(&request, &schedule, error);
        *last = request.variant - 1;
        if (status == PP_E_INPUT) return PP_OK; /* there are no more */
        if (status == PP_OK) status = offer(r, schedule, error);
        if (status != PP_OK) return status;
    }
}

/* What list scheduling makes of a pattern. */
static pp_status try_rules(retiming *r, const pp_schedule *pattern, pp_error *error) {
    static const double overruns[] = {0, 0.5, 10}; /* in forwards of the first stage */
    pp_sim_input input = r->input;
    input.schedule = pattern;
    for (int i = 0; i < 3 * (BACKLOGS + 1); i++) {
        pp_guided_rule rule = {.limit = (int)r->limit[0],
                               .backlog = i / 3,
                               .keeps_weights = i / 3 == BACKLOGS,
                               .overrun_s = overruns[i % 3] * input.stage[0].forward_s};
        pp_schedule *made;
        PP_TRY(pp_guided_schedule(&input, &rule, &made, error));
        if (made) PP_TRY(offer(r, made, error));
    }
    return PP_OK;
}

static pp_status try_guided(retiming *r, int variant, pp_error *error) {
    pp_schedule_request request = *r->request;
    pp_schedule *pattern;
    request.variant = variant;
    PP_TRY(pp_schedule_build(&request, &pattern, error));
    pp_status status = try_rules(r, pattern, error);
    pp_schedule_free(pattern);
    return status;
}

static pp_status try_search(retiming *r, pp_error *error) {
    const pp_schedule *schedule = r->input.schedule;
    int64_t budget = (int64_t)TRIALS * (int64_t)schedule->first_action[schedule->ranks];
    pp_auto_request request = {.ranks = schedule->ranks,
                               .microbatches = schedule->microbatches,
                               .virtual_stages = schedule->virtual_stages,
                               .stage = r->input.stage,
                               .border = r->input.border,
                               .activation_weight = r->weight,
                               .released_by_input_weight = r->nothing,
                               .limit = r->limit,
                               .start = r->best,
                               .budget = budget < MOST_TIMED ? budget : MOST_TIMED};
    pp_auto_result found;
    PP_TRY(pp_auto_schedule(&request, &found, error));
    memcpy(found.schedule->name, schedule->name, sizeof schedule->name);
    return offer(r, found.schedule, error);
}

static pp_status retime(retiming *r, pp_arena *work, pp_error *error) {
    const pp_schedule *schedule = r->input.schedule;
    double held;
    r->weight = PP_NEW(work, double, schedule->stages);
    r->nothing = PP_NEW(work, double, schedule->stages);
    r->limit = PP_NEW(work, double, schedule->ranks);
    if (work->failed) return pp_fail_memory(error);
    for (int s = 0; s < schedule->stages; s++) r->weight[s] = 1;
    r->input.activation_weight = r->weight;
    r->input.released_by_input_weight = r->nothing;
    PP_TRY(time_order(r, schedule, &r->makespan_s, &held, error));
    for (int p = 0; p < schedule->ranks; p++) r->limit[p] = held;
    int last;
    PP_TRY(try_variants(r, &last, error));
    PP_TRY(try_guided(r, last, error));
    return try_search(r, error);
}

pp_status pp_schedule_retime(const pp_sim_input *input, const pp_schedule_request *request,
                             pp_schedule **better, pp_error *error) {
    pp_arena work;
    pp_arena_init(&work);
    retiming r = {
        .input = {.schedule = input->schedule, .stage = input->stage, .border = input->border},
        .request = request};
    pp_status status = retime(&r, &work, error);
    pp_arena_deinit(&work);
    *better = NULL;
    if (status == PP_OK)
        *better = r.best;
    else
        pp_schedule_free(r.best);
    return status;
}
