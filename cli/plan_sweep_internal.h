/* What the files of ppsim plan share. */
#ifndef PPSIM_PLAN_SWEEP_INTERNAL_H
#define PPSIM_PLAN_SWEEP_INTERNAL_H

#include "planner/planner.h"

typedef struct pp_plan_sweep_settings {
    const char *sweep;
    bool json, csv; /* neither: a table */
} pp_plan_sweep_settings;

/* Searches and prints the curve. PP_E_NO_FIT: printed too, every point with its reason. */
pp_status pp_plan_sweep_print(const pp_plan_request *request, const pp_plan_sweep_settings *asked,
                              pp_text *text, pp_error *error);

#endif
