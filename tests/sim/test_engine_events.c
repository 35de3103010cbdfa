/* The general engine: equal to the fast one where both apply, and by hand where only it does. */
#include "fixtures.h"
#include "sim/event_queue_internal.h"
#include "sim/fair_share_internal.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(events);

/* ---- both engines -------------------------------------------------------------------------- */

static void compare_traces(const pp_trace *a, const pp_trace *b, uint64_t seed) {
    cr_assert_eq(a->span_count, b->span_count, "seed %lu", seed);
    for (size_t i = 0; i < a->span_count; i++) {
        const pp_span *x = &a->spans[i], *y = &b->spans[i];
        cr_assert(x->start_s == y->start_s && x->end_s == y->end_s && x->rank == y->rank &&
                      x->lane == y->lane && memcmp(&x->action, &y->action, sizeof x->action) == 0,
                  "seed %lu: span %zu, %.17g to %.17g and %.17g to %.17g", seed, i, x->start_s,
                  x->end_s, y->start_s, y->end_s);
    }
    cr_assert_eq(a->point_count, b->point_count);
}

static void compare_results(const pp_sim_result *a, const pp_sim_result *b, int ranks,
                            uint64_t seed) {
    cr_assert_eq(a->makespan_s, b->makespan_s, "seed %lu: %.17g, %.17g", seed, a->makespan_s,
                 b->makespan_s);
    cr_assert_eq(a->span_s, b->span_s, "seed %lu", seed);
    cr_assert_eq(a->bubble_fraction, b->bubble_fraction, "seed %lu", seed);
    for (int p = 0; p < ranks; p++) {
        const pp_sim_rank *x = &a->rank[p], *y = &b->rank[p];
        cr_assert(x->busy_s == y->busy_s && x->first_start_s == y->first_start_s &&
                      x->last_end_s == y->last_end_s && x->peak_time_s == y->peak_time_s &&
                      memcmp(&x->peak, &y->peak, sizeof x->peak) == 0,
                  "seed %lu rank %d", seed, p);
    }
    if (a->trace) compare_traces(a->trace, b->trace, seed);
}

typedef struct random_case {
    shape of;
    pp_schedule *schedule;
    costs c;
    pp_sim_input input;
} random_case;

static random_case case_make(dice *d) {
    random_case made = {.of = shape_random(d)};
    if (dice_chance(d, 3)) made.of.slices = 1 + dice_below(d, 3);
    made.of.early = dice_chance(d, 2);
    made.schedule = schedule_random(d, &made.of);
    made.c = costs_random(d, made.of.stages, dice_chance(d, 2));
    made.input = input_of(made.schedule, &made.c);
    made.input.keep_spans = dice_chance(d, 2);
    if (dice_chance(d, 4)) made.input.border = NULL;
    if (dice_chance(d, 3)) made.input.last_microbatch_scale = 0.1 + dice_time(d) / 8;
    if (dice_chance(d, 3)) made.input.overlap_factor = 0.5 + dice_time(d) / 10;
    if (dice_chance(d, 3)) made.input.launch_s = dice_time(d) / 8;
    if (dice_chance(d, 3)) made.input.jitter = dice_time(d) / 20;
    made.input.jitter_key = pp_random_key_make(d->state, "test", 0);
    if (made.of.updates) made.input.reduce_group = made.c.group;
    if (made.of.early) made.input.reduce_buckets = 1 + dice_below(d, 4);
    if (dice_chance(d, 3)) made.input.load_s = dice_time(d) / 4;
    made.input.prefetch = dice_chance(d, 2);
    return made;
}

static void case_free(random_case *r) {
    pp_schedule_free(r->schedule);
    costs_free(&r->c);
}

Test(events, both_engines_agree_to_the_last_bit) {
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        dice d = {seed};
        random_case r = case_make(&d);
        pp_sim_result *fast = simulate(&r.input);
        r.input.general = true;
        pp_sim_result *general = simulate(&r.input);
        compare_results(fast, general, r.of.ranks, seed);
        pp_sim_result_free(fast);
        pp_sim_result_free(general);
        case_free(&r);
    }
}

