/* Traces: exact round trips through the viewers' format, and what is refused. */
#include "document_support.h"

COUNTED_SUITE(trace);

/* ---- making traces -------------------------------------------------------------------------- */

static pp_trace *random_trace(uint64_t seed) {
    dice d = dice_of(seed, "trace");
    pp_trace *trace;
    int ranks = (int)roll(&d, 1, 5);
    size_t spans = (size_t)roll(&d, 0, 60);
    cr_assert_eq(pp_trace_new(ranks, spans, &trace, NULL), PP_OK);
    snprintf(trace->title, sizeof trace->title, "run \"%d\" \xc3\xa9", (int)seed);
    snprintf(trace->schedule, sizeof trace->schedule, "%s", seed % 2 ? "1f1b" : "");
    trace->measured = seed % 2 == 0;
    trace->stages = 2 * ranks;
    trace->virtual_stages = 2;
    trace->microbatches = (int)roll(&d, 1, 1000);
    trace->makespan_s = roll_double(&d);
    trace->bubble_fraction = pp_random_unit(d.key, d.at++);
    for (int p = 0; p < ranks; p++)
        trace->rank[p] = (pp_trace_rank){roll_double(&d), roll(&d, -1, 1LL << 50)};
    double start = 0;
    int slot = 0;
    for (size_t i = 0; i < spans; i++) {
        int next = (int)(i * 3 * (size_t)ranks / spans); /* (rank, lane) in order */
        if (next != slot) start = roll(&d, 0, 1) ? -1e-7 : 0;
        slot = next;
        pp_span *span = &trace->spans[i];
        span->rank = slot / 3;
        span->lane = (uint8_t)(slot % 3);
        span->start_s = start;
        span->end_s = start = start + roll_double(&d);
        span->action.kind = (unsigned)roll(&d, 0, PP_ACTION_KIND_COUNT - 1) & 0x7fu;
        span->action.overlapped = roll(&d, 0, 1) == 1;
        span->action.slice = (uint8_t)roll(&d, 0, 3);
        span->action.stage = (uint16_t)roll(&d, 0, trace->stages - 1);
        bool none = roll(&d, 0, 3) == 0;
        span->action.microbatch =
            none ? PP_NO_MICROBATCH : (uint32_t)roll(&d, 0, trace->microbatches - 1);
    }
    trace->point_count = (size_t)roll(&d, 0, 40);
    trace->points = PP_NEW(&trace->arena, pp_trace_point, trace->point_count + 1);
    for (size_t i = 0; i < trace->point_count; i++) {
        int32_t rank = (int32_t)(i * (size_t)ranks / trace->point_count);
        double before =
            i > 0 && trace->points[i - 1].rank == rank ? trace->points[i - 1].time_s : -1e-7;
        double later = roll(&d, 0, 2) == 0 ? 0 : roll_double(&d);
        trace->points[i] = (pp_trace_point){before + later, roll(&d, 0, 1LL << 50), rank};
    }
    return trace;
}

static void expect_same_trace(const pp_trace *a, const pp_trace *b) {
    cr_assert_str_eq(a->title, b->title);
    cr_assert_str_eq(a->schedule, b->schedule);
    cr_assert(a->measured == b->measured && a->ranks == b->ranks && a->stages == b->stages);
    cr_assert(a->virtual_stages == b->virtual_stages && a->microbatches == b->microbatches);
    cr_assert(a->makespan_s == b->makespan_s && a->bubble_fraction == b->bubble_fraction);
    cr_assert_eq(a->span_count, b->span_count);
    for (int p = 0; p < a->ranks; p++)
        cr_assert(a->rank[p].busy_s == b->rank[p].busy_s &&
                  a->rank[p].peak_bytes == b->rank[p].peak_bytes);
    cr_assert_eq(a->point_count, b->point_count);
    for (size_t i = 0; i < a->point_count; i++)
        cr_assert(a->points[i].time_s == b->points[i].time_s &&
                  a->points[i].bytes == b->points[i].bytes &&
                  a->points[i].rank == b->points[i].rank);
    for (size_t i = 0; i < a->span_count; i++) {
        const pp_span *x = &a->spans[i], *y = &b->spans[i];
        cr_assert(x->start_s == y->start_s && x->end_s == y->end_s && x->rank == y->rank &&
                  x->lane == y->lane);
        cr_assert_eq(memcmp(&x->action, &y->action, sizeof x->action), 0);
    }
}

