/* Any bytes given to an importer: refused with a reason and a place, or a model that its document
 * gives back and that a second import repeats. */
#ifndef PPSIM_FUZZ_IMPORT_H
#define PPSIM_FUZZ_IMPORT_H

#include "fuzz_support.h"
#include "profiles/profiles.h"

static inline pp_text document_of(const pp_model *model) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_model_write(model, &json);
    return text;
}

static inline pp_text import_once(const char *format, const pp_import_options *options,
                                  const pp_text *bytes) {
    pp_model *model;
    pp_error error = {0};
    pp_text document = {0};
    pp_status status =
        pp_import_text(format, bytes->bytes, bytes->length, "input", options, &model, &error);
    must_be_told(status, &error);
    must((status == PP_OK) == (model != NULL), "a refused file has a model", &error);
    if (status == PP_OK) document = document_of(model);
    pp_model_free(model);
    return document;
}

static inline void check_import(const char *format, const pp_import_options *options,
                                const uint8_t *bytes, size_t length) {
    pp_model *model;
    pp_error error = {0};
    pp_text input = {0}; /* ends in a NUL, as the importers ask */
    pp_text_append(&input, bytes, length);
    pp_text first = import_once(format, options, &input);
    pp_text second = import_once(format, options, &input);
    must(first.length == second.length && (first.length == 0 || same_text(&first, &second)),
         "two imports differ", &error);
    if (first.length > 0) {
        pp_status status = pp_model_read(first.bytes, first.length, "written", &model, &error);
        must(status == PP_OK, "what was imported cannot be read", &error);
        pp_text again = document_of(model);
        must(same_text(&first, &again), "read(write(x)) is not x", &error);
        pp_text_deinit(&again);
        pp_model_free(model);
    }
    pp_text_deinit(&input);
    pp_text_deinit(&first);
    pp_text_deinit(&second);
}

#endif
