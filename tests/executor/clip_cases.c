#include "clip_cases.h"

#include "run_fixture.h"

#include <math.h>
#include <string.h>

static bool run(const fixture_request *request, int steps, double clip, fixture_record *record,
                char message[512]) {
    fixture made;
    pp_run_options options = {.seed = 6, .learning_rate = 0.01, .poison = true, .clip = clip};
    bool fine = fixture_make(request, &made, message) &&
                fixture_run(&made, steps, &options, record, message);
    fixture_free(&made);
    return fine;
}

/* ---- by hand ------------------------------------------------------------------------------- */

static bool has_earlier(const pp_model *model, int layer) {
    for (int i = 0; i < layer; i++)
        if (model->layers[i].tie && strcmp(model->layers[i].tie, model->layers[layer].tie) == 0)
            return true;
    return false;
}

/* Of the gradients of one step, a shared weight once. */
static double norm_of(const pp_model *model, const double *gradients) {
    double squares = 0;
    for (int i = 0; i < model->layer_count; i++) {
        pp_tensor tensors[PP_LAYER_TENSORS];
        int count = pp_layer_tensors(&model->layers[i], 1, PP_FP32, tensors);
        for (int t = 0; t < count; t++) {
            if (tensors[t].role != PP_TENSOR_PARAMETER) continue;
            int64_t size = tensors[t].rows * tensors[t].columns;
            bool again = tensors[t].tied && has_earlier(model, i);
            for (int64_t e = 0; !again && e < size; e++) squares += gradients[e] * gradients[e];
            gradients += size;
        }
    }
    return sqrt(squares);
}

/* SGD's first step: w = w0 - η f g, so clipped and unclipped weights differ by η (1 - f) g with
 * f = limit / (n + 1e-6). */
static bool first_step_is_scaled(const fixture_record *clipped, const fixture_record *plain,
                                 double factor, char message[512]) {
    for (size_t i = 0; i < plain->values; i++) {
        double moved = clipped->weights[i] - plain->weights[i];
        double wanted = 0.01 * (1 - factor) * plain->gradients[i];
        if (fabs(moved - wanted) <= 1e-12) continue;
        return fixture_failed(message, "weight %zu moved by %.15g, expected %.15g", i, moved,
                              wanted);
    }
    return true;
}

static bool clip_by_hand(char message[512]) {
    static const char *const models[] = {fixture_ties, fixture_gpt, fixture_mlp};
    bool fine = true;
    for (int i = 0; fine && i < 6; i++) {
        fixture_request request = {.model = models[i / 2],
                                   .ranks = 1 + i % 2 * 2,
                                   .microbatches = 2,
                                   .microbatch_size = 2,
                                   .dtype = PP_FP64,
                                   .optimizer = PP_SGD,
                                   .order = ORDER_1F1B};
        fixture made;
        fixture_record plain = {0}, clipped = {0};
        fine = fixture_make(&request, &made, message) && run(&request, 1, 0, &plain, message);
        double norm = fine ? norm_of(made.plan->model, plain.gradients) : 0, limit = 0.3 * norm;
        fine = fine && run(&request, 3, limit, &clipped, message);
        if (fine && fabs(clipped.norms[0] / norm - 1) > 1e-13)
            fine = fixture_failed(message, "norm %.15g, expected %.15g", clipped.norms[0], norm);
        fine = fine && first_step_is_scaled(&clipped, &plain, limit / (norm + 1e-6), message);
        fixture_record_free(&plain);
        fixture_record_free(&clipped);
        fixture_free(&made);
    }
    return fine;
}

/* ---- bits ---------------------------------------------------------------------------------- */

/* All have the reference's bits, and its gradients were larger than the limit. */
static bool same_as(const fixture_record *reference, const fixture_request *request, double clip,
                    char message[512]) {
    fixture_record record = {0};
    bool fine = run(request, reference->steps, clip, &record, message) &&
                fixture_same(&record, reference, message);
    if (!fine) {
        char why[400];
        memcpy(why, message, sizeof why);
        fixture_failed(message, "K=%d V=%d dp=%d order %d: %.380s", request->ranks,
                       request->virtual_stages, request->dp, (int)request->order, why);
    }
    fixture_record_free(&record);
    return fine;
}

static bool clip_same_bits(char message[512]) {
    static const char *const models[] = {fixture_gpt, fixture_ties, fixture_graph};
    bool fine = true;
    for (int i = 0; fine && i < 3; i++) {
        fixture_request request = {.model = models[i],
                                   .ranks = 1,
                                   .microbatches = 4,
                                   .microbatch_size = 2,
                                   .global_batch = 7,
                                   .dtype = PP_FP32,
                                   .optimizer = i % 2 ? PP_SGD : PP_ADAMW,
                                   .order = ORDER_1F1B};
        fixture_record reference = {0};
        fine = run(&request, 4, 0.05, &reference, message);
        if (fine && !(reference.norms[0] > 0.05 && reference.norms[3] > 0.05))
            fine = fixture_failed(message, "nothing was clipped: norm %g", reference.norms[0]);
        for (int j = 0; fine && j < 9; j++) {
            request.ranks = 2 + j / 3;
            request.order = (fixture_order)(j % 3);
            request.recompute = fixture_policy(j);
            fine = same_as(&reference, &request, 0.05, message);
        }
        request.order = ORDER_LOOPS;
        request.recompute = PP_RECOMPUTE_NONE;
        request.ranks = request.virtual_stages = 2;
        fine = fine && same_as(&reference, &request, 0.05, message);
        fixture_record_free(&reference);
    }
    return fine;
}

