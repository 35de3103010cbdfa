/* cudnn_abi.h against cuDNN's own header, where it is: nothing of this is in the program. */
#include "executor/cuda/cudnn_abi.h"

#if __has_include(<cudnn_graph.h>)
#include <cudnn_graph.h>

#define X(name, value) _Static_assert((int)CUDNN_##name == (int)DNN_##name, #name);
DNN_NUMBER_LIST(X)
#undef X
_Static_assert(sizeof(cudnnStatus_t) == sizeof(int), "functions return an int");
_Static_assert(sizeof(cudnnBackendAttributeName_t) == sizeof(int), "attributes are ints");
#endif
