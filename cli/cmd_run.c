/* ppsim run: executes a plan and shows how far the prediction was off. */
#include "cli/cli.h"
#include "executor/executor.h"
#include "sim/sim.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const pp_option options[] = {
    {0, "steps", NULL, "N", NULL, PP_OPTION_COUNT, offsetof(pp_run_settings, steps),
     "training steps (default 10)"},
    {0, "data", NULL, "PATH", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, data),
     "a text file (bytes are tokens when the vocabulary is 256), a .bin of uint16 tokens, or "
     "CIFAR-10's binary version, a file or its folder (default: seeded synthetic data)"},
    {0, "seed", NULL, "N", NULL, PP_OPTION_NUMBER, offsetof(pp_run_settings, seed),
     "seed of weights, dropout and data order (default 0)"},
    {0, "backend", NULL, "NAME", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, backend),
     "cpu, cuda, or replay: wait the plan's times (default: cuda where it is usable, else cpu; "
     "replay for opaque layers)"},
    {0, "device", NULL, "DEVICE", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, device),
     "cpu, or cuda:N: ranks are dealt round this machine's devices from number N on (default: from "
     "0); names the backend too"},
    {0, "slices", NULL, "N", NULL, PP_OPTION_COUNT, offsetof(pp_run_settings, slices),
     "all ranks of a machine on one CUDA device, cut into N equal slices of its multiprocessors "
     "(default where ranks share a device: as many as ranks)"},
    {0, "transport", NULL, "NAME", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, transport),
     "how messages travel: local (threads of one process), mpi (through the host) or nccl (between "
     "devices) (default: the best that can serve)"},
    {0, "learning-rate", NULL, "X", NULL, PP_OPTION_FACTOR,
     offsetof(pp_run_settings, learning_rate), "default: 0.001 for adamw, 0.1 for sgd"},
    {0, "clip", NULL, "NORM", NULL, PP_OPTION_FACTOR, offsetof(pp_run_settings, clip),
     "scale gradients down where the norm of all of them together is larger (default: never)"},
    {0, "timeout", NULL, "S", NULL, PP_OPTION_FACTOR, offsetof(pp_run_settings, timeout_s),
     "end the run when no rank has got anywhere for S seconds (default 30)"},
    {0, "trace", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, trace),
     "write the timeline of a typical step as a Chrome trace (Perfetto opens it)"},
    {0, "json", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(pp_run_settings, json), "print JSON"},
};

/* ---- running ------------------------------------------------------------------------------- */

typedef struct run_view {
    int steps;
    int64_t samples; /* of one step */
    bool trains;     /* there is a loss */
    bool diverged;
} run_view;

/* " 2128 tokens/s"; samples where the model has no sequence */
static void describe_rate(const run_view *view, const pp_step_report *report, char buffer[48]) {
    char rate[32];
    bool tokens = report->tokens_per_s > 0;
    pp_format_rate(tokens ? report->tokens_per_s : (double)view->samples / report->seconds, rate);
    snprintf(buffer, 48, "%s %s/s", rate, tokens ? "tokens" : "samples");
}

/* A model that learns too fast ends in infinities; replay has no loss at all. */
static void watch_loss(run_view *view, const pp_step_report *report) {
    if (view->diverged || !view->trains || isfinite(report->loss)) return;
    view->diverged = true;
    pp_warn("the loss of step %d is not a finite number: try a smaller --learning-rate",
            report->step + 1);
}

static void show_step(void *context, const pp_step_report *report) {
    run_view *view = context;
    char what[128], seconds[32], rate[48];
    pp_format_seconds(report->seconds, seconds);
    describe_rate(view, report, rate);
    if (view->trains)
        snprintf(what, sizeof what, "step %d/%d  loss %.4f  %s", report->step + 1, view->steps,
                 report->loss, rate);
    else
        snprintf(what, sizeof what, "step %d/%d  %s", report->step + 1, view->steps, seconds);
    watch_loss(view, report);
    pp_log(PP_LOG_INFO, "run", "%s", what);
    pp_progress((double)(report->step + 1) / view->steps, what);
}

/* The memory of a machine's ranks adds up; better a refusal than the kernel's killer. */
static pp_status check_memory(const pp_plan *plan, const bool *here, const char *path,
                              pp_error *error) {
    double needed = 0, there = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    char needs[32], has[32];
    for (int i = 0; i < plan->ranks * plan->dp; i++)
        if (here[i]) needed += (double)plan->predicted.rank[i / plan->dp].peak_bytes;
    if (needed <= there) return PP_OK;
    return pp_fail(error, PP_E_INPUT, path,
                   "its ranks hold %s together, but this machine has %s: plan a smaller model or "
                   "batch, or use --backend replay, which only waits",
                   pp_format_bytes(needed, needs), pp_format_bytes(there, has));
}

