/* Why this plan, in sentences, each with its figure.
 *
 * In order: the plan; why its ranks, replicas, microbatches, schedule and recomputation (for each,
 * the fastest plan that differs in it, or what no such plan can beat); what binds (the slowest
 * stage, idle time, memory, transfers, gradient reduction); the runners-up; what one change would
 * give; how good the answer is proved to be; and what of the costs was measured, modelled or
 * assumed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/planner_internal.h"

#define DOUBTFUL 0.1 /* half of an interval, of the value in it */

static const char *seconds_text(double seconds, char buffer[32]) {
    return pp_format_seconds(seconds, buffer);
}

static const char *plural(int64_t count) {
    return count == 1 ? "" : "s";
}

/* ---- the plan ------------------------------------------------------------------------------ */

static void describe(const pp_plan *plan, pp_text *text) {
    pp_text_printf(text, "%d rank%s", plan->ranks, plural(plan->ranks));
    if (plan->virtual_stages > 1) pp_text_printf(text, " of %d stages", plan->virtual_stages);
    if (plan->dp > 1) pp_text_printf(text, ", %d replicas", plan->dp);
    if (plan->tp > 1) pp_text_printf(text, ", layers divided over %d devices", plan->tp);
    if (plan->dp > 1 && plan->zero == 1) pp_text_printf(text, ", ZeRO-1");
    char policy[PP_RECOMPUTE_LENGTH];
    pp_text_printf(text, ", %s, %d microbatch%s of %lld sample%s", plan->schedule,
                   plan->microbatches, plan->microbatches == 1 ? "" : "es",
                   (long long)plan->microbatch_size, plural(plan->microbatch_size));
    if (plan->slices > 1) pp_text_printf(text, " in %d slices", plan->slices);
    pp_text_printf(text, ", recompute %s", pp_recompute_text(plan->recompute, policy));
}

static void tell_plan(const pp_story *story, pp_text *text) {
    const pp_plan *plan = story->result->best;
    char buffer[32];
    pp_text_printf(text, "Plan: ");
    describe(plan, text);
    pp_text_printf(
        text, ". A step of %lld samples takes %s, %.4g samples/s.\n", (long long)plan->global_batch,
        seconds_text(plan->predicted.iteration_time_s, buffer), plan->predicted.throughput);
}

/* ---- why not otherwise --------------------------------------------------------------------- */

/* A dimension of the space: what two candidates differ in, and how to name its value. */
typedef struct dimension {
    const char *name;
    bool (*same)(const pp_candidate *a, const pp_candidate *b);
    void (*value)(const pp_candidate *candidate, char *text, size_t size);
} dimension;

static bool same_ranks(const pp_candidate *a, const pp_candidate *b) {
    return a->ranks == b->ranks;
}
static void ranks_value(const pp_candidate *c, char *text, size_t size) {
    snprintf(text, size, "%d rank%s", c->ranks, plural(c->ranks));
}
static bool same_replicas(const pp_candidate *a, const pp_candidate *b) {
    return a->dp == b->dp;
}
static void replicas_value(const pp_candidate *c, char *text, size_t size) {
    snprintf(text, size, "%d replica%s", c->dp, plural(c->dp));
}
static bool same_width(const pp_candidate *a, const pp_candidate *b) {
    return a->tp == b->tp;
}
static void width_value(const pp_candidate *c, char *text, size_t size) {
    if (c->tp == 1)
        snprintf(text, size, "whole layers");
    else
        snprintf(text, size, "layers divided over %d devices", c->tp);
}
static bool same_microbatches(const pp_candidate *a, const pp_candidate *b) {
    return a->microbatches == b->microbatches;
}
static void microbatches_value(const pp_candidate *c, char *text, size_t size) {
    snprintf(text, size, "%d microbatch%s of %lld", c->microbatches,
             c->microbatches == 1 ? "" : "es", (long long)c->size);
}
static bool same_schedule(const pp_candidate *a, const pp_candidate *b) {
    return a->family == b->family;
}
static void schedule_value(const pp_candidate *c, char *text, size_t size) {
    snprintf(text, size, "%s", c->family->name);
}
static bool same_virtual(const pp_candidate *a, const pp_candidate *b) {
    return a->virtual_stages == b->virtual_stages;
}
static void virtual_value(const pp_candidate *c, char *text, size_t size) {
    snprintf(text, size, "%d stage%s on each rank", c->virtual_stages, plural(c->virtual_stages));
}
static bool same_slices(const pp_candidate *a, const pp_candidate *b) {
    return a->slices == b->slices;
}
static void slices_value(const pp_candidate *c, char *text, size_t size) {
    snprintf(text, size, "%d slice%s of each microbatch", c->slices, plural(c->slices));
}
static bool same_recompute(const pp_candidate *a, const pp_candidate *b) {
    return a->recompute == b->recompute;
}
static void recompute_value(const pp_candidate *c, char *text, size_t size) {
    char policy[PP_RECOMPUTE_LENGTH];
    if (c->recompute == PP_RECOMPUTE_MIXED)
        snprintf(text, size, "as little as fits, stage by stage");
    else
        snprintf(text, size, "recompute %s", pp_recompute_text(c->recompute, policy));
}

