/* Reading a cluster document. Kinds of devices are named once; nodes are runs of equal boxes. */
#include "core/cluster_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- fields --------------------------------------------------------------------------------- */

#define RATE(key_, structure_, member_)                                                            \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_DOUBLE, .flags = PP_FIELD_OPTIONAL,                          \
        PP_AT(structure_, member_), .minimum = 0, .maximum = 1e30                                  \
    }
#define LINK_ROWS(structure_, prefix_)                                                             \
    {.key = "bandwidth_bytes_per_s",                                                               \
     .type = PP_FIELD_DOUBLE,                                                                      \
     .flags = PP_FIELD_NULLABLE | PP_FIELD_ABOVE,                                                  \
     PP_AT(structure_, prefix_ bandwidth_bytes_per_s),                                             \
     .minimum = 0,                                                                                 \
     .maximum = 1e30,                                                                              \
     .null_value = INFINITY},                                                                      \
    {                                                                                              \
        .key = "latency_s", .type = PP_FIELD_DOUBLE, PP_AT(structure_, prefix_ latency_s),         \
        .minimum = 0, .maximum = 1e9                                                               \
    }
#define WHOLE /* the link is the structure itself */

const pp_field pp_device_fields[] = {
    {.key = "name", .type = PP_FIELD_STRING, PP_AT(pp_device, name)},
    {.key = "memory_bytes",
     .type = PP_FIELD_INT64,
     PP_AT(pp_device, memory_bytes),
     .minimum = 1,
     .maximum = PP_BYTES_MAX},
    {.key = "flops", .type = PP_FIELD_OBJECT, .flags = PP_FIELD_OPTIONAL},
    RATE("memory_bandwidth_bytes_per_s", pp_device, memory_bandwidth_bytes_per_s),
    RATE("cost_per_hour", pp_device, cost_per_hour),
};
const int pp_device_field_count = PP_ARRAY_LENGTH(pp_device_fields);

const pp_field pp_flops_fields[] = {
    RATE("bf16", pp_device, bf16_flops),
    RATE("fp32", pp_device, fp32_flops),
};
const int pp_flops_field_count = PP_ARRAY_LENGTH(pp_flops_fields);

const pp_field pp_intra_fields[] = {LINK_ROWS(pp_link, WHOLE)};
const int pp_intra_field_count = PP_ARRAY_LENGTH(pp_intra_fields);

const pp_field pp_inter_fields[] = {
    LINK_ROWS(pp_link, WHOLE),
    {.key = "shared_per_node",
     .type = PP_FIELD_BOOL,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(pp_link, shared_per_node)},
};
const int pp_inter_field_count = PP_ARRAY_LENGTH(pp_inter_fields);

#define END_ROW(key_, member_)                                                                     \
    {                                                                                              \
        .key = key_, .type = PP_FIELD_INT, PP_AT(pp_link_override, member_), .minimum = 0,         \
        .maximum = PP_CLUSTER_DEVICES_MAX - 1                                                      \
    }
const pp_field pp_override_fields[] = {
    END_ROW("from", from),
    END_ROW("to", to),
    LINK_ROWS(pp_link_override, link.),
};
const int pp_override_field_count = PP_ARRAY_LENGTH(pp_override_fields);

static const char *all_reduce_name(int value) {
    return pp_all_reduce_name((pp_all_reduce_kind)value);
}

#define ALL_REDUCE_ROW                                                                             \
    {                                                                                              \
        .key = "all_reduce", .type = PP_FIELD_NAME, .flags = PP_FIELD_OPTIONAL,                    \
        PP_AT(pp_cluster, all_reduce), .name = all_reduce_name, .name_count = PP_ALL_REDUCE_COUNT  \
    }
const pp_field pp_all_reduce_field = ALL_REDUCE_ROW;