/* Replicas of one weight stay equal; with replicas too the bits do not depend on K; and the norm of
 * one batch is that of the same batch on one replica, to rounding. */
static bool replicas_equal(const fixture_record *record, char message[512]) {
    size_t row = record->values;
    for (size_t i = 0; i < (size_t)(record->steps * record->replicas) * row; i++) {
        size_t first =
            i / row / (size_t)record->replicas * (size_t)record->replicas * row + i % row;
        if (record->weights[i] != record->weights[first])
            return fixture_failed(message, "weight %zu differs between replicas", i % row);
    }
    return true;
}

static bool clip_replicas(char message[512]) {
    fixture_request request = {.model = fixture_ties,
                               .ranks = 1,
                               .microbatches = 6,
                               .microbatch_size = 2,
                               .dtype = PP_FP64,
                               .order = ORDER_1F1B};
    fixture_record one = {0};
    bool fine = run(&request, 3, 0.05, &one, message);
    for (int dp = 2; fine && dp <= 3; dp++) {
        fixture_record reference = {0};
        request.dp = dp;
        request.microbatches = 6 / dp;
        request.ranks = 1;
        fine = run(&request, 3, 0.05, &reference, message) && replicas_equal(&reference, message);
        for (int step = 0; fine && step < 3; step++)
            if (fabs(reference.norms[step] / one.norms[step] - 1) > 1e-11)
                fine = fixture_failed(message, "dp=%d, step %d: norm %.15g, with one replica %.15g",
                                      dp, step, reference.norms[step], one.norms[step]);
        for (request.ranks = 2; fine && request.ranks <= 4; request.ranks++)
            fine = same_as(&reference, &request, 0.05, message);
        fixture_record_free(&reference);
    }
    fixture_record_free(&one);
    return fine;
}

/* A norm below the limit changes no bit. */
static bool clip_not_reached(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 3,
                               .microbatches = 3,
                               .microbatch_size = 2,
                               .dtype = PP_FP32,
                               .order = ORDER_SPLIT};
    fixture_record plain = {0}, watched = {0};
    bool fine = run(&request, 3, 0, &plain, message) && run(&request, 3, 1e6, &watched, message);
    for (int step = 0; fine && step < 3; step++) {
        fine = isnan(plain.norms[step]) && watched.norms[step] > 0;
        if (!fine) fixture_failed(message, "norms %g, %g", plain.norms[step], watched.norms[step]);
        plain.norms[step] = watched.norms[step];
    }
    fine = fine && fixture_same(&watched, &plain, message);
    fixture_record_free(&plain);
    fixture_record_free(&watched);
    return fine;
}

/* ---- when ---------------------------------------------------------------------------------- */

/* No STEP before the last backward of any rank, on replay's time line. */
static bool steps_wait(const pp_trace *trace, char message[512]) {
    double last_s = 0, first_s = INFINITY;
    for (size_t i = 0; i < trace->span_count; i++) {
        const pp_span *span = &trace->spans[i];
        if (span->lane != PP_LANE_COMPUTE) continue;
        if (span->action.kind != PP_STEP) last_s = fmax(last_s, span->end_s);
        if (span->action.kind == PP_STEP) first_s = fmin(first_s, span->end_s);
    }
    return first_s >= last_s ||
           fixture_failed(message, "a STEP ends at %g s, a backward at %g s", first_s, last_s);
}

static bool clip_replay(char message[512]) {
    fixture_request request = {.model = fixture_opaque,
                               .ranks = 4,
                               .microbatches = 4,
                               .microbatch_size = 1,
                               .order = ORDER_1F1B};
    fixture made;
    if (!fixture_make(&request, &made, message)) return false;
    pp_run_options options = {.steps = 3, .keep_trace = true, .backend = "replay", .clip = 1};
    pp_run_result *result = NULL;
    pp_error error = {.message = ""};
    bool fine = pp_run(made.plan, made.schedule, &options, &result, &error) == PP_OK;
    if (!fine) fixture_failed(message, "%.400s", error.message);
    fine = fine && steps_wait(result->trace, message);
    if (fine && !isnan(result->steps[0].gradient_norm))
        fine = fixture_failed(message, "replay has a norm: %g", result->steps[0].gradient_norm);
    pp_run_result_free(result);
    fixture_free(&made);
    return fine;
}

static const threaded_case cases[] = {
    {"clip_by_hand", clip_by_hand},   {"clip_same_bits", clip_same_bits},
    {"clip_replicas", clip_replicas}, {"clip_not_reached", clip_not_reached},
    {"clip_replay", clip_replay},
};

const threaded_case *clip_cases(int *count) {
    *count = sizeof cases / sizeof *cases;
    return cases;
}
