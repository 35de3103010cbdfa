/* What is wanted of a plan, as a table.
 *
 * A search is proved for its objective, not for time alone: the value of a candidate's lower bound
 * of step time is a lower bound of its value, since no value falls when the step takes longer.
 *
 *   time, throughput   the step itself; with the batch given, samples per second are its inverse
 *   cost               step × price of the devices used, which are known
 *   devices            their number, which is known; plans of one number by time
 *   memory             the smallest peak is found before (search_memory.c), and what is left is the
 *                      fastest plan within it */
#include <stdio.h>
#include <string.h>

#include "planner/search_internal.h"

static double seconds_value(const pp_candidate *candidate, double seconds) {
    (void)candidate;
    return seconds;
}

static double devices_value(const pp_candidate *candidate, double seconds) {
    (void)seconds;
    return (double)candidate->ranks * candidate->arrangement->width;
}

static double cost_value(const pp_candidate *candidate, double seconds) {
    return candidate->arrangement->cost_per_hour / 3600 * seconds;
}

static const char *devices_text(double value, char buffer[32]) {
    snprintf(buffer, 32, "%.0f device%s", value, value == 1 ? "" : "s");
    return buffer;
}

static const char *cost_text(double value, char buffer[32]) {
    snprintf(buffer, 32, "%.4g a step", value);
    return buffer;
}

static const pp_objective objectives[] = {{.name = "time",
                                           .unit = "s",
                                           .goal = "the shortest step",
                                           .value = seconds_value,
                                           .text = pp_format_seconds},
                                          {.name = "throughput",
                                           .unit = "s",
                                           .goal = "the most samples a second",
                                           .value = seconds_value,
                                           .text = pp_format_seconds},
                                          {.name = "memory",
                                           .unit = "bytes",
                                           .goal = "the smallest peak memory",
                                           .value = seconds_value,
                                           .text = pp_format_bytes,
                                           .least_memory = true},
                                          {.name = "devices",
                                           .unit = "devices",
                                           .goal = "the fewest devices",
                                           .value = devices_value,
                                           .text = devices_text,
                                           .timeless = true},
                                          {.name = "cost",
                                           .unit = "currency/step",
                                           .goal = "the cheapest step",
                                           .value = cost_value,
                                           .text = cost_text,
                                           .priced = true}};

enum { OBJECTIVES = sizeof objectives / sizeof *objectives };

const char *pp_objective_name(const pp_objective *objective) {
    return objective->name;
}

const char *pp_objective_unit(const pp_objective *objective) {
    return objective->unit;
}

const char *pp_objective_text(const pp_objective *objective, double value, char buffer[32]) {
    return objective->text(value, buffer);
}

static pp_status check_prices(const pp_cluster *cluster, pp_error *error) {
    for (int i = 0; i < pp_cluster_device_count(cluster); i++) {
        const pp_device *device = pp_cluster_device(cluster, i);
        if (device->cost_per_hour > 0) continue;
        return pp_fail(error, PP_E_INPUT, "--objective",
                       "cost needs a price of every device, but %s gives %s no cost_per_hour",
                       cluster->name, device->name);
    }
    return PP_OK;
}

pp_status pp_objective_find(const char *name, const pp_cluster *cluster,
                            const pp_objective **objective, pp_error *error) {
    char known[128] = "";
    size_t length = 0;
    *objective = &objectives[0];
    if (name == NULL) return PP_OK;
    for (int i = 0; i < OBJECTIVES; i++) {
        *objective = &objectives[i];
        if (strcmp(name, objectives[i].name) == 0)
            return objectives[i].priced ? check_prices(cluster, error) : PP_OK;
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "",
                                   objectives[i].name);
    }
    return pp_fail(error, PP_E_INPUT, "--objective", "'%s' is not an objective; known are %s", name,
                   known);
}
