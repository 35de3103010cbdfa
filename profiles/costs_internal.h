/* What costs.c and analytic.c share. */
#ifndef PPSIM_PROFILES_COSTS_INTERNAL_H
#define PPSIM_PROFILES_COSTS_INTERNAL_H

#include "profiles/profiles.h"

/* How fast a device is taken to be, after the assumptions of analytic.c. */
typedef struct pp_analytic {
    double flops_per_s;
    double bytes_per_s;
    double start_s; /* of one phase of one layer, however small */
    pp_dtype dtype;
} pp_analytic;

/* The rates of one kind of device. A kind that does not say how fast it is in this dtype is
 * PP_E_INPUT, naming device and field. */
pp_status pp_analytic_make(const pp_cluster *cluster, int kind, pp_dtype dtype,
                           pp_analytic *analytic, pp_error *error);

/* FLOPs and bytes of one phase; both 0 where the phase does nothing. Not of opaque layers. */
typedef struct pp_phase_work {
    double flops, bytes;
} pp_phase_work;
pp_phase_work pp_phase_work_get(const pp_layer *layer, pp_phase phase, int64_t samples,
                                pp_dtype dtype);

/* Seconds of one phase of one microbatch; 0 where the phase does nothing. Opaque layers cost what
 * they say (analytic is not read, and may be NULL); their optimizer takes no time. */
double pp_analytic_layer(const pp_analytic *analytic, const pp_layer *layer, pp_phase phase,
                         int64_t samples);

/* The same of one of so many slices of a microbatch along its sequences. Not of opaque layers. */
double pp_analytic_slice(const pp_analytic *analytic, const pp_layer *layer, pp_phase phase,
                         int64_t samples, int slices, int slice);

/* Our mistakes and GSL's refusals come back as statuses; its default is to abort the program. Call
 * before any of its functions that can fail. */
void pp_gsl_start(void);

#endif
