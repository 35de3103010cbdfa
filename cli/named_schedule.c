/* A schedule by name: the options that `schedule` and `simulate` share. */
#include "cli/cli.h"
#include "sim/sim.h"

#include <string.h>

bool pp_named_schedule_is_file(const char *name) {
    return strchr(name, '/') || strchr(name, '.');
}

bool pp_named_schedule_options(const pp_named_schedule *named) {
    return named->group || named->slices || named->minibatches || named->recompute ||
           named->reverse_backward;
}

pp_status pp_named_schedule_request(const pp_named_schedule *named, const char *name,
                                    pp_schedule_request *request, pp_error *error) {
    *request = (pp_schedule_request){.name = name,
                                     .ranks = named->ranks,
                                     .microbatches = named->microbatches,
                                     .virtual_stages = named->virtual_stages,
                                     .group = named->group,
                                     .slices = named->slices,
                                     .minibatches = named->minibatches,
                                     .reverse_backward = named->reverse_backward};
    if (!named->recompute || pp_recompute_from_name(named->recompute, &request->recompute))
        return PP_OK;
    return pp_fail(error, PP_E_INPUT, "--recompute", "'%s' is not a policy; known are %s",
                   named->recompute, pp_recompute_names);
}

static pp_status agree(const char *option, int64_t given, int64_t file, pp_error *error) {
    if (!given || given == file) return PP_OK;
    return pp_fail(error, PP_E_INPUT, option, "%lld contradicts the schedule file, which has %lld",
                   (long long)given, (long long)file);
}

pp_status pp_named_schedule_agrees(const pp_named_schedule *named, const pp_schedule *schedule,
                                   const char *path, pp_error *error) {
    PP_TRY(agree("--ranks", named->ranks, schedule->ranks, error));
    PP_TRY(agree("--microbatches", named->microbatches, pp_schedule_all_microbatches(schedule),
                 error));
    PP_TRY(agree("--virtual", named->virtual_stages, schedule->virtual_stages, error));
    if (!pp_named_schedule_options(named)) return PP_OK;
    return pp_fail(error, PP_E_INPUT, path,
                   "--group, --slices, --recompute and --reverse-backward are for schedules by "
                   "name; a file says its order itself");
}