static const dimension dimensions[] = {{"Ranks", same_ranks, ranks_value},
                                       {"Replicas", same_replicas, replicas_value},
                                       {"Tensor parallelism", same_width, width_value},
                                       {"Microbatches", same_microbatches, microbatches_value},
                                       {"Schedule", same_schedule, schedule_value},
                                       {"Virtual stages", same_virtual, virtual_value},
                                       {"Slices", same_slices, slices_value},
                                       {"Recomputation", same_recompute, recompute_value}};

/* What is known of a candidate's step time: it, or a bound below it. INFINITY: no split fits, or
 * none that fits was found. */
static double least_seconds(const pp_candidate *c) {
    return c->tried ? c->seconds : c->bound_s;
}

/* Fastest candidate with another value of the dimension. *others: there are some at all. */
static const pp_candidate *fastest_other(const pp_story *story, const dimension *by, bool *others) {
    const pp_candidate *fastest = NULL;
    *others = false;
    for (size_t i = 0; i < story->space->count; i++) {
        const pp_candidate *c = &story->space->candidates[i];
        if (by->same(c, story->chosen)) continue;
        *others = true;
        if (least_seconds(c) == INFINITY) continue;
        if (fastest == NULL || least_seconds(c) < least_seconds(fastest)) fastest = c;
    }
    return fastest;
}

static void tell_dimension(const pp_story *story, const dimension *by, pp_text *text) {
    bool others;
    char chosen[96], other[96], buffer[32];
    const pp_candidate *fastest = fastest_other(story, by, &others);
    if (!others) return; /* pinned, or the only value there is */
    by->value(story->chosen, chosen, sizeof chosen);
    if (fastest == NULL) {
        pp_text_printf(text, "%s: %s, since nothing else fits the memory.\n", by->name, chosen);
        return;
    }
    by->value(fastest, other, sizeof other);
    double seconds = least_seconds(fastest), best = story->result->best->predicted.iteration_time_s;
    double percent = best > 0 ? 100 * (seconds - best) / best : 0;
    bool simulated = fastest->seconds < INFINITY;
    if (pp_rounded(seconds) == pp_rounded(best) && simulated) {
        pp_text_printf(text, "%s: %s; the best plan with %s is as fast.\n", by->name, chosen,
                       other);
        return;
    }
    if (!simulated && percent <= 0) {
        pp_text_printf(text, "%s: %s; plans with %s take at least %s, and not all were tried.\n",
                       by->name, chosen, other, seconds_text(seconds, buffer));
        return;
    }
    pp_text_printf(text, "%s: %s; the best plan with %s takes %s%s (+%.2f %%).\n", by->name, chosen,
                   other, simulated ? "" : "at least ", seconds_text(seconds, buffer), percent);
}

/* ---- what binds ---------------------------------------------------------------------------- */

static double visit_of(const pp_stage *stage) {
    return stage->forward_s + stage->input_s + stage->weight_s + stage->recompute_s;
}

static void tell_slowest(const pp_plan *plan, pp_text *text) {
    int slowest = 0;
    double sum = 0;
    for (int s = 0; s < plan->stage_count; s++) {
        sum += visit_of(&plan->stages[s]);
        if (visit_of(&plan->stages[s]) > visit_of(&plan->stages[slowest])) slowest = s;
    }
    const pp_stage *stage = &plan->stages[slowest];
    double slow = visit_of(stage), mean = sum / plan->stage_count;
    char time[32], average[32];
    pp_text_printf(text,
                   "Slowest stage: stage %d on rank %d, layers %d to %d (%s to %s), %s for a "
                   "microbatch; the average is %s",
                   slowest, plan->placement[slowest], stage->first, stage->last,
                   plan->model->layers[plan->order[stage->first]].name,
                   plan->model->layers[plan->order[stage->last]].name, seconds_text(slow, time),
                   seconds_text(mean, average));
    if (mean > 0) pp_text_printf(text, " (%.1f %% above it)", 100 * (slow / mean - 1));
    pp_text_string(text, ".\n");
}

