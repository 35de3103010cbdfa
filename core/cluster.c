/* Clusters: their life, writing, hashing, and where a device is.
 *
 * Devices are numbered along the list of nodes: entry by entry, repetition by repetition. Nothing
 * is stored per device, so 1024 boxes cost no more than one. Reading is cluster_read.c, the
 * clusters that are known by name cluster_presets.c. */
#include "core/cluster_internal.h"

#include <assert.h>
#include <math.h>
#include <string.h>
#include <strings.h>

/* ---- life ----------------------------------------------------------------------------------- */

pp_cluster *pp_cluster_new_empty(void) {
    return pp_allocate_zeroed(1, sizeof(pp_cluster));
}

void pp_cluster_free(pp_cluster *cluster) {
    if (!cluster) return;
    pp_arena_deinit(&cluster->arena);
    pp_free(cluster);
}

bool pp_cluster_reserve(pp_cluster *cluster, int device_kinds, int node_kinds, int overrides) {
    cluster->devices = PP_NEW(&cluster->arena, pp_device, device_kinds);
    cluster->nodes = PP_NEW(&cluster->arena, pp_node, node_kinds);
    cluster->overrides = PP_NEW(&cluster->arena, pp_link_override, overrides);
    if (cluster->arena.failed) return false;
    cluster->device_kind_count = device_kinds;
    cluster->node_kind_count = node_kinds;
    cluster->override_count = overrides;
    return true;
}

static bool copy_into(const pp_cluster *cluster, pp_cluster *made) {
    if (!pp_cluster_reserve(made, cluster->device_kind_count, cluster->node_kind_count,
                            cluster->override_count))
        return false;
    made->name = pp_arena_copy(&made->arena, cluster->name, strlen(cluster->name));
    made->all_reduce = cluster->all_reduce;
    made->intra = cluster->intra;
    made->inter = cluster->inter;
    for (int i = 0; i < made->device_kind_count; i++) {
        const char *name = cluster->devices[i].name;
        made->devices[i] = cluster->devices[i];
        made->devices[i].name = pp_arena_copy(&made->arena, name, strlen(name));
    }
    for (int i = 0; i < made->node_kind_count; i++) made->nodes[i] = cluster->nodes[i];
    for (int i = 0; i < made->override_count; i++) made->overrides[i] = cluster->overrides[i];
    return !made->arena.failed;
}

pp_status pp_cluster_copy(const pp_cluster *cluster, pp_cluster **copy, pp_error *error) {
    *copy = pp_cluster_new_empty();
    if (*copy && copy_into(cluster, *copy)) return PP_OK;
    pp_cluster_free(*copy);
    *copy = NULL;
    return pp_fail_memory(error);
}

/* ---- opening -------------------------------------------------------------------------------- */

static pp_status open_preset(const char *name, int device_count, pp_cluster **cluster,
                             pp_error *error) {
    bool found;
    char known[400];
    int count;
    PP_TRY(pp_cluster_preset_make(name, device_count, &found, cluster, error));
    if (found) return PP_OK;
    const pp_preset *presets = pp_cluster_presets(&count);
    pp_preset_list(presets, count, known, sizeof known);
    return pp_fail(error, PP_E_INPUT, NULL,
                   "there is no cluster '%.100s'; known: %s (N nodes); a file is written with a "
                   "'/' or ends in \".json\"",
                   name, known);
}

pp_status pp_cluster_open(const char *source, int device_count, pp_cluster **cluster,
                          pp_error *error) {
    pp_text text;
    *cluster = NULL;
    if (!pp_source_is_file(source)) return open_preset(source, device_count, cluster, error);
    PP_TRY(pp_file_read(source, PP_DOCUMENT_LIMIT_BYTES, &text, error));
    pp_status status = pp_cluster_read(text.bytes, text.length, source, cluster, error);
    pp_text_deinit(&text);
    return status;
}

pp_status pp_cluster_read(const char *text, size_t length, const char *file_name,
                          pp_cluster **cluster, pp_error *error) {
    json_t *root;
    *cluster = NULL;
    PP_TRY(pp_json_load(text, length, file_name, &root, error));
    pp_json_node document = pp_node_root(root, file_name);
    pp_status status = pp_cluster_from_node(&document, cluster, error);
    json_decref(root);
    return status;
}

/* ---- writing -------------------------------------------------------------------------------- */

static void write_devices(const pp_cluster *cluster, pp_json *json) {
    pp_json_key(json, "devices");
    pp_json_array(json);
    for (int i = 0; i < cluster->device_kind_count; i++) {
        const pp_device *device = &cluster->devices[i];
        pp_json_object_flat(json);
        pp_fields_write(json, pp_device_fields, pp_device_field_count, device);
        if (device->bf16_flops != 0 || device->fp32_flops != 0) {
            pp_json_key(json, "flops");
            pp_json_object(json);
            pp_fields_write(json, pp_flops_fields, pp_flops_field_count, device);
            pp_json_end_object(json);
        }
        pp_json_end_object(json);
    }
    pp_json_end_array(json);
}

