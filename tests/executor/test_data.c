/* Samples: what files are taken, what order they come in, what is refused. */
#include "executor/data_internal.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

COUNTED_SUITE(data);

static const pp_data_shape bytes_of_four = {
    .vocabulary = 256, .classes = 256, .sequence = 4, .feature_layer = -1};

static void write_file(char path[64], const char *suffix, const void *bytes, size_t length) {
    snprintf(path, 64, "/tmp/ppsim-data-XXXXXX%s", suffix);
    int file = mkstemps(path, (int)strlen(suffix));
    cr_assert_geq(file, 0);
    cr_assert_eq(write(file, bytes, length), (ssize_t)length);
    close(file);
}

static pp_data *open_bytes(const pp_data_shape *shape, const char *suffix, const void *bytes,
                           size_t length, pp_error *error) {
    char path[64];
    write_file(path, suffix, bytes, length);
    pp_data *data;
    pp_status status = pp_data_open(shape, path, 1, &data, error);
    unlink(path);
    cr_assert_eq(status == PP_OK, data != NULL);
    return data;
}

static void refuse(const pp_data_shape *shape, const char *suffix, const void *bytes, size_t length,
                   const char *reason) {
    pp_error error = {.message = ""};
    cr_assert_null(open_bytes(shape, suffix, bytes, length, &error));
    cr_assert_eq(error.code, PP_E_INPUT);
    cr_assert(strstr(error.message, reason), "\"%s\" does not say \"%s\"", error.message, reason);
    cr_assert(error.place[0] == '/', "it names the file");
}

Test(data, permutations_are_permutations) {
    static const uint64_t counts[] = {1, 2, 3, 4, 5, 16, 17, 100, 255, 256, 257, 1000, 4097};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            bool seen[4097] = {false};
            pp_random_key key = pp_random_key_make(seed, "test", counts[i]);
            for (uint64_t k = 0; k < counts[i]; k++) {
                uint64_t at = pp_data_permute(key, counts[i], k);
                cr_assert_lt(at, counts[i]);
                cr_assert_not(seen[at], "%llu twice of %llu", (unsigned long long)at,
                              (unsigned long long)counts[i]);
                seen[at] = true;
            }
        }
}

/* First positions must be spread evenly over what comes first: chi-square with 9 degrees. */
Test(data, permutations_mix) {
    enum { RECORDS = 10, KEYS = 5000 };
    int hits[RECORDS] = {0};
    for (uint64_t k = 0; k < KEYS; k++)
        hits[pp_data_permute(pp_random_key_make(k, "mix", 0), RECORDS, 0)]++;
    double chi = 0, expected = (double)KEYS / RECORDS;
    for (int i = 0; i < RECORDS; i++) chi += (hits[i] - expected) * (hits[i] - expected) / expected;
    cr_assert_lt(chi, 27.9, "p < 0.001 for chi-square %g", chi);
}

/* Each window of the text once per epoch, targets one token later, another order the next epoch. */
Test(data, text_comes_once_per_epoch) {
    const char text[] = "abcdefghijklmnopqrstuvwxyz";
    enum { WINDOWS = 6 }; /* (26 - 1) / 4 */
    pp_data *data = open_bytes(&bytes_of_four, ".txt", text, 26, NULL);
    cr_assert_eq(pp_data_records(data), WINDOWS);
    bool differs = false;
    int32_t first_epoch[WINDOWS];
    for (int epoch = 0; epoch < 3; epoch++) {
        int seen = 0;
        for (int i = 0; i < WINDOWS; i++) {
            int32_t tokens[4], targets[4];
            uint64_t sample = (uint64_t)(epoch * WINDOWS + i);
            pp_data_tokens(data, sample, 1, tokens);
            pp_data_targets(data, sample, 1, targets);
            cr_assert_eq((tokens[0] - 'a') % 4, 0);
            for (int k = 0; k < 4; k++) {
                cr_assert_eq(tokens[k], tokens[0] + k);
                cr_assert_eq(targets[k], tokens[k] + 1);
            }
            seen |= 1 << (tokens[0] - 'a') / 4;
            if (epoch == 0) first_epoch[i] = tokens[0];
            differs |= first_epoch[i] != tokens[0];
        }
        cr_assert_eq(seen, (1 << WINDOWS) - 1);
    }
    cr_assert(differs, "epochs are shuffled anew");
    pp_data_close(data);
}

