/* The CSV of torch.distributed.pipelining: a row per rank, a cell per action.
 *
 *     # placement: 0,1,1,0          rank of each stage            (both comments are ours)
 *     # chains: 0-1,2-3             stages that depend on each other
 *     0F0,0F1,,(0F2;1B0)OVERLAP_F_B
 *
 * Blank lines and other comments count for nothing, cells may be padded with blanks or empty, lines
 * may end in CR LF, and the file may begin with a byte order mark. The text is read twice: once to
 * count, once to fill arrays of exactly that size. Both passes are linear. When an action turns out
 * to be wrong only in view of all the others, a third pass finds its line and column. */
#include "core/schedule_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- lines and cells ----------------------------------------------------------------------- */

typedef struct reader {
    const char *text, *end;
    const char *file_name;
    pp_error *error;
} reader;

/* A stretch of one line. */
typedef struct piece {
    const char *start, *end;
    size_t line; /* from 1 */
    size_t column;
} piece;

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static piece trim(piece p) {
    while (p.start < p.end && is_blank(*p.start)) {
        p.start++;
        p.column++;
    }
    while (p.end > p.start && is_blank(p.end[-1])) p.end--;
    return p;
}

/* A piece in front of the first line. */
static piece before_first(const reader *r) {
    return (piece){r->text, r->text, 0, 1};
}

/* Steps to the next line, without its line end; false behind the last. */
static bool next_line(const reader *r, piece *line) {
    const char *start = line->line == 0 ? r->text : line->end;
    if (line->line > 0) {
        start += start < r->end && *start == '\r';
        if (start < r->end) start++;
    }
    if (start >= r->end) return false;
    const char *end = memchr(start, '\n', (size_t)(r->end - start));
    if (!end) end = r->end;
    if (end > start && end[-1] == '\r') end--;
    *line = (piece){start, end, line->line + 1, 1};
    return true;
}

/* Takes the next cell off the front of `rest`, trimmed; false when there is none left. */
static bool next_cell(piece *rest, piece *cell) {
    if (!rest->start) return false;
    size_t length = (size_t)(rest->end - rest->start);
    const char *comma = length > 0 ? memchr(rest->start, ',', length) : NULL;
    *cell = *rest;
    if (comma) {
        cell->end = comma;
        rest->column += (size_t)(comma + 1 - rest->start);
        rest->start = comma + 1;
    } else {
        rest->start = NULL;
    }
    *cell = trim(*cell);
    return true;
}

typedef enum line_kind {
    LINE_BLANK,
    LINE_ROW,
    LINE_PLACEMENT,
    LINE_CHAINS,
    LINE_COMMENT
} line_kind;

/* True if the comment is "key:"; *line becomes what follows. */
static bool comment_is(piece *line, const char *key) {
    size_t length = strlen(key);
    piece rest = *line;
    if ((size_t)(rest.end - rest.start) <= length || memcmp(rest.start, key, length) != 0)
        return false;
    rest.start += length;
    rest.column += length;
    rest = trim(rest);
    if (rest.start == rest.end || *rest.start != ':') return false;
    rest.start++;
    rest.column++;
    *line = trim(rest);
    return true;
}

/* What a line is; trims it and, for our comments, leaves the list behind the colon. */
static line_kind classify(piece *line) {
    *line = trim(*line);
    if (line->start == line->end) return LINE_BLANK;
    if (*line->start != '#') return LINE_ROW;
    line->start++;
    line->column++;
    *line = trim(*line);
    if (comment_is(line, "placement")) return LINE_PLACEMENT;
    if (comment_is(line, "chains")) return LINE_CHAINS;
    return LINE_COMMENT;
}

static pp_status fail_at(const reader *r, piece where, const char *flaw) {
    char place[320];
    snprintf(place, sizeof place, "%.250s:%zu:%zu", r->file_name, where.line, where.column);
    return pp_fail(r->error, PP_E_INPUT, place, "%s", flaw);
}

static pp_status fail_cell(const reader *r, piece cell, const char *flaw) {
    char message[256];
    pp_excerpt shown = pp_excerpt_of(cell.start, (size_t)(cell.end - cell.start));
    snprintf(message, sizeof message, "'%s' is not an action: %s", shown.text, flaw);
    return fail_at(r, cell, message);
}

/* ---- pass 1: sizes ------------------------------------------------------------------------- */

typedef struct sizes {
    size_t rows, actions;
    piece placement, chains; /* the lists behind the comments; start NULL: none */
} sizes;

static size_t count_items(piece list) {
    size_t count = 0;
    piece item;
    while (next_cell(&list, &item)) count++;
    return count;
}

