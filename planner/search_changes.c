/* What one change to the best plan would give: twice as many microbatches, with recomputation or
 * without, one more pipeline rank, an order made to measure. Each is a search of its own with all
 * else pinned to what the plan has; only layers are cut anew, since a plan with another number of
 * ranks has other cuts.
 *
 * Where all devices are in use, one more rank stands on as many more devices as a rank of the plan
 * has, of the last kind, in a node of their own: what the next machine would bring. */
#include <math.h>
#include <stdio.h>

#include "planner/planner_internal.h"

typedef struct change {
    pp_plan_request request;
    const pp_plan *plan;
    pp_cluster *grown; /* NULL: the request's */
    int more;          /* devices that it has in addition */
} change;

static void pin_all(const pp_plan_request *asked, const pp_plan *plan, change *c) {
    *c = (change){.request = *asked, .plan = plan};
    pp_plan_request *r = &c->request;
    r->ranks = plan->ranks;
    r->virtual_stages = plan->virtual_stages;
    r->slices = plan->slices > 1 ? plan->slices : 0;
    r->microbatches = plan->microbatches;
    r->microbatch_size = 0;
    r->dp = plan->dp;
    r->tp = plan->tp;
    r->zero = plan->zero;
    r->schedule = plan->schedule_csv ? "auto" : plan->schedule;
    r->objective = NULL;
    r->best_alone = true;
    r->alternative_count = 1;
    r->tell_changes = false;
    r->progress = NULL;
}

/* ---- the changes ----------------------------------------------------------------------------- */

/* Each describes itself, also where it cannot be, with the reason: false. Empty: not worth telling.
 */
static bool double_microbatches(change *c, char text[160]) {
    int64_t samples = c->plan->global_batch / c->plan->dp;
    int64_t size = (samples + 2 * c->plan->microbatches - 1) / (2 * c->plan->microbatches);
    c->request.microbatches = (int)((samples + size - 1) / size);
    snprintf(text, 160, "With %d microbatches of %lld", c->request.microbatches, (long long)size);
    if (c->request.microbatches > c->plan->microbatches) return true;
    snprintf(text, 160, "With more microbatches: they hold one sample each, so there are no more");
    return false;
}

static bool other_recompute(change *c, char text[160]) {
    bool none = c->plan->recompute == PP_RECOMPUTE_NONE;
    c->request.recompute = none ? "full" : "none";
    snprintf(text, 160, none ? "With everything recomputed" : "With nothing recomputed");
    return true;
}

static bool one_more_rank(change *c, char text[160]) {
    int width = c->plan->dp * c->plan->tp;
    c->request.ranks = c->plan->ranks + 1;
    if (c->plan->ranks == 1) { /* which schedule would be worst with two */
        c->request.schedule = NULL;
        c->request.virtual_stages = 0;
        c->request.microbatches = 0;
    }
    if (c->more > 0)
        snprintf(text, 160, "With one more rank, on %d more device%s", c->more,
                 c->more == 1 ? "" : "s");
    else
        snprintf(text, 160, "With one more rank, on %d of the idle devices", width);
    if (c->plan->ranks < c->plan->model->layer_count) return true;
    snprintf(text, 160, "With one more rank: there are no more layers to divide");
    return false;
}

static bool made_to_measure(change *c, char text[160]) {
    c->request.schedule = "auto";
    bool possible = c->plan->ranks > 1 && !c->plan->schedule_csv;
    snprintf(text, 160, "%s", possible ? "With an order made to measure (--schedule auto)" : "");
    return possible;
}

static pp_status grow(change *c, pp_error *error) {
    const pp_cluster *cluster = c->request.cluster;
    int width = c->plan->dp * c->plan->tp, had = pp_cluster_device_count(cluster);
    if (had >= (c->plan->ranks + 1) * width) return PP_OK;
    PP_TRY(pp_cluster_copy(cluster, &c->grown, error));
    pp_node *nodes = PP_NEW(&c->grown->arena, pp_node, c->grown->node_kind_count + 1);
    if (nodes == NULL) return pp_fail_memory(error);
    for (int i = 0; i < c->grown->node_kind_count; i++) nodes[i] = c->grown->nodes[i];
    c->more = (c->plan->ranks + 1) * width - had;
    nodes[c->grown->node_kind_count] = (pp_node){
        .device = nodes[c->grown->node_kind_count - 1].device, .count = c->more, .repeat = 1};
    c->grown->nodes = nodes;
    c->grown->node_kind_count++;
    c->request.cluster = c->grown;
    return PP_OK;
}

/* ---- searching and telling ------------------------------------------------------------------- */

static int64_t peak_of(const pp_plan *plan) {
    int64_t peak = 0;
    for (int p = 0; p < plan->ranks; p++)
        if (plan->predicted.rank[p].peak_bytes > peak) peak = plan->predicted.rank[p].peak_bytes;
    return peak;
}

static void tell_plan(const pp_plan *made, const pp_plan *best, pp_text *text) {
    double seconds = made->predicted.iteration_time_s, was = best->predicted.iteration_time_s;
    char time[32], bytes[32];
    pp_text_printf(text, ": %s", pp_format_seconds(seconds, time));
    if (was > 0) pp_text_printf(text, " (%+.2f %%)", 100 * (seconds - was) / was);
    pp_text_printf(text, ", bubble %.2f %%, peak memory %s (%+.1f %%).\n",
                   100 * made->predicted.bubble_fraction,
                   pp_format_bytes((double)peak_of(made), bytes),
                   100 * ((double)peak_of(made) / (double)peak_of(best) - 1));
}

static pp_status search_and_tell(const change *c, pp_text *text, pp_error *error) {
    pp_plan_result *result;
    pp_error why = {0};
    pp_status status = pp_plan_search(&c->request, &result, &why);
    if (status == PP_OK)
        tell_plan(result->best, c->plan, text);
    else if (status == PP_E_NO_FIT)
        pp_text_printf(text, " it does not fit: rank %d would need %lld bytes of %lld.\n",
                       result->miss.rank, (long long)result->miss.needed_bytes,
                       (long long)result->miss.limit_bytes);
    else if (status == PP_E_INPUT || status == PP_E_UNSUPPORTED)
        pp_text_printf(text, " there is no plan: %s.\n", why.message);
    else if (error != NULL)
        *error = why;
    pp_plan_result_free(result);
    bool told = status == PP_OK || status == PP_E_NO_FIT || status == PP_E_INPUT ||
                status == PP_E_UNSUPPORTED;
    return told ? PP_OK : status;
}

static bool (*const changes[])(change *c, char text[160]) = {double_microbatches, other_recompute,
                                                             one_more_rank, made_to_measure};

pp_status pp_tell_changes(const pp_plan_request *request, const pp_plan *plan, double until_s,
                          pp_text *text, pp_error *error) {
    pp_status status = PP_OK;
    for (size_t i = 0; i < sizeof changes / sizeof *changes && status == PP_OK; i++) {
        change c;
        char what[160] = "";
        pin_all(request, plan, &c);
        if (request->limit_s > 0) c.request.limit_s = until_s - pp_now_s();
        if (request->limit_s > 0 && c.request.limit_s <= 0) {
            pp_text_string(text, "With one change: not looked for, since the time was up.\n");
            break;
        }
        if (changes[i] == one_more_rank) status = grow(&c, error);
        bool possible = status == PP_OK && changes[i](&c, what);
        if (status == PP_OK && what[0]) pp_text_printf(text, possible ? "%s" : "%s.\n", what);
        if (possible) status = search_and_tell(&c, text, error);
        pp_cluster_free(c.grown);
    }
    return status;
}