/* Each rank of a chain of two has a node of its own: each card has one user. */
Test(events, cards_that_nobody_shares_change_nothing) {
    for (uint64_t seed = 1; seed <= 200; seed++) {
        dice d = {seed};
        pp_schedule *schedule = build("1f1b", 2, 1 + dice_below(&d, 8));
        costs c = costs_random(&d, 2, true);
        pp_sim_input input = input_of(schedule, &c);
        pp_sim_result *plain = simulate(&input);
        input.cards = &(pp_sim_cards){.node = (int[]){4, 0}};
        pp_sim_result *alone = simulate(&input);
        input.general = true;
        pp_sim_result *general = simulate(&input);
        compare_results(plain, alone, 2, seed);
        compare_results(plain, general, 2, seed);
        pp_sim_result_free(plain);
        pp_sim_result_free(alone);
        pp_sim_result_free(general);
        pp_schedule_free(schedule);
        costs_free(&c);
    }
}

/* Sharing only takes time: with cards nothing ends before it does without; twice all costs is twice
 * the time; spans of a rank do not overlap. */
Test(events, sharing_only_takes_time) {
    int later = 0;
    for (uint64_t seed = 1; seed <= 500; seed++) {
        dice d = {seed};
        random_case r = case_make(&d);
        int node[16], copies[16];
        for (int p = 0; p < r.of.ranks; p++) {
            node[p] = dice_below(&d, 3);
            copies[p] = 1 + dice_below(&d, 2);
        }
        pp_sim_cards cards = {.node = node, .copies = dice_chance(&d, 3) ? copies : NULL};
        r.input.jitter = 0;
        pp_sim_result *plain = simulate(&r.input);
        r.input.cards = &cards;
        if (dice_chance(&d, 2)) r.input.transfer_slowdown = 1 + dice_time(&d) / 10;
        pp_sim_result *shared = simulate(&r.input);
        double slack = 1e-12 * (1 + plain->makespan_s);
        for (int p = 0; p < r.of.ranks; p++)
            cr_assert_geq(shared->rank[p].last_end_s, plain->rank[p].last_end_s - slack, "seed %lu",
                          seed);
        later += shared->makespan_s > plain->makespan_s + slack;
        cr_assert_leq(shared->lower_bound_s, shared->makespan_s);
        for (int s = 0; s < r.of.stages; s++) {
            double *stage = (double *)&r.c.stage[s], *border = (double *)&r.c.border[s];
            for (size_t i = 0; i < sizeof *r.c.stage / sizeof *stage; i++) stage[i] *= 2;
            for (size_t i = 0; i < sizeof *r.c.border / sizeof *border; i++) border[i] *= 2;
        }
        r.input.launch_s *= 2;
        r.input.load_s *= 2;
        pp_sim_result *twice = simulate(&r.input);
        cr_assert_eq(twice->makespan_s, 2 * shared->makespan_s, "seed %lu", seed);
        pp_sim_result_free(plain);
        pp_sim_result_free(shared);
        pp_sim_result_free(twice);
        case_free(&r);
    }
    cr_assert_gt(later, 50, "cases in which sharing matters: %d", later);
}

/* The path goes from the end to the beginning, over gaps only where data was on its way. */
Test(events, the_critical_path_covers_shared_links_too) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        dice d = {seed};
        random_case r = case_make(&d);
        int node[16];
        for (int p = 0; p < r.of.ranks; p++) node[p] = dice_below(&d, 3);
        r.input.cards = &(pp_sim_cards){.node = node};
        r.input.keep_spans = true;
        pp_sim_result *result = simulate(&r.input);
        size_t room = result->trace->span_count, *path = calloc(room + 1, sizeof *path);
        size_t length = pp_critical_path(&r.input, result, path, room);
        const pp_span *spans = result->trace->spans;
        cr_assert(length > 0 && spans[path[0]].end_s == result->makespan_s, "seed %lu", seed);
        for (size_t i = 0; i + 1 < length; i++) {
            const pp_span *now = &spans[path[i]], *before = &spans[path[i + 1]];
            cr_assert_eq(now->lane, PP_LANE_COMPUTE);
            double gap = now->start_s - before->end_s;
            cr_assert_geq(gap, 0, "seed %lu", seed);
            if (now->rank == before->rank && before != now - 1 && now->action.kind != PP_STEP)
                cr_assert_leq(gap, r.input.launch_s, "seed %lu", seed);
        }
        double first_s = spans[path[length - 1]].start_s;
        if (r.input.load_s == 0)
            cr_assert_eq(first_s, r.input.launch_s, "seed %lu", seed);
        else if (!r.input.prefetch) /* a pair may read two microbatches */
            cr_assert_leq(first_s, 2 * r.input.load_s * fmax(1, r.input.last_microbatch_scale) +
                                       r.input.launch_s);
        free(path);
        pp_sim_result_free(result);
        case_free(&r);
    }
}

