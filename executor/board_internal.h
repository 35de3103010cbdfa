/* Replay's reductions: when each stage has ended its last backward. */
#ifndef PPSIM_EXECUTOR_BOARD_INTERNAL_H
#define PPSIM_EXECUTOR_BOARD_INTERNAL_H

#include "executor/processes_internal.h"

typedef struct pp_board {
    const pp_plan *plan;
    const int *stage_of_layer; /* [layers] in the first chain */
    int *steps;                /* [stages · dp] steps whose last backward has ended */
    double *ended_s;           /* [stages · dp] when, on the plan's time line */
    pthread_mutex_t mutex;
    pthread_cond_t posted;
    bool aborted;
    pp_processes *processes; /* that post to each other; NULL: one, or nobody will wait */
} pp_board;

pp_status pp_board_init(pp_board *board, const pp_plan *plan, const int *stage_of_layer,
                        pp_arena *arena, pp_error *error);
void pp_board_deinit(pp_board *board);
void pp_board_post(pp_board *board, int stage, int replica, int step, double ended_s);
/* Waits until all stages that share a weight with `stage` have posted the step: by a tie, or as a
 * copy in another chain, and then all stages of the ranks that hold copies, since a rank in a
 * reduction does nothing else; *ready_s: the latest of their times. Statuses as pp_gate_wait. */
pp_status pp_board_wait(pp_board *board, int stage, int replica, int step, const pp_watch *watch,
                        double *ready_s);
void pp_board_abort(pp_board *board);

#endif
