/* What the planner refuses, each with the option and value at fault; what it says when nothing
 * fits; and that failing allocations and signals leave nothing behind. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner_fixture.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(refusals);

static void set_ranks(pp_plan_request *r) {
    r->ranks = 7;
}
static void set_many_ranks(pp_plan_request *r) {
    r->ranks = 6, r->dp = 2;
}
static void set_replicas(pp_plan_request *r) {
    r->dp = 9;
}
static void set_uneven(pp_plan_request *r) {
    r->dp = 3;
}
static void set_batch(pp_plan_request *r) {
    r->global_batch = 0;
}
static void set_size(pp_plan_request *r) {
    r->microbatch_size = 17;
}
static void set_count(pp_plan_request *r) {
    r->microbatches = 9, r->dp = 2;
}
static void set_both(pp_plan_request *r) {
    r->microbatches = 4, r->microbatch_size = 2, r->dp = 1;
}
static void set_gap(pp_plan_request *r) {
    r->microbatches = 7, r->dp = 2, r->global_batch = 20;
}
static void set_schedule(pp_plan_request *r) {
    r->schedule = "2f2b";
}
static void set_recompute(pp_plan_request *r) {
    r->recompute = "half";
}
static void set_split(pp_plan_request *r) {
    r->split = "pipedreams";
}
static void set_cuts(pp_plan_request *r) {
    r->split = "3,3";
}
static void set_far_cut(pp_plan_request *r) {
    r->split = "2,6";
}
static void set_words(pp_plan_request *r) {
    r->split = "2,x";
}
static void set_regex(pp_plan_request *r) {
    r->split = "type:(";
}
static void set_no_match(pp_plan_request *r) {
    r->split = "type:attention";
}
static void set_cut_ranks(pp_plan_request *r) {
    r->split = "2,4", r->ranks = 2;
}
static void set_cut_count(pp_plan_request *r) {
    r->split = "2", r->ranks = 3, r->microbatches = 4, r->global_batch = 8;
}
static void set_cut_virtual(pp_plan_request *r) {
    r->split = "2,4", r->ranks = 2, r->virtual_stages = 2;
}
static void set_cut_each(pp_plan_request *r) {
    r->split = "2,4", r->virtual_stages = 2;
}
static void set_trailing_comma(pp_plan_request *r) {
    r->split = "2,4,";
}
static void set_one_rank(pp_plan_request *r) {
    r->ranks = 1, r->dp = 9;
}
static void set_many_virtual(pp_plan_request *r) {
    r->virtual_stages = 999;
}
static void set_odd_virtual(pp_plan_request *r) {
    r->ranks = 1, r->virtual_stages = 5, r->microbatches = 1, r->schedule = "zbv";
}
static void set_tp(pp_plan_request *r) {
    r->tp = 3;
}
static void set_wide_tp(pp_plan_request *r) {
    r->tp = 16;
}
static void set_zero(pp_plan_request *r) {
    r->zero = 3;
}
static void set_negative(pp_plan_request *r) {
    r->memory_bytes = -1;
}
static void set_virtual(pp_plan_request *r) {
    r->virtual_stages = 2, r->schedule = "1f1b";
}
static void set_asynchronous(pp_plan_request *r) {
    r->schedule = "pipedream";
}

static const struct {
    void (*set)(pp_plan_request *request);
    pp_status status;
    const char *place;    /* "": any */
    const char *words[3]; /* all in the message */
} refusals[] = {
    {set_ranks, PP_E_INPUT, "--ranks", {"7 ranks", "6 layers", NULL}},
    {set_many_ranks, PP_E_INPUT, "--ranks", {"12 devices", "box", "has 8"}},
    {set_replicas, PP_E_INPUT, "--dp", {"9", "has 8", NULL}},
    {set_uneven, PP_E_INPUT, "--dp", {"3 replicas", "--batch 16", NULL}},
    {set_batch, PP_E_INPUT, "--batch", {"0 samples", NULL, NULL}},
    {set_size, PP_E_INPUT, "--microbatch-size", {"17", "16", NULL}},
    {set_count, PP_E_INPUT, "--microbatches", {"9 microbatches", "8 samples", NULL}},
    {set_both, PP_E_INPUT, "--microbatches", {"4", "2", "--microbatch-size"}},
    {set_gap, PP_E_INPUT, "--microbatches", {"10 samples", "7 microbatches", "there are 5"}},
    {set_schedule, PP_E_INPUT, "--schedule", {"2f2b", "1f1b", "gpipe"}},
    {set_recompute, PP_E_INPUT, "--recompute", {"half", "except-last", NULL}},
    {set_split, PP_E_INPUT, "--split", {"pipedreams", "uniform", "type:REGEX"}},
    {set_cuts, PP_E_INPUT, "--split", {"'3' in '3,3'", "4 to 5", NULL}},
    {set_far_cut, PP_E_INPUT, "--split", {"'6'", NULL, NULL}},
    {set_words, PP_E_INPUT, "--split", {"'x'", NULL, NULL}},
    {set_regex, PP_E_INPUT, "--split", {"'('", "regular expression", NULL}},
    {set_no_match, PP_E_INPUT, "--split", {"attention", "any layer", NULL}},
    {set_cut_ranks, PP_E_INPUT, "--split", {"2 positions make 3 stages", "--ranks 2", "or 4"}},
    {set_cut_count, PP_E_INPUT, "--split", {"1 position makes 2 stages", "--ranks 3", "or 6"}},
    {set_cut_virtual, PP_E_INPUT, "--split", {"3 stages", "--virtual 2", "needs 4"}},
    {set_cut_each, PP_E_INPUT, "--split", {"3 stages", "--virtual 2", NULL}},
    {set_trailing_comma, PP_E_INPUT, "--split", {"'2,4,'", "comma", NULL}},
    {set_one_rank, PP_E_INPUT, "--ranks", {"1 rank times 9 replicas are 9 devices", NULL, NULL}},
    {set_many_virtual, PP_E_INPUT, "--virtual", {"999 stages", "1 rank", "6 layers"}},
    {set_odd_virtual, PP_E_INPUT, "-V", {"zbv", "5", NULL}},
    {set_tp, PP_E_INPUT, "--tp", {"3 devices cannot share", "64 output features", NULL}},
    {set_wide_tp, PP_E_INPUT, "--tp", {"times tp 16", "16 devices", "has 8"}},
    {set_zero, PP_E_INPUT, "--zero", {"3", "0 or 1", NULL}},
    {set_negative, PP_E_INPUT, "--memory", {"negative", NULL, NULL}},
    {set_virtual, PP_E_INPUT, "-V", {"1f1b", "2", NULL}},
    {set_asynchronous, PP_E_INPUT, "--schedule", {"pipedream", "without a flush", NULL}},
};