static void write_nodes(const pp_cluster *cluster, pp_json *json) {
    pp_json_key(json, "nodes");
    pp_json_array(json);
    for (int i = 0; i < cluster->node_kind_count; i++) {
        const pp_node *node = &cluster->nodes[i];
        pp_json_object_flat(json);
        pp_json_key(json, "device");
        pp_json_string(json, cluster->devices[node->device].name);
        pp_json_key(json, "count");
        pp_json_int(json, node->count);
        pp_json_key(json, "repeat");
        pp_json_int(json, node->repeat);
        pp_json_end_object(json);
    }
    pp_json_end_array(json);
}

static void write_link(pp_json *json, const pp_field *fields, int count, const void *link) {
    pp_json_object_flat(json);
    pp_fields_write(json, fields, count, link);
    pp_json_end_object(json);
}

void pp_cluster_write(const pp_cluster *cluster, pp_json *json) {
    pp_json_object(json);
    pp_json_key(json, "format");
    pp_json_string(json, "ppsim-cluster");
    pp_json_key(json, "version");
    pp_json_int(json, 1);
    pp_json_key(json, "name");
    pp_json_string(json, cluster->name);
    pp_fields_write(json, &pp_all_reduce_field, 1, cluster);
    write_devices(cluster, json);
    write_nodes(cluster, json);
    pp_json_key(json, "intra");
    write_link(json, pp_intra_fields, pp_intra_field_count, &cluster->intra);
    pp_json_key(json, "inter");
    write_link(json, pp_inter_fields, pp_inter_field_count, &cluster->inter);
    if (cluster->override_count > 0) {
        pp_json_key(json, "overrides");
        pp_json_array(json);
        for (int i = 0; i < cluster->override_count; i++)
            write_link(json, pp_override_fields, pp_override_field_count, &cluster->overrides[i]);
        pp_json_end_array(json);
    }
    pp_json_end_object(json);
}

uint64_t pp_cluster_hash(const pp_cluster *cluster) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_cluster_write(cluster, &json);
    uint64_t hash = text.failed ? 0 : pp_hash(PP_HASH_START, text.bytes, text.length);
    pp_text_deinit(&text);
    return hash;
}

/* ---- where a device is ---------------------------------------------------------------------- */

int pp_cluster_device_count(const pp_cluster *cluster) {
    int count = 0;
    for (int i = 0; i < cluster->node_kind_count; i++)
        count += cluster->nodes[i].count * cluster->nodes[i].repeat;
    return count;
}

/* The entry of the list of nodes that holds a device, and the number of its node. */
static const pp_node *locate(const pp_cluster *cluster, int index, int *node_number) {
    *node_number = 0;
    for (int i = 0; i < cluster->node_kind_count; i++) {
        const pp_node *node = &cluster->nodes[i];
        if (index < node->count * node->repeat) {
            *node_number += index / node->count;
            return node;
        }
        index -= node->count * node->repeat;
        *node_number += node->repeat;
    }
    assert(false && "device index out of range");
    return NULL;
}

const pp_device *pp_cluster_device(const pp_cluster *cluster, int index) {
    int number;
    return &cluster->devices[locate(cluster, index, &number)->device];
}

int pp_cluster_node_of(const pp_cluster *cluster, int index) {
    int number;
    locate(cluster, index, &number);
    return number;
}

/* In upper or lower case. */
static bool mentions(const char *text, const char *word, size_t length) {
    for (; *text; text++)
        if (strncasecmp(text, word, length) == 0) return true;
    return false;
}

bool pp_device_may_be(const char *kind, const char *driver_name) {
    size_t word = strcspn(kind, "-_ :");
    if (mentions(kind, driver_name, strlen(driver_name))) return true;
    return mentions(driver_name, kind, word > 0 ? word : strlen(kind));
}

/* Overrides are sorted by (from, to). */
static const pp_link_override *find_override(const pp_cluster *cluster, int from, int to) {
    int low = 0, high = cluster->override_count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        const pp_link_override *at = &cluster->overrides[middle];
        if (at->from == from && at->to == to) return at;
        if (at->from < from || (at->from == from && at->to < to))
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

pp_link pp_cluster_link(const pp_cluster *cluster, int from, int to) {
    if (from == to) return (pp_link){.bandwidth_bytes_per_s = INFINITY};
    const pp_link_override *override = find_override(cluster, from, to);
    if (override) return override->link;
    bool near = pp_cluster_node_of(cluster, from) == pp_cluster_node_of(cluster, to);
    return near ? cluster->intra : cluster->inter;
}

pp_link pp_cluster_slowest_link(const pp_cluster *cluster, const int *from, const int *to,
                                int count) {
    pp_link slowest = {.bandwidth_bytes_per_s = INFINITY};
    for (int i = 0; i < count; i++) {
        pp_link link = pp_cluster_link(cluster, from[i], to[i]);
        if (link.latency_s > slowest.latency_s) slowest.latency_s = link.latency_s;
        if (link.bandwidth_bytes_per_s < slowest.bandwidth_bytes_per_s)
            slowest.bandwidth_bytes_per_s = link.bandwidth_bytes_per_s;
        slowest.shared_per_node = slowest.shared_per_node || link.shared_per_node;
    }
    return slowest;
}
