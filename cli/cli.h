/* cli: floor 4, the program. One file per subcommand, each a row of the table in main.c.
 *
 * Options are rows too: parsing, help text, the man page and shell completion all come from the
 * same table, so they cannot disagree. A subcommand fills a struct of settings by offset and gets
 * it whole. Results go to stdout in one piece at the end; everything else goes to stderr. */
#ifndef PPSIM_CLI_H
#define PPSIM_CLI_H

#include "core/core.h"

/* ---- options ------------------------------------------------------------------------------- */

typedef enum pp_option_kind {
    PP_OPTION_FLAG,    /* bool */
    PP_OPTION_STRING,  /* const char * */
    PP_OPTION_COUNT,   /* int, at least 1 */
    PP_OPTION_NUMBER,  /* int64_t, at least 0 */
    PP_OPTION_SIZE,    /* int64_t, at least 1 */
    PP_OPTION_SECONDS, /* double, at least 0 */
    PP_OPTION_FACTOR,  /* double, above 0 */
    PP_OPTION_PERCENT, /* double: "3%" gives 0.03, and so does "0.03" */
    PP_OPTION_BYTES    /* int64_t */
} pp_option_kind;

typedef struct pp_option {
    char letter;          /* 'K', or 0 */
    const char *name;     /* "ranks" */
    const char *alias;    /* a second long name, or NULL */
    const char *argument; /* "K" in help; NULL for flags */
    const char *values;   /* "png|svg|pdf": the only values allowed; NULL: any */
    pp_option_kind kind;
    size_t offset; /* of the field in the settings */
    const char *help;
} pp_option;

/* Where the output of a subcommand goes. */
typedef struct pp_output {
    pp_text out; /* written to stdout at the end, also when the subcommand fails */
    struct pp_processes *processes; /* of a run, to be left when all is said; NULL: one */
    bool silent;                    /* another process speaks for this one */
} pp_output;

typedef pp_status pp_subcommand_run(const void *settings, const char *const *arguments,
                                    int argument_count, pp_output *output, pp_error *error);

typedef struct pp_subcommand {
    const char *name;
    const char *arguments; /* "PLAN" in the usage line; "" for none */
    int minimum_arguments, maximum_arguments;
    const char *summary;     /* one line */
    const char *description; /* paragraphs for help and man page */
    const pp_option *options;
    int option_count;
    size_t settings_size;
    const void *defaults; /* settings to start from; NULL: all zero */
    bool together;        /* processes that mpirun starts with it work together, and one speaks */
    pp_subcommand_run *run;
} pp_subcommand;

#define PP_OPTIONS(table) .options = (table), .option_count = (int)(sizeof(table) / sizeof *(table))

/* Splits the command line of one subcommand. settings holds the defaults;
 * arguments gets the positional ones (at most argc). Errors name the option. *help is set by -h. */
pp_status pp_options_parse(const pp_subcommand *subcommand, int argc, char **argv, void *settings,
                           const char **arguments, int *argument_count, bool *help,
                           pp_error *error);

/* ---- the table ----------------------------------------------------------------------------- */

extern const pp_subcommand pp_cmd_profile, pp_cmd_schedule, pp_cmd_simulate, pp_cmd_plan,
    pp_cmd_render, pp_cmd_run, pp_cmd_validate, pp_cmd_models, pp_cmd_clusters, pp_cmd_schedules,
    pp_cmd_doctor, pp_cmd_import, pp_cmd_export, pp_cmd_help;

const pp_subcommand *const *pp_subcommands(int *count);
const pp_subcommand *pp_subcommand_find(const char *name); /* NULL if unknown */

/* ---- help.c -------------------------------------------------------------------------------- */

void pp_help_program(pp_text *text);
void pp_help_subcommand(const pp_subcommand *subcommand, pp_text *text);
void pp_version_text(pp_text *text); /* ppsim and its libraries, a line each */

/* ---- terminal.c ---------------------------------------------------------------------------- */

