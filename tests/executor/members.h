/* Processes of one run, played by threads on the wire in memory (memory_wire.h). */
#ifndef PPSIM_TESTS_MEMBERS_H
#define PPSIM_TESTS_MEMBERS_H

#include "run_fixture.h"

#include <pthread.h>

enum { MEMBERS_MOST = 6 };

/* One process: a thread with a plan of its own. */
typedef struct member {
    const fixture_request *request;
    pp_run_options options;
    double timeout_s;
    bool record_all; /* what fixture_run keeps; else the bare result */
    int process;     /* as it turned out */
    pp_status joined, status;
    fixture_record record;
    pp_run_result *result;
    pp_error error;
    bool fine;
    char message[512];
    pthread_t thread;
} member;

/* Runs all, after memory_wire_open; they come back in the order of their process numbers if all
 * joined. */
void members_run(member *members, int count);
void members_free(member *members, int count);
/* Puts what each saw together in the first one's record. */
void members_merge(member *members, int count);

#endif
