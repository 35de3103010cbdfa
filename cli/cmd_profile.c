/* ppsim profile: times a model's layers on a device and keeps every sample in the store. */
#include "cli/cli.h"
#include "executor/executor.h"
#include "profiles/profiles.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct profile_settings {
    const char *device, *db, *microbatch, *dtype;
    double cap_s, interval;
    int64_t remove, sequence;
    int64_t neighbours; /* -1: as many as the other cores */
    bool list, links, alone, no_dropout;
} profile_settings;

static const pp_option options[] = {
    {0, "db", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(profile_settings, db),
     "the profile store; made if it is not there"},
    {0, "device", NULL, "DEVICE", NULL, PP_OPTION_STRING, offsetof(profile_settings, device),
     "what to measure on (default cpu)"},
    {0, "microbatch", NULL, "LIST", NULL, PP_OPTION_STRING, offsetof(profile_settings, microbatch),
     "microbatch sizes to time (default 1,2,4,8)"},
    {0, "dtype", NULL, "TYPE", "fp32|bf16", PP_OPTION_STRING, offsetof(profile_settings, dtype),
     "default fp32"},
    {0, "no-dropout", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(profile_settings, no_dropout),
     "train without the dropout that the model has"},
    {0, "sequence", NULL, "N", NULL, PP_OPTION_SIZE, offsetof(profile_settings, sequence),
     "sequence length instead of the model's own"},
    {0, "links", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(profile_settings, links),
     "time the transport between ranks only; needs no MODEL"},
    {0, "neighbours", NULL, "N", NULL, PP_OPTION_NUMBER, offsetof(profile_settings, neighbours),
     "also time with N other ranks busy (default: on the CPU one less than the cores, else 0); on "
     "a "
     "GPU instead, each rank on one of N + 1 equal slices: keep those in a store of their own"},
    {0, "alone", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(profile_settings, alone),
     "do not time with busy neighbours"},
    {0, "interval", NULL, "PERCENT", NULL, PP_OPTION_PERCENT, offsetof(profile_settings, interval),
     "repeat until the median is known this well (default 2%)"},
    {0, "cap", NULL, "S", NULL, PP_OPTION_FACTOR, offsetof(profile_settings, cap_s),
     "but at most S seconds for each layer, phase and size (default 2)"},
    {0, "list", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(profile_settings, list),
     "list the sessions in the store"},
    {0, "delete", NULL, "ID", NULL, PP_OPTION_SIZE, offsetof(profile_settings, remove),
     "delete a session from the store"},
};

static const profile_settings defaults = {.neighbours = -1, .interval = 0.02};

/* ---- list and delete ----------------------------------------------------------------------- */

static pp_status list_sessions(const char *db, pp_text *text, pp_error *error) {
    pp_store *store;
    pp_session *sessions = NULL;
    size_t count = 0;
    PP_TRY(pp_store_open(db, true, &store, error));
    pp_status status = pp_store_sessions(store, &sessions, &count, error);
    if (status == PP_OK) {
        pp_table table = pp_table_start("rlllllr");
        static const char *const heads[] = {"id",      "date",  "model",  "device",
                                            "backend", "dtype", "samples"};
        for (int i = 0; i < 7; i++) pp_table_cell(&table, "%s", heads[i]);
        for (size_t i = 0; i < count; i++) {
            pp_table_cell(&table, "%lld", (long long)sessions[i].id);
            pp_table_cell(&table, "%s", sessions[i].date);
            pp_table_cell(&table, "%s", sessions[i].model);
            pp_table_cell(&table, "%s", sessions[i].device);
            pp_table_cell(&table, "%s", sessions[i].backend);
            pp_table_cell(&table, "%s", pp_dtype_name(sessions[i].dtype));
            pp_table_cell(&table, "%lld", (long long)sessions[i].sample_count);
        }
        pp_table_print(&table, text);
    }
    pp_free(sessions);
    pp_store_close(store);
    return status;
}

static pp_status delete_session(const char *db, int64_t id, pp_error *error) {
    pp_store *store;
    if (access(db, F_OK) != 0)
        return pp_fail(error, PP_E_INPUT, db, "there is no such profile store");
    PP_TRY(pp_store_open(db, false, &store, error));
    pp_status status = pp_store_delete(store, id, error);
    pp_store_close(store);
    return status;
}