/* --device names a backend too. */
static pp_status choose_backend(const pp_run_settings *settings, const pp_plan *plan, char name[32],
                                pp_run_options *run, pp_error *error) {
    run->backend = settings->backend;
    if (settings->device) {
        PP_TRY(pp_device_parse(settings->device, name, &run->device, error));
        if (settings->backend && strcmp(settings->backend, name) != 0)
            return pp_fail(error, PP_E_INPUT, "--device",
                           "%.100s is not of the %.100s backend: leave --backend out",
                           settings->device, settings->backend);
        run->backend = name;
        run->backend_place = "--device";
    } else if (settings->slices > 0 && !settings->backend) {
        run->backend = "cuda";
        run->backend_place = "--slices";
    }
    if (!run->backend) run->backend = pp_backend_default(plan->model, plan->dtype);
    return PP_OK;
}

/* What the ranks of this machine ask of it. */
static pp_status check_machine(const pp_executed *executed, const char *backend, const char *path,
                               pp_error *error) {
    const pp_plan *plan = executed->plan;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    bool *here = pp_allocate_zeroed((size_t)(plan->ranks * plan->dp), sizeof *here);
    if (!here) return pp_fail_memory(error);
    int threads = pp_processes_workers_here(executed->processes, plan, here);
    pp_status status = PP_OK;
    if (strcmp(backend, "cpu") == 0) status = check_memory(plan, here, path, error);
    if (threads > cores && strcmp(backend, "cpu") == 0 && pp_processes_speaks(executed->processes))
        pp_warn("%d ranks on %ld cores: they take turns, so times will not match the prediction",
                threads, cores);
    pp_free(here);
    return status;
}

/* What can be refused before anything starts. */
static pp_status prepare(const char *path, const pp_run_settings *settings, pp_executed *executed,
                         pp_run_options *run, pp_error *error) {
    const char *inputs[] = {path, settings->data};
    if (pp_processes_speaks(executed->processes))
        PP_TRY(pp_check_output(settings->trace, inputs, 2, error));
    PP_TRY(pp_plan_open(path, &executed->plan, error));
    PP_TRY(pp_in_document(pp_plan_expand(executed->plan, &executed->schedule, error), path, error));
    PP_TRY(choose_backend(settings, executed->plan, executed->backend, run, error));
    return check_machine(executed, run->backend, path, error);
}

pp_status pp_execute(const char *path, const pp_run_settings *settings, int default_steps,
                     bool keep_trace, pp_executed *executed, pp_error *error) {
    run_view view = {.steps = settings->steps ? settings->steps : default_steps};
    pp_run_options run = {.steps = view.steps,
                          .seed = (uint64_t)settings->seed,
                          .data = settings->data,
                          .slices = settings->slices,
                          .transport = settings->transport,
                          .learning_rate = settings->learning_rate,
                          .clip = settings->clip,
                          .timeout_s = settings->timeout_s,
                          .keep_trace = keep_trace,
                          .context = &view};
    executed->clip = settings->clip;
    PP_TRY(pp_processes_join(settings->timeout_s, &executed->processes, error));
    pp_status status = prepare(path, settings, executed, &run, error);
    PP_TRY(pp_processes_agree(executed->processes, status, 0, error));
    run.processes = executed->processes;
    if (pp_processes_speaks(executed->processes)) run.on_step = show_step;
    view.samples = executed->plan->global_batch;
    view.trains = strcmp(run.backend, "replay") != 0;
    return pp_run(executed->plan, executed->schedule, &run, &executed->result, error);
}

void pp_executed_finish(pp_executed *executed) {
    pp_run_result_free(executed->result);
    pp_schedule_free(executed->schedule);
    pp_plan_free(executed->plan);
}

pp_status pp_write_trace(const char *path, const pp_trace *trace, pp_error *error) {
    pp_text text = {0};
    pp_trace_write(trace, &text);
    pp_status status = pp_file_write(path, &text, error);
    pp_text_deinit(&text);
    return status;
}

/* ---- saying it ----------------------------------------------------------------------------- */

