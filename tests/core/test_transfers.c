/* Transfers that are derived from compute orders: complete, checked, close to what makes and needs
 * them, and in one group where 1F1B's cross. */
#include "schedule_samples.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

COUNTED_SUITE(transfers);

static pp_schedule *derive(const pp_schedule *compute) {
    pp_schedule *lowered;
    pp_error error;
    cr_assert_eq(pp_schedule_add_transfers(compute, &lowered, &error), PP_OK, "%s", error.message);
    return lowered;
}

static void expect_csv(const pp_schedule *schedule, const char *wanted) {
    pp_text text = {0};
    pp_schedule_write_csv(schedule, &text);
    cr_expect_str_eq(text.bytes, wanted, "%s\nwanted\n%s", text.bytes, wanted);
    pp_text_deinit(&text);
}

Test(transfers, known_results) {
    static const struct {
        const char *compute, *lowered;
    } cases[] = {
        {"0F0,0B0\n", "0F0,0B0\n"},
        {"0F0,0B0\n1F0,1B0\n", "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n"},
        /* 1F1B: the crossing pair is one group on both sides */
        {"0F0,0F1,0B0,0F2,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n",
         "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0F2,0SEND_F2,0RECV_B1,0B1,0RECV_B2,0B2\n"
         "1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1RECV_F2,1SEND_B1,1F2,1B2,1SEND_B2\n"},
        /* no transfer inside a rank */
        {"# placement: 0,1,1,0\n0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n",
         "# placement: 0,1,1,0\n"
         "0F0,0SEND_F0,3RECV_F0,3F0,3B0,3SEND_B0,0RECV_B0,0B0\n"
         "1RECV_F0,1F0,2F0,2SEND_F0,2RECV_B0,2B0,1B0,1SEND_B0\n"},
        /* chains do not meet */
        {"# chains: 0-0,1-1\n0F0,0B0\n1F0,1B0\n", "# chains: 0-0,1-1\n0F0,0B0\n1F0,1B0\n"},
        /* the input gradient is sent behind I, and W does not wait */
        {"0F0,0I0,0W0\n1F0,1I0,1W0\n",
         "0F0,0SEND_F0,0RECV_B0,0I0,0W0\n1RECV_F0,1F0,1I0,1SEND_B0,1W0\n"},
        /* both results of a pair leave behind the pair */
        {"# placement: 0,1\n0F0,(0F1;0B0)OVERLAP_F_B,0B1,0STEP\n1F0,1B0,1F1,1B1,1STEP\n",
         "0F0,0SEND_F0,0RECV_B0,(0F1;0B0)OVERLAP_F_B,0SEND_F1,0RECV_B1,0B1,0STEP\n"
         "1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1,1STEP\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_schedule *compute = sample_read(cases[i].compute), *lowered = derive(compute);
        expect_csv(lowered, cases[i].lowered);
        pp_schedule_free(lowered);
        pp_schedule_free(compute);
    }
    cr_expect_eq(pp_live_bytes(), 0);
}

Test(transfers, what_cannot_be_lowered_is_refused) {
    static const struct {
        const char *csv;
        pp_status status;
        const char *words;
    } cases[] = {
        {"0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", PP_E_INPUT, "has some already"},
        {"0F0,0B0,0F1\n1F0,1B0\n", PP_E_INPUT, "lacks 0B1"},
        {"0B0,0F0\n", PP_E_DEADLOCK, "waits in 0B0"},
        {"0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n", PP_E_DEADLOCK, "for rank 1 to reach 1B0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_schedule *compute = sample_read(cases[i].csv), *lowered;
        pp_error error;
        cr_expect_eq(pp_schedule_add_transfers(compute, &lowered, &error), cases[i].status);
        cr_expect_null(lowered);
        cr_expect(strstr(error.message, cases[i].words), "%s", error.message);
        pp_schedule_free(compute);
    }
    cr_expect_eq(pp_live_bytes(), 0);
}

/* ---- properties ---------------------------------------------------------------------------- */

static bool between_are_transfers(const pp_schedule *schedule, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        if (!pp_action_is_transfer(schedule->actions[i])) return false;
    return true;
}

static size_t find(const pp_schedule *schedule, pp_action_kind kind, pp_action like) {
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++) {
        pp_action a = schedule->actions[i];
        if (a.kind == kind && a.stage == like.stage && a.microbatch == like.microbatch) return i;
    }
    return SIZE_MAX;
}

/* Each SEND stands behind its producer with only transfers between (and its partner in a pair),
 * each RECV before its consumer. */
static void expect_near(const pp_schedule *schedule, uint64_t seed) {
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++) {
        pp_action a = schedule->actions[i];
        if (!pp_action_is_transfer(a)) continue;
        bool forward = a.kind == PP_SEND_F || a.kind == PP_RECV_F;
        size_t compute = find(schedule, forward ? PP_FORWARD : PP_BACKWARD, a);
        if (compute == SIZE_MAX) compute = find(schedule, PP_INPUT, a);
        if (a.kind == PP_SEND_F || a.kind == PP_SEND_B) {
            size_t from = compute + (schedule->actions[compute].overlapped ? 2 : 1);
            cr_assert(compute < i && between_are_transfers(schedule, from, i), "seed %llu",
                      (unsigned long long)seed);
        } else {
            cr_assert_lt(i, compute, "seed %llu", (unsigned long long)seed);
        }
    }
}

