/* The processes of a run: letters between them, meetings, clocks, and how they end together. */
#ifndef PPSIM_EXECUTOR_PROCESSES_INTERNAL_H
#define PPSIM_EXECUTOR_PROCESSES_INTERNAL_H

#include "executor/executor.h"
#include "executor/gate_internal.h"
#include "executor/wire.h"

/* ---- letters ------------------------------------------------------------------------------- */

typedef enum pp_letter_kind {
    PP_LETTER_ALIVE,    /* microbatch: actions ended elsewhere; part: whether a rank computes */
    PP_LETTER_FAIL,     /* the run is given up; payload: pp_verdict */
    PP_LETTER_GATHER,   /* to process 0; number: of the meeting */
    PP_LETTER_TELL,     /* its answer */
    PP_LETTER_MESSAGE,  /* number: channel; the border's tensors (transports/remote.c) */
    PP_LETTER_PAIR,     /* number: lane; the carrier's id of a pair (transports/device.c) */
    PP_LETTER_COMING,   /* number: lane; part: sequence; what the carrier will bring */
    PP_LETTER_GRADIENT, /* number: group; part: member and slice (reduce.c) */
    PP_LETTER_SUM,      /* number: group; part: slice */
    PP_LETTER_BOARD,    /* number: stage; part: replica; microbatch: step (board.c) */
    PP_LETTER_GOODBYE,  /* the last one; of who speaks: he has said what there was to say */
    PP_LETTER_KINDS
} pp_letter_kind;

/* A letter on its way out, or one that has come. */
typedef struct pp_parcel {
    struct pp_parcel *next;
    int process; /* to, or from */
    pp_letter letter;
    void *payload;
    bool outgoing;
    pp_wire_request *request; /* while it is under way */
} pp_parcel;

/* ---- clocks -------------------------------------------------------------------------------- */

/* How far process 0's clock is ahead of this one's (clocks.c). */
typedef struct pp_clock_offset {
    double offset_s, error_s; /* true within offset_s ± error_s when it was made */
    double made_s;
    bool known;
} pp_clock_offset;

/* A letter left here at sent_s and its answer came at back_s, both on this clock; the other side
 * held it for held_s and answered at answered_s on its own. Keeps the better estimate. */
void pp_clock_learn(pp_clock_offset *clock, double sent_s, double back_s, double answered_s,
                    double held_s);
/* What the estimate may be wrong by now. */
double pp_clock_error_s(const pp_clock_offset *clock, double now_s);

/* ---- the postman --------------------------------------------------------------------------- */

/* Where a process runs. */
typedef struct pp_process_place {
    char host[64], machine[40]; /* machine: one clock and one memory where equal */
    char version[16];
} pp_process_place;

/* How a run ended, and who says so. */
typedef struct pp_verdict {
    double time_s; /* on process 0's clock: the earliest is the cause */
    int32_t status, signal;
    char place[320], message[2400], cause[160];
} pp_verdict;

typedef struct pp_postman {
    const pp_wire_ops *ops;
    pp_wire *wire;
    pthread_t thread;
    bool started;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t filled, arrived;
    pp_parcel *outbox, **outbox_end; /* to be sent, in order */
    pp_parcel *inbox[PP_LETTER_KINDS];
    bool joined, together;
    bool *said_goodbye; /* [processes] */
    int goodbyes;
    atomic_bool closing;
    double closing_s;
    int exit_status;
    pp_error error; /* why not joined */
    /* the postman's own */
    bool broken;
    bool told;            /* a finding of its own */
    pp_parcel *under_way; /* sends and receives */
    double *heard_s;      /* [processes] when something last came from there */
    double *gather_s;     /* [processes] when a GATHER last came from there; [0]: went there */
    uint32_t *life;       /* [processes] actions ended, as they last said */
    int *computing;       /* [processes] ranks inside an action, likewise */
    atomic_bool *gone;    /* [processes] not heard for the timeout */
} pp_postman;

typedef struct pp_payload_head pp_payload_head;

