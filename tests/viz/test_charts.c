/* Whole pictures: what lies where, that no text meets another, the bytes of the formats, refusals,
 * failing allocations, and random traces. */
#include "tests/live_bytes.h"
#include "viz_support.h"

#include <locale.h>

COUNTED_SUITE(charts);
COUNTED_SUITE(timeline);
COUNTED_SUITE(formats);
COUNTED_SUITE(compare);
COUNTED_SUITE(memory);

static const double free_size[2] = {0, 0};

static pp_status draw(const char *chart, const pp_trace *const *traces, const double size[2],
                      viz_canvas *canvas) {
    pp_error error = {0};
    int count = strcmp(chart, "compare") == 0 ? 2 : 1;
    pp_status status = viz_chart_draw(chart, traces, count, size, false, canvas, &error);
    if (status != PP_OK) cr_expect(error.message[0] != '\0');
    return status;
}

static const viz_item *find_text(const viz_canvas *canvas, const char *text) {
    for (size_t i = 0; i < canvas->item_count; i++)
        if (canvas->items[i].text && strcmp(canvas->items[i].text, text) == 0)
            return &canvas->items[i];
    return NULL;
}

static bool has_text_with(const viz_canvas *canvas, const char *part) {
    for (size_t i = 0; i < canvas->item_count; i++)
        if (canvas->items[i].text && strstr(canvas->items[i].text, part)) return true;
    return false;
}

/* ---- layout -------------------------------------------------------------------------------- */

static int by_left(const void *a, const void *b) {
    double x = (*(const viz_item *const *)a)->box.x, y = (*(const viz_item *const *)b)->box.x;
    return (x > y) - (x < y);
}

/* No two texts overlap, and everything lies on the page. */
static void check_layout(const viz_canvas *canvas, const char *what) {
    const viz_item **texts = calloc(canvas->item_count, sizeof *texts);
    size_t count = 0;
    for (size_t i = 0; i < canvas->item_count; i++) {
        const viz_rect *box = &canvas->items[i].box;
        if (canvas->items[i].text) texts[count++] = &canvas->items[i];
        cr_assert(box->x >= -0.01 && box->y >= -0.01 &&
                      box->x + box->width <= canvas->width + 0.01 &&
                      box->y + box->height <= canvas->height + 0.01,
                  "%s: %s at %g, %g, %g × %g leaves the page of %g × %g", what,
                  canvas->items[i].text ? canvas->items[i].text : "a rectangle", box->x, box->y,
                  box->width, box->height, canvas->width, canvas->height);
    }
    qsort(texts, count, sizeof *texts, by_left);
    for (size_t i = 0; i < count; i++)
        for (size_t j = i + 1; j < count; j++) {
            const viz_rect *a = &texts[i]->box, *b = &texts[j]->box;
            if (b->x >= a->x + a->width) break;
            cr_assert(b->y >= a->y + a->height - 0.1 || a->y >= b->y + b->height - 0.1,
                      "%s: '%s' and '%s' overlap", what, texts[i]->text, texts[j]->text);
        }
    free(texts);
}

static const recipe recipes[] = {
    {.ranks = 1, .microbatches = 1, .forward_s = 1e-3},
    {.ranks = 4, .microbatches = 8, .forward_s = 1e-3, .transfer_s = 1e-4},
    {.ranks = 4, .microbatches = 8, .forward_s = 0},
    {.ranks = 8, .microbatches = 32, .forward_s = 0.022, .recompute = true, .tail = true},
    {.ranks = 16, .microbatches = 64, .forward_s = 1e-3, .transfer_s = 1e-5},
    {.ranks = 64, .microbatches = 256, .forward_s = 5e-3},
    {.ranks = 300, .microbatches = 8, .forward_s = 5e-3, .gpipe = true},
    {.ranks = 2, .microbatches = 3000, .forward_s = 5e-3},
    {.ranks = 4, .microbatches = 6, .forward_s = 1e-3, .chunks = 3, .split = true, .gpipe = true},
    {.ranks = 4,
     .microbatches = 8,
     .forward_s = 1e-3,
     .jitter = 0.4,
     .measured = true,
     .tail = true,
     .transfer_s = 1e-4,
     .seed = 7},
    {.ranks = 4, .microbatches = 8, .forward_s = 1e-14},
    {.ranks = 4, .microbatches = 8, .forward_s = 2e13},
    {.ranks = 3, .microbatches = 5, .forward_s = 1e-3, .curves = true},
};
enum { RECIPES = sizeof recipes / sizeof *recipes };