static void expect_sound(const pp_schedule *compute, uint64_t seed) {
    pp_error error = {0};
    pp_schedule *lowered = derive(compute), *back;
    for (int blocking = 0; blocking < 2; blocking++)
        cr_assert_eq(pp_schedule_check(lowered, blocking, NULL, &error), PP_OK, "seed %llu: %s",
                     (unsigned long long)seed, error.message);
    expect_near(lowered, seed);
    cr_assert_eq(pp_schedule_drop_transfers(lowered, &back, &error), PP_OK);
    cr_assert_eq(pp_schedule_hash(back), pp_schedule_hash(compute));
    cr_assert_not(back->has_transfers);
    pp_schedule_free(back);
    pp_schedule_free(lowered);
}

Test(transfers, random_orders_lower_to_checked_schedules) {
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        sample order = sample_random(seed, 6, 6);
        pp_schedule *compute = sample_build(&order);
        expect_sound(compute, seed);
        pp_schedule_free(compute);
        sample_free(&order);
    }
    cr_expect_eq(pp_live_bytes(), 0);
}

Test(transfers, named_orders_lower_to_checked_schedules) {
    for (int k = 1; k <= 9; k++) {
        for (int m = 1; m <= 9; m++) {
            sample orders[] = {sample_1f1b(k, m), sample_gpipe(k, m),
                               sample_interleaved(k, k * (1 + m % 3), 1 + m % 4)};
            for (int i = 0; i < 3; i++) {
                pp_schedule *compute = sample_build(&orders[i]);
                expect_sound(compute, (uint64_t)(100 * k + m));
                pp_schedule_free(compute);
                sample_free(&orders[i]);
            }
        }
    }
}

/* In 1F1B's steady state every SEND_F stands in one group with the RECV_B that crosses it. */
Test(transfers, crossing_pairs_of_1f1b_are_one_group) {
    for (int k = 2; k <= 8; k++) {
        sample order = sample_1f1b(k, 3 * k);
        pp_schedule *compute = sample_build(&order), *lowered = derive(compute);
        for (int p = 0; p + 1 < k; p++) {
            for (int m = k - 1 - p; m < 3 * k; m++) {
                size_t send = find(lowered, PP_SEND_F, sample_action(PP_SEND_F, p, m));
                size_t receive =
                    find(lowered, PP_RECV_B, sample_action(PP_RECV_B, p, m - (k - 1 - p)));
                size_t from = send < receive ? send : receive;
                size_t to = send < receive ? receive : send;
                cr_expect(between_are_transfers(lowered, from, to), "K=%d p=%d m=%d", k, p, m);
            }
        }
        pp_schedule_free(lowered);
        pp_schedule_free(compute);
        sample_free(&order);
    }
}

/* ---- published orders ---------------------------------------------------------------------- */

static void write_order(const json_t *row, bool two_chains, pp_text *csv) {
    size_t rank, stage, cell;
    json_t *placement = json_object_get(row, "stage_to_rank"), *value, *cells;
    pp_text_string(csv, "# placement: ");
    json_array_foreach(placement, stage, value)
        pp_text_printf(csv, "%s%lld", stage ? "," : "", (long long)json_integer_value(value));
    size_t stages = json_array_size(placement);
    if (two_chains)
        pp_text_printf(csv, "\n# chains: 0-%zu,%zu-%zu", stages / 2 - 1, stages / 2, stages - 1);
    json_array_foreach(json_object_get(row, "order"), rank, cells) {
        pp_text_string(csv, "\n");
        json_array_foreach(cells, cell, value) pp_text_printf(
            csv, "%s%s", cell ? "," : "", json_is_string(value) ? json_string_value(value) : "");
    }
    pp_text_string(csv, "\n");
}

static int lower_published(const char *name, bool two_chains) {
    char file[64];
    snprintf(file, sizeof file, "schedules/%s.json", name);
    json_t *document = json_load_file(sample_data_path(file), 0, NULL), *row;
    cr_assert_not_null(document, "%s", file);
    size_t index;
    int count = 0;
    json_array_foreach(json_object_get(document, "rows"), index, row) {
        if (!json_object_get(row, "order")) continue;
        pp_text csv = {0};
        write_order(row, two_chains, &csv);
        pp_schedule *compute = sample_read(csv.bytes);
        cr_expect_eq(compute->ranks, json_integer_value(json_object_get(row, "K")));
        pp_error error;
        cr_expect_eq(pp_schedule_check(compute, false, NULL, &error), PP_OK, "%s %zu: %s", name,
                     index, error.message);
        expect_sound(compute, index);
        pp_schedule_free(compute);
        pp_text_deinit(&csv);
        count++;
    }
    json_decref(document);
    return count;
}

Test(transfers, published_orders_lower_to_checked_schedules) {
    static const char *const names[] = {"dualpipe-dualpipev",    "megatron",
                                        "pytorch-1f1b",          "pytorch-dualpipev",
                                        "pytorch-gpipe",         "pytorch-interleaved1f1b",
                                        "pytorch-loopedbfs",     "pytorch-interleavedzerobubble",
                                        "pytorch-zbvzerobubble", "dualpipe-dualpipe"};
    int count = 0;
    if (!sample_data_path("schedules/megatron.json"))
        cr_skip("published orders not found: set PPSIM_TEST_DATA");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        count += lower_published(names[i], strcmp(names[i], "dualpipe-dualpipe") == 0);
    cr_expect_gt(count, 100, "%d", count);
}
