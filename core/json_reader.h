/* Reading JSON documents: Jansson parses, this adds places, limits and tables of fields.
 *
 * A node is a value together with the way that leads to it, as a chain of nodes on the stack: the
 * JSON path of an error costs nothing until there is an error. An object's scalars are read into a
 * struct, and written out again, from one table of fields, so that reader, writer and the messages
 * about missing and unknown keys cannot disagree.
 *
 * Large documents that are lists of small values (traces) are streamed: value by value.
 *
 * Beside core, the importers of profiles read JSON through it: a header of its own, so that the rest
 * of the house does not meet Jansson. */
#ifndef PPSIM_JSON_READER_H
#define PPSIM_JSON_READER_H

#include "core/core.h"

#include <jansson.h>
#include <stdarg.h>

#define PP_STRING_LIMIT 200                         /* bytes of any name in a document */
#define PP_DOCUMENT_LIMIT_BYTES ((size_t)256 << 20) /* text of a document */
#define PP_DOCUMENT_MEMORY_BYTES ((size_t)1 << 29)  /* its values, once parsed */
#define PP_BYTES_MAX 1125899906842624.0             /* 2^50: the largest size in a document */
#define PP_ARRAY_LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

/* ---- documents and nodes -------------------------------------------------------------------- */

typedef struct pp_json_node {
    json_t *value; /* NULL: the object has no such member */
    const char *file_name;
    const struct pp_json_node *parent; /* NULL: the whole document */
    const char *key;                   /* in the parent; NULL: element `index` of it */
    size_t index;
} pp_json_node;

/* Parses a whole text; the result is the caller's (json_decref). Errors: file:line:column. */
pp_status pp_json_load(const char *text, size_t length, const char *file_name, json_t **root,
                       pp_error *error);

pp_json_node pp_node_root(json_t *value, const char *file_name);
pp_json_node pp_node_member(const pp_json_node *object, const char *key);
pp_json_node pp_node_element(const pp_json_node *array, size_t index);
size_t pp_node_length(const pp_json_node *array); /* 0 for a missing or empty one */

