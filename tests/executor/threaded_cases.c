#include "threaded_cases.h"

#include "run_fixture.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Puts what was tried in front of why it failed. */
static bool explain(char message[512], const fixture_request *tried) {
    static const char *const orders[] = {"gpipe", "1f1b", "split", "loops"};
    char why[300], policy[PP_RECOMPUTE_LENGTH];
    snprintf(why, sizeof why, "%.299s", message);
    return fixture_failed(message, "K=%d V=%d dp=%d M=%d first split %d %s recompute %s: %s",
                          tried->ranks, tried->virtual_stages, tried->dp, tried->microbatches,
                          tried->splits[0], orders[tried->order],
                          pp_recompute_text(tried->recompute, policy), why);
}

static bool run_request(const fixture_request *request, int steps, const pp_run_options *options,
                        fixture_record *record, char message[512]) {
    fixture made;
    bool fine = fixture_make(request, &made, message) &&
                fixture_run(&made, steps, options, record, message);
    fixture_free(&made);
    return fine || explain(message, request);
}

/* Runs the request and compares every bit with the reference. */
static bool same_as(const fixture_record *reference, const fixture_request *request,
                    const pp_run_options *options, char message[512]) {
    fixture_record record = {0};
    bool fine = run_request(request, reference->steps, options, &record, message);
    if (fine) {
        fine = fixture_same(&record, reference, message);
        if (!fine) explain(message, request);
    }
    fixture_record_free(&record);
    return fine;
}

/* ---- bits ---------------------------------------------------------------------------------- */

typedef struct cut {
    int ranks;
    int splits[8];
} cut;

static bool all_orders_same(const fixture_record *reference, fixture_request request,
                            char message[512]) {
    pp_run_options options = {.seed = 7, .poison = true};
    for (int order = ORDER_GPIPE; order <= ORDER_SPLIT; order++)
        for (int i = 0; i <= FIXTURE_POLICIES; i++) {
            request.order = (fixture_order)order;
            request.recompute = i < FIXTURE_POLICIES ? fixture_policy(i) : PP_RECOMPUTE_MIXED;
            if (!same_as(reference, &request, &options, message)) return false;
        }
    return true;
}

/* Every cut, order and recompute policy against one rank that runs microbatch after microbatch. */
static bool same_bits(const char *model, const cut *cuts, int cut_count, char message[512]) {
    fixture_request request = {.model = model,
                               .ranks = 1,
                               .microbatches = 4,
                               .microbatch_size = 2,
                               .global_batch = 7,
                               .dtype = PP_FP32,
                               .order = ORDER_1F1B};
    pp_run_options options = {.seed = 7};
    fixture_record reference = {0};
    bool fine = run_request(&request, 6, &options, &reference, message);
    for (int i = 0; fine && i < cut_count; i++) {
        request.ranks = cuts[i].ranks;
        memcpy(request.splits, cuts[i].splits, sizeof cuts[i].splits);
        fine = all_orders_same(&reference, request, message);
    }
    fixture_record_free(&reference);
    return fine;
}

static bool same_bits_gpt(char message[512]) {
    static const cut cuts[] = {{1, {0}},          {2, {1}},          {2, {3}},
                               {2, {5}},          {3, {1, 2}},       {3, {2, 4}},
                               {5, {1, 2, 3, 4}}, {5, {1, 2, 4, 5}}, {6, {1, 2, 3, 4, 5}}};
    return same_bits(fixture_gpt, cuts, sizeof cuts / sizeof *cuts, message);
}

static bool same_bits_graph(char message[512]) {
    static const cut cuts[] = {{1, {0}},    {2, {1}},    {2, {3}},          {2, {6}},
                               {3, {2, 5}}, {3, {4, 8}}, {5, {1, 3, 6, 8}}, {5, {2, 4, 7, 10}}};
    return same_bits(fixture_graph, cuts, sizeof cuts / sizeof *cuts, message);
}

static bool same_bits_llama(char message[512]) {
    static const cut cuts[] = {{2, {1}}, {2, {2}}, {3, {1, 3}}, {5, {1, 2, 3, 4}}};
    return same_bits(fixture_llama, cuts, sizeof cuts / sizeof *cuts, message);
}

static bool same_bits_bert(char message[512]) {
    static const cut cuts[] = {{2, {1}}, {2, {2}}, {3, {1, 3}}, {4, {1, 2, 3}}};
    return same_bits(fixture_bert, cuts, sizeof cuts / sizeof *cuts, message);
}

