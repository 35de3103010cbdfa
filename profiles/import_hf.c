/* Hugging Face's config.json as a model: a few dimensions, from which every tensor, FLOP and byte
 * follows (core/layer_tensors.c, core/layer_work.c). Nothing in it is measured.
 *
 * "model_type", or the first of "architectures" where it is missing, says which keys a file has and
 * what they mean. What has no bearing on shapes (token ids, initialisation, versions) is ignored,
 * since these files are not ours and grow. What our layers cannot compute is refused where it
 * changes the shapes, and noted where it changes the arithmetic alone. Optional keys have the
 * defaults of the library's configuration classes; null means absent, as there. */
#include "core/json_reader.h"
#include "profiles/import_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- the numbers of a configuration --------------------------------------------------------- */

typedef struct hf_config {
    int64_t blocks, dim, heads, kv_heads, head_dim, hidden, sequence, vocabulary, segments;
    int64_t window; /* positions that a sliding attention sees; 0: all */
    double embedding_dropout, attention_dropout, dropout, rotary_base;
    bool use_window, output_bias, mlp_bias, decoder, cross_attention;
} hf_config;

#define ROW(key_, type_, member_) .key = key_, .type = type_, PP_AT(hf_config, member_)
#define NUMBER(key_, member_, maximum_)                                                            \
    { ROW(key_, PP_FIELD_INT64, member_), .minimum = 1, .maximum = maximum_ }
#define OPTIONAL(key_, member_, maximum_, fallback_)                                               \
    {                                                                                              \
        ROW(key_, PP_FIELD_INT64, member_), .flags = PP_FIELD_OPTIONAL | PP_FIELD_NULLABLE,        \
                                            .minimum = 1, .maximum = maximum_,                     \
                                            .fallback = fallback_, .null_value = fallback_         \
    }
#define SHARE(key_, member_, fallback_)                                                            \
    {                                                                                              \
        ROW(key_, PP_FIELD_DOUBLE, member_),                                                       \
            .flags = PP_FIELD_OPTIONAL | PP_FIELD_NULLABLE | PP_FIELD_BELOW, .minimum = 0,         \
            .maximum = 1, .fallback = fallback_, .null_value = fallback_                           \
    }
#define FLAG(key_, member_)                                                                        \
    { ROW(key_, PP_FIELD_BOOL, member_), .flags = PP_FIELD_OPTIONAL }

enum {
    BLOCKS_MAX = PP_IMPORT_LAYERS_MAX - 2,
    DIM_MAX = 1 << 20,
    HEADS_MAX = 1 << 16,
    HIDDEN_MAX = 1 << 22,
    POSITIONS_MAX = 1 << 24,
    WORDS_MAX = 1 << 24
};

static const pp_field gpt2_fields[] = {
    NUMBER("n_layer", blocks, BLOCKS_MAX),       NUMBER("n_embd", dim, DIM_MAX),
    NUMBER("n_head", heads, HEADS_MAX),          NUMBER("n_positions", sequence, POSITIONS_MAX),
    NUMBER("vocab_size", vocabulary, WORDS_MAX), OPTIONAL("n_inner", hidden, HIDDEN_MAX, 0),
    SHARE("embd_pdrop", embedding_dropout, 0.1), SHARE("attn_pdrop", attention_dropout, 0.1),
    SHARE("resid_pdrop", dropout, 0.1),          FLAG("add_cross_attention", cross_attention),
};

#define LLAMA_ROWS(kv_heads_)                                                                      \
    NUMBER("num_hidden_layers", blocks, BLOCKS_MAX), NUMBER("hidden_size", dim, DIM_MAX),          \
        NUMBER("num_attention_heads", heads, HEADS_MAX),                                           \
        NUMBER("intermediate_size", hidden, HIDDEN_MAX),                                           \
        NUMBER("max_position_embeddings", sequence, POSITIONS_MAX),                                \
        NUMBER("vocab_size", vocabulary, WORDS_MAX),                                               \
        OPTIONAL("num_key_value_heads", kv_heads, HEADS_MAX, kv_heads_),                           \
        OPTIONAL("head_dim", head_dim, HEADS_MAX, 0), {                                            \
        ROW("rope_theta", PP_FIELD_DOUBLE, rotary_base),                                           \
            .flags = PP_FIELD_OPTIONAL | PP_FIELD_NULLABLE, .minimum = 1, .maximum = 1e15          \
    }

