/* The command line, split by the option table of a subcommand.
 *
 * "--name value", "--name=value", "-K 4", "-K4"; "--" ends the options. Long names may not be
 * abbreviated: a script that works today must work when options are added. */
#include "cli/cli.h"

#include <math.h>
#include <string.h>

/* ---- values -------------------------------------------------------------------------------- */

/* Is text one of "a|b|c"? */
static bool is_one_of(const char *text, const char *values) {
    size_t length = strlen(text);
    for (const char *v = values; *v;) {
        size_t item = strcspn(v, "|");
        if (item == length && memcmp(v, text, length) == 0) return true;
        v += item + (v[item] == '|');
    }
    return false;
}

static bool parse_percent(const char *text, double *fraction) {
    char number[64];
    size_t length = strlen(text);
    bool percent = length > 0 && text[length - 1] == '%';
    if (length - percent >= sizeof number) return false;
    memcpy(number, text, length - percent);
    number[length - percent] = '\0';
    if (!pp_parse_double(number, fraction) || *fraction < 0) return false;
    if (percent) *fraction /= 100;
    return true;
}

static bool store_count(const char *text, void *field) {
    int64_t value;
    if (!pp_parse_int(text, 1, INT32_MAX, &value)) return false;
    *(int *)field = (int)value;
    return true;
}

static bool store_number(const char *text, void *field) {
    return pp_parse_int(text, 0, INT64_MAX, field);
}

static bool store_size(const char *text, void *field) {
    return pp_parse_int(text, 1, INT64_MAX, field);
}

static bool store_string(const char *text, void *field) {
    *(const char **)field = text;
    return true;
}

static bool store_seconds(const char *text, void *field) {
    return pp_parse_double(text, field) && *(double *)field >= 0;
}

static bool store_factor(const char *text, void *field) {
    return pp_parse_double(text, field) && *(double *)field > 0;
}

static bool store_percent(const char *text, void *field) {
    return parse_percent(text, field);
}

static bool store_bytes(const char *text, void *field) {
    return pp_parse_bytes(text, field) && *(int64_t *)field > 0;
}

static const struct {
    bool (*store)(const char *text, void *field);
    const char *expected;
} kinds[] = {
    [PP_OPTION_FLAG] = {NULL, ""},
    [PP_OPTION_SIZE] = {store_size, "a whole number, 1 or more"},
    [PP_OPTION_STRING] = {store_string, "a text"},
    [PP_OPTION_COUNT] = {store_count, "a whole number from 1 to 2147483647"},
    [PP_OPTION_NUMBER] = {store_number, "a whole number, 0 or more"},
    [PP_OPTION_SECONDS] = {store_seconds, "a number, 0 or more"},
    [PP_OPTION_FACTOR] = {store_factor, "a number above 0"},
    [PP_OPTION_PERCENT] = {store_percent, "a fraction such as 3% or 0.03"},
    [PP_OPTION_BYTES] = {store_bytes, "a size such as 80GiB, 512MB or 16e9"},
};

static pp_status store(const pp_option *option, const char *shown, const char *text, void *settings,
                       pp_error *error) {
    void *field = (char *)settings + option->offset;
    if (option->values && !is_one_of(text, option->values))
        return pp_fail(error, PP_E_INPUT, shown, "'%s' is not one of %s", text, option->values);
    if (!kinds[option->kind].store(text, field))
        return pp_fail(error, PP_E_INPUT, shown, "'%s' is not %s", text,
                       kinds[option->kind].expected);
    return PP_OK;
}

/* ---- finding ------------------------------------------------------------------------------- */

static bool same_name(const char *name, const char *text, size_t length) {
    return name && strlen(name) == length && memcmp(name, text, length) == 0;
}

static const pp_option *find_long(const pp_subcommand *subcommand, const char *text,
                                  size_t length) {
    for (int i = 0; i < subcommand->option_count; i++) {
        const pp_option *option = &subcommand->options[i];
        if (same_name(option->name, text, length) || same_name(option->alias, text, length))
            return option;
    }
    return NULL;
}

static const pp_option *find_letter(const pp_subcommand *subcommand, char letter) {
    for (int i = 0; i < subcommand->option_count; i++)
        if (subcommand->options[i].letter == letter) return &subcommand->options[i];
    return NULL;
}

static pp_status unknown(const pp_subcommand *subcommand, const char *text, pp_error *error) {
    return pp_fail(error, PP_E_INPUT, text, "ppsim %s has no such option; see 'ppsim help %s'",
                   subcommand->name, subcommand->name);
}

/* One word that starts with '-'. Takes the next word too where it is the value. */
static pp_status parse_option(const pp_subcommand *subcommand, const char *word, const char *next,
                              void *settings, bool *took_next, pp_error *error) {
    bool is_long = word[1] == '-';
    const char *equals = is_long ? strchr(word, '=') : NULL;
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const pp_option *option =
        is_long ? find_long(subcommand, word + 2, length - 2) : find_letter(subcommand, word[1]);
    if (!option) return unknown(subcommand, word, error);

    char shown[64];
    pp_text name = {0};
    pp_text_append(&name, word, is_long ? length : 2);
    strncpy(shown, name.bytes ? name.bytes : word, sizeof shown - 1);
    shown[sizeof shown - 1] = '\0';
    pp_text_deinit(&name);

    const char *value = equals ? equals + 1 : !is_long && word[2] ? word + 2 : NULL;
    if (option->kind == PP_OPTION_FLAG) {
        if (value) return pp_fail(error, PP_E_INPUT, shown, "takes no value");
        *(bool *)((char *)settings + option->offset) = true;
        return PP_OK;
    }
    if (!value) {
        if (!next) return pp_fail(error, PP_E_INPUT, shown, "needs a value: %s", option->argument);
        value = next;
        *took_next = true;
    }
    return store(option, shown, value, settings, error);
}

static pp_status check_arguments(const pp_subcommand *subcommand, const char **arguments, int count,
                                 pp_error *error) {
    if (count < subcommand->minimum_arguments)
        return pp_fail(error, PP_E_INPUT, NULL, "ppsim %s needs %s; see 'ppsim help %s'",
                       subcommand->name, subcommand->arguments, subcommand->name);
    if (count > subcommand->maximum_arguments)
        return pp_fail(error, PP_E_INPUT, arguments[subcommand->maximum_arguments],
                       "is one argument too many; see 'ppsim help %s'", subcommand->name);
    return PP_OK;
}

pp_status pp_options_parse(const pp_subcommand *subcommand, int argc, char **argv, void *settings,
                           const char **arguments, int *argument_count, bool *help,
                           pp_error *error) {
    bool only_arguments = false;
    *argument_count = 0;
    *help = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (only_arguments || word[0] != '-' || word[1] == '\0') {
            arguments[(*argument_count)++] = word;
        } else if (strcmp(word, "--") == 0) {
            only_arguments = true;
        } else if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
            *help = true;
            return PP_OK;
        } else {
            bool took_next = false;
            PP_TRY(parse_option(subcommand, word, i + 1 < argc ? argv[i + 1] : NULL, settings,
                                &took_next, error));
            i += took_next;
        }
    }
    return check_arguments(subcommand, arguments, *argument_count, error);
}
