/* The parts of pp_run. */
#ifndef PPSIM_EXECUTOR_RUN_INTERNAL_H
#define PPSIM_EXECUTOR_RUN_INTERNAL_H

#include "executor/worker_internal.h"

/* run_check.c: everything about plan and schedule that would go wrong later, said before anything
 * starts. PP_E_UNSUPPORTED: well formed, but this executor cannot do it. */
pp_status pp_run_check(const pp_plan *plan, const pp_schedule *schedule, const pp_backend *backend,
                       pp_error *error);
/* Once the groups are known: REDUCE_GRAD where weights are shared, STEP everywhere. */
pp_status pp_run_check_updates(const pp_schedule *schedule, const pp_reduce *reduce,
                               pp_error *error);

/* measured.c: report of a finished step (its workers wait), and the summary of all. */
pp_step_report pp_measured_step(const pp_job *job, int step, double start_s);
pp_status pp_measured_summary(const pp_job *job, pp_run_result *result, pp_error *error);

#endif
