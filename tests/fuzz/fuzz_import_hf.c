#include "fuzz_import.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    check_import("hf", NULL, bytes, length);
    return 0;
}
