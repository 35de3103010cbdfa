/* The page around the rows: header, row labels, columns of numbers, axis and legend.
 *
 *     title                                                    figure
 *     subtitle                                            figure note
 *                                        axis note   heading  heading
 *     rank 0   |============= plot ==============|  ▇▇ 88 %   ▇▇ 1.5 GiB
 *     rank 1   |=================================|  ▇▇ 80 %   ▇▇ 1.2 GiB
 *     time, ms   0        10        20        30
 *              legend
 *
 * Everything that has a width is measured first and the plot gets what is left, so nothing is
 * clipped and no text meets another. Two steps, because the legend depends on what the bands can
 * show at the width found. */
#include "viz/chart_internal.h"

#include <math.h>
#include <stdio.h>

enum {
    MARGIN = 18,
    HEADER = 78, /* from the top to the plot */
    AXIS = 26,   /* below the plot: ticks and their labels */
    LEGEND_LINE = 16,
    BOTTOM = 14,
    GUTTER_GAP = 8, /* row labels to plot */
    COLUMN_GAP = 18,
    BAR = 34,
    BAR_GAP = 6,
    SWATCH = 10,
    LEAST_WIDTH = 280,
    LEAST_PLOT = 180,
    LEAST_ROWS = 24,
    MOST_POINTS = 16000,
    MOST_AREA = 32000000, /* square points: half a gigabyte as PNG in memory */
    LABEL_SPACING = 12,
};

static const double title_size = 13, text_size = 9, small_size = 8.5;

static viz_style style(const viz_theme *theme, double size, bool muted) {
    return (viz_style){size, false, muted ? theme->muted : theme->text};
}

/* ---- across -------------------------------------------------------------------------------- */

static void row_label(int rank, char label[32]) {
    snprintf(label, 32, "rank %d", rank);
}

static void unit_label(const viz_page *page, const viz_axis *axis, char label[32]) {
    snprintf(label, 32, page->bytes ? "memory, %s" : "time, %s", axis->unit->name);
}

static double line_names_width(viz_canvas *canvas, const viz_page *page) {
    double widest = 0;
    for (int line = 0; line < page->lines; line++)
        if (page->line_names[line])
            widest =
                fmax(widest, viz_text_width(canvas, small_size, false, page->line_names[line]));
    return widest > 0 ? widest + GUTTER_GAP : 0;
}

static double gutter_width(viz_canvas *canvas, const viz_page *page) {
    char label[32];
    row_label(page->ranks - 1, label);
    double widest = viz_text_width(canvas, text_size, false, label);
    widest += line_names_width(canvas, page);
    return fmax(widest, viz_text_width(canvas, small_size, false, "memory, MiB") + 8) + GUTTER_GAP;
}

static bool has_bars(const viz_page *page, const viz_column *column) {
    for (int i = 0; i < page->ranks * page->lines; i++)
        if (column->cells[i].share >= 0) return true;
    return false;
}

static double column_width(viz_canvas *canvas, const viz_page *page, const viz_column *column) {
    double widest = 0;
    for (int i = 0; i < page->ranks * page->lines; i++)
        widest = fmax(widest, viz_label_width(canvas, small_size, column->cells[i].text));
    if (has_bars(page, column)) widest += BAR + BAR_GAP;
    return fmax(widest, viz_text_width(canvas, small_size, false, column->heading));
}

static double columns_width(viz_canvas *canvas, const viz_page *page) {
    double sum = 0;
    for (int i = 0; i < page->column_count; i++)
        sum += COLUMN_GAP + column_width(canvas, page, &page->columns[i]);
    return sum;
}

static pp_status check_size(const double size[2], pp_error *error) {
    static const char *const names[] = {"width", "height"};
    for (int i = 0; i < 2; i++)
        if (size[i] != 0 && !(size[i] > 0 && size[i] <= MOST_POINTS))
            return pp_fail(error, PP_E_INPUT, NULL,
                           "a %s of %g points is out of range: 1 to %d (a PNG has 2 pixels per "
                           "point); leave it out for one that suits the content",
                           names[i], size[i], MOST_POINTS);
    if (size[0] != 0 && size[0] < LEAST_WIDTH)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "a width of %g points is too small: at least %d (a PNG has 2 pixels per "
                       "point)",
                       size[0], LEAST_WIDTH);
    return PP_OK;
}

