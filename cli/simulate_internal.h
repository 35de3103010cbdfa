/* What the files of `ppsim simulate` share: its settings, and one simulation however described. */
#ifndef PPSIM_SIMULATE_INTERNAL_H
#define PPSIM_SIMULATE_INTERNAL_H

#include "cli/cli.h"
#include "sim/sim.h"

typedef struct simulate_settings {
    pp_named_schedule named;
    const char *schedule, *costs, *stage_costs, *trace, *schedule_out;
    const char *objective, *slow, *db;
    double jitter, transfer_jitter, launch_s, transfer_slowdown, load_s;
    int replications, reduce_buckets;
    bool sensitivity, prefetch;
    double comm_s, overlap_factor, activation_limit;
    int64_t activation_bytes, seed, budget;
    bool blocking, json;
} simulate_settings;

/* Everything one simulation needs, whichever way it was described. */
typedef struct simulation {
    pp_plan *plan;
    pp_schedule *schedule;
    pp_sim_input input;
    pp_uniform uniform; /* valid where is_uniform */
    bool is_uniform;
    double activation_limit_bytes; /* 0: none */
    pp_auto_result made;           /* of --schedule auto; its schedule is the one above */
    bool is_auto;
    const pp_schedule_family *family; /* of a schedule by name; NULL otherwise */
    pp_schedule_request request;      /* likewise */
    pp_sim_result *result;
    pp_replications *replications; /* NULL unless asked for */
    const pp_sim_draws *draws;     /* of them; NULL without --db */
    pp_sensitivity *sensitivity;   /* likewise … */
    pp_change *layers;             /* … and of a plan's model */
    pp_arena arena;
} simulation;

/* Fills schedule, input and the limit from --schedule and --costs or --stage-costs; for `auto`,
 * makes the schedule. */
pp_status pp_simulate_describe(const simulate_settings *settings, simulation *sim, pp_error *error);

/* Stragglers, jitter, launch times and reading of data, put into the input before it is simulated.
 */
pp_status pp_simulate_disturb(const simulate_settings *settings, simulation *sim, pp_error *error);
/* --db: fills *draws, [stages], from the samples that a store has of the plan's layers. */
pp_status pp_simulate_draws(const char *db, const pp_plan *plan, pp_arena *arena,
                            const pp_sim_draws **draws, pp_error *error);
/* --replications and --sensitivity: fills them in. */
pp_status pp_simulate_repeat(const simulate_settings *settings, simulation *sim, pp_error *error);
void pp_simulate_repeat_json(const simulation *sim, pp_json *json);
void pp_simulate_repeat_text(const simulation *sim, pp_text *text);
/* --sensitivity of a plan: fills sim->layers; db: NULL, or the store that says how a stage's times
 * are divided among its layers. */
pp_status pp_simulate_layers(const char *db, simulation *sim, pp_error *error);
/* Weight versions and steady state of an asynchronous schedule; nothing for others. */
void pp_simulate_async_json(const simulation *sim, pp_json *json);
void pp_simulate_async_text(const simulation *sim, pp_text *text);

#endif
