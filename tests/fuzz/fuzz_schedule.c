/* Any bytes read as a schedule, CSV or JSON: refused with a reason, or equal to what is written of
 * it in either form; and whatever the check accepts can be lowered into what the check accepts,
 * blocking or not. */
#include "fuzz_support.h"

static pp_status read_any(const char *bytes, size_t length, bool json, pp_schedule **schedule,
                          pp_error *error) {
    return json ? pp_schedule_read_json(bytes, length, "input", schedule, error)
                : pp_schedule_read_csv(bytes, length, "input", schedule, error);
}

static void must_read_back(const pp_schedule *schedule, bool json) {
    pp_schedule *again;
    pp_error error = {0};
    pp_text text = {0};
    pp_json out = pp_json_start(&text);
    if (json)
        pp_schedule_write_json(schedule, &out);
    else
        pp_schedule_write_csv(schedule, &text);
    pp_status status = read_any(text.bytes, text.length, json, &again, &error);
    must(status == PP_OK, "what was written cannot be read", &error);
    must(pp_schedule_hash(schedule) == pp_schedule_hash(again), "read(write(x)) is not x", &error);
    pp_schedule_free(again);
    pp_text_deinit(&text);
}

/* What passed, without its transfers, passes lowered. */
static void must_lower(const pp_schedule *schedule) {
    pp_schedule *compute, *lowered;
    pp_error error = {0};
    must(pp_schedule_drop_transfers(schedule, &compute, &error) == PP_OK, "drop", &error);
    pp_status status = pp_schedule_add_transfers(compute, &lowered, &error);
    must(status == PP_OK, "what passed cannot be lowered", &error);
    for (int blocking = 0; blocking < 2; blocking++) {
        status = pp_schedule_check(lowered, blocking, NULL, &error);
        must(status == PP_OK, "what was lowered does not pass", &error);
    }
    pp_schedule_free(compute);
    pp_schedule_free(lowered);
}

static void must_have_slots(const pp_schedule *schedule) {
    pp_error error = {0};
    int *slots = pp_allocate_zeroed((size_t)schedule->stages, 2 * sizeof *slots);
    must(slots != NULL, "no memory", &error);
    must(pp_schedule_slots(schedule, slots, slots + schedule->stages, &error) == PP_OK, "slots",
         &error);
    pp_free(slots);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    bool json = length > 0 && bytes[0] == '{';
    pp_schedule *schedule;
    pp_error error = {0};
    pp_status status = read_any((const char *)bytes, length, json, &schedule, &error);
    must_be_told(status, &error);
    if (status != PP_OK) return 0;
    must_read_back(schedule, false);
    must_read_back(schedule, true);
    must_have_slots(schedule);
    for (int blocking = 0; blocking < 2; blocking++) {
        error = (pp_error){0};
        status = pp_schedule_check(schedule, blocking, NULL, &error);
        must_be_told(status, &error);
        if (status == PP_OK) must_lower(schedule);
    }
    pp_schedule_free(schedule);
    return 0;
}
