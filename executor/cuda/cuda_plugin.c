/* The cuda plugin's door. */
#include "executor/cuda/cuda_internal.h"

#include <stdlib.h>

const pp_host *pp_cuda_host;

static const pp_plugin plugin = {
    .abi = PP_PLUGIN_ABI, .name = "cuda", .version = PP_VERSION, .backend = &pp_cuda_backend};

__attribute__((visibility("default"))) const pp_plugin *ppsim_plugin(const pp_host *host);

const pp_plugin *ppsim_plugin(const pp_host *host) {
    if (host->abi != PP_PLUGIN_ABI) return NULL;
    pp_cuda_host = host;
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0); /* streams of many ranks run side by side */
    return &plugin;
}
