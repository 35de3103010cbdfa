#include "members.h"

#include "executor/processes_internal.h"
#include "memory_wire.h"

#include <string.h>

static void run_member(member *m, const fixture *made) {
    if (m->record_all) {
        m->fine = fixture_run(made, m->options.steps, &m->options, &m->record, m->message);
        return;
    }
    m->status = pp_run(made->plan, made->schedule, &m->options, &m->result, &m->error);
}

static void *member_main(void *argument) {
    member *m = argument;
    fixture made = {NULL, NULL};
    pp_processes *processes = NULL;
    if (!fixture_make(m->request, &made, m->message)) return NULL;
    m->status = m->joined = pp_processes_open(&memory_wire, m->timeout_s, &processes, &m->error);
    if (m->joined == PP_OK) {
        m->process = processes->process;
        m->options.processes = processes;
        run_member(m, &made);
        pp_processes_leave(processes, pp_status_exit(m->status));
    }
    fixture_free(&made);
    return NULL;
}

void members_run(member *members, int count) {
    member sorted[MEMBERS_MOST];
    for (int i = 0; i < count; i++)
        pthread_create(&members[i].thread, NULL, member_main, &members[i]);
    for (int i = 0; i < count; i++) pthread_join(members[i].thread, NULL);
    for (int i = 0; i < count; i++)
        if (members[i].joined != PP_OK) return;
    for (int i = 0; i < count; i++) sorted[members[i].process] = members[i];
    memcpy(members, sorted, (size_t)count * sizeof *members);
}

void members_free(member *members, int count) {
    for (int i = 0; i < count; i++) {
        fixture_record_free(&members[i].record);
        pp_run_result_free(members[i].result);
    }
}

/* Each process saw the tensors of its own workers and left 0 everywhere else. */
void members_merge(member *members, int count) {
    fixture_record *all = &members[0].record;
    size_t values = (size_t)(all->steps * all->replicas) * all->values;
    for (int q = 1; q < count; q++)
        for (size_t i = 0; i < values; i++) {
            all->gradients[i] += members[q].record.gradients[i];
            all->weights[i] += members[q].record.weights[i];
        }
}
