/* Tables of fields: one table reads an object into a struct and writes it out again, so that
 * read(write(x)) == x holds row by row. Every message says what stood there and what was expected,
 * with its range. */
#include "core/json_reader.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- reading fields ------------------------------------------------------------------------- */

/* "an integer from 1 to 65535", "a number above 0" */
static const char *expectation(const pp_field *field, char *buffer, size_t capacity) {
    static const char *const kinds[] = {
        [PP_FIELD_INT] = "an integer",
        [PP_FIELD_INT64] = "an integer",
        [PP_FIELD_DOUBLE] = "a number",
        [PP_FIELD_BOOL] = "true or false",
        [PP_FIELD_STRING] = "a string",
        [PP_FIELD_TEXT] = "a string",
        [PP_FIELD_HASH] = "a string of 16 hexadecimal digits",
        [PP_FIELD_NAME] = "one of ",
        [PP_FIELD_POLICY] = "one of ",
        [PP_FIELD_ARRAY] = "an array",
        [PP_FIELD_OBJECT] = "an object",
        [PP_FIELD_OTHER] = "a value",
    };
    pp_text_cut text = {buffer, capacity, 0};
    pp_cut_add(&text, "%s", kinds[field->type]);
    if (field->type == PP_FIELD_NAME) {
        pp_name_list(field->name, field->name_count, buffer + text.length, capacity - text.length);
    } else if (field->type == PP_FIELD_POLICY) {
        pp_cut_add(&text, "%s%s", pp_recompute_names,
                   field->flags & PP_FIELD_MIXED ? ", mixed" : "");
    } else if (field->type <= PP_FIELD_DOUBLE) {
        pp_cut_add(&text, field->flags & PP_FIELD_ABOVE ? " above %.16g" : " from %.16g",
                   field->minimum);
        if (isfinite(field->maximum))
            pp_cut_add(&text, field->flags & PP_FIELD_BELOW ? " to below %.16g" : " to %.16g",
                       field->maximum);
        else
            pp_cut_add(&text, " on");
        if (field->flags & PP_FIELD_NULLABLE) pp_cut_add(&text, ", or null");
    }
    return buffer;
}

static pp_status fail_expected(const pp_json_node *node, const pp_field *field, pp_error *error) {
    char wanted[400], got[96];
    return pp_node_fail(node, error, "expected %s, got %s",
                        expectation(field, wanted, sizeof wanted),
                        pp_value_describe(node->value, got, sizeof got));
}

static bool in_range(const pp_field *field, double value) {
    if (!(value >= field->minimum && value <= field->maximum)) return false;
    if ((field->flags & PP_FIELD_ABOVE) && value == field->minimum) return false;
    return !((field->flags & PP_FIELD_BELOW) && value == field->maximum);
}

/* Stores a number that may be a fallback or the meaning of null. */
static void store_number(const pp_field *field, double value, void *at) {
    if (field->type == PP_FIELD_INT)
        *(int *)at = (int)value;
    else if (field->type == PP_FIELD_INT64)
        *(int64_t *)at = (int64_t)value;
    else
        *(double *)at = value;
}

static bool read_integer(const pp_json_node *node, const pp_field *field, void *at) {
    int64_t value;
    if (!pp_value_integer(node->value, &value) || !in_range(field, (double)value)) return false;
    if (field->type == PP_FIELD_INT)
        *(int *)at = (int)value;
    else
        *(int64_t *)at = value;
    return true;
}

static bool read_double(const pp_json_node *node, const pp_field *field, void *at) {
    if (!json_is_number(node->value)) return false;
    double value = json_number_value(node->value) + 0.0; /* -0 becomes 0 */
    if (!isfinite(value) || !in_range(field, value)) return false;
    *(double *)at = value;
    return true;
}

static bool read_hash(const pp_json_node *node, void *at) {
    const char *text = json_string_value(node->value);
    uint64_t hash = 0;
    if (!text || strlen(text) != 16) return false;
    for (; *text; text++) {
        static const char digits[] = "0123456789abcdef";
        const char *digit = strchr(digits, *text);
        if (!digit) return false;
        hash = hash * 16 + (uint64_t)(digit - digits);
    }
    *(uint64_t *)at = hash;
    return true;
}