static bool same_bits_ties(char message[512]) {
    static const cut cuts[] = {{1, {0}},    {2, {1}},       {2, {3}},         {3, {1, 2}},
                               {3, {1, 4}}, {4, {1, 2, 4}}, {5, {1, 2, 3, 4}}};
    return same_bits(fixture_ties, cuts, sizeof cuts / sizeof *cuts, message);
}

static bool same_bits_mlp(char message[512]) {
    static const cut cuts[] = {{1, {0}}, {2, {2}}, {3, {1, 3}}, {5, {1, 2, 3, 4}}};
    return same_bits(fixture_mlp, cuts, sizeof cuts / sizeof *cuts, message);
}

/* Two and three stages per rank, dealt round: the tied matrix lives on one rank or on two. */
static bool same_bits_virtual(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 1,
                               .microbatches = 3,
                               .microbatch_size = 2,
                               .dtype = PP_FP32,
                               .optimizer = PP_SGD};
    pp_run_options options = {.seed = 3, .poison = true};
    fixture_record reference = {0};
    bool fine = run_request(&request, 4, &options, &reference, message);
    static const int shapes[][2] = {{1, 2}, {1, 6}, {2, 2}, {2, 3}, {3, 2}};
    for (size_t i = 0; fine && i < sizeof shapes / sizeof *shapes; i++) {
        request.ranks = shapes[i][0];
        request.virtual_stages = shapes[i][1];
        request.order = ORDER_LOOPS;
        for (int j = 0; fine && j <= FIXTURE_POLICIES; j++) {
            request.recompute = j < FIXTURE_POLICIES ? fixture_policy(j) : PP_RECOMPUTE_MIXED;
            fine = same_as(&reference, &request, &options, message);
        }
    }
    fixture_record_free(&reference);
    return fine;
}

/* Many more threads than cores. */
static bool many_ranks(char message[512]) {
    enum { LAYERS = 64 };
    pp_text model = {0};
    pp_text_string(&model, "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"deep\", "
                           "\"layers\": [");
    for (int i = 0; i < LAYERS - 1; i++)
        pp_text_printf(&model,
                       "{\"name\": \"l%d\", \"op\": \"linear\", \"dim\": 8, \"output_dim\": 8, "
                       "\"sequence\": 1},",
                       i);
    pp_text_string(&model, "{\"name\": \"loss\", \"op\": \"softmax_cross_entropy\", \"dim\": 8, "
                           "\"sequence\": 1}]}");
    fixture_request request = {.model = model.bytes,
                               .ranks = 1,
                               .microbatches = 5,
                               .microbatch_size = 3,
                               .dtype = PP_FP32,
                               .order = ORDER_1F1B};
    pp_run_options options = {.seed = 1};
    fixture_record reference = {0};
    bool fine = run_request(&request, 2, &options, &reference, message);
    request.ranks = LAYERS;
    fine = fine && same_as(&reference, &request, &options, message);
    fixture_record_free(&reference);
    pp_text_deinit(&model);
    return fine;
}

/* ---- rounding ------------------------------------------------------------------------------ */

/* Gradients of all steps against the reference's, in double. replica: of the record. */
static bool close_to(const fixture_record *reference, const fixture_record *record, int replica,
                     char message[512]) {
    for (int step = 0; step < reference->steps; step++) {
        size_t row = (size_t)(step * record->replicas + replica);
        double distance = fixture_distance(record->gradients + row * record->values,
                                           reference->gradients + (size_t)step * reference->values,
                                           reference->values);
        double loss = fabs(record->losses[step] - reference->losses[step]);
        if (distance <= 1e-10 && loss <= 1e-12) continue;
        return fixture_failed(message, "step %d: gradients differ by %g, losses by %g", step,
                              distance, loss);
    }
    return true;
}

