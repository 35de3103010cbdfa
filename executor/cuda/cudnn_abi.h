/* The few facts of cuDNN's graph interface (its C backend API, cuDNN 9, cudnn_graph.h) that the
 * plugin relies on, so that it is built where cuDNN is not: it opens the library when it is asked
 * to. Where the header is found, cudnn_check.c compares every number here with it. */
#ifndef PPSIM_EXECUTOR_CUDNN_ABI_H
#define PPSIM_EXECUTOR_CUDNN_ABI_H

#include <stddef.h>
#include <stdint.h>

#define DNN_LIBRARY "libcudnn.so.9"
/* Major · 10000 + minor · 100 + patch. Before 9.16 the backward pass needs a padding mask where the
 * sequence is no multiple of 128. */
#define DNN_LEAST_VERSION 91600

typedef struct dnn_context dnn_context; /* cudnnHandle_t is a pointer to it */
typedef void *dnn_descriptor;           /* cudnnBackendDescriptor_t */

/* X(name, value): DNN_name here is CUDNN_name there. */
#define DNN_NUMBER_LIST(X)                                                                         \
    X(STATUS_SUCCESS, 0)                                                                           \
    /* cudnnDataType_t */                                                                          \
    X(DATA_FLOAT, 0)                                                                               \
    X(DATA_INT32, 4)                                                                               \
    X(DATA_BFLOAT16, 9)                                                                            \
    X(DATA_BOOLEAN, 11)                                                                            \
    /* cudnnBackendDescriptorType_t */                                                             \
    X(BACKEND_POINTWISE_DESCRIPTOR, 0)                                                             \
    X(BACKEND_ENGINECFG_DESCRIPTOR, 3)                                                             \
    X(BACKEND_ENGINEHEUR_DESCRIPTOR, 4)                                                            \
    X(BACKEND_EXECUTION_PLAN_DESCRIPTOR, 5)                                                        \
    X(BACKEND_OPERATION_POINTWISE_DESCRIPTOR, 13)                                                  \
    X(BACKEND_OPERATIONGRAPH_DESCRIPTOR, 15)                                                       \
    X(BACKEND_VARIANT_PACK_DESCRIPTOR, 16)                                                         \
    X(BACKEND_TENSOR_DESCRIPTOR, 17)                                                               \
    X(BACKEND_MATMUL_DESCRIPTOR, 18)                                                               \
    X(BACKEND_OPERATION_MATMUL_DESCRIPTOR, 19)                                                     \
    X(BACKEND_REDUCTION_DESCRIPTOR, 21)                                                            \
    X(BACKEND_OPERATION_REDUCTION_DESCRIPTOR, 22)                                                  \
    X(BACKEND_OPERATION_RESHAPE_DESCRIPTOR, 31)                                                    \
    /* cudnnBackendAttributeType_t */                                                              \
    X(TYPE_HANDLE, 0)                                                                              \
    X(TYPE_DATA_TYPE, 1)                                                                           \
    X(TYPE_BOOLEAN, 2)                                                                             \
    X(TYPE_INT64, 3)                                                                               \
    X(TYPE_VOID_PTR, 6)                                                                            \
    X(TYPE_HEUR_MODE, 8)                                                                           \
    X(TYPE_POINTWISE_MODE, 14)                                                                     \
    X(TYPE_BACKEND_DESCRIPTOR, 15)                                                                 \
    X(TYPE_REDUCTION_OPERATOR_TYPE, 18)                                                            \
    /* cudnnBackendAttributeName_t */                                                              \
    X(ATTR_POINTWISE_MODE, 0)                                                                      \
    X(ATTR_POINTWISE_MATH_PREC, 1)                                                                 \
    X(ATTR_POINTWISE_AXIS, 9)                                                                      \
    X(ATTR_ENGINEHEUR_MODE, 200)                                                                   \
    X(ATTR_ENGINEHEUR_OPERATION_GRAPH, 201)                                                        \
    X(ATTR_ENGINEHEUR_RESULTS, 202)                                                                \
    X(ATTR_EXECUTION_PLAN_HANDLE, 400)                                                             \
    X(ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 401)                                                      \
    X(ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 402)                                                     \
    X(ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, 750)                                                 \
    X(ATTR_OPERATION_POINTWISE_XDESC, 751)                                                         \
    X(ATTR_OPERATION_POINTWISE_BDESC, 752)                                                         \
    X(ATTR_OPERATION_POINTWISE_YDESC, 753)                                                         \
    X(ATTR_OPERATION_POINTWISE_TDESC, 758)                                                         \
    X(ATTR_OPERATIONGRAPH_HANDLE, 800)                                                             \
    X(ATTR_OPERATIONGRAPH_OPS, 801)                                                                \
    X(ATTR_TENSOR_BYTE_ALIGNMENT, 900)                                                             \
    X(ATTR_TENSOR_DATA_TYPE, 901)                                                                  \
    X(ATTR_TENSOR_DIMENSIONS, 902)                                                                 \
    X(ATTR_TENSOR_STRIDES, 903)                                                                    \
    X(ATTR_TENSOR_UNIQUE_ID, 906)                                                                  \
    X(ATTR_TENSOR_IS_VIRTUAL, 907)                                                                 \
    X(ATTR_TENSOR_IS_BY_VALUE, 908)                                                                \
    X(ATTR_VARIANT_PACK_UNIQUE_IDS, 1000)                                                          \
    X(ATTR_VARIANT_PACK_DATA_POINTERS, 1001)                                                       \
    X(ATTR_VARIANT_PACK_WORKSPACE, 1003)                                                           \
    X(ATTR_MATMUL_COMP_TYPE, 1500)                                                                 \
    X(ATTR_OPERATION_MATMUL_ADESC, 1520)                                                           \
    X(ATTR_OPERATION_MATMUL_BDESC, 1521)                                                           \
    X(ATTR_OPERATION_MATMUL_CDESC, 1522)                                                           \
    X(ATTR_OPERATION_MATMUL_DESC, 1523)                                                            \
    X(ATTR_REDUCTION_OPERATOR, 1600)                                                               \
    X(ATTR_REDUCTION_COMP_TYPE, 1601)                                                              \
    X(ATTR_OPERATION_REDUCTION_XDESC, 1610)                                                        \
    X(ATTR_OPERATION_REDUCTION_YDESC, 1611)                                                        \
    X(ATTR_OPERATION_REDUCTION_DESC, 1612)                                                         \
    X(ATTR_OPERATION_RESHAPE_XDESC, 2200)                                                          \
    X(ATTR_OPERATION_RESHAPE_YDESC, 2201)                                                          \
    /* cudnnBackendHeurMode_t, cudnnReduceTensorOp_t, cudnnPointwiseMode_t */                      \
    X(HEUR_MODE_A, 3)                                                                              \
    X(REDUCE_TENSOR_ADD, 0)                                                                        \
    X(REDUCE_TENSOR_MAX, 3)                                                                        \
    X(POINTWISE_ADD, 0)                                                                            \
    X(POINTWISE_MUL, 1)                                                                            \
    X(POINTWISE_DIV, 6)                                                                            \
    X(POINTWISE_SUB, 9)                                                                            \
    X(POINTWISE_EXP, 13)                                                                           \
    X(POINTWISE_LOG, 15)                                                                           \
    X(POINTWISE_IDENTITY, 21)                                                                      \
    X(POINTWISE_CMP_GE, 303)                                                                       \
    X(POINTWISE_GEN_INDEX, 501)                                                                    \
    X(POINTWISE_BINARY_SELECT, 601)

