/* Nodes, their errors, and what all documents have in common: see json_reader.h for the
 * idea. Tables of fields are json_fields.c, parsing is json_stream.c. */
#include "core/json_reader.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- nodes ---------------------------------------------------------------------------------- */

pp_json_node pp_node_root(json_t *value, const char *file_name) {
    return (pp_json_node){.value = value, .file_name = file_name};
}

pp_json_node pp_node_member(const pp_json_node *object, const char *key) {
    return (pp_json_node){.value = json_object_get(object->value, key),
                          .file_name = object->file_name,
                          .parent = object,
                          .key = key};
}

pp_json_node pp_node_element(const pp_json_node *array, size_t index) {
    return (pp_json_node){.value = json_array_get(array->value, index),
                          .file_name = array->file_name,
                          .parent = array,
                          .index = index};
}

size_t pp_node_length(const pp_json_node *array) {
    return json_array_size(array->value);
}

/* ---- errors --------------------------------------------------------------------------------- */

void pp_make_printable(char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
}

void pp_cut_add(pp_text_cut *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    size_t room = text->capacity - text->length;
    int wanted = vsnprintf(text->bytes + text->length, room, format, arguments);
    va_end(arguments);
    if (wanted > 0) text->length += (size_t)wanted < room ? (size_t)wanted : room - 1;
}

static void add_path(pp_text_cut *text, const pp_json_node *node) {
    if (!node->parent) return;
    add_path(text, node->parent);
    if (node->key)
        pp_cut_add(text, "/%s", node->key);
    else
        pp_cut_add(text, "/%zu", node->index);
}

pp_status pp_node_fail_list(const pp_json_node *node, pp_error *error, const char *format,
                            va_list arguments) {
    char place[320] = "", message[2000];
    pp_text_cut path = {place, sizeof place, 0};
    pp_cut_add(&path, "%s%s", node->file_name, node->parent ? " " : "");
    add_path(&path, node);
    vsnprintf(message, sizeof message, format, arguments);
    pp_make_printable(message);
    return pp_fail(error, PP_E_INPUT, place, "%s", message);
}

pp_status pp_node_fail(const pp_json_node *node, pp_error *error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    pp_status status = pp_node_fail_list(node, error, format, arguments);
    va_end(arguments);
    return status;
}

/* What stands there, for the end of a message. */
const char *pp_value_describe(const json_t *value, char *buffer, size_t capacity) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        return "null";
    case JSON_INTEGER:
        snprintf(buffer, capacity, "%lld", (long long)json_integer_value(value));
        return buffer;
    case JSON_REAL:
        snprintf(buffer, capacity, "%.15g", json_real_value(value));
        return buffer;
    case JSON_STRING:
        snprintf(buffer, capacity, "\"%.60s%s\"", json_string_value(value),
                 json_string_length(value) > 60 ? "..." : "");
        return buffer;
    }
    return "something else";
}

const char *pp_name_list(const char *(*name)(int), int count, char *buffer, size_t capacity) {
    pp_text_cut list = {buffer, capacity, 0};
    buffer[0] = '\0';
    for (int i = 0; i < count; i++) pp_cut_add(&list, "%s%s", i > 0 ? ", " : "", name(i));
    return buffer;
}

/* ---- arrays --------------------------------------------------------------------------------- */

pp_status pp_node_array(const pp_json_node *node, size_t minimum, size_t maximum, pp_error *error) {
    char got[96];
    if (!json_is_array(node->value))
        return pp_node_fail(node, error, "expected an array, got %s",
                            node->value ? pp_value_describe(node->value, got, sizeof got)
                                        : "nothing");
    size_t length = json_array_size(node->value);
    if (length >= minimum && length <= maximum) return PP_OK;
    if (minimum == maximum)
        return pp_node_fail(node, error, "expected %zu elements, got %zu", minimum, length);
    return pp_node_fail(node, error, "expected %zu to %zu elements, got %zu", minimum, maximum,
                        length);
}

/* Integers, and reals that are integers: 1e9 is how people write sizes. */
bool pp_value_integer(const json_t *value, int64_t *integer) {
    if (json_is_integer(value)) {
        *integer = json_integer_value(value);
        return true;
    }
    double real = json_real_value(value);
    if (!json_is_real(value) || real != trunc(real) || fabs(real) > 9007199254740992.0)
        return false;
    *integer = (int64_t)real;
    return true;
}

pp_status pp_node_ints(const pp_json_node *node, int count, int64_t minimum, int64_t maximum,
                       int *out, pp_error *error) {
    PP_TRY(pp_node_array(node, (size_t)count, (size_t)count, error));
    for (int i = 0; i < count; i++) {
        char got[96];
        int64_t value;
        pp_json_node element = pp_node_element(node, (size_t)i);
        if (!pp_value_integer(element.value, &value) || value < minimum || value > maximum)
            return pp_node_fail(&element, error, "expected an integer from %lld to %lld, got %s",
                                (long long)minimum, (long long)maximum,
                                pp_value_describe(element.value, got, sizeof got));
        out[i] = (int)value;
    }
    return PP_OK;
}

/* ---- the first two keys of every document --------------------------------------------------- */

pp_status pp_node_format(const pp_json_node *document, const char *format, pp_error *error) {
    if (!json_is_object(document->value))
        return pp_node_fail(document, error, "expected an object with \"format\": \"%s\"", format);
    pp_json_node name = pp_node_member(document, "format");
    const char *text = json_string_value(name.value);
    if (!text)
        return pp_node_fail(document, error, "\"format\" is missing: expected \"format\": \"%s\"",
                            format);
    if (strcmp(text, format) != 0)
        return pp_node_fail(&name, error, "expected \"%s\", got \"%.60s\"", format, text);
    pp_json_node version = pp_node_member(document, "version");
    if (!version.value)
        return pp_node_fail(document, error, "\"version\" is missing: expected \"version\": 1");
    if (!json_is_integer(version.value) || json_integer_value(version.value) != 1) {
        char got[96];
        return pp_node_fail(&version, error,
                            "expected 1, the version that this ppsim reads, got %s",
                            pp_value_describe(version.value, got, sizeof got));
    }
    return PP_OK;
}

/* ---- sources of documents ------------------------------------------------------------------ */

bool pp_source_is_file(const char *source) {
    size_t length = strlen(source);
    if (strcmp(source, "-") == 0 || strchr(source, '/')) return true;
    return length >= 5 && strcmp(source + length - 5, ".json") == 0;
}

const char *pp_preset_list(const pp_preset *presets, int count, char *buffer, size_t capacity) {
    pp_text_cut list = {buffer, capacity, 0};
    buffer[0] = '\0';
    for (int i = 0; i < count; i++) pp_cut_add(&list, "%s%s", i > 0 ? ", " : "", presets[i].name);
    return buffer;
}