static bool other_microbatches(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 1,
                               .microbatches = 1,
                               .microbatch_size = 12,
                               .dtype = PP_FP64,
                               .optimizer = PP_SGD,
                               .order = ORDER_1F1B};
    pp_run_options options = {.seed = 11, .learning_rate = 0.01};
    fixture_record reference = {0};
    bool fine = run_request(&request, 3, &options, &reference, message);
    static const int sizes[][3] = {{2, 6, 2}, {3, 4, 3}, {12, 1, 2}, {3, 5, 2}};
    for (size_t i = 0; fine && i < sizeof sizes / sizeof *sizes; i++) {
        fixture_record record = {0};
        request.microbatches = sizes[i][0];
        request.microbatch_size = sizes[i][1];
        request.ranks = sizes[i][2];
        request.global_batch = 12;
        fine = run_request(&request, 3, &options, &record, message) &&
               (close_to(&reference, &record, 0, message) || explain(message, &request));
        fixture_record_free(&record);
    }
    fixture_record_free(&reference);
    return fine;
}

static bool replicas_equal(const fixture_record *record, char message[512]) {
    for (int step = 0; step < record->steps; step++)
        for (int d = 1; d < record->replicas; d++)
            for (size_t i = 0; i < record->values; i++) {
                size_t first = (size_t)(step * record->replicas) * record->values + i;
                size_t other = first + (size_t)d * record->values;
                if (record->gradients[first] == record->gradients[other] &&
                    record->weights[first] == record->weights[other])
                    continue;
                return fixture_failed(
                    message, "step %d, value %zu differs between replicas 0 and %d", step, i, d);
            }
    return true;
}

static bool replicas(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 1,
                               .microbatches = 4,
                               .microbatch_size = 3,
                               .global_batch = 12,
                               .dtype = PP_FP64,
                               .optimizer = PP_SGD,
                               .order = ORDER_1F1B};
    pp_run_options options = {.seed = 5, .learning_rate = 0.01, .poison = true};
    fixture_record reference = {0};
    bool fine = run_request(&request, 3, &options, &reference, message);
    static const int shapes[][2] = {{1, 2}, {2, 2}, {3, 3}, {5, 2}};
    for (size_t i = 0; fine && i < sizeof shapes / sizeof *shapes; i++) {
        fixture_record record = {0};
        request.ranks = shapes[i][0];
        request.dp = shapes[i][1];
        request.microbatches = 12 / request.dp / 2 + (12 / request.dp % 2);
        request.microbatch_size = 2;
        fine = run_request(&request, 3, &options, &record, message) &&
               ((close_to(&reference, &record, request.dp - 1, message) &&
                 replicas_equal(&record, message)) ||
                explain(message, &request));
        fixture_record_free(&record);
    }
    fixture_record_free(&reference);
    return fine;
}

/* With replicas too, the bits do not depend on K. */
static bool replicas_same_bits(char message[512]) {
    fixture_request request = {.model = fixture_ties,
                               .ranks = 1,
                               .microbatches = 2,
                               .microbatch_size = 2,
                               .dp = 3,
                               .dtype = PP_FP32,
                               .order = ORDER_1F1B};
    pp_run_options options = {.seed = 9, .poison = true};
    fixture_record reference = {0};
    bool fine = run_request(&request, 3, &options, &reference, message);
    for (int ranks = 2; fine && ranks <= 4; ranks++) {
        request.ranks = ranks;
        fine = same_as(&reference, &request, &options, message);
    }
    fixture_record_free(&reference);
    return fine;
}

/* ---- timing -------------------------------------------------------------------------------- */

/* Sleeps up to a millisecond, differently for each rank, action and seed. */
static pp_status sleep_randomly(void *context, int rank, int replica, pp_action action,
                                pp_error *error) {
    const uint64_t *seed = context;
    (void)error;
    pp_random_key key = pp_random_key_make(*seed, "delay", (uint64_t)(rank * 100 + replica));
    uint64_t what =
        ((uint64_t)action.kind << 40) ^ ((uint64_t)action.stage << 32) ^ action.microbatch;
    struct timespec length = {.tv_nsec = (long)pp_random_below(key, what, 1000000)};
    if (pp_random_unit(key, ~what) < 0.3) nanosleep(&length, NULL);
    return PP_OK;
}

static bool random_delays(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 1,
                               .microbatches = 4,
                               .microbatch_size = 2,
                               .dtype = PP_FP32,
                               .order = ORDER_1F1B};
    pp_run_options options = {.seed = 2};
    fixture_record reference = {0};
    bool fine = run_request(&request, 2, &options, &reference, message);
    for (uint64_t seed = 1; fine && seed <= 12; seed++) {
        pp_run_options delayed = {
            .seed = 2, .poison = true, .before_action = sleep_randomly, .context = &seed};
        request.ranks = 2 + (int)(seed % 5 % 4);
        request.order = (fixture_order)(seed % 4);
        request.recompute = fixture_policy((int)(seed / 3));
        fine = same_as(&reference, &request, &delayed, message);
    }
    fixture_record_free(&reference);
    return fine;
}

