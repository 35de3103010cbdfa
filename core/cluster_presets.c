/* Clusters known by name: boxes of eight GPUs from their makers' data sheets, and this machine.
 *
 * A data sheet's NVLink figure counts both directions; a link here is one of them. Every GPU of
 * these boxes has a network adapter of its own, so the link between nodes is not shared. Data
 * sheets name no latencies: the two constants are nominal, of the size that point-to-point tests
 * report. No prices: they differ by contract. */
#include "core/cluster_internal.h"

#include <string.h>
#include <unistd.h>

#define NVLINK_LATENCY_S 3e-6
#define NETWORK_LATENCY_S 1e-5
#define GIB 1073741824

typedef struct box {
    const char *prefix; /* "dgx-h100" */
    pp_device device;   /* dense rates, without sparsity */
    double nvlink_bytes_per_s, network_bytes_per_s;
} box;

static const box boxes[] = {
    {"dgx-h100",
     {"h100-sxm-80gb", 80LL * GIB, .bf16_flops = 989e12, .fp32_flops = 67e12,
      .memory_bandwidth_bytes_per_s = 3.35e12},
     450e9,
     50e9},
    {"dgx-a100",
     {"a100-sxm-80gb", 80LL * GIB, .bf16_flops = 312e12, .fp32_flops = 19.5e12,
      .memory_bandwidth_bytes_per_s = 2.039e12},
     300e9,
     25e9},
    {"h200",
     {"h200-sxm-141gb", 141000000000, .bf16_flops = 989e12, .fp32_flops = 67e12,
      .memory_bandwidth_bytes_per_s = 4.8e12},
     450e9,
     50e9},
};

/* "local" first, then the boxes in their order. */
static const pp_preset presets[] = {
    {"local", "this machine: one device per core, or as many as are asked for",
     "memory and cores of the system; rates are nominal, a profile replaces them"},
    {"dgx-h100:N", "N nodes of 8 H100 80 GB, NVLink 4, 400 Gb/s per GPU between nodes",
     "NVIDIA H100 Tensor Core GPU data sheet (SXM5); NVIDIA DGX H100 data sheet"},
    {"dgx-a100:N", "N nodes of 8 A100 80 GB, NVLink 3, 200 Gb/s per GPU between nodes",
     "NVIDIA A100 80GB data sheet (SXM4); NVIDIA DGX A100 data sheet"},
    {"h200:N", "N nodes of 8 H200 141 GB, NVLink 4, 400 Gb/s per GPU between nodes",
     "NVIDIA H200 Tensor Core GPU data sheet (SXM); NVIDIA DGX H200 data sheet"},
};

const pp_preset *pp_cluster_presets(int *count) {
    *count = PP_ARRAY_LENGTH(presets);
    return presets;
}

/* One kind of device in `repeat` equal nodes. */
static pp_status make(const char *name, const pp_device *device, pp_node node, pp_link intra,
                      pp_link inter, pp_cluster **cluster, pp_error *error) {
    pp_cluster *made = *cluster = pp_cluster_new_empty();
    if (made && pp_cluster_reserve(made, 1, 1, 0)) {
        made->name = pp_arena_copy(&made->arena, name, strlen(name));
        made->devices[0] = *device;
        made->devices[0].name = pp_arena_copy(&made->arena, device->name, strlen(device->name));
        made->nodes[0] = node;
        made->intra = intra;
        made->inter = inter;
        if (!made->arena.failed) return PP_OK;
    }
    pp_cluster_free(made);
    *cluster = NULL;
    return pp_fail_memory(error);
}

/* ---- this machine --------------------------------------------------------------------------- */

static int64_t physical_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (int64_t)pages * page_bytes : GIB;
}

/* The rates are nominal: a core of the 2020s with AVX2 or better, and memory copies through its cache. They
 * only order plans sensibly until a profile tells the truth. */
static pp_status make_local(int device_count, pp_cluster **cluster, pp_error *error) {
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int cores = online > 0 ? (int)online : 1;
    int count = device_count > 0 ? device_count : cores;
    if (count > 65535)
        return pp_fail(error, PP_E_INPUT, NULL, "local has at most 65535 devices, not %d", count);
    if (count > cores)
        pp_log(PP_LOG_WARNING, "core",
               "%d devices share the %d cores of this machine: predicted times will not hold",
               count, cores);
    int64_t memory_bytes = physical_memory() / count;
    pp_device device = {.name = "cpu",
                        .memory_bytes = memory_bytes > 0 ? memory_bytes : 1,
                        .fp32_flops = 1e11,
                        .memory_bandwidth_bytes_per_s = 1e10};
    pp_link copy = {.bandwidth_bytes_per_s = 5e9, .latency_s = 5e-6};
    return make("local", &device, (pp_node){0, count, 1}, copy, copy, cluster, error);
}

/* ---- boxes ---------------------------------------------------------------------------------- */

static pp_status make_boxes(const box *kind, const char *name, pp_cluster **cluster,
                            pp_error *error) {
    int64_t repeat = 1;
    size_t prefix = strlen(kind->prefix);
    if (name[prefix] == ':' && !pp_parse_int(name + prefix + 1, 1, PP_CLUSTER_NODES_MAX, &repeat))
        return pp_fail(error, PP_E_INPUT, NULL,
                       "expected %s:N with N from 1 to %d nodes, got '%.100s'", kind->prefix,
                       PP_CLUSTER_NODES_MAX, name);
    pp_link intra = {kind->nvlink_bytes_per_s, NVLINK_LATENCY_S, false};
    pp_link inter = {kind->network_bytes_per_s, NETWORK_LATENCY_S, false};
    return make(name, &kind->device, (pp_node){0, 8, (int)repeat}, intra, inter, cluster, error);
}

pp_status pp_cluster_preset_make(const char *name, int device_count, bool *found,
                                 pp_cluster **cluster, pp_error *error) {
    *found = true;
    if (strcmp(name, "local") == 0) return make_local(device_count, cluster, error);
    for (int i = 0; i < PP_ARRAY_LENGTH(boxes); i++) {
        size_t prefix = strlen(boxes[i].prefix);
        if (strncmp(name, boxes[i].prefix, prefix) != 0) continue;
        if (name[prefix] == '\0' || name[prefix] == ':')
            return make_boxes(&boxes[i], name, cluster, error);
    }
    *found = false;
    return PP_OK;
}
