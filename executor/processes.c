/* The processes of a run: whether there are several, joining them, and leaving together.
 *
 * mpirun and srun start the same command many times and tell each by its environment that it is one
 * of several. Then the plugin `mpi` brings the wire (wire.h), a thread of ours carries the letters
 * (postman.c), and process 0 speaks for all: the others print nothing, and none ends before
 * process 0 has said why. That matters: a launcher that sees one process end with a status kills
 * the others at once. */
#include "executor/plugin.h"
#include "executor/processes_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_S 30.0
#define LAST_WORD_S 10.0 /* at most */
#define CLOCK_MEETINGS 8

/* ---- are there several? -------------------------------------------------------------------- */

/* Under which names launchers tell a process how many there are, and which one it is. */
static const struct {
    const char *name, *count, *number;
} launchers[] = {
    {"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
    {"mpiexec", "PMI_SIZE", "PMI_RANK"},
    {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
};

static int number_in(const char *variable) {
    const char *text = getenv(variable);
    return text ? atoi(text) : -1;
}

static const char *launcher(int *process, int *count) {
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        *count = number_in(launchers[i].count);
        *process = number_in(launchers[i].number);
        if (*count > 1 && *process >= 0) return launchers[i].name;
    }
    *process = 0;
    *count = 1;
    return NULL;
}

int pp_processes_launched(int *process) {
    int count;
    (void)launcher(process, &count);
    return count;
}

/* ---- joining ------------------------------------------------------------------------------- */

static void describe_place(pp_process_place *place) {
    *place = (pp_process_place){.version = PP_VERSION};
    if (gethostname(place->host, sizeof place->host - 1) != 0) place->host[0] = '\0';
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!file) return;
    if (!fgets(place->machine, sizeof place->machine, file)) place->machine[0] = '\0';
    fclose(file);
}

static pp_status keep_place(void *context, int process, const void *bytes, size_t size_bytes) {
    pp_processes *processes = context;
    if (size_bytes != sizeof *processes->places) return PP_E_FAILED;
    memcpy(&processes->places[process], bytes, size_bytes);
    return PP_OK;
}

static bool same_machine(const pp_process_place *a, const pp_process_place *b) {
    return a->machine[0] && strcmp(a->machine, b->machine) == 0;
}

/* Who is where; clocks of one machine are one clock. */
static pp_status introduce(pp_processes *processes, pp_error *error) {
    pp_process_place here;
    describe_place(&here);
    size_t all_bytes = (size_t)processes->count * sizeof here;
    pp_meeting meeting = {.bring = &here,
                          .bring_bytes = sizeof here,
                          .hear = keep_place,
                          .context = processes,
                          .say = processes->places,
                          .say_bytes = all_bytes};
    pp_status status = pp_meet(processes, &meeting, error);
    if (status != PP_OK)
        return pp_fail(error, PP_E_FAILED, NULL,
                       "the %d processes did not find each other within %g s: are they all of one "
                       "version of ppsim?",
                       processes->count, processes->timeout_s);
    bool one = true;
    for (int q = 1; q < processes->count; q++)
        one &= same_machine(&processes->places[0], &processes->places[q]);
    pthread_mutex_lock(&processes->postman.mutex);
    processes->same_clock = same_machine(&here, &processes->places[0]);
    if (processes->same_clock) processes->clock = (pp_clock_offset){.known = false};
    pthread_mutex_unlock(&processes->postman.mutex);
    pp_meeting nothing = {0};
    for (int i = 0; !one && i < CLOCK_MEETINGS; i++) PP_TRY(pp_meet(processes, &nothing, error));
    return PP_OK;
}

pp_status pp_processes_open(const pp_wire_ops *ops, double timeout_s, pp_processes **processes,
                            pp_error *error) {
    *processes = NULL;
    pp_processes *opened = pp_allocate_zeroed(1, sizeof *opened);
    if (!opened) return pp_fail_memory(error);
    opened->timeout_s = timeout_s > 0 ? timeout_s : DEFAULT_TIMEOUT_S;
    pthread_mutex_init(&opened->listening, NULL);
    pthread_mutex_init(&opened->pool_mutex, NULL);
    pp_status status = pp_postman_start(opened, ops, error);
    if (status == PP_OK) status = introduce(opened, error);
    if (status == PP_OK) {
        *processes = opened;
        return PP_OK;
    }
    opened->parted = true;
    pp_processes_leave(opened, pp_status_exit(status));
    return status;
}