/* ---- max-min fairness by hand ---------------------------------------------------------------- */

/* Pairs of ranks that each send one message: rank 2i on node from[i] computes for made[i], then
 * sends size[i] to rank 2i+1 on node to[i], where it arrives at arrives[i]. */
typedef struct contention {
    const char *name;
    int flows;
    int from[4], to[4];
    double made[4], size[4], arrives[4];
    int copies;
} contention;

static const contention contentions[] = {
    {"one flow alone", 1, {0}, {1}, {1}, {4}, {5}, 1},
    {"two flows on one outward card", 2, {0, 0}, {1, 2}, {1, 1}, {4, 4}, {9, 9}, 1},
    {"two flows on one inward card", 2, {1, 2}, {0, 0}, {1, 1}, {4, 4}, {9, 9}, 1},
    {"two flows between the same two nodes", 2, {0, 0}, {1, 1}, {1, 1}, {4, 4}, {9, 9}, 1},
    {"three flows with one bottleneck",
     3,
     {0, 0, 0},
     {1, 2, 3},
     {1, 1, 1},
     {3, 3, 3},
     {10, 10, 10},
     1},
    /* alone from 1 to 3 the first has sent 2 of 4; both then get half: the first is done at 7, when
     * the second has sent 2 of 4, and is alone to 9 */
    {"a flow that starts midway", 2, {0, 0}, {1, 2}, {1, 3}, {4, 4}, {7, 9}, 1},
    /* halves: the small one is done at 5; the large one has sent 2 of 6 and is alone to 9 */
    {"unequal sizes", 2, {0, 0}, {1, 2}, {1, 1}, {2, 6}, {5, 9}, 1},
    {"opposite directions, full duplex", 2, {0, 1}, {1, 0}, {1, 1}, {4, 4}, {5, 5}, 1},
    {"inside a node nothing is shared", 2, {0, 0}, {0, 1}, {1, 1}, {4, 4}, {5, 5}, 1},
    {"different nodes", 2, {0, 1}, {2, 3}, {1, 1}, {4, 4}, {5, 5}, 1},
    /* three leave node 0 and get a third each; the fourth comes to node 2 from elsewhere and gets
     * what the second leaves of the inward card, two thirds: 4 / (2/3) = 6. It ends first, and
     * changes nothing for the others, whose bottleneck is behind them: 4 / (1/3) = 12 */
    {"what a bottleneck elsewhere leaves",
     4,
     {0, 0, 0, 4},
     {1, 2, 3, 2},
     {1, 1, 1, 1},
     {4, 4, 4, 4},
     {13, 13, 13, 7},
     1},
    /* 0 to 1 and 0 to 2 and 3 to 2: all halves. The last, with size 1, ends at 3; the others go on
     * with halves, since they share the outward card: the first (2) ends at 5; the second has sent
     * 2 of 4 and is alone: 7 */
    {"a chain of shares", 3, {0, 0, 3}, {1, 2, 2}, {1, 1, 1}, {2, 4, 1}, {5, 7, 3}, 1},
    {"two replicas on one card", 1, {0}, {1}, {1}, {4}, {9}, 2},
    /* four transfers into one card: quarters */
    {"replicas count one by one", 2, {0, 1}, {2, 2}, {1, 1}, {3, 3}, {13, 13}, 2},
};

