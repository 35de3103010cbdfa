/* Runs the threaded test bodies without a test framework: threaded_runner [NAME] */
#include "threaded_cases.h"

#include "core/core.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    int count, failures = 0, ran = 0;
    const threaded_case *cases = threaded_cases(&count);
    for (int i = 0; i < count; i++) {
        if (argc > 1 && strcmp(argv[1], cases[i].name) != 0) continue;
        char message[512] = "";
        bool passed = cases[i].run(message);
        printf("%-4s %s%s%s\n", passed ? "ok" : "FAIL", cases[i].name, passed ? "" : ": ",
               passed ? "" : message);
        fflush(stdout);
        failures += !passed;
        ran++;
    }
    if (ran == 0) fprintf(stderr, "threaded_runner: no case is called %s\n", argv[1]);
    if (pp_live_bytes() != 0) {
        fprintf(stderr, "threaded_runner: %lld bytes are still allocated\n",
                (long long)pp_live_bytes());
        failures++;
    }
    return failures > 0 || ran == 0;
}
