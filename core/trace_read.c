/* Reading a trace, event by event: a step of a large job has millions, and Jansson's form of each
 * takes a hundred times what a span does. Only traces that ppsim wrote can be read: others lack the
 * summary in "otherData" and the exact times in "args". */
#include "core/trace_internal.h"

#include <stdio.h>
#include <string.h>

#define EVENT_MEMORY_BYTES ((size_t)1 << 16)
#define SUMMARY_MEMORY_BYTES ((size_t)1 << 26) /* some hundred bytes for each of 65535 ranks */

typedef struct trace_reader {
    pp_json_stream stream;
    json_t *summary; /* "otherData" */
    bool has_events;
    pp_span *spans; /* growing */
    size_t span_count, span_capacity;
    pp_trace_point *points; /* growing */
    size_t point_count, point_capacity;
    size_t event_count; /* with those that only name things */
    pp_error *error;
} trace_reader;

/* ---- events --------------------------------------------------------------------------------- */

/* Makes room for one more item; array: the address of a pointer to items. */
static pp_status reserve(void **array, size_t count, size_t *capacity, size_t item_bytes,
                         pp_error *error) {
    if (count < *capacity) return PP_OK;
    size_t wanted = *capacity ? 2 * *capacity : 256;
    void *larger = pp_reallocate(*array, wanted * item_bytes);
    if (!larger) return pp_fail_memory(error);
    *array = larger;
    *capacity = wanted;
    return PP_OK;
}

static pp_status add_span(trace_reader *reader, pp_span span) {
    void *array = reader->spans;
    pp_status status =
        reserve(&array, reader->span_count, &reader->span_capacity, sizeof span, reader->error);
    reader->spans = array;
    if (status == PP_OK) reader->spans[reader->span_count++] = span;
    return status;
}

static pp_status add_point(trace_reader *reader, pp_trace_point point) {
    void *array = reader->points;
    pp_status status =
        reserve(&array, reader->point_count, &reader->point_capacity, sizeof point, reader->error);
    reader->points = array;
    if (status == PP_OK) reader->points[reader->point_count++] = point;
    return status;
}

typedef struct event_head {
    int pid, tid;
    double ts, dur;
} event_head;

static const pp_field event_fields[] = {
    {.key = "ph", .type = PP_FIELD_OTHER},
    {.key = "name", .type = PP_FIELD_OTHER, .flags = PP_FIELD_OPTIONAL},
    {.key = "cat", .type = PP_FIELD_OTHER, .flags = PP_FIELD_OPTIONAL},
    {.key = "pid",
     .type = PP_FIELD_INT,
     PP_AT(event_head, pid),
     .minimum = 0,
     .maximum = PP_RANKS_MAX - 1},
    {.key = "tid",
     .type = PP_FIELD_INT,
     PP_AT(event_head, tid),
     .minimum = 0,
     .maximum = PP_LANE_RECEIVE},
    {.key = "ts",
     .type = PP_FIELD_DOUBLE,
     PP_AT(event_head, ts),
     .minimum = -1e21,
     .maximum = 1e21},
    {.key = "dur", .type = PP_FIELD_DOUBLE, PP_AT(event_head, dur), .minimum = 0, .maximum = 1e22},
    {.key = "args", .type = PP_FIELD_OBJECT},
};

static bool sorted(const pp_span *before, const pp_span *after) {
    if (before->rank != after->rank) return before->rank < after->rank;
    if (before->lane != after->lane) return before->lane < after->lane;
    return before->start_s <= after->start_s;
}

static pp_status read_span(trace_reader *reader, const pp_json_node *event) {
    event_head head;
    pp_event_args args = {0};
    pp_json_node args_node = pp_node_member(event, "args");
    PP_TRY(pp_fields_read(event, event_fields, PP_ARRAY_LENGTH(event_fields), &head, NULL,
                          reader->error));
    PP_TRY(pp_fields_read(&args_node, pp_event_args_fields, pp_event_args_field_count, &args, NULL,
                          reader->error));
    if (args.end_s < args.start_s)
        return pp_node_fail(&args_node, reader->error, "the event ends before it starts");
    pp_span span = {.start_s = args.start_s,
                    .end_s = args.end_s,
                    .action = {.stage = (uint16_t)args.stage, .slice = (uint8_t)args.slice},
                    .rank = head.pid,
                    .lane = (uint8_t)head.tid};
    span.action.kind = (unsigned)args.kind & 0x7fu;
    span.action.overlapped = args.overlapped;
    span.action.microbatch = args.microbatch < 0 ? PP_NO_MICROBATCH : (uint32_t)args.microbatch;
    if (reader->span_count > 0 && !sorted(&reader->spans[reader->span_count - 1], &span))
        return pp_node_fail(event, reader->error,
                            "events must be ordered by pid, tid and start; this one is not");
    return add_span(reader, span);
}

