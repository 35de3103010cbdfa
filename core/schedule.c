/* Schedules as data: making, copying, hashing and opening them.
 *
 * All actions of all ranks are one array of 8-byte records, rank after rank; first_action says
 * where each rank's begin. Everything hangs in the schedule's arena, the large array last, so that
 * no block grows beyond what the counts ask for. */
#include "core/schedule_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- making -------------------------------------------------------------------------------- */

pp_status pp_schedule_allocate(int ranks, size_t stage_capacity, size_t chain_capacity,
                               size_t action_capacity, pp_schedule **schedule, pp_error *error) {
    *schedule = NULL;
    if (ranks < 1 || ranks > PP_RANKS_MAX)
        return pp_fail(error, PP_E_INPUT, NULL, "a schedule has 1 to %d ranks, not %d",
                       PP_RANKS_MAX, ranks);
    if (action_capacity > PP_ACTIONS_MAX)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "the schedule would have %zu actions; the most is %d", action_capacity,
                       PP_ACTIONS_MAX);
    pp_schedule *fresh = pp_allocate_zeroed(1, sizeof *fresh);
    if (!fresh) return pp_fail_memory(error);
    pp_arena_init(&fresh->arena);
    fresh->ranks = ranks;
    fresh->placement = PP_NEW(&fresh->arena, int, stage_capacity);
    fresh->chains = PP_NEW(&fresh->arena, pp_chain, chain_capacity);
    fresh->first_action = PP_NEW(&fresh->arena, size_t, ranks + 1);
    fresh->actions = PP_NEW(&fresh->arena, pp_action, action_capacity);
    if (fresh->arena.failed) {
        pp_schedule_free(fresh);
        return pp_fail_memory(error);
    }
    *schedule = fresh;
    return PP_OK;
}

pp_status pp_schedule_new(int ranks, int stages, int microbatches, size_t capacity,
                          pp_schedule **schedule, pp_error *error) {
    *schedule = NULL;
    if (stages < 1 || stages > PP_STAGES_MAX)
        return pp_fail(error, PP_E_INPUT, NULL, "a schedule has 1 to %d stages, not %d",
                       PP_STAGES_MAX, stages);
    if (microbatches < 1 || microbatches > PP_MICROBATCHES_MAX)
        return pp_fail(error, PP_E_INPUT, NULL, "a schedule has 1 to %d microbatches, not %d",
                       PP_MICROBATCHES_MAX, microbatches);
    PP_TRY(pp_schedule_allocate(ranks, (size_t)stages, 1, capacity, schedule, error));
    (*schedule)->stages = stages;
    (*schedule)->virtual_stages = (stages + ranks - 1) / ranks;
    (*schedule)->microbatches = microbatches;
    (*schedule)->slices = 1;
    (*schedule)->chains[0] = (pp_chain){0, stages - 1};
    (*schedule)->chain_count = 1;
    return PP_OK;
}

void pp_schedule_free(pp_schedule *schedule) {
    if (!schedule) return;
    pp_arena_deinit(&schedule->arena);
    pp_free(schedule);
}

void pp_schedule_name_after(pp_schedule *schedule, const char *file_name) {
    const char *slash = strrchr(file_name, '/');
    const char *base = slash && slash[1] != '\0' ? slash + 1 : file_name;
    /* copied by hand: a cut name is fine here */
    size_t length = strlen(base);
    if (length >= sizeof schedule->name) length = sizeof schedule->name - 1;
    memcpy(schedule->name, base, length);
    schedule->name[length] = '\0';
}

/* ---- small questions ----------------------------------------------------------------------- */

static const pp_chain *chain_of(const pp_schedule *schedule, int stage) {
    for (int c = 0; c < schedule->chain_count; c++)
        if (stage >= schedule->chains[c].first && stage <= schedule->chains[c].last)
            return &schedule->chains[c];
    return NULL;
}

int pp_schedule_previous(const pp_schedule *schedule, int stage) {
    const pp_chain *chain = chain_of(schedule, stage);
    return chain && stage > chain->first ? stage - 1 : -1;
}

int pp_schedule_next(const pp_schedule *schedule, int stage) {
    const pp_chain *chain = chain_of(schedule, stage);
    return chain && stage < chain->last ? stage + 1 : -1;
}