static const pp_field llama_fields[] = {
    LLAMA_ROWS(0),
    FLAG("attention_bias", output_bias),
    FLAG("mlp_bias", mlp_bias),
};
static const pp_field mistral_fields[] = {
    LLAMA_ROWS(8),
    OPTIONAL("sliding_window", window, INT32_MAX, 0),
};
static const pp_field qwen2_fields[] = {
    LLAMA_ROWS(32),
    FLAG("use_sliding_window", use_window),
    OPTIONAL("sliding_window", window, INT32_MAX, 0),
};
static const pp_field bert_fields[] = {
    NUMBER("num_hidden_layers", blocks, BLOCKS_MAX),
    NUMBER("hidden_size", dim, DIM_MAX),
    NUMBER("num_attention_heads", heads, HEADS_MAX),
    NUMBER("intermediate_size", hidden, HIDDEN_MAX),
    NUMBER("max_position_embeddings", sequence, POSITIONS_MAX),
    NUMBER("vocab_size", vocabulary, WORDS_MAX),
    OPTIONAL("type_vocab_size", segments, HEADS_MAX, 2),
    SHARE("attention_probs_dropout_prob", attention_dropout, 0.1),
    SHARE("hidden_dropout_prob", dropout, 0.1),
    FLAG("is_decoder", decoder),
    FLAG("add_cross_attention", cross_attention),
};

/* A kind of model. */
typedef struct hf_kind {
    const char *model_type;
    const char *class_prefix; /* of "architectures" */
    pp_model_family family;
    const pp_field *fields;
    int field_count;
    const char *heads_key;
    const char *activation_key,
        *activation; /* what our blocks compute, and where the file says it */
    bool tied;       /* default of "tie_word_embeddings" */
    bool qkv_bias;
    bool window_flag; /* a window counts only with use_sliding_window */
} hf_kind;

#define FIELDS(list) list, PP_ARRAY_LENGTH(list)
static const hf_kind kinds[] = {
    {"gpt2", "GPT2", PP_FAMILY_GPT, FIELDS(gpt2_fields), "n_head", "activation_function", "gelu",
     .tied = true},
    {"llama", "Llama", PP_FAMILY_LLAMA, FIELDS(llama_fields), "num_attention_heads", "hidden_act",
     "silu", .tied = false},
    {"mistral", "Mistral", PP_FAMILY_LLAMA, FIELDS(mistral_fields), "num_attention_heads",
     "hidden_act", "silu", .tied = false},
    {"qwen2", "Qwen2", PP_FAMILY_LLAMA, FIELDS(qwen2_fields), "num_attention_heads", "hidden_act",
     "silu", .qkv_bias = true, .window_flag = true},
    {"bert", "Bert", PP_FAMILY_BERT, FIELDS(bert_fields), "num_attention_heads", "hidden_act",
     "gelu", .tied = true},
};
enum { KINDS = PP_ARRAY_LENGTH(kinds) };

static const char *kind_name(int kind) {
    return kinds[kind].model_type;
}

/* A file being read. */
typedef struct hf_file {
    const pp_import_source *source;
    const pp_json_node *root;
    const hf_kind *kind;
    hf_config config;
    bool tied;
} hf_file;

/* ---- which kind ----------------------------------------------------------------------------- */

static const hf_kind *kind_of_type(const char *model_type) {
    for (int i = 0; i < KINDS; i++)
        if (strcmp(kinds[i].model_type, model_type) == 0) return &kinds[i];
    return NULL;
}

/* "LlamaForCausalLM": the name of a kind, and then a capital. */
static const hf_kind *kind_of_class(const char *name) {
    for (int i = 0; i < KINDS; i++) {
        size_t length = strlen(kinds[i].class_prefix);
        bool begins = strncmp(kinds[i].class_prefix, name, length) == 0;
        if (begins && name[length] >= 'A' && name[length] <= 'Z') return &kinds[i];
    }
    return NULL;
}

static pp_status fail_unknown(const hf_file *file, const pp_json_node *node) {
    char known[200];
    return pp_node_fail(node, file->source->error,
                        "\"%.60s\" is a kind of model that cannot be imported; known: %s",
                        json_string_value(node->value),
                        pp_name_list(kind_name, KINDS, known, sizeof known));
}

/* The first of "architectures", or NULL. */
static pp_status read_class(const hf_file *file, pp_json_node *list, pp_json_node *first) {
    char got[96];
    pp_error *error = file->source->error;
    *list = pp_node_member(file->root, "architectures");
    *first = (pp_json_node){0};
    if (!list->value || json_is_null(list->value)) return PP_OK;
    PP_TRY(pp_node_array(list, 0, 1000, error));
    if (pp_node_length(list) == 0) return PP_OK;
    *first = pp_node_element(list, 0);
    if (json_is_string(first->value)) return PP_OK;
    return pp_node_fail(first, error, "expected a string, got %s",
                        pp_value_describe(first->value, got, sizeof got));
}

