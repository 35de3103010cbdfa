/* Help, the man page and shell completion, all from the tables of subcommands and options. */
#include "cli/cli.h"

#include "executor/executor.h"
#include "viz/viz.h"

#include <gsl/gsl_version.h>
#include <jansson.h>
#include <sqlite3.h>
#include <string.h>

/* ---- plain text ---------------------------------------------------------------------------- */

static void option_left(const pp_option *option, pp_text *text) {
    if (option->letter)
        pp_text_printf(text, "-%c, ", option->letter);
    else
        pp_text_string(text, "    ");
    pp_text_printf(text, "--%s", option->name);
    if (option->alias) pp_text_printf(text, ", --%s", option->alias);
    if (option->argument) pp_text_printf(text, " %s", option->argument);
}

/* Appends words so that no line passes column 96; further lines start at `indent`. */
static void wrap(pp_text *text, const char *words, int column, int indent) {
    enum { WIDTH = 96 };
    bool blank = false; /* between the word before and this one */
    while (*words) {
        int length = (int)strcspn(words, " \n");
        if (blank && column + 1 + length > WIDTH) {
            pp_text_printf(text, "\n%*s", indent, "");
            column = indent;
        } else if (blank) {
            pp_text_string(text, " ");
            column++;
        }
        pp_text_append(text, words, (size_t)length);
        column += length;
        words += length;
        blank = *words == ' ';
        if (*words == '\n') {
            pp_text_printf(text, "\n%*s", indent, "");
            column = indent;
        }
        words += *words != '\0';
    }
}

static void option_line(const pp_option *option, pp_text *text) {
    enum { HELP_COLUMN = 34 };
    size_t start = text->length;
    pp_text_string(text, "  ");
    option_left(option, text);
    int used = (int)(text->length - start);
    if (used >= HELP_COLUMN - 1) {
        pp_text_string(text, "\n");
        used = 0;
    }
    pp_text_printf(text, "%*s", HELP_COLUMN - used, "");
    wrap(text, option->help, HELP_COLUMN, HELP_COLUMN);
    pp_text_string(text, "\n");
}

void pp_help_subcommand(const pp_subcommand *subcommand, pp_text *text) {
    pp_text_printf(text, "usage: ppsim %s", subcommand->name);
    if (*subcommand->arguments) pp_text_printf(text, " %s", subcommand->arguments);
    if (subcommand->option_count > 0) pp_text_string(text, " [options]");
    pp_text_string(text, "\n\n");
    wrap(text, subcommand->summary, 0, 0);
    pp_text_string(text, "\n\n");
    if (subcommand->description) {
        wrap(text, subcommand->description, 0, 0);
        pp_text_string(text, "\n\n");
    }
    if (subcommand->option_count > 0) pp_text_string(text, "options:\n");
    for (int i = 0; i < subcommand->option_count; i++) option_line(&subcommand->options[i], text);
}

void pp_help_program(pp_text *text) {
    int count;
    const pp_subcommand *const *all = pp_subcommands(&count);
    pp_text_string(text, "usage: ppsim SUBCOMMAND [arguments] [options]\n\n"
                         "Profiles layers, plans pipeline-parallel training, simulates and draws "
                         "it, and runs it.\n\nsubcommands:\n");
    for (int i = 0; i < count; i++)
        pp_text_printf(text, "  %-10s  %s\n", all[i]->name, all[i]->summary);
    pp_text_string(text, "\n'ppsim help SUBCOMMAND' tells more; 'ppsim --version' names the "
                         "libraries.\nExit status: 0 done, 1 it failed while working, 2 the call "
                         "or its input is wrong,\n3 nothing fits the constraints, 130 or 143 on "
                         "signals.\n");
}

void pp_version_text(pp_text *text) {
    pp_text_printf(text, "ppsim %s\n", PP_VERSION);
    pp_text_printf(text, "GSL %s\n", gsl_version);
    pp_text_printf(text, "SQLite %s\n", sqlite3_libversion());
    pp_text_printf(text, "cairo %s\n", pp_cairo_version());
    pp_text_printf(text, "Jansson %s\n", jansson_version_str());
    pp_backend_info infos[8];
    int count = pp_backends(infos, 8);
    for (int i = 0; i < count; i++)
        pp_text_printf(text, "backend %s: %s\n", infos[i].name, infos[i].detail);
}

/* ---- man page ------------------------------------------------------------------------------ */

/* roff takes a leading '.' or a backslash as its own. */
static void roff(pp_text *text, const char *plain) {
    for (; *plain; plain++) {
        if (*plain == '\\')
            pp_text_string(text, "\\e");
        else if (*plain == '-')
            pp_text_string(text, "\\-");
        else if (*plain == '\n')
            pp_text_string(text, "\n.br\n");
        else
            pp_text_append(text, plain, 1);
    }
}