/* ---- failures ------------------------------------------------------------------------------ */

typedef struct fault {
    size_t number; /* of the action in the schedule */
    const fixture *what;
    atomic_int calls;
    double sleep_s; /* instead of failing; 0: fails */
} fault;

static bool is_target(const fault *planned, int rank, pp_action action) {
    const pp_schedule *schedule = planned->what->schedule;
    pp_action wanted = schedule->actions[planned->number];
    return planned->number >= schedule->first_action[rank] &&
           planned->number < schedule->first_action[rank + 1] && wanted.kind == action.kind &&
           wanted.stage == action.stage && wanted.microbatch == action.microbatch;
}

static pp_status fail_there(void *context, int rank, int replica, pp_action action,
                            pp_error *error) {
    fault *planned = context;
    if (replica != 0 || !is_target(planned, rank, action)) return PP_OK;
    atomic_fetch_add(&planned->calls, 1);
    if (planned->sleep_s == 0) return pp_fail(error, PP_E_FAILED, NULL, "the device is on fire");
    struct timespec length = {.tv_nsec = (long)(planned->sleep_s * 1e9)};
    nanosleep(&length, NULL);
    return PP_OK;
}

/* Runs with the fault; the message must start with `headline` and contain `reason`. */
static bool fails_with(const fixture *what, const pp_run_options *options, const char *headline,
                       const char *reason, char message[512]) {
    pp_run_result *result;
    pp_error error = {.message = ""};
    pp_status status = pp_run(what->plan, what->schedule, options, &result, &error);
    bool fine = status == PP_E_FAILED && !result &&
                strncmp(error.message, headline, strlen(headline)) == 0 &&
                strstr(error.message, reason);
    pp_run_result_free(result);
    return fine || fixture_failed(message, "wanted \"%.100s … %.100s\", got status %d: %.200s",
                                  headline, reason, (int)status, error.message);
}

/* The headline of an action of the schedule. */
static void headline_of(const fixture *what, size_t number, char headline[96]) {
    const pp_schedule *schedule = what->schedule;
    int p = 0;
    while (number >= schedule->first_action[p + 1]) p++;
    char text[32];
    snprintf(headline, 96, "rank %d%s at %s", p, what->plan->dp > 1 ? ", replica 0" : "",
             pp_action_text(schedule->actions[number], text));
}

static bool every_failure(const fixture_request *request, double clip, char message[512]) {
    fixture made;
    if (!fixture_make(request, &made, message)) return false;
    bool fine = true;
    for (size_t i = 0; fine && i < made.schedule->first_action[request->ranks]; i++) {
        fault planned = {.number = i, .what = &made};
        pp_run_options options = {.steps = 2,
                                  .before_action = fail_there,
                                  .context = &planned,
                                  .timeout_s = 20,
                                  .clip = clip};
        char headline[96];
        headline_of(&made, i, headline);
        fine = fails_with(&made, &options, headline, "the device is on fire", message);
    }
    fixture_free(&made);
    return fine;
}

static bool failures(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 3,
                               .microbatches = 2,
                               .microbatch_size = 1,
                               .dtype = PP_FP32,
                               .order = ORDER_SPLIT};
    fixture_request twice = {.model = fixture_gpt,
                             .ranks = 2,
                             .microbatches = 2,
                             .microbatch_size = 1,
                             .dp = 2,
                             .dtype = PP_FP32,
                             .order = ORDER_PAIRS};
    return every_failure(&request, 0, message) && every_failure(&request, 1e-3, message) &&
           every_failure(&twice, 0, message) && every_failure(&twice, 1e-3, message);
}

/* A rank that stands still: the others give up and say who it is. */
static bool hangs(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 3,
                               .microbatches = 2,
                               .microbatch_size = 1,
                               .dtype = PP_FP32,
                               .order = ORDER_1F1B};
    fixture made;
    if (!fixture_make(&request, &made, message)) return false;
    fault planned = {.number = 0, .what = &made, .sleep_s = 0.7};
    pp_run_options options = {.before_action = fail_there, .context = &planned, .timeout_s = 0.15};
    /* ranks 1 and 2 both wait, each for the one before; whoever looks first says so */
    bool fine = fails_with(&made, &options, "rank ", ", which has it, stands at ", message);
    planned.number = made.schedule->first_action[1] - 2; /* rank 0's REDUCE_GRAD */
    fine = fine && fails_with(&made, &options, "rank ", "did not", message);
    planned.number = made.schedule->first_action[1] - 1; /* its STEP, which others wait for */
    options.clip = 1;
    fine = fine && fails_with(&made, &options, "rank ", "norm cannot be taken", message);
    fixture_free(&made);
    return fine;
}

