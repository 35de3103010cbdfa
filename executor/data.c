/* The stream of samples.
 *
 * Model: a source has N records (windows of a text, pictures of a file). Sample g of the endless
 * stream is record perm_e(g mod N) of epoch e = g div N, where perm_e is a permutation keyed by
 * (seed, e). So every record comes once per epoch, in an order that depends on the seed alone, and
 * any rank can look any sample up without a table or a talk with the others: which microbatch,
 * replica or rank asks does not matter.
 *
 * The permutation is a Feistel network over the smallest even number of bits that holds N, walked
 * until it falls below N again (Black and Rogaway 2002, "cycle walking"). */
#include "executor/data_internal.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* ---- what a model needs -------------------------------------------------------------------- */

static int64_t rows_of(const pp_layer *layer) {
    return layer->sequence > 0 ? layer->sequence : 1;
}

static bool has_producer(const pp_model *model, int layer) {
    for (int i = 0; i < model->edge_count; i++)
        if (model->edges[i].to == layer) return true;
    return false;
}

static pp_status unfit(pp_error *error, const pp_layer *layer, const char *why) {
    return pp_fail(error, PP_E_UNSUPPORTED, NULL, "layer \"%s\" cannot be trained here: %s",
                   layer->name, why);
}

/* A layer that reads from the data set; all of a model's must agree. */
static pp_status add_reader(const pp_layer *layer, int index, bool first, pp_data_shape *shape,
                            pp_error *error) {
    bool features = !pp_layer_needs_get(layer->op).takes_tokens;
    if (first) {
        shape->features = features;
        shape->vocabulary = features ? 0 : layer->vocabulary;
        shape->columns = features ? layer->dim : 0;
        shape->sequence = rows_of(layer);
        shape->feature_layer = features ? index : -1;
        return PP_OK;
    }
    if (features || shape->features)
        return unfit(error, layer, "one layer at most may read features from the data set");
    if (shape->vocabulary != layer->vocabulary || shape->sequence != rows_of(layer))
        return unfit(error, layer, "its vocabulary and sequence differ from another embedding's");
    return PP_OK;
}

/* Tokens of a sample that are hidden: 15 % (Devlin et al. 2019, section 3.1), at least one. */
static int64_t hidden_of(int64_t sequence) {
    return (int64_t)fmax(1, round(0.15 * (double)sequence));
}

static pp_status add_loss(const pp_layer *layer, int index, pp_data_shape *shape, pp_error *error) {
    if (shape->loss_layer >= 0)
        return unfit(error, layer, "the model has another loss already; keep one");
    shape->loss_layer = index;
    shape->classes = layer->vocabulary > 0 ? layer->vocabulary : layer->dim;
    shape->masked = pp_layer_needs_get(layer->op).masks_tokens;
    shape->targets = shape->masked ? hidden_of(rows_of(layer)) : rows_of(layer);
    if (shape->masked && shape->features)
        return unfit(error, layer, "it learns hidden tokens, and the model reads none");
    if (rows_of(layer) != shape->sequence)
        return unfit(error, layer, "its sequence differs from that of the model's input");
    if (!shape->features && shape->classes < shape->vocabulary)
        return unfit(error, layer, "it has fewer classes than the vocabulary has tokens");
    return PP_OK;
}

pp_status pp_data_shape_of(const pp_model *model, pp_data_shape *shape, pp_error *error) {
    *shape = (pp_data_shape){.feature_layer = -1, .loss_layer = -1};
    bool first = true;
    for (int i = 0; i < model->layer_count; i++) {
        const pp_layer *layer = &model->layers[i];
        pp_layer_needs needs = pp_layer_needs_get(layer->op);
        if (needs.takes_tokens || !has_producer(model, i)) {
            PP_TRY(add_reader(layer, i, first, shape, error));
            first = false;
        }
        if (needs.makes_loss) PP_TRY(add_loss(layer, i, shape, error));
    }
    if (shape->loss_layer < 0)
        return pp_fail(error, PP_E_UNSUPPORTED, NULL,
                       "model \"%s\" has no loss to train: end it with lm_head or "
                       "softmax_cross_entropy, or run it with the replay backend",
                       model->name);
    return PP_OK;
}

/* ---- opening ------------------------------------------------------------------------------- */

pp_status pp_data_read_file(pp_data *data, pp_error *error) {
    return pp_file_read(data->path, PP_FILE_LIMIT_BYTES, &data->bytes, error);
}

static pp_status open_source(pp_data *data, pp_error *error) {
    if (data->source->file)
        PP_TRY((data->source->read ? data->source->read : pp_data_read_file)(data, error));
    return data->source->open(data, error);
}

pp_status pp_data_open(const pp_data_shape *shape, const char *path, uint64_t seed, pp_data **data,
                       pp_error *error) {
    *data = NULL;
    pp_data *opened = pp_allocate_zeroed(1, sizeof *opened);
    if (!opened) return pp_fail_memory(error);
    opened->shape = *shape;
    opened->path = path;
    opened->seed = seed;
    opened->source = pp_data_source_find(shape->features, path);
    pp_status status = open_source(opened, error);
    opened->path = NULL; /* the caller's */
    if (status != PP_OK) {
        pp_data_close(opened);
        return status;
    }
    *data = opened;
    return PP_OK;
}

