/* core: floor 1 of ppsim. The words everything else is written in.
 *
 * Read this header first. It has thirteen parts, each kept in the files named beside it:
 *
 *   1 status and errors      error.c       what every fallible function returns
 *   2 the platform           platform.c    allocation, clock, files, stop requests, log: the seams
 *   3 arenas and text        arena.c text.c
 *   4 files and JSON output  file.c json_writer.c
 *   5 random numbers         random.c      counter-based, so order and threads do not matter
 *   6 models                 model.c model_presets.c layer.c
 *   7 clusters               cluster.c collective.c
 *   8 schedules as data      schedule.c notation.c schedule_csv.c schedule_json.c
 *                            schedule_units.c transfers.c wait_graph.c check.c check_cycle.c
 *   9 stage memory           slots.c layout.c  the one table that simulator and executor share
 *  10 plans                  plan.c
 *  11 traces and samples     trace.c
 *  12 sweeps                 sweep.c
 *  13 statistics             statistics.c
 *
 * Conventions: a function that can fail returns pp_status and fills a caller-owned pp_error (which
 * may be NULL). Structs are plain data that people fill, print and compare; strings in them live
 * in the arena of the document that owns them. Durations are seconds (_s), sizes are bytes
 * (_bytes) or counts (_count). Loop letters follow the papers: p rank, s stage, m microbatch,
 * v virtual stage. core never prints and never exits. */
#ifndef PPSIM_CORE_H
#define PPSIM_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PP_VERSION "0.1.0"

/* ---- 1 status and errors ------------------------------------------------------------------- */

/* name, exit status of the program, what kind of thing went wrong */
#define PP_STATUS_LIST(X)                                                                          \
    X(PP_OK, 0, "ok")                                                                              \
    X(PP_E_INPUT, 2, "bad input")             /* a file, option or value is wrong or missing */    \
    X(PP_E_UNSUPPORTED, 2, "not supported")   /* well formed, but this build cannot do it */       \
    X(PP_E_DEADLOCK, 2, "the schedule hangs") /* refused by the check */                           \
    X(PP_E_NO_FIT, 3, "nothing fits")         /* no plan or schedule meets the constraints */      \
    X(PP_E_OUT_OF_MEMORY, 1, "out of memory")                                                      \
    X(PP_E_IO, 1, "input/output error")       /* reading or writing failed underneath us */        \
    X(PP_E_FAILED, 1, "failed while working") /* a worker, library or device failed */             \
    X(PP_E_TOLERANCE, 1, "outside the tolerance")                                                  \
    X(PP_E_INTERRUPTED, 130, "interrupted")

typedef enum pp_status {
#define X(name, exit_status, text) name,
    PP_STATUS_LIST(X)
#undef X
} pp_status;

/* One error: what went wrong, where in the user's input, and what lay underneath. */
typedef struct pp_error {
    pp_status code;
    char place[320];    /* "model.json:3:14", "plan.json /layers/3/dim", "--costs"; "" if none */
    char message[2400]; /* what, what was expected, what to try; one line (a wait cycle: several) */
    char cause[160]; /* the foreign reason: errno text, SQLite's or cairo's message; "" if none */
} pp_error;

/* Fills *error (unless NULL) and returns code, so that callers write `return pp_fail(...)`.
 * place may be NULL. Over-long texts are cut, never overrun. */
pp_status pp_fail(pp_error *error, pp_status code, const char *place, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Adds the foreign cause to an error already filled; returns error->code. */
pp_status pp_fail_cause(pp_error *error, const char *cause);

/* PP_E_OUT_OF_MEMORY with the standard message. */
pp_status pp_fail_memory(pp_error *error);

int pp_status_exit(pp_status code);         /* exit status of the program */
const char *pp_status_text(pp_status code); /* "bad input" */

/* Returns early with the status of a failing call. For functions with nothing to clean up. */
#define PP_TRY(call)                                                                               \
    do {                                                                                           \
        pp_status pp_try_status = (call);                                                          \
        if (pp_try_status != PP_OK) return pp_try_status;                                          \
    } while (0)

/* ---- 2 the platform ------------------------------------------------------------------------ */

/* The operating system as a table of functions. Tests replace it to fail the n-th allocation, fill
 * the disk, crash between write and rename, or turn the clock by hand. Members are never NULL. */
typedef struct pp_platform {
    void *(*allocate)(size_t size_bytes); /* 16-byte aligned; NULL when there is none */
    void (*release)(void *block);
    double (*now_s)(void);             /* monotonic */
    int (*open_new)(const char *path); /* create exclusively for writing; -1 and errno */
    long (*write)(int file, const void *bytes, size_t size_bytes);
    int (*sync)(int file);
    int (*close)(int file);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*sync_directory)(const char *directory);
} pp_platform;

const pp_platform *pp_platform_get(void);
/* Not thread-safe: call before threads start. NULL restores the real one. */
void pp_platform_set(const pp_platform *platform);

/* Counted allocation: every block of ppsim comes from here, and of jansson and SQLite where they
 * let us. Size 0 gives a unique block. NULL when out of memory. Thread-safe. */
void *pp_allocate(size_t size_bytes);
void *pp_allocate_zeroed(size_t count,
                         size_t size_bytes);         /* NULL also when the product overflows */
void *pp_reallocate(void *block, size_t size_bytes); /* block keeps its value on failure */
void pp_free(void *block);                           /* NULL is fine */
int64_t pp_live_bytes(void); /* bytes handed out and not freed: 0 at exit, or something leaks */

double pp_now_s(void);

/* Asking the program to stop (SIGINT, SIGTERM). Long loops poll pp_stop_signal() and return
 * PP_E_INTERRUPTED. Both are async-signal-safe. */
void pp_stop_request(int signal_number); /* 0 clears */
int pp_stop_signal(void);                /* 0, or the signal's number */

/* Logging: "sim:debug,executor:trace" from PPSIM_LOG. Libraries call pp_log; only cli installs a
 * sink. Levels: error 0, warning 1, info 2, debug 3, trace 4. Default: warnings of all. */
