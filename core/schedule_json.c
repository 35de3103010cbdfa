/* Schedules as JSON:
 *
 *   {"name": "1f1b", "ranks": 2, "virtual": 1, "microbatches": 4, "placement": [0, 1],
 *    "chains": [[0, 1]], "actions": [["0F0", "0F1", …], ["1F0", "1B0", …]]}
 *
 * Only "actions" is needed; the rest follows from it as in a CSV file and must agree with it where
 * given. null and "" are idle slots. Unknown keys are errors. The rows are streamed cell by cell,
 * since as a tree they would take many times their text. Like the CSV reader this one counts first
 * and fills then; both passes run the same code, the first without a schedule. */
#include "core/json_reader.h"
#include "core/schedule_internal.h"

#include <string.h>

#define KEY_LIST(X)                                                                                \
    X(KEY_NAME, "name", read_name)                                                                 \
    X(KEY_RANKS, "ranks", read_ranks)                                                              \
    X(KEY_VIRTUAL, "virtual", read_virtual)                                                        \
    X(KEY_MICROBATCHES, "microbatches", read_microbatches)                                         \
    X(KEY_PLACEMENT, "placement", read_placement)                                                  \
    X(KEY_CHAINS, "chains", read_chains)

/* "actions" is not in the list: it alone is streamed. */
enum {
#define X(value, name, read) value,
    KEY_LIST(X)
#undef X
        KEY_ACTIONS,
    KEY_COUNT
};

#define VALUE_MEMORY_BYTES ((size_t)64 << 20) /* any value but the actions */
#define CELL_MEMORY_BYTES ((size_t)1 << 16)

typedef struct reader {
    pp_json_stream stream;
    pp_error *error;
    pp_schedule *schedule; /* NULL: only count */
    unsigned seen;         /* bit per key */
    char name[sizeof((pp_schedule *)0)->name];
    int ranks, virtual_stages, microbatches; /* as given */
    size_t rows, actions, placed, chains;    /* as counted */
    size_t wanted;                           /* action whose place is looked for … */
    size_t wanted_row, wanted_item;          /* … and where it was found */
    bool found;
} reader;

static bool has(const reader *r, int key) {
    return r->seen >> key & 1;
}

static pp_json_node root_node(const reader *r) {
    return (pp_json_node){.file_name = r->stream.file_name};
}

static pp_json_node element_node(const pp_json_node *parent, size_t index) {
    return (pp_json_node){.file_name = parent->file_name, .parent = parent, .index = index};
}

/* ---- small values -------------------------------------------------------------------------- */

/* The name goes into messages, so it must not steer a terminal. */
static bool is_name(const json_t *value, size_t capacity) {
    const char *text = json_string_value(value);
    if (!text || json_string_length(value) >= capacity) return false;
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f) return false;
    return true;
}

static pp_status read_name(reader *r, const pp_json_node *node) {
    if (!is_name(node->value, sizeof r->name))
        return pp_node_fail(node, r->error, "expected a name of at most %zu printable bytes",
                            sizeof r->name - 1);
    memcpy(r->name, json_string_value(node->value), json_string_length(node->value) + 1);
    return PP_OK;
}

static pp_status read_count(reader *r, const pp_json_node *node, int maximum, int *count) {
    int64_t value;
    char found[64];
    if (!pp_value_integer(node->value, &value) || value < 1 || value > maximum)
        return pp_node_fail(node, r->error, "expected an integer from 1 to %d, not %s", maximum,
                            pp_value_describe(node->value, found, sizeof found));
    *count = (int)value;
    return PP_OK;
}

static pp_status read_ranks(reader *r, const pp_json_node *node) {
    return read_count(r, node, PP_RANKS_MAX, &r->ranks);
}

static pp_status read_virtual(reader *r, const pp_json_node *node) {
    return read_count(r, node, PP_STAGES_MAX, &r->virtual_stages);
}

static pp_status read_microbatches(reader *r, const pp_json_node *node) {
    return read_count(r, node, PP_MICROBATCHES_MAX, &r->microbatches);
}

static pp_status read_placement(reader *r, const pp_json_node *node) {
    PP_TRY(pp_node_array(node, 1, PP_STAGES_MAX, r->error));
    r->placed = pp_node_length(node);
    if (!r->schedule) return PP_OK;
    return pp_node_ints(node, (int)r->placed, 0, PP_RANKS_MAX - 1, r->schedule->placement,
                        r->error);
}

