/* What every target shares. A target is one function, LLVMFuzzerTestOneInput: under PPSIM_FUZZ
 * libFuzzer calls it with what it thinks up, otherwise replay_main.c with the files of a corpus. */
#ifndef PPSIM_FUZZ_SUPPORT_H
#define PPSIM_FUZZ_SUPPORT_H

#include "core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* An assert that stays in every build. */
static inline void must(bool holds, const char *what, const pp_error *error) {
    if (holds) return;
    fprintf(stderr, "%s (%s: %s)\n", what, error->place, error->message);
    abort();
}

/* A refusal must say something; success must not leave an error code that callers trust. */
static inline void must_be_told(pp_status status, const pp_error *error) {
    if (status == PP_OK) return;
    must(error->code == status && error->message[0] != '\0', "refused without a reason", error);
    must(status != PP_E_INPUT || error->place[0] != '\0', "refused without a place", error);
}

static inline bool same_text(const pp_text *a, const pp_text *b) {
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

#endif
