/* Nothing fits: what came closest, and what would have to change.
 *
 * For each number of ranks the leanest candidates are looked at: the smallest microbatches allowed,
 * recomputation where it is allowed (it only ever lowers the bytes), fewest and most replicas. A
 * chain cut finds the split whose worst rank is least above its limit. The same is then asked with
 * one pin or default lifted after the other, in the order of what costs a user least; the first
 * under which something fits is the advice. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/planner_internal.h"

enum { FEW_CANDIDATES = 512 };

typedef struct miss {
    const pp_candidate *candidate; /* NULL: none */
    double excess_bytes;           /* of the worst rank; at most 0: it fits */
    int rank;
    int64_t needed_bytes, limit_bytes;
} miss;

/* ---- the nearest --------------------------------------------------------------------------- */

static pp_status measure(pp_work *work, const pp_candidate *candidate, miss *nearest,
                         pp_error *error) {
    pp_status status = pp_work_start(work, candidate, error);
    if (status == PP_E_UNSUPPORTED) return PP_OK;
    if (status != PP_OK) return status;
    miss found = {.candidate = candidate};
    PP_TRY(pp_work_least_excess(work, &found.rank, &found.needed_bytes, error));
    found.limit_bytes = work->terms.limit_bytes[found.rank];
    found.excess_bytes = (double)(found.needed_bytes - found.limit_bytes);
    if (nearest->candidate == NULL || found.excess_bytes < nearest->excess_bytes) *nearest = found;
    return PP_OK;
}

/* Measures the leanest of the candidates first … end - 1, which have the same number of ranks and
 * the same tp: they are listed by rising replicas and, within those, falling microbatch size. */
static pp_status measure_leanest(pp_work *work, const pp_space *space, size_t first, size_t end,
                                 miss *nearest, pp_error *error) {
    const pp_candidate *all = space->candidates;
    bool pinned = work->views->base->request->recompute != NULL;
    int64_t smallest = 0;
    for (size_t i = end; i-- > first;) {
        if (i + 1 == end || all[i].dp != all[i + 1].dp) smallest = all[i].size;
        bool few = space->count <= FEW_CANDIDATES;
        bool outer = all[i].dp == all[first].dp || all[i].dp == all[end - 1].dp;
        bool lean = pinned || all[i].recompute != PP_RECOMPUTE_EXCEPT_LAST;
        if (!few && (!outer || !lean || all[i].size != smallest)) continue;
        PP_TRY(measure(work, &all[i], nearest, error));
    }
    return PP_OK;
}

static bool same_shape(const pp_candidate *a, const pp_candidate *b) {
    return a->ranks == b->ranks && a->tp == b->tp;
}

/* Ranks from many to few: more ranks hold less each, so the nearest is likely to come first. */
static pp_status find_nearest(pp_work *work, const pp_space *space, miss *nearest,
                              pp_error *error) {
    *nearest = (miss){0};
    for (size_t end = space->count; end > 0;) {
        size_t first = end - 1;
        while (first > 0 && same_shape(&space->candidates[first - 1], &space->candidates[first])) {
            first--;
        }
        if (nearest->candidate != NULL && pp_work_must_stop(work)) return PP_OK;
        PP_TRY(measure_leanest(work, space, first, end, nearest, error));
        end = first;
    }
    return PP_OK;
}

/* ---- advice -------------------------------------------------------------------------------- */

/* A change to the request; false: it is no change. */
typedef bool change_request(const pp_plan_request *asked, pp_plan_request *changed);

static bool lift_recompute(const pp_plan_request *asked, pp_plan_request *changed) {
    changed->recompute = "full";
    return asked->recompute != NULL && strcmp(asked->recompute, changed->recompute) != 0;
}

static bool lift_microbatch(const pp_plan_request *asked, pp_plan_request *changed) {
    changed->microbatch_size = 0;
    changed->microbatches = 0;
    return asked->microbatch_size != 0 || asked->microbatches != 0;
}

static bool lift_schedule(const pp_plan_request *asked, pp_plan_request *changed) {
    changed->schedule = NULL;
    return asked->schedule != NULL;
}

