#include "processes_cases.h"

#include "executor/processes_internal.h"
#include "members.h"
#include "memory_wire.h"
#include "run_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- bits ---------------------------------------------------------------------------------- */

static bool explain(char message[512], const fixture_request *request, int processes) {
    char why[300];
    snprintf(why, sizeof why, "%.299s", message);
    return fixture_failed(message, "%d processes, K=%d V=%d dp=%d order %d: %s", processes,
                          request->ranks, request->virtual_stages, request->dp, (int)request->order,
                          why);
}

static bool same_in(int processes, const fixture_request *request, const pp_run_options *options,
                    const fixture_record *reference, uint64_t seed, char message[512]) {
    member members[MEMBERS_MOST] = {0};
    bool fine = true;
    memory_wire_open(processes, 1e-4, seed);
    for (int q = 0; q < processes; q++) {
        members[q] = (member){.request = request, .options = *options, .record_all = true};
        members[q].options.steps = reference->steps;
    }
    members_run(members, processes);
    for (int q = 0; fine && q < processes; q++)
        if (!members[q].fine)
            fine = fixture_failed(message, "process %d: %.300s", q, members[q].message);
    if (fine) {
        members_merge(members, processes);
        fine = fixture_same(&members[0].record, reference, message);
    }
    members_free(members, processes);
    if (memory_wire_close() != processes && fine)
        fine = fixture_failed(message, "they left disorderly");
    return fine || explain(message, request, processes);
}

/* The request in one process, then in 2 … as many as it has workers. */
static bool same_in_all(const fixture_request *request, uint64_t seed, char message[512]) {
    pp_run_options options = {.seed = 5, .poison = true, .steps = 3, .clip = seed % 2 ? 0.05 : 0};
    fixture made;
    fixture_record reference = {0};
    bool fine = fixture_make(request, &made, message) &&
                fixture_run(&made, options.steps, &options, &reference, message);
    fixture_free(&made);
    int workers = request->ranks * (request->dp ? request->dp : 1);
    for (int processes = 2; fine && processes <= workers && processes <= MEMBERS_MOST; processes++)
        fine = same_in(processes, request, &options, &reference, seed, message);
    fixture_record_free(&reference);
    return fine;
}

static bool spread_same_bits(char message[512]) {
    static const char *const models[] = {fixture_gpt, fixture_ties, fixture_graph, fixture_bert};
    for (int i = 0; i < 12; i++) {
        fixture_request request = {.model = models[i % 4],
                                   .ranks = 2 + i % 3,
                                   .microbatches = 4,
                                   .microbatch_size = 2,
                                   .global_batch = 7,
                                   .dtype = i % 5 == 4 ? PP_FP64 : PP_FP32,
                                   .optimizer = i % 2 ? PP_SGD : PP_ADAMW,
                                   .order = (fixture_order)(i % 3),
                                   .recompute = fixture_policy(i)};
        if (!same_in_all(&request, (uint64_t)i, message)) return false;
    }
    return true;
}

/* Gradients cross processes as replicas, as ties, and as both; slices are of unequal length. */
static bool spread_replicas(char message[512]) {
    static const struct {
        const char *model;
        int ranks, dp;
    } shapes[] = {{fixture_gpt, 1, 2},  {fixture_gpt, 2, 2},  {fixture_ties, 2, 3},
                  {fixture_mlp, 1, 4},  {fixture_bert, 3, 2}, {fixture_ties, 3, 1},
                  {fixture_graph, 2, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        fixture_request request = {.model = shapes[i].model,
                                   .ranks = shapes[i].ranks,
                                   .microbatches = 3,
                                   .microbatch_size = 2,
                                   .dp = shapes[i].dp,
                                   .dtype = PP_FP32,
                                   .order = ORDER_1F1B};
        if (!same_in_all(&request, i, message)) return false;
    }
    return true;
}

static bool spread_virtual(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 3,
                               .virtual_stages = 2,
                               .microbatches = 3,
                               .microbatch_size = 2,
                               .dtype = PP_FP32,
                               .order = ORDER_LOOPS};
    return same_in_all(&request, 1, message);
}

/* ---- failures ------------------------------------------------------------------------------ */