Test(charts, texts_never_overlap_and_stay_on_the_page) {
    static const double sizes[][2] = {{0, 0}, {300, 0}, {420, 240}, {900, 500}, {0, 3000}};
    static const char *const names[] = {"timeline", "memory", "compare"};
    for (int r = 0; r < RECIPES; r++) {
        pp_trace *trace = make_trace(recipes[r]);
        recipe other = recipes[r];
        other.measured = true, other.jitter = 0.1;
        pp_trace *measured = make_trace(other);
        const pp_trace *both[2] = {trace, measured};
        memset(trace->title, 'W', sizeof trace->title - 1); /* as wide as titles get */
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int c = 0; c < 3; c++) {
                viz_canvas canvas;
                char what[80];
                snprintf(what, sizeof what, "recipe %d, %s, size %zu", r, names[c], s);
                cr_assert_eq(draw(names[c], both, sizes[s], &canvas), PP_OK, "%s", what);
                check_layout(&canvas, what);
                if (sizes[s][0] > 0) cr_assert_float_eq(canvas.width, sizes[s][0], 1, "%s", what);
                if (sizes[s][1] > 0) cr_assert_float_eq(canvas.height, sizes[s][1], 1, "%s", what);
                viz_canvas_deinit(&canvas);
            }
        pp_trace_free(trace);
        pp_trace_free(measured);
    }
    cr_expect_eq(pp_live_bytes(), 0);
}

/* ---- sweeps -------------------------------------------------------------------------------- */

static pp_sweep *make_sweep(pp_sweep_kind kind, int count, double scale) {
    pp_sweep *sweep;
    cr_assert_eq(pp_sweep_new(count, &sweep, NULL), PP_OK);
    sweep->kind = kind;
    sweep->global_batch = 512;
    memset(sweep->model, 'W', 200);
    snprintf(sweep->cluster, sizeof sweep->cluster, "dgx-h100:1");
    for (int i = 0; i < count; i++) {
        pp_sweep_point *point = &sweep->points[i];
        point->value = kind == PP_SWEEP_MEMORY ? (i + 1) * INT64_C(12345678901) : i + 1;
        point->planned = i % 4 != 3;
        snprintf(point->reason, sizeof point->reason, point->planned ? "" : "too %01000d", i);
        point->iteration_time_s = scale / (i + 1);
        point->bubble_fraction = 1.0 / (i + 2);
        point->compute_loss = scale * i;
        point->peak_bytes = (int64_t)(scale * 1e9) * i;
        point->ranks = point->microbatches = 1000 * (i + 1);
        point->dp = point->tp = 64;
        snprintf(point->schedule, sizeof point->schedule, "pytorch-interleaved-zb");
    }
    return sweep;
}

Test(charts, sweeps_of_any_length_and_size_are_laid_out) {
    static const double sizes[][2] = {{0, 0}, {300, 0}, {420, 420}, {900, 500}, {0, 3000}};
    static const int counts[] = {1, 2, 6, 11, 40, 3000};
    for (int i = 0; i < 6; i++)
        for (int s = 0; s < 5; s++)
            for (int k = 0; k < 9; k++) {
                static const double scales[] = {0, 1e-6, 4000};
                pp_sweep *sweep = make_sweep((pp_sweep_kind)(k % 3), counts[i], scales[k / 3]);
                viz_canvas canvas;
                pp_error error = {0};
                char what[80];
                snprintf(what, sizeof what, "%d points, size %d, case %d", counts[i], s, k);
                cr_assert_eq(viz_sweep_draw(sweep, sizes[s], false, &canvas, &error), PP_OK,
                             "%s: %s", what, error.message);
                check_layout(&canvas, what);
                if (sizes[s][0] > 0) cr_assert_float_eq(canvas.width, sizes[s][0], 1, "%s", what);
                if (sizes[s][1] > 0) cr_assert_float_eq(canvas.height, sizes[s][1], 1, "%s", what);
                viz_canvas_deinit(&canvas);
                pp_sweep_free(sweep);
            }
    cr_expect_eq(pp_live_bytes(), 0);
}

/* Bars are as high as their values: twice the value is twice the height. */
Test(charts, bars_of_a_sweep_are_to_scale) {
    pp_sweep *sweep = make_sweep(PP_SWEEP_RANKS, 3, 4000);
    viz_canvas canvas;
    double tall[3];
    int count = 0;
    cr_assert_eq(viz_sweep_draw(sweep, free_size, false, &canvas, NULL), PP_OK);
    for (size_t i = 0; i < canvas.item_count; i++) {
        const viz_item *item = &canvas.items[i];
        if (item->text || item->colour != 0x5584c0 || item->box.width < 10) continue;
        cr_assert_lt(count, 3);
        tall[count++] = item->box.height;
    }
    cr_assert_eq(count, 3);
    for (int i = 0; i < 3; i++) cr_expect_float_eq(tall[i] * (i + 1), tall[0], 1e-6);
    cr_expect(has_text_with(&canvas, "step time, min") || has_text_with(&canvas, "step time, s"));
    cr_expect(has_text_with(&canvas, "pipeline ranks"));
    viz_canvas_deinit(&canvas);
    pp_sweep_free(sweep);
}