Test(trace, random_traces_round_trip) {
    for (uint64_t seed = 1; seed <= 200; seed++) {
        pp_error error = {0};
        pp_trace *trace = random_trace(seed), *again;
        pp_text text = {0};
        pp_trace_write(trace, &text);
        cr_assert_eq(pp_trace_read(text.bytes, text.length, "x.json", &again, &error), PP_OK,
                     "seed %d: %s: %s", (int)seed, error.place, error.message);
        expect_same_trace(trace, again);
        cr_assert(pp_trace_recognise(text.bytes, text.length));
        pp_trace_free(trace);
        pp_trace_free(again);
        pp_text_deinit(&text);
    }
}

/* ---- a trace by hand ------------------------------------------------------------------------ */

static pp_trace *small_trace(void) {
    pp_trace *trace;
    cr_assert_eq(pp_trace_new(2, 4, &trace, NULL), PP_OK);
    snprintf(trace->title, sizeof trace->title, "by hand");
    snprintf(trace->schedule, sizeof trace->schedule, "gpipe");
    trace->stages = 2;
    trace->virtual_stages = trace->microbatches = 1;
    trace->makespan_s = 3.5;
    trace->spans[0] =
        (pp_span){0, 0.001, {.kind = PP_FORWARD, .microbatch = 0}, 0, PP_LANE_COMPUTE};
    trace->spans[1] = (pp_span){
        1.5, 1.75, {.kind = PP_REDUCE_GRAD, .microbatch = PP_NO_MICROBATCH}, 0, PP_LANE_COMPUTE};
    trace->spans[2] = (pp_span){0.25, 0.5, {.kind = PP_SEND_F, .microbatch = 0}, 0, PP_LANE_SEND};
    trace->spans[3] = (pp_span){
        0.625, 3.5, {.kind = PP_BACKWARD, .stage = 1, .microbatch = 0}, 1, PP_LANE_COMPUTE};
    trace->rank[1].peak_bytes = -1;
    trace->points = PP_NEW(&trace->arena, pp_trace_point, 2);
    trace->points[0] = (pp_trace_point){0, 100, 0};
    trace->points[1] = (pp_trace_point){0.625, 7, 1};
    trace->point_count = 2;
    return trace;
}

Test(trace, viewers_find_processes_threads_and_microseconds) {
    static const char *const wanted[] = {
        "\"traceEvents\": [",
        "{\"ph\": \"M\", \"name\": \"process_name\", \"pid\": 1, \"tid\": 0, "
        "\"args\": {\"name\": \"rank 1\"}}",
        "{\"ph\": \"M\", \"name\": \"thread_name\", \"pid\": 0, \"tid\": 1, "
        "\"args\": {\"name\": \"send\"}}",
        "{\"ph\": \"X\", \"name\": \"0F0\", \"cat\": \"F\", \"pid\": 0, \"tid\": 0, \"ts\": 0, "
        "\"dur\": 1000, ",
        "{\"ph\": \"X\", \"name\": \"1B0\", \"cat\": \"B\", \"pid\": 1, \"tid\": 0, "
        "\"ts\": 625000, \"dur\": 2875000, ",
        "{\"ph\": \"C\", \"name\": \"memory\", \"ts\": 625000, \"pid\": 1, \"time_s\": 0.625, "
        "\"args\": {\"bytes\": 7}}",
        "\"peak_bytes\": null",
    };
    pp_trace *trace = small_trace();
    pp_text text = {0};
    pp_trace_write(trace, &text);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        cr_assert(strstr(text.bytes, wanted[i]), "no %s in\n%s", wanted[i], text.bytes);
    pp_text_deinit(&text);
    pp_trace_free(trace);
}

Test(trace, members_may_come_in_any_order) {
    static const char text[] =
        " { \"traceEvents\" : [ ] ,\n\"otherData\":{\"format\":\"ppsim-trace\",\"version\":1,"
        "\"title\":\"\",\"measured\":true,\"schedule\":\"\",\"ranks\":1,\"stages\":1,\"virtual\":1,"
        "\"microbatches\":1,\"makespan_s\":0,\"bubble_fraction\":0,"
        "\"rank\":[{\"busy_s\":1,\"peak_bytes\":5}]} } \n";
    pp_trace *trace;
    pp_error error = {0};
    cr_assert_eq(pp_trace_read(text, strlen(text), "x.json", &trace, &error), PP_OK, "%s %s",
                 error.place, error.message);
    cr_assert(trace->span_count == 0 && trace->measured && trace->rank[0].peak_bytes == 5);
    pp_trace_free(trace);
}

