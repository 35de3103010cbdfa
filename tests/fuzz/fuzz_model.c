/* Any bytes read as a model document: refused with a reason, or equal to what is written of it. */
#include "fuzz_support.h"

static pp_text written(const pp_model *model) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_model_write(model, &json);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    pp_model *model, *again;
    pp_error error = {0};
    pp_status status = pp_model_read((const char *)bytes, length, "input", &model, &error);
    must_be_told(status, &error);
    if (status != PP_OK) return 0;
    pp_text first = written(model);
    status = pp_model_read(first.bytes, first.length, "written", &again, &error);
    must(status == PP_OK, "what was written cannot be read", &error);
    pp_text second = written(again);
    must(same_text(&first, &second), "read(write(x)) is not x", &error);
    must(pp_model_hash(model) == pp_model_hash(again), "the hashes differ", &error);
    pp_text_deinit(&first);
    pp_text_deinit(&second);
    pp_model_free(model);
    pp_model_free(again);
    return 0;
}