Test(charts, sweeps_too_small_or_large_to_draw_are_refused) {
    static const double sizes[][2] = {{100, 0}, {0, 300}, {20000, 0}, {0, 20000}};
    pp_sweep *sweep = make_sweep(PP_SWEEP_RANKS, 3, 1);
    for (int i = 0; i < 4; i++) {
        viz_canvas canvas;
        pp_error error = {0};
        cr_expect_eq(viz_sweep_draw(sweep, sizes[i], false, &canvas, &error), PP_E_INPUT);
        cr_expect(strstr(error.message, "points is too") != NULL, "%s", error.message);
        viz_canvas_deinit(&canvas);
    }
    pp_sweep_free(sweep);
}

Test(charts, natural_sizes_are_sane) {
    for (int r = 0; r < RECIPES; r++) {
        pp_trace *trace = make_trace(recipes[r]);
        viz_canvas canvas;
        cr_assert_eq(draw("timeline", (const pp_trace *const[]){trace}, free_size, &canvas), PP_OK);
        cr_expect(canvas.width >= 560 && canvas.width <= 2050, "recipe %d: %g", r, canvas.width);
        cr_expect(canvas.height >= 120 && canvas.height <= 2200, "recipe %d: %g", r, canvas.height);
        viz_canvas_deinit(&canvas);
        pp_trace_free(trace);
    }
}

Test(timeline, says_what_it_shows) {
    pp_trace *trace = make_trace((recipe){.ranks = 4, .microbatches = 8, .forward_s = 1e-3});
    viz_canvas canvas;
    cr_assert_eq(draw("timeline", (const pp_trace *const[]){trace}, free_size, &canvas), PP_OK);
    static const char *const expected[] = {
        "gpt2-124m on 4 devices",
        "rank 0",
        "rank 3",
        "F0",
        "F7",
        "B0",
        "B7",
        "forward (F)",
        "backward (B)",
        "idle",
        "time, ms",
        "30",
        "bubble 27.3 %",
        "step takes 33.0 ms",
        "72.7 %",
        "6.67 GiB",
        "1f1b · K = 4 ranks · M = 8 microbatches · V = 1 · simulated"};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        cr_expect(find_text(&canvas, expected[i]) != NULL, "'%s' is missing", expected[i]);
    cr_expect(find_text(&canvas, "rank 4") == NULL);
    viz_canvas_deinit(&canvas);
    pp_trace_free(trace);
}

Test(timeline, leaves_out_what_is_not_known_or_does_not_fit) {
    pp_trace *trace = make_trace((recipe){.ranks = 4, .microbatches = 200, .forward_s = 1e-3});
    viz_canvas canvas;
    for (int p = 0; p < 4; p++) trace->rank[p].peak_bytes = -1;
    const double narrow[2] = {500, 0};
    cr_assert_eq(draw("timeline", (const pp_trace *const[]){trace}, narrow, &canvas), PP_OK);
    cr_expect(find_text(&canvas, "peak memory") == NULL);
    cr_expect(!has_text_with(&canvas, "number: microbatch"), "no label has room");
    viz_canvas_deinit(&canvas);
    trace->rank[2].peak_bytes = 1024;
    cr_assert_eq(draw("timeline", (const pp_trace *const[]){trace}, free_size, &canvas), PP_OK);
    cr_expect(find_text(&canvas, "peak memory") && find_text(&canvas, "1.00 KiB") &&
              find_text(&canvas, "-"));
    viz_canvas_deinit(&canvas);
    pp_trace_free(trace);
}

/* The pair of a span that runs as one with the next lies in the two halves of the band. */
Test(timeline, overlapped_pairs_share_the_band) {
    pp_trace *trace;
    cr_assert_eq(pp_trace_new(1, 2, &trace, NULL), PP_OK);
    trace->span_count = 2;
    trace->makespan_s = 1;
    trace->stages = trace->microbatches = trace->virtual_stages = 1;
    for (int i = 0; i < 2; i++)
        trace->spans[i] = (pp_span){.end_s = 1,
                                    .action = {.kind = i == 0 ? PP_FORWARD : PP_BACKWARD,
                                               .overlapped = i == 0,
                                               .microbatch = (uint32_t)i}};
    viz_canvas canvas;
    cr_assert_eq(draw("timeline", (const pp_trace *const[]){trace}, free_size, &canvas), PP_OK);
    const viz_item *forward = find_text(&canvas, "F0"), *backward = find_text(&canvas, "B1");
    cr_assert(forward && backward);
    cr_expect_lt(forward->baseline, backward->baseline);
    viz_canvas_deinit(&canvas);
    pp_trace_free(trace);
}

