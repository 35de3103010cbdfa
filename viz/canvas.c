/* The canvas's list of rectangles and texts, and the measuring of text.
 *
 * Text is measured by pango with hinting and rounding off, so that widths grow in proportion to the
 * size and are the same for every output: a layout that fits on the canvas fits in all three
 * formats. Language and direction are fixed, because pango otherwise picks fonts by the locale. */
#include "viz/canvas_internal.h"

#include <math.h>
#include <pango/pangocairo.h>
#include <string.h>

/* Shares of the size: generous enough for the usual sans-serif fonts. */
#define ASCENT 0.93
#define DESCENT 0.24
#define DIGIT_HEIGHT 0.73

static const char ellipsis[] = "\xe2\x80\xa6";

pp_status viz_canvas_init(viz_canvas *canvas, pp_error *error) {
    *canvas = (viz_canvas){0};
    pp_arena_init(&canvas->arena);
    PangoContext *context = pango_font_map_create_context(pango_cairo_font_map_get_default());
    cairo_font_options_t *options = cairo_font_options_create();
    if (!context || cairo_font_options_status(options) != CAIRO_STATUS_SUCCESS) {
        cairo_font_options_destroy(options);
        if (context) g_object_unref(context);
        return pp_fail_memory(error);
    }
    cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
    cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
    pango_cairo_context_set_font_options(context, options);
    pango_cairo_context_set_resolution(context, 72);
    pango_context_set_round_glyph_positions(context, FALSE);
    pango_context_set_language(context, pango_language_from_string("en"));
    pango_context_set_base_dir(context, PANGO_DIRECTION_LTR);
    canvas->layout = pango_layout_new(context);
    pango_layout_set_single_paragraph_mode(canvas->layout, TRUE);
    pango_layout_set_auto_dir(canvas->layout, FALSE);
    cairo_font_options_destroy(options);
    g_object_unref(context);
    return PP_OK;
}

void viz_canvas_deinit(viz_canvas *canvas) {
    if (canvas->layout) g_object_unref(canvas->layout);
    pp_free(canvas->items);
    pp_arena_deinit(&canvas->arena);
    *canvas = (viz_canvas){0};
}

/* A new item at the end of the list, or NULL. */
static viz_item *add_item(viz_canvas *canvas) {
    if (canvas->failed) return NULL;
    if (canvas->item_count == canvas->item_capacity) {
        size_t capacity = canvas->item_capacity ? 2 * canvas->item_capacity : 512;
        viz_item *items = pp_reallocate(canvas->items, capacity * sizeof *items);
        if (!items) {
            canvas->failed = true;
            return NULL;
        }
        canvas->items = items;
        canvas->item_capacity = capacity;
    }
    viz_item *item = &canvas->items[canvas->item_count++];
    *item = (viz_item){0};
    return item;
}

/* Whether the last item is a rectangle that this one continues to the right. */
static bool continues(const viz_canvas *canvas, viz_rect box, viz_colour colour) {
    if (canvas->item_count == 0) return false;
    const viz_item *last = &canvas->items[canvas->item_count - 1];
    return !last->text && last->colour == colour && last->box.y == box.y &&
           last->box.height == box.height && fabs(last->box.x + last->box.width - box.x) < 1e-6;
}

void viz_fill(viz_canvas *canvas, viz_rect box, viz_colour colour) {
    if (!(box.width > 0 && box.height > 0)) return;
    if (continues(canvas, box, colour)) { /* one rectangle instead of two */
        canvas->items[canvas->item_count - 1].box.width += box.width;
        return;
    }
    viz_item *item = add_item(canvas);
    if (!item) return;
    item->box = box;
    item->colour = colour;
}

/* ---- text ---------------------------------------------------------------------------------- */

void viz_layout_set(const viz_canvas *canvas, double size, bool bold, const char *text) {
    PangoFontDescription *font = pango_font_description_new();
    pango_font_description_set_family_static(font, "sans");
    pango_font_description_set_weight(font, bold ? PANGO_WEIGHT_BOLD : PANGO_WEIGHT_NORMAL);
    pango_font_description_set_absolute_size(font, size * PANGO_SCALE);
    pango_layout_set_font_description(canvas->layout, font);
    pango_layout_set_text(canvas->layout, text, -1);
    pango_font_description_free(font);
}

double viz_text_width(viz_canvas *canvas, double size, bool bold, const char *text) {
    PangoRectangle logical;
    viz_layout_set(canvas, size, bold, text);
    pango_layout_get_extents(canvas->layout, NULL, &logical);
    return (double)logical.width / PANGO_SCALE;
}