pp_status viz_frame_across(viz_canvas *canvas, viz_page *page, const viz_theme *theme,
                           const double size[2], viz_frame *frame, pp_error *error) {
    (void)theme;
    PP_TRY(check_size(size, error));
    double left = MARGIN + gutter_width(canvas, page), right = columns_width(canvas, page);
    if (size[0] > 0)
        while (page->column_count > 0 && size[0] - left - right - MARGIN < LEAST_PLOT) {
            page->column_count--;
            right = columns_width(canvas, page);
        }
    double plot = size[0] > 0 ? size[0] - left - right - MARGIN : page->plot_width;
    canvas->width = ceil(left + plot + right + MARGIN);
    frame->plot = (viz_rect){round(2 * left) / 2, HEADER, floor(2 * plot) / 2, 0};
    frame->axis = viz_axis_make(canvas, small_size, page->low, page->high, frame->plot.x,
                                frame->plot.x + frame->plot.width, page->bytes);
    return PP_OK;
}

/* ---- the legend ---------------------------------------------------------------------------- */

static double entry_width(viz_canvas *canvas, const viz_entry *entry) {
    double swatches = entry->colour_count > 0 ? entry->colour_count * SWATCH + 5 : 0;
    return swatches + viz_text_width(canvas, text_size, false, entry->text);
}

/* Idle time is nearly the colour of the page and gets an edge. */
static void swatch(viz_canvas *canvas, const viz_theme *theme, double x, double y,
                   viz_colour colour) {
    viz_rect box = {x, y, SWATCH, SWATCH};
    if (colour == theme->idle) {
        viz_fill(canvas, box, theme->grid);
        box = (viz_rect){x + 0.5, y + 0.5, SWATCH - 1, SWATCH - 1};
    }
    viz_fill(canvas, box, colour);
}

/* Flows the entries into lines below y; draws them unless theme is NULL. Returns the lines. */
static int legend(viz_canvas *canvas, const viz_page *page, const viz_theme *theme, double left,
                  double y) {
    double x = left, right = canvas->width - MARGIN;
    int lines = page->entry_count > 0;
    for (int i = 0; i < page->entry_count; i++) {
        const viz_entry *entry = &page->entries[i];
        double width = entry_width(canvas, entry), at = x;
        if (x + width > right && x > left) {
            lines++;
            at = left;
        }
        x = at + width + COLUMN_GAP;
        if (!theme) continue;
        double middle = y + (lines - 0.5) * LEGEND_LINE;
        for (int c = 0; c < entry->colour_count; c++, at += SWATCH)
            swatch(canvas, theme, at, middle - SWATCH / 2.0, entry->colours[c]);
        if (entry->colour_count > 0) at += 5;
        viz_text(canvas, style(theme, text_size, entry->colour_count == 0), VIZ_LEFT, at,
                 viz_baseline(text_size, middle), right - at, entry->text);
    }
    return lines;
}

/* ---- down ---------------------------------------------------------------------------------- */

static double snap(double points) {
    return points >= 1 ? floor(2 * points) / 2 : points;
}

/* Rows that fit into `room` points (0: any), and their pitch. */
static void choose_rows(const viz_page *page, double room, viz_frame *frame) {
    int most = VIZ_ROWS_MAX;
    if (room > 0) most = (int)fmax(1, fmin(most, floor(room / page->pitch_least)));
    frame->step = (page->ranks + most - 1) / most;
    frame->rows = (page->ranks + frame->step - 1) / frame->step;
    frame->pitch = snap(room > 0 ? room / frame->rows : page->pitch);
    frame->gap = frame->pitch < 4 ? 0 : fmin(6, floor(0.3 * frame->pitch) / 2 + 0.5);
    double inner = page->lines > 1 && frame->pitch >= 20 ? 1 : 0;
    frame->band = (frame->pitch - frame->gap - (page->lines - 1) * inner) / page->lines;
    frame->plot.height = frame->rows * frame->pitch;
}

viz_rect viz_frame_band(const viz_frame *frame, int row, int line) {
    double used = frame->pitch - frame->gap;
    double y = frame->plot.y + row * frame->pitch + frame->gap / 2;
    if (line > 0) y += used - frame->band; /* of two bands the second ends the row */
    return (viz_rect){frame->plot.x, y, frame->plot.width, frame->band};
}

