/* Bands: the spans of one rank along the time axis. The upper part shows the compute lane, two thin
 * strips below it what is being sent and received.
 *
 * Two ways of drawing, one for a whole picture:
 * - single spans, with labels where they fit. Wide ones are rounded to the pixels of a PNG and
 *   parted by a hair; thin ones keep their exact ends and reach under their follower, so that an
 *   antialiased border mixes their two colours and not a third.
 * - dense, when spans would be about as thin as pixels: each window of time is a column stacked of
 *   the shares of the kinds, or in thin rows has their mixed colour. A window lasts a whole number
 *   of microbatches of the busiest rank, so a steady state looks steady instead of beating against
 *   the pixels. */
#include "viz/chart_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define THIN 1.3          /* points: mean span below which a picture is dense */
#define LOW 7.0           /* points: band below which a stack of colours would only be stripes */
#define HAIR 0.5          /* points: one pixel of a PNG */
#define LABEL_PADDING 2.0 /* points: beside a label, both sides together */
#define WINDOW_LEAST 6.0  /* points */
#define WINDOW_MOST 12.0

/* ---- planning ------------------------------------------------------------------------------ */

static double points_per_second(const viz_axis *axis) {
    return (axis->right - axis->left) / (axis->high - axis->low);
}

double viz_bands_width(const viz_view *views, int view_count) {
    double width = 480;
    for (int i = 0; i < view_count; i++) {
        double mean_s = viz_view_mean_s(&views[i]);
        if (mean_s > 0) width = fmax(width, 18 * (views[i].end_s - views[i].start_s) / mean_s);
    }
    return fmin(1700, width);
}

static bool is_dense(const viz_axis *axis, const viz_view *views, int view_count) {
    for (int i = 0; i < view_count; i++) {
        /* many thin rows hold many spans: merge earlier to keep files small */
        double thin = views[i].trace->ranks > 128 ? 3 * THIN : THIN;
        double mean_s = viz_view_mean_s(&views[i]);
        if (mean_s > 0 && mean_s * points_per_second(axis) < thin) return true;
    }
    return false;
}

/* A whole number of microbatches, or where one alone is long a whole part of it. */
static double window_length(const viz_axis *axis, double period_s) {
    double period = period_s * points_per_second(axis);
    if (!(period > 0)) return WINDOW_MOST / points_per_second(axis);
    if (period > WINDOW_MOST) return period_s / ceil(period / WINDOW_MOST);
    return period_s * ceil(WINDOW_LEAST / period);
}

static void plan_windows(viz_canvas *canvas, viz_bands *bands, const viz_view *views,
                         int view_count) {
    double period_s = 0;
    for (int i = 0; i < view_count; i++) period_s = fmax(period_s, views[i].period_s);
    bands->window_s = window_length(bands->axis, period_s);
    bands->windows = (int)ceil((bands->axis->high - bands->axis->low) / bands->window_s);
    bands->coverage = PP_NEW(&canvas->arena, double, bands->windows *PP_ACTION_KIND_COUNT);
    bands->dense = true;
}

/* "3", "F3", "1F3", "step" */
static const char *label_text(pp_action action, bool longer, bool stages, char buffer[32]) {
    const viz_kind *kind = viz_kind_get(action.kind);
    char slice[8] = "";
    if (!kind->letter || action.microbatch == PP_NO_MICROBATCH) {
        snprintf(buffer, 32, "%s", kind->word ? kind->word : "");
        return buffer;
    }
    if (action.slice > 0) snprintf(slice, sizeof slice, ".%u", (unsigned)action.slice);
    if (!longer)
        snprintf(buffer, 32, "%u%s", (unsigned)action.microbatch, slice);
    else if (!stages)
        snprintf(buffer, 32, "%s%u%s", kind->letter, (unsigned)action.microbatch, slice);
    else
        snprintf(buffer, 32, "%u%s%u%s", (unsigned)action.stage, kind->letter,
                 (unsigned)action.microbatch, slice);
    return buffer;
}

/* The longest label of a kind in this form. */
static const char *longest_label(const viz_bands *bands, const viz_view *view, int kind,
                                 char text[32]) {
    int stages = view->trace->stages, microbatches = view->trace->microbatches;
    pp_action action = {.kind = (unsigned)kind & 127,
                        .stage = (uint16_t)(stages > 0 ? stages - 1 : 0),
                        .microbatch = (uint32_t)(microbatches > 0 ? microbatches - 1 : 0)};
    return label_text(action, bands->label_long, view->chunks > 1, text);
}