static const fixture_request three = {.model = fixture_gpt,
                                      .ranks = 3,
                                      .microbatches = 2,
                                      .microbatch_size = 1,
                                      .dtype = PP_FP32,
                                      .order = ORDER_SPLIT};

typedef struct fault {
    int rank, left; /* fails at the left-th action of the rank */
    int signal;     /* asks for a stop instead */
    int cut;        /* cuts this process off instead; -1 */
    double sleep_s;
} fault;

static pp_status misbehave(void *context, int rank, int replica, pp_action action,
                           pp_error *error) {
    fault *planned = context;
    (void)replica, (void)action;
    if (rank != planned->rank || --planned->left != 0) return PP_OK;
    if (planned->signal) {
        pp_stop_request(planned->signal);
        return PP_OK;
    }
    if (planned->cut >= 0) {
        memory_wire_cut(planned->cut);
        return PP_OK;
    }
    struct timespec length = {.tv_sec = (time_t)planned->sleep_s,
                              .tv_nsec = (long)(fmod(planned->sleep_s, 1) * 1e9)};
    nanosleep(&length, NULL);
    if (planned->sleep_s > 0) return PP_OK;
    return pp_fail(error, PP_E_FAILED, NULL, "the device is on fire");
}

/* Runs `three` with a fault. Members have their results; returns how many left in order. */
static int run_with(fault *planned, member *members, int processes, int steps, double timeout_s,
                    uint64_t seed) {
    memory_wire_open(processes, 1e-4, seed);
    for (int q = 0; q < processes; q++)
        members[q] = (member){.request = &three,
                              .timeout_s = timeout_s,
                              .options = {.steps = steps,
                                          .timeout_s = timeout_s,
                                          .before_action = misbehave,
                                          .context = planned}};
    members_run(members, processes);
    return memory_wire_close();
}

/* The action fails in one process: all end with its words. */
static bool spread_failures(char message[512]) {
    for (int i = 0; i < 16; i++) {
        fault planned = {.rank = i % 3, .left = 1 + i, .cut = -1};
        member members[MEMBERS_MOST];
        char headline[32];
        int processes = 2 + i % 2;
        snprintf(headline, sizeof headline, "rank %d at ", planned.rank);
        int orderly = run_with(&planned, members, processes, 3, 20, (uint64_t)i);
        bool fine = orderly == processes;
        if (!fine) fixture_failed(message, "action %d: %d left in order", i, orderly);
        for (int q = 0; fine && q < processes; q++)
            if (members[q].status != PP_E_FAILED || members[q].result ||
                strncmp(members[q].error.message, headline, strlen(headline)) != 0 ||
                !strstr(members[q].error.message, "the device is on fire"))
                fine = fixture_failed(message, "action %d, process %d: status %d, %.200s", i, q,
                                      (int)members[q].status, members[q].error.message);
        members_free(members, processes);
        if (!fine) return false;
    }
    return true;
}

/* Steps that are done are kept where the results are; everybody hears of the signal. */
static bool spread_stops(char message[512]) {
    fault planned = {.rank = 2, .left = 3 * 8 + 2, .cut = -1, .signal = 15};
    member members[MEMBERS_MOST];
    int orderly = run_with(&planned, members, 3, 1000, 20, 1);
    pp_stop_request(0);
    bool fine = orderly == 3;
    for (int q = 0; q < 3; q++) fine &= members[q].status == PP_E_INTERRUPTED && members[q].result;
    if (!fine)
        fixture_failed(message, "%d left in order, status %d: %.200s", orderly,
                       (int)members[0].status, members[0].error.message);
    else if (members[0].result->step_count < 1 || !isfinite(members[0].result->steps[0].loss))
        fine = fixture_failed(message, "%d steps", members[0].result->step_count);
    members_free(members, 3);
    return fine;
}