static pp_status count_row(const reader *r, piece line, sizes *found) {
    piece cell;
    if (++found->rows > PP_RANKS_MAX) return fail_at(r, line, "there are more than 65535 ranks");
    while (next_cell(&line, &cell))
        if (cell.start != cell.end) found->actions += *cell.start == '(' ? 2 : 1;
    if (found->actions > PP_ACTIONS_MAX)
        return fail_at(r, line, "there are more than 1000000000 actions");
    return PP_OK;
}

static pp_status note_comment(const reader *r, piece line, piece *noted) {
    if (noted->start) return fail_at(r, line, "this comment stands in the file a second time");
    if (line.start == line.end)
        return fail_at(r, line,
                       "the list is empty; leave the comment out, or write "
                       "'# placement: 0,1,1,0' or '# chains: 0-1,2-3'");
    *noted = line;
    return PP_OK;
}

static pp_status count_line(const reader *r, piece line, sizes *found) {
    switch (classify(&line)) {
    case LINE_ROW:
        return count_row(r, line, found);
    case LINE_PLACEMENT:
        return note_comment(r, line, &found->placement);
    case LINE_CHAINS:
        return note_comment(r, line, &found->chains);
    default:
        return PP_OK;
    }
}

static pp_status count_all(const reader *r, sizes *found) {
    *found = (sizes){0};
    piece line = before_first(r);
    while (next_line(r, &line)) PP_TRY(count_line(r, line, found));
    if (found->actions == 0)
        return fail_at(
            r, (piece){.line = 1, .column = 1},
            "there are no actions; a schedule has a row per rank with cells like 0F0,0B0");
    return PP_OK;
}

/* ---- pass 2: contents ---------------------------------------------------------------------- */

static bool take_number(piece *item, int most, int *number) {
    int64_t value = 0;
    const char *start = item->start;
    for (; item->start < item->end && *item->start >= '0' && *item->start <= '9'; item->start++) {
        value = 10 * value + (*item->start - '0');
        if (value > most) return false;
    }
    *number = (int)value;
    return item->start > start;
}

static pp_status read_placement(const reader *r, piece list, int *placement) {
    piece item;
    for (int s = 0; next_cell(&list, &item); s++) {
        piece number = item;
        if (!take_number(&number, PP_RANKS_MAX - 1, &placement[s]) || number.start != number.end)
            return fail_at(r, item,
                           "the placement is a list of ranks, one per stage, as in 0,1,1,0");
    }
    return PP_OK;
}

/* "first-last", or "first" alone. */
static bool take_chain(piece item, pp_chain *chain) {
    if (!take_number(&item, PP_STAGES_MAX - 1, &chain->first)) return false;
    chain->last = chain->first;
    if (item.start == item.end) return true;
    if (*item.start++ != '-') return false;
    return take_number(&item, PP_STAGES_MAX - 1, &chain->last) && item.start == item.end;
}

static pp_status read_chains(const reader *r, piece list, pp_schedule *schedule) {
    piece item;
    while (next_cell(&list, &item)) {
        if (!take_chain(item, &schedule->chains[schedule->chain_count]))
            return fail_at(r, item, "the chains are a list of ranges of stages, as in 0-1,2-3");
        schedule->chain_count++;
    }
    return PP_OK;
}

static pp_status read_row(const reader *r, piece line, pp_schedule *schedule, size_t *filled) {
    piece cell;
    while (next_cell(&line, &cell)) {
        int count;
        if (cell.start == cell.end) continue;
        const char *flaw = pp_cell_parse(cell.start, (size_t)(cell.end - cell.start),
                                         &schedule->actions[*filled], &count);
        if (flaw) return fail_cell(r, cell, flaw);
        *filled += (size_t)count;
    }
    return PP_OK;
}

static pp_status read_rows(const reader *r, pp_schedule *schedule) {
    piece line = before_first(r);
    size_t filled = 0;
    int p = 0;
    while (next_line(r, &line)) {
        piece row = line;
        if (classify(&row) != LINE_ROW) continue;
        schedule->first_action[p++] = filled;
        PP_TRY(read_row(r, row, schedule, &filled));
    }
    schedule->first_action[p] = filled;
    return PP_OK;
}

/* ---- pass 3: where was it? ----------------------------------------------------------------- */

/* The cell that gave action `index`. */
static piece find_action(const reader *r, size_t index) {
    piece line = before_first(r), cell = {.line = 1, .column = 1};
    size_t passed = 0;
    while (next_line(r, &line)) {
        piece row = line;
        if (classify(&row) != LINE_ROW) continue;
        while (next_cell(&row, &cell)) {
            if (cell.start != cell.end) passed += *cell.start == '(' ? 2 : 1;
            if (passed > index) return cell;
        }
    }
    return cell;
}