static void roff_subcommand(const pp_subcommand *subcommand, pp_text *text) {
    pp_text_printf(text, ".SS \"ppsim %s %s\"\n", subcommand->name, subcommand->arguments);
    roff(text, subcommand->summary);
    pp_text_string(text, ".\n");
    if (subcommand->description) {
        pp_text_string(text, ".PP\n");
        roff(text, subcommand->description);
        pp_text_string(text, "\n");
    }
    for (int i = 0; i < subcommand->option_count; i++) {
        pp_text left = {0};
        option_left(&subcommand->options[i], &left);
        pp_text_string(text, ".TP\n.B ");
        roff(text, left.bytes ? left.bytes + strspn(left.bytes, " ") : "");
        pp_text_string(text, "\n");
        roff(text, subcommand->options[i].help);
        pp_text_string(text, "\n");
        pp_text_deinit(&left);
    }
}

static void man_page(pp_text *text) {
    int count;
    const pp_subcommand *const *all = pp_subcommands(&count);
    pp_text_printf(text,
                   ".TH PPSIM 1 \"\" \"ppsim %s\" \"User Commands\"\n.SH NAME\n"
                   "ppsim \\- profile, plan, simulate, draw and run pipeline-parallel training\n"
                   ".SH SYNOPSIS\n.B ppsim\n.I subcommand\n[arguments] [options]\n"
                   ".SH SUBCOMMANDS\n",
                   PP_VERSION);
    for (int i = 0; i < count; i++) roff_subcommand(all[i], text);
    pp_text_string(text, ".SH EXIT STATUS\n0 done, 1 it failed while working, 2 the call or its "
                         "input is wrong, 3 nothing fits the constraints, 130 or 143 on signals.\n"
                         ".SH ENVIRONMENT\n.TP\n.B PPSIM_LOG\nwhat to log to standard error, as in "
                         "sim:debug,executor:trace.\n.TP\n.B NO_COLOR\nno colours.\n");
}

/* ---- completion ---------------------------------------------------------------------------- */

static void completion_case(const pp_subcommand *subcommand, pp_text *text) {
    pp_text_printf(text, "    %s) words=\"", subcommand->name);
    for (int i = 0; i < subcommand->option_count; i++)
        pp_text_printf(text, "%s--%s", i ? " " : "", subcommand->options[i].name);
    pp_text_string(text, "\" ;;\n");
}

static void bash_completion(pp_text *text) {
    int count;
    const pp_subcommand *const *all = pp_subcommands(&count);
    pp_text_string(text, "# bash completion for ppsim\n_ppsim() {\n"
                         "  local word=\"${COMP_WORDS[COMP_CWORD]}\" words=\"\"\n"
                         "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    words=\"");
    for (int i = 0; i < count; i++) pp_text_printf(text, "%s%s", i ? " " : "", all[i]->name);
    pp_text_string(text, "\"\n  elif [ \"${word#-}\" != \"$word\" ]; then\n"
                         "    case \"${COMP_WORDS[1]}\" in\n");
    for (int i = 0; i < count; i++) completion_case(all[i], text);
    pp_text_string(text, "    esac\n  fi\n"
                         "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
                         "  if [ -z \"$words\" ]; then mapfile -t COMPREPLY < <(compgen -f -- "
                         "\"$word\"); fi\n}\ncomplete -o filenames -F _ppsim ppsim\n");
}

/* ---- the subcommand ------------------------------------------------------------------------ */

static const struct {
    const char *name;
    void (*write)(pp_text *text);
} topics[] = {
    {"man", man_page}, {"bash-completion", bash_completion}, {"version", pp_version_text}};

static pp_status run_help(const void *settings, const char *const *arguments, int argument_count,
                          pp_output *output, pp_error *error) {
    (void)settings;
    if (argument_count == 0) {
        pp_help_program(&output->out);
        return PP_OK;
    }
    const pp_subcommand *subcommand = pp_subcommand_find(arguments[0]);
    if (subcommand) {
        pp_help_subcommand(subcommand, &output->out);
        return PP_OK;
    }
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
        if (strcmp(topics[i].name, arguments[0]) != 0) continue;
        topics[i].write(&output->out);
        return PP_OK;
    }
    return pp_fail(error, PP_E_INPUT, arguments[0],
                   "is no topic of help; topics are the subcommands, man, bash-completion and "
                   "version");
}

const pp_subcommand pp_cmd_help = {
    .name = "help",
    .arguments = "[TOPIC]",
    .maximum_arguments = 1,
    .summary = "explains a subcommand; prints the man page or shell completion",
    .run = run_help,
};