static bool read_name(const pp_json_node *node, const pp_field *field, void *at) {
    const char *text = json_string_value(node->value);
    for (int i = 0; text && i < field->name_count; i++)
        if (strcmp(text, field->name(i)) == 0) {
            memcpy(at, &i, sizeof i);
            return true;
        }
    return false;
}

static bool read_policy(const pp_json_node *node, const pp_field *field, pp_recompute *at) {
    const char *text = json_string_value(node->value);
    if (!text) return false;
    if ((field->flags & PP_FIELD_MIXED) && strcmp(text, "mixed") == 0) {
        *at = PP_RECOMPUTE_MIXED;
        return true;
    }
    return pp_recompute_from_name(text, at);
}

static pp_status read_string(const pp_json_node *node, const pp_field *field, void *at,
                             pp_arena *arena, pp_error *error) {
    if (!json_is_string(node->value)) return fail_expected(node, field, error);
    const char *text = json_string_value(node->value);
    size_t length = json_string_length(node->value);
    size_t limit = field->type == PP_FIELD_TEXT ? field->size - 1 : PP_STRING_LIMIT;
    if (length > limit)
        return pp_node_fail(node, error, "the string has %zu bytes; at most %zu are allowed",
                            length, limit);
    if (length == 0 && field->type == PP_FIELD_STRING)
        return pp_node_fail(node, error, "expected a name, got an empty string");
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return pp_node_fail(node, error, "the string holds a control character (byte %zu)", i);
    if (field->type == PP_FIELD_TEXT) {
        memcpy(at, text, length + 1);
        return PP_OK;
    }
    char *copy = pp_arena_copy(arena, text, length);
    if (!copy) return pp_fail_memory(error);
    *(const char **)at = copy;
    return PP_OK;
}

static pp_status read_field(const pp_json_node *node, const pp_field *field, void *at,
                            pp_arena *arena, pp_error *error) {
    bool good = false;
    if (json_is_null(node->value) && (field->flags & PP_FIELD_NULLABLE)) {
        store_number(field, field->null_value, at);
        return PP_OK;
    }
    switch (field->type) {
    case PP_FIELD_INT:
    case PP_FIELD_INT64:
        good = read_integer(node, field, at);
        break;
    case PP_FIELD_DOUBLE:
        good = read_double(node, field, at);
        break;
    case PP_FIELD_BOOL:
        good = json_is_boolean(node->value);
        if (good) *(bool *)at = json_is_true(node->value);
        break;
    case PP_FIELD_STRING:
    case PP_FIELD_TEXT:
        return read_string(node, field, at, arena, error);
    case PP_FIELD_HASH:
        good = read_hash(node, at);
        break;
    case PP_FIELD_NAME:
        good = read_name(node, field, at);
        break;
    case PP_FIELD_POLICY:
        good = read_policy(node, field, at);
        break;
    case PP_FIELD_ARRAY:
        good = json_is_array(node->value);
        break;
    case PP_FIELD_OBJECT:
        good = json_is_object(node->value);
        break;
    case PP_FIELD_OTHER:
        good = true;
        break;
    }
    return good ? PP_OK : fail_expected(node, field, error);
}

static pp_status read_absent(const pp_json_node *object, const pp_field *field, void *at,
                             pp_error *error) {
    char wanted[400];
    if (!(field->flags & PP_FIELD_OPTIONAL))
        return pp_node_fail(object, error, "\"%s\" is missing; expected %s", field->key,
                            expectation(field, wanted, sizeof wanted));
    if (field->type <= PP_FIELD_DOUBLE) store_number(field, field->fallback, at);
    return PP_OK; /* anything else stays as the zeroed struct has it */
}

static pp_status refuse_unknown(const pp_json_node *object, const pp_field *fields, int count,
                                pp_error *error) {
    const char *key;
    json_t *value;
    json_object_foreach(object->value, key, value) {
        int i = 0;
        while (i < count && strcmp(fields[i].key, key) != 0) i++;
        if (i < count) continue;
        char known[900];
        pp_text_cut list = {known, sizeof known, 0};
        for (i = 0; i < count; i++) pp_cut_add(&list, "%s%s", i > 0 ? ", " : "", fields[i].key);
        return pp_node_fail(object, error, "unknown key \"%.60s\"; known here: %s", key, known);
    }
    return PP_OK;
}

