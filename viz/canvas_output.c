/* From the canvas to the bytes of a file: the table of formats, and what cairo writes (PNG, PDF).
 *
 * The bytes depend on the canvas alone: no date, no counter, no locale goes into them. */
#include "viz/canvas_internal.h"

#include <assert.h>
#include <cairo-pdf.h>
#include <pango/pangocairo.h>
#include <string.h>
#include <strings.h>

static pp_status write_png(const viz_canvas *, const viz_format *, pp_text *, pp_error *);
static pp_status write_pdf(const viz_canvas *, const viz_format *, pp_text *, pp_error *);

static const viz_format formats[] = {
    {".png", 2, write_png},
    {".svg", 1, viz_write_svg},
    {".pdf", 1, write_pdf},
};

pp_status viz_format_find(const char *path, const viz_format **format, pp_error *error) {
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        size_t ending = strlen(formats[i].ending);
        if (length < ending || strcasecmp(path + length - ending, formats[i].ending) != 0) continue;
        *format = &formats[i];
        return PP_OK;
    }
    return pp_fail(error, PP_E_INPUT, path,
                   "the ending of the file decides the format of the picture: use .png, .svg or "
                   ".pdf");
}

pp_status viz_canvas_write(const viz_canvas *canvas, const viz_format *format, pp_text *image,
                           pp_error *error) {
    if (canvas->failed || canvas->arena.failed) return pp_fail_memory(error);
    PP_TRY(format->write(canvas, format, image, error));
    return image->failed ? pp_fail_memory(error) : PP_OK;
}

/* ---- cairo --------------------------------------------------------------------------------- */

static cairo_status_t append(void *text_, const unsigned char *bytes, unsigned length) {
    pp_text *text = text_;
    pp_text_append(text, bytes, length);
    return text->failed ? CAIRO_STATUS_WRITE_ERROR : CAIRO_STATUS_SUCCESS;
}

/* cairo's word for what happened in ours. The only writing that can fail is into memory. */
static pp_status translate(cairo_status_t status, const viz_canvas *canvas, pp_error *error) {
    if (status == CAIRO_STATUS_SUCCESS) return PP_OK;
    if (status == CAIRO_STATUS_NO_MEMORY || status == CAIRO_STATUS_WRITE_ERROR)
        return pp_fail_memory(error);
    pp_fail(error, PP_E_FAILED, NULL, "cannot draw a picture of %.0f × %.0f points", canvas->width,
            canvas->height);
    return pp_fail_cause(error, cairo_status_to_string(status));
}

static void set_colour(cairo_t *cairo, viz_colour colour) {
    cairo_set_source_rgb(cairo, (colour >> 16 & 255) / 255.0, (colour >> 8 & 255) / 255.0,
                         (colour & 255) / 255.0);
}

static void paint_item(cairo_t *cairo, const viz_canvas *canvas, const viz_item *item) {
    set_colour(cairo, item->colour);
    if (!item->text) {
        cairo_rectangle(cairo, item->box.x, item->box.y, item->box.width, item->box.height);
        cairo_fill(cairo);
        return;
    }
    viz_layout_set(canvas, (double)item->size, item->bold, item->text);
    cairo_move_to(cairo, item->box.x, item->baseline);
    pango_cairo_show_layout_line(cairo, pango_layout_get_line_readonly(canvas->layout, 0));
}

/* Paints everything on a new surface, which it takes. */
static cairo_status_t paint(cairo_surface_t *surface, const viz_canvas *canvas, double scale) {
    cairo_t *cairo = cairo_create(surface);
    cairo_scale(cairo, scale, scale);
    pango_cairo_update_layout(cairo, canvas->layout);
    for (size_t i = 0; i < canvas->item_count; i++) paint_item(cairo, canvas, &canvas->items[i]);
    cairo_show_page(cairo);
    cairo_status_t status = cairo_status(cairo);
    cairo_destroy(cairo);
    return status;
}

static pp_status write_png(const viz_canvas *canvas, const viz_format *format, pp_text *image,
                           pp_error *error) {
    cairo_surface_t *surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)(canvas->width * format->scale + 0.5),
                                   (int)(canvas->height * format->scale + 0.5));
    cairo_status_t status = paint(surface, canvas, format->scale);
    if (status == CAIRO_STATUS_SUCCESS)
        status = cairo_surface_write_to_png_stream(surface, append, image);
    cairo_surface_destroy(surface);
    return translate(status, canvas, error);
}

static pp_status write_pdf(const viz_canvas *canvas, const viz_format *format, pp_text *image,
                           pp_error *error) {
    cairo_surface_t *surface = cairo_pdf_surface_create_for_stream(
        append, image, canvas->width * format->scale, canvas->height * format->scale);
    cairo_pdf_surface_set_metadata(surface, CAIRO_PDF_METADATA_TITLE,
                                   canvas->title ? canvas->title : "");
    /* cairo would write the present time */
    cairo_pdf_surface_set_metadata(surface, CAIRO_PDF_METADATA_CREATE_DATE, "2000-01-01T00:00:00Z");
    cairo_status_t status = paint(surface, canvas, format->scale);
    cairo_surface_finish(surface);
    if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_status(surface);
    cairo_surface_destroy(surface);
    return translate(status, canvas, error);
}