static pp_status read_point(trace_reader *reader, const pp_json_node *event) {
    pp_trace_point point = {0};
    pp_json_node args = pp_node_member(event, "args");
    PP_TRY(
        pp_fields_read(event, pp_point_fields, pp_point_field_count, &point, NULL, reader->error));
    PP_TRY(pp_fields_read(&args, pp_point_args_fields, pp_point_args_field_count, &point, NULL,
                          reader->error));
    const pp_trace_point *before =
        reader->point_count > 0 ? reader->points + reader->point_count - 1 : NULL;
    if (before && (before->rank > point.rank ||
                   (before->rank == point.rank && before->time_s > point.time_s)))
        return pp_node_fail(event, reader->error,
                            "counters must be ordered by pid and time_s; this one is not");
    return add_point(reader, point);
}

static pp_status read_event(trace_reader *reader, json_t *value) {
    pp_json_node document = pp_node_root(NULL, reader->stream.file_name);
    pp_json_node events = pp_node_member(&document, "traceEvents");
    pp_json_node event = pp_node_element(&events, reader->event_count++);
    event.value = value;
    const char *phase = json_string_value(json_object_get(value, "ph"));
    if (phase && strcmp(phase, "M") == 0) return PP_OK; /* names for the viewer */
    if (phase && strcmp(phase, "C") == 0) return read_point(reader, &event);
    if (!phase || strcmp(phase, "X") != 0)
        return pp_node_fail(&event, reader->error,
                            "expected an event with \"ph\": \"X\", \"C\" or \"M\"; only traces "
                            "that ppsim wrote can be read");
    return read_span(reader, &event);
}

static pp_status read_events(trace_reader *reader) {
    pp_json_stream *stream = &reader->stream;
    reader->has_events = true;
    PP_TRY(pp_stream_expect(stream, '[', reader->error));
    if (pp_stream_accept(stream, ']')) return PP_OK;
    do {
        json_t *value;
        PP_TRY(pp_stream_value(stream, EVENT_MEMORY_BYTES, &value, reader->error));
        pp_status status = read_event(reader, value);
        json_decref(value);
        if (status != PP_OK) return status;
    } while (pp_stream_accept(stream, ','));
    return pp_stream_expect(stream, ']', reader->error);
}

/* ---- the document --------------------------------------------------------------------------- */

static pp_status skip_value(trace_reader *reader) {
    json_t *value;
    PP_TRY(pp_stream_value(&reader->stream, EVENT_MEMORY_BYTES, &value, reader->error));
    json_decref(value);
    return PP_OK;
}

static pp_status read_member(trace_reader *reader) {
    char key[64];
    PP_TRY(pp_stream_key(&reader->stream, key, sizeof key, reader->error));
    PP_TRY(pp_stream_expect(&reader->stream, ':', reader->error));
    bool events = strcmp(key, "traceEvents") == 0, summary = strcmp(key, "otherData") == 0;
    if ((events && reader->has_events) || (summary && reader->summary))
        return pp_fail(reader->error, PP_E_INPUT, reader->stream.file_name,
                       "the key \"%s\" stands twice", key);
    if (events) return read_events(reader);
    if (summary)
        return pp_stream_value(&reader->stream, SUMMARY_MEMORY_BYTES, &reader->summary,
                               reader->error);
    if (strcmp(key, "displayTimeUnit") == 0) return skip_value(reader);
    pp_make_printable(key);
    return pp_fail(reader->error, PP_E_INPUT, reader->stream.file_name,
                   "unknown key \"%s\"; known here: displayTimeUnit, otherData, traceEvents", key);
}

static pp_status read_members(trace_reader *reader) {
    PP_TRY(pp_stream_expect(&reader->stream, '{', reader->error));
    if (pp_stream_accept(&reader->stream, '}')) return PP_OK;
    do PP_TRY(read_member(reader));
    while (pp_stream_accept(&reader->stream, ','));
    PP_TRY(pp_stream_expect(&reader->stream, '}', reader->error));
    return pp_stream_end(&reader->stream, reader->error);
}

/* Spans name only ranks, stages and microbatches that the summary says there are. */
static pp_status check_spans(const trace_reader *reader, const pp_json_node *document,
                             const pp_trace *trace) {
    for (size_t i = 0; i < trace->span_count; i++) {
        const pp_span *span = &trace->spans[i];
        char text[32];
        bool known = span->action.microbatch == PP_NO_MICROBATCH ||
                     (int64_t)span->action.microbatch < trace->microbatches;
        if (span->rank < trace->ranks && span->action.stage < trace->stages && known) continue;
        pp_json_node events = pp_node_member(document, "traceEvents");
        return pp_node_fail(&events, reader->error,
                            "%s on rank %d does not belong to a trace of %d ranks, %d stages and "
                            "%d microbatches",
                            pp_action_text(span->action, text), span->rank, trace->ranks,
                            trace->stages, trace->microbatches);
    }
    return PP_OK;
}

