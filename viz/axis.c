/* The axis: one linear scale, a unit that suits its range, and ticks at 1, 2 or 5 times a power of
 * ten, as dense as their labels allow. */
#include "viz/chart_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const viz_unit seconds_units[] = {
    {"ns", 1e-9}, {"µs", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"h", 3600},
};
static const viz_unit bytes_units[] = {
    {"B", 1}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0},
};
static const viz_unit share_units[] = {{"%", 0.01}};

static const struct {
    const viz_unit *units;
    int count;
    double nothing; /* the range of an axis on which nothing happened */
} quantities[] = {[VIZ_TIME] = {seconds_units, 5, 1e-9},
                  [VIZ_BYTES] = {bytes_units, 5, 1},
                  [VIZ_SHARE] = {share_units, 1, 0.01}};

/* The largest unit of which the range holds at least two (hours: five). */
static const viz_unit *unit_for(viz_quantity quantity, double range) {
    const viz_unit *units = quantities[quantity].units;
    int chosen = 0;
    while (chosen + 1 < quantities[quantity].count &&
           range >= (units[chosen + 1].size == 3600 ? 5 : 2) * units[chosen + 1].size)
        chosen++;
    return &units[chosen];
}

/* The next of … 1, 2, 5, 10 … after step. */
static double next_step(double step) {
    double power = pow(10, floor(log10(step * 1.0001)));
    double mantissa = step / power;
    return power * (mantissa < 1.5 ? 2 : mantissa < 3 ? 5 : 10);
}

static int decimals_of(double step) {
    double digits = ceil(-log10(step) - 1e-6);
    return digits < 0 ? 0 : digits > 12 ? 12 : (int)digits;
}

/* Width of the widest label with this step. */
static double widest_label(viz_canvas *canvas, double size, const viz_axis *axis) {
    char low[32], high[32];
    int decimals = axis->decimals;
    double a =
        viz_label_width(canvas, size, viz_fixed(axis->low / axis->unit->size, decimals, low));
    double b =
        viz_label_width(canvas, size, viz_fixed(axis->high / axis->unit->size, decimals, high));
    return fmax(a, b);
}

viz_axis viz_axis_make(viz_canvas *canvas, double size, double low, double high, double left,
                       double right, viz_quantity quantity) {
    if (!(high - low > 1e-12 * fmax(fabs(low), fabs(high)) && high - low > 1e-15))
        high = low + quantities[quantity].nothing; /* nothing happened: some axis all the same */
    viz_axis axis = {.low = low, .high = high, .left = left, .right = right};
    axis.unit = unit_for(quantity, high - low);
    double range = (high - low) / axis.unit->size, per_point = range / (right - left);
    axis.step = pow(10, floor(log10(range)) - 2);
    if (axis.unit == bytes_units) axis.step = fmax(axis.step, 1); /* no part of a byte */
    for (;; axis.step = next_step(axis.step)) {
        axis.decimals = decimals_of(axis.step);
        double room = axis.step / per_point;
        if (room >= 44 && room >= widest_label(canvas, size, &axis) + 20) return axis;
    }
}

double viz_axis_at(const viz_axis *axis, double value) {
    return axis->left + (value - axis->low) / (axis->high - axis->low) * (axis->right - axis->left);
}

bool viz_axis_tick(const viz_axis *axis, int i, double *position, char label[32]) {
    double first = ceil(axis->low / axis->unit->size / axis->step - 1e-9);
    double value = (first + i) * axis->step;
    *position = viz_axis_at(axis, value * axis->unit->size);
    char buffer[32];
    int decimals = first + i == 0 ? 0 : axis->decimals;
    if (label) snprintf(label, 32, "%s", viz_fixed(value, decimals, buffer));
    return *position <= axis->right + 1e-6;
}

const char *viz_seconds_text(double seconds, char buffer[32]) {
    if (seconds >= 5 * 3600) { /* as on the axis */
        char digits[32];
        snprintf(buffer, 32, "%s h",
                 viz_fixed(seconds / 3600, seconds < 3600 * 100 ? 1 : 0, digits));
        return buffer;
    }
    pp_format_seconds(seconds, buffer);
    size_t length = strlen(buffer);
    if (length > 3 && length < 31 && strcmp(buffer + length - 3, " us") == 0)
        memcpy(buffer + length - 2, "µs", sizeof "µs");
    return buffer;
}

const char *viz_percent_text(double fraction, char buffer[32]) {
    char digits[32];
    if (!(fabs(fraction) < 1e6)) return memcpy(buffer, "–", sizeof "–");
    snprintf(buffer, 32, "%s %%", viz_fixed(100 * fraction, 1, digits));
    return buffer;
}