static pp_status read_chains(reader *r, const pp_json_node *node) {
    PP_TRY(pp_node_array(node, 1, PP_STAGES_MAX, r->error));
    r->chains = pp_node_length(node);
    for (size_t c = 0; c < r->chains && r->schedule; c++) {
        pp_json_node chain = pp_node_element(node, c);
        int ends[2];
        PP_TRY(pp_node_ints(&chain, 2, 0, PP_STAGES_MAX - 1, ends, r->error));
        r->schedule->chains[c] = (pp_chain){ends[0], ends[1]};
    }
    return PP_OK;
}

/* ---- actions ------------------------------------------------------------------------------- */

/* Most cells: a short string without escapes, used where it stands. */
static bool take_plain_cell(pp_json_stream *stream, char cell[PP_CELL_LENGTH]) {
    if (stream->at == stream->length || stream->text[stream->at] != '"') return false;
    const char *start = stream->text + stream->at + 1;
    size_t left = stream->length - stream->at - 1, length = 0;
    while (length < left && length < PP_CELL_LENGTH - 1 && start[length] > ' ' &&
           start[length] <= '~' && start[length] != '"' && start[length] != '\\')
        length++;
    if (length == left || start[length] != '"') return false;
    memcpy(cell, start, length);
    cell[length] = '\0';
    stream->at += length + 2;
    return true;
}

/* Any other value: an idle slot, a string after all, or an error. */
static pp_status take_other_cell(reader *r, const pp_json_node *node, char cell[PP_CELL_LENGTH]) {
    json_t *value;
    char found[64];
    cell[0] = '\0';
    PP_TRY(pp_stream_value(&r->stream, CELL_MEMORY_BYTES, &value, r->error));
    pp_status status = PP_OK;
    if (json_is_string(value) && json_string_length(value) < PP_CELL_LENGTH)
        memcpy(cell, json_string_value(value), json_string_length(value) + 1);
    else if (!json_is_null(value))
        status = pp_node_fail(node, r->error, "expected an action such as \"0F3\", not %s",
                              pp_value_describe(value, found, sizeof found));
    json_decref(value);
    return status;
}

static pp_status read_cell(reader *r, const pp_json_node *node) {
    char cell[PP_CELL_LENGTH];
    if (!take_plain_cell(&r->stream, cell)) PP_TRY(take_other_cell(r, node, cell));
    if (cell[0] == '\0') return PP_OK;
    int count = cell[0] == '(' ? 2 : 1;
    if (r->schedule) {
        pp_action *to = &r->schedule->actions[r->actions];
        const char *flaw = pp_cell_parse(cell, strlen(cell), to, &count);
        if (flaw)
            return pp_node_fail(node, r->error, "'%s' is not an action: %s",
                                pp_excerpt_of(cell, strlen(cell)).text, flaw);
    }
    r->actions += (size_t)count;
    if (r->actions > PP_ACTIONS_MAX)
        return pp_node_fail(node, r->error, "there are more than %d actions", PP_ACTIONS_MAX);
    if (!r->found && r->wanted < r->actions) {
        r->found = true;
        r->wanted_item = node->index;
        r->wanted_row = node->parent->index;
    }
    return PP_OK;
}

/* The stream stands behind '['. Steps to each element; *more is false behind ']'. */
static pp_status next_element(reader *r, bool first, bool *more) {
    *more = !pp_stream_accept(&r->stream, ']');
    if (!*more || first) return PP_OK;
    PP_TRY(pp_stream_expect(&r->stream, ',', r->error));
    pp_stream_accept(&r->stream, ' '); /* never there: only skips white space */
    return PP_OK;
}

static pp_status open_list(reader *r, const pp_json_node *node, const char *expected) {
    if (pp_stream_accept(&r->stream, '[')) return PP_OK;
    json_t *value;
    char found[64];
    PP_TRY(pp_stream_value(&r->stream, CELL_MEMORY_BYTES, &value, r->error));
    pp_node_fail(node, r->error, "expected %s, not %s", expected,
                 pp_value_describe(value, found, sizeof found));
    json_decref(value);
    return PP_E_INPUT;
}

