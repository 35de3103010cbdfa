/* chimera: two directions, 1F1B in each, merged without a conflict (Li and Hoefler 2021, "Chimera",
 * section 3).
 *
 * In slots of one action (F and B as long), 1F1B runs F of microbatch m on stage s in slot s + 2m
 * and B in slot 2K-1-s + 2m. With K even, the two directions of a rank fill complementary slots as
 * long as each has at most K/2 microbatches: that is a unit of K microbatches, and units follow
 * each other every 2K slots without a gap. A rank's order is that of its slots; makespan 2M+K-2
 * slots for M a multiple of K. Rank p holds K/2+1 (at the ends) to K (in the middle) activations. A
 * last unit of fewer microbatches is a unit with gaps. Microbatches are shared out "as evenly as
 * possible" (section 3.1): of an odd M the second direction has one more. (M = 1 would leave the
 * first direction empty, which nothing can say: it is the naive order on one of two copies.) */
#include "sim/families_internal.h"

#include <math.h>

pp_status pp_chimera_validate(const pp_schedule_request *request, pp_error *error) {
    PP_TRY(pp_family_options(request, 0, error));
    if (request->ranks % 2 == 0 && request->microbatches > 1) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "chimera",
                   "K must be even and M at least 2, one for each direction; got K = %d, M = %d",
                   request->ranks, request->microbatches);
}

/* The slots of one parity on a rank: in each unit, F of one direction, then B of the other. Read as
 * an endless row: forwards at first + 2i + 2K·u, backwards K after them. */
typedef struct lane {
    int forward_stage, backward_stage;
    int64_t first; /* slot of the first forward */
} lane;

/* Puts the i-th action of a lane, if its microbatch exists. all: M, of both directions. */
static size_t put_lane(pp_schedule *schedule, int all, const lane *l, int64_t i, size_t at) {
    int ranks = schedule->ranks, half = ranks / 2;
    int64_t unit = i / ranks, place = i % ranks;
    int64_t microbatch = unit * half + place % half;
    pp_action_kind kind = place < half ? PP_FORWARD : PP_BACKWARD;
    int stage = place < half ? l->forward_stage : l->backward_stage;
    int existing = stage < ranks ? all / 2 : all - all / 2;
    return microbatch < existing ? pp_put(schedule, at, kind, stage, (int)microbatch) : at;
}

/* Slot of the i-th action: in a unit, K/2 forwards from `first` on, backwards from first + K on. */
static int64_t slot_of(const lane *l, int64_t i) {
    return l->first + 2 * i;
}

static size_t build_rank(const pp_schedule_request *request, pp_schedule *schedule, int p,
                         size_t at) {
    int ranks = request->ranks, half = ranks / 2;
    int units = (schedule->microbatches + half - 1) / half;
    /* F of chain 0 is in slot p + 2m, B of chain 1 in slot K+p + 2m; and the other way round */
    lane lanes[2] = {{p, 2 * ranks - 1 - p, p}, {2 * ranks - 1 - p, p, ranks - 1 - p}};
    int early = lanes[1].first < lanes[0].first, late = 1 - early;
    int64_t count = (int64_t)units * ranks, ahead = 0;
    for (int64_t i = 0; i < count; i++) {
        while (ahead < count && slot_of(&lanes[early], ahead) < slot_of(&lanes[late], i))
            at = put_lane(schedule, request->microbatches, &lanes[early], ahead++, at);
        at = put_lane(schedule, request->microbatches, &lanes[late], i, at);
    }
    while (ahead < count)
        at = put_lane(schedule, request->microbatches, &lanes[early], ahead++, at);
    return at;
}

void pp_chimera_build(const pp_schedule_request *request, pp_schedule *schedule) {
    pp_family_build_ranks(request, schedule, build_rank);
}

/* (K-2) / (2M+K-2) if F = I+W and M is a multiple of K. */
double pp_chimera_bubble(const pp_schedule_request *request, const pp_uniform *cost) {
    if (!pp_family_uniform_domain(request, cost)) return NAN;
    if (!pp_same_time(cost->forward_s, cost->input_s + cost->weight_s)) return NAN;
    if (request->microbatches % request->ranks != 0) return NAN;
    double ranks = request->ranks, microbatches = request->microbatches;
    return (ranks - 2) / (2 * microbatches + ranks - 2);
}
