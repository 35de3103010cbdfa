/* How fast a device proved to be: fitted (efficiency.c) to points (efficiency_points.c). */
#ifndef PPSIM_PROFILES_EFFICIENCY_INTERNAL_H
#define PPSIM_PROFILES_EFFICIENCY_INTERNAL_H

#include "profiles/costs_internal.h"

/* One thing that was measured: its work, and the median of its seconds. */
typedef struct pp_work_point {
    double flops, bytes;
    double seconds; /* above 0 */
} pp_work_point;

/* What fitting found. */
typedef struct pp_efficiency {
    pp_analytic analytic;             /* rates, already those that are reached */
    double median_error, worst_error; /* |model - measured| / measured over the points */
    size_t point_count;
} pp_efficiency;

/* Fits `prior` (the assumptions of analytic.c, which also say where to stay when the points do not
 * tell) to the points; with none the result is the prior. PP_E_OUT_OF_MEMORY, or PP_E_FAILED when
 * GSL finds no way down. */
pp_status pp_efficiency_fit(const pp_analytic *prior, const pp_work_point *points, size_t count,
                            pp_efficiency *fitted, pp_error *error);

/* Larger microbatches are passed over: their tensors cannot be. */
#define PP_WORK_ELEMENTS_MAX 4503599627370496.0 /* 2^52 */

/* How a sample was taken. */
typedef struct pp_condition {
    int slices, neighbours;
} pp_condition;

/* Among these samples: beside as many busy neighbours as wanted, or nearly; of two, the fewer. What
 * a slice does alone is not meant, unless there is nothing else. */
pp_condition pp_nearest_condition(const pp_sample *first, const pp_sample *end, int wanted);
bool pp_taken_under(const pp_sample *sample, pp_condition condition);

/* Fills points [count] from samples as a store gives them (sorted) and returns how many there are:
 * one for each (signature, phase, microbatch) of a layer whose work is known. scratch : [count] */
size_t pp_work_points(const pp_sample *samples, size_t count, int neighbours, pp_dtype dtype,
                      double *scratch, pp_work_point *points);

#endif