typedef enum pp_log_level {
    PP_LOG_ERROR,
    PP_LOG_WARNING,
    PP_LOG_INFO,
    PP_LOG_DEBUG,
    PP_LOG_TRACE
} pp_log_level;
typedef void pp_log_sink(pp_log_level level, const char *subsystem, const char *message);
void pp_log_install(pp_log_sink *sink, const char *specification); /* either may be NULL */
void pp_log(pp_log_level level, const char *subsystem, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- 3 arenas and text --------------------------------------------------------------------- */

/* Memory that is given back all at once. Zeroed, 16-byte aligned. After the first failure every
 * further allocation fails too, so a caller may check once at the end (arena.failed). */
typedef struct pp_arena {
    struct pp_arena_block *first; /* chain of blocks, kept over resets */
    struct pp_arena_block *current;
    size_t used_bytes; /* handed out since the last reset */
    bool failed;
} pp_arena;

void pp_arena_init(pp_arena *arena);
void *pp_arena_allocate(pp_arena *arena, size_t count, size_t size_bytes); /* NULL on failure */
char *pp_arena_copy(pp_arena *arena, const char *text, size_t length);     /* adds the NUL */
char *pp_arena_printf(pp_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void pp_arena_reset(pp_arena *arena); /* keeps the blocks for reuse, forgets failure */
void pp_arena_deinit(pp_arena *arena);
#define PP_NEW(arena, type, count)                                                                 \
    ((type *)pp_arena_allocate((arena), (size_t)(count), sizeof(type)))

/* A growing string of bytes with a sticky failure: append freely, check `failed` once. `bytes` is
 * NUL-terminated whenever not NULL. Zero-initialise to start. */
typedef struct pp_text {
    char *bytes;
    size_t length;
    size_t capacity;
    bool failed;
} pp_text;

void pp_text_append(pp_text *text, const void *bytes, size_t length);
void pp_text_string(pp_text *text, const char *string);
void pp_text_printf(pp_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Shortest decimal that reads back to the same double ("0.1", "1e-09"); inf and nan as such. */
void pp_text_double(pp_text *text, double value);
void pp_text_deinit(pp_text *text);

/* "1.50 GiB", "12.3 ms": for people, into buffer (which is returned). */
const char *pp_format_bytes(double bytes, char buffer[32]);
const char *pp_format_seconds(double seconds, char buffer[32]);

/* Numbers as people type them; the whole string must be used. "80GiB", "16e9", "512MB" (1e6). */
bool pp_parse_int(const char *text, int64_t minimum, int64_t maximum, int64_t *value);
bool pp_parse_double(const char *text,
                     double *value); /* finite only; never depends on the locale */
bool pp_parse_bytes(const char *text, int64_t *bytes);

/* ---- 4 files and JSON output --------------------------------------------------------------- */

/* Reads a whole file into memory owned by the caller (pp_text_deinit). A missing or unreadable file
 * is PP_E_INPUT; more than limit_bytes is refused without reading on. "-" is standard input. */
#define PP_FILE_LIMIT_BYTES ((size_t)1 << 30)
pp_status pp_file_read(const char *path, size_t limit_bytes, pp_text *contents, pp_error *error);

/* Replaces path by the bytes, or leaves it as it was: temporary file in the same directory, write,
 * fsync, rename, fsync of the directory (promise P6). A failed text is PP_E_OUT_OF_MEMORY.
 * Links are followed. What is no regular file is written to; "-" is standard output. */
pp_status pp_file_write(const char *path, const pp_text *contents, pp_error *error);
/* Could path be written? Asked before long work, so that its result has somewhere to go. Touches
 * nothing. PP_E_INPUT if its folder is missing or closed, or if it is a folder itself. */
pp_status pp_file_check_output(const char *path, pp_error *error);
bool pp_file_same(const char *a, const char *b); /* two names of one regular file */

/* FNV-1a, 64 bits. Start with PP_HASH_START and chain. */
#define PP_HASH_START UINT64_C(14695981039346656037)
uint64_t pp_hash(uint64_t start, const void *bytes, size_t length);

/* JSON output into a pp_text: indents by two, one key per line, except inside "flat" containers,
 * which stay on one line. Doubles are printed shortest-exact; NaN and infinities become null.
 * Keys and values must alternate as JSON demands: a wrong order is an assert. */
typedef struct pp_json {
    pp_text *text;
    int depth;
    int flat_depth; /* 0, or the depth at which a flat container began */
    bool need_comma;
    bool after_key;
} pp_json;

pp_json pp_json_start(pp_text *text);
void pp_json_object(pp_json *json);
void pp_json_object_flat(pp_json *json);
void pp_json_end_object(pp_json *json);
void pp_json_array(pp_json *json);
void pp_json_array_flat(pp_json *json);
void pp_json_end_array(pp_json *json);
void pp_json_key(pp_json *json, const char *key);
void pp_json_string(pp_json *json, const char *value); /* NULL gives null; bytes are escaped */
void pp_json_int(pp_json *json, int64_t value);
void pp_json_double(pp_json *json, double value);
void pp_json_bool(pp_json *json, bool value);
void pp_json_null(pp_json *json);

/* ---- 5 random numbers ---------------------------------------------------------------------- */

/* Philox 4x32-10 (Salmon et al. 2011): the numbers are a function of key and counter alone, so
 * initialisation does not depend on K and recomputation repeats dropout. */
typedef struct pp_random_key {
    uint32_t word[2];
} pp_random_key;

/* name: the layer's (or any other) name. stream: a step, epoch or sample number. */
pp_random_key pp_random_key_make(uint64_t seed, const char *name, uint64_t stream);
void pp_random_block(pp_random_key key, uint64_t high, uint64_t low, uint32_t out[4]);
double pp_random_unit(pp_random_key key, uint64_t counter);   /* [0, 1) with 53 bits */
double pp_random_normal(pp_random_key key, uint64_t counter); /* mean 0, variance 1 (Box-Muller) */
/* `count` of them from `start` on, times `deviation`, on several threads where they are many. */
void pp_random_normals_f32(pp_random_key key, uint64_t start, int64_t count, double deviation,
                           float *values);
void pp_random_normals_f64(pp_random_key key, uint64_t start, int64_t count, double deviation,
                           double *values);
uint64_t pp_random_below(pp_random_key key, uint64_t counter, uint64_t bound); /* [0, bound) */

/* ---- 6 models ------------------------------------------------------------------------------ */

typedef enum pp_dtype { PP_FP32, PP_FP64, PP_BF16, PP_INT32, PP_UINT8, PP_DTYPE_COUNT } pp_dtype;
int64_t pp_dtype_bytes(pp_dtype dtype);
const char *pp_dtype_name(pp_dtype dtype); /* "fp32" */
bool pp_dtype_from_name(const char *name, pp_dtype *dtype);

/* name in documents, what it computes. The rest of an op is a row of the tables in layer.c (its
 * fields, tensors, FLOPs) and a file in executor/layers/ (its arithmetic). */
#define PP_OP_LIST(X)                                                                              \
    X(PP_OP_OPAQUE, "opaque", "measured or guessed times and bytes; runs under replay only")       \
    X(PP_OP_EMBEDDING, "embedding", "token plus learned position embedding of token ids")          \
    X(PP_OP_GPT_BLOCK, "gpt_block", "pre-norm transformer block: attention and MLP, residuals")    \
    X(PP_OP_LM_HEAD, "lm_head", "final layer norm, logits, softmax cross-entropy loss")            \
    X(PP_OP_LAYER_NORM, "layer_norm", "layer normalisation with scale and shift")                  \
    X(PP_OP_LINEAR, "linear", "y = x A^T + b")                                                     \
    X(PP_OP_GELU, "gelu", "GELU, tanh form")                                                       \
    X(PP_OP_RELU, "relu", "max(x, 0)")                                                             \
    X(PP_OP_ATTENTION, "attention", "causal multi-head self-attention with its projections")       \
    X(PP_OP_DROPOUT, "dropout", "inverted dropout, keyed by (seed, layer, step, sample)")          \
    X(PP_OP_ADD, "add", "sum of all its inputs (residual connections)")                            \
    X(PP_OP_CROSS_ENTROPY, "softmax_cross_entropy", "softmax cross-entropy loss of class labels")  \
    X(PP_OP_RMS_NORM, "rms_norm", "root-mean-square normalisation with scale")                     \
    X(PP_OP_TOKEN_EMBEDDING, "token_embedding", "embedding of token ids without positions")        \
    X(PP_OP_LLAMA_BLOCK, "llama_block", "RMS norms, rotary grouped-query attention, SwiGLU")       \
    X(PP_OP_RMS_LM_HEAD, "rms_lm_head", "final RMS norm, logits, softmax cross-entropy loss")      \
    X(PP_OP_BERT_EMBEDDING, "bert_embedding", "token, position and segment embedding, layer norm") \
    X(PP_OP_BERT_BLOCK, "bert_block", "post-norm transformer block that sees both directions")     \
    X(PP_OP_MLM_HEAD, "mlm_head", "dense layer, GELU, norm, logits; loss of masked tokens")

typedef enum pp_op {
#define X(value, name, what) value,
    PP_OP_LIST(X)
#undef X
        PP_OP_COUNT
} pp_op;

const char *pp_op_name(pp_op op);
bool pp_op_from_name(const char *name, pp_op *op);

/* One layer. Fields that its op does not use are 0 or NULL. */
typedef struct pp_layer {
    const char *name; /* unique in the model */
    pp_op op;
    int64_t dim;        /* features in (and out, unless output_dim) */
    int64_t output_dim; /* linear: features out */
    int64_t heads;      /* blocks, attention; divides dim unless head_dim */
    int64_t kv_heads;   /* llama_block: heads of keys and values, divides heads; 0: heads */
    int64_t head_dim;   /* llama_block: features of a head; 0: dim / heads */
    int64_t hidden;     /* blocks: width inside the MLP; 0: 4·dim */
    int64_t segments;   /* bert_embedding: kinds of segments; 0: 2 */
    int64_t sequence;   /* positions per sample; 1 for models without a sequence */
    int64_t vocabulary; /* embeddings and heads: token ids are 0 … vocabulary-1;
                           softmax_cross_entropy: classes = dim */
    double dropout;     /* gpt_block, BERT's layers, dropout: probability of zeroing, [0, 1) */
    double rotary_base; /* llama_block: of the rotary embedding; 0: 10000 */
    bool qkv_bias;      /* llama_block: queries, keys and values have biases (Qwen2) */
    const char *tie;    /* embeddings and heads: layers with the same tie share the token
                           matrix [vocabulary, dim]; their gradients are summed. Opaque layers share
                           tied_bytes of their parameters. NULL: none */
    double forward_s, input_s, weight_s; /* opaque: seconds per sample */
    bool backward_assumed;   /* opaque: input_s and weight_s are halves of an undivided time */
    double weight_doubt_s;   /* opaque: half of weight_s's 95 % interval; 0: not known */
    int64_t parameter_bytes; /* opaque: in all … */
    int64_t tied_bytes; /* … and the part of them that `tie` shares; the next two per sample */
    int64_t output_bytes;
    int64_t activation_bytes;
    int64_t shards; /* devices that the layer is divided over, see pp_layer_shard; 0: it is whole.
                       No document says it */
} pp_layer;

/* The tensor that `from` makes is read by `to`. One edge per pair. */
typedef struct pp_edge {
    int from;
    int to;
} pp_edge;

/* A model: layers in topological order (every edge goes up), so that the file's order is always a
 * valid `order` of a plan. Owns everything in its arena. */
typedef struct pp_model {
    const char *name;
    pp_layer *layers;
    int layer_count;
    pp_edge *edges; /* sorted by (from, to), no duplicates */
    int edge_count;
    pp_arena arena;
} pp_model;

/* A fresh model; free with pp_model_free. `source` is a file or a preset name (a file wins when its
 * name holds a '/' or ends in ".json"). Errors name line and column, or file and JSON path. */
pp_status pp_model_open(const char *source, pp_model **model, pp_error *error);
/* The same from text already in memory; file_name is used in messages only. */
pp_status pp_model_read(const char *text, size_t length, const char *file_name, pp_model **model,
                        pp_error *error);
void pp_model_write(const pp_model *model, pp_json *json); /* read(write(x)) == x */
pp_status pp_model_copy(const pp_model *model, pp_model **copy, pp_error *error);
void pp_model_free(pp_model *model);

typedef enum pp_model_family {
    PP_FAMILY_GPT,   /* embedding, gpt_block …, lm_head */
    PP_FAMILY_LLAMA, /* token_embedding, llama_block …, rms_lm_head */
    PP_FAMILY_BERT,  /* bert_embedding, bert_block …, mlm_head */
    PP_FAMILY_COUNT
} pp_model_family;

/* A transformer by its dimensions, as in pp_layer. Fields with a default there may be 0. */
typedef struct pp_transformer {
    pp_model_family family;
    int blocks;
    int64_t dim, heads, kv_heads, head_dim, hidden, sequence, vocabulary, segments;
    double dropout, rotary_base;
    bool qkv_bias;
    bool untied; /* the head has a token matrix of its own */
} pp_transformer;

/* "embed", "block0" …, "head": a fresh model. The dimensions are not checked. */
pp_status pp_model_make_transformer(const pp_transformer *shape, const char *name, pp_model **model,
                                    pp_error *error);

typedef struct pp_preset {
    const char *name; /* "gpt2-124m", "dgx-h100:N" */
    const char *summary;
    const char *source; /* where its numbers come from */
} pp_preset;
const pp_preset *pp_model_presets(int *count);

/* Replaces the sequence length of every layer that has one (`plan --sequence N`). */
pp_status pp_model_set_sequence(pp_model *model, int64_t sequence, pp_error *error);
/* No layer drops anything. */
void pp_model_clear_dropout(pp_model *model);

/* What a layer's times depend on, without its name and ties: layers with equal signatures are
 * measured once. "gpt_block dim=64 heads=4 sequence=128 dropout=0". Opaque layers add their name.
 * Into buffer, which is returned. */
#define PP_SIGNATURE_LENGTH 192
const char *pp_layer_signature(const pp_layer *layer, char buffer[PP_SIGNATURE_LENGTH]);
/* The reverse, without a name. False: no signature of this version, of numbers that no model can
 * have, or of an opaque layer, whose numbers its signature does not hold. */
bool pp_layer_from_signature(const char *signature, pp_layer *layer);

/* What an op's tensors are for, in the order of their lives. */
typedef enum pp_tensor_role {
    PP_TENSOR_PARAMETER,    /* lives for the whole run, with a gradient of the same shape */
    PP_TENSOR_OUTPUT,       /* what later layers read; exactly one, except for losses: none */
    PP_TENSOR_SAVED_INPUT,  /* written by F, last read by I */
    PP_TENSOR_SAVED_WEIGHT, /* written by F, last read by W */
    PP_TENSOR_STASH,        /* written by I, read by W */
    PP_TENSOR_WORKSPACE     /* scratch inside one call */
} pp_tensor_role;

/* One tensor of a layer for one microbatch: rows × columns of dtype. */
typedef struct pp_tensor {
    const char *name; /* "qkv_weight"; parameters are "LAYER.name" in messages and checkpoints */
    pp_tensor_role role;
    pp_dtype dtype;
    int64_t rows, columns;
    bool tied;           /* PARAMETER: the one that pp_layer.tie shares */
    bool attention_core; /* SAVED: what recompute attention drops, and can make of the layer's other
                            saved tensors */
} pp_tensor;

/* What the layout needs to know of an op besides its tensors. */
typedef struct pp_layer_needs {
    bool input_for_input;     /* I reads the layer's inputs */
    bool input_for_weight;    /* W reads the layer's inputs */
    bool output_for_input;    /* I reads the layer's own output */
    bool gradient_for_weight; /* W reads the gradient of the layer's output */
    bool has_weights;         /* false: W does nothing and is not called */
    bool takes_tokens;        /* reads token ids (or features) of the data set instead of an edge */
    bool makes_loss;          /* reads targets of the data set; ends the model */
    bool masks_tokens;        /* the targets are tokens hidden from the model, not the next ones */
    bool sees_both_ways;      /* a position attends to those behind it too */
} pp_layer_needs;

/* The tensors of a layer for a microbatch of `samples`, in the order in which executor/layers finds
 * them; at most PP_LAYER_TENSORS. Rows of activations are samples × sequence. Opaque layers get
 * one PARAMETER (with a tie: and a tied one), one OUTPUT and one SAVED_WEIGHT tensor of bytes; half
 * of it SAVED_INPUT. */
#define PP_LAYER_TENSORS 48
int pp_layer_tensors(const pp_layer *layer, int64_t samples, pp_dtype dtype,
                     pp_tensor tensors[PP_LAYER_TENSORS]);
pp_layer_needs pp_layer_needs_get(pp_op op);
/* Fields with a default, resolved. */
int64_t pp_layer_kv_heads(const pp_layer *layer);
int64_t pp_layer_head_dim(const pp_layer *layer);
int64_t pp_layer_hidden(const pp_layer *layer);
/* Elements from one row of a head's logits to the next: its words and, where they have no bias, up
 * to 7 more, so that every row begins at a multiple of 16 bytes, as fast matrix products need. */
int64_t pp_layer_logits_stride(const pp_layer *layer);
double pp_layer_rotary_base(const pp_layer *layer);
int64_t pp_tensor_bytes(const pp_tensor *tensor);
/* Elements of the largest tensor that a layer has for each sample; a double, since a nonsensical
 * layer's would not fit an integer. */
double pp_layer_sample_elements(const pp_layer *layer);
int64_t pp_layer_parameters(const pp_layer *layer); /* elements, ties counted in each */
int64_t pp_model_parameters(const pp_model *model); /* elements, ties counted once; none of opaque
                                                       layers, which have bytes. O(layers²) */

/* *local becomes what each of `tp` devices has of the layer (Shoeybi et al. 2019, section 3): its
 * tensors, parameters, work and signature are then those of one device. Attention heads, the MLP's
 * inner features, a linear layer's outputs and the vocabulary are divided; norms, embeddings'
 * outputs and the residual stream are on each. The vocabulary is padded to a multiple of tp; what
 * else does not divide evenly is PP_E_INPUT, an opaque layer PP_E_UNSUPPORTED. tp 1: as it is. */
pp_status pp_layer_shard(const pp_layer *layer, int tp, pp_layer *local, pp_error *error);
/* The same of every layer: can the model run on tp devices at all? */
pp_status pp_model_can_shard(const pp_model *model, int tp, pp_error *error);

/* What the devices of a divided layer add up in one phase of one microbatch: `count` ring
 * all-reduces of `bytes` in all; gathering what they hold parts of counts half. */
typedef struct pp_layer_sum {
    double count, bytes;
} pp_layer_sum;

/* Arithmetic and traffic of one microbatch, for modelled costs: multiply-adds count two FLOPs;
 * bytes are those moved to and from memory when nothing is cached. */
typedef struct pp_layer_work {
    double forward_flops, input_flops, weight_flops;
    double forward_bytes, input_bytes, weight_bytes;
    double optimizer_bytes;                  /* of one optimizer step over its parameters */
    pp_layer_sum forward_sum, input_sum;     /* zero for a layer that is whole */
    double attention_flops, attention_bytes; /* what recompute attention repeats of F: scores and
                                                softmax; 0: the layer has no attention core */
} pp_layer_work;
pp_layer_work pp_layer_work_get(const pp_layer *layer, int64_t samples, pp_dtype dtype);
/* Of one of so many slices along the sequences; optimizer_bytes are of the layer. Not of opaque
 * layers. Of all slices together it is at least that of the whole. */
pp_layer_work pp_layer_slice_work(const pp_layer *layer, int64_t samples, pp_dtype dtype,
                                  int slices, int slice);
/* Whether every layer can be cut along its sequences: PP_E_INPUT names one that cannot. */
pp_status pp_model_can_slice(const pp_model *model, int slices, pp_error *error);

/* ---- 7 clusters ---------------------------------------------------------------------------- */

typedef struct pp_device {
    const char *name;
    int64_t memory_bytes;
    double bf16_flops, fp32_flops; /* per second; 0 = not given */
    double memory_bandwidth_bytes_per_s;
    double cost_per_hour; /* 0 = not given */
} pp_device;

typedef struct pp_link {
    double bandwidth_bytes_per_s; /* INFINITY for JSON null */
    double latency_s;
    bool shared_per_node; /* inter: all devices of a node share it */
} pp_link;

typedef struct pp_node {
    int device; /* index into pp_cluster.devices */
    int count;  /* devices in the node */
    int repeat; /* such nodes in a row */
} pp_node;

typedef struct pp_link_override {
    int from, to; /* devices, directed */
    pp_link link;
} pp_link_override;

/* How sums over several devices are formed: see collective.c. The order is that of documents. */
typedef enum pp_all_reduce_kind {
    PP_ALL_REDUCE_CHEAPER, /* of the two, for the bytes at hand */
    PP_ALL_REDUCE_RING,
    PP_ALL_REDUCE_TREE,
    PP_ALL_REDUCE_COUNT
} pp_all_reduce_kind;
const char *pp_all_reduce_name(pp_all_reduce_kind kind); /* "cheaper", "ring", "tree" */

typedef struct pp_cluster {
    const char *name;
    pp_all_reduce_kind all_reduce;
    pp_device *devices; /* kinds */
    int device_kind_count;
    pp_node *nodes;
    int node_kind_count;
    pp_link intra, inter;
    pp_link_override *overrides;
    int override_count;
    pp_arena arena;
} pp_cluster;

/* A file or a preset name: local, dgx-h100:N, dgx-a100:N, h200:N. device_count: what `local` is
 * made of when the caller knows (ranks·dp·tp pinned); 0: one per core. */
pp_status pp_cluster_open(const char *source, int device_count, pp_cluster **cluster,
                          pp_error *error);
pp_status pp_cluster_read(const char *text, size_t length, const char *file_name,
                          pp_cluster **cluster, pp_error *error);
void pp_cluster_write(const pp_cluster *cluster, pp_json *json);
pp_status pp_cluster_copy(const pp_cluster *cluster, pp_cluster **copy, pp_error *error);
void pp_cluster_free(pp_cluster *cluster);
const pp_preset *pp_cluster_presets(int *count);

int pp_cluster_device_count(const pp_cluster *cluster);
const pp_device *pp_cluster_device(const pp_cluster *cluster, int index); /* 0 … count-1 */
int pp_cluster_node_of(const pp_cluster *cluster, int index);
/* Whether the name that people gave a kind of device ("h100-sxm-80gb") may mean what a driver calls
 * "NVIDIA H100 80GB HBM3": one mentions the other, or the kind's first word. */
bool pp_device_may_be(const char *kind, const char *driver_name);
/* The link from one device to another: override, else intra or inter; to itself: free. */
pp_link pp_cluster_link(const pp_cluster *cluster, int from, int to);
/* The largest latency and least bandwidth of the links from[i] to to[i], i < count. */
pp_link pp_cluster_slowest_link(const pp_cluster *cluster, const int *from, const int *to,
                                int count);

/* Seconds of moving bytes: fixed_s + bytes · per_byte_s. */
typedef struct pp_line {
    double fixed_s, per_byte_s;
} pp_line;

/* An all-reduce over some devices, as a function of the bytes that each of them has. */
typedef struct pp_all_reduce {
    pp_line ring, tree;
    pp_all_reduce_kind kind;
} pp_all_reduce;

/* devices: [count], those of a node next to each other; fewer than two: free. beside: so many equal
 * groups do the same at the same time and share the nodes' network cards where the cluster shares
 * them (this one counted; 0: 1). O(count). */
pp_all_reduce pp_all_reduce_over(const pp_cluster *cluster, const int *devices, int count,
                                 int beside);
/* Never falls when bytes grow. */
double pp_all_reduce_s(const pp_all_reduce *cost, double bytes);
/* The part of it that each of several pieces would pay again. */
double pp_all_reduce_latency_s(const pp_all_reduce *cost, double bytes);

/* ---- 8 schedules as data ------------------------------------------------------------------- */

/* name in the notation, letter for drawings, busy (counts as work), and what the number after
 * it means. The order is part of the plan hash: append only. */
#define PP_ACTION_LIST(X)                                                                          \
    X(PP_FORWARD, "F", true)                                                                       \
    X(PP_BACKWARD, "B", true)                                                                      \
    X(PP_INPUT, "I", true)  /* backward for the input */                                           \
    X(PP_WEIGHT, "W", true) /* backward for the weights */                                         \
    X(PP_RECOMPUTE, "R", true)                                                                     \
    X(PP_SEND_F, "SEND_F", false) /* stage s sends its outputs to stage s+1 of its chain */        \
    X(PP_RECV_F, "RECV_F", false) /* stage s receives its inputs from stage s-1 */                 \
    X(PP_SEND_B, "SEND_B", false) /* stage s sends its input gradients to stage s-1 */             \
    X(PP_RECV_B, "RECV_B", false) /* stage s receives its output gradients from stage s+1 */       \
    X(PP_UNSHARD, "UNSHARD", false)                                                                \
    X(PP_RESHARD, "RESHARD", false)                                                                \
    X(PP_REDUCE_GRAD, "REDUCE_GRAD", true) /* of a stage, no microbatch */                         \
    X(PP_STEP, "STEP", true)               /* optimizer step of a stage, no microbatch */

typedef enum pp_action_kind {
#define X(value, name, busy) value,
    PP_ACTION_LIST(X)
#undef X
        PP_ACTION_KIND_COUNT
} pp_action_kind;

/* One step of one rank; 8 bytes, since a step of a large job has tens of millions. */
typedef struct pp_action {
    uint8_t kind : 7;       /* pp_action_kind */
    uint8_t overlapped : 1; /* runs as one with the NEXT action: the first of OVERLAP_F_B */
    uint8_t slice;          /* 0F3.1: slice 1 of a microbatch cut along the sequence */
    uint16_t stage;
    uint32_t microbatch; /* PP_NO_MICROBATCH where the kind has none */
} pp_action;
#define PP_NO_MICROBATCH UINT32_MAX

#define PP_RANKS_MAX 65535
#define PP_STAGES_MAX 65535
#define PP_MICROBATCHES_MAX 16777216
#define PP_SLICES_MAX 256
#define PP_ACTIONS_MAX 1000000000 /* refused before allocating */

/* Stages first … last that a microbatch passes in this order; microbatch numbers are per chain. */
typedef struct pp_chain {
    int first, last;
} pp_chain;

typedef struct pp_schedule {
    char name[64];      /* "1f1b", or the file's name */
    int ranks, stages;  /* K, S */
    int virtual_stages; /* V: stages that the rank with most has of one chain */
    int microbatches;   /* largest microbatch number of any chain, plus 1 */
    int slices;         /* per microbatch; 1 */
    int *placement;     /* [stages] rank of each stage */
    pp_chain *chains;
    int chain_count;
    pp_action *actions;   /* rank 0's, then rank 1's, … */
    size_t *first_action; /* [ranks + 1] where each rank's begin */
    bool has_transfers;   /* SEND and RECV actions are present */
    pp_arena arena;       /* owns all of the above */
} pp_schedule;

/* An empty schedule with room for `capacity` actions; one chain of all stages; placement zeroed.
 * Fill actions and first_action, then use. */
pp_status pp_schedule_new(int ranks, int stages, int microbatches, size_t capacity,
                          pp_schedule **schedule, pp_error *error);
void pp_schedule_free(pp_schedule *schedule);

bool pp_action_is_compute(pp_action action); /* F B I W R: what depends on a microbatch */
bool pp_action_is_transfer(pp_action action);
const char *pp_action_kind_name(pp_action_kind kind);
/* "3F12", "0SEND_F3", "1STEP", "0F3.1"; into buffer, which is returned. */
const char *pp_action_text(pp_action action, char buffer[32]);
/* The reverse; the whole of `length` bytes must be one action. OVERLAP_F_B pairs are the CSV
 * reader's business. False: not an action. */
bool pp_action_parse(const char *text, size_t length, pp_action *action);

/* Stage before or after in the same chain, or -1. O(chains). */
int pp_schedule_previous(const pp_schedule *schedule, int stage);
int pp_schedule_next(const pp_schedule *schedule, int stage);

/* The CSV of torch.distributed.pipelining: a row per rank, a cell per action; "# placement:" and
 * "# chains:" comments are read, and written where they are not the default (loop; one chain).
 * Errors say file:line:column. Stages without a placement line belong to the rank in whose row
 * their F stands. */
pp_status pp_schedule_read_csv(const char *text, size_t length, const char *file_name,
                               pp_schedule **schedule, pp_error *error);
void pp_schedule_write_csv(const pp_schedule *schedule, pp_text *text);
/* {"name","ranks","virtual","microbatches","placement","chains","actions":[[…]]} */
void pp_schedule_write_json(const pp_schedule *schedule, pp_json *json);
pp_status pp_schedule_read_json(const char *text, size_t length, const char *file_name,
                                pp_schedule **schedule, pp_error *error);
/* Chooses by content ('{' first: JSON). */
pp_status pp_schedule_open(const char *path, pp_schedule **schedule, pp_error *error);

/* Hash of ranks, placement, chains and every action: what plan.json stores. */
uint64_t pp_schedule_hash(const pp_schedule *schedule);

/* A copy with SEND and RECV actions derived: each F of a stage with a next stage on another rank is
 * followed by its SEND_F; the matching RECV_F stands as early before its consumer as keeps every
 * peer queue matched position by position and the schedule free of deadlock. Needs a schedule
 * without transfers that is complete. */
pp_status pp_schedule_add_transfers(const pp_schedule *schedule, pp_schedule **lowered,
                                    pp_error *error);
/* M as people count it: the microbatches of all chains. O(chains · actions). */
int64_t pp_schedule_all_microbatches(const pp_schedule *schedule);

/* A copy without transfers. */
pp_status pp_schedule_drop_transfers(const pp_schedule *schedule, pp_schedule **compute,
                                     pp_error *error);

/* How a stage saves memory: what it forgets after F and computes again in the backward pass. A
 * policy is one number.
 *   full, except-last  all but the stage's inputs; an action R before each B (or I) makes it again.
 *                      except-last keeps the last microbatch
 *   attention          the cores of attention (scores and softmax), made again layer by layer
 *                      inside B or I: Korthikanti et al. 2022, section 5
 *   every:N            all but the inputs of each group of N consecutive layers of the stage, made
 *                      again group by group inside B or I: Megatron's "uniform". I keeps what W
 *                      needs of it */
#define PP_RECOMPUTE_LIST(X)                                                                       \
    X(PP_RECOMPUTE_NONE, "none")                                                                   \
    X(PP_RECOMPUTE_FULL, "full")                                                                   \
    X(PP_RECOMPUTE_EXCEPT_LAST, "except-last")                                                     \
    X(PP_RECOMPUTE_ATTENTION, "attention")
typedef int pp_recompute;
enum {
#define X(value, name) value,
    PP_RECOMPUTE_LIST(X)
#undef X
        PP_RECOMPUTE_COUNT,                  /* those with a fixed name */
    PP_RECOMPUTE_MIXED = PP_RECOMPUTE_COUNT, /* of a plan: its stages differ; no stage has it */
    PP_RECOMPUTE_EVERY                       /* … + N: every:N */
};
#define PP_RECOMPUTE_EVERY_MAX 65535 /* the largest N */
#define PP_RECOMPUTE_LENGTH 16
/* "none", "every:2", "mixed"; a fixed name, or into buffer. */
const char *pp_recompute_text(pp_recompute policy, char buffer[PP_RECOMPUTE_LENGTH]);
/* Of a policy that a stage can have. */
bool pp_recompute_from_name(const char *name, pp_recompute *policy);
extern const char pp_recompute_names[]; /* "none, full, …, every:N", for messages */
/* The microbatch has an R. */
bool pp_recompute_applies(pp_recompute policy, int microbatch, int microbatches);
/* What is recomputed is so inside B or I, without an R. */
bool pp_recompute_is_inside(pp_recompute policy);
/* N of every:N; 0: another policy. */
int pp_recompute_group(pp_recompute policy);

/* What the check found; filled as far as it got, also when it refuses. */
typedef struct pp_check_report {
    bool complete;            /* each stage has every F and every B (or I and W) exactly once */
    bool dependencies;        /* no rank's own order contradicts the chain order */
    bool finishes;            /* acyclic under rendezvous */
    bool matched;             /* microbatches agree position by position in every peer queue */
    size_t *peak_activations; /* [ranks] (stage, microbatch) pairs alive from F to the end of W or
                                 B; caller frees with pp_free; NULL if not reached */
} pp_check_report;

/* Proves that the schedule finishes under every timing when sends and receives rendezvous with no
 * buffering (docs/promises.md); transfers are derived first where absent. blocking: one queue
 * per rank for everything, every transfer a group of its own. A hang is PP_E_DEADLOCK and the
 * message is a shortest wait cycle in words; anything else wrong is PP_E_INPUT. O(actions). */
pp_status pp_schedule_check(const pp_schedule *schedule, bool blocking, pp_check_report *report,
                            pp_error *error);

/* ---- 9 stage memory ------------------------------------------------------------------------ */

/* Bytes of one stage on one rank. The simulator adds these up over the schedule and the executor
 * allocates by the same numbers (promise P3). All but the first three are per microbatch. */
typedef struct pp_stage_bytes {
    int64_t parameters; /* weights (with fp32 masters under bf16: counted in optimizer) */
    int64_t gradients;
    int64_t optimizer;
    int64_t activation;        /* start of F (or R) to the end of W or B … */
    int64_t released_by_input; /* … except this part of it, freed at the end of I */
    int64_t stash;             /* start of I to the end of W; only where I and W are apart */
    int64_t checkpoint;        /* what a recomputed microbatch keeps from F to R besides inputs */
    int64_t input;             /* stage inputs as received: one slot */
    int64_t output_gradient;   /* gradients of the stage's outputs as received: one slot */
    int64_t workspace; /* scratch inside an action, with what it computes again (regions WORKSPACE
                          and AGAIN); a rank needs the largest of its stages */
    int64_t reduction; /* buffer for REDUCE_GRAD */
} pp_stage_bytes;

/* How many input and output-gradient slots each stage needs so that no sender ever waits for one,
 * whatever the timing. A slot is taken when the peer sends and freed before the consumer sends
 * its own gradient on (input slots: at the end of B or W). From the orders of the two ranks alone:
 * inputs of s: peak of F(s-1) begun without its I or B ended, plus peak of I(s) ended without W.
 * input_slots, gradient_slots : [stages], filled. Reads compute actions only. O(actions). */
pp_status pp_schedule_slots(const pp_schedule *schedule, int *input_slots, int *gradient_slots,
                            pp_error *error);

typedef enum pp_optimizer { PP_ADAMW, PP_SGD, PP_OPTIMIZER_COUNT } pp_optimizer;
const char *pp_optimizer_name(pp_optimizer optimizer); /* "adamw", "sgd" (with momentum) */
bool pp_optimizer_from_name(const char *name, pp_optimizer *optimizer);

/* Where a buffer of a stage lives. */
typedef enum pp_region {
    PP_REGION_PARAMETERS,        /* whole run */
    PP_REGION_ACTIVATION_INPUT,  /* microbatch, F … I */
    PP_REGION_ACTIVATION_WEIGHT, /* microbatch, F … W */
    PP_REGION_STASH,             /* microbatch, I … W; in WORKSPACE when the backward is whole */
    PP_REGION_INPUT,             /* a received input slot */
    PP_REGION_OUTPUT_GRADIENT,   /* a received gradient slot */
    PP_REGION_WORKSPACE,         /* one action */
    PP_REGION_AGAIN, /* one action, behind WORKSPACE: what F makes and forgets, and B or I makes
                        again for one group of layers at a time (attention, every:N) */
    PP_REGION_COUNT
} pp_region;

/* One row of the stage's table: which tensor, of which layer, how large, where. */
typedef struct pp_buffer {
    int layer;  /* index in the model */
    int tensor; /* index in pp_layer_tensors, or PP_BUFFER_GRADIENT: the gradient of the
                   layer's output */
    pp_region region;
    int64_t offset_bytes; /* in the region; multiples of 64 */
    int64_t size_bytes;
} pp_buffer;
#define PP_BUFFER_GRADIENT (-1)

/* The memory of one stage: which layers it has, what crosses its borders and where every tensor
 * lives. `inputs` are the layers whose outputs cross the border before the stage (read here or
 * relayed to a later stage), `outputs` those that cross the border behind it, both ascending.
 *
 * Rows by region, for a layer l:
 *   PARAMETERS      its parameters; layers of the stage with one tie share one place. (Gradients
 * and optimizer state have no rows: gradients are laid out like the parameters, but one per row;
 * states like the region.) ACTIVATION_*    what F saves, and its output where a backward pass of
 * the stage reads it INPUT           outputs of `inputs` as received, packed in that order
 *   OUTPUT_GRADIENT gradients of `outputs` as received, packed in that order
 *   STASH           what I leaves for W (split_backward only), gradients of outputs included; and
 *                   what I makes again for W to read
 *   AGAIN           what F saves only until it is made again. F alone uses it where the tensor has
 *                   a row in STASH too, which stands first
 *   WORKSPACE       WORKSPACE tensors (and STASH ones without split_backward); outputs that only F
 *                   reads; gradients of its output; gradients of `inputs`, packed in that order.
 *                   What crosses a border stays to the end of F or of B or I, when it is sent
 * The gradient of an output is worked on in its WORKSPACE or STASH row; where it also arrives from
 * behind (OUTPUT_GRADIENT) it starts as a copy of that, and where there is no other row it is read
 * as received. Gradients are added up in the order of the readers, the last in plan order first. */
typedef struct pp_stage_layout {
    pp_recompute recompute; /* that it was made for */
    int *layers;            /* [layer_count] model indices, in plan order */
    int layer_count;
    int *inputs;
    int input_count;
    int *outputs;
    int output_count;
    pp_buffer *buffers;
    int buffer_count;
    int64_t region_bytes[PP_REGION_COUNT];
    pp_stage_bytes bytes;
} pp_stage_layout;

typedef struct pp_layout_request {
    const pp_model *model;
    const int *order; /* [layer_count] plan order; NULL: the file's */
    int first, last;  /* positions in order, inclusive */
    int64_t samples;  /* microbatch size */
    pp_dtype dtype;
    pp_optimizer optimizer;
    bool split_backward;    /* the schedule has I and W rather than B */
    pp_recompute recompute; /* full, except-last: as none, the regions only live at other times */
    int dp;                 /* replicas, for the reduction buffer; 0: 1 */
    int tp;                 /* devices that each layer is divided over; 0: 1 */
} pp_layout_request;

/* The layout of one stage on one device, from the arena. Errors: those of pp_layer_shard and
 * PP_E_OUT_OF_MEMORY. O(layers²). */
pp_status pp_stage_layout_make(const pp_layout_request *request, pp_arena *arena,
                               pp_stage_layout *layout, pp_error *error);

/* Of a stage's parameters, one behind the other, what one of `shards` replicas steps at the most
 * under ZeRO-1 (Rajbhandari et al. 2020): equal shares in a row, rounded up to multiples of 64
 * elements, so that wide loads are aligned; the last ones may be smaller. */
int64_t pp_shard_elements(int64_t elements, int shards);
/* Bytes of the optimizer state of so much. */
int64_t pp_sharded_optimizer_bytes(const pp_stage_bytes *bytes, pp_dtype dtype, int shards);

/* ---- 10 plans ------------------------------------------------------------------------------ */

/* One stage of a plan: an interval of `order`, its times for one full microbatch, its bytes. */
typedef struct pp_stage {
    int first, last; /* positions in pp_plan.order, inclusive */
    pp_recompute recompute;
    double forward_s, input_s, weight_s; /* of the passes alone, all slices together */
    /* Of F and R, of I and B: the last slice takes so much longer than the first, since it looks
     * back on more, and those between in equal steps (pp_plan.slices). */
    double forward_tilt_s, input_tilt_s;
    double recompute_s; /* none: 0. full, except-last: of R. attention, every:N: what B or I lasts
                           longer (pp_stage_input_s) */
    double optimizer_s;
    double reduce_s;          /* REDUCE_GRAD: data parallelism and tied weights. Of this … */
    double reduce_transfer_s; /* … the all-reduce over replicas, … */
    double reduce_latency_s;  /* … of which each of several buckets pays so much again, … */
    double tie_transfer_s;    /* … and that of tied weights, or of copies, over stages */
    pp_stage_bytes bytes;
} pp_stage;

#define PP_REDUCE_BUCKETS_MAX 1000

typedef struct pp_rank_prediction {
    double busy_s;
    int64_t peak_bytes;
} pp_rank_prediction;

typedef struct pp_prediction {
    double iteration_time_s;
    double bubble_fraction;
    double throughput;        /* samples/s */
    double tokens_per_s;      /* 0 without a sequence */
    double mfu;               /* model FLOPs / device peak, recomputation not counted; 0 = unknown */
    double hfu;               /* hardware FLOPs / device peak: those that are recomputed too */
    double cost_per_step;     /* in the cluster's currency; 0 = unknown */
    double cost_per_million_tokens; /* 0 = unknown */
    pp_rank_prediction *rank; /* [ranks] */
} pp_prediction;

/* Where stage times came from. */
typedef enum pp_cost_source { PP_COST_MEASURED, PP_COST_MODELLED, PP_COST_OPAQUE } pp_cost_source;

/* plan.json: self-contained. */
typedef struct pp_plan {
    pp_model *model;           /* owned */
    pp_cluster *cluster;       /* owned */
    int ranks, virtual_stages; /* K, V */
    int chains;      /* 2: of a bidirectional schedule; stages K … 2K-1 are copies of 0 … K-1 */
    int stage_count; /* S = K·V·chains */
    int microbatches;             /* M */
    int slices;                   /* that each is cut into along its sequences; 1 */
    int64_t microbatch_size;      /* samples; the last microbatch holds the rest */
    int64_t global_batch;         /* samples of all replicas; M = ceil(global_batch / dp / size) */
    double last_microbatch_scale; /* times of a last, smaller microbatch over those of a full one */
    int dp, tp;
    pp_dtype dtype;
    pp_optimizer optimizer;
    int zero;                 /* ZeRO stage of the optimizer state: 0 or 1 */
    pp_recompute recompute;   /* of all its stages, or PP_RECOMPUTE_MIXED */
    char schedule[64];        /* a family's name, or "file" with schedule_csv */
    uint64_t schedule_hash;   /* of the compute actions as pp_plan_expand makes them */
    const char *schedule_csv; /* NULL unless schedule is not a name */
    bool blocking;            /* ranks wait for their transfers */
    int reduce_buckets; /* 0: ranks do nothing else while they reduce gradients. Else transfers of
                           reductions run beside compute, in so many buckets for each stage */
    double load_s;      /* reading the data of one full microbatch, where a rank needs it … */
    bool prefetch;      /* … which happens beside compute */
    int *order;         /* [layer_count] */
    int *placement;     /* [stage_count] stage → rank */
    int *devices;     /* [ranks·dp·tp] device of each position, tp fastest, then dp, then rank */
    pp_stage *stages; /* [stage_count] */
    pp_cost_source costs; /* the weakest source that any stage used */
    char cost_note[256];  /* "profile cpu.db, 2026-11-21, AMD EPYC", for people */
    uint64_t model_hash, cluster_hash, cost_hash; /* of the sources */
    pp_prediction predicted;
    pp_arena arena;
} pp_plan;

/* An empty plan that owns copies of model and cluster; arrays are allocated from the counts. */
pp_status pp_plan_new(const pp_model *model, const pp_cluster *cluster, int ranks, int stages,
                      int dp, int tp, pp_plan **plan, pp_error *error);
/* The second chain of a plan that has one stage on each rank: K more stages, placed on the ranks in
 * reverse, still to be filled. False: out of memory. */
bool pp_plan_add_chain(pp_plan *plan);
pp_status pp_plan_open(const char *path, pp_plan **plan, pp_error *error);
pp_status pp_plan_read(const char *text, size_t length, const char *file_name, pp_plan **plan,
                       pp_error *error);
void pp_plan_write(const pp_plan *plan, pp_json *json);
/* The value of "predicted" and "measured", in plan.json and in what the program prints. What is
 * unknown becomes null. */
void pp_prediction_write(const pp_prediction *prediction, int ranks, pp_json *json);
void pp_plan_free(pp_plan *plan);
/* How long I lasts, with what it recomputes. A whole B lasts that and weight_s. */
double pp_stage_input_s(const pp_stage *stage);
/* The policy of all stages, or PP_RECOMPUTE_MIXED. */
pp_recompute pp_plan_recompute(const pp_plan *plan);
/* Samples of microbatch m of one replica: microbatch_size, or the rest for the last. */
int64_t pp_plan_samples(const pp_plan *plan, int microbatch);
/* Hash of a model or cluster as written. 0 when out of memory. */
uint64_t pp_model_hash(const pp_model *model);
uint64_t pp_cluster_hash(const pp_cluster *cluster);
/* Bytes that cross the border behind `stage` for one full microbatch: forward (and the same back).
 * -1 when out of memory. O(layers + edges). */
int64_t pp_plan_border_bytes(const pp_plan *plan, int stage);

/* ---- 11 traces and samples ----------------------------------------------------------------- */

typedef enum pp_lane { PP_LANE_COMPUTE, PP_LANE_SEND, PP_LANE_RECEIVE } pp_lane;

/* One thing that one rank did, simulated or measured. */
typedef struct pp_span {
    double start_s, end_s; /* from the start of the step */
    pp_action action;
    int32_t rank;
    uint8_t lane; /* pp_lane */
} pp_span;

typedef struct pp_trace_rank {
    double busy_s;
    int64_t peak_bytes; /* -1: not known */
} pp_trace_rank;

/* From time_s on a rank holds so many bytes, until its next point. */
typedef struct pp_trace_point {
    double time_s;
    int64_t bytes;
    int32_t rank;
} pp_trace_point;

/* A step as it was simulated or measured; what viz draws. */
typedef struct pp_trace {
    char title[128];
    bool measured;
    char schedule[64];
    int ranks, stages, virtual_stages, microbatches;
    double makespan_s;
    double bubble_fraction;
    pp_span *spans; /* sorted by (rank, lane, start) */
    size_t span_count;
    pp_trace_rank *rank;    /* [ranks] */
    pp_trace_point *points; /* optional memory curves, sorted by (rank, time); NULL: only peaks */
    size_t point_count;     /* 0: not known */
    pp_arena arena;         /* owns spans, rank and points */
} pp_trace;

pp_status pp_trace_new(int ranks, size_t span_count, pp_trace **trace, pp_error *error);
void pp_trace_free(pp_trace *trace);
/* Chrome trace JSON ("traceEvents", complete events in microseconds) that Perfetto opens; the
 * summary travels in "otherData", so that reading gives back what was written. */
void pp_trace_write(const pp_trace *trace, pp_text *text);
pp_status pp_trace_read(const char *text, size_t length, const char *file_name, pp_trace **trace,
                        pp_error *error);
/* True if the text looks like a trace ("traceEvents") rather than a plan. */
bool pp_trace_recognise(const char *text, size_t length);

/* What the profiler measures of a layer. */
#define PP_PHASE_LIST(X)                                                                           \
    X(PP_PHASE_FORWARD, "forward")                                                                 \
    X(PP_PHASE_INPUT, "input")                                                                     \
    X(PP_PHASE_WEIGHT, "weight")                                                                   \
    X(PP_PHASE_OPTIMIZER, "optimizer") /* one step over the layer's parameters */                  \
    X(PP_PHASE_TRANSFER, "transfer")   /* signature "link", microbatch = bytes */                  \
    X(PP_PHASE_OVERHEAD, "overhead")   /* signature "action": the worker's cost per action */
typedef enum pp_phase {
#define X(value, name) value,
    PP_PHASE_LIST(X)
#undef X
        PP_PHASE_COUNT
} pp_phase;
const char *pp_phase_name(pp_phase phase);

/* One raw measurement. */
typedef struct pp_sample {
    char signature[PP_SIGNATURE_LENGTH];
    pp_phase phase;
    int64_t microbatch; /* samples (transfers: bytes) */
    int neighbours;     /* other ranks that were busy meanwhile */
    int slices;         /* it had one of so many slices of its device; a store works it out, from the
                           neighbours of the session's other samples. A core of a CPU is whole: 1 */
    double duration_s;
} pp_sample;

/* ---- 12 sweeps ----------------------------------------------------------------------------- */

/* What a sweep varies: microbatches per step and replica, pipeline ranks, memory of each device. */
typedef enum pp_sweep_kind {
    PP_SWEEP_MICROBATCHES,
    PP_SWEEP_RANKS,
    PP_SWEEP_MEMORY,
    PP_SWEEP_KIND_COUNT
} pp_sweep_kind;
const char *pp_sweep_name(int kind); /* "microbatches", "ranks", "memory" */
bool pp_sweep_from_name(const char *name, pp_sweep_kind *kind);

#define PP_SWEEP_UNKNOWN (-1) /* of a point without a plan */

/* The best plan at one value, or why there is none. */
typedef struct pp_sweep_point {
    int64_t value; /* M, K or bytes */
    double iteration_time_s;
    double throughput;      /* samples/s */
    double bubble_fraction; /* at least 0 */
    double compute_s;       /* F, I and W of one sample in a full microbatch, all devices together */
    double compute_loss;    /* of that, over the least of all points: 0.25 is a quarter more */
    int64_t peak_bytes;     /* of the rank that has most */
    double gap;             /* to the proved bound, as in pp_plan_result; unknown: not finite */
    bool planned;           /* and then: */
    int ranks, virtual_stages, microbatches, dp, tp, zero;
    int64_t microbatch_size;
    char schedule[64];
    pp_recompute recompute; /* or PP_RECOMPUTE_MIXED */
    char reason[sizeof((pp_error *)0)->message]; /* else why there is no plan */
} pp_sweep_point;

typedef struct pp_sweep {
    pp_sweep_kind kind;
    char model[208], cluster[208]; /* names */
    int64_t global_batch;
    pp_sweep_point *points; /* [point_count], owned; values rise */
    int point_count;
} pp_sweep;

/* Zeroed points. */
pp_status pp_sweep_new(int point_count, pp_sweep **sweep, pp_error *error);
void pp_sweep_free(pp_sweep *sweep);
void pp_sweep_write(const pp_sweep *sweep, pp_json *json);
pp_status pp_sweep_read(const char *text, size_t length, const char *file_name, pp_sweep **sweep,
                        pp_error *error);

/* ---- 13 statistics -------------------------------------------------------------------------- */

/* Median, a 95 % confidence interval of it from order statistics (exact binomial ranks; six values
 * are the fewest that reach 95 %) and the median absolute deviation. No value: all are NAN. The
 * values are overwritten. O(count log count), allocates nothing. */
typedef struct pp_median {
    double median, low, high, mad;
} pp_median;
pp_median pp_median_of(double *values, size_t count);

/* Whether values in the order of measuring rose or fell meanwhile: the first half against the
 * second, a middle value left out. */
typedef struct pp_drift {
    double relative;   /* median of the second half / that of the first - 1; 0 without values */
    double deviations; /* rank sum, in standard deviations from what it is without drift */
} pp_drift;
pp_drift pp_drift_of(double *values, size_t count); /* the values are reordered */

#endif
