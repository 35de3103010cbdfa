/* The families of schedules, one line each. A new family is a new file in sim/schedule/ that
 * defines the four functions pp_<prefix>_validate, _count, _build and _bubble, and one line here.
 */
#ifndef PPSIM_SIM_FAMILIES_INTERNAL_H
#define PPSIM_SIM_FAMILIES_INTERNAL_H

#include "sim/sim.h"

/* prefix of the functions, name, summary, constraint, source, natural V, splits the backward */
#define PP_FAMILY_LIST(X)                                                                          \
    X(naive, "naive", "one microbatch at a time through all ranks", "M >= 1",                      \
      "model parallelism without a pipeline", 1, false)                                            \
    X(gpipe, "gpipe", "all forwards, then all backwards (fill-drain)", "M >= 1",                   \
      "Huang et al. 2019, GPipe, section 2.3", 1, false)                                           \
    X(one_f_one_b, "1f1b", "one forward, one backward after a short warm-up", "M >= 1",            \
      "Narayanan et al. 2021, Megatron-LM, section 2.2.1; Fan et al. 2021, DAPPLE", 1, false)

#define X(prefix, ...)                                                                             \
    pp_status pp_##prefix##_validate(const pp_schedule_request *request, pp_error *error);         \
    size_t pp_##prefix##_count(const pp_schedule_request *request);                                \
    void pp_##prefix##_build(const pp_schedule_request *request, pp_schedule *schedule);           \
    double pp_##prefix##_bubble(const pp_schedule_request *request, const pp_uniform *cost);
PP_FAMILY_LIST(X)
#undef X

/* V = 1 and no reversed backward: what a family without options of its own accepts. */
pp_status pp_family_plain(const pp_schedule_request *request, pp_error *error);

/* True where closed forms hold at all: nothing recomputed, no transfer time. */
bool pp_family_uniform_domain(const pp_schedule_request *request, const pp_uniform *cost);

/* Puts an action behind the ones that a build has made so far; returns the place after it. */
static inline size_t pp_put(pp_schedule *schedule, size_t at, pp_action_kind kind, int stage,
                            int microbatch) {
    schedule->actions[at] = (pp_action){.kind = (uint8_t)((unsigned)kind & 0x7fu),
                                        .stage = (uint16_t)stage,
                                        .microbatch = (uint32_t)microbatch};
    return at + 1;
}

#endif