static pp_status take_points(const trace_reader *reader, const pp_json_node *document,
                             pp_trace *trace) {
    size_t count = reader->point_count;
    if (count == 0) return PP_OK;
    if (reader->points[count - 1].rank >= trace->ranks) {
        pp_json_node events = pp_node_member(document, "traceEvents");
        return pp_node_fail(&events, reader->error,
                            "a counter of rank %d does not belong to a trace of %d ranks",
                            reader->points[count - 1].rank, trace->ranks);
    }
    trace->points = PP_NEW(&trace->arena, pp_trace_point, count);
    if (!trace->points) return pp_fail_memory(reader->error);
    memcpy(trace->points, reader->points, count * sizeof *trace->points);
    trace->point_count = count;
    return PP_OK;
}

static pp_status read_ranks(const pp_json_node *summary, pp_trace *trace, pp_error *error) {
    pp_json_node ranks = pp_node_member(summary, "rank");
    for (int p = 0; p < trace->ranks; p++) {
        pp_json_node rank = pp_node_element(&ranks, (size_t)p);
        PP_TRY(pp_fields_read(&rank, pp_trace_rank_fields, pp_trace_rank_field_count,
                              &trace->rank[p], NULL, error));
    }
    return PP_OK;
}

static pp_status build(const trace_reader *reader, const pp_json_node *summary, pp_trace **trace) {
    pp_trace head = {0};
    pp_json_node ranks = pp_node_member(summary, "rank");
    PP_TRY(pp_node_format(summary, "ppsim-trace", reader->error));
    PP_TRY(
        pp_fields_read(summary, pp_trace_fields, pp_trace_field_count, &head, NULL, reader->error));
    PP_TRY(pp_node_array(&ranks, (size_t)head.ranks, (size_t)head.ranks, reader->error));
    PP_TRY(pp_trace_new(head.ranks, reader->span_count, trace, reader->error));
    pp_trace *made = *trace;
    PP_TRY(
        pp_fields_read(summary, pp_trace_fields, pp_trace_field_count, made, NULL, reader->error));
    if (reader->span_count > 0)
        memcpy(made->spans, reader->spans, reader->span_count * sizeof *made->spans);
    PP_TRY(read_ranks(summary, made, reader->error));
    PP_TRY(take_points(reader, summary->parent, made));
    return check_spans(reader, summary->parent, made);
}

pp_status pp_trace_read(const char *text, size_t length, const char *file_name, pp_trace **trace,
                        pp_error *error) {
    trace_reader reader = {.stream = {text ? text : "", length, 0, file_name}, .error = error};
    *trace = NULL;
    pp_status status = read_members(&reader);
    if (status == PP_OK && (!reader.summary || !reader.has_events))
        status = pp_fail(error, PP_E_INPUT, file_name,
                         "\"%s\" is missing: only traces that ppsim wrote can be read",
                         reader.summary ? "traceEvents" : "otherData");
    if (status == PP_OK) {
        pp_json_node document = pp_node_root(NULL, file_name);
        pp_json_node summary = pp_node_member(&document, "otherData");
        summary.value = reader.summary;
        status = build(&reader, &summary, trace);
    }
    if (status != PP_OK) {
        pp_trace_free(*trace);
        *trace = NULL;
    }
    json_decref(reader.summary);
    pp_free(reader.spans);
    pp_free(reader.points);
    return status;
}

/* ---- recognising ---------------------------------------------------------------------------- */

/* The end of the string that begins at text[at], past its closing quote. */
static size_t string_end(const char *text, size_t length, size_t at) {
    for (at++; at < length && text[at] != '"'; at++)
        if (text[at] == '\\') at++;
    return at < length ? at + 1 : length;
}

static bool is_string(const char *text, size_t start, size_t end, const char *wanted) {
    size_t length = strlen(wanted);
    return end - start == length + 2 && memcmp(text + start + 1, wanted, length) == 0;
}

/* Looks at the strings of the outermost object alone: "traceEvents" may be a layer's name. */
bool pp_trace_recognise(const char *text, size_t length) {
    int depth = 0;
    for (size_t at = 0; at < length; at++) {
        char c = text[at];
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (c != '"') continue;
        size_t end = string_end(text, length, at);
        if (depth == 1 && is_string(text, at, end, "traceEvents")) return true;
        if (depth == 1 && is_string(text, at, end, "format")) return false;
        at = end - 1;
    }
    return false;
}
