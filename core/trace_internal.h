/* Private to the trace files: the tables that reader and writer share. */
#ifndef PPSIM_TRACE_INTERNAL_H
#define PPSIM_TRACE_INTERNAL_H

#include "core/json_reader.h"

/* The part of an event that says everything ("args"); the rest is for viewers. */
typedef struct pp_event_args {
    int kind; /* pp_action_kind */
    int stage;
    int64_t microbatch; /* -1: the kind has none */
    int slice;
    bool overlapped;
    double start_s, end_s;
} pp_event_args;

extern const pp_field pp_event_args_fields[];
extern const int pp_event_args_field_count;
extern const pp_field pp_trace_fields[]; /* "otherData", over pp_trace */
extern const int pp_trace_field_count;
extern const pp_field pp_trace_rank_fields[];
extern const int pp_trace_rank_field_count;
extern const pp_field pp_point_fields[]; /* of a counter event, over pp_trace_point … */
extern const int pp_point_field_count;
extern const pp_field pp_point_args_fields[]; /* … and of its "args" */
extern const int pp_point_args_field_count;

#endif