static const pp_field document_fields[] = {
    PP_FORMAT_ROWS,
    {.key = "name", .type = PP_FIELD_STRING, PP_AT(pp_cluster, name)},
    {.key = "devices", .type = PP_FIELD_ARRAY},
    {.key = "nodes", .type = PP_FIELD_ARRAY},
    {.key = "intra", .type = PP_FIELD_OBJECT},
    {.key = "inter", .type = PP_FIELD_OBJECT, .flags = PP_FIELD_OPTIONAL},
    {.key = "overrides", .type = PP_FIELD_ARRAY, .flags = PP_FIELD_OPTIONAL},
    ALL_REDUCE_ROW,
};

/* ---- devices and nodes ---------------------------------------------------------------------- */

static int find_device(const pp_cluster *cluster, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(cluster->devices[i].name, name) == 0) return i;
    return -1;
}

static pp_status read_devices(const pp_json_node *devices, pp_cluster *cluster, pp_error *error) {
    for (int i = 0; i < cluster->device_kind_count; i++) {
        pp_device *device = &cluster->devices[i];
        pp_json_node node = pp_node_element(devices, (size_t)i);
        PP_TRY(pp_fields_read(&node, pp_device_fields, pp_device_field_count, device,
                              &cluster->arena, error));
        pp_json_node flops = pp_node_member(&node, "flops");
        if (flops.value)
            PP_TRY(pp_fields_read(&flops, pp_flops_fields, pp_flops_field_count, device,
                                  &cluster->arena, error));
        pp_json_node name = pp_node_member(&node, "name");
        if (find_device(cluster, i, device->name) >= 0)
            return pp_node_fail(&name, error, "the device \"%s\" is described twice", device->name);
    }
    return PP_OK;
}

typedef struct node_text {
    const char *device;
    int count, repeat;
} node_text;

static const pp_field node_fields[] = {
    {.key = "device", .type = PP_FIELD_STRING, PP_AT(node_text, device)},
    {.key = "count", .type = PP_FIELD_INT, PP_AT(node_text, count), .minimum = 1, .maximum = 65535},
    {.key = "repeat",
     .type = PP_FIELD_INT,
     .flags = PP_FIELD_OPTIONAL,
     PP_AT(node_text, repeat),
     .minimum = 1,
     .maximum = PP_CLUSTER_NODES_MAX,
     .fallback = 1},
};

static const char *device_list(const pp_cluster *cluster, char *buffer, size_t capacity) {
    pp_text_cut list = {buffer, capacity, 0};
    buffer[0] = '\0';
    for (int i = 0; i < cluster->device_kind_count; i++)
        pp_cut_add(&list, "%s%s", i > 0 ? ", " : "", cluster->devices[i].name);
    return buffer;
}

static pp_status read_nodes(const pp_json_node *nodes, pp_cluster *cluster, pp_error *error) {
    int64_t node_count = 0, device_count = 0;
    for (int i = 0; i < cluster->node_kind_count; i++) {
        node_text text = {0};
        char known[600];
        pp_json_node node = pp_node_element(nodes, (size_t)i);
        PP_TRY(pp_fields_read(&node, node_fields, PP_ARRAY_LENGTH(node_fields), &text,
                              &cluster->arena, error));
        int device = find_device(cluster, cluster->device_kind_count, text.device);
        pp_json_node name = pp_node_member(&node, "device");
        if (device < 0)
            return pp_node_fail(&name, error, "no device \"%s\" is described; known: %s",
                                text.device, device_list(cluster, known, sizeof known));
        cluster->nodes[i] = (pp_node){device, text.count, text.repeat};
        node_count += text.repeat;
        device_count += (int64_t)text.count * text.repeat;
        if (node_count > PP_CLUSTER_NODES_MAX || device_count > PP_CLUSTER_DEVICES_MAX)
            return pp_node_fail(&node, error, "at most %d nodes and %d devices are allowed",
                                PP_CLUSTER_NODES_MAX, PP_CLUSTER_DEVICES_MAX);
    }
    return PP_OK;
}

/* ---- links ---------------------------------------------------------------------------------- */