Test(data, many_samples_are_the_same_as_one_by_one) {
    pp_data *data = NULL;
    cr_assert_eq(pp_data_open(&bytes_of_four, NULL, 3, &data, NULL), PP_OK);
    int32_t all[40], one[4];
    pp_data_tokens(data, 5, 10, all);
    for (int i = 0; i < 10; i++) {
        pp_data_tokens(data, (uint64_t)(5 + i), 1, one);
        cr_assert_arr_eq(one, all + 4 * i, sizeof one);
    }
    pp_data_close(data);
}

/* Nine of ten steps go on by the same stride. */
Test(data, synthetic_tokens_can_be_learned) {
    pp_data_shape shape = {.vocabulary = 50, .classes = 50, .sequence = 200};
    pp_data *data = NULL;
    cr_assert_eq(pp_data_open(&shape, NULL, 8, &data, NULL), PP_OK);
    int32_t tokens[200], targets[200];
    int strides[50] = {0};
    for (uint64_t sample = 0; sample < 20; sample++) {
        pp_data_tokens(data, sample, 1, tokens);
        pp_data_targets(data, sample, 1, targets);
        for (int i = 0; i < 200; i++) {
            cr_assert(0 <= tokens[i] && tokens[i] < 50);
            if (i < 199) cr_assert_eq(targets[i], tokens[i + 1]);
            strides[(targets[i] - tokens[i] + 50) % 50]++;
        }
    }
    int most = 0;
    for (int i = 0; i < 50; i++) most = strides[i] > most ? strides[i] : most;
    cr_assert(most > 4000 * 85 / 100 && most < 4000 * 95 / 100, "%d of 4000", most);
    pp_data_close(data);
}

/* Of 40 tokens 6 are hidden, always: those are the targets. Most of them read as the last word; all
 * others are what they were. */
Test(data, hidden_tokens) {
    pp_data_shape plain = {.vocabulary = 50, .classes = 50, .sequence = 40};
    pp_data_shape shape = plain;
    shape.masked = true;
    shape.targets = 6;
    pp_data *data = NULL, *open = NULL;
    cr_assert_eq(pp_data_open(&shape, NULL, 8, &data, NULL), PP_OK);
    cr_assert_eq(pp_data_open(&plain, NULL, 8, &open, NULL), PP_OK);
    int32_t tokens[40], targets[40], all[40];
    int as_mask = 0, at[40] = {0};
    for (uint64_t sample = 0; sample < 500; sample++) {
        int hidden = 0;
        pp_data_tokens(data, sample, 1, tokens);
        pp_data_targets(data, sample, 1, targets);
        pp_data_tokens(open, sample, 1, all);
        for (int i = 0; i < 40; i++) {
            cr_assert(targets[i] >= 0 ? targets[i] == all[i] : tokens[i] == all[i]);
            if (targets[i] < 0) continue;
            hidden++;
            at[i]++;
            as_mask += tokens[i] == 49;
        }
        cr_assert_eq(hidden, 6);
    }
    /* 80 % and a fiftieth of 10 % of 3000, 5 σ of the binomial; each place 500 · 15 % times */
    cr_expect(abs(as_mask - 2406) < 5 * 22, "%d", as_mask);
    for (int i = 0; i < 40; i++) cr_expect(abs(at[i] - 75) < 5 * 8, "position %d: %d", i, at[i]);
    pp_data_close(data);
    pp_data_close(open);
}

