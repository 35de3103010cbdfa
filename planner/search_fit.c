/* A split that fits, where cuts that respect each stage for itself find none: several stages share
 * the memory of a rank.
 *
 * From a split in hand one layer at a time goes from a stage of a rank that is too full to another
 * stage, the boundaries between them moving along, as long as the bytes by which ranks are too full
 * become less in all. That may end without a split that fits though there is one; the search then
 * has neither a plan of this candidate nor, unless capacity.c rules it out, a proof. */
#include <math.h>
#include <string.h>

#include "planner/game_internal.h"

enum { FIT_TRIALS = 600 };

/* Bytes too many over all ranks for work->trial; `over`: by rank. -1: out of memory. */
static double excess_of(pp_work *work, double *over) {
    const pp_terms *terms = &work->terms;
    if (!pp_assemble_stages(terms, work->footprints, work->trial, &work->plan)) return -1;
    double sum = 0;
    for (int p = 0; p < terms->ranks; p++) {
        double bytes = (double)pp_work_rank_bytes(work, p) - (double)terms->limit_bytes[p];
        over[p] = fmax(0, bytes);
        sum += over[p];
    }
    return sum;
}

/* Moves a layer from stage a to stage b in work->trial. False: a has no other, and nothing moved.
 */
static bool move_layer(pp_work *work, int a, int b) {
    int first, last;
    pp_work_interval(work, work->trial, a, &first, &last);
    if (first == last) return false;
    for (int i = a; i < b; i++) work->trial[i]--;
    for (int i = b; i < a; i++) work->trial[i]++;
    return true;
}

typedef struct fitting {
    pp_work *work;
    double *over, *trial_over; /* [ranks] */
    double excess;
    int trials;
} fitting;

/* The first move out of stage a that lessens the excess. False: none; *failed: no memory. */
static bool relieve(fitting *f, int a, bool *failed) {
    pp_work *work = f->work;
    for (int distance = 1; distance < work->terms.stages && f->trials > 0; distance++) {
        for (int side = -1; side <= 1; side += 2) {
            int b = a + side * distance;
            if (b < 0 || b >= work->terms.stages) continue;
            if (f->over[work->terms.placement[b]] > 0 || !move_layer(work, a, b)) continue;
            f->trials--;
            double excess = excess_of(work, f->trial_over);
            if (excess < 0) *failed = true;
            if (excess >= 0 && excess < f->excess) {
                double *swap = f->over;
                f->over = f->trial_over;
                f->trial_over = swap;
                f->excess = excess;
                return true;
            }
            move_layer(work, b, a);
        }
    }
    return false;
}

static bool relieve_any(fitting *f, bool *failed) {
    for (int s = 0; s < f->work->terms.stages; s++) {
        if (f->over[f->work->terms.placement[s]] > 0 && relieve(f, s, failed)) return true;
    }
    return false;
}

pp_status pp_work_fit(pp_work *work, pp_error *error) {
    fitting f = {.work = work,
                 .over = PP_NEW(&work->arena, double, work->terms.ranks),
                 .trial_over = PP_NEW(&work->arena, double, work->terms.ranks),
                 .trials = FIT_TRIALS};
    if (work->arena.failed) return pp_fail_memory(error);
    f.excess = excess_of(work, f.over);
    bool failed = f.excess < 0;
    while (f.excess > 0 && f.trials > 0 && !failed && !pp_work_must_stop(work)) {
        if (!relieve_any(&f, &failed)) break;
    }
    if (failed) return pp_fail_memory(error);
    return f.excess > 0 ? PP_OK : pp_work_try(work, error);
}