static bool shard_optimizer(const pp_plan_request *asked, pp_plan_request *changed) {
    changed->zero = 1;
    return asked->zero == 0 || (asked->zero == PP_ZERO_SEARCH && asked->runnable);
}

static bool lift_ranks(const pp_plan_request *asked, pp_plan_request *changed) {
    changed->ranks = 0;
    changed->dp = 0;
    return asked->ranks != 0 || asked->dp != 0;
}

static bool lift_width(const pp_plan_request *asked, pp_plan_request *changed) {
    changed->tp = 0;
    changed->runnable = false;
    return asked->tp != 0 || asked->runnable;
}

static const struct {
    change_request *change;
    const char *advice; /* "it would fit with …" */
} changes[] = {{lift_recompute, "--recompute full"},   {lift_microbatch, "smaller microbatches"},
               {lift_schedule, "another schedule"},    {shard_optimizer, "--zero 1"},
               {lift_ranks, "other --ranks and --dp"}, {lift_width, "another --tp"}};

/* The advice that makes something fit, or NULL. *fits: what does. */
static pp_status find_advice(pp_work *work, const char **advice, pp_space *space, miss *fits,
                             pp_error *error) {
    const pp_plan_request *asked = work->views->base->request;
    pp_status status = PP_OK;
    *advice = NULL;
    for (size_t i = 0; i < sizeof changes / sizeof *changes && *advice == NULL; i++) {
        pp_plan_request changed = *asked;
        if (!changes[i].change(asked, &changed)) continue;
        pp_views_ask(work->views, &changed);
        pp_space_deinit(space);
        status = pp_space_init(space, work->views->base, work->method, error);
        /* A pin that contradicts the others once one is lifted is no advice. */
        if (status == PP_E_INPUT)
            status = PP_OK;
        else if (status == PP_OK)
            status = find_nearest(work, space, fits, error);
        pp_views_ask(work->views, asked);
        if (status != PP_OK) return status;
        if (fits->candidate != NULL && fits->excess_bytes <= 0) *advice = changes[i].advice;
    }
    return PP_OK;
}

/* ---- a layer that no device holds ---------------------------------------------------------- */

/* The best that any candidate offers to a single layer. */
typedef struct room {
    int tp, shards;
    int64_t bytes;
    int device; /* that has them */
} room;

static room most_room(const pp_space *space) {
    room most = {.tp = 1, .shards = 1};
    for (size_t i = 0; i < space->count; i++) {
        const pp_candidate *c = &space->candidates[i];
        if (c->tp > most.tp) most.tp = c->tp;
        if (c->zero == 1 && c->dp > most.shards) most.shards = c->dp;
        for (int p = 0; p < c->ranks; p++) {
            if (c->arrangement->limit_bytes[p] <= most.bytes) continue;
            most.bytes = c->arrangement->limit_bytes[p];
            most.device = c->arrangement->devices[p * c->arrangement->width];
        }
    }
    return most;
}

/* Weights, gradients and optimizer state of one layer, divided as far as any candidate does. */
static pp_status layer_bytes(const pp_tables *tables, int layer, const room *most, int64_t *bytes,
                             pp_error *error) {
    const pp_plan_request *request = tables->request;
    pp_arena arena;
    pp_arena_init(&arena);
    pp_layout_request ask = {.model = tables->model,
                             .first = layer,
                             .last = layer,
                             .samples = 1,
                             .dtype = request->dtype,
                             .optimizer = request->optimizer,
                             .tp = most->tp};
    pp_stage_layout layout;
    pp_status status = pp_stage_layout_make(&ask, &arena, &layout, error);
    if (status == PP_OK)
        *bytes = layout.bytes.parameters + layout.bytes.gradients +
                 layout.bytes.optimizer / most->shards;
    pp_arena_deinit(&arena);
    return status;
}

