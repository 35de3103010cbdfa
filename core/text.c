/* Growing text, and numbers as people and files write them.
 *
 * Nothing here depends on the locale: the decimal point is a point even if the program's host has
 * called setlocale, since plans must be identical bytes everywhere (promise P1). */
#include "core/core.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- growing text -------------------------------------------------------------------------- */

/* Room for `more` bytes and the NUL; false once failed. */
static bool text_reserve(pp_text *text, size_t more) {
    if (text->failed) return false;
    if (more < text->capacity - text->length && text->bytes) return true;
    size_t wanted = text->length + more + 1;
    size_t capacity = text->capacity < 128 ? 256 : 2 * text->capacity;
    char *bytes = pp_reallocate(text->bytes, wanted > capacity ? wanted : capacity);
    if (!bytes) {
        text->failed = true;
        return false;
    }
    text->bytes = bytes;
    text->capacity = wanted > capacity ? wanted : capacity;
    return true;
}

void pp_text_append(pp_text *text, const void *bytes, size_t length) {
    if (!text_reserve(text, length)) return;
    if (length > 0) memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
}

void pp_text_string(pp_text *text, const char *string) {
    pp_text_append(text, string, strlen(string));
}

void pp_text_printf(pp_text *text, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    if (length >= 0 && text_reserve(text, (size_t)length)) {
        vsnprintf(text->bytes + text->length, (size_t)length + 1, format, again);
        text->length += (size_t)length;
    }
    va_end(again);
    va_end(arguments);
}

void pp_text_deinit(pp_text *text) {
    pp_free(text->bytes);
    *text = (pp_text){0};
}

/* ---- doubles without a locale -------------------------------------------------------------- */

static locale_t plain_locale;
static pthread_once_t plain_locale_once = PTHREAD_ONCE_INIT;

static void plain_locale_make(void) {
    plain_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

/* The C locale, made once; (locale_t)0 only if the system has none, and then nothing changes. */
static locale_t plain(void) {
    pthread_once(&plain_locale_once, plain_locale_make);
    return plain_locale;
}

static double parse_plain(const char *text, char **end) {
    locale_t locale = plain();
    return locale ? strtod_l(text, end, locale) : strtod(text, end);
}

/* %.*g in the C locale. */
static int format_plain(char *buffer, size_t capacity, int digits, double value) {
    locale_t before = plain() ? uselocale(plain()) : (locale_t)0;
    int length = snprintf(buffer, capacity, "%.*g", digits, value);
    if (before) uselocale(before);
    return length;
}

void pp_text_double(pp_text *text, double value) {
    char buffer[40];
    int digits = 15;
    do format_plain(buffer, sizeof buffer, digits, value);
    while (parse_plain(buffer, NULL) != value && !isnan(value) && ++digits <= 17);
    pp_text_string(text, buffer);
}

/* ---- parsing ------------------------------------------------------------------------------- */

bool pp_parse_int(const char *text, int64_t minimum, int64_t maximum, int64_t *value) {
    char *end;
    if (*text != '-' && *text != '+' && (*text < '0' || *text > '9')) return false;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') return false;
    if (parsed < minimum || parsed > maximum) return false;
    *value = parsed;
    return true;
}

/* strtod also takes white space, "inf", "nan" and hexadecimal: none is a number to a user. */
static bool number_start(const char *text) {
    text += *text == '-' || *text == '+';
    text += *text == '.';
    return *text >= '0' && *text <= '9' && !(text[0] == '0' && (text[1] == 'x' || text[1] == 'X'));
}

bool pp_parse_double(const char *text, double *value) {
    char *end;
    if (!number_start(text)) return false;
    double parsed = parse_plain(text, &end);
    if (*end != '\0' || !isfinite(parsed)) return false;
    *value = parsed;
    return true;
}

static const struct {
    const char *name;
    double factor;
} byte_units[] = {
    {"", 1},
    {"B", 1},
    {"KB", 1e3},
    {"MB", 1e6},
    {"GB", 1e9},
    {"TB", 1e12},
    {"KiB", 1024.0},
    {"MiB", 1048576.0},
    {"K", 1024.0},
    {"M", 1048576.0},
    {"G", 1073741824.0},
    {"GiB", 1073741824.0},
    {"T", 1099511627776.0},
    {"TiB", 1099511627776.0},
};

bool pp_parse_bytes(const char *text, int64_t *bytes) {
    char *end;
    if (!number_start(text) || *text == '-') return false;
    double value = parse_plain(text, &end);
    while (*end == ' ') end++;
    for (size_t i = 0; i < sizeof byte_units / sizeof *byte_units; i++) {
        if (strcasecmp(end, byte_units[i].name) != 0) continue;
        value = nearbyint(value * byte_units[i].factor);
        if (!(value >= 0 && value < 9.2e18)) return false;
        *bytes = (int64_t)value;
        return true;
    }
    return false;
}

/* ---- numbers for people -------------------------------------------------------------------- */

typedef struct unit {
    double size;
    const char *name;
} unit;

/* The largest unit that leaves at least 1 in front of the point. Units ascend. */
static const unit *unit_for(const unit *units, size_t count, double value) {
    size_t chosen = 0;
    /* 0.9995: what would round to 1.00 of the next unit belongs there */
    while (chosen + 1 < count && fabs(value) >= 0.9995 * units[chosen + 1].size) chosen++;
    return &units[chosen];
}

/* Three significant digits, as in "1.50", "12.3", "512". */
static const char *format_unit(const unit *u, double value, char buffer[32]) {
    double scaled = value / u->size;
    int decimals = fabs(scaled) >= 99.95 ? 0 : fabs(scaled) >= 9.995 ? 1 : 2;
    locale_t before = plain() ? uselocale(plain()) : (locale_t)0;
    if (fabs(scaled) < 1e15)
        snprintf(buffer, 32, "%.*f %s", decimals, scaled, u->name);
    else
        snprintf(buffer, 32, "%.3g %s", scaled, u->name); /* digits that mean nothing */
    if (before) uselocale(before);
    return buffer;
}

const char *pp_format_bytes(double bytes, char buffer[32]) {
    static const unit units[] = {{1, "B"},
                                 {1024.0, "KiB"},
                                 {1048576.0, "MiB"},
                                 {1073741824.0, "GiB"},
                                 {1099511627776.0, "TiB"}};
    const unit *u = unit_for(units, sizeof units / sizeof *units, bytes);
    if (u == units) {
        snprintf(buffer, 32, "%.0f B", bytes);
        return buffer;
    }
    return format_unit(u, bytes, buffer);
}

const char *pp_format_seconds(double seconds, char buffer[32]) {
    static const unit units[] = {{1e-9, "ns"}, {1e-6, "us"}, {1e-3, "ms"}, {1, "s"}};
    if (seconds == 0) return memcpy(buffer, "0 s", 4);
    return format_unit(unit_for(units, sizeof units / sizeof *units, seconds), seconds, buffer);
}