static pp_status read_row(reader *r, const pp_json_node *row) {
    bool more;
    PP_TRY(open_list(r, row, "the list of a rank's actions"));
    for (size_t i = 0;; i++) {
        pp_json_node cell = element_node(row, i);
        PP_TRY(next_element(r, i == 0, &more));
        if (!more) return PP_OK;
        PP_TRY(read_cell(r, &cell));
    }
}

static pp_status read_actions(reader *r, const pp_json_node *node) {
    bool more;
    PP_TRY(open_list(r, node, "a list of rows, one per rank"));
    for (;; r->rows++) {
        pp_json_node row = element_node(node, r->rows);
        PP_TRY(next_element(r, r->rows == 0, &more));
        if (r->schedule) r->schedule->first_action[r->rows] = r->actions;
        if (!more) return PP_OK;
        if (r->rows >= PP_RANKS_MAX)
            return pp_node_fail(&row, r->error, "there are more than %d ranks", PP_RANKS_MAX);
        PP_TRY(read_row(r, &row));
    }
}

/* ---- the document -------------------------------------------------------------------------- */

static const struct {
    const char *name;
    pp_status (*read)(reader *r, const pp_json_node *node);
} keys[KEY_COUNT] = {
#define X(value, name, read) {name, read},
    KEY_LIST(X)
#undef X
        [KEY_ACTIONS] = {"actions", read_actions},
};

static pp_json_node key_node(const pp_json_node *root, int key) {
    return (pp_json_node){.file_name = root->file_name, .parent = root, .key = keys[key].name};
}

static pp_status read_value(reader *r, int key) {
    pp_json_node root = root_node(r), node = key_node(&root, key);
    if (has(r, key)) return pp_node_fail(&node, r->error, "the key stands in the file twice");
    r->seen |= 1u << key;
    if (key == KEY_ACTIONS) return read_actions(r, &node);
    PP_TRY(pp_stream_value(&r->stream, VALUE_MEMORY_BYTES, &node.value, r->error));
    pp_status status = keys[key].read(r, &node);
    json_decref(node.value);
    return status;
}

static pp_status read_member(reader *r) {
    char name[64];
    PP_TRY(pp_stream_key(&r->stream, name, sizeof name, r->error));
    PP_TRY(pp_stream_expect(&r->stream, ':', r->error));
    for (int key = 0; key < KEY_COUNT; key++)
        if (strcmp(keys[key].name, name) == 0) return read_value(r, key);
    pp_json_node root = root_node(r);
    return pp_node_fail(&root, r->error,
                        "unknown key '%s'; a schedule has name, ranks, virtual, microbatches, "
                        "placement, chains and actions",
                        pp_excerpt_of(name, strlen(name)).text);
}

static reader reader_start(const char *text, size_t length, const char *file_name,
                           pp_schedule *schedule, pp_error *error) {
    return (reader){.stream = {text ? text : "", length, 0, file_name},
                    .error = error,
                    .schedule = schedule,
                    .wanted = SIZE_MAX};
}