/* ---- measuring ----------------------------------------------------------------------------- */

/* Samples as they come in; `failed` when memory ran out. */
typedef struct collector {
    pp_sample *samples;
    size_t count, capacity;
    bool failed;
    int capped; /* series that ran out of time */
    double worst_interval;
    char worst[128];
    int drifted; /* series during which the machine did not stay as it was */
    double worst_drift;
    char worst_drifted[128];
} collector;

static void collect(void *context, const pp_sample *sample) {
    collector *c = context;
    if (c->count == c->capacity && !c->failed) {
        size_t capacity = c->capacity ? 2 * c->capacity : 1024;
        pp_sample *larger = pp_reallocate(c->samples, capacity * sizeof *larger);
        if (larger) {
            c->samples = larger;
            c->capacity = capacity;
        } else {
            c->failed = true;
        }
    }
    if (!c->failed) c->samples[c->count++] = *sample;
}

static void show_progress(void *context, double fraction, const char *what) {
    (void)context;
    pp_progress(fraction, what);
}

/* Counted, and told once at the end: on a busy machine there are dozens. */
static void count_cap(void *context, const char *what, double reached_interval) {
    collector *c = context;
    c->capped++;
    if (reached_interval <= c->worst_interval) return;
    c->worst_interval = reached_interval;
    snprintf(c->worst, sizeof c->worst, "%s", what);
}

static void count_drift(void *context, const char *what, double drift) {
    collector *c = context;
    c->drifted++;
    if (fabs(drift) <= fabs(c->worst_drift)) return;
    c->worst_drift = drift;
    snprintf(c->worst_drifted, sizeof c->worst_drifted, "%s", what);
}

static void warn_of_drift(const collector *c) {
    if (c->drifted == 0) return;
    pp_warn("%d of the times changed while they were measured, the most by %+.1f %% (%s): a clock "
            "that falls or others at work; measure again when the machine is quiet",
            c->drifted, 100 * c->worst_drift, c->worst_drifted);
}

static void warn_of_caps(const collector *c) {
    if (c->capped == 0) return;
    char known[48] = "by fewer than six samples";
    if (isfinite(c->worst_interval))
        snprintf(known, sizeof known, "to %.1f %%", 100 * c->worst_interval);
    pp_warn(
        "%d of the medians are known less well than asked for when their time was up, the worst "
        "%s (%s); is the machine busy? --cap gives more time",
        c->capped, known, c->worst);
}

enum { MICROBATCH_SIZES = 32 };

static pp_status parse_sizes(const char *list, int64_t *sizes, int *count, pp_error *error) {
    *count = 0;
    for (const char *item = list; *item;) {
        char number[32];
        size_t length = strcspn(item, ",");
        if (length == 0 || length >= sizeof number || *count == MICROBATCH_SIZES)
            return pp_fail(error, PP_E_INPUT, "--microbatch",
                           "'%s' is not a list of at most %d sizes, as in 1,2,4", list,
                           MICROBATCH_SIZES);
        memcpy(number, item, length);
        number[length] = '\0';
        if (!pp_parse_int(number, 1, 1 << 20, &sizes[(*count)++]))
            return pp_fail(error, PP_E_INPUT, "--microbatch", "'%s' is not a size from 1 to %d",
                           number, 1 << 20);
        item += length + (item[length] == ',');
    }
    return *count > 0 ? PP_OK
                      : pp_fail(error, PP_E_INPUT, "--microbatch", "expected a list, as in 1,2,4");
}

