/* From text to Jansson's values: whole documents, or value by value.
 *
 * Jansson must never see an allocation fail: when the buffer of a token cannot grow it drops bytes
 * and later runs past the end of what is left. So where there is no more memory, or where the
 * budget of the parse is spent (it bounds what a hostile text can take: a value costs up to a
 * hundred times its text), we leave Jansson by longjmp and give back its blocks ourselves. To know
 * them, they hang in a ring; a block leaves the ring when it is freed, during the parse or long
 * after. */
#include "core/json_reader.h"

#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

typedef struct ring {
    struct ring *before, *after;
} ring;

static_assert(sizeof(ring) % 16 == 0, "blocks must stay 16-byte aligned");

/* Per thread, since Jansson's allocator takes no context. Only meaningful inside parse(). */
static _Thread_local struct {
    ring blocks;
    size_t left_bytes;
    bool exhausted; /* the budget; otherwise the platform had no memory */
    jmp_buf give_up;
} parsing;

static void ring_remove(ring *block) {
    block->before->after = block->after;
    block->after->before = block->before;
}

static void *jansson_allocate(size_t size_bytes) {
    ring *block = NULL;
    parsing.exhausted = size_bytes > parsing.left_bytes;
    if (!parsing.exhausted) block = pp_allocate(sizeof *block + size_bytes);
    if (!block) longjmp(parsing.give_up, 1);
    parsing.left_bytes -= size_bytes;
    *block = (ring){&parsing.blocks, parsing.blocks.after};
    block->after->before = block;
    parsing.blocks.after = block;
    return block + 1;
}

static void jansson_release(void *memory) {
    if (!memory) return;
    ring *block = (ring *)memory - 1;
    ring_remove(block);
    pp_free(block);
}

static void jansson_install(void) {
    json_set_alloc_funcs(jansson_allocate, jansson_release);
}

static void release_all(void) {
    while (parsing.blocks.after != &parsing.blocks) jansson_release(parsing.blocks.after + 1);
}

/* The value at the start of the text; found->position: bytes it took. NULL: *found says why, or
 * where its text is empty, `parsing`. */
static json_t *parse(const char *text, size_t length, size_t memory_bytes, size_t flags,
                     json_error_t *found) {
    static pthread_once_t installed = PTHREAD_ONCE_INIT;
    pthread_once(&installed, jansson_install);
    parsing.blocks = (ring){&parsing.blocks, &parsing.blocks};
    parsing.left_bytes = memory_bytes;
    parsing.exhausted = false;
    if (setjmp(parsing.give_up) != 0) {
        release_all();
        found->text[0] = '\0';
        return NULL;
    }
    json_t *value = json_loadb(text, length, flags | JSON_REJECT_DUPLICATES, found);
    ring_remove(&parsing.blocks); /* what is left is the value, its owner's from now on */
    return value;
}

/* Line and column, from 1, of a byte. */
static void locate(const char *text, size_t at, int *line, int *column) {
    const char *start = text;
    *line = 1;
    for (const char *c = text; c < text + at; c++)
        if (*c == '\n') {
            ++*line;
            start = c + 1;
        }
    *column = (int)(text + at - start) + 1;
}

static pp_status fail_at(const pp_json_stream *stream, int line, int column, const char *what,
                         pp_error *error) {
    char place[320];
    char safe[JSON_ERROR_TEXT_LENGTH];
    snprintf(place, sizeof place, "%s:%d:%d", stream->file_name, line, column);
    snprintf(safe, sizeof safe, "%s", what);
    pp_make_printable(safe);
    return pp_fail(error, PP_E_INPUT, place, "not valid JSON here: %s", safe);
}

static pp_status fail_budget(const pp_json_stream *stream, pp_error *error) {
    return pp_fail(error, PP_E_INPUT, stream->file_name,
                   "holds more values than are read here: is it the right file?");
}

/* Jansson's complaint about a value that began at stream->at, placed in the whole text. */
static pp_status fail_parse(const pp_json_stream *stream, const json_error_t *found,
                            pp_error *error) {
    int line, column;
    locate(stream->text, stream->at, &line, &column);
    if (found->text[0] == '\0' && !parsing.exhausted) return pp_fail_memory(error);
    if (found->text[0] == '\0' && stream->at == 0) return fail_budget(stream, error);
    if (found->text[0] == '\0') return fail_at(stream, line, column, "too many values", error);
    int found_column = found->column > 0 ? found->column : 1;
    column = found->line <= 1 ? column + found_column - 1 : found_column;
    line += found->line > 1 ? found->line - 1 : 0;
    bool nul = json_error_code(found) == json_error_null_character;
    return fail_at(stream, line, column, nul ? "a string holds \\u0000" : found->text, error);
}

pp_status pp_json_load(const char *text, size_t length, const char *file_name, json_t **root,
                       pp_error *error) {
    pp_json_stream stream = {text ? text : "", length, 0, file_name};
    json_error_t found;
    *root = NULL;
    if (length > PP_DOCUMENT_LIMIT_BYTES)
        return pp_fail(error, PP_E_INPUT, file_name,
                       "the document has %zu bytes; at most %zu are read", length,
                       PP_DOCUMENT_LIMIT_BYTES);
    *root = parse(stream.text, length, PP_DOCUMENT_MEMORY_BYTES, 0, &found);
    return *root ? PP_OK : fail_parse(&stream, &found, error);
}

/* ---- streams -------------------------------------------------------------------------------- */

static bool is_space(char byte) {
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static void skip_space(pp_json_stream *stream) {
    while (stream->at < stream->length && is_space(stream->text[stream->at])) stream->at++;
}

bool pp_stream_accept(pp_json_stream *stream, char byte) {
    skip_space(stream);
    if (stream->at == stream->length || stream->text[stream->at] != byte) return false;
    stream->at++;
    return true;
}

pp_status pp_stream_expect(pp_json_stream *stream, char byte, pp_error *error) {
    char what[64];
    int line, column;
    if (pp_stream_accept(stream, byte)) return PP_OK;
    locate(stream->text, stream->at, &line, &column);
    bool ended = stream->at == stream->length;
    snprintf(what, sizeof what, "expected '%c'%s", byte, ended ? " before the end" : "");
    return fail_at(stream, line, column, what, error);
}

pp_status pp_stream_value(pp_json_stream *stream, size_t memory_bytes, json_t **value,
                          pp_error *error) {
    json_error_t found;
    *value = parse(stream->text + stream->at, stream->length - stream->at, memory_bytes,
                   JSON_DISABLE_EOF_CHECK | JSON_DECODE_ANY, &found);
    if (!*value) return fail_parse(stream, &found, error);
    stream->at += (size_t)found.position;
    return PP_OK;
}

pp_status pp_stream_key(pp_json_stream *stream, char *buffer, size_t capacity, pp_error *error) {
    json_t *value;
    int line, column;
    skip_space(stream);
    locate(stream->text, stream->at, &line, &column);
    PP_TRY(pp_stream_value(stream, 1 << 16, &value, error));
    bool fits = json_is_string(value) && json_string_length(value) < capacity;
    if (fits) memcpy(buffer, json_string_value(value), json_string_length(value) + 1);
    json_decref(value);
    return fits ? PP_OK : fail_at(stream, line, column, "expected a key of this document", error);
}

pp_status pp_stream_end(pp_json_stream *stream, pp_error *error) {
    int line, column;
    skip_space(stream);
    if (stream->at == stream->length) return PP_OK;
    locate(stream->text, stream->at, &line, &column);
    return fail_at(stream, line, column, "nothing may follow the document", error);
}
