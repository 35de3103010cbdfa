/* The cuda plugin's door: what it is, and whether it can work on this machine. */
#include "executor/cuda/cuda_internal.h"

#include <stdio.h>

const pp_host *pp_cuda_host;

/* "NVIDIA H200, 132 multiprocessors, 139.8 GiB, driver 13.0, runtime 13.0" */
static bool cuda_usable(char detail[256]) {
    int count = 0, driver = 0, runtime = 0;
    struct cudaDeviceProp properties;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) {
        snprintf(detail, 256, "no NVIDIA driver (libcuda.so.1) is on this machine");
        return false;
    }
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code == cudaErrorInsufficientDriver) {
        snprintf(detail, 256,
                 "the driver is for CUDA %d.%d, older than the toolkit's %d.%d: update the driver, "
                 "or build with an older toolkit",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
        return false;
    }
    if (code == cudaSuccess && count > 0) code = cudaGetDeviceProperties(&properties, 0);
    if (code != cudaSuccess || count == 0) {
        snprintf(detail, 256, "no CUDA device: %s",
                 code != cudaSuccess ? cudaGetErrorString(code) : "the driver lists none");
        return false;
    }
    snprintf(detail, 256, "%.120s, %d multiprocessors, %.1f GiB, driver %d.%d, runtime %d.%d",
             properties.name, properties.multiProcessorCount,
             (double)properties.totalGlobalMem / 1073741824.0, driver / 1000, driver % 1000 / 10,
             runtime / 1000, runtime % 1000 / 10);
    return true;
}

static const pp_backend backend = {.name = "cuda", .runs_layers = true, .usable = cuda_usable};

static const pp_plugin plugin = {
    .abi = PP_PLUGIN_ABI, .name = "cuda", .version = PP_VERSION, .backend = &backend};

__attribute__((visibility("default"))) const pp_plugin *ppsim_plugin(const pp_host *host);

const pp_plugin *ppsim_plugin(const pp_host *host) {
    if (host->abi != PP_PLUGIN_ABI) return NULL;
    pp_cuda_host = host;
    return &plugin;
}
