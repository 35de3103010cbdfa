/* Small random worlds for the planner's tests: models of opaque layers and clusters, from text as a
 * user would write them, with their costs. */
#ifndef PPSIM_TESTS_PLANNER_FIXTURE_H
#define PPSIM_TESTS_PLANNER_FIXTURE_H

#include "planner/planner_internal.h"

typedef struct world {
    pp_model *model;
    pp_cluster *cluster;
    pp_costs *costs;
    bool unequal;            /* it matters which device has which position */
    pp_plan_request request; /* points at the three; batch, dtype, memory are set */
} world;

typedef struct world_size {
    int layers_max, devices_max, batch_max;
    bool memory;  /* tight memory limits, different ones by device */
    bool unequal; /* devices of different speed, and links that are exceptions */
} world_size;

/* A numbered random world; the same number gives the same world. */
world world_random(uint64_t seed, world_size size);
/* From documents or presets. */
world world_open(const char *model, const char *cluster, int64_t batch);
world world_read(const char *model_text, const char *cluster_text, int64_t batch);
void world_free(world *w);

/* The plan as its document. Caller: pp_text_deinit. */
pp_text plan_text(const pp_plan *plan);

#endif
