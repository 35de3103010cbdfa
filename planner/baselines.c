/* The ways to split that people know from other tools, by name, so that they can be compared.
 *
 * Each but `uniform`, `bottleneck` (search_cut.c), `pipedream` and an explicit list gives every
 * layer a weight and parts the file's order by it as the tool does that the method is known from
 * (partition.c): torchgpipe's blocks for time and memory, DeepSpeed's balanced partition for
 * parameters and type:REGEX. They look neither at memory limits nor at transfers; that is what
 * makes them baselines. A plan that they lead to must still fit. */
#include <ctype.h>
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

#include "planner/planner_internal.h"

typedef bool part_weights(const double *weights, int items, int stages, pp_arena *arena,
                          int *splits);

struct pp_split_row {
    const char *name;
    const char *what;
    /* Weight of a layer, and how layers are parted by it; NULL: no weights. */
    double (*weigh)(const pp_split_method *method, const pp_split_load *load, int layer);
    part_weights *part;
};

/* ---- weights ------------------------------------------------------------------------------- */

static double weigh_time(const pp_split_method *method, const pp_split_load *load, int layer) {
    (void)method;
    const pp_timing *timing = load->timing;
    return timing->forward_each[layer] + timing->input_each[layer] + timing->weight_each[layer];
}

/* Elements; of opaque layers, which have bytes alone, as many as those bytes hold. */
static double weigh_parameters(const pp_split_method *method, const pp_split_load *load,
                               int layer) {
    (void)method;
    const pp_layer *what = &load->tables->model->layers[layer];
    if (what->op != PP_OP_OPAQUE) return (double)pp_layer_parameters(what);
    return (double)what->parameter_bytes / (double)pp_dtype_bytes(load->tables->request->dtype);
}

static double weigh_memory(const pp_split_method *method, const pp_split_load *load, int layer) {
    (void)method;
    const pp_stage_bytes *bytes = pp_footprint(load->footprints, layer, layer, load->mode);
    if (bytes == NULL) return NAN;
    return (double)(bytes->parameters + bytes->gradients + bytes->optimizer + bytes->activation);
}

static double weigh_matches(const pp_split_method *method, const pp_split_load *load, int layer) {
    (void)load;
    return method->matches[layer];
}

/* ---- the table ----------------------------------------------------------------------------- */

enum { OPTIMAL, UNIFORM, TYPE, EXPLICIT, BOTTLENECK, PIPEDREAM, PARAMETERS, TIME, MEMORY };

static const pp_split_row rows[] = {
    [OPTIMAL] = {"optimal", "least step time, memory and transfers considered (default)", NULL,
                 NULL},
    [UNIFORM] = {"uniform", "equal numbers of layers", NULL, NULL},
    [TYPE] = {"type:REGEX", "equal numbers of layers whose op or name matches", weigh_matches,
              pp_split_even},
    [EXPLICIT] = {"3,7,11", "the first layer of each stage but the first", NULL, NULL},
    [BOTTLENECK] = {"bottleneck", "fastest slowest stage, transfers and memory aside", NULL, NULL},
    [PIPEDREAM] = {"pipedream", "PipeDream's programme, with replicas of stages unless --dp 1",
                   NULL, NULL},
    [PARAMETERS] = {"parameters", "equal numbers of parameters", weigh_parameters, pp_split_even},
    [TIME] = {"time", "equal forward and backward times of the layers", weigh_time,
              pp_split_blocks},
    [MEMORY] = {"memory", "equal bytes of weights, optimizer state and activations", weigh_memory,
                pp_split_blocks},
};
enum { ROW_COUNT = sizeof rows / sizeof *rows };

bool pp_split_has_measure(const pp_split_method *method) {
    return method->row->weigh != NULL || pp_split_is_pipedream(method);
}

bool pp_split_is_optimal(const pp_split_method *method) {
    return method->row == &rows[OPTIMAL];
}

bool pp_split_is_bottleneck(const pp_split_method *method) {
    return method->row == &rows[BOTTLENECK];
}

bool pp_split_is_pipedream(const pp_split_method *method) {
    return method->row == &rows[PIPEDREAM];
}

/* ---- reading ------------------------------------------------------------------------------- */

static pp_status unknown_method(const char *text, pp_error *error) {
    char known[512] = "";
    size_t length = 0;
    for (int i = 0; i < ROW_COUNT && length < sizeof known; i++) {
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "",
                                   rows[i].name);
    }
    return pp_fail(error, PP_E_INPUT, "--split", "'%s' is not a way to split; known are %s", text,
                   known);
}