static pp_status find_kind(hf_file *file) {
    char got[96], known[200];
    pp_error *error = file->source->error;
    pp_json_node type = pp_node_member(file->root, "model_type"), list, first;
    PP_TRY(read_class(file, &list, &first));
    if (type.value && !json_is_string(type.value))
        return pp_node_fail(&type, error, "expected a string, got %s",
                            pp_value_describe(type.value, got, sizeof got));
    if (!type.value && !first.value)
        return pp_node_fail(file->root, error, "\"model_type\" is missing; expected one of %s",
                            pp_name_list(kind_name, KINDS, known, sizeof known));
    const hf_kind *named = first.value ? kind_of_class(json_string_value(first.value)) : NULL;
    file->kind = type.value ? kind_of_type(json_string_value(type.value)) : named;
    if (!file->kind) return fail_unknown(file, type.value ? &type : &first);
    if (first.value && named != file->kind)
        return pp_node_fail(&first, error,
                            "\"%.60s\" is not a class of \"%s\", which model_type says",
                            json_string_value(first.value), file->kind->model_type);
    return PP_OK;
}

/* ---- what our layers cannot do -------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void note(const hf_file *file, const char *format,
                                                       ...) {
    char line[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    pp_make_printable(line);
    pp_log(PP_LOG_WARNING, "import", "%s: %s", file->source->model_name, line);
}

static pp_status refuse(const hf_file *file, const char *key, const char *why) {
    pp_json_node node = pp_node_member(file->root, key);
    return pp_node_fail(&node, file->source->error, "%s", why);
}

static pp_status check_features(const hf_file *file) {
    const hf_config *config = &file->config;
    if (config->cross_attention)
        return refuse(file, "add_cross_attention",
                      "blocks with cross-attention are not known here");
    if (config->decoder)
        return refuse(file, "is_decoder", "BERT is known as an encoder alone: expected false");
    if (config->output_bias)
        return refuse(file, "attention_bias",
                      "a llama_block has no bias behind its attention: expected false");
    if (config->mlp_bias)
        return refuse(file, "mlp_bias", "a llama_block has no biases in its MLP: expected false");
    return PP_OK;
}

static pp_status check_activation(const hf_file *file) {
    const hf_kind *kind = file->kind;
    pp_json_node node = pp_node_member(file->root, kind->activation_key);
    char got[96];
    if (!node.value || json_is_null(node.value)) return PP_OK;
    if (!json_is_string(node.value))
        return pp_node_fail(&node, file->source->error, "expected a string, got %s",
                            pp_value_describe(node.value, got, sizeof got));
    const char *name = json_string_value(node.value);
    bool silu = strcmp(kind->activation, "silu") == 0 && strcmp(name, "swish") == 0;
    if (strncmp(name, kind->activation, strlen(kind->activation)) != 0 && !silu)
        note(file, "%s is \"%.40s\"; the model computes %s, which costs about the same",
             kind->activation_key, name, kind->activation);
    return PP_OK;
}

static void note_differences(const hf_file *file) {
    const hf_config *config = &file->config;
    enum { LONG = 8192 };
    bool slides = config->window > 0 && config->window < config->sequence &&
                  (config->use_window || !file->kind->window_flag);
    if (slides)
        note(file,
             "the sliding window of %lld positions is ignored: every position sees all before it",
             (long long)config->window);
    if (config->sequence > LONG)
        note(file,
             "samples have %lld positions, the most that the model takes; 'plan --sequence N' sets "
             "what you train with",
             (long long)config->sequence);
}

/* ---- what the numbers mean together --------------------------------------------------------- */

