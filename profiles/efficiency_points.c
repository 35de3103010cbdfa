/* Points for fitting a device's rates: what a store measured, with the work that it was.
 *
 * A signature says what a layer computes, so any layer of any model counts, not only those of the
 * model that is being planned. Of each (signature, phase, microbatch) the median stands. */
#include "profiles/efficiency_internal.h"

#include <stdlib.h>
#include <string.h>

int pp_nearest_neighbours(const pp_sample *first, const pp_sample *end, int wanted) {
    int best = first->neighbours;
    for (const pp_sample *each = first; each < end; each++) {
        int tried = each->neighbours;
        int distance = abs(tried - wanted), best_distance = abs(best - wanted);
        if (distance < best_distance || (distance == best_distance && tried < best)) best = tried;
    }
    return best;
}

static bool same_series(const pp_sample *a, const pp_sample *b) {
    return a->phase == b->phase && a->microbatch == b->microbatch &&
           strcmp(a->signature, b->signature) == 0;
}

/* Samples first … end - 1 that were taken beside so many busy ranks, as one point; seconds 0: none.
 * scratch has room for all of them. */
static pp_work_point point_of(const pp_sample *first, const pp_sample *end, int neighbours,
                              pp_dtype dtype, double *scratch) {
    pp_layer layer;
    size_t count = 0;
    pp_work_point none = {0, 0, 0};
    if (first->phase > PP_PHASE_OPTIMIZER || !pp_layer_from_signature(first->signature, &layer))
        return none;
    if ((double)first->microbatch * pp_layer_sample_elements(&layer) > PP_WORK_ELEMENTS_MAX)
        return none;
    for (const pp_sample *each = first; each < end; each++)
        if (each->neighbours == neighbours) scratch[count++] = each->duration_s;
    int64_t samples = first->microbatch > 0 ? first->microbatch : 1;
    pp_phase_work work = pp_phase_work_get(&layer, first->phase, samples, dtype);
    if (count == 0 || (work.flops <= 0 && work.bytes <= 0)) return none;
    return (pp_work_point){work.flops, work.bytes, pp_median_of(scratch, count).median};
}

size_t pp_work_points(const pp_sample *samples, size_t count, int neighbours, pp_dtype dtype,
                      double *scratch, pp_work_point *points) {
    size_t made = 0;
    const pp_sample *end = samples + count;
    for (const pp_sample *first = samples, *next; first < end; first = next) {
        for (next = first + 1; next < end && same_series(first, next);) next++;
        int nearest = pp_nearest_neighbours(first, next, neighbours);
        pp_work_point point = point_of(first, next, nearest, dtype, scratch);
        if (point.seconds > 0) points[made++] = point;
    }
    return made;
}
