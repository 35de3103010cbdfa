/* The canvas: what charts draw on. A list of filled rectangles and single lines of text in points,
 * y downward, kept until it is complete; only then is it turned into PNG, PDF or SVG. Having the
 * list lets a test ask what a picture holds (does any text overlap another?) instead of guessing
 * from pixels.
 *
 * Adding cannot fail visibly: the canvas remembers the first failure and viz_canvas_write reports
 * it. Painted in the order of adding. */
#ifndef PPSIM_VIZ_CANVAS_INTERNAL_H
#define PPSIM_VIZ_CANVAS_INTERNAL_H

#include "core/core.h"

#include <cairo.h>

typedef uint32_t viz_colour; /* 0xRRGGBB */

typedef struct viz_rect {
    double x, y, width, height;
} viz_rect;

/* How a text looks. */
typedef struct viz_style {
    double size; /* points per em */
    bool bold;
    viz_colour colour;
} viz_style;

typedef enum viz_align { VIZ_LEFT, VIZ_CENTRE, VIZ_RIGHT } viz_align;

typedef struct viz_item {
    viz_rect box;     /* filled; of a text: from its ascent to its descent */
    const char *text; /* NULL: a filled rectangle. Owned by the canvas. */
    double baseline;  /* y of the text's */
    float size;
    viz_colour colour;
    bool bold;
} viz_item;

typedef struct viz_canvas {
    double width, height; /* points */
    viz_item *items;
    size_t item_count, item_capacity;
    const char *title;   /* of the file; owned by the canvas */
    double advance[128]; /* widths of the ASCII characters at 1 point; 0: not measured yet */
    pp_arena arena;      /* owns the texts */
    struct _PangoLayout *layout; /* measures and draws every text */
    bool failed;                 /* out of memory */
} viz_canvas;

/* A file format: a row of the table in canvas_output.c. */
typedef struct viz_format viz_format;
struct viz_format {
    const char *ending; /* ".png" */
    double scale;       /* pixels or points of the file per point of the canvas */
    pp_status (*write)(const viz_canvas *canvas, const viz_format *format, pp_text *image,
                       pp_error *error);
};

pp_status viz_canvas_init(viz_canvas *canvas, pp_error *error);
void viz_canvas_deinit(viz_canvas *canvas);

/* Describes the whole picture in the file. */
void viz_canvas_title(viz_canvas *canvas, const char *title);
/* Rectangles without area are left out. */
void viz_fill(viz_canvas *canvas, viz_rect box, viz_colour colour);

/* Adds one line of text whose left end, middle or right end is at x. Longer than `room` points it
 * is cut and ends in an ellipsis; where not even that fits, nothing is drawn. Control characters
 * and bytes that are not UTF-8 are replaced. Returns the width that it took. */
double viz_text(viz_canvas *canvas, viz_style style, viz_align align, double x, double baseline,
                double room, const char *text);
#define VIZ_ANY_ROOM 1e9

double viz_text_width(viz_canvas *canvas, double size, bool bold, const char *text);
/* The same for regular ASCII, from a table: for the labels of many thousands of spans. */
double viz_label_width(viz_canvas *canvas, double size, const char *text);
/* Adds such a label, centred on (x, y) by the height of its digits; width: viz_label_width. */
void viz_label(viz_canvas *canvas, viz_style style, double x, double y, double width,
               const char *text);

/* Baseline that centres digits of this size on y. */
double viz_baseline(double size, double y);

/* The format by the path's ending in any case. PP_E_INPUT: names those that there are. */
pp_status viz_format_find(const char *path, const viz_format **format, pp_error *error);
pp_status viz_canvas_write(const viz_canvas *canvas, const viz_format *format, pp_text *image,
                           pp_error *error);
pp_status viz_write_svg(const viz_canvas *canvas, const viz_format *format, pp_text *image,
                        pp_error *error);

/* Points the canvas's layout at a text; for the writers. */
void viz_layout_set(const viz_canvas *canvas, double size, bool bold, const char *text);

/* value with so many decimals (at most 12) and a decimal point in any locale. */
const char *viz_fixed(double value, int decimals, char buffer[32]);

#endif
