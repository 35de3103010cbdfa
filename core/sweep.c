/* Sweeps as documents: the best plan at each value of one setting. One table of fields reads and
 * writes a point; a point without a plan has null for all that is said of one, and its reason. */
#include "core/json_reader.h"

#include <string.h>

enum { POINTS_MAX = 4096 };

static const char *const names[] = {"microbatches", "ranks", "memory"};

const char *pp_sweep_name(int kind) {
    return names[kind];
}

bool pp_sweep_from_name(const char *name, pp_sweep_kind *kind) {
    for (int i = 0; i < PP_SWEEP_KIND_COUNT; i++) {
        if (strcmp(names[i], name) != 0) continue;
        *kind = (pp_sweep_kind)i;
        return true;
    }
    return false;
}

/* ---- tables -------------------------------------------------------------------------------- */

static const pp_field sweep_fields[] = {
    PP_FORMAT_ROWS,
    {.key = "sweep",
     .type = PP_FIELD_NAME,
     PP_AT(pp_sweep, kind),
     .name = pp_sweep_name,
     .name_count = PP_SWEEP_KIND_COUNT},
    {.key = "model",
     .type = PP_FIELD_TEXT,
     PP_AT(pp_sweep, model),
     .size = sizeof((pp_sweep *)0)->model},
    {.key = "cluster",
     .type = PP_FIELD_TEXT,
     PP_AT(pp_sweep, cluster),
     .size = sizeof((pp_sweep *)0)->cluster},
    {.key = "batch",
     .type = PP_FIELD_INT64,
     PP_AT(pp_sweep, global_batch),
     .minimum = 1,
     .maximum = PP_BYTES_MAX},
    {.key = "points", .type = PP_FIELD_ARRAY},
};

/* null where there is no plan */
#define NUMBER(key_, type_, member_, most_)                                                        \
    {                                                                                              \
        .key = key_, .type = type_, .flags = PP_FIELD_NULLABLE, PP_AT(pp_sweep_point, member_),    \
        .minimum = 0, .maximum = most_, .null_value = PP_SWEEP_UNKNOWN                             \
    }

static const pp_field point_fields[] = {
    {.key = "value",
     .type = PP_FIELD_INT64,
     PP_AT(pp_sweep_point, value),
     .minimum = 1,
     .maximum = PP_BYTES_MAX},
    NUMBER("iteration_time", PP_FIELD_DOUBLE, iteration_time_s, 1e15),
    NUMBER("throughput", PP_FIELD_DOUBLE, throughput, 1e30),
    NUMBER("bubble_fraction", PP_FIELD_DOUBLE, bubble_fraction, 1),
    NUMBER("compute_per_sample", PP_FIELD_DOUBLE, compute_s, 1e15),
    NUMBER("compute_loss", PP_FIELD_DOUBLE, compute_loss, 1e15),
    NUMBER("peak_bytes", PP_FIELD_INT64, peak_bytes, 9007199254740992.0),
    NUMBER("gap", PP_FIELD_DOUBLE, gap, 1e30),
    {.key = "plan", .type = PP_FIELD_OTHER},
    {.key = "reason",
     .type = PP_FIELD_TEXT,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_sweep_point, reason),
     .size = sizeof((pp_sweep_point *)0)->reason},
};

#define COUNT(key_, member_)                                                                       \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_INT, PP_AT(pp_sweep_point, member_), .minimum = 1,           \
        .maximum = INT32_MAX                                                                       \
    }

static const pp_field plan_fields[] = {
    COUNT("ranks", ranks),
    COUNT("virtual", virtual_stages),
    COUNT("microbatches", microbatches),
    {.key = "microbatch_size",
     .type = PP_FIELD_INT64,
     PP_AT(pp_sweep_point, microbatch_size),
     .minimum = 1,
     .maximum = PP_BYTES_MAX},
    COUNT("dp", dp),
    COUNT("tp", tp),
    {.key = "zero", .type = PP_FIELD_INT, PP_AT(pp_sweep_point, zero), .minimum = 0, .maximum = 1},
    {.key = "schedule",
     .type = PP_FIELD_TEXT,
     PP_AT(pp_sweep_point, schedule),
     .size = sizeof((pp_sweep_point *)0)->schedule},
    {.key = "recompute",
     .type = PP_FIELD_POLICY,
     .flags = PP_FIELD_MIXED,
     PP_AT(pp_sweep_point, recompute)},
};

/* ---- writing ------------------------------------------------------------------------------- */

static void write_point(const pp_sweep_point *point, pp_json *json) {
    pp_json_object(json);
    pp_fields_write(json, point_fields, PP_ARRAY_LENGTH(point_fields), point);
    pp_json_key(json, "plan");
    if (point->planned) {
        pp_json_object_flat(json);
        pp_fields_write(json, plan_fields, PP_ARRAY_LENGTH(plan_fields), point);
        pp_json_end_object(json);
    } else {
        pp_json_null(json);
    }
    pp_json_end_object(json);
}