static const char six_layers[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"six\", \"layers\": ["
    "{\"name\": \"a\", \"op\": \"linear\", \"dim\": 64, \"output_dim\": 64},"
    "{\"name\": \"b\", \"op\": \"relu\", \"dim\": 64},"
    "{\"name\": \"c\", \"op\": \"linear\", \"dim\": 64, \"output_dim\": 64},"
    "{\"name\": \"d\", \"op\": \"relu\", \"dim\": 64},"
    "{\"name\": \"e\", \"op\": \"linear\", \"dim\": 64, \"output_dim\": 64},"
    "{\"name\": \"f\", \"op\": \"softmax_cross_entropy\", \"dim\": 64}]}";

static const char box[] =
    "{\"format\": \"ppsim-cluster\", \"version\": 1, \"name\": \"box\", \"devices\": [{\"name\": "
    "\"d\", \"memory_bytes\": 1073741824, \"flops\": {\"fp32\": 1e12}, "
    "\"memory_bandwidth_bytes_per_s\": 1e12, \"cost_per_hour\": 3600}], \"nodes\": [{\"device\": "
    "\"d\", \"count\": 8, \"repeat\": 1}], \"intra\": {\"bandwidth_bytes_per_s\": 1e9, "
    "\"latency_s\": 1e-6}, \"inter\": {\"bandwidth_bytes_per_s\": 1e9, \"latency_s\": 1e-6}}";

Test(refusals, name_the_option_and_the_value) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        world w = world_read(six_layers, box, 16);
        refusals[i].set(&w.request);
        pp_plan_result *result;
        pp_error error = {0};
        pp_status status = pp_plan_search(&w.request, &result, &error);
        cr_expect_eq(status, refusals[i].status, "case %d: %d, %s", (int)i, status, error.message);
        cr_expect_null(result->best);
        if (refusals[i].place[0] != '\0') {
            cr_expect_str_eq(error.place, refusals[i].place, "case %d", (int)i);
        }
        for (int k = 0; k < 3 && refusals[i].words[k] != NULL; k++) {
            cr_expect_not_null(strstr(error.message, refusals[i].words[k]), "case %d: '%s' in: %s",
                               (int)i, refusals[i].words[k], error.message);
        }
        pp_plan_result_free(result);
        world_free(&w);
    }
}