/* Adds to fits[] how many spans of each kind are at least needed[kind] points wide. */
static void count_fits(const viz_bands *bands, const viz_view *view, const double *needed,
                       size_t *fits) {
    double scale = points_per_second(bands->axis);
    for (size_t i = 0; i < view->trace->span_count; i++) {
        const pp_span *span = &view->trace->spans[i];
        if (span->lane != PP_LANE_COMPUTE) continue;
        fits[span->action.kind] +=
            (span->end_s - span->start_s) * scale >= needed[span->action.kind];
    }
}

/* Of one view: sets fits[] for those kinds of which nearly all spans hold their longest label, or
 * that it does not have. */
static void view_fits(viz_canvas *canvas, const viz_bands *bands, const viz_view *view,
                      bool *fits) {
    double needed[PP_ACTION_KIND_COUNT];
    size_t count[PP_ACTION_KIND_COUNT] = {0};
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++) {
        char text[32];
        longest_label(bands, view, kind, text);
        needed[kind] = viz_label_width(canvas, bands->label_size, text) + LABEL_PADDING + HAIR;
    }
    count_fits(bands, view, needed, count);
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++)
        fits[kind] = (double)count[kind] >= 0.95 * (double)view->count[kind];
}

/* Sets labelled[] for the form in *bands: the kinds that fit in every view, or with `any` in one at
 * least. True if that is so for every kind that there is. */
static bool plan_kinds(viz_canvas *canvas, viz_bands *bands, const viz_view *views, int view_count,
                       bool any) {
    int fitting[PP_ACTION_KIND_COUNT] = {0}, having[PP_ACTION_KIND_COUNT] = {0};
    bool all = true;
    for (int i = 0; i < view_count; i++) {
        bool fits[PP_ACTION_KIND_COUNT];
        view_fits(canvas, bands, &views[i], fits);
        for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++) {
            having[kind] += views[i].count[kind] > 0;
            fitting[kind] += views[i].count[kind] > 0 && fits[kind];
        }
    }
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++) {
        bool optional = !viz_kind_get((unsigned)kind)->letter; /* words may be left out */
        bands->labelled[kind] = having[kind] > 0 && fitting[kind] >= (any ? 1 : having[kind]);
        if (having[kind] > 0 && !bands->labelled[kind] && !optional) all = false;
    }
    return all;
}

/* One form and size for the whole picture: the longest that all kinds have room for in every view,
 * else in one of them, else the shortest for those kinds that have. */
static void plan_labels(viz_canvas *canvas, viz_bands *bands, const viz_view *views,
                        int view_count) {
    static const struct {
        bool longer;
        double size;
    } forms[] = {{true, 8.5}, {true, 7.5}, {false, 8.5}, {false, 7.5}, {false, 6.5}};
    for (int any = 0; any < 2; any++)
        for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
            bands->label_long = forms[i].longer;
            bands->label_size = forms[i].size;
            if (plan_kinds(canvas, bands, views, view_count, any == 1)) return;
        }
}

viz_bands viz_bands_plan(viz_canvas *canvas, const viz_theme *theme, const viz_axis *axis,
                         const viz_view *views, int view_count) {
    viz_bands bands = {.theme = theme, .axis = axis};
    if (is_dense(axis, views, view_count))
        plan_windows(canvas, &bands, views, view_count);
    else
        plan_labels(canvas, &bands, views, view_count);
    return bands;
}

/* ---- single spans -------------------------------------------------------------------------- */

static double snap(double points) {
    return round(points / HAIR) * HAIR;
}

/* Left and right end of a span on the page; next: what follows it in its lane, or NULL. */
static void span_ends(const viz_axis *axis, const pp_span *span, const pp_span *next, double *left,
                      double *right) {
    *left = viz_axis_at(axis, span->start_s);
    *right = viz_axis_at(axis, span->end_s);
    if (*right - *left >= 3) {
        *left = snap(*left);
        *right = snap(*right) - HAIR;
    } else if (next && viz_axis_at(axis, next->start_s) < *right + HAIR / 4) {
        *right += HAIR;
    }
    *right = fmin(axis->right, fmax(*right, *left + HAIR / 2));
}

static void draw_label(viz_canvas *canvas, const viz_bands *bands, const viz_view *view,
                       pp_action action, viz_rect box, viz_colour fill) {
    char text[32];
    if (bands->label_size == 0 || !bands->labelled[action.kind]) return;
    if (box.width < bands->label_size || box.height < bands->label_size) return;
    label_text(action, bands->label_long, view->chunks > 1, text);
    double width = viz_label_width(canvas, bands->label_size, text);
    if (!*text || width + LABEL_PADDING > box.width) return;
    viz_label(canvas, (viz_style){bands->label_size, false, viz_label_colour(fill)},
              box.x + box.width / 2, box.y + box.height / 2, width, text);
}

