/* Runs the threaded test bodies without a test framework: threaded_runner [NAME] */
#include "clip_cases.h"
#include "processes_cases.h"
#include "threaded_cases.h"

#include "core/core.h"

#include <stdio.h>
#include <string.h>

typedef struct outcome {
    int ran, failures;
} outcome;

static void run_all(const threaded_case *cases, int count, const char *only, outcome *seen) {
    for (int i = 0; i < count; i++) {
        if (only && strcmp(only, cases[i].name) != 0) continue;
        char message[512] = "";
        bool passed = cases[i].run(message);
        printf("%-4s %s%s%s\n", passed ? "ok" : "FAIL", cases[i].name, passed ? "" : ": ",
               passed ? "" : message);
        fflush(stdout);
        seen->failures += !passed;
        seen->ran++;
    }
}

int main(int argc, char **argv) {
    int count;
    const char *only = argc > 1 ? argv[1] : NULL;
    outcome seen = {0};
    const threaded_case *cases = threaded_cases(&count);
    run_all(cases, count, only, &seen);
    cases = processes_cases(&count);
    run_all(cases, count, only, &seen);
    cases = clip_cases(&count);
    run_all(cases, count, only, &seen);
    if (seen.ran == 0) fprintf(stderr, "threaded_runner: no case is called %s\n", only);
    if (pp_live_bytes() != 0) {
        fprintf(stderr, "threaded_runner: %lld bytes are still allocated\n",
                (long long)pp_live_bytes());
        seen.failures++;
    }
    return seen.failures > 0 || seen.ran == 0;
}