static int compare_overrides(const void *left, const void *right) {
    const pp_link_override *a = left, *b = right;
    if (a->from != b->from) return a->from < b->from ? -1 : 1;
    return (a->to > b->to) - (a->to < b->to);
}

static pp_status read_overrides(const pp_json_node *overrides, pp_cluster *cluster,
                                pp_error *error) {
    int devices = pp_cluster_device_count(cluster);
    for (int i = 0; i < cluster->override_count; i++) {
        pp_link_override *override = &cluster->overrides[i];
        pp_json_node node = pp_node_element(overrides, (size_t)i);
        PP_TRY(pp_fields_read(&node, pp_override_fields, pp_override_field_count, override,
                              &cluster->arena, error));
        if (override->from >= devices || override->to >= devices)
            return pp_node_fail(&node, error, "from %d to %d, but the devices are 0 to %d",
                                override->from, override->to, devices - 1);
        if (override->from == override->to)
            return pp_node_fail(&node, error, "a device has no link to itself");
    }
    if (cluster->override_count > 1)
        qsort(cluster->overrides, (size_t)cluster->override_count, sizeof(pp_link_override),
              compare_overrides);
    for (int i = 1; i < cluster->override_count; i++)
        if (compare_overrides(&cluster->overrides[i - 1], &cluster->overrides[i]) == 0)
            return pp_node_fail(overrides, error, "the link from %d to %d stands twice",
                                cluster->overrides[i].from, cluster->overrides[i].to);
    return PP_OK;
}

static bool has_one_node(const pp_cluster *cluster) {
    return cluster->node_kind_count == 1 && cluster->nodes[0].repeat == 1;
}

static pp_status read_links(const pp_json_node *document, pp_cluster *cluster, pp_error *error) {
    pp_json_node intra = pp_node_member(document, "intra");
    pp_json_node inter = pp_node_member(document, "inter");
    PP_TRY(pp_fields_read(&intra, pp_intra_fields, pp_intra_field_count, &cluster->intra,
                          &cluster->arena, error));
    cluster->inter = cluster->intra;
    if (inter.value)
        return pp_fields_read(&inter, pp_inter_fields, pp_inter_field_count, &cluster->inter,
                              &cluster->arena, error);
    if (has_one_node(cluster)) return PP_OK;
    return pp_node_fail(document, error,
                        "\"inter\" is missing: the link between nodes, of which there are several");
}

/* ---- the document --------------------------------------------------------------------------- */

static pp_status read_document(const pp_json_node *document, pp_cluster *cluster, pp_error *error) {
    PP_TRY(pp_node_format(document, "ppsim-cluster", error));
    PP_TRY(pp_fields_read(document, document_fields, PP_ARRAY_LENGTH(document_fields), cluster,
                          &cluster->arena, error));
    pp_json_node devices = pp_node_member(document, "devices");
    pp_json_node nodes = pp_node_member(document, "nodes");
    pp_json_node overrides = pp_node_member(document, "overrides");
    PP_TRY(pp_node_array(&devices, 1, 1000, error));
    PP_TRY(pp_node_array(&nodes, 1, PP_CLUSTER_NODES_MAX, error));
    if (overrides.value) PP_TRY(pp_node_array(&overrides, 0, 1000000, error));
    if (!pp_cluster_reserve(cluster, (int)pp_node_length(&devices), (int)pp_node_length(&nodes),
                            (int)pp_node_length(&overrides)))
        return pp_fail_memory(error);
    PP_TRY(read_devices(&devices, cluster, error));
    PP_TRY(read_nodes(&nodes, cluster, error));
    PP_TRY(read_links(document, cluster, error));
    return read_overrides(&overrides, cluster, error);
}

pp_status pp_cluster_from_node(const pp_json_node *document, pp_cluster **cluster,
                               pp_error *error) {
    *cluster = pp_cluster_new_empty();
    if (!*cluster) return pp_fail_memory(error);
    pp_status status = read_document(document, *cluster, error);
    if (status != PP_OK) {
        pp_cluster_free(*cluster);
        *cluster = NULL;
    }
    return status;
}
