/* The named families as candidates: auto is never worse than one of them that fits the same memory
 * on the same placement. Each is taken as it is, with a whole B as I and W, and once more with its
 * F and I in their sequence and the W placed anew for these costs. Those that are made for equal
 * times are also taken as they are simulated for others, retimed, as long as that is quick. */
#include "sim/auto_internal.h"

#include <math.h>

/* ---- from a schedule to rows of codes ------------------------------------------------------- */

static bool same_shape(const pp_auto_case *c, const pp_schedule *schedule) {
    if (schedule->ranks != c->ranks || schedule->stages != c->ranks * c->visits) return false;
    if (schedule->chain_count != 1 || schedule->slices > 1) return false;
    if (schedule->microbatches != c->microbatches) return false;
    for (int s = 0; s < schedule->stages; s++)
        if (schedule->placement[s] != (s < c->ranks ? s : 2 * c->ranks - 1 - s)) return false;
    return true;
}

/* The row of one rank; false if it has other actions or does not keep its limit. */
static bool read_row(const pp_auto_case *c, const pp_schedule *schedule, int p, uint8_t *row) {
    const pp_auto_op *ops = &c->op[p * c->codes];
    double weight = 0;
    int length = 0;
    for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++) {
        pp_action action = schedule->actions[i];
        int code = action.stage / c->ranks * PP_AUTO_KINDS;
        bool whole = action.kind == PP_BACKWARD;
        if (action.kind == PP_INPUT || whole)
            code += PP_AUTO_I;
        else if (action.kind == PP_WEIGHT)
            code += PP_AUTO_W;
        else if (action.kind != PP_FORWARD)
            return false;
        if (length + 1 + whole > c->length) return false;
        weight += ops[code].rise;
        if (weight > c->limit[p]) return false;
        weight -= ops[code].fall;
        row[length++] = (uint8_t)code;
        if (!whole) continue;
        weight -= ops[code + 1].fall;
        row[length++] = (uint8_t)(code + 1);
    }
    return length == c->length;
}

/* Every code M times. */
static bool row_complete(const pp_auto_case *c, const uint8_t *row) {
    int count[PP_AUTO_CODES_MAX] = {0};
    for (int i = 0; i < c->length; i++) count[row[i]]++;
    for (int code = 0; code < c->codes; code++)
        if (count[code] != c->microbatches) return false;
    return true;
}

static bool read_order(const pp_auto_case *c, const pp_schedule *schedule, uint8_t *order) {
    if (!same_shape(c, schedule)) return false;
    for (int p = 0; p < c->ranks; p++) {
        uint8_t *row = order + (size_t)p * (size_t)c->length;
        if (!read_row(c, schedule, p, row) || !row_complete(c, row)) return false;
    }
    return true;
}

/* ---- trying -------------------------------------------------------------------------------- */

static void try_order(pp_auto_search *search, const uint8_t *order, const char *name,
                      const pp_auto_rule *rule) {
    const pp_auto_case *c = search->c;
    search->budget -= (int64_t)c->actions;
    if (!pp_auto_time(c, order, &search->work, NULL)) return;
    for (size_t i = 0; i < c->actions; i++) search->trial[i] = order[i];
    pp_auto_offer(search, name);
    search->budget -= PP_AUTO_GREEDY_PRICE * (int64_t)c->actions;
    if (pp_auto_greedy(c, rule, order, &search->work, search->trial)) pp_auto_offer(search, name);
}

/* Retiming searches itself, with a budget of its own: it is left out of such searches, and of all
 * that were given one. */
enum { MOST_RETIMED = 10000 }; /* actions; a third of a second */

static pp_status retime(const pp_auto_request *given, const pp_schedule_request *request,
                        pp_schedule **schedule, pp_error *error) {
    pp_sim_input input = {.schedule = *schedule, .stage = given->stage, .border = given->border};
    pp_schedule *better;
    PP_TRY(pp_schedule_retime(&input, request, &better, error));
    if (!better) return PP_OK;
    pp_schedule_free(*schedule);
    *schedule = better;
    return PP_OK;
}

static pp_status try_family(pp_auto_search *search, const pp_auto_request *given,
                            const pp_schedule_family *family, uint8_t *order,
                            const pp_auto_rule *rule, pp_error *error) {
    const pp_auto_case *c = search->c;
    pp_schedule_request request = {.name = family->name,
                                   .ranks = c->ranks,
                                   .microbatches = c->microbatches,
                                   .virtual_stages = c->visits};
    pp_schedule *schedule = NULL;
    pp_status status = pp_schedule_build(&request, &schedule, error);
    if (status == PP_E_INPUT || status == PP_E_UNSUPPORTED) return PP_OK; /* not for this K, M, V */
    if (status != PP_OK) return status;
    if (read_order(c, schedule, order)) try_order(search, order, family->name, rule);
    if (same_shape(c, schedule) && family->equal_times && given->budget == 0 &&
        c->actions <= MOST_RETIMED) {
        status = retime(given, &request, &schedule, error);
        if (status == PP_OK && read_order(c, schedule, order))
            try_order(search, order, family->name, rule);
    }
    pp_schedule_free(schedule);
    return status;
}

pp_status pp_auto_try_named(pp_auto_search *search, const pp_auto_request *given, pp_error *error) {
    size_t ranks = (size_t)search->c->ranks;
    uint8_t *order = PP_NEW(search->arena, uint8_t, search->c->actions);
    pp_auto_rule rule = {.target = PP_NEW(search->arena, int, ranks), /* F first where both could */
                         .backlog = PP_NEW(search->arena, int, ranks),
                         .reserve = PP_NEW(search->arena, double, ranks)};
    if (search->arena->failed) return pp_fail_memory(error);
    for (int p = 0; p < search->c->ranks; p++) rule.backlog[p] = INT32_MAX;
    if (given->start && read_order(search->c, given->start, order))
        try_order(search, order, "start", &rule);
    int count;
    const pp_schedule_family *families = pp_schedule_families(&count);
    for (int i = 0; i < count; i++) {
        if (pp_stop_signal()) return PP_OK; /* the caller says so */
        PP_TRY(try_family(search, given, &families[i], order, &rule, error));
    }
    return PP_OK;
}
