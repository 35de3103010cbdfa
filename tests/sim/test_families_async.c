/* Asynchronous families: which versions of weights microbatches meet, counted in a simulated run
 * rather than by formula; what that takes; the bubble of the steady state. */
#include "fixtures.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(families_async);

static const char *const names[] = {
    "pipedream", "pipedream-vsync", "pipedream-2bw", "spectrain", "xpipe", "pipemare", "pb"};
enum { NAMES = sizeof names / sizeof *names, MOST_RANKS = 9, MOST = 512 };

/* ---- counting versions ---------------------------------------------------------------------- */

/* What a run of uniform stages shows of each rank: how many updates it had made. */
typedef struct counted {
    pp_schedule_request request;
    pp_schedule *schedule;
    pp_sim_result *result;
    int64_t at_forward[MOST_RANKS][MOST];  /* when F of a microbatch began */
    int64_t at_backward[MOST_RANKS][MOST]; /* when its B did */
    double update_s[MOST_RANKS][MOST];     /* when update v was made, from 1 */
    double last_start_s[MOST];             /* of B on rank 0 */
    int per_update;
} counted;

static bool is(const counted *c, const char *name) {
    return strcmp(c->request.name, name) == 0;
}

static void count_updates(counted *c) {
    int backwards[MOST_RANKS] = {0};
    const pp_trace *trace = c->result->trace;
    for (size_t i = 0; i < trace->span_count; i++) {
        const pp_span *span = &trace->spans[i];
        if (span->lane != PP_LANE_COMPUTE) continue;
        int p = span->rank, m = (int)span->action.microbatch;
        int64_t version = backwards[p] / c->per_update;
        if (span->action.kind == PP_FORWARD) {
            c->at_forward[p][m] = version;
            continue;
        }
        c->at_backward[p][m] = version;
        if (p == 0) c->last_start_s[m] = span->start_s;
        if (++backwards[p] % c->per_update == 0) c->update_s[p][version + 1] = span->end_s;
    }
}

static counted *count_run(const char *name, int ranks, int microbatches, double f, double b,
                          double transfer) {
    counted *c = calloc(1, sizeof *c);
    cr_assert(c);
    c->request = (pp_schedule_request){.name = name, .ranks = ranks, .microbatches = microbatches};
    cr_assert_eq(pp_schedule_build(&c->request, &c->schedule, NULL), PP_OK);
    cr_assert_leq(c->schedule->microbatches, MOST);
    c->per_update = is(c, "pipedream-2bw") ? microbatches : 1;
    costs cost = costs_uniform(ranks, f, b / 2, b / 2, transfer);
    pp_sim_input input = input_of(c->schedule, &cost);
    input.keep_spans = true;
    c->result = simulate(&input);
    costs_free(&cost);
    count_updates(c);
    return c;
}

static void counted_free(counted *c) {
    pp_sim_result_free(c->result);
    pp_schedule_free(c->schedule);
    free(c);
}

/* The newest version that every rank had for every microbatch of m's minibatch. */
static int64_t newest_of_all(const counted *c, int m) {
    int64_t newest = INT64_MAX;
    int first = m / c->per_update * c->per_update;
    for (int p = 0; p < c->request.ranks; p++)
        for (int i = first; i < first + c->per_update; i++)
            if (c->at_forward[p][i] < newest) newest = c->at_forward[p][i];
    return newest;
}

/* What the papers say in words, of the counted updates. */
static pp_async_use read_as_published(const counted *c, int p, int m) {
    int64_t found = c->at_forward[p][m];
    if (is(c, "pipedream")) return (pp_async_use){found, found};
    if (is(c, "pipedream-vsync")) return (pp_async_use){c->at_forward[0][m], c->at_forward[0][m]};
    if (is(c, "pipedream-2bw")) {
        int64_t version = newest_of_all(c, m);
        if (c->request.ranks == 1 && version > 0) version--; /* of one delay everywhere */
        return (pp_async_use){version, version};
    }
    return (pp_async_use){found, c->at_backward[p][m]};
}