int pp_schedule_rank_of(const pp_schedule *schedule, size_t index) {
    int low = 0, high = schedule->ranks - 1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (schedule->first_action[middle] <= index)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* ---- completing what a reader found -------------------------------------------------------- */

/* The most stages that one rank has of one chain. held : [ranks] zeroes, counts stages. */
static int most_of_a_chain(const pp_schedule *schedule, int *held, int *before) {
    int most = 0;
    for (int c = 0; c < schedule->chain_count; c++) {
        memcpy(before, held, (size_t)schedule->ranks * sizeof *held);
        for (int s = schedule->chains[c].first; s <= schedule->chains[c].last; s++) {
            int p = schedule->placement[s];
            int now = ++held[p] - before[p];
            if (now > most) most = now;
        }
    }
    return most;
}

/* Sets virtual_stages from placement; every rank must have a stage. */
static pp_status count_virtual(pp_schedule *schedule, pp_error *error) {
    int *held = pp_allocate_zeroed(2 * (size_t)schedule->ranks, sizeof *held);
    if (!held) return pp_fail_memory(error);
    schedule->virtual_stages = most_of_a_chain(schedule, held, held + schedule->ranks);
    int p = 0;
    while (p < schedule->ranks && held[p] > 0) p++;
    pp_free(held);
    if (p == schedule->ranks) return PP_OK;
    return pp_fail(error, PP_E_INPUT, NULL,
                   "rank %d of %d has no stage; leave out its row, or give it one", p,
                   schedule->ranks);
}

/* Counts that follow from the actions. */
static void count_dimensions(pp_schedule *schedule) {
    schedule->slices = 1;
    for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++) {
        pp_action action = schedule->actions[i];
        if (action.stage >= schedule->stages) schedule->stages = action.stage + 1;
        if (action.slice >= schedule->slices) schedule->slices = action.slice + 1;
        if (pp_action_is_transfer(action)) schedule->has_transfers = true;
        if (pp_kind_has_microbatch(action.kind) &&
            action.microbatch >= (uint32_t)schedule->microbatches)
            schedule->microbatches = (int)action.microbatch + 1;
    }
}

/* The placement line, where there is one, must know every stage. */
static pp_status check_given_placement(pp_schedule *schedule, int placed, size_t *culprit,
                                       pp_error *error) {
    if (schedule->stages == placed) return PP_OK;
    char text[32];
    size_t i = 0;
    while (schedule->actions[i].stage < placed) i++;
    *culprit = i;
    return pp_fail(error, PP_E_INPUT, NULL, "%s names stage %d, but the placement has %d stages",
                   pp_action_text(schedule->actions[i], text), schedule->actions[i].stage, placed);
}

/* A stage is on the rank in whose row it first stands, and must not stand in another. */
static pp_status place_by_rows(pp_schedule *schedule, size_t *culprit, pp_error *error) {
    for (int s = 0; s < schedule->stages; s++) schedule->placement[s] = -1;
    for (int p = 0; p < schedule->ranks; p++) {
        for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++) {
            int *rank = &schedule->placement[schedule->actions[i].stage];
            if (*rank < 0) *rank = p;
            if (*rank == p) continue;
            char text[32];
            *culprit = i;
            return pp_fail(
                error, PP_E_INPUT, NULL,
                "%s stands in the row of rank %d, but stage %d has actions in the row of "
                "rank %d",
                pp_action_text(schedule->actions[i], text), p, schedule->actions[i].stage, *rank);
        }
    }
    for (int s = 0; s < schedule->stages; s++)
        if (schedule->placement[s] < 0)
            return pp_fail(error, PP_E_INPUT, NULL,
                           "stage %d of 0 to %d has no actions, so its rank is unknown; a line "
                           "'# placement: ...' could say",
                           s, schedule->stages - 1);
    return PP_OK;
}

pp_status pp_schedule_finish(pp_schedule *schedule, pp_schedule_given given, size_t *culprit,
                             pp_error *error) {
    *culprit = PP_NO_CULPRIT;
    schedule->stages = given.placed_stages;
    schedule->microbatches = 0;
    size_t count = schedule->first_action[schedule->ranks];
    if (count == 0) return pp_fail(error, PP_E_INPUT, NULL, "there are no actions");
    count_dimensions(schedule);
    if (given.placed_stages > 0)
        PP_TRY(check_given_placement(schedule, given.placed_stages, culprit, error));
    else if ((size_t)schedule->stages > count)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "there are %zu actions, too few for the stages 0 to %d", count,
                       schedule->stages - 1);
    else
        PP_TRY(place_by_rows(schedule, culprit, error));
    if (schedule->microbatches == 0)
        return pp_fail(error, PP_E_INPUT, NULL, "there is no action with a microbatch");
    if (!given.chains) {
        schedule->chains[0] = (pp_chain){0, schedule->stages - 1};
        schedule->chain_count = 1;
    }
    pp_units units;
    PP_TRY(pp_units_init(&units, schedule, culprit, error));
    pp_units_deinit(&units);
    return count_virtual(schedule, error);
}