/* Only every n-th row can be labelled where rows are thin: n. */
static int label_every(double pitch, double needed) {
    static const int steps[] = {1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256};
    size_t i = 0;
    while (i + 1 < sizeof steps / sizeof *steps && steps[i] * pitch < needed) i++;
    return steps[i];
}

static double row_middle(const viz_frame *frame, int row) {
    return frame->plot.y + (row + 0.5) * frame->pitch;
}

/* Whether a line of the row gets its own text: where bands are too thin for that, only the last one
 * does, and for the row as a whole. */
static bool line_shown(const viz_page *page, const viz_frame *frame, int line) {
    return frame->band >= LABEL_SPACING - 1 || line == page->lines - 1;
}

static double line_middle(const viz_frame *frame, int row, int line) {
    viz_rect band = viz_frame_band(frame, row, line);
    return frame->band >= LABEL_SPACING - 1 ? band.y + band.height / 2 : row_middle(frame, row);
}

static void draw_row_labels(viz_canvas *canvas, const viz_page *page, const viz_theme *theme,
                            const viz_frame *frame, int every) {
    double right = frame->plot.x - GUTTER_GAP, names = line_names_width(canvas, page);
    for (int row = 0; row < frame->rows; row += every) {
        char label[32];
        row_label(row * frame->step, label);
        viz_text(canvas, style(theme, text_size, false), VIZ_RIGHT, right - names,
                 viz_baseline(text_size, row_middle(frame, row)), VIZ_ANY_ROOM, label);
        for (int line = 0; line < page->lines; line++)
            if (page->line_names[line] && frame->band >= LABEL_SPACING - 1)
                viz_text(canvas, style(theme, small_size, true), VIZ_RIGHT, right,
                         viz_baseline(small_size, line_middle(frame, row, line)), VIZ_ANY_ROOM,
                         page->line_names[line]);
    }
}

static void draw_bar(viz_canvas *canvas, const viz_theme *theme, viz_rect band, double x,
                     double share) {
    double height = band.height < 6 ? band.height : snap(fmin(8, 0.6 * band.height));
    viz_rect box = {x, band.y + (band.height - height) / 2, BAR, height};
    if (height >= 4) box.y = round(2 * box.y) / 2;
    viz_fill(canvas, box, theme->idle);
    box.width *= fmin(1, share);
    viz_fill(canvas, box, theme->muted);
}

static void draw_column(viz_canvas *canvas, const viz_page *page, const viz_theme *theme,
                        const viz_frame *frame, int every, const viz_column *column, double right) {
    bool bars = has_bars(page, column);
    double left = right - column_width(canvas, page, column);
    viz_text(canvas, style(theme, small_size, true), VIZ_RIGHT, right, HEADER - 7.0, VIZ_ANY_ROOM,
             column->heading);
    for (int row = 0; row < frame->rows; row++)
        for (int line = 0; line < page->lines; line++) {
            const viz_cell *cell = &column->cells[row * frame->step * page->lines + line];
            if (bars && cell->share >= 0)
                draw_bar(canvas, theme, viz_frame_band(frame, row, line), left, cell->share);
            if (row % every != 0 || !line_shown(page, frame, line)) continue;
            viz_text(canvas, style(theme, small_size, page->lines > 1 && line == 0), VIZ_RIGHT,
                     right, viz_baseline(small_size, line_middle(frame, row, line)), VIZ_ANY_ROOM,
                     cell->text);
        }
}

static void draw_columns(viz_canvas *canvas, const viz_page *page, const viz_theme *theme,
                         const viz_frame *frame, int every) {
    double right = canvas->width - MARGIN;
    for (int i = page->column_count - 1; i >= 0; i--) {
        draw_column(canvas, page, theme, frame, every, &page->columns[i], right);
        right -= column_width(canvas, page, &page->columns[i]) + COLUMN_GAP;
    }
}

