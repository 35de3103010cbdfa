/* Points for fitting a device's rates: what a store measured, with the work that it was.
 *
 * A signature says what a layer computes, so any layer of any model counts, not only those of the
 * model that is being planned. Of each (signature, phase, microbatch) the median stands. */
#include "profiles/efficiency_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static int distance(const pp_sample *sample, int wanted) {
    bool rested = sample->slices > 1 && sample->neighbours == 0;
    return rested ? INT_MAX : abs(sample->neighbours - wanted);
}

pp_condition pp_nearest_condition(const pp_sample *first, const pp_sample *end, int wanted) {
    const pp_sample *best = first;
    for (const pp_sample *each = first; each < end; each++) {
        int tried = distance(each, wanted), least = distance(best, wanted);
        if (tried < least || (tried == least && each->neighbours < best->neighbours)) best = each;
    }
    return (pp_condition){best->slices, best->neighbours};
}

bool pp_taken_under(const pp_sample *sample, pp_condition condition) {
    return sample->slices == condition.slices && sample->neighbours == condition.neighbours;
}

static bool same_series(const pp_sample *a, const pp_sample *b) {
    return a->phase == b->phase && a->microbatch == b->microbatch &&
           strcmp(a->signature, b->signature) == 0;
}

/* Samples first … end - 1 that were taken so, as one point; seconds 0: none. scratch has room for
 * all of them. */
static pp_work_point point_of(const pp_sample *first, const pp_sample *end, pp_condition condition,
                              pp_dtype dtype, double *scratch) {
    pp_layer layer;
    size_t count = 0;
    pp_work_point none = {0, 0, 0};
    if (first->phase > PP_PHASE_OPTIMIZER || !pp_layer_from_signature(first->signature, &layer))
        return none;
    if ((double)first->microbatch * pp_layer_sample_elements(&layer) > PP_WORK_ELEMENTS_MAX)
        return none;
    for (const pp_sample *each = first; each < end; each++)
        if (pp_taken_under(each, condition)) scratch[count++] = each->duration_s;
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
        pp_condition nearest = pp_nearest_condition(first, next, neighbours);
        pp_work_point point = point_of(first, next, nearest, dtype, scratch);
        if (point.seconds > 0) points[made++] = point;
    }
    return made;
}
