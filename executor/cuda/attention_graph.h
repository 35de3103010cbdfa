/* Attention as graphs of cuDNN: forward with the statistics that backward asks for, and backward.
 *
 *     S = Q K^T / √size, masked;  L = log Σ exp S of each row;  P = exp(S - L);  O = P V
 *     D = Σ dO · O of each row;  dV = P^T dO;  dS = P · (dO V^T - D) / √size
 *     dQ = dS K;  dK = dS^T Q                             (Dao et al. 2022, Appendix B)
 *
 * Layouts are those of executor/layers/kernels_declared.h: heads of q, k and v side by side in the
 * rows of qkv, so that no tensor is copied. Where heads share keys and values, the gradients of
 * those are made for each head and summed. */
#ifndef PPSIM_EXECUTOR_ATTENTION_GRAPH_H
#define PPSIM_EXECUTOR_ATTENTION_GRAPH_H

#include "executor/cuda/cudnn_graph.h"

typedef struct dnn_attention {
    int64_t samples, sequence, heads, kv_heads, size;
    int type;   /* DNN_DATA_… of q, k, v and what has their shape */
    int causal; /* positions see those up to their own alone */
} dnn_attention;

/* Tensors in memory (DNN_IN_MEMORY), and by value: one fp32 number on the host. */
enum {
    DNN_Q = 1,
    DNN_K,
    DNN_V,
    DNN_O,          /* attended: [samples · sequence, heads · size] */
    DNN_STATISTICS, /* L: [samples · heads · sequence] fp32 */
    DNN_SCALE,      /* by value: 1 / √size */
    DNN_HIDDEN,     /* by value: what masked scores become, -∞ */
    DNN_ONE,        /* by value: 1 */
    DNN_O_GRADIENT,
    DNN_Q_GRADIENT,
    DNN_K_GRADIENT,
    DNN_V_GRADIENT,
    DNN_ROW_SUMS, /* scratch, D: [samples · heads · sequence] fp32 */
    DNN_Q_SUMS, /* scratch: dQ while it is added up, [samples · heads · sequence · size] fp32 */
    DNN_ATTENTION_IDS
};

void dnn_attention_forward(const dnn_attention *attention, dnn_graph *graph);
void dnn_attention_backward(const dnn_attention *attention, dnn_graph *graph);

#endif
