/* What the tests of all importers share: reading a text, expecting a refusal, finding a layer. */
#ifndef PPSIM_TEST_IMPORT_SUPPORT_H
#define PPSIM_TEST_IMPORT_SUPPORT_H

#include "profiles/profiles.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline pp_model *import_must(const char *format, const char *text,
                                    const pp_import_options *options) {
    pp_model *model;
    pp_error error = {0};
    pp_status status = pp_import_text(format, text, strlen(text), "f.txt", options, &model, &error);
    cr_assert_eq(status, PP_OK, "%s: %s\n%s", error.place, error.message, text);
    return model;
}

static inline const pp_layer *layer_called(const pp_model *model, const char *name) {
    for (int i = 0; i < model->layer_count; i++)
        if (strcmp(model->layers[i].name, name) == 0) return &model->layers[i];
    cr_assert(false, "%s has no layer called %s", model->name, name);
    return NULL;
}

static inline bool has_edge(const pp_model *model, const char *from, const char *to) {
    for (int e = 0; e < model->edge_count; e++)
        if (strcmp(model->layers[model->edges[e].from].name, from) == 0 &&
            strcmp(model->layers[model->edges[e].to].name, to) == 0)
            return true;
    return false;
}

/* A good text in which `find` is replaced (once), and what the refusal must say. find NULL: the
 * replacement is the whole text. */
typedef struct spoiled {
    const char *find, *replacement;
    const char *place; /* behind the file's name */
    const char *message;
} spoiled;

static inline pp_text spoil(const char *good, const spoiled *bad) {
    pp_text text = {0};
    const char *at = bad->find ? strstr(good, bad->find) : good;
    cr_assert(at, "the good text has no %s", bad->find);
    pp_text_append(&text, good, (size_t)(at - good));
    pp_text_string(&text, bad->replacement);
    pp_text_string(&text, at + strlen(bad->find ? bad->find : good));
    return text;
}

static inline void expect_refusal(const char *format, const char *good, const spoiled *bad) {
    char place[64];
    pp_model *model;
    pp_error error = {0};
    pp_text text = spoil(good, bad);
    pp_status status =
        pp_import_text(format, text.bytes, text.length, "f.txt", NULL, &model, &error);
    snprintf(place, sizeof place, "f.txt%s", bad->place);
    cr_expect(status == PP_E_INPUT && strcmp(error.place, place) == 0 &&
                  strstr(error.message, bad->message),
              "'%s': status %d, \"%s\" at \"%s\", expected \"%s\" at \"%s\"", bad->replacement,
              status, error.message, error.place, bad->message, place);
    cr_expect_null(model);
    pp_text_deinit(&text);
}

/* A file of the published data, or NULL when there is none here. */
static inline const char *data_file(const char *name, char path[400]) {
    const char *named = getenv("PPSIM_TEST_DATA");
    snprintf(path, 400, "%s/%s", named ? named : "../shared/data", name);
    FILE *file = fopen(path, "r");
    if (file) fclose(file);
    return file ? path : NULL;
}

#endif
