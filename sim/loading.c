/* Reading data: who waits for it, and when it is there.
 *
 * The first stage of a chain reads what goes into the model, the last one what its loss is compared
 * with; a rank that has both reads once. Without prefetch a rank reads the data of a microbatch
 * when it has nothing else to do before its F: that is neither work nor overlapped with any. With
 * prefetch its reader goes on by itself, one microbatch after the other in the order of the rank's
 * forwards; the first was read during the step before. A smaller last microbatch takes less. */
#include "sim/engine_internal.h"

#include <math.h>

/* Marks the stages whose F needs data. */
static void find_readers(const pp_schedule *schedule, bool *reads) {
    for (int c = 0; c < schedule->chain_count; c++) {
        const pp_chain *chain = &schedule->chains[c];
        reads[chain->first] = true;
        if (schedule->placement[chain->first] != schedule->placement[chain->last])
            reads[chain->last] = true;
    }
}

static double load_s(const pp_sim_input *input, pp_action action) {
    bool scaled = input->last_microbatch_scale > 0 && pp_is_last(input->schedule, action);
    return scaled ? input->load_s * input->last_microbatch_scale : input->load_s;
}

static bool needs_data(const pp_loading *loading, pp_action action) {
    return loading->reads && action.kind == PP_FORWARD && loading->reads[action.stage];
}

/* When each microbatch has been read, in the order of the rank's forwards. */
static void read_ahead(pp_loading *loading, int p) {
    const pp_schedule *schedule = loading->input->schedule;
    double time_s = 0;
    bool first = true;
    for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++) {
        pp_action action = schedule->actions[i];
        if (!needs_data(loading, action) || action.slice > 0) continue;
        if (!first) time_s += load_s(loading->input, action);
        first = false;
        loading->there_s[action.stage][action.microbatch] = time_s;
    }
}

static pp_status make_rows(pp_loading *loading, pp_arena *arena, pp_error *error) {
    const pp_schedule *schedule = loading->input->schedule;
    loading->there_s = PP_NEW(arena, double *, schedule->stages);
    for (int s = 0; loading->there_s && s < schedule->stages; s++)
        if (loading->reads[s]) loading->there_s[s] = PP_NEW(arena, double, schedule->microbatches);
    if (arena->failed) return pp_fail_memory(error);
    for (int p = 0; p < schedule->ranks; p++) read_ahead(loading, p);
    return PP_OK;
}

pp_status pp_loading_make(pp_loading *loading, const pp_sim_input *input, pp_arena *arena,
                          pp_error *error) {
    *loading = (pp_loading){.input = input};
    if (input->load_s <= 0) return PP_OK;
    loading->reads = PP_NEW(arena, bool, input->schedule->stages);
    if (!loading->reads) return pp_fail_memory(error);
    find_readers(input->schedule, loading->reads);
    return input->prefetch ? make_rows(loading, arena, error) : PP_OK;
}

double pp_loaded_at(const pp_loading *loading, pp_action action, double free_s) {
    if (!needs_data(loading, action)) return free_s;
    if (loading->there_s) return fmax(free_s, loading->there_s[action.stage][action.microbatch]);
    return action.slice > 0 ? free_s : free_s + load_s(loading->input, action);
}