static pp_status fail_culprit(const reader *r, const sizes *found, size_t culprit,
                              const pp_error *flaw) {
    piece where = culprit == PP_CULPRIT_CHAINS      ? found->chains
                  : culprit == PP_CULPRIT_PLACEMENT ? found->placement
                  : culprit == PP_NO_CULPRIT        ? (piece){0}
                                                    : find_action(r, culprit);
    if (flaw->code != PP_E_INPUT) return pp_fail(r->error, flaw->code, NULL, "%s", flaw->message);
    if (where.line > 0) return fail_at(r, where, flaw->message);
    return pp_fail(r->error, PP_E_INPUT, r->file_name, "%s", flaw->message);
}

/* ---- reading ------------------------------------------------------------------------------- */

static pp_status read_contents(const reader *r, const sizes *found, pp_schedule *schedule) {
    pp_schedule_given given = {0};
    if (found->placement.start) {
        PP_TRY(read_placement(r, found->placement, schedule->placement));
        given.placed_stages = (int)count_items(found->placement);
    }
    if (found->chains.start) {
        PP_TRY(read_chains(r, found->chains, schedule));
        given.chains = true;
    }
    PP_TRY(read_rows(r, schedule));
    pp_error flaw;
    size_t culprit;
    pp_status status = pp_schedule_finish(schedule, given, &culprit, &flaw);
    return status == PP_OK ? PP_OK : fail_culprit(r, found, culprit, &flaw);
}

static pp_status read_counted(const reader *r, const sizes *found, pp_schedule **schedule) {
    size_t stages = found->actions < PP_STAGES_MAX ? found->actions : PP_STAGES_MAX;
    if (found->placement.start) {
        stages = count_items(found->placement);
        if (stages > PP_STAGES_MAX)
            return fail_at(r, found->placement, "there are more than 65535 stages");
    }
    size_t chains = found->chains.start ? count_items(found->chains) : 1;
    pp_schedule *fresh;
    PP_TRY(
        pp_schedule_allocate((int)found->rows, stages, chains, found->actions, &fresh, r->error));
    pp_schedule_name_after(fresh, r->file_name);
    pp_status status = read_contents(r, found, fresh);
    if (status == PP_OK)
        *schedule = fresh;
    else
        pp_schedule_free(fresh);
    return status;
}

pp_status pp_schedule_read_csv(const char *text, size_t length, const char *file_name,
                               pp_schedule **schedule, pp_error *error) {
    static const char mark[] = "\xEF\xBB\xBF";
    reader r = {text, text + length, file_name, error};
    sizes found;
    *schedule = NULL;
    if (length >= 3 && memcmp(text, mark, 3) == 0) r.text += 3;
    PP_TRY(count_all(&r, &found));
    return read_counted(&r, &found, schedule);
}

/* ---- writing ------------------------------------------------------------------------------- */

static bool is_loop(const pp_schedule *schedule) {
    for (int s = 0; s < schedule->stages; s++)
        if (schedule->placement[s] != s % schedule->ranks) return false;
    return true;
}

/* Else a reader could not know where they are. */
static bool all_stages_act(const pp_schedule *schedule) {
    uint8_t acts[PP_STAGES_MAX] = {0};
    int missing = schedule->stages;
    for (size_t i = 0; i < schedule->first_action[schedule->ranks] && missing > 0; i++) {
        uint8_t *stage = &acts[schedule->actions[i].stage];
        missing -= !*stage;
        *stage = 1;
    }
    return missing == 0;
}

static bool is_one_chain(const pp_schedule *schedule) {
    return schedule->chain_count == 1 && schedule->chains[0].first == 0 &&
           schedule->chains[0].last == schedule->stages - 1;
}

static void write_comments(const pp_schedule *schedule, pp_text *text) {
    if (!is_loop(schedule) || !all_stages_act(schedule)) {
        pp_text_string(text, "# placement: ");
        for (int s = 0; s < schedule->stages; s++)
            pp_text_printf(text, s == 0 ? "%d" : ",%d", schedule->placement[s]);
        pp_text_string(text, "\n");
    }
    if (!is_one_chain(schedule)) {
        pp_text_string(text, "# chains: ");
        for (int c = 0; c < schedule->chain_count; c++)
            pp_text_printf(text, c == 0 ? "%d-%d" : ",%d-%d", schedule->chains[c].first,
                           schedule->chains[c].last);
        pp_text_string(text, "\n");
    }
}

void pp_schedule_write_csv(const pp_schedule *schedule, pp_text *text) {
    char cell[PP_CELL_LENGTH];
    write_comments(schedule, text);
    for (int p = 0; p < schedule->ranks; p++) {
        size_t begin = schedule->first_action[p], end = schedule->first_action[p + 1];
        for (size_t i = begin; i < end; i += pp_node_size(schedule, i)) {
            if (i > begin) pp_text_append(text, ",", 1);
            pp_text_string(text, pp_cell_text(&schedule->actions[i], cell));
        }
        if (begin == end) pp_text_append(text, ",", 1); /* a blank line would be no row */
        pp_text_append(text, "\n", 1);
    }
}
