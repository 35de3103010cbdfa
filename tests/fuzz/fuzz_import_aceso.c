#include "fuzz_import.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    const pp_import_options three = {.layers = 3, .profile_batch = 7};
    check_import("aceso", NULL, bytes, length);
    check_import("aceso", &three, bytes, length);
    return 0;
}