/* A process that nothing more is heard from: the others end, and so does it. */
static bool spread_silence(char message[512]) {
    for (int cut = 0; cut < 3; cut++) {
        fault planned = {.rank = 1, .left = 12, .cut = cut};
        member members[MEMBERS_MOST];
        (void)run_with(&planned, members, 3, 100000, 0.4, (uint64_t)cut);
        bool fine = true;
        char silent[32];
        snprintf(silent, sizeof silent, "process %d on ", cut);
        for (int q = 0; fine && q < 3; q++) {
            bool told = strstr(members[q].error.message, "no sign of life") ||
                        strstr(members[q].error.message, "nothing came") ||
                        strstr(members[q].error.message, "did not");
            if (members[q].status != PP_E_FAILED || !told)
                fine = fixture_failed(message, "cut %d, process %d: status %d, %.200s", cut, q,
                                      (int)members[q].status, members[q].error.message);
        }
        int teller = cut == 0 ? 1 : 0;
        if (fine && !strstr(members[teller].error.message, silent))
            fine = fixture_failed(message, "cut %d: process %d says %.200s", cut, teller,
                                  members[teller].error.message);
        members_free(members, 3);
        if (!fine) return false;
    }
    return true;
}

/* A rank that stands still, in a process that lives: its peers lose patience, and say who it is. */
static bool spread_hangs(char message[512]) {
    fault planned = {.rank = 0, .left = 3, .cut = -1, .sleep_s = 1.2};
    member members[MEMBERS_MOST];
    int orderly = run_with(&planned, members, 3, 5, 0.3, 1);
    bool fine = true;
    for (int q = 0; fine && q < 3; q++)
        if (members[q].status != PP_E_FAILED ||
            (!strstr(members[q].error.message, "is in process") &&
             !strstr(members[q].error.message, "did not")))
            fine = fixture_failed(message, "process %d: status %d, %.200s (%d in order)", q,
                                  (int)members[q].status, members[q].error.message, orderly);
    members_free(members, 3);
    return fine;
}

static bool spread_broken_wire(char message[512]) {
    for (int n = 1; n < 150; n += 29) {
        fault planned = {.rank = -1, .cut = -1};
        member members[MEMBERS_MOST];
        memory_wire_open(3, 0, 1);
        memory_wire_fail_send(n);
        for (int q = 0; q < 3; q++)
            members[q] = (member){.request = &three,
                                  .timeout_s = 0.2,
                                  .options = {.steps = 1000000,
                                              .timeout_s = 0.2,
                                              .before_action = misbehave,
                                              .context = &planned}};
        members_run(members, 3);
        memory_wire_close();
        bool fine = true;
        for (int q = 0; fine && q < 3; q++)
            if (members[q].status == PP_OK)
                fine = fixture_failed(message, "send %d fails and process %d succeeds", n, q);
        members_free(members, 3);
        if (!fine) return false;
    }
    return true;
}

/* ---- one command --------------------------------------------------------------------------- */

static bool spread_refusals(char message[512]) {
    member members[MEMBERS_MOST] = {0};
    memory_wire_open(2, 0, 1);
    for (int q = 0; q < 2; q++)
        members[q] = (member){.request = &three, .options = {.steps = 2, .seed = (uint64_t)q}};
    members_run(members, 2);
    bool fine = memory_wire_close() == 2;
    for (int q = 0; q < 2; q++)
        if (members[q].status != PP_E_INPUT || !strstr(members[q].error.message, "another plan"))
            fine = fixture_failed(message, "seeds differ: status %d, %.200s",
                                  (int)members[q].status, members[q].error.message);
    members_free(members, 2);
    if (!fine) return false;
    memory_wire_open(4, 0, 1);
    for (int q = 0; q < 4; q++) members[q] = (member){.request = &three, .options = {.steps = 2}};
    members_run(members, 4);
    fine = memory_wire_close() == 4;
    for (int q = 0; q < 4; q++)
        if (members[q].status != PP_E_INPUT ||
            !strstr(members[q].error.message, "4 processes are more than the plan's 3 ranks"))
            fine = fixture_failed(message, "4 of 3: status %d, %.200s", (int)members[q].status,
                                  members[q].error.message);
    members_free(members, 4);
    return fine;
}