static void stop_after_second(void *context, const pp_step_report *report) {
    (void)context;
    if (report->step == 1) pp_stop_request(15);
}

static bool stops(char message[512]) {
    fixture_request request = {.model = fixture_mlp,
                               .ranks = 2,
                               .microbatches = 2,
                               .microbatch_size = 2,
                               .dtype = PP_FP32,
                               .order = ORDER_GPIPE};
    fixture made;
    if (!fixture_make(&request, &made, message)) return false;
    pp_run_options options = {.steps = 50, .on_step = stop_after_second, .keep_trace = true};
    pp_run_result *result = NULL;
    pp_error error = {.message = ""};
    pp_status status = pp_run(made.plan, made.schedule, &options, &result, &error);
    pp_stop_request(0);
    bool fine = status == PP_E_INTERRUPTED && result && result->step_count == 2 && result->trace &&
                result->measured.iteration_time_s > 0;
    if (!fine)
        fixture_failed(message, "status %d, %d steps: %.200s", (int)status,
                       result ? result->step_count : -1, error.message);
    pp_run_result_free(result);
    fixture_free(&made);
    return fine;
}

/* ---- memory -------------------------------------------------------------------------------- */

static bool peak_matches(const fixture_request *request, char message[512]) {
    fixture made;
    fixture_record record = {0};
    pp_run_options options = {.seed = 1, .poison = true};
    bool fine =
        fixture_make(request, &made, message) && fixture_run(&made, 3, &options, &record, message);
    for (int p = 0; fine && p < request->ranks; p++) {
        int64_t wanted = fixture_peak(&made, p);
        if (record.peak_bytes[p] == wanted) continue;
        fine = fixture_failed(message, "rank %d used %lld bytes, the tables say %lld", p,
                              (long long)record.peak_bytes[p], (long long)wanted);
        explain(message, request);
    }
    fixture_record_free(&record);
    fixture_free(&made);
    return fine;
}

static bool peaks(char message[512]) {
    static const char *const models[] = {fixture_gpt, fixture_graph};
    bool fine = true;
    for (int i = 0; fine && i < 2 * 3 * (FIXTURE_POLICIES + 1) * 2; i++) {
        fixture_request request = {.model = models[i % 2],
                                   .ranks = 1 + i % 5,
                                   .microbatches = 4,
                                   .microbatch_size = 2,
                                   .global_batch = 7,
                                   .dtype = i % 4 == 3 ? PP_FP64 : PP_FP32,
                                   .optimizer = i % 3 == 2 ? PP_SGD : PP_ADAMW,
                                   .order = (fixture_order)(i / 2 % 3),
                                   .recompute = fixture_policy(i / 6)};
        if (i / 6 % (FIXTURE_POLICIES + 1) == FIXTURE_POLICIES)
            request.recompute = PP_RECOMPUTE_MIXED;
        fine = peak_matches(&request, message);
    }
    fixture_request loops = {.model = fixture_gpt,
                             .ranks = 2,
                             .virtual_stages = 3,
                             .microbatches = 3,
                             .microbatch_size = 2,
                             .dtype = PP_FP32,
                             .order = ORDER_LOOPS,
                             .recompute = PP_RECOMPUTE_EXCEPT_LAST};
    return fine && peak_matches(&loops, message);
}

/* The real platform, but its n-th allocation fails, and all after it if `lasting`. */
static struct {
    const pp_platform *real;
    atomic_long left;
    bool lasting;
} scarcity;

static void *scarce_allocate(size_t size_bytes) {
    long left = atomic_fetch_sub(&scarcity.left, 1);
    if (left == 0 || (left < 0 && scarcity.lasting)) return NULL;
    return scarcity.real->allocate(size_bytes);
}

