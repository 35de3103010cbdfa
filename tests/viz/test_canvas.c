/* The canvas: numbers and texts as they come out, formats by ending, the axis's ticks. */
#include "tests/live_bytes.h"
#include "viz_support.h"

#include <locale.h>

COUNTED_SUITE(canvas);
COUNTED_SUITE(axis);

Test(canvas, fixed_numbers) {
    static const struct {
        double value;
        int decimals;
        const char *text;
    } cases[] = {{0, 0, "0"},         {0, 2, "0.00"},        {1, 0, "1"},
                 {-1.25, 1, "-1.3"},  {0.04, 1, "0.0"},      {-0.04, 1, "0.0"},
                 {9.999, 2, "10.00"}, {123456, 0, "123456"}, {1e-7, 7, "0.0000001"},
                 {NAN, 1, "-"},       {INFINITY, 0, "-"},    {1e30, 0, "-"},
                 {99.95, 1, "100.0"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char buffer[32];
        /* ties are decided by the product's own rounding: 99.95 · 10 is 999.5 */
        cr_expect_str_eq(viz_fixed(cases[i].value, cases[i].decimals, buffer), cases[i].text);
    }
}

Test(canvas, times_for_people) {
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {{0, "0 s"},       {3.21e-5, "32.1 µs"}, {1.5e-3, "1.50 ms"}, {33, "33.0 s"},
                 {18000, "5.0 h"}, {3.6e6, "1000 h"},    {2e-9, "2.00 ns"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char buffer[32];
        cr_expect_str_eq(viz_seconds_text(cases[i].seconds, buffer), cases[i].text);
    }
}

static const viz_style plain = {9, false, 0};

/* The text of the last item. */
static const viz_item *last(const viz_canvas *canvas) {
    return &canvas->items[canvas->item_count - 1];
}

Test(canvas, texts_are_cut_to_their_room) {
    viz_canvas canvas;
    cr_assert_eq(viz_canvas_init(&canvas, NULL), PP_OK);
    const char *text = "Größe: eine sehr lange Überschrift, die nirgends hineinpasst";
    double whole = viz_text_width(&canvas, 9, false, text);
    for (double room = 0; room < whole + 2; room += 3.7) {
        size_t before = canvas.item_count;
        double width = viz_text(&canvas, plain, VIZ_LEFT, 10, 20, room, text);
        cr_expect_leq(width, room);
        if (canvas.item_count == before) { /* nothing fits into so little */
            cr_expect_lt(room, 20);
            continue;
        }
        cr_expect_float_eq(last(&canvas)->box.width, width, 1e-9);
        bool cut = strcmp(last(&canvas)->text, text) != 0;
        cr_expect_eq(cut, room < whole);
        if (cut) cr_expect(strstr(last(&canvas)->text, "\xe2\x80\xa6") != NULL);
    }
    viz_canvas_deinit(&canvas);
    cr_expect_eq(pp_live_bytes(), 0);
}

Test(canvas, foreign_bytes_become_harmless) {
    static const char *const texts[] = {
        "\xff\xfe", "a\xc3", "\xe2\x80", "tab\there\nand\x01", "\xed\xa0\x80 surrogate", "ok ü"};
    viz_canvas canvas;
    cr_assert_eq(viz_canvas_init(&canvas, NULL), PP_OK);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        viz_text(&canvas, plain, VIZ_LEFT, 0, 10, VIZ_ANY_ROOM, texts[i]);
        cr_expect_eq(strlen(last(&canvas)->text), strlen(texts[i]));
        for (const char *c = last(&canvas)->text; *c; c++)
            cr_expect((unsigned char)*c >= ' ', "%s", texts[i]);
    }
    cr_expect_str_eq(last(&canvas)->text, "ok ü");
    viz_canvas_deinit(&canvas);
}

Test(canvas, labels_measure_as_pango_does) {
    viz_canvas canvas;
    cr_assert_eq(viz_canvas_init(&canvas, NULL), PP_OK);
    static const char *const texts[] = {"F3", "12", "127B4095", "1.50 GiB", "88.9 %", "step"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        cr_expect_float_eq(viz_label_width(&canvas, 8.5, texts[i]),
                           viz_text_width(&canvas, 8.5, false, texts[i]), 0.3, "%s", texts[i]);
    viz_canvas_deinit(&canvas);
}

Test(canvas, the_ending_chooses_the_format) {
    static const char *const good[] = {"a.png", "a.PNG", "dir.pdf/x.Svg", ".pdf", "a.b.PdF"};
    static const char *const bad[] = {"", "png", "a.jpg", "a.png ", "a.svgz", "a.pdf/"};
    const viz_format *format;
    pp_error error;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_expect_eq(viz_format_find(good[i], &format, &error), PP_OK, "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(viz_format_find(bad[i], &format, &error), PP_E_INPUT, "%s", bad[i]);
        cr_expect(strstr(error.message, ".png, .svg or .pdf") != NULL);
        cr_expect_str_eq(error.place, bad[i]);
    }
}

/* Ticks lie on 1, 2 or 5 times a power of ten, their labels are parted, and there are some. */
static void check_axis(viz_canvas *canvas, double low, double high, double width, bool bytes) {
    viz_axis axis = viz_axis_make(canvas, 8.5, low, high, 100, 100 + width, bytes);
    double mantissa = axis.step / pow(10, floor(log10(axis.step) + 1e-9));
    cr_expect(fabs(mantissa - 1) < 1e-6 || fabs(mantissa - 2) < 1e-6 || fabs(mantissa - 5) < 1e-6,
              "%g…%g: step %g", low, high, axis.step);
    double end = -INFINITY, x;
    char label[32], before[32] = "";
    int count = 0;
    for (; viz_axis_tick(&axis, count, &x, label); count++) {
        double half = viz_label_width(canvas, 8.5, label) / 2;
        cr_expect_geq(x, 100 - 1e-6);
        cr_expect_geq(x - half, end + 6, "%g…%g at %g points: %s %s", low, high, width, before,
                      label);
        cr_expect_str_neq(label, before);
        end = x + half;
        memcpy(before, label, sizeof before);
    }
    cr_expect_leq(count, (int)(width / 40) + 1);
    cr_expect_geq(count, 1, "%g…%g", low, high);
    if (width >= 480)
        cr_expect_geq(count, 3, "%g…%g at %g points has %d ticks", low, high, width, count);
}

Test(axis, ticks_of_many_ranges) {
    viz_canvas canvas;
    cr_assert_eq(viz_canvas_init(&canvas, NULL), PP_OK);
    for (double high = 1.3e-14; high < 9e14; high *= 3.7)
        for (double width = 180; width < 4000; width *= 1.9) {
            check_axis(&canvas, 0, high, width, false);
            check_axis(&canvas, -0.1 * high, high, width, false);
            if (high > 1) check_axis(&canvas, 0, high, width, true);
        }
    check_axis(&canvas, 0, 0, 480, false); /* nothing happened */
    viz_canvas_deinit(&canvas);
}

Test(axis, units) {
    static const struct {
        double high;
        bool bytes;
        const char *unit;
    } cases[] = {{3e-9, false, "ns"}, {5e-6, false, "µs"}, {0.033, false, "ms"}, {1.5, false, "ms"},
                 {33, false, "s"},    {17000, false, "s"}, {1e5, false, "h"},    {100, true, "B"},
                 {5e9, true, "GiB"},  {1e13, true, "TiB"}};
    viz_canvas canvas;
    cr_assert_eq(viz_canvas_init(&canvas, NULL), PP_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        viz_axis axis = viz_axis_make(&canvas, 8.5, 0, cases[i].high, 0, 480, cases[i].bytes);
        cr_expect_str_eq(axis.unit->name, cases[i].unit, "%g: %s", cases[i].high, axis.unit->name);
    }
    viz_canvas_deinit(&canvas);
}
