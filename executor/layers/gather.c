/* Rows of a table looked up by number, and the gradients of rows added back to it: by token, or by
 * position, which repeats after `period` rows (1: every row gets the same). Row by row, so the
 * order of the sums is fixed. */
#define PP_THIS_FILE "executor/layers/gather.c"
#include "executor/layers/real.h"

#ifdef real

void gather_tokens(int64_t rows, int64_t dim, const int32_t *tokens, const real *table, real *y) {
    for (int64_t r = 0; r < rows; r++)
        copy_or_add(dim, table + tokens[r] * dim, y + r * dim, false);
}

void add_positions(int64_t rows, int64_t dim, int64_t period, const real *table, real *y) {
    for (int64_t r = 0; r < rows; r++)
        copy_or_add(dim, table + r % period * dim, y + r * dim, true);
}

void scatter_tokens(int64_t rows, int64_t dim, const int32_t *tokens, const real *dy,
                    real *gradient) {
    for (int64_t r = 0; r < rows; r++)
        copy_or_add(dim, dy + r * dim, gradient + tokens[r] * dim, true);
}

void scatter_positions(int64_t rows, int64_t dim, int64_t period, const real *dy, real *gradient) {
    for (int64_t r = 0; r < rows; r++)
        copy_or_add(dim, dy + r * dim, gradient + r % period * dim, true);
}

#endif
