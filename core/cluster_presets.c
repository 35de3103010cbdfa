/* Clusters known by name: boxes of eight GPUs from their makers' data sheets, and this machine.
 *
 * A data sheet's NVLink, PCIe or Infinity Fabric figure counts both directions; a link here is one
 * of them. Where every GPU of a box has a network adapter of its own, the link between nodes is not
 * shared. Data sheets name no latencies: the constants are nominal, of the size that point-to-point
 * tests report. Boxes that makers leave to their customers (L4, RTX 4090) get nominal networks of
 * one adapter for all, said so in their summaries. No prices: they differ by contract. */
#include "core/cluster_internal.h"

#include <string.h>
#include <unistd.h>

#define NVLINK_LATENCY_S 3e-6
#define PCIE_LATENCY_S 8e-6
#define NETWORK_LATENCY_S 1e-5
#define GIB 1073741824

typedef struct box {
    const char *prefix; /* "dgx-h100" */
    pp_device device;   /* dense rates, without sparsity; 0: a type it does not compute in */
    pp_link intra, inter;
} box;

static const box boxes[] = {
    {"dgx-h100",
     {"h100-sxm-80gb", 80LL * GIB, .bf16_flops = 989e12, .fp32_flops = 67e12,
      .memory_bandwidth_bytes_per_s = 3.35e12},
     {450e9, NVLINK_LATENCY_S, false},
     {50e9, NETWORK_LATENCY_S, false}},
    {"dgx-a100",
     {"a100-sxm-80gb", 80LL * GIB, .bf16_flops = 312e12, .fp32_flops = 19.5e12,
      .memory_bandwidth_bytes_per_s = 2.039e12},
     {300e9, NVLINK_LATENCY_S, false},
     {25e9, NETWORK_LATENCY_S, false}},
    {"h200",
     {"h200-sxm-141gb", 141000000000, .bf16_flops = 989e12, .fp32_flops = 67e12,
      .memory_bandwidth_bytes_per_s = 4.8e12},
     {450e9, NVLINK_LATENCY_S, false},
     {50e9, NETWORK_LATENCY_S, false}},
    {"dgx-a100-40gb",
     {"a100-sxm-40gb", 40LL * GIB, .bf16_flops = 312e12, .fp32_flops = 19.5e12,
      .memory_bandwidth_bytes_per_s = 1.555e12},
     {300e9, NVLINK_LATENCY_S, false},
     {25e9, NETWORK_LATENCY_S, false}},
    {"dgx-v100",
     {"v100-sxm2-32gb", 32LL * GIB, .fp32_flops = 15.7e12, .memory_bandwidth_bytes_per_s = 900e9},
     {150e9, NVLINK_LATENCY_S, false},
     {50e9, NETWORK_LATENCY_S, true}},
    {"mi300x",
     {"mi300x-192gb", 192LL * GIB, .bf16_flops = 1307.4e12, .fp32_flops = 163.4e12,
      .memory_bandwidth_bytes_per_s = 5.3e12},
     {64e9, NVLINK_LATENCY_S, false},
     {50e9, NETWORK_LATENCY_S, false}},
    {"l4",
     {"l4-24gb", 24LL * GIB, .bf16_flops = 121e12, .fp32_flops = 30.3e12,
      .memory_bandwidth_bytes_per_s = 300e9},
     {32e9, PCIE_LATENCY_S, false},
     {12.5e9, NETWORK_LATENCY_S, true}},
    {"rtx-4090",
     {"rtx-4090-24gb", 24LL * GIB, .bf16_flops = 165.2e12, .fp32_flops = 82.6e12,
      .memory_bandwidth_bytes_per_s = 1.008e12},
     {32e9, PCIE_LATENCY_S, false},
     {12.5e9, NETWORK_LATENCY_S, true}},
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
    {"dgx-a100-40gb:N", "N nodes of 8 A100 40 GB, NVLink 3, 200 Gb/s per GPU between nodes",
     "NVIDIA A100 40GB data sheet (SXM4); NVIDIA DGX A100 320GB data sheet"},
    {"dgx-v100:N", "N nodes of 8 V100 32 GB (no bf16), NVLink 2, 400 Gb/s per node between nodes",
     "NVIDIA V100 data sheet (SXM2 32GB); NVIDIA DGX-1 data sheet"},
    {"mi300x:N",
     "N nodes of 8 MI300X 192 GB, Infinity Fabric, 400 Gb/s per GPU between nodes (nominal)",
     "AMD Instinct MI300X data sheet; AMD Instinct MI300X Platform data sheet"},
    {"l4:N", "N nodes of 8 L4 24 GB, PCIe 4.0 x16, 100 Gb/s per node between nodes (nominal)",
     "NVIDIA L4 Tensor Core GPU data sheet (dense rates: half of those with sparsity)"},
    {"rtx-4090:N",
     "N nodes of 8 RTX 4090 24 GB, PCIe 4.0 x16, 100 Gb/s per node between nodes (nominal)",
     "NVIDIA Ada GPU Architecture whitepaper (bf16 with fp32 accumulation)"},
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

/* The rates are nominal: a core of the 2020s with AVX2 or better, and memory copies through its
 * cache. They only order plans sensibly until a profile tells the truth. */
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
    return make(name, &kind->device, (pp_node){0, 8, (int)repeat}, kind->intra, kind->inter,
                cluster, error);
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
