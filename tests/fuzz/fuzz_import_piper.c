#include "fuzz_import.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    const pp_import_options two = {.tp = 2};
    check_import("piper", NULL, bytes, length);
    check_import("piper", &two, bytes, length);
    return 0;
}