/* Says so if there is one. */
static pp_status find_large_layer(const pp_tables *tables, const pp_space *space, char *text,
                                  size_t size, pp_error *error) {
    room most = most_room(space);
    text[0] = '\0';
    for (int i = 0; i < tables->layers; i++) {
        int64_t bytes = 0;
        PP_TRY(layer_bytes(tables, i, &most, &bytes, error));
        if (bytes <= most.bytes) continue;
        char needed[32], limit[32];
        pp_format_bytes((double)bytes, needed);
        pp_format_bytes((double)most.bytes, limit);
        snprintf(text, size,
                 ": layer %d '%s' alone needs %s (%lld bytes) for weights, gradients and optimizer "
                 "state, and the most there is are %s on device %d ('%s')",
                 i, tables->model->layers[i].name, needed, (long long)bytes, limit, most.device,
                 pp_cluster_device(tables->cluster, most.device)->name);
        return PP_OK;
    }
    return PP_OK;
}

/* ---- the message --------------------------------------------------------------------------- */

static void describe(const pp_candidate *c, char *text, size_t size) {
    char policy[PP_RECOMPUTE_LENGTH];
    char width[32] = "";
    if (c->tp > 1) snprintf(width, sizeof width, ", tp %d", c->tp);
    snprintf(text, size, "%d rank%s, %d replica%s%s%s, %s, %d microbatch%s of %lld, recompute %s",
             c->ranks, c->ranks == 1 ? "" : "s", c->dp, c->dp == 1 ? "" : "s", width,
             c->zero == 1 && c->dp > 1 ? ", ZeRO-1" : "", c->family->name, c->microbatches,
             c->microbatches == 1 ? "" : "es", (long long)c->size,
             pp_recompute_text(c->recompute, policy));
}

static pp_status fail_near(const miss *nearest, const char *layer, const char *advice,
                           const miss *fits, pp_error *error) {
    char shape[256], other[256], remedy[512], needed[32], limit[32], excess[32];
    describe(nearest->candidate, shape, sizeof shape);
    pp_format_bytes((double)nearest->needed_bytes, needed);
    pp_format_bytes((double)nearest->limit_bytes, limit);
    pp_format_bytes(nearest->excess_bytes, excess);
    if (advice != NULL) {
        describe(fits->candidate, other, sizeof other);
        snprintf(remedy, sizeof remedy, "it would fit with %s (%s)", advice, other);
    } else {
        snprintf(remedy, sizeof remedy,
                 "it would fit with %lld bytes on each device, or with more devices",
                 (long long)nearest->needed_bytes);
    }
    return pp_fail(
        error, PP_E_NO_FIT, "--memory",
        "nothing fits%s. The nearest miss needs %s (%lld bytes) on rank %d, whose limit is "
        "%s: %s too much (%s); %s",
        layer, needed, (long long)nearest->needed_bytes, nearest->rank, limit, excess, shape,
        remedy);
}

pp_status pp_miss_find(pp_work *work, pp_space *space, pp_plan_miss *out, pp_error *error) {
    miss nearest, fits = {0};
    pp_space other = {0};
    const char *advice = NULL;
    work->deadline_s = 0;
    PP_TRY(find_nearest(work, space, &nearest, error));
    if (nearest.candidate == NULL || nearest.excess_bytes <= 0) {
        return pp_fail(error, PP_E_NO_FIT, "--memory",
                       "no split of %s by '%s' fits; leave out --split to let the planner choose",
                       work->views->base->model->name, work->method->name);
    }
    *out = (pp_plan_miss){.known = true,
                          .ranks = nearest.candidate->ranks,
                          .microbatches = nearest.candidate->microbatches,
                          .dp = nearest.candidate->dp,
                          .rank = nearest.rank,
                          .needed_bytes = nearest.needed_bytes,
                          .limit_bytes = nearest.limit_bytes};
    snprintf(out->schedule, sizeof out->schedule, "%s", nearest.candidate->family->name);
    char layer[320];
    PP_TRY(find_large_layer(work->views->base, space, layer, sizeof layer, error));
    pp_status status = find_advice(work, &advice, &other, &fits, error);
    if (status == PP_OK) status = fail_near(&nearest, layer, advice, &fits, error);
    pp_space_deinit(&other);
    return status;
}