static void describe_session(const profile_settings *settings, const char *model, pp_dtype dtype,
                             pp_session *session) {
    const char *device = settings->device ? settings->device : "cpu";
    time_t now = time(NULL);
    struct tm utc;
    pp_measure_describe(device, session->device, session->driver, session->libraries,
                        session->clocks);
    snprintf(session->backend, sizeof session->backend, "%.*s", (int)strcspn(device, ":"), device);
    size_t room = sizeof session->model - 1, length = strlen(model);
    if (length > room) /* cut between characters, not inside one */
        for (length = room; length > 0 && ((unsigned char)model[length] & 0xC0) == 0x80;) length--;
    snprintf(session->model, sizeof session->model, "%.*s", (int)length, model);
    session->dtype = dtype;
    strftime(session->date, sizeof session->date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
}

static pp_status measure(const profile_settings *settings, const pp_model *model, pp_dtype dtype,
                         collector *samples, pp_error *error) {
    int64_t sizes[MICROBATCH_SIZES];
    int size_count;
    PP_TRY(parse_sizes(settings->microbatch ? settings->microbatch : "1,2,4,8", sizes, &size_count,
                       error));
    int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);
    bool cpu = !settings->device || strcmp(settings->device, "cpu") == 0;
    int64_t neighbours = settings->neighbours >= 0 ? settings->neighbours : cpu ? cores - 1 : 0;
    if (settings->alone) neighbours = 0;
    if (neighbours >= cores)
        return pp_fail(error, PP_E_INPUT, "--neighbours",
                       "%lld busy neighbours and the measured rank need more than %lld cores",
                       (long long)neighbours, (long long)cores);
    pp_measure_options options_ = {.model = model,
                                   .device = settings->device ? settings->device : "cpu",
                                   .dtype = dtype,
                                   .microbatches = sizes,
                                   .microbatch_count = size_count,
                                   .neighbours = (int)neighbours,
                                   .interval = settings->interval,
                                   .cap_s = settings->cap_s,
                                   .on_progress = show_progress,
                                   .on_sample = collect,
                                   .on_cap = count_cap,
                                   .on_drift = count_drift,
                                   .context = samples};
    if (!settings->links) PP_TRY(pp_measure(&options_, error));
    options_.links = true;
    PP_TRY(pp_measure(&options_, error));
    return samples->failed ? pp_fail_memory(error) : PP_OK;
}

/* model: NULL for links alone. */
static pp_status profile_model(const profile_settings *settings, const pp_model *model,
                               pp_output *output, pp_error *error) {
    pp_store *store;
    pp_session session = {0};
    collector samples = {0};
    pp_dtype dtype = PP_FP32;
    if (settings->dtype) pp_dtype_from_name(settings->dtype, &dtype);
    /* opened first: minutes of measuring must not end in a file that cannot be written */
    PP_TRY(pp_store_open(settings->db, false, &store, error));
    double start = pp_now_s();
    pp_status status = measure(settings, model, dtype, &samples, error);
    pp_progress_clear();
    if (status == PP_OK) {
        warn_of_caps(&samples);
        warn_of_drift(&samples);
        describe_session(settings, model ? model->name : "links", dtype, &session);
        status = pp_store_add(store, &session, samples.samples, samples.count, error);
    }
    if (status == PP_OK)
        pp_text_printf(&output->out, "%s: session %lld, %s on %s (%s), %zu samples, %.1f s\n",
                       settings->db, (long long)session.id, session.model, session.device,
                       pp_dtype_name(dtype), samples.count, pp_now_s() - start);
    pp_free(samples.samples);
    pp_store_close(store);
    return status;
}

static pp_status run_profile(const void *settings_, const char *const *arguments, int count,
                             pp_output *output, pp_error *error) {
    const profile_settings *settings = settings_;
    pp_model *model;
    if (!settings->db) return pp_fail(error, PP_E_INPUT, NULL, "ppsim profile needs --db FILE");
    if (settings->list) return list_sessions(settings->db, &output->out, error);
    if (settings->remove) return delete_session(settings->db, settings->remove, error);
    if (settings->links && count == 0) return profile_model(settings, NULL, output, error);
    if (count == 0)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "ppsim profile needs a MODEL; 'ppsim models' lists those known by name");
    PP_TRY(pp_model_open(arguments[0], &model, error));
    pp_status status = PP_OK;
    if (settings->sequence) status = pp_model_set_sequence(model, settings->sequence, error);
    if (settings->no_dropout) pp_model_clear_dropout(model);
    if (status == PP_OK) status = profile_model(settings, model, output, error);
    pp_model_free(model);
    return status;
}

const pp_subcommand pp_cmd_profile = {
    .name = "profile",
    .arguments = "[MODEL]",
    .maximum_arguments = 1,
    .summary = "times a model's layers on this machine into a profile store",
    .description =
        "Every distinct layer is timed forward, backward for the input, backward for the weights "
        "and in the optimizer, alone and beside busy neighbours, on random data, until the median "
        "is known well enough. Raw samples are kept.",
    PP_OPTIONS(options),
    .settings_size = sizeof(profile_settings),
    .defaults = &defaults,
    .run = run_profile,
};
