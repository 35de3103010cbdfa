/* The notation of actions: what is written is read back, and nothing else is. */
#include "core/schedule_internal.h"
#include "schedule_samples.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <string.h>

COUNTED_SUITE(notation);

static bool same(pp_action a, pp_action b) {
    return a.kind == b.kind && a.overlapped == b.overlapped && a.slice == b.slice &&
           a.stage == b.stage && a.microbatch == b.microbatch;
}

Test(notation, an_action_is_eight_bytes) {
    cr_assert_eq(sizeof(pp_action), 8);
}

Test(notation, every_action_reads_back_as_written) {
    static const int stages[] = {0, 1, 9, 10, 999, 65534};
    static const uint32_t microbatches[] = {0, 7, 10, 4095, PP_MICROBATCHES_MAX - 1};
    static const uint8_t slices[] = {0, 1, 10, 255};
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++) {
        for (size_t s = 0; s < 6; s++) {
            for (size_t m = 0; m < 5 * 4; m++) {
                char text[32];
                pp_action action = sample_action((pp_action_kind)kind, stages[s], 0), back;
                bool numbered = kind <= PP_RECV_B;
                action.microbatch = numbered ? microbatches[m / 4] : PP_NO_MICROBATCH;
                action.slice = numbered ? slices[m % 4] : 0;
                pp_action_text(action, text);
                cr_assert(pp_action_parse(text, strlen(text), &back), "%s", text);
                cr_assert(same(action, back), "%s", text);
            }
        }
    }
}

Test(notation, known_texts) {
    char text[32];
    cr_expect_str_eq(pp_action_text(sample_action(PP_FORWARD, 0, 3), text), "0F3");
    cr_expect_str_eq(pp_action_text(sample_action(PP_SEND_F, 0, 3), text), "0SEND_F3");
    cr_expect_str_eq(pp_action_text(sample_action(PP_RECV_B, 12, 0), text), "12RECV_B0");
    pp_action slice = sample_action(PP_FORWARD, 0, 3);
    slice.slice = 1;
    cr_expect_str_eq(pp_action_text(slice, text), "0F3.1");
    pp_action reduce = sample_action(PP_REDUCE_GRAD, 2, 0);
    reduce.microbatch = PP_NO_MICROBATCH;
    cr_expect_str_eq(pp_action_text(reduce, text), "2REDUCE_GRAD");
    cr_expect_str_eq(pp_action_kind_name(PP_UNSHARD), "UNSHARD");
    pp_action action;
    cr_expect(pp_action_parse("00F03", 5, &action) && action.stage == 0 && action.microbatch == 3);
    cr_expect(pp_action_parse("0F3.0", 5, &action) && action.slice == 0);
}

Test(notation, what_is_not_an_action_is_refused) {
    static const char *const wrong[] = {"",
                                        "F",
                                        "0",
                                        "F0",
                                        "0F",
                                        "0X3",
                                        "0f3",
                                        "-1F0",
                                        "0F-1",
                                        "0F3 ",
                                        " 0F3",
                                        "0F3.",
                                        "0F3.256",
                                        "0F3.-1",
                                        "0F3.1.",
                                        "0F3.1.2",
                                        "0UNSHARD3",
                                        "0STEP0",
                                        "65535F0",
                                        "0F16777216",
                                        "0F99999999999999999",
                                        "0FF3",
                                        "0SENDF3",
                                        "0SEND_F",
                                        "0F3;1B0",
                                        "(0F3)",
                                        "0F 3",
                                        "0OVERLAP_F_B",
                                        "99999999999999999999F0",
                                        "0_3",
                                        "0B3x",
                                        "0F3,1F3",
                                        "٣F3",
                                        "0.5F1"};
    pp_action action;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_expect_not(pp_action_parse(wrong[i], strlen(wrong[i]), &action), "'%s'", wrong[i]);
    cr_expect_not(pp_action_parse("0F3\0", 4, &action), "a NUL is not part of an action");
    cr_expect(pp_action_parse("0F3\0", 3, &action));
}

