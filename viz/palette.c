/* Colours: which fill means which kind of action, and which text can be read on it.
 *
 * The kinds differ in lightness as well as in hue (blue, orange, teal, yellow, purple, as
 * colour-blind people can tell apart), so that a picture survives a grey printer; everything is
 * darker than idle time. Microbatches take turns between two shades, and the stages of one rank
 * fade from `colour` to `last`. Tests hold the table to this. */
#include "viz/chart_internal.h"

#include <math.h>

static const viz_kind kinds[PP_ACTION_KIND_COUNT] = {
    [PP_FORWARD] = {"forward (F)", "F", NULL, 0x24599c, 0x93b4db, 0},
    [PP_BACKWARD] = {"backward (B)", "B", NULL, 0xe58a1f, 0xf6cb98, 0},
    [PP_INPUT] = {"backward for inputs (I)", "I", NULL, 0xecc94b, 0xf3dd92, 0},
    [PP_WEIGHT] = {"backward for weights (W)", "W", NULL, 0x2fa58b, 0xa3d9cb, 0},
    [PP_RECOMPUTE] = {"recompute (R)", "R", NULL, 0xd9c4ee, 0xe6d7f4, 0},
    [PP_SEND_F] = {"activations in transit", NULL, NULL, 0x5584c0, 0x5584c0, 0},
    [PP_RECV_F] = {"activations in transit", NULL, NULL, 0x5584c0, 0x5584c0, 0},
    [PP_SEND_B] = {"gradients in transit", NULL, NULL, 0xc0701a, 0xc0701a, 0},
    [PP_RECV_B] = {"gradients in transit", NULL, NULL, 0xc0701a, 0xc0701a, 0},
    [PP_UNSHARD] = {"gather weights", NULL, "gather", 0x8c8c8c, 0xb4b4b4, 0},
    [PP_RESHARD] = {"drop gathered weights", NULL, "drop", 0x8c8c8c, 0xb4b4b4, 0},
    [PP_REDUCE_GRAD] = {"gradient reduction", NULL, "reduce", 0x9c2c66, 0xe0a3c3, 0},
    [PP_STEP] = {"optimizer step", NULL, "step", 0x30353c, 0xb5b9bf, 0xced3da},
};

static const viz_theme light = {.dark = false,
                                .page = 0xffffff,
                                .idle = 0xf2f3f5,
                                .grid = 0xdcdfe4,
                                .text = 0x1b1e23,
                                .muted = 0x626973,
                                .mark = 0xb3202c};
static const viz_theme dark = {.dark = true,
                               .page = 0x15171b,
                               .idle = 0x24272d,
                               .grid = 0x3a3e46,
                               .text = 0xeceef1,
                               .muted = 0xa3a9b3,
                               .mark = 0xff7b80};

const viz_theme *viz_theme_get(bool want_dark) {
    return want_dark ? &dark : &light;
}

const viz_kind *viz_kind_get(unsigned kind) {
    return &kinds[kind < PP_ACTION_KIND_COUNT ? kind : PP_STEP];
}

/* a + (b - a) · share, each of red, green and blue. */
static viz_colour mix(viz_colour a, viz_colour b, double share) {
    viz_colour result = 0;
    for (int shift = 0; shift <= 16; shift += 8) {
        double from = (double)(a >> shift & 255), to = (double)(b >> shift & 255);
        result |= (viz_colour)(from + (to - from) * share + 0.5) << shift;
    }
    return result;
}

viz_colour viz_action_colour(const viz_theme *theme, pp_action action, int chunk, int chunks) {
    const viz_kind *kind = viz_kind_get(action.kind);
    if (theme->dark && kind->dark_theme) return kind->dark_theme;
    /* the second stage is well apart from the first, and lighter than where labels change colour */
    double along = chunk > 0 ? 0.55 + 0.45 * (double)chunk / (chunks - 1) : 0;
    viz_colour colour = mix(kind->colour, kind->last, along);
    bool odd = action.microbatch != PP_NO_MICROBATCH && action.microbatch % 2 == 1;
    return odd && !pp_action_is_transfer(action) ? mix(colour, 0xffffff, 0.18) : colour;
}

/* sRGB to linear light. */
static double linear(viz_colour channel) {
    double value = (double)channel / 255;
    return value <= 0.04045 ? value / 12.92 : pow((value + 0.055) / 1.055, 2.4);
}

double viz_luminance(viz_colour colour) {
    return 0.2126 * linear(colour >> 16 & 255) + 0.7152 * linear(colour >> 8 & 255) +
           0.0722 * linear(colour & 255);
}

double viz_contrast(viz_colour a, viz_colour b) {
    double high = fmax(viz_luminance(a), viz_luminance(b));
    double low = fmin(viz_luminance(a), viz_luminance(b));
    return (high + 0.05) / (low + 0.05);
}

viz_colour viz_label_colour(viz_colour fill) {
    viz_colour ink = 0x14161a, paper = 0xffffff;
    return viz_contrast(fill, ink) > viz_contrast(fill, paper) ? ink : paper;
}