static void tell_idle(const pp_plan *plan, pp_text *text) {
    int most = 0;
    const pp_prediction *predicted = &plan->predicted;
    for (int p = 1; p < plan->ranks; p++) {
        if (predicted->rank[p].busy_s > predicted->rank[most].busy_s) most = p;
    }
    double busy = predicted->iteration_time_s > 0
                      ? predicted->rank[most].busy_s / predicted->iteration_time_s
                      : 0;
    pp_text_printf(text, "Idle time: %.2f %% on average; rank %d is busiest, %.2f %% of the step.",
                   100 * predicted->bubble_fraction, most, 100 * busy);
    if (plan->ranks > 1) {
        double ramp = (double)plan->ranks / plan->chains - 1; /* two chains fill from both ends */
        double fill = ramp / ((double)plan->microbatches * plan->slices + ramp);
        pp_text_printf(text,
                       " %s on equal stages without transfers would leave %.2f %% for "
                       "filling and draining %d ranks with %d microbatch%s%s.",
                       plan->chains > 1   ? "chimera"
                       : plan->slices > 1 ? "seq1f1b"
                                          : "GPipe or 1F1B",
                       100 * fill, plan->ranks, plan->microbatches,
                       plan->microbatches == 1 ? "" : "es", plan->slices > 1 ? " in slices" : "");
    }
    pp_text_string(text, "\n");
}

static int64_t limit_of(const pp_story *story, const pp_plan *plan, int rank) {
    int64_t asked = story->tables->request->memory_bytes, least = INT64_MAX;
    if (asked > 0) return asked;
    for (int d = 0; d < plan->dp * plan->tp; d++) {
        int device = plan->devices[rank * plan->dp * plan->tp + d];
        int64_t memory = pp_cluster_device(plan->cluster, device)->memory_bytes;
        if (memory < least) least = memory;
    }
    return least;
}

static void tell_memory(const pp_story *story, pp_text *text) {
    const pp_plan *plan = story->result->best;
    int fullest = 0;
    double share = 0;
    for (int p = 0; p < plan->ranks; p++) {
        double here = (double)plan->predicted.rank[p].peak_bytes / (double)limit_of(story, plan, p);
        if (here > share) {
            share = here;
            fullest = p;
        }
    }
    char used[32], limit[32];
    pp_text_printf(text, "Memory: rank %d is fullest, %s of %s (%.1f %%)%s\n", fullest,
                   pp_format_bytes((double)plan->predicted.rank[fullest].peak_bytes, used),
                   pp_format_bytes((double)limit_of(story, plan, fullest), limit), 100 * share,
                   share > 0.9 ? ": memory is what limits this plan." : ".");
}

/* The longest transfer, against the slowest stage. */
static void tell_transfers(const pp_plan *plan, pp_text *text) {
    double longest = 0, slowest = 0;
    int at = -1;
    for (int s = 0; s < plan->stage_count; s++) slowest = fmax(slowest, visit_of(&plan->stages[s]));
    for (int s = 0; s + 1 < plan->stage_count; s++) {
        if (plan->placement[s] == plan->placement[s + 1]) continue;
        int replicas = plan->dp * plan->tp;
        pp_link link = pp_cluster_link(plan->cluster, plan->devices[plan->placement[s] * replicas],
                                       plan->devices[plan->placement[s + 1] * replicas]);
        double seconds =
            link.latency_s + (double)pp_plan_border_bytes(plan, s) / link.bandwidth_bytes_per_s;
        if (seconds <= longest && at >= 0) continue;
        longest = seconds;
        at = s;
    }
    if (at < 0) return;
    char time[32], bytes[32];
    pp_text_printf(text, "Transfers: the longest, behind stage %d, moves %s in %s", at,
                   pp_format_bytes((double)pp_plan_border_bytes(plan, at), bytes),
                   seconds_text(longest, time));
    if (slowest > 0) {
        pp_text_printf(text, ", %.2f %% of the slowest stage's time for a microbatch",
                       100 * longest / slowest);
    }
    pp_text_string(text, ".\n");
}

