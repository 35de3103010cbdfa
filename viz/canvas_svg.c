/* SVG, written by ourselves: cairo's writer turns text into outlines and numbers its elements by a
 * counter of the process, so the same picture would have other bytes the second time and no word in
 * it could be searched, copied or edited.
 *
 * Each text carries the length that it was measured with, so that it keeps to its place in a viewer
 * that has other fonts. */
#include "viz/canvas_internal.h"

#include <math.h>
#include <string.h>

static void escape(pp_text *out, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '&':
            pp_text_string(out, "&amp;");
            break;
        case '<':
            pp_text_string(out, "&lt;");
            break;
        case '>':
            pp_text_string(out, "&gt;");
            break;
        case '"':
            pp_text_string(out, "&quot;");
            break;
        default:
            pp_text_append(out, text, 1);
        }
    }
}

/* name="12.5": hundredths of a point are finer than any screen. */
static void number(pp_text *out, const char *name, double value) {
    char buffer[32], trimmed[32];
    const char *digits = viz_fixed(value, 2, buffer);
    size_t length = strlen(digits);
    while (length > 0 && digits[length - 1] == '0') length--;
    if (length > 0 && digits[length - 1] == '.') length--;
    memcpy(trimmed, digits, length);
    trimmed[length] = '\0';
    pp_text_printf(out, " %s=\"%s\"", name, trimmed);
}

static void colour(pp_text *out, viz_colour value) {
    pp_text_printf(out, " fill=\"#%06x\"", (unsigned)value);
}

static void rectangle(pp_text *out, const viz_item *item) {
    pp_text_string(out, "<rect");
    number(out, "x", item->box.x);
    number(out, "y", item->box.y);
    number(out, "width", item->box.width);
    number(out, "height", item->box.height);
    colour(out, item->colour);
    pp_text_string(out, "/>\n");
}

static void text(pp_text *out, const viz_item *item) {
    pp_text_string(out, "<text");
    number(out, "x", item->box.x);
    number(out, "y", item->baseline);
    number(out, "font-size", (double)item->size);
    if (item->bold) pp_text_string(out, " font-weight=\"bold\"");
    number(out, "textLength", item->box.width);
    colour(out, item->colour);
    pp_text_string(out, ">");
    escape(out, item->text);
    pp_text_string(out, "</text>\n");
}

pp_status viz_write_svg(const viz_canvas *canvas, const viz_format *format, pp_text *image,
                        pp_error *error) {
    (void)format;
    (void)error;
    pp_text_string(image, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                          "<svg xmlns=\"http://www.w3.org/2000/svg\"");
    number(image, "width", canvas->width);
    number(image, "height", canvas->height);
    char width[32], height[32];
    pp_text_printf(image, " viewBox=\"0 0 %s %s\"", viz_fixed(canvas->width, 2, width),
                   viz_fixed(canvas->height, 2, height));
    pp_text_string(image, " font-family=\"DejaVu Sans, Verdana, sans-serif\">\n<title>");
    escape(image, canvas->title ? canvas->title : "");
    pp_text_string(image, "</title>\n");
    for (size_t i = 0; i < canvas->item_count; i++)
        (canvas->items[i].text ? text : rectangle)(image, &canvas->items[i]);
    pp_text_string(image, "</svg>\n");
    return PP_OK;
}
