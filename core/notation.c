/* Actions as people and torch.distributed.pipelining write them: `0F3`, `2SEND_B1`, `0F3.1`.
 *
 *     action = stage kind [microbatch [ "." slice ]]
 *     cell   = action | "(" action ";" action ")" [ "OVERLAP_F_B" ]
 *
 * Numbers are decimal; slice 0 is written without ".0". Parsing never allocates and reads each byte
 * a bounded number of times. */
#include "core/schedule_internal.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t length;
} kinds[PP_ACTION_KIND_COUNT] = {
#define X(value, name, busy) [value] = {name, sizeof(name) - 1},
    PP_ACTION_LIST(X)
#undef X
};

bool pp_action_is_compute(pp_action action) {
    return action.kind <= PP_RECOMPUTE;
}

bool pp_action_is_transfer(pp_action action) {
    return action.kind >= PP_SEND_F && action.kind <= PP_RECV_B;
}

bool pp_kind_has_microbatch(pp_action_kind kind) {
    return kind <= PP_RECV_B;
}

const char *pp_action_kind_name(pp_action_kind kind) {
    return kinds[kind].name;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* Digits of value at `to`; returns behind them. snprintf would be most of the time of writing. */
static char *put_number(char *to, uint32_t value) {
    char digits[10];
    int count = 0;
    do digits[count++] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    while (count > 0) *to++ = digits[--count];
    return to;
}

const char *pp_action_text(pp_action action, char buffer[32]) {
    char *to = put_number(buffer, action.stage);
    memcpy(to, kinds[action.kind].name, kinds[action.kind].length);
    to += kinds[action.kind].length;
    if (action.microbatch != PP_NO_MICROBATCH) to = put_number(to, action.microbatch);
    if (action.slice != 0) {
        *to++ = '.';
        to = put_number(to, action.slice);
    }
    *to = '\0';
    return buffer;
}

const char *pp_cell_text(const pp_action *action, char buffer[PP_CELL_LENGTH]) {
    char first[32], second[32];
    if (!action->overlapped) return pp_action_text(*action, buffer);
    snprintf(buffer, PP_CELL_LENGTH, "(%s;%s)OVERLAP_F_B", pp_action_text(action[0], first),
             pp_action_text(action[1], second));
    return buffer;
}

pp_excerpt pp_excerpt_of(const char *text, size_t length) {
    enum { SHOWN = 40 };
    pp_excerpt excerpt;
    size_t shown = length < SHOWN ? length : SHOWN;
    for (size_t i = 0; i < shown; i++)
        excerpt.text[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    snprintf(excerpt.text + shown, sizeof excerpt.text - shown, "%s", length > SHOWN ? "..." : "");
    return excerpt;
}

/* ---- parsing ------------------------------------------------------------------------------- */

typedef struct cursor {
    const char *at, *end;
} cursor;

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_kind_letter(char c) {
    return (c >= 'A' && c <= 'Z') || c == '_';
}

static bool next_is(cursor *c, char wanted) {
    if (c->at == c->end || *c->at != wanted) return false;
    c->at++;
    return true;
}

/* A decimal number of at most `most`; false if there is none or it is larger. */
static bool take_number(cursor *c, uint32_t most, uint32_t *number) {
    uint64_t value = 0;
    if (c->at == c->end || !is_digit(*c->at)) return false;
    for (; c->at < c->end && is_digit(*c->at); c->at++) {
        value = 10 * value + (uint64_t)(*c->at - '0');
        if (value > most) return false;
    }
    *number = (uint32_t)value;
    return true;
}

static bool take_kind(cursor *c, pp_action_kind *kind) {
    const char *start = c->at;
    while (c->at < c->end && is_kind_letter(*c->at)) c->at++;
    size_t length = (size_t)(c->at - start);
    for (int k = 0; k < PP_ACTION_KIND_COUNT; k++) {
        if (kinds[k].length != length || memcmp(kinds[k].name, start, length) != 0) continue;
        *kind = (pp_action_kind)k;
        return true;
    }
    return false;
}

/* The microbatch and slice behind a kind that has them. */
static const char *take_microbatch(cursor *c, pp_action *action) {
    uint32_t number;
    if (c->at == c->end || !is_digit(*c->at)) return "its type needs a microbatch number";
    if (!take_number(c, PP_MICROBATCHES_MAX - 1, &number))
        return "the largest microbatch number is 16777215";
    action->microbatch = number;
    if (!next_is(c, '.')) return NULL;
    if (!take_number(c, UINT8_MAX, &number)) return "a slice is a number from 0 to 255";
    action->slice = (uint8_t)number;
    return NULL;
}

/* One action from the cursor; NULL, or what is wrong. */
static const char *take_action(cursor *c, pp_action *action) {
    uint32_t stage;
    pp_action_kind kind;
    *action = (pp_action){.microbatch = PP_NO_MICROBATCH};
    if (c->at == c->end || !is_digit(*c->at)) return "an action begins with its stage, as in 0F3";
    if (!take_number(c, PP_STAGES_MAX - 1, &stage)) return "the largest stage number is 65534";
    if (!take_kind(c, &kind))
        return "its type is none of F B I W R SEND_F RECV_F SEND_B RECV_B UNSHARD RESHARD "
               "REDUCE_GRAD STEP";
    action->stage = (uint16_t)stage;
    action->kind = (uint8_t)(kind & 0x7f);
    return pp_kind_has_microbatch(kind) ? take_microbatch(c, action) : NULL;
}

bool pp_action_parse(const char *text, size_t length, pp_action *action) {
    cursor c = {text, text + length};
    return take_action(&c, action) == NULL && c.at == c.end;
}

static void skip_blanks(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t')) c->at++;
}

/* "a;b)OVERLAP_F_B" after the opening bracket. */
static const char *take_pair(cursor *c, pp_action actions[2]) {
    static const char suffix[] = "OVERLAP_F_B";
    for (int i = 0; i < 2; i++) {
        skip_blanks(c);
        const char *flaw = take_action(c, &actions[i]);
        if (flaw) return flaw;
        if (!pp_action_is_compute(actions[i])) return "only F, B, I, W and R can overlap";
        skip_blanks(c);
        if (!next_is(c, i == 0 ? ';' : ')')) return "an overlapped pair is (0F3;1B0)OVERLAP_F_B";
    }
    size_t rest = (size_t)(c->end - c->at);
    if (rest != 0 && (rest != sizeof suffix - 1 || memcmp(c->at, suffix, rest) != 0))
        return "an overlapped pair ends with )OVERLAP_F_B";
    c->at = c->end;
    actions[0].overlapped = 1;
    return NULL;
}

const char *pp_cell_parse(const char *text, size_t length, pp_action actions[2], int *count) {
    cursor c = {text, text + length};
    bool pair = next_is(&c, '(');
    *count = pair ? 2 : 1;
    const char *flaw = pair ? take_pair(&c, actions) : take_action(&c, &actions[0]);
    if (!flaw && c.at != c.end) return "the action ends before the cell does";
    return flaw;
}
