/* A sweep: a column for each value, and in panels below one another what the best plan there takes.
 *
 *     title
 *     subtitle
 *     ▇ step time, ms
 *     10 |      ▇
 *      0 |__▇___▇___▇__
 *     … bubble, compute per sample, peak memory …
 *           1   2   4         values, and what the plan is
 *          microbatches
 *     no plan at 4: …
 *
 * Values lie side by side at equal distance, as they are double one another or not even in order of
 * anything that could be a scale. Each panel has its own scale from 0, so that heights compare. */
#include "viz/chart_internal.h"

#include <math.h>
#include <stdio.h>

enum {
    MARGIN = 18,
    TITLE = 30,
    SUBTITLE = 46,
    HEADER = 56,  /* from the top to the first panel's heading */
    HEADING = 24, /* of a panel */
    PANEL = 80,   /* as high as a plot would like to be */
    LEAST_PANEL = 30,
    LINE = 13,
    GUTTER = 8,  /* tick labels to plot */
    COLUMN = 60, /* as wide as a value would like to be */
    MOST_WIDTH = 12000,
    LEAST_WIDTH = 280,
    REASONS = 2, /* told below the picture */
    PANELS = 4,
};

static const double title_size = 13, text_size = 9, small_size = 8.5;
static const double headroom = 13; /* above the tallest bar: its label */

/* ---- what is shown ------------------------------------------------------------------------- */

static double step_time(const pp_sweep_point *point) {
    return point->iteration_time_s;
}

static double bubble(const pp_sweep_point *point) {
    return point->bubble_fraction;
}

static double loss(const pp_sweep_point *point) {
    return point->compute_loss;
}

static double peak(const pp_sweep_point *point) {
    return (double)point->peak_bytes;
}

static const char *bytes_text(double bytes, char buffer[32]) {
    return pp_format_bytes(bytes, buffer);
}

static const struct panel {
    const char *heading;
    viz_quantity quantity;
    viz_colour colour;
    double (*value)(const pp_sweep_point *point);
    const char *(*text)(double value, char buffer[32]);
} panels[PANELS] = {
    {"step time", VIZ_TIME, 0x5584c0, step_time, viz_seconds_text},
    {"bubble", VIZ_SHARE, 0xe58a1f, bubble, viz_percent_text},
    {"compute time per sample, above the least of all", VIZ_SHARE, 0x2fa58b, loss,
     viz_percent_text},
    {"peak memory of a rank", VIZ_BYTES, 0x9a7bc4, peak, bytes_text},
};

static const struct {
    const char *axis, *one;
} swept[PP_SWEEP_KIND_COUNT] = {
    [PP_SWEEP_MICROBATCHES] = {"microbatches of a step and replica", "number of microbatches"},
    [PP_SWEEP_RANKS] = {"pipeline ranks", "number of ranks"},
    [PP_SWEEP_MEMORY] = {"memory of each device", "memory of a device"},
};

typedef struct sweep_picture {
    const pp_sweep *sweep;
    const viz_theme *theme;
    viz_canvas *canvas;
    double left, width; /* of the plots */
    double column;      /* width of one value */
    double height;      /* of a plot */
    viz_axis axes[PANELS];
} sweep_picture;

static viz_style style(const sweep_picture *c, double size, bool muted) {
    return (viz_style){size, false, muted ? c->theme->muted : c->theme->text};
}

static const char *value_text(const pp_sweep *sweep, int i, char buffer[32]) {
    int64_t value = sweep->points[i].value;
    if (sweep->kind == PP_SWEEP_MEMORY) return pp_format_bytes((double)value, buffer);
    snprintf(buffer, 32, "%lld", (long long)value);
    return buffer;
}

static double column_middle(const sweep_picture *c, int i) {
    return c->left + (i + 0.5) * c->column;
}

static double panel_top(const sweep_picture *c, int panel) {
    return HEADER + (HEADING + c->height) * panel + HEADING;
}

/* ---- layout -------------------------------------------------------------------------------- */

static double largest(const sweep_picture *c, const struct panel *panel) {
    double most = 0;
    for (int i = 0; i < c->sweep->point_count; i++)
        if (c->sweep->points[i].planned) most = fmax(most, panel->value(&c->sweep->points[i]));
    return most;
}

/* Ticks stand above one another, so they may be closer than the axis would have them. */
#define CLOSER 2

static void make_axes(sweep_picture *c) {
    double taller = c->height / (c->height - headroom);
    for (int p = 0; p < PANELS; p++)
        c->axes[p] = viz_axis_make(c->canvas, small_size, 0, taller * largest(c, &panels[p]), 0,
                                   CLOSER * c->height, panels[p].quantity);
}

static double widest_tick(sweep_picture *c) {
    double widest = 0, position;
    char label[32];
    for (int p = 0; p < PANELS; p++)
        for (int i = 0; viz_axis_tick(&c->axes[p], i, &position, label); i++)
            widest = fmax(widest, viz_text_width(c->canvas, small_size, false, label));
    return widest;
}