double viz_label_width(viz_canvas *canvas, double size, const char *text) {
    double width = 0;
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        double *advance = &canvas->advance[*c & 127];
        /* measured large, for precision */
        if (*advance == 0)
            *advance = viz_text_width(canvas, 100, false, (char[]){(char)(*c & 127), 0}) / 100;
        width += *advance;
    }
    return width * size;
}

/* A copy of at most `length` bytes that is valid UTF-8 without control characters, and room for an
 * ellipsis behind it. */
static char *clean_copy(viz_canvas *canvas, const char *text, size_t length) {
    char *copy = pp_arena_allocate(&canvas->arena, length + sizeof ellipsis, 1);
    if (!copy) {
        canvas->failed = true;
        return NULL;
    }
    memcpy(copy, text, length);
    const char *bad;
    while (!g_utf8_validate(copy, (gssize)length, &bad)) copy[bad - copy] = '?';
    for (char *c = copy; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = ' ';
    return copy;
}

void viz_canvas_title(viz_canvas *canvas, const char *title) {
    canvas->title = clean_copy(canvas, title, strlen(title));
}

/* Cuts a copy until it and an ellipsis fit; false: nothing does. */
static bool elide(viz_canvas *canvas, viz_style style, double room, char *copy) {
    size_t fits = 0, count = (size_t)g_utf8_strlen(copy, -1), low = 1, high = count;
    char *trial = pp_arena_allocate(&canvas->arena, strlen(copy) + sizeof ellipsis, 1);
    if (!trial) canvas->failed = true;
    while (trial && low <= high) { /* the most characters that fit */
        size_t middle = (low + high) / 2;
        size_t bytes = (size_t)(g_utf8_offset_to_pointer(copy, (glong)middle) - copy);
        memcpy(trial, copy, bytes);
        memcpy(trial + bytes, ellipsis, sizeof ellipsis);
        bool fit = viz_text_width(canvas, style.size, style.bold, trial) <= room;
        if (fit) fits = middle;
        if (fit)
            low = middle + 1;
        else
            high = middle - 1;
    }
    if (fits == 0) return false;
    char *end = g_utf8_offset_to_pointer(copy, (glong)fits);
    while (end > copy + 1 && end[-1] == ' ') end--;
    memcpy(end, ellipsis, sizeof ellipsis);
    return true;
}

static void add_text(viz_canvas *canvas, viz_style style, double left, double baseline,
                     double width, const char *text) {
    viz_item *item = add_item(canvas);
    if (!item) return;
    item->box =
        (viz_rect){left, baseline - ASCENT * style.size, width, (ASCENT + DESCENT) * style.size};
    item->text = text;
    item->baseline = baseline;
    item->size = (float)style.size;
    item->colour = style.colour;
    item->bold = style.bold;
}

double viz_text(viz_canvas *canvas, viz_style style, viz_align align, double x, double baseline,
                double room, const char *text) {
    if (canvas->failed || !*text) return 0;
    char *copy = clean_copy(canvas, text, strlen(text));
    if (!copy) return 0;
    double width = viz_text_width(canvas, style.size, style.bold, copy);
    if (width > room) {
        if (!elide(canvas, style, room, copy)) return 0;
        width = viz_text_width(canvas, style.size, style.bold, copy);
    }
    double left = align == VIZ_LEFT ? x : align == VIZ_CENTRE ? x - width / 2 : x - width;
    add_text(canvas, style, left, baseline, width, copy);
    return width;
}

void viz_label(viz_canvas *canvas, viz_style style, double x, double y, double width,
               const char *text) {
    char *copy = canvas->failed ? NULL : clean_copy(canvas, text, strlen(text));
    if (copy) add_text(canvas, style, x - width / 2, viz_baseline(style.size, y), width, copy);
}

double viz_baseline(double size, double y) {
    return y + DIGIT_HEIGHT * size / 2;
}

const char *viz_fixed(double value, int decimals, char buffer[32]) {
    static const double power[] = {1,   1e1, 1e2, 1e3,  1e4,  1e5, 1e6,
                                   1e7, 1e8, 1e9, 1e10, 1e11, 1e12};
    double scaled = round(fabs(value) * power[decimals]);
    if (!(scaled < 9e18)) return memcpy(buffer, "-", 2);
    uint64_t digits = (uint64_t)scaled;
    char *out = buffer + 31;
    *out = '\0';
    for (int i = 0; i <= decimals || digits > 0; i++) {
        if (i == decimals && decimals > 0) *--out = '.';
        *--out = (char)('0' + digits % 10);
        digits /= 10;
    }
    if (value < 0 && scaled > 0) *--out = '-';
    return out;
}
