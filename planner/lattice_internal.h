/* Where a model that branches can be cut, and the best way to do it: lattice.c, lattice_cut.c. */
#ifndef PPSIM_LATTICE_INTERNAL_H
#define PPSIM_LATTICE_INTERNAL_H

#include "core/core.h"

/* Which cuts are known: all; those in which a source enters with a layer that reads it; those of a
 * handful of topological orders. */
typedef enum pp_lattice_family { PP_CUTS_ALL, PP_CUTS_TOUCHED, PP_CUTS_ORDERS } pp_lattice_family;

/* A family of ideals, numbered so that a set never stands before one of its subsets. */
typedef struct pp_lattice {
    int count, layers, words;
    pp_lattice_family family;
    uint64_t *members; /* [count][words] a bit per layer of the file */
    int *sizes;        /* [count] layers in it */
} pp_lattice;

/* One topological order only: the file's. */
bool pp_model_is_linear(const pp_model *model);

/* The first of the families above, from `widest` on, that has at most `limit` ideals; the last in any
 * case. Lives in the arena. O(ideals · layers · layers / 64). */
pp_status pp_lattice_make(const pp_model *model, pp_lattice_family widest, int limit,
                          pp_arena *arena, pp_lattice *lattice, pp_error *error);
bool pp_lattice_has(const pp_lattice *lattice, int index, int layer);
/* Whether one set is part of another, or equal. */
bool pp_lattice_within(const pp_lattice *lattice, int smaller, int larger);
/* splits: [stages - 1] the ideals in front of stages 1 …, each within the next. Fills order
 * [layers], a topological order in which every stage is an interval and has the file's order
 * inside, and positions [stages - 1], where stages 1 … begin in it. */
void pp_lattice_order(const pp_lattice *lattice, const int *splits, int stages, int *order,
                      int *positions);

#endif
