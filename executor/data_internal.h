/* Samples for training: random access by sample number, the same for every K, M and dp. */
#ifndef PPSIM_EXECUTOR_DATA_INTERNAL_H
#define PPSIM_EXECUTOR_DATA_INTERNAL_H

#include "core/core.h"

/* What a model eats and is asked for. */
typedef struct pp_data_shape {
    bool features;       /* fed with rows of numbers; else with token ids */
    int64_t vocabulary;  /* token ids are below this */
    int64_t sequence;    /* rows (positions) per sample */
    int64_t columns;     /* features per row */
    int64_t classes;     /* targets are below this */
    bool masked;         /* some tokens are hidden, and they are the targets */
    int64_t targets;     /* of a sample: rows, or as many of them as are hidden */
    int feature_layer;   /* that reads the features; -1 */
    int loss_layer;
} pp_data_shape;

/* PP_E_UNSUPPORTED if the model has not exactly one loss, or its ends do not fit together. */
pp_status pp_data_shape_of(const pp_model *model, pp_data_shape *shape, pp_error *error);

typedef struct pp_data pp_data;

/* path: NULL for synthetic data. After opening, every call is read-only and thread-safe. */
pp_status pp_data_open(const pp_data_shape *shape, const char *path, uint64_t seed, pp_data **data,
                       pp_error *error);
void pp_data_close(pp_data *data); /* NULL is fine */
int64_t pp_data_records(const pp_data *data); /* per epoch; 0: endless */

/* Samples first … first+count-1 of the endless shuffled stream. */
void pp_data_tokens(const pp_data *data, uint64_t first, int64_t count, int32_t *tokens);
void pp_data_targets(const pp_data *data, uint64_t first, int64_t count, int32_t *targets);
void pp_data_features(const pp_data *data, pp_dtype dtype, uint64_t first, int64_t count,
                      void *features);

/* Position of `index` in a keyed permutation of 0 … count-1. O(1) memory. */
uint64_t pp_data_permute(pp_random_key key, uint64_t count, uint64_t index);

/* ---- sources: one row each in data_sources.c ----------------------------------------------- */

typedef struct pp_data_source {
    const char *name;
    bool features;
    bool file;                              /* reads a file; else synthetic */
    const char *suffix;                     /* of the file's name; NULL: any */
    /* Fills data->bytes from data->path; NULL: one whole file. */
    pp_status (*read)(pp_data *data, pp_error *error);
    /* Checks the contents and sets data->records. */
    pp_status (*open)(pp_data *data, pp_error *error);
    /* count values of a record's window of tokens, from position `from`; labels for features */
    void (*window)(const pp_data *data, uint64_t record, int64_t from, int64_t count, int32_t *out);
    /* the sequence · columns features of a record */
    void (*features_of)(const pp_data *data, uint64_t record, pp_dtype dtype, void *out);
} pp_data_source;

struct pp_data {
    const pp_data_source *source;
    pp_data_shape shape;
    const char *path; /* for messages while opening */
    uint64_t seed;
    uint64_t records; /* 0: endless, each sample its own record */
    pp_text bytes;    /* of the file */
};

pp_status pp_data_read_file(pp_data *data, pp_error *error);
const pp_data_source *pp_data_source_find(bool features, const char *path);

#endif