/* ---- copies and hashes --------------------------------------------------------------------- */

pp_status pp_schedule_drop_transfers(const pp_schedule *schedule, pp_schedule **compute,
                                     pp_error *error) {
    size_t count = schedule->first_action[schedule->ranks];
    pp_schedule *copy;
    *compute = NULL;
    PP_TRY(pp_schedule_copy_frame(schedule, count, &copy, error));
    size_t kept = 0;
    for (int p = 0; p < schedule->ranks; p++) {
        copy->first_action[p] = kept;
        for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1]; i++)
            if (!pp_action_is_transfer(schedule->actions[i]))
                copy->actions[kept++] = schedule->actions[i];
    }
    copy->first_action[schedule->ranks] = kept;
    *compute = copy;
    return PP_OK;
}

pp_status pp_schedule_copy_frame(const pp_schedule *schedule, size_t action_capacity,
                                 pp_schedule **copy, pp_error *error) {
    PP_TRY(pp_schedule_allocate(schedule->ranks, (size_t)schedule->stages,
                                (size_t)schedule->chain_count, action_capacity, copy, error));
    pp_schedule *fresh = *copy;
    memcpy(fresh->name, schedule->name, sizeof fresh->name);
    fresh->stages = schedule->stages;
    fresh->virtual_stages = schedule->virtual_stages;
    fresh->microbatches = schedule->microbatches;
    fresh->slices = schedule->slices;
    fresh->chain_count = schedule->chain_count;
    memcpy(fresh->placement, schedule->placement, (size_t)schedule->stages * sizeof(int));
    memcpy(fresh->chains, schedule->chains, (size_t)schedule->chain_count * sizeof(pp_chain));
    return PP_OK;
}

/* Little-endian, so that the hash is the same on every machine. */
static uint64_t hash_number(uint64_t hash, uint64_t number) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(number >> 8 * i);
    return pp_hash(hash, bytes, sizeof bytes);
}

static uint64_t action_number(pp_action action) {
    return (uint64_t)action.kind | (uint64_t)action.overlapped << 7 | (uint64_t)action.slice << 8 |
           (uint64_t)action.stage << 16 | (uint64_t)action.microbatch << 32;
}

uint64_t pp_schedule_hash(const pp_schedule *schedule) {
    uint64_t hash = hash_number(PP_HASH_START, (uint64_t)schedule->ranks);
    hash = hash_number(hash, (uint64_t)schedule->stages);
    for (int s = 0; s < schedule->stages; s++)
        hash = hash_number(hash, (uint64_t)schedule->placement[s]);
    hash = hash_number(hash, (uint64_t)schedule->chain_count);
    for (int c = 0; c < schedule->chain_count; c++) {
        hash = hash_number(hash, (uint64_t)schedule->chains[c].first);
        hash = hash_number(hash, (uint64_t)schedule->chains[c].last);
    }
    for (int p = 0; p < schedule->ranks; p++) {
        size_t begin = schedule->first_action[p], end = schedule->first_action[p + 1];
        hash = hash_number(hash, end - begin);
        for (size_t i = begin; i < end; i++)
            hash = hash_number(hash, action_number(schedule->actions[i]));
    }
    return hash;
}

/* ---- opening ------------------------------------------------------------------------------- */

static bool looks_like_json(const pp_text *text) {
    for (size_t i = 0; i < text->length; i++)
        if (!strchr(" \t\r\n", text->bytes[i])) return text->bytes[i] == '{';
    return false;
}

pp_status pp_schedule_open(const char *path, pp_schedule **schedule, pp_error *error) {
    pp_text text;
    *schedule = NULL;
    PP_TRY(pp_file_read(path, PP_FILE_LIMIT_BYTES, &text, error));
    pp_status status = looks_like_json(&text)
                           ? pp_schedule_read_json(text.bytes, text.length, path, schedule, error)
                           : pp_schedule_read_csv(text.bytes, text.length, path, schedule, error);
    pp_text_deinit(&text);
    return status;
}

int64_t pp_schedule_all_microbatches(const pp_schedule *schedule) {
    int64_t all = 0;
    if (schedule->chain_count == 1) return schedule->microbatches;
    for (int c = 0; c < schedule->chain_count; c++) {
        uint32_t of_chain = 0;
        for (size_t i = 0; i < schedule->first_action[schedule->ranks]; i++) {
            pp_action action = schedule->actions[i];
            bool inside = action.stage >= schedule->chains[c].first &&
                          action.stage <= schedule->chains[c].last;
            if (action.kind == PP_FORWARD && inside && action.microbatch >= of_chain)
                of_chain = action.microbatch + 1;
        }
        all += of_chain;
    }
    return all;
}
