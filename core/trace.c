/* Traces: their life, and writing them for Perfetto and chrome://tracing.
 *
 * The viewers' fields (ts and dur in microseconds, pid a rank, tid a lane) are derived and lossy;
 * the exact span stands in each event's "args", and the summary in "otherData". Memory curves are
 * counter events (ph "C"), whose exact time stands beside what viewers read. Reading is
 * trace_read.c. */
#include "core/trace_internal.h"

#include <math.h>
#include <string.h>

/* ---- names and rows ------------------------------------------------------------------------- */

const char *pp_phase_name(pp_phase phase) {
    static const char *const names[] = {
#define X(value, name) [value] = name,
        PP_PHASE_LIST(X)
#undef X
    };
    return names[phase];
}

static const char *const lane_names[] = {
    [PP_LANE_COMPUTE] = "compute", [PP_LANE_SEND] = "send", [PP_LANE_RECEIVE] = "receive"};

static const char *kind_name(int kind) {
    return pp_action_kind_name((pp_action_kind)kind);
}

const pp_field pp_event_args_fields[] = {
    {.key = "kind",
     .type = PP_FIELD_NAME,
     PP_AT(pp_event_args, kind),
     .name = kind_name,
     .name_count = PP_ACTION_KIND_COUNT},
    {.key = "stage",
     .type = PP_FIELD_INT,
     PP_AT(pp_event_args, stage),
     .minimum = 0,
     .maximum = PP_STAGES_MAX - 1},
    {.key = "microbatch",
     .type = PP_FIELD_INT64,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_event_args, microbatch),
     .minimum = 0,
     .maximum = PP_MICROBATCHES_MAX - 1,
     .fallback = -1},
    {.key = "slice",
     .type = PP_FIELD_INT,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_event_args, slice),
     .minimum = 0,
     .maximum = 255},
    {.key = "overlapped",
     .type = PP_FIELD_BOOL,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_event_args, overlapped)},
    {.key = "start_s",
     .type = PP_FIELD_DOUBLE,
     PP_AT(pp_event_args, start_s),
     .minimum = -1e15,
     .maximum = 1e15},
    {.key = "end_s",
     .type = PP_FIELD_DOUBLE,
     PP_AT(pp_event_args, end_s),
     .minimum = -1e15,
     .maximum = 1e15},
};
const int pp_event_args_field_count = PP_ARRAY_LENGTH(pp_event_args_fields);

#define COUNT_ROW(key_, member_, maximum_)                                                         \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_INT, PP_AT(pp_trace, member_), .minimum = 1,                 \
        .maximum = maximum_                                                                        \
    }

const pp_field pp_trace_fields[] = {
    PP_FORMAT_ROWS,
    {.key = "title", .type = PP_FIELD_TEXT, PP_AT(pp_trace, title), .size = 128},
    {.key = "measured", .type = PP_FIELD_BOOL, PP_AT(pp_trace, measured)},
    {.key = "schedule", .type = PP_FIELD_TEXT, PP_AT(pp_trace, schedule), .size = 64},
    COUNT_ROW("ranks", ranks, PP_RANKS_MAX),
    COUNT_ROW("stages", stages, PP_STAGES_MAX),
    COUNT_ROW("virtual", virtual_stages, PP_STAGES_MAX),
    COUNT_ROW("microbatches", microbatches, PP_MICROBATCHES_MAX),
    {.key = "makespan_s",
     .type = PP_FIELD_DOUBLE,
     PP_AT(pp_trace, makespan_s),
     .minimum = 0,
     .maximum = 1e15},
    {.key = "bubble_fraction",
     .type = PP_FIELD_DOUBLE,
     PP_AT(pp_trace, bubble_fraction),
     .minimum = -1,
     .maximum = 1},
    {.key = "rank", .type = PP_FIELD_ARRAY},
};
const int pp_trace_field_count = PP_ARRAY_LENGTH(pp_trace_fields);

const pp_field pp_trace_rank_fields[] = {
    {.key = "busy_s",
     .type = PP_FIELD_DOUBLE,
     PP_AT(pp_trace_rank, busy_s),
     .minimum = 0,
     .maximum = 1e15},
    {.key = "peak_bytes",
     .type = PP_FIELD_INT64,
     .flags = PP_FIELD_NULLABLE,
     PP_AT(pp_trace_rank, peak_bytes),
     .minimum = 0,
     .maximum = 1152921504606846976.0, /* 2^60 */
     .null_value = -1},
};
const int pp_trace_rank_field_count = PP_ARRAY_LENGTH(pp_trace_rank_fields);

const pp_field pp_point_fields[] = {
    {.key = "ph", .type = PP_FIELD_OTHER},
    {.key = "name", .type = PP_FIELD_OTHER, .flags = PP_FIELD_OPTIONAL},
    {.key = "pid",
     .type = PP_FIELD_INT,
     PP_AT(pp_trace_point, rank),
     .minimum = 0,
     .maximum = PP_RANKS_MAX - 1},
    {.key = "ts", .type = PP_FIELD_OTHER, .flags = PP_FIELD_OPTIONAL},
    {.key = "time_s",
     .type = PP_FIELD_DOUBLE,
     PP_AT(pp_trace_point, time_s),
     .minimum = -1e15,
     .maximum = 1e15},
    {.key = "args", .type = PP_FIELD_OBJECT},
};
const int pp_point_field_count = PP_ARRAY_LENGTH(pp_point_fields);

const pp_field pp_point_args_fields[] = {
    {.key = "bytes",
     .type = PP_FIELD_INT64,
     PP_AT(pp_trace_point, bytes),
     .minimum = 0,
     .maximum = 1152921504606846976.0 /* 2^60 */},
};
const int pp_point_args_field_count = PP_ARRAY_LENGTH(pp_point_args_fields);