/* The mean of a class's samples is its centre, and centres differ. */
Test(data, synthetic_features_cluster) {
    pp_data_shape shape = {.features = true, .columns = 6, .classes = 3, .sequence = 1};
    pp_data *data = NULL;
    cr_assert_eq(pp_data_open(&shape, NULL, 8, &data, NULL), PP_OK);
    enum { SAMPLES = 3000 };
    double sums[3][6] = {{0}}, features[6];
    int counts[3] = {0};
    for (uint64_t i = 0; i < SAMPLES; i++) {
        int32_t label;
        pp_data_targets(data, i, 1, &label);
        pp_data_features(data, PP_FP64, i, 1, features);
        float narrow[6];
        pp_data_features(data, PP_FP32, i, 1, narrow);
        for (int k = 0; k < 6; k++) {
            cr_assert_eq(narrow[k], (float)features[k]);
            sums[label][k] += features[k];
        }
        counts[label]++;
    }
    double apart = 0;
    for (int k = 0; k < 6; k++) {
        double difference = sums[0][k] / counts[0] - sums[1][k] / counts[1];
        apart += difference * difference;
    }
    cr_assert(counts[0] > 900 && counts[1] > 900 && counts[2] > 900);
    cr_assert_gt(apart, 1.0);
    pp_data_close(data);
}

Test(data, token_files) {
    static const unsigned char tokens[] = {1, 0, 2, 0, 3, 0, 4, 0, 44, 1, 6, 0};
    pp_data_shape shape = {.vocabulary = 301, .classes = 301, .sequence = 4};
    pp_data *data = open_bytes(&shape, ".bin", tokens, sizeof tokens, NULL);
    int32_t inputs[4], targets[4];
    pp_data_tokens(data, 0, 1, inputs);
    pp_data_targets(data, 0, 1, targets);
    static const int32_t wanted[] = {1, 2, 3, 4, 300};
    cr_assert_arr_eq(inputs, wanted, sizeof inputs);
    cr_assert_arr_eq(targets, wanted + 1, sizeof targets);
    pp_data_close(data);
    shape.vocabulary = 300;
    refuse(&shape, ".bin", tokens, sizeof tokens, "token 4 is 300");
    refuse(&shape, ".bin", tokens, 7, "whole number of 16-bit tokens");
    refuse(&shape, ".bin", tokens, 8, "4 tokens are too few");
}

Test(data, text_files_that_do_not_fit) {
    pp_data_shape other = bytes_of_four;
    other.vocabulary = 50257;
    refuse(&other, ".txt", "some text", 9, "vocabulary is 256");
    refuse(&bytes_of_four, ".txt", "abcd", 4, "4 tokens are too few: one sample needs 5");
    refuse(&bytes_of_four, ".txt", "", 0, "too few");
    pp_error error = {.message = ""};
    pp_data *data;
    cr_assert_eq(pp_data_open(&bytes_of_four, "/nowhere/at/all", 1, &data, &error), PP_E_INPUT);
}

Test(data, pictures) {
    enum { RECORDS = 5, BYTES = 3073 };
    static unsigned char file[RECORDS * BYTES];
    for (int i = 0; i < RECORDS; i++) {
        file[i * BYTES] = (unsigned char)(i * 2);
        memset(file + i * BYTES + 1, i * 50, BYTES - 1);
    }
    pp_data_shape shape = {.features = true, .columns = 3072, .classes = 10, .sequence = 1};
    pp_data *data = open_bytes(&shape, ".bin", file, sizeof file, NULL);
    int seen = 0;
    for (uint64_t i = 0; i < RECORDS; i++) {
        static float features[3072];
        int32_t label;
        pp_data_targets(data, i, 1, &label);
        pp_data_features(data, PP_FP32, i, 1, features);
        cr_assert_float_eq(features[3071], label / 2 * 50 / 127.5 - 1, 1e-6);
        seen |= 1 << label / 2;
    }
    cr_assert_eq(seen, 31);
    pp_data_close(data);

    refuse(&shape, ".bin", file, 3072, "whole number of CIFAR-10 records");
    file[BYTES] = 10;
    refuse(&shape, ".bin", file, sizeof file, "record 1 has label 10");
    shape.columns = 784;
    refuse(&shape, ".bin", file, sizeof file, "3072 numbers");
}