Test(trace, traces_are_told_from_other_documents) {
    static const struct {
        const char *text;
        bool is_trace;
    } table[] = {
        {"{\"traceEvents\": []}", true},
        {"  {\"otherData\": {\"format\": \"ppsim-trace\"}, \"traceEvents\": []}", true},
        {"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", true},
        {"{\"format\": \"ppsim-plan\", \"model\": {\"name\": \"traceEvents\"}}", false},
        {"{\"model\": {\"traceEvents\": 1}}", false},
        {"{\"a\\\"\": 1, \"traceEvents", false},
        {"0F0,0B0\n", false},
        {"\"", false},
        {"\"\\", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        cr_assert_eq(pp_trace_recognise(table[i].text, strlen(table[i].text)), table[i].is_trace,
                     "%s", table[i].text);
}

Test(trace, phases_have_names) {
    cr_assert_str_eq(pp_phase_name(PP_PHASE_FORWARD), "forward");
    cr_assert_str_eq(pp_phase_name(PP_PHASE_OVERHEAD), "overhead");
}

/* ---- what is refused ------------------------------------------------------------------------ */

static pp_status try_trace(const char *text, size_t length, pp_error *error) {
    pp_trace *trace;
    pp_status status = pp_trace_read(text, length, "bad.json", &trace, error);
    cr_assert(status == PP_OK || !trace);
    pp_trace_free(trace);
    return status;
}

#define SPAN(index) " /traceEvents/" #index /* three names come first, and one before "send" */
#define NUMBERS "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,"
#define MANY NUMBERS NUMBERS NUMBERS NUMBERS NUMBERS NUMBERS NUMBERS NUMBERS NUMBERS NUMBERS
#define FAR_TOO_MANY MANY MANY MANY MANY MANY MANY

static const malformed refused[] = {
    {NULL, "", ":1:1", "expected '{' before the end"},
    {NULL, "[", ":1:1", "expected '{'"},
    {NULL, "{", ":1:2", "end of file"},
    {NULL, "{\n 3", ":2:2", "a key of this document"},
    {NULL, "{}", "", "\"otherData\" is missing: only traces that ppsim wrote"},
    {NULL, "{\"traceEvents\": []}", "", "\"otherData\" is missing"},
    {NULL, "{\"otherData\": {}}", "", "\"traceEvents\" is missing"},
    {NULL, "{\"traceEvents\" []}", ":1:16", "expected ':'"},
    {NULL, "{\"traceEvents\": 5}", ":1:17", "expected '['"},
    {NULL, "{\"traceEvents\": [], \"traceEvents\": []}", "", "\"traceEvents\" stands twice"},
    {NULL, "{\"otherData\": {}, \"otherData\": {}}", "", "\"otherData\" stands twice"},
    {NULL, "{\"sample\\u001bs\": []}", "", "unknown key \"sample?s\"; known here: displayTimeUnit"},
    {NULL, "{\"traceEvents\": [" FAR_TOO_MANY "0]}", SPAN(0), "\"C\" or \"M\""},
    {NULL, "{\"traceEvents\": [[" FAR_TOO_MANY "0]]}", ":1:18", "too many values"},
    {NULL, "{\"traceEvents\": [{\"ph\": \"M\"}, {]", ":1:32", "'}'"},
    {NULL, "{\"traceEvents\": [{}\n]}", SPAN(0), "only traces that ppsim wrote"},
    {"\"displayTimeUnit\": \"ms\"", "\"displayTimeUnit\": \"ms\"\n\n  x", ":4:3", "expected '}'"},
    {NULL, "{\"otherData\": 1, \"traceEvents\": []} x", ":1:37", "nothing may follow"},
    {"ppsim-trace", "other", " /otherData/format", "expected \"ppsim-trace\""},
    {"\"version\": 1", "\"version\": 7", " /otherData/version", "got 7"},
    {"\"ranks\": 2", "\"ranks\": 3", " /otherData/rank", "expected 3 elements"},
    {"\"ranks\": 2", "\"ranks\": 2, \"slices\": 1", " /otherData", "unknown key \"slices\""},
    {"\"stages\": 2", "\"stages\": 1", " /traceEvents",
     "1B0 on rank 1 does not belong to a trace of 2 ranks, 1 stages"},
    {"\"stages\": 2", "\"stages\": 0", " /otherData/stages", "from 1"},
    {"\"measured\": false", "\"measured\": 0", " /otherData/measured", "true or false"},
    {"\"by hand\"", "[]", " /otherData/title", "got an array"},
    {"\"makespan_s\": 3.5", "\"makespan_s\": -3.5", " /otherData/makespan_s", "from 0"},
    {"\"busy_s\": 0", "\"busy_s\": \"all\"", " /otherData/rank/0/busy_s", "a number"},
    {"\"peak_bytes\": 0", "\"peak_bytes\": -2", " /otherData/rank/0/peak_bytes", "or null"},
    {"\"ph\": \"X\"", "\"ph\": \"B\"", SPAN(5), "\"C\" or \"M\""},
    {"\"cat\": \"F\", \"pid\": 0", "\"cat\": \"F\", \"pid\": -1", SPAN(5) "/pid", "from 0"},
    {"\"cat\": \"F\", \"pid\": 0", "\"cat\": \"F\", \"pid\": 1", SPAN(6), "must be ordered"},
    {"\"cat\": \"SEND_F\", \"pid\": 0, \"tid\": 1", "\"cat\": \"SEND_F\", \"pid\": 0, \"tid\": 3",
     SPAN(7) "/tid", "from 0 to 2"},
    {"\"ts\": 0", "\"ts\": {}", SPAN(5) "/ts", "got an object"},
    {"\"args\": {\"kind\": \"F\", ", "\"args\": {", SPAN(5) "/args",
     "\"kind\" is missing; expected one of F, B, I, W"},
    {"\"kind\": \"F\"", "\"kind\": \"G\"", SPAN(5) "/args/kind", "one of F, B, I, W"},
    {"\"kind\": \"F\"", "\"kind\": \"F\", \"note\": 1", SPAN(5) "/args", "unknown key \"note\""},
    {"\"microbatch\": 0", "\"microbatch\": 1", " /traceEvents", "1 microbatches"},
    {"\"microbatch\": 0", "\"microbatch\": -1", SPAN(5) "/args/microbatch", "from 0"},
    {"\"bytes\": 100", "\"bytes\": -1", SPAN(9) "/args/bytes", "from 0"},
    {"\"bytes\": 100", "\"held\": 100", SPAN(9) "/args", "unknown key \"held\""},
    {"\"time_s\": 0,", "", SPAN(9), "\"time_s\" is missing"},
    {"\"ts\": 0, \"pid\": 0", "\"ts\": 0, \"pid\": 2", SPAN(10), "ordered by pid and time_s"},
    {"\"pid\": 1, \"time_s\"", "\"pid\": 2, \"time_s\"", " /traceEvents",
     "a counter of rank 2 does not belong to a trace of 2 ranks"},
    {"\"end_s\": 0.001", "\"end_s\": -0.001", SPAN(5) "/args", "ends before it starts"},
    {"\"end_s\": 0.001", "\"end_s\": 1e400", ":26:164", "overflow"},
};

Test(trace, malformed_documents_are_refused_with_place_and_reason) {
    pp_trace *trace = small_trace();
    pp_text good = {0};
    pp_trace_write(trace, &good);
    expect_refused(refused, sizeof refused / sizeof *refused, good.bytes, try_trace);
    pp_text_deinit(&good);
    pp_trace_free(trace);
}

/* ---- failures ------------------------------------------------------------------------------- */

static pp_status read_trace(void *context, pp_error *error) {
    const char *text = context;
    pp_trace *trace;
    PP_TRY(pp_trace_read(text, strlen(text), "x.json", &trace, error));
    pp_text again = {0};
    pp_trace_write(trace, &again);
    bool failed = again.failed;
    if (!failed) cr_assert_str_eq(again.bytes, text);
    pp_text_deinit(&again);
    pp_trace_free(trace);
    return failed ? pp_fail_memory(error) : PP_OK;
}

Test(trace, any_allocation_may_fail) {
    pp_trace *trace = small_trace();
    pp_text text = {0};
    pp_trace_write(trace, &text);
    expect_survives_allocation_failures(read_trace, text.bytes);
    pp_text_deinit(&text);
    pp_trace_free(trace);
}
