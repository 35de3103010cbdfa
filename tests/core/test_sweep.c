/* Sweeps: exact round trips, and what is refused. */
#include "document_support.h"

#include <math.h>

COUNTED_SUITE(sweep);

static void random_point(dice *d, pp_sweep_point *point) {
    point->planned = roll(d, 0, 2) > 0;
    if (!point->planned) {
        point->iteration_time_s = point->throughput = point->bubble_fraction = PP_SWEEP_UNKNOWN;
        point->compute_s = point->compute_loss = point->gap = PP_SWEEP_UNKNOWN;
        point->peak_bytes = PP_SWEEP_UNKNOWN;
        snprintf(point->reason, sizeof point->reason, "it \"misses\" by %d é", (int)roll(d, 1, 9));
        return;
    }
    point->iteration_time_s = fmin(1e15, roll_double(d));
    point->throughput = fmin(1e30, roll_double(d));
    point->bubble_fraction = pp_random_unit(d->key, d->at++);
    point->compute_s = fmin(1e15, roll_double(d));
    point->compute_loss = roll(d, 0, 1) ? 0 : 0.1 * (double)roll(d, 1, 99);
    point->peak_bytes = roll(d, 0, 1LL << 50);
    point->gap = roll(d, 0, 3) ? 0.125 : PP_SWEEP_UNKNOWN;
    point->ranks = (int)roll(d, 1, 64);
    point->virtual_stages = (int)roll(d, 1, 4);
    point->microbatches = (int)roll(d, 1, 4096);
    point->microbatch_size = roll(d, 1, 1LL << 31);
    point->dp = (int)roll(d, 1, 8);
    point->tp = (int)roll(d, 1, 8);
    point->zero = (int)roll(d, 0, 1);
    point->recompute = roll(d, 0, 1) ? PP_RECOMPUTE_FULL : PP_RECOMPUTE_MIXED;
    snprintf(point->schedule, sizeof point->schedule, "zb-h%d", (int)roll(d, 1, 2));
}

static pp_text written(const pp_sweep *sweep) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_sweep_write(sweep, &json);
    return text;
}

Test(sweep, what_is_written_is_read_back) {
    for (uint64_t seed = 1; seed <= 200; seed++) {
        dice d = dice_of(seed, "sweep");
        pp_sweep *sweep, *again;
        pp_error error = {0};
        cr_assert_eq(pp_sweep_new((int)roll(&d, 1, 20), &sweep, NULL), PP_OK);
        sweep->kind = (pp_sweep_kind)roll(&d, 0, PP_SWEEP_KIND_COUNT - 1);
        sweep->global_batch = roll(&d, 1, 1LL << 31);
        snprintf(sweep->model, sizeof sweep->model, "model %d", (int)seed);
        for (int i = 0; i < sweep->point_count; i++) {
            sweep->points[i].value = 1 + (i > 0 ? sweep->points[i - 1].value : 0);
            random_point(&d, &sweep->points[i]);
        }
        pp_text first = written(sweep);
        cr_assert_eq(pp_sweep_read(first.bytes, first.length, "s", &again, &error), PP_OK,
                     "seed %d: %s %s", (int)seed, error.place, error.message);
        pp_text second = written(again);
        cr_expect_str_eq(first.bytes, second.bytes, "seed %d", (int)seed);
        cr_expect_eq(memcmp(sweep->points, again->points,
                            (size_t)sweep->point_count * sizeof *sweep->points),
                     0, "seed %d", (int)seed);
        pp_text_deinit(&first), pp_text_deinit(&second);
        pp_sweep_free(sweep), pp_sweep_free(again);
    }
    cr_expect_eq(pp_live_bytes(), 0);
}