/* ---- life ----------------------------------------------------------------------------------- */

pp_status pp_trace_new(int ranks, size_t span_count, pp_trace **trace, pp_error *error) {
    pp_trace *made = *trace = pp_allocate_zeroed(1, sizeof *made);
    if (!made) return pp_fail_memory(error);
    made->ranks = ranks;
    made->span_count = span_count;
    made->spans = PP_NEW(&made->arena, pp_span, span_count);
    made->rank = PP_NEW(&made->arena, pp_trace_rank, ranks);
    if (!made->arena.failed) return PP_OK;
    pp_trace_free(made);
    *trace = NULL;
    return pp_fail_memory(error);
}

void pp_trace_free(pp_trace *trace) {
    if (!trace) return;
    pp_arena_deinit(&trace->arena);
    pp_free(trace);
}

/* ---- writing -------------------------------------------------------------------------------- */

/* Names a process or a thread of the viewer. */
static void write_name(pp_json *json, const char *what, int rank, int lane, const char *name) {
    pp_json_object_flat(json);
    pp_json_key(json, "ph");
    pp_json_string(json, "M");
    pp_json_key(json, "name");
    pp_json_string(json, what);
    pp_json_key(json, "pid");
    pp_json_int(json, rank);
    pp_json_key(json, "tid");
    pp_json_int(json, lane);
    pp_json_key(json, "args");
    pp_json_object(json);
    pp_json_key(json, "name");
    pp_json_string(json, name);
    pp_json_end_object(json);
    pp_json_end_object(json);
}

static void write_names(const pp_trace *trace, pp_json *json) {
    for (int p = 0; p < trace->ranks; p++) {
        pp_text name = {0};
        pp_text_printf(&name, "rank %d", p);
        json->text->failed |= name.failed;
        write_name(json, "process_name", p, 0, name.bytes ? name.bytes : "");
        pp_text_deinit(&name);
    }
    for (size_t i = 0; i < trace->span_count; i++) {
        const pp_span *span = &trace->spans[i];
        bool first = i == 0 || span[-1].rank != span->rank || span[-1].lane != span->lane;
        if (first) write_name(json, "thread_name", span->rank, span->lane, lane_names[span->lane]);
    }
}

static void write_span(const pp_span *span, pp_json *json) {
    char name[32];
    pp_action action = span->action;
    pp_event_args args = {
        .kind = action.kind,
        .stage = action.stage,
        .microbatch = action.microbatch == PP_NO_MICROBATCH ? -1 : (int64_t)action.microbatch,
        .slice = action.slice,
        .overlapped = action.overlapped,
        .start_s = span->start_s,
        .end_s = span->end_s};
    pp_json_object_flat(json);
    pp_json_key(json, "ph");
    pp_json_string(json, "X");
    pp_json_key(json, "name");
    pp_json_string(json, pp_action_text(action, name));
    pp_json_key(json, "cat");
    pp_json_string(json, kind_name(args.kind));
    pp_json_key(json, "pid");
    pp_json_int(json, span->rank);
    pp_json_key(json, "tid");
    pp_json_int(json, span->lane);
    /* nanoseconds are as fine as viewers are */
    pp_json_key(json, "ts");
    pp_json_double(json, nearbyint(span->start_s * 1e9) / 1e3);
    pp_json_key(json, "dur");
    pp_json_double(json, nearbyint((span->end_s - span->start_s) * 1e9) / 1e3);
    pp_json_key(json, "args");
    pp_json_object(json);
    pp_fields_write(json, pp_event_args_fields, pp_event_args_field_count, &args);
    pp_json_end_object(json);
    pp_json_end_object(json);
}

static void write_point(const pp_trace_point *point, pp_json *json) {
    pp_json_object_flat(json);
    pp_json_key(json, "ph");
    pp_json_string(json, "C");
    pp_json_key(json, "name");
    pp_json_string(json, "memory");
    pp_json_key(json, "ts");
    pp_json_double(json, nearbyint(point->time_s * 1e9) / 1e3);
    pp_fields_write(json, pp_point_fields, pp_point_field_count, point);
    pp_json_key(json, "args");
    pp_json_object(json);
    pp_fields_write(json, pp_point_args_fields, pp_point_args_field_count, point);
    pp_json_end_object(json);
    pp_json_end_object(json);
}

static void write_summary(const pp_trace *trace, pp_json *json) {
    pp_json_key(json, "otherData");
    pp_json_object(json);
    pp_json_key(json, "format");
    pp_json_string(json, "ppsim-trace");
    pp_json_key(json, "version");
    pp_json_int(json, 1);
    pp_fields_write(json, pp_trace_fields, pp_trace_field_count, trace);
    pp_json_key(json, "rank");
    pp_json_array(json);
    for (int p = 0; p < trace->ranks; p++) {
        pp_json_object_flat(json);
        pp_fields_write(json, pp_trace_rank_fields, pp_trace_rank_field_count, &trace->rank[p]);
        pp_json_end_object(json);
    }
    pp_json_end_array(json);
    pp_json_end_object(json);
}

void pp_trace_write(const pp_trace *trace, pp_text *text) {
    pp_json json = pp_json_start(text);
    pp_json_object(&json);
    pp_json_key(&json, "displayTimeUnit");
    pp_json_string(&json, "ms");
    write_summary(trace, &json);
    pp_json_key(&json, "traceEvents");
    pp_json_array(&json);
    write_names(trace, &json);
    for (size_t i = 0; i < trace->span_count; i++) write_span(&trace->spans[i], &json);
    for (size_t i = 0; i < trace->point_count; i++) write_point(&trace->points[i], &json);
    pp_json_end_array(&json);
    pp_json_end_object(&json);
    pp_text_string(text, "\n");
}