void pp_sweep_write(const pp_sweep *sweep, pp_json *json) {
    pp_json_object(json);
    pp_json_key(json, "format");
    pp_json_string(json, "ppsim-sweep");
    pp_json_key(json, "version");
    pp_json_int(json, 1);
    pp_fields_write(json, sweep_fields, PP_ARRAY_LENGTH(sweep_fields), sweep);
    pp_json_key(json, "points");
    pp_json_array(json);
    for (int i = 0; i < sweep->point_count; i++) write_point(&sweep->points[i], json);
    pp_json_end_array(json);
    pp_json_end_object(json);
}

/* ---- reading ------------------------------------------------------------------------------- */

/* Numbers and plan belong together, and so do no plan and a reason. */
static pp_status check_point(const pp_json_node *node, const pp_sweep_point *point,
                             pp_error *error) {
    const double numbers[] = {point->iteration_time_s, point->throughput,
                              point->bubble_fraction,  point->compute_s,
                              point->compute_loss,     (double)point->peak_bytes};
    if (!point->planned && point->reason[0] == '\0')
        return pp_node_fail(node, error, "\"plan\" is null, and there is no \"reason\" for it");
    if (point->planned && point->reason[0] != '\0')
        return pp_node_fail(node, error, "there is a plan, and also a \"reason\" for none");
    for (int i = 0; i < PP_ARRAY_LENGTH(numbers); i++)
        if ((numbers[i] != PP_SWEEP_UNKNOWN) != point->planned)
            return pp_node_fail(node, error,
                                point->planned ? "a number of the plan is null"
                                               : "there are numbers, but no plan");
    return PP_OK;
}

static pp_status read_point(const pp_json_node *node, pp_sweep_point *point, pp_error *error) {
    PP_TRY(pp_fields_read(node, point_fields, PP_ARRAY_LENGTH(point_fields), point, NULL, error));
    pp_json_node plan = pp_node_member(node, "plan");
    point->planned = !json_is_null(plan.value);
    if (point->planned)
        PP_TRY(
            pp_fields_read(&plan, plan_fields, PP_ARRAY_LENGTH(plan_fields), point, NULL, error));
    return check_point(node, point, error);
}

static pp_status read_points(const pp_json_node *points, pp_sweep *sweep, pp_error *error) {
    for (int i = 0; i < sweep->point_count; i++) {
        pp_json_node node = pp_node_element(points, (size_t)i);
        PP_TRY(read_point(&node, &sweep->points[i], error));
        if (i > 0 && sweep->points[i].value <= sweep->points[i - 1].value)
            return pp_node_fail(&node, error, "values must rise from point to point");
    }
    return PP_OK;
}

static pp_status read_document(const pp_json_node *document, pp_sweep **sweep, pp_error *error) {
    pp_json_node points = pp_node_member(document, "points");
    pp_sweep head = {0};
    PP_TRY(pp_node_format(document, "ppsim-sweep", error));
    PP_TRY(
        pp_fields_read(document, sweep_fields, PP_ARRAY_LENGTH(sweep_fields), &head, NULL, error));
    PP_TRY(pp_node_array(&points, 1, POINTS_MAX, error));
    PP_TRY(pp_sweep_new((int)pp_node_length(&points), sweep, error));
    head.points = (*sweep)->points;
    head.point_count = (*sweep)->point_count;
    **sweep = head;
    return read_points(&points, *sweep, error);
}

pp_status pp_sweep_read(const char *text, size_t length, const char *file_name, pp_sweep **sweep,
                        pp_error *error) {
    json_t *root;
    *sweep = NULL;
    PP_TRY(pp_json_load(text, length, file_name, &root, error));
    pp_json_node document = pp_node_root(root, file_name);
    pp_status status = read_document(&document, sweep, error);
    json_decref(root);
    if (status == PP_OK) return PP_OK;
    pp_sweep_free(*sweep);
    *sweep = NULL;
    return status;
}

/* ---- life ---------------------------------------------------------------------------------- */

pp_status pp_sweep_new(int point_count, pp_sweep **sweep, pp_error *error) {
    *sweep = pp_allocate_zeroed(1, sizeof **sweep);
    if (*sweep == NULL) return pp_fail_memory(error);
    (*sweep)->points = pp_allocate_zeroed((size_t)point_count + 1, sizeof *(*sweep)->points);
    (*sweep)->point_count = point_count;
    if ((*sweep)->points != NULL) return PP_OK;
    pp_sweep_free(*sweep);
    *sweep = NULL;
    return pp_fail_memory(error);
}

void pp_sweep_free(pp_sweep *sweep) {
    if (sweep == NULL) return;
    pp_free(sweep->points);
    pp_free(sweep);
}