static const char good[] =
    "{\"format\": \"ppsim-sweep\", \"version\": 1, \"sweep\": \"ranks\", \"model\": \"m\",\n"
    " \"cluster\": \"c\", \"batch\": 8, \"points\": [\n"
    " {\"value\": 1, \"iteration_time\": 1.5, \"throughput\": 5, \"bubble_fraction\": 0.1,\n"
    "  \"compute_per_sample\": 0.25, \"compute_loss\": 0, \"peak_bytes\": 77, \"gap\": null,\n"
    "  \"plan\": {\"ranks\": 1, \"virtual\": 1, \"microbatches\": 4, \"microbatch_size\": 2,\n"
    "   \"dp\": 1, \"tp\": 1, \"zero\": 0, \"schedule\": \"1f1b\", \"recompute\": \"none\"}},\n"
    " {\"value\": 2, \"iteration_time\": null, \"throughput\": null, \"bubble_fraction\": null,\n"
    "  \"compute_per_sample\": null, \"compute_loss\": null, \"peak_bytes\": null, \"gap\": null,\n"
    "  \"plan\": null, \"reason\": \"too small\"}]}";

typedef struct change {
    const char *from, *to, *place, *message;
} change;

static const change changes[] = {
    {"ppsim-sweep", "ppsim-plan", " /format", "ppsim-sweep"},
    {"\"version\": 1", "\"version\": 2", " /version", "1"},
    {"\"ranks\", \"model\"", "\"pies\", \"model\"", " /sweep", "microbatches, ranks, memory"},
    {"\"batch\": 8", "\"batch\": 0", " /batch", "from 1"},
    {"\"batch\": 8, ", "", "", "\"batch\" is missing"},
    {"\"batch\": 8", "\"patch\": 8", "", "unknown key \"patch\""},
    {"\"value\": 2", "\"value\": 1", " /points/1", "rise"},
    {"\"value\": 1", "\"value\": 1.5", " /points/0/value", "an integer"},
    {"0.1", "1.1", " /points/0/bubble_fraction", "from 0 to 1"},
    {"1.5", "null", " /points/0", "is null"},
    {"\"iteration_time\": null", "\"iteration_time\": 1", " /points/1", "no plan"},
    {", \"reason\": \"too small\"", "", " /points/1", "reason"},
    {"too small", "", " /points/1", "reason"},
    {"\"recompute\": \"none\"}", "\"recompute\": \"none\"}, \"reason\": \"x\"", " /points/0",
     "also a \"reason\""},
    {"\"recompute\": \"none\"", "\"recompute\": \"some\"", " /points/0/plan/recompute", "one of"},
    {"\"zero\": 0", "\"zero\": 2", " /points/0/plan/zero", "from 0 to 1"},
    {"\"plan\": null", "\"plan\": 7", " /points/1/plan", "an object"},
    {"}]}", "}]", ":9:39", ""},
};

static char *changed(const change *c) {
    const char *at = strstr(good, c->from);
    cr_assert(at != NULL, "%s", c->from);
    char *text = malloc(sizeof good + strlen(c->to));
    sprintf(text, "%.*s%s%s", (int)(at - good), good, c->to, at + strlen(c->from));
    return text;
}

Test(sweep, flaws_are_named_with_their_place) {
    pp_sweep *sweep;
    cr_assert_eq(pp_sweep_read(good, strlen(good), "s", &sweep, NULL), PP_OK);
    cr_expect_eq(sweep->points[1].peak_bytes, PP_SWEEP_UNKNOWN);
    pp_sweep_free(sweep);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        pp_error error = {0};
        char *text = changed(&changes[i]), place[64];
        snprintf(place, sizeof place, "s%s", changes[i].place);
        cr_expect_eq(pp_sweep_read(text, strlen(text), "s", &sweep, &error), PP_E_INPUT, "%zu", i);
        cr_expect(sweep == NULL);
        cr_expect_str_eq(error.place, place, "%zu: %s", i, error.place);
        cr_expect(strstr(error.message, changes[i].message) != NULL, "%zu: %s", i, error.message);
        free(text);
    }
    cr_expect_eq(pp_live_bytes(), 0);
}

static pp_status read_good(void *context, pp_error *error) {
    pp_sweep *sweep;
    (void)context;
    pp_status status = pp_sweep_read(good, strlen(good), "s", &sweep, error);
    pp_sweep_free(sweep);
    return status;
}

Test(sweep, any_allocation_may_fail) {
    expect_survives_allocation_failures(read_good, NULL);
}
