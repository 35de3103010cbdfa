/* What the files of the nccl plugin share. */
#ifndef PPSIM_EXECUTOR_NCCL_CARRIER_H
#define PPSIM_EXECUTOR_NCCL_CARRIER_H

#include "executor/plugin.h"

extern const pp_host *pp_nccl_host; /* set when the plugin is opened */
extern const pp_carrier_ops pp_nccl_carrier;

#endif