static void check_use(const counted *c, int p, int m) {
    pp_async_use use = pp_async_use_of(&c->request, p, m), seen = read_as_published(c, p, m);
    cr_assert(use.forward == seen.forward && use.backward == seen.backward,
              "%s K=%d rank %d microbatch %d: %ld, %ld instead of %ld, %ld", c->request.name,
              c->request.ranks, p, m, use.forward, use.backward, seen.forward, seen.backward);
    cr_assert_leq(use.forward, c->at_forward[p][m], "%s: not there yet", c->request.name);
}

Test(families_async, versions_are_those_that_a_run_shows) {
    for (int i = 0; i < NAMES; i++)
        for (int k = 1; k <= MOST_RANKS; k++)
            for (int m = 1; m <= 40; m += m < 12 ? 1 : 9) {
                if (m < k && i == 2) continue;
                counted *c = count_run(names[i], k, m, 1 + m % 3, 2, 0.25 * (m % 2));
                for (int p = 0; p < k; p++)
                    for (int j = 0; j < c->schedule->microbatches; j++) check_use(c, p, j);
                counted_free(c);
            }
}

/* ---- what must be kept ---------------------------------------------------------------------- */

typedef struct kept {
    int copies;   /* the newest version, and older ones that some action has yet to read */
    int versions; /* that microbatches under way go back with */
} kept;

static int distinct(const bool *marked) {
    int count = 0;
    for (int v = 0; v <= MOST; v++) count += marked[v];
    return count;
}

/* Before the backward of microbatch b on rank p, the forwards up to f have been done. */
static kept kept_at(const counted *c, int p, int b, int f) {
    bool held[MOST + 1] = {false}, under_way[MOST + 1] = {false};
    int64_t newest = c->at_backward[p][b];
    held[newest] = true;
    for (int m = b; m < c->schedule->microbatches; m++) {
        pp_async_use use = read_as_published(c, p, m);
        if (use.backward <= newest) held[use.backward] = true;
        if (m <= f) under_way[use.backward] = true;
    }
    return (kept){distinct(held), distinct(under_way)};
}

static kept most_kept(const counted *c, int p) {
    kept most = {0, 0};
    for (int b = 0; b < c->schedule->microbatches; b++) {
        int f = -1;
        for (int m = 0; m < c->schedule->microbatches; m++)
            if (c->at_forward[p][m] * c->per_update <= b) f = m;
        if (c->per_update > 1) f = b + c->request.ranks - 1 - p;
        kept now = kept_at(c, p, b, f);
        if (now.copies > most.copies) most.copies = now.copies;
        if (now.versions > most.versions) most.versions = now.versions;
    }
    return most;
}

/* Families whose backward reads the newest weights keep no version but that. */
Test(families_async, versions_kept_are_as_many_as_needed) {
    for (int i = 0; i < 3; i++)
        for (int k = 1; k <= 7; k++)
            for (int m = k; m <= 24; m += 5) {
                counted *c = count_run(names[i], k, m, 1, 2, 0);
                bool is_long = i == 2 || m >= 3 * k;
                for (int p = 0; p < k; p++) {
                    pp_async_rank rank = pp_async_rank_of(&c->request, p);
                    kept most = most_kept(c, p);
                    cr_assert_leq(most.copies, rank.weight_copies, "%s K=%d M=%d rank %d", names[i],
                                  k, m, p);
                    cr_assert_leq(most.versions, rank.weight_versions, "%s K=%d M=%d rank %d",
                                  names[i], k, m, p);
                    if (is_long) cr_assert_eq(most.copies, rank.weight_copies, "%s", names[i]);
                    if (is_long && i < 2) cr_assert_eq(most.versions, rank.weight_versions);
                }
                counted_free(c);
            }
}

