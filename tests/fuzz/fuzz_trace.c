/* Any bytes read as a trace document: refused with a reason, or equal to what is written of it. */
#include "fuzz_support.h"

static pp_text written(const pp_trace *trace) {
    pp_text text = {0};
    pp_trace_write(trace, &text);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    (void)pp_trace_recognise((const char *)bytes, length);
    pp_trace *trace, *again;
    pp_error error = {0};
    pp_status status = pp_trace_read((const char *)bytes, length, "input", &trace, &error);
    must_be_told(status, &error);
    if (status != PP_OK) return 0;
    pp_text first = written(trace);
    status = pp_trace_read(first.bytes, first.length, "written", &again, &error);
    must(status == PP_OK, "what was written cannot be read", &error);
    pp_text second = written(again);
    must(same_text(&first, &second), "read(write(x)) is not x", &error);
    pp_text_deinit(&first);
    pp_text_deinit(&second);
    pp_trace_free(trace);
    pp_trace_free(again);
    return 0;
}