/* PP_E_INPUT at the node: place "file /path". */
pp_status pp_node_fail(const pp_json_node *node, pp_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
pp_status pp_node_fail_list(const pp_json_node *node, pp_error *error, const char *format,
                            va_list arguments);

/* What stands there, for the end of a message: "an array", "3.5"; perhaps in the buffer. */
const char *pp_value_describe(const json_t *value, char *buffer, size_t capacity);
/* Integers, and reals that are integers: 1e9 is how people write sizes. */
bool pp_value_integer(const json_t *value, int64_t *integer);
/* Replaces control characters, which a hostile document must not get onto a terminal. */
void pp_make_printable(char *text);

/* The value must be an array with minimum … maximum elements. */
pp_status pp_node_array(const pp_json_node *node, size_t minimum, size_t maximum, pp_error *error);
/* An array of exactly `count` integers, each minimum … maximum. */
pp_status pp_node_ints(const pp_json_node *node, int count, int64_t minimum, int64_t maximum,
                       int *out, pp_error *error);
/* "format" must be `format`, and "version" 1. */
pp_status pp_node_format(const pp_json_node *document, const char *format, pp_error *error);

/* ---- tables of fields ----------------------------------------------------------------------- */

typedef enum pp_field_type {
    PP_FIELD_INT,    /* int */
    PP_FIELD_INT64,  /* int64_t; integral reals such as 1e9 are taken too */
    PP_FIELD_DOUBLE, /* double, finite */
    PP_FIELD_BOOL,   /* bool */
    PP_FIELD_STRING, /* const char *, not empty, copied to the arena */
    PP_FIELD_TEXT,   /* char[size], may be empty */
    PP_FIELD_HASH,   /* uint64_t as 16 hexadecimal digits */
    PP_FIELD_NAME,   /* an enumeration (int) by its names */
    PP_FIELD_POLICY, /* pp_recompute */
    PP_FIELD_ARRAY,  /* read and written by the caller; its presence and kind are checked here */
    PP_FIELD_OBJECT, /* likewise */
    PP_FIELD_OTHER   /* likewise, and of any kind */
} pp_field_type;

#define PP_FIELD_OPTIONAL 1u /* absent: `fallback`, and not written when equal to it */
#define PP_FIELD_NULLABLE 2u /* null stands for null_value */
#define PP_FIELD_ABOVE 4u    /* minimum itself is refused */
#define PP_FIELD_BELOW 8u    /* maximum itself is refused */
#define PP_FIELD_MIXED 16u   /* POLICY: "mixed" is one too */

/* A row: designated initialisers, so that a table shows only what matters. Bounds of integers are
 * doubles too: all of ours are below 2^53 or powers of two, and so exact. */
typedef struct pp_field {
    const char *key;
    pp_field_type type;
    unsigned flags;
    size_t offset;            /* in the struct */
    size_t size;              /* TEXT: room, with the NUL */
    double minimum, maximum;  /* numbers: inclusive unless ABOVE, BELOW */
    double fallback;          /* numbers, when absent */
    double null_value;        /* numbers */
    const char *(*name)(int); /* NAME */
    int name_count;
} pp_field;

/* The two keys that pp_node_format has checked. */
#define PP_FORMAT_ROWS                                                                             \
    {.key = "format", .type = PP_FIELD_OTHER}, {                                                   \
        .key = "version", .type = PP_FIELD_OTHER                                                   \
    }
#define PP_AT(structure, member) .offset = offsetof(structure, member)

/* Reads every field of an object into *target; strings go to the arena. Refuses keys that no row
 * names. O(keys · rows). */
pp_status pp_fields_read(const pp_json_node *object, const pp_field *fields, int count,
                         void *target, pp_arena *arena, pp_error *error);
/* The same from an object that is not ours: keys that no row names are ignored. */
pp_status pp_fields_pick(const pp_json_node *object, const pp_field *fields, int count,
                         void *target, pp_arena *arena, pp_error *error);
/* Writes keys and values into the open object; skips ARRAY, OBJECT and OTHER rows. */
void pp_fields_write(pp_json *json, const pp_field *fields, int count, const void *source);

/* Text that grows inside a fixed buffer and is cut where that ends. Start with length 0 and an
 * empty string. */
typedef struct pp_text_cut {
    char *bytes;
    size_t capacity;
    size_t length;
} pp_text_cut;
void pp_cut_add(pp_text_cut *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "a, b, c" of count names, cut to the buffer, which is returned. */
const char *pp_name_list(const char *(*name)(int), int count, char *buffer, size_t capacity);

/* ---- sources of documents ------------------------------------------------------------------- */

/* A document's source is a file ("./x", "x.json", "-") rather than a preset. */
bool pp_source_is_file(const char *source);
/* "a, b, c" of the presets' names. */
const char *pp_preset_list(const pp_preset *presets, int count, char *buffer, size_t capacity);

/* ---- streams -------------------------------------------------------------------------------- */

typedef struct pp_json_stream {
    const char *text;
    size_t length;
    size_t at;
    const char *file_name;
} pp_json_stream;

/* Steps over white space; takes the byte if it comes next. */
bool pp_stream_accept(pp_json_stream *stream, char byte);
/* As accept, but its absence is an error. */
pp_status pp_stream_expect(pp_json_stream *stream, char byte, pp_error *error);
/* The next value, whole, using at most memory_bytes; json_decref it. */
pp_status pp_stream_value(pp_json_stream *stream, size_t memory_bytes, json_t **value,
                          pp_error *error);
/* A string value into buffer. */
pp_status pp_stream_key(pp_json_stream *stream, char *buffer, size_t capacity, pp_error *error);
/* Only white space may be left. */
pp_status pp_stream_end(pp_json_stream *stream, pp_error *error);

#endif