Test(families_async, delays_are_those_of_a_long_run) {
    for (int i = 0; i < NAMES; i++)
        for (int k = 1; k <= MOST_RANKS; k++) {
            counted *c = count_run(names[i], k, 40, 1, 1, 0);
            int first = i == 2 ? 40 : 2 * k + 1;
            for (int p = 0; p < k; p++)
                for (int m = first; m < c->schedule->microbatches; m++) {
                    pp_async_use use = pp_async_use_of(&c->request, p, m);
                    cr_assert_eq(c->at_backward[p][m] - use.forward,
                                 pp_async_rank_of(&c->request, p).delay, "%s K=%d rank %d m=%d",
                                 names[i], k, p, m);
                }
            counted_free(c);
        }
}

/* The table of the literature, rank 1 of 4. */
Test(families_async, ranks_by_hand) {
    static const struct {
        const char *name;
        pp_async_rank rank;
    } cases[] = {
        {"pipedream", {3, 3, 2, 0, 0}},
        {"pipedream-vsync", {3, 4, 3, 0, 0}},
        {"pipedream-2bw", {2, 2, 1, 0, 0}},
        {"spectrain", {1, 2, 2, 2, 0}},
        {"xpipe", {1, 2, 2, 2, 0}},
        {"pipemare", {1, 2, 5, 0, 0}},
        {"pb", {1, 2, 4, 4, 0}},
    };
    for (int i = 0; i < NAMES; i++) {
        pp_schedule_request request = {.name = cases[i].name, .ranks = 4, .microbatches = 16};
        pp_async_rank rank = pp_async_rank_of(&request, 1);
        cr_assert(memcmp(&rank, &cases[i].rank, sizeof rank) == 0, "%s", cases[i].name);
    }
}

/* How many updates rank p had made before the time. */
static int64_t updates_before(const counted *c, int p, double time_s) {
    int64_t version = 0;
    while (version + 1 < MOST && c->update_s[p][version + 1] > 0 &&
           c->update_s[p][version + 1] < time_s)
        version++;
    return version;
}

Test(families_async, predictions_aim_at_the_backward) {
    for (int k = 1; k <= MOST_RANKS; k++)
        for (int i = 3; i < NAMES; i++) {
            counted *c = count_run(names[i], k, 8 * k, 1, 1, 0);
            for (int p = 0; p < k && !is(c, "pipemare"); p++)
                for (int m = 2 * k; m < 4 * k; m++) {
                    pp_async_use use = pp_async_use_of(&c->request, p, m);
                    pp_async_rank rank = pp_async_rank_of(&c->request, p);
                    int64_t aim = is(c, "spectrain") ? updates_before(c, p, c->last_start_s[m])
                                                     : c->at_backward[p][m];
                    cr_assert_eq(use.forward + rank.forward_ahead, aim, "%s K=%d p=%d m=%d",
                                 names[i], k, p, m);
                    cr_assert_eq(use.backward + rank.backward_ahead, aim, "%s", names[i]);
                }
            counted_free(c);
        }
}

/* ---- orders --------------------------------------------------------------------------------- */

static uint64_t hash_of(const pp_schedule_request *request) {
    pp_schedule *schedule;
    cr_assert_eq(pp_schedule_build(request, &schedule, NULL), PP_OK);
    uint64_t hash = pp_schedule_hash(schedule);
    pp_schedule_free(schedule);
    return hash;
}

Test(families_async, orders_are_1f1b_run_on) {
    for (int k = 1; k <= 6; k++)
        for (int m = 1; m <= 14; m++) {
            pp_schedule_request plain = {.name = "1f1b", .ranks = k, .microbatches = m};
            for (int i = 0; i < NAMES; i++) {
                pp_schedule_request request = {.name = names[i], .ranks = k, .microbatches = m};
                if (i == 2 || i > 4) continue;
                cr_assert_eq(hash_of(&request), hash_of(&plain), "%s", names[i]);
            }
            pp_schedule_request grouped = {
                .name = "pipedream-2bw", .ranks = k, .microbatches = m, .minibatches = 3};
            if (m < k) continue;
            plain.microbatches = 3 * m;
            cr_assert_eq(hash_of(&grouped), hash_of(&plain));
            grouped.minibatches = 0;
            plain.microbatches = 4 * m;
            cr_assert_eq(hash_of(&grouped), hash_of(&plain));
        }
}

