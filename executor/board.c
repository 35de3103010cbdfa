/* The board: how a replayed REDUCE_GRAD knows when it may start.
 *
 * Nothing is computed under replay, but the reduction of shared weights still starts only when
 * every stage that shares them has ended its last backward, on the plan's time line and not when
 * its thread got around to it. Each stage posts that moment; a reduction reads the latest. */
#include "executor/board_internal.h"

#include <string.h>

#define LOOK_S 1e-3 /* how often a waiter looks for letters and posts in turn */

pp_status pp_board_init(pp_board *board, const pp_plan *plan, const int *stage_of_layer,
                        pp_arena *arena, pp_error *error) {
    *board = (pp_board){.plan = plan, .stage_of_layer = stage_of_layer};
    board->steps = PP_NEW(arena, int, plan->stage_count * plan->dp);
    board->ended_s = PP_NEW(arena, double, plan->stage_count * plan->dp);
    pthread_mutex_init(&board->mutex, NULL);
    pp_condition_init(&board->posted);
    return arena->failed ? pp_fail_memory(error) : PP_OK;
}

void pp_board_deinit(pp_board *board) {
    if (!board->plan) return;
    pthread_cond_destroy(&board->posted);
    pthread_mutex_destroy(&board->mutex);
    *board = (pp_board){0};
}

static void post_elsewhere(pp_processes *processes, int stage, int replica, int step,
                           double ended_s) {
    pp_letter letter = {.kind = PP_LETTER_BOARD,
                        .number = stage,
                        .part = replica,
                        .microbatch = (uint32_t)step,
                        .sent_s = pp_to_run_clock(processes, ended_s)};
    for (int q = 0; q < processes->count; q++)
        if (q != processes->process) (void)pp_post(processes, q, &letter, NULL, NULL);
}

static int index_of(const pp_board *board, int stage, int replica) {
    return stage * board->plan->dp + replica;
}

static int chain_stages(const pp_board *board) {
    return board->plan->stage_count / board->plan->chains;
}

/* Whether a layer that shares its weight is on the stage, in whichever chain. */
static bool is_tied_on(const pp_board *board, int layer, int stage) {
    return board->plan->model->layers[layer].tie &&
           board->stage_of_layer[layer] == stage % chain_stages(board);
}

static bool has_tie(const pp_board *board, int stage) {
    for (int i = 0; i < board->plan->model->layer_count; i++)
        if (is_tied_on(board, i, stage)) return true;
    return false;
}

void pp_board_post(pp_board *board, int stage, int replica, int step, double ended_s) {
    int index = index_of(board, stage, replica);
    if (board->processes && (board->plan->chains > 1 || has_tie(board, stage)))
        post_elsewhere(board->processes, stage, replica, step, ended_s);
    pthread_mutex_lock(&board->mutex);
    board->steps[index] = step + 1;
    board->ended_s[index] = ended_s;
    pthread_cond_broadcast(&board->posted);
    pthread_mutex_unlock(&board->mutex);
}

static bool has_posted(const pp_board *board, int stage, int replica, int step, double *ready_s) {
    int index = index_of(board, stage, replica);
    if (board->steps[index] <= step) return false;
    if (board->ended_s[index] > *ready_s) *ready_s = board->ended_s[index];
    return true;
}

/* Have all stages of the ranks that hold the stage in some chain posted the step? */
static bool copies_posted(const pp_board *board, int stage, int replica, int step,
                          double *ready_s) {
    const pp_plan *plan = board->plan;
    int each = chain_stages(board);
    for (int c = 0; c < plan->chains; c++) {
        int rank = plan->placement[stage % each + c * each];
        for (int s = 0; s < plan->stage_count; s++) {
            bool meant = plan->chains > 1 ? plan->placement[s] == rank : s == stage;
            if (meant && !has_posted(board, s, replica, step, ready_s)) return false;
        }
    }
    return true;
}

/* Has every layer tied to `layer`? */
static bool partners_posted(const pp_board *board, int layer, int replica, int step,
                            double *ready_s) {
    const pp_layer *layers = board->plan->model->layers;
    for (int i = 0; i < board->plan->model->layer_count; i++) {
        if (!layers[i].tie || strcmp(layers[i].tie, layers[layer].tie) != 0) continue;
        if (!copies_posted(board, board->stage_of_layer[i], replica, step, ready_s)) return false;
    }
    return true;
}

static bool all_posted(const pp_board *board, int stage, int replica, int step, double *ready_s) {
    bool copied = board->plan->chains > 1;
    if (copied && !copies_posted(board, stage, replica, step, ready_s)) return false;
    for (int i = 0; i < board->plan->model->layer_count; i++)
        if (is_tied_on(board, i, stage) && !partners_posted(board, i, replica, step, ready_s))
            return false;
    return true;
}

/* What other processes posted. */
static void take_letters_locked(pp_board *board) {
    pp_wanted wanted = {PP_LETTER_BOARD, -1, -1, -1, true};
    for (pp_parcel *came; (came = pp_inbox_wait(board->processes, &wanted, 0));) {
        int index = index_of(board, came->letter.number, came->letter.part);
        board->steps[index] = (int)came->letter.microbatch + 1;
        board->ended_s[index] = pp_from_run_clock(board->processes, came->letter.sent_s);
        pp_parcel_free(board->processes, came);
    }
}

static bool all_posted_now(pp_board *board, int stage, int replica, int step, double *ready_s) {
    if (board->processes) take_letters_locked(board);
    return all_posted(board, stage, replica, step, ready_s);
}

pp_status pp_board_wait(pp_board *board, int stage, int replica, int step, const pp_watch *watch,
                        double *ready_s) {
    pp_status status = PP_OK;
    pp_patience patience = pp_patience_start(watch);
    pthread_mutex_lock(&board->mutex);
    double slice_s = board->processes ? LOOK_S : PP_WAIT_SLICE_S;
    while (status == PP_OK && !all_posted_now(board, stage, replica, step, ready_s)) {
        if (board->aborted) status = PP_E_INTERRUPTED;
        if (status == PP_OK) pp_condition_wait(&board->posted, &board->mutex, slice_s);
        if (status == PP_OK) status = pp_patience_check(&patience);
    }
    pthread_mutex_unlock(&board->mutex);
    return status;
}

void pp_board_abort(pp_board *board) {
    pthread_mutex_lock(&board->mutex);
    board->aborted = true;
    pthread_cond_broadcast(&board->posted);
    pthread_mutex_unlock(&board->mutex);
}
