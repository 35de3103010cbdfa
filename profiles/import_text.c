/* Text files of other programs, piece by piece, each piece with its place: whatever is wrong with
 * it is told as file:line:column. */
#include "profiles/import_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NUMBER_MAX 70368744177664.0 /* 2^46, the largest size that a model may have */

/* ---- messages ------------------------------------------------------------------------------- */

pp_status pp_import_fail(const pp_import_source *source, pp_piece where, const char *format, ...) {
    char place[300], message[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (where.list)
        snprintf(place, sizeof place, "%.240s /%s/%zu", source->file_name, where.list,
                 where.element);
    else
        snprintf(place, sizeof place, "%.240s:%zu:%zu", source->file_name, where.line,
                 where.column);
    return pp_fail(source->error, PP_E_INPUT, place, "%s", message);
}

const char *pp_piece_show(pp_piece piece, char buffer[PP_PIECE_SHOWN]) {
    enum { SHOWN = 60 };
    size_t length = (size_t)(piece.end - piece.start), shown = length < SHOWN ? length : SHOWN;
    while (shown < length && shown > 0 && ((unsigned char)piece.start[shown] & 0xC0) == 0x80)
        shown--; /* not in the middle of a character */
    for (size_t i = 0; i < shown; i++) buffer[i] = piece.start[i] == '\t' ? ' ' : piece.start[i];
    strcpy(buffer + shown, shown < length ? "..." : "");
    return buffer;
}

/* ---- encoding ------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at `at`; 0: there is none (RFC 3629, section 4). */
static size_t utf8_length(const unsigned char *at, size_t left) {
    static const struct {
        unsigned char first_low, first_high, second_low, second_high;
        size_t length;
    } forms[] = {
        {0x00, 0x7F, 0, 0, 1},       {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
        {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
        {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (*at < forms[i].first_low || *at > forms[i].first_high) continue;
        if (forms[i].length > left) return 0;
        if (forms[i].length > 1 && (at[1] < forms[i].second_low || at[1] > forms[i].second_high))
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if (at[k] < 0x80 || at[k] > 0xBF) return 0;
        return forms[i].length;
    }
    return 0;
}

static bool is_control(unsigned char byte) {
    return (byte < ' ' && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7F;
}

pp_status pp_import_check_text(const pp_import_source *source) {
    const unsigned char *text = (const unsigned char *)source->text;
    pp_piece where = {.line = 1, .column = 1};
    if (source->length >= 2 &&
        ((text[0] == 0xFF && text[1] == 0xFE) || (text[0] == 0xFE && text[1] == 0xFF)))
        return pp_import_fail(source, where, "this is UTF-16; expected UTF-8 text");
    for (size_t i = 0, length; i < source->length; i += length) {
        length = utf8_length(text + i, source->length - i);
        if (length == 0 || is_control(text[i]))
            return pp_import_fail(source, where, "byte 0x%02x; expected UTF-8 text", text[i]);
        where.column += length;
        if (text[i] == '\n') where = (pp_piece){.line = where.line + 1, .column = 1};
    }
    return PP_OK;
}

/* ---- lines ---------------------------------------------------------------------------------- */

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

bool pp_piece_empty(pp_piece piece) {
    return piece.start == piece.end;
}

pp_piece pp_piece_trim(pp_piece piece) {
    for (; piece.start < piece.end && is_blank(*piece.start); piece.start++) piece.column++;
    while (piece.end > piece.start && is_blank(piece.end[-1])) piece.end--;
    return piece;
}

pp_piece pp_import_start(const pp_import_source *source) {
    return (pp_piece){.start = source->text, .end = source->text, .column = 1};
}

bool pp_import_next_line(const pp_import_source *source, pp_piece *line) {
    const char *end = source->text + source->length;
    pp_piece next = *line;
    do {
        next.start = next.line == 0 ? source->text : next.end + (next.end < end);
        if (next.start >= end) return false;
        next.end = memchr(next.start, '\n', (size_t)(end - next.start));
        if (!next.end) next.end = end;
        next.line++;
        *line = next;
    } while (pp_piece_empty(pp_piece_trim(next)));
    return true;
}

/* ---- pieces --------------------------------------------------------------------------------- */

bool pp_piece_cut(pp_piece *rest, const char *separator, pp_piece *front) {
    size_t length = (size_t)(rest->end - rest->start);
    const char *found =
        length > 0 ? memmem(rest->start, length, separator, strlen(separator)) : NULL;
    *front = *rest;
    front->end = found ? found : rest->end;
    const char *start = found ? found + strlen(separator) : rest->end;
    rest->column += (size_t)(start - rest->start);
    rest->start = start;
    return found != NULL;
}

bool pp_piece_starts(pp_piece piece, const char *text) {
    size_t length = strlen(text);
    return (size_t)(piece.end - piece.start) >= length && memcmp(piece.start, text, length) == 0;
}

bool pp_piece_is(pp_piece piece, const char *text) {
    return (size_t)(piece.end - piece.start) == strlen(text) && pp_piece_starts(piece, text);
}

int pp_piece_compare(pp_piece a, pp_piece b) {
    size_t left = (size_t)(a.end - a.start), right = (size_t)(b.end - b.start);
    size_t common = left < right ? left : right; /* an empty piece may be NULL */
    int order = common > 0 ? memcmp(a.start, b.start, common) : 0;
    return order != 0 ? order : (left > right) - (left < right);
}

pp_status pp_import_number(const pp_import_source *source, pp_piece piece, const char *what,
                           double *number) {
    char digits[64], shown[PP_PIECE_SHOWN];
    size_t length = (size_t)(piece.end - piece.start);
    bool parsed = length > 0 && length < sizeof digits;
    if (parsed) {
        memcpy(digits, piece.start, length);
        digits[length] = '\0';
        parsed = pp_parse_double(digits, number);
    }
    if (!parsed || *number < 0)
        return pp_import_fail(source, piece, "%s must be a number, 0 or more, not '%s'", what,
                              pp_piece_show(piece, shown));
    if (*number > NUMBER_MAX)
        return pp_import_fail(source, piece, "%s is more than 2^46: '%s'", what,
                              pp_piece_show(piece, shown));
    return PP_OK;
}