pp_status pp_processes_join(double timeout_s, pp_processes **processes, pp_error *error) {
    int process, count;
    char detail[256];
    const char *by = launcher(&process, &count);
    *processes = NULL;
    if (!by) return PP_OK;
    const pp_plugin *plugin = pp_plugin_open("mpi", detail);
    bool usable = plugin && plugin->wire && plugin->wire->usable(detail);
    if (!usable)
        return pp_fail(error, PP_E_UNSUPPORTED, NULL,
                       "%s started %d processes, but they cannot reach each other: %s", by, count,
                       detail);
    pp_processes *opened = NULL;
    PP_TRY(pp_processes_open(plugin->wire, timeout_s, &opened, error));
    if (opened->count == count) {
        *processes = opened;
        return PP_OK;
    }
    pp_fail(error, PP_E_UNSUPPORTED, NULL,
            "%s started %d processes, but MPI (%s) joined %d: start them with the launcher of that "
            "MPI; under Slurm, srun --mpi=pmix",
            by, count, detail, opened->count);
    pp_processes_leave(opened, pp_status_exit(PP_E_UNSUPPORTED));
    return PP_E_UNSUPPORTED;
}

/* ---- asked by others ----------------------------------------------------------------------- */

int pp_processes_count(const pp_processes *processes) {
    return processes ? processes->count : 1;
}

bool pp_processes_speaks(const pp_processes *processes) {
    return !processes || processes->process == atomic_load(&processes->speaker);
}

bool pp_processes_here(const pp_processes *processes, int process) {
    const pp_process_place *places = processes->places;
    return same_machine(&places[process], &places[processes->process]);
}

/* ---- the run that listens ------------------------------------------------------------------ */

void pp_processes_listen(pp_processes *processes, pp_watch *watch,
                         void (*on_fail)(void *context, const pp_verdict *verdict), void *context) {
    pthread_mutex_lock(&processes->listening);
    processes->watch = watch;
    processes->on_fail = on_fail;
    processes->context = context;
    if (on_fail && processes->pending.status) on_fail(context, &processes->pending);
    processes->pending.status = PP_OK;
    pthread_mutex_unlock(&processes->listening);
}

void pp_processes_fail(pp_processes *processes, const pp_error *error) {
    pp_letter letter = {.kind = PP_LETTER_FAIL, .size_bytes = sizeof(pp_verdict)};
    for (int q = 0; q < processes->count; q++) {
        if (q == processes->process) continue;
        pp_verdict *verdict = pp_payload_new(processes, sizeof *verdict);
        if (!verdict) return; /* they will lose patience */
        pp_verdict_make(processes, error, verdict);
        (void)pp_post(processes, q, &letter, verdict, NULL);
    }
}

/* ---- leaving ------------------------------------------------------------------------------- */

double pp_last_word_s(const pp_processes *processes) {
    return processes->timeout_s < LAST_WORD_S ? processes->timeout_s : LAST_WORD_S;
}

static void say_goodbye(pp_processes *processes) {
    pp_letter letter = {.kind = PP_LETTER_GOODBYE};
    for (int q = 0; q < processes->count; q++)
        if (q != processes->process) (void)pp_post(processes, q, &letter, NULL, NULL);
}

void pp_processes_leave(pp_processes *processes, int exit_status) {
    if (!processes) return;
    if (processes->postman.joined && processes->places) {
        if (!pp_processes_speaks(processes) &&
            !pp_goodbye_wait(processes, atomic_load(&processes->speaker),
                             pp_last_word_s(processes)))
            atomic_store(&processes->parted, true);
        say_goodbye(processes);
    }
    pp_postman_stop(processes, !atomic_load(&processes->parted), exit_status);
    pp_payloads_pin(processes, NULL);
    pthread_mutex_destroy(&processes->pool_mutex);
    pthread_mutex_destroy(&processes->listening);
    pp_free(processes->places);
    pp_free(processes);
}