/* A table for people: cells are added row by row, columns are aligned when it is printed. */
typedef struct pp_table {
    pp_text cells; /* NUL-separated */
    int columns, cell_count;
    const char *alignment; /* "lrr": a letter per column */
} pp_table;
pp_table pp_table_start(const char *alignment);
void pp_table_cell(pp_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void pp_table_print(pp_table *table, pp_text *text); /* and frees it */

/* A bar on stderr, on a terminal only; shown from the second on. Safe to call often. */
void pp_progress(double fraction, const char *what);
void pp_progress_clear(void);

/* "warning: …" on stderr. */
void pp_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool pp_terminal_colour(int file); /* a terminal, and NO_COLOR is not set */

/* ---- shared by subcommands: paths.c -------------------------------------------------------- */

/* Before the work: can the output be written, and is it none of the inputs? output may be NULL. */
pp_status pp_check_output(const char *output, const char *const *inputs, int input_count,
                          pp_error *error);
/* Errors inside a document name their place in it alone ("/schedule_hash"): adds the file. */
pp_status pp_in_document(pp_status status, const char *path, pp_error *error);

/* ---- shared by subcommands: report.c ------------------------------------------------------- */

/* "9098", "0.2424": a rate for people, never with an exponent where it is large */
const char *pp_format_rate(double rate, char buffer[32]);

/* Predicted beside measured: step time, bubble, busy time and peak memory of each rank. */
void pp_report_compare(const pp_plan *plan, const pp_prediction *measured, pp_text *text);
/* "K=4 V=1 M=8 x 2 samples, dp=1, 1f1b, recompute none" */
void pp_report_plan_line(const pp_plan *plan, pp_text *text);
/* Stages of a plan: layers, rank, times, bytes. */
void pp_report_stages(const pp_plan *plan, pp_text *text);

/* ---- shared by schedule and simulate: named_schedule.c -------------------------------------- */

/* A schedule by name, as it is asked for on the command line. */
typedef struct pp_named_schedule {
    int ranks, microbatches, virtual_stages, group, slices, minibatches;
    const char *recompute;
    bool reverse_backward;
} pp_named_schedule;

/* The option rows of a settings struct with a pp_named_schedule called `named`. */
/* clang-format off */
#define PP_NAMED_SCHEDULE_OPTIONS(settings)                                                        \
    {'K', "ranks", NULL, "K", NULL, PP_OPTION_COUNT, offsetof(settings, named.ranks),              \
     "pipeline ranks"},                                                                            \
        {'M', "microbatches", "chunks", "M", NULL, PP_OPTION_COUNT,                                \
         offsetof(settings, named.microbatches), "microbatches"},                                  \
        {'V', "virtual", NULL, "V", NULL, PP_OPTION_COUNT,                                         \
         offsetof(settings, named.virtual_stages),                                                 \
         "virtual stages on each rank (default: the schedule's natural value)"},                   \
        {0, "group", NULL, "G", NULL, PP_OPTION_COUNT, offsetof(settings, named.group),            \
         "interleaved: microbatches that pass a chunk before the next chunk (default: K)"},        \
        {0, "slices", NULL, "Q", NULL, PP_OPTION_COUNT, offsetof(settings, named.slices),          \
         "seq1f1b: slices of each microbatch along the sequence (default: 2)"},                    \
        {0, "minibatches", NULL, "N", NULL, PP_OPTION_COUNT, offsetof(settings, named.minibatches), \
         "pipedream-2bw: minibatches, of M microbatches each (default: 4)"},                       \
        {0, "reverse-backward", NULL, NULL, NULL, PP_OPTION_FLAG,                                  \
         offsetof(settings, named.reverse_backward),                                               \
         "gpipe: the backward starts with the last microbatch, as in torchgpipe"},                 \
    {0, "recompute", NULL, "POLICY", NULL, PP_OPTION_STRING,                                       \
     offsetof(settings, named.recompute),                                                          \
     "recompute activations in the backward pass: none, full, except-last, attention or every:N"}
/* clang-format on */

/* Is anything asked for besides K, M and V, which a file may be compared with? */
bool pp_named_schedule_options(const pp_named_schedule *named);
struct pp_schedule_request;
pp_status pp_named_schedule_request(const pp_named_schedule *named, const char *name,
                                    struct pp_schedule_request *request, pp_error *error);
/* Written with a '/' or a '.': a file, not a name. */
bool pp_named_schedule_is_file(const char *name);
/* What is asked for beside a schedule from a file may only repeat what the file says. */
pp_status pp_named_schedule_agrees(const pp_named_schedule *named, const pp_schedule *schedule,
                                   const char *path, pp_error *error);

/* ---- shared by run and validate: cmd_run.c -------------------------------------------------- */

typedef struct pp_run_settings {
    int steps;
    const char *data, *backend, *device, *transport, *trace;
    int64_t seed;
    int slices;
    double learning_rate, clip, timeout_s;
    double tolerance;     /* validate … */
    const char *measured; /* … a run's trace, instead of running */
    bool json, explain;
} pp_run_settings;

struct pp_run_result;

/* A plan, its expanded schedule and what running it gave. Zero-initialise; finish in every case. */
typedef struct pp_executed {
    pp_plan *plan;
    pp_schedule *schedule;
    struct pp_run_result *result;
    struct pp_processes *processes; /* that ran it together; NULL: this one alone */
    double clip; /* of the settings */
    char backend[32]; /* of --device */
} pp_executed;

/* Joins the other processes, if any, opens the plan and runs it; progress goes to stderr. Whatever
 * comes of it, executed->processes goes to the output. */
pp_status pp_execute(const char *path, const pp_run_settings *settings, int default_steps,
                     bool keep_trace, pp_executed *executed, pp_error *error);
void pp_executed_finish(pp_executed *executed);
pp_status pp_write_trace(const char *path, const pp_trace *trace, pp_error *error);

#endif