static pp_status check_object(const pp_json_node *object, pp_error *error) {
    char got[96];
    if (json_is_object(object->value)) return PP_OK;
    return pp_node_fail(object, error, "expected an object, got %s",
                        object->value ? pp_value_describe(object->value, got, sizeof got)
                                      : "nothing");
}

pp_status pp_fields_read(const pp_json_node *object, const pp_field *fields, int count,
                         void *target, pp_arena *arena, pp_error *error) {
    PP_TRY(check_object(object, error));
    PP_TRY(refuse_unknown(object, fields, count, error));
    return pp_fields_pick(object, fields, count, target, arena, error);
}

pp_status pp_fields_pick(const pp_json_node *object, const pp_field *fields, int count,
                         void *target, pp_arena *arena, pp_error *error) {
    PP_TRY(check_object(object, error));
    for (int i = 0; i < count; i++) {
        void *at = (char *)target + fields[i].offset;
        pp_json_node node = pp_node_member(object, fields[i].key);
        PP_TRY(node.value ? read_field(&node, &fields[i], at, arena, error)
                          : read_absent(object, &fields[i], at, error));
    }
    return PP_OK;
}

/* ---- writing fields ------------------------------------------------------------------------- */

static double number_at(const pp_field *field, const void *at) {
    if (field->type == PP_FIELD_INT) return *(const int *)at;
    if (field->type == PP_FIELD_INT64) return (double)*(const int64_t *)at;
    return *(const double *)at;
}

/* Absent means the same, so it need not be said. */
static int name_value(const void *at) {
    int value;
    memcpy(&value, at, sizeof value);
    return value;
}

static bool is_default(const pp_field *field, const void *at) {
    if (!(field->flags & PP_FIELD_OPTIONAL)) return false;
    switch (field->type) {
    case PP_FIELD_INT:
    case PP_FIELD_INT64:
    case PP_FIELD_DOUBLE:
        return number_at(field, at) == field->fallback;
    case PP_FIELD_BOOL:
        return !*(const bool *)at;
    case PP_FIELD_STRING:
        return !*(const char *const *)at;
    case PP_FIELD_TEXT:
        return *(const char *)at == '\0';
    case PP_FIELD_NAME:
        return name_value(at) == (int)field->fallback;
    default:
        return false;
    }
}

static void write_hash(pp_json *json, uint64_t hash) {
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    pp_json_string(json, text);
}

static void write_value(pp_json *json, const pp_field *field, const void *at) {
    bool number = field->type <= PP_FIELD_DOUBLE;
    if (number && (field->flags & PP_FIELD_NULLABLE) && number_at(field, at) == field->null_value) {
        pp_json_null(json);
        return;
    }
    switch (field->type) {
    case PP_FIELD_INT:
        pp_json_int(json, *(const int *)at);
        break;
    case PP_FIELD_INT64:
        pp_json_int(json, *(const int64_t *)at);
        break;
    case PP_FIELD_DOUBLE:
        pp_json_double(json, *(const double *)at + 0.0); /* never "-0" */
        break;
    case PP_FIELD_BOOL:
        pp_json_bool(json, *(const bool *)at);
        break;
    case PP_FIELD_STRING:
        pp_json_string(json, *(const char *const *)at);
        break;
    case PP_FIELD_TEXT:
        pp_json_string(json, at);
        break;
    case PP_FIELD_HASH:
        write_hash(json, *(const uint64_t *)at);
        break;
    case PP_FIELD_NAME:
        pp_json_string(json, field->name(name_value(at)));
        break;
    case PP_FIELD_POLICY: {
        char text[PP_RECOMPUTE_LENGTH];
        pp_json_string(json, pp_recompute_text(*(const pp_recompute *)at, text));
        break;
    }
    default:
        assert(false && "not a scalar");
    }
}

void pp_fields_write(pp_json *json, const pp_field *fields, int count, const void *source) {
    for (int i = 0; i < count; i++) {
        const void *at = (const char *)source + fields[i].offset;
        bool scalar = fields[i].type < PP_FIELD_ARRAY;
        if (!scalar || is_default(&fields[i], at)) continue;
        pp_json_key(json, fields[i].key);
        write_value(json, &fields[i], at);
    }
}
