/* The parts of pp_run. */
#ifndef PPSIM_EXECUTOR_RUN_INTERNAL_H
#define PPSIM_EXECUTOR_RUN_INTERNAL_H

#include "executor/processes_internal.h"
#include "executor/worker_internal.h"

/* run_check.c: everything about plan and schedule that would go wrong later, said before anything
 * starts. PP_E_UNSUPPORTED: well formed, but this executor cannot do it. */
pp_status pp_run_check(const pp_plan *plan, const pp_schedule *schedule, const pp_backend *backend,
                       pp_error *error);
/* Once the groups are known: REDUCE_GRAD where weights are shared, STEP everywhere. */
pp_status pp_run_check_updates(const pp_schedule *schedule, const pp_reduce *reduce,
                               pp_error *error);

/* What clipping asks of the ends of the rows, where all gradients have to be there at once. */
pp_status pp_run_check_clip(const pp_schedule *schedule, pp_error *error);

/* measured.c: report of a finished step (its workers wait), and the summary of all. */
pp_step_report pp_measured_step(const pp_job *job, int step, double start_s);
pp_status pp_measured_summary(pp_job *job, pp_run_result *result, pp_error *error);

/* devices.c */

/* Gives every worker of this machine its seat. PP_E_INPUT, PP_E_UNSUPPORTED: --device or --slices
 * cannot be had. */
pp_status pp_devices_seat(pp_job *job, pp_error *error);
/* Seat of rank `index` of `count` on a machine with so many devices, from `first` on. */
pp_backend_seat pp_seat_of(int index, int count, int first, int devices, int slices);
/* How many ranks of this machine share the device that most have. */
int pp_devices_most_sharers(const pp_job *job);
/* Slices, memory and names of the devices, before anything is opened. */
pp_status pp_devices_check(const pp_job *job, pp_error *error);

/* transports.c: sets the job's transport, and the carrier of a device's. */
pp_status pp_transport_choose(pp_job *job, pp_error *error);

/* spread.c: one job over several processes. */

/* Which process each worker runs in. */
pp_status pp_spread_workers(pp_job *job, pp_error *error);
/* Which of the workers of this machine, of all processes, by the numbers of their devices. */
int pp_spread_index(const pp_job *job, const pp_worker *worker);
/* What the leader of a gate does (pp_gate_lead): the latest of all processes; with the gate `finish`
 * also what each worker did in the step, which process 0 gets. */
pp_status pp_spread_start(void *job, double *value);
pp_status pp_spread_finish(void *job, double *value);
/* With the gate of the norm: the squares of all processes come together, and all get them. */
pp_status pp_spread_norm(void *job, double *value);
/* Brings the spans of process 0's choice of a step to it. */
pp_status pp_spread_trace(pp_job *job, int step, pp_error *error);
/* ", 4 processes, clocks within 3.1 us" */
void pp_spread_title(const pp_job *job, char *text, size_t size);
/* The same for all processes that do the same. 0: out of memory. */
uint64_t pp_spread_key(const pp_job *job);

#endif