Test(families_async, longer_warm_ups_pass_the_check_and_hold_more) {
    for (int i = 5; i < NAMES; i++)
        for (int k = 1; k <= 8; k++)
            for (int m = 1; m <= 20; m++) {
                pp_schedule *schedule = build(names[i], k, m);
                pp_check_report report = {0};
                cr_assert_eq(pp_schedule_check(schedule, true, &report, NULL), PP_OK);
                for (int p = 0; p < k; p++) {
                    int most = 2 * (k - 1 - p) + (i == 5 ? 2 : 1);
                    cr_assert_eq((int)report.peak_activations[p], m < most ? m : most);
                }
                pp_free(report.peak_activations);
                pp_schedule_free(schedule);
            }
}

Test(families_async, closed_forms_only_where_the_order_is_1f1b) {
    const pp_uniform cost = {1.7, 2.3, 0.9, 0}, slow = {1, 1, 1, 0.5};
    for (int i = 0; i < NAMES; i++)
        for (int k = 1; k <= 8; k++) {
            counted *c = count_run(names[i], k, 9, 1.7, 3.2, 0);
            const pp_schedule_family *family = pp_schedule_family_find(names[i]);
            double bubble = family->closed_form_bubble(&c->request, &cost);
            cr_assert_eq(isnan(bubble), i > 4, "%s", names[i]);
            if (i <= 4) cr_assert_leq(fabs(bubble - c->result->bubble_fraction), 1e-12);
            cr_assert(isnan(family->closed_form_bubble(&c->request, &slow)));
            counted_free(c);
        }
}