static int reason_lines(const pp_sweep *sweep) {
    int count = 0;
    for (int i = 0; i < sweep->point_count; i++) count += !sweep->points[i].planned;
    return count > REASONS ? REASONS + 1 : count;
}

/* Below the last panel: values, three lines of plan, the axis title, reasons. */
static double footer(const pp_sweep *sweep) {
    return 5 * LINE + 20 + (reason_lines(sweep) > 0 ? 6 : 0) + LINE * reason_lines(sweep) + 8;
}

static pp_status lay_out(sweep_picture *c, const double size[2], pp_error *error) {
    double rest = HEADER + PANELS * HEADING + footer(c->sweep);
    c->height = size[1] != 0 ? floor((size[1] - rest) / PANELS) : PANEL;
    if (c->height < LEAST_PANEL)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "a height of %g points is too small: at least %g (a PNG has 2 pixels per "
                       "point)",
                       size[1], rest + PANELS * LEAST_PANEL);
    if (size[0] != 0 && size[0] < LEAST_WIDTH)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "a width of %g points is too small: at least %d (a PNG has 2 pixels per "
                       "point)",
                       size[0], LEAST_WIDTH);
    if (fmax(size[0], size[1]) > MOST_WIDTH)
        return pp_fail(error, PP_E_INPUT, NULL, "a picture of %g points is too large: at most %d",
                       fmax(size[0], size[1]), MOST_WIDTH);
    make_axes(c);
    c->left = ceil(MARGIN + widest_tick(c) + GUTTER);
    double wanted = fmin(fmax(COLUMN * c->sweep->point_count, 420), MOST_WIDTH - c->left - MARGIN);
    c->width = size[0] != 0 ? size[0] - c->left - MARGIN : wanted;
    c->column = c->width / c->sweep->point_count;
    c->canvas->width = c->left + c->width + MARGIN;
    c->canvas->height = size[1] != 0 ? size[1] : rest + PANELS * c->height;
    return PP_OK;
}

/* ---- panels -------------------------------------------------------------------------------- */

static void draw_head(sweep_picture *c) {
    char text[512];
    const pp_sweep *sweep = c->sweep;
    snprintf(text, sizeof text, "%s on %s", sweep->model, sweep->cluster);
    viz_canvas_title(c->canvas, text);
    viz_text(c->canvas, (viz_style){title_size, true, c->theme->text}, VIZ_LEFT, MARGIN, TITLE,
             c->canvas->width - 2 * MARGIN, text);
    snprintf(text, sizeof text, "batch %lld · the best plan for each %s",
             (long long)sweep->global_batch, swept[sweep->kind].one);
    viz_text(c->canvas, style(c, text_size, true), VIZ_LEFT, MARGIN, SUBTITLE,
             c->canvas->width - 2 * MARGIN, text);
}

static void draw_scale(sweep_picture *c, int panel) {
    const viz_axis *axis = &c->axes[panel];
    double top = panel_top(c, panel), position;
    char text[128];
    viz_fill(c->canvas, (viz_rect){c->left, top - 15, 9, 9}, panels[panel].colour);
    snprintf(text, sizeof text, "%s, %s", panels[panel].heading, axis->unit->name);
    viz_text(c->canvas, style(c, text_size, false), VIZ_LEFT, c->left + 14, top - 7, c->width - 14,
             text);
    for (int i = 0; viz_axis_tick(axis, i, &position, text); i++) {
        double y = top + c->height - position / CLOSER;
        viz_fill(c->canvas, (viz_rect){c->left, y - 0.25, c->width, 0.5},
                 i == 0 ? c->theme->muted : c->theme->grid);
        viz_text(c->canvas, style(c, small_size, true), VIZ_RIGHT, c->left - GUTTER,
                 viz_baseline(small_size, y), VIZ_ANY_ROOM, text);
    }
}

/* Do the labels of all bars fit beside one another? */
static bool labels_fit(sweep_picture *c, const struct panel *panel) {
    char text[32];
    for (int i = 0; i < c->sweep->point_count; i++) {
        const pp_sweep_point *point = &c->sweep->points[i];
        if (!point->planned) continue;
        panel->text(panel->value(point), text);
        if (viz_text_width(c->canvas, small_size, false, text) + 4 > c->column) return false;
    }
    return true;
}

static void draw_bar(sweep_picture *c, int panel, int i, bool labelled) {
    const struct panel *shown = &panels[panel];
    double value = shown->value(&c->sweep->points[i]);
    double bottom = panel_top(c, panel) + c->height;
    double tall = viz_axis_at(&c->axes[panel], value) / CLOSER;
    double wide = fmin(0.6 * c->column, 40), middle = column_middle(c, i);
    char text[32];
    viz_fill(c->canvas, (viz_rect){middle - wide / 2, bottom - tall, wide, tall}, shown->colour);
    if (!labelled) return;
    shown->text(value, text);
    double half = viz_text_width(c->canvas, small_size, false, text) / 2 + 1;
    viz_fill(c->canvas, (viz_rect){middle - half, bottom - tall - 11, 2 * half, 10.5},
             c->theme->page); /* no grid behind it */
    viz_text(c->canvas, style(c, small_size, false), VIZ_CENTRE, middle, bottom - tall - 3,
             VIZ_ANY_ROOM, text);
}