/* ---- pixels -------------------------------------------------------------------------------- */

typedef struct reading {
    const pp_text *image;
    size_t at;
} reading;

static cairo_status_t read_bytes(void *reading_, unsigned char *bytes, unsigned length) {
    reading *r = reading_;
    if (length > r->image->length - r->at) return CAIRO_STATUS_READ_ERROR;
    memcpy(bytes, r->image->bytes + r->at, length);
    r->at += length;
    return CAIRO_STATUS_SUCCESS;
}

static cairo_surface_t *decode(const pp_text *image) {
    reading r = {image, 0};
    cairo_surface_t *surface = cairo_image_surface_create_from_png_stream(read_bytes, &r);
    cr_assert_eq(cairo_surface_status(surface), CAIRO_STATUS_SUCCESS);
    cairo_surface_flush(surface);
    return surface;
}

static viz_colour pixel(cairo_surface_t *surface, double x, double y) {
    const unsigned char *row = cairo_image_surface_get_data(surface) +
                               (int)(2 * y) * cairo_image_surface_get_stride(surface);
    return ((const uint32_t *)(const void *)row)[(int)(2 * x)] & 0xffffff;
}

static void render(const char *chart, const pp_trace *trace, const char *path, pp_text *image) {
    pp_error error = {0};
    const pp_trace *traces[1] = {trace};
    cr_assert_eq(pp_render(chart, traces, 1, path, NULL, image, &error), PP_OK, "%s",
                 error.message);
}

/* Axis and rows follow from texts of the canvas: "0" and "30" lie under their times, "rank p"
 * beside its row. */
Test(timeline, pixels_have_the_colour_of_what_happened) {
    pp_trace *trace = make_trace((recipe){.ranks = 4, .microbatches = 8, .forward_s = 1e-3});
    viz_canvas canvas;
    pp_text image = {0};
    cr_assert_eq(draw("timeline", (const pp_trace *const[]){trace}, free_size, &canvas), PP_OK);
    render("timeline", trace, "x.png", &image);
    cairo_surface_t *surface = decode(&image);
    cr_expect_eq(cairo_image_surface_get_width(surface), (int)(2 * canvas.width));
    cr_expect_eq(cairo_image_surface_get_height(surface), (int)(2 * canvas.height));
    const viz_item *zero = find_text(&canvas, "0"), *thirty = find_text(&canvas, "30");
    cr_assert(zero && thirty);
    double origin = zero->box.x + zero->box.width / 2;
    double scale = (thirty->box.x + thirty->box.width / 2 - origin) / 30e-3;
    int looked = 0;
    for (int p = 0; p < 4; p++) {
        char name[32];
        snprintf(name, sizeof name, "rank %d", p);
        const viz_item *row = find_text(&canvas, name);
        cr_assert(row != NULL);
        double y = row->baseline - 9 * 0.73 / 2 - 8; /* above the labels */
        double idle_from = 0;
        for (size_t i = 0; i < trace->span_count; i++) {
            const pp_span *span = &trace->spans[i];
            if (span->rank != p || span->lane != PP_LANE_COMPUTE) continue;
            double x = origin + scale * (span->start_s + span->end_s) / 2;
            cr_expect_eq(pixel(surface, x, y),
                         viz_action_colour(viz_theme_get(false), span->action, 0, 1),
                         "rank %d, span at %g", p, span->start_s);
            if (span->start_s > idle_from + 2e-4) {
                double at = origin + scale * (span->start_s + idle_from) / 2;
                viz_colour seen = pixel(surface, at, y);
                /* or part of a line of the grid */
                cr_expect_geq(viz_luminance(seen), viz_luminance(viz_theme_get(false)->grid),
                              "rank %d, idle before %g: %06x", p, span->start_s, seen);
            }
            idle_from = span->end_s;
            looked++;
        }
    }
    cr_expect_eq(looked, 4 * 8 * 2);
    cr_expect_eq(pixel(surface, 2, 2), viz_theme_get(false)->page);
    cairo_surface_destroy(surface);
    viz_canvas_deinit(&canvas);
    pp_text_deinit(&image);
    pp_trace_free(trace);
}

