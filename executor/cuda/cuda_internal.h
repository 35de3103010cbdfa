/* What the files of the cuda plugin share. */
#ifndef PPSIM_EXECUTOR_CUDA_INTERNAL_H
#define PPSIM_EXECUTOR_CUDA_INTERNAL_H

#include "executor/plugin.h"

#include <cuda_runtime_api.h>

extern const pp_host *pp_cuda_host; /* set when the plugin is opened */

#endif