/* The spans [first, last) of one lane. */
static void draw_spans(viz_canvas *canvas, const viz_bands *bands, const viz_view *view,
                       size_t first, size_t last, viz_rect lane) {
    const pp_span *spans = view->trace->spans;
    bool lower = false; /* the second of a pair that runs as one */
    for (size_t i = first; i < last; i++) {
        const pp_span *span = &spans[i], *next = i + 1 < last ? span + 1 : NULL;
        if (!(span->end_s > span->start_s)) continue;
        viz_rect box = lane;
        double right;
        span_ends(bands->axis, span, next, &box.x, &right);
        box.width = right - box.x;
        bool upper = !lower && span->action.overlapped && next && next->start_s < span->end_s;
        if (upper || lower) box.height /= 2;
        if (lower) box.y += box.height;
        lower = upper;
        viz_colour fill = viz_action_colour(bands->theme, span->action,
                                            view->chunk[span->action.stage], view->chunks);
        viz_fill(canvas, box, fill);
        draw_label(canvas, bands, view, span->action, box, fill);
    }
}

/* ---- dense --------------------------------------------------------------------------------- */

/* Adds a span's time to the windows that it touches. */
static void cover(const viz_bands *bands, const pp_span *span) {
    double origin = bands->axis->low, length = bands->window_s;
    int w = (int)fmax(0, floor((span->start_s - origin) / length));
    for (; w < bands->windows && origin + w * length < span->end_s; w++) {
        double from = fmax(span->start_s, origin + w * length);
        double to = fmin(span->end_s, origin + (w + 1) * length);
        if (to > from) bands->coverage[w * PP_ACTION_KIND_COUNT + span->action.kind] += to - from;
    }
}

/* One column. Each colour reaches down to the end of the stack and the next is painted over it, so
 * that borders within a pixel mix the right two. */
static void draw_stack(viz_canvas *canvas, const viz_bands *bands, const double *coverage,
                       viz_rect column) {
    double total = 0, before = 0;
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++) total += coverage[kind];
    double unit = column.height / fmax(total, bands->window_s);
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++) {
        if (!(coverage[kind] > 0)) continue;
        pp_action action = {.kind = (unsigned)kind & 127, .microbatch = PP_NO_MICROBATCH};
        viz_fill(
            canvas,
            (viz_rect){column.x, column.y + before * unit, column.width, (total - before) * unit},
            viz_action_colour(bands->theme, action, 0, 1));
        before += coverage[kind];
    }
}

/* One column where a stack would be too low to be seen: the mixture of its colours. */
static void draw_mixture(viz_canvas *canvas, const viz_bands *bands, const double *coverage,
                         viz_rect column) {
    double red = 0, green = 0, blue = 0, total = 0;
    for (int kind = 0; kind <= PP_ACTION_KIND_COUNT; kind++) {
        pp_action action = {.kind = (unsigned)kind & 127, .microbatch = PP_NO_MICROBATCH};
        bool idle = kind == PP_ACTION_KIND_COUNT; /* the rest */
        viz_colour colour =
            idle ? bands->theme->idle : viz_action_colour(bands->theme, action, 0, 1);
        double share = idle ? fmax(0, bands->window_s - total) : coverage[kind];
        red += share * (colour >> 16 & 255);
        green += share * (colour >> 8 & 255);
        blue += share * (colour & 255);
        total += share;
    }
    if (!(total > 0)) return;
    viz_fill(canvas, column,
             (viz_colour)(red / total + 0.5) << 16 | (viz_colour)(green / total + 0.5) << 8 |
                 (viz_colour)(blue / total + 0.5));
}

static void draw_dense(viz_canvas *canvas, const viz_bands *bands, const viz_view *view,
                       size_t first, size_t last, viz_rect lane) {
    if (!bands->coverage) return; /* out of memory, which the canvas's arena remembers */
    memset(bands->coverage, 0,
           sizeof *bands->coverage * (size_t)bands->windows * PP_ACTION_KIND_COUNT);
    for (size_t i = first; i < last; i++) cover(bands, &view->trace->spans[i]);
    for (int w = 0; w < bands->windows; w++) {
        viz_rect column = lane;
        column.x = snap(viz_axis_at(bands->axis, bands->axis->low + w * bands->window_s));
        double right = viz_axis_at(bands->axis, bands->axis->low + (w + 1) * bands->window_s);
        column.width = fmin(snap(right), bands->axis->right) - column.x;
        (lane.height >= LOW ? draw_stack : draw_mixture)(
            canvas, bands, &bands->coverage[w * PP_ACTION_KIND_COUNT], column);
    }
}

/* ---- a band -------------------------------------------------------------------------------- */

/* Where the lane of the spans [first, last) ends. */
static size_t lane_end(const viz_view *view, size_t first, size_t last, int lane) {
    while (first < last && view->trace->spans[first].lane <= lane) first++;
    return first;
}

