/* The palette is held to what it promises: readable labels, kinds that stay apart for colour-blind
 * people and in grey, idle time lighter than everything. */
#include "tests/live_bytes.h"
#include "viz_support.h"

COUNTED_SUITE(palette);

static double lightness(viz_colour colour) { /* CIE L*, 0 to 100 */
    double y = viz_luminance(colour);
    return y > 0.008856 ? 116 * cbrt(y) - 16 : 903.3 * y;
}

static pp_action action_of(int kind, uint32_t microbatch) {
    return (pp_action){.kind = (unsigned)kind & 127, .microbatch = microbatch};
}

static viz_colour fill_of(int kind, uint32_t microbatch, int chunk, int chunks) {
    return viz_action_colour(viz_theme_get(false), action_of(kind, microbatch), chunk, chunks);
}

static bool is_strip(int kind) {
    return kind >= PP_SEND_F && kind <= PP_RECV_B;
}

Test(palette, labels_can_be_read_and_keep_their_colour) {
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++)
        for (int chunks = 1; chunks <= 8; chunks++)
            for (int chunk = 0; chunk < chunks; chunk++) {
                if (is_strip(kind)) continue;
                viz_colour even = fill_of(kind, 0, chunk, chunks);
                bool alternates = viz_kind_get((unsigned)kind)->letter != NULL;
                viz_colour odd = alternates ? fill_of(kind, 1, chunk, chunks) : even;
                viz_colour ink = viz_label_colour(even);
                cr_expect_eq(viz_label_colour(odd), ink, "kind %d, stage %d of %d: %06x and %06x",
                             kind, chunk, chunks, even, odd);
                cr_expect_geq(viz_contrast(even, ink), 4.5, "kind %d, %06x", kind, even);
                cr_expect_geq(viz_contrast(odd, ink), 4.5, "kind %d, %06x", kind, odd);
            }
}

Test(palette, neighbours_and_stages_differ) {
    for (int kind = 0; kind <= PP_RECOMPUTE; kind++) {
        cr_expect_geq(lightness(fill_of(kind, 1, 0, 1)) - lightness(fill_of(kind, 0, 0, 1)), 3,
                      "microbatches of kind %d", kind);
        for (int chunks = 2; chunks <= 4; chunks++)
            for (int chunk = 1; chunk < chunks; chunk++)
                cr_expect_geq(lightness(fill_of(kind, 0, chunk, chunks)) -
                                  lightness(fill_of(kind, 0, chunk - 1, chunks)),
                              0.5, "kind %d, stage %d of %d", kind, chunk, chunks);
    }
}

Test(palette, idle_time_is_the_lightest) {
    double idle = lightness(viz_theme_get(false)->idle);
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++)
        for (uint32_t m = 0; m < 2; m++)
            cr_expect_geq(idle - lightness(fill_of(kind, m, 3, 4)), 3, "kind %d", kind);
    /* on a dark page it is the darkest */
    const viz_theme *dark = viz_theme_get(true);
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++)
        cr_expect_geq(lightness(viz_action_colour(dark, action_of(kind, 0), 0, 1)) -
                          lightness(dark->idle),
                      10, "kind %d", kind);
}

Test(palette, kinds_that_meet_differ_in_grey) {
    static const int pairs[][2] = {
        {PP_FORWARD, PP_BACKWARD}, {PP_FORWARD, PP_INPUT},      {PP_FORWARD, PP_WEIGHT},
        {PP_INPUT, PP_WEIGHT},     {PP_RECOMPUTE, PP_BACKWARD}, {PP_RECOMPUTE, PP_FORWARD},
        {PP_STEP, PP_REDUCE_GRAD}, {PP_BACKWARD, PP_STEP},      {PP_SEND_F, PP_STEP}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        cr_expect_geq(fabs(lightness(fill_of(pairs[i][0], 0, 0, 1)) -
                           lightness(fill_of(pairs[i][1], 0, 0, 1))),
                      10, "kinds %d and %d", pairs[i][0], pairs[i][1]);
}

/* What a colour looks like without one kind of cone: the matrices for severity 1.0 of Machado,
 * Oliveira and Fernandes 2009, in linear light. Then CIE Lab. */
static void seen_as(viz_colour colour, const double matrix[3][3], double lab[3]) {
    double rgb[3], seen[3], f[3];
    static const double to_xyz[3][3] = {
        {0.4124, 0.3576, 0.1805}, {0.2126, 0.7152, 0.0722}, {0.0193, 0.1192, 0.9505}};
    static const double white[3] = {0.9505, 1, 1.089};
    for (int i = 0; i < 3; i++) {
        double v = (double)(colour >> (16 - 8 * i) & 255) / 255;
        rgb[i] = v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4);
    }
    for (int i = 0; i < 3; i++)
        seen[i] = fmax(0, matrix[i][0] * rgb[0] + matrix[i][1] * rgb[1] + matrix[i][2] * rgb[2]);
    for (int i = 0; i < 3; i++) {
        double t =
            (to_xyz[i][0] * seen[0] + to_xyz[i][1] * seen[1] + to_xyz[i][2] * seen[2]) / white[i];
        f[i] = t > 0.008856 ? cbrt(t) : 7.787 * t + 16.0 / 116;
    }
    lab[0] = 116 * f[1] - 16;
    lab[1] = 500 * (f[0] - f[1]);
    lab[2] = 200 * (f[1] - f[2]);
}

Test(palette, kinds_differ_for_colour_blind_people) {
    static const double eyes[3][3][3] = {
        {{0.152286, 1.052583, -0.204868},
         {0.114503, 0.786281, 0.099216},
         {-0.003882, -0.048116, 1.051998}}, /* protanopia */
        {{0.367322, 0.860646, -0.227968},
         {0.280085, 0.672501, 0.047413},
         {-0.011820, 0.042940, 0.968881}}, /* deuteranopia */
        {{1.255528, -0.076749, -0.178779},
         {-0.078411, 0.930809, 0.147602},
         {0.004733, 0.691367, 0.303900}}, /* tritanopia */
    };
    static const int kinds[] = {PP_FORWARD,   PP_BACKWARD,    PP_INPUT, PP_WEIGHT,
                                PP_RECOMPUTE, PP_REDUCE_GRAD, PP_STEP};
    for (int eye = 0; eye < 3; eye++)
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
            for (size_t j = 0; j < i; j++) {
                double a[3], b[3];
                seen_as(fill_of(kinds[i], 0, 0, 1), eyes[eye], a);
                seen_as(fill_of(kinds[j], 0, 0, 1), eyes[eye], b);
                double distance = hypot(hypot(a[0] - b[0], a[1] - b[1]), a[2] - b[2]);
                cr_expect_geq(distance, 14.5, "kinds %d and %d, eye %d: %.1f", kinds[i], kinds[j],
                              eye, distance);
            }
}
