/* Where samples come from. To add a source: its functions and a row in the table at the end.
 *
 *   text        any file; its bytes are tokens 0 … 255
 *   tokens      FILE.bin of little-endian 16-bit token ids
 *   cifar-10    3073-byte records: a label, then 3 × 32 × 32 pixel values; a file, or the folder
 *               with data_batch_1.bin and so on
 *   chain       synthetic tokens: a noisy cycle, so that a model has something to learn
 *   clusters    synthetic features: a Gaussian cloud per class */
#include "executor/data_internal.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void store(pp_dtype dtype, void *out, int64_t index, double value) {
    if (dtype == PP_FP32)
        ((float *)out)[index] = (float)value;
    else
        ((double *)out)[index] = value;
}

/* ---- files of tokens ----------------------------------------------------------------------- */

/* Windows overlap by one token: the last target of one is the first input of the next. */
static pp_status count_windows(pp_data *data, uint64_t tokens, pp_error *error) {
    uint64_t sequence = (uint64_t)data->shape.sequence;
    if (tokens < sequence + 1)
        return pp_fail(error, PP_E_INPUT, data->path,
                       "%llu tokens are too few: one sample needs %llu (a sequence of %llu and the "
                       "token after it); use a longer file or a shorter sequence",
                       (unsigned long long)tokens, (unsigned long long)(sequence + 1),
                       (unsigned long long)sequence);
    data->records = (tokens - 1) / sequence;
    return PP_OK;
}

enum { BYTE_VOCABULARY = 256 };

static pp_status text_open(pp_data *data, pp_error *error) {
    if (data->shape.vocabulary != BYTE_VOCABULARY)
        return pp_fail(
            error, PP_E_INPUT, data->path,
            "a text file feeds models of bytes, whose vocabulary is 256; this model's is "
            "%lld: give a .bin file of 16-bit token ids made with its tokenizer, or "
            "train a byte-level model such as gpt-nano",
            (long long)data->shape.vocabulary);
    return count_windows(data, data->bytes.length, error);
}

static void text_window(const pp_data *data, uint64_t record, int64_t from, int64_t count,
                        int32_t *out) {
    uint64_t start = record * (uint64_t)data->shape.sequence + (uint64_t)from;
    for (int64_t i = 0; i < count; i++)
        out[i] = (unsigned char)data->bytes.bytes[start + (uint64_t)i];
}

static int32_t token_at(const pp_data *data, uint64_t position) {
    const unsigned char *bytes = (const unsigned char *)data->bytes.bytes + 2 * position;
    return bytes[0] | bytes[1] << 8;
}

static pp_status tokens_open(pp_data *data, pp_error *error) {
    if (data->bytes.length % 2)
        return pp_fail(error, PP_E_INPUT, data->path,
                       "%zu bytes are not a whole number of 16-bit tokens", data->bytes.length);
    uint64_t count = data->bytes.length / 2;
    for (uint64_t i = 0; i < count; i++) {
        int32_t token = token_at(data, i);
        if (token < data->shape.vocabulary) continue;
        return pp_fail(
            error, PP_E_INPUT, data->path,
            "token %llu is %d, but the model's vocabulary is %lld: was the file made for "
            "another model?",
            (unsigned long long)i, token, (long long)data->shape.vocabulary);
    }
    return count_windows(data, count, error);
}

static void tokens_window(const pp_data *data, uint64_t record, int64_t from, int64_t count,
                          int32_t *out) {
    uint64_t start = record * (uint64_t)data->shape.sequence + (uint64_t)from;
    for (int64_t i = 0; i < count; i++) out[i] = token_at(data, start + (uint64_t)i);
}

/* ---- CIFAR-10 ------------------------------------------------------------------------------ */

enum { CIFAR_PIXELS = 3072, CIFAR_RECORD = CIFAR_PIXELS + 1, CIFAR_CLASSES = 10 };

static const unsigned char *cifar_record(const pp_data *data, uint64_t record) {
    return (const unsigned char *)data->bytes.bytes + record * CIFAR_RECORD;
}

/* One file after the other: a batch that is not there ends the list. */
static pp_status cifar_read_folder(pp_data *data, pp_error *error) {
    char path[PATH_MAX];
    for (int batch = 1;; batch++) {
        pp_text bytes;
        int length = snprintf(path, sizeof path, "%s/data_batch_%d.bin", data->path, batch);
        if (length < 0 || (size_t)length >= sizeof path)
            return pp_fail(error, PP_E_INPUT, data->path, "this name is too long");
        if (batch > 1 && access(path, F_OK) != 0) return PP_OK;
        PP_TRY(pp_file_read(path, PP_FILE_LIMIT_BYTES, &bytes, error));
        pp_text_append(&data->bytes, bytes.bytes, bytes.length);
        pp_text_deinit(&bytes);
        if (data->bytes.failed) return pp_fail_memory(error);
    }
}

static pp_status cifar_read(pp_data *data, pp_error *error) {
    struct stat info;
    bool folder = stat(data->path, &info) == 0 && S_ISDIR(info.st_mode);
    return folder ? cifar_read_folder(data, error) : pp_data_read_file(data, error);
}