/* ---- nothing fits -------------------------------------------------------------------------- */

static pp_status search_with(const world *w, int64_t memory, pp_plan_miss *miss, pp_error *error) {
    pp_plan_request request = w->request;
    request.memory_bytes = memory;
    pp_plan_result *result;
    pp_status status = pp_plan_search(&request, &result, error);
    if (miss != NULL) *miss = result->miss;
    pp_plan_result_free(result);
    return status;
}

/* The bytes that the nearest miss needs are enough, and one less is not. */
static void check_miss(const world *w, int64_t memory, uint64_t seed) {
    pp_plan_miss miss;
    pp_error error = {0};
    pp_status status = search_with(w, memory, &miss, &error);
    if (status == PP_OK) return;
    char figure[32];
    cr_assert_eq(status, PP_E_NO_FIT, "seed %d: %s", (int)seed, error.message);
    cr_assert(miss.known);
    cr_expect_eq(miss.limit_bytes, memory);
    cr_expect_gt(miss.needed_bytes, memory);
    snprintf(figure, sizeof figure, "(%lld bytes)", (long long)miss.needed_bytes);
    cr_expect_not_null(strstr(error.message, figure), "%s", error.message);
    cr_expect_eq(search_with(w, miss.needed_bytes, NULL, &error), PP_OK, "seed %d: %lld: %s",
                 (int)seed, (long long)miss.needed_bytes, error.message);
    cr_expect_eq(search_with(w, miss.needed_bytes - 1, NULL, &error), PP_E_NO_FIT, "seed %d",
                 (int)seed);
}

Test(refusals, nearest_miss_is_nearest) {
    for (uint64_t seed = 0; seed < 40; seed++) {
        world w = world_random(seed, (world_size){7, 4, 8, .memory = false});
        w.request.zero = 0;
        if (seed % 3 == 0) w.request.recompute = "none";
        w.request.schedule = seed % 4 == 0 ? "gpipe" : "1f1b";
        check_miss(&w, 1 << 12, seed);
        check_miss(&w, 1 << 13, seed);
        world_free(&w);
    }
}

static const struct {
    int64_t memory;
    const char *recompute, *schedule;
    int64_t size;
    const char *advice;
} advices[] = {
    {(1 << 20) + (112 << 10), "none", "gpipe", 0, "--recompute full"},
    {(1 << 20) + (112 << 10), "full", NULL, 64, "smaller microbatches"},
    {(1 << 20) + (112 << 10), "full", "gpipe", 4, "smaller microbatches"},
    {1 << 16, NULL, NULL, 0, "bytes on each device"},
};

/* Eight layers on two ranks: 1 MiB of weights and states on each, 64 KiB of activations for each
 * sample of a microbatch. */
Test(refusals, advice_is_the_cheapest_change_that_fits) {
    pp_text model = {0};
    pp_text_string(&model, "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"m\", "
                           "\"layers\": [");
    for (int i = 0; i < 8; i++) {
        pp_text_printf(
            &model,
            "%s{\"name\": \"l%d\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, "
            "\"weight_s\": 1, \"parameter_bytes\": 65536, \"output_bytes\": 64, "
            "\"activation_bytes\": 16384}",
            i ? "," : "", i);
    }
    pp_text_string(&model, "]}");
    for (size_t i = 0; i < sizeof advices / sizeof *advices; i++) {
        world w = world_read(model.bytes, box, 64);
        w.request.ranks = 2;
        w.request.dp = 1;
        w.request.recompute = advices[i].recompute;
        w.request.schedule = advices[i].schedule;
        w.request.microbatch_size = advices[i].size;
        w.request.memory_bytes = advices[i].memory;
        pp_plan_result *result;
        pp_error error = {0};
        pp_status status = pp_plan_search(&w.request, &result, &error);
        cr_expect_eq(status, PP_E_NO_FIT, "case %d", (int)i);
        cr_expect_not_null(strstr(error.message, advices[i].advice), "case %d: %s", (int)i,
                           error.message);
        pp_plan_result_free(result);
        world_free(&w);
    }
    pp_text_deinit(&model);
}