Test(notation, cells_with_pairs) {
    static const struct {
        const char *cell;
        int count; /* 0: refused */
    } cases[] = {{"(0F3;1B0)OVERLAP_F_B", 2},
                 {"(0F3;1B0)", 2},
                 {"( 0F3 ; 1I0 )OVERLAP_F_B", 2},
                 {"0F3", 1},
                 {"(0F3)OVERLAP_F_B", 0},
                 {"(0F3;1B0;2F1)OVERLAP_F_B", 0},
                 {"(0F3;1B0", 0},
                 {"(0F3;1B0)OVERLAP", 0},
                 {"(0F3;1SEND_B0)OVERLAP_F_B", 0},
                 {"(0F3;;1B0)OVERLAP_F_B", 0},
                 {"()", 0},
                 {"(", 0},
                 {"(0F3,1B0)OVERLAP_F_B", 0},
                 {"((0F3;1B0))", 0},
                 {"(0F3;1B0)OVERLAP_F_B ", 0},
                 {"(0UNSHARD;1B0)", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_action actions[2];
        int count;
        const char *flaw = pp_cell_parse(cases[i].cell, strlen(cases[i].cell), actions, &count);
        cr_expect_eq(flaw == NULL, cases[i].count > 0, "'%s': %s", cases[i].cell, flaw);
        if (flaw) continue;
        cr_expect_eq(count, cases[i].count);
        cr_expect_eq(actions[0].overlapped, count == 2, "'%s'", cases[i].cell);
        if (count == 2) cr_expect_eq(actions[1].overlapped, 0);
    }
}

Test(notation, recompute_policies) {
    pp_recompute policy;
    char text[PP_RECOMPUTE_LENGTH];
    int last = PP_RECOMPUTE_EVERY + PP_RECOMPUTE_EVERY_MAX;
    for (int i = 0; i <= last; i++) {
        if (i == PP_RECOMPUTE_MIXED || i == PP_RECOMPUTE_EVERY) continue; /* no policies */
        cr_assert(pp_recompute_from_name(pp_recompute_text(i, text), &policy), "%d", i);
        cr_assert_eq(policy, i);
    }
    cr_expect_str_eq(pp_recompute_text(PP_RECOMPUTE_EVERY + 12, text), "every:12");
    cr_expect_str_eq(pp_recompute_text(PP_RECOMPUTE_MIXED, text), "mixed");
    cr_expect_str_eq(pp_recompute_names, "none, full, except-last, attention, every:N");
    static const char *const wrong[] = {"some",
                                        "",
                                        "Full",
                                        "every",
                                        "every:",
                                        "every:0",
                                        "every:-1",
                                        "every:x",
                                        "every:02",
                                        "every:2 ",
                                        "every:1x",
                                        "every:65536",
                                        "every:99999999999",
                                        "mixed",
                                        "every: 1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_expect_not(pp_recompute_from_name(wrong[i], &policy), "'%s'", wrong[i]);
    for (int n = 1; n < 4; n++) {
        cr_expect_not(pp_recompute_applies(PP_RECOMPUTE_EVERY + n, 0, 4));
        cr_expect(pp_recompute_is_inside(PP_RECOMPUTE_EVERY + n));
        cr_expect_eq(pp_recompute_group(PP_RECOMPUTE_EVERY + n), n);
    }
    for (int i = 0; i <= PP_RECOMPUTE_EVERY; i++) {
        cr_expect_eq(pp_recompute_is_inside(i), i == PP_RECOMPUTE_ATTENTION);
        cr_expect_eq(pp_recompute_group(i), 0);
    }
    for (int m = 0; m < 4; m++) {
        cr_expect_not(pp_recompute_applies(PP_RECOMPUTE_NONE, m, 4));
        cr_expect(pp_recompute_applies(PP_RECOMPUTE_FULL, m, 4));
        cr_expect_eq(pp_recompute_applies(PP_RECOMPUTE_EXCEPT_LAST, m, 4), m < 3);
    }
}