static void check_contention(const contention *k) {
    char rows[256] = "";
    int placement[8], node[8], copies[8];
    costs c = costs_uniform(2 * k->flows, 0, 0, 0, 0);
    for (int i = 0; i < k->flows; i++) {
        size_t length = strlen(rows);
        snprintf(rows + length, sizeof rows - length, "%s%dF0 %dB0\n%dF0 %dB0", i ? "\n" : "",
                 2 * i, 2 * i, 2 * i + 1, 2 * i + 1);
        c.stage[2 * i].forward_s = k->made[i];
        c.border[2 * i].forward_occupancy_s = k->size[i];
        node[2 * i] = k->from[i];
        node[2 * i + 1] = k->to[i];
        for (int s = 2 * i; s < 2 * i + 2; s++) placement[s] = s, copies[s] = k->copies;
    }
    pp_schedule *schedule = schedule_from(rows, placement, 2 * k->flows, 2 * k->flows);
    schedule->chains = PP_NEW(&schedule->arena, pp_chain, k->flows);
    schedule->chain_count = k->flows;
    for (int i = 0; i < k->flows; i++) schedule->chains[i] = (pp_chain){2 * i, 2 * i + 1};
    pp_sim_cards cards = {.node = node, .copies = copies};
    pp_sim_input input = input_of(schedule, &c);
    input.cards = &cards;
    for (int latency = 0; latency < 2; latency++) {
        for (int s = 0; s < 2 * k->flows; s++) c.border[s].latency_s = 0.5 * latency;
        pp_sim_result *result = simulate(&input);
        for (int i = 0; i < k->flows; i++)
            cr_assert_float_eq(result->rank[2 * i + 1].first_start_s, k->arrives[i] + 0.5 * latency,
                               1e-12, "%s: flow %d arrives at %g", k->name, i,
                               result->rank[2 * i + 1].first_start_s);
        pp_sim_result_free(result);
        input.blocking =
            true; /* the receiver then sends nothing back, and is held for its latency */
        result = simulate(&input);
        for (int i = 0; i < k->flows; i++)
            cr_assert_float_eq(result->rank[2 * i + 1].last_end_s,
                               k->arrives[i] + 2 * 0.5 * latency, 1e-12,
                               "%s, blocking: flow %d arrives at %g", k->name, i,
                               result->rank[2 * i + 1].last_end_s);
        pp_sim_result_free(result);
        input.blocking = false;
    }
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(events, shares_by_hand) {
    for (size_t i = 0; i < sizeof contentions / sizeof *contentions; i++)
        check_contention(&contentions[i]);
}

/* Under blocking too: nothing ends sooner than without cards, a card with one user changes nothing,
 * twice the costs is twice the time, and the path from the end to the beginning has no gap. */
Test(events, sharing_only_takes_time_when_ranks_block) {
    static const char *const names[] = {"1f1b", "gpipe", "zb-h1", "zbv"};
    int later = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        dice d = {seed};
        int ranks = 2 + dice_below(&d, 7), node[9], alone[9];
        pp_schedule *schedule = build(names[dice_below(&d, 4)], ranks, 1 + dice_below(&d, 8));
        costs c = costs_random(&d, schedule->stages, true);
        pp_sim_input input = input_of(schedule, &c);
        for (int p = 0; p < ranks; p++) node[p] = dice_below(&d, 3), alone[p] = p;
        input.blocking = true;
        pp_sim_result *plain = simulate(&input);
        input.cards = &(pp_sim_cards){.node = node};
        input.keep_spans = true;
        pp_sim_result *shared = simulate(&input);
        size_t path[2000], length = pp_critical_path(&input, shared, path, 2000);
        for (size_t i = 0; i + 1 < length; i++)
            cr_assert_eq(shared->trace->spans[path[i]].start_s,
                         shared->trace->spans[path[i + 1]].end_s, "seed %lu", seed);
        input.keep_spans = false;
        later += shared->makespan_s > plain->makespan_s;
        cr_assert_geq(shared->makespan_s, plain->makespan_s * (1 - 1e-12), "seed %lu", seed);
        cr_assert_leq(shared->lower_bound_s, shared->makespan_s);
        for (int s = 0; s < schedule->stages; s++) {
            double *stage = (double *)&c.stage[s], *border = (double *)&c.border[s];
            for (size_t i = 0; i < sizeof *c.stage / sizeof *stage; i++) stage[i] *= 2;
            for (size_t i = 0; i < sizeof *c.border / sizeof *border; i++) border[i] *= 2;
        }
        pp_sim_result *twice = simulate(&input);
        cr_assert_eq(twice->makespan_s, 2 * shared->makespan_s, "seed %lu", seed);
        input.cards = &(pp_sim_cards){.node = alone};
        pp_sim_result *single = simulate(&input);
        if (ranks == 2) cr_assert_eq(single->makespan_s, 2 * plain->makespan_s, "seed %lu", seed);
        pp_sim_result_free(plain), pp_sim_result_free(shared);
        pp_sim_result_free(twice), pp_sim_result_free(single);
        pp_schedule_free(schedule);
        costs_free(&c);
    }
    cr_assert_gt(later, 50, "cases in which sharing matters: %d", later);
}

