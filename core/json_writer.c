/* JSON output, streamed into a text.
 *
 * Jansson reads our documents; for writing it prints 0.1 as 0.10000000000000001 and knows one
 * layout only. People read these files, so numbers are shortest-exact and small records stay on one
 * line. */
#include "core/core.h"

#include <assert.h>
#include <math.h>
#include <string.h>

pp_json pp_json_start(pp_text *text) {
    return (pp_json){.text = text};
}

static void new_line(pp_json *json) {
    pp_text_string(json->text, "\n");
    for (int i = 0; i < json->depth; i++) pp_text_string(json->text, "  ");
}

/* What stands between the previous item and the next: comma, and line break or blank. */
static void separate(pp_json *json) {
    if (json->after_key) {
        json->after_key = false;
        return;
    }
    if (json->need_comma) pp_text_string(json->text, ",");
    if (json->flat_depth == 0 && json->depth > 0)
        new_line(json);
    else if (json->need_comma)
        pp_text_string(json->text, " ");
}

static void open_container(pp_json *json, const char *bracket, bool flat) {
    separate(json);
    pp_text_string(json->text, bracket);
    json->depth++;
    if (flat && json->flat_depth == 0) json->flat_depth = json->depth;
    json->need_comma = false;
}

static void close_container(pp_json *json, const char *bracket) {
    assert(json->depth > 0 && !json->after_key);
    bool flat = json->flat_depth != 0;
    if (json->flat_depth == json->depth) json->flat_depth = 0;
    json->depth--;
    if (!flat && json->need_comma) new_line(json);
    pp_text_string(json->text, bracket);
    json->need_comma = true;
}

void pp_json_object(pp_json *json) {
    open_container(json, "{", false);
}

void pp_json_object_flat(pp_json *json) {
    open_container(json, "{", true);
}

void pp_json_end_object(pp_json *json) {
    close_container(json, "}");
}

void pp_json_array(pp_json *json) {
    open_container(json, "[", false);
}

void pp_json_array_flat(pp_json *json) {
    open_container(json, "[", true);
}

void pp_json_end_array(pp_json *json) {
    close_container(json, "]");
}

/* The start of the next byte that must be escaped, or the end. */
static const char *plain_run(const char *text) {
    while ((unsigned char)*text >= 0x20 && *text != '"' && *text != '\\') text++;
    return text;
}

static void write_string(pp_text *text, const char *value) {
    pp_text_string(text, "\"");
    for (;;) {
        const char *end = plain_run(value);
        pp_text_append(text, value, (size_t)(end - value));
        if (*end == '\0') break;
        if (*end == '"' || *end == '\\')
            pp_text_printf(text, "\\%c", *end);
        else
            pp_text_printf(text, "\\u%04x", (unsigned char)*end);
        value = end + 1;
    }
    pp_text_string(text, "\"");
}

void pp_json_key(pp_json *json, const char *key) {
    assert(!json->after_key);
    separate(json);
    write_string(json->text, key);
    pp_text_string(json->text, ": ");
    json->need_comma = true;
    json->after_key = true;
}

static void scalar(pp_json *json, const char *literal) {
    separate(json);
    pp_text_string(json->text, literal);
    json->need_comma = true;
}

void pp_json_string(pp_json *json, const char *value) {
    if (!value) {
        pp_json_null(json);
        return;
    }
    separate(json);
    write_string(json->text, value);
    json->need_comma = true;
}

void pp_json_int(pp_json *json, int64_t value) {
    separate(json);
    pp_text_printf(json->text, "%lld", (long long)value);
    json->need_comma = true;
}

void pp_json_double(pp_json *json, double value) {
    if (!isfinite(value)) {
        pp_json_null(json);
        return;
    }
    separate(json);
    pp_text_double(json->text, value);
    json->need_comma = true;
}

void pp_json_bool(pp_json *json, bool value) {
    scalar(json, value ? "true" : "false");
}

void pp_json_null(pp_json *json) {
    scalar(json, "null");
}
