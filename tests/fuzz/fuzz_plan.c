/* Any bytes read as a plan document: refused with a reason, or equal to what is written of it. */
#include "fuzz_support.h"

static pp_text written(const pp_plan *plan) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_plan_write(plan, &json);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    pp_plan *plan, *again;
    pp_error error = {0};
    pp_status status = pp_plan_read((const char *)bytes, length, "input", &plan, &error);
    must_be_told(status, &error);
    if (status != PP_OK) return 0;
    pp_text first = written(plan);
    status = pp_plan_read(first.bytes, first.length, "written", &again, &error);
    must(status == PP_OK, "what was written cannot be read", &error);
    pp_text second = written(again);
    must(same_text(&first, &second), "read(write(x)) is not x", &error);
    for (int s = 0; s < plan->stage_count; s++)
        must(pp_plan_border_bytes(plan, s) >= 0, "a border of negative size", &error);
    int64_t last = pp_plan_samples(plan, plan->microbatches - 1);
    must(last > 0 && last <= plan->microbatch_size, "an empty last microbatch", &error);
    pp_text_deinit(&first);
    pp_text_deinit(&second);
    pp_plan_free(plan);
    pp_plan_free(again);
    return 0;
}