static void draw_axis(viz_canvas *canvas, const viz_page *page, const viz_theme *theme,
                      const viz_frame *frame) {
    double bottom = frame->plot.y + frame->plot.height, baseline = bottom + 16, x;
    char label[32];
    unit_label(page, &frame->axis, label);
    viz_text(canvas, style(theme, small_size, true), VIZ_RIGHT, frame->plot.x - GUTTER_GAP - 8,
             baseline, VIZ_ANY_ROOM, label);
    for (int i = 0; viz_axis_tick(&frame->axis, i, &x, label); i++) {
        viz_fill(canvas, (viz_rect){x - 0.25, frame->plot.y, 0.5, frame->plot.height}, theme->grid);
        viz_fill(canvas, (viz_rect){x - 0.25, bottom, 0.5, 4}, theme->muted);
        double half = viz_label_width(canvas, small_size, label) / 2;
        /* a wide number at an end gives way to the unit and to the border of the page */
        if (x - half < frame->plot.x - GUTTER_GAP - 4 || x + half > canvas->width - 2) continue;
        viz_text(canvas, style(theme, small_size, false), VIZ_CENTRE, x, baseline, VIZ_ANY_ROOM,
                 label);
    }
    viz_fill(canvas, (viz_rect){frame->plot.x, bottom, frame->plot.width, 0.5}, theme->muted);
}

static void draw_header(viz_canvas *canvas, const viz_page *page, const viz_theme *theme,
                        const viz_frame *frame) {
    double right = canvas->width - MARGIN, all = right - MARGIN;
    viz_style bold = {title_size, true, theme->text};
    double used = viz_text(canvas, bold, VIZ_RIGHT, right, 30, 0.45 * all, page->figure);
    viz_text(canvas, bold, VIZ_LEFT, MARGIN, 30, all - used - COLUMN_GAP, page->title);
    used = viz_text(canvas, style(theme, text_size, true), VIZ_RIGHT, right, 46, 0.45 * all,
                    page->figure_note);
    char subtitle[400];
    int length = snprintf(subtitle, sizeof subtitle, "%s", page->subtitle);
    if (frame->step > 1)
        snprintf(subtitle + length, sizeof subtitle - (size_t)length, " · one rank in %d shown",
                 frame->step);
    viz_text(canvas, style(theme, text_size, true), VIZ_LEFT, MARGIN, 46, all - used - COLUMN_GAP,
             subtitle);
    viz_text(canvas, style(theme, small_size, true), VIZ_RIGHT, frame->plot.x + frame->plot.width,
             HEADER - 7.0, frame->plot.width, page->axis_note);
}

static pp_status choose_height(viz_canvas *canvas, const viz_page *page, const double size[2],
                               viz_frame *frame, pp_error *error) {
    int lines = legend(canvas, page, NULL, frame->plot.x, 0);
    double rest = HEADER + AXIS + lines * LEGEND_LINE + BOTTOM;
    if (size[1] != 0 && size[1] - rest < LEAST_ROWS)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "a height of %g points is too small: at least %g at this width (a PNG has 2 "
                       "pixels per point)",
                       size[1], rest + LEAST_ROWS);
    choose_rows(page, size[1] != 0 ? size[1] - rest : 0, frame);
    canvas->height = size[1] != 0 ? size[1] : ceil(rest + frame->plot.height);
    if (canvas->width * canvas->height > MOST_AREA)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "a picture of %.0f × %.0f points is too large; choose a smaller width or "
                       "height",
                       canvas->width, canvas->height);
    return PP_OK;
}

pp_status viz_frame_down(viz_canvas *canvas, const viz_page *page, const viz_theme *theme,
                         const double size[2], viz_frame *frame, pp_error *error) {
    PP_TRY(choose_height(canvas, page, size, frame, error));
    int every = label_every(frame->pitch, LABEL_SPACING);
    viz_fill(canvas, (viz_rect){0, 0, canvas->width, canvas->height}, theme->page);
    draw_header(canvas, page, theme, frame);
    for (int row = 0; row < frame->rows; row++)
        for (int line = 0; line < page->lines; line++)
            viz_fill(canvas, viz_frame_band(frame, row, line), theme->idle);
    draw_axis(canvas, page, theme, frame);
    draw_row_labels(canvas, page, theme, frame, every);
    draw_columns(canvas, page, theme, frame, every);
    legend(canvas, page, theme, frame->plot.x, frame->plot.y + frame->plot.height + AXIS);
    return PP_OK;
}
