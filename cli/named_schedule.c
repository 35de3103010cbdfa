/* A schedule by name: the options that `schedule` and `simulate` share. */
#include "cli/cli.h"
#include "sim/sim.h"

bool pp_named_schedule_options(const pp_named_schedule *named) {
    return named->group || named->slices || named->recompute || named->reverse_backward;
}

void pp_named_schedule_request(const pp_named_schedule *named, const char *name,
                               pp_schedule_request *request) {
    *request = (pp_schedule_request){.name = name,
                                     .ranks = named->ranks,
                                     .microbatches = named->microbatches,
                                     .virtual_stages = named->virtual_stages,
                                     .group = named->group,
                                     .slices = named->slices,
                                     .reverse_backward = named->reverse_backward};
    if (named->recompute) pp_recompute_from_name(named->recompute, &request->recompute);
}