/* Every action of every rank once in the trace, whichever process it ran in. */
static bool complete(const pp_trace *trace, const pp_schedule *schedule, char message[512]) {
    size_t next = 0;
    for (int p = 0; p < schedule->ranks; p++) {
        double end_s = 0;
        for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++) {
            while (next < trace->span_count && trace->spans[next].lane != PP_LANE_COMPUTE) next++;
            if (next == trace->span_count) return fixture_failed(message, "rank %d lacks spans", p);
            const pp_span *span = &trace->spans[next++];
            if (span->rank != p || memcmp(&span->action, &schedule->actions[i], 8) != 0 ||
                span->start_s < end_s)
                return fixture_failed(message, "rank %d: span %zu is not action %zu", p, next - 1,
                                      i);
            end_s = span->end_s;
        }
    }
    return strstr(trace->title, "3 processes") || fixture_failed(message, "title %s", trace->title);
}

static bool spread_replay(char message[512]) {
    fixture_request request = {.model = fixture_gpt,
                               .ranks = 3,
                               .microbatches = 3,
                               .microbatch_size = 1,
                               .dp = 2,
                               .order = ORDER_SPLIT};
    fixture made;
    if (!fixture_make(&request, &made, message)) return false;
    member members[MEMBERS_MOST];
    memory_wire_open(3, 1e-5, 1);
    for (int q = 0; q < 3; q++)
        members[q] = (member){.request = &request,
                              .options = {.steps = 3, .keep_trace = true, .backend = "replay"}};
    members_run(members, 3);
    bool fine = memory_wire_close() == 3;
    for (int q = 0; fine && q < 3; q++)
        if (members[q].status != PP_OK)
            fine = fixture_failed(message, "process %d: %.300s", q, members[q].error.message);
    fine = fine && complete(members[0].result->trace, made.schedule, message);
    for (int p = 0; fine && p < 3; p++)
        if (members[0].result->measured.rank[p].peak_bytes != fixture_peak(&made, p) ||
            !(members[0].result->measured.rank[p].busy_s >= 0))
            fine = fixture_failed(message, "rank %d: %lld bytes", p,
                                  (long long)members[0].result->measured.rank[p].peak_bytes);
    members_free(members, 3);
    fixture_free(&made);
    return fine;
}

/* ---- clocks -------------------------------------------------------------------------------- */

/* Answers over a network whose two ways take any time: the true offset is within what is said. */
static bool spread_clocks(char message[512]) {
    pp_random_key key = pp_random_key_make(11, "clocks", 0);
    for (uint64_t run = 0; run < 200; run++) {
        pp_clock_offset clock = {.known = false};
        double truth_s = 1e3 * (pp_random_unit(key, run) - 0.5), now_s = 5, best_s = INFINITY;
        for (uint64_t i = 0; i < 50; i++) {
            uint64_t draw = run * 1000 + i * 4;
            double there_s = 1e-3 * pp_random_unit(key, draw + 1);
            double held_s = 2 * pp_random_unit(key, draw + 2);
            double back_s = 1e-3 * pp_random_unit(key, draw + 3);
            double sent_s = now_s;
            double answered_s = sent_s + there_s + held_s + truth_s;
            now_s = sent_s + there_s + held_s + back_s;
            pp_clock_learn(&clock, sent_s, now_s, answered_s, held_s);
            best_s = fmin(best_s, (there_s + back_s) / 2);
            double error_s = pp_clock_error_s(&clock, now_s) + 1e-9;
            if (fabs(clock.offset_s - truth_s) > error_s)
                return fixture_failed(message, "run %d: off by %g, said %g", (int)run,
                                      clock.offset_s - truth_s, error_s);
        }
        pp_clock_offset before = clock;
        pp_clock_learn(&clock, now_s, now_s + 1, now_s, 1.5); /* the answer to another letter */
        if (clock.offset_s != before.offset_s)
            return fixture_failed(message, "impossible answer taken");
    }
    return true;
}

/* ---- the table ----------------------------------------------------------------------------- */

static const threaded_case cases[] = {
    {"spread_same_bits", spread_same_bits}, {"spread_replicas", spread_replicas},
    {"spread_virtual", spread_virtual},     {"spread_failures", spread_failures},
    {"spread_stops", spread_stops},         {"spread_silence", spread_silence},
    {"spread_hangs", spread_hangs},         {"spread_broken_wire", spread_broken_wire},
    {"spread_refusals", spread_refusals},   {"spread_replay", spread_replay},
    {"spread_clocks", spread_clocks},
};

const threaded_case *processes_cases(int *count) {
    *count = sizeof cases / sizeof *cases;
    return cases;
}