void pp_data_close(pp_data *data) {
    if (!data) return;
    pp_text_deinit(&data->bytes);
    pp_free(data);
}

int64_t pp_data_records(const pp_data *data) {
    return (int64_t)data->records;
}

/* ---- the shuffle --------------------------------------------------------------------------- */

enum { FEISTEL_ROUNDS = 6 };

static uint64_t feistel(pp_random_key key, unsigned half_bits, uint64_t value) {
    uint64_t mask = (UINT64_C(1) << half_bits) - 1;
    uint64_t left = value >> half_bits, right = value & mask;
    for (uint64_t round = 0; round < FEISTEL_ROUNDS; round++) {
        uint32_t block[4];
        pp_random_block(key, round, right, block);
        uint64_t mixed = left ^ (((uint64_t)block[1] << 32 | block[0]) & mask);
        left = right;
        right = mixed;
    }
    return left << half_bits | right;
}

uint64_t pp_data_permute(pp_random_key key, uint64_t count, uint64_t index) {
    assert(index < count);
    unsigned half_bits = 1;
    while (half_bits < 31 && (UINT64_C(1) << (2 * half_bits)) < count) half_bits++;
    do index = feistel(key, half_bits, index);
    while (index >= count);
    return index;
}

static uint64_t record_of(const pp_data *data, uint64_t sample) {
    if (data->records == 0) return sample;
    pp_random_key key = pp_random_key_make(data->seed, "epoch", sample / data->records);
    return pp_data_permute(key, data->records, sample % data->records);
}

/* ---- hidden tokens ------------------------------------------------------------------------- */

/* Which positions of a sample are hidden follows from (seed, sample) alone, in another way in each
 * epoch. Exactly `targets` of each sample are, so that the loss has the same number of terms in
 * every minibatch. */
static bool is_hidden(const pp_data *data, uint64_t sample, int64_t position) {
    pp_random_key key = pp_random_key_make(data->seed, "hidden", sample);
    uint64_t count = (uint64_t)data->shape.sequence;
    return pp_data_permute(key, count, (uint64_t)position) < (uint64_t)data->shape.targets;
}

/* Devlin et al. 2019, section 3.1: of the hidden tokens 80 % become [MASK], for which the last word
 * of the vocabulary stands, 10 % any word, and 10 % stay. */
static void hide(const pp_data *data, uint64_t sample, int32_t *tokens) {
    pp_random_key key = pp_random_key_make(data->seed, "hidden-as", sample);
    int64_t vocabulary = data->shape.vocabulary;
    for (int64_t i = 0; i < data->shape.sequence; i++) {
        if (!is_hidden(data, sample, i)) continue;
        double draw = pp_random_unit(key, 2 * (uint64_t)i);
        uint64_t any = pp_random_below(key, 2 * (uint64_t)i + 1, (uint64_t)vocabulary);
        if (draw < 0.9) tokens[i] = (int32_t)(draw < 0.8 ? vocabulary - 1 : (int64_t)any);
    }
}

/* ---- reading ------------------------------------------------------------------------------- */

/* Windows hold sequence + 1 tokens: the targets of a text are the tokens one position later, or
 * those that are hidden. */
static void read_windows(const pp_data *data, uint64_t first, int64_t count, int64_t from,
                         int32_t *out) {
    int64_t sequence = data->shape.sequence;
    for (int64_t i = 0; i < count; i++) {
        uint64_t record = record_of(data, first + (uint64_t)i);
        data->source->window(data, record, from, sequence, out + i * sequence);
    }
}

void pp_data_tokens(const pp_data *data, uint64_t first, int64_t count, int32_t *tokens) {
    assert(!data->shape.features);
    read_windows(data, first, count, 0, tokens);
    for (int64_t i = 0; i < count && data->shape.masked; i++)
        hide(data, first + (uint64_t)i, tokens + i * data->shape.sequence);
}

void pp_data_targets(const pp_data *data, uint64_t first, int64_t count, int32_t *targets) {
    const pp_data_shape *shape = &data->shape;
    read_windows(data, first, count, shape->features || shape->masked ? 0 : 1, targets);
    for (int64_t i = 0; i < count * shape->sequence && shape->masked; i++) {
        uint64_t sample = first + (uint64_t)(i / shape->sequence);
        if (!is_hidden(data, sample, i % shape->sequence)) targets[i] = -1;
    }
}

void pp_data_features(const pp_data *data, pp_dtype dtype, uint64_t first, int64_t count,
                      void *features) {
    assert(data->shape.features && (dtype == PP_FP32 || dtype == PP_FP64));
    int64_t width = data->shape.sequence * data->shape.columns;
    for (int64_t i = 0; i < count; i++) {
        unsigned char *out = (unsigned char *)features + i * width * pp_dtype_bytes(dtype);
        data->source->features_of(data, record_of(data, first + (uint64_t)i), dtype, out);
    }
}