/* A folder holds data_batch_1.bin and so on; the first that is missing ends the list. */
Test(data, folder_of_pictures) {
    enum { BYTES = 3073 };
    static const int counts[] = {2, 3, 0, 4}; /* of batches 1, 2, 3 (not there) and 4 */
    static unsigned char file[4 * BYTES];
    pp_data_shape shape = {.features = true, .columns = 3072, .classes = 10, .sequence = 1};
    char folder[] = "/tmp/ppsim-cifar-XXXXXX", path[64];
    pp_error error = {.message = ""};
    pp_data *data;
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(pp_data_open(&shape, folder, 1, &data, &error), PP_E_INPUT);
    cr_assert(strstr(error.place, "data_batch_1.bin"), "%s", error.place);
    for (int batch = 1; batch <= 4; batch++) {
        snprintf(path, sizeof path, "%s/data_batch_%d.bin", folder, batch);
        FILE *out = counts[batch - 1] ? fopen(path, "wb") : NULL;
        if (!out) continue;
        fwrite(file, BYTES, (size_t)counts[batch - 1], out);
        fclose(out);
    }
    cr_assert_eq(pp_data_open(&shape, folder, 1, &data, &error), PP_OK, "%s", error.message);
    cr_assert_eq(pp_data_records(data), 5);
    pp_data_close(data);
    for (int batch = 1; batch <= 4; batch++) {
        snprintf(path, sizeof path, "%s/data_batch_%d.bin", folder, batch);
        unlink(path);
    }
    rmdir(folder);
}

static pp_status shape_of(const char *layers, pp_data_shape *shape, pp_error *error) {
    char text[1024];
    snprintf(text, sizeof text,
             "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"m\", \"layers\": [%s]}",
             layers);
    pp_model *model;
    cr_assert_eq(pp_model_read(text, strlen(text), "test", &model, error), PP_OK, "%s",
                 error->message);
    pp_status status = pp_data_shape_of(model, shape, error);
    pp_model_free(model);
    return status;
}

#define EMBED                                                                                      \
    "{\"name\": \"e\", \"op\": \"embedding\", \"vocabulary\": 9, \"dim\": 4, \"sequence\": 3}"
#define HEAD                                                                                       \
    "{\"name\": \"h\", \"op\": \"lm_head\", \"vocabulary\": 9, \"dim\": 4, \"sequence\": 3}"
#define MASKED                                                                                     \
    "{\"name\": \"m\", \"op\": \"mlm_head\", \"vocabulary\": 9, \"dim\": 4, \"sequence\": 3}"
#define LOSS "{\"name\": \"l\", \"op\": \"softmax_cross_entropy\", \"dim\": 4, \"sequence\": 3}"

Test(data, shapes_of_models) {
    pp_data_shape shape;
    pp_error error = {.message = ""};
    cr_assert_eq(shape_of(EMBED "," HEAD, &shape, &error), PP_OK);
    cr_assert(!shape.features && shape.vocabulary == 9 && shape.sequence == 3);
    cr_assert_eq(shape_of(LOSS, &shape, &error), PP_OK);
    cr_assert(shape.features && shape.columns == 4 && shape.classes == 4);
    cr_assert_eq(shape_of(EMBED, &shape, &error), PP_E_UNSUPPORTED);
    cr_assert(strstr(error.message, "no loss"));
    cr_assert_eq(shape_of(EMBED "," LOSS, &shape, &error), PP_E_UNSUPPORTED);
    cr_assert(strstr(error.message, "fewer classes"));
    cr_assert_eq(shape_of(EMBED "," MASKED, &shape, &error), PP_OK);
    cr_assert(shape.masked && shape.targets == 1); /* 15 % of 3, but at least one */
    cr_assert_eq(shape_of(MASKED, &shape, &error), PP_E_UNSUPPORTED);
    cr_assert(strstr(error.message, "hidden tokens"));
}
