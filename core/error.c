/* Errors: a status for the program to act on, and one message for the person at the keyboard.
 *
 * A pp_error belongs to the caller, so failing needs no memory. Texts that do not fit are cut with
 * a visible mark rather than dropped. */
#include "core/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int exit_status;
    const char *text;
} status_table[] = {
#define X(name, exit_status, text) [name] = {exit_status, text},
    PP_STATUS_LIST(X)
#undef X
};

int pp_status_exit(pp_status code) {
    return status_table[code].exit_status;
}

const char *pp_status_text(pp_status code) {
    return status_table[code].text;
}

/* Marks a text that vsnprintf had to cut. */
static void mark_cut(char *text, size_t capacity, int wanted) {
    static const char mark[] = "...";
    if (wanted < 0 || (size_t)wanted < capacity) return;
    memcpy(text + capacity - sizeof mark, mark, sizeof mark);
}

static void copy_cut(char *to, size_t capacity, const char *from) {
    mark_cut(to, capacity, snprintf(to, capacity, "%s", from));
}

pp_status pp_fail(pp_error *error, pp_status code, const char *place, const char *format, ...) {
    if (!error) return code;
    error->code = code;
    error->cause[0] = '\0';
    /* place may point into *error itself when a caller rewords an error */
    if (place != error->place) copy_cut(error->place, sizeof error->place, place ? place : "");
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    mark_cut(message, sizeof message, vsnprintf(message, sizeof message, format, arguments));
    va_end(arguments);
    memcpy(error->message, message, sizeof message);
    return code;
}

pp_status pp_fail_cause(pp_error *error, const char *cause) {
    if (!error) return PP_E_FAILED;
    copy_cut(error->cause, sizeof error->cause, cause ? cause : "");
    return error->code;
}

pp_status pp_fail_memory(pp_error *error) {
    return pp_fail(error, PP_E_OUT_OF_MEMORY, NULL, "out of memory");
}