struct pp_processes {
    int process, count;
    pp_process_place *places; /* [count] */
    bool same_clock;          /* as process 0's: nothing to estimate */
    pp_clock_offset clock;    /* guarded by the postman's mutex */
    pp_postman postman;
    double timeout_s;
    int meetings, agreements; /* held so far */
    atomic_bool parted;       /* somebody is dead, stuck or unreachable: no clean end is possible */
    atomic_int speaker;       /* who tells the person at the keyboard */
    pthread_mutex_t listening; /* guards the run that listens, if any */
    pp_watch *watch;
    void (*on_fail)(void *context, const pp_verdict *verdict);
    void *context;
    pp_verdict pending;         /* came while nobody listened */
    pthread_mutex_t pool_mutex; /* payloads.c */
    const struct pp_backend *pinned;
    pp_payload_head *pool;
};

/* A block for a payload that pp_post hands over; NULL: out of memory. */
void *pp_payload_new(pp_processes *processes, size_t size_bytes);
void pp_payload_free(pp_processes *processes, void *payload); /* NULL is fine */
/* While a run lasts payloads come from its backend's kind of host memory; NULL: it is over. */
void pp_payloads_pin(pp_processes *processes, const struct pp_backend *backend);

/* Sends; the payload (from pp_payload_new, or NULL) is the postman's from here on. */
pp_status pp_post(pp_processes *processes, int to, const pp_letter *letter, void *payload,
                  pp_error *error);
/* The first parcel of (kind, number, part, microbatch), waiting at most timeout_s; number,
 * part or microbatch -1: any. NULL: not there. `take`: the caller's from here on (pp_parcel_free).
 */
typedef struct pp_wanted {
    pp_letter_kind kind;
    int number, part;
    int64_t microbatch;
    bool take;
} pp_wanted;
pp_parcel *pp_inbox_wait(pp_processes *processes, const pp_wanted *wanted, double timeout_s);
void pp_parcel_free(pp_processes *processes, pp_parcel *parcel);
/* How long a process waits for the last words of others. */
double pp_last_word_s(const pp_processes *processes);
/* Waits at most so long until that process has said goodbye. */
bool pp_goodbye_wait(pp_processes *processes, int process, double timeout_s);
/* Wakes whoever waits, so that he sees that the run was given up. */
void pp_inbox_wake(pp_processes *processes);

void pp_verdict_make(pp_processes *processes, const pp_error *error, pp_verdict *verdict);
pp_status pp_verdict_error(const pp_verdict *verdict, pp_error *error); /* returns its status */

pp_status pp_postman_start(pp_processes *processes, const pp_wire_ops *ops, pp_error *error);
/* Ends the thread. together: everything is delivered first and the wire is left in order. */
void pp_postman_stop(pp_processes *processes, bool together, int exit_status);

/* ---- meetings ------------------------------------------------------------------------------ */

/* Everybody brings bytes to process 0, which hears them in the order of processes, its own too;
 * then it says something to all: `say` and `say_bytes` are read there after the last was heard and
 * filled everywhere else, with at most say_bytes. hear may be NULL. */
typedef struct pp_meeting {
    const void *bring;
    size_t bring_bytes;
    pp_status (*hear)(void *context, int process, const void *bytes, size_t size_bytes);
    void *context;
    void *say;
    size_t say_bytes;
    const atomic_bool *given_up; /* NULL: waits for timeout_s at most, and leaves out who is late */
    int number;                  /* 0: the next one */
} pp_meeting;
/* PP_E_INTERRUPTED: given up, or a stop request. PP_E_FAILED: late; what hear said. */
pp_status pp_meet(pp_processes *processes, const pp_meeting *meeting, pp_error *error);

/* The run's clock is process 0's. */
double pp_to_run_clock(pp_processes *processes, double here_s);
double pp_from_run_clock(pp_processes *processes, double run_s);

/* Is that process on this machine? */
bool pp_processes_here(const pp_processes *processes, int process);
/* pp_processes_join over a given wire. */
pp_status pp_processes_open(const pp_wire_ops *ops, double timeout_s, pp_processes **processes,
                            pp_error *error);

/* ---- the run that listens ------------------------------------------------------------------ */

void pp_processes_listen(pp_processes *processes, pp_watch *watch,
                         void (*on_fail)(void *context, const pp_verdict *verdict), void *context);
/* Tells all others that the run is given up, and why. */
void pp_processes_fail(pp_processes *processes, const pp_error *error);

#endif
