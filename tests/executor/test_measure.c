/* Measuring: every phase of every distinct layer is sampled, nothing else is, and it ends. Times
 * themselves are not asserted. */
#include "executor/measure_internal.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(measure, .timeout = 60);
COUNTED_SUITE(series);

static const char model_text[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"tiny\", \"layers\": ["
    "{\"name\": \"embed\", \"op\": \"embedding\", \"vocabulary\": 11, \"dim\": 8, \"sequence\": 4},"
    "{\"name\": \"block0\", \"op\": \"gpt_block\", \"dim\": 8, \"heads\": 2, \"sequence\": 4},"
    "{\"name\": \"block1\", \"op\": \"gpt_block\", \"dim\": 8, \"heads\": 2, \"sequence\": 4},"
    "{\"name\": \"bend\", \"op\": \"gelu\", \"dim\": 8, \"sequence\": 4},"
    "{\"name\": \"sum\", \"op\": \"add\", \"dim\": 8, \"sequence\": 4},"
    "{\"name\": \"head\", \"op\": \"lm_head\", \"vocabulary\": 11, \"dim\": 8, \"sequence\": 4}],"
    "\"edges\": [[0, 1], [1, 2], [2, 3], [2, 4], [3, 4], [4, 5]]}";

static const char opaque_text[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"black\", \"layers\": ["
    "{\"name\": \"a\", \"op\": \"opaque\", \"forward_s\": 0.5, \"input_s\": 0.25,"
    " \"weight_s\": 0.125, \"parameter_bytes\": 4096, \"output_bytes\": 64,"
    " \"activation_bytes\": 64}]}";

static pp_model *model_must_read(const char *text) {
    pp_model *model;
    pp_error error = {0};
    pp_status status = pp_model_read(text, strlen(text), "model.json", &model, &error);
    cr_assert(status == PP_OK, "%s: %s", error.place, error.message);
    return model;
}

/* ---- what comes back ---- */

typedef struct record {
    pp_sample samples[100000];
    size_t count;
    int caps;
    double worst_interval;
    int drifts;
    double canary;
    double progress;
    bool progress_fell;
} record;

static record kept; /* large, and Criterion runs each test in a process of its own */

static void keep_sample(void *context, const pp_sample *sample) {
    record *all = context;
    cr_assert(all->count < sizeof all->samples / sizeof *all->samples);
    all->samples[all->count++] = *sample;
}

static void keep_progress(void *context, double fraction, const char *what) {
    record *all = context;
    cr_assert(fraction >= 0 && fraction <= 1 && what && *what);
    all->progress_fell |= fraction < all->progress;
    all->progress = fraction;
}

static void keep_cap(void *context, const char *what, double reached_interval) {
    record *all = context;
    cr_assert(what && *what);
    all->caps++;
    all->worst_interval = fmax(all->worst_interval, reached_interval);
}

static size_t count_of(const record *all, const char *op, pp_phase phase, int64_t microbatch,
                       int neighbours) {
    size_t count = 0;
    for (size_t i = 0; i < all->count; i++) {
        const pp_sample *sample = &all->samples[i];
        size_t length = strlen(op);
        if (strncmp(sample->signature, op, length) != 0) continue;
        if (sample->signature[length] != ' ' && sample->signature[length] != '\0') continue;
        count += sample->phase == phase && sample->microbatch == microbatch &&
                 sample->neighbours == neighbours;
    }
    return count;
}

/* A clock that goes forward by a tick whenever it is read: no waiting, and no noise at all. */
static atomic_long ticks;
static double ticking(void) {
    return 1e-3 * (double)atomic_fetch_add(&ticks, 1);
}

static void use_ticking_clock(void) {
    static pp_platform platform;
    platform = *pp_platform_get();
    platform.now_s = ticking;
    pp_platform_set(&platform);
}

static const int64_t sizes[] = {1, 3};

static pp_measure_options options_for(const pp_model *model) {
    return (pp_measure_options){.model = model,
                                .device = "cpu",
                                .dtype = PP_FP32,
                                .microbatches = sizes,
                                .microbatch_count = 2,
                                .on_progress = keep_progress,
                                .on_sample = keep_sample,
                                .on_cap = keep_cap,
                                .context = &kept};
}

static void must_measure(const pp_measure_options *options) {
    pp_error error = {0};
    pp_status status = pp_measure(options, &error);
    cr_assert(status == PP_OK, "%s: %s", error.place, error.message);
}

/* Which phases have work, by op. */
static const struct {
    const char *op;
    bool phases[4];
} expected[] = {{"embedding", {true, false, true, true}},
                {"gpt_block", {true, true, true, true}},
                {"gelu", {true, true, false, false}},
                {"add", {true, true, false, false}},
                {"lm_head", {true, true, true, true}}};

static void expect_all_phases(int neighbours, size_t least) {
    size_t found = 0;
    for (size_t e = 0; e < sizeof expected / sizeof *expected; e++)
        for (int phase = 0; phase < 4; phase++)
            for (int s = 0; s < 2; s++)
                for (int n = 0; n <= neighbours; n += neighbours ? neighbours : 1) {
                    size_t count = count_of(&kept, expected[e].op, (pp_phase)phase, sizes[s], n);
                    cr_assert_eq(count >= least, expected[e].phases[phase],
                                 "%s phase %d size %d: %zu samples", expected[e].op, phase,
                                 (int)sizes[s], count);
                    found += count;
                }
    cr_assert_eq(found, kept.count, "samples of something else");
    for (size_t i = 0; i < kept.count; i++)
        cr_assert(isfinite(kept.samples[i].duration_s) && kept.samples[i].duration_s > 0);
}

Test(measure, every_phase_of_every_distinct_layer) {
    pp_model *model = model_must_read(model_text);
    int64_t live = pp_live_bytes();
    use_ticking_clock();
    pp_measure_options options = options_for(model);
    must_measure(&options);
    expect_all_phases(0, 9);
    cr_assert_eq(kept.caps, 0);
    cr_assert(!kept.progress_fell && kept.progress > 0.5);
    /* block0 and block1 share a signature: measured once, about as often as any other layer */
    size_t block = count_of(&kept, "gpt_block", PP_PHASE_FORWARD, 1, 0);
    cr_assert_lt(2 * block, 3 * count_of(&kept, "lm_head", PP_PHASE_FORWARD, 1, 0));
    cr_assert_eq(pp_live_bytes(), live);
    pp_model_free(model);
}

Test(measure, in_double_and_without_callbacks) {
    pp_model *model = model_must_read(model_text);
    use_ticking_clock();
    pp_measure_options options = options_for(model);
    options.dtype = PP_FP64;
    must_measure(&options);
    expect_all_phases(0, 9);
    options.on_sample = NULL;
    options.on_progress = NULL;
    options.on_cap = NULL;
    must_measure(&options);
    pp_model_free(model);
}

/* A machine that becomes slower while layers are measured, too slowly for any of them to show it: a
 * tick becomes 1.6 ticks over 1,000 readings of the clock. */
static double slowing(void) {
    double tick = (double)atomic_fetch_add(&ticks, 1);
    double slow = fmin(tick, 1000);
    return 1e-3 * (tick + 3e-4 * slow * slow + 0.6 * (tick - slow));
}

static void keep_drift(void *context, const char *what, double drift) {
    record *all = context;
    cr_assert(what && *what);
    all->drifts++;
    if (strstr(what, "before and after")) all->canary = drift;
}

Test(measure, a_machine_that_slows_down) {
    static pp_platform platform;
    pp_model *model = model_must_read(model_text);
    pp_measure_options options = options_for(model);
    options.on_drift = keep_drift;
    use_ticking_clock();
    must_measure(&options);
    cr_assert_eq(kept.drifts, 0, "a steady machine drifts");
    platform = *pp_platform_get();
    platform.now_s = slowing;
    pp_platform_set(&platform);
    atomic_store(&ticks, 0);
    must_measure(&options);
    cr_assert_float_eq(kept.canary, 0.6, 0.01, "%g", kept.canary);
    pp_model_free(model);
}

/* An interruption while a call is timed for the first time does not make samples too short: of a
 * clock whose tick is 10 µs, a jump of a second at any reading leaves the medians as they are. */
static long jump_at;
static double jumping(void) {
    long tick = atomic_fetch_add(&ticks, 1);
    return 1e-5 * (double)tick + (tick >= jump_at);
}

static double median_s(pp_phase phase) {
    static double values[sizeof kept.samples / sizeof *kept.samples];
    size_t count = 0;
    for (size_t i = 0; i < kept.count; i++)
        if (kept.samples[i].phase == phase) values[count++] = kept.samples[i].duration_s;
    return pp_median_of(values, count).median;
}

Test(measure, an_interruption_at_the_start) {
    static const char text[] =
        "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"one\", \"layers\": ["
        "{\"name\": \"bend\", \"op\": \"gelu\", \"dim\": 2, \"sequence\": 1}]}";
    static pp_platform platform;
    pp_model *model = model_must_read(text);
    platform = *pp_platform_get();
    platform.now_s = jumping;
    pp_platform_set(&platform);
    pp_measure_options options = options_for(model);
    options.microbatch_count = 1;
    for (jump_at = 2; jump_at < 40; jump_at += 3) {
        kept.count = 0;
        atomic_store(&ticks, 0);
        must_measure(&options);
        for (int phase = PP_PHASE_FORWARD; phase <= PP_PHASE_INPUT; phase++)
            cr_assert_float_eq(median_s((pp_phase)phase), 1e-5 / 30, 1e-5 / 25 - 1e-5 / 30,
                               "jump at %ld: %g s", jump_at, median_s((pp_phase)phase));
    }
    pp_model_free(model);
}

/* With the real clock and a wish that cannot be met: the cap ends it and says how far it got. */
Test(measure, neighbours_and_caps) {
    pp_model *model = model_must_read(model_text);
    int64_t live = pp_live_bytes();
    pp_measure_options options = options_for(model);
    options.neighbours = 1;
    options.interval = 1e-12;
    options.cap_s = 0.01;
    must_measure(&options);
    expect_all_phases(1, 1);
    cr_assert(kept.caps > 0 && kept.worst_interval > 1e-12);
    cr_assert_eq(pp_live_bytes(), live);
    pp_model_free(model);
}

Test(measure, links_of_all_sizes) {
    pp_model *model = model_must_read(model_text);
    int64_t live = pp_live_bytes();
    pp_measure_options options = options_for(model);
    options.links = true;
    options.interval = 0.5;
    options.cap_s = 0.05;
    must_measure(&options);
    size_t found = 0;
    for (int64_t bytes = 1 << 10; bytes <= 1 << 24; bytes *= 4) {
        size_t count = count_of(&kept, "link", PP_PHASE_TRANSFER, bytes, 0);
        cr_assert(count > 0, "no message of %lld bytes", (long long)bytes);
        found += count;
    }
    cr_assert_eq(found, kept.count);
    cr_assert_eq(pp_live_bytes(), live);
    pp_model_free(model);
}

/* ---- refusals ---- */

static void expect_refused(const pp_measure_options *options, pp_status status, const char *part) {
    pp_error error = {0};
    cr_assert_eq(pp_measure(options, &error), status);
    cr_assert(strstr(error.message, part), "\"%s\" does not say \"%s\"", error.message, part);
    cr_assert_eq(kept.count, 0);
}

Test(measure, what_cannot_be_measured) {
    pp_model *model = model_must_read(model_text), *opaque = model_must_read(opaque_text);
    pp_measure_options options = options_for(model);
    options.dtype = PP_BF16;
    expect_refused(&options, PP_E_UNSUPPORTED, "does not compute in bf16");
    options = options_for(model);
    options.device = "abacus:0";
    expect_refused(&options, PP_E_UNSUPPORTED, "'abacus' is not a backend");
    options.device = "replay";
    expect_refused(&options, PP_E_UNSUPPORTED, "runs no layers");
    options = options_for(opaque);
    expect_refused(&options, PP_E_INPUT, "opaque layers only");
    options = options_for(model);
    static const int64_t zero[] = {0}, huge[] = {(int64_t)1 << 40};
    options.microbatch_count = 1;
    options.microbatches = zero;
    expect_refused(&options, PP_E_INPUT, "0 is not a size");
    options.microbatches = huge;
    expect_refused(&options, PP_E_OUT_OF_MEMORY, "leave this size out");
    options.microbatch_count = 0;
    expect_refused(&options, PP_E_INPUT, "at least one size");
    options = options_for(model);
    options.neighbours = -1;
    expect_refused(&options, PP_E_INPUT, "negative");
    pp_model_free(model);
    pp_model_free(opaque);
    cr_assert_eq(pp_live_bytes(), 0);
}

static void stop_at_some_sample(void *context, double fraction, const char *what) {
    (void)context;
    (void)what;
    if (fraction > 0.3) pp_stop_request(SIGINT);
}

Test(measure, stops_when_asked) {
    pp_model *model = model_must_read(model_text);
    use_ticking_clock();
    for (int links = 0; links < 2; links++) {
        pp_measure_options options = options_for(model);
        options.links = links;
        options.neighbours = 1;
        options.on_progress = stop_at_some_sample;
        pp_error error = {0};
        cr_assert_eq(pp_measure(&options, &error), PP_E_INTERRUPTED);
        cr_assert(kept.count > 0);
        pp_stop_request(0);
    }
    pp_model_free(model);
    cr_assert_eq(pp_live_bytes(), 0);
}

/* ---- memory ---- */

static atomic_long allocations_left;

static void *failing_allocate(size_t size_bytes) {
    if (atomic_fetch_sub(&allocations_left, 1) == 0) return NULL;
    return malloc(size_bytes);
}

Test(measure, any_allocation_may_fail) {
    pp_model *model = model_must_read(model_text);
    int64_t live = pp_live_bytes();
    pp_platform failing = *pp_platform_get();
    failing.allocate = failing_allocate;
    failing.now_s = ticking;
    bool survived = false;
    for (long n = 0; n < 20000 && !survived; n += n < 40 ? 1 : 17) {
        pp_measure_options options = options_for(model);
        options.microbatch_count = 1;
        options.neighbours = n % 2 ? 1 : 0;
        options.on_sample = NULL;
        atomic_store(&allocations_left, n);
        pp_platform_set(&failing);
        pp_status status = pp_measure(&options, NULL);
        survived = atomic_load(&allocations_left) >= 0;
        pp_platform_set(NULL);
        cr_assert_eq(status, survived ? PP_OK : PP_E_OUT_OF_MEMORY, "allocation %ld: status %d", n,
                     (int)status);
        cr_assert_eq(pp_live_bytes(), live, "allocation %ld leaks", n);
    }
    cr_assert(survived);
    pp_model_free(model);
}

/* ---- the machine ---- */

Test(measure, describes_the_machine) {
    char name[128], driver[128], libraries[256], clocks[128];
    memset(name, 'x', sizeof name);
    memset(driver, 'x', sizeof driver);
    memset(libraries, 'x', sizeof libraries);
    memset(clocks, 'x', sizeof clocks);
    pp_measure_describe("cpu", name, driver, libraries, clocks);
    cr_assert(memchr(name, 0, sizeof name) && name[0] && name[0] != 'x');
    cr_assert(memchr(driver, 0, sizeof driver) && strstr(driver, "Linux"));
    cr_assert(memchr(libraries, 0, sizeof libraries) && strstr(libraries, "OpenBLAS"));
    cr_assert(memchr(clocks, 0, sizeof clocks) && clocks[0] && clocks[0] != 'x');
}

/* ---- series ---- */

static pp_series series;

Test(series, repeats_short_calls) {
    pp_measure_options options = {.interval = 0.05, .cap_s = 1};
    static const struct {
        double call_s;
        int repeat;
    } cases[] = {{1, 1}, {1e-4, 1}, {0.9e-4, 2}, {1e-5, 10}, {1e-6, 100}, {0, 100000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_series_start(&series, &options, 1, cases[i].call_s, PP_SAMPLE_S);
        cr_assert(abs(series.repeat - cases[i].repeat) <= 1, "%g s: %d", cases[i].call_s,
                  series.repeat);
    }
}

Test(series, defaults_are_those_of_the_contract) {
    pp_measure_options none = {0};
    pp_series_start(&series, &none, 0.5, 1e-3, PP_SAMPLE_S);
    cr_assert(series.wanted == 0.02 && series.cap_s == 0.5);
    pp_series_start(&series, &none, 0.5, 0.2, PP_SAMPLE_S);
    cr_assert(series.cap_s == 1, "room for five calls");
    pp_series_start(&series, &none, 0.5, 30, PP_SAMPLE_S);
    cr_assert(series.cap_s == 2, "but never more than 2 s");
    pp_series_start(&series, &none, 50, 1e-3, PP_SAMPLE_S);
    cr_assert(series.cap_s == 2);
    none.cap_s = 7;
    pp_series_start(&series, &none, 0.5, 1e-3, PP_SAMPLE_S);
    cr_assert(series.cap_s == 7, "the caller's cap is taken as it is");
}

/* 1 … 20 in any order: the 95 % interval of the median is from the 6th to the 15th value. */
Test(series, interval_by_hand) {
    pp_measure_options options = {.interval = 1e-6, .cap_s = 210 - 1e-9};
    pp_series_start(&series, &options, 1, 1, PP_SAMPLE_S);
    for (int i = 0; i < 20; i++) {
        cr_assert(!series.done);
        pp_series_add(&series, 1 + (i * 7) % 20);
    }
    cr_assert(series.done && series.capped);
    cr_assert_float_eq(series.interval, 0.5 * (15 - 6) / 10.5, 1e-12);
}

Test(series, quiet_ends_early_noisy_at_the_cap) {
    pp_measure_options options = {.interval = 0.02, .cap_s = 1};
    pp_series_start(&series, &options, 1, 1e-3, PP_SAMPLE_S);
    while (!series.done) pp_series_add(&series, 1e-3);
    cr_assert(!series.capped && series.count <= 25 && series.interval == 0);

    pp_series_start(&series, &options, 1, 1e-3, PP_SAMPLE_S);
    for (int i = 0; !series.done; i++) pp_series_add(&series, i % 2 ? 1e-3 : 5e-3);
    cr_assert(series.capped && series.spent_s >= 1 && series.count < PP_SERIES_SAMPLES);

    pp_series_start(&series, &options, 1, 1e-4, PP_SAMPLE_S);
    for (int i = 0; !series.done; i++) pp_series_add(&series, i % 2 ? 1e-6 : 5e-6);
    cr_assert(series.capped && series.count == PP_SERIES_SAMPLES);
}

/* Noise of 10 %: the interval narrows with the root of the count, and ends long before the cap. */
Test(series, long_series_are_still_looked_at) {
    pp_measure_options options = {.interval = 0.01, .cap_s = 100};
    pp_random_key key = pp_random_key_make(5, "noise", 0);
    pp_series_start(&series, &options, 1, 1e-3, PP_SAMPLE_S);
    for (uint64_t i = 0; !series.done; i++)
        pp_series_add(&series, 1e-3 * (1 + 0.1 * pp_random_normal(key, i)));
    cr_assert(!series.capped && series.count > 256 && series.count < 1500, "%d", series.count);
}
