/* What the charts of traces say in common about a trace: a line of description, and the columns of
 * busy shares and peak memory. */
#include "viz/chart_internal.h"

#include <math.h>
#include <stdio.h>

void viz_describe(const pp_trace *trace, const char *note, char *text, size_t capacity) {
    snprintf(text, capacity, "%s%sK = %d rank%s · M = %d microbatch%s · V = %d · %s",
             trace->schedule, trace->schedule[0] ? " · " : "", trace->ranks,
             trace->ranks == 1 ? "" : "s", trace->microbatches,
             trace->microbatches == 1 ? "" : "es", trace->virtual_stages, note);
}

double viz_pitch(int ranks, double room, double least, double most) {
    double pitch = room / ranks;
    /* rows that can no longer be labelled one by one may become thin */
    return pitch >= least ? fmin(pitch, most) : fmin(least, fmax(2, 2 * room / ranks));
}

static void busy_cell(const viz_view *view, int rank, viz_cell *cell) {
    char text[32];
    double share = view->trace->rank[rank].busy_s / view->trace->makespan_s;
    *cell = (viz_cell){"-", -1};
    if (!isfinite(share) || share < 0) return;
    snprintf(cell->text, sizeof cell->text, "%.23s", viz_percent_text(share, text));
    cell->share = fmin(share, 1);
}

static void memory_cell(const viz_view *view, int rank, double most, viz_cell *cell) {
    char text[32];
    int64_t bytes = view->trace->rank[rank].peak_bytes;
    *cell = (viz_cell){"-", -1};
    if (bytes < 0) return;
    snprintf(cell->text, sizeof cell->text, "%.23s", pp_format_bytes((double)bytes, text));
    cell->share = most > 0 ? (double)bytes / most : -1;
}

/* Largest peak of all; -1: none is known. */
static double largest_peak(const viz_view *views, int view_count) {
    double most = -1;
    for (int i = 0; i < view_count; i++)
        for (int p = 0; p < views[i].trace->ranks; p++)
            most = fmax(most, (double)views[i].trace->rank[p].peak_bytes);
    return most;
}

pp_status viz_add_columns(const viz_view *views, int view_count, pp_arena *arena, viz_page *page,
                          pp_error *error) {
    int ranks = page->ranks;
    double most = largest_peak(views, view_count);
    viz_cell *busy = PP_NEW(arena, viz_cell, ranks * view_count);
    viz_cell *memory = PP_NEW(arena, viz_cell, ranks * view_count);
    if (arena->failed) return pp_fail_memory(error);
    for (int p = 0; p < ranks; p++)
        for (int i = 0; i < view_count; i++) {
            busy_cell(&views[i], p, &busy[p * view_count + i]);
            memory_cell(&views[i], p, most, &memory[p * view_count + i]);
        }
    page->columns[page->column_count++] = (viz_column){"busy", busy};
    if (most >= 0) page->columns[page->column_count++] = (viz_column){"peak memory", memory};
    return PP_OK;
}