/* 0: failed as it should, 1: succeeded, -1: something else. */
static int run_scarcely(const fixture *made, long allocations, bool lasting, char message[512]) {
    pp_platform scarce = *pp_platform_get();
    scarcity.real = pp_platform_get();
    scarce.allocate = scarce_allocate;
    atomic_store(&scarcity.left, allocations);
    scarcity.lasting = lasting;
    pp_run_result *result = NULL;
    pp_error error = {.message = ""};
    pp_run_options options = {.steps = 2, .keep_trace = true, .clip = 1};
    pp_platform_set(&scarce);
    pp_status status = pp_run(made->plan, made->schedule, &options, &result, &error);
    pp_platform_set(NULL);
    pp_run_result_free(result);
    if (status == PP_OK) return 1;
    if (status == PP_E_OUT_OF_MEMORY && strstr(error.message, "memory")) return 0;
    fixture_failed(message, "allocation %ld: status %d: %.300s", allocations, (int)status,
                   error.message);
    return -1;
}

static bool every_allocation(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 2,
                               .microbatches = 2,
                               .microbatch_size = 1,
                               .dtype = PP_FP32,
                               .order = ORDER_SPLIT,
                               .recompute = PP_RECOMPUTE_EXCEPT_LAST};
    fixture made;
    if (!fixture_make(&request, &made, message)) return false;
    int64_t live = pp_live_bytes();
    int outcome = 0;
    for (int lasting = 0; outcome >= 0 && lasting < 2; lasting++) {
        outcome = 0;
        for (long n = 0; outcome == 0 && n < 100000; n++) {
            outcome = run_scarcely(&made, n, lasting, message);
            if (pp_live_bytes() == live) continue;
            outcome = -1;
            fixture_failed(message, "allocation %ld failing leaks %lld bytes", n,
                           (long long)(pp_live_bytes() - live));
        }
    }
    fixture_free(&made);
    return outcome == 1;
}

/* ---- replay -------------------------------------------------------------------------------- */

/* Compute spans in the order of the rank's list, none before its time. */
static bool spans_follow(const fixture *made, const pp_trace *trace, char message[512]) {
    const pp_schedule *schedule = made->schedule;
    size_t next = 0;
    for (int p = 0; p < schedule->ranks; p++) {
        double end_s = 0;
        for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++) {
            pp_action wanted = schedule->actions[i];
            while (next < trace->span_count && trace->spans[next].lane != PP_LANE_COMPUTE) next++;
            if (next == trace->span_count)
                return fixture_failed(message, "spans of rank %d are missing", p);
            const pp_span *span = &trace->spans[next++];
            if (span->rank != p || memcmp(&span->action, &wanted, sizeof wanted) != 0 ||
                span->start_s < end_s || span->end_s < span->start_s)
                return fixture_failed(message, "rank %d: span %zu is not action %zu in its turn", p,
                                      next - 1, i);
            end_s = span->end_s;
        }
    }
    return true;
}

/* The memory curve of each rank begins at time 0, is in order, comes back to where it began, and
 * its highest point is the peak that the rank reports. */
static bool curves_reach_peaks(const pp_trace *trace, char message[512]) {
    size_t i = 0;
    for (int p = 0; p < trace->ranks; p++) {
        int64_t most = 0, first = -1, last = -1;
        double time_s = 0;
        for (; i < trace->point_count && trace->points[i].rank == p; i++) {
            const pp_trace_point *point = &trace->points[i];
            if (point->time_s < time_s || (first < 0 && point->time_s != 0))
                return fixture_failed(message, "point %zu of the memory curves is out of order", i);
            time_s = point->time_s;
            last = point->bytes;
            if (first < 0) first = last;
            if (last > most) most = last;
        }
        if (first < 0 || last != first || most != trace->rank[p].peak_bytes)
            return fixture_failed(message, "rank %d: curve from %lld over %lld to %lld, peak %lld",
                                  p, (long long)first, (long long)most, (long long)last,
                                  (long long)trace->rank[p].peak_bytes);
    }
    return i == trace->point_count || fixture_failed(message, "points of ranks that are not there");
}

/* The longest path through a chain of stages with equal order: F of all microbatches on the first
 * rank, then one microbatch through the rest. Nothing can be faster. */
