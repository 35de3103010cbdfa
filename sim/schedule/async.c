/* Asynchronous families: 1F1B without a flush. A rank updates its weights after each backward (of a
 * minibatch, or of the last microbatch of one) while other ranks are at earlier or later ones, so
 * that no rank ever waits for the pipeline to drain. A run of M minibatches is the beginning and
 * the end of a training with steps in between that the simulation shows all at once.
 *
 * Since updates follow backwards, versions of weights follow from the order alone. Version v of a
 * rank's weights is what v updates of that rank have made. With w forwards before the first
 * backward, m - w backwards are done when forward m starts: it finds version max(0, m - w), and the
 * backward of m finds version m. What a family reads, keeps and predicts is a row of the table
 * (families_internal.h).
 *
 * w is K-1-p, as in 1f1b, where a rank does one thing at a time (PipeDream; Narayanan et al. 2019,
 * section 3.3). The delays of PB and PipeMare, 2(K-1-p) and one more, are those of a stage that
 * does a forward and a backward at the same time; a rank that takes turns has them after as many
 * forwards, and so these families begin with that many.
 *
 * STEP is not written: the order of a step can have one for each stage, not many. Time that an
 * update takes belongs in the backward's. */
#include "sim/families_internal.h"

#include <math.h>

enum { MINIBATCHES = 4 };

static const pp_async_rule *rule_of(const pp_schedule_request *request) {
    return pp_schedule_family_find(request->name)->async;
}

static bool accumulates(const pp_async_rule *rule) {
    return rule->weights == PP_WEIGHTS_DOUBLE;
}

static int64_t all_microbatches(const pp_schedule_request *request) {
    int64_t minibatches = request->minibatches > 0 ? request->minibatches : MINIBATCHES;
    return request->microbatches * (accumulates(rule_of(request)) ? minibatches : 1);
}

static int warm_up_of(const pp_async_rule *rule, const pp_schedule_request *request, int p) {
    return rule->depth * (request->ranks - 1 - p) + rule->more;
}

/* ---- the order ----------------------------------------------------------------------------- */

/* A version may be used until its successor's successor is there, if the forwards that are under
 * way belong to two minibatches at most (Narayanan et al. 2021, "Memory-efficient pipeline-parallel
 * DNN training", section 3.1). */
static pp_status check_accumulation(const pp_schedule_request *request, pp_error *error) {
    if (request->microbatches < request->ranks)
        return pp_fail(error, PP_E_INPUT, "-M",
                       "%s accumulates at least K = %d microbatches into an update, not %d",
                       request->name, request->ranks, request->microbatches);
    if (all_microbatches(request) > PP_MICROBATCHES_MAX)
        return pp_fail(error, PP_E_INPUT, "--minibatches",
                       "%lld microbatches in all, the most is %d",
                       (long long)all_microbatches(request), PP_MICROBATCHES_MAX);
    return PP_OK;
}

pp_status pp_async_validate(const pp_schedule_request *request, pp_error *error) {
    bool grouped = accumulates(rule_of(request));
    PP_TRY(pp_family_options(request, grouped ? PP_TAKES_MINIBATCHES : 0, error));
    return grouped ? check_accumulation(request, error) : PP_OK;
}

size_t pp_async_count(const pp_schedule_request *request) {
    return 2 * (size_t)request->ranks * (size_t)all_microbatches(request);
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    int64_t total = schedule->microbatches, warm_up = warm_up_of(rule_of(request), request, p);
    if (warm_up > total) warm_up = total;
    for (int64_t m = 0; m < total + warm_up; m++) {
        if (m < total) at = pp_put(schedule, at, PP_FORWARD, p, (int)m);
        if (m >= warm_up) at = pp_put(schedule, at, PP_BACKWARD, p, (int)(m - warm_up));
    }
    return at;
}

void pp_async_build(const pp_schedule_request *request, pp_schedule *schedule) {
    schedule->microbatches = (int)all_microbatches(request);
    pp_family_build_ranks(request, schedule, build_rank);
}

/* 1f1b's order takes 1f1b's time. Of a longer warm-up no formula is proved. */
double pp_async_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    const pp_async_rule *rule = rule_of(request);
    if (rule->depth != 1 || rule->more != 0) return NAN;
    pp_schedule_request all = *request;
    all.microbatches = (int)all_microbatches(request);
    return pp_gpipe_bubble(&all, cost);
}

/* ---- weights ------------------------------------------------------------------------------- */

/* How many updates a prediction looks ahead: to the backward of the microbatch on the same rank, or
 * to its backward on rank 0, which with F = B begins ⌊p/2⌋ updates later (Chen et al. 2018,
 * section 4). */
static void set_prediction(const pp_async_rule *rule, int p, pp_async_rank *rank) {
    if (rule->predicts == PP_PREDICTS_NOTHING) return;
    rank->forward_ahead = rank->delay;
    if (rule->predicts == PP_PREDICTS_OWN_BACKWARD) return;
    rank->forward_ahead += p / 2;
    rank->backward_ahead = p / 2;
}

pp_async_rank pp_async_rank_of(const pp_schedule_request *request, int p) {
    const pp_async_rule *rule = rule_of(request);
    int ranks = request->ranks;
    pp_async_rank rank = {.weight_versions = 1, .weight_copies = 1};
    switch (rule->weights) {
    case PP_WEIGHTS_STASHED:
        rank.delay = warm_up_of(rule, request, p);
        rank.weight_versions = rank.weight_copies = rank.delay + 1;
        break;
    case PP_WEIGHTS_OF_FIRST_RANK:
        /* Rank p runs ahead of rank 0 by p versions, and keeps them until rank 0 has seen them. */
        rank.delay = warm_up_of(rule, request, 0);
        rank.weight_versions = warm_up_of(rule, request, p) + 1;
        rank.weight_copies = ranks;
        break;
    case PP_WEIGHTS_DOUBLE:
        rank.delay = 1;
        rank.weight_versions = rank.weight_copies = 2;
        break;
    case PP_WEIGHTS_NEWEST:
        rank.delay = warm_up_of(rule, request, p);
        rank.weight_copies += rule->extra_copies;
        break;
    }
    set_prediction(rule, p, &rank);
    return rank;
}

static int64_t from_zero(int64_t version) {
    return version > 0 ? version : 0;
}

pp_async_use pp_async_use_of(const pp_schedule_request *request, int p, int64_t m) {
    const pp_async_rule *rule = rule_of(request);
    int64_t newest = from_zero(m - warm_up_of(rule, request, p)), read = newest;
    switch (rule->weights) {
    case PP_WEIGHTS_STASHED:
        break;
    case PP_WEIGHTS_OF_FIRST_RANK:
        read = from_zero(m - warm_up_of(rule, request, 0));
        break;
    case PP_WEIGHTS_DOUBLE:
        read = from_zero(m / request->microbatches - 1);
        break;
    case PP_WEIGHTS_NEWEST:
        return (pp_async_use){newest, m};
    }
    return (pp_async_use){read, read};
}