static void draw_gap(sweep_picture *c, int panel, int i) {
    double top = panel_top(c, panel);
    viz_fill(c->canvas, (viz_rect){c->left + i * c->column, top, c->column, c->height - 0.5},
             c->theme->idle);
    if (viz_text_width(c->canvas, small_size, false, "no plan") + 4 > c->column) return;
    viz_text(c->canvas, style(c, small_size, true), VIZ_CENTRE, column_middle(c, i),
             viz_baseline(small_size, top + c->height / 2), c->column, "no plan");
}

static void draw_panel(sweep_picture *c, int panel) {
    bool labelled = labels_fit(c, &panels[panel]);
    draw_scale(c, panel);
    for (int i = 0; i < c->sweep->point_count; i++)
        if (c->sweep->points[i].planned)
            draw_bar(c, panel, i, labelled);
        else
            draw_gap(c, panel, i);
}

/* ---- below --------------------------------------------------------------------------------- */

/* Which values are labelled so that no label meets the next: every so many. */
static int label_every(sweep_picture *c) {
    double widest = 0;
    char text[32];
    for (int i = 0; i < c->sweep->point_count; i++)
        widest = fmax(widest,
                      viz_text_width(c->canvas, text_size, false, value_text(c->sweep, i, text)));
    return (int)fmax(1, ceil((widest + 6) / c->column));
}

/* What the plan is, in three short lines. */
static void plan_lines(const pp_sweep *sweep, const pp_sweep_point *point, char lines[3][96]) {
    snprintf(lines[0], 96, "%.64s", point->schedule);
    if (sweep->kind == PP_SWEEP_RANKS)
        snprintf(lines[1], 96, "M=%d", point->microbatches);
    else if (sweep->kind == PP_SWEEP_MICROBATCHES)
        snprintf(lines[1], 96, "K=%d", point->ranks);
    else
        snprintf(lines[1], 96, "K=%d M=%d", point->ranks, point->microbatches);
    snprintf(lines[2], 96, point->tp > 1 ? "dp=%d tp=%d" : "dp=%d", point->dp, point->tp);
}

static void draw_values(sweep_picture *c, double y) {
    int every = label_every(c);
    bool roomy = c->column >= 34;
    for (int i = 0; i < c->sweep->point_count; i++) {
        char text[32], lines[3][96];
        if (i % every == 0)
            viz_text(c->canvas, style(c, text_size, false), VIZ_CENTRE, column_middle(c, i), y,
                     VIZ_ANY_ROOM, value_text(c->sweep, i, text));
        if (!roomy || !c->sweep->points[i].planned) continue;
        plan_lines(c->sweep, &c->sweep->points[i], lines);
        for (int line = 0; line < 3; line++)
            viz_text(c->canvas, style(c, small_size, true), VIZ_CENTRE, column_middle(c, i),
                     y + LINE * (line + 1), c->column - 4, lines[line]);
    }
}

static void draw_reasons(sweep_picture *c, double y) {
    const pp_sweep *sweep = c->sweep;
    int told = 0, untold = 0;
    char text[128 + sizeof sweep->points->reason], value[32];
    for (int i = 0; i < sweep->point_count; i++) {
        if (sweep->points[i].planned) continue;
        if (told == REASONS) {
            untold++;
            continue;
        }
        snprintf(text, sizeof text, "no plan at %s: %s", value_text(sweep, i, value),
                 sweep->points[i].reason);
        viz_text(c->canvas, style(c, small_size, true), VIZ_LEFT, MARGIN, y + LINE * told++,
                 c->canvas->width - 2 * MARGIN, text);
    }
    if (untold == 0) return;
    snprintf(text, sizeof text, "… nor at %d more", untold);
    viz_text(c->canvas, style(c, small_size, true), VIZ_LEFT, MARGIN, y + LINE * told,
             c->canvas->width - 2 * MARGIN, text);
}

pp_status viz_sweep(const pp_sweep *sweep, const viz_theme *theme, const double size[2],
                    viz_canvas *canvas, pp_error *error) {
    sweep_picture c = {.sweep = sweep, .theme = theme, .canvas = canvas};
    PP_TRY(lay_out(&c, size, error));
    viz_fill(canvas, (viz_rect){0, 0, canvas->width, canvas->height}, theme->page);
    draw_head(&c);
    for (int p = 0; p < PANELS; p++) draw_panel(&c, p);
    double below = panel_top(&c, PANELS - 1) + c.height + LINE + 3;
    draw_values(&c, below);
    viz_text(canvas, style(&c, text_size, true), VIZ_CENTRE, c.left + c.width / 2,
             below + 4 * LINE + 6, c.width, swept[sweep->kind].axis);
    draw_reasons(&c, below + 5 * LINE + 14);
    return PP_OK;
}
