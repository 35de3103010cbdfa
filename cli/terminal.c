/* What people see: aligned tables, a progress bar, warnings. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- tables -------------------------------------------------------------------------------- */

enum { TABLE_COLUMNS = 16 };

pp_table pp_table_start(const char *alignment) {
    return (pp_table){.columns = (int)strlen(alignment), .alignment = alignment};
}

void pp_table_cell(pp_table *table, const char *format, ...) {
    char cell[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cell, sizeof cell, format, arguments);
    va_end(arguments);
    pp_text_append(&table->cells, cell, strlen(cell) + 1);
    table->cell_count++;
}

/* Columns on the screen: UTF-8 continuation bytes take none. */
static int display_width(const char *text) {
    int width = 0;
    for (; *text; text++) width += (*text & 0xC0) != 0x80;
    return width;
}

static void pad(pp_text *text, int count) {
    for (int i = 0; i < count; i++) pp_text_string(text, " ");
}

void pp_table_print(pp_table *table, pp_text *text) {
    int widths[TABLE_COLUMNS] = {0};
    const char *cell = table->cells.bytes;
    for (int i = 0; i < table->cell_count && cell; i++, cell += strlen(cell) + 1) {
        int *width = &widths[i % table->columns];
        if (display_width(cell) > *width) *width = display_width(cell);
    }
    cell = table->cells.bytes;
    for (int i = 0; i < table->cell_count && cell; i++, cell += strlen(cell) + 1) {
        int column = i % table->columns;
        int space = widths[column] - display_width(cell);
        bool last = column == table->columns - 1;
        if (column > 0) pp_text_string(text, "  ");
        if (table->alignment[column] == 'r') pad(text, space);
        pp_text_string(text, cell);
        if (table->alignment[column] == 'l' && !last) pad(text, space);
        if (last) pp_text_string(text, "\n");
    }
    if (table->cells.failed) text->failed = true;
    pp_text_deinit(&table->cells);
}

/* ---- stderr -------------------------------------------------------------------------------- */

bool pp_terminal_colour(int file) {
    const char *no_colour = getenv("NO_COLOR");
    return isatty(file) && (!no_colour || !*no_colour);
}

static struct {
    double started_s, shown_s;
    bool visible;
} bar;

void pp_progress(double fraction, const char *what) {
    enum { WIDTH = 30 };
    double now = pp_now_s();
    if (!isatty(STDERR_FILENO)) return;
    if (bar.started_s == 0) bar.started_s = now;
    if (now - bar.started_s < 1 || now - bar.shown_s < 0.1) return;
    bar.shown_s = now;
    bar.visible = true;
    int filled = (int)(WIDTH * (fraction < 0 ? 0 : fraction > 1 ? 1 : fraction));
    fprintf(stderr, "\r[%.*s%.*s] %3.0f %% %.60s\033[K", filled, "##############################",
            WIDTH - filled, "..............................", 100 * fraction, what);
}

void pp_progress_clear(void) {
    if (bar.visible) fprintf(stderr, "\r\033[K");
    bar.visible = false;
    bar.started_s = bar.shown_s = 0;
}

void pp_warn(const char *format, ...) {
    char message[sizeof((pp_error *)0)->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    pp_progress_clear();
    fprintf(stderr, "ppsim: warning: %s\n", message); /* one write: others may write there too */
}