static void print_json(const pp_executed *executed, pp_text *text) {
    const pp_run_result *result = executed->result;
    int ranks = executed->plan->ranks;
    pp_json json = pp_json_start(text);
    pp_json_object(&json);
    if (executed->processes) {
        pp_json_key(&json, "processes");
        pp_json_int(&json, pp_processes_count(executed->processes));
    }
    pp_json_key(&json, "steps");
    pp_json_array(&json);
    for (int i = 0; i < result->step_count; i++) {
        pp_json_object_flat(&json);
        pp_json_key(&json, "loss");
        pp_json_double(&json, result->steps[i].loss);
        pp_json_key(&json, "seconds");
        pp_json_double(&json, result->steps[i].seconds);
        if (executed->clip > 0) {
            pp_json_key(&json, "gradient_norm");
            pp_json_double(&json, result->steps[i].gradient_norm);
        }
        pp_json_end_object(&json);
    }
    pp_json_end_array(&json);
    pp_json_key(&json, "predicted");
    pp_prediction_write(&executed->plan->predicted, ranks, &json);
    pp_json_key(&json, "measured");
    pp_prediction_write(&result->measured, ranks, &json);
    pp_json_end_object(&json);
    pp_text_string(text, "\n");
}

/* ", gradients clipped in 3 of 10 steps" */
static void print_clipping(const pp_executed *executed, pp_text *text) {
    const pp_run_result *result = executed->result;
    int clipped = 0;
    for (int i = 0; i < result->step_count; i++)
        clipped += !(result->steps[i].gradient_norm <= executed->clip);
    pp_text_printf(text, ", gradients clipped in %d of %d step%s", clipped, result->step_count,
                   result->step_count == 1 ? "" : "s");
}

static void print_text(const pp_executed *executed, pp_text *text) {
    const pp_run_result *result = executed->result;
    const pp_step_report *first = &result->steps[0];
    const pp_step_report *last = &result->steps[result->step_count - 1];
    pp_text_printf(text, "%s: ", executed->plan->model->name);
    pp_report_plan_line(executed->plan, text);
    char rate[32];
    bool tokens = result->measured.tokens_per_s > 0;
    if (executed->processes)
        pp_text_printf(text, ", %d processes", pp_processes_count(executed->processes));
    pp_text_printf(text, "\n%d step%s", result->step_count, result->step_count == 1 ? "" : "s");
    if (!isnan(first->loss)) pp_text_printf(text, ", loss %.4f", first->loss);
    if (!isnan(first->loss) && last != first)
        pp_text_printf(text, isfinite(last->loss) ? " → %.4f" : " → not finite", last->loss);
    pp_text_printf(
        text, ", %s %s/s",
        pp_format_rate(tokens ? result->measured.tokens_per_s : result->measured.throughput, rate),
        tokens ? "tokens" : "samples");
    if (executed->clip > 0 && !isnan(first->loss)) print_clipping(executed, text);
    pp_text_string(text, "\n\n");
    pp_report_compare(executed->plan, &result->measured, text);
}

static pp_status run_run(const void *settings_, const char *const *arguments, int count,
                         pp_output *output, pp_error *error) {
    const pp_run_settings *settings = settings_;
    pp_executed executed = {0};
    (void)count;
    pp_status status =
        pp_execute(arguments[0], settings, 10, settings->trace != NULL, &executed, error);
    pp_progress_clear();
    output->processes = executed.processes;
    bool speaks = pp_processes_speaks(executed.processes);
    /* an interrupted run still reports the steps that it finished */
    bool some = speaks && executed.result && executed.result->step_count > 0;
    if (status == PP_OK && speaks && settings->trace)
        status = pp_write_trace(settings->trace, executed.result->trace, error);
    if (some) (settings->json ? print_json : print_text)(&executed, &output->out);
    pp_executed_finish(&executed);
    return status;
}

const pp_subcommand pp_cmd_run = {
    .name = "run",
    .arguments = "PLAN",
    .minimum_arguments = 1,
    .maximum_arguments = 1,
    .summary = "trains with a plan and compares the prediction with the measurement",
    .description = "Ranks are threads, each with its own memory. Started by mpirun or srun, all "
                   "processes run the plan together, over any number of machines: its ranks go to "
                   "them in equal shares, by the numbers of their devices, and process 0 prints. "
                   "Losses and gradients do not depend on the number of ranks or processes, the "
                   "split or the timing.",
    .together = true,
    PP_OPTIONS(options),
    .settings_size = sizeof(pp_run_settings),
    .run = run_run,
};
