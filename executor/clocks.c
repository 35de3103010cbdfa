/* Clocks of several machines, as one.
 *
 * Each answer of process 0 tells what its clock says (Mills 1991, "Internet time synchronization:
 * the Network Time Protocol", section 3): a letter left at s and its answer came back at b, both on
 * our clock; the other held it for h and answered at a, on its own. The round trip alone took
 * r = (b - s) - h, and when the answer came its clock stood at a + r/2, give or take r/2, however
 * the two ways share r. Meetings happen at every step, so estimates are fresh; the best one is kept
 * until another, with what clocks drift apart meanwhile, is better. */
#include "executor/processes_internal.h"

#define DRIFT 1e-4 /* seconds a second: two quartz clocks, 50 ppm each */

double pp_clock_error_s(const pp_clock_offset *clock, double now_s) {
    return clock->known ? clock->error_s + DRIFT * (now_s - clock->made_s) : 0;
}

void pp_clock_learn(pp_clock_offset *clock, double sent_s, double back_s, double answered_s,
                    double held_s) {
    double way_s = (back_s - sent_s - held_s) / 2;
    if (way_s < 0) return; /* the answer to another letter */
    if (clock->known && way_s > pp_clock_error_s(clock, back_s)) return;
    *clock = (pp_clock_offset){
        .offset_s = answered_s + way_s - back_s, .error_s = way_s, .made_s = back_s, .known = true};
}
