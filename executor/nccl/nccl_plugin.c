/* The nccl plugin's door. It needs neither NCCL nor CUDA to be built or opened. */
#include "executor/nccl/nccl_carrier.h"

static const pp_plugin plugin = {
    .abi = PP_PLUGIN_ABI, .name = "nccl", .version = PP_VERSION, .carrier = &pp_nccl_carrier};

__attribute__((visibility("default"))) const pp_plugin *ppsim_plugin(const pp_host *host);

const pp_plugin *ppsim_plugin(const pp_host *host) {
    if (host->abi != PP_PLUGIN_ABI) return NULL;
    pp_nccl_host = host;
    return &plugin;
}