void viz_band_draw(viz_canvas *canvas, const viz_bands *bands, const viz_view *view, int rank,
                   viz_rect band) {
    size_t first = view->first[rank], last = view->first[rank + 1];
    size_t compute = lane_end(view, first, last, PP_LANE_COMPUTE);
    size_t send = lane_end(view, compute, last, PP_LANE_SEND);
    if (bands->dense) {
        draw_dense(canvas, bands, view, first, compute, band);
        return;
    }
    double strip = viz_view_transfers(view) ? fmin(3.5, 0.13 * band.height) : 0;
    if (band.height >= 10) strip = snap(strip);
    viz_rect lane = band;
    lane.height -= 2 * strip;
    draw_spans(canvas, bands, view, first, compute, lane);
    if (strip == 0) return;
    lane = (viz_rect){band.x, band.y + band.height - 2 * strip, band.width, strip};
    draw_spans(canvas, bands, view, compute, send, lane);
    lane.y += strip;
    draw_spans(canvas, bands, view, send, last, lane);
}

/* ---- the legend ---------------------------------------------------------------------------- */

static viz_entry *add_entry(viz_page *page, const char *text) {
    viz_entry *entry = &page->entries[page->entry_count];
    if (!text || page->entry_count == VIZ_ENTRIES_MAX) return NULL;
    page->entry_count++;
    *entry = (viz_entry){.text = text};
    return entry;
}

static void add_kind(const viz_bands *bands, int kind, viz_page *page) {
    viz_entry *entry = add_entry(page, viz_kind_get((unsigned)kind)->legend);
    pp_action action = {.kind = (unsigned)kind & 127, .microbatch = PP_NO_MICROBATCH};
    if (!entry) return;
    entry->colours[0] = viz_action_colour(bands->theme, action, 0, 1);
    entry->colour_count = 1;
}

/* The shades of the stages that one rank has, with F for an example. */
static void add_chunks(const viz_bands *bands, int chunks, viz_page *page) {
    viz_entry *entry = add_entry(page, "first to last stage of a rank");
    pp_action action = {.kind = PP_FORWARD, .microbatch = PP_NO_MICROBATCH};
    if (!entry) return;
    entry->colour_count = chunks < 6 ? chunks : 6;
    for (int i = 0; i < entry->colour_count; i++)
        entry->colours[i] = viz_action_colour(bands->theme, action,
                                              i * (chunks - 1) / (entry->colour_count - 1), chunks);
}

static void add_kinds(const viz_bands *bands, const viz_view *views, int view_count,
                      viz_page *page) {
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++) {
        bool present = false;
        for (int i = 0; i < view_count; i++) {
            present |= views[i].count[kind] > 0;
            /* sending and receiving look alike: one entry for both */
            if (bands->dense || kind == PP_RECV_F || kind == PP_RECV_B) continue;
            bool partner = (kind == PP_SEND_F || kind == PP_SEND_B) && views[i].sent[kind + 1];
            present |= views[i].sent[kind] || partner;
        }
        if (present) add_kind(bands, kind, page);
    }
}

/* How to read a label, with one that is in the picture. */
static const char *label_note(viz_canvas *canvas, const viz_bands *bands, const viz_view *view) {
    static const char *const names[] = {"forward", "backward", "backward for inputs",
                                        "backward for weights", "recompute"};
    int kind = 0, m = view->trace->microbatches > 3 ? 3 : view->trace->microbatches - 1;
    while (kind <= PP_RECOMPUTE && !bands->labelled[kind]) kind++;
    if (bands->label_size == 0 || kind > PP_RECOMPUTE || m < 0) return NULL;
    if (!bands->label_long) return "number: microbatch";
    const char *letter = viz_kind_get((unsigned)kind)->letter;
    if (view->chunks > 1)
        return pp_arena_printf(&canvas->arena, "0%s%d: stage 0, %s, microbatch %d", letter, m,
                               names[kind], m);
    return pp_arena_printf(&canvas->arena, "%s%d: %s, microbatch %d", letter, m, names[kind], m);
}

void viz_bands_legend(viz_canvas *canvas, const viz_bands *bands, const viz_view *views,
                      int view_count, viz_page *page) {
    int chunks = 1;
    for (int i = 0; i < view_count; i++)
        chunks = views[i].chunks > chunks ? views[i].chunks : chunks;
    add_kinds(bands, views, view_count, page);
    if (chunks > 1 && !bands->dense) add_chunks(bands, chunks, page);
    viz_entry *idle = add_entry(page, "idle");
    if (idle) {
        idle->colours[0] = bands->theme->idle;
        idle->colour_count = 1;
    }
    add_entry(page, label_note(canvas, bands, &views[0]));
    if (bands->dense) {
        char length[32];
        viz_seconds_text(bands->window_s, length);
        add_entry(page, pp_arena_printf(&canvas->arena, "each column: shares of %s", length));
    }
}