/* "stages 0, 1: attention" of the stages with the same policy as s; nothing if an earlier one has
 * it. */
static void tell_policy(const pp_plan *plan, int s, const char **between, pp_text *text) {
    char policy[PP_RECOMPUTE_LENGTH];
    double seconds = 0;
    int count = 0;
    for (int t = 0; t < plan->stage_count; t++) {
        if (plan->stages[t].recompute != plan->stages[s].recompute) continue;
        if (t < s) return;
        seconds = fmax(seconds, plan->stages[t].recompute_s);
        pp_text_printf(text, "%s%d", count++ > 0 ? " and " : *between, t);
    }
    pp_text_printf(text, " (%s", pp_recompute_text(plan->stages[s].recompute, policy));
    if (seconds > 0)
        pp_text_printf(text, ", up to %s a microbatch", seconds_text(seconds, (char[32]){0}));
    pp_text_string(text, ")");
    *between = "; stage ";
}

static void tell_recompute(const pp_story *story, pp_text *text) {
    const pp_plan *plan = story->result->best;
    const char *between = "Recomputing: stage ";
    for (int s = 0; s < plan->stage_count; s++)
        if (plan->stages[s].recompute != PP_RECOMPUTE_NONE) tell_policy(plan, s, &between, text);
    if (between[0] == 'R') return;
    bool chosen = story->chosen->recompute == PP_RECOMPUTE_MIXED;
    pp_text_string(text, chosen ? ": nothing that takes less time fits the memory of their ranks.\n"
                                : ".\n");
}

static void tell_reduction(const pp_plan *plan, pp_text *text) {
    double longest = 0;
    int at = 0;
    for (int s = 0; s < plan->stage_count; s++) {
        if (plan->stages[s].reduce_s <= longest) continue;
        longest = plan->stages[s].reduce_s;
        at = s;
    }
    if (!(longest > 0)) return;
    char time[32];
    pp_text_printf(text,
                   "Gradients: stage %d takes longest to sum them, %s (%.2f %% of the step), over "
                   "%s.\n",
                   at, seconds_text(longest, time),
                   100 * longest / plan->predicted.iteration_time_s,
                   plan->chains > 1 ? "its replicas and copies"
                   : plan->dp > 1   ? "its replicas"
                                    : "the ranks that share a tied matrix");
}

/* ---- how sure ------------------------------------------------------------------------------ */

static void tell_alternatives(const pp_plan_result *result, pp_text *text) {
    double best = result->best->predicted.iteration_time_s;
    for (int i = 0; i < result->alternative_count; i++) {
        const pp_plan *plan = result->alternatives[i];
        double seconds = plan->predicted.iteration_time_s;
        char buffer[32];
        pp_text_printf(text, "Runner-up %d: ", i + 1);
        describe(plan, text);
        pp_text_printf(text, ": %s", seconds_text(seconds, buffer));
        if (best > 0) pp_text_printf(text, " (+%.2f %%)", 100 * (seconds - best) / best);
        if (pp_plan_ties(result, i))
            pp_text_printf(text, ", a tie: measurements leave %s of the difference open",
                           seconds_text(result->alternative_doubt_s[i], buffer));
        pp_text_string(text, ".\n");
    }
}

static void tell_proof(const pp_story *story, pp_text *text) {
    const pp_plan_result *result = story->result;
    char bound[32];
    pp_text_printf(text, "Proof: no plan of this search can take less than %s, so ",
                   seconds_text(result->lower_bound_s, bound));
    if (result->gap <= 2 * PP_NEGLIGIBLE) {
        pp_text_string(text, "none is faster than this one");
    } else {
        pp_text_printf(text, "this one is within %.3g %% of the best", 100 * result->gap);
    }
    pp_text_printf(text, "; %lld of %lld combinations were simulated, %lld ruled out by bounds",
                   (long long)result->searched,
                   (long long)(result->searched + result->pruned + result->left),
                   (long long)result->pruned);
    if (result->left > 0)
        pp_text_printf(text, ", and %lld left %s", (long long)result->left,
                       story->timed_out ? "when the time was up"
                                        : "as the search had cost enough (--exact goes on until "
                                          "the best plan is proved)");
    pp_text_string(text, ".\n");
    if (strcmp(result->split.method, "optimal") != 0) {
        pp_text_printf(text,
                       "The split was asked for (%s); the bound holds for every way to split.\n",
                       result->split.method);
    }
}