static pp_status cifar_open(pp_data *data, pp_error *error) {
    const pp_data_shape *shape = &data->shape;
    if (shape->sequence != 1 || shape->columns != CIFAR_PIXELS || shape->classes < CIFAR_CLASSES)
        return pp_fail(error, PP_E_INPUT, data->path,
                       "CIFAR-10 pictures are 3072 numbers with 10 classes; this model reads "
                       "%lld × %lld numbers and knows %lld classes",
                       (long long)shape->sequence, (long long)shape->columns,
                       (long long)shape->classes);
    if (data->bytes.length == 0 || data->bytes.length % CIFAR_RECORD)
        return pp_fail(error, PP_E_INPUT, data->path,
                       "%zu bytes are not a whole number of CIFAR-10 records of 3073 bytes (the "
                       "binary version, data_batch_1.bin)",
                       data->bytes.length);
    data->records = data->bytes.length / CIFAR_RECORD;
    for (uint64_t i = 0; i < data->records; i++) {
        if (cifar_record(data, i)[0] < CIFAR_CLASSES) continue;
        return pp_fail(error, PP_E_INPUT, data->path, "record %llu has label %d; labels are 0 to 9",
                       (unsigned long long)i, cifar_record(data, i)[0]);
    }
    return PP_OK;
}

static void cifar_label(const pp_data *data, uint64_t record, int64_t from, int64_t count,
                        int32_t *out) {
    (void)from;
    for (int64_t i = 0; i < count; i++) out[i] = cifar_record(data, record)[0];
}

static void cifar_features(const pp_data *data, uint64_t record, pp_dtype dtype, void *out) {
    const unsigned char *pixels = cifar_record(data, record) + 1;
    for (int64_t i = 0; i < CIFAR_PIXELS; i++) store(dtype, out, i, pixels[i] / 127.5 - 1.0);
}

/* ---- synthetic ----------------------------------------------------------------------------- */

static pp_status synthetic_open(pp_data *data, pp_error *error) {
    (void)error;
    data->records = 0;
    return PP_OK;
}

/* Of the vocabulary the first tokens only: enough to learn, few enough to be learned soon. */
enum { CHAIN_TOKENS = 64 };
#define CHAIN_NOISE 0.1 /* how often the next token is drawn instead of following the cycle */

/* The cycle t -> t + stride with a stride of the data set's own. */
static void chain_window(const pp_data *data, uint64_t record, int64_t from, int64_t count,
                         int32_t *out) {
    int64_t vocabulary = data->shape.vocabulary;
    uint64_t used = (uint64_t)(vocabulary < CHAIN_TOKENS ? vocabulary : CHAIN_TOKENS);
    pp_random_key set = pp_random_key_make(data->seed, "chain", 0);
    uint64_t stride = 1 + pp_random_below(set, 0, used);
    pp_random_key key = pp_random_key_make(data->seed, "chain-sample", record);
    uint64_t token = pp_random_below(key, 0, used);
    for (int64_t i = 0; i < from + count; i++) {
        if (i >= from) out[i - from] = (int32_t)token;
        uint64_t draw = 1 + 2 * (uint64_t)i;
        bool noise = pp_random_unit(key, draw) < CHAIN_NOISE;
        token = noise ? pp_random_below(key, draw + 1, used) : (token + stride) % used;
    }
}

static int32_t cluster_of(const pp_data *data, uint64_t record, int64_t row) {
    pp_random_key key = pp_random_key_make(data->seed, "cluster-label", record);
    return (int32_t)pp_random_below(key, (uint64_t)row, (uint64_t)data->shape.classes);
}

static void clusters_label(const pp_data *data, uint64_t record, int64_t from, int64_t count,
                           int32_t *out) {
    for (int64_t i = 0; i < count; i++) out[i] = cluster_of(data, record, from + i);
}

static void clusters_features(const pp_data *data, uint64_t record, pp_dtype dtype, void *out) {
    int64_t columns = data->shape.columns;
    pp_random_key noise = pp_random_key_make(data->seed, "cluster-noise", record);
    for (int64_t row = 0, element = 0; row < data->shape.sequence; row++) {
        uint64_t label = (uint64_t)cluster_of(data, record, row);
        pp_random_key centre = pp_random_key_make(data->seed, "cluster-centre", label);
        for (int64_t column = 0; column < columns; column++, element++) {
            double value = pp_random_normal(centre, (uint64_t)column);
            store(dtype, out, element, value + pp_random_normal(noise, (uint64_t)element));
        }
    }
}

/* ---- the table ----------------------------------------------------------------------------- */

/* The first row that fits is taken, so a row with a suffix stands before one without. */
static const pp_data_source sources[] = {
    {"tokens", false, true, ".bin", NULL, tokens_open, tokens_window, NULL},
    {"text", false, true, NULL, NULL, text_open, text_window, NULL},
    {"cifar-10", true, true, NULL, cifar_read, cifar_open, cifar_label, cifar_features},
    {"chain", false, false, NULL, NULL, synthetic_open, chain_window, NULL},
    {"clusters", true, false, NULL, NULL, synthetic_open, clusters_label, clusters_features},
};

static bool ends_with(const char *text, const char *suffix) {
    size_t length = strlen(text), tail = strlen(suffix);
    return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

const pp_data_source *pp_data_source_find(bool features, const char *path) {
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        const pp_data_source *source = &sources[i];
        if (source->features != features || source->file != (path != NULL)) continue;
        if (!path || !source->suffix || ends_with(path, source->suffix)) return source;
    }
    return NULL;
}
