/* What the files of layers/ share that does not depend on the real type. */
#ifndef PPSIM_EXECUTOR_LAYERS_INTERNAL_H
#define PPSIM_EXECUTOR_LAYERS_INTERNAL_H

#include "executor/layer.h"

#ifndef PP_DEVICE_PASSES
#include <cblas.h>
#endif
#include <string.h>

/* Vector kernels are compiled for several instruction sets and chosen at start. No set fuses
 * multiply and add (-ffp-contract=off) or reorders sums, so all give the same bits. The address and
 * thread sanitizers start after the loader has made the choice, and clang before 17 names the
 * chosen function wrongly: they get the plain one. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__) ||         \
    !defined(__x86_64__) || !defined(__GLIBC__)
#define PP_NO_CLONES
#endif
#ifdef PP_NO_CLONES
#define PP_VECTOR
#else
#define PP_VECTOR __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#define PP_INLINE static inline __attribute__((always_inline, unused))

/* Partial sums that a reduction keeps apart: a multiple of every vector width. */
enum { PP_LANES = 32 };

/* Rows of the call's activations. */
static inline int64_t pp_call_rows(const pp_layer_call *call) {
    return call->samples * (call->layer->sequence > 0 ? call->layer->sequence : 1);
}

/* Columns of the layer's output. */
static inline int64_t pp_features_out(const pp_layer *layer) {
    return layer->output_dim > 0 ? layer->output_dim : layer->dim;
}

/* The first layer of a model may be fed with features of the data set instead of by an edge. */
static inline const void *pp_call_input(const pp_layer_call *call) {
    return call->input_count > 0 ? call->inputs[0] : call->features;
}

/* Where the gradient of the only input goes, or NULL: nobody wants it. */
static inline void *pp_call_input_gradient(const pp_layer_call *call) {
    return call->input_count > 0 ? call->input_gradients[0] : NULL;
}

static inline bool pp_call_accumulates(const pp_layer_call *call) {
    return call->input_count > 0 && call->accumulate && call->accumulate[0];
}

static inline bool pp_call_drops(const pp_layer_call *call) {
    return call->training && call->layer->dropout > 0;
}

/* Words of the dropout mask of one sample, elements first … first + count - 1 (first a multiple of
 * 4): word e % 4 of block (sample, site · 2^40 + e / 4). `site` tells the dropouts of one layer
 * apart. An element is dropped where its word is below pp_mask_threshold. */
void pp_mask_words(pp_random_key key, uint64_t sample, uint64_t site, int64_t first, int64_t count,
                   uint32_t *words);
uint32_t pp_mask_threshold(double probability);

/* The rows of table.c. */
#define PP_LAYERS(X)                                                                               \
    X(PP_OP_EMBEDDING, pp_embedding)                                                               \
    X(PP_OP_GPT_BLOCK, pp_gpt_block)                                                               \
    X(PP_OP_LM_HEAD, pp_lm_head)                                                                   \
    X(PP_OP_LAYER_NORM, pp_layer_norm)                                                             \
    X(PP_OP_LINEAR, pp_linear)                                                                     \
    X(PP_OP_GELU, pp_gelu)                                                                         \
    X(PP_OP_RELU, pp_relu)                                                                         \
    X(PP_OP_ATTENTION, pp_attention)                                                               \
    X(PP_OP_DROPOUT, pp_dropout)                                                                   \
    X(PP_OP_ADD, pp_add)                                                                           \
    X(PP_OP_CROSS_ENTROPY, pp_cross_entropy)                                                       \
    X(PP_OP_RMS_NORM, pp_rms_norm)                                                                 \
    X(PP_OP_TOKEN_EMBEDDING, pp_token_embedding)                                                   \
    X(PP_OP_LLAMA_BLOCK, pp_llama_block)                                                           \
    X(PP_OP_RMS_LM_HEAD, pp_rms_lm_head)                                                           \
    X(PP_OP_BERT_EMBEDDING, pp_bert_embedding)                                                     \
    X(PP_OP_BERT_BLOCK, pp_bert_block)                                                             \
    X(PP_OP_MLM_HEAD, pp_mlm_head)

#ifdef PP_DEVICE_PASSES
#define X(op, name) extern const pp_layer_ops name##_cuda_f32, name##_cuda_bf16;
#else
#define X(op, name) extern const pp_layer_ops name##_f32, name##_f64;
#endif
PP_LAYERS(X)
#undef X

#endif