/* How good the model of costs is, where there is something to compare it with. */
static void tell_model(const pp_costs_model *model, pp_text *text) {
    char start[32];
    if (model->modelled_layers > 0 && model->flops_per_s > 0) {
        pp_text_printf(text,
                       "Model: %d of %d layers, at %.3g FLOP/s and %.3g bytes/s with %s to start "
                       "each phase, %s.\n",
                       model->modelled_layers, model->modelled_layers + model->measured_layers,
                       model->flops_per_s, model->bytes_per_s, seconds_text(model->start_s, start),
                       model->fitted ? "fitted to the profile" : "as assumed of such devices");
    }
    if (model->point_count > 0) {
        pp_text_printf(text,
                       "Model against measurement: off by %.3g %% in the middle and %.3g %% at "
                       "worst over %zu measured phases and sizes of this model's layers.\n",
                       100 * model->median_error, 100 * model->worst_error, model->point_count);
    }
}

/* Weight gradients that a profiler could only measure as a difference, and not well. */
static void tell_doubtful(const pp_model *model, pp_text *text) {
    const pp_layer *worst = NULL;
    double worst_share = DOUBTFUL;
    int count = 0;
    for (int i = 0; i < model->layer_count; i++) {
        const pp_layer *layer = &model->layers[i];
        double share = layer->weight_s > 0 ? layer->weight_doubt_s / layer->weight_s
                                           : (layer->weight_doubt_s > 0 ? INFINITY : 0);
        count += share > DOUBTFUL;
        if (share <= worst_share) continue;
        worst_share = share;
        worst = layer;
    }
    if (!worst) return;
    char weight[32], doubt[32];
    pp_text_printf(
        text,
        "Doubtful: the weight gradient of %d layer%s was measured as a difference that is "
        "not known well, at worst %s give or take %s (%s); measure again for longer.\n",
        count, plural(count), seconds_text(worst->weight_s, weight),
        seconds_text(worst->weight_doubt_s, doubt), worst->name);
}

static void tell_costs(const pp_story *story, pp_text *text) {
    static const char *const kinds[] = {
        [PP_COST_MEASURED] = "Costs were measured",
        [PP_COST_MODELLED] = "Costs are modelled from FLOPs and bytes, at least in part",
        [PP_COST_OPAQUE] = "Costs are those that the model's opaque layers state"};
    const pp_model *model = story->tables->model;
    const pp_plan *plan = story->result->best;
    pp_text_printf(text, "%s: %s.\n", kinds[plan->costs], plan->cost_note);
    tell_model(pp_costs_model_of(story->tables->request->costs), text);
    int assumed = 0, opaque = 0;
    for (int i = 0; i < model->layer_count; i++) {
        opaque += model->layers[i].op == PP_OP_OPAQUE;
        assumed += model->layers[i].backward_assumed;
    }
    if (assumed > 0) {
        pp_text_printf(text,
                       "Assumed: the backward time of %d layer%s was not divided into input and "
                       "weight; half each.\n",
                       assumed, plural(assumed));
    }
    tell_doubtful(model, text);
    if (opaque > 0) {
        pp_text_printf(
            text, "To run it: opaque layers have no arithmetic, so `ppsim run` can only replay "
                  "this plan.\n");
    }
}

pp_status pp_explain(const pp_story *story, pp_text *text, pp_error *error) {
    const pp_plan *plan = story->result->best;
    tell_plan(story, text);
    for (size_t i = 0; i < sizeof dimensions / sizeof *dimensions; i++) {
        tell_dimension(story, &dimensions[i], text);
    }
    tell_slowest(plan, text);
    tell_idle(plan, text);
    tell_memory(story, text);
    tell_recompute(story, text);
    tell_transfers(plan, text);
    tell_reduction(plan, text);
    tell_alternatives(story->result, text);
    if (story->tables->request->tell_changes)
        PP_TRY(pp_tell_changes(story->tables->request, plan, story->until_s, text, error));
    tell_proof(story, text);
    tell_costs(story, text);
    return text->failed ? pp_fail_memory(error) : PP_OK;
}
