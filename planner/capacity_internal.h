/* Shared by capacity*.c: the least bytes of stages by how many members they have. */
#ifndef PPSIM_CAPACITY_INTERNAL_H
#define PPSIM_CAPACITY_INTERNAL_H

#include "planner/game_internal.h"

#define CAUTION (1 - 1e-6) /* of sums of seconds or bytes in floating point */

/* Where a stage can be in the chain. */
enum { FRONT, MIDDLE, BACK, PLACES };

/* What stages with members repeat, where they choose: nothing, attention, anything. Where they do
 * not, they all have the candidate's policy. A stage without members may repeat anything. */
enum { KEEPS, REPEATS_ATTENTION, REPEATS_ANYTHING, REPEAT_KINDS };

/* The least bytes of a stage with at least m members, by place; `kept`: of the activation after I.
 */
typedef struct pp_lean {
    pp_stage_bytes *least[PLACES]; /* [members + 1] */
    int64_t *kept[PLACES];
} pp_lean;

static inline const pp_stage_bytes *leanest(const pp_lean *l, const pp_terms *terms, int stage,
                                            int members) {
    int place = stage == 0 ? FRONT : stage == terms->stages - 1 ? BACK : MIDDLE;
    return &l->least[place][members];
}

static inline bool exists(const pp_stage_bytes *least) {
    return least->parameters < INT64_MAX;
}

static inline bool chooses(const pp_work *work) {
    return work->candidate->recompute == PP_RECOMPUTE_MIXED;
}

/* Where stages choose what they repeat: fills [0 … count] with seconds that a rank repeats in a
 * step at the least if it has so many members; member_s: what one of them repeats by kind. False:
 * out of memory. */
bool pp_capacity_price(pp_work *work, const pp_capacity *c, int rank,
                       const double member_s[REPEAT_KINDS], int count, double *least_s);

#endif