/* Spans thinner than a pixel: each rank's band holds as much of each colour as it worked. */
Test(timeline, merged_spans_keep_their_shares) {
    pp_trace *trace = make_trace((recipe){.ranks = 2, .microbatches = 4000, .forward_s = 1e-3});
    viz_canvas canvas;
    cr_assert_eq(draw("timeline", (const pp_trace *const[]){trace}, free_size, &canvas), PP_OK);
    cr_expect(has_text_with(&canvas, "each column: shares of"));
    cr_expect_lt(canvas.item_count, 4000, "%zu items", canvas.item_count);
    double area[PP_ACTION_KIND_COUNT] = {0}, idle = 0;
    viz_colour forward = viz_kind_get(PP_FORWARD)->colour;
    viz_colour backward = viz_kind_get(PP_BACKWARD)->colour;
    double top = find_text(&canvas, "rank 0")->box.y - 10;
    double bottom = find_text(&canvas, "time, s")->box.y;
    for (size_t i = 0; i < canvas.item_count; i++) {
        const viz_item *item = &canvas.items[i];
        double size = item->box.width * item->box.height;
        if (item->text || item->box.y < top || item->box.y > bottom) continue;
        /* a stack's first colour reaches down under its second */
        if (item->colour == forward) area[PP_FORWARD] += size;
        if (item->colour == backward) area[PP_BACKWARD] += size, area[PP_FORWARD] -= size;
        if (item->colour == viz_theme_get(false)->idle && item->box.width > 1000) idle += size;
    }
    double busy = 1 - trace->bubble_fraction;
    cr_expect_float_eq(area[PP_FORWARD] / idle, busy / 3, 2e-3, "%g", area[PP_FORWARD] / idle);
    cr_expect_float_eq(area[PP_BACKWARD] / idle, busy * 2 / 3, 2e-3);
    viz_canvas_deinit(&canvas);
    pp_trace_free(trace);
}

/* ---- bytes --------------------------------------------------------------------------------- */

static bool contains(const pp_text *image, const char *part) {
    return memmem(image->bytes, image->length, part, strlen(part)) != NULL;
}