static pp_status check_numbers(const hf_file *file) {
    const hf_config *config = &file->config;
    pp_error *error = file->source->error;
    pp_json_node heads = pp_node_member(file->root, file->kind->heads_key);
    pp_json_node kv_heads = pp_node_member(file->root, "num_key_value_heads");
    if (config->head_dim == 0 && config->dim % config->heads != 0)
        return pp_node_fail(&heads, error, "%lld heads do not divide the width %lld evenly",
                            (long long)config->heads, (long long)config->dim);
    if (config->kv_heads > 0 && config->heads % config->kv_heads != 0)
        return pp_node_fail(kv_heads.value ? &kv_heads : &heads, error,
                            "%lld heads of keys and values do not divide %lld heads evenly",
                            (long long)config->kv_heads, (long long)config->heads);
    int64_t size = config->head_dim > 0 ? config->head_dim : config->dim / config->heads;
    if (file->kind->family == PP_FAMILY_LLAMA && size % 2 != 0)
        return pp_node_fail(&heads, error,
                            "heads have %lld features; a rotary embedding turns pairs of them",
                            (long long)size);
    if (config->heads * size > HIDDEN_MAX)
        return pp_node_fail(&heads, error, "all heads together have %lld features; at most %d",
                            (long long)(config->heads * size), HIDDEN_MAX);
    return PP_OK;
}

static double largest_dropout(const hf_file *file) {
    const hf_config *config = &file->config;
    double largest = config->dropout;
    if (config->attention_dropout > largest) largest = config->attention_dropout;
    if (config->embedding_dropout > largest) largest = config->embedding_dropout;
    bool gpt = file->kind->family == PP_FAMILY_GPT;
    if (config->attention_dropout != config->dropout ||
        (gpt && config->embedding_dropout != config->dropout))
        note(file, "dropout differs from place to place; the model has the largest, %g, everywhere",
             largest);
    return largest;
}

static pp_transformer shape_of(const hf_file *file) {
    const hf_config *config = &file->config;
    bool usual_hidden = file->kind->family != PP_FAMILY_LLAMA && config->hidden == 4 * config->dim;
    return (pp_transformer){.family = file->kind->family,
                            .blocks = (int)config->blocks,
                            .dim = config->dim,
                            .heads = config->heads,
                            .kv_heads = config->kv_heads == config->heads ? 0 : config->kv_heads,
                            .head_dim = config->head_dim,
                            .hidden = usual_hidden ? 0 : config->hidden,
                            .sequence = config->sequence,
                            .vocabulary = config->vocabulary,
                            .segments = config->segments == 2 ? 0 : config->segments,
                            .dropout = largest_dropout(file),
                            .rotary_base = config->rotary_base,
                            .qkv_bias = file->kind->qkv_bias,
                            .untied = !file->tied};
}

/* ---- the whole ------------------------------------------------------------------------------ */

static pp_status read_tied(hf_file *file) {
    char got[96];
    pp_json_node node = pp_node_member(file->root, "tie_word_embeddings");
    file->tied = file->kind->tied;
    if (!node.value || json_is_null(node.value)) return PP_OK;
    if (!json_is_boolean(node.value))
        return pp_node_fail(&node, file->source->error, "expected true or false, got %s",
                            pp_value_describe(node.value, got, sizeof got));
    file->tied = json_is_true(node.value);
    return PP_OK;
}

/* What no document may hold is told here, of the file that people know. */
static pp_status check_size(const hf_file *file, pp_model **model) {
    const double most = 70368744177664.0; /* 2^46 */
    const pp_layer *layers = (*model)->layers;
    bool fits = pp_layer_sample_elements(&layers[0]) <= most &&
                pp_layer_sample_elements(&layers[1]) <= most;
    if (fits) return PP_OK;
    pp_model_free(*model);
    *model = NULL;
    return pp_node_fail(file->root, file->source->error,
                        "with so many positions the tensors of one sample would have more than "
                        "2^46 elements");
}

static pp_status read_config(hf_file *file, pp_model **model) {
    pp_error *error = file->source->error;
    if (!json_is_object(file->root->value))
        return pp_node_fail(file->root, error, "expected an object with \"model_type\"");
    PP_TRY(find_kind(file));
    PP_TRY(pp_fields_pick(file->root, file->kind->fields, file->kind->field_count, &file->config,
                          NULL, error));
    PP_TRY(read_tied(file));
    PP_TRY(check_features(file));
    PP_TRY(check_activation(file));
    PP_TRY(check_numbers(file));
    note_differences(file);
    pp_transformer shape = shape_of(file);
    PP_TRY(pp_model_make_transformer(&shape, file->source->model_name, model, error));
    return check_size(file, model);
}

pp_status pp_import_hf(const pp_import_source *source, pp_model **model) {
    json_t *document;
    PP_TRY(pp_json_load(source->text, source->length, source->file_name, &document, source->error));
    pp_json_node root = pp_node_root(document, source->file_name);
    hf_file file = {.source = source, .root = &root};
    pp_status status = read_config(&file, model);
    json_decref(document);
    return status;
}