static pp_status read_document(reader *r) {
    PP_TRY(pp_stream_expect(&r->stream, '{', r->error));
    bool first = true;
    while (!pp_stream_accept(&r->stream, '}')) {
        if (!first) PP_TRY(pp_stream_expect(&r->stream, ',', r->error));
        first = false;
        PP_TRY(read_member(r));
    }
    PP_TRY(pp_stream_end(&r->stream, r->error));
    pp_json_node root = root_node(r), actions = key_node(&root, KEY_ACTIONS);
    if (!has(r, KEY_ACTIONS))
        return pp_node_fail(&root, r->error, "the key \"actions\" is missing");
    if (r->actions == 0) return pp_node_fail(&actions, r->error, "there are no actions");
    return PP_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* An action, found by reading once more. */
static pp_status fail_action(reader *r, size_t culprit, const char *message) {
    reader again = reader_start(r->stream.text, r->stream.length, r->stream.file_name, NULL, NULL);
    again.wanted = culprit;
    read_document(&again);
    pp_json_node root = root_node(r), actions = key_node(&root, KEY_ACTIONS);
    pp_json_node row = element_node(&actions, again.wanted_row);
    pp_json_node cell = element_node(&row, again.wanted_item);
    return pp_node_fail(&cell, r->error, "%s", message);
}

static pp_status fail_culprit(reader *r, size_t culprit, const pp_error *flaw) {
    if (flaw->code != PP_E_INPUT) return pp_fail(r->error, flaw->code, NULL, "%s", flaw->message);
    if (culprit < PP_CULPRIT_CHAINS) return fail_action(r, culprit, flaw->message);
    pp_json_node root = root_node(r);
    pp_json_node node = key_node(&root, culprit == PP_CULPRIT_CHAINS      ? KEY_CHAINS
                                        : culprit == PP_CULPRIT_PLACEMENT ? KEY_PLACEMENT
                                                                          : KEY_ACTIONS);
    return pp_node_fail(&node, r->error, "%s", flaw->message);
}

static pp_status check_given(reader *r, int key, int given, int found) {
    if (!has(r, key) || given == found) return PP_OK;
    pp_json_node root = root_node(r), node = key_node(&root, key);
    return pp_node_fail(&node, r->error, "the file says %d, but its actions make it %d", given,
                        found);
}

static pp_status finish(reader *r) {
    pp_schedule *schedule = r->schedule;
    pp_schedule_given given = {.placed_stages = (int)r->placed, .chains = has(r, KEY_CHAINS)};
    pp_error flaw;
    size_t culprit;
    PP_TRY(check_given(r, KEY_RANKS, r->ranks, schedule->ranks));
    schedule->chain_count = (int)r->chains;
    if (pp_schedule_finish(schedule, given, &culprit, &flaw) != PP_OK)
        return fail_culprit(r, culprit, &flaw);
    PP_TRY(check_given(r, KEY_VIRTUAL, r->virtual_stages, schedule->virtual_stages));
    PP_TRY(check_given(r, KEY_MICROBATCHES, r->microbatches,
                       (int)pp_schedule_all_microbatches(schedule)));
    if (r->name[0] != '\0')
        memcpy(schedule->name, r->name, sizeof schedule->name);
    else
        pp_schedule_name_after(schedule, r->stream.file_name);
    return PP_OK;
}

pp_status pp_schedule_read_json(const char *text, size_t length, const char *file_name,
                                pp_schedule **schedule, pp_error *error) {
    *schedule = NULL;
    reader count = reader_start(text, length, file_name, NULL, error);
    PP_TRY(read_document(&count));
    size_t stages = count.placed > 0                ? count.placed
                    : count.actions < PP_STAGES_MAX ? count.actions
                                                    : PP_STAGES_MAX;
    pp_schedule *fresh;
    PP_TRY(pp_schedule_allocate((int)count.rows, stages, count.chains > 0 ? count.chains : 1,
                                count.actions, &fresh, error));
    reader fill = reader_start(text, length, file_name, fresh, error);
    pp_status status = read_document(&fill);
    if (status == PP_OK) status = finish(&fill);
    if (status == PP_OK)
        *schedule = fresh;
    else
        pp_schedule_free(fresh);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------- */

static void write_row(const pp_schedule *schedule, int p, pp_json *json) {
    char cell[PP_CELL_LENGTH];
    pp_json_array_flat(json);
    for (size_t i = schedule->first_action[p]; i < schedule->first_action[p + 1];
         i += pp_node_size(schedule, i))
        pp_json_string(json, pp_cell_text(&schedule->actions[i], cell));
    pp_json_end_array(json);
}

void pp_schedule_write_json(const pp_schedule *schedule, pp_json *json) {
    pp_json_object(json);
    pp_json_key(json, "name");
    pp_json_string(json, schedule->name);
    pp_json_key(json, "ranks");
    pp_json_int(json, schedule->ranks);
    pp_json_key(json, "virtual");
    pp_json_int(json, schedule->virtual_stages);
    pp_json_key(json, "microbatches");
    pp_json_int(json, pp_schedule_all_microbatches(schedule));
    pp_json_key(json, "placement");
    pp_json_array_flat(json);
    for (int s = 0; s < schedule->stages; s++) pp_json_int(json, schedule->placement[s]);
    pp_json_end_array(json);
    pp_json_key(json, "chains");
    pp_json_array_flat(json);
    for (int c = 0; c < schedule->chain_count; c++) {
        pp_json_array_flat(json);
        pp_json_int(json, schedule->chains[c].first);
        pp_json_int(json, schedule->chains[c].last);
        pp_json_end_array(json);
    }
    pp_json_end_array(json);
    pp_json_key(json, "actions");
    pp_json_array(json);
    for (int p = 0; p < schedule->ranks; p++) write_row(schedule, p, json);
    pp_json_end_array(json);
    pp_json_end_object(json);
}