/* ---- signals, time, progress ---------------------------------------------------------------- */

Test(refusals, a_stop_request_ends_the_search) {
    world w = world_read(six_layers, box, 16);
    pp_plan_result *result;
    pp_error error = {0};
    pp_stop_request(2);
    cr_expect_eq(pp_plan_search(&w.request, &result, &error), PP_E_INTERRUPTED);
    pp_stop_request(0);
    cr_expect_null(result->best);
    pp_plan_result_free(result);
    world_free(&w);
}

typedef struct progress {
    int calls;
    double last;
} progress;

static void note_progress(void *context, double fraction) {
    progress *p = context;
    cr_expect(fraction >= 0 && fraction <= 1, "%g", fraction);
    p->calls++;
    p->last = fraction;
}

Test(refusals, little_time_still_gives_a_plan_and_its_gap) {
    world w = world_open("gpt2-124m", "dgx-h100:1", 64);
    progress p = {0};
    w.request.progress = note_progress;
    w.request.progress_context = &p;
    w.request.limit_s = 1e-9;
    pp_plan_result *result;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    double seconds = result->best->predicted.iteration_time_s;
    cr_expect_geq(result->gap, 0);
    cr_expect_float_eq(result->gap, (seconds - result->lower_bound_s) / result->lower_bound_s,
                       1e-12);
    cr_expect_gt(p.calls, 0);
    cr_expect_eq(p.last, 1);
    int64_t all = result->searched + result->pruned + result->left;
    cr_expect_gt(result->searched, 0);
    cr_expect_gt(result->left, 0);
    pp_plan_result_free(result);
    w.request.limit_s = 0;
    w.request.exact = true;
    cr_assert_eq(pp_plan_search(&w.request, &result, NULL), PP_OK);
    cr_expect_eq(result->searched + result->pruned, all);
    cr_expect_eq(result->left, 0);
    cr_expect_leq(result->best->predicted.iteration_time_s, seconds);
    pp_plan_result_free(result);
    world_free(&w);
}

/* ---- failing allocations ------------------------------------------------------------------- */

static long allocations_left;

static void *failing_allocate(size_t size_bytes) {
    return allocations_left-- > 0 ? malloc(size_bytes) : NULL;
}

/* The n-th allocation fails, for n = 1, 2, 3 … until none does. */
Test(refusals, failing_allocations_leave_nothing_behind, .timeout = 120) {
    pp_platform platform = *pp_platform_get();
    platform.allocate = failing_allocate;
    allocations_left = 1 << 30;
    pp_platform_set(&platform);
    world w = world_random(3, (world_size){5, 3, 4, .memory = false});
    w.request.ranks = 2;
    w.request.schedule = "1f1b";
    w.request.recompute = "full";
    w.request.tell_changes = true;
    pp_status status = PP_E_OUT_OF_MEMORY;
    int64_t before = pp_live_bytes();
    long n = 0;
    for (; status == PP_E_OUT_OF_MEMORY; n++) {
        pp_plan_result *result = NULL;
        pp_error error = {0};
        allocations_left = n;
        status = pp_plan_search(&w.request, &result, &error);
        pp_plan_result_free(result);
        cr_assert_eq(pp_live_bytes(), before, "allocation %ld: %lld bytes leaked", n,
                     (long long)(pp_live_bytes() - before));
        cr_assert(status == PP_OK || status == PP_E_OUT_OF_MEMORY, "allocation %ld: %d %s", n,
                  status, error.message);
    }
    cr_expect_eq(status, PP_OK);
    cr_expect_gt(n, 50);
    allocations_left = 1 << 30;
    world_free(&w);
    pp_platform_set(NULL);
}

/* No split helps a layer that is larger than every device. */
Test(refusals, a_layer_that_no_device_holds_is_named) {
    world w = world_open("gpt2-124m", "dgx-a100:1", 8);
    w.request.memory_bytes = 30000000;
    w.request.tp = 1;
    pp_plan_result *result;
    pp_error error = {0};
    cr_assert_eq(pp_plan_search(&w.request, &result, &error), PP_E_NO_FIT);
    cr_expect(strstr(error.message, "layer 0 'embed' alone needs") &&
                  strstr(error.message, "device 0"),
              "%s", error.message);
    pp_plan_result_free(result);
    world_free(&w);
}