enum {
#define X(name, value) DNN_##name = value,
    DNN_NUMBER_LIST(X)
#undef X
};

/* X(member, symbol, arguments): all return an int, a cudnnStatus_t. cudaStream_t is a pointer. */
#define DNN_FUNCTION_LIST(X)                                                                       \
    X(create, "cudnnCreate", (dnn_context * *context))                                             \
    X(destroy, "cudnnDestroy", (dnn_context * context))                                            \
    X(set_stream, "cudnnSetStream", (dnn_context * context, void *stream))                         \
    X(make, "cudnnBackendCreateDescriptor", (int type, dnn_descriptor *made))                      \
    X(drop, "cudnnBackendDestroyDescriptor", (dnn_descriptor made))                                \
    X(finalize, "cudnnBackendFinalize", (dnn_descriptor made))                                     \
    X(set, "cudnnBackendSetAttribute",                                                             \
      (dnn_descriptor made, int name, int type, int64_t count, const void *values))                \
    X(get, "cudnnBackendGetAttribute",                                                             \
      (dnn_descriptor made, int name, int type, int64_t room, int64_t *count, void *values))       \
    X(execute, "cudnnBackendExecute",                                                              \
      (dnn_context * context, dnn_descriptor plan, dnn_descriptor pack))

#endif