Test(families_async, refuse_what_they_cannot_be) {
    static const struct {
        pp_schedule_request request;
        const char *expected;
    } cases[] = {
        {{.name = "pipedream", .ranks = 2, .microbatches = 4, .virtual_stages = 2}, "one stage on"},
        {{.name = "pipedream", .ranks = 2, .microbatches = 4, .minibatches = 2}, "2bw has"},
        {{.name = "1f1b", .ranks = 2, .microbatches = 4, .minibatches = 2}, "2bw has"},
        {{.name = "pb", .ranks = 2, .microbatches = 4, .group = 2}, "interleaved has"},
        {{.name = "pipedream-2bw", .ranks = 4, .microbatches = 3}, "at least K = 4"},
        {{.name = "pipedream-2bw", .ranks = 1, .microbatches = 1, .minibatches = -1}, "1 or more"},
        {{.name = "pipedream-2bw", .ranks = 1, .microbatches = 1 << 24, .minibatches = 1 << 30},
         "microbatches in all"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_schedule *schedule;
        pp_error error = {0};
        cr_assert_eq(pp_schedule_build(&cases[i].request, &schedule, &error), PP_E_INPUT);
        cr_assert(strstr(error.message, cases[i].expected), "%s", error.message);
    }
}

/* ---- the steady state ----------------------------------------------------------------------- */

static double steady(const char *name, int ranks, int microbatches, double f, double b, double c) {
    counted *run = count_run(name, ranks, microbatches, f, b, c);
    double bubble = pp_steady_bubble_fraction(run->result);
    counted_free(run);
    return bubble;
}

Test(families_async, idle_nothing_once_full) {
    static const double times[][2] = {{1, 1}, {1, 2}, {1, 3.5}, {0.3, 0.4}, {3, 1}};
    for (int i = 0; i < NAMES; i++)
        for (int k = 1; k <= MOST_RANKS; k++)
            for (size_t t = 0; t < sizeof times / sizeof *times; t++) {
                double bubble = steady(names[i], k, 4 * k + 3, times[t][0], times[t][1], 0);
                cr_assert_leq(bubble, 1e-12, "%s K=%d F=%g B=%g: %g", names[i], k, times[t][0],
                              times[t][1], bubble);
            }
}

/* Rank 0 works 2 of 4: it is at B0, F2, B1, F3 for 4 of the 6 from 5 to 11. */
Test(families_async, a_slow_rank_keeps_the_others_waiting) {
    pp_schedule *schedule = build("pipedream", 2, 4);
    costs c = costs_uniform(2, 1, 0.5, 0.5, 0);
    c.stage[1] = (pp_stage_cost){.forward_s = 2, .input_s = 1, .weight_s = 1};
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *bare = simulate(&input);
    cr_assert(isnan(pp_steady_bubble_fraction(bare)), "spans were not kept");
    input.keep_spans = true;
    pp_sim_result *result = simulate(&input);
    cr_assert_leq(fabs(pp_steady_bubble_fraction(result) - 1.0 / 6), 1e-15);
    pp_sim_result_free(bare);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(families_async, there_is_a_steady_state_or_there_is_none) {
    cr_assert(isnan(steady("gpipe", 4, 16, 1, 2, 0)));
    cr_assert(isnan(steady("pipedream", 4, 4, 1, 2, 0)), "all under way before one is back");
    cr_assert_eq(steady("pipedream", 4, 5, 1, 2, 0), 0);
    cr_assert_gt(steady("pipedream", 4, 32, 1, 2, 0.1), 0, "transfers in every round trip");
    cr_assert_lt(steady("pb", 4, 32, 1, 2, 0.1), steady("pipedream", 4, 32, 1, 2, 0.1),
                 "more is under way");
}

/* ---- memory --------------------------------------------------------------------------------- */

Test(families_async, copies_count_as_memory) {
    for (int i = 0; i < NAMES; i++) {
        pp_schedule *schedule = build(names[i], 4, 8);
        pp_schedule_request request = {.name = names[i], .ranks = 4, .microbatches = 8};
        dice d = {77};
        costs c = costs_random(&d, 4, false);
        pp_sim_input input = input_of(schedule, &c);
        pp_sim_result *one = simulate(&input);
        int copies[4];
        for (int p = 0; p < 4; p++) copies[p] = pp_async_rank_of(&request, p).weight_copies;
        input.weight_copies = copies;
        input.keep_spans = true;
        pp_sim_result *all = simulate(&input);
        for (int p = 0; p < 4; p++) {
            int64_t more = (copies[p] - 1) * c.bytes[p].parameters;
            cr_assert_eq(one->rank[p].peak.weight_versions, 0);
            cr_assert_eq(all->rank[p].peak.weight_versions, more);
            cr_assert_eq(all->rank[p].peak.total, one->rank[p].peak.total + more);
        }
        int64_t highest = 0;
        for (size_t j = 0; j < all->trace->point_count; j++)
            if (all->trace->points[j].rank == 0 && all->trace->points[j].bytes > highest)
                highest = all->trace->points[j].bytes;
        cr_assert_eq(highest, all->rank[0].peak.total, "the curve has them too");
        pp_sim_result_free(one);
        pp_sim_result_free(all);
        pp_schedule_free(schedule);
        costs_free(&c);
    }
}

Test(families_async, impossible_copies_are_refused) {
    pp_schedule *schedule = build("pipedream", 2, 4);
    costs c = costs_uniform(2, 1, 1, 1, 0);
    pp_stage_bytes bytes[2] = {{.parameters = INT64_MAX / 2}, {.parameters = 1}};
    pp_sim_input input = input_of(schedule, &c);
    pp_sim_result *result;
    pp_error error = {0};
    input.bytes = bytes;
    input.weight_copies = (int[]){3, 1};
    cr_assert_eq(pp_simulate(&input, &result, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "2^63"), "%s", error.message);
    input.weight_copies = (int[]){1, 0};
    cr_assert_eq(pp_simulate(&input, &result, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "0 on rank 1"), "%s", error.message);
    pp_schedule_free(schedule);
    costs_free(&c);
}