static pp_status read_cuts(const char *text, int layers, pp_arena *arena, pp_split_method *method,
                           pp_error *error) {
    method->cuts = PP_NEW(arena, int, layers);
    if (method->cuts == NULL) return pp_fail_memory(error);
    int previous = 0;
    for (const char *at = text;; at++) { /* past a comma */
        char number[24];
        size_t length = strcspn(at, ",");
        int64_t cut;
        snprintf(number, sizeof number, "%.*s", (int)(length < 20 ? length : 20), at);
        if (length == 0) {
            return pp_fail(error, PP_E_INPUT, "--split",
                           "'%s' has a comma without a position behind it", text);
        }
        if (!pp_parse_int(number, previous + 1, layers - 1, &cut)) {
            return pp_fail(error, PP_E_INPUT, "--split",
                           "'%s' in '%s': expected rising positions of layers, %d to %d here",
                           number, text, previous + 1, layers - 1);
        }
        previous = method->cuts[method->cut_count++] = (int)cut;
        at += length;
        if (*at == '\0') return PP_OK;
    }
}

static pp_status match_layers(const char *pattern, const pp_model *model, pp_arena *arena,
                              pp_split_method *method, pp_error *error) {
    method->matches = PP_NEW(arena, double, model->layer_count);
    if (method->matches == NULL) return pp_fail_memory(error);
    regex_t regex;
    int code = regcomp(&regex, pattern, REG_EXTENDED | REG_ICASE | REG_NOSUB);
    if (code != 0) {
        char reason[128];
        regerror(code, &regex, reason, sizeof reason);
        return pp_fail(error, PP_E_INPUT, "--split",
                       "'%s' is not a POSIX extended regular expression: %s", pattern, reason);
    }
    int found = 0;
    for (int i = 0; i < model->layer_count; i++) {
        const pp_layer *layer = &model->layers[i];
        bool match = regexec(&regex, pp_op_name(layer->op), 0, NULL, 0) == 0 ||
                     regexec(&regex, layer->name, 0, NULL, 0) == 0;
        method->matches[i] = match;
        found += match;
    }
    regfree(&regex);
    if (found > 0) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "--split",
                   "'%s' matches neither op nor name of any layer of %s", pattern, model->name);
}

pp_status pp_split_method_read(const char *text, const pp_model *model, pp_arena *arena,
                               pp_split_method *method, pp_error *error) {
    if (text == NULL) text = "optimal";
    *method = (pp_split_method){0};
    snprintf(method->name, sizeof method->name, "%s", text);
    if (strncmp(text, "type:", 5) == 0) {
        method->row = &rows[TYPE];
        return match_layers(text + 5, model, arena, method, error);
    }
    if (isdigit((unsigned char)text[0])) {
        method->row = &rows[EXPLICIT];
        return read_cuts(text, model->layer_count, arena, method, error);
    }
    for (int i = 0; i < ROW_COUNT; i++) {
        if (i != TYPE && i != EXPLICIT && strcmp(rows[i].name, text) == 0) method->row = &rows[i];
    }
    return method->row != NULL ? PP_OK : unknown_method(text, error);
}

/* ---- splitting ----------------------------------------------------------------------------- */

static double heaviest_stage(const double *weights, int layers, const int *splits, int stages) {
    double heaviest = 0;
    for (int s = 0; s < stages; s++) {
        double weight = 0;
        int end = s < stages - 1 ? splits[s] : layers;
        for (int i = s > 0 ? splits[s - 1] : 0; i < end; i++) weight += weights[i];
        heaviest = fmax(heaviest, weight);
    }
    return heaviest;
}

static pp_status split_by_weight(const pp_split_method *method, const pp_split_load *load,
                                 int stages, pp_arena *arena, int *splits, double *measure,
                                 pp_error *error) {
    int layers = load->tables->layers;
    double *weights = PP_NEW(arena, double, layers);
    if (weights == NULL) return pp_fail_memory(error);
    for (int i = 0; i < layers; i++) {
        weights[i] = method->row->weigh(method, load, i);
        if (isnan(weights[i])) return pp_fail_memory(error);
    }
    if (!method->row->part(weights, layers, stages, arena, splits)) return pp_fail_memory(error);
    *measure = heaviest_stage(weights, layers, splits, stages);
    return PP_OK;
}

pp_status pp_split_baseline(const pp_split_method *method, const pp_split_load *load, int stages,
                            pp_arena *arena, int *splits, double *measure, pp_error *error) {
    *measure = 0;
    if (method->row->weigh != NULL) {
        return split_by_weight(method, load, stages, arena, splits, measure, error);
    }
    if (method->cuts != NULL) {
        memcpy(splits, method->cuts, (size_t)(stages - 1) * sizeof *splits);
    } else {
        pp_split_uniform(load->tables->layers, stages, splits);
    }
    return PP_OK;
}

const pp_split_method *pp_split_plain(int index) {
    static const pp_split_method plain[] = {{.row = &rows[UNIFORM]},
                                            {.row = &rows[PARAMETERS]},
                                            {.row = &rows[TIME]},
                                            {.row = &rows[MEMORY]}};
    return index < (int)(sizeof plain / sizeof *plain) ? &plain[index] : NULL;
}
