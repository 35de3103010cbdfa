/* cuDNN, opened when attention is first asked of it: no program needs it to start. */
#ifndef PPSIM_EXECUTOR_CUDNN_LIBRARY_H
#define PPSIM_EXECUTOR_CUDNN_LIBRARY_H

#include "executor/cuda/cudnn_abi.h"

#include <stdbool.h>

typedef struct dnn_functions {
#define X(member, symbol, arguments) int(*member) arguments;
    DNN_FUNCTION_LIST(X)
#undef X
    const char *(*error_text)(int status);
} dnn_functions;

/* NULL: it cannot be used; `detail` says why and what to do, else which version it is. The file
 * that PPSIM_CUDNN names, or the loader's libcudnn.so.9. Thread-safe; the answer stays. */
const dnn_functions *pp_dnn_functions(char detail[256]);

#endif