/* A link of its own passes no card. */
Test(events, links_of_their_own_are_not_shared) {
    const bool own[4] = {false, true, true, true};
    pp_schedule *schedule = schedule_from("0F0\n1F0\n2F0\n3F0", (int[]){0, 1, 2, 3}, 4, 4);
    schedule->chains = PP_NEW(&schedule->arena, pp_chain, 2);
    schedule->chain_count = 2;
    schedule->chains[0] = (pp_chain){0, 1};
    schedule->chains[1] = (pp_chain){2, 3};
    costs c = costs_uniform(4, 1, 1, 1, 0);
    for (int s = 0; s < 4; s++) c.border[s].forward_occupancy_s = 4;
    pp_sim_input input = input_of(schedule, &c);
    input.cards = &(pp_sim_cards){.node = (int[]){0, 1, 0, 1}, .forward = own};
    pp_sim_result *result = simulate(&input);
    cr_assert_eq(result->rank[1].first_start_s, 5);
    cr_assert_eq(result->rank[3].first_start_s, 5);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* F takes 2 and its output 3 to send, during which F takes twice as long. The first runs alone, 0
 * to
 * 2. From 2 to 5 the second does 1.5, and the rest of it by 5.5; so does the third from there. */
Test(events, compute_is_slower_while_its_rank_transfers) {
    pp_schedule *schedule = schedule_from("0F0 0F1 0F2\n1F0 1F1 1F2", (int[]){0, 1}, 2, 2);
    costs c = costs_uniform(2, 2, 1, 1, 0);
    c.border[0].forward_occupancy_s = 3;
    pp_sim_input input = input_of(schedule, &c);
    input.transfer_slowdown = 2;
    pp_sim_result *result = simulate(&input);
    cr_assert_eq(result->rank[0].last_end_s, 9);
    cr_assert_eq(result->rank[0].busy_s, 9);
    /* 1F0 begins at 5, alone to 5.5, then at half speed to 8.5 (1.5 more): it ends there; the
     * second has come at 8.5 and runs to 9 alone, then slowly to 12, and ends there; 1F2 from 12 to
     * 14 */
    cr_assert_eq(result->rank[1].first_start_s, 5);
    cr_assert_eq(result->rank[1].last_end_s, 14);
    cr_assert_eq(result->rank[1].busy_s, 3.5 + 3.5 + 2);
    pp_sim_result_free(result);
    c.border[0].forward_occupancy_s = 0;
    result = simulate(&input);
    cr_assert_eq(result->makespan_s, 8);
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(events, what_makes_no_sense_is_refused) {
    pp_schedule *schedule = build("1f1b", 2, 2);
    costs c = costs_uniform(2, 1, 1, 1, 0);
    static const struct {
        double slowdown;
        int node, copies;
        pp_status status;
        const char *expected;
    } cases[] = {
        {0.5, 0, 1, PP_E_INPUT, "expected 1 or more"},
        {-1, 0, 1, PP_E_INPUT, "positive"},
        {NAN, 0, 1, PP_E_INPUT, "positive"},
        {0, -1, 1, PP_E_INPUT, "node -1 of rank 1"},
        {0, PP_RANKS_MAX, 1, PP_E_INPUT, "node 65535"},
        {0, 0, 0, PP_E_INPUT, "0 copies of rank 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int node[] = {0, cases[i].node}, copies[] = {1, cases[i].copies};
        pp_sim_cards cards = {.node = node, .copies = copies};
        pp_sim_input input = input_of(schedule, &c);
        input.cards = &cards;
        input.transfer_slowdown = cases[i].slowdown;
        pp_sim_result *result;
        pp_error error = {0};
        cr_assert_eq(pp_simulate(&input, &result, &error), cases[i].status, "case %zu", i);
        cr_assert(strstr(error.message, cases[i].expected), "%s", error.message);
    }
    pp_schedule_free(schedule);
    costs_free(&c);
}

Test(events, a_hang_is_told_in_words) {
    pp_schedule *schedule = schedule_from("0F0 0B0 0F1 0B1\n1F1 1B1 1F0 1B0", (int[]){0, 1}, 2, 2);
    costs c = costs_uniform(2, 1, 1, 1, 0);
    pp_sim_input input = input_of(schedule, &c);
    input.general = true;
    pp_sim_result *result;
    pp_error error = {0};
    cr_assert_eq(pp_simulate(&input, &result, &error), PP_E_DEADLOCK);
    cr_assert(strstr(error.message, "waits"), "%s", error.message);
    pp_schedule_free(schedule);
    costs_free(&c);
}

/* ---- the network alone ----------------------------------------------------------------------- */

/* By definition: no card is overfull, and each flow has rate 1 or passes a full card on which
 * nobody has more. */
static void check_fair(const pp_network *network, const bool *there, int flows, int cards,
                       uint64_t seed) {
    double load[16] = {0}, most[16] = {0};
    for (int f = 0; f < flows; f++)
        for (int side = 0; there[f] && side < 2; side++) {
            const pp_flow *flow = &network->flows[f];
            load[flow->card[side]] += flow->copies * flow->rate;
            most[flow->card[side]] = fmax(most[flow->card[side]], flow->rate);
        }
    for (int card = 0; card < cards; card++) cr_assert_leq(load[card], 1 + 1e-9, "seed %lu", seed);
    for (int f = 0; f < flows; f++) {
        const pp_flow *flow = &network->flows[f];
        bool fine = !there[f] || flow->rate == 1;
        for (int side = 0; side < 2; side++)
            if (load[flow->card[side]] > 1 - 1e-9 && flow->rate >= most[flow->card[side]] - 1e-9)
                fine = true;
        cr_assert(fine, "seed %lu: flow %d could have more than %g", seed, f, flow->rate);
    }
}

Test(events, rates_are_max_min_fair) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        enum { FLOWS = 12, CARDS = 10 };
        dice d = {seed};
        pp_arena arena;
        pp_network network;
        bool there[FLOWS] = {false};
        pp_arena_init(&arena);
        pp_network_init(&network, CARDS, FLOWS, &arena);
        for (int f = 0; f < FLOWS; f++) {
            int a = dice_below(&d, CARDS / 2), b = dice_below(&d, CARDS / 2);
            network.flows[f].card[0] = 2 * a;
            network.flows[f].card[1] = 2 * b + 1;
            network.flows[f].copies = 1 + dice_below(&d, 3) / 2;
        }
        for (int turn = 0; turn < 60; turn++) {
            int f = dice_below(&d, FLOWS);
            there[f] = !there[f];
            (there[f] ? pp_network_start : pp_network_stop)(&network, f);
            check_fair(&network, there, FLOWS, CARDS, seed);
        }
        pp_arena_deinit(&arena);
    }
}

Test(events, the_queue_is_in_order_of_time_then_actor) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        enum { ACTORS = 40 };
        dice d = {seed};
        pp_arena arena;
        pp_event_queue queue;
        double time[ACTORS];
        pp_arena_init(&arena);
        pp_events_init(&queue, ACTORS, &arena);
        for (int i = 0; i < ACTORS; i++) time[i] = NAN;
        for (int turn = 0; turn < 400; turn++) {
            if (!dice_chance(&d, 3)) {
                int actor = dice_below(&d, ACTORS);
                time[actor] = dice_below(&d, 20);
                pp_events_set(&queue, actor, time[actor]);
                continue;
            }
            int first = -1;
            for (int i = 0; i < ACTORS; i++)
                if (!isnan(time[i]) && (first < 0 || time[i] < time[first])) first = i;
            cr_assert_eq(pp_events_take(&queue), first, "seed %lu", seed);
            if (first >= 0) time[first] = NAN;
        }
        pp_arena_deinit(&arena);
    }
}