static bool replay_known_times(char message[512]) {
    fixture_request request = {.model = fixture_opaque,
                               .ranks = 4,
                               .microbatches = 4,
                               .microbatch_size = 1,
                               .order = ORDER_1F1B};
    fixture made;
    if (!fixture_make(&request, &made, message)) return false;
    pp_run_options options = {.steps = 3, .keep_trace = true};
    pp_run_result *result = NULL;
    pp_error error = {.message = ""};
    bool fine = pp_run(made.plan, made.schedule, &options, &result, &error) == PP_OK;
    if (!fine) fixture_failed(message, "%.400s", error.message);
    double least_s = 0;
    for (int s = 0; s < 4; s++) {
        const pp_stage *stage = &made.plan->stages[s];
        least_s += stage->forward_s + stage->input_s + stage->weight_s;
    }
    for (int i = 0; fine && i < 3; i++)
        if (!isnan(result->steps[i].loss) || result->steps[i].seconds < least_s)
            fine = fixture_failed(message, "step %d: loss %g, %g s", i, result->steps[i].loss,
                                  result->steps[i].seconds);
    fine = fine && spans_follow(&made, result->trace, message) &&
           curves_reach_peaks(result->trace, message);
    for (int p = 0; fine && p < 4; p++)
        if (result->measured.rank[p].peak_bytes != fixture_peak(&made, p))
            fine = fixture_failed(message, "rank %d counts %lld bytes, the tables say %lld", p,
                                  (long long)result->measured.rank[p].peak_bytes,
                                  (long long)fixture_peak(&made, p));
    pp_run_result_free(result);
    fixture_free(&made);
    return fine;
}

/* Any plan can be replayed, also one whose layers could run, with its ties and replicas. */
static bool replay_ties(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 3,
                               .microbatches = 3,
                               .microbatch_size = 1,
                               .dp = 2,
                               .order = ORDER_SPLIT,
                               .recompute = PP_RECOMPUTE_FULL};
    fixture made;
    if (!fixture_make(&request, &made, message)) return false;
    for (int s = 0; s < 3; s++) made.plan->stages[s].reduce_s = 2e-4;
    pp_run_options options = {.steps = 2, .keep_trace = true, .backend = "replay"};
    pp_run_result *result = NULL;
    pp_error error = {.message = ""};
    bool fine = pp_run(made.plan, made.schedule, &options, &result, &error) == PP_OK;
    if (!fine) fixture_failed(message, "%.400s", error.message);
    fine = fine && spans_follow(&made, result->trace, message) &&
           curves_reach_peaks(result->trace, message);
    pp_run_result_free(result);
    fixture_free(&made);
    return fine;
}

/* ---- learning ------------------------------------------------------------------------------ */

static bool learns(char message[512]) {
    static const char *const models[] = {fixture_gpt, fixture_graph, fixture_mlp, fixture_llama};
    for (int i = 0; i < 4; i++) {
        fixture_request request = {.model = models[i],
                                   .ranks = 2,
                                   .microbatches = 4,
                                   .microbatch_size = 4,
                                   .dtype = PP_FP32,
                                   .order = ORDER_1F1B};
        pp_run_options options = {.seed = 1, .learning_rate = 1e-2};
        fixture_record record = {0};
        bool fine = run_request(&request, 60, &options, &record, message);
        double first = record.losses[0], last = record.losses[59];
        fixture_record_free(&record);
        if (!fine) return false;
        if (!(last < 0.8 * first))
            return fixture_failed(message, "model %d: loss %g at first, %g after 60 steps", i,
                                  first, last);
    }
    return true;
}

/* ---- the table ----------------------------------------------------------------------------- */

static const threaded_case cases[] = {
    {"same_bits_gpt", same_bits_gpt},
    {"same_bits_graph", same_bits_graph},
    {"same_bits_llama", same_bits_llama},
    {"same_bits_bert", same_bits_bert},
    {"same_bits_ties", same_bits_ties},
    {"same_bits_mlp", same_bits_mlp},
    {"same_bits_virtual", same_bits_virtual},
    {"many_ranks", many_ranks},
    {"other_microbatches", other_microbatches},
    {"replicas", replicas},
    {"replicas_same_bits", replicas_same_bits},
    {"random_delays", random_delays},
    {"failures", failures},
    {"hangs", hangs},
    {"stops", stops},
    {"peaks", peaks},
    {"every_allocation", every_allocation},
    {"replay_known_times", replay_known_times},
    {"replay_ties", replay_ties},
    {"learns", learns},
};

const threaded_case *threaded_cases(int *count) {
    *count = sizeof cases / sizeof *cases;
    return cases;
}