Test(formats, each_has_its_own_beginning_and_words) {
    pp_trace *trace = make_trace((recipe){.ranks = 4, .microbatches = 8, .forward_s = 1e-3});
    snprintf(trace->title, sizeof trace->title, "a <b> & \"c\"");
    pp_text png = {0}, svg = {0}, pdf = {0};
    render("timeline", trace, "x.PNG", &png);
    render("timeline", trace, "x.Svg", &svg);
    render("timeline", trace, "x.pdf", &pdf);
    cr_expect(png.length > 8 && memcmp(png.bytes, "\x89PNG\r\n\x1a\n", 8) == 0);
    cr_expect(pdf.length > 5 && memcmp(pdf.bytes, "%PDF-", 5) == 0);
    cr_expect(contains(&pdf, "%%EOF"));
    cr_expect(memcmp(svg.bytes, "<?xml", 5) == 0 && contains(&svg, "</svg>"));
    static const char *const words[] = {">F0<", ">B7<", ">rank 3<", ">bubble 27.3 %<",
                                        "<title>a &lt;b&gt; &amp; &quot;c&quot;</title>"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        cr_expect(contains(&svg, words[i]), "%s is missing", words[i]);
    pp_text_deinit(&png), pp_text_deinit(&svg), pp_text_deinit(&pdf);
    pp_trace_free(trace);
}

Test(formats, the_same_picture_has_the_same_bytes) {
    static const char *const paths[] = {"a.png", "b.svg", "c.pdf"};
    static const char *const locales[] = {"C", "C.UTF-8", "de_DE.UTF-8", "fr_FR.UTF-8",
                                          "ar_SA.UTF-8"};
    pp_trace *trace = make_trace(recipes[9]);
    for (int f = 0; f < 3; f++) {
        pp_text first = {0};
        render("timeline", trace, paths[f], &first);
        for (size_t l = 0; l < sizeof locales / sizeof *locales; l++) {
            pp_text again = {0};
            if (!setlocale(LC_ALL, locales[l])) continue; /* not installed here */
            setenv("TZ", l % 2 ? "Asia/Tokyo" : "America/Lima", 1);
            render("timeline", trace, paths[f], &again);
            cr_expect(again.length == first.length &&
                          memcmp(again.bytes, first.bytes, first.length) == 0,
                      "%s differs under %s", paths[f], locales[l]);
            pp_text_deinit(&again);
        }
        setlocale(LC_ALL, "C");
        pp_text_deinit(&first);
    }
    pp_trace_free(trace);
    cr_expect_eq(pp_live_bytes(), 0);
}

Test(formats, a_size_is_the_size_of_the_file) {
    pp_trace *trace = make_trace((recipe){.ranks = 4, .microbatches = 8, .forward_s = 1e-3});
    const pp_trace *traces[1] = {trace};
    pp_render_options options = {.width = 1600, .height = 700, .dark = true};
    pp_text image = {0};
    cr_assert_eq(pp_render("timeline", traces, 1, "x.png", &options, &image, NULL), PP_OK);
    cairo_surface_t *surface = decode(&image);
    cr_expect_eq(cairo_image_surface_get_width(surface), 1600);
    cr_expect_eq(cairo_image_surface_get_height(surface), 700);
    cr_expect_eq(pixel(surface, 1, 1), viz_theme_get(true)->page);
    cairo_surface_destroy(surface);
    pp_text_deinit(&image);
    cr_assert_eq(pp_render("timeline", traces, 1, "x.svg", &options, &image, NULL), PP_OK);
    cr_expect(contains(&image, "width=\"1600\" height=\"700\""));
    pp_text_deinit(&image);
    pp_trace_free(trace);
}

/* ---- compare and memory -------------------------------------------------------------------- */

Test(compare, puts_the_prediction_above_in_any_order) {
    recipe with = {.ranks = 4, .microbatches = 8, .forward_s = 1e-3};
    pp_trace *predicted = make_trace(with);
    with.forward_s = 1.1e-3, with.measured = true;
    pp_trace *measured = make_trace(with);
    for (int swap = 0; swap < 2; swap++) {
        viz_canvas canvas;
        const pp_trace *both[2] = {swap ? measured : predicted, swap ? predicted : measured};
        cr_assert_eq(draw("compare", both, free_size, &canvas), PP_OK);
        const viz_item *above = find_text(&canvas, "predicted");
        const viz_item *below = find_text(&canvas, "measured");
        cr_assert(above && below);
        cr_expect_lt(above->baseline, below->baseline);
        cr_expect(find_text(&canvas, "step +10.0 %") != NULL);
        cr_expect(find_text(&canvas, "predicted 33.0 ms · measured 36.3 ms (+3.30 ms)") != NULL);
        viz_canvas_deinit(&canvas);
    }
    pp_trace_free(predicted);
    pp_trace_free(measured);
}

Test(memory, curves_reach_their_peak_and_bars_replace_them) {
    recipe with = {.ranks = 4, .microbatches = 8, .forward_s = 1e-3, .curves = true};
    pp_trace *trace = make_trace(with);
    const pp_trace *traces[1] = {trace};
    viz_canvas canvas;
    cr_assert_eq(draw("memory", traces, free_size, &canvas), PP_OK);
    /* 1F1B: min(K - p, M) activations of 256 MiB over 2 GiB */
    static const char *const peaks[] = {"3.00 GiB", "2.75 GiB", "2.50 GiB", "2.25 GiB"};
    for (int p = 0; p < 4; p++) cr_expect(find_text(&canvas, peaks[p]) != NULL, "%s", peaks[p]);
    cr_expect(find_text(&canvas, "time, ms") &&
              find_text(&canvas, "full height of a row: 3.00 GiB"));
    viz_canvas_deinit(&canvas);
    trace->point_count = 0;
    cr_assert_eq(draw("memory", traces, free_size, &canvas), PP_OK);
    cr_expect(find_text(&canvas, "memory, GiB") && find_text(&canvas, "2.75 GiB"));
    viz_canvas_deinit(&canvas);
    for (int p = 0; p < 4; p++) trace->rank[p].peak_bytes = -1;
    cr_expect_eq(draw("memory", traces, free_size, &canvas), PP_E_INPUT);
    viz_canvas_deinit(&canvas);
    pp_trace_free(trace);
}

/* ---- refusals ------------------------------------------------------------------------------ */

/* Renders and expects bad input whose message (or place) contains `part`. */
static void refuse(const char *chart, const pp_trace *const *traces, int count, const char *path,
                   const pp_render_options *options, const char *part) {
    pp_error error = {0};
    pp_text image = {0};
    int64_t before = pp_live_bytes();
    cr_expect_eq(pp_render(chart, traces, count, path, options, &image, &error), PP_E_INPUT, "%s",
                 part);
    cr_expect(strstr(error.message, part) != NULL, "'%s' not in '%s'", part, error.message);
    cr_expect_eq(image.length, 0);
    cr_expect_eq(pp_live_bytes(), before, "%s", part);
    pp_text_deinit(&image);
}

Test(charts, wrong_calls_are_explained) {
    pp_trace *a = make_trace((recipe){.ranks = 4, .microbatches = 8, .forward_s = 1e-3});
    pp_trace *b = make_trace((recipe){.ranks = 2, .microbatches = 8, .forward_s = 1e-3});
    const pp_trace *traces[2] = {a, b};
    refuse("pie", traces, 1, "x.png", NULL, "choose one of: timeline, memory, compare");
    refuse("timeline", traces, 2, "x.png", NULL, "takes 1 plan or trace, but got 2");
    refuse("compare", traces, 1, "x.png", NULL, "takes 2 plans or traces, but got 1");
    refuse("compare", traces, 2, "x.png", NULL, "the first has 4 ranks, the second 2");
    refuse("timeline", traces, 1, "x.gif", NULL, "use .png, .svg or .pdf");
    static const struct {
        double width, height;
        const char *part;
    } sizes[] = {{1e9, 0, "a width of 5e+08 points is out of range"},
                 {0, 65536, "a height of 32768 points is out of range"},
                 {-5, 0, "out of range"},
                 {100, 0, "too small: at least"},
                 {0, 100, "a height of 50 points is too small"},
                 {NAN, 0, "out of range"},
                 {0, INFINITY, "out of range"},
                 {30000, 30000, "too large"}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        refuse("timeline", traces, 1, "x.png",
               &(pp_render_options){.width = sizes[i].width, .height = sizes[i].height},
               sizes[i].part);
    pp_trace_free(a);
    pp_trace_free(b);
}

Test(charts, contradictory_traces_are_refused) {
    pp_trace *trace = make_trace((recipe){.ranks = 2, .microbatches = 4, .forward_s = 1e-3});
    const pp_trace *traces[1] = {trace};
    pp_span good = trace->spans[3];
    trace->spans[3].start_s = NAN;
    refuse("timeline", traces, 1, "x.svg", NULL, "span 3 of the trace starts or ends at a time");
    trace->spans[3] = good;
    trace->spans[3].end_s = -1;
    refuse("timeline", traces, 1, "x.svg", NULL, "span 3 of the trace ends before it starts");
    trace->spans[3] = good;
    trace->spans[3].rank = 2;
    refuse("timeline", traces, 1, "x.svg", NULL, "is of rank 2, but ranks go from 0 to 1");
    trace->spans[3] = good;
    trace->spans[3].lane = 9;
    refuse("timeline", traces, 1, "x.svg", NULL, "unknown kind or lane");
    trace->spans[3] = good;
    trace->spans[3].start_s = trace->spans[2].start_s - 1e-6;
    refuse("timeline", traces, 1, "x.svg", NULL, "sorted by rank, lane and start");
    trace->spans[3] = good;
    trace->makespan_s = INFINITY;
    refuse("timeline", traces, 1, "x.svg", NULL, "makespan");
    trace->makespan_s = 1;
    trace->ranks = 0;
    refuse("timeline", traces, 1, "x.svg", NULL, "has 0 ranks");
    trace->ranks = 2;
    pp_trace_point bad = {NAN, 5, 0};
    trace->points = &bad;
    trace->point_count = 1;
    refuse("memory", traces, 1, "x.svg", NULL, "point 0");
    pp_trace_free(trace);
}

/* ---- allocation fails ---------------------------------------------------------------------- */

static int allocations_left; /* before one fails; only this file's platform uses it */
static bool fail_for_ever;

static void *failing_allocate(size_t size_bytes) {
    if (allocations_left > 0) {
        allocations_left--;
        return malloc(size_bytes);
    }
    if (!fail_for_ever) allocations_left = 1000000;
    return NULL;
}

/* Fails the n-th allocation, n = 0, 1, 2 … until the picture succeeds: P5. */
static void exhaust(const char *chart, const pp_trace *const *traces, int count, const char *path) {
    pp_platform platform = *pp_platform_get();
    platform.allocate = failing_allocate;
    int64_t before = pp_live_bytes();
    for (int n = 0;; n++) {
        pp_text image = {0};
        pp_error error = {0};
        allocations_left = n;
        pp_platform_set(&platform);
        pp_status status = pp_render(chart, traces, count, path, NULL, &image, &error);
        pp_platform_set(NULL);
        pp_text_deinit(&image);
        cr_assert_eq(pp_live_bytes(), before, "%s %s leaks at allocation %d", chart, path, n);
        if (status == PP_OK) {
            cr_assert_geq(n, 3);
            return;
        }
        cr_assert_eq(status, PP_E_OUT_OF_MEMORY, "%s %s, allocation %d: %s", chart, path, n,
                     error.message);
    }
}

Test(charts, any_allocation_may_fail) {
    pp_trace *a = make_trace((recipe){.ranks = 2, .microbatches = 3, .forward_s = 1e-3});
    pp_trace *b = make_trace((recipe){.ranks = 2, .microbatches = 3000, .forward_s = 1e-3});
    pp_trace *c =
        make_trace((recipe){.ranks = 2, .microbatches = 3, .forward_s = 1e-3, .curves = true});
    static const char *const paths[] = {"a.png", "a.svg", "a.pdf"};
    for (int f = 0; f < 3; f++)
        for (int mode = 0; mode < 2; mode++) {
            fail_for_ever = mode == 1;
            exhaust("timeline", (const pp_trace *const[]){a}, 1, paths[f]);
            exhaust("timeline", (const pp_trace *const[]){b}, 1, paths[f]);
            exhaust("memory", (const pp_trace *const[]){c}, 1, paths[f]);
            exhaust("compare", (const pp_trace *const[]){a, c}, 2, paths[f]);
        }
    pp_trace_free(a), pp_trace_free(b), pp_trace_free(c);
}

/* ---- anything at all ----------------------------------------------------------------------- */

typedef struct dice {
    pp_random_key key;
    uint64_t rolled;
} dice;

static uint64_t roll(dice *d, uint64_t bound) {
    return pp_random_below(d->key, d->rolled++, bound);
}

/* Spans of any kind and length at any time, overlapping as they like; sorted, since that is the
 * contract. */
static pp_trace *random_trace(uint64_t seed) {
    dice d = {pp_random_key_make(seed, "random trace", 0), 0};
    int ranks = (int)roll(&d, 3) == 0 ? 1 + (int)roll(&d, 2000) : 1 + (int)roll(&d, 9);
    size_t count = (size_t)roll(&d, roll(&d, 4) == 0 ? 20000 : 200);
    double scale = pow(10, (double)roll(&d, 26) - 13);
    pp_trace *trace;
    cr_assert_eq(pp_trace_new(ranks, count, &trace, NULL), PP_OK);
    trace->span_count = count;
    for (size_t i = 0; i < count; i++) {
        double start = scale * (pp_random_unit(d.key, d.rolled++) - 0.1);
        double length = roll(&d, 5) == 0 ? 0
                                         : scale * pp_random_unit(d.key, d.rolled++) /
                                               (double)(1 + roll(&d, 300));
        trace->spans[i] =
            (pp_span){.start_s = start,
                      .end_s = start + length,
                      .action = {.kind = (unsigned)roll(&d, PP_ACTION_KIND_COUNT) & 127,
                                 .overlapped = roll(&d, 6) == 0,
                                 .slice = (uint8_t)roll(&d, 3),
                                 .stage = (uint16_t)roll(&d, 65536),
                                 .microbatch = roll(&d, 4) == 0 ? PP_NO_MICROBATCH
                                                                : (uint32_t)roll(&d, 16777216)},
                      .rank = (int32_t)roll(&d, (uint64_t)ranks),
                      .lane = (uint8_t)roll(&d, 3)};
    }
    qsort(trace->spans, count, sizeof *trace->spans, by_place);
    for (int i = 0; i < 100; i++) trace->title[i] = (char)(1 + roll(&d, 255));
    trace->makespan_s = roll(&d, 2) ? scale : 0;
    trace->bubble_fraction = roll(&d, 3) ? 0.5 : NAN;
    trace->stages = (int)roll(&d, 3) ? 1 + (int)roll(&d, 65535) : 0;
    trace->virtual_stages = (int)roll(&d, 5);
    trace->microbatches = (int)roll(&d, 3) ? (int)roll(&d, 100) : 0;
    trace->measured = roll(&d, 2) == 0;
    for (int p = 0; p < ranks; p++)
        trace->rank[p] = (pp_trace_rank){scale * (double)roll(&d, 3),
                                         roll(&d, 3) ? (int64_t)(roll(&d, INT64_MAX)) : -1};
    return trace;
}

Test(charts, random_traces_are_drawn_or_refused_and_never_crash) {
    for (uint64_t seed = 1; seed <= 60; seed++) {
        pp_trace *trace = random_trace(seed);
        const pp_trace *both[2] = {trace, trace};
        static const double sizes[][2] = {{0, 0}, {600, 400}, {300, 0}};
        static const char *const names[] = {"timeline", "memory", "compare"};
        for (int c = 0; c < 3; c++) {
            viz_canvas canvas;
            char what[60];
            snprintf(what, sizeof what, "seed %d, %s", (int)seed, names[c]);
            if (draw(names[c], both, sizes[seed % 3], &canvas) == PP_OK)
                check_layout(&canvas, what);
            else
                cr_expect_eq(c, 1, "%s was refused", what);
            viz_canvas_deinit(&canvas);
        }
        pp_text image = {0};
        if (trace->ranks < 100 && trace->span_count < 1000)
            render("timeline", trace, seed % 2 ? "x.png" : "x.pdf", &image);
        pp_text_deinit(&image);
        pp_trace_free(trace);
    }
    cr_expect_eq(pp_live_bytes(), 0);
}
